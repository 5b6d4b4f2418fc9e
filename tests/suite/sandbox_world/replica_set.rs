//! ReplicaSets: creating, adopting, releasing, choosing victims.

use super::*;

#[test]
fn it_creates_its_pods_and_says_how_many_are_ready() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set("checkout", 3, "checkout:1.0"));
    assert_eq!(cluster.pods().len(), 3);
    let pod = &cluster.pods()[0];
    assert!(name(pod).starts_with("checkout-"));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
    cluster.until(|it| it.ready_pods() == 3);
    cluster.react();
    let status = &cluster.get("replicasets.apps", "checkout")["status"];
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"].map(|it| &status[it]);
    assert_eq!(counts, [3, 3, 3, 3]);
    assert_eq!(status["observedGeneration"], 1);
}

#[test]
fn a_pod_that_dies_is_replaced() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set("checkout", 2, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 2);
    let victim = name(&cluster.pods()[0]);
    cluster.delete("pods", &victim, None);
    cluster.until(|it| it.ready_pods() == 2 && it.pods().len() == 2);
    assert!(cluster.find("pods", &victim).is_none());
}

#[test]
fn an_orphan_that_matches_is_adopted_and_one_that_no_longer_does_is_released() {
    let mut cluster = Cluster::new();
    cluster.create(pod("stray", "checkout:0.9"));
    cluster.create(replica_set("checkout", 2, "checkout:1.0"));
    assert_eq!(cluster.pods().len(), 2);
    assert_eq!(cluster.get("pods", "stray")["metadata"]["ownerReferences"][0]["name"], "checkout");
    cluster.merge("pods", "stray", json!({"metadata": {"labels": {"app": "other"}}}));
    assert!(cluster.get("pods", "stray")["metadata"]["ownerReferences"].is_null());
    assert_eq!(cluster.pods().len(), 3);
}

#[test]
fn adoption_and_a_change_of_the_template_leave_a_patched_image_alone() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set("checkout", 1, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 1);
    let pod = name(&cluster.pods()[0]);
    cluster.set_image(&pod, "checkout:2.0");
    cluster.until(|it| it.ready_pods() == 1);
    cluster.merge("replicasets.apps", "checkout", json!({"spec": {"template": template("checkout:3.0")}}));
    cluster.run(30);
    assert_eq!(cluster.get("pods", &pod)["spec"]["containers"][0]["image"], "checkout:2.0");
}

#[test]
fn a_pod_that_is_not_ready_goes_first_whatever_its_cost() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set("checkout", 3, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 3);
    let names: Vec<_> = cluster.pods().iter().map(|pod| name(pod)).collect();
    let cost = |cost: &str| json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
    cluster.merge("pods", &names[0], cost("1000"));
    cluster.merge("pods", &names[1], cost("-1000"));
    cluster.set_image(&names[0], "checkout:2.0-never-ready");
    cluster.run(5);
    assert!(!is_ready(&cluster.get("pods", &names[0])));
    cluster.merge("replicasets.apps", "checkout", json!({"spec": {"replicas": 2}}));
    cluster.run(5);
    assert!(cluster.find("pods", &names[0]).is_none(), "it was not ready");
    cluster.merge("replicasets.apps", "checkout", json!({"spec": {"replicas": 1}}));
    cluster.run(5);
    assert!(cluster.find("pods", &names[1]).is_none(), "it was the cheapest");
}

#[test]
fn a_pod_is_available_once_it_was_ready_for_long_enough() {
    let mut cluster = Cluster::new();
    let mut set = replica_set("checkout", 1, "checkout:1.0");
    set["spec"]["minReadySeconds"] = 30.into();
    cluster.create(set);
    cluster.until(|it| it.ready_pods() == 1);
    cluster.react();
    let available =
        |cluster: &Cluster| cluster.get("replicasets.apps", "checkout")["status"]["availableReplicas"].clone();
    assert_eq!(available(&cluster), Value::Null);
    cluster.run(28);
    assert_eq!(available(&cluster), Value::Null);
    cluster.run(3);
    assert_eq!(available(&cluster), 1);
}

#[test]
fn a_hundred_pods_take_milliseconds() {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 3), ("dcb", 3)], 110), Pace::simulated());
    let started = std::time::Instant::now();
    cluster.create(service());
    cluster.create(deployment(100, "checkout:1.0"));
    cluster.run(600);
    assert_eq!(cluster.ready_pods(), 100);
    // Generous: it is an optimised build that must be fast. What this catches is work that grows with the square.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
