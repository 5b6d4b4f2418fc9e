//! A StatefulSet: its own controller makes the pods, and its partition says as what each comes back.
//!
//! The template is always the version that is gone to; pods below the partition come back as the version before. It is
//! raised in the same request that sets the template, so the controller never rolls by itself, and lowered by one pod at a
//! time, the highest first: in place once that pod is at the new version, else once it is out of service and may be made
//! anew. A StatefulSet is at rest at partition 0.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    drain::{Drain, Goal, Step, signed},
    handle,
    told::{There, count, is_at, is_done, leave, regrouped, settle, tell, template_of},
    workload::{Budget, Outcome, Task},
};
use crate::core::{
    manifest::Object,
    names::Unit,
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Pod},
        plan::Method,
        render::Workload,
        report::Reason,
        view::View,
    },
};

/// Says what comes next for a StatefulSet.
pub(super) fn next(task: &Task<'_>, observed: &Observed<'_>, view: &View, outcome: &mut Outcome, budget: &mut Budget) {
    let drain =
        Drain { graceful: &task.policy.graceful, proxied: task.proxied, now: task.now, at_most: task.drain_at_most };
    let Some(new) = task.new else { return leave(task, observed, view, budget, outcome) };
    let unit = Unit::new("");
    let total = task.totals.get(&unit).copied().unwrap_or(0);
    let quota = task.quota.get(&unit).copied().unwrap_or(0).min(total);
    let Some(live) = observed.handle else {
        // Should somebody have taken it away, it comes back as it was, and goes through its stages again.
        let version = task.old.filter(|_| matches!(task.method, Method::InPlace | Method::Recreate)).unwrap_or(new);
        let first = Members::first(task, version, quota);
        outcome.done = false;
        let wanted = first.object(task, version, template_of(task, version, None, view));
        outcome.actions.push(Action::apply(wanted, None, true, format!("{} is created", task.id)));
        return;
    };
    let pods = pods_by_index(live, observed);
    let set = Set { task, new, live, view, total, quota, drain, pods };
    let at_new: Vec<&Pod<'_>> = set.pods.values().copied().filter(|pod| is_at(pod, new)).collect();
    tell(task, &unit, &There { total, quota, at_new, refusal: None }, view, outcome);
    set.step(budget, outcome);
}

/// Returns the ordinals of a StatefulSet's pods that are at a version, or come back as it: what is not there now counts
/// as what the partition says of it.
pub fn at_version(live: &Object, observed: &Observed<'_>, digest: &str) -> Vec<i64> {
    let number = |path: &[&str]| live.number(path).unwrap_or(0);
    let start = number(&["spec", "ordinals", "start"]);
    let partition = number(&["spec", "updateStrategy", "rollingUpdate", "partition"]);
    let is_template = live.at(&["spec", "template", "metadata", "labels", labels::DIGEST]) == Some(&json!(digest));
    let pods = pods_by_index(live, observed);
    let is_of = |index: &u32| match pods.get(index) {
        Some(pod) => pod.digest == digest,
        None => is_template == (i64::from(*index) >= partition),
    };
    let all = 0..u32::try_from(live.number(&["spec", "replicas"]).unwrap_or(1)).unwrap_or(0);
    all.filter(is_of).map(|index| start + i64::from(index)).collect()
}

/// Returns a StatefulSet's pods by their place in it: the ordinal, less the first.
fn pods_by_index<'a>(live: &Object, observed: &'a Observed<'a>) -> BTreeMap<u32, &'a Pod<'a>> {
    let start = live.number(&["spec", "ordinals", "start"]).unwrap_or(0);
    let index = |pod: &Pod<'_>| {
        let ordinal = pod.object.name().strip_prefix(live.name())?.strip_prefix('-')?.parse::<i64>().ok()?;
        u32::try_from(ordinal - start).ok()
    };
    observed.pods().filter_map(|pod| Some((index(pod)?, pod))).collect()
}

/// What of a StatefulSet is ours to say beside its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Members {
    /// Pods below come back as the version before.
    partition: u32,
    /// How many pods there are.
    replicas: u32,
}

