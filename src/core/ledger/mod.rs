//! Records, their chain, and the commits that carry them.

pub mod audit;
pub mod journal;
pub mod message;
mod record;

pub use record::{Cause, DecisionFile, Draft, Event, Evidence, PodEvidence, Quota, Record};
