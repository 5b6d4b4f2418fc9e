//! `decide`: one total function from everything that is known to everything that is to be done.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    astray, back, forward,
    gates::late_answers,
    handover,
    input::{Decision, Head, HeadContent, Input, Predecessor},
    jobs,
    plan::{self, Plan, PlanError, PlanRequest},
    render::{Maker, Render, places},
    report::{Activity, Reason, Report, StageReport},
    rest, sides,
    state::{Outcome, Phase, State},
    steer,
    strategy::nodes,
};
use crate::core::{
    ledger::{DecisionFile, Draft, Event, Quota},
    names::Revision,
    policy::RolloutPolicy,
};

/// Decides what comes next for one application: records, writes, a report, and when to look again.
///
/// Total and pure: the same input gives the same decision.
pub fn decide(input: &Input<'_>) -> Decision {
    let mut decision = match input.rollouts.last() {
        Some(state) if !state.is_over() => match state.phase {
            Phase::Aborting(cause) => back::decide(input, state, cause),
            _ => forward::decide(input, state),
        },
        last => rest::decide(input, last),
    };
    jobs::end_others(input, &mut decision);
    if let Some(why) = input.view.regressed() {
        // Nothing is done on a view that is known to be older than what was seen.
        decision.does_nothing();
        let why = format!("{why} was listed at an older resource version than before");
        decision.report.reasons.push(Reason::ClusterStale { why });
    }
    if let Some(why) = &input.git.rewritten {
        // While Git is away nobody can tell whether a record is gone or only not here yet.
        if input.git.away.is_none() {
            decision.report.reasons.push(Reason::HistoryRewritten { why: why.clone() });
        }
        if !decision.urgent {
            decision.records.clear();
            decision.open = None;
        }
    }
    if let Some(why) = input.git.away.as_ref().or(input.git.unpushed.as_ref()) {
        decision.report.reasons.push(Reason::GitAway { why: why.clone() });
    }
    record_put_back(input, &mut decision);
    answer_late(input, &mut decision);
    name_useless(input, &mut decision);
    restore_copies(input, &mut decision);
    name_astray(input, &mut decision);
    decision.report.reasons.sort();
    decision.report.reasons.dedup();
    decision
}

/// Names what people decided about the rollout under way that counts for nothing: who waits for it looks here first.
fn name_useless(input: &Input<'_>, decision: &mut Decision) {
    let (Some(head), Some(last)) = (input.head, input.rollouts.last()) else { return };
    if !matches!(last.phase, Phase::Running | Phase::Stopped) || input.git.rewritten.is_some() {
        return;
    }
    let recorded = last.records.iter().map(|record| (record.event, &record.evidence, &record.why));
    let fresh = decision.records.iter().map(|(_, draft)| (draft.event, &draft.evidence, &draft.why));
    let rejected = recorded.chain(fresh).filter(|(event, ..)| *event == Event::DecisionRejected);
    let is_there = |file: &DecisionFile| head.decisions.iter().any(|decision| decision.file == *file);
    let reasons: Vec<Reason> = rejected
        .filter_map(|(_, evidence, why)| {
            let path = evidence.decision.as_ref().filter(|file| is_there(file))?.path.clone();
            let why = why.strip_prefix(&format!("{path}: ")).unwrap_or(why).to_owned();
            Some(Reason::Useless { decision: path, why })
        })
        .collect();
    decision.report.reasons.extend(reasons);
}

/// Names what people decided about rollouts that there are not: nothing else would ever answer it.
fn name_astray(input: &Input<'_>, decision: &mut Decision) {
    let Some(head) = input.head.filter(|_| input.git.rewritten.is_none()) else { return };
    let opened = input.rollouts.iter().map(|state| state.plan.rollout.number).collect();
    let useless = head.astray.iter().filter_map(|path| {
        let why = astray(path, &opened)?;
        Some(Reason::Useless { decision: format!("rollouts/{}/{path}", input.app), why })
    });
    decision.report.reasons.extend(useless);
}

/// Records what was put back before that could be pushed: the objects themselves say so, whoever wrote them.
fn record_put_back(input: &Input<'_>, decision: &mut Decision) {
    let Some(last) = input.rollouts.last().filter(|_| input.git.rewritten.is_none()) else { return };
    let unrecorded: Vec<String> = rest::unrecorded(input).map(str::to_owned).collect();
    if unrecorded.is_empty() {
        return;
    }
    let of_drift = |(_, draft): &&mut (u32, Draft)| draft.event == Event::DriftCorrected;
    match decision.records.iter_mut().find(of_drift) {
        Some((_, draft)) => {
            let objects = &mut draft.evidence.objects;
            let more: Vec<String> = unrecorded.into_iter().filter(|object| !objects.contains(object)).collect();
            objects.extend(more);
        }
        None => decision.records.push((last.plan.rollout.number, rest::corrected(unrecorded))),
    }
}

