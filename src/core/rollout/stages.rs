//! How a strategy cuts a rollout into stages: their names and gates. How many pods each has is `quota`'s.

use super::plan::Gate;
use crate::core::{
    names::StageName,
    policy::{Batched, BlueGreen, Canary, Confirm, HumanDuration, Percent, Size, Step, StepGates, Strategy},
    traffic::Split,
};

/// A stage without its quota.
pub(super) struct Shape {
    pub name: StageName,
    pub gates: Vec<Gate>,
    pub weight: Option<Percent>,
    /// How a router shares requests out, where it is more than a weight.
    pub split: Option<Split>,
}

/// Returns the gates that come before any pod is touched.
pub(super) fn before_any_pod(strategy: &Strategy) -> Vec<Gate> {
    match strategy {
        Strategy::Batched(_) => Vec::new(),
        Strategy::Canary(canary) => gates(&canary.start),
        Strategy::BlueGreen(blue_green) => gates(&blue_green.start),
    }
}

/// Returns a strategy's stages, `count` of them, at least one.
pub(super) fn shapes(strategy: &Strategy, count: usize) -> Vec<Shape> {
    match strategy {
        Strategy::Batched(batched) => (0..count).map(|index| batch(batched, index, count)).collect(),
        Strategy::Canary(canary) => steps(canary, count),
        Strategy::BlueGreen(blue_green) => sides(blue_green, count),
    }
}

fn batch(batched: &Batched, index: usize, count: usize) -> Shape {
    let has_beta = batched.beta.per_unit > 0;
    let name = match (has_beta, index) {
        (true, 0) => "beta".to_owned(),
        (true, index) => format!("batch-{index}"),
        (false, index) => format!("batch-{}", index + 1),
    };
    let last = index + 1 == count;
    let asks = match batched.confirm {
        Confirm::EveryBatch => !last,
        Confirm::Beta => has_beta && index == 0 && !last,
        Confirm::None => false,
    };
    let mut gates = vec![Gate::Health];
    if asks {
        gates.push(Gate::Confirm);
    }
    Shape { name: StageName::new(name), gates, weight: None, split: None }
}

/// Returns the last `count` steps: where no pod is staged, the last alone.
fn steps(canary: &Canary, count: usize) -> Vec<Shape> {
    let mut taken: Vec<String> = Vec::new();
    let mut before: Option<&Step> = None;
    let mut shape = |step| {
        let name = name(step, before.replace(step));
        let same = taken.iter().filter(|one| **one == name).count();
        taken.push(name.clone());
        let name = if same == 0 { name } else { format!("{name}-{}", same + 1) };
        let gates = [vec![Gate::Health], gates(&step.gates)].concat();
        let weight = match (&step.split, step.size) {
            (Some(split), _) => Some(split.weight),
            (None, Size::Weight(weight) | Size::Capacity(weight)) => Some(weight),
            (None, Size::Replicas(_)) => None,
        };
        Shape { name: StageName::new(name), gates, weight, split: step.split.clone() }
    };
    let mut all: Vec<Shape> = canary.steps.iter().map(&mut shape).collect();
    for (index, step) in canary.steps.iter().enumerate() {
        // From its step on until everything is new.
        let beside = || step.gates.background.iter().cloned().map(Gate::Background);
        all[index..].iter_mut().for_each(|later| later.gates.extend(beside()));
    }
    let skip = all.len().saturating_sub(count);
    all.into_iter().skip(skip).collect()
}

/// Names a step after what it changes.
fn name(step: &Step, before: Option<&Step>) -> String {
    let pods = |replicas: &dyn std::fmt::Display| format!("pods-{}", replicas.to_string().replace('%', "-percent"));
    let nothing = Split::default();
    let was = before.and_then(|before| before.split.as_ref()).unwrap_or(&nothing);
    match (&step.split, step.size) {
        (Some(split), _) if split.weight != was.weight => format!("weight-{}", split.weight.get()),
        (Some(split), _) if split.headers != was.headers => "header-route".to_owned(),
        (Some(split), _) if split.mirror != was.mirror => {
            format!("mirror-{}", split.mirror.unwrap_or_default().get())
        }
        (Some(split), _) if split.affinity != was.affinity => "affinity".to_owned(),
        (_, Size::Weight(weight)) => format!("weight-{}", weight.get()),
        (_, Size::Capacity(_)) => "pods-as-weight".to_owned(),
        (_, Size::Replicas(replicas)) => pods(&replicas),
    }
}

/// Returns the stages of a switch; where nothing is beside anything else, as in a first install, there is only one.
fn sides(blue_green: &BlueGreen, count: usize) -> Vec<Shape> {
    let stage = |name: &str, weight: u8, more: &StepGates| Shape {
        name: name.into(),
        gates: [vec![Gate::Health], gates(more)].concat(),
        weight: Percent::new(weight),
        split: None,
    };
    let nothing = StepGates::default();
    if count == 1 {
        return vec![Shape { weight: None, ..stage("full", 0, &nothing) }];
    }
    let mut shapes = vec![stage("preview", 0, &blue_green.before)];
    if blue_green.preview_replicas.is_some() {
        shapes.push(stage("full", 0, &nothing));
    }
    shapes.push(stage("switch", 100, &blue_green.watch));
    if !gates(&blue_green.watch).is_empty() {
        shapes.push(stage("finish", 100, &nothing));
    }
    shapes
}

fn gates(step: &StepGates) -> Vec<Gate> {
    let pause = HumanDuration::of(step.pause).map(Gate::Pause);
    let analyses = step.analysis.iter().cloned().map(Gate::Analysis);
    analyses.chain(pause).chain(step.confirm.then_some(Gate::Confirm)).collect()
}
