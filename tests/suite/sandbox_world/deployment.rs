//! Deployments: rolling, recreating, pausing, and the lines of "Deployment, paused" that were tried on a real cluster.

use super::*;

fn sets(cluster: &Cluster) -> Vec<Arc<Value>> {
    cluster.list("replicasets.apps")
}

fn set_of(cluster: &Cluster, image: &str) -> Arc<Value> {
    let is_of = |set: &&Arc<Value>| set["spec"]["template"]["spec"]["containers"][0]["image"] == image;
    sets(cluster).iter().find(is_of).unwrap().clone()
}

fn new_image(image: &str) -> Value {
    json!({"spec": {"template": template(image)}})
}

fn is_complete(cluster: &Cluster) -> bool {
    let deployment = cluster.get("deployments.apps", "checkout");
    condition(&deployment, "Progressing").is_some_and(|it| it["reason"] == "NewReplicaSetAvailable")
        && deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
        && deployment["status"]["updatedReplicas"] == deployment["spec"]["replicas"]
}

fn uids(cluster: &Cluster) -> Vec<String> {
    let mut uids: Vec<_> =
        cluster.pods().iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect();
    uids.sort();
    uids
}

#[test]
fn it_comes_up_and_says_so() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(3, "checkout:1.0"));
    cluster.until(is_complete);
    let deployment = cluster.get("deployments.apps", "checkout");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let status = &deployment["status"];
    let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].map(|it| &status[it]);
    assert_eq!(counts, [3, 3, 3, 3]);
    assert_eq!(condition(&deployment, "Available").unwrap()["status"], "True");
    let hash = &sets(&cluster)[0]["metadata"]["labels"]["pod-template-hash"];
    assert_eq!(name(&sets(&cluster)[0]), format!("checkout-{}", hash.as_str().unwrap()));
    assert_eq!(&cluster.pods()[0]["metadata"]["labels"]["pod-template-hash"], hash);
}

#[test]
fn a_rolling_update_stays_within_surge_and_unavailability() {
    let mut cluster = Cluster::new();
    let mut wanted = deployment(4, "checkout:1.0");
    wanted["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    cluster.create(wanted);
    cluster.until(is_complete);
    cluster.merge("deployments.apps", "checkout", new_image("checkout:2.0"));
    while !is_complete(&cluster) {
        let alive = cluster.pods().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
        assert!(alive <= 5 && cluster.ready_pods() >= 4, "{alive} pods, {} ready", cluster.ready_pods());
        let next = cluster.now() + Duration::from_millis(50);
        cluster.world.advance(next);
    }
    assert_eq!(set_of(&cluster, "checkout:1.0")["spec"]["replicas"], 0);
    let deployment = cluster.get("deployments.apps", "checkout");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut cluster = Cluster::new();
    let mut wanted = deployment(3, "checkout:1.0");
    wanted["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create(wanted);
    cluster.until(is_complete);
    cluster.merge("deployments.apps", "checkout", new_image("checkout:2.0"));
    while !is_complete(&cluster) {
        let images: std::collections::BTreeSet<_> =
            cluster.pods().iter().map(|pod| pod["spec"]["containers"][0]["image"].to_string()).collect();
        assert!(images.len() <= 1, "{images:?}");
        let next = cluster.now() + Duration::from_millis(50);
        cluster.world.advance(next);
    }
    assert_eq!(cluster.ready_pods(), 3);
}

#[test]
fn an_update_that_never_gets_ready_exceeds_its_deadline_and_keeps_the_old_pods() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(4, "checkout:1.0"));
    cluster.until(is_complete);
    let mut change = new_image("checkout:2.0-bad-image");
    change["spec"]["progressDeadlineSeconds"] = 60.into();
    cluster.merge("deployments.apps", "checkout", change);
    cluster.run(58);
    assert_eq!(condition(&cluster.get("deployments.apps", "checkout"), "Progressing").unwrap()["status"], "True");
    cluster.run(10);
    let deployment = cluster.get("deployments.apps", "checkout");
    assert_eq!(condition(&deployment, "Progressing").unwrap()["reason"], "ProgressDeadlineExceeded");
    assert_eq!(condition(&deployment, "Available").unwrap()["status"], "True");
    assert_eq!(cluster.ready_pods(), 3);
}

