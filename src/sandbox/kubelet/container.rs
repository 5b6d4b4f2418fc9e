//! One container of a pod: a state machine that is advanced to a time.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    probe::{Ask, Probe},
    runtime::{ContainerSpec, Manner, ProbeId, ProbeKind, Runtime},
};
use crate::sandbox::{faults::Behaviour, nodes::NodeSpec, pace::Pace, value};

/// What a container needs of the outside to be advanced.
pub struct Host<'a> {
    /// The time.
    pub now: Timestamp,
    /// How long things take.
    pub pace: &'a Pace,
    /// What runs containers.
    pub runtime: &'a mut dyn Runtime,
    /// The images that nodes have, as (node, image).
    pub images: &'a mut BTreeSet<(String, String)>,
    /// The node.
    pub node: &'a NodeSpec,
}

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays.
    Sidecar,
    /// One of the pod's containers.
    Main,
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whenever it ends.
    Always,
    /// When it ends with an error.
    OnFailure,
    /// Not at all.
    Never,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Not its turn yet.
    Waiting,
    /// Its image is being pulled.
    Pulling { until: Timestamp },
    /// Its image could not be pulled.
    PullFailed { at: Timestamp, retry: Timestamp },
    /// It is being created.
    Starting { until: Timestamp },
    /// It runs.
    Running { since: Timestamp },
    /// It was asked to stop, and still runs: until then, and for longer while it has connections, but not after `latest`.
    Stopping { since: Timestamp, until: Timestamp, latest: Timestamp, code: i32 },
    /// It ended; how is in `last`.
    Ended,
    /// It ended and waits to be started again, or could not be started (`error`).
    BackOff { retry: Timestamp, error: Option<String> },
}

/// How a container's last run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// When it was started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Its ID.
    pub run: u32,
}

/// How long a container must have run for its waits to start over, in multiples of the longest wait.
const CALM: u32 = 2;

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub role: Role,
    policy: RestartPolicy,
    /// The image that the pod asks for.
    pub wanted: String,
    /// The image of the present or last run; the wanted one before the first.
    pub image: String,
    /// Where it is.
    pub state: State,
    /// How the last run ended.
    pub last: Option<Ended>,
    /// How often it was started.
    pub runs: u32,
    pull_failures: u32,
    crashes: u32,
    probes: Vec<Probe>,
}

impl Container {
    /// Reads a container of a pod.
    pub fn new(pod: &Value, spec: &Value, is_init: bool) -> Self {
        let policy = match value::text(pod, &["spec", "restartPolicy"]) {
            "Never" => RestartPolicy::Never,
            "OnFailure" => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        let (role, policy) = match (is_init, value::text(spec, &["restartPolicy"])) {
            (true, "Always") => (Role::Sidecar, RestartPolicy::Always),
            (true, _) if policy == RestartPolicy::Never => (Role::Init, policy),
            (true, _) => (Role::Init, RestartPolicy::OnFailure),
            (false, _) => (Role::Main, policy),
        };
        let image = value::text(spec, &["image"]).to_owned();
        Self {
            name: value::text(spec, &["name"]).to_owned(),
            role,
            policy,
            wanted: image.clone(),
            image,
            state: State::Waiting,
            last: None,
            runs: 0,
            pull_failures: 0,
            crashes: 0,
            probes: Vec::new(),
        }
    }

    /// Returns whether it runs, be it asked to stop or not.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Stopping { .. })
    }

    /// Returns whether it ended and stays so.
    pub fn is_done(&self) -> bool {
        self.state == State::Ended
    }

    /// Returns whether it ended well and stays so.
    pub fn has_succeeded(&self) -> bool {
        self.is_done() && self.last.as_ref().is_some_and(|last| last.code == 0)
    }

    /// Returns whether it runs and its startup probe, if any, succeeded.
    pub fn is_started(&self) -> bool {
        self.is_running() && self.verdict(ProbeKind::Startup) != Some(Some(false)) && !self.waits_for_startup()
    }

    fn waits_for_startup(&self) -> bool {
        matches!(self.verdict(ProbeKind::Startup), Some(None | Some(false)))
    }

    fn verdict(&self, kind: ProbeKind) -> Option<Option<bool>> {
        self.probes.iter().find(|probe| probe.kind == kind).map(Probe::passed)
    }

