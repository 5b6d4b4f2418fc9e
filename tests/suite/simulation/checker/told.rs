//! What the controller was told of the cluster: nobody can act on what never reached him.

use std::{collections::BTreeMap, sync::Arc};

use locktender::core::{cluster::ClusterEvent, manifest::Object};
use serde_json::Value;

use super::{Snapshot, snapshot::RESOURCES};

type Place = (String, String);

/// Objects by resource and place, as lists, watch events and answers told of them last.
#[derive(Clone, Debug, Default)]
pub struct Told {
    objects: BTreeMap<&'static str, BTreeMap<Place, Arc<Value>>>,
}

/// Returns the resource of a kind, where it is one that is judged.
pub fn resource_of(kind: &str) -> Option<&'static str> {
    let kinds =
        ["Pod", "ReplicaSet", "Deployment", "EndpointSlice", "Service", "ConfigMap", "StatefulSet", "DaemonSet"];
    kinds.iter().position(|known| *known == kind).map(|at| RESOURCES[at])
}

fn place(object: &Object) -> Place {
    (object.namespace().to_owned(), object.name().to_owned())
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Told {
    /// Takes what a list or a watch said.
    pub fn hear(&mut self, event: &ClusterEvent) {
        match event {
            ClusterEvent::Listed { kind, objects, .. } => {
                let Some(resource) = resource_of(&kind.kind) else { return };
                let listed = objects.iter().map(|object| (place(object), Arc::new(object.0.clone())));
                self.objects.insert(resource, listed.collect());
            }
            ClusterEvent::Applied(object) => self.put(object),
            ClusterEvent::Deleted(object) => self.gone(object),
            ClusterEvent::Lost { .. } => {}
        }
    }

    /// Takes an object that a write or a read answered with. What is older than what was told says nothing.
    pub fn put(&mut self, object: &Object) {
        let Some(resource) = resource_of(&object.kind().kind) else { return };
        let known = self.objects.entry(resource).or_default();
        let newer = |known: &Arc<Value>| version(known) < version(&object.0);
        if known.get(&place(object)).is_none_or(newer) {
            known.insert(place(object), Arc::new(object.0.clone()));
        }
    }

    fn gone(&mut self, object: &Object) {
        let Some(resource) = resource_of(&object.kind().kind) else { return };
        let known = self.objects.entry(resource).or_default();
        if known.get(&place(object)).is_some_and(|known| known["metadata"]["uid"] == object.uid()) {
            known.remove(&place(object));
        }
    }

    /// Takes the answer that there is no such object.
    pub fn absent(&mut self, kind: &str, namespace: &str, name: &str) {
        if let Some(known) = resource_of(kind).and_then(|resource| self.objects.get_mut(resource)) {
            known.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// Returns the cluster as it was told.
    pub fn snapshot(&self) -> Snapshot {
        let lists =
            self.objects.iter().map(|(resource, all)| ((*resource).to_owned(), all.values().cloned().collect()));
        Snapshot::of(lists.collect())
    }
}
