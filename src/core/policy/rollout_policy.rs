//! A rollout policy: how applications go from one digest to another.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Beside, BlueGreen, Canary, IntOrPercent, Percent, Share};
use crate::core::{
    analysis::Metric,
    cluster::Kind,
    names::{Digest, Unit},
    traffic::Router,
};

/// How the applications that name it are released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicy {
    /// The file's name without `.yaml`, and `metadata.name`.
    pub name: String,
    /// A stage that makes no progress for this long fails. Waiting at a gate does not count.
    #[serde(with = "seconds")]
    pub progress_deadline: Duration,
    /// What a failed stage does.
    pub on_failure: OnFailure,
    /// What an abort does to Git.
    pub on_abort: OnAbort,
    /// How the way back to a known digest goes.
    pub rollback: Rollback,
    /// What a new revision does to a running rollout.
    pub on_new_revision: OnNewRevision,
    /// What is done about drift on fields we own.
    pub drift: Drift,
    /// When pruning waits for a confirm.
    pub prune: PruneGuard,
    /// What stages can measure, by name: what the policy defines, and the ready metrics that its steps name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// How the pods go.
    pub strategy: Strategy,
}

impl RolloutPolicy {
    /// Returns the SHA-256 of what the policy means: comments, order, defaults written out and the name change nothing.
    pub fn digest(&self) -> Digest {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("name");
        }
        crate::core::manifest::canonical_digest(&value)
    }
}

/// What a failed stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// Return to stable.
    Abort,
    /// Stay, and wait for `retry` or a new revision.
    Stop,
}

/// What an abort does to Git.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnAbort {
    /// The application's directory goes back to stable in Git too.
    Revert,
    /// Git is left alone.
    Hold,
}

/// How the way back to a known digest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Whether confirms and pauses are passed.
    pub stages: RollbackStages,
    /// How many of the last stables count as known.
    pub window: u32,
}

/// Whether a rollback waits at confirms and pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RollbackStages {
    /// Passes them.
    Skip,
    /// Waits at them as any release does.
    Run,
}

/// What a new revision does to a running rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnNewRevision {
    /// The new revision's rollout replaces it.
    Supersede,
    /// The newest waits until the rollout ends or stops.
    Queue,
}

/// What is done about drift on fields we own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// Reported and put back.
    Correct,
    /// Only reported.
    Report,
}

/// When pruning waits for a confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneGuard {
    /// A prune of more than this share of the application's objects waits for a confirm.
    pub confirm_above: Percent,
}

/// How the pods go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// A beta group, then batches over all units.
    Batched(Batched),
    /// A growing share of new pods beside the old ones.
    Canary(Canary),
    /// Everything new beside everything old, and a switch.
    BlueGreen(BlueGreen),
}

impl Strategy {
    /// Returns how the pods change.
    pub fn pods(&self) -> &PodPolicy {
        match self {
            Self::Batched(batched) => &batched.pods,
            Self::Canary(canary) => &canary.pods,
            Self::BlueGreen(blue_green) => &blue_green.pods,
        }
    }

    /// Returns what people call it in a policy.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Batched(_) => "batched",
            Self::Canary(_) => "canary",
            Self::BlueGreen(_) => "blueGreen",
        }
    }

    /// Returns whether it stages the pods of a kind of workload. Others are applied as they are, and their own controller
    /// replaces the pods.
    pub fn stages(&self, kind: &Kind) -> bool {
        let by_pods = self.beside().is_none();
        kind.group == "apps"
            && match kind.kind.as_str() {
                "Deployment" => true,
                // There is no second set beside the first.
                "StatefulSet" => by_pods,
                // Its pods stay on their nodes: there is nothing beside them, and no share of a number.
                "DaemonSet" => matches!(self, Self::Batched(_)),
                _ => false,
            }
    }

    /// Returns the router that shares the traffic out, where the policy names one.
    pub fn router(&self) -> Option<&Router> {
        match self {
            Self::Batched(_) => None,
            Self::Canary(canary) => canary.traffic.as_ref(),
            Self::BlueGreen(blue_green) => blue_green.traffic.as_ref(),
        }
    }

    /// Returns how old pods stay beside new ones until traffic has left them; `None` where the pods' number is the
    /// traffic's share.
    pub fn beside(&self) -> Option<Beside<'_>> {
        match self {
            Self::Batched(_) => None,
            Self::Canary(canary) => canary.traffic.as_ref().map(|router| Beside {
                preview_service: None,
                health_check: None,
                suffix: "canary",
                router: Some(router),
                scale_down_delay: canary.scale_down_delay,
                scales_stable: canary.dynamic_stable_scale,
            }),
            Self::BlueGreen(blue_green) => Some(Beside {
                preview_service: blue_green.preview_service.as_deref(),
                health_check: blue_green.health_check.as_deref(),
                suffix: "preview",
                router: blue_green.traffic.as_ref(),
                scale_down_delay: blue_green.scale_down_delay,
                scales_stable: false,
            }),
        }
    }
}

