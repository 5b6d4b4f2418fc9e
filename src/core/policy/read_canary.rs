//! Reads the canary strategy. Everything short is written out here: downstream there are only steps.

use std::time::Duration;

use super::{
    Canary, IntOrPercent, Percent, PodPolicy, Size, Step, StepGates, Update,
    read::{Fields, Reader},
    read_analysis::{Metrics, whole},
    read_policy::{DAY, graceful, seconds},
    read_traffic,
};
use crate::core::{
    traffic::{Router, Split},
    yaml::{Data, Node, Span},
};

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
    "dynamicStableScale",
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
/// How long the old side stays beside a router where the policy does not say.
const DELAY: u64 = 30;
/// A check that fails more often than this before anything goes back is none.
const MOST_FAILURES: u32 = 100;
const MOST_STEPS: usize = 100;
/// What `setCanaryReplicas` says for as many pods as the weight needs.
const AS_WEIGHT: &str = "asWeight";

pub(super) fn canary(reader: &mut Reader<'_>, node: &Node, metrics: &mut Metrics) -> Option<Canary> {
    let fields = reader.fields(node, CANARY)?;
    let traffic = fields.get("traffic").map(|node| read_traffic::traffic(reader, node));
    let only_with = [("scaleDownDelaySeconds", false), ("dynamicStableScale", false), ("maxSurge", true)];
    for (name, without) in only_with.into_iter().filter(|(_, without)| *without == traffic.is_some()) {
        if let Some(entry) = fields.entry(name) {
            let why = match without {
                true => "with `traffic` the old pods stay beside the new ones: `maxSurge` says nothing".to_owned(),
                false => format!("without `traffic` old pods go as new ones come: `{name}` says nothing"),
            };
            reader.problem(entry.key_span, why);
        }
    }
    let traffic = match traffic {
        // What is wrong with it was said.
        Some(None) => return None,
        traffic => traffic.flatten(),
    };
    let pods = pods(reader, &fields, traffic.is_some());
    let delay = fields.get("scaleDownDelaySeconds");
    let scale_down_delay = seconds(reader, delay, 0..=DAY, if traffic.is_some() { DELAY } else { 0 });
    let dynamic_stable_scale = fields.get("dynamicStableScale").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let (mut start, mut steps) = match fields.get("steps") {
        Some(node) => {
            for name in ["stepWeight", "maxWeight", "interval", "metrics", "threshold"] {
                if let Some(entry) = fields.entry(name) {
                    reader.problem(entry.key_span, format!("`{name}` and `steps` say the same: write one of them"));
                }
            }
            listed(reader, node, traffic.as_ref(), metrics, dynamic_stable_scale)?
        }
        None => (StepGates::default(), even(reader, &fields, traffic.is_some(), metrics)?),
    };
    let mut flag = |name: &str| fields.get(name).and_then(|node| reader.boolean(node)).unwrap_or(false);
    start.confirm |= flag("confirmStart");
    let each = flag("confirmEachIncrease");
    let promotion = flag("confirmPromotion") || each;
    if steps.last().is_none_or(|step| !step.is_everything()) {
        let split = traffic.is_some().then(|| Split::of(Percent::ALL));
        steps.push(Step { size: Size::ALL, split, gates: StepGates::default() });
    }
    let before_last = steps.len().saturating_sub(2);
    let last = steps.len() - 1;
    for (index, step) in steps.iter_mut().enumerate() {
        step.gates.confirm |= index < last && each || index == before_last && index != last && promotion;
    }
    if last == 0 {
        start.confirm |= promotion;
    }
    Some(Canary { pods, start, steps, traffic, scale_down_delay, dynamic_stable_scale })
}

fn pods(reader: &mut Reader<'_>, fields: &Fields<'_>, beside: bool) -> PodPolicy {
    let mut number = |name: &str| fields.get(name).and_then(|node| reader.int_or_percent(node, 0));
    let max_surge = match beside {
        true => IntOrPercent::Percent(Percent::ALL),
        false => number("maxSurge").unwrap_or(IntOrPercent::Percent(Percent::QUARTER)),
    };
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
fn listed(
    reader: &mut Reader<'_>,
    node: &Node,
    router: Option<&Router>,
    metrics: &mut Metrics,
    scales_stable: bool,
) -> Option<(StepGates, Vec<Step>)> {
    let items = reader.list(node)?;
    if items.is_empty() || items.len() > MOST_STEPS {
        reader.problem(node.span, format!("there must be 1 to {MOST_STEPS} steps, and there are {}", items.len()));
    }
    let mut start = StepGates::default();
    let mut steps: Vec<Step> = Vec::new();
    let mut shares = Shares { router, replicas: None, split: Split::default(), scales_stable };
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
            name => shares.step(reader, name, &entry.value, &mut steps),
        }
    }
    Some((start, steps))
}

