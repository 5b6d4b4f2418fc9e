//! One cell of a table, by kind and column.

use jiff::Timestamp;
use serde_json::Value;

use super::since;
use crate::sandbox::api::selector::Labels;

const NONE: &str = "<none>";

/// Returns what stands in `column` for an object of `kind`.
pub fn cell(kind: &str, column: &str, object: &Value, now: Timestamp) -> Value {
    let (spec, status, metadata) = (&object["spec"], &object["status"], &object["metadata"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    match (kind, column) {
        ("Event", "Name") | (_, "Name") => metadata["name"].clone(),
        (_, "Age") => since(metadata["creationTimestamp"].as_str().unwrap_or_default(), now).into(),
        (_, "Created At") => metadata["creationTimestamp"].clone(),
        (_, "Containers") => joined(containers(object, kind), |container| text(&container["name"])),
        (_, "Images") => joined(containers(object, kind), |container| text(&container["image"])),
        ("Service", "Selector") => map(&spec["selector"]).into(),
        (_, "Selector") => selector(&spec["selector"]).into(),
        ("Deployment" | "StatefulSet", "Ready") => {
            format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])).into()
        }
        ("Deployment", "Up-to-date") => number(&status["updatedReplicas"]).into(),
        ("Deployment", "Available") => number(&status["availableReplicas"]).into(),
        ("ReplicaSet" | "ReplicationController", "Desired") => number(&spec["replicas"]).into(),
        ("ReplicaSet" | "ReplicationController", "Current") => number(&status["replicas"]).into(),
        ("ReplicaSet" | "ReplicationController", "Ready") => number(&status["readyReplicas"]).into(),
        ("DaemonSet", "Desired") => number(&status["desiredNumberScheduled"]).into(),
        ("DaemonSet", "Current") => number(&status["currentNumberScheduled"]).into(),
        ("DaemonSet", "Ready") => number(&status["numberReady"]).into(),
        ("DaemonSet", "Up-to-date") => number(&status["updatedNumberScheduled"]).into(),
        ("DaemonSet", "Available") => number(&status["numberAvailable"]).into(),
        ("DaemonSet", "Node Selector") => map(&spec["template"]["spec"]["nodeSelector"]).into(),
        ("Job", "Status") => job_status(object).into(),
        ("Job", "Completions") => {
            let wanted = spec["completions"].as_i64().unwrap_or(1);
            format!("{}/{wanted}", number(&status["succeeded"])).into()
        }
        ("Job", "Duration") => match (status["startTime"].as_str(), status["completionTime"].as_str()) {
            (None, _) => "".into(),
            (Some(start), None) => since(start, now).into(),
            (Some(start), Some(end)) => since(start, end.parse().unwrap_or(now)).into(),
        },
        ("CronJob", "Schedule") => spec["schedule"].clone(),
        ("CronJob", "Timezone") => text_or(&spec["timeZone"], NONE).into(),
        ("CronJob", "Suspend") => if spec["suspend"] == true { "True" } else { "False" }.into(),
        ("CronJob", "Active") => status["active"].as_array().map_or(0, Vec::len).into(),
        ("CronJob", "Last Schedule") => match status["lastScheduleTime"].as_str() {
            Some(time) => since(time, now).into(),
            None => NONE.into(),
        },
        ("Service", _) => service(column, spec, status),
        ("Ingress", _) => ingress(column, spec, status),
        ("EndpointSlice", "AddressType") => object["addressType"].clone(),
        ("EndpointSlice", "Ports") => shortened(&object["ports"], |port| match port["port"].as_i64() {
            Some(number) => number.to_string(),
            None => "*".into(),
        }),
        ("EndpointSlice", "Endpoints") => {
            let endpoints = object["endpoints"].as_array().into_iter().flatten();
            let addresses: Vec<Value> =
                endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default()).collect();
            shortened(&addresses.into(), text)
        }
        ("Endpoints", "Endpoints") => {
            let subsets = object["subsets"].as_array().into_iter().flatten();
            let all: Vec<Value> =
                subsets.flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default()).collect();
            shortened(&all.into(), |address| text(&address["ip"]))
        }
        ("Node", _) => node(column, object),
        ("Namespace" | "PersistentVolumeClaim", "Status") => {
            let terminating = metadata.get("deletionTimestamp").is_some();
            if terminating { "Terminating".into() } else { status["phase"].clone() }
        }
        ("ConfigMap", "Data") => (members(&object["data"]) + members(&object["binaryData"])).into(),
        ("Secret", "Type") => object["type"].clone(),
        ("Secret", "Data") => members(&object["data"]).into(),
        ("PersistentVolumeClaim", "Volume") => text(&spec["volumeName"]).into(),
        ("PersistentVolumeClaim", "Capacity") => text(&status["capacity"]["storage"]).into(),
        ("PersistentVolumeClaim", "Access Modes") => {
            let modes = status["accessModes"].as_array().into_iter().flatten();
            let short = |mode: &Value| match mode.as_str() {
                Some("ReadWriteOnce") => "RWO",
                Some("ReadOnlyMany") => "ROX",
                Some("ReadWriteMany") => "RWX",
                _ => "RWOP",
            };
            modes.map(short).collect::<Vec<_>>().join(",").into()
        }
        ("PersistentVolumeClaim", "StorageClass") => text(&spec["storageClassName"]).into(),
        ("PersistentVolumeClaim", "VolumeAttributesClass") => {
            text_or(&spec["volumeAttributesClassName"], "<unset>").into()
        }
        ("PersistentVolumeClaim", "VolumeMode") => text_or(&spec["volumeMode"], "<unset>").into(),
        ("Event", _) => event(column, object, now),
        ("PodDisruptionBudget", "Min Available") => amount(&spec["minAvailable"], "N/A"),
        ("PodDisruptionBudget", "Max Unavailable") => amount(&spec["maxUnavailable"], "N/A"),
        ("PodDisruptionBudget", "Allowed Disruptions") => number(&status["disruptionsAllowed"]).into(),
        ("HorizontalPodAutoscaler", "Reference") => {
            let target = &spec["scaleTargetRef"];
            format!("{}/{}", text(&target["kind"]), text(&target["name"])).into()
        }
        ("HorizontalPodAutoscaler", "Targets") => "<unknown>".into(),
        ("HorizontalPodAutoscaler", "MinPods") => amount(&spec["minReplicas"], "<unset>"),
        ("HorizontalPodAutoscaler", "MaxPods") => number(&spec["maxReplicas"]).into(),
        ("HorizontalPodAutoscaler", "Replicas") => number(&status["currentReplicas"]).into(),
        ("NetworkPolicy", "Pod-Selector") => selector(&spec["podSelector"]).into(),
        ("Lease", "Holder") => text(&spec["holderIdentity"]).into(),
        ("ControllerRevision", "Revision") => object["revision"].to_string().into(),
        ("ControllerRevision", "Controller") => {
            let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
            let owner = owners.into_iter().find(|owner| owner["controller"] == true);
            owner.map_or(NONE.into(), |owner| {
                let group = text(&owner["apiVersion"]);
                let group = group.split_once('/').map_or("", |(group, _)| group).to_owned();
                format!("{}.{group}/{}", text(&owner["kind"]).to_lowercase(), text(&owner["name"])).into()
            })
        }
        ("RoleBinding" | "ClusterRoleBinding", "Role") => {
            format!("{}/{}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"])).into()
        }
        ("PriorityClass", "Value") => object["value"].clone(),
        ("PriorityClass", "Global-Default") => (object["globalDefault"] == true).to_string().into(),
        ("StorageClass", "Provisioner") => object["provisioner"].clone(),
        ("StorageClass", "ReclaimPolicy") => object["reclaimPolicy"].clone(),
        ("StorageClass", "VolumeBindingMode") => object["volumeBindingMode"].clone(),
        ("StorageClass", "AllowVolumeExpansion") => (object["allowVolumeExpansion"] == true).to_string().into(),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn text_or(value: &Value, otherwise: &str) -> String {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(otherwise).to_owned()
}

