//! What `git revert` does to records, to the ledger, to repairs and to releases.

use locktender::core::{
    ledger::{Cause, Event},
    rollout::report::Activity,
};

use super::{
    checkout::{DEPLOYMENT, deployment},
    release::{Place, Release},
};

play!(
    a_revert_of_head_that_hits_a_record_changes_nothing,
    a_revert_of_everything_since_a_good_commit_is_a_revert_of_the_release,
    a_tree_restored_from_before_deletes_no_history,
    our_repair_reverted_tries_again_with_all_gates,
    a_release_reverted_while_it_runs_is_an_abort_without_a_repair,
    a_release_reverted_after_it_completed_skips_the_confirms,
    a_release_reverted_after_a_later_one_completed_is_a_new_revision,
    a_release_reverted_that_had_superseded_another_starts_that_one_anew,
);

async fn a_revert_of_head_that_hits_a_record_changes_nothing(place: Place) {
    let release = Release::at_batch_1(place).await;
    assert_eq!(release.remote.subjects()[0], "checkout 0002: batch-1 waiting for confirm");
    let before = release.seen("checkout").await.told(2);
    release.reverts("HEAD");
    let seen = release.until("checkout", "the copies are back", |seen| seen.has(2, Event::LedgerRestored)).await;
    assert_eq!(seen.told(2)[..before.len()], before);
    release.rest().await;
    let seen = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    assert_eq!(seen.told(2).len(), before.len() + 1, "{:?}", seen.told(2));
    release.confirm(2, "batch-1");
    release.stable(2, "2.0: 10").await;
}

async fn a_revert_of_everything_since_a_good_commit_is_a_revert_of_the_release(place: Place) {
    let release = Release::checkout(place).await;
    release.rest().await;
    let good = release.remote.rev("main");
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    release.confirm(2, "beta");
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    let everything = release.reverts(&format!("{good}..HEAD"));
    let left = release.remote.git(&["ls-tree", "-r", "--name-only", &everything]);
    assert!(!left.contains("rollouts/checkout/0002"), "the ledger of 0002 is gone with it:\n{left}");
    let seen = release.stable(2, "1.9: 10").await;
    assert_eq!(seen.last(2, Event::Aborting).unwrap().evidence.cause, Some(Cause::Revert));
    assert!(!seen.has(2, Event::Reverted) && !seen.has(2, Event::Held));
    release.set_tag("2.1");
    release.until("checkout", "numbers are not used twice", |seen| seen.waits(3, "beta")).await;
}

async fn a_tree_restored_from_before_deletes_no_history(place: Place) {
    let release = Release::checkout(place).await;
    let good = release.remote.rev("main~1");
    release.set_tag("2.0");
    let before = release.complete(2).await;
    release.commit("as it was before", |clone| {
        clone.git(&["rm", "-r", "--quiet", "."]);
        clone.git(&["checkout", "--quiet", &good, "--", "."]);
    });
    let seen = release.stable(3, "1.9: 10").await;
    assert_eq!(seen.told(2)[..before.told(2).len()], before.told(2), "what was recorded stays recorded");
    assert!(!seen.has(3, Event::StageWaiting), "a version that was stable lately asks for no confirm");
    assert!(release.remote.read("rollouts/checkout/0002/journal.yaml").is_some());
}

async fn our_repair_reverted_tries_again_with_all_gates(place: Place) {
    let release = Release::at_beta(place).await;
    release.decide(2, "abort", "");
    release.stable(2, "1.9: 10").await;
    assert_eq!(release.remote.read(DEPLOYMENT).unwrap(), deployment("checkout", "1.9").trim_end(), "Git is repaired");
    let repair = release.remote.git(&["log", "-1", "--format=%H", "--grep=back towards", "main"]);
    let message = release.remote.git(&["log", "-1", "--format=%B", &repair]);
    assert!(message.contains("Revert this commit to try again."), "{message}");
    release.reverts(&repair);
    release.waits(3, "beta", "1.9: 8, 2.0: 2").await;
    release.confirm(3, "beta");
    release.waits(3, "batch-1", "1.9: 4, 2.0: 6").await;
    release.confirm(3, "batch-1");
    release.stable(3, "2.0: 10").await;
}

async fn a_release_reverted_while_it_runs_is_an_abort_without_a_repair(place: Place) {
    let release = Release::checkout(place).await;
    let merged = release.set_tag("2.0");
    release.pass("beta", 2).await;
    let before = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await.identities();
    release.reverts(&merged);
    let seen = release.stable(2, "1.9: 10").await;
    assert_eq!(seen.identities(), before);
    assert_eq!(seen.told(2)[seen.told(2).len() - 2..], ["Aborting", "Aborted"]);
    assert_eq!(seen.last(2, Event::Aborting).unwrap().evidence.cause, Some(Cause::Revert));
    assert!(!release.remote.subjects().iter().any(|subject| subject.contains("back towards")), "no repair");
}

async fn a_release_reverted_after_it_completed_skips_the_confirms(place: Place) {
    let release = Release::checkout(place).await;
    let merged = release.set_tag("2.0");
    release.complete(2).await;
    release.reverts(&merged);
    let seen = release.stable(3, "1.9: 10").await;
    assert_eq!(
        seen.told(3),
        ["RolloutOpened", "StageStarted beta", "StageStarted batch-1", "StageStarted batch-2", "Completed batch-2"]
    );
}

async fn a_release_reverted_after_a_later_one_completed_is_a_new_revision(place: Place) {
    let release = Release::checkout(place).await;
    let merged = release.commit("a colour", |clone| {
        clone.replace(DEPLOYMENT, "      containers:", "      terminationGracePeriodSeconds: 5\n      containers:");
    });
    release.complete(2).await;
    release.set_tag("2.0");
    release.complete(3).await;
    release.reverts(&merged);
    release.until("checkout", "it has all its gates", |seen| seen.waits(4, "beta")).await;
    let seen = release.complete(4).await;
    assert_eq!(seen.pods(), "2.0: 10");
    assert!(seen.pods.iter().all(|pod| pod["spec"]["terminationGracePeriodSeconds"] != 5));
}

async fn a_release_reverted_that_had_superseded_another_starts_that_one_anew(place: Place) {
    let release = Release::at_batch_1(place).await;
    let newer = release.set_tag("2.1");
    release.until("checkout", "2.1 has superseded 2.0", |seen| seen.waits(3, "beta")).await;
    release.reverts(&newer);
    let seen = release.until("checkout", "2.0 starts anew", |seen| seen.waits(4, "beta")).await;
    assert_eq!(seen.told(2).last().unwrap(), "Superseded batch-1");
    assert_eq!(seen.told(3).last().unwrap(), "Superseded beta");
    assert!(!seen.has(3, Event::Aborting), "what HEAD renders is not stable");
    let seen = release.complete(4).await;
    assert_eq!((seen.pods().as_str(), seen.is(4, Activity::Stable)), ("2.0: 10", true));
}
