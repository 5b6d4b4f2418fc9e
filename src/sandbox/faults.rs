//! Faults on command: which containers, nodes and controllers misbehave, and how.
//!
//! They come from three sides: in process ([`Faults::add`]), from a person through the ConfigMap
//! `locktender-sandbox-faults` in `kube-system`, and by convention from the end of an image's tag (`-bad-image`,
//! `-crash`, `-never-ready`, `-slow`, `-5xx`, `-sick`) or the pod's annotation `locktender.dev/sandbox-fault`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::value;

/// The ConfigMap by which a person sets faults.
pub const CONFIG_MAP: (&str, &str) = ("kube-system", "locktender-sandbox-faults");

/// The annotation of a pod by which its containers misbehave.
pub const ANNOTATION: &str = "locktender.dev/sandbox-fault";

/// How a container misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its image cannot be pulled.
    BadImage,
    /// It ends soon after each start.
    Crash,
    /// Its readiness probe fails.
    NeverReady,
    /// It is ready only after this long; `None` takes the sandbox's pace.
    Slow(Option<Duration>),
    /// It answers requests with 500; its probes still succeed.
    ServerErrors,
    /// It fails its liveness probe, where it has one.
    Unhealthy,
    /// Asked whether it is well, it answers that it is not; its probes still succeed.
    Sick,
    /// It ends once, at a time.
    DieAt(Timestamp),
}

impl Fault {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bad-image" => Self::BadImage,
            "crash" => Self::Crash,
            "never-ready" => Self::NeverReady,
            "slow" => Self::Slow(None),
            "5xx" => Self::ServerErrors,
            "unhealthy" => Self::Unhealthy,
            "sick" => Self::Sick,
            _ => return None,
        })
    }
}

/// Which containers a fault is for: all patterns that are given must match. `*` stands for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// A pattern for the image, `registry.example/checkout:2.*`.
    pub image: Option<String>,
    /// A pattern for the pod's name.
    pub pod: Option<String>,
    /// A pattern for the node's name.
    pub node: Option<String>,
    /// A pattern for the namespace.
    pub namespace: Option<String>,
}

impl Target {
    /// Targets containers whose image matches.
    pub fn image(pattern: impl Into<String>) -> Self {
        Self { image: Some(pattern.into()), ..Self::default() }
    }

    /// Targets pods whose name matches.
    pub fn pod(pattern: impl Into<String>) -> Self {
        Self { pod: Some(pattern.into()), ..Self::default() }
    }

    fn matches(&self, pod: &Value, image: &str) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|it| matches(it, text));
        fits(&self.image, image)
            && fits(&self.pod, value::name(pod))
            && fits(&self.node, value::text(pod, &["spec", "nodeName"]))
            && fits(&self.namespace, value::namespace(pod))
    }
}

/// Returns whether `text` fits `pattern`, in which `*` stands for any text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    rest.is_empty() || (0..=text.len()).any(|at| text.get(at..).is_some_and(|tail| matches(rest, tail)))
}

/// A number by which a fault that was added can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u64);

/// All faults that are asked for.
#[derive(Debug, Default)]
pub struct Faults {
    revision: u64,
    next: u64,
    containers: BTreeMap<FaultId, (Target, Fault)>,
    nodes_down: BTreeSet<String>,
    kubelets_stopped: BTreeSet<String>,
    scheduler_stopped: bool,
    load_balancer_dead: bool,
    commanded: Commanded,
}

/// What the ConfigMap says.
#[derive(Debug, Default, PartialEq)]
struct Commanded {
    containers: Vec<(Target, Fault)>,
    nodes_down: BTreeSet<String>,
    kubelets_stopped: BTreeSet<String>,
    scheduler_stopped: bool,
    load_balancer_dead: bool,
}

impl Faults {
    /// Returns a number that grows with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes containers misbehave.
    pub fn add(&mut self, target: Target, fault: Fault) -> FaultId {
        self.revision += 1;
        self.next += 1;
        let id = FaultId(self.next);
        self.containers.insert(id, (target, fault));
        id
    }

    /// Takes one fault back.
    pub fn remove(&mut self, id: FaultId) {
        self.revision += 1;
        self.containers.remove(&id);
    }

