//! Rollouts by a router, with real requests through it: a HAProxy of Debian's and the sandbox's own gateway.

use std::{net::SocketAddr, time::Duration};

use locktender::{
    core::{ledger::Event, rollout::report::Activity, traffic::haproxy::OURS},
    sandbox::faults::{Fault, Target},
};
use serde_json::{Value, json};

use super::{
    blue_green::{blue_green, with_service},
    *,
};
use crate::{
    histories::release::{Place, Release, Seen},
    traffic::{
        haproxy::Haproxy,
        load::{Load, ask, count},
    },
};

/// A canary policy under the name that the application's file asks for.
pub(super) fn canary(fields: &str) -> String {
    blue_green("").replace("blueGreen:", "canary:")
        + &fields.lines().map(|line| format!("      {line}\n")).collect::<String>()
}

/// The application with this policy and these manifests, at 1.0.
async fn installed(policy: &str, more: &[(&str, String)]) -> Release {
    let manifest = with_service("1.0");
    let app = app("");
    let mut files = vec![(POLICY_FILE, policy), (APP_FILE, &*app), (DEPLOYMENT, &*manifest)];
    files.extend(more.iter().map(|(path, text)| (*path, text.as_str())));
    let release = Release::on(Place::Sandbox, &files, vec![("dca".to_owned(), 3)], 10).await;
    release.until("checkout", "1.0 is stable", |seen| seen.is(1, Activity::Stable)).await;
    release
}

pub(super) fn merge(release: &Release, tag: &str) {
    let manifest = with_service(tag);
    release.commit(tag, |clone| {
        clone.write(DEPLOYMENT, &manifest);
    });
}

pub(super) fn decide(release: &Release, path: &str) {
    release.commit(path, |clone| {
        clone.write(&format!("rollouts/checkout/{path}.yaml"), "");
    });
}

pub(super) async fn waits(release: &Release, number: u32, stage: &str) -> Seen {
    release.until("checkout", &format!("{number} waits at {stage}"), |seen| seen.waits(number, stage)).await
}

