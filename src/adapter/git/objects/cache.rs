//! Large directories by their id. libgit2 keeps none over 4 KiB, so that finding one path among ten thousand would
//! unpack and verify the directory again for each.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use git2::{ObjectType, Oid, Tree};

use super::{Objects, Result};

/// Directories with fewer entries are left to libgit2.
const LARGE: usize = 64;
/// A few are asked for at a time: applications and ledgers, at HEAD and before it.
const KEPT: usize = 8;

/// What a directory's names stand for: the id, and whether it is a directory.
type Names = HashMap<Vec<u8>, (Oid, bool)>;

/// The large directories that were gone through last.
#[derive(Default)]
pub struct LargeTrees {
    kept: RefCell<VecDeque<(Oid, Rc<Names>)>>,
}

impl LargeTrees {
    fn get(&self, id: Oid) -> Option<Rc<Names>> {
        self.kept.borrow().iter().find(|(known, _)| *known == id).map(|(_, names)| names.clone())
    }

    fn keep(&self, tree: &Tree<'_>) {
        if tree.len() < LARGE {
            return;
        }
        let names = tree.iter().map(|entry| {
            let is_directory = entry.kind() == Some(ObjectType::Tree);
            (entry.name_bytes().to_owned(), (entry.id(), is_directory))
        });
        let mut kept = self.kept.borrow_mut();
        kept.truncate(KEPT - 1);
        kept.push_front((tree.id(), Rc::new(names.collect())));
    }
}

impl Objects<'_> {
    /// Returns the directory `name` in the directory `tree`, which is at `path`.
    pub(super) fn subdirectory(self, tree: Oid, name: &str, path: &str) -> Result<Option<Oid>> {
        let known = self.large.and_then(|large| large.get(tree));
        let found = match known {
            Some(names) => names.get(name.as_bytes()).copied(),
            None => {
                let tree = self.tree(tree, path)?;
                if let Some(large) = self.large {
                    large.keep(&tree);
                }
                tree.get_name(name).map(|entry| (entry.id(), entry.kind() == Some(ObjectType::Tree)))
            }
        };
        Ok(found.filter(|(_, is_directory)| *is_directory).map(|(id, _)| id))
    }
}
