//! A workload that is not staged: what runs of it, and how it keeps its pods while nothing of them changes.

use serde_json::{Value, json};

use crate::core::{
    cluster::{FIELD_MANAGER, ObjectKey},
    diff,
    manifest::{Object, plain_names},
    rollout::{labels, render::Workload, view::View},
};

/// The labels that a handle's template has besides Git's.
const OURS: [&str; 4] = [labels::APP, labels::WORKLOAD, labels::DIGEST, labels::IN_SERVICE];

/// Lets a workload that was given back keep our labels in its template while nothing else of that changes: without them
/// it would be another template, and every pod be replaced.
pub fn keep_labels(wanted: &mut Object, live: &Object) {
    if !matches!(wanted.text(&["kind"]), "Deployment" | "StatefulSet" | "DaemonSet") || wanted.kind().group != "apps" {
        return;
    }
    let live_labels = live.at(&["spec", "template", "metadata", "labels"]);
    let kept: Vec<(&str, &Value)> = OURS.iter().filter_map(|label| Some((*label, live_labels?.get(*label)?))).collect();
    if kept.is_empty() {
        return;
    }
    let mut with = wanted.clone();
    for (label, value) in kept {
        with.set(&["spec", "template", "metadata", "labels", label], value.clone());
    }
    let changes = diff::owned_differs(&with, live, FIELD_MANAGER);
    if !changes.iter().any(|change| change.path.starts_with("spec.template")) {
        *wanted = with;
    }
}

/// Names the fields in which a workload that runs already is not what Git says: its pods' version could not be told.
pub(in crate::core::rollout) fn not_what_runs(workload: &Workload, view: &View) -> Vec<String> {
    let Some(live) = view.by_key(&workload.key) else { return Vec::new() };
    let mut fields: Vec<String> = Vec::new();
    let template = plain_names(workload.template(), &workload.config);
    let part = |template: &Value| {
        Object(json!({ "apiVersion": "apps/v1", "kind": workload.key.kind, "spec": { "template": template } }))
    };
    let mut running = live.0["spec"]["template"].clone();
    for label in OURS {
        if let Some(labels) = running.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(label);
        }
    }
    let differ = diff::owned_differs(&part(&template), &part(&running), "");
    fields.extend(differ.into_iter().map(|change| change.path));
    // What somebody else has set, and Git does not say, would be the pods' all the same.
    for manager in live.at(&["metadata", "managedFields"]).and_then(Value::as_array).into_iter().flatten() {
        if manager["manager"] == FIELD_MANAGER || manager.get("subresource").is_some() {
            continue;
        }
        let owned = &manager["fieldsV1"]["f:spec"]["f:template"];
        unsaid(owned, &running, &template, "spec.template", &mut fields);
    }
    for object in &workload.config {
        let name = object.name();
        let plain = name.get(..name.len().saturating_sub(9)).unwrap_or(name);
        let key = ObjectKey { name: plain.to_owned(), ..object.key() };
        let content = |object: &Object| -> Vec<Value> {
            ["data", "binaryData"]
                .iter()
                .map(|field| object.0.get(*field).cloned().unwrap_or_else(|| json!({})))
                .collect()
        };
        let reads = |live: &Object| object.0.get("stringData").is_some() || content(live) == content(object);
        if !view.by_key(&key).is_some_and(reads) {
            fields.push(format!("{}/{plain}", key.kind));
        }
    }
    fields.sort();
    fields.dedup();
    fields
}

/// Collects the fields that a manager owns, that the live object has, and that Git does not say.
fn unsaid(owned: &Value, live: &Value, said: &Value, path: &str, fields: &mut Vec<String>) {
    for (name, below) in owned.as_object().into_iter().flatten() {
        if let Some(field) = name.strip_prefix("f:") {
            let path = format!("{path}.{field}");
            let (live, said) = (&live[field], &said[field]);
            if live.is_null() || is_note(&path) {
                continue;
            }
            match said.is_null() {
                true if below.as_object().is_some_and(|below| below.keys().any(|key| key != ".")) => {
                    unsaid(below, live, said, &path, fields);
                }
                true if !is_default(field, live) => fields.push(path),
                true => {}
                false => unsaid(below, live, said, &path, fields),
            }
        } else if let Some(keys) = name.strip_prefix("k:").and_then(|keys| serde_json::from_str::<Value>(keys).ok()) {
            let is_it = |item: &&Value| {
                let keys = keys.as_object().into_iter().flatten();
                keys.into_iter().all(|(key, value)| item.get(key).is_none_or(|it| it == value))
            };
            let find = |list: &Value| list.as_array().and_then(|items| items.iter().find(is_it).cloned());
            let Some(item) = find(live) else { continue };
            let told: Vec<String> = keys
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| {
                    format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect();
            unsaid(below, &item, &find(said).unwrap_or(Value::Null), &format!("{path}[{}]", told.join(",")), fields);
        }
    }
}

/// `kubectl rollout restart` notes when: no version of anything.
fn is_note(path: &str) -> bool {
    path.ends_with("annotations.kubectl.kubernetes.io/restartedAt")
}

/// Values that the API server fills in where nothing is said; who creates an object with `kubectl create` owns those too.
fn is_default(field: &str, value: &Value) -> bool {
    let text = value.as_str();
    match field {
        "restartPolicy" => text == Some("Always"),
        "dnsPolicy" => text == Some("ClusterFirst"),
        "schedulerName" => text == Some("default-scheduler"),
        "terminationGracePeriodSeconds" => value == 30,
        "terminationMessagePath" => text == Some("/dev/termination-log"),
        "terminationMessagePolicy" => text == Some("File"),
        "imagePullPolicy" => true,
        "protocol" => text == Some("TCP"),
        "scheme" => text == Some("HTTP"),
        "failureThreshold" => value == 3,
        "successThreshold" | "timeoutSeconds" => value == 1,
        "periodSeconds" => value == 10,
        "defaultMode" => value == 420,
        "creationTimestamp" => true,
        "securityContext" | "resources" | "strategy" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "apiVersion" => text == Some("v1"),
        "name" | "containerPort" => false,
        _ => false,
    }
}
