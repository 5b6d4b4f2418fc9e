//! What the ledger said, and from when on: pushed, or kept in an anchor until it could be.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use locktender::{
    controller::anchor,
    core::{
        ledger::{Record, journal},
        manifest::Object,
        names::{AppName, RolloutId},
        rollout::{
            plan::{self, Plan},
            state::State,
        },
    },
};

use super::log::Request;

/// An application's rollouts, by number.
pub type Rollouts = BTreeMap<u32, Arc<State>>;

/// What was known from some time on.
#[derive(Clone, Debug, Default)]
struct Known(Vec<(Timestamp, BTreeMap<AppName, Rollouts>)>);

impl Known {
    fn add(&mut self, from: Timestamp, app: &AppName, number: u32, state: State) {
        let mut apps = self.0.last().map(|(_, apps)| apps.clone()).unwrap_or_default();
        let rollouts = apps.entry(app.clone()).or_default();
        // Whoever takes records away changes nothing: only another chain does.
        if rollouts.get(&number).is_none_or(|known| !journal::continues(&known.records, &state.records)) {
            rollouts.insert(number, Arc::new(state));
            self.0.push((from, apps));
        }
    }

    fn at(&self, time: Timestamp) -> Option<&BTreeMap<AppName, Rollouts>> {
        let until = self.0.partition_point(|(from, _)| *from <= time);
        until.checked_sub(1).map(|last| &self.0[last].1)
    }
}

/// Both, as time goes on.
#[derive(Clone, Debug, Default)]
pub struct History {
    pushed: Known,
    anchored: Known,
}

impl History {
    /// Takes a rollout's plan and records, as they were pushed.
    pub fn push(&mut self, at: Timestamp, plan: Plan, records: Vec<Record>) {
        let RolloutId { app, number, .. } = plan.rollout.clone();
        self.pushed.add(at, &app, number, State::fold(plan, records));
    }

    /// Reads every commit that the branch was moved to.
    pub fn of(repository: &git2::Repository, pushes: &[(Timestamp, String)]) -> Self {
        let mut history = Self::default();
        let mut seen = std::collections::HashSet::new();
        for (at, commit) in pushes {
            let tree = repository.find_commit(commit.parse().unwrap()).unwrap().tree().unwrap();
            let Ok(rollouts) = tree.get_path(std::path::Path::new("rollouts")) else { continue };
            let Ok(rollouts) = repository.find_tree(rollouts.id()) else { continue };
            let mut journals = Vec::new();
            rollouts
                .walk(git2::TreeWalkMode::PreOrder, |directory, entry| {
                    if entry.name() == Ok("journal.yaml") && seen.insert((directory.to_owned(), entry.id())) {
                        journals.push((directory.to_owned(), entry.id()));
                    }
                    git2::TreeWalkResult::Ok
                })
                .unwrap();
            let read = |id| String::from_utf8_lossy(repository.find_blob(id).unwrap().content()).into_owned();
            for (directory, journal) in journals {
                let plan = rollouts.get_path(std::path::Path::new(&format!("{directory}plan.yaml")));
                let Some(plan) = plan.ok().and_then(|plan| plan::read(&read(plan.id())).ok()) else { continue };
                let Ok(records) = journal::read(&read(journal)) else { continue };
                history.push(*at, plan, records);
            }
        }
        history
    }

    /// Takes what anchors were told to keep.
    pub fn hear(&mut self, requests: &[Request]) {
        for request in requests.iter().filter(|request| request.is_ours() && request.is_done()) {
            let Some(kept) = anchor::read(&Object(request.body.clone())) else { continue };
            for (number, one) in kept.rollouts {
                self.anchored.add(request.answered, &kept.app, number, State::fold(one.plan, one.records));
            }
        }
    }

    /// Every application that was ever in the ledger.
    pub fn apps(&self) -> Vec<AppName> {
        let last = [&self.pushed, &self.anchored].into_iter().filter_map(|known| known.0.last());
        let mut apps: Vec<AppName> = last.flat_map(|(_, apps)| apps.keys().cloned()).collect();
        apps.sort();
        apps.dedup();
        apps
    }

    /// Whether one of two applications was ever renamed to the other.
    pub fn takes_over(&self, one: &AppName, other: &AppName) -> bool {
        let inherits = |heir: &AppName, from: &AppName| {
            let rollouts = self.pushed(heir, Timestamp::MAX);
            rollouts.values().any(|state| state.plan.inherits.as_ref() == Some(from))
        };
        inherits(one, other) || inherits(other, one)
    }

    /// The rollouts as they had been pushed by then.
    pub fn pushed(&self, app: &AppName, time: Timestamp) -> Rollouts {
        self.pushed.at(time).and_then(|apps| apps.get(app)).cloned().unwrap_or_default()
    }

    /// The same, with what an anchor kept by then.
    pub fn known(&self, app: &AppName, time: Timestamp) -> Rollouts {
        let mut rollouts = self.pushed(app, time);
        let kept = self.anchored.at(time).and_then(|apps| apps.get(app));
        for (number, state) in kept.into_iter().flatten() {
            let known = rollouts.entry(*number).or_insert_with(|| state.clone());
            if state.records.len() > known.records.len() {
                *known = state.clone();
            }
        }
        rollouts
    }
}
