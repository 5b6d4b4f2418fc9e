//! Regrouping: a workload's pods go to the slices that the policy's topology asks for, and none restarts.
//!
//! One mechanism for three cases: a Deployment that ran before Locktender staged it, units that are others now, and a
//! Deployment that is given back. Each step is told from the cluster alone, so that whoever comes after a crash goes on:
//!
//! 1. The handle is paused, and marked. ReplicaSets of its history go: paused and owning no other, it would scale up the
//!    newest.
//! 2. Pods get the labels of what they are: application, workload, version, unit, in service.
//! 3. Where one ReplicaSet becomes one slice it gets the slice's labels and template, and keeps its pods.
//! 4. Else the old ones are let go and deleted without their pods, the pods get their slice's hash, and each slice is
//!    created with the count found, so that it adopts them. A pod that dies meanwhile is made by its slice.
//! 5. The mark is taken off.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::found::{Found, Placed, is_handle, is_marked, replicas};
use crate::core::{
    cluster::PatchType,
    diff,
    manifest::{Object, strings},
    names::{AppName, RolloutId, Unit},
    rollout::{
        action::Action,
        labels, objects,
        observe::is_owned_by,
        render::Workload,
        report::Reason,
        strategy::slice::{self, NewSlice},
        view::View,
    },
};

/// How a workload is to be regrouped.
pub(super) struct Regroup<'a> {
    /// The application.
    pub app: &'a AppName,
    /// The rollout, which names the slices that are made.
    pub rollout: &'a RolloutId,
    /// The versions that pods may be of. What carries no version is of the first.
    pub versions: Vec<&'a Workload>,
    /// The node label that tells units; `None` is one unit, unnamed.
    pub unit_type: Option<&'a str>,
    /// Whether pods change in place: those of another version stay in the slice of the first, as they do in a rollout.
    pub in_place: bool,
    /// Going back: a rollout of the Deployment's own is taken back, not waited for.
    pub back: bool,
}

/// What comes next.
#[derive(Default)]
pub(super) struct Steps {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// Why not more.
    pub reasons: Vec<Reason>,
}

impl Steps {
    fn act(actions: Vec<Action>) -> Option<Self> {
        Some(Self { actions, reasons: Vec::new() })
    }

    fn wait(what: impl Into<String>) -> Option<Self> {
        Some(Self { actions: Vec::new(), reasons: vec![Reason::Following { what: what.into() }] })
    }
}

/// Says what comes next; `None` where every pod is in a slice that fits.
pub(super) fn next(regroup: &Regroup<'_>, handle: &Object, view: &View) -> Option<Steps> {
    let first = *regroup.versions.first()?;
    let found = Found::read(view, regroup.app, handle, regroup.unit_type);
    let marked = is_marked(handle);
    if !is_handle(handle) && handle.label(labels::APP).is_none() {
        // From here on whatever happens to it is news of the application.
        let body = json!({ "metadata": { "labels": { labels::APP: regroup.app } } });
        return Steps::act(vec![Action::merge(handle, body, format!("{} is taken over", first.id))]);
    }
    if !marked
        && !is_handle(handle)
        && let Some(steps) = its_own_rollout(regroup, first, handle, &found)
    {
        return Some(steps);
    }
    if let Some(pod) = found.astray {
        // Taken for gone, it would be made a second time.
        return Steps::wait(format!("{} is seen without its owner", pod.name()));
    }
    if found.is_nothing() && found.unplaced.is_none() {
        let body = json!({ "metadata": { "annotations": { labels::REGROUPING: Value::Null } } });
        let why = format!("every pod of {} is in its slice", first.id);
        return marked.then(|| Steps { actions: vec![Action::merge(handle, body, why)], reasons: Vec::new() });
    }
    if handle.0["spec"]["paused"] != true || !marked {
        let body = json!({
            "metadata": { "annotations": { labels::REGROUPING: regroup.rollout } },
            "spec": { "paused": true },
        });
        let why = format!("{} is paused before its pods are handed to slices", first.id);
        return Steps::act(vec![Action::merge(handle, body, why)]);
    }
    if !is_seen(handle) {
        return Steps::wait(format!("{} is seen paused", first.id));
    }
    if let Some(pod) = found.unplaced {
        return Steps::wait(format!("the node of {} is known", pod.name()));
    }
    if !found.empty.is_empty() {
        let gone = found.empty.iter().filter(|set| !set.is_terminating());
        let gone: Vec<Action> =
            gone.map(|set| Action::delete(set, false, format!("{} has no pods any more", set.name()))).collect();
        return match gone.is_empty() {
            true => Steps::wait(format!("ReplicaSets of {} without pods are gone", first.id)),
            false => Steps::act(gone),
        };
    }
    let labelled: Vec<Action> = found.pods.iter().filter_map(|pod| regroup.label(pod, None)).collect();
    if !labelled.is_empty() {
        return Steps::act(labelled);
    }
    if let Some(steps) = regroup.configure(&found, view) {
        return Some(steps);
    }
    match regroup.claimed(&found) {
        Some(claim) => Steps::act(vec![claim]),
        None => regroup.split(handle, &found, view),
    }
}

