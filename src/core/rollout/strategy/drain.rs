//! One pod on its way from one version to another, or away: out of service, drained, changed, back in service.
//!
//! Each step is told from what the pod itself says, so that a restart goes on where it was.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::workload::Proxied;
use crate::core::{
    cluster::PatchType,
    policy::Graceful,
    rollout::{action::Action, labels, observe::Pod, render::Workload, report::Reason},
};

/// Where a pod goes.
#[derive(Clone, Copy)]
pub(super) enum Goal<'a> {
    /// To another version, in place.
    Version(&'a Workload),
    /// The same, where the workload's own controller tells versions apart by the name of a revision.
    Revision(&'a Workload, &'a str),
    /// Away: its slice is made smaller once it is out of service.
    Away,
}

impl Goal<'_> {
    /// Returns how the pod's annotation names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Version(workload) | Self::Revision(workload, _) => labels::digest_label(&workload.digest),
            Self::Away => "away".to_owned(),
        }
    }
}

/// What comes next for a pod.
pub(super) enum Step {
    /// Send this.
    Act(Box<Action>),
    /// Wait for this, until this time where it is known.
    Wait(Reason, Option<Timestamp>),
    /// It is out of service: its slice may be made smaller.
    Removable,
}

/// How pods leave service.
pub(super) struct Drain<'a> {
    pub graceful: &'a Graceful,
    pub proxied: Option<&'a Proxied>,
    pub now: Timestamp,
    /// Going back, the wait for others ends this long after it began.
    pub at_most: Option<SignedDuration>,
}

pub(super) fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Drain<'_> {
    /// Returns the next step of a pod that has to go to `goal`.
    pub(super) fn step(&self, pod: &Pod<'_>, goal: Goal<'_>) -> Step {
        let name = pod.object.name();
        if pod.moving_to() != Some(goal.name().as_str()) {
            return Step::Act(Box::new(self.begin(pod, goal)));
        }
        if let Some(waits) = self.still_in_the_way(pod) {
            let began = pod.time(labels::DRAINING).unwrap_or(self.now);
            let ends = self.at_most.map(|at_most| began + at_most);
            if ends.is_none_or(|ends| ends > self.now) {
                return Step::Wait(Reason::Draining { pod: name.to_owned(), waits }, ends);
            }
        }
        let grace = signed(self.graceful.grace_period);
        // A pod that nothing ever sent requests to has nothing to finish.
        if !grace.is_zero() && pod.is_ready() {
            let Some(drained) = pod.time(labels::DRAINED) else {
                let body = json!({ "metadata": { "annotations": { labels::DRAINED: self.now.to_string() } } });
                let why = format!("{name}: out of service, grace begins");
                return Step::Act(Box::new(Action::merge(pod.object, body, why)));
            };
            let until = drained + grace;
            if until > self.now {
                let waits = format!("{} s of grace", self.graceful.grace_period.as_secs());
                return Step::Wait(Reason::Draining { pod: name.to_owned(), waits }, Some(until));
            }
        }
        match goal {
            Goal::Version(workload) => Step::Act(Box::new(change(pod, workload, None))),
            Goal::Revision(workload, revision) => Step::Act(Box::new(change(pod, workload, Some(revision)))),
            Goal::Away => Step::Removable,
        }
    }

    /// Returns whether something is known to send requests to a pod.
    pub(super) fn is_served(&self, pod: &Pod<'_>) -> bool {
        let used = |proxied: &Proxied| matches!(proxied, Proxied::Used(pods) if pods.contains(pod.object.name()));
        pod.served || self.proxied.is_some_and(used)
    }

    /// Takes the pod out of service.
    fn begin(&self, pod: &Pod<'_>, goal: Goal<'_>) -> Action {
        let had: Vec<&str> =
            pod.finalizers().filter(|one| self.graceful.finalizers.iter().any(|named| named == one)).collect();
        let since = pod.time(labels::DRAINING).unwrap_or(self.now);
        let mut annotations = json!({
            labels::DRAINING: since.to_string(),
            labels::MOVING: goal.name(),
            labels::DRAINED: Value::Null,
        });
        if !had.is_empty() {
            annotations[labels::HAD_FINALIZERS] = json!(had.join(","));
        }
        // Among ready pods the ReplicaSet controller takes the cheapest.
        annotations[labels::DELETION_COST] = if matches!(goal, Goal::Away) { json!("-1000") } else { Value::Null };
        let body = json!({ "metadata": { "labels": { labels::IN_SERVICE: Value::Null }, "annotations": annotations } });
        Action::merge(pod.object, body, format!("{}: taken out of service", pod.object.name()))
    }

    /// Says what still sends requests to a pod that is to leave service.
    fn still_in_the_way(&self, pod: &Pod<'_>) -> Option<String> {
        if pod.served {
            return Some("an EndpointSlice still names it".to_owned());
        }
        if pod.gate.is_some_and(|gate| gate.open || gate.passed) {
            return Some("its readiness gate is not closed yet".to_owned());
        }
        match self.proxied {
            Some(Proxied::Unknown(why)) => return Some(why.clone()),
            Some(Proxied::Used(pods)) if pods.contains(pod.object.name()) => {
                return Some("the proxy still sends to it, or it answers".to_owned());
            }
            _ => {}
        }
        let held = pod.finalizers().find(|one| self.graceful.finalizers.iter().any(|named| named == one))?;
        Some(format!("finalizer {held} is still there"))
    }
}

