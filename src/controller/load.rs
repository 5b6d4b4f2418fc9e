//! Reads HEAD into the applications: what they render, their ledgers and decisions, and what others have to do with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;

use super::{
    Controller, Ports,
    app::App,
    journals::{self, AppLedger, Journal, Journals},
    named,
    overlay::Overlay,
    publish::Publication,
    source::{AT_A_TIME, News, Source, astray, ledger_of},
};
use crate::core::{
    analysis::Metric,
    cluster::{Kind, ObjectKey},
    ledger::DecisionFile,
    names::{AppName, Digest, Revision, RolloutId},
    repository::{Merge, Repository, RepositoryError},
    rollout::{
        self,
        input::{DecisionAtHead, HeadContent, Predecessor, Repair, RepairWanted, files},
        jobs, labels,
        render::{Maker, Render, Workload},
        state::State,
        view::Touched,
    },
    traffic::Router,
};

/// What of an application's ledger was not read yet at HEAD.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    /// Whether plans or journals were found that nobody looked at.
    journals: bool,
    /// The rollouts in whose directories something changed.
    directories: BTreeSet<u32>,
    /// Whether nothing is known of what changed.
    everything: bool,
}

/// A push of ours.
#[derive(Clone, Copy)]
pub(super) struct Ours<'a> {
    /// The commit that it was made on.
    pub onto: &'a Revision,
    /// What was pushed, which the ledgers have taken already.
    pub publications: &'a [(Publication, bool)],
}

impl Controller {
    /// Reads the branch at a commit, as [`Controller::load`] does; writes that are under way go on meanwhile.
    pub(super) async fn load_beside(
        &mut self,
        head: &Revision,
        pushed: Option<Ours<'_>>,
    ) -> Result<(), RepositoryError> {
        let mut acts = std::mem::take(&mut self.acts);
        let read = acts.beside(self.load(head, pushed)).await;
        self.acts = acts;
        read
    }

    /// Reads the branch at a commit. `pushed` is a push of ours that ended there.
    ///
    /// What fails half-way is gone on with by the next call: only when everything is read is the commit the one that
    /// was seen.
    pub(super) async fn load(&mut self, head: &Revision, pushed: Option<Ours<'_>>) -> Result<(), RepositoryError> {
        let was_read = self.unread.is_empty();
        let News { branch, mut contents, changes } = self.source.advance(head).await?;
        if self.branch.as_ref().is_some_and(|before| before.broken.is_some()) {
            // Those that were gone already when this began could not be told from the others meanwhile.
            contents.extend(self.apps.keys().map(|name| (name.clone(), self.source.content(name))));
        }
        for (name, content) in contents {
            if !self.apps.contains_key(&name) {
                self.unread.entry(name.clone()).or_default().everything = true;
            }
            if !same(self.apps.get(&name).and_then(|app| app.content.as_ref()), &content) {
                self.set_content(&name, content);
                self.learn_kinds_of(&name).await;
            }
        }
        match &changes {
            Some(changes) => changes.iter().for_each(|change| self.note_ledger(&change.path)),
            None => self.apps.keys().for_each(|app| self.unread.entry(app.clone()).or_default().everything = true),
        }
        if changes.as_ref().is_none_or(|changes| changes.iter().any(|change| change.path == ACCEPTED)) {
            self.accepted = None;
        }
        for name in self.journals.read(head, pushed.map(|ours| ours.onto), changes.as_deref()).await? {
            self.unread.entry(name).or_default().journals = true;
        }
        if let Some(ours) = pushed.filter(|_| was_read && changes.is_some()) {
            ours.publications.iter().for_each(|(publication, _)| self.is_read(publication));
        }
        if self.accepted.is_none() {
            self.accepted = Some(accepted(&self.ports, head).await?);
        }
        // What was lost may be there again, or may be accepted as lost now.
        let rewritten = self.apps.iter().filter(|(_, app)| app.rewritten.is_some()).map(|(name, _)| name.clone());
        rewritten.for_each(|name| self.unread.entry(name).or_default().journals = true);
        self.load_ledgers(head).await?;
        if self.branch.as_ref().is_some_and(|before| before.freezes != branch.freezes) {
            self.touch(Touched::Everything);
        }
        self.branch = Some(branch);
        Ok(())
    }

