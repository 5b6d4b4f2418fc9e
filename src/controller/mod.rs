//! Moves: observe → decide → act → record. One loop, one queue of deadlines; safe to kill at any instant.
//!
//! Git has one lane: one fetch or push at a time. Each application has one lane of writes. Nothing is decided for an
//! application while its writes are under way, so that what they answered is seen first.

mod agenda;
pub mod anchor;
mod app;
mod asks;
mod beforehand;
mod decide;
pub mod events;
pub mod fence;
pub mod journals;
mod lanes;
pub mod lease;
mod line;
mod load;
pub mod look;
mod named;
pub mod news;
mod observe;
pub mod overlay;
pub mod publish;
mod push;
mod quarantine;
mod restored;
mod settle;
pub mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tracing::{info, warn};

use self::{
    agenda::Agenda,
    app::App,
    asks::Asked,
    journals::Journals,
    lanes::{Acts, GitDone},
    line::{Door, Line},
    load::Unread,
    news::{Listeners, Load, News},
    publish::Publication,
    source::{Branch, Source},
};
use crate::core::{
    ask::{Ask, Question},
    clock::Clock,
    cluster::{Cluster, Kind, ObjectKey},
    names::{AppName, Digest},
    render::Renderer,
    repository::Repository,
    rollout::{
        input::{Decision, GitState, Input},
        report::Report,
        view::{Touched, View},
    },
    traffic::haproxy::Tell,
};

/// The outside, as traits.
#[derive(Clone)]
pub struct Ports {
    /// The release repository.
    pub repository: Arc<dyn Repository>,
    /// The cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The renderer of Kustomize directories.
    pub renderer: Arc<dyn Renderer>,
    /// Whom questions go to.
    pub ask: Arc<dyn Ask>,
    /// Who tells proxies.
    pub tell: Arc<dyn Tell>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instead of `ledger.pushInterval` of `locktender.yaml`.
    pub push_interval: Option<Duration>,
    /// How many writes of one application are under way at once.
    pub parallel_writes: usize,
    /// After a fetch or push that failed: how long to wait at first. Doubles, up to a minute.
    pub git_retry: Duration,
    /// Sees each decision with what it was decided on.
    pub witness: Option<Witness>,
    /// Hear what the controller does.
    pub listeners: Listeners,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            push_interval: None,
            parallel_writes: 8,
            git_retry: Duration::from_secs(1),
            witness: None,
            listeners: Listeners::default(),
        }
    }
}

/// Sees each decision with what it was decided on: by this a test can decide again and compare.
#[derive(Clone)]
pub struct Witness(pub Arc<Watching>);

