//! Everything that is not staged: applied in order, with health between; removed when nothing renders it any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{action::Action, beforehand, input::Neighbours, labels, report::Reason, view::View};
use crate::core::{
    cluster::{Kind, ObjectKey},
    diff,
    manifest::{Health, Object, health, phase},
    names::AppName,
};

/// What comes next for objects.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// Whether everything is there and healthy.
    pub done: bool,
}

/// Labels an object as the application's.
pub fn labelled(object: &Object, app: &AppName) -> Object {
    let mut object = object.clone();
    object.set(&["metadata", "labels", labels::APP], json!(app));
    object
}

/// Brings objects to what is wanted: group after group, each healthy before the next. `gate` says which objects'
/// health is waited for; `refused` says of an object why the API server refused it. Going `back`, such a one is not sent
/// again; what may be replaced is deleted, and made anew once it is gone.
pub fn converge(
    objects: &[Object],
    app: &AppName,
    namespace: Option<&str>,
    view: &View,
    force: bool,
    gate: impl Fn(&Object) -> bool,
    (refused, back): (&BTreeMap<ObjectKey, String>, bool),
) -> Outcome {
    let mut outcome = Outcome { done: true, ..Outcome::default() };
    if let Some(namespace) = namespace {
        make_namespace(namespace, view, &mut outcome);
        if !outcome.done {
            return outcome;
        }
    }
    let mut at = 0;
    while at < objects.len() {
        let now = phase(&objects[at].kind().kind);
        let group: Vec<&Object> = objects[at..].iter().take_while(|one| phase(&one.kind().kind) == now).collect();
        at += group.len();
        for object in &group {
            one(object, app, view, force, &gate, (refused, back), &mut outcome);
        }
        if !outcome.done {
            break;
        }
    }
    outcome
}

fn make_namespace(namespace: &str, view: &View, outcome: &mut Outcome) {
    let kind = Kind::new("", "v1", "Namespace");
    match view.get("", "Namespace", "", namespace) {
        Some(live) if live.is_terminating() || live.text(&["status", "phase"]) == "Terminating" => {
            outcome.done = false;
            let (object, why) = (format!("Namespace/{namespace}"), "it is being deleted".to_owned());
            outcome.reasons.push(Reason::NotHealthy { object, why });
        }
        Some(_) => {}
        None if view.knows(&kind) => {
            outcome.done = false;
            let object = Object(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
            outcome.actions.push(Action::create(object, format!("namespace {namespace} is missing")));
        }
        None => outcome.done = false,
    }
}

fn one(
    object: &Object,
    app: &AppName,
    view: &View,
    force: bool,
    gate: &impl Fn(&Object) -> bool,
    (refused, back): (&BTreeMap<ObjectKey, String>, bool),
    outcome: &mut Outcome,
) {
    let key = object.key();
    let kind = object.kind();
    if !view.knows(&kind) {
        outcome.done = false;
        let why = view.lost(&kind).unwrap_or("its kind is not listed yet").to_owned();
        outcome.reasons.push(Reason::NotHealthy { object: format!("{}/{}", key.kind, key.name), why });
        return;
    }
    let wanted = labelled(object, app);
    let live = view.by_key(&key);
    match live {
        Some(live) if live.is_terminating() => {
            outcome.done = false;
            let why = "it is being deleted; it is made anew once it is gone".to_owned();
            outcome.reasons.push(Reason::NotHealthy { object: format!("{}/{}", key.kind, key.name), why });
        }
        Some(live) if !diff::differs(&wanted, live) => {
            if !gate(object) {
                return;
            }
            if let Health::NotYet(why) = health(live) {
                outcome.done = false;
                let object = format!("{}/{}", key.kind, key.name);
                outcome.reasons.push(Reason::NotHealthy { object, why: why.to_string() });
            }
        }
        _ => {
            let refused = refused.get(&key);
            if let Some(live) = live.filter(|live| refused.is_some() && beforehand::is_replaced(&wanted, live)) {
                outcome.done = false;
                let why = format!("{}/{} cannot be changed, and may be replaced", key.kind, key.name);
                outcome.actions.push(Action::delete(live, false, why));
                return;
            }
            if let Some(why) = refused.filter(|_| back) {
                outcome.reasons.push(Reason::Refused { why: format!("{}/{}: {why}", key.kind, key.name) });
                return;
            }
            outcome.done = false;
            let what = if live.is_some() { "differs from Git" } else { "is missing" };
            let why = format!("{}/{} {what}", key.kind, key.name);
            outcome.actions.push(Action::apply(wanted, live, force, why));
        }
    }
}

/// Returns the live objects among `keys` that may be removed: those that carry the application's label, are not
/// `kept`, and are of a kind that losing loses no data.
pub fn to_prune<'a>(
    keys: &BTreeSet<ObjectKey>,
    kept: &BTreeSet<ObjectKey>,
    neighbours: &Neighbours<'_>,
    app: &AppName,
    view: &'a View,
) -> Vec<&'a Object> {
    keys.iter()
        .filter(|key| !kept.contains(*key) && !(neighbours.render)(key))
        .filter_map(|key| view.by_key(key))
        .filter(|live| live.label(labels::APP) == Some(app.as_str()))
        .collect()
}

/// Returns whether going back from a first install leaves an object where it is: others may have put something into
/// it by now.
pub fn is_kept_when_going_back(object: &Object) -> bool {
    matches!(
        object.text(&["kind"]),
        "Namespace" | "CustomResourceDefinition" | "PersistentVolumeClaim" | "PersistentVolume"
    )
}
