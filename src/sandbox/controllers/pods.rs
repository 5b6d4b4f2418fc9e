//! What every controller asks of a pod, and how one is made from a template.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::sandbox::value;

/// Returns a pod's phase.
pub fn phase(pod: &Value) -> &str {
    value::text(pod, &["status", "phase"])
}

/// Returns whether all containers have ended for good.
pub fn is_finished(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Returns whether a pod counts: it neither ended nor is being deleted.
pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !value::is_terminating(pod)
}

/// Returns a condition by its type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    value::items(object, &["status", "conditions"]).iter().find(|it| it["type"] == kind)
}

/// Returns whether a condition is `True`.
pub fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|it| it["status"] == "True")
}

/// Returns whether the pod's `Ready` condition is `True`.
pub fn is_ready(pod: &Value) -> bool {
    holds(pod, "Ready")
}

/// When a pod is, or will be, available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It has been ready for long enough.
    Now,
    /// It will be then, if it stays ready.
    At(Timestamp),
    /// It is not ready.
    No,
}

/// Tells whether a pod has been ready for `min_ready_seconds`.
pub fn availability(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|it| it["status"] == "True") else { return Availability::No };
    let wait = Duration::from_secs(min_ready_seconds.try_into().unwrap_or_default());
    match value::time(ready, &["lastTransitionTime"]) {
        _ if wait.is_zero() => Availability::Now,
        Some(since) if since + wait <= now => Availability::Now,
        Some(since) => Availability::At(since + wait),
        None => Availability::No,
    }
}

/// How many pods there are, by state, and when the next one becomes available by waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that count.
    pub total: i64,
    /// Ready ones.
    pub ready: i64,
    /// Ready for long enough.
    pub available: i64,
    /// When the next ready one has been so for long enough.
    pub next: Option<Timestamp>,
}

impl Counts {
    /// Counts `pods`.
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a Value>, min_ready_seconds: i64, now: Timestamp) -> Self {
        let mut counts = Self::default();
        for pod in pods {
            counts.total += 1;
            counts.ready += i64::from(is_ready(pod));
            match availability(pod, min_ready_seconds, now) {
                Availability::Now => counts.available += 1,
                Availability::At(at) => counts.next = Some(counts.next.map_or(at, |next| next.min(at))),
                Availability::No => {}
            }
        }
        counts
    }
}

/// Builds a pod from its owner's template, without a name: the caller sets `name` or `generateName`.
pub fn from_template(owner: &Value, template: &Value) -> Value {
    let mut metadata = json!({
        "namespace": value::namespace(owner),
        "ownerReferences": [value::controller_reference(owner)],
    });
    for member in ["labels", "annotations", "finalizers"] {
        if let Some(content) = value::at(template, &["metadata", member]) {
            metadata[member] = content.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Sets a condition and keeps `lastTransitionTime` where the status stays the same. Returns whether anything changed.
pub fn set_condition(conditions: &mut Vec<Value>, mut wanted: Value, now: Timestamp) -> bool {
    let Some(found) = conditions.iter_mut().find(|it| it["type"] == wanted["type"]) else {
        wanted["lastTransitionTime"] = value::stamp(now);
        conditions.push(wanted);
        return true;
    };
    wanted["lastTransitionTime"] =
        if found["status"] == wanted["status"] { found["lastTransitionTime"].clone() } else { value::stamp(now) };
    let changed = *found != wanted;
    *found = wanted;
    changed
}
