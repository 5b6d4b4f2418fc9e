//! Several controllers on one repository and one cluster, each with a clock of its own, of which one leads. Any of them
//! can be stopped where it is, as by SIGSTOP, and woken.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use locktender::{
    controller::{
        self, Options, Ports,
        fence::fenced,
        lease::{Lease, Standing},
    },
    core::{
        clock::Clock,
        cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, Kind, Scope, Write},
        lease::Terms,
        ledger::Event,
        manifest::Object,
        names::{AppName, BlobId, Revision},
        repository::{Change, CommitDraft, CommitInfo, Entry, FileVersion, Merge, Push, Repository, RepositoryError},
    },
    sandbox::{
        api::EventKind,
        pace::Pace,
        world::{World, WorldOptions},
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    Bases,
    checker::{Checker, told},
    cluster::{SimCluster, typed},
    faults::Faults,
    git::SimGit,
    outside::Outside,
    time::VirtualClock,
    two_units,
};

pub const LEASE: Duration = Duration::from_secs(15);

/// A clock that runs at another rate than the others, of a machine that may have slept.
#[derive(Clone)]
struct SkewedClock {
    clock: VirtualClock,
    began: Timestamp,
    rate: f64,
    slept: Arc<Mutex<Duration>>,
}

#[async_trait]
impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let since = self.clock.time().duration_since(self.began).as_secs_f64() * self.rate;
        self.began + SignedDuration::from_secs_f64(since)
    }

    fn uptime(&self) -> Duration {
        self.clock.uptime().mul_f64(self.rate) + *self.slept.lock().unwrap()
    }

    async fn until(&self, at: Timestamp) {
        // The last nanosecond may be lost in rounding.
        while self.now() < at {
            let left = at.duration_since(self.now()).as_secs_f64() / self.rate;
            tokio::time::sleep(Duration::from_secs_f64(left) + Duration::from_millis(1)).await;
        }
    }
}

/// What a controller did that arrived: a write or a push.
#[derive(Clone, Debug)]
pub struct Did {
    pub who: &'static str,
    pub at: Timestamp,
    pub what: String,
}

/// How a controller is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With the write decided on and not sent.
    Before,
    /// With the write sent: it arrives a minute later.
    OnTheWay,
}

/// What all hands of one controller share.
#[derive(Clone)]
struct Hand {
    who: &'static str,
    clock: VirtualClock,
    cluster: SimCluster,
    git: SimGit,
    log: Arc<Mutex<Vec<Did>>>,
    stopped: watch::Sender<bool>,
    /// How many writes and pushes are let through before it is stopped, and how.
    stop_after: Arc<Mutex<Option<(usize, Stop)>>>,
}

/// Longer than it takes another to take the lease.
const ON_THE_WAY: Duration = Duration::from_secs(60);

