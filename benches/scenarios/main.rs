//! Whole-program scenarios: a real bare repository, the sandbox's API server over HTTP in a process of its own, and the
//! controller in this one; each beside the least that does the same to both, through the same adapters.
//!
//! `LOCKTENDER_BENCH_APPS` (2000, or several: `1000,10000`), `LOCKTENDER_BENCH_SAMPLES` (5) and `LOCKTENDER_BENCH_IDLE` (20, seconds) set the
//! sizes. Commits are on the server before the clock starts: what is timed begins when the branch moves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../tests/suite/support/git.rs"]
mod git;
mod world;

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use locktender::core::{
    cluster::{Cluster as _, Kind, Write},
    manifest::Object,
    repository::{CommitDraft, Push, Repository as _},
    rollout::{
        action::Action,
        labels,
        report::{Activity, Reason, Report},
    },
};
use serde_json::json;

use self::world::{Watcher, World, own_cpu};

/// Longer than `ledger.pushInterval`: the next record is pushed at once, as it is for a person who takes their time.
const THINKING: Duration = Duration::from_millis(3_200);

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, serve, kubeconfig] = arguments.as_slice()
        && serve == "--serve"
    {
        return world::serve(Path::new(kubeconfig));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let samples = size("LOCKTENDER_BENCH_SAMPLES", 5);
        confirm_to_first_patch(samples).await;
        let few = commit_to_first_write(10, samples, None).await;
        let idle = Duration::from_secs(size("LOCKTENDER_BENCH_IDLE", 20).try_into().unwrap());
        let sizes = std::env::var("LOCKTENDER_BENCH_APPS").unwrap_or_else(|_| "2000".to_owned());
        for apps in sizes.split(',').filter_map(|size| size.trim().parse().ok()) {
            let many = commit_to_first_write(apps, samples, Some(idle)).await;
            println!("{apps} applications to 10: {:.1} ×", many.as_secs_f64() / few.as_secs_f64());
        }
    });
}

/// Times, in the order they were taken.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[sorted.len() / 2]
    }

    fn tell(&self, what: &str, least: &[(&str, &Self)]) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (low, high) = (self.0.iter().min().unwrap(), self.0.iter().max().unwrap());
        println!(
            "{what}: {:.1} ms, median of {} ({:.1} to {:.1})",
            millis(self.median()),
            self.0.len(),
            millis(*low),
            millis(*high)
        );
        for (name, bare) in least {
            let ratio = self.median().as_secs_f64() / bare.median().as_secs_f64();
            println!("    {ratio:>5.1} × {name} ({:.1} ms)", millis(bare.median()));
        }
    }
}

/// The least: the same commit fetched, one record pushed where it is asked for, one write sent.
struct Bare {
    repository: locktender::adapter::git::GitRepository,
    cluster: locktender::adapter::kube::KubeCluster,
}

impl Bare {
    async fn of(world: &mut World) -> Self {
        let (repository, cluster) = (world.repository().await, world.client().await);
        repository.fetch().await.unwrap();
        Self { repository, cluster }
    }

    async fn time(&self, world: &World, path: &str, pushes: bool, write: &Write) -> Duration {
        let text = format!("{:?}\n", Instant::now());
        let prepared = world.prepare(&[(path, &text)], "nothing that is released");
        let began = prepared.land();
        let tip = self.repository.fetch().await.unwrap();
        if pushes {
            let edits = [("bare.txt".to_owned(), Some(text.into_bytes()))].into();
            let draft = CommitDraft { message: "a record".to_owned(), edits, time: Timestamp::now(), author: None };
            assert!(matches!(self.repository.push(&tip, &[draft]).await.unwrap(), Push::Accepted(_)));
        }
        self.cluster.write(write).await.unwrap();
        began.elapsed()
    }
}

