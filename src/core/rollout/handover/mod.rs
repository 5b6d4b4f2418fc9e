//! Taking a running Deployment over, giving it back, and other units: pods are handed on as they are.
//!
//! Whose a Deployment is, it says itself: one that carries the note of a rollout is a handle, and its pods are in
//! slices. Taking over is regrouping into the policy's units before anything else is touched; giving back is going to one
//! slice without a unit that the Deployment owns, by the ordinary steps, and then applying what Git says, which takes the
//! note away. Aborting either is the other.

mod found;
mod native;
mod regroup;
mod sets;

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::json;

pub use native::keep_labels;
pub(super) use native::not_what_runs;
use regroup::{Regroup, owner_reference};

use super::{
    action::Action,
    build,
    plan::Method,
    render::{Maker, Render, Workload},
    sides,
    steer::{self, Course, Steered},
    strategy::slice,
    view::View,
};
use crate::core::{
    cluster::{Kind, ObjectKey},
    ledger::Quota,
    manifest::{Object, config_references},
    names::{AppName, Unit},
    policy::{Percent, PodPolicy, RolloutPolicy, Strategy, Update},
    traffic::Split,
};

/// Hands pods over before anything else is touched; returns whether that is still under way.
pub(super) fn next(course: &Course<'_>, app: &AppName, view: &View, steered: &mut Steered) -> bool {
    match course.policy {
        Some(policy) => take(course, policy, app, view, steered),
        None => give_back(course, app, view, steered),
    }
}

/// Regroups the pods of every workload that has some outside of the slices that the policy asks for.
fn take(course: &Course<'_>, policy: &RolloutPolicy, app: &AppName, view: &View, steered: &mut Steered) -> bool {
    let unit_type = policy.strategy.pods().topology.as_ref().map(|topology| topology.unit_type.as_str());
    let workloads = course.new.into_iter().flat_map(|render| &render.workloads);
    let workloads = workloads.filter(|(_, workload)| workload.maker() == Maker::Slices);
    let mut under_way = false;
    for (id, new) in workloads {
        let Some(handle) = view.by_key(&new.key).filter(|handle| !handle.is_terminating()) else { continue };
        let old = course.old.and_then(|old| old.workloads.get(id));
        let back = course.drain_at_most.is_some();
        // What runs under no label of ours is what was stable.
        let versions = if back { [Some(new), old] } else { [old, Some(new)] };
        let regroup = Regroup {
            app,
            rollout: course.rollout,
            versions: versions.into_iter().flatten().collect(),
            unit_type,
            in_place: policy.strategy.pods().update != Update::Recreate,
            back,
        };
        if let Some(steps) = regroup::next(&regroup, handle, view) {
            under_way = true;
            steered.actions.extend(steps.actions);
            steered.reasons.extend(steps.reasons);
        }
    }
    steered.done &= !under_way;
    sets::take(course, policy, app, view, steered) || under_way
}

/// Gives back what was staged: every Deployment that Locktender staged comes to own all its pods, of one version; the pods of
/// a StatefulSet or DaemonSet go to that version.
fn give_back(course: &Course<'_>, app: &AppName, view: &View, steered: &mut Steered) -> bool {
    let back = course.drain_at_most.is_some();
    let staged = |workload: &Workload| {
        view.by_key(&workload.key).is_some_and(|handle| found::is_handle(handle) || found::is_marked(handle))
    };
    // Going back pods go to what was stable before anything was staged; else they stay what they are.
    let version = match (back, course.new, course.old) {
        (true, Some(new), _) => new,
        (_, _, Some(old)) => old,
        _ => return false,
    };
    let Some(staged_by) = course.staged_by else { return false };
    let mut version = staged_form(version, staged_by);
    if !version.workloads.values().any(staged) {
        return false;
    }
    version.to_mut().workloads.retain(|_, workload| staged(workload));
    let other = course.old.filter(|_| back && course.new.is_some()).map(|old| staged_form(old, staged_by));
    let policy = without_topology(staged_by);
    let told = sides::router_of(&policy);
    let former = course.former.iter().filter(|former| sides::router_of(former.policy) != told).copied().collect();
    let all = Course {
        rollout: course.rollout,
        new: Some(&version),
        old: other.as_deref(),
        policy: Some(&policy),
        quota: None,
        totals: &Quota::new(),
        split: Some(Split::of(Percent::ALL)),
        last: true,
        drain_at_most: course.drain_at_most,
        still: course.still,
        stage: Some("given back".to_owned()),
        staged_by: None,
        former,
        methods: None,
        inherits: None,
        handed_over: course.handed_over,
        refused: course.refused,
        admitted: course.admitted,
        answers: course.answers,
        since: course.since,
        now: course.now,
    };
    steer::steer_pods(&all, app, view, steered);
    if steered.done && course.new.is_none() {
        // Git says nothing that could be applied: the note alone goes.
        for workload in version.workloads.values() {
            let Some(live) = view.by_key(&workload.key) else { continue };
            let mut wanted = slice::handle(workload, app, false, &[]);
            if workload.maker() != Maker::Slices {
                wanted.remove(&["spec", "paused"]);
            }
            let why = format!("{} is given back", workload.id);
            steered.actions.push(Action::apply(wanted, Some(live), true, why));
            steered.done = false;
        }
    }
    !steered.done
}

/// Returns a render with its workloads as they are staged, whether it has a policy or is staged `by` another's.
pub(super) fn staged_form<'a>(render: &'a Render, by: &RolloutPolicy) -> Cow<'a, Render> {
    match &render.policy {
        Some(_) => Cow::Borrowed(render),
        None => Cow::Owned(build::as_staged(render, by)),
    }
}

