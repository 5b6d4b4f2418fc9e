//! The canonical form of objects: what is hashed.

use serde_json::Value;

use super::Object;
use crate::core::names::Digest;

/// Returns the SHA-256 of a set of objects, whatever their order: the identity of what an application renders to.
pub fn digest(objects: &[Object]) -> Digest {
    let mut sorted: Vec<&Object> = objects.iter().collect();
    sorted.sort_by_cached_key(|object| object.key());
    let mut text = Vec::with_capacity(16 << 10);
    for object in sorted {
        write(&object.0, &mut text);
        text.push(b'\n');
    }
    Digest::of(&text)
}

/// Returns the SHA-256 of a value's canonical JSON: members sorted by name, no white space.
pub fn canonical_digest(value: &Value) -> Digest {
    let mut text = Vec::with_capacity(1024);
    write(value, &mut text);
    Digest::of(&text)
}

/// Appends canonical JSON. Sorted here, so that a feature of `serde_json` (`preserve_order`) cannot change a digest.
fn write(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            text.push(b'{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_string(name, text);
                text.push(b':');
                write(&members[name], text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write(item, text);
            }
            text.push(b']');
        }
        Value::String(string) => write_string(string, text),
        Value::Null => text.extend_from_slice(b"null"),
        Value::Bool(true) => text.extend_from_slice(b"true"),
        Value::Bool(false) => text.extend_from_slice(b"false"),
        Value::Number(number) => text.extend_from_slice(number.to_string().as_bytes()),
    }
}

fn write_string(string: &str, text: &mut Vec<u8>) {
    // A string always serialises, and a vector always takes it.
    let _ = serde_json::to_writer(text, string);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, data: Value) -> Object {
        Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
    }

    #[test]
    fn a_digest_does_not_depend_on_order() {
        let (a, b) = (object("a", json!({"x": "1", "y": "é\n"})), object("b", json!({"y": 1, "x": [1, null]})));
        assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
        assert_ne!(digest(&[a.clone(), b.clone()]), digest(&[a]));
        // The order of a list is part of what it says.
        assert_ne!(digest(&[b]), digest(&[object("b", json!({"y": 1, "x": [null, 1]}))]));
    }

    /// Digests are kept in Git: a change of the canonical form would make every application's stable unknown.
    #[test]
    fn the_canonical_form_stays_what_it_is() {
        let value = json!({"b": [1, 2.5, true, null], "a": {"é": "\"\n"}});
        let mut text = Vec::new();
        write(&value, &mut text);
        assert_eq!(String::from_utf8_lossy(&text), r#"{"a":{"é":"\"\n"},"b":[1,2.5,true,null]}"#);
        assert_eq!(canonical_digest(&value).short(), Digest::of(&text).short());
    }
}
