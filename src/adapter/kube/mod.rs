//! The live cluster, through `kube`'s client.
//!
//! # Flow
//!
//! A write is resolved to a resource (`discovery`), put into one request (`requests`), sent (`transport`), and
//! its answer read (`refusal`). A watched kind has a task of its own (`watch`) that lists, then watches from the
//! list's resource version, and says what it sees in one queue.
//!
//! # Guarantees
//!
//! - Nothing is retried here but watches: a write is sent once, and its error says whether it may have been done.
//! - No request outlives its time limit; a silent watch is opened again from where it was.
//! - For each kind a `Listed` comes before its `Applied` and `Deleted`; after a `Lost` the next event is a `Listed`.
//! - Text of errors has no values of Secrets in it.
//!
//! - Tokens, certificates and authorities that are rotated in their files are used within seconds (`renew`).
//!
//! # Caveats
//!
//! - Whoever acts in an account's name (`Cluster::acting_as`) sends `Impersonate-User` and no groups: the API server
//!   gives a ServiceAccount those that it has, and the right to impersonate groups is not needed. Discovery and watches
//!   are the controller's own.
//! - `managedFields` of others than Locktender are taken off every object: nothing reads them and they are half of it.
//! - Deleting what is gone already is done: `None`, not `NotFound`.

mod away;
mod connect;
mod counts;
mod discovery;
mod pace;
mod refusal;
mod renew;
mod requests;
mod transport;
mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc},
    task::AbortHandle,
};

pub use self::{
    away::NoCluster,
    connect::{ConnectError, connect, connect_with},
    counts::{RequestCounts, Verb},
    pace::Rate,
};
use self::{
    counts::Verb as CountedVerb,
    discovery::{Discovery, Resource},
    refusal::{Subject, refusal},
    renew::Clients,
    requests::{access_review, kind_of, object_path, request, subject_of},
    transport::{Call, Reply, Transport},
};
use crate::core::{
    cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, FIELD_MANAGER, Kind, ObjectKey, Scope, Write},
    manifest::Object,
};

/// Events that wait to be taken; a watch that is faster waits.
const EVENT_QUEUE: usize = 4_096;

/// Time limits and sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long a read or a write may take. Default 30 s.
    pub request_timeout: Duration,
    /// How long a page of a list may take. Default 60 s.
    pub list_timeout: Duration,
    /// Objects in a page of a list. Default 500.
    pub page_size: u32,
    /// Bytes in a page of a list, in memory some ten times that: of larger objects fewer are asked for. Default 16 MiB.
    pub page_bytes: usize,
    /// How long the server is asked to keep a watch open. Default 290 s.
    pub watch_lasts: Duration,
    /// A watch that says nothing for this long, not even a bookmark (each minute), is opened again. Default 150 s.
    pub watch_silence: Duration,
    /// Every kind is listed anew this often, so that a missed event heals. Default 10 min.
    pub relist_every: Duration,
    /// The first and the longest wait before a failed watch is tried again. Default 200 ms and 30 s.
    pub backoff: (Duration, Duration),
    /// How long "this kind is not served" is believed. Default 2 s.
    pub doubt_after: Duration,
    /// Requests other than watches at the same time. Default 64.
    pub in_flight: usize,
    /// The client-side rate limit. Default none: the API server has its own.
    pub rate: Option<Rate>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            list_timeout: Duration::from_secs(60),
            page_size: 500,
            page_bytes: 16 << 20,
            watch_lasts: Duration::from_secs(290),
            watch_silence: Duration::from_secs(150),
            relist_every: Duration::from_secs(600),
            backoff: (Duration::from_millis(200), Duration::from_secs(30)),
            doubt_after: Duration::from_secs(2),
            in_flight: 64,
            rate: None,
        }
    }
}

/// What requests and watches share.
struct Shared {
    transport: Transport,
    discovery: Discovery,
    settings: Settings,
    /// Groups of which a CustomResourceDefinition came, changed or went.
    definitions: broadcast::Sender<String>,
}

impl Shared {
    async fn resource(&self, kind: &Kind) -> Result<Resource, ClusterError> {
        self.discovery.resource(kind, &self.transport, self.settings.request_timeout).await
    }

    /// Returns the error of an answer, and doubts that the kind is served when it says so.
    async fn refused(&self, reply: &Reply, subject: &Subject) -> ClusterError {
        let error = refusal(reply, subject);
        if matches!(error, ClusterError::NoKind(_)) {
            self.discovery.forget(&subject.kind).await;
        }
        error
    }

    /// Says that what a group serves may be another now.
    async fn definition_changed(&self, definition: &Object) {
        let group = definition.text(&["spec", "group"]);
        self.discovery.forget_group(group).await;
        // Nobody waits for a kind: nothing to tell.
        let _ = self.definitions.send(group.to_owned());
    }
}

