//! Where requests go: the second half of invariant 3, for strategies that keep old pods beside new ones.

use std::collections::{BTreeMap, BTreeSet};

use locktender::core::{
    cluster::Write,
    names::AppName,
    policy::Percent,
    rollout::{
        labels,
        plan::Method,
        state::{Phase, State},
    },
};
use serde_json::Value;

use crate::simulation::gateway::{self, ROUTES};

use super::{
    Checker, Snapshot,
    cluster::told as told_of,
    pods::{self, Version},
    sides::{needed, scales_stable},
    snapshot::{is_ready, label, name, uid},
};

/// Returns the Services of an application that everybody calls: those made to look at a new version aside.
pub(super) fn called<'a>(snapshot: &'a Snapshot, app: &'a str) -> impl Iterator<Item = &'a Value> {
    snapshot
        .all("services")
        .filter(move |service| label(service, labels::APP) == app && label(service, labels::PREVIEW_OF).is_empty())
}

impl Snapshot {
    /// Returns the pods that a Service's EndpointSlices send to.
    pub(super) fn behind(&self, service: &Value) -> BTreeSet<&str> {
        let slices = self.all("endpointslices.discovery.k8s.io").filter(|slice| {
            label(slice, "kubernetes.io/service-name") == name(service)
                && slice["metadata"]["namespace"] == service["metadata"]["namespace"]
        });
        let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        ready.filter_map(|endpoint| endpoint["targetRef"]["uid"].as_str()).collect()
    }

    /// Returns how many pods of each version of a workload a Service sends to.
    fn versions<'a>(&'a self, service: &Value, app: &'a str, id: &'a str) -> BTreeMap<&'a str, u64> {
        let behind = self.behind(service);
        let mut versions = BTreeMap::new();
        for pod in self.of_workload("pods", app, id).filter(|pod| behind.contains(uid(pod))) {
            *versions.entry(label(pod, labels::DIGEST)).or_default() += 1;
        }
        versions
    }

    /// Returns the pods of a workload that anybody's requests reach; `None` where no Service of its own selects them.
    pub fn called_pods(&self, app: &str, id: &str) -> Option<BTreeSet<String>> {
        let services: Vec<&Value> = called(self, app).collect();
        let selected = |service: &&&Value| {
            let selector = service["spec"]["selector"].as_object();
            let ours = [labels::DIGEST, labels::IN_SERVICE];
            selector.is_some_and(|selector| {
                self.of_workload("pods", app, id).any(|pod| {
                    let theirs = selector.iter().filter(|(name, _)| !ours.contains(&name.as_str()));
                    theirs.into_iter().all(|(name, wanted)| pod["metadata"]["labels"][name] == *wanted)
                })
            })
        };
        if services.iter().filter(selected).count() == 0 {
            return None;
        }
        Some(services.iter().flat_map(|service| self.behind(service)).map(str::to_owned).collect())
    }
}

impl Checker {
    /// 3: traffic never points at a variant that is not ready, and no new connection reaches a version that should not
    /// serve: one version serves at a time, and the new one only once its stage has started.
    pub(super) fn traffic(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let Some(policy) = state.plan.policy.as_ref().filter(|policy| policy.spec.strategy.beside().is_some()) else {
            return;
        };
        let pods = policy.spec.strategy.pods();
        let stage = &state.plan.stages[pods::current_stage(state)];
        let goes_forward = matches!(state.phase, Phase::Running | Phase::Stopped);
        let may_serve_new = goes_forward && stage.weight == Some(Percent::ALL) || stage.weight.is_none();
        let changed = state.plan.methods.iter().filter(|(_, method)| **method == Method::Recreate);
        for (id, _) in changed {
            let Some(target) = Version::target(state, id) else { continue };
            let total: u64 = self.wanted(app, state, before).get(id).copied().unwrap_or(0);
            let floor = total.saturating_sub(u64::from(pods.may_miss(u32::try_from(total).unwrap_or(u32::MAX))));
            for service in called(now, app.as_str()) {
                let (had, has) = (before.versions(service, app.as_str(), id), now.versions(service, app.as_str(), id));
                let place = format!("{}: Service/{} of {id}", state.plan.rollout, name(service));
                if has.len() > 1 && had.len() < has.len() {
                    self.violated(3, format_args!("{place} sends to {has:?} at once, by {}", told_of(write)));
                }
                for (version, _) in has.iter().filter(|(version, _)| !had.is_empty() && !had.contains_key(*version)) {
                    if *version == target.label && !may_serve_new {
                        self.violated(3, format_args!("{place} sends to the new version early, by {}", told_of(write)));
                    }
                    let ready = |snapshot: &Snapshot| {
                        let all = snapshot.of_workload("pods", app.as_str(), id);
                        all.filter(|pod| label(pod, labels::DIGEST) == *version && is_ready(pod)).count() as u64
                    };
                    if ready(now) < floor && ready(&self.told.snapshot()) < floor {
                        let count = ready(now);
                        let what = format!("{count} ready pods of {version}, and {floor} are needed");
                        self.violated(3, format_args!("{place} is switched to {what}, by {}", told_of(write)));
                    }
                }
            }
        }
    }

    /// 3, for the weights of a router: more is sent to the new version only once as many of its pods as the stage has are
    /// there for it, and none of them goes, nor what leads to them, before the gateway sends nothing there any more.
    pub(super) fn weights(&mut self, app: &AppName, state: &State, before: &Snapshot, now: &Snapshot, write: &Write) {
        let stage = &state.plan.stages[pods::current_stage(state)];
        let goes_forward = matches!(state.phase, Phase::Running | Phase::Stopped);
        let may = stage.weight.filter(|_| goes_forward).map_or(0, |weight| u64::from(weight.get()));
        for route in now.all(ROUTES).filter(|route| label(route, labels::APP) == app.as_str()) {
            let place = format!("{}: HTTPRoute/{}", state.plan.rollout, name(route));
            let same = |snapshot: &'_ Snapshot| snapshot.all(ROUTES).find(|one| name(one) == name(route)).cloned();
            let previews = before.all("services").filter(|service| {
                label(service, labels::APP) == app.as_str() && !label(service, labels::PREVIEW_OF).is_empty()
            });
            for service in previews {
                let share = |route: &Value| gateway::share(&gateway::asked(route), name(service));
                let (had, has) = (same(before).map_or(0, |route| share(&route)), share(route));
                if has > had {
                    let quota =
                        state.quotas.get(pods::current_stage(state)).into_iter().flat_map(|quota| quota.values());
                    let wanted: u64 = quota.flat_map(|units| units.values()).map(|count| u64::from(*count)).sum();
                    let told = self.told.snapshot();
                    let there = now.behind(service).len().max(told.behind(service).len()) as u64;
                    if has > may || there < wanted {
                        let what = format!("{has} % to {there} pods; {may} % to {wanted} may be");
                        self.violated(3, format_args!("{place} sends {what}, by {}", told_of(write)));
                    }
                }
                let (led, leads) = (before.behind(service), now.behind(service));
                let sent = gateway::share(&gateway::in_force(route), name(service));
                let total = self.wanted(app, state, before).values().sum();
                let needed = if scales_stable(state) { needed(sent.max(has), total) } else { u64::MAX };
                if sent > 0 && led.difference(&leads).next().is_some() && (leads.len() as u64) < needed {
                    let what = format!("{} of {} pods, and the gateway sends {sent} % there", leads.len(), led.len());
                    self.violated(
                        3,
                        format_args!("{place}: what is left of {} is {what}, by {}", name(service), told_of(write)),
                    );
                }
            }
        }
    }
}