/// The batched strategy: a beta group, then batches over all units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batched {
    /// How the pods change.
    pub pods: PodPolicy,
    /// The first batch.
    pub beta: Beta,
    /// Pods of one batch, over all units together. A count is at least 1, a percentage at least 1 %.
    pub batch_size: IntOrPercent,
    /// Which batches wait for a person.
    pub confirm: Confirm,
}

/// How a workload's pods change, whatever the strategy: it says only how many may be new at each stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPolicy {
    /// Whether pods are kept.
    pub update: Update,
    /// The units; `None` is one unit, unnamed.
    pub topology: Option<Topology>,
    /// How long a pod must have been ready to count.
    #[serde(with = "seconds")]
    pub min_ready: Duration,
    /// How many pods of a workload may be out of service at once: rounded down, at least one where there is no surge.
    pub max_unavailable: IntOrPercent,
    /// How many pods there may be beside the wanted ones meanwhile: rounded up.
    pub max_surge: IntOrPercent,
    /// How a pod is taken out of service before it is touched.
    pub graceful: Graceful,
}

impl PodPolicy {
    /// Returns the units: one without a name where there is no topology.
    pub fn units(&self) -> Vec<Unit> {
        self.topology.as_ref().map_or_else(|| vec![Unit::new("")], |topology| topology.units.clone())
    }

    /// Returns how many of `wanted` pods may be out of service at once.
    pub fn may_miss(&self, wanted: u32) -> u32 {
        let least = u32::from(self.max_surge.up(wanted) == 0);
        self.max_unavailable.down(wanted).max(least)
    }
}

/// Whether pods are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// In place where only images of containers changed, recreated where not.
    InPlaceIfPossible,
    /// In place; a change that cannot be is refused.
    InPlaceOnly,
    /// Always recreated.
    Recreate,
}

/// The failure domains of the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// The node label whose value is the unit.
    pub unit_type: String,
    /// The units, in the order that breaks ties. At least one, no two the same.
    pub units: Vec<Unit>,
    /// Shares of some of the units. Percentages together are at most 100.
    pub unit_replicas: BTreeMap<Unit, Share>,
    /// After how long a pod that finds no place is moved to another unit; `None` is never.
    #[serde(with = "optional_seconds")]
    pub auto_reschedule: Option<Duration>,
}

/// The first batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beta {
    /// How many pods of every unit; 0 is no beta group.
    pub per_unit: u32,
}

/// Which batches wait for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Confirm {
    /// Every batch but the last.
    EveryBatch,
    /// Only the beta group.
    Beta,
    /// None.
    None,
}

/// How a pod is taken out of service before it is touched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Graceful {
    /// How long after the last endpoint and finalizer went.
    #[serde(with = "seconds")]
    pub grace_period: Duration,
    /// Finalizers whose going says that their controller took the pod out of its load balancer.
    pub finalizers: Vec<String>,
    /// Whether pods have the readiness gate `locktender.dev/in-service`, which follows the label of that name: for pods that
    /// Services of others select, too.
    pub readiness_gate: bool,
}

/// Durations as whole seconds: what people write in `…Seconds` fields.
pub(in crate::core) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::core) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(in crate::core) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// The same for durations that may be absent.
mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_may_be_missing_where_there_is_no_surge() {
        let pods = |max_unavailable, max_surge| PodPolicy {
            update: Update::Recreate,
            topology: None,
            min_ready: Duration::ZERO,
            max_unavailable,
            max_surge,
            graceful: Graceful { grace_period: Duration::ZERO, finalizers: Vec::new(), readiness_gate: false },
        };
        let (none, quarter) = (IntOrPercent::Count(0), IntOrPercent::Percent(Percent::QUARTER));
        assert_eq!([pods(quarter, none).may_miss(10), pods(quarter, none).may_miss(3)], [2, 1]);
        assert_eq!([pods(none, none).may_miss(3), pods(none, quarter).may_miss(3)], [1, 0]);
    }
}
