//! Objects by resource, namespace and name, and the log of what happened to them: one revision a change.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::status::Status;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// The revision that the change made.
    pub revision: u64,
    /// What happened.
    pub kind: EventKind,
    /// `pods`, `deployments.apps`.
    pub resource: Arc<str>,
    /// The object as it is now; for a deletion, as it was last.
    pub object: Arc<Value>,
    /// The object as it was before.
    pub previous: Option<Arc<Value>>,
}

type ByName = BTreeMap<String, Arc<Value>>;

/// How many changes are kept: a watcher that is further behind lists again.
const KEPT: usize = 20_000;

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Arc<str>, BTreeMap<String, ByName>>,
    revision: u64,
    log: VecDeque<WatchEvent>,
}

impl Store {
    /// Returns the newest revision; 0 when nothing was ever written.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns one object. The namespace is "" for objects of the cluster.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(namespace)?.get(name)
    }

    /// Returns all objects of a resource, by namespace and name.
    pub fn list(&self, resource: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.objects.get(resource).into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    /// Returns the objects of a resource in one namespace, by name.
    pub fn list_in(&self, resource: &str, namespace: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.objects.get(resource).and_then(|all| all.get(namespace)).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the objects of a resource as they were at `revision`, by namespace and name.
    ///
    /// # Errors
    ///
    /// 410 where the log does not reach back that far.
    pub fn list_at(&self, resource: &str, revision: u64) -> Result<Vec<Arc<Value>>, Status> {
        let place = |object: &Value| {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            (text("namespace"), text("name"))
        };
        let mut found: BTreeMap<_, _> = self.list(resource).map(|object| (place(object), object.clone())).collect();
        let since: Vec<_> = self.since(revision)?.filter(|event| &*event.resource == resource).collect();
        for event in since.into_iter().rev() {
            match &event.previous {
                Some(previous) => found.insert(place(&event.object), previous.clone()),
                None => found.remove(&place(&event.object)),
            };
        }
        Ok(found.into_values().collect())
    }

    /// Writes an object with the next revision as its resource version.
    pub fn put(&mut self, resource: &Arc<str>, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let object = Arc::new(object);
        let in_namespace = self.objects.entry(resource.clone()).or_default().entry(namespace).or_default();
        let previous = in_namespace.insert(name, object.clone());
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        self.log(WatchEvent {
            revision: self.revision,
            kind,
            resource: resource.clone(),
            object: object.clone(),
            previous,
        });
        object
    }

    /// Removes an object; what is logged (and returned) is `last`, with the next revision as its resource version.
    pub fn remove(&mut self, resource: &Arc<str>, mut last: Value) -> Arc<Value> {
        self.revision += 1;
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let text = |name: &str| last["metadata"][name].as_str().unwrap_or_default();
        let in_namespace = self.objects.get_mut(resource).and_then(|all| all.get_mut(text("namespace")));
        let previous = in_namespace.and_then(|objects| objects.remove(text("name")));
        let object = Arc::new(last);
        let kind = EventKind::Deleted;
        self.log(WatchEvent {
            revision: self.revision,
            kind,
            resource: resource.clone(),
            object: object.clone(),
            previous,
        });
        object
    }

    fn log(&mut self, event: WatchEvent) {
        self.log.push_back(event);
        if self.log.len() > 2 * KEPT {
            self.log.drain(..KEPT);
        }
    }

    /// Returns what happened after `revision`.
    ///
    /// # Errors
    ///
    /// 410 where some of it was compacted away, or where `revision` is yet to come.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &WatchEvent>, Status> {
        let oldest = self.oldest();
        if revision < oldest {
            return Err(Status::expired(revision, oldest));
        }
        let skip = usize::try_from(revision - oldest).unwrap_or(usize::MAX).min(self.log.len());
        Ok(self.log.range(skip..))
    }

    /// Returns the oldest revision from which the log is whole.
    pub fn oldest(&self) -> u64 {
        self.revision - self.log.len() as u64
    }

    /// Forgets what happened up to `revision`, included.
    pub fn compact(&mut self, revision: u64) {
        let count = revision.min(self.revision).saturating_sub(self.oldest());
        self.log.drain(..usize::try_from(count).unwrap_or(usize::MAX).min(self.log.len()));
    }
}
