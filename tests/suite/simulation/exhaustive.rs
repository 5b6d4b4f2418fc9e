//! Every write, every watch event, every read and every answer of a proxy goes wrong once, in every way. After each run the checker
//! has seen no invariant violated, and the end is the undisturbed run's.
//!
//! `LOCKTENDER_FAULT='release write:12:CrashBefore'` replays one run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use locktender::core::ledger::Event;
use serde_json::{Value, json};

use super::{
    Sim,
    faults::{ANSWER_FAULTS, Counts, EARLIER, EVENT_FAULTS, Fault, WRITE_FAULTS},
    handover,
    outcome::{differences, outcome},
};

/// What is taken over, or given back.
#[derive(Clone, Copy, Debug)]
pub enum Whom {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl Whom {
    /// How many pods it has.
    pub fn pods(self) -> usize {
        if matches!(self, Self::StatefulSet) { 5 } else { 6 }
    }
}

/// One rollout that faults are put into.
#[derive(Clone, Copy, Debug)]
pub enum Scenario {
    Install,
    Release,
    StepBack,
    Abort,
    Recreate,
    Canary,
    BlueGreen,
    /// The confirm of the switch is taken back after the switch, and given again.
    SwitchBack,
    /// A canary by a gateway.
    Routed,
    /// The same, aborted half-way.
    RoutedAbort,
    /// The same with stable scaled down as requests leave it, aborted half-way.
    ScaledAbort,
    /// The confirm of the first step is taken back.
    ScaledBack,
    /// A canary by HAProxy.
    Proxied,
    /// A switch by HAProxy, confirmed and completed.
    ProxiedSwitch,
    /// A StatefulSet whose pods are made anew.
    Ordinals,
    /// A StatefulSet in place; the confirm of the beta group is taken back.
    OrdinalsBack,
    /// A DaemonSet whose pods are made anew.
    Nodes,
    /// A workload without a policy gets one with two units.
    TakeOver(Whom),
    /// The policy goes.
    GiveBack(Whom),
    /// Another image without a policy.
    Unstaged,
    /// In place, pods with a readiness gate that a Service of others selects; the confirm of the beta group is taken back.
    Gated,
}

/// Nobody is to blame for an event that is healed by the next list after ten minutes: the deadline is longer.
fn policy(update: &str) -> String {
    format!(
        "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {{name: two-data-centers}}
spec:
  progressDeadlineSeconds: 7200
  strategy:
    batched:
      update: {update}
      topology:
        unitType: topology.kubernetes.io/zone
        units: [dca, dcb]
      beta: {{perUnit: 1}}
      batchSize: 2
      confirm: everyBatch
      maxUnavailable: 34%
      graceful: {{gracePeriodSeconds: 1}}
"
    )
}

pub fn manifest(tag: &str) -> String {
    super::rollouts::manifest(tag).replace("replicas: 10", "replicas: 6")
}

/// The same as a StatefulSet of five.
pub fn stateful_set(tag: &str) -> String {
    let text = manifest(tag).replace("kind: Deployment", "kind: StatefulSet");
    text.replace("  replicas: 6\n", "  serviceName: checkout\n  replicas: 5\n")
}

/// The same as a DaemonSet, on every node.
pub fn daemon_set(tag: &str) -> String {
    manifest(tag).replace("kind: Deployment", "kind: DaemonSet").replace("  replicas: 6\n", "")
}

const CANARY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  progressDeadlineSeconds: 7200
  strategy:
    canary:
      steps:
      - setWeight: 20
      - pause: {duration: 1m}
      - setWeight: 60
      - confirm: {}
      maxSurge: 2
      graceful: {gracePeriodSeconds: 1}
";

const BLUE_GREEN: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  progressDeadlineSeconds: 7200
  strategy:
    blueGreen:
      healthCheck: {path: /health, port: 8080, expect: {healthy: true}}
      watch: {duration: 1m}
      scaleDownDelaySeconds: 10
      graceful: {gracePeriodSeconds: 1}
";

const ROUTED: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  progressDeadlineSeconds: 7200
  strategy:
    canary:
      traffic: {gatewayApi: {httpRoute: checkout}}
      steps:
      - setWeight: 20
      - pause: {duration: 1m}
      - setWeight: 60
      - confirm: {}
      scaleDownDelaySeconds: 10
      graceful: {gracePeriodSeconds: 1}
";

const BY_GATEWAY: &str = "traffic: {gatewayApi: {httpRoute: checkout}}";
const BY_HAPROXY: &str = "traffic: {haproxy: {backend: checkout, runtime: 'unix:/run/haproxy.sock'}}";

pub const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: checkout}
spec:
  parentRefs: [{name: public}]
  rules: [{backendRefs: [{name: checkout, port: 80}]}]
