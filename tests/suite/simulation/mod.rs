//! The whole controller, the same `controller::run` as in the binary, against models of Git and cluster, under a
//! virtual clock: thousands of runs a minute, each with its own faults.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod cluster;
pub mod git;
pub mod time;

mod rollouts;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use locktender::{
    controller::{self, Options, Ports, Reports},
    core::{
        names::AppName,
        render::{Files, RenderError, Renderer},
        rollout::report::Report,
    },
    sandbox::{
        nodes::NodeSpec,
        pace::Pace,
        world::{World, WorldOptions},
    },
};
use tokio::{sync::watch, task::JoinHandle};

use self::{cluster::SimCluster, git::SimGit, time::VirtualClock};

/// Applications of the simulation are plain YAML.
pub struct NoRenderer;

#[async_trait]
impl Renderer for NoRenderer {
    async fn kustomize(&self, _: &str, _: &Files) -> Result<Vec<u8>, RenderError> {
        Err(RenderError::NoProgram("the simulation renders plain YAML only".to_owned()))
    }

    async fn version(&self) -> Result<String, RenderError> {
        Ok("none/0".to_owned())
    }
}

/// A repository, a cluster, and a controller between them.
pub struct Sim {
    pub clock: VirtualClock,
    pub git: SimGit,
    pub cluster: SimCluster,
    reports: watch::Receiver<Reports>,
    sender: watch::Sender<Reports>,
    controller: Option<JoinHandle<()>>,
    world: JoinHandle<()>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.abort();
        self.kill();
    }
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
        // `RUST_LOG=info` shows what the controller says.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_test_writer()
            .try_init();
        let clock = VirtualClock::new();
        let git = SimGit::new(clock.clone(), files);
        let options = WorldOptions { seed: 7, now: clock.time(), nodes, pace: Pace::simulated() };
        let cluster = SimCluster::new(World::new(options), clock.clone());
        let world = tokio::spawn(cluster.clone().live());
        let (sender, reports) = watch::channel(Reports::new());
        let mut sim = Self { clock, git, cluster, reports, sender, controller: None, world };
        sim.start();
        sim
    }

    /// Starts a controller that knows nothing.
    pub fn start(&mut self) {
        self.kill();
        self.cluster.forget_watches();
        let ports = Ports {
            repository: Arc::new(self.git.clone()),
            cluster: Arc::new(self.cluster.clone()),
            renderer: Arc::new(NoRenderer),
            clock: Arc::new(self.clock.clone()),
        };
        let run = controller::run(ports, Options::default(), Some(self.sender.clone()), std::future::pending());
        self.controller = Some(tokio::spawn(run));
    }

    /// Ends the controller at once, wherever it is.
    pub fn kill(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.abort();
        }
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
            tokio::select! {
                changed = self.reports.changed() => changed.unwrap(),
                () = &mut limit => panic!("{app} is never {what}:\n{:#?}\n{}", self.report(app), self.git.subjects().join("\n")),
            }
        }
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
