//! The blue-green strategy: the new version in full beside the old one, then a switch.

use std::time::Duration;

use locktender::core::{ledger::Event, rollout::report::Activity};
use serde_json::Value;

use super::*;
use crate::histories::release::Seen;

/// A blue-green policy under the name that the application's file asks for.
pub fn blue_green(fields: &str) -> String {
    let mut text = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  metrics:
    success-rate: {web: {url: 'http://127.0.0.1/rate'}, successCondition: value >= 0.99, interval: 10s, count: 3, failureLimit: 1}
  strategy:
    blueGreen:
"
    .to_owned();
    fields.lines().for_each(|line| text += &format!("      {line}\n"));
    text
}

pub fn with_service(tag: &str) -> String {
    format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: checkout}}\nspec:\n  selector: {{app: checkout}}\n  \
         ports: [{{port: 80, targetPort: 8080}}]\n",
        deployment(4, tag, "")
    )
}

const WATCHED: &str = "watch: {duration: 2m}\nscaleDownDelaySeconds: 30\nminReadySeconds: 5";

/// Four at 1.9 are installed, without asking anybody.
async fn four(fields: &str) -> Transcript {
    let mut told = checkout(&blue_green(fields), &with_service("1.9")).await;
    let seen = told.stable(1).await;
    assert_eq!(seen.pods(), "1.9: 4");
    assert_eq!(called(&told, "checkout").await, "1.9: 4");
    told.forget();
    told
}

