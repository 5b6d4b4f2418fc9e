//! A DaemonSet: one pod on every node, made by its own controller from the only template that there is.
//!
//! While it is staged its strategy is `OnDelete`, set in the same request as the template: its controller replaces no pod
//! that is there. We change pods in place or take them away, unit by unit. One that dies by itself comes back as the
//! template says, which is the new version; where so more are new than may be, the template is the version before until
//! they are old again. At rest its strategy is Git's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    drain::{Drain, Goal, Step, signed},
    handle,
    told::{There, count, in_order, is_at, leave, regrouped, revisions, settle, tell, template_of},
    workload::{Budget, Outcome, Task},
};
use crate::core::{
    manifest::Object,
    names::{AppName, Unit},
    policy::PodPolicy,
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Pod},
        plan::Method,
        quota::Counts,
        render::{Maker, Workload},
        report::Reason,
        view::View,
    },
};

/// Returns the node that a pod is on, or is meant for.
fn node_of(pod: &Object) -> &str {
    let meant = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
                 /matchFields/0/values/0";
    match pod.text(&["spec", "nodeName"]) {
        "" => pod.0.pointer(meant).and_then(Value::as_str).unwrap_or_default(),
        bound => bound,
    }
}

/// Returns the unit of a pod: its node's, where that is one of the policy's.
fn unit_of(pod: &Object, policy: &PodPolicy, view: &View) -> Unit {
    let named = policy.topology.as_ref().and_then(|topology| {
        let unit = view.get("", "Node", "", node_of(pod))?.label(&topology.unit_type)?;
        topology.units.iter().find(|known| known.as_str() == unit).cloned()
    });
    named.unwrap_or_else(|| Unit::new(""))
}

/// Returns how many pods a DaemonSet has in each unit: as recorded while that is as many as its controller wants, else
/// as they are.
pub(in crate::core::rollout) fn totals(
    workload: &Workload,
    policy: &PodPolicy,
    recorded: Option<&Counts>,
    view: &View,
) -> Counts {
    let mut counts: Counts = Maker::Nodes.units(policy).into_iter().map(|unit| (unit, 0)).collect();
    let Some(live) = view.by_key(&workload.key) else { return recorded.cloned().unwrap_or(counts) };
    let wanted = live.number(&["status", "desiredNumberScheduled"]).unwrap_or(0);
    let is_wanted = |counts: &Counts| counts.values().map(|count| i64::from(*count)).sum::<i64>() == wanted;
    if let Some(recorded) = recorded.filter(|recorded| is_wanted(recorded)) {
        return recorded.clone();
    }
    let app = AppName::new(live.label(labels::APP).unwrap_or_default());
    let pods: Vec<&Object> = match live.annotation(labels::ROLLOUT) {
        Some(_) => view.of_app(&app, "Pod").collect(),
        // Those that run already say nothing of us.
        None => view.in_namespace("", "Pod", live.namespace()).collect(),
    };
    let own = pods.into_iter().filter(|pod| pod.controller().is_some_and(|(_, _, uid)| uid == live.uid()));
    let by_node: BTreeMap<&str, &Object> = own.map(|pod| (node_of(pod), pod)).collect();
    for pod in by_node.values() {
        *counts.entry(unit_of(pod, policy, view)).or_default() += 1;
    }
    // While a pod is made anew nobody can tell in which unit it will be.
    recorded.filter(|_| !is_wanted(&counts)).cloned().unwrap_or(counts)
}

/// Says what comes next for a DaemonSet.
pub(super) fn next(task: &Task<'_>, observed: &Observed<'_>, view: &View, outcome: &mut Outcome, budget: &mut Budget) {
    let Some(new) = task.new else { return leave(task, observed, view, budget, outcome) };
    let Some(live) = observed.handle else {
        // Should somebody have taken it away, it comes back as it was, and goes through its stages again.
        let version = task.old.unwrap_or(new);
        outcome.done = false;
        let template = template_of(task, version, None, view);
        let wanted = object(task, version, template, task.method != Method::Rebalance);
        outcome.actions.push(Action::apply(wanted, None, true, format!("{} is created", task.id)));
        return;
    };
    let mut pods: BTreeMap<Unit, Vec<&Pod<'_>>> = BTreeMap::new();
    for pod in observed.pods() {
        pods.entry(unit_of(pod.object, task.policy, view)).or_default().push(pod);
    }
    let set = Set { task, new, live, view, pods };
    set.report(outcome);
    set.step(budget, outcome);
}

