//! The release repository over Git: a private bare mirror, read by object id, never a checkout.
//!
//! ```text
//!   remote ──fetch──▶ mirror (disk) ──▶ thread ──▶ objects ──▶ answers
//!      ▲                  │
//!      └──────push────────┘   compare-and-swap: the old tip travels with the push
//! ```
//!
//! Objects are read and made by libgit2 ([`objects`]); the transport is the `git` program (`program` says why).

mod counts;
mod mirror;
mod notice;
mod patience;
mod program;
mod remote;
mod thread;

pub mod access;
pub mod here;
pub mod local;
pub mod memory;
pub mod objects;
pub mod over;
pub mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;

use self::access::{Access, Grant};
pub use self::counts::{RemoteCounts, RemoteOperation, RemoteResult};
use self::mirror::Mirror;
use self::notice::Notice;
use self::objects::{ObjectError, Objects, Who};
use self::over::OverObjects;
use self::patience::Patience;
use self::program::Program;
use self::remote::{Failure, Pushed, Remote};
use self::thread::MirrorThread;
use self::url::{Branch, RemoteUrl, Transport};
use crate::core::names::Revision;
use crate::core::repository::{CommitDraft, Push, RepositoryError};

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// The remote.
    pub url: RemoteUrl,
    /// The watched branch.
    pub branch: Branch,
    /// By whose means the remote is reached.
    pub access: Access,
    /// Who commits where a draft names nobody.
    pub identity: Who,
    /// How often the remote is asked where no event tells.
    pub poll: Duration,
    /// How long a remote that refused the credentials is left alone at first. Doubles, up to ten times this; other
    /// credentials are tried at once.
    pub refused: Duration,
    /// How long a fetch or a push may take.
    pub time_limit: Duration,
    /// How many bytes any file that a fetch writes, and so a pack, may have.
    pub size_limit: u64,
    /// A directory for the mirror alone: made where it is missing, readable by its owner only, one process at a time.
    pub mirror_dir: PathBuf,
}

impl GitOptions {
    /// Watches `branch` of `url` through a mirror in `mirror_dir`, with the defaults for everything else: without
    /// credentials, asks every 30 s, a fetch or push takes at most 60 s, and no pack may have more than 4 GiB.
    pub fn new(url: RemoteUrl, branch: Branch, mirror_dir: PathBuf) -> Self {
        Self {
            url,
            branch,
            access: Access::default(),
            identity: Who::default(),
            poll: Duration::from_secs(30),
            refused: Duration::from_secs(60),
            time_limit: Duration::from_secs(60),
            size_limit: 4 << 30,
            mirror_dir,
        }
    }
}

/// The watched branch of a remote, through its mirror.
pub struct GitRepository {
    remote: Remote,
    identity: Who,
    /// The mirror's bare repository.
    mirror: PathBuf,
    thread: MirrorThread,
    notice: Notice,
    counts: Arc<RemoteCounts>,
    /// One transfer at a time: fetch, push and fetching anew all write the mirror.
    transfer: tokio::sync::Mutex<()>,
    /// The tip at which the mirror was last thrown away: the same damage is not cured twice.
    cured_at: Mutex<Option<Revision>>,
}

impl GitRepository {
    /// Opens or makes the mirror. Does not speak to the remote.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::Mirror`]: the directory cannot be made, or another process uses it.
    pub async fn open(options: GitOptions) -> Result<Self, RepositoryError> {
        let GitOptions { url, branch, access, identity, poll, refused, time_limit, size_limit, mirror_dir } = options;
        let label = format!("{url}\n{}\n", branch.as_str());
        // Git runs inside it.
        let mirror_dir = std::path::absolute(&mirror_dir).unwrap_or(mirror_dir);
        let (mirror, private) = (mirror::directory(&mirror_dir), mirror_dir.clone());
        let thread = MirrorThread::start(move || Mirror::open(&mirror_dir, &label)).await?;
        let credentials = access.directory().map(PathBuf::from);
        if *url.transport() == Transport::Http && (credentials.is_some() || url.login().is_some()) {
            tracing::warn!(%url, "credentials are sent unencrypted: anybody on the way can read them");
        }
        let program = Program { url, access, private, time_limit, size_limit };
        let (reading, pushing) = (Patience::new(refused), Patience::new(refused));
        let remote = Remote { program, branch, reading, pushing };
        // Many small fetches leave many small files. Only ever at a start: nobody reads yet.
        if let Err(error) = remote.program.run(&Grant::nothing(), &mirror, &["gc", "--auto", "--quiet"]).await {
            tracing::warn!(%error, "cannot pack the mirror");
        }
        let notice = Notice::new(remote.local_path().map(PathBuf::as_path), credentials.as_deref(), poll);
        let (transfer, cured_at) = (tokio::sync::Mutex::new(()), Mutex::new(None));
        let counts = Arc::default();
        Ok(Self { remote, identity, mirror, thread, notice, counts, transfer, cured_at })
    }

    /// Lets commits whose draft names nobody be `identity`'s from now on.
    #[must_use]
    pub fn with_identity(self, identity: Who) -> Self {
        Self { identity, ..self }
    }

    /// Returns the counts of what the remote was asked, which go on counting.
    pub fn requests(&self) -> Arc<RemoteCounts> {
        Arc::clone(&self.counts)
    }

