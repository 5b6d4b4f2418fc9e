//! A workload as the cluster shows it: its handle, its slices, their pods.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{labels, render::Maker, view::View};
use crate::core::{
    cluster::ObjectKey,
    manifest::Object,
    names::{AppName, Unit},
};

/// A pod of a slice.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    /// The object.
    pub object: &'a Object,
    /// Its version: the digest label.
    pub digest: &'a str,
    /// Its unit.
    pub unit: Unit,
    /// Since when it passes its probes; where a gate of ours lets requests in, since when it does.
    pub ready_since: Option<Timestamp>,
    /// How its readiness gate of ours is; `None` where it has none.
    pub gate: Option<Gate>,
    /// Whether its label lets Services send it requests.
    pub labelled: bool,
    /// Whether an EndpointSlice names it, those of Services that publish everything aside; of a pod with a gate, also those
    /// that say that it is not ready.
    pub served: bool,
    /// Since when no node has room for it.
    pub unschedulable_since: Option<Timestamp>,
}

/// How a pod's readiness gate [`GATE`](labels::GATE) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Whether its condition lets requests in. One that nobody has set yet does not.
    pub open: bool,
    /// Whether the kubelet says that the pod is ready: requests come in.
    pub passed: bool,
}

impl<'a> Pod<'a> {
    fn read(object: &'a Object, view: &View) -> Self {
        let condition = |name: &str| {
            let conditions = object.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
            conditions.into_iter().find(|condition| condition["type"] == name)
        };
        let since = |condition: &Value| condition["lastTransitionTime"].as_str()?.parse().ok();
        let is_true = |name: &str| condition(name).filter(|condition| condition["status"] == "True");
        let ready = is_true("Ready");
        let gates = object.at(&["spec", "readinessGates"]).and_then(Value::as_array).into_iter().flatten();
        let (own, others): (Vec<&str>, Vec<&str>) =
            gates.filter_map(|gate| gate["conditionType"].as_str()).partition(|name| *name == labels::GATE);
        let gate = (!own.is_empty()).then(|| Gate { open: is_true(labels::GATE).is_some(), passed: ready.is_some() });
        // Closed by us, it is as well as its containers and the gates of others are.
        let passes = || is_true("ContainersReady").filter(|_| others.iter().all(|name| is_true(name).is_some()));
        let ready = ready.or_else(|| gate.and_then(|_| passes()));
        let unschedulable = condition("PodScheduled")
            .filter(|condition| condition["status"] == "False" && condition["reason"] == "Unschedulable");
        let served = view.serving(object.uid()).any(|slice| {
            let service = slice.label("kubernetes.io/service-name").unwrap_or_default();
            let service = view.get("", "Service", slice.namespace(), service);
            let is_sent_to = gate.is_none() || sends_to(slice, object.uid());
            is_sent_to && !service.is_some_and(publishes_everything)
        });
        Self {
            object,
            digest: object.label(labels::DIGEST).unwrap_or_default(),
            unit: Unit::new(object.label(labels::UNIT).unwrap_or_default()),
            ready_since: ready.and_then(since),
            gate,
            labelled: object.label(labels::IN_SERVICE) == Some("true"),
            served,
            unschedulable_since: unschedulable.and_then(since),
        }
    }