fn amount(value: &Value, otherwise: &str) -> Value {
    match value {
        Value::Null => otherwise.into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

fn members(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn map(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

fn selector(value: &Value) -> String {
    match Labels::of(value) {
        Some(labels) if !labels.is_empty() => labels.to_string(),
        _ => NONE.to_owned(),
    }
}

fn containers<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let spec = if kind == "CronJob" { &object["spec"]["jobTemplate"]["spec"] } else { &object["spec"] };
    &spec["template"]["spec"]["containers"]
}

fn joined(list: &Value, of: impl Fn(&Value) -> String) -> Value {
    list.as_array().into_iter().flatten().map(of).collect::<Vec<_>>().join(",").into()
}

/// At most three, and how many more there are.
fn shortened(list: &Value, of: impl Fn(&Value) -> String) -> Value {
    let all: Vec<String> = list.as_array().into_iter().flatten().map(of).collect();
    match all.len() {
        0 => "<unset>".into(),
        1..=3 => all.join(",").into(),
        more => format!("{} + {} more...", all[..3].join(","), more - 3).into(),
    }
}

fn job_status(job: &Value) -> &'static str {
    let has = |name: &str| {
        let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == name && condition["status"] == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job["metadata"].get("deletionTimestamp").is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else {
        "Running"
    }
}

fn addresses(status: &Value) -> String {
    let given = status["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    let one = |entry: &Value| text_or(&entry["ip"], &text(&entry["hostname"]));
    given.map(one).collect::<Vec<_>>().join(",")
}

fn service(column: &str, spec: &Value, status: &Value) -> Value {
    match column {
        "Type" => spec["type"].clone(),
        "Cluster-IP" => text_or(&spec["clusterIP"], NONE).into(),
        "External-IP" => match spec["type"].as_str() {
            Some("LoadBalancer") => {
                let given = addresses(status);
                if given.is_empty() { "<pending>".into() } else { given.into() }
            }
            Some("ExternalName") => spec["externalName"].clone(),
            _ => NONE.into(),
        },
        "Port(s)" => {
            let ports = spec["ports"].as_array().into_iter().flatten().map(|port| {
                let protocol = text_or(&port["protocol"], "TCP");
                match port["nodePort"].as_i64() {
                    Some(node) => format!("{}:{node}/{protocol}", port["port"]),
                    None => format!("{}/{protocol}", port["port"]),
                }
            });
            let ports: Vec<String> = ports.collect();
            if ports.is_empty() { NONE.into() } else { ports.join(",").into() }
        }
        _ => Value::Null,
    }
}

fn ingress(column: &str, spec: &Value, status: &Value) -> Value {
    match column {
        "Class" => text_or(&spec["ingressClassName"], NONE).into(),
        "Hosts" => {
            let rules = spec["rules"].as_array().into_iter().flatten();
            let hosts: Vec<String> = rules.map(|rule| text_or(&rule["host"], "*")).collect();
            if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
        }
        "Address" => addresses(status).into(),
        "Ports" => if spec["tls"].as_array().is_some_and(|tls| !tls.is_empty()) { "80, 443" } else { "80" }.into(),
        _ => Value::Null,
    }
}

fn node(column: &str, object: &Value) -> Value {
    let (spec, status) = (&object["spec"], &object["status"]);
    let address = |kind: &str| {
        let addresses = status["addresses"].as_array().into_iter().flatten();
        let found = addresses.into_iter().find(|address| address["type"] == kind);
        found.map_or_else(|| NONE.to_owned(), |address| text(&address["address"]))
    };
    let info = &status["nodeInfo"];
    match column {
        "Status" => {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
            let word = match ready.and_then(|condition| condition["status"].as_str()) {
                Some("True") => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            };
            let cordoned = if spec["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
            format!("{word}{cordoned}").into()
        }
        "Roles" => {
            let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
            let roles = labels.filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"));
            let roles: Vec<&str> = roles.collect();
            if roles.is_empty() { NONE.into() } else { roles.join(",").into() }
        }
        "Version" => text(&info["kubeletVersion"]).into(),
        "Internal-IP" => address("InternalIP").into(),
        "External-IP" => address("ExternalIP").into(),
        "OS-Image" => text_or(&info["osImage"], "<unknown>").into(),
        "Kernel-Version" => text_or(&info["kernelVersion"], "<unknown>").into(),
        "Container-Runtime" => text_or(&info["containerRuntimeVersion"], "<unknown>").into(),
        _ => Value::Null,
    }
}

fn event(column: &str, object: &Value, now: Timestamp) -> Value {
    let time = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| object[*name].as_str());
        found.map_or_else(|| "<unknown>".to_owned(), |time| since(time, now))
    };
    let about = &object["involvedObject"];
    match column {
        "Last Seen" => time(["lastTimestamp", "eventTime"]).into(),
        "First Seen" => time(["firstTimestamp", "eventTime"]).into(),
        "Type" => object["type"].clone(),
        "Reason" => object["reason"].clone(),
        "Object" => format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"])).into(),
        "Subobject" => text(&about["fieldPath"]).into(),
        "Source" => text_or(&object["source"]["component"], &text(&object["reportingComponent"])).into(),
        "Message" => text(&object["message"]).trim().into(),
        "Count" => object["count"].as_i64().unwrap_or(1).to_string().into(),
        _ => Value::Null,
    }
}
