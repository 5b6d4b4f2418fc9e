//! What of an object a write may change: identity and status stay as they were unless their own door is used.

use serde_json::{Value, json};

use super::{resources::Resource, status::Status, write::name};

/// A custom resource's kind may be any word: it has no defaults of Kubernetes'.
pub fn kind_of(resource: &Resource) -> &str {
    if resource.custom.is_some() { "" } else { &resource.kind }
}

pub fn written_shape(resource: &Resource) -> crate::sandbox::schema::Shape {
    resource.shape.member("status").cloned().unwrap_or(crate::sandbox::schema::Shape::Any { atomic: false })
}

pub fn initial_status(object: &Value, resource: &Resource) -> Option<Value> {
    match (resource.kind.as_str(), &resource.custom) {
        ("Pod", None) => Some(json!({"phase": "Pending", "qosClass": qos_class(object)})),
        // What Go writes of an empty status.
        ("ReplicaSet", None) => Some(json!({"replicas": 0})),
        ("StatefulSet", None) => Some(json!({"replicas": 0, "availableReplicas": 0})),
        ("DaemonSet", None) => Some(json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        })),
        ("PodDisruptionBudget", None) => Some(json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        })),
        ("Namespace", None) => Some(json!({"phase": "Active"})),
        // Who makes a node says what it has, as a kubelet does.
        ("Node", None) => object.get("status").filter(|status| status.is_object()).cloned(),
        ("PersistentVolumeClaim", None) => Some(json!({"phase": "Pending"})),
        _ => None,
    }
}

/// Refuses what was decided on another object, or on an older one. To a patch another UID is a change of the UID.
pub fn check_identity(live: &Value, object: &Value, resource: &Resource, patched: bool) -> Result<(), Status> {
    let text = |of: &'_ Value, name: &str| of["metadata"][name].as_str().unwrap_or_default().to_owned();
    let (have, given) = (text(live, "uid"), text(object, "uid"));
    let version = text(object, "resourceVersion");
    let other = !given.is_empty() && given != have;
    if other && !patched {
        let (plural, space, name) = (&resource.plural, text(live, "namespace"), name(live));
        let key = ["/registry", plural, &space, name].join("/").replace("//", "/");
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: UID in precondition: {given}, UID in object meta: {have}"
        );
        return Err(resource.about(name).conflict(&why));
    }
    if !version.is_empty() && version != "0" && version != text(live, "resourceVersion") {
        return Err(resource.about(name(live)).modified());
    }
    if other { Err(resource.about(name(live)).immutable("metadata.uid", &given)) } else { Ok(()) }
}

