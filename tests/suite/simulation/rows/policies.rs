//! Row 60: a policy that changes while its rollout runs. What stages is pinned by the plan; what says when to go on is
//! read at HEAD.

use std::collections::BTreeSet;

use super::*;
use crate::simulation::rollouts::{APP, POLICY};
use locktender::core::rollout::report::{Activity, Reason};

const POLICY_FILE: &str = "policies/two-data-centers.yaml";
const APP_FILE: &str = "apps/checkout/app.yaml";

fn change(sim: &Sim, policy: &str) {
    sim.git.commit("another policy", &[(POLICY_FILE, Some(policy))]);
}

/// 2.0 is merged and waits at its beta group.
async fn at_beta() -> Sim {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    sim
}

fn why(sim: &Sim) -> String {
    let report = sim.report("checkout").unwrap();
    report.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test(start_paused = true)]
async fn fault_60_stages_and_confirms_are_those_of_the_plan() {
    let sim = at_beta().await;
    let hash = sim.records("checkout", 2)[0].evidence.plan;
    change(&sim, &POLICY.replace("batchSize: 4", "batchSize: 1").replace("everyBatch", "none"));
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(super::at(&sim, "2.0"), 2, "it still waits for its confirm: {}", why(&sim));
    completed(&sim, 2).await;
    assert_eq!(super::at(&sim, "2.0"), 10);
    assert_eq!(sim.records("checkout", 2)[0].evidence.plan, hash);
    // The next rollout has the policy of its HEAD.
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 3, Event::Completed, "batch-8").await;
    assert!(!has(&sim, 3, Event::StageWaiting));
}

#[tokio::test(start_paused = true)]
async fn fault_60_deadline_and_on_failure_are_those_of_the_plan() {
    let sim = installed().await;
    sim.git.commit("broken", &[(DEPLOYMENT, Some(&manifest("2.0-never-ready")))]);
    recorded(&sim, 2, Event::StageStarted, "beta").await;
    change(&sim, &POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 60\n  onFailure: stop"));
    sim.pass(Duration::from_secs(400)).await;
    assert!(!has(&sim, 2, Event::Aborting) && !has(&sim, 2, Event::Stopped), "the deadline is not the new one");
    aborted(&sim, 2).await;
    assert!(!has(&sim, 2, Event::Stopped), "it is aborted, not stopped");
    assert_eq!(super::at(&sim, "1.9"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_60_on_abort_is_that_of_the_plan() {
    let sim = at_beta().await;
    let holds = POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 600\n  onAbort: hold");
    change(&sim, &holds);
    decide(&sim, 2, "abort.yaml", "");
    aborted(&sim, 2).await;
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), manifest("1.9"), "Git is repaired");
    assert_eq!(sim.git.file(POLICY_FILE).unwrap(), holds, "and what else was merged is kept");
    // The next one is held, as its own policy says.
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 3, Event::StageWaiting, "beta").await;
    change(&sim, POLICY);
    decide(&sim, 3, "abort.yaml", "");
    aborted(&sim, 3).await;
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), manifest("2.1"), "Git is left alone");
    assert_eq!(sim.report("checkout").unwrap().activity, Activity::Held);
}