    /// Notes whose ledger a path belongs to.
    fn note_ledger(&mut self, path: &str) {
        let Some((app, rest)) = path.strip_prefix("rollouts/").and_then(|path| path.split_once('/')) else { return };
        let unread = self.unread.entry(AppName::new(app)).or_default();
        if let Some(number) = rest.split('/').next().and_then(|number| number.parse().ok()) {
            unread.directories.insert(number);
        }
    }

    /// Takes what was just pushed for an application as read: nobody else wrote between the commit that it was made on,
    /// which was read, and the one that it ended at. Decisions are looked for where a rollout was opened.
    fn is_read(&mut self, publication: &Publication) {
        let Some(app) = self.apps.get_mut(&publication.app) else { return };
        let mut pushed = publication.rollouts().map(|number| app.ledger.rollouts.get(&number));
        let journals = &mut self.journals;
        if !pushed.all(|journal| journal.is_some_and(|journal| journals.is_as_pushed(journal))) {
            return;
        }
        let Some(unread) = self.unread.get_mut(&publication.app).filter(|unread| !unread.everything) else { return };
        unread.journals = false;
        if publication.opened.is_none() {
            app.copies_intact = true;
            app.late.retain(|number, files| !rollout::late_answers(&app.ledger.states, *number, files).is_empty());
            self.unread.remove(&publication.app);
            self.agenda.touch(&publication.app);
        }
    }

    /// Reads what is new in the applications' ledgers: the journals first, and then what people decided.
    async fn load_ledgers(&mut self, head: &Revision) -> Result<(), RepositoryError> {
        let mut places = Vec::new();
        for (name, unread) in self.unread.clone() {
            match self.load_journals(&name, &unread).await? {
                Some(last_known) => places.push((name, unread, last_known)),
                // A directory among the ledgers that is no application's.
                None => drop(self.unread.remove(&name)),
            }
        }
        let (source, repository, journals) = (&self.source, &*self.ports.repository, &self.journals);
        let reading = places.iter().filter_map(|(name, unread, last_known)| {
            let app = self.apps.get(name)?;
            Some(decided(source, repository, journals, head, Place { name, app, unread, last_known: *last_known }))
        });
        let reading: Vec<_> = reading.collect();
        let found: Vec<Decided> = stream::iter(reading).buffered(AT_A_TIME).try_collect().await?;
        for decided in found {
            self.unread.remove(&decided.app);
            self.agenda.touch(&decided.app);
            if let Some(app) = self.apps.get_mut(&decided.app) {
                app.decisions = decided.decisions;
                app.in_advance = decided.in_advance;
                app.copies_intact = decided.copies_intact;
                app.late = decided.late;
                app.astray = decided.astray;
            }
        }
        Ok(())
    }

    /// Reads what is new in an application's journals. Returns the number of the last rollout that was known before; `None`
    /// where there is no such application.
    async fn load_journals(&mut self, name: &AppName, unread: &Unread) -> Result<Option<u32>, RepositoryError> {
        let known = self.apps.get(name);
        if known.is_none() && !unread.journals {
            return Ok(None);
        }
        let last_known = known.and_then(|app| app.ledger.states.last()).map_or(0, |state| state.plan.rollout.number);
        if unread.journals || unread.everything || known.is_none() {
            let none = AppLedger::default();
            let (ledger, rewritten) = known.map_or((&none, false), |app| (&app.ledger, app.rewritten.is_some()));
            let git = self.journals.of(name, ledger).await?;
            let newer = self.journals.newer(name);
            let content = self.source.content(name);
            let app = self.apps.entry(name.clone()).or_default();
            app.newer = newer.map(|(rollout, version)| {
                format!("a newer Locktender opened {rollout}, whose plan is of `{version}`: run that one")
            });
            match git {
                Some(git) => take_git(name, app, git, self.accepted.as_ref()),
                None if rewritten => app.rewritten = None,
                None => {}
            }
            if app.rewritten.is_none() {
                app.rewritten = named::lost(name, &app.ledger, self.view.named(name), self.accepted.as_ref());
            }
            self.line.follow(name, app);
            if app.content.is_none() {
                self.set_content(name, content);
            }
        }
        Ok(Some(last_known))
    }

