//! Controllers as processes: several of them, stopped and woken.

use std::{
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
struct Ground {
    shell: Shell,
    kubeconfig: String,
    repo: String,
    _sandbox: Running,
}

impl Ground {
    fn new(remote: &Remote) -> Self {
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

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    fn controller(&self, name: &str, more: &[&str]) -> Running {
        let mirror = self.shell.home.path().join(name).display().to_string();
        let mut args = vec!["run", "--repo", &self.repo, "--kubeconfig", &self.kubeconfig, "--mirror", &mirror];
        args.extend(["--push-interval", "50ms"]);
        args.extend(more);
        let log = std::fs::File::create(self.log(name)).unwrap();
        let mut command = self.shell.command(self.shell.home.path(), &args);
        Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(120), "never {what}\n{}\n{}", self.said("a"), self.said("b"));
            // A process is asked, and asking is not free.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn kubectl(&self, args: &[&str]) -> Value {
        let mut command = Command::new("kubectl");
        let output = command.args(["--kubeconfig", &self.kubeconfig, "-o", "json"]).args(args).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
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
}
