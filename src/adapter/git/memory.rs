//! A repository without a disk: the simulation's model of Git, answering through the same code as the mirror.

use std::collections::BTreeMap;

use git2::Odb;
use jiff::Timestamp;

use super::objects::{Edits, Objects, Remembered, Result, Who};
use crate::core::names::Revision;
use crate::core::repository::RepositoryError;

/// Objects in memory, and branches in a plain map.
///
/// Synchronous, and not to be shared between threads without a lock.
pub struct MemoryRepository {
    repository: git2::Repository,
    branches: BTreeMap<String, Revision>,
    remembered: Remembered,
}

impl MemoryRepository {
    /// Makes an empty repository.
    ///
    /// # Errors
    ///
    /// libgit2 cannot be started.
    pub fn new() -> std::result::Result<Self, RepositoryError> {
        let make = || {
            let odb = Odb::new()?;
            odb.add_new_mempack_backend(1)?;
            git2::Repository::from_odb(odb)
        };
        let repository = make().map_err(|e: git2::Error| RepositoryError::Mirror(e.message().to_owned()))?;
        Ok(Self { repository, branches: BTreeMap::new(), remembered: Remembered::default() })
    }

    /// Returns the objects, for everything that reads.
    pub fn objects(&self) -> Objects<'_> {
        Objects::of(&self.repository).remembering(&self.remembered)
    }

    /// Makes a commit with the first parent's tree and `edits`; moves no branch.
    ///
    /// # Errors
    ///
    /// As [`Objects::make_commit`].
    pub fn commit(
        &self,
        edits: &Edits,
        parents: &[Revision],
        author: &Who,
        message: &str,
        time: Timestamp,
    ) -> Result<Revision> {
        self.objects().make_commit(parents, edits, author, message, time)
    }

    /// Returns where `branch` is.
    pub fn tip(&self, branch: &str) -> Option<&Revision> {
        self.branches.get(branch)
    }

    /// Puts `branch` anywhere, as a forced push would; `None` deletes it.
    pub fn set_tip(&mut self, branch: &str, to: Option<Revision>) {
        match to {
            Some(to) => self.branches.insert(branch.to_owned(), to),
            None => self.branches.remove(branch),
        };
    }
}
