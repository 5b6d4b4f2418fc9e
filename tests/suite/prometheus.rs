//! Analysis by a real Prometheus, Debian's, which scrapes the sandbox's pods.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use locktender::{
    adapter::ask::Outside,
    core::{
        analysis::{Finding, Range, Verdict},
        ask::{Ask as _, Found, Metric, Query, Question, Reading, Said, Unanswered},
        ledger::{Cause, Event},
        rollout::report::Activity,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    histories::release::{Place, Release, Seen},
    simulation::{
        exhaustive::stateful_set,
        rollouts::{APP, DEPLOYMENT, manifest},
    },
};

/// A server of its own, its data and targets in a directory.
pub struct Prometheus {
    address: String,
    directory: TempDir,
    process: Child,
}

impl Prometheus {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = "\
global: {scrape_interval: 500ms, scrape_timeout: 500ms}
scrape_configs:
- job_name: pods
  file_sd_configs: [{files: [pods.json], refresh_interval: 1s}]
";
        std::fs::write(directory.path().join("prometheus.yml"), configuration).unwrap();
        std::fs::write(directory.path().join("pods.json"), "[]").unwrap();
        // Free now; whoever takes it meanwhile makes the server fail at its start, which is told.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let process = Self::run(&directory, &address);
        let mut server = Self { address, directory, process };
        server.answers().await;
        server
    }

    fn run(directory: &TempDir, address: &str) -> Child {
        let mut command = Command::new("prometheus");
        command
            .current_dir(directory.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.spawn().expect("the tests need the program `prometheus`")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn answers(&mut self) {
        let began = tokio::time::Instant::now();
        while self.ask("vector(1)", None).await.is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "prometheus has ended");
            assert!(began.elapsed() < Duration::from_secs(60), "prometheus never answers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ask(&self, query: &str, range: Option<Range>) -> Result<Found, Unanswered> {
        let query = Query::Prometheus { address: self.url(), query: query.to_owned(), baseline: None, range };
        let question = Question::Metric(Metric { query, timeout: Duration::from_secs(1) });
        match Outside::default().ask(&question).await? {
            Said::Reading(Reading { result, .. }) => Ok(result),
            other => panic!("{other:?}"),
        }
    }

    async fn series(&self, query: &str) -> Vec<Vec<f64>> {
        match self.ask(query, None).await.unwrap() {
            Found::Series { series, clock, .. } => {
                let off = clock.map(|clock| clock.duration_since(jiff::Timestamp::now()).abs().as_secs());
                assert!(off.is_none_or(|off| off < 60), "its clock is ours");
                series
            }
            other => panic!("{other:?}"),
        }
    }

    /// Stops or continues the process, as a machine that hangs does.
    async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }

    async fn end(&mut self) {
        self.process.kill().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.process = Self::run(&self.directory, &self.address);
        self.answers().await;
    }

    fn targets(&self) -> PathBuf {
        self.directory.path().join("pods.json")
    }

    /// Lets it scrape this, and nothing else.
    pub fn scrapes(&self, address: &str) {
        write_targets(&self.targets(), &json!([{ "targets": [address] }]));
    }
}

/// Puts another list of targets in the place of the one before at once.
fn write_targets(targets: &Path, list: &Value) {
    let fresh = targets.with_extension("new");
    std::fs::write(&fresh, list.to_string()).unwrap();
    std::fs::rename(&fresh, targets).unwrap();
}

