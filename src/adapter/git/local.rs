//! A repository on this machine, read in place: for commands that look, and never fetch or push.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::objects::{ObjectError, Objects};
use super::over::OverObjects;
use crate::core::names::Revision;
use crate::core::repository::{CommitDraft, Push, RepositoryError};

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
}

pub(super) fn unusable(path: &Path, error: &git2::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("{}: {}", path.display(), error.message()))
}

#[async_trait]
impl OverObjects for LocalRepository {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let repository = self.repository.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            question(Objects::of(&repository))
        });
        let answer = answer.await.map_err(|error| RepositoryError::Mirror(error.to_string()))?;
        Ok(answer?)
    }

    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        Ok(self.tip.clone())
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(Some(self.tip.clone()))
    }

    async fn push(&self, _: &Revision, _: &[CommitDraft]) -> Result<Push, RepositoryError> {
        Err(RepositoryError::Mirror("a repository that is read in place is never pushed".to_owned()))
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}
