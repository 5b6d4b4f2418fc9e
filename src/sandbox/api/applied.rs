//! Server-side apply, through the same checks as every other write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Api, defaults, managed,
    parts::{carry_over, check_identity, forget_other_part, keep_metadata, keep_other_part, kind_of, set_entries},
    resources::Resource,
    status::Status,
    validate,
    write::{FieldValidation, PatchRequest, WriteOptions, name},
};
use crate::sandbox::schema::decode::{self, Mode};

impl Api {
    pub(super) fn apply_in(
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
            let given = |name: &str| given(&config, name).unwrap_or_default();
            let (version, kind) = (given("apiVersion"), given("kind"));
            return Err(Status::bad_request(format!("invalid object type: {version}, Kind={kind}")));
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
        typed(&config, resource)?;
        self.decode(&mut config, resource, Mode::Applied, request.options.validation)?;
        self.settle_namespace(&mut config, resource, Some(&request.namespace), live.is_none())?;
        let writer = self.writer(resource, subresource, &request.options);
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
        check_identity(&live, &config, resource, true)?;
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
        self.commit(live, object, resource, subresource, &request.options)
    }
}

/// Refuses what structured-merge-diff cannot read: fields that are in no schema, items without their key or with one
/// that another has.
fn typed(config: &Value, resource: &Resource) -> Result<(), Status> {
    let mut problems: Vec<String> = decode::decode(&mut config.clone(), &resource.shape, Mode::Applied)
        .unknown
        .iter()
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    managed::check_keys(config, &resource.shape, &mut problems);
    let what = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (space, named) = (text(&config["metadata"]["namespace"]), name(config));
    let (version, kind) = (&resource.api_version, &resource.kind);
    let message = format!("failed to create typed patch object ({space}/{named}; {version}, Kind={kind}): {what}");
    Err(Status::new(500, "", message))
}
