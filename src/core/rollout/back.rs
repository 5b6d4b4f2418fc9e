//! Going back to stable, from wherever the rollout is: pods first, then objects, then Git.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use super::{
    decide::{is_target, report, stable_side},
    gates::Decisions,
    handover,
    input::{Decision, HeadContent, Input, Repair, RepairWanted, files},
    objects, plan,
    render::Render,
    report::{Activity, Reason},
    sides,
    state::State,
    steer::{self, Course, Steered},
    stray,
};
use crate::core::{
    ledger::{Cause, Draft, Event},
    policy::{OnAbort, Percent, RolloutPolicy},
    rollout::action::Action,
    traffic::Split,
};

/// Decides for a rollout that goes back.
pub(super) fn decide(input: &Input<'_>, state: &State, cause: Cause) -> Decision {
    let mut decision = Decision::nothing(report(input, Some(state), Activity::Aborting));
    decision.urgent = true;
    let number = state.plan.rollout.number;
    if let Some(head) = input.head.filter(|_| input.git.rewritten.is_none()) {
        let answers = Decisions::new(state, &head.decisions).answers();
        decision.records.extend(answers.into_iter().map(|draft| (number, draft)));
    }
    let stable = stable_side(input.rollouts, input.renders);
    if sides::stable_at(input.rollouts).is_some() && stable.is_none() {
        decision.report.reasons.push(Reason::Following { what: "stable is rendered".to_owned() });
        return decision;
    }
    let done = go_back(input, state, stable.as_ref(), &mut decision);
    if done {
        finish(input, state, cause, stable.as_ref(), &mut decision);
    }
    decision
}

/// How a rollout's pods and objects go back to stable: under which policy, and from what.
struct Way<'a> {
    stable: Option<&'a Arc<Render>>,
    state: &'a State,
    policy: Option<&'a RolloutPolicy>,
    target: Option<Cow<'a, Render>>,
    /// What ran before anything was released is given back, not removed.
    ran_before: bool,
}

impl<'a> Way<'a> {
    fn new(input: &'a Input<'_>, state: &'a State, stable: Option<&'a Arc<Render>>) -> Self {
        let target = sides::target_at(state).and_then(|revision| input.renders.get(&revision));
        let pinned = pinned(state);
        let ran_before = stable.is_none() && handover::taken_over(&state.plan.methods, None).next().is_some();
        let policy = match stable.map(|stable| &stable.policy) {
            Some(None) => None,
            // The units are those that stable was staged in.
            Some(Some(policy)) if pinned.is_none_or(|pinned| !same_units(policy, pinned)) => Some(policy),
            Some(Some(_)) => pinned,
            None if ran_before => None,
            None => pinned,
        };
        let by = policy.or(pinned);
        let target = target.map(|target| by.map_or(Cow::Borrowed(&**target), |by| handover::staged_form(target, by)));
        Self { stable, state, policy, target, ran_before }
    }

    /// Returns the course back; `rollouts` are those whose routers may have been told something, this one the last.
    fn course(&'a self, input: &'a Input<'_>, rollouts: &'a [State]) -> Course<'a> {
        let Self { stable, state, policy, .. } = *self;
        let deadline = pinned(state).map(|policy| policy.progress_deadline);
        Course {
            rollout: &state.plan.rollout,
            new: stable.map(Arc::as_ref),
            old: self.target.as_deref(),
            policy,
            staged_by: pinned(state),
            former: sides::former(rollouts, input.renders, stable.and_then(|stable| stable.policy.as_ref()), policy),
            methods: None,
            quota: None,
            totals: &state.totals,
            split: Some(Split::of(Percent::ALL)),
            last: true,
            drain_at_most: Some(deadline.and_then(|it| it.try_into().ok()).unwrap_or(jiff::SignedDuration::ZERO)),
            still: false,
            stage: Some("going back".to_owned()),
            // What was not handed over yet is taken over still: nobody else looks after it.
            inherits: sides::inherited(input.rollouts).map(|inherited| inherited.app),
            handed_over: input.neighbours.render,
            refused: input.refused,
            admitted: input.admitted,
            answers: input.answers,
            since: state.since,
            now: input.now,
        }
    }
}

