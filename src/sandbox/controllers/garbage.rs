//! Garbage collection by owner references: background, foreground, orphaning, and owners that never were.
//!
//! Source of the rules: `pkg/controller/garbagecollector/garbagecollector.go`.

use std::sync::Arc;

use serde_json::Value;

use super::{Change, Controller, Outcome, View, owned, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::{Dependents, Write},
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Deletes what its owners left behind, and pods of nodes that are gone.
#[derive(Debug, Default)]
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        let Some(key) = change.key() else { return Vec::new() };
        if change.now.is_none() {
            return keys_after_deletion(change, cache);
        }
        let (before, now) = (owners(change.before), owners(change.now));
        let mut keys = Vec::new();
        if change.now.is_some_and(|object| value::is_terminating(object)) || before != now {
            keys.push(key);
        }
        // A dependent that no longer blocks lets its owner go.
        let lost = before.iter().filter(|owner| !now.contains(owner));
        keys.extend(lost.filter_map(|owner| cache.by_uid(value::text(owner, &["uid"])).cloned()));
        keys
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(object) = view.cache.at(key) else { return Outcome::default() };
        if value::is_terminating(object) {
            if value::has_finalizer(object, ORPHAN) {
                return orphan_dependents(object, view.cache);
            }
            if value::has_finalizer(object, FOREGROUND) {
                return delete_dependents_first(object, view.cache);
            }
            return pod_of_lost_node(key, object, view.cache).into_iter().collect();
        }
        delete_if_abandoned(key, object, view.cache).into_iter().collect()
    }
}

fn owners(object: Option<&Arc<Value>>) -> &[Value] {
    object.map(|object| value::items(object, &["metadata", "ownerReferences"])).unwrap_or_default()
}

/// The dependents of what went, the owners that waited for it, and the pods of a node that went.
fn keys_after_deletion(change: &Change<'_>, cache: &Cache) -> Vec<Key> {
    let Some(gone) = change.before else { return Vec::new() };
    let mut keys: Vec<Key> = cache.dependents(value::uid(gone)).cloned().collect();
    let owners = value::items(gone, &["metadata", "ownerReferences"]).iter();
    keys.extend(owners.filter_map(|owner| cache.by_uid(value::text(owner, &["uid"])).cloned()));
    if change.is("nodes") {
        let pods = Arc::from("pods");
        keys.extend(cache.pods_on(value::name(gone)).map(|pod| Key::of(&pods, pod)));
    }
    keys
}

/// Returns the owner that a reference means: the same UID, in the same namespace or in none.
fn owner_of<'a>(reference: &Value, dependent: &Value, cache: &'a Cache) -> Option<&'a Arc<Value>> {
    let key = cache.by_uid(value::text(reference, &["uid"]))?;
    let reachable = key.namespace.is_empty() || key.namespace == value::namespace(dependent);
    cache.at(key).filter(|owner| reachable && owner["kind"] == reference["kind"])
}

fn waits_for_dependents(owner: &Value) -> bool {
    value::is_terminating(owner) && value::has_finalizer(owner, FOREGROUND)
}

fn delete_if_abandoned(key: &Key, object: &Value, cache: &Cache) -> Option<Write> {
    let references = value::items(object, &["metadata", "ownerReferences"]);
    if references.is_empty() {
        return None;
    }
    let owners: Vec<_> = references.iter().map(|it| (it, owner_of(it, object, cache))).collect();
    let solid = owners.iter().any(|(_, owner)| owner.is_some_and(|owner| !waits_for_dependents(owner)));
    if solid {
        let mut kept = object.clone();
        for (reference, owner) in owners {
            if owner.is_none_or(|owner| waits_for_dependents(owner)) {
                kept = owned::without_owner(&kept, value::text(reference, &["uid"]));
            }
        }
        return (kept != *object).then_some(Write::Update(kept));
    }
    let waiting = owners.iter().any(|(_, owner)| owner.is_some());
    let has_dependents = cache.dependents(value::uid(object)).next().is_some();
    let dependents = if waiting && has_dependents { Dependents::Before } else { Dependents::After };
    Some(Write::Delete { key: key.clone(), uid: value::uid(object).to_owned(), dependents, now: false })
}

fn orphan_dependents(owner: &Value, cache: &Cache) -> Outcome {
    let dependents = cache.dependents(value::uid(owner)).filter_map(|key| cache.at(key));
    let mut writes: Vec<Write> =
        dependents.map(|it| Write::Update(owned::without_owner(it, value::uid(owner)))).collect();
    if writes.is_empty() {
        writes.push(Write::Update(value::without_finalizer(owner, ORPHAN)));
    }
    writes.into()
}

fn delete_dependents_first(owner: &Value, cache: &Cache) -> Outcome {
    let dependents: Vec<_> =
        cache.dependents(value::uid(owner)).filter_map(|key| Some((key, cache.at(key)?))).collect();
    let blocks = |object: &Value| {
        let mut references = value::items(object, &["metadata", "ownerReferences"]).iter();
        references.any(|it| it["uid"] == value::uid(owner) && value::flag(it, &["blockOwnerDeletion"]))
    };
    if !dependents.iter().any(|(_, object)| blocks(object)) {
        return vec![Write::Update(value::without_finalizer(owner, FOREGROUND))].into();
    }
    let alive = dependents.into_iter().filter(|(_, object)| !value::is_terminating(object));
    alive.filter_map(|(key, object)| delete_if_abandoned(key, object, cache)).collect()
}

/// A pod that is being deleted on a node that no longer exists, or was never placed, has no kubelet to end it.
fn pod_of_lost_node(key: &Key, object: &Value, cache: &Cache) -> Option<Write> {
    if &*key.resource != "pods" || pods_end_elsewhere(object, cache) {
        return None;
    }
    let grace = value::number_or(object, &["metadata", "deletionGracePeriodSeconds"], 1);
    (grace != 0).then(|| Write::remove_pod(key.clone(), object))
}

fn pods_end_elsewhere(pod: &Value, cache: &Cache) -> bool {
    let node = value::text(pod, &["spec", "nodeName"]);
    !node.is_empty() && cache.get("nodes", "", node).is_some() && !pods::phase(pod).is_empty()
}
