//! The demo's release repository, and the clone in which it types what a person would type, with the `git` program.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{
    cli::error::Error,
    core::ledger::{Record, journal},
};

/// A bare repository, which is the release repository, and a clone of it.
pub struct Repositories {
    path: PathBuf,
    remote: PathBuf,
}

/// One commit, for people.
pub struct Commit {
    /// Its short id.
    pub id: String,
    /// Who made it.
    pub author: String,
    /// Its first line.
    pub subject: String,
}

impl Repositories {
    /// Makes a bare repository below `directory`, and a clone that has pushed `files` to it in a commit of that subject.
    ///
    /// # Errors
    ///
    /// There is no `git`, or it says no.
    pub async fn make(directory: &Path, files: &[(String, String)], first: &str) -> Result<Self, Error> {
        let clone = Self { path: directory.join("clone"), remote: directory.join("release.git") };
        let (path, remote) = (clone.path.display().to_string(), clone.remote.display().to_string());
        git(directory, &["init", "--quiet", "--bare", "--initial-branch=main", &remote]).await?;
        git(directory, &["clone", "--quiet", &remote, &path]).await?;
        for (path, content) in files {
            let path = clone.path.join(path);
            let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written = written.and_then(|()| std::fs::write(&path, content));
            written.map_err(|error| Error::because(&format!("cannot write {}", path.display()), &error))?;
        }
        // An identity of its own; nothing that a person's own configuration asks of commits.
        let settings = [
            ("user.name", "Ada"),
            ("user.email", "ada@demo.example"),
            ("commit.gpgsign", "false"),
            ("core.hooksPath", "/dev/null"),
            ("pull.rebase", "merges"),
            ("push.default", "simple"),
        ];
        for (name, value) in settings {
            clone.git(&["config", name, value]).await?;
        }
        clone.git(&["symbolic-ref", "HEAD", "refs/heads/main"]).await?;
        clone.git(&["add", "--all"]).await?;
        clone.git(&["commit", "--quiet", "--message", first]).await?;
        clone.git(&["push", "--quiet", "--set-upstream", "origin", "main"]).await?;
        Ok(clone)
    }

    /// Returns where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the bare repository that is the release repository.
    pub fn remote(&self) -> &Path {
        &self.remote
    }

    /// Runs lines as a person's shell would in the clone, until one fails.
    ///
    /// # Errors
    ///
    /// What the line that failed said.
    pub async fn type_in(&self, lines: &[String]) -> Result<(), Error> {
        let mut shell = private("sh", &self.path);
        shell.arg("-ec").arg(lines.join("\n"));
        run(shell, "the commands").await.map(drop)
    }

    /// Returns a file at the tip of the release repository; `None` where there is none.
    pub async fn file(&self, path: &str) -> Option<String> {
        git(&self.remote, &["cat-file", "blob", &format!("main:{path}")]).await.ok()
    }

    /// Reads a journal at the tip of the release repository; empty where there is none yet.
    ///
    /// # Errors
    ///
    /// Its chain is broken.
    pub async fn journal(&self, path: &str) -> Result<Vec<Record>, Error> {
        let Some(text) = self.file(path).await else { return Ok(Vec::new()) };
        journal::read(&text).map_err(|error| Error::because(&format!("cannot read {path}"), &error))
    }

    /// Returns the paths below `path` at the tip of the release repository.
    ///
    /// # Errors
    ///
    /// Git's words.
    pub async fn paths(&self, path: &str) -> Result<Vec<String>, Error> {
        let listed = git(&self.remote, &["ls-tree", "-r", "--name-only", "main", "--", path]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Returns the object id of what `name` is called in the release repository, `main:apps/checkout`.
    ///
    /// # Errors
    ///
    /// Git's words: there is none.
    pub async fn id(&self, name: &str) -> Result<String, Error> {
        git(&self.remote, &["rev-parse", "--verify", "--quiet", name]).await.map(|id| id.trim().to_owned())
    }

    /// Returns the commits of `main` that touched `path` (empty: all), newest first.
    ///
    /// # Errors
    ///
    /// Git's words.
    pub async fn log(&self, path: &str) -> Result<Vec<Commit>, Error> {
        let mut args = vec!["log", "--format=%h%x00%an%x00%s", "main"];
        args.extend(["--", path].into_iter().filter(|_| !path.is_empty()));
        let log = git(&self.remote, &args).await?;
        let commit = |line: &str| {
            let mut parts = line.split('\0').map(str::to_owned);
            Some(Commit { id: parts.next()?, author: parts.next()?, subject: parts.next()? })
        };
        Ok(log.lines().filter_map(commit).collect())
    }

    async fn git(&self, args: &[&str]) -> Result<String, Error> {
        git(&self.path, args).await
    }
}

async fn git(directory: &Path, args: &[&str]) -> Result<String, Error> {
    let mut command = private("git", directory);
    command.args(args);
    run(command, &format!("`git {}`", args.join(" "))).await
}

/// Makes a command that nobody's Git configuration or environment reaches.
fn private(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("GIT_")) {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_EDITOR", "true")
        .env("LC_ALL", "C.UTF-8")
        .current_dir(directory)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command, called: &str) -> Result<String, Error> {
    let output = command.output().await.map_err(|error| {
        let error = Error::because(&format!("cannot run {called}"), &error);
        error.hint("the demo types with the `git` program: is it installed?")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::failed(format!("{called} failed: {}", said.trim())))
}