fn pinned(state: &State) -> Option<&RolloutPolicy> {
    state.plan.policy.as_ref().map(|policy| &policy.spec)
}

/// Brings requests, and then pods, back to stable while nothing of a plan may be touched yet: those that the rollout before
/// it left beside stable, or a step back of its own. Other objects stay, as ever when a rollout takes another's place.
pub(super) fn clear_the_start(input: &Input<'_>, state: &State, left: usize, decision: &mut Decision) {
    let (rollouts, is_own) = (&input.rollouts[..=left], left + 1 == input.rollouts.len());
    let stable = stable_side(input.rollouts, input.renders);
    if stable.is_none() && !is_own {
        // Nobody could take the requests.
        return;
    }
    let way = Way::new(input, &rollouts[left], stable.as_ref());
    let stage = Some(state.current().name.to_string());
    let course = Course { rollout: &state.plan.rollout, stage, since: state.since, ..way.course(input, rollouts) };
    let mut steered = Steered { done: true, ..Steered::default() };
    steer::steer_pods(&course, input.app, input.view, &mut steered);
    take(state, steered, decision);
}

/// Takes what comes next on the way; returns whether nothing does.
fn take(state: &State, steered: Steered, decision: &mut Decision) -> bool {
    decision.actions.extend(steered.actions);
    stray::correct(state, steered.corrections, decision);
    decision.asks_and_tells(steered.questions, steered.tells);
    decision.report.units = steered.units;
    decision.report.reasons.extend(steered.reasons);
    decision.wake_at(steered.wake);
    steered.done
}

/// Brings the cluster back; returns whether it is there.
fn go_back(input: &Input<'_>, state: &State, stable: Option<&Arc<Render>>, decision: &mut Decision) -> bool {
    let way = Way::new(input, state, stable);
    let steered = steer::steer(&way.course(input, input.rollouts), input.app, input.view);
    if !take(state, steered, decision) {
        return false;
    }
    if way.ran_before {
        return true;
    }
    let kept: BTreeSet<_> = stable.map(|stable| stable.keys().collect()).unwrap_or_default();
    let rendered = sides::rendered_since(input.rollouts, input.renders);
    let gone = objects::to_prune(&rendered, &kept, input.neighbours, input.app, input.view);
    let (gone, handed) = handover::still_read(gone, input.app, input.view);
    let gone: Vec<Action> = gone
        .into_iter()
        .filter(|object| !objects::is_kept_when_going_back(object) && !object.is_terminating())
        .map(|object| Action::delete(object, false, format!("{} is not part of stable", object.key())))
        .collect();
    let done = gone.is_empty() && handed.is_empty();
    decision.actions.extend(gone);
    decision.actions.extend(handed);
    done
}

/// Returns whether two policies tell units by the same node label.
fn same_units(one: &RolloutPolicy, other: &RolloutPolicy) -> bool {
    let units = |policy: &RolloutPolicy| {
        policy.strategy.pods().topology.as_ref().map(|it| (it.unit_type.clone(), it.units.clone()))
    };
    units(one) == units(other)
}

