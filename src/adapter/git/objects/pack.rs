//! Many objects at once: in memory first, and then one file, where each would be a file of its own.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::Path;

use git2::Repository;

use super::write::unwritable;
use super::{Objects, Result, Who};
use crate::core::names::Revision;
use crate::core::repository::CommitDraft;

/// From so many edited files on: as many objects as git itself leaves unpacked.
const MANY: usize = 100;

/// Comes before every place on the disk.
const FIRST: i32 = 1_000;

/// Makes `drafts` as a chain of commits on `onto`, as [`Objects::make_chain`] does. Where they edit many files, what is new
/// is written as one pack: the repository must be one on disk.
///
/// # Errors
///
/// As [`Objects::make_commit`].
pub fn make_chain(objects: Objects<'_>, onto: &Revision, drafts: &[CommitDraft], own: &Who) -> Result<Vec<Revision>> {
    let edits: usize = drafts.iter().map(|draft| draft.edits.len()).sum();
    if edits < MANY {
        return objects.make_chain(onto, drafts, own);
    }
    // A handle of its own: what it has in memory goes with it, and the other sees the pack.
    let repository = open(objects.repository.path()).map_err(|e| unwritable("a pack", &e))?;
    let written = RefCell::default();
    let commits = {
        let odb = repository.odb().map_err(|e| unwritable("a pack", &e))?;
        odb.add_new_mempack_backend(FIRST).map_err(|e| unwritable("a pack", &e))?;
        let objects = Objects { repository: &repository, remembered: None, written: Some(&written) };
        objects.make_chain(onto, drafts, own)?
    };
    pack(&repository, written.into_inner()).map_err(|e| unwritable("a pack", &e))?;
    Ok(commits)
}

fn open(path: &Path) -> std::result::Result<Repository, git2::Error> {
    let repository = Repository::open_bare(path)?;
    // The user's and the machine's configuration have no say here.
    repository.set_config(&git2::Config::new()?)?;
    Ok(repository)
}

fn pack(repository: &Repository, mut written: Vec<git2::Oid>) -> std::result::Result<(), git2::Error> {
    written.sort_unstable();
    written.dedup();
    let mut builder = repository.packbuilder()?;
    for id in written {
        builder.insert_object(id, None)?;
    }
    let odb = repository.odb()?;
    let mut writer = odb.packwriter()?;
    let mut written = Ok(());
    builder.foreach(|bytes| {
        written = writer.write_all(bytes);
        written.is_ok()
    })?;
    written.map_err(|error| git2::Error::from_str(&error.to_string()))?;
    writer.commit()?;
    Ok(())
}
