//! Creating, updating and patching.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Api, defaults,
    managed::{self, Writer},
    patch::{self, PatchKind},
    resources::Resource,
    status::Status,
    time, validate,
};
use crate::sandbox::schema::decode::{self, Mode};

/// What is done with fields that the schema does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    #[default]
    Ignore,
    /// They are dropped, and a warning is answered.
    Warn,
    /// The request is refused.
    Strict,
}

/// How a write is made.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The field manager.
    pub manager: String,
    /// Do everything but write.
    pub dry_run: bool,
    /// What is done with unknown fields.
    pub validation: FieldValidation,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { manager: "kube-controller-manager".into(), dry_run: false, validation: FieldValidation::Ignore }
    }
}

/// A patch of one object.
#[derive(Clone, Debug)]
pub struct PatchRequest {
    /// `pods`, `deployments.apps`.
    pub resource: String,
    /// "" for objects of the cluster.
    pub namespace: String,
    /// The object.
    pub name: String,
    /// `status`, `scale`.
    pub subresource: Option<String>,
    /// How `body` is read.
    pub kind: PatchKind,
    /// The patch.
    pub body: Value,
    /// Whether an apply takes fields over from other managers.
    pub force: bool,
    /// How it is written.
    pub options: WriteOptions,
}

/// Longest object that is stored, in bytes of JSON: etcd's limit for a request.
const LONGEST: usize = 1_572_864;

impl Api {
    /// Creates an object.
    ///
    /// # Errors
    ///
    /// 404 where its namespace or kind does not exist, 409 where it exists, 422 where it is wrong.
    pub fn create(&mut self, object: Value) -> Result<Arc<Value>, Status> {
        self.create_with(object, &WriteOptions::default())
    }

    /// Creates an object, as [`Api::create`].
    ///
    /// # Errors
    ///
    /// As [`Api::create`].
    pub fn create_with(&mut self, object: Value, options: &WriteOptions) -> Result<Arc<Value>, Status> {
        let resource = self.resource_of(&object)?;
        self.create_in(&resource, object, None, options, None)
    }

    /// Replaces an object, or its `status`. Its resource version is checked when it is given.
    ///
    /// # Errors
    ///
    /// 404 where it does not exist, 409 where the resource version or UID is not the object's, 422 where it is wrong.
    pub fn update(&mut self, object: Value, subresource: Option<&str>) -> Result<Arc<Value>, Status> {
        self.update_with(object, subresource, &WriteOptions::default())
    }