impl Members {
    /// Returns how a StatefulSet begins: with as many pods as the first stage has, and with none before what they read
    /// is there.
    fn first(task: &Task<'_>, new: &Workload, quota: u32) -> Self {
        let replicas = match task.method {
            _ if !new.config.is_empty() => 0,
            Method::Install => quota,
            _ => task.totals.values().sum(),
        };
        Self { partition: 0, replicas }
    }

    fn object(self, task: &Task<'_>, new: &Workload, template: Value) -> Object {
        let mut set = new.object.clone();
        set.set(&["metadata", "labels", labels::APP], json!(task.rollout.app));
        for (annotation, text) in &task.notes {
            set.set(&["metadata", "annotations", annotation], json!(text));
        }
        set.set(&["spec", "template"], template);
        set.set(&["spec", "updateStrategy", "type"], json!("RollingUpdate"));
        set.set(&["spec", "updateStrategy", "rollingUpdate", "partition"], json!(self.partition));
        // Where Git names none they are an autoscaler's, or a person's.
        if new.replicas.is_some() {
            set.set(&["spec", "replicas"], json!(self.replicas));
        }
        set
    }
}

/// What its controller says of its revisions.
struct Revisions<'a> {
    /// As what pods from the partition on come back.
    update: &'a str,
    /// As what pods below it come back.
    current: &'a str,
    /// The version of those.
    current_is: &'a str,
}

struct Set<'a> {
    task: &'a Task<'a>,
    new: &'a Workload,
    live: &'a Object,
    view: &'a View,
    total: u32,
    quota: u32,
    drain: Drain<'a>,
    pods: BTreeMap<u32, &'a Pod<'a>>,
}

impl<'a> Set<'a> {
    fn number(&self, path: &[&str]) -> u32 {
        self.live.number(path).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }

    fn live_members(&self) -> Members {
        Members {
            partition: self.number(&["spec", "updateStrategy", "rollingUpdate", "partition"]),
            replicas: self.number(&["spec", "replicas"]),
        }
    }

    fn digest(&self) -> String {
        labels::digest_label(&self.new.digest)
    }

    /// Returns whether pods from the partition on come back as the version that is gone to.
    fn has_template(&self) -> bool {
        let template = self.live.at(&["spec", "template", "metadata", "labels", labels::DIGEST]);
        template.and_then(Value::as_str) == Some(self.digest().as_str())
    }

    fn step(&self, budget: &mut Budget, outcome: &mut Outcome) {
        let live = self.live_members();
        if !self.has_template() {
            // No pod changes by this, and none that dies comes back as the new version: all are below the partition.
            let replicas = self.replicas(live).max(live.replicas);
            let held = Members { partition: replicas, replicas };
            self.put(held, "it gets the new template; every pod is below its partition", outcome);
            return;
        }
        let Some(revisions) = self.revisions() else {
            outcome.done = false;
            let what = format!("{} and its revisions are seen by their controller", self.task.id);
            outcome.reasons.push(Reason::Following { what });
            return;
        };
        if self.task.method == Method::Rebalance {
            self.settle_all(outcome);
            if self.is_regrouped(&revisions, outcome) {
                return;
            }
            let rests = Members { partition: 0, replicas: self.shrunk(live, budget, outcome) };
            self.put(rests, "it goes on by itself", outcome);
            return;
        }
        let replicas = self.replicas(live);
        let edge = replicas.saturating_sub(self.quota);
        let lowest = self.lowest(live, replicas, edge);
        if lowest > live.partition && live.partition < replicas {
            // Raised before anything else: what dies from here on comes back as the version before.
            let held = Members { partition: lowest, replicas: replicas.max(live.replicas) };
            self.put(held, "pods below come back as the version before", outcome);
            return;
        }
        self.take_back(edge, &revisions, budget, outcome);
        let made_anew = self.go_forward(live, replicas, edge, &revisions, budget, outcome);
        let partition = made_anew.filter(|index| index + 1 == lowest).unwrap_or(lowest);
        let replicas = self.shrunk(live, budget, outcome);
        self.put(Members { partition, replicas }, &format!("pods from {partition} on are to be new"), outcome);
        if self.task.last && revisions.current != revisions.update {
            outcome.done = false;
            let what = format!("{} has completed its update", self.task.id);
            outcome.reasons.push(Reason::Following { what });
        }
    }

