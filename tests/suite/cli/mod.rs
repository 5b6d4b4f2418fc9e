//! The command line, as people use it: the built program, real git repositories, whole transcripts.

#![allow(clippy::unwrap_used, clippy::panic)]

mod away;
mod decisions;
mod deploy;
mod handover;
mod input;
mod keeper;
mod looks;
mod measured;
mod remotes;
mod running;
mod whole;

use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;
use tempfile::TempDir;

use crate::support::git::{Clone, Remote};

/// What a run of the program did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Everything that a person sees, with ids and times that differ from run to run made the same.
    pub fn transcript(&self) -> String {
        let mut text = self.stdout.clone();
        if !self.stderr.is_empty() {
            text.push_str(&self.stderr);
        }
        if self.code != 0 {
            text.push_str(&format!("[exit {}]\n", self.code));
        }
        normal(&text)
    }
}

/// Makes ids, times and temporary paths the same in every run.
pub fn normal(text: &str) -> String {
    let rules = [
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?", "DATE"),
        (r"\b\d\d:\d\d:\d\d\b", "HH:MM:SS"),
        (r"\bsha256:[0-9a-f]{64}\b", "SHA256"),
        (r"\b[0-9a-f]{40}\b", "COMMIT"),
        (r"\b([0-9a-f]{7,8}|[0-9a-f]{16})\b", "ID"),
        (r"/tmp/\.tmp[A-Za-z0-9]+", "TMP"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned()
    })
}

/// A place to run the program in: nobody's configuration, a cache of its own.
pub struct Shell {
    home: TempDir,
}

impl Shell {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// The program with `args` in `directory`, as Ada.
    pub fn command(&self, directory: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_locktender"));
        let kept = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];
        command.env_clear().envs(std::env::vars().filter(|(name, _)| kept.contains(&name.as_str())));
        command
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, directory: &Path, args: &[&str]) -> Ran {
        let output = self.command(directory, args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// A transcript that grows with every command, and is compared with the one in `transcripts/`.
///
/// `LOCKTENDER_TRANSCRIPTS=write` writes them anew: read the difference before committing it.
pub struct Transcript {
    name: &'static str,
    text: String,
}

impl Transcript {
    pub fn new(name: &'static str) -> Self {
        Self { name, text: String::new() }
    }

    /// Says what happens between commands.
    pub fn note(&mut self, text: &str) -> &mut Self {
        self.text.push_str(&format!("# {text}\n"));
        self
    }

    /// Runs the program, and notes what a person sees.
    pub fn see(&mut self, shell: &Shell, directory: &Path, args: &[&str]) -> Ran {
        let ran = shell.run(directory, args);
        let shown: Vec<String> =
            args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() }).collect();
        self.text.push_str(&format!("$ locktender {}\n{}\n", normal(&shown.join(" ")), ran.transcript()));
        ran
    }

    /// Compares everything with what is expected.
    pub fn matches(&self) {
        let path = format!("{}/tests/suite/cli/transcripts/{}.txt", env!("CARGO_MANIFEST_DIR"), self.name);
        if std::env::var("LOCKTENDER_TRANSCRIPTS").is_ok_and(|value| value == "write") {
            std::fs::write(&path, &self.text).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != self.text {
            let diff = similar::TextDiff::from_lines(&expected, &self.text);
            panic!("{}", diff.unified_diff().header(&path, "this run"));
        }
    }
}

pub const APP: &str = "apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: checkout}
spec:
  namespace: shop
  policy: two-data-centers
";

pub const POLICY: &str = "apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  progressDeadlineSeconds: 60
  strategy:
    batched:
      update: InPlaceIfPossible
      topology:
        unitType: topology.kubernetes.io/zone
        units: [dca, dcb]
        unitReplicas: {dca: 4, dcb: 60%}
      beta: {perUnit: 1}
      batchSize: 4
      confirm: everyBatch
";

pub fn deployment(tag: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: checkout}}
spec:
  replicas: 10
  selector: {{matchLabels: {{app: checkout}}}}
  template:
    metadata: {{labels: {{app: checkout}}}}
    spec:
      containers:
      - name: checkout
        image: registry.example/checkout:{tag}
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /health, port: http}}, periodSeconds: 1}}
"
    )
}

/// A release repository with one application of ten replicas at 1.9, and Ada's clone of it.
pub fn checkout() -> (Remote, Clone) {
    let remote = Remote::with_files(&[
        ("apps/checkout/app.yaml", APP),
        ("apps/checkout/deployment.yaml", &deployment("1.9")),
        ("policies/two-data-centers.yaml", POLICY),
    ]);
    let ada = remote.clone_as("Ada");
    (remote, ada)
}
