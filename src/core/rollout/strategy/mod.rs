//! How pods get from one version to another.

mod drain;
mod handle;
mod slice;
mod unit;
pub mod workload;
