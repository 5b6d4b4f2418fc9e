//! Many applications of four objects each, released by the program as it is shipped, beside a bare loop that sends the
//! same requests to the same API server in the same run.
//!
//! `LOCKTENDER_BENCH_FLEET` (1000 applications), `LOCKTENDER_BENCH_SAMPLES` (5) and `LOCKTENDER_BENCH_IDLE` (30, seconds)
//! set the sizes. The API server is the sandbox's, in a process of its own; under `tests/controlplane/run` it is the
//! real one. An observer with a watch of its own says when something began and when it was there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../tests/suite/support/git.rs"]
mod git;
mod program;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use locktender::{
    adapter::kube::{KubeCluster, connect},
    core::{
        cluster::{Cluster as _, ClusterEvent, Kind, Write},
        manifest::Object,
    },
};
use serde_json::json;

use self::program::Program;
use crate::git::Remote;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// A cluster in which nothing changes for so long is at rest.
const QUIET: Duration = Duration::from_secs(5);
/// As many as the program has under way at most.
const IN_FLIGHT: usize = 64;

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

/// The API server that everything talks to.
struct Server {
    kubeconfig: PathBuf,
    sandbox: Option<Child>,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(sandbox) = &mut self.sandbox {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
    }
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if std::env::var("LOCKTENDER_TEST_CLUSTER").is_ok_and(|name| name == "controlplane") {
            let kubeconfig = PathBuf::from(std::env::var("KUBECONFIG").unwrap());
            return Self { kubeconfig, sandbox: None, _directory: directory };
        }
        let kubeconfig = directory.path().join("kubeconfig");
        let mut command = Command::new(env!("CARGO_BIN_EXE_locktender"));
        command.arg("sandbox").arg("--kubeconfig").arg(&kubeconfig).stdout(Stdio::null());
        let sandbox = Some(command.spawn().unwrap());
        let began = Instant::now();
        while !kubeconfig.exists() {
            assert!(began.elapsed() < PATIENCE, "the sandbox does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { kubeconfig, sandbox, _directory: directory }
    }

    async fn client(&self) -> KubeCluster {
        connect(Some(&self.kubeconfig), None).await.unwrap()
    }
}

const KINDS: [(&str, &str, &str); 4] =
    [("", "v1", "ConfigMap"), ("", "v1", "ServiceAccount"), ("", "v1", "Service"), ("apps", "v1", "Deployment")];

fn app(n: usize) -> String {
    format!("app-{n:05}")
}

/// The four objects of an application. The Deployment has no pods: nodes are not what is measured.
fn objects(namespace: &str, n: usize, tag: &str) -> [Object; 4] {
    let name = app(n);
    let meta = json!({ "name": name, "namespace": namespace });
    let template = json!({
        "metadata": { "labels": { "app": name } },
        "spec": { "containers": [{ "name": "app", "image": format!("registry.example/{name}:{tag}") }] },
    });
    [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "value": "0" } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "clusterIP": "None", "selector": { "app": name }, "ports": [{ "port": 80 }] } }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": { "replicas": 0, "selector": { "matchLabels": { "app": name } }, "template": template } }),
    ]
    .map(Object)
}

fn text(object: &Object) -> String {
    // JSON is YAML.
    object.0.to_string()
}

/// Sees the cluster as anybody may.
struct Observer(KubeCluster);

impl Observer {
    async fn of(server: &Server) -> Self {
        let cluster = server.client().await;
        for (group, version, kind) in KINDS {
            cluster.watch(&Kind::new(group, version, kind)).await;
        }
        for _ in KINDS {
            while !matches!(cluster.next_event().await, ClusterEvent::Listed { .. }) {}
        }
        Self(cluster)
    }

