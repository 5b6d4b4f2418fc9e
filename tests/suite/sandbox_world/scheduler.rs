//! The scheduler: where pods go, and what they say when they go nowhere.

use super::*;

fn node_of(cluster: &Cluster, pod: &str) -> String {
    cluster.get("pods", pod)["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

fn complaint(cluster: &Cluster, pod: &str) -> String {
    let pod = cluster.get("pods", pod);
    let scheduled = condition(&pod, "PodScheduled").unwrap();
    assert_eq!((&scheduled["status"], &scheduled["reason"]), (&json!("False"), &json!("Unschedulable")));
    scheduled["message"].as_str().unwrap().to_owned()
}

fn pinned(pod_name: &str, unit: &str) -> Value {
    let mut pod = pod(pod_name, "checkout:1.0");
    pod["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": unit});
    pod
}

#[test]
fn pods_are_spread_over_the_nodes_of_their_unit() {
    let mut cluster = Cluster::new();
    for pod in ["a", "b", "c"] {
        cluster.create(pinned(pod, "dcb"));
    }
    assert_eq!(["a", "b", "c"].map(|pod| node_of(&cluster, pod)), ["dcb-1", "dcb-2", "dcb-3"]);
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_goes_when_there_is_room() {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 2), ("dcb", 1)], 1), Pace::simulated());
    for pod in ["a", "b", "c"] {
        cluster.create(pinned(pod, "dca"));
    }
    assert_eq!(
        complaint(&cluster, "c"),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 Too many pods. preemption: 0/3 \
         nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
    cluster.run(5);
    cluster.delete("pods", "a", None);
    cluster.run(5);
    assert_eq!(node_of(&cluster, "c"), "dca-1");
    cluster.run(5);
    assert!(is_ready(&cluster.get("pods", "c")));
}

#[test]
fn requests_count() {
    let mut cluster = Cluster::with(vec![NodeSpec::new("one", "dca", 10)], Pace::simulated());
    for pod_name in ["a", "b"] {
        let mut greedy = pod(pod_name, "checkout:1.0");
        greedy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "40"}});
        cluster.create(greedy);
    }
    assert!(complaint(&cluster, "b").starts_with("0/1 nodes are available: 1 Insufficient cpu."));
}

#[test]
fn cordons_and_taints_keep_pods_away_until_they_are_lifted() {
    let mut cluster = Cluster::with(vec![NodeSpec::new("one", "dca", 10)], Pace::simulated());
    cluster.merge("nodes", "one", json!({"spec": {"unschedulable": true}}));
    cluster.create(pod("a", "checkout:1.0"));
    assert!(complaint(&cluster, "a").starts_with("0/1 nodes are available: 1 node(s) were unschedulable."));
    let taint = json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    cluster.merge("nodes", "one", json!({"spec": {"unschedulable": null, "taints": taint}}));
    assert!(complaint(&cluster, "a").starts_with("0/1 nodes are available: 1 node(s) had untolerated taint(s)."));
    cluster.merge("nodes", "one", json!({"spec": {"taints": null}}));
    assert_eq!(node_of(&cluster, "a"), "one");
}

#[test]
fn a_hard_spread_constraint_holds() {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 1), ("dcb", 1)], 3), Pace::simulated());
    let spread = |pod_name: &str| {
        let mut pod = pod(pod_name, "checkout:1.0");
        pod["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "checkout"}},
        }]);
        pod
    };
    cluster.create(pinned("x", "dca"));
    cluster.create(spread("a"));
    assert_eq!(node_of(&cluster, "a"), "dcb-1");
    cluster.merge("nodes", "dcb-1", json!({"spec": {"unschedulable": true}}));
    cluster.create(spread("b"));
    assert_eq!(node_of(&cluster, "b"), "dca-1");
    cluster.merge("nodes", "dca-1", json!({"metadata": {"labels": {"topology.kubernetes.io/zone": null}}}));
    cluster.create(spread("c"));
    assert!(complaint(&cluster, "c").contains("missing required label"));
}

#[test]
fn a_stopped_scheduler_schedules_when_it_is_back() {
    let mut cluster = Cluster::new();
    cluster.world.faults().set_scheduler_stopped(true);
    cluster.create(pod("a", "checkout:1.0"));
    cluster.run(60);
    assert_eq!(node_of(&cluster, "a"), "");
    cluster.world.faults().set_scheduler_stopped(false);
    cluster.until(|it| it.ready_pods() == 1);
}
