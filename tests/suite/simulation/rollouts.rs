//! Whole rollouts, told as transcripts.

use locktender::core::{
    ledger::Event,
    rollout::report::{Activity, Reason},
};

use super::Sim;

pub const POLICY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  progressDeadlineSeconds: 600
  strategy:
    batched:
      topology:
        unitType: topology.kubernetes.io/zone
        units: [dca, dcb]
        autoReschedule: {enable: true, initialDelaySeconds: 10}
      beta: {perUnit: 1}
      batchSize: 4
      confirm: everyBatch
      maxUnavailable: 25%
";

pub const APP: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: checkout}
spec: {namespace: shop, policy: two-data-centers}
";

pub fn manifest(tag: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: checkout}}
spec:
  replicas: 10
  selector: {{matchLabels: {{app: checkout}}}}
  template:
    metadata: {{labels: {{app: checkout}}}}
    spec:
      containers:
      - name: app
        image: registry.example/checkout:{tag}
        ports: [{{containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: checkout}}
spec:
  selector: {{app: checkout}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

pub const DEPLOYMENT: &str = "apps/checkout/deployment.yaml";

pub fn waits(report: &locktender::core::rollout::report::Report, stage: &str) -> bool {
    report.activity == Activity::Waiting
        && report
            .reasons
            .iter()
            .any(|reason| matches!(reason, Reason::ConfirmNeeded { stage: waiting, .. } if waiting.as_str() == stage))
}

pub fn checkout() -> Sim {
    Sim::new(&[
        ("policies/two-data-centers.yaml", POLICY),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ])
}

pub async fn confirm(sim: &mut Sim, number: u32, stage: &str) {
    sim.until("checkout", &format!("waiting at {stage}"), |report| waits(report, stage)).await;
    sim.git.commit(
        &format!("confirm {stage}"),
        &[(&format!("rollouts/checkout/{number:04}/confirm/{stage}.yaml"), Some(""))],
    );
}

#[tokio::test(start_paused = true)]
async fn an_install_goes_in_batches_and_waits_for_confirms() {
    let mut sim = checkout();
    confirm(&mut sim, 1, "beta").await;
    confirm(&mut sim, 1, "batch-1").await;
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    assert_eq!(
        sim.git.subjects(),
        [
            "checkout 0001: completed, 10 pods at 1.9",
            "checkout 0001: batch-1 confirmed, batch-2 started",
            "confirm batch-1",
            "checkout 0001: batch-1 waiting for confirm",
            "checkout 0001: beta confirmed, batch-1 started",
            "confirm beta",
            "checkout 0001: beta waiting for confirm",
            "checkout 0001: opened, 1.9 in 3 stages, beta started",
            "the beginning",
        ]
    );
}

/// Installs 1.9 and returns when it is stable.
pub async fn installed() -> Sim {
    let mut sim = checkout();
    confirm(&mut sim, 1, "beta").await;
    confirm(&mut sim, 1, "batch-1").await;
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim
}

/// Name, UID, node and address of every pod: what an update in place never changes.
fn identities(sim: &Sim) -> Vec<String> {
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let mut identities: Vec<String> = pods
        .iter()
        .map(|pod| {
            let meta = &pod["metadata"];
            format!("{} {} {} {}", meta["name"], meta["uid"], pod["spec"]["nodeName"], pod["status"]["podIP"])
        })
        .collect();
    identities.sort();
    identities
}

/// How many pods there are at each image's tag.
fn versions(sim: &Sim) -> Vec<(String, usize)> {
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let mut versions: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for pod in pods {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        *versions.entry(image.rsplit(':').next().unwrap().to_owned()).or_default() += 1;
    }
    versions.into_iter().collect()
}

fn counted(list: &[(&str, usize)]) -> Vec<(String, usize)> {
    list.iter().map(|(tag, count)| ((*tag).to_owned(), *count)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_in_place_steps_back_and_is_aborted() {
    let mut sim = installed().await;
    let before = identities(&sim);
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim.until("checkout", "waiting at beta", |report| waits(report, "beta")).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 8), ("2.0", 2)]));
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 4), ("2.0", 6)]));

    sim.git.commit("Revert \"confirm beta\"", &[("rollouts/checkout/0002/confirm/beta.yaml", None)]);
    sim.until("checkout", "waiting at beta again", |report| waits(report, "beta")).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 8), ("2.0", 2)]));
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 4), ("2.0", 6)]));

    sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some("message: error rate\n"))]);
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 10)]));
    assert_eq!(identities(&sim), before, "an update in place changes no pod's name, UID, node or address");
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), manifest("1.9"), "Git is repaired");
    let subjects = sim.git.subjects();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).take(15).collect();
    assert_eq!(
        subjects,
        [
            "checkout 0002: aborted, Git repaired",
            "checkout: back towards 6dd5fdf after 0002 was aborted",
            "checkout 0002: aborting",
            "abort",
            "checkout 0002: batch-1 waiting for confirm",
            "checkout 0002: beta confirmed, batch-1 started",
            "confirm beta",
            "checkout 0002: back to beta",
            "Revert \"confirm beta\"",
            "checkout 0002: batch-1 waiting for confirm",
            "checkout 0002: beta confirmed, batch-1 started",
            "confirm beta",
            "checkout 0002: beta waiting for confirm",
            "checkout 0002: opened, 1.9 → 2.0 in 3 stages, beta started",
            "checkout 2.0",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_back_goes_on_as_soon_as_pods_have_been_ready_for_long_enough() {
    let policy = POLICY.replace("maxUnavailable: 25%", "maxUnavailable: 25%\n      minReadySeconds: 5");
    let mut sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &policy),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    confirm(&mut sim, 1, "beta").await;
    confirm(&mut sim, 1, "batch-1").await;
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    sim.git.commit("Revert", &[("rollouts/checkout/0002/confirm/beta.yaml", None)]);
    // Two at a time: each two are out of service for some seconds, and ready for five before the next two.
    sim.pass(std::time::Duration::from_secs(30)).await;
    assert_eq!(versions(&sim), counted(&[("1.9", 8), ("2.0", 2)]));
}

#[tokio::test(start_paused = true)]
async fn the_old_side_of_a_switch_stays_for_its_delay() {
    let policy = "apiVersion: locktender.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {name: two-data-centers}\n\
                  spec: {strategy: {blueGreen: {confirm: none, scaleDownDelaySeconds: 60}}}\n";
    let manifest = |tag: &str| manifest(tag).replace("replicas: 10", "replicas: 3");
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", policy),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    sim.recorded("checkout", 1, Event::Completed, "full", 1).await.unwrap();
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim.recorded("checkout", 2, Event::Completed, "switch", 1).await.unwrap();
    let records = sim.records("checkout", 2);
    let time = |event: Event| records.iter().rev().find(|record| record.event == event).unwrap().time;
    let stayed = time(Event::Completed).duration_since(time(Event::StageStarted)).as_secs();
    assert!((60..90).contains(&stayed), "{stayed} s");
}
