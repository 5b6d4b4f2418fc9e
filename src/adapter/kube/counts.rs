//! How many requests were sent, by verb and resource: what benchmarks and golden transcripts compare.

use std::{collections::BTreeMap, fmt, sync::Mutex};

/// What a request asks for, in the words of Kubernetes' audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Which kinds a group and version serve.
    Discover,
    /// One object.
    Get,
    /// A page of a list.
    List,
    /// A watch, however long it lasts.
    Watch,
    /// A creation.
    Create,
    /// A server-side apply.
    Apply,
    /// Another patch.
    Patch,
    /// A deletion.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Discover => "discover",
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Patch => "patch",
            Self::Delete => "delete",
        })
    }
}

/// Answers by verb, resource and HTTP status; `None` counts requests without an answer.
pub type Answers = BTreeMap<(Verb, String, Option<u16>), u64>;

/// Counts requests. Retries and pages count each; dry runs count as what they try.
#[derive(Debug, Default)]
pub struct RequestCounts {
    counts: Mutex<BTreeMap<(Verb, String), u64>>,
    /// By HTTP status; `None` where there was no answer.
    answers: Mutex<Answers>,
}

impl RequestCounts {
    /// Counts one request on a resource, `deployments.apps` or `pods`.
    pub(super) fn add(&self, verb: Verb, resource: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match counts.get_mut(&(verb, resource.to_owned())) {
            Some(count) => *count += 1,
            None => drop(counts.insert((verb, resource.to_owned()), 1)),
        }
    }

    /// Counts an answer, or that there was none.
    pub(super) fn answered(&self, verb: Verb, resource: &str, status: Option<u16>) {
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *answers.entry((verb, resource.to_owned(), status)).or_default() += 1;
    }

    /// Returns how many answers there were.
    pub fn answers(&self) -> Answers {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Returns every count that is not 0, by verb and resource.
    pub fn snapshot(&self) -> BTreeMap<(Verb, String), u64> {
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Returns how many requests there were in all.
    pub fn total(&self) -> u64 {
        self.snapshot().values().sum()
    }
}
