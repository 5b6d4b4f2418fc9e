//! A gateway in the modelled cluster: it follows a route a while after it was written, and says so then.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use locktender::sandbox::world::World;
use serde_json::{Value, json};

/// The resource by which it is told.
pub const ROUTES: &str = "httproutes.gateway.networking.k8s.io";
/// How long it takes to follow.
const FOLLOWS_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// What it is about to follow: each route's generation, and since when that is there.
#[derive(Default)]
pub struct Gateway(BTreeMap<String, (i64, Timestamp)>);

/// What goes to each Service by the last rule of a route: those for headers come before.
fn weights(route: &Value) -> BTreeMap<String, u64> {
    let rules = route["spec"]["rules"].as_array().and_then(|rules| rules.last());
    let backends = rules.and_then(|rule| rule["backendRefs"].as_array()).into_iter().flatten();
    let one = |backend: &Value| (backend["name"].as_str().unwrap().to_owned(), backend["weight"].as_u64().unwrap_or(1));
    backends.map(one).collect()
}

/// What a Service gets of all requests by these weights, in percent, rounded up.
pub fn share(weights: &BTreeMap<String, u64>, service: &str) -> u64 {
    (weights.get(service).copied().unwrap_or(0) * 100).div_ceil(weights.values().sum::<u64>().max(1))
}

/// What a route asks for.
pub fn asked(route: &Value) -> BTreeMap<String, u64> {
    weights(route)
}

/// What the gateway does: as the route was when it followed last.
pub fn in_force(route: &Value) -> BTreeMap<String, u64> {
    let noted = route["status"]["parents"][0]["conditions"][0]["message"].as_str().unwrap_or("{}");
    // Another gateway notes nothing there.
    serde_json::from_str(noted).unwrap_or_default()
}

impl Gateway {
    /// Follows what was written long enough ago; returns when there is more to follow.
    pub fn advance(&mut self, world: &mut World, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        let routes: Vec<Value> = world.api.list(ROUTES).map(|route| Value::clone(route)).collect();
        for mut route in routes {
            let generation = route["metadata"]["generation"].as_i64().unwrap_or(0);
            let seen = &route["status"]["parents"][0]["conditions"][0]["observedGeneration"];
            let name = route["metadata"]["name"].as_str().unwrap().to_owned();
            if *seen == generation {
                self.0.remove(&name);
                continue;
            }
            let asked = self.0.entry(name).or_insert((generation, now));
            if asked.0 != generation {
                *asked = (generation, now);
            }
            let due = asked.1 + FOLLOWS_AFTER;
            if due > now {
                next = Some(next.map_or(due, |next: Timestamp| next.min(due)));
                continue;
            }
            let condition = |kind: &str, message: String| {
                json!({
                    "type": kind, "status": "True", "reason": kind, "message": message,
                    "observedGeneration": generation, "lastTransitionTime": now.to_string(),
                })
            };
            let noted = json!(weights(&route)).to_string();
            route["status"] = json!({"parents": [{
                "parentRef": {"name": "public"},
                "controllerName": "example.com/gateway",
                "conditions": [condition("Accepted", noted), condition("ResolvedRefs", String::new())],
            }]});
            world.api.update(route, Some("status")).unwrap();
        }
        next
    }
}
