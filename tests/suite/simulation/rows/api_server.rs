//! Group B: API server, watch and cache.

use locktender::core::rollout::report::{Activity, Reason};

use super::*;
use crate::simulation::{
    faults::{Earlier, EventFault, Odds, WriteFault},
    random::Random,
    rollouts,
};

fn attempts(sim: &Sim) -> usize {
    sim.faults.counts().writes
}

#[tokio::test(start_paused = true)]
async fn fault_13_response_lost_after_commit() {
    let sim = merged().await;
    sim.faults.once(WriteFault::AnswerLost, |write| write.contains("Pod/") && write.contains("\"containers\""));
    completed(&sim, 2).await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_13_writes_whose_answers_are_lost_are_no_failures() {
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &rollouts::POLICY.replace("batchSize: 4", "batchSize: 10")),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    confirm(&sim, 1, "beta").await;
    recorded(&sim, 1, Event::Completed, "batch-1").await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    sim.faults.always(Some(WriteFault::AnswerLost));
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(super::at(&sim, "2.0"), 10, "what is read back shows that it was done: nothing is waited for");
    sim.faults.always(None);
    recorded(&sim, 2, Event::Completed, "batch-1").await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_14_every_write_conflicts_for_thirty_seconds() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    sim.arm(&[]);
    sim.faults.always(Some(WriteFault::Conflict));
    sim.pass(Duration::from_secs(30)).await;
    let tried = attempts(&sim);
    assert!(tried < 200, "tried {tried} times in half a minute: that is no backing off");
    sim.faults.always(None);
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_15_the_api_server_is_busy() {
    let sim = merged().await;
    recorded(&sim, 2, Event::RolloutOpened, "").await;
    sim.arm(&[]);
    sim.faults.always(Some(WriteFault::Busy));
    let before = attempts(&sim);
    sim.pass(Duration::from_secs(20)).await;
    let tried = attempts(&sim) - before;
    assert!((1..=60).contains(&tried), "it asked to wait two seconds each time, and was tried {tried} times");
    sim.faults.always(None);
    completed(&sim, 2).await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_17_a_watch_is_lost_and_lists_again() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    for resource in ["pods", "replicasets.apps", "endpointslices.discovery.k8s.io"] {
        sim.cluster.mute(resource, true);
    }
    sim.pass(Duration::from_secs(120)).await;
    sim.cluster.relist();
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_18_events_are_missed() {
    let sim = merged().await;
    recorded(&sim, 2, Event::RolloutOpened, "").await;
    sim.cluster.mute("pods", false);
    completed(&sim, 2).await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_20_our_own_write_is_not_in_our_cache_yet() {
    let sim = rollouts::checkout();
    sim.pass(Duration::from_millis(1)).await;
    sim.cluster.hold("replicasets.apps", 60);
    completed(&sim, 1).await;
    let creates = written(&sim).into_iter().filter(|one| {
        matches!(&one.write, Write::Create { object } if object.kind().kind == "ReplicaSet") && one.result.is_ok()
    });
    assert_eq!(creates.count(), 2, "one slice a unit");
    assert_eq!(pods(&sim).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_21_the_watch_is_late_and_writes_are_fast() {
    let sim = merged().await;
    for _ in 0..3 {
        sim.cluster.hold("pods", 60);
        sim.cluster.hold("endpointslices.discovery.k8s.io", 60);
        sim.pass(Duration::from_secs(61)).await;
    }
    completed(&sim, 2).await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_22_the_first_list_never_comes() {
    let sim = rollouts::checkout();
    sim.cluster.mute("pods", false);
    sim.pass(Duration::from_secs(300)).await;
    assert!(written(&sim).is_empty(), "nothing is done before everything was listed");
    completed(&sim, 1).await;
}

#[tokio::test(start_paused = true)]
async fn fault_23_events_are_doubled_and_out_of_order() {
    let sim = merged().await;
    let odds = Odds { write: 0, event: 300, read: 0, crash: 0, events: &[EventFault::Duplicate, EventFault::Swap] };
    sim.faults.draw(Random::new(23), odds);
    completed(&sim, 2).await;
    assert!(sim.faults.log().len() > 30);
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_24_an_object_is_made_anew_under_its_name() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    let before = list(&sim, "services").iter().find(|one| pod_name(one) == "checkout").unwrap().clone();
    sim.cluster.with(|world| {
        world.api.delete("services", "shop", "checkout", Default::default()).unwrap();
        let other = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
        });
        world.api.create(other).unwrap();
    });
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    let after = list(&sim, "services").iter().find(|one| pod_name(one) == "checkout").unwrap().clone();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["spec"]["selector"], before["spec"]["selector"], "it is as Git says again");
}

#[tokio::test(start_paused = true)]
async fn fault_26_the_wanted_total_changes_during_a_release() {
    let free = |tag: &str| manifest(tag).replace("  replicas: 10\n", "");
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", rollouts::POLICY),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &free("1.9")),
    ]);
    sim.pass(Duration::from_secs(60)).await;
    person_patches(&sim, "deployments.apps", "checkout", json!({"spec": {"replicas": 10}}));
    sim.git.commit("promote", &[("rollouts/checkout/0001/promote.yaml", Some(""))]);
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(pods(&sim).len(), 10);
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&free("2.0")))]);
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    person_patches(&sim, "deployments.apps", "checkout", json!({"spec": {"replicas": 14}}));
    recorded(&sim, 2, Event::QuotaChanged, "beta").await;
    sim.git.commit("promote", &[("rollouts/checkout/0002/promote.yaml", Some(""))]);
    sim.pass(Duration::from_secs(300)).await;
    assert!(has(&sim, 2, Event::Completed));
    assert_eq!(super::at(&sim, "2.0"), 14, "the total is the person's");
}

