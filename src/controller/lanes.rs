//! What runs beside the loop: one fetch or push at a time, and each application's writes.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use jiff::Timestamp;

use super::{
    beforehand::Answer,
    publish::{self, Publication},
};
use crate::core::{
    clock::Clock,
    cluster::{Cluster, ClusterError, ObjectKey, Write},
    manifest::Object,
    names::{AppName, Revision},
    repository::{Push, Repository, RepositoryError},
    rollout::action::Action,
    traffic::haproxy::{State, Tell, TellError, Telling},
};

/// What came of the Git lane.
pub(super) enum GitDone {
    /// The remote's tip, and whether the one that was seen last is older or elsewhere.
    Fetched(Result<Revision, RepositoryError>),
    /// A push, of these, made on this commit.
    Pushed { onto: Revision, publications: Vec<(Publication, bool)>, result: Result<Push, RepositoryError> },
}

/// What came of one write.
pub(super) struct WriteDone {
    pub action: Action,
    pub result: Result<Option<Object>, ClusterError>,
    /// The object read past every cache, after a write that was refused or whose answer was lost.
    pub read_back: Option<(ObjectKey, Option<Object>)>,
}

impl WriteDone {
    /// Returns whether a write that nobody answered was carried out, as far as what was read afterwards tells: the object
    /// is not the one any more that it was decided on.
    pub(super) fn is_done_after_all(&self) -> bool {
        let (Err(ClusterError::Unreachable(_)), Some((_, found))) = (&self.result, &self.read_back) else {
            return false;
        };
        let is_another = |version: Option<&str>| {
            found.as_ref().zip(version).is_some_and(|(found, version)| found.resource_version() != version)
        };
        match &self.action.write {
            Write::Create { .. } => found.is_some(),
            Write::Delete { .. } => found.as_ref().is_none_or(Object::is_terminating),
            Write::Apply { object, .. } => is_another(Some(object.resource_version())),
            Write::Patch { resource_version, .. } => is_another(resource_version.as_deref()),
        }
    }
}

/// What came of an application's writes.
pub(super) struct Acted {
    pub app: AppName,
    pub done: Vec<WriteDone>,
    /// What proxies were told, and what came of it.
    pub told: Vec<(Telling, Result<State, TellError>)>,
    /// What the API server said beforehand, where nothing but that was asked.
    pub answer: Option<Answer>,
}

/// The applications' writes that are under way. They go on while the controller reads Git or decides for others; what they
/// answer meanwhile waits until it is asked for, so that nothing changes under whoever reads or decides.
#[derive(Default)]
pub(super) struct Acts {
    under_way: FuturesUnordered<BoxFuture<'static, Acted>>,
    ended: VecDeque<Acted>,
}

impl Acts {
    /// Begins another application's writes.
    pub fn push(&mut self, act: BoxFuture<'static, Acted>) {
        self.under_way.push(act);
    }

    /// Returns how many applications' writes are under way, or have an answer that nobody has taken.
    pub fn len(&self) -> usize {
        self.under_way.len() + self.ended.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns those that end next; `None` where there are none. Nothing is lost where this is not waited for.
    pub async fn next(&mut self) -> Option<Acted> {
        match self.ended.pop_front() {
            Some(acted) => Some(acted),
            None => self.under_way.next().await,
        }
    }

    /// Goes on with them until something else has ended.
    pub async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                Some(acted) = self.under_way.next(), if !self.under_way.is_empty() => self.ended.push_back(acted),
                done = &mut other => return done,
            }
        }
    }

    /// Goes on with those that can, and waits for none.
    pub async fn go_on(&mut self) {
        if !self.under_way.is_empty() {
            // Connections have work of their own, and a task may only use them so often before it rests.
            self.beside(tokio::task::yield_now()).await;
        }
    }
}

pub(super) fn fetch(repository: &Arc<dyn Repository>) -> BoxFuture<'static, GitDone> {
    let repository = repository.clone();
    async move { GitDone::Fetched(repository.fetch().await) }.boxed()
}

pub(super) fn push(
    repository: &Arc<dyn Repository>,
    onto: Revision,
    publications: Vec<(Publication, bool)>,
    now: Timestamp,
) -> BoxFuture<'static, GitDone> {
    let repository = repository.clone();
    async move {
        let all: Vec<&Publication> = publications.iter().map(|(publication, _)| publication).collect();
        let result = repository.push(&onto, &publish::commits(&all, now)).await;
        GitDone::Pushed { onto, publications, result }
    }
    .boxed()
}

/// Carries out an application's writes, a few at a time, each in the name of whom its cluster acts for: the one by
/// which the cluster knows the last record, where there is one, before any other; and beside them what proxies are told.
pub(super) fn act(
    app: AppName,
    first: Option<(Action, Arc<dyn Cluster>)>,
    actions: Vec<(Action, Arc<dyn Cluster>)>,
    tells: Vec<Telling>,
    tell: Arc<dyn Tell>,
    parallel: usize,
) -> BoxFuture<'static, Acted> {
    async move {
        let mut done = Vec::new();
        if let Some((action, cluster)) = first {
            done.push(one(action, cluster).await);
        }
        let writes: Vec<_> = actions.into_iter().map(|(action, cluster)| one(action, cluster)).collect();
        let telling = async {
            let mut told = Vec::with_capacity(tells.len());
            for telling in tells {
                let result = tell.tell(&telling).await;
                told.push((telling, result));
            }
            told
        };
        let writing = stream::iter(writes).buffered(parallel.max(1)).collect::<Vec<_>>();
        let (written, told) = futures::join!(writing, telling);
        done.extend(written);
        Acted { app, done, told, answer: None }
    }
    .boxed()
}

async fn one(action: Action, cluster: Arc<dyn Cluster>) -> WriteDone {
    let result = cluster.write(&action.write).await;
    let doubtful = matches!(
        result,
        Err(ClusterError::Conflict(_)
            | ClusterError::AlreadyExists(_)
            | ClusterError::NotFound(_)
            | ClusterError::Unreachable(_))
    );
    let mut read_back = None;
    if doubtful {
        // Decided on something that has changed, or done with the answer lost: what is there now tells.
        let (kind, key) = action.write.subject();
        if let Ok(object) = cluster.read(&kind, &key.namespace, &key.name).await {
            read_back = Some((key, object));
        }
    }
    WriteDone { action, result, read_back }
}

/// Returns when the repository may have changed. Kept over turns of the loop, so that no hint is lost.
pub(super) fn changed(repository: &Arc<dyn Repository>) -> BoxFuture<'static, ()> {
    let repository = repository.clone();
    async move { repository.changed().await }.boxed()
}

/// Polls the Git lane without taking it.
pub(super) async fn poll(lane: &mut Option<BoxFuture<'static, GitDone>>) -> GitDone {
    match lane {
        Some(lane) => Pin::new(lane).await,
        None => std::future::pending().await,
    }
}

/// Returns when `at` has come; never where there is none.
pub(super) fn until(clock: &Arc<dyn Clock>, at: Option<Timestamp>) -> impl Future<Output = ()> + use<> {
    let clock = clock.clone();
    async move {
        match at {
            Some(at) => clock.until(at).await,
            None => std::future::pending().await,
        }
    }
}
