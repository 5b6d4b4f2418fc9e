//! The fence: what lets a leader's writes and pushes through, and nobody else's.
//!
//! Every write of the controller goes through the two adapters that [`fenced`] wraps, and each asks the fence right
//! before it is polled: before it is sent, that is, also when it waited for its turn, for a connection or for the whole
//! process to be woken. A fence that was closed once stays closed: whoever takes the lease again gets another.
//!
//! # What is covered
//!
//! - A process that was stopped (SIGSTOP, a frozen container, a debugger) and a machine that slept: the time is
//!   [`Clock::uptime`], which counts both.
//! - What was handed to the connection before the process was stopped can still arrive later, as with a slow network. It
//!   carries the resource version that it was decided on, a push the commit: either nothing has changed since then,
//!   and it is right, or it is refused.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::Ports;
use crate::core::{
    ask::Unanswered,
    clock::Clock,
    cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, Kind, Scope, Write},
    manifest::Object,
    names::{BlobId, Revision},
    repository::{Change, CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
    traffic::haproxy::{State, Tell, TellError, Telling},
};

/// Says whether this process may act. Cheap to clone: all clones are the same fence.
#[derive(Clone)]
pub struct Fence {
    clock: Arc<dyn Clock>,
    /// Until which [`Clock::uptime`] it is open; `None` once it has been closed.
    open_until: Arc<Mutex<Option<Duration>>>,
}

impl Fence {
    /// Builds a fence that is open until the clock's uptime is `until`.
    pub fn open(clock: Arc<dyn Clock>, until: Duration) -> Self {
        Self { clock, open_until: Arc::new(Mutex::new(Some(until))) }
    }

    /// Returns whether this process may act now. Once it may not, it never may again.
    pub fn holds(&self) -> bool {
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        if open_until.is_some_and(|until| self.clock.uptime() >= until) {
            *open_until = None;
        }
        open_until.is_some()
    }

    /// Keeps it open for longer, unless it has been closed.
    pub fn extend(&self, until: Duration) {
        if self.holds() {
            let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
            *open_until = open_until.map(|before| before.max(until));
        }
    }

    /// Closes it for good.
    pub fn close(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns for how long it is still open.
    pub fn left(&self) -> Duration {
        let open_until = *self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        open_until.unwrap_or_default().saturating_sub(self.clock.uptime())
    }

    /// Lets `act` go on as long as the fence holds; `None` when it does not.
    async fn guard<T>(&self, act: impl Future<Output = T>) -> Option<T> {
        let mut act = pin!(act);
        poll_fn(|context| if self.holds() { act.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }).await
    }
}

/// What a write of somebody who lost the lease is answered with. It may have been sent before.
const LOST: &str = "the leader lease is lost";

/// Puts the fence around everything that writes.
pub fn fenced(ports: Ports, fence: &Fence) -> Ports {
    Ports {
        repository: Arc::new(Fenced { inner: ports.repository, fence: fence.clone() }),
        cluster: Arc::new(Fenced { inner: ports.cluster, fence: fence.clone() }),
        tell: Arc::new(Fenced { inner: ports.tell, fence: fence.clone() }),
        ..ports
    }
}

struct Fenced<T: ?Sized> {
    inner: Arc<T>,
    fence: Fence,
}

#[async_trait]
impl Cluster for Fenced<dyn Cluster> {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let written = self.fence.guard(self.inner.write(write)).await;
        written.unwrap_or_else(|| Err(ClusterError::Unreachable(LOST.to_owned())))
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.inner.dry_run(write).await
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        self.inner.read(kind, namespace, name).await
    }

    fn acting_as(&self, account: &Account) -> Arc<dyn Cluster> {
        Arc::new(Fenced { inner: self.inner.acting_as(account), fence: self.fence.clone() })
    }

    async fn may(&self, access: &Access) -> Result<bool, ClusterError> {
        self.inner.may(access).await
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        self.inner.scope(kind).await
    }

    async fn watch(&self, kind: &Kind) {
        self.inner.watch(kind).await;
    }

    async fn next_event(&self) -> ClusterEvent {
        self.inner.next_event().await
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        self.inner.try_event()
    }
}

#[async_trait]
impl Tell for Fenced<dyn Tell> {
    async fn tell(&self, telling: &Telling) -> Result<State, TellError> {
        let told = self.fence.guard(self.inner.tell(telling)).await;
        told.unwrap_or_else(|| Err(Unanswered::Unreachable(LOST.to_owned()).into()))
    }
}

#[async_trait]
impl Repository for Fenced<dyn Repository> {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.inner.fetch().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.inner.tip().await
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.inner.directory(at, path).await
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.inner.files(at, path).await
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.inner.read(blob, limit).await
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.inner.is_ancestor(ancestor, descendant).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.inner.versions(head, since, below, names).await
    }

    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        self.inner.changes(from, to).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.inner.log(head, path, limit).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.inner.merge(path, base, ours, theirs).await
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        let pushed = self.fence.guard(self.inner.push(onto, drafts)).await;
        pushed.unwrap_or_else(|| Err(RepositoryError::Unreachable(LOST.to_owned())))
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use jiff::Timestamp;
    use tokio::sync::Notify;

    use super::*;

    /// A clock that shows what it is told.
    #[derive(Default)]
    struct Told(AtomicU64);

    #[async_trait]
    impl Clock for Told {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn uptime(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        async fn until(&self, _: Timestamp) {}
    }

    fn fence() -> (Arc<Told>, Fence) {
        let clock = Arc::new(Told::default());
        (clock.clone(), Fence::open(clock, Duration::from_secs(10)))
    }

    #[test]
    fn a_fence_that_was_closed_once_stays_closed() {
        let (clock, fence) = fence();
        fence.extend(Duration::from_secs(20));
        clock.0.store(19, Ordering::Relaxed);
        assert!(fence.holds());
        clock.0.store(20, Ordering::Relaxed);
        assert!(!fence.holds() && fence.left().is_zero());
        fence.extend(Duration::from_secs(100));
        assert!(!fence.holds());
    }

    #[test]
    fn a_renewal_that_was_asked_for_earlier_shortens_nothing() {
        let (_, fence) = fence();
        fence.extend(Duration::from_secs(5));
        assert_eq!(fence.left(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn what_waits_for_its_turn_is_not_sent_once_the_lease_has_run_out() {
        let (clock, fence) = fence();
        let (turn, sent) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let write = {
            let (turn, sent) = (turn.clone(), sent.clone());
            async move {
                turn.notified().await;
                sent.store(true, Ordering::Relaxed);
            }
        };
        let guarded = tokio::spawn(async move { fence.guard(write).await });
        tokio::task::yield_now().await;
        clock.0.store(10, Ordering::Relaxed);
        turn.notify_one();
        assert!(matches!(guarded.await, Ok(None)));
        assert!(!sent.load(Ordering::Relaxed));
    }
}
