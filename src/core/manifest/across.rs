//! What only several objects together show: one object in two applications, selectors that take each other's pods.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Manifest, strings};
use crate::core::{cluster::ObjectKey, names::AppName, problem::Problem};

/// Returns the problems of applications that hold the same object, or whose workloads select each other's pods: with
/// each application, all of its own. Neither of two is applied: nobody can tell whose it is.
pub fn check_across<'a>(
    manifests: impl IntoIterator<Item = (&'a AppName, &'a Manifest)>,
) -> BTreeMap<AppName, Vec<Problem>> {
    let mut found: BTreeMap<AppName, Vec<Problem>> = BTreeMap::new();
    let mut owners: HashMap<ObjectKey, (&AppName, &Manifest)> = HashMap::new();
    let mut selectors = Vec::new();
    for (app, manifest) in manifests {
        selectors.extend(Selected::of(app, manifest));
        let key = manifest.object.key();
        let Some((other, first)) = owners.get(&key).copied() else {
            owners.insert(key, (app, manifest));
            continue;
        };
        if other == app {
            continue;
        }
        for (app, here, other, there) in [(app, manifest, other, first), (other, first, app, manifest)] {
            let problem = here
                .problem(format!("{key} is in two applications, `{app}` and `{other}`"))
                .label(format!("the other is at {}:{}", there.file, there.span.line));
            found.entry(app.clone()).or_default().push(problem);
        }
    }
    for (app, problem) in overlaps(&selectors) {
        found.entry(app).or_default().push(problem);
    }
    found
}

/// A workload that selects pods and makes some.
struct Selected<'a> {
    app: &'a AppName,
    manifest: &'a Manifest,
    selector: &'a Value,
    labels: BTreeMap<String, String>,
}

impl<'a> Selected<'a> {
    fn of(app: &'a AppName, manifest: &'a Manifest) -> Option<Self> {
        let object = &manifest.object;
        let makes_pods = matches!(object.text(&["kind"]), "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet");
        let selector = object.at(&["spec", "selector"]).filter(|_| makes_pods)?;
        Some(Self { app, manifest, selector, labels: strings(object.at(&["spec", "template", "metadata", "labels"])) })
    }
}

fn overlaps(selected: &[Selected<'_>]) -> Vec<(AppName, Problem)> {
    // Pods by namespace and one label: a selector with labels looks only at those that have its first one.
    let mut by_label: HashMap<(&str, &str, &str), Vec<usize>> = HashMap::new();
    let mut by_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, workload) in selected.iter().enumerate() {
        let namespace = workload.manifest.object.namespace();
        by_namespace.entry(namespace).or_default().push(index);
        for (name, value) in &workload.labels {
            by_label.entry((namespace, name, value)).or_default().push(index);
        }
    }
    let none = Vec::new();
    let mut found = Vec::new();
    for (index, workload) in selected.iter().enumerate() {
        let namespace = workload.manifest.object.namespace();
        let first = workload.selector["matchLabels"].as_object().and_then(|labels| labels.iter().next());
        let candidates = match first.and_then(|(name, value)| Some((name.as_str(), value.as_str()?))) {
            Some((name, value)) => by_label.get(&(namespace, name, value)).unwrap_or(&none),
            None => by_namespace.get(namespace).unwrap_or(&none),
        };
        let matching = candidates.iter().filter(|other| selects(workload.selector, &selected[**other].labels));
        let matching: Vec<usize> = matching.copied().collect();
        let name = workload.manifest.object.key();
        if !matching.contains(&index) {
            let problem = workload.manifest.problem(format!("the selector of {name} does not match its own pods"));
            found.push((workload.app.clone(), problem.label("`spec.selector` and the template's labels must agree")));
        }
        // One object twice is reported as that.
        let others = matching.into_iter().map(|other| &selected[other]);
        for other in others.filter(|other| other.manifest.object.key() != name) {
            let message = format!("the selector of {name} matches the pods of {}", other.manifest.object.key());
            let label = format!("which is at {}:{}", other.manifest.file, other.manifest.span.line);
            found.push((workload.app.clone(), workload.manifest.problem(message).label(label)));
            if other.app != workload.app {
                let message = format!("the pods of {} match the selector of {name}", other.manifest.object.key());
                let label = format!("which is at {}:{}", workload.manifest.file, workload.manifest.span.line);
                found.push((other.app.clone(), other.manifest.problem(message).label(label)));
            }
        }
    }
    found
}

/// Returns whether a label selector (`matchLabels` and `matchExpressions`) matches labels. An empty one matches all, as
/// Kubernetes has it; an operator that Kubernetes does not know matches nothing.
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let equal = strings(selector.get("matchLabels")).iter().all(|(name, value)| labels.get(name) == Some(value));
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    equal
        && expressions.into_iter().flatten().all(|expression| {
            let value = labels.get(expression["key"].as_str().unwrap_or_default());
            let listed = value.is_some_and(|value| {
                expression["values"].as_array().is_some_and(|values| values.iter().any(|item| item == value.as_str()))
            });
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_match_as_kubernetes_has_it() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())]);
        let table = [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "x": "y"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["1"]}]}), false),
        ];
        for (selector, expected) in table {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }
}
