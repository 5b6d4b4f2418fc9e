//! An autoscaler scales up and down in the middle of a rollout of each strategy, and by itself at rest: podinfo's, on the
//! sandbox, whose load is an annotation.

use locktender::core::{ledger::Event, rollout::report::Activity};
use serde_json::{Value, json};

use super::*;
use crate::{histories::release::Seen, support::cluster};

const SCALER: &str = "apis/autoscaling/v2/namespaces/podinfo/horizontalpodautoscalers/podinfo";
const FILE: &str = "apps/podinfo/deployment.yaml";

fn corpus(file: &str) -> String {
    std::fs::read_to_string(format!("{}/../shared/corpus/podinfo/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// podinfo with its autoscaler, which may have eight pods and takes them away at once, under a strategy.
async fn podinfo(strategy: &str) -> Transcript {
    let policy = format!(
        "apiVersion: locktender.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {{name: two-data-centers}}\n\
         spec: {{strategy: {{{strategy}}}}}\n"
    );
    let app = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: podinfo}
spec: {namespace: podinfo, policy: two-data-centers, source: {path: ., kustomize: {}}}
";
    let scaler = corpus("hpa.yaml")
        .replace("maxReplicas: 4", "maxReplicas: 8\n  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}");
    let files = [
        (POLICY_FILE, policy),
        ("apps/podinfo/app.yaml", app.to_owned()),
        ("apps/podinfo/kustomization.yaml", corpus("kustomization.yaml")),
        (FILE, corpus("deployment.yaml")),
        ("apps/podinfo/service.yaml", corpus("service.yaml")),
        ("apps/podinfo/hpa.yaml", scaler),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let mut told = Transcript::of("podinfo", &files).await;
    let seen =
        told.until("it waits or is done", |seen| seen.is(1, Activity::Waiting) || seen.is(1, Activity::Stable)).await;
    if seen.is(1, Activity::Waiting) {
        told.decide(1, "promote", "");
    }
    told.until("it is installed", |seen| seen.is(1, Activity::Stable) && seen.pods() == "6.14.1: 2").await;
    told.forget();
    told
}

impl Transcript {
    /// So much CPU is used by all pods together; podinfo's autoscaler wants one pod for each 99m.
    async fn load(&mut self, cpu: &str, pods: usize) -> Seen {
        self.note(&format!("a load of {cpu}"));
        let change =
            |scaler: &mut Value| scaler["metadata"]["annotations"] = json!({"locktender.dev/sandbox-load": cpu});
        self.release.change(SCALER, "horizontalpodautoscalers.autoscaling", change).await;
        let settled = |seen: &Seen| seen.pods.len() == pods && !seen.is(2, Activity::Progressing);
        self.until("as many pods as the load asks for", settled).await
    }
}

/// Up and down while a rollout waits, and to its end; `at` says what is new of five, of eight and of three.
async fn up_and_down(strategy: &str, at: [(&str, usize); 3]) -> Transcript {
    let mut told = podinfo(strategy).await;
    told.load("450m", 5).await;
    told.person("podinfo 6.14.2", |clone| {
        clone.replace(FILE, "6.14.1", "6.14.2");
    });
    let new = |seen: &Seen| seen.versions().get("6.14.2").copied().unwrap_or(0);
    let waits = |seen: &Seen| seen.is(2, Activity::Waiting);
    told.until(at[0].0, |seen| waits(seen) && new(seen) == at[0].1).await;
    for ((what, count), (cpu, wanted)) in at[1..].iter().zip([("750m", 8), ("250m", 3)]) {
        told.load(cpu, if strategy.starts_with("blueGreen") { 2 * wanted } else { wanted }).await;
        told.until(what, |seen| waits(seen) && new(seen) == *count).await;
    }
    told.decide(2, "promote", "");
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "6.14.2: 3");
    assert!(seen.has(2, Event::QuotaChanged));
    told
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_in_the_middle_of_batches() {
    if cluster::real().is_some() {
        return;
    }
    let at = [("beta of five", 1), ("beta of eight", 1), ("beta of three", 1)];
    let told = up_and_down("batched: {batchSize: 2}", at).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_in_the_middle_of_a_canary() {
    if cluster::real().is_some() {
        return;
    }
    let at = [("two of five", 2), ("three of eight", 3), ("none was taken back", 3)];
    let told = up_and_down("canary: {steps: [{setWeight: 40}, {confirm: {}}]}", at).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_beside_a_preview() {
    if cluster::real().is_some() {
        return;
    }
    let at = [("five beside five", 5), ("eight beside eight", 8), ("three beside three", 3)];
    let told = up_and_down("blueGreen: {}", at).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn with_the_controller_dead_the_handle_autoscales_its_one_slice() {
    if cluster::real().is_some() {
        return;
    }
    let mut told = podinfo("batched: {batchSize: 2}").await;
    told.release.rest().await;
    told.release.kill().await;
    for (cpu, pods) in [("750m", 8), ("250m", 3)] {
        let seen = told.load(cpu, pods).await;
        assert_eq!(seen.pods(), format!("6.14.1: {pods}"));
    }
    told.release.start().await;
    told.release.rest().await;
    assert_eq!(told.release.seen("podinfo").await.pods(), "6.14.1: 3", "and it stays so");
}
