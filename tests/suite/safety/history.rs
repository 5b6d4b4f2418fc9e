//! The cluster's log, played again: what was there at each moment, to ask questions of it afterwards.

use std::{collections::BTreeMap, sync::Arc};

use locktender::sandbox::api::{EventKind, WatchEvent};
use serde_json::Value;

/// One change of one object.
pub type Change = WatchEvent;

/// What there is at one moment.
#[derive(Default)]
pub struct Now {
    pods: BTreeMap<String, Arc<Value>>,
    slices: BTreeMap<String, Arc<Value>>,
}

impl Now {
    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.pods.values().map(Arc::as_ref)
    }

    /// How many pods are labelled to be in service, and ready.
    pub fn in_service(&self) -> usize {
        self.pods().filter(|pod| is_labelled(pod) && is_ready(pod)).count()
    }

    /// How many pods ask for a version.
    pub fn at(&self, tag: &str) -> usize {
        self.pods().filter(|pod| image(pod).ends_with(tag)).count()
    }
}

/// Whether a change is one that [`play`] shows.
pub fn is_played(change: &Change) -> bool {
    matches!(&*change.resource, "pods" | "endpointslices.discovery.k8s.io")
}

/// Plays the log: `look` sees what there is after each change, and the change.
pub fn play(history: &[Change], mut look: impl FnMut(&Now, &Change)) {
    let mut now = Now::default();
    for change in history {
        let all = match &*change.resource {
            "pods" => &mut now.pods,
            "endpointslices.discovery.k8s.io" => &mut now.slices,
            _ => continue,
        };
        let name = change.object["metadata"]["name"].as_str().unwrap().to_owned();
        match change.kind {
            EventKind::Deleted => drop(all.remove(&name)),
            EventKind::Added | EventKind::Modified => drop(all.insert(name, change.object.clone())),
        }
        look(&now, change);
    }
}

/// The pods whose image a change has patched, as they were and as they are.
pub fn patched(change: &Change) -> Option<(&Value, &Value)> {
    let before = change.previous.as_deref().filter(|_| &*change.resource == "pods")?;
    (image(before) != image(&change.object)).then_some((before, &*change.object))
}

pub fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap()
}

pub fn is_labelled(pod: &Value) -> bool {
    pod["metadata"]["labels"]["locktender.dev/in-service"] == "true"
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}
