//! What the controller tells of its own work while it works, to whoever makes metrics, health and events of it.
//!
//! Nobody who listens can hold anything up, and nothing is decided by it.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

use crate::core::{
    ledger::Record,
    manifest::Object,
    names::{AppName, RolloutId},
    rollout::report::{Activity, Reason},
};

/// Something that happened in the controller.
pub enum News<'a> {
    /// The loop has woken, and works.
    Woke,
    /// The loop has done what there was to do, and waits.
    Rests(Load),
    /// An application does something else than before.
    Decided {
        /// The application.
        app: &'a AppName,
        /// What it does now.
        activity: Activity,
        /// Whether what HEAD says of it cannot be used.
        head_is_broken: bool,
    },
    /// A record was pushed, or kept in its anchor because Git is away.
    Recorded(Recorded<'a>),
    /// Deciding fails for an application: it is left alone for a while.
    Quarantined(Quarantined<'a>),
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Whether everything that is needed has been listed, and the branch was read or anchors stand for it.
    pub ready: bool,
    /// Applications that are to be decided, or decided again.
    pub due: usize,
    /// Applications whose writes are under way.
    pub acting: usize,
}

/// An application that is left alone for a while, with why.
pub struct Quarantined<'a> {
    /// The application.
    pub app: &'a AppName,
    /// What its report says.
    pub why: &'a Reason,
    /// Since when.
    pub at: Timestamp,
    /// The application's workloads as they are in the cluster.
    pub workloads: Vec<&'a Object>,
}

/// A record, with what it is about.
pub struct Recorded<'a> {
    /// The application.
    pub app: &'a AppName,
    /// The rollout.
    pub rollout: &'a RolloutId,
    /// The record.
    pub record: &'a Record,
    /// The rollout's records before it.
    pub before: &'a [Record],
    /// The application's workloads as they are in the cluster.
    pub workloads: Vec<&'a Object>,
}

/// Who listens. Must return at once.
pub trait Listener: Send + Sync {
    /// Hears of something.
    fn hear(&self, news: &News<'_>);
}

/// All who listen.
#[derive(Clone, Default)]
pub struct Listeners(pub Vec<Arc<dyn Listener>>);

impl Listeners {
    /// Tells everybody.
    pub fn tell(&self, news: &News<'_>) {
        self.0.iter().for_each(|listener| listener.hear(news));
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} listeners", self.0.len())
    }
}
