//! The release repository, as the controller needs it: what the `git` adapter must offer.
//!
//! Reads are by object id and never wait for the network; only [`Repository::fetch`] and
//! [`Repository::push`] do.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::names::{BlobId, Revision};

/// What a tree entry is. Only files are ever read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain or executable file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link: never followed.
    Link,
    /// A submodule: never fetched.
    Submodule,
}

/// One entry of a tree, with its path from the repository's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path from the repository's root, with `/`.
    pub path: String,
    /// The blob's id, or the subtree's for a directory.
    pub id: BlobId,
    /// What it is.
    pub kind: EntryKind,
    /// The size in bytes; 0 for what is no file.
    pub size: u64,
}

/// One commit to be made: the parent's tree with some paths set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitDraft {
    /// The whole message, trailers included.
    pub message: String,
    /// The new content by path; `None` removes the path. Only the trees on these paths are written.
    pub edits: BTreeMap<String, Option<Vec<u8>>>,
    /// The author's and committer's time.
    pub time: Timestamp,
    /// The author's name and e-mail address; `None` is the controller's own identity.
    pub author: Option<(String, String)>,
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// The remote took it; the ids of the commits made, in order.
    Accepted(Vec<Revision>),
    /// The branch had moved, or a hook of the server refused: fetch and decide again.
    Rejected {
        /// What the remote said.
        reason: String,
        /// True when the branch no longer is where the commits were made on.
        moved: bool,
    },
}

/// The result of a three-way merge inside one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The edits, relative to `ours`, that make the merged directory. Empty when `ours` is it already.
    Clean(BTreeMap<String, Option<Vec<u8>>>),
    /// The paths that conflict.
    Conflicts(Vec<String>),
}

/// A version that a file below the ledger had in some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersion {
    /// The commit that has it and in none of whose parents it is the same.
    pub commit: Revision,
    /// The path from the repository's root.
    pub path: String,
    /// The content's id.
    pub blob: BlobId,
}

/// A file that is not the same in two commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path from the repository's root.
    pub path: String,
    /// Its content's id and what it is in the later commit; `None` where it is gone.
    pub now: Option<(BlobId, EntryKind)>,
}

/// A commit, for the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: Revision,
    /// Its parents.
    pub parents: Vec<Revision>,
    /// Author as `name <email>`.
    pub author: String,
    /// Committer time. Never used for order.
    pub time: Timestamp,
    /// The whole message.
    pub message: String,
}

/// Why the repository could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// The remote is away: try again later.
    #[error("the remote cannot be reached: {0}")]
    Unreachable(String),
    /// The remote refuses the credentials or the access.
    #[error("the remote refuses access: {0}")]
    Denied(String),
    /// The remote is not who it should be, or nobody has said who that is: nothing was sent to it.
    #[error("the remote is not trusted: {0}")]
    Untrusted(String),
    /// The credentials for the remote cannot be used as they are.
    #[error("the credentials cannot be used: {0}")]
    Credentials(String),
    /// The remote has no such branch.
    #[error("the remote has no branch `{0}`")]
    NoBranch(String),
    /// The revision is not in the mirror.
    #[error("revision {0} is not here")]
    UnknownRevision(Revision),
    /// Objects are damaged or refused by a rule: names the object or path.
    #[error("{0}")]
    Damaged(String),
    /// The local mirror cannot be used (disk full, permissions).
    #[error("the mirror cannot be used: {0}")]
    Mirror(String),
}

/// The watched branch of one release repository, through a local bare mirror.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Brings the watched branch's objects here and returns its tip on the remote.
    async fn fetch(&self) -> Result<Revision, RepositoryError>;

    /// Returns the tip that was fetched last, by this or an earlier process; `None` before the first fetch.
    async fn tip(&self) -> Result<Option<Revision>, RepositoryError>;

    /// Returns one level of the directory `path` ("" is the root) at `at`; `None` where there is no such directory.
    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError>;

    /// Returns every entry that is no directory below `path`, recursively, sorted by path; empty where there is none.
    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError>;

    /// Returns a blob's content. Blobs over `limit` bytes are refused as [`RepositoryError::Damaged`].
    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError>;

    /// Returns whether `ancestor` is `descendant` or reachable from it. False when either is unknown.
    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError>;

    /// Returns what differs between two commits, by path, whatever lies between them; `None` where that cannot be
    /// told (`from` is not here any more) or is not worth telling (nearly everything): read all of `to` then.
    ///
    /// What it costs follows what differs: directories with the same id are not opened.
    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError>;

    /// Returns every version of the files with one of these `names` below the directory `below` in the commits that
    /// are reachable from `head` and not from `since`, over all parents, oldest commit first.
    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError>;

    /// Returns the commits reachable from `head` that changed something below `path` ("" is everything), newest
    /// first in topological order, at most `limit`.
    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError>;

    /// Merges the directory `path`: three-way, with its content at `base`, `ours` and `theirs`.
    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError>;

    /// Makes `drafts` as a chain of commits on `onto` and pushes them with compare-and-swap: the remote's branch
    /// must still be at `onto`. Never forces. After an error the remote may or may not have them: fetch tells.
    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError>;

    /// Returns when the remote may have moved (a file system event for a local repository, a tip seen by polling
    /// for others). May return early or for nothing; never a promise that something is new.
    async fn changed(&self);
}
