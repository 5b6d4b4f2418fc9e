//! Server-side apply: who owns what, conflicts, and what goes when it is no longer sent.

#![allow(clippy::unwrap_used)]

use locktender::sandbox::api::{Api, PatchKind, PatchRequest, Status, WriteOptions};
use serde_json::{Value, json};

use super::{api, deployment, patch};

fn apply_as(api: &mut Api, manager: &str, object: Value, force: bool) -> Result<Value, Status> {
    let kind = object["kind"].as_str().unwrap();
    let resource = match kind {
        "Deployment" => "deployments.apps",
        "Service" => "services",
        "ConfigMap" => "configmaps",
        _ => "pods",
    };
    let request = PatchRequest {
        resource: resource.into(),
        namespace: "default".into(),
        name: object["metadata"]["name"].as_str().unwrap().into(),
        subresource: None,
        kind: PatchKind::Apply,
        body: object,
        force,
        options: WriteOptions { manager: manager.into(), ..WriteOptions::default() },
    };
    api.patch(request).map(|object| Value::clone(&object))
}

fn owner<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|entry| entry["manager"] == manager).unwrap()["fieldsV1"]
}

#[test]
fn what_was_applied_is_owned_and_what_was_filled_in_is_not() {
    let mut api = api();
    let made = apply_as(&mut api, "m", deployment(), false).unwrap();
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{
            "manager": "m", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-11-21T12:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {}, "f:name": {}, "f:image": {},
                        "f:ports": {"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }}},
                },
            }},
        }])
    );
    let version = made["metadata"]["resourceVersion"].clone();
    let again = apply_as(&mut api, "m", deployment(), false).unwrap();
    assert_eq!(again["metadata"]["resourceVersion"], version, "nothing new was said");
}

#[test]
fn what_is_no_longer_sent_goes_unless_somebody_else_has_it() {
    let mut api = api();
    let mut full = deployment();
    full["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    full["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    full["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1});
    apply_as(&mut api, "m", full.clone(), false).unwrap();
    let shared = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"b": "2"}},
        "spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "B", "value": "2"}]}]}}},
    });
    apply_as(&mut api, "other", shared, false).unwrap();
    let made = apply_as(&mut api, "m", deployment(), false).unwrap();
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(made["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(container["env"], json!([{"name": "B", "value": "2"}]));
    assert!(container.get("securityContext").is_none());
}

#[test]
fn replicas_that_are_given_up_fall_back_to_the_default_unless_held() {
    let mut api = api();
    let mut ten = deployment();
    ten["spec"]["replicas"] = 10.into();
    let mut none = deployment();
    none["spec"].as_object_mut().unwrap().remove("replicas");
    apply_as(&mut api, "m", ten.clone(), false).unwrap();
    assert_eq!(apply_as(&mut api, "m", none.clone(), false).unwrap()["spec"]["replicas"], 1);
    apply_as(&mut api, "m", ten, false).unwrap();
    let held =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 10}});
    apply_as(&mut api, "handover", held, false).unwrap();
    assert_eq!(apply_as(&mut api, "m", none, false).unwrap()["spec"]["replicas"], 10);
}

#[test]
fn changing_what_another_manager_has_is_a_conflict() {
    let mut api = api();
    apply_as(&mut api, "m", deployment(), false).unwrap();
    let scaled = json!({"spec": {"replicas": 7}, "metadata": {"labels": {"x": "1"}}});
    let made = patch(&mut api, "deployments.apps", "web", PatchKind::Merge, scaled).unwrap();
    assert_eq!(
        owner(&made, "test"),
        &json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}, "f:spec": {"f:replicas": {}}})
    );
    assert!(owner(&made, "m")["f:spec"].get("f:replicas").is_none());

    let refused = apply_as(&mut api, "m", deployment(), false).unwrap_err();
    assert_eq!((refused.code, refused.reason), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"test\" using apps/v1: .spec.replicas");
    assert_eq!(
        refused.to_value()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"test\" using apps/v1", "field": ".spec.replicas"}])
    );
    let mut both = deployment();
    both["metadata"]["labels"] = json!({"x": "2"});
    let refused = apply_as(&mut api, "m", both, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"test\" using apps/v1:\n- .metadata.labels.x\n- .spec.replicas"
    );
    let mut image = deployment();
    image["spec"]["replicas"] = 7.into();
    image["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2".into();
    apply_as(&mut api, "m", image.clone(), false).unwrap();
    image["spec"]["template"]["spec"]["containers"][0]["image"] = "x:3".into();
    let refused = apply_as(&mut api, "other", image, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"m\": .spec.template.spec.containers[name=\"web\"].image"
    );

    let forced = apply_as(&mut api, "m", deployment(), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(owner(&forced, "test"), &json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}));
}

#[test]
fn a_services_selector_is_one_value() {
    let mut api = api();
    let service = |selector: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        })
    };
    let made = apply_as(&mut api, "m", service(json!({"app": "web"})), false).unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!([made["spec"]["clusterIP"]]));
    let refused = apply_as(&mut api, "other", service(json!({"app": "web", "x": "1"})), false).unwrap_err();
    assert!(refused.message.ends_with("conflict with \"m\": .spec.selector"), "{refused}");
    let forced = apply_as(&mut api, "other", service(json!({"x": "1"})), true).unwrap();
    assert_eq!(forced["spec"]["selector"], json!({"x": "1"}));
}

#[test]
fn an_apply_that_was_decided_on_an_older_version_is_refused() {
    let mut api = api();
    let made = apply_as(&mut api, "m", deployment(), false).unwrap();
    patch(&mut api, "deployments.apps", "web", PatchKind::Merge, json!({"metadata": {"labels": {"x": "1"}}})).unwrap();
    let mut stale = deployment();
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert_eq!(apply_as(&mut api, "m", stale, false).unwrap_err().code, 409);
    let mut replaced = deployment();
    replaced["metadata"]["uid"] = "another".into();
    assert_eq!(apply_as(&mut api, "m", replaced, true).unwrap_err().code, 422);
}

#[test]
fn a_list_keeps_the_order_that_is_sent_and_what_others_put_in() {
    let mut api = api();
    let env = |names: &[&str]| {
        let mut made = deployment();
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        made["spec"]["template"]["spec"]["containers"][0]["env"] = list.into();
        made
    };
    apply_as(&mut api, "m", env(&["A", "B"]), false).unwrap();
    apply_as(&mut api, "other", env(&["C"]), false).unwrap();
    let made = apply_as(&mut api, "m", env(&["B", "A"]), false).unwrap();
    let list = made["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| **name != "C").copied().collect::<Vec<_>>(), ["B", "A"]);
    assert_eq!(names.len(), 3);
}

#[test]
fn images_of_a_pod_cannot_be_given_up() {
    let mut api = api();
    let mut made = super::pod("a");
    apply_as(&mut api, "m", made.clone(), false).unwrap();
    made["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
    assert_eq!(apply_as(&mut api, "m", made, false).unwrap_err().code, 422);
}

#[test]
fn labels_that_are_all_given_up_go_and_the_name_stays() {
    let mut api = api();
    let map = |labels: Value| {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
        if !labels.is_null() {
            map["metadata"]["labels"] = labels;
        }
        map
    };
    apply_as(&mut api, "m", map(json!({"app": "web"})), false).unwrap();
    let without = apply_as(&mut api, "m", map(Value::Null), false).unwrap();
    assert_eq!((&without["metadata"]["name"], &without["metadata"]["labels"]), (&json!("settings"), &Value::Null));
}
