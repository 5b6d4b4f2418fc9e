//! How many pods are at which version, and where pods are.

use std::collections::BTreeMap;

use locktender::core::{
    ledger::{Event, Record},
    names::{Digest, Unit},
    rollout::{
        labels,
        plan::Method,
        state::{Outcome, Phase, State},
    },
};
use serde_json::Value;

use super::snapshot::{Snapshot, image, is_terminating, label, name, uid};

/// Where a pod is. Node and address come with time; once there they stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub node: String,
    pub address: String,
}

impl Place {
    pub fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
        }
    }

    /// Returns whether `later` is the same place, perhaps with more known of it.
    pub fn may_become(&self, later: &Self) -> bool {
        let kept = |before: &str, now: &str| before.is_empty() || before == now;
        self.name == later.name && kept(&self.node, &later.node) && kept(&self.address, &later.address)
    }
}

/// A version of a workload: its digest's label, and the image by which its pods are told whatever their labels say.
pub struct Version<'a> {
    pub label: String,
    pub image: Option<&'a str>,
}

impl<'a> Version<'a> {
    /// Returns the version that a rollout takes a workload to.
    pub fn target(state: &'a State, id: &str) -> Option<Self> {
        let digest: &Digest = state.plan.to.workloads.get(id)?;
        let to = state.plan.to.images.get(id).map(String::as_str);
        let from = state.plan.from.as_ref().and_then(|from| from.images.get(id)).map(String::as_str);
        // Where only configuration changes, the image tells nothing.
        Some(Self { label: labels::digest_label(digest), image: to.filter(|_| to != from) })
    }

    pub fn is_of(&self, pod: &Value) -> bool {
        label(pod, labels::DIGEST) == self.label || self.image == Some(image(pod))
    }
}

/// Counts, by unit, the pods that are at a version or will be made at it as things stand.
pub fn at_version(snapshot: &Snapshot, app: &str, id: &str, version: &Version<'_>) -> BTreeMap<Unit, u64> {
    if id.starts_with("StatefulSet/") {
        return BTreeMap::from([(Unit::new(""), ordinals_at(snapshot, app, id, version))]);
    }
    if id.starts_with("DaemonSet/") {
        return BTreeMap::from([(Unit::new(ALL), nodes_at(snapshot, app, id, version))]);
    }
    let mut counts: BTreeMap<Unit, u64> = BTreeMap::new();
    for slice in snapshot.of_workload("replicasets.apps", app, id).filter(|slice| !is_terminating(slice)) {
        let own = uid(slice);
        let pods: Vec<&Value> = snapshot
            .of_workload("pods", app, id)
            .filter(|pod| !is_terminating(pod))
            .filter(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == own)
            .collect();
        let at = pods.iter().filter(|pod| version.is_of(pod)).count() as u64;
        let makes = slice["spec"]["template"]["metadata"]["labels"][labels::DIGEST] == version.label.as_str();
        let count = if makes {
            let others = pods.len() as u64 - at;
            slice["spec"]["replicas"].as_u64().unwrap_or(0).saturating_sub(others)
        } else {
            at
        };
        *counts.entry(Unit::new(label(slice, labels::UNIT))).or_default() += count;
    }
    // While pods are handed from one slice to another nothing owns them.
    let alone = snapshot.of_workload("pods", app, id).filter(|pod| pod["metadata"]["ownerReferences"][0].is_null());
    for pod in alone.filter(|pod| !is_terminating(pod) && version.is_of(pod)) {
        *counts.entry(Unit::new(label(pod, labels::UNIT))).or_default() += 1;
    }
    counts
}

/// A DaemonSet's pods are counted over all units: in which one is, its node says, which is not looked at here.
const ALL: &str = "all units";

