//! DaemonSets: one pod on every node that fits.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Change, Controller, Outcome, View, owned, placement,
    pods::{self, Counts},
    revisions,
};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// Keeps DaemonSets.
#[derive(Debug)]
pub struct DaemonSetController {
    resource: Arc<str>,
}

impl Default for DaemonSetController {
    fn default() -> Self {
        Self { resource: "daemonsets.apps".into() }
    }
}

impl Controller for DaemonSetController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("daemonsets.apps") {
            return change.key().into_iter().collect();
        }
        if change.is("nodes") {
            return cache.all(&self.resource).map(|set| Key::of(&self.resource, set)).collect();
        }
        if change.is("pods") {
            return owned::keys_of_pod(change, cache, "DaemonSet", &self.resource);
        }
        Vec::new()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(set) = view.cache.at(key) else { return Outcome::default() };
        let claim = owned::claim_pods(view.cache, set, false);
        if !claim.writes.is_empty() {
            return claim.writes.into();
        }
        let mut by_node: BTreeMap<String, Vec<&Arc<Value>>> = BTreeMap::new();
        for pod in claim.pods {
            by_node.entry(node_of(pod)).or_default().push(pod);
        }
        let template = tolerant(&set["spec"]["template"]);
        let fitting = view.cache.all("nodes").filter(|node| placement::refusal(&template, node).is_none());
        let fitting: Vec<&str> = fitting.map(|node| value::name(node)).collect();
        let mut outcome = Outcome::default();
        if !value::is_terminating(set) {
            outcome.writes.extend(revisions::keep(set, view.cache));
            outcome.writes.extend(step(set, &by_node, &fitting, view));
        }
        let (status, next) = status(set, &by_node, &fitting, view.now);
        outcome.writes.extend(Write::status(set, status));
        outcome.wake = next;
        outcome
    }
}

/// Returns the node that a pod is on, or is meant for.
fn node_of(pod: &Value) -> String {
    let bound = value::text(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
                /matchFields/0/values/0";
    pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Adds the tolerations that every pod of a DaemonSet gets.
fn tolerant(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let mut tolerations = value::items(&pod, &["spec", "tolerations"]).to_vec();
    let added = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    tolerations.extend(added.map(
        |(taint, effect)| json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": effect}),
    ));
    value::set(&mut pod, &["spec", "tolerations"], tolerations);
    pod
}

fn is_updated(set: &Value, pod: &Value) -> bool {
    value::label(pod, revisions::HASH_LABEL) == Some(revisions::hash_of_update(set).as_str())
}

fn delete(pod: &Arc<Value>) -> Write {
    Write::delete(Key::of(&Arc::from("pods"), pod), pod)
}

fn step(set: &Value, by_node: &BTreeMap<String, Vec<&Arc<Value>>>, fitting: &[&str], view: &View<'_>) -> Vec<Write> {
    let mut writes = Vec::new();
    for node in fitting {
        let pods = by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
        writes.extend(
            pods.iter().filter(|pod| pods::is_finished(pod) && !value::is_terminating(pod)).map(|pod| delete(pod)),
        );
        if pods.is_empty() {
            writes.push(create(set, node, view.cache));
        }
    }
    let misplaced = by_node.iter().filter(|(node, _)| !fitting.contains(&node.as_str()));
    let cordoned = |node: &String| {
        view.cache.get("nodes", "", node).is_some_and(|node| placement::wants(&set["spec"]["template"], node))
    };
    let misplaced = misplaced.filter(|(node, _)| !cordoned(node)).flat_map(|(_, pods)| pods);
    writes.extend(misplaced.filter(|pod| !value::is_terminating(pod)).map(|pod| delete(pod)));
    if writes.is_empty() && value::text(set, &["spec", "updateStrategy", "type"]) != "OnDelete" {
        writes = update(set, by_node, fitting, view.now);
    }
    writes
}

/// Deletes pods of old templates: those that are not available first, the rest as far as `maxUnavailable` goes.
fn update(set: &Value, by_node: &BTreeMap<String, Vec<&Arc<Value>>>, fitting: &[&str], now: Timestamp) -> Vec<Write> {
    let total = i64::try_from(fitting.len()).unwrap_or(i64::MAX);
    let bound = value::at(set, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
    let mut most = value::int_or_percent(bound, total, true, "0%").max(1);
    let min_ready = value::number(set, &["spec", "minReadySeconds"]);
    let pods = || by_node.values().flatten();
    let is_available =
        |pod: &Value| !value::is_terminating(pod) && pods::availability(pod, min_ready, now) == pods::Availability::Now;
    let old = || pods().filter(|pod| !is_updated(set, pod) && !value::is_terminating(pod));
    let mut writes: Vec<Write> = old().filter(|pod| !is_available(pod)).map(|pod| delete(pod)).collect();
    most -= i64::try_from(pods().filter(|pod| !is_available(pod)).count()).unwrap_or(i64::MAX);
    let more = usize::try_from(most).unwrap_or_default();
    writes.extend(old().filter(|pod| is_available(pod)).take(more).map(|pod| delete(pod)));
    writes
}

fn create(set: &Value, node: &str, cache: &Cache) -> Write {
    let mut pod = tolerant(&revisions::pod_of(set, &revisions::name_of_update(set), cache));
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    let path =
        ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    value::set(&mut pod, &path, terms);
    let generation = value::number(set, &["metadata", "generation"]).to_string();
    value::set(&mut pod, &["metadata", "labels", "pod-template-generation"], generation);
    value::set(&mut pod, &["metadata", "generateName"], format!("{}-", value::name(set)));
    Write::Create(pod)
}

fn status(
    set: &Value,
    by_node: &BTreeMap<String, Vec<&Arc<Value>>>,
    fitting: &[&str],
    now: Timestamp,
) -> (Value, Option<Timestamp>) {
    let alive = |node: &&str| by_node.get(*node).into_iter().flatten().find(|pod| pods::is_active(pod));
    let there: Vec<&Value> = fitting.iter().filter_map(alive).map(|pod| pod.as_ref()).collect();
    let min_ready = value::number(set, &["spec", "minReadySeconds"]);
    let counts = Counts::of(there.iter().copied(), min_ready, now);
    let desired = i64::try_from(fitting.len()).unwrap_or(i64::MAX);
    let updated = there.iter().filter(|pod| is_updated(set, pod)).count();
    let misplaced = by_node.keys().filter(|node| !node.is_empty() && !fitting.contains(&node.as_str())).count();
    let mut status = json!({
        "currentNumberScheduled": counts.total,
        "desiredNumberScheduled": desired,
        "numberMisscheduled": misplaced,
        "numberReady": counts.ready,
        "observedGeneration": value::number(set, &["metadata", "generation"]),
    });
    let optional = [
        ("updatedNumberScheduled", i64::try_from(updated).unwrap_or(i64::MAX)),
        ("numberAvailable", counts.available),
        ("numberUnavailable", desired - counts.available),
    ];
    for (name, count) in optional.into_iter().filter(|(_, count)| *count != 0) {
        status[name] = count.into();
    }
    (status, counts.next)
}
