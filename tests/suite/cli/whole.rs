//! Everything together: sandbox, controller and every command, as processes, over HTTP and Git.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Shell, checkout, deployment, normal};

/// A process that is told to stop at the end of its test, however that comes.
pub(super) struct Running(pub(super) Child);

impl Running {
    pub(super) fn signal(&self, signal: &str) {
        let _ = std::process::Command::new("kill").args([signal, &self.0.id().to_string()]).status();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal("-TERM");
            // One that is halted would not hear it.
            self.signal("-CONT");
            let _ = self.0.wait();
        }
    }
}

pub(super) struct World<'a> {
    pub(super) shell: &'a Shell,
    pub(super) here: &'a std::path::Path,
    pub(super) kubeconfig: String,
}

impl World<'_> {
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.shell.run(self.here, &[args, &["-o", "json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", ran.transcript()))
    }

    /// Asks again until the application is where it should be.
    pub(super) fn until(&self, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let patience = Instant::now() + Duration::from_secs(120);
        while Instant::now() < patience {
            let ran =
                self.shell.run(self.here, &["status", "checkout", "-o", "json", "--kubeconfig", &self.kubeconfig]);
            if let Ok(status) = serde_json::from_str::<Value>(&ran.stdout) {
                if there(&status) {
                    return status;
                }
                last = status;
            }
        }
        panic!("never {what}: {last:#}");
    }

    pub(super) fn waits_at(&self, stage: &str) -> Value {
        self.until(stage, |status| status["activity"] == "waiting" && status["stage"] == stage)
    }
}