/// HAProxy's servers that take new requests, as `1.0: 4 × 2, 2.0: 1 × 2`.
async fn weights(release: &Release, haproxy: &Haproxy) -> String {
    let pods = release.seen("checkout").await.pods;
    let version = |name: &str| {
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name).unwrap();
        pod["spec"]["containers"][0]["image"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    let servers = haproxy.state().await.servers.into_iter().filter(|server| !server.stopped && !server.drains);
    let mut shares = std::collections::BTreeMap::<(String, u32), u32>::new();
    for server in servers {
        *shares.entry((version(server.name.strip_prefix(OURS).unwrap()), server.weight)).or_default() += 1;
    }
    let shares = shares.into_iter().map(|((version, weight), count)| format!("{version}: {count} × {weight}"));
    shares.collect::<Vec<_>>().join(", ")
}

/// What a policy says of this HAProxy.
pub(super) fn haproxy_fields(haproxy: &Haproxy) -> String {
    let asked = &haproxy.config.asked;
    format!("traffic: {{haproxy: {{backend: {}, runtime: \"{}\"}}}}\n", asked.backend, asked.runtime)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_switches_all_requests_at_once_and_back_and_none_fails() {
    let mut haproxy = Haproxy::start().await;
    let fields = haproxy_fields(&haproxy) + "watch: {duration: 1h}\nscaleDownDelaySeconds: 1\n";
    let release = installed(&blue_green(&fields), &[]).await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1");
    let address = haproxy.config.bind;
    let load = Load::start(address, 1, 1);
    merge(&release, "2.0");
    waits(&release, 2, "preview").await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1, 2.0: 4 × 0");
    assert_eq!(count(address, 20, &[]).await.of("1.0"), 20);
    decide(&release, "0002/confirm/preview");
    let watched = |seen: &Seen| seen.is(2, Activity::Waiting) && seen.reasons().contains("switch lasts until");
    release.until("checkout", "it is switched", watched).await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 0, 2.0: 4 × 1");
    assert_eq!(count(address, 20, &[]).await.of("2.0"), 20);
    decide(&release, "0002/abort");
    let back = release.until("checkout", "it is aborted", |seen| seen.is(2, Activity::Stable)).await;
    assert_eq!(back.pods(), "1.0: 4");
    assert_eq!(count(address, 20, &[]).await.of("1.0"), 20);
    merge(&release, "3.0");
    waits(&release, 3, "preview").await;
    decide(&release, "0003/promote");
    let seen = release.until("checkout", "3.0 is stable", |seen| seen.is(3, Activity::Stable)).await;
    assert_eq!(seen.pods(), "3.0: 4");
    assert_eq!(count(address, 20, &[]).await.of("3.0"), 20);
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert!(["1.0", "2.0", "3.0"].iter().all(|version| seen.of(version) > 0), "{seen:?}");
    // What it forgets is told again.
    haproxy.restart().await;
    let mut told = String::new();
    for _ in 0..300 {
        told = weights(&release, &haproxy).await;
        if told == "3.0: 4 × 1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told, "3.0: 4 × 1");
}

const STEPS: &str = "\
steps:
- setWeight: 20
- confirm: {}
- setWeight: 60
- confirm: {}
scaleDownDelaySeconds: 1
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_shares_requests_out_step_by_step() {
    let haproxy = Haproxy::start().await;
    let release = installed(&canary(&(haproxy_fields(&haproxy) + STEPS)), &[]).await;
    let address = haproxy.config.bind;
    let load = Load::start(address, 1, 1);
    merge(&release, "2.0");
    let seen = waits(&release, 2, "weight-20").await;
    assert_eq!(seen.pods(), "1.0: 4, 2.0: 1", "what the weight needs comes beside what serves");
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1, 2.0: 1 × 1");
    // It takes turns, the load's own requests among them.
    assert!(count(address, 100, &[]).await.of("2.0").abs_diff(20) <= 10);
    decide(&release, "0002/confirm/weight-20");
    let seen = waits(&release, 2, "weight-60").await;
    assert_eq!(seen.pods(), "1.0: 4, 2.0: 3");
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1, 2.0: 3 × 2");
    assert!(count(address, 100, &[]).await.of("2.0").abs_diff(60) <= 10);
    // Another revision meanwhile: everything to stable, and from its first step.
    merge(&release, "3.0");
    let seen = waits(&release, 3, "weight-20").await;
    assert_eq!(seen.pods(), "1.0: 4, 3.0: 1");
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1, 3.0: 1 × 1");
    decide(&release, "0003/promote");
    let seen = release.until("checkout", "3.0 is stable", |seen| seen.is(3, Activity::Stable)).await;
    assert_eq!(seen.pods(), "3.0: 4");
    assert_eq!(count(address, 20, &[]).await.of("3.0"), 20);
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_forgets_the_pods_of_an_application_that_is_removed() {
    let haproxy = Haproxy::start().await;
    let release = installed(&canary(&(haproxy_fields(&haproxy) + STEPS)), &[]).await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1");
    release.commit("no checkout", |clone| {
        clone.remove(APP_FILE);
        clone.remove(DEPLOYMENT);
    });
    waits(&release, 2, "start").await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1", "nothing goes before it is confirmed");
    decide(&release, "0002/confirm/start");
    let seen = release.until("checkout", "it is removed", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!((seen.pods.len(), haproxy.state().await.servers.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_forgets_pods_that_no_policy_says_anything_of_any_more() {
    let haproxy = Haproxy::start().await;
    let release = installed(&canary(&(haproxy_fields(&haproxy) + STEPS)), &[]).await;
    assert_eq!(weights(&release, &haproxy).await, "1.0: 4 × 1");
    let before = release.seen("checkout").await.identities();
    release.commit("no policy", |clone| {
        clone.write(APP_FILE, &app("").replace(", policy: two-data-centers", ""));
    });
    let seen = release.until("checkout", "it is given back", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!((seen.identities(), haproxy.state().await.servers.len()), (before, 0));
}

const ROUTE: &str = "apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/checkout";
const GATEWAY: &str = "apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/public";

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "shop"},
        "spec": {"gatewayClassName": "locktender-sandbox",
            "listeners": [{"name": "http", "port": 8000, "protocol": "HTTP"}]},
    })
}

pub(super) fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": [{"name": "checkout", "port": 80}]}]},
    })
}

/// A gateway and a route to the application, as it brings them itself.
pub(super) fn files() -> [(&'static str, String); 2] {
    [("apps/checkout/gateway.yaml", gateway().to_string()), ("apps/checkout/route.yaml", route().to_string())]
}

/// Where the gateway takes requests.
pub(super) async fn address(release: &Release) -> SocketAddr {
    let gateway = release.get(GATEWAY, "gateways.gateway.networking.k8s.io").await.unwrap();
    format!("{}:8000", gateway["status"]["addresses"][0]["value"].as_str().unwrap()).parse().unwrap()
}

/// The route's backends with their weights, as they are in the cluster: `checkout 80, checkout-canary 20`.
pub(super) async fn backends(release: &Release) -> String {
    backends_of(release, "checkout").await
}

/// The same of a route by name.
pub(super) async fn backends_of(release: &Release, name: &str) -> String {
    let path = format!("{}/{name}", ROUTE.rsplit_once('/').unwrap().0);
    let Some(route) = release.get(&path, "httproutes.gateway.networking.k8s.io").await else {
        return "not there".to_owned();
    };
    let references = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
    let one = |reference: &Value| format!("{} {}", reference["name"].as_str().unwrap(), reference["weight"]);
    references.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a policy says of the route.
pub(super) const GATEWAY_FIELDS: &str = "traffic: {gatewayApi: {httpRoute: checkout}}\n";

/// The policy of the design's own example: 20, 40, 60, each with a confirm.
const GATEWAY_STEPS: &str = "\
steps:
- setWeight: 20
- confirm: {}
- setWeight: 40
- confirm: {}
- setWeight: 60
- confirm: {}
scaleDownDelaySeconds: 1
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_shares_two_thousand_requests_out_at_each_step() {
    let more = files();
    let release = installed(&canary(&(GATEWAY_FIELDS.to_owned() + GATEWAY_STEPS)), &more).await;
    let address = address(&release).await;
    let load = Load::start(address, 1, 1);
    merge(&release, "2.0");
    let mut told = String::new();
    for weight in [20, 40, 60] {
        let stage = format!("weight-{weight}");
        let pods = waits(&release, 2, &stage).await.pods();
        told +=
            &format!("{stage}: {pods}; the route: {}; {}\n", backends(&release).await, drawn(address, weight).await);
        decide(&release, &format!("0002/confirm/{stage}"));
    }
    let pods = release.until("checkout", "2.0 is stable", |seen| seen.is(2, Activity::Stable)).await.pods();
    told += &format!("completed: {pods}; the route: {}; {}\n", backends(&release).await, drawn(address, 100).await);
    assert!(release.get("api/v1/namespaces/shop/services/checkout-canary", "services").await.is_none());
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    told_text!(told);
}

/// Sends 2,000 requests; tells the share of them that 2.0 is to answer, and whether what it answered is as near as five
/// standard deviations of as many that are drawn.
async fn drawn(address: SocketAddr, weight: u32) -> String {
    const REQUESTS: u32 = 2000;
    let expected = f64::from(REQUESTS * weight) / 100.0;
    let spread = 5.0 * f64::sqrt(f64::from(REQUESTS * weight * (100 - weight))) / 100.0;
    let seen = count(address, REQUESTS as usize, &[]).await.of("2.0");
    let off = seen as f64 - expected;
    let found = if off.abs() <= spread { "is within".to_owned() } else { format!("is {off:+} off") };
    format!("of {REQUESTS} requests {expected} ± {spread:.1} (5 σ) go to 2.0: what it answered {found}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_others_look_after_is_patched_and_given_back() {
    let release = installed(&canary(&(GATEWAY_FIELDS.to_owned() + GATEWAY_STEPS)), &[]).await;
    for object in [gateway(), route()] {
        let path = if object["kind"] == "Gateway" { GATEWAY } else { ROUTE };
        release.live().ask("POST", path.rsplit_once('/').unwrap().0, object).await.unwrap();
    }
    let began = release.get(ROUTE, "httproutes.gateway.networking.k8s.io").await.unwrap()["spec"].clone();
    merge(&release, "2.0");
    waits(&release, 2, "weight-20").await;
    assert_eq!(backends(&release).await, "checkout 80, checkout-canary 20");
    let address = address(&release).await;
    let load = Load::start(address, 1, 1);
    decide(&release, "0002/confirm/weight-20");
    waits(&release, 2, "weight-40").await;
    assert_eq!(backends(&release).await, "checkout 60, checkout-canary 40");
    // Another revision: nothing goes to 2.0 any more, and 3.0 begins with its first step.
    merge(&release, "3.0");
    let seen = waits(&release, 3, "weight-20").await;
    assert_eq!(seen.pods(), "1.0: 4, 3.0: 1");
    assert_eq!(backends(&release).await, "checkout 80, checkout-canary 20");
    decide(&release, "0003/abort");
    let seen = release.until("checkout", "it is aborted", |seen| seen.is(3, Activity::Stable)).await;
    assert_eq!(seen.pods(), "1.0: 4");
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert!(seen.of("1.0") > 0 && seen.of("2.0") > 0 && seen.of("3.0") > 0, "{seen:?}");
    let ended = release.get(ROUTE, "httproutes.gateway.networking.k8s.io").await.unwrap();
    assert_eq!(ended["spec"], began);
}

const STAFF_FIRST: &str = "\
steps:
- setCanaryReplicas: 1
- setHeaderRoute: {match: [{headerName: x-staff, headerValue: {exact: 'yes'}}]}
- confirm: {}
- setWeight: 50
- sessionAffinity: {cookie: side}
- confirm: {}
scaleDownDelaySeconds: 1
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_sends_the_staff_first_and_keeps_who_was_on_the_new_version() {
    let more = files();
    let release = installed(&canary(&(GATEWAY_FIELDS.to_owned() + STAFF_FIRST)), &more).await;
    let address = address(&release).await;
    merge(&release, "2.0");
    let seen = waits(&release, 2, "header-route").await;
    assert_eq!(seen.pods(), "1.0: 4, 2.0: 1");
    assert_eq!(count(address, 20, &[("x-staff", "yes")]).await.of("2.0"), 20);
    assert_eq!(count(address, 20, &[]).await.of("1.0"), 20);
    decide(&release, "0002/confirm/header-route");
    waits(&release, 2, "affinity").await;
    let cookie = loop {
        let reply = ask(address, &[]).await.unwrap();
        assert_eq!(reply.head.header("set-cookie").is_some(), reply.version() == "2.0");
        if let Some(cookie) = reply.head.header("set-cookie") {
            break cookie.split(';').next().unwrap().to_owned();
        }
    };
    assert_eq!(count(address, 20, &[("Cookie", &cookie)]).await.of("2.0"), 20);
    assert_eq!(count(address, 20, &[("x-staff", "yes")]).await.of("2.0"), 20);
    decide(&release, "0002/confirm/affinity");
    release.until("checkout", "2.0 is stable", |seen| seen.is(2, Activity::Stable)).await;
    let ended = release.get(ROUTE, "httproutes.gateway.networking.k8s.io").await.unwrap();
    assert_eq!(ended["spec"]["rules"].as_array().unwrap().len(), 1, "no rule of ours is left in it");
    assert_eq!(backends(&release).await, "checkout 1");
}

const HEADER_SECOND: &str = "\
steps:
- setWeight: 20
- confirm: {}
- setHeaderRoute: {match: [{headerName: x-staff, headerValue: {exact: 'yes'}}]}
- confirm: {}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_rule_goes_at_once_also_while_the_new_version_is_not_ready() {
    let release = installed(&canary(&(GATEWAY_FIELDS.to_owned() + HEADER_SECOND)), &files()).await;
    merge(&release, "2.0");
    waits(&release, 2, "weight-20").await;
    decide(&release, "0002/confirm/weight-20");
    waits(&release, 2, "header-route").await;
    let rules = async || {
        let route = release.get(ROUTE, "httproutes.gateway.networking.k8s.io").await.unwrap();
        route["spec"]["rules"].as_array().unwrap().len()
    };
    assert_eq!(rules().await, 2);
    release.live().faults(|faults| faults.add(Target::image("*checkout:2.0"), Fault::NeverReady));
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let ready = |seen: &Seen| seen.pods.iter().filter(|pod| is_ready(pod)).count();
    release.until("checkout", "2.0 is not ready any more", |seen| ready(seen) == 4).await;
    release.commit("take the confirm back", |clone| {
        clone.remove("rollouts/checkout/0002/confirm/weight-20.yaml");
    });
    release.until("checkout", "it steps back", |seen| seen.has(2, Event::StageReverted)).await;
    let gone = async {
        while rules().await != 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), gone).await.expect("the rule goes");
    assert_eq!(ready(&release.seen("checkout").await), 4, "nobody waited for the new version");
    assert_eq!(backends(&release).await, "checkout 80, checkout-canary 20");
}
