//! Reads HEAD into the applications: what they render, their ledgers and decisions, and what others have to do with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::warn;

use super::{Controller, Ports, app::App, journals, overlay::Overlay, source::Source};
use crate::core::{
    cluster::{Kind, ObjectKey},
    ledger::journal,
    names::{AppName, Digest, Revision, RolloutId},
    repository::{Merge, RepositoryError},
    rollout::{
        self,
        input::{HeadContent, Predecessor, Repair, RepairWanted, files},
        labels, plan,
        state::State,
        view::Touched,
    },
};

impl Controller {
    /// Reads the branch at a commit.
    pub(super) async fn load(&mut self, head: &Revision) -> Result<(), RepositoryError> {
        let snapshot = self.source.snapshot(head).await?;
        let touched = self.journals.read(head).await?;
        let mut names: BTreeSet<AppName> = snapshot.apps.keys().cloned().collect();
        names.extend(self.journals.apps());
        names.extend(self.apps.keys().cloned());
        let accepted = accepted(&self.ports, head).await?;
        for name in &names {
            let first_time = !self.apps.contains_key(name);
            let expected = self.apps.get(name).and_then(|app| app.ledger.pushed_tip());
            let app = self.apps.entry(name.clone()).or_default();
            if first_time || touched.contains(name) || app.rewritten.is_some() || app.content.is_none() {
                let git = self.journals.of(name).await?;
                let newer = self.journals.newer(name);
                app.newer = newer.map(|(rollout, version)| {
                    format!("a newer Locktender opened {rollout}, whose plan is of `{version}`: run that one")
                });
                take_git(app, git, expected, &accepted);
                app.dirty = true;
            }
            let content = snapshot.content(name);
            if !same(app.content.as_ref(), &content) {
                self.set_content(name, content);
            }
        }
        if self.snapshot.as_ref().is_some_and(|before| before.freezes != snapshot.freezes) {
            self.touch(Touched::Everything);
        }
        self.snapshot = Some(snapshot);
        for name in names {
            self.load_decisions(&name).await?;
        }
        self.learn_kinds().await;
        Ok(())
    }

