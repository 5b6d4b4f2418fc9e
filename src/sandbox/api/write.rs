//! Creating, updating and patching.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Api, defaults,
    managed::{self, Writer},
    parts::{carry_over, check_identity, is_done, keep_metadata, keep_other_part, kind_of},
    patch::{self, PatchKind},
    resources::Resource,
    status::{Cause, Status},
    validate,
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
                None => refused(&wrong.message),
                Some(_) => {
                    let name = value["metadata"]["name"].as_str().unwrap_or_default();
                    resource.about(name).invalid(vec![wrong_in_body(wrong)])
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

    pub(super) fn writer<'a>(
        &self,
        resource: &'a Resource,
        subresource: &'a str,
        options: &'a WriteOptions,
    ) -> Writer<'a> {
        Writer { manager: &options.manager, api_version: &resource.api_version, subresource, now: self.now }
    }

    /// Checks that the object's namespace is the request's, and that it exists.
    pub(super) fn settle_namespace(
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
            status.details.causes.push(super::Cause {
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
        let made = self.changed(&live, object, resource, subresource, options, !decode)?;
        self.commit(live, made, resource, subresource, options)
    }

    /// Returns what `object` makes of `live`: with what cannot be changed as it was, defaults, checks and owners.
    fn changed(
        &mut self,
        live: &Arc<Value>,
        mut object: Value,
        resource: &Resource,
        subresource: &str,
        options: &WriteOptions,
        patched: bool,
    ) -> Result<Value, Status> {
        check_identity(live, &object, resource, patched)?;
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
    pub(super) fn commit(
        &mut self,
        live: Arc<Value>,
        mut object: Value,
        resource: &Arc<Resource>,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, Status> {
        if resource.generation && subresource != "status" && self.is_new_generation(&live, &object, resource) {
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
        self.decode(&mut object, resource, Mode::Object, request.options.validation).map_err(|status| {
            if resource.custom.is_some() || request.options.validation == FieldValidation::Strict {
                return status;
            }
            let message = format!("Invalid value: {:?}: {}", object.to_string(), status.message);
            let about = super::status::About { group: "", plural: "", kind: "", name: "" };
            about.invalid(vec![Cause { reason: "FieldValueInvalid", message, field: "patch".into() }])
        })?;
        self.update_in(resource, object, subresource, &request.options, false)
    }
}

/// What the validation of custom resources says of a value of a wrong type.
fn wrong_in_body(wrong: decode::Wrong) -> Cause {
    let decode::Wrong { path, found, wanted, .. } = wrong;
    let wanted = match wanted.as_str() {
        "int64" => "integer",
        "bool" => "boolean",
        "float64" => "number",
        list if list.starts_with("[]") => "array",
        "string" => "string",
        "intstr.IntOrString" => "integer,string",
        _ => "object",
    };
    let found = if found == "bool" { "boolean" } else { found };
    let message = format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
    Cause { reason: "FieldValueTypeInvalid", message, field: path }
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
        _ => {
            let found = patch::go_kind(&request.body);
            let wanted = "map[string]interface {}";
            Err(Status::bad_request(format!(
                "error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
            )))
        }
    }
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(super) fn space(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}
