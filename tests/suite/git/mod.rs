//! The git adapter against repositories made by the real `git` program.
#![allow(clippy::unwrap_used, clippy::panic)]

mod hostile;
mod https;
mod memory;
mod mirror;
mod notice;
mod objects;
mod push;
mod ssh;
mod transport;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use locktender::adapter::git::access::Access;
use locktender::adapter::git::url::{Branch, RemoteUrl};
use locktender::adapter::git::{GitOptions, GitRepository};
use locktender::core::names::{BlobId, Revision};
use locktender::core::repository::{CommitDraft, Repository};
use tempfile::TempDir;

use crate::support::git::Remote;

/// The options for `url` with a mirror in `mirror`.
fn options(url: &str, mirror: &Path) -> GitOptions {
    GitOptions::new(RemoteUrl::parse(url).unwrap(), Branch::parse("main").unwrap(), mirror.join("mirror"))
}

/// A directory of credentials, as a Secret's volume is.
struct Secret(TempDir);

impl Secret {
    fn new(files: &[(&str, &str)]) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, content)| secret.put(name, content));
        secret
    }

    /// Puts a file in the place of another, as a whole.
    fn put(&self, name: &str, content: &str) {
        let fresh = self.0.path().join("..fresh");
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(fresh, self.0.path().join(name)).unwrap();
    }

    /// The options for `url` with these credentials.
    fn options(&self, url: &str, mirror: &Path) -> GitOptions {
        let access = Access::Own { credentials: Some(self.0.path().to_owned()) };
        GitOptions { access, ..options(url, mirror) }
    }

    /// An open repository that has these credentials.
    async fn open(&self, url: &str) -> (GitRepository, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (GitRepository::open(self.options(url, directory.path())).await.unwrap(), directory)
    }
}

/// An open repository, and the directory that its mirror is in.
async fn open(url: &str) -> (GitRepository, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (GitRepository::open(options(url, directory.path())).await.unwrap(), directory)
}

/// An open repository that was fetched once, with the tip.
async fn fetched(remote: &Remote) -> (GitRepository, Revision, TempDir) {
    let (repository, directory) = open(&remote.url()).await;
    let tip = repository.fetch().await.unwrap();
    (repository, tip, directory)
}

/// A draft that sets one file.
fn draft(path: &str, content: &str) -> CommitDraft {
    CommitDraft {
        message: format!("set {path}\n\nLocktender-Event: Test\n"),
        edits: BTreeMap::from([(path.to_owned(), Some(content.as_bytes().to_vec()))]),
        time: Timestamp::from_second(1_795_000_000).unwrap(),
        author: None,
    }
}

/// A file's text at `at`.
async fn text(repository: &GitRepository, at: &Revision, path: &str) -> String {
    let files = repository.files(at, "").await.unwrap();
    let entry = files.iter().find(|entry| entry.path == path).unwrap_or_else(|| panic!("no {path} in {files:?}"));
    blob(repository, &entry.id).await
}

async fn blob(repository: &GitRepository, id: &BlobId) -> String {
    String::from_utf8(repository.read(id, 1 << 20).await.unwrap().to_vec()).unwrap()
}