/// Counts a DaemonSet's pods at a version: those that are, and those that its controller makes so.
fn nodes_at(snapshot: &Snapshot, app: &str, id: &str, version: &Version<'_>) -> u64 {
    let Some(set) = snapshot.workload(app, id) else { return 0 };
    let pods: Vec<&Value> = snapshot.of_workload("pods", app, id).filter(|pod| !is_terminating(pod)).collect();
    let at = pods.iter().filter(|pod| version.is_of(pod)).count() as u64;
    let wanted = set["status"]["desiredNumberScheduled"].as_u64().unwrap_or(0);
    let comes_so = set["spec"]["template"]["metadata"]["labels"][labels::DIGEST] == version.label.as_str();
    match (comes_so, set["spec"]["updateStrategy"]["type"] == "OnDelete") {
        (true, true) => at + wanted.saturating_sub(pods.len() as u64),
        // Its controller replaces every pod.
        (true, false) => wanted,
        (false, _) => at,
    }
}

/// Counts a StatefulSet's pods at a version: those that are, and those that its controller makes so, now or when they die.
fn ordinals_at(snapshot: &Snapshot, app: &str, id: &str, version: &Version<'_>) -> u64 {
    let Some(set) = snapshot.workload(app, id) else { return 0 };
    let index = |pod: &Value| name(pod).rsplit('-').next().and_then(|ordinal| ordinal.parse::<u64>().ok()).unwrap_or(0);
    let pods = snapshot.of_workload("pods", app, id).filter(|pod| !is_terminating(pod));
    let at: Vec<u64> = pods.filter(|pod| version.is_of(pod)).map(index).collect();
    if set["spec"]["template"]["metadata"]["labels"][labels::DIGEST] != version.label.as_str() {
        return at.len() as u64;
    }
    let partition = set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap_or(0);
    let made = set["spec"]["replicas"].as_u64().unwrap_or(1).saturating_sub(partition);
    at.iter().filter(|index| **index < partition).count() as u64 + made
}

/// Returns whether a workload's pods are being handed to other slices: they change their unit, and stay what they are.
pub fn is_regrouped(snapshot: &Snapshot, id: &str) -> bool {
    let name = id.rsplit('/').next().unwrap_or(id);
    let handles = snapshot.all("deployments.apps").filter(|handle| handle["metadata"]["name"] == name);
    handles.into_iter().any(|handle| handle["metadata"]["annotations"][labels::REGROUPING].is_string())
}

/// Says how many pods may be at a rollout's target in one unit; `None` is any number.
pub fn allowed(state: &State, id: &str, unit: &Unit) -> Option<u64> {
    let method = state.plan.methods.get(id);
    if id.starts_with("DaemonSet/") && unit.as_str() == ALL {
        let units = state.totals.get(id).filter(|_| method != Some(&Method::Install))?.keys();
        return units.map(|unit| allowed(state, id, unit)).sum();
    }
    let rebalances = method == Some(&Method::Rebalance);
    if rebalances || state.plan.policy.is_none() {
        return None;
    }
    match state.phase {
        Phase::Running | Phase::Stopped => {
            let stage = current_stage(state);
            let quota = quotas_at(state, stage);
            Some(u64::from(quota.and_then(|quota| quota.get(id)?.get(unit).copied()).unwrap_or(0)))
        }
        Phase::Aborting(_) | Phase::Ended(Outcome::Aborted | Outcome::Superseded) => Some(0),
        Phase::Ended(Outcome::Completed) => None,
    }
}

/// Returns the stage that the records let the rollout be in: the last that was started or returned to.
pub fn current_stage(state: &State) -> usize {
    let moves = |record: &&Record| matches!(record.event, Event::StageStarted | Event::StageReverted);
    let last = state.records.iter().rev().find(moves);
    last.and_then(|record| state.index_of(record.stage.as_ref()?)).unwrap_or(0)
}

fn quotas_at(state: &State, stage: usize) -> Option<&locktender::core::ledger::Quota> {
    let counts_anew = |record: &&Record| matches!(record.event, Event::Rescheduled | Event::QuotaChanged);
    let anew = state.records.iter().rev().filter(counts_anew).map(|record| &record.evidence.quotas);
    let anew = anew.into_iter().find(|quotas| quotas.len() == state.plan.stages.len());
    match anew {
        Some(quotas) => quotas.get(stage),
        None => state.plan.stages.get(stage).map(|stage| &stage.quota),
    }
}
