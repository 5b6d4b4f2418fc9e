//! Commands that look: with nobody running, no cluster, nothing there.

use super::{Shell, Transcript, checkout, deployment, keeper::Keeper};
use crate::support::git::Remote;

#[tokio::test]
async fn a_plan_is_told_before_the_merge_and_has_the_controllers_hash() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("plan"));
    let here = ada.path();
    seen.note("a first install").see(&shell, here, &["plan", "checkout"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.completes().await;
    ada.pull();
    seen.see(&shell, here, &["plan"]);
    ada.write("apps/checkout/deployment.yaml", &deployment("2.0"));
    seen.note("the image is another, not committed").see(&shell, here, &["plan"]);
    let planned = shell.run(here, &["plan", "checkout", "-o", "json"]);
    let planned: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    ada.commit("checkout 2.0");
    ada.push();
    keeper.open().await;
    let pushed = remote.read("rollouts/checkout/0002/plan.yaml").unwrap();
    let hash = planned[0]["plan"]["hash"].as_str().unwrap();
    assert!(pushed.contains(&format!("hash: {hash}")), "{hash}\n{pushed}");
    ada.pull();
    ada.write("apps/checkout/deployment.yaml", &deployment("2.1").replace("periodSeconds: 1", "periodSeconds: 2"));
    seen.note("2.0 runs; now a change that cannot be in place").see(&shell, here, &["plan"]);
    let policy = super::POLICY.replace("InPlaceIfPossible", "InPlaceOnly");
    ada.write("policies/two-data-centers.yaml", &policy);
    seen.note("the policy forbids it").see(&shell, here, &["plan"]);
    ada.write("apps/checkout/deployment.yaml", "kind: [");
    seen.see(&shell, here, &["plan", "checkout"]);
    seen.see(&shell, here, &["plan", "chekout"]);
    seen.see(&shell, here, &["plan", "--revision", "nowhere"]);
    seen.matches();
}

/// What stable keeps at each stage where the policy scales it down.
const SCALED: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  strategy:
    canary:
      traffic: {gatewayApi: {httpRoute: checkout}}
      dynamicStableScale: true
      steps: [{setWeight: 20}, {confirm: {}}, {setWeight: 60}, {confirm: {}}]
";
const CALLED: &str = "\
apiVersion: v1
kind: Service
metadata: {name: checkout}
spec: {selector: {app: checkout}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: checkout}
spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: checkout, port: 80}]}]}
";

#[tokio::test]
async fn a_plan_tells_the_pods_of_both_sides_where_stable_is_scaled_down() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("plan-scaled"));
    let here = ada.path();
    ada.write("policies/two-data-centers.yaml", SCALED);
    ada.write("apps/checkout/called.yaml", CALLED);
    ada.commit("by a router");
    ada.push();
    seen.note("a first install").see(&shell, here, &["plan", "checkout"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.completes().await;
    ada.pull();
    ada.write("apps/checkout/deployment.yaml", &deployment("2.0"));
    seen.note("the image is another").see(&shell, here, &["plan"]);
    seen.matches();
}

#[tokio::test]
async fn status_and_history_need_neither_controller_nor_cluster() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("status"));
    let here = ada.path();
    seen.see(&shell, here, &["status"]);
    seen.see(&shell, here, &["history"]);
    seen.see(&shell, here, &["history", "checkout"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.waits("beta").await;
    seen.note("beta waits").see(&shell, here, &["status"]);
    seen.see(&shell, here, &["status", "checkout"]);
    seen.see(&shell, here, &["status", "chekout"]);
    seen.see(&shell, here, &["history"]);
    let told = shell.run(here, &["status", "checkout", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told["activity"].as_str(), told["stage"].as_str()), (Some("waiting"), Some("beta")));
    assert!(told["clusterAway"].is_string(), "{told}");
    let yaml = shell.run(here, &["history", "checkout", "-o", "yaml"]);
    assert!(yaml.stdout.contains("event: StageWaiting"), "{}", yaml.stdout);
    seen.note("a cluster that is named must be there");
    seen.see(&shell, here, &["status", "--kubeconfig", "nowhere.yaml"]);
    keeper.completes().await;
    seen.note("complete").see(&shell, here, &["status"]);
    seen.see(&shell, here, &["history", "checkout", "--rollout", "4"]);
    seen.see(&shell, here, &["watch", "checkout", "--until-done"]);
    seen.matches();
}

#[tokio::test]
async fn decisions_that_nobody_reads_are_told_before_the_merge_and_after_it() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("astray"));
    let here = ada.path();
    Keeper::new(&remote).await.open().await.waits("beta").await;
    ada.pull();
    for path in
        ["checkout/0001/confirm/beta", "checkout/0002/promote", "checkout/0042/confirm/beta", "chekout/0001/abort"]
    {
        ada.write(&format!("rollouts/{path}.yaml"), "");
    }
    ada.write("rollouts/checkout/confirm/beta.yaml", "").write("rollouts/README.md", "what Locktender writes\n");
    seen.see(&shell, here, &["validate"]);
    seen.see(&shell, here, &["validate", "checkout"]);
    ada.commit("go on");
    ada.push();
    seen.note("merged all the same").see(&shell, here, &["status"]);
    seen.see(&shell, here, &["status", "checkout"]);
    seen.matches();
}

