//! The live cluster, as the controller needs it: what the `kube` adapter must offer.
//!
//! Objects come by watching and are folded into a cache by the controller. Writes carry what they were decided
//! on (UID, resource version); a stale one is refused with [`ClusterError::Conflict`] and decided again.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::Object;

/// A kind of object: group ("" is the core group), version, kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind {
    /// `apps`; "" for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
}

impl Kind {
    /// Builds a kind from `("apps", "v1", "Deployment")`.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// Builds a kind from an object's `apiVersion` and `kind`.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, kind)
    }

    /// Returns `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

/// What identifies an object whatever version it is read in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `apps`; "" for the core group.
    pub group: String,
    /// `Deployment`.
    pub kind: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{} in {}", self.kind, self.name, self.namespace)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster as a whole.
    Cluster,
}

/// A ServiceAccount in whose name requests are made, instead of the controller's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    /// Where the account is.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Account {
    /// The name of the user that it is, as the API server writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// What somebody wants to do to an object, or to objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// `create`, `patch`, `delete`, `get`, as roles name them.
    pub verb: &'static str,
    /// The kind.
    pub kind: Kind,
    /// "" for objects of the cluster.
    pub namespace: String,
    /// `None` for objects whose names are not known yet.
    pub name: Option<String>,
}

/// How a patch's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchType {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own, with list keys.
    Strategic,
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Write {
    /// Server-side apply, as the field manager [`FIELD_MANAGER`]. The object carries the full owned set and, where a
    /// live one was seen, its `metadata.resourceVersion`.
    Apply {
        /// What is sent.
        object: Object,
        /// Whether fields of other managers are taken over.
        force: bool,
        /// Another field manager than [`FIELD_MANAGER`].
        manager: Option<String>,
    },
    /// Creates an object that must not exist yet.
    Create {
        /// What is sent.
        object: Object,
    },
    /// Patches an object that was seen.
    Patch {
        /// The kind, with its version.
        kind: Kind,
        /// Which object.
        key: ObjectKey,
        /// The UID that was seen; refused when another object has the name now.
        uid: String,
        /// The resource version that was seen; `None` where a patch is right whatever else changed.
        resource_version: Option<String>,
        /// How `body` is read.
        patch: PatchType,
        /// The patch without UID and resource version: the adapter adds them.
        body: Value,
        /// `status` or `scale`; `None` is the object itself.
        subresource: Option<String>,
    },
    /// Deletes an object that was seen.
    Delete {
        /// The kind, with its version.
        kind: Kind,
        /// Which object.
        key: ObjectKey,
        /// The UID that was seen.
        uid: String,
        /// The resource version that was seen; `None` where deleting is right whatever else changed.
        resource_version: Option<String>,
        /// True leaves the dependents without an owner.
        orphan: bool,
    },
}

impl Write {
    /// Returns which object it is about, and its kind.
    pub fn subject(&self) -> (Kind, ObjectKey) {
        match self {
            Self::Apply { object, .. } | Self::Create { object } => (object.kind(), object.key()),
            Self::Patch { kind, key, .. } | Self::Delete { kind, key, .. } => (kind.clone(), key.clone()),
        }
    }
}

/// The field manager of everything that Locktender applies or patches.
pub const FIELD_MANAGER: &str = "locktender";

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// 409: decided on something that has changed.
    #[error("conflict: {0}")]
    Conflict(String),
    /// 409 of a creation.
    #[error("it exists already: {0}")]
    AlreadyExists(String),
    /// 404 of an object.
    #[error("not found: {0}")]
    NotFound(String),
    /// 404 of a kind, or of a namespace while creating.
    #[error("the cluster does not serve it: {0}")]
    NoKind(String),
    /// 422 or 400: what was sent is wrong and stays wrong; or fields of it belong to somebody else.
    #[error("the API server refuses it: {0}")]
    Invalid(String),
    /// 401 or 403, quota and admission included.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 429, and 5xx with `Retry-After`.
    #[error("the API server is busy: {message}")]
    Busy {
        /// What it said.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Timeouts, resets and 5xx: a write may or may not have been carried out.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEvent {
    /// Everything of a kind, at a resource version: replaces what was known of it.
    Listed {
        /// The kind.
        kind: Kind,
        /// All its objects.
        objects: Vec<Object>,
        /// The list's resource version.
        resource_version: String,
    },
    /// An object was added or changed.
    Applied(Object),
    /// An object went; its last state.
    Deleted(Object),
    /// A kind cannot be watched now: what is known of it may be old. A `Listed` follows when it can be again.
    Lost {
        /// The kind.
        kind: Kind,
        /// What the server said.
        reason: String,
    },
}

impl ClusterEvent {
    /// Returns the kind that it tells of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Listed { kind, .. } | Self::Lost { kind, .. } => kind.clone(),
            Self::Applied(object) | Self::Deleted(object) => object.kind(),
        }
    }
}

/// The live cluster.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Carries out one write and returns the object as it is now; `None` when it is gone.
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError>;

    /// Asks what `write` would make of the object, without doing it (`dryRun=All`).
    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError>;

    /// Reads one object from the API server itself, past every cache.
    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError>;

    /// Returns the same cluster for whoever writes and reads in an account's name. It is not watched.
    fn acting_as(&self, account: &Account) -> Arc<dyn Cluster>;

    /// Asks whether whoever asks may do something.
    async fn may(&self, access: &Access) -> Result<bool, ClusterError>;

    /// Returns where objects of `kind` live; [`ClusterError::NoKind`] where the server does not serve it.
    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError>;

    /// Starts watching `kind` in all namespaces, once; its events come from [`Cluster::next_event`].
    async fn watch(&self, kind: &Kind);

    /// Returns the next event of any watch. Cancel safe.
    async fn next_event(&self) -> ClusterEvent;

    /// Returns an event that is there already, so that a burst is folded before deciding.
    fn try_event(&self) -> Option<ClusterEvent>;
}
