//! Probes: when one is due, what it is asked, and what a row of answers means.
//!
//! Source of the rules: `pkg/kubelet/prober/worker.go`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::runtime::{HttpGet, ProbeKind};
use crate::sandbox::value;

/// One probe of a running container.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Which of the three.
    pub kind: ProbeKind,
    question: Option<HttpGet>,
    period: Duration,
    success_threshold: i64,
    failure_threshold: i64,
    due: Timestamp,
    asked: bool,
    successes: i64,
    failures: i64,
    last: Option<bool>,
    passed: Option<bool>,
}

/// What to do about a probe now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// Ask over HTTP.
    Http(HttpGet),
    /// There is nothing to ask: exec, TCP and gRPC succeed.
    Succeeds,
}

impl Probe {
    /// Reads a container's probe; `None` where it has none of the kind. Counting starts at `from`.
    pub fn new(kind: ProbeKind, container: &Value, address: &str, from: Timestamp) -> Option<Self> {
        let member = match kind {
            ProbeKind::Startup => "startupProbe",
            ProbeKind::Readiness => "readinessProbe",
            ProbeKind::Liveness => "livenessProbe",
        };
        let spec = value::at(container, &[member])?;
        let seconds = |name, default| {
            Duration::from_secs(u64::try_from(value::number_or(spec, &[name], default)).unwrap_or_default())
        };
        Some(Self {
            kind,
            question: question(spec, container, address, seconds("timeoutSeconds", 1)),
            period: seconds("periodSeconds", 10).max(Duration::from_secs(1)),
            success_threshold: value::number_or(spec, &["successThreshold"], 1),
            failure_threshold: value::number_or(spec, &["failureThreshold"], 3),
            due: from + seconds("initialDelaySeconds", 0),
            asked: false,
            successes: 0,
            failures: 0,
            last: None,
            passed: None,
        })
    }

    /// Returns the verdict so far; `None` while there is none.
    pub fn passed(&self) -> Option<bool> {
        self.passed
    }

    /// Returns what to ask now, and counts it as asked.
    pub fn ask(&mut self, now: Timestamp) -> Ask {
        if self.asked || self.due > now {
            return Ask::Nothing;
        }
        self.due = now + self.period;
        match &self.question {
            Some(question) => {
                self.asked = true;
                Ask::Http(question.clone())
            }
            None => Ask::Succeeds,
        }
    }

    /// Counts an answer.
    pub fn answer(&mut self, well: bool) {
        self.asked = false;
        self.last = Some(well);
        if well {
            self.failures = 0;
            self.successes += 1;
            if self.successes >= self.success_threshold {
                self.passed = Some(true);
            }
        } else {
            self.successes = 0;
            self.failures += 1;
            if self.failures >= self.failure_threshold {
                self.passed = Some(false);
            }
        }
    }

    /// Returns when to ask next. Where every further answer is `foreseen`, asking is pointless once the verdict is that.
    pub fn next_due(&self, foreseen: Option<bool>) -> Option<Timestamp> {
        let settled = foreseen.is_some() && self.passed == foreseen && self.last == foreseen;
        (!self.asked && !settled).then_some(self.due)
    }
}

fn question(spec: &Value, container: &Value, address: &str, timeout: Duration) -> Option<HttpGet> {
    let get = value::at(spec, &["httpGet"])?;
    if value::text(get, &["scheme"]) == "HTTPS" {
        return None;
    }
    let port = match value::at(get, &["port"])? {
        Value::String(name) => {
            let port = value::items(container, &["ports"]).iter().find(|port| port["name"] == name.as_str())?;
            value::number(port, &["containerPort"])
        }
        port => port.as_i64()?,
    };
    let host = value::text(get, &["host"]);
    let path = value::text(get, &["path"]);
    Some(HttpGet {
        host: if host.is_empty() { address.to_owned() } else { host.to_owned() },
        port: u16::try_from(port).ok()?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        timeout: timeout.max(Duration::from_secs(1)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probe(spec: Value) -> Probe {
        let container = json!({"readinessProbe": spec, "ports": [{"name": "http", "containerPort": 9080}]});
        Probe::new(ProbeKind::Readiness, &container, "10.0.0.1", Timestamp::UNIX_EPOCH)
            .unwrap_or_else(|| unreachable!())
    }

    #[test]
    fn a_named_port_and_the_delay_are_honoured() {
        let mut probe = probe(json!({"httpGet": {"path": "/ready", "port": "http"}, "initialDelaySeconds": 5}));
        let at = |seconds| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(probe.ask(at(4)), Ask::Nothing);
        let Ask::Http(question) = probe.ask(at(5)) else { unreachable!("it is due") };
        assert_eq!((question.port, question.path.as_str()), (9080, "/ready"));
        assert_eq!(probe.ask(at(60)), Ask::Nothing, "the first answer is still missing");
    }

    #[test]
    fn a_row_of_failures_makes_the_verdict() {
        let mut probe = probe(json!({"exec": {"command": ["true"]}, "failureThreshold": 2, "periodSeconds": 3}));
        probe.answer(true);
        probe.answer(false);
        assert_eq!(probe.passed(), Some(true));
        probe.answer(false);
        assert_eq!(probe.passed(), Some(false));
        assert_eq!(probe.next_due(Some(false)), None);
        assert!(probe.next_due(Some(true)).is_some() && probe.next_due(None).is_some());
    }
}
