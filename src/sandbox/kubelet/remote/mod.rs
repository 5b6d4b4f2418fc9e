//! The kubelet on any API server: what it is shown comes from watches, what it writes goes over HTTP.
//!
//! The same [`Actors`] as in the sandbox, with nobody beside the kubelet but the slow load balancer, which is outside of
//! a cluster as well. Requests for one object go one after the other, for different ones at the same time.

mod lanes;
mod requests;
mod watches;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
    runtime::watcher::Event,
};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{JoinError, JoinSet},
};

use self::{
    lanes::{Job, Lanes},
    watches::{Seen, WATCHED},
};
use super::{Kubelet, ListenerRuntime, PodRange};
use crate::sandbox::{
    actors::Actors,
    cache::Key,
    controllers::{Controller, load_balancer::LoadBalancerController},
    faults::Faults,
    nodes::NodeSpec,
    pace::Pace,
    value,
};

/// A server that does not even take a connection is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How it runs.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The kubeconfig; `None` takes `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Another context than the kubeconfig's current one.
    pub context: Option<String>,
    /// Units and their number of nodes.
    pub units: Vec<(String, usize)>,
    /// How many pods each node holds.
    pub capacity: u32,
    /// Where the pods' addresses come from. A real API server refuses loopback addresses in EndpointSlices.
    pub pods: PodRange,
    /// How long things take.
    pub pace: Pace,
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// Certificates, keys or the credential plugin cannot be used.
    #[error("cannot make a client from the kubeconfig")]
    Client(#[source] Box<kube::Error>),
    /// The API server does not answer, or refuses us.
    #[error("cannot ask the API server for its version")]
    Version(#[source] Box<kube::Error>),
}

/// A kubelet that runs against any API server. Its pods stop when it is dropped.
pub struct Remote {
    /// The API server's version.
    pub version: String,
    shared: Arc<Shared>,
    runner: JoinSet<()>,
}

/// What the runner shares with whoever holds a [`Remote`].
struct Shared {
    actors: Mutex<Actors>,
    nudge: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Actors> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// Starts a kubelet on the current runtime; it registers its nodes.
    ///
    /// # Errors
    ///
    /// The kubeconfig cannot be used, or the API server does not answer.
    pub async fn start(options: RemoteOptions) -> Result<Self, RemoteError> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let context = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
        let wrong = |error| RemoteError::Kubeconfig(Box::new(error));
        let config = match &options.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(wrong)?;
                kube::Config::from_custom_kubeconfig(file, &context).await
            }
            None => kube::Config::from_kubeconfig(&context).await,
        };
        let mut config = config.map_err(wrong)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let client = kube::Client::try_from(config).map_err(|error| RemoteError::Client(Box::new(error)))?;
        let version = client.apiserver_version().await.map_err(|error| RemoteError::Version(Box::new(error)))?;

        let nudge = Arc::new(Notify::new());
        let runtime = ListenerRuntime::new(Handle::current(), nudge.clone(), options.pods, 0);
        let units = options.units.iter().map(|(unit, count)| (unit.as_str(), *count));
        let nodes = NodeSpec::of_units(units, options.capacity);
        let kubelet = Kubelet::new(nodes, options.pace.clone(), Box::new(runtime));
        let load_balancer: Box<dyn Controller> = Box::new(LoadBalancerController::default());
        let actors = Actors::new(vec![load_balancer], kubelet, options.pace);
        let shared = Arc::new(Shared { actors: Mutex::new(actors), nudge });
        let watches = watches::open(&client);
        let (clock, lanes) = (Clock::start(), Lanes::new(client));
        let seen = Seen::default();
        let mut runner = JoinSet::new();
        runner.spawn(Runner { shared: shared.clone(), watches, seen, lanes, clock }.run());
        Ok(Self { version: version.git_version, shared, runner })
    }

    /// Changes the faults; they are felt at once.
    pub fn with_faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        let result = change(self.shared.lock().faults());
        self.shared.nudge.notify_one();
        result
    }

    /// Stops it: pods stop listening, its nodes fall silent.
    pub async fn shutdown(mut self) {
        self.runner.shutdown().await;
    }
}

