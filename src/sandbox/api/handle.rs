//! One HTTP request as the server sees it: from a path and a verb to the doors of the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Api, PatchKind, PatchRequest, Status, discovery, events, openapi,
    request::{Form, Request, Response},
    resources::Resource,
    tables,
    write::{name, space},
};

/// Where a path leads.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub resource: Arc<Resource>,
    /// "" for all namespaces, and for objects of the cluster.
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Api {
    /// Answers one request. Never blocks; a watch is opened with [`Api::open_watch`] instead.
    pub fn handle(&mut self, request: &Request) -> Response {
        self.warnings.clear();
        let mut response = self.answer(request).unwrap_or_else(Response::from);
        response.warnings = std::mem::take(&mut self.warnings);
        response
    }

    fn answer(&mut self, request: &Request) -> Result<Response, Status> {
        let path = request.path.trim_end_matches('/');
        match path {
            "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping" => {
                return Ok(Response::text("ok"));
            }
            "/version" => return Ok(Response::json(200, discovery::version())),
            _ => {}
        }
        if let Some(answer) = openapi::answer(&self.registry, path) {
            return Ok(answer);
        }
        if let Some(answer) = discovery::answer(&self.registry, path, &request.accept) {
            return Ok(answer);
        }
        if let Some(answer) = self.review(path, request)? {
            return Ok(answer);
        }
        match self.target(path) {
            Some(target) => {
                self.authorise(request, &target)?;
                self.verb(request, &target)
            }
            None if self.serves(path) => Err(Status::no_path()),
            None => Ok(Response { status: 404, ..Response::text("404 page not found\n") }),
        }
    }

    /// Returns whether a path is below a group and version that is served.
    fn serves(&self, path: &str) -> bool {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (group, version) = match segments.next() {
            Some("api") => (Some(""), segments.next()),
            _ => (segments.next(), segments.next()),
        };
        group.zip(version).is_some_and(|(group, version)| self.registry.has_version(group, version))
    }

    /// Finds what a path is about.
    pub(super) fn target(&self, path: &str) -> Option<Target> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        let resource = self.registry.at_path(group, version, plural)?.clone();
        if subresource.is_some_and(|subresource| !resource.has(subresource)) {
            return None;
        }
        if !resource.namespaced && !namespace.is_empty()
            || resource.namespaced && namespace.is_empty() && name.is_some()
        {
            return None;
        }
        Some(Target {
            resource,
            namespace: namespace.to_owned(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    fn verb(&mut self, request: &Request, target: &Target) -> Result<Response, Status> {
        let form = request.form()?;
        let method = request.method.as_str();
        match (&target.name, target.subresource.as_deref(), method) {
            (None, None, "GET") => self.answer_list(request, target, form),
            (None, None, "POST") => self.answer_create(request, target, form),
            (None, None, "DELETE") => self.answer_delete_all(request, target),
            (Some(name), Some("scale"), "GET" | "PUT") => self.answer_scale(request, target, name),
            (Some(name), Some("eviction"), "POST") => {
                let options = request.options()?;
                let eviction = request.json_body()?;
                self.evict(&target.namespace, name, &eviction, options.dry_run)?;
                Ok(Response::json(
                    201,
                    json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
                    }),
                ))
            }
            (Some(name), Some("binding"), "POST") => self.answer_binding(request, target, name),
            (Some(name), None | Some("status"), "GET") => {
                let found = self.store.get(&target.resource.key, &target.namespace, name);
                let found = found.cloned().ok_or_else(|| target.resource.about(name).not_found())?;
                Ok(self.one(200, &found, target, form, request))
            }
            (Some(name), subresource, "PUT") => {
                let mut object = incoming(request.json_body()?, &target.resource);
                let options = request.options()?;
                fit_to_path(&mut object, target, name)?;
                let resource = self.stored_resource(&target.resource);
                let made = self.update_in(&resource, object, subresource.unwrap_or_default(), &options, true)?;
                Ok(self.one(200, &made, target, form, request))
            }
            (Some(name), subresource, "PATCH") => self.answer_patch(request, target, name, subresource, form),
            (Some(name), None, "DELETE") => self.answer_delete(request, target, name, form),
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Events are stored in one form whatever group they came through.
    fn stored_resource(&self, resource: &Arc<Resource>) -> Arc<Resource> {
        if resource.custom.is_some() {
            return resource.clone();
        }
        self.registry.of_key(&resource.key).unwrap_or(resource).clone()
    }

    fn answer_create(&mut self, request: &Request, target: &Target, form: Form) -> Result<Response, Status> {
        let mut object = incoming(request.json_body()?, &target.resource);
        let options = request.options()?;
        let resource = self.stored_resource(&target.resource);
        self.check_kind(&mut object, &resource)?;
        if resource.namespaced && target.namespace.is_empty() {
            return Err(Status::method_not_allowed());
        }
        let namespace = resource.namespaced.then_some(target.namespace.as_str());
        let made = self.create_in(&resource, object, namespace, &options, None)?;
        Ok(self.one(201, &made, target, form, request))
    }

    /// Checks that an object is of the kind that its path is for; what does not say so is taken for it.
    fn check_kind(&self, object: &mut Value, resource: &Resource) -> Result<(), Status> {
        if let Value::Object(members) = object {
            for (name, own) in [("apiVersion", &resource.api_version), ("kind", &resource.kind)] {
                members.entry(name).or_insert_with(|| own.as_str().into());
            }
        }
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != resource.api_version {
            return Err(Status::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({})",
                resource.api_version
            )));
        }
        if kind != resource.kind {
            let known = self.registry.of_kind(version, kind).is_some();
            let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
            let why = if known {
                format!("converting ({}.{kind}) to ({group}.{}): unknown conversion", resource.version, resource.kind)
            } else {
                format!("no kind {kind:?} is registered for version {version:?}")
            };
            return Err(Status::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {}: {why}",
                resource.version, resource.kind
            )));
        }
        Ok(())
    }

    fn answer_patch(
        &mut self,
        request: &Request,
        target: &Target,
        name: &str,
        subresource: Option<&str>,
        form: Form,
    ) -> Result<Response, Status> {
        let kind = PatchKind::from_content_type(&request.content_type).ok_or_else(|| {
            let supported = "application/json-patch+json, application/merge-patch+json, \
                             application/strategic-merge-patch+json, application/apply-patch+yaml";
            Status::unsupported_media_type(&request.content_type, supported)
        })?;
        let manager = request.parameter("fieldManager").unwrap_or_default();
        if kind == PatchKind::Apply && manager.is_empty() {
            let message = "Required value: is required for apply patch".to_owned();
            return Err(Status::wrong_option("PatchOptions", "fieldManager", "FieldValueRequired", message));
        }
        if kind != PatchKind::Apply && request.flag("force") {
            let message = "Forbidden: may not be specified for non-apply patch".to_owned();
            return Err(Status::wrong_option("PatchOptions", "force", "FieldValueForbidden", message));
        }
        let resource = self.stored_resource(&target.resource);
        let existed = self.store.get(&resource.key, &target.namespace, name).is_some();
        let patch = PatchRequest {
            resource: resource.key.to_string(),
            namespace: target.namespace.clone(),
            name: name.to_owned(),
            subresource: subresource.map(str::to_owned),
            kind,
            body: incoming(request.any_body()?, &target.resource),
            force: request.flag("force"),
            options: request.options()?,
        };
        let made = self.patch_in(&resource, patch)?;
        if subresource == Some("scale") {
            return Ok(Response::json(200, Value::clone(&made)));
        }
        Ok(self.one(if existed { 200 } else { 201 }, &made, target, form, request))
    }

    fn answer_delete(
        &mut self,
        request: &Request,
        target: &Target,
        name: &str,
        form: Form,
    ) -> Result<Response, Status> {
        let options = request.delete_options()?;
        let resource = &target.resource;
        let live = self.store.get(&resource.key, &target.namespace, name).cloned();
        match self.delete(&resource.key, &target.namespace, name, options)? {
            Some(held) => Ok(self.one(200, &held, target, form, request)),
            None => {
                let uid = live.map(|live| live["metadata"]["uid"].clone()).unwrap_or_default();
                let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
                if !resource.group.is_empty() {
                    details["group"] = resource.group.as_str().into();
                }
                Ok(Response::json(
                    200,
                    json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                    }),
                ))
            }
        }
    }

    fn answer_delete_all(&mut self, request: &Request, target: &Target) -> Result<Response, Status> {
        if target.resource.namespaced && target.namespace.is_empty() {
            return Err(Status::method_not_allowed());
        }
        let options = request.delete_options()?;
        let all = self.answer_list(request, target, Form::Object)?;
        for object in all.value()["items"].as_array().into_iter().flatten() {
            match self.delete(&target.resource.key, space(object), name(object), options.clone()) {
                Ok(_) => {}
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(all)
    }

    fn answer_binding(&mut self, request: &Request, target: &Target, name: &str) -> Result<Response, Status> {
        let binding = request.json_body()?;
        let options = request.options()?;
        let live = self.store.get("pods", &target.namespace, name).cloned();
        let mut pod = Value::clone(&*live.ok_or_else(|| target.resource.about(name).not_found())?);
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            let why = format!("pod {name} is already assigned to node {node:?}");
            let binding = super::status::About { group: "", plural: "pods/binding", kind: "Pod", name };
            return Err(binding.conflict(&why));
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.update_in(&target.resource, pod, "binding", &options, true)?;
        Ok(Response::json(
            201,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
            }),
        ))
    }

    /// Answers with one object.
    pub(super) fn one(
        &self,
        status: u16,
        object: &Arc<Value>,
        target: &Target,
        form: Form,
        request: &Request,
    ) -> Response {
        let resource = &target.resource;
        let body = match form {
            Form::Object => outgoing(object, resource, false),
            Form::Metadata => partial(object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                tables::table(
                    resource,
                    std::slice::from_ref(object),
                    metadata,
                    self.now,
                    request.parameter("includeObject"),
                )
            }
        };
        Response::json(status, body)
    }
}

