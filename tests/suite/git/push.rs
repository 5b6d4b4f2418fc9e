//! A push is compare-and-swap: it lands on the very tip that it was decided on, or not at all.

use jiff::Timestamp;
use locktender::core::names::Revision;
use locktender::core::repository::{Push, Repository, RepositoryError};

use super::{draft, fetched, open, text};
use crate::support::git::Remote;
use crate::support::git_servers::{Daemon, Fault, HttpServer};

fn remote() -> Remote {
    Remote::with_files(&[("apps/a/app.yaml", "one\n"), ("apps/a/run.sh", "run\n"), ("keep/me", "kept\n")])
}

#[tokio::test]
async fn a_commit_touches_only_what_was_edited() {
    let remote = remote();
    let person = remote.clone_as("Ada");
    person.git(&["update-index", "--chmod=+x", "apps/a/run.sh"]);
    person.git(&["commit", "--quiet", "-m", "executable"]);
    person.push();
    let (repository, tip, _directory) = fetched(&remote).await;

    let mut draft = draft("rollouts/a/0001/journal.yaml", "seq: 1\n");
    draft.edits.insert("apps/a/app.yaml".into(), None);
    draft.edits.insert("apps/a/run.sh".into(), Some(b"run faster\n".to_vec()));
    draft.edits.insert("not/there".into(), None);
    draft.edits.insert("keep/me".into(), None);
    let Push::Accepted(commits) = repository.push(&tip, &[draft]).await.unwrap() else { panic!("refused") };
    let tree = remote.git(&["ls-tree", "-r", "--format=%(objectmode) %(path)", "main"]);
    assert_eq!(tree, "100755 apps/a/run.sh\n100644 rollouts/a/0001/journal.yaml");
    let shown = remote.git(&["show", "--no-patch", "--format=%an <%ae> %cn <%ce> %ct %P%n%B", "main"]);
    assert_eq!(
        shown,
        format!(
            "Locktender <locktender@localhost> Locktender <locktender@localhost> 1795000000 {tip}\n\
             set rollouts/a/0001/journal.yaml\n\nLocktender-Event: Test"
        )
    );
    remote.git(&["fsck", "--strict"]);
    assert_eq!(text(&repository, &commits[0], "apps/a/run.sh").await, "run faster\n");
}

#[tokio::test]
async fn a_draft_for_a_person_carries_the_persons_name_and_time() {
    let remote = remote();
    let (repository, tip, _directory) = fetched(&remote).await;
    let mut draft = draft("confirm/beta.yaml", "");
    draft.author = Some(("Ada Lovelace".into(), "ada@example.com".into()));
    draft.time = Timestamp::from_second(1_000).unwrap();
    repository.push(&tip, &[draft]).await.unwrap();
    assert_eq!(remote.git(&["log", "-1", "--format=%an <%ae> %at", "main"]), "Ada Lovelace <ada@example.com> 1000");
}

/// A file for each object costs the disk more than everything else that a push of many records does.
#[tokio::test]
async fn many_files_are_written_as_one() {
    let remote = remote();
    let (repository, tip, directory) = fetched(&remote).await;
    let objects = directory.path().join("mirror/mirror.git/objects");
    let loose = || {
        let folders = std::fs::read_dir(&objects).unwrap().flatten().filter(|entry| entry.file_name().len() == 2);
        folders.map(|folder| std::fs::read_dir(folder.path()).unwrap().count()).sum::<usize>()
    };
    let packs = || std::fs::read_dir(objects.join("pack")).map_or(0, |packs| packs.count());
    let before = (loose(), packs());
    let mut many = draft("rollouts/a/0001/plan.yaml", "first\n");
    for number in 1..200 {
        many.edits.insert(format!("rollouts/app-{number}/0001/plan.yaml"), Some(format!("{number}\n").into_bytes()));
    }
    let next = draft("rollouts/a/0001/plan.yaml", "second\n");
    let Push::Accepted(commits) = repository.push(&tip, &[many, next]).await.unwrap() else { panic!("refused") };
    assert_eq!(loose(), before.0);
    // With its index; git may add one of its own.
    assert!(packs() >= before.1 + 2);
    assert_eq!(text(&repository, &commits[0], "rollouts/a/0001/plan.yaml").await, "first\n");
    assert_eq!(text(&repository, &commits[1], "rollouts/app-199/0001/plan.yaml").await, "199\n");
    assert_eq!(remote.rev("main"), commits[1].as_str());
    remote.git(&["fsck", "--strict"]);
    // What is pushed next is made on what is in the pack.
    let Push::Accepted(last) = repository.push(&commits[1], &[draft("rollouts/a/0001/x", "x")]).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(text(&repository, &last[0], "rollouts/app-7/0001/plan.yaml").await, "7\n");
}