/// Wall time at the start, and monotonic from there.
struct Clock(Timestamp, Instant);

impl Clock {
    fn start() -> Self {
        Self(Timestamp::now(), Instant::now())
    }

    fn now(&self) -> Timestamp {
        self.0 + self.1.elapsed()
    }
}

/// What one watch said, and which one.
type Told = (usize, Event<Value>);

struct Runner {
    shared: Arc<Shared>,
    watches: BoxStream<'static, Told>,
    seen: Seen,
    lanes: Lanes,
    clock: Clock,
}

impl Runner {
    /// Lets the kubelet react to everything, for ever.
    async fn run(mut self) {
        loop {
            let now = self.clock.now();
            // Before everything was listed, what exists would be made anew.
            let due = if self.seen.everything() { self.act(now) } else { None };
            let wait = due.map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
            tokio::select! {
                Some((watch, event)) = self.watches.next() => self.take_in(watch, event),
                Some(job) = self.lanes.finished() => self.finish(job),
                () = self.shared.nudge.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Asks for what is to be done now; returns when something is next due.
    fn act(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut actors = self.shared.lock();
        if let Some(work) = actors.notice_faults(now) {
            self.lanes.add(work);
        }
        while let Some(work) = actors.work(now) {
            if work.writes.is_empty() {
                actors.done(work.by, &[], now);
            } else {
                self.lanes.add(work);
            }
        }
        actors.next_due(now)
    }

    fn take_in(&mut self, watch: usize, event: Event<Value>) {
        let Some(watched) = WATCHED.get(watch) else { return };
        let mut actors = self.shared.lock();
        let now = self.clock.now();
        let resource = Arc::from(watched.resource);
        let gone = match event {
            Event::Init => {
                self.seen.begin(watch);
                return;
            }
            Event::InitApply(object) => {
                self.seen.listed(watch, Key::of(&resource, &object));
                observe(&mut actors, &resource, object, now);
                return;
            }
            Event::Apply(object) => {
                observe(&mut actors, &resource, object, now);
                return;
            }
            Event::Delete(object) => {
                let known = actors.cache().at(&Key::of(&resource, &object));
                known.filter(|known| value::uid(known) == value::uid(&object)).cloned().into_iter().collect()
            }
            Event::InitDone => {
                let listed = self.seen.end(watch);
                let known = actors.cache().all(watched.resource);
                known.filter(|known| !listed.contains(&Key::of(&resource, known))).cloned().collect::<Vec<_>>()
            }
        };
        gone.iter().for_each(|object| actors.observe(&resource, object, None, now));
    }

    fn finish(&mut self, job: Result<Job, JoinError>) {
        let job = match job {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(%error, "a request of the kubelet was lost");
                return;
            }
        };
        let mut actors = self.shared.lock();
        let now = self.clock.now();
        // The answer is known before the watch tells of it.
        for object in &job.answers {
            if let Some(watched) = watches::of(object) {
                observe(&mut actors, &Arc::from(watched.resource), object.clone(), now);
            }
        }
        let (by, refused) = self.lanes.free(job);
        actors.done(by, &refused, now);
    }
}

/// Shows an object as it is now, unless something newer was seen.
fn observe(actors: &mut Actors, resource: &Arc<str>, object: Value, now: Timestamp) {
    let known = actors.cache().at(&Key::of(resource, &object)).cloned();
    if let Some(known) = known {
        if value::uid(&known) != value::uid(&object) {
            // It went and came again, and nobody told of the first.
            actors.observe(resource, &known, None, now);
        } else if version(&known) >= version(&object) {
            return;
        }
    }
    let object = Arc::new(object);
    actors.observe(resource, &object, Some(&object), now);
}

/// Resource versions of one resource grow.
fn version(object: &Value) -> u64 {
    value::text(object, &["metadata", "resourceVersion"]).parse().unwrap_or_default()
}
