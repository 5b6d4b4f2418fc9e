//! A release: a real repository on disk with people who use the real `git` program, a cluster, and the controller
//! between them, in one of three places.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use locktender::{
    adapter::{
        clock::SystemClock,
        git::{
            GitOptions, GitRepository, RemoteCounts,
            url::{Branch, RemoteUrl},
        },
        kube::{Settings, connect_with},
        render::KustomizeRenderer,
        traffic::haproxy::Proxies,
    },
    controller::{self, Options, Ports, Reports},
    core::{
        cluster::Cluster,
        ledger::{Event, Record, journal},
        names::AppName,
        render::{Files, RenderError, Renderer},
        repository::Repository,
        rollout::report::{Activity, Reason, Report},
    },
    sandbox::{
        api::DeleteOptions,
        faults::Faults,
        nodes::NodeSpec,
        pace::Pace,
        server::Sandbox,
        traffic::definitions::definitions,
        world::{World, WorldOptions},
    },
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    disk::DiskGit,
    judge::{JudgedCluster, JudgedGit, SandboxCourt},
    live::Live,
};
use crate::{
    audit::{self, log::AuditLog},
    simulation::{cluster::SimCluster, outside::Outside, time::VirtualClock},
    support::{
        cluster,
        git::{Clone, Remote},
    },
};

/// Where a history is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A modelled cluster under a virtual clock; the repository is read in process.
    Simulation,
    /// The embedded cluster over HTTP, a real mirror of the repository, real time.
    Sandbox,
    /// The same, on a real control plane.
    ControlPlane,
}

impl Place {
    /// The place in real time: the sandbox, or the control plane that tests run under.
    pub fn live() -> Self {
        if cluster::real().is_some() { Self::ControlPlane } else { Self::Sandbox }
    }
}

/// The program, run while virtual time stands still.
struct StillRenderer {
    /// Whether it is a later version, which renders one thing differently.
    upgraded: bool,
}

fn still<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
        scope.spawn(run).join().unwrap()
    })
}

#[async_trait]
impl Renderer for StillRenderer {
    async fn kustomize(&self, path: &str, files: &Files) -> Result<Vec<u8>, RenderError> {
        let rendered = still(KustomizeRenderer::default().kustomize(path, files))?;
        if !self.upgraded {
            return Ok(rendered);
        }
        let text = String::from_utf8(rendered).unwrap();
        let added = "      - env:\n        - name: RENDERED_BY\n          value: next\n        image:";
        Ok(text.replace("      - image:", added).into_bytes())
    }

    async fn version(&self) -> Result<String, RenderError> {
        let version = still(KustomizeRenderer::default().version())?;
        Ok(if self.upgraded { format!("{version}-next") } else { version })
    }
}

enum Ground {
    Simulation {
        clock: VirtualClock,
        disk: DiskGit,
        cluster: SimCluster,
        world: JoinHandle<()>,
    },
    /// Only the sandbox has a log that a court can read.
    Live {
        place: Place,
        live: Live,
        court: Option<SandboxCourt>,
        files: tempfile::TempDir,
        mirrors: u32,
    },
}

/// An application's journals, by number.
type Ledger = BTreeMap<u32, Vec<Record>>;

