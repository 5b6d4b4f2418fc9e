//! Locktender: a release controller for Kubernetes. *Merge to release. Commit to advance. Revert to roll back.*

pub mod adapter;
pub mod cli;
pub mod controller;
pub mod core;
pub mod sandbox;
