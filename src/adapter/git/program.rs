//! Runs the `git` program for one remote: in an environment of our own, with limits on time and size.
//!
//! Transport goes through git's own program and not through libgit2, because a program can be ended when a remote
//! never answers (libgit2's time limit is a global that only unsafe code may set), runs a local repository's hooks,
//! sends the old tip that we expect with the push, and asks for one branch instead of listing all references.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::access::{Access, Grant};
use super::url::{RemoteUrl, Transport};
use crate::core::repository::RepositoryError;

/// What the remote is called in commands.
pub(super) const REMOTE: &str = "release";

/// How much of either output is kept; the rest is read and dropped.
const MOST_OUTPUT: usize = 256 * 1024;

/// The `git` program, set up for one remote.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub url: RemoteUrl,
    /// By whose means it is reached.
    pub access: Access,
    /// Where the private files of a run are for as long as it takes.
    pub private: PathBuf,
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
    /// Without secrets, control characters and empty lines.
    pub stderr: String,
}

impl Program {
    /// Makes what a run needs to reach the remote.
    ///
    /// # Errors
    ///
    /// The credentials cannot be used.
    pub fn grant(&self) -> Result<Grant, RepositoryError> {
        self.access.grant(&self.url, &self.private)
    }

    /// Runs `git` with `args` in the repository at `directory`.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or was ended because it went over a limit. Its own failures are in the output.
    pub async fn run(&self, grant: &Grant, directory: &Path, args: &[&str]) -> Result<Output, RepositoryError> {
        self.finish(grant, self.command(grant, directory, Command::new("git")), directory, args).await
    }

    /// As [`run`](Self::run), and no file that is written may be larger than the limit.
    pub async fn run_limited(&self, grant: &Grant, directory: &Path, args: &[&str]) -> Result<Output, RepositoryError> {
        // The kernel keeps the limit: whatever the remote says about its size, and however little of it git shows.
        let mut shell = Command::new("sh");
        let blocks = self.size_limit.div_ceil(512).to_string();
        shell.args(["-c", "ulimit -f \"$0\" && exec git \"$@\"", &blocks]);
        let output = self.finish(grant, self.command(grant, directory, shell), directory, args).await?;
        if output.code != Some(0) && ["File too large", "died of signal 25"].iter().any(|s| output.stderr.contains(s)) {
            let limit = self.size_limit;
            return Err(RepositoryError::Damaged(format!("{} sends more than the {limit} bytes allowed", self.url)));
        }
        Ok(output)
    }

    async fn finish(
        &self,
        grant: &Grant,
        mut command: Command,
        directory: &Path,
        args: &[&str],
    ) -> Result<Output, RepositoryError> {
        command.arg("--git-dir").arg(directory).args(args);
        let started = command.spawn();
        let mut child = started
            .map_err(|error| RepositoryError::Mirror(format!("the program `git` cannot be started: {error}")))?;
        match tokio::time::timeout(self.time_limit, outcome(&mut child)).await {
            Ok(Ok(mut output)) => {
                output.stderr = for_people(&grant.redact(&output.stderr));
                Ok(output)
            }
            Ok(Err(error)) => Err(RepositoryError::Mirror(format!("the program `git` cannot be read from: {error}"))),
            Err(_) => {
                if !grant.person {
                    end_group(&child).await;
                }
                // It may have ended by itself meanwhile; then there is nothing to do.
                let _ = child.kill().await;
                let limit = humantime::format_duration(self.time_limit);
                Err(RepositoryError::Unreachable(format!("{} did not answer within {limit}", self.url)))
            }
        }
    }

    /// Gives `command`, which runs git, an environment of ours.
    fn command(&self, grant: &Grant, directory: &Path, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("GIT_") && !(grant.person && is_persons(&name)) {
                command.env_remove(&*name);
            }
        }
        command.env_remove("SSH_ASKPASS").env_remove("LANGUAGE").env("LC_ALL", "C");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", self.protocols(grant));
        command.envs(grant.environment.iter().map(|(name, value)| (name, value)));
        let patience = self.time_limit.as_secs().max(1).to_string();
        let mut settings = vec![
            (format!("remote.{REMOTE}.url"), self.url.for_git()),
            ("http.lowSpeedLimit".to_owned(), "1"),
            ("http.lowSpeedTime".to_owned(), patience.as_str()),
            ("core.hooksPath".to_owned(), "/dev/null"),
            ("core.fsync".to_owned(), "none"),
            ("color.ui".to_owned(), "false"),
            ("gc.pruneExpire".to_owned(), "never"),
            ("gc.autoDetach".to_owned(), "false"),
        ];
        settings.extend(grant.settings.iter().map(|(name, value)| (name.clone(), value.as_str())));
        if !grant.person {
            // Credentials are for one server; where it sends us on to must be said by whoever runs the controller.
            settings.push(("http.followRedirects".to_owned(), "false"));
        }
        let first = if grant.person { persons_settings() } else { 0 };
        command.env("GIT_CONFIG_COUNT", (first + settings.len()).to_string());
        for (n, (key, value)) in (first..).zip(&settings) {
            command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        if !grant.person {
            // A person's Ctrl-C ends all that they started.
            command.process_group(0);
        }
        command.current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Returns what git may speak, whatever a remote or a setting says.
    fn protocols(&self, grant: &Grant) -> &'static str {
        if grant.person {
            // Their `url.….insteadOf` may lead from one to another; no setting leads to running a program.
            return "file:git:http:https:ssh";
        }
        match self.url.transport() {
            Transport::Local(_) => "file",
            Transport::Git => "git",
            Transport::Http => "http",
            Transport::Https => "https",
            Transport::Ssh => "ssh",
        }
    }
}

/// Whether a variable says how a person reaches remotes, and not which repository a program of theirs works on.
fn is_persons(name: &str) -> bool {
    const KEPT: &[&str] = &["GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"];
    const KINDS: &[&str] = &["GIT_SSH", "GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"];
    KEPT.contains(&name) || KINDS.iter().any(|kind| name.starts_with(kind))
}

/// Returns how many settings a person's environment has: ours come after them.
fn persons_settings() -> usize {
    std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Keeps the lines that say something.
fn for_people(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| line.replace(char::is_control, ""));
    lines.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

/// Ends what a program has started: an `ssh` whose git is gone would wait for its server for as long as that is silent.
async fn end_group(child: &Child) {
    // Nobody has waited for it yet, so the id, which is that of its group too, is nobody else's.
    let Some(id) = child.id() else { return };
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s KILL -- \"-$0\"", &id.to_string()]);
    // What cannot be ended this way ends by itself, later.
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
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
