//! ReplicaSets that the Deployment controller made beside the slices: somebody let it go on while its handle was to be
//! paused (`kubectl rollout resume`), or rolled its template out where it is not paused (`kubectl rollout restart`).
//!
//! Their pods are like any other of the handle's template, the rollout's labels included, so Services send to them; but
//! no stage counts them. First the handle is paused, as ever; once that is seen they are removed, with their pods.

use serde_json::json;

use super::{
    action::Action,
    input::Decision,
    labels,
    observe::{Native, Observed, Slice, is_owned_by},
    report::Reason,
    state::State,
    strategy::workload::Task,
};
use crate::core::{
    ledger::{Draft, Event},
    manifest::Object,
};

/// What is to be done about them.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// What puts back what somebody changed, and is recorded first.
    pub corrections: Vec<Action>,
    /// Why not more.
    pub reasons: Vec<Reason>,
}

/// Says what is to be done about what the Deployment controller made beside a workload's slices.
pub(super) fn next(task: &Task<'_>, observed: &Observed<'_>) -> Strays {
    let mut strays = Strays::default();
    let Some(handle) = observed.handle else { return strays };
    let is_seen = handle.number(&["metadata", "generation"]) <= handle.number(&["status", "observedGeneration"]);
    let is_paused = handle.0["spec"]["paused"] == true;
    let is_bound = observed.slices.iter().any(|slice| is_owned_by(slice.object, handle));
    for native in &observed.natives {
        let name = native.object.name();
        if native.object.is_terminating() {
            strays.reasons.push(Reason::Following { what: format!("{name} is gone") });
        } else if native.replicas == 0 && native.pods == 0 {
            // Paused, and without another that has pods, the Deployment controller would scale it up.
            if is_seen {
                strays.actions.push(Action::delete(native.object, false, format!("{name} has no pods any more")));
            }
        } else if !is_bound && is_paused && is_seen && serves_without(task, observed) {
            let why = format!("{name} is no slice of {}", task.id);
            strays.corrections.push(Action::delete(native.object, false, why).putting_back(native.object));
        } else if is_bound && !is_paused && is_seen && has_taken_over(native, observed) {
            strays.actions.push(claim(native.object));
        } else {
            strays.reasons.push(Reason::Following { what: format!("{name}, which is no slice, is gone") });
        }
    }
    strays
}

/// Returns whether the slices' pods are enough without those beside them.
fn serves_without(task: &Task<'_>, observed: &Observed<'_>) -> bool {
    let min_ready = jiff::SignedDuration::try_from(task.policy.min_ready).unwrap_or(jiff::SignedDuration::MAX);
    let available = observed.pods().filter(|pod| pod.is_available(task.now, min_ready)).count();
    let wanted: u32 = task.totals.values().sum();
    let least = wanted.min(task.reachable(observed)).saturating_sub(task.policy.may_miss(wanted));
    available >= usize::try_from(least).unwrap_or(usize::MAX)
}

/// Returns whether the Deployment, which is not paused, has replaced every pod of its slice: `kubectl rollout restart`.
fn has_taken_over(native: &Native<'_>, observed: &Observed<'_>) -> bool {
    let is_empty = |slice: &Slice<'_>| slice.replicas == 0 && slice.pods.is_empty() && slice.terminating.is_empty();
    let digest = native.object.label(labels::DIGEST);
    observed.natives.iter().filter(|one| one.replicas > 0).count() == 1
        && observed.slices.iter().all(|slice| is_empty(slice) && Some(slice.digest) == digest)
}

/// Makes a slice of a ReplicaSet that the Deployment controller made: it is one but for the label.
fn claim(native: &Object) -> Action {
    let hash = native.label(labels::TEMPLATE_HASH).unwrap_or_default();
    let body = json!({ "metadata": { "labels": { labels::SLICE: hash } } });
    Action::merge(native, body, format!("{} was rolled out by its Deployment: it is the slice now", native.name()))
}

/// Lets corrections through that a record of drift names already, and asks for the record of the others.
pub(super) fn correct(state: &State, corrections: Vec<Action>, decision: &mut Decision) {
    let recorded = |drift: &String| {
        let put_back = state.records.iter().filter(|record| record.event == Event::DriftCorrected);
        put_back.into_iter().any(|record| record.evidence.objects.contains(drift))
    };
    let (known, fresh): (Vec<Action>, Vec<Action>) =
        corrections.into_iter().partition(|action| action.drift.as_ref().is_none_or(recorded));
    decision.actions.extend(known);
    let objects: Vec<String> = fresh.into_iter().filter_map(|action| action.drift).collect();
    if objects.is_empty() {
        return;
    }
    let names: Vec<&str> = objects.iter().filter_map(|object| object.split('@').next()).collect();
    let why = format!("the handle was not paused any more: {} goes again", names.join(", "));
    let draft = Draft::new(Event::DriftCorrected, None, why).with(|evidence| evidence.objects = objects);
    decision.records.push((state.plan.rollout.number, draft));
}
