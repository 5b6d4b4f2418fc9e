//! Remotes over SSH: a real `sshd`, keys made for the test.

use std::time::{Duration, Instant};

use locktender::adapter::git::GitRepository;
use locktender::core::repository::{Repository, RepositoryError};

use super::transport::release_and_record_in;
use super::{Secret, draft};
use crate::support::git::Remote;
use crate::support::ssh::{SshServer, keygen};

/// A release repository behind `sshd`, and what lets one in.
async fn served() -> (Remote, SshServer, Secret) {
    let remote = Remote::with_files(&[("apps/a/app.yaml", "one\n")]);
    let server = SshServer::start(remote.base()).await;
    let secret = Secret::new(&[("identity", &server.read("user")), ("known_hosts", &server.known_hosts("host.pub"))]);
    (remote, server, secret)
}

#[tokio::test]
async fn with_a_key_and_a_pinned_host() {
    let (remote, server, secret) = served().await;
    let (repository, _directory) = secret.open(&server.url()).await;
    release_and_record_in(&remote, &repository).await;
}

#[tokio::test]
async fn with_a_key_under_the_name_that_kubernetes_has_for_it() {
    let (remote, server, _) = served().await;
    // Copied by hand: the last line end is lost.
    let key = server.read("user");
    let secret = Secret::new(&[("ssh-privatekey", key.trim_end()), ("known_hosts", &server.known_hosts("host.pub"))]);
    let (repository, _directory) = secret.open(&server.url()).await;
    assert_eq!(repository.fetch().await.unwrap().as_str(), remote.rev("main"));
}

#[tokio::test]
async fn fault_47_a_changed_host_key_is_refused_and_named() {
    let (_remote, server, secret) = served().await;
    let (repository, _directory) = secret.open(&server.url()).await;
    let tip = repository.fetch().await.unwrap();
    server.change_host_key();
    for error in [repository.fetch().await.unwrap_err(), repository.push(&tip, &[draft("a", "b")]).await.unwrap_err()] {
        let told = error.to_string();
        assert!(matches!(error, RepositoryError::Untrusted(_)), "{told}");
        assert!(told.contains("shows the host key SHA256:"), "{told}");
        assert!(told.contains("not the one that known_hosts has for it: somebody may be in its place"), "{told}");
    }
    // Its operator says that it is its own: pinned, and believed again.
    secret.put("known_hosts", &server.known_hosts("other-host.pub"));
    assert_eq!(repository.fetch().await, Ok(tip));
}

#[tokio::test]
async fn fault_47_an_unknown_host_is_refused() {
    let (_remote, server, secret) = served().await;
    secret.put("known_hosts", &format!("git.example {}", server.read("host.pub")));
    let (repository, _directory) = secret.open(&server.url()).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Untrusted(text) if text.contains("known_hosts has no key of ssh://")),
        "{error}"
    );
    let nothing = Secret::new(&[("identity", &server.read("user"))]);
    let (repository, _directory) = nothing.open(&server.url()).await;
    let before = server.connections();
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Untrusted(text) if text.contains("have no `known_hosts`")), "{error}");
    assert_eq!(server.connections(), before, "it is not even spoken to");
}

#[tokio::test]
async fn fault_41_a_refused_key_is_not_tried_again_until_it_changes() {
    let (remote, server, secret) = served().await;
    secret.put("identity", &server.read("stranger"));
    let (repository, _directory) = secret.open(&server.url()).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Denied(text) if text.contains("Permission denied (publickey)")),
        "{error}"
    );
    for _ in 0..20 {
        assert_eq!(repository.fetch().await, Err(error.clone()));
    }
    assert_eq!(server.connections(), 1);
    secret.put("identity", &server.read("user"));
    assert_eq!(repository.fetch().await.unwrap().as_str(), remote.rev("main"));
}

#[tokio::test]
async fn a_key_with_a_passphrase_is_told_and_nobody_is_asked_for_it() {
    let (_remote, server, secret) = served().await;
    for form in ["RFC4716", "PEM"] {
        let args = ["-q", "-p", "-m", form, "-N", "passphrase", "-P", "passphrase", "-f"];
        let key = format!("locked-{form}");
        keygen(server.path("user").parent().unwrap(), &key, "ecdsa", "passphrase");
        let output = std::process::Command::new("ssh-keygen").args(args).arg(server.path(&key)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        secret.put("identity", &server.read(&key));
        let (repository, _directory) = secret.open(&server.url()).await;
        let error = repository.fetch().await.unwrap_err();
        assert!(matches!(&error, RepositoryError::Credentials(text) if text.contains("passphrase")), "{form}: {error}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_told() {
    let (_remote, server, secret) = served().await;
    let (repository, _directory) = secret.open(&server.url().replace("release.git", "other.git")).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Denied(text) if text.contains("other.git")), "{error}");
}

#[tokio::test]
async fn fault_48_a_server_that_never_answers_meets_the_time_limit() {
    let (_remote, server, secret) = served().await;
    let directory = tempfile::tempdir().unwrap();
    let mut options = secret.options(&server.url(), directory.path());
    options.time_limit = Duration::from_secs(2);
    let repository = GitRepository::open(options).await.unwrap();
    server.hang(true);
    let fetched = repository.fetch().await;
    assert!(matches!(&fetched, Err(RepositoryError::Unreachable(text)) if text.contains("2s")), "{fetched:?}");
    assert_eq!(server.connections(), 1);
    // By itself `ssh` would wait much longer, and the next poll would start another.
    let patience = Instant::now() + Duration::from_secs(10);
    while speaks_to(server.host_and_port().1) {
        assert!(Instant::now() < patience, "ssh has outlived its git");
        std::thread::yield_now();
    }
}

/// Whether an `ssh` that speaks to this port runs.
fn speaks_to(port: u16) -> bool {
    let argument = format!("\0-p\0{port}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line);
        line.starts_with("ssh\0") && line.contains(&argument)
    })
}
