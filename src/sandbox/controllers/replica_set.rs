//! ReplicaSets: as many pods as asked for, adopted, created or deleted.
//!
//! Source of the rules: `pkg/controller/replicaset` and `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Change, Controller, Outcome, View, owned,
    pods::{self, Counts},
};
use crate::sandbox::{
    cache::{Cache, Key},
    selector, value,
    write::Write,
};

/// Keeps ReplicaSets at their number of pods.
#[derive(Debug)]
pub struct ReplicaSetController {
    resource: Arc<str>,
}

impl Default for ReplicaSetController {
    fn default() -> Self {
        Self { resource: "replicasets.apps".into() }
    }
}

impl Controller for ReplicaSetController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("replicasets.apps") {
            return change.key().into_iter().collect();
        }
        if change.is("pods") {
            return owned::keys_of_pod(change, cache, "ReplicaSet", &self.resource);
        }
        Vec::new()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(set) = view.cache.at(key) else { return Outcome::default() };
        let claim = owned::claim_pods(view.cache, set, true);
        if !claim.writes.is_empty() {
            return claim.writes.into();
        }
        let active: Vec<&Arc<Value>> = claim.pods.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let mut outcome = Outcome::default();
        if !value::is_terminating(set) {
            outcome.writes = scale(set, &active, view);
        }
        let (status, wake) = status(set, &active, view.now);
        outcome.writes.extend(Write::status(set, status));
        if let Some(wake) = wake {
            outcome.wake_at(wake);
        }
        outcome
    }
}

fn scale(set: &Value, active: &[&Arc<Value>], view: &View<'_>) -> Vec<Write> {
    let wanted = usize::try_from(value::number_or(set, &["spec", "replicas"], 1)).unwrap_or_default();
    if active.len() <= wanted {
        let mut pod = pods::from_template(set, &set["spec"]["template"]);
        value::set(&mut pod, &["metadata", "generateName"], format!("{}-", value::name(set)));
        return vec![Write::Create(pod); wanted - active.len()];
    }
    let crowded = pods_of_relatives_by_node(set, view.cache);
    let mut ranked: Vec<_> = active.to_vec();
    ranked.sort_by(|a, b| victim_order(a, b, &crowded, view.now));
    let surplus = ranked.into_iter().take(active.len() - wanted);
    surplus.map(|pod| Write::delete(Key::of(&Arc::from("pods"), pod), pod)).collect()
}

/// Counts the active pods on each node of this set and of those with the same controller.
fn pods_of_relatives_by_node(set: &Value, cache: &Cache) -> BTreeMap<String, usize> {
    let mut relatives = vec![value::uid(set)];
    if let Some(owner) = value::controller_of(set) {
        let uid = value::text(owner, &["uid"]);
        let others = cache.dependents(uid).filter(|key| &*key.resource == "replicasets.apps");
        relatives.extend(others.filter_map(|key| cache.at(key)).map(|set| value::uid(set)));
    }
    relatives.sort_unstable();
    relatives.dedup();
    let mut counts = BTreeMap::new();
    for pod in relatives.into_iter().flat_map(|uid| cache.pods_of(uid)).filter(|pod| pods::is_active(pod)) {
        *counts.entry(value::text(pod, &["spec", "nodeName"]).to_owned()).or_default() += 1;
    }
    counts
}

/// Orders pods by who is deleted first.
fn victim_order(a: &Value, b: &Value, crowded: &BTreeMap<String, usize>, now: Timestamp) -> Ordering {
    let node = |pod| value::text(pod, &["spec", "nodeName"]);
    let phase = |pod| match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = |pod| {
        let cost = value::annotation(pod, "controller.kubernetes.io/pod-deletion-cost");
        cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or_default()
    };
    let on_node = |pod| crowded.get(node(pod)).copied().unwrap_or_default();
    let restarts = |pod: &Value| {
        let statuses = value::items(pod, &["status", "containerStatuses"]);
        statuses.iter().map(|status| value::number(status, &["restartCount"])).max().unwrap_or_default()
    };
    let assigned = |pod| !node(pod).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| on_node(b).cmp(&on_node(a)))
        .then_with(|| age_order(a, b, ready_since(a), ready_since(b), now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age_order(a, b, Some(value::created(a)), Some(value::created(b)), now))
}

fn ready_since(pod: &Value) -> Option<Timestamp> {
    value::time(pods::condition(pod, "Ready").filter(|it| it["status"] == "True")?, &["lastTransitionTime"])
}

/// Compares two times: none and younger first, in steps of a power of two of their age, then by UID.
fn age_order(a: &Value, b: &Value, since_a: Option<Timestamp>, since_b: Option<Timestamp>, now: Timestamp) -> Ordering {
    if since_a == since_b {
        return Ordering::Equal;
    }
    let step = |since: Option<Timestamp>| {
        let age = since.map_or(0, |since| now.as_nanosecond() - since.as_nanosecond());
        if age <= 0 { None } else { Some(age.ilog2()) }
    };
    step(since_a).cmp(&step(since_b)).then_with(|| value::uid(a).cmp(value::uid(b)))
}

fn status(set: &Value, active: &[&Arc<Value>], now: Timestamp) -> (Value, Option<Timestamp>) {
    let min_ready = value::number(set, &["spec", "minReadySeconds"]);
    let counts = Counts::of(active.iter().map(|pod| pod.as_ref()), min_ready, now);
    let template_labels = value::at(set, &["spec", "template", "metadata", "labels"]);
    let labelled = active.iter().filter(|pod| selector::includes(template_labels, selector::labels_of(pod))).count();
    let mut status = Map::new();
    status.insert("replicas".into(), counts.total.into());
    let optional = [
        ("fullyLabeledReplicas", i64::try_from(labelled).unwrap_or_default()),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
        ("observedGeneration", value::number(set, &["metadata", "generation"])),
    ];
    status
        .extend(optional.into_iter().filter(|(_, count)| *count != 0).map(|(name, count)| (name.into(), count.into())));
    if let Some(conditions) = value::at(set, &["status", "conditions"]) {
        status.insert("conditions".into(), conditions.clone());
    }
    (Value::Object(status), counts.next)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, ready: bool, cost: Option<&str>) -> Value {
        json!({
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost},
            },
            "spec": {"nodeName": node},
            "status": {
                "phase": if node.is_empty() { "Pending" } else { "Running" },
                "conditions": [{
                    "type": "Ready", "status": if ready { "True" } else { "False" },
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        })
    }

    #[test]
    fn the_victim_is_unscheduled_then_not_ready_then_cheap_then_crowded() {
        let crowded = BTreeMap::from([("n1".to_owned(), 1), ("n2".to_owned(), 2)]);
        let mut pods = [
            pod("crowded", "n2", true, Some("5")),
            pod("lonely", "n1", true, Some("5")),
            pod("cheap", "n1", true, Some("-5")),
            pod("not-ready", "n1", false, Some("100")),
            pod("unscheduled", "", false, Some("100")),
        ];
        pods.sort_by(|a, b| victim_order(a, b, &crowded, Timestamp::UNIX_EPOCH));
        let names: Vec<_> = pods.iter().map(value::name).collect();
        assert_eq!(names, ["unscheduled", "not-ready", "cheap", "crowded", "lonely"]);
    }
}
