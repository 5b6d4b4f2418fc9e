//! At rest: nothing runs. A new HEAD opens a rollout, is put in place, or is refused; drift is put back.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    action::{self, Action},
    beforehand,
    decide::{applied, broken, open, report, stable_side},
    gates::Decisions,
    handover,
    input::{Decision, Head, HeadContent, Input},
    labels, objects,
    render::{Render, Workload},
    report::{Activity, Reason},
    reschedule, services, sides,
    state::{Outcome, Phase, State},
    steer::{self, Course},
    turn,
};
use crate::core::{
    cluster::Write,
    diff,
    ledger::{Draft, Event, Quota, Record},
    names::RolloutId,
    policy::{Drift, Percent, RolloutPolicy},
    traffic::Split,
};

/// Corrections of one object in this many records are a fight with somebody, and only reported from then on.
const FIGHT: usize = 5;
/// … when they fall into this many seconds.
const FIGHT_SECONDS: i64 = 600;

/// Decides for an application in which nothing runs.
pub(super) fn decide(input: &Input<'_>, last: Option<&State>) -> Decision {
    let activity = if last.is_some() { Activity::Stable } else { Activity::New };
    let mut decision = Decision::nothing(report(input, last, activity));
    let stable = stable_side(input.rollouts, input.renders);
    if sides::stable_at(input.rollouts).is_some() && stable.is_none() {
        decision.report.reasons.push(Reason::Following { what: "stable is rendered".to_owned() });
        return decision;
    }
    if let Some(head) = input.head.filter(|_| input.git.rewritten.is_none()) {
        if let Some(last) = last {
            let answers = Decisions::new(last, &head.decisions).answers();
            decision.records.extend(answers.into_iter().map(|draft| (last.plan.rollout.number, draft)));
        }
        if follow_head(input, head, last, stable.as_ref(), &mut decision) {
            return decision;
        }
    }
    if let (Some(last), Some(stable)) = (last, &stable) {
        keep(input, last, stable, &mut decision);
    }
    decision
}

/// Handles a HEAD that is not what is stable; returns whether the decision is made.
fn follow_head(
    input: &Input<'_>,
    head: &Head,
    last: Option<&State>,
    stable: Option<&Arc<Render>>,
    decision: &mut Decision,
) -> bool {
    if let Some(reason) = broken(input, &head.content) {
        let held = last.and_then(|last| last.held.clone());
        if !input.objections.is_empty() || held.is_some() {
            decision.report.activity = Activity::Held;
        }
        decision.report.reasons.extend([reason].into_iter().chain(held.map(|why| Reason::Held { why })));
        return false;
    }
    let target = match &head.content {
        HeadContent::Rendered(render) => Some(render),
        _ => None,
    };
    let moves = match (target, stable) {
        (Some(target), Some(stable)) => target.digests != stable.digests || target.shape() != stable.shape(),
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => false,
    };
    if !moves {
        let (Some(target), Some(stable), Some(last)) = (target, stable, last) else { return false };
        let in_place = sides::stable_at(input.rollouts).is_some_and(|at| at.revision == target.revision);
        if in_place || target.digest == stable.digest && last.held.is_none() && !needs_moving_on(last, target) {
            return false;
        }
        if is_large_prune(input, target, stable) {
            return start(input, head, Some(target), Some(stable), decision);
        }
        let before = sides::stable_at(input.rollouts).map(|at| at.revision);
        let changed = changed_by(input, target);
        let leaves = sides::router_at(stable).is_some_and(|router| sides::router_at(target) != Some(router));
        let draft = applied(target, before.as_ref()).with(|evidence| {
            evidence.objects = changed;
            evidence.routed_by = before.clone().filter(|_| leaves);
        });
        decision.records.push((last.plan.rollout.number, draft));
        return true;
    }
    if let Some(last) = last.filter(|last| is_refused(last, target)) {
        let decisions = Decisions::new(last, &head.decisions);
        if let Some(retry) = decisions.retry() {
            let file = retry.file.clone();
            let draft = Draft::new(Event::Retried, None, "retry.yaml: the refused target is tried again")
                .with(|evidence| evidence.decision = Some(file));
            decision.records.push((last.plan.rollout.number, draft));
            return start(input, head, target, stable, decision);
        }
        decision.report.activity = Activity::Held;
        let why = last.held.clone().unwrap_or_else(|| {
            format!("{} was aborted; Git still says so: revert it, fix it, or add retry.yaml", last.plan.rollout)
        });
        decision.report.reasons.push(Reason::Held { why });
        return false;
    }
    start(input, head, target, stable, decision)
}