/// What a witness is told: an input, and what was decided on it.
pub type Watching = dyn Fn(&Input<'_>, &Decision) + Send + Sync;

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

/// Every application's report, as last decided.
pub type Reports = BTreeMap<AppName, Report>;

/// Kinds that are watched whatever the applications consist of.
pub fn core_kinds() -> Vec<Kind> {
    [
        ("", "v1", "Namespace"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Service"),
        ("", "v1", "Pod"),
        ("apps", "v1", "Deployment"),
        ("apps", "v1", "ReplicaSet"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
    ]
    .map(|(group, version, kind)| Kind::new(group, version, kind))
    .to_vec()
}

/// The branch serves an older commit than was seen: after so long somebody should look.
const STALE_COMPLAINT: SignedDuration = SignedDuration::from_mins(5);

/// After so many applications were decided for, writes that are under way have a turn.
const TURN: usize = 16;

/// How long what is under way may take to end.
const LEAVE_WITHIN: SignedDuration = SignedDuration::from_secs(7);

/// Runs until `stop` is ready, then lets what is under way end, for seven seconds at most, and returns.
pub async fn run(
    ports: Ports,
    options: Options,
    reports: Option<watch::Sender<Reports>>,
    stop: impl Future<Output = ()>,
) {
    let mut controller = Controller::new(ports, options, reports);
    controller.start().await;
    let mut stop = std::pin::pin!(stop);
    let mut changed = lanes::changed(&controller.ports.repository);
    loop {
        controller.options.listeners.tell(&News::Woke);
        controller.fold_events().await;
        controller.work().await;
        controller.tell_load();
        let wake = controller.next_wake();
        let clock = controller.ports.clock.clone();
        let cluster = controller.ports.cluster.clone();
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(acted) = controller.acts.next(), if !controller.acts.is_empty() => controller.acted(acted),
            Some(asked) = controller.asks.next(), if !controller.asks.is_empty() => controller.answered(asked),
            done = lanes::poll(&mut controller.git_lane), if controller.git_lane.is_some() => {
                controller.git_lane = None;
                controller.git_done(done).await;
            }
            event = cluster.next_event() => controller.fold(event).await,
            () = &mut changed => {
                controller.fetch_due = true;
                // Somebody may just have mended it.
                controller.git_not_before = None;
                changed = lanes::changed(&controller.ports.repository);
            }
            () = lanes::until(&clock, wake), if wake.is_some() => {}
        }
    }
    controller.leave().await;
}

struct Controller {
    ports: Ports,
    options: Options,
    reports: Option<watch::Sender<Reports>>,
    view: View,
    source: Source,
    journals: Journals,
    /// The branch as it was read last.
    branch: Option<Branch>,
    /// The ledgers that were not read yet at HEAD.
    unread: BTreeMap<AppName, Unread>,
    /// The lost records that a person has accepted as lost; `None` before they are read.
    accepted: Option<BTreeSet<Digest>>,
    apps: BTreeMap<AppName, App>,
    /// Which of them are due, and when.
    agenda: Agenda,
    /// Which applications depend on one.
    dependents: BTreeMap<AppName, BTreeSet<AppName>>,
    /// Which rollouts are under way, and who waits for a turn.
    line: Line,
    /// Which applications' routers are told by objects of a kind: these say what the router does.
    routed: BTreeMap<Kind, BTreeSet<AppName>>,
    /// Which applications render an object at HEAD.
    rendered_by: BTreeMap<ObjectKey, BTreeSet<AppName>>,
    watched: BTreeSet<Kind>,
    ready: bool,
    /// Whether the API server showed less than before when it was last looked.
    had_regressed: bool,
    watching_since: Timestamp,
    git: GitState,
    git_failures: u32,
    git_not_before: Option<Timestamp>,
    /// How many pushes in a row came too late, how many failed, and not before when to push again: a fetch between them
    /// succeeds.
    rejected: u32,
    push_failures: u32,
    push_not_before: Option<Timestamp>,
    stale_since: Option<Timestamp>,
    fetch_due: bool,
    last_push: Option<Timestamp>,
    /// Pushes that were refused though the branch had not moved: a hook says no, and why.
    refused_push: Option<String>,
    git_lane: Option<BoxFuture<'static, GitDone>>,
    publishing: BTreeSet<AppName>,
    acts: Acts,
    /// Those that want to know something from outside.
    curious: BTreeSet<AppName>,
    /// The questions that are under way, and by whom they are asked.
    under_way: BTreeSet<(AppName, Question)>,
    asks: FuturesUnordered<BoxFuture<'static, Asked>>,
}

impl Controller {
    fn new(ports: Ports, options: Options, reports: Option<watch::Sender<Reports>>) -> Self {
        let now = ports.clock.now();
        Self {
            source: Source::new(ports.repository.clone(), ports.renderer.clone()),
            journals: Journals::new(ports.repository.clone()),
            ports,
            options,
            reports,
            view: View::default(),
            branch: None,
            unread: BTreeMap::new(),
            accepted: None,
            apps: BTreeMap::new(),
            agenda: Agenda::default(),
            curious: BTreeSet::new(),
            dependents: BTreeMap::new(),
            line: Line::default(),
            routed: BTreeMap::new(),
            rendered_by: BTreeMap::new(),
            watched: BTreeSet::new(),
            ready: false,
            had_regressed: false,
            watching_since: now,
            git: GitState::default(),
            git_failures: 0,
            git_not_before: None,
            rejected: 0,
            push_failures: 0,
            push_not_before: None,
            stale_since: None,
            fetch_due: true,
            last_push: None,
            refused_push: None,
            git_lane: None,
            publishing: BTreeSet::new(),
            acts: Acts::default(),
            under_way: BTreeSet::new(),
            asks: FuturesUnordered::new(),
        }
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Lets what is under way end. What does not, or has not begun, is found again by whoever comes next.
    async fn leave(mut self) {
        let clock = self.ports.clock.clone();
        let limit = lanes::until(&clock, Some(self.now() + LEAVE_WITHIN));
        let rest = async {
            while let Some(acted) = self.acts.next().await {
                self.acted(acted);
            }
            if let Some(lane) = self.git_lane.take() {
                lane.await;
            }
        };
        tokio::select! {
            () = rest => info!("stopped"),
            () = limit => warn!("stopped with work under way: it is found again at the next start"),
        }
    }

    /// Tells who listens how much there is to do.
    fn tell_load(&self) {
        if self.options.listeners.0.is_empty() {
            return;
        }
        self.options.listeners.tell(&News::Rests(Load {
            ready: self.ready && (self.branch.is_some() || self.apps.values().any(|app| !app.ledger.states.is_empty())),
            due: self.agenda.touched(),
            acting: self.acts.len(),
        }));
    }

    async fn start(&mut self) {
        for kind in core_kinds() {
            self.watch(&kind).await;
        }
    }

    async fn watch(&mut self, kind: &Kind) {
        if self.watched.insert(kind.clone()) {
            self.ports.cluster.watch(kind).await;
        }
    }

    /// Decides for everything that is due, acts, and publishes.
    async fn work(&mut self) {
        if !self.ready {
            self.become_ready();
        }
        let now = self.now();
        if self.git_lane.is_none() && self.fetch_due && self.git_not_before.is_none_or(|at| at <= now) {
            self.fetch_due = false;
            self.git_lane = Some(lanes::fetch(&self.ports.repository));
        }
        self.note_regression();
        if !self.may_decide() {
            return;
        }
        let mut publications: Vec<(Publication, bool)> = Vec::new();
        let mut in_line: BTreeMap<AppName, Decision> = BTreeMap::new();
        for (count, name) in self.agenda.due(now).into_iter().enumerate() {
            if count % TURN == TURN - 1 {
                self.acts.go_on().await;
            }
            if self.is_busy(&name) {
                // What comes of it makes it due again: until then nobody looks at it, however often the loop wakes.
                self.agenda.decided(&name, None);
                continue;
            }
            if self.is_newer(&name) || self.is_quarantined(&name, now) {
                continue;
            }
            let Some(decision) = self.decide(&name, Door::Closed).await else { continue };
            if self.waits_in_line(&name, &decision) {
                in_line.insert(name, decision);
            } else if let Some(publication) = self.ask_or_settle(&name, decision).await {
                publications.push(publication);
            }
        }
        self.let_in(in_line, &mut publications).await;
        if !publications.is_empty() {
            self.publish(publications).await;
        }
        self.ask();
    }

    /// Returns whether enough is known to decide: the cluster is listed, and the branch is read, or cannot be. Until one of
    /// both is known anchors alone would count, and what a newer Locktender has opened since may stand in Git alone.
    fn may_decide(&self) -> bool {
        self.ready && (self.branch.is_some() || self.git.away.is_some())
    }

    /// Returns whether writes or pushes of an application are under way.
    fn is_busy(&self, name: &AppName) -> bool {
        self.publishing.contains(name) || self.apps.get(name).is_none_or(|app| app.acting)
    }

    /// Tells who listens what was decided last for an application.
    fn tell(&self, name: &AppName, report: &Report) {
        let Some(reports) = &self.reports else { return };
        reports.send_if_modified(|known| {
            let changed = known.get(name) != Some(report);
            if changed {
                known.insert(name.clone(), report.clone());
            }
            changed
        });
    }

    /// Everything that is always needed has been listed: from here on deadlines run.
    fn become_ready(&mut self) {
        if core_kinds().iter().all(|kind| self.view.knows(kind)) {
            self.ready = true;
            self.watching_since = self.now();
            self.read_anchors();
            self.touch(Touched::Everything);
        }
    }

    /// Returns when something is due without an event.
    fn next_wake(&self) -> Option<Timestamp> {
        let apps = self.agenda.next().filter(|_| self.may_decide());
        let git = self.git_not_before.filter(|_| self.fetch_due && self.git_lane.is_none());
        let turn = self.next_turn();
        let question = self.next_question().filter(|_| self.may_decide());
        [apps, git, turn, question].into_iter().flatten().min()
    }

    fn touch(&mut self, touched: Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Apps(names) => {
                let known = names.iter().filter(|name| self.apps.contains_key(*name));
                known.for_each(|name| self.agenda.touch(name));
            }
            Touched::Everything => self.apps.keys().for_each(|name| self.agenda.touch(name)),
        }
    }
}
