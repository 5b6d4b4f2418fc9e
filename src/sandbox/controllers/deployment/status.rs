//! What a Deployment's status says.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Outcome, max_unavailable,
    replica_sets::{Family, Member},
    replicas,
};
use crate::sandbox::{controllers::pods::condition, value, write::Write};

const NO_DEADLINE: i64 = 2_147_483_647;

fn deadline(deployment: &Value) -> Option<Duration> {
    let seconds = value::at(deployment, &["spec", "progressDeadlineSeconds"]).and_then(Value::as_i64)?;
    let seconds = u64::try_from(seconds).ok()?;
    (seconds != NO_DEADLINE.unsigned_abs()).then(|| Duration::from_secs(seconds))
}

fn conditions(deployment: &Value) -> Vec<Value> {
    value::items(deployment, &["status", "conditions"]).to_vec()
}

/// Sets a condition; one with the same status and reason stays as it is.
fn set(conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let found = conditions.iter().position(|it| it["type"] == kind);
    let mut since = value::stamp(now);
    if let Some(at) = found {
        if conditions[at]["status"] == status && conditions[at]["reason"] == reason {
            return;
        }
        let old = conditions.remove(at);
        if old["status"] == status {
            since = old["lastTransitionTime"].clone();
        }
    }
    conditions.push(json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": value::stamp(now), "lastTransitionTime": since,
    }));
}

fn with_conditions(deployment: &Value, conditions: Vec<Value>) -> Write {
    let mut deployment = deployment.clone();
    value::set(&mut deployment, &["status", "conditions"], conditions);
    Write::Status(deployment)
}

