//! Real requests over real connections while an application is switched, or grows by weights: none fails, and on new
//! connections none reaches a version that should not serve.
//!
//! `LOCKTENDER_LOAD=all` goes through twenty switches and ten canaries; otherwise it is a sample.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    time::{Duration, Instant},
};

use locktender::core::{
    ledger::{Event, Record},
    rollout::report::Activity,
};
use serde_json::Value;

use super::{
    blue_green::{blue_green, with_service},
    canary::canary,
    routed::{self, GATEWAY_FIELDS, haproxy_fields},
    *,
};
use crate::{
    histories::release::{Place, Release, two_units},
    traffic::{
        haproxy::Haproxy,
        load::{Connection, ask},
    },
};

/// A client that knows a Service by its EndpointSlices, as kube-proxy does, or a router by its address.
#[derive(Default)]
pub(super) struct Load {
    pub(super) asked: usize,
    turns: usize,
    pub(super) failed: Vec<String>,
    /// The versions in the order in which new connections reached them.
    reached: Vec<String>,
    /// A connection to whoever was ever asked, for as long as it is kept there.
    kept: BTreeMap<SocketAddr, Connection>,
    router: Option<SocketAddr>,
}

impl Load {
    async fn endpoints(release: &Release) -> Vec<SocketAddr> {
        let path = "apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        let slices = release.list(path, "endpointslices.discovery.k8s.io").await;
        let of_it =
            slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "checkout");
        let one = |slice: &Value| {
            let port = slice["ports"][0]["port"].clone();
            let ready =
                slice["endpoints"].as_array().into_iter().flatten().filter(|it| it["conditions"]["ready"] != false);
            let address = |it: &Value| format!("{}:{port}", it["addresses"][0].as_str().unwrap()).parse().unwrap();
            ready.map(address).collect::<Vec<_>>()
        };
        of_it.flat_map(|slice| one(slice)).collect()
    }

    /// Asks once on a new connection, and once on each that is kept.
    pub(super) async fn turn(&mut self, release: &Release) {
        self.asked += 1;
        self.turns += 1;
        let address = match self.router {
            Some(router) => router,
            None => match Self::endpoints(release).await.as_slice() {
                [] => return self.failed.push("nobody is there".to_owned()),
                endpoints => endpoints[self.turns % endpoints.len()],
            },
        };
        match ask(address, &[]).await {
            Ok(reply) if reply.status != 200 => self.failed.push(reply.head.first),
            Ok(reply) if self.reached.last() == Some(&reply.version()) => {}
            Ok(reply) => self.reached.push(reply.version()),
            Err(why) => self.failed.push(format!("{address}: {why}")),
        }
        self.keep_on(address).await;
    }

    /// Asks on every connection that is kept, and opens one to this address where there is none.
    async fn keep_on(&mut self, address: SocketAddr) {
        if let Entry::Vacant(place) = self.kept.entry(address) {
            match Connection::open(address).await {
                Ok(connection) => drop(place.insert(connection)),
                Err(why) => self.failed.push(format!("{address}: to be kept: {why}")),
            }
        }
        for (address, mut connection) in std::mem::take(&mut self.kept) {
            self.asked += 1;
            match connection.get("/", &[]).await {
                Ok(reply) if reply.status != 200 => self.failed.push(reply.head.first),
                // Told that nothing follows, a client opens another.
                Ok(reply) if reply.head.closes("") => {}
                Ok(_) => drop(self.kept.insert(address, connection)),
                Err(why) => self.failed.push(format!("{address}: kept: {why}")),
            }
        }
    }
}

/// By what way requests come.
enum Door {
    Service,
    Gateway,
    Haproxy(Box<Haproxy>),
}

impl Door {
    /// What a policy says of it.
    fn fields(&self) -> String {
        match self {
            Self::Service => String::new(),
            Self::Gateway => GATEWAY_FIELDS.to_owned(),
            Self::Haproxy(haproxy) => haproxy_fields(haproxy),
        }
    }

    async fn address(&self, release: &Release) -> Option<SocketAddr> {
        match self {
            Self::Service => None,
            Self::Gateway => Some(routed::address(release).await),
            Self::Haproxy(haproxy) => Some(haproxy.config.bind),
        }
    }
}

