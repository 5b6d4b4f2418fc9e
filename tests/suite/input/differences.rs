//! Whether applying would change a live object: each case is what is sent, what is live, and what would change.
#![allow(clippy::unwrap_used)]

use locktender::core::{
    diff::{FieldChange, is_applied_by, owned_differs},
    manifest::Object,
};
use serde_json::{Value, json};

/// A live object, with what `locktender` owns of it.
fn live(mut object: Value, owned: Value) -> Object {
    object["metadata"]["managedFields"] = json!([
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:other": {}}}},
        {"manager": "locktender", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
        {"manager": "locktender", "operation": "Apply", "fieldsV1": owned},
    ]);
    Object(object)
}

fn changes(desired: &Value, live: &Object) -> Vec<String> {
    let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
    let changes = owned_differs(&Object(desired.clone()), live, "locktender");
    changes
        .iter()
        .map(|change: &FieldChange| format!("{}: {} → {}", change.path, show(&change.from), show(&change.to)))
        .collect()
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "web",
                        "image": "web:1",
                        "ports": [{"containerPort": 8080}],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}],
                        "resources": {"requests": {"cpu": "1000m", "memory": 1_073_741_824}},
                    }],
                },
            },
        },
    })
}

/// What a server makes of it: defaults, other people's fields, quantities in their shortest form.
fn stored() -> Object {
    let mut object = deployment();
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["generation"] = json!(4);
    object["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    object["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    object["spec"]["progressDeadlineSeconds"] = json!(600);
    let pod = &mut object["spec"]["template"]["spec"];
    pod["restartPolicy"] = json!("Always");
    let container = &mut pod["containers"][0];
    container["imagePullPolicy"] = json!("IfNotPresent");
    container["ports"] = json!([{"containerPort": 8080, "protocol": "TCP"}]);
    container["resources"]["requests"] = json!({"cpu": "1", "memory": "1Gi"});
    object["status"] = json!({"replicas": 3});
    let container = json!({
        ".": {}, "f:name": {}, "f:image": {}, "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}},
        "f:ports": {"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
        "f:env": {
            "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
            "k:{\"name\":\"B\"}": {".": {}, "f:name": {}, "f:value": {}},
        },
    });
    live(
        object,
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": container}},
                },
            },
        }),
    )
}

#[test]
fn what_a_server_fills_in_is_no_difference() {
    assert_eq!(changes(&deployment(), &stored()), [""; 0]);
}

#[test]
fn a_changed_field_is_named_by_its_keys() {
    let mut desired = deployment();
    desired["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    desired["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = json!("2");
    desired["metadata"]["labels"]["example.com/tier"] = json!("front");
    assert_eq!(
        changes(&desired, &stored()),
        [
            r#"metadata.labels[example.com/tier]: - → "front""#,
            r#"spec.template.spec.containers[name=web].env[name=B].value: "$(A)" → "2""#,
            r#"spec.template.spec.containers[name=web].image: "web:1" → "web:2""#,
        ]
    );
}

#[test]
fn what_we_own_and_no_longer_send_goes() {
    let mut desired = deployment();
    desired["metadata"].as_object_mut().unwrap().remove("labels");
    desired["spec"].as_object_mut().unwrap().remove("replicas");
    let container = desired["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap();
    container["env"] = json!([{"name": "B", "value": "$(A)"}]);
    container.remove("resources");
    assert_eq!(
        changes(&desired, &stored()),
        [
            r#"metadata.labels.app: "web" → -"#,
            r#"spec.template.spec.containers[name=web].env[{"name":"A"}]: {"name":"A","value":"1"} → -"#,
            r#"spec.template.spec.containers[name=web].resources.requests.cpu: "1" → -"#,
            r#"spec.template.spec.containers[name=web].resources.requests.memory: "1Gi" → -"#,
            "spec.replicas: 3 → -",
        ]
    );
}

#[test]
fn what_others_own_is_not_looked_at() {
    let mut other = stored();
    other.set(&["spec", "other"], json!("theirs"));
    other.set(&["metadata", "labels", "theirs"], json!("x"));
    assert_eq!(changes(&deployment(), &other), [""; 0]);
}

#[test]
fn the_order_of_variables_counts_and_that_of_ports_does_not() {
    let mut desired = deployment();
    let env = desired["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    env.reverse();
    assert_eq!(
        changes(&desired, &stored()),
        [r#"spec.template.spec.containers[name=web].env: ["name=A","name=B"] → ["name=B","name=A"]"#]
    );
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports}});
    let ports = json!([{"port": 80, "targetPort": 8080}, {"port": 53, "protocol": "UDP"}]);
    let stored =
        json!([{"port": 53, "protocol": "UDP", "targetPort": 53}, {"port": 80, "protocol": "TCP", "targetPort": 8080}]);
    assert_eq!(changes(&service(ports), &live(service(stored), json!({}))), [""; 0]);
}

#[test]
fn empty_values_and_absent_ones_are_the_same() {
    let object = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec});
    let desired = object(json!({"hostNetwork": false, "a": "", "b": {}, "c": [], "d": null, "e": 0}));
    assert_eq!(changes(&desired, &live(object(json!({})), json!({}))), [""; 0]);
    let desired = object(json!({"d": null}));
    assert_eq!(changes(&desired, &live(object(json!({"d": 5})), json!({"f:spec": {"f:d": {}}}))), ["spec.d: 5 → -"]);
}

