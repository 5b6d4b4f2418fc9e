//! Nodes that are lost: not ready, tainted, and after a while without their pods.
//!
//! Source of the rules: `pkg/controller/nodelifecycle` and `pkg/controller/tainteviction`, with short times. A node
//! counts as lost when its kubelet has been silent for [`crate::sandbox::pace::Pace::node_grace`]; in the sandbox that
//! is known at the source and not from leases, so that a simulation has no heartbeats.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Change, Controller, Outcome, View, placement,
    pods::{self, set_condition},
};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Watches over nodes.
#[derive(Debug, Default)]
pub struct NodeLifecycleController {
    silent: BTreeMap<String, Timestamp>,
}

impl Controller for NodeLifecycleController {
    fn concerns(&mut self, change: &Change<'_>, _: &Cache) -> Vec<Key> {
        if change.is("nodes") { change.key().into_iter().collect() } else { Vec::new() }
    }

    fn concerned_by_faults(&mut self, cache: &Cache) -> Vec<Key> {
        cache.all("nodes").map(|node| Key::of(&Arc::from("nodes"), node)).collect()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(node) = view.cache.at(key) else {
            self.silent.remove(&key.name);
            return Outcome::default();
        };
        if !view.faults.is_kubelet_stopped(&key.name) {
            self.silent.remove(&key.name);
            return recovered(node).into_iter().collect();
        }
        let since = *self.silent.entry(key.name.clone()).or_insert(view.now);
        let due = since + view.pace.node_grace;
        if due > view.now {
            return Outcome { writes: Vec::new(), wake: Some(due) };
        }
        lost(node, due, view)
    }
}

fn unreachable_taints(now: Timestamp) -> [Value; 2] {
    ["NoSchedule", "NoExecute"]
        .map(|effect| json!({"key": UNREACHABLE, "effect": effect, "timeAdded": value::stamp(now)}))
}

fn is_unreachable(node: &Value) -> bool {
    value::items(node, &["spec", "taints"]).iter().any(|taint| taint["key"] == UNREACHABLE)
}

/// The kubelet says itself that it is ready again; only the taints are ours.
fn recovered(node: &Value) -> Option<Write> {
    if !is_unreachable(node) || !pods::holds(node, "Ready") {
        return None;
    }
    let mut node = node.clone();
    if let Some(Value::Array(taints)) = value::object_mut(&mut node, &["spec"]).get_mut("taints") {
        taints.retain(|taint| taint["key"] != UNREACHABLE);
    }
    Some(Write::Update(node))
}

fn lost(node: &Arc<Value>, since: Timestamp, view: &View<'_>) -> Outcome {
    let mut conditions = value::items(node, &["status", "conditions"]).to_vec();
    let unknown = json!({
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.", "lastHeartbeatTime": value::stamp(since),
    });
    if set_condition(&mut conditions, unknown, view.now) {
        let mut node = Value::clone(node);
        value::set(&mut node, &["status", "conditions"], conditions);
        return vec![Write::Status(node)].into();
    }
    if !is_unreachable(node) {
        let mut node = Value::clone(node);
        let taints = value::object_mut(&mut node, &["spec"]).entry("taints").or_insert_with(|| json!([]));
        if let Value::Array(taints) = taints {
            taints.extend(unreachable_taints(view.now));
        }
        return vec![Write::Update(node)].into();
    }
    let mut outcome = Outcome::default();
    for pod in view.cache.pods_on(value::name(node)).filter(|pod| pods::is_active(pod)) {
        outcome.writes.extend(not_ready(pod, view.now));
        let Some(patience) = patience(pod, view.pace.eviction) else { continue };
        match since + patience {
            at if at > view.now => outcome.wake_at(at),
            _ => outcome.writes.push(Write::delete(Key::of(&Arc::from("pods"), pod), pod)),
        }
    }
    outcome
}

fn not_ready(pod: &Value, now: Timestamp) -> Option<Write> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut conditions = value::items(pod, &["status", "conditions"]).to_vec();
    let wanted = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastProbeTime": null});
    set_condition(&mut conditions, wanted, now);
    let mut pod = pod.clone();
    value::set(&mut pod, &["status", "conditions"], conditions);
    Some(Write::Status(pod))
}

/// Returns how long a pod stays on an unreachable node; `None` for ever.
fn patience(pod: &Value, default: Duration) -> Option<Duration> {
    let taint = json!({"key": UNREACHABLE, "effect": "NoExecute"});
    let mut covering =
        value::items(pod, &["spec", "tolerations"]).iter().filter(|it| placement::tolerates_taint(it, &taint));
    let Some(first) = covering.next() else { return Some(default) };
    let seconds = |it: &Value| value::at(it, &["tolerationSeconds"]).and_then(Value::as_i64);
    let least = std::iter::once(first).chain(covering).filter_map(seconds).min()?;
    Some(Duration::from_secs(u64::try_from(least).unwrap_or_default()))
}
