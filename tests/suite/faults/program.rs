//! `locktender run` as it is shipped, in processes of their own.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::*;

pub const LEASE: &str = "apis/coordination.k8s.io/v1/namespaces/default/leases/locktender";

/// Longer than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(120);

/// `locktender run`, in a process of its own.
pub struct Program {
    child: Child,
    _mirror: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that is halted dies as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    pub fn start(release: &Release, kubeconfig: &Path) -> Self {
        Self::with_mirror(release, kubeconfig, tempfile::tempdir().unwrap())
    }

    pub fn with_mirror(release: &Release, kubeconfig: &Path, mirror: tempfile::TempDir) -> Self {
        Self::with(Command::new(env!("CARGO_BIN_EXE_locktender")), "3s", release, kubeconfig, mirror)
    }

    /// The same with an environment, and a lease of another length.
    pub fn with(
        mut command: Command,
        lease: &str,
        release: &Release,
        kubeconfig: &Path,
        mirror: tempfile::TempDir,
    ) -> Self {
        command.args(["run", "--push-interval", "100ms", "--lease-namespace", "default", "--lease-name", "locktender"]);
        command.args(["--lease-duration", lease, "--repo"]).arg(release.remote.path());
        command.arg("--kubeconfig").arg(kubeconfig).arg("--mirror").arg(mirror.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), _mirror: mirror }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has left; returns how long that took.
    pub async fn leaves(&mut self) -> Duration {
        let began = Instant::now();
        while self.ended().is_none() {
            assert!(began.elapsed() < LIMIT, "it does not leave");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }
}

impl Faulty {
    /// Nobody runs yet; whoever does is a process, and no court hears what it pushes.
    pub async fn without_controller(files: &[(&str, &str)]) -> Self {
        let mut faulty = Self::behind(Release::new(Place::live(), files).await).await;
        faulty.release.kill().await;
        faulty.release.judged = false;
        // Whoever had it in an earlier test was killed with it.
        let _ = faulty.live().ask("DELETE", LEASE, Value::Null).await;
        faulty
    }

    pub async fn holder(&self) -> Option<String> {
        let lease = self.live().ask("GET", LEASE, Value::Null).await.ok()?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    }

    pub async fn is_held_by_another_than(&self, before: Option<&str>) -> String {
        let began = Instant::now();
        loop {
            match self.holder().await {
                Some(holder) if Some(holder.as_str()) != before => return holder,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            assert!(began.elapsed() < LIMIT, "nobody else holds the lease");
        }
    }
}