/// Ends the rollout: records that it is back, and repairs Git where that is asked for and possible.
fn finish(input: &Input<'_>, state: &State, cause: Cause, stable: Option<&Arc<Render>>, decision: &mut Decision) {
    let number = state.plan.rollout.number;
    let head = input.head.filter(|_| input.git.away.is_none() && input.git.rewritten.is_none());
    let Some(head) = head else {
        // The cluster is back; whether Git must be repaired can be told only when it can be asked.
        return;
    };
    let pods = decision.report.units.values().flat_map(|units| units.values()).map(|unit| unit.done).sum();
    let end = |why: String| {
        let listed = files(&head.decisions);
        Draft::new(Event::Aborted, None, why).listing(listed).with(|evidence| evidence.count = Some(pods))
    };
    let held = |why: &str| Draft::new(Event::Held, None, why);
    let policy = state.plan.policy.as_ref().map(|policy| &policy.spec);
    let on_abort = policy.map_or(OnAbort::Revert, |policy| policy.on_abort);
    let back = match stable {
        Some(_) => format!("back at {}", plan::from_version(&state.plan)),
        None => "nothing was stable before: what was installed is removed".to_owned(),
    };
    let mut records: Vec<Draft> = Vec::new();
    if cause == Cause::Revert || !is_target(&head.content, &state.plan) {
        records.push(end(back));
        if let HeadContent::Broken(_) = head.content {
            records.push(held("HEAD did not render, so Git was not repaired: revert it, fix it, or add retry.yaml"));
        }
    } else if stable.is_none() {
        records.push(end(back));
        records.push(held("there is nothing to go back to in Git: fix it, remove it, or add retry.yaml"));
    } else if on_abort == OnAbort::Hold {
        records.push(end(back));
        records.push(held("onAbort is hold: Git still says otherwise; revert it, fix it, or add retry.yaml"));
    } else {
        let Some(wanted) = repair_wanted(input, state) else { return };
        match input.repair {
            None => {
                decision.repair = Some(wanted);
                return;
            }
            Some(Repair::Clean(edits)) => {
                let app = input.app;
                let rollout = &state.plan.rollout.number;
                let subject = format!(
                    "{app}: back towards {} after {rollout:04} was aborted\n\nRevert this commit to try again.\n",
                    wanted.theirs.short()
                );
                records.push(end(back));
                let why = format!("apps/{app} renders stable again; revert the commit before this one to try again");
                let note = subject.lines().next().unwrap_or_default().to_owned();
                let reverted = Draft::new(Event::Reverted, None, why).with(|evidence| evidence.repair = Some(note));
                records.push(reverted);
                decision.edits = Some((edits.clone(), subject));
            }
            Some(Repair::Needless) => records.push(end(back)),
            Some(Repair::Impossible(why)) => {
                records.push(end(back));
                records.push(held(&format!("Git cannot be repaired: {why}; revert it, fix it, or add retry.yaml")));
            }
        }
    }
    let refused: Vec<String> = decision
        .report
        .reasons
        .iter()
        .filter_map(|reason| match reason {
            Reason::Refused { why } => Some(why.clone()),
            _ => None,
        })
        .collect();
    if let Some(aborted) =
        records.iter_mut().find(|draft| draft.event == Event::Aborted).filter(|_| !refused.is_empty())
    {
        // It is refused as it was when it became stable: waiting longer would bring nothing back.
        aborted.why = format!("{}, but for what the API server refuses: {}", aborted.why, refused.join("; "));
    }
    decision.records.extend(records.into_iter().map(|draft| (number, draft)));
}

fn repair_wanted(input: &Input<'_>, state: &State) -> Option<RepairWanted> {
    let base = state.plan.to.revision.clone();
    let theirs = sides::stable_at(input.rollouts)?.revision;
    Some(RepairWanted { base, theirs })
}

/// Starts going back: one record, which lists the decisions as they are.
pub(super) fn begin(
    input: &Input<'_>,
    cause: Cause,
    why: String,
    decided_by: Option<&super::input::DecisionAtHead>,
) -> Draft {
    let listed = input.head.map(|head| files(&head.decisions)).unwrap_or_default();
    Draft::new(Event::Aborting, None, why).listing(listed).with(|evidence| {
        evidence.cause = Some(cause);
        evidence.decision = decided_by.map(|decision| decision.file.clone());
    })
}