/// An application under load.
struct Loaded {
    release: Release,
    load: Load,
    began: Instant,
    /// How many rollouts there were.
    number: u32,
    /// Whether the router changes its weights one after the other, so that a switch has a moment in which both serve.
    gradual: bool,
}

impl Loaded {
    /// 1.0 is installed.
    async fn new(policy: &str, door: &Door) -> Self {
        let (app, manifest) = (app(""), with_service("1.0"));
        let mut files = vec![(POLICY_FILE, policy), (APP_FILE, &*app), (DEPLOYMENT, &*manifest)];
        let route = routed::files();
        if matches!(door, Door::Gateway) {
            files.extend(route.iter().map(|(path, text)| (*path, text.as_str())));
        }
        let release = Release::on(Place::Sandbox, &files, two_units(), 10).await;
        release.until("checkout", "1.0 is stable", |seen| seen.is(1, Activity::Stable)).await;
        let load = Load { router: door.address(&release).await, ..Load::default() };
        let gradual = matches!(door, Door::Haproxy(_));
        Self { release, load, began: Instant::now(), number: 1, gradual }
    }

    fn is_over(&self, event: Event) -> bool {
        let ledger = self.release.ledger("checkout");
        ledger.get(&self.number).is_some_and(|all| all.iter().any(|one| one.event == event))
    }

    /// Asks, and holds new connections to what the ledger says: once a switch is recorded to be done, nobody reaches the
    /// version before it.
    async fn turn(&mut self) {
        let switched = self.is_switched();
        self.load.turn(&self.release).await;
        // The machine has two cores, and others on them.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let reached = &mut self.load.reached;
        if let [.., before, _, now] = reached.as_slice()
            && before == now
            && self.gradual
            && !switched
        {
            reached.pop();
        }
    }

    /// Returns whether the rollout's last switch, there or back, is recorded to be done.
    fn is_switched(&self) -> bool {
        let ledger = self.release.ledger("checkout");
        let Some(all) = ledger.get(&self.number) else { return false };
        if all.iter().any(|one| one.event == Event::Aborting) {
            return all.iter().any(|one| one.event == Event::Aborted);
        }
        let at_switch = |one: &Record| one.stage.as_ref().is_some_and(|stage| stage.as_str() == "switch");
        all.iter().any(|one| one.event == Event::StageWaiting && at_switch(one))
    }

    /// Somebody merges another version, under this policy; returns its name.
    fn merge(&mut self, policy: &str) -> String {
        self.merge_as("", policy)
    }

    fn merge_as(&mut self, what: &str, policy: &str) -> String {
        self.number += 1;
        let tag = format!("{}.0{what}", self.number);
        self.release.commit(&tag, |clone| {
            clone.write(DEPLOYMENT, &with_service(&tag));
            clone.write(POLICY_FILE, policy);
        });
        tag
    }

    /// Somebody merges another version, and requests go on until it is out.
    async fn complete(&mut self, policy: &str) -> String {
        let tag = self.merge(policy);
        while !self.is_over(Event::Completed) {
            assert!(!self.is_over(Event::Aborted), "{tag} went back");
            self.turn().await;
        }
        tag
    }

    /// Somebody merges a version whose pods never get ready: it goes back by itself, and nobody has reached it.
    async fn fail(&mut self, policy: &str) {
        let soon = policy.replacen("  strategy:", "  progressDeadlineSeconds: 3\n  strategy:", 1);
        let tag = self.merge_as("-never-ready", &soon);
        self.load.reached.clear();
        while !self.is_over(Event::Aborted) {
            assert!(!self.is_over(Event::Completed), "{tag} is out");
            self.turn().await;
        }
        self.turn().await;
        assert!(!self.load.reached.contains(&tag), "{:?}", self.load.reached);
    }

    /// Aborts the rollout that is under way, and goes on asking until it is back.
    async fn abort(&mut self) {
        let path = format!("rollouts/checkout/{:04}/abort.yaml", self.number);
        self.release.commit("abort", |clone| {
            clone.write(&path, "");
        });
        while !self.is_over(Event::Aborted) {
            self.turn().await;
        }
    }