";

/// The same where stable has only as many pods as its share of the requests needs.
fn scaled() -> String {
    let confirmed = ROUTED.replace("- pause: {duration: 1m}", "- confirm: {}");
    confirmed.replace("scaleDownDelaySeconds: 10", "scaleDownDelaySeconds: 10\n      dynamicStableScale: true")
}

/// Where a pod template's spec begins.
const TEMPLATE: &str = "    spec:\n";
const GATES: &str = "      readinessGates: [{conditionType: locktender.dev/in-service}]\n";

/// It selects the pods, whatever their labels of ours say.
fn service_of_others() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "others", "namespace": "shop"},
        "spec": {"selector": {"app": "checkout"}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

const CONFIRM_PREVIEW: &str = "rollouts/checkout/0002/confirm/preview.yaml";
const CONFIRM_FIRST: &str = "rollouts/checkout/0002/confirm/weight-20.yaml";
const CONFIRM_BETA: &str = "rollouts/checkout/0002/confirm/beta.yaml";

impl Scenario {
    /// One of so many faults is tried. The sweep tries every one of a rollout of each strategy, and one in three of those that go
    /// the same way. A proxy is asked all the time: there are more of them, and each run takes longer.
    fn step(self) -> usize {
        let is_like_another = !matches!(
            self,
            Self::Install
                | Self::Release
                | Self::StepBack
                | Self::Abort
                | Self::Canary
                | Self::Routed
                | Self::BlueGreen
                | Self::SwitchBack
        );
        let takes_long = matches!(self, Self::Proxied | Self::ProxiedSwitch | Self::ScaledAbort | Self::ScaledBack);
        match std::env::var("LOCKTENDER_SWEEP").as_deref() {
            Ok("every") => 1,
            Ok("all") => 1 + 2 * usize::from(is_like_another),
            _ if takes_long => SAMPLE_OF_MANY,
            _ => SAMPLE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Release => "release",
            Self::StepBack => "step-back",
            Self::Abort => "abort",
            Self::Recreate => "recreate",
            Self::Canary => "canary",
            Self::BlueGreen => "blue-green",
            Self::SwitchBack => "switch-back",
            Self::Routed => "routed",
            Self::RoutedAbort => "routed-abort",
            Self::ScaledAbort => "scaled-abort",
            Self::ScaledBack => "scaled-back",
            Self::Proxied => "proxied",
            Self::ProxiedSwitch => "proxied-switch",
            Self::TakeOver(Whom::Deployment) => "take-over",
            Self::TakeOver(Whom::StatefulSet) => "take-over-ordinals",
            Self::TakeOver(Whom::DaemonSet) => "take-over-nodes",
            Self::GiveBack(_) => "give-back",
            Self::Ordinals => "ordinals",
            Self::OrdinalsBack => "ordinals-back",
            Self::Nodes => "nodes",
            Self::Unstaged => "unstaged",
            Self::Gated => "gated",
        }
    }

    /// What is released.
    fn manifest(self, tag: &str) -> String {
        match self {
            Self::Ordinals | Self::OrdinalsBack => stateful_set(tag),
            Self::Gated => manifest(tag).replace(TEMPLATE, &(TEMPLATE.to_owned() + GATES)),
            Self::TakeOver(Whom::StatefulSet) | Self::GiveBack(Whom::StatefulSet) => stateful_set(tag),
            Self::Nodes | Self::TakeOver(Whom::DaemonSet) | Self::GiveBack(Whom::DaemonSet) => daemon_set(tag),
            _ => manifest(tag),
        }
    }

    /// Brings about what is there before; nothing goes wrong yet.
    pub async fn prepare(self) -> Result<Sim, String> {
        let policy = match self {
            Self::Canary => CANARY.to_owned(),
            Self::BlueGreen | Self::SwitchBack => BLUE_GREEN.to_owned(),
            Self::Routed | Self::RoutedAbort => ROUTED.to_owned(),
            Self::ScaledAbort | Self::ScaledBack => scaled(),
            Self::Proxied => ROUTED.replace(BY_GATEWAY, BY_HAPROXY),
            Self::ProxiedSwitch => {
                BLUE_GREEN.replace("    blueGreen:\n", &format!("    blueGreen:\n      {BY_HAPROXY}\n"))
            }
            Self::Recreate | Self::Ordinals | Self::Nodes => policy("Recreate"),
            Self::Gated => policy("InPlaceIfPossible").replace("Seconds: 1}", "Seconds: 1, readinessGate: true}"),
            _ => policy("InPlaceIfPossible"),
        };
        let manifest = self.manifest("1.9");
        let app =
            if matches!(self, Self::TakeOver(_) | Self::Unstaged) { handover::BARE } else { super::rollouts::APP };
        let mut files = vec![
            ("policies/two-data-centers.yaml", policy.as_str()),
            ("apps/checkout/app.yaml", app),
            (super::rollouts::DEPLOYMENT, &manifest),
        ];
        if matches!(self, Self::Routed | Self::RoutedAbort | Self::ScaledAbort | Self::ScaledBack) {
            files.push(("apps/checkout/route.yaml", ROUTE));
        }
        let sim = Sim::new(&files);
        if matches!(self, Self::Proxied | Self::ProxiedSwitch) {
            sim.outside.start_haproxy();
        }
        if matches!(self, Self::Install) {
            return Ok(sim);
        }
        sim.checker.lock().unwrap().resting = true;
        self.stages(&sim, 1).await?;
        if matches!(self, Self::Gated) {
            sim.cluster.with(|world| drop(world.api.create(service_of_others()).unwrap()));
        }
        sim.pass(Duration::from_secs(30)).await;
        sim.checker.lock().unwrap().resting = false;
        Ok(sim)
    }

    /// The rollout itself, with what people do.
    async fn act(self, sim: &Sim) -> Result<(), String> {
        if self.releases() {
            sim.git.commit("checkout 2.0", &[(super::rollouts::DEPLOYMENT, Some(&self.manifest("2.0")))]);
        }
        match self {
            Self::Install => self.stages(sim, 1).await?,
            Self::RoutedAbort => {
                sim.recorded("checkout", 2, Event::StageWaiting, "weight-60", 1).await?;
                sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
                sim.recorded("checkout", 2, Event::Aborted, "", 1).await?;
            }
            Self::ScaledAbort => {
                confirm(sim, 2, "weight-20").await?;
                sim.recorded("checkout", 2, Event::StageWaiting, "weight-60", 1).await?;
                sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
                sim.recorded("checkout", 2, Event::Aborted, "", 1).await?;
            }
            Self::ScaledBack => {
                confirm(sim, 2, "weight-20").await?;
                sim.recorded("checkout", 2, Event::StageWaiting, "weight-60", 1).await?;
                sim.git.commit("Revert \"confirm weight-20\"", &[(CONFIRM_FIRST, None)]);
                sim.recorded("checkout", 2, Event::StageReverted, "weight-20", 1).await?;
                sim.pass(Duration::from_secs(30)).await;
            }
            Self::Release
            | Self::Recreate
            | Self::Canary
            | Self::BlueGreen
            | Self::Ordinals
            | Self::Nodes
            | Self::Routed
            | Self::Proxied
            | Self::ProxiedSwitch
            | Self::Unstaged => {
                self.stages(sim, 2).await?;
            }
            Self::StepBack | Self::OrdinalsBack | Self::Gated => {
                confirm(sim, 2, "beta").await?;
                sim.recorded("checkout", 2, Event::StageStarted, "batch-1", 1).await?;
                sim.pass(Duration::from_secs(1)).await;
                sim.git.commit("Revert \"confirm beta\"", &[(CONFIRM_BETA, None)]);
                sim.recorded("checkout", 2, Event::StageReverted, "beta", 1).await?;
            }
            Self::SwitchBack => {
                confirm(sim, 2, "preview").await?;
                sim.recorded("checkout", 2, Event::StageWaiting, "switch", 1).await?;
                sim.git.commit("Revert \"confirm preview\"", &[(CONFIRM_PREVIEW, None)]);
                sim.recorded("checkout", 2, Event::StageReverted, "preview", 1).await?;
                sim.pass(Duration::from_secs(30)).await;
            }
            Self::TakeOver(_) => {
                sim.git.commit("stage it", &[(handover::APP_FILE, Some(super::rollouts::APP))]);
                sim.recorded("checkout", 2, Event::Completed, "beta", 1).await?;
            }
            Self::GiveBack(_) => {
                sim.git.commit("no policy", &[(handover::APP_FILE, Some(handover::BARE))]);
                sim.recorded("checkout", 2, Event::Completed, "all", 1).await?;
            }
            Self::Abort => {
                confirm(sim, 2, "beta").await?;
                sim.recorded("checkout", 2, Event::StageWaiting, "batch-1", 1).await?;
                sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
                sim.recorded("checkout", 2, Event::Aborted, "", 1).await?;
            }
        }
        Ok(())
    }

    /// Returns whether another image is merged.
    fn releases(self) -> bool {
        !matches!(self, Self::Install | Self::TakeOver(_) | Self::GiveBack(_))
    }

    /// Confirms what asks for it until the rollout is complete.
    async fn stages(self, sim: &Sim, number: u32) -> Result<(), String> {
        let (asking, last): (&[&str], &str) = match self {
            Self::BlueGreen | Self::SwitchBack | Self::ProxiedSwitch if number == 1 => (&[], "full"),
            Self::BlueGreen | Self::SwitchBack | Self::ProxiedSwitch => (&["preview"], "finish"),
            Self::Routed | Self::RoutedAbort | Self::ScaledAbort | Self::ScaledBack | Self::Proxied if number == 1 => {
                (&[], "weight-100")
            }
            Self::Canary | Self::Routed | Self::RoutedAbort | Self::Proxied => (&["weight-60"], "weight-100"),
            // Nobody but its controller says when the first come.
            Self::Nodes | Self::GiveBack(Whom::DaemonSet) if number == 1 => (&[], "beta"),
            Self::TakeOver(_) if number == 1 => (&[], "all"),
            Self::Unstaged => (&[], "all"),
            _ => (&["beta", "batch-1"], "batch-2"),
        };
        for stage in asking {
            confirm(sim, number, stage).await?;
        }
        sim.recorded("checkout", number, Event::Completed, last, 1).await
    }
}

async fn confirm(sim: &Sim, number: u32, stage: &str) -> Result<(), String> {
    sim.recorded("checkout", number, Event::StageWaiting, stage, 1).await?;
    let path = format!("rollouts/checkout/{number:04}/confirm/{stage}.yaml");
    sim.git.commit(&format!("confirm {stage}"), &[(&path, Some(""))]);
    Ok(())
}

/// How one run went.
struct Run {
    counts: Counts,
    outcome: Vec<String>,
    violations: Vec<String>,
    failed: Option<String>,
}

fn run(scenario: Scenario, faults: &[Fault]) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let sim = scenario.prepare().await.unwrap();
        let before = sim.checker.lock().unwrap().take();
        assert!(before.is_empty(), "{before:?}");
        let since = handover::Since::now(&sim);
        sim.arm(faults);
        let failed = scenario.act(&sim).await.err();
        let counts = sim.faults.counts();
        sim.faults.disarm();
        // Long enough for what is late, and for two lists.
        sim.pass(Duration::from_secs(1500)).await;
        let mut violations = sim.checker.lock().unwrap().take();
        if let Scenario::TakeOver(whom) | Scenario::GiveBack(whom) = scenario {
            violations.extend(since.disturbed(&sim, whom.pods()));
        }
        Run { counts, outcome: outcome(&sim), violations, failed }
    })
}

