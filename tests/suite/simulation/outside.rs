//! What lies outside of Git and the cluster: it answers what a test says, after as long as a test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use locktender::core::{
    ask::{Ask, Found, Probe, Question, Reading, Said, Unanswered},
    clock::Clock,
    traffic::haproxy::{Command, Member, Server, State, Tell, TellError, Telling},
};

use super::cluster::SimCluster;

/// How long an answer takes, and what it says.
pub type Reply = (Duration, Result<Said, Unanswered>);

type Model = dyn FnMut(&Question, Timestamp) -> Reply + Send;
type Numbers = dyn FnMut(Timestamp) -> f64 + Send;

/// Outlives the controller, as the outside does.
#[derive(Clone)]
pub struct Outside {
    clock: Arc<dyn Clock>,
    model: Arc<Mutex<Box<Model>>>,
    numbers: Arc<Mutex<Option<Box<Numbers>>>>,
    asked: Arc<Mutex<Vec<(Timestamp, Question)>>>,
    haproxy: Arc<Mutex<Option<State>>>,
}

impl Outside {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let nobody =
            |_: &Question, _: Timestamp| (Duration::ZERO, Err(Unanswered::Unreachable("nobody is there".to_owned())));
        Self {
            clock,
            model: Arc::new(Mutex::new(Box::new(nobody))),
            numbers: Arc::default(),
            asked: Arc::default(),
            haproxy: Arc::default(),
        }
    }

    /// Starts a HAProxy, anew where there is one: its backend has no servers.
    pub fn start_haproxy(&self) {
        *self.haproxy.lock().unwrap() = Some(State::default());
    }

    /// Ends it: nobody answers.
    pub fn stop_haproxy(&self) {
        *self.haproxy.lock().unwrap() = None;
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

    /// Lets whoever is asked for a metric measure one number from here on, whatever answers other questions.
    pub fn measures(&self, number: impl FnMut(Timestamp) -> f64 + Send + 'static) {
        *self.numbers.lock().unwrap() = Some(Box::new(number));
    }

    fn measured(&self, question: &Question, now: Timestamp) -> Option<Reply> {
        let Question::Metric(_) = question else { return None };
        let number = self.numbers.lock().unwrap().as_mut()?(now);
        let result = Found::Series { series: vec![vec![number]], warnings: Vec::new(), clock: None };
        Some((PROMPT, Ok(Said::Reading(Reading { result, baseline: None }))))
    }

    /// Lets pods say how they are from here on, and nobody else anything.
    pub fn is_pods(&self, cluster: &SimCluster) {
        let cluster = cluster.clone();
        self.answers(move |question, _| (PROMPT, page(&cluster, question)));
    }

    /// Returns everything that was asked so far, and when.
    pub fn asked(&self) -> Vec<(Timestamp, Question)> {
        self.asked.lock().unwrap().clone()
    }
}

/// How long a pod takes for its answer.
const PROMPT: Duration = Duration::from_millis(20);

/// What the pod that a probe is for answers: one that is ready, with a status and JSON, as the sandbox's pods do. Another
/// pod at its address is not there.
pub fn page(cluster: &SimCluster, question: &Question) -> Result<Said, Unanswered> {
    let Question::Probe(probe) = question else { return Err(Unanswered::Unreachable("nobody is there".to_owned())) };
    let world = &mut cluster.state.lock().unwrap().world;
    let pod = world.api.list("pods").find(|pod| is_asked(pod, probe) && super::checker::is_ready(pod)).cloned();
    let pod = pod.ok_or_else(|| Unanswered::Unreachable("connection refused".to_owned()))?;
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let healthy = !world.faults().of_container(&pod, image).sick;
    Ok(Said::Page { status: 200, body: format!("{{\"healthy\": {healthy}}}") })
}

fn is_asked(pod: &serde_json::Value, probe: &Probe) -> bool {
    let address = pod["status"]["podIP"].as_str().unwrap_or("-");
    pod["metadata"]["uid"] == probe.of.as_str() && probe.url == format!("http://{address}:8080/health")
}

#[async_trait]
impl Ask for Outside {
    async fn ask(&self, question: &Question) -> Result<Said, Unanswered> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push((now, question.clone()));
        if let (Question::Proxy(_), Some(state)) = (question, &*self.haproxy.lock().unwrap()) {
            return Ok(Said::Servers(state.clone()));
        }
        let measured = self.measured(question, now);
        let (takes, result) = measured.unwrap_or_else(|| (self.model.lock().unwrap())(question, now));
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
