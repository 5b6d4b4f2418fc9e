//! What the API server refuses, in its words: bad names and labels, what is required, what may not change.
//!
//! What the schema knows (required fields, enumerations) is checked from it; the rest is what a person or a release
//! controller meets, from k8s.io/kubernetes/pkg/apis/*/validation.

use serde_json::{Value, json};

use super::{resources::Resource, selector::Labels, status::Cause};
use crate::sandbox::schema::{Field, Scalar, Shape, Type, path::Path};

/// What is wrong, gathered.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<Cause>);

impl Problems {
    fn add(&mut self, reason: &'static str, field: &str, message: String) {
        self.0.push(Cause { reason, message, field: field.to_owned() });
    }

    fn required(&mut self, field: &str) {
        self.add("FieldValueRequired", field, "Required value".to_owned());
    }

    fn invalid(&mut self, field: &str, value: &Value, why: &str) {
        self.add("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"));
    }

    fn forbidden(&mut self, field: &str, why: &str) {
        self.add("FieldValueForbidden", field, format!("Forbidden: {why}"));
    }

    fn unsupported(&mut self, field: &str, value: &Value, supported: &[String]) {
        let list: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        self.add("FieldValueNotSupported", field, message);
    }
}

const IMMUTABLE: &str = "field is immutable";

/// Returns what is wrong with an object, whether it is new or changed.
pub fn object(object: &Value, resource: &Resource) -> Vec<Cause> {
    let mut problems = Problems::default();
    metadata(&object["metadata"], resource, &mut problems);
    if let (Some(spec), Some(shape)) = (object.get("spec"), resource.shape.member("spec")) {
        by_schema(spec, shape, &Path::Field(&Path::Root, "spec"), &mut problems);
    } else if resource.shape.as_type().is_some_and(|of| of.fields.get("spec").is_some_and(|field| field.required)) {
        problems.required("spec");
    }
    if resource.custom.is_some() {
        return problems.0;
    }
    let spec = &object["spec"];
    match resource.kind.as_str() {
        "Pod" => pod_spec(spec, "spec", &mut problems),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(object, resource, &mut problems),
        "Job" => {
            let policy = &spec["template"]["spec"]["restartPolicy"];
            if policy != "Never" && policy != "OnFailure" {
                let field = "spec.template.spec.restartPolicy";
                let message = "Required value: valid values: \"OnFailure\", \"Never\"".to_owned();
                problems.add("FieldValueRequired", field, message);
            }
            pod_spec(&spec["template"]["spec"], "spec.template.spec", &mut problems);
        }
        "Service" => service(spec, &mut problems),
        "HorizontalPodAutoscaler" => autoscaler(spec, &mut problems),
        "PodDisruptionBudget" => budget(spec, &mut problems),
        "ConfigMap" | "Secret" => {
            for list in ["data", "binaryData"] {
                for key in object[list].as_object().into_iter().flatten().map(|(key, _)| key) {
                    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
                                   (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                                   '[-._a-zA-Z0-9]+')";
                        problems.invalid(&format!("{list}[{key}]"), &json!(key), why);
                    }
                }
            }
        }
        "CustomResourceDefinition" => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
            if object["metadata"]["name"] != wanted.as_str() {
                let why = "must be spec.names.plural+\".\"+spec.group";
                problems.invalid("metadata.name", &object["metadata"]["name"], why);
            }
        }
        _ => {}
    }
    problems.0
}

