//! Does: one folder for each outside system, whose SDK is imported nowhere else.

pub mod ask;
pub mod clock;
pub mod git;
pub mod kube;
pub mod render;
pub mod traffic;
