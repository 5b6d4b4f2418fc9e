//! Invariant 3 where stable is scaled down as a canary takes over: each side has pods in service for its share of the
//! requests, as the router has it and as it was told.

use std::collections::BTreeSet;

use locktender::core::{
    cluster::Write,
    names::AppName,
    rollout::{
        labels,
        state::{Phase, State},
    },
};
use serde_json::Value;

use super::{
    Checker, Snapshot,
    cluster::told as told_of,
    snapshot::{label, name, uid},
};
use crate::simulation::gateway::{self, ROUTES};

/// Returns whether a rollout scales stable down.
pub fn scales_stable(state: &State) -> bool {
    let beside = state.plan.policy.as_ref().and_then(|policy| policy.spec.strategy.beside());
    beside.is_some_and(|beside| beside.scales_stable)
}

/// How many of so many pods a share of the requests needs, in percent.
pub fn needed(share: u64, total: u64) -> u64 {
    (total * share).div_ceil(100)
}

/// What of all requests goes beside stable, in percent: the least of what the routes of an application ask for and of what
/// the gateway does.
fn least_beside(snapshot: &Snapshot, app: &AppName) -> u64 {
    let previews: Vec<&Value> = previews(snapshot, app).collect();
    let beside = |route: &Value| {
        let both = [gateway::asked(route), gateway::in_force(route)];
        let shares = previews.iter().map(|service| both.iter().map(|one| gateway::share(one, name(service))).min());
        shares.flatten().max().unwrap_or(0)
    };
    let routes = snapshot.all(ROUTES).filter(|route| label(route, labels::APP) == app.as_str());
    routes.map(beside).min().unwrap_or(0)
}

fn previews<'a>(snapshot: &'a Snapshot, app: &'a AppName) -> impl Iterator<Item = &'a Value> {
    snapshot.all("services").filter(move |service| {
        label(service, labels::APP) == app.as_str() && !label(service, labels::PREVIEW_OF).is_empty()
    })
}

/// The pods of a workload that are in service behind these Services.
fn behind(snapshot: &Snapshot, app: &AppName, id: &str, services: &[&Value]) -> u64 {
    let uids: BTreeSet<&str> = services.iter().flat_map(|service| snapshot.behind(service)).collect();
    let pods = snapshot.of_workload("pods", app.as_str(), id);
    pods.filter(|pod| uids.contains(uid(pod)) && snapshot.is_in_service(pod)).count() as u64
}

impl Checker {
    /// Returns how many pods in service the Services that everybody calls must keep: as many as the share that comes to them
    /// needs while they send to stable.
    pub(super) fn floor_beside(&self, app: &AppName, state: &State, id: &str, total: u64, now: &Snapshot) -> u64 {
        let stable = self.stable(app);
        let sends_to_stable = super::traffic::called(now, app.as_str()).all(|service| {
            let selected = service["spec"]["selector"][labels::DIGEST].as_str();
            selected.is_some() && selected == stable.get(id).map(String::as_str)
        });
        match scales_stable(state) && sends_to_stable {
            true => needed(100 - self.least_beside(app, id, now), total),
            false => total,
        }
    }

    /// What of all requests goes beside stable, by the routes or by a proxy.
    fn least_beside(&self, app: &AppName, id: &str, now: &Snapshot) -> u64 {
        if self.proxied.is_empty() {
            return least_beside(now, app);
        }
        let stable = self.stable(app).get(id).cloned().unwrap_or_default();
        100 - super::proxy::share(&self.proxied, now, &stable)
    }

    /// Requests are given back to stable only as its pods are there for them, unless those beside are not either.
    pub(super) fn given_back(
        &mut self,
        app: &AppName,
        state: &State,
        before: &Snapshot,
        now: &Snapshot,
        write: &Write,
    ) {
        if !scales_stable(state) || matches!(state.phase, Phase::Ended(_)) {
            return;
        }
        for (id, total) in self.wanted(app, state, before) {
            for preview in previews(before, app) {
                for route in now.all(ROUTES).filter(|route| label(route, labels::APP) == app.as_str()) {
                    let was = before.all(ROUTES).find(|one| name(one) == name(route));
                    let share = |route: &Value| gateway::share(&gateway::asked(route), name(preview));
                    let (had, has) = (was.map_or(0, share), share(route));
                    if has >= had {
                        continue;
                    }
                    let told = self.told.snapshot();
                    let there = |services: &dyn Fn(&Snapshot) -> u64| services(now).max(services(&told));
                    let stable = there(&|snapshot| {
                        let called: Vec<&Value> = super::traffic::called(snapshot, app.as_str()).collect();
                        behind(snapshot, app, &id, &called)
                    });
                    let beside = there(&|snapshot| {
                        let previews: Vec<&Value> = previews(snapshot, app).collect();
                        behind(snapshot, app, &id, &previews)
                    });
                    let could_stay = had.min(beside * 100 / total.max(1));
                    if stable < needed(100 - has, total) && has < could_stay {
                        let what = format!("{} % of the requests, and {stable} of {total} pods are there", 100 - has);
                        let place = format!("{}: stable of {id}", state.plan.rollout);
                        self.violated(3, format_args!("{place} gets {what}, by {}", told_of(write)));
                    }
                }
            }
        }
    }
}