/// Returns a pod's quality of service, from what its containers request and are limited to.
pub fn qos_class(pod: &Value) -> &'static str {
    let containers = || {
        let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
        of("containers").chain(of("initContainers"))
    };
    let of = |container: &Value, part: &str, name: &str| container["resources"][part].get(name).cloned();
    let names = ["cpu", "memory"];
    let any = containers()
        .any(|it| ["requests", "limits"].iter().any(|part| names.iter().any(|name| of(it, part, name).is_some())));
    if !any {
        return "BestEffort";
    }
    let guaranteed = containers().all(|it| {
        names.iter().all(|name| {
            of(it, "limits", name).is_some()
                && of(it, "requests", name).is_none_or(|r| Some(r) == of(it, "limits", name))
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// Puts back what only the server writes.
pub fn keep_metadata(live: &Value, object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for name in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
        "selfLink",
    ] {
        match live["metadata"].get(name) {
            Some(value) => metadata.insert(name.to_owned(), value.clone()),
            None => metadata.remove(name),
        };
    }
}

/// A write of the status leaves all else as it was, and the other way round.
pub fn keep_other_part(live: &Value, object: &mut Value, resource: &Resource, subresource: &str) {
    let restore = |object: &mut Value, name: &str| {
        let Some(members) = object.as_object_mut() else { return };
        match live.get(name) {
            Some(value) => drop(members.insert(name.to_owned(), value.clone())),
            None => drop(members.remove(name)),
        }
    };
    match subresource {
        "status" => {
            let names: Vec<String> = [live, &*object]
                .into_iter()
                .filter_map(Value::as_object)
                .flat_map(|members| members.keys().cloned())
                .filter(|name| !matches!(name.as_str(), "status" | "metadata" | "apiVersion" | "kind"))
                .collect();
            names.iter().for_each(|name| restore(object, name));
            // Each strategy of Kubernetes' registry has its own list.
            let fields: &[&str] = match (&resource.custom, resource.kind.as_str()) {
                (Some(_), _) => &["labels", "annotations", "finalizers", "ownerReferences"],
                (None, "Deployment") => &["labels"],
                (None, "Pod") => &["ownerReferences"],
                (None, _) => &[],
            };
            for name in fields.iter().copied() {
                let Some(metadata) = object["metadata"].as_object_mut() else { continue };
                match live["metadata"].get(name) {
                    Some(value) => drop(metadata.insert(name.to_owned(), value.clone())),
                    None => drop(metadata.remove(name)),
                }
            }
        }
        "finalize" => {
            let finalizers = object["spec"]["finalizers"].take();
            restore(object, "spec");
            restore(object, "status");
            if finalizers.as_array().is_none_or(Vec::is_empty) {
                object["spec"] = json!({});
            } else {
                object["spec"]["finalizers"] = finalizers;
            }
        }
        "resize" => {
            let sent = object["spec"]["containers"].take();
            restore(object, "spec");
            restore(object, "status");
            for container in object["spec"]["containers"].as_array_mut().into_iter().flatten() {
                let same = |sent: &&Value| sent["name"] == container["name"];
                if let Some(resources) = sent.as_array().into_iter().flatten().find(same).map(|sent| &sent["resources"])
                {
                    container["resources"] = resources.clone();
                }
            }
        }
        _ => {
            if resource.has("status") {
                restore(object, "status");
            }
            if resource.kind == "Namespace" && resource.custom.is_none() {
                restore(object, "spec");
            }
        }
    }
}

/// What an apply through one door must not own: the other door's part.
pub fn forget_other_part(config: &mut Value, resource: &Resource, subresource: &str) {
    let Some(members) = config.as_object_mut() else { return };
    if subresource == "status" {
        members.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    } else if resource.has("status") {
        members.remove("status");
    }
}

/// Fields that were allocated once and that a replacement may leave out.
pub fn carry_over(live: &Value, object: &mut Value, resource: &Resource) {
    if resource.custom.is_some() {
        return;
    }
    let keep = |object: &mut Value, name: &str| {
        let have = object["spec"][name].as_str().is_some_and(|text| !text.is_empty());
        if let (false, Some(value)) = (have, live["spec"].get(name)) {
            object["spec"][name] = value.clone();
        }
    };
    match resource.kind.as_str() {
        "Service" if object["spec"]["type"] != "ExternalName" => {
            keep(object, "clusterIP");
            let ports = live["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let exposed = object["spec"]["type"] == "NodePort" || object["spec"]["type"] == "LoadBalancer";
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten().filter(|_| exposed) {
                let same = |before: &&Value| before["port"] == port["port"] && before["protocol"] == port["protocol"];
                let number = ports.iter().find(same).map(|before| before["nodePort"].clone());
                if let (Some(number), true) = (number, port["nodePort"].is_null()) {
                    port["nodePort"] = number;
                }
            }
        }
        "Job" if object["spec"].get("selector").is_none() => {
            object["spec"]["selector"] = live["spec"]["selector"].clone();
        }
        "PersistentVolumeClaim" => keep(object, "volumeName"),
        _ => {}
    }
}

/// An object that is being deleted goes when nobody holds it any more.
pub fn is_done(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = metadata["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    let in_use = object["spec"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    let is_namespace = object["kind"] == "Namespace";
    metadata.get("deletionTimestamp").is_some()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held
        && !(is_namespace && in_use)
}

pub fn set_entries(object: &mut Value, entries: Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if entries.is_null() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), entries);
    }
}
