//! Kustomize, by running its program: `kustomize`, else `kubectl kustomize`.
//!
//! # Guarantees
//!
//! - The program sees the files that `core::kustomize::references` names and no others, in a directory of its own that
//!   nobody else may read and that goes with the run.
//! - What would be fetched is refused before the program runs; should anything slip through, its environment leads to
//!   no network, no credentials and no configuration of ours.
//! - It is killed when it takes too long or says too much.
//!
//! # Caveats
//!
//! As with `kubectl apply -k`, a file outside of its kustomization's directory is refused; another directory is not.

mod program;

use std::{
    collections::BTreeSet,
    fs,
    num::NonZero,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    thread::available_parallelism,
    time::Duration,
};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::{OnceCell, Semaphore};

use self::program::{Program, Run};
use crate::core::{
    kustomize::references,
    render::{Files, RenderError, Renderer},
};

/// Limits, and which program is run.
#[derive(Clone, Debug)]
pub struct RenderSettings {
    /// The program, `…/kustomize` or `…/kubectl`; `None` looks for them in `PATH`.
    pub program: Option<PathBuf>,
    /// How long one run may take. Default 30 s.
    pub time_limit: Duration,
    /// How many bytes it may write. Default 32 MiB.
    pub largest_output: usize,
}

impl Default for RenderSettings {
    fn default() -> Self {
        Self { program: None, time_limit: Duration::from_secs(30), largest_output: 32 << 20 }
    }
}

/// Renders Kustomize directories with the program of this machine.
pub struct KustomizeRenderer {
    settings: RenderSettings,
    program: OnceCell<Program>,
    /// A run costs a core.
    runs: Semaphore,
}

impl KustomizeRenderer {
    /// Builds a renderer; the program is looked for when it is needed first.
    pub fn new(settings: RenderSettings) -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self { settings, program: OnceCell::new(), runs: Semaphore::new(cores) }
    }

    async fn program(&self) -> Result<&Program, RenderError> {
        // A failure is not kept: the program may be installed later.
        self.program.get_or_try_init(|| Program::find(self.settings.program.as_deref())).await
    }
}

impl Default for KustomizeRenderer {
    fn default() -> Self {
        Self::new(RenderSettings::default())
    }
}

#[async_trait]
impl Renderer for KustomizeRenderer {
    async fn kustomize(&self, path: &str, files: &Files) -> Result<Vec<u8>, RenderError> {
        let read = references(path, files, &BTreeSet::new())?;
        let program = self.program().await?;
        // Never closed; without a permit it runs all the same.
        let _permit = self.runs.acquire().await.ok();
        let workspace = Workspace::lay_out(files, read).await?;
        let run = Run {
            directory: workspace.repository(),
            home: workspace.home(),
            time_limit: self.settings.time_limit,
            largest_output: self.settings.largest_output,
        };
        let output = program.build(path, &run).await?;
        if output.success {
            Ok(output.stdout)
        } else {
            Err(RenderError::Refused(workspace.relative_to_root(&program::complaint(&output.stderr))))
        }
    }

    async fn version(&self) -> Result<String, RenderError> {
        Ok(format!("kustomize/{}", self.program().await?.version))
    }
}

/// A private directory with the files of one run, removed when dropped.
struct Workspace {
    directory: TempDir,
}

impl Workspace {
    async fn lay_out(files: &Files, read: BTreeSet<String>) -> Result<Self, RenderError> {
        let wanted: Files =
            files.iter().filter(|(path, _)| read.contains(*path)).map(|(p, c)| (p.clone(), c.clone())).collect();
        let written = tokio::task::spawn_blocking(move || Self::write(&wanted)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| RenderError::Refused(format!("cannot lay out the files to render: {error}")))
    }

    fn write(files: &Files) -> std::io::Result<Self> {
        let private = fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix("locktender-render-").permissions(private).tempdir()?;
        let workspace = Self { directory };
        fs::create_dir(workspace.repository())?;
        fs::create_dir(workspace.home())?;
        for (path, content) in files {
            let relative = Path::new(path);
            if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(std::io::Error::other(format!("`{path}` is no path inside the repository")));
            }
            let file = workspace.repository().join(relative);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(file, content)?;
        }
        Ok(workspace)
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Writes paths from the repository's root instead of where the files happen to lie.
    fn relative_to_root(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for root in [fs::canonicalize(self.repository()).ok(), Some(self.repository())].into_iter().flatten() {
            let root = root.display().to_string();
            text = text.replace(&format!("{root}/"), "").replace(&root, ".");
        }
        text
    }
}
