//! Large directories by their id, and the root directories of commits. libgit2 keeps neither where they are over 4 KiB,
//! and the message of a commit that records many rollouts is: finding one path among ten thousand would unpack and
//! verify both again for each.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use git2::{ObjectType, Oid, Tree};

use super::{Objects, Result};
use crate::core::names::Revision;

/// Directories with fewer entries are left to libgit2.
const LARGE: usize = 64;
/// A few of each are asked for at a time: applications and ledgers, at HEAD and before it.
const KEPT: usize = 8;

/// What a directory's names stand for: the id, and whether it is a directory.
type Names = HashMap<Vec<u8>, (Oid, bool)>;

/// The large directories that were gone through last, and the root directories of the commits that were.
#[derive(Default)]
pub struct Remembered {
    large: RefCell<VecDeque<(Oid, Arc<Names>)>>,
    roots: RefCell<VecDeque<(Revision, Oid)>>,
}

impl Remembered {
    fn get(&self, id: Oid) -> Option<Arc<Names>> {
        self.large.borrow().iter().find(|(known, _)| *known == id).map(|(_, names)| names.clone())
    }

    fn keep(&self, tree: &Tree<'_>) {
        if tree.len() < LARGE {
            return;
        }
        let names = tree.iter().map(|entry| {
            let is_directory = entry.kind() == Some(ObjectType::Tree);
            (entry.name_bytes().to_owned(), (entry.id(), is_directory))
        });
        remember(&self.large, (tree.id(), Arc::new(names.collect())));
    }
}

fn remember<T>(kept: &RefCell<VecDeque<T>>, new: T) {
    let mut kept = kept.borrow_mut();
    kept.truncate(KEPT - 1);
    kept.push_front(new);
}

impl Objects<'_> {
    /// Returns the root directory of the commit `at`.
    pub(super) fn root(self, at: &Revision) -> Result<Oid> {
        let known = self.remembered.map(|remembered| &remembered.roots);
        let find =
            |roots: &VecDeque<(Revision, Oid)>| roots.iter().find(|(known, _)| known == at).map(|(_, root)| *root);
        if let Some(root) = known.and_then(|roots| find(&roots.borrow())) {
            return Ok(root);
        }
        let root = self.commit(at)?.tree_id();
        if let Some(roots) = known {
            remember(roots, (at.clone(), root));
        }
        Ok(root)
    }

    /// Returns the directory `name` in the directory `tree`, which is at `path`.
    pub(super) fn subdirectory(self, tree: Oid, name: &str, path: &str) -> Result<Option<Oid>> {
        let known = self.remembered.and_then(|remembered| remembered.get(tree));
        let found = match known {
            Some(names) => names.get(name.as_bytes()).copied(),
            None => {
                let tree = self.tree(tree, path)?;
                if let Some(remembered) = self.remembered {
                    remembered.keep(&tree);
                }
                tree.get_name(name).map(|entry| (entry.id(), entry.kind() == Some(ObjectType::Tree)))
            }
        };
        Ok(found.filter(|(_, is_directory)| *is_directory).map(|(id, _)| id))
    }
}
