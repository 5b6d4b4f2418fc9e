//! Workloads that somebody made before are taken over and given back, on a live cluster and under real requests: no pod
//! restarts, and none fails.

use std::collections::BTreeMap;

use locktender::core::{ledger::Event, rollout::labels};
use serde_json::{Value, json};

use super::{load::Load, *};
use crate::{
    histories::release::{Place, Release},
    support::deployed::kubectl,
};

const BARE: &str =
    "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {name: checkout}\nspec: {namespace: shop}\n";

fn with_service(tag: &str) -> String {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: checkout}\nspec:\n  selector: {app: checkout}\n  \
                   ports: [{port: 80, targetPort: 8080}]\n";
    format!("{}---\n{service}", deployment(6, tag, ""))
}

/// Every pod by its name, with its UID and how often its containers were started again.
async fn pods(release: &Release) -> BTreeMap<String, String> {
    let alive = |pod: &&std::sync::Arc<Value>| pod["metadata"]["deletionTimestamp"].is_null();
    let pods = release.list("api/v1/namespaces/shop/pods", "pods").await;
    let one = |pod: &std::sync::Arc<Value>| {
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), format!("{} {restarts}", pod["metadata"]["uid"]))
    };
    pods.iter().filter(alive).map(one).collect()
}

/// How many pods each unit has by itself.
async fn spread(release: &Release) -> BTreeMap<String, usize> {
    let nodes = release.list("api/v1/nodes", "nodes").await;
    let mut counts = BTreeMap::from([("dca".to_owned(), 0), ("dcb".to_owned(), 0)]);
    for pod in release.list("api/v1/namespaces/shop/pods", "pods").await {
        let node = nodes.iter().find(|node| node["metadata"]["name"] == pod["spec"]["nodeName"]).unwrap();
        let zone = node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().unwrap();
        *counts.entry(zone.to_owned()).or_default() += 1;
    }
    counts
}

fn over(release: &Release, number: u32, event: Event) -> bool {
    release.ledger("checkout").get(&number).is_some_and(|all| all.iter().any(|one| one.event == event))
}

/// Asks all the while until a rollout is complete.
async fn under_load(release: &Release, load: &mut Load, number: u32) {
    while !over(release, number, Event::Completed) {
        assert!(!over(release, number, Event::Aborting), "{:#?}", release.ledger("checkout").get(&number));
        load.turn(release).await;
    }
}

async fn made_by_kubectl(release: &Release) {
    let kubeconfig = release.kubeconfig();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    tokio::task::spawn_blocking(move || {
        kubectl(&kubeconfig, &["create", "-f", "-"], &space.to_string());
        kubectl(&kubeconfig, &["create", "-n", "shop", "-f", "-"], &with_service("1.9"));
        kubectl(&kubeconfig, &["-n", "shop", "rollout", "status", "deployment/checkout", "--timeout=120s"], "");
    })
    .await
    .unwrap();
}

