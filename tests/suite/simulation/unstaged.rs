//! Applications without a policy: what is written names the record that it is written under, and nothing is written
//! besides.

use std::time::Duration;

use locktender::core::{
    cluster::Write,
    ledger::Event,
    manifest::Object,
    rollout::{labels, report::Reason},
};
use serde_json::json;

use super::{
    Sim,
    faults::WriteFault,
    handover::{APP_FILE, BARE},
    rollouts::{DEPLOYMENT, manifest},
};

async fn recorded(sim: &Sim, number: u32, event: Event, stage: &str) {
    if let Err(why) = sim.recorded("checkout", number, event, stage, 1).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

/// 1.9 runs.
async fn installed() -> Sim {
    let sim = Sim::new(&[(APP_FILE, BARE), (DEPLOYMENT, &manifest("1.9"))]);
    recorded(&sim, 1, Event::Completed, "all").await;
    sim.pass(Duration::from_secs(10)).await;
    sim
}

fn merge(sim: &Sim, tag: &str) {
    sim.git.commit(&format!("checkout {tag}"), &[(DEPLOYMENT, Some(&manifest(tag)))]);
}

fn writes(sim: &Sim) -> Vec<Write> {
    sim.cluster.state.lock().unwrap().written.iter().map(|one| one.write.clone()).collect()
}

fn deployment(sim: &Sim) -> Object {
    sim.cluster
        .with(|world| Object(serde_json::Value::clone(&world.api.get("deployments.apps", "shop", "checkout").unwrap())))
}

fn image(object: &Object) -> &str {
    object.0["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn has_anchor(sim: &Sim) -> bool {
    sim.cluster.with(|world| world.api.get("configmaps", "shop", "locktender-checkout").is_some())
}

#[tokio::test(start_paused = true)]
async fn an_image_changed_is_one_write_which_names_its_record() {
    let sim = installed().await;
    let before = writes(&sim).len();
    merge(&sim, "2.0");
    recorded(&sim, 2, Event::Completed, "all").await;
    sim.pass(Duration::from_secs(120)).await;
    let since = &writes(&sim)[before..];
    assert_eq!(since.len(), 1, "{since:?}");
    let started = sim.records("checkout", 2).into_iter().find(|record| record.event == Event::StageStarted).unwrap();
    let live = deployment(&sim);
    assert!(image(&live).ends_with(":2.0"));
    assert_eq!(live.annotation(labels::RECORD), Some(format!("checkout/0002 {}", started.id).as_str()));
    assert!(!has_anchor(&sim));
    sim.assert_invariants();
}

/// What comes after the workloads: only once they are available.
const INGRESS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: checkout}
spec:
  defaultBackend: {service: {name: checkout, port: {number: 80}}}
";

#[tokio::test(start_paused = true)]
async fn objects_are_applied_in_order_and_a_group_that_is_not_healthy_holds_the_next_and_says_so() {
    let notes = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {colour: blue}\n";
    let files = [
        (APP_FILE, BARE),
        (DEPLOYMENT, &manifest("1.9-never-ready")),
        ("apps/checkout/notes.yaml", notes),
        ("apps/checkout/ingress.yaml", INGRESS),
    ];
    let sim = Sim::new(&files);
    let is_there = |sim: &Sim, resource: &str, name: &str| {
        sim.cluster.with(|world| world.api.get(resource, "shop", name).is_some())
    };
    sim.pass(Duration::from_secs(3600)).await;
    assert!(is_there(&sim, "configmaps", "notes") && is_there(&sim, "deployments.apps", "checkout"));
    assert!(!is_there(&sim, "ingresses.networking.k8s.io", "checkout"), "no route to what is not available");
    let reasons = sim.report("checkout").unwrap().reasons;
    let says = |reason: &Reason| matches!(reason, Reason::NotHealthy { object, .. } if object == "Deployment/checkout");
    assert!(reasons.iter().any(says), "{reasons:?}");
    merge(&sim, "1.9");
    recorded(&sim, 2, Event::Completed, "all").await;
    let mut applied = Vec::new();
    for one in &sim.cluster.state.lock().unwrap().written {
        if let Write::Apply { object, .. } = &one.write {
            applied.push(object.text(&["kind"]).to_owned());
        }
    }
    assert_eq!(applied, ["ConfigMap", "Service", "Deployment", "Deployment", "Ingress"], "one after the other");
}

#[tokio::test(start_paused = true)]
async fn drift_is_put_back_at_once_in_one_write_which_says_so_until_it_is_recorded_and_notes_are_no_drift() {
    let sim = installed().await;
    let before = writes(&sim).len();
    // What is stable is recorded: putting it back waits for no push.
    sim.git.trouble(|trouble| trouble.refuse = Some("not now".to_owned()));
    scaled_by_hand(&sim);
    sim.pass(Duration::from_secs(5)).await;
    assert_eq!((writes(&sim).len(), deployment(&sim).number(&["spec", "replicas"])), (before + 1, Some(10)));
    assert!(sim.records("checkout", 1).iter().all(|record| record.event != Event::DriftCorrected));
    sim.git.trouble(|trouble| trouble.refuse = None);
    recorded(&sim, 1, Event::DriftCorrected, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(writes(&sim).len(), before + 1);
    let record = sim.records("checkout", 1).pop().unwrap();
    let live = deployment(&sim);
    assert_eq!(
        live.annotation(labels::PUT_BACK),
        Some(format!("checkout/0001 {}", record.evidence.objects[0]).as_str())
    );
    let removed = json!({ "metadata": { "annotations": { labels::RECORD: null, labels::PUT_BACK: null } } });
    super::rows::person_patches(&sim, "deployments.apps", "checkout", removed);
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(writes(&sim).len(), before + 1);
    sim.settled();
}

#[tokio::test(start_paused = true)]
async fn fault_79_drift_that_was_put_back_is_recorded_also_by_who_comes_after_a_crash() {
    let sim = installed().await;
    sim.faults.once(WriteFault::CrashAfter, |write| write.contains("Deployment/checkout"));
    scaled_by_hand(&sim);
    recorded(&sim, 1, Event::DriftCorrected, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(sim.faults.crashes(), 1);
    let corrected = sim.records("checkout", 1).into_iter().filter(|record| record.event == Event::DriftCorrected);
    assert_eq!(corrected.count(), 1);
    sim.settled();
}

#[tokio::test(start_paused = true)]
async fn fault_79_while_git_is_away_nothing_is_put_back() {
    let sim = installed().await;
    let before = writes(&sim).len();
    sim.git.trouble(|trouble| trouble.away = true);
    sim.git.commit("README", &[("README.md", Some("away"))]);
    sim.pass(Duration::from_secs(120)).await;
    scaled_by_hand(&sim);
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(writes(&sim).len(), before);
    sim.git.trouble(|trouble| trouble.away = false);
    recorded(&sim, 1, Event::DriftCorrected, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(writes(&sim).len(), before + 1);
    sim.settled();
}

fn scaled_by_hand(sim: &Sim) {
    super::rows::person_patches(sim, "deployments.apps", "checkout", json!({ "spec": { "replicas": 1 } }));
}

/// The remote lags behind when the controller comes back: what was written tells what was pushed and acted on.
#[tokio::test(start_paused = true)]
async fn fault_03_killed_after_acting_on_a_push_that_the_remote_does_not_show_without_a_policy() {
    let sim = installed().await;
    merge(&sim, "2.0");
    recorded(&sim, 2, Event::Completed, "all").await;
    sim.pass(Duration::from_secs(10)).await;
    let git = sim.git.clone();
    let shows = sim.git.tip_now();
    sim.faults.once(WriteFault::CrashAfter, move |write| {
        let now = write.contains("Deployment/checkout");
        if now {
            git.trouble(|trouble| trouble.stale = shows.clone());
        }
        now
    });
    merge(&sim, "3.0");
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(sim.faults.crashes(), 1);
    assert!(image(&deployment(&sim)).ends_with(":3.0"), "nothing is repeated: {}", image(&deployment(&sim)));
    sim.git.trouble(|trouble| trouble.stale = None);
    recorded(&sim, 3, Event::Completed, "all").await;
    sim.pass(Duration::from_secs(10)).await;
    let applied = writes(&sim)
        .iter()
        .filter(|write| matches!(write, Write::Apply { object, .. } if image(object).ends_with(":3.0")))
        .count();
    assert_eq!(applied, 1);
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn what_runs_while_git_goes_away_gets_an_anchor_so_that_it_can_be_aborted_without_git() {
    let mut sim = installed().await;
    merge(&sim, "2.0-never-ready");
    recorded(&sim, 2, Event::StageStarted, "all").await;
    sim.pass(Duration::from_secs(120)).await;
    assert!(!has_anchor(&sim));
    sim.git.trouble(|trouble| trouble.away = true);
    sim.pass(Duration::from_secs(60)).await;
    assert!(has_anchor(&sim));
    sim.kill();
    sim.git.lose_mirror();
    sim.start();
    super::going_back::abort_now(&sim);
    sim.pass(Duration::from_secs(120)).await;
    assert!(image(&deployment(&sim)).ends_with(":1.9"), "{}", image(&deployment(&sim)));
    sim.git.trouble(|trouble| trouble.away = false);
    recorded(&sim, 2, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(10)).await;
    sim.assert_invariants();
}
