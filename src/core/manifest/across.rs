//! What only several objects together show: one object in two applications, selectors that take each other's pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

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

/// Which applications may be in each other's way: an index that is kept as they come, change and go, so that only those
/// are looked at beside each other by [`check_across`].
#[derive(Debug, Default)]
pub struct Claims {
    by_app: BTreeMap<AppName, Claim>,
    has: Index<ObjectKey>,
    makes: Index<Mark>,
    takes: Index<Mark>,
}

/// A namespace, and a label that pods there have or a selector there wants; without a label, any pod and all of them.
type Mark = (String, Option<(String, String)>);

/// What one application has, which pods it makes and which it takes.
#[derive(Debug, Default)]
struct Claim {
    has: BTreeSet<ObjectKey>,
    makes: BTreeSet<Mark>,
    takes: BTreeSet<Mark>,
}

impl Claim {
    fn of<'a>(app: &'a AppName, manifests: impl Iterator<Item = &'a Manifest>) -> Self {
        let mut claim = Self::default();
        for manifest in manifests {
            claim.has.insert(manifest.object.key());
            let Some(workload) = Selected::of(app, manifest) else { continue };
            let namespace = manifest.object.namespace();
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            claim.takes.insert((namespace.to_owned(), workload.first_label().map(owned)));
            let labels = workload.labels.iter().map(|(name, value)| Some(owned((name, value))));
            claim.makes.extend(labels.chain([None]).map(|label| (namespace.to_owned(), label)));
        }
        claim
    }
}

impl Claims {
    /// Takes what an application consists of now, in place of what it was.
    pub fn set<'a>(&mut self, app: &'a AppName, manifests: impl Iterator<Item = &'a Manifest>) {
        self.remove(app);
        let claim = Claim::of(app, manifests);
        put_in(&mut self.has, &claim.has, app);
        put_in(&mut self.makes, &claim.makes, app);
        put_in(&mut self.takes, &claim.takes, app);
        self.by_app.insert(app.clone(), claim);
    }

    /// Forgets an application.
    pub fn remove(&mut self, app: &AppName) {
        let Some(claim) = self.by_app.remove(app) else { return };
        take_out(&mut self.has, &claim.has, app);
        take_out(&mut self.makes, &claim.makes, app);
        take_out(&mut self.takes, &claim.takes, app);
    }

    /// Returns the applications that may be in an application's way, or it in theirs; itself among them.
    pub fn beside(&self, app: &AppName) -> BTreeSet<AppName> {
        let Some(claim) = self.by_app.get(app) else { return BTreeSet::new() };
        let has = claim.has.iter().filter_map(|key| self.has.get(key));
        let taken = claim.takes.iter().filter_map(|mark| self.makes.get(mark));
        let taking = claim.makes.iter().filter_map(|mark| self.takes.get(mark));
        has.chain(taken).chain(taking).flatten().chain([app]).cloned().collect()
    }
}

type Index<K> = HashMap<K, BTreeSet<AppName>>;

fn put_in<K: Clone + Eq + Hash>(index: &mut Index<K>, keys: &BTreeSet<K>, app: &AppName) {
    for key in keys {
        index.entry(key.clone()).or_default().insert(app.clone());
    }
}

fn take_out<K: Eq + Hash>(index: &mut Index<K>, keys: &BTreeSet<K>, app: &AppName) {
    for key in keys {
        if let Some(apps) = index.get_mut(key) {
            apps.remove(app);
            if apps.is_empty() {
                index.remove(key);
            }
        }
    }
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

    /// Returns the first label that it selects: pods without it need not be looked at.
    fn first_label(&self) -> Option<(&'a str, &'a str)> {
        let (name, value) = self.selector["matchLabels"].as_object()?.iter().next()?;
        Some((name.as_str(), value.as_str()?))
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
        let candidates = match workload.first_label() {
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
