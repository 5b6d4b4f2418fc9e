//! Checks a whole release repository: what `locktender validate` says, and what a controller asks before it acts.

mod workloads;

use std::collections::BTreeMap;

pub use workloads::check_workloads;

use super::policy::{
    Application, Decision, Freeze, Others, Policies, RolloutPolicy, Settings, Source, Sourced, check_applications,
    read_application, read_decision, read_freeze, read_policy, read_settings,
};
use crate::core::{
    cluster::{Kind, Scope},
    manifest::{Manifest, check_across, is_manifest, parse},
    names::AppName,
    problem::Problem,
    render::Files,
};

/// What was found in a release repository.
#[derive(Clone, Debug, Default)]
pub struct Validated {
    /// `locktender.yaml`, or the defaults.
    pub settings: Settings,
    /// The policies that read.
    pub policies: BTreeMap<String, Sourced<RolloutPolicy>>,
    /// The applications that have no problem, with their manifests (none of Kustomize directories that were not rendered).
    pub applications: BTreeMap<AppName, (Sourced<Application>, Vec<Manifest>)>,
    /// The freezes that read. One that does not is in `problems`.
    pub freezes: Vec<Freeze>,
    /// What is wrong with each application that cannot go on.
    pub refused: BTreeMap<AppName, Vec<Problem>>,
    /// What is wrong beside the applications: settings, policies, freezes, decisions.
    pub problems: Vec<Problem>,
}

impl Validated {
    /// Returns everything that is wrong, sorted by file and place.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let mut all: Vec<&Problem> = self.problems.iter().chain(self.refused.values().flatten()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Sums it up: `2 errors; checkout and 14 others are fine and go on`.
    pub fn summary(&self) -> String {
        let fine = match self.applications.keys().next() {
            None => "no application is left".to_owned(),
            Some(first) => match self.applications.len() - 1 {
                0 => format!("{first} is fine"),
                1 => format!("{first} and 1 other are fine"),
                others => format!("{first} and {others} others are fine"),
            },
        };
        match self.all_problems().len() {
            0 => fine,
            1 => format!("1 error; {fine} and go on").replace(" is fine and go", " is fine and goes"),
            number => format!("{number} errors; {fine} and go on").replace(" is fine and go", " is fine and goes"),
        }
    }
}

/// Checks all files of a release repository. `rendered` has what Kustomize directories rendered to, or why they did not;
/// an application of that kind that is not in it is checked without its manifests. `scope` says where objects of a kind
/// live, as far as is known.
pub fn validate(
    files: &Files,
    rendered: &BTreeMap<AppName, Result<Vec<u8>, Problem>>,
    scope: impl Fn(&Kind) -> Option<Scope>,
) -> Validated {
    let mut found = Validated::default();
    if let Some(bytes) = files.get("locktender.yaml") {
        match read_settings("locktender.yaml", bytes) {
            Ok(settings) => found.settings = settings,
            Err(problems) => found.problems.extend(problems),
        }
    }
    let broken = read_policies(files, &mut found);
    read_others(files, &mut found);
    let read = read_applications(files, &mut found);
    let mut policies: Policies<'_> =
        found.policies.iter().map(|(name, policy)| (name.as_str(), Ok(&policy.value))).collect();
    policies.extend(
        broken
            .iter()
            .map(|(name, path)| (name.as_str(), Err(found.problems.iter().find(|problem| problem.file == *path)))),
    );
    let others = Others { get: &|name| read.get(name), names: &|| read.keys().collect() };
    let mut refused = check_applications(read.keys(), &others, &policies, &found.settings);

    let mut manifests: BTreeMap<AppName, Vec<Manifest>> = BTreeMap::new();
    for (name, application) in &read {
        match read_manifests(application, files, rendered.get(name), &scope) {
            Ok(read) => {
                let policy = application.value.policy.as_deref().and_then(|name| policies.get(name)?.ok());
                let is_rendered =
                    matches!(application.value.source, Source::Plain { .. }) || rendered.contains_key(name);
                let problems = if is_rendered { check_workloads(application, policy, &read) } else { Vec::new() };
                if !problems.is_empty() {
                    refused.entry(name.clone()).or_default().extend(problems);
                }
                manifests.insert(name.clone(), read);
            }
            Err(problems) => refused.entry(name.clone()).or_default().extend(problems),
        }
    }
    let all = manifests.iter().flat_map(|(name, manifests)| manifests.iter().map(move |manifest| (name, manifest)));
    for (name, problems) in check_across(all) {
        refused.entry(name).or_default().extend(problems);
    }
    for (name, application) in read {
        if !refused.contains_key(&name) {
            let manifests = manifests.remove(&name).unwrap_or_default();
            found.applications.insert(name, (application, manifests));
        }
    }
    for (name, problems) in refused {
        found.refused.entry(name).or_default().extend(problems);
    }
    found
}