fn envelope(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: locktender.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn deployment(replicas: usize, tag: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: checkout}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: checkout}}}}\n  template:\n    metadata: {{labels: {{app: checkout}}}}\n    \
         spec: {{containers: [{{name: app, image: 'registry.example/checkout:{tag}'}}]}}\n"
    )
}

fn waits(report: &Report, stage: &str) -> bool {
    report
        .reasons
        .iter()
        .any(|reason| matches!(reason, Reason::ConfirmNeeded { stage: at, .. } if at.as_str() == stage))
}

/// A confirm is pushed; how long until the first pod is patched?
async fn confirm_to_first_patch(samples: usize) {
    let replicas = samples + 2;
    let policy = "{strategy: {batched: {beta: {perUnit: 1}, batchSize: 1, confirm: everyBatch, maxUnavailable: 50%}}}";
    let files = [
        ("policies/one-by-one.yaml".to_owned(), envelope("RolloutPolicy", "one-by-one", policy)),
        (
            "apps/checkout/app.yaml".to_owned(),
            envelope("Application", "checkout", "{namespace: shop, policy: one-by-one}"),
        ),
        ("apps/checkout/deployment.yaml".to_owned(), deployment(replicas, "1.9")),
    ];
    let mut world = World::new(&files).await;
    let mut controller = world.controller().await;
    controller.until("at beta", 1, |report| waits(report, "beta")).await;
    world.prepare(&[("rollouts/checkout/0001/promote.yaml", "")], "promote").land();
    controller.until("installed", 1, |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    let pods = Watcher::of(&world, Kind::new("", "v1", "Pod")).await;
    world.prepare(&[("apps/checkout/deployment.yaml", &deployment(replicas, "2.0"))], "2.0").land();

    let mut ours = Times::default();
    let mut stage = "beta".to_owned();
    for sample in 1..=samples {
        controller.until(&format!("at {stage}"), 1, |report| waits(report, &stage)).await;
        tokio::time::sleep(THINKING).await;
        let confirm = format!("rollouts/checkout/0002/confirm/{stage}.yaml");
        let prepared = world.prepare(&[(&confirm, "")], &format!("confirm {stage}"));
        pods.skip();
        let began = prepared.land();
        let drained = |pod: &Object| pod.annotation(labels::MOVING).is_some();
        let (seen, _) = pods.sees("a pod that is patched", drained).await;
        ours.0.push(seen - began);
        stage = format!("batch-{sample}");
    }
    controller.until(&format!("at {stage}"), 1, |report| waits(report, &stage)).await;
    controller.stop().await;

    let bare = Bare::of(&mut world).await;
    let (_, pod) = first_pod(&world).await;
    let patch = |n: usize| {
        let body = json!({ "metadata": { "annotations": { "locktender.dev/bench": n.to_string() } } });
        let Action { write, .. } = Action::merge(&pod, body, "");
        match write {
            Write::Patch { kind, key, uid, patch, body, subresource, .. } => {
                Write::Patch { kind, key, uid, resource_version: None, patch, body, subresource }
            }
            other => other,
        }
    };
    let (mut least, mut with_record) = (Times::default(), Times::default());
    for sample in 0..samples {
        least.0.push(bare.time(&world, "bench.txt", false, &patch(2 * sample)).await);
        with_record.0.push(bare.time(&world, "bench.txt", true, &patch(2 * sample + 1)).await);
    }
    ours.tell(
        "confirm pushed → first pod patched",
        &[("fetch + one patch", &least), ("fetch + push of one record + one patch", &with_record)],
    );
}

async fn first_pod(world: &World) -> (Instant, Object) {
    let cluster = world.client().await;
    cluster.watch(&Kind::new("", "v1", "Pod")).await;
    loop {
        if let locktender::core::cluster::ClusterEvent::Listed { objects, .. } = cluster.next_event().await {
            let pod = objects.into_iter().find(|pod| pod.label(labels::APP).is_some()).unwrap();
            return (Instant::now(), pod);
        }
    }
}

fn config(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: NAME}}\ndata: {{value: '{value}'}}\n")
}

