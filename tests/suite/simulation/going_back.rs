//! Invariant 4: from every state, an abort reaches stable, also with Git away. At every write and push of a release somebody
//! aborts: by a commit, or, with Git away, by a word in the anchor. So it is while a workload is taken over or given back, and
//! there no pod is touched.
//!
//! `LOCKTENDER_SWEEP=all` tries every write; otherwise every third.

use std::time::Duration;

use locktender::{
    controller::anchor,
    core::{
        ledger::Event,
        manifest::Object,
        names::{AppName, RolloutId},
        rollout::state::{Outcome, Phase, State},
    },
};
use serde_json::{Value, json};

use super::{
    Sim,
    exhaustive::{Scenario, Whom, is_whole_sweep, manifest},
    handover::{self, APP_FILE, BARE, Whose},
    rollouts::{self, DEPLOYMENT},
    sets,
};

const APP: &str = "checkout";
/// Short enough for every test run, and coprime to the rhythm of a batch.
const SAMPLE: usize = 3;

/// How somebody aborts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// `abort.yaml`.
    Commit,
    /// `abort --now`, with Git away for half an hour.
    Now,
    /// The same, and the controller and its disk are lost while it goes back.
    NowAndLost,
}

fn last_rollout(sim: &Sim) -> Option<(u32, Phase)> {
    let checker = sim.checker.lock().unwrap();
    let last = checker.rollouts(&AppName::new(APP))?.values().next_back()?;
    Some((last.plan.rollout.number, last.phase))
}

fn is_running(sim: &Sim) -> bool {
    last_rollout(sim).is_some_and(|(number, phase)| number == 2 && phase == Phase::Running)
}

/// Somebody confirms what waits, until the release is over.
async fn confirms(sim: &Sim, stages: &[&str]) {
    for stage in stages {
        let path = format!("rollouts/{APP}/0002/confirm/{stage}.yaml");
        loop {
            let records = sim.records(APP, 2);
            let waits = |wanted: Event| {
                records
                    .iter()
                    .any(|one| one.event == wanted && one.stage.as_ref().is_some_and(|it| it.as_str() == *stage))
            };
            if last_rollout(sim).is_some_and(|(_, phase)| !matches!(phase, Phase::Running) && !records.is_empty()) {
                return;
            }
            if waits(Event::StageWaiting) {
                break;
            }
            sim.pass(Duration::from_millis(500)).await;
            if sim.git.state.lock().unwrap().trouble.away {
                return;
            }
        }
        sim.git.commit(&format!("confirm {stage}"), &[(&path, Some(""))]);
    }
    for _ in 0..600 {
        if last_rollout(sim).is_some_and(|(number, phase)| number == 2 && phase != Phase::Running) {
            return;
        }
        sim.pass(Duration::from_millis(500)).await;
    }
}

/// Does what `locktender abort --now` does; returns whether there was something to abort.
pub fn abort_now(sim: &Sim) -> bool {
    let rollout = RolloutId { app: AppName::new(APP), number: 2 };
    let name = anchor::name(&rollout.app);
    sim.cluster.with(|world| {
        let Some(object) = world.api.get("configmaps", "shop", &name) else { return false };
        let known = anchor::read(&Object(Value::clone(&object))).expect("an anchor");
        let Some(journal) = known.rollouts.into_values().next_back() else { return false };
        let state = State::fold(journal.plan, journal.records);
        if state.plan.rollout != rollout || !matches!(state.phase, Phase::Running | Phase::Stopped) {
            return false;
        }
        let body =
            json!({ "data": { anchor::ABORT: anchor::abort_of(&rollout, "Ada <ada@example.com>", Some("it burns")) } });
        super::rows::person_patches_in(world, "configmaps", &name, body);
        true
    })
}

fn pods_at(sim: &Sim, tag: &str) -> usize {
    let end = format!(":{tag}");
    sim.cluster.with(|world| {
        let pods = world.api.list("pods").filter(|pod| super::checker::is_ready(pod));
        pods.filter(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(&end)))
            .count()
    })
}

/// What is merged: a file, and its content before and after.
fn change(scenario: Scenario) -> (&'static str, String, String) {
    let (bare, staged) = (BARE.to_owned(), rollouts::APP.to_owned());
    match scenario {
        Scenario::TakeOver(_) => (APP_FILE, bare, staged),
        Scenario::GiveBack(_) => (APP_FILE, staged, bare),
        _ => (DEPLOYMENT, manifest("1.9"), manifest("2.0")),
    }
}

fn is_handover(scenario: Scenario) -> bool {
    matches!(scenario, Scenario::TakeOver(_) | Scenario::GiveBack(_))
}

