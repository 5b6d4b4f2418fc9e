//! The line at the door: which rollouts are under way, and which applications wait for their turn.

use std::collections::{BTreeMap, BTreeSet};

use super::app::App;
use crate::core::{
    names::{AppName, RolloutId},
    rollout::turn::{self, Full, Place},
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
