//! When an object is healthy: one table of kinds.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Object;

/// Whether an object does what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Yes,
    /// Not yet, and why.
    NotYet(Unhealthy),
    /// It does not say.
    CannotTell(String),
}

/// Why an object is not healthy yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unhealthy {
    /// It is being deleted.
    Terminating,
    /// Its controller has not seen the newest version of it.
    NotObserved,
    /// Fewer pods than wanted are `what`: updated, available, ready, gone.
    Pods {
        /// Which count is short.
        what: &'static str,
        /// How many there should be.
        want: i64,
        /// How many there are.
        have: i64,
    },
    /// A condition says no.
    Condition {
        /// `Available`.
        name: String,
        /// `False` or `Unknown`.
        status: String,
        /// What the condition says.
        message: String,
    },
    /// It is in a phase on the way: `Pending`.
    Phase(String),
    /// It has no address yet.
    NoAddress,
    /// It failed, and will not be healthy by waiting.
    Failed(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminating => f.write_str("is being deleted"),
            Self::NotObserved => f.write_str("its controller has not seen the change yet"),
            Self::Pods { what, want, have } => write!(f, "{have} of {want} pods are {what}"),
            Self::Condition { name, status, message } if message.is_empty() => write!(f, "{name} is {status}"),
            Self::Condition { name, status, message } => write!(f, "{name} is {status}: {message}"),
            Self::Phase(phase) => write!(f, "is {phase}"),
            Self::NoAddress => f.write_str("has no address yet"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Returns whether a live object is healthy.
///
/// | kind | healthy when |
/// |---|---|
/// | Deployment | seen; all replicas updated and available, no old ones left |
/// | ReplicaSet | seen; all replicas available |
/// | StatefulSet | seen; all replicas ready, those above the partition updated |
/// | DaemonSet | seen; updated (unless `OnDelete`) and available on every node |
/// | Pod | ready, or succeeded |
/// | Job | complete, or suspended |
/// | PersistentVolumeClaim | bound |
/// | Service | of type LoadBalancer: has an address; else at once |
/// | Namespace | active |
/// | CustomResourceDefinition | established, its names accepted |
/// | APIService | available |
/// | HorizontalPodAutoscaler | able to scale (whether metrics come is not waited for) |
/// | PodDisruptionBudget | as many pods healthy as it wants, where it has counted |
/// | anything else | seen, where it says; `Ready` or `Available` is true, where it has one; else at once |
pub fn health(object: &Object) -> Health {
    if object.is_terminating() {
        return Health::NotYet(Unhealthy::Terminating);
    }
    let checked = match (object.kind().group.as_str(), object.text(&["kind"])) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "ReplicaSet") => {
            must_be_seen(object).and_then(|()| pods(object, "available", "availableReplicas", replicas(object)))
        }
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("", "Pod") => pod(object),
        ("batch", "Job") => job(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound", "Lost"),
        ("", "Namespace") => phase(object, "Active", ""),
        ("", "Service") => service(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            must_be_true(object, "Established").and_then(|()| must_be_true(object, "NamesAccepted"))
        }
        ("apiregistration.k8s.io", "APIService") => must_be_true(object, "Available"),
        ("autoscaling", "HorizontalPodAutoscaler") => must_not_be_false(object, "AbleToScale"),
        ("policy", "PodDisruptionBudget") => budget(object),
        ("networking.k8s.io", "Ingress") => Ok(()),
        _ => other(object),
    };
    match checked {
        Ok(()) => Health::Yes,
        Err(Why::NotYet(unhealthy)) => Health::NotYet(unhealthy),
        Err(Why::CannotTell(text)) => Health::CannotTell(text),
    }
}

/// Why a check does not end in `Yes`.
enum Why {
    NotYet(Unhealthy),
    CannotTell(String),
}

type Check = Result<(), Why>;

fn not_yet(unhealthy: Unhealthy) -> Check {
    Err(Why::NotYet(unhealthy))
}

fn replicas(object: &Object) -> i64 {
    object.number(&["spec", "replicas"]).unwrap_or(1)
}

fn status(object: &Object, field: &str) -> i64 {
    object.number(&["status", field]).unwrap_or(0)
}

/// Kinds whose controllers always set `observedGeneration`.
fn must_be_seen(object: &Object) -> Check {
    let generation = object.number(&["metadata", "generation"]).unwrap_or(0);
    if object.number(&["status", "observedGeneration"]).is_none_or(|observed| observed < generation) {
        return not_yet(Unhealthy::NotObserved);
    }
    Ok(())
}

/// Kinds that may not have it.
fn seen_where_it_says(object: &Object) -> Check {
    match object.number(&["status", "observedGeneration"]) {
        Some(_) => must_be_seen(object),
        None => Ok(()),
    }
}

fn pods(object: &Object, what: &'static str, field: &str, want: i64) -> Check {
    let have = status(object, field);
    if have < want { not_yet(Unhealthy::Pods { what, want, have }) } else { Ok(()) }
}

fn condition<'o>(object: &'o Object, name: &str) -> Option<&'o Value> {
    let conditions = object.at(&["status", "conditions"])?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)
}