impl Hand {
    /// Stops this controller where that is planned; returns how.
    async fn comes_to(&self) -> Option<Stop> {
        let planned = {
            let mut stop_after = self.stop_after.lock().unwrap();
            match &mut *stop_after {
                Some((0, how)) => {
                    let how = *how;
                    *stop_after = None;
                    Some(how)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if planned.is_some() {
            self.stopped.send_replace(true);
        }
        if planned == Some(Stop::Before) {
            // Whoever polls this has been stopped: it goes on when it is woken.
            tokio::task::yield_now().await;
        }
        planned
    }

    fn note(&self, what: String) {
        self.log.lock().unwrap().push(Did { who: self.who, at: self.clock.time(), what });
    }
}

/// A controller's own view of the cluster: its watches are nobody else's.
struct Eyes {
    hand: Hand,
    watched: Mutex<BTreeMap<String, Kind>>,
    queue: Mutex<VecDeque<ClusterEvent>>,
    seen: Mutex<u64>,
}

impl Eyes {
    fn new(hand: Hand) -> Self {
        let seen = hand.cluster.with(|world| world.api.revision());
        Self { hand, watched: Mutex::default(), queue: Mutex::default(), seen: Mutex::new(seen) }
    }

    fn collect(&self) {
        let (mut seen, watched) = (self.seen.lock().unwrap(), self.watched.lock().unwrap());
        let state = self.hand.cluster.state.lock().unwrap();
        let events = state.world.api.events_since(*seen).unwrap();
        let mut queue = self.queue.lock().unwrap();
        for event in events {
            *seen = event.revision;
            let Some(kind) = watched.get(&*event.resource) else { continue };
            let object = typed(&event.object, kind);
            queue.push_back(match event.kind {
                EventKind::Deleted => ClusterEvent::Deleted(object),
                EventKind::Added | EventKind::Modified => ClusterEvent::Applied(object),
            });
        }
    }
}

#[async_trait]
impl Cluster for Eyes {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let how = self.hand.comes_to().await;
        let (hand, sent) = (self.hand.clone(), write.clone());
        let arrive = move || {
            let result = hand.cluster.judged(&sent);
            hand.note(told(&sent));
            result
        };
        if how == Some(Stop::OnTheWay) {
            tokio::spawn(async move {
                tokio::time::sleep(ON_THE_WAY).await;
                let _ = arrive();
            });
            return std::future::pending().await;
        }
        tokio::task::yield_now().await;
        arrive()
    }

    async fn dry_run(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        self.hand.cluster.dry_run(write).await
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        self.hand.cluster.read(kind, namespace, name).await
    }

    fn acting_as(&self, _: &Account) -> Arc<dyn Cluster> {
        panic!("nobody acts in another's name here")
    }

    async fn may(&self, _: &Access) -> Result<bool, ClusterError> {
        panic!("nobody acts in another's name here")
    }

    async fn scope(&self, kind: &Kind) -> Result<Scope, ClusterError> {
        self.hand.cluster.scope(kind).await
    }

    async fn watch(&self, kind: &Kind) {
        self.collect();
        let state = self.hand.cluster.state.lock().unwrap();
        let event = match state.key_of(kind) {
            Some(resource) => {
                self.watched.lock().unwrap().insert(resource.clone(), kind.clone());
                let at = state.world.api.revision();
                let objects = state.list_at(&resource, kind, at);
                ClusterEvent::Listed { kind: kind.clone(), objects, resource_version: at.to_string() }
            }
            None => ClusterEvent::Lost { kind: kind.clone(), reason: "it is not served".to_owned() },
        };
        self.queue.lock().unwrap().push_back(event);
    }

    async fn next_event(&self) -> ClusterEvent {
        loop {
            let moved = self.hand.cluster.moved();
            if let Some(event) = self.try_event() {
                return event;
            }
            moved.await;
        }
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        self.collect();
        self.queue.lock().unwrap().pop_front()
    }
}

/// A controller's hand on the repository.
struct Pen(Hand);

#[async_trait]
impl Repository for Pen {
    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        self.0.git.fetch().await
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        self.0.git.tip().await
    }

    async fn directory(&self, at: &Revision, path: &str) -> Result<Option<Vec<Entry>>, RepositoryError> {
        self.0.git.directory(at, path).await
    }

    async fn files(&self, at: &Revision, path: &str) -> Result<Vec<Entry>, RepositoryError> {
        self.0.git.files(at, path).await
    }

    async fn read(&self, blob: &BlobId, limit: u64) -> Result<Bytes, RepositoryError> {
        self.0.git.read(blob, limit).await
    }

    async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, RepositoryError> {
        self.0.git.is_ancestor(ancestor, descendant).await
    }

    async fn versions(
        &self,
        head: &Revision,
        since: Option<&Revision>,
        below: &str,
        names: &[&str],
    ) -> Result<Vec<FileVersion>, RepositoryError> {
        self.0.git.versions(head, since, below, names).await
    }

    async fn changes(&self, from: &Revision, to: &Revision) -> Result<Option<Vec<Change>>, RepositoryError> {
        self.0.git.changes(from, to).await
    }

    async fn log(&self, head: &Revision, path: &str, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.0.git.log(head, path, limit).await
    }

    async fn merge(
        &self,
        path: &str,
        base: &Revision,
        ours: &Revision,
        theirs: &Revision,
    ) -> Result<Merge, RepositoryError> {
        self.0.git.merge(path, base, ours, theirs).await
    }

    async fn push(&self, onto: &Revision, drafts: &[CommitDraft]) -> Result<Push, RepositoryError> {
        let how = self.0.comes_to().await;
        let (hand, onto, drafts) = (self.0.clone(), onto.clone(), drafts.to_vec());
        let arrive = async move {
            let pushed = hand.git.push(&onto, &drafts).await;
            let what = drafts.iter().filter_map(|draft| draft.message.lines().next()).collect::<Vec<_>>().join("; ");
            hand.note(what);
            pushed
        };
        if how == Some(Stop::OnTheWay) {
            tokio::spawn(async move {
                tokio::time::sleep(ON_THE_WAY).await;
                let _ = arrive.await;
            });
            return std::future::pending().await;
        }
        arrive.await
    }

    async fn changed(&self) {
        self.0.git.changed().await;
    }
}

/// The lease, as one controller reaches it: without the checker, since it is no part of any rollout.
/// How writes to the lease go unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// Nobody hears of them.
    Unheard,
    /// They are carried out.
    CarriedOut,
}

