//! Numbers that people write as a count or as a percentage.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole percentage from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(u8);

impl Percent {
    /// 25 %.
    pub const QUARTER: Self = Self(25);
    /// 50 %.
    pub const HALF: Self = Self(50);
    /// 100 %.
    pub const ALL: Self = Self(100);

    /// Returns `None` for more than 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 { Some(Self(percent)) } else { None }
    }

    /// Returns the number, 0 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns what is left of everything.
    pub const fn rest(self) -> Self {
        Self(100 - self.0)
    }

    /// Returns the percentage of `total`, rounded down.
    pub fn down(self, total: u32) -> u32 {
        scaled(u64::from(total) * u64::from(self.0) / 100)
    }

    /// Returns the percentage of `total`, rounded up.
    pub fn up(self, total: u32) -> u32 {
        scaled((u64::from(total) * u64::from(self.0)).div_ceil(100))
    }

    /// Returns the percentage of `total`, rounded half up.
    pub fn half_up(self, total: u32) -> u32 {
        scaled((u64::from(total) * u64::from(self.0) + 50) / 100)
    }
}

/// At most 100 % of a `u32` always fits into one.
fn scaled(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A count of pods, or a percentage of the wanted total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IntOrPercent {
    /// A count.
    Count(u32),
    /// A percentage of the total.
    Percent(Percent),
}

impl IntOrPercent {
    /// Returns what it means of `total`, rounded down and never more than `total`.
    pub fn down(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => percent.down(total),
        }
    }

    /// Returns what it means of `total`, rounded up and never more than `total`.
    pub fn up(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => percent.up(total),
        }
    }

    /// Returns what it means of `total`, rounded half up and never more than `total`.
    pub fn half_up(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => percent.half_up(total),
        }
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

/// A unit's share of a workload's replicas: a count, or a percentage of the total.
pub type Share = IntOrPercent;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn percentages_round_as_said_and_never_overflow() {
        let quarter = Percent::new(25).unwrap();
        assert_eq!((quarter.down(10), quarter.half_up(10)), (2, 3));
        assert_eq!((quarter.down(9), quarter.half_up(9)), (2, 2));
        assert_eq!(Percent::new(100).unwrap().half_up(u32::MAX), u32::MAX);
        assert_eq!(Percent::new(101), None);
        assert_eq!(IntOrPercent::Count(7).down(3), 3);
    }
}
