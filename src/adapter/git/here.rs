//! The repository around a directory, as a person works in it: where it pushes to, who commits, and its working tree
//! with everything that is not committed yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::local::{LocalRepository, unusable};
use crate::core::names::Revision;
use crate::core::repository::RepositoryError;

/// A repository on this machine.
pub struct Here {
    repository: git2::Repository,
}

impl Here {
    /// Finds the repository that `directory` lies in; `None` where there is none.
    pub fn discover(directory: &Path) -> Option<Self> {
        git2::Repository::discover(directory).ok().map(|repository| Self { repository })
    }

    /// Returns the root of its working tree; `None` for a bare one.
    pub fn root(&self) -> Option<&Path> {
        self.repository.workdir()
    }

    /// Returns what a remote would be pointed at: the working tree, or the bare repository itself.
    pub fn location(&self) -> &Path {
        self.root().unwrap_or_else(|| self.repository.path())
    }

    /// Returns the URL of the remote `origin`; a relative path is resolved against the working tree.
    pub fn origin(&self) -> Option<String> {
        let remote = self.repository.find_remote("origin").ok()?;
        let url = remote.url().ok()?.to_owned();
        let relative = !url.contains(':') && Path::new(&url).is_relative();
        Some(if relative { self.location().join(&url).display().to_string() } else { url })
    }

    /// Returns which of its own settings, and not those of the person or the machine, are about reaching remotes. They may
    /// be secret: some tools put a token there.
    pub fn transport_settings(&self) -> Vec<(String, String)> {
        const SECTIONS: &[&str] = &["credential.", "http.", "url.", "ssh."];
        const NAMES: &[&str] = &["core.sshcommand", "core.askpass", "core.gitproxy"];
        let mut settings = Vec::new();
        let Ok(config) = self.repository.config() else { return settings };
        let Ok(entries) = config.entries(None) else { return settings };
        // What cannot be read is not text; git would not take it either.
        let _ = entries.for_each(|entry| {
            let own = matches!(entry.level(), git2::ConfigLevel::Local | git2::ConfigLevel::Worktree);
            let (Ok(name), Ok(value)) = (entry.name(), entry.value()) else { return };
            if own && (SECTIONS.iter().any(|section| name.starts_with(section)) || NAMES.contains(&name)) {
                settings.push((name.to_owned(), value.to_owned()));
            }
        });
        settings
    }

    /// Returns the branch that HEAD's branch follows, without the remote's name.
    pub fn upstream(&self) -> Option<String> {
        let head = self.repository.head().ok()?;
        let merge = self.repository.branch_upstream_merge(head.name().ok()?).ok()?;
        merge.as_str().ok()?.strip_prefix("refs/heads/").map(str::to_owned)
    }

    /// Returns the branch that `origin` itself has checked out: what a clone starts with.
    pub fn origin_head(&self) -> Option<String> {
        let head = self.repository.find_reference("refs/remotes/origin/HEAD").ok()?;
        head.symbolic_target().ok().flatten()?.strip_prefix("refs/remotes/origin/").map(str::to_owned)
    }

    /// Returns the branch that is checked out.
    pub fn branch(&self) -> Option<String> {
        let head = self.repository.head().ok().filter(git2::Reference::is_branch)?;
        head.shorthand().ok().map(str::to_owned)
    }

    /// Resolves what a person calls a commit: `HEAD~1`, `origin/main`, a short id.
    ///
    /// # Errors
    ///
    /// Git's words.
    pub fn resolve(&self, name: &str) -> Result<Revision, RepositoryError> {
        let wrong = |error: git2::Error| RepositoryError::Damaged(format!("`{name}`: {}", error.message()));
        let commit = self.repository.revparse_single(name).and_then(|object| object.peel_to_commit()).map_err(wrong)?;
        Ok(Revision::new(commit.id().to_string()))
    }

    /// Reads it at a commit, in place.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn at(&self, revision: Revision) -> Result<LocalRepository, RepositoryError> {
        LocalRepository::open(self.repository.path(), revision)
    }

    /// Reads its working tree as it is now, whatever git does not ignore, as if it were committed on HEAD. Nothing is
    /// written into the repository. A bare one is read at its HEAD.
    ///
    /// # Errors
    ///
    /// Git cannot read the working tree.
    pub fn as_is(&self) -> Result<LocalRepository, RepositoryError> {
        let Some(root) = self.root() else { return self.at(self.resolve("HEAD")?) };
        let scratch = scratch()?;
        let common = self.repository.commondir().join("objects");
        let alternates = scratch.path().join("objects/info/alternates");
        fs::create_dir_all(scratch.path().join("objects/info")).map_err(|error| io("make", &alternates, &error))?;
        fs::write(&alternates, format!("{}\n", common.display())).map_err(|error| io("write", &alternates, &error))?;
        let copy = scratch.path().join("index");
        if copy_index(&self.repository.path().join("index"), &copy).is_err() {
            // It only spares reading unchanged files.
            let _ = fs::remove_file(&copy);
        }
        let git = Git { repository: self.repository.path(), root, scratch: scratch.path() };
        let tree = git.run(&["add", "--all", "--", "."]).and_then(|_| git.run(&["write-tree"]))?;
        let head = self.resolve("HEAD").ok();
        let commit = git.commit(&tree, head.as_ref())?;
        LocalRepository::open_with(scratch.path().to_path_buf(), commit, Some(scratch))
    }

    /// Returns who commits here: `GIT_AUTHOR_NAME` and `GIT_AUTHOR_EMAIL`, else git's `user.name` and `user.email`.
    pub fn author(&self) -> Option<(String, String)> {
        author(self.repository.config().ok())
    }
}