/// Says what is wrong with a run; `None` where nothing is.
fn judge(scenario: Scenario, fault: Fault, undisturbed: &Run) -> Option<String> {
    let found = catch_unwind(AssertUnwindSafe(|| run(scenario, &[fault])));
    let Ok(found) = found else { return Some("panicked".to_owned()) };
    let mut wrong = found.violations;
    wrong.extend(found.failed);
    let differs = differences(&undisturbed.outcome, &found.outcome);
    wrong.extend(differs.into_iter().take(12));
    (!wrong.is_empty()).then(|| wrong.join("\n    "))
}

fn every_fault(counts: Counts) -> Vec<Fault> {
    let writes = (0..counts.writes).flat_map(|at| WRITE_FAULTS.map(|how| Fault::Write(at, how)));
    let events = (0..counts.events).flat_map(|at| EVENT_FAULTS.map(|how| Fault::Event(at, how)));
    let reads = (0..counts.reads).flat_map(|at| EARLIER.map(|how| Fault::Read(at, how)));
    let answers = (0..counts.answers).flat_map(|at| ANSWER_FAULTS.map(|how| Fault::Answer(at, how)));
    writes.chain(events).chain(reads).chain(answers).collect()
}

/// Without `LOCKTENDER_SWEEP`: one of so many faults is tried. A prime, so that every kind of fault has its turn.
pub const SAMPLE: usize = 7;
/// … of those of a proxy. A prime, too.
const SAMPLE_OF_MANY: usize = 29;

