//! Deployments that ran before are taken over, are given back, and get other units: no pod restarts, and at no moment a
//! Service has fewer endpoints.

use std::time::Duration;

use locktender::{core::ledger::Event, core::rollout::labels, sandbox::api::EventKind};
use serde_json::{Value, json};

use super::{
    Sim,
    checker::{Snapshot, is_ready},
    rollouts::{APP, DEPLOYMENT, POLICY, manifest},
};

pub const APP_FILE: &str = "apps/checkout/app.yaml";
pub const POLICY_FILE: &str = "policies/two-data-centers.yaml";

/// The application without a policy.
pub const BARE: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: checkout}
spec: {namespace: shop}
";

/// A policy with two units, and as many pods in each as the scheduler puts there by itself.
fn two_units() -> String {
    POLICY.replace("units: [dca, dcb]", "units: [dca, dcb]\n        unitReplicas: {dca: 6}")
}

/// The same policy with one unit, unnamed.
fn flat() -> String {
    let start = POLICY.find("      topology:").unwrap();
    let end = POLICY.find("      beta:").unwrap();
    format!("{}{}", &POLICY[..start], &POLICY[end..])
}

/// What is watched of a world from a moment on.
#[derive(Clone, Copy)]
pub struct Since(u64);

impl Since {
    pub fn now(sim: &Sim) -> Self {
        Self(sim.cluster.with(|world| world.api.revision()))
    }

    /// Says what happened to pods and endpoints that should not have: a pod came or went, or a Service had fewer
    /// endpoints than `least`.
    pub fn disturbed(self, sim: &Sim, least: usize) -> Vec<String> {
        sim.cluster.with(|world| {
            let mut wrong = Vec::new();
            let events = world.api.events_since(self.0).unwrap();
            for event in events {
                let name = event.object["metadata"]["name"].as_str().unwrap_or_default();
                match (&*event.resource, event.kind) {
                    ("pods", EventKind::Added) => wrong.push(format!("pod {name} is made")),
                    ("pods", EventKind::Deleted) => wrong.push(format!("pod {name} is gone")),
                    ("endpointslices.discovery.k8s.io", kind) => {
                        let endpoints = event.object["endpoints"].as_array().into_iter().flatten();
                        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).count();
                        if ready < least || matches!(kind, EventKind::Deleted) {
                            wrong.push(format!("{name} has {ready} endpoints"));
                        }
                    }
                    _ => {}
                }
            }
            wrong
        })
    }

    fn undisturbed(self, sim: &Sim) {
        assert_eq!(self.disturbed(sim, 10), Vec::<String>::new(), "{}", sim.git.subjects().join("\n"));
    }
}

/// Whose a workload's pods are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The Deployment's own, as any Deployment's.
    Its,
    /// Locktender's, as a policy says.
    Ours,
    /// Neither.
    Between,
}

/// Says whose the only Deployment's pods are, and its Service's with them.
pub fn whose(sim: &Sim) -> Whose {
    let (handle, service) = (handle(sim), list(sim, "services").remove(0));
    let notes = &handle["metadata"]["annotations"];
    let is_whole = handle["status"]["readyReplicas"] == handle["spec"]["replicas"];
    let in_service = &service["spec"]["selector"][labels::IN_SERVICE];
    match (notes[labels::ROLLOUT].is_string(), in_service == "true") {
        _ if !notes[labels::REGROUPING].is_null() => Whose::Between,
        (true, true) => Whose::Ours,
        (false, false) if is_whole && handle["spec"]["paused"] != true => Whose::Its,
        _ => Whose::Between,
    }
}

