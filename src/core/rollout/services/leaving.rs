//! A switch that another strategy takes over in the middle: requests return to stable's pods alone while there are pods of
//! a version in between, which nobody vouches for; once they are gone, Services are as Git says.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Services, Switch, available_of, narrowed, narrowed_to, selects, services};
use crate::core::{
    names::AppName,
    policy::{Beside, RolloutPolicy},
    rollout::{
        labels,
        observe::Observed,
        render::Workload,
        report::Reason,
        steer::{Course, totals},
        strategy::workload::Traffic,
        view::View,
    },
    traffic::Answer,
};

/// Says what comes next for Services that a switch before left narrowed.
pub(super) fn next(course: &Course<'_>, policy: &RolloutPolicy, app: &AppName, view: &View, outcome: &mut Services) {
    let beside = Beside {
        preview_service: None,
        health_check: None,
        suffix: "preview",
        router: None,
        scale_down_delay: Duration::ZERO,
        scales_stable: false,
    };
    let switch = Switch { course, policy, beside, app, view, all_ready: true, clear: true };
    for (id, new) in course.new.into_iter().flat_map(|render| &render.workloads) {
        let old = course.old.and_then(|old| old.workloads.get(id));
        // Going back, and at rest, stable is what is gone to.
        let stable = if course.quota.is_none() { Some(new) } else { old };
        if let Some(stable) = stable {
            one(&switch, id, stable, [Some(new), old], outcome);
        }
    }
}

fn one(switch: &Switch<'_>, id: &str, stable: &Workload, sides: [Option<&Workload>; 2], outcome: &mut Services) {
    let Switch { course, policy, app, view, .. } = switch;
    let label = labels::digest_label(&stable.digest);
    let observed = Observed::read(view, app, &stable.key);
    let is_side = |version: &str| sides.iter().flatten().any(|side| labels::digest_label(&side.digest) == version);
    let mut between = observed.slices.iter().filter(|slice| !is_side(slice.digest));
    if between.all(|slice| slice.replicas == 0 && slice.pods.is_empty()) {
        return;
    }
    let wanted: u32 = totals(stable, policy, course.totals, view).map_or(0, |totals| totals.values().sum());
    let least = wanted.saturating_sub(policy.strategy.pods().may_miss(wanted));
    let can_return = available_of(course, &observed, &label) >= least;
    let is_called =
        |service: &&crate::core::manifest::Object| sides.iter().flatten().any(|side| selects(service, side));
    for service in services(course.old).chain(services(course.new)).filter(is_called) {
        let key = service.key();
        let Some(current) = view.by_key(&key).and_then(narrowed_to) else { continue };
        if outcome.managed.contains(&key) || current != label && !can_return {
            // Where stable cannot take all requests, every pod that there is does.
            continue;
        }
        switch.put(narrowed(service, app, &label), outcome);
        let followed = switch.followed(&key, current);
        let settled = followed == Answer::Yes && current == label;
        let traffic = outcome.traffic.entry(id.to_owned()).or_insert_with(|| Traffic {
            serving: Some(current.to_owned()),
            narrowed: true,
            settled: true,
            known: true,
            stays: None,
            held: None,
            delay: SignedDuration::ZERO,
        });
        traffic.narrowed &= followed == Answer::Yes;
        traffic.settled &= settled;
        outcome.pending = true;
        let what = match followed {
            Answer::NotYet(what) | Answer::CannotTell(what) if !settled => what,
            _ => format!("pods of {id} that are neither stable nor new are gone"),
        };
        outcome.reasons.push(Reason::Following { what });
        outcome.managed.insert(key);
    }
}
