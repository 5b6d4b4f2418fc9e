//! A router that is named no more: another one in the middle of a rollout, none any more, no policy, no application. What it
//! was told is taken back, and asked for, before anything else is told or goes.

use super::{
    routers::{GATEWAY, HAPROXY, SWITCH, asked, policy, released, sent_to, why},
    *,
};
use crate::simulation::{
    exhaustive::{ROUTE, manifest},
    gateway::{self, ROUTES},
    rollouts::APP,
};

const APP_FILE: &str = "apps/checkout/app.yaml";
const POLICY_FILE: &str = "policies/two-data-centers.yaml";

/// By another route of the same gateway.
const OTHER: &str = "    canary:
      traffic: {gatewayApi: {httpRoute: checkout-next}}
      steps: [{setWeight: 20}, {confirm: {}}]
";

/// By the number of pods.
const PODS: &str = "    canary:
      steps: [{setWeight: 20}, {confirm: {}}]
";

const BATCHES: &str = "    batched:
      batchSize: 2
";

/// A switch by the same route, with another Service beside.
const SAME_ROUTE: &str = "    blueGreen:
      traffic: {gatewayApi: {httpRoute: checkout}}
";

/// What a gateway sends beside the Service that people know, and what the routes ask it to: in percent.
fn beside(sim: &Sim, route: &str) -> u64 {
    let routes = list(sim, ROUTES);
    let Some(route) = routes.iter().find(|one| one["metadata"]["name"] == route) else { return 0 };
    let to = |weights: BTreeMap<String, u64>| match weights.is_empty() {
        true => 0,
        false => 100 - gateway::share(&weights, "checkout"),
    };
    to(gateway::asked(route)).max(to(gateway::in_force(route)))
}

/// What each router sends to other pods than 1.9's.
fn routed(sim: &Sim) -> [u64; 3] {
    let serves: u32 = sim.outside.haproxy_serves().values().sum();
    let haproxy = if serves == 0 { 0 } else { 100 - sent_to(sim, "1.9") };
    [beside(sim, "checkout"), beside(sim, "checkout-next"), u64::from(haproxy)]
}

/// Lets a rollout come to an end. At every tenth of a second only one router sends anything to a new version, and none of
/// 2.0's pods has gone before the first one sent nothing there any more.
async fn ends(sim: &Sim, number: u32, event: Event, first: usize) {
    let (mut given_back, had) = (false, at(sim, "2.0"));
    for _ in 0..20_000 {
        let now = routed(sim);
        let has = at(sim, "2.0");
        given_back |= now[first] == 0;
        assert!(has == had || given_back, "{has} of {had} pods are left, and {now:?} is sent: {}", why(sim));
        assert!(now.iter().filter(|sent| **sent > 0).count() <= 1, "{now:?} at once: {}", why(sim));
        if self::has(sim, number, event) {
            sim.pass(Duration::from_secs(30)).await;
            return;
        }
        sim.pass(Duration::from_millis(100)).await;
    }
    panic!("{event:?} of {number} never comes: {}\n{}", why(sim), sim.git.subjects().join("\n"));
}

/// 2.0 is at a step.
async fn at_step(strategy: &str, step: &str) -> Sim {
    let sim = released(strategy).await;
    if step == "weight-60" {
        confirm(&sim, 2, "weight-20").await;
    }
    recorded(&sim, 2, Event::StageWaiting, step).await;
    sim
}

/// The same, and 2.1 is merged with another policy.
async fn changed(from: &str, step: &str, to: &str) -> Sim {
    let sim = at_step(from, step).await;
    change(&sim, to);
    recorded(&sim, 2, Event::Superseded, step).await;
    sim
}

fn change(sim: &Sim, to: &str) {
    let (policy, manifest, next) =
        (policy(to), manifest("2.1"), ROUTE.replace("name: checkout}\nspec", "name: checkout-next}\nspec"));
    assert_ne!(next, ROUTE);
    let mut files = vec![(POLICY_FILE, Some(policy.as_str())), (DEPLOYMENT, Some(manifest.as_str()))];
    if [OTHER, SAME_ROUTE].contains(&to) {
        files.push(("apps/checkout/route.yaml", Some(ROUTE)));
        files.push(("apps/checkout/next.yaml", Some(&next)));
    }
    sim.git.commit("checkout 2.1, by another way", &files);
}

