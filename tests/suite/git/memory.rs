//! The simulation's repository: the same answers as the mirror's, without a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;
use locktender::adapter::git::memory::MemoryRepository;
use locktender::adapter::git::objects::Who;
use locktender::core::names::{BlobId, Revision};
use locktender::core::repository::{Change, EntryKind, Merge, RepositoryError};
use proptest::{collection::btree_map, prelude::*};

fn edits(files: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<Vec<u8>>> {
    files.iter().map(|(path, text)| ((*path).to_owned(), text.map(|text| text.as_bytes().to_vec()))).collect()
}

fn commit(repository: &MemoryRepository, parents: &[Revision], files: &[(&str, Option<&str>)]) -> Revision {
    let time = Timestamp::from_second(1_795_000_000).unwrap();
    repository.commit(&edits(files), parents, &Who::default(), "a commit", time).unwrap()
}

#[test]
fn commits_branches_and_reads() {
    let mut repository = MemoryRepository::new().unwrap();
    let first = commit(&repository, &[], &[("apps/a/app.yaml", Some("1"))]);
    let second = commit(&repository, std::slice::from_ref(&first), &[("rollouts/a/0001/journal.yaml", Some("x"))]);
    repository.set_tip("main", Some(second.clone()));
    assert_eq!(repository.tip("main"), Some(&second));
    assert_eq!(repository.tip("other"), None);

    let objects = repository.objects();
    let files = objects.files(&second, "").unwrap();
    assert_eq!(
        files.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(),
        ["apps/a/app.yaml", "rollouts/a/0001/journal.yaml"]
    );
    assert_eq!(&objects.read(&files[0].id, 10).unwrap()[..], b"1");
    assert!(objects.is_ancestor(&first, &second).unwrap());
    assert!(!objects.is_ancestor(&second, &first).unwrap());
    assert_eq!(objects.versions(&second, None, "rollouts", &["journal.yaml"]).unwrap().len(), 1);
    assert_eq!(objects.log(&second, "apps", 10).unwrap().len(), 1);
    let unknown = Revision::new("1".repeat(40));
    let error: RepositoryError = objects.files(&unknown, "").unwrap_err().into();
    assert_eq!(error, RepositoryError::UnknownRevision(unknown));

    let removed = commit(&repository, std::slice::from_ref(&second), &[("apps/a/app.yaml", None)]);
    assert_eq!(repository.objects().directory(&removed, "apps").unwrap(), None, "no empty directories");
    repository.set_tip("main", None);
    assert_eq!(repository.tip("main"), None);
}

#[test]
fn merges() {
    let repository = MemoryRepository::new().unwrap();
    let base = commit(&repository, &[], &[("apps/a/x", Some("1\n2\n3\n4\n5\n6\n7\n"))]);
    let ours = commit(&repository, std::slice::from_ref(&base), &[("apps/a/x", Some("1\n2\n3\n4\n5\n6\nours\n"))]);
    let theirs = commit(&repository, std::slice::from_ref(&base), &[("apps/a/x", Some("theirs\n2\n3\n4\n5\n6\n7\n"))]);
    let clean = repository.objects().merge("apps/a", &base, &ours, &theirs).unwrap();
    assert_eq!(clean, Merge::Clean(edits(&[("apps/a/x", Some("theirs\n2\n3\n4\n5\n6\nours\n"))])));
    let merged = commit(&repository, &[ours.clone(), theirs.clone()], &[("apps/a/x", Some("both\n"))]);
    assert!(repository.objects().is_ancestor(&theirs, &merged).unwrap());
}

#[test]
fn a_file_and_a_directory_take_each_others_place() {
    let repository = MemoryRepository::new().unwrap();
    let first = commit(&repository, &[], &[("a", Some("file")), ("b/c", Some("below"))]);
    let second = commit(&repository, &[first], &[("a", None), ("a/x", Some("below")), ("b", Some("file"))]);
    let paths: Vec<_> = repository.objects().files(&second, "").unwrap().into_iter().map(|e| e.path).collect();
    assert_eq!(paths, ["a/x", "b"]);
    let time = Timestamp::UNIX_EPOCH;
    let both = edits(&[("a", Some("file")), ("a/x", Some("below"))]);
    repository.commit(&both, &[second], &Who::default(), "both", time).unwrap_err();
}

#[test]
fn the_same_commit_has_the_same_id() {
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let repository = MemoryRepository::new().unwrap();
            let first = commit(&repository, &[], &[("a", Some("1"))]);
            commit(&repository, &[first], &[("b/c", Some("2"))])
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_commit_costs_less_than_a_millisecond() {
    let repository = MemoryRepository::new().unwrap();
    let files: Vec<String> = (0..200).map(|n| format!("apps/app-{n}/app.yaml")).collect();
    let all: Vec<_> = files.iter().map(|path| (path.as_str(), Some("x"))).collect();
    let mut tip = commit(&repository, &[], &all);
    let started = Instant::now();
    for n in 0..1_000 {
        tip = commit(&repository, &[tip], &[("rollouts/app-1/0001/journal.yaml", Some(&n.to_string()))]);
    }
    let each = started.elapsed() / 1_000;
    assert!(each.as_micros() < 1_000, "{each:?}");
    let started = Instant::now();
    let versions = repository.objects().versions(&tip, None, "rollouts", &["journal.yaml"]).unwrap();
    assert_eq!(versions.len(), 1_000);
    assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
}

/// Every file of a commit by its path, with the content's id.
fn all(repository: &MemoryRepository, at: &Revision) -> BTreeMap<String, BlobId> {
    let files = repository.objects().files(at, "").unwrap();
    files.into_iter().map(|entry| (entry.path, entry.id)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files and directories take each other's places, and names sort around the slash.
    #[test]
    fn changes_are_what_differs_between_the_listings_of_two_commits(
        first in btree_map("[ab][.-]?(/[ab0](/x)?)?", "[12]", 0..8),
        second in btree_map("[ab][.-]?(/[ab0](/x)?)?", "[12]", 0..8),
    ) {
        let repository = MemoryRepository::new().unwrap();
        let make = |files: &BTreeMap<String, String>| {
            let clashes = |path: &String| files.keys().any(|other| other.starts_with(&format!("{path}/")));
            let files = files.iter().filter(|(path, _)| !clashes(path));
            let files: Vec<_> = files.map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
            commit(&repository, &[], &files)
        };
        let (from, to) = (make(&first), make(&second));
        let (before, after) = (all(&repository, &from), all(&repository, &to));
        let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let expected: Vec<Change> = paths
            .into_iter()
            .filter(|path| before.get(*path) != after.get(*path))
            .map(|path| {
                Change { path: path.clone(), now: after.get(path).map(|id| (id.clone(), EntryKind::File)) }
            })
            .collect();
        let mut changes = repository.objects().changes(&from, &to).unwrap().unwrap();
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        prop_assert_eq!(changes, expected);
        prop_assert_eq!(repository.objects().changes(&Revision::new("0".repeat(40)), &to).unwrap(), None);
    }
}
