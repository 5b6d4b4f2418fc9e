//! What happens to one object: defaults, versions, checks, deletion.

#![allow(clippy::unwrap_used)]

use locktender::sandbox::api::{DeleteOptions, EventKind, PatchKind, Propagation};
use serde_json::{Value, json};

use super::{api, deployment, patch, pod};

#[test]
fn a_new_object_gets_what_the_server_sets_and_its_defaults() {
    let mut api = api();
    let made = api.create(deployment()).unwrap();
    let metadata = &made["metadata"];
    assert_eq!(metadata["creationTimestamp"], "2026-11-21T12:00:00Z");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["resourceVersion"], api.revision().to_string());
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_eq!(
        made["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(
        made["spec"]["template"]["spec"],
        json!({
            "containers": [{
                "name": "web", "image": "registry.example/web:1.0", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}], "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })
    );
    assert_eq!(made["status"], json!({}));
}

#[test]
fn the_same_calls_make_the_same_objects() {
    let make = || {
        let mut api = api();
        let mut named = pod("");
        named["metadata"]["name"] = Value::Null;
        named["metadata"]["generateName"] = "web-".into();
        api.create(named).unwrap()
    };
    assert_eq!(make(), make());
    assert!(make()["metadata"]["name"].as_str().unwrap().starts_with("web-"));
}

#[test]
fn a_write_that_changes_nothing_keeps_the_resource_version() {
    let mut api = api();
    let made = api.create(deployment()).unwrap();
    let mut again = deployment();
    again["spec"]["minReadySeconds"] = 0.into();
    again["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
    assert_eq!(api.update(again, None).unwrap(), made);
    assert_eq!(patch(&mut api, "deployments.apps", "web", PatchKind::Merge, json!({})).unwrap(), *made);
}

#[test]
fn an_older_resource_version_or_another_uid_is_a_conflict() {
    let mut api = api();
    let first = api.create(deployment()).unwrap();
    let mut second = Value::clone(&first);
    second["spec"]["replicas"] = 4.into();
    let second = api.update(second, None).unwrap();
    assert_eq!(second["metadata"]["generation"], 2);
    let refused = api.update(Value::clone(&first), None).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            409,
            "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply \
             your changes to the latest version and try again"
        )
    );
    let other = json!({"metadata": {"uid": "other"}});
    let refused = patch(&mut api, "deployments.apps", "web", PatchKind::Merge, other).unwrap_err();
    assert_eq!(refused.code, 422, "to a patch it is a field that may not change");
    assert!(refused.message.contains("metadata.uid: Invalid value: \"other\": field is immutable"), "{refused}");
}

#[test]
fn spec_and_status_are_written_through_their_own_doors() {
    let mut api = api();
    let mut object = Value::clone(&*api.create(deployment()).unwrap());
    object["status"] = json!({"replicas": 3, "observedGeneration": 1});
    object["spec"]["replicas"] = 9.into();
    let by_status = api.update(object.clone(), Some("status")).unwrap();
    assert_eq!((&by_status["status"]["replicas"], &by_status["spec"]["replicas"]), (&json!(3), &json!(3)));
    assert_eq!(by_status["metadata"]["generation"], 1);
    object["metadata"]["resourceVersion"] = by_status["metadata"]["resourceVersion"].clone();
    object["status"] = json!({});
    let by_spec = api.update(object, None).unwrap();
    assert_eq!((&by_spec["status"]["replicas"], &by_spec["spec"]["replicas"]), (&json!(3), &json!(9)));
}

#[test]
fn of_a_pod_only_images_and_metadata_may_change() {
    let mut api = api();
    api.create(pod("a")).unwrap();
    let image = json!({"spec": {"containers": [{"name": "web", "image": "nonsense ///"}]}});
    let made = patch(&mut api, "pods", "a", PatchKind::Strategic, image).unwrap();
    assert_eq!(made["metadata"]["generation"], 2);
    let environment = json!({"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]}});
    let refused = patch(&mut api, "pods", "a", PatchKind::Strategic, environment).unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.starts_with("Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields"));
    let toleration = json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}});
    patch(&mut api, "pods", "a", PatchKind::Strategic, toleration).unwrap();
}

