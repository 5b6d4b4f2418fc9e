//! Deleting: preconditions, grace periods, finalizers, and what is to happen to the dependents.
//!
//! Foreground and orphaning are finalizers (`foregroundDeletion`, `orphan`) that the garbage collector takes off; a
//! pod on a node stays until its kubelet deletes it with a grace period of 0; a namespace stays until its
//! `spec.finalizers` are emptied through the subresource `finalize`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, resources::Resource, status::Status, time};

/// What happens to what the object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The dependents are deleted first.
    Foreground,
    /// The dependents are deleted afterwards.
    Background,
    /// The dependents stay, without an owner.
    Orphan,
}

/// How a deletion is made.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// What happens to what the object owns; by default what its kind says, mostly `Background`.
    pub propagation: Option<Propagation>,
    /// How long a pod may take to stop; 0 is at once.
    pub grace_period_seconds: Option<i64>,
    /// The UID that the object must have.
    pub uid: Option<String>,
    /// The resource version that the object must have.
    pub resource_version: Option<String>,
    /// Do everything but write.
    pub dry_run: bool,
}

impl Api {
    /// Deletes an object. Returns it as it is now where something still holds it, `None` where it is gone.
    ///
    /// # Errors
    ///
    /// 404 where it does not exist, 409 where a precondition does not hold, 403 where it may not be deleted.
    pub fn delete(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Option<Arc<Value>>, Status> {
        let resource = self.registry.of_key(resource).cloned().ok_or_else(Status::no_path)?;
        let namespace = if resource.namespaced { namespace } else { "" };
        let live = self.store.get(&resource.key, namespace, name).cloned();
        let live = live.ok_or_else(|| resource.about(name).not_found())?;
        preconditions(&live, &resource, &options)?;
        if resource.kind == "Namespace" && resource.custom.is_none() {
            return self.delete_namespace(live, &resource, &options);
        }
        let grace = grace_period(&live, &resource, &options);
        let finalizers = finalizers(&live, &resource, &options);
        if grace == 0 && finalizers.is_empty() {
            if !options.dry_run {
                let mut last = Value::clone(&live);
                if let Some(metadata) = last["metadata"].as_object_mut() {
                    metadata.remove("finalizers");
                }
                let gone = self.store.remove(&resource.key, last);
                self.after_delete(&gone, &resource);
            }
            return Ok(None);
        }
        let mut made = Value::clone(&live);
        self.mark(&mut made, &live, grace, &resource)?;
        if let Some(metadata) = made["metadata"].as_object_mut() {
            if finalizers.is_empty() {
                metadata.remove("finalizers");
            } else {
                metadata.insert("finalizers".into(), finalizers.into());
            }
        }
        if made == *live || options.dry_run {
            return Ok(Some(Arc::new(made)));
        }
        Ok(Some(self.store.put(&resource.key, made)))
    }

    /// Sets when the object is to be gone; a deletion under way can only be brought forward.
    fn mark(&self, made: &mut Value, live: &Value, grace: i64, resource: &Resource) -> Result<(), Status> {
        let metadata = &live["metadata"];
        let before = metadata["deletionGracePeriodSeconds"].as_i64();
        if metadata.get("deletionTimestamp").is_some() && before.is_some_and(|before| before <= grace) {
            return Ok(());
        }
        let internal = |_| Status::new(500, "InternalError", "a grace period is out of range");
        let due = match (metadata["deletionTimestamp"].as_str(), before) {
            (Some(due), Some(before)) => {
                let due: jiff::Timestamp = due.parse().map_err(internal)?;
                due.checked_sub(jiff::SignedDuration::from_secs(before - grace)).map_err(internal)?
            }
            _ => self.now.checked_add(jiff::SignedDuration::from_secs(grace)).map_err(internal)?,
        };
        made["metadata"]["deletionTimestamp"] = time::seconds(due).into();
        made["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if let (true, Some(generation)) = (resource.generation, metadata["generation"].as_i64()) {
            made["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(())
    }

    fn delete_namespace(
        &mut self,
        live: Arc<Value>,
        resource: &Arc<Resource>,
        options: &DeleteOptions,
    ) -> Result<Option<Arc<Value>>, Status> {
        let name = super::write::name(&live).to_owned();
        if matches!(name.as_str(), "default" | "kube-system" | "kube-public") {
            return Err(resource.about(&name).forbidden("this namespace may not be deleted"));
        }
        if live["metadata"].get("deletionTimestamp").is_some() {
            return Ok(Some(live));
        }
        let mut made = Value::clone(&live);
        made["metadata"]["deletionTimestamp"] = time::seconds(self.now).into();
        made["status"]["phase"] = json!("Terminating");
        if options.dry_run {
            return Ok(Some(Arc::new(made)));
        }
        Ok(Some(self.store.put(&resource.key, made)))
    }
}

fn preconditions(live: &Value, resource: &Resource, options: &DeleteOptions) -> Result<(), Status> {
    let (name, metadata) = (super::write::name(live), &live["metadata"]);
    let found = |field: &str| metadata[field].as_str().unwrap_or_default();
    // Kubernetes names the kind here where it names the resource elsewhere.
    let about = super::status::About { plural: &resource.kind, ..resource.about(name) };
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != found("uid")) {
        return Err(about.conflict(&format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            found("uid")
        )));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != found("resourceVersion")) {
        return Err(about.conflict(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            found("resourceVersion")
        )));
    }
    Ok(())
}

/// Only pods stop gracefully, and only those that a kubelet has.
fn grace_period(live: &Value, resource: &Resource, options: &DeleteOptions) -> i64 {
    let on_node = live["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let over = matches!(live["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if resource.custom.is_some() || resource.kind != "Pod" || !on_node || over {
        return 0;
    }
    let own = live["spec"]["terminationGracePeriodSeconds"].as_i64();
    let wanted = options.grace_period_seconds.or(own).unwrap_or(30).max(0);
    // A deletion under way is never put off.
    live["metadata"]["deletionGracePeriodSeconds"].as_i64().map_or(wanted, |under_way| wanted.min(under_way))
}

fn finalizers(live: &Value, resource: &Resource, options: &DeleteOptions) -> Vec<Value> {
    let mut held = live["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    // A Job's dependents stay where nothing is said, for clients that are older than garbage collection.
    let by_default = (resource.kind == "Job" && resource.custom.is_none()).then_some(Propagation::Orphan);
    let asked = options.propagation.or_else(|| {
        let keeps = |name: &str| held.iter().any(|held| held == name);
        if keeps("orphan") || keeps("foregroundDeletion") { None } else { by_default }
    });
    if let Some(propagation) = asked {
        held.retain(|name| name != "orphan" && name != "foregroundDeletion");
        match propagation {
            Propagation::Foreground => held.push("foregroundDeletion".into()),
            Propagation::Orphan => held.push("orphan".into()),
            Propagation::Background => {}
        }
    }
    held
}
