//! Writes to the cluster, and what the cluster does by itself: invariants 2, 3, 6 and 7.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use locktender::{
    controller::anchor,
    core::{
        cluster::Write,
        ledger::{Event, Quota},
        manifest::Object,
        names::AppName,
        policy::IntOrPercent,
        rollout::{
            labels,
            plan::{Gate, Method},
            state::{Outcome, Phase, State},
        },
    },
};
use serde_json::Value;

use super::{
    Checker, Ledger, Snapshot,
    pods::{self, Place, Version},
    snapshot::{is_terminating, label, name, uid},
};

impl Checker {
    /// Judges one write of ours that was carried out on what `ledger` said: `before` it, at once `after` it, and when
    /// everybody had `reacted` to it.
    pub fn wrote(&mut self, write: &Write, ledger: &Ledger, before: &Snapshot, after: &Snapshot, reacted: &Snapshot) {
        if self.resting {
            return;
        }
        self.judged += 1;
        // What a write to the anchor keeps counts from here on, not for the write itself.
        self.explained(write, ledger, before, after);
        self.read_anchors(after);
        self.proxied_stay(before, reacted, &told(write));
        for (app, state) in ledger {
            for now in [after, reacted] {
                self.quota(app, state, before, now, write);
            }
            // What a Service selects is in its EndpointSlices only once their controller has reacted.
            if matches!(write, Write::Patch { key, .. } if key.kind == "Pod") {
                self.budget(app, state, before, after, write);
            }
            self.budget(app, state, before, reacted, write);
            self.stays(app, state, before, reacted, write);
            self.traffic(app, state, before, reacted, write);
            self.weights(app, state, before, reacted, write);
            self.given_back(app, state, before, reacted, write);
        }
        self.places(reacted);
    }

    /// Notes what a write asks for that is on its way, whatever becomes of it.
    pub fn sends(&mut self, write: &Write) {
        let Write::Apply { object, .. } = write else { return };
        let is_workload = matches!(object.kind().kind.as_str(), "Deployment" | "StatefulSet");
        let Some(app) = object.label(labels::APP).filter(|_| is_workload) else { return };
        let place = (AppName::new(app), target(write));
        match object.at(&["spec", "replicas"]).and_then(Value::as_u64) {
            Some(replicas) => drop(self.sent.insert(place, replicas)),
            None => drop(self.sent.remove(&place)),
        }
    }

