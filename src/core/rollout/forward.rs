//! A rollout that goes forward, waits at a gate, is paused or has stopped.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    action::Action,
    analyse::{Analysed, analyse},
    back, background,
    decide::{applied, broken, is_target, open, report, stable_side},
    gates::Decisions,
    handover,
    input::{Decision, DecisionAtHead, Head, HeadContent, Input, files},
    labels, objects, plan,
    plan::{Gate, Method, Stage},
    quota,
    render::{Render, Workload},
    report::{Activity, Reason},
    reschedule, rest, sides,
    state::{Phase, State},
    steer::{self, Course, Steered},
    stray,
};
use crate::core::{
    ledger::{Cause, Draft, Event, PodEvidence, Quota, Record},
    manifest::Object,
    names::StageName,
    policy::{OnFailure, OnNewRevision},
    rollout::observe::Observed,
};

/// Decides for a rollout that is not over and does not go back.
pub(super) fn decide(input: &Input<'_>, state: &State) -> Decision {
    let mut decision = Decision::nothing(report(input, Some(state), Activity::Progressing));
    let number = state.plan.rollout.number;
    if let Some(abort) = input.abort {
        let said = abort.body.as_ref().ok().and_then(|body| body.message.clone());
        let why = said.map_or_else(|| "abort --now".to_owned(), |message| format!("abort --now: {message}"));
        decision.records.push((number, back::begin(input, Cause::Decision, why, Some(abort))));
        decision.urgent = true;
        return decision;
    }
    let head = input.head.filter(|_| input.git.rewritten.is_none());
    if let Some(head) = head {
        let decisions = Decisions::new(state, &head.decisions);
        if let Some(draft) = turn_back(input, state, head, &decisions) {
            decision.records.push((number, draft));
            decision.urgent = true;
            return decision;
        }
        if new_revision(input, state, head, &mut decision) {
            return decision;
        }
        let answers = decisions.answers();
        decision.records.extend(answers.into_iter().map(|draft| (number, draft)));
        if step_back(state, head, &decisions, &mut decision) {
            return decision;
        }
        pause_or_resume(state, &decisions, number, &mut decision);
        accept_changed(state, &decisions, &mut decision);
        if let (Phase::Stopped, Some(retry)) = (state.phase, decisions.retry()) {
            let draft = Draft::new(Event::Retried, Some(&state.current().name), "retry.yaml: the stage is tried again")
                .with(|evidence| evidence.decision = Some(retry.file.clone()));
            decision.records.push((number, draft));
            return decision;
        }
    }
    let target = sides::target_at(state).map(|revision| input.renders.get(&revision));
    let stable = stable_side(input.rollouts, input.renders);
    let lacks_stable = sides::stable_at(input.rollouts).is_some() && stable.is_none();
    if matches!(target, Some(None)) || lacks_stable {
        decision.report.reasons.push(Reason::Following { what: "both sides are rendered".to_owned() });
        return decision;
    }
    let target = target.flatten();
    // What ran without a policy is the other side as it would have been staged.
    let stable = stable.map(|stable| match state.plan.policy {
        Some(ref pinned) if stable.policy.is_none() => {
            Arc::new(handover::staged_form(&stable, &pinned.spec).into_owned())
        }
        _ => stable,
    });
    let steered = go(input, state, target, stable.as_ref(), &mut decision);
    if state.phase == Phase::Running
        && background::watch(input, state, target, stable.as_ref(), &mut decision) == Analysed::Ended
    {
        return decision;
    }
    let analysed = match state.phase {
        // Whether pods of the stage have come and gone since or not: it was there, and is measured.
        Phase::Running => analyse(input, state, target, stable.as_ref(), &mut decision),
        _ => Analysed::Awaited,
    };
    if analysed == Analysed::Ended {
        return decision;
    }
    if let Some(steered) = steered {
        if rebalance(input, state, target, &mut decision) {
            return decision;
        }
        if steered.done {
            pass(input, state, head, target, analysed, &mut decision);
        } else {
            watch_progress(input, state, &steered, &mut decision);
        }
    } else {
        pass(input, state, head, target, analysed, &mut decision);
    }
    classify(input, state, &mut decision);
    decision
}

