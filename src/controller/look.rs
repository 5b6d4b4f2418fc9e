//! Looks without acting: the same reading and the same deciding as the controller, for commands that only show.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Controller, Options, Ports, Reports,
    app::App,
    beforehand::{self, Asker},
    core_kinds,
    journals::AppLedger,
    line::Door,
    restored::unknown_here,
    source::{Branch, Snapshot},
};
use crate::core::{
    cluster::{ClusterError, ClusterEvent, Scope},
    ledger::{Draft, Event, Record},
    names::{AppName, Digest, Revision, RolloutId},
    policy::Settings,
    repository::{Repository, RepositoryError},
    rollout::{
        action::Action,
        input::{Decision, DecisionAtHead, HeadContent},
        render::Render,
        report::{Activity, Reason},
        stable_at,
        state::State,
        turn::Full,
        view::View,
    },
};

/// How long a kind that only an application names is waited for.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// Reads Git and the cluster, and decides as the controller would; nothing is ever written or pushed.
pub struct Look {
    controller: Controller,
    /// An event that was taken and may not be folded yet, so that waiting can be given up at any time.
    pending: Option<ClusterEvent>,
}

/// How many writes the API server is asked about.
const ASKED: usize = 5;

/// What merging something would do to an application.
#[derive(Debug)]
pub struct Preview {
    /// What would be decided; its plan is in `open`.
    pub decision: Decision,
    /// What the API server has against it: with anything here, nothing of it would be put in place.
    pub objections: Vec<String>,
    /// Stable, rendered.
    pub stable: Option<Arc<Render>>,
    /// The rollout that would be superseded.
    pub supersedes: Option<RolloutId>,
    /// The freeze that applies now: the rollout would open when it ends.
    pub frozen: Option<String>,
    /// The rollouts that are under way, where no other may open now.
    pub full: Option<Full>,
}

impl Look {
    /// Starts with nothing seen.
    pub fn new(ports: Ports) -> Self {
        Self { controller: Controller::new(ports, Options::default(), None), pending: None }
    }

    /// Fetches the watched branch and reads it.
    ///
    /// # Errors
    ///
    /// Why it cannot be fetched or read; what was read before stays.
    pub async fn fetch(&mut self) -> Result<Revision, RepositoryError> {
        let tip = self.controller.ports.repository.fetch().await?;
        self.read(&tip).await?;
        Ok(tip)
    }

