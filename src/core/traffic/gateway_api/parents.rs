//! What the gateways of a route say of it.

use serde_json::Value;

use crate::core::{manifest::Object, traffic::Answer};

/// Returns whether every parent that the route names has taken its newest generation.
pub(super) fn answer(route: &Object) -> Answer {
    let list = |path: &[&str]| route.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let (named, statuses) = (list(&["spec", "parentRefs"]), list(&["status", "parents"]));
    if named.is_empty() {
        return Answer::CannotTell(format!("HTTPRoute/{} names no gateway", route.name()));
    }
    let generation = route.number(&["metadata", "generation"]).unwrap_or(0);
    named.iter().fold(Answer::Yes, |answer, parent| {
        answer.and_then(|| {
            let mut said = statuses.iter().filter(|status| is_same(&status["parentRef"], parent, route)).peekable();
            if said.peek().is_none() {
                return Answer::NotYet(format!("{} has not answered yet", name(parent)));
            }
            said.fold(Answer::Yes, |answer, status| answer.and_then(|| taken(parent, status, generation)))
        })
    })
}

/// Whether two references are to the same listener of the same parent.
fn is_same(a: &Value, b: &Value, route: &Object) -> bool {
    let defaults = [
        ("group", "gateway.networking.k8s.io"),
        ("kind", "Gateway"),
        ("namespace", route.namespace()),
        ("name", ""),
        ("sectionName", ""),
    ];
    defaults.iter().all(|(field, default)| {
        let text = |reference: &'_ Value| reference[*field].as_str().unwrap_or(default).to_owned();
        text(a) == text(b)
    }) && a["port"] == b["port"]
}

fn name(parent: &Value) -> String {
    let text = |field: &str, default| parent[field].as_str().unwrap_or(default).to_owned();
    format!("{}/{}", text("kind", "Gateway"), text("name", ""))
}

/// Whether one controller says that a parent routes as the route says.
fn taken(parent: &Value, status: &Value, generation: i64) -> Answer {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let condition = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    let said = |condition: &Value, kind: &str| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        format!("{}: {kind} is {}: {}", name(parent), text("status"), text("message"))
    };
    for kind in ["Accepted", "ResolvedRefs"] {
        let Some(condition) = condition(kind) else {
            return Answer::NotYet(format!("{} does not say yet whether it is {kind}", name(parent)));
        };
        match condition["observedGeneration"].as_i64() {
            None => return Answer::CannotTell(format!("{} does not say which generation it has seen", name(parent))),
            Some(seen) if seen < generation => {
                let why = format!("{} has seen generation {seen}, not {generation} yet", name(parent));
                return Answer::NotYet(why);
            }
            Some(_) if condition["status"] != "True" => return Answer::NotYet(said(condition, kind)),
            Some(_) => {}
        }
    }
    // The gateway left some rules out, or goes on with older ones.
    match condition("PartiallyInvalid") {
        Some(condition) if condition["status"] == "True" => Answer::NotYet(said(condition, "PartiallyInvalid")),
        _ => Answer::Yes,
    }
}
