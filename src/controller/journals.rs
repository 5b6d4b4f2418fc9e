//! The truth about every rollout: the longest chain of our records that is reachable from HEAD, and what the anchors
//! have beside it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::core::{
    ledger::{Record, journal},
    names::{AppName, BlobId, Digest, Revision, RolloutId},
    repository::{Change, EntryKind, Repository, RepositoryError},
    rollout::{
        plan::{self, Plan},
        state::State,
    },
};

/// Larger journals than this are not ours.
const LARGEST: u64 = 64 << 20;
const PLAN: &str = "plan.yaml";
const JOURNAL: &str = "journal.yaml";

/// One rollout's ledger.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Its plan.
    pub plan: Plan,
    /// Its records; those from `pushed` on are not in Git yet.
    pub records: Vec<Record>,
    /// How many records Git has.
    pub pushed: usize,
    /// Those that Git has as Locktender writes them: what is pushed next is this with the new ones after it.
    text: Arc<str>,
}

impl Journal {
    /// Begins with these records, of which Git has so many.
    pub fn new(plan: Plan, records: Vec<Record>, pushed: usize) -> Self {
        let text = journal::write(&records[..pushed.min(records.len())]).into();
        Self { plan, pushed: pushed.min(records.len()), records, text }
    }

    /// Returns the journal's text with `more` records after all that are here.
    pub fn text_with<'a>(&'a self, more: impl Iterator<Item = &'a Record>) -> String {
        let mut text = self.text.to_string();
        self.records[self.pushed..].iter().chain(more).for_each(|record| journal::write_one(record, &mut text));
        text
    }

    /// Notes that Git has every record: the journal as it was pushed.
    fn is_pushed(&mut self, text: Arc<str>) {
        self.pushed = self.records.len();
        self.text = text;
    }
}

/// Everything that is known of one application's rollouts.
#[derive(Clone, Debug, Default)]
pub struct AppLedger {
    /// By number.
    pub rollouts: BTreeMap<u32, Journal>,
    /// Folded, oldest first.
    pub states: Vec<State>,
}

impl AppLedger {
    /// Folds what has changed: of a journal that only grew, what is new.
    pub fn refold(&mut self) {
        let mut known: BTreeMap<u32, State> =
            self.states.drain(..).map(|state| (state.plan.rollout.number, state)).collect();
        let fold = |(number, journal): (&u32, &Journal)| {
            let grew = known.remove(number).filter(|state| {
                let seen = journal.records.get(..state.records.len());
                state.plan.hash == journal.plan.hash
                    && seen.is_some_and(|seen| state.tip() == journal::tip(seen, journal.plan.hash))
            });
            let Some(mut state) = grew else { return State::fold(journal.plan.clone(), journal.records.clone()) };
            for record in &journal.records[state.records.len()..] {
                state.take(record.clone());
            }
            state
        };
        self.states = self.rollouts.iter().map(fold).collect();
    }

    /// Takes what was decided: from here on it counts.
    pub fn append(&mut self, opened: Option<Plan>, records: impl IntoIterator<Item = (u32, Record)>) {
        if let Some(plan) = opened {
            self.rollouts.insert(plan.rollout.number, Journal::new(plan, Vec::new(), 0));
        }
        for (number, record) in records {
            if let Some(journal) = self.rollouts.get_mut(&number) {
                journal.records.push(record);
            }
        }
        self.refold();
    }

    /// Notes which journals were pushed, each as it was pushed.
    pub fn are_pushed(&mut self, texts: impl IntoIterator<Item = (u32, Arc<str>)>) {
        for (number, text) in texts {
            if let Some(journal) = self.rollouts.get_mut(&number) {
                journal.is_pushed(text);
            }
        }
    }

    /// Returns the id of the last record of all; `None` before the first.
    pub fn tip(&self) -> Option<Digest> {
        self.rollouts.values().rev().find_map(|journal| journal.records.last()).map(|record| record.id)
    }

    /// Returns the id of the last record that Git has.
    pub fn pushed_tip(&self) -> Option<Digest> {
        let pushed = |journal: &Journal| journal.records.get(journal.pushed.checked_sub(1)?).map(|record| record.id);
        self.rollouts.values().rev().find_map(pushed)
    }

    /// Returns whether records are not in Git yet.
    pub fn has_unpushed(&self) -> bool {
        self.rollouts.values().any(|journal| journal.pushed < journal.records.len())
    }

    /// Returns whether a record is among those known.
    pub fn contains(&self, id: &Digest) -> bool {
        self.rollouts.values().rev().any(|journal| journal.records.iter().rev().any(|record| record.id == *id))
    }
}

/// What was found at one place of the ledger, in any reachable commit.
#[derive(Default)]
struct Versions {
    plans: BTreeSet<BlobId>,
    journals: BTreeSet<BlobId>,
    /// Journals that were not looked at yet, oldest first.
    unread: VecDeque<BlobId>,
    /// The longest chain of those that were.
    longest: Option<Longest>,
}