#[test]
fn going_back_finds_the_old_set_again_with_a_new_revision() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(2, "checkout:1.0"));
    cluster.until(is_complete);
    let first = name(&sets(&cluster)[0]);
    for image in ["checkout:2.0", "checkout:1.0"] {
        cluster.merge("deployments.apps", "checkout", new_image(image));
        cluster.until(is_complete);
    }
    assert_eq!(sets(&cluster).len(), 2);
    let set = cluster.get("replicasets.apps", &first);
    assert_eq!(
        (&set["spec"]["replicas"], &set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]),
        (&json!(2), &json!("3"))
    );
}

#[test]
fn old_sets_beyond_the_history_limit_go() {
    let mut cluster = Cluster::new();
    let mut wanted = deployment(1, "checkout:1.0");
    wanted["spec"]["revisionHistoryLimit"] = 1.into();
    cluster.create(wanted);
    for version in 2..5 {
        cluster.until(is_complete);
        cluster.merge("deployments.apps", "checkout", new_image(&format!("checkout:{version}.0")));
    }
    cluster.until(is_complete);
    cluster.run(5);
    assert_eq!(sets(&cluster).len(), 2);
}

#[test]
fn a_set_with_the_name_of_the_new_one_is_a_collision() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(1, "checkout:1.0"));
    let taken = name(&sets(&cluster)[0]);
    cluster.delete("deployments.apps", "checkout", None);
    cluster.run(10);
    let mut foreign = replica_set(&taken, 0, "other:1.0");
    foreign["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    foreign["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    cluster.create(foreign);
    cluster.create(deployment(1, "checkout:1.0"));
    cluster.until(is_complete);
    assert_eq!(cluster.get("deployments.apps", "checkout")["status"]["collisionCount"], 1);
    assert_eq!(sets(&cluster).len(), 2);
}

// What follows is the section "Deployment, paused" of what was tried on a real control plane.

fn paused(replicas: u32) -> Value {
    let mut paused = deployment(replicas, "checkout:1.0");
    paused["spec"]["paused"] = true.into();
    paused
}

/// A ReplicaSet as a stage makes it: its pods match the Deployment's selector, its own labels do not.
fn slice(unit: &str, replicas: u32, image: &str) -> Value {
    let mut slice = replica_set(&format!("checkout-{unit}"), replicas, image);
    let labels = json!({"app": "checkout", "pod-template-hash": unit});
    slice["spec"]["selector"]["matchLabels"] = labels.clone();
    slice["spec"]["template"]["metadata"]["labels"] = labels;
    slice
}

#[test]
fn paused_and_owning_nothing_it_creates_nothing_and_its_replicas_can_be_scaled() {
    let mut cluster = Cluster::new();
    cluster.create(paused(3));
    cluster.create(slice("dca", 2, "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 2);
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"replicas": 5}}));
    cluster.run(30);
    assert_eq!(cluster.pods().len(), 2);
    assert_eq!(sets(&cluster).len(), 1, "the slice was left alone");
    let deployment = cluster.get("deployments.apps", "checkout");
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["status"]["replicas"], Value::Null, "0 of 5");
    assert_eq!(deployment["status"]["observedGeneration"], 2);
    assert_eq!(condition(&deployment, "Progressing").unwrap()["reason"], "DeploymentPaused");
}

#[test]
fn paused_and_owning_one_active_set_it_scales_that_one() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(3, "checkout:1.0"));
    cluster.until(is_complete);
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"paused": true, "replicas": 5}}));
    cluster.until(|it| it.ready_pods() == 5);
    assert_eq!(sets(&cluster).len(), 1);
}

