//! The cluster behind its trait: the sandbox's `World`, without HTTP, under the virtual clock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use locktender::{
    core::{
        cluster::{Cluster, ClusterError, ClusterEvent, FIELD_MANAGER, Kind, ObjectKey, PatchType, Scope, Write},
        manifest::Object,
    },
    sandbox::{
        api::{DeleteOptions, EventKind, PatchKind, PatchRequest, Propagation, Status, WriteOptions},
        world::World,
    },
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::time::VirtualClock;

/// A write, as it went through: what checkers and counts look at.
#[derive(Clone, Debug)]
pub struct Written {
    pub write: Write,
    pub result: Result<Option<Object>, ClusterError>,
}

pub struct State {
    pub world: World,
    watched: BTreeMap<String, Kind>,
    seen: u64,
    queue: VecDeque<ClusterEvent>,
    pub written: Vec<Written>,
}

/// The cluster. Cheap to clone: all clones are the same cluster.
#[derive(Clone)]
pub struct SimCluster {
    pub state: Arc<Mutex<State>>,
    clock: VirtualClock,
    news: Arc<Notify>,
}

impl SimCluster {
    pub fn new(world: World, clock: VirtualClock) -> Self {
        let state = State { world, watched: BTreeMap::new(), seen: 0, queue: VecDeque::new(), written: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), clock, news: Arc::default() }
    }

    /// A controller that starts anew knows nothing.
    pub fn forget_watches(&self) {
        let mut state = self.state.lock().unwrap();
        state.watched.clear();
        state.queue.clear();
    }

    /// Lets the world move with the clock, for ever.
    pub async fn live(self) {
        loop {
            let due = self.advance();
            match due {
                Some(at) => tokio::select! {
                    () = self.clock.sleep_until(at) => {}
                    () = self.news.notified() => {}
                },
                None => self.news.notified().await,
            }
        }
    }

    fn advance(&self) -> Option<jiff::Timestamp> {
        let now = self.clock.time();
        let mut state = self.state.lock().unwrap();
        let due = state.world.advance(now);
        let fresh = state.collect();
        drop(state);
        if fresh {
            self.news.notify_waiters();
        }
        due
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.state.lock().unwrap().world);
        self.advance();
        self.news.notify_waiters();
        result
    }
}

impl State {
    /// Turns what happened into watch events.
    fn collect(&mut self) -> bool {
        let from = self.seen;
        let events: Vec<_> = self.world.api.events_since(from).unwrap().cloned().collect();
        let mut fresh = false;
        for event in events {
            self.seen = event.revision;
            let Some(kind) = self.watched.get(&*event.resource) else { continue };
            let object = typed(&event.object, kind);
            fresh = true;
            self.queue.push_back(match event.kind {
                EventKind::Deleted => ClusterEvent::Deleted(object),
                EventKind::Added | EventKind::Modified => ClusterEvent::Applied(object),
            });
        }
        fresh
    }

    fn key_of(&self, kind: &Kind) -> Option<String> {
        self.world.api.registry().of_kind(&kind.api_version(), &kind.kind).map(|resource| resource.key.to_string())
    }

    fn list(&self, resource: &str, kind: &Kind) -> Vec<Object> {
        self.world.api.list(resource).map(|object| typed(object, kind)).collect()
    }

    fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Object> {
        let resource = self.key_of(kind)?;
        self.world.api.get(&resource, namespace, name).map(|object| typed(&object, kind))
    }

