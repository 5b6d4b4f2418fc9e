//! Deployments: ReplicaSets for each template, scaled against each other.
//!
//! Source of the rules: `pkg/controller/deployment`, above all `sync.go`, `rolling.go`, `recreate.go` and
//! `progress.go`. One look at a Deployment does the first thing that is to be done; what it changes brings the next.

mod replica_sets;
mod scale;
mod status;

use std::sync::Arc;

use serde_json::Value;

use super::{Change, Controller, Outcome, View, owned, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    selector, value,
    write::Write,
};

pub use replica_sets::template_hash;
use replica_sets::{Family, Member};

/// Keeps Deployments.
#[derive(Debug)]
pub struct DeploymentController {
    resource: Arc<str>,
}

impl Default for DeploymentController {
    fn default() -> Self {
        Self { resource: "deployments.apps".into() }
    }
}

impl Controller for DeploymentController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("deployments.apps") {
            return change.key().into_iter().collect();
        }
        if change.is("replicasets.apps") {
            return self.keys_of_replica_set(change, cache);
        }
        if change.is("pods") && change.now.is_none() {
            return self.keys_of_deleted_pod(change, cache);
        }
        Vec::new()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(deployment) = view.cache.at(key) else { return Outcome::default() };
        let namespace = value::namespace(deployment);
        let uid = value::uid(deployment);
        let sets = || view.cache.list("replicasets.apps", namespace);
        let mine =
            sets().filter(|set| value::controller_of(set).is_some_and(|owner| value::text(owner, &["uid"]) == uid));
        let claim = owned::claim(deployment, mine, sets().filter(|set| value::controller_of(set).is_none()));
        if !claim.writes.is_empty() {
            return claim.writes.into();
        }
        let family = Family::new(deployment, claim.pods);
        sync(deployment, family, view)
    }
}

impl DeploymentController {
    fn keys_of_replica_set(&self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        let mut keys: Vec<Key> = change.controllers_of_kind("Deployment", &self.resource).collect();
        if let Some(set) = change.now
            && value::controller_of(set).is_none()
        {
            let deployments = cache.list(&self.resource, value::namespace(set));
            let adopting = deployments
                .filter(|it| selector::selects(value::at(it, &["spec", "selector"]), selector::labels_of(set)));
            keys.extend(adopting.map(|it| Key::of(&self.resource, it)));
        }
        keys
    }

    /// A Deployment that recreates waits for the last pod of its old ReplicaSets.
    fn keys_of_deleted_pod(&self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        let resource = Arc::from("replicasets.apps");
        let sets = change.controllers_of_kind("ReplicaSet", &resource);
        let owners = sets.filter_map(|key| {
            let owner = value::controller_of(cache.at(&key)?)?;
            (owner["kind"] == "Deployment").then(|| Key {
                resource: self.resource.clone(),
                namespace: key.namespace,
                name: value::text(owner, &["name"]).to_owned(),
            })
        });
        owners.collect()
    }
}

fn sync(deployment: &Value, family: Family, view: &View<'_>) -> Outcome {
    if value::is_terminating(deployment) {
        return status::of_scaling(deployment, &family, view.now);
    }
    if let Some(write) = status::paused_condition(deployment, view.now) {
        return vec![write].into();
    }
    if let Some(write) = replica_sets::sync_new(deployment, &family, view.now) {
        return vec![write].into();
    }
    let paused = value::flag(deployment, &["spec", "paused"]);
    if paused || is_scaling_event(deployment, &family) {
        let mut writes = scale::scale(deployment, &family);
        if writes.is_empty() && paused {
            writes = replica_sets::clean_up(deployment, &family);
        }
        let mut outcome = status::of_scaling(deployment, &family, view.now);
        outcome.writes.splice(0..0, writes);
        return outcome;
    }
    match value::text(deployment, &["spec", "strategy", "type"]) {
        "Recreate" => recreate(deployment, &family, view),
        _ => roll(deployment, &family, view),
    }
}

/// A change of `replicas` shows as a difference to what the active ReplicaSets were last scaled for.
fn is_scaling_event(deployment: &Value, family: &Family) -> bool {
    let wanted = replicas(deployment);
    family.active().any(|set| set.desired_annotation().is_some_and(|desired| desired != wanted))
}

fn roll(deployment: &Value, family: &Family, view: &View<'_>) -> Outcome {
    if family.new.is_none() {
        return create_new(deployment, family, view);
    }
    let mut writes = scale::grow_new(deployment, family);
    if writes.is_empty() {
        writes = scale::shrink_old(deployment, family);
    }
    finish(deployment, family, writes, view)
}

fn recreate(deployment: &Value, family: &Family, view: &View<'_>) -> Outcome {
    let active_old = family.old.iter().filter(|set| set.replicas > 0);
    let writes: Vec<_> = active_old.map(|set| set.scaled(0, deployment)).collect();
    if !writes.is_empty() || family.old.iter().any(|set| has_running_pods(set, view.cache)) {
        return finish(deployment, family, writes, view);
    }
    let Some(new) = &family.new else { return create_new(deployment, family, view) };
    let wanted = replicas(deployment);
    let writes = if new.replicas == wanted { Vec::new() } else { vec![new.scaled(wanted, deployment)] };
    finish(deployment, family, writes, view)
}

fn has_running_pods(set: &Member, cache: &Cache) -> bool {
    cache.pods_of(value::uid(&set.object)).any(|pod| !pods::is_finished(pod))
}

fn create_new(deployment: &Value, family: &Family, view: &View<'_>) -> Outcome {
    let name = replica_sets::new_name(deployment);
    if view.cache.get("replicasets.apps", value::namespace(deployment), &name).is_some() {
        return vec![status::collision(deployment)].into();
    }
    let mut writes = vec![Write::Create(replica_sets::new_set(deployment, family))];
    writes.extend(status::created_condition(deployment, &name, view.now));
    writes.into()
}

fn finish(deployment: &Value, family: &Family, mut writes: Vec<Write>, view: &View<'_>) -> Outcome {
    if writes.is_empty() && status::is_complete(deployment, &deployment["status"]) {
        writes = replica_sets::clean_up(deployment, family);
    }
    let mut outcome = status::of_rollout(deployment, family, view.now);
    outcome.writes.splice(0..0, writes);
    outcome
}

fn replicas(deployment: &Value) -> i64 {
    value::number_or(deployment, &["spec", "replicas"], 1)
}

fn is_rolling(deployment: &Value) -> bool {
    value::text(deployment, &["spec", "strategy", "type"]) != "Recreate"
}

fn max_surge(deployment: &Value) -> i64 {
    if !is_rolling(deployment) {
        return 0;
    }
    let surge = value::at(deployment, &["spec", "strategy", "rollingUpdate", "maxSurge"]);
    value::int_or_percent(surge, replicas(deployment), true, "25%")
}

/// Counts what may be missing; never more than there is, and one where both bounds come out as 0.
fn max_unavailable(deployment: &Value) -> i64 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) || wanted == 0 {
        return 0;
    }
    let bound = value::at(deployment, &["spec", "strategy", "rollingUpdate", "maxUnavailable"]);
    let unavailable = value::int_or_percent(bound, wanted, false, "25%");
    if unavailable == 0 && max_surge(deployment) == 0 { 1 } else { unavailable.min(wanted) }
}
