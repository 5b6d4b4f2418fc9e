//! Whose turn it is: a limit of the rollouts that are under way at once, over all applications.
//!
//! The limit is at the door. A rollout that is under way is never stopped or slowed down by it, and neither is what goes
//! back, hands an object over, takes the place of a rollout under way, or needs no stages. Everything here is told by the ledger and HEAD, so a
//! controller that was started a moment ago decides as the one before it.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    decide::is_known,
    input::Input,
    render::Render,
    state::{Phase, State},
};
use crate::core::{cluster::ObjectKey, ledger::Event, names::RolloutId};

/// That no other rollout may open now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Full {
    /// How many may be under way.
    pub limit: u32,
    /// Those that are.
    pub under_way: Vec<RolloutId>,
}

/// So many of the rollouts that are under way are named.
const NAMED: usize = 3;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, under_way } = self;
        let are = if under_way.len() == 1 { "rollout is" } else { "rollouts are" };
        write!(f, "{} {are} under way, and at most {limit} may be", under_way.len())?;
        let named = under_way.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match under_way.len().saturating_sub(NAMED) {
            0 if named.is_empty() => Ok(()),
            0 => write!(f, ": {named}"),
            more => write!(f, ": {named} and {more} more"),
        }
    }
}

/// A place in line, earliest first: when the application's last rollout ended. One that had none comes before all.
///
/// Whoever had a turn goes to the end of the line, so that nobody waits for ever. Among the same, the name decides.
pub type Place = Option<Timestamp>;

/// Returns the rollout of an application that counts as under way: also one that waits at a gate or is paused, and one
/// that goes back. One that stopped moves nothing until somebody decides, and does not count.
pub fn under_way(rollouts: &[State]) -> Option<&RolloutId> {
    let last = rollouts.last()?;
    matches!(last.phase, Phase::Running | Phase::Aborting(_)).then_some(&last.plan.rollout)
}

/// Returns an application's place in line.
pub fn place(rollouts: &[State]) -> Place {
    let ends = |event: Event| matches!(event, Event::Completed | Event::Aborted | Event::Superseded);
    let end = rollouts.last()?.records.iter().rev().find(|record| ends(record.event))?;
    Some(end.time)
}

/// Returns why a rollout that could open has to wait for its turn, where it has to.
pub(super) fn waits<'a>(input: &Input<'a>, target: Option<&Render>, stable: Option<&Render>) -> Option<&'a Full> {
    let full = input.neighbours.full.as_ref()?;
    // What was released lately and is gone back to is no release.
    let goes_back = target.zip(stable).is_some_and(|(target, stable)| {
        target.digests != stable.digests && is_known(input, target, target.policy.as_ref())
    });
    // Who gets an object may have its turn already: nobody else may go on putting it back.
    let hands_over = stable.is_some_and(|stable| {
        let kept: BTreeSet<ObjectKey> = target.into_iter().flat_map(Render::keys).collect();
        stable.keys().any(|key| !kept.contains(&key) && (input.neighbours.render)(&key))
    });
    (!goes_back && !hands_over).then_some(full)
}
