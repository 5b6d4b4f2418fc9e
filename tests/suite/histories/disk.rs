//! A bare repository on disk behind the controller's trait, read and pushed to in process: people use the real `git`
//! program on it, and virtual time stands still meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use locktender::{
    adapter::git::objects::{ObjectError, Objects, Who},
    core::{
        names::{BlobId, Revision},
        repository::{CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
    },
};

const BRANCH: &str = "refs/heads/main";

/// How often the branch is looked at.
const POLL: Duration = Duration::from_secs(1);

/// What goes wrong with the remote.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// It does not answer.
    pub away: bool,
    /// So many pushes are rejected because somebody else was first.
    pub reject: u32,
}

struct State {
    repository: git2::Repository,
    mirror: Option<Revision>,
    trouble: Trouble,
}

/// The repository as the controller sees it. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct DiskGit {
    state: Arc<Mutex<State>>,
}

impl DiskGit {
    pub fn open(path: PathBuf) -> Self {
        let repository = git2::Repository::open_bare(path).unwrap();
        Self { state: Arc::new(Mutex::new(State { repository, mirror: None, trouble: Trouble::default() })) }
    }

    pub fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.state.lock().unwrap().trouble);
    }

    /// The controller's disk is lost.
    pub fn lose_mirror(&self) {
        self.state.lock().unwrap().mirror = None;
    }

    fn remote(state: &State) -> Result<Revision, RepositoryError> {
        if state.trouble.away {
            return Err(RepositoryError::Unreachable("no route to host".to_owned()));
        }
        let tip = state.repository.refname_to_id(BRANCH).map_err(|_| RepositoryError::NoBranch("main".to_owned()))?;
        Ok(Revision::new(tip.to_string()))
    }

    fn ask<T>(&self, question: impl FnOnce(Objects<'_>) -> Result<T, ObjectError>) -> Result<T, RepositoryError> {
        question(Objects::of(&self.state.lock().unwrap().repository)).map_err(RepositoryError::from)
    }
}

#[async_trait]
impl Repository for DiskGit {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        let tip = Self::remote(&state)?;
        state.mirror = Some(tip.clone());
        Ok(tip)
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(self.state.lock().unwrap().mirror.clone())
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.ask(|objects| objects.directory(at, path))
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.ask(|objects| objects.files(at, path))
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.ask(|objects| objects.read(blob, limit))
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.ask(|objects| objects.is_ancestor(ancestor, descendant))
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        name: &str,
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.ask(|objects| objects.versions(head, since, below, name))
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.ask(|objects| objects.log(head, path, limit))
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.ask(|objects| objects.merge(path, base, ours, theirs))
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        let there = Self::remote(&state)?;
        if state.trouble.reject > 0 || there != *onto {
            state.trouble.reject = state.trouble.reject.saturating_sub(1);
            return Ok(Push::Rejected { reason: "fetch first".to_owned(), moved: true });
        }
        let own = Who { name: "Locktender".to_owned(), email: "locktender@localhost".to_owned() };
        let commits = Objects::of(&state.repository).make_chain(onto, drafts, &own).map_err(RepositoryError::from)?;
        let Some(last) = commits.last().cloned() else { return Ok(Push::Accepted(commits)) };
        let (to, from) = (git2::Oid::from_str(last.as_str()).unwrap(), git2::Oid::from_str(onto.as_str()).unwrap());
        if state.repository.reference_matching(BRANCH, to, true, from, "push").is_err() {
            return Ok(Push::Rejected { reason: "fetch first".to_owned(), moved: true });
        }
        state.mirror = Some(last);
        Ok(Push::Accepted(commits))
    }

    async fn changed(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let state = self.state.lock().unwrap();
            if Self::remote(&state).ok() != state.mirror {
                return;
            }
        }
    }
}
