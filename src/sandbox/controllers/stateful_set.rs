//! StatefulSets: pods with ordinals, created in order, updated from the highest down to the partition.
//!
//! Source of the rules: `pkg/controller/statefulset/stateful_set_control.go`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    Change, Controller, Outcome, View, owned,
    pods::{self, Availability, Counts},
    revisions,
};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// Keeps StatefulSets.
#[derive(Debug)]
pub struct StatefulSetController {
    resource: Arc<str>,
}

impl Default for StatefulSetController {
    fn default() -> Self {
        Self { resource: "statefulsets.apps".into() }
    }
}

impl Controller for StatefulSetController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("statefulsets.apps") {
            return change.key().into_iter().collect();
        }
        if change.is("pods") {
            return owned::keys_of_pod(change, cache, "StatefulSet", &self.resource);
        }
        Vec::new()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(set) = view.cache.at(key) else { return Outcome::default() };
        let claim = owned::claim_pods(view.cache, set, false);
        if !claim.writes.is_empty() {
            return claim.writes.into();
        }
        let pods: BTreeMap<i64, &Arc<Value>> =
            claim.pods.into_iter().filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
        let mut outcome = Outcome::default();
        if !value::is_terminating(set) {
            outcome.writes.extend(revisions::keep(set, view.cache));
            outcome.writes.extend(Members { set, pods: &pods, view }.step());
        }
        let (status, next) = status(set, &pods, view);
        outcome.writes.extend(Write::status(set, status));
        outcome.wake = next;
        outcome
    }
}

fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    value::name(pod).strip_prefix(value::name(set))?.strip_prefix('-')?.parse().ok()
}

fn partition(set: &Value) -> i64 {
    value::number(set, &["spec", "updateStrategy", "rollingUpdate", "partition"])
}

fn is_rolling(set: &Value) -> bool {
    value::text(set, &["spec", "updateStrategy", "type"]) != "OnDelete"
}

fn current_revision(set: &Value) -> String {
    let current = value::text(set, &["status", "currentRevision"]);
    if current.is_empty() { revisions::name_of_update(set) } else { current.to_owned() }
}

struct Members<'a> {
    set: &'a Value,
    pods: &'a BTreeMap<i64, &'a Arc<Value>>,
    view: &'a View<'a>,
}