/// A journal as some commit has it.
struct Longest {
    blob: BlobId,
    text: Bytes,
    records: Vec<Record>,
    /// Whether it is written as Locktender writes it, byte for byte.
    is_ours: bool,
}

impl Longest {
    fn read(blob: BlobId, text: Bytes) -> Self {
        let plain = String::from_utf8_lossy(&text);
        let records = journal::read(&plain).unwrap_or_default();
        let is_ours = journal::write(&records) == plain;
        Self { blob, text, records, is_ours }
    }

    /// Takes a journal that begins with this one: only what is new in it is read and verified. Returns whether it is
    /// such a one, and can be believed.
    fn grow(&mut self, blob: &BlobId, text: &Bytes) -> bool {
        let Some(rest) = text.strip_prefix(self.text.as_ref()) else { return false };
        let rest = String::from_utf8_lossy(rest);
        // Without the mark the last record that is known would go on.
        let last = self.records.last().filter(|_| rest.starts_with("---\n"));
        let Some(more) = last.and_then(|last| journal::read_after(Some(last), &rest).ok()) else { return false };
        self.is_ours &= journal::write(&more) == rest;
        self.records.extend(more);
        self.blob = blob.clone();
        self.text = text.clone();
        true
    }
}

/// A plan as some commit has it.
#[derive(Clone)]
enum ReadPlan {
    /// Whether it is written as Locktender writes it, byte for byte.
    Ours(Arc<Plan>, bool),
    /// An API version that this program does not know.
    Newer(String),
    Unreadable,
}

/// Reads the ledger from Git, and remembers every version that it has read.
pub struct Journals {
    repository: Arc<dyn Repository>,
    seen: Option<Revision>,
    versions: BTreeMap<RolloutId, Versions>,
    plans: HashMap<BlobId, ReadPlan>,
}

impl Journals {
    /// Starts with nothing read.
    pub fn new(repository: Arc<dyn Repository>) -> Self {
        Self { repository, seen: None, versions: BTreeMap::new(), plans: HashMap::new() }
    }

    fn of_app(&self, app: &AppName) -> impl DoubleEndedIterator<Item = (&RolloutId, &Versions)> {
        let id = |number| RolloutId { app: app.clone(), number };
        self.versions.range(id(0)..=id(u32::MAX))
    }

    /// Returns which rollout of an application a newer Locktender opened, and the API version of its plan: older code
    /// leaves such an application alone. Tells of what [`Journals::of`] has read.
    pub fn newer(&self, app: &AppName) -> Option<(RolloutId, String)> {
        self.of_app(app).rev().find_map(|(rollout, versions)| {
            let version = versions.plans.iter().find_map(|blob| match self.plans.get(blob) {
                Some(ReadPlan::Newer(version)) => Some(version),
                _ => None,
            })?;
            Some((rollout.clone(), version.clone()))
        })
    }