/// Returns the files below a directory, with their paths from it.
fn below<'f>(files: &'f Files, directory: &str) -> impl Iterator<Item = (&'f String, &'f [u8], &'f str)> {
    let prefix = format!("{directory}/");
    let length = prefix.len();
    let inside = files.range(prefix.clone()..).take_while(move |(path, _)| path.starts_with(&prefix));
    inside.map(move |(path, bytes)| (path, bytes.as_ref(), &path[length..]))
}

/// Reads the policies; returns the names and paths of those that do not read.
fn read_policies(files: &Files, found: &mut Validated) -> BTreeMap<String, String> {
    let mut broken = BTreeMap::new();
    let directory = found.settings.paths.policies.clone();
    for (path, bytes, relative) in below(files, &directory) {
        let Some(name) = relative.strip_suffix(".yaml").filter(|name| !name.contains('/')) else {
            if relative.ends_with(".yml") {
                let problem = Problem::in_file(path, "policies end in `.yaml`");
                found.problems.push(problem.help("rename the file"));
            }
            continue;
        };
        match read_policy(path, bytes) {
            Ok(policy) => drop(found.policies.insert(name.to_owned(), policy)),
            Err(problems) => {
                found.problems.extend(problems);
                broken.insert(name.to_owned(), path.to_owned());
            }
        }
    }
    broken
}

/// Reads freezes and decisions.
fn read_others(files: &Files, found: &mut Validated) {
    let directory = found.settings.paths.freezes.clone();
    for (path, bytes, _) in below(files, &directory).filter(|(path, ..)| path.ends_with(".yaml")) {
        match read_freeze(path, bytes) {
            Ok(freeze) => found.freezes.push(freeze),
            Err(problems) => found.problems.extend(problems),
        }
    }
    for (path, bytes, relative) in below(files, "rollouts") {
        let inside = relative.splitn(3, '/').nth(2).unwrap_or_default();
        if Decision::from_path(inside).is_some()
            && let Err(problems) = read_decision(path, bytes)
        {
            found.problems.extend(problems);
        }
    }
}

/// Reads every `app.yaml`. A directory without one is no application: it may hold a base that others share.
fn read_applications(files: &Files, found: &mut Validated) -> BTreeMap<AppName, Sourced<Application>> {
    let mut read = BTreeMap::new();
    let directory = found.settings.paths.apps.clone();
    for (path, bytes, relative) in below(files, &directory) {
        let Some(name) = relative.strip_suffix("/app.yaml").filter(|name| !name.contains('/')) else { continue };
        match read_application(path, bytes) {
            Ok(application) => drop(read.insert(AppName::new(name), application)),
            Err(problems) => drop(found.refused.insert(AppName::new(name), problems)),
        }
    }
    read
}

fn read_manifests(
    application: &Sourced<Application>,
    files: &Files,
    rendered: Option<&Result<Vec<u8>, Problem>>,
    scope: impl Fn(&Kind) -> Option<Scope>,
) -> Result<Vec<Manifest>, Vec<Problem>> {
    let namespace = application.value.namespace.as_deref().unwrap_or("default");
    let path = application.value.source.path();
    let sources: Files = match (&application.value.source, rendered) {
        (Source::Plain { .. }, _) => {
            let directory = application.file.trim_end_matches("/app.yaml");
            let sources = below(files, path).filter(|(file, ..)| is_manifest(directory, file));
            sources.map(|(file, bytes, _)| (file.clone(), bytes.to_vec().into())).collect()
        }
        (Source::Kustomize { .. }, None) => return Ok(Vec::new()),
        (Source::Kustomize { .. }, Some(Ok(bytes))) => Files::from([(path.to_owned(), bytes.clone().into())]),
        (Source::Kustomize { .. }, Some(Err(problem))) => return Err(vec![problem.clone()]),
    };
    parse(&sources, namespace, scope)
}
