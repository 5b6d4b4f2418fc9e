//! What the gateway says of gateways and routes.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::CONTROLLER;
use crate::sandbox::value;

/// Why a gateway does not take a route.
#[derive(Clone, Debug)]
pub struct Refusal {
    reason: &'static str,
    message: String,
}

impl Refusal {
    /// Builds one from the API's reason and a sentence.
    pub fn new(reason: &'static str, message: &str) -> Self {
        Self { reason, message: message.to_owned() }
    }
}

/// Returns a gateway with its new status; `None` where it says so already.
pub fn gateway(gateway: &Value, address: Ipv4Addr, now: Timestamp) -> Option<Value> {
    let before = value::items(gateway, &["status", "conditions"]);
    let conditions = ["Accepted", "Programmed"].map(|kind| condition(gateway, before, kind, Ok(kind), now));
    let mut status = gateway.get("status").cloned().unwrap_or_else(|| json!({}));
    status["addresses"] = json!([{ "type": "IPAddress", "value": address.to_string() }]);
    status["conditions"] = json!(conditions);
    with_status(gateway, status)
}

/// Returns a route with its new status; `None` where it says so already. `parents`: references to gateways of the
/// sandbox, each with why it is refused, and with what is missing.
pub fn route(route: &Value, parents: &[(Value, Option<Refusal>, Option<String>)], now: Timestamp) -> Option<Value> {
    let before = value::items(route, &["status", "parents"]);
    let is_ours = |parent: &&Value| value::text(parent, &["controllerName"]) == CONTROLLER;
    let others = before.iter().filter(|parent| !is_ours(parent)).cloned();
    let ours = parents.iter().map(|(reference, refused, missing)| {
        let last = before.iter().filter(is_ours).find(|parent| parent["parentRef"] == *reference);
        let last = last.map_or(&[][..], |parent| value::items(parent, &["conditions"]));
        let accepted = match refused {
            Some(refusal) => Err((refusal.reason, refusal.message.as_str())),
            None => Ok("Accepted"),
        };
        let resolved = match missing {
            Some(message) => Err(("BackendNotFound", message.as_str())),
            None => Ok("ResolvedRefs"),
        };
        json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": [
                condition(route, last, "Accepted", accepted, now),
                condition(route, last, "ResolvedRefs", resolved, now),
            ],
        })
    });
    let parents: Vec<Value> = others.chain(ours).collect();
    // Whatever stands there in another form is nobody's here.
    if parents == before {
        return None;
    }
    with_status(route, json!({ "parents": parents }))
}

fn with_status(object: &Value, status: Value) -> Option<Value> {
    (object.get("status") != Some(&status)).then(|| {
        let mut object = object.clone();
        value::set(&mut object, &["status"], status);
        object
    })
}

/// Builds a condition of an object's newest generation. The time of the last change stays where nothing changed.
fn condition(object: &Value, before: &[Value], kind: &str, said: Result<&str, (&str, &str)>, now: Timestamp) -> Value {
    let (status, reason, message) = match said {
        Ok(reason) => ("True", reason, ""),
        Err((reason, message)) => ("False", reason, message),
    };
    let last = before.iter().find(|one| one["type"] == kind && one["status"] == status);
    let since = last.map_or_else(|| value::stamp(now), |last| last["lastTransitionTime"].clone());
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": value::number(object, &["metadata", "generation"]),
        "lastTransitionTime": since,
    })
}
