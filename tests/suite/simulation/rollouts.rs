//! Whole rollouts, told as transcripts.

use locktender::core::rollout::report::{Activity, Reason};

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
    for subject in sim.git.subjects() {
        println!("{subject}");
    }
}
