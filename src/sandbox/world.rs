//! The whole cluster behind the API: its server, controllers and kubelet, moved by a clock that the caller holds.
//!
//! Synchronous and deterministic: with the same options, the same calls make the same objects, byte for byte. The
//! simulation moves it under a virtual clock, the sandbox under the real one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    actors::{Actors, Work},
    api::{Api, ApiOptions, DeleteOptions, EventKind, Propagation, Status},
    cache::{Cache, Key},
    controllers,
    faults::Faults,
    kubelet::{Kubelet, ModelRuntime, Runtime},
    nodes::NodeSpec,
    pace::Pace,
    value,
    write::{Dependents, Write},
};

/// How a cluster starts.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Where UIDs and generated names come from.
    pub seed: u64,
    /// What time it is.
    pub now: Timestamp,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// How long things take.
    pub pace: Pace,
}

/// A cluster.
pub struct World {
    /// The API server. Whoever writes through it calls [`World::advance`] afterwards.
    pub api: Api,
    seen: u64,
    actors: Actors,
}

/// More pieces of work than this at one instant mean that two controllers undo each other's writes.
const MOST_WORK: usize = 10_000_000;

impl World {
    /// Builds a cluster whose containers are only modelled.
    pub fn new(options: WorldOptions) -> Self {
        Self::with_runtime(options, Box::new(ModelRuntime::default()))
    }

    /// Builds a cluster whose containers run in `runtime`.
    pub fn with_runtime(options: WorldOptions, runtime: Box<dyn Runtime>) -> Self {
        let WorldOptions { seed, now, nodes, pace } = options;
        let kubelet = Kubelet::new(nodes, pace.clone(), runtime);
        let mut world = Self {
            api: Api::new(ApiOptions { seed, now }),
            seen: 0,
            actors: Actors::new(controllers::all(), kubelet, pace),
        };
        world.advance(now);
        world
    }

    /// Returns the faults, to be changed. [`World::advance`] makes them felt.
    pub fn faults(&mut self) -> &mut Faults {
        self.actors.faults()
    }

    /// Returns what the controllers know: everything up to the last [`World::advance`].
    pub fn cache(&self) -> &Cache {
        self.actors.cache()
    }

    /// Lets controllers and kubelet react to everything until `now`; returns when something is next due on its own.
    /// What is due in between happens at its own time. Time never goes back.
    pub fn advance(&mut self, now: Timestamp) -> Option<Timestamp> {
        loop {
            self.settle();
            match self.actors.next_due(self.api.now()) {
                Some(due) if due <= now => {
                    let at = due.max(self.api.now());
                    self.api.set_time(at);
                }
                due => {
                    let at = now.max(self.api.now());
                    self.api.set_time(at);
                    return due;
                }
            }
        }
    }

    /// Does everything that is to be done at this instant.
    fn settle(&mut self) {
        let now = self.api.now();
        self.notice_faults(now);
        for _ in 0..MOST_WORK {
            self.take_in_events();
            let Some(work) = self.actors.work(now) else { return };
            self.carry_out(work, now);
        }
        tracing::error!("the sandbox's controllers do not come to rest; time goes on");
    }

    fn notice_faults(&mut self, now: Timestamp) {
        if let Some(work) = self.actors.notice_faults(now) {
            self.carry_out(work, now);
        }
    }

    fn carry_out(&mut self, work: Work, now: Timestamp) {
        let mut refused = Vec::new();
        for write in work.writes {
            if let Err(reason) = self.write(&write) {
                tracing::debug!(by = ?work.by, reason, "a write was refused");
                refused.push(write);
            }
        }
        self.actors.done(work.by, &refused, now);
    }

    fn take_in_events(&mut self) {
        if self.api.revision() == self.seen {
            return;
        }
        // Nobody falls behind: every write is followed by this, and the log holds thousands.
        let Ok(events) = self.api.events_since(self.seen).map(|events| events.cloned().collect::<Vec<_>>()) else {
            tracing::error!(seen = self.seen, "the sandbox's controllers missed changes: the log was compacted");
            self.seen = self.api.revision();
            return;
        };
        let now = self.api.now();
        for event in events {
            self.seen = event.revision;
            let after = (event.kind != EventKind::Deleted).then_some(&event.object);
            self.actors.observe(&event.resource, &event.object, after, now);
            self.notice_faults(now);
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Refused> {
        match write {
            Write::Create(object) => done(self.api.create(object.clone())),
            Write::Update(object) => done(self.api.update(object.clone(), None)),
            Write::Status(object) => done(self.api.update(object.clone(), Some("status"))),
            Write::Bind { pod, uid, node } => self.bind(pod, uid, node),
            Write::Delete { key, uid, dependents, now } => self.delete(key, uid, *dependents, *now),
            Write::Finalize(namespace) => {
                let mut namespace = namespace.clone();
                value::set(&mut namespace, &["spec", "finalizers"], json!([]));
                done(self.api.update(namespace, Some("finalize")))
            }
        }
    }

    fn bind(&mut self, pod: &Key, uid: &str, node: &str) -> Result<(), Refused> {
        let Some(live) = self.api.get("pods", &pod.namespace, &pod.name) else { return Ok(()) };
        if value::uid(&live) != uid {
            return Ok(());
        }
        let mut bound = Value::clone(&live);
        value::set(&mut bound, &["spec", "nodeName"], node);
        done(self.api.update(bound, Some("binding")))
    }

    fn delete(&mut self, key: &Key, uid: &str, dependents: Dependents, at_once: bool) -> Result<(), Refused> {
        let options = DeleteOptions {
            propagation: Some(match dependents {
                Dependents::After => Propagation::Background,
                Dependents::Before => Propagation::Foreground,
            }),
            grace_period_seconds: at_once.then_some(0),
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        };
        match self.api.delete(&key.resource, &key.namespace, &key.name, options) {
            // Somebody else was faster.
            Err(status) if status.code == 404 => Ok(()),
            result => done(result),
        }
    }
}

/// What the API server said against a write.
type Refused = String;

fn done<T>(result: Result<T, Status>) -> Result<(), Refused> {
    result.map(drop).map_err(|status| status.to_string())
}
