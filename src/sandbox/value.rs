//! Reading and writing fields of objects as JSON: what controllers and kubelet share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Returns the value at a path of field names.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(*name)).filter(|value| !value.is_null())
}

/// Returns the text at a path of field names; "" where there is none.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the number at a path of field names; 0 where there is none.
pub fn number(value: &Value, path: &[&str]) -> i64 {
    number_or(value, path, 0)
}

/// Returns the number at a path of field names, or `default`.
pub fn number_or(value: &Value, path: &[&str], default: i64) -> i64 {
    at(value, path).and_then(Value::as_i64).unwrap_or(default)
}

/// Returns whether the value at a path of field names is `true`.
pub fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// Returns the time at a path of field names.
pub fn time(value: &Value, path: &[&str]) -> Option<Timestamp> {
    at(value, path)?.as_str()?.parse().ok()
}

/// Returns the list at a path of field names; empty where there is none.
pub fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Returns a member as a map of texts.
pub fn texts(value: &Value, path: &[&str]) -> BTreeMap<String, String> {
    let members = at(value, path).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Returns the object at a path of field names for writing; makes objects on the way.
pub fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = value;
    for name in path {
        here = as_object(here).entry(*name).or_insert(Value::Null);
    }
    as_object(here)
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// Sets a member of the object at `path`.
pub fn set(value: &mut Value, path: &[&str], content: impl Into<Value>) {
    if let Some((last, parents)) = path.split_last() {
        object_mut(value, parents).insert((*last).to_owned(), content.into());
    }
}

/// Returns `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// Returns `metadata.namespace`, "" for objects of the cluster.
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// Returns `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// Returns a label's value.
pub fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", name]).and_then(Value::as_str)
}

/// Returns an annotation's value.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", name]).and_then(Value::as_str)
}

/// Returns whether the object is being deleted.
pub fn is_terminating(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// Returns when the object was created; the beginning of time where it does not say.
pub fn created(object: &Value) -> Timestamp {
    time(object, &["metadata", "creationTimestamp"]).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the owner reference that controls the object.
pub fn controller_of(object: &Value) -> Option<&Value> {
    items(object, &["metadata", "ownerReferences"]).iter().find(|owner| flag(owner, &["controller"]))
}

/// Returns an owner reference to `owner` that controls.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Returns whether the object has a finalizer.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(object, &["metadata", "finalizers"]).iter().any(|it| it == finalizer)
}

/// Returns a copy without a finalizer.
pub fn without_finalizer(object: &Value, finalizer: &str) -> Value {
    let mut object = object.clone();
    if let Some(Value::Array(finalizers)) = object_mut(&mut object, &["metadata"]).get_mut("finalizers") {
        finalizers.retain(|it| it != finalizer);
    }
    object
}

/// Writes a time as Kubernetes does: whole seconds, `Z`.
pub fn stamp(time: Timestamp) -> Value {
    Value::String(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Resolves an "int or percent" against a total: `25%` of 10 is 2, or 3 rounded up.
pub fn int_or_percent(value: Option<&Value>, total: i64, round_up: bool, default: &str) -> i64 {
    let percent = |text: &str| {
        let share = text.strip_suffix('%')?.parse::<i64>().ok()?.saturating_mul(total);
        Some(if round_up { (share + 99).div_euclid(100) } else { share.div_euclid(100) })
    };
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
        Some(Value::String(text)) => percent(text).unwrap_or_default(),
        _ => percent(default).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_as_asked() {
        assert_eq!(int_or_percent(Some(&json!("25%")), 10, false, "0%"), 2);
        assert_eq!(int_or_percent(Some(&json!("25%")), 10, true, "0%"), 3);
        assert_eq!(int_or_percent(Some(&json!(4)), 10, true, "0%"), 4);
        assert_eq!(int_or_percent(None, 10, true, "25%"), 3);
    }

    #[test]
    fn members_are_made_on_the_way() {
        let mut value = Value::Null;
        set(&mut value, &["status", "phase"], "Running");
        assert_eq!(value, json!({"status": {"phase": "Running"}}));
    }
}
