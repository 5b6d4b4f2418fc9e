//! The four types of patches.

use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

const WEB: &str = "/apis/apps/v1/namespaces/NS/deployments/web";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn with_web() -> Server {
    let mut server = Server::start().await;
    let mut web = deployment();
    web["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side", "image": "side:1"},
    ]);
    let made = server.ask("POST", "/apis/apps/v1/namespaces/NS/deployments", web).await;
    assert_eq!(made.status, 201, "{}", made.body);
    server
}

#[tokio::test]
async fn a_json_patch_does_what_it_says_or_nothing() {
    let mut server = with_web().await;
    let label = ["/spec/replicas", "/metadata/labels"];
    let add = json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}, {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    server.see_patch(JSON, WEB, add, &label).await;
    let tested = json!([{"op": "test", "path": "/spec/replicas", "value": 9}, {"op": "replace", "path": "/spec/replicas", "value": 5}]);
    server.see_patch(JSON, WEB, tested, &label).await;
    server.see_patch(JSON, WEB, json!([{"op": "remove", "path": "/metadata/labels/none"}]), &label).await;
    server.see_patch(JSON, WEB, json!([{"op": "replace", "path": "/spec/none/none", "value": 1}]), &label).await;
    server.see_patch(JSON, WEB, json!({"op": "add"}), &label).await;
    let copy = json!([{"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/c"}, {"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/d"}]);
    server.see_patch(JSON, WEB, copy, &label).await;
    let append =
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "C", "value": "3"}}]);
    server.see_patch(JSON, WEB, append, &["/spec/template/spec/containers/0/env"]).await;
    matches!(server);
}

#[tokio::test]
async fn a_merge_patch_replaces_lists_and_takes_null_away() {
    let mut server = with_web().await;
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": null, "minReadySeconds": 3}});
    server.see_patch(MERGE, WEB, patch, &["/metadata/labels", "/spec/replicas", "/spec/minReadySeconds"]).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}});
    server.see_patch(MERGE, WEB, patch, &["/spec/template/spec/containers"]).await;
    server.see_patch(MERGE, WEB, json!({"spec": {"template": {"spec": {"containers": []}}}}), &[]).await;
    server.see_patch(MERGE, WEB, json!([1]), &[]).await;
    let answer = server.ask_patch(MERGE, WEB, json!({"spec": {"replicas": "four"}})).await;
    let details = &answer.body["details"];
    server.tell_value("four", json!([answer.status, answer.body["reason"], details["causes"][0]["field"]]));
    server.see_patch(MERGE, WEB, json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 4}}), &[]).await;
    server.see_patch(MERGE, WEB, json!({"metadata": {"uid": "other"}, "spec": {"replicas": 4}}), &[]).await;
    matches!(server);
}

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_their_keys() {
    let mut server = with_web().await;
    let containers = ["/spec/template/spec/containers"];
    let of = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    server.see_patch(STRATEGIC, WEB, of(json!([{"name": "web", "image": "web:2"}])), &containers).await;
    let env = json!([{"name": "web", "env": [{"name": "A", "value": "9"}, {"name": "C", "value": "3"}, {"name": "B", "$patch": "delete"}]}]);
    server.see_patch(STRATEGIC, WEB, of(env), &containers).await;
    server.see_patch(STRATEGIC, WEB, of(json!([{"name": "new", "image": "new:1"}])), &containers).await;
    server.see_patch(STRATEGIC, WEB, of(json!([{"name": "side", "$patch": "delete"}])), &containers).await;
    let ordered = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}, {"name": "new"}], "containers": [{"name": "web", "image": "web:3"}]}}}});
    server.see_patch(STRATEGIC, WEB, ordered, &containers).await;
    let replaced = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    server.see_patch(STRATEGIC, WEB, replaced, &["/spec/strategy"]).await;
    server.see_patch(STRATEGIC, WEB, json!({"metadata": {"labels": {"a": "b"}}}), &["/metadata/labels"]).await;
    server
        .see_patch(
            STRATEGIC,
            WEB,
            json!({"metadata": {"labels": {"$patch": "replace", "x": "y"}}}),
            &["/metadata/labels"],
        )
        .await;
    matches!(server);
}

#[tokio::test]
async fn a_patch_of_another_type_or_of_what_is_not_there_is_refused() {
    let mut server = with_web().await;
    server.leave_words_out();
    server.see_patch("text/plain", WEB, json!({}), &[]).await;
    let none = "/apis/apps/v1/namespaces/NS/deployments/none";
    server.see_patch(MERGE, none, json!({}), &[]).await;
    server.see_patch(STRATEGIC, none, json!({}), &[]).await;
    server.see_patch(JSON, none, json!([]), &[]).await;
    server.note("a patch changes no name");
    server.see_patch(MERGE, WEB, json!({"metadata": {"name": "other"}}), &[]).await;
    matches!(server);
}
