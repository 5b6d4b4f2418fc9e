//! Tables: what `kubectl get` prints, made by the server (k8s.io/kubernetes/pkg/printers/internalversion).

mod cells;
mod pods;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{handle::partial, resources::Resource};

/// One kind's columns; `*` marks those of `-o wide`, `:i` a number.
const COLUMNS: &[(&str, &str)] = &[
    ("Pod", "Name,Ready,Status,Restarts,Age,*IP,*Node,*Nominated Node,*Readiness Gates"),
    ("Deployment", "Name,Ready,Up-to-date,Available,Age,*Containers,*Images,*Selector"),
    ("ReplicaSet", "Name,Desired:i,Current:i,Ready:i,Age,*Containers,*Images,*Selector"),
    ("ReplicationController", "Name,Desired:i,Current:i,Ready:i,Age,*Containers,*Images,*Selector"),
    ("StatefulSet", "Name,Ready,Age,*Containers,*Images"),
    (
        "DaemonSet",
        "Name,Desired:i,Current:i,Ready:i,Up-to-date:i,Available:i,Node Selector,Age,*Containers,*Images,*Selector",
    ),
    ("Job", "Name,Status,Completions,Duration,Age,*Containers,*Images,*Selector"),
    ("CronJob", "Name,Schedule,Timezone,Suspend,Active:i,Last Schedule,Age,*Containers,*Images,*Selector"),
    ("Service", "Name,Type,Cluster-IP,External-IP,Port(s),Age,*Selector"),
    ("Endpoints", "Name,Endpoints,Age"),
    ("EndpointSlice", "Name,AddressType,Ports,Endpoints,Age"),
    ("Ingress", "Name,Class,Hosts,Address,Ports,Age"),
    ("Node", "Name,Status,Roles,Age,Version,*Internal-IP,*External-IP,*OS-Image,*Kernel-Version,*Container-Runtime"),
    ("Namespace", "Name,Status,Age"),
    ("ConfigMap", "Name,Data,Age"),
    ("Secret", "Name,Type,Data,Age"),
    ("ServiceAccount", "Name,Age"),
    (
        "PersistentVolumeClaim",
        "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age,*VolumeMode",
    ),
    ("Event", "Last Seen,Type,Reason,Object,*Subobject,*Source,Message,*First Seen,*Count,*Name"),
    ("PodDisruptionBudget", "Name,Min Available,Max Unavailable,Allowed Disruptions:i,Age"),
    ("HorizontalPodAutoscaler", "Name,Reference,Targets,MinPods,MaxPods,Replicas,Age"),
    ("NetworkPolicy", "Name,Pod-Selector,Age"),
    ("Lease", "Name,Holder,Age"),
    ("ControllerRevision", "Name,Controller,Revision,Age"),
    ("Role", "Name,Created At"),
    ("ClusterRole", "Name,Created At"),
    ("RoleBinding", "Name,Role,Age"),
    ("ClusterRoleBinding", "Name,Role,Age"),
    ("PriorityClass", "Name,Value:i,Global-Default,Age"),
    ("StorageClass", "Name,Provisioner,ReclaimPolicy,VolumeBindingMode,AllowVolumeExpansion,Age"),
    ("CustomResourceDefinition", "Name,Created At"),
];

/// Returns the table of some objects. `include`: what each row carries of its object (`Metadata`, `Object`, `None`).
pub fn table(
    resource: &Resource,
    objects: &[Arc<Value>],
    metadata: Value,
    now: Timestamp,
    include: Option<&str>,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": row(resource, object, now)});
            match include {
                Some("None") => {}
                Some("Object") => row["object"] = Value::clone(object),
                _ => row["object"] = partial(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions(resource), "rows": rows,
    })
}

fn columns(resource: &Resource) -> &'static str {
    let known = COLUMNS.iter().find(|(kind, _)| *kind == resource.kind && resource.custom.is_none());
    known.map_or("Name,Age", |(_, columns)| columns)
}

