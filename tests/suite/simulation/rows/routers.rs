//! Group E, where a router is in the way: it cannot be told, it does not follow, it forgets.

use super::*;
use crate::simulation::{
    exhaustive::{ROUTE, manifest},
    faults::WriteFault,
    gateway::{self, ROUTES},
    rollouts::APP,
};

/// A policy with one strategy.
pub(super) fn policy(strategy: &str) -> String {
    let head = "apiVersion: locktender.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {name: two-data-centers}\n";
    format!("{head}spec:\n  progressDeadlineSeconds: 7200\n  strategy:\n{strategy}")
}

pub(super) const GATEWAY: &str = "    canary:
      traffic: {gatewayApi: {httpRoute: checkout}}
      steps: [{setWeight: 20}, {confirm: {}}, {setWeight: 60}, {confirm: {}}]
";

pub(super) const HAPROXY: &str = "    canary:
      traffic: {haproxy: {backend: checkout, runtime: 'unix:/run/haproxy.sock'}}
      steps: [{setWeight: 20}, {confirm: {}}, {setWeight: 60}, {confirm: {}}]
      scaleDownDelaySeconds: 60
";

pub(super) const SWITCH: &str = "    blueGreen:
      traffic: {haproxy: {backend: checkout, runtime: 'unix:/run/haproxy.sock'}}
      confirm: none
      scaleDownDelaySeconds: 60
";

/// 1.9 is installed, six pods of it, and 2.0 merged.
pub(super) async fn released(strategy: &str) -> Sim {
    let (policy, before) = (policy(strategy), manifest("1.9"));
    let mut files = vec![
        ("policies/two-data-centers.yaml", policy.as_str()),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &before),
    ];
    if strategy == GATEWAY {
        files.push(("apps/checkout/route.yaml", ROUTE));
    }
    let sim = Sim::new(&files);
    sim.outside.start_haproxy();
    installed_by(&sim, strategy).await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    sim
}

/// Without a router the first install goes by steps as well: nobody asks for them here.
async fn installed_by(sim: &Sim, strategy: &str) {
    if !strategy.contains("traffic") {
        recorded(sim, 1, Event::StageStarted, if strategy.contains("batched") { "beta" } else { "weight-20" }).await;
        decide(sim, 1, "promote.yaml", "");
    }
    for _ in 0..600 {
        if has(sim, 1, Event::Completed) {
            return;
        }
        sim.pass(Duration::from_millis(500)).await;
    }
    panic!("1.9 is never installed: {}", why(sim));
}

/// The share that a route gives to the new version.
pub(super) fn asked(sim: &Sim) -> u64 {
    let routes = list(sim, ROUTES);
    gateway::share(&gateway::asked(&routes[0]), "checkout-canary")
}

/// The share of the pods of 2.0 of all that HAProxy sends, in percent.
fn sent(sim: &Sim) -> u32 {
    sent_to(sim, "2.0")
}

/// The share of the pods at a tag.
pub(super) fn sent_to(sim: &Sim, tag: &str) -> u32 {
    let end = format!(":{tag}");
    let new: Vec<String> = pods(sim)
        .iter()
        .filter(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(&end)))
        .map(|pod| format!("pod:{}", pod_name(pod)))
        .collect();
    let serves = sim.outside.haproxy_serves();
    let theirs: u32 = serves.iter().filter(|(name, _)| new.contains(name)).map(|(_, weight)| weight).sum();
    theirs * 100 / serves.values().sum::<u32>().max(1)
}

pub(super) fn why(sim: &Sim) -> String {
    let report = sim.report("checkout").unwrap();
    report.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test(start_paused = true)]
async fn fault_70_a_route_that_cannot_be_written_holds_the_release_and_keeps_every_pod() {
    let sim = released(GATEWAY).await;
    confirm(&sim, 2, "weight-20").await;
    recorded(&sim, 2, Event::StageStarted, "weight-60").await;
    sim.faults.every(WriteFault::Conflict, |write| write.contains("HTTPRoute/"));
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (6, 4, 20), "the pods are there, the weight is not");
    assert!(why(&sim).contains("HTTPRoute/checkout has not followed"), "{}", why(&sim));
    assert!(!sim.records("checkout", 2).iter().any(|one| {
        one.event == Event::StageWaiting && one.stage.as_ref().is_some_and(|stage| stage.as_str() == "weight-60")
    }));
    sim.faults.no_more();
    recorded(&sim, 2, Event::StageWaiting, "weight-60").await;
    assert_eq!(asked(&sim), 60);
    // Back, no pod goes before the route could be written.
    sim.faults.every(WriteFault::Conflict, |write| write.contains("HTTPRoute/"));
    decide(&sim, 2, "abort.yaml", "");
    recorded(&sim, 2, Event::Aborting, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (6, 4, 60));
    sim.faults.no_more();
    aborted(&sim, 2).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (6, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn fault_70_a_haproxy_that_cannot_be_reached_keeps_every_pod() {
    let sim = released(HAPROXY).await;
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (6, 2, 20));
    sim.outside.stop_haproxy();
    decide(&sim, 2, "abort.yaml", "");
    recorded(&sim, 2, Event::Aborting, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0")), (6, 2));
    assert!(why(&sim).contains("HAProxy's backend checkout cannot be asked"), "{}", why(&sim));
    // It comes back knowing nothing.
    sim.outside.start_haproxy();
    aborted(&sim, 2).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (6, 0, 0));
    assert_eq!(sim.outside.haproxy_serves().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn fault_70_what_a_haproxy_forgets_is_told_again_at_every_step_and_at_rest() {
    let sim = released(HAPROXY).await;
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    sim.outside.start_haproxy();
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!(sent(&sim), 20);
    confirm(&sim, 2, "weight-20").await;
    confirm(&sim, 2, "weight-60").await;
    recorded(&sim, 2, Event::Completed, "weight-100").await;
    sim.outside.start_haproxy();
    sim.pass(Duration::from_secs(10)).await;
    let serves = sim.outside.haproxy_serves();
    assert_eq!((serves.len(), sent(&sim)), (6, 100), "{serves:?}");
}

#[tokio::test(start_paused = true)]
async fn fault_71_the_old_side_stays_for_its_delay_and_until_then_is_gone_back_to_at_once() {
    let sim = released(SWITCH).await;
    let before: Vec<String> = pods(&sim).iter().map(|pod| pod_name(pod)).collect();
    recorded(&sim, 2, Event::StageStarted, "switch").await;
    sim.pass(Duration::from_secs(30)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (6, 6, 100));
    decide(&sim, 2, "abort.yaml", "");
    recorded(&sim, 2, Event::Aborting, "").await;
    sim.pass(Duration::from_secs(2)).await;
    assert_eq!(sent(&sim), 0, "back before any pod goes or comes");
    aborted(&sim, 2).await;
    let after: Vec<String> = pods(&sim).iter().map(|pod| pod_name(pod)).collect();
    assert!(before.iter().all(|pod| after.contains(pod)) && after.len() == 6, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_takes_everything_from_the_one_before_it_first() {
    let sim = released(GATEWAY).await;
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1"), asked(&sim)), (6, 0, 2, 20));
    sim.assert_invariants();
}