    /// Throws the mirror away for a new one, unless that was done at this tip already. `transfer` must be held.
    async fn cure(&self, what: &str) -> Result<(), RepositoryError> {
        let tip = self.thread.ask(|mirror| mirror.tip()).await??;
        {
            let mut cured_at = self.cured_at.lock().unwrap_or_else(PoisonError::into_inner);
            if tip.is_some() && *cured_at == tip {
                return Err(RepositoryError::Damaged(what.to_owned()));
            }
            cured_at.clone_from(&tip);
        }
        tracing::warn!(what, "the mirror is damaged: fetching it anew");
        let fresh = self.thread.ask(|mirror| mirror.prepare_anew()).await??;
        if let Err(error) = self.remote.fetch(&fresh).await {
            // The remote may be back later: then it is worth another try.
            *self.cured_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let error = RepositoryError::from(error);
            return Err(RepositoryError::Damaged(format!("{what}; fetching it anew failed: {error}")));
        }
        self.thread.ask(move |mirror| mirror.replace(&fresh)).await?
    }

    /// Asks where the remote's branch is.
    async fn remote_tip(&self) -> Result<Revision, RepositoryError> {
        self.counts.count(RemoteOperation::Ask, self.ask_tip().await)
    }

    async fn ask_tip(&self) -> Result<Revision, RepositoryError> {
        let Some(path) = self.remote.local_path().cloned() else { return self.remote.tip(&self.mirror).await };
        let branch = self.remote.branch.clone();
        let tip = self.thread.ask(move |_| mirror::local_tip(&path, &branch.reference())).await??;
        tip.ok_or_else(|| RepositoryError::NoBranch(self.remote.branch.as_str().to_owned()))
    }

    /// Returns the fetched tip after seeing that its commit and root directory are there.
    async fn whole_tip(&self) -> Result<Revision, RepositoryError> {
        let tip = self.tip().await?.ok_or_else(|| RepositoryError::NoBranch(self.remote.branch.as_str().to_owned()))?;
        let at = tip.clone();
        self.thread.ask(move |mirror| mirror.ask(|objects| objects.root_is_here(&at))).await??;
        Ok(tip)
    }
}

#[async_trait]
impl OverObjects for GitRepository {
    /// Asks the objects, and once more of a mirror fetched anew when they are damaged.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let again = question.clone();
        match self.thread.ask(move |mirror| mirror.ask(question)).await? {
            Err(ObjectError::Corrupt(what)) => {
                let _transfer = self.transfer.lock().await;
                self.cure(&what).await?;
                Ok(self.thread.ask(move |mirror| mirror.ask(again)).await??)
            }
            answer => Ok(answer?),
        }
    }

    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        let _transfer = self.transfer.lock().await;
        if self.remote.local_path().is_some() {
            // A look at one file instead of three programs, and it says clearly when the repository is not there.
            let there = self.remote_tip().await?;
            if self.tip().await?.as_ref() == Some(&there) && self.whole_tip().await.is_ok() {
                return Ok(there);
            }
        }
        let fetched = self.remote.fetch(&self.mirror).await;
        self.counts.add(
            RemoteOperation::Fetch,
            match &fetched {
                Ok(()) => RemoteResult::Done,
                Err(Failure::Other(RepositoryError::Denied(_))) => RemoteResult::Denied,
                Err(_) => RemoteResult::Failed,
            },
        );
        let damage = match fetched {
            Ok(()) => match self.whole_tip().await {
                Err(RepositoryError::Damaged(what)) => what,
                whole => return whole,
            },
            Err(Failure::Damage(what)) => what,
            Err(Failure::Other(error)) => return Err(error),
        };
        self.cure(&damage).await?;
        self.whole_tip().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.thread.ask(|mirror| mirror.tip()).await?
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        let (start, drafts, own) = (onto.clone(), drafts.to_vec(), self.identity.clone());
        let commits = self.ask(move |objects| objects::make_chain(objects, &start, &drafts, &own)).await?;
        let Some(last) = commits.last().cloned() else { return Ok(Push::Accepted(commits)) };

        let _transfer = self.transfer.lock().await;
        let pushed = self.remote.push(&self.mirror, onto, &last).await;
        let pushed = match pushed {
            Ok(Pushed::Rejected { reason, stale }) => {
                self.counts.add(RemoteOperation::Push, RemoteResult::Rejected);
                Pushed::Rejected { reason, stale }
            }
            pushed => self.counts.count(RemoteOperation::Push, pushed)?,
        };
        match pushed {
            Pushed::Accepted => {
                let from = onto.clone();
                self.thread.ask(move |mirror| mirror.advance(&from, &last)).await?;
                Ok(Push::Accepted(commits))
            }
            Pushed::Rejected { reason, stale } => {
                // A server that lost a race may blame anything: where the branch is now tells.
                let moved = stale || self.remote_tip().await.is_ok_and(|tip| tip != *onto);
                Ok(Push::Rejected { reason, moved })
            }
        }
    }

    async fn changed(&self) {
        loop {
            if self.notice.look_now() {
                let there = self.remote_tip().await.ok();
                let here = self.tip().await.ok().flatten();
                if self.notice.is_news(there, here.as_ref()) {
                    return;
                }
            }
            self.notice.wait().await;
        }
    }
}
