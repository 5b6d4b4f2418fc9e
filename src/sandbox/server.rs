//! The sandbox that people use: a [`World`] behind HTTP on loopback, in real time, its pods real listeners.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Notify, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    api::{Api, access::Forbidden},
    faults::Faults,
    http::{self, AuditLog, Backend},
    kubeconfig,
    kubelet::{ListenerRuntime, PodRange},
    nodes::NodeSpec,
    pace::Pace,
    traffic::{self, Forward},
    world::{World, WorldOptions},
};
use crate::core::names::Digest;

/// How a sandbox starts.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Units and their number of nodes.
    pub units: Vec<(String, usize)>,
    /// Where the kubeconfig is written.
    pub kubeconfig: Option<PathBuf>,
    /// Where the API server listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many pods each node holds.
    pub capacity: u32,
    /// How long things take.
    pub pace: Pace,
    /// Where UIDs and generated names come from.
    pub seed: u64,
    /// The file to which every request is added, in the shape of Kubernetes' audit log.
    pub audit_log: Option<PathBuf>,
    /// Whether Gateways and HTTPRoutes are known from the start. Brought by somebody else they are followed as well.
    pub gateway_api: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            units: vec![("dca".to_owned(), 3), ("dcb".to_owned(), 3)],
            kubeconfig: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            capacity: 110,
            pace: Pace::default(),
            seed: 1,
            audit_log: None,
            gateway_api: false,
        }
    }
}

/// How long open connections may take to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running sandbox.
pub struct Sandbox {
    /// The API server's URL.
    pub url: String,
    /// The token that clients must send.
    pub token: String,
    /// Where the kubeconfig was written.
    pub kubeconfig: Option<PathBuf>,
    live: Arc<Live>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    /// Aborted when it is dropped.
    clock: JoinSet<()>,
}

impl Sandbox {
    /// Starts a sandbox on the current runtime.
    ///
    /// # Errors
    ///
    /// Where the API server cannot listen, or the kubeconfig or the audit log cannot be written.
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let (url, token) = (http::url(address), token());
        let audit = options.audit_log.as_deref().map(AuditLog::open).transpose()?;
        if let Some(path) = &options.kubeconfig {
            kubeconfig::write(path, &url, &token)?;
        }
        let nudge = Arc::new(Notify::new());
        // The API server's port is its own on this machine: so are the addresses of its pods.
        let salt = u64::from(address.port());
        let runtime = ListenerRuntime::new(Handle::current(), nudge.clone(), PodRange::LOOPBACK, salt);
        let units = options.units.iter().map(|(unit, count)| (unit.as_str(), *count));
        let started = (Timestamp::now(), Instant::now());
        let mut world = World::with_runtime(
            WorldOptions {
                seed: options.seed,
                now: started.0,
                nodes: NodeSpec::of_units(units, options.capacity),
                pace: options.pace,
            },
            Box::new(runtime),
        );
        for definition in options.gateway_api.then(traffic::definitions::definitions).into_iter().flatten() {
            let made = world.api.create(definition);
            made.map_err(|status| io::Error::other(format!("cannot make the Gateway API known: {}", status.message)))?;
        }
        let (revision, _) = watch::channel(world.api.revision());
        let live = Arc::new(Live { world: Mutex::new(world), revision, nudge, started });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            // A sandbox that is dropped stops as well.
            let _ = stopped.await;
        };
        let server = tokio::spawn(http::serve(listener, live.clone(), token.clone(), audit, stopped));
        let mut clock = JoinSet::new();
        clock.spawn(live.clone().run());
        clock.spawn(traffic::run(live.clone(), salt));
        Ok(Self { url, token, kubeconfig: options.kubeconfig, live, stop, server, clock })
    }

    /// Changes the faults; they are felt at once.
    pub fn with_faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        let result = change(self.live.lock().faults());
        self.live.nudge.notify_one();
        result
    }

    /// Forbids all this, and nothing else any more.
    pub fn forbid(&self, rules: Vec<Forbidden>) {
        self.live.lock().api.forbid(rules);
    }

    /// Looks at the world as it is: its objects, and what happened to them.
    pub fn look<R>(&self, what: impl FnOnce(&World) -> R) -> R {
        what(&self.live.lock())
    }

    /// Opens a way to a port of a Service, for as long as what is returned is kept.
    ///
    /// # Errors
    ///
    /// Where this machine has no port left.
    pub async fn open(&self, namespace: &str, service: &str, port: u16) -> io::Result<Forward> {
        Forward::open(self.live.clone(), namespace, service, port).await
    }

    /// Stops everything: watches end, pods stop listening.
    pub async fn shutdown(self) {
        let Self { live, stop, mut server, mut clock, .. } = self;
        clock.shutdown().await;
        // Fails only where the server has ended by itself.
        let _ = stop.send(());
        if tokio::time::timeout(FAREWELL, &mut server).await.is_err() {
            server.abort();
        }
        drop(live);
    }
}

/// Returns a token that cannot be guessed: the standard library's hash keys come from the operating system.
fn token() -> String {
    let words: [u64; 4] = std::array::from_fn(|at| RandomState::new().hash_one(at));
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    Digest::of(&bytes).hex()
}

/// The world, shared by requests and the clock.
struct Live {
    world: Mutex<World>,
    revision: watch::Sender<u64>,
    nudge: Arc<Notify>,
    started: (Timestamp, Instant),
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, World> {
        // A panic in between leaves whole objects behind: every write is one insertion.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time: wall time at the start, and monotonic from there.
    fn now(&self) -> Timestamp {
        self.started.0 + self.started.1.elapsed()
    }

    fn publish(&self, newest: u64) {
        self.revision.send_if_modified(|revision| std::mem::replace(revision, newest) != newest);
    }

    /// Lets the world react and time go on, for ever.
    async fn run(self: Arc<Self>) {
        loop {
            let due = {
                let mut world = self.lock();
                let due = world.advance(self.now());
                self.publish(world.api.revision());
                due
            };
            let wait = due.map(|due| Duration::try_from(due.duration_since(self.now())).unwrap_or_default());
            tokio::select! {
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }
}

impl Backend for Live {
    fn with_api<R>(&self, what: impl FnOnce(&mut Api) -> R) -> R {
        let mut world = self.lock();
        let (before, now) = (world.api.revision(), self.now().max(world.api.now()));
        world.api.set_time(now);
        let result = what(&mut world.api);
        let newest = world.api.revision();
        drop(world);
        if newest != before {
            self.publish(newest);
            self.nudge.notify_one();
        }
        result
    }

    async fn changed(&self, revision: u64) {
        // The sender lives as long as self.
        let _ = self.revision.subscribe().wait_for(|newest| *newest > revision).await;
    }
}
