//! EndpointSlices, budgets, and the slow load balancer.

use super::*;
use locktender::sandbox::controllers::load_balancer::FINALIZER;

fn slices(cluster: &Cluster) -> Vec<Arc<Value>> {
    cluster.list("endpointslices.discovery.k8s.io")
}

fn endpoints(cluster: &Cluster) -> Vec<Value> {
    slices(cluster).iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default()).collect()
}

fn in_service(cluster: &Cluster) -> usize {
    endpoints(cluster).iter().filter(|it| it["conditions"]["ready"] == true).count()
}

fn has_finalizer(cluster: &Cluster, pod: &str) -> bool {
    cluster.get("pods", pod)["metadata"]["finalizers"].as_array().is_some_and(|it| it.iter().any(|it| it == FINALIZER))
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let mut cluster = Cluster::new();
    cluster.create(service());
    assert_eq!(slices(&cluster).len(), 1);
    assert!(endpoints(&cluster).is_empty());
}

#[test]
fn ready_pods_are_listed_with_their_node_zone_and_named_port() {
    let mut cluster = Cluster::new();
    cluster.create(service());
    cluster.create(replica_set("checkout", 2, "checkout:1.0"));
    cluster.until(|it| in_service(it) == 2);
    let slice = &slices(&cluster)[0];
    assert_eq!(slices(&cluster).len(), 1);
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 9080, "protocol": "TCP"}]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "checkout");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Service");
    let endpoint = &endpoints(&cluster)[0];
    let pod = cluster.get("pods", endpoint["targetRef"]["name"].as_str().unwrap());
    assert_eq!(endpoint["addresses"][0], pod["status"]["podIP"]);
    assert_eq!(endpoint["nodeName"], pod["spec"]["nodeName"]);
    let node = cluster.get("nodes", endpoint["nodeName"].as_str().unwrap());
    assert_eq!(endpoint["zone"], node["metadata"]["labels"]["topology.kubernetes.io/zone"]);
}

#[test]
fn a_pod_that_is_not_ready_stays_in_the_slice_and_takes_no_requests() {
    let mut cluster = Cluster::new();
    cluster.create(service());
    cluster.create(pod("one", "checkout:1.0-never-ready"));
    cluster.run(20);
    assert_eq!(endpoints(&cluster)[0]["conditions"], json!({"ready": false, "serving": false, "terminating": false}));
    cluster.merge("services", "checkout", json!({"spec": {"publishNotReadyAddresses": true}}));
    assert_eq!(endpoints(&cluster)[0]["conditions"]["ready"], true);
}