    /// Waits until so many different objects of a namespace were seen that are as asked.
    async fn count(&self, namespace: &str, count: usize, holds: impl Fn(&Object) -> bool) -> Instant {
        let mut seen = BTreeSet::new();
        let all = async {
            while seen.len() < count {
                if let ClusterEvent::Applied(object) = self.0.next_event().await
                    && object.namespace() == namespace
                    && object.name().starts_with("app-")
                    && holds(&object)
                {
                    seen.insert(object.key());
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, all).await;
        assert!(found.is_ok(), "{} of {count} were seen", seen.len());
        Instant::now()
    }

    /// Waits until nothing has changed for a while: a real cluster's own controllers are at work long after the applies.
    async fn is_at_rest(&self) {
        let at_rest = async { while tokio::time::timeout(QUIET, self.0.next_event()).await.is_ok() {} };
        let found = tokio::time::timeout(PATIENCE, at_rest).await;
        assert!(found.is_ok(), "the cluster never rests");
    }

    fn skip(&self) {
        while self.0.try_event().is_some() {}
    }
}

async fn send(client: &KubeCluster, writes: Vec<Write>) {
    let send = |write: Write| async move {
        client.write(&write).await.unwrap();
    };
    futures::stream::iter(writes).for_each_concurrent(IN_FLIGHT, send).await;
}

fn apply(object: Object) -> Write {
    Write::Apply { object, force: true, manager: None }
}

fn ratio(what: &str, ours: Duration, least: Duration) {
    let share = least.as_secs_f64() / ours.as_secs_f64();
    let (ours, least) = (ours.as_secs_f64(), least.as_secs_f64());
    println!("{what}: {ours:.2} s, bare {least:.2} s: {share:.2} of the bare rate");
}

async fn run() {
    let count = size("LOCKTENDER_BENCH_FLEET", 1000);
    let server = Server::start().await;
    let person = server.client().await;
    for namespace in ["shop", "bare"] {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        person.write(&apply(Object(object))).await.unwrap();
    }
    let remote = Remote::with_files(&[("README.md", "a fleet\n")]);
    let clone = remote.clone_as("Ada");
    let mut program = Program::start(Path::new(&remote.path()), &server.kubeconfig).await;
    let observer = Observer::of(&server).await;

    let deployed = |tag: &'static str| {
        move |object: &Object| {
            object
                .at(&["spec", "template", "spec", "containers"])
                .is_some_and(|containers| containers[0]["image"].as_str().is_some_and(|image| image.ends_with(tag)))
        }
    };
    let release = |tag: &str| {
        let mut files = Vec::new();
        for n in 0..count {
            let name = app(n);
            files.push((format!("apps/{name}/app.yaml"), application(&name)));
            let [config, account, service, deployment] = objects("shop", n, tag);
            let rest = [&config, &account, &service].map(text).join("\n---\n");
            files.push((format!("apps/{name}/objects.yaml"), rest));
            files.push((format!("apps/{name}/deployment.yaml"), text(&deployment)));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        clone.pull();
        clone.write_all(&files);
        clone.commit(&format!("release {tag}"));
        let began = Instant::now();
        clone.push();
        began
    };

    let began = release("1.0");
    let installed = observer.count("shop", 4 * count, |_| true).await - began;
    program.settles(count).await;
    println!(
        "{count} applications: {} MiB resident, at most {} MiB",
        program.resident("VmRSS"),
        program.resident("VmHWM")
    );
    let began = Instant::now();
    send(&person, (0..count).flat_map(|n| objects("bare", n, "1.0")).map(apply).collect()).await;
    let bare = observer.count("bare", 4 * count, |_| true).await - began;
    ratio(&format!("{count} applications × 4 objects, from the push"), installed, bare);

    observer.skip();
    let before = program.requests().await;
    let began = release("2.0");
    let changed = observer.count("shop", count, deployed(":2.0")).await - began;
    program.settles(count).await;
    program.tell_requests("    requests for it", &before).await;
    let began = Instant::now();
    let deployments = (0..count).filter_map(|n| objects("bare", n, "2.0").into_iter().nth(3));
    send(&person, deployments.map(apply).collect()).await;
    let bare = observer.count("bare", count, deployed(":2.0")).await - began;
    ratio(&format!("one image changed in all {count}, from the push"), changed, bare);

    observer.is_at_rest().await;
    idle(&mut program, count).await;
    drift(&person, &observer, count).await;
}

fn application(name: &str) -> String {
    format!(
        "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\nspec: {{namespace: shop}}\n"
    )
}

async fn idle(program: &mut Program, count: usize) {
    let time = Duration::from_secs(size("LOCKTENDER_BENCH_IDLE", 30).try_into().unwrap());
    let (before, cpu) = (program.requests().await, program.cpu());
    tokio::time::sleep(time).await;
    let share = (program.cpu() - cpu).as_secs_f64() / time.as_secs_f64();
    println!("nothing to do with {} objects for {} s: {:.2} % of a core", 4 * count, time.as_secs(), 100.0 * share);
    program.tell_requests("    requests meanwhile", &before).await;
}

fn value(object: &Object) -> &str {
    object.text(&["data", "value"])
}

/// What a person does to it by hand.
fn changed(config: &Object) -> Write {
    let mut object = config.clone();
    object.set(&["data", "value"], json!("changed by hand"));
    Write::Apply { object, force: true, manager: Some("ada".to_owned()) }
}

/// Somebody changes a ConfigMap; how long until it is as it was? The least sees the change in a watch and applies.
async fn drift(person: &KubeCluster, observer: &Observer, count: usize) {
    let samples = size("LOCKTENDER_BENCH_SAMPLES", 5);
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut ours, mut least) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let n = (7 * sample) % count;
        let is_it = |object: &Object| object.name() == app(n) && object.text(&["kind"]) == "ConfigMap";
        for (namespace, times) in [("shop", &mut ours), ("bare", &mut least)] {
            let [config, ..] = objects(namespace, n, "2.0");
            observer.skip();
            person.write(&changed(&config)).await.unwrap();
            let began = observer.count(namespace, 1, |object| is_it(object) && value(object) != "0").await;
            if namespace == "bare" {
                person.write(&apply(config)).await.unwrap();
            }
            times.push(observer.count(namespace, 1, |object| is_it(object) && value(object) == "0").await - began);
        }
        // The next record is pushed at once, as it is where drift is rare.
        tokio::time::sleep(Duration::from_millis(3_200)).await;
    }
    let (ours, least) = (median(ours), median(least));
    let times = ours.as_secs_f64() / least.as_secs_f64();
    println!(
        "drift put back: {:.1} ms after it was seen, median of {samples}; {times:.1} × an apply ({:.1} ms)",
        1e3 * ours.as_secs_f64(),
        1e3 * least.as_secs_f64()
    );
}