    /// Takes all faults back that were set in process.
    pub fn clear(&mut self) {
        let commanded = std::mem::take(&mut self.commanded);
        *self = Self { revision: self.revision + 1, next: self.next, commanded, ..Self::default() };
    }

    /// Cuts a node off, or brings it back. Its containers are gone with it.
    pub fn set_node_down(&mut self, node: &str, down: bool) {
        self.revision += 1;
        set_member(&mut self.nodes_down, node, down);
    }

    /// Stops a node's kubelet, or starts it again. Its containers run on.
    pub fn set_kubelet_stopped(&mut self, node: &str, stopped: bool) {
        self.revision += 1;
        set_member(&mut self.kubelets_stopped, node, stopped);
    }

    /// Stops the scheduler, or starts it again.
    pub fn set_scheduler_stopped(&mut self, stopped: bool) {
        self.revision += 1;
        self.scheduler_stopped = stopped;
    }

    /// Stops the load balancer's controller, or starts it again.
    pub fn set_load_balancer_dead(&mut self, dead: bool) {
        self.revision += 1;
        self.load_balancer_dead = dead;
    }

    /// Returns whether a node is down.
    pub fn is_node_down(&self, node: &str) -> bool {
        self.nodes_down.contains(node) || self.commanded.nodes_down.contains(node)
    }

    /// Returns whether a node's kubelet does nothing, for whatever reason.
    pub fn is_kubelet_stopped(&self, node: &str) -> bool {
        self.is_node_down(node)
            || self.kubelets_stopped.contains(node)
            || self.commanded.kubelets_stopped.contains(node)
    }

    /// Returns whether the scheduler does nothing.
    pub fn is_scheduler_stopped(&self) -> bool {
        self.scheduler_stopped || self.commanded.scheduler_stopped
    }

    /// Returns whether the load balancer's controller does nothing.
    pub fn is_load_balancer_dead(&self) -> bool {
        self.load_balancer_dead || self.commanded.load_balancer_dead
    }

    /// Returns how a container of `pod` misbehaves.
    pub fn of_container(&self, pod: &Value, image: &str) -> Behaviour {
        let set = self.containers.values().chain(&self.commanded.containers);
        let faults = set.filter(|(target, _)| target.matches(pod, image)).map(|(_, fault)| *fault);
        let annotated = value::annotation(pod, ANNOTATION).and_then(Fault::named);
        let mut behaviour = Behaviour::default();
        faults.chain(annotated).chain(by_tag(image)).for_each(|fault| behaviour.add(fault));
        behaviour
    }

    /// Takes over what the ConfigMap says; `None` when it is gone.
    pub(super) fn command(&mut self, config_map: Option<&Value>) {
        let commanded = config_map.map(Commanded::read).unwrap_or_default();
        if commanded != self.commanded {
            self.revision += 1;
            self.commanded = commanded;
        }
    }
}

fn set_member(set: &mut BTreeSet<String>, member: &str, is: bool) {
    if is {
        set.insert(member.to_owned());
    } else {
        set.remove(member);
    }
}

fn by_tag(image: &str) -> Option<Fault> {
    let tag = image.rsplit_once('/').map_or(image, |(_, name)| name).split('@').next()?.split_once(':')?.1;
    let names = ["bad-image", "crash", "never-ready", "slow", "5xx", "sick"];
    names.into_iter().find(|name| tag.strip_suffix(name).is_some_and(|rest| rest.ends_with('-'))).and_then(Fault::named)
}

impl Commanded {
    /// Reads `data`: the key names the fault (what follows a dot only tells entries apart), the value lists what it is
    /// for: `image=…`, `pod=…`, `node=…`, `namespace=…`, `for=30s`, or names of nodes. Entries that make no sense are
    /// passed over.
    fn read(config_map: &Value) -> Self {
        let mut commanded = Self::default();
        for (name, content) in value::texts(config_map, &["data"]) {
            let nodes = || content.split_whitespace().map(str::to_owned);
            let on = content.trim() == "true";
            match name.split('.').next().unwrap_or_default() {
                "node-down" => commanded.nodes_down.extend(nodes()),
                "kubelet-stopped" => commanded.kubelets_stopped.extend(nodes()),
                "scheduler-stopped" => commanded.scheduler_stopped |= on,
                "load-balancer-dead" => commanded.load_balancer_dead |= on,
                kind => commanded.containers.extend(read_container_fault(kind, &content)),
            }
        }
        commanded
    }
}