#[tokio::test(start_paused = true)]
async fn fault_32_a_finalizer_that_is_never_released() {
    let recreate = rollouts::POLICY.replace("    batched:\n", "    batched:\n      update: Recreate\n");
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &recreate),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    completed(&sim, 1).await;
    for pod in pods(&sim) {
        person_patches(&sim, "pods", &pod_name(&pod), json!({"metadata": {"finalizers": ["example.com/stuck"]}}));
    }
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(&sim, 2, Event::StageStarted, "beta").await;
    sim.pass(Duration::from_secs(60)).await;
    decide(&sim, 2, "abort.yaml", "");
    aborted(&sim, 2).await;
    let running = pods(&sim).iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
    assert_eq!(running, 10, "what never goes does not keep it from going back");
}

#[tokio::test(start_paused = true)]
async fn fault_34_labels_and_owners_that_somebody_edited() {
    let sim = installed().await;
    let slice = pod_name(&list(&sim, "replicasets.apps")[0]);
    let pod = pod_name(&pods(&sim)[0]);
    person_patches(&sim, "replicasets.apps", &slice, json!({"metadata": {"labels": {labels::APP: null}}}));
    person_patches(&sim, "pods", &pod, json!({"metadata": {"labels": {labels::WORKLOAD: "other"}}}));
    sim.pass(Duration::from_secs(1200)).await;
    let deleted = written(&sim).into_iter().filter(|one| matches!(one.write, Write::Delete { .. })).count();
    assert_eq!(deleted, 0, "what is ambiguous is never deleted");
    assert!(pods(&sim).len() >= 9, "{} pods", pods(&sim).len());
    let slice = format!("the slice of {slice}-");
    let reasons = sim.report("checkout").unwrap().reasons;
    let says = |reason: &Reason| matches!(reason, Reason::Following { what } if what.starts_with(&slice));
    assert!(reasons.iter().any(says), "it says whose slice it misses: {reasons:?}");
}

/// A person accepts that the cluster is not what the records tell of.
fn accept(sim: &Sim, number: u32) {
    let last = sim.records("checkout", number).last().unwrap().id;
    sim.git.commit("accept", &[("rollouts/accepted.yaml", Some(&format!("accepted:\n- {last}\n")))]);
}

fn why_restored(sim: &Sim) -> Option<String> {
    let report = sim.report("checkout")?;
    let restored = |reason: &&Reason| matches!(reason, Reason::ClusterRestored { .. });
    report.reasons.iter().find(restored).map(ToString::to_string)
}

