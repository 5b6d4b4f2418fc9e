//! Group E: what a rollout means.

use super::*;
use crate::simulation::rollouts;
use locktender::{
    core::{ledger::Cause, rollout::report::Reason},
    sandbox::faults::{Fault, Target},
};

#[tokio::test(start_paused = true)]
async fn fault_66_new_pods_are_never_ready() {
    for tag in ["2.0-never-ready", "2.0-bad-image", "2.0-crash"] {
        let sim = installed().await;
        sim.git.commit("broken", &[(DEPLOYMENT, Some(&manifest(tag)))]);
        recorded(&sim, 2, Event::StageStarted, "beta").await;
        sim.pass(Duration::from_secs(500)).await;
        assert_eq!((super::at(&sim, tag), super::at(&sim, "1.9")), (2, 8), "one pod a unit, not ten");
        aborted(&sim, 2).await;
        let aborting = sim.records("checkout", 2).into_iter().find(|record| record.event == Event::Aborting).unwrap();
        assert_eq!(aborting.evidence.cause, Some(Cause::Failure));
        assert_eq!((super::at(&sim, "1.9"), in_service(&sim)), (10, 10));
        assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), manifest("1.9"));
    }
}

#[tokio::test(start_paused = true)]
async fn fault_67_pods_die_while_they_are_watched() {
    let patient = rollouts::POLICY.replace("      beta:", "      minReadySeconds: 60\n      beta:");
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &patient),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    completed(&sim, 1).await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(&sim, 2, Event::StageStarted, "beta").await;
    sim.pass(Duration::from_secs(30)).await;
    assert_eq!(super::at(&sim, "2.0"), 2);
    sim.cluster.with(|world| world.faults().add(Target::image("*checkout:2.0"), Fault::Crash));
    aborted(&sim, 2).await;
    assert!(!has(&sim, 2, Event::StageWaiting), "it never passed");
    assert_eq!(super::at(&sim, "1.9"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_68_a_node_is_lost_in_the_middle_of_a_batch() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    let node = pods(&sim)[0]["spec"]["nodeName"].as_str().unwrap().to_owned();
    sim.cluster.with(|world| world.faults().set_node_down(&node, true));
    sim.pass(Duration::from_secs(60)).await;
    sim.cluster.with(|world| world.faults().set_node_down(&node, false));
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    assert_eq!(super::at(&sim, "2.0"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_75_contradictory_decisions() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    sim.git.commit(
        "both",
        &[
            ("rollouts/checkout/0002/promote.yaml", Some("")),
            ("rollouts/checkout/0002/abort.yaml", Some("")),
            ("rollouts/checkout/0002/confirm/beta.yaml", Some("")),
        ],
    );
    aborted(&sim, 2).await;
    assert_eq!(super::at(&sim, "1.9"), 10, "abort wins");
    decide(&sim, 2, "promote.yaml", "message: too late\n");
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(super::at(&sim, "1.9"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_76_a_confirm_for_something_else() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    let other = sim.records("checkout", 1)[0].evidence.plan.unwrap();
    decide(&sim, 2, "confirm/beta.yaml", &format!("planHash: {other}\n"));
    sim.pass(Duration::from_secs(60)).await;
    assert!(has(&sim, 2, Event::DecisionRejected) && !has(&sim, 2, Event::ConfirmAccepted));
    assert_eq!(super::at(&sim, "2.0"), 2);
    // The one for an older rollout opens nothing either.
    decide(&sim, 1, "confirm/beta.yaml", "message: wrong number\n");
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(super::at(&sim, "2.0"), 2);
}

#[tokio::test(start_paused = true)]
async fn fault_77_a_new_target_while_paused() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    decide(&sim, 2, "pause.yaml", "");
    recorded(&sim, 2, Event::Paused, "beta").await;
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 2, Event::Superseded, "beta").await;
    completed(&sim, 3).await;
    assert_eq!(super::at(&sim, "2.1"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_77_going_back_to_an_image_that_is_gone() {
    let sim = merged().await;
    completed(&sim, 2).await;
    sim.cluster.with(|world| world.faults().add(Target::image("*checkout:1.9"), Fault::BadImage));
    sim.git.commit("Revert \"checkout 2.0\"", &[(DEPLOYMENT, Some(&manifest("1.9")))]);
    aborted(&sim, 3).await;
    assert_eq!((super::at(&sim, "2.0"), in_service(&sim)), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn fault_79_somebody_scales_and_edits_by_hand() {
    let sim = installed().await;
    let slice = pod_name(&list(&sim, "replicasets.apps")[0]);
    person_patches(&sim, "replicasets.apps", &slice, json!({"spec": {"replicas": 3}}));
    person_patches(&sim, "services", "checkout", json!({"spec": {"selector": {"app": "nobody"}}}));
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!((pods(&sim).len(), in_service(&sim)), (10, 10));
    let service = list(&sim, "services").iter().find(|one| pod_name(one) == "checkout").unwrap().clone();
    assert_eq!(service["spec"]["selector"]["app"], "checkout");
    assert!(has(&sim, 1, Event::DriftCorrected));
    // Somebody who insists is not fought with.
    let before = written(&sim).len();
    for _ in 0..30 {
        person_patches(&sim, "services", "checkout", json!({"spec": {"selector": {"app": "nobody"}}}));
        sim.pass(Duration::from_secs(5)).await;
    }
    let of_service = |write: &Write| matches!(write, Write::Apply { object, .. } if object.kind().kind == "Service");
    let fought = written(&sim)[before..].iter().filter(|one| of_service(&one.write)).count();
    // Five records of one object in ten minutes, the first of them from before: then it is only reported.
    assert_eq!(fought, 4, "put back {fought} times");
    let reasons = sim.report("checkout").unwrap().reasons;
    let reported = |reason: &Reason| matches!(reason, Reason::Drifted { objects } if objects.iter().any(|one| one.starts_with("Service/checkout@")));
    assert!(reasons.iter().any(reported), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn fault_79_the_handle_is_resumed_in_the_middle() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    let names = |sim: &Sim| -> Vec<String> { pods(sim).iter().map(|pod| pod_name(pod)).collect() };
    let before = names(&sim);
    for time in 1..=3 {
        person_patches(&sim, "deployments.apps", "checkout", json!({"spec": {"paused": false}}));
        sim.pass(Duration::from_secs(60)).await;
        assert_eq!(names(&sim), before, "what the Deployment made is gone again, and nothing else");
        assert_eq!(list(&sim, "replicasets.apps").len(), 2);
        let records = sim.records("checkout", 2);
        assert_eq!(records.iter().filter(|record| record.event == Event::DriftCorrected).count(), time);
    }
    completed(&sim, 2).await;
    assert_eq!((super::at(&sim, "2.0"), in_service(&sim)), (10, 10));
    // At rest in two units the handle is paused as well.
    person_patches(&sim, "deployments.apps", "checkout", json!({"spec": {"paused": false}}));
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!((names(&sim), in_service(&sim)), (before, 10));
}

#[tokio::test(start_paused = true)]
async fn fault_79_a_deployment_with_one_slice_is_restarted_by_hand() {
    let flat = rollouts::POLICY.replace(
        "      topology:\n        unitType: topology.kubernetes.io/zone\n        units: [dca, dcb]\n        \
         autoReschedule: {enable: true, initialDelaySeconds: 10}\n",
        "",
    );
    assert!(!flat.contains("topology"));
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &flat),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    recorded(&sim, 1, Event::StageWaiting, "beta").await;
    decide(&sim, 1, "promote.yaml", "");
    sim.pass(Duration::from_secs(120)).await;
    assert!(has(&sim, 1, Event::Completed));
    for time in ["10:00", "11:00"] {
        let noted = json!({"kubectl.kubernetes.io/restartedAt": time});
        let template = json!({"metadata": {"annotations": noted}});
        person_patches(&sim, "deployments.apps", "checkout", json!({"spec": {"template": template}}));
        sim.pass(Duration::from_secs(300)).await;
        let restarted = |pod: &Arc<Value>| pod["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == time;
        assert!(pods(&sim).iter().all(restarted), "every pod is new: {:#?}", list(&sim, "replicasets.apps"));
        assert_eq!((pods(&sim).len(), in_service(&sim)), (10, 10));
        assert_eq!(list(&sim, "replicasets.apps").len(), 1, "one slice, which the Deployment owns");
        assert!(sim.report("checkout").unwrap().reasons.is_empty(), "{:?}", sim.report("checkout").unwrap().reasons);
    }
    // Another image by hand is no restart: it is put back.
    sim.cluster.with(|world| {
        let mut handle = Value::clone(&world.api.get("deployments.apps", "shop", "checkout").unwrap());
        handle["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/checkout:9.9");
        super::person_patches_in(world, "deployments.apps", "checkout", json!({"spec": handle["spec"]}));
    });
    sim.pass(Duration::from_secs(300)).await;
    assert!(has(&sim, 1, Event::DriftCorrected));
    assert_eq!((super::at(&sim, "1.9"), pods(&sim).len()), (10, 10));
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    decide(&sim, 2, "promote.yaml", "");
    sim.pass(Duration::from_secs(300)).await;
    assert_eq!((super::at(&sim, "2.0"), pods(&sim).len(), in_service(&sim)), (10, 10, 10));
}
