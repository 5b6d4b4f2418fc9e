//! Every transport that is supported does the same.

use std::time::Duration;

use locktender::adapter::git::GitRepository;
use locktender::core::names::Revision;
use locktender::core::repository::{Push, Repository, RepositoryError};

use super::{draft, open, options, text};
use crate::support::git::Remote;
use crate::support::git_servers::{Daemon, Fault, HttpServer};

/// Fetches, reads, pushes, is refused when somebody was faster, fetches again.
async fn release_and_record(remote: &Remote, url: &str) {
    let (repository, _directory) = open(url).await;
    release_and_record_in(remote, &repository).await;
}

/// The same in a repository that is open.
pub async fn release_and_record_in(remote: &Remote, repository: &GitRepository) {
    assert_eq!(repository.tip().await, Ok(None));
    let tip = repository.fetch().await.unwrap();
    assert_eq!(tip.as_str(), remote.rev("main"));
    assert_eq!(text(repository, &tip, "apps/a/app.yaml").await, "one\n");

    let pushed = repository.push(&tip, &[draft("rollouts/a/0001/plan.yaml", "plan"), draft("second", "2")]).await;
    let Push::Accepted(commits) = pushed.unwrap() else { panic!("refused") };
    assert_eq!(remote.rev("main"), commits[1].as_str());
    assert_eq!(remote.rev("main~1"), commits[0].as_str());
    assert_eq!(remote.read("rollouts/a/0001/plan.yaml").unwrap(), "plan");
    assert_eq!(repository.tip().await.unwrap().as_ref(), Some(&commits[1]));

    let person = remote.clone_as("Ada");
    let theirs = person.release("apps/a/app.yaml", "two\n", "release");
    let refused = repository.push(&commits[1], &[draft("third", "3")]).await.unwrap();
    assert!(matches!(refused, Push::Rejected { moved: true, .. }), "{refused:?}");
    assert_eq!(remote.rev("main"), theirs);
    let tip = repository.fetch().await.unwrap();
    assert_eq!(tip.as_str(), theirs);
    assert_eq!(text(repository, &tip, "apps/a/app.yaml").await, "two\n");
    assert!(matches!(repository.push(&tip, &[draft("third", "3")]).await.unwrap(), Push::Accepted(_)));
    assert_eq!(remote.read("third").unwrap(), "3");
}

fn remote() -> Remote {
    Remote::with_files(&[("apps/a/app.yaml", "one\n")])
}

#[tokio::test]
async fn over_a_local_path() {
    let remote = remote();
    release_and_record(&remote, &remote.url()).await;
}

#[tokio::test]
async fn over_a_file_url() {
    let remote = remote();
    release_and_record(&remote, &format!("file://{}", remote.url())).await;
}

#[tokio::test]
async fn over_git_daemon() {
    let remote = remote();
    let daemon = Daemon::start(remote.base());
    release_and_record(&remote, &daemon.url()).await;
}

#[tokio::test]
async fn over_http_backend() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    release_and_record(&remote, &server.url()).await;
}

#[tokio::test]
async fn only_the_watched_branch_is_fetched() {
    let remote = remote();
    let person = remote.clone_as("Ada");
    person.git(&["switch", "--quiet", "-c", "huge"]);
    person.release("huge", "huge", "nobody asked for this");
    let (repository, _directory) = open(&format!("file://{}", remote.url())).await;
    repository.fetch().await.unwrap();
    let other = Revision::new(remote.rev("huge"));
    assert_eq!(repository.directory(&other, "").await, Err(RepositoryError::UnknownRevision(other)));
}

#[tokio::test]
async fn a_branch_that_is_not_there_is_named() {
    let remote = Remote::empty();
    let daemon = Daemon::start(remote.base());
    for url in [remote.url(), daemon.url()] {
        let (repository, _directory) = open(&url).await;
        assert_eq!(repository.fetch().await, Err(RepositoryError::NoBranch("main".into())), "{url}");
    }
}

