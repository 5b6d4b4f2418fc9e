//! From samples to a verdict.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::{Compiled, Condition};
use crate::core::policy::seconds;

/// What an analysis came to. Only `Pass` opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The new version is good.
    Pass,
    /// The new version is bad.
    Fail,
    /// Nobody can tell.
    Inconclusive,
    /// It could not be measured.
    Error,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
        })
    }
}

/// What an analysis makes of its samples, and when it takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// A sample is good where this holds. With both conditions one for which neither holds is inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_condition: Option<Condition>,
    /// A sample is bad where this holds, whatever the other says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_condition: Option<Condition>,
    /// How long after the stage is there the first sample is taken.
    #[serde(with = "seconds")]
    pub initial_delay: Duration,
    /// The time between two samples; at least a second.
    #[serde(with = "seconds")]
    pub interval: Duration,
    /// When it has passed.
    pub enough: Enough,
    /// It fails on the sample after so many bad ones.
    pub failure_limit: u32,
    /// It is inconclusive on the sample after so many that tell nothing.
    pub inconclusive_limit: u32,
    /// It is an error on the sample after so many in a row that could not be taken.
    pub error_limit: u32,
    /// What a sample is of which there are no data.
    pub no_data: NoData,
}

/// When an analysis has passed, unless a limit is crossed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enough {
    /// After so many samples that are good or bad.
    Count(u32),
    /// After so many good ones in a row.
    InARow(u32),
    /// Never: it is measured beside whatever happens, and its last so many samples count.
    Endless(u32),
}

impl Enough {
    /// Returns how many samples there must be at least.
    pub fn samples(self) -> u32 {
        match self {
            Self::Count(count) | Self::InARow(count) | Self::Endless(count) => count,
        }
    }
}

/// What a sample is of which there are no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NoData {
    /// Nobody can tell.
    Inconclusive,
    /// Good: no request, no error.
    Pass,
    /// Bad.
    Fail,
}

/// What was found at one moment. Measurements are kept as JSON text, which is the same wherever it is read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Finding {
    /// It was measured: the new version, and the stable one where it is compared.
    Measured {
        /// `[0.983]`.
        result: String,
        /// `[0.991]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        baseline: Option<String>,
    },
    /// There is nothing to measure, and why: no series, or no number.
    NoData(String),
    /// There is an answer that nothing can be told by, and why: warnings, more than one series.
    Doubtful(String),
    /// There is no answer, and why.
    Error(String),
}

impl Rule {
    /// Makes ready to judge samples.
    pub fn judge(&self) -> Judge<'_> {
        Judge {
            rule: self,
            success: self.success_condition.as_ref().map(Condition::compiled),
            failure: self.failure_condition.as_ref().map(Condition::compiled),
        }
    }

    /// Judges an analysis by the verdicts of its samples, in their order; `None` while it goes on. What comes after the
    /// sample that decided changes nothing.
    pub fn verdict(&self, samples: impl IntoIterator<Item = Verdict>) -> Option<Verdict> {
        let mut tally = Tally::default();
        samples.into_iter().find_map(|sample| tally.add(sample, self))
    }
}

/// Judges single samples by a rule.
pub struct Judge<'a> {
    rule: &'a Rule,
    success: Option<Result<Compiled<'a>, String>>,
    failure: Option<Result<Compiled<'a>, String>>,
}