/// Returns what is wrong with changing `old` into `new`. Both are whole, with defaults.
pub fn change(old: &Value, new: &Value, resource: &Resource, subresource: &str) -> Vec<Cause> {
    let mut problems = Problems::default();
    let before = &old["metadata"]["finalizers"];
    if old["metadata"].get("deletionTimestamp").is_some() {
        let had = |name: &&Value| !before.as_array().is_some_and(|before| before.contains(name));
        let fresh: Vec<String> = new["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(had)
            .map(ToString::to_string)
            .collect();
        if !fresh.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            );
            problems.forbidden("metadata.finalizers", &why);
        }
    }
    let same = |path: &str| old.pointer(path) == new.pointer(path);
    let mut keep = |path: &str, field: &str| {
        if !same(path) {
            problems.invalid(field, new.pointer(path).unwrap_or(&Value::Null), IMMUTABLE);
        }
    };
    if resource.custom.is_some() {
        return problems.0;
    }
    match resource.kind.as_str() {
        "Deployment" | "ReplicaSet" | "DaemonSet" => keep("/spec/selector", "spec.selector"),
        "Job" => {
            keep("/spec/selector", "spec.selector");
            keep("/spec/completions", "spec.completions");
            // Not what people wish, but what the controller has seen to: until then the template stays as a whole.
            let is_suspended = old["status"]["conditions"].as_array().is_some_and(|conditions| {
                conditions.iter().any(|it| it["type"] == "Suspended" && it["status"] == "True")
            });
            let rests =
                old["spec"]["suspend"] == true && is_suspended && old["status"]["active"].as_i64().unwrap_or(0) == 0;
            if frozen_template(old, rests) != frozen_template(new, rests) {
                let template = &new["spec"]["template"];
                let (field, value) =
                    if rests { ("spec.template.spec", &template["spec"]) } else { ("spec.template", template) };
                problems.invalid(field, value, IMMUTABLE);
            }
        }
        "RoleBinding" | "ClusterRoleBinding" if !same("/roleRef") => {
            problems.invalid("roleRef", &new["roleRef"], "cannot change roleRef");
        }
        "StatefulSet" => stateful_set(&old["spec"], &new["spec"], &mut problems),
        "Pod" if !matches!(subresource, "binding" | "status" | "resize") => {
            pod_change(&old["spec"], &new["spec"], &mut problems);
        }
        "Service" => {
            let had = old["spec"]["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty());
            let given = new["spec"]["type"] != "ExternalName" && !same("/spec/clusterIP");
            if had && given {
                problems.invalid("spec.clusterIPs[0]", &json!([new["spec"]["clusterIP"]]), "may not change once set");
            }
        }
        "Secret" | "ConfigMap" => {
            if resource.kind == "Secret" && !same("/type") {
                problems.invalid("type", &new["type"], IMMUTABLE);
            }
            if old["immutable"] == true {
                if new["immutable"] != true {
                    problems.forbidden("immutable", "field is immutable when `immutable` is set");
                }
                if !same("/data") || !same("/binaryData") {
                    problems.forbidden("data", "field is immutable when `immutable` is set");
                }
            }
        }
        "PersistentVolumeClaim" => {
            let frozen = |of: &Value| {
                let mut spec = of["spec"].clone();
                let unbound = spec["volumeName"].is_null();
                for name in ["resources", "volumeName", "volumeAttributesClassName"] {
                    if name != "volumeName" || !unbound {
                        spec[name] = Value::Null;
                    }
                }
                spec
            };
            if old["spec"]["volumeName"].is_string() && frozen(old) != frozen(new) {
                let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
                           for bound claims";
                problems.forbidden("spec", why);
            }
        }
        _ => {}
    }
    problems.0
}

fn stateful_set(old: &Value, new: &Value, problems: &mut Problems) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let frozen = |spec: &Value| {
        let mut spec = spec.as_object().cloned().unwrap_or_default();
        spec.retain(|name, _| !FREE.contains(&name.as_str()));
        spec
    };
    if frozen(old) != frozen(new) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                   'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                   'minReadySeconds' are forbidden";
        problems.forbidden("spec", why);
    }
}

/// What of a Job's pod template stays as it is: one that rests while it is suspended may be placed elsewhere.
fn frozen_template(job: &Value, rests: bool) -> Value {
    let mut template = job["spec"]["template"].clone();
    if rests {
        for (part, names) in [
            ("metadata", &["annotations", "labels"][..]),
            ("spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"][..]),
        ] {
            if let Some(members) = template[part].as_object_mut() {
                members.retain(|name, _| !names.contains(&name.as_str()));
            }
        }
    }
    template
}

