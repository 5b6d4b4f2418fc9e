//! Proof that the checker can fail: each invariant, broken on purpose, is seen.

use std::time::Duration;

use locktender::core::{
    cluster::{PatchType, Write},
    ledger::{Draft, Event, Record, journal},
    manifest::Object,
    names::AppName,
    rollout::{labels, plan},
};
use serde_json::{Value, json};

use super::{Pushed, Snapshot};
use crate::simulation::{
    Sim,
    exhaustive::{self, Scenario},
    rollouts::{self, DEPLOYMENT, confirm, installed, manifest, waits},
};

/// A release that waits at its beta group, its controller gone: what happens now is ours.
async fn at_beta() -> Sim {
    let mut sim = installed().await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim.until("checkout", "waiting at beta", |report| waits(report, "beta")).await;
    sim.kill();
    sim
}

fn violated(sim: &Sim, invariant: u8) {
    let found = sim.checker.lock().unwrap().take();
    let wanted = format!("invariant {invariant}: ");
    assert!(found.iter().any(|one| one.starts_with(&wanted)), "{invariant} is not among {found:#?}");
}

fn objects(sim: &Sim, resource: &str, api_version: &str, kind: &str) -> Vec<Object> {
    let found: Vec<Value> = sim.cluster.with(|world| world.api.list(resource).map(|one| Value::clone(one)).collect());
    found
        .into_iter()
        .map(|mut object| {
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            Object(object)
        })
        .collect()
}

fn pods(sim: &Sim) -> Vec<Object> {
    objects(sim, "pods", "v1", "Pod")
}

fn patch(object: &Object, body: Value) -> Write {
    Write::Patch {
        kind: object.kind(),
        key: object.key(),
        uid: object.uid().to_owned(),
        resource_version: None,
        patch: PatchType::Strategic,
        body,
        subresource: None,
    }
}

fn push(sim: &Sim, records: &[Record]) {
    let app = AppName::new("checkout");
    let mut checker = sim.checker.lock().unwrap();
    let state = checker.rollouts(&app).unwrap().values().next_back().unwrap().clone();
    let directory = state.plan.rollout.directory();
    let (plan_path, journal_path) = (format!("{directory}/plan.yaml"), format!("{directory}/journal.yaml"));
    let (plan, journal) = (plan::write(&state.plan), journal::write(records));
    let files = vec![(plan_path.as_str(), Some(plan.as_str())), (journal_path.as_str(), Some(journal.as_str()))];
    let now = sim.cluster.with(|world| Snapshot::of_world(world));
    checker.pushed(&Pushed { files, decisions: Default::default(), told: Default::default() }, &now);
}

