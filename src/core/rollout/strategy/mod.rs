//! How pods get from one version to another.

mod drain;
mod handle;
pub(super) mod slice;
mod unit;
pub mod workload;
