//! What people write about a release: applications, rollout policies, decisions, freezes, settings. Read once, into
//! types that cannot be wrong; after that nothing downstream can fail on bad input.

mod application;
mod decision;
mod quantity;
mod rollout_policy;
mod settings;

pub use application::{Application, Source, WorkloadOverride};
pub use decision::{Decision, DecisionBody, DigestPrefix};
pub use quantity::{IntOrPercent, Percent, Share};
pub use rollout_policy::{
    Batched, Beta, Confirm, Drift, Graceful, OnAbort, OnFailure, OnNewRevision, PruneGuard, Rollback, RollbackStages,
    RolloutPolicy, Strategy, Topology, Update,
};
pub use settings::{Freeze, Identity, Paths, Settings};

/// The version of everything that people write.
pub const API_VERSION: &str = "locktender.dev/v1alpha1";
