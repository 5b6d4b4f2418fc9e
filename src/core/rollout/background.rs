//! Analyses in the background: beside everything that happens from a step on, pods that come and go included. They hold
//! up nothing, and never pass: the sample that makes them bad is the last.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    analyse::{Analysed, one},
    input::{Decision, Input},
    render::Render,
    state::State,
};
use crate::core::{
    analysis::{Enough, Metric, Rule},
    ledger::Event,
    names::StageName,
};

/// Judges what was measured lately, and asks for more.
pub(super) fn watch(
    input: &Input<'_>,
    state: &State,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
    decision: &mut Decision,
) -> Analysed {
    for name in state.current().in_background() {
        let metric = state.plan.policy.as_ref().and_then(|policy| policy.spec.metrics.get(name));
        let Some((metric, since)) = metric.zip(since(state, name)) else { continue };
        let endless = Metric { rule: endless(&metric.rule), ..metric.clone() };
        if one(input, state, &endless, since, (target, stable), decision) == Analysed::Ended {
            return Analysed::Ended;
        }
    }
    Analysed::Good
}

/// Returns a rule by which nothing is ever good enough, over so many samples that every limit can be crossed in them.
fn endless(rule: &Rule) -> Rule {
    let limits = [rule.failure_limit, rule.inconclusive_limit, rule.error_limit];
    let samples = limits.into_iter().map(|limit| limit + 1).chain([rule.enough.samples()]).max().unwrap_or(1);
    Rule { enough: Enough::Endless(samples), ..rule.clone() }
}

/// Returns since when it is measured: since every pod of its first step was there, or the rollout was tried again.
pub(super) fn since(state: &State, metric: &str) -> Option<Timestamp> {
    let stages = &state.plan.stages;
    let first = stages.iter().position(|stage| stage.in_background().any(|name| name == metric))?;
    let there = match state.waiting.get(&stages[first].name) {
        Some(waiting) => waiting.since,
        // A step that waits for nothing is over as soon as its pods are there.
        None => last(state, Event::StageStarted, Some(&stages.get(first + 1).filter(|_| state.stage > first)?.name))?,
    };
    Some(last(state, Event::Retried, None).map_or(there, |retried| retried.max(there)))
}

fn last(state: &State, event: Event, stage: Option<&StageName>) -> Option<Timestamp> {
    let is_it = |record: &&crate::core::ledger::Record| {
        record.event == event && (stage.is_none() || record.stage.as_ref() == stage)
    };
    state.records.iter().rev().find(is_it).map(|record| record.time)
}
