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
    if strategy.contains("gatewayApi") {
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

fn scaled(strategy: &str) -> String {
    format!("{strategy}      dynamicStableScale: true\n")
}

#[tokio::test(start_paused = true)]
async fn stable_stays_as_it_is_until_the_router_has_followed() {
    let sim = released(&scaled(GATEWAY)).await;
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (5, 2, 20));
    sim.faults.every(WriteFault::Conflict, |write| write.contains("HTTPRoute/"));
    confirm(&sim, 2, "weight-20").await;
    recorded(&sim, 2, Event::StageStarted, "weight-60").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (5, 4, 20), "the pods are there, the weight is not");
    sim.faults.no_more();
    recorded(&sim, 2, Event::StageWaiting, "weight-60").await;
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (3, 4, 60));
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn behind_a_haproxy_too_stable_goes_and_comes_back_with_its_share() {
    let sim = released(&scaled(HAPROXY)).await;
    confirm(&sim, 2, "weight-20").await;
    recorded(&sim, 2, Event::StageWaiting, "weight-60").await;
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (3, 4, 60));
    sim.git.commit("no confirm", &[("rollouts/checkout/0002/confirm/weight-20.yaml", None)]);
    recorded(&sim, 2, Event::StageReverted, "weight-20").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (5, 2, 20));
    confirm(&sim, 2, "weight-20").await;
    sim.pass(Duration::from_secs(60)).await;
    decide(&sim, 2, "abort.yaml", "");
    aborted(&sim, 2).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sent(&sim)), (6, 0, 0));
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_after_the_last_step_waits_for_stable_to_be_whole() {
    for strategy in [scaled(GATEWAY), scaled(HAPROXY), GATEWAY.to_owned(), HAPROXY.to_owned()] {
        let sim = released(&strategy).await;
        confirm(&sim, 2, "weight-20").await;
        confirm(&sim, 2, "weight-60").await;
        recorded(&sim, 2, Event::StageStarted, "weight-100").await;
        sim.pass(Duration::from_secs(20)).await;
        assert_eq!(at(&sim, "2.0"), 6, "both sides are there: {strategy}");
        assert!(at(&sim, "1.9") > 0, "both sides are there: {strategy}");
        sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
        recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
        sim.pass(Duration::from_secs(20)).await;
        let stable = if strategy.contains("dynamic") { 5 } else { 6 };
        assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (stable, 0, 2), "{strategy}");
        sim.assert_invariants();
    }
}

/// What a newer revision would open with is refused; the rollout goes on, and can be aborted.
#[tokio::test(start_paused = true)]
async fn a_newer_revision_that_would_not_raise_stable_again_waits_for_an_abort() {
    let sim = released(&scaled(GATEWAY)).await;
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    let without = policy(GATEWAY);
    sim.git.commit("2.1", &[(DEPLOYMENT, Some(&manifest("2.1"))), ("policies/two-data-centers.yaml", Some(&without))]);
    sim.pass(Duration::from_secs(30)).await;
    assert!(why(&sim).contains("abort the rollout first"), "{}", why(&sim));
    decide(&sim, 2, "abort.yaml", "");
    recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (6, 0, 2));
    sim.assert_invariants();
}

/// Its pods find no room any more: after the deadline everything goes to those that are.
#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_pods_of_stable_for_longer_than_the_deadline() {
    let sim = released(&scaled(GATEWAY)).await;
    confirm(&sim, 2, "weight-20").await;
    recorded(&sim, 2, Event::StageWaiting, "weight-60").await;
    sim.cluster.with(|world| {
        let nodes: Vec<Value> = world.api.list("nodes").map(|node| Value::clone(node)).collect();
        for mut node in nodes {
            node["spec"]["unschedulable"] = Value::Bool(true);
            world.api.update(node, None).unwrap();
        }
    });
    decide(&sim, 2, "abort.yaml", "");
    recorded(&sim, 2, Event::Aborting, "").await;
    sim.pass(Duration::from_secs(3600)).await;
    assert_eq!((asked(&sim), at(&sim, "2.0")), (50, 3), "three of six carry half: {}", why(&sim));
    assert!(why(&sim).contains("stable has 3 of 6 ready"), "{}", why(&sim));
    // The checker does not know of the deadline.
    sim.checker.lock().unwrap().resting = true;
    sim.pass(Duration::from_secs(3700)).await;
    assert_eq!((asked(&sim), at(&sim, "2.0")), (0, 0), "{}", why(&sim));
}
