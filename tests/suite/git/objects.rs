//! Reading: directories, histories with merges, versions of a file, the merge of one directory.

use std::collections::BTreeMap;
use std::time::Instant;

use locktender::core::names::Revision;
use locktender::core::repository::{EntryKind, Merge, Repository};

use super::{blob, fetched};
use crate::support::git::{Clone, Remote};

#[tokio::test]
async fn a_directory_is_one_level_and_files_are_all_of_them() {
    let remote = Remote::with_files(&[("apps/a/app.yaml", "1"), ("apps/a/sub/x.yaml", "22"), ("z", "333")]);
    let (repository, tip, _directory) = fetched(&remote).await;
    let level = |path: &'static str| {
        let (repository, tip) = (&repository, &tip);
        async move {
            let entries = repository.directory(tip, path).await.unwrap()?;
            Some(entries.into_iter().map(|e| (e.path, e.kind, e.size)).collect::<Vec<_>>())
        }
    };
    let directory = |path: &str| (path.to_owned(), EntryKind::Directory, 0);
    let file = |path: &str, size| (path.to_owned(), EntryKind::File, size);
    assert_eq!(level("").await, Some(vec![directory("apps"), file("z", 3)]));
    assert_eq!(level("apps/a").await, Some(vec![file("apps/a/app.yaml", 1), directory("apps/a/sub")]));
    assert_eq!(level("apps/b").await, None);
    assert_eq!(level("z").await, None);
    let files = repository.files(&tip, "apps").await.unwrap();
    assert_eq!(files.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["apps/a/app.yaml", "apps/a/sub/x.yaml"]);
    assert_eq!(repository.files(&tip, "nowhere").await, Ok(Vec::new()));
}

/// The versions of `j.yaml` below `rollouts`, as `path=content`, oldest first.
async fn versions(
    repository: &locktender::adapter::git::GitRepository,
    head: &Revision,
    since: Option<&Revision>,
) -> Vec<String> {
    let mut texts = Vec::new();
    for version in repository.versions(head, since, "rollouts", &["j.yaml"]).await.unwrap() {
        texts.push(format!("{}={}", version.path, blob(repository, &version.blob).await));
    }
    texts
}

