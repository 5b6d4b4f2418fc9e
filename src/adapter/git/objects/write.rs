//! Makes commits by writing only the trees on the paths that change.

use std::collections::BTreeMap;

use git2::{ObjectType, Oid, Signature, Time, Tree};
use jiff::Timestamp;

use super::{ObjectError, Objects, Result, corrupt, name_fault, push_name};
use crate::core::names::Revision;
use crate::core::repository::CommitDraft;

/// The mode of a file that nobody may execute.
const PLAIN_FILE: i32 = 0o100_644;
const DIRECTORY: i32 = 0o040_000;

/// A person or program as Git names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

impl Default for Who {
    /// Returns the controller's own identity.
    fn default() -> Self {
        Self { name: "Locktender".to_owned(), email: "locktender@localhost".to_owned() }
    }
}

/// Edits by path: the new content, or `None` to remove.
pub type Edits = BTreeMap<String, Option<Vec<u8>>>;

impl Objects<'_> {
    /// Makes one commit: the tree of the first of `parents` (without parents, the empty one) with `edits` made.
    ///
    /// A file keeps its mode; a new one is plain. A directory that becomes empty goes. Removing what is not there
    /// changes nothing. A file in place of a directory, or the reverse, replaces it.
    ///
    /// # Errors
    ///
    /// A parent is unknown, a path or the author's name is not one that Git may have, or the objects cannot be written.
    pub fn make_commit(
        self,
        parents: &[Revision],
        edits: &Edits,
        author: &Who,
        message: &str,
        time: Timestamp,
    ) -> Result<Revision> {
        let parents = parents.iter().map(|parent| self.commit(parent)).collect::<Result<Vec<_>>>()?;
        let mut root = Folder::default();
        for (path, content) in edits {
            root.add(path, path, content.as_deref())?;
        }
        let base = parents.first().map(|parent| self.tree(parent.tree_id(), "")).transpose()?;
        let tree = match self.edited(base.as_ref(), &root, "")? {
            Some(tree) => tree,
            None => self.empty_tree()?,
        };
        let tree = self.tree(tree, "")?;
        let who = Signature::new(&author.name, &author.email, &Time::new(time.as_second(), 0)).map_err(|e| {
            ObjectError::Refused(format!("`{} <{}>` cannot sign a commit: {}", author.name, author.email, e.message()))
        })?;
        let parents: Vec<_> = parents.iter().collect();
        let made = self.repository.commit(None, &who, &who, message, &tree, &parents);
        let made = self.wrote(made.map_err(|e| unwritable("a commit", &e))?);
        Ok(Revision::new(made.to_string()))
    }

    /// Makes `drafts` as a chain of commits on `onto`; drafts that name no author are `own`'s.
    ///
    /// # Errors
    ///
    /// As [`Objects::make_commit`].
    pub fn make_chain(self, onto: &Revision, drafts: &[CommitDraft], own: &Who) -> Result<Vec<Revision>> {
        let mut commits = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let author = match &draft.author {
                Some((name, email)) => &Who { name: name.clone(), email: email.clone() },
                None => own,
            };
            let parent = commits.last().unwrap_or(onto).clone();
            commits.push(self.make_commit(&[parent], &draft.edits, author, &draft.message, draft.time)?);
        }
        Ok(commits)
    }

    /// Returns the id of the tree without entries.
    pub(super) fn empty_tree(self) -> Result<Oid> {
        let builder = self.repository.treebuilder(None).map_err(|e| unwritable("a tree", &e))?;
        builder.write().map(|id| self.wrote(id)).map_err(|e| unwritable("a tree", &e))
    }

    fn wrote(self, id: Oid) -> Oid {
        if let Some(written) = self.written {
            written.borrow_mut().push(id);
        }
        id
    }

    /// Writes the tree that `base` becomes by `folder`'s edits; `None` when nothing is left in it.
    fn edited(self, base: Option<&Tree<'_>>, folder: &Folder<'_>, path: &str) -> Result<Option<Oid>> {
        let mut builder = self.repository.treebuilder(base).map_err(|e| corrupt(path, &e))?;
        for (name, edit) in &folder.edits {
            let mut here = path.to_owned();
            push_name(&mut here, name);
            let before = base.and_then(|base| base.get_name(name));
            let new = match edit {
                Edit::Set(content) => {
                    let blob = self.wrote(self.repository.blob(content).map_err(|e| unwritable(&here, &e))?);
                    let file = before.as_ref().filter(|entry| entry.filemode() & 0o170_000 == 0o100_000);
                    Some((blob, file.map_or(PLAIN_FILE, git2::TreeEntry::filemode)))
                }
                Edit::Remove => None,
                Edit::Inside(below) => {
                    let directory = before.as_ref().filter(|entry| entry.kind() == Some(ObjectType::Tree));
                    if directory.is_none() && below.only_removes() {
                        continue;
                    }
                    let subtree = directory.map(|entry| self.tree(entry.id(), &here)).transpose()?;
                    self.edited(subtree.as_ref(), below, &here)?.map(|tree| (tree, DIRECTORY))
                }
            };
            match new {
                Some((id, mode)) => {
                    builder.insert(name.as_bytes(), id, mode).map_err(|e| unwritable(&here, &e))?;
                }
                None if before.is_some() => builder.remove(name.as_bytes()).map_err(|e| unwritable(&here, &e))?,
                None => {}
            }
        }
        if builder.is_empty() {
            return Ok(None);
        }
        builder.write().map(|id| Some(self.wrote(id))).map_err(|e| unwritable(path, &e))
    }
}

/// The edits inside one directory, by name.
#[derive(Default)]
struct Folder<'a> {
    edits: BTreeMap<&'a str, Edit<'a>>,
}

enum Edit<'a> {
    Set(&'a [u8]),
    Remove,
    Inside(Folder<'a>),
}

impl<'a> Folder<'a> {
    /// Sorts one edit in; `rest` is what is left of `path` from here on.
    fn add(&mut self, path: &str, rest: &'a str, content: Option<&'a [u8]>) -> Result<()> {
        let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
        if let Some(fault) = name_fault(name.as_bytes()) {
            return Err(ObjectError::Refused(format!(
                "`{}`: a commit may not have an entry {fault}",
                path.escape_debug()
            )));
        }
        let clash = || ObjectError::Refused(format!("`{path}` is edited both as a file and as a directory"));
        let Some(below) = below else {
            let edit = content.map_or(Edit::Remove, Edit::Set);
            return if self.edits.insert(name, edit).is_some() { Err(clash()) } else { Ok(()) };
        };
        match self.edits.entry(name).or_insert_with(|| Edit::Inside(Self::default())) {
            Edit::Inside(folder) => folder.add(path, below, content),
            // A file goes and a directory of its name comes: the directory replaces it anyway.
            edit @ Edit::Remove => {
                let mut folder = Self::default();
                folder.add(path, below, content)?;
                *edit = Edit::Inside(folder);
                Ok(())
            }
            Edit::Set(_) if content.is_none() => Ok(()),
            Edit::Set(_) => Err(clash()),
        }
    }

    fn only_removes(&self) -> bool {
        self.edits.values().all(|edit| match edit {
            Edit::Set(_) => false,
            Edit::Remove => true,
            Edit::Inside(folder) => folder.only_removes(),
        })
    }
}

pub(super) fn unwritable(what: &str, error: &git2::Error) -> ObjectError {
    ObjectError::Unwritable(format!("{what} cannot be written: {}", error.message()))
}
