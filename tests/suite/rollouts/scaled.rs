//! Stable scaled down as requests leave it (`dynamicStableScale`), in a cluster that has room for four pods beside the ten
//! that are wanted.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    blue_green::with_service,
    routed::{self, GATEWAY_FIELDS, backends, canary},
    *,
};
use crate::histories::release::Seen;

const STEPS: &str = "\
steps:
- setWeight: 20
- confirm: {}
- setWeight: 60
- confirm: {}
scaleDownDelaySeconds: 60
dynamicStableScale: true
";

/// Ten at 1.0 are installed.
async fn ten() -> Transcript {
    let manifest = with_service("1.0").replace("replicas: 4", "replicas: 10");
    let (policy, app) = (canary(&(GATEWAY_FIELDS.to_owned() + STEPS)), app(""));
    let [_, (path, route)] = routed::files();
    let files = [(POLICY_FILE, &*policy), (APP_FILE, &*app), (DEPLOYMENT, &*manifest), (path, &*route)];
    let mut told = Transcript::on("checkout", &files, vec![("dca".to_owned(), 2)], 7).await;
    told.stable(1).await;
    told.forget();
    told
}

fn merge(told: &mut Transcript, tag: &str) {
    let manifest = with_service(tag).replace("replicas: 4", "replicas: 10");
    told.person(&format!("merge {tag}"), |clone| {
        clone.write(DEPLOYMENT, &manifest);
    });
}

/// Waits until the rollout waits at a stage with these pods, and tells what the route says. Those that left service may take
/// a moment to end.
async fn at(told: &mut Transcript, number: u32, stage: &str, pods: &str) {
    told.until(&format!("{stage} with {pods}"), |seen: &Seen| seen.waits(number, stage) && seen.pods() == pods).await;
    route(told).await;
}

async fn route(told: &mut Transcript) {
    let backends = backends(&told.release).await;
    told.note(&format!("the route: {backends}"));
}

/// Waits until requests have come back this far.
async fn back(told: &mut Transcript, says: &str) {
    told.until(says, |seen| seen.reasons().contains(says)).await;
    told.note(says);
    route(told).await;
}

#[tokio::test(start_paused = true)]
async fn stable_goes_as_requests_leave_it_with_a_restart_in_the_middle() {
    let mut told = ten().await;
    merge(&mut told, "2.0");
    at(&mut told, 2, "weight-20", "1.0: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "");
    told.until("it grows", |seen| seen.count(2, Event::StageStarted) == 2).await;
    told.restart().await;
    at(&mut told, 2, "weight-60", "1.0: 4, 2.0: 6").await;
    told.decide(2, "confirm/weight-60", "");
    // What is left of it stays for the delay.
    told.until("both sides", |seen| seen.reasons().contains("the old pods stay until")).await;
    route(&mut told).await;
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "2.0: 10");
    route(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_gives_requests_back_as_pods_of_stable_get_ready() {
    let mut told = ten().await;
    merge(&mut told, "2.0");
    at(&mut told, 2, "weight-20", "1.0: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "");
    at(&mut told, 2, "weight-60", "1.0: 4, 2.0: 6").await;
    told.decide(2, "abort", "message: slower than before");
    back(&mut told, "stable has 4 of 10 ready, and the new version keeps 60% of the requests").await;
    // There is room for four more, until pods of 2.0 that nobody sends to any more have made some.
    back(&mut told, "stable has 8 of 10 ready, and the new version keeps 20% of the requests").await;
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "1.0: 10");
    route(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_taken_back_raises_stable_first() {
    let mut told = ten().await;
    merge(&mut told, "2.0");
    at(&mut told, 2, "weight-20", "1.0: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "");
    at(&mut told, 2, "weight-60", "1.0: 4, 2.0: 6").await;
    told.person("revert the confirm of weight-20", |clone| {
        clone.remove("rollouts/checkout/0002/confirm/weight-20.yaml");
    });
    back(&mut told, "stable has 4 of 8 ready, and the new version keeps 60% of the requests").await;
    at(&mut told, 2, "weight-20", "1.0: 8, 2.0: 2").await;
    told.decide(2, "promote", "");
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "2.0: 10");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_waits_for_stable_to_be_whole() {
    let mut told = ten().await;
    merge(&mut told, "2.0");
    at(&mut told, 2, "weight-20", "1.0: 8, 2.0: 2").await;
    told.decide(2, "confirm/weight-20", "");
    at(&mut told, 2, "weight-60", "1.0: 4, 2.0: 6").await;
    merge(&mut told, "3.0");
    back(&mut told, "stable has 8 of 10 ready, and the new version keeps 20% of the requests").await;
    at(&mut told, 3, "weight-20", "1.0: 8, 3.0: 2").await;
    told.decide(3, "promote", "");
    let seen = told.until("3.0 is stable", |seen| seen.is(3, Activity::Stable)).await;
    assert_eq!(seen.pods(), "3.0: 10");
    told!(told);
}
