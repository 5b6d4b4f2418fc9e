//! Sets of fields, as `metadata.managedFields` has them (`fieldsV1`), and what two objects differ in.
//!
//! The rules are those of sigs.k8s.io/structured-merge-diff v6: `fieldpath.Set`, `typed.Compare`, `typed.ToFieldSet`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::sandbox::schema::{ANY, ListKind, Shape, Type};

/// A set of fields: a tree whose steps are written as in `fieldsV1` (`f:spec`, `k:{"name":"web"}`, `v:"x"`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(pub BTreeMap<String, Entry>);

/// One step of a [`Set`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whether the path up to here is in the set.
    pub member: bool,
    /// What is in the set below.
    pub children: Set,
}

impl Set {
    /// Returns whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn attach(&mut self, step: &str, member: bool, children: Set) {
        if member || !children.is_empty() {
            let entry = self.0.entry(step.to_owned()).or_default();
            entry.member |= member;
            entry.children.add(children);
        }
    }

    /// Adds everything of `other`.
    pub fn add(&mut self, other: Set) {
        if self.0.is_empty() {
            self.0 = other.0;
            return;
        }
        for (step, theirs) in other.0 {
            let ours = self.0.entry(step).or_default();
            ours.member |= theirs.member;
            ours.children.add(theirs.children);
        }
    }

    /// Takes away everything that is in `other`; what lies below a path of `other` stays.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.0.retain(|step, ours| {
            if let Some(theirs) = other.0.get(step) {
                ours.member &= !theirs.member;
                ours.children.subtract(&theirs.children);
            }
            ours.member || !ours.children.is_empty()
        });
    }

    /// Returns what is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut both = Set::default();
        for (step, ours) in &self.0 {
            if let Some(theirs) = other.0.get(step) {
                both.attach(step, ours.member && theirs.member, ours.children.intersection(&theirs.children));
            }
        }
        both
    }

    /// Returns whether anything of the set is in `fields`, a `fieldsV1`.
    pub fn touches(&self, fields: &Value) -> bool {
        self.0.iter().any(|(step, ours)| {
            let Some(theirs) = fields.get(step) else { return false };
            let member = || theirs.as_object().is_none_or(|theirs| theirs.is_empty() || theirs.contains_key("."));
            (ours.member && member()) || ours.children.touches(theirs)
        })
    }

    /// Takes a path of field names and everything below it out of the set.
    pub fn forget(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let step = format!("f:{first}");
        if rest.is_empty() {
            self.0.remove(&step);
        } else if let Some(entry) = self.0.get_mut(&step) {
            entry.children.forget(rest);
            if !entry.member && entry.children.is_empty() {
                self.0.remove(&step);
            }
        }
    }

    /// Takes just a field itself out of the set and leaves what lies below.
    pub fn forget_member(&mut self, name: &str) {
        let step = format!("f:{name}");
        if let Some(entry) = self.0.get_mut(&step) {
            entry.member = false;
            if entry.children.is_empty() {
                self.0.remove(&step);
            }
        }
    }

    /// Returns all paths in the set as people read them, `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, before: &str, paths: &mut Vec<String>) {
        for (step, entry) in &self.0 {
            let path = format!("{before}{}", readable(step));
            entry.children.collect(&path, paths);
            if entry.member {
                paths.push(path);
            }
        }
    }

    /// Returns the set as `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        for (step, entry) in &self.0 {
            let mut below = match entry.children.to_value() {
                Value::Object(below) => below,
                _ => Map::new(),
            };
            if entry.member && !below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            members.insert(step.clone(), Value::Object(below));
        }
        Value::Object(members)
    }

    /// Reads `fieldsV1`.
    pub fn from_value(value: &Value) -> Self {
        let mut made = Self::default();
        for (step, below) in value.as_object().into_iter().flatten().filter(|(step, _)| *step != ".") {
            let member = below.as_object().is_none_or(|below| below.is_empty() || below.contains_key("."));
            made.0.insert(step.clone(), Entry { member, children: Self::from_value(below) });
        }
        made
    }
}

fn readable(step: &str) -> String {
    if let Some(name) = step.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(keys) = step.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return format!("[{}]", keys.join(","));
    }
    format!("[={}]", step.strip_prefix("v:").unwrap_or(step))
}

/// Whether a value of this shape is owned as a whole.
pub fn is_leaf(shape: &Shape) -> bool {
    match shape {
        Shape::Scalar(_) | Shape::Any { atomic: true } => true,
        Shape::Map { atomic, .. } => *atomic,
        Shape::List { kind, .. } => *kind == ListKind::Atomic,
        Shape::Any { atomic: false } => false,
        Shape::Builtin(_) | Shape::Inline(_) => shape.as_type().is_none_or(|of: &Type| of.atomic),
    }
}

/// Returns the step to an item of a list that is not atomic; `None` where the item lacks a key.
pub fn item_step(item: &Value, of: &Shape, kind: &ListKind) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                let default = || of.as_type()?.fields.get(key)?.default.clone();
                found.insert(key.clone(), item.get(key).cloned().or_else(default)?);
            }
            Some(format!("k:{}", Value::Object(found)))
        }
    }
}

