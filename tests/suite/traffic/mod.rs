//! Routers: what a split makes of their objects, and when they say that they have taken it.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod crds;
mod gateway_api;
pub mod haproxy;
mod istio;
pub mod load;
mod nginx;
mod sandbox;

use locktender::core::{
    cluster::{Cluster, PatchType, Write},
    manifest::Object,
    policy::Percent,
    traffic::{Affinity, Backends, HeaderRoute, Match, Matcher, Route, Split, Subject, Target, changes},
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

/// Brings a live route to a split, or to none, as anybody would whose object it is not.
async fn bring(cluster: &dyn Cluster, route: &dyn Route, split: Option<&Split>) -> Object {
    let mut live = Vec::new();
    for target in &route.reads() {
        live.push(read(cluster, target).await);
    }
    let wanted = match split {
        Some(split) => route.set(&live, split).unwrap(),
        None => route.clear(&live),
    };
    let (target, live) = (route.reads().remove(0), live.remove(0));
    let body = changes(&live.0, &wanted[0].0);
    if body.is_empty() {
        return live;
    }
    let write = Write::Patch {
        kind: target.kind,
        key: target.key,
        uid: live.uid().to_owned(),
        resource_version: None,
        patch: PatchType::Json,
        body: Value::Array(body),
        subresource: None,
    };
    cluster.write(&write).await.unwrap().unwrap()
}

/// Reads an object that is there.
async fn read(cluster: &dyn Cluster, target: &Target) -> Object {
    cluster.read(&target.kind, &target.key.namespace, &target.key.name).await.unwrap().unwrap()
}

/// Applies an object as somebody else.
async fn apply(cluster: &dyn Cluster, object: Value) -> Object {
    let write = Write::Apply { object: Object(object), force: true, manager: Some("person".to_owned()) };
    cluster.write(&write).await.unwrap().unwrap()
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
