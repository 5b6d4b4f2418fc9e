//! Kubernetes Events on workloads: each record, where `kubectl describe` shows it.
//!
//! An Event repeats a record and is none: it comes after it, may be lost, and expires. It holds nothing up, needs no
//! record of its own, and is written once, since its name is the record's. Who starts anew tells nothing old.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use super::news::{Listener, News, Quarantined, Recorded};
use crate::core::{
    cluster::{Cluster, ClusterError, Write},
    ledger::{Event, message::subject},
    manifest::Object,
};

/// Events that wait to be written; with a slower API server than that some are lost.
const WAITING: usize = 1_024;

/// How long writing one may take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// The longest message that every version of the API takes, in bytes.
const LONGEST: usize = 1_024;

/// Hears of records and queues their Events.
pub struct Events {
    queue: mpsc::Sender<Object>,
    instance: String,
}

/// Returns who listens, and what writes to `cluster` what was heard, as long as it is polled. `instance`: which process
/// this is.
pub fn events(cluster: Arc<dyn Cluster>, instance: String) -> (Arc<Events>, impl Future<Output = ()>) {
    let (queue, mut waiting) = mpsc::channel::<Object>(WAITING);
    let write = async move {
        while let Some(object) = waiting.recv().await {
            let name = object.name().to_owned();
            let written = tokio::time::timeout(WRITTEN_WITHIN, cluster.write(&Write::Create { object })).await;
            match written {
                Ok(Ok(_) | Err(ClusterError::AlreadyExists(_))) => {}
                Ok(Err(error)) => debug!(name, %error, "an Event is lost"),
                Err(_) => debug!(name, "an Event is lost: no answer in time"),
            }
        }
    };
    (Arc::new(Events { queue, instance }), write)
}

impl Listener for Events {
    fn hear(&self, news: &News<'_>) {
        match news {
            News::Recorded(recorded) => {
                recorded.workloads.iter().for_each(|workload| self.send(event_of(recorded, workload, &self.instance)));
            }
            News::Quarantined(left) => {
                left.workloads
                    .iter()
                    .for_each(|workload| self.send(event_of_quarantine(left, workload, &self.instance)));
            }
            News::Woke | News::Rests(_) | News::Decided { .. } => {}
        }
    }
}

impl Events {
    /// A full queue loses it: that is the promise.
    fn send(&self, event: Object) {
        let _ = self.queue.try_send(event);
    }
}

/// Builds the Event of a record on one workload.
fn event_of(recorded: &Recorded<'_>, workload: &Object, instance: &str) -> Object {
    let Recorded { rollout, record, .. } = recorded;
    let record = *record;
    let mut message = format!("{} {:04}: {}", rollout.app, rollout.number, subject(std::slice::from_ref(record)));
    if !message.ends_with(&record.why) && !record.why.is_empty() {
        message = format!("{message}: {}", record.why);
    }
    let said = Said {
        id: &record.id.hex()[..16],
        kind: if is_warning(record.event) { "Warning" } else { "Normal" },
        reason: format!("{:?}", record.event),
        message,
        at: record.time,
    };
    event(said, workload, instance)
}

/// Builds the Event of an application that is left alone on one workload.
fn event_of_quarantine(left: &Quarantined<'_>, workload: &Object, instance: &str) -> Object {
    let said = Said {
        id: &format!("{:016x}", left.at.as_millisecond()),
        kind: "Warning",
        reason: "Quarantined".to_owned(),
        message: format!("{}: {}", left.app, left.why),
        at: left.at,
    };
    event(said, workload, instance)
}

/// What an Event says.
struct Said<'a> {
    /// What tells it from others on the same workload.
    id: &'a str,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

fn event(said: Said<'_>, workload: &Object, instance: &str) -> Object {
    let time = Timestamp::from_second(said.at.as_second()).unwrap_or(said.at).to_string();
    // A workload's name may be as long as an Event's.
    let name = workload.name();
    let name = name.get(..200).unwrap_or(name).trim_end_matches(['-', '.']);
    let mut message = said.message;
    while message.len() > LONGEST {
        message.pop();
    }
    Object(json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name}.{}", said.id),
            "namespace": workload.namespace(),
        },
        "involvedObject": {
            "apiVersion": workload.text(&["apiVersion"]),
            "kind": workload.text(&["kind"]),
            "namespace": workload.namespace(),
            "name": workload.name(),
            "uid": workload.uid(),
        },
        "type": said.kind,
        "reason": said.reason,
        "message": message,
        "source": { "component": "locktender" },
        "reportingComponent": "locktender.dev/controller",
        "reportingInstance": instance,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }))
}

fn is_warning(event: Event) -> bool {
    matches!(
        event,
        Event::Stopped
            | Event::Aborting
            | Event::Aborted
            | Event::Held
            | Event::DecisionRejected
            | Event::DriftCorrected
            | Event::LedgerRestored
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::{names::AppName, rollout::report::Reason};

    #[test]
    fn an_application_that_is_left_alone_has_a_warning_on_each_workload() {
        let (queue, mut waiting) = mpsc::channel(4);
        let events = Events { queue, instance: "here".to_owned() };
        let workload = Object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "checkout", "namespace": "shop", "uid": "u"},
        }));
        let at = Timestamp::from_second(1_795_000_000).unwrap();
        let why = Reason::Quarantined { times: 3, until: at };
        let app = AppName::new("checkout");
        events.hear(&News::Quarantined(Quarantined { app: &app, why: &why, at, workloads: vec![&workload] }));
        let event = waiting.try_recv().unwrap();
        assert_eq!((event.text(&["type"]), event.text(&["reason"])), ("Warning", "Quarantined"));
        assert_eq!(event.text(&["involvedObject", "uid"]), "u");
        assert!(event.text(&["message"]).starts_with("checkout: deciding failed 3 times in a row"));
        assert!(waiting.try_recv().is_err());
    }
}
