//! The canary strategy: new pods beside the old ones, more of them at each step.

use std::time::Duration;

use locktender::core::{
    ledger::Event,
    rollout::report::{Activity, Reason},
};

use super::*;
use crate::histories::release::Seen;

const STEPS: &str = "\
steps:
- setWeight: 20
- pause: {duration: 5m}
- setWeight: 40
- confirm: {}
- setWeight: 60
";

/// A canary policy under the name that the application's file asks for.
pub fn canary(fields: &str) -> String {
    let mut text = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  strategy:
    canary:
"
    .to_owned();
    fields.lines().for_each(|line| text += &format!("      {line}\n"));
    text
}

/// Waits until the rollout waits with these pods. Those that left service may take a moment to end.
async fn at(told: &mut Transcript, number: u32, pods: &str) -> Seen {
    told.until(pods, |seen| seen.is(number, Activity::Waiting) && seen.pods() == pods).await
}

/// Until when a stage lasts, where it does for a time.
fn lasts(seen: &Seen) -> Option<jiff::Timestamp> {
    seen.report.as_ref()?.reasons.iter().find_map(|reason| match reason {
        Reason::Pause { until, .. } => Some(*until),
        _ => None,
    })
}

/// Ten at 1.9 are installed, without asking anybody.
async fn ten(fields: &str) -> Transcript {
    let mut told = checkout(&canary(fields), &deployment(10, "1.9", "")).await;
    let seen =
        told.until("it waits or is done", |seen| seen.is(1, Activity::Waiting) || seen.is(1, Activity::Stable)).await;
    if seen.is(1, Activity::Waiting) {
        told.decide(1, "promote", "");
        told.stable(1).await;
    }
    told.forget();
    told
}