impl Members<'_> {
    /// Returns what is to be done now: one thing at a time, or all at once with `podManagementPolicy: Parallel`.
    fn step(&self) -> Vec<Write> {
        let start = value::number(self.set, &["spec", "ordinals", "start"]);
        let end = start + value::number_or(self.set, &["spec", "replicas"], 1);
        let parallel = value::text(self.set, &["spec", "podManagementPolicy"]) == "Parallel";
        let mut writes = Vec::new();
        for ordinal in start..end {
            match self.pods.get(&ordinal) {
                None => writes.extend(self.create(ordinal)),
                Some(pod) if pods::is_finished(pod) && !value::is_terminating(pod) => writes.push(delete(pod)),
                Some(pod) if self.is_healthy(pod) => continue,
                Some(_) => {}
            }
            if !parallel {
                return writes;
            }
        }
        let surplus = self.pods.iter().rev().filter(|(ordinal, _)| !(start..end).contains(*ordinal));
        for (_, pod) in surplus {
            if !value::is_terminating(pod) {
                writes.push(delete(pod));
            }
            if !parallel {
                return writes;
            }
        }
        if writes.is_empty() && is_rolling(self.set) {
            writes.extend(self.update(start + partition(self.set)..end));
        }
        writes
    }

    fn is_healthy(&self, pod: &Value) -> bool {
        let min_ready = value::number(self.set, &["spec", "minReadySeconds"]);
        !value::is_terminating(pod) && pods::availability(pod, min_ready, self.view.now) == Availability::Now
    }

    /// Deletes the highest pod that is not of the new revision, unless one above it is not healthy.
    fn update(&self, ordinals: std::ops::Range<i64>) -> Option<Write> {
        let update = revisions::name_of_update(self.set);
        for ordinal in ordinals.rev() {
            let pod = self.pods.get(&ordinal)?;
            if value::label(pod, revisions::HASH_LABEL) != Some(update.as_str()) {
                return (!value::is_terminating(pod)).then(|| delete(pod));
            }
            if !self.is_healthy(pod) {
                return None;
            }
        }
        None
    }

    /// Creates the pod with an ordinal, after its volume claims: old below the partition, and where there is none as long
    /// as the update has not come down to it.
    fn create(&self, ordinal: i64) -> Vec<Write> {
        let start = value::number(self.set, &["spec", "ordinals", "start"]);
        let has_partition = value::at(self.set, &["spec", "updateStrategy", "rollingUpdate"]).is_some();
        let not_reached = value::number(self.set, &["status", "currentReplicas"]);
        let old =
            is_rolling(self.set) && ordinal - start < if has_partition { partition(self.set) } else { not_reached };
        let revision = if old { current_revision(self.set) } else { revisions::name_of_update(self.set) };
        let name = format!("{}-{ordinal}", value::name(self.set));
        let mut pod = revisions::pod_of(self.set, &revision, self.view.cache);
        // Pods of a StatefulSet carry the revision's whole name, those of a DaemonSet only its hash.
        value::set(&mut pod, &["metadata", "labels", revisions::HASH_LABEL], revision);
        value::set(&mut pod, &["metadata", "labels", "statefulset.kubernetes.io/pod-name"], name.as_str());
        value::set(&mut pod, &["metadata", "labels", "apps.kubernetes.io/pod-index"], ordinal.to_string());
        value::set(&mut pod, &["spec", "hostname"], name.as_str());
        value::set(&mut pod, &["spec", "subdomain"], self.set["spec"]["serviceName"].clone());
        let mut writes = self.claims(&mut pod, &name);
        value::set(&mut pod, &["metadata", "name"], name);
        writes.push(Write::Create(pod));
        writes
    }

    fn claims(&self, pod: &mut Value, pod_name: &str) -> Vec<Write> {
        let namespace = value::namespace(self.set);
        let mut writes = Vec::new();
        let mut volumes = value::items(pod, &["spec", "volumes"]).to_vec();
        for template in value::items(self.set, &["spec", "volumeClaimTemplates"]) {
            let volume = value::name(template);
            let name = format!("{volume}-{pod_name}");
            volumes.retain(|it| it["name"] != volume);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": name}}));
            if self.view.cache.get("persistentvolumeclaims", namespace, &name).is_none() {
                let mut claim = template.clone();
                value::set(&mut claim, &["apiVersion"], "v1");
                value::set(&mut claim, &["kind"], "PersistentVolumeClaim");
                value::set(&mut claim, &["metadata", "name"], name);
                value::set(&mut claim, &["metadata", "namespace"], namespace);
                writes.push(Write::Create(claim));
            }
        }
        if !volumes.is_empty() {
            value::set(pod, &["spec", "volumes"], volumes);
        }
        writes
    }
}

fn delete(pod: &Arc<Value>) -> Write {
    Write::delete(Key::of(&Arc::from("pods"), pod), pod)
}

fn status(set: &Value, pods: &BTreeMap<i64, &Arc<Value>>, view: &View<'_>) -> (Value, Option<jiff::Timestamp>) {
    let alive = || pods.values().filter(|pod| !pods::is_finished(pod)).map(|pod| pod.as_ref());
    let min_ready = value::number(set, &["spec", "minReadySeconds"]);
    let counts = Counts::of(alive(), min_ready, view.now);
    let update = revisions::name_of_update(set);
    let of = |revision: &str| {
        let is_of = |pod: &&Value| value::label(pod, revisions::HASH_LABEL) == Some(revision);
        let such = alive().filter(|pod| !value::is_terminating(pod)).filter(is_of);
        i64::try_from(such.count()).unwrap_or(i64::MAX)
    };
    let updated = of(&update);
    let mut current = current_revision(set);
    if is_rolling(set) && updated == counts.total && counts.ready == counts.total {
        current.clone_from(&update);
    }
    let numbers = [
        ("observedGeneration", value::number(set, &["metadata", "generation"])),
        ("readyReplicas", counts.ready),
        ("currentReplicas", of(&current)),
        ("updatedReplicas", updated),
    ];
    let mut status = Map::new();
    status
        .extend(numbers.into_iter().filter(|(_, count)| *count != 0).map(|(name, count)| (name.into(), count.into())));
    status.insert("replicas".into(), counts.total.into());
    status.insert("availableReplicas".into(), counts.available.into());
    status.insert("currentRevision".into(), current.into());
    status.insert("updateRevision".into(), update.into());
    status.insert("collisionCount".into(), value::number(set, &["status", "collisionCount"]).into());
    (Value::Object(status), counts.next)
}