/// Returns whether the Deployment controller has seen what the spec asks for.
fn is_seen(handle: &Object) -> bool {
    let generation = handle.number(&["metadata", "generation"]).unwrap_or(0);
    handle.number(&["status", "observedGeneration"]).unwrap_or(0) >= generation
}

/// Waits for a rollout of a Deployment's own: which of two versions a pod is, nobody could tell afterwards. Going back
/// it may never end, so it is taken back first.
fn its_own_rollout(regroup: &Regroup<'_>, first: &Workload, handle: &Object, found: &Found<'_>) -> Option<Steps> {
    let owned = found.misfits.iter().chain(&found.slices).filter(|set| is_owned_by(set, handle) && replicas(set) > 0);
    let active = owned.count();
    let is_missing = active == 0 && found.slices.is_empty() && replicas(handle) > 0;
    let is_paused = handle.0["spec"]["paused"] == true;
    if active > 1 && regroup.back {
        let wanted = slice::handle(first, regroup.app, false, &[]);
        if diff::differs(&wanted, handle) {
            let why = format!("{} goes back by itself first", first.id);
            return Steps::act(vec![Action::apply(wanted, Some(handle), true, why)]);
        }
    }
    (!is_seen(handle) || active > 1 || is_missing && !is_paused).then(|| Steps {
        actions: Vec::new(),
        reasons: vec![Reason::Following { what: format!("the rollout of {}'s own is complete", first.id) }],
    })
}

