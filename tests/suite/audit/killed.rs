//! Kill -9: the built program dies after each of its writes, and at random instants, and another one starts. The end is
//! the undisturbed run's; nothing was repeated, and nothing was lost.
//!
//! One release after another goes through the same pods, so that a run costs a second or two. Without
//! `LOCKTENDER_KILLS=all` a sample is done; `LOCKTENDER_SEED=…` plays the random instants again.

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    time::Duration,
};

use locktender::core::{ledger::Event, rollout::labels};
use regex::Regex;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::log::{AuditLog, Request};
use crate::{
    cli::Shell,
    histories::{
        checkout::{APP, APP_FILE, DEPLOYMENT, POLICY, POLICY_FILE, deployment},
        release::{Place, Release, Seen},
    },
    simulation::random::Random,
};

/// A program that dies with its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL; it may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When the program is killed, within one release.
enum When {
    /// Never.
    Never,
    /// Once it has written and pushed so often.
    After(usize),
    /// These times after it was started.
    At(Vec<Duration>),
}

/// How a release went.
#[derive(Clone, Debug, PartialEq)]
struct Went {
    /// Its records, in order.
    told: Vec<String>,
    /// What is in the cluster, without what tells one release from another.
    end: Vec<String>,
    /// How many writes to each pod are known to be done.
    pods: BTreeMap<String, usize>,
}

struct Ground {
    release: Release,
    shell: Shell,
    audit: AuditLog,
    program: Option<Program>,
    number: u32,
    kills: usize,
}

