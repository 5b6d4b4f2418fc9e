//! Creating, reading and updating.

use serde_json::{Value, json};

use super::server::Server;

const MAPS: &str = "/api/v1/namespaces/NS/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn an_object_is_created_read_and_created_no_second_time() {
    let mut server = Server::start().await;
    server.see("POST", MAPS, map("one", json!({"a": "1"}))).await;
    server.see("POST", MAPS, map("one", json!({"a": "2"}))).await;
    server.see("GET", &format!("{MAPS}/one"), Value::Null).await;
    server.see("GET", &format!("{MAPS}/two"), Value::Null).await;
    server.see("POST", "/api/v1/namespaces/nowhere-at-all/configmaps", map("one", json!({}))).await;
    matches!(server);
}

#[tokio::test]
async fn an_update_on_an_older_version_is_a_conflict() {
    let mut server = Server::start().await;
    let made = server.ask("POST", MAPS, map("one", json!({"a": "1"}))).await;
    let path = format!("{MAPS}/one");
    let mut changed = made.body.clone();
    changed["data"]["a"] = "2".into();
    let updated = server.see_part("PUT", &path, changed.clone(), &["/data"]).await;
    changed["data"]["a"] = "3".into();
    server.see("PUT", &path, changed.clone()).await;
    server.note("without a resource version it goes through");
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.see_part("PUT", &path, changed.clone(), &["/data"]).await;
    server.note("with another UID it does not");
    changed["metadata"]["uid"] = "b5ae3b4c-9d4b-4c9e-8d5c-0f3c3a1d2e4f".into();
    server.see("PUT", &path, changed).await;
    server.note("what is gone is not made by an update");
    server.see("PUT", &format!("{MAPS}/two"), map("two", json!({}))).await;
    let mut late = updated.body.clone();
    late["metadata"]["name"] = "two".into();
    server.see("PUT", &format!("{MAPS}/two"), late).await;
    matches!(server);
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let mut server = Server::start().await;
    let made = server.ask("POST", MAPS, map("one", json!({"a": "1"}))).await;
    let again = server.ask("PUT", &format!("{MAPS}/one"), made.body.clone()).await;
    assert_eq!(again.text("/metadata/resourceVersion"), made.text("/metadata/resourceVersion"));
    let patched = server.ask("PATCH", &format!("{MAPS}/one"), json!({"data": {"a": "1"}})).await;
    assert_eq!(patched.text("/metadata/resourceVersion"), made.text("/metadata/resourceVersion"));
}

#[tokio::test]
async fn a_name_is_made_up_where_only_its_beginning_is_given() {
    let mut server = Server::start().await;
    let mut made = map("", json!({}));
    made["metadata"] = json!({"generateName": "made-"});
    server.see("POST", MAPS, made.clone()).await;
    made["metadata"] = json!({});
    server.see("POST", MAPS, made).await;
    matches!(server);
}

#[tokio::test]
async fn names_labels_and_keys_that_are_none_are_refused() {
    let mut server = Server::start().await;
    for name in ["Upper", "under_score", "-dash", "dot..dot", &"x".repeat(254)] {
        server.see("POST", MAPS, map(name, json!({}))).await;
    }
    server.see("POST", MAPS, map("one", json!({"a b": "1"}))).await;
    let mut labels = map("one", json!({}));
    labels["metadata"]["labels"] = json!({"a b": "c", "d": "e f", "-x": "y"});
    server.see("POST", MAPS, labels).await;
    let mut annotations = map("one", json!({}));
    annotations["metadata"]["annotations"] = json!({"a b": "c"});
    server.see("POST", MAPS, annotations).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "1st"}, "spec": {"ports": [{"port": 80}]},
    });
    server.see("POST", "/api/v1/namespaces/NS/services", service.clone()).await;
    let mut long = service;
    long["metadata"]["name"] = "x".repeat(64).into();
    server.see("POST", "/api/v1/namespaces/NS/services", long).await;
    matches!(server);
}

#[tokio::test]
async fn what_does_not_fit_its_path_is_refused() {
    let mut server = Server::start().await;
    server.see("GET", "/apis/apps/v1/namespaces/NS/things", Value::Null).await;
    server.see("PUT", &format!("{MAPS}/one"), map("two", json!({}))).await;
    let mut elsewhere = map("one", json!({}));
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    server.see("POST", MAPS, elsewhere).await;
    let mut other = map("one", json!({}));
    other["kind"] = "Secret".into();
    server.see("POST", MAPS, other).await;
    server.see("POST", MAPS, json!({})).await;
    server.see("GET", "/apis/nothing.example/v1/things", Value::Null).await;
    server.see("GET", &format!("{MAPS}/one/nothing"), Value::Null).await;
    server.see("PUT", MAPS, map("one", json!({}))).await;
    matches!(server);
}

#[tokio::test]
async fn an_unknown_field_is_dropped_warned_of_or_refused_as_asked() {
    let mut server = Server::start().await;
    let unknown = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80, "prot": 1}], "selektor": {"a": "b"}},
        })
    };
    let path = "/api/v1/namespaces/NS/services";
    for (name, how) in [("one", ""), ("two", "?fieldValidation=Ignore"), ("three", "?fieldValidation=Strict")] {
        server.see_part("POST", &format!("{path}{how}"), unknown(name), &["/spec/ports", "/spec/selektor"]).await;
    }
    server.see_part("POST", &format!("{path}?fieldValidation=Warn"), unknown("four"), &["/spec/ports"]).await;
    matches!(server);
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let mut server = Server::start().await;
    let dry = format!("{MAPS}?dryRun=All");
    server.see("POST", &dry, map("one", json!({"a": "1"}))).await;
    server.see_part("GET", &format!("{MAPS}/one"), Value::Null, &[]).await;
    server.ask("POST", MAPS, map("one", json!({"a": "1"}))).await;
    server.see("POST", &dry, map("one", json!({"a": "1"}))).await;
    let path = format!("{MAPS}/one?dryRun=All");
    server.see_part("PATCH", &path, json!({"data": {"a": "2"}}), &["/data"]).await;
    server.see_part("DELETE", &path, Value::Null, &["/status"]).await;
    server.see_part("GET", &format!("{MAPS}/one"), Value::Null, &["/data"]).await;
    server.see("POST", &format!("{MAPS}?dryRun=Some"), map("two", json!({}))).await;
    matches!(server);
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let mut server = Server::start().await;
    let mut fixed = map("one", json!({"a": "1"}));
    fixed["immutable"] = true.into();
    server.see_part("POST", MAPS, fixed, &["/immutable"]).await;
    server.see("PATCH", &format!("{MAPS}/one"), json!({"data": {"a": "2"}})).await;
    server.see("PATCH", &format!("{MAPS}/one"), json!({"immutable": false})).await;
    server
        .see_part("PATCH", &format!("{MAPS}/one"), json!({"metadata": {"labels": {"a": "b"}}}), &["/metadata/labels"])
        .await;
    matches!(server);
}
