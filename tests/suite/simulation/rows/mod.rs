//! The rows of the list of faults that the simulation shows, by group. Each asserts the row's outcome; the checker
//! judges every step besides.

mod api_server;
mod leaders;
mod many;
mod policies;
mod process;
mod release;
mod repository;
mod rerouted;
mod routers;
mod starts;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use locktender::{
    core::{cluster::Write, ledger::Event, rollout::labels},
    sandbox::world::World,
};
use serde_json::{Value, json};

use super::{
    Sim,
    cluster::Written,
    rollouts::{DEPLOYMENT, installed, manifest},
};

/// 1.9 is installed, and 2.0 merged.
async fn merged() -> Sim {
    let sim = installed().await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim
}

async fn recorded(sim: &Sim, number: u32, event: Event, stage: &str) {
    if let Err(why) = sim.recorded("checkout", number, event, stage, 1).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

async fn confirm(sim: &Sim, number: u32, stage: &str) {
    recorded(sim, number, Event::StageWaiting, stage).await;
    let path = format!("rollouts/checkout/{number:04}/confirm/{stage}.yaml");
    sim.git.commit(&format!("confirm {stage}"), &[(&path, Some(""))]);
}

/// Confirms what is left, and waits until it is done.
async fn completed(sim: &Sim, number: u32) {
    confirm(sim, number, "beta").await;
    confirm(sim, number, "batch-1").await;
    recorded(sim, number, Event::Completed, "batch-2").await;
    sim.pass(Duration::from_secs(10)).await;
}

async fn aborted(sim: &Sim, number: u32) {
    recorded(sim, number, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(10)).await;
}

fn decide(sim: &Sim, number: u32, file: &str, text: &str) {
    sim.git.commit(file, &[(&format!("rollouts/checkout/{number:04}/{file}"), Some(text))]);
}

fn has(sim: &Sim, number: u32, event: Event) -> bool {
    sim.records("checkout", number).iter().any(|record| record.event == event)
}

fn list(sim: &Sim, resource: &str) -> Vec<Arc<Value>> {
    sim.cluster.with(|world| world.api.list(resource).cloned().collect())
}

fn pods(sim: &Sim) -> Vec<Arc<Value>> {
    list(sim, "pods")
}

/// How many pods there are at a tag.
fn at(sim: &Sim, tag: &str) -> usize {
    let end = format!(":{tag}");
    let is_at = |pod: &&Arc<Value>| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|it| it.ends_with(&end));
    pods(sim).iter().filter(is_at).count()
}

fn in_service(sim: &Sim) -> usize {
    pods(sim).iter().filter(|pod| pod["metadata"]["labels"][labels::IN_SERVICE] == "true").count()
}

fn written(sim: &Sim) -> Vec<Written> {
    sim.cluster.state.lock().unwrap().written.clone()
}

/// How often images were patched, by pod.
fn image_patches(sim: &Sim) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in written(sim).iter().filter(|one| one.result.is_ok()) {
        if let Write::Patch { key, body, .. } = &one.write
            && body.pointer("/spec/containers").is_some()
        {
            *counts.entry(key.name.clone()).or_default() += 1;
        }
    }
    counts
}

fn each_once(sim: &Sim) {
    let patches = image_patches(sim);
    assert_eq!(patches.len(), 10, "every pod was changed: {patches:?}");
    assert!(patches.values().all(|count| *count == 1), "none was changed twice: {patches:?}");
}

/// A person changes an object with `kubectl patch`.
pub fn person_patches(sim: &Sim, resource: &str, name: &str, body: Value) {
    sim.cluster.with(|world| person_patches_in(world, resource, name, body));
}

/// The same, in a world.
pub fn person_patches_in(world: &mut World, resource: &str, name: &str, body: Value) {
    use locktender::sandbox::api::{PatchKind, PatchRequest, WriteOptions};
    let request = PatchRequest {
        resource: resource.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        subresource: None,
        kind: PatchKind::Merge,
        body,
        force: false,
        options: WriteOptions { manager: "kubectl-edit".to_owned(), ..WriteOptions::default() },
    };
    world.api.patch(request).unwrap();
}

fn pod_name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
