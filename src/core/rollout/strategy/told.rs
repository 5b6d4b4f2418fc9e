//! How far a workload's pods are in one unit, whoever makes them.

use std::collections::BTreeMap;

use super::{
    drain::signed,
    workload::{Outcome, Task, gets_requests},
};
use crate::core::{
    names::Unit,
    rollout::{
        labels,
        observe::{Pod, images},
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
