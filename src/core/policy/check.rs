//! What only several files together show: policies that do not exist, units that a policy does not have, cycles.

use std::collections::BTreeMap;

use super::{
    Application, RolloutPolicy, Settings, Sourced, nearest,
    read_policy::{shares_that_do_not_fit, unknown_unit},
};
use crate::core::{names::AppName, problem::Problem};

/// The policies of a repository by name. One whose file has problems of its own has the first of them.
pub type Policies<'a> = BTreeMap<&'a str, Result<&'a RolloutPolicy, Option<&'a Problem>>>;

/// The applications of a repository that read, as far as others can be looked up in them.
pub struct Others<'a> {
    /// Finds one by its name.
    pub get: &'a dyn Fn(&AppName) -> Option<&'a Sourced<Application>>,
    /// Names all of them: for what is near a name that nobody has.
    pub names: &'a dyn Fn() -> Vec<&'a AppName>,
}

/// Returns what is wrong with some applications in the light of all, of the policies and of the settings. An application
/// that is not among the keys is fine.
///
/// What is found of one depends on its own file, its policy, and the applications that it depends on, near and far.
pub fn check_applications<'n>(
    some: impl IntoIterator<Item = &'n AppName>,
    all: &Others<'_>,
    policies: &Policies<'_>,
    settings: &Settings,
) -> BTreeMap<AppName, Vec<Problem>> {
    let mut found: BTreeMap<AppName, Vec<Problem>> = BTreeMap::new();
    for name in some {
        let Some(application) = (all.get)(name) else { continue };
        let mut problems: Vec<Problem> = check_policy(application, policies, settings).into_iter().collect();
        problems.extend(check_dependencies(application, all));
        if let Some(cycle) = cycle_through(name, all) {
            let shown = cycle.iter().map(AppName::as_str).collect::<Vec<_>>().join(" → ");
            let problem = application
                .problem_with_key(&["spec", "dependsOn"], format!("applications depend on each other: {shown}"))
                .label("one of them must come first");
            problems.push(problem);
        }
        if !problems.is_empty() {
            found.insert(name.clone(), problems);
        }
    }
    found
}

/// Returns what is wrong with an application's policy: it is not there, not valid, or does not fit.
pub fn check_policy(
    application: &Sourced<Application>,
    policies: &Policies<'_>,
    settings: &Settings,
) -> Option<Problem> {
    let name = application.value.policy.as_deref()?;
    let policies_path = &settings.paths.policies;
    match policies.get(name) {
        Some(Ok(policy)) => {
            check_overrides(application, policy).or_else(|| check_server(application, policy, settings))
        }
        Some(Err(why)) => {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Some(
                application
                    .problem(&["spec", "policy"], format!("policy `{name}` is not valid{why}"))
                    .label(format!("see {policies_path}/{name}.yaml")),
            )
        }
        None => {
            let problem = application.problem(&["spec", "policy"], format!("there is no policy `{name}`"));
            Some(match nearest(name, policies.keys().copied()) {
                Some(near) => problem.label(format!("{policies_path}/{near}.yaml is near")),
                None => problem.label(format!("add {policies_path}/{name}.yaml")),
            })
        }
    }
}

fn check_overrides(application: &Sourced<Application>, policy: &RolloutPolicy) -> Option<Problem> {
    for (workload, changed) in &application.value.overrides {
        let Some(shares) = &changed.unit_replicas else { continue };
        let path = ["spec", "overrides", "workloads", workload, "unitReplicas"];
        let Some(topology) = &policy.strategy.pods().topology else {
            let message = format!("policy `{}` has no topology", policy.name);
            return Some(application.problem_with_key(&path, message));
        };
        for unit in shares.keys() {
            if let Some((message, label)) = unknown_unit(unit.as_str(), &topology.units) {
                let path = [path.as_slice(), &[unit.as_str()]].concat();
                return Some(application.problem_with_key(&path, message).label(label));
            }
        }
        if let Some(message) = shares_that_do_not_fit(shares, Some(&topology.units)) {
            return Some(application.problem_with_key(&path, message));
        }
    }
    None
}

/// Finds a metric that nobody can be asked for.
fn check_server(application: &Sourced<Application>, policy: &RolloutPolicy, settings: &Settings) -> Option<Problem> {
    let metric = policy.metrics.values().find(|metric| metric.needs_server() && settings.prometheus.is_none())?;
    let message = format!("policy `{}` measures {}, and nobody says where Prometheus is", policy.name, metric.name);
    let problem = application.problem(&["spec", "policy"], message);
    Some(problem.label("write `metrics: {prometheus: {url: http://…}}` into locktender.yaml"))
}

fn check_dependencies(application: &Sourced<Application>, all: &Others<'_>) -> Vec<Problem> {
    let unknown = application.value.depends_on.iter().enumerate().filter(|(_, name)| (all.get)(name).is_none());
    let problem = |(index, name): (usize, &AppName)| {
        let index = index.to_string();
        let problem = application.problem(&["spec", "dependsOn", &index], format!("there is no application `{name}`"));
        match nearest(name.as_str(), (all.names)().into_iter().map(AppName::as_str)) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem,
        }
    };
    unknown.map(problem).collect()
}

/// Returns the shortest way from an application over its dependencies back to itself, both ends included.
fn cycle_through(start: &AppName, all: &Others<'_>) -> Option<Vec<AppName>> {
    let mut came_from: BTreeMap<&AppName, &AppName> = BTreeMap::new();
    let mut wave = vec![start];
    while !wave.is_empty() {
        let mut next = Vec::new();
        for name in wave {
            for dependency in (all.get)(name).map(|found| &found.value.depends_on).into_iter().flatten() {
                if dependency == start {
                    let mut way = vec![start.clone(), name.clone()];
                    let mut here = name;
                    while let Some(before) = came_from.get(here).filter(|_| here != start) {
                        way.push((*before).clone());
                        here = before;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(dependency) {
                    came_from.insert(dependency, name);
                    next.push(dependency);
                }
            }
        }
        wave = next;
    }
    None
}
