//! An application as rendered at one revision: what the cluster is to become.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{End, Inputs};
use crate::core::{
    cluster::ObjectKey,
    manifest::{Object, obstacle_to_in_place},
    names::{Digest, Revision, Unit},
    policy::{Application, PodPolicy, RolloutPolicy, Share},
};

/// What makes a workload's pods, and so how they go from one version to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// ReplicaSets of ours, one a unit and version: a Deployment's.
    Slices,
    /// Its own controller, by ordinal: a StatefulSet's.
    Ordinals,
    /// Its own controller, one on every node: a DaemonSet's.
    Nodes,
}

impl Maker {
    /// Returns what makes the pods of a workload.
    pub fn of(workload: &ObjectKey) -> Self {
        match workload.kind.as_str() {
            "StatefulSet" => Self::Ordinals,
            "DaemonSet" => Self::Nodes,
            _ => Self::Slices,
        }
    }

    /// Returns the units that its pods are counted in: ordinals are not placed by us, and are one unit of their own; a
    /// DaemonSet also has pods on nodes of no unit, which come last.
    pub fn units(self, pods: &PodPolicy) -> Vec<Unit> {
        match self {
            Self::Slices => pods.units(),
            Self::Ordinals => vec![Unit::new("")],
            Self::Nodes => {
                let named = pods.topology.iter().flat_map(|topology| topology.units.iter().cloned());
                named.chain([Unit::new("")]).collect()
            }
        }
    }
}

/// A workload that is staged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `Deployment/checkout`.
    pub id: String,
    /// The Deployment or StatefulSet.
    pub key: ObjectKey,
    /// As rendered, with references to configuration by their versioned names.
    pub object: Object,
    /// Over the pod template and the configuration that it reads.
    pub digest: Digest,
    /// What Git says; `None` where it names none.
    pub replicas: Option<u32>,
    /// The configuration that the template reads, under versioned names.
    pub config: Vec<Object>,
    /// The application's override of `unitReplicas`.
    pub unit_replicas: Option<BTreeMap<Unit, Share>>,
    /// Whether it was rendered as something else when it was released: nobody knows how its pods differ from this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

impl Workload {
    /// Returns what makes its pods.
    pub fn maker(&self) -> Maker {
        Maker::of(&self.key)
    }

    /// Returns the pod template.
    pub fn template(&self) -> &Value {
        &self.object.0["spec"]["template"]
    }

    /// Returns the selector's `matchLabels`.
    pub fn match_labels(&self) -> BTreeMap<String, String> {
        crate::core::manifest::strings(self.object.at(&["spec", "selector", "matchLabels"]))
    }

    /// Returns why pods of `before` cannot become this version in place; `None` when they can.
    pub fn obstacle_to_in_place(&self, before: &Self) -> Option<String> {
        if self.differs || before.differs {
            return Some("the renderer has changed since it was released".to_owned());
        }
        obstacle_to_in_place((before.template(), &before.config), (self.template(), &self.config))
    }

    /// Returns the first container's image.
    pub fn image(&self) -> &str {
        self.template()["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
    }
}

/// An application as rendered at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Render {
    /// The commit.
    pub revision: Revision,
    /// The renderer, and every file that was read.
    pub inputs: Inputs,
    /// The application's file.
    pub application: Application,
    /// Its policy at this revision.
    pub policy: Option<RolloutPolicy>,
    /// Everything but staged workloads and their configuration, in the order it is applied. Services that select a
    /// staged workload's pods select those in service only.
    pub objects: Vec<Object>,
    /// The staged workloads; empty without a policy.
    pub workloads: BTreeMap<String, Workload>,
    /// The digest of each workload, staged or not.
    pub digests: BTreeMap<String, Digest>,
    /// The digest of everything.
    pub digest: Digest,
}

impl Render {
    /// Returns this under the workload digests that it was released with: its pods carry those, and a renderer that
    /// renders the same files differently now must not replace them without a rollout.
    pub fn released_as(mut self, digests: &BTreeMap<String, Digest>) -> Self {
        for (id, workload) in &mut self.workloads {
            if let Some(released) = digests.get(id).filter(|released| **released != workload.digest) {
                workload.digest = *released;
                workload.differs = true;
            }
        }
        self.digests.clone_from(digests);
        self
    }

    /// Returns this as one end of a plan.
    pub fn end(&self) -> End {
        let images = self.workloads.iter().map(|(id, workload)| (id.clone(), workload.image().to_owned())).collect();
        End { revision: self.revision.clone(), digest: self.digest, workloads: self.digests.clone(), images }
    }

    /// Returns the digest of what a change of which is a rollout of its own: the units, or having a policy at all.
    pub fn shape(&self) -> Digest {
        shape(self.policy.as_ref(), self.workloads.values())
    }

    /// Returns the keys of everything that is rendered, staged workloads included, versioned configuration aside.
    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.objects.iter().map(Object::key).chain(self.workloads.values().map(|workload| workload.key.clone()))
    }
}

fn shape<'a>(policy: Option<&RolloutPolicy>, workloads: impl Iterator<Item = &'a Workload>) -> Digest {
    let overrides: BTreeMap<&str, _> =
        workloads.map(|workload| (workload.id.as_str(), &workload.unit_replicas)).collect();
    let places = policy.and_then(places);
    let covered = serde_json::json!({ "staged": policy.is_some(), "topology": places, "overrides": overrides });
    Digest::of(covered.to_string().as_bytes())
}

/// Returns what of a policy places pods: waiting longer before rescheduling moves none.
pub(super) fn places(policy: &RolloutPolicy) -> Option<(&String, &Vec<Unit>, &BTreeMap<Unit, Share>)> {
    let topology = policy.strategy.pods().topology.as_ref()?;
    Some((&topology.unit_type, &topology.units, &topology.unit_replicas))
}