    /// Renders what deciding for an application needs.
    pub(super) async fn load_renders(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        let needed = rollout::needed(&app.ledger.states);
        let missing: Vec<Revision> =
            needed.iter().filter(|revision| !app.renders.contains_key(*revision)).cloned().collect();
        for revision in missing {
            // What was taken over was rendered under the name that it had.
            let states = self.apps.get(name).map_or(&[][..], |app| &app.ledger.states);
            let inherited = rollout::inherited(states).filter(|inherited| inherited.stable.revision == revision);
            let called = inherited.map_or(name, |inherited| inherited.app).clone();
            let at_head = match self.apps.get(name).and_then(|app| app.content.as_ref()) {
                Some(HeadContent::Rendered(render)) if render.revision == revision => Some(render.clone()),
                _ => None,
            };
            let render = match at_head {
                Some(render) => Some(render),
                None => match self.source.render_at(&called, &revision).await {
                    Ok(render) => render,
                    Err(error) => {
                        warn!(app = %name, %error, revision = revision.short(), "an earlier revision cannot be rendered");
                        None
                    }
                },
            };
            if let (Some(render), Some(app)) = (render, self.apps.get_mut(name)) {
                let render = match rollout::released_as(&app.ledger.states, &revision) {
                    Some(digests) if *digests != render.digests => {
                        Arc::new(render.as_ref().clone().released_as(digests))
                    }
                    _ => render,
                };
                app.renders.insert(revision, render);
            }
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.renders.retain(|revision, _| needed.contains(revision));
        }
        self.load_predecessor(name).await;
        self.learn_kinds_of(name).await;
    }

    async fn learn_kinds_of(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        let head = match &app.content {
            Some(HeadContent::Rendered(render)) => Some(render),
            _ => None,
        };
        let renders = app.renders.values().chain(head);
        // Which unit a pod is in that was not made for one, its node says.
        let all: Vec<&Render> = renders.clone().map(Arc::as_ref).collect();
        let nodes = rollout::asks_for_nodes(&all, &self.view).then(rollout::nodes);
        let planned = app.ledger.states.last().and_then(|state| state.plan.policy.as_ref()).map(|policy| &policy.spec);
        let policies = renders.clone().filter_map(|render| render.policy.as_ref()).chain(planned);
        let measured_by_jobs = policies.clone().flat_map(|policy| policy.metrics.values()).any(Metric::is_job);
        let routers = policies.filter_map(|policy| policy.strategy.beside()?.router);
        let routed: BTreeSet<Kind> = routers.flat_map(Router::kinds).collect();
        let mut kinds: BTreeSet<Kind> = renders
            .flat_map(|render| {
                let config = render.workloads.values().flat_map(|workload| &workload.config);
                // What a StatefulSet's controller keeps of each version tells which pods it would make.
                let sets = render.workloads.values().filter(|workload| workload.maker() != Maker::Slices);
                let revisions = Kind::new("apps", "v1", "ControllerRevision");
                // In which unit a DaemonSet's pod is its node says.
                let nodes = |set: &Workload| (set.maker() == Maker::Nodes).then(|| Kind::new("", "v1", "Node"));
                let watched =
                    sets.flat_map(move |set| [set.object.kind(), revisions.clone()].into_iter().chain(nodes(set)));
                render.objects.iter().chain(config).map(crate::core::manifest::Object::kind).chain(watched)
            })
            .collect();
        kinds.extend(measured_by_jobs.then(jobs::kind));
        kinds.extend(nodes);
        for kind in &routed {
            self.routed.entry(kind.clone()).or_default().insert(name.clone());
        }
        for kind in kinds.into_iter().chain(routed) {
            self.watch(&kind).await;
        }
    }

