//! The whole controller, the same `controller::run` as in the binary, against models of Git and cluster, under a
//! virtual clock: thousands of runs a minute, each with its own faults.
// How many runs there were, and the line that replays one that failed, are for people who read the output.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

pub mod checker;
pub mod cluster;
pub mod faults;
pub mod gateway;
pub mod git;
pub mod outcome;
pub mod outside;
pub mod random;
pub mod replicas;
pub mod time;

mod analysis;
mod blue_green;
pub mod exhaustive;
mod going_back;
mod handover;
pub mod rollouts;
mod rows;
mod schedules;
mod sets;
mod unstaged;
mod workloads;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use locktender::{
    controller::{self, Options, Ports, Reports, Witness},
    core::{
        ledger::{Event, Record},
        names::AppName,
        render::{Files, RenderError, Renderer},
        rollout::{self, report::Report},
    },
    sandbox::{
        nodes::NodeSpec,
        pace::Pace,
        traffic::definitions::definitions,
        world::{World, WorldOptions},
    },
};
use tokio::{sync::watch, task::JoinHandle};

use self::{checker::Checker, cluster::SimCluster, faults::Faults, git::SimGit, outside::Outside, time::VirtualClock};

/// Renders a Kustomize directory without the program: every resource, with `checkout` called as the directory is.
pub struct Bases;

#[async_trait]
impl Renderer for Bases {
    async fn kustomize(&self, directory: &str, files: &Files) -> Result<Vec<u8>, RenderError> {
        let name = directory.rsplit('/').next().unwrap_or(directory);
        let resources = files.iter().filter(|(path, _)| !path.ends_with("kustomization.yaml"));
        let text: Vec<String> = resources.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
        Ok(text.join("---\n").replace("checkout", name).into_bytes())
    }

    async fn version(&self) -> Result<String, RenderError> {
        Ok("bases/0".to_owned())
    }
}

/// A repository, a cluster, and a controller between them.
pub struct Sim {
    pub clock: VirtualClock,
    pub git: SimGit,
    pub cluster: SimCluster,
    pub outside: Outside,
    pub faults: Faults,
    pub checker: Arc<Mutex<Checker>>,
    reports: watch::Receiver<Reports>,
    controller: Controller,
    world: JoinHandle<()>,
    supervisor: JoinHandle<()>,
}

/// The controller, which can be killed and started by whoever has this.
#[derive(Clone)]
struct Controller {
    running: Arc<Mutex<Option<JoinHandle<()>>>>,
    clock: VirtualClock,
    git: SimGit,
    cluster: SimCluster,
    outside: Outside,
    faults: Faults,
    sender: watch::Sender<Reports>,
    /// Deciding for this application panics.
    panics: Arc<Mutex<Option<AppName>>>,
}

impl Controller {
    fn start(&self) {
        self.kill();
        self.cluster.forget_watches();
        let life = self.faults.new_life();
        let cluster = self.cluster.for_life(life);
        let ports = Ports {
            repository: Arc::new(self.git.for_life(life, &cluster)),
            cluster: Arc::new(cluster),
            renderer: Arc::new(Bases),
            ask: Arc::new(self.outside.for_life(life)),
            tell: Arc::new(self.outside.for_life(life)),
            clock: Arc::new(self.clock.clone()),
        };
        let options = Options { witness: Some(self.witness()), ..Options::default() };
        let run = controller::run(ports, options, Some(self.sender.clone()), std::future::pending());
        *self.running.lock().unwrap() = Some(tokio::spawn(run));
    }

    /// 8: deciding is a function of its inputs.
    fn witness(&self) -> Witness {
        let (checker, panics) = (self.cluster.state.lock().unwrap().checker.clone(), self.panics.clone());
        Witness(Arc::new(move |input, decision| {
            let panics = panics.lock().unwrap().clone();
            assert_ne!(panics.as_ref(), Some(input.app), "as a test asked for");
            let mut checker = checker.lock().unwrap();
            if checker.resting {
                return;
            }
            let again = rollout::decide(input);
            let same = again.records == decision.records
                && again.open == decision.open
                && again.actions == decision.actions
                && again.edits == decision.edits
                && again.questions == decision.questions
                && again.report == decision.report
                && (again.urgent, again.wake) == (decision.urgent, decision.wake);
            if !same {
                checker.violated(8, format_args!("{}: decided twice, differently", input.app));
            }
        }))
    }

    fn kill(&self) {
        if let Some(controller) = self.running.lock().unwrap().take() {
            controller.abort();
        }
    }

    /// Starts the controller again a second after a fault killed it, for ever.
    async fn supervise(self) {
        loop {
            self.faults.crashed().await;
            self.kill();
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.start();
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.abort();
        self.supervisor.abort();
        self.kill();
        if !std::thread::panicking() {
            self.assert_invariants();
        }
    }
}

/// Lets `RUST_LOG=info` show what controllers say.
fn show_log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .without_time()
        .with_test_writer()
        .try_init();
}