    fn carry_out(&mut self, write: &Write, dry_run: bool) -> Result<Option<Object>, ClusterError> {
        let options = WriteOptions { manager: FIELD_MANAGER.to_owned(), dry_run, ..WriteOptions::default() };
        let resource =
            |state: &Self, kind: &Kind| state.key_of(kind).ok_or_else(|| ClusterError::NoKind(format!("{kind:?}")));
        match write {
            Write::Create { object } => {
                let kind = object.kind();
                resource(self, &kind)?;
                let made = self.world.api.create_with(object.0.clone(), &options).map_err(|e| refused(e, true))?;
                Ok(Some(typed(&made, &kind)))
            }
            Write::Apply { object, force, manager } => {
                let kind = object.kind();
                let request = PatchRequest {
                    resource: resource(self, &kind)?,
                    namespace: object.namespace().to_owned(),
                    name: object.name().to_owned(),
                    subresource: None,
                    kind: PatchKind::Apply,
                    body: object.0.clone(),
                    force: *force,
                    options: WriteOptions { manager: manager.clone().unwrap_or(options.manager), ..options },
                };
                let made = self.world.api.patch(request).map_err(|e| refused(e, false))?;
                Ok(Some(typed(&made, &kind)))
            }
            Write::Patch { kind, key, uid, resource_version, patch, body, subresource } => {
                self.precondition(kind, key, uid, resource_version.as_deref())?;
                let request = PatchRequest {
                    resource: resource(self, kind)?,
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    subresource: subresource.clone(),
                    kind: match patch {
                        PatchType::Merge => PatchKind::Merge,
                        PatchType::Json => PatchKind::Json,
                        PatchType::Strategic => PatchKind::Strategic,
                    },
                    body: body.clone(),
                    force: false,
                    options,
                };
                let made = self.world.api.patch(request).map_err(|e| refused(e, false))?;
                Ok(Some(typed(&made, kind)))
            }
            Write::Delete { kind, key, uid, resource_version, orphan } => {
                match self.precondition(kind, key, uid, resource_version.as_deref()) {
                    Err(ClusterError::NotFound(_)) => return Ok(None),
                    other => other?,
                }
                let propagation = Some(if *orphan { Propagation::Orphan } else { Propagation::Background });
                let delete = DeleteOptions { propagation, dry_run, ..DeleteOptions::default() };
                let resource = resource(self, kind)?;
                let left = self.world.api.delete(&resource, &key.namespace, &key.name, delete);
                Ok(left.map_err(|e| refused(e, false))?.map(|object| typed(&object, kind)))
            }
        }
    }

    fn precondition(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        uid: &str,
        resource_version: Option<&str>,
    ) -> Result<(), ClusterError> {
        let Some(live) = self.read(kind, &key.namespace, &key.name) else {
            return Err(ClusterError::NotFound(key.to_string()));
        };
        let stale = live.uid() != uid || resource_version.is_some_and(|seen| live.resource_version() != seen);
        if stale { Err(ClusterError::Conflict(format!("{key} has changed"))) } else { Ok(()) }
    }
}

fn typed(object: &Value, kind: &Kind) -> Object {
    let mut object = Object(object.clone());
    object.set(&["apiVersion"], json!(kind.api_version()));
    object.set(&["kind"], json!(kind.kind));
    object
}

fn refused(status: Status, creating: bool) -> ClusterError {
    let message = status.message.clone();
    match status.code {
        409 if creating && status.reason == "AlreadyExists" => ClusterError::AlreadyExists(message),
        409 => ClusterError::Conflict(message),
        404 => ClusterError::NotFound(message),
        403 => ClusterError::Forbidden(message),
        429 => ClusterError::Busy { message, retry_after: None },
        400 | 413 | 422 => ClusterError::Invalid(message),
        _ => ClusterError::Unreachable(message),
    }
}

#[async_trait]
impl Cluster for SimCluster {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let result = {
            let mut state = self.state.lock().unwrap();
            let result = state.carry_out(write, false);
            state.written.push(Written { write: write.clone(), result: result.clone() });
            result
        };
        self.advance();
        self.news.notify_waiters();
        result
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.state.lock().unwrap().carry_out(write, true)
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        Ok(self.state.lock().unwrap().read(kind, namespace, name))
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        let state = self.state.lock().unwrap();
        let resource = state.world.api.registry().of_kind(&kind.api_version(), &kind.kind);
        let resource = resource.ok_or_else(|| ClusterError::NoKind(format!("{kind:?}")))?;
        Ok(if resource.namespaced { Scope::Namespaced } else { Scope::Cluster })
    }

    async fn watch(&self, kind: &Kind) {
        let mut state = self.state.lock().unwrap();
        state.collect();
        match state.key_of(kind) {
            Some(resource) => {
                let objects = state.list(&resource, kind);
                let resource_version = state.world.api.revision().to_string();
                state.watched.insert(resource, kind.clone());
                state.queue.push_back(ClusterEvent::Listed { kind: kind.clone(), objects, resource_version });
            }
            None => {
                let reason = "the server could not find the requested resource".to_owned();
                state.queue.push_back(ClusterEvent::Lost { kind: kind.clone(), reason });
            }
        }
        drop(state);
        self.news.notify_waiters();
    }

    async fn next_event(&self) -> ClusterEvent {
        loop {
            let news = self.news.notified();
            if let Some(event) = self.try_event() {
                return event;
            }
            news.await;
        }
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        self.state.lock().unwrap().queue.pop_front()
    }
}
