//! How many pods go where: units' totals, batches, and what may be missing meanwhile.

use std::collections::BTreeMap;

use super::stages;
use crate::core::{
    names::Unit,
    policy::{Batched, IntOrPercent, Share, Size, Strategy},
};

/// Counts by unit.
pub type Counts = BTreeMap<Unit, u32>;

/// Why `unitReplicas` cannot be kept with this many replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The fixed counts and percentages are more than there are replicas.
    #[error("unitReplicas asks for {asked} pods, but there are {total} replicas")]
    TooMany {
        /// What the named units ask for together.
        asked: u32,
        /// The replicas.
        total: u32,
    },
    /// Every unit is named and together they are fewer than the replicas.
    #[error("unitReplicas places {asked} of {total} replicas, and no unit is left for the rest")]
    TooFew {
        /// What the named units ask for together.
        asked: u32,
        /// The replicas.
        total: u32,
    },
}

/// Shares `total` out over `units`: fixed counts first, then percentages of the total (half up), the rest evenly over
/// the units that are not named (ties: in the order of `units`).
///
/// Percentages alone that miss the total by rounding are settled on the last of them.
///
/// # Errors
///
/// The sums do not fit.
pub fn share_out(total: u32, units: &[Unit], shares: &BTreeMap<Unit, Share>) -> Result<Counts, ShareError> {
    let mut counts = Counts::new();
    let mut left = total;
    let mut asked = 0_u32;
    for unit in units {
        if let Some(IntOrPercent::Count(count)) = shares.get(unit) {
            asked = asked.saturating_add(*count);
            left = left.checked_sub(*count).ok_or(ShareError::TooMany { asked, total })?;
            counts.insert(unit.clone(), *count);
        }
    }
    let by_percent: Vec<(&Unit, u8)> = units
        .iter()
        .filter_map(|unit| match shares.get(unit) {
            Some(IntOrPercent::Percent(percent)) => Some((unit, percent.get())),
            _ => None,
        })
        .collect();
    let rest: Vec<&Unit> = units.iter().filter(|unit| !shares.contains_key(*unit)).collect();
    let whole = rest.is_empty() && by_percent.iter().map(|(_, percent)| u32::from(*percent)).sum::<u32>() == 100;
    for (index, (unit, percent)) in by_percent.iter().enumerate() {
        let rounded = u32::try_from((u64::from(total) * u64::from(*percent) + 50) / 100).unwrap_or(u32::MAX);
        // 50 % and 50 % of an odd total, or 33/33/34: what rounding gained or lost is not the person's mistake.
        let last = whole && index + 1 == by_percent.len();
        let count = if last {
            left
        } else if whole {
            rounded.min(left)
        } else {
            rounded
        };
        asked = asked.saturating_add(count);
        left = left.checked_sub(count).ok_or(ShareError::TooMany { asked, total })?;
        counts.insert((*unit).clone(), count);
    }
    let (even, extra) = match u32::try_from(rest.len()) {
        Ok(0) | Err(_) => (0, 0),
        Ok(units) => (left / units, left % units),
    };
    if rest.is_empty() && left > 0 && !units.is_empty() {
        return Err(ShareError::TooFew { asked, total });
    }
    for (index, unit) in rest.iter().enumerate() {
        let one_more = u32::from(u32::try_from(index).is_ok_and(|index| index < extra));
        counts.insert((*unit).clone(), even + one_more);
    }
    Ok(counts)
}

/// Shares a batch of `size` out over what is left in each unit, by largest remainder (ties: in the order of `units`).
fn share_batch(size: u32, left: &Counts, units: &[Unit]) -> Counts {
    let total: u64 = left.values().map(|count| u64::from(*count)).sum();
    if total == 0 {
        return left.clone();
    }
    let size = u64::from(size).min(total);
    let mut shares: Vec<(u64, usize)> = Vec::new();
    let mut counts = Counts::new();
    let mut given = 0;
    for (index, unit) in units.iter().enumerate() {
        let here = u64::from(left.get(unit).copied().unwrap_or(0)) * size;
        counts.insert(unit.clone(), u32::try_from(here / total).unwrap_or(u32::MAX));
        given += here / total;
        shares.push((here % total, index));
    }
    shares.sort_by_key(|(remainder, index)| (std::cmp::Reverse(*remainder), *index));
    for (_, index) in shares.iter().take(usize::try_from(size - given).unwrap_or(0)) {
        if let Some(count) = counts.get_mut(&units[*index]) {
            *count += 1;
        }
    }
    counts
}