    /// Returns whether it takes requests.
    pub fn is_ready(&self, behaviour: &Behaviour, pace: &Pace, now: Timestamp) -> bool {
        let (State::Running { since } | State::Stopping { since, .. }) = self.state else { return false };
        let slow = behaviour.slow.is_some_and(|slow| now < since + slow.unwrap_or(pace.slow));
        self.is_started()
            && !slow
            && !behaviour.never_ready
            && self.verdict(ProbeKind::Readiness).is_none_or(|passed| passed == Some(true))
    }

    /// Lets it run to `host.now`. `may_start` says whether its turn has come.
    pub fn advance(&mut self, pod: &Value, spec: &Value, behaviour: &Behaviour, may_start: bool, host: &mut Host<'_>) {
        // A few steps at most happen at one time; the bound only guards against a mistake here.
        for _ in 0..16 {
            let before = self.state.clone();
            self.step(pod, spec, behaviour, may_start, host);
            if self.state == before {
                return;
            }
        }
    }

    fn step(&mut self, pod: &Value, spec: &Value, behaviour: &Behaviour, may_start: bool, host: &mut Host<'_>) {
        let now = host.now;
        match self.state.clone() {
            State::Waiting if may_start => self.pull(host),
            State::Waiting => {}
            State::Pulling { .. } | State::Starting { .. } | State::PullFailed { .. } | State::BackOff { .. }
                if may_start && self.image != self.wanted =>
            {
                self.pull_failures = 0;
                self.crashes = 0;
                self.pull(host);
            }
            State::Pulling { until } if until <= now && may_start => self.pulled(behaviour, host),
            State::PullFailed { retry, .. } if retry <= now && may_start => self.pull(host),
            State::Starting { until } if until <= now && may_start => self.start(pod, spec, behaviour, host),
            State::BackOff { retry, .. } if retry <= now && may_start => self.pull(host),
            State::Running { since } => self.run(since, pod, behaviour, host),
            State::Stopping { since, until, latest, code } if until <= now => {
                if latest > now && host.runtime.is_busy(value::uid(pod), &self.name) {
                    return;
                }
                host.runtime.stop(value::uid(pod), &self.name);
                let finished = if host.runtime.is_real() { now.min(latest) } else { until };
                self.end(since, finished, code, host);
            }
            _ => {}
        }
    }

    fn pull(&mut self, host: &Host<'_>) {
        self.image.clone_from(&self.wanted);
        let has = host.images.contains(&(host.node.name.clone(), self.image.clone()));
        let wait = if has { Duration::ZERO } else { host.pace.pull };
        self.state = State::Pulling { until: host.now + wait };
    }

    fn pulled(&mut self, behaviour: &Behaviour, host: &mut Host<'_>) {
        if behaviour.bad_image {
            let wait = back_off(self.pull_failures, host.pace);
            self.pull_failures += 1;
            self.state = State::PullFailed { at: host.now, retry: host.now + wait };
            return;
        }
        self.pull_failures = 0;
        host.images.insert((host.node.name.clone(), self.image.clone()));
        self.state = State::Starting { until: host.now + host.pace.start };
    }