struct LeasePort {
    who: &'static str,
    hand: Hand,
    /// Whose writes to the lease get no answer.
    silent: Arc<Mutex<BTreeMap<&'static str, Silent>>>,
}

#[async_trait]
impl Cluster for LeasePort {
    async fn write(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        let silent = self.silent.lock().unwrap().get(self.who).copied();
        if silent == Some(Silent::Unheard) {
            return std::future::pending().await;
        }
        let written = self.hand.cluster.state.lock().unwrap().carry_out(write, false);
        // Everybody who watches is told of it.
        self.hand.cluster.with(|_| ());
        if silent == Some(Silent::CarriedOut) {
            return std::future::pending().await;
        }
        written
    }

    async fn dry_run(&self, _: &Write) -> Result<Option<Object>, ClusterError> {
        panic!("a lease is never tried")
    }

    async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClusterError> {
        self.hand.cluster.read(kind, namespace, name).await
    }

    fn acting_as(&self, _: &Account) -> Arc<dyn Cluster> {
        panic!("nobody acts in another's name here")
    }

    async fn may(&self, _: &Access) -> Result<bool, ClusterError> {
        panic!("nobody acts in another's name here")
    }

    async fn scope(&self, _: &Kind) -> Result<Scope, ClusterError> {
        Ok(Scope::Namespaced)
    }

    async fn watch(&self, _: &Kind) {
        panic!("a lease is not watched")
    }

    async fn next_event(&self) -> ClusterEvent {
        std::future::pending().await
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        None
    }
}

/// One controller.
pub struct Replica {
    pub standing: watch::Receiver<Standing>,
    hand: Hand,
    slept: Arc<Mutex<Duration>>,
    task: JoinHandle<()>,
    tell: Option<oneshot::Sender<()>>,
}

impl Replica {
    /// Tells it to leave, as SIGTERM does; returns once it has.
    pub async fn leaves(mut self) {
        drop(self.tell.take());
        self.task.await.unwrap();
    }

    /// Stops it at the so-manieth write or push from now on.
    pub fn stop_after(&self, writes: usize, how: Stop) {
        *self.hand.stop_after.lock().unwrap() = Some((writes, how));
    }

    pub fn is_stopped(&self) -> bool {
        *self.hand.stopped.borrow()
    }

    pub fn wake(&self) {
        self.hand.stopped.send_replace(false);
    }

    pub fn kill(&self) {
        self.task.abort();
    }

    /// Lets its machine, and the others' as well, have slept: nothing happened meanwhile, and only what counts sleep went on.
    pub fn slept(&self, time: Duration) {
        *self.slept.lock().unwrap() += time;
    }

    pub fn leads(&self) -> bool {
        self.standing.borrow().leads
    }
}

/// A repository, a cluster, and controllers between them.
pub struct Replicas {
    pub clock: VirtualClock,
    pub git: SimGit,
    pub cluster: SimCluster,
    pub checker: Arc<Mutex<Checker>>,
    log: Arc<Mutex<Vec<Did>>>,
    silent: Arc<Mutex<BTreeMap<&'static str, Silent>>>,
    world: JoinHandle<()>,
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.world.abort();
        if !std::thread::panicking() {
            let violations = self.checker.lock().unwrap().take();
            assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.git.subjects().join("\n"));
        }
    }
}

