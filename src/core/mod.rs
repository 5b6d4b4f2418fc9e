//! Decides. Pure: no async runtime, clock, randomness or I/O; the traits of the adapters live here, beside the
//! types that they speak in.

pub mod analysis;
pub mod ask;
pub mod clock;
pub mod cluster;
pub mod diff;
pub mod kustomize;
pub mod lease;
pub mod ledger;
pub mod manifest;
pub mod names;
pub mod policy;
pub mod problem;
pub mod render;
pub mod repository;
pub mod rollout;
pub mod shared;
pub mod traffic;
pub mod validate;
pub mod yaml;
