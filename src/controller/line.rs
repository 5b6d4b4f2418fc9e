//! The line at the door: which rollouts are under way, and which applications wait for their turn.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Controller, app::App, publish::Publication};
use crate::core::{
    names::{AppName, RolloutId},
    rollout::{
        input::Decision,
        report::Reason,
        turn::{self, Full, Place},
        view::Touched,
    },
};

/// Kept beside the applications, and told by their ledgers: so it costs nothing to ask.
#[derive(Default)]
pub(super) struct Line {
    under_way: BTreeMap<AppName, RolloutId>,
    places: BTreeMap<AppName, Place>,
    order: BTreeSet<(Place, AppName)>,
}

impl Line {
    /// Takes an application whose ledger may be another now.
    pub fn follow(&mut self, name: &AppName, app: &App) {
        match turn::under_way(&app.ledger.states) {
            Some(rollout) => drop(self.under_way.insert(name.clone(), rollout.clone())),
            None => drop(self.under_way.remove(name)),
        }
    }

    /// Puts an application in line, at its place.
    pub fn join(&mut self, name: &AppName, app: &App) {
        self.leave(name);
        let place = turn::place(&app.ledger.states);
        self.places.insert(name.clone(), place);
        self.order.insert((place, name.clone()));
    }

    /// Takes an application out of the line.
    pub fn leave(&mut self, name: &AppName) {
        if let Some(place) = self.places.remove(name) {
            self.order.remove(&(place, name.clone()));
        }
    }

    /// Empties the line; returns who was in it.
    pub fn dissolve(&mut self) -> BTreeSet<AppName> {
        self.order.clear();
        std::mem::take(&mut self.places).into_keys().collect()
    }

    /// Returns those in line, first who comes next.
    pub fn waiting(&self) -> impl Iterator<Item = &AppName> {
        self.order.iter().map(|(_, name)| name)
    }

    /// Returns how many more may open while these are about to, too.
    pub fn room(&self, limit: u32, opening: &BTreeSet<AppName>) -> usize {
        let others = opening.iter().filter(|name| !self.under_way.contains_key(*name)).count();
        (limit as usize).saturating_sub(self.under_way.len() + others)
    }

    /// Returns that nobody else may open now.
    pub fn full(&self, limit: u32) -> Full {
        Full { limit, under_way: self.under_way.values().cloned().collect() }
    }
}

/// Whether a rollout that is to open may, where there is a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// It is its turn, if there is room.
    Open,
    /// It is put in line.
    Closed,
}

impl Controller {
    /// Puts an application in line, or takes it out: whether its rollout would open if it were its turn.
    pub(super) fn waits_in_line(&mut self, name: &AppName, decision: &Decision) -> bool {
        let waits = decision.report.reasons.iter().any(|reason| matches!(reason, Reason::Full(_)));
        match self.apps.get(name) {
            Some(app) if waits => self.line.join(name, app),
            _ => self.line.leave(name),
        }
        waits
    }

    /// Lets in as many of those in line as there is room for, and leaves the others waiting. Nobody is let in while
    /// nothing can be pushed: who comes first is settled when a rollout really opens.
    pub(super) async fn let_in(
        &mut self,
        mut decided: BTreeMap<AppName, Decision>,
        publications: &mut Vec<(Publication, bool)>,
    ) {
        let limit = self.limit();
        if limit.is_none() {
            let waited = self.line.dissolve();
            self.touch(Touched::Apps(waited));
        }
        if let Some(limit) = limit.filter(|_| self.can_push()) {
            let opens = |(publication, _): &(Publication, bool)| publication.opened.is_some();
            let mut opening: BTreeSet<AppName> =
                publications.iter().filter(|one| opens(one)).map(|(publication, _)| publication.app.clone()).collect();
            while self.line.room(limit, &opening) > 0 {
                let Some(name) = self.line.waiting().find(|name| !self.is_busy(name)).cloned() else { break };
                self.line.leave(&name);
                decided.remove(&name);
                let Some(decision) = self.decide(&name, Door::Open).await else { continue };
                if let Some(publication) = self.ask_or_settle(&name, decision).await {
                    opening.extend(publication.0.opened.is_some().then_some(name));
                    publications.push(publication);
                }
            }
        }
        for (name, decision) in decided {
            publications.extend(self.settle(&name, decision).await);
        }
    }

    /// Returns how many rollouts may be under way at once; `None` without a limit.
    pub(super) fn limit(&self) -> Option<u32> {
        self.branch.as_ref()?.settings.concurrent
    }

    /// Returns whether what opens now can be pushed at once.
    fn can_push(&self) -> bool {
        self.git.away.is_none() && self.git_lane.is_none() && self.may_push_from(self.now()).is_none()
    }

    /// Returns when who is next in line may open, where only the time until the next push is in the way.
    pub(super) fn next_turn(&self) -> Option<Timestamp> {
        let limit = self.limit()?;
        let is_next = self.line.room(limit, &BTreeSet::new()) > 0 && self.line.waiting().next().is_some();
        self.may_push_from(self.now()).filter(|_| is_next && self.git_lane.is_none())
    }
}