    /// Returns whether the pod passes its probes and is not going.
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some() && !self.object.is_terminating()
    }

    /// Returns whether the pod passed its probes for long enough, is in service and is not going.
    pub fn is_available(&self, now: Timestamp, min_ready: SignedDuration) -> bool {
        self.is_in_service() && self.ready_since.is_some_and(|since| since + min_ready <= now)
    }

    /// Returns whether the pod passes its probes, may get requests by its label and its gate, and is not going.
    pub fn is_in_service(&self) -> bool {
        self.labelled && self.gate.is_none_or(|gate| gate.passed) && self.is_ready()
    }

    /// Returns the digest it is being drained for, or "away".
    pub fn moving_to(&self) -> Option<&'a str> {
        self.object.annotation(labels::MOVING)
    }

    /// Returns the time in one of its annotations.
    pub fn time(&self, annotation: &str) -> Option<Timestamp> {
        self.object.annotation(annotation)?.parse().ok()
    }

    /// Returns its finalizers.
    pub fn finalizers(&self) -> impl Iterator<Item = &'a str> {
        let list = self.object.at(&["metadata", "finalizers"]).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str)
    }

    /// Returns each container as `id#restarts`, by name, sidecars included.
    pub fn containers(&self) -> BTreeMap<String, String> {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists.iter().filter_map(|list| self.object.at(&["status", list])?.as_array()).flatten();
        statuses
            .filter_map(|status| {
                let id = status["containerID"].as_str().unwrap_or_default();
                let restarts = status["restartCount"].as_i64().unwrap_or(0);
                Some((status["name"].as_str()?.to_owned(), format!("{id}#{restarts}")))
            })
            .collect()
    }

    /// Returns the image that the spec asks for, by container name, init containers included.
    pub fn images(&self) -> BTreeMap<&'a str, &'a str> {
        images(&self.object.0["spec"])
    }

    /// Returns whether the kubelet has seen what the spec asks for now.
    pub fn is_observed(&self) -> bool {
        let generation = self.object.number(&["metadata", "generation"]);
        let observed = self.object.number(&["status", "observedGeneration"]);
        match (generation, observed) {
            (Some(generation), Some(observed)) => observed >= generation,
            // Before 1.34 nobody keeps the generation that the kubelet has seen, and before 1.33 none is counted: the
            // containers' ids tell.
            _ => true,
        }
    }

    /// Returns what keeps it from being ready, in the kubelet's or scheduler's words.
    pub fn trouble(&self) -> Option<String> {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists.iter().filter_map(|list| self.object.at(&["status", list])?.as_array()).flatten();
        for status in statuses {
            let waiting = &status["state"]["waiting"];
            let reason = waiting["reason"].as_str().unwrap_or_default();
            let image = status["image"].as_str().unwrap_or_default();
            match reason {
                "" | "ContainerCreating" | "PodInitializing" => {}
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                    return Some(format!("image {image} cannot be pulled"));
                }
                "CrashLoopBackOff" => return Some(format!("container {} keeps crashing", status["name"])),
                other => return Some(format!("container {}: {other}", status["name"])),
            }
        }
        if self.unschedulable_since.is_some() {
            return Some("no node has room for it".to_owned());
        }
        (!self.is_ready()).then(|| "not ready".to_owned())
    }
}

/// Returns the images in a pod spec, by container name.
pub fn images(spec: &Value) -> BTreeMap<&str, &str> {
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().filter_map(|list| spec.get(list)?.as_array()).flatten();
    containers.filter_map(|container| Some((container["name"].as_str()?, container["image"].as_str()?))).collect()
}

/// Returns whether a slice lets requests go to a pod that it names.
fn sends_to(slice: &Object, pod: &str) -> bool {
    let endpoints = slice.at(&["endpoints"]).and_then(Value::as_array).into_iter().flatten();
    let mut of_it = endpoints.filter(|endpoint| endpoint["targetRef"]["uid"] == pod);
    // What is not said is taken as yes, as proxies do.
    of_it.any(|endpoint| endpoint["conditions"]["serving"] != false)
}

fn publishes_everything(service: &Object) -> bool {
    service.at(&["spec", "publishNotReadyAddresses"]) == Some(&Value::Bool(true))
}

/// A slice: the pods of one workload in one unit, of one workload digest. A StatefulSet or a DaemonSet is its own only one.
#[derive(Clone, Debug)]
pub struct Slice<'a> {
    /// The ReplicaSet; the StatefulSet or DaemonSet.
    pub object: &'a Object,
    /// Its unit.
    pub unit: Unit,
    /// Its digest label: what its template makes.
    pub digest: &'a str,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Its pods that are not on their way out, by name.
    pub pods: Vec<Pod<'a>>,
    /// Of each of its pods that is on its way out: since when, where it says so.
    pub terminating: Vec<Option<Timestamp>>,
}

impl<'a> Slice<'a> {
    fn read(object: &'a Object, digest: Option<&'a str>, pods: Vec<&'a Object>, view: &'a View) -> Self {
        let (going, staying): (Vec<&Object>, Vec<&Object>) =
            pods.into_iter().partition(|pod| pod.is_terminating() || is_finished(pod));
        Self {
            object,
            unit: Unit::new(object.label(labels::UNIT).unwrap_or_default()),
            digest: digest.unwrap_or_default(),
            replicas: replicas_of(object),
            pods: staying.into_iter().map(|pod| Pod::read(pod, view)).collect(),
            terminating: going.iter().map(|pod| pod.time(&["metadata", "deletionTimestamp"])).collect(),
        }
    }

    /// Returns why the ReplicaSet controller cannot make pods, in the API server's words: a quota, a policy.
    pub fn refusal(&self) -> Option<&str> {
        let conditions = self.object.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
        let mut failures =
            conditions.into_iter().filter(|one| one["type"] == "ReplicaFailure" && one["status"] == "True");
        failures.next()?["message"].as_str()
    }

    /// Returns the hash that tells its pods apart.
    pub fn hash(&self) -> &str {
        self.object.label(labels::SLICE).unwrap_or_default()
    }

    /// Returns whether the ReplicaSet controller has seen what the spec asks for.
    pub fn is_observed(&self) -> bool {
        let generation = self.object.number(&["metadata", "generation"]).unwrap_or(0);
        self.object.number(&["status", "observedGeneration"]).unwrap_or(0) >= generation
    }
}

