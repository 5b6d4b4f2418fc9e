//! Does: one folder for each outside system, whose SDK is imported nowhere else.

pub mod ask;
pub mod clock;
pub mod git;
pub mod kube;
mod mounted;
pub mod render;
pub mod traffic;
