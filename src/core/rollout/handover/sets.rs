//! StatefulSets and DaemonSets that run already: their pods come to be of the template that is staged without being touched.
//!
//! Their controllers tell a pod's version by the name of a revision, a label. So a pod gets our labels, the set gets the
//! template that has them, held back by its partition or `OnDelete`, and then the pod the name of that template's revision:
//! to its controller it is up to date, and the set is let go. While this goes on the set is marked, as a Deployment is
//! whose pods are regrouped. Giving back needs no steps: it keeps our labels in its template.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    found::{Placed, is_marked},
    regroup::Regroup,
    runs_by_itself,
};
use crate::core::{
    ledger::Quota,
    manifest::Object,
    names::{AppName, Unit},
    policy::{Percent, RolloutPolicy},
    rollout::{
        action::Action,
        labels,
        observe::is_finished,
        render::{Maker, Render, Workload},
        report::Reason,
        services::Services,
        steer::{self, Course, Steered},
        view::View,
    },
    traffic::Split,
};

/// Takes over every set that runs already and is to be staged; returns whether that is still under way.
pub(super) fn take(
    course: &Course<'_>,
    policy: &RolloutPolicy,
    app: &AppName,
    view: &View,
    steered: &mut Steered,
) -> bool {
    let back = course.drain_at_most.is_some();
    let sets = course.new.into_iter().flat_map(|render| &render.workloads);
    let mut marked: BTreeMap<String, Workload> = BTreeMap::new();
    let mut under_way = false;
    for (id, new) in sets.filter(|(_, workload)| workload.maker() != Maker::Slices) {
        let Some(live) = view.by_key(&new.key).filter(|live| !live.is_terminating()) else { continue };
        let is_to_be = is_marked(live) || !back && runs_by_itself(new, view);
        if !is_to_be {
            continue;
        }
        under_way = true;
        let old = course.old.and_then(|old| old.workloads.get(id));
        // What runs is what was stable.
        let version = if back { new } else { old.unwrap_or(new) };
        let set = Set { app, course, version, live, view };
        match set.before(back) {
            Some((actions, reason)) => {
                steered.actions.extend(actions);
                steered.reasons.extend(reason);
            }
            None => drop(marked.insert(id.clone(), version.clone())),
        }
    }
    if let Some(render) = course.new.filter(|_| !marked.is_empty()) {
        let render = Render { workloads: marked, ..render.clone() };
        settle(course, &render, policy, app, view, steered);
    }
    steered.done &= !under_way;
    under_way
}

/// A set, and the version that its pods are.
struct Set<'a> {
    app: &'a AppName,
    course: &'a Course<'a>,
    version: &'a Workload,
    live: &'a Object,
    view: &'a View,
}

impl Set<'_> {
    /// Says what comes before its template may be another: it is marked, a rollout of its own is over, and its pods say
    /// whose they are.
    fn before(&self, back: bool) -> Option<(Vec<Action>, Option<Reason>)> {
        let (live, id) = (self.live, &self.version.id);
        if !is_marked(live) {
            // From here on whatever happens to it is news of the application.
            let body = json!({ "metadata": {
                "labels": { labels::APP: self.app },
                "annotations": { labels::REGROUPING: self.course.rollout },
            } });
            return Some((vec![Action::merge(live, body, format!("{id} is taken over"))], None));
        }
        if !self.has_template() {
            if back {
                return Some((vec![unmark(live, format!("{id} stays its own"))], None));
            }
            if !is_settled(live) {
                let what = format!("the rollout of {id}'s own is complete");
                return Some((Vec::new(), Some(Reason::Following { what })));
            }
        }
        let regroup = Regroup {
            app: self.app,
            rollout: self.course.rollout,
            versions: vec![self.version],
            unit_type: None,
            in_place: true,
            back,
        };
        let pods = self.view.in_namespace("", "Pod", live.namespace());
        let own = pods.filter(|pod| pod.controller().is_some_and(|(_, _, uid)| uid == live.uid()));
        let there = own.filter(|pod| !pod.is_terminating() && !is_finished(pod));
        let labelled = there.filter_map(|object| regroup.label(&Placed { object, unit: Unit::new("") }, None));
        let labelled: Vec<Action> = labelled.collect();
        (!labelled.is_empty()).then_some((labelled, None))
    }

    fn has_template(&self) -> bool {
        let label = self.live.at(&["spec", "template", "metadata", "labels", labels::DIGEST]).and_then(Value::as_str);
        label == Some(labels::digest_label(&self.version.digest).as_str())
    }
}

/// Returns whether all pods of a set are of its template, as far as its controller has seen it: which of two versions a pod
/// is nobody could tell afterwards.
fn is_settled(live: &Object) -> bool {
    let number = |path: &[&str]| live.number(path).unwrap_or(0);
    let is_seen = number(&["status", "observedGeneration"]) >= number(&["metadata", "generation"]);
    let is_whole = match live.text(&["kind"]) {
        "DaemonSet" => number(&["status", "updatedNumberScheduled"]) >= number(&["status", "desiredNumberScheduled"]),
        _ => live.text(&["status", "currentRevision"]) == live.text(&["status", "updateRevision"]),
    };
    is_seen && is_whole
}

fn unmark(live: &Object, why: String) -> Action {
    Action::merge(live, json!({ "metadata": { "annotations": { labels::REGROUPING: Value::Null } } }), why)
}

/// Brings marked sets to the template that is staged, by the steps of their kind, and takes the mark away after that.
fn settle(
    course: &Course<'_>,
    render: &Render,
    policy: &RolloutPolicy,
    app: &AppName,
    view: &View,
    steered: &mut Steered,
) {
    let all = Course {
        rollout: course.rollout,
        new: Some(render),
        old: None,
        policy: Some(policy),
        staged_by: None,
        former: Vec::new(),
        methods: None,
        quota: None,
        totals: &Quota::new(),
        split: Some(Split::of(Percent::ALL)),
        last: true,
        drain_at_most: None,
        still: course.still,
        stage: Some("taken over".to_owned()),
        inherits: None,
        handed_over: course.handed_over,
        refused: course.refused,
        admitted: course.admitted,
        answers: course.answers,
        since: course.since,
        now: course.now,
    };
    let mut settled = Steered { done: true, ..Steered::default() };
    steer::steer_workloads(&all, app, view, &Services::default(), &mut settled);
    if settled.done {
        let lives = render.workloads.values().filter_map(|workload| view.by_key(&workload.key));
        settled
            .actions
            .extend(lives.map(|live| unmark(live, format!("every pod of {} is as it is staged", live.name()))));
    }
    steered.actions.append(&mut settled.actions);
    steered.reasons.append(&mut settled.reasons);
    steered.units.append(&mut settled.units);
    steered.wake = [steered.wake, settled.wake].into_iter().flatten().min();
    steered.progress = steered.progress.max(settled.progress);
}
