//! What is served, as clients discover it: the old way (a request a group) and the aggregated one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    request::Response,
    resources::{Registry, Resource},
};

/// The version of Kubernetes whose types are served.
pub const VERSION: &str = "v1.36.1+locktender";

/// Answers `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// Answers what is asked below `/api` and `/apis` down to a version; `None` for anything deeper.
pub fn answer(registry: &Registry, path: &str, accept: &str) -> Option<Response> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let aggregated = accept.split(',').find_map(|wanted| {
        if !wanted.contains("as=APIGroupDiscoveryList") {
            return None;
        }
        ["v2", "v2beta1"]
            .into_iter()
            .find(|version| wanted.split(';').any(|part| part.trim() == format!("v={version}")))
    });
    match (segments.as_slice(), aggregated) {
        (["api"], Some(version)) => Some(all(registry, true, version)),
        (["apis"], Some(version)) => Some(all(registry, false, version)),
        (["api"], None) => Some(Response::json(200, json!({"kind": "APIVersions", "versions": ["v1"]}))),
        (["apis"], None) => {
            let groups: Vec<Value> =
                groups(registry).into_iter().filter(|(name, _)| !name.is_empty()).map(group).collect();
            Some(Response::json(200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
        }
        (["apis", name], _) => {
            let found = groups(registry).into_iter().find(|(group, _)| group == name)?;
            let mut made = group(found);
            made["kind"] = "APIGroup".into();
            made["apiVersion"] = "v1".into();
            Some(Response::json(200, made))
        }
        (["api", version], _) => resources(registry, "", version),
        (["apis", group, version], _) => resources(registry, group, version),
        _ => None,
    }
}

/// Groups with their versions, in the order they are served in.
fn groups(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for resource in registry.all() {
        match found.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, versions)) if versions.contains(&resource.version) => {}
            Some((_, versions)) => versions.push(resource.version.clone()),
            None => found.push((resource.group.clone(), vec![resource.version.clone()])),
        }
    }
    for group in ["authentication.k8s.io", "authorization.k8s.io"] {
        found.push((group.to_owned(), vec!["v1".to_owned()]));
    }
    for (_, versions) in &mut found {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    found
}

/// Versions that are generally available come first, then beta, then alpha; higher numbers first.
fn priority(version: &str) -> (u8, u32, u32) {
    let numbers = version.trim_start_matches('v');
    let split = |infix: &str| numbers.split_once(infix);
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    match (split("beta"), split("alpha")) {
        (Some((major, minor)), _) => (1, number(major), number(minor)),
        (_, Some((major, minor))) => (0, number(major), number(minor)),
        _ => (2, number(numbers), 0),
    }
}

fn group((name, versions): (String, Vec<String>)) -> Value {
    let version = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Response> {
    let mut list: Vec<Value> = Vec::new();
    for resource in registry.all().iter().filter(|found| found.group == group && found.version == version) {
        let mut made = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            made["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            made["categories"] = resource.categories.clone().into();
        }
        list.push(made);
        for name in &resource.subresources {
            let (group, version, kind, verbs) = subresource(resource, name);
            let mut made = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": kind, "verbs": verbs,
            });
            if group != resource.group {
                made["group"] = group.into();
                made["version"] = version.into();
            }
            list.push(made);
        }
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(of, ..)| *of == group && version == "v1") {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    if list.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let body = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
    Some(Response::json(200, body))
}

const REVIEWS: [(&str, &str, &str); 2] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

/// Returns group, version, kind and verbs of a subresource.
fn subresource<'a>(resource: &'a Resource, name: &str) -> (&'a str, &'a str, &'a str, &'static [&'static str]) {
    match name {
        "scale" => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "binding" => ("", "v1", "Binding", &["create"]),
        "finalize" => (&resource.group, &resource.version, &resource.kind, &["update"]),
        _ => (&resource.group, &resource.version, &resource.kind, &["get", "patch", "update"]),
    }
}

fn all(registry: &Registry, core: bool, discovery: &'static str) -> Response {
    let mut items: Vec<Value> = Vec::new();
    for (group, versions) in groups(registry).into_iter().filter(|(group, _)| group.is_empty() == core) {
        let versions: Vec<Value> = versions.iter().map(|version| aggregated(registry, &group, version)).collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{discovery}"), "metadata": {},
        "items": items,
    });
    let content_type = match discovery {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    Response { content_type, ..Response::json(200, body) }
}

fn aggregated(registry: &Registry, group: &str, version: &str) -> Value {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let served = registry.all().iter().filter(|found| found.group == group && found.version == version);
    let mut list: Vec<Value> = served
        .map(|resource| {
            let subresources: BTreeMap<&str, Value> = resource
                .subresources
                .iter()
                .map(|name| {
                    let (of_group, of_version, of_kind, verbs) = subresource(resource, name);
                    let made = json!({
                        "subresource": name, "responseKind": kind(of_group, of_version, of_kind), "verbs": verbs,
                    });
                    (name.as_str(), made)
                })
                .collect();
            let mut made = json!({
                "resource": resource.plural, "responseKind": kind(group, version, &resource.kind),
                "scope": scope(resource.namespaced), "singularResource": resource.singular, "verbs": resource.verbs(),
            });
            if !resource.short_names.is_empty() {
                made["shortNames"] = resource.short_names.clone().into();
            }
            if !resource.categories.is_empty() {
                made["categories"] = resource.categories.clone().into();
            }
            if !subresources.is_empty() {
                made["subresources"] = subresources.into_values().collect();
            }
            made
        })
        .collect();
    for (_, plural, of_kind) in REVIEWS.iter().filter(|(of, ..)| *of == group) {
        list.push(json!({
            "resource": plural, "responseKind": kind(group, version, of_kind), "scope": "Cluster",
            "singularResource": of_kind.to_lowercase(), "verbs": ["create"],
        }));
    }
    json!({"version": version, "freshness": "Current", "resources": list})
}