/// Whatever is left of a rollout by a router: nothing.
fn nothing_is_left(sim: &Sim) {
    let previews = list(sim, "services").iter().filter(|it| it["metadata"]["name"] != "checkout").count();
    assert_eq!((previews, beside(sim, "checkout"), beside(sim, "checkout-next")), (0, 0, 0), "{}", why(sim));
}

#[tokio::test(start_paused = true)]
async fn another_router_is_told_only_once_the_one_before_has_given_everything_back() {
    for (from, first, to) in [(GATEWAY, 0, OTHER), (GATEWAY, 0, HAPROXY), (HAPROXY, 2, OTHER), (HAPROXY, 2, SAME_ROUTE)]
    {
        for step in ["weight-20", "weight-60"] {
            println!("{from} at {step} becomes {to}");
            let sim = changed(from, step, to).await;
            decide(&sim, 3, "promote.yaml", "");
            ends(&sim, 3, Event::Completed, first).await;
            assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (0, 0, 6));
            nothing_is_left(&sim);
            let servers = sim.outside.haproxy_knows().len();
            assert_eq!(servers, if to == HAPROXY { 6 } else { 0 }, "what HAProxy was told it has forgotten");
            sim.assert_invariants();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_is_named_no_more_gives_everything_back_first() {
    for (from, first) in [(GATEWAY, 0), (HAPROXY, 2)] {
        for (to, step) in [(PODS, "weight-20"), (PODS, "weight-60"), (BATCHES, "weight-60"), (SAME_ROUTE, "weight-60")]
        {
            println!("{from} at {step} becomes {to}");
            let sim = changed(from, step, to).await;
            decide(&sim, 3, "promote.yaml", "");
            ends(&sim, 3, Event::Completed, first).await;
            assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (0, 0, 6));
            nothing_is_left(&sim);
            assert_eq!(sim.outside.haproxy_knows(), Vec::<String>::new());
            sim.assert_invariants();
        }
    }
}

/// The policy file is not of the application: what is gone back to is stable as its own policy had it.
#[tokio::test(start_paused = true)]
async fn going_back_from_another_router_gives_everything_back_by_both() {
    for (from, first, to) in [(GATEWAY, 0, OTHER), (GATEWAY, 0, HAPROXY), (HAPROXY, 2, OTHER), (GATEWAY, 0, PODS)] {
        println!("{from} becomes {to}, and is aborted");
        let sim = changed(from, "weight-60", to).await;
        decide(&sim, 3, "abort.yaml", "");
        ends(&sim, 3, Event::Aborted, first).await;
        assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), at(&sim, "2.1")), (6, 0, 0));
        nothing_is_left(&sim);
        let told = sim.outside.haproxy_serves();
        assert_eq!(told.len(), if from == HAPROXY { 6 } else { 0 }, "{told:?}");
        assert_eq!(sim.outside.haproxy_knows().len(), told.len());
        sim.assert_invariants();
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_follow_holds_the_router_after_it_and_every_pod() {
    let sim = at_step(GATEWAY, "weight-60").await;
    sim.faults.every(crate::simulation::faults::WriteFault::Conflict, |write| write.contains("HTTPRoute/"));
    change(&sim, HAPROXY);
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), asked(&sim)), (6, 4, 60));
    assert_eq!(sent_to(&sim, "2.1"), 0);
    assert!(why(&sim).contains("HTTPRoute/checkout has not followed"), "{}", why(&sim));
    sim.faults.no_more();
    recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
    assert_eq!((at(&sim, "2.1"), asked(&sim), sent_to(&sim, "2.1")), (2, 0, 20));
    sim.assert_invariants();
}

