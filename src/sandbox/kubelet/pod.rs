//! One pod on a node: its containers in order, its end, and what is to be written of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    container::{Container, Host, Role, State},
    runtime::ProbeId,
    status::Facts,
};
use crate::sandbox::{
    cache::Key,
    faults::{Behaviour, Faults},
    value,
    write::Write,
};

/// A pod that the kubelet looks after.
#[derive(Debug)]
pub struct Pod {
    object: Arc<Value>,
    since: Timestamp,
    containers: Vec<(Container, Behaviour)>,
    address: Option<String>,
    /// The status that was sent last, and the resource version that it replaced: never sent twice.
    sent: Option<(String, Value)>,
    removal_sent: bool,
    ended: bool,
}

impl Pod {
    /// Takes a pod over.
    pub fn new(object: &Arc<Value>, now: Timestamp) -> Self {
        let of = |list: &str, is_init: bool| {
            let specs = value::items(object, &["spec", list]).iter();
            specs.map(move |spec| (Container::new(object, spec, is_init), Behaviour::default())).collect::<Vec<_>>()
        };
        let mut containers = of("initContainers", true);
        containers.extend(of("containers", false));
        Self {
            object: object.clone(),
            since: now,
            containers,
            address: None,
            sent: None,
            removal_sent: false,
            ended: false,
        }
    }

    /// Returns the pod as last seen.
    pub fn object(&self) -> &Arc<Value> {
        &self.object
    }

    /// Takes in the pod's newest state.
    pub fn observe(&mut self, object: &Arc<Value>) {
        self.object = object.clone();
    }

    /// Forgets what was sent: it was refused.
    pub fn forget_sent(&mut self) {
        self.sent = None;
        self.removal_sent = false;
        self.ended = false;
    }

    /// Takes the answer to a probe.
    pub fn take_answer(&mut self, id: &ProbeId, well: bool) {
        if let Some((container, _)) = self.containers.iter_mut().find(|(it, _)| it.name == id.container) {
            container.take_answer(id, well);
        }
    }

    /// Ends all containers at once, as when the node goes.
    pub fn lose(&mut self, host: &mut Host<'_>) {
        let uid = value::uid(&self.object);
        self.containers.iter_mut().for_each(|(container, _)| container.lose(uid, host));
    }

    /// Lets the pod run to `host.now`. Returns what is to be written, and when to come again.
    pub fn advance(&mut self, faults: &Faults, host: &mut Host<'_>) -> (Vec<Write>, Option<Timestamp>) {
        if self.ended || is_over(&self.object) && !value::is_terminating(&self.object) {
            return (Vec::new(), None);
        }
        let object = self.object.clone();
        if self.address.is_none() {
            self.address = Some(host.runtime.address(value::uid(&object)));
        }
        for (container, behaviour) in &mut self.containers {
            let image = spec_of(&object, container).0;
            image.clone_into(&mut container.wanted);
            let told = faults.of_container(&object, image);
            if told != *behaviour {
                *behaviour = told;
                container.behave(value::uid(&object), behaviour, host);
            }
        }
        if value::is_terminating(&object) {
            self.stop_all(host);
        } else if self.is_out_of_work() {
            self.stop_sidecars(host);
        }
        let wake = self.advance_containers(&object, host);
        (self.writes(host), wake)
    }

