//! Who acts in a cluster: controllers and kubelet, as one function of what they saw to what they ask for.
//!
//! They are shown every change ([`Actors::observe`]), say what is to be written ([`Actors::work`]) and are told how it
//! went ([`Actors::done`]). Who carries the writes out is their owner's affair: [`super::world`] does it in process and
//! under its own clock, [`super::kubelet::Remote`] over HTTP, on whatever API server there is.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cache::{Cache, Key},
    controllers::{Change, Controller, Queue, View},
    faults::{self, Faults},
    kubelet::Kubelet,
    pace::Pace,
    value,
    write::Write,
};

/// After so many keys the others have their turn, whoever else waits.
const MOST_KEYS: usize = 10_000;

/// Controllers and kubelet, and what they know.
pub struct Actors {
    cache: Cache,
    controllers: Vec<(Box<dyn Controller>, Queue)>,
    kubelet: Kubelet,
    faults: Faults,
    faults_seen: u64,
    pace: Pace,
    /// The controller that works off what it has, and how many keys it had.
    turn: Option<(usize, usize)>,
}

/// Who asked for writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Actor {
    /// The kubelet.
    Kubelet,
    /// A controller, for one key.
    Controller {
        /// Which one.
        at: usize,
        /// The key that it looked at.
        key: Key,
        /// When it wants to look again.
        wake: Option<Timestamp>,
    },
}

/// Writes that somebody asks for, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Who.
    pub by: Actor,
    /// The requests.
    pub writes: Vec<Write>,
}

impl Actors {
    /// Puts controllers, which are asked in this order, beside a kubelet.
    pub fn new(controllers: Vec<Box<dyn Controller>>, kubelet: Kubelet, pace: Pace) -> Self {
        Self {
            cache: Cache::default(),
            controllers: controllers.into_iter().map(|it| (it, Queue::default())).collect(),
            kubelet,
            faults: Faults::default(),
            faults_seen: 0,
            pace,
            turn: None,
        }
    }

    /// Returns what they know.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Returns the faults, to be changed. [`Actors::notice_faults`] makes them felt.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Is shown one change: the object as it is, `None` when it is gone; with `last` as it was last.
    pub fn observe(&mut self, resource: &Arc<str>, last: &Arc<Value>, after: Option<&Arc<Value>>, now: Timestamp) {
        let before = self.cache.at(&Key::of(resource, last)).cloned();
        self.cache.apply(resource, before.as_ref(), after);
        let change = Change { resource, before: before.as_ref(), now: after };
        for (controller, queue) in &mut self.controllers {
            controller.concerns(&change, &self.cache).into_iter().for_each(|key| queue.add(key));
        }
        self.kubelet.observe(resource, before.as_ref(), after, now);
        let (namespace, name) = faults::CONFIG_MAP;
        let is_command = |object: &Value| value::namespace(object) == namespace && value::name(object) == name;
        if change.is("configmaps") && change.states().any(|object| is_command(object)) {
            self.faults.command(change.now.map(AsRef::as_ref));
        }
    }

    /// Makes changed faults felt; returns what the kubelet writes thereupon.
    pub fn notice_faults(&mut self, now: Timestamp) -> Option<Work> {
        if self.faults.revision() == self.faults_seen {
            return None;
        }
        self.faults_seen = self.faults.revision();
        for (controller, queue) in &mut self.controllers {
            controller.concerned_by_faults(&self.cache).into_iter().for_each(|key| queue.add(key));
        }
        Some(self.advance_kubelet(now))
    }

    /// Returns when something is next due on its own.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let active = self.controllers.iter().filter(|(controller, _)| !controller.is_stopped(&self.faults));
        active.filter_map(|(_, queue)| queue.next_due(now)).chain(self.kubelet.next_due()).min()
    }

    /// Returns what is to be written next; `None` when there is nothing to be done at this instant.
    pub fn work(&mut self, now: Timestamp) -> Option<Work> {
        // Each controller works off what it has before the next one looks: fewer looks at half of a change.
        if let Some((at, keys)) = self.turn.take().filter(|(_, keys)| *keys < MOST_KEYS)
            && let Some(work) = self.look(at, now)
        {
            self.turn = Some((at, keys + 1));
            return Some(work);
        }
        if self.kubelet.next_due().is_some_and(|due| due <= now) || self.kubelet.has_answers() {
            return Some(self.advance_kubelet(now));
        }
        let (at, work) = (0..self.controllers.len()).find_map(|at| Some((at, self.look(at, now)?)))?;
        self.turn = Some((at, 1));
        Some(work)
    }

    fn advance_kubelet(&mut self, now: Timestamp) -> Work {
        Work { by: Actor::Kubelet, writes: self.kubelet.advance(now, &self.faults) }
    }

    /// Lets one controller look at the first key that is due.
    fn look(&mut self, at: usize, now: Timestamp) -> Option<Work> {
        let (controller, queue) = self.controllers.get_mut(at)?;
        if controller.is_stopped(&self.faults) {
            return None;
        }
        let key = queue.pop(now)?;
        let view = View { cache: &self.cache, now, faults: &self.faults, pace: &self.pace };
        let outcome = controller.reconcile(&key, &view);
        Some(Work { by: Actor::Controller { at, key, wake: outcome.wake }, writes: outcome.writes })
    }

    /// Is told that work was carried out, and which of its writes were refused.
    pub fn done(&mut self, by: Actor, refused: &[Write], now: Timestamp) {
        let (at, key, wake) = match by {
            Actor::Kubelet => {
                refused.iter().for_each(|write| self.kubelet.refused(write, now));
                return;
            }
            Actor::Controller { at, key, wake } => (at, key, wake),
        };
        let Some((_, queue)) = self.controllers.get_mut(at) else { return };
        if refused.is_empty() {
            queue.succeeded(&key);
        } else {
            let failures = queue.failed(&key);
            let wait = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(failures.min(10)));
            queue.add_at(key.clone(), now + wait);
        }
        if let Some(wake) = wake {
            queue.add_at(key, wake);
        }
    }
}
