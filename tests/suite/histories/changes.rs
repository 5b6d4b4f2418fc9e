//! Changes of what is released while something runs, and of which applications there are.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    checkout::{APP, APP_FILE, DEPLOYMENT, POLICY, POLICY_FILE, SERVICE, SERVICE_FILE, deployment},
    release::{Place, Release},
};

play!(
    a_fix_merged_over_a_bad_release_runs,
    a_commit_of_replicas_alone_is_put_in_place_inside_the_rollout,
    an_application_that_is_removed_goes_after_a_confirm,
    an_application_that_is_renamed_hands_its_objects_over,
    a_rename_that_is_reverted_hands_them_back,
    one_that_is_renamed_and_changed_at_once_goes_through_its_stages,
    a_hand_over_that_is_aborted_goes_back_and_is_tried_again,
    a_head_that_does_not_render_holds_a_rollout_at_its_next_gate,
    going_back_works_while_head_does_not_render,
    a_shared_kustomize_base_that_changes_releases_all_that_use_it,
);

async fn a_fix_merged_over_a_bad_release_runs(place: Place) {
    let release = Release::checkout(place).await;
    release.set_tag("2.0-bad-image");
    let bad =
        |seen: &super::release::Seen| seen.is(2, Activity::Progressing) && seen.pods() == "1.9: 8, 2.0-bad-image: 2";
    release.until("checkout", "two pods are bad", bad).await;
    release.set_tag("2.1");
    let seen = release.waits(3, "beta", "1.9: 8, 2.1: 2").await;
    assert_eq!(seen.told(2), ["RolloutOpened", "StageStarted beta", "Superseded beta"]);
    let seen = release.complete(3).await;
    assert_eq!(seen.pods(), "2.1: 10");
}

async fn a_commit_of_replicas_alone_is_put_in_place_inside_the_rollout(place: Place) {
    let release = Release::at_batch_1(place).await;
    let before = release.seen("checkout").await;
    release.commit("twelve", |clone| {
        clone.replace(DEPLOYMENT, "replicas: 10", "replicas: 12");
    });
    let seen = release.until("checkout", "twelve", |seen| seen.waits(2, "batch-1") && seen.pods.len() == 12).await;
    assert_eq!(seen.versions()["2.0"], 6, "the frontier is where it was");
    assert!(before.identities().iter().all(|pod| seen.identities().contains(pod)));
    assert_eq!(seen.told(2)[before.told(2).len()..], ["Applied", "QuotaChanged batch-1"]);
    release.commit("eight", |clone| {
        clone.replace(DEPLOYMENT, "replicas: 12", "replicas: 8");
    });
    let seen = release.until("checkout", "eight", |seen| seen.waits(2, "batch-1") && seen.pods.len() == 8).await;
    assert_eq!(seen.versions()["2.0"], 6, "what was reached is not taken back");
    let seen = release.complete(2).await;
    assert_eq!(seen.pods(), "2.0: 8");
}

async fn an_application_that_is_removed_goes_after_a_confirm(place: Place) {
    let release = Release::checkout(place).await;
    let removal = release.commit("no checkout any more", |clone| {
        clone.remove("apps/checkout");
    });
    let seen = release.waits(2, "start", "1.9: 10").await;
    assert_eq!(seen.told(2), ["RolloutOpened", "StageStarted start", "StageWaiting start"]);
    release.confirm(2, "start");
    let seen = release.until("checkout", "it is gone", |seen| seen.has(2, Event::Completed)).await;
    assert!(seen.pods.is_empty());
    for (path, resource) in [("apis/apps/v1/deployments", "deployments.apps"), ("api/v1/services", "services")] {
        let mut left = release.list(path, resource).await;
        left.retain(|object| object["metadata"]["namespace"] == "shop");
        assert!(left.is_empty(), "{left:?}");
    }
    // It may come back, under the next number; it was stable lately.
    release.reverts(&removal);
    release.stable(3, "1.9: 10").await;
}

