//! The program as people run it, and what it says and uses.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::PATIENCE;

/// `locktender run` in a process of its own.
pub struct Program {
    child: Child,
    url: String,
    _state: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it, and waits until it is ready.
    pub async fn start(repository: &Path, kubeconfig: &Path) -> Self {
        let state = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_locktender"))
            .args(["run", "--listen", &address.to_string()])
            .arg("--repo")
            .arg(repository)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--mirror")
            .arg(state.path().join("mirror"))
            .env("LOCKTENDER_LOG", "locktender=warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self { child, url: format!("http://{address}"), _state: state };
        let began = Instant::now();
        while program.get("/readyz").await.is_none() {
            assert!(began.elapsed() < PATIENCE, "it is never ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        program
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    /// Returns the value of every metric, by its name with labels.
    async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics").await.unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// Returns the requests to the API server and to Git, by their labels.
    pub async fn requests(&self) -> BTreeMap<String, f64> {
        let mut metrics = self.metrics().await;
        metrics.retain(|name, _| name.contains("_requests_total"));
        metrics
    }

    /// Says what was asked since.
    pub async fn tell_requests(&self, what: &str, before: &BTreeMap<String, f64>) {
        let now = self.requests().await;
        let since = |name: &String| now[name] - before.get(name).copied().unwrap_or(0.0);
        let more: Vec<String> = now
            .keys()
            .filter(|name| since(name) > 0.0)
            .map(|name| format!("        {} {}", since(name), name.trim_start_matches("locktender_")))
            .collect();
        println!("{what}: {}", if more.is_empty() { "none".to_owned() } else { format!("\n{}", more.join("\n")) });
    }

    /// Waits until so many applications are stable and nothing more is asked of anybody.
    pub async fn settles(&self, count: usize) {
        let began = Instant::now();
        let mut last = (BTreeMap::new(), Instant::now());
        loop {
            assert!(began.elapsed() < PATIENCE, "it never settles");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let metrics = self.metrics().await;
            let named =
                |part: &str| metrics.iter().filter(|(name, _)| name.contains(part)).map(|(_, value)| *value).sum();
            let stable: f64 = named("activity=\"stable\"");
            let requests = self.requests().await;
            if requests != last.0 {
                last = (requests, Instant::now());
            }
            #[allow(clippy::cast_precision_loss)]
            let all = count as f64;
            // Longer than the ledger's push interval: nothing waits to be pushed either.
            if stable >= all && last.1.elapsed() > Duration::from_secs(4) {
                return;
            }
        }
    }

    /// Returns what the process and the programs it ran have used of the processor.
    pub fn cpu(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<u64> =
            text.rsplit(')').next().unwrap().split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        // Linux counts in hundredths of a second on every machine that this runs on.
        Duration::from_millis(10 * fields[11..15].iter().sum::<u64>())
    }

    /// Returns a line of the process's status, in MiB.
    pub fn resident(&self, line: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}