#[tokio::test]
async fn edits_that_git_must_not_have_are_refused_before_anything_is_pushed() {
    let remote = remote();
    let (repository, tip, _directory) = fetched(&remote).await;
    for path in ["../x", "a/../../x", ".git/config", "a/.GIT/x", "", "a//b", "/a", "a\\b", "a\nb"] {
        let error = repository.push(&tip, &[draft(path, "x")]).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Damaged(_)), "{path:?}: {error:?}");
    }
    assert_eq!(remote.rev("main"), tip.as_str());
}

#[tokio::test]
async fn a_push_onto_anything_but_the_remotes_tip_is_rejected_as_moved() {
    let remote = remote();
    let (repository, first, _directory) = fetched(&remote).await;
    let theirs = remote.clone_as("Ada").release("x", "x", "theirs");
    let second = repository.fetch().await.unwrap();
    assert_eq!(second.as_str(), theirs);

    let stale = repository.push(&first, &[draft("y", "y")]).await.unwrap();
    assert!(matches!(stale, Push::Rejected { moved: true, .. }), "{stale:?}");
    // The branch was set back: our commit would be a fast-forward, and still was decided on something else.
    remote.git(&["update-ref", "refs/heads/main", first.as_str()]);
    let forward = repository.push(&second, &[draft("y", "y")]).await.unwrap();
    assert!(matches!(forward, Push::Rejected { moved: true, .. }), "{forward:?}");
    assert_eq!(remote.rev("main"), first.as_str());
    // The branch is gone.
    remote.git(&["update-ref", "-d", "refs/heads/main"]);
    let gone = repository.push(&first, &[draft("y", "y")]).await.unwrap();
    assert!(matches!(gone, Push::Rejected { moved: true, .. }), "{gone:?}");
}

#[tokio::test]
async fn fault_39_a_branch_that_moves_during_the_push_is_neither_merged_nor_forced() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    let daemon = Daemon::start(remote.base());
    let other = remote.git(&["commit-tree", "main^{tree}", "-p", "main", "-m", "somebody was faster"]);
    for url in [remote.url(), server.url(), daemon.url()] {
        let (repository, _directory) = open(&url).await;
        let tip = repository.fetch().await.unwrap();
        // The `update` hook runs after the server compared what the client expects, and before it swaps.
        remote.hook("update", &format!("git update-ref refs/heads/main {other}"));
        let pushed = repository.push(&tip, &[draft("y", "y")]).await.unwrap();
        assert!(matches!(pushed, Push::Rejected { moved: true, .. }), "{url}: {pushed:?}");
        assert_eq!(remote.rev("main"), other, "{url}");
        remote.hook("update", "exit 0");
        remote.git(&["update-ref", "refs/heads/main", tip.as_str()]);
    }
}

#[tokio::test]
async fn a_servers_hook_refuses_with_its_reason() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    remote.hook("pre-receive", "echo 'pull requests only' >&2; exit 1");
    for url in [remote.url(), server.url()] {
        let (repository, _directory) = open(&url).await;
        let tip = repository.fetch().await.unwrap();
        let refused = repository.push(&tip, &[draft("y", "y")]).await.unwrap();
        let Push::Rejected { reason, moved: false } = refused else { panic!("{url}: {refused:?}") };
        assert!(reason.contains("pull requests only"), "{reason}");
        assert_eq!(repository.tip().await.unwrap(), Some(tip));
    }
}

#[tokio::test]
async fn a_branch_that_is_checked_out_where_it_lies_is_not_pushed_to() {
    let remote = remote();
    let person = remote.clone_as("Ada");
    let (repository, _directory) = open(&person.path().display().to_string()).await;
    let tip = repository.fetch().await.unwrap();
    let refused = repository.push(&tip, &[draft("y", "y")]).await.unwrap();
    assert!(
        matches!(&refused, Push::Rejected { reason, moved: false } if reason.contains("checked out")),
        "{refused:?}"
    );
    assert_eq!(person.rev("HEAD"), tip.as_str());
}

