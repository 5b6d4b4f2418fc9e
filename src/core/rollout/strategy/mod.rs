//! How pods get from one version to another.

pub mod batched;
mod drain;
mod handle;
mod slice;
mod unit;