/// A ReplicaSet that the Deployment controller made from the handle's template: it is no slice.
#[derive(Clone, Debug)]
pub struct Native<'a> {
    /// The ReplicaSet.
    pub object: &'a Object,
    /// `spec.replicas`.
    pub replicas: u32,
    /// How many pods it has.
    pub pods: usize,
}

/// A workload as the cluster shows it.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The Deployment, StatefulSet or DaemonSet.
    pub handle: Option<&'a Object>,
    /// Its slices, by unit and name.
    pub slices: Vec<Slice<'a>>,
    /// What the Deployment controller made beside them, by name.
    pub natives: Vec<Native<'a>>,
    /// A pod whose slice is not among them: slices are listed older than pods, or somebody changed labels.
    pub stray: Option<&'a Object>,
}

impl<'a> Observed<'a> {
    /// Reads a workload from the cache.
    pub fn read(view: &'a View, app: &AppName, workload: &ObjectKey) -> Self {
        let label = labels::label_value(&workload.name);
        let of_it = |object: &&Object| {
            object.namespace() == workload.namespace && object.label(labels::WORKLOAD) == Some(label.as_str())
        };
        let owner = match Maker::of(workload) {
            Maker::Slices => "ReplicaSet",
            Maker::Ordinals => "StatefulSet",
            Maker::Nodes => "DaemonSet",
        };
        let mut pods: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        for pod in view.of_app(app, "Pod").filter(|pod| of_it(pod)) {
            if let Some((kind, _, uid)) = pod.controller()
                && kind == owner
            {
                pods.entry(uid).or_default().push(pod);
            }
        }
        let handle = view.by_key(workload);
        let mut slices: Vec<Slice<'a>> = Vec::new();
        let mut natives = Vec::new();
        match Maker::of(workload) {
            Maker::Slices => {
                for object in view.of_app(app, "ReplicaSet").filter(|slice| of_it(slice)) {
                    if object.label(labels::SLICE).is_some() {
                        let all = pods.remove(object.uid()).unwrap_or_default();
                        slices.push(Slice::read(object, object.label(labels::DIGEST), all, view));
                    } else if handle.is_some_and(|handle| is_owned_by(object, handle)) {
                        let pods = pods.remove(object.uid()).unwrap_or_default().len();
                        natives.push(Native { object, replicas: replicas_of(object), pods });
                    }
                }
            }
            Maker::Ordinals | Maker::Nodes => slices.extend(handle.map(|set| {
                let template = set.at(&["spec", "template", "metadata", "labels", labels::DIGEST]);
                let all = pods.remove(set.uid()).unwrap_or_default();
                Slice::read(set, template.and_then(Value::as_str), all, view)
            })),
        }
        slices.sort_by(|a, b| (&a.unit, a.object.name()).cmp(&(&b.unit, b.object.name())));
        let stays = |pod: &&&Object| !pod.is_terminating() && !is_finished(pod) && pod.label(labels::DIGEST).is_some();
        let stray = pods.values().flatten().find(stays).copied();
        Self { handle, slices, natives, stray }
    }

    /// Returns the objects that keep a version's pods from being the last that reads its configuration: its slices, or
    /// a StatefulSet's or DaemonSet's revisions, which its controller keeps as long as it may go back to them.
    pub fn keepers(&self, view: &'a View, app: &AppName, digest: &str) -> Vec<&'a Object> {
        let is_of = |object: &&Object| object.label(labels::DIGEST) == Some(digest) && !object.is_terminating();
        match self.handle.filter(|handle| handle.key().kind != "Deployment") {
            None => self.slices.iter().map(|slice| slice.object).filter(is_of).collect(),
            Some(set) => {
                let revisions = view.of_app(app, "ControllerRevision").filter(is_of);
                revisions.filter(|it| it.controller().is_some_and(|(_, _, uid)| uid == set.uid())).collect()
            }
        }
    }

    /// Returns every pod that is not on its way out.
    pub fn pods(&self) -> impl Iterator<Item = &Pod<'a>> {
        self.slices.iter().flat_map(|slice| &slice.pods)
    }

    /// Returns the slices of one unit.
    pub fn in_unit<'b>(&'b self, unit: &'b Unit) -> impl Iterator<Item = &'b Slice<'a>> {
        self.slices.iter().filter(move |slice| slice.unit == *unit)
    }
}

/// Returns whether an object's controller is this one.
pub(super) fn is_owned_by(object: &Object, owner: &Object) -> bool {
    object.controller().is_some_and(|(_, _, uid)| uid == owner.uid())
}

fn replicas_of(object: &Object) -> u32 {
    object.number(&["spec", "replicas"]).and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

/// Returns whether a pod has ended.
pub(super) fn is_finished(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed")
}
