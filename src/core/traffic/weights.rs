//! A rule's weights, shared out between two sides: the same in the Gateway API and in Istio.

use serde_json::{Value, json};

use super::route::Misfit;
use crate::core::policy::Percent;

/// What a weight is counted in while there are two sides: of a backend that had 3, the sides have 300 together, so that
/// every percentage is a whole number, and the sum still says what was there before.
const PARTS: u64 = 100;
/// The most that the Gateway API takes.
const MOST: u64 = 1_000_000;

/// Which entries of a rule's list are which. Each is a JSON object with a `weight`.
pub(super) struct Entries<'a> {
    /// Whether an entry names the side that serves.
    pub is_stable: &'a dyn Fn(&Value) -> bool,
    /// Whether an entry names the other side.
    pub is_canary: &'a dyn Fn(&Value) -> bool,
    /// Makes the other side's entry of one that serves.
    pub canary_of: &'a dyn Fn(&Value) -> Value,
    /// The weight of an entry that names none, where it is not alone; alone it has everything.
    pub unsaid: u64,
}

impl Entries<'_> {
    fn weight(&self, entry: &Value, alone: bool) -> u64 {
        entry["weight"].as_u64().unwrap_or(if alone { 1 } else { self.unsaid })
    }

    /// Shares every serving entry out. The list must not hold entries of the other side.
    pub fn share(&self, entries: &mut Vec<Value>, share: Percent) -> Result<(), Misfit> {
        let alone = entries.len() == 1;
        let share = u64::from(share.get());
        let mut shared = Vec::with_capacity(entries.len() + 1);
        for mut entry in entries.drain(..) {
            let weight = self.weight(&entry, alone);
            if weight > MOST / PARTS {
                return Err(Misfit(format!("a weight of {weight} is too much: at most {}", MOST / PARTS)));
            }
            if (self.is_stable)(&entry) {
                let mut canary = (self.canary_of)(&entry);
                entry["weight"] = json!(weight * (PARTS - share));
                canary["weight"] = json!(weight * share);
                shared.extend([entry, canary]);
            } else {
                entry["weight"] = json!(weight * PARTS);
                shared.push(entry);
            }
        }
        *entries = shared;
        Ok(())
    }

    /// Returns the other side's share of a list, rounded up; nothing where it has none.
    pub fn shared(&self, entries: &[Value]) -> Percent {
        let alone = entries.len() == 1;
        let sum = |is: &dyn Fn(&Value) -> bool| -> u64 {
            entries.iter().filter(|entry| is(entry)).map(|entry| self.weight(entry, alone)).sum()
        };
        let (canary, stable) = (sum(self.is_canary), sum(self.is_stable));
        let share = (canary * 100).div_ceil((canary + stable).max(1));
        u8::try_from(share).ok().and_then(Percent::new).unwrap_or(Percent::ALL)
    }

    /// Gives the other side's shares back. A list without the other side, or without one that serves, is left alone.
    pub fn join(&self, entries: &mut Vec<Value>) {
        if !entries.iter().any(self.is_canary) || !entries.iter().any(self.is_stable) {
            return;
        }
        // A share stands behind the entry that it was taken from.
        let mut kept: Vec<Value> = Vec::with_capacity(entries.len());
        let mut early = 0;
        for entry in entries.drain(..) {
            if !(self.is_canary)(&entry) {
                kept.push(entry);
                continue;
            }
            let share = self.weight(&entry, false);
            match kept.iter_mut().rfind(|entry| (self.is_stable)(entry)) {
                Some(serving) => serving["weight"] = json!(self.weight(serving, false) + share),
                None => early += share,
            }
        }
        if let Some(serving) = kept.iter_mut().find(|entry| (self.is_stable)(entry)).filter(|_| early > 0) {
            serving["weight"] = json!(self.weight(serving, false) + early);
        }
        // Where somebody changed a weight beside ours, the sums are in parts still: the proportions are right.
        let alone = kept.len() == 1;
        if kept.iter().all(|entry| self.weight(entry, alone).is_multiple_of(PARTS)) {
            for entry in &mut kept {
                entry["weight"] = json!(self.weight(entry, alone) / PARTS);
            }
        }
        if alone && self.unsaid == 0 && kept[0]["weight"] == json!(1) {
            kept[0].as_object_mut().map(|entry| entry.remove("weight"));
        }
        *entries = kept;
    }
}