fn without_topology(policy: &RolloutPolicy) -> RolloutPolicy {
    let mut policy = policy.clone();
    pods_of(&mut policy.strategy).topology = None;
    policy
}

fn pods_of(strategy: &mut Strategy) -> &mut PodPolicy {
    match strategy {
        Strategy::Batched(batched) => &mut batched.pods,
        Strategy::Canary(canary) => &mut canary.pods,
        Strategy::BlueGreen(blue_green) => &mut blue_green.pods,
    }
}

/// Returns whether an application may have pods of which only their nodes tell the unit: its units are others in one of
/// these renders than in another, or a Deployment runs that nothing of it was released of.
pub fn asks_for_nodes(renders: &[&Render], view: &View) -> bool {
    let in_units =
        |render: &&&Render| render.policy.as_ref().is_some_and(|policy| policy.strategy.pods().topology.is_some());
    let Some(render) = renders.iter().find(in_units) else { return false };
    let runs = |workload: &Workload| runs_by_itself(workload, view);
    renders.iter().any(|other| other.shape() != render.shape())
        || renders.iter().flat_map(|render| render.workloads.values()).any(runs)
}

/// The kind of nodes.
pub fn nodes() -> Kind {
    Kind::new("", "v1", "Node")
}

/// Returns the kind of a workload that is not listed yet: whether it runs already cannot be told before it is. Deployments
/// always are, where there is a cluster.
pub(super) fn unlisted<'w>(mut workloads: impl Iterator<Item = &'w Workload>, view: &View) -> Option<Kind> {
    let is_there = view.knows(&Kind::new("apps", "v1", "Deployment"));
    workloads.find_map(|workload| Some(workload.object.kind()).filter(|kind| is_there && !view.knows(kind)))
}

/// Returns whether a workload runs already, outside of anything that Locktender staged.
pub(super) fn runs_by_itself(workload: &Workload, view: &View) -> bool {
    let runs = |handle: &Object| handle.number(&["spec", "replicas"]).unwrap_or(1) > 0;
    view.by_key(&workload.key).is_some_and(|handle| !found::is_handle(handle) && runs(handle))
}

/// Says which pods would have to move to another unit so that each has as many as it is to have: by workload. Nothing
/// where they are in slices of these units already, or where the nodes are not known.
pub(super) fn moves(
    workload: &Workload,
    totals: &BTreeMap<Unit, u32>,
    unit_type: &str,
    app: &AppName,
    view: &View,
) -> u32 {
    let Some(handle) = view.by_key(&workload.key).filter(|_| workload.maker() == Maker::Slices) else { return 0 };
    let found = found::Found::read(view, app, handle, Some(unit_type));
    let mut have: BTreeMap<&Unit, u32> = BTreeMap::new();
    found.pods.iter().chain(&found.loose).for_each(|pod| *have.entry(&pod.unit).or_default() += 1);
    have.into_iter().map(|(unit, count)| count.saturating_sub(totals.get(unit).copied().unwrap_or(0))).sum()
}

/// Parts what nothing renders any more: what may go now, and the configuration that pods still read under its plain name,
/// which goes with the last of their slices: the writes that see to it.
pub(super) fn still_read<'a>(gone: Vec<&'a Object>, app: &AppName, view: &'a View) -> (Vec<&'a Object>, Vec<Action>) {
    let is_configuration = |object: &Object| matches!(object.text(&["kind"]), "ConfigMap" | "Secret");
    if !gone.iter().any(|object| is_configuration(object)) {
        return (gone, Vec::new());
    }
    let mut readers: BTreeMap<ObjectKey, BTreeMap<&str, &Object>> = BTreeMap::new();
    let sets: BTreeMap<&str, &Object> = view.of_app(app, "ReplicaSet").map(|set| (set.uid(), set)).collect();
    for pod in view.of_app(app, "Pod") {
        let owner = pod.controller().and_then(|(_, _, uid)| sets.get(uid).copied());
        for read in config_references(&pod.0) {
            let key = ObjectKey {
                group: String::new(),
                kind: read.kind.to_owned(),
                namespace: pod.namespace().to_owned(),
                name: read.name,
            };
            readers.entry(key).or_default().extend(owner.map(|owner| (owner.uid(), owner)));
        }
    }
    let (read, gone): (Vec<&Object>, Vec<&Object>) =
        gone.into_iter().partition(|object| is_configuration(object) && readers.contains_key(&object.key()));
    let hand = |object: &&Object| {
        let owned = object.at(&["metadata", "ownerReferences"]).and_then(|owners| owners.as_array());
        let has = |uid: &str| owned.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid));
        let owners = readers.get(&object.key())?;
        if owners.keys().all(|uid| has(uid)) {
            return None;
        }
        let owners: Vec<_> = owners.values().map(|set| owner_reference(set)).collect();
        let body = json!({ "metadata": { "ownerReferences": owners } });
        Some(Action::merge(object, body, format!("{} goes with the pods that read it", object.key())))
    };
    let handed = read.iter().filter_map(hand).collect();
    (gone, handed)
}

/// Tells what a plan hands over, in words: by workload.
pub(super) fn taken_over<'a>(
    methods: &'a BTreeMap<String, Method>,
    stable: Option<&'a Render>,
) -> impl Iterator<Item = &'a String> {
    let is_new = move |id: &&String| stable.is_none_or(|stable| !stable.workloads.contains_key(*id));
    methods.iter().filter(|(_, method)| **method == Method::Rebalance).map(|(id, _)| id).filter(is_new)
}
