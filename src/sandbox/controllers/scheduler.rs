//! The scheduler: which node a pod goes to.
//!
//! Of the nodes that fit, the one with the fewest pods, then by name. Pods that fit nowhere say so in the real
//! scheduler's words and are tried again when something changes that may help. Affinity between pods is not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Change, Controller, Outcome, View,
    placement::{self, Room},
    pods,
};
use crate::sandbox::{
    cache::{Cache, Key},
    faults::Faults,
    selector, value,
    write::Write,
};

/// Binds pods to nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    pending: BTreeSet<Key>,
    used: BTreeMap<String, Room>,
}

impl Controller for Scheduler {
    fn concerns(&mut self, change: &Change<'_>, _: &Cache) -> Vec<Key> {
        if change.is("nodes") {
            return if is_only_status(change) { Vec::new() } else { self.pending.iter().cloned().collect() };
        }
        if !change.is("pods") {
            return Vec::new();
        }
        let freed = self.account(change);
        let Some(key) = change.key() else { return Vec::new() };
        if change.now.is_some_and(|pod| is_pending(pod)) {
            self.pending.insert(key.clone());
        } else {
            self.pending.remove(&key);
        }
        if freed {
            return self.pending.iter().cloned().collect();
        }
        let new_to_us = change.before.is_none_or(|before| !is_pending(before) || before["spec"] != *pod_spec(change));
        if new_to_us && self.pending.contains(&key) { vec![key] } else { Vec::new() }
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(pod) = view.cache.at(key).filter(|pod| is_pending(pod)) else { return Outcome::default() };
        match self.place(pod, view.cache) {
            Ok(node) => {
                let uid = value::uid(pod).to_owned();
                vec![Write::Bind { pod: key.clone(), uid, node }].into()
            }
            Err(message) => {
                let mut pod = Value::clone(pod);
                let mut conditions = value::items(&pod, &["status", "conditions"]).to_vec();
                let unschedulable = json!({
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                    "lastProbeTime": null, "observedGeneration": pod["metadata"]["generation"],
                });
                if !pods::set_condition(&mut conditions, unschedulable, view.now) {
                    return Outcome::default();
                }
                value::set(&mut pod, &["status", "conditions"], conditions);
                vec![Write::Status(pod)].into()
            }
        }
    }

    fn is_stopped(&self, faults: &Faults) -> bool {
        faults.is_scheduler_stopped()
    }
}

fn pod_spec<'a>(change: &Change<'a>) -> &'a Value {
    change.now.map_or(&Value::Null, |pod| &pod["spec"])
}

fn is_pending(pod: &Value) -> bool {
    let scheduler = value::text(pod, &["spec", "schedulerName"]);
    value::text(pod, &["spec", "nodeName"]).is_empty()
        && pods::is_active(pod)
        && matches!(scheduler, "" | "default-scheduler")
        && value::items(pod, &["spec", "schedulingGates"]).is_empty()
}

/// Heartbeats change nothing for placement.
fn is_only_status(change: &Change<'_>) -> bool {
    let (Some(before), Some(now)) = (change.before, change.now) else { return false };
    before["spec"] == now["spec"]
        && before["metadata"]["labels"] == now["metadata"]["labels"]
        && before["status"]["allocatable"] == now["status"]["allocatable"]
}

impl Scheduler {
    /// Keeps the sums of what is used on each node. Returns whether room was freed, or labels changed.
    fn account(&mut self, change: &Change<'_>) -> bool {
        let place = |pod: &Arc<Value>| {
            let node = value::text(pod, &["spec", "nodeName"]);
            (!node.is_empty() && !pods::is_finished(pod)).then(|| (node.to_owned(), Room::requested(pod)))
        };
        let (before, now) = (change.before.and_then(place), change.now.and_then(place));
        if before != now {
            if let Some((node, room)) = &before {
                let used = self.used.entry(node.clone()).or_default();
                *used = used.minus(*room);
            }
            if let Some((node, room)) = &now {
                let used = self.used.entry(node.clone()).or_default();
                *used = used.plus(*room);
            }
        }
        before.is_some() && before != now
    }