async fn an_application_that_is_renamed_hands_its_objects_over(place: Place) {
    let release = Release::checkout(place).await;
    let before = release.seen("checkout").await.identities();
    release.commit("checkout is called till", |clone| {
        clone.git(&["mv", "apps/checkout", "apps/till"]);
        clone.replace("apps/till/app.yaml", "name: checkout", "name: till");
    });
    let seen = release.until("till", "it is stable", |seen| seen.is(1, Activity::Stable)).await;
    assert_eq!(seen.identities(), before, "no pod is touched");
    release.rest().await;
    let seen = release.seen("till").await;
    assert_eq!(seen.identities(), before, "nor later");
    let old = release.seen("checkout").await;
    assert!(old.has(2, Event::Completed) && !old.has(2, Event::StageWaiting), "there is nothing to remove");
    let service = release.list("api/v1/services", "services").await;
    assert!(service.iter().any(|service| service["metadata"]["labels"]["locktender.dev/app"] == "till"));
    release.commit("till 2.0", |clone| {
        clone.replace("apps/till/deployment.yaml", "checkout:1.9", "checkout:2.0");
    });
    release.until("till", "2.0 waits", |seen| seen.waits(2, "beta") && seen.pods() == "1.9: 8, 2.0: 2").await;
}

async fn a_rename_that_is_reverted_hands_them_back(place: Place) {
    let release = Release::checkout(place).await;
    let before = release.seen("checkout").await.identities();
    let renamed = release.commit("checkout is called till", |clone| {
        clone.git(&["mv", "apps/checkout", "apps/till"]);
        clone.replace("apps/till/app.yaml", "name: checkout", "name: till");
    });
    release.until("till", "it is stable", |seen| seen.is(1, Activity::Stable)).await;
    release.until("checkout", "it is over", |seen| seen.has(2, Event::Completed)).await;
    // Whoever comes next must find out from Git what it was called.
    release.commit("nothing may begin", |clone| {
        clone.write(
            "freezes/all.yaml",
            "apiVersion: locktender.dev/v1alpha1\nkind: Freeze\nmetadata: {name: all}\nspec: {}\n",
        );
    });
    release.reverts(&renamed);
    release.rest().await;
    release.commit("it may again", |clone| {
        clone.remove("freezes/all.yaml");
    });
    let seen = release.until("checkout", "it is stable", |seen| seen.is(3, Activity::Stable)).await;
    assert_eq!(seen.identities(), before, "no pod is touched, and none is made beside them");
    release.rest().await;
    assert_eq!(release.seen("checkout").await.identities(), before);
}

/// Version 1.9 runs as checkout; then it is called till, and is 2.0, in one commit.
async fn renamed_and_changed(place: Place) -> (Release, Vec<String>) {
    let release = Release::checkout(place).await;
    let before = release.seen("checkout").await.identities();
    release.commit("checkout is called till, and is 2.0", |clone| {
        clone.git(&["mv", "apps/checkout", "apps/till"]);
        clone.replace("apps/till/app.yaml", "name: checkout", "name: till");
        clone.replace("apps/till/deployment.yaml", "checkout:1.9", "checkout:2.0");
    });
    let beta = |seen: &super::release::Seen| seen.waits(1, "beta") && seen.pods() == "1.9: 8, 2.0: 2";
    let seen = release.until("till", "its beta group waits", beta).await;
    assert_eq!(seen.identities(), before, "two are changed in place, and no other is touched");
    (release, before)
}

async fn one_that_is_renamed_and_changed_at_once_goes_through_its_stages(place: Place) {
    let (release, before) = renamed_and_changed(place).await;
    release.commit("go on", |clone| {
        clone.write("rollouts/till/0001/promote.yaml", "");
    });
    let seen = release.until("till", "it is stable", |seen| seen.is(1, Activity::Stable)).await;
    assert_eq!((seen.pods().as_str(), seen.identities()), ("2.0: 10", before));
    let old = release.seen("checkout").await;
    assert!(old.has(2, Event::Completed) && !old.has(2, Event::StageWaiting), "there is nothing to remove");
}

