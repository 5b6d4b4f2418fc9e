//! A real repository, the sandbox in a process of its own, and the controller in this one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use locktender::{
    adapter::{
        ask::Outside,
        clock::SystemClock,
        git::{
            GitOptions, GitRepository,
            url::{Branch, RemoteUrl},
        },
        kube::{KubeCluster, connect},
        render::KustomizeRenderer,
        traffic::haproxy::Proxies,
    },
    controller::{self, Options, Ports, Reports},
    core::{
        cluster::{Cluster as _, ClusterEvent, Kind, Write},
        manifest::Object,
        names::{BlobId, Revision},
        repository::{Change, CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
        rollout::report::Report,
    },
    sandbox::server::{Sandbox, SandboxOptions},
};
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::git::{Clone, Remote};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the sandbox until this process is killed: what the benchmark starts itself with.
pub fn serve(kubeconfig: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SandboxOptions { kubeconfig: Some(kubeconfig.to_owned()), ..SandboxOptions::default() };
        let _sandbox = Sandbox::start(options).await.unwrap();
        std::future::pending::<()>().await;
    });
}

/// A repository that counts what the controller asks of it.
pub struct Counted {
    inner: GitRepository,
    /// Fetches and pushes: what the remote has to answer.
    pub remote: AtomicU64,
    /// Everything that the mirror answers.
    pub mirror: AtomicU64,
}

