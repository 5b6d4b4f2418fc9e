//! How pods get from one version to another.

mod drain;
mod handle;
mod ordinals;
mod slice;
mod told;
mod unit;
pub mod workload;
