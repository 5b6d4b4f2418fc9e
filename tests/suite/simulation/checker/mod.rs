//! Judges every step of a rollout by the invariants of the design's section 5.
//!
//! Works on plain snapshots: the cluster's objects, what was written, and the records and decisions in Git. So the same
//! checker watches the simulation and tests against the sandbox.
//!
//! Its own reading of the ledger is kept apart from the product's where that is what is judged: gates, chain and
//! budgets are computed here; the plan's quotas are taken as the plan says.

mod cluster;
mod ledger;
mod pods;
mod proxy;
mod sides;
mod snapshot;
mod told;
mod traffic;
mod violations;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use locktender::core::{
    names::{AppName, BlobId},
    rollout::state::State,
};

pub use self::{
    cluster::told,
    pods::allowed,
    snapshot::{RESOURCES, Snapshot, image, is_ready},
    told::{Told, resource_of},
};

/// What a push brings, as far as it concerns the ledger.
pub struct Pushed<'a> {
    /// Every file that the push sets, in the order of its commits; `None` is removed.
    pub files: Vec<(&'a str, Option<&'a str>)>,
    /// Path and blob of every file below `rollouts/` in the commit that the push is made on.
    pub decisions: BTreeMap<String, BlobId>,
    /// What the controller had been told when it sent the push.
    pub told: Told,
}

/// The last rollout of every application that has one, as its ledger says: what a write stands on.
pub type Ledger = BTreeMap<AppName, Arc<State>>;

/// The checker.
#[derive(Default)]
pub struct Checker {
    /// Every application's rollouts, as pushed.
    pushed: BTreeMap<AppName, BTreeMap<u32, Arc<State>>>,
    /// By which file a person last accepted another history.
    accepted: Option<BlobId>,
    /// What anchors add, by application: the anchor's resource version, and its rollouts.
    anchored: BTreeMap<AppName, (String, BTreeMap<u32, Arc<State>>)>,
    /// By application and workload: the wanted total as it was last sent, arrived or not.
    sent: BTreeMap<(AppName, String), u64>,
    /// By UID: where a pod is.
    placed: BTreeMap<String, pods::Place>,
    /// What a proxy sends to.
    proxied: proxy::Serves,
    /// What the controller was told of the cluster: what it could not know is not held against it.
    pub told: Told,
    /// By application: what was put back before that was recorded, as it was seen.
    owed: BTreeMap<AppName, BTreeSet<String>>,
    violations: Vec<String>,
    /// How many writes, pushes and steps were judged.
    pub judged: usize,
    /// Whether only pushes are looked at: what came before is judged elsewhere.
    pub resting: bool,
}

impl Checker {
    /// Returns what was violated, in order.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Judges what must have been recorded by the time that everything is at rest and Git is there.
    pub fn settled(&mut self) {
        let owed: Vec<String> = std::mem::take(&mut self.owed).into_values().flatten().collect();
        if !owed.is_empty() {
            self.violated(6, format_args!("put back, and never recorded: {}", owed.join(", ")));
        }
    }

    /// Returns what was violated, and forgets it.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    pub fn violated(&mut self, invariant: u8, what: impl std::fmt::Display) {
        if self.violations.len() < 20 {
            self.violations.push(format!("invariant {invariant}: {what}"));
        }
    }

    /// Returns an application's rollouts as pushed, by number.
    pub fn rollouts(&self, app: &AppName) -> Option<&BTreeMap<u32, Arc<State>>> {
        self.pushed.get(app)
    }

    /// Returns the applications that have a ledger.
    pub fn known_apps(&self) -> Vec<AppName> {
        self.pushed.keys().cloned().collect()
    }

    /// Returns each application's last pushed record's id.
    pub fn tips(&self) -> BTreeMap<String, String> {
        let tip = |rollouts: &BTreeMap<u32, Arc<State>>| {
            rollouts.values().rev().find_map(|state| state.records.last()).map(|record| record.id.to_string())
        };
        self.pushed.iter().filter_map(|(app, rollouts)| Some((app.to_string(), tip(rollouts)?))).collect()
    }

    /// Returns every application's last rollout, as pushed or as its anchor keeps it.
    pub fn ledger(&self) -> Ledger {
        let names = self.pushed.keys().chain(self.anchored.keys());
        names.filter_map(|app| Some((app.clone(), self.last(app)?.clone()))).collect()
    }

    /// Returns the last rollout of an application as pushed, or as its anchor keeps it.
    fn last(&self, app: &AppName) -> Option<&Arc<State>> {
        let pushed = self.pushed.get(app).and_then(|rollouts| rollouts.values().next_back());
        let kept = self.anchored.get(app).and_then(|(_, rollouts)| rollouts.values().next_back());
        let place = |state: &Arc<State>| (state.plan.rollout.number, state.records.len());
        match (pushed, kept) {
            (Some(pushed), Some(kept)) if place(kept) > place(pushed) => Some(kept),
            (pushed, kept) => pushed.or(kept),
        }
    }
}