/// Whether everything is to be tried that there is.
pub fn is_whole_sweep() -> bool {
    std::env::var("LOCKTENDER_SWEEP").is_ok_and(|sweep| matches!(sweep.as_str(), "all" | "every"))
}

fn exhaust(scenario: Scenario) {
    let name = scenario.name();
    let undisturbed = run(scenario, &[]);
    assert!(undisturbed.violations.is_empty(), "{name}: {:#?}", undisturbed.violations);
    assert_eq!(undisturbed.failed, None, "{name}");
    let again = run(scenario, &[]);
    assert_eq!(undisturbed.outcome, again.outcome, "the same run ends the same");
    let mut faults = every_fault(undisturbed.counts);
    if let Ok(replay) = std::env::var("LOCKTENDER_FAULT") {
        let Some(fault) = replay.strip_prefix(name).and_then(|rest| Fault::parse(rest.trim())) else { return };
        faults = vec![fault];
    }
    let all = faults.len();
    // Everything takes half an hour: `LOCKTENDER_SWEEP=every`. Otherwise every so many, from the first on.
    if all > 1 {
        faults = faults.into_iter().step_by(scenario.step()).collect();
    }
    let began = std::time::Instant::now();
    let runs = faults.len();
    println!("{name}: {:?}, {runs} runs to do of {all}", undisturbed.counts);
    let mut failures = Vec::new();
    for fault in faults {
        if let Some(wrong) = judge(scenario, fault, &undisturbed) {
            let failure = format!("LOCKTENDER_FAULT='{name} {fault}'\n    {wrong}");
            println!("{failure}");
            failures.push(failure);
        }
    }
    let Counts { writes, events, reads, answers } = undisturbed.counts;
    println!(
        "{runs} runs of {all}: {name}, {writes} writes × {}, {events} events × {}, {reads} reads × {}, {answers} answers \
         × {} in {:.0} s",
        WRITE_FAULTS.len(),
        EVENT_FAULTS.len(),
        EARLIER.len(),
        ANSWER_FAULTS.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{} of {runs} runs went wrong, first:\n{}", failures.len(), failures[0]);
}

#[test]
fn everything_goes_wrong_once_where_pods_have_a_gate() {
    exhaust(Scenario::Gated);
}

#[test]
fn everything_goes_wrong_once_in_an_install() {
    exhaust(Scenario::Install);
}

#[test]
fn everything_goes_wrong_once_in_a_release() {
    exhaust(Scenario::Release);
}

#[test]
fn everything_goes_wrong_once_in_a_step_back() {
    exhaust(Scenario::StepBack);
}

#[test]
fn everything_goes_wrong_once_in_an_abort() {
    exhaust(Scenario::Abort);
}

#[test]
fn everything_goes_wrong_once_in_a_release_that_recreates_pods() {
    exhaust(Scenario::Recreate);
}

#[test]
fn everything_goes_wrong_once_in_a_canary() {
    exhaust(Scenario::Canary);
}

#[test]
fn everything_goes_wrong_once_in_a_switch() {
    exhaust(Scenario::BlueGreen);
}

#[test]
fn everything_goes_wrong_once_in_a_taking_over() {
    exhaust(Scenario::TakeOver(Whom::Deployment));
}

#[test]
fn everything_goes_wrong_once_in_taking_a_stateful_set_over() {
    exhaust(Scenario::TakeOver(Whom::StatefulSet));
}

#[test]
fn everything_goes_wrong_once_in_taking_a_daemon_set_over() {
    exhaust(Scenario::TakeOver(Whom::DaemonSet));
}

#[test]
fn everything_goes_wrong_once_in_a_giving_back() {
    exhaust(Scenario::GiveBack(Whom::Deployment));
}

#[test]
fn everything_goes_wrong_once_in_a_release_without_a_policy() {
    exhaust(Scenario::Unstaged);
}

#[test]
fn everything_goes_wrong_once_in_a_switch_that_is_taken_back() {
    exhaust(Scenario::SwitchBack);
}

#[test]
fn everything_goes_wrong_once_in_a_canary_by_a_gateway() {
    exhaust(Scenario::Routed);
}

#[test]
fn everything_goes_wrong_once_in_a_canary_by_a_gateway_that_is_aborted() {
    exhaust(Scenario::RoutedAbort);
}

#[test]
fn everything_goes_wrong_once_in_a_canary_that_scales_stable_down_and_is_aborted() {
    exhaust(Scenario::ScaledAbort);
}

#[test]
fn everything_goes_wrong_once_in_a_canary_by_haproxy() {
    exhaust(Scenario::Proxied);
}

#[test]
fn everything_goes_wrong_once_in_a_switch_by_haproxy() {
    exhaust(Scenario::ProxiedSwitch);
}

#[test]
fn everything_goes_wrong_once_in_a_stateful_set() {
    exhaust(Scenario::Ordinals);
}

#[test]
fn everything_goes_wrong_once_in_a_stateful_set_that_steps_back() {
    exhaust(Scenario::OrdinalsBack);
}

#[test]
fn everything_goes_wrong_once_in_a_daemon_set() {
    exhaust(Scenario::Nodes);
}
