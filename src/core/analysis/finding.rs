//! What an answer says, as far as anything can be told by it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::Finding;
use crate::core::ask::{Answer, Found, Said};

/// A server whose clock is further off measures another time than is meant.
const FURTHEST_CLOCK: SignedDuration = SignedDuration::from_mins(5);
/// The longest JSON that is a measurement: it goes into the record.
const LONGEST: usize = 4096;

/// Reads an answer to a metric's question.
pub fn finding(answer: &Answer) -> Finding {
    let reading = match &answer.result {
        Ok(Said::Reading(reading)) => reading,
        Ok(Said::Page { .. } | Said::Servers(_)) => {
            return Finding::Error("something else was answered than the metric that was asked for".to_owned());
        }
        Err(why) => return Finding::Error(why.to_string()),
    };
    let one = |found: &Found| measured(found, answer);
    let result = match one(&reading.result) {
        Ok(result) => result,
        Err(finding) => return finding,
    };
    match reading.baseline.as_ref().map(one) {
        None => Finding::Measured { result, baseline: None },
        Some(Ok(baseline)) => Finding::Measured { result, baseline: Some(baseline) },
        Some(Err(finding)) => of_stable(finding),
    }
}

fn of_stable(finding: Finding) -> Finding {
    let stable = |why: String| format!("of stable: {why}");
    match finding {
        Finding::NoData(why) => Finding::NoData(stable(why)),
        Finding::Doubtful(why) => Finding::Doubtful(stable(why)),
        Finding::Error(why) => Finding::Error(stable(why)),
        measured @ Finding::Measured { .. } => measured,
    }
}

/// Returns the measurement as JSON text; what it is otherwise.
fn measured(found: &Found, answer: &Answer) -> Result<String, Finding> {
    let value = match found {
        Found::Series { series, warnings, clock } => {
            if let Some(off) =
                clock.map(|clock| clock.duration_since(answer.at).abs()).filter(|off| *off > FURTHEST_CLOCK)
            {
                return Err(Finding::Error(format!("its clock is {} s off", off.as_secs())));
            }
            if !warnings.is_empty() {
                return Err(Finding::Doubtful(format!("it warns: {}", warnings.join("; "))));
            }
            numbers(series)?
        }
        Found::Json(Value::Null) => return Err(Finding::NoData("null".to_owned())),
        Found::Json(value) => value.clone(),
    };
    let text = value.to_string();
    if text.len() > LONGEST {
        return Err(Finding::Error(format!("the measurement is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

fn numbers(series: &[Vec<f64>]) -> Result<Value, Finding> {
    let points = match series {
        [] => return Err(Finding::NoData("no series".to_owned())),
        [points] if points.is_empty() => return Err(Finding::NoData("no points".to_owned())),
        [points] => points,
        many => return Err(Finding::Doubtful(format!("{} series: make them one, as with sum()", many.len()))),
    };
    if points.iter().any(|point| point.is_nan()) {
        return Err(Finding::NoData("NaN".to_owned()));
    }
    if let Some(infinite) = points.iter().find(|point| point.is_infinite()) {
        return Err(Finding::Doubtful(format!("{infinite} is no measurement")));
    }
    Ok(json!(points))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::core::ask::{Reading, Unanswered};

    fn found(result: Found, baseline: Option<Found>) -> Finding {
        let result = Ok(Said::Reading(Reading { result, baseline }));
        finding(&Answer { at: Timestamp::from_second(10_000).unwrap(), result })
    }

    fn series(series: &[&[f64]]) -> Found {
        let series = series.iter().map(|points| points.to_vec()).collect();
        Found::Series { series, warnings: Vec::new(), clock: Timestamp::from_second(10_001).ok() }
    }

    fn measured(result: &str, baseline: Option<&str>) -> Finding {
        Finding::Measured { result: result.to_owned(), baseline: baseline.map(str::to_owned) }
    }

    #[test]
    fn fault_72_every_answer_has_one_reading() {
        assert_eq!(found(series(&[&[0.5]]), None), measured("[0.5]", None));
        assert_eq!(found(series(&[&[0.5]]), Some(series(&[&[1.0]]))), measured("[0.5]", Some("[1.0]")));
        assert_eq!(found(series(&[&[1.0, 2.0]]), None), measured("[1.0,2.0]", None));
        assert_eq!(found(Found::Json(json!({"ok": true})), None), measured("{\"ok\":true}", None));
        let told = |finding: Finding| match finding {
            Finding::NoData(why) => ("no data", why),
            Finding::Doubtful(why) => ("doubtful", why),
            Finding::Error(why) => ("error", why),
            Finding::Measured { result, .. } => ("measured", result),
        };
        let table = [
            (found(series(&[]), None), "no data", "no series"),
            (found(series(&[&[]]), None), "no data", "no points"),
            (found(series(&[&[f64::NAN]]), None), "no data", "NaN"),
            (found(series(&[&[1.0, f64::NAN]]), None), "no data", "NaN"),
            (found(Found::Json(Value::Null), None), "no data", "null"),
            (found(series(&[&[0.5]]), Some(series(&[]))), "no data", "of stable: no series"),
            (found(series(&[&[f64::INFINITY]]), None), "doubtful", "inf is no measurement"),
            (found(series(&[&[1.0], &[1.0]]), None), "doubtful", "2 series: make them one, as with sum()"),
            (found(Found::Json(json!("x".repeat(5000))), None), "error", "the measurement is longer than 4096 bytes"),
        ];
        for (finding, kind, why) in table {
            assert_eq!(told(finding), (kind, why.to_owned()));
        }
        let warned = Found::Series { series: vec![vec![1.0]], warnings: vec!["partial".to_owned()], clock: None };
        assert_eq!(told(found(warned, None)), ("doubtful", "it warns: partial".to_owned()));
        let clock = Timestamp::from_second(10_000 + 301).ok();
        let shifted = Found::Series { series: vec![vec![1.0]], warnings: Vec::new(), clock };
        assert_eq!(told(found(shifted, None)), ("error", "its clock is 301 s off".to_owned()));
        let silent = Answer { at: Timestamp::UNIX_EPOCH, result: Err(Unanswered::TooLong(7)) };
        assert_eq!(told(finding(&silent)), ("error", "the answer is longer than 7 bytes".to_owned()));
    }
}
