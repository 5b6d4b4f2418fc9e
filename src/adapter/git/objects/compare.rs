//! What differs between two trees. What is the same on both sides is passed over by its id and never opened.

use std::cmp::Ordering;

use git2::{Tree, TreeEntry};

use super::{MOST_ENTRIES, ObjectError, Objects, RawEntry, Result, checked, joined};
use crate::core::{
    names::{BlobId, Revision},
    repository::{Change, EntryKind},
};

/// An entry of a directory that is not the same on both sides.
pub(super) struct Difference {
    /// Its name in the directory.
    pub name: String,
    pub old: Option<RawEntry>,
    pub new: Option<RawEntry>,
}

impl<'r> Objects<'r> {
    /// Returns what differs between two commits, by path; `None` where `from` is not here, or where more than
    /// [`MOST_ENTRIES`] files differ.
    ///
    /// # Errors
    ///
    /// `to` is unknown, an object is damaged, or a changed entry breaks a rule.
    pub fn changes(self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>> {
        let new = self.tree(self.commit(to)?.tree_id(), "")?;
        let old = match self.commit(from) {
            Ok(commit) => self.tree(commit.tree_id(), "")?,
            Err(ObjectError::UnknownRevision(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut changes = Vec::new();
        self.compare(Some(&old), Some(&new), "", &mut changes)?;
        Ok((changes.len() <= MOST_ENTRIES).then_some(changes))
    }

    fn compare(
        self,
        old: Option<&Tree<'r>>,
        new: Option<&Tree<'r>>,
        path: &str,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        for Difference { old, new, .. } in self.differences(old, new, path)? {
            if changes.len() > MOST_ENTRIES {
                return Ok(());
            }
            let Some(path) = new.as_ref().or(old.as_ref()).map(|entry| entry.path.clone()) else { continue };
            let subtree = |entry: &Option<RawEntry>| {
                let directory = entry.as_ref().filter(|entry| entry.is_directory());
                directory.map(|entry| self.tree(entry.id, &entry.path)).transpose()
            };
            let (below_old, below_new) = (subtree(&old)?, subtree(&new)?);
            if below_old.is_some() || below_new.is_some() {
                self.compare(below_old.as_ref(), below_new.as_ref(), &path, changes)?;
            }
            let file = |entry: Option<RawEntry>| entry.filter(|entry| !entry.is_directory());
            match (file(old), file(new)) {
                (_, Some(new)) => {
                    let now = Some((BlobId::new(new.id.to_string()), new.kind));
                    changes.push(Change { path, now });
                }
                (Some(_), None) => changes.push(Change { path, now: None }),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Returns the entries of one directory that are not the same in two of its trees; `None` is the empty one.
    ///
    /// Both are gone through once, side by side: Git keeps them in order.
    pub(super) fn differences(
        self,
        old: Option<&Tree<'_>>,
        new: Option<&Tree<'_>>,
        path: &str,
    ) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let mut found = |old: Option<&TreeEntry<'_>>, new: Option<&TreeEntry<'_>>| -> Result<()> {
            // What was there is not judged any more.
            let old = old.and_then(|entry| checked(entry, path).ok());
            let new = new.map(|entry| checked(entry, path)).transpose()?;
            let name = new.as_ref().or(old.as_ref()).map(|entry| entry.name().to_owned());
            differences.extend(name.map(|name| Difference { name, old, new }));
            Ok(())
        };
        let (mut old, mut new) = (Side::of(old), Side::of(new));
        loop {
            let order = match (old.entry(), new.entry()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => in_order(old, new),
            };
            match order {
                Ordering::Less => {
                    found(old.entry(), None)?;
                    old.next(path)?;
                }
                Ordering::Greater => {
                    found(None, new.entry())?;
                    new.next(path)?;
                }
                Ordering::Equal => {
                    let id = |side: &Side<'_, '_>| side.entry().map(|entry| (entry.id(), entry.filemode_raw()));
                    if id(&old) != id(&new) {
                        found(old.entry(), new.entry())?;
                    }
                    old.next(path)?;
                    new.next(path)?;
                }
            }
        }
        Ok(differences)
    }
}

/// One of two trees that are gone through side by side.
struct Side<'t, 'r> {
    tree: Option<&'t Tree<'r>>,
    index: usize,
    entry: Option<TreeEntry<'t>>,
}

impl<'t, 'r> Side<'t, 'r> {
    fn of(tree: Option<&'t Tree<'r>>) -> Self {
        Self { tree, index: 0, entry: tree.and_then(|tree| tree.get(0)) }
    }

    fn entry(&self) -> Option<&TreeEntry<'t>> {
        self.entry.as_ref()
    }

    fn next(&mut self, path: &str) -> Result<()> {
        self.index += 1;
        let next = self.tree.and_then(|tree| tree.get(self.index));
        if let (Some(before), Some(next)) = (&self.entry, &next)
            && in_order(before, next) != Ordering::Less
        {
            let path = joined(path, next.name_bytes());
            return Err(ObjectError::Refused(format!("{path}: the repository has this entry out of order")));
        }
        self.entry = next;
        Ok(())
    }
}

/// Compares as Git sorts: a directory as if its name ended with a slash. So a file and a directory of one name are two
/// entries.
fn in_order(a: &TreeEntry<'_>, b: &TreeEntry<'_>) -> Ordering {
    let (name_a, name_b) = (a.name_bytes(), b.name_bytes());
    let common = name_a.len().min(name_b.len());
    let end = |name: &[u8], entry: &TreeEntry<'_>| match name.get(common) {
        Some(byte) => *byte,
        None if entry.filemode_raw() & 0o170_000 == 0o040_000 => b'/',
        None => 0,
    };
    let rest = || end(name_a, a).cmp(&end(name_b, b)).then(name_a.len().cmp(&name_b.len()));
    name_a[..common].cmp(&name_b[..common]).then_with(rest)
}

impl RawEntry {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }
}
