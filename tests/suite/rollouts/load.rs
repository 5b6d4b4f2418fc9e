//! Real requests over real connections while an application is switched, or grows by weights: none fails, and on new
//! connections none reaches a version that should not serve.
//!
//! `LOCKTENDER_LOAD=all` goes through twenty switches and ten canaries; otherwise it is a sample.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use locktender::core::{ledger::Event, rollout::report::Activity};
use serde_json::Value;

use super::{
    blue_green::{blue_green, with_service},
    canary::canary,
    *,
};
use crate::histories::release::{Place, Release, two_units};

/// A connection that is kept for so many requests: less long than the old side stays.
const KEPT: u32 = 3;

/// Asks on a connection; returns the version that answered.
fn ask(connection: &mut BufReader<TcpStream>) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    connection.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: checkout\r\n\r\n").map_err(told)?;
    let (mut status, mut length) = (String::new(), 0);
    connection.read_line(&mut status).map_err(told)?;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).map_err(told)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).map_err(told)?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(status);
    }
    let body: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(body["version"].as_str().unwrap_or_default().to_owned())
}

fn connect(address: &str) -> Result<BufReader<TcpStream>, String> {
    let connection = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Ok(BufReader::new(connection))
}

/// A client that knows a Service by its EndpointSlices, as kube-proxy does.
#[derive(Default)]
pub(super) struct Load {
    pub(super) asked: usize,
    pub(super) failed: Vec<String>,
    /// The versions in the order in which new connections reached them.
    reached: Vec<String>,
    kept: Option<(BufReader<TcpStream>, u32)>,
}

impl Load {
    async fn endpoints(release: &Release) -> Vec<String> {
        let path = "apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        let slices = release.list(path, "endpointslices.discovery.k8s.io").await;
        let of_it =
            slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "checkout");
        let one = |slice: &Value| {
            let port = slice["ports"][0]["port"].clone();
            let ready =
                slice["endpoints"].as_array().into_iter().flatten().filter(|it| it["conditions"]["ready"] != false);
            ready.map(|it| format!("{}:{port}", it["addresses"][0].as_str().unwrap())).collect::<Vec<_>>()
        };
        of_it.flat_map(|slice| one(slice)).collect()
    }

    /// Asks once on a new connection, and once on one that is kept.
    pub(super) async fn turn(&mut self, release: &Release) {
        let endpoints = Self::endpoints(release).await;
        self.asked += 2;
        if endpoints.is_empty() {
            return self.failed.push("nobody is there".to_owned());
        }
        let address = &endpoints[self.asked / 2 % endpoints.len()];
        match connect(address).and_then(|mut connection| ask(&mut connection)) {
            Ok(version) if self.reached.last() == Some(&version) => {}
            Ok(version) => self.reached.push(version),
            Err(why) => self.failed.push(why),
        }
        let kept = match self.kept.take().filter(|(_, left)| *left > 0) {
            Some(kept) => Ok(kept),
            None => connect(address).map(|connection| (connection, KEPT)),
        };
        match kept.and_then(|(mut connection, left)| ask(&mut connection).map(|_| (connection, left - 1))) {
            Ok(kept) => self.kept = Some(kept),
            Err(why) => self.failed.push(format!("kept: {why}")),
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
}

impl Loaded {
    /// 1.0 is installed.
    async fn new(policy: &str) -> Self {
        let manifest = with_service("1.0");
        let files = [(POLICY_FILE, policy), (APP_FILE, &*app("")), (DEPLOYMENT, &*manifest)];
        let release = Release::on(Place::Sandbox, &files, two_units(), 10).await;
        release.until("checkout", "1.0 is stable", |seen| seen.is(1, Activity::Stable)).await;
        Self { release, load: Load::default(), began: Instant::now(), number: 1 }
    }

    fn is_over(&self, event: Event) -> bool {
        let ledger = self.release.ledger("checkout");
        ledger.get(&self.number).is_some_and(|all| all.iter().any(|one| one.event == event))
    }

    /// Somebody merges another version; returns its name.
    fn merge(&mut self) -> String {
        self.number += 1;
        let tag = format!("{}.0", self.number);
        self.release.commit(&tag, |clone| {
            clone.write(DEPLOYMENT, &with_service(&tag));
        });
        tag
    }

    /// Somebody merges another version, and requests go on until it is out.
    async fn complete(&mut self) -> String {
        let tag = self.merge();
        while !self.is_over(Event::Completed) {
            assert!(!self.is_over(Event::Aborted), "{tag} went back");
            self.load.turn(&self.release).await;
        }
        tag
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_switches_and_on_the_way_back() {
    let policy =
        blue_green("confirm: none\nwatch: {duration: 1s}\nscaleDownDelaySeconds: 2\ngraceful: {gracePeriodSeconds: 1}");
    let mut loaded = Loaded::new(&policy).await;
    let mut released = vec!["1.0".to_owned()];
    for _ in 0..times(4, 20) {
        released.push(loaded.complete().await);
    }
    assert_eq!(loaded.load.reached, released, "never the one before again");
    // Switched, and aborted while it is watched.
    let last = loaded.merge();
    let mut aborted = false;
    while !loaded.is_over(Event::Aborted) && !loaded.is_over(Event::Completed) {
        loaded.load.turn(&loaded.release).await;
        if !aborted && loaded.load.reached.last() == Some(&last) {
            aborted = true;
            let path = format!("rollouts/checkout/{:04}/abort.yaml", loaded.number);
            loaded.release.commit("abort", |clone| {
                clone.write(&path, "");
            });
        }
    }
    assert!(loaded.is_over(Event::Aborted), "it was aborted in time");
    assert_eq!(loaded.load.reached.split_off(released.len()), [last, released.pop().unwrap()]);
    loaded.none_failed(&format!("{} switches, and one back", released.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_canaries_grow() {
    let mut loaded = Loaded::new(&canary("steps:\n- setWeight: 50\ngraceful: {gracePeriodSeconds: 1}")).await;
    let mut before = "1.0".to_owned();
    let count = times(2, 10);
    for _ in 0..count {
        loaded.load.reached.clear();
        let tag = loaded.complete().await;
        let strangers = loaded.load.reached.iter().filter(|version| **version != before && **version != tag);
        assert_eq!(strangers.count(), 0, "{:?}", loaded.load.reached);
        loaded.load.reached.clear();
        for _ in 0..20 {
            loaded.load.turn(&loaded.release).await;
        }
        assert_eq!(loaded.load.reached, [&*tag], "once it is out, nothing else is reached");
        before = tag;
    }
    loaded.none_failed(&format!("{count} canaries"));
}
