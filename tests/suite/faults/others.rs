//! Others who write to what is ours, or do not let it go.

use std::{process::Command, time::Duration};

use locktender::{
    adapter::kube::{Settings, Verb},
    core::ledger::Event,
};
use serde_json::{Value, json};

use super::*;
use crate::support::proxy::{Effect, On};

const HANDLE: &str = "apis/apps/v1/namespaces/shop/deployments/checkout";
const SERVICE_PATH: &str = "api/v1/namespaces/shop/services/checkout";

impl Faulty {
    /// How often we have sent an object.
    fn sent(&self, resource: &str, name: &str) -> usize {
        let writes = self.proxy.writes();
        writes.iter().filter(|one| one.verb == Verb::Apply && one.resource == resource && one.name == name).count()
    }
}

/// What another manager applies.
fn theirs(value: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": "shop"},
        "data": {"a": format!("theirs {value}")},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_another_manager_of_our_fields_is_put_back_five_times_and_then_only_told() {
    let faulty = Faulty::installed().await;
    faulty.commit("notes", |clone| {
        clone.write(NOTES_FILE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {a: ours}\n");
    });
    faulty
        .until("checkout", "they are there", |seen| seen.has(1, Event::Applied) && seen.is(1, Activity::Stable))
        .await;
    while faulty.get(NOTES, "configmaps").await.is_none() {
        tokio::task::yield_now().await;
    }
    faulty.proxy.forget();
    for at in 1..=7 {
        faulty.live().apply_as("helm", NOTES, &theirs(at)).await.unwrap();
        // Put back, or told.
        loop {
            let ours = faulty.get(NOTES, "configmaps").await.unwrap()["data"]["a"] == "ours";
            if ours || faulty.seen("checkout").await.reasons().contains("drifted") {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let seen = faulty.says("checkout", "drifted: ConfigMap/notes").await;
    assert_eq!(seen.count(1, Event::DriftCorrected), 5, "no fight goes on for ever");
    faulty.rest().await;
    assert_eq!(faulty.sent("configmaps", "notes"), 5);
    let notes = faulty.get(NOTES, "configmaps").await.unwrap();
    assert!(notes["data"]["a"].as_str().unwrap().starts_with("theirs"), "the other has the last word: {notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_fields_of_another_manager_are_taken_only_where_the_policy_says_so() {
    let faulty = Faulty::empty().await;
    faulty.commit("drift is reported", |clone| {
        clone.replace(POLICY_FILE, "spec:\n", "spec:\n  drift: report\n");
    });
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    faulty.live().ask("POST", "api/v1/namespaces", space).await.unwrap();
    faulty.live().apply_as("helm", NOTES, &theirs(1)).await.unwrap();
    faulty.merge_with(&[(NOTES_FILE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {a: ours}\n")]);
    let seen = faulty.says("checkout", "ConfigMap/notes").await;
    assert!(seen.reasons().contains("helm"), "it names who has them: {}", seen.reasons());
    faulty.rest().await;
    assert_eq!(faulty.get(NOTES, "configmaps").await.unwrap()["data"]["a"], "theirs 1", "nothing is forced");
    assert!(faulty.sent("configmaps", "notes") <= 6, "and it backs off");
    // The other one lets go of it.
    faulty
        .live()
        .apply_as(
            "helm",
            NOTES,
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": "shop"},
            }),
        )
        .await
        .unwrap();
    faulty.install().await;
    assert_eq!(faulty.get(NOTES, "configmaps").await.unwrap()["data"]["a"], "ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_26_an_autoscaler_changes_the_wanted_total_during_a_release() {
    let free = |tag: &str| deployment("checkout", tag).replace("  replicas: 10\n", "");
    let faulty = Faulty::empty().await;
    let scale = async |faulty: &Faulty, replicas: u32| {
        // As a HorizontalPodAutoscaler does: read and written back, and again at its next sync where somebody was faster.
        let path = format!("{HANDLE}/scale");
        loop {
            let mut scale = faulty.live().ask("GET", &path, Value::Null).await.unwrap();
            scale["spec"]["replicas"] = json!(replicas);
            match faulty.live().ask("PUT", &path, scale).await {
                Err(why) if why.contains("Conflict") => continue,
                answered => break answered.unwrap(),
            };
        }
    };
    faulty.merge_with(&[(DEPLOYMENT, &free("1.9"))]);
    faulty
        .until("checkout", "it is installed", |seen| seen.is(1, Activity::Stable) || seen.is(1, Activity::Waiting))
        .await;
    scale(&faulty, 10).await;
    faulty.decide(1, "promote", "");
    faulty.stable(1, "1.9: 10").await;
    faulty.commit("checkout 2.0", |clone| {
        clone.write(DEPLOYMENT, &free("2.0"));
    });
    faulty.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    scale(&faulty, 14).await;
    let seen = faulty.waits(2, "beta", "1.9: 12, 2.0: 2").await;
    assert_eq!(seen.count(2, Event::QuotaChanged), 1, "shares are counted anew");
    faulty.confirm(2, "beta");
    faulty.until("checkout", "it waits again", |seen| seen.waits(2, "batch-1")).await;
    scale(&faulty, 8).await;
    faulty.until("checkout", "fewer", |seen| seen.pods.len() == 8).await;
    faulty.decide(2, "promote", "");
    faulty.stable(2, "2.0: 8").await;
    let handle = faulty.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(handle["spec"]["replicas"], 8, "the total stays the autoscaler's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_32_finalizers_that_nobody_releases_do_not_keep_it_from_going_back() {
    let recreate = POLICY.replace("    batched:\n", "    batched:\n      update: Recreate\n");
    let recreate = recreate.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 5");
    let faulty = Faulty::behind(Release::checkout_with(Place::live(), &[(POLICY_FILE, &recreate)]).await).await;
    faulty.install().await;
    for pod in &faulty.seen("checkout").await.pods {
        let path = format!("api/v1/namespaces/shop/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        let stuck = json!({"metadata": {"finalizers": ["example.com/stuck"]}});
        faulty.live().ask("PATCH", &path, stuck).await.unwrap();
    }
    faulty.set_tag("2.0");
    let going = |seen: &Seen| {
        seen.has(2, Event::StageStarted) && seen.pods.iter().any(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    };
    faulty.until("checkout", "old pods are on their way, for ever", going).await;
    faulty.until("checkout", "it went back", |seen| seen.has(2, Event::Aborted)).await;
    let alive = |seen: &Seen| {
        let alive = seen.pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        alive.filter(|pod| pod["metadata"]["labels"]["locktender.dev/in-service"] == "true").count()
    };
    faulty.until("checkout", "ten serve", |seen| alive(seen) == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_79_a_slice_is_scaled_and_the_handle_edited_in_the_middle() {
    let faulty = Faulty::at_beta().await;
    let slices = faulty.list("apis/apps/v1/replicasets", "replicasets.apps").await;
    let slice = format!("apis/apps/v1/namespaces/shop/replicasets/{}", slices[0]["metadata"]["name"].as_str().unwrap());
    faulty.live().ask("PATCH", &slice, json!({"spec": {"replicas": 9}})).await.unwrap();
    let another = |handle: &mut Value| {
        handle["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/checkout:9.9");
    };
    faulty.change(HANDLE, "deployments.apps", another).await;
    faulty.until("checkout", "ten again", |seen| seen.waits(2, "beta") && seen.pods.len() == 10).await;
    faulty.complete(2).await;
    faulty.stable(2, "2.0: 10").await;
    let handle = faulty.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(handle["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example/checkout:2.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_79_undo_and_restart_are_refused_in_the_middle() {
    let faulty = Faulty::at_beta().await;
    let before = faulty.get(HANDLE, "deployments.apps").await.unwrap();
    for what in ["undo", "restart"] {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(faulty.kubeconfig()).args(["--namespace", "shop", "rollout", what]);
        let output = command.arg("deployment/checkout").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.starts_with("error: "), "{what}: {said}");
    }
    let after = faulty.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(after["spec"], before["spec"]);
    faulty.completes().await;
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_79_the_handle_is_resumed_in_the_middle() {
    let mut faulty = Faulty::at_beta().await;
    let before = faulty.seen("checkout").await.identities();
    // While nobody looks, or the handle may be paused again before anything comes of it.
    faulty.release.kill().await;
    faulty.live().ask("PATCH", HANDLE, json!({"spec": {"paused": false}})).await.unwrap();
    while faulty.list("apis/apps/v1/namespaces/shop/replicasets", "replicasets.apps").await.len() < 3 {
        tokio::task::yield_now().await;
    }
    faulty.release.start().await;
    let seen = faulty.until("checkout", "it is recorded", |seen| seen.has(2, Event::DriftCorrected)).await;
    let corrected = seen.last(2, Event::DriftCorrected).unwrap();
    assert!(corrected.why.contains("ReplicaSet/checkout-"), "it names what goes again: {}", corrected.why);
    let are_back = |seen: &Seen| seen.waits(2, "beta") && seen.identities() == before;
    faulty.until("checkout", "what the Deployment made is gone, and nothing else", are_back).await;
    let handle = faulty.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(handle["spec"]["paused"], true);
    faulty.complete(2).await;
    faulty.stable(2, "2.0: 10").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_90_every_connection_breaks_for_a_while() {
    let mut faulty = Faulty::at_beta().await;
    let backoff = (Duration::from_millis(200), Duration::from_secs(1));
    faulty.release.settings = Settings { backoff, ..Settings::default() };
    faulty.release.start().await;
    faulty.until("checkout", "it is where it was", |seen| seen.waits(2, "beta")).await;
    let before = faulty.get(SERVICE_PATH, "services").await.unwrap();
    let away = faulty.proxy.inject(On::everything(), Effect::Reset);
    let cut = faulty.proxy.inject(On::watches().of("configmaps").times(1), Effect::EventCut);
    let seen = json!({"metadata": {"annotations": {"example.com/seen": "1"}}});
    faulty.live().ask("PATCH", "api/v1/namespaces/shop/configmaps/locktender-checkout", seen).await.unwrap();
    faulty.confirm(2, "beta");
    away.reaches(8).await;
    let asked = away.count();
    faulty.rest().await;
    assert!(away.count() - asked < 60, "it asks more and more seldom: {} times", away.count() - asked);
    away.end();
    cut.end();
    faulty.completes().await;
    let after = faulty.get(SERVICE_PATH, "services").await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}