impl Judge<'_> {
    /// Judges one sample; says why where it is no measurement.
    pub fn of(&self, finding: &Finding) -> (Verdict, Option<String>) {
        match finding {
            Finding::Measured { result, baseline } => match self.measured(result, baseline.as_deref()) {
                Ok(verdict) => (verdict, None),
                Err(why) => (Verdict::Error, Some(why)),
            },
            Finding::NoData(why) => {
                let verdict = match self.rule.no_data {
                    NoData::Inconclusive => Verdict::Inconclusive,
                    NoData::Pass => Verdict::Pass,
                    NoData::Fail => Verdict::Fail,
                };
                (verdict, Some(why.clone()))
            }
            Finding::Doubtful(why) => (Verdict::Inconclusive, Some(why.clone())),
            Finding::Error(why) => (Verdict::Error, Some(why.clone())),
        }
    }

    fn measured(&self, result: &str, baseline: Option<&str>) -> Result<Verdict, String> {
        let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("no JSON: {error}"));
        let (result, baseline) = (read(result)?, baseline.map(read).transpose()?);
        let holds = |condition: &Result<Compiled<'_>, String>| match condition {
            Ok(condition) => condition.holds(&result, baseline.as_ref()),
            Err(why) => Err(why.clone()),
        };
        // Both are worked out: a condition that cannot be must not hide behind the other.
        let failed = self.failure.as_ref().map(holds).transpose()?;
        let passed = self.success.as_ref().map(holds).transpose()?;
        Ok(match (passed, failed) {
            (_, Some(true)) | (Some(false), None) => Verdict::Fail,
            (Some(true), _) | (None, Some(false)) => Verdict::Pass,
            (Some(false), Some(false)) | (None, None) => Verdict::Inconclusive,
        })
    }
}

/// How far an analysis is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good samples.
    pub passed: u32,
    /// Bad ones.
    pub failed: u32,
    /// Those that tell nothing.
    pub inconclusive: u32,
    /// Those that could not be taken.
    pub errors: u32,
    good_in_a_row: u32,
    errors_in_a_row: u32,
}

impl Tally {
    /// Returns how many samples were good or bad.
    pub fn measured(&self) -> u32 {
        self.passed + self.failed
    }

    /// Counts one more sample, and says what it decides.
    pub fn add(&mut self, sample: Verdict, rule: &Rule) -> Option<Verdict> {
        self.good_in_a_row = if sample == Verdict::Pass { self.good_in_a_row + 1 } else { 0 };
        self.errors_in_a_row = if sample == Verdict::Error { self.errors_in_a_row + 1 } else { 0 };
        match sample {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Inconclusive => self.inconclusive += 1,
            Verdict::Error => self.errors += 1,
        }
        let enough = match rule.enough {
            Enough::Count(count) => self.measured() >= count,
            Enough::InARow(count) => self.good_in_a_row >= count,
            Enough::Endless(_) => false,
        };
        if self.failed > rule.failure_limit {
            Some(Verdict::Fail)
        } else if self.inconclusive > rule.inconclusive_limit {
            Some(Verdict::Inconclusive)
        } else if self.errors_in_a_row > rule.error_limit || self.taken() >= super::MOST_SAMPLES {
            Some(Verdict::Error)
        } else {
            enough.then_some(Verdict::Pass)
        }
    }

