//! A renderer that is upgraded and renders the same files as other pods: they are replaced by a rollout, or not at all.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    checkout::{APP, APP_FILE},
    release::{Place, Release, Seen},
};

/// The pods that the later version of the renderer made: their names.
fn made_by_the_next(seen: &Seen) -> usize {
    seen.pods.iter().filter(|pod| pod["spec"]["containers"][0]["env"][0]["value"] == "next").count()
}

/// Version 1.9 runs; then the controller comes back with another renderer.
async fn upgraded(without_anchor: bool) -> Release {
    let kustomized = APP.replace("two-data-centers}", "two-data-centers, source: {path: ., kustomize: {}}}");
    let kustomization = "resources: [deployment.yaml, service.yaml]\n";
    let changes = [(APP_FILE, kustomized.as_str()), ("apps/checkout/kustomization.yaml", kustomization)];
    let mut release = Release::checkout_with(Place::Simulation, &changes).await;
    release.install().await;
    release.rest().await;
    release.kill().await;
    if without_anchor {
        let options = Default::default();
        let gone =
            release.cluster().with(|world| world.api.delete("configmaps", "shop", "locktender-checkout", options));
        gone.unwrap();
    }
    release.upgraded = true;
    release.start().await;
    release
}

async fn goes_through_its_stages(without_anchor: bool) {
    let release = upgraded(without_anchor).await;
    let seen = release.until("checkout", "its beta group waits", |seen| seen.waits(2, "beta")).await;
    assert_eq!((made_by_the_next(&seen), seen.pods.len()), (2, 10), "no pod is replaced but by its stage");
    release.rest().await;
    let seen = release.seen("checkout").await;
    assert_eq!((made_by_the_next(&seen), seen.pods.len()), (2, 10));
    assert_eq!(seen.told(2), ["RolloutOpened", "StageStarted beta", "StageWaiting beta"]);
    release.confirm(2, "beta");
    release.until("checkout", "batch-1 waits", |seen| seen.waits(2, "batch-1")).await;
    release.confirm(2, "batch-1");
    let seen = release.until("checkout", "all of it is there", |seen| seen.is(2, Activity::Stable)).await;
    assert_eq!((made_by_the_next(&seen), seen.pods.len()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn other_pods_from_the_same_files_are_a_rollout_of_their_own() {
    goes_through_its_stages(false).await;
}

#[tokio::test(start_paused = true)]
async fn other_pods_from_the_same_files_are_a_rollout_also_where_only_git_tells_what_was_released() {
    goes_through_its_stages(true).await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_leaves_the_pods_alone_that_the_older_renderer_made() {
    for without_anchor in [false, true] {
        let release = upgraded(without_anchor).await;
        let seen = release.until("checkout", "its beta group waits", |seen| seen.waits(2, "beta")).await;
        let kept: Vec<String> = seen.identities();
        release.decide(2, "abort", "");
        let seen = release.until("checkout", "it is back", |seen| seen.has(2, Event::Aborted)).await;
        assert_eq!(seen.pods(), "1.9: 10");
        let now = seen.identities();
        assert!(kept.iter().filter(|one| now.contains(one)).count() >= 8, "{kept:?} {now:?}");
        release.rest().await;
        let later = release.seen("checkout").await;
        assert_eq!(later.identities(), now, "at rest nothing moves");
    }
}
