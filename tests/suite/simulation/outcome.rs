//! What a run ends with, without what differs from run to run: names and places of pods, identifiers, times.

use std::collections::BTreeMap;

use locktender::core::{names::AppName, rollout::labels, traffic::haproxy::OURS};
use serde_json::{Map, Value, json};

use super::{Sim, git::BRANCH};

/// Resources that Locktender or its applications write to.
const RESOURCES: [&str; 10] = [
    "namespaces",
    "configmaps",
    "services",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "pods",
    "endpointslices.discovery.k8s.io",
    super::gateway::ROUTES,
];

/// Returns the outcome as lines: objects, files below `apps/`, events of the journals.
pub fn outcome(sim: &Sim) -> Vec<String> {
    let mut lines = objects(sim);
    lines.extend(files(sim));
    lines.extend(events(sim));
    lines.extend(servers(sim));
    lines
}

/// What a proxy sends to: weights by version.
fn servers(sim: &Sim) -> Vec<String> {
    let serves = sim.outside.haproxy_serves();
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let image = |server: &str| {
        let pod = pods.iter().find(|pod| server.strip_prefix(OURS) == pod["metadata"]["name"].as_str());
        pod.map_or("gone", |pod| super::checker::image(pod)).to_owned()
    };
    let mut lines: Vec<String> =
        serves.iter().map(|(server, weight)| format!("server {} {weight}", image(server))).collect();
    lines.sort();
    lines
}

fn objects(sim: &Sim) -> Vec<String> {
    let tip = sim.checker.lock().unwrap().tips();
    let unstaged = unstaged(sim);
    // Without a policy there is an anchor only where Git was away at the wrong moment.
    let counts = |object: &Value| {
        let app = object["metadata"]["labels"][labels::ANCHOR].as_str();
        !app.is_some_and(|app| unstaged.iter().any(|one| one.as_str() == app))
    };
    sim.cluster.with(|world| {
        let mut lines: Vec<String> = Vec::new();
        for resource in RESOURCES {
            let mut some: Vec<String> = world
                .api
                .list(resource)
                .filter(|object| counts(object))
                .map(|object| format!("{resource} {}", normal(resource, object, &tip)))
                .collect();
            some.sort();
            lines.extend(some);
        }
        lines
    })
}

/// Returns the applications that never had a policy.
fn unstaged(sim: &Sim) -> Vec<AppName> {
    let checker = sim.checker.lock().unwrap();
    let mut apps = checker.known_apps();
    apps.retain(|app| {
        checker.rollouts(app).into_iter().flat_map(BTreeMap::values).all(|one| one.plan.policy.is_none())
    });
    apps
}

fn normal(resource: &str, object: &Value, tips: &BTreeMap<String, String>) -> Value {
    let meta = &object["metadata"];
    let mut labels = meta["labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        // How often a DaemonSet's template was set on the way says nothing of the end.
        labels.remove("pod-template-generation");
    }
    let mut annotations = meta["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        // Ids of records have their times in them, and what was put back the versions of objects.
        annotations.remove(labels::RECORD);
        annotations.remove(labels::PUT_BACK);
    }
    let mut result =
        json!({ "labels": labels.take(), "annotations": annotations, "gone": meta["deletionTimestamp"].is_string() });
    match resource {
        "pods" => {
            result["spec"] = pod_spec(&object["spec"]);
            result["phase"] = object["status"]["phase"].clone();
            result["ready"] = json!(super::checker::is_ready(object));
        }
        "endpointslices.discovery.k8s.io" => {
            let endpoints = object["endpoints"].as_array().into_iter().flatten();
            result["annotations"] = Value::Null;
            result["conditions"] = json!(endpoints.map(|one| one["conditions"].clone()).collect::<Vec<_>>());
        }
        "configmaps" if object.get("binaryData").is_some() => {
            // An anchor: that it names the last pushed record is all that two runs have in common.
            let named = object["data"]["record"].as_str().unwrap_or_default();
            let app = meta["labels"]["locktender.dev/anchor"].as_str().unwrap_or_default();
            result["name"] = meta["name"].clone();
            result["names the last record"] = json!(tips.get(app).is_some_and(|tip| tip == named));
            result["rollout"] = object["data"]["rollout"].clone();
        }
        "configmaps" => {
            result["name"] = meta["name"].clone();
            result["data"] = object["data"].clone();
        }
        "namespaces" => {
            result["name"] = meta["name"].clone();
            result["phase"] = object["status"]["phase"].clone();
        }
        _ => {
            result["name"] = meta["name"].clone();
            result["spec"] = object["spec"].clone();
            let owners = meta["ownerReferences"].as_array().into_iter().flatten();
            result["owners"] = json!(owners.map(|owner| owner["name"].clone()).collect::<Vec<_>>());
            result["replicas"] = object["status"]["replicas"].clone();
            result["readyReplicas"] = object["status"]["readyReplicas"].clone();
        }
    }
    result
}

fn pod_spec(spec: &Value) -> Value {
    let mut spec = spec.as_object().cloned().unwrap_or_else(Map::new);
    spec.remove("nodeName");
    Value::Object(spec)
}

fn files(sim: &Sim) -> Vec<String> {
    let tip = sim.git.tip_now().unwrap();
    let state = sim.git.state.lock().unwrap();
    assert_eq!(state.repository.tip(BRANCH), Some(&tip));
    let mut lines = Vec::new();
    for directory in ["apps", "policies"] {
        let files = state.repository.objects().files(&tip, directory).unwrap();
        lines.extend(files.into_iter().map(|file| format!("file {} {}", file.path, file.id)));
    }
    lines
}

fn events(sim: &Sim) -> Vec<String> {
    let checker = sim.checker.lock().unwrap();
    let apps: Vec<AppName> = checker.known_apps();
    let mut lines = Vec::new();
    for app in apps {
        for state in checker.rollouts(&app).into_iter().flat_map(BTreeMap::values) {
            for record in &state.records {
                let stage = record.stage.as_ref().map(ToString::to_string).unwrap_or_default();
                lines.push(format!("record {} {:?} {stage}", state.plan.rollout, record.event));
            }
        }
    }
    lines
}

/// Returns the lines that only one of two outcomes has, marked with − and +.
pub fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    similar::TextDiff::from_slices(
        &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        &found.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .iter_all_changes()
    .filter_map(|change| match change.tag() {
        similar::ChangeTag::Delete => Some(format!("- {}", change.value())),
        similar::ChangeTag::Insert => Some(format!("+ {}", change.value())),
        similar::ChangeTag::Equal => None,
    })
    .collect()
}
