//! The mirror is a cache: private, kept over restarts, and thrown away when it cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use locktender::adapter::git::GitRepository;
use locktender::core::names::Revision;
use locktender::core::repository::{Repository, RepositoryError};

use super::{fetched, options, text};
use crate::support::git::Remote;

/// Every object file of a repository, packs included.
fn object_files(repository: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(repository.join("objects")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn overwrite(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn mirror_of(directory: &Path) -> PathBuf {
    directory.join("mirror/mirror.git")
}

async fn reopen(remote: &Remote, directory: &Path) -> GitRepository {
    GitRepository::open(options(&remote.url(), directory)).await.unwrap()
}

#[tokio::test]
async fn a_restart_finds_the_last_tip_without_the_remote() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, tip, directory) = fetched(&remote).await;
    drop(repository);
    fs::rename(remote.path(), remote.base().join("away")).unwrap();
    let repository = reopen(&remote, directory.path()).await;
    assert_eq!(repository.tip().await, Ok(Some(tip.clone())));
    assert_eq!(text(&repository, &tip, "a").await, "1");
}

#[tokio::test]
async fn the_mirror_is_private_and_belongs_to_one_process() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (_repository, _tip, directory) = fetched(&remote).await;
    let mode = fs::metadata(directory.path().join("mirror")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let second = GitRepository::open(options(&remote.url(), directory.path())).await.err();
    assert!(matches!(&second, Some(RepositoryError::Mirror(text)) if text.contains("in use")), "{second:?}");
}

#[tokio::test]
async fn a_mirror_of_another_remote_is_not_taken_for_this_one() {
    let first = Remote::with_files(&[("a", "1")]);
    let (repository, _tip, directory) = fetched(&first).await;
    drop(repository);
    let second = Remote::with_files(&[("a", "2")]);
    let repository = reopen(&second, directory.path()).await;
    assert_eq!(repository.tip().await, Ok(None));
}

#[tokio::test]
async fn fault_42_a_damaged_mirror_is_thrown_away_and_fetched_anew() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("bytes flipped in every object", |mirror| {
            for file in object_files(mirror) {
                overwrite(&file, |bytes| {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0xff;
                });
            }
        }),
        ("every object cut short", |mirror| {
            for file in object_files(mirror) {
                overwrite(&file, |bytes| bytes.truncate(bytes.len() / 2));
            }
        }),
        ("every object gone", |mirror| fs::remove_dir_all(mirror.join("objects")).unwrap()),
        ("no HEAD", |mirror| fs::remove_file(mirror.join("HEAD")).unwrap()),
        ("an unreadable tip", |mirror| fs::write(mirror.join("refs/locktender/tip"), "nonsense\n").unwrap()),
    ];
    for (what, damage) in damages {
        let remote = Remote::with_files(&[("apps/a/app.yaml", "1"), ("apps/b/app.yaml", "2")]);
        let (repository, tip, directory) = fetched(&remote).await;
        drop(repository);
        damage(&mirror_of(directory.path()));
        let repository = reopen(&remote, directory.path()).await;
        assert_eq!(repository.fetch().await.as_ref(), Ok(&tip), "{what}");
        assert_eq!(text(&repository, &tip, "apps/b/app.yaml").await, "2", "{what}");
    }
}

#[tokio::test]
async fn fault_42_damage_found_while_reading_is_cured_once() {
    let remote = Remote::with_files(&[("apps/a/app.yaml", "1")]);
    let (repository, tip, directory) = fetched(&remote).await;
    drop(repository);
    let blob = remote.rev("main:apps/a/app.yaml");
    let lose =
        |repository: &Path| fs::remove_file(repository.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();

    lose(&mirror_of(directory.path()));
    let repository = reopen(&remote, directory.path()).await;
    assert_eq!(text(&repository, &tip, "apps/a/app.yaml").await, "1");

    // The remote has lost it too: a clear error, and not one more copy for every question.
    drop(repository);
    lose(&mirror_of(directory.path()));
    lose(&remote.path());
    let repository = reopen(&remote, directory.path()).await;
    let error = repository.files(&tip, "apps").await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Damaged(text) if text.contains("apps/a/app.yaml")), "{error:?}");
    assert_eq!(repository.tip().await, Ok(Some(tip)), "the old state stays");
}

#[tokio::test]
async fn fault_42_damage_while_the_remote_is_away_keeps_the_old_state() {
    let remote = Remote::with_files(&[("a", "1"), ("b", "2")]);
    let (repository, tip, directory) = fetched(&remote).await;
    drop(repository);
    let blob = remote.rev("main:a");
    fs::remove_file(mirror_of(directory.path()).join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    fs::rename(remote.path(), remote.base().join("away")).unwrap();
    let repository = reopen(&remote, directory.path()).await;
    let error = repository.directory(&tip, "").await.unwrap_err();
    assert!(matches!(error, RepositoryError::Damaged(_)), "{error:?}");
    assert_eq!(repository.tip().await, Ok(Some(tip.clone())));
    fs::rename(remote.base().join("away"), remote.path()).unwrap();
    assert_eq!(text(&repository, &tip, "a").await, "1", "cured as soon as the remote is back");
}

#[tokio::test]
async fn an_unknown_revision_is_told_and_is_no_damage() {
    let remote = Remote::with_files(&[("a", "1")]);
    let (repository, tip, _directory) = fetched(&remote).await;
    let unknown = Revision::new("0123456789".repeat(4));
    assert_eq!(repository.files(&unknown, "").await, Err(RepositoryError::UnknownRevision(unknown.clone())));
    assert_eq!(
        repository.versions(&tip, Some(&unknown), "", &["a"]).await,
        Err(RepositoryError::UnknownRevision(unknown))
    );
    let nonsense = Revision::new("main");
    assert_eq!(repository.files(&nonsense, "").await, Err(RepositoryError::UnknownRevision(nonsense)));
}

/// Run by the test below in a process of its own, whose environment is hostile.
#[tokio::test]
#[ignore = "needs the environment that the next test gives it"]
async fn in_a_hostile_environment() {
    let url = std::env::var("RELEASE").unwrap();
    let (repository, _directory) = super::open(&url).await;
    let tip = repository.fetch().await.unwrap();
    assert_eq!(text(&repository, &tip, "a").await, "the right one");
    repository.push(&tip, &[super::draft("b", "b")]).await.unwrap();
}

#[test]
fn fault_46_neither_the_environment_nor_the_users_configuration_has_a_say() {
    let right = Remote::with_files(&[("a", "the right one")]);
    let wrong = Remote::with_files(&[("a", "the wrong one")]);
    let home = tempfile::tempdir().unwrap();
    let rewrite = format!("[url \"{}\"]\n\tinsteadOf = {}\n", wrong.url(), right.url());
    fs::write(home.path().join(".gitconfig"), &rewrite).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "git::mirror::in_a_hostile_environment"])
        .env("RELEASE", right.url())
        .env("HOME", home.path())
        .env("GIT_CONFIG_GLOBAL", home.path().join(".gitconfig"))
        .env("GIT_DIR", wrong.path())
        .env("GIT_OBJECT_DIRECTORY", wrong.path().join("objects"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", format!("url.{}.insteadOf", wrong.url()))
        .env("GIT_CONFIG_VALUE_0", right.url())
        .env("GIT_AUTHOR_NAME", "Mallory")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(right.read("b").unwrap(), "b");
    assert_eq!(wrong.read("b"), None);
}
