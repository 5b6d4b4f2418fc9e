//! How a person sees a difference.

use similar::TextDiff;

use crate::core::manifest::{Object, redact};

/// Returns the difference between an object now and as it would be, as a unified diff of YAML; `None` where it shows
/// nothing. Of Secrets only hashes show; what only a server writes is left out.
pub fn text_diff(now: Option<&Object>, then: Option<&Object>) -> Option<String> {
    let (before, after) = (now.map(shown).unwrap_or_default(), then.map(shown).unwrap_or_default());
    if before == after {
        return None;
    }
    let name = now.or(then).map(|object| object.key().to_string()).unwrap_or_default();
    let diff = TextDiff::from_lines(&before, &after);
    let (now, then) = (format!("{name} (now)"), format!("{name} (then)"));
    Some(diff.unified_diff().context_radius(3).header(&now, &then).to_string())
}

fn shown(object: &Object) -> String {
    let mut object = redact(object);
    object.remove(&["status"]);
    for field in ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"] {
        object.remove(&["metadata", field]);
    }
    serde_yaml::to_string(&object.0).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_shown_with_its_surroundings() {
        let object = |image: &str, version: &str| {
            let metadata = json!({"name": "a", "namespace": "shop", "resourceVersion": version});
            Object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"image": image}}))
        };
        let expected = "--- Pod/a in shop (now)
+++ Pod/a in shop (then)
@@ -4,4 +4,4 @@
   name: a
   namespace: shop
 spec:
-  image: web:1
+  image: web:2
";
        assert_eq!(text_diff(Some(&object("web:1", "7")), Some(&object("web:2", "8"))).unwrap(), expected);
        assert_eq!(text_diff(Some(&object("web:1", "7")), Some(&object("web:1", "8"))), None);
    }

    #[test]
    fn fault_87_a_secret_shows_that_it_changes_and_not_what() {
        let secret = |value: &str| {
            let data = json!({"password": value});
            Object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": data}))
        };
        let shown = text_diff(Some(&secret("aHVudGVyMg==")), Some(&secret("aHVudGVyMw=="))).unwrap();
        assert!(shown.contains("(sha256 f52fbd32, 7 bytes)") && !shown.contains("aHVudGVy"), "{shown}");
    }
}
