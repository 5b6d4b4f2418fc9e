//! What the history says: ancestry, the versions that a file had, the commits that touched a path.

use std::collections::HashMap;

use git2::{Commit, ObjectType, Oid, Sort, Tree, TreeEntry};
use jiff::Timestamp;

use super::{Objects, Result, corrupt};
use crate::core::names::{BlobId, Revision};
use crate::core::repository::{CommitInfo, EntryKind, FileVersion};

impl<'r> Objects<'r> {
    /// Returns whether `ancestor` is `descendant` or reachable from it. False when either is unknown.
    ///
    /// # Errors
    ///
    /// A commit between the two is damaged.
    pub fn is_ancestor(self, ancestor: &Revision, descendant: &Revision) -> Result<bool> {
        let (Ok(ancestor), Ok(descendant)) = (self.commit(ancestor), self.commit(descendant)) else {
            return Ok(false);
        };
        if ancestor.id() == descendant.id() {
            return Ok(true);
        }
        self.repository
            .graph_descendant_of(descendant.id(), ancestor.id())
            .map_err(|e| corrupt(&format!("the history of {}", descendant.id()), &e))
    }

    /// Returns every version of the files with one of these `names` below the directory `below`, in the commits
    /// reachable from `head` and not from `since`, over all parents, oldest commit first.
    ///
    /// A merge's version counts when none of its parents has it. Trees that a commit shares with a parent are not
    /// opened, so a commit that touched other directories costs two look-ups.
    ///
    /// # Errors
    ///
    /// `head` or `since` is unknown, or an object is damaged.
    pub fn versions(
        self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>> {
        let mut subtrees = Subtrees { objects: self, path: below, known: HashMap::new() };
        let mut search = Search { objects: self, names, commit: head.clone(), found: Vec::new() };
        for id in self.walk(head, since, Sort::TOPOLOGICAL | Sort::REVERSE)? {
            let commit = self.commit_of(id?)?;
            let Some(here) = subtrees.of(&commit)?.filter(|here| here.is_tree) else { continue };
            let parents = subtrees.of_parents(&commit)?;
            if parents.contains(&Some(here)) {
                continue;
            }
            search.commit = Revision::new(commit.id().to_string());
            let parents: Vec<Place> = parents.into_iter().flatten().collect();
            search.descend(here.id, &parents, below)?;
        }
        Ok(search.found)
    }

    /// Returns the commits reachable from `head` that changed something below `path` ("" is everything), newest
    /// first in topological order, at most `limit`.
    ///
    /// A merge counts when it is like none of its parents there.
    ///
    /// # Errors
    ///
    /// `head` is unknown, or an object is damaged.
    pub fn log(self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>> {
        let mut places = Subtrees { objects: self, path, known: HashMap::new() };
        let mut log = Vec::new();
        for id in self.walk(head, None, Sort::TOPOLOGICAL)? {
            if log.len() == limit {
                break;
            }
            let commit = self.commit_of(id?)?;
            let here = places.of(&commit)?;
            let parents = places.of_parents(&commit)?;
            let touched = if parents.is_empty() { here.is_some() } else { !parents.contains(&here) };
            if touched {
                log.push(info(&commit));
            }
        }
        Ok(log)
    }

    fn walk(
        self,
        head: &Revision,
        since: Option<&Revision>,
        order: Sort,
    ) -> Result<impl Iterator<Item = Result<Oid>> + use<'r>> {
        let head = self.commit(head)?.id();
        let what = format!("the history of {head}");
        let since = since.map(|since| self.commit(since)).transpose()?;
        let prepared = (|| {
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(order)?;
            walk.push(head)?;
            if let Some(since) = &since {
                walk.hide(since.id())?;
            }
            Ok(walk)
        })();
        let walk = prepared.map_err(|e: git2::Error| corrupt(&what, &e))?;
        Ok(walk.map(move |id| id.map_err(|e| corrupt(&what, &e))))
    }

    fn commit_of(self, id: Oid) -> Result<Commit<'r>> {
        self.repository.find_commit(id).map_err(|e| corrupt(&format!("commit {id}"), &e))
    }

