//! Server-side apply: who owns what, conflicts, force, and what goes when it is no longer sent.

use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

const WEB: &str = "/apis/apps/v1/namespaces/NS/deployments/web";
const SERVICE: &str = "/api/v1/namespaces/NS/services/web";
const REPLICAS: &[&str] = &["/spec/replicas"];

fn web(replicas: Option<u32>) -> Value {
    let mut web = deployment();
    if let Some(replicas) = replicas {
        web["spec"]["replicas"] = replicas.into();
    }
    web
}

fn only(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn by(manager: &str) -> String {
    format!("{WEB}?fieldManager={manager}")
}

#[tokio::test]
async fn what_was_applied_is_owned_and_what_was_filled_in_is_not() {
    let mut server = Server::start().await;
    server.tell_owners();
    let owners = ["/metadata/managedFields"];
    // Paused, or its controller would change it all the time.
    let mut web = web(Some(3));
    web["spec"]["paused"] = true.into();
    let made = server.see_part("PATCH", &by("m"), web.clone(), &owners).await;
    let again = server.ask("PATCH", &by("m"), web).await;
    let of_m = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|entry| entry["manager"] == "m").cloned()
    };
    assert_eq!(of_m(&again.body), of_m(&made.body), "nothing new was said");
    server.note("a scale and an update");
    server.ask("PATCH", &format!("{WEB}/scale"), json!({"spec": {"replicas": 4}})).await;
    let mut updated = server.ask("GET", WEB, Value::Null).await.body;
    updated["spec"]["minReadySeconds"] = 5.into();
    updated["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.see_part("PUT", &format!("{WEB}?fieldManager=u"), updated, &owners).await;
    server.note("a status, of a kind whose controller writes none");
    let ports =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    server.see_part("PATCH", &format!("{SERVICE}?fieldManager=m"), ports, &owners).await;
    let condition = json!({
        "type": "example.com/Seen", "status": "True", "reason": "Looked", "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z",
    });
    let seen = json!({"status": {"conditions": [condition]}});
    server.see_patch("application/merge-patch+json", &format!("{SERVICE}/status?fieldManager=s"), seen, &owners).await;
    matches!(server);
}

#[tokio::test]
async fn what_another_manager_has_is_a_conflict_unless_forced() {
    let mut server = Server::start().await;
    server.ask("PATCH", &by("m"), web(Some(3))).await;
    server.see("PATCH", &by("other"), only(json!({"replicas": 4}))).await;
    let two = only(json!({"replicas": 4, "template": {"spec": {"containers": [{"name": "web", "image": "web:9"}]}}}));
    server.see("PATCH", &by("other"), two.clone()).await;
    server.note("the same value is no conflict: both own it");
    server.see_part("PATCH", &by("other"), only(json!({"replicas": 3})), REPLICAS).await;
    server.see("PATCH", &by("m"), web(Some(5))).await;
    server.see_part("PATCH", &format!("{}&force=true", by("other")), two, REPLICAS).await;
    server.see("PATCH", &by("m"), web(Some(3))).await;
    server.note("an autoscaler wrote");
    server
        .see_patch("application/merge-patch+json", &format!("{WEB}/scale"), json!({"spec": {"replicas": 7}}), REPLICAS)
        .await;
    server.see("PATCH", &by("other"), only(json!({"replicas": 4}))).await;
    server.see_part("PATCH", &by("other"), only(json!({"minReadySeconds": 1})), REPLICAS).await;
    matches!(server);
}

