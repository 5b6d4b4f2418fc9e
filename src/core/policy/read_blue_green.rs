//! Reads the blue-green strategy.

use super::{
    BlueGreen, IntOrPercent, Percent, PodPolicy, StepGates, Update,
    health_check::health_check,
    read::{Fields, Reader, dns_label},
    read_analysis::{Metrics, whole},
    read_policy::{DAY, graceful, seconds},
    read_traffic::traffic,
};
use crate::core::yaml::Node;

/// The fields of `blueGreen`.
pub(super) const BLUE_GREEN: &[&str] = &[
    "traffic",
    "previewService",
    "previewReplicas",
    "healthCheck",
    "confirm",
    "confirmStart",
    "analysis",
    "watch",
    "scaleDownDelaySeconds",
    "minReadySeconds",
    "maxUnavailable",
    "graceful",
];
/// The fields of `watch`.
pub(super) const WATCH: &[&str] = &["duration", "metrics"];
/// How long the old side stays where the policy does not say.
const DELAY: u64 = 30;

pub(super) fn blue_green(reader: &mut Reader<'_>, node: &Node, metrics: &mut Metrics) -> Option<BlueGreen> {
    let fields = reader.fields(node, BLUE_GREEN)?;
    let confirm =
        fields.get("confirm").and_then(|node| reader.choice(node, &[("beforeSwitch", true), ("none", false)]));
    let start = fields.get("confirmStart").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let preview_service = fields.get("previewService").and_then(|node| reader.checked(node, dns_label));
    let before = StepGates {
        confirm: confirm.unwrap_or(true),
        analysis: fields.get("analysis").map(|node| metrics.step(reader, node)).unwrap_or_default(),
        ..StepGates::default()
    };
    Some(BlueGreen {
        pods: pods(reader, &fields),
        start: StepGates { confirm: start, ..StepGates::default() },
        preview_service: preview_service.map(str::to_owned),
        preview_replicas: fields.get("previewReplicas").and_then(|node| reader.int_or_percent(node, 1)),
        health_check: fields.get("healthCheck").and_then(|node| health_check(reader, node)).map(Box::new),
        before,
        watch: fields.get("watch").and_then(|node| watch(reader, node, metrics)).unwrap_or_default(),
        scale_down_delay: seconds(reader, fields.get("scaleDownDelaySeconds"), 0..=DAY, DELAY),
        traffic: fields.get("traffic").and_then(|node| traffic(reader, node)),
    })
}

fn pods(reader: &mut Reader<'_>, fields: &Fields<'_>) -> PodPolicy {
    let max_unavailable = fields.get("maxUnavailable").and_then(|node| reader.int_or_percent(node, 0));
    PodPolicy {
        update: Update::Recreate,
        topology: None,
        min_ready: seconds(reader, fields.get("minReadySeconds"), 0..=DAY, 0),
        max_unavailable: max_unavailable.unwrap_or(IntOrPercent::Count(0)),
        max_surge: IntOrPercent::Percent(Percent::ALL),
        graceful: graceful(reader, fields.get("graceful")),
    }
}

/// Reads for how long the switch is watched, and by which metrics.
fn watch(reader: &mut Reader<'_>, node: &Node, metrics: &mut Metrics) -> Option<StepGates> {
    let fields = reader.fields(node, WATCH)?;
    let analysis = fields.get("metrics").map(|node| metrics.named(reader, node)).unwrap_or_default();
    let node = reader.required(&fields, "duration")?;
    let pause = whole(reader, node)?;
    Some(StepGates { pause, analysis, ..StepGates::default() })
}