    /// Reads an application's decisions and the copies of its records, where its ledger has another tree.
    async fn load_decisions(&mut self, name: &AppName) -> Result<(), RepositoryError> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let head = snapshot.revision.clone();
        let tree = snapshot.ledgers.get(name).cloned();
        let Some(app) = self.apps.get_mut(name) else { return Ok(()) };
        if app.ledger_tree == tree && app.ledger_tree.is_some() && !app.dirty {
            return Ok(());
        }
        app.ledger_tree = tree;
        app.dirty = true;
        let last = app.ledger.states.last().map(|state| state.plan.rollout.clone());
        let next = RolloutId { app: name.clone(), number: last.as_ref().map_or(1, |last| last.number + 1) };
        let decisions = match &last {
            Some(last) => self.source.decisions(&head, &last.directory()).await?,
            None => Vec::new(),
        };
        let in_advance = files(&self.source.decisions(&head, &next.directory()).await?);
        let Some(app) = self.apps.get_mut(name) else { return Ok(()) };
        app.decisions = decisions;
        app.in_advance = in_advance;
        app.copies_intact = true;
        let Some(last) = last else { return Ok(()) };
        let Some(known) = app.ledger.rollouts.get(&last.number) else { return Ok(()) };
        let wanted =
            [("plan.yaml", plan::write(&known.plan)), ("journal.yaml", journal::write(&known.records[..known.pushed]))];
        let entries = self.ports.repository.directory(&head, &last.directory()).await?.unwrap_or_default();
        let mut intact = true;
        for (file, text) in wanted {
            let path = format!("{}/{file}", last.directory());
            let entry = entries.iter().find(|entry| entry.path == path);
            intact &= match entry {
                Some(entry) => {
                    self.ports.repository.read(&entry.id, 64 << 20).await.is_ok_and(|bytes| bytes == text.as_bytes())
                }
                None => false,
            };
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.copies_intact = intact;
        }
        Ok(())
    }

    /// Renders what deciding for an application needs.
    pub(super) async fn load_renders(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        let needed = rollout::needed(&app.ledger.states);
        let missing: Vec<Revision> =
            needed.iter().filter(|revision| !app.renders.contains_key(*revision)).cloned().collect();
        for revision in missing {
            let at_head = match self.apps.get(name).and_then(|app| app.content.as_ref()) {
                Some(HeadContent::Rendered(render)) if render.revision == revision => Some(render.clone()),
                _ => None,
            };
            let render = match at_head {
                Some(render) => Some(render),
                None => match self.source.render_at(name, &revision).await {
                    Ok(render) => render,
                    Err(error) => {
                        warn!(app = %name, %error, revision = revision.short(), "an earlier revision cannot be rendered");
                        None
                    }
                },
            };
            if let (Some(render), Some(app)) = (render, self.apps.get_mut(name)) {
                app.renders.insert(revision, render);
            }
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.renders.retain(|revision, _| needed.contains(revision));
        }
        self.learn_kinds_of(name).await;
    }

    async fn learn_kinds_of(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        let head = match &app.content {
            Some(HeadContent::Rendered(render)) => Some(render),
            _ => None,
        };
        let renders = app.renders.values().chain(head);
        let kinds: BTreeSet<Kind> = renders
            .flat_map(|render| {
                let config = render.workloads.values().flat_map(|workload| &workload.config);
                render.objects.iter().chain(config).map(crate::core::manifest::Object::kind)
            })
            .collect();
        for kind in kinds {
            self.watch(&kind).await;
        }
    }

    async fn learn_kinds(&mut self) {
        let names: Vec<AppName> = self.apps.iter().filter(|(_, app)| app.dirty).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.learn_kinds_of(&name).await;
        }
    }

    /// Takes what HEAD renders of an application, and notes which objects it renders now.
    pub(super) fn set_content(&mut self, name: &AppName, content: HeadContent) {
        let app = self.apps.entry(name.clone()).or_default();
        let before = app.content.replace(content.clone());
        app.dirty = true;
        note_rendered(&mut self.rendered_by, name, before.as_ref(), &content);
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

    /// Finds the application that is gone from HEAD and whose objects this one renders now.
    pub(super) fn predecessor(&self, name: &AppName, app: &App) -> Option<Predecessor> {
        let Some(HeadContent::Rendered(render)) = &app.content else { return None };
        if !app.ledger.states.is_empty() {
            return None;
        }
        let live = render.workloads.values().find_map(|workload| self.view.by_key(&workload.key))?;
        let other = AppName::new(live.label(labels::APP).filter(|other| *other != name.as_str())?);
        let before = self.apps.get(&other).filter(|before| matches!(before.content, Some(HeadContent::Removed)))?;
        let at = rollout::stable_at(&before.ledger.states)?;
        let stable = before.renders.get(&at.revision)?.clone();
        Some(Predecessor { app: other, stable })
    }
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

fn same(known: Option<&HeadContent>, now: &HeadContent) -> bool {
    match (known, now) {
        (Some(HeadContent::Removed), HeadContent::Removed) => true,
        (Some(HeadContent::Broken(one)), HeadContent::Broken(other)) => one == other,
        (Some(HeadContent::Rendered(one)), HeadContent::Rendered(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// Takes what Git has of an application's ledger, beside what it does not have yet.
fn take_git(
    app: &mut App,
    mut git: BTreeMap<u32, journals::Journal>,
    expected: Option<Digest>,
    accepted: &BTreeSet<Digest>,
) {
    let has = |id: &Digest| {
        git.values().any(|journal: &journals::Journal| journal.records.iter().any(|record| record.id == *id))
    };
    let lost = expected.filter(|id| !has(id) && !accepted.contains(id));
    if let Some(id) = lost {
        app.rewritten = Some(format!(
            "the last record {} is not in the branch's history any more; bring it back, or accept the new history \
             with `locktender audit accept`",
            id.short()
        ));
        return;
    }
    app.rewritten = None;
    if expected.is_none_or(|id| !accepted.contains(&id) || has(&id)) {
        journals::join(&mut git, std::mem::take(&mut app.ledger.rollouts));
    }
    app.ledger.rollouts = git;
    app.ledger.refold();
}

/// Reads which lost records a person has accepted as lost.
async fn accepted(ports: &Ports, head: &Revision) -> Result<BTreeSet<Digest>, RepositoryError> {
    let entries = ports.repository.directory(head, "rollouts").await?.unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| entry.path == "rollouts/accepted.yaml") else {
        return Ok(BTreeSet::new());
    };
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
