//! One workload under every strategy: pods of a unit change in place inside their slice, or go from the unit's old slice
//! to its new one.
//!
//! One function says what comes next for a workload, whether the rollout goes forward, steps back, goes back to
//! stable, is resumed after a crash or repaired after drift: only the version wanted and its quota differ.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use serde_json::Value;

use super::{
    drain::{Step, signed},
    gate,
    handle::{self, Handle},
    nodes, ordinals,
    unit::UnitStep,
};
use crate::core::{
    cluster::ObjectKey,
    manifest::{Object, strings},
    names::{AppName, RolloutId, Unit},
    policy::{Percent, PodPolicy},
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Pod, Slice},
        plan::Method,
        quota::Counts,
        render::{Maker, Workload},
        report::{Reason, UnitReport},
        view::View,
    },
};

/// Where one workload is to go.
pub struct Task<'a> {
    /// The rollout, which names the slices that are made.
    pub rollout: &'a RolloutId,
    /// `Deployment/checkout`.
    pub id: &'a str,
    /// The version that pods may have up to the quota; `None` removes the workload.
    pub new: Option<&'a Workload>,
    /// The version of the others.
    pub old: Option<&'a Workload>,
    /// How pods get from `old` to `new`.
    pub method: Method,
    /// The policy.
    pub policy: &'a PodPolicy,
    /// The units, in their order.
    pub units: &'a [Unit],
    /// Pods wanted in all, by unit.
    pub totals: &'a Counts,
    /// Pods wanted at `new`, by unit.
    pub quota: &'a Counts,
    /// Whether everything is to be at `new`: old slices go and templates follow.
    pub last: bool,
    /// How traffic is, where old pods stay beside new ones until it has left them.
    pub traffic: Option<&'a Traffic>,
    /// Of the pods that a proxy still sends requests to, or may: why they cannot go. `None` where there is no proxy.
    pub proxied: Option<&'a Proxied>,
    /// Whether the wait for others ends at the deadline: going back.
    pub drain_at_most: Option<SignedDuration>,
    /// Whether no pod may start to move (a pause): those that move go on.
    pub still: bool,
    /// What the handle's annotations say: rollout, stage.
    pub notes: Vec<(&'static str, String)>,
    /// Picks pods: the target revision, so that a replay picks the same.
    pub seed: &'a str,
    /// Now.
    pub now: Timestamp,
}

impl Task<'_> {
    /// Returns what makes the workload's pods.
    pub(super) fn maker(&self) -> Maker {
        self.new.or(self.old).map_or(Maker::Slices, Workload::maker)
    }
}

/// What a proxy of its own says of a workload's pods.
#[derive(Clone, Debug)]
pub enum Proxied {
    /// Why it cannot be told what it sends to.
    Unknown(String),
    /// The pods that it sends requests to still, or that answer some, by name.
    Used(BTreeSet<String>),
}

impl Proxied {
    /// Returns what two proxies say of the same pods.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Used(one), Self::Used(other)) => Self::Used(one.into_iter().chain(other).collect()),
            (Self::Unknown(why), _) | (_, Self::Unknown(why)) => Self::Unknown(why),
        }
    }
}

/// How traffic is between the sides of a workload whose old pods stay beside the new ones.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The version that gets the requests, by its digest label; `None` where no Service sends any.
    pub serving: Option<String>,
    /// Whether requests go to one version only: before, no other may come.
    pub narrowed: bool,
    /// Whether requests are known to go where they are to go: before, no pod may go.
    pub settled: bool,
    /// Whether that can be told at all: where not, pods stay as they are, in service or on their way out of it.
    pub known: bool,
    /// The share of the wanted total that the old side keeps; `None` is what the quota leaves.
    pub stays: Option<Percent>,
    /// How long the old side stays once requests go elsewhere.
    pub delay: SignedDuration,
    /// The share of the requests that verifiably goes beside stable while they return to it as its pods get ready.
    pub held: Option<Percent>,
}

/// What comes next for a workload.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// How far each unit is.
    pub units: BTreeMap<Unit, UnitReport>,
    /// Whether every unit is where it is to be.
    pub done: bool,
    /// When something is due without an event.
    pub wake: Option<Timestamp>,
    /// When the cluster last moved, as it says itself.
    pub progress: Option<Timestamp>,
}