#[tokio::test]
async fn fault_36_an_unreachable_remote_is_told_and_the_old_state_stays() {
    let remote = remote();
    let daemon = Daemon::start(remote.base());
    let (repository, _directory) = open(&daemon.url()).await;
    let tip = repository.fetch().await.unwrap();
    drop(daemon);
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Unreachable(_)), "{error:?}");
    let error = repository.push(&tip, &[draft("a", "b")]).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Unreachable(_)), "{error:?}");
    assert_eq!(repository.tip().await.unwrap().as_ref(), Some(&tip));
    assert_eq!(text(&repository, &tip, "apps/a/app.yaml").await, "one\n");
}

#[tokio::test]
async fn fault_36_a_local_repository_that_went_away_is_unreachable() {
    let remote = remote();
    let (repository, _directory) = open(&remote.url()).await;
    let tip = repository.fetch().await.unwrap();
    std::fs::rename(remote.path(), remote.base().join("away")).unwrap();
    assert!(matches!(repository.fetch().await, Err(RepositoryError::Unreachable(_))));
    std::fs::rename(remote.base().join("away"), remote.path()).unwrap();
    assert_eq!(repository.fetch().await, Ok(tip));
}

#[tokio::test]
async fn fault_41_refused_credentials_are_denied_and_not_unreachable() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    let (repository, _directory) = open(&server.url()).await;
    let tip = repository.fetch().await.unwrap();
    for status in [401, 403] {
        server.set_fault(Some(Fault::Status(status)));
        let before = server.requests().len();
        let error = repository.fetch().await.unwrap_err();
        assert!(matches!(error, RepositoryError::Denied(_)), "{status}: {error:?}");
        let error = repository.push(&tip, &[draft("a", "b")]).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Denied(_)), "{status}: {error:?}");
        assert!(server.requests().len() <= before + 4, "no storm of retries: {:?}", server.requests());
    }
    let (other, _directory) = open(&server.url().replace("release.git", "other.git")).await;
    server.set_fault(None);
    let error = other.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Denied(_)), "not found is how servers hide what is private: {error:?}");
    server.set_fault(Some(Fault::Status(503)));
    assert!(matches!(repository.fetch().await, Err(RepositoryError::Unreachable(_))));
}

#[tokio::test]
async fn fault_41_a_daemon_that_does_not_export_denies() {
    let remote = remote();
    let daemon = Daemon::start(remote.base());
    let (repository, _directory) = open(&daemon.url().replace("release.git", "other.git")).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn fault_46_a_redirect_is_not_followed_and_the_password_is_neither_sent_nor_printed() {
    let remote = remote();
    let elsewhere = HttpServer::start(remote.base()).await;
    let server = HttpServer::start(remote.base()).await;
    let origin = elsewhere.url().replace("/release.git", "");
    server.set_fault(Some(Fault::Redirect(origin)));
    let (repository, _directory) = open(&server.url().replace("http://", "http://user:hunter2@")).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Denied(text) if text.contains("redirect")), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

#[tokio::test]
async fn fault_48_a_remote_that_never_answers_meets_the_time_limit_and_holds_nobody_up() {
    let remote = remote();
    let server = HttpServer::start(remote.base()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(&server.url(), directory.path());
    options.time_limit = Duration::from_secs(2);
    let repository = GitRepository::open(options).await.unwrap();
    let tip = repository.fetch().await.unwrap();

    server.set_fault(Some(Fault::Hang));
    let (fetched, read) = tokio::join!(repository.fetch(), text(&repository, &tip, "apps/a/app.yaml"));
    assert!(matches!(&fetched, Err(RepositoryError::Unreachable(text)) if text.contains("2s")), "{fetched:?}");
    assert_eq!(read, "one\n");
    server.set_fault(None);
    assert_eq!(repository.fetch().await, Ok(tip), "and it goes on when the remote answers again");
}

#[tokio::test]
async fn fault_48_a_transfer_over_the_size_limit_is_ended_and_the_old_state_stays() {
    let remote = remote();
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(&remote.url(), directory.path());
    options.size_limit = 1 << 20;
    let repository = GitRepository::open(options).await.unwrap();
    let tip = repository.fetch().await.unwrap();

    let person = remote.clone_as("Ada");
    let mut noise = 1u64;
    let noise = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{noise:x}")
    });
    person.release("huge", &noise.take(1_000_000).collect::<String>(), "too much");
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.contains("1048576")), "{error:?}");
    assert_eq!(repository.tip().await, Ok(Some(tip)));
}