#[test]
fn what_is_wrong_is_said_in_the_servers_words() {
    let mut api = api();
    api.create(deployment()).unwrap();
    let mut refuse = |change: fn(&mut Value), message: &str| {
        let mut object = deployment();
        object["metadata"]["name"] = "other".into();
        change(&mut object);
        let refused = api.create(object).unwrap_err();
        assert_eq!(refused.message, message);
    };
    refuse(
        |object| object["spec"]["selector"]["matchLabels"]["app"] = "x".into(),
        "Deployment.apps \"other\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: \
         `selector` does not match template `labels`",
    );
    refuse(
        |object| object["spec"]["replicas"] = (-1).into(),
        "Deployment.apps \"other\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    refuse(
        |object| object["spec"]["template"]["spec"]["containers"] = json!([]),
        "Deployment.apps \"other\" is invalid: spec.template.spec.containers: Required value",
    );
    refuse(
        |object| object["spec"]["replicas"] = "3".into(),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
         struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuse(|object| object["metadata"]["namespace"] = "nowhere".into(), "namespaces \"nowhere\" not found");
    refuse(|object| object["metadata"]["name"] = "web".into(), "deployments.apps \"web\" already exists");
}

#[test]
fn a_pod_on_a_node_stops_gracefully() {
    let mut api = api();
    let mut object = pod("a");
    object["spec"]["nodeName"] = "n1".into();
    api.create(object).unwrap();
    let stopping = api.delete("pods", "default", "a", DeleteOptions::default()).unwrap().unwrap();
    assert_eq!(stopping["metadata"]["deletionTimestamp"], "2026-11-21T12:00:30Z");
    let again = api.delete("pods", "default", "a", DeleteOptions::default()).unwrap().unwrap();
    assert_eq!(again, stopping);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    assert!(api.delete("pods", "default", "a", now).unwrap().is_none());
    assert!(api.get("pods", "default", "a").is_none());
    // Without a node there is nobody to stop it.
    api.create(pod("b")).unwrap();
    assert!(api.delete("pods", "default", "b", DeleteOptions::default()).unwrap().is_none());
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_taken_off() {
    let mut api = api();
    api.create(deployment()).unwrap();
    let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    let held = api.delete("deployments.apps", "default", "web", orphan).unwrap().unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    let more = json!({"metadata": {"finalizers": ["orphan", "example.com/more"]}});
    assert_eq!(patch(&mut api, "deployments.apps", "web", PatchKind::Merge, more).unwrap_err().code, 422);
    let before = api.revision();
    let free = json!({"metadata": {"finalizers": null}});
    patch(&mut api, "deployments.apps", "web", PatchKind::Merge, free).unwrap();
    assert!(api.get("deployments.apps", "default", "web").is_none());
    let kinds: Vec<EventKind> = api.events_since(before).unwrap().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Deleted]);
}

#[test]
fn compacted_events_are_gone() {
    let mut api = api();
    let start = api.revision();
    api.create(pod("a")).unwrap();
    api.create(pod("b")).unwrap();
    assert_eq!(api.events_since(start).unwrap().count(), 2);
    api.compact(start + 1);
    assert_eq!(api.events_since(start + 1).unwrap().count(), 1);
    assert_eq!(api.events_since(start).err().unwrap().code, 410);
}

#[test]
fn a_resize_changes_resources_and_nothing_else() {
    let mut api = api();
    let mut object = Value::clone(&*api.create(pod("a")).unwrap());
    object["spec"]["containers"][0]["image"] = "registry.example/web:2.0".into();
    object["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1000m"}});
    assert_eq!(api.update(object.clone(), None).unwrap_err().code, 422);
    let made = api.update(object, Some("resize")).unwrap();
    let container = &made["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/web:1.0");
    assert_eq!(container["resources"], json!({"requests": {"cpu": "1"}}));
}

#[test]
fn a_service_keeps_the_address_that_it_was_given() {
    let mut api = api();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    let made = api.create(service.clone()).unwrap();
    assert_eq!(made["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    let mut replaced = service;
    replaced["spec"]["selector"] = json!({"app": "other"});
    let replaced = api.update(replaced, None).unwrap();
    assert_eq!(replaced["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let moved = json!({"spec": {"clusterIP": "10.96.9.9"}});
    let refused = patch(&mut api, "services", "web", PatchKind::Merge, moved).unwrap_err();
    assert!(refused.message.contains("may not change once set"), "{refused}");
}

#[test]
fn selectors_and_other_fixed_fields_cannot_be_changed() {
    let mut api = api();
    api.create(deployment()).unwrap();
    let other = json!({"spec": {
        "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}},
    }});
    let refused = patch(&mut api, "deployments.apps", "web", PatchKind::Merge, other).unwrap_err();
    assert_eq!(
        refused.message,
        "Deployment.apps \"web\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is \
         immutable"
    );
    let fixed = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "immutable": true, "data": {"a": "1"},
    });
    api.create(fixed).unwrap();
    let changed = json!({"data": {"a": "2"}});
    assert_eq!(patch(&mut api, "configmaps", "c", PatchKind::Merge, changed).unwrap_err().code, 422);
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"minReplicas": 0, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
    });
    assert_eq!(api.create(scaler).unwrap_err().code, 422);
}