impl Counted {
    fn count(&self) -> &GitRepository {
        self.mirror.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

#[async_trait]
impl Repository for Counted {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.remote.fetch_add(1, Ordering::Relaxed);
        self.inner.fetch().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.count().tip().await
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.count().directory(at, path).await
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.count().files(at, path).await
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.count().read(blob, limit).await
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.count().is_ancestor(ancestor, descendant).await
    }

    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        self.count().changes(from, to).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.count().versions(head, since, below, names).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.count().log(head, path, limit).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.count().merge(path, base, ours, theirs).await
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        self.remote.fetch_add(1, Ordering::Relaxed);
        self.inner.push(onto, drafts).await
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}

/// The controller, running.
pub struct Controller {
    pub repository: Arc<Counted>,
    pub cluster: Arc<KubeCluster>,
    reports: watch::Receiver<Reports>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Controller {
    /// Waits until so many applications are as asked.
    pub async fn until(&mut self, what: &str, count: usize, holds: impl Fn(&Report) -> bool) {
        let enough = |reports: &Reports| reports.values().filter(|report| holds(report)).count() >= count;
        let found = tokio::time::timeout(PATIENCE, self.reports.wait_for(enough)).await.is_ok();
        if !found {
            let reports = self.reports.borrow();
            let (so, not): (Vec<&Report>, Vec<&Report>) = reports.values().partition(|report| holds(report));
            panic!("{} of {count} are {what}; one is not: {:#?}", so.len(), not.first());
        }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

/// Everything but the controller.
pub struct World {
    pub remote: Remote,
    pub person: Clone,
    kubeconfig: PathBuf,
    directory: tempfile::TempDir,
    sandbox: Child,
    mirrors: u32,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sandbox.kill();
        let _ = self.sandbox.wait();
    }
}

impl World {
    /// Starts with these files in Git and an empty cluster.
    pub async fn new(files: &[(String, String)]) -> Self {
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let remote = Remote::with_files(&files);
        let person = remote.clone_as("Ada");
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let sandbox = Command::new(std::env::current_exe().unwrap()).arg("--serve").arg(&kubeconfig).spawn().unwrap();
        let world = Self { remote, person, kubeconfig, directory, sandbox, mirrors: 0 };
        let started = Instant::now();
        while !world.kubeconfig.exists() {
            assert!(started.elapsed() < PATIENCE, "the sandbox does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It listens before it writes the file. The applications' namespace is not what is measured.
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        world.client().await.write(&Write::Create { object: Object(namespace) }).await.unwrap();
        world
    }

    /// A client of its own, as bare as there is.
    pub async fn client(&self) -> KubeCluster {
        connect(Some(&self.kubeconfig), None).await.unwrap()
    }

    /// A mirror of its own.
    pub async fn repository(&mut self) -> GitRepository {
        self.mirrors += 1;
        let mirror = self.directory.path().join(format!("mirror-{}", self.mirrors));
        let url = RemoteUrl::parse(&self.remote.url()).unwrap();
        GitRepository::open(GitOptions::new(url, Branch::parse("main").unwrap(), mirror)).await.unwrap()
    }

    pub async fn controller(&mut self) -> Controller {
        let (remote, mirror) = (AtomicU64::new(0), AtomicU64::new(0));
        let repository = Arc::new(Counted { inner: self.repository().await, remote, mirror });
        let cluster = Arc::new(self.client().await);
        let ports = Ports {
            repository: repository.clone(),
            cluster: cluster.clone(),
            renderer: Arc::new(KustomizeRenderer::default()),
            ask: Arc::new(Outside::default()),
            tell: Arc::new(Proxies::default()),
            clock: Arc::new(SystemClock::new()),
        };
        let (sender, reports) = watch::channel(Reports::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let run = controller::run(ports, Options::default(), Some(sender), async move { drop(stopped.await) });
        Controller { repository, cluster, reports, stop, task: tokio::spawn(run) }
    }

    /// A person's commit, on the server already but not yet on `main`: what is left is to move the branch.
    pub fn prepare(&self, files: &[(&str, &str)], message: &str) -> Prepared {
        self.person.git(&["fetch", "--quiet", "origin"]);
        self.person.git(&["reset", "--quiet", "--hard", "origin/main"]);
        self.person.write_all(files);
        let from = self.person.rev("origin/main");
        let to = self.person.commit(message);
        self.person.git(&["push", "--quiet", "--force", "origin", "HEAD:refs/heads/ready"]);
        Prepared { repository: git2::Repository::open_bare(self.remote.path()).unwrap(), from, to }
    }

    /// What the sandbox's process has used of the processor.
    pub fn sandbox_cpu(&self) -> Duration {
        cpu(&format!("/proc/{}/stat", self.sandbox.id()), false)
    }
}

/// A commit that only has to become the branch's tip.
pub struct Prepared {
    repository: git2::Repository,
    from: String,
    to: String,
}

impl Prepared {
    /// Moves the branch as a push's last step does, and says when.
    pub fn land(self) -> Instant {
        let id = |text: &str| git2::Oid::from_str(text).unwrap();
        let now = Instant::now();
        self.repository.reference_matching("refs/heads/main", id(&self.to), true, id(&self.from), "push").unwrap();
        now
    }
}

/// What this process, and the programs it ran, have used of the processor.
pub fn own_cpu() -> Duration {
    cpu("/proc/self/stat", true)
}

fn cpu(stat: &str, children: bool) -> Duration {
    let text = fs::read_to_string(stat).unwrap();
    // The program's name, in parentheses, may have spaces in it. After it come state, parent, …: fields 3 and on.
    let fields: Vec<u64> =
        text.rsplit(')').next().unwrap().split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    let ticks: u64 = fields[11..if children { 15 } else { 13 }].iter().sum();
    // Linux counts in hundredths of a second on every machine that this runs on.
    Duration::from_millis(10 * ticks)
}

/// Sees the cluster as anybody may.
pub struct Watcher {
    cluster: KubeCluster,
}

impl Watcher {
    pub async fn of(world: &World, kind: Kind) -> Self {
        let cluster = world.client().await;
        cluster.watch(&kind).await;
        while !matches!(cluster.next_event().await, ClusterEvent::Listed { .. }) {}
        Self { cluster }
    }

    /// Forgets what has happened until now.
    pub fn skip(&self) {
        while self.cluster.try_event().is_some() {}
    }

    /// Waits for an object that is as asked, and says when it was seen.
    pub async fn sees(&self, what: &str, holds: impl Fn(&Object) -> bool) -> (Instant, Object) {
        let found = async {
            loop {
                if let ClusterEvent::Applied(object) = self.cluster.next_event().await
                    && holds(&object)
                {
                    return (Instant::now(), object);
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{what} is never seen"))
    }
}
