//! Faults as data: which requests, and what becomes of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use locktender::adapter::kube::Verb;
use serde_json::Value;
use tokio::sync::watch;

use super::asked::Asked;

/// What a webhook does to an object.
pub type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// An answer of the API server that is no yes.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: &'static str,
    /// In seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub const fn new(code: u16, reason: &'static str, message: &'static str) -> Self {
        Self { code, reason, message, retry_after: None }
    }
}

/// What becomes of a request.
#[derive(Clone)]
pub enum Effect {
    /// The server carries it out, and the connection breaks before its answer.
    AnswerLost,
    /// The connection breaks before the server hears of it.
    Reset,
    /// The server never hears of it, and nothing is ever answered.
    Hang,
    /// The server carries it out, and its answer waits until the fault ends.
    AnswerHeld,
    /// A status of the API server, with seconds to wait where it says so.
    Refused(Refusal),
    /// What a load balancer answers for a server that it cannot reach.
    Page(u16),
    /// It is answered, and the connection closed: what a GOAWAY is to HTTP/1.1.
    Closed,
    /// What is sent is made into something else, as a mutating webhook does.
    Changed(Change),
    /// Of a watch: this event is cut in the middle of its line, and the connection breaks.
    EventCut,
    /// Of a watch: instead of this event it is told that its version is too old.
    Expired,
    /// Of a watch: this and later events wait until the fault ends.
    Held,
    /// Of a watch: this and later events never come, and the connection stays.
    Silent,
    /// Of a watch: this event goes by one byte a second.
    Trickled,
}

impl Effect {
    /// Whether it befalls the events of a watch, open ones among them, and not the request.
    fn is_of_events(&self) -> bool {
        matches!(self, Self::EventCut | Self::Expired | Self::Held | Self::Silent | Self::Trickled)
    }
}

type Holds = Arc<dyn Fn(&Asked) -> bool + Send + Sync>;

/// Which requests.
#[derive(Clone)]
pub struct On {
    verbs: Vec<Verb>,
    resource: Option<&'static str>,
    name: Option<String>,
    holds: Option<Holds>,
    skip: usize,
    times: usize,
    first_of_each: bool,
}

impl On {
    /// Requests of these verbs.
    pub fn verbs(verbs: &[Verb]) -> Self {
        let verbs = verbs.to_vec();
        Self { verbs, resource: None, name: None, holds: None, skip: 0, times: usize::MAX, first_of_each: false }
    }

    pub fn writes() -> Self {
        Self::verbs(&[Verb::Create, Verb::Apply, Verb::Patch, Verb::Delete])
    }

    /// The events of watches.
    pub fn watches() -> Self {
        Self::verbs(&[Verb::Watch])
    }

    pub fn everything() -> Self {
        Self::verbs(&[
            Verb::Discover,
            Verb::Get,
            Verb::List,
            Verb::Watch,
            Verb::Create,
            Verb::Apply,
            Verb::Patch,
            Verb::Delete,
        ])
    }

    /// Only of this resource, `deployments.apps`.
    pub fn of(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }

    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    pub fn when(self, holds: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Self { holds: Some(Arc::new(holds)), ..self }
    }

    /// Lets so many go by before.
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// Only so many.
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Only the first try of each, whatever version it was decided on.
    pub fn first_of_each(self) -> Self {
        Self { first_of_each: true, ..self }
    }

    fn fits(&self, asked: &Asked) -> bool {
        self.verbs.contains(&asked.verb)
            && self.resource.is_none_or(|resource| resource == asked.resource)
            && self.name.as_ref().is_none_or(|name| *name == asked.name)
            && self.holds.as_ref().is_none_or(|holds| holds(asked))
    }
}

/// A fault that is in force.
struct Rule {
    id: usize,
    on: On,
    effect: Effect,
    passed: usize,
    seen: BTreeSet<String>,
    injected: watch::Sender<usize>,
    ended: watch::Receiver<bool>,
}

/// Every fault that is in force.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<(usize, Vec<Rule>)>>);

/// What befalls a request or an event, and how it is told when that is over.
pub struct Struck {
    pub effect: Effect,
    pub ended: watch::Receiver<bool>,
}

impl Struck {
    /// Returns when the fault is over.
    pub async fn over(&mut self) {
        // Who injected it is gone: so is the fault.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Faults {
    pub fn add(&self, on: On, effect: Effect) -> Injection {
        let (injected, count) = watch::channel(0);
        let (end, ended) = watch::channel(false);
        let mut rules = self.0.lock().unwrap();
        rules.0 += 1;
        let id = rules.0;
        rules.1.push(Rule { id, on, effect, passed: 0, seen: BTreeSet::new(), injected, ended });
        Injection { faults: self.clone(), id, count, end }
    }

    /// Returns what befalls a request.
    pub fn strike(&self, asked: &Asked) -> Option<Struck> {
        self.find(asked, false)
    }

    /// Returns what befalls an event of a watch.
    pub fn strike_event(&self, watch: &Asked) -> Option<Struck> {
        self.find(watch, true)
    }

    fn find(&self, asked: &Asked, event: bool) -> Option<Struck> {
        let mut rules = self.0.lock().unwrap();
        for rule in &mut rules.1 {
            if rule.effect.is_of_events() != event || !rule.on.fits(asked) {
                continue;
            }
            if rule.on.first_of_each && !rule.seen.insert(subject(asked)) {
                continue;
            }
            rule.passed += 1;
            if rule.passed > rule.on.skip && *rule.injected.borrow() < rule.on.times {
                rule.injected.send_modify(|count| *count += 1);
                return Some(Struck { effect: rule.effect.clone(), ended: rule.ended.clone() });
            }
        }
        None
    }
}

/// What is asked for, without the version that it was decided on.
fn subject(asked: &Asked) -> String {
    let mut body = asked.body.clone();
    if let Some(version) = body.pointer_mut("/metadata/resourceVersion") {
        version.take();
    }
    format!("{} {} {} {} {body}", asked.verb, asked.resource, asked.name, asked.subresource)
}

/// A fault in force, until it is dropped. One that never befell anything fails its test.
pub struct Injection {
    faults: Faults,
    id: usize,
    count: watch::Receiver<usize>,
    end: watch::Sender<bool>,
}

impl Injection {
    /// How often it has befallen something.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until it has befallen something so often.
    pub async fn reaches(&self, count: usize) {
        let mut counted = self.count.clone();
        let reached = counted.wait_for(|now| *now >= count);
        match tokio::time::timeout(std::time::Duration::from_secs(60), reached).await {
            Ok(reached) => drop(reached.expect("the fault is in force")),
            Err(_) => panic!("the fault was injected {} times, and never {count}", self.count()),
        }
    }

    /// Ends it.
    pub fn end(self) {}
}

impl Drop for Injection {
    fn drop(&mut self) {
        let count = self.count();
        self.faults.0.lock().unwrap().1.retain(|rule| rule.id != self.id);
        self.end.send_replace(true);
        if !std::thread::panicking() {
            assert!(count > 0, "the fault was never injected");
        }
    }
}