/// The repository, the cluster and the controller.
pub struct Release {
    pub remote: Remote,
    /// How long the sandbox's controller gathers records from its next start on.
    pub push_interval: Duration,
    /// What the controller asked the remote since it was started last; only in real time.
    pub git: Option<Arc<RemoteCounts>>,
    /// Whether the simulation's controller has a later renderer from its next start on.
    pub upgraded: bool,
    /// Whether the sandbox's log is judged at the end. Not where others take pods away: whom a deletion is owed to cannot
    /// be told from it.
    pub judged: bool,
    /// How a controller in real time speaks to the cluster from its next start on.
    pub settings: Settings,
    /// What lies outside of Git and the cluster, in the simulation: pods that say how they are, unless a test says more.
    pub outside: Option<Outside>,
    /// The kubeconfig by which it does, where not by the cluster's own.
    pub through: Option<PathBuf>,
    ground: Ground,
    sender: watch::Sender<Reports>,
    controller: Option<JoinHandle<()>>,
    /// Reading journals costs: what they say at a commit is kept.
    ledgers: Mutex<HashMap<(String, git2::Oid), Ledger>>,
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(controller) = &self.controller {
            controller.abort();
        }
        let violations = match &self.ground {
            Ground::Simulation { world, cluster, .. } => {
                world.abort();
                cluster.state.lock().unwrap().checker.lock().unwrap().take()
            }
            Ground::Live { court, live, .. } => {
                let mut violations = court.as_ref().map(SandboxCourt::judge).unwrap_or_default();
                violations.extend(audit::unexplained(&live.audit.read(), &self.remote));
                violations
            }
        };
        if violations.is_empty() || !self.judged {
            return;
        }
        let told = format!("{}\n{}", violations.join("\n"), self.remote.subjects().join("\n"));
        // It may well be why the test has failed.
        assert!(std::thread::panicking(), "{told}");
        eprintln!("{told}");
    }
}

/// Everything that can be seen of one application at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    pub report: Option<Report>,
    pub pods: Vec<Arc<Value>>,
    pub ledger: Ledger,
}

impl Seen {
    /// Whether the latest rollout waits for this stage's confirm.
    pub fn waits(&self, number: u32, stage: &str) -> bool {
        self.is(number, Activity::Waiting)
            && self.report.as_ref().is_some_and(|report| {
                report.reasons.iter().any(|reason| {
                    matches!(reason, Reason::ConfirmNeeded { stage: waiting, .. } if waiting.as_str() == stage)
                })
            })
    }

    /// Whether this rollout is the latest, and does this.
    pub fn is(&self, number: u32, activity: Activity) -> bool {
        self.report.as_ref().is_some_and(|report| {
            report.activity == activity && report.rollout.as_ref().is_some_and(|rollout| rollout.number == number)
        })
    }

    /// Whether Git at HEAD tells of this event in this rollout.
    pub fn has(&self, number: u32, event: Event) -> bool {
        self.count(number, event) > 0
    }

    pub fn count(&self, number: u32, event: Event) -> usize {
        self.ledger.get(&number).into_iter().flatten().filter(|record| record.event == event).count()
    }

    /// The last record of this event.
    pub fn last(&self, number: u32, event: Event) -> Option<&Record> {
        self.ledger.get(&number).into_iter().flatten().rev().find(|record| record.event == event)
    }

    /// What all records of this event say.
    pub fn all(&self, number: u32, event: Event) -> Vec<&str> {
        let records = self.ledger.get(&number).into_iter().flatten().filter(|record| record.event == event);
        records.map(|record| record.why.as_str()).collect()
    }

