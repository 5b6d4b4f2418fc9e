//! The kubelet: runs the pods of the sandbox's nodes.
//!
//! It is a state machine. It is shown pods and nodes ([`Kubelet::observe`]), is advanced to a time
//! ([`Kubelet::advance`]) and answers with writes and the time when it wants to be advanced again. So it runs under a
//! virtual clock as well as under a real one, and against whatever API server its owner talks to: the sandbox's own, or
//! any other by [`Remote`]. What a container is stands behind [`Runtime`].

mod container;
mod listener;
mod model;
mod pod;
mod probe;
mod range;
mod remote;
mod runtime;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use self::{container::Host, pod::Pod};
use super::{controllers::pods, faults::Faults, nodes::NodeSpec, pace::Pace, value, write::Write};

pub use listener::ListenerRuntime;
pub use model::ModelRuntime;
pub use range::PodRange;
pub use remote::{Remote, RemoteError, RemoteOptions};
pub use runtime::{ContainerSpec, HttpGet, Manner, ProbeId, ProbeKind, Runtime};

/// The namespace of the nodes' leases.
pub const LEASES: &str = "kube-node-lease";

struct Node {
    spec: NodeSpec,
    object: Option<Arc<Value>>,
    lease: Option<Arc<Value>>,
    /// When it comes back to its object and lease.
    due: Timestamp,
    /// It was cut off: its containers are gone.
    lost: bool,
}

/// Runs the pods of its nodes.
pub struct Kubelet {
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Pod>,
    due: BTreeMap<String, Timestamp>,
    gone: Vec<Pod>,
    images: BTreeSet<(String, String)>,
    runtime: Box<dyn Runtime>,
    pace: Pace,
    faults_seen: u64,
}

impl Kubelet {
    /// Starts a kubelet for nodes, which it creates where they are missing.
    pub fn new(nodes: Vec<NodeSpec>, pace: Pace, runtime: Box<dyn Runtime>) -> Self {
        let node = |spec: NodeSpec| {
            let due = Timestamp::MIN;
            (spec.name.clone(), Node { spec, object: None, lease: None, due, lost: false })
        };
        Self {
            nodes: nodes.into_iter().map(node).collect(),
            pods: BTreeMap::new(),
            due: BTreeMap::new(),
            gone: Vec::new(),
            images: BTreeSet::new(),
            runtime,
            pace,
            faults_seen: 0,
        }
    }

    /// Is shown a change of any object; it takes what is its own.
    pub fn observe(&mut self, resource: &str, before: Option<&Arc<Value>>, now: Option<&Arc<Value>>, at: Timestamp) {
        let Some(object) = now.or(before) else { return };
        match resource {
            "pods" => self.observe_pod(object, now.is_some(), at),
            "nodes" => {
                if let Some(node) = self.nodes.get_mut(value::name(object)) {
                    node.object = now.cloned();
                    if node.object.as_ref().is_none_or(|object| !pods::holds(object, "Ready")) {
                        node.due = at;
                    }
                }
            }
            "leases.coordination.k8s.io" if value::namespace(object) == LEASES => {
                if let Some(node) = self.nodes.get_mut(value::name(object)) {
                    node.lease = now.cloned();
                }
            }
            _ => {}
        }
    }

    fn observe_pod(&mut self, object: &Arc<Value>, exists: bool, at: Timestamp) {
        let uid = value::uid(object);
        if !exists {
            self.due.remove(uid);
            self.gone.extend(self.pods.remove(uid));
        } else if let Some(pod) = self.pods.get_mut(uid) {
            pod.observe(object);
            self.due.insert(uid.to_owned(), at);
        } else if self.nodes.contains_key(value::text(object, &["spec", "nodeName"])) {
            self.pods.insert(uid.to_owned(), Pod::new(object, at));
            self.due.insert(uid.to_owned(), at);
        }
    }

