//! Jobs: pods that run to completion.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Change, Controller, Outcome, View, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// Runs jobs.
#[derive(Debug)]
pub struct JobController {
    resource: Arc<str>,
}

impl Default for JobController {
    fn default() -> Self {
        Self { resource: "jobs.batch".into() }
    }
}

impl Controller for JobController {
    fn concerns(&mut self, change: &Change<'_>, _: &Cache) -> Vec<Key> {
        if change.is("jobs.batch") {
            return change.key().into_iter().collect();
        }
        if change.is("pods") {
            return change.controllers_of_kind("Job", &self.resource).collect();
        }
        Vec::new()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(job) = view.cache.at(key).filter(|job| !value::is_terminating(job)) else { return Outcome::default() };
        if pods::holds(job, "Complete") || pods::holds(job, "Failed") {
            return Outcome::default();
        }
        let pods: Vec<&Arc<Value>> = view.cache.pods_of(value::uid(job)).collect();
        run(job, &pods, view)
    }
}

fn run(job: &Value, pods: &[&Arc<Value>], view: &View<'_>) -> Outcome {
    let count =
        |phase: &str| i64::try_from(pods.iter().filter(|pod| pods::phase(pod) == phase).count()).unwrap_or(i64::MAX);
    let (succeeded, failed) = (count("Succeeded"), count("Failed"));
    let active: Vec<&&Arc<Value>> = pods.iter().filter(|pod| pods::is_active(pod)).collect();
    let running = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let parallelism = value::number_or(job, &["spec", "parallelism"], 1);
    // Without completions, one success ends the job.
    let completions = value::at(job, &["spec", "completions"]).and_then(Value::as_i64);
    let is_complete = match completions {
        Some(wanted) => succeeded >= wanted,
        None => succeeded > 0 && running == 0,
    };
    let deadline = deadline(job);
    let failure = if failed > value::number_or(job, &["spec", "backoffLimit"], 6) {
        Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    } else if deadline.is_some_and(|deadline| deadline <= view.now) {
        Some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    } else {
        None
    };
    let mut writes = Vec::new();
    let suspended = value::flag(job, &["spec", "suspend"]);
    let mut status = json!({});
    if !suspended {
        let started = value::at(job, &["status", "startTime"]).cloned();
        status["startTime"] = started.unwrap_or_else(|| value::stamp(view.now));
    }
    if suspended || pods::condition(job, "Suspended").is_some() {
        status["conditions"] = vec![suspension(job, suspended, view)].into();
    }
    if is_complete || failure.is_some() || suspended {
        writes.extend(active.iter().map(|pod| Write::delete(Key::of(&Arc::from("pods"), pod), pod)));
    } else {
        let left = completions.map_or(parallelism, |wanted| wanted - succeeded);
        let missing = usize::try_from(parallelism.min(left) - running).unwrap_or_default();
        writes.extend(std::iter::repeat_with(|| Write::Create(new_pod(job))).take(missing));
    }
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    let counts = [("active", running), ("succeeded", succeeded), ("failed", failed)];
    for (name, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
        status[name] = count.into();
    }
    status["ready"] = ready.into();
    if is_complete {
        status["completionTime"] = value::stamp(view.now);
        status["conditions"] = ended(
            &["SuccessCriteriaMet", "Complete"],
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            view,
        );
    } else if let Some((reason, message)) = failure {
        status["conditions"] = ended(&["FailureTarget", "Failed"], reason, message, view);
    }
    writes.extend(Write::status(job, status));
    // Its first status says since when it runs: the write of it is seen, and the deadline counted from there.
    Outcome { writes, wake: deadline.filter(|deadline| *deadline > view.now) }
}

/// Says whether a job is suspended; since when, where it says so already.
fn suspension(job: &Value, suspended: bool, view: &View<'_>) -> Value {
    if pods::holds(job, "Suspended") == suspended
        && let Some(said) = pods::condition(job, "Suspended")
    {
        return said.clone();
    }
    let now = value::stamp(view.now);
    let (status, reason, message) =
        if suspended { ("True", "JobSuspended", "Job suspended") } else { ("False", "JobResumed", "Job resumed") };
    json!({
        "type": "Suspended", "status": status, "reason": reason, "message": message,
        "lastProbeTime": now, "lastTransitionTime": now,
    })
}

/// Returns when a job has run for as long as it may.
fn deadline(job: &Value) -> Option<Timestamp> {
    let seconds = value::at(job, &["spec", "activeDeadlineSeconds"])?.as_i64()?;
    Some(value::time(job, &["status", "startTime"])? + SignedDuration::from_secs(seconds))
}

fn ended(kinds: &[&str], reason: &str, message: &str, view: &View<'_>) -> Value {
    let now = value::stamp(view.now);
    let condition = |kind: &&str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now,
        })
    };
    kinds.iter().map(condition).collect()
}

fn new_pod(job: &Value) -> Value {
    let mut pod = pods::from_template(job, &job["spec"]["template"]);
    for (label, content) in [
        ("batch.kubernetes.io/controller-uid", value::uid(job)),
        ("batch.kubernetes.io/job-name", value::name(job)),
        ("controller-uid", value::uid(job)),
        ("job-name", value::name(job)),
    ] {
        value::set(&mut pod, &["metadata", "labels", label], content);
    }
    value::set(&mut pod, &["metadata", "generateName"], format!("{}-", value::name(job)));
    pod
}
