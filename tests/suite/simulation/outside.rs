//! What lies outside of Git and the cluster: it answers what a test says, after as long as a test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use locktender::core::{
    ask::{Ask, Question, Said, Unanswered},
    clock::Clock,
    traffic::haproxy::{Command, Member, Server, State, Tell, TellError, Telling},
};

/// How long an answer takes, and what it says.
pub type Reply = (Duration, Result<Said, Unanswered>);

type Model = dyn FnMut(&Question, Timestamp) -> Reply + Send;

/// Outlives the controller, as the outside does.
#[derive(Clone)]
pub struct Outside {
    clock: Arc<dyn Clock>,
    model: Arc<Mutex<Box<Model>>>,
    asked: Arc<Mutex<Vec<(Timestamp, Question)>>>,
    haproxy: Arc<Mutex<Option<State>>>,
}

impl Outside {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let nobody =
            |_: &Question, _: Timestamp| (Duration::ZERO, Err(Unanswered::Unreachable("nobody is there".to_owned())));
        Self { clock, model: Arc::new(Mutex::new(Box::new(nobody))), asked: Arc::default(), haproxy: Arc::default() }
    }

    /// Starts a HAProxy, anew where there is one: its backend has no servers.
    pub fn start_haproxy(&self) {
        *self.haproxy.lock().unwrap() = Some(State::default());
    }

    /// Returns the weight of each server that takes new requests, by name.
    pub fn haproxy_serves(&self) -> BTreeMap<String, u32> {
        let state = self.haproxy.lock().unwrap().clone().unwrap_or_default();
        let serving = state.servers.into_iter().filter(|server| !server.stopped && !server.drains);
        serving.map(|server| (server.name, server.weight)).collect()
    }

    /// Lets a model answer from here on, given the question and the time.
    pub fn answers(&self, model: impl FnMut(&Question, Timestamp) -> Reply + Send + 'static) {
        *self.model.lock().unwrap() = Box::new(model);
    }

    /// Returns everything that was asked so far, and when.
    pub fn asked(&self) -> Vec<(Timestamp, Question)> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Ask for Outside {
    async fn ask(&self, question: &Question) -> Result<Said, Unanswered> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push((now, question.clone()));
        if let (Question::Proxy(_), Some(state)) = (question, &*self.haproxy.lock().unwrap()) {
            return Ok(Said::Servers(state.clone()));
        }
        let (takes, result) = (self.model.lock().unwrap())(question, now);
        tokio::time::sleep(takes).await;
        result
    }
}

#[async_trait]
impl Tell for Outside {
    async fn tell(&self, telling: &Telling) -> Result<State, TellError> {
        let mut haproxy = self.haproxy.lock().unwrap();
        let nobody = || Unanswered::Unreachable("nobody is there".to_owned());
        let state = haproxy.as_mut().ok_or_else(nobody)?;
        if !state.is_told_as(&telling.seen) {
            return Err(TellError::Stale(state.clone()));
        }
        telling.commands.iter().for_each(|command| carry_out(state, command));
        Ok(State { told: true, ..state.clone() })
    }
}

fn carry_out(state: &mut State, command: &Command) {
    let server = |state: &mut State, name: &str, change: &dyn Fn(&mut Server)| {
        state.servers.iter_mut().filter(|server| server.name == name).for_each(change);
    };
    match command {
        Command::Add(Member { name, address, weight }) => state.servers.push(Server {
            name: name.clone(),
            address: Some(*address),
            weight: *weight,
            runs: true,
            stopped: true,
            drains: false,
            used: 0,
        }),
        Command::Ready(name) => server(state, name, &|server| (server.stopped, server.drains) = (false, false)),
        Command::Weight(name, weight) => server(state, name, &|server| server.weight = *weight),
        Command::Drain(name) => server(state, name, &|server| server.drains = true),
        Command::Maintenance(name) => server(state, name, &|server| server.stopped = true),
        Command::Delete(name) => state.servers.retain(|server| server.name != *name),
    }
}
