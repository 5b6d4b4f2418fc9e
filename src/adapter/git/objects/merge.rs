//! The three-way merge of one directory.

use std::collections::{BTreeMap, BTreeSet};

use git2::{MergeOptions, Oid, Tree};

use super::write::Edits;
use super::{ObjectError, Objects, RawEntry, Result, corrupt, push_name};
use crate::core::names::Revision;
use crate::core::repository::{EntryKind, Merge};

impl<'r> Objects<'r> {
    /// Merges the directory `path` as `git merge` would, with its content at `base`, `ours` and `theirs`; where a
    /// side has no such directory, it counts as empty.
    ///
    /// What the merge would change and an edit cannot say (a link, a submodule) is a conflict.
    ///
    /// # Errors
    ///
    /// A revision is unknown, or an object is damaged.
    pub fn merge(self, path: &str, base: &Revision, ours: &Revision, theirs: &Revision) -> Result<Merge> {
        let (base, ours, theirs) = (self.side(base, path)?, self.side(ours, path)?, self.side(theirs, path)?);
        let what = format!("the merge of {path}");
        let index = self
            .repository
            .merge_trees(&base, &ours, &theirs, Some(&MergeOptions::new()))
            .map_err(|e| corrupt(&what, &e))?;
        let below = |name: &[u8]| {
            let mut whole = path.to_owned();
            push_name(&mut whole, &String::from_utf8_lossy(name));
            whole
        };

        let mut conflicts = BTreeSet::new();
        for conflict in index.conflicts().map_err(|e| corrupt(&what, &e))? {
            let conflict = conflict.map_err(|e| corrupt(&what, &e))?;
            let sides = [conflict.our, conflict.their, conflict.ancestor];
            conflicts.extend(sides.into_iter().flatten().map(|entry| below(&entry.path)));
        }
        if !conflicts.is_empty() {
            return Ok(Merge::Conflicts(conflicts.into_iter().collect()));
        }

        let mut before = Vec::new();
        self.collect(&ours, path, &mut before)?;
        let mut before: BTreeMap<String, RawEntry> =
            before.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        let mut edits = Edits::new();
        for entry in index.iter() {
            let path = below(&entry.path);
            let old = before.remove(&path);
            if old.as_ref().is_some_and(|old| old.id == entry.id) {
                continue;
            }
            let is_file = entry.mode & 0o170_000 == 0o100_000;
            if !is_file || old.is_some_and(|old| old.kind != EntryKind::File) {
                conflicts.insert(path);
                continue;
            }
            edits.insert(path, Some(self.content(entry.id)?));
        }
        edits.extend(before.into_keys().map(|path| (path, None)));
        if conflicts.is_empty() {
            Ok(Merge::Clean(edits))
        } else {
            Ok(Merge::Conflicts(conflicts.into_iter().collect()))
        }
    }

    fn side(self, at: &Revision, path: &str) -> Result<Tree<'r>> {
        match self.tree_at(at, path)? {
            Some(tree) => Ok(tree),
            None => self.tree(self.empty_tree()?, path),
        }
    }

    fn content(self, blob: Oid) -> Result<Vec<u8>> {
        let blob = self.repository.find_blob(blob).map_err(|e| ObjectError::Corrupt(e.message().to_owned()))?;
        Ok(blob.content().to_vec())
    }
}
