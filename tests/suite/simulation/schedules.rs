//! Random schedules on top: policies, manifests, what people commit, faults and crashes, from a seed that replays.
//!
//! `LOCKTENDER_SEED=17 LOCKTENDER_RUNS=1` runs one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use locktender::{
    core::{
        ledger::{Event, Record},
        names::AppName,
        rollout::state::{Outcome, Phase},
    },
    sandbox::faults::{Fault, Target},
};

use super::{
    Sim,
    faults::{EVENT_FAULTS, Odds, WriteFault},
    random::Random,
    rollouts::{APP, DEPLOYMENT},
};

const POLICY: &str = "policies/two-data-centers.yaml";
const NODES: [&str; 6] = ["dca-1", "dca-2", "dca-3", "dcb-1", "dcb-2", "dcb-3"];

fn policy(random: &mut Random) -> String {
    let mut pick = |list: &[&str]| (*random.pick(list)).to_owned();
    let (update, batch, unavailable) = (
        pick(&["InPlaceIfPossible", "InPlaceIfPossible", "Recreate"]),
        pick(&["1", "2", "4", "50%"]),
        pick(&["1", "2", "25%", "34%"]),
    );
    let (beta, confirm) = (pick(&["0", "1", "2"]), pick(&["everyBatch", "everyBatch", "beta", "none"]));
    let (ready, grace) = (pick(&["0", "5"]), pick(&["0", "2"]));
    let (failure, revision, abort) =
        (pick(&["abort", "stop"]), pick(&["supersede", "supersede", "queue"]), pick(&["revert", "hold"]));
    format!(
        "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {{name: two-data-centers}}
spec:
  progressDeadlineSeconds: 300
  onFailure: {failure}
  onAbort: {abort}
  onNewRevision: {revision}
  strategy:
    batched:
      update: {update}
      topology:
        unitType: topology.kubernetes.io/zone
        units: [dca, dcb]
      beta: {{perUnit: {beta}}}
      batchSize: {batch}
      confirm: {confirm}
      minReadySeconds: {ready}
      maxUnavailable: {unavailable}
      graceful: {{gracePeriodSeconds: {grace}}}
"
    )
}

fn manifest(tag: &str, replicas: u64) -> String {
    super::rollouts::manifest(tag).replace("replicas: 10", &format!("replicas: {replicas}"))
}