/// Says that a Deployment was paused or resumed, so that no lack of progress is reported for the time between.
pub(super) fn paused_condition(deployment: &Value, now: Timestamp) -> Option<Write> {
    deadline(deployment)?;
    let reason = condition(deployment, "Progressing").map(|it| value::text(it, &["reason"])).unwrap_or_default();
    let paused = value::flag(deployment, &["spec", "paused"]);
    let (reason, message) = match (paused, reason) {
        (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => return None,
        (true, _) => ("DeploymentPaused", "Deployment is paused"),
        (false, "DeploymentPaused") => ("DeploymentResumed", "Deployment is resumed"),
        (false, _) => return None,
    };
    let mut conditions = conditions(deployment);
    set(&mut conditions, "Progressing", "Unknown", reason, message, now);
    Some(with_conditions(deployment, conditions))
}

/// Says that a ReplicaSet with the template was found, where nothing was said about progress yet.
pub(super) fn found_condition(deployment: &Value, name: &str, now: Timestamp) -> Option<Write> {
    deadline(deployment)?;
    if condition(deployment, "Progressing").is_some() {
        return None;
    }
    let mut conditions = conditions(deployment);
    let message = format!("Found new replica set \"{name}\"");
    set(&mut conditions, "Progressing", "True", "FoundNewReplicaSet", &message, now);
    Some(with_conditions(deployment, conditions))
}

/// Says that a ReplicaSet for the template was created: the deadline counts from here.
pub(super) fn created_condition(deployment: &Value, name: &str, now: Timestamp) -> Option<Write> {
    deadline(deployment)?;
    let mut conditions = conditions(deployment);
    let message = format!("Created new replica set \"{name}\"");
    set(&mut conditions, "Progressing", "True", "NewReplicaSetCreated", &message, now);
    Some(with_conditions(deployment, conditions))
}

/// Counts a collision: the new ReplicaSet's name is taken by another one.
pub(super) fn collision(deployment: &Value) -> Write {
    let mut deployment = deployment.clone();
    let count = value::number(&deployment, &["status", "collisionCount"]) + 1;
    value::set(&mut deployment, &["status", "collisionCount"], count);
    Write::Status(deployment)
}

fn counted(deployment: &Value, family: &Family, now: Timestamp) -> Value {
    let sum = |count: &str| family.all().map(|set| set.status(count)).sum::<i64>();
    let available = sum("availableReplicas");
    let asked: i64 = family.all().map(|set| set.replicas).sum();
    let counts = [
        ("observedGeneration", value::number(deployment, &["metadata", "generation"])),
        ("replicas", sum("replicas")),
        ("updatedReplicas", family.new.as_ref().map_or(0, |new| new.status("replicas"))),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (asked - available).max(0)),
        ("collisionCount", value::number(deployment, &["status", "collisionCount"])),
    ];
    let mut status = Map::new();
    status.extend(counts.into_iter().filter(|(_, count)| *count != 0).map(|(name, count)| (name.into(), count.into())));
    let mut conditions = conditions(deployment);
    if available >= replicas(deployment) - max_unavailable(deployment) {
        let message = "Deployment has minimum availability.";
        set(&mut conditions, "Available", "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        set(&mut conditions, "Available", "False", "MinimumReplicasUnavailable", message, now);
    }
    status.insert("conditions".into(), conditions.into());
    Value::Object(status)
}

/// The status while scaling or paused: nothing is said about progress.
pub(super) fn of_scaling(deployment: &Value, family: &Family, now: Timestamp) -> Outcome {
    Write::status(deployment, counted(deployment, family, now)).into_iter().collect()
}

/// The status while a template is rolled out: progress, completion, or neither within the deadline.
pub(super) fn of_rollout(deployment: &Value, family: &Family, now: Timestamp) -> Outcome {
    let mut status = counted(deployment, family, now);
    let mut outcome = Outcome::default();
    let Some(deadline) = deadline(deployment) else {
        if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
            conditions.retain(|it| it["type"] != "Progressing");
        }
        outcome.writes.extend(Write::status(deployment, status));
        return outcome;
    };
    let current = condition(deployment, "Progressing");
    let reason = current.map(|it| value::text(it, &["reason"])).unwrap_or_default();
    let count = |name| value::number(&status, &[name]);
    if !(count("replicas") == count("updatedReplicas") && reason == "NewReplicaSetAvailable") {
        let subject = match &family.new {
            Some(new) => format!("ReplicaSet \"{}\"", Member::name(new)),
            None => format!("Deployment \"{}\"", value::name(deployment)),
        };
        let due = current.and_then(|it| value::time(it, &["lastUpdateTime"])).map(|since| since + deadline);
        let done = is_complete(deployment, &status);
        let moved = has_moved(&deployment["status"], &status);
        let Some(Value::Array(conditions)) = status.get_mut("conditions") else { return outcome };
        if done {
            let message = format!("{subject} has successfully progressed.");
            set(conditions, "Progressing", "True", "NewReplicaSetAvailable", &message, now);
        } else if moved {
            // Progress is noted again even where status and reason stay the same.
            if let Some(found) = conditions.iter_mut().find(|it| it["type"] == "Progressing") {
                found["reason"] = Value::Null;
            }
            set(conditions, "Progressing", "True", "ReplicaSetUpdated", &format!("{subject} is progressing."), now);
            outcome.wake_at(now + deadline);
        } else if reason != "NewReplicaSetAvailable" && reason != "ProgressDeadlineExceeded" {
            match due {
                Some(due) if due < now => {
                    let message = format!("{subject} has timed out progressing.");
                    set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", &message, now);
                }
                Some(due) => outcome.wake_at(due + Duration::from_secs(1)),
                None => {}
            }
        }
    }
    outcome.writes.extend(Write::status(deployment, status));
    outcome
}

/// Returns whether `status` says that every wanted pod is of the template, available, and the only one.
pub(super) fn is_complete(deployment: &Value, status: &Value) -> bool {
    let wanted = replicas(deployment);
    let count = |name| value::number(status, &[name]);
    ["updatedReplicas", "replicas", "availableReplicas"].into_iter().all(|name| count(name) == wanted)
        && count("observedGeneration") >= value::number(deployment, &["metadata", "generation"])
}

fn has_moved(before: &Value, after: &Value) -> bool {
    let old = |name| value::number(before, &[name]);
    let new = |name| value::number(after, &[name]);
    new("updatedReplicas") > old("updatedReplicas")
        || new("replicas") - new("updatedReplicas") < old("replicas") - old("updatedReplicas")
        || new("readyReplicas") > old("readyReplicas")
        || new("availableReplicas") > old("availableReplicas")
}