/// What the steps so far say of the new version's share.
struct Shares<'a> {
    router: Option<&'a Router>,
    /// With a router: how many pods there are whatever the weight; `None` is as the weight.
    replicas: Option<IntOrPercent>,
    split: Split,
    /// Whether stable has only as many pods as its share of the requests needs.
    scales_stable: bool,
}

impl Shares<'_> {
    fn step(&mut self, reader: &mut Reader<'_>, name: &str, node: &Node, steps: &mut Vec<Step>) {
        match (name, self.router) {
            ("setWeight", _) => {
                let Some(weight) = weight(reader, node) else { return };
                if self.router.is_some() && weight <= self.split.weight {
                    return shrinks(reader, node.span);
                }
                self.split.weight = weight;
            }
            ("setCanaryReplicas", Some(_)) if node.text() == Some(AS_WEIGHT) => self.replicas = None,
            ("setCanaryReplicas", _) => {
                let Some(replicas) = reader.int_or_percent(node, 1) else { return };
                self.replicas = Some(replicas);
            }
            (name, None) => {
                let problem = reader.problem(node.span, format!("`{name}` needs a router"));
                problem.label = Some("write `traffic`".to_owned());
                return;
            }
            (_, Some(_)) if steps.is_empty() => {
                let problem = reader.problem(node.span, "nothing of the new version is there for such requests yet");
                problem.label = Some("write it after a `setCanaryReplicas` or a `setWeight`".to_owned());
                return;
            }
            (name, Some(router)) => read_traffic::step(reader, router, name, node, &mut self.split),
        }
        if self.scales_stable && self.replicas.is_some() && !matches!(self.split.weight.get(), 0 | 100) {
            let why = "with `dynamicStableScale` both sides have as many pods as their share needs";
            reader.problem(node.span, why).label = Some("write `setCanaryReplicas: asWeight` before".to_owned());
            // Once is enough.
            self.replicas = None;
        }
        let size = match (self.router, self.replicas) {
            (Some(_), _) if self.split.weight == Percent::ALL => Size::ALL,
            (Some(_), None) if self.split.weight.get() == 0 => {
                let problem = reader.problem(node.span, "the weight is nothing yet, and so are the pods");
                problem.label = Some("write it after a `setWeight`".to_owned());
                return;
            }
            (Some(_), None) => Size::Capacity(self.split.weight),
            (Some(_), Some(replicas)) => Size::Replicas(replicas),
            (None, _) if name == "setWeight" => Size::Weight(self.split.weight),
            (None, replicas) => replicas.map_or(Size::ALL, Size::Replicas),
        };
        push(reader, node.span, steps, size, self.router.map(|_| self.split.clone()));
    }
}

/// Takes a weight, `20` or `20%`.
fn weight(reader: &mut Reader<'_>, node: &Node) -> Option<Percent> {
    match node.data {
        Data::Text(_) => reader.percent(node, 1),
        _ => reader.integer(node, 1..=100).and_then(|number| Percent::new(u8::try_from(number).ok()?)),
    }
}

/// Adds a step. Shares of one kind must grow: pods that came never go again but by going back.
fn push(reader: &mut Reader<'_>, span: Span, steps: &mut Vec<Step>, size: Size, split: Option<Split>) {
    let is_less = steps.last().is_some_and(|before| match (before.size, size) {
        _ if before.is_everything() => true,
        (Size::Weight(before), Size::Weight(now)) => now <= before,
        // With a router other things than the number of pods make a step.
        (Size::Replicas(before), Size::Replicas(now)) if before == now => split.is_none(),
        (Size::Replicas(IntOrPercent::Count(before)), Size::Replicas(IntOrPercent::Count(now))) => now < before,
        (Size::Replicas(IntOrPercent::Percent(before)), Size::Replicas(IntOrPercent::Percent(now))) => now < before,
        _ => false,
    });
    if is_less {
        shrinks(reader, span);
    }
    steps.push(Step { size, split, gates: StepGates::default() });
}

fn shrinks(reader: &mut Reader<'_>, span: Span) {
    reader.problem(span, "this is not more than the step before").label = Some("steps only grow".to_owned());
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
fn even(reader: &mut Reader<'_>, fields: &Fields<'_>, routed: bool, metrics: &mut Metrics) -> Option<Vec<Step>> {
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
    let weights = weights.chain([most]).filter_map(Percent::new);
    let step = |weight: Percent| Step {
        size: if routed && weight < Percent::ALL { Size::Capacity(weight) } else { Size::Weight(weight) },
        split: routed.then(|| Split::of(weight)),
        gates: if weight == Percent::ALL { StepGates::default() } else { gates.clone() },
    };
    Some(weights.map(step).collect())
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
