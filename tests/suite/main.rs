//! Every test that needs more than one module, in one binary: linking is what costs.

mod architecture;
mod audit;
mod cli;
mod conformance;
mod demo;
mod faults;
mod fuzz;
mod git;
mod histories;
mod input;
mod jobs;
mod kube_adapter;
mod metrics_credentials;
mod outside;
mod prometheus;
mod ready_metrics;
mod render;
mod rollouts;
mod safety;
mod sandbox_api;
mod sandbox_world;
mod simulation;
mod source;
mod support;
mod traffic;