#[test]
fn a_release_by_the_command_line_alone() {
    let (remote, ada) = checkout();
    let shell = Shell::new();
    let file = |name: &str| shell.home.path().join(name).display().to_string();
    let (kubeconfig, mirror) = (file("kubeconfig"), file("mirror"));
    let spawn = |args: &[&str]| {
        let mut command = shell.command(ada.path(), args);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let _sandbox = spawn(&["sandbox", "--kubeconfig", &kubeconfig]);
    while !std::path::Path::new(&kubeconfig).exists() {
        std::thread::yield_now();
    }
    let world = World { shell: &shell, here: ada.path(), kubeconfig: kubeconfig.clone() };
    let planned = world.json(&["plan", "checkout"]);
    let controller = spawn(&["run", "--kubeconfig", &kubeconfig, "--mirror", &mirror, "--push-interval", "50ms"]);

    let status = world.waits_at("beta");
    assert_eq!(status["plan"], planned[0]["plan"]["hash"], "the plan that was told is the plan that runs");
    let units = &status["units"]["Deployment/checkout"];
    assert_eq!((units["dca"]["done"].as_u64(), units["dcb"]["done"].as_u64()), (Some(1), Some(1)), "{status:#}");
    let shown = shell.run(ada.path(), &["status", "checkout", "--kubeconfig", &kubeconfig]).stdout;
    assert!(shown.contains("▸ beta       dca ●○○○  dcb ●○○○○○    2 new, 2 of 2 ready"), "{shown}");
    assert!(shown.contains("git: add rollouts/checkout/0001/confirm/beta.yaml"), "{shown}");

    assert_eq!(shell.run(ada.path(), &["promote", "checkout", "-m", "first install"]).code, 0);
    let args = ["watch", "checkout", "--until-done", "--kubeconfig", &kubeconfig];
    let watched = shell.run(ada.path(), &args);
    assert_eq!(watched.code, 0, "{}", watched.transcript());
    assert!(watched.stdout.contains("dca ●●●●  dcb ●●●●●●    10 pods"), "{}", watched.stdout);

    ada.pull();
    let diff = shell.run(ada.path(), &["diff", "checkout", "--exit-code", "--kubeconfig", &kubeconfig]);
    assert_eq!((diff.code, diff.stdout.as_str()), (0, "nothing differs\n"), "what staging puts there is no difference");
    ada.write("apps/checkout/deployment.yaml", &deployment("2.0"));
    let diff = shell.run(ada.path(), &["diff", "checkout", "--exit-code", "--kubeconfig", &kubeconfig]);
    assert_eq!(diff.code, 1, "{}", diff.transcript());
    assert!(diff.stdout.contains("-      - image: registry.example/checkout:1.9"), "{}", diff.stdout);
    assert!(diff.stdout.contains("+      - image: registry.example/checkout:2.0"), "{}", diff.stdout);
    let changed = diff.stdout.lines().filter(|line| line.starts_with(['+', '-'])).count();
    assert_eq!(changed, 4, "the image, below two lines that name both sides: {}", diff.stdout);
    ada.commit("checkout 2.0");
    ada.push_within(10).unwrap();
    world.until("2.0 waits", |status| status["activity"] == "waiting" && status["rollout"] == "checkout/0002");

    // With the controller dead everything can still be seen.
    drop(controller);
    let shown = shell.run(ada.path(), &["status", "checkout", "--kubeconfig", &kubeconfig]);
    assert!(shown.stdout.starts_with("checkout 0002   1.9 → 2.0   two-data-centers"), "{}", shown.transcript());
    assert!(shown.stdout.contains("▸ beta       dca ●○○○  dcb ●○○○○○    2 new, 2 of 2 ready"), "{}", shown.stdout);
    let _controller = spawn(&["run", "--kubeconfig", &kubeconfig, "--mirror", &mirror, "--push-interval", "50ms"]);
    assert_eq!(shell.run(ada.path(), &["confirm", "checkout", "-m", "error rate flat"]).code, 0);
    world.waits_at("batch-1");
    assert_eq!(shell.run(ada.path(), &["abort", "checkout", "-m", "latency is up"]).code, 0);
    world.until("back at 1.9", |status| status["activity"] == "stable" && status["stable"] == "1.9");
    assert_eq!(remote.read("apps/checkout/deployment.yaml"), Some(deployment("1.9").trim_end().to_owned()));

    let history = shell.run(ada.path(), &["history", "checkout", "--rollout", "2"]).stdout;
    let told = normal(&history);
    assert!(told.contains("beta confirmed\n            by Ada <ada@example.com>: error rate flat (ID)"), "{told}");
    assert!(told.contains("aborting\n            by Ada <ada@example.com>: latency is up (ID)"), "{told}");
    let verified = shell.run(ada.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.transcript());
    assert!(
        verified.stdout.ends_with("ok: HEAD explains what stable is and how it became so\n"),
        "{}",
        verified.stdout
    );
}

#[test]
fn fault_05_a_controller_that_is_told_to_stop_leaves_within_ten_seconds_also_where_nothing_answers() {
    let (_remote, ada) = checkout();
    let shell = Shell::new();
    let file = |name: &str| shell.home.path().join(name).display().to_string();
    let (kubeconfig, mirror) = (file("kubeconfig"), file("mirror"));
    let spawn = |args: &[&str]| {
        let mut command = shell.command(ada.path(), args);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let sandbox = spawn(&["sandbox", "--kubeconfig", &kubeconfig]);
    while !std::path::Path::new(&kubeconfig).exists() {
        std::thread::yield_now();
    }
    let world = World { shell: &shell, here: ada.path(), kubeconfig: kubeconfig.clone() };
    let run = ["run", "--kubeconfig", &kubeconfig, "--mirror", &mirror, "--push-interval", "50ms"];
    let leaves = |mut controller: Running| {
        controller.signal("-TERM");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(controller.0.wait().unwrap().code()));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).expect("it is still there"), Some(0));
    };

    let controller = spawn(&run);
    world.until("it has begun", |status| status["activity"] == "progressing");
    leaves(controller);

    // Its writes and watches hang now: the API server is there, and says nothing.
    let controller = spawn(&run);
    world.waits_at("beta");
    assert_eq!(shell.run(ada.path(), &["confirm", "checkout"]).code, 0);
    sandbox.signal("-STOP");
    leaves(controller);
    sandbox.signal("-CONT");

    // Whoever comes next finds what was left.
    let _controller = spawn(&run);
    world.waits_at("batch-1");
}