/// Answers decisions in directories of rollouts that others came after.
fn answer_late(input: &Input<'_>, decision: &mut Decision) {
    let (Some(head), Some(last)) = (input.head, input.rollouts.last()) else { return };
    if input.git.rewritten.is_some() {
        return;
    }
    for (number, files) in &head.late {
        let answers = late_answers(input.rollouts, *number, files).into_iter();
        decision.records.extend(answers.map(|draft| (last.plan.rollout.number, draft)));
    }
}

/// Writes back copies of the records that somebody changed or deleted.
fn restore_copies(input: &Input<'_>, decision: &mut Decision) {
    let (Some(head), Some(last)) = (input.head, input.rollouts.last()) else { return };
    if head.copies_intact || decision.has_records() || input.git.rewritten.is_some() {
        // Any other record writes them back as well.
        return;
    }
    let why = "plan.yaml or journal.yaml at HEAD was not as it was pushed";
    decision.records.push((last.plan.rollout.number, Draft::new(Event::LedgerRestored, None, why)));
}

/// Starts the report of an application.
pub(super) fn report(input: &Input<'_>, state: Option<&State>, activity: Activity) -> Report {
    let image_of = |images: Option<&BTreeMap<String, String>>, other: Option<&BTreeMap<String, String>>| {
        let images = images?;
        let changed = images.iter().find(|(id, image)| other.is_none_or(|other| other.get(*id) != Some(*image)));
        changed.or(images.iter().next()).map(|(_, image)| version(image))
    };
    let plan = state.map(|state| &state.plan);
    let from = plan.and_then(|plan| plan.from.as_ref()).map(|end| &end.images);
    let to = plan.map(|plan| &plan.to.images);
    Report {
        app: input.app.clone(),
        rollout: plan.map(|plan| plan.rollout.clone()),
        activity,
        from: image_of(from, to),
        to: image_of(to, from),
        policy: plan.and_then(|plan| plan.policy.as_ref()).map(|policy| policy.name.clone()),
        stage: state.map(|state| state.current().name.clone()),
        opened: state.and_then(|state| state.records.first()).map(|record| record.time),
        plan: plan.map(|plan| plan.hash),
        stages: state.map(stages).unwrap_or_default(),
        units: BTreeMap::new(),
        reasons: Vec::new(),
    }
}

fn stages(state: &State) -> Vec<StageReport> {
    let stages = state.plan.stages.iter().zip(&state.quotas);
    stages
        .map(|(stage, quota)| StageReport {
            name: stage.name.clone(),
            quota: quota.clone(),
            confirm: stage.asks_for_confirm(),
            pause: stage.pause().map(|pause| pause.to_string()),
            analysis: stage.analyses().chain(stage.in_background()).map(str::to_owned).collect(),
        })
        .collect()
}

/// Returns what people call a version: an image's tag, or the beginning of its digest.
pub fn version(image: &str) -> String {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return digest.get(..8).unwrap_or(digest).to_owned();
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
}

/// Names the two versions of a plan: `1.9 → 2.0`.
pub fn versions(plan: &Plan) -> String {
    let from = plan.from.as_ref();
    let changed: Vec<&String> = plan
        .to
        .images
        .iter()
        .filter(|(id, image)| from.is_none_or(|from| from.images.get(*id) != Some(*image)))
        .map(|(id, _)| id)
        .collect();
    let id = changed.first().copied().or_else(|| plan.to.images.keys().next());
    let named = |end: &plan::End| {
        id.and_then(|id| end.images.get(id)).map_or_else(|| end.revision.short().to_owned(), |image| version(image))
    };
    let to = if plan.inputs.files.is_empty() { "nothing".to_owned() } else { named(&plan.to) };
    match from {
        Some(from) => format!("{} → {to}", named(from)),
        None => to,
    }
}