    /// Brings the StatefulSet to this; until it is seen, nothing is done.
    fn put(&self, members: Members, why: &str, outcome: &mut Outcome) {
        let template = template_of(self.task, self.new, Some(self.live), self.view);
        let wanted = members.object(self.task, self.new, template);
        let why = format!("{}: {why}", self.task.id);
        if let Some(action) = handle::apply(wanted, self.live, &self.task.notes, &why) {
            outcome.done = false;
            outcome.actions.push(action);
        }
    }

    /// Reads the revisions, once the controller has seen what the spec asks for.
    fn revisions(&self) -> Option<Revisions<'a>> {
        let (update, current) =
            (self.live.text(&["status", "updateRevision"]), self.live.text(&["status", "currentRevision"]));
        let is_of = |name: &str| {
            let revision = self.view.get("apps", "ControllerRevision", self.live.namespace(), name)?;
            Some(revision.label(labels::DIGEST).unwrap_or_default())
        };
        let update_is = is_of(update)?;
        let current_is = is_of(current)?;
        (handle::has_followed(self.live) && update_is == self.digest()).then_some(Revisions {
            update,
            current,
            current_is,
        })
    }

    /// Returns how many pods there are to be at this stage. Where nothing was stable before, they come stage by stage.
    fn replicas(&self, live: Members) -> u32 {
        match self.task.method {
            Method::Install if self.task.old.is_none() => {
                let between = self.pods.values().any(|pod| pod.digest != self.digest());
                let kept = if between { live.replicas.min(self.total) } else { 0 };
                self.quota.max(kept)
            }
            _ => self.total,
        }
    }

    /// Returns whether a pod is at the new version, or will be when it is there or made anew.
    fn is_or_comes_new(&self, index: u32, live: Members) -> bool {
        let comes_so = index >= live.partition && index < live.replicas;
        match self.pods.get(&index) {
            Some(pod) => is_at(pod, self.new) || comes_so && pod.moving_to() == Some("away"),
            None => comes_so,
        }
    }

    /// Returns the partition that says what is so: the pods from there on are at the new version, or come back as that.
    /// Those that are too many count until they are gone.
    fn lowest(&self, live: Members, replicas: u32, edge: u32) -> u32 {
        let top = replicas.max(live.replicas);
        let new_ones = (edge..top).rev().take_while(|index| self.is_or_comes_new(*index, live));
        new_ones.last().unwrap_or(top)
    }

    /// Takes pods below the edge back to the version before: those of the new one, and broken ones of any in between.
    fn take_back(&self, edge: u32, revisions: &Revisions<'_>, budget: &mut Budget, outcome: &mut Outcome) {
        for (_, pod) in self.pods.range(..edge) {
            let Some(old) = self.task.old else {
                settle(pod, outcome);
                continue;
            };
            let before = labels::digest_label(&old.digest);
            let is_new = is_at(pod, self.new);
            let is_broken = pod.digest != before && !pod.is_ready();
            if !is_new && !is_broken {
                settle(pod, outcome);
                continue;
            }
            outcome.done = false;
            if revisions.current_is != before {
                let what = format!("{} makes pods of the version before below its partition", self.task.id);
                outcome.reasons.push(Reason::Following { what });
                return;
            }
            let in_place = self.task.method == Method::InPlace && is_new;
            let goal = if in_place { Goal::Revision(old, revisions.current) } else { Goal::Away };
            let begun = pod.moving_to() == Some(goal.name().as_str());
            if !begun && !budget.take(pod, self.task.now, signed(self.task.policy.min_ready)) {
                return;
            }
            if self.drained(pod, goal, outcome) {
                self.make_anew(pod, outcome);
            }
        }
    }

    /// Moves pods to the new version, the highest first; returns the partition where a pod is to be made anew.
    fn go_forward(
        &self,
        live: Members,
        replicas: u32,
        edge: u32,
        revisions: &Revisions<'_>,
        budget: &mut Budget,
        outcome: &mut Outcome,
    ) -> Option<u32> {
        // Those that are too many count until they are gone.
        let all = 0..replicas.max(live.replicas);
        let mut have = count(all.filter(|index| self.is_or_comes_new(*index, live)).count());
        for index in (edge..replicas).rev() {
            let pod = self.pods.get(&index);
            let in_place = pod.is_none_or(|pod| self.may_change_in_place(pod));
            match pod {
                // Its controller makes it.
                None => outcome.done = false,
                Some(pod) if is_at(pod, self.new) => {
                    settle(pod, outcome);
                    // The next one may have to be made anew, which its controller does one by one.
                    if self.task.method == Method::Recreate && !is_done(pod, self.task, self.view) {
                        return None;
                    }
                }
                Some(pod) => {
                    outcome.done = false;
                    let goal = if in_place { Goal::Revision(self.new, revisions.update) } else { Goal::Away };
                    let begun = pod.moving_to() == Some(goal.name().as_str());
                    // Of several that change at once each one that has begun counts, changed or not.
                    let is_counted = self.is_or_comes_new(index, live);
                    let may = (is_counted || have < self.quota)
                        && (begun
                            || !self.task.still && budget.take(pod, self.task.now, signed(self.task.policy.min_ready)));
                    if !may {
                        return None;
                    }
                    have += u32::from(!is_counted);
                    if self.drained(pod, goal, outcome) {
                        if let Some(missing) = self.new.config.iter().find(|one| self.view.by_key(&one.key()).is_none())
                        {
                            let what = format!("{} is there", missing.key());
                            outcome.reasons.push(Reason::Following { what });
                            return None;
                        }
                        if live.partition <= index {
                            self.make_anew(pod, outcome);
                        }
                        return Some(index);
                    }
                    if !in_place {
                        return None;
                    }
                }
            }
            if pod.is_none() && self.task.method == Method::Recreate {
                return None;
            }
        }
        None
    }

    /// Returns whether a pod's images can be patched: how those of a version in between differ nobody knows here.
    fn may_change_in_place(&self, pod: &Pod<'_>) -> bool {
        let known = [self.task.old, self.task.new].into_iter().flatten();
        let mut known = known.map(|version| labels::digest_label(&version.digest));
        self.task.method == Method::InPlace && known.any(|known| known == pod.digest)
    }

    /// Takes a pod on its way; returns whether it is out of service and may be made anew.
    fn drained(&self, pod: &Pod<'_>, goal: Goal<'_>, outcome: &mut Outcome) -> bool {
        match self.drain.step(pod, goal) {
            Step::Act(action) => outcome.actions.push(action.putting_back(pod.object)),
            other => return outcome.take(other),
        }
        false
    }

    /// Lets a pod be made anew. Its controller does that by itself only where every other pod is well.
    fn make_anew(&self, pod: &Pod<'_>, outcome: &mut Outcome) {
        let why = format!("{} is made anew", pod.object.name());
        outcome.actions.push(Action::delete(pod.object, false, why));
    }

    /// Lets pods that are taken over be of the template that is staged: it says what they are already. Returns whether
    /// some were not.
    fn is_regrouped(&self, revisions: &Revisions<'_>, outcome: &mut Outcome) -> bool {
        let pods = self.pods.values().copied().filter(|pod| is_at(pod, self.new));
        let renamed = regrouped(self.live, pods, revisions.update);
        let some = !renamed.is_empty();
        outcome.done &= !some;
        outcome.actions.extend(renamed);
        some
    }

    fn settle_all(&self, outcome: &mut Outcome) {
        self.pods.values().for_each(|pod| settle(pod, outcome));
    }

    /// Returns how many pods there may be now: fewer only once those that go are out of service, the highest first, and
    /// more only once what they read is there.
    fn shrunk(&self, live: Members, budget: &mut Budget, outcome: &mut Outcome) -> u32 {
        let wanted = self.replicas(live);
        if self.new.replicas.is_none() {
            return wanted;
        }
        if wanted > live.replicas
            && let Some(missing) = self.new.config.iter().find(|one| self.view.by_key(&one.key()).is_none())
        {
            outcome.done = false;
            outcome.reasons.push(Reason::Following { what: format!("{} is there", missing.key()) });
            return live.replicas;
        }
        let mut left = live.replicas.max(wanted);
        for index in (wanted..live.replicas).rev() {
            outcome.done = false;
            if let Some(pod) = self.pods.get(&index) {
                let begun = pod.moving_to() == Some(Goal::Away.name().as_str());
                let may =
                    begun || !self.task.still && budget.take(pod, self.task.now, signed(self.task.policy.min_ready));
                if !may || !self.drained(pod, Goal::Away, outcome) {
                    break;
                }
            }
            left = index;
        }
        left
    }
}