async fn a_hand_over_that_is_aborted_goes_back_and_is_tried_again(place: Place) {
    let (mut release, before) = renamed_and_changed(place).await;
    release.commit("not so", |clone| {
        clone.write("rollouts/till/0001/abort.yaml", "");
    });
    let back = |seen: &super::release::Seen| seen.is(1, Activity::Held) && seen.pods() == "1.9: 10";
    let seen = release.until("till", "it is back", back).await;
    assert_eq!(seen.identities(), before);
    release.kill().await;
    release.start().await;
    let seen = release.until("till", "it is held, also for who comes next", back).await;
    assert_eq!(seen.identities(), before);
    release.commit("once more", |clone| {
        clone.write("rollouts/till/0001/retry.yaml", "");
    });
    let beta = |seen: &super::release::Seen| seen.waits(2, "beta") && seen.pods() == "1.9: 8, 2.0: 2";
    let seen = release.until("till", "its beta group waits again", beta).await;
    assert_eq!(seen.identities(), before, "nothing is installed anew");
    release.commit("go on", |clone| {
        clone.write("rollouts/till/0002/promote.yaml", "");
    });
    let seen = release.until("till", "it is stable", |seen| seen.is(2, Activity::Stable)).await;
    assert_eq!((seen.pods().as_str(), seen.identities()), ("2.0: 10", before));
}

async fn a_head_that_does_not_render_holds_a_rollout_at_its_next_gate(place: Place) {
    let release = Release::at_beta(place).await;
    let broken = release.commit("a slip", |clone| {
        clone.replace(DEPLOYMENT, "spec:\n  #", "spec: [\n  #");
    });
    release.confirm(2, "beta");
    release.until("checkout", "it says so", |seen| seen.reasons().contains("HEAD cannot be used")).await;
    release.rest().await;
    let seen = release.seen("checkout").await;
    assert_eq!(seen.pods(), "1.9: 8, 2.0: 2");
    assert!(!seen.has(2, Event::ConfirmAccepted));
    assert!(seen.reasons().contains("apps/checkout/deployment.yaml:"), "{}", seen.reasons());
    release.reverts(&broken);
    release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
}

async fn going_back_works_while_head_does_not_render(place: Place) {
    let release = Release::at_batch_1(place).await;
    release.commit("a slip", |clone| {
        clone.replace(DEPLOYMENT, "spec:\n  #", "spec: [\n  #");
    });
    release.decide(2, "abort", "");
    let seen = release.until("checkout", "it is back", |seen| seen.has(2, Event::Aborted)).await;
    assert_eq!(seen.pods(), "1.9: 10");
    assert!(seen.has(2, Event::Held) && !seen.has(2, Event::Reverted));
}

const BASE: &str = "shared/deployment.yaml";

