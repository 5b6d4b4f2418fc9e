//! Label selectors of objects: `matchLabels` and `matchExpressions`.

use serde_json::Value;

use super::value;

/// Returns whether a `LabelSelector` selects `labels`; an empty selector selects everything, a missing one nothing.
pub fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector.filter(|it| !it.is_null()) else { return false };
    includes(selector.get("matchLabels"), labels)
        && value::items(selector, &["matchExpressions"]).iter().all(|it| holds(it, labels))
}

/// Returns whether every member of `wanted` is among `labels`; true where nothing is wanted.
pub fn includes(wanted: Option<&Value>, labels: Option<&Value>) -> bool {
    let mut wanted = wanted.and_then(Value::as_object).into_iter().flatten();
    wanted.all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// Returns whether one requirement (`key`, `operator`, `values`) holds; the operators of selectors and node affinity.
pub fn holds(requirement: &Value, labels: Option<&Value>) -> bool {
    let found = labels.and_then(|labels| labels.get(value::text(requirement, &["key"]))).and_then(Value::as_str);
    let values = value::items(requirement, &["values"]);
    let listed = |found: &str| values.iter().any(|it| it == found);
    let bound = || values.first()?.as_str()?.parse::<i64>().ok();
    let compare = |ordering| {
        let number = found.and_then(|found| found.parse::<i64>().ok());
        number.zip(bound()).is_some_and(|(number, bound)| number.cmp(&bound) == ordering)
    };
    match value::text(requirement, &["operator"]) {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// Returns an object's labels.
pub fn labels_of(object: &Value) -> Option<&Value> {
    value::at(object, &["metadata", "labels"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_means_what_kubernetes_says() {
        let labels = json!({"zone": "dca", "disk": "12"});
        let ask = |key: &str, operator: &str, values: &[&str]| {
            holds(&json!({"key": key, "operator": operator, "values": values}), Some(&labels))
        };
        assert!(ask("zone", "In", &["dcb", "dca"]));
        assert!(!ask("zone", "NotIn", &["dca"]));
        assert!(ask("none", "NotIn", &["dca"]));
        assert!(ask("zone", "Exists", &[]));
        assert!(ask("none", "DoesNotExist", &[]));
        assert!(ask("disk", "Gt", &["11"]) && !ask("disk", "Gt", &["12"]));
        assert!(ask("disk", "Lt", &["13"]) && !ask("none", "Lt", &["13"]));
    }

    #[test]
    fn an_empty_selector_selects_everything_and_none_nothing() {
        assert!(selects(Some(&json!({})), None));
        assert!(!selects(None, Some(&json!({"a": "b"}))));
        assert!(!selects(Some(&json!({"matchLabels": {"a": "c"}})), Some(&json!({"a": "b"}))));
    }
}
