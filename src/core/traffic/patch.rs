//! A change of an object that is not ours to apply, as a JSON Patch that fails when somebody else was faster.

use serde_json::{Value, json};

/// Returns the JSON Patch (RFC 6902) from one value to another; empty where they are the same.
///
/// Every member that changes is tested first, so that nothing is written over what was not seen. Lists go as a whole:
/// an index says nothing about which item was meant.
pub fn changes(from: &Value, to: &Value) -> Vec<Value> {
    let mut patch = Vec::new();
    between("", from, to, &mut patch);
    patch
}

fn between(path: &str, from: &Value, to: &Value, patch: &mut Vec<Value>) {
    if from == to {
        return;
    }
    let (Some(before), Some(after)) = (from.as_object(), to.as_object()) else {
        patch.push(json!({ "op": "test", "path": path, "value": from }));
        patch.push(json!({ "op": "replace", "path": path, "value": to }));
        return;
    };
    let below = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, value) in before {
        match after.get(name) {
            Some(wanted) => between(&below(name), value, wanted, patch),
            None => {
                patch.push(json!({ "op": "test", "path": below(name), "value": value }));
                patch.push(json!({ "op": "remove", "path": below(name) }));
            }
        }
    }
    for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        patch.push(json!({ "op": "add", "path": below(name), "value": value }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_go_as_a_whole_and_everything_is_tested_first() {
        let from = json!({"metadata": {"annotations": {"a/b": "1"}}, "spec": {"rules": [1, 2], "other": true}});
        let to = json!({"metadata": {"annotations": {"c~d": "2"}}, "spec": {"rules": [1, 3], "other": true}});
        let expected = json!([
            {"op": "test", "path": "/metadata/annotations/a~1b", "value": "1"},
            {"op": "remove", "path": "/metadata/annotations/a~1b"},
            {"op": "add", "path": "/metadata/annotations/c~0d", "value": "2"},
            {"op": "test", "path": "/spec/rules", "value": [1, 2]},
            {"op": "replace", "path": "/spec/rules", "value": [1, 3]},
        ]);
        assert_eq!(json!(changes(&from, &to)), expected);
        assert!(changes(&to, &to).is_empty());
    }
}