fn definitions(resource: &Resource) -> Value {
    let definition = |name: &str, kind: &str, priority: i64, description: &str| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
    };
    if let Some(printed) = printer_columns(resource) {
        let mut made = vec![definition("Name", "string", 0, "")];
        made.extend(printed.iter().map(|column| {
            let text = |name: &str| column[name].as_str().unwrap_or_default();
            definition(text("name"), text("type"), column["priority"].as_i64().unwrap_or(0), text("description"))
        }));
        return made.into();
    }
    columns(resource)
        .split(',')
        .map(|column| {
            let (name, priority) = column.strip_prefix('*').map_or((column, 0), |name| (name, 1));
            let (name, kind) = name.strip_suffix(":i").map_or((name, "string"), |name| (name, "integer"));
            definition(name, kind, priority, "")
        })
        .collect()
}

fn printer_columns(resource: &Resource) -> Option<&Vec<Value>> {
    let custom = resource.custom.as_ref()?;
    custom.columns.as_array().filter(|columns| !columns.is_empty())
}

fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if let Some(printed) = printer_columns(resource) {
        let name = object["metadata"]["name"].clone();
        return std::iter::once(name).chain(printed.iter().map(|column| printed_cell(object, column, now))).collect();
    }
    if resource.custom.is_none() && resource.kind == "Pod" {
        return pods::row(object, now);
    }
    columns(resource)
        .split(',')
        .map(|column| {
            let name = column.trim_start_matches('*').trim_end_matches(":i");
            cells::cell(&resource.kind, name, object, now)
        })
        .collect()
}

/// One cell of a custom resource, by the simple JSON path of its column.
fn printed_cell(object: &Value, column: &Value, now: Timestamp) -> Value {
    let path = column["jsonPath"].as_str().unwrap_or_default();
    let found = find(object, path);
    match (column["type"].as_str(), found) {
        (_, None) => Value::Null,
        (Some("date"), Some(Value::String(time))) => since(time, now).into(),
        (Some("integer" | "number" | "boolean"), Some(value)) => value.clone(),
        (_, Some(Value::String(text))) => text.as_str().into(),
        (_, Some(value)) => value.to_string().into(),
    }
}

/// Understands `.status.conditions[?(@.type=="Ready")].status`, `.spec.names[0]` and plain paths.
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = object;
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']')?;
            let (inner, after) = (&inside[..end], &inside[end + 1..]);
            here = if let Some(filter) = inner.strip_prefix("?(@.").and_then(|text| text.strip_suffix(')')) {
                let (field, value) = filter.split_once("==")?;
                let value = value.trim().trim_matches(['"', '\'']);
                here.as_array()?.iter().find(|item| item[field.trim()] == value)?
            } else {
                here.get(inner.trim_matches(['"', '\'']).parse::<usize>().ok()?)?
            };
            rest = after.trim_start_matches('.');
        } else {
            let mut end = rest.find(['.', '[']).unwrap_or(rest.len());
            // Dots in names are escaped: `.metadata.labels.app\.kubernetes\.io/name`.
            while end < rest.len() && rest[..end].ends_with('\\') {
                end = rest[end + 1..].find(['.', '[']).map_or(rest.len(), |next| end + 1 + next);
            }
            here = here.get(rest[..end].replace('\\', ""))?;
            rest = rest[end..].trim_start_matches('.');
        }
    }
    Some(here)
}

/// Returns how long ago a time was, as people read it; `<unknown>` where there is none.
fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Writes a duration as k8s.io/apimachinery/pkg/util/duration's `HumanDuration`.
fn human(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, below: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{below}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => two(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{find, human};

    #[test]
    fn an_age_is_written_as_kubectl_users_know_it() {
        let made: Vec<String> = [0, 59, 119, 121, 600, 7200, 10_860, 90_000, 180_000, 900_000].map(human).into();
        assert_eq!(made, ["0s", "59s", "119s", "2m1s", "10m", "120m", "3h1m", "25h", "2d2h", "10d"]);
    }

    #[test]
    fn printer_columns_find_conditions_and_escaped_names() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let found = |path: &str| find(&object, path).cloned();
        assert_eq!(found(".status.conditions[?(@.type==\"Ready\")].status"), Some(json!("True")));
        assert_eq!(found(".metadata.labels.a\\.b/c"), Some(json!("x")));
        assert_eq!(found(".status.conditions[0].type"), Some(json!("Ready")));
        assert_eq!(found(".spec.none"), None);
    }
}
