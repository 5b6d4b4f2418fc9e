//! How often the remote was asked, what came of it, and when it answered last.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::core::repository::RepositoryError;

/// What the remote is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteOperation {
    /// Where the branch is.
    Ask,
    /// The branch's objects.
    Fetch,
    /// To take commits.
    Push,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteResult {
    /// It was done.
    Done,
    /// The remote did not take a push: somebody was first, or a hook says no.
    Rejected,
    /// The remote refuses access.
    Denied,
    /// Everything else.
    Failed,
}

impl RemoteResult {
    fn of<T>(result: &Result<T, RepositoryError>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(RepositoryError::Denied(_)) => Self::Denied,
            Err(_) => Self::Failed,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<(RemoteOperation, RemoteResult), u64>,
    answered: Option<Instant>,
}

/// Counts what the remote was asked.
#[derive(Debug, Default)]
pub struct RemoteCounts {
    state: Mutex<State>,
}

impl RemoteCounts {
    /// Counts an operation by its result, and hands that on.
    pub(super) fn count<T>(
        &self,
        operation: RemoteOperation,
        result: Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        self.add(operation, RemoteResult::of(&result));
        result
    }

    /// Counts an operation.
    pub(super) fn add(&self, operation: RemoteOperation, result: RemoteResult) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.counts.entry((operation, result)).or_default() += 1;
        if matches!(result, RemoteResult::Done | RemoteResult::Rejected) {
            state.answered = Some(Instant::now());
        }
    }

    /// Returns every count that is not 0.
    pub fn snapshot(&self) -> BTreeMap<(RemoteOperation, RemoteResult), u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }

    /// Returns how long ago the remote last did what it was asked for; `None` before the first time.
    pub fn answered_ago(&self) -> Option<Duration> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answered.map(|at| at.elapsed())
    }
}
