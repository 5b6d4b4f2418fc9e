//! Requests under way: those for one object one after the other, those for different ones at the same time.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tokio::task::{JoinError, JoinSet};

use super::requests;
use crate::sandbox::{
    actors::{Actor, Work},
    cache::Key,
    value,
    write::Write,
};

/// More requests than this are not sent at the same time.
const MOST_AT_ONCE: usize = 32;

/// What requests must not overtake each other for: an object, by kind, namespace and name; or a controller's key.
type Lane = (usize, String, String, String);

/// Requests that are sent one after the other, and how it went.
pub(super) struct Job {
    lane: Lane,
    by: Actor,
    /// Objects as they are after what was carried out.
    pub answers: Vec<Value>,
    carried_out: Option<(String, String)>,
    refused: Vec<Write>,
}

/// All requests that wait or are under way.
pub(super) struct Lanes {
    client: kube::Client,
    /// What waits, by lane; a lane that is here has a request under way, or is in `ready`.
    waiting: BTreeMap<Lane, VecDeque<Work>>,
    ready: VecDeque<Lane>,
    under_way: JoinSet<Job>,
}

impl Lanes {
    /// Makes empty lanes for a client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, waiting: BTreeMap::new(), ready: VecDeque::new(), under_way: JoinSet::new() }
    }

    /// Adds what somebody asks for. The kubelet's writes are as many affairs as they have objects.
    pub fn add(&mut self, work: Work) {
        match &work.by {
            Actor::Kubelet => {
                for write in work.writes {
                    let lane = lane_of(&write);
                    self.put(lane, Work { by: Actor::Kubelet, writes: vec![write] });
                }
            }
            Actor::Controller { at, key, .. } => {
                let lane = lane(at + 1, key);
                self.put(lane, work);
            }
        }
        self.start();
    }

    fn put(&mut self, lane: Lane, work: Work) {
        let is_idle = !self.waiting.contains_key(&lane);
        self.waiting.entry(lane.clone()).or_default().push_back(work);
        if is_idle {
            self.ready.push_back(lane);
        }
    }

    fn start(&mut self) {
        while self.under_way.len() < MOST_AT_ONCE
            && let Some(lane) = self.ready.pop_front()
        {
            let Some(work) = self.waiting.get_mut(&lane).and_then(VecDeque::pop_front) else { continue };
            self.under_way.spawn(carry_out(self.client.clone(), lane, work));
        }
    }

    /// Waits for the next job to end; for ever where there is none. Cancel safe.
    pub async fn finished(&mut self) -> Option<Result<Job, JoinError>> {
        match self.under_way.join_next().await {
            Some(job) => Some(job),
            None => std::future::pending().await,
        }
    }

    /// Goes on after a job. Returns who asked for it, and what was refused of it.
    pub fn free(&mut self, job: Job) -> (Actor, Vec<Write>) {
        let waiting = self.waiting.entry(job.lane.clone()).or_default();
        if let Some((before, after)) = &job.carried_out {
            // Nobody else wrote in between, or ours would have been refused: what was decided on the same state as
            // the last status is as good now.
            let objects = waiting.iter_mut().flat_map(|work| &mut work.writes).filter_map(|write| match write {
                Write::Status(object) => Some(object),
                _ => None,
            });
            for object in objects.filter(|object| version(object) == before) {
                value::set(object, &["metadata", "resourceVersion"], after.as_str());
            }
        }
        if waiting.is_empty() {
            self.waiting.remove(&job.lane);
        } else {
            self.ready.push_back(job.lane);
        }
        self.start();
        (job.by, job.refused)
    }
}

fn lane(of: usize, key: &Key) -> Lane {
    (of, key.resource.to_string(), key.namespace.clone(), key.name.clone())
}

fn lane_of(write: &Write) -> Lane {
    let of = |object: &Value| {
        let kind = value::text(object, &["kind"]).to_ascii_lowercase() + "s";
        (0, kind, value::namespace(object).to_owned(), value::name(object).to_owned())
    };
    match write {
        Write::Create(object) | Write::Update(object) | Write::Status(object) | Write::Finalize(object) => of(object),
        Write::Bind { pod: key, .. } | Write::Delete { key, .. } => lane(0, key),
    }
}

fn version(object: &Value) -> &str {
    value::text(object, &["metadata", "resourceVersion"])
}

async fn carry_out(client: kube::Client, lane: Lane, work: Work) -> Job {
    let mut job = Job { lane, by: work.by, answers: Vec::new(), carried_out: None, refused: Vec::new() };
    for write in work.writes {
        match requests::send(&client, &write).await {
            Ok(None) => {}
            Ok(Some(answer)) => {
                if let Write::Status(object) = &write {
                    job.carried_out = Some((version(object).to_owned(), version(&answer).to_owned()));
                }
                job.answers.push(answer);
            }
            Err(reason) => {
                tracing::debug!(lane = ?job.lane, reason, "a write was refused");
                job.refused.push(write);
            }
        }
    }
    job
}
