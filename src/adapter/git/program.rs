//! Runs the `git` program for one remote: in an environment of our own, with limits on time and size.
//!
//! Transport goes through git's own program and not through libgit2, because a program can be ended when a remote
//! never answers (libgit2's time limit is a global that only unsafe code may set), runs a local repository's hooks,
//! sends the old tip that we expect with the push, and asks for one branch instead of listing all references.

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
    /// A transfer that brings more bytes is ended.
    pub size_limit: u64,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(super) struct Output {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    /// Without progress, passwords and empty lines.
    pub stderr: String,
}

impl Program {
    /// Runs `git` with `args` in the repository at `directory`.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or was ended because it went over a limit. Its own failures are in the output.
    pub async fn run(&self, directory: &std::path::Path, args: &[&str]) -> Result<Output, RepositoryError> {
        let mut command = self.command(directory);
        let mut child = command
            .args(args)
            .spawn()
            .map_err(|error| RepositoryError::Mirror(format!("the program `git` cannot be started: {error}")))?;
        match tokio::time::timeout(self.time_limit, self.outcome(&mut child)).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => {
                end(&mut child).await;
                Err(error)
            }
            Err(_) => {
                end(&mut child).await;
                let limit = humantime::format_duration(self.time_limit);
                Err(RepositoryError::Unreachable(format!("{} did not answer within {limit}", self.url)))
            }
        }
    }

    async fn outcome(&self, child: &mut Child) -> Result<Output, RepositoryError> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = tokio::try_join!(self.collect(stdout), self.collect(stderr))?;
        let status = child.wait().await.map_err(|e| read_failed(&e))?;
        Ok(Output { code: status.code(), stdout, stderr: self.for_people(&stderr) })
    }

    /// Reads everything, keeps the end of it, and watches the progress that git prints.
    async fn collect(&self, pipe: Option<impl AsyncRead + Unpin>) -> Result<String, RepositoryError> {
        let Some(mut pipe) = pipe else { return Ok(String::new()) };
        let mut kept = Vec::new();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let read = pipe.read(&mut chunk).await.map_err(|e| read_failed(&e))?;
            if read == 0 {
                return Ok(String::from_utf8_lossy(&kept).into_owned());
            }
            kept.extend_from_slice(&chunk[..read]);
            let recent = &kept[kept.len().saturating_sub(read + 200)..];
            if transferred(&String::from_utf8_lossy(recent)).is_some_and(|bytes| bytes > self.size_limit) {
                let limit = self.size_limit;
                return Err(RepositoryError::Damaged(format!(
                    "{} sends more than the {limit} bytes allowed",
                    self.url
                )));
            }
            if kept.len() > 2 * MOST_OUTPUT {
                kept.drain(..kept.len() - MOST_OUTPUT);
            }
        }
    }

    fn command(&self, directory: &std::path::Path) -> Command {
        let mut command = Command::new("git");
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
        command.arg("--git-dir").arg(directory).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Keeps the lines that say something, and takes passwords out of them.
    fn for_people(&self, stderr: &str) -> String {
        let raw = self.url.for_git();
        let shown = self.url.to_string();
        let lines = stderr.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty() && !is_progress(line));
        lines.map(|line| line.replace(raw, &shown)).collect::<Vec<_>>().join("\n")
    }
}

async fn end(child: &mut Child) {
    // It may have ended by itself meanwhile; then there is nothing to do.
    let _ = child.kill().await;
}

fn read_failed(error: &std::io::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("the program `git` cannot be read from: {error}"))
}

fn is_progress(line: &str) -> bool {
    let line = line.strip_prefix("remote: ").unwrap_or(line);
    let what = ["Enumerating", "Counting", "Compressing", "Receiving", "Unpacking", "Resolving", "Writing", "Delta"];
    line.starts_with("Total ") || what.iter().any(|what| line.starts_with(what)) && line.contains(':')
}

/// Reads how much has come from git's latest line of progress:
/// `Receiving objects:  50% (2/4), 10.00 MiB | 5.00 MiB/s`.
fn transferred(text: &str) -> Option<u64> {
    let line = text.rsplit(['\n', '\r']).find(|line| line.contains(" | "))?;
    if !(line.starts_with("Receiving objects:") || line.starts_with("Unpacking objects:")) {
        return None;
    }
    let (before, _) = line.split_once(" | ")?;
    let (_, amount) = before.rsplit_once(", ")?;
    let (number, unit) = amount.trim().split_once(' ')?;
    let factor = match unit {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Both only round a limit.
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_transfer_is_read_from_its_progress() {
        let text =
            "Receiving objects:  10% (1/9), 1.50 MiB | 3 MiB/s\rReceiving objects:  50% (4/9), 2.00 GiB | 3 MiB/s\r";
        assert_eq!(transferred(text), Some(2 << 30));
        assert_eq!(transferred("Unpacking objects: 100% (3/3), 228 bytes | 228.00 KiB/s, done.\n"), Some(228));
        assert_eq!(transferred("Receiving objects:  10% (1/9)\r"), None);
        assert_eq!(transferred("remote: Receiving objects: 1% (1/9), 9.00 GiB | a stranger's words\n"), None);
    }
}
