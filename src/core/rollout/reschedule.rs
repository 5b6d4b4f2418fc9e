//! Pods that find no room in their unit go to other units.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    input::Input,
    observe::Observed,
    quota::Counts,
    render::{Maker, Render},
};
use crate::core::{ledger::Quota, names::Unit, policy::PodPolicy};

/// New totals and why, if pods have found no room for long enough; and when to look again, if some found none yet.
type Rescheduled = (Option<(Quota, String)>, Option<Timestamp>);

/// Counts the units' totals anew where pods have found no room for `autoReschedule.initialDelaySeconds`. `None` where
/// the policy does not ask for it.
pub(super) fn reschedule(input: &Input<'_>, render: &Render, pods: &PodPolicy, totals: &Quota) -> Option<Rescheduled> {
    let delay = SignedDuration::try_from(pods.topology.as_ref()?.auto_reschedule?).ok()?;
    let units = pods.units();
    let mut result = totals.clone();
    let mut said = Vec::new();
    let mut wake: Option<Timestamp> = None;
    // Only what we place can be placed elsewhere.
    for workload in render.workloads.values().filter(|workload| workload.maker() == Maker::Slices) {
        let observed = Observed::read(input.view, input.app, &workload.key);
        let mut stuck: BTreeMap<Unit, u32> = BTreeMap::new();
        let mut placed: BTreeMap<Unit, u32> = BTreeMap::new();
        for pod in observed.pods() {
            let Some(since) = pod.unschedulable_since else {
                *placed.entry(pod.unit.clone()).or_default() += 1;
                continue;
            };
            let due = since.max(input.watching_since) + delay;
            if due <= input.now {
                *stuck.entry(pod.unit.clone()).or_default() += 1;
            } else {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
        }
        let Some(counts) = result.get_mut(&workload.id) else { continue };
        // A pod that an earlier reschedule gave to another unit already may still be there.
        stuck.retain(|unit, count| {
            let total = counts.get(unit).copied().unwrap_or(0);
            *count = (*count).min(total.saturating_sub(placed.get(unit).copied().unwrap_or(0)));
            *count > 0
        });
        if let Some(moved) = shift(counts, &stuck, &units) {
            let from: Vec<String> = stuck.iter().map(|(unit, count)| format!("{count} of {unit}")).collect();
            said.push(format!("{}: {} found no room", workload.id, from.join(", ")));
            *counts = moved;
        }
    }
    let moved = (!said.is_empty()).then(|| (result, said.join("; ")));
    Some((moved, wake))
}

/// Takes stuck pods from their units and gives them to the units where none is stuck, one by one to the one that has
/// the fewest (ties: in the order of `units`). `None` where there is no such unit.
fn shift(counts: &Counts, stuck: &BTreeMap<Unit, u32>, units: &[Unit]) -> Option<Counts> {
    let open: Vec<&Unit> = units.iter().filter(|unit| !stuck.contains_key(*unit)).collect();
    if open.is_empty() || stuck.is_empty() {
        return None;
    }
    let mut result = counts.clone();
    let mut homeless = 0;
    for (unit, count) in stuck {
        let here = result.entry(unit.clone()).or_default();
        let moved = (*count).min(*here);
        *here -= moved;
        homeless += moved;
    }
    for _ in 0..homeless {
        let least = open.iter().min_by_key(|unit| result.get(**unit).copied().unwrap_or(0))?;
        *result.entry((*least).clone()).or_default() += 1;
    }
    (homeless > 0).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u32)]) -> Counts {
        list.iter().map(|(unit, count)| (Unit::from(*unit), *count)).collect()
    }

    #[test]
    fn a_unit_with_room_for_four_of_five_gives_one_away() {
        let units = [Unit::from("dca"), Unit::from("dcb")];
        let moved = shift(&counts(&[("dca", 5), ("dcb", 5)]), &counts(&[("dcb", 1)]), &units);
        assert_eq!(moved, Some(counts(&[("dca", 6), ("dcb", 4)])));
    }

    #[test]
    fn without_a_unit_that_has_room_nothing_moves() {
        let units = [Unit::from("dca"), Unit::from("dcb")];
        let stuck = counts(&[("dca", 1), ("dcb", 1)]);
        assert_eq!(shift(&counts(&[("dca", 5), ("dcb", 5)]), &stuck, &units), None);
    }
}
