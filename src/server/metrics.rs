//! Metrics in the OpenMetrics text format, which Prometheus scrapes. `docs/operations.md` has the table of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use super::health::Health;
use crate::{
    adapter::{
        git::{RemoteCounts, RemoteOperation, RemoteResult},
        kube::RequestCounts,
    },
    controller::news::{Listener, News, Recorded},
    core::{
        ledger::{Event, Record},
        names::AppName,
        rollout::report::Activity,
    },
};

/// Where what is only read at a scrape comes from.
pub struct Sources {
    /// Who leads, and how much there is to do.
    pub health: Arc<Health>,
    /// The requests to the API server, by connection.
    pub api: Vec<Arc<RequestCounts>>,
    /// What the remote was asked.
    pub git: Arc<RemoteCounts>,
}

/// What each application does, as decided last, and whether its HEAD is broken.
type Activities = Arc<Mutex<BTreeMap<AppName, (Activity, bool)>>>;

struct Scraped {
    sources: Sources,
    activities: Activities,
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scraped")
    }
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    records: Family<[(&'static str, String); 1], Counter>,
    stage: Histogram,
    gate: Histogram,
    activities: Activities,
}

/// From five seconds to a week: a stage of one pod, and a confirm after the holidays.
const SECONDS: [f64; 14] =
    [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0, 604_800.0];

const ACTIVITIES: [(Activity, &str); 8] = [
    (Activity::New, "new"),
    (Activity::Stable, "stable"),
    (Activity::Progressing, "progressing"),
    (Activity::Waiting, "waiting"),
    (Activity::Paused, "paused"),
    (Activity::Stopped, "stopped"),
    (Activity::Aborting, "aborting"),
    (Activity::Held, "held"),
];

impl Metrics {
    /// Starts counting.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix("locktender");
        let records = Family::default();
        let (stage, gate) = (Histogram::new(SECONDS), Histogram::new(SECONDS));
        registry.register("records", "Records written, by event", records.clone());
        registry.register("stage_seconds", "From a stage's start until its pods were good", stage.clone());
        registry.register("gate_seconds", "From a stage's waiting until a person let it go on", gate.clone());
        let activities = Activities::default();
        registry.register_collector(Box::new(Scraped { sources, activities: activities.clone() }));
        Self { registry, records, stage, gate, activities }
    }

    /// Forgets a term that has ended: the next starts anew. What was counted stays.
    pub fn starts_anew(&self) {
        self.activities.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns everything as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn count(&self, recorded: &Recorded<'_>) {
        let Recorded { record, before, .. } = recorded;
        self.records.get_or_create(&[("event", format!("{:?}", record.event))]).inc();
        if let Some(seconds) = stage_took(record, before) {
            self.stage.observe(seconds);
        }
        if let Some(seconds) = gate_took(record, before) {
            self.gate.observe(seconds);
        }
    }
}

impl Listener for Metrics {
    fn hear(&self, news: &News<'_>) {
        match news {
            News::Recorded(recorded) => self.count(recorded),
            News::Decided { app, activity, head_is_broken } => {
                let mut activities = self.activities.lock().unwrap_or_else(PoisonError::into_inner);
                activities.insert((*app).clone(), (*activity, *head_is_broken));
            }
            News::Woke | News::Rests(_) | News::Quarantined(_) => {}
        }
    }
}

/// How long a stage took whose end `record` tells, gates aside: it waits, the next one starts, or all is done.
fn stage_took(record: &Record, before: &[Record]) -> Option<f64> {
    if !matches!(record.event, Event::StageWaiting | Event::StageStarted | Event::Completed) {
        return None;
    }
    // A stage that waited before was good by then.
    let last = before.iter().rev().find(|one| matches!(one.event, Event::StageStarted | Event::StageWaiting))?;
    (last.event == Event::StageStarted).then(|| seconds(last, record))
}

/// How long the gate that `record` opens was waited at.
fn gate_took(record: &Record, before: &[Record]) -> Option<f64> {
    let asked = match record.event {
        Event::ConfirmAccepted => before.iter().rev().find(|one| one.event == Event::StageWaiting),
        Event::Promoted => before
            .iter()
            .rev()
            .find(|one| matches!(one.event, Event::StageStarted | Event::StageWaiting))
            .filter(|one| one.event == Event::StageWaiting),
        _ => None,
    };
    asked.map(|asked| seconds(asked, record))
}

fn seconds(from: &Record, to: &Record) -> f64 {
    to.time.duration_since(from.time).as_secs_f64().max(0.0)
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Sources { health, api, git } = &self.sources;
        let leads = health.leads();
        let mut activities: BTreeMap<&str, i64> = ACTIVITIES.iter().map(|(_, name)| (*name, 0)).collect();
        let mut broken = 0;
        if leads {
            for (activity, head_is_broken) in self.activities.lock().unwrap_or_else(PoisonError::into_inner).values() {
                let name = ACTIVITIES.iter().find(|(known, _)| known == activity).map(|(_, name)| *name);
                *activities.entry(name.unwrap_or_default()).or_default() += 1;
                broken += i64::from(*head_is_broken);
            }
        }
        let labelled = activities.into_iter().map(|(name, count)| ([("activity", name)], count));
        gauges(&mut encoder, "applications", "Applications, by what they are doing; told by who leads", labelled)?;
        let help = "Applications of which HEAD says what cannot be used; told by who leads";
        gauge(&mut encoder, "heads_broken", help, broken)?;
        let load = health.load();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        gauge(&mut encoder, "queue_depth", "Applications that are to be decided", count(load.due))?;
        gauge(&mut encoder, "writing", "Applications whose writes are under way", count(load.acting))?;
        gauge(&mut encoder, "leader", "1 where this process acts", i64::from(leads))?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauges(&mut encoder, "build_info", "1; the version is in the label", [(version, 1)])?;

        let mut answers: BTreeMap<[String; 3], u64> = BTreeMap::new();
        for ((verb, resource, status), count) in api.iter().flat_map(|counts| counts.answers()) {
            let code = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            *answers.entry([verb.to_string(), resource, code]).or_default() += count;
        }
        let labelled = answers
            .iter()
            .map(|([verb, resource, code], count)| ([("verb", verb), ("resource", resource), ("code", code)], *count));
        counters(
            &mut encoder,
            "api_requests",
            "Requests to the API server, by verb, resource and HTTP status",
            labelled,
        )?;

        let asked = git.snapshot();
        let labelled = asked.iter().map(|((operation, result), count)| {
            ([("operation", operation_name(*operation)), ("result", result_name(*result))], *count)
        });
        counters(&mut encoder, "git_requests", "Requests to the Git remote, by operation and result", labelled)?;
        if let Some(age) = git.answered_ago() {
            let help = "Time since the Git remote last did what it was asked for";
            gauge(&mut encoder, "git_answer_age_seconds", help, age.as_secs_f64())?;
        }
        Ok(())
    }
}

fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: V,
) -> Result<(), fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); N], i64)>,
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    values.into_iter().try_for_each(|(labels, value)| ConstGauge::new(value).encode(metric.encode_family(&labels)?))
}

fn counters<V: AsRef<str>, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    values.into_iter().try_for_each(|(labels, value)| {
        let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)
    })
}

fn operation_name(operation: RemoteOperation) -> &'static str {
    match operation {
        RemoteOperation::Ask => "ask",
        RemoteOperation::Fetch => "fetch",
        RemoteOperation::Push => "push",
    }
}

fn result_name(result: RemoteResult) -> &'static str {
    match result {
        RemoteResult::Done => "done",
        RemoteResult::Rejected => "rejected",
        RemoteResult::Denied => "denied",
        RemoteResult::Failed => "failed",
    }
}
