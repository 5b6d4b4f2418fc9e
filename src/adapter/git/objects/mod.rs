//! Everything that needs only a [`git2::Repository`]'s objects: no refs, no network, no clock.
//!
//! The mirror of a real remote and the simulation's repository in memory answer through the same code.
//!
//! Trees come from strangers. Each tree that is listed is checked first: a name that could lead out of a directory
//! (`..`, `.git` in any spelling that a file system takes for it, a backslash, a control character), that is there
//! twice, or that is not where git would put it, makes the whole tree an error that names the path. Links and submodules are reported as what they
//! are and never followed.

mod cache;
mod compare;
mod history;
mod merge;
mod pack;
mod write;

use std::cell::RefCell;
use std::collections::BTreeSet;

use bytes::Bytes;
use git2::{ErrorCode, ObjectType, Oid, Tree, TreeEntry};

use crate::core::names::{BlobId, Revision};
use crate::core::repository::{Entry, EntryKind, RepositoryError};

pub use cache::Remembered;
pub use pack::make_chain;
pub use write::{Edits, Who};

/// How many entries one listing may have: more is refused instead of held in memory.
pub const MOST_ENTRIES: usize = 200_000;

/// Why an answer could not be read from the objects.
///
/// Told apart from [`RepositoryError`] because only damage is worth another copy of the repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The revision is not in the database.
    #[error("revision {0} is not here")]
    UnknownRevision(Revision),
    /// The content breaks a rule; another copy would say the same.
    #[error("{0}")]
    Refused(String),
    /// An object is missing or its bytes are wrong; another copy may be whole.
    #[error("{0}")]
    Corrupt(String),
    /// Objects could not be written.
    #[error("{0}")]
    Unwritable(String),
}

impl From<ObjectError> for RepositoryError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::UnknownRevision(revision) => Self::UnknownRevision(revision),
            ObjectError::Refused(text) | ObjectError::Corrupt(text) => Self::Damaged(text),
            ObjectError::Unwritable(text) => Self::Mirror(text),
        }
    }
}

/// The result of reading objects.
pub type Result<T> = std::result::Result<T, ObjectError>;

/// Reads and makes objects of one repository.
#[derive(Clone, Copy)]
pub struct Objects<'r> {
    repository: &'r git2::Repository,
    remembered: Option<&'r Remembered>,
    /// Notes what is written.
    written: Option<&'r RefCell<Vec<Oid>>>,
}

impl<'r> Objects<'r> {
    /// Looks at `repository`'s objects.
    pub fn of(repository: &'r git2::Repository) -> Self {
        Self { repository, remembered: None, written: None }
    }

    /// Remembers in `remembered` what takes long to find again.
    pub fn remembering(self, remembered: &'r Remembered) -> Self {
        Self { remembered: Some(remembered), ..self }
    }

    /// Returns one level of the directory `path` ("" is the root) at `at`; `None` where there is no such directory.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Refused`] names the path of an entry that breaks a rule.
    pub fn directory(self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>> {
        let Some(tree) = self.tree_at(at, path)? else { return Ok(None) };
        let level = self.level(&tree, path)?;
        level.into_iter().map(|raw| self.entry(raw)).collect::<Result<_>>().map(Some)
    }

    /// Returns every entry that is no directory below `path`, recursively, sorted by path; empty where there is none.
    ///
    /// # Errors
    ///
    /// As [`Objects::directory`]; more than [`MOST_ENTRIES`] are refused.
    pub fn files(self, at: &Revision, path: &str) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        if let Some(tree) = self.tree_at(at, path)? {
            self.collect(&tree, path, &mut found)?;
        }
        found.sort_by(|a: &RawEntry, b| a.path.cmp(&b.path));
        found.into_iter().map(|raw| self.entry(raw)).collect()
    }