    fn advance_containers(&mut self, object: &Value, host: &mut Host<'_>) -> Option<Timestamp> {
        let mut may_start = !value::is_terminating(object) && !self.is_out_of_work();
        let mut wake: Option<Timestamp> = None;
        for (container, behaviour) in &mut self.containers {
            // Once its containers have run, a pod does not go back to initialising.
            let turn =
                may_start || container.role == Role::Main && container.runs > 0 && !value::is_terminating(object);
            container.advance(object, spec_of(object, container).1, behaviour, turn, host);
            if let Some(due) = container.next_due(behaviour, turn, host) {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
            may_start &= match container.role {
                Role::Init => container.has_succeeded(),
                Role::Sidecar => container.is_started(),
                Role::Main => true,
            };
        }
        wake
    }

    /// Returns whether all main containers ended for good.
    fn is_out_of_work(&self) -> bool {
        self.containers.iter().filter(|(it, _)| it.role == Role::Main).all(|(it, _)| it.is_done())
    }

    fn stop_sidecars(&mut self, host: &mut Host<'_>) {
        let (object, until) = (self.object.clone(), host.now + host.pace.stop);
        let sidecars = self.containers.iter_mut().filter(|(it, _)| it.role == Role::Sidecar);
        sidecars.for_each(|(container, _)| container.ask_to_stop(&object, 0, until, host));
    }

    /// Asks all containers to stop, each as fast as the pace and its `preStop` sleep say, but by the deadline.
    fn stop_all(&mut self, host: &mut Host<'_>) {
        let object = self.object.clone();
        let deadline = value::time(&object, &["metadata", "deletionTimestamp"]).unwrap_or(host.now);
        for (container, _) in &mut self.containers {
            let spec = spec_of(&object, container).1;
            let sleep = value::number(spec, &["lifecycle", "preStop", "sleep", "seconds"]);
            let wait = host.pace.stop + Duration::from_secs(u64::try_from(sleep).unwrap_or_default());
            container.ask_to_stop(&object, 0, (host.now + wait).min(deadline.max(host.now)), host);
        }
    }

    fn writes(&mut self, host: &mut Host<'_>) -> Vec<Write> {
        let is_gone = value::is_terminating(&self.object) && !self.containers.iter().any(|(it, _)| it.is_running());
        if is_gone {
            // What ended because the pod goes stays ended.
            for (container, _) in &mut self.containers {
                if container.last.is_some() {
                    container.state = State::Ended;
                }
            }
        }
        let facts = Facts {
            pod: &self.object,
            containers: &self.containers,
            node: host.node,
            address: self.address.as_deref(),
            since: self.since,
            pace: host.pace,
            now: host.now,
        };
        let status = facts.status();
        let mut writes = Vec::new();
        let version = value::text(&self.object, &["metadata", "resourceVersion"]).to_owned();
        let sent = (version, status);
        let written = self.object.get("status");
        let is_kept = written.is_none_or(|status| status.get("observedGeneration").is_some());
        let is_new = if is_kept { written != Some(&sent.1) } else { written != Some(&without_generations(&sent.1)) };
        if is_new && self.sent.as_ref() != Some(&sent) {
            writes.extend(Write::status(&self.object, sent.1.clone()));
            self.sent = Some(sent);
        }
        if is_gone && !self.removal_sent {
            self.removal_sent = true;
            writes.push(Write::remove_pod(Key::of(&Arc::from("pods"), &self.object), &self.object));
        }
        if is_gone {
            self.ended = true;
            host.runtime.release(value::uid(&self.object));
        }
        writes
    }

    /// Stops what still runs of a pod that is gone from the API server.
    pub fn clean_up(&mut self, host: &mut Host<'_>) {
        self.lose(host);
        host.runtime.release(value::uid(&self.object));
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(value::text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Returns a container's image and its part of the pod.
fn spec_of<'a>(pod: &'a Value, container: &Container) -> (&'a str, &'a Value) {
    let list = if container.role == Role::Main { "containers" } else { "initContainers" };
    let spec = value::items(pod, &["spec", list]).iter().find(|spec| spec["name"] == *container.name);
    let spec = spec.unwrap_or(&Value::Null);
    (value::text(spec, &["image"]), spec)
}

/// A status as an API server before 1.34 keeps it: told again and again what it drops, it would never be as wanted.
fn without_generations(status: &Value) -> Value {
    let mut status = status.clone();
    let drop = |value: &mut Value| value.as_object_mut().and_then(|members| members.remove("observedGeneration"));
    drop(&mut status);
    status["conditions"].as_array_mut().into_iter().flatten().for_each(|condition| drop(condition).map_or((), |_| ()));
    status
}
