//! The canonical form of objects: what is hashed.

use serde_json::Value;

use crate::core::names::Digest;

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
