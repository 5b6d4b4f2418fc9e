//! Garbage collection and namespaces.

use super::*;

fn up(cluster: &mut Cluster) {
    cluster.create(service());
    cluster.create(deployment(2, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 2);
}

#[test]
fn in_the_background_the_owner_goes_first() {
    let mut cluster = Cluster::new();
    up(&mut cluster);
    cluster.delete("deployments.apps", "checkout", Some(Propagation::Background));
    assert!(cluster.find("deployments.apps", "checkout").is_none());
    cluster.run(5);
    assert!(cluster.list("replicasets.apps").is_empty() && cluster.pods().is_empty());
}

#[test]
fn in_the_foreground_the_owner_waits_for_its_dependents() {
    let mut cluster = Cluster::new();
    up(&mut cluster);
    cluster.delete("deployments.apps", "checkout", Some(Propagation::Foreground));
    assert_eq!(cluster.get("deployments.apps", "checkout")["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(cluster.pods().len(), 2, "they stop gracefully, and are not replaced");
    cluster.run(5);
    assert!(cluster.find("deployments.apps", "checkout").is_none() && cluster.pods().is_empty());
}

#[test]
fn orphaned_dependents_stay_and_run() {
    let mut cluster = Cluster::new();
    up(&mut cluster);
    cluster.delete("deployments.apps", "checkout", Some(Propagation::Orphan));
    cluster.run(5);
    assert!(cluster.find("deployments.apps", "checkout").is_none());
    let set = &cluster.list("replicasets.apps")[0];
    assert!(set["metadata"]["ownerReferences"].is_null());
    assert_eq!(cluster.ready_pods(), 2);
    let set = name(set);
    cluster.delete("replicasets.apps", &set, Some(Propagation::Orphan));
    cluster.run(5);
    assert!(cluster.pods().iter().all(|pod| pod["metadata"]["ownerReferences"].is_null()));
    assert_eq!(cluster.ready_pods(), 2);
}

#[test]
fn an_object_whose_owner_never_was_goes() {
    let mut cluster = Cluster::new();
    cluster.create(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "left", "namespace": "default", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "no-such-uid"}
        ]},
    }));
    assert!(cluster.find("configmaps", "left").is_none());
}

#[test]
fn an_object_with_two_owners_goes_with_the_last() {
    let mut cluster = Cluster::new();
    for set in ["a", "b"] {
        cluster.create(replica_set(set, 0, "checkout:1.0"));
    }
    let reference = |cluster: &Cluster, set: &str| {
        let uid = cluster.get("replicasets.apps", set)["metadata"]["uid"].clone();
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": uid})
    };
    let owners = json!([reference(&cluster, "a"), reference(&cluster, "b")]);
    cluster.create(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "shared", "namespace": "default", "ownerReferences": owners},
    }));
    cluster.delete("replicasets.apps", "a", None);
    assert_eq!(cluster.get("configmaps", "shared")["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    cluster.delete("replicasets.apps", "b", None);
    assert!(cluster.find("configmaps", "shared").is_none());
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    let mut cluster = Cluster::new();
    cluster.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    let mut inside = deployment(2, "checkout:1.0");
    inside["metadata"]["namespace"] = "shop".into();
    cluster.create(inside);
    cluster.until(|it| it.ready_pods() == 2);
    cluster.delete("namespaces", "shop", None);
    assert_eq!(cluster.get("namespaces", "shop")["status"]["phase"], "Terminating");
    cluster.run(10);
    assert!(cluster.find("namespaces", "shop").is_none() && cluster.pods().is_empty());
}
