//! A new commit is noticed: by an event for a local repository, by asking for others.

use std::time::Duration;

use locktender::adapter::git::GitRepository;
use locktender::core::repository::{Push, Repository};

use super::{draft, fetched, open, options};
use crate::support::git::Remote;
use crate::support::git_servers::{Daemon, HttpServer};

/// Far more than a notice takes, and far less than the default poll.
const SOON: Duration = Duration::from_secs(10);

async fn noticed(repository: &GitRepository) -> bool {
    tokio::time::timeout(SOON, repository.changed()).await.is_ok()
}

#[tokio::test]
async fn a_commit_in_a_local_repository_is_noticed_at_once() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, _tip, _directory) = fetched(&remote).await;
    let person = remote.clone_as("Ada");
    for round in ["2", "3"] {
        let (noticed, commit) = tokio::join!(noticed(&repository), async { person.release("a", round, "next") });
        assert!(noticed);
        assert_eq!(repository.fetch().await.unwrap().as_str(), commit);
    }
    // By packing, which removes the reference's file.
    let (noticed, commit) = tokio::join!(noticed(&repository), async {
        let commit = person.release("a", "4", "packed");
        remote.git(&["pack-refs", "--all"]);
        commit
    });
    assert!(noticed);
    assert_eq!(repository.fetch().await.unwrap().as_str(), commit);
}

#[tokio::test]
async fn a_commit_from_before_the_question_is_noticed_too() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, _tip, _directory) = fetched(&remote).await;
    remote.clone_as("Ada").release("a", "2", "before anybody waits");
    assert!(noticed(&repository).await);
}

#[tokio::test]
async fn our_own_push_and_other_branches_are_no_news() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, tip, _directory) = fetched(&remote).await;
    let Push::Accepted(_) = repository.push(&tip, &[draft("r", "1")]).await.unwrap() else { panic!("refused") };
    remote.git(&["branch", "other", tip.as_str()]);
    let quiet = tokio::time::timeout(Duration::from_millis(300), repository.changed()).await;
    assert!(quiet.is_err());
}

#[tokio::test]
async fn a_tip_that_is_not_fetched_is_told_once_and_then_at_the_pace_of_polling() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, _tip, _directory) = fetched(&remote).await;
    remote.clone_as("Ada").release("a", "2", "never fetched");
    assert!(noticed(&repository).await);
    let again = tokio::time::timeout(Duration::from_millis(300), repository.changed()).await;
    assert!(again.is_err(), "no hot loop while a fetch fails");
}

#[tokio::test]
async fn a_remote_that_was_away_is_news_when_it_is_back_where_it_was() {
    let remote = Remote::with_files(&[("a", "1")]);
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(&remote.url(), directory.path());
    options.poll = Duration::from_millis(100);
    let repository = GitRepository::open(options).await.unwrap();
    let tip = repository.fetch().await.unwrap();
    let away = remote.base().join("away.git");
    std::fs::rename(remote.path(), &away).unwrap();
    assert!(noticed(&repository).await, "it is away");
    std::fs::rename(&away, remote.path()).unwrap();
    assert!(noticed(&repository).await, "it is back");
    assert_eq!(repository.fetch().await.unwrap(), tip);
    let quiet = tokio::time::timeout(Duration::from_millis(500), repository.changed()).await;
    assert!(quiet.is_err(), "which is told once");
}

#[tokio::test]
async fn other_remotes_are_asked() {
    let remote = Remote::with_files(&[("a", "1")]);
    let daemon = Daemon::start(remote.base());
    let server = HttpServer::start(remote.base()).await;
    let person = remote.clone_as("Ada");
    for (round, url) in [daemon.url(), server.url()].iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(url, directory.path());
        options.poll = Duration::from_millis(100);
        let repository = GitRepository::open(options).await.unwrap();
        repository.fetch().await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(500), repository.changed()).await;
        assert!(quiet.is_err(), "asked several times, and nothing is new: {url}");
        let (noticed, commit) =
            tokio::join!(noticed(&repository), async { person.release("a", &format!("r{round}"), "next") });
        assert!(noticed, "{url}");
        assert_eq!(repository.fetch().await.unwrap().as_str(), commit);
    }
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, _directory) = open(&remote.url()).await;
    repository.fetch().await.unwrap();
    let person = remote.clone_as("Ada");
    let _ = tokio::time::timeout(Duration::from_millis(1), repository.changed()).await;
    person.release("a", "2", "while nobody waits");
    let at_once = tokio::time::timeout(Duration::ZERO, repository.changed()).await.is_ok();
    assert!(at_once || noticed(&repository).await);
}

#[tokio::test]
async fn fault_50_two_commits_between_two_looks_are_one_notice_and_the_newest_tip() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, _tip, _directory) = fetched(&remote).await;
    let person = remote.clone_as("Ada");
    person.release("a", "2", "second");
    let newest = person.release("a", "3", "third");
    assert!(noticed(&repository).await);
    assert_eq!(repository.fetch().await.unwrap().as_str(), newest);
    assert!(tokio::time::timeout(Duration::from_millis(200), repository.changed()).await.is_err());
}
