//! What the demo runs on: a sandbox, a release repository with a clone of it, and the controller, all of its own.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::repositories::Repositories;
use crate::{
    adapter::{
        ask::Outside,
        clock::SystemClock,
        git::{
            GitOptions, GitRepository,
            url::{Branch, RemoteUrl},
        },
        kube::connect,
        render::KustomizeRenderer,
        traffic::haproxy::Proxies,
    },
    cli::error::Error,
    controller::{self, Options, Ports, Reports},
    sandbox::server::{Sandbox, SandboxOptions},
};

/// What a command printed.
pub struct Told {
    /// Standard output, and standard error after it.
    pub text: String,
    /// Whether it ended well.
    pub well: bool,
}

/// Everything that runs, and where it lies.
pub struct Setting {
    /// The release repository, and the clone in which a person types.
    pub repositories: Repositories,
    /// The sandbox; reach it with any client through `kubeconfig`.
    pub sandbox: Sandbox,
    /// What the controller says of each application.
    pub reports: watch::Receiver<Reports>,
    /// The sandbox's kubeconfig.
    pub kubeconfig: PathBuf,
    controller: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    directory: TempDir,
}

impl Setting {
    /// Makes the repository with these files in a first commit, starts the sandbox and the controller.
    ///
    /// # Errors
    ///
    /// There is no `git`, no room, or no port to listen on.
    pub async fn start(
        files: &[(String, String)],
        first: &str,
        push_interval: Option<Duration>,
    ) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("locktender-demo-").tempdir();
        let directory = directory.map_err(|error| Error::because("cannot make a temporary directory", &error))?;
        let repositories = Repositories::make(directory.path(), files, first).await?;
        let kubeconfig = directory.path().join("kubeconfig");
        let sandbox =
            SandboxOptions { kubeconfig: Some(kubeconfig.clone()), gateway_api: true, ..SandboxOptions::default() };
        let sandbox = Sandbox::start(sandbox).await;
        let sandbox = sandbox.map_err(|error| Error::because("cannot start the sandbox", &error))?;
        let ports = ports(&repositories, &kubeconfig, &directory.path().join("mirror")).await?;
        let (sender, reports) = watch::channel(Reports::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let options = Options { push_interval, ..Options::default() };
        let controller = tokio::spawn(controller::run(ports, options, Some(sender), async move {
            // A demo that is dropped stops the controller as well.
            let _ = stopped.await;
        }));
        Ok(Self { repositories, sandbox, reports, kubeconfig, controller, stop, directory })
    }

    /// Runs this very program with `args`, about this release repository, and returns what it told.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub async fn locktender(&self, args: &[&str]) -> Result<Told, Error> {
        let wrong = |error: std::io::Error| Error::because("cannot start locktender", &error);
        let mut command = tokio::process::Command::new(std::env::current_exe().map_err(wrong)?);
        command.args(args).args(["--branch", "main", "--repo"]).arg(self.repositories.remote());
        // What it caches goes with everything else.
        command.env("XDG_CACHE_HOME", self.directory.path().join("cache")).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(wrong)?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Told { text: String::from_utf8_lossy(&text).into_owned(), well: output.status.success() })
    }

    /// Stops everything. The directory goes, unless `keep` asks for it: then it is returned.
    ///
    /// # Errors
    ///
    /// The directory cannot be removed.
    pub async fn end(self, keep: bool) -> Result<Option<PathBuf>, Error> {
        let Self { sandbox, controller, stop, directory, .. } = self;
        // Both fail only where the controller has ended by itself.
        let _ = stop.send(());
        let _ = controller.await;
        sandbox.shutdown().await;
        if keep {
            return Ok(Some(directory.keep()));
        }
        let path = directory.path().to_owned();
        let operation = format!("cannot remove {}", path.display());
        directory.close().map_err(|error| Error::because(&operation, &error))?;
        Ok(None)
    }
}

async fn ports(repositories: &Repositories, kubeconfig: &Path, mirror: &Path) -> Result<Ports, Error> {
    let url = RemoteUrl::parse(&repositories.remote().display().to_string())?;
    let mut options = GitOptions::new(url, Branch::parse("main")?, mirror.to_owned());
    // Where no event tells of a push, say on a file system without them.
    options.poll = Duration::from_secs(2);
    Ok(Ports {
        repository: Arc::new(GitRepository::open(options).await?),
        cluster: Arc::new(connect(Some(kubeconfig), None).await?),
        renderer: Arc::new(KustomizeRenderer::default()),
        ask: Arc::new(Outside::default()),
        tell: Arc::new(Proxies::default()),
        clock: Arc::new(SystemClock::new()),
    })
}
