//! Controllers as processes: several of them, stopped and woken.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    POLICY, Shell,
    whole::{Running, World},
};
use crate::support::git::Remote;

/// A sandbox, and controllers on it that can be told apart by their logs.
pub(super) struct Ground {
    pub(super) shell: Shell,
    pub(super) kubeconfig: String,
    repo: String,
    _sandbox: Running,
}

impl Ground {
    pub(super) fn new(remote: &Remote) -> Self {
        let shell = Shell::new();
        let kubeconfig = shell.home.path().join("kubeconfig").display().to_string();
        let mut command = shell.command(shell.home.path(), &["sandbox", "--kubeconfig", &kubeconfig]);
        let sandbox = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while !Path::new(&kubeconfig).exists() {
            std::thread::yield_now();
        }
        Self { shell, kubeconfig, repo: remote.url(), _sandbox: sandbox }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.shell.home.path().join(format!("{name}.log"))
    }

    pub(super) fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    pub(super) fn controller(&self, name: &str, more: &[&str]) -> Running {
        let mirror = self.shell.home.path().join(name).display().to_string();
        let mut args = vec!["run", "--repo", &self.repo, "--kubeconfig", &self.kubeconfig, "--mirror", &mirror];
        args.extend(["--push-interval", "50ms"]);
        args.extend(more);
        let log = std::fs::File::create(self.log(name)).unwrap();
        let mut command = self.shell.command(self.shell.home.path(), &args);
        Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(super) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(120), "never {what}\n{}\n{}", self.said("a"), self.said("b"));
            // A process is asked, and asking is not free.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(super) fn kubectl(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl_says(&[args, &["-o", "json"]].concat())).unwrap_or_default()
    }

    pub(super) fn kubectl_says(&self, args: &[&str]) -> String {
        let output = Command::new("kubectl").args(["--kubeconfig", &self.kubeconfig]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks a controller that was started with `--listen 127.0.0.1:0`; returns the status and the body.
    pub(super) fn asks(&self, name: &str, path: &str) -> Option<(u16, String)> {
        let said = self.said(name);
        let address = said.split_once("address=")?.1.split_whitespace().next()?.to_owned();
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: locktender\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(super) fn metric(&self, name: &str, metric: &str) -> Option<f64> {
        let (_, text) = self.asks(name, "/metrics")?;
        let line = text.lines().find(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

#[test]
fn fault_08_a_leader_stopped_by_a_signal_writes_nothing_when_it_goes_on() {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: none\n      graceful: {gracePeriodSeconds: 1}");
    let remote = Remote::with_files(&[
        ("apps/checkout/app.yaml", super::APP),
        ("apps/checkout/deployment.yaml", &super::deployment("1.9")),
        ("policies/two-data-centers.yaml", &policy),
    ]);
    let ada = remote.clone_as("Ada");
    let ground = Ground::new(&remote);
    let lease = ["--lease-namespace", "kube-system", "--lease-name", "locktender", "--lease-duration", "3s"];
    let a = ground.controller("a", &lease);
    ground.until("A leads", || ground.said("a").contains("leads lease=kube-system/locktender"));
    let _b = ground.controller("b", &lease);
    ground.until("B stands by", || ground.said("b").contains("stands by"));
    let world = World { shell: &ground.shell, here: ada.path(), kubeconfig: ground.kubeconfig.clone() };
    world.until("1.9 is stable", |status| status["activity"] == "stable" && status["rollout"] == "checkout/0001");

    ada.pull();
    ada.write("apps/checkout/deployment.yaml", &super::deployment("2.0"));
    ada.commit("checkout 2.0");
    ada.push_within(10).unwrap();
    ground.until("A is in the middle of it", || ground.said("a").contains("images changed in place"));
    a.signal("-STOP");
    let stopped = Instant::now();
    ground.until("B leads", || ground.said("b").contains("leads lease=kube-system/locktender"));
    // Three seconds of lease and one more; what a busy machine adds is no matter of the lease.
    assert!(stopped.elapsed() < Duration::from_secs(3 + 1 + 4), "it took {:?}", stopped.elapsed());
    world.until("2.0 is stable", |status| status["activity"] == "stable" && status["rollout"] == "checkout/0002");

    let versions = |kinds: &str| -> Vec<String> {
        let all = ground.kubectl(&["-n", "shop", "get", kinds]);
        let items = all["items"].as_array().unwrap().iter();
        items.map(|one| format!("{} {}", one["metadata"]["name"], one["metadata"]["resourceVersion"])).collect()
    };
    let kinds = "pods,replicasets,deployments,configmaps,services";
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let pods = ground.kubectl(&["-n", "shop", "get", "pods"]);
    assert!(pods["items"].as_array().unwrap().iter().all(|pod| restarts(pod) == Some(1)), "each pod changed once");
    ada.pull();
    let (before, tip) = (versions(kinds), ada.git(&["rev-parse", "HEAD"]));
    a.signal("-CONT");
    ground.until("A stands by", || ground.said("a").contains("the lease is lost"));
    ground.until("A sees who leads", || ground.said("a").matches("stands by").count() >= 2);
    ada.pull();
    assert_eq!(
        (versions(kinds), ada.git(&["rev-parse", "HEAD"])),
        (before, tip),
        "nothing of the old leader's arrives"
    );
    let verified = ground.shell.run(ada.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.transcript());

    // Told to stop, the leader gives the lease back: nobody waits for it to run out.
    drop(_b);
    assert!(ground.said("b").contains("the lease is given back"), "{}", ground.said("b"));
    ground.until("A leads again", || ground.said("a").matches("leads lease=").count() == 2);

    // A person is told when nobody leads.
    let status = || ground.shell.run(ada.path(), &["status", "--kubeconfig", &ground.kubeconfig]).stdout;
    assert!(!status().contains("controller:"), "{}", status());
    drop(a);
    let told = status();
    assert!(told.contains("controller: none since") && told.contains("Lease kube-system/locktender"), "{told}");
}

/// Returns the families that a scrape has, after seeing that each of its lines is well formed.
fn families(text: &str) -> BTreeSet<String> {
    let line = regex::Regex::new(
        r#"^(# (HELP|TYPE|UNIT) [a-z_]+ .+|# EOF|[a-z_]+(\{([a-z]+="[^"]*",?)*\})? (\+Inf|[0-9.e-]+))$"#,
    );
    let line = line.unwrap();
    let mut families = BTreeSet::new();
    for one in text.lines() {
        assert!(line.is_match(one), "`{one}`");
        if let Some(family) = one.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            families.insert(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
        }
    }
    assert!(text.ends_with("# EOF\n"));
    families
}

#[test]
fn probes_metrics_events_and_annotations_tell_of_a_release() {
    let remote = Remote::with_files(&[
        ("apps/checkout/app.yaml", super::APP),
        ("apps/checkout/deployment.yaml", &super::deployment("1.9")),
        ("policies/two-data-centers.yaml", POLICY),
    ]);
    let ada = remote.clone_as("Ada");
    let ground = Ground::new(&remote);
    let _a = ground.controller("a", &["--listen", "127.0.0.1:0", "--lease-namespace", "kube-system", "--qps", "200"]);
    ground.until("it is ready", || ground.asks("a", "/readyz").is_some_and(|(code, _)| code == 200));
    assert_eq!(ground.asks("a", "/healthz"), Some((200, "ok\n".to_owned())));
    let _b = ground.controller("b", &["--listen", "127.0.0.1:0", "--lease-namespace", "kube-system"]);
    ground.until("the other stands by", || ground.asks("b", "/readyz") == Some((200, "stands by\n".to_owned())));

    let world = World { shell: &ground.shell, here: ada.path(), kubeconfig: ground.kubeconfig.clone() };
    world.waits_at("beta");
    let columns = "custom-columns=NAME:.metadata.name,ROLLOUT:.metadata.annotations.locktender\\.dev/rollout,\
                   STAGE:.metadata.annotations.locktender\\.dev/stage";
    let shown = ground.kubectl_says(&["-n", "shop", "get", "deployments", "-o", columns]);
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["checkout", "checkout/0001", "beta"]);
    assert_eq!(ground.metric("a", r#"locktender_applications{activity="waiting"}"#), Some(1.0));
    assert_eq!(
        (ground.metric("a", "locktender_leader"), ground.metric("b", "locktender_leader")),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(ground.shell.run(ada.path(), &["promote", "checkout"]).code, 0);
    world.until("1.9 is stable", |status| status["activity"] == "stable" && status["stable"] == "1.9");

    let (_, text) = ground.asks("a", "/metrics").unwrap();
    let families = families(&text);
    let docs = include_str!("../../../docs/operations.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `locktender_")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(|name| format!("locktender_{name}")).collect();
    assert_eq!(families, documented, "the table in docs/operations.md is what is scraped");
    assert_eq!(ground.metric("a", r#"locktender_records_total{event="Completed"}"#), Some(1.0), "{text}");
    assert_eq!(ground.metric("a", "locktender_stage_seconds_count"), Some(3.0), "{text}");
    assert_eq!(ground.metric("a", "locktender_gate_seconds_count"), Some(1.0), "{text}");
    assert!(
        ground.metric("a", r#"locktender_api_requests_total{verb="list",resource="pods",code="200"}"#).unwrap() >= 1.0,
        "{text}"
    );
    assert!(ground.metric("a", r#"locktender_git_requests_total{operation="push",result="done"}"#).unwrap() >= 3.0);
    assert!(ground.metric("a", "locktender_git_answer_age_seconds").unwrap() < 60.0);

    ground.until("the Event is there", || {
        ground.kubectl_says(&["-n", "shop", "describe", "deployment", "checkout"]).contains("completed, 10 pods at 1.9")
    });
    let events = ground.kubectl(&["-n", "shop", "get", "events"]);
    let told = events["items"].as_array().unwrap().iter().filter(|event| event["source"]["component"] == "locktender");
    let mut reasons: Vec<&str> = told.map(|event| event["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    let expected = ["Completed", "Promoted", "StageStarted", "StageStarted", "StageWaiting"];
    assert_eq!(reasons, expected, "each record once, from when there was a Deployment");

    assert_eq!(ground.metric("a", "locktender_heads_broken"), Some(0.0));
    ada.git(&["pull", "--quiet", "--rebase"]);
    ada.write("apps/checkout/app.yaml", "apiVersion: locktender.dev/v1alpha1\nkind: Aplication\n");
    ada.commit("a slip");
    ada.push();
    ground.until("it is counted", || ground.metric("a", "locktender_heads_broken") == Some(1.0));
    assert_eq!(ground.metric("a", r#"locktender_applications{activity="stable"}"#), Some(1.0));
}
