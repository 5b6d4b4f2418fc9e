//! Remotes over HTTPS that ask for something: `git http-backend` behind TLS.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locktender::adapter::git::GitRepository;
use locktender::core::repository::{Repository, RepositoryError};

use super::transport::release_and_record_in;
use super::{Secret, draft};
use crate::support::git::Remote;
use crate::support::git_servers::{Fault, HttpServer, basic};
use crate::support::tls::Authority;

/// A release repository behind TLS, and who signed the server's certificate.
async fn served() -> (Remote, Authority, HttpServer) {
    let remote = Remote::with_files(&[("apps/a/app.yaml", "one\n")]);
    let authority = Authority::new();
    let server = HttpServer::start_tls(remote.base(), authority.server(false)).await;
    (remote, authority, server)
}

#[tokio::test]
async fn with_a_password() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("bot", "hunter2"));
    let secret = Secret::new(&[("username", "bot\n"), ("password", "hunter2\n"), ("ca.crt", &authority.certificate())]);
    let (repository, _directory) = secret.open(&server.url()).await;
    release_and_record_in(&remote, &repository).await;
}

#[tokio::test]
async fn with_a_token_alone() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("x-access-token", "t0ken"));
    let secret = Secret::new(&[("token", "t0ken\n"), ("ca.crt", &authority.certificate())]);
    let (repository, _directory) = secret.open(&server.url()).await;
    release_and_record_in(&remote, &repository).await;
}

#[tokio::test]
async fn with_a_bearer_token() {
    let (remote, authority, server) = served().await;
    server.ask_for("Bearer t0ken".to_owned());
    let secret = Secret::new(&[("bearerToken", "t0ken"), ("ca.crt", &authority.certificate())]);
    let (repository, _directory) = secret.open(&server.url()).await;
    release_and_record_in(&remote, &repository).await;
}

#[tokio::test]
async fn with_a_password_in_the_url() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("bot@example.com", "hunter2"));
    let secret = Secret::new(&[("ca.crt", &authority.certificate())]);
    let url = server.url().replace("https://", "https://bot%40example.com:hunter2@");
    let (repository, _directory) = secret.open(&url).await;
    release_and_record_in(&remote, &repository).await;
}

#[tokio::test]
async fn with_a_clients_certificate() {
    let remote = Remote::with_files(&[("apps/a/app.yaml", "one\n")]);
    let authority = Authority::new();
    let server = HttpServer::start_tls(remote.base(), authority.server(true)).await;
    let client = authority.identity("locktender");
    let (ca, certificate, key) = (authority.certificate(), client.certificate, client.key);
    let secret = Secret::new(&[("ca.crt", &ca), ("tls.crt", &certificate), ("tls.key", &key)]);
    let (repository, _directory) = secret.open(&server.url()).await;
    release_and_record_in(&remote, &repository).await;

    let without = Secret::new(&[("ca.crt", &ca)]);
    let (repository, _directory) = without.open(&server.url()).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not_trusted_and_hears_nothing() {
    let (_remote, _authority, server) = served().await;
    let stranger = Authority::new().certificate();
    for files in [&[("token", "t0ken")][..], &[("token", "t0ken"), ("ca.crt", &stranger)]] {
        let secret = Secret::new(files);
        let (repository, _directory) = secret.open(&server.url()).await;
        let error = repository.fetch().await.unwrap_err();
        assert!(matches!(error, RepositoryError::Untrusted(_)), "{error:?}");
        assert_eq!(repository.fetch().await, Err(error), "it says the same each time");
    }
    assert!(server.requests().is_empty(), "{:?}", server.requests());
}

#[tokio::test]
async fn fault_41_refused_credentials_are_not_tried_again_until_they_change() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("bot", "hunter3"));
    let secret = Secret::new(&[("username", "bot"), ("password", "hunter2"), ("ca.crt", &authority.certificate())]);
    let mirror = tempfile::tempdir().unwrap();
    let mut options = secret.options(&server.url(), mirror.path());
    options.poll = Duration::from_secs(3600);
    let repository = Arc::new(GitRepository::open(options).await.unwrap());
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Denied(text) if text.contains("not asked again for 1m")), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let asked = server.requests().len();
    assert_eq!(server.refused().len(), 1);
    for _ in 0..20 {
        assert_eq!(repository.fetch().await, Err(error.clone()), "it says the same each time");
    }
    assert_eq!(server.requests().len(), asked, "one wrong password is one try");

    // The controller waits for this, and does not poll for an hour.
    let changed = tokio::spawn({
        let repository = Arc::clone(&repository);
        async move { repository.changed().await }
    });
    secret.put("password", "hunter3");
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("new credentials are noticed").unwrap();
    assert_eq!(repository.fetch().await.unwrap().as_str(), remote.rev("main"));
}

