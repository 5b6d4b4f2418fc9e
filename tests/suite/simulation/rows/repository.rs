//! Group C: Git.

use super::*;

#[tokio::test(start_paused = true)]
async fn fault_36_the_remote_is_away_for_hours() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    sim.git.trouble(|trouble| trouble.away = true);
    sim.pass(Duration::from_secs(3 * 3600)).await;
    assert_eq!(at(&sim, "2.0"), 6, "the stage in hand is finished, the next never starts");
    sim.git.trouble(|trouble| trouble.away = false);
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_36_going_back_does_not_wait_for_the_remote() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    sim.git.trouble(|trouble| trouble.away = true);
    sim.cluster.with(|world| {
        use locktender::sandbox::faults::{Fault, Target};
        world.faults().add(Target::image("*checkout:2.0"), Fault::NeverReady);
    });
    sim.pass(Duration::from_secs(3600)).await;
    assert_eq!(at(&sim, "1.9"), 10, "it went back without Git");
    assert!(!has(&sim, 2, Event::Aborting));
    sim.git.trouble(|trouble| trouble.away = false);
    aborted(&sim, 2).await;
    assert!(has(&sim, 2, Event::Aborting), "what was done meanwhile is recorded later");
}

#[tokio::test(start_paused = true)]
async fn fault_39_a_hundred_rejected_pushes() {
    let sim = merged().await;
    recorded(&sim, 2, Event::RolloutOpened, "").await;
    sim.git.trouble(|trouble| trouble.reject = 100);
    completed(&sim, 2).await;
    each_once(&sim);
    assert_eq!(sim.git.state.lock().unwrap().trouble.reject, 0);
}

#[tokio::test(start_paused = true)]
async fn fault_40_the_answer_to_a_push_is_lost() {
    let sim = merged().await;
    sim.git.trouble(|trouble| trouble.lose_answer = 5);
    completed(&sim, 2).await;
    each_once(&sim);
    let opened = |subject: &&String| subject.contains("0002: opened");
    assert_eq!(sim.git.subjects().iter().filter(opened).count(), 1);
}

fn pushes(sim: &Sim) -> u32 {
    sim.git.state.lock().unwrap().pushes
}

#[tokio::test(start_paused = true)]
async fn fault_41_pushes_that_are_refused_are_tried_more_and_more_seldom() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    sim.git.trouble(|trouble| trouble.refuse = Some("the token has expired".to_owned()));
    let before = pushes(&sim);
    sim.pass(Duration::from_secs(3600)).await;
    let tries = pushes(&sim) - before;
    assert!((30..=70).contains(&tries), "about one a minute: {tries}");
    assert_eq!(at(&sim, "2.0"), 2, "nothing goes forward");
    let report = sim.report("checkout").unwrap();
    assert!(report.reasons.iter().any(|why| why.to_string().contains("the token has expired")), "{report:#?}");
    sim.git.trouble(|trouble| trouble.refuse = None);
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    each_once(&sim);
}

#[tokio::test(start_paused = true)]
async fn fault_41_going_back_does_not_wait_for_the_next_try() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    sim.git.trouble(|trouble| trouble.refuse = Some("the token has expired".to_owned()));
    sim.pass(Duration::from_secs(600)).await;
    let before = pushes(&sim);
    while pushes(&sim) == before {
        sim.pass(Duration::from_secs(1)).await;
    }
    decide(&sim, 2, "abort.yaml", "");
    sim.pass(Duration::from_secs(40)).await;
    assert_eq!((at(&sim, "1.9"), pushes(&sim)), (10, before + 1), "it went back, and nobody was asked again");
    assert!(!has(&sim, 2, Event::Aborting));
    sim.git.trouble(|trouble| trouble.refuse = None);
    aborted(&sim, 2).await;
    assert!(has(&sim, 2, Event::Aborting), "what was done meanwhile is recorded later");
}

#[tokio::test(start_paused = true)]
async fn fault_50_two_commits_within_one_poll() {
    let sim = merged().await;
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    completed(&sim, 2).await;
    assert_eq!((at(&sim, "2.1"), sim.records("checkout", 3).len()), (10, 0), "one rollout, to the newer");
}

#[tokio::test(start_paused = true)]
async fn fault_50_a_commit_lands_during_a_step() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    sim.git.commit("checkout 2.1", &[(DEPLOYMENT, Some(&manifest("2.1")))]);
    recorded(&sim, 2, Event::Superseded, "batch-1").await;
    completed(&sim, 3).await;
    assert_eq!(at(&sim, "2.1"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_52_a_release_is_reverted_while_it_runs() {
    let sim = merged().await;
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageWaiting, "batch-1").await;
    sim.git.commit("Revert \"checkout 2.0\"", &[(DEPLOYMENT, Some(&manifest("1.9")))]);
    aborted(&sim, 2).await;
    assert!(!has(&sim, 2, Event::Reverted), "Git needs no repair");
    assert_eq!(at(&sim, "1.9"), 10);
}

#[tokio::test(start_paused = true)]
async fn fault_53_our_own_commits_start_nothing() {
    let sim = merged().await;
    completed(&sim, 2).await;
    let before = (sim.git.tip_now(), written(&sim).len(), sim.git.state.lock().unwrap().pushes);
    sim.pass(Duration::from_secs(3600)).await;
    let after = (sim.git.tip_now(), written(&sim).len(), sim.git.state.lock().unwrap().pushes);
    assert_eq!(after, before);
}
