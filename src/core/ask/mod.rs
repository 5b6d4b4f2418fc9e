//! Questions that only the outside can answer, and the answers.
//!
//! Deciding stays pure: a decision lists what it wants to know and when ([`Asking`]), the controller asks and keeps what
//! it hears, and the next decision is made on it. Nothing here is in a record by itself: whoever uses an answer writes
//! what it stands on into its record. A controller that starts knows no answers, and asks anew.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    analysis::{JsonPath, Range},
    traffic::haproxy,
};

/// The most that is read of a page, in bytes.
pub const MOST_OF_A_PAGE: usize = 64 * 1024;

/// Something that only the outside can tell. Data alone: two that are equal are the same question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// What does a pod, or whatever else serves HTTP, answer?
    Probe(Probe),
    /// What does a provider of metrics measure?
    Metric(Metric),
    /// What servers does a proxy send requests to?
    Proxy(Proxy),
}

impl Question {
    /// Returns how long an answer is waited for.
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Probe(probe) => probe.timeout,
            Self::Metric(metric) => metric.timeout,
            Self::Proxy(proxy) => proxy.timeout,
        }
    }
}

/// A GET without credentials. A redirect is an answer, not followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Of what it is asked: a pod's UID. Another pod at the same address is another question.
    pub of: String,
    /// `http://10.0.3.7:8080/health`.
    pub url: String,
    /// How long the whole answer may take.
    pub timeout: Duration,
}

/// A measurement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// What is asked, and of whom.
    pub query: Query,
    /// How long the whole answer may take.
    pub timeout: Duration,
}

/// The state of a backend's servers, from HAProxy's own memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// Which HAProxy, and which backend of it.
    pub asked: haproxy::Asked,
    /// How long the whole answer may take.
    pub timeout: Duration,
}

/// What is asked for a measurement: about the new version and, where it is compared, about the stable one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// PromQL.
    Prometheus {
        /// `http://prometheus.monitoring:9090`.
        address: String,
        /// About the new version.
        query: String,
        /// About the stable one.
        baseline: Option<String>,
        /// Points of a time until now, instead of one value.
        range: Option<Range>,
    },
    /// JSON of an endpoint.
    Web {
        /// About the new version.
        url: String,
        /// About the stable one.
        baseline: Option<String>,
        /// Where in the answer the measurement is.
        path: JsonPath,
    },
}

/// What somebody answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// To a probe: the HTTP status, and the body.
    Page {
        /// `200`.
        status: u16,
        /// At most [`MOST_OF_A_PAGE`] bytes; what is no UTF-8 is replaced.
        body: String,
    },
    /// To a metric.
    Reading(Reading),
    /// To a proxy.
    Servers(haproxy::State),
}

/// A measurement, as the provider gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Of the new version.
    pub result: Found,
    /// Of the stable one, where it was asked for.
    pub baseline: Option<Found>,
}

/// What a provider found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Numbers.
    Series {
        /// Each series' points, the oldest first.
        series: Vec<Vec<f64>>,
        /// What the server warns of.
        warnings: Vec<String>,
        /// What time it is there; `None` where nothing tells.
        clock: Option<Timestamp>,
    },
    /// Whatever is at the path; `null` where nothing is.
    Json(Value),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Not within the time that the question allows.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The answer is longer than may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection failed, or broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The answer is a refusal, or a server's error.
    #[error("it answers {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// What is to be shown cannot be used as it is: nobody was asked.
    #[error("the credentials of metrics cannot be used: {0}")]
    Credentials(String),
    /// The answer is not what is asked for.
    #[error("the answer makes no sense: {0}")]
    Garbage(String),
}

/// An answer, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When it was asked: what is said is true at some moment after it.
    pub at: Timestamp,
    /// What was said.
    pub result: Result<Said, Unanswered>,
}

/// The answers to an application's questions: to each the latest ones, in the order in which they were asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers(BTreeMap<Question, Vec<Answer>>);

impl Answers {
    /// Returns what is known of a question, the oldest first.
    pub fn of(&self, question: &Question) -> &[Answer] {
        self.0.get(question).map_or(&[], Vec::as_slice)
    }

    /// Returns the latest answer.
    pub fn latest(&self, question: &Question) -> Option<&Answer> {
        self.of(question).last()
    }

    /// Adds an answer, where the question is among `asked`, and forgets the oldest beyond what it keeps.
    pub fn add(&mut self, question: Question, answer: Answer, asked: &[Asking]) {
        let Some(asking) = asked.iter().find(|asking| asking.question == question) else { return };
        let answers = self.0.entry(question).or_default();
        answers.push(answer);
        answers.drain(..answers.len().saturating_sub(asking.keep.max(1)));
    }

    /// Takes what was heard without being asked for, in place of all answers to such questions.
    pub fn hear(&mut self, heard: &Answer, which: impl Fn(&Question) -> bool) {
        for (_, answers) in self.0.iter_mut().filter(|(question, _)| which(question)) {
            *answers = vec![heard.clone()];
        }
    }

    /// Forgets the answers to questions that nobody asks any more.
    pub fn keep_only(&mut self, asked: &[Asking]) {
        self.0.retain(|question, _| asked.iter().any(|asking| asking.question == *question));
    }
}

/// A question, as a decision lists it. What no decision lists any more is forgotten with its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// What is asked.
    pub question: Question,
    /// When to ask, unless there is an answer of then or later; `None` keeps the answers and asks nothing.
    pub due: Option<Timestamp>,
    /// How many answers are kept, the latest; at least one.
    pub keep: usize,
}

impl Asking {
    /// Returns when to ask, given the answers so far; `None` where nothing is to be asked.
    pub fn open_since(&self, answers: &Answers) -> Option<Timestamp> {
        let answered = answers.latest(&self.question).map(|answer| answer.at);
        self.due.filter(|due| answered.is_none_or(|at| at < *due))
    }
}

/// Whoever carries questions outside.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Asks, once. Ends within the question's timeout, and reads no more than may be read. Cancel safe.
    async fn ask(&self, question: &Question) -> Result<Said, Unanswered>;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn probe(url: &str) -> Question {
        Question::Probe(Probe { of: String::new(), url: url.to_owned(), timeout: Duration::from_secs(1) })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answer(second: i64) -> Answer {
        Answer { at: at(second), result: Err(Unanswered::TooLong(1)) }
    }

    #[test]
    fn a_question_is_open_until_it_was_asked_when_it_was_due() {
        let asking = |due| Asking { question: probe("a"), due, keep: 1 };
        let mut answers = Answers::default();
        assert_eq!(asking(Some(at(5))).open_since(&answers), Some(at(5)));
        answers.add(probe("a"), answer(4), &[asking(None)]);
        assert_eq!(asking(Some(at(5))).open_since(&answers), Some(at(5)));
        answers.add(probe("a"), answer(5), &[asking(None)]);
        assert_eq!(asking(Some(at(5))).open_since(&answers), None);
        assert_eq!(asking(None).open_since(&answers), None);
    }

    #[test]
    fn what_nobody_asks_is_forgotten_and_what_is_asked_is_bounded() {
        let asked = [Asking { question: probe("a"), due: None, keep: 2 }];
        let mut answers = Answers::default();
        answers.add(probe("b"), answer(1), &asked);
        assert_eq!(answers, Answers::default());
        for second in 1..=3 {
            answers.add(probe("a"), answer(second), &asked);
        }
        assert_eq!(answers.of(&probe("a")), [answer(2), answer(3)]);
        answers.keep_only(&[]);
        assert_eq!(answers, Answers::default());
    }
}