/// A pod may change its images, add tolerations and lower its deadline, and nothing else.
fn pod_change(old: &Value, new: &Value, problems: &mut Problems) {
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[list].as_array().map_or(0, Vec::len);
        if count(old) != count(new) {
            problems.forbidden(&format!("spec.{list}"), "pod updates may not add or remove containers");
            return;
        }
    }
    let empty = Vec::new();
    let tolerations = |spec: &'_ Value| -> Vec<Value> { spec["tolerations"].as_array().unwrap_or(&empty).clone() };
    let (before, after) = (tolerations(old), tolerations(new));
    if before.iter().any(|toleration| !after.contains(toleration)) {
        problems.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
    let deadline = |spec: &Value| spec["activeDeadlineSeconds"].as_i64();
    match (deadline(old), deadline(new)) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            problems.invalid("spec.activeDeadlineSeconds", &after.into(), why);
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            problems.invalid("spec.activeDeadlineSeconds", &Value::Null, why);
        }
        _ => {}
    }
    let frozen = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(members) = spec.as_object_mut() {
            for name in ["tolerations", "activeDeadlineSeconds"] {
                members.remove(name);
            }
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        spec
    };
    if frozen(old) != frozen(new) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                   existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                   previously negative)";
        problems.forbidden("spec", why);
    }
}

fn metadata(metadata: &Value, resource: &Resource, problems: &mut Problems) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        problems.add("FieldValueRequired", "metadata.name", "Required value: name or generateName is required".into());
    } else if let Some(why) = wrong_name(name, &resource.kind) {
        problems.invalid("metadata.name", &json!(name), &why);
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        qualified(key, "metadata.labels", problems);
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            problems.invalid("metadata.labels", value, "must be no more than 63 bytes");
        } else if !is_label_value(text) {
            problems.invalid("metadata.labels", value, LABEL_VALUE);
        }
    }
    let annotations = metadata["annotations"].as_object();
    for (key, _) in annotations.into_iter().flatten() {
        qualified(&key.to_lowercase(), "metadata.annotations", problems);
    }
    let size = annotations.into_iter().flatten().map(|(key, text)| key.len() + text.as_str().map_or(0, str::len));
    if size.sum::<usize>() > 256 * 1024 {
        let message = "Too long: may not be more than 262144 bytes".to_owned();
        problems.add("FieldValueTooLong", "metadata.annotations", message);
    }
    for (index, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        let standard = ["orphan", "foregroundDeletion", "kubernetes"];
        if !standard.contains(&text) && !text.contains('/') {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            problems.invalid(&format!("metadata.finalizers[{index}]"), finalizer, why);
        }
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if owner[name].as_str().is_none_or(str::is_empty) {
                problems.invalid(&format!("metadata.ownerReferences.{name}"), &json!(""), "must not be empty");
            }
        }
    }
    let owners = metadata["ownerReferences"].as_array();
    let mut controllers = owners.into_iter().flatten().filter(|owner| owner["controller"] == true);
    if let (Some(first), Some(second)) = (controllers.next(), controllers.next()) {
        let named = |owner: &Value| {
            let text = |name: &str| owner[name].as_str().unwrap_or_default().to_owned();
            format!("{}/{}", text("kind"), text("name"))
        };
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            named(first),
            named(second)
        );
        problems.invalid("metadata.ownerReferences", &metadata["ownerReferences"], &why);
    }
}

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                           'my_value',  or '12345', regex used for validation is \
                           '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                         for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                         with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Returns why a name is not valid for an object of `kind`.
fn wrong_name(name: &str, kind: &str) -> Option<String> {
    if matches!(kind, "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding") {
        return (name.contains(['/', '%']) || matches!(name, "." | "..")).then(|| "may not contain '/' or '%'".into());
    }
    let is_label = matches!(kind, "Namespace" | "Service");
    let most = if is_label { 63 } else { 253 };
    if name.len() > most {
        return Some(format!("must be no more than {most} characters"));
    }
    if is_label {
        return (!is_dns_label(name)).then(|| LABEL.to_owned());
    }
    (!name.split('.').all(is_dns_label)).then(|| SUBDOMAIN.to_owned())
}

