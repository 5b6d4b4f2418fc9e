//! The kube adapter against the sandbox's own API server, over HTTP.

use std::sync::Arc;

use locktender::{
    adapter::kube::{KubeCluster, connect_with},
    core::{
        cluster::{Cluster, ClusterError, ClusterEvent, Kind, PatchType, Scope, Write},
        manifest::Object,
    },
    sandbox::{
        http::{Backend, Shared, serve, url},
        kubeconfig,
    },
};
use serde_json::{Value, json};

use super::settings;

struct Sandbox {
    cluster: KubeCluster,
    backend: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
    directory: tempfile::TempDir,
    url: String,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Sandbox {
    /// Starts an API server without controllers, and makes the namespace `shop`.
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        let backend = Arc::new(Shared::new(1));
        let serving = serve(listener, Arc::clone(&backend), "t0ken".into(), None, std::future::pending());
        let server = tokio::spawn(async move { serving.await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let cluster = Self::client(&directory, &url, "t0ken").await;
        let sandbox = Self { cluster, backend, server, directory, url };
        sandbox.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await;
        sandbox
    }

    async fn client(directory: &tempfile::TempDir, url: &str, token: &str) -> KubeCluster {
        let file = directory.path().join(token);
        kubeconfig::write(&file, url, token).unwrap();
        connect_with(Some(&file), None, settings()).await.unwrap()
    }

    async fn create(&self, object: Value) -> Object {
        self.cluster.write(&Write::Create { object: Object(object) }).await.unwrap().unwrap()
    }

    async fn apply(&self, object: &Value, manager: Option<&str>) -> Result<Object, ClusterError> {
        let object = Object(object.clone());
        let write = Write::Apply { object, force: false, manager: manager.map(Into::into) };
        self.cluster.write(&write).await.map(Option::unwrap)
    }

    async fn next(&self) -> ClusterEvent {
        let next = self.cluster.next_event();
        tokio::time::timeout(std::time::Duration::from_secs(20), next).await.expect("an event")
    }
}

fn settings_map(colour: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"}, "data": {"colour": colour},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

fn patch(object: &Object, patch: PatchType, body: Value) -> Write {
    Write::Patch {
        kind: object.kind(),
        key: object.key(),
        uid: object.uid().to_owned(),
        resource_version: Some(object.resource_version().to_owned()),
        patch,
        body,
        subresource: None,
    }
}

/// The three types of patch that set one label.
fn labelling() -> [(PatchType, Value); 3] {
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    [
        (PatchType::Json, json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}])),
        (PatchType::Merge, labels.clone()),
        (PatchType::Strategic, labels),
    ]
}

