//! A commit with some files changed, as if it were one: to see what a repair would render before it is made.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::core::{
    names::{BlobId, Digest, Revision},
    repository::{
        Change, CommitDraft, CommitInfo, Entry, EntryKind, FileVersion, Merge, Push, Repository, RepositoryError,
    },
};

/// A repository whose every commit has the same files changed. Only what rendering reads is changed.
pub struct Overlay {
    inner: Arc<dyn Repository>,
    edits: BTreeMap<String, Option<Vec<u8>>>,
}

impl Overlay {
    /// Lays edits over a repository.
    pub fn new(inner: Arc<dyn Repository>, edits: BTreeMap<String, Option<Vec<u8>>>) -> Self {
        Self { inner, edits }
    }

    fn id(path: &str) -> BlobId {
        BlobId::new(format!("overlay {path}"))
    }

    /// Returns the edits below a directory, by the rest of their path.
    fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a String, &'a Option<Vec<u8>>)> {
        self.edits.iter().filter_map(move |(path, content)| {
            let rest =
                if directory.is_empty() { path.as_str() } else { path.strip_prefix(directory)?.strip_prefix('/')? };
            Some((rest, path, content))
        })
    }
}

fn file(path: &str, content: &[u8]) -> Entry {
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    Entry { path: path.to_owned(), id: Overlay::id(path), kind: EntryKind::File, size }
}

#[async_trait]
impl Repository for Overlay {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.inner.fetch().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.inner.tip().await
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        let mut entries: BTreeMap<String, Entry> = self
            .inner
            .directory(at, path)
            .await?
            .unwrap_or_default()
            .into_iter()
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        for (rest, whole, content) in self.below(path) {
            match (rest.split_once('/'), content) {
                (None, Some(content)) => drop(entries.insert(whole.clone(), file(whole, content))),
                (None, None) => drop(entries.remove(whole)),
                (Some((name, _)), _) => {
                    let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                    let id = BlobId::new(format!("overlay {path} {}", Digest::of(whole.as_bytes())));
                    entries.insert(path.clone(), Entry { path, id, kind: EntryKind::Directory, size: 0 });
                }
            }
        }
        Ok(if entries.is_empty() { None } else { Some(entries.into_values().collect()) })
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        let mut entries: BTreeMap<String, Entry> =
            self.inner.files(at, path).await?.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        for (_, whole, content) in self.below(path) {
            match content {
                Some(content) => drop(entries.insert(whole.clone(), file(whole, content))),
                None => drop(entries.remove(whole)),
            }
        }
        Ok(entries.into_values().collect())
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        let path = blob.as_str().strip_prefix("overlay ");
        match path.and_then(|path| self.edits.get(path)) {
            Some(Some(content)) => Ok(Bytes::copy_from_slice(content)),
            _ => self.inner.read(blob, limit).await,
        }
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.inner.is_ancestor(ancestor, descendant).await
    }

    async fn changes(&self, _: &Revision, _: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        Ok(None)
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.inner.versions(head, since, below, names).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.inner.log(head, path, limit).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.inner.merge(path, base, ours, theirs).await
    }

    async fn push(&self, _: &Revision, _: &[CommitDraft]) -> Result<Push, RepositoryError> {
        Err(RepositoryError::Mirror("an overlay is never pushed".to_owned()))
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}
