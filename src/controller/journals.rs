//! The truth about every rollout: the longest chain of our records that is reachable from HEAD, and what the anchors
//! have beside it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::core::{
    ledger::{Record, journal},
    names::{AppName, BlobId, Digest, Revision, RolloutId},
    repository::{Repository, RepositoryError},
    rollout::{
        plan::{self, Plan},
        state::State,
    },
};

/// Larger journals than this are not ours.
const LARGEST: u64 = 64 << 20;

/// One rollout's ledger.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Its plan.
    pub plan: Plan,
    /// Its records; those from `pushed` on are not in Git yet.
    pub records: Vec<Record>,
    /// How many records Git has.
    pub pushed: usize,
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
    /// Folds again what has changed.
    pub fn refold(&mut self) {
        let fold = |journal: &Journal| State::fold(journal.plan.clone(), journal.records.clone());
        let unchanged = |state: &State, journal: &Journal| {
            state.plan.hash == journal.plan.hash
                && state.records.len() == journal.records.len()
                && state.tip() == journal::tip(&journal.records, journal.plan.hash)
        };
        let mut known: BTreeMap<u32, State> =
            self.states.drain(..).map(|state| (state.plan.rollout.number, state)).collect();
        self.states = self
            .rollouts
            .iter()
            .map(|(number, journal)| match known.remove(number) {
                Some(state) if unchanged(&state, journal) => state,
                _ => fold(journal),
            })
            .collect();
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
}

/// Reads the ledger from Git, and remembers every version that it has read.
pub struct Journals {
    repository: Arc<dyn Repository>,
    seen: Option<Revision>,
    versions: BTreeMap<RolloutId, Versions>,
    journals: HashMap<BlobId, Arc<Vec<Record>>>,
    plans: HashMap<BlobId, Option<Arc<Plan>>>,
    /// Plans of an API version that this program does not know.
    newer: BTreeMap<BlobId, String>,
}

impl Journals {
    /// Starts with nothing read.
    pub fn new(repository: Arc<dyn Repository>) -> Self {
        Self {
            repository,
            seen: None,
            versions: BTreeMap::new(),
            journals: HashMap::new(),
            plans: HashMap::new(),
            newer: BTreeMap::new(),
        }
    }

    /// Returns which rollout of an application a newer Locktender opened, and the API version of its plan: older code
    /// leaves such an application alone. Tells of what [`Journals::of`] has read.
    pub fn newer(&self, app: &AppName) -> Option<(RolloutId, String)> {
        let of_app = self.versions.iter().filter(|(rollout, _)| rollout.app == *app);
        of_app.rev().find_map(|(rollout, versions)| {
            let version = versions.plans.iter().find_map(|blob| self.newer.get(blob))?;
            Some((rollout.clone(), version.clone()))
        })
    }

