//! The embedded cluster: an API server that a real `kubectl` talks to, and what a rollout needs behind it.
//!
//! [`api`] is the API machinery, synchronous and deterministic; [`http`] serves it on loopback; [`schema`] is what
//! both know of Kubernetes' types.

pub mod api;
pub mod http;
pub mod kubeconfig;
pub mod schema;
