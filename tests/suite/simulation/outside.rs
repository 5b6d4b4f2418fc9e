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

use super::{
    cluster::SimCluster,
    faults::{AnswerFault, Faults, WriteFault},
};

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
    faults: Faults,
    /// Whose checker judges what a proxy does.
    judge: Option<SimCluster>,
    /// Whose hands it is in: a dead controller's calls never return.
    life: u64,
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
            faults: Faults::default(),
            judge: None,
            life: 0,
        }
    }

    /// Things go wrong from here on, and what a proxy does is judged.
    pub fn judged_by(self, cluster: &SimCluster, faults: Faults) -> Self {
        Self { faults, judge: Some(cluster.clone()), ..self }
    }

    /// Returns the outside as one life of the controller sees it.
    pub fn for_life(&self, life: u64) -> Self {
        Self { life, ..self.clone() }
    }

    fn judge(&self) {
        let serves = self.haproxy_serves();
        if let Some(cluster) = &self.judge {
            cluster.judged_with(|checker, now| checker.proxy_serves(serves, now));
        }
    }

    /// Starts a HAProxy, anew where there is one: its backend has no servers.
    pub fn start_haproxy(&self) {
        *self.haproxy.lock().unwrap() = Some(State::default());
        self.judge();
    }

    /// Ends it: nobody answers.
    pub fn stop_haproxy(&self) {
        *self.haproxy.lock().unwrap() = None;
        self.judge();
    }

    /// Returns the weight of each server that takes new requests, by name.
    pub fn haproxy_serves(&self) -> BTreeMap<String, u32> {
        let state = self.haproxy.lock().unwrap().clone().unwrap_or_default();
        let serving = state.servers.into_iter().filter(|server| !server.stopped && !server.drains);
        serving.map(|server| (server.name, server.weight)).collect()
    }

    /// Names all of its servers.
    pub fn haproxy_knows(&self) -> Vec<String> {
        let state = self.haproxy.lock().unwrap().clone().unwrap_or_default();
        state.servers.into_iter().map(|server| server.name).collect()
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
        self.faults.alive(self.life).await;
        let now = self.clock.now();
        self.asked.lock().unwrap().push((now, question.clone()));
        if let Question::Proxy(_) = question {
            match self.faults.on_answer() {
                Some(AnswerFault::NoAnswer) => std::future::pending().await,
                Some(AnswerFault::Forgotten) => self.start_haproxy(),
                None => {}
            }
            if let Some(state) = &*self.haproxy.lock().unwrap() {
                return Ok(Said::Servers(state.clone()));
            }
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
        self.faults.alive(self.life).await;
        let fault = self.faults.on_write(|| telling.why.clone());
        match fault {
            Some(WriteFault::CrashBefore) => {
                self.faults.crash();
                self.faults.alive(self.life).await;
            }
            Some(WriteFault::NotSent | WriteFault::Conflict | WriteFault::Busy) => {
                return Err(Unanswered::Unreachable("connection refused".to_owned()).into());
            }
            Some(WriteFault::CrashAfter | WriteFault::AnswerLost) | None => {}
        }
        let told = self.told(telling);
        match fault {
            Some(WriteFault::CrashAfter) => {
                self.faults.crash();
                self.faults.alive(self.life).await;
                told
            }
            Some(WriteFault::AnswerLost) => Err(Unanswered::Unreachable("the connection was closed".to_owned()).into()),
            _ => told,
        }
    }
}

impl Outside {
    fn told(&self, telling: &Telling) -> Result<State, TellError> {
        let told = {
            let mut haproxy = self.haproxy.lock().unwrap();
            let nobody = || Unanswered::Unreachable("nobody is there".to_owned());
            let state = haproxy.as_mut().ok_or_else(nobody)?;
            if !state.is_told_as(&telling.seen) {
                return Err(TellError::Stale(state.clone()));
            }
            telling.commands.iter().for_each(|command| carry_out(state, command));
            State { told: true, ..state.clone() }
        };
        self.judge();
        Ok(told)
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