    /// Reads what is reachable from `head`, and returns the applications whose ledger may be another now.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn read(&mut self, head: &Revision) -> Result<BTreeSet<AppName>, RepositoryError> {
        if self.seen.as_ref() == Some(head) {
            return Ok(BTreeSet::new());
        }
        let continues = match &self.seen {
            Some(seen) => self.repository.is_ancestor(seen, head).await?,
            None => false,
        };
        let mut touched = BTreeSet::new();
        if !continues {
            // Another history: what only the old one had is not reachable any more.
            touched.extend(self.versions.keys().map(|rollout| rollout.app.clone()));
            self.versions.clear();
        }
        let since = self.seen.clone().filter(|_| continues);
        for name in ["plan.yaml", "journal.yaml"] {
            for version in self.repository.versions(head, since.as_ref(), "rollouts", &[name]).await? {
                let Some(rollout) = rollout_of(&version.path, name) else { continue };
                touched.insert(rollout.app.clone());
                let versions = self.versions.entry(rollout).or_default();
                let list = if name == "plan.yaml" { &mut versions.plans } else { &mut versions.journals };
                list.insert(version.blob);
            }
        }
        self.seen = Some(head.clone());
        Ok(touched)
    }

    /// Returns every application that has a ledger.
    pub fn apps(&self) -> BTreeSet<AppName> {
        self.versions.keys().map(|rollout| rollout.app.clone()).collect()
    }

    /// Returns the rollouts of an application as Git has them: of each the longest chain, with the plan that its first
    /// record names.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read. Versions that cannot be believed are passed over: `audit verify` names them.
    pub async fn of(&mut self, app: &AppName) -> Result<BTreeMap<u32, Journal>, RepositoryError> {
        let from = RolloutId { app: app.clone(), number: 0 };
        let to = RolloutId { app: app.clone(), number: u32::MAX };
        let found: Vec<(u32, Vec<BlobId>, Vec<BlobId>)> = self
            .versions
            .range(from..=to)
            .map(|(rollout, versions)| {
                let journals = versions.journals.iter().cloned().collect();
                (rollout.number, versions.plans.iter().cloned().collect(), journals)
            })
            .collect();
        let mut rollouts = BTreeMap::new();
        for (number, plans, journals) in found {
            let mut records: Arc<Vec<Record>> = Arc::default();
            for blob in journals {
                let chain = self.journal(&blob).await?;
                if chain.len() > records.len() {
                    records = chain;
                }
            }
            let Some(hash) = records.first().and_then(|record| record.evidence.plan) else {
                for blob in plans {
                    self.plan(&blob).await?;
                }
                continue;
            };
            for blob in plans {
                let plan = self.plan(&blob).await?;
                if let Some(plan) = plan.filter(|plan| plan.hash == hash && plan.rollout.number == number) {
                    let (plan, records) = (plan.as_ref().clone(), records.as_ref().clone());
                    let pushed = records.len();
                    rollouts.insert(number, Journal { plan, records, pushed });
                    break;
                }
            }
        }
        Ok(rollouts)
    }

    async fn journal(&mut self, blob: &BlobId) -> Result<Arc<Vec<Record>>, RepositoryError> {
        if let Some(known) = self.journals.get(blob) {
            return Ok(known.clone());
        }
        let bytes = self.repository.read(blob, LARGEST).await?;
        let records = Arc::new(journal::read(&String::from_utf8_lossy(&bytes)).unwrap_or_default());
        self.journals.insert(blob.clone(), records.clone());
        Ok(records)
    }

    async fn plan(&mut self, blob: &BlobId) -> Result<Option<Arc<Plan>>, RepositoryError> {
        if let Some(known) = self.plans.get(blob) {
            return Ok(known.clone());
        }
        let bytes = self.repository.read(blob, LARGEST).await?;
        let text = String::from_utf8_lossy(&bytes);
        let plan = plan::read(&text).ok().map(Arc::new);
        if let Some(version) = plan::newer_version(&text).filter(|_| plan.is_none()) {
            self.newer.insert(blob.clone(), version);
        }
        self.plans.insert(blob.clone(), plan.clone());
        Ok(plan)
    }
}

/// Reads `rollouts/checkout/0007/journal.yaml`.
fn rollout_of(path: &str, name: &str) -> Option<RolloutId> {
    let directory = path.strip_prefix("rollouts/")?.strip_suffix(name)?.strip_suffix('/')?;
    RolloutId::parse(directory).filter(|rollout| !rollout.app.as_str().contains('/'))
}

/// Takes what an anchor has beside what Git has: where it continues Git's chain, its records come after.
pub fn join(git: &mut BTreeMap<u32, Journal>, anchored: BTreeMap<u32, Journal>) {
    for (number, theirs) in anchored {
        match git.get_mut(&number) {
            Some(ours) if ours.plan.hash == theirs.plan.hash && journal::continues(&theirs.records, &ours.records) => {
                ours.records = theirs.records;
            }
            Some(_) => {}
            None => drop(git.insert(number, Journal { pushed: 0, ..theirs })),
        }
    }
}
