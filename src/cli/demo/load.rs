//! People's requests, a steady load of them: each on a connection of its own, to the next pod that the Service sends to, or
//! to the router that stands before it.
//! What came of each is kept; how many went well lately is measured on a page of its own, which analyses ask.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    endpoints::{Endpoint, Endpoints},
    router::Way,
};
use crate::{cli::error::Error, sandbox::server::Sandbox, server::page};

/// The time between two requests.
const PACE: Duration = Duration::from_millis(8);
/// The time that a measurement is about.
const LATELY: SignedDuration = SignedDuration::from_secs(2);

/// What came of one request.
#[derive(Clone, Debug)]
struct Answered {
    /// When it was sent.
    at: Timestamp,
    version: String,
    digest: String,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The pod answered well.
    Well,
    /// It answered that it failed.
    Error,
    /// There was no answer.
    Lost,
}

type Log = Arc<Mutex<Vec<Answered>>>;

fn lock(log: &Log) -> MutexGuard<'_, Vec<Answered>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The load.
pub struct Load {
    log: Log,
    listener: Option<TcpListener>,
    address: SocketAddr,
    /// Aborted when it is dropped.
    tasks: JoinSet<()>,
}

/// What came of the requests of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many each version answered well.
    pub well: BTreeMap<String, usize>,
    /// How many each version answered with an error.
    pub errors: BTreeMap<String, usize>,
    /// How many nobody answered.
    pub lost: usize,
    /// The versions in the order in which new connections reached them.
    pub reached: Vec<String>,
}

/// A router's weights are changed one after the other: what is reached for less long than this while they are is one switch.
const AT_ONCE: SignedDuration = SignedDuration::from_millis(100);

impl Counts {
    /// Counts all requests.
    pub fn all(&self) -> usize {
        self.well.values().chain(self.errors.values()).sum::<usize>() + self.lost
    }

    /// Counts those that did not go well.
    pub fn failed(&self) -> usize {
        self.errors.values().sum::<usize>() + self.lost
    }

    /// Counts those that a version answered, one way or the other.
    pub fn of(&self, version: &str) -> usize {
        [&self.well, &self.errors].into_iter().filter_map(|counts| counts.get(version)).sum()
    }

    /// Returns a version's share of those that were answered, in percent.
    pub fn share(&self, version: &str) -> f64 {
        let percent = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
        percent(self.of(version), self.all() - self.lost)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.all())?;
        for (version, count) in &self.well {
            write!(f, ", {count} answered by {version}")?;
        }
        for (version, count) in &self.errors {
            write!(f, ", {count} failed by {version}")?;
        }
        if self.lost > 0 {
            write!(f, ", {} lost", self.lost)?;
        }
        Ok(())
    }
}

