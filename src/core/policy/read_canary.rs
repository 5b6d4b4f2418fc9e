//! Reads the canary strategy. Everything short is written out here: downstream there are only steps.

use std::time::Duration;

use super::{
    Canary, IntOrPercent, Percent, PodPolicy, Size, Step, StepGates, Update,
    read::{Fields, Reader},
    read_analysis::{Metrics, whole},
    read_policy::{DAY, graceful, seconds},
};
use crate::core::yaml::{Data, Node, Span};

/// The fields of `canary`.
pub(super) const CANARY: &[&str] = &[
    "steps",
    "stepWeight",
    "maxWeight",
    "interval",
    "metrics",
    "threshold",
    "confirmStart",
    "confirmEachIncrease",
    "confirmPromotion",
    "maxSurge",
    "maxUnavailable",
    "minReadySeconds",
    "graceful",
    "traffic",
    "scaleDownDelaySeconds",
];
/// The kinds of steps.
pub(super) const STEP: &[&str] = &[
    "setWeight",
    "setCanaryReplicas",
    "pause",
    "confirm",
    "analysis",
    "setHeaderRoute",
    "setMirror",
    "sessionAffinity",
];
const ROUTER: &str = "this version moves no traffic but by the number of pods";
/// A check that fails more often than this before anything goes back is none.
const MOST_FAILURES: u32 = 100;
const MOST_STEPS: usize = 100;

pub(super) fn canary(reader: &mut Reader<'_>, node: &Node, metrics: &mut Metrics) -> Option<Canary> {
    let fields = reader.fields(node, CANARY)?;
    for name in ["traffic", "scaleDownDelaySeconds"] {
        reader.later(&fields, name, ROUTER);
    }
    let pods = pods(reader, &fields);
    let (mut start, mut steps) = match fields.get("steps") {
        Some(node) => {
            for name in ["stepWeight", "maxWeight", "interval", "metrics", "threshold"] {
                if let Some(entry) = fields.entry(name) {
                    reader.problem(entry.key_span, format!("`{name}` and `steps` say the same: write one of them"));
                }
            }
            listed(reader, node, metrics)?
        }
        None => (StepGates::default(), even(reader, &fields, metrics)?),
    };
    let mut flag = |name: &str| fields.get(name).and_then(|node| reader.boolean(node)).unwrap_or(false);
    start.confirm |= flag("confirmStart");
    let each = flag("confirmEachIncrease");
    let promotion = flag("confirmPromotion") || each;
    if steps.last().is_none_or(|step| step.size != Size::ALL) {
        steps.push(Step { size: Size::ALL, gates: StepGates::default() });
    }
    let before_last = steps.len().saturating_sub(2);
    let last = steps.len() - 1;
    for (index, step) in steps.iter_mut().enumerate() {
        step.gates.confirm |= index < last && each || index == before_last && index != last && promotion;
    }
    if last == 0 {
        start.confirm |= promotion;
    }
    Some(Canary { pods, start, steps })
}

fn pods(reader: &mut Reader<'_>, fields: &Fields<'_>) -> PodPolicy {
    let mut number = |name: &str| fields.get(name).and_then(|node| reader.int_or_percent(node, 0));
    let max_surge = number("maxSurge").unwrap_or(IntOrPercent::Percent(Percent::QUARTER));
    let max_unavailable = number("maxUnavailable").unwrap_or(IntOrPercent::Count(0));
    let is_none = |value: IntOrPercent| value.up(100) == 0;
    if is_none(max_surge) && is_none(max_unavailable) {
        let span = fields.get("maxSurge").map_or(fields.span, |node| node.span);
        reader.problem(span, "`maxSurge` and `maxUnavailable` are both 0: no pod could ever change");
    }
    PodPolicy {
        update: Update::Recreate,
        topology: None,
        min_ready: seconds(reader, fields.get("minReadySeconds"), 0..=DAY, 0),
        max_unavailable,
        max_surge,
        graceful: graceful(reader, fields.get("graceful")),
    }
}

