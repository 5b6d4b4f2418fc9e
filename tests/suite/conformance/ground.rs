//! What Kubernetes' controllers do, as far as the product stands on it (the table in [`super`]). Nobody runs pods here: a
//! test binds them and says that they are ready, as a kubelet would.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/NS/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/NS/replicasets";
pub(super) const PODS: &str = "/api/v1/namespaces/NS/pods";
const SERVICES: &str = "/api/v1/namespaces/NS/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices";
const BUDGETS: &str = "/apis/policy/v1/namespaces/NS/poddisruptionbudgets";

pub(super) fn template(labels: &Value) -> Value {
    let container = json!({"name": "web", "image": "registry.example/web:1.0"});
    // Deleted, they are gone: nobody would stop them.
    json!({
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [container]},
    })
}

fn set(name: &str, replicas: u32, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels)},
    })
}

fn web(replicas: u32, paused: bool) -> Value {
    let mut web = deployment();
    web["spec"]["template"] = template(&json!({"app": "web"}));
    web["spec"]["replicas"] = replicas.into();
    web["spec"]["paused"] = paused.into();
    web
}

fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn names(list: &[Value]) -> BTreeSet<String> {
    list.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn uids(list: &[Value]) -> BTreeSet<String> {
    list.iter().map(|one| one["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

/// Lists objects until there is what is wanted.
pub(super) async fn list(server: &mut Server, path: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    items(&server.until(path, |answer| wanted(items(&answer.body))).await.body).to_vec()
}

pub(super) async fn pods(server: &mut Server, count: usize) -> Vec<Value> {
    list(server, PODS, |pods| pods.len() == count).await
}

/// The controller has seen what the object says now.
pub(super) async fn seen(server: &mut Server, path: &str) -> Value {
    let is_seen = |of: &Value| {
        of["status"]["observedGeneration"].as_i64().unwrap_or(0) >= of["metadata"]["generation"].as_i64().unwrap_or(1)
    };
    server.until(path, |answer| is_seen(&answer.body)).await.body
}

pub(super) async fn patch(server: &mut Server, path: &str, body: Value) {
    let answer = server.ask("PATCH", path, body).await;
    assert!(answer.status < 300, "{path}: {answer:?}");
}

pub(super) async fn make(server: &mut Server, path: &str, body: Value) {
    let answer = server.ask("POST", path, body).await;
    assert!(answer.status < 300, "{path}: {answer:?}");
}

/// A kubelet runs a pod: it has an address, and is ready or not.
pub(super) async fn run(server: &mut Server, pod: &Value, address: &str, ready: bool) {
    let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
    if pod["spec"]["nodeName"].is_null() {
        // Endpoints are those of nodes that there are. The scheduler leaves it alone.
        let node = server.namespace.clone();
        let taint = json!({"key": "nobody", "value": "runs-it", "effect": "NoSchedule"});
        let spec = json!({"taints": [taint]});
        let made = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": spec});
        assert!([201, 409].contains(&server.ask("POST", "/api/v1/nodes", made).await.status));
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
        let name = &pod["metadata"]["name"];
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
        make(server, &format!("{path}/binding"), binding).await;
    }
    let is = if ready { "True" } else { "False" };
    let since = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": is, "lastTransitionTime": since});
    let status = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": since,
        "conditions": [condition("Ready"), condition("ContainersReady")],
    });
    patch(server, &format!("{path}/status"), json!({"status": status})).await;
}

pub(super) async fn run_all(server: &mut Server, count: usize) -> Vec<Value> {
    for (at, pod) in pods(server, count).await.iter().enumerate() {
        run(server, pod, &format!("10.77.0.{}", at + 1), true).await;
    }
    pods(server, count).await
}

#[tokio::test]
async fn a_paused_deployment_that_owns_nothing_touches_nothing() {
    let mut server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    make(&mut server, DEPLOYMENTS, web(2, true)).await;
    // Its pods match the Deployment's selector, its own labels do not.
    make(&mut server, SETS, set("slice", 1, &json!({"app": "web", "pod-template-hash": "slice"}))).await;
    pods(&mut server, 1).await;
    patch(&mut server, &format!("{path}/scale"), json!({"spec": {"replicas": 5}})).await;
    let status = seen(&mut server, &path).await["status"].clone();
    assert_eq!(status["replicas"].as_i64().unwrap_or(0), 0);
    let sets = list(&mut server, SETS, |sets| !sets.is_empty()).await;
    assert_eq!(names(&sets), BTreeSet::from(["slice".to_owned()]));
    assert!(sets[0]["metadata"]["ownerReferences"].is_null() && sets[0]["spec"]["replicas"] == 1);
    pods(&mut server, 1).await;
}

#[tokio::test]
async fn a_paused_deployment_scales_the_one_set_that_it_owns() {
    let mut server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    make(&mut server, DEPLOYMENTS, web(1, false)).await;
    pods(&mut server, 1).await;
    patch(&mut server, &path, json!({"spec": {"paused": true, "replicas": 3}})).await;
    seen(&mut server, &path).await;
    pods(&mut server, 3).await;
    let sets = list(&mut server, SETS, |sets| sets.iter().any(|set| set["spec"]["replicas"] == 3)).await;
    assert_eq!(sets.len(), 1);
}

#[tokio::test]
async fn letting_go_and_coming_back_touches_no_pod() {
    let mut server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    make(&mut server, DEPLOYMENTS, web(2, false)).await;
    let before = uids(&run_all(&mut server, 2).await);
    let owner = |set: &Value| set["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
    let slice = names(&list(&mut server, SETS, |sets| sets.len() == 1).await).pop_first().unwrap();
    for trial in 0..5 {
        patch(&mut server, &path, json!({"spec": {"paused": true}})).await;
        seen(&mut server, &path).await;
        patch(&mut server, &format!("{SETS}/{slice}"), json!({"metadata": {"labels": {"app": null}}})).await;
        list(&mut server, SETS, |sets| sets.iter().all(|set| !owner(set))).await;
        let status = server.until(&path, |answer| answer.body["status"]["replicas"].as_i64().unwrap_or(0) == 0).await;
        assert_eq!(status.body["spec"]["replicas"], 2, "trial {trial}");
        patch(&mut server, &format!("{SETS}/{slice}"), json!({"metadata": {"labels": {"app": "web"}}})).await;
        patch(&mut server, &path, json!({"spec": {"paused": false}})).await;
        let sets = list(&mut server, SETS, |sets| sets.iter().all(owner)).await;
        assert_eq!(names(&sets), BTreeSet::from([slice.clone()]), "trial {trial}: no second set");
        server.until(&path, |answer| answer.body["status"]["readyReplicas"] == 2).await;
        assert_eq!(uids(&pods(&mut server, 2).await), before, "trial {trial}");
    }
}

#[tokio::test]
async fn pods_are_handed_to_other_sets_by_relabelling() {
    let mut server = Server::start().await;
    make(&mut server, SETS, set("all", 4, &json!({"app": "web", "pod-template-hash": "all"}))).await;
    let running = run_all(&mut server, 4).await;
    let before = uids(&running);
    let orphan = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"});
    server.ask("DELETE", &format!("{SETS}/all"), orphan).await;
    list(&mut server, SETS, <[Value]>::is_empty).await;
    let free = |pods: &[Value]| pods.iter().all(|pod| pod["metadata"]["ownerReferences"].is_null());
    list(&mut server, PODS, free).await;
    for (at, pod) in running.iter().enumerate() {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        let unit = if at % 2 == 0 { "dca" } else { "dcb" };
        patch(&mut server, &path, json!({"metadata": {"labels": {"pod-template-hash": unit}}})).await;
    }
    for unit in ["dca", "dcb"] {
        make(&mut server, SETS, set(unit, 2, &json!({"app": "web", "pod-template-hash": unit}))).await;
    }
    for unit in ["dca", "dcb"] {
        server.until(&format!("{SETS}/{unit}"), |answer| answer.body["status"]["readyReplicas"] == 2).await;
    }
    assert_eq!(uids(&pods(&mut server, 4).await), before, "no pod more, none less, none anew");
}

#[tokio::test]
async fn who_is_not_ready_goes_first_and_then_who_costs_least() {
    let mut server = Server::start().await;
    make(&mut server, SETS, set("web", 3, &json!({"app": "web"}))).await;
    let running = pods(&mut server, 3).await;
    for (at, (pod, cost)) in running.iter().zip(["100", "-5", "7"]).enumerate() {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        let costs = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
        patch(&mut server, &path, costs).await;
        run(&mut server, pod, &format!("10.77.1.{at}"), at != 0).await;
    }
    let name = |at: usize| names(&running[at..=at]).pop_first().unwrap();
    server.until(&format!("{SETS}/web"), |answer| answer.body["status"]["readyReplicas"] == 2).await;
    for (replicas, left) in [(2, BTreeSet::from([name(1), name(2)])), (1, BTreeSet::from([name(2)]))] {
        patch(&mut server, &format!("{SETS}/web/scale"), json!({"spec": {"replicas": replicas}})).await;
        assert_eq!(names(&pods(&mut server, left.len()).await), left);
    }
}

#[tokio::test]
async fn a_patched_image_stays_whatever_the_set_says() {
    let mut server = Server::start().await;
    make(&mut server, SETS, set("web", 1, &json!({"app": "web"}))).await;
    let running = run_all(&mut server, 1).await;
    let path = format!("{PODS}/{}", running[0]["metadata"]["name"].as_str().unwrap());
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "registry.example/web:2.0"}]);
    assert!(server.ask_patch("application/json-patch+json", &path, image).await.status < 300);
    let other = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}});
    patch(&mut server, &format!("{SETS}/web"), other).await;
    seen(&mut server, &format!("{SETS}/web")).await;
    let after = pods(&mut server, 1).await;
    assert_eq!(uids(&after), uids(&running));
    assert_eq!(after[0]["spec"]["containers"][0]["image"], "registry.example/web:2.0");
}