#[test]
fn numbers_and_texts_are_not_the_same_but_for_quantities() {
    let object = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
    let live = live(object(json!({"targetPort": "80", "limits": {"cpu": "2"}, "weight": 1.0})), json!({}));
    assert_eq!(changes(&object(json!({"limits": {"cpu": 2}, "weight": 1})), &live), [""; 0]);
    assert_eq!(changes(&object(json!({"targetPort": 80})), &live), [r#"spec.targetPort: "80" → 80"#]);
    assert_eq!(changes(&object(json!({"limits": {"cpu": "3"}})), &live), [r#"spec.limits.cpu: "2" → "3""#]);
    // In data, texts that look like quantities are texts.
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"limits": value}});
    assert_eq!(changes(&map("1"), &Object(map("1000m"))), [r#"data.limits: "1000m" → "1""#]);
}

#[test]
fn atomic_lists_go_as_a_whole() {
    let route = |rules: Value| json!({"apiVersion": "v1", "kind": "HTTPRoute", "metadata": {"name": "a"}, "spec": {"rules": rules}});
    let stored = live(route(json!([{"backend": "a", "weight": 1}])), json!({"f:spec": {"f:rules": {}}}));
    assert_eq!(changes(&route(json!([{"backend": "a"}])), &stored), [""; 0]);
    let both = json!([{"backend": "a"}, {"backend": "b"}]);
    assert_eq!(
        changes(&route(both), &stored),
        [r#"spec.rules: [{"backend":"a","weight":1}] → [{"backend":"a"},{"backend":"b"}]"#]
    );
    // Somebody else took the list over: what they added inside of it is not ours to overlook.
    let taken = live(route(json!([{"backend": "a", "weight": 1}])), json!({"f:spec": {}}));
    assert_eq!(changes(&route(json!([{"backend": "a"}])), &taken).len(), 1);
}

#[test]
fn lists_inside_of_atomic_ones_go_with_them() {
    let policy = |ports: Value| {
        let spec = json!({"ingress": [{"ports": ports}]});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": spec})
    };
    let both = json!([{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]);
    let stored = live(policy(both.clone()), json!({"f:spec": {"f:ingress": {}}}));
    assert_eq!(changes(&policy(json!([{"port": 80}, {"port": 443}])), &stored), [""; 0]);
    assert_eq!(changes(&policy(json!([{"port": 80}])), &stored).len(), 1);
}

#[test]
fn what_we_own_says_how_a_custom_resources_lists_merge() {
    let thing = |parts: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"parts": parts}});
    let theirs_too = thing(json!([{"id": "theirs"}, {"id": "ours", "size": 1, "default": true}]));
    let owned = json!({"f:spec": {"f:parts": {"k:{\"id\":\"ours\"}": {".": {}, "f:id": {}, "f:size": {}}}}});
    let stored = live(theirs_too.clone(), owned);
    assert_eq!(changes(&thing(json!([{"id": "ours", "size": 1}])), &stored), [""; 0]);
    assert_eq!(changes(&thing(json!([{"id": "ours", "size": 2}])), &stored), ["spec.parts[id=ours].size: 1 → 2"]);
    assert_eq!(changes(&thing(json!([{"id": "ours"}])), &stored), ["spec.parts[id=ours].size: 1 → -"]);
    // Without that, nothing says that it is no atomic list.
    assert_eq!(changes(&thing(json!([{"id": "ours", "size": 1}])), &Object(theirs_too)).len(), 1);
}

#[test]
fn sets_lose_only_what_we_put_there() {
    let object = |finalizers: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "finalizers": finalizers}});
    let owned = json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"ours/a\"": {}, "v:\"ours/b\"": {}}}});
    let stored = live(object(json!(["ours/a", "ours/b", "theirs/c"])), owned);
    assert_eq!(changes(&object(json!(["ours/b", "ours/a"])), &stored), [""; 0]);
    assert_eq!(changes(&object(json!(["ours/a"])), &stored), [r#"metadata.finalizers["ours/b"]: "ours/b" → -"#]);
    assert_eq!(
        changes(&object(json!(["ours/a", "ours/b", "ours/d"])), &stored),
        [r#"metadata.finalizers: - → "ours/d""#]
    );
}

#[test]
fn fault_87_a_secrets_change_shows_hashes() {
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"password": value}});
    let shown = changes(&secret("aHVudGVyMg=="), &Object(secret("aHVudGVyMw==")));
    assert!(shown.len() == 1 && shown[0].starts_with(r#"data.password: "(sha256 "#), "{shown:?}");
    assert!(!shown[0].contains("aHVudGVy"), "{shown:?}");
}

#[test]
fn whether_we_applied_it_before_is_another_question() {
    assert!(is_applied_by(&stored(), "locktender"));
    assert!(!is_applied_by(&Object(deployment()), "locktender"));
}
