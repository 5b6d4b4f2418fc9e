//! Routers: what a split makes of their objects, and when they say that they have taken it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod gateway_api;
mod istio;
mod nginx;

use locktender::core::{
    manifest::Object,
    policy::Percent,
    traffic::{Affinity, Backends, HeaderRoute, Match, Matcher, Split, Subject},
};
use proptest::prelude::*;
use serde_json::Value;

/// The two Services of the application that the tests release.
fn backends() -> Backends {
    Backends { namespace: "shop".to_owned(), stable: "checkout".to_owned(), canary: "checkout-canary".to_owned() }
}

/// A share and nothing else.
fn share(percent: u8) -> Split {
    Split::of(Percent::new(percent).unwrap())
}

/// A request that has a header.
fn with_header(name: &str, value: Matcher) -> HeaderRoute {
    HeaderRoute { matches: vec![Match { subject: Subject::Header(name.to_owned()), value }] }
}

/// The cookie by which clients stay.
fn affinity() -> Affinity {
    Affinity { cookie: "side".to_owned(), value: "7d04e5c2".to_owned(), max_age: None }
}

/// The value at a path, `spec/rules/0/backendRefs`.
fn at<'a>(object: &'a Object, path: &str) -> &'a Value {
    object.0.pointer(&format!("/{path}")).unwrap_or(&Value::Null)
}

/// Any split that every router of the cluster's objects can carry.
fn any_split() -> impl Strategy<Value = Split> {
    let header = prop_oneof![Just("x-user"), Just("x-region")];
    let value = prop_oneof![Just(Matcher::Exact("a".into())), Just(Matcher::Prefix("b.".into()))];
    let headers = proptest::collection::vec((header, value).prop_map(|(name, value)| with_header(name, value)), 0..2);
    let mirror = proptest::option::of((0..=100_u8).prop_map(|percent| Percent::new(percent).unwrap()));
    let kept = proptest::option::of(Just(affinity()));
    (0..=100_u8, headers, mirror, kept).prop_map(|(weight, headers, mirror, affinity)| Split {
        headers,
        mirror,
        affinity,
        ..share(weight)
    })
}