    /// Judges what the cluster did by itself.
    pub fn stepped(&mut self, now: &Snapshot) {
        if self.resting {
            return;
        }
        self.judged += 1;
        self.places(now);
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
            let is = pods::at_version(now, app.as_str(), id, &version);
            if pods::is_regrouped(before, id) && is.values().sum::<u64>() <= was.values().sum() {
                continue;
            }
            for (unit, count) in is {
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

    /// The last rollout that completed.
    fn completed(&self, app: &AppName) -> Option<&Arc<State>> {
        self.pushed.get(app)?.values().rev().find(|state| state.phase == Phase::Ended(Outcome::Completed))
    }

    /// The digest label of each workload as the last completed rollout left it.
    pub(super) fn stable(&self, app: &AppName) -> BTreeMap<String, String> {
        let workloads = self.completed(app).into_iter().flat_map(|state| &state.plan.to.workloads);
        workloads.map(|(id, digest)| (id.clone(), labels::digest_label(digest))).collect()
    }

    /// The rollout by whose plan pods move, where it is not the last: before that one may touch any, whichever it took the
    /// place of.
    fn moved_by(&self, app: &AppName, state: &State) -> Option<Arc<State>> {
        let touches = |state: &State, index: usize| state.plan.stages[index].gates.contains(&Gate::Health);
        if state.phase != Phase::Running || touches(state, pods::current_stage(state)) {
            return None;
        }
        let began = |state: &&Arc<State>| {
            let started = state.records.iter().filter(|record| record.event == Event::StageStarted);
            let mut stages = started.filter_map(|record| state.index_of(record.stage.as_ref()?));
            stages.any(|index| touches(state, index))
        };
        let superseded = |state: &&Arc<State>| state.phase == Phase::Ended(Outcome::Superseded);
        self.pushed.get(app)?.values().rev().skip(1).take_while(superseded).find(began).cloned()
    }

    /// 3: no action takes pods in service below replicas − maxUnavailable, as far as it could be known.
    fn budget(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let before_it = self.moved_by(app, state);
        let Some(policy) = &before_it.as_deref().unwrap_or(state).plan.policy else { return };
        let pods = policy.spec.strategy.pods();
        for (id, total) in self.wanted(app, state, before) {
            let may_miss = match pods.max_unavailable {
                IntOrPercent::Count(count) => u64::from(count),
                IntOrPercent::Percent(percent) => total * u64::from(percent.get()) / 100,
            };
            // At least one, or nothing could ever move; but where new pods come first, none need be missing.
            let surges = !matches!(pods.max_surge, IntOrPercent::Count(0)) && id.starts_with("Deployment/");
            let needed = self.floor_beside(app, state, &id, total, before);
            let floor = needed.saturating_sub(may_miss.max(u64::from(!surges)));
            let beside = policy.spec.strategy.beside().is_some();
            let in_service = |snapshot: &Snapshot| -> BTreeSet<String> {
                // Of two sides only that counts which is called, not the one that is looked at.
                let called = beside.then(|| snapshot.called_pods(app.as_str(), &id)).flatten();
                let pods = snapshot.of_workload("pods", app.as_str(), &id);
                let counts = |pod: &&Value| called.as_ref().is_none_or(|called| called.contains(uid(pod)));
                pods.filter(|pod| snapshot.is_in_service(pod)).filter(counts).map(|pod| uid(pod).to_owned()).collect()
            };
            let (had, has) = (in_service(before), in_service(now));
            let lost: BTreeSet<String> = had.difference(&has).cloned().collect();
            if lost.is_empty() || has.len() as u64 >= floor {
                continue;
            }
            let known = in_service(&self.told.snapshot());
            if known.difference(&lost).count() as u64 >= floor {
                continue;
            }
            let counts = format!("{} pods of {id} in service ({} before)", has.len(), had.len());
            self.violated(3, format_args!("{}: {counts}, {floor} must stay, by {}", state.plan.rollout, told(write)));
        }
    }

    /// Returns how many pods of each workload are wanted: as recorded while a rollout goes forward, else as the handle
    /// says, which needs no record; or what the destination wants, if that is nothing.
    pub(super) fn wanted(&self, app: &AppName, state: &State, now: &Snapshot) -> BTreeMap<String, u64> {
        let sum = |totals: &Quota| -> BTreeMap<String, u64> {
            let sum = |counts: &BTreeMap<_, u32>| counts.values().map(|count| u64::from(*count)).sum();
            totals.iter().map(|(id, counts)| (id.clone(), sum(counts))).collect()
        };
        let going_back = matches!(state.phase, Phase::Aborting(_) | Phase::Ended(Outcome::Aborted));
        let to_nothing = if going_back { state.plan.from.is_none() } else { state.plan.inputs.files.is_empty() };
        if to_nothing {
            // Before the gate that comes before any act, everything is still wanted.
            let acts = state.plan.stages[pods::current_stage(state)].gates.contains(&Gate::Health);
            let stable = self.completed(app).filter(|_| !acts && !going_back);
            return stable.map(|stable| sum(&stable.totals)).unwrap_or_default();
        }
        let mut wanted = sum(&state.totals);
        if state.plan.from.is_none() && matches!(state.phase, Phase::Running | Phase::Stopped) {
            // Nothing was stable: a unit has what its stage may have, and what is left of a version that was superseded.
            for (id, total) in &mut wanted {
                let Some(version) = Version::target(state, id) else { continue };
                let units = state.totals.get(id).into_iter().flatten();
                let there_can_be = units.map(|(unit, total)| {
                    let here = now
                        .of_workload("pods", app.as_str(), id)
                        .filter(|pod| label(pod, labels::UNIT) == unit.as_str());
                    let between = here.filter(|pod| !version.is_of(pod) && !is_terminating(pod)).count() as u64;
                    let allowed = pods::allowed(state, id, unit).unwrap_or(u64::from(*total));
                    u64::from(*total).min(allowed + between)
                });
                *total = there_can_be.sum();
            }
        }
        if !matches!(state.phase, Phase::Running | Phase::Stopped) {
            for (id, total) in &mut wanted {
                let handle = now.workload(app.as_str(), id);
                *total = handle.and_then(|handle| handle["spec"]["replicas"].as_u64()).unwrap_or(*total);
                // What was sent and has not arrived is wanted all the same.
                *total = (*total).min(self.sent.get(&(app.clone(), id.clone())).copied().unwrap_or(u64::MAX));
            }
        }
        wanted
    }

    /// 6: every change is explained by a record before it; what is put back may be explained by one that comes after it.
    fn explained(&mut self, write: &Write, ledger: &Ledger, before: &Snapshot, after: &Snapshot) {
        let Some(app) = app_of(write, before) else { return };
        if is_anchor(write) {
            return;
        }
        let Some(state) = ledger.get(&app) else {
            return self.violated(6, format_args!("no record of {app} explains {}", told(write)));
        };
        let Phase::Ended(_) = state.phase else { return self.explained_on_the_way(write, &app, state, before) };
        // At rest: put in place (`Applied`), put back (`DriftCorrected`), or shared out, which needs no record. The latest
        // of each names the objects, and the state that they were seen in.
        let latest = |event: Event| state.records.iter().rev().find(|record| record.event == event);
        let named = [Event::Applied, Event::DriftCorrected].into_iter().filter_map(latest);
        let named: Vec<&String> = named.flat_map(|record| &record.evidence.objects).collect();
        let seen_as = seen(write);
        // Where generations are counted they are the state: a status that was written meanwhile is no other.
        let generation = generation(write, before).map(|generation| format!("{}@{generation}-", target(write)));
        let is_it = |name: &String| {
            seen_as.contains(name) || generation.as_ref().is_some_and(|generation| name.starts_with(generation))
        };
        let is_explained = named.iter().any(|name| is_it(name));
        let needs_record = match write {
            // Annotations that follow the records ask for nothing.
            Write::Apply { .. } => !is_configuration_of_pods(write) && !notes_only(write, before, after),
            // Only the namespace, which no record can come before, and slices, which the wanted total makes, are created.
            Write::Create { .. } => false,
            Write::Patch { body, .. } => body.pointer("/spec/containers").is_some(),
            Write::Delete { key, .. } => key.kind != "ReplicaSet",
        };
        if needs_record && !is_explained && self.is_put_back(write, &app, &|seen| is_it(&seen.to_owned())) {
            return;
        }
        if needs_record && !is_explained {
            let what = format!("{app} is at rest, and no record explains {}", told(write));
            self.violated(6, format_args!("{what}, seen as {seen_as:?}; named are {named:?}"));
        }
    }

    /// 6, while a rollout runs: before its gates before any act nothing is written but on the way back, and pods and slices are those of workloads
    /// that the plan, or one since the last that completed, has.
    fn explained_on_the_way(&mut self, write: &Write, app: &AppName, state: &State, before: &Snapshot) {
        let rollout = &state.plan.rollout;
        let acts = state.plan.stages[pods::current_stage(state)].gates.contains(&Gate::Health);
        // What the rollout before had moved goes back at once, and so does what this one had, where its start was taken back.
        let before_it = self.pushed.get(app).and_then(|all| all.range(..rollout.number).next_back());
        let returns = before_it.is_some_and(|(_, before)| before.phase == Phase::Ended(Outcome::Superseded))
            || state.records.iter().any(|record| record.event == Event::StageReverted);
        if matches!(state.phase, Phase::Running | Phase::Stopped) && !acts && !returns {
            return self
                .violated(6, format_args!("{rollout} touches nothing before it is confirmed, but {}", told(write)));
        }
        let Some(workload) = workload_of(write, before) else { return };
        let completed = self.completed(app).map_or(0, |state| state.plan.rollout.number);
        let since = self.pushed.get(app).into_iter().flat_map(|all| all.range(completed..)).map(|(_, state)| state);
        let ends = since.flat_map(|state| state.plan.from.iter().chain([&state.plan.to]).map(|end| &end.workloads));
        let known = ends.flatten().any(|(id, _)| labels::label_value(id.rsplit('/').next().unwrap_or(id)) == workload);
        if !known {
            self.violated(6, format_args!("{rollout} has no workload `{workload}`, which explains {}", told(write)));
        }
    }

    /// What is stable is recorded, so an object may be put back before that is: it says in which state it was seen, and is
    /// not put back again before a record says so too.
    fn is_put_back(&mut self, write: &Write, app: &AppName, is_it: &dyn Fn(&str) -> bool) -> bool {
        let Write::Apply { object, .. } = write else { return false };
        let note = object.annotation(labels::PUT_BACK).and_then(|note| note.split_once(' '));
        let Some((_, seen)) = note.filter(|(_, seen)| is_it(seen)) else { return false };
        let owed = self.owed.entry(app.clone()).or_default();
        let again = owed.iter().any(|one| one.split('@').next() == seen.split('@').next() && one != seen);
        owed.insert(seen.to_owned());
        !again
    }

    /// 7: an update in place takes no pod away that is wanted.
    fn stays(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let wanted = self.wanted(app, state, before);
        for (id, method) in &state.plan.methods {
            if *method != Method::InPlace || self.pods_in_between(app, state, id, before) {
                continue;
            }
            let alive = |snapshot: &Snapshot| -> BTreeMap<String, String> {
                let pods = snapshot.of_workload("pods", app.as_str(), id).filter(|pod| !is_terminating(pod));
                pods.map(|pod| (uid(pod).to_owned(), label(pod, labels::UNIT).to_owned())).collect()
            };
            let (had, has) = (alive(before), alive(now));
            let gone: Vec<_> = had.iter().filter(|(uid, _)| !has.contains_key(*uid)).collect();
            let too_few = match state.totals.get(id).filter(|_| state.phase == Phase::Running) {
                Some(totals) => totals.iter().any(|(unit, total)| {
                    let of_unit =
                        |pods: &BTreeMap<String, String>| pods.values().filter(|it| **it == unit.as_str()).count();
                    of_unit(&has) < of_unit(&had) && (of_unit(&has) as u64) < u64::from(*total)
                }),
                None => (has.len() as u64) < wanted.get(id).copied().unwrap_or(0),
            };
            if !gone.is_empty() && too_few {
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
        "StatefulSet" => "statefulsets.apps",
        "DaemonSet" => "daemonsets.apps",
        "Service" => "services",
        "ConfigMap" => "configmaps",
        _ => return None,
    };
    let is_it =
        |object: &&Value| name(object) == wanted && object["metadata"]["namespace"].as_str() == Some(&namespace);
    let app = label(before.all(resource).find(is_it)?, labels::APP);
    (!app.is_empty()).then(|| AppName::new(app))
}

/// Returns the label that names the workload of a pod or slice that a write makes, changes or removes.
fn workload_of(write: &Write, before: &Snapshot) -> Option<String> {
    let (kind, namespace, wanted) = subject(write);
    let resource = match kind.as_str() {
        "Pod" => "pods",
        "ReplicaSet" => "replicasets.apps",
        _ => return None,
    };
    let named = match write {
        Write::Apply { object, .. } | Write::Create { object } => object.label(labels::WORKLOAD).unwrap_or_default(),
        Write::Patch { .. } | Write::Delete { .. } => {
            let is_it = |one: &&Value| name(one) == wanted && one["metadata"]["namespace"] == namespace.as_str();
            label(before.all(resource).find(is_it)?, labels::WORKLOAD)
        }
    };
    (!named.is_empty()).then(|| named.to_owned())
}

/// Names what a write is about as records do: the object, and the state that it was seen in.
fn seen(write: &Write) -> [String; 2] {
    let (uid, version) = match write {
        Write::Apply { object, .. } | Write::Create { object } => (object.uid(), object.resource_version()),
        Write::Patch { uid, resource_version, .. } | Write::Delete { uid, resource_version, .. } => {
            (uid.as_str(), resource_version.as_deref().unwrap_or_default())
        }
    };
    let or_absent = |text: &str| if text.is_empty() { "absent".to_owned() } else { text.to_owned() };
    [version, uid].map(|state| format!("{}@{}", target(write), or_absent(state)))
}

/// Returns the generation that an object had before a write, where its kind counts them.
fn generation(write: &Write, before: &Snapshot) -> Option<u64> {
    let (kind, namespace, wanted) = subject(write);
    let is_it = |object: &&Value| name(object) == wanted && object["metadata"]["namespace"] == namespace.as_str();
    before.all(super::told::resource_of(&kind)?).find(is_it)?["metadata"]["generation"].as_u64()
}

/// Returns whether a write changes only what is noted on a workload for people: which rollout, which stage.
fn notes_only(write: &Write, before: &Snapshot, after: &Snapshot) -> bool {
    let (kind, namespace, wanted) = subject(write);
    let without_notes = |snapshot: &Snapshot| {
        let is_it = |object: &&Value| name(object) == wanted && object["metadata"]["namespace"] == namespace.as_str();
        let mut object = snapshot.all(super::told::resource_of(&kind)?).find(is_it)?.clone();
        let meta = object["metadata"].as_object_mut()?;
        meta.retain(|key, _| matches!(key.as_str(), "labels" | "annotations"));
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| name != labels::ROLLOUT && name != labels::STAGE);
        }
        Some((object["metadata"].clone(), object["spec"].clone()))
    };
    matches!(kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet")
        && without_notes(before).is_some()
        && without_notes(before) == without_notes(after)
}

fn is_anchor(write: &Write) -> bool {
    matches!(write, Write::Apply { object, .. } if object.label(labels::ANCHOR).is_some())
}

/// Configuration that pods read has a name of its own for each version: it is put in place with them.
fn is_configuration_of_pods(write: &Write) -> bool {
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