/// Lists the objects that putting a change in place writes, in the state they are in: this is no drift.
fn changed_by(input: &Input<'_>, target: &Render) -> Vec<String> {
    let wanted = target.objects.iter().map(|object| (object.key(), objects::labelled(object, input.app)));
    let differ = wanted.map(|(key, mut wanted)| {
        let live = input.view.by_key(&key);
        if let Some(live) = live {
            objects::keep_notes(&mut wanted, live);
        }
        let before = live.is_none_or(|live| diff::differs(&wanted, live)).then(|| action::seen(&wanted, live));
        // What is replaced is missing for a while.
        let replaced = live.filter(|live| beforehand::is_replaced(&wanted, live)).map(|_| action::seen(&wanted, None));
        [before, replaced].into_iter().flatten().collect::<Vec<_>>()
    });
    let differ = differ.flatten();
    let handles = target.workloads.values().filter_map(|workload| {
        let live = input.view.by_key(&workload.key)?;
        Some(action::seen(&workload.object, Some(live)))
    });
    differ.chain(handles).collect()
}

/// Returns whether HEAD renders a target that was aborted, and has rendered nothing else since.
fn is_refused(last: &State, target: Option<&Arc<Render>>) -> bool {
    let aborted = last.phase == Phase::Ended(Outcome::Aborted) && !last.moved_on;
    let same = match target {
        Some(target) => last.plan.to.workloads == target.digests && !last.plan.inputs.files.is_empty(),
        None => last.plan.inputs.files.is_empty(),
    };
    aborted && same
}

/// Returns whether HEAD has left a target that was aborted, which nobody has recorded yet.
fn needs_moving_on(last: &State, target: &Render) -> bool {
    last.phase == Phase::Ended(Outcome::Aborted) && !last.moved_on && last.plan.to.workloads != target.digests
}

fn is_large_prune(input: &Input<'_>, target: &Render, stable: &Render) -> bool {
    let guard = target.policy.as_ref().map_or(50, |policy| policy.prune.confirm_above.get());
    let before: BTreeSet<_> = stable.keys().collect();
    let kept = target.keys().collect();
    let gone = objects::to_prune(&before, &kept, input.neighbours, input.app, input.view).len();
    gone > 1 && gone * 100 > before.len() * usize::from(guard)
}

fn start(
    input: &Input<'_>,
    head: &Head,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
    decision: &mut Decision,
) -> bool {
    if let Some(freeze) = &head.frozen {
        decision.report.reasons.push(Reason::Frozen { freeze: freeze.clone() });
        return false;
    }
    if let Some(other) = input.neighbours.waits_for.as_ref().filter(|_| target.is_some()) {
        decision.report.reasons.push(Reason::Following { what: format!("{other}, on which it depends, is complete") });
        return false;
    }
    let staged =
        target.filter(|target| target.policy.is_some()).into_iter().flat_map(|target| target.workloads.values());
    if let Some(kind) = handover::unlisted(staged, input.view) {
        let why = input.view.lost(&kind).map(|why| format!(": {why}")).unwrap_or_default();
        decision.report.reasons.push(Reason::Following { what: format!("{}s are listed{why}", kind.kind) });
        return false;
    }
    // Which pods would have to move, the plan says: it is not made before that can be told.
    let renders: Vec<&Render> = [target, stable].into_iter().flatten().map(Arc::as_ref).collect();
    let mut workloads = renders.iter().flat_map(|render| render.workloads.values());
    let is_listed = |workload: &Workload| input.view.knows(&workload.object.kind());
    let is_there = workloads.any(|workload| is_listed(workload) && input.view.by_key(&workload.key).is_some());
    if is_there && handover::asks_for_nodes(&renders, input.view) && !input.view.knows(&handover::nodes()) {
        let why = input.view.lost(&handover::nodes()).map(|why| format!(": {why}")).unwrap_or_default();
        decision.report.reasons.push(Reason::Following { what: format!("nodes are listed{why}") });
        return false;
    }
    match open(input, head, target, stable) {
        Ok(opened) => match turn::waits(input, target.map(Arc::as_ref), stable.map(Arc::as_ref)).cloned() {
            Some(full) => {
                decision.report.reasons.push(Reason::Full(full));
                false
            }
            None => {
                decision.open = Some(opened);
                true
            }
        },
        Err(error) => {
            decision.report.activity = Activity::Held;
            decision.report.reasons.push(Reason::Held { why: error.to_string() });
            false
        }
    }
}

