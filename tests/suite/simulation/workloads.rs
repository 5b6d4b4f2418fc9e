//! StatefulSets and DaemonSets go as far as the frontier, back from it, and back to stable: the checker looks on.

use std::time::Duration;

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    Sim,
    exhaustive::{daemon_set, stateful_set},
    rollouts::{APP, DEPLOYMENT, POLICY, confirm, waits},
};

const CONFIRM: &str = "rollouts/checkout/0002/confirm/beta.yaml";

/// How many pods there are at 1.9 and at 2.0.
fn versions(sim: &Sim) -> [usize; 2] {
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let is_at = |pod: &serde_json::Value, tag: &str| {
        pod["spec"]["containers"][0]["image"].as_str().unwrap().ends_with(tag)
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    ["1.9", "2.0"].map(|tag| pods.iter().filter(|pod| is_at(pod, tag)).count())
}

fn uids(sim: &Sim) -> Vec<String> {
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let mut uids: Vec<String> = pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
    uids.sort();
    uids
}

/// Beta, a batch, a step back, a batch again, an abort; `new` says how many are new at beta, at the batch, and at the end.
async fn there_and_back(update: &str, manifest: fn(&str) -> String, new: [usize; 3]) {
    let [beta, batch, all] = new;
    let policy = POLICY.replace("batchSize: 4", &format!("batchSize: 2\n      update: {update}"));
    let first = manifest("1.9");
    let files =
        [("policies/two-data-centers.yaml", policy.as_str()), ("apps/checkout/app.yaml", APP), (DEPLOYMENT, &first)];
    let mut sim = Sim::new(&files);
    sim.recorded("checkout", 1, Event::RolloutOpened, "", 1).await.unwrap();
    sim.git.commit("promote", &[("rollouts/checkout/0001/promote.yaml", Some(""))]);
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    assert_eq!(versions(&sim), [all, 0]);
    let before = uids(&sim);
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim.until("checkout", "waiting at beta", |report| waits(report, "beta")).await;
    assert_eq!(versions(&sim), [all - beta, beta]);
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    assert_eq!(versions(&sim), [all - batch, batch]);
    sim.git.commit("Revert", &[(CONFIRM, None)]);
    sim.recorded("checkout", 2, Event::StageReverted, "beta", 1).await.unwrap();
    sim.until("checkout", "waiting at beta again", |report| waits(report, "beta")).await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(versions(&sim), [all - beta, beta]);
    confirm(&mut sim, 2, "beta").await;
    sim.until("checkout", "waiting at batch-1", |report| waits(report, "batch-1")).await;
    sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
    sim.recorded("checkout", 2, Event::Aborted, "", 1).await.unwrap();
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(versions(&sim), [all, 0]);
    assert_eq!(uids(&sim) == before, update == "InPlaceOnly", "in place no pod is made anew, else some are");
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_in_place() {
    there_and_back("InPlaceOnly", stateful_set, [1, 3, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_made_anew() {
    there_and_back("Recreate", stateful_set, [1, 3, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_in_place() {
    there_and_back("InPlaceOnly", daemon_set, [2, 4, 6]).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_made_anew() {
    there_and_back("Recreate", daemon_set, [2, 4, 6]).await;
}
