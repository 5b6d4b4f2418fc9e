//! What the kubelet says of a pod, in the shape that the real one writes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::container::{Container, Ended, Role, State, back_off_shown};
use crate::sandbox::{
    api::qos_class,
    controllers::pods::{condition, set_condition},
    faults::Behaviour,
    nodes::NodeSpec,
    pace::Pace,
    value,
};

/// What a status is made of.
pub struct Facts<'a> {
    /// The pod as last seen.
    pub pod: &'a Value,
    /// Its containers, init containers first, each with its behaviour.
    pub containers: &'a [(Container, Behaviour)],
    /// Its node.
    pub node: &'a NodeSpec,
    /// Its address, once it has one.
    pub address: Option<&'a str>,
    /// When the kubelet saw it first.
    pub since: Timestamp,
    /// How long things take.
    pub pace: &'a Pace,
    /// The time.
    pub now: Timestamp,
}

impl Facts<'_> {
    /// Builds the status: what others wrote stays.
    pub fn status(&self) -> Value {
        let mut status = match value::at(self.pod, &["status"]) {
            Some(Value::Object(status)) => status.clone(),
            _ => Map::new(),
        };
        let phase = self.phase();
        status.insert("phase".into(), phase.into());
        status.insert("hostIP".into(), self.node.address.as_str().into());
        status.insert("hostIPs".into(), json!([{"ip": self.node.address}]));
        if let Some(address) = self.address {
            status.insert("podIP".into(), address.into());
            status.insert("podIPs".into(), json!([{"ip": address}]));
        }
        status.entry("startTime").or_insert_with(|| value::stamp(self.since));
        status.entry("qosClass").or_insert_with(|| qos_class(self.pod).into());
        if let Some(generation) = value::at(self.pod, &["metadata", "generation"]) {
            status.insert("observedGeneration".into(), generation.clone());
        }
        let of = |is_init: bool| {
            let listed = self.containers.iter().filter(|(it, _)| (it.role != Role::Main) == is_init);
            listed.map(|(container, behaviour)| self.container_status(container, behaviour)).collect::<Vec<_>>()
        };
        let init = of(true);
        if !init.is_empty() {
            status.insert("initContainerStatuses".into(), init.into());
        }
        status.insert("containerStatuses".into(), of(false).into());
        status.insert("conditions".into(), self.conditions(phase).into());
        Value::Object(status)
    }

    fn with_role(&self, is_init: bool) -> impl Iterator<Item = &Container> {
        self.containers.iter().map(|(it, _)| it).filter(move |it| (it.role != Role::Main) == is_init)
    }

    fn is_initialised(&self) -> bool {
        self.with_role(true).all(|it| if it.role == Role::Init { it.has_succeeded() } else { it.is_started() })
    }

    fn phase(&self) -> &'static str {
        if self.with_role(true).any(|it| it.role == Role::Init && it.is_done() && !it.has_succeeded()) {
            return "Failed";
        }
        let ran_before = self.with_role(false).any(|it| it.runs > 0);
        if !ran_before && !self.is_initialised() {
            return "Pending";
        }
        if self.with_role(false).any(|it| it.runs == 0 && !it.is_done()) {
            return "Pending";
        }
        if !self.with_role(false).all(Container::is_done) {
            return "Running";
        }
        if self.with_role(false).all(Container::has_succeeded) { "Succeeded" } else { "Failed" }
    }

    fn conditions(&self, phase: &str) -> Vec<Value> {
        let mut conditions = value::items(self.pod, &["status", "conditions"]).to_vec();
        let finished = matches!(phase, "Succeeded" | "Failed");
        let unready: Vec<&str> = self
            .containers
            .iter()
            .filter(|(it, behaviour)| it.role != Role::Init && !it.is_ready(behaviour, self.pace, self.now))
            .map(|(it, _)| it.name.as_str())
            .collect();
        let uninitialised: Vec<&str> =
            self.with_role(true).filter(|it| !is_past(it)).map(|it| it.name.as_str()).collect();
        let containers = if finished {
            Some(("PodCompleted", String::new()))
        } else if unready.is_empty() {
            None
        } else {
            Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
        };
        let ready = containers.clone().or_else(|| self.closed_gate());
        let initialised = (!uninitialised.is_empty() && !finished).then(|| {
            let message = format!("containers with incomplete status: [{}]", uninitialised.join(" "));
            ("ContainersNotInitialized", message)
        });
        let has_sandbox = self.address.is_some() && !finished;
        let wanted = [
            ("PodReadyToStartContainers", (!has_sandbox).then(|| ("", String::new()))),
            ("Initialized", initialised),
            ("Ready", ready),
            ("ContainersReady", containers),
            ("PodScheduled", None),
        ];
        for (kind, failure) in wanted {
            let mut wanted = json!({
                "type": kind,
                "status": if failure.is_none() { "True" } else { "False" },
                "lastProbeTime": null,
                "observedGeneration": value::number(self.pod, &["metadata", "generation"]),
            });
            if let Some((reason, message)) = failure {
                for (member, text) in [("reason", reason), ("message", message.as_str())] {
                    if !text.is_empty() {
                        wanted[member] = text.into();
                    }
                }
            }
            set_condition(&mut conditions, wanted, self.now);
        }
        conditions
    }

    /// A readiness gate whose condition is absent or not `True` keeps the pod from being ready.
    fn closed_gate(&self) -> Option<(&'static str, String)> {
        let gates = value::items(self.pod, &["spec", "readinessGates"]).iter();
        let complaint = |gate: &Value| {
            let kind = value::text(gate, &["conditionType"]);
            match condition(self.pod, kind) {
                None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
                Some(found) if found["status"] != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    value::text(found, &["status"])
                )),
                Some(_) => None,
            }
        };
        let complaints: Vec<String> = gates.filter_map(complaint).collect();
        (!complaints.is_empty()).then(|| ("ReadinessGatesNotReady", complaints.join(", ")))
    }

    fn container_status(&self, container: &Container, behaviour: &Behaviour) -> Value {
        let uid = value::uid(self.pod);
        let shown = container.is_running() || container.is_done();
        let mut last = container.last.as_ref();
        if container.is_done() {
            last = None;
        }
        let ready = match container.role {
            Role::Init => container.has_succeeded(),
            _ => container.is_ready(behaviour, self.pace, self.now),
        };
        let mut status = json!({
            "name": container.name,
            "state": self.state(container),
            "lastState": last.map(|last| json!({"terminated": terminated(uid, container, last)})).unwrap_or(json!({})),
            "ready": ready,
            "restartCount": container.runs.saturating_sub(1),
            "image": container.image,
            "imageID": if container.runs > 0 { image_id(&container.image) } else { String::new() },
            "started": container.is_started(),
        });
        if container.runs > 0 {
            let run = if shown { container.runs } else { container.last.as_ref().map_or(container.runs, |it| it.run) };
            status["containerID"] = container_id(uid, &container.name, run).into();
        }
        status
    }

    fn state(&self, container: &Container) -> Value {
        let waiting = |reason: &str, message: String| {
            if message.is_empty() {
                json!({"waiting": {"reason": reason}})
            } else {
                json!({"waiting": {"reason": reason, "message": message}})
            }
        };
        match &container.state {
            State::Waiting if self.with_role(true).next().is_some() => waiting("PodInitializing", String::new()),
            State::Waiting | State::Pulling { .. } | State::Starting { .. } => {
                waiting("ContainerCreating", String::new())
            }
            State::PullFailed { at, .. } if self.now < back_off_shown(*at) => {
                let image = &container.image;
                waiting("ErrImagePull", format!("failed to pull and unpack image \"{image}\": not found"))
            }
            State::PullFailed { .. } => {
                waiting("ImagePullBackOff", format!("Back-off pulling image \"{}\"", container.image))
            }
            State::Running { since } | State::Stopping { since, .. } => {
                json!({"running": {"startedAt": value::stamp(*since)}})
            }
            State::Ended => match &container.last {
                Some(last) => json!({"terminated": terminated(value::uid(self.pod), container, last)}),
                None => waiting("ContainerCreating", String::new()),
            },
            State::BackOff { error: Some(error), .. } => waiting("RunContainerError", error.clone()),
            State::BackOff { retry, .. } => {
                let wait = container.last.as_ref().map_or(0, |last| retry.duration_since(last.finished).as_secs());
                let name = &container.name;
                waiting("CrashLoopBackOff", format!("back-off {wait}s restarting failed container={name}"))
            }
        }
    }
}

fn is_past(container: &Container) -> bool {
    if container.role == Role::Init { container.has_succeeded() } else { container.is_started() }
}

fn terminated(uid: &str, container: &Container, ended: &Ended) -> Value {
    json!({
        "exitCode": ended.code,
        "reason": if ended.code == 0 { "Completed" } else { "Error" },
        "startedAt": value::stamp(ended.started),
        "finishedAt": value::stamp(ended.finished),
        "containerID": container_id(uid, &container.name, ended.run),
    })
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn container_id(uid: &str, name: &str, run: u32) -> String {
    format!("containerd://{}", hex(&format!("{uid}/{name}/{run}")))
}

/// The same for the same image on every node: its digest where it names one, a hash of its name where not.
fn image_id(image: &str) -> String {
    if image.contains('@') {
        return image.to_owned();
    }
    let name = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image, |(name, _)| name);
    format!("{name}@sha256:{}", hex(image))
}
