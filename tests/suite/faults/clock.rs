//! Row 89 with the program as it is shipped: its machine's wall clock is set, and it sleeps for an hour.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _, path::PathBuf, process::Command, time::Duration};

use jiff::Timestamp;
use locktender::core::ledger::Event;
use serde_json::Value;

use super::{
    program::{LEASE, Program},
    *,
};

const CANARY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  strategy:
    canary:
      steps:
      - setWeight: 50
      - pause: {duration: 10s}
";

/// How long the pause is, in seconds.
const PAUSE: i64 = 10;
/// What going on after it may take on a busy machine, in seconds. An hour is longer.
const BUSY: i64 = 120;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The wall clock of a program, and no other clock of it: `tests/fixtures/programs/wall_clock.c`.
struct WallClock(tempfile::TempDir);

impl WallClock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/programs/wall_clock.c");
        let built = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(clock.library())
            .arg(source)
            .status()
            .unwrap();
        assert!(built.success());
        clock.is_ahead(0);
        clock.is_ahead(DAY);
        assert!(clock.tells() - Timestamp::now().as_second() > DAY - HOUR, "a program is told another time");
        clock.is_ahead(0);
        clock
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("wall_clock.so")
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("ahead")
    }

    /// Sets it so many seconds before the machine's. In place: programs have the file in their memory.
    fn is_ahead(&self, seconds: i64) {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.file()).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Lets a program have it.
    fn of(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", self.library()).env("WALL_CLOCK", self.file());
        command
    }

    /// What another program says.
    fn tells(&self) -> i64 {
        let output = self.of(Command::new("date")).arg("+%s").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

/// When a rollout began to wait in its pause.
fn waits_since(seen: &Seen, number: u32) -> Option<Timestamp> {
    Some(seen.last(number, Event::StageWaiting)?.time)
}

/// Waits until a rollout is in its pause; says since when.
async fn pauses(faulty: &Faulty, number: u32) -> Timestamp {
    let seen = faulty.until("checkout", "it pauses", |seen| waits_since(seen, number).is_some()).await;
    waits_since(&seen, number).unwrap()
}

/// Waits until a rollout goes on after its pause, which by the journal was so long, and is complete.
async fn goes_on(faulty: &Faulty, number: u32, since: Timestamp, after: i64) -> Seen {
    let seen = faulty.until("checkout", "it is complete", |seen| seen.has(number, Event::Completed)).await;
    let told = seen.last(number, Event::StageStarted).unwrap().time.duration_since(since).as_secs();
    assert!((after..after + BUSY).contains(&told), "{number} says that it went on after {told} s");
    let count = |event| seen.count(number, event);
    assert_eq!([Event::StageStarted, Event::StageWaiting, Event::Completed].map(count), [2, 1, 1]);
    seen
}

/// Sees a pause last as long as it is to, also by the clock of the tests, which nobody sets.
async fn lasts(faulty: &Faulty, number: u32, since: Timestamp) {
    faulty.until("checkout", "it goes on", |seen| seen.count(number, Event::StageStarted) == 2).await;
    let lasted = Timestamp::now().duration_since(since).as_secs();
    assert!(lasted >= PAUSE, "{number} went on after {lasted} s");
    goes_on(faulty, number, since, PAUSE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute of real time, and the simulation has it: on a real control plane alone"]
async fn fault_89_a_wall_clock_that_is_set_makes_no_pause_shorter_or_longer() {
    let faulty = Faulty::without_controller(&[(POLICY_FILE, CANARY)]).await;
    let clock = WallClock::new();
    let locktender = clock.of(Command::new(env!("CARGO_BIN_EXE_locktender")));
    // A busy machine must not cost the lease: who takes it anew reads the wall clock anew.
    let program = Program::with(locktender, "20s", &faulty, &faulty.kubeconfig(), tempfile::tempdir().unwrap());
    let first = faulty.is_held_by_another_than(None).await;
    faulty.merge_with(&[]);
    let since = pauses(&faulty, 1).await;
    clock.is_ahead(DAY);
    lasts(&faulty, 1, since).await;

    faulty.set_tag("2.0");
    let since = pauses(&faulty, 2).await;
    clock.is_ahead(0);
    lasts(&faulty, 2, since).await;
    assert_eq!(faulty.holder().await.as_ref(), Some(&first), "nor is the lease lost");

    // It sleeps until its lease has run out, and is woken an hour later, as its wall clock says: that hour has passed, also
    // for the pods.
    faulty.set_tag("2.1");
    let since = pauses(&faulty, 3).await;
    program.signal("-STOP");
    let has_run_out = |lease: &Value| {
        let renewed: Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
        Timestamp::now().duration_since(renewed).as_secs() > lease["spec"]["leaseDurationSeconds"].as_i64().unwrap()
    };
    while !has_run_out(&faulty.live().ask("GET", LEASE, Value::Null).await.unwrap()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    clock.is_ahead(HOUR);
    program.signal("-CONT");
    let seen = goes_on(&faulty, 3, since, HOUR).await;
    assert_eq!(seen.pods(), "2.1: 10");
}