#[tokio::test(start_paused = true)]
async fn a_canary_grows_by_weights_a_pause_and_a_confirm_with_a_restart_in_the_middle() {
    let mut told = ten(STEPS).await;
    told.merge("2.0");
    let seen = at(&mut told, 2, "1.9: 8, 2.0: 2").await;
    let until = lasts(&seen).unwrap();
    told.restart().await;
    let seen = told.until("it still lasts", |seen| seen.is(2, Activity::Waiting)).await;
    assert_eq!(lasts(&seen), Some(until), "a restart makes it neither longer nor shorter");
    let seen = at(&mut told, 2, "1.9: 6, 2.0: 4").await;
    let told_at = |event, stage: &str| {
        let records = seen.ledger[&2].iter();
        let mut found =
            records.filter(|one| one.event == event && one.stage.as_ref().is_some_and(|name| name.as_str() == stage));
        found.next().unwrap().time
    };
    let lasted = told_at(Event::StageStarted, "weight-40").duration_since(told_at(Event::StageWaiting, "weight-20"));
    assert!((300..310).contains(&lasted.as_secs()), "{lasted:?}");
    told.decide(2, "confirm/weight-40", "");
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "2.0: 10");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn capacity_comes_before_old_pods_go() {
    let mut told =
        ten("steps:\n- setWeight: 50\n- confirm: {}\nmaxSurge: 2\nmaxUnavailable: 0\nminReadySeconds: 5").await;
    told.merge("2.0");
    let (mut most, mut least) = (0, usize::MAX);
    loop {
        let seen = told.release.seen("checkout").await;
        let ready = seen.pods.iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
            ready && pod["metadata"]["labels"]["locktender.dev/in-service"] == "true"
        });
        least = least.min(ready.count());
        most = most.max(seen.pods.len());
        if seen.waits(2, "weight-50") && seen.pods() == "1.9: 5, 2.0: 5" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((most, least), (12, 10));
    told.complete(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_is_aborted_leaves_as_it_came() {
    let mut told = ten(STEPS).await;
    told.merge("2.0");
    let seen = at(&mut told, 2, "1.9: 6, 2.0: 4").await;
    let old: Vec<String> = seen.identities();
    told.decide(2, "abort", "message: slower than before");
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "1.9: 10");
    let kept = seen.identities().into_iter().filter(|pod| old.contains(pod)).count();
    assert_eq!(kept, 6, "the pods that were never touched");
    assert!(told.release.remote.read(DEPLOYMENT).unwrap().contains("checkout:1.9"), "Git is repaired");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_taken_back_takes_the_later_pods_back() {
    let mut told = ten("steps:\n- setWeight: 20\n- confirm: {}\n- setWeight: 60\n- confirm: {}").await;
    told.merge("2.0");
    at(&mut told, 2, "1.9: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "");
    at(&mut told, 2, "1.9: 4, 2.0: 6").await;
    told.person("take the confirm back", |clone| {
        clone.remove("rollouts/checkout/0002/confirm/weight-20.yaml");
    });
    let seen = told.until("back", |seen| seen.waits(2, "weight-20") && seen.pods() == "1.9: 8, 2.0: 2").await;
    assert_eq!(seen.pods.len(), 10);
    told.decide(2, "confirm/weight-20", "message: again");
    at(&mut told, 2, "1.9: 4, 2.0: 6").await;
    told.decide(2, "confirm/weight-60", "");
    told.stable(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_starts_from_the_first_step() {
    let mut told = ten(STEPS).await;
    told.merge("2.0");
    at(&mut told, 2, "1.9: 6, 2.0: 4").await;
    told.merge("2.1");
    let seen = at(&mut told, 3, "1.9: 8, 2.1: 2").await;
    assert!(lasts(&seen).is_some());
    told.decide(3, "promote", "");
    told.stable(3).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_person_is_asked_before_the_first_pod_and_before_the_last() {
    let mut told = ten("stepWeight: 30\nmaxWeight: 60\ninterval: 1m\nconfirmStart: true\nconfirmPromotion: true").await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    let seen = told.waits(2, "start").await;
    assert_eq!(seen.identities(), before, "nothing is touched before");
    told.decide(2, "confirm/start", "");
    let seen = told.until("it waits before the end", |seen| seen.waits(2, "weight-60") && lasts(seen).is_none()).await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 6");
    told.complete(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_that_must_be_confirmed_leaves_nothing_of_the_one_before_until_then() {
    let mut told = ten("stepWeight: 30\nmaxWeight: 60\ninterval: 1h\nconfirmStart: true").await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    told.waits(2, "start").await;
    told.decide(2, "confirm/start", "");
    at(&mut told, 2, "1.9: 7, 2.0: 3").await;
    told.merge("2.1");
    let seen = at(&mut told, 3, "1.9: 10").await;
    assert!(seen.waits(3, "start"));
    let stayed = seen.identities().into_iter().filter(|pod| before.contains(pod)).count();
    assert!(stayed >= 7, "only what was taken from stable came anew");
    told.decide(3, "confirm/start", "");
    at(&mut told, 3, "1.9: 7, 2.1: 3").await;
    told.decide(3, "promote", "");
    told.stable(3).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_a_canary_that_is_never_ready_costs_nobody_a_pod_and_goes_back() {
    let mut told = ten("steps:\n- setWeight: 20").await;
    told.merge("2.0-never-ready");
    let seen = told.until("it fails", |seen| seen.has(2, Event::Aborting)).await;
    assert_eq!(seen.versions()["1.9"], 10, "no old pod went for one that is not ready");
    told.stable(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn good_numbers_let_a_canary_grow_and_bad_ones_take_it_back() {
    let measured = canary(
        "\
steps:
- setWeight: 20
- analysis: {metrics: [success-rate]}
- confirm: {}
- setWeight: 40
- analysis: {metrics: [success-rate]}
- setWeight: 60
- analysis: {metrics: [success-rate]}
",
    );
    let metrics = "\
spec:
  metrics:
    success-rate: {web: {url: 'http://127.0.0.1/rate'}, successCondition: value >= 0.99, interval: 10s, count: 3, failureLimit: 1}
";
    // Installed by another policy: there is nobody to measure yet.
    let mut told = ten("steps:\n- setWeight: 50").await;
    // The numbers are the simulation's.
    let Some(outside) = told.release.outside.clone() else { return };
    told.person("measure what is released", |clone| {
        clone.write(POLICY_FILE, &measured.replace("spec:\n", metrics));
    });
    told.note("measured from here on: 0.999");
    outside.measures(|_| 0.999);
    told.merge("2.0");
    told.until("it waits", |seen| seen.waits(2, "weight-20") && seen.pods() == "1.9: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "message: it looks fine");
    let seen = told.stable(2).await;
    assert_eq!((seen.pods().as_str(), seen.all(2, Event::AnalysisRun).len()), ("2.0: 10", 3));
    told.note("measured from here on: 0.5");
    outside.measures(|_| 0.5);
    told.merge("2.1");
    let seen = told.stable(3).await;
    assert_eq!(seen.pods(), "2.0: 10");
    assert!(!seen.has(3, Event::StageStarted) || seen.all(3, Event::StageStarted).len() == 1, "it never grew");
    assert!(told.release.remote.read(DEPLOYMENT).unwrap().contains("checkout:2.0"), "Git is repaired");
    told!(told);
}
