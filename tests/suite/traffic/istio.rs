//! Istio's VirtualServices and DestinationRules.

use locktender::core::{
    manifest::Object,
    policy::Percent,
    traffic::{Answer, Matcher, Route, Split, istio::VirtualService},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{affinity, any_split, at, backends, share, with_header};

fn route(destination_rule: Option<&str>) -> VirtualService {
    VirtualService {
        namespace: "shop".to_owned(),
        name: "checkout".to_owned(),
        destination_rule: destination_rule.map(str::to_owned),
        backends: backends(),
    }
}

fn with_routes(routes: Value) -> Object {
    Object(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "checkout", "namespace": "shop", "generation": 3},
        "spec": {"hosts": ["checkout"], "http": routes},
    }))
}

fn plain() -> Object {
    with_routes(json!([{"route": [{"destination": {"host": "checkout"}}]}]))
}

fn rule() -> Object {
    Object(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "u", "labels": {"a": "b"}},
        "spec": {"host": "checkout.shop.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}},
    }))
}

fn set(object: &Object, split: &Split) -> Object {
    route(None).set(std::slice::from_ref(object), split).unwrap().remove(0)
}

#[test]
fn a_share_is_shared_out_by_host_in_whichever_form_it_is_written() {
    let canaries = [
        ("checkout", "checkout-canary"),
        ("checkout.shop", "checkout-canary.shop"),
        ("checkout.shop.svc", "checkout-canary.shop.svc"),
        ("checkout.shop.svc.cluster.local", "checkout-canary.shop.svc.cluster.local"),
    ];
    for (host, canary) in canaries {
        let live = set(
            &with_routes(json!([{"route": [{"destination": {"host": host, "port": {"number": 80}}}]}])),
            &share(20),
        );
        let destination = |host: &str| json!({"host": host, "port": {"number": 80}});
        let expected = json!([
            {"destination": destination(host), "weight": 80},
            {"destination": destination(canary), "weight": 20},
        ]);
        assert_eq!(at(&live, "spec/http/0/route"), &expected, "{host}");
    }
    for host in ["checkout.other", "checkouts", "checkout.example.com"] {
        let other = with_routes(json!([{"route": [{"destination": {"host": host}}]}]));
        let why = route(None).set(&[other], &share(20)).unwrap_err().to_string();
        assert_eq!(why, "VirtualService/checkout in shop: no route names the host checkout", "{host}");
    }
}

#[test]
fn a_header_route_comes_before_what_it_is_a_part_of() {
    let split = Split {
        headers: vec![with_header("X-User", Matcher::Prefix("staff-".to_owned()))],
        affinity: Some(affinity()),
        mirror: Percent::new(5),
        ..share(10)
    };
    let live = set(&plain(), &split);
    assert_eq!(at(&live, "spec/http/0/name"), "locktender-0");
    assert_eq!(at(&live, "spec/http/0/match"), &json!([{"headers": {"x-user": {"prefix": "staff-"}}}]));
    let cookie = json!({"regex": "^(.*;\\s*)?side=7d04e5c2(;.*)?$"});
    assert_eq!(at(&live, "spec/http/1/match"), &json!([{"headers": {"cookie": cookie}}]));
    let headers = json!({"response": {"add": {"Set-Cookie": "side=7d04e5c2; Path=/"}}});
    let canary = json!({"destination": {"host": "checkout-canary"}, "headers": headers});
    assert_eq!(at(&live, "spec/http/1/route"), &json!([canary]));
    let mirror = json!({"destination": {"host": "checkout-canary"}, "percentage": {"value": 5}});
    assert_eq!(at(&live, "spec/http/2/mirrors"), &json!([mirror]));
}

#[test]
fn the_new_sides_host_is_spoken_to_as_the_old_one() {
    let route = route(Some("checkout"));
    let mut live = route.set(&[plain(), rule()], &share(20)).unwrap();
    assert_eq!(live[1], rule());
    assert_eq!(at(&live[2], "metadata"), &json!({"name": "checkout-canary", "namespace": "shop"}));
    assert_eq!(at(&live[2], "spec/host"), "checkout-canary.shop.svc.cluster.local");
    assert_eq!(at(&live[2], "spec/trafficPolicy"), at(&rule(), "spec/trafficPolicy"));
    assert_eq!(route.verify(&live, Some(&share(20))), Answer::Yes);
    assert!(matches!(route.verify(&live, None), Answer::NotYet(_)));
    live[2].set(&["spec", "host"], json!("elsewhere"));
    assert!(matches!(route.verify(&live, Some(&share(20))), Answer::NotYet(_)));
    let cleared = route.clear(&live);
    assert_eq!(cleared, [plain(), rule()]);
    assert_eq!(route.verify(&cleared, None), Answer::Yes);
}

#[test]
fn what_istio_says_is_believed_and_its_silence_is_no_contradiction() {
    let with = |status: Value| {
        let mut live = set(&plain(), &share(20));
        live.set(&["status"], status);
        route(None).verify(&[live], Some(&share(20)))
    };
    assert_eq!(with(json!({})), Answer::Yes);
    assert_eq!(with(json!({"observedGeneration": "3"})), Answer::Yes);
    let behind = with(json!({"observedGeneration": "2"}));
    assert_eq!(behind, Answer::NotYet("VirtualService/checkout: Istio has seen generation 2, not 3 yet".to_owned()));
    let part = json!([{"type": "Reconciled", "status": "False", "message": "1/2 proxies up to date"}]);
    assert!(matches!(with(json!({"conditions": part})), Answer::NotYet(_)));
    let error = json!([{"level": "ERROR", "type": {"code": "IST0101"}}]);
    let wrong = with(json!({"validationMessages": error}));
    assert_eq!(wrong, Answer::NotYet("VirtualService/checkout: Istio reports IST0101".to_owned()));
}

fn any_routes() -> impl Strategy<Value = Value> {
    let entries = (2..=5_u32, 0..=3_u32, any::<bool>()).prop_map(|(own, other, serves)| {
        let entry = |host: &str, weight: u32| json!({"destination": {"host": host}, "weight": weight, "unknown": 1});
        match (serves, other) {
            (true, 0) => vec![json!({"destination": {"host": "checkout"}, "unknown": 1})],
            (true, other) => vec![entry("checkout", own), entry("static", other)],
            (false, other) => vec![entry("static", other)],
        }
    });
    let route = (entries, any::<bool>()).prop_map(|(entries, matched)| {
        let mut route = json!({"name": "theirs", "route": entries, "timeout": "5s"});
        if matched {
            route["match"] = json!([{"uri": {"prefix": "/api"}}, {"headers": {"x-other": {"exact": "1"}}}]);
        }
        route
    });
    proptest::collection::vec(route, 0..4).prop_map(|mut routes| {
        routes.push(json!({"route": [{"destination": {"host": "checkout"}}]}));
        json!(routes)
    })
}

proptest! {
    #[test]
    fn what_is_set_is_verified_and_cleared(routes in any_routes(), first in any_split(), second in any_split()) {
        let before = with_routes(routes);
        let live = set(&set(&before, &first), &second);
        prop_assert_eq!(&set(&before, &second), &live);
        prop_assert_eq!(route(None).verify(std::slice::from_ref(&live), Some(&second)), Answer::Yes);
        prop_assert_eq!(route(None).clear(&[live]), vec![before]);
    }
}