/// Returns the record that turns the rollout back: an abort, or a HEAD that renders stable again.
fn turn_back(input: &Input<'_>, state: &State, head: &Head, decisions: &Decisions<'_>) -> Option<Draft> {
    if let Some(abort) = decisions.abort() {
        let said = abort.body.as_ref().ok().and_then(|body| body.message.clone());
        let why = said.map_or_else(|| "abort.yaml".to_owned(), |message| format!("abort.yaml: {message}"));
        return Some(back::begin(input, Cause::Decision, why, Some(abort)));
    }
    if is_target(&head.content, &state.plan) {
        return None;
    }
    let HeadContent::Rendered(render) = &head.content else { return None };
    let stable = stable_side(input.rollouts, input.renders)?;
    (stable.digests == render.digests).then(|| {
        let why = format!("{} renders stable again: the release was reverted", render.revision.short());
        back::begin(input, Cause::Revert, why, None)
    })
}

/// Handles a HEAD that is not what the rollout goes to; returns whether the decision is made.
fn new_revision(input: &Input<'_>, state: &State, head: &Head, decision: &mut Decision) -> bool {
    let number = state.plan.rollout.number;
    if let Some(reason) = broken(input, &head.content) {
        decision.report.reasons.push(reason);
        return false;
    }
    if is_target(&head.content, &state.plan) {
        let HeadContent::Rendered(render) = &head.content else { return false };
        let in_effect = state.applied.as_ref().map_or(state.plan.to.digest, |(_, digest)| *digest);
        // Without a policy nothing of it is staged: it is put in place by the rollout that gives back, after this one.
        let is_staged_alike = render.policy.is_some() == state.plan.policy.is_some();
        if is_staged_alike && render.digest != in_effect {
            let draft = applied(render, sides::target_at(state).as_ref());
            decision.records.push((number, draft));
            return true;
        }
        return false;
    }
    let target = match &head.content {
        HeadContent::Rendered(render) => Some(render),
        _ => None,
    };
    let live = target.and_then(|target| target.policy.as_ref()).map(|policy| policy.on_new_revision);
    let pinned = state.plan.policy.as_ref().map(|policy| policy.spec.on_new_revision);
    let queue = live.or(pinned) == Some(OnNewRevision::Queue) && state.phase == Phase::Running;
    if queue || head.frozen.is_some() {
        return false;
    }
    let stable = stable_side(input.rollouts, input.renders);
    match open(input, head, target, stable.as_ref()) {
        Ok((plan, drafts)) => {
            let next = plan.rollout.number;
            let why = format!("{} is newer: {}", head.revision.short(), super::decide::versions(&plan));
            let superseded = Draft::new(Event::Superseded, Some(&state.current().name), why)
                .listing(files(&head.decisions))
                .with(|evidence| evidence.by = Some(next));
            decision.records.push((number, superseded));
            decision.open = Some((plan, drafts));
            true
        }
        Err(error) => {
            decision.report.reasons.push(Reason::HeadBroken { problem: error.to_string() });
            false
        }
    }
}

/// Steps back where a gate that had opened is closed again.
fn step_back(state: &State, head: &Head, decisions: &Decisions<'_>, decision: &mut Decision) -> bool {
    let frontier = decisions.frontier();
    if frontier >= state.stage {
        return false;
    }
    let stage = &state.plan.stages[frontier].name;
    let from = &state.current().name;
    let why = format!("the confirm of {stage} was taken back: pods of the stages up to {from} return");
    let draft = Draft::new(Event::StageReverted, Some(stage), why).listing(files(&head.decisions));
    decision.records.push((state.plan.rollout.number, draft));
    decision.urgent = true;
    true
}

fn pause_or_resume(state: &State, decisions: &Decisions<'_>, number: u32, decision: &mut Decision) {
    let stage = Some(&state.current().name);
    match (decisions.pause(), state.paused) {
        (Some(pause), false) => {
            let said = pause.body.as_ref().ok().and_then(|body| body.message.clone());
            let why = said.map_or_else(|| "pause.yaml".to_owned(), |message| format!("pause.yaml: {message}"));
            let draft =
                Draft::new(Event::Paused, stage, why).with(|evidence| evidence.decision = Some(pause.file.clone()));
            decision.records.push((number, draft));
        }
        (None, true) => decision.records.push((number, Draft::new(Event::Resumed, stage, "pause.yaml is gone"))),
        _ => {}
    }
    if let Some(promote) = decisions.promote().filter(|promote| !state.answered.contains(&promote.file)) {
        let draft =
            Draft::new(Event::Promoted, stage, "promote.yaml: the confirms and pauses that are left are passed")
                .with(|evidence| evidence.decision = Some(promote.file.clone()));
        decision.records.push((number, draft));
    }
}