fn fit_to_path(object: &mut Value, target: &Target, wanted: &str) -> Result<(), Status> {
    if !object["metadata"].is_object() {
        return Err(Status::bad_request("the object provided has no metadata"));
    }
    let given = name(object);
    if given != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        )));
    }
    let given = space(object);
    if !given.is_empty() && given != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if target.resource.namespaced {
        object["metadata"]["namespace"] = target.namespace.clone().into();
    }
    Ok(())
}

/// Brings what was sent into the form that is stored.
fn incoming(mut object: Value, resource: &Resource) -> Value {
    if events::is_new(resource) {
        events::to_core(&mut object);
    }
    object
}

/// Returns an object as it is written in answers, in the version that was asked for.
pub(super) fn outgoing(object: &Value, resource: &Resource, in_list: bool) -> Value {
    let mut made = object.clone();
    if events::is_new(resource) {
        events::from_core(&mut made);
    } else if resource.custom.is_some() {
        made["apiVersion"] = resource.api_version.clone().into();
    }
    // Items of lists say neither, but for custom resources: so does the real server.
    if let (true, None, Some(members)) = (in_list, &resource.custom, made.as_object_mut()) {
        members.remove("apiVersion");
        members.remove("kind");
    }
    made
}

/// Returns just an object's metadata.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
