//! Confirms, promotes and aborts that come too early, too late, for something else, or are taken back.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    checkout::POLICY_FILE,
    release::{Place, Release},
};

play!(
    an_early_confirm_opens_nothing_also_later_until_it_is_changed,
    a_stale_confirm_that_names_an_earlier_wait_opens_nothing,
    a_confirm_for_another_rollout_opens_nothing,
    an_empty_confirm_is_given_again_by_changing_it,
    a_confirm_reverted_after_later_ones_passed_goes_back_and_waits_again_at_each,
    a_confirm_reverted_after_completion_does_nothing_and_is_answered,
    promote_and_abort_written_in_advance_for_the_next_number_do_nothing,
    a_promote_passes_the_confirms_that_are_left,
    an_abort_that_is_reverted_while_it_goes_back_goes_on,
);

const EARLY: &str = "rollouts/checkout/0002/confirm/batch-1.yaml";

async fn an_early_confirm_opens_nothing_also_later_until_it_is_changed(place: Place) {
    let release = Release::at_beta(place).await;
    release.confirm(2, "batch-1");
    let seen = release.until("checkout", "it is answered", |seen| seen.has(2, Event::DecisionRejected)).await;
    let why = &seen.last(2, Event::DecisionRejected).unwrap().why;
    assert_eq!(why, "confirm/batch-1.yaml: the stage does not wait yet: it opens nothing, also later");
    release.confirm(2, "beta");
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    release.rest().await;
    let seen = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    assert_eq!(seen.count(2, Event::DecisionRejected), 1, "it is answered once");
    release.decide(2, "confirm/batch-1", "message: now I have seen it\n");
    let seen = release.stable(2, "2.0: 10").await;
    assert_eq!(seen.last(2, Event::ConfirmAccepted).unwrap().why, "now I have seen it");
}

async fn a_stale_confirm_that_names_an_earlier_wait_opens_nothing(place: Place) {
    let release = Release::at_batch_1(place).await;
    let waited = release.seen("checkout").await.last(2, Event::StageWaiting).unwrap().id;
    release.commit("take the confirm of beta back", |clone| {
        clone.remove("rollouts/checkout/0002/confirm/beta.yaml");
    });
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    release.confirm(2, "beta");
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    release.decide(2, "confirm/batch-1", &format!("record: {waited}\n"));
    let seen = release.until("checkout", "it is answered", |seen| seen.has(2, Event::DecisionRejected)).await;
    let why = &seen.last(2, Event::DecisionRejected).unwrap().why;
    assert_eq!(why, "confirm/batch-1.yaml: it names another waiting record than the latest");
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    let waits = seen.last(2, Event::StageWaiting).unwrap().id;
    release.decide(2, "confirm/batch-1", &format!("record: {waits}\n"));
    release.stable(2, "2.0: 10").await;
}

async fn a_confirm_for_another_rollout_opens_nothing(place: Place) {
    let mut release = Release::at_beta(place).await;
    let other = release.ledger("checkout")[&1][0].evidence.plan.unwrap();
    release.decide(1, "confirm/beta", "message: for what is over\n");
    release.decide(3, "confirm/beta", "message: for what is not there yet\n");
    release.decide(2, "confirm/beta", &format!("planHash: {other}\n"));
    let seen = release.until("checkout", "both are answered", |seen| seen.count(2, Event::DecisionRejected) > 1).await;
    let answers = seen.all(2, Event::DecisionRejected);
    let said = |start: &str| answers.iter().filter(|why| why.starts_with(start)).count();
    assert_eq!(said("confirm/beta.yaml: it names another plan than this rollout's"), 1, "{answers:?}");
    assert_eq!(said("0001/confirm/beta.yaml: that rollout is over, and another came after it"), 1, "{answers:?}");
    release.rest().await;
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    release.kill().await;
    release.start().await;
    release.rest().await;
    let seen = release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    assert_eq!(seen.count(2, Event::DecisionRejected), 2, "each is answered once, also by who comes next");
    release.set_tag("2.1");
    release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
    release.rest().await;
    release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
}

async fn an_empty_confirm_is_given_again_by_changing_it(place: Place) {
    let release = Release::at_beta(place).await;
    release.confirm(2, "batch-1");
    release.until("checkout", "it is answered", |seen| seen.has(2, Event::DecisionRejected)).await;
    release.confirm(2, "beta");
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    // The same empty file, written again, is the same content: Git has nothing to commit, and it counts for nothing.
    release.decide(2, "confirm/batch-1", "");
    release.rest().await;
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    assert_eq!(release.remote.read(EARLY).unwrap(), "");
    release.decide(2, "confirm/batch-1", "# yes\n");
    release.stable(2, "2.0: 10").await;
}