    /// Returns a blob's content.
    ///
    /// # Errors
    ///
    /// More than `limit` bytes, or an id of something else, are refused.
    pub fn read(self, blob: &BlobId, limit: u64) -> Result<Bytes> {
        let id = Oid::from_str(blob.as_str())
            .map_err(|_| ObjectError::Refused(format!("`{blob}` is not the id of an object")))?;
        let odb = self.repository.odb().map_err(|e| corrupt("the object database", &e))?;
        let what = format!("blob {blob}");
        let (size, kind) = odb.read_header(id).map_err(|e| corrupt(&what, &e))?;
        if kind != ObjectType::Blob {
            return Err(ObjectError::Refused(format!("{blob} is not a file but a {}", kind.str())));
        }
        if size as u64 > limit {
            return Err(ObjectError::Refused(format!("blob {blob} has {size} bytes, more than the {limit} allowed")));
        }
        let object = odb.read(id).map_err(|e| corrupt(&what, &e))?;
        Ok(Bytes::copy_from_slice(object.data()))
    }

    /// Succeeds when the commit `at` and its root directory are here and readable.
    ///
    /// # Errors
    ///
    /// They are not.
    pub fn root_is_here(self, at: &Revision) -> Result<()> {
        self.tree_at(at, "").map(drop)
    }

    /// Finds the tree of the directory `path` at `at`; `None` where there is none, or something else.
    fn tree_at(self, at: &Revision, path: &str) -> Result<Option<Tree<'r>>> {
        self.tree_below(self.root(at)?, path)
    }

    /// Goes down from the tree `root` to the directory `path`.
    fn tree_below(self, root: Oid, path: &str) -> Result<Option<Tree<'r>>> {
        let mut tree = root;
        let mut here = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Some(below) = self.subdirectory(tree, name, &here)? else { return Ok(None) };
            push_name(&mut here, name);
            tree = below;
        }
        self.tree(tree, &here).map(Some)
    }

    fn tree(self, id: Oid, path: &str) -> Result<Tree<'r>> {
        self.repository.find_tree(id).map_err(|e| {
            let path = if path.is_empty() { "the root directory" } else { path };
            corrupt(&format!("tree {id} of {path}"), &e)
        })
    }

    fn commit(self, at: &Revision) -> Result<git2::Commit<'r>> {
        let id = Oid::from_str(at.as_str()).map_err(|_| ObjectError::UnknownRevision(at.clone()))?;
        self.repository.find_commit(id).map_err(|error| match error.code() {
            ErrorCode::NotFound => ObjectError::UnknownRevision(at.clone()),
            _ => corrupt(&format!("commit {at}"), &error),
        })
    }

    /// Returns a tree's entries after checking all their names.
    fn level(self, tree: &Tree<'_>, path: &str) -> Result<Vec<RawEntry>> {
        if tree.len() > MOST_ENTRIES {
            return Err(too_many(path));
        }
        let mut names = BTreeSet::new();
        let mut before: Vec<u8> = Vec::new();
        let mut level = Vec::with_capacity(tree.len());
        for entry in tree.iter() {
            let raw = checked(&entry, path)?;
            // Whoever looks names up by halving finds others than whoever lists them, where the order is not git's.
            let mut place = entry.name_bytes().to_owned();
            if raw.kind == EntryKind::Directory {
                place.push(b'/');
            }
            if place < before {
                let path = raw.path;
                return Err(ObjectError::Refused(format!("{path}: the tree is not in git's order")));
            }
            before = place;
            if !names.insert(entry.name_bytes().to_owned()) {
                let path = raw.path;
                return Err(ObjectError::Refused(format!("{path}: the repository has this entry twice")));
            }
            level.push(raw);
        }
        Ok(level)
    }

    fn collect(self, tree: &Tree<'_>, path: &str, found: &mut Vec<RawEntry>) -> Result<()> {
        for raw in self.level(tree, path)? {
            if raw.kind == EntryKind::Directory {
                self.collect(&self.tree(raw.id, &raw.path)?, &raw.path, found)?;
            } else if found.len() == MOST_ENTRIES {
                return Err(too_many(path));
            } else {
                found.push(raw);
            }
        }
        Ok(())
    }

    fn entry(self, raw: RawEntry) -> Result<Entry> {
        let size = if raw.kind == EntryKind::File {
            let odb = self.repository.odb().map_err(|e| corrupt("the object database", &e))?;
            let (size, _) = odb.read_header(raw.id).map_err(|e| corrupt(&raw.path, &e))?;
            size as u64
        } else {
            0
        };
        Ok(Entry { path: raw.path, id: BlobId::new(raw.id.to_string()), kind: raw.kind, size })
    }
}

