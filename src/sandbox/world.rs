//! The whole cluster behind the API: its server, controllers and kubelet, moved by a clock that the caller holds.
//!
//! Synchronous and deterministic: with the same options, the same calls make the same objects, byte for byte. The
//! simulation moves it under a virtual clock, the sandbox under the real one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    api::{Api, ApiOptions, DeleteOptions, EventKind, Propagation, Status},
    cache::{Cache, Key},
    controllers::{self, Change, Controller, Queue, View},
    faults::{self, Faults},
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
    cache: Cache,
    seen: u64,
    controllers: Vec<(Box<dyn Controller>, Queue)>,
    kubelet: Kubelet,
    faults: Faults,
    faults_seen: u64,
    pace: Pace,
}

/// More rounds than this at one instant mean that two controllers undo each other's writes.
const MOST_ROUNDS: usize = 100_000;

/// After so many keys the others have their turn, whoever else waits.
const MOST_KEYS: usize = 10_000;

impl World {
    /// Builds a cluster whose containers are only modelled.
    pub fn new(options: WorldOptions) -> Self {
        Self::with_runtime(options, Box::new(ModelRuntime::default()))
    }

    /// Builds a cluster whose containers run in `runtime`.
    pub fn with_runtime(options: WorldOptions, runtime: Box<dyn Runtime>) -> Self {
        let WorldOptions { seed, now, nodes, pace } = options;
        let mut world = Self {
            api: Api::new(ApiOptions { seed, now }),
            cache: Cache::default(),
            seen: 0,
            controllers: controllers::all().into_iter().map(|it| (it, Queue::default())).collect(),
            kubelet: Kubelet::new(nodes, pace.clone(), runtime),
            faults: Faults::default(),
            faults_seen: 0,
            pace,
        };
        world.advance(now);
        world
    }

    /// Returns the faults, to be changed. [`World::advance`] makes them felt.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Returns what the controllers know: everything up to the last [`World::advance`].
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Lets controllers and kubelet react to everything until `now`; returns when something is next due on its own.
    /// What is due in between happens at its own time. Time never goes back.
    pub fn advance(&mut self, now: Timestamp) -> Option<Timestamp> {
        loop {
            self.settle();
            match self.next_due() {
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

    fn next_due(&self) -> Option<Timestamp> {
        let now = self.api.now();
        let active = self.controllers.iter().filter(|(controller, _)| !controller.is_stopped(&self.faults));
        active.filter_map(|(_, queue)| queue.next_due(now)).chain(self.kubelet.next_due()).min()
    }

    /// Does everything that is to be done at this instant.
    fn settle(&mut self) {
        let now = self.api.now();
        self.notice_faults();
        for _ in 0..MOST_ROUNDS {
            self.take_in_events();
            if self.kubelet.next_due().is_some_and(|due| due <= now) || self.kubelet.has_answers() {
                let writes = self.kubelet.advance(now, &self.faults);
                self.write_for_kubelet(writes, now);
                continue;
            }
            // Each controller works off what it has before the next one looks: fewer looks at half of a change.
            let idle = (0..self.controllers.len()).all(|at| self.work_off(at, now) == 0);
            if idle {
                return;
            }
        }
        tracing::error!("the sandbox's controllers do not come to rest; time goes on");
    }

    /// Lets one controller look at every key that is due, and returns how many there were.
    fn work_off(&mut self, at: usize, now: Timestamp) -> usize {
        let mut done = 0;
        while let Some((controller, queue)) = self.controllers.get_mut(at)
            && !controller.is_stopped(&self.faults)
            && done < MOST_KEYS
            && let Some(key) = queue.pop(now)
        {
            self.reconcile(at, &key, now);
            self.take_in_events();
            done += 1;
        }
        done
    }

    fn notice_faults(&mut self) {
        if self.faults.revision() == self.faults_seen {
            return;
        }
        self.faults_seen = self.faults.revision();
        for (controller, queue) in &mut self.controllers {
            controller.concerned_by_faults(&self.cache).into_iter().for_each(|key| queue.add(key));
        }
        let now = self.api.now();
        let writes = self.kubelet.advance(now, &self.faults);
        self.write_for_kubelet(writes, now);
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
            let before = self.cache.at(&Key::of(&event.resource, &event.object)).cloned();
            let after = (event.kind != EventKind::Deleted).then_some(event.object);
            self.cache.apply(&event.resource, before.as_ref(), after.as_ref());
            let change = Change { resource: &event.resource, before: before.as_ref(), now: after.as_ref() };
            for (controller, queue) in &mut self.controllers {
                controller.concerns(&change, &self.cache).into_iter().for_each(|key| queue.add(key));
            }
            self.kubelet.observe(&event.resource, before.as_ref(), after.as_ref(), now);
            self.notice_command(&change);
        }
    }

    fn notice_command(&mut self, change: &Change<'_>) {
        let (namespace, name) = faults::CONFIG_MAP;
        let is_command = |object: &Value| value::namespace(object) == namespace && value::name(object) == name;
        if change.is("configmaps") && change.states().any(|object| is_command(object)) {
            self.faults.command(change.now.map(AsRef::as_ref));
            self.notice_faults();
        }
    }

    fn reconcile(&mut self, at: usize, key: &Key, now: Timestamp) {
        let Some((controller, _)) = self.controllers.get_mut(at) else { return };
        let view = View { cache: &self.cache, now, faults: &self.faults, pace: &self.pace };
        let outcome = controller.reconcile(key, &view);
        let mut refused = false;
        for write in &outcome.writes {
            if let Err(status) = self.write(write) {
                tracing::debug!(key = ?key, %status, "a controller's write was refused");
                refused = true;
            }
        }
        let Some((_, queue)) = self.controllers.get_mut(at) else { return };
        if refused {
            let failures = queue.failed(key);
            let wait = std::time::Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(failures.min(10)));
            queue.add_at(key.clone(), now + wait);
        } else {
            queue.succeeded(key);
        }
        if let Some(wake) = outcome.wake {
            queue.add_at(key.clone(), wake);
        }
    }

    fn write_for_kubelet(&mut self, writes: Vec<Write>, now: Timestamp) {
        for write in writes {
            if let Err(status) = self.write(&write) {
                tracing::debug!(%status, "a kubelet's write was refused");
                self.kubelet.refused(&write, now);
            }
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Status> {
        match write {
            Write::Create(object) => self.api.create(object.clone()).map(drop),
            Write::Update(object) => self.api.update(object.clone(), None).map(drop),
            Write::Status(object) => self.api.update(object.clone(), Some("status")).map(drop),
            Write::Bind { pod, uid, node } => self.bind(pod, uid, node),
            Write::Delete { key, uid, dependents, now } => self.delete(key, uid, *dependents, *now),
            Write::Finalize(namespace) => {
                let mut namespace = namespace.clone();
                value::set(&mut namespace, &["spec", "finalizers"], json!([]));
                self.api.update(namespace, Some("finalize")).map(drop)
            }
        }
    }

    fn bind(&mut self, pod: &Key, uid: &str, node: &str) -> Result<(), Status> {
        let Some(live) = self.api.get("pods", &pod.namespace, &pod.name) else { return Ok(()) };
        if value::uid(&live) != uid {
            return Ok(());
        }
        let mut bound = Value::clone(&live);
        value::set(&mut bound, &["spec", "nodeName"], node);
        self.api.update(bound, Some("binding")).map(drop)
    }

    fn delete(&mut self, key: &Key, uid: &str, dependents: Dependents, at_once: bool) -> Result<(), Status> {
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
            result => result.map(drop),
        }
    }
}