fn is_dns_label(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_label_value(text: &str) -> bool {
    let end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn qualified(key: &str, field: &str, problems: &mut Problems) {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.is_empty() {
        problems.invalid(field, &json!(key), "name part must be non-empty");
    } else if name.len() > 63 {
        problems.invalid(field, &json!(key), "name part must be no more than 63 bytes");
    } else if !is_label_value(name) {
        problems.invalid(field, &json!(key), QUALIFIED);
    }
    if prefix.is_some_and(|prefix| prefix.len() > 253 || !prefix.split('.').all(is_dns_label)) {
        problems.invalid(field, &json!(key), &format!("prefix part {SUBDOMAIN}"));
    }
}

/// Checks what the schema knows: required fields, enumerations, and counts that cannot be negative.
fn by_schema(value: &Value, shape: &Shape, path: &Path<'_>, problems: &mut Problems) {
    match (value, shape) {
        (Value::Array(items), Shape::List { of, .. }) => {
            for (index, item) in items.iter().enumerate() {
                by_schema(item, of, &Path::Item(path, index), problems);
            }
        }
        (Value::Object(members), Shape::Map { of, .. }) => {
            for (name, member) in members {
                by_schema(member, of, &Path::Key(path, name), problems);
            }
        }
        (Value::Object(members), _) => {
            let Some(of) = shape.as_type() else { return };
            for (name, field) in of.fields.iter().filter(|(_, field)| field.required) {
                if is_missing(members.get(name), name, field, of) {
                    problems.required(&Path::Field(path, name).to_string());
                }
            }
            for (name, found) in members {
                let Some(field) = of.fields.get(name) else { continue };
                let place = Path::Field(path, name);
                if !field.values.is_empty() && !field.values.iter().any(|value| found == value.as_str()) {
                    // What is required and empty was said to be missing already.
                    let named = !(field.required && found == "");
                    if named && of.name.ends_with("DeploymentStrategy") {
                        // Refused as a whole.
                        let shown = json!({"Type": found, "RollingUpdate": members.get("rollingUpdate")});
                        problems.unsupported(&path.to_string(), &shown, &field.values);
                    } else if named {
                        problems.unsupported(&place.to_string(), found, &field.values);
                    }
                }
                if matches!(field.shape, Shape::Scalar(Scalar::Int32 | Scalar::Int64))
                    && found.as_i64().is_some_and(|count| count < 0)
                    && !of.name.is_empty()
                    && COUNTS.contains(&name.as_str())
                {
                    problems.invalid(&place.to_string(), found, "must be greater than or equal to 0");
                }
                by_schema(found, &field.shape, &place, problems);
            }
        }
        _ => {}
    }
}

/// Go cannot tell an empty text from none, and Kubernetes takes most empty lists, but not one of containers.
fn is_missing(found: Option<&Value>, name: &str, field: &Field, of: &Type) -> bool {
    if of.name.is_empty() {
        return found.is_none() && field.default.is_none();
    }
    let is_list = matches!(field.shape, Shape::List { .. } | Shape::Map { .. });
    let empty = match found {
        None => true,
        Some(Value::String(text)) => text.is_empty() && !field.omit_empty,
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    empty && (!is_list || name == "containers") && field.default.is_none()
}

const COUNTS: [&str; 14] = [
    "replicas",
    "minReadySeconds",
    "revisionHistoryLimit",
    "progressDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "parallelism",
    "completions",
    "backoffLimit",
    "activeDeadlineSeconds",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];

fn workload(object: &Value, resource: &Resource, problems: &mut Problems) {
    let spec = &object["spec"];
    let (selector, labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
    // No selector selects nothing.
    if selector.is_null() {
        problems.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
    } else if let Some(parsed) = Labels::of(selector).filter(|_| selector.is_object()) {
        if parsed.is_empty() {
            let why = format!("empty selector is invalid for {}", resource.singular);
            problems.invalid("spec.selector", selector, &why);
        } else if !parsed.match_labels(labels.as_object()) {
            problems.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
        }
    }
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy.is_string() && policy != "Always" {
        problems.unsupported("spec.template.spec.restartPolicy", policy, &["Always".to_owned()]);
    }
    // The pods of a StatefulSet mount what its claim templates become: its API server leaves their spec to the pods.
    if resource.kind != "StatefulSet" {
        pod_spec(&spec["template"]["spec"], "spec.template.spec", problems);
    }
    if resource.kind == "Deployment" {
        let strategy = &spec["strategy"];
        let rolling = &strategy["rollingUpdate"];
        if strategy["type"] == "Recreate" && !rolling.is_null() {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            problems.forbidden("spec.strategy.rollingUpdate", why);
        }
        let none = |value: &Value| value == 0 || value == "0%";
        if none(&rolling["maxSurge"]) && none(&rolling["maxUnavailable"]) {
            let why = "may not be 0 when `maxSurge` is 0";
            problems.invalid("spec.strategy.rollingUpdate.maxUnavailable", &rolling["maxUnavailable"], why);
        }
        let seconds = |name: &str| spec[name].as_i64();
        if let (Some(deadline), ready) = (seconds("progressDeadlineSeconds"), seconds("minReadySeconds").unwrap_or(0))
            && deadline <= ready
        {
            let why = "must be greater than minReadySeconds";
            problems.invalid("spec.progressDeadlineSeconds", &deadline.into(), why);
        }
    }
}

fn pod_spec(spec: &Value, path: &str, problems: &mut Problems) {
    let volumes: Vec<&Value> = spec["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    let mut names: Vec<&Value> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let place = format!("{path}.{list}[{index}]");
            let name = &container["name"];
            if names.contains(&name) {
                problems.add("FieldValueDuplicate", &format!("{place}.name"), format!("Duplicate value: {name}"));
            }
            names.push(name);
            let given = name.as_str().filter(|name| !name.is_empty());
            if given.is_some_and(|name| !is_dns_label(name) || name.len() > 63) {
                problems.invalid(&format!("{place}.name"), name, LABEL);
            }
            if container["image"].as_str().is_none_or(str::is_empty) {
                problems.required(&format!("{place}.image"));
            }
            for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                if mount["name"].is_string() && !volumes.contains(&&mount["name"]) {
                    let field = format!("{place}.volumeMounts[{index}].name");
                    problems.add("FieldValueNotFound", &field, format!("Not found: {}", mount["name"]));
                }
            }
            for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                port_number(&port["containerPort"], &format!("{place}.ports[{index}].containerPort"), problems);
            }
        }
    }
}

fn service(spec: &Value, problems: &mut Problems) {
    let ports = spec["ports"].as_array();
    let headless = spec["clusterIP"] == "None";
    if ports.is_none_or(Vec::is_empty) && spec["type"] != "ExternalName" && !headless {
        problems.required("spec.ports");
    }
    let address = spec["clusterIP"].as_str().unwrap_or_default();
    if !matches!(address, "" | "None") && address.parse::<std::net::IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        problems.invalid("spec.clusterIPs[0]", &spec["clusterIP"], why);
    }
    let several = ports.is_some_and(|ports| ports.len() > 1);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        port_number(&port["port"], &format!("spec.ports[{index}].port"), problems);
        port_number(&port["targetPort"], &format!("spec.ports[{index}].targetPort"), problems);
        let name = &port["name"];
        let named = name.as_str().is_some_and(|name| !name.is_empty());
        if named && ports.into_iter().flatten().take(index).any(|before| before["name"] == *name) {
            let message = format!("Duplicate value: {name}");
            problems.add("FieldValueDuplicate", &format!("spec.ports[{index}].name"), message);
        }
        if several && port["name"].as_str().is_none_or(str::is_empty) {
            problems.required(&format!("spec.ports[{index}].name"));
        }
    }
}

