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
    shared::Shared,
};

/// Larger journals than this are not ours.
const LARGEST: u64 = 64 << 20;
const PLAN: &str = "plan.yaml";
const JOURNAL: &str = "journal.yaml";

/// One rollout's ledger.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Its plan.
    pub plan: Shared<Plan>,
    /// Its records; those from `pushed` on are not in Git yet.
    pub records: Vec<Record>,
    /// How many records Git has.
    pub pushed: usize,
    /// Those that Git has as Locktender writes them: what is pushed next is this with the new ones after it.
    text: Arc<str>,
}

impl Journal {
    /// Begins with these records, of which Git has so many.
    pub fn new(plan: impl Into<Shared<Plan>>, records: Vec<Record>, pushed: usize) -> Self {
        let text = journal::write(&records[..pushed.min(records.len())]).into();
        Self { plan: plan.into(), pushed: pushed.min(records.len()), records, text }
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
    pub fn append(&mut self, opened: Option<Shared<Plan>>, records: impl IntoIterator<Item = (u32, Record)>) {
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

/// A journal as some commit has it: what tells it from others. Its records are kept with the application.
struct Longest {
    blob: BlobId,
    /// How long its text is, and the text's digest: what begins with the same goes on where this ends.
    size: usize,
    text: Digest,
    /// How many records it has.
    count: usize,
    /// The plan that its first record names.
    plan: Option<Digest>,
    last: Option<Box<Record>>,
    /// What was read, until an application has it.
    read: Option<(Bytes, Vec<Record>)>,
    /// Whether it is written as Locktender writes it, byte for byte.
    is_ours: bool,
}

impl Longest {
    fn read(blob: BlobId, text: Bytes) -> Self {
        let plain = String::from_utf8_lossy(&text);
        let records = journal::read(&plain).unwrap_or_default();
        Self {
            blob,
            size: text.len(),
            text: Digest::of(&text),
            count: records.len(),
            plan: records.first().and_then(|record| record.evidence.plan),
            is_ours: journal::write(&records) == plain,
            last: records.last().cloned().map(Box::new),
            read: Some((text, records)),
        }
    }

    /// Returns the id of the last record.
    fn tip(&self) -> Option<Digest> {
        self.last.as_ref().map(|record| record.id)
    }

    /// Takes a journal as it was pushed.
    fn pushed(blob: BlobId, journal: &Journal) -> Self {
        Self {
            blob,
            size: journal.text.len(),
            text: Digest::of(journal.text.as_bytes()),
            count: journal.records.len(),
            plan: journal.records.first().and_then(|record| record.evidence.plan),
            is_ours: true,
            last: journal.records.last().cloned().map(Box::new),
            read: None,
        }
    }

    /// Takes a journal that begins with this one: only what is new in it is read and verified. Returns whether it is
    /// such a one, and can be believed.
    fn grow(&mut self, blob: &BlobId, text: &Bytes) -> bool {
        let Some((known, rest)) = text.split_at_checked(self.size) else { return false };
        if Digest::of(known) != self.text {
            return false;
        }
        let rest = String::from_utf8_lossy(rest);
        // Without the mark the last record that is known would go on.
        let last = self.last.as_deref().filter(|_| rest.starts_with("---\n"));
        let Some(more) = last.and_then(|last| journal::read_after(Some(last), &rest).ok()) else { return false };
        self.is_ours &= journal::write(&more) == rest;
        self.count += more.len();
        self.last = more.into_iter().next_back().map(Box::new).or(self.last.take());
        self.blob = blob.clone();
        self.read = None;
        (self.size, self.text) = (text.len(), Digest::of(text));
        true
    }
}

/// A plan as some commit has it.
#[derive(Clone)]
enum ReadPlan {
    /// Its hash, its rollout's number, and whether it is written as Locktender writes it, byte for byte.
    Ours(Digest, u32, bool),
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

    /// Takes what was found at a rollout's place as what was just pushed there, which need not be read anew. Returns
    /// whether that is all that was found.
    pub fn is_as_pushed(&mut self, journal: &Journal) -> bool {
        let rollout = &journal.plan.rollout;
        let Some(versions) = self.versions.get_mut(rollout) else { return false };
        if versions.unread.len() != 1 || journal.pushed != journal.records.len() {
            return false;
        }
        if let Some(blob) = versions.unread.pop_front() {
            versions.longest = Some(Longest::pushed(blob, journal));
        }
        for blob in &versions.plans {
            let ours = || ReadPlan::Ours(journal.plan.hash, rollout.number, true);
            self.plans.entry(blob.clone()).or_insert_with(ours);
        }
        true
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
                    ours.pushed == theirs.count && theirs.tip() == ours.records.last().map(|record| record.id)
                })
            });
        let mut read: BTreeMap<u32, (Bytes, Vec<Record>)> = BTreeMap::new();
        for id in &ids {
            let longest = self.versions.get_mut(id).and_then(|versions| versions.longest.as_mut());
            read.extend(longest.and_then(|longest| longest.read.take()).map(|read| (id.number, read)));
        }
        if same {
            return Ok(None);
        }
        let mut rollouts = BTreeMap::new();
        for id in ids {
            let Some((journal, plan)) = self.places(&id) else { continue };
            let plan = self.repository.read(&plan, LARGEST).await?;
            let Ok(plan) = plan::read(&String::from_utf8_lossy(&plan)) else { continue };
            let (text, records) = match read.remove(&id.number) {
                Some(read) => read,
                None => {
                    let text = self.repository.read(&journal, LARGEST).await?;
                    let records = journal::read(&String::from_utf8_lossy(&text)).unwrap_or_default();
                    (text, records)
                }
            };
            let text = String::from_utf8_lossy(&text);
            let is_ours =
                self.versions.get(&id).and_then(|versions| versions.longest.as_ref()).is_some_and(|one| one.is_ours);
            let text = if is_ours { text.as_ref().into() } else { journal::write(&records).into() };
            let pushed = records.len();
            rollouts.insert(id.number, Journal { plan: plan.into(), records, pushed, text });
        }
        Ok(Some(rollouts))
    }

    /// Returns where a rollout's longest journal lies, and the plan that its first record names.
    fn places(&self, id: &RolloutId) -> Option<(BlobId, BlobId)> {
        let versions = self.versions.get(id)?;
        let longest = versions.longest.as_ref()?;
        let hash = longest.plan?;
        let is_it = |blob: &&BlobId| matches!(self.plans.get(*blob), Some(ReadPlan::Ours(plan, number, _)) if *plan == hash && *number == id.number);
        Some((longest.blob.clone(), versions.plans.iter().find(is_it)?.clone()))
    }

    /// Returns whether these are a rollout's plan and longest journal, as Locktender writes them.
    pub fn is_copy(&self, rollout: &RolloutId, plan: Option<&BlobId>, journal: Option<&BlobId>) -> bool {
        let longest = self.versions.get(rollout).and_then(|versions| versions.longest.as_ref());
        let Some((longest, plan)) = longest.zip(plan) else { return false };
        let is_plan =
            matches!(self.plans.get(plan), Some(ReadPlan::Ours(plan, _, true)) if Some(*plan) == longest.plan);
        is_plan && longest.is_ours && Some(&longest.blob) == journal
    }

    /// Reads what was found of a rollout since this was asked last.
    async fn look_at(&mut self, id: &RolloutId) -> Result<(), RepositoryError> {
        let Some(versions) = self.versions.get_mut(id) else { return Ok(()) };
        while let Some(blob) = versions.unread.front().cloned() {
            let text = self.repository.read(&blob, LARGEST).await?;
            if !versions.longest.as_mut().is_some_and(|known| known.grow(&blob, &text)) {
                let read = Longest::read(blob, text);
                // Of two copies of the same records the one that is as it was pushed counts.
                let rank = |one: &Longest| (one.count, one.is_ours);
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
                    ReadPlan::Ours(read.hash, read.rollout.number, is_ours)
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
