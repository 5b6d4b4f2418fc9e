//! StatefulSets: staged by their partition, the highest ordinal first.

use std::collections::BTreeMap;

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::*;
use crate::{histories::release::Seen, support::cluster};

const FILE: &str = "apps/store/db.yaml";
/// Where the StatefulSet is in the cluster.
const SET: &str = "apis/apps/v1/namespaces/shop/statefulsets/db";
/// One pod, then two at a time, each batch confirmed.
const BY_TWO: &str = "batchSize: 2";

/// A StatefulSet with its Service; `template` adds lines to its pod's spec, `spec` to its own.
fn db(replicas: u32, tag: &str, spec: &str, template: &str) -> String {
    let lines = |text: &str, indent: &str| text.lines().map(|line| format!("{indent}{line}\n")).collect::<String>();
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: store}}, ports: [{{port: 5432, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: {replicas}
  serviceName: db
{}  selector: {{matchLabels: {{app: store}}}}
  template:
    metadata: {{labels: {{app: store}}}}
    spec:
{}      containers:
      - name: db
        image: registry.example/db:{tag}
        ports: [{{containerPort: 8080}}]
",
        lines(spec, "  "),
        lines(template, "      ")
    )
}

/// Five at 1.9 are installed; the transcript begins after that.
async fn five(policy: &str, spec: &str) -> Transcript {
    let app = app("").replace("name: checkout", "name: store");
    let manifest = db(5, "1.9", spec, "");
    let files = [(POLICY_FILE, policy), ("apps/store/app.yaml", &app), (FILE, &manifest)];
    let mut told = Transcript::of("store", &files).await;
    told.until("it waits or is done", |seen| seen.is(1, Activity::Waiting) || seen.is(1, Activity::Stable)).await;
    told.complete(1).await;
    told.forget();
    told
}

/// Each pod's version by its ordinal: `1.9 1.9 2.0`.
fn by_ordinal(seen: &Seen) -> String {
    let of = |pod: &serde_json::Value| {
        let ordinal: u32 = pod["metadata"]["name"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        (ordinal, image.rsplit(':').next().unwrap().to_owned())
    };
    let pods: BTreeMap<u32, String> = seen.pods.iter().map(|pod| of(pod)).collect();
    pods.into_values().collect::<Vec<_>>().join(" ")
}

fn is_ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

impl Transcript {
    fn merge_db(&mut self, what: &str, manifest: &str) {
        self.person(what, |clone| {
            clone.write(FILE, manifest);
        });
    }

    /// Tells which pods are at which version, and where the partition is.
    async fn ordinals(&mut self) -> String {
        let set = self.release.get(SET, "statefulsets.apps").await.unwrap();
        let seen = self.release.seen("store").await;
        let partition = &set["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
        let line = format!("{}, partition {partition}", by_ordinal(&seen));
        self.note(&line);
        line
    }

    /// So much CPU is used by all pods together.
    async fn uses(&mut self, cpu: &str) {
        self.note(&format!("a load of {cpu}"));
        let load = serde_json::json!({"locktender.dev/sandbox-load": cpu});
        let change = |scaler: &mut serde_json::Value| scaler["metadata"]["annotations"] = load.clone();
        self.release.change(SCALER, "horizontalpodautoscalers.autoscaling", change).await;
    }

    /// Somebody takes a pod away.
    async fn dies(&mut self, name: &str) {
        self.note(&format!("{name} dies"));
        let uid = |seen: &Seen| {
            let pod = seen.pods.iter().find(|pod| pod["metadata"]["name"] == name)?;
            is_ready(pod).then(|| pod["metadata"]["uid"].clone())
        };
        let before = uid(&self.release.seen("store").await).unwrap();
        self.release.delete(&format!("api/v1/namespaces/shop/pods/{name}"), "pods").await;
        let back = |seen: &Seen| uid(seen).is_some_and(|now| now != before);
        self.release.until("store", "it is back", back).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_goes_from_the_highest_ordinal_with_a_restart_in_the_middle() {
    let mut told = five(&policy("", BY_TWO), "").await;
    let before = told.release.seen("store").await.identities();
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.0, partition 4");
    told.restart().await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 2.0 2.0 2.0, partition 2");
    told.decide(2, "confirm/batch-1", "");
    let seen = told.stable(2).await;
    assert_eq!(told.ordinals().await, "2.0 2.0 2.0 2.0 2.0, partition 0");
    assert_eq!(seen.identities(), before, "in place: no pod is made anew");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_in_place_is_made_anew_one_by_one() {
    let mut told = five(&policy("", BY_TWO), "podManagementPolicy: Parallel").await;
    let before = told.release.seen("store").await.identities();
    told.merge_db(
        "a shorter farewell",
        &db(5, "2.0", "podManagementPolicy: Parallel", "terminationGracePeriodSeconds: 5"),
    );
    told.waits(2, "beta").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.0, partition 4");
    told.decide(2, "confirm/beta", "");
    let mut least = usize::MAX;
    loop {
        let seen = told.release.seen("store").await;
        least = least.min(seen.pods.iter().filter(|pod| is_ready(pod)).count());
        if seen.waits(2, "batch-1") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(least, 4, "a quarter of five is one");
    let seen = told.complete(2).await;
    assert_eq!(by_ordinal(&seen), "2.0 2.0 2.0 2.0 2.0");
    assert!(before.iter().all(|pod| !seen.identities().contains(pod)));
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_dies_in_the_middle_comes_back_at_the_version_of_its_ordinal() {
    let mut told = five(&policy("", BY_TWO), "").await;
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    for (pod, what) in [("db-4", "a new one"), ("db-0", "an old one"), ("db-2", "the lowest new one")] {
        told.dies(pod).await;
        assert_eq!(told.ordinals().await, "1.9 1.9 2.0 2.0 2.0, partition 2", "{what}");
    }
    told.complete(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_ordinals_back() {
    let mut told = five(&policy("", BY_TWO), "").await;
    let before = told.release.seen("store").await.identities();
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.decide(2, "abort", "message: slower than before\n");
    let seen = told.stable(2).await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 1.9, partition 0");
    assert_eq!(seen.identities(), before);
    assert_eq!(told.release.remote.read(FILE).unwrap(), db(5, "1.9", "", "").trim_end(), "Git is repaired");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_makes_ordinals_anew_where_they_were() {
    let mut told = five(&policy("", "update: Recreate\nbatchSize: 2"), "").await;
    let before = told.release.seen("store").await.identities();
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.decide(2, "abort", "");
    let seen = told.stable(2).await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 1.9, partition 0");
    let kept = seen.identities().into_iter().filter(|pod| before.contains(pod)).count();
    assert_eq!(kept, 2, "those that were never touched");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_taken_back_raises_the_partition_again() {
    let mut told = five(&policy("", "update: Recreate\nbatchSize: 2"), "").await;
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.person("take the confirm back", |clone| {
        clone.remove("rollouts/store/0002/confirm/beta.yaml");
    });
    told.until("back", |seen| seen.waits(2, "beta") && by_ordinal(seen) == "1.9 1.9 1.9 1.9 2.0").await;
    told.release.rest().await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.0, partition 4");
    told.complete(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_of_a_stateful_set_supersedes() {
    let mut told = five(&policy("", BY_TWO), "").await;
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.merge_db("merge 2.1", &db(5, "2.1", "", ""));
    told.waits(3, "beta").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.1, partition 4");
    let seen = told.complete(3).await;
    assert_eq!(by_ordinal(&seen), "2.1 2.1 2.1 2.1 2.1");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_an_ordinal_that_is_never_ready_goes_back_and_no_other_is_touched() {
    let mut told = five(&policy("progressDeadlineSeconds: 60", "update: Recreate\nbatchSize: 2"), "").await;
    let before = told.release.seen("store").await.identities();
    told.merge_db("merge 2.0-never-ready", &db(5, "2.0-never-ready", "", ""));
    told.until("it fails", |seen| seen.has(2, Event::Aborting)).await;
    let seen = told.stable(2).await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 1.9, partition 0");
    assert_eq!(seen.identities().into_iter().filter(|pod| before.contains(pod)).count(), 4);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_scaled_in_the_middle() {
    let mut told = five(&policy("", BY_TWO), "").await;
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.merge_db("six", &db(6, "2.0", "", ""));
    told.until("six", |seen| seen.waits(2, "batch-1") && by_ordinal(seen) == "1.9 1.9 1.9 2.0 2.0 2.0").await;
    told.merge_db("four", &db(4, "2.0", "", ""));
    told.until("four", |seen| seen.waits(2, "batch-1") && by_ordinal(seen) == "1.9 2.0 2.0 2.0").await;
    let seen = told.complete(2).await;
    assert_eq!(by_ordinal(&seen), "2.0 2.0 2.0 2.0");
    told!(told);
}

/// Where its autoscaler is in the cluster.
const SCALER: &str = "apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/db";

/// Each pod is to use 99m, of eight at most; it scales down at once.
const AUTOSCALED: &str = "\
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: db}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}
  minReplicas: 2
  maxReplicas: 8
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 99}}}]
";

#[tokio::test(start_paused = true)]
async fn an_autoscaler_in_the_middle_of_ordinals() {
    if cluster::real().is_some() {
        return;
    }
    let manifest = |tag: &str| {
        let text = db(0, tag, "", "").replace("  replicas: 0\n", "");
        let image = format!("image: registry.example/db:{tag}\n");
        text.replace(&image, &format!("{image}        resources: {{requests: {{cpu: 100m}}}}\n")) + AUTOSCALED
    };
    let (policy, app) = (policy("", BY_TWO), app("").replace("name: checkout", "name: store"));
    let first = manifest("1.9");
    let files = [(POLICY_FILE, policy.as_str()), ("apps/store/app.yaml", &app), (FILE, &first)];
    let mut told = Transcript::of("store", &files).await;
    told.complete(1).await;
    told.forget();
    told.uses("450m").await;
    told.until("five", |seen| by_ordinal(seen) == "1.9 1.9 1.9 1.9 1.9" && seen.is(1, Activity::Stable)).await;
    told.merge_db("merge 2.0", &manifest("2.0"));
    told.waits(2, "beta").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.0, partition 4");
    told.uses("750m").await;
    told.until("one of eight", |seen| seen.waits(2, "beta") && by_ordinal(seen) == "1.9 1.9 1.9 1.9 1.9 1.9 1.9 2.0")
        .await;
    told.ordinals().await;
    told.decide(2, "confirm/beta", "");
    told.until("three of eight", |seen| seen.waits(2, "batch-1")).await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 1.9 2.0 2.0 2.0, partition 5");
    told.uses("250m").await;
    let is_down = |seen: &Seen| seen.pods.len() == 3 && seen.is(2, Activity::Waiting);
    told.until("three", is_down).await;
    told.ordinals().await;
    let seen = told.complete(2).await;
    assert_eq!(by_ordinal(&seen), "2.0 2.0 2.0");
    assert!(seen.has(2, Event::QuotaChanged));
    assert_eq!(told.ordinals().await, "2.0 2.0 2.0, partition 0");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn configuration_moves_with_the_ordinals() {
    let reads = "volumes: [{name: settings, configMap: {name: settings}}]";
    let settings = |colour: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {colour}}}\n")
    };
    let (policy, app) = (policy("", BY_TWO), app("").replace("name: checkout", "name: store"));
    let (manifest, file) = (db(5, "1.9", "", reads), "apps/store/settings.yaml");
    let files =
        [(POLICY_FILE, policy.as_str()), ("apps/store/app.yaml", &app), (FILE, &manifest), (file, &settings("blue"))];
    let mut told = Transcript::of("store", &files).await;
    told.complete(1).await;
    told.forget();
    told.person("green", |clone| {
        clone.write(file, &settings("green"));
    });
    let seen = told.waits(2, "beta").await;
    let reads = |seen: &Seen| -> usize {
        let names = seen.pods.iter().map(|pod| pod["spec"]["volumes"][0]["configMap"]["name"].to_string());
        names.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(reads(&seen), 2, "each version has its own");
    let seen = told.complete(2).await;
    assert_eq!(reads(&seen), 1);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_canary_of_a_stateful_set_is_its_highest_ordinals() {
    let steps = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec: {strategy: {canary: {steps: [{setWeight: 20}, {confirm: {}}, {setCanaryReplicas: 2}, {confirm: {}}]}}}
";
    let mut told = five(steps, "").await;
    told.merge_db("merge 2.0", &db(5, "2.0", "", ""));
    told.waits(2, "weight-20").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 1.9 2.0, partition 4");
    told.decide(2, "confirm/weight-20", "");
    told.waits(2, "pods-2").await;
    assert_eq!(told.ordinals().await, "1.9 1.9 1.9 2.0 2.0, partition 3");
    told.decide(2, "confirm/pods-2", "");
    told.stable(2).await;
    assert_eq!(told.ordinals().await, "2.0 2.0 2.0 2.0 2.0, partition 0");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_that_goes_leaves_service_first() {
    let mut told = five(&policy("", BY_TWO), "").await;
    told.person("no store any more", |clone| {
        clone.remove("apps/store");
    });
    told.waits(2, "start").await;
    told.decide(2, "confirm/start", "");
    let seen = told.until("it is gone", |seen| seen.has(2, Event::Completed)).await;
    assert!(seen.pods.is_empty());
    assert!(told.release.get(SET, "statefulsets.apps").await.is_none());
    told!(told);
}