/// How many pods there are.
fn all(scenario: Scenario) -> usize {
    match scenario {
        Scenario::TakeOver(whom) | Scenario::GiveBack(whom) => whom.pods(),
        _ => 6,
    }
}

/// Says what is not as it was before a workload was to be taken over or given back.
fn is_untouched(sim: &Sim, scenario: Scenario, since: handover::Since) -> Vec<String> {
    let mut wrong = match scenario {
        Scenario::TakeOver(Whom::Deployment) if handover::whose(sim) == Whose::Its => Vec::new(),
        Scenario::GiveBack(Whom::Deployment) if handover::whose(sim) == Whose::Ours => Vec::new(),
        Scenario::TakeOver(Whom::Deployment) | Scenario::GiveBack(Whom::Deployment) => {
            vec![format!("the pods are {:?}", handover::whose(sim))]
        }
        Scenario::TakeOver(Whom::StatefulSet) => sets::ORDINALS.is_its_own(sim),
        Scenario::GiveBack(Whom::StatefulSet) => sets::ORDINALS.is_staged(sim),
        Scenario::TakeOver(Whom::DaemonSet) => sets::NODES.is_its_own(sim),
        Scenario::GiveBack(Whom::DaemonSet) => sets::NODES.is_staged(sim),
        _ => return Vec::new(),
    };
    wrong.extend(since.disturbed(sim, all(scenario)));
    wrong
}

/// How one run went.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// There was no rollout yet, or none any more, that could be aborted.
    NothingToAbort,
    Back,
    Wrong(String),
}

async fn aborted_at(scenario: Scenario, write: usize, how: How) -> (Went, usize) {
    let mut sim = scenario.prepare().await.unwrap();
    let since = handover::Since::now(&sim);
    let (file, before, after) = change(scenario);
    sim.arm(&[]);
    let ran = std::sync::Arc::new(std::sync::Mutex::new(None));
    {
        let (git, checker, ran) = (sim.git.clone(), sim.checker.clone(), ran.clone());
        sim.faults.meanwhile(write, move || {
            let running = {
                let checker = checker.lock().unwrap();
                let last = checker.rollouts(&AppName::new(APP)).and_then(|all| all.values().next_back());
                last.is_some_and(|last| last.plan.rollout.number == 2 && last.phase == Phase::Running)
            };
            *ran.lock().unwrap() = Some(running);
            match how {
                How::Commit if running => {
                    git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some("message: it burns\n"))]);
                }
                How::Commit => {}
                How::Now | How::NowAndLost => git.trouble(|trouble| trouble.away = true),
            }
        });
    }
    sim.git.commit("the change", &[(file, Some(&after))]);
    let asking: &[&str] = match scenario {
        Scenario::TakeOver(_) | Scenario::GiveBack(_) => &[],
        Scenario::BlueGreen => &["preview"],
        Scenario::Routed | Scenario::Proxied => &["weight-60"],
        Scenario::ScaledBack => &["weight-20", "weight-60"],
        _ => &["beta", "batch-1"],
    };
    confirms(&sim, asking).await;
    let writes = sim.faults.counts().writes;
    let Some(running) = *ran.lock().unwrap() else { return (Went::NothingToAbort, writes) };
    if how != How::Commit {
        // The controller names in the anchor what it pushed last; until then there is nothing that could be aborted.
        let mut heard = false;
        for _ in 0..20 {
            heard = abort_now(&sim);
            if heard {
                break;
            }
            sim.pass(Duration::from_secs(1)).await;
        }
        if !heard {
            return (Went::NothingToAbort, writes);
        }
        if how == How::NowAndLost {
            sim.pass(Duration::from_secs(2)).await;
            sim.kill();
            sim.git.lose_mirror();
            sim.start();
        }
        sim.pass(Duration::from_secs(1800)).await;
        if (pods_at(&sim, "1.9"), pods_at(&sim, "2.0")) != (all(scenario), 0) {
            return (Went::Wrong(format!("without Git {} pods are back", pods_at(&sim, "1.9"))), writes);
        }
        if sim.records(APP, 2).iter().any(|record| record.event == Event::Aborting) {
            return (Went::Wrong("it was recorded while Git was away".to_owned()), writes);
        }
        sim.git.trouble(|trouble| trouble.away = false);
    } else if !running {
        return (Went::NothingToAbort, writes);
    }
    if let Err(why) = sim.recorded(APP, 2, Event::Aborted, "", 1).await {
        return (Went::Wrong(why), writes);
    }
    sim.pass(Duration::from_secs(120)).await;
    let told = |wanted: Event| sim.records(APP, 2).iter().filter(|record| record.event == wanted).count();
    let once = [Event::Aborting, Event::Aborted, Event::Reverted].map(told);
    let ended = last_rollout(&sim) == Some((2, Phase::Ended(Outcome::Aborted)));
    let repaired = sim.git.file(file).as_deref() == Some(before.as_str());
    let pods = (pods_at(&sim, "1.9"), pods_at(&sim, "2.0"));
    let mut violations = sim.checker.lock().unwrap().take();
    violations.extend(is_untouched(&sim, scenario, since));
    let right = once == [1, 1, 1]
        && ended
        && repaired
        && pods == (all(scenario), 0)
        && violations.is_empty()
        && !is_running(&sim);
    if right {
        return (Went::Back, writes);
    }
    let what = format!("{once:?} ended {ended} repaired {repaired} pods {pods:?}\n{}", violations.join("\n"));
    (Went::Wrong(format!("{what}\n{}", sim.git.subjects().join("\n"))), writes)
}

