//! Everything that only reads is the same for every repository whose objects can be asked: written once.

use async_trait::async_trait;
use bytes::Bytes;

use super::objects::{ObjectError, Objects};
use crate::core::{
    names::{BlobId, Revision},
    repository::{Change, CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
};

/// A repository whose objects can be asked. With this it is a [`Repository`].
#[async_trait]
pub trait OverObjects: Send + Sync {
    /// Asks the objects. The question may be asked again, of another copy of them.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError>;

    /// As [`Repository::fetch`].
    async fn fetch(&self) -> Result<Revision, RepositoryError>;

    /// As [`Repository::tip`].
    async fn tip(&self) -> Result<Option<Revision>, RepositoryError>;

    /// As [`Repository::push`].
    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError>;

    /// As [`Repository::changed`].
    async fn changed(&self);
}

#[async_trait]
impl<R: OverObjects> Repository for R {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        OverObjects::fetch(self).await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        OverObjects::tip(self).await
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

    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        let (from, to) = (from.clone(), to.clone());
        self.ask(move |objects| objects.changes(&from, &to)).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        let (head, since, below) = (head.clone(), since.cloned(), below.to_owned());
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.ask(move |objects| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            objects.versions(&head, since.as_ref(), &below, &names)
        })
        .await
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

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        OverObjects::push(self, onto, drafts).await
    }

    async fn changed(&self) {
        OverObjects::changed(self).await;
    }
}