    /// Reads the watched branch at a commit that is here already.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub async fn read(&mut self, at: &Revision) -> Result<(), RepositoryError> {
        if self.head() == Some(at) {
            return Ok(());
        }
        self.controller.load(at, None).await
    }

    /// Says why Git cannot be asked; decisions are made as the controller would make them then.
    pub fn git_is_away(&mut self, why: Option<String>) {
        self.controller.git.away = why;
    }

    /// Watches the cluster until everything that is needed has been listed, at most for `patience`. Returns why not.
    pub async fn watch(&mut self, patience: Duration) -> Result<(), String> {
        self.controller.start().await;
        let end = tokio::time::Instant::now() + patience;
        loop {
            self.controller.fold_events().await;
            self.controller.become_ready();
            if self.controller.ready && self.lists_everything() {
                return Ok(());
            }
            let event = self.controller.ports.cluster.next_event();
            match tokio::time::timeout_at(end, event).await {
                // A kind that only some manifest names may be unknown to the cluster: that is told of its application.
                Ok(ClusterEvent::Lost { kind, reason }) if !self.controller.ready && core_kinds().contains(&kind) => {
                    return Err(format!("{}: {reason}", kind.kind));
                }
                Ok(event) => self.controller.fold(event).await,
                Err(_) if self.controller.ready => return Ok(()),
                Err(_) => return Err(format!("it did not answer within {} s", patience.as_secs())),
            }
        }
    }

    fn lists_everything(&self) -> bool {
        let view = &self.controller.view;
        self.controller.watched.iter().all(|kind| view.knows(kind) || view.lost(kind).is_some())
    }

    /// Takes the next event of the cluster, and those that came with it. Cancel safe.
    pub async fn next_event(&mut self) {
        if self.pending.is_none() {
            self.pending = Some(self.controller.ports.cluster.next_event().await);
        }
        if let Some(event) = self.pending.clone() {
            self.controller.fold(event).await;
            self.pending = None;
        }
    }

    /// Returns the repository that is read.
    pub fn repository(&self) -> Arc<dyn Repository> {
        self.controller.ports.repository.clone()
    }

    /// Decides for one application; the report says where it is. `None` where there is no such application.
    pub async fn decide(&mut self, app: &AppName) -> Option<Decision> {
        let newer = self.controller.apps.get(app)?.newer.clone();
        self.load(app).await;
        let Some(mut decision) = self.controller.decide(app, Door::Open).await else {
            // Deciding failed: that much can be said.
            return self.controller.apps.get(app)?.report.clone().map(Decision::nothing);
        };
        if let Some(why) = newer {
            decision.report.activity = Activity::Held;
            decision.report.reasons = vec![Reason::Held { why }];
            return Some(Decision::nothing(decision.report));
        }
        if self.ask(app, &decision).await {
            return self.controller.decide(app, Door::Open).await;
        }
        Some(decision)
    }

    /// Loads an application's renders; kinds that only they name are listed before anything is decided.
    async fn load(&mut self, app: &AppName) {
        self.controller.load_renders(app).await;
        if self.controller.ready && !self.lists_everything() {
            // A kind that does not answer is told of where it is needed.
            let _ = self.watch(LISTED_WITHIN).await;
        }
    }

    /// Asks the API server what must be asked before a decision is followed; returns whether that may change it.
    async fn ask(&mut self, app: &AppName, decision: &Decision) -> bool {
        if !self.controller.ready {
            return false;
        }
        let Some((revision, questions)) = self.controller.to_ask(app, decision) else { return false };
        let (cluster, now) = (self.controller.ports.cluster.clone(), self.controller.now());
        let Some(known) = self.controller.apps.get_mut(app) else { return false };
        let account = known.account();
        let asker = Asker::Person;
        let answer = beforehand::ask(&cluster, account.as_ref(), asker, revision, questions, now).await;
        let objects = !answer.objections.is_empty();
        known.answer = Some(answer);
        objects
    }

    /// Asks the API server which of these writes it would refuse, and why: the controller's own attempts are not known
    /// here. Only the first few are asked about.
    pub async fn refusals(&self, actions: &[Action]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for action in actions.iter().filter(|action| action.drift.is_some()).take(ASKED) {
            if let Err(error @ ClusterError::Invalid(_)) = self.controller.ports.cluster.dry_run(&action.write).await {
                reasons.push(Reason::Refused { why: format!("{}: {error}", action.why) });
            }
        }
        reasons
    }

    /// Decides for every application that is there or was.
    pub async fn reports(&mut self) -> Reports {
        let mut reports = Reports::new();
        for app in self.apps() {
            if let Some(decision) = self.decide(&app).await {
                reports.insert(app, decision.report);
            }
        }
        reports
    }

    /// Returns every application that is there or was.
    pub fn apps(&self) -> Vec<AppName> {
        self.controller.apps.keys().cloned().collect()
    }

    fn app(&self, app: &AppName) -> Option<&App> {
        self.controller.apps.get(app)
    }

    /// Returns the commit that was read.
    pub fn head(&self) -> Option<&Revision> {
        self.controller.branch.as_ref().map(|branch| &branch.revision)
    }

    /// Returns the branch as it was read, its applications aside.
    pub fn branch(&self) -> Option<&Branch> {
        self.controller.branch.as_ref()
    }

    /// Returns the branch as it was read, with all its applications.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let apps = self.controller.source.contents().clone();
        Some(Snapshot { branch: self.branch()?.clone(), apps })
    }

    /// Returns what is known of the cluster.
    pub fn view(&self) -> &View {
        &self.controller.view
    }

    /// Returns an application's ledger.
    pub fn ledger(&self, app: &AppName) -> Option<&AppLedger> {
        self.app(app).map(|app| &app.ledger)
    }

    /// Returns an application's rollouts, oldest first.
    pub fn rollouts(&self, app: &AppName) -> &[State] {
        self.app(app).map_or(&[], |app| &app.ledger.states)
    }

    /// Returns the decisions in the latest rollout's directory.
    pub fn decisions(&self, app: &AppName) -> &[DecisionAtHead] {
        self.app(app).map_or(&[], |app| &app.decisions)
    }

    /// Returns what HEAD renders of an application; `None` where there never was one.
    pub fn content(&self, app: &AppName) -> Option<&HeadContent> {
        self.app(app)?.content.as_ref()
    }

    /// Returns why an application's history cannot be believed.
    pub fn rewritten(&self, app: &AppName) -> Option<&str> {
        self.app(app)?.rewritten.as_deref()
    }

    /// Says what an application would do if the branch were what `merged` says. Without a cluster that was watched,
    /// stable is taken to be in place as Git has it.
    pub async fn preview(&mut self, app: &AppName, merged: &Snapshot) -> Option<Preview> {
        let names: Vec<AppName> = self.apps().into_iter().chain(merged.apps.keys().cloned()).collect();
        for name in names {
            self.controller.set_content(&name, merged.content(&name));
            if let Some(known) = self.controller.apps.get_mut(&name) {
                known.copies_intact = true;
            }
        }
        let now = self.controller.now();
        let frozen = merged.branch.frozen(app, now);
        let limit = merged.branch.settings.concurrent;
        let full = limit.filter(|limit| self.controller.line.room(*limit, &BTreeSet::new()) == 0);
        let full = full.map(|limit| self.controller.line.full(limit));
        // What would open is shown, and what it waits for beside it.
        let settings = Settings { concurrent: None, ..merged.branch.settings.clone() };
        self.controller.branch = Some(Branch { freezes: Vec::new(), settings, ..merged.branch.clone() });
        self.load(app).await;
        let ready = self.controller.ready;
        let known = self.controller.apps.get_mut(app)?;
        let stable = stable_at(&known.ledger.states).and_then(|at| known.renders.get(&at.revision).cloned());
        let supersedes = known.ledger.states.last().filter(|last| !last.is_over()).cloned();
        let opens_another = supersedes.as_ref().is_some_and(|running| match merged.content(app) {
            HeadContent::Rendered(render) => render.digests != running.plan.to.workloads,
            HeadContent::Removed => !running.plan.inputs.files.is_empty(),
            HeadContent::Broken(_) => false,
        });
        if opens_another && let Some(last) = known.ledger.states.last_mut() {
            // As the record that the controller writes before it opens the next one.
            let draft = Draft::new(Event::Superseded, None, "a new revision");
            let tip = last.tip();
            last.take(Record::chain(draft, u32::MAX, now, merged.branch.revision.clone(), tip));
        }
        if !ready && let Some(stable) = &stable {
            self.assume(app, stable);
        }
        let decision = self.controller.decide_once(app, Door::Open)?;
        self.ask(app, &decision).await;
        let objections = self.app(app)?.objections().to_vec();
        let supersedes = supersedes.filter(|_| opens_another).map(|state| state.plan.rollout.clone());
        let full = full.filter(|_| decision.open.is_some() && supersedes.is_none());
        Some(Preview { decision, objections, stable, supersedes, frozen, full })
    }

    /// Takes an application's stable to be in place.
    fn assume(&mut self, app: &AppName, stable: &Render) {
        let labelled = |object| crate::core::rollout::labelled(object, app);
        let objects: Vec<_> = stable.objects.iter().map(labelled).collect();
        for object in objects {
            self.controller.view.put(object);
        }
    }

    /// Returns where objects of the kinds that the cluster told of live.
    pub async fn learn_scopes(&mut self) -> BTreeMap<crate::core::cluster::Kind, Scope> {
        let mut scopes = BTreeMap::new();
        for kind in self.controller.watched.clone() {
            if let Ok(scope) = self.controller.ports.cluster.scope(&kind).await {
                self.controller.source.learn(kind.clone(), scope);
                scopes.insert(kind, scope);
            }
        }
        scopes
    }

    /// Returns an application's earlier version, rendered.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn render_at(&mut self, app: &AppName, at: &Revision) -> Result<Option<Arc<Render>>, RepositoryError> {
        self.controller.source.render_at(app, at).await
    }

    /// Returns what the controller's anchor says that it may not do for an application: whoever looks may have rights that
    /// the controller lacks.
    pub fn refused(&self, app: &AppName) -> Vec<Reason> {
        let anchor = self
            .app(app)
            .and_then(|known| self.controller.view.get("", "ConfigMap", &known.namespace(), &super::anchor::name(app)));
        let lines = anchor.and_then(super::anchor::lacks).unwrap_or_default().lines();
        lines.map(|why| Reason::Refused { why: why.to_owned() }).collect()
    }

    /// Returns the records that the cluster names: what the controller believes that Git has.
    pub fn named(&self, app: &AppName) -> BTreeSet<Digest> {
        let view = &self.controller.view;
        let anchor = view.of_kind("", "ConfigMap").filter_map(super::anchor::read).find(|anchor| anchor.app == *app);
        let mut named: BTreeSet<Digest> = view.named(app).map(|named| named.id).collect();
        named.extend(anchor.and_then(|anchor| anchor.pushed));
        named
    }

    /// Returns the last record of which the cluster knows nothing, though much was done under it: it was restored, or is another.
    pub fn unknown_here(&self, app: &AppName) -> Option<Digest> {
        let ledger = &self.controller.apps.get(app)?.ledger;
        let unknown = unknown_here(ledger, &self.named(app), self.controller.accepted.as_ref())?;
        unknown.last().map(|record| record.id)
    }

    /// Returns the time.
    pub fn now(&self) -> Timestamp {
        self.controller.now()
    }
}
