//! Tables, as `kubectl get` asks for them.

use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

/// Tells columns and rows without the ages.
async fn table(server: &mut Server, path: &str) {
    let answer = server.ask("GET", &format!("{path}includeObject=Metadata"), Value::Null).await;
    let columns = answer.body["columnDefinitions"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    let shown: Vec<Value> =
        columns.iter().map(|it| json!([it["name"], it["type"], it["format"], it["priority"]])).collect();
    let age = columns.iter().position(|column| column["name"] == "Age");
    server.note(path);
    for column in shown {
        server.tell_value("column", column);
    }
    for row in answer.body["rows"].as_array().unwrap() {
        let mut cells = row["cells"].clone();
        if let Some(age) = age {
            cells[age] = "<age>".into();
        }
        server.tell_value("row", cells);
        server.tell_value(
            "object",
            json!([row["object"]["kind"], row["object"]["apiVersion"], row["object"]["metadata"]["name"]]),
        );
    }
}

#[tokio::test]
async fn of_what_a_release_is_made_of() {
    let mut server = Server::start().await;
    let mut paused = deployment();
    paused["spec"]["paused"] = true.into();
    paused["spec"]["replicas"] = 0.into();
    server.ask("POST", "/apis/apps/v1/namespaces/NS/deployments", paused).await;
    server
        .until("/apis/apps/v1/namespaces/NS/deployments/web", |it| it.body["status"]["observedGeneration"] == 1)
        .await;
    let mut set = deployment();
    set["kind"] = "ReplicaSet".into();
    set["spec"]["replicas"] = 0.into();
    set["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    set["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    server.ask("POST", "/apis/apps/v1/namespaces/NS/replicasets", set).await;
    server
        .until("/apis/apps/v1/namespaces/NS/replicasets/web", |it| it.body["status"]["observedGeneration"] == 1)
        .await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "web", "image": "web:1"}]}});
    server.ask("POST", "/api/v1/namespaces/NS/pods", pod).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "labels": {"a": "b"}}, "data": {"a": "b"}});
    server.ask("POST", "/api/v1/namespaces/NS/configmaps", map).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}, {"name": "x", "port": 53, "protocol": "UDP"}]}});
    let mut named = service.clone();
    named["spec"]["ports"][0]["name"] = "http".into();
    server.ask("POST", "/api/v1/namespaces/NS/services", named).await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "none"}}}});
    server.ask("POST", "/apis/policy/v1/namespaces/NS/poddisruptionbudgets", budget).await;
    for path in [
        "/apis/apps/v1/namespaces/NS/deployments?",
        "/apis/apps/v1/namespaces/NS/replicasets?",
        "/apis/apps/v1/namespaces/NS/statefulsets?",
        "/apis/apps/v1/namespaces/NS/daemonsets?",
        "/api/v1/namespaces/NS/pods?",
        "/api/v1/namespaces/NS/configmaps?labelSelector=a&",
        "/api/v1/namespaces/NS/services?",
        "/api/v1/namespaces/NS/secrets?",
        "/apis/policy/v1/namespaces/NS/poddisruptionbudgets?",
        "/api/v1/namespaces?fieldSelector=metadata.name=NS&",
    ] {
        table(&mut server, path).await;
    }
    matches!(server);
}
