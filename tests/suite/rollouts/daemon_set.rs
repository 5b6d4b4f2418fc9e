//! DaemonSets: node by node within the units.

use std::collections::BTreeMap;

use locktender::core::rollout::report::Activity;

use super::*;
use crate::histories::release::Seen;

const FILE: &str = "apps/logs/agent.yaml";
/// Where the DaemonSet is in the cluster.
const SET: &str = "apis/apps/v1/namespaces/shop/daemonsets/agent";
/// One pod of each unit, then two at a time, each batch confirmed.
const BY_TWO: &str = "batchSize: 2";

/// A DaemonSet; `template` adds lines to its pod's spec.
fn agent(tag: &str, template: &str) -> String {
    let more: String = template.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: logs}}}}
  template:
    metadata: {{labels: {{app: logs}}}}
    spec:
{more}      containers:
      - name: agent
        image: registry.example/agent:{tag}
        ports: [{{containerPort: 8080}}]
"
    )
}

/// One on each of six nodes is installed at 1.9; the transcript begins after that.
async fn six(policy: &str) -> Transcript {
    let app = app("").replace("name: checkout", "name: logs");
    let manifest = agent("1.9", "");
    let files = [(POLICY_FILE, policy), ("apps/logs/app.yaml", &*app), (FILE, &*manifest)];
    let mut told = Transcript::of("logs", &files).await;
    told.stable(1).await;
    told.forget();
    told
}

/// How many pods of each unit are at which version: `dca 1.9: 2, dca 2.0: 1`. Nodes are called by their unit.
fn by_unit(seen: &Seen) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &seen.pods {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let unit = node.rsplit_once('-').map_or(node, |(unit, _)| unit);
        let tag = pod["spec"]["containers"][0]["image"].as_str().unwrap().rsplit(':').next().unwrap();
        *counts.entry(format!("{unit} {tag}")).or_default() += 1;
    }
    counts.into_iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
}

impl Transcript {
    fn merge_agent(&mut self, what: &str, manifest: &str) {
        self.person(what, |clone| {
            clone.write(FILE, manifest);
        });
    }

    /// Tells how many pods read which version of the ConfigMap.
    async fn reads(&mut self, seen: &Seen) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for pod in &seen.pods {
            let name = pod["spec"]["volumes"][0]["configMap"]["name"].as_str().unwrap();
            let map =
                self.release.get(&format!("api/v1/namespaces/shop/configmaps/{name}"), "configmaps").await.unwrap();
            *counts.entry(map["data"]["colour"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let line = counts.into_iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ");
        self.note(&line);
        line
    }

    /// Tells how many pods of each unit are at which version, and what its controller may do.
    async fn units(&mut self) -> String {
        let set = self.release.get(SET, "daemonsets.apps").await.unwrap();
        let strategy = set["spec"]["updateStrategy"]["type"].as_str().unwrap_or_default().to_owned();
        let line = format!("{}; {strategy}", by_unit(&self.release.seen("logs").await));
        self.note(&line);
        line
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_goes_node_by_node_with_a_restart_in_the_middle() {
    let mut told = six(&policy("", BY_TWO)).await;
    let before = told.release.seen("logs").await.identities();
    told.merge_agent("merge 2.0", &agent("2.0", ""));
    told.waits(2, "beta").await;
    assert_eq!(told.units().await, "dca 1.9: 2, dca 2.0: 1, dcb 1.9: 2, dcb 2.0: 1; OnDelete");
    told.restart().await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    assert_eq!(told.units().await, "dca 1.9: 1, dca 2.0: 2, dcb 1.9: 1, dcb 2.0: 2; OnDelete");
    let seen = told.complete(2).await;
    assert_eq!(told.units().await, "dca 2.0: 3, dcb 2.0: 3; RollingUpdate", "at rest it goes on by itself");
    assert_eq!(seen.identities(), before, "in place: no pod is made anew");
    told.release.rest().await;
    assert_eq!(told.release.seen("logs").await.identities(), before);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_makes_the_nodes_pods_anew_that_were_touched() {
    let mut told = six(&policy("", BY_TWO)).await;
    let before = told.release.seen("logs").await.identities();
    told.merge_agent("a shorter farewell", &agent("2.0", "terminationGracePeriodSeconds: 5"));
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.decide(2, "abort", "message: it eats memory\n");
    let seen = told.stable(2).await;
    assert_eq!(told.units().await, "dca 1.9: 3, dcb 1.9: 3; RollingUpdate");
    assert_eq!(seen.identities().into_iter().filter(|pod| before.contains(pod)).count(), 2, "those never touched");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_dies_on_its_node_may_come_back_new_and_is_taken_back() {
    let mut told = six(&policy("", BY_TWO)).await;
    told.merge_agent("merge 2.0", &agent("2.0", ""));
    let seen = told.waits(2, "beta").await;
    let old = seen.pods.iter().find(|pod| {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        image.ends_with("1.9") && pod["spec"]["nodeName"].as_str().unwrap().starts_with("dca")
    });
    let name = old.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    told.note("a pod at 1.9 in dca dies");
    told.release.delete(&format!("api/v1/namespaces/shop/pods/{name}"), "pods").await;
    let replaced = |seen: &Seen| seen.pods.iter().all(|pod| pod["metadata"]["name"] != *name);
    told.release.until("logs", "it is replaced", replaced).await;
    let again = "dca 1.9: 2, dca 2.0: 1, dcb 1.9: 2, dcb 2.0: 1";
    told.release.until("logs", "it is old again", |seen| by_unit(seen) == again && seen.is(2, Activity::Waiting)).await;
    told.units().await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.complete(2).await;
    assert_eq!(told.units().await, "dca 2.0: 3, dcb 2.0: 3; RollingUpdate");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn configuration_moves_node_by_node() {
    let settings = |colour: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {colour}}}\n")
    };
    let (policy, app) = (policy("", BY_TWO), app("").replace("name: checkout", "name: logs"));
    let manifest = agent("1.9", "volumes: [{name: settings, configMap: {name: settings}}]");
    let file = "apps/logs/settings.yaml";
    let blue = settings("blue");
    let files = [(POLICY_FILE, &*policy), ("apps/logs/app.yaml", &*app), (FILE, &*manifest), (file, &*blue)];
    let mut told = Transcript::of("logs", &files).await;
    told.stable(1).await;
    told.forget();
    let before = told.release.seen("logs").await.identities();
    told.person("green", |clone| {
        clone.write(file, &settings("green"));
    });
    let seen = told.waits(2, "beta").await;
    assert_eq!(told.reads(&seen).await, "blue: 4, green: 2", "each version has its own");
    told.units().await;
    told.decide(2, "confirm/beta", "");
    told.waits(2, "batch-1").await;
    told.decide(2, "abort", "message: it was better blue\n");
    let seen = told.stable(2).await;
    assert_eq!(told.reads(&seen).await, "blue: 6");
    assert_eq!(seen.identities().into_iter().filter(|pod| before.contains(pod)).count(), 2, "those never touched");
    told.units().await;
    told.person("green again", |clone| {
        clone.write(file, &settings("green"));
    });
    told.waits(3, "beta").await;
    let seen = told.complete(3).await;
    assert_eq!(told.reads(&seen).await, "green: 6");
    told.units().await;
    told!(told);
}
