//! One HTTP request as the server sees it: from a path and a verb to the doors of the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Api, DeleteOptions, FieldValidation, PatchKind, PatchRequest, Propagation, Status, WriteOptions, discovery, events,
    openapi,
    resources::Resource,
    tables,
    write::{name, space},
};
use crate::{
    core::yaml,
    sandbox::schema::{self, protobuf},
};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Without the query, decoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// "" where there is none.
    pub content_type: String,
    /// "" where there is none.
    pub accept: String,
    /// "" where there is none.
    pub user_agent: String,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// What is sent in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// JSON.
    Json(Value),
    /// Plain text.
    Text(&'static str),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// What is sent.
    pub body: Body,
    /// The body's media type.
    pub content_type: &'static str,
    /// For the header `Warning`.
    pub warnings: Vec<String>,
}

impl Response {
    /// Builds an answer in JSON.
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, body: Body::Json(body), content_type: "application/json", warnings: Vec::new() }
    }

    fn text(body: &'static str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status: 200, body: Body::Text(body), content_type, warnings: Vec::new() }
    }

    /// Returns the body where it is JSON; null where it is not.
    pub fn value(&self) -> &Value {
        match &self.body {
            Body::Json(value) => value,
            _ => &Value::Null,
        }
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self::json(status.code, status.to_value())
    }
}

/// How an object is to be written in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    Table,
    Metadata,
}

impl Request {
    /// Returns the first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether a query parameter is set to true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1" | ""))
    }

    /// Returns the form that the client likes best of those that there are.
    pub(super) fn form(&self) -> Result<Form, Status> {
        if self.accept.is_empty() {
            return Ok(Form::Object);
        }
        for wanted in self.accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
                continue;
            }
            let parameters: Vec<&str> = parts.collect();
            match parameters.iter().find_map(|parameter| parameter.strip_prefix("as=")) {
                None => return Ok(Form::Object),
                Some("Table") if parameters.contains(&"v=v1") => return Ok(Form::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
                Some(_) => {}
            }
        }
        Err(Status::not_acceptable())
    }

    pub(super) fn json_body(&self) -> Result<Value, Status> {
        const SPOKEN: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        match self.content_type.split(';').next().unwrap_or_default().trim() {
            "" | "application/json" | "application/yaml" => self.any_body(),
            "application/vnd.kubernetes.protobuf" => self.protobuf_body(),
            other => Err(Status::unsupported_media_type(other, SPOKEN)),
        }
    }

    fn protobuf_body(&self) -> Result<Value, Status> {
        let broken = || Status::bad_request("the body of the request cannot be read as Protobuf");
        let envelope = protobuf::open(&self.body).ok_or_else(broken)?;
        // The kinds of questions and options are in no table of resources, but the schema has them.
        let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
        let types = schema::builtin();
        let options = || types.shape("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
        let shape = types
            .object(group, version, &envelope.kind)
            .or_else(|| (envelope.kind == "DeleteOptions").then(options).flatten())
            .ok_or_else(|| {
                let (kind, version) = (&envelope.kind, &envelope.api_version);
                Status::bad_request(format!("no kind {kind:?} is registered for version {version:?}"))
            })?;
        envelope.read(&shape).ok_or_else(broken)
    }

    fn any_body(&self) -> Result<Value, Status> {
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return Ok(value);
        }
        let unrecognized = |why: &str| {
            Status::bad_request(format!("the object provided is unrecognized (must be of type JSON): {why}"))
        };
        let mut documents = yaml::parse("body", &self.body, &yaml::Limits::MANIFESTS)
            .map_err(|problem| unrecognized(&problem.message))?;
        match (documents.pop(), documents.is_empty()) {
            (Some(document), true) => Ok(document.into_value()),
            _ => Err(unrecognized("it is not one document")),
        }
    }

    pub(super) fn options(&self) -> Result<WriteOptions, Status> {
        let mut dry = self.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        let dry_run = match dry.next() {
            None | Some("") => false,
            Some("All") => true,
            Some(other) => {
                return Err(Status::new(
                    422,
                    "Invalid",
                    format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""),
                ));
            }
        };
        let validation = match self.parameter("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(Status::new(
                    422,
                    "Invalid",
                    format!(
                        "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
                    ),
                ));
            }
        };
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        let manager = match self.parameter("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ if agent.is_empty() => "unknown".to_owned(),
            _ => agent.to_owned(),
        };
        Ok(WriteOptions { manager, dry_run, validation })
    }

    fn delete_options(&self) -> Result<DeleteOptions, Status> {
        let body = if self.body.is_empty() { json!({}) } else { self.json_body()? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let propagation = text(&body["propagationPolicy"]);
        let propagation = match propagation.as_deref().or_else(|| self.parameter("propagationPolicy")) {
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Background") => Some(Propagation::Background),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                return Err(Status::new(
                    422,
                    "Invalid",
                    format!(
                        "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: \
                     supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                    ),
                ));
            }
            None if body["orphanDependents"] == true => Some(Propagation::Orphan),
            None if body["orphanDependents"] == false => Some(Propagation::Background),
            None => None,
        };
        let grace = self.parameter("gracePeriodSeconds").and_then(|text| text.parse().ok());
        let in_body = body["dryRun"].as_array().is_some_and(|dry| dry.iter().any(|value| value == "All"));
        Ok(DeleteOptions {
            propagation,
            grace_period_seconds: body["gracePeriodSeconds"].as_i64().or(grace),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: in_body || self.options()?.dry_run,
        })
    }
}

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
        if let Some(answer) = review(path, request)? {
            return Ok(answer);
        }
        let target = self.target(path).ok_or_else(Status::no_path)?;
        self.verb(request, &target)
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
        let object = incoming(request.json_body()?, &target.resource);
        let options = request.options()?;
        let resource = self.stored_resource(&target.resource);
        check_kind(&object, &resource)?;
        if resource.namespaced && target.namespace.is_empty() {
            return Err(Status::method_not_allowed());
        }
        let namespace = resource.namespaced.then_some(target.namespace.as_str());
        let made = self.create_in(&resource, object, namespace, &options, None)?;
        Ok(self.one(201, &made, target, form, request))
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
            return Err(Status::new(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if kind != PatchKind::Apply && request.flag("force") {
            return Err(Status::new(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ));
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
                Ok(Response::json(
                    200,
                    json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                        "details": {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid},
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
            return Err(target.resource.about(name).conflict(&why));
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

/// Answers what a client may do: everything.
fn review(path: &str, request: &Request) -> Result<Option<Response>, Status> {
    let answer = match path {
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            let mut review = request.json_body()?;
            review["status"] = json!({"allowed": true});
            review
        }
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            let mut review = request.json_body()?;
            review["status"] = json!({"userInfo": {"username": "sandbox", "groups": ["system:masters"]}});
            review
        }
        _ => return Ok(None),
    };
    if request.method != "POST" {
        return Err(Status::method_not_allowed());
    }
    Ok(Some(Response::json(201, answer)))
}

fn check_kind(object: &Value, resource: &Resource) -> Result<(), Status> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() && version.is_empty() {
        return Err(Status::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    if version != resource.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            resource.api_version
        )));
    }
    if kind != resource.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: no kind {kind:?} is registered for version {version:?}",
            resource.version, resource.kind
        )));
    }
    Ok(())
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
