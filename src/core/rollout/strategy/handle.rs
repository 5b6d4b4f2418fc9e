//! The handle: the Deployment that stays, and owns its slice only at rest with one slice.
//!
//! Letting go: pause, take the matching label off the slice, see it let go, then the template. Coming back is the
//! same in reverse. What each step needs is tried and noted in the design; no pod restarts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::slice;
use crate::core::{
    cluster::PatchType,
    diff,
    manifest::{Object, strings},
    names::AppName,
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Slice},
        render::Workload,
        report::Reason,
    },
};

/// What the handle still needs.
pub(super) enum Handle {
    /// It is as it should be.
    Right,
    /// Send these; until they are seen, slices are left alone where `blocks`.
    Act(Vec<Action>, bool),
    /// Wait for the Deployment controller.
    Wait(Reason),
}

/// Applies the handle where what is owned differs. Where that is only what we note on it for people, it is no drift.
pub(super) fn apply(wanted: Object, live: &Object, notes: &[(&str, String)], why: &str) -> Option<Action> {
    if !diff::differs(&wanted, live) {
        return None;
    }
    let mut as_noted = wanted.clone();
    for (annotation, _) in notes {
        match live.annotation(annotation) {
            Some(text) => as_noted.set(&["metadata", "annotations", annotation], text.into()),
            None => drop(as_noted.remove(&["metadata", "annotations", annotation])),
        }
    }
    let only_notes = !diff::differs(&as_noted, live);
    let mut action = Action::apply(wanted, Some(live), true, why);
    action.drift = action.drift.filter(|_| !only_notes);
    Some(action)
}

fn is_owned(slice: &Slice<'_>, handle: &Object) -> bool {
    slice.object.controller().is_some_and(|(_, _, uid)| uid == handle.uid())
}

fn has_matching_labels(slice: &Slice<'_>, selector: &BTreeMap<String, String>) -> bool {
    let own = slice.object.labels();
    selector.iter().all(|(name, value)| own.get(name) == Some(value))
}

pub(super) fn has_followed(handle: &Object) -> bool {
    let generation = handle.number(&["metadata", "generation"]).unwrap_or(0);
    handle.number(&["status", "observedGeneration"]).unwrap_or(0) >= generation
}

fn is_paused(handle: &Object) -> bool {
    handle.at(&["spec", "paused"]) == Some(&Value::Bool(true))
}

/// Returns whether the handle owns a slice, or would take one.
pub(super) fn holds(observed: &Observed<'_>) -> bool {
    observed.handle.is_some_and(|live| {
        let selector = strings(live.at(&["spec", "selector", "matchLabels"]));
        observed.slices.iter().any(|slice| is_owned(slice, live) || has_matching_labels(slice, &selector))
    })
}

/// Brings the handle to owning nothing, paused, with the template of `workload`.
pub(super) fn let_go(observed: &Observed<'_>, workload: &Workload, app: &AppName, notes: &[(&str, String)]) -> Handle {
    let wanted = slice::handle(workload, app, true, notes);
    let Some(live) = observed.handle else {
        let action = Action::apply(wanted, None, true, format!("{} is created, paused", workload.id));
        return Handle::Act(vec![action], true);
    };
    let selector = strings(live.at(&["spec", "selector", "matchLabels"]));
    let bound: Vec<&Slice<'_>> =
        observed.slices.iter().filter(|slice| is_owned(slice, live) || has_matching_labels(slice, &selector)).collect();
    if bound.is_empty() {
        return match apply(wanted, live, notes, "the handle follows, paused") {
            Some(action) => Handle::Act(vec![action], false),
            None => Handle::Right,
        };
    }
    if !is_paused(live) {
        let body = json!({ "spec": { "paused": true } });
        return Handle::Act(vec![Action::merge(live, body, "the handle is paused before it lets go")], true);
    }
    if !has_followed(live) {
        return Handle::Wait(Reason::Following { what: format!("{} is seen paused", workload.id) });
    }
    // Paused and without one that has pods, the Deployment controller would scale up the newest that it still owns.
    let (empty, mut bound): (Vec<&Slice<'_>>, Vec<&Slice<'_>>) =
        bound.into_iter().partition(|slice| slice.replicas == 0 && slice.pods.is_empty());
    if bound.is_empty() {
        bound = empty;
    } else if !empty.is_empty() {
        let gone = |slice: &Slice<'_>| {
            let why = format!("{} has no pods any more", slice.object.name());
            Action::delete(slice.object, false, why)
        };
        return Handle::Act(empty.into_iter().filter(|slice| !slice.object.is_terminating()).map(gone).collect(), true);
    }
    let mut actions = Vec::new();
    for slice in bound {
        if has_matching_labels(slice, &selector) {
            let off: serde_json::Map<String, Value> = selector.keys().map(|name| (name.clone(), Value::Null)).collect();
            let body = json!({ "metadata": { "labels": off } });
            actions.push(Action::merge(slice.object, body, format!("{} is let go", slice.object.name())));
        }
    }
    if actions.is_empty() {
        return Handle::Wait(Reason::Following { what: format!("{} has let go of its slice", workload.id) });
    }
    Handle::Act(actions, true)
}

/// Lets a slice's template be the handle's but for the hash, fields that others set there included, which
/// `kubectl rollout restart` does: to the Deployment another template is a new version.
fn equalise(slice: &Slice<'_>, handle: &Object) -> Option<Action> {
    let mut template = Object(handle.0["spec"]["template"].clone());
    template.set(&["metadata", "labels", labels::TEMPLATE_HASH], json!(slice.hash()));
    if template.0 == slice.object.0["spec"]["template"] {
        return None;
    }
    let body = json!([{ "op": "replace", "path": "/spec/template", "value": template.0 }]);
    let why = format!("{}: its template is the handle's", slice.object.name());
    Some(Action::patch(slice.object, PatchType::Json, body, why))
}

/// Brings the handle to owning its one slice, not paused.
pub(super) fn own(
    observed: &Observed<'_>,
    slice: &Slice<'_>,
    workload: &Workload,
    app: &AppName,
    notes: &[(&str, String)],
) -> Handle {
    let Some(live) = observed.handle else { return let_go(observed, workload, app, notes) };
    let owned = is_owned(slice, live);
    if owned && !is_paused(live) {
        return match apply(slice::handle(workload, app, false, notes), live, notes, "the handle goes on by itself") {
            Some(action) => Handle::Act(vec![action], false),
            None => Handle::Right,
        };
    }
    let selector = strings(live.at(&["spec", "selector", "matchLabels"]));
    if let Some(action) =
        apply(slice::handle(workload, app, true, notes), live, notes, "the handle gets the slice's template, paused")
    {
        return Handle::Act(vec![action], true);
    }
    if !has_followed(live) {
        return Handle::Wait(Reason::Following { what: format!("{} is seen paused", workload.id) });
    }
    if let Some(action) = equalise(slice, live) {
        return Handle::Act(vec![action], true);
    }
    if owned {
        let action = apply(slice::handle(workload, app, false, notes), live, notes, "the handle goes on by itself");
        return action.map_or(Handle::Right, |action| Handle::Act(vec![action], true));
    }
    if !has_matching_labels(slice, &selector) {
        let mut on = selector;
        on.insert(labels::TEMPLATE_HASH.to_owned(), slice.hash().to_owned());
        let body = json!({ "metadata": { "labels": on } });
        return Handle::Act(vec![Action::merge(slice.object, body, "the handle takes its slice back")], true);
    }
    Handle::Wait(Reason::Following { what: format!("{} owns its slice", workload.id) })
}