impl Outcome {
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub(super) fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Act(action) => self.actions.push(*action),
            Step::Wait(reason, until) => {
                self.reasons.push(reason);
                if let Some(until) = until {
                    self.wake_at(until);
                }
            }
            Step::Removable => return true,
        }
        false
    }
}

/// How many pods may still be taken out of service.
pub(super) struct Budget {
    /// The version that gets the requests, where it is only one.
    serving: Option<String>,
    /// Pods that are available and get requests.
    available: u32,
    /// Pods that get requests, however short they have been ready.
    in_service: u32,
    floor: u32,
    exhausted: bool,
}

impl Budget {
    fn new(task: &Task<'_>, observed: &Observed<'_>, view: &View) -> Self {
        let min_ready = signed(task.policy.min_ready);
        let wanted = task.needed_in_service();
        // No other pod can come beside one that has an ordinal or a node.
        let least = u32::from(task.maker() != Maker::Slices);
        let may_miss = task.policy.may_miss(wanted).max(least);
        let floor = wanted.min(task.reachable(observed)).saturating_sub(may_miss);
        let serving = task.traffic.and_then(|traffic| traffic.serving.clone());
        let mut budget = Self { serving, available: 0, in_service: 0, floor, exhausted: false };
        let in_service = observed.pods().filter(|pod| budget.counts(pod)).collect::<Vec<_>>();
        for pod in in_service.into_iter().filter(|pod| gets_requests(pod, &task.rollout.app, view)) {
            budget.in_service += 1;
            budget.available += u32::from(pod.is_available(task.now, min_ready));
        }
        budget
    }

    /// Says so where no more pods may be taken out of service for now.
    fn tell(&self, task: &Task<'_>, observed: &Observed<'_>, outcome: &mut Outcome) {
        if !self.exhausted {
            return;
        }
        // Pods of either side that are ready already count as available by time alone: no event will tell of it.
        let ready = observed.pods().filter(|pod| pod.labelled && pod.is_ready());
        let soon = ready.filter_map(|pod| pod.ready_since).map(|since| since + signed(task.policy.min_ready));
        if let Some(at) = soon.filter(|at| *at > task.now).min() {
            outcome.wake_at(at);
        }
        outcome.reasons.push(Reason::MaxUnavailable {
            workload: task.id.to_owned(),
            available: self.available,
            floor: self.floor,
        });
    }

    /// Returns whether a pod can get requests now.
    fn counts(&self, pod: &Pod<'_>) -> bool {
        pod.is_in_service() && self.serving.as_ref().is_none_or(|serving| pod.digest == serving)
    }

    /// Asks to take a pod out of service. One that is not in service costs nothing.
    pub(super) fn take(&mut self, pod: &Pod<'_>, now: Timestamp, min_ready: SignedDuration) -> bool {
        if !self.counts(pod) {
            return true;
        }
        let available = pod.is_available(now, min_ready);
        if self.in_service <= self.floor || available && self.available <= self.floor {
            self.exhausted = true;
            return false;
        }
        self.in_service -= 1;
        self.available -= u32::from(available);
        true
    }
}

impl Task<'_> {
    /// Returns how many pods the version that gets the requests needs: all, but where stable gets a share of them and is
    /// scaled down to it.
    fn needed_in_service(&self) -> u32 {
        let total = self.totals.values().sum();
        let Some((traffic, stays)) = self.traffic.and_then(|traffic| Some((traffic, traffic.stays?))) else {
            return total;
        };
        let stable = self.old.map(|old| labels::digest_label(&old.digest));
        if traffic.serving.is_some() && traffic.serving == stable { stays.up(total) } else { total }
    }

    /// Returns how many pods there can be at the frontier: where nothing was stable before, a unit has those of the quota
    /// and what is left of a version that was superseded, and no others come to fill it up.
    pub(in crate::core::rollout) fn reachable(&self, observed: &Observed<'_>) -> u32 {
        if self.old.is_some() || self.method != Method::Install {
            return u32::MAX;
        }
        let digest = self.new.map(|new| labels::digest_label(&new.digest)).unwrap_or_default();
        let in_unit = |(unit, total): (&Unit, &u32)| {
            let between = observed.in_unit(unit).filter(|slice| slice.digest != digest).map(|slice| slice.replicas);
            let quota = self.quota.get(unit).copied().unwrap_or(0);
            (*total).min(quota + between.sum::<u32>())
        };
        self.totals.iter().map(in_unit).sum()
    }
}

