//! Whole rollouts as golden transcripts: `golden/` has what is expected, one file a test: of the simulation, and of a
//! real control plane where `LOCKTENDER_TEST_CLUSTER` says so.
//!
//! After a change that is meant, `INSTA_UPDATE=always cargo test --test suite rollouts::` writes them anew.
#![allow(clippy::unwrap_used, clippy::panic)]

#[macro_use]
mod transcript;

mod autoscaler;
mod blue_green;
mod canary;
mod course;
mod daemon_set;
mod figures;
mod gates;
mod handover;
mod load;
mod real;
mod restarts;
mod routed;
mod routers;
mod scaled;
mod stateful_set;
mod traces;

use self::transcript::Transcript;

const POLICY_FILE: &str = "policies/two-data-centers.yaml";
const APP_FILE: &str = "apps/checkout/app.yaml";
const DEPLOYMENT: &str = "apps/checkout/deployment.yaml";
/// Where the Deployment is in the cluster.
const HANDLE: &str = "apis/apps/v1/namespaces/shop/deployments/checkout";

/// A policy of batches of four over two units; `batched` adds fields of its strategy, `spec` of the policy itself.
fn policy(spec: &str, batched: &str) -> String {
    let mut text = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
"
    .to_owned();
    spec.lines().for_each(|line| text += &format!("  {line}\n"));
    text += "  strategy:\n    batched:\n";
    let topology = "topology: {unitType: topology.kubernetes.io/zone, units: [dca, dcb]}";
    let named = |name: &str| batched.lines().any(|line| line.starts_with(name));
    for (name, line) in [("topology:", topology), ("batchSize:", "batchSize: 4")] {
        if !named(name) {
            text += &format!("      {line}\n");
        }
    }
    batched.lines().for_each(|line| text += &format!("      {line}\n"));
    text
}

fn app(spec: &str) -> String {
    format!(
        "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {{name: checkout}}\n\
         spec: {{namespace: shop, policy: two-data-centers{spec}}}\n"
    )
}

/// A Deployment with so many replicas; `template` adds lines to its pod's spec.
fn deployment(replicas: u32, tag: &str, template: &str) -> String {
    let more: String = template.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: checkout}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: checkout}}}}
  template:
    metadata: {{labels: {{app: checkout}}}}
    spec:
{more}      containers:
      - name: app
        image: registry.example/checkout:{tag}
        ports: [{{containerPort: 8080}}]
"
    )
}

/// The application with this policy, before anything runs.
async fn checkout(policy: &str, deployment: &str) -> Transcript {
    Transcript::of("checkout", &[(POLICY_FILE, policy), (APP_FILE, &app("")), (DEPLOYMENT, deployment)]).await
}

/// Ten replicas at 1.9 are installed; the transcript begins after that.
async fn installed(policy: &str) -> Transcript {
    let mut transcript = checkout(policy, &deployment(10, "1.9", "")).await;
    transcript.complete(1).await;
    transcript.forget();
    transcript
}

impl Transcript {
    /// Somebody merges another image.
    fn merge(&mut self, tag: &str) {
        self.person(&format!("merge {tag}"), |clone| {
            let text = clone.read(DEPLOYMENT).unwrap();
            let image = text.lines().find(|line| line.contains("image:")).unwrap();
            clone.write(DEPLOYMENT, &text.replace(image, &format!("        image: registry.example/checkout:{tag}")));
        });
    }
}
