//! Finding the program, and running it within limits.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use crate::core::render::RenderError;

/// More of its complaints is not read.
const LARGEST_COMPLAINT: u64 = 64 << 10;

/// For asking a program's version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A proxy that nobody listens at: Go's HTTP client asks it for everything that is not on loopback.
const NO_NETWORK: &str = "http://127.0.0.1:1";

/// The program, and the version of Kustomize in it.
#[derive(Debug)]
pub(super) struct Program {
    file: PathBuf,
    /// True where it is `kubectl`, whose Kustomize is a subcommand.
    is_kubectl: bool,
    /// `v5.5.0`.
    pub(super) version: String,
}

/// Where and how one run goes.
pub(super) struct Run {
    pub(super) directory: PathBuf,
    pub(super) home: PathBuf,
    pub(super) time_limit: Duration,
    pub(super) largest_output: usize,
}

/// What a run gave.
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Program {
    /// Looks for a program that can say its version: `named`, else `kustomize` and `kubectl` in `PATH`.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, RenderError> {
        let candidates = match named {
            Some(named) => vec![named.to_owned()],
            None => ["kustomize", "kubectl"].into_iter().filter_map(in_path).collect(),
        };
        if candidates.is_empty() {
            let text =
                "there is neither `kustomize` nor `kubectl` in PATH: install one to render Kustomize directories";
            return Err(RenderError::NoProgram(text.into()));
        }
        let mut complaints = Vec::new();
        for file in candidates {
            let is_kubectl = file.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("kubectl"));
            match version(&file, is_kubectl).await {
                Ok(version) => return Ok(Self { file, is_kubectl, version }),
                Err(why) => complaints.push(format!("{} does not tell its version: {why}", file.display())),
            }
        }
        Err(RenderError::NoProgram(complaints.join("; ")))
    }

    /// Builds the directory `path`, relative to the run's directory.
    pub(super) async fn build(&self, path: &str, run: &Run) -> Result<Output, RenderError> {
        // `./` keeps a directory named `--help` from being an option.
        let (subcommand, path) = (if self.is_kubectl { "kustomize" } else { "build" }, format!("./{path}"));
        execute(&self.file, &[subcommand, &path], run).await
    }
}

/// Returns the first executable file of this name in `PATH`.
fn in_path(name: &str) -> Option<PathBuf> {
    let is_executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(is_executable)
}

async fn version(file: &Path, is_kubectl: bool) -> Result<String, String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let run = Run {
        directory: home.path().to_owned(),
        home: home.path().to_owned(),
        time_limit: VERSION_LIMIT,
        largest_output: 64 << 10,
    };
    let arguments: &[&str] = if is_kubectl { &["version", "--client", "--output=json"] } else { &["version"] };
    let output = execute(file, arguments, &run).await.map_err(|error| error.to_string())?;
    if !output.success {
        return Err(complaint(&output.stderr));
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if is_kubectl {
        let value: Option<Value> = serde_json::from_str(&said).ok();
        let version = value.and_then(|value| value["kustomizeVersion"].as_str().map(str::to_owned));
        return version.ok_or_else(|| "it names no `kustomizeVersion`".into());
    }
    version_in(&said).ok_or_else(|| format!("it says {:?}", said.trim()))
}

/// Finds `v5.5.0` in what `kustomize version` says: `v5.5.0`, `{kustomize/v5.0.1  2023-…}` or
/// `{Version:kustomize/v4.5.7 GitCommit:…}`.
fn version_in(said: &str) -> Option<String> {
    let words = said.split(|letter: char| letter.is_whitespace() || "{}/:".contains(letter));
    let is_version =
        |word: &&str| word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    words.into_iter().find(is_version).map(str::to_owned)
}

/// Runs a program with an environment of its own, and kills it when it exceeds a limit.
async fn execute(file: &Path, arguments: &[&str], run: &Run) -> Result<Output, RenderError> {
    let mut command = Command::new(file);
    command
        .args(arguments)
        .current_dir(&run.directory)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", &run.home)
        .env("TMPDIR", &run.home)
        .env("KUBECONFIG", "/dev/null")
        .env("LC_ALL", "C")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, NO_NETWORK)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let cannot_run = |error: std::io::Error| RenderError::NoProgram(format!("cannot run {}: {error}", file.display()));
    let mut child = command.spawn().map_err(cannot_run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(run.time_limit, async {
        // One more than allowed tells that there was more; what it complains about is cut without a word.
        let limit = u64::try_from(run.largest_output).unwrap_or(u64::MAX).saturating_add(1);
        let (stdout, stderr) = tokio::join!(read(stdout, limit), read_complaint(stderr));
        if stdout.len() > run.largest_output {
            return Err(RenderError::Refused(format!("it renders more than {} bytes", run.largest_output)));
        }
        let status = child.wait().await.map_err(cannot_run)?;
        Ok(Output { success: status.success(), stdout, stderr })
    });
    match ended.await {
        Ok(Ok(output)) => Ok(output),
        over => {
            // An error means that it is gone already.
            let _ = child.kill().await;
            over.unwrap_or(Err(RenderError::TooSlow(run.time_limit)))
        }
    }
}

/// Reads to the end or to the limit; closes it there.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut content = Vec::new();
    if let Some(from) = from {
        // What was read before an error is all there is.
        let _ = from.take(limit).read_to_end(&mut content).await;
    }
    content
}

/// Reads to the limit, and drops what comes after it: a program that cannot complain would wait for ever.
async fn read_complaint(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let content = read(Some(&mut from), LARGEST_COMPLAINT).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    content
}

/// Returns what a program complains about, without the clutter around it.
pub(super) fn complaint(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    let lines: Vec<String> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("# Warning"))
        .map(|line| {
            // kubectl's logger: E1121 14:21:55.126569   18070 run.go:72] "command failed" err="…"
            let logged =
                line.split_once(r#"] "command failed" err="#).and_then(|(_, err)| serde_json::from_str(err).ok());
            let plain = line.strip_prefix("error: ").or_else(|| line.strip_prefix("Error: ")).unwrap_or(line);
            logged.unwrap_or_else(|| plain.to_owned())
        })
        .collect();
    if lines.is_empty() { "it failed without a word".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_every_release_says() {
        for said in [
            "v5.5.0\n",
            "{kustomize/v5.5.0  2024-10-01T00:00:00Z  }",
            "{Version:kustomize/v5.5.0 GitCommit:1a BuildDate:2024 GoOs:linux GoArch:amd64}",
        ] {
            assert_eq!(version_in(said).as_deref(), Some("v5.5.0"), "{said}");
        }
        assert_eq!(version_in("very nice"), None);
    }

    #[test]
    fn a_complaint_is_told_without_its_clutter() {
        let logged = br#"E1121 14:21:55.126569   18070 run.go:72] "command failed" err="no \"x\" in y""#;
        assert_eq!(complaint(logged), r#"no "x" in y"#);
        assert_eq!(complaint(b"# Warning: 'bases' is deprecated.\nError: no x\n"), "no x");
        assert_eq!(complaint(b" \n"), "it failed without a word");
    }
}
