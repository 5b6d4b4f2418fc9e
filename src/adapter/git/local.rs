//! A repository on this machine, read in place: for commands that look, and never fetch or push.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::objects::{ObjectError, Objects};
use crate::core::names::{BlobId, Revision};
use crate::core::repository::{CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError};

/// One commit of a repository on this machine, with everything reachable from it. Read only.
pub struct LocalRepository {
    repository: Arc<Mutex<git2::Repository>>,
    tip: Revision,
    /// What goes when nobody reads any more.
    _scratch: Option<tempfile::TempDir>,
}

impl LocalRepository {
    /// Opens the repository whose `.git` (or bare directory) is `path`, at the commit `tip`.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::Mirror`]: it cannot be opened.
    pub fn open(path: &Path, tip: Revision) -> Result<Self, RepositoryError> {
        Self::open_with(path.to_path_buf(), tip, None)
    }

    pub(super) fn open_with(
        path: PathBuf,
        tip: Revision,
        scratch: Option<tempfile::TempDir>,
    ) -> Result<Self, RepositoryError> {
        let repository = git2::Repository::open(&path).map_err(|error| unusable(&path, &error))?;
        Ok(Self { repository: Arc::new(Mutex::new(repository)), tip, _scratch: scratch })
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Objects<'_>) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let repository = self.repository.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            question(Objects::of(&repository))
        });
        let answer = answer.await.map_err(|error| RepositoryError::Mirror(error.to_string()))?;
        Ok(answer?)
    }
}

pub(super) fn unusable(path: &Path, error: &git2::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("{}: {}", path.display(), error.message()))
}

#[async_trait]
impl Repository for LocalRepository {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        Ok(self.tip.clone())
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(Some(self.tip.clone()))
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        let (at, path) = (at.clone(), path.to_owned());
        self.ask(move |objects| objects.directory(&at, &path)).await
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        let (at, path) = (at.clone(), path.to_owned());
        self.ask(move |objects| objects.files(&at, &path)).await
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        let blob = blob.clone();
        self.ask(move |objects| objects.read(&blob, limit)).await
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        let (ancestor, descendant) = (ancestor.clone(), descendant.clone());
        self.ask(move |objects| objects.is_ancestor(&ancestor, &descendant)).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        name: &str,
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        let (head, since, below, name) = (head.clone(), since.cloned(), below.to_owned(), name.to_owned());
        self.ask(move |objects| objects.versions(&head, since.as_ref(), &below, &name)).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        let (head, path) = (head.clone(), path.to_owned());
        self.ask(move |objects| objects.log(&head, &path, limit)).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        let (path, base, ours, theirs) = (path.to_owned(), base.clone(), ours.clone(), theirs.clone());
        self.ask(move |objects| objects.merge(&path, &base, &ours, &theirs)).await
    }

    async fn push(&self, _: &Revision, _: &[CommitDraft]) -> Result<Push, RepositoryError> {
        Err(RepositoryError::Mirror("a repository that is read in place is never pushed".to_owned()))
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}