fn next(records: &[Record], draft: Draft) -> Record {
    let last = records.last().unwrap();
    Record::chain(draft, last.seq + 1, last.time, last.head.clone(), last.id)
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_starts_with_its_gate_closed_is_seen() {
    let sim = at_beta().await;
    let mut records = sim.records("checkout", 2);
    records.push(next(&records, Draft::new(Event::StageStarted, Some(&"batch-1".into()), "nobody confirmed")));
    push(&sim, &records);
    violated(&sim, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_is_skipped_is_seen() {
    let sim = at_beta().await;
    let mut records = sim.records("checkout", 2);
    records.push(next(&records, Draft::new(Event::StageStarted, Some(&"batch-2".into()), "in a hurry")));
    push(&sim, &records);
    violated(&sim, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_beyond_the_quota_is_seen_whatever_its_label_says() {
    let sim = at_beta().await;
    let old = pods(&sim).into_iter().find(|pod| super::snapshot::image(&pod.0).ends_with(":1.9")).unwrap();
    let body = json!({ "spec": { "containers": [{ "name": "app", "image": "registry.example/checkout:2.0" }] } });
    sim.cluster.judged(&patch(&old, body)).unwrap();
    violated(&sim, 2);
}

#[tokio::test(start_paused = true)]
async fn too_many_pods_out_of_service_are_seen() {
    let sim = at_beta().await;
    for pod in pods(&sim).iter().take(3) {
        let body = json!({ "metadata": { "labels": { labels::IN_SERVICE: null } } });
        sim.cluster.judged(&patch(pod, body)).unwrap();
    }
    violated(&sim, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_taken_away_in_place_is_seen() {
    let sim = at_beta().await;
    let slices = objects(&sim, "replicasets.apps", "apps/v1", "ReplicaSet");
    sim.cluster.judged(&patch(&slices[0], json!({ "spec": { "replicas": 4 } }))).unwrap();
    violated(&sim, 7);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_changes_its_node_is_seen() {
    let sim = at_beta().await;
    let mut lists: std::collections::BTreeMap<String, Vec<std::sync::Arc<Value>>> = Default::default();
    let mut pod = pods(&sim).remove(0);
    pod.set(&["spec", "nodeName"], json!("elsewhere"));
    lists.insert("pods".to_owned(), vec![pod.0.into()]);
    sim.checker.lock().unwrap().stepped(&Snapshot::of(lists));
    violated(&sim, 7);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_lost_is_seen() {
    let sim = at_beta().await;
    let mut records = sim.records("checkout", 2);
    records.pop();
    push(&sim, &records);
    violated(&sim, 5);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_doubled_is_seen() {
    let sim = at_beta().await;
    let mut records = sim.records("checkout", 2);
    records.push(next(&records, Draft::new(Event::StageWaiting, Some(&"beta".into()), "again")));
    push(&sim, &records);
    violated(&sim, 5);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_no_record_explains_is_seen() {
    let mut sim = rollouts::checkout();
    sim.kill();
    let namespace = Object(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }));
    sim.cluster.judged(&Write::Create { object: namespace }).unwrap();
    let object = Object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "early", "namespace": "shop", "labels": { labels::APP: "checkout" } },
    }));
    sim.cluster.judged(&Write::Apply { object, force: true, manager: None }).unwrap();
    violated(&sim, 6);
}

/// Puts a ConfigMap back that was seen as absent, or as it is now.
fn puts_back(sim: &Sim) {
    let live = sim.cluster.with(|world| world.api.get("configmaps", "shop", "notes").map(|live| Value::clone(&live)));
    let mut object = Object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "notes", "namespace": "shop", "labels": { labels::APP: "checkout" } },
    }));
    let seen = match &live {
        Some(live) => {
            object.set(&["metadata", "resourceVersion"], live["metadata"]["resourceVersion"].clone());
            live["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
        }
        None => "absent".to_owned(),
    };
    object.set(&["metadata", "annotations", labels::PUT_BACK], json!(format!("checkout/0001 ConfigMap/notes@{seen}")));
    sim.cluster.judged(&Write::Apply { object, force: true, manager: None }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_put_back_and_never_recorded_is_seen() {
    let mut sim = installed().await;
    sim.kill();
    puts_back(&sim);
    sim.assert_invariants();
    sim.checker.lock().unwrap().settled();
    violated(&sim, 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_put_back_twice_before_it_is_recorded_is_seen() {
    let mut sim = installed().await;
    sim.kill();
    puts_back(&sim);
    puts_back(&sim);
    violated(&sim, 6);
}

#[tokio::test(start_paused = true)]
async fn evidence_that_is_not_so_is_seen() {
    let mut sim = installed().await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    sim.kill();
    let mut records = sim.records("checkout", 2);
    let waiting = records.pop().unwrap();
    assert_eq!(waiting.event, Event::StageWaiting);
    let mut checker = sim.checker.lock().unwrap();
    let app = AppName::new("checkout");
    let mut claimed = waiting.evidence.pods.clone();
    claimed[0].uid = "nobody".to_owned();
    let draft = Draft::new(Event::Resumed, None, "says what is not so").with(|evidence| evidence.pods = claimed);
    let state = checker.rollouts(&app).unwrap().values().next_back().unwrap().clone();
    let mut told = state.records.clone();
    told.push(next(&told, draft));
    drop(checker);
    push(&sim, &told);
    checker = sim.checker.lock().unwrap();
    assert!(checker.violations().iter().any(|one| one.starts_with("invariant 6")), "{:?}", checker.violations());
    checker.take();
}

/// A switch that waits for its confirm, both sides in full, its controller gone; and the version that is looked at.
async fn at_preview() -> (Sim, Object, String) {
    let mut sim = Scenario::BlueGreen.prepare().await.unwrap();
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&exhaustive::manifest("2.0")))]);
    sim.until("checkout", "waiting at preview", |report| waits(report, "preview")).await;
    sim.kill();
    let services = objects(&sim, "services", "v1", "Service");
    let named = |name: &str| services.iter().find(|service| service.name() == name).unwrap().clone();
    let version = named("checkout-preview").label(labels::DIGEST).unwrap().to_owned();
    (sim, named("checkout"), version)
}

#[tokio::test(start_paused = true)]
async fn requests_that_reach_a_version_before_its_stage_are_seen() {
    let (sim, service, version) = at_preview().await;
    sim.cluster.judged(&patch(&service, json!({ "spec": { "selector": { labels::DIGEST: version } } }))).unwrap();
    violated(&sim, 3);
}

#[tokio::test(start_paused = true)]
async fn requests_that_reach_two_versions_at_once_are_seen() {
    let (sim, service, _) = at_preview().await;
    sim.cluster.judged(&patch(&service, json!({ "spec": { "selector": { labels::DIGEST: null } } }))).unwrap();
    violated(&sim, 3);
}

/// A canary by a gateway that waits at 60 %, stable scaled down to three of six, its controller gone.
async fn at_sixty() -> Sim {
    let mut sim = Scenario::ScaledBack.prepare().await.unwrap();
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&exhaustive::manifest("2.0")))]);
    confirm(&mut sim, 2, "weight-20").await;
    sim.until("checkout", "waiting at weight-60", |report| waits(report, "weight-60")).await;
    sim.pass(Duration::from_secs(10)).await;
    sim.kill();
    sim.assert_invariants();
    sim
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_stable_that_its_share_needs_is_missed() {
    let sim = at_sixty().await;
    let stable: Vec<Object> =
        pods(&sim).into_iter().filter(|pod| super::snapshot::image(&pod.0).ends_with(":1.9")).collect();
    assert_eq!(stable.len(), 3);
    sim.cluster.judged(&patch(&stable[0], json!({ "metadata": { "labels": { labels::IN_SERVICE: null } } }))).unwrap();
    violated(&sim, 3);
}