/// What people, nodes and the network do.
struct Play {
    sim: Sim,
    random: Random,
    tag: u32,
    replicas: u64,
    down: Option<&'static str>,
    told: Vec<String>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let replicas = 2 + random.below(7);
        let policy = policy(&mut random);
        let sim =
            Sim::new(&[(POLICY, &policy), ("apps/checkout/app.yaml", APP), (DEPLOYMENT, &manifest("1", replicas))]);
        let told = policy.lines().skip(4).map(str::to_owned).collect();
        Self { sim, random, tag: 1, replicas, down: None, told }
    }

    fn last(&self) -> (u32, Vec<Record>, Option<Phase>) {
        let checker = self.sim.checker.lock().unwrap();
        let last = checker.rollouts(&AppName::new("checkout")).and_then(|all| all.values().next_back());
        last.map_or((1, Vec::new(), None), |state| {
            (state.plan.rollout.number, state.records.clone(), Some(state.phase))
        })
    }

    fn commit(&mut self, what: &str, path: &str, text: Option<&str>) {
        self.told.push(format!("{what}: {path}"));
        self.sim.git.commit(what, &[(path, text)]);
    }

    fn decide(&mut self, file: &str, there: bool) {
        let (number, _, _) = self.last();
        let text = format!("message: '{}'\n", self.random.next());
        let path = format!("rollouts/checkout/{number:04}/{file}");
        self.commit("decide", &path, there.then_some(&text));
    }

    fn merge(&mut self, bad: bool) {
        self.tag += 1;
        let suffix = if bad { "-never-ready" } else { "" };
        let text = manifest(&format!("{}{suffix}", self.tag), self.replicas);
        self.commit("merge", DEPLOYMENT, Some(&text));
    }

    /// Somebody confirms what waits.
    fn confirm(&mut self, there: bool) {
        let (_, records, _) = self.last();
        let waiting = records.iter().rev().find(|record| record.event == Event::StageWaiting);
        if let Some(stage) = waiting.and_then(|record| record.stage.clone()) {
            self.decide(&format!("confirm/{stage}.yaml"), there);
        }
    }

    fn something(&mut self) {
        match self.random.below(40) {
            0..=13 => self.confirm(true),
            14..=16 => self.confirm(false),
            17..=19 => self.merge(false),
            20 => self.merge(true),
            21 => self.decide("abort.yaml", true),
            22 => self.decide("pause.yaml", true),
            23..=24 => self.decide("pause.yaml", false),
            25 => self.decide("promote.yaml", true),
            26 => self.decide("retry.yaml", true),
            27..=28 => {
                self.replicas = 2 + self.random.below(7);
                let text = manifest(&self.tag.to_string(), self.replicas);
                self.commit("replicas", DEPLOYMENT, Some(&text));
            }
            29..=30 => {
                let away = self.random.chance(50);
                self.told.push(format!("git away: {away}"));
                self.sim.git.trouble(|trouble| trouble.away = away);
            }
            31 => {
                let reject = u32::try_from(self.random.below(10)).unwrap();
                self.sim.git.trouble(|trouble| trouble.reject = reject);
            }
            32 => {
                let lost = u32::try_from(self.random.below(3)).unwrap();
                self.sim.git.trouble(|trouble| trouble.lose_answer = lost);
            }
            33 => {
                let node = *self.random.pick(&NODES);
                self.told.push(format!("{node} goes down"));
                if let Some(down) = self.down.replace(node) {
                    self.sim.cluster.with(|world| world.faults().set_node_down(down, false));
                }
                self.sim.cluster.with(|world| world.faults().set_node_down(node, true));
            }
            34 => {
                let tag = format!("*checkout:{}", self.tag);
                self.told.push(format!("{tag} breaks"));
                self.sim.cluster.with(|world| world.faults().add(Target::image(tag), Fault::NeverReady));
            }
            35 => {
                let fault = [None, None, Some(WriteFault::Conflict), Some(WriteFault::Busy)];
                let fault = *self.random.pick(&fault);
                self.told.push(format!("every write: {fault:?}"));
                self.sim.faults.always(fault);
            }
            36 => {
                self.told.push("killed".to_owned());
                self.sim.start();
            }
            _ => {}
        }
    }

    /// Everything is well again, and people let a good release through.
    async fn heal(&mut self) -> Result<(), String> {
        self.sim.faults.disarm();
        self.sim.git.trouble(|trouble| *trouble = super::git::Trouble::default());
        self.sim.cluster.with(|world| world.faults().clear());
        self.tag += 1;
        let text = manifest(&self.tag.to_string(), self.replicas);
        self.commit("the last", DEPLOYMENT, Some(&text));
        let wanted = usize::try_from(self.replicas).unwrap();
        for _ in 0..8 {
            self.sim.pass(Duration::from_secs(1300)).await;
            let (_, _, phase) = self.last();
            if phase == Some(Phase::Ended(Outcome::Completed)) && self.at_last() == (wanted, wanted) {
                return Ok(());
            }
            self.decide("pause.yaml", false);
            self.decide("retry.yaml", true);
            self.decide("promote.yaml", true);
        }
        let (number, records, phase) = self.last();
        let events: Vec<_> = records.iter().map(|one| (one.event, one.stage.clone())).collect();
        let reasons = self.sim.report("checkout").map(|report| report.reasons);
        Err(format!(
            "{:?} of {wanted} pods are at the last version; {number} is {phase:?}: {events:?}\n{reasons:?}\n{}",
            self.at_last(),
            self.pods().join("\n")
        ))
    }

    /// Somebody merges once more, and aborts somewhere on the way: every pod is at what was stable, or the abort came too late.
    async fn abort_another(&mut self) -> Result<(), String> {
        let (stable, (number, _, _)) = (self.tag, self.last());
        let bad = self.random.chance(30);
        self.merge(bad);
        for _ in 0..120 {
            self.sim.pass(Duration::from_secs(1)).await;
            if self.last().0 > number {
                break;
            }
        }
        let wait = self.random.below(60);
        self.sim.pass(Duration::from_secs(wait)).await;
        self.decide("abort.yaml", true);
        self.sim.pass(Duration::from_secs(2600)).await;
        let (ended, records, phase) = self.last();
        let is_over = match phase {
            Some(Phase::Ended(Outcome::Aborted)) => {
                self.tag = stable;
                true
            }
            Some(Phase::Ended(Outcome::Completed)) => !bad,
            _ => false,
        };
        let wanted = usize::try_from(self.replicas).unwrap();
        if is_over && ended == number + 1 && self.at_last() == (wanted, wanted) {
            return Ok(());
        }
        let events: Vec<_> = records.iter().map(|one| (one.event, one.stage.clone())).collect();
        let pods = self.pods().join("\n");
        Err(format!(
            "an abort after {wait} s: {ended} is {phase:?}, {:?} of {wanted}: {events:?}\n{pods}",
            self.at_last()
        ))
    }

    /// Every slice and every pod, in a line.
    fn pods(&self) -> Vec<String> {
        self.sim.cluster.with(|world| {
            let slice = |slice: &std::sync::Arc<serde_json::Value>| {
                let (meta, spec) = (&slice["metadata"], &slice["spec"]);
                format!("{} of {} {} {}", meta["name"], spec["replicas"], meta["labels"], slice["status"])
            };
            let told = |pod: &std::sync::Arc<serde_json::Value>| {
                let (meta, spec) = (&pod["metadata"], &pod["spec"]);
                format!(
                    "{} {} on {}, ready: {}, going: {}, {} {}",
                    meta["name"],
                    spec["containers"][0]["image"],
                    spec["nodeName"],
                    super::checker::is_ready(pod),
                    meta["deletionTimestamp"],
                    meta["labels"],
                    meta["annotations"]
                )
            };
            world.api.list("replicasets.apps").map(slice).chain(world.api.list("pods").map(told)).collect()
        })
    }

    /// How many pods are at the last version, and how many there are.
    fn at_last(&self) -> (usize, usize) {
        let end = format!(":{}", self.tag);
        self.sim.cluster.with(|world| {
            let pods: Vec<_> = world.api.list("pods").collect();
            let is_at = |image: &str| image.ends_with(&end);
            let at = pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(is_at));
            (at.count(), pods.len())
        })
    }
}

