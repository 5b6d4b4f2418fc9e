//! A remote that is rewritten, late, away, or busy.

use std::{sync::Arc, time::Duration};

use locktender::core::{
    ledger::Event,
    rollout::{labels, report::Activity},
};
use serde_json::Value;

use crate::cli::Shell;

use super::{
    checkout::{DEPLOYMENT, POLICY_FILE, deployment},
    release::{Place, Release, Seen},
};

play!(
    fault_37_a_force_push_that_loses_our_last_record_holds_until_a_person_accepts_it,
    fault_38_an_older_ancestor_is_waited_out,
    fault_36_an_abort_under_way_survives_the_loss_of_controller_and_disk_while_git_is_away,
    fault_36_going_forward_waits_for_git,
    fault_39_a_hundred_rejected_pushes_lose_and_double_nothing,
    twenty_people_push_within_three_tries_while_records_are_written,
);

async fn fault_37_a_force_push_that_loses_our_last_record_holds_until_a_person_accepts_it(place: Place) {
    let mut release = Release::at_batch_1(place).await;
    let lost = release.seen("checkout").await.ledger[&2].last().unwrap().id;
    let ada = release.person("Ada");
    ada.git(&["reset", "--quiet", "--hard", "HEAD~2"]);
    ada.write("docs/notes.md", "rewritten\n");
    ada.commit("another history");
    ada.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
    let seen =
        release.until("checkout", "it says so", |seen| seen.reasons().contains("the branch was rewritten")).await;
    assert!(seen.reasons().contains(&lost.short()), "{}", seen.reasons());
    let tip = release.remote.rev("main");
    release.rest().await;
    assert_eq!(release.remote.rev("main"), tip, "nothing is recorded in the new history");
    assert_eq!(release.seen("checkout").await.pods(), "1.9: 4, 2.0: 6", "nothing moves");
    release.confirm(2, "batch-1");
    release.rest().await;
    assert_eq!(release.seen("checkout").await.pods(), "1.9: 4, 2.0: 6", "nothing moves");

    release.lose_controller_and_disk().await;
    release.start().await;
    release.until("checkout", "it is noticed without a disk", |seen| seen.reasons().contains("rewritten")).await;
    release.rest().await;
    assert_eq!(release.seen("checkout").await.pods(), "1.9: 4, 2.0: 6", "nothing moves");

    match place {
        Place::Simulation => {
            release.commit("accept the new history", |clone| {
                clone.write("rollouts/accepted.yaml", &format!("accepted:\n- {lost}\n"));
            });
        }
        Place::Sandbox | Place::ControlPlane => {
            // The anchor in the cluster knows what was lost.
            let (shell, kubeconfig) = (Shell::new(), release.kubeconfig().display().to_string());
            let (url, elsewhere) = (release.remote.url(), tempfile::tempdir().unwrap());
            let ran = shell
                .run(elsewhere.path(), &["audit", "accept", "checkout", "--repo", &url, "--kubeconfig", &kubeconfig]);
            assert_eq!(ran.code, 0, "{}", ran.transcript());
            assert!(release.remote.read("rollouts/accepted.yaml").unwrap().contains(&lost.to_string()));
        }
    }
    // What the new history says holds now: beta was confirmed, batch-1 did not wait yet.
    release.until("checkout", "it goes on from what Git says", |seen| seen.waits(2, "batch-1")).await;
    release.decide(2, "confirm/batch-1", "message: again\n");
    release.stable(2, "2.0: 10").await;
}

async fn fault_38_an_older_ancestor_is_waited_out(place: Place) {
    let release = Release::at_batch_1(place).await;
    let newest = release.remote.rev("main");
    release.remote.git(&["update-ref", "refs/heads/main", "main~3"]);
    let seen =
        release.until("checkout", "it says so", |seen| seen.reasons().contains("older than what was seen")).await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 6");
    release.rest().await;
    assert_eq!(release.seen("checkout").await.pods(), "1.9: 4, 2.0: 6", "nothing goes back, nothing goes on");
    if place == Place::Simulation {
        // Five minutes of real time are too long for a test on the sandbox.
        let complains = |seen: &Seen| seen.reasons().contains("somebody should look at it");
        assert!(!complains(&release.seen("checkout").await), "it is waited for");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(complains(&release.seen("checkout").await), "{}", release.seen("checkout").await.reasons());
    }
    release.remote.git(&["update-ref", "refs/heads/main", &newest]);
    let seen = release.until("checkout", "Git is back", |seen| !seen.reasons().contains("Git is away")).await;
    assert!(seen.waits(2, "batch-1") && !seen.reasons().contains("rewritten"));
    release.confirm(2, "batch-1");
    release.stable(2, "2.0: 10").await;
}