fn config_of(app: &str, value: &str) -> String {
    config(value).replace("NAME", app)
}

/// A changed ConfigMap of one application of `count` is pushed; how long until it is applied? Then, for a while, nothing.
async fn commit_to_first_write(count: usize, samples: usize, idle: Option<Duration>) -> Duration {
    let name = |n: usize| format!("app-{n:04}");
    let files: Vec<(String, String)> = (0..count)
        .flat_map(|n| {
            let app = name(n);
            [
                (format!("apps/{app}/app.yaml"), envelope("Application", &app, "{namespace: shop}")),
                (format!("apps/{app}/config.yaml"), config_of(&app, "0")),
            ]
        })
        .collect();
    let mut world = World::new(&files).await;
    let began = Instant::now();
    let mut controller = world.controller().await;
    controller.until("installed", count, |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    println!(
        "{count} applications: opened, applied and recorded as complete in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let maps = Watcher::of(&world, Kind::new("", "v1", "ConfigMap")).await;
    let mut ours = Times::default();
    for sample in 1..=samples {
        tokio::time::sleep(THINKING).await;
        let app = name((count / 2 + sample) % count);
        let value = format!("changed {sample}");
        let path = format!("apps/{app}/config.yaml");
        let prepared = world.prepare(&[(&path, &config_of(&app, &value))], &format!("change {app}"));
        maps.skip();
        let began = prepared.land();
        let written = |map: &Object| map.name() == app && map.text(&["data", "value"]) == value;
        let (seen, _) = maps.sees("the changed ConfigMap", written).await;
        ours.0.push(seen - began);
    }
    if let Some(time) = idle {
        tokio::time::sleep(THINKING).await;
        rest(&world, &controller, count, time).await;
    }
    controller.stop().await;

    let bare = Bare::of(&mut world).await;
    let (mut least, mut with_record) = (Times::default(), Times::default());
    for sample in 0..samples {
        let object = |value: String| {
            Object(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "bare", "namespace": "shop" }, "data": { "value": value },
            }))
        };
        let apply = |value| Write::Apply { object: object(value), force: true, manager: None };
        least.0.push(bare.time(&world, "bench.txt", false, &apply(format!("{sample} a"))).await);
        with_record.0.push(bare.time(&world, "bench.txt", true, &apply(format!("{sample} b"))).await);
    }
    ours.tell(
        &format!("commit pushed → first write, {count} applications"),
        &[("fetch + one apply", &least), ("fetch + push of one record + one apply", &with_record)],
    );
    ours.median()
}

/// Nothing to do: what does it cost?
async fn rest(world: &World, controller: &world::Controller, count: usize, time: Duration) {
    let requests = controller.cluster.requests();
    let (asked, used, served) = (requests.snapshot(), own_cpu(), world.sandbox_cpu());
    let repository = &controller.repository;
    let (remote, mirror) = (repository.remote.load(Ordering::Relaxed), repository.mirror.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let total: u64 = requests.snapshot().values().sum::<u64>() - asked.values().sum::<u64>();
    println!("nothing to do with {count} applications for {} s:", time.as_secs());
    println!(
        "    git: {} fetches and pushes, {} questions to the mirror",
        repository.remote.load(Ordering::Relaxed) - remote,
        repository.mirror.load(Ordering::Relaxed) - mirror
    );
    println!("    API server: {total} requests");
    for ((verb, resource), now) in requests.snapshot() {
        let before = asked.get(&(verb, resource.clone())).copied().unwrap_or(0);
        if now > before {
            println!("        {verb} {resource}: {}", now - before);
        }
    }
    println!(
        "    processor: {:.2} s ({:.2} s in the sandbox)",
        (own_cpu() - used).as_secs_f64(),
        (world.sandbox_cpu() - served).as_secs_f64()
    );
}
