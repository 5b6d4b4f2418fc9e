//! The table of kinds and when each is healthy.
#![allow(clippy::unwrap_used)]

use locktender::core::manifest::{Health, Object, health};
use serde_json::{Value, json};

fn answer(api_version: &str, kind: &str, rest: &Value) -> String {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": 2}});
    for (name, value) in rest.as_object().unwrap() {
        object[name] = value.clone();
    }
    match health(&Object(object)) {
        Health::Yes => "yes".to_owned(),
        Health::NotYet(why) => why.to_string(),
        Health::CannotTell(why) => format!("cannot tell: {why}"),
    }
}

fn condition(name: &str, status: &str) -> Value {
    json!({"status": {"conditions": [{"type": name, "status": status, "reason": "Because", "message": "of this"}]}})
}

#[test]
fn each_kind_is_healthy_when_its_table_says() {
    let seen = "its controller has not seen the change yet";
    let table = [
        ("apps/v1", "Deployment", json!({"spec": {"replicas": 3}}), seen),
        ("apps/v1", "Deployment", json!({"spec": {"replicas": 3}, "status": {"observedGeneration": 1}}), seen),
        (
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 3}, "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1}}),
            "1 of 3 pods are updated",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 3},
                "status": {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}}),
            "0 of 1 pods are gone that were to go",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 0}}),
            "0 of 1 pods are available",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
            "yes",
        ),
        ("apps/v1", "Deployment", json!({"spec": {"replicas": 0}, "status": {"observedGeneration": 2}}), "yes"),
        (
            "apps/v1",
            "Deployment",
            json!({"status": {"observedGeneration": 2, "conditions": [
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "slow"}]}}),
            "Progressing is False: slow",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "availableReplicas": 1}}),
            "1 of 2 pods are available",
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "readyReplicas": 2,
                "currentRevision": "a", "updateRevision": "a"}}),
            "yes",
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
                "status": {"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 1,
                "currentRevision": "a", "updateRevision": "b"}}),
            "yes",
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"replicas": 3}, "status": {"observedGeneration": 2, "readyReplicas": 3,
                "updatedReplicas": 2, "currentRevision": "a", "updateRevision": "b"}}),
            "2 of 3 pods are updated",
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3,
                "numberAvailable": 2}}),
            "2 of 3 pods are available",
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"updateStrategy": {"type": "OnDelete"}},
                "status": {"observedGeneration": 2, "desiredNumberScheduled": 3, "numberAvailable": 3}}),
            "yes",
        ),
        ("v1", "Pod", json!({"status": {"phase": "Pending"}}), "is Pending"),
        ("v1", "Pod", json!({"status": {"phase": "Succeeded"}}), "yes"),
        ("v1", "Pod", json!({"status": {"phase": "Failed", "message": "evicted"}}), "failed: evicted"),
        ("v1", "Pod", json!({"status": {"phase": "Unknown"}}), "cannot tell: its node does not answer"),
        (
            "v1",
            "Pod",
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            "yes",
        ),
        ("batch/v1", "Job", json!({}), "is running"),
        ("batch/v1", "Job", condition("Complete", "True"), "yes"),
        ("batch/v1", "Job", condition("Failed", "True"), "failed: of this"),
        ("batch/v1", "Job", json!({"spec": {"suspend": true}}), "yes"),
        ("batch/v1", "CronJob", json!({}), "yes"),
        ("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Pending"}}), "is Pending"),
        ("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Bound"}}), "yes"),
        ("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Lost"}}), "failed: Lost"),
        ("v1", "Namespace", json!({"status": {"phase": "Active"}}), "yes"),
        ("v1", "Namespace", json!({"status": {"phase": "Terminating"}}), "is Terminating"),
        ("v1", "Service", json!({"spec": {"type": "ClusterIP"}}), "yes"),
        ("v1", "Service", json!({"spec": {"type": "LoadBalancer"}}), "has no address yet"),
        (
            "v1",
            "Service",
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            "yes",
        ),
        (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({"status": {"conditions": [
                {"type": "Established", "status": "True"}, {"type": "NamesAccepted", "status": "True"}]}}),
            "yes",
        ),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), seen),
        ("apiregistration.k8s.io/v1", "APIService", condition("Available", "False"), "Available is False: of this"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", json!({}), "yes"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", condition("ScalingActive", "False"), "yes"),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            condition("AbleToScale", "False"),
            "AbleToScale is False: of this",
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            json!({"status": {"observedGeneration": 2, "currentHealthy": 1, "desiredHealthy": 2}}),
            "1 of 2 pods are healthy",
        ),
        ("policy/v1", "PodDisruptionBudget", json!({}), "yes"),
        ("networking.k8s.io/v1", "Ingress", json!({}), "yes"),
        ("v1", "ConfigMap", json!({}), "yes"),
        ("example.com/v1", "Thing", json!({}), "yes"),
        ("example.com/v1", "Thing", json!({"status": {"observedGeneration": 1}}), seen),
        ("example.com/v1", "Thing", condition("Ready", "False"), "Ready is False: of this"),
        ("example.com/v1", "Thing", condition("Ready", "Unknown"), "cannot tell: Ready is Unknown: of this"),
        ("example.com/v1", "Thing", condition("Available", "True"), "yes"),
        ("example.com/v1", "Thing", condition("Stalled", "True"), "failed: of this"),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "x", "deletionTimestamp": "2026-11-21T12:00:00Z"}}),
            "is being deleted",
        ),
    ];
    let answers =
        table.iter().map(|(version, kind, rest, expected)| (answer(version, kind, rest), kind, rest, expected));
    let wrong: Vec<_> = answers.filter(|(got, _, _, expected)| got != *expected).collect();
    assert!(wrong.is_empty(), "(got, kind, object, expected): {wrong:#?}");
}