async fn fault_36_an_abort_under_way_survives_the_loss_of_controller_and_disk_while_git_is_away(place: Place) {
    let mut release = Release::checkout(place).await;
    let before = release.seen("checkout").await.identities();
    // Going back takes a while: each pod's grace.
    release.commit("a grace", |clone| {
        clone.replace(POLICY_FILE, "gracePeriodSeconds: 0", "gracePeriodSeconds: 2");
    });
    release.set_tag("2.0");
    release.pass("beta", 2).await;
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    release.decide(2, "abort", "");
    // Git has the record before the cluster knows anything of it. Who moves pods has told the cluster why.
    let moves = |pod: &Arc<Value>| !pod["metadata"]["annotations"][labels::MOVING].is_null();
    release
        .until("checkout", "pods go back", |seen| seen.is(2, Activity::Aborting) && seen.pods.iter().any(moves))
        .await;
    release.git_answers(false);
    release.lose_controller_and_disk().await;
    release.start().await;
    let seen = release.until("checkout", "it is back", |seen| seen.pods() == "1.9: 10").await;
    assert_eq!(seen.identities(), before);
    release.git_answers(true);
    let seen = release.stable(2, "1.9: 10").await;
    let told = seen.told(2);
    assert_eq!(told[told.len() - 3..], ["Aborting", "Aborted", "Reverted"]);
    assert_eq!(told.iter().filter(|event| *event == "Aborting").count(), 1);
    assert_eq!(release.remote.read(DEPLOYMENT).unwrap(), deployment("checkout", "1.9").trim_end());
}

async fn fault_36_going_forward_waits_for_git(place: Place) {
    let release = Release::at_beta(place).await;
    release.confirm(2, "beta");
    release.git_answers(false);
    release.until("checkout", "Git is away", |seen| seen.reasons().contains("Git is away")).await;
    release.rest().await;
    // On the sandbox the record of the confirm may have been pushed before: then, and only then, its stage goes on.
    let pushed = release.seen("checkout").await.told(2).contains(&"StageStarted batch-1".to_owned());
    assert!(!pushed || place != Place::Simulation);
    let expected = if pushed { "1.9: 4, 2.0: 6" } else { "1.9: 8, 2.0: 2" };
    let seen = release.until("checkout", "as far as Git says", |seen| seen.pods() == expected).await;
    assert!(!seen.told(2).contains(&"StageWaiting batch-1".to_owned()), "nothing is pushed to a remote that is away");
    release.rest().await;
    assert_eq!(release.seen("checkout").await.pods(), expected);
    release.git_answers(true);
    let seen = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    let started = seen.told(2).iter().filter(|event| *event == "StageStarted batch-1").count();
    assert_eq!(started, 1);
}

async fn fault_39_a_hundred_rejected_pushes_lose_and_double_nothing(place: Place) {
    let release = Release::at_beta(place).await;
    release.reject_pushes(100);
    release.confirm(2, "beta");
    for left in (0..100).rev().filter(|_| place != Place::Simulation) {
        // Each time it tries again: however slow the machine is, that is what is waited for.
        let is_so_far = |_: &Seen| release.rejections_left() <= left;
        release.until("checkout", &format!("{left} rejections are left"), is_so_far).await;
    }
    let seen = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    if place != Place::Simulation {
        let hers = release.remote.subjects().iter().filter(|subject| subject.starts_with("hello ")).count();
        assert_eq!(hers, 100, "nobody's work is lost");
    }
    assert_eq!(
        seen.told(2),
        [
            "RolloutOpened",
            "StageStarted beta",
            "StageWaiting beta",
            "ConfirmAccepted beta",
            "StageStarted batch-1",
            "StageWaiting batch-1"
        ]
    );
}

async fn twenty_people_push_within_three_tries_while_records_are_written(place: Place) {
    let mut release = Release::checkout(place).await;
    // The product's own interval is three times as long.
    release.push_interval = Duration::from_secs(1);
    release.start().await;
    release.commit("no confirms", |clone| {
        clone.replace(POLICY_FILE, "confirm: everyBatch", "confirm: none");
    });
    release.commit("many batches", |clone| {
        clone.replace(POLICY_FILE, "batchSize: 4", "batchSize: 1");
    });
    let people: Vec<_> = (0..20).map(|number| release.person(&format!("Person {number}"))).collect();
    release.set_tag("2.0");
    for (number, person) in people.into_iter().enumerate() {
        person.write(&format!("docs/{number}.md"), "hello\n");
        person.commit(&format!("hello from {number}"));
        let pushed = tokio::task::spawn_blocking(move || person.push_within(3)).await.unwrap();
        assert!(pushed.is_ok(), "{pushed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = release.stable(2, "2.0: 10").await;
    assert!(seen.has(2, Event::Completed));
    for number in 0..20 {
        assert!(release.remote.read(&format!("docs/{number}.md")).is_some(), "nobody's work is lost");
    }
}
