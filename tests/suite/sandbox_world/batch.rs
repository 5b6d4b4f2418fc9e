//! Jobs and DaemonSets: enough that an application that contains them becomes healthy.

use super::*;

fn job(image: &str, spec: Value) -> Value {
    let mut template = template(image);
    template["spec"]["restartPolicy"] = "Never".into();
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate", "namespace": "default"},
        "spec": spec,
    });
    job["spec"]["template"] = template;
    job
}

#[test]
fn a_job_runs_to_completion() {
    let mut cluster = Cluster::new();
    cluster.create(job("migrate:1", json!({"completions": 3, "parallelism": 2})));
    assert_eq!(cluster.pods().len(), 2);
    cluster.until(|it| condition(&it.get("jobs.batch", "migrate"), "Complete").is_some());
    let job = cluster.get("jobs.batch", "migrate");
    assert_eq!(job["status"]["succeeded"], 3);
    assert!(job["status"]["completionTime"].is_string());
    assert!(cluster.pods().iter().all(|pod| pod["status"]["phase"] == "Succeeded"));
}

#[test]
fn a_job_that_fails_too_often_says_so() {
    let mut cluster = Cluster::with(
        NodeSpec::of_units([("dca", 1)], 20),
        Pace { crash: Duration::from_millis(100), ..Pace::simulated() },
    );
    cluster.create(job("migrate:1-crash", json!({"backoffLimit": 2})));
    cluster.until(|it| condition(&it.get("jobs.batch", "migrate"), "Failed").is_some());
    let job = cluster.get("jobs.batch", "migrate");
    assert_eq!(condition(&job, "Failed").unwrap()["reason"], "BackoffLimitExceeded");
    assert_eq!(job["status"]["failed"], 3);
}

#[test]
fn a_job_that_takes_too_long_is_ended() {
    let mut cluster = Cluster::new();
    cluster.create(job("migrate:1-bad-image", json!({"activeDeadlineSeconds": 30})));
    cluster.until(|it| condition(&it.get("jobs.batch", "migrate"), "Failed").is_some());
    let job = cluster.get("jobs.batch", "migrate");
    assert_eq!(condition(&job, "Failed").unwrap()["reason"], "DeadlineExceeded");
    assert!(cluster.pods().is_empty(), "its pods are gone");
}

fn daemon_set() -> Value {
    let mut set = replica_set("agent", 1, "agent:1");
    set["kind"] = "DaemonSet".into();
    set["spec"].as_object_mut().unwrap().remove("replicas");
    set
}

#[test]
fn a_daemon_set_has_one_pod_on_every_node() {
    let mut cluster = Cluster::new();
    cluster.create(daemon_set());
    cluster.until(|it| it.ready_pods() == 6);
    cluster.react();
    let status = cluster.get("daemonsets.apps", "agent")["status"].clone();
    let counts = ["desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"];
    assert_eq!(counts.map(|it| &status[it]), [6, 6, 6, 6]);
    let nodes: std::collections::BTreeSet<_> =
        cluster.pods().iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    assert_eq!(nodes.len(), 6);
}

#[test]
fn a_daemon_set_is_updated_node_by_node() {
    let mut cluster = Cluster::new();
    cluster.create(daemon_set());
    cluster.until(|it| it.ready_pods() == 6);
    cluster.merge("daemonsets.apps", "agent", json!({"spec": {"template": template("agent:2")}}));
    let is_done = |cluster: &Cluster| {
        cluster.get("daemonsets.apps", "agent")["status"]["updatedNumberScheduled"] == 6 && cluster.ready_pods() == 6
    };
    while !is_done(&cluster) {
        assert!(cluster.ready_pods() >= 5);
        let next = cluster.now() + Duration::from_millis(50);
        cluster.world.advance(next);
    }
    assert!(cluster.pods().iter().all(|pod| pod["spec"]["containers"][0]["image"] == "agent:2"));
}

/// Real applications, as they are published.
#[test]
fn everything_in_the_corpus_comes_up() {
    use serde::Deserialize as _;
    let mut cluster = Cluster::new();
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let mut folders = vec![corpus];
    let mut objects = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let documents = serde_yaml::Deserializer::from_str(&text);
                objects.extend(documents.filter_map(|document| Value::deserialize(document).ok()));
            }
        }
    }
    let mut workloads = 0;
    for mut object in objects {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if !matches!(
            kind.as_str(),
            "Deployment" | "Service" | "StatefulSet" | "DaemonSet" | "ConfigMap" | "ServiceAccount"
        ) {
            continue;
        }
        object["metadata"]["namespace"] = "default".into();
        // The same application comes in several files.
        if cluster.world.api.create(object).is_ok() && kind == "Deployment" {
            workloads += 1;
        }
    }
    assert!(workloads > 5, "{workloads}");
    cluster.run(300);
    for deployment in cluster.list("deployments.apps") {
        let progress = condition(&deployment, "Progressing").unwrap();
        assert_eq!(progress["reason"], "NewReplicaSetAvailable", "{}", name(&deployment));
    }
}