    /// Returns when it is to be advanced again.
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.gone.is_empty() {
            return Some(Timestamp::MIN);
        }
        let nodes = self.nodes.values().filter(|node| !node.lost).map(|node| node.due);
        self.due.values().copied().chain(nodes).min().filter(|due| *due < Timestamp::MAX)
    }

    /// Returns whether answers to probes, or pods that may end now, wait to be taken in.
    pub fn has_answers(&self) -> bool {
        self.runtime.has_answers()
    }

    /// Runs everything to `now`, and returns what is to be written.
    pub fn advance(&mut self, now: Timestamp, faults: &Faults) -> Vec<Write> {
        for (id, well) in self.runtime.answers() {
            if let Some(pod) = self.pods.get_mut(&id.pod_uid) {
                pod.take_answer(&id, well);
                self.due.insert(id.pod_uid, now);
            }
        }
        for uid in self.runtime.idle().into_iter().filter(|uid| self.pods.contains_key(uid)) {
            self.due.insert(uid, now);
        }
        if faults.revision() != self.faults_seen {
            self.faults_seen = faults.revision();
            self.due.extend(self.pods.keys().map(|uid| (uid.clone(), now)));
            self.nodes.values_mut().for_each(|node| node.due = now);
        }
        self.clean_up(now);
        let mut writes = self.advance_nodes(now, faults);
        let due: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            self.due.remove(&uid);
            writes.extend(self.advance_pod(&uid, now, faults));
        }
        writes
    }

    fn clean_up(&mut self, now: Timestamp) {
        for mut pod in std::mem::take(&mut self.gone) {
            let Some(node) = self.nodes.get(value::text(pod.object(), &["spec", "nodeName"])) else { continue };
            let runtime = self.runtime.as_mut();
            pod.clean_up(&mut Host { now, pace: &self.pace, runtime, images: &mut self.images, node: &node.spec });
        }
    }

    fn advance_pod(&mut self, uid: &str, now: Timestamp, faults: &Faults) -> Vec<Write> {
        let Some(pod) = self.pods.get_mut(uid) else { return Vec::new() };
        let Some(node) = self.nodes.get(value::text(pod.object(), &["spec", "nodeName"])) else { return Vec::new() };
        let runtime = self.runtime.as_mut();
        let mut host = Host { now, pace: &self.pace, runtime, images: &mut self.images, node: &node.spec };
        if faults.is_node_down(&node.spec.name) {
            pod.lose(&mut host);
            return Vec::new();
        }
        if faults.is_kubelet_stopped(&node.spec.name) {
            return Vec::new();
        }
        let (writes, wake) = pod.advance(faults, &mut host);
        if let Some(wake) = wake {
            self.due.insert(uid.to_owned(), wake);
        }
        writes
    }

    fn advance_nodes(&mut self, now: Timestamp, faults: &Faults) -> Vec<Write> {
        let mut writes = Vec::new();
        for node in self.nodes.values_mut() {
            node.lost = faults.is_kubelet_stopped(&node.spec.name);
            if node.lost || node.due > now {
                continue;
            }
            node.due = Timestamp::MAX;
            match &node.object {
                None => {
                    // Asked again until the object is seen.
                    node.due = now + Duration::from_secs(1);
                    writes.push(Write::Create(node.spec.object(now)));
                    continue;
                }
                Some(object) if !pods::holds(object, "Ready") => writes.push(ready_again(object, &node.spec, now)),
                Some(_) => {}
            }
            if let Some(period) = self.pace.heartbeat {
                node.due = now + period;
                writes.push(renewed(node.lease.as_deref(), &node.spec.name, now));
            }
        }
        writes
    }

    /// Is told that a write was refused: it is tried again.
    pub fn refused(&mut self, write: &Write, now: Timestamp) {
        let uid = match write {
            Write::Status(object) => value::uid(object),
            Write::Delete { uid, .. } => uid,
            _ => return,
        };
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.forget_sent();
            self.due.insert(uid.to_owned(), now + Duration::from_secs(1));
        }
    }
}

fn ready_again(object: &Value, spec: &NodeSpec, now: Timestamp) -> Write {
    let mut object = object.clone();
    let mut conditions = value::items(&object, &["status", "conditions"]).to_vec();
    let fresh = spec.object(now);
    for condition in value::items(&fresh, &["status", "conditions"]) {
        pods::set_condition(&mut conditions, condition.clone(), now);
    }
    if value::at(&object, &["status", "allocatable"]).is_none() {
        value::set(&mut object, &["status"], fresh["status"].clone());
    }
    value::set(&mut object, &["status", "conditions"], conditions);
    Write::Status(object)
}

fn renewed(lease: Option<&Value>, node: &str, now: Timestamp) -> Write {
    let renew = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    match lease {
        Some(lease) => {
            let mut lease = lease.clone();
            value::set(&mut lease, &["spec", "renewTime"], renew);
            Write::Update(lease)
        }
        None => Write::Create(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": node, "namespace": LEASES},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": renew},
        })),
    }
}