async fn a_confirm_reverted_after_later_ones_passed_goes_back_and_waits_again_at_each(place: Place) {
    let release = Release::checkout(place).await;
    release.commit("smaller batches", |clone| {
        clone.replace(POLICY_FILE, "batchSize: 4", "batchSize: 2");
    });
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    let confirmed = release.confirm(2, "beta");
    release.waits(2, "batch-1", "1.9: 6, 2.0: 4").await;
    release.confirm(2, "batch-1");
    let seen = release.waits(2, "batch-2", "1.9: 4, 2.0: 6").await;
    let before = seen.identities();

    let taken_back = release.reverts(&confirmed);
    let seen = release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    assert_eq!(seen.identities(), before, "going back in place keeps every pod");
    assert_eq!(seen.last(2, Event::StageReverted).unwrap().stage.as_ref().unwrap().as_str(), "beta");

    release.reverts(&taken_back);
    let seen = release.waits(2, "batch-1", "1.9: 6, 2.0: 4").await;
    assert!(seen.told(2).ends_with(&["StageWaiting batch-1".to_owned()]), "{:?}", seen.told(2));
    release.rest().await;
    let seen = release.waits(2, "batch-1", "1.9: 6, 2.0: 4").await;
    assert_eq!(seen.count(2, Event::StageReverted), 1);
    release.decide(2, "confirm/batch-1", "message: once more\n");
    release.waits(2, "batch-2", "1.9: 4, 2.0: 6").await;
}

async fn a_confirm_reverted_after_completion_does_nothing_and_is_answered(place: Place) {
    let release = Release::at_beta(place).await;
    let confirmed = release.confirm(2, "beta");
    release.pass("batch-1", 2).await;
    release.stable(2, "2.0: 10").await;
    release.reverts(&confirmed);
    let seen = release.until("checkout", "it is answered", |seen| seen.has(2, Event::DecisionRejected)).await;
    let why = &seen.last(2, Event::DecisionRejected).unwrap().why;
    assert_eq!(why, "confirm/beta.yaml: it was taken away after the rollout had ended");
    release.rest().await;
    let seen = release.stable(2, "2.0: 10").await;
    assert_eq!((seen.count(2, Event::DecisionRejected), seen.ledger.len()), (1, 2));
}

async fn promote_and_abort_written_in_advance_for_the_next_number_do_nothing(place: Place) {
    let release = Release::checkout(place).await;
    release.commit("prepared", |clone| {
        clone.write("rollouts/checkout/0002/promote.yaml", "");
        clone.write("rollouts/checkout/0002/abort.yaml", "");
    });
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    let seen = release.until("checkout", "both are answered", |seen| seen.count(2, Event::DecisionRejected) == 2).await;
    assert_eq!(seen.ledger[&2][0].decisions.len(), 2, "RolloutOpened lists them");
    release.rest().await;
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    release.decide(2, "abort", "message: now I mean it\n");
    release.until("checkout", "it goes back", |seen| seen.has(2, Event::Reverted) && seen.pods() == "1.9: 10").await;
}

async fn a_promote_passes_the_confirms_that_are_left(place: Place) {
    let release = Release::at_beta(place).await;
    release.decide(2, "promote", "");
    let seen = release.stable(2, "2.0: 10").await;
    assert_eq!(
        seen.told(2),
        [
            "RolloutOpened",
            "StageStarted beta",
            "StageWaiting beta",
            "Promoted beta",
            "StageStarted batch-1",
            "StageStarted batch-2",
            "Completed batch-2",
        ]
    );
}

async fn an_abort_that_is_reverted_while_it_goes_back_goes_on(place: Place) {
    let release = Release::at_batch_1(place).await;
    let aborted = release.decide(2, "abort", "");
    release.until("checkout", "it goes back", |seen| seen.has(2, Event::Aborting)).await;
    let ada = release.person("Ada");
    ada.git(&["revert", "--no-edit", &aborted]);
    while ada.try_push().is_err() {
        ada.git(&["pull", "--quiet", "--rebase"]);
    }
    let seen = release
        .until("checkout", "back, and answered", |seen| {
            seen.is(2, Activity::Stable) && seen.pods() == "1.9: 10" && seen.has(2, Event::DecisionRejected)
        })
        .await;
    assert!(seen.has(2, Event::Aborted) && seen.has(2, Event::Reverted));
    let why = &seen.last(2, Event::DecisionRejected).unwrap().why;
    assert_eq!(why, "abort.yaml: it was taken away after the rollout had ended");
}