async fn taken_over_and_given_back(in_units: bool) {
    let empty = [("README.md", "A release repository.\n")];
    let mut release = Release::on(Place::live(), &empty, crate::histories::release::two_units(), 10).await;
    // The pods of before are nobody's that the court knows.
    release.judged = false;
    made_by_kubectl(&release).await;
    let by_itself = spread(&release).await;
    let topology = format!(
        "topology: {{unitType: topology.kubernetes.io/zone, units: [dca, dcb], unitReplicas: {{dca: {}}}}}",
        by_itself["dca"]
    );
    let policy = match in_units {
        true => policy("", &topology),
        false => {
            policy("", "").lines().filter(|line| !line.contains("topology:")).map(|line| format!("{line}\n")).collect()
        }
    };
    let before = pods(&release).await;
    assert_eq!(before.len(), 6);
    let mut load = Load::default();
    load.turn(&release).await;
    release.commit("a change", |clone| {
        clone.write(POLICY_FILE, &policy);
        clone.write(APP_FILE, &app(""));
        clone.write(DEPLOYMENT, &with_service("1.9"));
    });
    under_load(&release, &mut load, 1).await;
    assert_eq!(pods(&release).await, before, "taken over, and no pod restarted");
    let slices = release.list("apis/apps/v1/namespaces/shop/replicasets", "replicasets.apps").await;
    assert_eq!(slices.len(), if in_units { 2 } else { 1 });
    assert_eq!(load.failed, Vec::<String>::new(), "of {} requests", load.asked);

    release.commit("a change", |clone| {
        clone.write(DEPLOYMENT, &with_service("2.0"));
    });
    release.until("checkout", "the beta group", |seen| seen.waits(2, "beta")).await;
    release.commit("a change", |clone| {
        clone.write("rollouts/checkout/0002/promote.yaml", "");
    });
    release.until("checkout", "2.0 is complete", |seen| seen.has(2, Event::Completed)).await;

    let before = pods(&release).await;
    // A connection that is kept ends with the container that was on its other end.
    let asked = std::mem::take(&mut load).asked;
    release.commit("a change", |clone| {
        clone.write(APP_FILE, BARE);
    });
    under_load(&release, &mut load, 3).await;
    assert_eq!(pods(&release).await, before, "given back, and no pod restarted");
    assert_eq!(load.failed, Vec::<String>::new(), "of {} requests", asked + load.asked);
    let handle = release.get(HANDLE, "deployments.apps").await.unwrap();
    assert!(handle["spec"]["paused"] != true && handle["metadata"]["annotations"][labels::ROLLOUT].is_null());

    release.commit("a change", |clone| {
        clone.write(DEPLOYMENT, &with_service("3.0"));
    });
    release.until("checkout", "it rolls out by itself", |seen| seen.has(4, Event::Completed)).await;
    let before = pods(&release).await;
    let kubeconfig = release.kubeconfig();
    tokio::task::spawn_blocking(move || {
        for what in [&["restart", "deployment/checkout"][..], &["status", "deployment/checkout", "--timeout=120s"]] {
            kubectl(&kubeconfig, &[&["-n", "shop", "rollout"], what].concat(), "");
        }
    })
    .await
    .unwrap();
    let after = pods(&release).await;
    assert!(after.keys().all(|name| !before.contains_key(name)), "restarted by hand: {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_somebodys_is_taken_over_and_given_back() {
    taken_over_and_given_back(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_somebodys_is_taken_over_in_units_and_given_back() {
    taken_over_and_given_back(true).await;
}

/// The same as a StatefulSet, or on every node as a DaemonSet.
fn as_set(kind: &str, tag: &str) -> String {
    let text = with_service(tag).replace("kind: Deployment", &format!("kind: {kind}"));
    match kind {
        "DaemonSet" => text.replace("  replicas: 6\n", ""),
        _ => text.replace("  replicas: 6\n", "  serviceName: checkout\n  replicas: 6\n"),
    }
}

async fn a_set_is_taken_over_and_given_back(kind: &'static str, path: &str, resource: &str) {
    let empty = [("README.md", "A release repository.\n")];
    let mut release = Release::on(Place::live(), &empty, crate::histories::release::two_units(), 10).await;
    // The pods of before are nobody's that the court knows.
    release.judged = false;
    let kubeconfig = release.kubeconfig();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    tokio::task::spawn_blocking(move || {
        kubectl(&kubeconfig, &["create", "-f", "-"], &space.to_string());
        kubectl(&kubeconfig, &["create", "-n", "shop", "-f", "-"], &as_set(kind, "1.9"));
        let set = format!("{}/checkout", kind.to_lowercase());
        kubectl(&kubeconfig, &["-n", "shop", "rollout", "status", &set, "--timeout=120s"], "");
    })
    .await
    .unwrap();
    let before = pods(&release).await;
    assert_eq!(before.len(), 6);
    let mut load = Load::default();
    load.turn(&release).await;
    release.commit("stage it", |clone| {
        clone.write(POLICY_FILE, &policy("", ""));
        clone.write(APP_FILE, &app(""));
        clone.write(DEPLOYMENT, &as_set(kind, "1.9"));
    });
    under_load(&release, &mut load, 1).await;
    assert_eq!(pods(&release).await, before, "taken over, and no pod restarted");
    release.commit("no policy", |clone| {
        clone.write(APP_FILE, BARE);
    });
    under_load(&release, &mut load, 2).await;
    assert_eq!(pods(&release).await, before, "given back, and no pod restarted");
    assert_eq!(load.failed, Vec::<String>::new(), "of {} requests", load.asked);
    let set = release.get(path, resource).await.unwrap();
    let notes = &set["metadata"]["annotations"];
    assert!(notes[labels::ROLLOUT].is_null() && notes[labels::REGROUPING].is_null(), "{set:#}");
    assert_eq!(set["spec"]["updateStrategy"]["type"], "RollingUpdate");
    release.commit("2.0", |clone| {
        clone.write(DEPLOYMENT, &as_set(kind, "2.0"));
    });
    let seen = release.until("checkout", "it rolls out by itself", |seen| seen.has(3, Event::Completed)).await;
    assert_eq!(seen.versions().get("2.0"), Some(&6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_of_somebodys_is_taken_over_and_given_back() {
    let path = "apis/apps/v1/namespaces/shop/statefulsets/checkout";
    a_set_is_taken_over_and_given_back("StatefulSet", path, "statefulsets.apps").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_of_somebodys_is_taken_over_and_given_back() {
    let path = "apis/apps/v1/namespaces/shop/daemonsets/checkout";
    a_set_is_taken_over_and_given_back("DaemonSet", path, "daemonsets.apps").await;
}
