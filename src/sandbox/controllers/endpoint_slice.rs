//! EndpointSlices: who answers for a Service.
//!
//! Source of the rules: `staging/src/k8s.io/endpointslice/reconciler.go`: what is listed stays in its slice, slices that
//! change anyway are filled up, new ones take the rest; at most 100 endpoints each.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{Change, Controller, Outcome, View, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    selector, value,
    write::Write,
};

const MOST: usize = 100;
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io");
/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps the slices of Services with a selector.
#[derive(Debug)]
pub struct EndpointSliceController {
    resource: Arc<str>,
}

impl Default for EndpointSliceController {
    fn default() -> Self {
        Self { resource: "services".into() }
    }
}

impl Controller for EndpointSliceController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("services") {
            return change.key().into_iter().collect();
        }
        if change.is("endpointslices.discovery.k8s.io") {
            return change.controllers_of_kind("Service", &self.resource).collect();
        }
        if !change.is("pods") {
            return Vec::new();
        }
        let Some(key) = change.key() else { return Vec::new() };
        let selected = |service: &&Arc<Value>| change.states().any(|pod| selects(service, pod));
        let services = cache.list("services", &key.namespace);
        services.filter(selected).map(|service| Key::of(&self.resource, service)).collect()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(service) = view.cache.at(key) else { return Outcome::default() };
        if value::is_terminating(service) || !has_selector(service) {
            return Outcome::default();
        }
        let owned = view.cache.dependents(value::uid(service)).filter_map(|key| view.cache.at(key));
        let existing = owned.filter(|slice| {
            slice["kind"] == "EndpointSlice" && value::label(slice, MANAGED_BY.0) == Some(MANAGED_BY.1)
        });
        let existing: Vec<&Arc<Value>> = existing.filter(|slice| !value::is_terminating(slice)).collect();
        let wanted = Wanted::of(service, view.cache);
        wanted.writes(service, existing).into()
    }
}

fn has_selector(service: &Value) -> bool {
    value::at(service, &["spec", "selector"]).is_some_and(|it| it.as_object().is_some_and(|it| !it.is_empty()))
        && value::text(service, &["spec", "type"]) != "ExternalName"
}

/// Returns whether a Service selects a pod.
pub fn selects(service: &Value, pod: &Value) -> bool {
    has_selector(service) && selector::includes(value::at(service, &["spec", "selector"]), selector::labels_of(pod))
}

/// The endpoints that are wanted, by the ports that they have (a named port may differ from pod to pod), by pod UID.
struct Wanted {
    by_ports: BTreeMap<String, (Value, BTreeMap<String, Value>)>,
}

impl Wanted {
    fn of(service: &Value, cache: &Cache) -> Self {
        let mut by_ports: BTreeMap<String, (Value, BTreeMap<String, Value>)> = BTreeMap::new();
        let pods = cache.list("pods", value::namespace(service)).filter(|pod| selects(service, pod));
        for pod in pods.filter(|pod| !pods::is_finished(pod)) {
            let Some(endpoint) = endpoint(service, pod, cache) else { continue };
            let ports = ports(service, pod);
            let group = by_ports.entry(ports.to_string()).or_insert_with(|| (ports, BTreeMap::new()));
            group.1.insert(value::uid(pod).to_owned(), endpoint);
        }
        if by_ports.is_empty() {
            // A Service without endpoints has one slice that says so.
            by_ports.insert(json!([]).to_string(), (json!([]), BTreeMap::new()));
        }
        Self { by_ports }
    }

    fn writes(self, service: &Value, existing: Vec<&Arc<Value>>) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut groups = self.by_ports;
        let mut by_ports: BTreeMap<String, Vec<&Arc<Value>>> = BTreeMap::new();
        for slice in existing {
            by_ports.entry(Value::from(value::items(slice, &["ports"])).to_string()).or_default().push(slice);
        }
        let mut stale: Vec<&Arc<Value>> = Vec::new();
        for (ports, slices) in by_ports {
            match groups.remove(&ports) {
                Some((ports, endpoints)) => writes.extend(update_group(service, &ports, endpoints, &slices)),
                None => stale.extend(slices),
            }
        }
        for (ports, endpoints) in groups.into_values() {
            // A slice whose ports are no longer wanted is turned into one that is, as upstream does: never a gap.
            let reused: Vec<&Arc<Value>> = stale.pop().into_iter().collect();
            writes.extend(update_group(service, &ports, endpoints, &reused));
        }
        let resource = Arc::from("endpointslices.discovery.k8s.io");
        writes.extend(stale.into_iter().map(|slice| Write::delete(Key::of(&resource, slice), slice)));
        writes
    }
}

