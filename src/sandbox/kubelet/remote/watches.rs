//! What is watched, and what was listed of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    api::{Api, ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;

use super::Told;
use crate::sandbox::{cache::Key, faults, kubelet::LEASES};

/// A kind that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    /// `leases.coordination.k8s.io`, as in [`Key`].
    pub resource: &'static str,
    /// `coordination.k8s.io/v1`.
    pub api_version: &'static str,
    /// `Lease`.
    pub kind: &'static str,
    /// `leases`.
    pub plural: &'static str,
    /// The only namespace, and the only name, that matter.
    only: (Option<&'static str>, Option<&'static str>),
}

const fn watched(
    resource: &'static str,
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Watched {
    Watched { resource, api_version, kind, plural, only: (None, None) }
}

/// Everything that kubelet and load balancer look at.
pub(super) const WATCHED: &[Watched] = &[
    watched("nodes", "v1", "Node", "nodes"),
    watched("pods", "v1", "Pod", "pods"),
    watched("services", "v1", "Service", "services"),
    watched("endpointslices.discovery.k8s.io", "discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    Watched {
        only: (Some(LEASES), None),
        ..watched("leases.coordination.k8s.io", "coordination.k8s.io/v1", "Lease", "leases")
    },
    Watched {
        only: (Some(faults::CONFIG_MAP.0), Some(faults::CONFIG_MAP.1)),
        ..watched("configmaps", "v1", "ConfigMap", "configmaps")
    },
];

/// Returns the watched kind of an object.
pub(super) fn of(object: &Value) -> Option<&'static Watched> {
    WATCHED.iter().find(|it| object["kind"] == it.kind && object["apiVersion"] == it.api_version)
}

/// Opens all watches. They end never; one that fails is opened again after a while.
pub(super) fn open(client: &kube::Client) -> BoxStream<'static, Told> {
    let streams = WATCHED.iter().enumerate().map(|(at, watched)| {
        let (group, version) = watched.api_version.rsplit_once('/').unwrap_or(("", watched.api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: watched.api_version.to_owned(),
            kind: watched.kind.to_owned(),
            plural: watched.plural.to_owned(),
        };
        let api: Api<DynamicObject> = match watched.only.0 {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let config = match watched.only.1 {
            Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
            None => watcher::Config::default(),
        };
        let events = watcher(api, config).default_backoff().filter_map(move |event| async move {
            match event {
                Ok(event) => Some((at, told(event, watched))),
                Err(error) => {
                    tracing::warn!(resource = watched.resource, %error, "a watch failed; it is opened again");
                    None
                }
            }
        });
        events.boxed()
    });
    stream::select_all(streams).boxed()
}

fn told(event: Event<DynamicObject>, watched: &Watched) -> Event<Value> {
    // Objects of a list do not say what they are.
    let object = |object: DynamicObject| {
        let mut object = serde_json::to_value(object).unwrap_or_default();
        object["apiVersion"] = watched.api_version.into();
        object["kind"] = watched.kind.into();
        object
    };
    match event {
        Event::Apply(it) => Event::Apply(object(it)),
        Event::Delete(it) => Event::Delete(object(it)),
        Event::Init => Event::Init,
        Event::InitApply(it) => Event::InitApply(object(it)),
        Event::InitDone => Event::InitDone,
    }
}

/// What lists said: which objects are there, and whether a kind was listed at all.
#[derive(Debug, Default)]
pub(super) struct Seen {
    listing: BTreeMap<usize, BTreeSet<Key>>,
    complete: BTreeSet<usize>,
}

impl Seen {
    /// Returns whether every kind was listed once.
    pub fn everything(&self) -> bool {
        self.complete.len() == WATCHED.len()
    }

    /// A list begins.
    pub fn begin(&mut self, watch: usize) {
        self.listing.insert(watch, BTreeSet::new());
    }

    /// The list has an object.
    pub fn listed(&mut self, watch: usize, key: Key) {
        self.listing.entry(watch).or_default().insert(key);
    }

    /// The list ends; returns what was in it.
    pub fn end(&mut self, watch: usize) -> BTreeSet<Key> {
        self.complete.insert(watch);
        self.listing.remove(&watch).unwrap_or_default()
    }
}