/// Two units of three nodes each.
pub fn two_units() -> Vec<NodeSpec> {
    NodeSpec::of_units([("dca", 3), ("dcb", 3)], 10)
}

impl Sim {
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::on(files, two_units())
    }

    pub fn on(files: &[(&str, &str)], nodes: Vec<NodeSpec>) -> Self {
        show_log();
        let clock = VirtualClock::new();
        let faults = Faults::default();
        let checker = Arc::new(Mutex::new(Checker::default()));
        let git = SimGit::new(clock.clone(), faults.clone(), files);
        let options = WorldOptions { seed: 7, now: clock.time(), nodes, pace: Pace::simulated() };
        let mut modelled = World::new(options);
        for definition in definitions() {
            modelled.api.create(definition).unwrap();
        }
        let cluster = SimCluster::judged_by(modelled, clock.clone(), faults.clone(), checker.clone());
        let world = tokio::spawn(cluster.clone().live());
        let outside = Outside::new(Arc::new(clock.clone())).judged_by(&cluster, faults.clone());
        outside.is_pods(&cluster);
        let (sender, reports) = watch::channel(Reports::new());
        let controller = Controller {
            running: Arc::default(),
            clock: clock.clone(),
            git: git.clone(),
            cluster: cluster.clone(),
            outside: outside.clone(),
            faults: faults.clone(),
            sender,
            panics: Arc::default(),
        };
        let supervisor = tokio::spawn(controller.clone().supervise());
        let mut sim = Self { clock, git, cluster, outside, faults, checker, reports, controller, world, supervisor };
        sim.start();
        sim
    }

    /// Starts a controller that knows nothing.
    pub fn start(&mut self) {
        self.controller.start();
    }

    /// Ends the controller at once, wherever it is.
    pub fn kill(&mut self) {
        self.controller.kill();
    }

    /// Lets the planned faults happen from here on, counting from here.
    pub fn arm(&self, planned: &[faults::Fault]) {
        self.cluster.armed();
        self.git.armed();
        self.faults.arm(planned);
    }

    /// Fails where an invariant was violated.
    pub fn assert_invariants(&self) {
        let violations = self.checker.lock().unwrap().take();
        assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.git.subjects().join("\n"));
    }

    /// As [`Sim::assert_invariants`], with everything at rest and Git there.
    pub fn settled(&self) {
        self.checker.lock().unwrap().settled();
        self.assert_invariants();
    }

    /// Lets deciding for an application panic from here on; `None` ends it.
    pub fn panic_for(&self, app: Option<&str>) {
        *self.controller.panics.lock().unwrap() = app.map(AppName::new);
    }

    pub fn report(&self, app: &str) -> Option<Report> {
        self.reports.borrow().get(&AppName::new(app)).cloned()
    }

    /// Waits, in virtual time, until a report is as asked.
    pub async fn until(&mut self, app: &str, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        let name = AppName::new(app);
        let limit = tokio::time::sleep(Duration::from_secs(3600));
        tokio::pin!(limit);
        loop {
            if let Some(report) = self.reports.borrow_and_update().get(&name)
                && holds(report)
            {
                return report.clone();
            }
            // What goes wrong is said at once: it may go on for ever.
            self.assert_invariants();
            tokio::select! {
                changed = self.reports.changed() => changed.unwrap(),
                () = &mut limit => panic!("{app} is never {what}:\n{:#?}\n{}", self.report(app), self.git.subjects().join("\n")),
            }
        }
    }

    /// Returns the records of a rollout, as pushed.
    pub fn records(&self, app: &str, number: u32) -> Vec<Record> {
        let checker = self.checker.lock().unwrap();
        let rollouts = checker.rollouts(&AppName::new(app));
        rollouts.and_then(|all| all.get(&number)).map(|state| state.records.clone()).unwrap_or_default()
    }

    /// Waits, in virtual time, until so many records of an event are pushed.
    ///
    /// Reports come from the controller that lives; what was pushed stays true when it dies.
    pub async fn recorded(
        &self,
        app: &str,
        number: u32,
        event: Event,
        stage: &str,
        times: usize,
    ) -> Result<(), String> {
        for _ in 0..20_000 {
            let is_it = |record: &&Record| {
                record.event == event && record.stage.as_ref().map_or("", |stage| stage.as_str()) == stage
            };
            let count = {
                let checker = self.checker.lock().unwrap();
                let state = checker.rollouts(&AppName::new(app)).and_then(|all| all.get(&number));
                state.map_or(0, |state| state.records.iter().filter(is_it).count())
            };
            if count >= times {
                return Ok(());
            }
            let violations = self.checker.lock().unwrap().violations().to_vec();
            if !violations.is_empty() {
                return Err(violations.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let events: Vec<_> = self.records(app, number).iter().map(|one| (one.event, one.stage.clone())).collect();
        let reasons = self.report(app).map(|report| report.reasons);
        Err(format!("{event:?} {stage} of {app}/{number:04} never comes: {events:?}; {reasons:?}"))
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
