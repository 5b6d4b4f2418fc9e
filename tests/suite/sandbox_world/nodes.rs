//! Nodes: what they are, and what happens when one is lost.

use super::*;

#[test]
fn a_node_has_its_unit_and_room() {
    let cluster = Cluster::new();
    let node = cluster.get("nodes", "dca-1");
    assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/zone"], "dca");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "dca-1");
    assert_eq!(node["status"]["allocatable"]["pods"], "20");
    assert_eq!(condition(&node, "Ready").unwrap()["status"], "True");
    assert_eq!(cluster.list("nodes").len(), 6);
}

#[test]
fn nodes_renew_their_leases_where_somebody_reads_them() {
    let mut cluster = Cluster::with(vec![NodeSpec::new("one", "dca", 10)], Pace::default());
    let renewed = |cluster: &Cluster| cluster.list("leases.coordination.k8s.io")[0]["spec"]["renewTime"].clone();
    cluster.run(1);
    let before = renewed(&cluster);
    cluster.run(10);
    assert_ne!(renewed(&cluster), before);
}

#[test]
fn fault_68_pods_of_a_lost_node_are_not_ready_and_come_up_elsewhere() {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 2)], 10), Pace::simulated());
    cluster.create(service());
    cluster.create(replica_set("checkout", 4, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 4);
    cluster.world.faults().set_node_down("dca-1", true);
    cluster.react();
    assert_eq!(cluster.ready_pods(), 4, "nobody knows yet");
    cluster.run(6);
    assert_eq!(condition(&cluster.get("nodes", "dca-1"), "Ready").unwrap()["status"], "Unknown");
    assert_eq!(cluster.ready_pods(), 2);
    cluster.run(30);
    assert_eq!(cluster.ready_pods(), 4);
    let terminating = cluster.pods().iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).count();
    assert_eq!(terminating, 2, "only the kubelet can say that they ended");
    assert!(cluster.pods().iter().filter(|pod| is_ready(pod)).all(|pod| pod["spec"]["nodeName"] == "dca-2"));

    cluster.world.faults().set_node_down("dca-1", false);
    cluster.run(10);
    assert_eq!(cluster.pods().len(), 4);
    let node = cluster.get("nodes", "dca-1");
    assert_eq!(condition(&node, "Ready").unwrap()["status"], "True");
    assert!(node["spec"]["taints"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn a_short_loss_costs_a_restart_and_no_pod() {
    let mut cluster = Cluster::with(vec![NodeSpec::new("one", "dca", 10)], Pace::simulated());
    cluster.create(pod("a", "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 1);
    cluster.world.faults().set_node_down("one", true);
    cluster.run(2);
    cluster.world.faults().set_node_down("one", false);
    cluster.run(5);
    assert_eq!(cluster.ready_pods(), 1);
    assert_eq!(cluster.get("pods", "a")["status"]["containerStatuses"][0]["restartCount"], 1);
}

#[test]
fn pods_of_a_deleted_node_go() {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 2)], 10), Pace::simulated());
    cluster.create(replica_set("checkout", 2, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 2);
    cluster.world.faults().set_node_down("dca-1", true);
    cluster.run(30);
    cluster.delete("nodes", "dca-1", None);
    cluster.run(5);
    assert_eq!(cluster.pods().len(), 2);
    assert_eq!(cluster.ready_pods(), 2);
}

#[test]
fn a_config_map_takes_a_node_down_and_brings_it_back() {
    let mut cluster = Cluster::with(vec![NodeSpec::new("one", "dca", 10)], Pace::simulated());
    let faults = |data: Value| {
        let metadata = json!({"name": "locktender-sandbox-faults", "namespace": "kube-system"});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    };
    cluster.create(faults(json!({"node-down": "one"})));
    cluster.run(10);
    assert_eq!(condition(&cluster.get("nodes", "one"), "Ready").unwrap()["status"], "Unknown");
    cluster.world.api.update(faults(json!({})), None).unwrap();
    cluster.run(2);
    assert_eq!(condition(&cluster.get("nodes", "one"), "Ready").unwrap()["status"], "True");
}
