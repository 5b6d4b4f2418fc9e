//! Merges, squashes and branches that were opened earlier.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    checkout::{DEPLOYMENT, SERVICE_FILE},
    release::{Place, Release, Seen},
};

play!(
    a_pull_that_makes_a_persons_commit_the_first_parent_loses_no_record,
    a_confirm_on_a_branch_opened_before_the_stage_waited_counts_when_merged_after,
    a_squash_with_a_confirm_and_another_image_is_a_new_revision_and_answers_the_confirm,
    a_squash_with_a_promote_and_another_image_is_a_new_revision_and_answers_the_promote,
    a_confirm_that_comes_with_the_revert_of_its_release_is_answered,
    a_confirm_that_comes_with_an_abort_is_answered,
    a_squash_with_a_confirm_and_other_replicas_does_both,
    two_commits_within_one_poll_are_one_rollout_to_the_newer,
    a_change_and_its_revert_within_one_poll_are_nothing,
);

async fn a_pull_that_makes_a_persons_commit_the_first_parent_loses_no_record(place: Place) {
    let release = Release::checkout(place).await;
    let grace = release.person("Grace");
    release.set_tag("2.0");
    let before = release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    grace.write("docs/notes.md", "unrelated\n");
    let own = grace.commit("notes");
    grace.pull();
    while grace.try_push().is_err() {
        grace.git(&["reset", "--quiet", "--hard", &own]);
        grace.pull();
    }
    assert_eq!(release.remote.rev("main^1"), own, "our records are on the second parent only");
    release.rest().await;
    let seen = release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    assert_eq!(seen.told(2), before.told(2), "nothing is recorded twice, nothing is lost");
    let done = release.complete(2).await;
    assert_eq!(done.pods(), "2.0: 10");
}

async fn a_confirm_on_a_branch_opened_before_the_stage_waited_counts_when_merged_after(place: Place) {
    let release = Release::checkout(place).await;
    let grace = release.person("Grace");
    grace.git(&["switch", "--quiet", "-c", "go-on"]);
    grace.write("rollouts/checkout/0002/confirm/beta.yaml", "message: prepared\n");
    grace.commit("go on after beta");
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    let branch = grace.path().display().to_string();
    release.pushes("Grace", |clone| {
        clone.git(&["fetch", "--quiet", &branch, "go-on:go-on"]);
        clone.git(&["merge", "--quiet", "--no-ff", "-m", "Merge go-on", "go-on"]);
    });
    let seen = release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    assert!(seen.has(2, Event::ConfirmAccepted));
    assert!(!seen.has(2, Event::DecisionRejected));
}

async fn a_squash_with_a_confirm_and_another_image_is_a_new_revision_and_answers_the_confirm(place: Place) {
    let release = Release::at_beta(place).await;
    release.commit("squash: go on, and 2.1", |clone| {
        clone.write("rollouts/checkout/0002/confirm/beta.yaml", "");
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:2.1");
    });
    let seen = release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
    assert_eq!(
        seen.told(2),
        ["RolloutOpened", "StageStarted beta", "StageWaiting beta", "DecisionRejected", "Superseded beta"],
        "the new revision is not carried by a confirm of the one before"
    );
    assert!(answer(&seen, "confirm/beta.yaml").contains("decides nothing any more: "), "{}", seen.reasons());
    assert!(answer(&seen, "confirm/beta.yaml").ends_with(" is newer: 1.9 → 2.1"));
    let done = release.complete(3).await;
    assert_eq!(done.pods(), "2.1: 10");
    assert_eq!((done.count(2, Event::DecisionRejected), done.has(3, Event::DecisionRejected)), (1, false), "once");
}

/// What the second rollout's journal answers to a decision.
fn answer<'a>(seen: &'a Seen, path: &str) -> &'a str {
    let rejected = seen.last(2, Event::DecisionRejected).expect("it is answered where it belongs");
    assert_eq!(rejected.evidence.decision.as_ref().map(|file| file.path.as_str()), Some(path));
    &rejected.why
}

