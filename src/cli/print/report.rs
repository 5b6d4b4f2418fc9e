//! Where an application is, as people read it: one line, or a block with every stage.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::super::output::columns;
use crate::core::{
    ledger::{Cause, Event},
    names::Unit,
    policy::OnAbort,
    rollout::{
        report::{Activity, Reason, Report, StageReport, UnitReport, clock},
        state::{Outcome, Phase, State},
        version,
    },
};

/// Where one application is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// As the controller decides it.
    #[serde(flatten)]
    pub report: Report,
    /// What is stable, as people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// Why the cluster could not be asked: then counts of pods are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_away: Option<String>,
    /// When a controller was seen last, where none is there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_controller: Option<String>,
    /// The rollout, folded.
    #[serde(skip)]
    pub state: Option<State>,
}

/// Pods beyond this many in one unit are told as numbers.
const MOST_DOTS: u32 = 12;
/// How wide a block is.
const WIDTH: usize = 79;

/// Shows all applications, one line each.
pub fn table(all: &[Shown]) -> String {
    if all.is_empty() {
        return "there are no applications\n".to_owned();
    }
    let mut rows = vec![["application", "rollout", "version", "now", "why"].map(str::to_owned).to_vec()];
    for shown in all {
        let report = &shown.report;
        let number = report.rollout.as_ref().map_or_else(|| "-".to_owned(), |id| format!("{:04}", id.number));
        let why = report.reasons.first().map(ToString::to_string).unwrap_or_default();
        rows.push(vec![report.app.to_string(), number, versions(shown), activity(report.activity).to_owned(), why]);
    }
    columns(&rows)
}

fn activity(activity: Activity) -> &'static str {
    match activity {
        Activity::New => "new",
        Activity::Stable => "stable",
        Activity::Progressing => "progressing",
        Activity::Waiting => "waiting",
        Activity::Paused => "paused",
        Activity::Stopped => "stopped",
        Activity::Aborting => "aborting",
        Activity::Held => "held",
    }
}

fn is_over(shown: &Shown) -> bool {
    shown.state.as_ref().is_none_or(State::is_over)
}

fn versions(shown: &Shown) -> String {
    let report = &shown.report;
    if is_over(shown) {
        return shown.stable.clone().unwrap_or_else(|| "-".to_owned());
    }
    match (&report.from, &report.to) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        (None, Some(to)) => to.clone(),
        _ => "-".to_owned(),
    }
}

/// Shows one application.
pub fn block(shown: &Shown, now: Timestamp) -> String {
    let report = &shown.report;
    let number = report.rollout.as_ref().map(|id| format!(" {:04}", id.number)).unwrap_or_default();
    let moving = matches!(report.activity, Activity::Progressing | Activity::Waiting);
    let word = match &report.policy {
        Some(policy) if moving => policy.clone(),
        _ => activity(report.activity).to_owned(),
    };
    let title = format!("{}{number}   {}   {word}", report.app, versions(shown));
    let room = WIDTH.saturating_sub(title.chars().count() + 8).max(3);
    let mut text = format!("{}{}{}\n", title.bold(), " ".repeat(room), clock(now));
    if let Some(why) = &shown.cluster_away {
        let _ = writeln!(text, "  {:<12} {why}: this is what Git says", "no cluster");
    }
    if let Some(seen) = &shown.no_controller {
        let _ = writeln!(text, "  {:<12} {seen}", "controller");
    }
    match &shown.state {
        Some(state) if !state.is_over() && !matches!(state.phase, Phase::Aborting(_)) => {
            stages(shown, state, &mut text)
        }
        Some(state) if matches!(state.phase, Phase::Aborting(_)) => going_back(shown, state, &mut text),
        _ => at_rest(shown, &mut text),
    }
    text
}

