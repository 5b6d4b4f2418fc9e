//! RFC 6902, JSON patch.

use serde_json::Value;

use super::go_kind;
use crate::sandbox::api::status::Status;

/// Carries out all operations, or none.
///
/// # Errors
///
/// 400 where the patch cannot be read, 422 where an operation does not fit the object or a test fails.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), Status> {
    let operations = patch.as_array().ok_or_else(|| {
        let (found, wanted) = (go_kind(patch), "[]handlers.jsonPatchOp");
        let why = format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        Status::bad_request(format!("error decoding patch: {why}"))
    })?;
    let mut made = target.clone();
    for operation in operations {
        let text = |name: &str| operation[name].as_str();
        let missing = |name: &str| Status::bad_request(format!("JSON patch operation lacks {name:?}"));
        let path = text("path").ok_or_else(|| missing("path"))?;
        let value = || operation.get("value").cloned().ok_or_else(|| missing("value"));
        match text("op").ok_or_else(|| missing("op"))? {
            "add" => add(&mut made, path, value()?)?,
            "remove" => drop(remove(&mut made, path)?),
            "replace" => {
                let wanted = value()?;
                *find(&mut made, path)? = wanted;
            }
            "move" => {
                let moved = remove(&mut made, text("from").ok_or_else(|| missing("from"))?)?;
                add(&mut made, path, moved)?;
            }
            "copy" => {
                let copied = find(&mut made, text("from").ok_or_else(|| missing("from"))?)?.clone();
                add(&mut made, path, copied)?;
            }
            "test" => {
                // As Kubernetes' library has it, a field that is absent equals null.
                let found = made.pointer(path).unwrap_or(&Value::Null);
                if *found != operation.get("value").cloned().unwrap_or(Value::Null) {
                    return Err(refused(&format!("testing value {path} failed: test failed")));
                }
            }
            other => return Err(Status::bad_request(format!("unexpected JSON patch operation {other:?}"))),
        }
    }
    *target = made;
    Ok(())
}

/// Kubernetes keeps to itself which operation did not fit.
fn refused(why: &str) -> Status {
    tracing::debug!(why, "a JSON patch was refused");
    Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
}

fn split(path: &str) -> Result<(&str, String), Status> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| refused(&format!("no such path: {path:?}")))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn find<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value, Status> {
    target.pointer_mut(path).ok_or_else(|| refused(&format!("path {path:?} does not exist: missing value")))
}

fn index(text: &str, length: usize) -> Result<usize, Status> {
    let index = if text == "-" { Some(length) } else { text.parse().ok() };
    index.filter(|index| *index <= length).ok_or_else(|| refused(&format!("invalid array index {text:?}")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), Status> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = split(path)?;
    match find(target, parent)? {
        Value::Object(members) => drop(members.insert(last, value)),
        Value::Array(items) => {
            let at = index(&last, items.len())?;
            items.insert(at, value);
        }
        _ => return Err(refused(&format!("path {parent:?} is neither an object nor a list"))),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, Status> {
    let (parent, last) = split(path)?;
    let gone = match find(target, parent)? {
        Value::Object(members) => members.remove(&last),
        Value::Array(items) => match last.parse::<usize>() {
            Ok(at) if at < items.len() => Some(items.remove(at)),
            _ => None,
        },
        _ => None,
    };
    gone.ok_or_else(|| refused(&format!("remove operation does not apply: unable to remove nonexistent key: {path}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::apply;

    #[test]
    fn all_operations_are_carried_out_or_none() {
        let mut object = json!({"a": [1, 2], "b/c": {"x": 1}});
        let patch = json!([
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "test", "path": "/gone", "value": null},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"},
            {"op": "replace", "path": "/b~1c/x", "value": 2},
            {"op": "copy", "from": "/b~1c", "path": "/d"},
            {"op": "move", "from": "/d/x", "path": "/e"},
        ]);
        apply(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"a": [2, 3], "b/c": {"x": 2}, "d": {}, "e": 2}));
        let before = object.clone();
        let wrong = json!([{"op": "remove", "path": "/e"}, {"op": "test", "path": "/a/0", "value": 9}]);
        assert_eq!(apply(&mut object, &wrong).unwrap_err().code, 422);
        assert_eq!(object, before);
    }
}
