//! Everything that a rollout can go through.

use std::time::Duration;

use locktender::{
    core::{ledger::Event, rollout::report::Activity},
    sandbox::faults::{Fault, Target},
};

use super::*;
use crate::histories::release::Seen;

#[tokio::test(start_paused = true)]
async fn a_change_of_configuration_alone_goes_through_the_same_batches() {
    let reads = "volumes: [{name: settings, configMap: {name: settings}}]";
    let settings = |colour: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {colour}}}\n")
    };
    let (policy, app, manifest) = (policy("", ""), app(""), deployment(10, "1.9", reads));
    let file = "apps/checkout/settings.yaml";
    let files = [(POLICY_FILE, policy.as_str()), (APP_FILE, &app), (DEPLOYMENT, &manifest), (file, &settings("blue"))];
    let mut told = Transcript::of("checkout", &files).await;
    told.complete(1).await;
    told.forget();
    told.person("green", |clone| {
        clone.write(file, &settings("green"));
    });
    told.waits(2, "beta").await;
    let maps = async |told: &Transcript| {
        let maps = told.release.list("api/v1/configmaps", "configmaps").await;
        let ours = maps.iter().filter(|map| map["metadata"]["namespace"] == "shop");
        let mut colours: Vec<String> =
            ours.filter_map(|map| Some(map["data"]["colour"].as_str()?.to_owned())).collect();
        colours.sort();
        colours
    };
    assert_eq!(maps(&told).await, ["blue", "green"], "each version has its own");
    told.complete(2).await;
    told.release.rest().await;
    assert_eq!(maps(&told).await, ["green"], "the old one went with the last pod that read it");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_in_place_recreates_pods_in_their_units() {
    let mut told = installed(&policy("", "")).await;
    let before = told.release.seen("checkout").await.identities();
    told.person("a shorter farewell", |clone| {
        clone.write(DEPLOYMENT, &deployment(10, "1.9", "terminationGracePeriodSeconds: 5"));
    });
    let seen = told.complete(2).await;
    assert!(before.iter().all(|pod| !seen.identities().contains(pod)));
    assert_eq!(seen.units().into_values().collect::<Vec<_>>(), [5, 5]);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn in_one_unit_the_handle_lets_go_and_takes_back_and_no_pod_restarts_for_it() {
    let one = policy("", "")
        .lines()
        .filter(|line| !line.contains("topology"))
        .fold(String::new(), |text, line| text + line + "\n");
    let mut told = installed(&one).await;
    let handle = async |told: &Transcript| {
        let handle = told.release.get(HANDLE, "deployments.apps").await.unwrap();
        (handle["spec"]["paused"] == true, handle["status"]["readyReplicas"].as_u64().unwrap_or(0))
    };
    told.release.rest().await;
    assert_eq!(handle(&told).await, (false, 10), "at rest it is a Deployment like any other");
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    told.waits(2, "beta").await;
    assert!(handle(&told).await.0, "while we stage it owns nothing");
    let seen = told.complete(2).await;
    told.release.rest().await;
    assert_eq!(handle(&told).await, (false, 10));
    assert_eq!(seen.identities(), before);
    let restarts: Vec<_> =
        seen.pods.iter().map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].clone()).collect();
    assert!(restarts.iter().all(|count| *count == 1), "once for the image: {restarts:?}");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_supersedes() {
    let mut told = installed(&policy("", "")).await;
    told.merge("2.0");
    told.waits(2, "beta").await;
    told.merge("2.1");
    told.waits(3, "beta").await;
    told.complete(3).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_is_queued_and_only_the_newest_runs() {
    let mut told = installed(&policy("onNewRevision: queue", "")).await;
    told.merge("2.0");
    told.waits(2, "beta").await;
    told.merge("2.1");
    told.merge("2.2");
    told.release.rest().await;
    told.waits(2, "beta").await;
    told.decide(2, "promote", "");
    told.waits(3, "beta").await;
    told.complete(3).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_and_its_removal_goes_on() {
    let mut told = installed(&policy("", "confirm: none")).await;
    told.person("merge 2.0, paused", |clone| {
        clone.write("rollouts/checkout/0002/pause.yaml", "");
        clone.write(DEPLOYMENT, &deployment(10, "2.0", ""));
    });
    let paused = |seen: &Seen| seen.is(2, Activity::Paused) && seen.pods() == "1.9: 8, 2.0: 2";
    told.until("it is paused", paused).await;
    told.release.rest().await;
    told.until("it is paused", paused).await;
    told.person("go on", |clone| {
        clone.remove("rollouts/checkout/0002/pause.yaml");
    });
    told.stable(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_stopped_goes_on_by_retry() {
    let mut told = installed(&policy("onFailure: stop\nprogressDeadlineSeconds: 30", "")).await;
    told.note("2.0 cannot be pulled");
    let fault = {
        let mut id = None;
        told.release.faults(|faults| id = Some(faults.add(Target::image("*:2.0"), Fault::BadImage)));
        id.unwrap()
    };
    told.merge("2.0");
    told.until("it stops", |seen| seen.is(2, Activity::Stopped) && seen.has(2, Event::Stopped)).await;
    told.note("2.0 can be pulled");
    told.release.faults(|faults| faults.remove(fault));
    told.decide(2, "retry", "");
    told.waits(2, "beta").await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_no_progress_until_the_deadline_aborts_and_repairs() {
    let mut told = installed(&policy("progressDeadlineSeconds: 60", "")).await;
    told.merge("2.0-crash");
    told.stable(2).await;
    assert_eq!(told.release.remote.read(DEPLOYMENT).unwrap(), deployment(10, "1.9", "").trim_end());
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn on_abort_hold_leaves_git_alone_until_retry() {
    let mut told = installed(&policy("onAbort: hold", "")).await;
    told.merge("2.0");
    told.waits(2, "beta").await;
    told.decide(2, "abort", "message: not today\n");
    told.held(2).await;
    told.decide(2, "retry", "");
    told.waits(3, "beta").await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn going_back_to_what_was_stable_skips_the_confirms() {
    let mut told = installed(&policy("", "")).await;
    told.merge("2.0");
    told.complete(2).await;
    told.merge("1.9");
    told.stable(3).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn going_back_runs_the_stages_where_the_policy_says_so() {
    let mut told = installed(&policy("rollback: {stages: run}", "")).await;
    told.merge("2.0");
    told.complete(2).await;
    told.merge("1.9");
    told.waits(3, "beta").await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_pod_leaves_its_slow_load_balancer_before_it_changes() {
    let service = "\
apiVersion: v1
kind: Service
metadata: {name: checkout, labels: {locktender.dev/sandbox-lb: \"true\"}}
spec: {selector: {app: checkout}, ports: [{port: 80, targetPort: 8080}]}
";
    let graceful = "graceful: {gracePeriodSeconds: 3, finalizers: [slb.example.com/protected]}";
    let (policy, app, manifest) = (policy("", graceful), app(""), deployment(10, "1.9", ""));
    let files = [
        (POLICY_FILE, policy.as_str()),
        (APP_FILE, &app),
        (DEPLOYMENT, &manifest),
        ("apps/checkout/service.yaml", service),
    ];
    let mut told = Transcript::of("checkout", &files).await;
    told.complete(1).await;
    told.forget();
    told.note("the load balancer's controller is dead");
    told.release.faults(|faults| faults.set_load_balancer_dead(true));
    told.merge("2.0");
    told.until("pods leave", |seen| seen.reasons().contains("leaves service")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seen = told.release.seen("checkout").await;
    assert_eq!(seen.pods(), "1.9: 10", "no pod is changed while requests may come");
    told.note(&format!(
        "after a minute: {}",
        seen.reasons().lines().next().unwrap_or_default().split(": ").last().unwrap()
    ));
    told.note("it is back");
    told.release.faults(|faults| faults.set_load_balancer_dead(false));
    let seen = told.complete(2).await;
    let protected = |pod: &serde_json::Value| pod["metadata"]["finalizers"][0] == "slb.example.com/protected";
    assert!(seen.pods.iter().all(|pod| protected(pod)), "every pod is back in it");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_change_without_stages_is_put_in_place_also_where_drift_is_only_reported() {
    let mut told = installed(&policy("drift: report", "")).await;
    told.person("twelve", |clone| {
        clone.replace(DEPLOYMENT, "replicas: 10", "replicas: 12");
    });
    told.until("twelve", |seen| seen.pods.len() == 12 && seen.is(1, Activity::Stable)).await;
    told.note("somebody scales it to three");
    told.release.change(HANDLE, "deployments.apps", |handle| handle["spec"]["replicas"] = 3.into()).await;
    told.until("it is reported", |seen| seen.reasons().contains("drifted: Deployment/checkout")).await;
    told.release.rest().await;
    let seen = told.until("it is reported", |seen| seen.reasons().contains("drifted: Deployment/checkout")).await;
    assert_eq!(seen.pods.len(), 12, "Git's number holds for the pods");
    told!(told);
}
