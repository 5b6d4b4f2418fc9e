//! The two sides of a rollout: what is stable now, and what is gone to; and stable as it is to be gone back to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    plan::{End, Gate},
    render::Render,
    state::{Outcome, Phase, State},
};
use crate::core::{
    cluster::ObjectKey,
    ledger::Event,
    manifest::Object,
    names::{AppName, Digest, Revision},
    policy::RolloutPolicy,
    traffic::Router,
};

/// Where stable is to be found: a rollout's number and the revision that renders it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableAt {
    /// The index of the last completed rollout, or of the one that took stable over from another application.
    pub index: usize,
    /// The revision.
    pub revision: Revision,
}

/// What an application that was renamed took over and has not completed anything after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited<'a> {
    /// The index of the rollout that took it over.
    pub index: usize,
    /// The application that it was called before.
    pub app: &'a AppName,
    /// Its stable there.
    pub stable: &'a End,
}

/// Returns what was taken over from an application of another name, until something is completed under the new one:
/// that is stable meanwhile.
pub fn inherited(rollouts: &[State]) -> Option<Inherited<'_>> {
    if rollouts.iter().any(|state| state.phase == Phase::Ended(Outcome::Completed)) {
        return None;
    }
    rollouts.iter().enumerate().find_map(|(index, state)| {
        let (app, stable) = state.plan.inherits.as_ref().zip(state.plan.from.as_ref())?;
        Some(Inherited { index, app, stable })
    })
}

/// Returns where stable is; `None` where nothing was completed yet, or the application was removed.
pub fn stable_at(rollouts: &[State]) -> Option<StableAt> {
    let completed = rollouts.iter().rposition(|state| state.phase == Phase::Ended(Outcome::Completed));
    let Some(index) = completed else {
        let Inherited { index, stable, .. } = inherited(rollouts)?;
        let later = rollouts[index..].iter().rev().find_map(|state| state.applied_at_rest.as_ref());
        let revision = later.map_or(&stable.revision, |(revision, _)| revision).clone();
        return Some(StableAt { index, revision });
    };
    let removed = rollouts[index].applied_at_rest.is_none();
    if removed {
        return None;
    }
    let later = rollouts[index..].iter().rev().find_map(|state| state.applied_at_rest.as_ref())?;
    Some(StableAt { index, revision: later.0.clone() })
}

/// A policy whose router was told something before, and is not told any more.
#[derive(Clone, Copy, Debug)]
pub struct Former<'a> {
    /// The policy.
    pub policy: &'a RolloutPolicy,
    /// Whether a rollout by it was superseded, and nothing has ended since: its router may send to what is between.
    pub between: bool,
}

/// Returns the router that a policy names.
pub fn router_of(policy: &RolloutPolicy) -> Option<&Router> {
    policy.strategy.beside()?.router
}

/// Returns the index of the first rollout since one came to an end: those before the last of them were superseded.
fn open_since(rollouts: &[State]) -> usize {
    let ended = |state: &State| matches!(state.phase, Phase::Ended(Outcome::Completed | Outcome::Aborted));
    rollouts.iter().rposition(ended).map_or(0, |last| last + 1)
}

/// Returns the index of the last rollout that may have left pods of its own beside stable's: it began to touch some, and
/// none has come to an end since.
pub fn left_beside(rollouts: &[State]) -> Option<usize> {
    let began = |state: &State| {
        let started = state.records.iter().filter(|record| record.event == Event::StageStarted);
        let mut stages = started.filter_map(|record| state.index_of(record.stage.as_ref()?));
        stages.any(|index| state.plan.stages[index].gates.contains(&Gate::Health))
    };
    (open_since(rollouts)..rollouts.len()).rev().find(|index| began(&rollouts[*index]))
}

/// Returns the router that a render's policy names.
pub fn router_at(render: &Render) -> Option<&Router> {
    router_of(render.policy.as_ref()?)
}

/// Returns the policies since the last completed rollout, those that were in place at rest, and stable's own, whose
/// routers `policy` does not name: each router once.
pub fn former<'a>(
    rollouts: &'a [State],
    renders: &'a BTreeMap<Revision, Arc<Render>>,
    stable: Option<&'a RolloutPolicy>,
    policy: Option<&RolloutPolicy>,
) -> Vec<Former<'a>> {
    let since = stable_at(rollouts).map_or(0, |at| at.index);
    // What has ended has taken everything back by objects; a rollout that runs may be the one that `policy` is not of.
    let open = open_since(rollouts);
    let planned = rollouts.iter().enumerate().skip(since).rev().filter_map(|(index, state)| {
        let policy = &state.plan.policy.as_ref()?.spec;
        Some(Former { policy, between: index >= open })
    });
    let at_rest = rollouts.iter().skip(since).flat_map(|state| &state.routed_by);
    let at_rest = at_rest.filter_map(|revision| renders.get(revision)?.policy.as_ref());
    let settled = at_rest.chain(stable).map(|policy| Former { policy, between: false });
    let now = policy.and_then(router_of);
    let mut former: Vec<Former<'a>> = Vec::new();
    for one in planned.chain(settled) {
        let Some(router) = router_of(one.policy).filter(|router| Some(*router) != now) else { continue };
        if !former.iter().any(|other| router_of(other.policy) == Some(router)) {
            former.push(one);
        }
    }
    former
}