#[tokio::test]
async fn fault_41_who_may_only_read_goes_on_reading() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("bot", "hunter2"));
    let secret = Secret::new(&[("username", "bot"), ("password", "hunter2"), ("ca.crt", &authority.certificate())]);
    let (repository, _directory) = secret.open(&server.url()).await;
    let tip = repository.fetch().await.unwrap();
    // A fault comes before the password is asked for: it is accepted, and has no right to push.
    server.set_fault(Some(Fault::ReadOnly));
    let error = repository.push(&tip, &[draft("a", "b")]).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Denied(_)), "{error:?}");
    let pushes = || server.requests().iter().filter(|line| line.contains("receive-pack")).count();
    let before = pushes();
    assert_eq!(repository.push(&tip, &[draft("a", "b")]).await, Err(error));
    assert_eq!(pushes(), before, "the remote is left alone");
    let newer = remote.clone_as("Ada").release("apps/a/app.yaml", "two\n", "release");
    assert_eq!(repository.fetch().await.unwrap().as_str(), newer);
}

#[tokio::test]
async fn fault_46_a_redirect_does_not_take_the_credentials_along() {
    let (remote, authority, server) = served().await;
    let elsewhere = HttpServer::start_tls(remote.base(), authority.server(false)).await;
    server.set_fault(Some(Fault::Redirect(elsewhere.url().replace("/release.git", ""))));
    elsewhere.ask_for(basic("bot", "hunter2"));
    for name in ["password", "bearerToken"] {
        let secret = Secret::new(&[("ca.crt", &authority.certificate()), (name, "hunter2")]);
        let (repository, _directory) = secret.open(&server.url()).await;
        let error = repository.fetch().await.unwrap_err();
        assert!(matches!(&error, RepositoryError::Denied(text) if text.contains("redirect")), "{error:?}");
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

/// Whether any process shows `secret` in its arguments or its environment, and how many speak HTTPS to a remote.
fn shown(secret: &str) -> (bool, usize) {
    let (mut found, mut speaking) = (false, 0);
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            // A process that is gone, or somebody else's, shows nothing.
            let Ok(bytes) = std::fs::read(process.path().join(file)) else { continue };
            found |= bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            let first = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            let helper = std::ffi::OsStr::from_bytes(first).to_string_lossy().contains("remote-https");
            speaking += usize::from(file == "cmdline" && helper);
        }
    }
    (found, speaking)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_87_no_process_shows_a_password_and_no_file_stays() {
    let (_remote, authority, server) = served().await;
    // In two halves, so that this test's own memory and arguments are not what is found.
    let password = format!("{}-{}", "correct-horse", std::process::id());
    server.ask_for(basic("bot", &password));
    let seen = Arc::new(Mutex::new(Vec::new()));
    server.watch({
        let (seen, password) = (Arc::clone(&seen), password.clone());
        move || seen.lock().unwrap().push(shown(&password))
    });
    let in_url = server.url().replace("https://", &format!("https://bot:{password}@"));
    let given = [("username", "bot"), ("password", password.as_str())];
    for (url, files) in [(server.url(), &given[..]), (in_url, &[])] {
        let secret = Secret::new(&[files, &[("ca.crt", &authority.certificate())]].concat());
        let (repository, directory) = secret.open(&url).await;
        let tip = repository.fetch().await.unwrap();
        repository.push(&tip, &[draft("a", &url)]).await.unwrap();
        let left = std::fs::read_dir(directory.path().join("mirror")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("access-")), "{left:?}");
        let config = std::fs::read_to_string(directory.path().join("mirror/mirror.git/config")).unwrap();
        assert!(!config.contains(&password), "{config}");
    }
    let seen = seen.lock().unwrap();
    assert!(
        seen.len() >= 4 && seen.iter().any(|(_, speaking)| *speaking > 0),
        "somebody was there to look at: {seen:?}"
    );
    assert!(seen.iter().all(|(found, _)| !found), "{seen:?}");
}

#[tokio::test]
async fn what_a_killed_controller_left_of_credentials_is_removed() {
    let remote = Remote::with_files(&[("a", "1")]);
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join("mirror/access-killed");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("login"), "password=hunter2").unwrap();
    let _repository = GitRepository::open(super::options(&remote.url(), directory.path())).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn credentials_that_are_not_there_yet_are_told_and_waited_for() {
    let (remote, authority, server) = served().await;
    server.ask_for(basic("bot", "hunter2"));
    let secret = Secret::new(&[]);
    let away = secret.0.path().with_extension("away");
    std::fs::rename(secret.0.path(), &away).unwrap();
    let (repository, _directory) = secret.open(&server.url()).await;
    let error = repository.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Credentials(_)), "{error:?}");
    std::fs::rename(&away, secret.0.path()).unwrap();
    secret.put("username", "bot");
    secret.put("password", "hunter2");
    secret.put("ca.crt", &authority.certificate());
    assert_eq!(repository.fetch().await.unwrap().as_str(), remote.rev("main"));
}
