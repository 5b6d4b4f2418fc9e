//! One analysis, as its record tells it: everything that the verdict stands on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Finding, Metric, Rule, Tally, Verdict, finding};
use crate::core::ask::{Answer, Query};

/// One analysis of one metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// The metric.
    pub metric: String,
    /// Whom was asked.
    pub asked: String,
    /// What, about the new version.
    pub query: String,
    /// What, about the stable one, where it is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The time that each sample looks back, where the query does not say it itself: `5m by 30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Since when it is measured.
    pub since: Timestamp,
    /// How it is judged.
    pub rule: Rule,
    /// What was found, in order; the last one decided.
    pub samples: Vec<Sample>,
    /// What it came to.
    pub verdict: Verdict,
}

/// What was found at one moment, and what it counts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sample {
    /// When it was asked.
    pub at: Timestamp,
    /// What was found.
    pub found: Finding,
    /// What that counts for.
    pub verdict: Verdict,
}

/// Whom was asked what.
pub(in crate::core) struct Asked {
    /// See [`Run::asked`].
    pub whom: String,
    /// See [`Run::query`].
    pub query: String,
    /// See [`Run::baseline`].
    pub baseline: Option<String>,
    /// See [`Run::window`].
    pub window: Option<String>,
}

impl From<&Query> for Asked {
    fn from(query: &Query) -> Self {
        match query.clone() {
            Query::Prometheus { address, query, baseline, range } => {
                let window = range.map(|range| format!("{}s by {}s", range.window.as_secs(), range.step.as_secs()));
                Self { whom: address, query, baseline, window }
            }
            Query::Web { url, baseline, path } => Self { whom: url, query: path.to_string(), baseline, window: None },
        }
    }
}

/// Judges answers in their order, as far as the one that decides.
pub(in crate::core) fn judge(rule: &Rule, answers: &[&Answer]) -> (Vec<Sample>, Tally, Option<Verdict>) {
    let judge = rule.judge();
    let mut tally = Tally::default();
    let mut samples = Vec::new();
    for answer in answers {
        let found = finding(answer);
        let (verdict, why) = judge.of(&found);
        // What the condition made of the measurement is told in place of it: by the measurement alone it shows again.
        let found = match (why, found) {
            (Some(why), Finding::Measured { .. }) => Finding::Error(why),
            (_, found) => found,
        };
        samples.push(Sample { at: micros(answer.at), found, verdict });
        if let Some(decided) = tally.add(verdict, rule) {
            return (samples, tally, Some(decided));
        }
    }
    (samples, tally, None)
}

impl Run {
    /// Says in one sentence what it came to, and on what.
    pub fn why(&self) -> String {
        let decisive = self.samples.iter().rev().find(|sample| sample.verdict == self.verdict);
        let found = decisive.map(|sample| match &sample.found {
            Finding::Measured { result, baseline: None } => result.clone(),
            Finding::Measured { result, baseline: Some(baseline) } => format!("{result}, and {baseline} of stable"),
            Finding::NoData(why) => format!("no data: {why}"),
            Finding::Doubtful(why) | Finding::Error(why) => why.clone(),
        });
        let found = found.map(|found| format!(": {found}")).unwrap_or_default();
        let conditions = [
            self.rule.success_condition.as_ref().map(|condition| format!("good where {condition}")),
            self.rule.failure_condition.as_ref().map(|condition| format!("bad where {condition}")),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        let number = self.samples.iter().filter(|sample| sample.verdict == self.verdict).count();
        let samples = match self.samples.len() {
            1 => "the only sample".to_owned(),
            all => format!("{number} of {all} samples"),
        };
        let (metric, conditions) = (&self.metric, conditions.join(", "));
        match self.verdict {
            Verdict::Pass => format!("{metric} is good in {samples}{found} ({conditions})"),
            Verdict::Fail => format!("{metric} is bad in {samples}{found} ({conditions})"),
            Verdict::Inconclusive => format!("{metric} is inconclusive in {samples}{found} ({conditions})"),
            Verdict::Error => format!("{metric} could not be measured in {samples}{found}"),
        }
    }

    /// Builds what the record tells.
    pub(in crate::core) fn new(
        metric: &Metric,
        asked: Asked,
        since: Timestamp,
        samples: Vec<Sample>,
        verdict: Verdict,
    ) -> Self {
        let Asked { whom, query, baseline, window } = asked;
        Self {
            metric: metric.name.clone(),
            asked: whom,
            query,
            baseline,
            window,
            since: micros(since),
            rule: metric.rule.clone(),
            samples,
            verdict,
        }
    }

    /// Computes every verdict again, and says which is another.
    ///
    /// # Errors
    ///
    /// Which sample's verdict, or the whole one, does not follow from what was found.
    pub fn check(&self) -> Result<(), String> {
        let judge = self.rule.judge();
        for (index, sample) in self.samples.iter().enumerate() {
            let (verdict, _) = judge.of(&sample.found);
            if verdict != sample.verdict {
                let number = index + 1;
                return Err(format!("sample {number} of {} is {verdict}, not {}", self.metric, sample.verdict));
            }
        }
        let verdict = self.rule.verdict(self.samples.iter().map(|sample| sample.verdict));
        if verdict == Some(self.verdict) {
            return Ok(());
        }
        let computed = verdict.map_or_else(|| "not decided".to_owned(), |verdict| verdict.to_string());
        Err(format!("the samples of {} are {computed}, not {}", self.metric, self.verdict))
    }
}

/// Journals are for people: whole microseconds, so that what is read back is what was hashed.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
