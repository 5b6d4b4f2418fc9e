//! A rollout that must be confirmed before it starts, after another one was half-way, or itself: requests and pods are
//! stable's until somebody says so.

use super::{
    routers::{GATEWAY, HAPROXY, SWITCH, policy, released, why},
    *,
};
use crate::simulation::{
    exhaustive::manifest,
    gateway::{self, ROUTES},
    rollouts::APP,
};

/// By the number of pods.
const PODS: &str = "    canary:
      steps: [{setWeight: 20}, {confirm: {}}]
      maxSurge: 2
";

const BATCHES: &str = "    batched:
      batchSize: 2
      confirm: everyBatch
";

/// The same strategy, and somebody is asked first.
fn asking(strategy: &str) -> String {
    strategy.replace("steps: [", "steps: [{confirm: {}}, ").replace("confirm: none", "confirmStart: true")
}

/// The first stage with pods that waits for somebody, or lasts.
fn step(strategy: &str) -> &'static str {
    if strategy.contains("batched") { "beta" } else { "weight-20" }
}

/// How much of all requests goes to pods of a tag, in percent: by routers, and by the Service that people know.
fn gets(sim: &Sim, tag: &str) -> [u64; 3] {
    let route = list(sim, ROUTES).first().map_or(0, |route| {
        let weights = gateway::in_force(route);
        if weights.is_empty() { 0 } else { gateway::share(&weights, "checkout-canary") }
    });
    [route, u64::from(routers::sent_to(sim, tag)), served(sim, tag)]
}

/// How many pods of a tag the Service sends to.
fn served(sim: &Sim, tag: &str) -> u64 {
    let end = format!(":{tag}");
    let named: Vec<String> = pods(sim)
        .iter()
        .filter(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(&end)))
        .map(|pod| pod_name(pod))
        .collect();
    let slices = list(sim, "endpointslices.discovery.k8s.io");
    let of_it = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "checkout");
    let endpoints = of_it.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let is_it = |endpoint: &&Value| {
        endpoint["targetRef"]["name"].as_str().is_some_and(|name| named.iter().any(|one| one == name))
    };
    ready.filter(is_it).count() as u64
}

/// Merges 2.1 by a policy that asks before anything is touched.
fn merge(sim: &Sim, strategy: &str) {
    let (policy, manifest) = (policy(&asking(strategy)), manifest("2.1"));
    sim.git.commit("2.1", &[("policies/two-data-centers.yaml", Some(&policy)), (DEPLOYMENT, Some(&manifest))]);
}

/// 2.0 is half-way, and 2.1 is merged by a policy that asks before anything is touched.
async fn superseded(from: &str, to: &str) -> Sim {
    let sim = released(from).await;
    recorded(&sim, 2, Event::StageWaiting, step(from)).await;
    assert!(at(&sim, "2.0") > 0, "{}", why(&sim));
    merge(&sim, to);
    recorded(&sim, 2, Event::Superseded, step(from)).await;
    sim
}

/// Everything is as it was when stable was all there was, and nothing comes of what is to be confirmed.
async fn is_stable_again(sim: &Sim, stable: &str, version: &str) {
    for _ in 0..1200 {
        if at(sim, version) == 0 {
            break;
        }
        sim.pass(Duration::from_millis(100)).await;
    }
    sim.pass(Duration::from_secs(30)).await;
    assert_eq!((at(sim, stable), at(sim, version), gets(sim, version)), (6, 0, [0; 3]), "{}", why(sim));
    let services: Vec<Value> =
        list(sim, "services").iter().map(|service| service["metadata"]["name"].clone()).collect();
    assert_eq!(services, ["checkout"], "{}", why(sim));
}

