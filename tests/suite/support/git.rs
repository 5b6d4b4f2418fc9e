//! Repositories made with the real `git` program, as a person would.
//!
//! ```ignore
//! let remote = Remote::with_files(&[("apps/checkout/app.yaml", "...")]);
//! let person = remote.clone_as("Ada");
//! person.write("apps/checkout/app.yaml", "...");
//! person.commit("checkout 2.0");
//! person.push();
//! assert_eq!(remote.rev("main"), person.rev("HEAD"));
//! ```

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Runs `git` in `directory`, without anybody's configuration, as the person `who`; the output without its last line
/// end, or what it complained about.
pub fn try_git(directory: &Path, who: &str, args: &[&str]) -> Result<String, String> {
    git_with_input(directory, who, args, b"")
}

/// As [`try_git`], with `input` on its standard input.
pub fn git_with_input(directory: &Path, who: &str, args: &[&str], input: &[u8]) -> Result<String, String> {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
        command.env_remove(name);
    }
    let email = format!("{}@example.com", who.to_lowercase().replace(' ', "."));
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_EDITOR", "true")
        .env("LC_ALL", "C")
        .env("GIT_AUTHOR_NAME", who)
        .env("GIT_AUTHOR_EMAIL", &email)
        .env("GIT_COMMITTER_NAME", who)
        .env("GIT_COMMITTER_EMAIL", &email);
    command.args(["-c", "init.defaultBranch=main", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"]);
    command.args(args).current_dir(directory);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("git cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("git {}: {}\n{}", args.join(" "), text(&output.stdout), text(&output.stderr)))
    }
}

fn git(directory: &Path, who: &str, args: &[&str]) -> String {
    match try_git(directory, who, args) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// A bare repository with the branch `main`, in a temporary directory, as it lies on a server.
pub struct Remote {
    base: TempDir,
}

impl Remote {
    /// Makes one without commits.
    pub fn empty() -> Self {
        let base = tempfile::tempdir().expect("a temporary directory");
        git(base.path(), "Setup", &["init", "--quiet", "--bare", "release.git"]);
        Self { base }
    }

    /// Makes one whose first commit has these files.
    pub fn with_files(files: &[(&str, &str)]) -> Self {
        let remote = Self::empty();
        let person = remote.clone_as("Setup");
        person.write_all(files);
        person.commit("start");
        person.push();
        remote
    }

    /// The directory that has `release.git`: what a server is told to serve.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The bare repository.
    pub fn path(&self) -> PathBuf {
        self.base.path().join("release.git")
    }

    /// The path, as text: a remote like any other.
    pub fn url(&self) -> String {
        self.path().display().to_string()
    }

    /// Clones it as a person.
    pub fn clone_as(&self, who: &str) -> Clone {
        Clone::of(&self.url(), who)
    }

    /// Runs `git` inside the bare repository and returns its output.
    pub fn git(&self, args: &[&str]) -> String {
        git(&self.path(), "Server", args)
    }

    /// The full id of `name`.
    pub fn rev(&self, name: &str) -> String {
        self.git(&["rev-parse", "--verify", name])
    }

    /// A file's content at the tip of `main`; `None` where there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        try_git(&self.path(), "Server", &["show", &format!("main:{path}")]).ok()
    }

    /// The subjects of `main`'s commits, newest first.
    pub fn subjects(&self) -> Vec<String> {
        self.git(&["log", "--format=%s", "main"]).lines().map(str::to_owned).collect()
    }

    /// The repository, wherever it was moved to: who looks from outside sees it all the same.
    pub fn bare(&self) -> git2::Repository {
        let here = git2::Repository::open_bare(self.path());
        here.or_else(|_| git2::Repository::open_bare(self.base().join("away.git"))).expect("a repository")
    }

    /// A commit's subject.
    pub fn subject(&self, commit: &str) -> String {
        let repository = self.bare();
        let commit = repository.find_commit(commit.parse().expect("an id")).expect("a commit");
        commit.summary().ok().flatten().unwrap_or_default().to_owned()
    }

    /// Installs a server hook, `update` or `pre-receive` say: the body of a shell script.
    pub fn hook(&self, name: &str, script: &str) {
        self.hook_of("sh", name, script);
    }

    fn hook_of(&self, shell: &str, name: &str, script: &str) {
        let path = self.path().join("hooks").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("hooks directory");
        fs::write(&path, format!("#!/bin/{shell}\n{script}\n")).expect("hook");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("hook is executable");
    }

    /// Notes from now on when the branch moved, and where to: before whoever pushed is told.
    pub fn note_pushes(&self) {
        // No program is started for it: pushing is not to be slower for being watched.
        let note = "[ $ref = refs/heads/main ] && echo \"$EPOCHREALTIME $new\" >> pushes";
        let script = format!("[ $1 = committed ] || exit 0\nwhile read -r old new ref; do {note}; done\nexit 0");
        self.hook_of("bash", "reference-transaction", &script);
    }

    /// When the branch moved and to which commit, in order, since [`Remote::note_pushes`].
    pub fn pushes(&self) -> Vec<(jiff::Timestamp, String)> {
        let noted = fs::read_to_string(self.bare().path().join("pushes")).unwrap_or_default();
        let noted = noted.lines().map(|line| {
            let (time, commit) = line.split_once(' ').expect("a time and a commit");
            let microseconds = time.replace(['.', ','], "").parse().expect("microseconds");
            (jiff::Timestamp::from_microsecond(microseconds).expect("a time"), commit.to_owned())
        });
        noted.collect()
    }

    /// Writes an object byte for byte, however wrong it is, and returns its id.
    pub fn raw_object(&self, kind: &str, content: &[u8]) -> String {
        let args = ["hash-object", "-t", kind, "-w", "--stdin", "--literally"];
        git_with_input(&self.path(), "Server", &args, content).expect("an object")
    }

    /// Makes `main` a commit with the tree `tree`, on whatever it was.
    pub fn commit_tree(&self, tree: &str, message: &str) -> String {
        let parent = try_git(&self.path(), "Server", &["rev-parse", "--verify", "--quiet", "main"]);
        let mut args = vec!["commit-tree", tree, "-m", message];
        if let Ok(parent) = &parent {
            args.extend(["-p", parent.as_str()]);
        }
        let commit = self.git(&args);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }

    /// Feeds `git fast-import`: the quickest way to thousands of commits.
    pub fn fast_import(&self, stream: &str) {
        let args = ["fast-import", "--quiet", "--force"];
        git_with_input(&self.path(), "Server", &args, stream.as_bytes()).expect("fast-import");
    }
}

/// A person's clone with a work tree, in a temporary directory.
pub struct Clone {
    directory: TempDir,
    who: String,
}

impl Clone {
    /// Clones `url` as `who`.
    pub fn of(url: &str, who: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        git(directory.path(), who, &["clone", "--quiet", url, "."]);
        Self { directory, who: who.to_owned() }
    }

    /// The work tree.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `git` and returns its output; a failure fails the test.
    pub fn git(&self, args: &[&str]) -> String {
        git(self.path(), &self.who, args)
    }

    /// Runs `git` and returns its output, or what it complained about.
    pub fn try_git(&self, args: &[&str]) -> Result<String, String> {
        try_git(self.path(), &self.who, args)
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, path: &str, content: &str) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
        self
    }

    /// Writes several files.
    pub fn write_all(&self, files: &[(&str, &str)]) -> &Self {
        for (path, content) in files {
            self.write(path, content);
        }
        self
    }

    /// Reads a file of the work tree; `None` where there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path().join(path)).ok()
    }

    /// Replaces `from` by `to` in a file, as `sed` would; it must be there.
    pub fn replace(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = self.read(path).unwrap_or_else(|| panic!("{path} is not in the work tree"));
        assert!(text.contains(from), "{path} has no `{from}`:\n{text}");
        self.write(path, &text.replace(from, to))
    }

    /// Removes a file or a directory.
    pub fn remove(&self, path: &str) -> &Self {
        self.git(&["rm", "-r", "--quiet", "--force", path]);
        self
    }

    /// Commits everything, even nothing, and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.rev("HEAD")
    }

    /// Writes one file, commits it and pushes: the shortest way to a new tip.
    pub fn release(&self, path: &str, content: &str, message: &str) -> String {
        self.write(path, content);
        let commit = self.commit(message);
        self.push();
        commit
    }

    /// Pushes the branch that is checked out; a refusal fails the test.
    pub fn push(&self) {
        self.git(&["push", "--quiet", "origin", "HEAD"]);
    }

    /// Pushes, or says why it was refused.
    pub fn try_push(&self) -> Result<(), String> {
        self.try_git(&["push", "--quiet", "origin", "HEAD"]).map(drop)
    }

    /// Pulls with a merge, as most people's `git pull` does.
    pub fn pull(&self) {
        self.git(&["pull", "--quiet", "--no-rebase", "--no-edit"]);
    }

    /// Pulls and pushes until nobody else was faster, at most `tries` times; returns how many it took.
    pub fn push_within(&self, tries: u32) -> Result<u32, String> {
        for attempt in 1..=tries {
            if self.try_push().is_ok() {
                return Ok(attempt);
            }
            self.try_git(&["pull", "--quiet", "--rebase"])?;
        }
        Err(format!("{} did not get through in {tries} tries", self.who))
    }

    /// The full id of `name`.
    pub fn rev(&self, name: &str) -> String {
        self.git(&["rev-parse", "--verify", name])
    }
}