/// Returns the fields that `value` has.
pub fn fields_of(value: &Value, shape: &Shape) -> Set {
    let mut set = Set::default();
    match (value, shape) {
        (Value::Object(members), _) if !is_leaf(shape) => {
            for (name, member) in members {
                let Some(of) = shape.member(name) else { continue };
                let named = shape.as_type().is_some_and(|made| made.fields.contains_key(name));
                let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                let is_member = is_leaf_value(member, of) || empty || !named;
                set.attach(&format!("f:{name}"), is_member, below(member, of));
            }
        }
        (Value::Array(items), Shape::List { of, kind }) => {
            for item in items {
                if let Some(step) = item_step(item, of, kind) {
                    set.attach(&step, true, below(item, of));
                }
            }
        }
        _ => {}
    }
    set
}

fn below(value: &Value, shape: &Shape) -> Set {
    if is_leaf(shape) { Set::default() } else { fields_of(value, shape) }
}

/// Whether a value ends a path: by its shape, or because it is no object or list where one could be.
fn is_leaf_value(value: &Value, shape: &Shape) -> bool {
    is_leaf(shape)
        || match value {
            Value::Object(_) => false,
            Value::Array(_) => !matches!(shape, Shape::List { .. }),
            _ => true,
        }
}

/// What two objects differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that only the new one has.
    pub added: Set,
    /// Fields that differ.
    pub modified: Set,
    /// Fields that only the old one has.
    pub removed: Set,
}

impl Comparison {
    /// Returns whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    fn attach(&mut self, step: &str, added: bool, modified: bool, removed: bool, below: Comparison) {
        self.added.attach(step, added, below.added);
        self.modified.attach(step, modified, below.modified);
        self.removed.attach(step, removed, below.removed);
    }
}

/// Compares two objects of one shape.
pub fn compare(old: &Value, new: &Value, shape: &Shape) -> Comparison {
    let mut made = Comparison::default();
    descend(Some(old), Some(new), shape, &mut made);
    made
}

fn descend(old: Option<&Value>, new: Option<&Value>, shape: &Shape, out: &mut Comparison) {
    if let Shape::List { of, kind } = shape {
        let (before, after) = (items_by_step(old, of, kind), items_by_step(new, of, kind));
        let of_step = |list: &[(String, &Value)], step: &str| list.iter().position(|(have, _)| have == step);
        for (step, item) in &before {
            let counterpart = of_step(&after, step).map(|index| after[index].1);
            child(step, Some(item), counterpart, of, false, out);
        }
        for (step, item) in after.iter().filter(|(step, _)| of_step(&before, step).is_none()) {
            child(step, None, Some(item), of, false, out);
        }
        return;
    }
    let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let none = Map::new();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    for (name, value) in before {
        member(name, Some(value), after.get(name), shape, out);
    }
    for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        member(name, None, Some(value), shape, out);
    }
}

fn items_by_step<'a>(list: Option<&'a Value>, of: &Shape, kind: &ListKind) -> Vec<(String, &'a Value)> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| Some((item_step(item, of, kind)?, item))).collect()
}

fn member(name: &str, old: Option<&Value>, new: Option<&Value>, shape: &Shape, out: &mut Comparison) {
    if old == new {
        return;
    }
    let implied = shape.as_type().and_then(|of| of.fields.get(name)).is_some_and(|field| field.always_written);
    let of = shape.member(name).unwrap_or(&ANY);
    child(&format!("f:{name}"), old, new, of, implied, out);
}

/// `implied`: a struct that is always there is not itself added or removed.
fn child(step: &str, old: Option<&Value>, new: Option<&Value>, shape: &Shape, implied: bool, out: &mut Comparison) {
    if old == new {
        return;
    }
    let ends = |value: Option<&Value>| value.is_none_or(|value| is_leaf_value(value, shape));
    let empty = |value: Option<&Value>| match value {
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Null) | None => true,
        Some(_) => false,
    };
    if (ends(old) && ends(new)) || (empty(old) && empty(new)) {
        if !(implied && empty(old) && empty(new)) {
            let (added, removed) = (old.is_none(), new.is_none());
            out.attach(step, added, !added && !removed, removed, Comparison::default());
        }
        return;
    }
    let mut below = Comparison::default();
    descend(old, new, shape, &mut below);
    out.attach(step, old.is_none() && !implied, false, new.is_none() && !implied, below);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::sandbox::schema::builtin;

    #[test]
    fn list_items_are_told_apart_by_their_keys() {
        let shape = builtin().object("", "v1", "Pod").unwrap();
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "x:2".into();
        new["metadata"] = json!({"labels": {"app": "web"}});
        let made = compare(&old, &new, &shape);
        assert_eq!(made.modified.paths(), [".spec.containers[name=\"a\"].image"]);
        assert_eq!(made.added.to_value(), json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}));
        assert!(made.removed.is_empty());
        let fields = fields_of(&old, &shape);
        assert_eq!(
            fields.to_value(),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
            }}}})
        );
        assert_eq!(Set::from_value(&fields.to_value()), fields);
    }
}
