//! The mirror: a private, bare repository on disk with everything that was fetched or pushed.
//!
//! It is a cache. What cannot be read is thrown away and fetched anew. Nothing is ever pruned from it, because the
//! records that we pushed must stay readable when somebody rewrites the branch that had them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::bufread::ZlibDecoder;
use git2::{ErrorCode, Repository, RepositoryInitOptions, RepositoryOpenFlags};

use super::access;
use super::objects::{ObjectError, Objects, Remembered};
use super::remote::TIP;
use crate::core::names::Revision;
use crate::core::repository::RepositoryError;

/// How long to wait for the process that has the mirror to leave.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// An open mirror. Belongs to one process at a time.
pub(super) struct Mirror {
    root: PathBuf,
    repository: Repository,
    remembered: Remembered,
    /// Held as long as the mirror is open.
    _lock: File,
}

impl Mirror {
    /// Opens the mirror in the directory `root`, and makes both where they are missing. What belongs to another
    /// remote than `remote`, or cannot be opened, is thrown away.
    pub fn open(root: &Path, remote: &str) -> Result<Self, RepositoryError> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|e| unusable("make", root, &e))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(|e| unusable("protect", root, &e))?;
        let lock = lock(&root.join("lock"))?;

        let directory = directory(root);
        let label = root.join("remote");
        if fs::read_to_string(&label).ok().as_deref() != Some(remote) {
            remove(&directory)?;
            fs::write(&label, remote).map_err(|e| unusable("write", &label, &e))?;
        }
        tidy(root, &directory);
        remove_broken_objects(&directory);
        let usable = open(&directory).and_then(|repository| tip_of(&repository).map(|_| repository));
        let repository = match usable {
            Ok(repository) => repository,
            Err(_) => {
                remove(&directory)?;
                create(&directory)?;
                open(&directory)?
            }
        };
        Ok(Self { root: root.to_owned(), repository, remembered: Remembered::default(), _lock: lock })
    }

    /// Returns the tip that was fetched last.
    pub fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        tip_of(&self.repository)
    }

    /// Moves the tip after a push, if it still is where the push started.
    pub fn advance(&self, from: &Revision, to: &Revision) {
        let ids = (git2::Oid::from_str(from.as_str()), git2::Oid::from_str(to.as_str()));
        if let (Ok(from), Ok(to)) = ids {
            // Only spares a fetch: where it does not work, the next fetch sets it.
            let _ = self.repository.reference_matching(TIP, to, true, from, "");
        }
    }

    /// Asks the objects. A tip without its commit is damage, and not an unknown revision.
    pub fn ask<T>(&self, question: impl FnOnce(Objects<'_>) -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        question(Objects::of(&self.repository).remembering(&self.remembered)).map_err(|error| match error {
            ObjectError::UnknownRevision(revision) if matches!(self.tip(), Ok(Some(tip)) if tip == revision) => {
                ObjectError::Corrupt(format!("the mirror has lost the commit {revision}"))
            }
            error => error,
        })
    }

    /// Makes an empty mirror beside this one, to be fetched into and then [put in place](Self::replace).
    pub fn prepare_anew(&self) -> Result<PathBuf, RepositoryError> {
        let fresh = self.root.join("fresh.git");
        remove(&fresh)?;
        create(&fresh)?;
        Ok(fresh)
    }

    /// Puts the mirror at `fresh` in this one's place.
    pub fn replace(&mut self, fresh: &Path) -> Result<(), RepositoryError> {
        let directory = directory(&self.root);
        remove(&directory)?;
        fs::rename(fresh, &directory).map_err(|e| unusable("replace", &directory, &e))?;
        self.repository = open(&directory)?;
        self.remembered = Remembered::default();
        Ok(())
    }
}

/// Returns where the bare repository is in a mirror's directory.
pub(super) fn directory(root: &Path) -> PathBuf {
    root.join("mirror.git")
}