async fn a_shared_kustomize_base_that_changes_releases_all_that_use_it(place: Place) {
    let (one, two) = ("apps/one/kustomization.yaml", "apps/two/kustomization.yaml");
    let app = |name: &str| {
        APP.replace("name: checkout", &format!("name: {name}")).replace(
            "{namespace: shop, policy: two-data-centers}",
            &format!("{{namespace: {name}, policy: two-data-centers, source: {{path: ., kustomize: {{}}}}}}"),
        )
    };
    let base = deployment("checkout", "1.9").replace("replicas: 10", "replicas: 2");
    let overlay = "resources: [../../shared]\n";
    let files = [
        (POLICY_FILE, POLICY),
        ("apps/one/app.yaml", &app("one")),
        (one, overlay),
        ("apps/two/app.yaml", &app("two")),
        (two, overlay),
        ("shared/kustomization.yaml", "resources: [deployment.yaml]\n"),
        (BASE, &base),
        (APP_FILE, APP),
        (DEPLOYMENT, &deployment("checkout", "1.9")),
        (SERVICE_FILE, SERVICE),
    ];
    let release = Release::new(place, &files).await;
    for app in ["one", "two"] {
        release.until(app, "installed", |seen| seen.is(1, Activity::Stable)).await;
    }
    release.install().await;
    release.commit("the base goes to 2.0", |clone| {
        clone.replace(BASE, "checkout:1.9", "checkout:2.0");
    });
    for app in ["one", "two"] {
        let seen = release.until(app, "released", |seen| seen.is(2, Activity::Stable)).await;
        let mine: Vec<_> = seen.pods.iter().filter(|pod| pod["metadata"]["namespace"] == app).collect();
        assert_eq!(mine.len(), 2);
        assert!(mine.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "registry.example/checkout:2.0"));
    }
    assert_eq!(release.ledger("checkout").len(), 1, "who does not use it is not released");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_not_what_git_says_is_held_and_nothing_of_its_application_is_touched() {
    let release = Release::new(Place::Simulation, &[(POLICY_FILE, POLICY)]).await;
    let there = |text: &str| {
        let files = [("there.yaml".to_owned(), bytes::Bytes::copy_from_slice(text.as_bytes()))].into();
        let mut objects = locktender::core::manifest::parse(&files, "shop", |_| None).unwrap();
        let object = objects.remove(0).object.0;
        release.cluster().with(|world| world.api.create(object).unwrap());
    };
    there("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    there(&deployment("checkout", "1.9"));
    there(SERVICE);
    release.rest().await;
    let objects = || {
        release.cluster().with(|world| {
            let kinds = ["deployments.apps", "replicasets.apps", "services", "pods"];
            kinds.map(|kind| world.api.list(kind).map(|object| object["metadata"]["resourceVersion"].clone()).collect())
        })
    };
    let before: [Vec<_>; 4] = objects();
    assert_eq!(before.each_ref().map(Vec::len), [1, 1, 1, 10]);
    release.commit("checkout, with a policy", |clone| {
        clone.write_all(&[(APP_FILE, APP), (DEPLOYMENT, &deployment("checkout", "2.0")), (SERVICE_FILE, SERVICE)]);
    });
    let held = release.until("checkout", "it is held", |seen| seen.reasons().contains("runs already")).await;
    assert!(held.ledger.is_empty(), "nothing is opened");
    assert!(held.reasons().contains("image"), "{}", held.reasons());
    release.rest().await;
    assert_eq!(objects(), before, "its Service selects what it selected");

    release.commit("what runs first", |clone| {
        clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
    });
    // Pods that must go to the other unit ask for a confirm first.
    let begun = |seen: &super::release::Seen| seen.is(1, Activity::Waiting) || seen.is(1, Activity::Stable);
    if release.until("checkout", "it is taken over", begun).await.is(1, Activity::Waiting) {
        release.decide(1, "promote", "");
    }
    release.stable(1, "1.9: 10").await;
}

#[tokio::test(start_paused = true)]
async fn a_stable_that_the_api_server_refuses_keeps_nobody_from_going_on() {
    let release = Release::new(Place::Simulation, &[(APP_FILE, &APP.replace(", policy: two-data-centers", ""))]).await;
    release.commit("checkout", |clone| {
        clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
    });
    release.until("checkout", "it is there", |seen| seen.is(1, Activity::Stable) && seen.pods() == "1.9: 10").await;
    release.commit("a slip that only the API server knows", |clone| {
        clone.replace(DEPLOYMENT, "  replicas: 10", "  replicas: 10\n  revisionHistoryLimit: -1");
    });
    let refused = |seen: &super::release::Seen| seen.reasons().contains("must be greater than or equal to 0");
    release.until("checkout", "it says so", |seen| seen.is(1, Activity::Stable) && refused(seen)).await;
    let gone = release.commit("no checkout", |clone| {
        clone.remove("apps/checkout");
    });
    release.waits(2, "start", "1.9: 10").await;
    release.reverts(&gone);
    let seen = release.until("checkout", "it is back", |seen| seen.has(2, Event::Aborted)).await;
    let why = &seen.last(2, Event::Aborted).unwrap().why;
    assert!(why.contains("but for what the API server refuses: Deployment/checkout: "), "{why}");
    release.commit("put right", |clone| {
        clone.replace(DEPLOYMENT, "  revisionHistoryLimit: -1\n", "");
        clone.replace(DEPLOYMENT, "checkout:1.9", "checkout:2.0");
    });
    release.until("checkout", "2.0 runs", |seen| seen.is(3, Activity::Stable) && seen.pods() == "2.0: 10").await;
}
