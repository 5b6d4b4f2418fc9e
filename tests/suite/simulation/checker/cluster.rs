//! Writes to the cluster, and what the cluster does by itself: invariants 2, 3, 6 and 7.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use locktender::{
    controller::anchor,
    core::{
        cluster::Write,
        ledger::Event,
        manifest::Object,
        names::AppName,
        policy::IntOrPercent,
        rollout::{
            labels,
            plan::Method,
            state::{Outcome, Phase, State},
        },
    },
};
use serde_json::Value;

use super::{
    Checker, Snapshot,
    pods::{self, Place, Version},
    snapshot::{is_terminating, label, name, uid},
};

impl Checker {
    /// Judges one write of ours that was carried out: `before` it, at once `after` it, and when everybody had
    /// `reacted` to it.
    pub fn wrote(&mut self, write: &Write, before: &Snapshot, after: &Snapshot, reacted: &Snapshot) {
        if self.resting {
            return;
        }
        self.judged += 1;
        // What a write to the anchor keeps counts from here on, not for the write itself.
        self.explained(write, before, after);
        self.read_anchors(after);
        let apps: Vec<AppName> = self.apps();
        for app in &apps {
            let Some(state) = self.last(app).cloned() else { continue };
            for now in [after, reacted] {
                self.quota(app, &state, before, now, write);
            }
            // What a Service selects is in its EndpointSlices only once their controller has reacted.
            if matches!(write, Write::Patch { key, .. } if key.kind == "Pod") {
                self.budget(app, &state, before, after, write);
            }
            self.budget(app, &state, before, reacted, write);
            self.stays(app, &state, before, reacted, write);
        }
        self.places(reacted);
    }

    /// Judges what the cluster did by itself.
    pub fn stepped(&mut self, now: &Snapshot) {
        if self.resting {
            return;
        }
        self.judged += 1;
        self.places(now);
    }

