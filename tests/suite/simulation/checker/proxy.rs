//! A router that is no object of the cluster: the second half of invariant 3, for a proxy's servers.

use std::collections::BTreeMap;

use locktender::core::{
    names::AppName,
    policy::Percent,
    rollout::{
        labels,
        plan::Method,
        state::{Phase, State},
    },
    traffic::haproxy::OURS,
};
use serde_json::Value;

use super::{
    Checker, Snapshot,
    pods::{self, Version},
    sides,
    snapshot::{is_ready, is_terminating, label, name, uid},
};

/// The weight of each server that takes new requests, by name.
pub type Serves = BTreeMap<String, u32>;

/// The share of a version's pods, in percent, rounded.
pub(super) fn share(serves: &Serves, pods: &Snapshot, version: &str) -> u64 {
    let is_it = |server: &str| {
        let pod = server.strip_prefix(OURS).unwrap_or_default();
        pods.pods().any(|one| name(one) == pod && label(one, labels::DIGEST) == version)
    };
    let (all, theirs) = serves.iter().fold((0, 0), |(all, theirs), (server, weight)| {
        let weight = u64::from(*weight);
        (all + weight, theirs + if is_it(server) { weight } else { 0 })
    });
    (theirs * 100 + all / 2) / all.max(1)
}

impl Checker {
    /// Takes what a proxy does from here on, after somebody told it something, or it forgot.
    pub fn proxy_serves(&mut self, serves: Serves, now: &Snapshot) {
        let before = std::mem::replace(&mut self.proxied, serves);
        if self.resting || self.proxied.is_empty() || before.is_empty() {
            return;
        }
        for (app, state) in self.ledger() {
            let goes_forward = matches!(state.phase, Phase::Running | Phase::Stopped);
            let stage = &state.plan.stages[pods::current_stage(&state)];
            let may = if goes_forward { stage.weight.unwrap_or(Percent::ALL).get() } else { 0 };
            let changed = state.plan.methods.iter().filter(|(_, method)| **method == Method::Recreate);
            for (id, _) in changed {
                let Some(target) = Version::target(&state, id) else { continue };
                let (had, has) = (share(&before, now, &target.label), share(&self.proxied, now, &target.label));
                let quota = state.quotas.get(pods::current_stage(&state)).and_then(|quota| quota.get(id));
                let wanted: usize = quota.into_iter().flat_map(BTreeMap::values).map(|count| *count as usize).sum();
                let ready = |snapshot: &Snapshot| {
                    let all = snapshot.of_workload("pods", app.as_str(), id);
                    all.filter(|pod| label(pod, labels::DIGEST) == target.label && is_ready(pod)).count()
                };
                if has < had && sides::scales_stable(&state) {
                    self.proxy_gives_back(&app, &state, id, &before, now);
                }
                let there = ready(now).max(ready(&self.told.snapshot()));
                // Whole weights come near a share.
                if has > had && (has > u64::from(may) + 1 || there < wanted) {
                    let what = format!("{has} % to {there} pods; {may} % to {wanted} may be");
                    self.violated(3, format_args!("{}: the proxy sends {what}", state.plan.rollout));
                }
            }
        }
    }

    /// Requests are given back to stable only as its pods are there for them, unless those beside are not either.
    fn proxy_gives_back(&mut self, app: &AppName, state: &State, id: &str, before: &Serves, now: &Snapshot) {
        let total = self.wanted(app, state, now).get(id).copied().unwrap_or(0);
        let stable = self.stable(app).get(id).cloned().unwrap_or_default();
        let (had, has) = (share(before, now, &stable), share(&self.proxied, now, &stable));
        let told = self.told.snapshot();
        let ready = |is_stable: bool| {
            let count = |snapshot: &Snapshot| {
                let all = snapshot.of_workload("pods", app.as_str(), id);
                all.filter(|pod| (label(pod, labels::DIGEST) == stable) == is_stable && is_ready(pod)).count() as u64
            };
            count(now).max(count(&told))
        };
        let could_stay = (100 - had).min(ready(false) * 100 / total.max(1));
        // Whole weights come near a share.
        if has > had && ready(true) * 100 < total * has.saturating_sub(1) && 100 - has < could_stay {
            let what = format!("{has} % of the requests, and {} of {total} pods are there", ready(true));
            self.violated(3, format_args!("{}: stable of {id} gets {what}, by the proxy", state.plan.rollout));
        }
    }

    /// No pod that gets requests by a proxy goes.
    pub(super) fn proxied_stay(&mut self, before: &Snapshot, now: &Snapshot, by: &str) {
        let there = |pod: &Value| now.pods().any(|one| uid(one) == uid(pod) && !is_terminating(one));
        let gone: Vec<String> = before
            .pods()
            .filter(|pod| self.proxied.contains_key(&format!("{OURS}{}", name(pod))))
            .filter(|pod| is_ready(pod) && !is_terminating(pod) && !there(pod))
            .map(|pod| name(pod).to_owned())
            .collect();
        for pod in gone {
            self.violated(3, format_args!("{pod} goes, and the proxy sends to it, by {by}"));
        }
    }
}