fn service(selects: Value) -> Value {
    let spec = json!({"selector": selects, "ports": [{"port": 80, "targetPort": 8080}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

/// Addresses in a list of slices, and whether they are ready.
fn endpoints(slices: &[Value]) -> BTreeSet<(String, bool)> {
    let all = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    all.map(|one| (one["addresses"][0].as_str().unwrap().to_owned(), one["conditions"]["ready"] == true)).collect()
}

#[tokio::test]
async fn a_service_tells_who_is_ready_and_forgets_who_loses_its_label() {
    let mut server = Server::start().await;
    make(&mut server, SERVICES, service(json!({"in-service": "true"}))).await;
    make(&mut server, SETS, set("web", 2, &json!({"app": "web", "in-service": "true"}))).await;
    let running = pods(&mut server, 2).await;
    run(&mut server, &running[0], "10.77.2.1", true).await;
    run(&mut server, &running[1], "10.77.2.2", false).await;
    let both = |second: bool| BTreeSet::from([("10.77.2.1".to_owned(), true), ("10.77.2.2".to_owned(), second)]);
    list(&mut server, SLICES, |slices| endpoints(slices) == both(false)).await;
    patch(&mut server, &format!("{SERVICES}/web"), json!({"spec": {"publishNotReadyAddresses": true}})).await;
    list(&mut server, SLICES, |slices| endpoints(slices) == both(true)).await;
    let path = format!("{PODS}/{}", running[0]["metadata"]["name"].as_str().unwrap());
    patch(&mut server, &path, json!({"metadata": {"labels": {"in-service": null}}})).await;
    // Its set makes another one, which is born with the label.
    let gone = |slices: &[Value]| !endpoints(slices).iter().any(|(address, _)| address == "10.77.2.1");
    list(&mut server, SLICES, gone).await;
    pods(&mut server, 3).await;
}

#[tokio::test]
async fn a_pod_whose_gate_is_closed_stays_in_its_slice_and_nothing_is_sent_to_it() {
    const GATE: &str = "example.com/in-service";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    let mut server = Server::start().await;
    make(&mut server, SERVICES, service(json!({"app": "web"}))).await;
    let mut set = set("web", 1, &json!({"app": "web"}));
    set["spec"]["template"]["spec"]["readinessGates"] = json!([{"conditionType": GATE}]);
    make(&mut server, SETS, set).await;
    let pod = pods(&mut server, 1).await.remove(0);
    run(&mut server, &pod, "10.77.4.1", true).await;
    let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());

    // One condition alone, by who closes the gate; nobody else's is touched, and nothing by the pod's own path.
    let close = json!({"status": {"conditions": [{"type": GATE, "status": "False"}]}});
    for at in [path.clone(), format!("{path}/status")] {
        let answer = server.ask_patch(STRATEGIC, &at, close.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let conditions = answer.body["status"]["conditions"].as_array().unwrap();
        let of = |kind: &str| conditions.iter().find(|one| one["type"] == kind).map(|one| one["status"].clone());
        let closed = at.ends_with("/status").then(|| json!("False"));
        assert_eq!((of(GATE), of("Ready"), of("ContainersReady")), (closed, Some(json!("True")), Some(json!("True"))));
    }
    // What its kubelet makes of that.
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    assert_eq!(server.ask_patch(STRATEGIC, &format!("{path}/status"), ready).await.status, 200);
    let conditions = |slices: &[Value]| {
        let all = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        all.map(|one| one["conditions"].clone()).collect::<Vec<_>>()
    };
    let not_sent_to = json!({"ready": false, "serving": false, "terminating": false});
    list(&mut server, SLICES, |slices| conditions(slices) == [not_sent_to.clone()]).await;
}

#[tokio::test]
async fn a_switch_of_a_service_is_one_change_of_one_slice() {
    let mut server = Server::start().await;
    for (at, side) in ["blue", "green"].into_iter().enumerate() {
        make(&mut server, SETS, set(side, 4, &json!({"app": "web", "side": side}))).await;
        let running = pods(&mut server, 4 * (at + 1)).await;
        for (number, pod) in running.iter().filter(|pod| pod["metadata"]["labels"]["side"] == side).enumerate() {
            run(&mut server, pod, &format!("10.77.{}.{}", 10 + at, number + 1), true).await;
        }
    }
    make(&mut server, SERVICES, service(json!({"app": "web", "side": "blue"}))).await;
    let all = |side: &'static str| {
        move |slices: &[Value]| {
            let ready = endpoints(slices);
            ready.len() == 4 && ready.iter().all(|(address, ready)| *ready && address.starts_with(side))
        }
    };
    list(&mut server, SLICES, all("10.77.10.")).await;
    let version = server.ask("GET", SLICES, Value::Null).await.text("/metadata/resourceVersion");
    let mut watch = server.watch(&format!("{SLICES}?watch=true&resourceVersion={version}")).await;
    patch(&mut server, &format!("{SERVICES}/web"), json!({"spec": {"selector": {"side": "green"}}})).await;
    let (kind, slice) = watch.next().await.unwrap();
    assert_eq!(kind, "MODIFIED");
    assert!(all("10.77.11.")(std::slice::from_ref(&slice)), "never empty, never both: {slice}");
    assert_eq!(list(&mut server, SLICES, all("10.77.11.")).await.len(), 1);
}

#[tokio::test]
async fn a_budget_refuses_and_two_are_one_too_many() {
    let mut server = Server::start().await;
    make(&mut server, SETS, set("web", 2, &json!({"app": "web"}))).await;
    let running = run_all(&mut server, 2).await;
    let budget = |name: &str| {
        let spec = json!({"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}});
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec})
    };
    make(&mut server, BUDGETS, budget("one")).await;
    server.until(&format!("{BUDGETS}/one"), |answer| answer.body["status"]["currentHealthy"] == 2).await;
    let name = running[0]["metadata"]["name"].clone();
    let path = format!("{PODS}/{}/eviction", name.as_str().unwrap());
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    assert_eq!(server.ask("POST", &path, eviction.clone()).await.status, 429);
    make(&mut server, BUDGETS, budget("two")).await;
    assert_eq!(server.ask("POST", &path, eviction).await.status, 500);
    assert_eq!(uids(&pods(&mut server, 2).await), uids(&running));
}

#[tokio::test]
async fn an_apply_that_leaves_replicas_out_puts_back_the_default_unless_somebody_else_has_them() {
    let mut server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    let mut applied = web(10, true);
    let mut without = applied.clone();
    without["spec"].as_object_mut().unwrap().remove("replicas");
    server.ask("PATCH", &by("one"), applied.clone()).await;
    server.ask("PATCH", &by("one"), without.clone()).await;
    assert_eq!(server.ask("GET", &path, Value::Null).await.body["spec"]["replicas"], 1);
    server.ask("PATCH", &by("one"), applied.clone()).await;
    let only =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 10}});
    assert!(server.ask("PATCH", &by("other"), only).await.status < 300);
    server.ask("PATCH", &by("one"), without).await;
    assert_eq!(server.ask("GET", &path, Value::Null).await.body["spec"]["replicas"], 10, "handed over without a gap");
    applied["spec"]["replicas"] = 3.into();
    assert_eq!(server.ask("PATCH", &by("one"), applied).await.status, 409);
}