#[tokio::test(start_paused = true)]
async fn fault_60_on_new_revision_is_read_at_head() {
    let queues = POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 600\n  onNewRevision: queue");
    let sim = at_beta().await;
    change(&sim, &queues);
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    sim.pass(Duration::from_secs(60)).await;
    assert!(!has(&sim, 2, Event::Superseded), "2.1 waits until 2.0 is done");
    change(&sim, POLICY);
    recorded(&sim, 2, Event::Superseded, "beta").await;
    completed(&sim, 3).await;
    assert_eq!(super::at(&sim, "2.1"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_60_a_freeze_is_read_at_head() {
    let sim = at_beta().await;
    sim.git.commit("freeze", &[("freezes/now.yaml", Some("")), ("rollouts/checkout/0002/confirm/beta.yaml", Some(""))]);
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(super::at(&sim, "2.0"), 2);
    assert!(why(&sim).contains("frozen by now"), "{}", why(&sim));
    sim.git.commit("thaw", &[("freezes/now.yaml", None)]);
    recorded(&sim, 2, Event::StageWaiting, "batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn fault_60_other_units_are_a_rollout_of_their_own() {
    let sim = at_beta().await;
    change(&sim, &POLICY.replace("units: [dca, dcb]", "units: [dca, dcb]\n        unitReplicas: {dca: 4, dcb: 6}"));
    let in_unit = |sim: &Sim, unit: &str| {
        let is_there = |pod: &&Arc<Value>| pod["spec"]["nodeName"].as_str().is_some_and(|node| node.starts_with(unit));
        pods(sim).iter().filter(is_there).count()
    };
    completed(&sim, 2).await;
    let opened = sim.records("checkout", 3).first().cloned();
    assert!(opened.is_some_and(|record| record.event == Event::RolloutOpened), "{}", why(&sim));
    recorded(&sim, 3, Event::StageStarted, "beta").await;
    for _ in 0..100 {
        for stage in ["beta", "batch-1", "batch-2"] {
            let waits = sim.records("checkout", 3).iter().any(|one| {
                one.event == Event::StageWaiting && one.stage.as_ref().is_some_and(|name| name.as_str() == stage)
            });
            let path = format!("rollouts/checkout/0003/confirm/{stage}.yaml");
            if waits && sim.git.file(&path).is_none() {
                sim.git.commit("confirm", &[(&path, Some(""))]);
            }
        }
        sim.pass(Duration::from_secs(5)).await;
    }
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((in_unit(&sim, "dca"), in_unit(&sim, "dcb"), in_service(&sim)), (4, 6, 10));
}

/// The file is gone, and an application still names it: HEAD cannot be used. What runs goes on to its next gate, and back.
#[tokio::test(start_paused = true)]
async fn fault_60_the_policys_file_is_gone() {
    let sim = at_beta().await;
    sim.git.commit("gone", &[(POLICY_FILE, None), ("rollouts/checkout/0002/confirm/beta.yaml", Some(""))]);
    sim.pass(Duration::from_secs(300)).await;
    assert_eq!(super::at(&sim, "2.0"), 2, "nothing advances");
    let report = sim.report("checkout").unwrap();
    assert!(report.reasons.iter().any(|reason| matches!(reason, Reason::HeadBroken { .. })), "{}", why(&sim));
    decide(&sim, 2, "abort.yaml", "");
    aborted(&sim, 2).await;
    assert_eq!((super::at(&sim, "1.9"), in_service(&sim)), (10, 10), "going back always works");
}

/// The application does without a policy from now on: the rollout ends as it was planned, and then it is held.
#[tokio::test(start_paused = true)]
async fn fault_60_the_policy_is_taken_away() {
    let sim = at_beta().await;
    let without = APP.replace(", policy: two-data-centers", "");
    let relabelled = manifest("2.0").replacen("{name: checkout}", "{name: checkout, labels: {team: shop}}", 1);
    assert_ne!(relabelled, manifest("2.0"));
    sim.git.commit("no policy, and a label", &[(APP_FILE, Some(&without)), (DEPLOYMENT, Some(&relabelled))]);
    sim.pass(Duration::from_secs(300)).await;
    assert_eq!(super::at(&sim, "2.0"), 2, "it still waits for its confirm: {}", why(&sim));
    completed(&sim, 2).await;
    let uids = || -> BTreeSet<String> {
        sim.cluster.with(|world| world.api.list("pods").map(|pod| pod["metadata"]["uid"].to_string()).collect())
    };
    let before = uids();
    // Only now it is given back; and taken over again. No pod restarts for either.
    recorded(&sim, 3, Event::Completed, "all").await;
    assert_eq!((super::at(&sim, "2.0"), in_service(&sim)), (10, 10));
    sim.git.commit("the policy is back", &[(APP_FILE, Some(APP))]);
    recorded(&sim, 4, Event::Completed, "beta").await;
    assert_eq!(uids(), before);
}