async fn recorded(sim: &Sim, number: u32, event: Event, stage: &str) {
    if let Err(why) = sim.recorded("checkout", number, event, stage, 1).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

async fn settled(sim: &Sim, number: u32, stage: &str) {
    recorded(sim, number, Event::Completed, stage).await;
    sim.pass(Duration::from_secs(60)).await;
    let reasons = sim.report("checkout").unwrap().reasons;
    assert!(reasons.is_empty(), "{reasons:?}");
}

/// 1.9 runs without a policy.
async fn bare() -> Sim {
    bare_with(&manifest("1.9")).await
}

async fn bare_with(text: &str) -> Sim {
    let sim = Sim::new(&[(APP_FILE, BARE), (DEPLOYMENT, text)]);
    settled(&sim, 1, "all").await;
    sim
}

/// 1.9 runs under a policy.
async fn staged(policy: &str) -> Sim {
    let sim = Sim::new(&[(POLICY_FILE, policy), (APP_FILE, APP), (DEPLOYMENT, &manifest("1.9"))]);
    recorded(&sim, 1, Event::StageWaiting, "beta").await;
    promote(&sim, 1);
    sim.pass(Duration::from_secs(300)).await;
    assert!(has(&sim, 1, Event::Completed));
    sim
}

fn has(sim: &Sim, number: u32, event: Event) -> bool {
    sim.records("checkout", number).iter().any(|record| record.event == event)
}

fn promote(sim: &Sim, number: u32) {
    decide(sim, number, "promote.yaml");
}

fn decide(sim: &Sim, number: u32, file: &str) {
    sim.git.commit(file, &[(&format!("rollouts/checkout/{number:04}/{file}"), Some(""))]);
}

fn stage_it(sim: &Sim, policy: &str) {
    sim.git.commit("stage it", &[(POLICY_FILE, Some(policy)), (APP_FILE, Some(APP))]);
}

fn list(sim: &Sim, resource: &str) -> Vec<Value> {
    sim.cluster.with(|world| world.api.list(resource).map(|one| Value::clone(one)).collect())
}

fn handle(sim: &Sim) -> Value {
    list(sim, "deployments.apps").remove(0)
}

/// Ready pods in a Service's endpoints, by image tag and unit: `1.9 dca: 5`.
fn told(sim: &Sim) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let snapshot = sim.cluster.with(|world| Snapshot::of_world(world));
    for pod in snapshot.pods().filter(|pod| is_ready(pod)) {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        let unit = pod["metadata"]["labels"][labels::UNIT].as_str().unwrap_or("-");
        *counts.entry(format!("{} {unit}", image.rsplit(':').next().unwrap())).or_default() += 1;
    }
    counts.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
}

fn slices(sim: &Sim) -> usize {
    list(sim, "replicasets.apps").len()
}

/// The Deployment is one like any other: it owns its pods, and nothing is noted on it.
fn is_given_back(sim: &Sim) {
    let handle = handle(sim);
    assert_ne!(handle["spec"]["paused"], true);
    assert!(handle["metadata"]["annotations"][labels::ROLLOUT].is_null(), "{handle:#}");
    assert!(handle["metadata"]["annotations"][labels::REGROUPING].is_null());
    assert_eq!(handle["status"]["readyReplicas"], handle["spec"]["replicas"], "{handle:#}");
    let service = list(sim, "services").into_iter().find(|one| one["metadata"]["name"] == "checkout").unwrap();
    assert!(service["spec"]["selector"][labels::IN_SERVICE].is_null(), "its Service selects what Git says");
}

fn is_staged(sim: &Sim, units: usize) {
    let handle = handle(sim);
    assert!(!handle["metadata"]["annotations"][labels::ROLLOUT].is_null());
    assert!(handle["metadata"]["annotations"][labels::REGROUPING].is_null());
    let sets: Vec<Value> = list(sim, "replicasets.apps").iter().map(|set| set["metadata"]["labels"].clone()).collect();
    assert_eq!(sets.len(), units, "{sets:#?}\n{}", sim.git.subjects().join("\n"));
    assert_eq!(handle["spec"]["paused"] == true, units > 1);
    let service = list(sim, "services").into_iter().find(|one| one["metadata"]["name"] == "checkout").unwrap();
    assert_eq!(service["spec"]["selector"][labels::IN_SERVICE], "true");
}

