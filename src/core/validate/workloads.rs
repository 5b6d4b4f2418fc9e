//! Whether an application's policy can be kept with its workloads: told before anything starts.

use serde_json::Value;

use crate::core::{
    manifest::{Manifest, is_sliced, pod_template},
    policy::{Application, RolloutPolicy, Sourced, Topology, nearest},
    problem::Problem,
    rollout::{labels, quota::share_out},
};

/// Returns what of `policy` cannot be kept with the workloads among `manifests`.
pub fn check_workloads(
    application: &Sourced<Application>,
    policy: Option<&RolloutPolicy>,
    manifests: &[Manifest],
) -> Vec<Problem> {
    let staged: Vec<&Manifest> = manifests.iter().filter(|manifest| is_sliced(&manifest.object)).collect();
    let mut problems = check_overrides(application, &staged);
    problems.extend(manifests.iter().filter_map(|manifest| check_update(manifest, policy?)));
    problems.extend(manifests.iter().filter_map(|manifest| check_gate(manifest, policy)));
    let Some(topology) = policy.and_then(|policy| policy.strategy.pods().topology.as_ref()) else { return problems };
    for manifest in staged {
        problems.extend(check_placement(manifest, topology));
        problems.extend(check_shares(application, manifest, topology));
    }
    problems
}

fn check_overrides(application: &Sourced<Application>, staged: &[&Manifest]) -> Vec<Problem> {
    let names = || staged.iter().map(|manifest| manifest.object.name());
    let unknown = application.value.overrides.keys().filter(|name| names().all(|known| known != *name));
    let problem = |name: &String| {
        let path = ["spec", "overrides", "workloads", name];
        let problem = application.problem_with_key(&path, format!("there is no Deployment `{name}`"));
        match nearest(name, names()) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem,
        }
    };
    unknown.map(problem).collect()
}

/// Refuses a StatefulSet that says itself how its pods are updated, where its policy does.
fn check_update(manifest: &Manifest, policy: &RolloutPolicy) -> Option<Problem> {
    let kind = manifest.object.kind();
    let strategy = manifest.object.at(&["spec", "updateStrategy"])?;
    let named = match &strategy["type"] {
        _ if kind.kind != "StatefulSet" || !policy.strategy.stages(&kind) => None,
        named if named == "OnDelete" => Some("OnDelete"),
        _ => strategy["rollingUpdate"].get("partition").map(|_| "partition"),
    }?;
    let message = format!("the update strategy of {} has `{named}`, and its policy stages it", manifest.object.key());
    Some(manifest.problem(message).label("take it out: the policy says how far its pods are"))
}

/// Refuses pods with a readiness gate that no policy keeps, which would never be ready, and those without one that their
/// policy asks for, which Services of others would go on sending to.
fn check_gate(manifest: &Manifest, policy: Option<&RolloutPolicy>) -> Option<Problem> {
    let pod = pod_template(&manifest.object)?.get("spec")?;
    let mut gates = pod["readinessGates"].as_array().into_iter().flatten();
    let has = gates.any(|gate| gate["conditionType"] == labels::GATE);
    let staged = policy.filter(|policy| policy.strategy.stages(&manifest.object.kind()));
    let kept = staged.is_some_and(|policy| policy.strategy.pods().graceful.readiness_gate);
    let (name, gate) = (manifest.object.key(), labels::GATE);
    match (has, kept) {
        (true, false) => {
            let message =
                format!("{name} has the readiness gate `{gate}`, which no policy keeps: no pod would be ready");
            Some(
                manifest
                    .problem(message)
                    .label("take it out, or write `graceful: {readinessGate: true}` into the policy"),
            )
        }
        (false, true) => {
            let message =
                format!("{name} has no readiness gate `{gate}`, by which its policy takes pods out of service");
            Some(manifest.problem(message).label("add it to the pod template's `readinessGates`"))
        }
        _ => None,
    }
}

/// Refuses what leaves pods of a unit without a place: each unit's pods are pinned to it by a node selector.
fn check_placement(manifest: &Manifest, topology: &Topology) -> Vec<Problem> {
    let mut problems = Vec::new();
    let name = manifest.object.key();
    let unit_type = topology.unit_type.as_str();
    let pod = manifest.object.at(&["spec", "template", "spec"]).unwrap_or(&Value::Null);
    if pod["nodeSelector"].get(unit_type).is_some() {
        let message = format!("the node selector of {name} names `{unit_type}`, by which its policy places pods");
        problems.push(manifest.problem(message).label("take it out: the policy's `units` say where pods go"));
    }
    for constraint in pod["topologySpreadConstraints"].as_array().into_iter().flatten() {
        let over_units = constraint["topologyKey"] == unit_type && constraint["whenUnsatisfiable"] != "ScheduleAnyway";
        let counts_others = constraint["nodeAffinityPolicy"] == "Ignore";
        if over_units && (constraint.get("minDomains").is_some() || counts_others) {
            let what = if counts_others { "nodeAffinityPolicy: Ignore" } else { "minDomains" };
            let message =
                format!("the spread of {name} over `{unit_type}` has `{what}`: pods of a unit would wait for others");
            problems.push(manifest.problem(message).label("take it out: the policy's `unitReplicas` spread the pods"));
        }
    }
    problems
}

/// Refuses counts that do not fit the replicas. Where an autoscaler has the replicas, that shows only later.
fn check_shares(application: &Sourced<Application>, manifest: &Manifest, topology: &Topology) -> Option<Problem> {
    let replicas = u32::try_from(manifest.object.number(&["spec", "replicas"])?).ok()?;
    let name = manifest.object.name();
    let overridden = application.value.overrides.get(name).and_then(|workload| workload.unit_replicas.as_ref());
    let error = share_out(replicas, &topology.units, overridden.unwrap_or(&topology.unit_replicas)).err()?;
    let message = format!("{}: {error}", manifest.object.key());
    Some(match overridden {
        Some(_) => application.problem_with_key(&["spec", "overrides", "workloads", name, "unitReplicas"], message),
        None => manifest.problem(message).label("change `replicas`, or write `overrides` into app.yaml"),
    })
}
