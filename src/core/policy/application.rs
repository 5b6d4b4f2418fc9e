//! An application: one directory of manifests that is released as a unit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Drift, Share};
use crate::core::names::{AppName, Unit};

/// One directory of manifests that is released as a unit, with one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

/// What is different for one workload of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadOverride {
    /// Replaces the policy's `unitReplicas`.
    pub unit_replicas: Option<BTreeMap<Unit, Share>>,
}

/// Where an application's manifests come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
