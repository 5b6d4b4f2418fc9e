//! A HAProxy whose configuration file is Locktender's.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::Command;

use super::client;
use crate::core::{ask::Unanswered, traffic::haproxy::Runtime};

/// How long HAProxy may look at a configuration, or take over from its predecessor.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest piece of what HAProxy says that is repeated.
const MOST_OF_A_MESSAGE: usize = 4096;

/// A HAProxy that runs as master and worker (`-W -S`), with its configuration file.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The program, for looking at a configuration.
    pub program: PathBuf,
    /// The configuration that it was started with.
    pub file: PathBuf,
    /// The master's socket.
    pub master: Runtime,
}

/// Why a configuration was not taken. The old one is in force.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// HAProxy finds it wrong; the old file is there still.
    #[error("HAProxy refuses the configuration: {0}")]
    Refused(String),
    /// Nobody can look at it: the program cannot be run.
    #[error("cannot run {program}")]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot replace {file}")]
    File {
        /// The configuration file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new file is there, and the running HAProxy did not say that it took it.
    #[error("cannot make HAProxy read its configuration")]
    Reload(#[source] Unanswered),
}

/// Puts a configuration in a file's place at once, where HAProxy finds nothing wrong with it.
///
/// # Errors
///
/// As [`TakeError`] says: the old file is there still.
pub async fn place(program: &Path, file: &Path, text: &str) -> Result<(), TakeError> {
    let failed = |source| TakeError::File { file: file.to_owned(), source };
    let candidate = with_end(file, ".new");
    tokio::fs::write(&candidate, text).await.map_err(failed)?;
    let good = match look_at(program, &candidate).await {
        Ok(output) if output.status.success() => tokio::fs::rename(&candidate, file).await.map_err(failed),
        Ok(output) => Err(TakeError::Refused(message(&output, &candidate))),
        Err(source) => Err(TakeError::Program { program: program.to_owned(), source }),
    };
    if good.is_err() {
        // What cannot be removed is written over the next time.
        let _ = tokio::fs::remove_file(&candidate).await;
    }
    good
}

async fn look_at(program: &Path, file: &Path) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("-c").arg("-f").arg(file).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    ended.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it looks at it for too long")))
}

impl Instance {
    /// Lets HAProxy go on with another configuration: looked at first, then put in the old one's place at once, then
    /// read by a new worker that takes the listeners over. Connections of the old worker are finished there.
    ///
    /// # Errors
    ///
    /// As [`TakeError`] says; only after its last kind another file is in place.
    pub async fn take(&self, text: &str) -> Result<(), TakeError> {
        place(&self.program, &self.file, text).await?;
        let reload = tokio::time::timeout(PATIENCE, self.reload()).await;
        reload.unwrap_or(Err(Unanswered::Timeout(PATIENCE))).map_err(TakeError::Reload)
    }

    /// Makes the master start a new worker, and returns once another one than before answers.
    async fn reload(&self) -> Result<(), Unanswered> {
        let before = self.worker().await?;
        // The master starts itself anew and closes the connection, with or without an answer.
        let said = client::say(&self.master, "reload").await.unwrap_or_default();
        if said.contains("Success=0") {
            return Err(Unanswered::Garbage(said.trim().to_owned()));
        }
        loop {
            match self.worker().await {
                Ok(now) if now != before => return Ok(()),
                // Between two masters nobody listens.
                Ok(_) | Err(Unanswered::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(other) => return Err(other),
            }
        }
    }

    /// Returns the process id of the worker that takes new connections.
    async fn worker(&self) -> Result<String, Unanswered> {
        let processes = client::say(&self.master, "show proc").await?;
        let mut lines = processes.lines().skip_while(|line| !line.starts_with("# workers")).skip(1);
        let worker = lines.next().and_then(|line| line.split_whitespace().next()).filter(|word| !word.starts_with('#'));
        worker.map(str::to_owned).ok_or_else(|| Unanswered::Unreachable("it has no worker now".to_owned()))
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut text: OsString = path.as_os_str().to_owned();
    text.push(end);
    text.into()
}

/// Returns what HAProxy said, without the name of a file that nobody else knows.
fn message(output: &Output, candidate: &Path) -> String {
    let said = String::from_utf8_lossy(&output.stderr).replace(&*candidate.to_string_lossy(), "it");
    let lines = said.lines().map(str::trim).filter(|line| line.contains("[ALERT]"));
    let said = lines.collect::<Vec<_>>().join("; ");
    said.chars().take(MOST_OF_A_MESSAGE).collect()
}