fn run(scenario: Scenario, write: usize, how: How) -> (Went, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(aborted_at(scenario, write, how))
}

fn everywhere(scenario: Scenario, how: How) {
    // Nobody aborts at a write that never comes: so many there are.
    let (_, writes) = run(scenario, usize::MAX, How::Commit);
    let step = if is_whole_sweep() || writes < 10 { 1 } else { SAMPLE };
    let mut wrong = Vec::new();
    let (mut runs, mut back) = (0, 0);
    for write in (0..writes).step_by(step) {
        runs += 1;
        match run(scenario, write, how).0 {
            Went::Back => back += 1,
            Went::NothingToAbort => {}
            Went::Wrong(why) => wrong.push(format!("{how:?} at write {write}: {why}")),
        }
    }
    println!("{runs} runs of {writes}: {how:?} at every write of {scenario:?}, {back} had something to abort");
    assert!(wrong.is_empty(), "{} of {runs} went wrong, first:\n{}", wrong.len(), wrong[0]);
    // The opening's push and what comes after the last record have nothing that could be aborted: of a few writes, many.
    let least = if is_handover(scenario) { 3 } else { 8 };
    assert!(back * 10 >= runs * least, "only {back} of {runs} runs aborted something");
}

#[test]
fn an_abort_at_every_write_reaches_stable() {
    everywhere(Scenario::Release, How::Commit);
}

#[test]
fn an_abort_at_every_write_of_a_switch_reaches_stable() {
    everywhere(Scenario::BlueGreen, How::Commit);
}

#[test]
fn an_abort_at_every_write_of_a_canary_by_a_gateway_reaches_stable() {
    everywhere(Scenario::Routed, How::Commit);
}

#[test]
fn an_abort_at_every_write_of_a_canary_that_scales_stable_down_reaches_stable() {
    everywhere(Scenario::ScaledBack, How::Commit);
}

#[test]
fn an_abort_at_every_write_of_a_canary_by_haproxy_reaches_stable() {
    everywhere(Scenario::Proxied, How::Commit);
}

#[test]
fn an_abort_without_git_at_every_write_of_a_switch_reaches_stable() {
    everywhere(Scenario::BlueGreen, How::Now);
}

#[test]
fn an_abort_without_git_at_every_write_reaches_stable_and_is_recorded_later() {
    everywhere(Scenario::Release, How::Now);
}

#[test]
fn an_abort_without_git_survives_the_controller_and_its_disk() {
    everywhere(Scenario::Release, How::NowAndLost);
}

#[test]
fn an_abort_at_every_write_of_taking_over_gives_back() {
    everywhere(Scenario::TakeOver(Whom::Deployment), How::Commit);
}

#[test]
fn an_abort_at_every_write_of_giving_back_takes_over() {
    everywhere(Scenario::GiveBack(Whom::Deployment), How::Commit);
}

#[test]
fn an_abort_without_git_at_every_write_of_taking_over_gives_back() {
    everywhere(Scenario::TakeOver(Whom::Deployment), How::NowAndLost);
}

#[test]
fn an_abort_without_git_at_every_write_of_giving_back_takes_over() {
    everywhere(Scenario::GiveBack(Whom::Deployment), How::NowAndLost);
}

#[test]
fn an_abort_at_every_write_of_taking_a_set_over_gives_back() {
    everywhere(Scenario::TakeOver(Whom::StatefulSet), How::Commit);
    everywhere(Scenario::TakeOver(Whom::DaemonSet), How::NowAndLost);
}

#[test]
fn an_abort_at_every_write_of_giving_a_set_back_takes_over() {
    everywhere(Scenario::GiveBack(Whom::StatefulSet), How::NowAndLost);
    everywhere(Scenario::GiveBack(Whom::DaemonSet), How::Commit);
}