#[tokio::test]
async fn versions_see_through_reverts_merges_and_deletions() {
    let remote = Remote::with_files(&[("rollouts/a/j.yaml", "1"), ("apps/a", "x")]);
    let person = remote.clone_as("Ada");
    person.release("rollouts/a/j.yaml", "1 2", "record");
    person.git(&["switch", "--quiet", "-c", "side"]);
    person.write("apps/a", "y");
    person.commit("a release on a branch");
    person.git(&["switch", "--quiet", "main"]);
    person.release("rollouts/a/j.yaml", "1 2 3", "record");
    person.git(&["merge", "--quiet", "--no-edit", "side"]);
    person.push();
    let (repository, merged, _directory) = fetched(&remote).await;
    let a = |text: &str| format!("rollouts/a/j.yaml={text}");
    assert_eq!(versions(&repository, &merged, None).await, [a("1"), a("1 2"), a("1 2 3")], "the merge has no version");

    person.git(&["revert", "--no-edit", "HEAD^1"]);
    person.push();
    let reverted = repository.fetch().await.unwrap();
    assert_eq!(versions(&repository, &reverted, Some(&merged)).await, [a("1 2")], "a revert is a version of its own");

    person.remove("rollouts");
    person.commit("all gone");
    person.push();
    let gone = repository.fetch().await.unwrap();
    assert_eq!(versions(&repository, &gone, Some(&reverted)).await, Vec::<String>::new());
    assert_eq!(versions(&repository, &gone, None).await.len(), 4, "history keeps what HEAD lost");
    assert_eq!(versions(&repository, &gone, Some(&gone)).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_evil_merge_has_a_version_that_no_parent_has() {
    let remote = Remote::with_files(&[("rollouts/a/j.yaml", "base")]);
    let person = remote.clone_as("Ada");
    person.git(&["switch", "--quiet", "-c", "side"]);
    person.write("rollouts/a/j.yaml", "side");
    person.commit("side");
    person.git(&["switch", "--quiet", "main"]);
    person.write("rollouts/a/j.yaml", "main");
    person.commit("main");
    person.try_git(&["merge", "--no-edit", "side"]).unwrap_err();
    person.write("rollouts/a/j.yaml", "both");
    person.commit("merged by hand");
    person.push();
    let (repository, tip, _directory) = fetched(&remote).await;
    let mut seen = versions(&repository, &tip, None).await;
    assert_eq!(seen.remove(0), "rollouts/a/j.yaml=base");
    assert_eq!(seen.pop().unwrap(), "rollouts/a/j.yaml=both");
    seen.sort();
    assert_eq!(seen, ["rollouts/a/j.yaml=main", "rollouts/a/j.yaml=side"]);
}

#[tokio::test]
async fn the_log_of_a_path_has_what_touched_it_newest_first() {
    let remote = Remote::with_files(&[("apps/a/x", "1"), ("apps/b/x", "1")]);
    let person = remote.clone_as("Ada");
    person.release("apps/a/x", "2", "a 2\n\nwith a body");
    person.release("apps/b/x", "2", "b 2");
    person.release("apps/a/y", "1", "a 3");
    person.remove("apps/a");
    person.commit("a gone");
    person.push();
    let (repository, tip, _directory) = fetched(&remote).await;
    let subjects = |path: &'static str, limit| {
        let (repository, tip) = (&repository, &tip);
        async move {
            let log = repository.log(tip, path, limit).await.unwrap();
            log.into_iter().map(|c| c.message.lines().next().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(subjects("apps/a", 10).await, ["a gone", "a 3", "a 2", "start"]);
    assert_eq!(subjects("apps/a", 2).await, ["a gone", "a 3"]);
    assert_eq!(subjects("apps/b/x", 10).await, ["b 2", "start"]);
    assert_eq!(subjects("", 10).await, ["a gone", "a 3", "b 2", "a 2", "start"]);
    assert_eq!(subjects("nowhere", 10).await, Vec::<String>::new());
    let first = &repository.log(&tip, "apps/a", 3).await.unwrap()[2];
    assert_eq!(first.author, "Ada <ada@example.com>");
    assert_eq!(first.message.trim_end(), "a 2\n\nwith a body");
}

#[tokio::test]
async fn three_thousand_commits_are_read_quickly_and_only_once() {
    let remote = Remote::empty();
    let mut stream = String::new();
    for n in 0..3_000 {
        stream.push_str(&format!("commit refs/heads/main\ncommitter A <a@b> {n} +0000\ndata 1\nx\n"));
        if n == 0 {
            for app in 0..500 {
                stream.push_str(&format!("M 100644 inline apps/app-{app}/app.yaml\ndata 1\nx\n"));
                stream.push_str(&format!("M 100644 inline rollouts/app-{app}/0001/plan.yaml\ndata 1\nx\n"));
            }
        }
        let (path, text) = if n % 10 == 0 {
            (format!("rollouts/app-{}/0001/journal.yaml", n % 500), format!("journal {n}"))
        } else {
            (format!("apps/app-{}/app.yaml", n % 500), format!("app {n}"))
        };
        stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()));
    }
    remote.fast_import(&stream);
    let (repository, tip, _directory) = fetched(&remote).await;
    let started = Instant::now();
    let all = repository.versions(&tip, None, "rollouts", &["journal.yaml"]).await.unwrap();
    let whole = started.elapsed();
    assert_eq!(all.len(), 300);
    let since = Revision::new(remote.rev("main~10"));
    let started = Instant::now();
    let last = repository.versions(&tip, Some(&since), "rollouts", &["journal.yaml"]).await.unwrap();
    let step = started.elapsed();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0], all[299]);
    // Generous against a busy machine; typically 100 ms and 1 ms.
    assert!(whole.as_secs() < 10, "{whole:?}");
    assert!(step < whole / 5, "a step costs what is new, not what there is: {step:?} of {whole:?}");
}

