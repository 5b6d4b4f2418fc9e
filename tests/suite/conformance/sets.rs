//! What the controllers of StatefulSets, DaemonSets and Jobs do, as far as the product stands on it (the table in
//! [`super`]). As in [`super::ground`] a test says what a kubelet would.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    ground::{PODS, list, make, names, patch, pods, run, run_all, seen, template, uids},
    server::Server,
};

const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/NS/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/NS/daemonsets";
const REVISIONS: &str = "/apis/apps/v1/namespaces/NS/controllerrevisions";
const JOBS: &str = "/apis/batch/v1/namespaces/NS/jobs";

const REVISION: &str = "controller-revision-hash";
const OLD: &str = "registry.example/web:1.0";
const NEW: &str = "registry.example/web:2.0";

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap()
}

fn revision(of: &Value) -> &str {
    of["metadata"]["labels"][REVISION].as_str().unwrap()
}

/// Somebody changes the image of a template.
async fn release(server: &mut Server, path: &str) -> Value {
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": NEW}]);
    assert!(server.ask_patch("application/json-patch+json", path, image).await.status < 300);
    seen(server, path).await
}

/// A pod gets the new image where it is, and with `revision` the label that says so in the same request.
async fn move_in_place(server: &mut Server, pod: &str, revision: Option<&str>) {
    let mut changes = vec![json!({"op": "replace", "path": "/spec/containers/0/image", "value": NEW})];
    let label = |revision| json!({"op": "replace", "path": format!("/metadata/labels/{REVISION}"), "value": revision});
    changes.extend(revision.map(label));
    let moved = server.ask_patch("application/json-patch+json", &format!("{PODS}/{pod}"), changes.into()).await;
    assert!(moved.status < 300, "{moved:?}");
}

/// A pod is deleted, and another one comes in its place.
async fn replaced(server: &mut Server, pod: &Value) -> Value {
    let deleted = server.ask("DELETE", &format!("{PODS}/{}", name(pod)), Value::Null).await;
    assert!(deleted.status < 300, "{deleted:?}");
    comes_anew(server, pod).await
}

/// There is one of that name and another UID.
async fn comes_anew(server: &mut Server, pod: &Value) -> Value {
    let uid = pod["metadata"]["uid"].clone();
    let is_another = |of: &Value| of["metadata"]["uid"].is_string() && of["metadata"]["uid"] != uid;
    server.until(&format!("{PODS}/{}", name(pod)), |answer| is_another(&answer.body)).await.body
}

/// A StatefulSet of three, which run.
async fn three(server: &mut Server, strategy: Value) -> Vec<Value> {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "serviceName": "web", "podManagementPolicy": "Parallel", "updateStrategy": strategy,
            "selector": {"matchLabels": {"app": "web"}}, "template": template(&json!({"app": "web"})),
        },
    });
    make(server, STATEFUL_SETS, set).await;
    let running = run_all(server, 3).await;
    server.until(&web(), |answer| answer.body["status"]["readyReplicas"] == 3).await;
    assert_eq!(names(&running), ["web-0", "web-1", "web-2"].map(str::to_owned).into());
    running
}

fn web() -> String {
    format!("{STATEFUL_SETS}/web")
}

fn by_partition(partition: u32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}})
}

