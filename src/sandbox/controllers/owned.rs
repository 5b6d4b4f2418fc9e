//! Who owns a pod: adoption of orphans that match, release of pods that no longer do.
//!
//! Source of the rules: `pkg/controller/controller_ref_manager.go`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Change, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    selector, value,
    write::Write,
};

/// The objects that an owner has, and the writes that make it so.
#[derive(Debug, Default)]
pub struct Claim<'a> {
    /// Objects that are owned already and match.
    pub pods: Vec<&'a Arc<Value>>,
    /// Adoptions and releases.
    pub writes: Vec<Write>,
}

/// Claims a workload's pods by its `spec.selector`.
pub fn claim_pods<'a>(cache: &'a Cache, owner: &Value, active_only: bool) -> Claim<'a> {
    let mine = cache.pods_of(value::uid(owner)).filter(|pod| !active_only || pods::is_active(pod));
    let orphans = cache.orphan_pods(value::namespace(owner)).filter(|pod| pods::is_active(pod));
    claim(owner, mine, orphans)
}

/// Claims objects by their metadata labels: those of `mine` that match stay, of `orphans` that match are adopted.
pub fn claim<'a>(
    owner: &Value,
    mine: impl Iterator<Item = &'a Arc<Value>>,
    orphans: impl Iterator<Item = &'a Arc<Value>>,
) -> Claim<'a> {
    let wanted = value::at(owner, &["spec", "selector"]);
    let mut claim = Claim::default();
    for object in mine {
        if selector::selects(wanted, selector::labels_of(object)) {
            claim.pods.push(object);
        } else if !value::is_terminating(owner) {
            claim.writes.push(Write::Update(without_owner(object, value::uid(owner))));
        }
    }
    if value::is_terminating(owner) {
        return claim;
    }
    for object in orphans {
        if !value::is_terminating(object) && selector::selects(wanted, selector::labels_of(object)) {
            claim.writes.push(Write::Update(with_owner(object, owner)));
        }
    }
    claim
}

/// Returns a copy that `owner` controls.
pub fn with_owner(object: &Value, owner: &Value) -> Value {
    let mut object = object.clone();
    let metadata = value::object_mut(&mut object, &["metadata"]);
    if let Value::Array(owners) = metadata.entry("ownerReferences").or_insert_with(|| json!([])) {
        owners.push(value::controller_reference(owner));
    }
    object
}

/// Returns a copy without the owner reference to a UID.
pub fn without_owner(object: &Value, owner_uid: &str) -> Value {
    let mut object = object.clone();
    let metadata = value::object_mut(&mut object, &["metadata"]);
    if let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") {
        owners.retain(|owner| owner["uid"] != owner_uid);
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
    object
}

/// Returns the workloads that a change of a pod concerns: its controller, or those that may adopt it.
pub fn keys_of_pod(change: &Change<'_>, cache: &Cache, kind: &str, resource: &Arc<str>) -> Vec<Key> {
    let mut keys: Vec<Key> = change.controllers_of_kind(kind, resource).collect();
    if let Some(pod) = change.now
        && value::controller_of(pod).is_none()
    {
        let workloads = cache.list(resource, value::namespace(pod));
        let may_adopt =
            workloads.filter(|it| selector::selects(value::at(it, &["spec", "selector"]), selector::labels_of(pod)));
        keys.extend(may_adopt.map(|it| Key::of(resource, it)));
    }
    keys
}