/// Builds the DaemonSet with a version's template. While it is `held`, its controller replaces no pod that is there.
fn object(task: &Task<'_>, version: &Workload, template: Value, held: bool) -> Object {
    let mut set = version.object.clone();
    set.set(&["metadata", "labels", labels::APP], json!(task.rollout.app));
    for (annotation, text) in &task.notes {
        set.set(&["metadata", "annotations", annotation], json!(text));
    }
    set.set(&["spec", "template"], template);
    if held {
        set.set(&["spec", "updateStrategy"], json!({ "type": "OnDelete" }));
    }
    set
}

struct Set<'a> {
    task: &'a Task<'a>,
    new: &'a Workload,
    live: &'a Object,
    view: &'a View,
    pods: BTreeMap<Unit, Vec<&'a Pod<'a>>>,
}

impl Set<'_> {
    fn wanted_in(&self, unit: &Unit) -> (u32, u32) {
        let total = self.task.totals.get(unit).copied().unwrap_or(0);
        (total, self.task.quota.get(unit).copied().unwrap_or(0).min(total))
    }

    fn pods_in(&self, unit: &Unit) -> &[&Pod<'_>] {
        self.pods.get(unit).map_or(&[], Vec::as_slice)
    }

    fn report(&self, outcome: &mut Outcome) {
        for unit in self.task.units {
            let (total, quota) = self.wanted_in(unit);
            let at_new = self.pods_in(unit).iter().copied().filter(|pod| is_at(pod, self.new)).collect();
            if total > 0 || !self.pods_in(unit).is_empty() {
                tell(self.task, unit, &There { total, quota, at_new, refusal: None }, self.view, outcome);
            }
        }
    }

    fn new_in(&self, unit: &Unit) -> u32 {
        count(self.pods_in(unit).iter().filter(|pod| is_at(pod, self.new)).count())
    }

    fn step(&self, budget: &mut Budget, outcome: &mut Outcome) {
        let comes_new_too_often = |unit: &Unit| {
            let (total, quota) = self.wanted_in(unit);
            let missing = total.saturating_sub(count(self.pods_in(unit).len()));
            self.new_in(unit) + missing > quota
        };
        let back = self.task.units.iter().any(comes_new_too_often);
        let staged = matches!(self.task.method, Method::InPlace | Method::Recreate);
        let old = self.task.old.filter(|_| back && staged);
        let version = old.unwrap_or(self.new);
        let all_new = self.pods.values().flatten().all(|pod| is_at(pod, self.new));
        let held = staged && !(self.task.last && all_new) || self.is_being_regrouped();
        let template = template_of(self.task, version, Some(self.live), self.view);
        let wanted = object(self.task, version, template, held);
        let why = format!(
            "{}: {}",
            self.task.id,
            if held { "it gets the template that is to be made" } else { "it goes on by itself" }
        );
        if let Some(action) = handle::apply(wanted, self.live, &self.task.notes, &why) {
            outcome.done = false;
            outcome.actions.push(action);
            // Until it is seen, nobody knows as what a pod would come back.
            return;
        }
        let Some(revision) = self.revision(version) else {
            outcome.done = false;
            let what = format!("{} and its revisions are seen by their controller", self.task.id);
            outcome.reasons.push(Reason::Following { what });
            return;
        };
        let counted: u32 = self.task.totals.values().sum();
        if self.live.number(&["status", "desiredNumberScheduled"]) != Some(i64::from(counted)) {
            outcome.done = false;
            let what = format!("every pod of {} is there to be counted", self.task.id);
            outcome.reasons.push(Reason::Following { what });
        }
        // The template is still to be the new version's again.
        outcome.done &= old.is_none();
        let named = self.pods.values().flatten().copied().filter(|pod| is_at(pod, self.new));
        let renamed = if old.is_none() { regrouped(self.live, named, &revision) } else { Vec::new() };
        outcome.done &= renamed.is_empty();
        outcome.actions.extend(renamed);
        for unit in self.task.units {
            match old {
                Some(old) => self.take_back(unit, old, &revision, budget, outcome),
                None => self.go_forward(unit, &revision, budget, outcome),
            }
        }
    }

    /// Returns the name by which the controller tells a version's pods, once it has seen what the spec asks for.
    fn revision(&self, version: &Workload) -> Option<String> {
        let digest = labels::digest_label(&version.digest);
        let mut revisions = revisions(&self.task.rollout.app, self.live, self.view);
        let revision = revisions.find(|revision| revision.label(labels::DIGEST) == Some(digest.as_str()))?;
        handle::has_followed(self.live).then(|| revision.label(labels::REVISION).map(str::to_owned)).flatten()
    }

    /// Returns whether it is taken over, and has pods that its controller would replace though they are what is staged.
    fn is_being_regrouped(&self) -> bool {
        let digest = labels::digest_label(&self.new.digest);
        let own = revisions(&self.task.rollout.app, self.live, self.view)
            .find(|revision| revision.label(labels::DIGEST) == Some(digest.as_str()));
        let name = own.and_then(|revision| revision.label(labels::REVISION));
        let is_other =
            |pod: &&Pod<'_>| is_at(pod, self.new) && (name.is_none() || pod.object.label(labels::REVISION) != name);
        self.live.annotation(labels::REGROUPING).is_some() && self.pods.values().flatten().any(is_other)
    }

    fn go_forward(&self, unit: &Unit, revision: &str, budget: &mut Budget, outcome: &mut Outcome) {
        let (total, quota) = self.wanted_in(unit);
        let pods = self.pods_in(unit);
        // Those that are not there come as the new version.
        let missing = total.saturating_sub(count(pods.len()));
        let coming = |pod: &&&Pod<'_>| is_at(pod, self.new) || pod.moving_to().is_some();
        let mut have = missing + count(pods.iter().filter(coming).count());
        outcome.done &= missing == 0;
        for pod in in_order(self.task, pods.iter().copied(), |pod| pod.moving_to().is_some()) {
            if is_at(pod, self.new) || self.task.method == Method::Rebalance {
                settle(pod, outcome);
                continue;
            }
            let begun = pod.moving_to().is_some();
            let stays = if begun { have > quota } else { have >= quota };
            if stays {
                have -= u32::from(begun);
                settle(pod, outcome);
                continue;
            }
            if begun || !self.task.still && budget.take(pod, self.task.now, signed(self.task.policy.min_ready)) {
                have += u32::from(!begun);
                self.change(pod, self.new, revision, outcome);
            }
        }
    }

    /// Takes pods back to the version before until no more are new than may be.
    fn take_back(&self, unit: &Unit, old: &Workload, revision: &str, budget: &mut Budget, outcome: &mut Outcome) {
        let mut left = self.new_in(unit).saturating_sub(self.wanted_in(unit).1);
        for pod in in_order(self.task, self.pods_in(unit).iter().copied(), |pod| pod.moving_to().is_some()) {
            if !is_at(pod, self.new) || left == 0 {
                settle(pod, outcome);
                continue;
            }
            let begun = pod.moving_to().is_some();
            if begun || budget.take(pod, self.task.now, signed(self.task.policy.min_ready)) {
                left -= 1;
                self.change(pod, old, revision, outcome);
            }
        }
    }

    /// Takes a pod to a version: in place where the one that it has is known, else by taking it away.
    fn change(&self, pod: &Pod<'_>, to: &Workload, revision: &str, outcome: &mut Outcome) {
        outcome.done = false;
        let versions = [self.task.old, self.task.new].into_iter().flatten();
        let is_known = versions.map(|version| labels::digest_label(&version.digest)).any(|known| known == pod.digest);
        let in_place = self.task.method == Method::InPlace && is_known;
        let goal = if in_place { Goal::Revision(to, revision) } else { Goal::Away };
        let drain = Drain {
            graceful: &self.task.policy.graceful,
            proxied: self.task.proxied,
            now: self.task.now,
            at_most: self.task.drain_at_most,
        };
        let may_go = match drain.step(pod, goal) {
            Step::Act(action) => {
                outcome.actions.push(action.putting_back(pod.object));
                false
            }
            other => outcome.take(other),
        };
        if !may_go {
            return;
        }
        if let Some(missing) = to.config.iter().find(|one| self.view.by_key(&one.key()).is_none()) {
            outcome.reasons.push(Reason::Following { what: format!("{} is there", missing.key()) });
            return;
        }
        let why = format!("{} is made anew", pod.object.name());
        outcome.actions.push(Action::delete(pod.object, false, why));
    }
}
