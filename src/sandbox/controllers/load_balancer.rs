//! A slow load balancer: it protects the pods that it sends requests to by a finalizer.
//!
//! It serves Services with the label or annotation `locktender.dev/sandbox-lb: "true"`, and those of type
//! `LoadBalancer`. A pod that an EndpointSlice serves gets the finalizer some time later, and loses it some time after
//! it left; while the controller is dead, neither happens.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Change, Controller, Outcome, View, endpoint_slice, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    faults::Faults,
    value,
    write::Write,
};

/// The label or annotation by which a Service asks for it.
pub const ENABLED: &str = "locktender.dev/sandbox-lb";
/// The annotation by which a Service names another finalizer.
pub const FINALIZER_ANNOTATION: &str = "locktender.dev/sandbox-lb-finalizer";
/// The finalizer, where the Service does not name another.
pub const FINALIZER: &str = "slb.example.com/protected";

/// Sets and removes finalizers, and gives Services of type `LoadBalancer` an address.
#[derive(Debug)]
pub struct LoadBalancerController {
    pods: Arc<str>,
    /// Since when a pod's finalizers differ from what they should be.
    since: BTreeMap<Key, (bool, Timestamp)>,
}

impl Default for LoadBalancerController {
    fn default() -> Self {
        Self { pods: "pods".into(), since: BTreeMap::new() }
    }
}

impl Controller for LoadBalancerController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        let Some(key) = change.key() else { return Vec::new() };
        if change.is("pods") {
            return vec![key];
        }
        if change.is("services") {
            let pods = cache.list("pods", &key.namespace).map(|pod| Key::of(&self.pods, pod));
            return pods.chain([key.clone()]).collect();
        }
        if !change.is("endpointslices.discovery.k8s.io") {
            return Vec::new();
        }
        let endpoints = change.states().flat_map(|slice| value::items(slice, &["endpoints"]));
        let names = endpoints.map(|endpoint| value::text(endpoint, &["targetRef", "name"]).to_owned());
        let pod = |name| Key { resource: self.pods.clone(), namespace: key.namespace.clone(), name };
        names.map(pod).collect()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        if &*key.resource == "services" {
            return address(key, view).into_iter().collect();
        }
        let Some(pod) = view.cache.at(key) else {
            self.since.remove(key);
            return Outcome::default();
        };
        let Some((serve, object)) = wanted(pod, view.cache) else {
            self.since.remove(key);
            return Outcome::default();
        };
        let since = self.since.entry(key.clone()).or_insert((serve, view.now));
        if since.0 != serve {
            *since = (serve, view.now);
        }
        let due = since.1 + view.pace.load_balancer;
        if due > view.now {
            return Outcome { writes: Vec::new(), wake: Some(due) };
        }
        vec![Write::Update(object)].into()
    }

    fn is_stopped(&self, faults: &Faults) -> bool {
        faults.is_load_balancer_dead()
    }
}

fn is_balanced(service: &Value) -> bool {
    value::label(service, ENABLED) == Some("true")
        || value::annotation(service, ENABLED) == Some("true")
        || value::text(service, &["spec", "type"]) == "LoadBalancer"
}

fn finalizer_of(service: &Value) -> &str {
    value::annotation(service, FINALIZER_ANNOTATION).unwrap_or(FINALIZER)
}

/// Returns whether a slice of the Service says that the pod takes requests.
fn is_served(service: &Value, pod: &Value, cache: &Cache) -> bool {
    let slices = cache.dependents(value::uid(service)).filter_map(|key| cache.at(key));
    let mut endpoints = slices.flat_map(|slice| value::items(slice, &["endpoints"]));
    endpoints.any(|it| {
        value::text(it, &["targetRef", "uid"]) == value::uid(pod) && value::flag(it, &["conditions", "ready"])
    })
}

/// Returns the pod as it should be, and whether that adds a finalizer; `None` where it is right.
fn wanted(pod: &Value, cache: &Cache) -> Option<(bool, Value)> {
    let services = cache.list("services", value::namespace(pod)).filter(|service| is_balanced(service));
    let mut known = vec![FINALIZER.to_owned()];
    let mut served = Vec::new();
    for service in services {
        let finalizer = finalizer_of(service).to_owned();
        if endpoint_slice::selects(service, pod) && is_served(service, pod, cache) {
            served.push(finalizer.clone());
        }
        known.push(finalizer);
    }
    // No finalizer can be added to a pod that is being deleted.
    let missing = served.iter().find(|it| !value::has_finalizer(pod, it));
    if let Some(missing) = missing.filter(|_| pods::is_active(pod)) {
        let mut pod = pod.clone();
        let finalizers = value::object_mut(&mut pod, &["metadata"]).entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(finalizers) = finalizers {
            finalizers.push(missing.as_str().into());
        }
        return Some((true, pod));
    }
    let left = known.iter().find(|it| !served.contains(it) && value::has_finalizer(pod, it))?;
    Some((false, value::without_finalizer(pod, left)))
}

/// Gives a Service of type `LoadBalancer` an address, derived from its UID.
fn address(key: &Key, view: &View<'_>) -> Option<Write> {
    let service = view.cache.at(key)?;
    let has_one = value::at(service, &["status", "loadBalancer", "ingress"]).is_some();
    if value::text(service, &["spec", "type"]) != "LoadBalancer" || value::is_terminating(service) || has_one {
        return None;
    }
    let sum = value::uid(service).bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [_, _, third, fourth] = sum.to_be_bytes();
    let mut service = Value::clone(service);
    // 198.18.0.0/15 is set aside for tests.
    let ingress = json!([{"ip": format!("198.18.{third}.{fourth}"), "ipMode": "VIP"}]);
    value::set(&mut service, &["status", "loadBalancer", "ingress"], ingress);
    Some(Write::Status(service))
}
