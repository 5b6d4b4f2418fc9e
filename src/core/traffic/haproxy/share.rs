//! Weights of servers that make a share.

use crate::core::policy::Percent;

/// The most that a server's weight can be.
pub const MOST_WEIGHT: u32 = 256;

/// Returns the weights of each server of the new side and of each of the other, so that the new side gets `share`, as
/// near as whole weights allow; the smallest ones that do. A side that gets everything leaves the other at 0.
pub fn weights(share: Percent, new: u32, old: u32) -> (u32, u32) {
    let share = u64::from(share.get());
    if share == 0 || old == 0 || new == 0 {
        return (u32::from(share > 0), u32::from(share < 100));
    }
    if share == 100 {
        return (1, 0);
    }
    // How far new·a / (new·a + old·b) is from the share, as a fraction: its numerator and its denominator.
    let (new, old) = (u64::from(new), u64::from(old));
    let error = |a: u64, b: u64| {
        let sum = new * a + old * b;
        ((100 * new * a).abs_diff(share * sum), sum)
    };
    let mut best = (1, 1);
    for a in 1..=u64::from(MOST_WEIGHT) {
        // The two whole numbers around the exact answer.
        let exact = a * new * (100 - share) / (share * old);
        for b in [exact, exact + 1] {
            let b = b.clamp(1, u64::from(MOST_WEIGHT));
            let (now, before) = (error(a, b), error(best.0, best.1));
            if u128::from(now.0) * u128::from(before.1) < u128::from(before.0) * u128::from(now.1) {
                best = (a, b);
            }
        }
    }
    let small = |weight: u64| u32::try_from(weight).unwrap_or(MOST_WEIGHT);
    (small(best.0), small(best.1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_where_they_can_be_and_never_far() {
        let of = |share: u8, new, old| weights(Percent::new(share).unwrap(), new, old);
        assert_eq!(
            [of(20, 1, 1), of(20, 2, 8), of(60, 3, 3), of(0, 2, 3), of(100, 2, 3)],
            [(1, 4), (1, 1), (3, 2), (0, 1), (1, 0)]
        );
        for share in 1..100 {
            for (new, old) in [(1, 1), (1, 10), (3, 7), (10, 3), (20, 20)] {
                let (a, b) = of(share, new, old);
                let got = 100.0 * f64::from(new * a) / f64::from(new * a + old * b);
                // Ten to one, 98 % would take more than the most weight against the least.
                let at_the_end = [(MOST_WEIGHT, 1), (1, MOST_WEIGHT)].contains(&(a, b));
                let near = (got - f64::from(share)).abs() < 0.5;
                assert!(near || at_the_end, "{share} % of {new} and {old}: {a} and {b} are {got} %");
            }
        }
        // One of a thousand: even the least weight against the most is more than 1 %.
        assert_eq!(of(1, 1000, 1), (1, 256));
    }
}
