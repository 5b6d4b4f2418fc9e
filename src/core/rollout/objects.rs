//! Everything that is not staged: applied in order, with health between; removed when nothing renders it any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{
    action::Action,
    beforehand, handover,
    input::{Admitted, Neighbours},
    labels,
    report::Reason,
    rights::Missing,
    view::View,
};
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

/// How objects are brought to what is wanted.
pub struct Means<'a> {
    /// Whether fields of others are taken over.
    pub force: bool,
    /// Which objects' health is waited for.
    pub gate: &'a dyn Fn(&Object) -> bool,
    /// Why the API server refused an object. Going back, such a one is not sent again; what may be replaced is deleted,
    /// and made anew once it is gone.
    pub refused: &'a BTreeMap<ObjectKey, String>,
    /// Going back.
    pub back: bool,
    /// What the API server made something else of.
    pub admitted: &'a BTreeMap<ObjectKey, Admitted>,
}

/// Says what the API server makes of an object, where that is why it is not as Git says: sending it again would be no use.
pub fn made_into(wanted: &Object, live: &Object, admitted: &BTreeMap<ObjectKey, Admitted>) -> Option<Reason> {
    let admitted = admitted.get(&wanted.key()).filter(|admitted| admitted.explains(wanted, live))?;
    let key = wanted.key();
    let fields = admitted.changes().into_iter().map(|change| change.path).collect();
    Some(Reason::MadeInto { object: format!("{}/{}", key.kind, key.name), fields })
}

/// Labels an object as the application's.
pub fn labelled(object: &Object, app: &AppName) -> Object {
    let mut object = object.clone();
    object.set(&["metadata", "labels", labels::APP], json!(app));
    object
}

/// Lets an object keep what is ours on the live one besides Git's: what it would be written anew for, and means nothing by
/// itself.
pub fn keep_notes(wanted: &mut Object, live: &Object) {
    handover::keep_labels(wanted, live);
    for note in [labels::RECORD, labels::PUT_BACK] {
        if let Some(says) = live.at(&["metadata", "annotations", note]) {
            wanted.set(&["metadata", "annotations", note], says.clone());
        }
    }
}

/// Brings objects to what is wanted: group after group, each healthy before the next.
pub fn converge(
    objects: &[&Object],
    app: &AppName,
    namespace: Option<&str>,
    view: &View,
    means: &Means<'_>,
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
        let group: Vec<&Object> =
            objects[at..].iter().copied().take_while(|one| phase(&one.kind().kind) == now).collect();
        at += group.len();
        for object in &group {
            one(object, app, view, means, &mut outcome);
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

fn one(object: &Object, app: &AppName, view: &View, means: &Means<'_>, outcome: &mut Outcome) {
    let key = object.key();
    let kind = object.kind();
    if !view.knows(&kind) {
        outcome.done = false;
        let (object, why) = (format!("{}/{}", key.kind, key.name), view.lost(&kind));
        outcome.reasons.push(match why.filter(|why| Missing::read(why).is_some()) {
            Some(why) => Reason::Refused { why: Missing::explained(format!("{object}: {why}")) },
            None => Reason::NotHealthy { object, why: why.unwrap_or("its kind is not listed yet").to_owned() },
        });
        return;
    }
    let mut wanted = labelled(object, app);
    let live = view.by_key(&key);
    if let Some(live) = live {
        keep_notes(&mut wanted, live);
    }
    let made_into = live.and_then(|live| made_into(&wanted, live, means.admitted));
    match live {
        Some(live) if live.is_terminating() => {
            outcome.done = false;
            let why = "it is being deleted; it is made anew once it is gone".to_owned();
            outcome.reasons.push(Reason::NotHealthy { object: format!("{}/{}", key.kind, key.name), why });
        }
        Some(live) if made_into.is_some() || !diff::differs(&wanted, live) => {
            outcome.reasons.extend(made_into);
            if !(means.gate)(object) {
                return;
            }
            if let Health::NotYet(why) = health(live) {
                outcome.done = false;
                let object = format!("{}/{}", key.kind, key.name);
                outcome.reasons.push(Reason::NotHealthy { object, why: why.to_string() });
            }
        }
        _ => {
            let refused = means.refused.get(&key);
            if let Some(live) = live.filter(|live| refused.is_some() && beforehand::is_replaced(&wanted, live)) {
                outcome.done = false;
                let why = format!("{}/{} cannot be changed, and may be replaced", key.kind, key.name);
                outcome.actions.push(Action::delete(live, false, why));
                return;
            }
            if let Some(why) = refused.filter(|_| means.back) {
                outcome.reasons.push(Reason::Refused { why: format!("{}/{}: {why}", key.kind, key.name) });
                return;
            }
            outcome.done = false;
            let what = if live.is_some() { "differs from Git" } else { "is missing" };
            let why = format!("{}/{} {what}", key.kind, key.name);
            outcome.actions.push(Action::apply(wanted, live, means.force, why));
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
