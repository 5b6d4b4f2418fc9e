//! What the API server fills in where nothing was sent. Defaults are code in Kubernetes too
//! (k8s.io/kubernetes/pkg/apis/*/v1/defaults.go); the published OpenAPI has only few of them.

use serde_json::{Map, Value, json};

/// Fills in what is absent in an object of `kind`.
pub fn fill(object: &mut Value, kind: &str) {
    match kind {
        "Pod" => {
            let spec = &mut object["spec"];
            pod_spec(spec);
            // Templates have neither: `SetDefaults_Pod`.
            set(spec, "enableServiceLinks", || true.into());
            ["containers", "initContainers"].iter().for_each(|list| each(spec, list, requests));
        }
        "Deployment" => deployment(object),
        "ReplicaSet" | "ReplicationController" => {
            set(&mut object["spec"], "replicas", || 1.into());
            template(&mut object["spec"]);
        }
        "StatefulSet" => stateful_set(&mut object["spec"]),
        "DaemonSet" => daemon_set(&mut object["spec"]),
        "Job" => job(object),
        "CronJob" => {
            let spec = &mut object["spec"];
            set(spec, "concurrencyPolicy", || "Allow".into());
            set(spec, "suspend", || false.into());
            set(spec, "successfulJobsHistoryLimit", || 3.into());
            set(spec, "failedJobsHistoryLimit", || 1.into());
            let template = &mut spec["jobTemplate"]["spec"]["template"];
            if template.is_object() {
                pod_spec(&mut template["spec"]);
            }
        }
        "Service" => service(&mut object["spec"]),
        "Secret" => secret(object),
        "Ingress" => each(&mut object["spec"], "rules", |rule| {
            if let Some(http) = rule.get_mut("http") {
                each(http, "paths", |path| set(path, "pathType", || "ImplementationSpecific".into()));
            }
        }),
        "NetworkPolicy" => {
            let egress = object["spec"].get("egress").is_some();
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            set(&mut object["spec"], "policyTypes", || types);
        }
        "HorizontalPodAutoscaler" => {
            set(&mut object["spec"], "minReplicas", || 1.into());
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
            set(&mut object["spec"], "metrics", || cpu);
        }
        "PersistentVolumeClaim" => set(&mut object["spec"], "volumeMode", || "Filesystem".into()),
        "EndpointSlice" => each(object, "ports", |port| {
            set(port, "name", || "".into());
            set(port, "protocol", || "TCP".into());
        }),
        "StorageClass" => {
            set(object, "reclaimPolicy", || "Delete".into());
            set(object, "volumeBindingMode", || "Immediate".into());
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            set(&mut object["roleRef"], "apiGroup", || "rbac.authorization.k8s.io".into());
            each(object, "subjects", |subject| {
                if subject["kind"] != "ServiceAccount" {
                    set(subject, "apiGroup", || "rbac.authorization.k8s.io".into());
                }
            });
        }
        "PriorityClass" => set(object, "preemptionPolicy", || "PreemptLowerPriority".into()),
        "CustomResourceDefinition" => definition(&mut object["spec"]),
        _ => {}
    }
}

fn set(of: &mut Value, name: &str, value: impl FnOnce() -> Value) {
    if let Value::Object(members) = of {
        members.entry(name.to_owned()).or_insert_with(value);
    }
}

fn each(of: &mut Value, name: &str, mut with: impl FnMut(&mut Value)) {
    if let Some(items) = of.get_mut(name).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(&mut with);
    }
}

fn template(spec: &mut Value) {
    if let Some(template) = spec.get_mut("template").filter(|template| template.is_object()) {
        set(template, "spec", || json!({}));
        pod_spec(&mut template["spec"]);
    }
}

fn deployment(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "replicas", || 1.into());
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "progressDeadlineSeconds", || 600.into());
    set(spec, "strategy", || json!({}));
    let strategy = &mut spec["strategy"];
    set(strategy, "type", || "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "maxSurge", || "25%".into());
        set(&mut strategy["rollingUpdate"], "maxUnavailable", || "25%".into());
    }
    template(spec);
}

fn stateful_set(spec: &mut Value) {
    set(spec, "replicas", || 1.into());
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "podManagementPolicy", || "OrderedReady".into());
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", || "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "partition", || 0.into());
    }
    let keep = || json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    set(spec, "persistentVolumeClaimRetentionPolicy", keep);
    each(spec, "volumeClaimTemplates", |claim| set(&mut claim["spec"], "volumeMode", || "Filesystem".into()));
    template(spec);
}

fn daemon_set(spec: &mut Value) {
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", || "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "maxSurge", || 0.into());
        set(&mut strategy["rollingUpdate"], "maxUnavailable", || 1.into());
    }
    template(spec);
}

