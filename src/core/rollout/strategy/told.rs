//! How far a workload's pods are in one unit, whoever makes them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    drain::{self, Drain, Goal, Step, signed},
    slice,
    workload::{Budget, Outcome, Task, gets_requests},
};
use crate::core::{
    manifest::Object,
    names::{AppName, Unit},
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Pod, images},
        render::Workload,
        report::{Reason, UnitReport},
        view::View,
    },
};

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns whether a pod is at a version: by its label, and by the images that it really asks for.
pub(super) fn is_at(pod: &Pod<'_>, workload: &Workload) -> bool {
    let have = pod.images();
    let same_images = || images(&workload.template()["spec"]).iter().all(|(name, image)| have.get(name) == Some(image));
    pod.digest == labels::digest_label(&workload.digest) && (workload.differs || same_images())
}

/// Returns whether a pod is done: ready for long enough, in service, and back in its load balancers.
pub(super) fn is_done(pod: &Pod<'_>, task: &Task<'_>, view: &View) -> bool {
    let back = pod
        .object
        .annotation(labels::HAD_FINALIZERS)
        .is_none_or(|had| had.split(',').all(|name| pod.finalizers().any(|finalizer| finalizer == name)));
    let settled = pod.moving_to().is_none() && pod.object.annotation(labels::UPDATED_FROM).is_none();
    pod.is_available(task.now, signed(task.policy.min_ready))
        && settled
        && back
        && gets_requests(pod, &task.rollout.app, view)
}

/// Returns the template of a version for a workload whose own controller makes the pods. One that the renderer renders
/// differently now is taken as its controller has kept it: another template would replace every pod.
pub(super) fn template_of(task: &Task<'_>, version: &Workload, live: Option<&Object>, view: &View) -> Value {
    let digest = labels::digest_label(&version.digest);
    let kept = || {
        let live = live.filter(|_| version.differs)?;
        let revision = revisions(&task.rollout.app, live, view).find(|it| it.label(labels::DIGEST) == Some(&digest))?;
        let mut template = revision.at(&["data", "spec", "template"])?.clone();
        // How the revision is put back: no part of it.
        template.as_object_mut()?.remove("$patch");
        Some(template)
    };
    kept().unwrap_or_else(|| slice::template(version, &task.rollout.app))
}

/// Names the revision that pods of a workload are of, while it is taken over: its template says what they are already, so
/// their controller has nothing to replace. Nothing at any other time.
pub(super) fn regrouped<'a>(live: &Object, pods: impl Iterator<Item = &'a Pod<'a>>, revision: &str) -> Vec<Action> {
    let marked = live.annotation(labels::REGROUPING).is_some();
    let others = pods.filter(|pod| marked && pod.object.label(labels::REVISION) != Some(revision));
    let rename = |pod: &Pod<'_>| {
        let body = json!({ "metadata": { "labels": { labels::REVISION: revision } } });
        Action::merge(pod.object, body, format!("{} is handed over", pod.object.name()))
    };
    others.map(rename).collect()
}

/// Returns the revisions that a workload's controller keeps.
pub(super) fn revisions<'a>(app: &AppName, live: &Object, view: &'a View) -> impl Iterator<Item = &'a Object> {
    let owner = live.uid().to_owned();
    let is_own = move |it: &&Object| it.controller().is_some_and(|(_, _, uid)| uid == owner);
    view.of_app(app, "ControllerRevision").filter(is_own)
}

/// What of a workload is in a unit.
pub(super) struct There<'a> {
    /// Pods wanted in all.
    pub total: u32,
    /// Pods wanted at the new version.
    pub quota: u32,
    /// The pods at the new version.
    pub at_new: Vec<&'a Pod<'a>>,
    /// Why pods cannot be made, and how many.
    pub refusal: Option<(String, u32)>,
}