/// 2.0 is released in stages.
async fn releases_staged(sim: &Sim, number: u32, units: usize) {
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(sim, number, Event::StageWaiting, "beta").await;
    sim.pass(Duration::from_secs(30)).await;
    assert!(told(sim).contains("1.9"), "the beta group alone: {}", told(sim));
    promote(sim, number);
    sim.pass(Duration::from_secs(300)).await;
    assert!(has(sim, number, Event::Completed));
    is_staged(sim, units);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_taken_over_in_one_unit() {
    let sim = bare().await;
    let since = Since::now(&sim);
    stage_it(&sim, &flat());
    settled(&sim, 2, "beta").await;
    since.undisturbed(&sim);
    is_staged(&sim, 1);
    releases_staged(&sim, 3, 1).await;
    assert_eq!(told(&sim), "2.0 -: 10");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_taken_over_in_two_units() {
    let sim = bare().await;
    let since = Since::now(&sim);
    stage_it(&sim, &two_units());
    settled(&sim, 2, "beta").await;
    since.undisturbed(&sim);
    is_staged(&sim, 2);
    assert_eq!(told(&sim), "1.9 dca: 6, 1.9 dcb: 4");
    releases_staged(&sim, 3, 2).await;
}

/// A pod that was seen last before its ReplicaSet went is not gone: none is made in its place.
#[tokio::test(start_paused = true)]
async fn pods_that_are_seen_late_while_they_are_taken_over_are_not_made_twice() {
    for step in 0..8 {
        let sim = bare().await;
        let since = Since::now(&sim);
        stage_it(&sim, &two_units());
        sim.pass(Duration::from_millis(100 * step)).await;
        sim.cluster.hold("pods", 60);
        settled(&sim, 2, "beta").await;
        since.undisturbed(&sim);
        is_staged(&sim, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_with_a_history_is_taken_over_and_nothing_of_it_comes_back() {
    let sim = bare().await;
    for (number, tag) in [(2, "1.8"), (3, "1.9")] {
        sim.git.commit(tag, &[(DEPLOYMENT, Some(&manifest(tag)))]);
        settled(&sim, number, "all").await;
    }
    assert_eq!(slices(&sim), 2, "the one of 1.8 has no pods");
    let since = Since::now(&sim);
    stage_it(&sim, &flat());
    settled(&sim, 4, "beta").await;
    since.undisturbed(&sim);
    is_staged(&sim, 1);
}

#[tokio::test(start_paused = true)]
async fn a_history_does_not_come_back_while_its_deployment_owns_nothing() {
    let sim = bare().await;
    for (number, tag) in [(2, "1.8"), (3, "1.9")] {
        sim.git.commit(tag, &[(DEPLOYMENT, Some(&manifest(tag)))]);
        settled(&sim, number, "all").await;
    }
    let since = Since::now(&sim);
    stage_it(&sim, POLICY);
    sim.pass(Duration::from_secs(30)).await;
    if has(&sim, 4, Event::StageWaiting) {
        decide(&sim, 4, "confirm/start.yaml");
    }
    settled(&sim, 4, "beta").await;
    is_staged(&sim, 2);
    assert_eq!(told(&sim), "1.9 dca: 5, 1.9 dcb: 5");
    let moved = since.disturbed(&sim, 7).len();
    assert!(moved <= 6, "only pods that had to move: {:?}", since.disturbed(&sim, 7));
}

#[tokio::test(start_paused = true)]
async fn pods_that_must_move_to_another_unit_ask_for_a_confirm_first() {
    let sim = bare().await;
    let since = Since::now(&sim);
    let uneven = POLICY.replace("units: [dca, dcb]", "units: [dca, dcb]\n        unitReplicas: {dca: 3}");
    stage_it(&sim, &uneven);
    recorded(&sim, 2, Event::StageWaiting, "start").await;
    sim.pass(Duration::from_secs(60)).await;
    since.undisturbed(&sim);
    is_given_back(&sim);
    decide(&sim, 2, "confirm/start.yaml");
    settled(&sim, 2, "beta").await;
    is_staged(&sim, 2);
    assert_eq!(told(&sim), "1.9 dca: 3, 1.9 dcb: 7");
}

#[tokio::test(start_paused = true)]
async fn units_come_and_go_at_rest() {
    let sim = staged(&flat()).await;
    let since = Since::now(&sim);
    sim.git.commit("two units", &[(POLICY_FILE, Some(&two_units()))]);
    settled(&sim, 2, "beta").await;
    is_staged(&sim, 2);
    assert_eq!(told(&sim), "1.9 dca: 6, 1.9 dcb: 4");
    sim.git
        .commit("another label", &[(POLICY_FILE, Some(&two_units().replace("topology.kubernetes.io/zone", "zone")))]);
    sim.pass(Duration::from_secs(60)).await;
    sim.git.commit("the first label", &[(POLICY_FILE, Some(&two_units()))]);
    sim.pass(Duration::from_secs(120)).await;
    sim.git.commit("one unit", &[(POLICY_FILE, Some(&flat()))]);
    sim.pass(Duration::from_secs(300)).await;
    is_staged(&sim, 1);
    assert_eq!(told(&sim), "1.9 -: 10");
    let _ = since;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_given_back_and_taken_over_again() {
    let sim = staged(&two_units()).await;
    let since = Since::now(&sim);
    sim.git.commit("no policy", &[(APP_FILE, Some(BARE))]);
    settled(&sim, 2, "all").await;
    since.undisturbed(&sim);
    is_given_back(&sim);
    sim.pass(Duration::from_secs(1500)).await;
    since.undisturbed(&sim);
    // It rolls out by itself, also when somebody restarts it.
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    settled(&sim, 3, "all").await;
    assert_eq!(told(&sim), "2.0 -: 10");
    let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "10:00"}}});
    sim.cluster.with(|world| {
        let body = json!({"spec": {"template": template}});
        super::rows::person_patches_in(world, "deployments.apps", "checkout", body);
    });
    sim.pass(Duration::from_secs(120)).await;
    let restarted = |pod: &Value| pod["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == "10:00";
    assert!(list(&sim, "pods").iter().all(restarted));
    is_given_back(&sim);
    let since = Since::now(&sim);
    stage_it(&sim, &flat());
    settled(&sim, 4, "beta").await;
    since.undisturbed(&sim);
    is_staged(&sim, 1);
}

#[tokio::test(start_paused = true)]
async fn in_one_unit_it_is_given_back_as_well() {
    let sim = staged(&flat()).await;
    let since = Since::now(&sim);
    sim.git.commit("no policy", &[(APP_FILE, Some(BARE))]);
    settled(&sim, 2, "all").await;
    since.undisturbed(&sim);
    is_given_back(&sim);
}

#[tokio::test(start_paused = true)]
async fn taken_over_and_released_at_once_it_goes_in_batches_and_back_to_what_it_was() {
    let sim = bare().await;
    let files = [(POLICY_FILE, Some(&*two_units())), (APP_FILE, Some(APP)), (DEPLOYMENT, Some(&*manifest("2.0")))];
    let since = Since::now(&sim);
    sim.git.commit("stage it, and 2.0", &files);
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    assert_eq!(told(&sim), "1.9 dca: 5, 1.9 dcb: 3, 2.0 dca: 1, 2.0 dcb: 1");
    decide(&sim, 2, "abort.yaml");
    recorded(&sim, 2, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(told(&sim), "1.9 -: 10");
    is_given_back(&sim);
    assert_eq!(since.disturbed(&sim, 8), Vec::<String>::new(), "images changed in place, twice");
    assert_eq!(sim.git.file(APP_FILE).unwrap(), BARE, "Git is repaired");
}

#[tokio::test(start_paused = true)]
async fn a_giving_back_that_is_aborted_is_taken_over_again() {
    let sim = staged(&two_units()).await;
    let files = [(APP_FILE, Some(BARE)), (DEPLOYMENT, Some(&*manifest("2.0-never-ready")))];
    sim.git.commit("no policy, and a broken image", &files);
    recorded(&sim, 2, Event::StageStarted, "all").await;
    sim.pass(Duration::from_secs(300)).await;
    assert_eq!(list(&sim, "pods").len(), 13, "the Deployment rolls out by itself, and comes no further");
    decide(&sim, 2, "abort.yaml");
    recorded(&sim, 2, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(60)).await;
    is_staged(&sim, 2);
    assert!(told(&sim).starts_with("1.9 dca: 6, 1.9 dcb: 4"), "{}", told(&sim));
}

/// Somebody made the Deployment and its Service before there was a release repository for them.
fn made_by_hand(sim: &Sim, tag: &str) {
    use locktender::sandbox::api::WriteOptions;
    sim.cluster.with(|world| {
        let options = WriteOptions { manager: "kubectl-create".to_owned(), ..WriteOptions::default() };
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        world.api.create_with(space, &options).unwrap();
        for part in manifest(tag).split("---\n") {
            let mut object: Value = serde_yaml::from_str(part).unwrap();
            object["metadata"]["namespace"] = json!("shop");
            world.api.create_with(object, &options).unwrap();
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_somebody_made_by_hand_is_taken_over_as_it_is() {
    for (policy, units) in [(flat(), 1), (two_units(), 2)] {
        let sim = Sim::new(&[(POLICY_FILE, &policy)]);
        made_by_hand(&sim, "1.9");
        sim.pass(Duration::from_secs(60)).await;
        let since = Since::now(&sim);
        sim.git.commit("checkout", &[(APP_FILE, Some(APP)), (DEPLOYMENT, Some(&manifest("1.9")))]);
        settled(&sim, 1, "beta").await;
        since.undisturbed(&sim);
        is_staged(&sim, units);
        releases_staged(&sim, 2, units).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_must_be_what_git_says_to_be_taken_over() {
    let sim = Sim::new(&[(POLICY_FILE, &two_units())]);
    made_by_hand(&sim, "1.8");
    sim.pass(Duration::from_secs(60)).await;
    let since = Since::now(&sim);
    sim.git.commit("checkout", &[(APP_FILE, Some(APP)), (DEPLOYMENT, Some(&manifest("1.9")))]);
    sim.pass(Duration::from_secs(60)).await;
    let reasons = format!("{:?}", sim.report("checkout").unwrap().reasons);
    assert!(reasons.contains("containers[name=app].image; merge what runs first"), "{reasons}");
    since.undisturbed(&sim);
    sim.git.commit("what runs", &[(DEPLOYMENT, Some(&manifest("1.8")))]);
    settled(&sim, 1, "beta").await;
    since.undisturbed(&sim);
    is_staged(&sim, 2);
}

#[tokio::test(start_paused = true)]
async fn an_abort_of_a_first_taking_over_removes_nothing() {
    let sim = Sim::new(&[(POLICY_FILE, &two_units().replace("beta:", "minReadySeconds: 120\n      beta:"))]);
    made_by_hand(&sim, "1.9");
    sim.pass(Duration::from_secs(60)).await;
    let since = Since::now(&sim);
    sim.git.commit("checkout", &[(APP_FILE, Some(APP)), (DEPLOYMENT, Some(&manifest("1.9")))]);
    recorded(&sim, 1, Event::StageStarted, "beta").await;
    sim.pass(Duration::from_secs(20)).await;
    assert_eq!(told(&sim), "1.9 dca: 6, 1.9 dcb: 4");
    decide(&sim, 1, "abort.yaml");
    recorded(&sim, 1, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(60)).await;
    since.undisturbed(&sim);
    let handle = handle(&sim);
    assert_eq!((handle["spec"]["paused"] == true, handle["status"]["readyReplicas"].as_u64()), (false, Some(10)));
}

#[tokio::test(start_paused = true)]
async fn configuration_that_pods_taken_over_read_stays_until_the_last_of_them_is_gone() {
    let with = |tag: &str, greeting: &str| {
        let reads = "        envFrom: [{configMapRef: {name: settings}}]\n";
        let text =
            manifest(tag).replace("        ports: [{containerPort", &format!("{reads}        ports: [{{containerPort"));
        format!(
            "{text}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{greeting: {greeting}}}\n"
        )
    };
    let sim = bare_with(&with("1.9", "hello")).await;
    let settings = |sim: &Sim| {
        let maps = list(sim, "configmaps").into_iter();
        let names = maps.map(|map| map["metadata"]["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("settings")).collect::<Vec<_>>()
    };
    let since = Since::now(&sim);
    stage_it(&sim, &two_units());
    settled(&sim, 2, "beta").await;
    since.undisturbed(&sim);
    assert_eq!(settings(&sim).len(), 2, "{:?}", settings(&sim));
    sim.git.commit("another greeting", &[(DEPLOYMENT, Some(&with("1.9", "goodbye")))]);
    recorded(&sim, 3, Event::StageWaiting, "beta").await;
    assert_eq!(settings(&sim).len(), 3, "{:?}", settings(&sim));
    promote(&sim, 3);
    sim.pass(Duration::from_secs(300)).await;
    assert!(has(&sim, 3, Event::Completed));
    assert_eq!(settings(&sim).len(), 1, "what the last of them read went with them: {:?}", settings(&sim));
    // Given back its pods read the plain name: the Deployment replaces them by its own rolling update.
    sim.git.commit("no policy", &[(APP_FILE, Some(BARE))]);
    settled(&sim, 4, "all").await;
    is_given_back(&sim);
    assert_eq!(told(&sim), "1.9 -: 10");
    sim.pass(Duration::from_secs(60)).await;
}
