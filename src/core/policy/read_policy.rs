//! Reads a rollout policy.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Batched, Beta, Confirm, Drift, Graceful, IntOrPercent, OnAbort, OnFailure, OnNewRevision, Percent, PodPolicy,
    PruneGuard, Rollback, RollbackStages, RolloutPolicy, Share, Sourced, Strategy, Topology, Update,
    read::{Fields, MOST_PODS, Reader, dns_label, label_value, nearest, qualified_name, read_document},
    read_analysis::Metrics,
    read_blue_green::blue_green,
    read_canary::canary,
};
use crate::core::{
    names::Unit,
    problem::Problem,
    yaml::{Node, Span},
};

/// The fields of a policy's `spec`.
pub(super) const SPEC: &[&str] = &[
    "progressDeadlineSeconds",
    "onFailure",
    "onAbort",
    "rollback",
    "onNewRevision",
    "drift",
    "prune",
    "metrics",
    "strategy",
];
/// The fields of `batched`.
pub(super) const BATCHED: &[&str] =
    &["update", "topology", "beta", "batchSize", "confirm", "minReadySeconds", "maxUnavailable", "graceful"];
/// The fields of `topology`.
pub(super) const TOPOLOGY: &[&str] = &["unitType", "units", "unitReplicas", "autoReschedule"];
/// The fields of `graceful`.
pub(super) const GRACEFUL: &[&str] = &["gracePeriodSeconds", "finalizers", "readinessGate"];
const STRATEGY: &[&str] = &["batched", "canary", "blueGreen"];
/// The words for what is done about drift.
pub(super) const DRIFT: &[(&str, Drift)] = &[("correct", Drift::Correct), ("report", Drift::Report)];

const WEEK: u32 = 7 * 24 * 3600;
pub(super) const DAY: u32 = 24 * 3600;
const MOST_UNITS: usize = 100;

/// Reads `policies/<name>.yaml`.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub fn read_policy(file: &str, bytes: &[u8]) -> Result<Sourced<RolloutPolicy>, Vec<Problem>> {
    let base = file.rsplit('/').next().unwrap_or(file);
    let name = base.strip_suffix(".yaml").unwrap_or(base);
    if let Err(message) = dns_label(name) {
        return Err(vec![Problem::in_file(file, format!("the file's name: {message}"))]);
    }
    read_document(file, bytes, |reader, document| {
        let spec = reader.envelope(document, "RolloutPolicy", name, "file")?;
        let fields = reader.fields(spec, SPEC)?;
        let deadline = fields.get("progressDeadlineSeconds");
        let mut metrics = Metrics::read(reader, fields.get("metrics"));
        let strategy = strategy(reader, &fields, &mut metrics)?;
        metrics.check_router(reader, strategy.router());
        let policy = RolloutPolicy {
            name: name.to_owned(),
            progress_deadline: seconds(reader, deadline, 1..=WEEK, 600),
            on_failure: choice(reader, &fields, "onFailure", ON_FAILURE, OnFailure::Abort),
            on_abort: choice(reader, &fields, "onAbort", ON_ABORT, OnAbort::Revert),
            rollback: rollback(reader, fields.get("rollback")),
            on_new_revision: choice(reader, &fields, "onNewRevision", ON_NEW_REVISION, OnNewRevision::Supersede),
            drift: choice(reader, &fields, "drift", DRIFT, Drift::Correct),
            prune: prune(reader, fields.get("prune")),
            metrics: metrics.into_all(),
            strategy,
        };
        if policy.strategy.pods().min_ready >= policy.progress_deadline {
            let span = deadline.map_or(fields.span, |node| node.span);
            reader.problem(span, "`progressDeadlineSeconds` must be more than `minReadySeconds`");
        }
        Some(policy)
    })
}

const ON_FAILURE: &[(&str, OnFailure)] = &[("abort", OnFailure::Abort), ("stop", OnFailure::Stop)];
const ON_ABORT: &[(&str, OnAbort)] = &[("revert", OnAbort::Revert), ("hold", OnAbort::Hold)];
const ON_NEW_REVISION: &[(&str, OnNewRevision)] =
    &[("supersede", OnNewRevision::Supersede), ("queue", OnNewRevision::Queue)];
const STAGES: &[(&str, RollbackStages)] = &[("skip", RollbackStages::Skip), ("run", RollbackStages::Run)];
const UPDATE: &[(&str, Update)] = &[
    ("InPlaceIfPossible", Update::InPlaceIfPossible),
    ("InPlaceOnly", Update::InPlaceOnly),
    ("Recreate", Update::Recreate),
];
const CONFIRM: &[(&str, Confirm)] =
    &[("everyBatch", Confirm::EveryBatch), ("beta", Confirm::Beta), ("none", Confirm::None)];

