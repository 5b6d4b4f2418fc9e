//! Whether every pod of a new side answers its health check: asked of each pod once, again when it changed, and until it
//! is healthy.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{observe::Pod, report::Reason};
use crate::core::{
    ask::{Answer, Answers, Asking, Probe, Question, Said},
    policy::{HealthCheck, Port},
};

/// After how long a pod that is not healthy is asked again.
const AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// Kubernetes cuts times off to whole seconds: what was asked so long after one was asked after it for certain.
const ROUNDED: SignedDuration = SignedDuration::from_secs(1);

/// Who asks, and about what.
pub(super) struct HealthOf<'a> {
    /// What is asked.
    pub check: &'a HealthCheck,
    /// `Deployment/checkout`.
    pub workload: &'a str,
    /// How many pods there must be.
    pub want: u32,
    /// Since when the stage runs: what was answered before counts for nothing.
    pub since: Timestamp,
    /// What was answered.
    pub answers: &'a Answers,
}

/// What the pods of a side say of themselves.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// What to ask, and when.
    pub questions: Vec<Asking>,
    /// Why it is not healthy; `None` where it is.
    pub reason: Option<Reason>,
}

impl HealthOf<'_> {
    /// Judges a side by its pods, those that requests would reach.
    pub(super) fn judge<'p, 'v: 'p>(&self, pods: impl Iterator<Item = &'p Pod<'v>>) -> Health {
        let mut health = Health::default();
        let (mut have, mut all) = (0, 0);
        let mut trouble: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in pods.filter(|pod| pod.labelled && pod.is_ready()) {
            all += 1;
            match self.of(pod, &mut health.questions) {
                None => {}
                Some(Ok(())) => have += 1,
                Some(Err(said)) => trouble.entry(said).or_default().push(pod.object.name().to_owned()),
            }
        }
        if have < self.want || have < all {
            let trouble = trouble.into_iter().collect();
            let (workload, want) = (self.workload.to_owned(), self.want.max(all));
            health.reason = Some(Reason::NotAllHealthy { workload, want, have, trouble });
        }
        health
    }

    /// Returns whether a pod is healthy, or what it said; `None` where it was not asked yet.
    fn of(&self, pod: &Pod<'_>, questions: &mut Vec<Asking>) -> Option<Result<(), String>> {
        let question = match self.question(pod) {
            Ok(question) => question,
            Err(why) => return Some(Err(why)),
        };
        // A container that started anew was not ready meanwhile.
        let changed = pod.ready_since.map_or(self.since, |since| since + ROUNDED).max(self.since);
        let answer = self.answers.latest(&question).filter(|answer| answer.at >= changed);
        let said = answer.map(|answer| self.verdict(answer));
        let due = match (&said, answer) {
            (Some(Err(_)), Some(answer)) => answer.at + AGAIN,
            _ => changed,
        };
        questions.push(Asking { question, due: Some(due), keep: 1 });
        said
    }

    fn question(&self, pod: &Pod<'_>) -> Result<Question, String> {
        let address = pod.object.text(&["status", "podIP"]);
        if address.is_empty() {
            return Err("it has no address".to_owned());
        }
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let port = port_of(&pod.object.0["spec"], &self.check.port);
        let port = port.ok_or_else(|| format!("it has no port {}", self.check.port))?;
        let url = format!("http://{host}:{port}{}", self.check.path);
        Ok(Question::Probe(Probe { of: pod.object.uid().to_owned(), url, timeout: self.check.timeout }))
    }

    fn verdict(&self, answer: &Answer) -> Result<(), String> {
        match &answer.result {
            Ok(Said::Page { status, body }) => self.check.objection(*status, body).map_or(Ok(()), Err),
            Ok(_) => Err("it answers something else than a page".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }
}

/// Finds a port of a pod's spec.
pub(super) fn port_of(spec: &Value, port: &Port) -> Option<u16> {
    let name = match port {
        Port::Number(number) => return Some(*number),
        Port::Name(name) => name,
    };
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().filter_map(|list| spec.get(list)?.as_array()).flatten();
    let mut ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    let number = ports.find(|port| port["name"] == name.as_str())?["containerPort"].as_u64()?;
    u16::try_from(number).ok()
}