impl Replicas {
    pub fn new(files: &[(&str, &str)]) -> Self {
        super::show_log();
        let (clock, faults, checker) = (VirtualClock::new(), Faults::default(), Arc::default());
        let options = WorldOptions { seed: 7, now: clock.time(), nodes: two_units(), pace: Pace::simulated() };
        let cluster = SimCluster::judged_by(World::new(options), clock.clone(), faults.clone(), Arc::clone(&checker));
        let git = SimGit::new(clock.clone(), faults, files).for_life(0, &cluster);
        let world = tokio::spawn(cluster.clone().live());
        Self { clock, git, cluster, checker, log: Arc::default(), silent: Arc::default(), world }
    }

    /// Starts a controller whose clock runs at `rate`.
    pub fn start(&self, who: &'static str, rate: f64) -> Replica {
        let (stopped, mut is_stopped) = watch::channel(false);
        let (tell, told) = oneshot::channel::<()>();
        let hand = Hand {
            who,
            clock: self.clock.clone(),
            cluster: self.cluster.clone(),
            git: self.git.clone(),
            log: self.log.clone(),
            stopped,
            stop_after: Arc::default(),
        };
        let slept = Arc::<Mutex<Duration>>::default();
        let clock = SkewedClock { clock: self.clock.clone(), began: self.clock.time(), rate, slept: slept.clone() };
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let (standing, seen) = watch::channel(Standing::default());
        let lease = Lease {
            cluster: Arc::new(LeasePort { who, hand: hand.clone(), silent: self.silent.clone() }),
            clock: clock.clone(),
            terms: Terms {
                namespace: "kube-system".to_owned(),
                name: "locktender".to_owned(),
                identity: who.to_owned(),
                duration: LEASE,
            },
            standing,
        };
        let hands = hand.clone();
        let run = async move {
            let stop = async move { drop(told.await) }.shared();
            let leading = lease.while_leading(stop.clone(), |fence| {
                let ports = Ports {
                    repository: Arc::new(Pen(hands.clone())),
                    cluster: Arc::new(Eyes::new(hands.clone())),
                    renderer: Arc::new(Bases),
                    ask: Arc::new(Outside::new(clock.clone())),
                    tell: Arc::new(Outside::new(clock.clone())),
                    clock: clock.clone(),
                };
                let run = controller::run(fenced(ports, &fence), Options::default(), None, stop.clone());
                run.map(Ok::<(), Infallible>)
            });
            let _ = leading.await;
        };
        let task = tokio::spawn(async move {
            let mut run = pin!(run);
            loop {
                // Nothing of it is polled while it is stopped.
                let _ = is_stopped.wait_for(|stopped| !stopped).await;
                tokio::select! {
                    biased;
                    _ = is_stopped.wait_for(|stopped| *stopped) => {}
                    () = &mut run => return,
                }
            }
        });
        Replica { standing: seen, hand, slept, task, tell: Some(tell) }
    }

    /// Lets every write of a controller to the lease go unanswered, or no longer.
    pub fn silence(&self, who: &'static str, silent: Option<Silent>) {
        let mut all = self.silent.lock().unwrap();
        match silent {
            Some(silent) => all.insert(who, silent),
            None => all.remove(who),
        };
    }

    /// Who has the lease, as the cluster says; "" where nobody has.
    pub fn holder(&self) -> String {
        let lease = self.cluster.with(|world| world.api.get("leases.coordination.k8s.io", "kube-system", "locktender"));
        lease.and_then(|lease| Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())).unwrap_or_default()
    }

    /// Returns what a controller did, in order.
    pub fn did(&self, who: &str) -> Vec<Did> {
        self.log.lock().unwrap().iter().filter(|did| did.who == who).cloned().collect()
    }

    pub fn has(&self, number: u32, event: Event) -> bool {
        let checker = self.checker.lock().unwrap();
        let state = checker.rollouts(&AppName::new("checkout")).and_then(|all| all.get(&number));
        state.is_some_and(|state| state.records.iter().any(|record| record.event == event))
    }

    /// Waits, in virtual time, until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = self.clock.time() + SignedDuration::from_hours(2);
        while !holds() {
            assert!(self.clock.time() < end, "never {what}:\n{}", self.git.subjects().join("\n"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn completed(&self, number: u32) {
        self.until(&format!("{number:04} is completed"), || self.has(number, Event::Completed)).await;
    }
}
