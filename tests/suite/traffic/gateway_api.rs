//! HTTPRoutes.

use locktender::core::{
    manifest::Object,
    policy::Percent,
    traffic::{Answer, Matcher, Route, Split, changes, gateway_api::HttpRoute},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{affinity, any_split, at, backends, share, with_header};

fn route() -> HttpRoute {
    HttpRoute { namespace: "shop".to_owned(), name: "checkout".to_owned(), backends: backends() }
}

/// A route with the rules, as an API server gives it back.
fn with_rules(rules: Value) -> Object {
    Object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "checkout", "namespace": "shop", "generation": 3},
        "spec": {"parentRefs": [{"name": "public"}], "rules": rules},
    }))
}

fn reference(name: &str, weight: u32) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight})
}

fn everything() -> Value {
    json!([{"path": {"type": "PathPrefix", "value": "/"}}])
}

/// One rule that sends everything to the application.
fn plain() -> Object {
    with_rules(json!([{"matches": everything(), "backendRefs": [reference("checkout", 1)]}]))
}

fn set(object: &Object, split: &Split) -> Object {
    route().set(std::slice::from_ref(object), split).unwrap().remove(0)
}

fn clear(object: &Object) -> Object {
    route().clear(std::slice::from_ref(object)).remove(0)
}

/// The route as it is once its gateway has read it.
fn followed(object: &Object) -> Object {
    let mut live = object.clone();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 3});
    let parent = json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"},
        "controllerName": "example.com/gateway",
        "conditions": [condition("Accepted"), condition("ResolvedRefs")],
    });
    live.set(&["status", "parents"], json!([parent]));
    live
}

fn verify(live: &Object, split: Option<&Split>) -> Answer {
    route().verify(std::slice::from_ref(live), split)
}