    fn apps(&self) -> Vec<AppName> {
        let names: BTreeSet<&AppName> = self.pushed.keys().chain(self.anchored.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// Reads what anchors keep.
    fn read_anchors(&mut self, now: &Snapshot) {
        for object in now.all("configmaps").filter(|object| !label(object, labels::ANCHOR).is_empty()) {
            let app = AppName::new(label(object, labels::ANCHOR));
            let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            if self.anchored.get(&app).is_some_and(|(known, _)| known == version) {
                continue;
            }
            let Some(kept) = anchor::read(&Object(object.clone())) else { continue };
            let states =
                kept.rollouts.into_iter().map(|(number, one)| (number, Arc::new(State::fold(one.plan, one.records))));
            self.anchored.insert(app, (version.to_owned(), states.collect()));
        }
    }

    /// 2: no action takes pods of the new version above the frontier's quota, in any unit.
    fn quota(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let stable = self.stable(app);
        for id in state.plan.to.workloads.keys() {
            let Some(version) = Version::target(state, id) else { continue };
            if stable.get(id) == Some(&version.label) {
                continue;
            }
            let was = pods::at_version(before, app.as_str(), id, &version);
            for (unit, count) in pods::at_version(now, app.as_str(), id, &version) {
                let Some(allowed) = pods::allowed(state, id, &unit) else { continue };
                let had = was.get(&unit).copied().unwrap_or(0);
                if count > allowed && count > had {
                    let place = format!("{id} in `{unit}` of {}", state.plan.rollout);
                    let what = format!("{count} pods at the new version ({had} before), {allowed} allowed");
                    self.violated(2, format_args!("{place}: {what}, by {}", told(write)));
                }
            }
        }
    }

    /// The digest label of each workload as the last completed rollout left it.
    fn stable(&self, app: &AppName) -> BTreeMap<String, String> {
        let completed = self
            .pushed
            .get(app)
            .and_then(|rollouts| rollouts.values().rev().find(|state| state.phase == Phase::Ended(Outcome::Completed)));
        let workloads = completed.into_iter().flat_map(|state| &state.plan.to.workloads);
        workloads.map(|(id, digest)| (id.clone(), labels::digest_label(digest))).collect()
    }

    /// 3: no action takes pods in service below replicas − maxUnavailable.
    fn budget(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let Some(policy) = &state.plan.policy else { return };
        let removed = state.plan.inputs.files.is_empty();
        let undone = state.plan.from.is_none() && matches!(state.phase, Phase::Aborting(_) | Phase::Ended(_));
        if removed || undone && state.phase != Phase::Ended(Outcome::Completed) || !self.strictness.budget {
            return;
        }
        for (id, totals) in &state.totals {
            let total: u64 = totals.values().map(|count| u64::from(*count)).sum();
            let may_miss = match policy.spec.strategy.pods().max_unavailable {
                IntOrPercent::Count(count) => u64::from(count),
                IntOrPercent::Percent(percent) => total * u64::from(percent.get()) / 100,
            };
            let floor = total.saturating_sub(may_miss.max(1));
            let count = |snapshot: &Snapshot| {
                let pods = snapshot.of_workload("pods", app.as_str(), id);
                pods.filter(|pod| snapshot.is_in_service(pod)).count() as u64
            };
            let (had, has) = (count(before), count(now));
            if has < had && has < floor {
                let what = format!("{has} pods of {id} in service ({had} before), {floor} must stay");
                self.violated(3, format_args!("{}: {what}, by {}", state.plan.rollout, told(write)));
            }
        }
    }

    /// 6: every change is explained by a record before it.
    fn explained(&mut self, write: &Write, before: &Snapshot, after: &Snapshot) {
        let Some(app) = app_of(write, before) else { return };
        if is_anchor(write) {
            return;
        }
        let Some(state) = self.last(&app) else {
            return self.violated(6, format_args!("no record of {app} explains {}", told(write)));
        };
        let Phase::Ended(_) = state.phase else { return };
        // At rest: put in place (`Applied`), put back (`DriftCorrected`), or shared out, which needs no record.
        let object = target(write);
        let explained = state.records.iter().any(|record| match record.event {
            Event::Applied => true,
            Event::DriftCorrected => record.evidence.objects.iter().any(|one| one.split('@').next() == Some(&object)),
            _ => false,
        });
        let shares_out = matches!(write, Write::Patch { body, .. } if body.pointer("/spec/replicas").is_some());
        let starts_pods = matches!(write, Write::Patch { body, .. } if body.pointer("/spec/containers").is_some());
        // Annotations that follow the records ask for nothing.
        let notes = target(write).starts_with("Deployment/") && same_spec(write, before, after);
        let applies = matches!(write, Write::Apply { .. }) && !is_named_configuration(write) && !notes;
        if (starts_pods || applies) && !explained && !shares_out {
            self.violated(6, format_args!("{} is at rest, and no record explains {}", app, told(write)));
        }
    }

    /// 7: an update in place takes no pod away.
    fn stays(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        if !self.strictness.identity || state.totals != state.plan.totals {
            return;
        }
        if !matches!(state.phase, Phase::Running | Phase::Aborting(_)) {
            return;
        }
        for (id, method) in &state.plan.methods {
            if *method != Method::InPlace || self.pods_in_between(app, state, id, before) {
                continue;
            }
            let alive = |snapshot: &Snapshot| -> BTreeSet<String> {
                let pods = snapshot.of_workload("pods", app.as_str(), id);
                pods.filter(|pod| !is_terminating(pod)).map(|pod| uid(pod).to_owned()).collect()
            };
            let (had, has) = (alive(before), alive(now));
            if !had.is_subset(&has) {
                let gone: Vec<_> = had.difference(&has).collect();
                let what = format!("an update in place took {} pods away ({gone:?})", gone.len());
                self.violated(7, format_args!("{}: {what}, by {}", state.plan.rollout, told(write)));
            }
        }
    }

    /// Pods of a version that was superseded may have to be made anew.
    fn pods_in_between(&self, app: &AppName, state: &State, id: &str, now: &Snapshot) -> bool {
        let Some(version) = Version::target(state, id) else { return true };
        let stable = self.stable(app);
        let stable = stable.get(id).map(String::as_str).unwrap_or_default();
        now.of_workload("pods", app.as_str(), id).any(|pod| {
            let digest = label(pod, labels::DIGEST);
            digest != version.label && digest != stable
        })
    }

    /// 7: a pod keeps name, node and address as long as it has its UID.
    fn places(&mut self, now: &Snapshot) {
        let mut wrong = Vec::new();
        for pod in now.pods() {
            let place = Place::of(pod);
            match self.placed.get(uid(pod)) {
                Some(known) if known.may_become(&place) => {}
                Some(known) => wrong.push(format!("{} was {known:?}, is {place:?}", name(pod))),
                None => {}
            }
            self.placed.insert(uid(pod).to_owned(), place);
        }
        for what in wrong {
            self.violated(7, what);
        }
    }
}

fn subject(write: &Write) -> (String, String, String) {
    match write {
        Write::Apply { object, .. } | Write::Create { object } => {
            (object.key().kind, object.namespace().to_owned(), object.name().to_owned())
        }
        Write::Patch { key, .. } | Write::Delete { key, .. } => {
            (key.kind.clone(), key.namespace.clone(), key.name.clone())
        }
    }
}

fn target(write: &Write) -> String {
    let (kind, _, name) = subject(write);
    format!("{kind}/{name}")
}

/// Returns which application a write is for: by what it sends, or by the object that it is about.
fn app_of(write: &Write, before: &Snapshot) -> Option<AppName> {
    if let Write::Apply { object, .. } | Write::Create { object } = write {
        return object.label(labels::APP).map(AppName::new);
    }
    let (kind, namespace, wanted) = subject(write);
    let resource = match kind.as_str() {
        "Pod" => "pods",
        "ReplicaSet" => "replicasets.apps",
        "Deployment" => "deployments.apps",
        "Service" => "services",
        "ConfigMap" => "configmaps",
        _ => return None,
    };
    let is_it =
        |object: &&Value| name(object) == wanted && object["metadata"]["namespace"].as_str() == Some(&namespace);
    let app = label(before.all(resource).find(is_it)?, labels::APP);
    (!app.is_empty()).then(|| AppName::new(app))
}

fn same_spec(write: &Write, before: &Snapshot, after: &Snapshot) -> bool {
    let (_, namespace, wanted) = subject(write);
    let spec = |snapshot: &Snapshot| {
        let is_it = |object: &&Value| name(object) == wanted && object["metadata"]["namespace"] == namespace.as_str();
        snapshot.all("deployments.apps").find(is_it).map(|object| object["spec"].clone())
    };
    spec(before).is_some() && spec(before) == spec(after)
}

fn is_anchor(write: &Write) -> bool {
    matches!(write, Write::Apply { object, .. } if object.label(labels::ANCHOR).is_some())
}

/// Configuration that pods read has a name of its own for each version: it is put in place with them.
fn is_named_configuration(write: &Write) -> bool {
    matches!(write, Write::Apply { object, .. } if object.at(&["metadata", "ownerReferences"]).is_some())
}

/// Tells a write in one line.
pub fn told(write: &Write) -> String {
    match write {
        Write::Apply { .. } => format!("applying {}", target(write)),
        Write::Create { .. } => format!("creating {}", target(write)),
        Write::Patch { body, .. } => format!("patching {} with {body}", target(write)),
        Write::Delete { .. } => format!("deleting {}", target(write)),
    }
}