    /// Finds whatever `path` is below the tree `root`.
    fn place_below(self, root: Oid, path: &str) -> Result<Option<Place>> {
        if path.is_empty() {
            return Ok(Some(Place { id: root, is_tree: true }));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.tree_below(root, parent)?;
        Ok(parent.and_then(|parent| parent.get_name(name).map(|entry| Place::of(&entry))))
    }
}

/// What one path is in one commit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    id: Oid,
    /// A directory may have been a file or a submodule before.
    is_tree: bool,
}

impl Place {
    fn of(entry: &TreeEntry<'_>) -> Self {
        Self { id: entry.id(), is_tree: entry.kind() == Some(ObjectType::Tree) }
    }
}

/// The search for the files with one of these `names` that `commit` brought.
struct Search<'a, 'r> {
    objects: Objects<'r>,
    names: &'a [&'a str],
    commit: Revision,
    found: Vec<FileVersion>,
}

impl Search<'_, '_> {
    /// Looks through the directory `path`, whose tree is `id` and in the commit's parents `parents`: only at what
    /// none of them has.
    fn descend(&mut self, id: Oid, parents: &[Place], path: &str) -> Result<()> {
        let objects = self.objects;
        let tree = objects.tree(id, path)?;
        let parents = parents.iter().filter(|place| place.is_tree);
        let mut parents = parents.map(|place| objects.tree(place.id, path)).collect::<Result<Vec<_>>>()?.into_iter();
        let first = parents.next();
        let others: Vec<Tree<'_>> = parents.collect();
        for difference in objects.differences(first.as_ref(), Some(&tree), path)? {
            let Some(entry) = difference.new else { continue };
            let in_other = |parent: &Tree<'_>| parent.get_name(&difference.name).map(|entry| Place::of(&entry));
            let before = difference.old.iter().map(|old| Place { id: old.id, is_tree: old.is_directory() });
            let before: Vec<Place> = before.chain(others.iter().filter_map(in_other)).collect();
            if before.iter().any(|place| place.id == entry.id) {
                continue;
            }
            if entry.is_directory() {
                self.descend(entry.id, &before, &entry.path)?;
            } else if entry.kind == EntryKind::File && self.names.contains(&difference.name.as_str()) {
                let blob = BlobId::new(entry.id.to_string());
                self.found.push(FileVersion { commit: self.commit.clone(), path: entry.path, blob });
            }
        }
        Ok(())
    }
}

/// What one path is in each commit, asked once a root tree.
struct Subtrees<'a, 'r> {
    objects: Objects<'r>,
    path: &'a str,
    known: HashMap<Oid, Option<Place>>,
}

impl Subtrees<'_, '_> {
    fn of(&mut self, commit: &Commit<'_>) -> Result<Option<Place>> {
        let root = commit.tree_id();
        if let Some(known) = self.known.get(&root) {
            return Ok(*known);
        }
        let place = self.objects.place_below(root, self.path)?;
        self.known.insert(root, place);
        Ok(place)
    }

    fn of_parents(&mut self, commit: &Commit<'_>) -> Result<Vec<Option<Place>>> {
        let objects = self.objects;
        commit.parent_ids().map(|id| self.of(&objects.commit_of(id)?)).collect()
    }
}

fn info(commit: &Commit<'_>) -> CommitInfo {
    let author = commit.author();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CommitInfo {
        id: Revision::new(commit.id().to_string()),
        parents: commit.parent_ids().map(|id| Revision::new(id.to_string())).collect(),
        author: format!("{} <{}>", text(author.name_bytes()), text(author.email_bytes())),
        // A time that no calendar has is a stranger's: it is shown as the epoch and orders nothing.
        time: Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH),
        message: text(commit.message_bytes()),
    }
}