/// Patches the images of a drained pod. What its containers were is noted, so that their restart can be told.
fn change(pod: &Pod<'_>, workload: &Workload, revision: Option<&str>) -> Action {
    let have = pod.images();
    let template = workload.template();
    let mut noted = Vec::new();
    let mut body = json!({});
    let running = pod.containers();
    for list in ["initContainers", "containers"] {
        let containers = template["spec"][list].as_array().into_iter().flatten();
        let changed: Vec<Value> = containers
            .filter_map(|container| Some((container["name"].as_str()?, container["image"].as_str()?)))
            .filter(|(name, image)| have.get(name) != Some(image))
            .map(|(name, image)| {
                noted.push(format!("{name}={}", running.get(name).map_or("", String::as_str)));
                json!({ "name": name, "image": image })
            })
            .collect();
        if !changed.is_empty() {
            body["spec"][list] = json!(changed);
        }
    }
    let digest = labels::digest_label(&workload.digest);
    body["metadata"] = json!({
        "labels": { labels::DIGEST: digest },
        "annotations": {
            labels::UPDATED_FROM: noted.join(","),
            labels::MOVING: Value::Null,
            labels::DRAINED: Value::Null,
            labels::DRAINING: Value::Null,
        },
    });
    if let Some(revision) = revision {
        // In the same request: a pod of another revision than its images' would be made anew.
        body["metadata"]["labels"][labels::REVISION] = json!(revision);
    }
    let why = format!("{}: images changed in place to {}", pod.object.name(), workload.image());
    Action::patch(pod.object, PatchType::Strategic, body, why)
}

/// Returns the next step of a pod that is at its version: back in service, or `None` when there is nothing to do.
pub(super) fn settle(pod: &Pod<'_>) -> Option<Step> {
    let name = pod.object.name();
    if let Some(noted) = pod.object.annotation(labels::UPDATED_FROM) {
        if !pod.is_observed() || !restarted(noted, &pod.containers()) || !pod.is_ready() {
            let trouble = pod.trouble().filter(|trouble| trouble != "not ready");
            let waits = trouble.unwrap_or_else(|| "its containers restart with other images".to_owned());
            return Some(Step::Wait(Reason::Returning { pod: name.to_owned(), waits }, None));
        }
    } else if pod.labelled && pod.moving_to().is_none() {
        return None;
    }
    let body = json!({ "metadata": {
        "labels": { labels::IN_SERVICE: "true" },
        "annotations": {
            labels::UPDATED_FROM: Value::Null,
            labels::MOVING: Value::Null,
            labels::DRAINING: Value::Null,
            labels::DRAINED: Value::Null,
            labels::DELETION_COST: Value::Null,
        },
    } });
    Some(Step::Act(Box::new(Action::merge(pod.object, body, format!("{name}: back in service")))))
}

/// Returns whether every container that was noted has another id or restart count now.
fn restarted(noted: &str, now: &BTreeMap<String, String>) -> bool {
    noted.split(',').filter_map(|one| one.split_once('=')).all(|(name, before)| {
        // Two tags may be one image, so the image says nothing; an id without a container is none.
        now.get(name).is_some_and(|after| after != before && !after.starts_with('#'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_by_id_or_count() {
        let now = |text: &str| BTreeMap::from([("app".to_owned(), text.to_owned())]);
        assert!(!restarted("app=containerd://1#0", &now("containerd://1#0")));
        assert!(restarted("app=containerd://1#0", &now("containerd://2#0")));
        assert!(restarted("app=containerd://1#0", &now("containerd://1#1")));
        assert!(!restarted("app=containerd://1#0", &now("#1")), "a container that is not there has not restarted");
        assert!(!restarted("app=containerd://1#0", &BTreeMap::new()));
        assert!(restarted("", &BTreeMap::new()), "nothing was changed");
    }
}