#[tokio::test(start_paused = true)]
async fn a_version_in_between_keeps_no_request_and_no_pod_while_a_start_is_asked_for() {
    for (from, to) in
        [(GATEWAY, GATEWAY), (HAPROXY, HAPROXY), (PODS, PODS), (GATEWAY, HAPROXY), (HAPROXY, PODS), (BATCHES, PODS)]
    {
        println!("{from:?} becomes {to:?}");
        let sim = superseded(from, to).await;
        recorded(&sim, 3, Event::StageWaiting, "start").await;
        is_stable_again(&sim, "1.9", "2.0").await;
        assert_eq!(at(&sim, "2.1"), 0, "nobody confirmed it");
        confirm(&sim, 3, "start").await;
        recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
        assert!(at(&sim, "2.1") > 0);
        decide(&sim, 3, "promote.yaml", "");
        recorded(&sim, 3, Event::Completed, "weight-100").await;
        assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (0, 0, 6));
        sim.assert_invariants();
    }
}

/// Requests first, and at once: no pod that gets some goes before.
#[tokio::test(start_paused = true)]
async fn a_switch_that_was_superseded_is_switched_back_before_anybody_confirms() {
    let sim = released(SWITCH).await;
    recorded(&sim, 2, Event::StageStarted, "switch").await;
    sim.pass(Duration::from_secs(30)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), gets(&sim, "2.0")), (6, 6, [0, 100, 6]));
    merge(&sim, SWITCH);
    recorded(&sim, 3, Event::StageWaiting, "start").await;
    sim.pass(Duration::from_secs(2)).await;
    assert_eq!(gets(&sim, "2.0"), [0; 3], "back at once: {}", why(&sim));
    is_stable_again(&sim, "1.9", "2.0").await;
    confirm(&sim, 3, "start").await;
    recorded(&sim, 3, Event::StageWaiting, "preview").await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.1")), (6, 6));
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_taken_back_takes_every_pod_and_request_of_the_new_version_back() {
    for strategy in [GATEWAY, HAPROXY, PODS] {
        println!("{strategy:?}");
        let sim = released(strategy).await;
        recorded(&sim, 2, Event::StageStarted, "weight-20").await;
        decide(&sim, 2, "promote.yaml", "");
        recorded(&sim, 2, Event::Completed, "weight-100").await;
        merge(&sim, strategy);
        confirm(&sim, 3, "start").await;
        recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
        assert!(at(&sim, "2.1") > 0 && gets(&sim, "2.1") != [0; 3], "{}", why(&sim));
        sim.git.commit("not yet", &[("rollouts/checkout/0003/confirm/start.yaml", None)]);
        recorded(&sim, 3, Event::StageReverted, "start").await;
        is_stable_again(&sim, "2.0", "2.1").await;
        decide(&sim, 3, "confirm/start.yaml", "");
        if let Err(why) = sim.recorded("checkout", 3, Event::StageWaiting, "weight-20", 2).await {
            panic!("{why}");
        }
        assert!(at(&sim, "2.1") > 0);
        sim.assert_invariants();
    }
}

/// Nobody else could take the requests.
#[tokio::test(start_paused = true)]
async fn where_nothing_was_stable_whoever_serves_stays_until_a_start_is_confirmed() {
    let sim = Sim::new(&[
        ("policies/two-data-centers.yaml", &policy(&asking(PODS))),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    confirm(&sim, 1, "start").await;
    recorded(&sim, 1, Event::StageWaiting, "weight-20").await;
    let there = at(&sim, "1.9");
    sim.git.commit("not yet", &[("rollouts/checkout/0001/confirm/start.yaml", None)]);
    recorded(&sim, 1, Event::StageReverted, "start").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(at(&sim, "1.9"), 0, "nobody confirms it any more: {}", why(&sim));
    decide(&sim, 1, "confirm/start.yaml", "");
    if let Err(why) = sim.recorded("checkout", 1, Event::StageWaiting, "weight-20", 2).await {
        panic!("{why}");
    }
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(&sim, 2, Event::StageWaiting, "start").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), served(&sim, "1.9")), (there, there as u64), "{}", why(&sim));
    confirm(&sim, 2, "start").await;
    decide(&sim, 2, "promote.yaml", "");
    recorded(&sim, 2, Event::Completed, "weight-100").await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0")), (0, 6));
    sim.assert_invariants();
}