async fn a_squash_with_a_promote_and_another_image_is_a_new_revision_and_answers_the_promote(place: Place) {
    let release = Release::at_beta(place).await;
    release.commit("squash: all of it, and 2.1", |clone| {
        clone.write("rollouts/checkout/0002/promote.yaml", "");
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:2.1");
    });
    let seen = release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
    assert!(answer(&seen, "promote.yaml").ends_with(" is newer: 1.9 → 2.1"), "{}", answer(&seen, "promote.yaml"));
    assert!(!seen.has(2, Event::Promoted));
}

async fn a_confirm_that_comes_with_the_revert_of_its_release_is_answered(place: Place) {
    let release = Release::at_beta(place).await;
    release.commit("squash: go on, no, go back", |clone| {
        clone.write("rollouts/checkout/0002/confirm/beta.yaml", "");
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:1.9");
    });
    let seen = release.stable(2, "1.9: 10").await;
    assert_eq!(seen.told(2)[seen.told(2).len() - 3..], ["DecisionRejected", "Aborting", "Aborted"]);
    assert!(answer(&seen, "confirm/beta.yaml").ends_with("the release was reverted"));
}

async fn a_confirm_that_comes_with_an_abort_is_answered(place: Place) {
    let release = Release::at_beta(place).await;
    release.commit("go on? go back", |clone| {
        clone.write("rollouts/checkout/0002/confirm/beta.yaml", "");
        clone.write("rollouts/checkout/0002/abort.yaml", "message: it is slow\n");
    });
    let seen = release.stable(2, "1.9: 10").await;
    assert!(answer(&seen, "confirm/beta.yaml").ends_with("decides nothing any more: abort.yaml: it is slow"));
    assert_eq!(seen.count(2, Event::DecisionRejected), 1, "what is followed is answered by what it does");
}

async fn a_squash_with_a_confirm_and_other_replicas_does_both(place: Place) {
    let release = Release::at_beta(place).await;
    release.commit("squash: go on, with twelve", |clone| {
        clone.write("rollouts/checkout/0002/confirm/beta.yaml", "");
        clone.replace(DEPLOYMENT, "replicas: 10", "replicas: 12");
    });
    let seen =
        release.until("checkout", "batch-1 waits", |seen| seen.waits(2, "batch-1") && seen.pods.len() == 12).await;
    assert!(seen.has(2, Event::Applied) && seen.has(2, Event::QuotaChanged) && seen.has(2, Event::ConfirmAccepted));
    assert_eq!(seen.versions()["2.0"], 6);
    let done = release.complete(2).await;
    assert_eq!(done.pods(), "2.0: 12");
}

async fn two_commits_within_one_poll_are_one_rollout_to_the_newer(place: Place) {
    let release = Release::checkout(place).await;
    release.pushes("Ada", |clone| {
        clone.replace(DEPLOYMENT, "checkout:1.9", "checkout:2.0");
        clone.commit("checkout 2.0");
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:2.1");
        clone.commit("checkout 2.1");
    });
    let seen = release.waits(2, "beta", "1.9: 8, 2.1: 2").await;
    assert!(!seen.ledger.contains_key(&3));
}

async fn a_change_and_its_revert_within_one_poll_are_nothing(place: Place) {
    let release = Release::checkout(place).await;
    release.pushes("Ada", |clone| {
        clone.replace(DEPLOYMENT, "checkout:1.9", "checkout:2.0");
        clone.commit("checkout 2.0");
        clone.git(&["revert", "--no-edit", "HEAD"]);
    });
    release.rest().await;
    let seen = release.seen("checkout").await;
    assert!(seen.is(1, Activity::Stable), "{}", seen.reasons());
    assert_eq!((seen.pods().as_str(), seen.ledger.len()), ("1.9: 10", 1));
    assert_eq!(release.remote.subjects()[0], "Revert \"checkout 2.0\"", "nothing is recorded");
    let _ = SERVICE_FILE;
}