/// Lets the controller come back, and nothing happens: the application is held, and says why.
async fn is_held_over(sim: &mut Sim, number: u32, why: &str) {
    let before = (written(sim).len(), sim.records("checkout", number).len(), pods(sim).len());
    sim.start();
    sim.pass(Duration::from_secs(3600)).await;
    let after = (written(sim).len(), sim.records("checkout", number).len(), pods(sim).len());
    assert_eq!(after, before, "nothing is done, and nothing recorded");
    assert_eq!(sim.report("checkout").unwrap().activity, Activity::Held);
    let said = why_restored(sim).expect("it says why");
    assert!(said.contains(why) && said.contains("`locktender audit accept checkout`"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn fault_34_selectors_and_owners_that_somebody_edited() {
    let sim = installed().await;
    let of_dca = |one: &&Arc<Value>| one["metadata"]["labels"][labels::UNIT] == "dca";
    let orphans: Vec<String> = pods(&sim).iter().filter(of_dca).map(|pod| pod_name(pod)).collect();
    for pod in &orphans {
        person_patches(&sim, "pods", pod, json!({"metadata": {"ownerReferences": null}}));
    }
    person_patches(
        &sim,
        "services",
        "checkout",
        json!({"spec": {"selector": {"app": "nobody", labels::IN_SERVICE: null}}}),
    );
    sim.pass(Duration::from_secs(1200)).await;
    let deleted = written(&sim).into_iter().filter(|one| matches!(one.write, Write::Delete { .. })).count();
    assert_eq!((deleted, pods(&sim).len(), in_service(&sim)), (0, 10, 10), "nothing is deleted");
    let owned = pods(&sim).iter().filter(|pod| pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet").count();
    assert_eq!(owned, 10, "they are their slice's again");
    let service = list(&sim, "services").iter().find(|one| pod_name(one) == "checkout").unwrap().clone();
    assert_eq!(service["spec"]["selector"]["app"], "checkout", "and the selector is as Git says");
    assert!(has(&sim, 1, Event::DriftCorrected), "which is recorded");
}

#[tokio::test(start_paused = true)]
async fn fault_35_an_empty_cluster_stands_where_pods_were_brought() {
    let mut sim = installed().await;
    sim.kill();
    for resource in ["deployments.apps", "replicasets.apps", "pods", "services", "configmaps"] {
        for object in list(&sim, resource).iter().filter(|one| one["metadata"]["namespace"] == "shop") {
            let name = pod_name(object);
            // What another deletion took along is gone already.
            sim.cluster.with(|world| drop(world.api.delete(resource, "shop", &name, Default::default())));
        }
    }
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(pods(&sim).len(), 0);
    is_held_over(&mut sim, 1, "up to checkout/0001, and the cluster names no record of it").await;
    accept(&sim, 1);
    sim.pass(Duration::from_secs(300)).await;
    assert_eq!((why_restored(&sim), super::at(&sim, "1.9")), (None, 10), "it was meant: everything is put in place");
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    completed(&sim, 2).await;
    sim.kill();
    sim.start();
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(why_restored(&sim), None, "the anchor is there again, and knows everything");
}

#[tokio::test(start_paused = true)]
async fn fault_35_a_backup_that_lacks_a_release_is_no_drift() {
    let mut sim = installed().await;
    let anchor = |sim: &Sim| list(sim, "configmaps").iter().find(|one| pod_name(one) == "locktender-checkout").cloned();
    let old = anchor(&sim).unwrap();
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    completed(&sim, 2).await;
    sim.kill();
    sim.cluster.with(|world| {
        let mut now = world.api.get("configmaps", "shop", "locktender-checkout").unwrap().as_ref().clone();
        (now["data"], now["binaryData"]) = (old["data"].clone(), old["binaryData"].clone());
        world.api.update(now, None).unwrap();
    });
    is_held_over(&mut sim, 2, "up to checkout/0002, and the cluster names an older record").await;
    sim.kill();
    is_held_over(&mut sim, 2, "an older record").await;
    accept(&sim, 2);
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((why_restored(&sim), super::at(&sim, "2.0")), (None, 10));
    assert_ne!(anchor(&sim).unwrap()["data"], old["data"], "the anchor names the last record again");
}

/// A person deletes the anchor while the controller runs: it wrote it itself, and writes it again.
#[tokio::test(start_paused = true)]
async fn fault_35_an_anchor_that_is_deleted_is_no_other_cluster() {
    let sim = installed().await;
    sim.cluster.with(|world| {
        world.api.delete("configmaps", "shop", "locktender-checkout", Default::default()).unwrap();
    });
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    completed(&sim, 2).await;
    assert_eq!(why_restored(&sim), None);
}

#[tokio::test(start_paused = true)]
async fn fault_35_the_api_server_was_restored_from_a_backup() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageWaiting, "batch-1").await;
    sim.faults.stale(Some(Earlier::First));
    sim.cluster.relist();
    sim.pass(Duration::from_secs(1)).await;
    let before = written(&sim).len();
    decide(&sim, 2, "confirm/batch-1.yaml", "");
    sim.faults.stale(Some(Earlier::First));
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(written(&sim).len(), before, "nothing is done on a view that went back");
    sim.faults.stale(None);
    sim.cluster.relist();
    recorded(&sim, 2, Event::Completed, "batch-2").await;
}
