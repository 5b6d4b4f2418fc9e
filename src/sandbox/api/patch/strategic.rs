//! Kubernetes' strategic merge patch: a merge patch that knows how lists are merged, driven by the schema.
//!
//! The rules are those of k8s.io/apimachinery/pkg/util/strategicpatch.

use serde_json::{Map, Value};

use crate::sandbox::{
    api::status::Status,
    schema::{Field, PatchStrategy, Shape},
};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target`.
///
/// # Errors
///
/// 400 where the patch has a directive that cannot be read, or an item without its key.
pub fn apply(target: &mut Value, patch: &Value, shape: &Shape) -> Result<(), Status> {
    let (Value::Object(changes), Value::Object(_)) = (patch, &*target) else {
        *target = without_directives(patch.clone());
        return Ok(());
    };
    match changes.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *target = without_directives(patch.clone());
            return Ok(());
        }
        Some(Some("delete")) => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(_) => return Err(Status::bad_request("unknown $patch directive in strategic merge patch")),
    }
    let Value::Object(members) = target else { return Ok(()) };
    if let Some(keep) = changes.get(RETAIN).and_then(Value::as_array) {
        members.retain(|name, _| keep.iter().any(|kept| kept == name.as_str()));
    }
    for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
        let field = shape.as_type().and_then(|of| of.fields.get(name));
        if change.is_null() {
            members.remove(name);
            continue;
        }
        let order = changes.get(&format!("{ORDER}{name}")).and_then(Value::as_array);
        match (change, field) {
            (Value::Array(items), Some(field)) if field.patch.merge => {
                let list = members.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, field, order)?;
            }
            (Value::Object(inner), _) => {
                if inner.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                    members.remove(name);
                    continue;
                }
                let of = shape.member(name).unwrap_or(&crate::sandbox::schema::ANY);
                match members.get_mut(name) {
                    Some(existing) if existing.is_object() => apply(existing, change, of)?,
                    _ => {
                        let mut made = Value::Object(Map::new());
                        apply(&mut made, change, of)?;
                        members.insert(name.clone(), made);
                    }
                }
            }
            _ => {
                members.insert(name.clone(), change.clone());
            }
        }
    }
    for (name, gone) in changes.iter().filter_map(|(name, gone)| Some((name.strip_prefix(DELETE_FROM)?, gone))) {
        if let (Some(Value::Array(items)), Some(gone)) = (members.get_mut(name), gone.as_array()) {
            items.retain(|item| !gone.contains(item));
        }
    }
    for (name, order) in changes.iter().filter_map(|(name, order)| Some((name.strip_prefix(ORDER)?, order))) {
        let field = shape.as_type().and_then(|of| of.fields.get(name));
        if let (Some(Value::Array(items)), Some(order), Some(field)) = (members.get_mut(name), order.as_array(), field)
        {
            let before = items.clone();
            sort(items, order, &before, &field.patch);
        }
    }
    Ok(())
}

fn merge_list(list: &mut Value, changes: &[Value], field: &Field, order: Option<&Vec<Value>>) -> Result<(), Status> {
    let Shape::List { of, .. } = &field.shape else { return Ok(()) };
    let replaces = |change: &Value| change[DIRECTIVE] == "replace";
    if changes.iter().any(replaces) {
        *list = changes.iter().filter(|change| !replaces(change)).cloned().map(without_directives).collect();
        return Ok(());
    }
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Value::Array(items) = list else { return Ok(()) };
    let before = items.clone();
    let Some(key) = &field.patch.key else {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
        sort(items, changes, &before, &field.patch);
        return Ok(());
    };
    for change in changes {
        let id = change
            .get(key)
            .ok_or_else(|| Status::bad_request(format!("map: {change} does not contain declared merge key: {key}")))?;
        let place = items.iter().position(|item| item.get(key) == Some(id));
        match (change.get(DIRECTIVE).and_then(Value::as_str), place) {
            (Some("delete"), _) => items.retain(|item| item.get(key) != Some(id)),
            (_, Some(at)) => apply(&mut items[at], change, of)?,
            (_, None) => {
                let mut made = Value::Object(Map::new());
                apply(&mut made, change, of)?;
                items.push(made);
            }
        }
    }
    sort(items, changes, &before, &field.patch);
    if let Some(order) = order {
        sort(items, order, &before, &field.patch);
    }
    Ok(())
}

/// Brings the items that `order` names into its order, and the others into the one that they had `before`. Of one of
/// each the other comes first only where it did before (`normalizeElementOrder`).
fn sort(items: &mut Vec<Value>, order: &[Value], before: &[Value], patch: &PatchStrategy) {
    let place = |list: &[Value], item: &Value| match &patch.key {
        Some(key) => list.iter().position(|wanted| wanted.get(key) == item.get(key)),
        None => list.iter().position(|wanted| wanted == item),
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(before, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return,
            (Some(other), Some(named)) => {
                place(before, other).zip(place(before, named)).is_some_and(|(other, named)| other < named)
            }
            (other, _) => other.is_some(),
        };
        items.extend(if other_first { others.next() } else { named.next() });
    }
}

fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_directives(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_directives).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use crate::sandbox::schema::builtin;

    fn patched(object: Value, patch: Value) -> Value {
        let mut object = json!({"spec": object});
        super::apply(&mut object, &json!({"spec": patch}), &builtin().object("", "v1", "Pod").unwrap()).unwrap();
        object["spec"].take()
    }

    #[test]
    fn lists_are_merged_by_their_key() {
        let pod = json!({"containers": [{"name": "a", "image": "x:1", "args": ["1"]}, {"name": "b", "image": "y"}]});
        let patch = json!({"containers": [{"name": "a", "image": "x:2"}, {"name": "c", "image": "z"}]});
        assert_eq!(
            patched(pod.clone(), patch),
            json!({"containers": [
                {"name": "a", "image": "x:2", "args": ["1"]}, {"name": "c", "image": "z"}, {"name": "b", "image": "y"}
            ]}),
            "what is sent comes first where nothing says otherwise"
        );
        let patch = json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "b", "$patch": "delete"}, {"name": "c", "image": "z"}],
        });
        assert_eq!(
            patched(pod, patch),
            json!({"containers": [{"name": "c", "image": "z"}, {"name": "a", "image": "x:1", "args": ["1"]}]})
        );
    }

    #[test]
    fn directives_replace_delete_and_retain() {
        let pod = json!({"volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "1", "b": "2"}});
        let patch = json!({
            "volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}],
            "nodeSelector": {"$patch": "replace", "c": "3"},
        });
        assert_eq!(
            patched(pod.clone(), patch),
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}], "nodeSelector": {"c": "3"}})
        );
        assert_eq!(
            patched(pod, json!({"nodeSelector": null, "volumes": [{"$patch": "replace"}]})),
            json!({"volumes": []})
        );
    }
}
