//! The release repository behind its trait: real Git objects in memory, and a branch in a map.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use locktender::{
    adapter::git::{
        memory::MemoryRepository,
        objects::{ObjectError, Objects, Who},
        over::OverObjects,
    },
    core::{
        names::Revision,
        repository::{CommitDraft, Push, RepositoryError},
    },
};
use tokio::sync::Notify;

use super::{
    checker::{Pushed, Told},
    cluster::SimCluster,
    faults::{Earlier, Faults, WriteFault},
    time::VirtualClock,
};

pub const BRANCH: &str = "main";

/// The remote is asked this often in any case, and its tip compared with the mirror's.
const POLL: std::time::Duration = std::time::Duration::from_secs(30);

/// What goes wrong with the remote.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// It does not answer.
    pub away: bool,
    /// It takes so long over a fetch.
    pub slow: std::time::Duration,
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
    /// Every tip that there was, and how many there were when faults were armed.
    tips: Vec<Revision>,
    armed_at: usize,
}

/// The repository. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct SimGit {
    pub state: Arc<Mutex<State>>,
    clock: VirtualClock,
    news: Arc<Notify>,
    faults: Faults,
    /// The cluster, whose checker judges pushes too.
    cluster: Option<SimCluster>,
    /// Whose hands it is in: a dead controller's calls never return.
    life: u64,
}

pub fn person(name: &str) -> Who {
    Who { name: name.to_owned(), email: format!("{}@example.com", name.to_lowercase()) }
}

impl SimGit {
    pub fn new(clock: VirtualClock, faults: Faults, files: &[(&str, &str)]) -> Self {
        let repository = MemoryRepository::new().unwrap();
        let trouble = Trouble::default();
        let state = State { repository, trouble, mirror: None, pushes: 0, tips: Vec::new(), armed_at: 0 };
        let state = Arc::new(Mutex::new(state));
        let git = Self { state, clock, news: Arc::default(), faults, cluster: None, life: 0 };
        let edits = files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec()))).collect();
        git.commit_on(&[], edits, "Ada", "the beginning");
        git
    }

    /// Returns the repository as one life of the controller sees it.
    pub fn for_life(&self, life: u64, cluster: &SimCluster) -> Self {
        Self { life, cluster: Some(cluster.clone()), ..self.clone() }
    }

    /// Notes that from here on earlier states may be served.
    pub fn armed(&self) {
        let mut state = self.state.lock().unwrap();
        state.armed_at = state.tips.len().saturating_sub(1);
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
        state.move_to(made.clone());
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
        self.state.lock().unwrap().move_to(to);
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

    fn take_push(&self, onto: &Revision, drafts: &[CommitDraft], told: Told) -> Result<Push, RepositoryError> {
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
        if let Some(cluster) = &self.cluster {
            let entries = state.repository.objects().files(onto, "rollouts").map_err(RepositoryError::from)?;
            let decisions = entries.into_iter().map(|entry| (entry.path, entry.id)).collect();
            let edits = drafts.iter().flat_map(|draft| &draft.edits);
            let files = edits.map(|(path, text)| (path.as_str(), text.as_ref().map(|it| str::from_utf8(it).unwrap())));
            cluster.judge_push(&Pushed { files: files.collect(), decisions, told });
        }
        if let Some(last) = commits.last().cloned() {
            state.move_to(last);
        }
        if state.trouble.lose_answer > 0 {
            state.trouble.lose_answer -= 1;
            return Err(RepositoryError::Unreachable("the connection was closed".to_owned()));
        }
        state.mirror = commits.last().cloned();
        Ok(Push::Accepted(commits))
    }

    fn reach(&self) -> Result<(), RepositoryError> {
        if self.state.lock().unwrap().trouble.away {
            return Err(RepositoryError::Unreachable("no route to host".to_owned()));
        }
        Ok(())
    }
}

impl State {
    fn move_to(&mut self, tip: Revision) {
        self.tips.push(tip.clone());
        self.repository.set_tip(BRANCH, Some(tip));
    }

    /// Returns a tip that there was before.
    fn earlier(&self, earlier: Earlier) -> Option<Revision> {
        let last = self.tips.len().checked_sub(1)?;
        let at = match earlier {
            Earlier::Last => last.saturating_sub(1).max(self.armed_at),
            Earlier::Half => usize::midpoint(self.armed_at, last),
            Earlier::First => self.armed_at,
        };
        self.tips.get(at).cloned()
    }
}

#[async_trait]
impl OverObjects for SimGit {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError> {
        question(self.state.lock().unwrap().repository.objects()).map_err(RepositoryError::from)
    }

    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.faults.alive(self.life).await;
        tokio::task::yield_now().await;
        let slow = self.state.lock().unwrap().trouble.slow;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.reach()?;
        let earlier = self.faults.on_read();
        let mut state = self.state.lock().unwrap();
        let earlier = earlier.and_then(|earlier| state.earlier(earlier));
        let tip = earlier.or(state.trouble.stale.clone()).or_else(|| state.repository.tip(BRANCH).cloned());
        let tip = tip.ok_or_else(|| RepositoryError::NoBranch(BRANCH.to_owned()))?;
        state.mirror = Some(tip.clone());
        Ok(tip)
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(self.state.lock().unwrap().mirror.clone())
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        self.faults.alive(self.life).await;
        let told = self.cluster.as_ref().map(SimCluster::told).unwrap_or_default();
        tokio::task::yield_now().await;
        self.reach()?;
        let subject = |draft: &CommitDraft| draft.message.lines().next().unwrap_or_default().to_owned();
        let fault = self.faults.on_write(|| drafts.iter().map(subject).collect::<Vec<_>>().join("; "));
        match fault {
            Some(WriteFault::CrashBefore) => {
                self.faults.crash();
                self.faults.alive(self.life).await;
            }
            Some(WriteFault::NotSent) => return Err(RepositoryError::Unreachable("no route to host".to_owned())),
            Some(WriteFault::Conflict | WriteFault::Busy) => {
                return Ok(Push::Rejected { reason: "fetch first".to_owned(), moved: true });
            }
            Some(WriteFault::CrashAfter | WriteFault::AnswerLost) | None => {}
        }
        let result = self.take_push(onto, drafts, told);
        match fault {
            Some(WriteFault::CrashAfter) => {
                self.faults.crash();
                self.faults.alive(self.life).await;
                result
            }
            Some(WriteFault::AnswerLost) => Err(RepositoryError::Unreachable("the connection was closed".to_owned())),
            _ => result,
        }
    }

    async fn changed(&self) {
        loop {
            tokio::select! {
                () = self.news.notified() => return,
                () = tokio::time::sleep(POLL) => {
                    let state = self.state.lock().unwrap();
                    if state.mirror.as_ref() != state.repository.tip(BRANCH) {
                        return;
                    }
                }
            }
        }
    }
}
