//! Runs the `git` program for one remote: in an environment of our own, with limits on time and size.
//!
//! Transport goes through git's own program and not through libgit2, because a program can be ended when a remote
//! never answers (libgit2's time limit is a global that only unsafe code may set), runs a local repository's hooks,
//! sends the old tip that we expect with the push, and asks for one branch instead of listing all references.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::url::{RemoteUrl, Transport};
use crate::core::repository::RepositoryError;

/// What the remote is called in commands, so that its URL, which may hold a password, is in no process list.
pub(super) const REMOTE: &str = "release";

/// How much of either output is kept; the rest is read and dropped.
const MOST_OUTPUT: usize = 256 * 1024;

/// The `git` program, set up for one remote.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub url: RemoteUrl,
    /// After this long the program is ended.
    pub time_limit: Duration,
    /// No file that a fetch writes, and so no pack, may have more bytes.
    pub size_limit: u64,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(super) struct Output {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    /// Without passwords, control characters and empty lines.
    pub stderr: String,
}

impl Program {
    /// Runs `git` with `args` in the repository at `directory`.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or was ended because it went over a limit. Its own failures are in the output.
    pub async fn run(&self, directory: &Path, args: &[&str]) -> Result<Output, RepositoryError> {
        self.finish(self.command(directory, Command::new("git")), directory, args).await
    }

    /// As [`run`](Self::run), and no file that is written may be larger than the limit.
    pub async fn run_limited(&self, directory: &Path, args: &[&str]) -> Result<Output, RepositoryError> {
        // The kernel keeps the limit: whatever the remote says about its size, and however little of it git shows.
        let mut shell = Command::new("sh");
        let blocks = self.size_limit.div_ceil(512).to_string();
        shell.args(["-c", "ulimit -f \"$0\" && exec git \"$@\"", &blocks]);
        let output = self.finish(self.command(directory, shell), directory, args).await?;
        if output.code != Some(0) && ["File too large", "died of signal 25"].iter().any(|s| output.stderr.contains(s)) {
            let limit = self.size_limit;
            return Err(RepositoryError::Damaged(format!("{} sends more than the {limit} bytes allowed", self.url)));
        }
        Ok(output)
    }

    async fn finish(&self, mut command: Command, directory: &Path, args: &[&str]) -> Result<Output, RepositoryError> {
        command.arg("--git-dir").arg(directory).args(args);
        let started = command.spawn();
        let mut child = started
            .map_err(|error| RepositoryError::Mirror(format!("the program `git` cannot be started: {error}")))?;
        match tokio::time::timeout(self.time_limit, outcome(&mut child)).await {
            Ok(Ok(mut output)) => {
                output.stderr = self.for_people(&output.stderr);
                Ok(output)
            }
            Ok(Err(error)) => Err(RepositoryError::Mirror(format!("the program `git` cannot be read from: {error}"))),
            Err(_) => {
                // It may have ended by itself meanwhile; then there is nothing to do.
                let _ = child.kill().await;
                let limit = humantime::format_duration(self.time_limit);
                Err(RepositoryError::Unreachable(format!("{} did not answer within {limit}", self.url)))
            }
        }
    }

    /// Gives `command`, which runs git, an environment of ours.
    fn command(&self, directory: &Path, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_") {
                command.env_remove(name);
            }
        }
        command.env_remove("SSH_ASKPASS").env_remove("LANGUAGE").env("LC_ALL", "C");
        // Nothing of the user's or the machine's configuration: it may rewrite URLs, add credentials or run programs.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0");
        let protocol = match self.url.transport() {
            Transport::Local(_) => "file",
            Transport::Git => "git",
            Transport::Http => "http",
        };
        command.env("GIT_ALLOW_PROTOCOL", protocol);
        if protocol != "file" {
            // No `~/.netrc` for a stranger. A local repository's hooks keep their home.
            command.env("HOME", directory);
        }
        let patience = self.time_limit.as_secs().max(1).to_string();
        let settings = [
            (format!("remote.{REMOTE}.url"), self.url.for_git()),
            ("http.followRedirects".to_owned(), "false"),
            ("http.lowSpeedLimit".to_owned(), "1"),
            ("http.lowSpeedTime".to_owned(), patience.as_str()),
            ("core.hooksPath".to_owned(), "/dev/null"),
            ("core.fsync".to_owned(), "none"),
            ("gc.pruneExpire".to_owned(), "never"),
            ("gc.autoDetach".to_owned(), "false"),
        ];
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (n, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        command.current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Keeps the lines that say something, and takes passwords out of them.
    fn for_people(&self, stderr: &str) -> String {
        let raw = self.url.for_git();
        let shown = self.url.to_string();
        let lines = stderr.lines().map(|line| line.replace(raw, &shown).replace(char::is_control, ""));
        lines.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
    }
}

async fn outcome(child: &mut Child) -> std::io::Result<Output> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(collect(stdout), collect(stderr))?;
    Ok(Output { code: child.wait().await?.code(), stdout, stderr })
}

/// Reads everything and keeps the beginning.
async fn collect(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let read = pipe.read(&mut chunk).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        let room = MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}
