//! Trees and histories that somebody made to hurt.

use locktender::core::repository::{EntryKind, Repository, RepositoryError};

use super::{fetched, open};
use crate::support::git::{Clone, Remote};

/// A tree entry, byte for byte.
fn raw_entry(mode: &str, name: &[u8], id: &str) -> Vec<u8> {
    let mut entry = mode.as_bytes().to_vec();
    entry.push(b' ');
    entry.extend_from_slice(name);
    entry.push(0);
    let bytes = id.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    entry.extend(bytes);
    entry
}

/// A remote whose `apps/bad` has the entry `name`, beside a good `apps/fine`.
fn remote_with(name: &[u8]) -> Remote {
    let remote = Remote::with_files(&[("apps/fine/app.yaml", "fine\n")]);
    let blob = remote.raw_object("blob", b"bad\n");
    let bad = remote.raw_object("tree", &raw_entry("100644", name, &blob));
    let fine = remote.rev("main:apps/fine");
    let apps =
        remote.raw_object("tree", &[raw_entry("40000", b"bad", &bad), raw_entry("40000", b"fine", &fine)].concat());
    let root = remote.raw_object("tree", &raw_entry("40000", b"apps", &apps));
    remote.commit_tree(&root, "hostile");
    remote
}

#[tokio::test]
async fn fault_45_a_tree_entry_that_leads_out_is_an_error_that_names_the_path_and_others_go_on() {
    let names: [&[u8]; 7] = [b"..", b".git", b".GIT", b"a\\b", b"a\nb", b"git~1", b"\xff\xfe"];
    for name in names {
        let remote = remote_with(name);
        let (repository, tip, _directory) = fetched(&remote).await;
        for error in [
            repository.directory(&tip, "apps/bad").await.unwrap_err(),
            repository.files(&tip, "apps/bad").await.unwrap_err(),
            repository.files(&tip, "").await.unwrap_err(),
        ] {
            let RepositoryError::Damaged(text) = &error else { panic!("{error:?}") };
            assert!(text.starts_with("apps/bad/"), "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(repository.files(&tip, "apps/fine").await.unwrap().len(), 1);
        assert_eq!(repository.directory(&tip, "apps").await.unwrap().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn fault_43_duplicate_entries_are_an_error_that_names_the_path() {
    let remote = Remote::with_files(&[("a", "a")]);
    let blobs = [remote.raw_object("blob", b"1"), remote.raw_object("blob", b"2")];
    let tree = [raw_entry("100644", b"twice", &blobs[0]), raw_entry("100644", b"twice", &blobs[1])].concat();
    let tree = remote.raw_object("tree", &tree);
    remote.commit_tree(&tree, "twice");
    let (repository, tip, _directory) = fetched(&remote).await;
    let error = repository.directory(&tip, "").await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.starts_with("twice:")), "{error:?}");
}

#[tokio::test]
async fn fault_43_entries_that_are_not_in_gits_order_are_an_error_that_names_the_path() {
    let remote = Remote::with_files(&[("a", "a")]);
    let blob = remote.raw_object("blob", b"1");
    let directory = remote.raw_object("tree", &raw_entry("100644", b"file", &blob));
    // A directory's name is compared as if it ended in `/`.
    let file = |name: &[u8]| raw_entry("100644", name, &blob);
    let wrong = [[file(b"b"), file(b"a")], [raw_entry("40000", b"a", &directory), file(b"a-b")]];
    for tree in wrong {
        let tree = remote.raw_object("tree", &tree.concat());
        remote.commit_tree(&tree, "not in order");
        let (repository, tip, _directory) = fetched(&remote).await;
        let error = repository.directory(&tip, "").await.unwrap_err();
        assert!(matches!(&error, RepositoryError::Damaged(text) if text.starts_with('a')), "{error:?}");
    }
    let right = [file(b"a-b"), raw_entry("40000", b"a", &directory), file(b"a0")].concat();
    let tree = remote.raw_object("tree", &right);
    remote.commit_tree(&tree, "in order");
    let (repository, tip, _directory) = fetched(&remote).await;
    assert_eq!(repository.directory(&tip, "").await.unwrap().unwrap().len(), 3);
}

#[tokio::test]
async fn fault_43_a_tree_that_is_no_tree_is_an_error() {
    let remote = Remote::with_files(&[("a", "a")]);
    let tree = remote.raw_object("tree", b"100644 no end");
    let good = remote.rev("main^{tree}");
    let raw = format!(
        "tree {tree}\nparent {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nbad\n",
        remote.rev("main")
    );
    let commit = remote.raw_object("commit", raw.as_bytes());
    let (repository, tip, _directory) = fetched(&remote).await;
    // Past git's own checks: straight into the reference.
    std::fs::write(remote.path().join("refs/heads/main"), format!("{commit}\n")).unwrap();
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Damaged(_) | RepositoryError::Unreachable(_)), "{error:?}");
    assert_eq!(repository.tip().await.unwrap(), Some(tip.clone()), "the old state stays");
    assert_eq!(repository.directory(&tip, "").await.unwrap().unwrap().len(), 1, "{good}");
}

#[tokio::test]
async fn fault_45_links_and_submodules_are_told_and_never_followed() {
    let remote = Remote::with_files(&[("apps/a/real.yaml", "real\n")]);
    let person = remote.clone_as("Ada");
    std::os::unix::fs::symlink("/etc/passwd", person.path().join("apps/a/link.yaml")).unwrap();
    std::os::unix::fs::symlink("../../apps", person.path().join("loop")).unwrap();
    person.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},apps/a/module", "1".repeat(40))]);
    person.git(&["add", "apps", "loop"]);
    person.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},apps/a/module", "1".repeat(40))]);
    person.git(&["commit", "--quiet", "-m", "links"]);
    person.push();
    let (repository, tip, _directory) = fetched(&remote).await;
    let files = repository.files(&tip, "").await.unwrap();
    let seen: Vec<_> = files.iter().map(|entry| (entry.path.as_str(), entry.kind, entry.size)).collect();
    assert_eq!(
        seen,
        [
            ("apps/a/link.yaml", EntryKind::Link, 0),
            ("apps/a/module", EntryKind::Submodule, 0),
            ("apps/a/real.yaml", EntryKind::File, 5),
            ("loop", EntryKind::Link, 0),
        ]
    );
    assert_eq!(repository.directory(&tip, "loop/a").await, Ok(None));
    assert_eq!(repository.directory(&tip, "apps/a/module").await, Ok(None));
    // A submodule that becomes a directory, in history too.
    person.git(&["rm", "--quiet", "--cached", "apps/a/module"]);
    person.release("apps/a/module/real.yaml", "x", "no longer a module");
    let tip = repository.fetch().await.unwrap();
    let versions = repository.versions(&tip, None, "apps", &["real.yaml"]).await.unwrap();
    assert_eq!(
        versions.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(),
        ["apps/a/real.yaml", "apps/a/module/real.yaml"]
    );
}

