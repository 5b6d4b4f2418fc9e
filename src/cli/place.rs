//! Which release repository and which cluster a command is about.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;

use super::error::Error;
use crate::{
    adapter::{
        ask::Outside,
        clock::SystemClock,
        git::{
            GitOptions, GitRepository,
            access::Access,
            here::{Here, author_anywhere, cache_directory},
            url::{Branch, RemoteUrl},
        },
        kube::{KubeCluster, Settings, connect_with},
        render::KustomizeRenderer,
        traffic::haproxy::Proxies,
    },
    controller::{Ports, look::Look},
    core::{
        cluster::{Cluster, ClusterEvent, Kind},
        manifest::Object,
        names::{AppName, Digest, Revision},
        policy::{nearest, read_settings},
        repository::{Repository, RepositoryError},
    },
};

/// Which release repository.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RepoArgs {
    /// The release repository: a path, https://, ssh:// or user@host:path; also http://, git:// and file://. Default:
    /// `origin` of the repository around the current directory, or that repository itself
    #[arg(long, value_name = "URL|PATH", env = "LOCKTENDER_REPO")]
    pub repo: Option<String>,
    /// The watched branch. Default: `branch` of locktender.yaml, else the one that origin's HEAD names, else the one
    /// that HEAD follows, else main
    #[arg(long, value_name = "NAME", env = "LOCKTENDER_BRANCH")]
    pub branch: Option<String>,
    /// A directory with the files of a Secret, to reach the repository with: username and password, or token; ca.crt;
    /// tls.crt and tls.key; identity and known_hosts. Default: as `git` does for you; for `run` nothing
    #[arg(long, value_name = "DIRECTORY", env = "LOCKTENDER_CREDENTIALS")]
    pub credentials: Option<PathBuf>,
}

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// The kubeconfig. Default: $KUBECONFIG, ~/.kube/config, or the pod's own service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Another context than the kubeconfig's current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl ClusterArgs {
    /// Makes a client; sends nothing yet.
    ///
    /// # Errors
    ///
    /// The kubeconfig cannot be used.
    pub async fn connect(&self) -> Result<KubeCluster, Error> {
        self.connect_with(Settings::default()).await
    }

    /// Makes a client with other settings; sends nothing yet.
    ///
    /// # Errors
    ///
    /// The kubeconfig cannot be used.
    pub async fn connect_with(&self, settings: Settings) -> Result<KubeCluster, Error> {
        Ok(connect_with(self.kubeconfig.as_deref(), self.context.as_deref(), settings).await?)
    }
}