/// Returns the course on which everything is, and stays, at stable.
fn course<'a>(input: &'a Input<'_>, last: &'a State, stable: &'a Arc<Render>) -> Course<'a> {
    let completed = sides::stable_at(input.rollouts).map_or(last, |at| &input.rollouts[at.index]);
    Course {
        rollout: &completed.plan.rollout,
        new: Some(stable),
        old: None,
        policy: stable.policy.as_ref(),
        staged_by: None,
        former: sides::former(input.rollouts, input.renders, None, stable.policy.as_ref()),
        methods: None,
        quota: None,
        totals: &last.totals,
        split: Some(Split::of(Percent::ALL)),
        last: true,
        drain_at_most: None,
        still: false,
        stage: Some("stable".to_owned()),
        inherits: sides::inherited(input.rollouts).map(|inherited| inherited.app),
        handed_over: input.neighbours.render,
        refused: input.refused,
        admitted: input.admitted,
        answers: input.answers,
        since: last.since,
        now: input.now,
    }
}

/// Keeps what is asked and told at stable where nothing of it may be touched yet: a proxy follows no Service by itself.
pub(super) fn keep_proxies(input: &Input<'_>, last: &State, stable: &Arc<Render>, decision: &mut Decision) {
    let services = services::next(&course(input, last, stable), input.app, input.view);
    decision.asks_and_tells(services.questions, services.tells);
}

/// Keeps the cluster at stable: shares replicas out, and puts back what somebody changed.
fn keep(input: &Input<'_>, last: &State, stable: &Arc<Render>, decision: &mut Decision) {
    let policy = stable.policy.as_ref();
    let course = course(input, last, stable);
    let steered = steer::steer(&course, input.app, input.view);
    decision.asks_and_tells(steered.questions, steered.tells);
    decision.report.units = steered.units;
    decision.report.reasons.extend(steered.reasons);
    decision.wake_at(steered.wake);
    let kept: BTreeSet<_> = stable.keys().collect();
    let rendered = sides::rendered_since(input.rollouts, input.renders);
    let gone = objects::to_prune(&rendered, &kept, input.neighbours, input.app, input.view);
    let (gone, handed) = handover::still_read(gone, input.app, input.view);
    let removals = gone
        .into_iter()
        .filter(|object| !object.is_terminating())
        .map(|object| Action::delete(object, false, format!("{} is not rendered any more", object.key())));
    let mut actions = steered.actions;
    actions.extend(steered.corrections);
    actions.extend(removals);
    actions.extend(handed);
    if let Some(policy) = policy
        && let Some((moved, wake)) =
            reschedule::reschedule(input, stable, policy.strategy.pods(), &totals_now(input, last, stable, policy))
    {
        decision.wake_at(wake);
        if let Some((totals, why)) = moved {
            let draft = Draft::new(Event::Rescheduled, None, why).with(|evidence| evidence.totals = totals);
            decision.records.push((last.plan.rollout.number, draft));
            return;
        }
    }
    correct_drift(input, last, stable, actions, decision);
    let missing: BTreeSet<String> = decision
        .actions
        .iter()
        .filter_map(|action| action.drift.as_ref()?.split('@').next().map(str::to_owned))
        .collect();
    if !missing.is_empty() {
        let names = missing.into_iter().collect::<Vec<_>>().join(", ");
        decision.report.reasons.push(Reason::Following { what: format!("the cluster has {names} as Git says") });
    }
}

/// Returns the units' totals as they are in effect: what was recorded, shared out anew where the wanted total changed.
fn totals_now(input: &Input<'_>, last: &State, stable: &Render, policy: &RolloutPolicy) -> Quota {
    let workloads = stable.workloads.values();
    let totals = workloads
        .filter_map(|workload| Some((workload.id.clone(), steer::totals(workload, policy, &last.totals, input.view)?)));
    totals.collect()
}