/// Returns the cumulative quotas of one workload's stages; the last ones are the totals.
pub fn stages(totals: &Counts, units: &[Unit], strategy: &Strategy) -> Vec<Counts> {
    match strategy {
        Strategy::Batched(batched) => batches(totals, units, batched),
        Strategy::Canary(canary) => {
            let total = totals.values().sum();
            let mut reached = 0;
            let grow = |size: Size| {
                // A count and a weight can be compared only now.
                reached = size.of(total).max(reached);
                share_batch(reached, totals, units)
            };
            canary.steps.iter().map(|step| step.size).map(grow).collect()
        }
        Strategy::BlueGreen(blue_green) => {
            let total = totals.values().sum();
            let preview = blue_green.preview_replicas.map_or(total, |replicas| Size::Replicas(replicas).of(total));
            let later = stages::shapes(strategy, usize::MAX).len() - 1;
            let first = share_batch(preview, totals, units);
            std::iter::once(first).chain(std::iter::repeat_n(totals.clone(), later)).collect()
        }
    }
}

/// Returns the cumulative quotas of one workload's stages: the beta group, then batches, the last one the totals.
///
/// A workload without pods has one stage of nothing.
fn batches(totals: &Counts, units: &[Unit], policy: &Batched) -> Vec<Counts> {
    let total: u32 = totals.values().sum();
    let mut reached: Counts = units.iter().map(|unit| (unit.clone(), 0)).collect();
    let mut stages = Vec::new();
    let beta = policy.beta.per_unit;
    if beta > 0 && total > 0 {
        for (unit, count) in &mut reached {
            *count = beta.min(totals.get(unit).copied().unwrap_or(0));
        }
        stages.push(reached.clone());
    }
    let size = match policy.batch_size {
        IntOrPercent::Count(count) => count,
        IntOrPercent::Percent(percent) => percent.half_up(total),
    }
    .max(1);
    while reached.values().sum::<u32>() < total {
        let left = units
            .iter()
            .map(|unit| {
                (unit.clone(), totals.get(unit).copied().unwrap_or(0) - reached.get(unit).copied().unwrap_or(0))
            })
            .collect();
        for (unit, more) in share_batch(size, &left, units) {
            *reached.entry(unit).or_default() += more;
        }
        stages.push(reached.clone());
    }
    if stages.is_empty() {
        stages.push(reached);
    }
    stages
}

