//! Objects: read from files, their canonical form and digest, the order they are applied in, when they are healthy, what
//! may be shown of them, and what a workload's pods read.

mod across;
mod canonical;
mod health;
mod object;
mod order;
mod parse;
mod redact;
mod workload;

pub use across::{Claims, check_across, selects};
pub use canonical::{canonical_digest, digest};
pub use health::{Health, Unhealthy, health};
pub use object::{Object, strings};
pub use order::{Phase, phase, sort};
pub use parse::{Manifest, builtin_scope, is_manifest, parse};
pub(crate) use redact::hashed;
pub use redact::{is_secret, redact, redact_text};
pub use workload::{
    ConfigReference, ImageChange, PodChange, Staged, StagedWorkload, config_references, is_sliced,
    obstacle_to_in_place, plain_names, pod_change, pod_template, stage,
};