    /// Takes what HEAD renders of an application, and notes which objects it renders now.
    pub(super) fn set_content(&mut self, name: &AppName, content: HeadContent) {
        let app = self.apps.entry(name.clone()).or_default();
        let before = app.content.replace(content.clone());
        self.agenda.touch(name);
        note_rendered(&mut self.rendered_by, name, before.as_ref(), &content);
        note_dependents(&mut self.dependents, name, before.as_ref(), &content);
    }

    /// Names an application that this one depends on and that is not complete at HEAD.
    pub(super) fn waits_for(&self, app: &App) -> Option<String> {
        let Some(HeadContent::Rendered(render)) = &app.content else { return None };
        let first = render.application.depends_on.iter().find(|other| {
            let Some(other) = self.apps.get(*other) else { return true };
            let complete = other.ledger.states.last().is_some_and(State::is_over);
            let at_head = match (&other.content, rollout::stable_at(&other.ledger.states)) {
                (Some(HeadContent::Rendered(head)), Some(at)) => {
                    other.renders.get(&at.revision).is_some_and(|stable| stable.digests == head.digests)
                }
                _ => false,
            };
            !(complete && at_head)
        });
        first.map(ToString::to_string)
    }

    /// Finds the application that is gone from HEAD and whose workloads this one renders now, and where its stable is.
    ///
    /// It may have come to its end already: then its stable is what its removal began with.
    fn called_before(&self, name: &AppName, app: &App) -> Option<(AppName, Revision)> {
        let Some(HeadContent::Rendered(render)) = &app.content else { return None };
        let states = &app.ledger.states;
        if rollout::stable_at(states).is_some() || states.last().is_some_and(|last| !last.is_over()) {
            return None;
        }
        let live = render.workloads.values().find_map(|workload| self.view.by_key(&workload.key))?;
        let other = AppName::new(live.label(labels::APP).filter(|other| *other != name.as_str())?);
        let before = self.apps.get(&other).filter(|before| matches!(before.content, Some(HeadContent::Removed)))?;
        let revision = match rollout::stable_at(&before.ledger.states) {
            Some(at) => at.revision,
            None => before.ledger.states.last()?.plan.from.as_ref()?.revision.clone(),
        };
        Some((other, revision))
    }

    /// Renders what a renamed application was under its name before.
    async fn load_predecessor(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        let called = self.called_before(name, app);
        let known = app.predecessor.as_ref().map(|known| (&known.app, &known.stable.revision));
        if known == called.as_ref().map(|(app, revision)| (app, revision)) {
            return;
        }
        let mut predecessor = None;
        if let Some((other, revision)) = called {
            let before = self.apps.get(&other);
            let kept = before.and_then(|before| before.renders.get(&revision).cloned());
            let digests = before.and_then(|before| rollout::released_as(&before.ledger.states, &revision)).cloned();
            let stable = match kept {
                Some(kept) => Some(kept),
                None => self.source.render_at(&other, &revision).await.unwrap_or_else(|error| {
                    warn!(app = %name, %error, before = %other, "what it was called before cannot be rendered");
                    None
                }),
            };
            predecessor = stable.map(|stable| {
                let stable = match digests.filter(|digests| *digests != stable.digests) {
                    Some(digests) => Arc::new(stable.as_ref().clone().released_as(&digests)),
                    None => stable,
                };
                Predecessor { app: other, stable }
            });
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.predecessor = predecessor;
        }
    }
}

