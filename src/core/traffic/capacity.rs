//! How many pods a share of the requests needs, and what share of them so many pods can take: where stable has only as many
//! as its share needs, requests come back to it no faster than its pods do.

use crate::core::policy::Percent;

/// Returns how many of `total` pods stable needs while the new side has a share of the requests: rounded up, so never none
/// before the new side has everything.
pub fn stable_pods(weight: Percent, total: u32) -> u32 {
    weight.rest().up(total)
}

/// Returns what share of the requests `pods` of `total` can take, rounded down; everything where none are wanted.
pub fn carried(pods: u32, total: u32) -> Percent {
    let share = (u64::from(pods) * 100).checked_div(u64::from(total)).unwrap_or(100);
    u8::try_from(share).ok().and_then(Percent::new).unwrap_or(Percent::ALL)
}

/// Returns the new side's share of the requests on its way from `now` down to `wanted`, where the pods of stable and of the
/// new side that are ready carry so much: what stable cannot take yet stays where it is, unless nobody is there for it
/// either. Never more than now, and never less than is wanted.
pub fn on_the_way_back(wanted: Percent, now: Percent, stable: Percent, new: Percent) -> Percent {
    let stays = stable.rest().min(new);
    now.min(wanted.max(stays))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn percent(number: u8) -> Percent {
        Percent::new(number).unwrap()
    }

    #[test]
    fn stable_keeps_what_its_share_needs_and_never_nothing() {
        let kept = |total: u32| [0, 20, 60, 99, 100].map(|weight| stable_pods(percent(weight), total));
        assert_eq!(kept(10), [10, 8, 4, 1, 0]);
        assert_eq!(kept(4), [4, 4, 2, 1, 0]);
        assert_eq!(kept(1), [1, 1, 1, 1, 0]);
        assert_eq!(kept(0), [0; 5]);
    }

    #[test]
    fn what_a_share_needs_carries_it_and_one_pod_less_does_not() {
        for total in 1..60 {
            for weight in 0..100 {
                let pods = stable_pods(percent(weight), total);
                assert!(carried(pods, total) >= percent(weight).rest(), "{pods} of {total} at {weight}");
                assert!(carried(pods - 1, total) < percent(weight).rest(), "{pods} of {total} at {weight}");
            }
        }
        assert_eq!([carried(0, 0), carried(12, 10)], [Percent::ALL; 2]);
    }

    #[test]
    fn requests_come_back_as_pods_of_stable_get_ready() {
        let back = |ready: u32| on_the_way_back(percent(0), percent(60), carried(ready, 10), carried(6, 10)).get();
        assert_eq!([4, 5, 7, 9, 10].map(back), [60, 50, 30, 10, 0]);
        // Back to a step before.
        let back = |ready: u32| on_the_way_back(percent(20), percent(60), carried(ready, 10), carried(6, 10)).get();
        assert_eq!([4, 6, 8, 10].map(back), [60, 40, 20, 20]);
    }

    #[test]
    fn what_the_new_side_cannot_take_goes_to_stable_at_once() {
        let back = |new: u32| on_the_way_back(percent(0), percent(60), carried(4, 10), carried(new, 10)).get();
        assert_eq!([6, 3, 0].map(back), [60, 30, 0]);
    }

    #[test]
    fn a_share_that_fell_never_rises_again_on_the_way() {
        for (now, stable, new) in [(10, 40, 60), (0, 0, 100), (60, 100, 60)] {
            let share = on_the_way_back(percent(0), percent(now), percent(stable), percent(new));
            assert!(share <= percent(now), "{share} from {now}");
        }
    }
}
