//! How pods get from one version to another.

mod drain;
mod gate;
mod handle;
pub(super) mod nodes;
pub(super) mod ordinals;
pub(super) mod slice;
mod told;
mod unit;
pub mod workload;
