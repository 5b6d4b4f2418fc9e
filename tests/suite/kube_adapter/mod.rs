//! The kube adapter against an API server that answers what the test says.

#![allow(clippy::unwrap_used, clippy::panic)]

mod fake;
mod rotation;
mod sandbox;
mod watches;

use std::time::{Duration, Instant};

use fake::{Answer, Fake, Seen, discovery, kubeconfig_for};
use locktender::{
    adapter::kube::{Settings, Verb, connect},
    core::{
        cluster::{Cluster, ClusterError, Kind, ObjectKey, PatchType, Scope, Write},
        manifest::Object,
    },
};
use serde_json::{Value, json};

/// Waits as short as a test likes them.
fn settings() -> Settings {
    Settings {
        backoff: (Duration::from_millis(1), Duration::from_millis(10)),
        doubt_after: Duration::from_millis(20),
        ..Settings::default()
    }
}

fn pods() -> Kind {
    Kind::new("", "v1", "Pod")
}

fn pod(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": version},
    })
}

fn deletion(name: &str) -> Write {
    let key = ObjectKey { group: String::new(), kind: "Pod".into(), namespace: "shop".into(), name: name.into() };
    Write::Delete { kind: pods(), key, uid: format!("uid-{name}"), resource_version: None, orphan: false }
}

/// A server that knows its kinds and gives every other request the same answer.
async fn answering(mut answer: impl FnMut(&Seen) -> Answer + Send + 'static) -> Fake {
    Fake::start(settings(), move |seen| discovery(seen).unwrap_or_else(|| answer(seen))).await
}

#[tokio::test]
async fn an_apply_goes_out_once_and_its_answer_comes_back_without_the_fields_of_others() {
    let fake = answering(|_| {
        let mut pod = pod("a", "8");
        pod["metadata"]["managedFields"] = json!([
            {"manager": "kubectl-edit"}, {"manager": "locktender", "operation": "Apply"}, {"manager": "kubelet"},
        ]);
        Answer::Json(200, pod)
    })
    .await;
    let write = Write::Apply { object: Object(pod("a", "7")), force: false, manager: None };
    let applied = fake.cluster.write(&write).await.unwrap().unwrap();
    assert_eq!(applied.resource_version(), "8");
    assert_eq!(applied.0["metadata"]["managedFields"], json!([{"manager": "locktender", "operation": "Apply"}]));

    let sent = fake.seen().pop().unwrap();
    assert_eq!((sent.method.as_str(), sent.path.as_str()), ("PATCH", "/api/v1/namespaces/shop/pods/a"));
    assert_eq!(sent.content_type, "application/apply-patch+yaml");
    assert_eq!(sent.user_agent, concat!("locktender/", env!("CARGO_PKG_VERSION")));
    assert_eq!(sent.query["fieldManager"], "locktender");
    assert_eq!(sent.body, pod("a", "7"), "the resource version that it was decided on goes along");
    let counts = fake.cluster.requests().snapshot();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [((Verb::Discover, "v1".to_owned()), 1), ((Verb::Apply, "pods".to_owned()), 1)]
    );
}

#[tokio::test]
async fn a_dry_run_says_so() {
    let fake = answering(|_| Answer::Json(201, pod("a", ""))).await;
    fake.cluster.dry_run(&Write::Create { object: Object(pod("a", "")) }).await.unwrap();
    let sent = fake.seen().pop().unwrap();
    assert_eq!((sent.method.as_str(), sent.query["dryRun"].as_str()), ("POST", "All"));
}

#[tokio::test]
async fn reading_what_is_not_there_is_none_and_a_kind_that_is_not_served_is_an_error() {
    let fake = answering(|seen| match seen.path.as_str() {
        "/api/v1/namespaces/shop/pods/a" => Answer::Json(200, pod("a", "8")),
        "/apis/example.com/v1" => Answer::Text(404, "404 page not found"),
        _ => Answer::status(404, "NotFound", json!({"name": "b", "kind": "pods"})),
    })
    .await;
    assert_eq!(fake.cluster.read(&pods(), "shop", "a").await.unwrap().unwrap().uid(), "uid-a");
    assert_eq!(fake.cluster.read(&pods(), "shop", "b").await, Ok(None));
    let unserved = Kind::new("example.com", "v1", "Thing");
    assert_eq!(
        fake.cluster.read(&unserved, "shop", "b").await,
        Err(ClusterError::NoKind("example.com/v1/Thing".into()))
    );
}

#[tokio::test]
async fn discovery_is_asked_once_and_again_for_a_kind_that_came_later() {
    let mut asked = 0;
    let fake = Fake::start(settings(), move |seen| {
        assert_eq!(seen.path, "/apis/example.com/v1");
        asked += 1;
        let resources =
            if asked == 1 { json!([]) } else { json!([{"name": "things", "kind": "Thing", "namespaced": false}]) };
        Answer::Json(200, json!({"resources": resources}))
    })
    .await;
    let thing = Kind::new("example.com", "v1", "Thing");
    assert!(matches!(fake.cluster.scope(&thing).await, Err(ClusterError::NoKind(_))));
    assert!(matches!(fake.cluster.scope(&thing).await, Err(ClusterError::NoKind(_))));
    assert_eq!(fake.seen().len(), 1, "a no is believed for a moment");
    let end = Instant::now() + Duration::from_secs(10);
    while fake.cluster.scope(&thing).await.is_err() {
        assert!(Instant::now() < end, "a no is believed for too long");
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.cluster.scope(&thing).await, Ok(Scope::Cluster));
    assert_eq!(fake.seen().len(), 2, "a yes is kept");
}