    /// Finds what is reachable from `head`, and returns the applications whose ledger may be another now.
    ///
    /// `pushed` is where a push of ours began that ended at `head`. What such commits have between them is no secret:
    /// they only added to journals, so that the last of them has everything, and `changes` says what that is.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn read(
        &mut self,
        head: &Revision,
        pushed: Option<&Revision>,
        changes: Option<&[Change]>,
    ) -> Result<BTreeSet<AppName>, RepositoryError> {
        let mut touched = BTreeSet::new();
        if self.seen.as_ref() == Some(head) {
            return Ok(touched);
        }
        if let (Some(changes), true) = (changes, self.seen.is_some() && self.seen.as_ref() == pushed) {
            for change in changes {
                if let Some((blob, EntryKind::File)) = &change.now {
                    touched.extend(self.found(&change.path, blob.clone()));
                }
            }
            self.seen = Some(head.clone());
            return Ok(touched);
        }
        let continues = match &self.seen {
            Some(seen) => self.repository.is_ancestor(seen, head).await?,
            None => false,
        };
        let since = self.seen.clone().filter(|_| continues);
        let found = self.repository.versions(head, since.as_ref(), "rollouts", &[PLAN, JOURNAL]).await?;
        if !continues {
            // Another history: what only the old one had is not reachable any more.
            touched.extend(self.versions.keys().map(|rollout| rollout.app.clone()));
            self.versions.clear();
        }
        for version in found {
            touched.extend(self.found(&version.path, version.blob));
        }
        self.seen = Some(head.clone());
        Ok(touched)
    }

    /// Notes a version of a plan or a journal; returns whose it is.
    fn found(&mut self, path: &str, blob: BlobId) -> Option<AppName> {
        let (directory, name) = path.strip_prefix("rollouts/")?.rsplit_once('/')?;
        let rollout = RolloutId::parse(directory).filter(|rollout| !rollout.app.as_str().contains('/'))?;
        let app = rollout.app.clone();
        match name {
            PLAN => {
                self.versions.entry(rollout).or_default().plans.insert(blob);
            }
            JOURNAL => {
                let versions = self.versions.entry(rollout).or_default();
                if versions.journals.insert(blob.clone()) {
                    versions.unread.push_back(blob);
                }
            }
            _ => return None,
        }
        Some(app)
    }

    /// Returns every application that has a ledger.
    pub fn apps(&self) -> BTreeSet<AppName> {
        self.versions.keys().map(|rollout| rollout.app.clone()).collect()
    }

    /// Returns the rollouts of an application as Git has them: of each the longest chain, with the plan that its first
    /// record names. `None` where that is what `known` has already.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read. Versions that cannot be believed are passed over: `audit verify` names them.
    pub async fn of(
        &mut self,
        app: &AppName,
        known: &AppLedger,
    ) -> Result<Option<BTreeMap<u32, Journal>>, RepositoryError> {
        let ids: Vec<RolloutId> = self.of_app(app).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.look_at(id).await?;
        }
        let same = known.rollouts.len() == ids.len()
            && ids.iter().all(|id| {
                let (ours, theirs) = (known.rollouts.get(&id.number), self.versions.get(id));
                let theirs = theirs.and_then(|versions| versions.longest.as_ref());
                ours.zip(theirs).is_some_and(|(ours, theirs)| {
                    let tip = theirs.records.last().map(|record| record.id);
                    ours.pushed == theirs.records.len() && tip == ours.records.last().map(|record| record.id)
                })
            });
        if same {
            return Ok(None);
        }
        let mut rollouts = BTreeMap::new();
        for id in ids {
            let Some(versions) = self.versions.get(&id) else { continue };
            let Some(longest) = &versions.longest else { continue };
            let Some(hash) = longest.records.first().and_then(|record| record.evidence.plan) else { continue };
            let plans = versions.plans.iter().filter_map(|blob| match self.plans.get(blob) {
                Some(ReadPlan::Ours(plan, _)) => Some(plan),
                _ => None,
            });
            let plan = plans.into_iter().find(|plan| plan.hash == hash && plan.rollout.number == id.number);
            if let Some(plan) = plan {
                let records = longest.records.clone();
                let text = match longest.is_ours {
                    true => String::from_utf8_lossy(&longest.text).as_ref().into(),
                    false => journal::write(&records).into(),
                };
                let (plan, pushed) = (plan.as_ref().clone(), records.len());
                rollouts.insert(id.number, Journal { plan, records, pushed, text });
            }
        }
        Ok(Some(rollouts))
    }

    /// Returns whether these are a rollout's plan and longest journal, as Locktender writes them.
    pub fn is_copy(&self, rollout: &RolloutId, plan: Option<&BlobId>, journal: Option<&BlobId>) -> bool {
        let longest = self.versions.get(rollout).and_then(|versions| versions.longest.as_ref());
        let Some((longest, plan)) = longest.zip(plan) else { return false };
        let hash = longest.records.first().and_then(|record| record.evidence.plan);
        let is_plan = matches!(self.plans.get(plan), Some(ReadPlan::Ours(plan, true)) if Some(plan.hash) == hash);
        is_plan && longest.is_ours && Some(&longest.blob) == journal
    }

    /// Reads what was found of a rollout since this was asked last.
    async fn look_at(&mut self, id: &RolloutId) -> Result<(), RepositoryError> {
        let Some(versions) = self.versions.get_mut(id) else { return Ok(()) };
        while let Some(blob) = versions.unread.front().cloned() {
            let text = self.repository.read(&blob, LARGEST).await?;
            let is_told = versions
                .longest
                .as_mut()
                .is_some_and(|known| known.text.starts_with(&text) || known.grow(&blob, &text));
            if !is_told {
                let read = Longest::read(blob, text);
                // Of two copies of the same records the one that is as it was pushed counts.
                let rank = |one: &Longest| (one.records.len(), one.is_ours);
                if versions.longest.as_ref().is_none_or(|known| rank(&read) > rank(known)) {
                    versions.longest = Some(read);
                }
            }
            versions.unread.pop_front();
        }
        for blob in versions.plans.iter().filter(|blob| !self.plans.contains_key(*blob)).cloned().collect::<Vec<_>>() {
            let bytes = self.repository.read(&blob, LARGEST).await?;
            let text = String::from_utf8_lossy(&bytes);
            let read = match (plan::read(&text), plan::newer_version(&text)) {
                (Ok(read), _) => {
                    let is_ours = plan::write(&read) == text;
                    ReadPlan::Ours(Arc::new(read), is_ours)
                }
                (Err(_), Some(version)) => ReadPlan::Newer(version),
                (Err(_), None) => ReadPlan::Unreadable,
            };
            self.plans.insert(blob, read);
        }
        Ok(())
    }
}

/// Takes what an anchor has beside what Git has: where it continues Git's chain, its records come after.
pub fn join(git: &mut BTreeMap<u32, Journal>, anchored: BTreeMap<u32, Journal>) {
    for (number, theirs) in anchored {
        match git.get_mut(&number) {
            Some(ours) if ours.plan.hash == theirs.plan.hash && journal::continues(&theirs.records, &ours.records) => {
                ours.records = theirs.records;
            }
            Some(_) => {}
            None => drop(git.insert(number, Journal::new(theirs.plan, theirs.records, 0))),
        }
    }
}