    /// Replaces an object, as [`Api::update`].
    ///
    /// # Errors
    ///
    /// As [`Api::update`].
    pub fn update_with(
        &mut self,
        object: Value,
        subresource: Option<&str>,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, Status> {
        let resource = self.resource_of(&object)?;
        self.update_in(&resource, object, subresource.unwrap_or_default(), options, true)
    }

    /// Patches an object; server-side apply creates it where it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Api::update`]; 409 with the conflicting fields for an apply.
    pub fn patch(&mut self, request: PatchRequest) -> Result<Arc<Value>, Status> {
        let resource = self.registry.of_key(&request.resource).cloned().ok_or_else(Status::no_path)?;
        self.patch_in(&resource, request)
    }

    fn resource_of(&self, object: &Value) -> Result<Arc<Resource>, Status> {
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        self.registry.of_kind(text("apiVersion"), text("kind")).cloned().ok_or_else(Status::no_path)
    }

    /// Reads what was sent by the schema and reports what it does not know.
    pub(super) fn decode(
        &mut self,
        value: &mut Value,
        resource: &Resource,
        mode: Mode,
        validation: FieldValidation,
    ) -> Result<(), Status> {
        let report = decode::decode(value, &resource.shape, mode);
        let (kind, version) = (&resource.kind, &resource.version);
        let refused = |why: &str| {
            Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        };
        if let Some(wrong) = report.wrong {
            return Err(match resource.custom {
                None => refused(&wrong),
                Some(_) => {
                    let name = value["metadata"]["name"].as_str().unwrap_or_default();
                    let cause = super::Cause { reason: "FieldValueTypeInvalid", message: wrong, field: String::new() };
                    resource.about(name).invalid(vec![cause])
                }
            });
        }
        let unknown: Vec<String> = report.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        match validation {
            FieldValidation::Strict if !unknown.is_empty() => {
                Err(refused(&format!("strict decoding error: {}", unknown.join(", "))))
            }
            FieldValidation::Warn => {
                self.warnings.extend(unknown);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create_in(
        &mut self,
        resource: &Arc<Resource>,
        mut object: Value,
        namespace: Option<&str>,
        options: &WriteOptions,
        owners: Option<Value>,
    ) -> Result<Arc<Value>, Status> {
        if !object.is_object() {
            return Err(Status::bad_request("the object provided is not an object"));
        }
        if object.get("metadata").is_none_or(Value::is_null) {
            object["metadata"] = json!({});
        }
        self.decode(&mut object, resource, Mode::Object, options.validation)?;
        self.settle_namespace(&mut object, resource, namespace, true)?;
        // A dry run uses up neither identifiers nor addresses.
        let (random, addresses) = (self.random.clone(), self.addresses);
        let made = self.born(&mut object, resource, options, owners).and_then(|()| self.fits(&object, resource));
        if let (true, Ok(())) | (_, Err(_)) = (options.dry_run, &made) {
            (self.random, self.addresses) = (random, addresses);
        }
        made?;
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = self.store.put(&resource.key, object);
        self.after_write(&stored, resource);
        Ok(self.store.get(&resource.key, space(&stored), name(&stored)).cloned().unwrap_or(stored))
    }

    /// Sets what the server sets in a new object, and checks it.
    fn born(
        &mut self,
        object: &mut Value,
        resource: &Resource,
        options: &WriteOptions,
        owners: Option<Value>,
    ) -> Result<(), Status> {
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) && metadata["generateName"].is_string() {
            let base: String = metadata["generateName"].as_str().unwrap_or_default().chars().take(58).collect();
            metadata["name"] = format!("{base}{}", self.random.suffix()).into();
        }
        if metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if let Some(metadata) = metadata.as_object_mut() {
            for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
                metadata.remove(name);
            }
            metadata.insert("uid".into(), self.random.uid().into());
            metadata.insert("creationTimestamp".into(), time::seconds(self.now).into());
            metadata.remove("generation");
            if resource.generation {
                metadata.insert("generation".into(), 1.into());
            }
        }
        if resource.has("status") {
            if let Some(members) = object.as_object_mut() {
                let status = initial_status(resource);
                let written = resource.shape.as_type().and_then(|of| of.fields.get("status"));
                match status {
                    Some(status) => drop(members.insert("status".into(), status)),
                    None if written.is_some_and(|field| field.always_written) => {
                        members.insert("status".into(), json!({}));
                        decode::decode(&mut members["status"], &written_shape(resource), Mode::Object);
                    }
                    None => drop(members.remove("status")),
                }
            }
        }
        if resource.kind == "Namespace" && resource.custom.is_none() {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        defaults::fill(object, kind_of(resource));
        self.allocate(object, resource);
        let causes = validate::object(object, resource);
        let named = name(object).to_owned();
        if !causes.is_empty() {
            return Err(resource.about(&named).invalid(causes));
        }
        if self.store.get(&resource.key, space(object), &named).is_some() {
            return Err(resource.about(&named).already_exists());
        }
        match owners {
            Some(entries) => set_entries(object, entries),
            None => managed::updated(None, object, &resource.shape, self.writer(resource, "", options)),
        }
        Ok(())
    }

    fn writer<'a>(&self, resource: &'a Resource, subresource: &'a str, options: &'a WriteOptions) -> Writer<'a> {
        Writer { manager: &options.manager, api_version: &resource.api_version, subresource, now: self.now }
    }

    /// Checks that the object's namespace is the request's, and that it exists.
    fn settle_namespace(
        &self,
        object: &mut Value,
        resource: &Resource,
        namespace: Option<&str>,
        creating: bool,
    ) -> Result<(), Status> {
        let given = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        if !resource.namespaced {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
            return Ok(());
        }
        let wanted = match namespace {
            Some(wanted) if !given.is_empty() && given != wanted => {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            Some(wanted) => wanted.to_owned(),
            None if given.is_empty() => "default".to_owned(),
            None => given,
        };
        object["metadata"]["namespace"] = wanted.clone().into();
        if !creating {
            return Ok(());
        }
        let Some(found) = self.store.get("namespaces", "", &wanted) else {
            let namespaces = super::status::About { group: "", plural: "namespaces", kind: "Namespace", name: &wanted };
            return Err(namespaces.not_found());
        };
        if found["metadata"].get("deletionTimestamp").is_some() {
            let why = format!("unable to create new content in namespace {wanted} because it is being terminated");
            let mut status = resource.about(name(object)).forbidden(&why);
            let message = format!("namespace {wanted} is being terminated");
            status.causes.push(super::Cause {
                reason: "NamespaceTerminating",
                message,
                field: "metadata.namespace".into(),
            });
            return Err(status);
        }
        Ok(())
    }

    fn fits(&self, object: &Value, resource: &Resource) -> Result<(), Status> {
        // Counting bytes costs: only objects with much in them can be too large.
        let large = matches!(resource.kind.as_str(), "ConfigMap" | "Secret") || resource.custom.is_some();
        if large && object.to_string().len() > LONGEST {
            return Err(Status::new(413, "RequestEntityTooLarge", "etcdserver: request is too large"));
        }
        Ok(())
    }

    pub(super) fn update_in(
        &mut self,
        resource: &Arc<Resource>,
        mut object: Value,
        subresource: &str,
        options: &WriteOptions,
        decode: bool,
    ) -> Result<Arc<Value>, Status> {
        if !object["metadata"].is_object() {
            return Err(Status::bad_request("the object provided has no metadata"));
        }
        if decode {
            self.decode(&mut object, resource, Mode::Object, options.validation)?;
        }
        self.settle_namespace(&mut object, resource, None, false)?;
        let named = name(&object).to_owned();
        let live = self.store.get(&resource.key, space(&object), &named).cloned();
        let live = live.ok_or_else(|| resource.about(&named).not_found())?;
        let made = self.changed(&live, object, resource, subresource, options)?;
        self.commit(live, made, resource, options)
    }

    /// Returns what `object` makes of `live`: with what cannot be changed as it was, defaults, checks and owners.
    fn changed(
        &mut self,
        live: &Arc<Value>,
        mut object: Value,
        resource: &Resource,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        check_identity(live, &object, resource)?;
        keep_metadata(live, &mut object);
        keep_other_part(live, &mut object, resource, subresource);
        if subresource != "status" {
            carry_over(live, &mut object, resource);
            defaults::fill(&mut object, kind_of(resource));
            self.allocate(&mut object, resource);
        }
        let mut causes = validate::object(&object, resource);
        causes.extend(validate::change(live, &object, resource, subresource));
        if !causes.is_empty() {
            return Err(resource.about(name(live)).invalid(causes));
        }
        let writer = self.writer(resource, subresource, options);
        managed::updated(Some(live), &mut object, &resource.shape, writer);
        Ok(object)
    }

    /// Writes what was made of `live`, unless it is the same.
    fn commit(
        &mut self,
        live: Arc<Value>,
        mut object: Value,
        resource: &Arc<Resource>,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, Status> {
        if resource.generation && self.is_new_generation(&live, &object, resource) {
            let generation = live["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        self.fits(&object, resource)?;
        if object == *live {
            return Ok(live);
        }
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        if is_done(&object) {
            let gone = self.store.remove(&resource.key, object);
            self.after_delete(&gone, resource);
            return Ok(gone);
        }
        let stored = self.store.put(&resource.key, object);
        self.after_write(&stored, resource);
        Ok(self.store.get(&resource.key, space(&stored), name(&stored)).cloned().unwrap_or(stored))
    }

    fn is_new_generation(&self, live: &Value, object: &Value, resource: &Resource) -> bool {
        if resource.custom.is_some() {
            let rest = |of: &Value| {
                let mut rest: Map<String, Value> = of.as_object().cloned().unwrap_or_default();
                rest.remove("metadata");
                rest.remove("apiVersion");
                if resource.has("status") {
                    rest.remove("status");
                }
                rest
            };
            return rest(live) != rest(object);
        }
        // Endpoint slices have their content beside the metadata.
        let parts: &[&str] =
            if resource.kind == "EndpointSlice" { &["endpoints", "ports", "addressType"] } else { &["spec"] };
        let annotations = resource.kind == "Deployment"
            && live["metadata"].get("annotations") != object["metadata"].get("annotations");
        annotations || parts.iter().any(|part| live.get(part) != object.get(part))
    }

    pub(super) fn patch_in(&mut self, resource: &Arc<Resource>, request: PatchRequest) -> Result<Arc<Value>, Status> {
        let subresource = request.subresource.as_deref().unwrap_or_default();
        if subresource == "scale" {
            return self.patch_scale(resource, &request);
        }
        let namespace = if resource.namespaced { request.namespace.as_str() } else { "" };
        let live = self.store.get(&resource.key, namespace, &request.name).cloned();
        if request.kind == PatchKind::Apply {
            return self.apply_in(resource, live, request);
        }
        let live = live.ok_or_else(|| resource.about(&request.name).not_found())?;
        let mut object = Value::clone(&live);
        object["apiVersion"] = resource.api_version.clone().into();
        patch_value(&mut object, &request, resource)?;
        if name(&object) != request.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                name(&object),
                request.name
            )));
        }
        self.decode(&mut object, resource, Mode::Object, request.options.validation)?;
        self.update_in(resource, object, subresource, &request.options, false)
    }

    fn apply_in(
        &mut self,
        resource: &Arc<Resource>,
        live: Option<Arc<Value>>,
        request: PatchRequest,
    ) -> Result<Arc<Value>, Status> {
        let subresource = request.subresource.as_deref().unwrap_or_default();
        let mut config = request.body;
        let given = |config: &Value, name: &str| config[name].as_str().map(str::to_owned);
        if given(&config, "kind").as_deref() != Some(resource.kind.as_str())
            || given(&config, "apiVersion").as_deref() != Some(resource.api_version.as_str())
        {
            return Err(Status::bad_request("invalid object type: apiVersion and kind must be those of the request"));
        }
        if !config["metadata"].is_object() {
            config["metadata"] = json!({});
        }
        if name(&config).is_empty() {
            config["metadata"]["name"] = request.name.clone().into();
        }
        if name(&config) != request.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                name(&config),
                request.name
            )));
        }
        if config["metadata"].get("managedFields").is_some_and(|sent| !sent.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        self.decode(&mut config, resource, Mode::Applied, request.options.validation)?;
        self.settle_namespace(&mut config, resource, Some(&request.namespace), live.is_none())?;
        let writer = self.writer(resource, subresource, &request.options);
        let missing_key = |why: String| Status::new(500, "InternalError", why);
        managed::check_keys(&config, &resource.shape).map_err(missing_key)?;
        let Some(live) = live else {
            if !subresource.is_empty() {
                return Err(resource.about(&request.name).not_found());
            }
            if let Some(uid) = config["metadata"]["uid"].as_str() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(resource.about(&request.name).conflict(&why));
            }
            let mut owned = config.clone();
            forget_other_part(&mut owned, resource, subresource);
            let seed = json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}});
            let managers = managed::applied(&seed, &owned, &resource.shape, writer, true)?;
            let entries = managers["metadata"]["managedFields"].clone();
            let options = WriteOptions { validation: FieldValidation::Ignore, ..request.options };
            return self.create_in(resource, config, Some(&request.namespace), &options, Some(entries));
        };
        check_identity(&live, &config, resource)?;
        if let Some(metadata) = config["metadata"].as_object_mut() {
            for name in ["uid", "resourceVersion"] {
                metadata.remove(name);
            }
        }
        forget_other_part(&mut config, resource, subresource);
        let mut object = managed::applied(&live, &config, &resource.shape, writer, request.force)?;
        let entries = object["metadata"]["managedFields"].clone();
        self.decode(&mut object, resource, Mode::Object, FieldValidation::Ignore)?;
        keep_metadata(&live, &mut object);
        keep_other_part(&live, &mut object, resource, subresource);
        if subresource != "status" {
            carry_over(&live, &mut object, resource);
            defaults::fill(&mut object, kind_of(resource));
            self.allocate(&mut object, resource);
        }
        let mut causes = validate::object(&object, resource);
        causes.extend(validate::change(&live, &object, resource, subresource));
        if !causes.is_empty() {
            return Err(resource.about(name(&live)).invalid(causes));
        }
        set_entries(&mut object, entries);
        self.commit(live, object, resource, &request.options)
    }

    /// Gives a Service its address.
    fn allocate(&mut self, object: &mut Value, resource: &Resource) {
        if resource.kind != "Service" || resource.custom.is_some() {
            return;
        }
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
            self.addresses += 1;
            let (high, low) = (self.addresses / 250, self.addresses % 250 + 1);
            spec["clusterIP"] = format!("10.96.{}.{low}", high % 256).into();
        }
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
        if spec["type"] == "NodePort" || spec["type"] == "LoadBalancer" {
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                if port["nodePort"].as_i64().unwrap_or(0) == 0 {
                    self.addresses += 1;
                    port["nodePort"] = (30_000 + self.addresses % 2_767).into();
                }
            }
        }
    }

    /// What follows a write at once, before anybody sees it.
    fn after_write(&mut self, stored: &Arc<Value>, resource: &Resource) {
        match resource.kind.as_str() {
            "CustomResourceDefinition" if resource.custom.is_none() => {
                self.registry.define(stored);
                self.accept_definition(stored);
            }
            "Namespace" if stored["metadata"].get("deletionTimestamp").is_none() => {
                let account = json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": "default", "namespace": name(stored)},
                });
                if self.store.get("serviceaccounts", name(stored), "default").is_none() {
                    let made = self.create(account);
                    debug_assert!(made.is_ok(), "{made:?}");
                }
            }
            _ => {}
        }
    }

    fn accept_definition(&mut self, definition: &Value) {
        if definition["status"]["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
            return;
        }
        let mut made = definition.clone();
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let stored: Vec<Value> =
            versions.filter(|version| version["storage"] == true).map(|version| version["name"].clone()).collect();
        let condition = |name: &str, reason: &str, message: &str| {
            json!({
                "type": name, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": time::seconds(self.now),
            })
        };
        made["status"] = json!({
            "acceptedNames": definition["spec"]["names"],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
            "storedVersions": stored,
        });
        let updated = self.update(made, Some("status"));
        debug_assert!(updated.is_ok(), "{updated:?}");
    }

    pub(super) fn after_delete(&mut self, gone: &Value, resource: &Resource) {
        if resource.kind == "CustomResourceDefinition" && resource.custom.is_none() {
            let key: Arc<str> = name(gone).into();
            let left: Vec<Arc<Value>> = self.store.list(&key).cloned().collect();
            for object in left {
                self.store.remove(&key, Arc::unwrap_or_clone(object));
            }
            self.registry.undefine(&key);
        }
    }
}

