//! The cluster at one instant, as far as it is judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use locktender::{core::rollout::labels, sandbox::world::World};
use serde_json::Value;

use crate::simulation::gateway::ROUTES;

/// Resources that are looked at.
pub const RESOURCES: [&str; 9] = [
    "pods",
    "replicasets.apps",
    "deployments.apps",
    "endpointslices.discovery.k8s.io",
    "services",
    "configmaps",
    "statefulsets.apps",
    "daemonsets.apps",
    ROUTES,
];

/// Objects by resource.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: BTreeMap<String, Vec<Arc<Value>>>,
    served: BTreeSet<String>,
}

impl Snapshot {
    /// Takes lists by resource (`pods`, `replicasets.apps`).
    pub fn of(objects: BTreeMap<String, Vec<Arc<Value>>>) -> Self {
        let mut served = BTreeSet::new();
        for slice in objects.get(RESOURCES[3]).into_iter().flatten() {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] != false {
                    served.extend(endpoint["targetRef"]["uid"].as_str().map(str::to_owned));
                }
            }
        }
        Self { objects, served }
    }

    /// Looks at a world.
    pub fn of_world(world: &World) -> Self {
        let list = |resource: &str| world.api.list(resource).cloned().collect();
        Self::of(RESOURCES.iter().map(|resource| ((*resource).to_owned(), list(resource))).collect())
    }

    pub fn all(&self, resource: &str) -> impl Iterator<Item = &Value> {
        self.objects.get(resource).into_iter().flatten().map(Arc::as_ref)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.all("pods")
    }

    /// Returns an application's objects of one resource that belong to one workload, `Deployment/checkout`.
    pub fn of_workload<'a>(&'a self, resource: &'a str, app: &'a str, id: &'a str) -> impl Iterator<Item = &'a Value> {
        let name = labels::label_value(id.rsplit('/').next().unwrap_or(id));
        self.all(resource)
            .filter(move |object| label(object, labels::APP) == app && label(object, labels::WORKLOAD) == name)
    }

    /// Returns the object that a workload is, `StatefulSet/db`.
    pub fn workload<'a>(&'a self, app: &'a str, id: &'a str) -> Option<&'a Value> {
        let (kind, wanted) = id.split_once('/')?;
        let is_it = |object: &&Value| name(object) == wanted && label(object, labels::APP) == app;
        self.all(super::told::resource_of(kind)?).find(is_it)
    }

    /// Returns whether a pod takes part in the service: labelled, ready, and where a Service selects it, in an
    /// EndpointSlice.
    pub fn is_in_service(&self, pod: &Value) -> bool {
        label(pod, labels::IN_SERVICE) == "true"
            && is_ready(pod)
            && !is_terminating(pod)
            && (self.served.contains(uid(pod)) || !self.is_selected(pod))
    }

    fn is_selected(&self, pod: &Value) -> bool {
        self.all("services").any(|service| {
            let Some(selector) = service["spec"]["selector"].as_object().filter(|it| !it.is_empty()) else {
                return false;
            };
            service["metadata"]["namespace"] == pod["metadata"]["namespace"]
                && selector.iter().all(|(name, wanted)| pod["metadata"]["labels"][name] == *wanted)
        })
    }
}

pub fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["labels"][name].as_str().unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn is_terminating(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Returns the first container's image, as asked for.
pub fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}