    fn start(&mut self, pod: &Value, spec: &Value, behaviour: &Behaviour, host: &mut Host<'_>) {
        let address = host.runtime.address(value::uid(pod));
        if let Err(error) = host.runtime.start(&self.spec(pod, spec, behaviour, address.clone(), host.node)) {
            let retry = host.now + Duration::from_secs(1);
            self.state = State::BackOff { retry, error: Some(error) };
            return;
        }
        self.runs += 1;
        let kinds = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];
        let probed = self.role != Role::Init;
        let probes = kinds.into_iter().filter(|_| probed);
        self.probes = probes.filter_map(|kind| Probe::new(kind, spec, &address, host.now)).collect();
        self.state = State::Running { since: host.now };
    }

    fn spec(
        &self,
        pod: &Value,
        spec: &Value,
        behaviour: &Behaviour,
        address: String,
        node: &NodeSpec,
    ) -> ContainerSpec {
        let declared = value::items(spec, &["ports"]).iter().filter(|port| value::text(port, &["protocol"]) != "UDP");
        let mut ports: Vec<u16> =
            declared.filter_map(|port| value::number(port, &["containerPort"]).try_into().ok()).collect();
        let is_first = value::items(pod, &["spec", "containers"]).first().is_some_and(|it| it["name"] == *self.name);
        if ports.is_empty() && is_first {
            ports.push(8080);
        }
        let app = ["app.kubernetes.io/name", "app"].into_iter().find_map(|label| value::label(pod, label));
        ContainerSpec {
            pod_uid: value::uid(pod).to_owned(),
            pod: value::name(pod).to_owned(),
            container: self.name.clone(),
            app: app.unwrap_or(&self.name).to_owned(),
            image: self.image.clone(),
            node: node.name.clone(),
            unit: node.unit().to_owned(),
            address,
            ports: if self.role == Role::Init { Vec::new() } else { ports },
            manner: manner(behaviour),
        }
    }

    /// Is told that faults changed how it behaves.
    pub fn behave(&self, pod_uid: &str, behaviour: &Behaviour, host: &mut Host<'_>) {
        if self.is_running() {
            host.runtime.behave(pod_uid, &self.name, manner(behaviour));
        }
    }

    fn run(&mut self, since: Timestamp, pod: &Value, behaviour: &Behaviour, host: &mut Host<'_>) {
        if self.role != Role::Init && self.image != self.wanted {
            self.ask_to_stop(pod, 0, host.now + host.pace.stop, host);
            return;
        }
        if let Some((at, code)) = self.end_of_run(since, behaviour, host.pace)
            && at <= host.now
        {
            host.runtime.stop(value::uid(pod), &self.name);
            self.end(since, at, code, host);
            return;
        }
        self.ask_probes(since, pod, behaviour, host);
        let failed = |kind| self.verdict(kind) == Some(Some(false));
        if failed(ProbeKind::Startup) || failed(ProbeKind::Liveness) {
            self.ask_to_stop(pod, 137, host.now + host.pace.stop, host);
        }
    }

    /// Returns when, and with which code, the present run ends by itself.
    fn end_of_run(&self, since: Timestamp, behaviour: &Behaviour, pace: &Pace) -> Option<(Timestamp, i32)> {
        let crash = behaviour.crash.then_some((since + pace.crash, 1));
        let death = behaviour.die_at.filter(|at| *at > since).map(|at| (at, 137));
        let ends = self.role == Role::Init || self.policy != RestartPolicy::Always;
        let done = (ends && !behaviour.crash).then_some((since + pace.run, 0));
        [crash, death, done].into_iter().flatten().min()
    }

    fn ask_probes(&mut self, since: Timestamp, pod: &Value, behaviour: &Behaviour, host: &mut Host<'_>) {
        let held_back = self.waits_for_startup();
        for probe in &mut self.probes {
            if held_back && probe.kind != ProbeKind::Startup || !held_back && probe.kind == ProbeKind::Startup {
                continue;
            }
            let fails = is_told_to_fail(probe.kind, since, behaviour, host);
            match probe.ask(host.now) {
                Ask::Nothing => {}
                _ if fails => probe.answer(false),
                Ask::Succeeds => probe.answer(true),
                Ask::Http(question) => {
                    let id = ProbeId {
                        pod_uid: value::uid(pod).to_owned(),
                        container: self.name.clone(),
                        run: self.runs,
                        kind: probe.kind,
                    };
                    if let Some(well) = host.runtime.probe(&id, &question) {
                        probe.answer(well);
                    }
                }
            }
        }
    }

    /// Takes the answer to a probe that was asked earlier.
    pub fn take_answer(&mut self, id: &ProbeId, well: bool) {
        if id.run == self.runs
            && let Some(probe) = self.probes.iter_mut().find(|probe| probe.kind == id.kind)
        {
            probe.answer(well);
        }
    }

    /// Asks a running container to stop by `until`, and once it has no connections, within the pod's grace period.
    pub fn ask_to_stop(&mut self, pod: &Value, code: i32, until: Timestamp, host: &mut Host<'_>) {
        let grace = u64::try_from(value::number(pod, &["spec", "terminationGracePeriodSeconds"])).unwrap_or_default();
        let deadline = value::time(pod, &["metadata", "deletionTimestamp"]);
        let latest = deadline.unwrap_or(host.now + Duration::from_secs(grace)).max(until);
        match &mut self.state {
            State::Running { since } => {
                self.state = State::Stopping { since: *since, until, latest, code };
                host.runtime.leave(value::uid(pod), &self.name);
            }
            State::Stopping { until: sooner, latest: sooner_at_latest, .. } => {
                *sooner = until.min(*sooner);
                *sooner_at_latest = latest.min(*sooner_at_latest);
            }
            _ => {}
        }
    }

    /// Ends it at once, as when its node goes.
    pub fn lose(&mut self, pod_uid: &str, host: &mut Host<'_>) {
        if let State::Running { since } | State::Stopping { since, .. } = self.state {
            host.runtime.stop(pod_uid, &self.name);
            self.end(since, host.now, 255, host);
        }
    }

    fn end(&mut self, since: Timestamp, finished: Timestamp, code: i32, host: &Host<'_>) {
        self.probes.clear();
        self.last = Some(Ended { code, started: since, finished, run: self.runs });
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        };
        if self.role != Role::Init && self.image != self.wanted {
            self.crashes = 0;
            self.state = State::BackOff { retry: host.now, error: None };
            return;
        }
        if !again {
            self.state = State::Ended;
            return;
        }
        if finished.duration_since(since).unsigned_abs() >= host.pace.back_off_limit * CALM {
            self.crashes = 0;
        }
        // The first restart is at once.
        let wait = if self.crashes == 0 { Duration::ZERO } else { back_off(self.crashes - 1, host.pace) };
        self.crashes += 1;
        self.state = State::BackOff { retry: finished.max(host.now) + wait, error: None };
    }

    /// Returns when it must be advanced again, if nothing happens before.
    pub fn next_due(&self, behaviour: &Behaviour, may_start: bool, host: &Host<'_>) -> Option<Timestamp> {
        match &self.state {
            State::Waiting | State::Ended => None,
            State::Stopping { until, .. } if *until > host.now => Some(*until),
            // Its runtime says when it has no connections any more.
            State::Stopping { latest, .. } => Some(*latest),
            State::Pulling { until } | State::Starting { until } => may_start.then_some(*until),
            State::PullFailed { at, retry } => {
                let settled = back_off_shown(*at);
                if settled > host.now { Some(settled.min(*retry)) } else { may_start.then_some(*retry) }
            }
            State::BackOff { retry, .. } => may_start.then_some(*retry),
            State::Running { since } => {
                let end = self.end_of_run(*since, behaviour, host.pace).map(|(at, _)| at);
                let slow = behaviour.slow.map(|slow| *since + slow.unwrap_or(host.pace.slow));
                let slow = slow.filter(|at| *at > host.now);
                let modelled = !host.runtime.is_real();
                let foreseen = |probe: &Probe| modelled.then(|| !is_told_to_fail(probe.kind, *since, behaviour, host));
                let held_back = self.waits_for_startup();
                let probes = self.probes.iter().filter(|probe| (probe.kind == ProbeKind::Startup) == held_back);
                let asked = probes.filter_map(|probe| probe.next_due(foreseen(probe)));
                end.into_iter().chain(slow).chain(asked).min()
            }
        }
    }
}

fn manner(behaviour: &Behaviour) -> Manner {
    Manner { server_errors: behaviour.server_errors, never_ready: behaviour.never_ready, sick: behaviour.sick }
}

/// Returns whether faults make a probe fail now, whatever the container would say.
fn is_told_to_fail(kind: ProbeKind, since: Timestamp, behaviour: &Behaviour, host: &Host<'_>) -> bool {
    let slow = behaviour.slow.is_some_and(|slow| host.now < since + slow.unwrap_or(host.pace.slow));
    match kind {
        ProbeKind::Startup => slow,
        ProbeKind::Readiness => slow || behaviour.never_ready,
        ProbeKind::Liveness => behaviour.unhealthy,
    }
}

/// Returns from when a failed pull is shown as `ImagePullBackOff` instead of `ErrImagePull`.
pub fn back_off_shown(failed: Timestamp) -> Timestamp {
    failed + Duration::from_secs(1)
}

fn back_off(failures: u32, pace: &Pace) -> Duration {
    pace.back_off.saturating_mul(2_u32.saturating_pow(failures)).min(pace.back_off_limit)
}