#[tokio::test]
async fn an_apply_is_refused_when_it_was_decided_on_something_old_or_another_has_the_fields() {
    let sandbox = Sandbox::start().await;
    let first = sandbox.apply(&settings_map("red"), None).await.unwrap();
    assert_eq!(sandbox.apply(&settings_map("red"), None).await.unwrap().resource_version(), first.resource_version());
    sandbox.apply(&settings_map("blue"), None).await.unwrap();

    let mut stale = settings_map("green");
    stale["metadata"]["resourceVersion"] = json!(first.resource_version());
    assert!(matches!(sandbox.apply(&stale, None).await, Err(ClusterError::Conflict(_))));
    // Fields of another manager are no change of the object: reading it again would not help.
    let of_another = sandbox.apply(&settings_map("green"), Some("somebody")).await;
    assert!(matches!(&of_another, Err(ClusterError::Invalid(why)) if why.contains("locktender")), "{of_another:?}");
    let live = sandbox.cluster.read(&first.kind(), "shop", "settings").await.unwrap().unwrap();
    assert_eq!(live.text(&["data", "colour"]), "blue");
    assert_eq!(live.at(&["metadata", "managedFields"]).unwrap().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let sandbox = Sandbox::start().await;
    let write = Write::Apply { object: Object(settings_map("red")), force: false, manager: None };
    let would = sandbox.cluster.dry_run(&write).await.unwrap().unwrap();
    assert_eq!(would.text(&["data", "colour"]), "red");
    assert_eq!(sandbox.cluster.read(&would.kind(), "shop", "settings").await, Ok(None));
}

#[tokio::test]
async fn what_cannot_be_created_says_why() {
    let sandbox = Sandbox::start().await;
    sandbox.create(settings_map("red")).await;
    let create = |object: Value| Write::Create { object: Object(object) };
    let again = sandbox.cluster.write(&create(settings_map("red"))).await;
    assert!(matches!(again, Err(ClusterError::AlreadyExists(_))), "{again:?}");

    let mut elsewhere = settings_map("red");
    elsewhere["metadata"]["namespace"] = json!("nowhere");
    let elsewhere = sandbox.cluster.write(&create(elsewhere)).await;
    assert!(matches!(elsewhere, Err(ClusterError::NoKind(_))), "{elsewhere:?}");

    for (field, value) in [("replicsa", json!(1)), ("replicas", json!("two")), ("replicas", json!(-1))] {
        let mut wrong = deployment();
        wrong["spec"][field] = value.clone();
        for write in [create(wrong.clone()), Write::Apply { object: Object(wrong.clone()), force: true, manager: None }]
        {
            let refused = sandbox.cluster.write(&write).await;
            assert!(matches!(refused, Err(ClusterError::Invalid(_))), "{field} = {value}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn fault_24_a_patch_of_an_object_that_changed_or_was_made_anew_is_a_conflict() {
    let sandbox = Sandbox::start().await;
    for (kind, body) in labelling() {
        let old = sandbox.create(deployment()).await;
        let labelled = sandbox.cluster.write(&patch(&old, kind, body.clone())).await.unwrap().unwrap();
        assert_eq!((labelled.label("a"), labelled.uid()), (Some("b"), old.uid()), "{kind:?}");

        let stale = sandbox.cluster.write(&patch(&old, kind, once_more(kind, &body))).await;
        assert!(matches!(stale, Err(ClusterError::Conflict(_))), "{kind:?}: {stale:?}");

        sandbox.cluster.write(&deletion(&labelled)).await.unwrap();
        let anew = sandbox.create(deployment()).await;
        let mut write = patch(&old, kind, body);
        if let Write::Patch { resource_version, .. } = &mut write {
            *resource_version = None;
        }
        let other = sandbox.cluster.write(&write).await;
        assert!(matches!(other, Err(ClusterError::Conflict(_))), "{kind:?}: {other:?}");
        let other = sandbox.cluster.write(&deletion(&labelled)).await;
        assert!(matches!(other, Err(ClusterError::Conflict(_))), "{kind:?}: {other:?}");
        sandbox.cluster.write(&deletion(&anew)).await.unwrap();
    }
}

/// A patch that would change something again.
fn once_more(kind: PatchType, body: &Value) -> Value {
    match kind {
        PatchType::Json => body.clone(),
        _ => json!({"metadata": {"labels": {"a": "c"}}}),
    }
}

fn deletion(object: &Object) -> Write {
    Write::Delete {
        kind: object.kind(),
        key: object.key(),
        uid: object.uid().to_owned(),
        resource_version: None,
        orphan: false,
    }
}

#[tokio::test]
async fn a_deletion_is_done_or_waits_for_finalizers() {
    let sandbox = Sandbox::start().await;
    let plain = sandbox.create(settings_map("red")).await;
    assert_eq!(sandbox.cluster.write(&deletion(&plain)).await, Ok(None));
    assert_eq!(sandbox.cluster.write(&deletion(&plain)).await, Ok(None), "it is gone, as was wanted");
    let mut held = settings_map("red");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = sandbox.create(held).await;
    assert!(sandbox.cluster.write(&deletion(&held)).await.unwrap().unwrap().is_terminating());
}

#[tokio::test]
async fn a_scale_is_patched_by_its_own_subresource() {
    let sandbox = Sandbox::start().await;
    let web = sandbox.create(deployment()).await;
    let mut write = patch(&web, PatchType::Merge, json!({"spec": {"replicas": 5}}));
    if let Write::Patch { subresource, .. } = &mut write {
        *subresource = Some("scale".into());
    }
    sandbox.cluster.write(&write).await.unwrap();
    let live = sandbox.cluster.read(&web.kind(), "shop", "web").await.unwrap().unwrap();
    assert_eq!(live.number(&["spec", "replicas"]), Some(5));
}

#[tokio::test]
async fn watching_tells_what_happens_and_lists_anew_when_the_server_forgot() {
    let sandbox = Sandbox::start().await;
    let kind = Kind::new("", "v1", "ConfigMap");
    let listed = sandbox.apply(&settings_map("red"), None).await.unwrap();
    sandbox.cluster.watch(&kind).await;
    let ClusterEvent::Listed { objects, .. } = sandbox.next().await else { unreachable!() };
    assert!(objects.contains(&listed), "as it was answered, kind and all: {objects:?}");
    let changed = sandbox.apply(&settings_map("blue"), None).await.unwrap();
    assert_eq!(sandbox.next().await, ClusterEvent::Applied(changed.clone()));
    sandbox.cluster.write(&deletion(&changed)).await.unwrap();
    let ClusterEvent::Deleted(last) = sandbox.next().await else { unreachable!() };
    assert_eq!(last.uid(), changed.uid());
}

#[tokio::test]
async fn fault_30_a_custom_kind_is_watched_as_soon_as_it_is_defined() {
    let sandbox = Sandbox::start().await;
    let things = Kind::new("example.com", "v1", "Thing");
    assert!(matches!(sandbox.cluster.scope(&things).await, Err(ClusterError::NoKind(_))));
    sandbox.cluster.watch(&things).await;
    assert!(matches!(sandbox.next().await, ClusterEvent::Lost { .. }));
    sandbox
        .create(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        }))
        .await;
    assert!(matches!(sandbox.next().await, ClusterEvent::Listed { kind, .. } if kind == things));
    assert_eq!(sandbox.cluster.scope(&things).await, Ok(Scope::Namespaced));
    let thing =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "shop"}});
    let thing = sandbox.create(thing).await;
    assert_eq!(sandbox.next().await, ClusterEvent::Applied(thing));
}

#[tokio::test]
async fn fault_17_a_compacted_server_is_listed_anew() {
    let sandbox = Sandbox::start().await;
    sandbox.apply(&settings_map("red"), None).await.unwrap();
    let compacted = sandbox.backend.with_api(|api| {
        let revision = api.revision();
        api.compact(revision);
        revision
    });
    sandbox.cluster.watch(&Kind::new("", "v1", "ConfigMap")).await;
    let ClusterEvent::Listed { resource_version, .. } = sandbox.next().await else { unreachable!() };
    assert_eq!(resource_version, compacted.to_string());
    let changed = sandbox.apply(&settings_map("blue"), None).await.unwrap();
    assert_eq!(sandbox.next().await, ClusterEvent::Applied(changed));
}

#[tokio::test]
async fn a_wrong_token_is_forbidden() {
    let sandbox = Sandbox::start().await;
    let stranger = Sandbox::client(&sandbox.directory, &sandbox.url, "wrong").await;
    let refused = stranger.scope(&Kind::new("", "v1", "Pod")).await;
    assert!(matches!(refused, Err(ClusterError::Forbidden(_))), "{refused:?}");
    assert!(!format!("{refused:?}").contains("wrong"), "the token is not told");
}