/// How long the cluster may take to list what is asked for.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Lists all objects of a kind, in every namespace.
///
/// # Errors
///
/// Why they cannot be listed.
pub async fn list(cluster: &KubeCluster, kind: &Kind) -> Result<Vec<Object>, String> {
    cluster.watch(kind).await;
    let listed = async {
        loop {
            match cluster.next_event().await {
                ClusterEvent::Listed { objects, .. } => return Ok(objects),
                ClusterEvent::Lost { reason, .. } => return Err(reason),
                ClusterEvent::Applied(_) | ClusterEvent::Deleted(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, listed).await.unwrap_or_else(|_| Err("it did not answer".to_owned()))
}

/// Returns this machine's name.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// A release repository that was found.
pub struct Place {
    /// Where it is.
    pub url: RemoteUrl,
    /// The watched branch.
    pub branch: Branch,
    /// The repository around the current directory, where that is what the command is about.
    pub here: Option<Here>,
    /// What people call the branch: `origin/main`.
    pub called: String,
    /// The credentials that were named.
    pub credentials: Option<PathBuf>,
}

impl RepoArgs {
    /// Finds the release repository.
    ///
    /// # Errors
    ///
    /// There is none, or it is of a kind that is not understood.
    pub fn find(&self) -> Result<Place, Error> {
        if let Some(repo) = &self.repo {
            let url = RemoteUrl::parse(repo)?;
            let branch = Branch::parse(self.branch.as_deref().unwrap_or("main"))?;
            let called = format!("{} of {url}", branch.as_str());
            return Ok(Place { url, branch, here: None, called, credentials: self.credentials.clone() });
        }
        let here = std::env::current_dir().ok().and_then(|directory| Here::discover(&directory)).ok_or_else(|| {
            Error::usage("there is no release repository around the current directory")
                .hint("change into a clone of it, or name it with `--repo`")
        })?;
        let origin = here.origin();
        let branch = self.branch.clone().or_else(|| branch_of_settings(&here)).unwrap_or_else(|| {
            let checked_out = || here.branch().filter(|_| origin.is_none());
            here.origin_head().or_else(|| here.upstream()).or_else(checked_out).unwrap_or_else(|| "main".to_owned())
        });
        let branch = Branch::parse(&branch)?;
        let called = match &origin {
            Some(_) => format!("origin/{}", branch.as_str()),
            None => branch.as_str().to_owned(),
        };
        let url = RemoteUrl::parse(&origin.unwrap_or_else(|| here.location().display().to_string()))?;
        Ok(Place { url, branch, here: Some(here), called, credentials: self.credentials.clone() })
    }
}

/// Reads which branch `locktender.yaml` in the working tree names.
fn branch_of_settings(here: &Here) -> Option<String> {
    let bytes = std::fs::read(here.root()?.join("locktender.yaml")).ok()?;
    read_settings("locktender.yaml", &bytes).ok()?.branch
}

/// A mirror of the release repository, and what goes with it when it was made for this command alone.
pub struct Opened {
    /// The mirror.
    pub repository: Arc<GitRepository>,
    _scratch: Option<TempDir>,
}

impl Place {
    /// Tells repositories and branches apart, in names that must be short.
    pub fn key(&self) -> String {
        Digest::of(format!("{}\n{}", self.url, self.branch.as_str()).as_bytes()).short()
    }

    /// Opens a mirror: the one of this user's cache, or one of its own where another process has that.
    ///
    /// # Errors
    ///
    /// There is no room for one.
    pub async fn open(&self) -> Result<Opened, Error> {
        if let Some(directory) = cache_directory().map(|cache| cache.join("mirrors").join(self.key())) {
            match GitRepository::open(self.options(directory)).await {
                Ok(repository) => return Ok(Opened { repository: Arc::new(repository), _scratch: None }),
                Err(RepositoryError::Mirror(why)) => tracing::debug!(why, "the cached mirror cannot be used"),
                Err(error) => return Err(error.into()),
            }
        }
        let scratch = tempfile::Builder::new().prefix("locktender-mirror-").tempdir();
        let scratch = scratch.map_err(|error| Error::because("cannot make a temporary mirror", &error))?;
        let repository = GitRepository::open(self.options(scratch.path().to_owned())).await?;
        Ok(Opened { repository: Arc::new(repository), _scratch: Some(scratch) })
    }

    fn options(&self, directory: PathBuf) -> GitOptions {
        let mut options = GitOptions::new(self.url.clone(), self.branch.clone(), directory);
        options.poll = Duration::from_secs(5);
        options.access = match &self.credentials {
            Some(_) => Access::Own { credentials: self.credentials.clone() },
            None => {
                let settings = self.here.as_ref().map(Here::transport_settings);
                Access::Person { settings: settings.unwrap_or_default() }
            }
        };
        options
    }

    /// Returns who commits.
    ///
    /// # Errors
    ///
    /// Git knows nobody.
    pub fn author(&self) -> Result<(String, String), Error> {
        let author = match &self.here {
            Some(here) => here.author(),
            None => author_anywhere(),
        };
        author.ok_or_else(|| {
            Error::failed("nobody to commit as")
                .hint("git config --global user.name 'Your Name'; git config --global user.email you@example.com")
        })
    }
}

impl Opened {
    /// Reads the branch. Where the remote is away it is read as it was known last; returns why, too.
    ///
    /// # Errors
    ///
    /// It was never fetched, or cannot be read.
    pub async fn read(&self, look: &mut Look) -> Result<(Revision, Option<RepositoryError>), Error> {
        let error = match look.fetch().await {
            Ok(head) => return Ok((head, None)),
            Err(error) => error,
        };
        let Some(known) = self.repository.tip().await? else { return Err(error.into()) };
        look.read(&known).await?;
        look.git_is_away(Some(error.to_string()));
        Ok((known, Some(error)))
    }

    /// Reads the branch, and says where it may be old because the remote cannot be reached.
    ///
    /// # Errors
    ///
    /// The remote refuses access, or the branch was never fetched, or cannot be read.
    pub async fn read_and_say(&self, look: &mut Look) -> Result<Revision, Error> {
        let (head, away) = self.read(look).await?;
        if let Some(why) = away {
            if !matches!(why, RepositoryError::Unreachable(_)) {
                return Err(why.into());
            }
            super::output::say(&format!("note: Git is away ({why}): this is as of {}\n", head.short()));
        }
        Ok(head)
    }
}

/// Puts together what looking needs.
pub fn ports(repository: Arc<dyn Repository>, cluster: Arc<dyn Cluster>) -> Ports {
    Ports {
        repository,
        cluster,
        renderer: Arc::new(KustomizeRenderer::default()),
        ask: Arc::new(Outside::default()),
        tell: Arc::new(Proxies::default()),
        clock: Arc::new(SystemClock::new()),
    }
}

/// Returns an error that says that there is no such application, and which is near.
pub fn no_such_app(look: &Look, app: &AppName, place: &str) -> Error {
    let apps = look.apps();
    let error = Error::failed(format!("there is no application `{app}` in {place}"));
    match nearest(app.as_str(), apps.iter().map(AppName::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None if apps.is_empty() => error.hint("an application is a directory apps/<name> with an app.yaml"),
        None => {
            let names: Vec<&str> = apps.iter().map(AppName::as_str).take(10).collect();
            error.hint(format!("known: {}", names.join(", ")))
        }
    }
}