/// Accepts the confirm of a stage that was passed anew where somebody changed its content since: it is another decision,
/// and the gate stands open on it now. Whatever keeps a gate open has a record that names it.
fn accept_changed(state: &State, decisions: &Decisions<'_>, decision: &mut Decision) {
    for stage in state.plan.stages.iter().take(state.stage).filter(|stage| stage.asks_for_confirm()) {
        let Some(confirm) = decisions.confirm(&stage.name) else { continue };
        if !state.answered.contains(&confirm.file) {
            decision.records.push((state.plan.rollout.number, accepted(&stage.name, confirm)));
        }
    }
}

/// Records that a confirm opens a stage's gate.
fn accepted(stage: &StageName, confirm: &DecisionAtHead) -> Draft {
    let said = confirm.body.as_ref().ok().and_then(|body| body.message.clone());
    let why = said.unwrap_or_else(|| confirm.file.path.clone());
    Draft::new(Event::ConfirmAccepted, Some(stage), why).with(|evidence| evidence.decision = Some(confirm.file.clone()))
}

/// Brings the cluster to the current stage. `None` where the stage comes before any act.
fn go(
    input: &Input<'_>,
    state: &State,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
    decision: &mut Decision,
) -> Option<Steered> {
    if !state.current().gates.contains(&Gate::Health) {
        match (sides::left_beside(input.rollouts), stable) {
            (Some(left), _) => back::clear_the_start(input, state, left, decision),
            (None, Some(stable)) => rest::keep_proxies(input, state, stable, decision),
            (None, None) => {}
        }
        return None;
    }
    let policy = state.plan.policy.as_ref().map(|policy| &policy.spec);
    let course = Course {
        rollout: &state.plan.rollout,
        new: target.map(Arc::as_ref),
        old: stable.map(Arc::as_ref),
        policy,
        staged_by: stable.and_then(|stable| stable.policy.as_ref()),
        former: sides::former(input.rollouts, input.renders, stable.and_then(|stable| stable.policy.as_ref()), policy),
        methods: Some(&state.plan.methods),
        quota: state.quotas.get(state.stage),
        totals: &state.totals,
        split: state.current().split(),
        last: state.at_last_stage(),
        drain_at_most: None,
        still: state.paused || state.phase == Phase::Stopped,
        stage: Some(state.current().name.to_string()),
        inherits: state.plan.inherits.as_ref(),
        handed_over: input.neighbours.render,
        refused: input.refused,
        admitted: input.admitted,
        answers: input.answers,
        since: state.since,
        now: input.now,
    };
    let mut steered = steer::steer(&course, input.app, input.view);
    decision.actions.append(&mut steered.actions);
    stray::correct(state, std::mem::take(&mut steered.corrections), decision);
    decision.asks_and_tells(std::mem::take(&mut steered.questions), std::mem::take(&mut steered.tells));
    decision.report.units = steered.units.clone();
    decision.report.reasons.append(&mut steered.reasons);
    decision.wake_at(steered.wake);
    Some(steered)
}