fn update_group(
    service: &Value,
    ports: &Value,
    mut wanted: BTreeMap<String, Value>,
    slices: &[&Arc<Value>],
) -> Vec<Write> {
    let had_wanted = !wanted.is_empty();
    let mut contents: Vec<Vec<Value>> = Vec::new();
    for slice in slices {
        let listed = value::items(slice, &["endpoints"]).iter();
        let kept = listed.filter_map(|endpoint| wanted.remove(value::text(endpoint, &["targetRef", "uid"])));
        contents.push(kept.collect());
    }
    let mut rest = wanted.into_values();
    // Fill slices that change anyway before others, and others before new ones are made.
    let changes = |at: usize, contents: &[Vec<Value>]| value::items(slices[at], &["endpoints"]) != contents[at];
    let mut order: Vec<usize> = (0..contents.len()).collect();
    order.sort_by_key(|at| (!changes(*at, &contents), std::cmp::Reverse(contents[*at].len())));
    for at in order {
        let room = MOST.saturating_sub(contents[at].len());
        contents[at].extend(rest.by_ref().take(room));
    }
    let mut writes = Vec::new();
    let mut kept_one = false;
    for (slice, endpoints) in slices.iter().zip(contents) {
        if endpoints.is_empty() && (had_wanted || kept_one) {
            writes.push(Write::delete(Key::of(&Arc::from("endpointslices.discovery.k8s.io"), slice), slice));
            continue;
        }
        kept_one = true;
        let mut updated = Value::clone(slice);
        value::set(&mut updated, &["endpoints"], endpoints);
        value::set(&mut updated, &["ports"], ports.clone());
        value::set(&mut updated, &["metadata", "labels"], labels(service));
        if updated != ***slice {
            writes.push(Write::Update(updated));
        }
    }
    let mut rest: Vec<Value> = rest.collect();
    while !rest.is_empty() || !(kept_one || had_wanted) {
        let tail = rest.split_off(rest.len().min(MOST));
        writes.push(Write::Create(new_slice(service, ports, std::mem::replace(&mut rest, tail))));
        kept_one = true;
    }
    writes
}

fn labels(service: &Value) -> Value {
    let mut labels = value::texts(service, &["metadata", "labels"]);
    labels.insert(SERVICE_NAME.to_owned(), value::name(service).to_owned());
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    if value::text(service, &["spec", "clusterIP"]) == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    json!(labels)
}

fn new_slice(service: &Value, ports: &Value, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", value::name(service)),
            "namespace": value::namespace(service),
            "labels": labels(service),
            "ownerReferences": [value::controller_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// Returns a pod as an endpoint; `None` while it has no address.
fn endpoint(service: &Value, pod: &Value, cache: &Cache) -> Option<Value> {
    let address = Some(value::text(pod, &["status", "podIP"])).filter(|address| !address.is_empty())?;
    let serving = pods::is_ready(pod);
    let terminating = value::is_terminating(pod);
    let ready = value::flag(service, &["spec", "publishNotReadyAddresses"]) || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod", "namespace": value::namespace(pod), "name": value::name(pod), "uid": value::uid(pod),
        },
    });
    let node = value::text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
        let zone = cache.get("nodes", "", node).and_then(|node| value::label(node, "topology.kubernetes.io/zone"));
        if let Some(zone) = zone {
            endpoint["zone"] = zone.into();
        }
    }
    let hostname = value::text(pod, &["spec", "hostname"]);
    if !hostname.is_empty() && value::text(pod, &["spec", "subdomain"]) == value::name(service) {
        endpoint["hostname"] = hostname.into();
    }
    Some(endpoint)
}

fn ports(service: &Value, pod: &Value) -> Value {
    let ports = value::items(service, &["spec", "ports"]).iter().filter_map(|port| {
        let number = match value::at(port, &["targetPort"]) {
            Some(Value::String(name)) => named_port(pod, name)?,
            Some(Value::Number(number)) if number.as_i64() != Some(0) => number.as_i64()?,
            _ => value::number(port, &["port"]),
        };
        let protocol = Some(value::text(port, &["protocol"])).filter(|it| !it.is_empty()).unwrap_or("TCP");
        let mut resolved = json!({"name": value::text(port, &["name"]), "port": number, "protocol": protocol});
        if let Some(app) = value::at(port, &["appProtocol"]) {
            resolved["appProtocol"] = app.clone();
        }
        Some(resolved)
    });
    ports.collect()
}

/// Returns the container port with a name, of containers or sidecars.
fn named_port(pod: &Value, name: &str) -> Option<i64> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| value::items(pod, &["spec", list]));
    let mut ports = containers.flat_map(|container| value::items(container, &["ports"]));
    ports.find(|port| port["name"] == name).map(|port| value::number(port, &["containerPort"]))
}