impl Ground {
    /// 1.0 is installed, by nobody who is killed.
    async fn new() -> Self {
        let policy = POLICY.replace("confirm: everyBatch", "confirm: none").replace("25%", "50%");
        let first = deployment("checkout", "1.1").replace("replicas: 10", "replicas: 6");
        let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, APP), (DEPLOYMENT, &first)];
        let mut release = Release::checkout_with(Place::live(), &files).await;
        release.stable(1, "1.1: 6").await;
        release.kill().await;
        let (mut audit, _) = release.audit();
        audit.news();
        let mut ground = Self { release, shell: Shell::new(), audit, program: None, number: 1, kills: 0 };
        ground.start();
        ground
    }

    fn start(&mut self) {
        let (_, kubeconfig) = self.release.audit();
        let home = self.release.remote.base();
        let (url, kubeconfig) = (self.release.remote.url(), kubeconfig.display().to_string());
        let mirror = home.join("killed-mirror").display().to_string();
        let args = ["run", "--repo", &url, "--kubeconfig", &kubeconfig, "--mirror", &mirror, "--push-interval", "20ms"];
        let mut command = self.shell.command(home, &args);
        let log = std::fs::File::options().create(true).append(true).open(home.join("killed.log")).unwrap();
        self.program = Some(Program(command.stdout(Stdio::null()).stderr(log).spawn().unwrap()));
    }

    fn kill(&mut self) {
        self.program = None;
        self.kills += 1;
        self.start();
    }

    /// Whether the release is complete, and nothing is left to do: the last thing is that the handle says so.
    async fn is_over(&self, seen: &Seen) -> bool {
        if !seen.has(self.number, Event::Completed) {
            return false;
        }
        let handle = self.release.get(HANDLE, "deployments.apps").await.unwrap();
        handle["metadata"]["annotations"][labels::STAGE] == "stable"
            && handle["metadata"]["annotations"][labels::ROLLOUT] == format!("checkout/{:04}", self.number).as_str()
    }

    /// Releases another version; the program is killed meanwhile. Returns how it went, and how often it wrote and pushed.
    async fn release(&mut self, mut when: When) -> (Went, usize) {
        self.number += 1;
        let since = self.release.remote.pushes().len() + 1;
        self.release.set_tag(&format!("1.{}", self.number));
        let (began, mut started) = (Instant::now(), Instant::now());
        let mut requests: Vec<Request> = Vec::new();
        loop {
            requests.extend(self.audit.news().into_iter().filter(|one| one.is_ours() && one.is_done()));
            let done = requests.len() + self.release.remote.pushes().len().saturating_sub(since);
            let seen = self.release.seen("checkout").await;
            let due = match &mut when {
                When::Never => false,
                When::After(writes) => done >= *writes,
                When::At(times) => times.last().is_some_and(|time| started.elapsed() >= *time),
            };
            if due {
                self.kill();
                started = Instant::now();
                match &mut when {
                    When::At(times) => drop(times.pop()),
                    _ => when = When::Never,
                }
            }
            if self.is_over(&seen).await {
                requests.extend(self.audit.news().into_iter().filter(|one| one.is_ours() && one.is_done()));
                self.nothing_twice(&requests);
                return (self.went(&seen, &requests).await, done);
            }
            if began.elapsed() > Duration::from_secs(120) {
                let log = std::fs::read_to_string(self.release.remote.base().join("killed.log")).unwrap();
                let last: Vec<&str> = log.lines().rev().take(30).collect();
                panic!("release {} does not end: {:?}\n{}", self.number, seen.told(self.number), last.join("\n"));
            }
            let next = match &when {
                When::At(times) => times.last().map(|time| started + *time),
                _ => None,
            };
            let look = Instant::now() + Duration::from_millis(3);
            sleep_until(next.map_or(look, |next| next.min(look))).await;
        }
    }

    /// No write does again what was done: neither the same to an object that nobody changed meanwhile, nor an Event.
    fn nothing_twice(&self, requests: &[Request]) {
        let mut last: BTreeMap<(&str, &str), (&str, Value)> = BTreeMap::new();
        for request in requests {
            let mut body = request.body.clone();
            if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| name != "resourceVersion");
                // When it was taken out of service, and out of the last EndpointSlice.
                for since in [labels::DRAINING, labels::DRAINED] {
                    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
                    if let Some(time) = annotations.and_then(|all| all.get_mut(since)).filter(|time| time.is_string()) {
                        *time = Value::from("once");
                    }
                }
            }
            let this = (request.verb.as_str(), body);
            let before = last.insert((&request.resource, &request.name), this.clone());
            let Request { came, resource, name, .. } = request;
            assert!(before.as_ref() != Some(&this), "done twice, at {came}: {} {resource} {name} {}", this.0, this.1);
        }
    }

    async fn went(&self, seen: &Seen, requests: &[Request]) -> Went {
        let mut pods = BTreeMap::new();
        for request in requests.iter().filter(|request| request.resource == "pods") {
            *pods.entry(request.name.clone()).or_default() += 1;
        }
        let told = seen.told(self.number);
        let mut end = Vec::new();
        for (path, key) in [
            ("api/v1/pods", "pods"),
            ("apis/apps/v1/replicasets", "replicasets.apps"),
            ("apis/apps/v1/deployments", "deployments.apps"),
            ("api/v1/services", "services"),
        ] {
            for object in self.release.list(path, key).await {
                if object["metadata"]["namespace"] == "shop" {
                    end.push(self.without_number(&object));
                }
            }
        }
        end.sort();
        Went { told, end, pods }
    }

    /// An object without what tells one release from another: tag, digest, number, restarts so far.
    fn without_number(&self, object: &Value) -> String {
        let metadata = &object["metadata"];
        let restarts = object["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let per_release = restarts.map(|restarts| restarts + 1 == u64::from(self.number));
        let text = format!(
            "{} {} {} {} {} {} {per_release:?}",
            metadata["name"],
            metadata["uid"],
            metadata["labels"],
            metadata["annotations"],
            object["spec"],
            object["status"]["podIP"]
        );
        let digest = Regex::new(r#""[0-9a-f]{16}""#).unwrap();
        let text =
            digest.replace_all(&text, "\"DIGEST\"").replace(&format!("checkout:1.{}\"", self.number), "checkout:TAG\"");
        let revision = Regex::new(r#""deployment.kubernetes.io/[a-z-]+":"[0-9]+""#).unwrap();
        revision.replace_all(&text.replace(&format!("checkout/{:04}", self.number), "checkout/NUMBER"), "").into_owned()
    }

    /// Releases, and compares with how it goes undisturbed.
    async fn goes_as(&mut self, undisturbed: &Went, when: When, how: &str) {
        let (went, _) = self.release(when).await;
        assert_eq!(went.told, undisturbed.told, "{how}: every record once, and in order");
        let differ = went.end.iter().zip(&undisturbed.end).find(|(now, then)| now != then);
        assert!(went.end == undisturbed.end, "{how}: it ends otherwise: {differ:#?}");
        // Of a write whose answer nobody was there to take, the log does not say that it was done.
        let more =
            went.pods.iter().find(|(pod, writes)| undisturbed.pods.get(*pod).is_none_or(|before| *writes > before));
        assert_eq!(more, None, "{how}: a pod is written to more often than undisturbed, {:?}", undisturbed.pods);
    }
}

const HANDLE: &str = "apis/apps/v1/namespaces/shop/deployments/checkout";

fn is_all() -> bool {
    std::env::var("LOCKTENDER_KILLS").as_deref() == Ok("all")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_02_killed_after_each_of_its_writes_and_pushes_a_controller_repeats_and_loses_nothing() {
    let began = Instant::now();
    let mut ground = Ground::new().await;
    let (undisturbed, writes) = ground.release(When::Never).await;
    assert!(!undisturbed.end.is_empty() && undisturbed.pods.len() == 6, "{undisturbed:#?}");
    let step = if is_all() { 1 } else { 9 };
    // Until a release is over before its turn to be killed.
    for after in (1..).step_by(step) {
        let kills = ground.kills;
        ground.goes_as(&undisturbed, When::After(after), &format!("killed after write {after}")).await;
        if ground.kills == kills {
            break;
        }
    }
    println!("killed {} times in {writes} writes and pushes, {:.0} s", ground.kills, began.elapsed().as_secs_f64());
    let to_pods: usize = undisturbed.pods.values().sum();
    assert!(ground.kills * step >= to_pods, "there are {to_pods} writes to pods alone");
    ground.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_01_killed_at_random_instants_a_controller_repeats_and_loses_nothing() {
    let began = Instant::now();
    let seed = std::env::var("LOCKTENDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs()));
    println!("LOCKTENDER_SEED={seed}");
    let mut random = Random::new(seed);
    let mut ground = Ground::new().await;
    let (undisturbed, _) = ground.release(When::Never).await;
    let wanted = if is_all() { 200 } else { 10 };
    while ground.kills < wanted {
        let times: Vec<Duration> = (0..5).map(|_| Duration::from_millis(random.below(1_000))).collect();
        let how = format!("LOCKTENDER_SEED={seed}, killed {times:?} after each start");
        ground.goes_as(&undisturbed, When::At(times), &how).await;
    }
    println!("killed {} times in {} releases, {:.0} s", ground.kills, ground.number - 2, began.elapsed().as_secs_f64());
    ground.verify();
}

impl Ground {
    /// What is in Git explains itself.
    fn verify(&self) {
        let clone = self.release.person("Ada");
        let verified = self.shell.run(clone.path(), &["audit", "verify"]);
        assert_eq!(verified.code, 0, "{}", verified.transcript());
    }
}