/// Counts quotas anew where the wanted total changed, or where pods find no room in their unit.
fn rebalance(input: &Input<'_>, state: &State, target: Option<&Arc<Render>>, decision: &mut Decision) -> bool {
    let (Some(target), Some(pinned)) = (target, &state.plan.policy) else { return false };
    let strategy = &pinned.spec.strategy;
    let mut totals = state.totals.clone();
    for workload in target.workloads.values() {
        if let Some(shared) = steer::totals(workload, &pinned.spec, &state.totals, input.view) {
            totals.insert(workload.id.clone(), shared);
        }
    }
    let (event, why) = if totals == state.totals {
        let Some((moved, wake)) = reschedule::reschedule(input, target, strategy.pods(), &totals) else { return false };
        decision.wake_at(wake);
        let Some((moved, why)) = moved else { return false };
        totals = moved;
        (Event::Rescheduled, why)
    } else {
        (Event::QuotaChanged, "the wanted total changed".to_owned())
    };
    let mut quotas: Vec<Quota> = state.quotas.clone();
    for (id, totals) in &totals {
        if state.totals.get(id) == Some(totals) || !state.quotas.iter().any(|quota| quota.contains_key(id)) {
            continue;
        }
        let old: Vec<_> = state.quotas.iter().map(|quota| quota.get(id).cloned().unwrap_or_default()).collect();
        // A stage `start` holds nothing and stays so.
        let first = old.iter().position(|counts| !counts.is_empty()).unwrap_or(0);
        let reached = state.stage.saturating_sub(first);
        let Some(maker) = target.workloads.get(id).map(Workload::maker) else { continue };
        let mut fresh = quota::rescale(&old[first..], totals, &maker.units(strategy.pods()), strategy, reached);
        plan::keep_one_back(maker, &mut fresh);
        for (quota, counts) in quotas[first..].iter_mut().zip(fresh) {
            quota.insert(id.clone(), counts);
        }
    }
    let draft = Draft::new(event, Some(&state.current().name), why).with(|evidence| {
        evidence.quotas = quotas;
        evidence.totals = totals;
    });
    decision.records.push((state.plan.rollout.number, draft));
    // What is decided on the old quotas is not done any more.
    decision.does_nothing();
    true
}

/// The stage is there: waits for its gates, starts the next, or completes.
fn pass(
    input: &Input<'_>,
    state: &State,
    head: Option<&Head>,
    target: Option<&Arc<Render>>,
    analysed: Analysed,
    decision: &mut Decision,
) {
    let number = state.plan.rollout.number;
    let stage = state.current();
    let Some(head) = head else { return };
    if state.phase == Phase::Stopped {
        return;
    }
    let decisions = Decisions::new(state, &head.decisions);
    let pods = evidence(input, state, target);
    let promoted = decisions.promote().is_some();
    if stage.waits() && !promoted || stage.analyses().next().is_some() {
        let Some(waiting) = state.waiting.get(&stage.name) else {
            let draft = Draft::new(Event::StageWaiting, Some(&stage.name), why_it_waits(stage, pods.len()))
                .listing(files(&head.decisions))
                .with(|evidence| {
                    evidence.pods = pods;
                    if stage.pause().is_some() || stage.analyses().next().is_some() {
                        let gates = stage.gates.iter().filter(|gate| gate.is_waited_for());
                        evidence.gates = gates.map(ToString::to_string).collect();
                    }
                });
            decision.records.push((number, draft));
            return;
        };
        let pause = stage.pause().filter(|_| !promoted).and_then(|pause| SignedDuration::try_from(pause.get()).ok());
        let until = pause.map(|pause| waiting.since + pause).filter(|until| *until > input.now);
        if let Some(until) = until {
            decision.report.reasons.push(Reason::Pause { stage: stage.name.clone(), until });
            decision.wake_at(Some(until));
        }
        let confirm = decisions.confirm(&stage.name);
        if stage.asks_for_confirm() && confirm.is_none() && !promoted {
            let removes = if stage.gates.contains(&Gate::Health) { Vec::new() } else { state.plan.prunes.clone() };
            let reason =
                Reason::ConfirmNeeded { stage: stage.name.clone(), since: state.waits_since(waiting), removes };
            decision.report.reasons.push(reason);
            return;
        }
        let awaited = until.is_some() || analysed == Analysed::Awaited;
        if awaited || holds(input, state, head, decision) {
            return;
        }
        if let Some(confirm) = confirm.filter(|confirm| !state.answered.contains(&confirm.file)) {
            decision.records.push((number, accepted(&stage.name, confirm)));
        }
    } else if holds(input, state, head, decision) {
        return;
    }
    if state.at_last_stage() {
        complete(input, state, head, target, pods, decision);
        return;
    }
    let next = &state.plan.stages[state.stage + 1].name;
    let why = format!("every gate of {} is open", stage.name);
    let draft = Draft::new(Event::StageStarted, Some(next), why).with(|evidence| evidence.pods = pods);
    decision.records.push((number, draft));
}

