//! An application `checkout` of ten pods in two units, its repository, its cluster, and a controller whose view of the
//! cluster can be held back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use locktender::{
    controller::{self, Options, Ports, Reports},
    core::{
        cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, Kind, Scope, Write},
        ledger::{Event, Record, journal},
        manifest::Object,
        names::AppName,
        rollout::report::{Activity, Reason, Report},
    },
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::history::Change;
use crate::simulation::{Bases, Sim, cluster::SimCluster};

pub const DEPLOYMENT: &str = "apps/checkout/deployment.yaml";
const APP: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: checkout}
spec: {namespace: shop, policy: careful}
";

/// A policy: what is said beside the strategy, and what is said in it.
pub fn policy(spec: &[&str], batched: &[&str]) -> String {
    let mut text =
        "apiVersion: locktender.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {name: careful}\nspec:\n".to_owned();
    spec.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str("  strategy:\n    batched:\n      batchSize: 4\n      maxUnavailable: 25%\n");
    text.push_str("      topology: {unitType: topology.kubernetes.io/zone, units: [dca, dcb]}\n");
    batched.iter().for_each(|line| text.push_str(&format!("      {line}\n")));
    text
}

/// The application at a version.
pub fn manifest(tag: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: checkout}}
spec:
  replicas: 10
  selector: {{matchLabels: {{app: checkout}}}}
  template:
    metadata: {{labels: {{app: checkout}}}}
    spec:
      containers:
      - {{name: app, image: 'registry.example/checkout:{tag}', ports: [{{containerPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: checkout, labels: {{locktender.dev/sandbox-lb: 'true'}}}}
spec:
  selector: {{app: checkout}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

/// Between the cluster and the controller: holds watch events back, and says what no watch said.
pub struct Lag {
    inner: SimCluster,
    state: Mutex<LagState>,
    news: Notify,
}

#[derive(Default)]
struct LagState {
    held: Option<String>,
    ready: VecDeque<ClusterEvent>,
    backlog: VecDeque<ClusterEvent>,
}

fn kind_of(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::Listed { kind, .. } | ClusterEvent::Lost { kind, .. } => kind.kind.clone(),
        ClusterEvent::Applied(object) | ClusterEvent::Deleted(object) => object.kind().kind,
    }
}

impl Lag {
    /// Holds back everything about one kind; `None` lets it all through, late.
    pub fn hold(&self, kind: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        state.held = kind.map(str::to_owned);
        if state.held.is_none() {
            let late: Vec<_> = state.backlog.drain(..).collect();
            state.ready.extend(late);
        }
        self.news.notify_waiters();
    }

    /// Says what no watch said.
    pub fn say(&self, event: ClusterEvent) {
        self.state.lock().unwrap().ready.push_back(event);
        self.news.notify_waiters();
    }

    fn sort(&self, event: ClusterEvent) -> Option<ClusterEvent> {
        let mut state = self.state.lock().unwrap();
        if state.held.as_ref() != Some(&kind_of(&event)) {
            return Some(event);
        }
        state.backlog.push_back(event);
        None
    }
}

#[async_trait]
impl Cluster for Lag {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.inner.write(write).await
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.inner.dry_run(write).await
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        self.inner.read(kind, namespace, name).await
    }

    fn acting_as(&self, _: &Account) -> Arc<dyn Cluster> {
        panic!("nobody acts in another's name here")
    }

    async fn may(&self, _: &Access) -> Result<bool, ClusterError> {
        panic!("nobody acts in another's name here")
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        self.inner.scope(kind).await
    }

    async fn watch(&self, kind: &Kind) {
        self.inner.watch(kind).await;
    }

    async fn next_event(&self) -> ClusterEvent {
        loop {
            let news = self.news.notified();
            if let Some(event) = self.try_event() {
                return event;
            }
            tokio::select! {
                () = news => {}
                event = self.inner.next_event() => {
                    if let Some(event) = self.sort(event) {
                        return event;
                    }
                }
            }
        }
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        if let Some(event) = self.state.lock().unwrap().ready.pop_front() {
            return Some(event);
        }
        while let Some(event) = self.inner.try_event() {
            if let Some(event) = self.sort(event) {
                return Some(event);
            }
        }
        None
    }
}

/// The application, and everything around it.
pub struct Shop {
    pub sim: Sim,
    pub lag: Arc<Lag>,
    reports: watch::Receiver<Reports>,
    controller: JoinHandle<()>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

impl Shop {
    /// With 1.9 in Git and nothing in the cluster.
    pub fn new(policy: &str) -> Self {
        let mut sim = Sim::new(&[
            ("policies/careful.yaml", policy),
            ("apps/checkout/app.yaml", APP),
            (DEPLOYMENT, &manifest("1.9")),
        ]);
        sim.kill();
        let (lag, reports, controller) = Self::run(&sim);
        Self { sim, lag, reports, controller }
    }

    fn run(sim: &Sim) -> (Arc<Lag>, watch::Receiver<Reports>, JoinHandle<()>) {
        sim.cluster.forget_watches();
        let life = sim.faults.new_life();
        let cluster = sim.cluster.for_life(life);
        let repository = Arc::new(sim.git.for_life(life, &cluster));
        let lag = Arc::new(Lag { inner: cluster, state: Mutex::default(), news: Notify::new() });
        let (renderer, clock) = (Arc::new(Bases), Arc::new(sim.clock.clone()));
        let ask = Arc::new(sim.outside.clone());
        let ports = Ports { repository, cluster: lag.clone(), renderer, tell: ask.clone(), ask, clock };
        let (sender, reports) = watch::channel(Reports::new());
        let run = controller::run(ports, Options::default(), Some(sender), std::future::pending());
        (lag, reports, tokio::spawn(run))
    }

    /// Ends the controller where it is, with its disk, and starts one that knows nothing.
    pub fn restart(&mut self) {
        self.controller.abort();
        self.sim.git.lose_mirror();
        (self.lag, self.reports, self.controller) = Self::run(&self.sim);
    }

    /// With 1.9 stable on ten pods.
    pub async fn installed(policy: &str) -> Self {
        let mut shop = Self::new(policy);
        shop.until("at beta", |report| report.stage.as_ref().is_some_and(|stage| stage.as_str() == "beta")).await;
        shop.commit("promote the install", &[("rollouts/checkout/0001/promote.yaml", Some(""))]);
        shop.until("installed", |report| report.activity == Activity::Stable).await;
        assert_eq!(shop.tags(), counted(&[("1.9", 10)]));
        shop
    }

    /// With 1.9 stable and 2.0 waiting at beta.
    pub async fn at_beta(policy: &str) -> Self {
        let mut shop = Self::installed(policy).await;
        shop.release("2.0");
        shop.waits("beta").await;
        assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
        shop
    }

    /// A person commits and pushes.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) {
        self.sim.git.commit(message, files);
    }

    pub fn release(&self, tag: &str) {
        self.commit(&format!("checkout {tag}"), &[(DEPLOYMENT, Some(&manifest(tag)))]);
    }

    pub fn confirm(&self, stage: &str) {
        self.commit(
            &format!("confirm {stage}"),
            &[(&format!("rollouts/checkout/0002/confirm/{stage}.yaml"), Some(""))],
        );
    }

    pub fn report(&self) -> Option<Report> {
        self.reports.borrow().get(&AppName::new("checkout")).cloned()
    }

    /// Waits, in virtual time, until the report is as asked.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        let limit = tokio::time::sleep(Duration::from_secs(300));
        tokio::pin!(limit);
        loop {
            if let Some(report) = self.reports.borrow_and_update().get(&AppName::new("checkout"))
                && holds(report)
            {
                return report.clone();
            }
            tokio::select! {
                changed = self.reports.changed() => changed.unwrap(),
                () = &mut limit => {
                    panic!("checkout is never {what}:\n{:#?}\n{}", self.report(), self.sim.git.subjects().join("\n"))
                }
            }
        }
    }

    /// Waits until a stage waits for its confirm.
    pub async fn waits(&mut self, stage: &str) {
        let asked = |reason: &Reason| matches!(reason, Reason::ConfirmNeeded { stage: at, .. } if at.as_str() == stage);
        self.until(&format!("waiting at {stage}"), |report| report.reasons.iter().any(asked)).await;
    }

    pub async fn pass(&self, minutes: u64) {
        self.sim.pass(Duration::from_secs(60 * minutes)).await;
    }

    /// How many pods there are at each version.
    pub fn tags(&self) -> BTreeMap<String, usize> {
        let pods = self.sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
        pods.iter().fold(BTreeMap::new(), |mut tags, pod| {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            *tags.entry(image.rsplit(':').next().unwrap().to_owned()).or_default() += 1;
            tags
        })
    }

    /// Everything that ever happened to the cluster.
    pub fn history(&self) -> Vec<Change> {
        self.sim.cluster.with(|world| world.api.events_since(0).unwrap().cloned().collect())
    }

    /// The pushed journal of a rollout; empty where there is none.
    pub fn records(&self, number: u32) -> Vec<Record> {
        let text = self.sim.git.file(&format!("rollouts/checkout/{number:04}/journal.yaml"));
        text.map(|text| journal::read(&text).unwrap()).unwrap_or_default()
    }

    pub fn events(&self, number: u32) -> Vec<Event> {
        self.records(number).iter().map(|record| record.event).collect()
    }

    /// When a rollout first recorded an event.
    pub fn when(&self, number: u32, event: Event) -> Timestamp {
        self.records(number).iter().find(|record| record.event == event).unwrap().time
    }
}

pub fn counted(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter().map(|(tag, count)| ((*tag).to_owned(), *count)).collect()
}