async fn lower(server: &mut Server, partition: u32) {
    patch(server, &web(), json!({"spec": {"updateStrategy": by_partition(partition)}})).await;
    seen(server, &web()).await;
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_that_has_image_and_revision_stays_when_its_partition_comes() {
    let mut server = Server::start().await;
    let running = three(&mut server, by_partition(3)).await;
    let status = release(&mut server, &web()).await["status"].clone();
    let [current, update] = ["currentRevision", "updateRevision"].map(|of| status[of].as_str().unwrap().to_owned());
    assert_ne!(current, update);
    assert_eq!(uids(&pods(&mut server, 3).await), uids(&running), "every pod is below the partition");

    let below = replaced(&mut server, &running[1]).await;
    assert_eq!((image(&below), revision(&below)), (OLD, current.as_str()));
    run(&mut server, &below, "10.78.0.1", true).await;

    move_in_place(&mut server, "web-2", Some(&update)).await;
    lower(&mut server, 2).await;
    let is_told = |status: &Value| status["updatedReplicas"] == 1 && status["readyReplicas"] == 3;
    server.until(&web(), |answer| is_told(&answer.body["status"])).await;
    assert_eq!(uids(&pods(&mut server, 3).await[2..]), uids(&running[2..]), "it is not made anew");

    let above = replaced(&mut server, &running[2]).await;
    assert_eq!((image(&above), revision(&above)), (NEW, update.as_str()));
    run(&mut server, &above, "10.78.0.2", true).await;

    let before = uids(&pods(&mut server, 3).await);
    for pod in ["web-1", "web-0"] {
        move_in_place(&mut server, pod, Some(&update)).await;
    }
    lower(&mut server, 0).await;
    server.until(&web(), |answer| answer.body["status"]["currentRevision"] == update.as_str()).await;
    assert_eq!(uids(&pods(&mut server, 3).await), before);
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_that_has_the_image_alone_is_made_anew() {
    let mut server = Server::start().await;
    let running = three(&mut server, by_partition(3)).await;
    release(&mut server, &web()).await;
    move_in_place(&mut server, "web-2", None).await;
    lower(&mut server, 2).await;
    let anew = comes_anew(&mut server, &running[2]).await;
    assert_eq!(image(&anew), NEW);
    assert_eq!(uids(&pods(&mut server, 3).await[..2]), uids(&running[..2]));
}

#[tokio::test]
async fn a_stateful_set_on_delete_changes_no_pod_and_never_ends_its_update() {
    let mut server = Server::start().await;
    let running = three(&mut server, json!({"type": "OnDelete"})).await;
    let status = release(&mut server, &web()).await["status"].clone();
    let update = status["updateRevision"].as_str().unwrap().to_owned();
    assert_eq!(uids(&pods(&mut server, 3).await), uids(&running));
    let anew = replaced(&mut server, &running[0]).await;
    assert_eq!((image(&anew), revision(&anew)), (NEW, update.as_str()));
    run(&mut server, &anew, "10.78.1.1", true).await;
    for pod in ["web-1", "web-2"] {
        move_in_place(&mut server, pod, Some(&update)).await;
    }
    let told = server.until(&web(), |answer| answer.body["status"]["updatedReplicas"] == 3).await;
    assert_eq!(told.body["status"]["currentRevision"], status["currentRevision"]);
}

#[tokio::test]
async fn a_stateful_set_grows_as_its_partition_says_and_shrinks_from_its_highest() {
    let mut server = Server::start().await;
    three(&mut server, by_partition(4)).await;
    release(&mut server, &web()).await;
    patch(&mut server, &web(), json!({"spec": {"replicas": 5}})).await;
    let five = pods(&mut server, 5).await;
    let images: Vec<&str> = five.iter().map(image).collect();
    assert_eq!(images, [OLD, OLD, OLD, OLD, NEW]);
    patch(&mut server, &web(), json!({"spec": {"replicas": 2}})).await;
    let left = pods(&mut server, 2).await;
    assert_eq!(names(&left), ["web-0", "web-1"].map(str::to_owned).into());
}

/// A node of the test's own, which nobody runs. The scheduler puts pods on it that are meant for it, and no others.
async fn node(server: &mut Server, name: &str) {
    let room = json!({"cpu": "8", "memory": "8Gi", "pods": "10"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("NS-{name}"), "labels": {"test": "NS"}},
        "spec": {"taints": [{"key": "test", "value": "NS", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    });
    make(server, "/api/v1/nodes", node).await;
}

#[tokio::test]
async fn a_daemon_set_on_delete_counts_what_is_moved_and_makes_anew_what_dies() {
    let mut server = Server::start().await;
    for unit in ["a", "b"] {
        node(&mut server, unit).await;
    }
    let mut pod = template(&json!({"app": "agent"}));
    pod["spec"]["nodeSelector"] = json!({"test": "NS"});
    // Whatever a node is tainted with that nobody runs.
    pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {"updateStrategy": {"type": "OnDelete"}, "selector": {"matchLabels": {"app": "agent"}}, "template": pod},
    });
    make(&mut server, DAEMON_SETS, set).await;
    let path = format!("{DAEMON_SETS}/agent");
    let bound = |pods: &[Value]| pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["nodeName"].is_string());
    let placed = list(&mut server, PODS, bound).await;
    for (at, pod) in placed.iter().enumerate() {
        run(&mut server, pod, &format!("10.78.2.{}", at + 1), true).await;
    }
    let counts = |status: &Value| {
        ["desiredNumberScheduled", "numberReady", "updatedNumberScheduled"].map(|of| status[of].as_i64().unwrap_or(0))
    };
    server.until(&path, |answer| counts(&answer.body["status"]) == [2, 2, 2]).await;

    release(&mut server, &path).await;
    server.until(&path, |answer| counts(&answer.body["status"]) == [2, 2, 0]).await;
    assert_eq!(uids(&pods(&mut server, 2).await), uids(&placed));
    let revisions = list(&mut server, REVISIONS, |all| all.len() == 2).await;
    let newest = revisions.iter().max_by_key(|one| one["revision"].as_i64()).unwrap();
    move_in_place(&mut server, name(&placed[0]), Some(revision(newest))).await;
    server.until(&path, |answer| counts(&answer.body["status"]) == [2, 2, 1]).await;
    assert_eq!(uids(&pods(&mut server, 2).await), uids(&placed));

    server.ask("DELETE", &format!("{PODS}/{}", name(&placed[1])), Value::Null).await;
    let is_anew = |pods: &[Value]| bound(pods) && !uids(pods).contains(placed[1]["metadata"]["uid"].as_str().unwrap());
    let left = list(&mut server, PODS, is_anew).await;
    let there = |pods: &[Value]| -> BTreeMap<String, String> {
        pods.iter().map(|pod| (pod["spec"]["nodeName"].as_str().unwrap().to_owned(), image(pod).to_owned())).collect()
    };
    let nodes: BTreeSet<String> = there(&placed).into_keys().collect();
    assert_eq!(there(&left), nodes.into_iter().map(|node| (node, NEW.to_owned())).collect());
    for unit in ["a", "b"] {
        server.ask("DELETE", &format!("/api/v1/nodes/NS-{unit}"), Value::Null).await;
    }
}

/// A Job whose one pod runs.
async fn job(server: &mut Server) -> Value {
    let mut pod = template(&json!({"app": "check"}));
    pod["spec"]["restartPolicy"] = "Never".into();
    let spec = json!({"backoffLimit": 0, "template": pod});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "check"}, "spec": spec});
    make(server, JOBS, job).await;
    let pod = pods(server, 1).await.remove(0);
    run(server, &pod, "10.78.3.1", true).await;
    pod
}

