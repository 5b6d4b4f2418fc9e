//! What a slice and its handle look like as objects.

use serde_json::{Map, Value, json};

use crate::core::{
    manifest::Object,
    names::{AppName, RolloutId, Unit},
    rollout::{labels, render::Workload},
};

/// Which slice to make.
pub(in crate::core::rollout) struct NewSlice<'a> {
    pub workload: &'a Workload,
    pub rollout: &'a RolloutId,
    pub unit: &'a Unit,
    pub unit_type: Option<&'a str>,
    pub replicas: u32,
}

/// Returns the pod template of a workload as its pods get it: born in service, labelled with what they are.
pub(super) fn template(workload: &Workload, app: &AppName) -> Value {
    let mut template = Object(workload.template().clone());
    let digest = labels::digest_label(&workload.digest);
    let name = labels::label_value(&workload.key.name);
    for (label, value) in [
        (labels::APP, app.as_str()),
        (labels::WORKLOAD, &name),
        (labels::DIGEST, &digest),
        (labels::IN_SERVICE, "true"),
    ] {
        template.set(&["metadata", "labels", label], json!(value));
    }
    template.0
}

/// Returns the pod template of a slice: the workload's, pinned to the unit and told apart by the slice's hash.
pub(in crate::core::rollout) fn slice_template(
    workload: &Workload,
    app: &AppName,
    unit: &Unit,
    unit_type: Option<&str>,
    hash: &str,
) -> Value {
    let mut template = Object(template(workload, app));
    template.set(&["metadata", "labels", labels::TEMPLATE_HASH], json!(hash));
    if let Some(unit_type) = unit_type {
        template.set(&["metadata", "labels", labels::UNIT], json!(unit.as_str()));
        template.set(&["spec", "nodeSelector", unit_type], json!(unit.as_str()));
    }
    template.0
}

/// Builds a slice: a ReplicaSet whose own labels never satisfy its Deployment's selector.
pub(in crate::core::rollout) fn build(new: &NewSlice<'_>) -> Object {
    let NewSlice { workload, rollout, unit, unit_type, replicas } = new;
    let app = &rollout.app;
    let digest = labels::digest_label(&workload.digest);
    // The digest is part of the name, so that going back beside a new slice of this rollout finds a name of its own.
    let hash = labels::slice_hash(unit, rollout, &format!("{}/{digest}", workload.id));
    let mut match_labels: Map<String, Value> =
        workload.match_labels().into_iter().map(|(name, value)| (name, json!(value))).collect();
    match_labels.insert(labels::TEMPLATE_HASH.to_owned(), json!(hash));
    let mut own_labels = json!({
        labels::APP: app,
        labels::WORKLOAD: labels::label_value(&workload.key.name),
        labels::DIGEST: digest,
        labels::SLICE: hash,
    });
    if unit_type.is_some() {
        own_labels[labels::UNIT] = json!(unit);
    }
    let mut spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": match_labels },
        "template": slice_template(workload, app, unit, *unit_type, &hash),
    });
    if let Some(seconds) = workload.object.at(&["spec", "minReadySeconds"]) {
        spec["minReadySeconds"] = seconds.clone();
    }
    Object(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": labels::slice_name(&workload.key.name, &hash),
            "namespace": workload.key.namespace,
            "labels": own_labels,
        },
        "spec": spec,
    }))
}

/// Builds the handle: the Deployment as rendered, paused or not. Replicas are left out where Git names none.
pub(in crate::core::rollout) fn handle(
    workload: &Workload,
    app: &AppName,
    paused: bool,
    notes: &[(&str, String)],
) -> Object {
    let mut handle = workload.object.clone();
    handle.set(&["metadata", "labels", labels::APP], json!(app));
    for (annotation, text) in notes {
        handle.set(&["metadata", "annotations", annotation], json!(text));
    }
    handle.set(&["spec", "paused"], json!(paused));
    handle.set(&["spec", "template"], template(workload, app));
    handle
}
