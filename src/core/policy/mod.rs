//! What people write about a release: applications, rollout policies, decisions, freezes, settings. Read once, into
//! types that cannot be wrong; after that nothing downstream can fail on bad input.

mod application;
mod blue_green;
mod canary;
mod check;
mod decision;
mod duration;
mod edit;
mod health_check;
mod quantity;
mod read;
mod read_analysis;
mod read_blue_green;
mod read_canary;
mod read_policy;
mod read_traffic;
mod rollout_policy;
pub mod schema;
mod settings;

pub use application::{Application, Source, WorkloadOverride, read_application};
pub use blue_green::{Beside, BlueGreen};
pub use canary::{Canary, Size, Step, StepGates};
pub use check::{Others, Policies, check_applications, check_policy};
pub use decision::{Decision, DecisionBody, DigestPrefix, read_decision};
pub use duration::HumanDuration;
pub use edit::without_policy;
pub use health_check::{HealthCheck, Port};
pub use quantity::{IntOrPercent, Percent, Share};
pub use read::{Sourced, nearest};
pub use read_policy::read_policy;
pub(in crate::core) use rollout_policy::seconds;
pub use rollout_policy::{
    Batched, Beta, Confirm, Drift, Graceful, OnAbort, OnFailure, OnNewRevision, PodPolicy, PruneGuard, Rollback,
    RollbackStages, RolloutPolicy, Strategy, Topology, Update,
};
pub use settings::{Freeze, Identity, Paths, Settings, read_freeze, read_settings};

/// The version of everything that people write.
pub const API_VERSION: &str = "locktender.dev/v1alpha1";