/// 2.0 is out by HAProxy.
async fn completed_by(strategy: &str) -> Sim {
    let sim = released(strategy).await;
    recorded(&sim, 2, Event::StageStarted, if strategy == SWITCH { "preview" } else { "weight-20" }).await;
    decide(&sim, 2, "promote.yaml", "");
    recorded(&sim, 2, Event::Completed, if strategy == SWITCH { "switch" } else { "weight-100" }).await;
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!(sim.outside.haproxy_serves().len(), 6);
    sim
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_removed_is_forgotten_by_haproxy() {
    for strategy in [HAPROXY, SWITCH] {
        let sim = completed_by(strategy).await;
        sim.git.commit("no checkout", &[(APP_FILE, None), (DEPLOYMENT, None)]);
        for _ in 0..1200 {
            if has(&sim, 3, Event::StageWaiting) {
                decide(&sim, 3, "promote.yaml", "");
            }
            if has(&sim, 3, Event::Completed) {
                break;
            }
            sim.pass(Duration::from_millis(500)).await;
        }
        assert!(has(&sim, 3, Event::Completed), "{}", why(&sim));
        assert_eq!((pods(&sim).len(), sim.outside.haproxy_knows()), (0, Vec::new()), "{}", why(&sim));
        sim.assert_invariants();
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_without_a_policy_any_more_is_forgotten_by_haproxy() {
    let sim = completed_by(HAPROXY).await;
    sim.git.commit("no policy", &[(APP_FILE, Some(&APP.replace(", policy: two-data-centers", "")))]);
    recorded(&sim, 3, Event::Completed, "all").await;
    sim.pass(Duration::from_secs(10)).await;
    assert_eq!((at(&sim, "2.0"), sim.outside.haproxy_knows()), (6, Vec::new()), "{}", why(&sim));
}

/// Another policy alone changes nothing that runs: it counts from the next release on.
#[tokio::test(start_paused = true)]
async fn a_policy_without_haproxy_lets_it_forget_the_pods_as_they_go() {
    let sim = completed_by(HAPROXY).await;
    sim.git.commit("by pods", &[(POLICY_FILE, Some(&policy(PODS)))]);
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(sim.outside.haproxy_serves().len(), 6);
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
    sim.pass(Duration::from_secs(10)).await;
    let serves = sim.outside.haproxy_serves();
    assert_eq!((serves.len(), sent_to(&sim, "2.1")), (at(&sim, "2.0"), 0), "{serves:?}");
    decide(&sim, 3, "promote.yaml", "");
    recorded(&sim, 3, Event::Completed, "weight-100").await;
    assert_eq!((at(&sim, "2.1"), sim.outside.haproxy_knows()), (6, Vec::new()));
}

/// Nobody can be asked whether it forgets, and it stood for nothing but what was stable.
#[tokio::test(start_paused = true)]
async fn a_haproxy_that_is_gone_for_good_can_be_left() {
    let sim = completed_by(HAPROXY).await;
    sim.outside.stop_haproxy();
    sim.git.commit("2.1, by pods", &[(POLICY_FILE, Some(&policy(PODS))), (DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
    assert!(why(&sim).contains("HAProxy's backend checkout cannot be asked"), "{}", why(&sim));
    decide(&sim, 3, "promote.yaml", "");
    recorded(&sim, 3, Event::Completed, "weight-100").await;
    assert_eq!(at(&sim, "2.1"), 6);
}

/// Another policy, and so many replicas: nothing is staged.
async fn applied(sim: &Sim, strategy: &str, replicas: usize) {
    let manifest = manifest("2.0").replace("replicas: 6", &format!("replicas: {replicas}"));
    sim.git.commit("at rest", &[(POLICY_FILE, Some(&policy(strategy))), (DEPLOYMENT, Some(&manifest))]);
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(at(sim, "2.0"), replicas, "{}", why(sim));
}

#[tokio::test(start_paused = true)]
async fn a_haproxy_that_was_named_at_rest_alone_forgets_what_it_was_told_then() {
    let sim = at_step(PODS, "weight-20").await;
    decide(&sim, 2, "promote.yaml", "");
    recorded(&sim, 2, Event::Completed, "weight-100").await;
    applied(&sim, HAPROXY, 7).await;
    assert_eq!(sim.outside.haproxy_serves().len(), 7);
    applied(&sim, PODS, 8).await;
    assert_eq!(sim.outside.haproxy_knows(), Vec::<String>::new());
    // However often.
    applied(&sim, HAPROXY, 9).await;
    applied(&sim, PODS, 10).await;
    assert_eq!(sim.outside.haproxy_knows(), Vec::<String>::new());
    let routed_by = sim.records("checkout", 2).into_iter().filter(|record| record.evidence.routed_by.is_some()).count();
    assert_eq!(routed_by, 2, "the records name what was in place before");
    sim.assert_invariants();
}

/// Istio, as far as it is told.
const MESH: &str = "    canary:
      traffic: {istio: {virtualService: checkout}}
      steps: [{setWeight: 20}, {confirm: {}}]
";

const VIRTUAL_SERVICES: &str = "virtualservices.networking.istio.io";
const DESTINATION_RULES: &str = "destinationrules.networking.istio.io";

/// The same with the Service's `DestinationRule`, by one of two VirtualServices.
fn ruled(service: &str) -> String {
    MESH.replace("virtualService: checkout", &format!("virtualService: {service}, destinationRule: checkout"))
}

fn definition(kind: &str, resource: &str) -> Value {
    let plural = resource.split('.').next().unwrap();
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": resource},
        "spec": {
            "group": "networking.istio.io", "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// 2.0 has a fifth of the requests by a mesh, and 2.1 is merged with another policy.
async fn remeshed(from: &str, to: &str) -> Sim {
    let service = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
             spec: {{hosts: [{name}], http: [{{route: [{{destination: {{host: checkout}}}}]}}]}}\n"
        )
    };
    let (one, other) = (service("checkout"), service("checkout-next"));
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: checkout}\n\
        spec: {host: checkout, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n";
    let sim = Sim::new(&[
        (POLICY_FILE, &policy(from)),
        (APP_FILE, APP),
        (DEPLOYMENT, &manifest("1.9")),
        ("apps/checkout/mesh.yaml", &one),
        ("apps/checkout/next.yaml", &other),
        ("apps/checkout/rule.yaml", rule),
    ]);
    sim.cluster.with(|world| {
        for (kind, resource) in [("VirtualService", VIRTUAL_SERVICES), ("DestinationRule", DESTINATION_RULES)] {
            world.api.create(definition(kind, resource)).unwrap();
        }
    });
    recorded(&sim, 1, Event::Completed, "weight-100").await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
    recorded(&sim, 2, Event::StageWaiting, "weight-20").await;
    assert_eq!(meshed(&sim), told_by(from));
    sim.git.commit("2.1", &[(POLICY_FILE, Some(&policy(to))), (DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 2, Event::Superseded, "weight-20").await;
    sim
}

/// What each VirtualService sends to the other side, in percent, and the DestinationRules.
fn meshed(sim: &Sim) -> (BTreeMap<String, u64>, Vec<String>) {
    let beside = |service: &Arc<Value>| {
        let entries = service["spec"]["http"][0]["route"].as_array().unwrap().clone();
        let is_canary = |entry: &&Value| entry["destination"]["host"] == "checkout-canary";
        let share = entries.iter().find(is_canary).map_or(0, |entry| entry["weight"].as_u64().unwrap());
        (service["metadata"]["name"].as_str().unwrap().to_owned(), share)
    };
    let name = |rule: &Arc<Value>| rule["metadata"]["name"].as_str().unwrap().to_owned();
    let services = list(sim, VIRTUAL_SERVICES).iter().map(beside).filter(|(_, share)| *share > 0).collect();
    (services, list(sim, DESTINATION_RULES).iter().map(name).collect())
}

/// What a policy makes of them at its first step.
fn told_by(strategy: &str) -> (BTreeMap<String, u64>, Vec<String>) {
    let service = if strategy.contains("checkout-next") { "checkout-next" } else { "checkout" };
    let mut rules = vec!["checkout".to_owned()];
    rules.extend(strategy.contains("destinationRule").then(|| "checkout-canary".to_owned()));
    (BTreeMap::from([(service.to_owned(), 20)]), rules)
}

#[tokio::test(start_paused = true)]
async fn what_two_routers_share_stays_and_what_only_the_one_before_was_told_by_goes() {
    let (rule, next) = (ruled("checkout"), ruled("checkout-next"));
    for (from, to) in [(rule.as_str(), MESH), (MESH, &rule), (&rule, &next)] {
        for decision in ["promote.yaml", "abort.yaml"] {
            println!("{from:?} becomes {to:?}, {decision}");
            let sim = remeshed(from, to).await;
            recorded(&sim, 3, Event::StageWaiting, "weight-20").await;
            assert_eq!(meshed(&sim), told_by(to), "{}", why(&sim));
            decide(&sim, 3, decision, "");
            let event = if decision == "promote.yaml" { Event::Completed } else { Event::Aborted };
            recorded(&sim, 3, event, if event == Event::Completed { "weight-100" } else { "" }).await;
            sim.pass(Duration::from_secs(10)).await;
            assert_eq!(meshed(&sim), (BTreeMap::new(), vec!["checkout".to_owned()]), "{}", why(&sim));
            sim.assert_invariants();
        }
    }
}