/// A checked entry whose size was not asked for.
struct RawEntry {
    path: String,
    id: Oid,
    kind: EntryKind,
}

/// Checks the name and the mode of one entry of the directory `path`.
fn checked(entry: &TreeEntry<'_>, path: &str) -> Result<RawEntry> {
    let bytes = entry.name_bytes();
    let path = joined(path, bytes);
    if let Some(fault) = name_fault(bytes) {
        return Err(ObjectError::Refused(format!("{path}: the repository has an entry {fault}")));
    }
    let kind = match entry.filemode_raw() & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o100_000 => EntryKind::File,
        0o120_000 => EntryKind::Link,
        0o160_000 => EntryKind::Submodule,
        mode => return Err(ObjectError::Refused(format!("{path}: the entry has the unknown mode {mode:o}"))),
    };
    Ok(RawEntry { path, id: entry.id(), kind })
}

/// Says what is wrong with the name of a tree's entry.
///
/// The spellings of `.git` are those that git's own `fsck` and `protectNTFS` refuse.
fn name_fault(name: &[u8]) -> Option<&'static str> {
    let Ok(name) = std::str::from_utf8(name) else { return Some("whose name is not UTF-8") };
    let visible: String = name.chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    let ntfs = visible.trim_end_matches(['.', ' ']);
    match name {
        "" => Some("without a name"),
        "." | ".." => Some("that leads out of its directory"),
        _ if ntfs.eq_ignore_ascii_case(".git") || ntfs.eq_ignore_ascii_case("git~1") => {
            Some("that stands for git's own directory")
        }
        _ if name.contains('/') => Some("with a slash in its name"),
        _ if name.contains('\\') => Some("with a backslash in its name"),
        _ if name.chars().any(char::is_control) => Some("with a control character in its name"),
        _ => None,
    }
}

/// Whether HFS+ ignores the character when it compares names, so that `.g\u{200c}it` is `.git` there.
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
}

/// Joins for people too: what is not printable is escaped, so that a log line stays one line.
fn joined(path: &str, name: &[u8]) -> String {
    let mut path = path.to_owned();
    let text = String::from_utf8_lossy(name);
    if text.chars().any(char::is_control) {
        push_name(&mut path, &text.escape_default().to_string());
    } else {
        push_name(&mut path, &text);
    }
    path
}

fn too_many(path: &str) -> ObjectError {
    ObjectError::Refused(format!("{path}/: the directory has more than {MOST_ENTRIES} files"))
}

fn corrupt(what: &str, error: &git2::Error) -> ObjectError {
    ObjectError::Corrupt(format!("{what} cannot be read from the repository: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_45_names_that_could_lead_out_of_a_directory_are_refused() {
        let bad: [&[u8]; 14] = [
            b"",
            b".",
            b"..",
            b".git",
            b".GIT",
            b".Git. ",
            b"git~1",
            b"GIT~1",
            ".g\u{200c}it".as_bytes(),
            b"a/b",
            b"a\\b",
            b"a\nb",
            b"a\x7f",
            b"\xff",
        ];
        for name in bad {
            assert!(name_fault(name).is_some(), "{}", String::from_utf8_lossy(name));
        }
        for name in ["app.yaml", ".gitignore", ".github", "..a", "git", "ä b.yaml", "-x", "a.git"] {
            assert_eq!(name_fault(name.as_bytes()), None, "{name}");
        }
    }
}