fn check() -> String {
    format!("{JOBS}/check")
}

/// A Job's pod ends, and then the Job; returns its conditions and the reason of the last.
async fn ends(server: &mut Server, phase: &str, last: &str) -> (BTreeSet<String>, String) {
    let pod = job(server).await;
    patch(server, &format!("{PODS}/{}/status", name(&pod)), json!({"status": {"phase": phase}})).await;
    let ended = server.until(&check(), |answer| conditions(&answer.body).contains(last)).await.body;
    let conditions_there = ended["status"]["conditions"].as_array().unwrap();
    let why = conditions_there.iter().find(|one| one["type"] == last).unwrap()["reason"].as_str().unwrap().to_owned();
    (conditions(&ended), why)
}

/// The conditions that hold.
fn conditions(job: &Value) -> BTreeSet<String> {
    let all = job["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|one| one["status"] == "True").map(|one| one["type"].as_str().unwrap().to_owned()).collect()
}

fn both(one: &str, other: &str) -> BTreeSet<String> {
    [one, other].map(str::to_owned).into()
}

#[tokio::test]
async fn a_job_whose_pod_succeeds_is_complete() {
    let mut server = Server::start().await;
    let (there, why) = ends(&mut server, "Succeeded", "Complete").await;
    assert_eq!((there, why.as_str()), (both("SuccessCriteriaMet", "Complete"), "CompletionsReached"));
}

#[tokio::test]
async fn a_job_whose_pods_fail_too_often_has_failed() {
    let mut server = Server::start().await;
    let (there, why) = ends(&mut server, "Failed", "Failed").await;
    assert_eq!((there, why.as_str()), (both("FailureTarget", "Failed"), "BackoffLimitExceeded"));
}

#[tokio::test]
async fn a_job_that_is_suspended_has_no_pod_and_begins_again() {
    let mut server = Server::start().await;
    let before = job(&mut server).await;
    patch(&mut server, &check(), json!({"spec": {"suspend": true}})).await;
    pods(&mut server, 0).await;
    server.until(&check(), |answer| conditions(&answer.body).contains("Suspended")).await;
    patch(&mut server, &check(), json!({"spec": {"suspend": false}})).await;
    let after = pods(&mut server, 1).await;
    assert!(uids(&after).is_disjoint(&uids(&[before])));
    server.until(&check(), |answer| conditions(&answer.body).is_empty()).await;
}
