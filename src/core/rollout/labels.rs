//! The labels and annotations that Locktender puts on objects, and the names of slices.

use sha2::{Digest as _, Sha256};

use crate::core::names::{Digest, RolloutId, Unit};

/// On everything that belongs to an application: its name.
pub const APP: &str = "locktender.dev/app";
/// On slices and their pods: the Deployment's name (or a hash of one that is too long for a label).
pub const WORKLOAD: &str = "locktender.dev/workload";
/// On slices and their pods: the unit.
pub const UNIT: &str = "locktender.dev/unit";
/// On slices and their pods: the workload digest, its first sixteen digits. On a Service that sends to one of several
/// versions, and so on its EndpointSlices: that version's.
pub const DIGEST: &str = "locktender.dev/digest";
/// On pods: "true" while Services may send them requests. Every pod is born with it.
pub const IN_SERVICE: &str = "locktender.dev/in-service";
/// The readiness gate of pods that leave service also where Services of others select them: it follows the label.
pub const GATE: &str = IN_SERVICE;
/// On slices: which slice this is, the same as its `pod-template-hash`.
pub const SLICE: &str = "locktender.dev/slice";
/// On an anchor: the application's name.
pub const ANCHOR: &str = "locktender.dev/anchor";
/// On a Service that was made to look at the new side: the Service that it stands beside.
pub const PREVIEW_OF: &str = "locktender.dev/preview-of";
/// On an object of an application without a policy: the record under which it was written last, after its rollout's id.
pub const RECORD: &str = "locktender.dev/record";
/// On an object that was put back as Git says before that was recorded: the state that it was seen in, after its rollout's id.
pub const PUT_BACK: &str = "locktender.dev/put-back";
/// On a slice beside the one that serves: since when no request goes there (RFC 3339).
pub const IDLE_SINCE: &str = "locktender.dev/idle-since";
/// On a Job that measures: the analysis that it is for.
pub const ANALYSIS: &str = "locktender.dev/analysis";
/// The key of an anchor's data by which a person aborts while Git is away.
pub const ANCHOR_ABORT: &str = "abort";
/// Kubernetes' own label by which ReplicaSets tell their pods apart.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Kubernetes' own label by which StatefulSets tell their pods' versions apart.
pub const REVISION: &str = "controller-revision-hash";

/// On a pod that is taken out of service: since when (RFC 3339).
pub const DRAINING: &str = "locktender.dev/draining-since";
/// On a pod that is out of every EndpointSlice and load balancer: since when (RFC 3339).
pub const DRAINED: &str = "locktender.dev/drained-since";
/// On a pod that is being drained: the digest it goes to, or "away" when it is removed.
pub const MOVING: &str = "locktender.dev/moving-to";
/// On a pod whose images were patched: the containers as they were before, `name=id#restarts`, comma separated.
pub const UPDATED_FROM: &str = "locktender.dev/updated-from";
/// On a pod that is being drained: the graceful finalizers that it had, comma separated.
pub const HAD_FINALIZERS: &str = "locktender.dev/had-finalizers";
/// On the handle: the rollout that it is in, or that it was in last.
pub const ROLLOUT: &str = "locktender.dev/rollout";
/// On a Deployment whose pods are being handed to other slices: the rollout that does it.
pub const REGROUPING: &str = "locktender.dev/regrouping";
/// On the handle: the stage it is in.
pub const STAGE: &str = "locktender.dev/stage";
/// On an object in Git, `"true"`: it may be deleted and made anew where it cannot be changed.
pub const REPLACE: &str = "locktender.dev/replace";
/// Kubernetes' own annotation: pods with a lower cost go first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Returns the value of the digest label.
pub fn digest_label(digest: &Digest) -> String {
    digest.hex()[..16].to_owned()
}

/// Returns a name as a label's value: as it is where it fits, else a hash of it.
pub fn label_value(name: &str) -> String {
    if name.len() <= 63 { name.to_owned() } else { Digest::of(name.as_bytes()).hex()[..16].to_owned() }
}

/// Returns the hash that names a unit's slice, created by a rollout: ten characters that are valid everywhere.
///
/// A unit's name may be no valid object name, and workload names may end like a unit's: so both are hashed.
pub fn slice_hash(unit: &Unit, rollout: &RolloutId, workload: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [unit.as_str(), &rollout.to_string(), workload] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a slice's name: the workload's, shortened where it must be, and the hash.
pub fn slice_name(workload: &str, hash: &str) -> String {
    let room = 253 - hash.len() - 1;
    let kept = workload.get(..room).unwrap_or(workload).trim_end_matches(['-', '.']);
    format!("{kept}-{hash}")
}