/// Tells how far a unit is, and why not further.
pub(super) fn tell(task: &Task<'_>, unit: &Unit, there: &There<'_>, view: &View, outcome: &mut Outcome) {
    let min_ready = signed(task.policy.min_ready);
    let at_new = &there.at_new;
    let done = count(at_new.iter().filter(|pod| is_done(pod, task, view)).count());
    let failing = count(at_new.iter().filter(|pod| pod.trouble().is_some_and(|why| why != "not ready")).count());
    let coming = count(at_new.len()).saturating_sub(done + failing);
    outcome.units.insert(unit.clone(), UnitReport { total: there.total, done, coming, failing });
    if done >= there.quota {
        return;
    }
    outcome.done = false;
    let mut trouble: BTreeMap<String, u32> = there.refusal.iter().cloned().collect();
    let fresh = format!("ready for less than {} s", task.policy.min_ready.as_secs());
    for pod in at_new {
        if let Some(why) = pod.trouble().filter(|why| why != "not ready") {
            *trouble.entry(why).or_default() += 1;
        }
        if let Some(since) = pod.ready_since.filter(|since| *since + min_ready > task.now) {
            if pod.trouble().is_none() {
                *trouble.entry(fresh.clone()).or_default() += 1;
            }
            outcome.wake_at(since + min_ready);
        }
    }
    outcome.reasons.push(Reason::PodsNotReady {
        workload: task.id.to_owned(),
        unit: unit.clone(),
        want: there.quota,
        have: done,
        trouble: trouble.into_iter().collect(),
    });
}

/// Takes the pods of a StatefulSet or DaemonSet that goes away out of service; it is removed after that, and its pods with
/// it.
pub(super) fn leave(task: &Task<'_>, observed: &Observed<'_>, view: &View, budget: &mut Budget, outcome: &mut Outcome) {
    let Some(key) = task.old.map(|old| &old.key) else { return };
    let drain =
        Drain { graceful: &task.policy.graceful, proxied: task.proxied, now: task.now, at_most: task.drain_at_most };
    let is_of_it = |pod: &&Object| pod.controller().is_some_and(|(kind, of, _)| kind == key.kind && of == key.name);
    let left = view.of_app(&task.rollout.app, "Pod").filter(is_of_it).count();
    if observed.handle.is_none() && left > 0 {
        outcome.done = false;
        outcome.reasons.push(Reason::Following { what: format!("the pods of {} are gone", task.id) });
    }
    for pod in observed.pods() {
        let begun = pod.moving_to() == Some(Goal::Away.name().as_str());
        let may = begun || !task.still && budget.take(pod, task.now, signed(task.policy.min_ready));
        if !may || !outcome.take(drain.step(pod, Goal::Away)) {
            outcome.done = false;
        }
    }
}

/// Puts a pod that stays what it is back into service.
pub(super) fn settle(pod: &Pod<'_>, outcome: &mut Outcome) {
    if let Some(step) = drain::settle(pod) {
        if matches!(step, Step::Act(_)) {
            outcome.done = false;
        }
        outcome.take(step);
    }
}

/// Orders pods: those that `first` says, then those of a version in between, then those not in service, the rest by the
/// seed.
pub(super) fn in_order<'a>(
    task: &Task<'_>,
    pods: impl Iterator<Item = &'a Pod<'a>>,
    first: impl Fn(&Pod<'_>) -> bool,
) -> Vec<&'a Pod<'a>> {
    let mut pods: Vec<&Pod<'_>> = pods.collect();
    pods.sort_by_cached_key(|pod| {
        let mut hasher = Sha256::new();
        hasher.update(task.seed.as_bytes());
        hasher.update(pod.object.name().as_bytes());
        let drawn: [u8; 32] = hasher.finalize().into();
        let between = ![task.new, task.old]
            .into_iter()
            .flatten()
            .any(|workload| labels::digest_label(&workload.digest) == pod.digest);
        (!first(pod), !between, pod.is_available(task.now, signed(task.policy.min_ready)), drawn)
    });
    pods
}