/// Tells the versions of the pods that a Service's EndpointSlices name: `1.9: 4`.
async fn called(told: &Transcript, service: &str) -> String {
    let slices = told.release.list("apis/discovery.k8s.io/v1/endpointslices", "endpointslices.discovery.k8s.io").await;
    let pods = told.release.seen("checkout").await.pods;
    let of_it = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    let endpoints = of_it.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let mut versions = std::collections::BTreeMap::new();
    for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
        let named = pods.iter().find(|pod| pod["metadata"]["uid"] == endpoint["targetRef"]["uid"]);
        let image = named.and_then(|pod| pod["spec"]["containers"][0]["image"].as_str()).unwrap_or(":gone");
        *versions.entry(image.rsplit(':').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    versions.iter().map(|(tag, count)| format!("{tag}: {count}")).collect::<Vec<_>>().join(", ")
}

/// Tells where requests go.
async fn requests(told: &mut Transcript) {
    let (all, preview) = (called(told, "checkout").await, called(told, "checkout-preview").await);
    let preview = if preview.is_empty() { "nobody".to_owned() } else { preview };
    told.note(&format!("requests go to {all}; those to look at it to {preview}"));
}

/// Waits until the rollout waits, for a person or for time.
async fn waits(told: &mut Transcript, number: u32, stage: &str) -> Seen {
    let at = |seen: &Seen| {
        seen.is(number, Activity::Waiting)
            && seen.report.as_ref().and_then(|report| report.stage.as_ref()).is_some_and(|name| name.as_str() == stage)
    };
    told.until(&format!("{number} waits at {stage}"), at).await
}

/// Whether a Service is as Git says, selecting every version.
async fn is_wide(told: &Transcript) -> bool {
    let path = "api/v1/namespaces/shop/services/checkout";
    let service = told.release.get(path, "services").await.unwrap();
    service["spec"]["selector"]["locktender.dev/digest"] == Value::Null
}

async fn has_preview(told: &Transcript) -> bool {
    told.release.get("api/v1/namespaces/shop/services/checkout-preview", "services").await.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_looked_at_confirmed_watched_and_cleaned_up_with_a_restart_in_the_middle() {
    let mut told = four(WATCHED).await;
    let old = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    let seen = waits(&mut told, 2, "preview").await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 4");
    requests(&mut told).await;
    told.restart().await;
    told.decide(2, "confirm/preview", "");
    let seen = waits(&mut told, 2, "switch").await;
    requests(&mut told).await;
    assert!(old.iter().all(|pod| seen.identities().contains(pod)), "the old side is left as it is");
    told.restart().await;
    let seen = told.stable(2).await;
    assert_eq!(seen.pods(), "2.0: 4");
    requests(&mut told).await;
    assert!(is_wide(&told).await && !has_preview(&told).await, "nothing is left of the switch");
    let time = |event, stage: &str| {
        let named =
            |name: &Option<locktender::core::names::StageName>| name.as_ref().is_some_and(|it| it.as_str() == stage);
        seen.ledger[&2].iter().find(|one| one.event == event && named(&one.stage)).unwrap().time
    };
    let stayed = time(Event::Completed, "finish").duration_since(time(Event::StageStarted, "switch"));
    assert!(stayed.as_secs() >= 120, "watched for two minutes, and the delay had passed meanwhile: {stayed:?}");
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_the_old_side_stays_for_its_delay() {
    let mut told = four("confirm: none\nscaleDownDelaySeconds: 60").await;
    told.merge("2.0");
    let seen = told.until("switched", |seen| seen.reasons().contains("the old pods stay until")).await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 4");
    requests(&mut told).await;
    let seen = told.stable(2).await;
    let started = seen.all(2, Event::StageStarted).len();
    assert_eq!((seen.pods().as_str(), started), ("2.0: 4", 2));
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_preview_may_be_smaller_until_it_is_confirmed() {
    let mut told = four("previewReplicas: 1\nscaleDownDelaySeconds: 0").await;
    told.merge("2.0");
    let seen = waits(&mut told, 2, "preview").await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 1");
    requests(&mut told).await;
    told.complete(2).await;
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_before_the_switch_takes_only_the_new_side_away() {
    let mut told = four(WATCHED).await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    waits(&mut told, 2, "preview").await;
    told.decide(2, "abort", "message: it looks wrong");
    let seen = told.stable(2).await;
    assert_eq!(seen.identities(), before, "no old pod was touched");
    assert!(is_wide(&told).await && !has_preview(&told).await);
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_the_switch_sends_requests_back_at_once() {
    let mut told = four(WATCHED).await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0");
    waits(&mut told, 2, "preview").await;
    told.decide(2, "confirm/preview", "");
    waits(&mut told, 2, "switch").await;
    requests(&mut told).await;
    told.decide(2, "abort", "message: slower than before");
    let began = tokio::time::Instant::now();
    while called(&told, "checkout").await != "1.9: 4" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let seen = told.stable(2).await;
    assert_eq!(seen.identities(), before, "no old pod was touched");
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_taken_back_after_the_switch_sends_requests_back_and_keeps_both_sides() {
    let mut told = four(WATCHED).await;
    told.merge("2.0");
    waits(&mut told, 2, "preview").await;
    told.decide(2, "confirm/preview", "");
    waits(&mut told, 2, "switch").await;
    requests(&mut told).await;
    told.person("take the confirm back", |clone| {
        clone.remove("rollouts/checkout/0002/confirm/preview.yaml");
    });
    let seen = told.until("it waits again", |seen| seen.waits(2, "preview")).await;
    assert_eq!(seen.pods(), "1.9: 4, 2.0: 4");
    requests(&mut told).await;
    told.decide(2, "confirm/preview", "message: again");
    told.stable(2).await;
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_a_version_that_is_never_ready_is_never_switched_to() {
    let mut told = four(WATCHED).await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0-never-ready");
    loop {
        let seen = told.release.seen("checkout").await;
        assert_eq!(called(&told, "checkout").await, "1.9: 4");
        if seen.has(2, Event::Aborted) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let seen = told.stable(2).await;
    assert_eq!(seen.identities(), before);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn fault_66_a_version_that_says_it_is_not_well_is_never_switched_to() {
    let fields = "healthCheck: {path: /health, port: 8080, expect: {healthy: true}}\nwatch: {duration: 1m}";
    let mut told = four(fields).await;
    let before = told.release.seen("checkout").await.identities();
    told.merge("2.0-sick");
    told.until("it is told", |seen| seen.reasons().contains("0 of 4 healthy")).await;
    loop {
        let seen = told.release.seen("checkout").await;
        assert_eq!(called(&told, "checkout").await, "1.9: 4");
        if seen.has(2, Event::Aborted) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let seen = told.stable(2).await;
    assert_eq!(seen.identities(), before);
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_well_until_it_gets_requests_is_switched_back_by_its_numbers() {
    let mut told = four("confirm: none\nwatch: {duration: 2m, metrics: [success-rate]}").await;
    // The numbers are the simulation's.
    let Some(outside) = told.release.outside.clone() else { return };
    let before = told.release.seen("checkout").await.identities();
    told.note("measured from here on: 0.4");
    outside.measures(|_| 0.4);
    told.merge("2.0");
    waits(&mut told, 2, "switch").await;
    requests(&mut told).await;
    let seen = told.stable(2).await;
    assert_eq!(seen.identities(), before, "no old pod was touched");
    assert!(is_wide(&told).await && !has_preview(&told).await);
    requests(&mut told).await;
    told.note("measured from here on: 0.999");
    outside.measures(|_| 0.999);
    told.merge("2.1");
    told.stable(3).await;
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_after_the_switch_sends_requests_back_first() {
    let mut told = four(WATCHED).await;
    told.merge("2.0");
    waits(&mut told, 2, "preview").await;
    told.decide(2, "confirm/preview", "");
    waits(&mut told, 2, "switch").await;
    told.merge("2.1");
    let seen = waits(&mut told, 3, "preview").await;
    assert_eq!(seen.pods(), "1.9: 4, 2.1: 4");
    requests(&mut told).await;
    told.decide(3, "confirm/preview", "");
    told.stable(3).await;
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn going_back_to_what_was_stable_asks_nobody_and_still_switches_only_to_what_is_ready() {
    let mut told = four("scaleDownDelaySeconds: 5").await;
    told.merge("2.0");
    told.complete(2).await;
    told.forget();
    told.merge("1.9");
    let seen = told.stable(3).await;
    assert_eq!(seen.pods(), "1.9: 4");
    requests(&mut told).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_service_of_several_workloads_cannot_be_switched() {
    let part = |name: &str| {
        let labels = format!("{{app: checkout, part: {name}}}");
        deployment(1, "1.9", "")
            .replace("{app: checkout}", &labels)
            .replace("{name: checkout}", &format!("{{name: {name}}}"))
    };
    let service = with_service("1.9").split_once("---").unwrap().1.to_owned();
    let both = format!("{}---\n{}---{service}", part("first"), part("second"));
    let mut told = checkout(&blue_green(WATCHED), &both).await;
    told.stable(1).await;
    told.person("merge 2.0", |clone| {
        clone.write(DEPLOYMENT, &both.replace("checkout:1.9", "checkout:2.0"));
    });
    let seen = told.until("it is refused", |seen| seen.reasons().contains("only one workload's versions")).await;
    assert_eq!(seen.pods(), "1.9: 2");
    assert_eq!(seen.ledger.len(), 1, "nothing is opened");
}