#[tokio::test]
async fn what_is_no_longer_sent_goes_unless_somebody_else_has_it() {
    let mut server = Server::start().await;
    let mut full = web(Some(10));
    full["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    full["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    full["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1});
    server.ask("PATCH", &by("m"), full.clone()).await;
    let mut shared =
        only(json!({"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "B", "value": "2"}]}]}}}));
    shared["metadata"]["labels"] = json!({"b": "2"});
    server.ask("PATCH", &by("other"), shared).await;
    let parts = ["/metadata/labels", "/spec/replicas", "/spec/template/spec/containers/0"];
    server.see_part("PATCH", &by("m"), web(None), &parts).await;
    server.note("held by another before it is given up, the number stays");
    server.ask("PATCH", &by("m"), web(Some(10))).await;
    server.ask("PATCH", &by("keeper"), only(json!({"replicas": 10}))).await;
    server.see_part("PATCH", &by("m"), web(None), REPLICAS).await;
    matches!(server);
}

#[tokio::test]
async fn a_selector_of_a_service_is_one_value() {
    let mut server = Server::start().await;
    let service = |selector: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": selector, "ports": [{"port": 80}]}});
    let path = |manager: &str| format!("{SERVICE}?fieldManager={manager}");
    server.see_part("PATCH", &path("m"), service(json!({"app": "web"})), &["/spec/selector"]).await;
    server.see("PATCH", &path("other"), service(json!({"app": "web", "x": "1"}))).await;
    server
        .see_part("PATCH", &format!("{}&force=true", path("other")), service(json!({"x": "1"})), &["/spec/selector"])
        .await;
    matches!(server);
}

#[tokio::test]
async fn a_list_keeps_the_order_that_is_sent_and_what_others_put_in() {
    let mut server = Server::start().await;
    let env = |names: &[&str]| {
        let mut made = web(None);
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        made["spec"]["template"]["spec"]["containers"][0]["env"] = list.into();
        made
    };
    let part = ["/spec/template/spec/containers/0/env"];
    server.see_part("PATCH", &by("m"), env(&["A", "B"]), &part).await;
    server.see_part("PATCH", &by("other"), env(&["C"]), &part).await;
    server.see_part("PATCH", &by("m"), env(&["B", "A"]), &part).await;
    server.see_part("PATCH", &by("m"), env(&["D", "A"]), &part).await;
    matches!(server);
}

#[tokio::test]
async fn an_apply_says_what_it_was_decided_on() {
    let mut server = Server::start().await;
    let path = "/api/v1/namespaces/NS/configmaps/one";
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    let map = |colour: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"colour": colour}});
    let made = server.ask("PATCH", &by("m"), map("blue")).await;
    let mut stale = map("green");
    stale["metadata"]["resourceVersion"] = made.body["metadata"]["resourceVersion"].clone();
    server.see_part("PATCH", &by("m"), stale.clone(), &["/data"]).await;
    stale["data"]["colour"] = "red".into();
    server.see("PATCH", &by("m"), stale).await;
    let mut replaced = map("red");
    replaced["metadata"]["uid"] = "b5ae3b4c-9d4b-4c9e-8d5c-0f3c3a1d2e4f".into();
    server.see("PATCH", &format!("{}&force=true", by("m")), replaced).await;
    server.note("and who it is by");
    server.see_patch("application/apply-patch+yaml", path, map("red"), &[]).await;
    server.note("and carries no managedFields");
    let mut owned = map("red");
    owned["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    server.see("PATCH", &by("m"), owned).await;
    matches!(server);
}

#[tokio::test]
async fn an_apply_with_a_wrong_name_unknown_field_or_double_key_is_refused() {
    let mut server = Server::start().await;
    let mut other = web(None);
    other["metadata"]["name"] = "other".into();
    server.see("PATCH", &by("m"), other).await;
    let mut unknown = web(None);
    unknown["spec"]["replikas"] = 3.into();
    server.see("PATCH", &by("m"), unknown).await;
    let mut double = web(None);
    double["spec"]["template"]["spec"]["containers"] =
        json!([{"name": "web", "image": "a"}, {"name": "web", "image": "b"}]);
    server.see("PATCH", &by("m"), double).await;
    let mut kind = web(None);
    kind["kind"] = "StatefulSet".into();
    server.see("PATCH", &by("m"), kind).await;
    matches!(server);
}

#[tokio::test]
async fn images_of_a_pod_cannot_be_given_up() {
    let mut server = Server::start().await;
    let path = "/api/v1/namespaces/NS/pods/one?fieldManager=m";
    let pod = |container: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"containers": [container]}});
    server.see_part("PATCH", path, pod(json!({"name": "web", "image": "web:1"})), &["/spec/containers/0/image"]).await;
    server.see("PATCH", path, pod(json!({"name": "web"}))).await;
    matches!(server);
}

#[tokio::test]
async fn a_dry_run_of_an_apply_changes_nothing() {
    let mut server = Server::start().await;
    server.see_part("PATCH", &format!("{}&dryRun=All", by("m")), web(Some(3)), REPLICAS).await;
    server.see_part("GET", WEB, Value::Null, &[]).await;
    matches!(server);
}