fn choice<T: Copy>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    name: &str,
    choices: &[(&'static str, T)],
    default: T,
) -> T {
    fields.get(name).and_then(|node| reader.choice(node, choices)).unwrap_or(default)
}

pub(super) fn seconds(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    range: std::ops::RangeInclusive<u32>,
    default: u64,
) -> Duration {
    node.and_then(|node| reader.seconds(node, range)).unwrap_or(Duration::from_secs(default))
}

fn rollback(reader: &mut Reader<'_>, node: Option<&Node>) -> Rollback {
    let mut rollback = Rollback { stages: RollbackStages::Skip, window: 3 };
    if let Some(fields) = node.and_then(|node| reader.fields(node, &["stages", "window"])) {
        rollback.stages = choice(reader, &fields, "stages", STAGES, rollback.stages);
        let window = fields.get("window").and_then(|node| reader.integer(node, 0..=100));
        rollback.window = window.unwrap_or(rollback.window);
    }
    rollback
}

fn prune(reader: &mut Reader<'_>, node: Option<&Node>) -> PruneGuard {
    let fields = node.and_then(|node| reader.fields(node, &["confirmAbove"]));
    let above = fields.and_then(|fields| fields.get("confirmAbove").and_then(|node| reader.percent(node, 0)));
    PruneGuard { confirm_above: above.unwrap_or(Percent::HALF) }
}

fn strategy(reader: &mut Reader<'_>, fields: &Fields<'_>, metrics: &mut Metrics) -> Option<Strategy> {
    let node = reader.required(fields, "strategy")?;
    let fields = reader.fields(node, STRATEGY)?;
    let mut named = STRATEGY.iter().filter_map(|name| fields.entry(name));
    let Some(entry) = named.next() else {
        reader.problem(fields.span, "a strategy is missing").label = Some("write `batched: {}`".to_owned());
        return None;
    };
    if let Some(other) = named.next() {
        reader.problem(other.value.span, "there are two strategies: an application is released in one way");
        return None;
    }
    match entry.key.as_str() {
        "batched" => batched(reader, &entry.value).map(Strategy::Batched),
        "canary" => canary(reader, &entry.value, metrics).map(Strategy::Canary),
        _ => blue_green(reader, &entry.value, metrics).map(Strategy::BlueGreen),
    }
}

fn batched(reader: &mut Reader<'_>, node: &Node) -> Option<Batched> {
    let fields = reader.fields(node, BATCHED)?;
    let quarter = IntOrPercent::Percent(Percent::QUARTER);
    let max_unavailable = fields.get("maxUnavailable").and_then(|node| reader.int_or_percent(node, 1));
    Some(Batched {
        pods: PodPolicy {
            update: choice(reader, &fields, "update", UPDATE, Update::InPlaceIfPossible),
            topology: fields.get("topology").and_then(|node| topology(reader, node)),
            min_ready: seconds(reader, fields.get("minReadySeconds"), 0..=DAY, 0),
            max_unavailable: max_unavailable.unwrap_or(quarter),
            max_surge: IntOrPercent::Count(0),
            graceful: graceful(reader, fields.get("graceful")),
        },
        beta: beta(reader, fields.get("beta")),
        batch_size: fields.get("batchSize").and_then(|node| reader.int_or_percent(node, 1)).unwrap_or(quarter),
        confirm: choice(reader, &fields, "confirm", CONFIRM, Confirm::EveryBatch),
    })
}

fn beta(reader: &mut Reader<'_>, node: Option<&Node>) -> Beta {
    let fields = node.and_then(|node| reader.fields(node, &["perUnit"]));
    let per_unit = fields.and_then(|fields| fields.get("perUnit").and_then(|node| reader.integer(node, 0..=MOST_PODS)));
    Beta { per_unit: per_unit.unwrap_or(1) }
}

pub(super) fn graceful(reader: &mut Reader<'_>, node: Option<&Node>) -> Graceful {
    let mut graceful = Graceful { grace_period: Duration::from_secs(3), finalizers: Vec::new(), readiness_gate: false };
    let Some(fields) = node.and_then(|node| reader.fields(node, GRACEFUL)) else { return graceful };
    graceful.grace_period = seconds(reader, fields.get("gracePeriodSeconds"), 0..=DAY, 3);
    graceful.readiness_gate =
        fields.get("readinessGate").and_then(|node| reader.boolean(node)).unwrap_or(graceful.readiness_gate);
    for item in fields.get("finalizers").and_then(|node| reader.list(node)).unwrap_or_default() {
        let Some(name) = reader.checked(item, finalizer) else { continue };
        if graceful.finalizers.iter().any(|known| known == name) {
            reader.problem(item.span, format!("`{name}` is here twice"));
        }
        graceful.finalizers.push(name.to_owned());
    }
    graceful
}

/// Kubernetes takes only finalizers with a domain.
fn finalizer(text: &str) -> Result<(), String> {
    qualified_name(text)?;
    if text.contains('/') {
        Ok(())
    } else {
        Err(format!("`{text}` has no domain: write it like `slb.example.com/{text}`"))
    }
}

fn topology(reader: &mut Reader<'_>, node: &Node) -> Option<Topology> {
    let fields = reader.fields(node, TOPOLOGY)?;
    let unit_type = match fields.get("unitType") {
        Some(node) => reader.checked(node, qualified_name)?,
        None => "topology.kubernetes.io/zone",
    };
    let node = reader.required(&fields, "units")?;
    let units = units(reader, node);
    let unit_replicas = match fields.get("unitReplicas") {
        Some(node) => unit_replicas(reader, node, Some(&units)),
        None => BTreeMap::new(),
    };
    Some(Topology {
        unit_type: unit_type.to_owned(),
        units,
        unit_replicas,
        auto_reschedule: fields.get("autoReschedule").and_then(|node| auto_reschedule(reader, node)),
    })
}

fn units(reader: &mut Reader<'_>, node: &Node) -> Vec<Unit> {
    let items = reader.list(node).unwrap_or_default();
    if items.is_empty() || items.len() > MOST_UNITS {
        reader.problem(node.span, format!("there must be 1 to {MOST_UNITS} units, and there are {}", items.len()));
    }
    let mut units: Vec<Unit> = Vec::new();
    for item in items {
        let Some(text) = reader.checked(item, label_value) else { continue };
        if units.iter().any(|unit| unit.as_str() == text) {
            reader.problem(item.span, format!("unit `{text}` is here twice"));
        } else {
            units.push(Unit::new(text));
        }
    }
    units
}

/// Takes the shares of units; where `units` is known, every key must be one of them.
pub(super) fn unit_replicas(reader: &mut Reader<'_>, node: &Node, units: Option<&[Unit]>) -> BTreeMap<Unit, Share> {
    let mut shares = BTreeMap::new();
    for entry in reader.map(node).unwrap_or_default() {
        if let Some(units) = units
            && let Some((message, label)) = unknown_unit(&entry.key, units)
        {
            reader.problem(entry.key_span, message).label = Some(label);
            continue;
        }
        if let Some(share) = reader.int_or_percent(&entry.value, 0) {
            shares.insert(Unit::new(entry.key.clone()), share);
        }
    }
    if let Some(message) = shares_that_do_not_fit(&shares, units) {
        let span = Span { length: 1, ..node.span };
        reader.problem(span, message);
    }
    shares
}

/// Says what is wrong with a name that is none of `units`, and what was meant.
pub(super) fn unknown_unit(name: &str, units: &[Unit]) -> Option<(String, String)> {
    if units.iter().any(|unit| unit.as_str() == name) {
        return None;
    }
    let names = units.iter().map(Unit::as_str);
    let label = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the units are {}", names.collect::<Vec<_>>().join(", ")),
    };
    Some((format!("there is no unit `{name}`"), label))
}

/// Says why shares can never add up to a total: percentages over 100, or under it where no unit takes the rest. Whether
/// counts fit shows only with the replicas.
pub(super) fn shares_that_do_not_fit(shares: &BTreeMap<Unit, Share>, units: Option<&[Unit]>) -> Option<String> {
    let percentages = shares.values().filter_map(|share| match share {
        Share::Percent(percent) => Some(u32::from(percent.get())),
        Share::Count(_) => None,
    });
    let (number, sum) = percentages.fold((0, 0), |(number, sum), percent| (number + 1, sum + percent));
    if sum > 100 {
        return Some(format!("the percentages add up to {sum}%, more than 100%"));
    }
    let every_unit = units.is_some_and(|units| units.len() == number);
    (every_unit && sum < 100).then(|| format!("the percentages of all units add up to {sum}%, not 100%"))
}

fn auto_reschedule(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let fields = reader.fields(node, &["enable", "initialDelaySeconds"])?;
    let enable = fields.get("enable").and_then(|node| reader.boolean(node)).unwrap_or(true);
    let delay = seconds(reader, fields.get("initialDelaySeconds"), 1..=DAY, 10);
    enable.then_some(delay)
}