fn run(seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut play = Play::new(seed);
        let odds = Odds { write: 20, event: 10, read: 20, crash: 10, events: &EVENT_FAULTS };
        play.sim.faults.draw(Random::new(seed ^ 0x5eed), odds);
        play.sim.cluster.armed();
        play.sim.git.armed();
        for _ in 0..40 {
            let wait = 1 + play.random.below(20);
            play.sim.pass(Duration::from_secs(wait)).await;
            play.something();
        }
        let mut ended = play.heal().await;
        if ended.is_ok() && seed.is_multiple_of(4) {
            // 4: from every state an abort reaches stable.
            ended = play.abort_another().await;
        }
        let violations = play.sim.checker.lock().unwrap().take();
        if ended.is_ok() && violations.is_empty() {
            return Ok(());
        }
        let mut wrong = violations;
        wrong.extend(ended.err());
        Err(format!("{}\n{}\n{}", wrong.join("\n"), play.told.join("\n"), play.sim.git.subjects().join("\n")))
    })
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_schedules() {
    let (seed, runs) = (number("LOCKTENDER_SEED", 1), number("LOCKTENDER_RUNS", 60));
    let mut failed = Vec::new();
    for seed in seed..seed + runs {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|_| Err("panicked".to_owned()));
        if let Err(wrong) = result {
            println!("LOCKTENDER_SEED={seed} LOCKTENDER_RUNS=1\n{wrong}");
            failed.push(seed);
        }
    }
    println!("{runs} runs: random schedules from LOCKTENDER_SEED={seed}");
    assert!(failed.is_empty(), "seeds {failed:?} went wrong");
}
