//! Analysis: from what was measured of the new version to a verdict.
//!
//! A [`Metric`] says what is asked and by which [`Rule`] it is judged; both are part of the policy, and so of the plan.
//! Each sample is one answer, read as a [`Finding`] and judged; the samples together come to a [`Verdict`], and that is
//! written into the record with everything that it stands on, so that anybody can compute it again ([`Run::check`]).

mod condition;
mod finding;
mod metric;
mod path;
mod ready;
mod rule;
mod run;

pub use condition::Condition;
pub use finding::finding;
pub use metric::{Argument, Metric, Provider, Range, Side, Template, literal};
pub use path::JsonPath;
pub use ready::{Exposed, READY, ready};
pub use rule::{Enough, Finding, Judge, NoData, Rule, Tally, Verdict};
pub(in crate::core) use run::{Asked, judge};
pub use run::{Run, Sample};

/// The most samples of one analysis: where these tell nothing, more will not.
pub const MOST_SAMPLES: u32 = 1000;
