//! The simulation's checker, fed from a history: what the controller sends goes through here, and what came of it is read
//! from the sandbox's own log of changes.
//!
//! On the sandbox everything is judged at the end, in the order of the API server's revisions: other writes, controllers and
//! kubelets are at work at the same time, and only the log tells what was there before a write and after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use locktender::{
    core::{
        cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, Kind, ObjectKey, Scope, Write},
        manifest::Object,
        names::{BlobId, Revision},
        repository::{Change, CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
    },
    sandbox::{
        api::{EventKind, WatchEvent},
        server::Sandbox,
    },
};
use serde_json::Value;

use crate::simulation::{
    checker::{Checker, Ledger, Pushed, RESOURCES, Snapshot, Told, resource_of},
    cluster::SimCluster,
};

/// A push that the remote took.
pub struct Taken {
    drafts: Vec<CommitDraft>,
    /// Path and blob of everything below `rollouts/` in the commit that it was made on, and what the ledger there says.
    files: BTreeMap<String, BlobId>,
    ledger: Vec<(String, String)>,
    told: Told,
}

impl Taken {
    fn judge(&self, checker: &mut Checker, now: &Snapshot) {
        checker.catch_up(&self.ledger, self.files.get("rollouts/accepted.yaml"));
        let edits = self.drafts.iter().flat_map(|draft| &draft.edits);
        let files = edits.filter_map(|(path, text)| {
            Some((path.as_str(), text.as_ref().map(|it| str::from_utf8(it)).transpose().ok()?))
        });
        let push = Pushed { files: files.collect(), decisions: self.files.clone(), told: self.told.clone() };
        checker.pushed(&push, now);
    }
}

/// Who hears of pushes.
pub trait Court: Send + Sync {
    /// Returns what the controller has been told of the cluster.
    fn told(&self) -> Told;
    /// Takes a push that went through; `revision` is what [`Court::revision`] said when it was sent.
    fn pushed(&self, push: Taken, revision: u64);
    /// Returns the cluster's newest revision.
    fn revision(&self) -> u64;
}

impl Court for SimCluster {
    fn told(&self) -> Told {
        Self::told(self)
    }

    fn pushed(&self, push: Taken, _: u64) {
        self.judged_with(|checker, now| push.judge(checker, now));
    }

    fn revision(&self) -> u64 {
        0
    }
}

/// The repository, whose pushes are heard of.
pub struct JudgedGit {
    pub inner: Arc<dyn Repository>,
    pub court: Arc<dyn Court>,
}