/// An application whose decisions are to be read, with the last rollout that was known before.
struct Place<'a> {
    name: &'a AppName,
    app: &'a App,
    unread: &'a Unread,
    last_known: u32,
}

/// What people decided about an application, and whether the copies of its records are as they were pushed.
struct Decided {
    app: AppName,
    decisions: Vec<DecisionAtHead>,
    in_advance: Vec<DecisionFile>,
    copies_intact: bool,
    late: BTreeMap<u32, Vec<DecisionFile>>,
    astray: Vec<String>,
}

/// Reads an application's decisions, and whether the copies of its records are as they were pushed.
async fn decided(
    source: &Source,
    repository: &dyn Repository,
    journals: &Journals,
    head: &Revision,
    place: Place<'_>,
) -> Result<Decided, RepositoryError> {
    let Place { name, app, unread, last_known } = place;
    let last = app.ledger.states.last().map(|state| state.plan.rollout.clone());
    let next = RolloutId { app: name.clone(), number: last.as_ref().map_or(1, |last| last.number + 1) };
    let decisions = match &last {
        Some(last) => source.decisions(head, &last.directory()).await?,
        None => Vec::new(),
    };
    let entries = repository.directory(head, &ledger_of(name)).await?.unwrap_or_default();
    let in_advance = match entries.iter().any(|entry| entry.path == next.directory()) {
        true => files(&source.decisions(head, &next.directory()).await?),
        false => Vec::new(),
    };
    let opened = app.ledger.states.iter().map(|state| state.plan.rollout.number).collect();
    let astray = astray(repository, head, &entries, &opened).await?;
    let mut copies_intact = true;
    let mut late = BTreeMap::new();
    if let Some(last) = &last {
        let entries = repository.directory(head, &last.directory()).await?.unwrap_or_default();
        let blob = |file: &str| {
            let path = format!("{}/{file}", last.directory());
            entries.iter().find(|entry| entry.path == path).map(|entry| &entry.id)
        };
        let has_pushed = app.ledger.rollouts.get(&last.number).is_some_and(|known| known.pushed > 0);
        copies_intact = !has_pushed || journals.is_copy(last, blob("plan.yaml"), blob("journal.yaml"));
        // Directories that others came after: those that changed, and the one that was the last until now.
        let older = app.ledger.states.iter().map(|state| state.plan.rollout.number).filter(|it| *it < last.number);
        for number in older {
            let changed = unread.everything || unread.directories.contains(&number) || number >= last_known.max(1);
            let known = app.late.get(&number);
            if !changed {
                late.extend(known.map(|known| (number, known.clone())));
                continue;
            }
            let directory = RolloutId { app: name.clone(), number }.directory();
            late.insert(number, source.decision_files(head, &directory).await?);
        }
    }
    late.retain(|number, files| !rollout::late_answers(&app.ledger.states, *number, files).is_empty());
    Ok(Decided { app: name.clone(), decisions, in_advance, copies_intact, late, astray })
}

/// Notes which application renders which object at HEAD.
fn note_rendered(
    rendered_by: &mut BTreeMap<ObjectKey, BTreeSet<AppName>>,
    name: &AppName,
    before: Option<&HeadContent>,
    now: &HeadContent,
) {
    if let Some(HeadContent::Rendered(before)) = before {
        for key in before.keys() {
            if let Some(apps) = rendered_by.get_mut(&key) {
                apps.remove(name);
                if apps.is_empty() {
                    rendered_by.remove(&key);
                }
            }
        }
    }
    if let HeadContent::Rendered(now) = now {
        for key in now.keys() {
            rendered_by.entry(key).or_default().insert(name.clone());
        }
    }
}

