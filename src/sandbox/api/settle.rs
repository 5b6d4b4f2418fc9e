//! What the server itself sets: in a new object, and in others as a consequence of a write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Api, defaults, managed,
    parts::{initial_status, kind_of, set_entries, written_shape},
    resources::Resource,
    status::Status,
    time, validate,
    write::{WriteOptions, name, space},
};
use crate::sandbox::schema::decode::{self, Mode};

impl Api {
    /// Sets what the server sets in a new object, and checks it.
    pub(super) fn born(
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
        let status = initial_status(object, resource);
        if let (true, Some(members)) = (resource.has("status"), object.as_object_mut()) {
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
        if let Some(found) = self.store.get(&resource.key, space(object), &named) {
            let going = found["metadata"].get("deletionTimestamp").is_some();
            let about = resource.about(&named);
            return Err(if going { about.being_deleted() } else { about.already_exists() });
        }
        match owners {
            Some(entries) => set_entries(object, entries),
            None => managed::updated(None, object, &resource.shape, self.writer(resource, "", options)),
        }
        Ok(())
    }

    /// Gives a Service its address.
    pub(super) fn allocate(&mut self, object: &mut Value, resource: &Resource) {
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
    pub(super) fn after_write(&mut self, stored: &Arc<Value>, resource: &Resource) {
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
