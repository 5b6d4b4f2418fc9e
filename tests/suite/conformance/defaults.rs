//! What is filled in.

use serde_json::{Value, json};

use super::server::Server;

/// A Deployment with nothing but what it must have.
pub fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:1.0", "ports": [{"containerPort": 8080}]}]},
            },
        },
    })
}

/// A pod with everything that has defaults of its own.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "labels": {"app": "web"}},
        "spec": {
            "automountServiceAccountToken": false,
            "initContainers": [{"name": "before", "image": "before"}, {"name": "side", "image": "side:1", "restartPolicy": "Always"}],
            "containers": [{
                "name": "web", "image": "web:latest",
                "ports": [{"containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 3},
                "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
                "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "resources": {"limits": {"cpu": "0.5", "memory": "128Mi"}},
                "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
            }],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "secret", "secret": {"secretName": "s"}}, {"name": "scratch", "emptyDir": {}}],
            "readinessGates": [{"conditionType": "example.com/ready"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}],
        },
    })
}

#[tokio::test]
async fn of_deployments() {
    let mut server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/NS/deployments?dryRun=All";
    server.see("POST", path, deployment()).await;
    let mut recreate = deployment();
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    recreate["spec"]["replicas"] = 0.into();
    server.see_part("POST", path, recreate, &["/spec/strategy", "/spec/replicas"]).await;
    let mut half = deployment();
    half["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}});
    server.see_part("POST", path, half, &["/spec/strategy"]).await;
    matches!(server);
}

#[tokio::test]
async fn of_pods() {
    let mut server = Server::start().await;
    server.see("POST", "/api/v1/namespaces/NS/pods?dryRun=All", pod()).await;
    matches!(server);
}

#[tokio::test]
async fn of_services() {
    let mut server = Server::start().await;
    let path = "/api/v1/namespaces/NS/services";
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    server.see("POST", path, service("plain", json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}))).await;
    let parts = ["/spec"];
    server
        .see_part(
            "POST",
            path,
            service(
                "headless",
                json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}]}),
            ),
            &parts,
        )
        .await;
    let outside = json!({"type": "ExternalName", "externalName": "example.com"});
    server.see_part("POST", path, service("outside", outside), &parts).await;
    matches!(server);
}

#[tokio::test]
async fn of_the_other_kinds() {
    let mut server = Server::start().await;
    let mut set = deployment();
    set["kind"] = "StatefulSet".into();
    set["spec"]["serviceName"] = "web".into();
    set["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("ports");
    let parts = [
        "/spec/replicas",
        "/spec/updateStrategy",
        "/spec/podManagementPolicy",
        "/spec/revisionHistoryLimit",
        "/spec/persistentVolumeClaimRetentionPolicy",
        "/status",
    ];
    server.see_part("POST", "/apis/apps/v1/namespaces/NS/statefulsets?dryRun=All", set.clone(), &parts).await;
    set["kind"] = "DaemonSet".into();
    set["spec"].as_object_mut().unwrap().remove("serviceName");
    server
        .see_part(
            "POST",
            "/apis/apps/v1/namespaces/NS/daemonsets?dryRun=All",
            set.clone(),
            &["/spec/updateStrategy", "/spec/revisionHistoryLimit", "/status"],
        )
        .await;
    set["kind"] = "ReplicaSet".into();
    server
        .see_part(
            "POST",
            "/apis/apps/v1/namespaces/NS/replicasets?dryRun=All",
            set.clone(),
            &["/spec/replicas", "/spec/selector", "/metadata/generation", "/status"],
        )
        .await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}});
    server.see("POST", "/apis/policy/v1/namespaces/NS/poddisruptionbudgets?dryRun=All", budget).await;
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    server
        .see_part("POST", "/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers?dryRun=All", scaler, &["/spec"])
        .await;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "once", "image": "once:1"}]}}},
    });
    let parts =
        ["/spec/backoffLimit", "/spec/completions", "/spec/parallelism", "/spec/completionMode", "/spec/suspend"];
    server.see_part("POST", "/apis/batch/v1/namespaces/NS/jobs?dryRun=All", job, &parts).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    server.see("POST", "/api/v1/namespaces/NS/secrets?dryRun=All", secret).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    server
        .see_part("POST", "/api/v1/namespaces/NS/persistentvolumeclaims?dryRun=All", claim, &["/spec", "/status"])
        .await;
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    });
    server
        .see_part(
            "POST",
            "/apis/networking.k8s.io/v1/namespaces/NS/ingresses?dryRun=All",
            ingress,
            &["/spec", "/status", "/metadata/generation"],
        )
        .await;
    matches!(server);
}