    /// The reasons, as people read them.
    pub fn reasons(&self) -> String {
        let reasons = self.report.iter().flat_map(|report| &report.reasons);
        reasons.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// A rollout's events with their stages, in order.
    pub fn told(&self, number: u32) -> Vec<String> {
        let records = self.ledger.get(&number).into_iter().flatten();
        records
            .map(|record| match &record.stage {
                Some(stage) => format!("{:?} {stage}", record.event),
                None => format!("{:?}", record.event),
            })
            .collect()
    }

    /// How many pods there are at each tag of the first container's image.
    pub fn versions(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for pod in &self.pods {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            *versions.entry(image.rsplit(':').next().unwrap().to_owned()).or_default() += 1;
        }
        versions
    }

    /// The same, as `1.9: 8, 2.0: 2`.
    pub fn pods(&self) -> String {
        let counts = self.versions().into_iter().map(|(tag, count)| format!("{tag}: {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// Name, UID, node and address of every pod.
    pub fn identities(&self) -> Vec<String> {
        let mut identities: Vec<String> = self
            .pods
            .iter()
            .map(|pod| {
                let meta = &pod["metadata"];
                format!("{} {} {} {}", meta["name"], meta["uid"], pod["spec"]["nodeName"], pod["status"]["podIP"])
            })
            .collect();
        identities.sort();
        identities
    }

    /// How many pods each unit has.
    pub fn units(&self) -> BTreeMap<String, usize> {
        let mut units = BTreeMap::new();
        for pod in &self.pods {
            let unit = pod["metadata"]["labels"]["locktender.dev/unit"].as_str().unwrap_or_default();
            *units.entry(unit.to_owned()).or_default() += 1;
        }
        units
    }

    fn describe(&self) -> String {
        let mut text = format!("pods: {}\n{:#?}\n", self.pods(), self.report);
        for number in self.ledger.keys() {
            text += &format!("{number:04}: {}\n", self.told(*number).join(", "));
        }
        text
    }
}

/// Two units of three nodes each.
pub fn two_units() -> Vec<(String, usize)> {
    vec![("dca".to_owned(), 3), ("dcb".to_owned(), 3)]
}

impl Release {
    pub async fn new(place: Place, files: &[(&str, &str)]) -> Self {
        Self::on(place, files, two_units(), 10).await
    }

    pub async fn on(place: Place, files: &[(&str, &str)], units: Vec<(String, usize)>, capacity: u32) -> Self {
        // `RUST_LOG=info` shows what the controller says.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_test_writer()
            .try_init();
        let remote = Remote::with_files(files);
        let ground = match place {
            Place::Simulation => {
                let clock = VirtualClock::new();
                let nodes = units.iter().map(|(unit, count)| (unit.as_str(), *count));
                let nodes = NodeSpec::of_units(nodes, capacity);
                let options = WorldOptions { seed: 7, now: clock.time(), nodes, pace: Pace::simulated() };
                let mut world = World::new(options);
                for definition in definitions() {
                    world.api.create(definition).unwrap();
                }
                let cluster = SimCluster::new(world, clock.clone());
                let world = tokio::spawn(cluster.clone().live());
                Ground::Simulation { disk: DiskGit::open(remote.path()), clock, cluster, world }
            }
            Place::Sandbox | Place::ControlPlane => {
                remote.note_pushes();
                let files = tempfile::tempdir().unwrap();
                let live = match place {
                    Place::ControlPlane => Live::control_plane(units, capacity).await,
                    _ => Live::sandbox(files.path().to_owned(), units, capacity).await,
                };
                let court = live.log().map(SandboxCourt::new);
                Ground::Live { place, live, court, files, mirrors: 0 }
            }
        };
        let outside = match &ground {
            Ground::Simulation { clock, cluster, .. } => {
                let outside = Outside::new(Arc::new(clock.clone()));
                outside.is_pods(cluster);
                Some(outside)
            }
            Ground::Live { .. } => None,
        };
        let (sender, _) = watch::channel(Reports::new());
        let mut release = Self {
            remote,
            upgraded: false,
            judged: true,
            settings: Settings::default(),
            outside,
            through: None,
            push_interval: Duration::from_millis(100),
            git: None,
            ground,
            sender,
            controller: None,
            ledgers: Mutex::default(),
        };
        release.start().await;
        release
    }

    pub fn place(&self) -> Place {
        match self.ground {
            Ground::Simulation { .. } => Place::Simulation,
            Ground::Live { place, .. } => place,
        }
    }

    /// Starts a controller that knows nothing but what is on its disk.
    pub async fn start(&mut self) {
        self.kill().await;
        let (ports, options) = match &self.ground {
            Ground::Simulation { clock, disk, cluster, .. } => {
                cluster.forget_watches();
                let ports = Ports {
                    repository: Arc::new(JudgedGit { inner: Arc::new(disk.clone()), court: Arc::new(cluster.clone()) }),
                    cluster: Arc::new(cluster.clone()),
                    renderer: Arc::new(StillRenderer { upgraded: self.upgraded }),
                    ask: Arc::new(self.outside.clone().unwrap()),
                    tell: Arc::new(self.outside.clone().unwrap()),
                    clock: Arc::new(clock.clone()),
                };
                (ports, Options::default())
            }
            Ground::Live { live, court, files, mirrors, .. } => {
                let mirror = files.path().join(format!("mirror-{mirrors}"));
                let url = RemoteUrl::parse(&self.remote.base().join("release.git").display().to_string()).unwrap();
                let git = GitOptions { poll: POLL, ..GitOptions::new(url, Branch::parse("main").unwrap(), mirror) };
                let kubeconfig = self.through.as_ref().unwrap_or(&live.account);
                let cluster = connect_with(Some(kubeconfig), None, self.settings.clone()).await.unwrap();
                let cluster: Arc<dyn Cluster> = Arc::new(cluster);
                let repository = GitRepository::open(git).await.unwrap();
                self.git = Some(repository.requests());
                let mut repository: Arc<dyn Repository> = Arc::new(repository);
                let judged: Arc<dyn Cluster> = match court {
                    Some(court) => {
                        court.forget();
                        repository = Arc::new(JudgedGit { inner: repository, court: Arc::new(court.clone()) });
                        Arc::new(JudgedCluster { inner: cluster, court: court.clone() })
                    }
                    None => cluster,
                };
                let ports = Ports {
                    repository,
                    cluster: judged,
                    renderer: Arc::new(KustomizeRenderer::default()),
                    ask: Arc::new(locktender::adapter::ask::Outside::default()),
                    tell: Arc::new(Proxies::default()),
                    clock: Arc::new(SystemClock::new()),
                };
                let options = Options { push_interval: Some(self.push_interval), ..Options::default() };
                (ports, options)
            }
        };
        let run = controller::run(ports, options, Some(self.sender.clone()), std::future::pending());
        self.controller = Some(tokio::spawn(run));
    }

    /// Ends the controller at once, wherever it is.
    pub async fn kill(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.abort();
            let _ = controller.await;
        }
        self.sender.send_replace(Reports::new());
    }

    /// Ends the controller and takes its disk away.
    pub async fn lose_controller_and_disk(&mut self) {
        self.kill().await;
        match &mut self.ground {
            Ground::Simulation { disk, .. } => disk.lose_mirror(),
            Ground::Live { mirrors, .. } => *mirrors += 1,
        }
    }

    /// Whether the remote answers: on a disk it is moved away.
    pub fn git_answers(&self, answers: bool) {
        match &self.ground {
            Ground::Simulation { disk, .. } => disk.trouble(|trouble| trouble.away = !answers),
            Ground::Live { .. } => {
                let (here, away) = (self.remote.path(), self.remote.base().join("away.git"));
                let (from, to) = if answers { (away, here) } else { (here, away) };
                std::fs::rename::<PathBuf, PathBuf>(from, to).unwrap();
            }
        }
    }

    /// Lets so many of the controller's pushes be too late. On a disk somebody else's commit comes in while the server
    /// takes each in.
    pub fn reject_pushes(&self, count: u32) {
        match &self.ground {
            Ground::Simulation { disk, .. } => disk.trouble(|trouble| trouble.reject = count),
            Ground::Live { .. } => {
                std::fs::write(self.remote.path().join("rejections"), count.to_string()).unwrap();
                self.remote.hook(
                    "update",
                    "[ \"$(git log -1 --format=%an \"$3\")\" = Locktender ] || exit 0\n\
                     left=$(cat rejections)\n[ \"$left\" -gt 0 ] || exit 0\necho $((left - 1)) > rejections\n\
                     hers=$(echo \"hello $left\" | git -c user.name=Hopper -c user.email=hopper@example.com \\\n  \
                     commit-tree -p main 'main^{tree}')\ngit update-ref refs/heads/main \"$hers\"",
                );
            }
        }
    }

    /// How many of the controller's pushes are still to be too late, on a disk.
    pub fn rejections_left(&self) -> u32 {
        // Read while the server writes it, it is empty.
        let left = std::fs::read_to_string(self.remote.path().join("rejections")).unwrap();
        left.trim().parse().unwrap_or(u32::MAX)
    }

    /// Changes the cluster's faults.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        match &self.ground {
            Ground::Simulation { cluster, .. } => cluster.with(|world| change(world.faults())),
            Ground::Live { live, .. } => live.faults(change),
        }
    }

    /// One object, by a path like `apis/apps/v1/namespaces/shop/deployments/checkout`; `key`: as in `deployments.apps`.
    pub async fn get(&self, path: &str, key: &str) -> Option<Arc<Value>> {
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        let (namespace, name) = (parts.next().unwrap(), parts.nth(1).unwrap());
        match &self.ground {
            Ground::Simulation { cluster, .. } => cluster.with(|world| world.api.get(key, namespace, name)),
            Ground::Live { live, .. } => live.ask("GET", path, Value::Null).await.ok().map(Arc::new),
        }
    }

    /// Somebody changes an object in the cluster.
    pub async fn change(&self, path: &str, key: &str, change: impl Fn(&mut Value)) {
        loop {
            let mut object = self.get(path, key).await.unwrap().as_ref().clone();
            change(&mut object);
            let written = match &self.ground {
                Ground::Simulation { cluster, .. } => {
                    cluster.with(|world| world.api.update(object, None)).map(drop).map_err(|status| status.to_string())
                }
                Ground::Live { live, .. } => live.ask("PUT", path, object).await.map(drop),
            };
            match written {
                Ok(()) => return,
                Err(why) => assert!(why.contains("has been modified"), "{why}"),
            }
        }
    }

    /// Somebody deletes an object in the cluster.
    pub async fn delete(&self, path: &str, key: &str) {
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        let (namespace, name) = (parts.next().unwrap(), parts.nth(1).unwrap());
        match &self.ground {
            Ground::Simulation { cluster, .. } => {
                let options = DeleteOptions::default();
                cluster.with(|world| world.api.delete(key, namespace, name, options)).unwrap();
            }
            Ground::Live { live, .. } => drop(live.ask("DELETE", path, Value::Null).await.unwrap()),
        }
    }

    /// What the API server was asked since the beginning, and how the controller reaches it; only in real time.
    pub fn audit(&self) -> (AuditLog, PathBuf) {
        let Ground::Live { live, .. } = &self.ground else { panic!("only in real time") };
        (live.audit.clone(), live.account.clone())
    }

    /// Lets the controller be somebody else from its next start on.
    pub fn reach_as(&mut self, kubeconfig: PathBuf) {
        let Ground::Live { live, .. } = &mut self.ground else { panic!("only in real time") };
        live.account = kubeconfig;
    }

    /// The sandbox; none where it is a control plane.
    pub fn sandbox(&self) -> Option<Arc<Sandbox>> {
        let Ground::Live { live, .. } = &self.ground else { panic!("only in real time") };
        live.log()
    }

    /// How clients reach a cluster in real time.
    pub fn kubeconfig(&self) -> PathBuf {
        self.live().kubeconfig.clone()
    }

    /// The cluster in real time.
    pub fn live(&self) -> &Live {
        let Ground::Live { live, .. } = &self.ground else { panic!("only in real time") };
        live
    }

    /// The modelled cluster; only in the simulation.
    pub fn cluster(&self) -> &SimCluster {
        let Ground::Simulation { cluster, .. } = &self.ground else { panic!("only in the simulation") };
        cluster
    }

    /// A person with a clone of the repository.
    pub fn person(&self, name: &str) -> Clone {
        self.remote.clone_as(name)
    }

    /// Somebody clones, edits, commits and pushes.
    pub fn commit(&self, message: &str, edit: impl Fn(&Clone)) -> String {
        self.pushes("Ada", |clone| {
            edit(clone);
            clone.commit(message);
        })
    }

    /// Somebody clones, works and pushes; does it again on what is there now where the controller was faster. Returns
    /// the commit that got through.
    pub fn pushes(&self, who: &str, work: impl Fn(&Clone)) -> String {
        let person = self.person(who);
        loop {
            work(&person);
            match person.try_push() {
                Ok(()) => return person.rev("HEAD"),
                Err(why) => assert!(why.contains("[rejected]") || why.contains("cannot lock ref"), "{why}"),
            }
            person.git(&["fetch", "--quiet"]);
            person.git(&["reset", "--quiet", "--hard", "origin/main"]);
        }
    }

    /// Somebody reverts commits, as `git revert` is told to.
    pub fn reverts(&self, what: &str) -> String {
        self.pushes("Ada", |clone| {
            clone.git(&["revert", "--no-edit", what]);
        })
    }

    /// Objects of a kind in all namespaces.
    pub async fn list(&self, path: &str, resource: &str) -> Vec<Arc<Value>> {
        match &self.ground {
            Ground::Simulation { cluster, .. } => cluster.with(|world| world.api.list(resource).cloned().collect()),
            Ground::Live { live, .. } => live.list(path).await.into_iter().map(Arc::new).collect(),
        }
    }

    /// Everything that can be seen of an application.
    pub async fn seen(&self, app: &str) -> Seen {
        let mut pods = self.list("api/v1/pods", "pods").await;
        pods.retain(|pod| {
            let labels = &pod["metadata"]["labels"];
            labels["locktender.dev/app"] == app || labels["locktender.dev/app"].is_null() && labels["app"] == app
        });
        Seen { report: self.sender.borrow().get(&AppName::new(app)).cloned(), pods, ledger: self.ledger(app) }
    }

    /// The journals at HEAD, by number.
    pub fn ledger(&self, app: &str) -> Ledger {
        // Who looks from outside sees it wherever it was moved to.
        let here = git2::Repository::open_bare(self.remote.path());
        let away = || git2::Repository::open_bare(self.remote.base().join("away.git"));
        let Ok(repository) = here.or_else(|_| away()) else { return BTreeMap::new() };
        let tip = repository.refname_to_id("refs/heads/main").unwrap();
        let mut known = self.ledgers.lock().unwrap();
        known.entry((app.to_owned(), tip)).or_insert_with(|| Self::read_ledger(&repository, tip, app)).clone()
    }

    fn read_ledger(repository: &git2::Repository, tip: git2::Oid, app: &str) -> Ledger {
        let mut ledger = BTreeMap::new();
        let tree = repository.find_commit(tip).unwrap().tree().unwrap();
        let Ok(entry) = tree.get_path(&PathBuf::from(format!("rollouts/{app}"))) else { return ledger };
        let rollouts = repository.find_tree(entry.id()).unwrap();
        for rollout in &rollouts {
            let Ok(number) = rollout.name().unwrap().parse() else { continue };
            let Ok(files) = repository.find_tree(rollout.id()) else { continue };
            let Some(file) = files.get_name("journal.yaml") else { continue };
            let text = repository.find_blob(file.id()).unwrap();
            ledger.insert(number, journal::read(std::str::from_utf8(text.content()).unwrap()).unwrap());
        }
        ledger
    }

    /// Waits until what can be seen is as asked.
    pub async fn until(&self, app: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let (step, limit) = match self.place() {
            Place::Simulation => (Duration::from_millis(250), Duration::from_secs(3600)),
            Place::Sandbox => (Duration::from_millis(40), Duration::from_secs(150)),
            Place::ControlPlane => (Duration::from_millis(40), Duration::from_secs(180)),
        };
        let began = Instant::now();
        loop {
            let seen = self.seen(app).await;
            if holds(&seen) {
                return seen;
            }
            if began.elapsed() > limit {
                panic!("never: {what}\n{}{}", seen.describe(), self.remote.subjects().join("\n"));
            }
            tokio::time::sleep(step).await;
        }
    }

    /// Lets enough time pass for whatever the controller would do by itself.
    pub async fn rest(&self) {
        let time = match self.place() {
            Place::Simulation => Duration::from_secs(60),
            Place::Sandbox | Place::ControlPlane => Duration::from_millis(1500),
        };
        tokio::time::sleep(time).await;
    }
}

/// How often a sandbox's remote is looked at where no event tells.
const POLL: Duration = Duration::from_millis(300);
