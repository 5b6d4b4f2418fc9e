//! What must come out the same when the controller dies in the middle.

use locktender::core::{ledger::Event, rollout::report::Activity};
use serde_json::json;

use super::*;
use crate::histories::release::Place;

#[tokio::test(start_paused = true)]
async fn a_reschedule_with_a_restart_in_the_middle() {
    let topology = "\
topology:
  unitType: topology.kubernetes.io/zone
  units: [dca, dcb]
  autoReschedule: {enable: true, initialDelaySeconds: 10}";
    let (policy, app, manifest) = (policy("", topology), app(""), deployment(10, "1.9", ""));
    let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, &app), (DEPLOYMENT, &manifest)];
    let units = vec![("dca".to_owned(), 3), ("dcb".to_owned(), 1)];
    let mut told = Transcript::on("checkout", &files, units, 4).await;
    told.waits(1, "beta").await;
    told.decide(1, "confirm/beta", "");
    told.waits(1, "batch-1").await;
    told.decide(1, "confirm/batch-1", "");
    let seen = told.release.until("checkout", "it is recorded", |seen| seen.has(1, Event::Rescheduled)).await;
    let ready = seen.pods.iter().filter(|pod| crate::simulation::checker::is_ready(pod)).count();
    assert!(told.release.place() != Place::Simulation || ready < 10, "who is moved is not there yet");
    told.restart().await;
    let seen = told.stable(1).await;
    assert_eq!(seen.count(1, Event::Rescheduled), 1);
    assert_eq!(seen.units().into_values().collect::<Vec<_>>(), [6, 4]);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_three_way_repair_with_a_restart_in_the_middle() {
    let mut told = installed(&policy("", "")).await;
    told.merge("2.0");
    told.waits(2, "beta").await;
    told.person("a comment", |clone| {
        let text = clone.read(DEPLOYMENT).unwrap();
        clone.write(DEPLOYMENT, &format!("# Paid for by the shop.\n{text}"));
    });
    told.decide(2, "abort", "");
    told.until("it goes back", |seen| seen.is(2, Activity::Aborting)).await;
    told.restart().await;
    told.stable(2).await;
    let repaired = told.release.remote.read(DEPLOYMENT).unwrap();
    assert_eq!(repaired, format!("# Paid for by the shop.\n{}", deployment(10, "1.9", "")).trim_end());
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_79_drift_is_put_back_with_a_restart_in_the_middle() {
    let mut told = installed(&policy("", "")).await;
    told.note("somebody scales a slice to nothing, and gives the handle another image");
    let slices = told.release.list("apis/apps/v1/replicasets", "replicasets.apps").await;
    let slice = slices.iter().find(|one| one["metadata"]["labels"]["locktender.dev/unit"] == "dca").unwrap();
    let slice = format!("apis/apps/v1/namespaces/shop/replicasets/{}", slice["metadata"]["name"].as_str().unwrap());
    let another = |handle: &mut serde_json::Value| {
        handle["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/checkout:9.9");
    };
    told.release.kill().await;
    told.release.change(&slice, "replicasets.apps", |slice| slice["spec"]["replicas"] = json!(0)).await;
    told.release.change(HANDLE, "deployments.apps", another).await;
    told.release.until("checkout", "its pods are gone", |seen| seen.pods.len() == 5).await;
    told.note("nobody lets the controller push");
    told.release.reject_pushes(10_000);
    told.release.start().await;
    // Pods are shared out without a record; the handle waits for one.
    told.release.until("checkout", "the slice is as it was", |seen| seen.pods.len() == 10).await;
    let handle = told.release.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(handle["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example/checkout:9.9");
    told.release.reject_pushes(0);
    told.restart().await;
    told.until("it is recorded", |seen| seen.is(1, Activity::Stable) && seen.has(1, Event::DriftCorrected)).await;
    told.release.rest().await;
    let seen = told.stable(1).await;
    assert_eq!((seen.count(1, Event::DriftCorrected), seen.pods().as_str()), (1, "1.9: 10"));
    let handle = told.release.get(HANDLE, "deployments.apps").await.unwrap();
    assert_eq!(handle["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example/checkout:1.9");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_63_a_large_prune_asks_first_with_a_restart_in_the_middle() {
    let mut told = checkout(&policy("", ""), &deployment(10, "1.9", "")).await;
    told.person("four more objects", |clone| {
        for name in ["one", "two", "three", "four"] {
            let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n");
            clone.write(&format!("apps/checkout/{name}.yaml"), &text);
        }
    });
    told.complete(1).await;
    told.release.rest().await;
    told.person("they go again", |clone| {
        ["one", "two", "three", "four"].iter().for_each(|name| {
            clone.remove(&format!("apps/checkout/{name}.yaml"));
        });
    });
    told.waits(2, "start").await;
    let there = async |told: &Transcript| {
        let maps = told.release.list("api/v1/configmaps", "configmaps").await;
        let names = ["one", "two", "three", "four"];
        let ours = maps.iter().filter(|map| map["metadata"]["namespace"] == "shop");
        ours.filter(|map| names.iter().any(|name| map["metadata"]["name"] == *name)).count()
    };
    assert_eq!(there(&told).await, 4, "nothing is removed before somebody confirms");
    told.restart().await;
    told.waits(2, "start").await;
    assert_eq!(there(&told).await, 4, "nothing is removed before somebody confirms");
    told.decide(2, "confirm/start", "");
    told.stable(2).await;
    assert_eq!(there(&told).await, 0);
    told!(told);
}
