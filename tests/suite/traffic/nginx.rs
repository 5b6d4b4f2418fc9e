//! ingress-nginx's canary annotations.

use locktender::core::{
    manifest::Object,
    policy::Percent,
    traffic::{Answer, HeaderRoute, Match, Matcher, Route, Split, Subject, nginx::CanaryIngress},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{affinity, at, backends, share, with_header};

fn route() -> CanaryIngress {
    CanaryIngress { namespace: "shop".to_owned(), name: "shop".to_owned(), backends: backends() }
}

fn path(path: &str, service: &str) -> Value {
    json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}})
}

fn ingress() -> Object {
    let rules = json!([
        {"host": "shop.example.com", "http": {"paths": [path("/", "checkout"), path("/static", "static")]}},
        {"host": "static.example.com", "http": {"paths": [path("/", "static")]}},
    ]);
    let annotations = json!({
        "nginx.ingress.kubernetes.io/rewrite-target": "/",
        "nginx.ingress.kubernetes.io/canary-weight-total": "1000",
        "cert-manager.io/cluster-issuer": "letsencrypt",
    });
    Object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "shop", "namespace": "shop", "uid": "u", "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["shop.example.com"], "secretName": "tls"}], "rules": rules},
    }))
}

#[test]
fn the_paths_that_serve_are_there_again_for_the_new_side() {
    let wanted = route().set(&[ingress()], &share(20)).unwrap();
    assert_eq!(wanted[0], ingress());
    let canary = &wanted[1];
    let annotations = json!({
        "nginx.ingress.kubernetes.io/rewrite-target": "/",
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "20",
    });
    let metadata = json!({"name": "shop-canary", "namespace": "shop", "annotations": annotations});
    assert_eq!(at(canary, "metadata"), &metadata);
    let rules = json!([{"host": "shop.example.com", "http": {"paths": [path("/", "checkout-canary")]}}]);
    assert_eq!(at(canary, "spec"), &json!({"ingressClassName": "nginx", "rules": rules}));

    assert_eq!(route().verify(&wanted, Some(&share(20))), Answer::Yes);
    assert!(matches!(route().verify(&wanted, Some(&share(30))), Answer::NotYet(_)));
    let still = Answer::NotYet("Ingress/shop-canary in shop: it is still there".to_owned());
    assert_eq!(route().verify(&wanted, None), still);
    assert_eq!(route().verify(&route().clear(&wanted), None), Answer::Yes);
    assert_eq!(
        route().verify(&[ingress()], Some(&share(20))),
        Answer::NotYet("there is no Ingress/shop-canary in shop".to_owned())
    );
}

#[rstest]
#[case(Subject::Header("X-User".into()), Matcher::Exact("a".into()), &[("by-header", "X-User"), ("by-header-value", "a")])]
#[case(Subject::Header("X-User".into()), Matcher::Prefix("a".into()), &[("by-header", "X-User"), ("by-header-pattern", "^a.*$")])]
#[case(Subject::Cookie("beta".into()), Matcher::Exact("always".into()), &[("by-cookie", "beta")])]
fn one_header_route_is_said_in_annotations(
    #[case] subject: Subject,
    #[case] value: Matcher,
    #[case] said: &[(&str, &str)],
) {
    let headers = vec![HeaderRoute { matches: vec![Match { subject, value }] }];
    let canary = route().set(&[ingress()], &Split { headers, ..share(0) }).unwrap().remove(1);
    for (name, value) in said {
        assert_eq!(canary.annotation(&format!("nginx.ingress.kubernetes.io/canary-{name}")), Some(*value));
    }
}

#[test]
fn what_there_is_no_annotation_for_is_refused_with_the_reason() {
    let exact = |name| with_header(name, Matcher::Exact("a".to_owned()));
    let cookie = Match { subject: Subject::Cookie("beta".to_owned()), value: Matcher::Exact("yes".to_owned()) };
    let refused = [
        (Split { mirror: Some(Percent::ALL), ..share(0) }, "copies requests to an address"),
        (Split { affinity: Some(affinity()), ..share(0) }, "keeps clients by its own"),
        (Split { headers: vec![exact("a"), exact("b")], ..share(0) }, "has one header route at most"),
        (Split { headers: vec![HeaderRoute { matches: vec![cookie] }], ..share(0) }, "takes a cookie for a yes"),
    ];
    for (split, why) in refused {
        let refused = route().set(&[ingress()], &split).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("Ingress/shop in shop: ingress-nginx {why}")), "{refused}");
    }
}
