//! A plan as people read it.

use std::{collections::BTreeMap, fmt::Write as _};

use owo_colors::OwoColorize as _;

use super::super::{
    output::columns,
    plan::{Effect, Planned},
};
use crate::core::{
    names::Unit,
    rollout::{
        plan::{Gate, Plan},
        versions,
    },
    traffic::capacity,
};

/// Shows what merging would do.
pub fn show(planned: &[Planned]) -> String {
    let shown: Vec<String> = planned.iter().map(one).collect();
    if shown.is_empty() { "nothing would change\n".to_owned() } else { shown.join("\n") }
}

fn one(planned: &Planned) -> String {
    let app = &planned.app;
    let mut text = match (planned.outcome, &planned.plan) {
        (Effect::Opens, Some(plan)) => opens(planned, plan),
        (Effect::Applied, _) => format!("{}  applied at once: nothing that is staged changes\n", app.bold()),
        (Effect::GoesBack, _) => format!("{}  goes back: this renders stable again\n", app.bold()),
        (Effect::Refused, _) => format!("{}  cannot be released\n", app.bold()),
        _ => format!("{}  nothing would change\n", app.bold()),
    };
    // Why it cannot be released is told as the error that it is.
    let told = usize::from(planned.outcome == Effect::Refused);
    for note in planned.notes.iter().skip(told) {
        let _ = writeln!(text, "  {:<10} {note}", "note");
    }
    if let Some(plan) = &planned.plan {
        let _ = write!(text, "\nplan {}\n", plan.hash.short().bold());
    }
    text
}

fn opens(planned: &Planned, plan: &Plan) -> String {
    let to = if planned.is_working_tree { "working tree" } else { plan.to.revision.short() };
    let revisions = match &plan.from {
        Some(from) => format!("{} → {to}", from.revision.short()),
        None => to.to_owned(),
    };
    let policy = match &plan.policy {
        Some(policy) => format!("policy {} ({})", policy.name, policy.spec.strategy.name()),
        None => "no policy".to_owned(),
    };
    let mut text = format!("{}  {}     {revisions}     {policy}\n\n", planned.app.bold(), versions(plan));
    text.push_str(&stages(plan));
    text.push('\n');
    for (id, how) in &planned.workloads {
        let name = id.rsplit('/').next().unwrap_or(id);
        let _ = writeln!(text, "  {name:<10} {how}");
    }
    for (name, what) in [("config", &planned.config), ("abort", &planned.abort)] {
        if let Some(what) = what {
            let _ = writeln!(text, "  {name:<10} {what}");
        }
    }
    text
}

/// One row a stage and workload: `1/4` in each unit, the new pods of all, and what comes then.
fn stages(plan: &Plan) -> String {
    let staged: Vec<&String> =
        plan.totals.keys().filter(|id| plan.stages.iter().any(|stage| stage.quota.contains_key(*id))).collect();
    let mut units: Vec<Unit> = Vec::new();
    if let Some(policy) = &plan.policy {
        units.extend(policy.spec.strategy.pods().topology.iter().flat_map(|topology| topology.units.clone()));
    }
    let several = staged.len() > 1;
    let mut head = vec!["stage".to_owned()];
    if several {
        head.push("workload".to_owned());
    }
    head.extend(units.iter().map(ToString::to_string));
    head.push("new pods".to_owned());
    let scales =
        plan.policy.as_ref().and_then(|policy| policy.spec.strategy.beside()).is_some_and(|it| it.scales_stable);
    // A first install has no other side.
    let scales = scales && plan.from.is_some();
    if scales {
        head.push("stable".to_owned());
    }
    let split = plan.policy.as_ref().is_some_and(|policy| policy.spec.strategy.beside().is_some());
    if split {
        head.push("traffic".to_owned());
    }
    head.push("then".to_owned());
    let mut rows = vec![head];
    for (index, stage) in plan.stages.iter().enumerate() {
        // What begins in the background is told where it begins.
        let before = index.checked_sub(1).and_then(|before| plan.stages.get(before));
        let goes_on = |gate: &Gate| !gate.is_waited_for() && before.is_some_and(|before| before.gates.contains(gate));
        let told = stage.gates.iter().filter(|gate| **gate != Gate::Health && !goes_on(gate));
        let gates = told.map(ToString::to_string);
        let gates = gates.collect::<Vec<_>>().join(", ");
        let then = match gates.as_str() {
            "" if index + 1 == plan.stages.len() => "done",
            "" => "goes on",
            gates => gates,
        };
        let name = stage.name.to_string();
        if staged.is_empty() || stage.quota.is_empty() {
            let mut row = vec![name];
            row.extend(std::iter::repeat_n(
                "-".to_owned(),
                units.len() + usize::from(several) + usize::from(split) + usize::from(scales) + 1,
            ));
            row.push(then.to_owned());
            rows.push(row);
            continue;
        }
        for (at, id) in staged.iter().enumerate() {
            let none = BTreeMap::new();
            let quota = stage.quota.get(*id).unwrap_or(&none);
            let totals = plan.totals.get(*id).unwrap_or(&none);
            let mut row = vec![if at == 0 { name.clone() } else { String::new() }];
            if several {
                row.push(id.rsplit('/').next().unwrap_or(id).to_owned());
            }
            let count = |counts: &BTreeMap<Unit, u32>, unit: &Unit| counts.get(unit).copied().unwrap_or(0);
            row.extend(units.iter().map(|unit| format!("{}/{}", count(quota, unit), count(totals, unit))));
            row.push(format!("{}/{}", quota.values().sum::<u32>(), totals.values().sum::<u32>()));
            if scales {
                let total: u32 = totals.values().sum();
                let weight = stage.weight.unwrap_or_default();
                row.push(format!("{}/{total}", capacity::stable_pods(weight, total)));
            }
            if split {
                row.push(stage.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string()));
            }
            row.push(if at + 1 == staged.len() { then.to_owned() } else { String::new() });
            rows.push(row);
        }
    }
    align(&mut rows, if several { 2 } else { 1 });
    columns(&rows).lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  {line}");
        text
    })
}

/// Sets numbers to the right of their column.
fn align(rows: &mut [Vec<String>], first: usize) {
    let last = rows.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
    for at in 0..last {
        let width = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        for row in rows.iter_mut() {
            if let Some(cell) = row.get_mut(at) {
                *cell = if at < first { format!("{cell:<10}") } else { format!("{cell:>width$}") };
            }
        }
    }
}
