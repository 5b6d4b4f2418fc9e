//! An application: one directory of manifests that is released as a unit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Drift, Share, Sourced,
    read::{Fields, Reader, dns_label, dns_subdomain, read_document},
    read_policy::{DRIFT, unit_replicas},
};
use crate::core::{
    cluster::Account,
    names::{AppName, Unit},
    problem::Problem,
    yaml::Node,
};

/// One directory of manifests that is released as a unit, with one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// The directory's name and `metadata.name`.
    pub name: AppName,
    /// The namespace of objects that name none; `None` is `default`.
    pub namespace: Option<String>,
    /// The policy's name; `None` applies everything as it is, in order, without stages.
    pub policy: Option<String>,
    /// What is different for single workloads, by the workload's name.
    pub overrides: BTreeMap<String, WorkloadOverride>,
    /// Where the manifests come from.
    pub source: Source,
    /// What is done about drift, instead of what the policy says.
    pub drift: Option<Drift>,
    /// Applications that are complete before this one starts. Never in a cycle.
    pub depends_on: Vec<AppName>,
    /// The ServiceAccount in the application's namespace in whose name its objects are read and written; `None` is the
    /// controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

impl Application {
    /// Returns the account in whose name its objects are read and written; `None` is the controller's own.
    pub fn account(&self) -> Option<Account> {
        let namespace = self.namespace.clone().unwrap_or_else(|| "default".to_owned());
        self.service_account_name.clone().map(|name| Account { namespace, name })
    }
}

/// What is different for one workload of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadOverride {
    /// Replaces the policy's `unitReplicas`.
    pub unit_replicas: Option<BTreeMap<Unit, Share>>,
}

/// Where an application's manifests come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Every `.yaml`, `.yml` and `.json` file below a directory, `app.yaml` aside.
    Plain {
        /// The directory, from the repository's root.
        path: String,
    },
    /// A Kustomize directory.
    Kustomize {
        /// The directory, from the repository's root.
        path: String,
    },
}

impl Source {
    /// Returns the directory, from the repository's root.
    pub fn path(&self) -> &str {
        match self {
            Self::Plain { path } | Self::Kustomize { path } => path,
        }
    }
}

/// The fields of an application's `spec`.
pub(super) const SPEC: &[&str] =
    &["namespace", "policy", "overrides", "source", "drift", "dependsOn", "serviceAccountName", "cluster"];
const SOURCE: &[&str] = &["path", "kustomize", "helm"];

/// Reads `apps/<app>/app.yaml`; the application's name is the directory's.
///
/// # Errors
///
/// Everything that is wrong with the file. What only other files show is found by [`super::check_applications`].
pub fn read_application(file: &str, bytes: &[u8]) -> Result<Sourced<Application>, Vec<Problem>> {
    let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let name = directory.rsplit('/').next().unwrap_or_default();
    if let Err(message) = dns_label(name) {
        return Err(vec![Problem::in_file(file, format!("the directory's {message}"))]);
    }
    read_document(file, bytes, |reader, document| {
        let spec = reader.envelope(document, "Application", name, "directory")?;
        let fields = reader.fields(spec, SPEC)?;
        reader.later(&fields, "cluster", "there is one cluster in this version");
        Some(Application {
            name: AppName::new(name),
            namespace: name_field(reader, &fields, "namespace"),
            policy: name_field(reader, &fields, "policy"),
            overrides: fields.get("overrides").map(|node| overrides(reader, node)).unwrap_or_default(),
            source: source(reader, fields.get("source"), directory)?,
            drift: fields.get("drift").and_then(|node| reader.choice(node, DRIFT)),
            depends_on: fields.get("dependsOn").map(|node| depends_on(reader, node, name)).unwrap_or_default(),
            service_account_name: fields
                .get("serviceAccountName")
                .and_then(|node| reader.checked(node, dns_subdomain))
                .map(str::to_owned),
        })
    })
}

fn name_field(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.get(name).and_then(|node| reader.checked(node, dns_label)).map(str::to_owned)
}

fn overrides(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, WorkloadOverride> {
    let Some(fields) = reader.fields(node, &["workloads"]) else { return BTreeMap::new() };
    let workloads = fields.get("workloads").and_then(|node| reader.map(node)).unwrap_or_default();
    let mut overrides = BTreeMap::new();
    for workload in workloads {
        let Some(fields) = reader.fields(&workload.value, &["unitReplicas"]) else { continue };
        let unit_replicas = fields.get("unitReplicas").map(|node| unit_replicas(reader, node, None));
        overrides.insert(workload.key.clone(), WorkloadOverride { unit_replicas });
    }
    overrides
}

fn source(reader: &mut Reader<'_>, node: Option<&Node>, directory: &str) -> Option<Source> {
    let Some(node) = node else { return Some(Source::Plain { path: directory.to_owned() }) };
    let fields = reader.fields(node, SOURCE)?;
    reader.later(&fields, "helm", "render the chart into the repository, or use Kustomize");
    let path = match fields.get("path") {
        Some(node) => below(reader, node, directory)?,
        None => directory.to_owned(),
    };
    match fields.get("kustomize") {
        Some(node) => reader.fields(node, &[]).map(|_| Source::Kustomize { path }),
        None => Some(Source::Plain { path }),
    }
}

/// Takes a path below the application's directory and returns it from the repository's root.
fn below(reader: &mut Reader<'_>, node: &Node, directory: &str) -> Option<String> {
    let text = reader.text(node)?;
    let mut path = directory.to_owned();
    for part in text.split('/') {
        match part {
            "." => {}
            "" | ".." => {
                reader.problem(node.span, format!("`{text}` leads out of the application's directory")).help =
                    Some("a Kustomize directory may name bases outside of it".to_owned());
                return None;
            }
            part => path = format!("{path}/{part}"),
        }
    }
    Some(path)
}

fn depends_on(reader: &mut Reader<'_>, node: &Node, name: &str) -> Vec<AppName> {
    let mut names = Vec::new();
    for item in reader.list(node).unwrap_or_default() {
        let Some(text) = reader.checked(item, dns_label) else { continue };
        if text == name {
            reader.problem(item.span, format!("`{name}` depends on itself"));
        } else if names.iter().any(|known: &AppName| known.as_str() == text) {
            reader.problem(item.span, format!("`{text}` is here twice"));
        } else {
            names.push(AppName::new(text));
        }
    }
    names
}