impl JudgedGit {
    /// Reads the ledger in a commit: paths and contents.
    async fn ledger_at(&self, files: &[Entry]) -> Result<Vec<(String, String)>, RepositoryError> {
        let mut ledger = Vec::new();
        for file in
            files.iter().filter(|file| file.path.ends_with("/plan.yaml") || file.path.ends_with("/journal.yaml"))
        {
            let text = self.inner.read(&file.id, 1 << 30).await?;
            ledger.push((file.path.clone(), String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(ledger)
    }
}

#[async_trait]
impl Repository for JudgedGit {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.inner.fetch().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.inner.tip().await
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.inner.directory(at, path).await
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.inner.files(at, path).await
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.inner.read(blob, limit).await
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.inner.is_ancestor(ancestor, descendant).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.inner.versions(head, since, below, names).await
    }

    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        self.inner.changes(from, to).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.inner.log(head, path, limit).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.inner.merge(path, base, ours, theirs).await
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        let (told, revision) = (self.court.told(), self.court.revision());
        let files = self.inner.files(onto, "rollouts").await?;
        let ledger = self.ledger_at(&files).await?;
        let files = files.into_iter().map(|entry| (entry.path, entry.id)).collect();
        let result = self.inner.push(onto, drafts).await;
        if let Ok(Push::Accepted(_)) = &result {
            self.court.pushed(Taken { drafts: drafts.to_vec(), files, ledger, told }, revision);
        }
        result
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}

/// A write that went through.
struct Done {
    write: Write,
    /// The revision that it made, where its answer tells; else it is found in the log, after this one.
    made: Option<u64>,
    after: u64,
    /// How many pushes had gone through when it was sent.
    pushes: usize,
    told: Told,
}

#[derive(Default)]
struct Notes {
    told: Told,
    writes: Vec<Done>,
    pushes: Vec<(u64, Taken)>,
}

/// What the controller did to a sandbox, to be judged at the end.
#[derive(Clone)]
pub struct SandboxCourt {
    sandbox: Arc<Sandbox>,
    notes: Arc<Mutex<Notes>>,
}

impl Court for SandboxCourt {
    fn told(&self) -> Told {
        self.notes.lock().unwrap().told.clone()
    }

    fn pushed(&self, push: Taken, revision: u64) {
        self.notes.lock().unwrap().pushes.push((revision, push));
    }

    fn revision(&self) -> u64 {
        self.sandbox.look(|world| world.api.revision())
    }
}

/// The cluster, whose every write and answer is noted.
pub struct JudgedCluster {
    pub inner: Arc<dyn Cluster>,
    pub court: SandboxCourt,
}

impl JudgedCluster {
    fn hear(&self, event: ClusterEvent) -> ClusterEvent {
        self.court.notes.lock().unwrap().told.hear(&event);
        event
    }
}

#[async_trait]
impl Cluster for JudgedCluster {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let (after, told, pushes) = {
            let notes = self.court.notes.lock().unwrap();
            (self.court.revision(), notes.told.clone(), notes.pushes.len())
        };
        let result = self.inner.write(write).await;
        if let Ok(object) = &result {
            let made = object.as_ref().and_then(|object| object.resource_version().parse().ok());
            let mut notes = self.court.notes.lock().unwrap();
            match (object, write) {
                (Some(object), _) => notes.told.put(object),
                (None, Write::Delete { key, .. }) => notes.told.absent(&key.kind, &key.namespace, &key.name),
                (None, _) => {}
            }
            notes.writes.push(Done { write: write.clone(), made, after, pushes, told });
        }
        result
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.inner.dry_run(write).await
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        let found = self.inner.read(kind, namespace, name).await;
        if let Ok(found) = &found {
            let mut notes = self.court.notes.lock().unwrap();
            match found {
                Some(object) => notes.told.put(object),
                None => notes.told.absent(&kind.kind, namespace, name),
            }
        }
        found
    }

    fn acting_as(&self, account: &Account) -> Arc<dyn Cluster> {
        Arc::new(Self { inner: self.inner.acting_as(account), court: self.court.clone() })
    }

    async fn may(&self, access: &Access) -> Result<bool, ClusterError> {
        self.inner.may(access).await
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        self.inner.scope(kind).await
    }

    async fn watch(&self, kind: &Kind) {
        self.inner.watch(kind).await;
    }

    async fn next_event(&self) -> ClusterEvent {
        let event = self.inner.next_event().await;
        self.hear(event)
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        self.inner.try_event().map(|event| self.hear(event))
    }
}

type Place = (String, String);

/// The cluster, played again from its log.
#[derive(Default)]
struct Replay {
    objects: BTreeMap<String, BTreeMap<Place, Arc<Value>>>,
}

fn place(object: &Value) -> Place {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Replay {
    fn take(&mut self, event: &WatchEvent) {
        if !RESOURCES.contains(&&*event.resource) {
            return;
        }
        let objects = self.objects.entry(event.resource.to_string()).or_default();
        match event.kind {
            EventKind::Deleted => drop(objects.remove(&place(&event.object))),
            EventKind::Added | EventKind::Modified => drop(objects.insert(place(&event.object), event.object.clone())),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let lists = self.objects.iter().map(|(resource, all)| (resource.clone(), all.values().cloned().collect()));
        Snapshot::of(lists.collect())
    }

    /// As it is once some pods are gone.
    fn without(&self, gone: &BTreeSet<String>) -> Snapshot {
        let lists = self.objects.iter().map(|(resource, all)| {
            let stays = |object: &&Arc<Value>| {
                resource != "pods" || !object["metadata"]["uid"].as_str().is_some_and(|uid| gone.contains(uid))
            };
            (resource.clone(), all.values().filter(stays).cloned().collect())
        });
        Snapshot::of(lists.collect())
    }
}

fn key_of(write: &Write) -> ObjectKey {
    match write {
        Write::Apply { object, .. } | Write::Create { object } => object.key(),
        Write::Patch { key, .. } | Write::Delete { key, .. } => key.clone(),
    }
}

fn is_about(event: &WatchEvent, key: &ObjectKey) -> bool {
    resource_of(&key.kind).is_some_and(|resource| *event.resource == *resource)
        && place(&event.object) == (key.namespace.clone(), key.name.clone())
}

impl SandboxCourt {
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        Self { sandbox, notes: Arc::default() }
    }

    /// A controller that starts anew was told nothing.
    pub fn forget(&self) {
        self.notes.lock().unwrap().told = Told::default();
    }

    /// Judges everything that was noted; returns what was violated.
    pub fn judge(&self) -> Vec<String> {
        let log: Vec<WatchEvent> = self.sandbox.look(|world| world.api.events_since(0).unwrap().cloned().collect());
        let notes = std::mem::take(&mut *self.notes.lock().unwrap());
        let mut writes: Vec<(u64, Done)> =
            notes.writes.into_iter().filter_map(|done| Some((revision_of(&done, &log)?, done))).collect();
        writes.sort_by_key(|(revision, _)| *revision);
        let (mut writes, mut pushes) = (writes.into_iter().peekable(), notes.pushes.into_iter().peekable());
        let mut checker = Checker::default();
        let mut replay = Replay::default();
        // What each push found, for writes that were sent before it and arrived later.
        let mut found: Vec<Ledger> = Vec::new();
        for (at, event) in log.iter().enumerate() {
            while let Some((_, push)) = pushes.next_if(|(revision, _)| *revision < event.revision) {
                found.push(checker.ledger());
                push.judge(&mut checker, &replay.snapshot());
            }
            let Some((_, done)) = writes.next_if(|(revision, _)| *revision == event.revision) else {
                replay.take(event);
                continue;
            };
            let before = replay.snapshot();
            replay.take(event);
            let reacted = replay.without(&taken_by(&done.write, &event.object, &log[at + 1..]));
            checker.sends(&done.write);
            checker.told = done.told;
            let ledger = found.get(done.pushes).cloned().unwrap_or_else(|| checker.ledger());
            checker.wrote(&done.write, &ledger, &before, &replay.snapshot(), &reacted);
        }
        for (_, push) in pushes {
            push.judge(&mut checker, &replay.snapshot());
        }
        checker.take()
    }
}

/// Returns the revision that a write made; `None` where it changed nothing.
fn revision_of(done: &Done, log: &[WatchEvent]) -> Option<u64> {
    if let Some(made) = done.made.filter(|_| !matches!(done.write, Write::Delete { .. })) {
        return (made > done.after).then_some(made);
    }
    let key = key_of(&done.write);
    let goes = |event: &&WatchEvent| {
        event.revision > done.after
            && is_about(event, &key)
            && (event.kind == EventKind::Deleted || event.object["metadata"]["deletionTimestamp"].is_string())
    };
    log.iter().find(goes).map(|event| event.revision)
}

/// Returns the pods that go because their slice was written to, until it is written to again.
fn taken_by(write: &Write, slice: &Value, later: &[WatchEvent]) -> BTreeSet<String> {
    let key = key_of(write);
    if key.kind != "ReplicaSet" {
        return BTreeSet::new();
    }
    let generation = &slice["metadata"]["generation"];
    let same = |event: &&WatchEvent| !is_about(event, &key) || event.object["metadata"]["generation"] == *generation;
    let goes = |event: &&WatchEvent| {
        let marked = |object: &Value| object["metadata"]["deletionTimestamp"].is_string();
        &*event.resource == "pods"
            && event.object["metadata"]["ownerReferences"][0]["uid"] == slice["metadata"]["uid"]
            && (event.kind == EventKind::Deleted || marked(&event.object))
            && !event.previous.as_ref().is_some_and(|before| marked(before))
    };
    let gone = later.iter().take_while(same).filter(goes);
    gone.filter_map(|event| event.object["metadata"]["uid"].as_str().map(str::to_owned)).collect()
}