/// Returns who commits where there is no repository around.
pub fn author_anywhere() -> Option<(String, String)> {
    author(git2::Config::open_default().ok())
}

fn author(config: Option<git2::Config>) -> Option<(String, String)> {
    let value = |variable: &str, name: &str| {
        let set = std::env::var(variable).ok().filter(|text| !text.trim().is_empty());
        set.or_else(|| config.as_ref()?.get_string(name).ok()).filter(|text| !text.trim().is_empty())
    };
    Some((value("GIT_AUTHOR_NAME", "user.name")?, value("GIT_AUTHOR_EMAIL", "user.email")?))
}

/// Reads a directory that is no repository, or only a part of one, as if it were a release repository of its own.
///
/// # Errors
///
/// Git cannot read the directory.
pub fn directory_as_is(root: &Path) -> Result<LocalRepository, RepositoryError> {
    let scratch = scratch()?;
    let around = git2::Repository::discover(root).ok();
    let part = around.as_ref().and_then(|around| around.workdir()).and_then(|top| {
        let (root, top) = (root.canonicalize().ok()?, top.canonicalize().ok()?);
        Some((root.strip_prefix(&top).ok()?.to_str()?.to_owned(), top))
    });
    let (top, prefix) = match &part {
        // The ignore rules of the repository around it count.
        Some((prefix, top)) => (top.as_path(), prefix.as_str()),
        None => (root, ""),
    };
    let git = Git { repository: scratch.path(), root: top, scratch: scratch.path() };
    let wanted = if prefix.is_empty() { "." } else { prefix };
    git.run(&["add", "--all", "--", wanted])?;
    let tree = match prefix {
        "" => git.run(&["write-tree"])?,
        prefix => git.run(&["write-tree", &format!("--prefix={prefix}/")])?,
    };
    let commit = git.commit(&tree, None)?;
    LocalRepository::open_with(scratch.path().to_path_buf(), commit, Some(scratch))
}

/// Copies an index with its time: git reads a file again that changed after that, however little it shows otherwise.
fn copy_index(from: &Path, to: &Path) -> std::io::Result<()> {
    let written = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(written)
}

/// Makes an empty bare repository that goes with its directory.
fn scratch() -> Result<tempfile::TempDir, RepositoryError> {
    let directory = tempfile::Builder::new().prefix("locktender-").tempdir();
    let directory = directory.map_err(|error| RepositoryError::Mirror(format!("no temporary directory: {error}")))?;
    git2::Repository::init_bare(directory.path()).map_err(|error| unusable(directory.path(), &error))?;
    Ok(directory)
}

fn io(verb: &str, path: &Path, error: &std::io::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("cannot {verb} {}: {error}", path.display()))
}

/// The `git` program on a person's working tree, which it must not change: index and objects are elsewhere.
struct Git<'a> {
    repository: &'a Path,
    root: &'a Path,
    scratch: &'a Path,
}

impl Git<'_> {
    fn run(&self, args: &[&str]) -> Result<String, RepositoryError> {
        let mut command = Command::new("git");
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(name);
        }

        command.env("GIT_DIR", self.repository.as_os_str());
        command.env("GIT_WORK_TREE", self.root.as_os_str());
        command.env("GIT_INDEX_FILE", self.scratch.join("index").as_os_str());
        command.env("GIT_OBJECT_DIRECTORY", self.scratch.join("objects").as_os_str());
        command.args(["-c", "core.bare=false", "-c", "core.fsmonitor=false", "-c", "advice.addEmbeddedRepo=false"]);
        command.env("LC_ALL", "C").current_dir(self.root).stdin(Stdio::null()).args(args);
        let failed = |why: String| RepositoryError::Mirror(format!("git cannot read {}: {why}", self.root.display()));
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(failed(text.lines().next().unwrap_or("it failed").trim_start_matches("fatal: ").to_owned()))
        }
    }

    /// Makes a commit of a tree. Whose it is and when does not matter: it goes with the process.
    fn commit(&self, tree: &str, parent: Option<&Revision>) -> Result<Revision, RepositoryError> {
        let mut args = vec!["-c", "user.name=Locktender", "-c", "user.email=locktender@localhost", "commit-tree", tree];
        args.extend(["-m", "the working tree"]);
        if let Some(parent) = parent {
            args.extend(["-p", parent.as_str()]);
        }
        self.run(&args).map(Revision::new)
    }
}

/// Returns where mirrors that only spare fetching again are kept, of this user.
pub fn cache_directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|cache| cache.join("locktender"))
}
