//! The release repository behind its trait: real Git objects in memory, and a branch in a map.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use locktender::{
    adapter::git::{memory::MemoryRepository, objects::Who},
    core::{
        names::{BlobId, Revision},
        repository::{CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
    },
};
use tokio::sync::Notify;

use super::time::VirtualClock;

pub const BRANCH: &str = "main";

/// What goes wrong with the remote.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// It does not answer.
    pub away: bool,
    /// It serves this commit instead of the branch's tip.
    pub stale: Option<Revision>,
    /// So many pushes are rejected because somebody else was first.
    pub reject: u32,
    /// So many pushes go through with the answer lost.
    pub lose_answer: u32,
    /// Pushes are refused by a hook.
    pub refuse: Option<String>,
}

pub struct State {
    pub repository: MemoryRepository,
    pub trouble: Trouble,
    /// What the controller's mirror has.
    mirror: Option<Revision>,
    pub pushes: u32,
}

/// The repository. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct SimGit {
    pub state: Arc<Mutex<State>>,
    clock: VirtualClock,
    news: Arc<Notify>,
}

pub fn person(name: &str) -> Who {
    Who { name: name.to_owned(), email: format!("{}@example.com", name.to_lowercase()) }
}

impl SimGit {
    pub fn new(clock: VirtualClock, files: &[(&str, &str)]) -> Self {
        let repository = MemoryRepository::new().unwrap();
        let state = State { repository, trouble: Trouble::default(), mirror: None, pushes: 0 };
        let git = Self { state: Arc::new(Mutex::new(state)), clock, news: Arc::default() };
        let edits = files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec()))).collect();
        git.commit_on(&[], edits, "Ada", "the beginning");
        git
    }

    pub fn tip_now(&self) -> Option<Revision> {
        self.state.lock().unwrap().repository.tip(BRANCH).cloned()
    }

    fn commit_on(
        &self,
        parents: &[Revision],
        edits: BTreeMap<String, Option<Vec<u8>>>,
        author: &str,
        message: &str,
    ) -> Revision {
        let mut state = self.state.lock().unwrap();
        let made = state.repository.commit(&edits, parents, &person(author), message, self.clock.time()).unwrap();
        state.repository.set_tip(BRANCH, Some(made.clone()));
        drop(state);
        self.news.notify_waiters();
        made
    }

    /// A person commits on the tip and pushes.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> Revision {
        let edits =
            files.iter().map(|(path, text)| ((*path).to_owned(), text.map(|text| text.as_bytes().to_vec()))).collect();
        let parents: Vec<Revision> = self.tip_now().into_iter().collect();
        self.commit_on(&parents, edits, "Ada", message)
    }

    /// Reads a file at the tip.
    pub fn file(&self, path: &str) -> Option<String> {
        let tip = self.tip_now()?;
        let state = self.state.lock().unwrap();
        let objects = state.repository.objects();
        let entry = objects.files(&tip, path.rsplit_once('/').map_or("", |(dir, _)| dir)).unwrap();
        let entry = entry.into_iter().find(|entry| entry.path == path)?;
        Some(String::from_utf8(objects.read(&entry.id, 1 << 30).unwrap().to_vec()).unwrap())
    }

    /// Puts the branch anywhere, as a forced push does.
    pub fn force(&self, to: Revision) {
        self.state.lock().unwrap().repository.set_tip(BRANCH, Some(to));
        self.news.notify_waiters();
    }

    pub fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.state.lock().unwrap().trouble);
        self.news.notify_waiters();
    }

    /// The controller's disk is lost.
    pub fn lose_mirror(&self) {
        self.state.lock().unwrap().mirror = None;
    }

    /// Subjects of the commits, newest first.
    pub fn subjects(&self) -> Vec<String> {
        let tip = self.tip_now().unwrap();
        let state = self.state.lock().unwrap();
        let log = state.repository.objects().log(&tip, "", 10_000).unwrap();
        log.into_iter().map(|commit| commit.message.lines().next().unwrap_or_default().to_owned()).collect()
    }

    fn reach(&self) -> Result<(), RepositoryError> {
        if self.state.lock().unwrap().trouble.away {
            return Err(RepositoryError::Unreachable("no route to host".to_owned()));
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&MemoryRepository) -> Result<T, locktender::adapter::git::objects::ObjectError>,
    ) -> Result<T, RepositoryError> {
        question(&self.state.lock().unwrap().repository).map_err(RepositoryError::from)
    }
}

#[async_trait]
impl Repository for SimGit {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        tokio::task::yield_now().await;
        self.reach()?;
        let mut state = self.state.lock().unwrap();
        let tip = state.trouble.stale.clone().or_else(|| state.repository.tip(BRANCH).cloned());
        let tip = tip.ok_or_else(|| RepositoryError::NoBranch(BRANCH.to_owned()))?;
        state.mirror = Some(tip.clone());
        Ok(tip)
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(self.state.lock().unwrap().mirror.clone())
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.ask(|repository| repository.objects().directory(at, path))
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.ask(|repository| repository.objects().files(at, path))
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.ask(|repository| repository.objects().read(blob, limit))
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.ask(|repository| repository.objects().is_ancestor(ancestor, descendant))
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        name: &str,
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.ask(|repository| repository.objects().versions(head, since, below, name))
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.ask(|repository| repository.objects().log(head, path, limit))
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.ask(|repository| repository.objects().merge(path, base, ours, theirs))
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        tokio::task::yield_now().await;
        self.reach()?;
        let mut state = self.state.lock().unwrap();
        state.pushes += 1;
        if let Some(reason) = state.trouble.refuse.clone() {
            return Ok(Push::Rejected { reason, moved: false });
        }
        if state.trouble.reject > 0 || state.repository.tip(BRANCH) != Some(onto) {
            state.trouble.reject = state.trouble.reject.saturating_sub(1);
            return Ok(Push::Rejected { reason: "fetch first".to_owned(), moved: true });
        }
        let own = Who { name: "Locktender".to_owned(), email: "locktender@localhost".to_owned() };
        let commits = state.repository.objects().make_chain(onto, drafts, &own).map_err(RepositoryError::from)?;
        state.repository.set_tip(BRANCH, commits.last().cloned());
        if state.trouble.lose_answer > 0 {
            state.trouble.lose_answer -= 1;
            return Err(RepositoryError::Unreachable("the connection was closed".to_owned()));
        }
        state.mirror = commits.last().cloned();
        Ok(Push::Accepted(commits))
    }

    async fn changed(&self) {
        self.news.notified().await;
    }
}
