//! The embedded cluster: an API server that a real `kubectl` talks to, and what a rollout needs behind it.
//!
//! [`api`] is the API machinery, synchronous and deterministic; [`http`] serves it on loopback; [`schema`] is what
//! both know of Kubernetes' types. [`world`] is the cluster behind it: [`controllers`] and [`kubelet`] are functions of
//! what the watch log said ([`cache`]) to the requests that follow ([`mod@write`]), held together by [`actors`];
//! [`faults`] makes them fail on command, [`pace`] says how long things take. [`traffic`] moves real requests to pods.

pub mod actors;
pub mod api;
pub mod cache;
pub mod controllers;
pub mod faults;
pub mod http;
pub mod kubeconfig;
pub mod kubelet;
pub mod message;
pub mod nodes;
pub mod pace;
pub mod schema;
pub mod selector;
pub mod server;
pub mod traffic;
pub mod value;
pub mod world;
pub mod write;
