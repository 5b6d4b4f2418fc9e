//! The analyses of a stage that is there: what is asked, how far it is, and what it comes to.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    forward::{fail, stop},
    input::{Decision, Input},
    jobs, labels,
    observe::Observed,
    plan::Method,
    render::{Maker, Render, Workload},
    report::Reason,
    state::State,
    strategy::ordinals,
};
use crate::core::{
    analysis::{Asked, Enough, MOST_SAMPLES, Metric, Run, Sample, Side, Verdict, judge, literal},
    ask::{Answer, Asking, Question},
    ledger::{Draft, Event},
    names::StageName,
};

/// What the analyses of the current stage say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Analysed {
    /// All are good, or there are none.
    Good,
    /// One goes on, or has not begun.
    Awaited,
    /// One was not good: the decision says what follows.
    Ended,
}

/// Judges what was measured so far, and asks for more. An analysis begins with the stage's waiting record, and anew when
/// the stage is entered again, tried again, or its pods are shared out differently; answers from before count for
/// nothing. A controller that starts has no answers, and begins anew.
pub(super) fn analyse(
    input: &Input<'_>,
    state: &State,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
    decision: &mut Decision,
) -> Analysed {
    let stage = &state.current().name;
    let mut all = Analysed::Good;
    for name in state.current().analyses() {
        if state.is_good(stage, name) {
            continue;
        }
        let metric = state.plan.policy.as_ref().and_then(|policy| policy.spec.metrics.get(name));
        let (Some(metric), Some(waiting)) = (metric, state.waiting.get(stage)) else {
            all = Analysed::Awaited;
            continue;
        };
        let since = waiting.since.max(state.since);
        match one(input, state, metric, since, (target, stable), decision) {
            Analysed::Good => {}
            Analysed::Awaited => all = Analysed::Awaited,
            Analysed::Ended => return Analysed::Ended,
        }
    }
    all
}

/// Judges one metric by what was answered since a moment, and asks for more.
pub(super) fn one(
    input: &Input<'_>,
    state: &State,
    metric: &Metric,
    since: Timestamp,
    (target, stable): (Option<&Arc<Render>>, Option<&Arc<Render>>),
    decision: &mut Decision,
) -> Analysed {
    let stage = &state.current().name;
    let new = side(input, state, target, "canary");
    if let Some(spec) = metric.job(&new) {
        let job = jobs::Measure { metric, spec, since, namespace: &new.namespace };
        return match jobs::measure(input, state, &job, decision) {
            Some((samples, verdict)) => {
                conclude(input, state, metric, job.asked(), (since, samples, verdict), decision)
            }
            None => Analysed::Awaited,
        };
    }
    let old = side(input, state, stable, "stable");
    let server = input.head.and_then(|head| head.prometheus.as_deref());
    let Some(question) = metric.question(&new, &old, server) else {
        // Who asks was named when the rollout opened, and was taken away since.
        let what = format!("locktender.yaml says where Prometheus is, for {}", metric.name);
        decision.report.reasons.push(Reason::Following { what });
        return Analysed::Awaited;
    };
    let answers: Vec<&Answer> = input.answers.of(&question).iter().filter(|answer| answer.at >= since).collect();
    let endless = match metric.rule.enough {
        Enough::Endless(last) => Some(usize::try_from(last).unwrap_or(usize::MAX)),
        Enough::Count(_) | Enough::InARow(_) => None,
    };
    let counted = &answers[endless.map_or(0, |last| answers.len().saturating_sub(last))..];
    let (samples, tally, verdict) = judge(&metric.rule, counted);
    let last = answers.last().map(|answer| answer.at);
    let due = last.map_or(later(since, metric.rule.initial_delay), |last| later(last, metric.rule.interval));
    let asking = |due| Asking { question: question.clone(), due, keep: endless.unwrap_or(MOST_SAMPLES as usize) };
    let Some(verdict) = verdict else {
        decision.questions.push(asking(Some(due)));
        if endless.is_some() {
            return Analysed::Awaited;
        }
        let (done, of, taken) = (tally.measured(), metric.rule.enough.samples(), tally.taken());
        let reason = Reason::Analysing { stage: stage.clone(), metric: metric.name.clone(), since, done, of, taken };
        decision.report.reasons.push(reason);
        return Analysed::Awaited;
    };
    // The answers are kept until the record is pushed.
    decision.questions.push(asking(None));
    let Question::Metric(asked) = &question else { return Analysed::Awaited };
    conclude(input, state, metric, Asked::from(&asked.query), (since, samples, verdict), decision)
}

