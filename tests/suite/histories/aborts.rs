//! Aborts, what others merged meanwhile, and what is done about Git.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    checkout::{APP_FILE, DEPLOYMENT, POLICY_FILE, deployment},
    release::{Place, Release},
};

play!(
    an_abort_keeps_replicas_a_comment_and_a_policy_that_others_merged,
    an_abort_beside_another_image_repairs_nothing_and_the_image_runs_next,
    an_abort_that_conflicts_with_a_later_change_is_held,
    an_abort_of_a_first_install_is_held_and_deletes_nothing_from_git,
    a_refused_target_is_tried_again_by_retry,
);

async fn an_abort_keeps_replicas_a_comment_and_a_policy_that_others_merged(place: Place) {
    let release = Release::at_batch_1(place).await;
    let aborted: Vec<String> = release.seen("checkout").await.identities();
    release.commit("twelve, and why", |clone| {
        clone.replace(DEPLOYMENT, "replicas: 10", "replicas: 12");
        clone.replace(DEPLOYMENT, "# How many there are", "# Two more for Christmas. How many there are");
    });
    release.commit("smaller batches", |clone| {
        clone.replace(POLICY_FILE, "batchSize: 4", "batchSize: 3");
    });
    release.until("checkout", "twelve pods", |seen| seen.waits(2, "batch-1") && seen.pods.len() == 12).await;
    release.decide(2, "abort", "message: error rate\n");
    let seen = release.stable(2, "1.9: 12").await;
    let repaired = release.remote.read(DEPLOYMENT).unwrap();
    let wanted = deployment("checkout", "1.9")
        .replace("replicas: 10", "replicas: 12")
        .replace("# How many there are", "# Two more for Christmas. How many there are");
    assert_eq!(repaired, wanted.trim_end());
    assert!(release.remote.read(POLICY_FILE).unwrap().contains("batchSize: 3"));
    assert!(aborted.iter().all(|pod| seen.identities().contains(pod)), "every pod is kept");
    assert!(seen.has(2, Event::Reverted) && !seen.has(2, Event::Held));
    release.rest().await;
    let seen = release.stable(2, "1.9: 12").await;
    assert!(!seen.ledger.contains_key(&3));
}

async fn an_abort_beside_another_image_repairs_nothing_and_the_image_runs_next(place: Place) {
    let release = Release::at_batch_1(place).await;
    release.commit("abort 2.0, and the fix", |clone| {
        clone.write("rollouts/checkout/0002/abort.yaml", "");
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:2.1");
    });
    let seen = release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
    assert_eq!(seen.told(2)[seen.told(2).len() - 2..], ["Aborting", "Aborted"]);
    assert!(release.remote.read(DEPLOYMENT).unwrap().contains("checkout:2.1"));
    assert!(!release.remote.subjects().iter().any(|subject| subject.contains("back towards")), "no repair");
}

async fn an_abort_that_conflicts_with_a_later_change_is_held(place: Place) {
    let release = Release::at_batch_1(place).await;
    release.commit("a word about the image", |clone| {
        clone.replace(DEPLOYMENT, "checkout:2.0", "checkout:2.0 # seen by QA");
    });
    release.decide(2, "abort", "");
    let seen = release.held(2, "1.9: 10").await;
    assert!(seen.reasons().contains("it conflicts with later changes of apps/checkout/deployment.yaml"));
    assert!(seen.has(2, Event::Held) && !seen.has(2, Event::Reverted));
    assert!(release.remote.read(DEPLOYMENT).unwrap().contains("checkout:2.0 # seen by QA"), "Git is left as it is");
    release.set_tag("2.1");
    release.until("checkout", "a fix goes on", |seen| seen.waits(3, "beta")).await;
}

async fn an_abort_of_a_first_install_is_held_and_deletes_nothing_from_git(place: Place) {
    let release = Release::checkout_with(place, &[]).await;
    release.waits(1, "beta", "1.9: 2").await;
    release.decide(1, "abort", "");
    let seen = release.held(1, "").await;
    assert!(seen.reasons().contains("there is nothing to go back to in Git"), "{}", seen.reasons());
    assert!(release.remote.read(DEPLOYMENT).is_some() && release.remote.read(APP_FILE).is_some());
    let left = release.list("apis/apps/v1/deployments", "deployments.apps").await;
    assert!(left.is_empty(), "what was installed is removed: {left:?}");
    release.set_tag("1.10");
    release.waits(2, "beta", "1.10: 2").await;
}

async fn a_refused_target_is_tried_again_by_retry(place: Place) {
    let release = Release::checkout(place).await;
    release.commit("keep Git on abort", |clone| {
        clone.replace(POLICY_FILE, "  progressDeadlineSeconds: 600", "  onAbort: hold");
    });
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    release.decide(2, "abort", "");
    let seen = release.held(2, "1.9: 10").await;
    assert!(seen.reasons().contains("onAbort is hold"), "{}", seen.reasons());
    assert!(release.remote.read(DEPLOYMENT).unwrap().contains("checkout:2.0"), "Git is left alone");
    release.decide(2, "retry", "");
    let seen = release.waits(3, "beta", "1.9: 8, 2.0: 2").await;
    assert_eq!(seen.told(2).last().unwrap(), "Retried");
}

/// On the sandbox alone: hooks run on the real remote only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_the_remote_refuses_is_held() {
    let release = Release::at_beta(Place::Sandbox).await;
    let range = "while read old new ref; do git diff --name-only $old $new; done";
    release
        .remote
        .hook("pre-receive", &format!("if {range} | grep -q ^apps/; then echo 'apps/ is guarded'; exit 1; fi"));
    // The person is let through: the hook is not there yet for this push.
    std::fs::rename(release.remote.path().join("hooks/pre-receive"), release.remote.path().join("hooks/later"))
        .unwrap();
    release.decide(2, "abort", "");
    std::fs::rename(release.remote.path().join("hooks/later"), release.remote.path().join("hooks/pre-receive"))
        .unwrap();
    let seen = release.held(2, "1.9: 10").await;
    assert!(seen.reasons().contains("the remote refuses the push"), "{}", seen.reasons());
    assert!(seen.has(2, Event::Aborted) && seen.has(2, Event::Held));
    assert!(seen.is(2, Activity::Held));
}