#[tokio::test]
async fn fault_48_a_blob_over_the_limit_is_refused_before_it_is_read() {
    let remote = Remote::with_files(&[("big", &"x".repeat(10_000))]);
    let (repository, tip, _directory) = fetched(&remote).await;
    let entry = repository.directory(&tip, "").await.unwrap().unwrap().remove(0);
    assert_eq!(entry.size, 10_000);
    let error = repository.read(&entry.id, 9_999).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.contains("10000 bytes")), "{error:?}");
    assert_eq!(repository.read(&entry.id, 10_000).await.unwrap().len(), 10_000);
}

#[tokio::test]
async fn fault_48_a_directory_with_too_many_files_is_refused_and_others_go_on() {
    let remote = Remote::with_files(&[("apps/fine/app.yaml", "fine\n")]);
    let blob = remote.raw_object("blob", b"x");
    let entry = |n: u32| raw_entry("100644", format!("{n:06}").as_bytes(), &blob);
    let huge = remote.raw_object("tree", &(0..=200_000).flat_map(entry).collect::<Vec<_>>());
    let fine = remote.rev("main:apps/fine");
    let apps = [raw_entry("40000", b"fine", &fine), raw_entry("40000", b"huge", &huge)].concat();
    let apps = remote.raw_object("tree", &apps);
    let root = remote.raw_object("tree", &raw_entry("40000", b"apps", &apps));
    remote.commit_tree(&root, "huge");
    let (repository, tip, _directory) = fetched(&remote).await;
    let error = repository.files(&tip, "apps/huge").await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.starts_with("apps/huge/:")), "{error:?}");
    assert_eq!(repository.files(&tip, "apps/fine").await.unwrap().len(), 1);
}

#[tokio::test]
async fn fault_42_a_shallow_remote_is_refused_clearly() {
    let remote = Remote::with_files(&[("a", "1")]);
    remote.clone_as("Ada").release("a", "2", "second");
    let base = tempfile::tempdir().unwrap();
    let shallow = base.path().join("shallow");
    let url = format!("file://{}", remote.url());
    crate::support::git::try_git(base.path(), "Ada", &["clone", "--quiet", "--bare", "--depth=1", &url, "shallow"])
        .unwrap();
    let (repository, _directory) = open(&shallow.display().to_string()).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.contains("shallow")), "{error:?}");
    assert_eq!(repository.tip().await, Ok(None));
}

#[tokio::test]
async fn fault_51_times_in_the_past_and_the_future_change_no_order() {
    let remote = Remote::with_files(&[("rollouts/j.yaml", "0")]);
    let person: Clone = remote.clone_as("Ada");
    for (n, date) in ["@4102444800 +0000", "@1 +0000", "@2000000000 +1400"].iter().enumerate() {
        person.write("rollouts/j.yaml", &format!("version {n}"));
        person.git(&["add", "--all"]);
        person.git(&["-c", "user.name=A", "commit", "--quiet", "--date", date, "-m", &format!("n{n}")]);
    }
    person.push();
    let (repository, tip, _directory) = fetched(&remote).await;
    let log: Vec<String> =
        repository.log(&tip, "rollouts", 9).await.unwrap().into_iter().map(|c| c.message.trim().to_owned()).collect();
    assert_eq!(log, ["n2", "n1", "n0", "start"]);
    let versions = repository.versions(&tip, None, "rollouts", &["j.yaml"]).await.unwrap();
    assert_eq!(versions.len(), 4);
    assert_eq!(versions.last().unwrap().commit, tip);
}

#[tokio::test]
async fn fault_51_a_committer_time_that_goes_back_changes_no_order_and_no_ancestry() {
    let remote = Remote::empty();
    let mut stream = String::new();
    for (n, time) in [4_102_444_800_u64, 1, 3_000_000_000, 2].iter().enumerate() {
        stream.push_str(&format!("commit refs/heads/main\ncommitter A <a@b> {time} +0000\ndata 2\nn{n}\n"));
        stream.push_str(&format!("M 100644 inline f\ndata 1\n{n}\n"));
    }
    remote.fast_import(&stream);
    let (repository, tip, _directory) = fetched(&remote).await;
    let log = repository.log(&tip, "", 9).await.unwrap();
    assert_eq!(log.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(), ["n3", "n2", "n1", "n0"]);
    for older in &log[1..] {
        assert_eq!(repository.is_ancestor(&older.id, &tip).await, Ok(true));
        assert_eq!(repository.is_ancestor(&tip, &older.id).await, Ok(false));
    }
}