/// Opens a rollout to what HEAD renders, or to nothing.
///
/// # Errors
///
/// There can be no plan: nothing is opened.
pub(super) fn open(
    input: &Input<'_>,
    head: &Head,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
) -> Result<(Plan, Vec<Draft>), PlanError> {
    let (stable, inherits) = match (stable, predecessor(input, target, stable)?) {
        (_, Some(predecessor)) => (Some(&predecessor.stable), Some(predecessor.app.clone())),
        (stable, None) => (stable, sides::inherited(input.rollouts).map(|inherited| inherited.app.clone())),
    };
    keeps_stable_scaled(input, target.map(Arc::as_ref))?;
    let number = input.rollouts.last().map_or(1, |state| state.plan.rollout.number + 1);
    let policy = match target {
        Some(target) => target.policy.as_ref(),
        None => stable.and_then(|stable| stable.policy.as_ref()),
    };
    // What ran without a policy is staged from here on: compared as it would have been.
    let before = stable.map(|stable| match policy {
        Some(policy) => handover::staged_form(stable, policy),
        None => Cow::Borrowed(&**stable),
    });
    let before = before.as_deref();
    let runs = match inherits {
        None => running(input, target.map(Arc::as_ref), before)?,
        Some(_) => BTreeSet::new(),
    };
    let live_replicas: BTreeMap<String, u32> = target
        .into_iter()
        .flat_map(|target| target.workloads.values())
        .map(|workload| (workload.id.clone(), steer::wanted(workload, input.view)))
        .collect();
    let live_units: Quota = target
        .into_iter()
        .flat_map(|target| target.workloads.values())
        .filter(|workload| workload.maker() == Maker::Nodes)
        .filter_map(|workload| Some((workload, policy?)))
        .map(|(workload, policy)| {
            (workload.id.clone(), nodes::totals(workload, policy.strategy.pods(), None, input.view))
        })
        .collect();
    let prunes = prunes(input, target.map(Arc::as_ref), stable.map(Arc::as_ref));
    let request = PlanRequest {
        app: input.app,
        number,
        stable: before,
        target: target.map(Arc::as_ref),
        head: &head.revision,
        policy,
        live_replicas: &live_replicas,
        live_units: &live_units,
        known: target.is_some_and(|target| is_known(input, target, policy)),
        prunes,
        handed_over: stable.is_some_and(|stable| stable.keys().all(|key| (input.neighbours.render)(&key))),
        inherits,
        runs,
        moves: &|workload, totals, unit_type| handover::moves(workload, totals, unit_type, input.app, input.view),
    };
    let plan = plan::make(&request)?;
    let count = plan.stages.len();
    let stages = if count == 1 { "1 stage".to_owned() } else { format!("{count} stages") };
    let opened = Draft::new(Event::RolloutOpened, None, format!("{} in {stages}", versions(&plan)))
        .listing(head.in_advance.clone())
        .with(|evidence| evidence.plan = Some(plan.hash));
    let first = &plan.stages[0].name;
    let started = Draft::new(Event::StageStarted, Some(first), format!("{first} is the first stage"));
    Ok((plan, vec![opened, started]))
}

/// Lets a newer revision take over a rollout that scaled stable down only by a policy that raises it again before it gets its
/// requests back. One that removes the application needs none.
///
/// # Errors
///
/// Its policy does not.
fn keeps_stable_scaled(input: &Input<'_>, target: Option<&Render>) -> Result<(), PlanError> {
    let before = input.rollouts.last().filter(|state| !state.is_over() && state.plan.from.is_some());
    let before = before.and_then(|state| state.plan.policy.as_ref());
    let (Some(before), Some(target)) = (before, target) else { return Ok(()) };
    let scales = |policy: &RolloutPolicy| policy.strategy.beside().is_some_and(|beside| beside.scales_stable);
    let by = target.policy.as_ref().filter(|policy| scales(policy));
    if !scales(&before.spec) || by.and_then(sides::router_of) == sides::router_of(&before.spec) {
        return Ok(());
    }
    Err(PlanError::Refused(
        "stable is scaled down, and this policy has no dynamicStableScale by the same router: abort the rollout first"
            .to_owned(),
    ))
}

/// Returns the workloads that run already, though nothing of them was ever released here.
///
/// # Errors
///
/// What runs is not what Git says: which version it is could not be told.
fn running(input: &Input<'_>, target: Option<&Render>, before: Option<&Render>) -> Result<BTreeSet<String>, PlanError> {
    let staged = target.into_iter().flat_map(|target| target.workloads.values());
    let fresh = staged.filter(|workload| before.is_none_or(|before| !before.workloads.contains_key(&workload.id)));
    let mut runs = BTreeSet::new();
    for workload in fresh.filter(|workload| handover::runs_by_itself(workload, input.view)) {
        let differ = handover::not_what_runs(workload, input.view);
        if !differ.is_empty() {
            return Err(PlanError::Refused(format!(
                "{} runs already, and is not what Git says: {}; merge what runs first, and change it in a later commit",
                workload.id,
                differ.join(", ")
            )));
        }
        runs.insert(workload.id.clone());
    }
    Ok(runs)
}

