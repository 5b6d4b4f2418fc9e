//! Stable scaled down as the canary takes over: how much of it stays at a stage, and how fast requests come back to it.

use jiff::Timestamp;

use super::{Services, Sided, Switch, available, previews_of, services};
use crate::core::{
    manifest::Object,
    names::AppName,
    policy::{Percent, RolloutPolicy},
    rollout::{labels, report::Reason, steer::Course, view::View},
    traffic::{Answer, capacity},
};

/// Returns the share of the wanted total that stable keeps beside the new side: everything, unless the policy scales it down
/// with its share of the requests.
pub(super) fn kept(
    course: &Course<'_>,
    policy: &RolloutPolicy,
    app: &AppName,
    view: &View,
    one: &Sided<'_>,
) -> Percent {
    let scales = course.quota.is_some() && policy.strategy.beside().is_some_and(|beside| beside.scales_stable);
    match &course.split {
        // Requests that go to a version in between all return to stable first.
        Some(split) if scales && !has_between(app, view, one) => split.weight.rest(),
        _ => Percent::ALL,
    }
}

/// Returns whether there is a version that is neither stable nor new, or something still leads to one.
pub(super) fn has_between(app: &AppName, view: &View, one: &Sided<'_>) -> bool {
    let (new, old) = (one.new_label(), one.old_label());
    let is_between = |version: &str| version != new && old.as_deref() != Some(version);
    let mut slices = one.observed.slices.iter().filter(|slice| slice.replicas > 0 || !slice.pods.is_empty());
    slices.any(|slice| is_between(slice.digest))
        || previews_of(app, view)
            .any(|preview| one.selects(preview) && preview.label(labels::DIGEST) != Some(new.as_str()))
}

impl Switch<'_> {
    /// Returns whether stable is kept in full at the last stage, too: it was scaled down, and takes everything first.
    pub(super) fn keeps_all(&self, one: &Sided<'_>) -> bool {
        self.beside.scales_stable && !self.is_to_stable() && has_between(self.app, self.view, one)
    }

    /// Returns whether everybody who calls a Service of both sides is known to reach stable.
    pub(super) fn only_stable_is_called(&self, one: &Sided<'_>) -> bool {
        let stable = self.stable_label(one);
        let both = |service: &&Object| {
            let is_old = services(self.course.old).any(|old| old.key() == service.key());
            one.selects(service) && (is_old || self.is_to_stable())
        };
        let called = services(self.course.new).filter(both);
        let mut called = called.filter(|service| self.beside.preview_service != Some(service.name()));
        called.all(|service| {
            let key = service.key();
            self.current(&key).as_ref() == Some(&stable) && self.followed(&key, &stable) == Answer::Yes
        })
    }

    /// Returns the new side's share of the requests on its way from `now` down to `wanted`: as pods of stable get ready.
    /// `beside` is how many pods of the other side are there for what stays. Says why it is not there yet.
    pub(super) fn on_the_way_back(
        &self,
        one: &Sided<'_>,
        wanted: Percent,
        now: Percent,
        beside: u32,
        outcome: &mut Services,
    ) -> Percent {
        let have = available(self.course, one, &self.stable_label(one));
        if have > 0 && self.is_given_up(outcome) {
            return wanted;
        }
        let carried = |pods: u32| capacity::carried(pods, one.total);
        let stable = if have == 0 { Percent::default() } else { carried(have + one.may_miss) };
        let share = capacity::on_the_way_back(wanted, now, stable, carried(beside));
        if share > wanted {
            let want = capacity::stable_pods(wanted, one.total).saturating_sub(one.may_miss);
            let workload = one.id.to_owned();
            outcome.reasons.push(Reason::StableReturns { workload, want, have, keeps: share });
        }
        share
    }

    /// Returns whether pods of stable that do not get ready are not waited for any more: going back, after the deadline.
    fn is_given_up(&self, outcome: &mut Services) -> bool {
        let Some(at_most) = self.course.drain_at_most else { return false };
        let until: Timestamp = self.course.since + at_most;
        let is_over = until <= self.course.now;
        if !is_over {
            outcome.wake = Some(outcome.wake.map_or(until, |wake| wake.min(until)));
        }
        is_over
    }
}
