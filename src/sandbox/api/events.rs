//! Events are one storage behind two groups: `v1` (kept) and `events.k8s.io/v1`, which has other names for the same.

use serde_json::Value;

use super::resources::Resource;

const NAMES: [(&str, &str); 7] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Returns whether the resource is served through the newer group.
pub fn is_new(resource: &Resource) -> bool {
    resource.group == "events.k8s.io"
}

/// Brings an event, or a patch of one, into the form that is kept.
pub fn to_core(event: &mut Value) {
    rename(event, |(core, new)| (new, core), "v1");
}

/// Brings an event into the form of the newer group.
pub fn from_core(event: &mut Value) {
    rename(event, |names| names, "events.k8s.io/v1");
}

fn rename(event: &mut Value, order: fn((&'static str, &'static str)) -> (&'static str, &'static str), version: &str) {
    let Some(members) = event.as_object_mut() else { return };
    if members.contains_key("apiVersion") {
        members.insert("apiVersion".into(), version.into());
    }
    for (from, to) in NAMES.into_iter().map(order) {
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
}