#[tokio::test]
async fn every_answer_is_read_as_it_is_meant() {
    let mut server = Prometheus::start().await;
    assert_eq!(server.series("vector(0.5)").await, [[0.5]]);
    assert_eq!(server.series("0.25").await, [[0.25]]);
    assert_eq!(server.series("vector(1) / vector(0)").await, [[f64::INFINITY]]);
    assert!(server.series("vector(0) / vector(0)").await[0][0].is_nan());
    assert_eq!(server.series("nobody_has_this").await, Vec::<Vec<f64>>::new());
    let two = server.series("vector(1) or label_replace(vector(2), \"a\", \"b\", \"\", \"\")").await;
    assert_eq!(two.len(), 2);
    let range = Range { window: Duration::from_secs(60), step: Duration::from_secs(20) };
    let Found::Series { series, .. } = server.ask("vector(3)", Some(range)).await.unwrap() else { panic!("series") };
    assert_eq!(series, [[3.0; 4]]);
    let wrong = server.ask("sum(", None).await;
    assert!(
        matches!(&wrong, Err(Unanswered::Refused { status: 400, message }) if message.contains("parse")),
        "{wrong:?}"
    );
    assert!(matches!(server.ask("\"text\"", None).await, Err(Unanswered::Garbage(_))));
    server.signal("-STOP").await;
    assert_eq!(server.ask("vector(1)", None).await, Err(Unanswered::Timeout(Duration::from_secs(1))));
    server.signal("-CONT").await;
    server.answers().await;
    server.end().await;
    assert!(matches!(server.ask("vector(1)", None).await, Err(Unanswered::Unreachable(_))));
}

const POLICY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  metrics:
    success-rate: {initialDelay: 1s, interval: 1s, count: 3, inconclusiveLimit: 60, errorLimit: 2}
    latency: {initialDelay: 1s, interval: 1s, count: 1, inconclusiveLimit: 60, errorLimit: 2}
    restarts: {initialDelay: 1s, interval: 1s, count: 1, inconclusiveLimit: 60, errorLimit: 2}
  strategy:
    canary:
      steps:
      - setWeight: 20
      - analysis: {metrics: [success-rate, latency, restarts]}
      - setWeight: 60
";