#[tokio::test]
async fn deleting_what_is_gone_or_goes_at_once_is_done_and_what_waits_comes_back() {
    let fake = answering(|seen| match seen.path.rsplit('/').next().unwrap() {
        "gone" => Answer::status(404, "NotFound", json!({"name": "gone", "kind": "pods"})),
        "status" => Answer::Json(200, json!({"kind": "Status", "status": "Success"})),
        // A pod that ends at once is answered with its last state.
        "last" => {
            let mut last = pod("last", "9");
            last["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
            last["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            Answer::Json(200, last)
        }
        "other" => Answer::status(409, "Conflict", json!({"name": "other", "kind": "pods"})),
        _ => {
            let mut held = pod("held", "9");
            held["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
            held["metadata"]["finalizers"] = json!(["slb.example.com/protected"]);
            Answer::Json(200, held)
        }
    })
    .await;
    for done in ["gone", "status", "last"] {
        assert_eq!(fake.cluster.write(&deletion(done)).await, Ok(None), "{done}");
    }
    let held = fake.cluster.write(&deletion("held")).await.unwrap().unwrap();
    assert!(held.is_terminating());
    assert!(matches!(fake.cluster.write(&deletion("other")).await, Err(ClusterError::Conflict(_))));
    assert_eq!(fake.seen().pop().unwrap().body["preconditions"], json!({"uid": "uid-other"}));
}

#[tokio::test]
async fn fault_13_a_write_without_an_answer_may_have_been_done_and_is_not_sent_again() {
    let impatient = Settings { request_timeout: Duration::from_millis(300), ..settings() };
    let fake = Fake::start(impatient, |seen| discovery(seen).unwrap_or(Answer::Hang)).await;
    let start = Instant::now();
    let error = fake.cluster.write(&deletion("a")).await.unwrap_err();
    assert_eq!(error, ClusterError::Unreachable("delete pods: no answer within 300ms".into()));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(fake.short(), ["discover /api/v1", "DELETE /api/v1/namespaces/shop/pods/a"]);
}

#[tokio::test]
async fn fault_15_a_busy_server_says_how_long_to_wait() {
    let fake = answering(|_| Answer::RetryAfter(429, 7)).await;
    let error = fake.cluster.write(&deletion("a")).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::Busy { retry_after: Some(wait), .. } if wait == Duration::from_secs(7)),
        "{error:?}"
    );
    assert_eq!(fake.seen().len(), 2, "nothing is repeated by the adapter");
}

#[tokio::test]
async fn fault_16_a_connection_that_is_refused_is_unreachable() {
    let fake = answering(|_| Answer::Hang).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let file = fake.directory.path().join("nobody");
    std::fs::write(&file, kubeconfig_for(&format!("http://{address}"))).unwrap();
    let cluster = connect(Some(&file), None).await.unwrap();
    let error = cluster.scope(&pods()).await.unwrap_err();
    assert!(matches!(&error, ClusterError::Unreachable(text) if text.starts_with("discover v1: ")), "{error:?}");
}

#[tokio::test]
async fn fault_24_a_patch_of_an_object_that_was_made_anew_is_a_conflict() {
    let fake = answering(|seen| match seen.content_type.as_str() {
        "application/json-patch+json" => Answer::Json(
            422,
            json!({"kind": "Status", "reason": "Invalid", "message": "the server rejected our request due to an error in our request",
                "details": {"causes": [{"message": "testing value /metadata/uid failed: test failed"}]}}),
        ),
        _ => Answer::status(422, "Invalid", json!({"causes": [{"field": "metadata.uid", "message": "field is immutable"}]})),
    })
    .await;
    for (patch, body) in [
        (PatchType::Json, json!([{"op": "add", "path": "/metadata/labels", "value": {}}])),
        (PatchType::Strategic, json!({"spec": {}})),
    ] {
        let key = ObjectKey { group: String::new(), kind: "Pod".into(), namespace: "shop".into(), name: "a".into() };
        let write = Write::Patch {
            kind: pods(),
            key,
            uid: "old".into(),
            resource_version: None,
            patch,
            body,
            subresource: None,
        };
        assert!(matches!(fake.cluster.write(&write).await, Err(ClusterError::Conflict(_))), "{patch:?}");
    }
}

#[tokio::test]
async fn fault_87_a_secret_is_not_in_the_error_of_its_own_write() {
    let fake = answering(|_| {
        let message = "Secret \"s\" is invalid: data[password]: Invalid value: \"hunter2\"";
        Answer::Json(422, json!({"kind": "Status", "reason": "Invalid", "message": message}))
    })
    .await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}});
    let error = fake.cluster.write(&Write::Create { object: Object(secret) }).await.unwrap_err();
    assert_eq!(error, ClusterError::Invalid("Secret/s in shop: Invalid".into()));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = connect(Some(&missing), None).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot use the kubeconfig {}", missing.display()));

    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig_for("http://127.0.0.1:1")).unwrap();
    assert!(connect(Some(&file), Some("production")).await.is_err(), "there is no such context");
    assert!(connect(Some(&file), Some("fake")).await.is_ok());
}
