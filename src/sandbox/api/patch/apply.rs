//! Server-side apply: merging what is sent into what is there, and taking away what is no longer sent.
//!
//! The rules are those of sigs.k8s.io/structured-merge-diff v6, `merge.Updater.Apply`. Who owns what is
//! [`crate::sandbox::api::managed`]'s business.

use serde_json::{Map, Value};

use crate::sandbox::{
    api::fields::{Set, is_leaf, item_step},
    schema::{ANY, ListKind, Shape},
};

/// Returns `live` with everything of `config` in it.
pub fn merge(live: &Value, config: &Value, shape: &Shape) -> Value {
    if is_leaf(shape) {
        return config.clone();
    }
    match (live, config, shape) {
        (Value::Array(before), Value::Array(sent), Shape::List { of, kind }) => {
            Value::Array(merge_items(before, sent, of, kind))
        }
        (Value::Object(before), Value::Object(sent), _) => {
            let mut made = before.clone();
            for (name, value) in sent {
                let of = shape.member(name).unwrap_or(&ANY);
                let merged = match before.get(name) {
                    Some(existing) => merge(existing, value, of),
                    None => value.clone(),
                };
                made.insert(name.clone(), merged);
            }
            Value::Object(made)
        }
        _ => config.clone(),
    }
}

/// What is in both comes in the order that was sent. What only `before` has comes when its turn is, and before what is
/// sent anew.
fn merge_items(before: &[Value], sent: &[Value], of: &Shape, kind: &ListKind) -> Vec<Value> {
    let steps = |items: &[Value]| items.iter().map(|item| item_step(item, of, kind)).collect::<Vec<_>>();
    let (old, new) = (steps(before), steps(sent));
    let mut shared = new.iter().filter(|step| old.contains(step));
    let mut next_shared = shared.next();
    let (mut made, mut merged, mut left, mut right) = (Vec::new(), Vec::new(), 0, 0);
    while left < old.len() || right < new.len() {
        if let Some(step) = old.get(left) {
            let is_sent = new.contains(step);
            let is_next = new.get(right) == Some(step);
            // Shared, but not the one whose turn it is; or merged already.
            if !is_next && is_sent && (right < new.len() && next_shared != Some(step) || merged.contains(&step)) {
                left += 1;
                continue;
            }
            if !is_sent {
                made.push(before[left].clone());
                left += 1;
                continue;
            }
            if is_next {
                left += 1;
            }
        }
        let Some(step) = new.get(right) else { continue };
        merged.push(step);
        made.push(match old.iter().position(|have| have == step) {
            Some(at) => merge(&before[at], &sent[right], of),
            None => sent[right].clone(),
        });
        right += 1;
        if next_shared == Some(step) {
            next_shared = shared.next();
        }
    }
    made
}

/// Takes out of `value` what is in `last` (what the manager applied before) and in nobody's set now.
pub fn prune(value: &mut Value, last: &Set, owned: &Set, shape: &Shape) {
    let none = Set::default();
    for (step, before) in &last.0 {
        let name = step.strip_prefix("f:");
        // A named field is itself owned by whoever owns something in it.
        let named = name.is_some_and(|name| shape.as_type().is_some_and(|of| of.fields.contains_key(name)));
        let now = owned.0.get(step);
        let had = before.member || named;
        let has = now.is_some_and(|now| now.member || named);
        if had && !has {
            remove(value, step, name, shape);
            continue;
        }
        let children = now.map_or(&none, |now| &now.children);
        if let Some(name) = name {
            let of = shape.member(name).unwrap_or(&ANY);
            if let Some(member) = value.get_mut(name) {
                prune(member, &before.children, children, of);
                let emptied = !before.children.is_empty() && is_empty(member);
                if let (true, Value::Object(members)) = (emptied, &mut *value) {
                    members.remove(name);
                }
            }
        } else if let (Value::Array(items), Shape::List { of, kind }) = (&mut *value, shape) {
            let found = items.iter_mut().find(|item| item_step(item, of, kind).as_ref() == Some(step));
            if let Some(item) = found {
                prune(item, &before.children, children, of);
            }
        }
    }
}

fn remove(value: &mut Value, step: &str, name: Option<&str>, shape: &Shape) {
    match (value, name, shape) {
        (Value::Object(members), Some(name), _) => drop(members.remove(name)),
        (Value::Array(items), None, Shape::List { of, kind }) => {
            items.retain(|item| item_step(item, of, kind).as_deref() != Some(step));
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
