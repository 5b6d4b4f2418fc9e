//! Horizontal autoscalers: as many pods as the load asks for.
//!
//! There is no metrics server. What the pods of its target use together, of CPU, an autoscaler's annotation says: whoever
//! writes it is the load. It is shared evenly by the pods that are ready.
//!
//! Source of the rules: `pkg/controller/podautoscaler/horizontal.go`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Change, Controller, Outcome, View, placement, pods};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// The annotation of an autoscaler: how much CPU its target's pods use together, `1500m`.
pub const LOAD: &str = "locktender.dev/sandbox-load";

/// How often an autoscaler looks.
const SYNC: SignedDuration = SignedDuration::from_secs(15);

/// Keeps HorizontalPodAutoscalers.
#[derive(Debug)]
pub struct AutoscalerController {
    resource: Arc<str>,
}

impl Default for AutoscalerController {
    fn default() -> Self {
        Self { resource: "horizontalpodautoscalers.autoscaling".into() }
    }
}

impl Controller for AutoscalerController {
    fn concerns(&mut self, change: &Change<'_>, _: &Cache) -> Vec<Key> {
        if change.is(&self.resource) { change.key().into_iter().collect() } else { Vec::new() }
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(scaler) = view.cache.at(key).filter(|scaler| !value::is_terminating(scaler)) else {
            return Outcome::default();
        };
        let mut outcome = Outcome::default();
        outcome.wake_at(view.now + SYNC);
        let Some(target) = target_of(scaler, view.cache) else { return outcome };
        let current = value::number_or(target, &["spec", "replicas"], 1);
        let wanted = if current == 0 { 0 } else { wanted(scaler, target, current, view.now) };
        let mut status = json!({
            "currentReplicas": current,
            "desiredReplicas": wanted,
            "observedGeneration": value::number(scaler, &["metadata", "generation"]),
        });
        let scaled_at = value::at(scaler, &["status", "lastScaleTime"]).cloned();
        let scaled_at = if wanted == current { scaled_at } else { Some(value::stamp(view.now)) };
        if let Some(time) = scaled_at {
            status["lastScaleTime"] = time;
        }
        let mut conditions = value::items(scaler, &["status", "conditions"]).to_vec();
        let active = current > 0 && load_per_pod(scaler, target).is_some();
        let (known, reason) = if active { ("True", "ValidMetricFound") } else { ("False", "FailedGetResourceMetric") };
        pods::set_condition(
            &mut conditions,
            json!({ "type": "ScalingActive", "status": known, "reason": reason }),
            view.now,
        );
        status["conditions"] = conditions.into();
        if wanted != current {
            let mut scaled = target.clone();
            value::set(&mut scaled, &["spec", "replicas"], wanted);
            outcome.writes.push(Write::Update(scaled));
        }
        outcome.writes.extend(Write::status(scaler, status));
        outcome
    }
}

fn target_of<'a>(scaler: &Value, cache: &'a Cache) -> Option<&'a Value> {
    let reference = value::at(scaler, &["spec", "scaleTargetRef"])?;
    let resource = match value::text(reference, &["kind"]) {
        "Deployment" => "deployments.apps",
        "StatefulSet" => "statefulsets.apps",
        "ReplicaSet" => "replicasets.apps",
        _ => return None,
    };
    cache.get(resource, value::namespace(scaler), value::text(reference, &["name"])).map(Arc::as_ref)
}

/// Returns the load, and how much of it one pod is to have, in millicores.
fn load_per_pod(scaler: &Value, target: &Value) -> Option<(i128, i128)> {
    let load = placement::milli(&Value::from(value::annotation(scaler, LOAD)?));
    let metric =
        value::items(scaler, &["spec", "metrics"]).iter().find(|metric| metric["resource"]["name"] == "cpu")?;
    let wanted = &metric["resource"]["target"];
    if let Some(average) = value::at(wanted, &["averageValue"]) {
        return Some((load, placement::milli(average)));
    }
    let containers = value::items(target, &["spec", "template", "spec", "containers"]);
    let asked =
        containers.iter().map(|one| value::at(one, &["resources", "requests", "cpu"]).map_or(0, placement::milli));
    let percent = i128::from(value::number(wanted, &["averageUtilization"]));
    let each = asked.sum::<i128>() * percent / 100;
    (each > 0).then_some((load, each))
}

/// Returns how many pods there are to be: within a tenth of what is wanted nothing changes, and fewer only some time after
/// the last change.
fn wanted(scaler: &Value, target: &Value, current: i64, now: Timestamp) -> i64 {
    let least = value::number_or(scaler, &["spec", "minReplicas"], 1);
    let most = value::number_or(scaler, &["spec", "maxReplicas"], least);
    let by_load = load_per_pod(scaler, target).map_or(current, |(load, each)| {
        let there = i128::from(current) * each;
        if (load - there).abs() * 10 <= there {
            current
        } else {
            i64::try_from((load + each - 1) / each).unwrap_or(most)
        }
    });
    let wanted = by_load.clamp(least, most.max(least));
    let window = ["spec", "behavior", "scaleDown", "stabilizationWindowSeconds"];
    let window = SignedDuration::from_secs(value::number_or(scaler, &window, 300));
    let waits = value::time(scaler, &["status", "lastScaleTime"]).is_some_and(|since| since + window > now);
    if wanted < current && current <= most && waits { current } else { wanted }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scaler(load: &str, since: &str) -> Value {
        json!({
            "metadata": {"annotations": {LOAD: load}},
            "spec": {"minReplicas": 2, "maxReplicas": 8, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
            "status": {"lastScaleTime": since},
        })
    }

    #[test]
    fn as_many_as_the_load_asks_for_within_bounds() {
        let target = json!({"spec": {"template": {"spec": {"containers": [
            {"resources": {"requests": {"cpu": "200m"}}},
        ]}}}});
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        let long_ago = "2026-03-02T11:00:00Z";
        let count = |load: &str, current, since: &str| wanted(&scaler(load, since), &target, current, now);
        assert_eq!(count("450m", 2, long_ago), 5);
        assert_eq!(count("5", 2, long_ago), 8);
        assert_eq!(count("10m", 5, long_ago), 2);
        assert_eq!(count("530m", 5, long_ago), 5, "within a tenth nothing changes");
        assert_eq!(count("10m", 5, "2026-03-02T11:58:00Z"), 5, "fewer only five minutes after the last change");
        assert_eq!(count("450m", 2, "2026-03-02T11:58:00Z"), 5);
    }
}