fn says_no(name: &str, condition: &Value) -> Unhealthy {
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let message = if text("message").is_empty() { text("reason") } else { text("message") };
    Unhealthy::Condition { name: name.to_owned(), status: text("status"), message }
}

fn must_be_true(object: &Object, name: &str) -> Check {
    match condition(object, name) {
        Some(condition) if condition["status"] == "True" => Ok(()),
        Some(condition) => not_yet(says_no(name, condition)),
        None => not_yet(Unhealthy::NotObserved),
    }
}

fn must_not_be_false(object: &Object, name: &str) -> Check {
    match condition(object, name) {
        Some(condition) if condition["status"] == "False" => not_yet(says_no(name, condition)),
        _ => Ok(()),
    }
}

fn deployment(object: &Object) -> Check {
    must_be_seen(object)?;
    let want = replicas(object);
    let progressing = condition(object, "Progressing");
    if let Some(progressing) = progressing.filter(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
        return not_yet(says_no("Progressing", progressing));
    }
    pods(object, "updated", "updatedReplicas", want)?;
    let old = status(object, "replicas") - status(object, "updatedReplicas");
    if old > 0 {
        return not_yet(Unhealthy::Pods { what: "gone that were to go", want: old, have: 0 });
    }
    pods(object, "available", "availableReplicas", want)
}

fn stateful_set(object: &Object) -> Check {
    must_be_seen(object)?;
    let want = replicas(object);
    pods(object, "ready", "readyReplicas", want)?;
    if object.text(&["spec", "updateStrategy", "type"]) == "OnDelete" {
        return Ok(());
    }
    let partition = object.number(&["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or(0);
    // With nothing to update the controller counts no pod as updated.
    if object.text(&["status", "currentRevision"]) == object.text(&["status", "updateRevision"]) {
        return Ok(());
    }
    pods(object, "updated", "updatedReplicas", (want - partition).max(0))?;
    if partition > 0 { Ok(()) } else { not_yet(Unhealthy::NotObserved) }
}

fn daemon_set(object: &Object) -> Check {
    must_be_seen(object)?;
    let want = status(object, "desiredNumberScheduled");
    if object.text(&["spec", "updateStrategy", "type"]) != "OnDelete" {
        pods(object, "updated", "updatedNumberScheduled", want)?;
    }
    pods(object, "available", "numberAvailable", want)
}

fn pod(object: &Object) -> Check {
    match object.text(&["status", "phase"]) {
        "Succeeded" => Ok(()),
        "Failed" => not_yet(Unhealthy::Failed(object.text(&["status", "message"]).to_owned())),
        "Running" => must_be_true(object, "Ready"),
        "Unknown" => Err(Why::CannotTell("its node does not answer".to_owned())),
        phase => not_yet(Unhealthy::Phase(if phase.is_empty() { "Pending" } else { phase }.to_owned())),
    }
}

fn job(object: &Object) -> Check {
    if let Some(failed) = condition(object, "Failed").filter(|condition| condition["status"] == "True") {
        return not_yet(Unhealthy::Failed(failed["message"].as_str().unwrap_or_default().to_owned()));
    }
    if object.at(&["spec", "suspend"]) == Some(&Value::Bool(true)) {
        return Ok(());
    }
    match condition(object, "Complete") {
        Some(condition) if condition["status"] == "True" => Ok(()),
        _ => not_yet(Unhealthy::Phase("running".to_owned())),
    }
}

fn phase(object: &Object, healthy: &str, failed: &str) -> Check {
    match object.text(&["status", "phase"]) {
        "" => not_yet(Unhealthy::NotObserved),
        phase if phase == healthy => Ok(()),
        phase if phase == failed => not_yet(Unhealthy::Failed(phase.to_owned())),
        phase => not_yet(Unhealthy::Phase(phase.to_owned())),
    }
}

fn service(object: &Object) -> Check {
    if object.text(&["spec", "type"]) != "LoadBalancer" {
        return Ok(());
    }
    let addresses = object.at(&["status", "loadBalancer", "ingress"]).and_then(Value::as_array);
    if addresses.is_some_and(|addresses| !addresses.is_empty()) { Ok(()) } else { not_yet(Unhealthy::NoAddress) }
}

fn budget(object: &Object) -> Check {
    seen_where_it_says(object)?;
    pods(object, "healthy", "currentHealthy", status(object, "desiredHealthy"))
}

fn other(object: &Object) -> Check {
    seen_where_it_says(object)?;
    if let Some(stalled) = condition(object, "Stalled").filter(|condition| condition["status"] == "True") {
        return not_yet(Unhealthy::Failed(stalled["message"].as_str().unwrap_or_default().to_owned()));
    }
    for name in ["Ready", "Available"] {
        match condition(object, name).map(|condition| (condition["status"].as_str(), condition)) {
            Some((Some("True"), _)) | None => {}
            Some((Some("Unknown") | None, condition)) => {
                return Err(Why::CannotTell(says_no(name, condition).to_string()));
            }
            Some((_, condition)) => return not_yet(says_no(name, condition)),
        }
    }
    Ok(())
}