#[test]
fn paused_and_owning_two_active_sets_it_scales_them_in_proportion() {
    let mut cluster = Cluster::new();
    let mut wanted = deployment(10, "checkout:1.0");
    wanted["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 5}});
    cluster.create(wanted);
    cluster.until(is_complete);
    let mut change = new_image("checkout:2.0-never-ready");
    change["spec"]["template"]["metadata"]["labels"]["v"] = "2".into();
    cluster.merge("deployments.apps", "checkout", change);
    cluster.run(10);
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"paused": true}}));
    let sizes = |cluster: &Cluster| {
        let mut sizes: Vec<_> = sets(cluster).iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).collect();
        sizes.sort();
        sizes
    };
    assert_eq!(sizes(&cluster), [5, 5]);
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"replicas": 20}}));
    assert_eq!(sizes(&cluster), [10, 10]);
}

#[test]
fn an_ownerless_set_with_matching_labels_is_adopted_and_scaled_to_nothing_when_its_template_differs() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(2, "checkout:1.0"));
    cluster.until(is_complete);
    let mut stray = slice("dca", 3, "checkout:0.9");
    stray["metadata"]["labels"] = json!({"app": "checkout"});
    cluster.create(stray);
    let stray = cluster.get("replicasets.apps", "checkout-dca");
    assert_eq!(stray["metadata"]["ownerReferences"][0]["kind"], "Deployment");
    cluster.run(10);
    assert_eq!(cluster.get("replicasets.apps", "checkout-dca")["spec"]["replicas"], 0);
    assert_eq!(cluster.ready_pods(), 2);
}

#[test]
fn letting_go_and_coming_back_touches_no_pod() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(3, "checkout:1.0"));
    cluster.until(is_complete);
    let before = uids(&cluster);
    let set = name(&sets(&cluster)[0]);

    cluster.merge("deployments.apps", "checkout", json!({"spec": {"paused": true}}));
    cluster.merge("replicasets.apps", &set, json!({"metadata": {"labels": {"app": null}}}));
    cluster.run(10);
    assert!(cluster.get("replicasets.apps", &set)["metadata"]["ownerReferences"].is_null());
    assert_eq!(uids(&cluster), before);

    // In between, a pod is updated in place and the template is moved on.
    for pod in cluster.pods() {
        cluster.set_image(&name(&pod), "checkout:2.0");
    }
    cluster.until(|it| it.ready_pods() == 3);
    cluster.merge("deployments.apps", "checkout", new_image("checkout:2.0"));
    let patch = json!({"spec": {"template": {"spec": template("checkout:2.0")["spec"]}}});
    cluster.strategic("replicasets.apps", &set, patch);
    assert_eq!(sets(&cluster).len(), 1, "paused, it made no second one");

    cluster.merge("replicasets.apps", &set, json!({"metadata": {"labels": {"app": "checkout"}}}));
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"paused": false}}));
    cluster.until(is_complete);
    assert_eq!(uids(&cluster), before);
    assert_eq!(sets(&cluster).len(), 1);
    assert_eq!(cluster.get("deployments.apps", "checkout")["status"]["readyReplicas"], 3);
}

#[test]
fn without_the_pause_letting_go_makes_a_second_set() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(2, "checkout:1.0"));
    cluster.until(is_complete);
    let set = name(&sets(&cluster)[0]);
    cluster.merge("replicasets.apps", &set, json!({"metadata": {"labels": {"app": null}}}));
    cluster.run(10);
    assert_eq!(sets(&cluster).len(), 2);
}

#[test]
fn a_set_told_apart_by_another_label_is_not_taken_back() {
    let mut cluster = Cluster::new();
    cluster.create(paused(2));
    let mut stray = slice("dca", 2, "checkout:1.0");
    let labels = json!({"app": "checkout", "unit": "dca"});
    stray["metadata"]["labels"] = json!({"app": "checkout"});
    stray["spec"]["selector"]["matchLabels"] = labels.clone();
    stray["spec"]["template"]["metadata"]["labels"] = labels;
    cluster.create(stray);
    cluster.until(|it| it.ready_pods() == 2);
    let before = uids(&cluster);
    cluster.merge("deployments.apps", "checkout", json!({"spec": {"paused": false}}));
    cluster.until(is_complete);
    cluster.run(10);
    assert!(uids(&cluster).iter().all(|uid| !before.contains(uid)), "all pods were replaced");
}