/// Records what an analysis came to, and does what follows.
fn conclude(
    input: &Input<'_>,
    state: &State,
    metric: &Metric,
    asked: Asked,
    (since, samples, verdict): (Timestamp, Vec<Sample>, Verdict),
    decision: &mut Decision,
) -> Analysed {
    let run = Run::new(metric, asked, since, samples, verdict);
    let why = run.why();
    record(state, &state.current().name, run, &why, decision);
    match verdict {
        Verdict::Pass => Analysed::Good,
        Verdict::Fail => {
            fail(input, state, why, decision);
            Analysed::Ended
        }
        Verdict::Inconclusive | Verdict::Error => {
            stop(input, state, why, decision);
            Analysed::Ended
        }
    }
}

fn record(state: &State, stage: &StageName, run: Run, why: &str, decision: &mut Decision) {
    let draft = Draft::new(Event::AnalysisRun, Some(stage), why).with(|evidence| evidence.analysis = Some(run));
    decision.records.push((state.plan.rollout.number, draft));
}

/// Adds a time to a moment; the end of all time where there is no later one.
pub(super) fn later(since: Timestamp, by: std::time::Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    since.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Names one version of the application in the words of queries: by the slices that have its pods, and by the pods of
/// a set that has those of both.
fn side(input: &Input<'_>, state: &State, render: Option<&Arc<Render>>, variant: &'static str) -> Side {
    let changed = |workload: &&Workload| state.plan.methods.get(&workload.id) != Some(&Method::Rebalance);
    let workloads = render.into_iter().flat_map(|render| render.workloads.values()).filter(changed);
    let (mut digests, mut slices, mut pods, mut units) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for workload in workloads {
        let digest = labels::digest_label(&workload.digest);
        let observed = Observed::read(input.view, input.app, &workload.key);
        match (workload.maker(), observed.handle) {
            (Maker::Slices, _) => {
                let of_it = || observed.slices.iter().filter(|slice| slice.digest == digest);
                slices.extend(of_it().map(|slice| literal(slice.object.name())));
                units.extend(of_it().map(|slice| slice.unit.to_string()));
            }
            (Maker::Ordinals, Some(set)) => {
                let ordinals = ordinals::at_version(set, &observed, &digest);
                let ordinals: Vec<String> = ordinals.iter().map(i64::to_string).collect();
                if !ordinals.is_empty() {
                    pods.push(format!("{}-({})", literal(set.name()), ordinals.join("|")));
                }
            }
            (Maker::Ordinals, None) => {}
            (Maker::Nodes, _) => {
                let of_it = observed.pods().filter(|pod| pod.digest == digest);
                pods.extend(of_it.map(|pod| literal(pod.object.name())));
            }
        }
        digests.push(digest);
    }
    slices.sort();
    if !slices.is_empty() {
        pods.push(format!("({})-[a-z0-9]+", slices.join("|")));
    }
    for all in [&mut digests, &mut pods, &mut units] {
        all.sort();
        all.dedup();
    }
    let namespace = render.and_then(|render| render.application.namespace.clone());
    let router = state.plan.policy.as_ref().and_then(|policy| policy.spec.strategy.router());
    Side {
        app: input.app.to_string(),
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        variant,
        digest: digests.join("|"),
        pods: match pods.as_slice() {
            // There is no pod, and nothing that a name could match.
            [] => "-".to_owned(),
            [one] => one.clone(),
            several => format!("({})", several.join("|")),
        },
        unit: units.join("|"),
        router: router.cloned(),
    }
}