/// Returns where `branch` is in the repository at `path` on this machine.
pub(super) fn local_tip(path: &Path, branch: &str) -> Result<Option<Revision>, RepositoryError> {
    let none: [&Path; 0] = [];
    let repository = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none).map_err(|error| {
        let text = format!("{}: {}", path.display(), error.message());
        if error.code() == ErrorCode::Owner {
            RepositoryError::Denied(text)
        } else {
            RepositoryError::Unreachable(text)
        }
    })?;
    match repository.refname_to_id(branch) {
        Ok(id) => Ok(Some(Revision::new(id.to_string()))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(RepositoryError::Unreachable(format!("{}: {}", path.display(), error.message()))),
    }
}

/// Takes the lock, and asks again for a while: a controller that is replaced by another may be just leaving.
fn lock(path: &Path) -> Result<File, RepositoryError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|e| unusable("open", path, &e))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < patience => std::thread::sleep(LOCK_PATIENCE / 50),
            Err(TryLockError::WouldBlock) => {
                return Err(RepositoryError::Mirror(format!("{} is in use by another process", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(unusable("lock", path, &error)),
        }
    }
}

fn create(directory: &Path) -> Result<(), RepositoryError> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).initial_head("mirror");
    let made = Repository::init_opts(directory, &options);
    made.map(drop).map_err(|error| RepositoryError::Mirror(format!("{}: {}", directory.display(), error.message())))
}

fn open(directory: &Path) -> Result<Repository, RepositoryError> {
    let unusable =
        |error: git2::Error| RepositoryError::Mirror(format!("{}: {}", directory.display(), error.message()));
    let none: [&Path; 0] = [];
    let flags = RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::BARE;
    let repository = Repository::open_ext(directory, flags, none).map_err(unusable)?;
    // The user's and the machine's configuration have no say here.
    repository.set_config(&git2::Config::new().map_err(unusable)?).map_err(unusable)?;
    Ok(repository)
}

fn tip_of(repository: &Repository) -> Result<Option<Revision>, RepositoryError> {
    match repository.refname_to_id(TIP) {
        Ok(id) => Ok(Some(Revision::new(id.to_string()))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(RepositoryError::Mirror(format!("{TIP} cannot be read: {}", error.message()))),
    }
}

/// Removes what a killed git left behind: nobody else uses the mirror while we hold its lock.
fn tidy(root: &Path, directory: &Path) {
    let private = fs::read_dir(root).into_iter().flatten().flatten();
    for private in private.filter(|entry| entry.file_name().to_string_lossy().starts_with(access::PREFIX)) {
        // Credentials of a run that nobody ended well. A leftover that stays is as private as it was.
        let _ = fs::remove_dir_all(private.path());
    }
    let leftovers = |folder: PathBuf, is_leftover: fn(&str) -> bool| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| is_leftover(&entry.file_name().to_string_lossy())) {
            // What cannot be removed shows itself when it is in the way.
            let _ = fs::remove_file(entry.path());
        }
    };
    leftovers(directory.join("objects/pack"), |name| name.starts_with("tmp_"));
    leftovers(directory.to_owned(), |name| name.ends_with(".lock"));
    leftovers(directory.join("refs/locktender"), |name| name.ends_with(".lock"));
}

/// Removes the objects that a crash of the machine left cut short, so that they count as missing.
///
/// libgit2 1.9 never returns from reading one: it asks zlib again and again for bytes that are not there. Only files of
/// single objects are looked at; there are at most some thousands before they are packed.
fn remove_broken_objects(directory: &Path) {
    let folders = fs::read_dir(directory.join("objects")).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name().len() == 2) {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let whole = File::open(file.path())
                .and_then(|file| io::copy(&mut ZlibDecoder::new(io::BufReader::new(file)), &mut io::sink()));
            if let Err(error) = whole {
                tracing::warn!(object = %file.path().display(), %error, "removing a damaged object from the mirror");
                // Where even that fails, reading it will tell.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn remove(directory: &Path) -> Result<(), RepositoryError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable("remove", directory, &error)),
        _ => Ok(()),
    }
}

fn unusable(what: &str, path: &Path, error: &std::io::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("cannot {what} {}: {error}", path.display()))
}
