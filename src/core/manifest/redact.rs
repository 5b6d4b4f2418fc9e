//! What may be shown of objects: of Secrets only hashes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Object;
use crate::core::names::Digest;

/// Where client-side apply keeps a whole copy of what was applied, Secrets included.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns whether an object's content must not be shown.
pub fn is_secret(object: &Object) -> bool {
    object.text(&["kind"]) == "Secret" && object.text(&["apiVersion"]) == "v1"
}

/// Returns the object as it may be shown: a Secret's values are replaced by their hashes, so that a change still shows.
pub fn redact(object: &Object) -> Object {
    let mut shown = object.clone();
    if !is_secret(object) {
        return shown;
    }
    for field in ["data", "stringData"] {
        if let Some(values) = shown.0.get_mut(field).and_then(Value::as_object_mut) {
            for value in values.values_mut() {
                *value = Value::String(hashed(field, value));
            }
        }
    }
    if shown.annotation(LAST_APPLIED).is_some() {
        shown.set(&["metadata", "annotations", LAST_APPLIED], Value::String("(not shown)".to_owned()));
    }
    shown
}

/// Hashes what the value stands for, so that the same value in `data` and in `stringData` shows the same.
pub(crate) fn hashed(field: &str, value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let decoded = (field == "data").then(|| STANDARD.decode(text).ok()).flatten();
    let bytes = decoded.as_deref().unwrap_or(text.as_bytes());
    format!("(sha256 {}, {} bytes)", Digest::of(bytes).short(), bytes.len())
}

/// Returns a server's message without the values of a Secret that it was about: servers quote what they refuse.
pub fn redact_text(message: &str, object: &Object) -> String {
    /// Shorter ones would be found inside of words; no secret worth the name is.
    const SHORTEST: usize = 4;
    let mut shown = message.to_owned();
    if !is_secret(object) {
        return shown;
    }
    for field in ["data", "stringData"] {
        for value in object.at(&[field]).and_then(Value::as_object).into_iter().flatten().map(|(_, value)| value) {
            let text = value.as_str().unwrap_or_default();
            let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let encoded = STANDARD.encode(text);
            for value in [text, decoded.as_deref().unwrap_or_default(), &encoded] {
                if value.len() >= SHORTEST {
                    shown = shown.replace(value, "(not shown)");
                }
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret() -> Object {
        Object(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "db", "annotations": {LAST_APPLIED: "{\"data\":{\"password\":\"aHVudGVyMg==\"}}"}},
            "data": {"password": "aHVudGVyMg=="},
            "stringData": {"token": "hunter2"},
        }))
    }

    #[test]
    fn fault_87_a_secret_shows_only_hashes() {
        let shown = redact(&secret());
        let text = shown.0.to_string();
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
        // The same value shows the same hash, however it was written.
        assert_eq!(shown.at(&["data", "password"]), shown.at(&["stringData", "token"]));
        assert_eq!(shown.text(&["data", "password"]), "(sha256 f52fbd32, 7 bytes)");
    }

    #[test]
    fn fault_87_a_servers_message_shows_no_value() {
        let shown = redact_text("invalid data: \"hunter2\" (aHVudGVyMg==)", &secret());
        assert_eq!(shown, "invalid data: \"(not shown)\" ((not shown))");
    }

    #[test]
    fn other_objects_are_shown_as_they_are() {
        let map =
            Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "c"}}));
        assert_eq!(redact(&map), map);
    }
}
