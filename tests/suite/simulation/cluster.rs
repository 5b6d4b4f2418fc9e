//! The cluster behind its trait: the sandbox's `World`, without HTTP, under the virtual clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use locktender::{
    core::{
        cluster::{
            Access, Account, Cluster, ClusterError, ClusterEvent, FIELD_MANAGER, Kind, ObjectKey, PatchType, Scope,
            Write,
        },
        manifest::Object,
    },
    sandbox::{
        api::{DeleteOptions, EventKind, PatchKind, PatchRequest, Propagation, Status, WriteOptions},
        world::World,
    },
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    checker::{Checker, Pushed, Snapshot, Told, told},
    faults::{Earlier, EventFault, Faults, WriteFault},
    gateway::Gateway,
    time::VirtualClock,
};

/// Every watched kind is listed anew this often, so that an event which never came is healed.
const RELIST: SignedDuration = SignedDuration::from_mins(10);

/// How late a delayed event is, and everything of its kind after it.
const DELAY: SignedDuration = SignedDuration::from_secs(60);

/// A write, as it went through: what checkers and counts look at.
#[derive(Clone, Debug)]
pub struct Written {
    pub write: Write,
    pub result: Result<Option<Object>, ClusterError>,
}

pub struct State {
    pub world: World,
    gateway: Gateway,
    watched: BTreeMap<String, Kind>,
    seen: u64,
    queue: VecDeque<ClusterEvent>,
    /// By resource: events that are late, and until when.
    held: BTreeMap<String, (Timestamp, Vec<ClusterEvent>)>,
    /// An event that comes after the next one.
    swapped: Option<ClusterEvent>,
    relist_at: Timestamp,
    /// Resources of which nothing is told until the next list.
    muted: BTreeSet<String>,
    /// The revision when faults were armed.
    armed_at: u64,
    faults: Faults,
    pub checker: Arc<Mutex<Checker>>,
    pub written: Vec<Written>,
}

/// The cluster. Cheap to clone: all clones are the same cluster.
#[derive(Clone)]
pub struct SimCluster {
    pub state: Arc<Mutex<State>>,
    clock: VirtualClock,
    news: Arc<Notify>,
    faults: Faults,
    /// Whose hands it is in: a dead controller's calls never return.
    life: u64,
}

impl SimCluster {
    pub fn new(world: World, clock: VirtualClock) -> Self {
        Self::judged_by(world, clock, Faults::default(), Arc::default())
    }