fn why_it_waits(stage: &Stage, pods: usize) -> String {
    let both = |confirm: &str, pause: Option<String>| {
        let confirm = stage.asks_for_confirm().then(|| confirm.to_owned());
        let analyses: Vec<&str> = stage.analyses().collect();
        let analysis = (!analyses.is_empty()).then(|| format!("{} must be good", analyses.join(" and ")));
        analysis.into_iter().chain(confirm).chain(pause).collect::<Vec<_>>().join(" and ")
    };
    match pods {
        0 => {
            let pause = stage.pause().map(|pause| format!("{pause} have passed"));
            format!("nothing is touched before {}", both("it is confirmed", pause))
        }
        _ => {
            let pause = stage.pause().map(|pause| format!("it lasts {pause}"));
            format!("every pod of the stage is ready; {}", both("its confirm is missing", pause))
        }
    }
}

/// Returns whether something besides the gates keeps the next stage from starting; says what.
fn holds(input: &Input<'_>, state: &State, head: &Head, decision: &mut Decision) -> bool {
    let mut held = false;
    if state.paused {
        decision.report.reasons.push(Reason::Paused);
        held = true;
    }
    if let Some(freeze) = &head.frozen {
        decision.report.reasons.push(Reason::Frozen { freeze: freeze.clone() });
        held = true;
    }
    held || matches!(head.content, HeadContent::Broken(_)) || !input.objections.is_empty()
}

/// Removes what nothing renders any more, then records that the target is stable.
fn complete(
    input: &Input<'_>,
    state: &State,
    head: &Head,
    target: Option<&Arc<Render>>,
    pods: Vec<PodEvidence>,
    decision: &mut Decision,
) {
    let kept: BTreeSet<_> = target.map(|target| target.keys().collect()).unwrap_or_default();
    let rendered = sides::rendered_since(input.rollouts, input.renders);
    let gone = objects::to_prune(&rendered, &kept, input.neighbours, input.app, input.view);
    let (gone, handed) = handover::still_read(gone, input.app, input.view);
    if !handed.is_empty() {
        let what = "configuration that pods read goes with them".to_owned();
        decision.report.reasons.push(Reason::Following { what });
        decision.actions.extend(handed);
        return;
    }
    if !gone.is_empty() {
        for object in gone.iter().filter(|object| !object.is_terminating()) {
            let why = format!("{} is not rendered any more", object.key());
            decision.actions.push(Action::delete(object, false, why));
        }
        let names: Vec<String> = gone.iter().map(|object| object.key().to_string()).collect();
        decision.report.reasons.push(Reason::Following { what: format!("{} gone", names.join(", ")) });
        return;
    }
    let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let version = super::decide::versions(&state.plan);
    let version = version.rsplit(" → ").next().unwrap_or_default();
    let why = match (target, count) {
        (None, _) => "the application is removed".to_owned(),
        (Some(_), 1) => format!("1 pod at {version}"),
        (Some(_), count) if count > 1 => format!("{count} pods at {version}"),
        (Some(target), _) => match target.keys().count() {
            1 => format!("1 object at {}", target.revision.short()),
            count => format!("{count} objects at {}", target.revision.short()),
        },
    };
    let draft = Draft::new(Event::Completed, Some(&state.current().name), why).listing(files(&head.decisions)).with(
        |evidence| {
            evidence.count = Some(count);
            if let Some(target) = target {
                evidence.revision = Some(target.revision.clone());
                evidence.digest = Some(target.digest);
                evidence.workloads.clone_from(&target.digests);
            }
        },
    );
    decision.records.push((state.plan.rollout.number, draft));
}

/// Lists the pods at the target, as they are now.
fn evidence(input: &Input<'_>, state: &State, target: Option<&Arc<Render>>) -> Vec<PodEvidence> {
    if !state.current().gates.contains(&Gate::Health) {
        return Vec::new();
    }
    let workloads = target.into_iter().flat_map(|target| target.workloads.values());
    // Pods that the rollout does not change are no evidence of it.
    let changed = workloads.filter(|workload| state.plan.methods.get(&workload.id) != Some(&Method::Rebalance));
    let mut pods = Vec::new();
    for workload in changed {
        let observed = Observed::read(input.view, input.app, &workload.key);
        let digest = labels::digest_label(&workload.digest);
        pods.extend(observed.pods().filter(|pod| pod.digest == digest).map(|pod| PodEvidence {
            name: pod.object.name().to_owned(),
            uid: pod.object.uid().to_owned(),
            unit: pod.unit.to_string(),
            image: first_image(pod.object).to_owned(),
            ready: pod.is_ready(),
        }));
    }
    pods
}