/// Three commits: the base, ours and theirs, each made by its own edit on the base.
async fn merged(
    base: &[(&str, &str)],
    ours: for<'a> fn(&'a Clone) -> &'a Clone,
    theirs: for<'a> fn(&'a Clone) -> &'a Clone,
) -> Merge {
    let remote = Remote::with_files(base);
    let person = remote.clone_as("Ada");
    let base = Revision::new(person.rev("HEAD"));
    theirs(&person);
    let theirs = Revision::new(person.commit("theirs"));
    person.git(&["push", "--quiet", "origin", "HEAD:theirs"]);
    person.git(&["reset", "--quiet", "--hard", base.as_str()]);
    ours(&person);
    let ours = Revision::new(person.commit("ours"));
    // Both must be reachable from the watched branch.
    person.git(&["merge", "--quiet", "--no-edit", "-s", "ours", theirs.as_str()]);
    person.push();
    let (repository, _tip, _directory) = fetched(&remote).await;
    repository.merge("apps/a", &base, &ours, &theirs).await.unwrap()
}

const APP: &str = "image: 2\n\n\n\nreplicas: 3\n\n\n\n# end\n";

fn edits(expected: &[(&str, Option<&str>)]) -> Merge {
    let edit = |(path, text): &(&str, Option<&str>)| ((*path).to_owned(), text.map(|text| text.as_bytes().to_vec()));
    Merge::Clean(expected.iter().map(edit).collect::<BTreeMap<_, _>>())
}

#[tokio::test]
async fn a_merge_keeps_everybodys_work_in_the_directory_and_leaves_the_rest_alone() {
    let merge = merged(
        &[("apps/a/d.yaml", APP), ("apps/a/new.yaml", "came with 2\n"), ("apps/b/d.yaml", APP)],
        |person| person.replace("apps/a/d.yaml", "replicas: 3", "replicas: 5").write("apps/a/ours.yaml", "ours\n"),
        |person| {
            person.replace("apps/a/d.yaml", "image: 2", "image: 1").remove("apps/a/new.yaml");
            person.write("apps/a/old.yaml", "was in 1\n").replace("apps/b/d.yaml", "image: 2", "image: 0")
        },
    )
    .await;
    let both = APP.replace("image: 2", "image: 1").replace("replicas: 3", "replicas: 5");
    let expected =
        [("apps/a/d.yaml", Some(both.as_str())), ("apps/a/new.yaml", None), ("apps/a/old.yaml", Some("was in 1\n"))];
    assert_eq!(merge, edits(&expected));
}

#[tokio::test]
async fn a_merge_with_nothing_to_do_is_clean_and_empty() {
    let merge = merged(
        &[("apps/a/d.yaml", APP)],
        |person| person.replace("apps/a/d.yaml", "image: 2", "image: 1"),
        |person| person.replace("apps/a/d.yaml", "image: 2", "image: 1"),
    )
    .await;
    assert_eq!(merge, edits(&[]));
}

#[tokio::test]
async fn a_merge_that_cannot_be_made_names_the_paths() {
    let merge = merged(
        &[("apps/a/d.yaml", APP), ("apps/a/gone.yaml", "x\n")],
        |person| person.replace("apps/a/d.yaml", "image: 2", "image: 3").remove("apps/a/gone.yaml"),
        |person| person.replace("apps/a/d.yaml", "image: 2", "image: 1").write("apps/a/gone.yaml", "changed\n"),
    )
    .await;
    assert_eq!(merge, Merge::Conflicts(vec!["apps/a/d.yaml".into(), "apps/a/gone.yaml".into()]));
}

#[tokio::test]
async fn a_side_without_the_directory_counts_as_empty() {
    let merge = merged(
        &[("apps/a/d.yaml", APP), ("keep", "x")],
        |person| person.write("keep", "y"),
        |person| person.remove("apps/a"),
    )
    .await;
    assert_eq!(merge, edits(&[("apps/a/d.yaml", None)]));
}

#[tokio::test]
async fn a_link_that_the_merge_would_bring_is_a_conflict() {
    let merge = merged(
        &[("apps/a/d.yaml", APP)],
        |person| person.write("keep", "y"),
        |person| {
            std::os::unix::fs::symlink("/etc/passwd", person.path().join("apps/a/link.yaml")).unwrap();
            person
        },
    )
    .await;
    assert_eq!(merge, Merge::Conflicts(vec!["apps/a/link.yaml".into()]));
}