    /// Returns the node for a pod, or the message that says why there is none.
    fn place(&self, pod: &Value, cache: &Cache) -> Result<String, String> {
        let wanted = Room::requested(pod);
        let spread = Spread::of(pod, cache);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut full = 0;
        let mut best: Option<(i64, &str)> = None;
        let mut count = 0;
        for node in cache.all("nodes") {
            count += 1;
            let name = value::name(node);
            if let Some(reason) = placement::refusal(pod, node) {
                *reasons.entry(reason.to_owned()).or_default() += 1;
                continue;
            }
            let used = self.used.get(name).copied().unwrap_or_default();
            let missing = missing(Room::of_node(node).minus(used), wanted);
            if !missing.is_empty() {
                full += 1;
                missing.iter().for_each(|reason| *reasons.entry((*reason).to_owned()).or_default() += 1);
                continue;
            }
            if let Some(reason) = spread.refusal(node) {
                full += usize::from(reason == placement::NO_SPREAD);
                *reasons.entry(reason.to_owned()).or_default() += 1;
                continue;
            }
            if best.is_none_or(|best| (used.pods, name) < best) {
                best = Some((used.pods, name));
            }
        }
        best.map(|(_, name)| name.to_owned()).ok_or_else(|| message(count, full, reasons))
    }
}

fn missing(free: Room, wanted: Room) -> Vec<&'static str> {
    let checks = [
        (free.pods < wanted.pods, "Too many pods"),
        (wanted.cpu > 0 && free.cpu < wanted.cpu, "Insufficient cpu"),
        (wanted.memory > 0 && free.memory < wanted.memory, "Insufficient memory"),
    ];
    checks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, reason)| reason).collect()
}

fn message(nodes: usize, full: usize, reasons: BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let listed = |reasons: Vec<(String, usize)>| {
        let mut lines: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort();
        lines.join(", ")
    };
    let hopeless = ("Preemption is not helpful for scheduling".to_owned(), nodes - full);
    let victims = ("No preemption victims found for incoming pod".to_owned(), full);
    let preemption = [victims, hopeless].into_iter().filter(|(_, count)| *count > 0).collect();
    format!(
        "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {}.",
        listed(reasons.into_iter().collect()),
        listed(preemption)
    )
}

/// The `DoNotSchedule` spread constraints of a pod, with the pods counted that are there.
struct Spread {
    constraints: Vec<Constraint>,
}

struct Constraint {
    key: String,
    max_skew: i64,
    own: i64,
    counts: BTreeMap<String, i64>,
}

impl Spread {
    fn of(pod: &Value, cache: &Cache) -> Self {
        let constraints = value::items(pod, &["spec", "topologySpreadConstraints"]).iter();
        let hard = constraints.filter(|it| it["whenUnsatisfiable"] != "ScheduleAnyway");
        Self { constraints: hard.map(|it| Constraint::of(it, pod, cache)).collect() }
    }

    fn refusal(&self, node: &Value) -> Option<&'static str> {
        self.constraints.iter().find_map(|constraint| {
            let Some(domain) = value::label(node, &constraint.key) else { return Some(placement::NO_SPREAD_LABEL) };
            let here = constraint.counts.get(domain).copied().unwrap_or_default() + constraint.own;
            let least = constraint.counts.values().min().copied().unwrap_or_default();
            (here - least > constraint.max_skew).then_some(placement::NO_SPREAD)
        })
    }
}

impl Constraint {
    fn of(constraint: &Value, pod: &Value, cache: &Cache) -> Self {
        let key = value::text(constraint, &["topologyKey"]).to_owned();
        let wanted = value::at(constraint, &["labelSelector"]);
        let keys: Vec<&str> = value::items(constraint, &["matchLabelKeys"]).iter().filter_map(Value::as_str).collect();
        let like = |other: &Value| {
            selector::selects(wanted, selector::labels_of(other))
                && keys.iter().all(|key| value::label(other, key) == value::label(pod, key))
        };
        let mut counts = BTreeMap::new();
        for node in cache.all("nodes").filter(|node| placement::wants(pod, node)) {
            let Some(domain) = value::label(node, &key) else { continue };
            let there = cache.pods_on(value::name(node)).filter(|other| {
                value::namespace(other) == value::namespace(pod) && pods::is_active(other) && like(other)
            });
            *counts.entry(domain.to_owned()).or_default() += i64::try_from(there.count()).unwrap_or(i64::MAX);
        }
        Self { key, max_skew: value::number_or(constraint, &["maxSkew"], 1), own: i64::from(like(pod)), counts }
    }
}
