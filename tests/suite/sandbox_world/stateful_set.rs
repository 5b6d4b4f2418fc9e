//! StatefulSets.

use super::*;

fn stateful_set(replicas: u32, image: &str) -> Value {
    let mut set = replica_set("db", replicas, image);
    set["kind"] = "StatefulSet".into();
    set["spec"]["serviceName"] = "db".into();
    set
}

fn set(cluster: &Cluster) -> Arc<Value> {
    cluster.get("statefulsets.apps", "db")
}

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: &Arc<Value>| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    cluster.pods().iter().map(image).collect()
}

fn is_settled(cluster: &Cluster) -> bool {
    let set = set(cluster);
    set["status"]["readyReplicas"] == set["spec"]["replicas"]
        && set["status"]["observedGeneration"] == set["metadata"]["generation"]
        && set["status"]["updatedReplicas"] == set["spec"]["replicas"]
}

#[test]
fn pods_come_one_after_the_other() {
    let mut cluster = Cluster::new();
    cluster.create(stateful_set(3, "db:1"));
    assert_eq!(cluster.pods().len(), 1);
    cluster.until(is_settled);
    let names: Vec<_> = cluster.pods().iter().map(|pod| name(pod)).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    assert_eq!(cluster.get("pods", "db-1")["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(set(&cluster)["status"]["currentRevision"], set(&cluster)["status"]["updateRevision"]);
}

#[test]
fn volume_claims_are_made_and_bound() {
    let mut cluster = Cluster::new();
    let mut wanted = stateful_set(1, "db:1");
    wanted["spec"]["volumeClaimTemplates"] = json!([{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }]);
    cluster.create(wanted);
    cluster.until(is_settled);
    assert_eq!(cluster.get("persistentvolumeclaims", "data-db-0")["status"]["phase"], "Bound");
}

#[test]
fn an_update_goes_from_the_highest_down_to_the_partition() {
    let mut cluster = Cluster::new();
    cluster.create(stateful_set(3, "db:1"));
    cluster.until(is_settled);
    let partition = |partition: i64| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    cluster.merge(
        "statefulsets.apps",
        "db",
        json!({"spec": {"template": template("db:2"), "updateStrategy": partition(2)}}),
    );
    cluster.run(60);
    assert_eq!(images(&cluster), ["db:1", "db:1", "db:2"]);
    cluster.delete("pods", "db-0", None);
    cluster.run(60);
    assert_eq!(images(&cluster), ["db:1", "db:1", "db:2"], "below the partition it comes back old");
    cluster.merge("statefulsets.apps", "db", json!({"spec": {"updateStrategy": partition(0)}}));
    cluster.until(is_settled);
    assert_eq!(images(&cluster), ["db:2", "db:2", "db:2"]);
    assert_eq!(set(&cluster)["status"]["currentRevision"], set(&cluster)["status"]["updateRevision"]);
}

#[test]
fn a_pod_patched_and_labelled_with_the_update_revision_is_not_restarted() {
    let mut cluster = Cluster::new();
    cluster.create(stateful_set(1, "db:1"));
    cluster.until(is_settled);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    cluster.merge(
        "statefulsets.apps",
        "db",
        json!({"spec": {"template": template("db:2"), "updateStrategy": strategy}}),
    );
    cluster.run(5);
    let uid = cluster.get("pods", "db-0")["metadata"]["uid"].clone();
    let revision = set(&cluster)["status"]["updateRevision"].clone();
    cluster.strategic(
        "pods",
        "db-0",
        json!({
            "metadata": {"labels": {"controller-revision-hash": revision}},
            "spec": {"containers": [{"name": "checkout", "image": "db:2"}]},
        }),
    );
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    cluster.merge("statefulsets.apps", "db", json!({"spec": {"updateStrategy": strategy}}));
    cluster.run(30);
    assert_eq!(cluster.get("pods", "db-0")["metadata"]["uid"], uid);
    assert_eq!(set(&cluster)["status"]["currentRevision"], revision);
}

#[test]
fn it_scales_down_from_the_highest() {
    let mut cluster = Cluster::new();
    cluster.create(stateful_set(3, "db:1"));
    cluster.until(is_settled);
    cluster.merge("statefulsets.apps", "db", json!({"spec": {"replicas": 1}}));
    cluster.run(10);
    assert_eq!(cluster.pods().iter().map(|pod| name(pod)).collect::<Vec<_>>(), ["db-0"]);
}