/// Lets through what needs no record of its own, and what the latest record of drift covers; records the rest first.
fn correct_drift(input: &Input<'_>, last: &State, stable: &Render, actions: Vec<Action>, decision: &mut Decision) {
    let live = stable.application.drift.or(stable.policy.as_ref().map(|policy| policy.drift));
    let drifted: Vec<String> = actions.iter().filter_map(|action| action.drift.clone()).collect();
    let put_back = |record: &&Record| record.event == Event::DriftCorrected;
    let latest = |event: Event| last.records.iter().rev().find(|record| record.event == event);
    let listed = |event: Event| latest(event).map_or(&[][..], |record| &record.evidence.objects);
    let covered: Vec<&String> = listed(Event::Applied).iter().chain(listed(Event::DriftCorrected)).collect();
    if live == Some(Drift::Report) {
        let is_ours = |drift: &String| listed(Event::Applied).contains(drift);
        let drifted: Vec<String> = drifted.into_iter().filter(|drift| !is_ours(drift)).collect();
        if !drifted.is_empty() {
            decision.report.reasons.push(Reason::Drifted { objects: drifted });
        }
        decision.actions = actions.into_iter().filter(|action| action.drift.as_ref().is_none_or(is_ours)).collect();
        return;
    }
    let fights = |drift: &String| {
        let object = drift.split('@').next().unwrap_or_default();
        let recent = last.records.iter().rev().filter(put_back).filter(|record| {
            input.now.as_second() - record.time.as_second() < FIGHT_SECONDS
                && record.evidence.objects.iter().any(|one| one.split('@').next() == Some(object))
        });
        recent.count() >= FIGHT
    };
    let is_new = |drift: &String| !covered.contains(&drift);
    let fought: Vec<String> = drifted.iter().filter(|drift| is_new(drift) && fights(drift)).cloned().collect();
    if !fought.is_empty() {
        decision.report.reasons.push(Reason::Drifted { objects: fought.clone() });
    }
    // What stable is was decided and recorded: putting it back decides nothing, so it does not wait for the push that
    // says so. The object says it meanwhile, and is not put back again before its record is there: each time has its own.
    let owed: BTreeSet<&str> = unrecorded(input).map(named).collect();
    let is_due = |drift: &String| is_new(drift) && !fought.contains(drift) && !owed.contains(named(drift));
    let fresh: Vec<String> = drifted.into_iter().filter(is_due).collect();
    let at_once = |drift: &String| is_settled(input) && fresh.contains(drift);
    let allowed = |mut action: Action| {
        let Some(drift) = action.drift.clone().filter(|drift| !covered.contains(&drift)) else { return Some(action) };
        if !at_once(&drift) || !says_so(&mut action, stable, &last.plan.rollout, &drift) {
            return None;
        }
        Some(action)
    };
    decision.actions = actions.into_iter().filter_map(allowed).collect();
    if !fresh.is_empty() {
        decision.records.push((last.plan.rollout.number, corrected(fresh)));
    }
}

/// Returns whether what is stable is known for certain: Git is there, and has all that was recorded.
fn is_settled(input: &Input<'_>) -> bool {
    let git = input.git;
    git.away.is_none() && git.unpushed.is_none() && git.rewritten.is_none() && input.head.is_some()
}

/// Lets an object say that it is put back; returns whether it can. A handle has other notes, and what is not applied has none.
fn says_so(action: &mut Action, stable: &Render, rollout: &RolloutId, drift: &str) -> bool {
    let Write::Apply { object, .. } = &mut action.write else { return false };
    let key = object.key();
    let is_staged = stable.policy.is_some() && stable.workloads.values().any(|workload| workload.key == key);
    if is_staged || !stable.keys().any(|rendered| rendered == key) {
        return false;
    }
    object.set(&["metadata", "annotations", labels::PUT_BACK], format!("{rollout} {drift}").into());
    true
}

/// Lists what was put back, as it was seen, and no record names.
pub(super) fn unrecorded<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a str> {
    let rollouts = input.rollouts;
    let records = move || rollouts.iter().rev().flat_map(|state| state.records.iter().rev());
    let is_recorded = move |seen: &str| {
        let of_drift = |record: &&Record| record.event == Event::DriftCorrected;
        records().filter(of_drift).any(|record| record.evidence.objects.iter().any(|object| object == seen))
    };
    input.view.put_back(input.app).filter(move |seen| !is_recorded(seen))
}

/// Says that objects are put back, named as they were seen.
pub(super) fn corrected(objects: Vec<String>) -> Draft {
    // One may have been seen in several states.
    let mut told = BTreeSet::new();
    let names: Vec<&str> = objects.iter().map(|object| named(object)).filter(|name| told.insert(*name)).collect();
    let why = format!("put back as Git says: {}", names.join(", "));
    Draft::new(Event::DriftCorrected, None, why).with(|evidence| evidence.objects = objects)
}

/// Returns `Kind/name` of `Kind/name@state`.
fn named(seen: &str) -> &str {
    seen.split_once('@').map_or(seen, |(object, _)| object)
}
