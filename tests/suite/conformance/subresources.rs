//! `status`, `scale`, `binding`, `eviction`: what they change, and what they leave alone.

use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

const WEBS: &str = "/apis/apps/v1/namespaces/NS/replicasets";
const WEB: &str = "/apis/apps/v1/namespaces/NS/replicasets/web";

/// A ReplicaSet that its controller has nothing to do for.
fn idle() -> Value {
    let mut set = deployment();
    set["kind"] = "ReplicaSet".into();
    set["spec"]["replicas"] = 0.into();
    set
}

#[tokio::test]
async fn a_status_is_changed_by_its_own_path_only() {
    let mut server = Server::start().await;
    let parts = ["/spec/minReadySeconds", "/status/replicas", "/metadata/generation", "/metadata/labels"];
    let mut made = idle();
    made["status"] = json!({"replicas": 9});
    let made = server.see_part("POST", WEBS, made, &parts).await;
    server.until(WEB, |answer| answer.body["status"]["observedGeneration"] == 1).await;
    drop(made);
    let mut both =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"minReadySeconds": 5}, "status": {"replicas": 7}});
    server.see_part("PATCH", WEB, both.clone(), &parts).await;
    both["status"]["replicas"] = 0.into();
    both["spec"]["minReadySeconds"] = 9.into();
    both["metadata"]["labels"] = json!({"c": "d"});
    server.see_part("PATCH", &format!("{WEB}/status"), both, &parts).await;
    matches!(server);
}

#[tokio::test]
async fn a_generation_counts_changes_of_the_spec() {
    let mut server = Server::start().await;
    let part = ["/metadata/generation"];
    server.see_part("POST", WEBS, idle(), &part).await;
    server.see_part("PATCH", WEB, json!({"metadata": {"labels": {"a": "b"}}}), &part).await;
    server.see_part("PATCH", WEB, json!({"spec": {"minReadySeconds": 5}}), &part).await;
    server.see_part("PATCH", WEB, json!({"spec": {"minReadySeconds": 5}}), &part).await;
    let pods = "/api/v1/namespaces/NS/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "web", "image": "web:1"}]}});
    server.see_part("POST", pods, pod, &part).await;
    let image = json!({"spec": {"containers": [{"name": "web", "image": "web:2"}]}});
    server
        .see_patch(
            "application/strategic-merge-patch+json",
            &format!("{pods}/one"),
            image,
            &["/metadata/generation", "/spec/containers/0/image"],
        )
        .await;
    matches!(server);
}

#[tokio::test]
async fn a_scale_changes_the_number_and_nothing_else() {
    let mut server = Server::start().await;
    server
        .ask("POST", "/apis/apps/v1/namespaces/NS/deployments", {
            let mut paused = deployment();
            paused["spec"]["paused"] = true.into();
            paused["spec"]["replicas"] = 0.into();
            paused
        })
        .await;
    let web = "/apis/apps/v1/namespaces/NS/deployments/web";
    let seen = server.see("GET", &format!("{web}/scale"), Value::Null).await;
    server.see_part("PATCH", &format!("{web}/scale"), json!({"spec": {"replicas": 0}}), &["/spec"]).await;
    let mut scale = seen.body.clone();
    scale["spec"]["replicas"] = (-1).into();
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.see("PUT", &format!("{web}/scale"), scale.clone()).await;
    scale["spec"]["replicas"] = 2.into();
    scale["metadata"]["resourceVersion"] = "1".into();
    server.see("PUT", &format!("{web}/scale"), scale).await;
    server.see("GET", "/apis/apps/v1/namespaces/NS/deployments/none/scale", Value::Null).await;
    server.see("GET", "/apis/apps/v1/namespaces/NS/daemonsets/none/scale", Value::Null).await;
    matches!(server);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let mut server = Server::start().await;
    let pods = "/api/v1/namespaces/NS/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "web", "image": "web:1"}]}});
    server.ask("POST", pods, pod).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "one"}, "target": {"kind": "Node", "name": "nowhere"}});
    server.see("POST", &format!("{pods}/one/binding"), binding.clone()).await;
    server.see("POST", &format!("{pods}/one/binding"), binding).await;
    matches!(server);
}

#[tokio::test]
async fn an_eviction_of_a_pod_without_a_budget_deletes_it() {
    let mut server = Server::start().await;
    let pods = "/api/v1/namespaces/NS/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "web", "image": "web:1"}]}});
    server.ask("POST", pods, pod).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"}});
    server.see("POST", &format!("{pods}/one/eviction"), eviction.clone()).await;
    server.see("POST", &format!("{pods}/one/eviction"), eviction).await;
    matches!(server);
}