fn first_image(pod: &Object) -> &str {
    pod.at(&["spec"]).and_then(|spec| spec["containers"][0]["image"].as_str()).unwrap_or_default()
}

/// Fails the stage where nothing has moved until the deadline.
fn watch_progress(input: &Input<'_>, state: &State, steered: &Steered, decision: &mut Decision) {
    if state.phase == Phase::Stopped || state.paused {
        return;
    }
    let Some(policy) = state.plan.policy.as_ref().map(|policy| &policy.spec) else { return };
    let deadline = SignedDuration::try_from(policy.progress_deadline).unwrap_or(SignedDuration::MAX);
    // Nobody is to blame for the time in which nobody looked.
    let marks: [Option<Timestamp>; 3] = [Some(state.since), steered.progress, Some(input.watching_since)];
    let last = marks.into_iter().flatten().max().unwrap_or(input.now);
    let due = last + deadline;
    if due > input.now {
        decision.wake_at(Some(due));
        return;
    }
    let trouble = decision.report.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let why = format!("no progress for {} s: {trouble}", policy.progress_deadline.as_secs());
    fail(input, state, why, decision);
}

/// Fails the stage: goes back, or stops where the policy says so.
pub(super) fn fail(input: &Input<'_>, state: &State, why: String, decision: &mut Decision) {
    let on_failure = state.plan.policy.as_ref().map_or(OnFailure::Abort, |policy| policy.spec.on_failure);
    match on_failure {
        OnFailure::Abort => {
            let number = state.plan.rollout.number;
            decision.records.push((number, back::begin(input, Cause::Failure, why, None)));
            decision.urgent = true;
            decision.does_nothing();
        }
        OnFailure::Stop => stop(input, state, why, decision),
    }
}

/// Stops the rollout where it is, until somebody says `retry` or there is a new revision.
pub(super) fn stop(input: &Input<'_>, state: &State, why: String, decision: &mut Decision) {
    let listed = input.head.map(|head| files(&head.decisions)).unwrap_or_default();
    let draft = Draft::new(Event::Stopped, Some(&state.current().name), why).listing(listed);
    decision.records.push((state.plan.rollout.number, draft));
}

/// Says in one word what the rollout is doing.
fn classify(input: &Input<'_>, state: &State, decision: &mut Decision) {
    let reasons = &mut decision.report.reasons;
    if state.phase == Phase::Stopped {
        decision.report.activity = Activity::Stopped;
        let stopped = state.records.iter().rev().find(|record| record.event == Event::Stopped);
        reasons.push(Reason::Stopped { why: stopped.map(|record| record.why.clone()).unwrap_or_default() });
    } else if state.paused {
        decision.report.activity = Activity::Paused;
        if !reasons.contains(&Reason::Paused) {
            reasons.push(Reason::Paused);
        }
    } else if reasons
        .iter()
        .any(|reason| matches!(reason, Reason::ConfirmNeeded { .. } | Reason::Pause { .. } | Reason::Analysing { .. }))
    {
        match stepping_back(input, state) {
            0 => decision.report.activity = Activity::Waiting,
            pods => reasons.push(Reason::SteppingBack { pods }),
        }
    }
}

/// Counts the pods that are still on their way after a step back: out, or to the older version.
fn stepping_back(input: &Input<'_>, state: &State) -> u32 {
    let moves = |record: &&Record| matches!(record.event, Event::StageStarted | Event::StageReverted);
    if state.records.iter().rev().find(moves).is_none_or(|last| last.event != Event::StageReverted) {
        return 0;
    }
    let moving = |pod: &&Object| {
        pod.is_terminating() || [labels::MOVING, labels::UPDATED_FROM].iter().any(|note| pod.annotation(note).is_some())
    };
    u32::try_from(input.view.of_app(input.app, "Pod").filter(moving).count()).unwrap_or(u32::MAX)
}
