//! Which resource a kind is served as: asked once a group and version, and again when something is not there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use super::{
    counts::Verb,
    refusal::{Subject, refusal},
    requests::version_path,
    transport::{Call, Transport},
};
use crate::core::cluster::{ClusterError, Kind, Scope};

/// How the objects of a kind are reached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    /// `deployments`.
    pub(super) plural: String,
    /// Where they live.
    pub(super) scope: Scope,
}

impl Resource {
    /// Returns `deployments.apps`, or `pods` for the core group.
    pub(super) fn name(&self, kind: &Kind) -> String {
        if kind.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, kind.group) }
    }
}

/// What one group and version serves.
#[derive(Default)]
struct Served {
    /// When it was asked last; `None` when it must be asked.
    asked: Option<Instant>,
    resources: HashMap<String, Resource>,
}

type GroupVersion = (String, String);

/// The cache. Each group and version has a lock of its own, so an aggregated API that hangs holds up only itself.
pub(super) struct Discovery {
    /// How long "not served" is believed.
    doubt_after: Duration,
    served: Mutex<HashMap<GroupVersion, Arc<tokio::sync::Mutex<Served>>>>,
}

/// The part of `metav1.APIResourceList` that is used.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceList {
    resources: Vec<ListedResource>,
}

#[derive(Deserialize)]
struct ListedResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

impl Discovery {
    pub(super) fn new(doubt_after: Duration) -> Self {
        Self { doubt_after, served: Mutex::default() }
    }

    /// Returns how `kind` is served; [`ClusterError::NoKind`] where it is not.
    pub(super) async fn resource(
        &self,
        kind: &Kind,
        transport: &Transport,
        limit: Duration,
    ) -> Result<Resource, ClusterError> {
        let served = self.entry(kind);
        let mut served = served.lock().await;
        if let Some(resource) = served.resources.get(&kind.kind) {
            return Ok(resource.clone());
        }
        if served.asked.is_none_or(|asked| asked.elapsed() >= self.doubt_after) {
            served.resources = ask(kind, transport, limit).await?;
            served.asked = Some(Instant::now());
        }
        served.resources.get(&kind.kind).cloned().ok_or_else(|| ClusterError::NoKind(format!("{kind:?}")))
    }

    /// Forgets what is known of a kind's group and version, so that it is asked again.
    pub(super) async fn forget(&self, kind: &Kind) {
        *self.entry(kind).lock().await = Served::default();
    }

    /// Forgets what is known of a group, in all versions.
    pub(super) async fn forget_group(&self, group: &str) {
        let entries: Vec<_> = {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.iter().filter(|((of, _), _)| of == group).map(|(_, entry)| Arc::clone(entry)).collect()
        };
        for entry in entries {
            *entry.lock().await = Served::default();
        }
    }

    fn entry(&self, kind: &Kind) -> Arc<tokio::sync::Mutex<Served>> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(served.entry((kind.group.clone(), kind.version.clone())).or_default())
    }
}

async fn ask(kind: &Kind, transport: &Transport, limit: Duration) -> Result<HashMap<String, Resource>, ClusterError> {
    let call = Call::reading(Verb::Discover, &kind.api_version(), version_path(kind)?);
    let reply = transport.call(&call, limit).await?;
    if reply.status == 404 {
        return Ok(HashMap::new());
    }
    if !reply.is_success() {
        let what = format!("discovery of {}", kind.api_version());
        return Err(refusal(&reply, &Subject { what, kind: kind.clone(), json_patch: false }));
    }
    let list: ResourceList = serde_json::from_slice(&reply.body).map_err(|error| {
        ClusterError::Unreachable(format!("the answer about {} cannot be read: {error}", kind.api_version()))
    })?;
    // `deployments/scale` is of kind Scale and no resource of its own.
    let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    let scope = |namespaced| if namespaced { Scope::Namespaced } else { Scope::Cluster };
    Ok(whole.map(|listed| (listed.kind, Resource { plural: listed.name, scope: scope(listed.namespaced) })).collect())
}