/// A cluster behind an API server.
pub struct KubeCluster {
    shared: Arc<Shared>,
    /// In whose name it is read and written; `None` is who the client is.
    account: Option<Account>,
    sender: mpsc::Sender<ClusterEvent>,
    events: tokio::sync::Mutex<mpsc::Receiver<ClusterEvent>>,
    watched: Mutex<BTreeSet<Kind>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl KubeCluster {
    /// Wraps a client, inside of a tokio runtime. The client must not retry by itself: [`connect()`] makes one that does not.
    pub fn new(client: kube::Client, settings: Settings) -> Self {
        Self::over(Clients::fixed(client), settings)
    }

    fn over(clients: Clients, settings: Settings) -> Self {
        Self::sharing(
            Arc::new(Shared {
                transport: Transport::new(clients, &settings),
                discovery: Discovery::new(settings.doubt_after),
                settings,
                definitions: broadcast::channel(64).0,
            }),
            None,
        )
    }

    /// Returns the same cluster without any watch: connections, limits and counts are shared, events are not.
    pub fn anew(&self) -> Self {
        Self::sharing(Arc::clone(&self.shared), None)
    }

    fn sharing(shared: Arc<Shared>, account: Option<Account>) -> Self {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        Self {
            shared,
            account,
            sender,
            events: tokio::sync::Mutex::new(events),
            watched: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Returns the counts of the requests sent, which go on counting.
    pub fn requests(&self) -> Arc<RequestCounts> {
        Arc::clone(&self.shared.transport.counts)
    }

    async fn call(&self, call: &Call) -> Result<Reply, ClusterError> {
        self.shared.transport.call_as(self.account.as_ref(), call, self.shared.settings.request_timeout).await
    }

    async fn carry_out(&self, write: &Write, dry_run: bool) -> Result<Option<Object>, ClusterError> {
        let (kind, subject) = (kind_of(write), subject_of(write));
        let resource = self.shared.resource(&kind).await?;
        let call = request(write, &resource, dry_run)?;
        let reply = self.call(&call).await?;
        let deletes = matches!(write, Write::Delete { .. });
        if !reply.is_success() {
            return match self.shared.refused(&reply, &subject).await {
                ClusterError::NotFound(_) if deletes => Ok(None),
                error => Err(error),
            };
        }
        let object = parse(&reply, &subject)?;
        if deletes && !remains(&object) {
            return Ok(None);
        }
        if is_definition(&kind) && !dry_run {
            self.shared.definition_changed(&object).await;
        }
        Ok(Some(complete(object, &kind)))
    }
}

impl Drop for KubeCluster {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.carry_out(write, false).await
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.carry_out(write, true).await
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        let key = ObjectKey {
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let resource = self.shared.resource(kind).await?;
        let call = Call::reading(CountedVerb::Get, &resource.name(kind), object_path(kind, &key, &resource)?);
        let subject = Subject { what: key.to_string(), kind: kind.clone(), json_patch: false };
        let reply = self.call(&call).await?;
        if reply.is_success() {
            return Ok(Some(complete(parse(&reply, &subject)?, kind)));
        }
        match self.shared.refused(&reply, &subject).await {
            ClusterError::NotFound(_) => Ok(None),
            error => Err(error),
        }
    }

    fn acting_as(&self, account: &Account) -> Arc<dyn Cluster> {
        Arc::new(Self::sharing(Arc::clone(&self.shared), Some(account.clone())))
    }

    async fn may(&self, access: &Access) -> Result<bool, ClusterError> {
        let resource = self.shared.resource(&access.kind).await?;
        let kind = Kind::new("authorization.k8s.io", "v1", "SelfSubjectAccessReview");
        let reply = self.call(&access_review(access, &resource)).await?;
        let subject = Subject { what: "a SelfSubjectAccessReview".to_owned(), kind, json_patch: false };
        if !reply.is_success() {
            return Err(refusal(&reply, &subject));
        }
        Ok(parse(&reply, &subject)?.at(&["status", "allowed"]).and_then(Value::as_bool).unwrap_or_default())
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        Ok(self.shared.resource(kind).await?.scope)
    }

    async fn watch(&self, kind: &Kind) {
        let is_new = self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.clone());
        if is_new {
            let watcher = watch::Watcher::new(kind.clone(), Arc::clone(&self.shared), self.sender.clone());
            let task = tokio::spawn(watcher.run());
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        }
    }

    async fn next_event(&self) -> ClusterEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            // Not reached: this struct has a sender itself.
            None => std::future::pending().await,
        }
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        self.events.try_lock().ok()?.try_recv().ok()
    }
}

fn is_definition(kind: &Kind) -> bool {
    kind.group == "apiextensions.k8s.io" && kind.kind == "CustomResourceDefinition"
}

fn parse(reply: &Reply, subject: &Subject) -> Result<Object, ClusterError> {
    // The parser's message may quote a value, so it is not repeated.
    let value: Option<Value> = serde_json::from_slice(&reply.body).ok();
    value
        .filter(Value::is_object)
        .map(Object)
        .ok_or_else(|| ClusterError::Unreachable(format!("{}: the answer is no object", subject.what)))
}

/// Returns whether a deletion's answer is an object that is still there: waiting for its finalizers, or for its
/// grace period. Some kinds answer with the last state of an object that is gone.
fn remains(object: &Object) -> bool {
    let list = |path: &[&str]| object.at(path).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    object.is_terminating()
        && (object.number(&["metadata", "deletionGracePeriodSeconds"]).is_some_and(|seconds| seconds > 0)
            || list(&["metadata", "finalizers"])
            || list(&["spec", "finalizers"]) && object.text(&["kind"]) == "Namespace")
}

/// Adds what lists leave out, and takes off the managed fields of others.
fn complete(mut object: Object, kind: &Kind) -> Object {
    if object.at(&["kind"]).is_none() {
        object.set(&["kind"], Value::from(kind.kind.clone()));
        object.set(&["apiVersion"], Value::from(kind.api_version()));
    }
    if let Some(Value::Array(mut entries)) = object.remove(&["metadata", "managedFields"]) {
        entries.retain(|entry| entry["manager"].as_str().is_some_and(|name| name.starts_with(FIELD_MANAGER)));
        if !entries.is_empty() {
            object.set(&["metadata", "managedFields"], Value::Array(entries));
        }
    }
    object
}