#[tokio::test]
async fn fault_40_a_lost_reply_is_an_error_and_the_next_fetch_tells() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    let (repository, _directory) = open(&server.url()).await;
    let tip = repository.fetch().await.unwrap();
    server.set_fault(Some(Fault::LosePushReply));
    let error = repository.push(&tip, &[draft("y", "y")]).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Unreachable(_)), "{error:?}");
    assert_eq!(repository.tip().await.unwrap(), Some(tip.clone()), "nothing is believed without a reply");
    server.set_fault(None);
    let now = repository.fetch().await.unwrap();
    assert_eq!(repository.log(&now, "y", 10).await.unwrap()[0].id, now, "our own commit is there");
    assert_eq!(repository.log(&now, "y", 10).await.unwrap()[0].parents, [tip]);
}

#[tokio::test]
async fn fault_37_what_we_pushed_stays_readable_when_the_branch_is_rewritten() {
    let remote = remote();
    let (repository, tip, directory) = fetched(&remote).await;
    let Push::Accepted(ours) = repository.push(&tip, &[draft("record", "1")]).await.unwrap() else { panic!("refused") };
    let person = remote.clone_as("Mallory");
    person.git(&["reset", "--quiet", "--hard", tip.as_str()]);
    person.write("x", "x");
    person.commit("rewritten");
    person.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
    remote.git(&["reflog", "expire", "--expire=now", "--all"]);
    remote.git(&["gc", "--quiet", "--prune=now"]);

    let now = repository.fetch().await.unwrap();
    assert_eq!(now.as_str(), person.rev("HEAD"));
    assert_eq!(repository.is_ancestor(&ours[0], &now).await, Ok(false));
    assert_eq!(text(&repository, &ours[0], "record").await, "1");
    drop(repository);
    let options = super::options(&remote.url(), directory.path());
    let repository = locktender::adapter::git::GitRepository::open(options).await.unwrap();
    assert_eq!(text(&repository, &ours[0], "record").await, "1", "also after a restart");
}

#[tokio::test]
async fn fault_38_an_older_head_is_fetched_as_it_is_and_can_be_told() {
    let remote = remote();
    let (repository, old, _directory) = fetched(&remote).await;
    remote.clone_as("Ada").release("x", "x", "newer");
    let new = repository.fetch().await.unwrap();
    remote.git(&["update-ref", "refs/heads/main", old.as_str()]);
    assert_eq!(repository.fetch().await, Ok(old.clone()));
    assert_eq!(repository.is_ancestor(&old, &new).await, Ok(true));
    assert_eq!(repository.is_ancestor(&new, &old).await, Ok(false));
    assert_eq!(repository.is_ancestor(&Revision::new("0".repeat(40)), &new).await, Ok(false));
}

#[tokio::test]
async fn no_drafts_are_no_push() {
    let remote = remote();
    let (repository, tip, _directory) = fetched(&remote).await;
    assert_eq!(repository.push(&tip, &[]).await, Ok(Push::Accepted(Vec::new())));
    assert_eq!(remote.rev("main"), tip.as_str());
}

#[tokio::test]
async fn people_who_merge_and_people_who_rebase_get_through_beside_us() {
    let remote = remote();
    let (repository, mut tip, _directory) = fetched(&remote).await;
    let (merges, rebases) = (remote.clone_as("Ada"), remote.clone_as("Grace"));
    for round in 0..3 {
        let record = draft(&format!("record-{round}"), "x");
        while !matches!(repository.push(&tip, std::slice::from_ref(&record)).await.unwrap(), Push::Accepted(_)) {
            tip = repository.fetch().await.unwrap();
        }
        merges.write("ada", &round.to_string()).commit("ada");
        merges.try_push().unwrap_err();
        merges.pull();
        merges.push();
        rebases.write("grace", &round.to_string()).commit("grace");
        assert_eq!(rebases.push_within(3), Ok(2));
    }
    tip = repository.fetch().await.unwrap();
    let files: Vec<_> = repository.directory(&tip, "").await.unwrap().unwrap().into_iter().map(|e| e.path).collect();
    assert_eq!(files, ["ada", "apps", "grace", "keep", "record-0", "record-1", "record-2"]);
    let ours = remote.subjects().into_iter().filter(|subject| subject.starts_with("set record-")).count();
    assert_eq!(ours, 3, "none lost, none doubled");
}
