//! Metrics that a Job measures: one after the other, each a sample.
//!
//! A Job's name says which sample of which analysis it is, so that a controller that starts finds those that are there.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    action::Action,
    analyse::later,
    background,
    input::{Decision, Input},
    labels,
    report::Reason,
    state::{Phase, State},
};
use crate::core::{
    analysis::{Asked, MOST_SAMPLES, Metric, Sample, Verdict, judge},
    ask::{Answer, Found, Reading, Said, Unanswered},
    cluster::Kind,
    manifest::Object,
    names::{Digest, StageName},
};

/// How long a Job is kept for people to look at, where it does not say so itself, in seconds.
const KEPT: u32 = 24 * 60 * 60;
/// The longest beginning of a Job's name: pods are labelled with the whole, and labels end at 63 characters.
const LONGEST: usize = 45;

/// The kind of Jobs.
pub fn kind() -> Kind {
    Kind::new("batch", "v1", "Job")
}

/// What is measured by Jobs.
pub(super) struct Measure<'a> {
    /// The metric.
    pub metric: &'a Metric,
    /// The Jobs' `spec`.
    pub spec: Value,
    /// Since when it is measured.
    pub since: Timestamp,
    /// Where they run.
    pub namespace: &'a str,
}

impl Measure<'_> {
    /// Says what the record tells of it.
    pub(super) fn asked(&self) -> Asked {
        let whom = format!("Jobs in {}", self.namespace);
        Asked { whom, query: self.spec.to_string(), baseline: None, window: None }
    }
}

/// Names an analysis: its rollout, stage and metric, and since when it goes on.
fn analysis(state: &State, stage: &StageName, metric: &str, since: Timestamp) -> String {
    let text = format!("{} {stage} {metric} {}", state.plan.rollout, since.as_microsecond());
    Digest::of(text.as_bytes()).hex()[..10].to_owned()
}

/// Takes the samples that are there and makes the next Job; returns the verdict once there is one.
pub(super) fn measure(
    input: &Input<'_>,
    state: &State,
    measure: &Measure<'_>,
    decision: &mut Decision,
) -> Option<(Vec<Sample>, Verdict)> {
    let Measure { metric, since, namespace, .. } = measure;
    let stage = &state.current().name;
    if !input.view.knows(&kind()) {
        let why = input
            .view
            .lost(&kind())
            .map_or_else(|| "Jobs are listed".to_owned(), |why| format!("Jobs are listed: {why}"));
        decision.report.reasons.push(Reason::Following { what: why });
        return None;
    }
    let id = analysis(state, stage, &metric.name, *since);
    let beginning = format!("{}-{}", input.app, metric.name);
    let beginning = beginning.get(..LONGEST).unwrap_or(&beginning).trim_end_matches('-');
    let mut answers: Vec<Answer> = Vec::new();
    let mut next = None;
    for number in 1..=MOST_SAMPLES {
        let name = format!("{beginning}-{id}-{number}");
        let due = answers
            .last()
            .map_or_else(|| later(*since, metric.rule.initial_delay), |last| later(last.at, metric.rule.interval));
        match input.view.get("batch", "Job", namespace, &name) {
            Some(job) => match ended(job) {
                Some(answer) => answers.push(answer),
                None => break,
            },
            None => {
                let wanted = object(input, state, measure, &id, name);
                match input.refused.get(&wanted.key()) {
                    Some(why) => {
                        let result = Err(Unanswered::Refused { status: 422, message: why.clone() });
                        answers.push(Answer { at: due, result });
                    }
                    None => {
                        next = Some((wanted, due));
                        break;
                    }
                }
            }
        }
    }
    let (samples, tally, verdict) = judge(&metric.rule, &answers.iter().collect::<Vec<_>>());
    if let Some(verdict) = verdict {
        return Some((samples, verdict));
    }
    match next {
        Some((job, due)) if due <= input.now => {
            let why = format!("{} measures {}", job.name(), metric.name);
            decision.actions.push(Action::create(job, why));
        }
        Some((_, due)) => decision.wake_at(Some(due)),
        None => {}
    }
    let (done, of, taken) = (tally.measured(), metric.rule.enough.samples(), tally.taken());
    let (stage, metric) = (stage.clone(), metric.name.clone());
    decision.report.reasons.push(Reason::Analysing { stage, metric, since: *since, done, of, taken });
    None
}

/// Returns what a Job that has ended says.
fn ended(job: &Object) -> Option<Answer> {
    let conditions = job.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let condition = conditions
        .filter(|one| one["status"] == "True")
        .find(|one| matches!(one["type"].as_str(), Some("Complete" | "Failed")))?;
    let at = condition["lastTransitionTime"].as_str()?.parse().ok()?;
    let count = |name: &str| job.number(&["status", name]).unwrap_or(0);
    let mut found = json!({
        "complete": condition["type"] == "Complete",
        "succeeded": count("succeeded"),
        "failed": count("failed"),
    });
    if let Some(reason) = condition["reason"].as_str().filter(|reason| !reason.is_empty()) {
        found["reason"] = json!(reason);
    }
    Some(Answer { at, result: Ok(Said::Reading(Reading { result: Found::Json(found), baseline: None })) })
}

/// Builds a Job: the person's, bounded in time and gone after a day where they say nothing else.
fn object(input: &Input<'_>, state: &State, measure: &Measure<'_>, id: &str, name: String) -> Object {
    let mut spec = measure.spec.clone();
    let deadline = state.plan.policy.as_ref().map(|policy| policy.spec.progress_deadline);
    let defaults = [
        ("activeDeadlineSeconds", deadline.map(|deadline| json!(deadline.as_secs().max(1)))),
        ("ttlSecondsAfterFinished", Some(json!(KEPT))),
    ];
    for (field, value) in defaults {
        if let (Some(value), Some(fields)) = (value, spec.as_object_mut()) {
            fields.entry(field).or_insert(value);
        }
    }
    Object(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": measure.namespace,
            "labels": { labels::APP: input.app, labels::ANALYSIS: id },
            "annotations": {
                labels::ROLLOUT: state.plan.rollout.to_string(),
                labels::STAGE: state.current().name,
            },
        },
        "spec": spec,
    }))
}

/// Ends Jobs that nobody waits for any more: of a stage that was left, or a rollout that goes back.
pub(super) fn end_others(input: &Input<'_>, decision: &mut Decision) {
    let policies = input.rollouts.iter().rev().take(2).filter_map(|state| state.plan.policy.as_ref());
    if !policies.flat_map(|policy| policy.spec.metrics.values()).any(Metric::is_job) {
        return;
    }
    let current = input.rollouts.last().map(current).unwrap_or_default();
    for job in input.view.of_app(input.app, "Job") {
        let Some(id) = job.label(labels::ANALYSIS) else { continue };
        if ended(job).is_none() && !job.is_terminating() && !current.contains(id) {
            decision.actions.push(Action::delete(job, false, format!("{} measures for nobody", job.name())));
        }
    }
}

/// Names the analyses that may go on.
fn current(state: &State) -> BTreeSet<String> {
    if state.is_over() || matches!(state.phase, Phase::Aborting(_)) {
        return BTreeSet::new();
    }
    let stage = &state.current().name;
    let waiting = state.waiting.get(stage).into_iter();
    let at_gate = waiting.flat_map(|waiting| {
        let since = waiting.since.max(state.since);
        state.current().analyses().map(move |metric| analysis(state, stage, metric, since))
    });
    let beside = state.current().in_background();
    let beside = beside.filter_map(|metric| Some(analysis(state, stage, metric, background::since(state, metric)?)));
    at_gate.chain(beside).collect()
}