impl Regroup<'_> {
    /// Returns the version that a pod is of.
    fn version(&self, pod: &Object) -> Option<&Workload> {
        let is_it = |version: &&&Workload| pod.label(labels::DIGEST) == Some(&labels::digest_label(&version.digest));
        self.versions.iter().find(is_it).or(self.versions.first()).copied()
    }

    /// Returns the version whose slice a pod goes to.
    fn group(&self, pod: &Object) -> Option<&Workload> {
        let (first, own) = (self.versions.first().copied()?, self.version(pod)?);
        let stays = self.in_place && first.obstacle_to_in_place(own).is_none();
        Some(if stays { first } else { own })
    }

    /// Returns the slice that a pod goes to, as it would be with `replicas`.
    fn slice(&self, workload: &Workload, unit: &Unit, replicas: u32) -> Object {
        slice::build(&NewSlice { workload, rollout: self.rollout, unit, unit_type: self.unit_type, replicas })
    }

    /// Labels a pod as what it is, and where `hash` is named as its slice's.
    pub(super) fn label(&self, pod: &Placed<'_>, hash: Option<&str>) -> Option<Action> {
        let version = self.version(pod.object)?;
        let digest = labels::digest_label(&version.digest);
        let name = labels::label_value(&version.key.name);
        let mut wanted: Vec<(&str, Value)> = vec![
            (labels::APP, json!(self.app)),
            (labels::WORKLOAD, json!(name)),
            (labels::UNIT, self.unit_type.map_or(Value::Null, |_| json!(pod.unit))),
        ];
        if pod.object.label(labels::DIGEST).is_none() {
            wanted.push((labels::DIGEST, json!(digest)));
        }
        if pod.object.annotation(labels::MOVING).is_none() {
            wanted.push((labels::IN_SERVICE, json!("true")));
        }
        wanted.extend(hash.map(|hash| (labels::TEMPLATE_HASH, json!(hash))));
        let lacks = |(label, value): &(&str, Value)| pod.object.label(label) != value.as_str();
        let body: Map<String, Value> =
            wanted.into_iter().filter(lacks).map(|(label, value)| (label.to_owned(), value)).collect();
        let why = format!("{} is handed over", pod.object.name());
        (!body.is_empty()).then(|| Action::merge(pod.object, json!({ "metadata": { "labels": body } }), why))
    }

    /// Puts the configuration in place that the slices' pods will read.
    fn configure(&self, found: &Found<'_>, view: &View) -> Option<Steps> {
        let pods = found.pods.iter().chain(&found.loose);
        let mut actions: BTreeMap<String, Action> = BTreeMap::new();
        for object in pods.filter_map(|pod| self.version(pod.object)).flat_map(|version| &version.config) {
            if view.by_key(&object.key()).is_some() {
                continue;
            }
            let mut wanted = objects::labelled(object, self.app);
            if let Some(owner) = found.misfits.first() {
                // Should nothing come of it, it goes with what is there.
                wanted.set(&["metadata", "ownerReferences"], json!([owner_reference(owner)]));
            }
            let why = format!("{} is read by pods of {}", object.key(), self.app);
            actions.insert(object.key().to_string(), Action::apply(wanted, None, true, why));
        }
        if actions.is_empty() { None } else { Steps::act(actions.into_values().collect()) }
    }

    /// Makes one ReplicaSet the one slice of its pods, where there is one of each.
    fn claimed(&self, found: &Found<'_>) -> Option<Action> {
        let [set] = found.misfits.as_slice() else { return None };
        if set.is_terminating() || !found.loose.is_empty() {
            return None;
        }
        let version = match found.pods.first() {
            Some(pod) => self.group(pod.object)?,
            None => self.versions.first()?,
        };
        let unit = found.pods.first().map_or_else(|| Unit::new(""), |pod| pod.unit.clone());
        let is_same = |pod: &Placed<'_>| {
            pod.unit == unit && self.group(pod.object).is_some_and(|other| other.digest == version.digest)
        };
        let is_told = !found.pods.is_empty() || self.unit_type.is_none();
        let digest = labels::digest_label(&version.digest);
        let is_taken = |slice: &&Object| {
            let its = slice.label(labels::UNIT).unwrap_or_default();
            its == unit.as_str() && slice.label(labels::DIGEST) == Some(digest.as_str())
        };
        let hash = set.at(&["spec", "selector", "matchLabels", labels::TEMPLATE_HASH])?.as_str()?;
        let mut selector = version.match_labels();
        selector.insert(labels::TEMPLATE_HASH.to_owned(), hash.to_owned());
        let is_slice_like = strings(set.at(&["spec", "selector", "matchLabels"])) == selector;
        if !is_told || !is_slice_like || !found.pods.iter().all(is_same) || found.slices.iter().any(is_taken) {
            return None;
        }
        let template = slice::slice_template(version, self.app, &unit, self.unit_type, hash);
        let mut operations = vec![json!({ "op": "replace", "path": "/spec/template", "value": template })];
        let path = |label: &str| format!("/metadata/labels/{}", label.replace('/', "~1"));
        for (label, value) in [
            (labels::APP, self.app.as_str()),
            (labels::WORKLOAD, &labels::label_value(&version.key.name)),
            (labels::DIGEST, &digest),
            (labels::SLICE, hash),
        ] {
            operations.push(json!({ "op": "add", "path": path(label), "value": value }));
        }
        match (self.unit_type, set.label(labels::UNIT)) {
            (Some(_), _) => operations.push(json!({ "op": "add", "path": path(labels::UNIT), "value": unit })),
            (None, Some(_)) => operations.push(json!({ "op": "remove", "path": path(labels::UNIT) })),
            (None, None) => {}
        }
        let why = format!("{} is the slice of its pods", set.name());
        Some(Action::patch(set, PatchType::Json, Value::Array(operations), why))
    }

    /// Takes pods out of the ReplicaSets that they are in, and gives them to their slices.
    fn split(&self, handle: &Object, found: &Found<'_>, view: &View) -> Option<Steps> {
        let selector = strings(handle.at(&["spec", "selector", "matchLabels"]));
        let matches = |set: &Object| {
            let own = set.labels();
            selector.iter().all(|(name, value)| own.get(name) == Some(value))
        };
        let bound: Vec<&&Object> =
            found.misfits.iter().filter(|set| matches(set) || is_owned_by(set, handle)).collect();
        if !bound.is_empty() {
            let let_go = bound.iter().filter(|set| matches(set)).map(|set| {
                let mut change: Map<String, Value> = selector.keys().map(|name| (name.clone(), Value::Null)).collect();
                change.insert(labels::APP.to_owned(), json!(self.app));
                change.insert(labels::WORKLOAD.to_owned(), json!(labels::label_value(handle.name())));
                let why = format!("{} is let go", set.name());
                Action::merge(set, json!({ "metadata": { "labels": change } }), why)
            });
            let let_go: Vec<Action> = let_go.collect();
            return match let_go.is_empty() {
                true => Steps::wait(format!("{} has let go of its pods", self.versions.first()?.id)),
                false => Steps::act(let_go),
            };
        }
        if !found.misfits.is_empty() {
            let alone = found.misfits.iter().filter(|set| !set.is_terminating());
            let alone: Vec<Action> =
                alone.map(|set| Action::delete(set, true, format!("{} leaves its pods", set.name()))).collect();
            return match (alone.is_empty(), found.misfits.first()) {
                (true, Some(set)) => Steps::wait(format!("{} has left its pods", set.name())),
                _ => Steps::act(alone),
            };
        }
        self.adopt(found, view)
    }

    /// Creates the slices of pods that nothing owns, once all carry their slice's hash.
    fn adopt(&self, found: &Found<'_>, view: &View) -> Option<Steps> {
        let mut groups: BTreeMap<String, (Object, u32)> = BTreeMap::new();
        let mut relabelled = Vec::new();
        for pod in &found.loose {
            let slice = self.slice(self.group(pod.object)?, &pod.unit, 0);
            let hash = slice.label(labels::SLICE).unwrap_or_default().to_owned();
            relabelled.extend(self.label(pod, Some(&hash)));
            groups.entry(hash).or_insert((slice, 0)).1 += 1;
        }
        if !relabelled.is_empty() {
            return Steps::act(relabelled);
        }
        let mut steps = Steps::default();
        for (mut slice, count) in groups.into_values() {
            if view.by_key(&slice.key()).is_some() {
                let what = format!("{} has its pods", slice.name());
                steps.reasons.push(Reason::Following { what });
                continue;
            }
            slice.set(&["spec", "replicas"], json!(count));
            let why = format!("{} is made for {count} pods that run", slice.name());
            steps.actions.push(Action::create(slice, why));
        }
        Some(steps)
    }
}

/// Returns a ReplicaSet as an owner.
pub(super) fn owner_reference(set: &Object) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.name(), "uid": set.uid() })
}