impl Load {
    /// Takes an address for the page of measurements.
    ///
    /// # Errors
    ///
    /// None is free.
    pub async fn bind() -> Result<Self, Error> {
        let wrong = |error: std::io::Error| Error::because("cannot listen for the load's page", &error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok(Self { log: Log::default(), listener: Some(listener), address, tasks: JoinSet::new() })
    }

    /// Returns where the page is; below it, each version by its pods' digest.
    pub fn page(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins to send, as soon as there is somebody to send to.
    ///
    /// # Errors
    ///
    /// There is no TLS provider.
    pub fn run(mut self, sandbox: &Sandbox, service: &'static str, way: Way) -> Result<Self, Error> {
        let endpoints = Endpoints::of(sandbox)?;
        // Each request opens a connection of its own, as a new caller does.
        let client = Client::builder().timeout(Duration::from_secs(5)).no_proxy().pool_max_idle_per_host(0).build();
        let client = client.map_err(|error| Error::because("cannot make an HTTP client", &error))?;
        let log = self.log.clone();
        match way {
            Way::Pods => {
                let (sender, table) = watch::channel(Vec::new());
                self.tasks.spawn(async move { endpoints.follow(service, sender).await });
                self.tasks.spawn(send(client, table, log));
            }
            Way::Gateway => {
                self.tasks.spawn(async move { send_to(client, &endpoints.gateway().await, endpoints, log).await });
            }
            Way::Address(address) => {
                self.tasks.spawn(async move { send_to(client, &address.to_string(), endpoints, log).await });
            }
        }
        if let Some(listener) = self.listener.take() {
            let log = self.log.clone();
            self.tasks.spawn(async move {
                if let Err(error) = page::serve(listener, move |digest| lately(&log, digest)).await {
                    tracing::warn!(%error, "the load's page has ended");
                }
            });
        }
        Ok(self)
    }

    /// Counts the requests that were sent in a time.
    pub fn within(&self, time: &Range<Timestamp>) -> Counts {
        let mut counts = Counts::default();
        let mut since = None;
        for one in lock(&self.log).iter().filter(|one| time.contains(&one.at)) {
            let of_version = match one.outcome {
                Outcome::Lost => {
                    counts.lost += 1;
                    continue;
                }
                Outcome::Well => &mut counts.well,
                Outcome::Error => &mut counts.errors,
            };
            *of_version.entry(one.version.clone()).or_default() += 1;
            if counts.reached.last() != Some(&one.version) {
                let again = counts.reached.len() > 1 && counts.reached[counts.reached.len() - 2] == one.version;
                match since {
                    Some(since) if again && one.at.duration_since(since) < AT_ONCE => drop(counts.reached.pop()),
                    _ => counts.reached.push(one.version.clone()),
                }
                since = Some(one.at);
            }
        }
        counts
    }
}

/// Sends to a router for ever, one request after the other. Who answered is in the answer.
async fn send_to(client: Client, address: &str, endpoints: Endpoints, log: Log) {
    let mut digests = BTreeMap::<String, String>::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let at = Timestamp::now();
        let answered = match answer(&client, address).await {
            Some((outcome, pod, version)) => {
                if !digests.contains_key(&pod) {
                    digests.insert(pod.clone(), endpoints.digest(&pod).await.unwrap_or_default());
                }
                Answered { at, version, digest: digests.get(&pod).cloned().unwrap_or_default(), outcome }
            }
            None => Answered { at, version: String::new(), digest: String::new(), outcome: Outcome::Lost },
        };
        let mut log = lock(&log);
        // Nobody calls an application before there is one.
        if !log.is_empty() || answered.outcome == Outcome::Well {
            log.push(answered);
        }
    }
}

/// Sends a request; returns what came of it, and the pod that answered and its version. `None` where no pod did.
async fn answer(client: &Client, address: &str) -> Option<(Outcome, String, String)> {
    let answer = client.get(format!("http://{address}/")).send().await.ok()?;
    let outcome = if answer.status().is_success() { Outcome::Well } else { Outcome::Error };
    let told: Value = answer.json().await.ok()?;
    Some((outcome, told["name"].as_str()?.to_owned(), told["version"].as_str()?.to_owned()))
}

/// Sends to a Service's pods for ever, one request after the other.
async fn send(client: Client, mut table: watch::Receiver<Vec<Endpoint>>, log: Log) {
    // Nobody calls a Service before there is one.
    if table.wait_for(|endpoints| !endpoints.is_empty()).await.is_err() {
        return;
    }
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_usize.. {
        pace.tick().await;
        let endpoint = {
            let endpoints = table.borrow();
            endpoints.get(turn % endpoints.len().max(1)).cloned()
        };
        let at = Timestamp::now();
        let answered = match endpoint {
            None => Answered { at, version: String::new(), digest: String::new(), outcome: Outcome::Lost },
            Some(Endpoint { address, version, digest }) => {
                let outcome = match client.get(format!("http://{address}/")).send().await {
                    Ok(answer) if answer.status().is_success() => Outcome::Well,
                    Ok(_) => Outcome::Error,
                    Err(_) => Outcome::Lost,
                };
                Answered { at, version, digest, outcome }
            }
        };
        lock(&log).push(answered);
    }
}

/// Tells how a version's requests went lately: `rate` is the share that went well, `null` where there were none.
fn lately(log: &Log, digest: &str) -> Value {
    let since = Timestamp::now() - LATELY;
    let log = lock(log);
    let lately = log.iter().rev().take_while(|one| one.at >= since).filter(|one| one.digest == digest);
    let (mut well, mut all) = (0_u32, 0_u32);
    for one in lately {
        all += 1;
        well += u32::from(one.outcome == Outcome::Well);
    }
    let rate = (all > 0).then(|| f64::from(well) / f64::from(all));
    json!({ "requests": all, "rate": rate })
}