/// Returns the application that was renamed to this one: its stable is where the rollout starts from.
///
/// # Errors
///
/// It had workloads that this one has not: whose they are to be cannot be told.
fn predecessor<'a>(
    input: &'a Input<'_>,
    target: Option<&Arc<Render>>,
    stable: Option<&Arc<Render>>,
) -> Result<Option<&'a Predecessor>, PlanError> {
    let (Some(target), None, Some(predecessor)) = (target, stable, &input.neighbours.predecessor) else {
        return Ok(None);
    };
    let lost = predecessor.stable.workloads.iter().find(|(_, workload)| !target.keys().any(|key| key == workload.key));
    match lost {
        None => Ok(Some(predecessor)),
        Some((id, _)) => Err(PlanError::Refused(format!(
            "{} was renamed and lost {id} at once: rename it first, and take that away in a later commit",
            predecessor.app
        ))),
    }
}

/// Lists the objects that would be removed, and counts all that there are.
fn prunes(input: &Input<'_>, target: Option<&Render>, stable: Option<&Render>) -> (Vec<String>, usize) {
    let before: std::collections::BTreeSet<_> = stable.map(|stable| stable.keys().collect()).unwrap_or_default();
    let kept = target.map(|target| target.keys().collect()).unwrap_or_default();
    let gone = super::objects::to_prune(&before, &kept, input.neighbours, input.app, input.view);
    (gone.iter().map(|object| format!("{}/{}", object.key().kind, object.name())).collect(), before.len())
}

/// Returns whether a target was stable lately: one of the last so many, the present one aside.
pub(super) fn is_known(input: &Input<'_>, target: &Render, policy: Option<&RolloutPolicy>) -> bool {
    let window = policy.map_or(3, |policy| policy.rollback.window) as usize;
    let completed = input.rollouts.iter().rev().filter(|state| state.phase == Phase::Ended(Outcome::Completed));
    completed.take(window + 1).any(|state| state.plan.to.workloads == target.digests)
}

/// Returns whether HEAD renders what a rollout goes to, as far as opening, refusing and reverting are concerned.
pub(super) fn is_target(content: &HeadContent, plan: &Plan) -> bool {
    match content {
        HeadContent::Rendered(render) => {
            !plan.inputs.files.is_empty() && render.digests == plan.to.workloads && goes_there(render, plan)
        }
        HeadContent::Removed => plan.inputs.files.is_empty(),
        HeadContent::Broken(_) => false,
    }
}

/// Returns whether a rollout stages as HEAD says, or not at all; and where that is all that it changes, in the same units.
/// One that changes pods keeps its stages where the policy is taken away: that is a rollout of its own, after it.
fn goes_there(render: &Render, plan: &Plan) -> bool {
    let pinned = plan.policy.as_ref().map(|policy| &policy.spec);
    let only_units = plan.from.as_ref().is_some_and(|from| from.workloads == plan.to.workloads);
    match (&render.policy, pinned) {
        (Some(policy), Some(pinned)) if only_units => places(policy) == places(pinned),
        (None, Some(_)) if !only_units => true,
        (policy, pinned) => policy.is_some() == pinned.is_some(),
    }
}

/// Records that a change which needs no stages is put in place.
pub(super) fn applied(render: &Render, at: Option<&Revision>) -> Draft {
    let since = at.map(|at| format!(" since {}", at.short())).unwrap_or_default();
    let why = format!("{} changes nothing that is staged{since}: put in place at once", render.revision.short());
    Draft::new(Event::Applied, None, why).with(|evidence| {
        evidence.revision = Some(render.revision.clone());
        evidence.digest = Some(render.digest);
        evidence.workloads.clone_from(&render.digests);
    })
}

/// Returns why a HEAD cannot be used, as a reason: its first problem, or all that the API server has against it.
pub(super) fn broken(input: &Input<'_>, content: &HeadContent) -> Option<Reason> {
    let problem = match content {
        HeadContent::Broken(problems) => {
            problems.first().map_or_else(|| "it does not render".to_owned(), ToString::to_string)
        }
        _ if input.objections.is_empty() => return None,
        _ => format!("nothing of it is put in place: {}", input.objections.join("; ")),
    };
    Some(Reason::HeadBroken { problem })
}

pub(super) use sides::stable as stable_side;