/// Counts quotas anew for other totals: the same stages, but where a workload has more or fewer batches now the last
/// stage takes what is left. A stage up to `reached` never falls below what it had, as far as the total allows.
pub fn rescale(old: &[Counts], totals: &Counts, units: &[Unit], strategy: &Strategy, reached: usize) -> Vec<Counts> {
    let fresh = stages(totals, units, strategy);
    let last = old.len().saturating_sub(1);
    old.iter()
        .enumerate()
        .map(|(index, before)| {
            let wanted = if index == last { totals } else { fresh.get(index).unwrap_or(totals) };
            units
                .iter()
                .map(|unit| {
                    let total = totals.get(unit).copied().unwrap_or(0);
                    let wanted = wanted.get(unit).copied().unwrap_or(0);
                    let kept = if index <= reached { before.get(unit).copied().unwrap_or(0) } else { 0 };
                    (unit.clone(), wanted.max(kept).min(total))
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::policy::{Beta, Confirm, Graceful, Percent, PodPolicy, Update};

    fn units(names: &str) -> Vec<Unit> {
        names.split_whitespace().map(Unit::from).collect()
    }

    fn shares(list: &[(&str, IntOrPercent)]) -> BTreeMap<Unit, Share> {
        list.iter().map(|(unit, share)| (Unit::from(*unit), *share)).collect()
    }

    fn percent(number: u8) -> IntOrPercent {
        IntOrPercent::Percent(Percent::new(number).unwrap())
    }

    fn in_order(counts: &Counts, units: &[Unit]) -> Vec<u32> {
        units.iter().map(|unit| counts[unit]).collect()
    }

    fn policy(beta: u32, batch_size: IntOrPercent) -> Batched {
        Batched {
            pods: PodPolicy {
                update: Update::InPlaceIfPossible,
                topology: None,
                min_ready: std::time::Duration::ZERO,
                max_unavailable: percent(25),
                max_surge: IntOrPercent::Count(0),
                graceful: Graceful {
                    grace_period: std::time::Duration::ZERO,
                    finalizers: Vec::new(),
                    readiness_gate: false,
                },
            },
            beta: Beta { per_unit: beta },
            batch_size,
            confirm: Confirm::EveryBatch,
        }
    }

    #[test]
    fn the_figures_of_the_issue() {
        let ab = units("a b");
        assert_eq!(in_order(&share_out(10, &ab, &shares(&[])).unwrap(), &ab), [5, 5]);
        let dc = units("dca dcb");
        let wanted = shares(&[("dca", IntOrPercent::Count(4)), ("dcb", percent(60))]);
        assert_eq!(in_order(&share_out(10, &dc, &wanted).unwrap(), &dc), [4, 6]);
        let abc = units("a b c");
        let wanted = shares(&[("a", IntOrPercent::Count(4)), ("b", percent(10))]);
        assert_eq!(in_order(&share_out(10, &abc, &wanted).unwrap(), &abc), [4, 1, 5]);
    }

    #[test]
    fn sums_that_do_not_fit_are_errors() {
        let ab = units("a b");
        let wanted = shares(&[("a", IntOrPercent::Count(4)), ("b", IntOrPercent::Count(4))]);
        assert_eq!(share_out(10, &ab, &wanted), Err(ShareError::TooFew { asked: 8, total: 10 }));
        assert_eq!(share_out(6, &ab, &wanted), Err(ShareError::TooMany { asked: 8, total: 6 }));
        let halves = shares(&[("a", percent(50)), ("b", percent(50))]);
        assert_eq!(in_order(&share_out(5, &ab, &halves).unwrap(), &ab), [3, 2]);
    }

    #[test]
    fn ten_in_two_units_by_fours() {
        let ab = units("a b");
        let totals = share_out(10, &ab, &shares(&[])).unwrap();
        let stages = batches(&totals, &ab, &policy(1, IntOrPercent::Count(4)));
        let stages: Vec<_> = stages.iter().map(|counts| in_order(counts, &ab)).collect();
        assert_eq!(stages, [[1, 1], [3, 3], [5, 5]]);
    }

    #[test]
    fn a_batch_goes_where_most_is_left() {
        let dc = units("dca dcb");
        let totals = share_out(10, &dc, &shares(&[("dca", IntOrPercent::Count(4)), ("dcb", percent(60))])).unwrap();
        let stages = batches(&totals, &dc, &policy(1, IntOrPercent::Count(4)));
        let stages: Vec<_> = stages.iter().map(|counts| in_order(counts, &dc)).collect();
        assert_eq!(stages, [[1, 1], [3, 3], [4, 6]]);
    }

    #[test]
    fn rescaling_keeps_what_was_reached() {
        let ab = units("a b");
        let old = batches(&share_out(10, &ab, &shares(&[])).unwrap(), &ab, &policy(1, IntOrPercent::Count(4)));
        let fewer = share_out(4, &ab, &shares(&[])).unwrap();
        let strategy = Strategy::Batched(policy(1, IntOrPercent::Count(4)));
        let stages = rescale(&old, &fewer, &ab, &strategy, 1);
        let stages: Vec<_> = stages.iter().map(|counts| in_order(counts, &ab)).collect();
        assert_eq!(stages, [[1, 1], [2, 2], [2, 2]]);
    }

    #[test]
    fn nothing_is_lost_or_invented() {
        let abc = units("a b c");
        for total in 0..60 {
            for size in 1..12 {
                let totals = share_out(total, &abc, &shares(&[])).unwrap();
                assert_eq!(totals.values().sum::<u32>(), total);
                let stages = batches(&totals, &abc, &policy(1, IntOrPercent::Count(size)));
                assert_eq!(stages.last(), Some(&totals));
                for pair in stages.windows(2) {
                    let more: u32 = pair[1].values().sum::<u32>() - pair[0].values().sum::<u32>();
                    assert!(more >= 1 && more <= size, "{total} by {size}: a batch of {more}");
                    assert!(abc.iter().all(|unit| pair[0][unit] <= pair[1][unit] && pair[1][unit] <= totals[unit]));
                }
            }
        }
    }
}