#[test]
fn a_pod_that_is_being_deleted_still_serves_and_is_no_longer_ready() {
    let mut cluster = Cluster::new();
    cluster.create(service());
    cluster.create(pod("one", "checkout:1.0"));
    cluster.until(|it| in_service(it) == 1);
    cluster.delete("pods", "one", None);
    assert_eq!(endpoints(&cluster)[0]["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
    cluster.run(5);
    assert!(endpoints(&cluster).is_empty());
}

#[test]
fn taking_the_selected_label_away_takes_the_endpoint_away_at_once() {
    let mut cluster = Cluster::new();
    let mut selecting = service();
    selecting["spec"]["selector"]["locktender.dev/in-service"] = "true".into();
    cluster.create(selecting);
    let mut labelled = pod("one", "checkout:1.0");
    labelled["metadata"]["labels"]["locktender.dev/in-service"] = "true".into();
    cluster.create(labelled);
    cluster.until(|it| in_service(it) == 1);
    cluster.merge("pods", "one", json!({"metadata": {"labels": {"locktender.dev/in-service": null}}}));
    assert!(endpoints(&cluster).is_empty());
}

/// Two versions of `count` pods each, the Service on the first; returns how many changes of slices a switch makes, and
/// whether there was ever none or both.
fn switch(count: u32) -> (usize, bool, bool) {
    let mut cluster = Cluster::with(NodeSpec::of_units([("dca", 3), ("dcb", 3)], 200), Pace::simulated());
    let mut narrowed = service();
    narrowed["spec"]["selector"]["v"] = "1".into();
    cluster.create(narrowed);
    for version in ["1", "2"] {
        let mut set = replica_set(&format!("checkout-{version}"), count, "checkout:1.0");
        set["spec"]["selector"]["matchLabels"]["v"] = version.into();
        set["spec"]["template"]["metadata"]["labels"]["v"] = version.into();
        cluster.create(set);
    }
    cluster.until(|it| it.ready_pods() == 2 * count as usize && in_service(it) == count as usize);
    let before = cluster.world.api.revision();
    let mut state: std::collections::BTreeMap<String, Value> =
        slices(&cluster).iter().map(|slice| (name(slice), slice["endpoints"].clone())).collect();
    cluster.merge("services", "checkout", json!({"spec": {"selector": {"v": "2"}}}));
    let (mut changes, mut empty, mut both) = (0, false, false);
    for event in cluster.world.api.events_since(before).unwrap() {
        if &*event.resource != "endpointslices.discovery.k8s.io" {
            continue;
        }
        changes += 1;
        state.insert(name(&event.object), event.object["endpoints"].clone());
        let listed = state.values().flat_map(|it| it.as_array().unwrap());
        let names: Vec<&str> = listed.map(|it| it["targetRef"]["name"].as_str().unwrap()).collect();
        let of = |version: &str| names.iter().any(|it| it.starts_with(&format!("checkout-{version}")));
        empty |= names.is_empty();
        both |= of("1") && of("2");
    }
    (changes, empty, both)
}

#[test]
fn a_switch_of_up_to_a_hundred_is_one_change_and_a_larger_one_shows_both_for_a_moment() {
    assert_eq!(switch(30), (1, false, false));
    assert_eq!(switch(250), (3, false, true));
}

#[test]
fn a_budget_counts_what_its_controllers_ask_for() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set("checkout", 4, "checkout:1.0"));
    cluster.create(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "checkout", "namespace": "default"},
        "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "checkout"}}},
    }));
    cluster.until(|it| it.ready_pods() == 4);
    cluster.react();
    let status = cluster.get("poddisruptionbudgets.policy", "checkout")["status"].clone();
    let counts = ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(|it| &status[it]);
    assert_eq!(counts, [4, 3, 4, 1]);
}

#[test]
fn the_load_balancer_protects_the_pods_that_it_serves_and_lets_go_late() {
    let mut cluster = Cluster::new();
    let mut balanced = service();
    balanced["metadata"]["annotations"] = json!({"locktender.dev/sandbox-lb": "true"});
    cluster.create(balanced);
    cluster.create(pod("one", "checkout:1.0"));
    cluster.until(|it| has_finalizer(it, "one"));
    assert_eq!(in_service(&cluster), 1);
    cluster.merge("pods", "one", json!({"metadata": {"labels": {"app": "drained"}}}));
    assert_eq!(in_service(&cluster), 0);
    assert!(has_finalizer(&cluster, "one"), "the load balancer is slow");
    cluster.run(1);
    assert!(!has_finalizer(&cluster, "one"));
}

#[test]
fn fault_32_a_dead_load_balancer_keeps_its_finalizers() {
    let mut cluster = Cluster::new();
    let mut balanced = service();
    balanced["spec"]["type"] = "LoadBalancer".into();
    cluster.create(balanced);
    assert!(cluster.get("services", "checkout")["status"]["loadBalancer"]["ingress"][0]["ip"].is_string());
    cluster.create(pod("one", "checkout:1.0"));
    cluster.until(|it| has_finalizer(it, "one"));
    cluster.world.faults().set_load_balancer_dead(true);
    cluster.delete("pods", "one", None);
    cluster.run(300);
    assert!(has_finalizer(&cluster, "one"));
    cluster.world.faults().set_load_balancer_dead(false);
    cluster.run(5);
    assert!(cluster.find("pods", "one").is_none());
}
