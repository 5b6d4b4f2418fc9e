//! Routers that rollouts before this one told, and that it does not: a policy that names another one, or none.
//!
//! What such a router was told is taken back, and it is asked whether it follows, before any other is told of more for the
//! new side, before a Service beside changes sides or goes, and before any pod goes.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{Services, Switch, nowhere, previews_of, route::Routed, selects, services};
use crate::core::{
    cluster::ObjectKey,
    names::AppName,
    rollout::{labels, steer::Course, strategy::workload::Traffic, view::View},
    traffic::{Answer, Means},
};

/// Takes everything back by routers that are not named any more; returns whether they have followed.
pub(super) fn next(course: &Course<'_>, app: &AppName, view: &View, outcome: &mut Services) -> bool {
    let mut clear = true;
    for former in &course.former {
        let Some(beside) = former.policy.strategy.beside() else { continue };
        let Some(router) = beside.router else { continue };
        let switch = Switch { course, policy: former.policy, beside, app, view, all_ready: false, clear: false };
        clear &= match router.means(nowhere()) {
            Means::Proxy(asked) => switch.forgets(&asked, former, outcome),
            // What has ended left nothing in objects.
            Means::Objects(_) => !former.between || switch.gives_back(outcome),
        };
    }
    clear
}

/// Keeps every pod where it is until routers that are not named any more have followed.
pub(super) fn hold(course: &Course<'_>, outcome: &mut Services) {
    outcome.pending = true;
    for id in [course.new, course.old].into_iter().flatten().flat_map(|render| render.workloads.keys()) {
        let traffic = outcome.traffic.entry(id.clone()).or_insert_with(|| Traffic {
            serving: None,
            narrowed: true,
            settled: true,
            known: true,
            keeps_old: false,
            delay: SignedDuration::ZERO,
        });
        traffic.settled = false;
        traffic.known = false;
    }
}

impl Switch<'_> {
    /// Lets nothing go beside the Services any more by this router; returns whether that is so.
    fn gives_back(&self, outcome: &mut Services) -> bool {
        let renders = [self.course.new, self.course.old];
        let is_called = |service: &&crate::core::manifest::Object| {
            let mut workloads = renders.into_iter().flatten().flat_map(|render| render.workloads.values());
            workloads.any(|workload| selects(service, workload))
        };
        let called = renders.into_iter().flat_map(services).filter(is_called);
        let mut pairs: BTreeSet<(ObjectKey, String)> =
            called.map(|service| (service.key(), self.preview_name(service.name()))).collect();
        pairs.extend(previews_of(self.app, self.view).map(|preview| {
            let name = preview.label(labels::PREVIEW_OF).unwrap_or_default().to_owned();
            (ObjectKey { name, ..preview.key() }, preview.name().to_owned())
        }));
        let mut clear = true;
        for (stable, beside) in pairs {
            // What is not there has never been sent to, or not any more.
            let is_there = self.view.by_key(&ObjectKey { name: beside.clone(), ..stable.clone() }).is_some();
            let Some(routed) = Routed::new(self, &stable, &beside).filter(|_| is_there) else { continue };
            // What the router of this course is told by as well, it sees to.
            let shared = self.told_by_now(&stable, &beside);
            if routed.is_out(&shared) == Answer::Yes {
                continue;
            }
            if !routed.clear(outcome) {
                clear = false;
                outcome.managed.extend(routed.reads());
            }
        }
        clear
    }

    /// Names the objects by which the router of this course is told, between the same Services.
    fn told_by_now(&self, stable: &ObjectKey, beside: &str) -> BTreeSet<ObjectKey> {
        let policy = self.course.policy.and_then(|policy| Some((policy, policy.strategy.beside()?)));
        let Some((policy, strategy)) = policy else { return BTreeSet::new() };
        let switch = Switch { policy, beside: strategy, ..*self };
        let routed = Routed::new(&switch, stable, beside);
        routed.map(|routed| routed.told_by().collect()).unwrap_or_default()
    }
}