/// Returns the revision that a rollout's target is rendered at now; `None` where it removes the application.
pub fn target_at(state: &State) -> Option<Revision> {
    if state.plan.inputs.files.is_empty() {
        return None;
    }
    Some(state.applied.as_ref().map_or(&state.plan.to.revision, |(revision, _)| revision).clone())
}

/// Returns every revision whose render deciding needs, HEAD aside.
pub fn needed(rollouts: &[State]) -> BTreeSet<Revision> {
    let mut revisions = BTreeSet::new();
    let stable = stable_at(rollouts);
    revisions.extend(stable.as_ref().map(|stable| stable.revision.clone()));
    let since = stable.map_or(0, |stable| stable.index);
    for state in rollouts.iter().skip(since) {
        // Their policies say which routers still have to forget.
        revisions.extend(state.routed_by.iter().cloned());
        if state.plan.inputs.files.is_empty() {
            continue;
        }
        // What was rendered since the last completed rollout is what must be pruned when another side completes.
        revisions.insert(state.plan.to.revision.clone());
        revisions.extend([&state.applied, &state.applied_at_rest].into_iter().flatten().map(|one| one.0.clone()));
    }
    revisions
}

/// Returns the workload digests that a revision was released with, as the records and plans say; `None` where none does.
pub fn released_as<'a>(rollouts: &'a [State], revision: &Revision) -> Option<&'a BTreeMap<String, Digest>> {
    if let Some(inherited) = inherited(rollouts).filter(|inherited| inherited.stable.revision == *revision) {
        return Some(&inherited.stable.workloads);
    }
    rollouts.iter().rev().find_map(|state| {
        let recorded = state.records.iter().rev().find(|record| {
            let puts = matches!(record.event, Event::Completed | Event::Applied);
            puts && record.evidence.revision.as_ref() == Some(revision)
        });
        let planned = || (state.plan.to.revision == *revision).then_some(&state.plan.to.workloads);
        recorded.map(|record| &record.evidence.workloads).or_else(planned)
    })
}

/// Returns stable as it is to be gone back to: as it was, with what others changed since the rollout opened.
///
/// Three-way by object: `base` is the target as it opened, `ours` the target as it is now, `theirs` stable.
pub fn merged(base: &Render, ours: &Render, theirs: &Render) -> Render {
    if base.digest == ours.digest {
        return theirs.clone();
    }
    let mut result = theirs.clone();
    let by_key = |render: &Render| -> BTreeMap<ObjectKey, Object> {
        render.objects.iter().map(|object| (object.key(), object.clone())).collect()
    };
    let (base_objects, our_objects) = (by_key(base), by_key(ours));
    result.objects.retain(|object| {
        let key = object.key();
        our_objects.contains_key(&key) || !base_objects.contains_key(&key)
    });
    for object in &mut result.objects {
        let key = object.key();
        if let Some(ours) = our_objects.get(&key).filter(|ours| base_objects.get(&key) != Some(*ours)) {
            *object = ours.clone();
        }
    }
    for (id, workload) in &mut result.workloads {
        let (Some(base), Some(ours)) = (base.workloads.get(id), ours.workloads.get(id)) else { continue };
        if base.replicas != ours.replicas {
            workload.replicas = ours.replicas;
            match ours.replicas {
                Some(replicas) => workload.object.set(&["spec", "replicas"], Value::from(replicas)),
                None => drop(workload.object.remove(&["spec", "replicas"])),
            }
        }
        if base.unit_replicas != ours.unit_replicas {
            workload.unit_replicas.clone_from(&ours.unit_replicas);
        }
    }
    result
}

/// Returns stable as it is in place, with what others changed inside a rollout that went back.
pub fn stable(rollouts: &[State], renders: &BTreeMap<Revision, Arc<Render>>) -> Option<Arc<Render>> {
    let at = stable_at(rollouts)?;
    let stable = renders.get(&at.revision)?;
    let last = rollouts.last()?;
    let went_back = matches!(last.phase, Phase::Aborting(_) | Phase::Ended(Outcome::Aborted));
    if !went_back || last.applied_at_rest.is_some() {
        return Some(stable.clone());
    }
    let Some((applied, _)) = &last.applied else { return Some(stable.clone()) };
    match (renders.get(&last.plan.to.revision), renders.get(applied)) {
        (Some(base), Some(ours)) => Some(Arc::new(merged(base, ours, stable))),
        _ => Some(stable.clone()),
    }
}

/// Returns the keys of everything that was rendered since the last completed rollout.
pub fn rendered_since(rollouts: &[State], renders: &BTreeMap<Revision, Arc<Render>>) -> BTreeSet<ObjectKey> {
    needed(rollouts).iter().filter_map(|revision| renders.get(revision)).flat_map(|render| render.keys()).collect()
}
