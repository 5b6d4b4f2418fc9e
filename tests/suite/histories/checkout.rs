//! The application of the histories: ten replicas in two units, in batches of 2, 4 and 4, each with a confirm.

use locktender::core::rollout::report::Activity;

use super::release::{Place, Release, Seen};

pub const POLICY_FILE: &str = "policies/two-data-centers.yaml";
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
      beta: {perUnit: 1}
      batchSize: 4
      confirm: everyBatch
      maxUnavailable: 25%
      graceful: {gracePeriodSeconds: 0}
";

pub const APP_FILE: &str = "apps/checkout/app.yaml";
pub const APP: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: checkout}
spec: {namespace: shop, policy: two-data-centers}
";

pub const DEPLOYMENT: &str = "apps/checkout/deployment.yaml";

pub fn deployment(name: &str, tag: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  # How many there are in both data centres together.
  replicas: 10
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: app
        image: registry.example/checkout:{tag}
        ports: [{{containerPort: 8080}}]
"
    )
}

pub const SERVICE_FILE: &str = "apps/checkout/service.yaml";
pub const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: checkout}
spec:
  selector: {app: checkout}
  ports: [{port: 80, targetPort: 8080}]
";

impl Release {
    /// The repository before anything runs, with some of its files different.
    pub async fn checkout_with(place: Place, changes: &[(&str, &str)]) -> Self {
        let first = deployment("checkout", "1.9");
        let mut files =
            vec![(POLICY_FILE, POLICY), (APP_FILE, APP), (DEPLOYMENT, first.as_str()), (SERVICE_FILE, SERVICE)];
        for (path, text) in changes {
            files.retain(|(known, _)| known != path);
            files.push((path, text));
        }
        Self::new(place, &files).await
    }

    /// Version 1.9 runs: rollout 1 is completed.
    pub async fn checkout(place: Place) -> Self {
        let release = Self::checkout_with(place, &[]).await;
        release.install().await;
        release
    }

    /// Lets rollout 1 complete.
    pub async fn install(&self) {
        self.pass("beta", 1).await;
        self.pass("batch-1", 1).await;
        let seen = self.until("checkout", "1.9 is installed", |seen| seen.is(1, Activity::Stable)).await;
        assert_eq!(seen.pods(), "1.9: 10");
    }

    /// Version 1.9 runs, 2.0 is merged, and rollout 2 waits after its beta group.
    pub async fn at_beta(place: Place) -> Self {
        let release = Self::checkout(place).await;
        release.set_tag("2.0");
        release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
        release
    }

    /// The same, one confirm later.
    pub async fn at_batch_1(place: Place) -> Self {
        let release = Self::at_beta(place).await;
        release.confirm(2, "beta");
        release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
        release
    }

    /// Somebody merges another image.
    pub fn set_tag(&self, tag: &str) -> String {
        self.commit(&format!("checkout {tag}"), |clone| {
            let text = clone.read(DEPLOYMENT).unwrap();
            let image = text.lines().find(|line| line.contains("image:")).unwrap();
            let line = format!("        image: registry.example/checkout:{tag}");
            clone.write(DEPLOYMENT, &text.replace(image, &line));
        })
    }

    /// Somebody confirms a stage by an empty file.
    pub fn confirm(&self, number: u32, stage: &str) -> String {
        self.decide(number, &format!("confirm/{stage}"), "")
    }

    /// Somebody writes a decision.
    pub fn decide(&self, number: u32, decision: &str, text: &str) -> String {
        let path = format!("rollouts/checkout/{number:04}/{decision}.yaml");
        self.commit(&format!("{decision} of {number:04}"), |clone| {
            clone.write(&path, text);
        })
    }

    /// Waits for a stage's gate, and confirms it.
    pub async fn pass(&self, stage: &str, number: u32) {
        self.until("checkout", &format!("{stage} of {number} waits"), |seen| seen.waits(number, stage)).await;
        self.confirm(number, stage);
    }

    /// Confirms what is left of a rollout until it is complete.
    pub async fn complete(&self, number: u32) -> Seen {
        loop {
            let seen = self
                .until("checkout", &format!("{number} waits or is done"), |seen| {
                    seen.waits(number, "beta") || seen.waits(number, "batch-1") || seen.is(number, Activity::Stable)
                })
                .await;
            if seen.is(number, Activity::Stable) {
                return seen;
            }
            let stage = seen.report.as_ref().unwrap().stage.clone().unwrap();
            let confirm = format!("rollouts/checkout/{number:04}/confirm/{stage}.yaml");
            if self.remote.read(&confirm).is_none() {
                self.confirm(number, stage.as_str());
            }
            self.until("checkout", "it goes on", |seen| !seen.waits(number, stage.as_str())).await;
        }
    }

    /// Waits until a rollout waits at a stage, and sees which pods there are then.
    pub async fn waits(&self, number: u32, stage: &str, pods: &str) -> Seen {
        let what = format!("{number} waits at {stage} with {pods}");
        self.until("checkout", &what, |seen| seen.waits(number, stage) && seen.pods() == pods).await
    }

    /// Waits until an application is at rest after a rollout.
    pub async fn stable(&self, number: u32, pods: &str) -> Seen {
        let what = format!("stable after {number} with {pods}");
        self.until("checkout", &what, |seen| seen.is(number, Activity::Stable) && seen.pods() == pods).await
    }

    /// Waits until an application is held after a rollout.
    pub async fn held(&self, number: u32, pods: &str) -> Seen {
        let what = format!("held after {number} with {pods}");
        self.until("checkout", &what, |seen| seen.is(number, Activity::Held) && seen.pods() == pods).await
    }
}
