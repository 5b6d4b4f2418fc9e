//! The API machinery: what a request does to the store. Synchronous and deterministic; no I/O, no clock.
//!
//! Everything that a real API server does to an object on its way in happens here, in this order: decoding by the
//! schema ([`crate::sandbox::schema::decode`]), defaults ([`defaults`]), what the server itself sets, validation
//! ([`validate`]), who owns what ([`managed`]), and the write with its revision ([`store`]).
//!
//! [`Api::handle`] is one HTTP request; the other methods are the same doors for controllers in the process and for
//! the simulation. Times come from [`Api::set_time`], identifiers from a seeded generator: the same calls make the
//! same objects, byte for byte.

pub mod access;
mod applied;
mod audit;
pub mod defaults;
mod delete;
mod discovery;
mod events;
pub mod fields;
mod handle;
pub mod managed;
mod openapi;
mod parts;
pub mod patch;
mod query;
mod random;
mod request;
pub mod resources;
mod scale;
pub mod selector;
mod settle;
pub mod status;
pub mod store;
mod tables;
pub mod time;
pub mod validate;
mod watch;
mod write;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::{
    delete::{DeleteOptions, Propagation},
    parts::qos_class,
    patch::PatchKind,
    request::{Body, Request, Response},
    selector::Labels,
    status::{Cause, Status},
    store::{EventKind, WatchEvent},
    watch::{Frame, Watch},
    write::{FieldValidation, PatchRequest, WriteOptions},
};
use self::{random::Random, resources::Registry, store::Store};

/// How an API server starts.
#[derive(Clone, Copy, Debug)]
pub struct ApiOptions {
    /// Where UIDs and generated names come from.
    pub seed: u64,
    /// What time it is.
    pub now: Timestamp,
}

/// The API server's state.
#[derive(Clone, Debug)]
pub struct Api {
    now: Timestamp,
    random: Random,
    registry: Registry,
    store: Store,
    addresses: u32,
    warnings: Vec<String>,
    forbidden: Vec<access::Forbidden>,
}

impl Api {
    /// Builds an API server with the namespaces that every cluster has.
    pub fn new(options: ApiOptions) -> Self {
        let mut api = Self {
            now: options.now,
            random: Random::new(options.seed),
            registry: Registry::builtin(),
            store: Store::default(),
            addresses: 0,
            warnings: Vec::new(),
            forbidden: Vec::new(),
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            // Cannot be refused: the names are valid and the store is empty.
            let made = api.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
            debug_assert!(made.is_ok(), "{made:?}");
        }
        api
    }

    /// Sets the time. It is what creation and deletion times are taken from.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Returns the time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns what is served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns one object, in the version that is stored. The namespace is "" for objects of the cluster.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.store.get(resource, namespace, name).cloned()
    }

    /// Returns all objects of a resource (`pods`, `deployments.apps`) by namespace and name.
    pub fn list(&self, resource: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.store.list(resource)
    }

    /// Returns the objects of a resource in one namespace, by name.
    pub fn list_in(&self, resource: &str, namespace: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.store.list_in(resource, namespace)
    }

    /// Returns the newest revision.
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Returns what happened after `revision`.
    ///
    /// # Errors
    ///
    /// 410 where some of it was compacted away.
    pub fn events_since(&self, revision: u64) -> Result<impl Iterator<Item = &WatchEvent>, Status> {
        self.store.since(revision)
    }

    /// Forgets what happened up to the revision `before`, included: watchers that are behind get 410.
    pub fn compact(&mut self, before: u64) {
        self.store.compact(before);
    }
}
