//! The kubelet: what a pod says of itself from its start to its end.

use super::*;
use locktender::sandbox::faults::{Fault, Target};

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn waits_for(cluster: &Cluster, pod: &str) -> String {
    container(&cluster.get("pods", pod))["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn with(pod_name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod(pod_name, "checkout:1.0");
    change(&mut pod["spec"]);
    pod
}

#[test]
fn a_pod_comes_up_with_everything_that_the_real_one_says() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "registry.example/checkout:1.0"));
    let pending = cluster.get("pods", "one");
    assert_eq!(pending["status"]["phase"], "Pending");
    assert_eq!(container(&pending)["state"]["waiting"]["reason"], "ContainerCreating");
    cluster.until(|it| it.ready_pods() == 1);
    let pod = cluster.get("pods", "one");
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], status["podIPs"][0]["ip"]);
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["observedGeneration"], pod["metadata"]["generation"]);
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        let condition = condition(&pod, kind).unwrap();
        assert_eq!(condition["status"], "True", "{kind}");
        assert!(condition["lastTransitionTime"].is_string(), "{kind}");
    }
    let status = container(&pod);
    assert_eq!(
        (&status["restartCount"], &status["started"], &status["ready"]),
        (&json!(0), &json!(true), &json!(true))
    );
    assert!(status["imageID"].as_str().unwrap().starts_with("registry.example/checkout@sha256:"));
    assert!(status["containerID"].as_str().unwrap().starts_with("containerd://"));
}

#[test]
fn an_image_changed_in_place_restarts_that_container_only_and_the_pod_stays_who_it_is() {
    let mut cluster = Cluster::new();
    cluster.create(with("one", |spec| {
        spec["containers"].as_array_mut().unwrap().push(json!({"name": "side", "image": "side:1.0"}));
    }));
    cluster.until(|it| it.ready_pods() == 1);
    let before = cluster.get("pods", "one");
    cluster.set_image("one", "checkout:2.0");
    let seen = cluster.get("pods", "one");
    assert_eq!(seen["status"]["observedGeneration"], seen["metadata"]["generation"], "seen before it is done");
    assert_eq!(container(&seen)["containerID"], container(&before)["containerID"]);
    cluster.until(|it| it.ready_pods() == 0);
    cluster.until(|it| it.ready_pods() == 1);
    let after = cluster.get("pods", "one");
    for path in [["metadata", "uid"], ["spec", "nodeName"], ["status", "podIP"], ["status", "startTime"]] {
        assert_eq!(before[path[0]][path[1]], after[path[0]][path[1]], "{path:?}");
    }
    assert_eq!(container(&after)["restartCount"], 1);
    assert_eq!(container(&after)["image"], "checkout:2.0");
    assert_ne!(container(&after)["containerID"], container(&before)["containerID"]);
    assert_ne!(container(&after)["imageID"], container(&before)["imageID"]);
    assert_eq!(before["status"]["containerStatuses"][1], after["status"]["containerStatuses"][1]);
    assert!(before["metadata"]["generation"].as_i64() < after["metadata"]["generation"].as_i64());
}

#[test]
fn fault_66_an_image_that_cannot_be_pulled_backs_off_and_a_good_one_helps() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "checkout:1.0-bad-image"));
    cluster.until(|it| waits_for(it, "one") == "ErrImagePull");
    cluster.until(|it| waits_for(it, "one") == "ImagePullBackOff");
    assert_eq!(cluster.get("pods", "one")["status"]["phase"], "Pending");
    cluster.set_image("one", "checkout:1.0");
    cluster.until(|it| it.ready_pods() == 1);
    assert_eq!(container(&cluster.get("pods", "one"))["restartCount"], 0);
}

#[test]
fn fault_66_a_container_that_crashes_is_restarted_with_growing_waits() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "checkout:1.0-crash"));
    cluster.until(|it| waits_for(it, "one") == "CrashLoopBackOff");
    let pod = cluster.get("pods", "one");
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    cluster.run(300);
    let restarts = container(&cluster.get("pods", "one"))["restartCount"].as_i64().unwrap();
    assert!((4..8).contains(&restarts), "{restarts}");
}

#[test]
fn fault_66_a_pod_that_is_never_ready_says_which_container_it_is() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "checkout:1.0-never-ready"));
    cluster.run(120);
    let pod = cluster.get("pods", "one");
    assert_eq!(pod["status"]["phase"], "Running");
    let ready = condition(&pod, "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ContainersNotReady")));
    assert_eq!(ready["message"], "containers with unready status: [checkout]");
}

#[test]
fn a_slow_pod_takes_its_time() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "checkout:1.0-slow"));
    cluster.run(19);
    assert_eq!(cluster.ready_pods(), 0);
    cluster.run(3);
    assert_eq!(cluster.ready_pods(), 1);
}

#[test]
fn fault_67_a_pod_dies_when_it_is_told_to_and_comes_back() {
    let mut cluster = Cluster::new();
    cluster.create(pod("one", "checkout:1.0"));
    cluster.until(|it| it.ready_pods() == 1);
    let at = cluster.now() + Duration::from_secs(30);
    cluster.world.faults().add(Target::pod("one"), Fault::DieAt(at));
    cluster.run(29);
    assert_eq!(cluster.ready_pods(), 1);
    cluster.until(|it| it.ready_pods() == 0);
    cluster.until(|it| it.ready_pods() == 1);
    let pod = cluster.get("pods", "one");
    assert_eq!(container(&pod)["restartCount"], 1);
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 137);
}