    /// Returns how many samples were taken.
    pub fn taken(&self) -> u32 {
        self.measured() + self.inconclusive + self.errors
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(enough: Enough, failure_limit: u32) -> Rule {
        Rule {
            success_condition: Some(Condition::parse("result[0] >= 0.95").unwrap()),
            failure_condition: None,
            initial_delay: Duration::ZERO,
            interval: Duration::from_secs(10),
            enough,
            failure_limit,
            inconclusive_limit: 0,
            error_limit: 2,
            no_data: NoData::Inconclusive,
        }
    }

    fn verdicts(letters: &str) -> Vec<Verdict> {
        let verdict = |letter| match letter {
            'p' => Verdict::Pass,
            'f' => Verdict::Fail,
            'i' => Verdict::Inconclusive,
            _ => Verdict::Error,
        };
        letters.chars().map(verdict).collect()
    }

    #[test]
    fn a_limit_of_n_is_crossed_by_one_more() {
        let three = |letters: &str, limit: u32| rule(Enough::Count(3), limit).verdict(verdicts(letters));
        assert_eq!(three("pp", 0), None);
        assert_eq!(three("ppp", 0), Some(Verdict::Pass));
        assert_eq!(three("f", 0), Some(Verdict::Fail));
        assert_eq!(three("f", 1), None);
        assert_eq!(three("fpp", 1), Some(Verdict::Pass));
        assert_eq!(three("fpf", 1), Some(Verdict::Fail));
        assert_eq!(three("pi", 0), Some(Verdict::Inconclusive));
        assert_eq!(three("ee", 0), None);
        assert_eq!(three("eee", 0), Some(Verdict::Error));
        // Errors are counted in a row, and are no measurements.
        assert_eq!(three("eepeepee", 0), None);
        assert_eq!(three("eepeepeep", 0), Some(Verdict::Pass));
    }

    #[test]
    fn good_ones_in_a_row_start_over_after_anything_else() {
        let two = |letters: &str| rule(Enough::InARow(2), 2).verdict(verdicts(letters));
        assert_eq!(two("pfpep"), None);
        assert_eq!(two("pfpp"), Some(Verdict::Pass));
        assert_eq!(two("pfpfpf"), Some(Verdict::Fail));
    }

    #[test]
    fn fault_72_nothing_but_a_good_measurement_is_a_pass() {
        let rule = rule(Enough::Count(1), 0);
        let measured = |result: &str| Finding::Measured { result: result.to_owned(), baseline: None };
        let judge = |finding: &Finding| rule.judge().of(finding).0;
        assert_eq!(judge(&measured("[0.95]")), Verdict::Pass);
        assert_eq!(judge(&measured("[0.949]")), Verdict::Fail);
        assert_eq!(judge(&measured("[]")), Verdict::Error);
        assert_eq!(judge(&measured("nonsense")), Verdict::Error);
        assert_eq!(judge(&Finding::NoData("NaN".to_owned())), Verdict::Inconclusive);
        assert_eq!(judge(&Finding::Doubtful("warnings".to_owned())), Verdict::Inconclusive);
        assert_eq!(judge(&Finding::Error("503".to_owned())), Verdict::Error);
        let fails = Rule { no_data: NoData::Fail, ..rule.clone() };
        assert_eq!(fails.judge().of(&Finding::NoData("empty".to_owned())).0, Verdict::Fail);
        let passes = Rule { no_data: NoData::Pass, ..rule };
        assert_eq!(passes.judge().of(&Finding::NoData("empty".to_owned())).0, Verdict::Pass);
        assert_eq!(passes.judge().of(&Finding::Doubtful("warnings".to_owned())).0, Verdict::Inconclusive);
    }

    #[test]
    fn between_two_conditions_nobody_can_tell() {
        let failure = Some(Condition::parse("result[0] < 0.5").unwrap());
        let rule = Rule { failure_condition: failure, ..rule(Enough::Count(1), 0) };
        let judge = |result: &str| rule.judge().of(&Finding::Measured { result: result.to_owned(), baseline: None }).0;
        assert_eq!(
            [judge("[0.99]"), judge("[0.7]"), judge("[0.1]")],
            [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail]
        );
    }

    proptest! {
        /// Whatever comes, an analysis passes only on good samples, and what decided is never taken back.
        #[test]
        fn a_verdict_is_explained_by_its_samples(letters in "[pfie]{0,40}", count in 1_u32..6, limit in 0_u32..3, in_a_row: bool) {
            let enough = if in_a_row { Enough::InARow(count) } else { Enough::Count(count) };
            let rule = rule(enough, limit.min(count - 1));
            let samples = verdicts(&letters);
            let decided = (0..=samples.len()).find(|taken| rule.verdict(samples[..*taken].iter().copied()).is_some());
            let verdict = rule.verdict(samples.iter().copied());
            prop_assert_eq!(verdict, decided.and_then(|taken| rule.verdict(samples[..taken].iter().copied())));
            let number = |wanted| samples[..decided.unwrap_or(samples.len())].iter().filter(|one| **one == wanted).count();
            let limit = usize::try_from(rule.failure_limit).unwrap();
            match verdict {
                Some(Verdict::Pass) => {
                    prop_assert!(number(Verdict::Pass) > 0);
                    prop_assert!(number(Verdict::Fail) <= limit);
                    prop_assert_eq!(number(Verdict::Inconclusive), 0);
                }
                Some(Verdict::Fail) => prop_assert_eq!(number(Verdict::Fail), limit + 1),
                Some(Verdict::Inconclusive) => prop_assert_eq!(number(Verdict::Inconclusive), 1),
                Some(Verdict::Error) => prop_assert!(number(Verdict::Error) >= 3),
                None => prop_assert!(number(Verdict::Fail) <= limit && number(Verdict::Inconclusive) == 0),
            }
        }
    }
}