    #[allow(clippy::print_stdout)]
    fn none_failed(&self, what: &str) {
        assert_eq!(self.load.failed, Vec::<String>::new(), "of {} requests", self.load.asked);
        let (asked, seconds) = (self.load.asked, self.began.elapsed().as_secs_f64());
        println!("{what}: {asked} requests, none failed; {:.0} a second", asked as f64 / seconds);
    }
}

/// How often it is done: a few times, or as often as is asked for.
fn times(few: u32, all: u32) -> u32 {
    if std::env::var("LOCKTENDER_LOAD").is_ok_and(|load| load == "all") { all } else { few }
}

/// Switches, and goes back from the last one; no new connection reaches a version that should not serve.
async fn switches(what: &str, door: Door) {
    let policy = |watch: &str| {
        let fields = format!("confirm: none\nwatch: {{duration: {watch}}}\nscaleDownDelaySeconds: 2\n");
        blue_green(&(door.fields() + &fields + "graceful: {gracePeriodSeconds: 1}"))
    };
    let short = policy("1s");
    let mut loaded = Loaded::new(&short, &door).await;
    let mut released = vec!["1.0".to_owned()];
    for _ in 0..times(4, 20) {
        released.push(loaded.complete(&short).await);
    }
    assert_eq!(loaded.load.reached, released, "never the one before again");
    // Switched, and aborted while it is watched.
    let last = loaded.merge(&policy("1h"));
    while !loaded.is_switched() {
        loaded.turn().await;
    }
    loaded.turn().await;
    assert_eq!(loaded.load.reached.split_off(released.len()), [&*last]);
    loaded.load.reached = vec![last.clone()];
    loaded.abort().await;
    loaded.turn().await;
    assert_eq!(loaded.load.reached, [last, released.pop().unwrap()]);
    loaded.fail(&short).await;
    loaded.none_failed(&format!("{what}: {} switches, one back, and one that failed", released.len()));
}

/// Grows canaries; only the two versions that a rollout is about are reached, and after it only the new one.
async fn canaries(what: &str, door: Door) {
    let delay = if matches!(door, Door::Service) { "" } else { "scaleDownDelaySeconds: 1\n" };
    let policy = canary(&(door.fields() + delay + "steps:\n- setWeight: 50\ngraceful: {gracePeriodSeconds: 1}"));
    let mut loaded = Loaded::new(&policy, &door).await;
    let mut before = "1.0".to_owned();
    let count = times(2, 10);
    for _ in 0..count {
        loaded.load.reached.clear();
        let tag = loaded.complete(&policy).await;
        let strangers = loaded.load.reached.iter().filter(|version| **version != before && **version != tag);
        assert_eq!(strangers.count(), 0, "{:?}", loaded.load.reached);
        loaded.load.reached.clear();
        for _ in 0..20 {
            loaded.load.turn(&loaded.release).await;
        }
        assert_eq!(loaded.load.reached, [&*tag], "once it is out, nothing else is reached");
        before = tag;
    }
    // Half of the requests, and back.
    let waits = policy.replacen("- setWeight: 50", "- setWeight: 50\n      - confirm: {}", 1);
    let tag = loaded.merge(&waits);
    loaded.load.reached.clear();
    while !(loaded.is_over(Event::StageWaiting) && loaded.load.reached.contains(&tag)) {
        loaded.turn().await;
    }
    loaded.abort().await;
    loaded.load.reached.clear();
    for _ in 0..20 {
        loaded.load.turn(&loaded.release).await;
    }
    assert_eq!(loaded.load.reached, [&*before], "once it is back, nothing else is reached");
    loaded.fail(&policy).await;
    loaded.none_failed(&format!("{what}: {count} canaries, one back, and one that failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_switches_and_on_the_way_back() {
    switches("a Service", Door::Service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_canaries_grow() {
    canaries("a Service", Door::Service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_switches_and_on_the_way_back_by_a_gateway() {
    switches("a gateway", Door::Gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_canaries_grow_by_a_gateway() {
    canaries("a gateway", Door::Gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_switches_and_on_the_way_back_by_haproxy() {
    switches("HAProxy", Door::Haproxy(Box::new(Haproxy::start().await))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_canaries_grow_by_haproxy() {
    canaries("HAProxy", Door::Haproxy(Box::new(Haproxy::start().await))).await;
}