fn budget(spec: &Value, problems: &mut Problems) {
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let shown = json!({
            "MinAvailable": spec["minAvailable"], "Selector": spec["selector"],
            "MaxUnavailable": spec["maxUnavailable"], "UnhealthyPodEvictionPolicy": spec["unhealthyPodEvictionPolicy"],
        });
        problems.invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        let (field, value) = (format!("spec.{name}"), &spec[name]);
        let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
        if value.as_i64().is_some_and(|count| count < 0) {
            problems.invalid(&field, value, "must be greater than or equal to 0");
        } else if percent.is_some_and(|percent| percent > 100) {
            problems.invalid(&field, value, "must not be greater than 100%");
        }
    }
}

fn autoscaler(spec: &Value, problems: &mut Problems) {
    let (least, most) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64());
    if least.is_some_and(|least| least < 1) {
        problems.invalid("spec.minReplicas", &spec["minReplicas"], "must be greater than or equal to 1");
    }
    if least == Some(0) {
        let outside = |metric: &Value| matches!(metric["type"].as_str(), Some("Object" | "External"));
        if !spec["metrics"].as_array().is_some_and(|metrics| metrics.iter().any(outside)) {
            let why = "must specify at least one Object or External metric to support scaling to zero replicas";
            problems.forbidden("spec.metrics", why);
        }
    }
    if most.zip(least).is_some_and(|(most, least)| most < least) {
        problems.invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than or equal to `minReplicas`");
    }
}

fn port_number(value: &Value, field: &str, problems: &mut Problems) {
    if value.as_i64().is_some_and(|port| !(1..=65535).contains(&port)) {
        problems.invalid(field, value, "must be between 1 and 65535, inclusive");
    }
}