/// Notes on which applications one depends at HEAD.
fn note_dependents(
    dependents: &mut BTreeMap<AppName, BTreeSet<AppName>>,
    name: &AppName,
    before: Option<&HeadContent>,
    now: &HeadContent,
) {
    if let Some(HeadContent::Rendered(before)) = before {
        for other in &before.application.depends_on {
            if let Some(apps) = dependents.get_mut(other) {
                apps.remove(name);
                if apps.is_empty() {
                    dependents.remove(other);
                }
            }
        }
    }
    if let HeadContent::Rendered(now) = now {
        for other in &now.application.depends_on {
            dependents.entry(other.clone()).or_default().insert(name.clone());
        }
    }
}

fn same(known: Option<&HeadContent>, now: &HeadContent) -> bool {
    match (known, now) {
        (Some(HeadContent::Removed), HeadContent::Removed) => true,
        (Some(HeadContent::Broken(one)), HeadContent::Broken(other)) => one == other,
        (Some(HeadContent::Rendered(one)), HeadContent::Rendered(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// Takes what Git has of an application's ledger, beside what it does not have yet.
fn take_git(name: &AppName, app: &mut App, mut git: BTreeMap<u32, Journal>, accepted: Option<&BTreeSet<Digest>>) {
    let has = |id: &Digest| git.values().any(|journal| journal.records.iter().any(|record| record.id == *id));
    let is_accepted = |id: &Digest| accepted.is_some_and(|accepted| accepted.contains(id));
    let expected = app.ledger.pushed_tip();
    if let Some(id) = expected.filter(|id| !has(id) && !is_accepted(id)) {
        app.rewritten = Some(format!(
            "the last record {} is not in the branch's history any more; bring it back, or accept the new history \
             with `locktender audit accept {name}`",
            id.short()
        ));
        return;
    }
    app.rewritten = None;
    if expected.is_none_or(|id| !is_accepted(&id) || has(&id)) {
        journals::join(&mut git, std::mem::take(&mut app.ledger.rollouts));
    }
    app.ledger.rollouts = git;
    app.ledger.refold();
}

/// Where a person says which lost records are accepted as lost.
const ACCEPTED: &str = "rollouts/accepted.yaml";

async fn accepted(ports: &Ports, head: &Revision) -> Result<BTreeSet<Digest>, RepositoryError> {
    let entries = ports.repository.directory(head, "rollouts").await?.unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| entry.path == ACCEPTED) else { return Ok(BTreeSet::new()) };
    let bytes = ports.repository.read(&entry.id, 1 << 20).await?;
    let words = String::from_utf8_lossy(&bytes).into_owned();
    Ok(words.split_whitespace().filter_map(|word| Digest::parse(word).ok()).collect())
}

/// Tries to take a refused target out of Git: merges, and renders the result.
pub(super) async fn try_repair(
    ports: &Ports,
    app: &AppName,
    directory: &str,
    head: &Revision,
    wanted: &RepairWanted,
    stable: &BTreeMap<String, Digest>,
) -> Repair {
    let edits = match ports.repository.merge(directory, &wanted.base, head, &wanted.theirs).await {
        Ok(Merge::Clean(edits)) => edits,
        Ok(Merge::Conflicts(paths)) => {
            return Repair::Impossible(format!("it conflicts with later changes of {}", paths.join(", ")));
        }
        Err(error) => return Repair::Impossible(error.to_string()),
    };
    if edits.is_empty() {
        return Repair::Impossible("what it released does not come from the application's directory".to_owned());
    }
    let app_file = format!("{directory}/app.yaml");
    if matches!(edits.get(&app_file), Some(None)) {
        return Repair::Impossible("it would delete the application".to_owned());
    }
    let overlay = Arc::new(Overlay::new(ports.repository.clone(), edits.clone()));
    let mut source = Source::new(overlay, ports.renderer.clone());
    match source.render_at(app, head).await {
        Ok(Some(render)) if render.digests == *stable => Repair::Clean(edits),
        Ok(Some(_)) => Repair::Impossible("the result would not render what is stable".to_owned()),
        Ok(None) => Repair::Impossible("the result would not render".to_owned()),
        Err(error) => Repair::Impossible(error.to_string()),
    }
}
