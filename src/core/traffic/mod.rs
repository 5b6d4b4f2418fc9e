//! What a split of traffic is, and what is answered when somebody is asked whether the world has followed one.

use crate::core::policy::Percent;

/// How traffic is shared between two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The share of the side that is gone to; the rest is that of the side that is left.
    pub new: Percent,
}

impl Split {
    /// Everything goes to the side that is gone to.
    pub const ALL: Self = Self { new: Percent::ALL };

    /// Returns whether the side that is gone to gets everything.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }
}

/// Whether a router has followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It has.
    Yes,
    /// It has not; says what is missing.
    NotYet(String),
    /// It cannot be told; says why.
    CannotTell(String),
}

impl Followed {
    /// Returns whether it is known to have followed.
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}
