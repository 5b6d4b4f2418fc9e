//! A pod's row: its status is a word that is found by looking at all of its containers.

use jiff::Timestamp;
use serde_json::Value;

use super::since;

const NONE: &str = "<none>";

/// What was found while looking at containers.
#[derive(Default)]
struct Found {
    word: String,
    ready: usize,
    restarts: i64,
    last_restart: String,
}

impl Found {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or_default();
        if ended > self.last_restart.as_str() {
            self.last_restart = ended.to_owned();
        }
    }
}

/// Returns the cells of a pod, as `printPod` of Kubernetes does.
pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status, metadata) = (&pod["spec"], &pod["status"], &pod["metadata"]);
    let sidecars: Vec<&Value> =
        list(&spec["initContainers"]).filter(|init| init["restartPolicy"] == "Always").collect();
    let total = list(&spec["containers"]).count() + sidecars.len();
    let mut found = Found { word: text(&status["phase"]), ..Found::default() };
    if let Some(reason) = status["reason"].as_str().filter(|reason| !reason.is_empty()) {
        found.word = reason.to_owned();
    }
    let initializing = init_containers(pod, &sidecars, &mut found);
    if !initializing || has_condition(status, "Initialized") {
        containers(pod, &sidecars, &mut found);
    }
    if metadata.get("deletionTimestamp").is_some() {
        if status["reason"] == "NodeLost" {
            found.word = "Unknown".into();
        } else if !matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")) {
            found.word = "Terminating".into();
        }
    }
    let mut restarts = found.restarts.to_string();
    if found.restarts != 0 && !found.last_restart.is_empty() {
        restarts = format!("{restarts} ({} ago)", since(&found.last_restart, now));
    }
    let or_none = |value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => NONE.to_owned(),
    };
    let gates: Vec<&str> = list(&spec["readinessGates"]).filter_map(|gate| gate["conditionType"].as_str()).collect();
    let open = gates.iter().filter(|gate| has_condition(status, gate)).count();
    vec![
        metadata["name"].clone(),
        format!("{}/{total}", found.ready).into(),
        found.word.into(),
        restarts.into(),
        since(metadata["creationTimestamp"].as_str().unwrap_or_default(), now).into(),
        or_none(&status["podIP"]).into(),
        or_none(&spec["nodeName"]).into(),
        or_none(&status["nominatedNodeName"]).into(),
        if gates.is_empty() { NONE.into() } else { format!("{open}/{}", gates.len()).into() },
    ]
}

/// Looks at the init containers and returns whether one of them is still at work, or failed.
fn init_containers(pod: &Value, sidecars: &[&Value], found: &mut Found) -> bool {
    let count = list(&pod["spec"]["initContainers"]).count();
    for (index, container) in list(&pod["status"]["initContainerStatuses"]).enumerate() {
        found.count_restarts(container);
        let is_sidecar = sidecars.iter().any(|sidecar| sidecar["name"] == container["name"]);
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated.is_object() && terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && container["started"] == true {
            found.ready += usize::from(container["ready"] == true);
            continue;
        }
        found.word = if terminated.is_object() {
            match terminated["reason"].as_str() {
                Some(reason) if !reason.is_empty() => format!("Init:{reason}"),
                _ => format!("Init:ExitCode:{}", terminated["exitCode"]),
            }
        } else {
            match waiting["reason"].as_str() {
                Some(reason) if !reason.is_empty() && reason != "PodInitializing" => format!("Init:{reason}"),
                _ => format!("Init:{index}/{count}"),
            }
        };
        return true;
    }
    false
}

fn containers(pod: &Value, sidecars: &[&Value], found: &mut Found) {
    let status = &pod["status"];
    (found.restarts, found.last_restart) = (0, String::new());
    let of_sidecar = |container: &&Value| sidecars.iter().any(|sidecar| sidecar["name"] == container["name"]);
    for container in list(&status["initContainerStatuses"]).filter(of_sidecar) {
        found.count_restarts(container);
    }
    let (mut running, mut error) = (false, String::new());
    let all: Vec<&Value> = list(&status["containerStatuses"]).collect();
    for container in all.into_iter().rev() {
        found.count_restarts(container);
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if let Some(reason) = waiting["reason"].as_str().filter(|reason| !reason.is_empty()) {
            found.word = reason.to_owned();
        } else if terminated.is_object() {
            found.word = match terminated["reason"].as_str() {
                Some(reason) if !reason.is_empty() => reason.to_owned(),
                _ => format!("ExitCode:{}", terminated["exitCode"]),
            };
            if terminated["exitCode"] != 0 {
                error.clone_from(&found.word);
            }
        } else if container["ready"] == true && container["state"]["running"].is_object() {
            running = true;
            found.ready += 1;
        }
    }
    if found.word == "Completed" {
        if running && has_condition(status, "Ready") {
            found.word = "Running".into();
        } else if !error.is_empty() {
            found.word = error;
        } else if running {
            found.word = "NotReady".into();
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn has_condition(status: &Value, name: &str) -> bool {
    list(&status["conditions"]).any(|condition| condition["type"] == name && condition["status"] == "True")
}