fn read_container_fault(kind: &str, content: &str) -> Option<(Target, Fault)> {
    let mut target = Target::default();
    let mut fault = if kind == "die" { None } else { Some(Fault::named(kind)?) };
    for term in content.split_whitespace() {
        let (name, text) = term.split_once('=')?;
        let pattern = Some(text.to_owned());
        match name {
            "image" => target.image = pattern,
            "pod" => target.pod = pattern,
            "node" => target.node = pattern,
            "namespace" => target.namespace = pattern,
            "for" => fault = Some(Fault::Slow(humantime::parse_duration(text).ok())),
            "at" => fault = Some(Fault::DieAt(text.parse().ok()?)),
            _ => return None,
        }
    }
    (target != Target::default()).then_some((target, fault?))
}

/// How one container behaves, all faults taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Its image cannot be pulled.
    pub bad_image: bool,
    /// It ends soon after each start.
    pub crash: bool,
    /// Its readiness probe fails.
    pub never_ready: bool,
    /// It is ready only after this long; the inner `None` takes the sandbox's pace.
    pub slow: Option<Option<Duration>>,
    /// It answers requests with 500.
    pub server_errors: bool,
    /// It fails its liveness probe.
    pub unhealthy: bool,
    /// It answers that it is not well.
    pub sick: bool,
    /// It ends at this time.
    pub die_at: Option<Timestamp>,
}

impl Behaviour {
    fn add(&mut self, fault: Fault) {
        match fault {
            Fault::BadImage => self.bad_image = true,
            Fault::Crash => self.crash = true,
            Fault::NeverReady => self.never_ready = true,
            Fault::Slow(duration) => self.slow = Some(duration),
            Fault::ServerErrors => self.server_errors = true,
            Fault::Unhealthy => self.unhealthy = true,
            Fault::Sick => self.sick = true,
            Fault::DieAt(at) => self.die_at = Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "checkout-x2x9k", "namespace": "shop"}, "spec": {"nodeName": "dca-1"}})
    }

    #[test]
    fn the_end_of_a_tag_makes_a_container_misbehave() {
        let faults = Faults::default();
        let of = |image: &str| faults.of_container(&pod(), image);
        assert!(of("registry.example:5000/checkout:2.1-bad-image").bad_image);
        assert!(of("checkout:2.1-crash").crash);
        assert!(of("checkout:2.1-never-ready@sha256:00").never_ready);
        assert_eq!(of("checkout:2.1-slow").slow, Some(None));
        assert!(of("checkout:2.1-5xx").server_errors);
        assert!(of("checkout:2.1-sick").sick);
        assert_eq!(of("checkout-crash:2.1"), Behaviour::default());
    }

    #[test]
    fn a_config_map_sets_and_takes_back_faults() {
        let mut faults = Faults::default();
        faults.command(Some(&json!({"data": {
            "slow.one": "image=*:2.* for=30s", "never-ready": "pod=checkout-* node=dca-2", "node-down": "dcb-1 dcb-2",
            "scheduler-stopped": "true", "nonsense": "image=*",
        }})));
        assert_eq!(faults.of_container(&pod(), "checkout:2.1").slow, Some(Some(Duration::from_secs(30))));
        assert!(!faults.of_container(&pod(), "checkout:2.1").never_ready, "it is on another node");
        assert!(faults.is_node_down("dcb-2") && faults.is_kubelet_stopped("dcb-2") && faults.is_scheduler_stopped());
        let before = faults.revision();
        faults.command(None);
        assert!(faults.revision() > before && !faults.is_node_down("dcb-2"));
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("*:2.*", "registry.example/checkout:2.1"));
        assert!(!matches("*:2.*", "registry.example/checkout:1.2"));
        assert!(matches("a*b*c", "a-b-b-c") && !matches("a*b*c", "a-b-b"));
    }
}