#[tokio::test(start_paused = true)]
async fn requests_that_return_before_the_pods_do_are_seen() {
    let sim = at_sixty().await;
    let routes = objects(&sim, crate::simulation::gateway::ROUTES, "gateway.networking.k8s.io/v1", "HTTPRoute");
    let backends = json!([{ "name": "checkout", "port": 80, "weight": 100 }]);
    let body = json!({ "spec": { "rules": [{ "backendRefs": backends }] } });
    let Write::Patch { kind, key, uid, resource_version, body, subresource, .. } = patch(&routes[0], body) else {
        unreachable!()
    };
    let merge = Write::Patch { kind, key, uid, resource_version, patch: PatchType::Merge, body, subresource };
    sim.cluster.judged(&merge).unwrap();
    violated(&sim, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_workload_that_the_plan_does_not_have_is_seen() {
    let sim = at_beta().await;
    let mut other = pods(&sim).remove(0);
    let body = json!({ "metadata": { "labels": { labels::WORKLOAD: "other" } } });
    super::super::rows::person_patches(&sim, "pods", other.name(), body);
    other = pods(&sim).into_iter().find(|pod| pod.name() == other.name()).unwrap();
    let delete = Write::Delete {
        kind: other.kind(),
        key: other.key(),
        uid: other.uid().to_owned(),
        resource_version: None,
        orphan: false,
    };
    sim.cluster.judged(&delete).unwrap();
    violated(&sim, 6);
}

#[tokio::test(start_paused = true)]
async fn a_write_before_the_first_gate_is_seen() {
    let mut sim = installed().await;
    sim.git.commit("gone", &[("apps/checkout/app.yaml", None), (DEPLOYMENT, None)]);
    sim.until("checkout", "waiting at start", |report| waits(report, "start")).await;
    sim.kill();
    let body = json!({ "metadata": { "labels": { labels::IN_SERVICE: null } } });
    sim.cluster.judged(&patch(&pods(&sim)[0], body)).unwrap();
    violated(&sim, 6);
}