fn job(object: &mut Value) {
    let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
    let name = object["metadata"]["name"].as_str().map(str::to_owned);
    let spec = &mut object["spec"];
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set(spec, "completions", || 1.into());
    }
    set(spec, "parallelism", || 1.into());
    set(spec, "backoffLimit", || 6.into());
    set(spec, "completionMode", || "NonIndexed".into());
    set(spec, "suspend", || false.into());
    set(spec, "manualSelector", || false.into());
    set(spec, "podReplacementPolicy", || "TerminatingOrFailed".into());
    // The registry's strategy generates selector and labels from the UID.
    if let (Some(uid), Some(name), false) = (uid, name, spec["manualSelector"] == true) {
        let labels = [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ];
        set(spec, "selector", || json!({"matchLabels": {"batch.kubernetes.io/controller-uid": &uid}}));
        if let Some(metadata) = spec["template"]["metadata"].as_object_mut() {
            let have = metadata.entry("labels").or_insert_with(|| json!({}));
            for (label, value) in labels {
                set(have, label, || value.as_str().into());
            }
        }
    }
    template(spec);
}

/// Fills in a pod's (or a template's) spec.
fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "dnsPolicy", || "ClusterFirst".into());
    set(spec, "restartPolicy", || "Always".into());
    set(spec, "schedulerName", || "default-scheduler".into());
    set(spec, "securityContext", || json!({}));
    set(spec, "terminationGracePeriodSeconds", || 30.into());
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "serviceAccount", || account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        set(spec, "serviceAccountName", || account);
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list, |container| self::container(container, host_network));
    }
    each(spec, "volumes", volume);
}

fn container(container: &mut Value, host_network: bool) {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let pinned = image.contains('@');
    let latest = !pinned && name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    set(container, "imagePullPolicy", || if latest { "Always" } else { "IfNotPresent" }.into());
    set(container, "terminationMessagePath", || "/dev/termination-log".into());
    set(container, "terminationMessagePolicy", || "File".into());
    set(container, "resources", || json!({}));
    each(container, "ports", |port| {
        set(port, "protocol", || "TCP".into());
        if host_network {
            let number = port["containerPort"].clone();
            set(port, "hostPort", || number);
        }
    });
    each(container, "env", |variable| {
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            set(reference, "apiVersion", || "v1".into());
        }
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe) else { continue };
        set(probe, "timeoutSeconds", || 1.into());
        set(probe, "periodSeconds", || 10.into());
        set(probe, "successThreshold", || 1.into());
        set(probe, "failureThreshold", || 3.into());
        handler(probe);
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(hook) {
                handler(hook);
            }
        }
    }
}

/// What is limited and not requested is requested.
fn requests(container: &mut Value) {
    let resources = &mut container["resources"];
    if let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() {
        set(resources, "requests", || Value::Object(Map::new()));
        for (name, amount) in limits {
            set(&mut resources["requests"], &name, || amount);
        }
    }
}

fn handler(of: &mut Value) {
    if let Some(get) = of.get_mut("httpGet") {
        set(get, "path", || "/".into());
        set(get, "scheme", || "HTTP".into());
    }
    if let Some(grpc) = of.get_mut("grpc") {
        set(grpc, "service", || "".into());
    }
}

fn volume(volume: &mut Value) {
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            set(source, "defaultMode", || 420.into());
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set(path, "type", || "".into());
    }
    if let Some(items) = volume.get_mut("downwardAPI") {
        each(items, "items", |item| {
            if let Some(reference) = item.get_mut("fieldRef") {
                set(reference, "apiVersion", || "v1".into());
            }
        });
    }
    if let Some(projected) = volume.get_mut("projected") {
        each(projected, "sources", |source| {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set(token, "expirationSeconds", || 3600.into());
            }
        });
    }
    let sources = volume.as_object().map_or(0, Map::len);
    if sources == 1 && volume.get("name").is_some() {
        set(volume, "emptyDir", || json!({}));
    }
}

fn service(spec: &mut Value) {
    set(spec, "type", || "ClusterIP".into());
    set(spec, "sessionAffinity", || "None".into());
    if spec["type"] != "ExternalName" {
        set(spec, "internalTrafficPolicy", || "Cluster".into());
        set(spec, "ipFamilyPolicy", || "SingleStack".into());
        set(spec, "ipFamilies", || json!(["IPv4"]));
    }
    if spec["type"] == "NodePort" || spec["type"] == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", || "Cluster".into());
    }
    if spec["type"] == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", || true.into());
    }
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", || json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    each(spec, "ports", |port| {
        set(port, "protocol", || "TCP".into());
        let number = port["port"].clone();
        set(port, "targetPort", || number);
    });
}

fn secret(object: &mut Value) {
    use base64::Engine as _;
    set(object, "type", || "Opaque".into());
    let plain = object.as_object_mut().and_then(|members| members.remove("stringData"));
    if let Some(Value::Object(plain)) = plain {
        set(object, "data", || json!({}));
        for (name, text) in plain {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            object["data"][name] = encoded.into();
        }
    }
}

fn definition(spec: &mut Value) {
    set(spec, "conversion", || json!({"strategy": "None"}));
    let names = &mut spec["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    set(names, "singular", || kind.to_lowercase().into());
    set(names, "listKind", || format!("{kind}List").into());
}
