//! A bare repository on disk behind the controller's trait, read and pushed to in process: people use the real `git`
//! program on it, and virtual time stands still meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use locktender::{
    adapter::git::{
        objects::{ObjectError, Objects, Who},
        over::OverObjects,
    },
    core::{
        names::Revision,
        repository::{CommitDraft, Push, RepositoryError},
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
}

#[async_trait]
impl OverObjects for DiskGit {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError> {
        question(Objects::of(&self.state.lock().unwrap().repository)).map_err(RepositoryError::from)
    }

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
