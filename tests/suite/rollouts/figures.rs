//! The exact figures that the strategy must show.

use std::time::Duration;

use super::*;

fn stages(transcript: &Transcript, number: u32) -> String {
    let plan = transcript.release.remote.read(&format!("rollouts/checkout/{number:04}/plan.yaml")).unwrap();
    let plan = locktender::core::rollout::plan::read(&format!("{plan}\n")).unwrap();
    let stages = plan.stages.iter().map(|stage| {
        let counts = stage.quota.get("Deployment/checkout").cloned().unwrap_or_default();
        let counts: Vec<String> = counts.into_iter().map(|(unit, count)| format!("{unit} {count}")).collect();
        format!("{} {}{}", stage.name, counts.join(" "), if stage.asks_for_confirm() { " confirm" } else { "" })
    });
    stages.collect::<Vec<_>>().join(", ")
}

#[tokio::test(start_paused = true)]
async fn ten_replicas_in_two_units_are_five_and_five_in_batches_of_two_four_and_four() {
    let mut told = checkout(&policy("", ""), &deployment(10, "1.9", "")).await;
    told.complete(1).await;
    assert_eq!(stages(&told, 1), "beta dca 1 dcb 1 confirm, batch-1 dca 3 dcb 3 confirm, batch-2 dca 5 dcb 5");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn four_fixed_and_sixty_percent_are_four_and_six() {
    let topology = "\
topology:
  unitType: topology.kubernetes.io/zone
  units: [dca, dcb]
  unitReplicas: {dca: 4, dcb: 60%}";
    let mut told = checkout(&policy("", topology), &deployment(10, "1.9", "")).await;
    told.complete(1).await;
    assert_eq!(stages(&told, 1), "beta dca 1 dcb 1 confirm, batch-1 dca 3 dcb 3 confirm, batch-2 dca 4 dcb 6");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn four_fixed_and_ten_percent_leave_five_for_the_third() {
    let topology = "\
topology:
  unitType: topology.kubernetes.io/zone
  units: [a, b, c]
  unitReplicas: {a: 4, b: 10%}";
    let (policy, app, manifest) = (policy("", topology), app(""), deployment(10, "1.9", ""));
    let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, &app), (DEPLOYMENT, &manifest)];
    let units = ["a", "b", "c"].map(|unit| (unit.to_owned(), 2)).to_vec();
    let mut told = Transcript::on("checkout", &files, units, 10).await;
    told.complete(1).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_a_hundred_replicas_that_are_never_ready_cost_two_pods() {
    let mut told = checkout(&policy("progressDeadlineSeconds: 60", ""), &deployment(100, "1.9-never-ready", "")).await;
    told.release.until("checkout", "two pods", |seen| seen.pods.len() == 2).await;
    let seen = told.release.seen("checkout").await;
    told.tell(&seen);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(told.release.seen("checkout").await.pods.len(), 2, "2 pods, not 100");
    }
    told.held(1).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_six_takes_six_back_and_touches_no_other() {
    let mut told = installed(&policy("", "")).await;
    let before = told.release.seen("checkout").await;
    told.merge("2.0");
    told.waits(2, "beta").await;
    told.decide(2, "confirm/beta", "");
    let at_six = told.waits(2, "batch-1").await;
    told.decide(2, "abort", "message: error rate\n");
    let after = told.stable(2).await;
    assert_eq!(after.identities(), before.identities(), "0 of 10 names, UIDs, nodes and addresses changed");
    let restarts = |pods: &[std::sync::Arc<serde_json::Value>]| {
        pods.iter().filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0).count()
    };
    assert_eq!((restarts(&at_six.pods), restarts(&after.pods)), (4, 4), "four were never touched");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_unit_with_room_for_four_of_five_gives_one_away_after_the_delay() {
    let topology = "\
topology:
  unitType: topology.kubernetes.io/zone
  units: [dca, dcb]
  autoReschedule: {enable: true, initialDelaySeconds: 10}";
    let (policy, app, manifest) = (policy("", topology), app(""), deployment(10, "1.9", ""));
    let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, &app), (DEPLOYMENT, &manifest)];
    // Four pods a node: dcb has one node only.
    let units = vec![("dca".to_owned(), 3), ("dcb".to_owned(), 1)];
    let mut told = Transcript::on("checkout", &files, units, 4).await;
    let seen = told.complete(1).await;
    assert_eq!(seen.units().into_values().collect::<Vec<_>>(), [6, 4]);
    assert_eq!(seen.count(1, locktender::core::ledger::Event::Rescheduled), 1);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn at_rest_too_pods_that_find_no_room_go_to_the_other_unit() {
    let topology = "\
topology:
  unitType: topology.kubernetes.io/zone
  units: [dca, dcb]
  autoReschedule: {enable: true, initialDelaySeconds: 10}";
    let (policy, app, manifest) = (policy("", topology), app(""), deployment(10, "1.9", ""));
    let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, &app), (DEPLOYMENT, &manifest)];
    let units = vec![("dca".to_owned(), 3), ("dcb".to_owned(), 1)];
    let mut told = Transcript::on("checkout", &files, units, 5).await;
    told.complete(1).await;
    told.forget();
    told.person("fourteen", |clone| {
        clone.replace(DEPLOYMENT, "replicas: 10", "replicas: 14");
    });
    let spread = |seen: &crate::histories::release::Seen| seen.units().into_values().collect::<Vec<_>>() == [9, 5];
    told.until("nine and five", spread).await;
    told.release.rest().await;
    let seen = told.until("nine and five", spread).await;
    assert_eq!(seen.count(1, locktender::core::ledger::Event::Rescheduled), 1);
    told!(told);
}
