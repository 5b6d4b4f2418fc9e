//! The cluster behind the API, under a virtual clock: what its controllers and its kubelet do.
#![allow(clippy::unwrap_used)]

mod batch;
mod deployment;
mod endpoints;
mod garbage;
mod kubelet;
mod nodes;
mod replica_set;
mod scheduler;
mod stateful_set;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use locktender::sandbox::{
    api::{DeleteOptions, PatchKind, PatchRequest, Propagation, Status, WriteOptions},
    nodes::NodeSpec,
    pace::Pace,
    world::{World, WorldOptions},
};
use serde_json::{Value, json};

/// A cluster with its clock.
struct Cluster {
    world: World,
}

impl Cluster {
    /// Two units of three nodes.
    fn new() -> Self {
        Self::with(NodeSpec::of_units([("dca", 3), ("dcb", 3)], 20), Pace::simulated())
    }

    fn with(nodes: Vec<NodeSpec>, pace: Pace) -> Self {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        Self { world: World::new(WorldOptions { seed: 1, now, nodes, pace }) }
    }

    fn now(&self) -> Timestamp {
        self.world.api.now()
    }

    fn create(&mut self, object: Value) -> Arc<Value> {
        let made = self.world.api.create(object).unwrap();
        self.react();
        made
    }

    /// Lets everybody react, without time going on.
    fn react(&mut self) {
        let now = self.now();
        self.world.advance(now);
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now() + Duration::from_secs(seconds);
        self.world.advance(until);
    }

    /// Runs until something holds; fails after ten minutes.
    #[track_caller]
    fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let deadline = self.now() + Duration::from_secs(600);
        while !holds(self) {
            assert!(self.now() < deadline, "it does not come true");
            let next = self.now() + Duration::from_millis(100);
            self.world.advance(next);
        }
    }

    fn get(&self, resource: &str, name: &str) -> Arc<Value> {
        self.find(resource, name).unwrap_or_else(|| panic!("{resource} {name} does not exist"))
    }

    fn find(&self, resource: &str, name: &str) -> Option<Arc<Value>> {
        let namespace = if matches!(resource, "nodes" | "namespaces") { "" } else { "default" };
        self.world.api.get(resource, namespace, name)
    }

    fn list(&self, resource: &str) -> Vec<Arc<Value>> {
        self.world.api.list(resource).cloned().collect()
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.list("pods")
    }

    fn ready_pods(&self) -> usize {
        self.pods().iter().filter(|pod| is_ready(pod)).count()
    }

    fn merge(&mut self, resource: &str, name: &str, body: Value) -> Arc<Value> {
        self.try_merge(resource, name, None, body).unwrap()
    }

    fn merge_status(&mut self, resource: &str, name: &str, body: Value) -> Arc<Value> {
        self.try_merge(resource, name, Some("status"), body).unwrap()
    }

    fn try_merge(
        &mut self,
        resource: &str,
        name: &str,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Arc<Value>, Status> {
        let namespace = if resource == "nodes" { "" } else { "default" };
        let patched = self.world.api.patch(PatchRequest {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.map(Into::into),
            kind: PatchKind::Merge,
            body,
            force: false,
            options: WriteOptions::default(),
        });
        self.react();
        patched
    }

    fn strategic(&mut self, resource: &str, name: &str, body: Value) {
        let request = PatchRequest {
            resource: resource.into(),
            namespace: "default".into(),
            name: name.into(),
            subresource: None,
            kind: PatchKind::Strategic,
            body,
            force: false,
            options: WriteOptions::default(),
        };
        self.world.api.patch(request).unwrap();
        self.react();
    }

    /// Changes the image of a pod's first container in place.
    fn set_image(&mut self, pod: &str, image: &str) {
        let name = self.get("pods", pod)["spec"]["containers"][0]["name"].clone();
        self.strategic("pods", pod, json!({"spec": {"containers": [{"name": name, "image": image}]}}));
    }

    fn delete(&mut self, resource: &str, name: &str, propagation: Option<Propagation>) {
        let namespace = if matches!(resource, "nodes" | "namespaces") { "" } else { "default" };
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        self.world.api.delete(resource, namespace, name, options).unwrap();
        self.react();
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|it| it["status"] == "True") && pod["metadata"]["deletionTimestamp"].is_null()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "checkout"}},
        "spec": {"containers": [{"name": "checkout", "image": image, "ports": [{"name": "http", "containerPort": 9080}]}]},
    })
}

fn pod(pod_name: &str, image: &str) -> Value {
    let mut pod = template(image);
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = pod_name.into();
    pod["metadata"]["namespace"] = "default".into();
    pod
}

fn replica_set(set_name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": set_name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "checkout"}}, "template": template(image),
        },
    })
}

fn deployment(replicas: u32, image: &str) -> Value {
    let mut deployment = replica_set("checkout", replicas, image);
    deployment["kind"] = "Deployment".into();
    deployment
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout", "namespace": "default"},
        "spec": {"selector": {"app": "checkout"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}
