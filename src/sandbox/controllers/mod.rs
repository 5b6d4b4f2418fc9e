//! The controllers a rollout needs, each a function of what is known to the writes that bring it about.
//!
//! A controller is told of every change and answers with the keys that are to be looked at again; looking at one
//! reads the cache, which always holds the newest state, and returns writes. Nothing is remembered that could not be
//! derived anew, apart from times that no object holds.

pub mod autoscaler;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod garbage;
pub mod job;
pub mod load_balancer;
pub mod namespace;
pub mod node_lifecycle;
pub mod owned;
pub mod placement;
pub mod pods;
pub mod replica_set;
pub mod revisions;
pub mod scheduler;
pub mod stateful_set;
pub mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cache::{Cache, Key},
    faults::Faults,
    pace::Pace,
    value,
    write::Write,
};

/// One change of one object.
#[derive(Debug)]
pub struct Change<'a> {
    /// The resource, with its group.
    pub resource: &'a Arc<str>,
    /// What it was.
    pub before: Option<&'a Arc<Value>>,
    /// What it is; `None` when it is gone.
    pub now: Option<&'a Arc<Value>>,
}

impl<'a> Change<'a> {
    /// Returns the object's states before and after, as far as there are any.
    pub fn states(&self) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.before.into_iter().chain(self.now)
    }

    /// Returns the object's key.
    pub fn key(&self) -> Option<Key> {
        self.states().next().map(|object| Key::of(self.resource, object))
    }

    /// Returns whether this is a change of `resource`.
    pub fn is(&self, resource: &str) -> bool {
        &**self.resource == resource
    }

    /// Returns the key of the controller of the object, before and after, where it is of `kind`.
    pub fn controllers_of_kind(&self, kind: &str, resource: &Arc<str>) -> impl Iterator<Item = Key> {
        self.states().filter_map(move |object| {
            let owner = value::controller_of(object).filter(|owner| value::text(owner, &["kind"]) == kind)?;
            Some(Key {
                resource: resource.clone(),
                namespace: value::namespace(object).to_owned(),
                name: value::text(owner, &["name"]).to_owned(),
            })
        })
    }
}

/// What a controller sees when it looks at a key.
#[derive(Debug)]
pub struct View<'a> {
    /// Everything that is known.
    pub cache: &'a Cache,
    /// The time.
    pub now: Timestamp,
    /// Faults that were asked for.
    pub faults: &'a Faults,
    /// How long things take.
    pub pace: &'a Pace,
}

/// What is to be done about a key.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests, in order.
    pub writes: Vec<Write>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

impl Outcome {
    /// Asks to be woken at `at` or earlier.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl From<Vec<Write>> for Outcome {
    fn from(writes: Vec<Write>) -> Self {
        Self { writes, wake: None }
    }
}

impl FromIterator<Write> for Outcome {
    fn from_iter<I: IntoIterator<Item = Write>>(writes: I) -> Self {
        Self { writes: writes.into_iter().collect(), wake: None }
    }
}

/// One controller.
pub trait Controller: Send {
    /// Returns the keys that a change concerns. The cache holds the state after the change.
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key>;

    /// Looks at one key.
    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome;

    /// Returns the keys that a change of the faults concerns.
    fn concerned_by_faults(&mut self, cache: &Cache) -> Vec<Key> {
        let _ = cache;
        Vec::new()
    }

    /// Returns whether faults stop this controller.
    fn is_stopped(&self, faults: &Faults) -> bool {
        let _ = faults;
        false
    }
}

/// The keys of one controller that wait to be looked at, and when.
#[derive(Debug, Default)]
pub struct Queue {
    ready: BTreeSet<Key>,
    later: BTreeMap<Key, Timestamp>,
    failures: BTreeMap<Key, u32>,
}

impl Queue {
    /// Adds a key that is to be looked at now.
    pub fn add(&mut self, key: Key) {
        self.later.remove(&key);
        self.ready.insert(key);
    }

    /// Adds a key that is to be looked at by `at`.
    pub fn add_at(&mut self, key: Key, at: Timestamp) {
        if !self.ready.contains(&key) {
            let due = self.later.entry(key).or_insert(at);
            *due = at.min(*due);
        }
    }

    /// Takes the first key that is due.
    pub fn pop(&mut self, now: Timestamp) -> Option<Key> {
        if let Some(key) = self.ready.pop_first() {
            return Some(key);
        }
        let key = self.later.iter().find(|(_, due)| **due <= now).map(|(key, _)| key.clone())?;
        self.later.remove(&key);
        Some(key)
    }

    /// Returns when the next key is due; a key that is ready is due at `now`.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.ready.is_empty() { self.later.values().min().copied() } else { Some(now) }
    }

    /// Counts a refused write and returns how many there were in a row.
    pub fn failed(&mut self, key: &Key) -> u32 {
        let count = self.failures.entry(key.clone()).or_default();
        *count += 1;
        *count
    }

    /// Forgets the refused writes of a key.
    pub fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
    }
}

/// Returns all controllers, in the order in which they are asked.
pub fn all() -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(deployment::DeploymentController::default()),
        Box::new(replica_set::ReplicaSetController::default()),
        Box::new(stateful_set::StatefulSetController::default()),
        Box::new(daemon_set::DaemonSetController::default()),
        Box::new(job::JobController::default()),
        Box::new(autoscaler::AutoscalerController::default()),
        Box::new(volume::VolumeController),
        Box::new(scheduler::Scheduler::default()),
        Box::new(endpoint_slice::EndpointSliceController::default()),
        Box::new(disruption::DisruptionController::default()),
        Box::new(load_balancer::LoadBalancerController::default()),
        Box::new(node_lifecycle::NodeLifecycleController::default()),
        Box::new(namespace::NamespaceController),
        Box::new(garbage::GarbageCollector),
    ]
}