/// People's requests to every pod, whichever there are; and the scraper's list of them.
struct Load {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    fn new(pods: Arc<Mutex<BTreeMap<String, String>>>, targets: PathBuf) -> Self {
        let task = tokio::spawn(async move {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().unwrap();
            let mut told = BTreeMap::new();
            loop {
                let now = pods.lock().unwrap().clone();
                if now != told {
                    let list: Vec<_> = now
                        .iter()
                        .map(|(pod, address)| {
                            json!({
                                "targets": [format!("{address}:8080")],
                                "labels": { "namespace": "shop", "pod": pod },
                            })
                        })
                        .collect();
                    write_targets(&targets, &json!(list));
                    told = now.clone();
                }
                for address in now.values() {
                    let _ = client.get(format!("http://{address}:8080/")).send().await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { task }
    }
}

/// Waits until something is so, and lets the load know the pods meanwhile.
async fn until(
    release: &Release,
    pods: &Arc<Mutex<BTreeMap<String, String>>>,
    what: &str,
    holds: impl Fn(&Seen) -> bool,
) -> Seen {
    let began = tokio::time::Instant::now();
    loop {
        let seen = release.seen("checkout").await;
        let with_address = seen.pods.iter().filter_map(|pod| {
            let address = pod["status"]["podIP"].as_str()?;
            Some((pod["metadata"]["name"].as_str()?.to_owned(), address.to_owned()))
        });
        *pods.lock().unwrap() = with_address.collect();
        if holds(&seen) {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "never: {what}: {:#?}\n{}", seen.told(2), seen.reasons());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_72_a_version_that_answers_errors_goes_back_and_a_prometheus_that_is_away_stops_it() {
    let mut server = Prometheus::start().await;
    let settings = format!("metrics: {{prometheus: {{url: {:?}}}}}\n", server.url());
    let release = Release::new(
        Place::Sandbox,
        &[
            ("locktender.yaml", &settings),
            ("policies/two-data-centers.yaml", POLICY),
            ("apps/checkout/app.yaml", APP),
            (DEPLOYMENT, &manifest("1.9")),
        ],
    )
    .await;
    let pods = Arc::default();
    let _load = Load::new(Arc::clone(&pods), server.targets());
    until(&release, &pods, "1.9 is installed", |seen| seen.is(1, Activity::Stable)).await;

    release.pushes("alice", |clone| {
        clone.write(DEPLOYMENT, &manifest("2.0-5xx"));
        clone.commit("checkout 2.0");
    });
    let seen = until(&release, &pods, "2.0 goes back", |seen| seen.has(2, Event::Reverted)).await;
    let aborting = seen.last(2, Event::Aborting).unwrap();
    assert_eq!(aborting.evidence.cause, Some(Cause::Failure));
    assert!(aborting.why.starts_with("success-rate is bad in "), "{}", aborting.why);
    let runs: Vec<_> = seen.ledger[&2].iter().filter_map(|record| record.evidence.analysis.as_ref()).collect();
    let run = runs.iter().find(|run| run.metric == "success-rate").unwrap();
    assert_eq!((run.verdict, run.check()), (Verdict::Fail, Ok(())));
    let decisive = &run.samples.last().unwrap().found;
    assert_eq!(
        decisive,
        &Finding::Measured { result: "[0.0]".to_owned(), baseline: None },
        "every answer was an error"
    );
    assert_eq!(release.remote.read(DEPLOYMENT).unwrap(), manifest("1.9").trim_end(), "Git is repaired");
    assert!(!seen.told(2).iter().any(|told| told == "StageStarted weight-60"));

    server.end().await;
    release.pushes("alice", |clone| {
        clone.write(DEPLOYMENT, &manifest("2.1"));
        clone.commit("checkout 2.1");
    });
    let seen = until(&release, &pods, "2.1 stops", |seen| seen.is(3, Activity::Stopped)).await;
    assert!(seen.last(3, Event::Stopped).unwrap().why.contains("could not be measured"), "{}", seen.reasons());
    server.start_again().await;
    release.pushes("alice", |clone| {
        clone.write("rollouts/checkout/0003/retry.yaml", "");
        clone.commit("it is there again");
    });
    let seen = until(&release, &pods, "2.1 is out", |seen| seen.is(3, Activity::Stable)).await;
    let passed = seen.ledger[&3].iter().filter_map(|record| record.evidence.analysis.as_ref());
    let passed: Vec<&str> = passed.filter(|run| run.verdict == Verdict::Pass).map(|run| run.metric.as_str()).collect();
    assert_eq!(passed.len(), 3, "{passed:?}");
}

/// How many pods of each side are there to be scraped, asked until the server knows all of them.
const COUNTED: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  metrics:
    pods:
      prometheus: {query: 'count(up{namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\"})'}
      successCondition: value == 1.0 && baseline == 4.0
      initialDelay: 1s
      interval: 1s
      consecutiveSuccessLimit: 1
      failureLimit: 150
      inconclusiveLimit: 150
      errorLimit: 150
  strategy:
    canary:
      steps:
      - setWeight: 20
      - analysis: {metrics: [pods]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_stateful_set_the_pods_of_each_side_are_measured_and_no_others() {
    let server = Prometheus::start().await;
    let settings = format!("metrics: {{prometheus: {{url: {:?}}}}}\n", server.url());
    let release = Release::new(
        Place::Sandbox,
        &[
            ("locktender.yaml", &settings),
            ("policies/two-data-centers.yaml", COUNTED),
            ("apps/checkout/app.yaml", APP),
            (DEPLOYMENT, &stateful_set("1.9")),
        ],
    )
    .await;
    let pods = Arc::default();
    let _load = Load::new(Arc::clone(&pods), server.targets());
    until(&release, &pods, "1.9 is installed", |seen| seen.is(1, Activity::Stable)).await;
    release.pushes("alice", |clone| {
        clone.write(DEPLOYMENT, &stateful_set("2.0"));
        clone.commit("checkout 2.0");
    });
    let seen = until(&release, &pods, "2.0 is out", |seen| seen.is(2, Activity::Stable)).await;
    let run = seen.ledger[&2].iter().find_map(|record| record.evidence.analysis.as_ref()).unwrap();
    assert_eq!(run.verdict, Verdict::Pass);
    assert_eq!(run.query, "count(up{namespace=\"shop\", pod=~\"checkout-(4)\"})");
    assert_eq!(run.baseline.as_deref(), Some("count(up{namespace=\"shop\", pod=~\"checkout-(0|1|2|3)\"})"));
}
