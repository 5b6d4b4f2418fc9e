//! The sandbox's API machinery and how it is served.

mod apply;
mod kubectl;
mod objects;
mod requests;
mod wire;

use locktender::sandbox::api::{Api, ApiOptions, PatchKind, PatchRequest, Status, WriteOptions};
use serde_json::{Value, json};

/// An API server at noon.
fn api() -> Api {
    #[allow(clippy::unwrap_used)]
    Api::new(ApiOptions { seed: 7, now: "2026-11-21T12:00:00Z".parse().unwrap() })
}

/// A Deployment of three replicas, as a person writes it.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "web", "image": "registry.example/web:1.0", "ports": [{"containerPort": 8080}]},
                ]},
            },
        },
    })
}

/// A pod, as a person writes it.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:1.0"}]},
    })
}

/// Patches an object of the namespace `default`.
fn patch(api: &mut Api, resource: &str, name: &str, kind: PatchKind, body: Value) -> Result<Value, Status> {
    let request = PatchRequest {
        resource: resource.into(),
        namespace: "default".into(),
        name: name.into(),
        subresource: None,
        kind,
        body,
        force: false,
        options: WriteOptions { manager: "test".into(), ..WriteOptions::default() },
    };
    api.patch(request).map(|object| Value::clone(&object))
}