#[test]
fn a_fault_that_is_taken_back_is_over() {
    let mut cluster = Cluster::new();
    let id = cluster.world.faults().add(Target::image("checkout:*"), Fault::NeverReady);
    cluster.create(pod("one", "checkout:1.0"));
    cluster.run(60);
    assert_eq!(cluster.ready_pods(), 0);
    cluster.world.faults().remove(id);
    cluster.react();
    assert_eq!(cluster.ready_pods(), 1);
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut cluster = Cluster::new();
    cluster.create(with("one", |spec| {
        spec["initContainers"] = json!([
            {"name": "first", "image": "init:1"},
            {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"},
            {"name": "second", "image": "init:2"},
        ]);
    }));
    let init = |cluster: &Cluster, at: usize| cluster.get("pods", "one")["status"]["initContainerStatuses"][at].clone();
    cluster.until(|it| !init(it, 0)["state"]["running"].is_null());
    let pod = cluster.get("pods", "one");
    assert_eq!(container(&pod)["state"]["waiting"]["reason"], "PodInitializing");
    let initialized = condition(&pod, "Initialized").unwrap();
    assert_eq!(initialized["message"], "containers with incomplete status: [first proxy second]");
    cluster.until(|it| !init(it, 2)["state"]["running"].is_null());
    assert_eq!(init(&cluster, 0)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(init(&cluster, 1)["started"], true);
    cluster.until(|it| it.ready_pods() == 1);
    assert!(!init(&cluster, 1)["state"]["running"].is_null());

    // In place: the main container restarts, the init containers do not run again.
    cluster.set_image("one", "checkout:2.0");
    cluster.run(30);
    assert_eq!(cluster.ready_pods(), 1);
    assert_eq!([0, 1, 2].map(|at| init(&cluster, at)["restartCount"].clone()), [0, 0, 0]);
}

#[test]
fn a_readiness_gate_is_closed_until_somebody_opens_it() {
    let mut cluster = Cluster::new();
    cluster.create(with("one", |spec| spec["readinessGates"] = json!([{"conditionType": "example.com/in-service"}])));
    cluster.run(30);
    let pod = cluster.get("pods", "one");
    assert_eq!(condition(&pod, "ContainersReady").unwrap()["status"], "True");
    let ready = condition(&pod, "Ready").unwrap();
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(
        ready["message"],
        "corresponding condition of pod readiness gate \"example.com/in-service\" does not exist."
    );
    let mut conditions = pod["status"]["conditions"].as_array().unwrap().clone();
    conditions.push(json!({"type": "example.com/in-service", "status": "True"}));
    cluster.merge_status("pods", "one", json!({"status": {"conditions": conditions}}));
    assert_eq!(cluster.ready_pods(), 1);
}

#[test]
fn probes_wait_for_their_delay_and_a_liveness_probe_that_fails_restarts() {
    let mut cluster = Cluster::new();
    cluster.create(with("one", |spec| {
        spec["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/readyz", "port": "http"}, "initialDelaySeconds": 10});
        spec["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 2});
    }));
    cluster.run(10);
    assert_eq!(cluster.ready_pods(), 0);
    cluster.until(|it| it.ready_pods() == 1);
    cluster.world.faults().add(Target::pod("one"), Fault::Unhealthy);
    cluster.until(|it| container(&it.get("pods", "one"))["restartCount"] == 1);
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let mut cluster = Cluster::new();
    let mut slow = with("one", |spec| {
        spec["containers"][0]["startupProbe"] =
            json!({"tcpSocket": {"port": "http"}, "periodSeconds": 2, "failureThreshold": 30});
    });
    slow["spec"]["containers"][0]["image"] = "checkout:1.0-slow".into();
    cluster.create(slow);
    cluster.run(10);
    assert_eq!(container(&cluster.get("pods", "one"))["started"], false);
    cluster.until(|it| it.ready_pods() == 1);
    assert_eq!(container(&cluster.get("pods", "one"))["started"], true);
}

#[test]
fn a_deleted_pod_stops_within_its_grace_and_then_is_gone() {
    let mut cluster = Cluster::new();
    cluster.create(with("one", |spec| {
        spec["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 20}}});
        spec["terminationGracePeriodSeconds"] = 5.into();
    }));
    cluster.until(|it| it.ready_pods() == 1);
    cluster.delete("pods", "one", None);
    cluster.run(4);
    assert!(!container(&cluster.get("pods", "one"))["state"]["running"].is_null());
    cluster.run(2);
    assert!(cluster.find("pods", "one").is_none());
}

#[test]
fn a_pod_with_a_finalizer_ends_and_stays() {
    let mut cluster = Cluster::new();
    let mut held = pod("one", "checkout:1.0");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    cluster.create(held);
    cluster.until(|it| it.ready_pods() == 1);
    cluster.delete("pods", "one", None);
    cluster.run(30);
    let pod = cluster.get("pods", "one");
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert!(!container(&pod)["state"]["terminated"].is_null());
    cluster.merge("pods", "one", json!({"metadata": {"finalizers": null}}));
    assert!(cluster.find("pods", "one").is_none());
}

#[test]
fn nothing_is_written_once_all_is_well() {
    let mut cluster = Cluster::new();
    cluster.create(service());
    cluster.create(deployment(5, "checkout:1.0"));
    cluster.run(60);
    let revision = cluster.world.api.revision();
    cluster.run(3600);
    assert_eq!(cluster.world.api.revision(), revision);
}

#[test]
fn the_same_seed_makes_the_same_cluster() {
    let run = || {
        let mut cluster = Cluster::new();
        cluster.create(service());
        cluster.create(deployment(5, "checkout:1.0"));
        cluster.run(60);
        cluster.merge("deployments.apps", "checkout", json!({"spec": {"template": template("checkout:2.0")}}));
        cluster.run(60);
        (cluster.pods(), cluster.list("endpointslices.discovery.k8s.io"), cluster.world.api.revision())
    };
    assert_eq!(run(), run());
}
