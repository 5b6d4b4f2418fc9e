//! Deleting: preconditions, finalizers, dependents, grace, collections, namespaces.

use serde_json::{Value, json};

use super::server::Server;

const MAPS: &str = "/api/v1/namespaces/NS/configmaps";

async fn make(server: &mut Server, name: &str, metadata: Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    map["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    let made = server.ask("POST", MAPS, map).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

fn owned_by(owner: &Value, blocks: bool) -> Value {
    json!({"ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }]})
}

fn options(more: Value) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let mut server = Server::start().await;
    make(&mut server, "one", json!({})).await;
    server.see("DELETE", &format!("{MAPS}/one"), Value::Null).await;
    server.see("DELETE", &format!("{MAPS}/one"), Value::Null).await;
    matches!(server);
}

#[tokio::test]
async fn only_what_was_meant_is_deleted() {
    let mut server = Server::start().await;
    let made = make(&mut server, "one", json!({})).await;
    let one = format!("{MAPS}/one");
    let other = "b5ae3b4c-9d4b-4c9e-8d5c-0f3c3a1d2e4f";
    server.see_part("DELETE", &one, options(json!({"preconditions": {"uid": other}})), &[]).await;
    let answer = server.ask("DELETE", &one, options(json!({"preconditions": {"resourceVersion": "1"}}))).await;
    server.tell_value("an older version", json!([answer.status, answer.body["reason"]]));
    server.see("DELETE", &format!("{one}?propagationPolicy=Never"), Value::Null).await;
    let uid = made["metadata"]["uid"].clone();
    server.see_part("DELETE", &one, options(json!({"preconditions": {"uid": uid}})), &["/status"]).await;
    matches!(server);
}

#[tokio::test]
async fn a_finalizer_keeps_what_is_deleted() {
    let mut server = Server::start().await;
    make(&mut server, "one", json!({"finalizers": ["example.com/keep"]})).await;
    let one = format!("{MAPS}/one");
    let parts = ["/metadata/deletionTimestamp", "/metadata/deletionGracePeriodSeconds", "/metadata/finalizers"];
    server.see_part("DELETE", &one, Value::Null, &parts).await;
    server.see_part("DELETE", &one, Value::Null, &parts).await;
    server.note("it can be changed, but no finalizer can be added");
    server.see_part("PATCH", &one, json!({"data": {"a": "b"}}), &["/data"]).await;
    server.see("PATCH", &one, json!({"metadata": {"finalizers": ["example.com/keep", "example.com/more"]}})).await;
    server.see("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}})).await;
    server.see_part("PATCH", &one, json!({"metadata": {"finalizers": []}}), &["/metadata/name"]).await;
    server.see_part("GET", &one, Value::Null, &[]).await;
    server.note("a finalizer has a domain");
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two", "finalizers": ["keep"]}});
    server.see("POST", MAPS, bad).await;
    matches!(server);
}

#[tokio::test]
async fn dependents_go_after_their_owner() {
    let mut server = Server::start().await;
    let owner = make(&mut server, "owner", json!({})).await;
    make(&mut server, "dependent", owned_by(&owner, false)).await;
    server
        .see_part("DELETE", &format!("{MAPS}/owner"), options(json!({"propagationPolicy": "Background"})), &["/status"])
        .await;
    server.until(&format!("{MAPS}/dependent"), |answer| answer.status == 404).await;
}

#[tokio::test]
async fn dependents_that_block_go_before_their_owner() {
    let mut server = Server::start().await;
    let owner = make(&mut server, "owner", json!({})).await;
    let mut metadata = owned_by(&owner, true);
    metadata["finalizers"] = json!(["example.com/keep"]);
    make(&mut server, "dependent", metadata).await;
    let parts = ["/metadata/finalizers", "/metadata/deletionTimestamp"];
    server
        .see_part("DELETE", &format!("{MAPS}/owner"), options(json!({"propagationPolicy": "Foreground"})), &parts)
        .await;
    server.until(&format!("{MAPS}/dependent"), |answer| answer.body["metadata"]["deletionTimestamp"].is_string()).await;
    server.see_part("GET", &format!("{MAPS}/owner"), Value::Null, &["/metadata/finalizers"]).await;
    server.ask("PATCH", &format!("{MAPS}/dependent"), json!({"metadata": {"finalizers": null}})).await;
    server.until(&format!("{MAPS}/owner"), |answer| answer.status == 404).await;
    matches!(server);
}

#[tokio::test]
async fn dependents_that_are_orphaned_stay() {
    let mut server = Server::start().await;
    let owner = make(&mut server, "owner", json!({})).await;
    make(&mut server, "dependent", owned_by(&owner, true)).await;
    let parts = ["/metadata/finalizers"];
    server.see_part("DELETE", &format!("{MAPS}/owner"), options(json!({"propagationPolicy": "Orphan"})), &parts).await;
    server.until(&format!("{MAPS}/owner"), |answer| answer.status == 404).await;
    server.see_part("GET", &format!("{MAPS}/dependent"), Value::Null, &["/metadata/ownerReferences"]).await;
    matches!(server);
}

#[tokio::test]
async fn what_has_no_owner_any_more_is_collected() {
    let mut server = Server::start().await;
    let owner = make(&mut server, "owner", json!({})).await;
    server.ask("DELETE", &format!("{MAPS}/owner"), Value::Null).await;
    make(&mut server, "late", owned_by(&owner, false)).await;
    server.until(&format!("{MAPS}/late"), |answer| answer.status == 404).await;
}

#[tokio::test]
async fn owner_references_that_are_none_are_refused() {
    let mut server = Server::start().await;
    let owner = |more: Value| {
        let mut reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "b5ae3b4c-9d4b-4c9e-8d5c-0f3c3a1d2e4f"});
        reference.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        reference
    };
    let with = |owners: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "ownerReferences": owners}});
    server.see("POST", MAPS, with(json!([owner(json!({"uid": ""}))]))).await;
    server.see("POST", MAPS, with(json!([owner(json!({"name": ""}))]))).await;
    let two = json!([owner(json!({"controller": true})), owner(json!({"controller": true, "name": "y", "uid": "c"}))]);
    server.see("POST", MAPS, with(two)).await;
    matches!(server);
}