/// Returns whether a pod that is ready gets the requests that it is to get: an EndpointSlice names it, or no Service of
/// the application selects it.
pub(super) fn gets_requests(pod: &Pod<'_>, app: &AppName, view: &View) -> bool {
    let labels = pod.object.labels();
    let selects = |service: &Object| {
        let selector = strings(service.at(&["spec", "selector"]));
        service.namespace() == pod.object.namespace()
            && service.at(&["spec", "publishNotReadyAddresses"]) != Some(&Value::Bool(true))
            && !selector.is_empty()
            && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    pod.served || !view.of_app(app, "Service").any(selects)
}

/// Says what comes next for one workload. Total and pure.
pub fn next(task: &Task<'_>, observed: &Observed<'_>, view: &View) -> Outcome {
    let mut outcome = Outcome { done: true, ..Outcome::default() };
    outcome.progress = observed.pods().filter_map(last_moved).max();
    let mut budget = Budget::new(task, observed, view);

    match task.maker() {
        Maker::Slices => slices(task, observed, view, &mut outcome, &mut budget),
        Maker::Ordinals => ordinals::next(task, observed, view, &mut outcome, &mut budget),
        Maker::Nodes => nodes::next(task, observed, view, &mut outcome, &mut budget),
    }
    budget.tell(task, observed, &mut outcome);
    keep_gates(task, observed, &mut outcome);
    outcome
}

/// Lets the gates of pods follow their labels. A pod that something else is done to is seen again after it.
fn keep_gates(task: &Task<'_>, observed: &Observed<'_>, outcome: &mut Outcome) {
    let busy: BTreeSet<ObjectKey> = outcome.actions.iter().map(|action| action.write.subject().1).collect();
    let pods = observed.pods().filter(|pod| !busy.contains(&pod.object.key()));
    outcome.actions.extend(pods.filter_map(|pod| gate::follow(pod, task.now)));
}

/// Says what comes next for the slices of a Deployment.
fn slices(task: &Task<'_>, observed: &Observed<'_>, view: &View, outcome: &mut Outcome, budget: &mut Budget) {
    let at_rest_in_one = task.last && task.units.len() == 1 && observed.slices.len() == 1;
    let owned_at_rest = at_rest_in_one.then(|| &observed.slices[0]).filter(|slice| is_at_rest(task, slice));
    let handle = match (task.new, owned_at_rest) {
        (Some(new), Some(slice)) => handle::own(observed, slice, new, &task.rollout.app, &task.notes),
        (Some(new), None) => handle::let_go(observed, new, &task.rollout.app, &task.notes),
        // What the Deployment owns it would make as many of again.
        (None, _) => match task.old.filter(|_| handle::holds(observed)) {
            Some(old) => handle::let_go(observed, old, &task.rollout.app, &task.notes),
            None => Handle::Right,
        },
    };
    let blocked = match handle {
        Handle::Right => false,
        Handle::Act(actions, blocks) => {
            outcome.actions.extend(actions);
            outcome.done = false;
            blocks
        }
        Handle::Wait(reason) => {
            outcome.reasons.push(reason);
            outcome.done = false;
            true
        }
    };
    for unit in all_units(task, observed) {
        let mut step = UnitStep::new(task, observed, view, &unit, outcome, budget);
        if blocked {
            step.report();
        } else {
            step.run(owned_at_rest.is_some());
        }
    }
}

/// Returns whether the handle may own this slice: all its pods are at the wanted version, and so is its template.
fn is_at_rest(task: &Task<'_>, slice: &Slice<'_>) -> bool {
    let Some(new) = task.new else { return false };
    let digest = labels::digest_label(&new.digest);
    slice.digest == digest && slice.pods.iter().all(|pod| pod.digest == digest && pod.labelled)
}

/// Returns the policy's units, and those that still have slices.
fn all_units(task: &Task<'_>, observed: &Observed<'_>) -> Vec<Unit> {
    let mut units = task.units.to_vec();
    for slice in &observed.slices {
        if !units.contains(&slice.unit) {
            units.push(slice.unit.clone());
        }
    }
    units
}

fn last_moved(pod: &Pod<'_>) -> Option<Timestamp> {
    let created = pod.object.time(&["metadata", "creationTimestamp"]);
    let noted = [labels::DRAINING, labels::DRAINED].into_iter().filter_map(|name| pod.time(name));
    noted.chain(pod.ready_since).chain(created).max()
}