fn not_yet(answer: &Answer) -> &str {
    match answer {
        Answer::NotYet(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_share_is_shared_out_beside_the_service_that_people_know() {
    let rules = at(&set(&plain(), &share(20)), "spec/rules").clone();
    let references = json!([reference("checkout", 80), reference("checkout-canary", 20)]);
    assert_eq!(rules, json!([{"matches": everything(), "backendRefs": references}]));
}

#[test]
fn what_else_a_rule_sends_to_keeps_its_proportion() {
    let before = json!([{"backendRefs": [reference("checkout", 3), reference("static", 1)]}]);
    let references = at(&set(&with_rules(before), &share(50)), "spec/rules/0/backendRefs").clone();
    let expected = [reference("checkout", 150), reference("checkout-canary", 150), reference("static", 100)];
    assert_eq!(references, json!(expected));
}

#[test]
fn a_service_of_the_same_name_elsewhere_is_another() {
    let mut elsewhere = reference("checkout", 1);
    elsewhere["namespace"] = json!("other");
    let refused = route().set(&[with_rules(json!([{"backendRefs": [elsewhere]}]))], &share(20)).unwrap_err();
    assert_eq!(refused.to_string(), "HTTPRoute/checkout in shop: no rule names the Service checkout");
}

#[test]
fn a_header_route_comes_first_and_is_the_more_specific_rule() {
    let headers = vec![with_header("x-user", Matcher::Prefix("staff-".to_owned()))];
    let split = Split { headers, ..share(0) };
    let live = set(&plain(), &split);
    let header = json!({"type": "RegularExpression", "name": "x-user", "value": "^staff-.*$"});
    let narrowed = json!([{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}]);
    let ours = json!({"matches": narrowed, "backendRefs": [reference("checkout-canary", 1)]});
    assert_eq!(at(&live, "spec/rules/0"), &ours);
    assert_eq!(at(&live, "spec/rules/1/backendRefs/0"), &reference("checkout", 100));
    // Without the header route it goes again, whoever took the note of it away.
    let mut unmarked = live.clone();
    unmarked.remove(&["metadata", "annotations"]);
    for before in [live, unmarked] {
        assert_eq!(at(&set(&before, &split), "spec/rules").as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_rule_of_a_person_that_goes_to_the_new_side_alone_is_left_alone() {
    let theirs = json!({"name": "preview", "matches": [{"headers": [{"type": "Exact", "name": "x-user", "value": "a"}]}],
        "backendRefs": [reference("checkout-canary", 1)]});
    let before = with_rules(json!([theirs, {"matches": everything(), "backendRefs": [reference("checkout", 1)]}]));
    let split = Split { headers: vec![with_header("x-user", Matcher::Exact("a".to_owned()))], ..share(5) };
    let live = set(&before, &split);
    assert_eq!(at(&live, "spec/rules").as_array().unwrap().len(), 3);
    assert_eq!(clear(&live), before);
}

#[test]
fn affinity_is_a_cookie_in_the_new_sides_answers_and_a_rule_for_who_brings_it_back() {
    let live = set(&plain(), &Split { affinity: Some(affinity()), ..share(10) });
    let modifier = json!({"add": [{"name": "Set-Cookie", "value": "side=7d04e5c2; Path=/"}]});
    let filters = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}]);
    assert_eq!(at(&live, "spec/rules/1/backendRefs/1/filters"), &filters);
    assert_eq!(at(&live, "spec/rules/1/backendRefs/0/filters"), &Value::Null);
    assert_eq!(at(&live, "spec/rules/0/matches/0/headers/0/value"), "^(.*;\\s*)?side=7d04e5c2(;.*)?$");
}

#[test]
fn a_mirror_is_a_filter_of_the_rules_that_serve() {
    let live = set(&plain(), &Split { mirror: Percent::new(10), ..share(0) });
    let reference = json!({"group": "", "kind": "Service", "name": "checkout-canary", "port": 80});
    let filter = json!({"type": "RequestMirror", "requestMirror": {"backendRef": reference, "percent": 10}});
    assert_eq!(at(&live, "spec/rules/0/filters"), &json!([filter]));
}

#[test]
fn what_a_route_cannot_carry_is_refused_with_the_reason() {
    let split = Split { headers: vec![with_header("X-User", Matcher::Exact("a".to_owned()))], ..share(0) };
    let matched = json!([{"headers": [{"type": "Exact", "name": "x-user", "value": "b"}]}]);
    let taken = with_rules(json!([{"matches": matched, "backendRefs": [reference("checkout", 1)]}]));
    let why = route().set(&[taken], &split).unwrap_err().to_string();
    assert_eq!(why, "HTTPRoute/checkout in shop: a rule matches the header `X-User` already");
    let rule = json!({"backendRefs": [reference("checkout", 1)]});
    let why = route().set(&[with_rules(json!(vec![rule; 9]))], &split).unwrap_err().to_string();
    assert!(why.contains("at most 16 rules and 128 matches, and there would be 18 and 18"), "{why}");
    let why = route().set(&[with_rules(json!([{"backendRefs": [reference("checkout", 10_001)]}]))], &split);
    assert!(why.unwrap_err().to_string().ends_with("a weight of 10001 is too much: at most 10000"));
    assert_eq!(route().set(&[], &split).unwrap_err().to_string(), "there is no HTTPRoute/checkout in shop");
}

#[test]
fn it_is_taken_when_every_gateway_says_so_of_this_generation() {
    let split = share(20);
    let live = followed(&set(&plain(), &split));
    assert_eq!(verify(&live, Some(&split)), Answer::Yes);
    assert_eq!(not_yet(&verify(&live, Some(&share(40)))), "HTTPRoute/checkout in shop: it does not say so yet");
    assert_eq!(not_yet(&verify(&live, None)), "HTTPRoute/checkout in shop: it does not say so yet");

    let mut stale = live.clone();
    stale.set(&["metadata", "generation"], json!(4));
    assert_eq!(not_yet(&verify(&stale, Some(&split))), "Gateway/public has seen generation 3, not 4 yet");

    let mut second = live.clone();
    second.set(&["spec", "parentRefs"], json!([{"name": "public"}, {"name": "internal"}]));
    assert_eq!(not_yet(&verify(&second, Some(&split))), "Gateway/internal has not answered yet");

    let with = |conditions: Value| {
        let mut live = live.clone();
        live.0["status"]["parents"][0]["conditions"] = conditions;
        verify(&live, Some(&split))
    };
    let good = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 3});
    let bad = json!({"type": "ResolvedRefs", "status": "False", "observedGeneration": 3, "message": "no such Service"});
    let why = with(json!([good("Accepted"), bad]));
    assert_eq!(not_yet(&why), "Gateway/public: ResolvedRefs is False: no such Service");
    let part = json!([good("Accepted"), good("ResolvedRefs"), good("PartiallyInvalid")]);
    assert!(not_yet(&with(part)).starts_with("Gateway/public: PartiallyInvalid is True"));
    assert_eq!(not_yet(&with(json!([good("Accepted")]))), "Gateway/public does not say yet whether it is ResolvedRefs");
    let silent = json!([{"type": "Accepted", "status": "True"}, {"type": "ResolvedRefs", "status": "True"}]);
    assert!(matches!(with(silent), Answer::CannotTell(_)));

    let mut alone = live.clone();
    alone.remove(&["spec", "parentRefs"]);
    assert!(matches!(verify(&alone, Some(&split)), Answer::CannotTell(_)));
}

/// Rules as people write them: some serve the application, some send elsewhere, with fields that nobody here knows.
fn any_rules() -> impl Strategy<Value = Value> {
    let references = (1..=5_u32, 0..=3_u32, any::<bool>()).prop_map(|(own, other, serves)| {
        let own = serves.then(|| reference("checkout", own));
        let other = (other > 0).then(|| reference("static", other));
        let mut references: Vec<Value> = own.into_iter().chain(other).collect();
        if let Some(first) = references.first_mut() {
            first["unknown"] = json!({"a": 1});
        }
        references
    });
    let rule = (references, any::<bool>(), any::<bool>()).prop_map(|(references, named, filtered)| {
        let mut rule = json!({"matches": everything(), "timeouts": {"request": "10s"}, "unknown": [1, 2]});
        if !references.is_empty() {
            rule["backendRefs"] = json!(references);
        }
        if named {
            rule["name"] = json!("theirs");
        }
        if filtered {
            let mirror = json!({"backendRef": {"name": "audit", "port": 80}});
            rule["filters"] = json!([{"type": "RequestMirror", "requestMirror": mirror}]);
        }
        rule
    });
    proptest::collection::vec(rule, 0..4).prop_map(|mut rules| {
        rules.push(json!({"matches": everything(), "backendRefs": [reference("checkout", 1)]}));
        json!(rules)
    })
}

proptest! {
    #[test]
    fn what_is_set_is_verified_once_the_gateway_follows(rules in any_rules(), split in any_split()) {
        let live = followed(&set(&with_rules(rules), &split));
        prop_assert_eq!(verify(&live, Some(&split)), Answer::Yes);
        prop_assert_eq!(set(&live, &split), live);
    }

    #[test]
    fn clearing_gives_back_what_was_there(rules in any_rules(), first in any_split(), second in any_split()) {
        let before = with_rules(rules);
        let after = clear(&set(&set(&before, &first), &second));
        prop_assert_eq!(&after, &before);
        prop_assert_eq!(verify(&followed(&after), None), Answer::Yes);
    }

    #[test]
    fn what_people_change_meanwhile_stays(rules in any_rules(), first in any_split(), second in any_split()) {
        let added = json!({"matches": [{"path": {"type": "Exact", "value": "/new"}}], "backendRefs": [reference("new", 7)]});
        let with = |object: &Object| {
            let mut object = object.clone();
            object.0["spec"]["rules"].as_array_mut().unwrap().insert(0, added.clone());
            object.0["spec"]["hostnames"] = json!(["shop.example.com"]);
            object
        };
        let before = with_rules(rules);
        let edited = set(&with(&set(&before, &first)), &second);
        prop_assert_eq!(clear(&edited), with(&before));
        // And it is written over nothing that was not seen.
        let patch = changes(&before.0, &edited.0);
        prop_assert!(patch.iter().any(|step| step["op"] == "test" && step["path"] == "/spec/rules"));
    }
}