    /// A cluster whose every step is judged, and where things go wrong.
    pub fn judged_by(world: World, clock: VirtualClock, faults: Faults, checker: Arc<Mutex<Checker>>) -> Self {
        let state = State {
            world,
            gateway: Gateway::default(),
            watched: BTreeMap::new(),
            seen: 0,
            queue: VecDeque::new(),
            held: BTreeMap::new(),
            swapped: None,
            relist_at: clock.time() + RELIST,
            muted: BTreeSet::new(),
            armed_at: 0,
            faults: faults.clone(),
            checker,
            written: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), clock, news: Arc::default(), faults, life: 0 }
    }

    /// Returns the cluster as one life of the controller sees it.
    pub fn for_life(&self, life: u64) -> Self {
        Self { life, ..self.clone() }
    }

    /// A controller that starts anew knows nothing.
    pub fn forget_watches(&self) {
        let mut state = self.state.lock().unwrap();
        state.watched.clear();
        state.queue.clear();
        state.held.clear();
        state.swapped = None;
        state.checker.lock().unwrap().told = Told::default();
    }

    /// Returns what the controller has been told.
    pub fn told(&self) -> Told {
        self.state.lock().unwrap().checker.lock().unwrap().told.clone()
    }

    /// Notes what the controller was answered.
    fn answered(&self, kind: &str, key: &ObjectKey, object: Option<&Object>) {
        let state = self.state.lock().unwrap();
        let mut checker = state.checker.lock().unwrap();
        match object {
            Some(object) => checker.told.put(object),
            None => checker.told.absent(kind, &key.namespace, &key.name),
        }
    }

    /// Notes that from here on earlier states may be served.
    pub fn armed(&self) {
        let mut state = self.state.lock().unwrap();
        state.armed_at = state.world.api.revision();
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
        let State { gateway, world, .. } = &mut *state;
        let follows = gateway.advance(world, now);
        let fresh = state.collect(now);
        let released = state.release(now);
        let relisted = state.relist(now);
        let late = state.held.values().map(|(until, _)| *until).min();
        let due = [due, follows, late, Some(state.relist_at)].into_iter().flatten().min();
        drop(state);
        let fresh = fresh || released || relisted;
        if fresh {
            self.news.notify_waiters();
        }
        due
    }

    /// Carries out a write under the checker's eyes, and answers it.
    pub fn judged(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let result = self.unanswered(write);
        if let Ok(object) = &result {
            let key = key_of(write);
            self.answered(&key.kind, &key, object.as_ref());
        }
        result
    }

    /// Carries out a write under the checker's eyes.
    fn unanswered(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        // What was due happens first, so that what happens now is the write's doing.
        self.advance();
        let mut state = self.state.lock().unwrap();
        if state.checker.lock().unwrap().resting {
            let result = state.carry_out(write, false);
            state.written.push(Written { write: write.clone(), result: result.clone() });
            drop(state);
            self.advance();
            self.news.notify_waiters();
            return result;
        }
        let before = Snapshot::of_world(&state.world);
        let ledger = state.checker.lock().unwrap().ledger();
        let result = state.carry_out(write, false);
        state.written.push(Written { write: write.clone(), result: result.clone() });
        let after = Snapshot::of_world(&state.world);
        let checker = state.checker.clone();
        drop(state);
        self.advance();
        let reacted = Snapshot::of_world(&self.state.lock().unwrap().world);
        if result.is_ok() {
            checker.lock().unwrap().wrote(write, &ledger, &before, &after, &reacted);
        }
        self.news.notify_waiters();
        result
    }

    /// Tells nothing of a resource until the next list, and where `lost`, that it does not.
    pub fn mute(&self, resource: &str, lost: bool) {
        let mut state = self.state.lock().unwrap();
        state.muted.insert(resource.to_owned());
        if let Some(kind) = state.watched.get(resource).cloned().filter(|_| lost) {
            let reason = "the connection was closed".to_owned();
            state.queue.push_back(ClusterEvent::Lost { kind, reason });
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Returns when something may have happened.
    pub async fn moved(&self) {
        self.news.notified().await;
    }

    /// Lists everything anew, now.
    pub fn relist(&self) {
        self.state.lock().unwrap().relist_at = Timestamp::UNIX_EPOCH;
        self.news.notify_waiters();
    }

    /// Tells what happens to a resource only after so long.
    pub fn hold(&self, resource: &str, seconds: i64) {
        let until = self.clock.time() + SignedDuration::from_secs(seconds);
        self.state.lock().unwrap().held.insert(resource.to_owned(), (until, Vec::new()));
        self.news.notify_waiters();
    }

    /// Lets the checker judge a push.
    pub fn judge_push(&self, push: &Pushed<'_>) {
        self.judged_with(|checker, now| checker.pushed(push, now));
    }

    /// Lets the checker judge something, with the cluster as it is.
    pub fn judged_with(&self, judge: impl FnOnce(&mut Checker, &Snapshot)) {
        let state = self.state.lock().unwrap();
        let now = Snapshot::of_world(&state.world);
        judge(&mut state.checker.lock().unwrap(), &now);
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
    fn collect(&mut self, now: Timestamp) -> bool {
        let from = self.seen;
        let events: Vec<_> = self.world.api.events_since(from).unwrap().cloned().collect();
        if events.is_empty() {
            return false;
        }
        let mut checker = self.checker.lock().unwrap();
        if !checker.resting {
            checker.stepped(&Snapshot::of_world(&self.world));
        }
        drop(checker);
        for event in events {
            self.seen = event.revision;
            let Some(kind) = self.watched.get(&*event.resource) else { continue };
            let object = typed(&event.object, kind);
            let told = match event.kind {
                EventKind::Deleted => ClusterEvent::Deleted(object),
                EventKind::Added | EventKind::Modified => ClusterEvent::Applied(object),
            };
            self.tell(&event.resource, told, now);
        }
        true
    }

    /// Queues an event, or does to it what is planned.
    fn tell(&mut self, resource: &str, event: ClusterEvent, now: Timestamp) {
        if self.muted.contains(resource) {
            return;
        }
        let fault = self.faults.on_event();
        if let Some((_, late)) = self.held.get_mut(resource) {
            return late.push(event);
        }
        match fault {
            Some(EventFault::Drop) => {}
            Some(EventFault::Delay) => drop(self.held.insert(resource.to_owned(), (now + DELAY, vec![event]))),
            Some(EventFault::Swap) if self.swapped.is_none() => self.swapped = Some(event),
            Some(EventFault::Duplicate) => self.queue.extend([event.clone(), event]),
            Some(EventFault::Swap) | None => {
                self.queue.push_back(event);
                self.queue.extend(self.swapped.take());
            }
        }
    }

    /// Queues what was late for long enough.
    fn release(&mut self, now: Timestamp) -> bool {
        let due: Vec<String> =
            self.held.iter().filter(|(_, (until, _))| *until <= now).map(|(resource, _)| resource.clone()).collect();
        for resource in &due {
            let late = self.held.remove(resource).map(|(_, late)| late);
            self.queue.extend(late.into_iter().flatten());
        }
        !due.is_empty()
    }

    /// Lists every watched kind anew when it is time.
    fn relist(&mut self, now: Timestamp) -> bool {
        if now < self.relist_at {
            return false;
        }
        self.relist_at = now + RELIST;
        self.held.clear();
        self.muted.clear();
        self.queue.extend(self.swapped.take());
        for (resource, kind) in self.watched.clone() {
            let listed = self.listed(&resource, &kind);
            self.queue.push_back(listed);
        }
        true
    }

    /// Lists a kind: as it is, or as it was where that is planned.
    fn listed(&mut self, resource: &str, kind: &Kind) -> ClusterEvent {
        let now = self.world.api.revision();
        let at = match self.faults.on_read() {
            None => now,
            Some(Earlier::Last) => {
                let events = self.world.api.events_since(self.armed_at).unwrap();
                let last = events.filter(|event| &*event.resource == resource).map(|event| event.revision).last();
                last.map_or(self.armed_at, |last| last - 1)
            }
            Some(Earlier::Half) => u64::midpoint(self.armed_at, now),
            Some(Earlier::First) => self.armed_at,
        };
        ClusterEvent::Listed {
            kind: kind.clone(),
            objects: self.list_at(resource, kind, at),
            resource_version: at.to_string(),
        }
    }

    /// Lists the objects of a kind as they were at a revision.
    pub fn list_at(&self, resource: &str, kind: &Kind, revision: u64) -> Vec<Object> {
        let place = |object: &Value| (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
        let key = |object: &Value| format!("{:?}", place(object));
        let list = self.world.api.list(resource);
        let mut found: BTreeMap<String, Arc<Value>> = list.map(|object| (key(object), object.clone())).collect();
        let since: Vec<_> = self.world.api.events_since(revision).unwrap().collect();
        for event in since.into_iter().rev().filter(|event| &*event.resource == resource) {
            match &event.previous {
                Some(previous) => drop(found.insert(key(&event.object), previous.clone())),
                None => drop(found.remove(&key(&event.object))),
            }
        }
        found.values().map(|object| typed(object, kind)).collect()
    }

    pub fn key_of(&self, kind: &Kind) -> Option<String> {
        self.world.api.registry().of_kind(&kind.api_version(), &kind.kind).map(|resource| resource.key.to_string())
    }

    fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Object> {
        let resource = self.key_of(kind)?;
        self.world.api.get(&resource, namespace, name).map(|object| typed(&object, kind))
    }

    pub fn carry_out(&mut self, write: &Write, dry_run: bool) -> Result<Option<Object>, ClusterError> {
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

/// Returns which object a write is about.
fn key_of(write: &Write) -> ObjectKey {
    match write {
        Write::Apply { object, .. } | Write::Create { object } => object.key(),
        Write::Patch { key, .. } | Write::Delete { key, .. } => key.clone(),
    }
}

pub fn typed(object: &Value, kind: &Kind) -> Object {
    let mut object = Object(object.clone());
    object.set(&["apiVersion"], json!(kind.api_version()));
    object.set(&["kind"], json!(kind.kind));
    object
}

fn refused(status: Status, creating: bool) -> ClusterError {
    let message = status.message.clone();
    match status.code {
        409 if creating && status.reason == "AlreadyExists" => ClusterError::AlreadyExists(message),
        409 if status.details.causes.iter().any(|cause| cause.reason == "FieldManagerConflict") => {
            ClusterError::Invalid(message)
        }
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
        self.faults.alive(self.life).await;
        self.faults.wait_for_turn().await;
        self.state.lock().unwrap().checker.lock().unwrap().sends(write);
        let fault = self.faults.on_write(|| told(write));
        match fault {
            Some(WriteFault::CrashBefore) => {
                self.faults.crash();
                self.faults.alive(self.life).await;
            }
            Some(WriteFault::NotSent) => return Err(ClusterError::Unreachable("connection refused".to_owned())),
            Some(WriteFault::Conflict) => return Err(ClusterError::Conflict("it was changed".to_owned())),
            Some(WriteFault::Busy) => {
                let retry_after = Some(std::time::Duration::from_secs(2));
                return Err(ClusterError::Busy { message: "too many requests".to_owned(), retry_after });
            }
            Some(WriteFault::CrashAfter | WriteFault::AnswerLost) | None => {}
        }
        match fault {
            Some(WriteFault::CrashAfter) => {
                let result = self.unanswered(write);
                self.faults.crash();
                self.faults.alive(self.life).await;
                result
            }
            Some(WriteFault::AnswerLost) => {
                let _ = self.unanswered(write);
                Err(ClusterError::Unreachable("the connection was closed".to_owned()))
            }
            _ => self.judged(write),
        }
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.state.lock().unwrap().carry_out(write, true)
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        self.faults.alive(self.life).await;
        let found = self.state.lock().unwrap().read(kind, namespace, name);
        let key = ObjectKey {
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.answered(&kind.kind, &key, found.as_ref());
        Ok(found)
    }

    fn acting_as(&self, _: &Account) -> Arc<dyn Cluster> {
        // Nobody is refused anything here.
        Arc::new(self.clone())
    }

    async fn may(&self, _: &Access) -> Result<bool, ClusterError> {
        Ok(true)
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        let state = self.state.lock().unwrap();
        let resource = state.world.api.registry().of_kind(&kind.api_version(), &kind.kind);
        let resource = resource.ok_or_else(|| ClusterError::NoKind(format!("{kind:?}")))?;
        Ok(if resource.namespaced { Scope::Namespaced } else { Scope::Cluster })
    }

    async fn watch(&self, kind: &Kind) {
        self.faults.alive(self.life).await;
        let mut state = self.state.lock().unwrap();
        state.collect(self.clock.time());
        match state.key_of(kind) {
            Some(resource) => {
                state.watched.insert(resource.clone(), kind.clone());
                if !state.muted.contains(&resource) {
                    let listed = state.listed(&resource, kind);
                    state.queue.push_back(listed);
                }
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
        self.faults.alive(self.life).await;
        loop {
            let news = self.news.notified();
            if let Some(event) = self.try_event() {
                return event;
            }
            news.await;
        }
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        let mut state = self.state.lock().unwrap();
        let event = state.queue.pop_front()?;
        state.checker.lock().unwrap().told.hear(&event);
        Some(event)
    }
}
