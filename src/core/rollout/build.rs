//! From an application's files, read and checked, to what is staged and what is applied at once.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    labels,
    plan::Inputs,
    render::{Maker, Render, Workload},
};
use crate::core::{
    manifest::{Object, Staged, canonical_digest, digest, is_sliced, pod_template, selects, sort, stage, strings},
    names::{Digest, Revision},
    policy::{Application, RolloutPolicy},
};

/// Builds a render from an application's objects. The same objects give the same digests, whatever their order.
pub fn build(
    revision: Revision,
    inputs: Inputs,
    application: Application,
    policy: Option<RolloutPolicy>,
    mut objects: Vec<Object>,
) -> Render {
    sort(&mut objects);
    let everything = digest(&objects);
    let staged = match &policy {
        Some(policy) => stage(&objects, &|object| policy.strategy.stages(&object.kind())),
        None => stage(&objects, &is_sliced),
    };
    let mut digests: BTreeMap<String, Digest> =
        staged.workloads.iter().map(|workload| (id(&workload.object), workload.digest)).collect();
    let mut render = Render {
        revision,
        inputs,
        application,
        policy,
        objects,
        workloads: BTreeMap::new(),
        digests: BTreeMap::new(),
        digest: everything,
    };
    if render.policy.is_none() {
        // Without stages every kind that keeps pods running is worth a rollout of its own, with health at its end.
        let others = staged.others.iter().filter(|object| runs_pods(object));
        digests.extend(others.filter_map(|object| Some((id(object), canonical_digest(pod_template(object)?)))));
        render.digests = digests;
        return render;
    }
    render.digests = digests;
    stage_workloads(&mut render, staged);
    render
}

/// Returns an application without a policy as it would be staged under one, with the digests that it was released with. Those of
/// what only a policy stages are of another form then, and are counted anew.
pub(super) fn as_staged(render: &Render, policy: &RolloutPolicy) -> Render {
    let mut render = render.clone();
    let staged = stage(&render.objects, &|object| policy.strategy.stages(&object.kind()));
    stage_workloads(&mut render, staged);
    let mut released = render.digests.clone();
    released.retain(|id, _| render.workloads.contains_key(id));
    let sets = render.workloads.values().filter(|workload| workload.maker() != Maker::Slices);
    released.extend(sets.map(|workload| (workload.id.clone(), workload.digest)));
    render.released_as(&released)
}

fn stage_workloads(render: &mut Render, staged: Staged) {
    render.objects = staged.others;
    for workload in staged.workloads {
        let name = workload.object.name().to_owned();
        let unit_replicas = render.application.overrides.get(&name).and_then(|one| one.unit_replicas.clone());
        let replicas = workload.object.number(&["spec", "replicas"]).and_then(|count| u32::try_from(count).ok());
        let id = id(&workload.object);
        let key = workload.object.key();
        let staged = Workload {
            id: id.clone(),
            key,
            digest: workload.digest,
            replicas,
            config: workload.configuration,
            unit_replicas,
            differs: false,
            object: workload.object,
        };
        render.workloads.insert(id, staged);
    }
    for service in render.objects.iter_mut().filter(|object| object.text(&["kind"]) == "Service") {
        keep_to_pods_in_service(service, &render.workloads);
    }
}

/// Returns how quotas and plans name a workload.
fn id(object: &Object) -> String {
    format!("{}/{}", object.text(&["kind"]), object.name())
}

fn runs_pods(object: &Object) -> bool {
    matches!(object.text(&["kind"]), "StatefulSet" | "DaemonSet" | "ReplicaSet")
}

/// Lets a Service that selects a staged workload's pods select those in service only.
fn keep_to_pods_in_service(service: &mut Object, workloads: &BTreeMap<String, Workload>) {
    let publishes_everything = service.at(&["spec", "publishNotReadyAddresses"]) == Some(&json!(true));
    let Some(selector) = service.at(&["spec", "selector"]).filter(|selector| selector.is_object()) else { return };
    if publishes_everything || selector.as_object().is_some_and(serde_json::Map::is_empty) {
        return;
    }
    let wrapped = json!({ "matchLabels": selector });
    let selected = workloads.values().any(|workload| {
        let labels = strings(workload.template()["metadata"].get("labels"));
        workload.key.namespace == service.namespace() && selects(&wrapped, &labels)
    });
    if selected {
        service.set(&["spec", "selector", labels::IN_SERVICE], json!("true"));
    }
}