/// Carries out a JSON, merge or strategic patch on a value.
pub(super) fn patch_value(object: &mut Value, request: &PatchRequest, resource: &Resource) -> Result<(), Status> {
    match request.kind {
        PatchKind::Json => patch::json::apply(object, &request.body),
        PatchKind::Merge if request.body.is_object() => {
            patch::merge::apply(object, &request.body);
            Ok(())
        }
        PatchKind::Strategic if resource.custom.is_some() => {
            let supported = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            Err(Status::unsupported_media_type("application/strategic-merge-patch+json", supported))
        }
        PatchKind::Strategic if request.body.is_object() => {
            patch::strategic::apply(object, &request.body, &resource.shape)
        }
        _ => Err(Status::bad_request("the patch is not an object")),
    }
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(super) fn space(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// A custom resource's kind may be any word: it has no defaults of Kubernetes'.
fn kind_of(resource: &Resource) -> &str {
    if resource.custom.is_some() { "" } else { &resource.kind }
}

fn written_shape(resource: &Resource) -> crate::sandbox::schema::Shape {
    resource.shape.member("status").cloned().unwrap_or(crate::sandbox::schema::Shape::Any { atomic: false })
}

fn initial_status(resource: &Resource) -> Option<Value> {
    match (resource.kind.as_str(), &resource.custom) {
        ("Pod", None) => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        ("Namespace", None) => Some(json!({"phase": "Active"})),
        ("PersistentVolumeClaim", None) => Some(json!({"phase": "Pending"})),
        _ => None,
    }
}

/// Refuses what was decided on another object, or on an older one.
fn check_identity(live: &Value, object: &Value, resource: &Resource) -> Result<(), Status> {
    let text = |of: &'_ Value, name: &str| of["metadata"][name].as_str().unwrap_or_default().to_owned();
    let (have, given) = (text(live, "uid"), text(object, "uid"));
    if !given.is_empty() && given != have {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {have}");
        return Err(resource.about(name(live)).conflict(&why));
    }
    let given = text(object, "resourceVersion");
    if !given.is_empty() && given != "0" && given != text(live, "resourceVersion") {
        return Err(resource.about(name(live)).modified());
    }
    Ok(())
}

/// Puts back what only the server writes.
fn keep_metadata(live: &Value, object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for name in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
        "selfLink",
    ] {
        match live["metadata"].get(name) {
            Some(value) => metadata.insert(name.to_owned(), value.clone()),
            None => metadata.remove(name),
        };
    }
}

/// A write of the status leaves all else as it was, and the other way round.
fn keep_other_part(live: &Value, object: &mut Value, resource: &Resource, subresource: &str) {
    let restore = |object: &mut Value, name: &str| {
        let Some(members) = object.as_object_mut() else { return };
        match live.get(name) {
            Some(value) => drop(members.insert(name.to_owned(), value.clone())),
            None => drop(members.remove(name)),
        }
    };
    match subresource {
        "status" => {
            let names: Vec<String> = [live, &*object]
                .into_iter()
                .filter_map(Value::as_object)
                .flat_map(|members| members.keys().cloned())
                .filter(|name| !matches!(name.as_str(), "status" | "metadata" | "apiVersion" | "kind"))
                .collect();
            names.iter().for_each(|name| restore(object, name));
            // Labels, annotations and finalizers belong to the main resource of everything but nodes and pods.
            let fields = ["labels", "annotations", "finalizers", "ownerReferences"];
            for name in fields.into_iter().filter(|_| !matches!(resource.kind.as_str(), "Node" | "Pod")) {
                let Some(metadata) = object["metadata"].as_object_mut() else { continue };
                match live["metadata"].get(name) {
                    Some(value) => drop(metadata.insert(name.to_owned(), value.clone())),
                    None => drop(metadata.remove(name)),
                }
            }
        }
        "finalize" => {
            let finalizers = object["spec"]["finalizers"].take();
            restore(object, "spec");
            restore(object, "status");
            if finalizers.as_array().is_none_or(Vec::is_empty) {
                object["spec"] = json!({});
            } else {
                object["spec"]["finalizers"] = finalizers;
            }
        }
        _ => {
            if resource.has("status") {
                restore(object, "status");
            }
            if resource.kind == "Namespace" && resource.custom.is_none() {
                restore(object, "spec");
            }
        }
    }
}

/// What an apply through one door must not own: the other door's part.
fn forget_other_part(config: &mut Value, resource: &Resource, subresource: &str) {
    let Some(members) = config.as_object_mut() else { return };
    if subresource == "status" {
        members.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    } else if resource.has("status") {
        members.remove("status");
    }
}

/// Fields that were allocated once and that a replacement may leave out.
fn carry_over(live: &Value, object: &mut Value, resource: &Resource) {
    if resource.custom.is_some() {
        return;
    }
    let keep = |object: &mut Value, name: &str| {
        let have = object["spec"][name].as_str().is_some_and(|text| !text.is_empty());
        if let (false, Some(value)) = (have, live["spec"].get(name)) {
            object["spec"][name] = value.clone();
        }
    };
    match resource.kind.as_str() {
        "Service" if object["spec"]["type"] != "ExternalName" => {
            keep(object, "clusterIP");
            let ports = live["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let exposed = object["spec"]["type"] == "NodePort" || object["spec"]["type"] == "LoadBalancer";
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten().filter(|_| exposed) {
                let same = |before: &&Value| before["port"] == port["port"] && before["protocol"] == port["protocol"];
                let number = ports.iter().find(same).map(|before| before["nodePort"].clone());
                if let (Some(number), true) = (number, port["nodePort"].is_null()) {
                    port["nodePort"] = number;
                }
            }
        }
        "Job" => {
            if object["spec"].get("selector").is_none() {
                object["spec"]["selector"] = live["spec"]["selector"].clone();
            }
        }
        "PersistentVolumeClaim" => keep(object, "volumeName"),
        _ => {}
    }
}

/// An object that is being deleted goes when nobody holds it any more.
fn is_done(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = metadata["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    let in_use = object["spec"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    let is_namespace = object["kind"] == "Namespace";
    metadata.get("deletionTimestamp").is_some()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held
        && !(is_namespace && in_use)
}

fn set_entries(object: &mut Value, entries: Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if entries.is_null() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), entries);
    }
}