#[tokio::test]
async fn the_audit_finds_what_somebody_changed() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("audit"));
    let here = ada.path();
    seen.see(&shell, here, &["audit", "verify"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.waits("beta").await;
    assert_eq!(shell.run(here, &["confirm", "checkout", "-m", "looks good"]).code, 0);
    keeper.accepts("beta", "batch-1").await.completes().await;
    seen.see(&shell, here, &["audit", "verify"]);
    seen.see(&shell, here, &["audit", "log"]);
    let told = shell.run(here, &["audit", "verify", "checkout", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told["ok"].as_bool(), told["applications"]["checkout"]["confirms"].as_u64()), (Some(true), Some(1)));
    ada.pull();
    let journal = ada.read("rollouts/checkout/0001/journal.yaml").unwrap();
    ada.write("rollouts/checkout/0001/journal.yaml", &journal.replace("10 pods", "11 pods"));
    ada.commit("a nicer record");
    ada.push();
    seen.note("a record was edited").see(&shell, here, &["audit", "verify"]);
    ada.git(&["revert", "--no-edit", "HEAD"]);
    ada.push();
    seen.note("and put right again").see(&shell, here, &["audit", "verify"]);
    ada.remove("rollouts/checkout/0001/confirm/beta.yaml");
    ada.commit("tidy up");
    ada.push();
    seen.note("a decision that was removed later was there").see(&shell, here, &["audit", "verify", "checkout"]);
    seen.see(&shell, here, &["audit", "verify", "search"]);
    let lost = format!("sha256:{}", "5".repeat(64));
    seen.see(&shell, here, &["audit", "accept", "checkout", "--record", &lost, "-m", "history was rewritten"]);
    assert!(remote.read("rollouts/accepted.yaml").unwrap().contains(&lost));
    seen.see(&shell, here, &["audit", "accept", "checkout", "--record", &lost]);
    seen.see(&shell, here, &["audit", "accept", "checkout", "--record", "sha256:12"]);
    seen.matches();
}

#[test]
fn an_empty_repository_is_told_apart_from_a_missing_one() {
    let remote = Remote::empty();
    let ada = remote.clone_as("Ada");
    let (shell, mut seen) = (Shell::new(), Transcript::new("empty"));
    seen.see(&shell, ada.path(), &["status"]);
    seen.see(&shell, ada.path(), &["validate"]);
    let nowhere = tempfile::tempdir().unwrap();
    seen.see(&shell, nowhere.path(), &["status"]);
    seen.see(&shell, nowhere.path(), &["status", "--repo", "/nowhere/release.git"]);
    seen.see(&shell, nowhere.path(), &["status", "--repo", "ext::sh"]);
    seen.see(&shell, nowhere.path(), &["validate", "/nowhere"]);
    seen.matches();
}