/// Reads steps that are listed: sizes, each followed by its gates. Gates before the first size come before any pod.
fn listed(reader: &mut Reader<'_>, node: &Node, metrics: &mut Metrics) -> Option<(StepGates, Vec<Step>)> {
    let items = reader.list(node)?;
    if items.is_empty() || items.len() > MOST_STEPS {
        reader.problem(node.span, format!("there must be 1 to {MOST_STEPS} steps, and there are {}", items.len()));
    }
    let mut start = StepGates::default();
    let mut steps: Vec<Step> = Vec::new();
    let mut in_background: Vec<String> = Vec::new();
    for item in items {
        let Some(fields) = reader.fields(item, STEP) else { continue };
        let mut named = STEP.iter().filter_map(|name| fields.entry(name));
        let (Some(entry), None) = (named.next(), named.next()) else {
            // An unknown name has been told already.
            if fields.len() != 1 {
                reader.problem(item.span, "a step is one thing: write each with a `-` of its own");
            }
            continue;
        };
        let is_start = steps.is_empty();
        let gates = steps.last_mut().map_or(&mut start, |step| &mut step.gates);
        match entry.key.as_str() {
            "setWeight" => {
                let Some(weight) = weight(reader, &entry.value) else { continue };
                push(reader, entry.value.span, &mut steps, Size::Weight(weight));
            }
            "setCanaryReplicas" => {
                let Some(replicas) = reader.int_or_percent(&entry.value, 1) else { continue };
                push(reader, entry.value.span, &mut steps, Size::Replicas(replicas));
            }
            "pause" => gates.pause += pause(reader, &entry.value).unwrap_or_default(),
            "confirm" => {
                if reader.fields(&entry.value, &[]).is_some() {
                    gates.confirm = true;
                }
            }
            "analysis" if is_start => {
                let problem = reader.problem(entry.key_span, "nothing of the new version is there to be measured yet");
                problem.label = Some("write it after a `setWeight`".to_owned());
            }
            "analysis" => {
                let (names, background) = metrics.step_of_many(reader, &entry.value);
                for name in names {
                    if gates.analysis.contains(&name) {
                        reader.problem(entry.value.span, format!("`{name}` is measured at this step already"));
                    } else if in_background.contains(&name) {
                        reader.problem(entry.value.span, format!("`{name}` is measured in the background already"));
                    } else if background {
                        gates.background.push(name.clone());
                        in_background.push(name);
                    } else {
                        gates.analysis.push(name);
                    }
                }
            }
            name => reader.later(&fields, name, ROUTER),
        }
    }
    Some((start, steps))
}

/// Takes a weight, `20` or `20%`.
fn weight(reader: &mut Reader<'_>, node: &Node) -> Option<Percent> {
    match node.data {
        Data::Text(_) => reader.percent(node, 1),
        _ => reader.integer(node, 1..=100).and_then(|number| Percent::new(u8::try_from(number).ok()?)),
    }
}

/// Adds a step. Shares of one kind must grow: pods that came never go again but by going back.
fn push(reader: &mut Reader<'_>, span: Span, steps: &mut Vec<Step>, size: Size) {
    let shrinks = steps.last().is_some_and(|before| match (before.size, size) {
        (Size::Weight(before), Size::Weight(now)) => now <= before,
        (Size::Replicas(IntOrPercent::Count(before)), Size::Replicas(IntOrPercent::Count(now))) => now <= before,
        (Size::Replicas(IntOrPercent::Percent(before)), Size::Replicas(IntOrPercent::Percent(now))) => now <= before,
        _ => before.size == Size::ALL,
    });
    if shrinks {
        reader.problem(span, "this is not more than the step before").label = Some("steps only grow".to_owned());
    }
    steps.push(Step { size, gates: StepGates::default() });
}

fn pause(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let fields = reader.fields(node, &["duration"])?;
    let Some(node) = fields.get("duration") else {
        let problem = reader.problem(fields.span, "a pause without a duration would never end");
        problem.label = Some("write `pause: {duration: 5m}`, or `confirm: {}` to wait for a person".to_owned());
        return None;
    };
    whole(reader, node)
}

/// Writes out `stepWeight`, `maxWeight` and `interval`: even steps up to the most, each as long as the interval.
fn even(reader: &mut Reader<'_>, fields: &Fields<'_>, metrics: &mut Metrics) -> Option<Vec<Step>> {
    let Some(each) = fields.get("stepWeight") else {
        let problem = reader.problem(fields.span, "`steps` are missing");
        problem.label = Some("write `steps`, or `stepWeight`, `maxWeight` and `interval`".to_owned());
        return None;
    };
    let each = weight(reader, each)?.get();
    let most = match fields.get("maxWeight") {
        Some(node) => {
            let most = weight(reader, node)?.get();
            if most < each {
                reader.problem(node.span, format!("`maxWeight` is less than `stepWeight`, which is {each}"));
                return None;
            }
            most
        }
        None => 100,
    };
    let pause = fields.get("interval").and_then(|node| whole(reader, node)).unwrap_or_default();
    let gates =
        StepGates { confirm: false, pause, analysis: checks(reader, fields, pause, metrics), ..StepGates::default() };
    let weights = (1_u8..).map_while(|step| step.checked_mul(each)).take_while(|weight| *weight < most);
    let sizes = weights.chain([most]).filter_map(Percent::new).map(Size::Weight);
    let gates_of = |size: Size| if size == Size::ALL { StepGates::default() } else { gates.clone() };
    Some(sizes.map(|size| Step { size, gates: gates_of(size) }).collect())
}

/// Reads the metrics of every step, and how often one may be bad until it goes back: each is asked once an interval until
/// it is good.
fn checks(reader: &mut Reader<'_>, fields: &Fields<'_>, interval: Duration, metrics: &mut Metrics) -> Vec<String> {
    let threshold = fields.get("threshold").and_then(|node| reader.integer(node, 1..=MOST_FAILURES));
    let names = match fields.get("metrics") {
        Some(node) => metrics.named(reader, node),
        None => {
            threshold.map(|_| "success-rate".to_owned()).into_iter().filter(|name| metrics.add_ready(name)).collect()
        }
    };
    if let (Some(threshold), Some(node)) = (threshold, fields.get("threshold")) {
        if interval.is_zero() {
            reader.problem(node.span, "nobody says how long to wait between two checks").label =
                Some("write `interval: 1m`".to_owned());
        }
        names.iter().for_each(|name| metrics.until_good(name, interval, threshold));
    }
    names
}