#[tokio::test]
async fn a_pod_that_nobody_runs_goes_at_once_and_one_on_a_node_in_its_time() {
    let mut server = Server::start().await;
    let pods = "/api/v1/namespaces/NS/pods";
    let pod = |name: &str, node: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "finalizers": ["example.com/keep"]}, "spec": {"schedulerName": "nobody", "nodeName": node, "containers": [{"name": "web", "image": "web:1"}]}});
    let parts = ["/metadata/deletionGracePeriodSeconds"];
    server.ask("POST", pods, pod("free", Value::Null)).await;
    server.see_part("DELETE", &format!("{pods}/free"), Value::Null, &parts).await;
    server.note("to a real one the node must not be gone, or it collects the pod");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "NS"}});
    server.ask("POST", "/api/v1/nodes", node).await;
    server.ask("POST", pods, pod("bound", "NS".into())).await;
    server.see_part("DELETE", &format!("{pods}/bound"), Value::Null, &parts).await;
    server.note("shorter it can be, longer not");
    server.see_part("DELETE", &format!("{pods}/bound"), options(json!({"gracePeriodSeconds": 5})), &parts).await;
    server.see_part("DELETE", &format!("{pods}/bound"), options(json!({"gracePeriodSeconds": 60})), &parts).await;
    server.see_part("DELETE", &format!("{pods}/bound"), options(json!({"gracePeriodSeconds": 0})), &parts).await;
    for name in ["free", "bound"] {
        server.ask("PATCH", &format!("{pods}/{name}"), json!({"metadata": {"finalizers": null}})).await;
        server.until(&format!("{pods}/{name}"), |answer| answer.status == 404).await;
    }
    server.ask("DELETE", "/api/v1/nodes/NS", Value::Null).await;
    matches!(server);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let mut server = Server::start().await;
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "back")] {
        make(&mut server, name, json!({"labels": {"tier": tier}})).await;
    }
    server.see_part("DELETE", &format!("{MAPS}?labelSelector=tier=back"), Value::Null, &["/kind", "/items"]).await;
    server
        .see_part("GET", &format!("{MAPS}?labelSelector=tier"), Value::Null, &["/items/0/metadata/name", "/items/1"])
        .await;
    matches!(server);
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let mut server = Server::start().await;
    make(&mut server, "kept", json!({"finalizers": ["example.com/keep"]})).await;
    make(&mut server, "one", json!({})).await;
    let space = "/api/v1/namespaces/NS";
    server.see_part("DELETE", space, Value::Null, &["/status/phase", "/spec/finalizers"]).await;
    server.until(&format!("{MAPS}/one"), |answer| answer.status == 404).await;
    server.note("nothing can be made in it");
    server.see("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}})).await;
    server
        .see_part(
            "POST",
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "NS"}}),
            &[],
        )
        .await;
    server.ask("PATCH", &format!("{MAPS}/kept"), json!({"metadata": {"finalizers": null}})).await;
    server.until(space, |answer| answer.status == 404).await;
    matches!(server);
}