fn stages(shown: &Shown, state: &State, text: &mut String) {
    let report = &shown.report;
    for (index, stage) in report.stages.iter().enumerate() {
        if index == state.stage {
            current(shown, state, stage, text);
            continue;
        }
        let marker = if index < state.stage { "✓" } else { " " };
        let then = match then(stage).filter(|_| index > state.stage) {
            Some(then) => format!("    then {then}"),
            None => String::new(),
        };
        let signs = if index < state.stage { REACHED } else { AHEAD };
        for (at, dots) in planned_dots(state, stage, signs).into_iter().enumerate() {
            let name = if at == 0 { stage.name.as_str() } else { "" };
            let line = format!("  {marker} {name:<10} {dots}{}", if at == 0 { then.as_str() } else { "" });
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

/// Says what is waited for after a stage.
fn then(stage: &StageReport) -> Option<String> {
    let pause = stage.pause.as_ref().map(|pause| format!("pause {pause}"));
    let gates: Vec<String> = pause.into_iter().chain(stage.confirm.then(|| "confirm".to_owned())).collect();
    (!gates.is_empty()).then(|| gates.join(", "))
}

fn current(shown: &Shown, state: &State, stage: &StageReport, text: &mut String) {
    let report = &shown.report;
    let failing = report.units.values().flat_map(BTreeMap::values).any(|unit| unit.failing > 0);
    let marker = match (state.phase, failing) {
        (Phase::Stopped, _) | (_, true) => "✗".red().to_string(),
        _ => "▸".cyan().to_string(),
    };
    let mut lines: Vec<String> = report
        .units
        .iter()
        .filter(|(id, _)| stage.quota.contains_key(*id))
        .map(|(id, units)| named(stage.quota.len() > 1, id, live_dots(&order(state, units))))
        .collect();
    if lines.is_empty() {
        lines = planned_dots(state, stage, REACHED);
    }
    // Workloads that this rollout does not change are at the new version already.
    let staged = report.units.iter().filter(|(id, _)| stage.quota.contains_key(*id));
    let counted: Vec<&UnitReport> = staged.flat_map(|(_, units)| units.values()).collect();
    if !counted.is_empty()
        && let Some(first) = lines.first_mut()
    {
        let done: u32 = counted.iter().map(|unit| unit.done).sum();
        let new: u32 = counted.iter().map(|unit| unit.done + unit.coming + unit.failing).sum();
        let want: u32 = stage.quota.values().flat_map(BTreeMap::values).sum();
        let after = state
            .waiting
            .get(&stage.name)
            // What was ready before a step back says nothing of how long that took.
            .filter(|waiting| waiting.since >= state.since)
            .map(|waiting| format!(" after {} s", waiting.since.duration_since(state.since).as_secs()));
        let _ = write!(first, "    {new} new, {done} of {want} ready{}", after.unwrap_or_default());
    }
    for (at, dots) in lines.iter().enumerate() {
        let (marker, name) = if at == 0 { (marker.as_str(), stage.name.as_str()) } else { (" ", "") };
        let _ = writeln!(text, "  {marker} {name:<10} {dots}");
    }
    reasons(shown, state, text);
}

/// What a person can do, and why not more is done.
fn reasons(shown: &Shown, state: &State, text: &mut String) {
    let report = &shown.report;
    for reason in &report.reasons {
        let said = match reason {
            Reason::ConfirmNeeded { since, removes, .. } => {
                let removes = removes.join(", ");
                let what = if removes.is_empty() { removes } else { format!("; it removes {removes}") };
                format!("waits for a confirm since {}{what}", clock(*since))
            }
            Reason::Paused => paused(state),
            other => other.to_string(),
        };
        for line in said.lines() {
            let _ = writeln!(text, "{:15}{line}", "");
        }
        if let Reason::ConfirmNeeded { stage, .. } = reason {
            let _ = writeln!(text, "{:15}git: add {}/confirm/{stage}.yaml", "", state.plan.rollout.directory());
            let _ = writeln!(text, "{:15}or:  locktender confirm {}", "", report.app);
        }
        if *reason == Reason::Paused {
            let _ = writeln!(text, "{:15}git: rm {}/pause.yaml", "", state.plan.rollout.directory());
            let _ = writeln!(text, "{:15}or:  locktender resume {}", "", report.app);
        }
        if matches!(reason, Reason::Stopped { .. }) {
            let _ = writeln!(text, "{:15}git: add {}/retry.yaml", "", state.plan.rollout.directory());
            let _ = writeln!(text, "{:15}or:  locktender retry {}, or abort, or a fix", "", report.app);
        }
    }
}

/// Says since when a rollout is paused, and what the person said.
fn paused(state: &State) -> String {
    let record = state.records.iter().rev().find(|record| record.event == Event::Paused);
    let since = record.map(|record| format!(" since {}", clock(record.time))).unwrap_or_default();
    let said = record.and_then(|record| record.why.strip_prefix("pause.yaml: "));
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    format!("paused{since}{said}")
}

fn going_back(shown: &Shown, state: &State, text: &mut String) {
    let report = &shown.report;
    let stage = state.current();
    let why = state.records.iter().rev().find(|record| record.event == Event::Aborting).map(|record| &record.why);
    let dots: Vec<String> = planned_dots(
        state,
        &StageReport {
            name: stage.name.clone(),
            quota: state.quotas.get(state.stage).cloned().unwrap_or_default(),
            confirm: false,
            pause: None,
            analysis: Vec::new(),
        },
        REACHED,
    );
    let first = dots.first().cloned().unwrap_or_default();
    let failed = state.phase == Phase::Aborting(Cause::Failure);
    let first = if failed { first.replace('●', "✗") } else { first };
    let marker = if failed { "✗".red().to_string() } else { "◂".cyan().to_string() };
    let _ = writeln!(text, "  {marker} {:<10} {first}", stage.name);
    for line in why.into_iter().flat_map(|why| why.lines()) {
        let _ = writeln!(text, "{:15}{line}", "");
    }
    let to = report.from.clone().unwrap_or_else(|| "nothing".to_owned());
    // Workloads that this rollout does not change are at the new version already.
    let staged = report.units.iter().filter(|(id, _)| stage.quota.contains_key(*id));
    let counted: Vec<&UnitReport> = staged.flat_map(|(_, units)| units.values()).collect();
    if counted.is_empty() || state.plan.from.is_none() {
        let _ = writeln!(text, "  {:<12} to {to}", "going back");
    } else {
        let total: u32 = counted.iter().map(|unit| unit.total).sum();
        let there: u32 = counted.iter().map(|unit| unit.done).sum();
        let left = total.saturating_sub(there);
        let _ = writeln!(text, "  {:<12} {left} pods to {to}, {there} are there", "going back");
    }
    let on_abort = state.plan.policy.as_ref().map_or(OnAbort::Revert, |policy| policy.spec.on_abort);
    let then = match (&state.plan.from, on_abort, state.phase) {
        (_, _, Phase::Aborting(Cause::Revert)) => "nothing: Git says so already".to_owned(),
        (Some(from), OnAbort::Revert, _) => {
            format!("repair apps/{} in Git, back towards {}", report.app, from.revision.short())
        }
        _ => "held: Git is left as it is".to_owned(),
    };
    let _ = writeln!(text, "  {:<12} {then}", "then");
    reasons(shown, state, text);
}

fn at_rest(shown: &Shown, text: &mut String) {
    let report = &shown.report;
    for (id, units) in &report.units {
        let total: u32 = units.values().map(|unit| unit.total).sum();
        let name = id.rsplit('/').next().unwrap_or(id);
        let dots = shown
            .state
            .as_ref()
            .map_or_else(|| live_dots(&order_by_name(units)), |state| live_dots(&order(state, units)));
        let _ = writeln!(text, "    {name:<10} {dots}    {total} {}", if total == 1 { "pod" } else { "pods" });
    }
    if let (Some(state), Some(id)) = (&shown.state, &report.rollout) {
        let word = match state.phase {
            Phase::Ended(Outcome::Aborted) => Some("aborted"),
            Phase::Ended(Outcome::Superseded) => Some("superseded"),
            _ => None,
        };
        let at = state.records.iter().rev().find(|record| matches!(record.event, Event::Aborted | Event::Superseded));
        if let (Some(word), Some(at)) = (word, at) {
            let what = report.to.clone().unwrap_or_else(|| state.plan.to.revision.short().to_owned());
            let _ = writeln!(text, "    {:<10} {:04} to {what} was {word} at {}", "last", id.number, clock(at.time));
        }
    }
    for reason in &report.reasons {
        let _ = writeln!(text, "    {:<10} {reason}", "");
    }
}

/// Units in the policy's order.
fn order<'a, T>(state: &State, units: &'a BTreeMap<Unit, T>) -> Vec<(&'a Unit, &'a T)> {
    let Some(policy) = &state.plan.policy else { return order_by_name(units) };
    let known = policy.spec.strategy.pods().units();
    let place = |unit: &Unit| known.iter().position(|one| one == unit).unwrap_or(usize::MAX);
    let mut all: Vec<(&Unit, &T)> = units.iter().collect();
    all.sort_by_key(|(unit, _)| place(unit));
    all
}

fn order_by_name<T>(units: &BTreeMap<Unit, T>) -> Vec<(&Unit, &T)> {
    units.iter().collect()
}

fn named(several: bool, id: &str, dots: String) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    if several { format!("{name}  {dots}") } else { dots }
}

fn unit_name(unit: &Unit) -> String {
    if unit.as_str().is_empty() { String::new() } else { format!("{unit} ") }
}

/// Signs of a quota that was reached: pods within it, and the others.
const REACHED: [char; 2] = ['●', '○'];
/// … and of one that is still ahead: these pods are wanted, and nobody says that they run.
const AHEAD: [char; 2] = ['◇', '·'];

/// What a stage's quota looks like, one line a workload.
fn planned_dots(state: &State, stage: &StageReport, signs: [char; 2]) -> Vec<String> {
    let several = stage.quota.len() > 1;
    let lines: Vec<String> = stage
        .quota
        .iter()
        .map(|(id, quota)| {
            let totals = state.totals.get(id);
            let dots: Vec<String> = order(state, quota)
                .into_iter()
                .map(|(unit, wanted)| {
                    let total = totals.and_then(|totals| totals.get(unit)).copied().unwrap_or(*wanted);
                    format!(
                        "{}{}",
                        unit_name(unit),
                        dots(&[(signs[0], *wanted), (signs[1], total.saturating_sub(*wanted))])
                    )
                })
                .collect();
            named(several, id, dots.join("  "))
        })
        .collect();
    if lines.is_empty() { vec![String::new()] } else { lines }
}

/// Draws units as they are: `dca ●◐○○`.
pub fn live_dots(units: &[(&Unit, &UnitReport)]) -> String {
    let shown: Vec<String> = units
        .iter()
        .map(|(unit, report)| {
            let rest = report.total.saturating_sub(report.done + report.coming + report.failing);
            let counts = [('●', report.done), ('◐', report.coming), ('✗', report.failing), ('○', rest)];
            format!("{}{}", unit_name(unit), dots(&counts))
        })
        .collect();
    shown.join("  ")
}

/// One sign a pod; numbers where there are too many.
fn dots(counts: &[(char, u32)]) -> String {
    let total: u32 = counts.iter().map(|(_, count)| count).sum();
    if total > MOST_DOTS {
        let done = counts.first().map_or(0, |(_, count)| *count);
        let failing: u32 = counts.iter().filter(|(sign, _)| *sign == '✗').map(|(_, count)| count).sum();
        let failing = if failing > 0 { format!(" ✗{failing}") } else { String::new() };
        return format!("{done}/{total}{failing}");
    }
    counts.iter().flat_map(|(sign, count)| std::iter::repeat_n(*sign, *count as usize)).collect()
}

/// Returns what people call what is stable.
pub fn stable(rollouts: &[State]) -> Option<String> {
    let at = crate::core::rollout::stable_at(rollouts)?;
    let end = &rollouts[at.index].plan.to;
    Some(end.images.values().next().map_or_else(|| at.revision.short().to_owned(), |image| version(image)))
}
