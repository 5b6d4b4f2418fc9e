//! Blue-green where things go wrong: pods that say they are not well, Services that cannot be written for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use locktender::{
    core::{
        analysis::Verdict,
        ask::{Question, Said, Unanswered},
        ledger::{Cause, Event, Record},
        rollout::{
            labels,
            report::{Activity, Reason},
        },
    },
    sandbox::faults::{Fault, Target},
};
use serde_json::Value;

use super::{
    Sim,
    faults::WriteFault,
    outside::page,
    rollouts::{APP, DEPLOYMENT, manifest},
};

const POLICY_FILE: &str = "policies/two-data-centers.yaml";
const SETTINGS: &str = "metrics: {prometheus: {url: 'http://prometheus.monitoring:9090'}}\n";
const HEALTHY: &str = "\
confirm: none
scaleDownDelaySeconds: 10
healthCheck: {path: /health, port: 8080, expect: {healthy: true}}
";

fn policy(fields: &str) -> String {
    let lines: String = fields.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {{name: two-data-centers}}
spec:
  progressDeadlineSeconds: 120
  metrics:
    success-rate:
      {{successCondition: 'result[0] >= 0.95', initialDelay: 10s, interval: 10s, count: 3, failureLimit: 1}}
  strategy:
    blueGreen:
{lines}"
    )
}

/// Four replicas, and so many Services that send to them.
fn shop(tag: &str, services: &[&str]) -> String {
    let all = manifest(tag).replace("replicas: 10", "replicas: 4");
    let (deployment, service) = all.split_once("---\n").unwrap();
    let services = services.iter().map(|name| service.replace("{name: checkout}", &format!("{{name: {name}}}")));
    services.fold(deployment.to_owned(), |text, service| text + "---\n" + &service)
}

/// 1.9 is installed.
async fn installed(fields: &str, services: &[&str]) -> Sim {
    let mut sim = Sim::new(&[
        ("locktender.yaml", SETTINGS),
        (POLICY_FILE, &policy(fields)),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &shop("1.9", services)),
    ]);
    sim.outside.measures(|_| 0.99);
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim
}

fn merge(sim: &Sim, tag: &str, services: &[&str]) {
    sim.git.commit(&format!("checkout {tag}"), &[(DEPLOYMENT, Some(&shop(tag, services)))]);
}

async fn recorded(sim: &Sim, event: Event, stage: &str) {
    if let Err(why) = sim.recorded("checkout", 2, event, stage, 1).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

fn pods(sim: &Sim) -> Vec<Arc<Value>> {
    sim.cluster.with(|world| world.api.list("pods").cloned().collect())
}

fn tag(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default()
}

fn at(sim: &Sim, wanted: &str) -> usize {
    pods(sim).iter().filter(|pod| tag(pod) == wanted).count()
}

/// The versions of the ready pods that a Service's EndpointSlices name, and how many of each.
fn behind(sim: &Sim, service: &str) -> BTreeMap<String, usize> {
    let pods = pods(sim);
    let slices: Vec<Arc<Value>> =
        sim.cluster.with(|world| world.api.list("endpointslices.discovery.k8s.io").cloned().collect());
    let of_it = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    let endpoints = of_it.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let mut versions = BTreeMap::new();
    for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
        let pod = pods.iter().find(|pod| pod["metadata"]["uid"] == endpoint["targetRef"]["uid"]);
        *versions.entry(pod.map_or("gone", |pod| tag(pod)).to_owned()).or_default() += 1;
    }
    versions
}

/// Looks at Services ten times a second until a rollout is over: what each sent to, each thing once, in order.
async fn watched(sim: &Sim, services: &[&str], over: impl Fn(&Sim) -> bool) -> Vec<Vec<BTreeMap<String, usize>>> {
    let mut seen = vec![Vec::new(); services.len()];
    for _ in 0..36_000 {
        for (service, seen) in services.iter().zip(&mut seen) {
            let now = behind(sim, service);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        if over(sim) {
            return seen;
        }
        sim.pass(Duration::from_millis(100)).await;
    }
    panic!("never over: {:?}\n{}", sim.report("checkout"), sim.git.subjects().join("\n"));
}

fn has(sim: &Sim, event: Event) -> bool {
    sim.records("checkout", 2).iter().any(|record| record.event == event)
}

fn probes(sim: &Sim) -> Vec<(jiff::Timestamp, String)> {
    let asked = sim.outside.asked().into_iter();
    asked.filter_map(|(at, question)| Some((at, probe_of(&question)?.to_owned()))).collect()
}

fn probe_of(question: &Question) -> Option<&str> {
    match question {
        Question::Probe(probe) => Some(&probe.of),
        _ => None,
    }
}

fn uids(sim: &Sim, wanted: &str) -> BTreeSet<String> {
    let pods = pods(sim);
    let of_it = pods.iter().filter(|pod| tag(pod) == wanted);
    of_it.filter_map(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_new_pod_is_asked_once_a_stage_before_requests_go_there() {
    let sim = installed(&format!("{HEALTHY}watch: {{duration: 1m}}"), &["checkout"]).await;
    merge(&sim, "2.0", &["checkout"]);
    recorded(&sim, Event::StageWaiting, "switch").await;
    let new = uids(&sim, "2.0");
    let asked = probes(&sim);
    assert_eq!(new.len(), 4);
    assert_eq!(asked.iter().map(|(_, of)| of.clone()).collect::<BTreeSet<_>>(), new, "each of them, and no other");
    assert_eq!(asked.len(), 8, "before the preview is done, and before the switch: {asked:?}");
    recorded(&sim, Event::Completed, "finish").await;
    assert_eq!(probes(&sim).len(), 8, "those that serve are their probes' concern");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_never_healthy_gets_no_request_and_goes_at_the_deadline() {
    let sim = installed(HEALTHY, &["checkout"]).await;
    let old = uids(&sim, "1.9");
    merge(&sim, "2.0-sick", &["checkout"]);
    let seen = watched(&sim, &["checkout"], |sim| has(sim, Event::Reverted)).await;
    assert_eq!(seen, [[BTreeMap::from([("1.9".to_owned(), 4)])]], "nothing else was ever behind the Service");
    assert_eq!((uids(&sim, "1.9"), at(&sim, "2.0-sick")), (old, 0));
    let records = sim.records("checkout", 2);
    let aborting = records.iter().find(|record| record.event == Event::Aborting).unwrap();
    assert_eq!(aborting.evidence.cause, Some(Cause::Failure));
    let why = "0 of 4 healthy: it answers {\"healthy\": false}, and `healthy` is to be true (checkout-";
    assert!(aborting.why.contains(why) && aborting.why.ends_with("and 3 more)"), "{}", aborting.why);
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), shop("1.9", &["checkout"]), "Git is repaired");
    // Every two seconds until then, and never more.
    let asked = probes(&sim);
    assert!((4 * 50..=4 * 62).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn one_pod_that_is_not_healthy_keeps_requests_where_they_are_until_it_is() {
    let mut sim = installed(HEALTHY, &["checkout"]).await;
    let (sick, cluster) = (Arc::new(Mutex::new(None::<String>)), sim.cluster.clone());
    let told = sick.clone();
    sim.outside.answers(move |question, _| {
        let of = probe_of(question).unwrap().to_owned();
        let mut sick = told.lock().unwrap();
        let is_it = *sick.get_or_insert_with(|| of.clone()) == of;
        let unwell = Ok(Said::Page { status: 503, body: String::new() });
        (Duration::from_millis(20), if is_it { unwell } else { page(&cluster, question) })
    });
    merge(&sim, "2.0", &["checkout"]);
    let not_well = |reason: &Reason| matches!(reason, Reason::NotAllHealthy { want: 4, have: 3, trouble, .. } if trouble.len() == 1);
    let report = sim.until("checkout", "one is not well", |report| report.reasons.iter().any(not_well)).await;
    let told = report.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    assert!(told.contains("3 of 4 healthy: it answers 503 (checkout-"), "{told}");
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(behind(&sim, "checkout"), BTreeMap::from([("1.9".to_owned(), 4)]));
    // It is gone, and another one comes for it: that one is asked for itself.
    let name =
        pods(&sim).iter().find(|pod| pod["metadata"]["uid"].as_str() == sick.lock().unwrap().as_deref()).cloned();
    let name = name.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    sim.cluster.with(|world| world.api.delete("pods", "shop", &name, Default::default()).map(drop)).unwrap();
    recorded(&sim, Event::Completed, "switch").await;
    assert_eq!(behind(&sim, "checkout"), BTreeMap::from([("2.0".to_owned(), 4)]));
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_answer_are_not_healthy() {
    for answer in [
        (Duration::from_secs(3600), Ok(Said::Page { status: 200, body: "{\"healthy\": true}".to_owned() })),
        (Duration::ZERO, Err(Unanswered::Unreachable("connection refused".to_owned()))),
        (Duration::ZERO, Err(Unanswered::TooLong(1))),
        (Duration::ZERO, Ok(Said::Page { status: 302, body: String::new() })),
        (Duration::ZERO, Ok(Said::Page { status: 200, body: "fine".to_owned() })),
    ] {
        let sim = installed(HEALTHY, &["checkout"]).await;
        sim.outside.answers(move |_, _| answer.clone());
        merge(&sim, "2.0", &["checkout"]);
        let seen = watched(&sim, &["checkout"], |sim| has(sim, Event::Aborted)).await;
        assert_eq!(seen, [[BTreeMap::from([("1.9".to_owned(), 4)])]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_no_container_has_opens_nothing() {
    let mut sim = installed(&HEALTHY.replace("8080", "admin"), &["checkout"]).await;
    merge(&sim, "2.0", &["checkout"]);
    let held = |reason: &Reason| matches!(reason, Reason::Held { why } if why.contains("port of that name"));
    sim.until("checkout", "refused", |report| report.reasons.iter().any(held)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0"), sim.records("checkout", 2).len()), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_falls_ill_while_it_waits_for_its_confirm_is_not_switched_to() {
    let sim = installed(&HEALTHY.replace("confirm: none\n", ""), &["checkout"]).await;
    merge(&sim, "2.0", &["checkout"]);
    recorded(&sim, Event::StageWaiting, "preview").await;
    sim.cluster.with(|world| world.faults().add(Target::image("*:2.0"), Fault::Sick));
    sim.git.commit("yes", &[("rollouts/checkout/0002/confirm/preview.yaml", Some(""))]);
    let seen = watched(&sim, &["checkout"], |sim| has(sim, Event::Reverted)).await;
    assert_eq!(seen, [[BTreeMap::from([("1.9".to_owned(), 4)])]]);
    assert!(has(&sim, Event::StageStarted) && at(&sim, "2.0") == 0);
}

#[tokio::test(start_paused = true)]
async fn bad_numbers_before_the_switch_keep_requests_where_they_are() {
    let sim = installed("confirm: none\nanalysis: {metrics: [success-rate]}", &["checkout"]).await;
    sim.outside.measures(|_| 0.5);
    merge(&sim, "2.0", &["checkout"]);
    let seen = watched(&sim, &["checkout"], |sim| has(sim, Event::Reverted)).await;
    assert_eq!(seen, [[BTreeMap::from([("1.9".to_owned(), 4)])]]);
    let run = sim.records("checkout", 2).into_iter().find_map(|record| record.evidence.analysis.clone()).unwrap();
    assert_eq!((run.verdict, run.check(), run.samples.len()), (Verdict::Fail, Ok(()), 2));
}

#[tokio::test(start_paused = true)]
async fn bad_numbers_in_the_watch_switch_back_at_once_before_any_pod_goes() {
    let fields = "confirm: none\nwatch: {duration: 10m, metrics: [success-rate]}";
    let sim = installed(fields, &["checkout"]).await;
    let old = uids(&sim, "1.9");
    sim.outside.measures(|_| 0.5);
    merge(&sim, "2.0", &["checkout"]);
    let seen = watched(&sim, &["checkout"], |sim| has(sim, Event::Reverted)).await;
    let all = |tag: &str| BTreeMap::from([(tag.to_owned(), 4)]);
    assert_eq!(seen, [[all("1.9"), all("2.0"), all("1.9")]], "all at once, forward and back");
    assert_eq!((uids(&sim, "1.9"), at(&sim, "2.0")), (old, 0));
    let records = sim.records("checkout", 2);
    let time = |wanted: Event| records.iter().find(|record| record.event == wanted).unwrap().time;
    let took = time(Event::AnalysisRun).duration_since(time(Event::StageWaiting));
    assert!((20..24).contains(&took.as_secs()), "two samples, and not the ten minutes: {took:?}");
    let aborting = records.iter().find(|record| record.event == Event::Aborting).unwrap();
    assert_eq!(aborting.why, "success-rate is bad in 2 of 2 samples: [0.5] (good where result[0] >= 0.95)");
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), shop("1.9", &["checkout"]), "Git is repaired");
}

#[tokio::test(start_paused = true)]
async fn good_numbers_do_not_shorten_the_watch() {
    let fields = "confirm: none\nwatch: {duration: 10m, metrics: [success-rate]}";
    let sim = installed(fields, &["checkout"]).await;
    merge(&sim, "2.0", &["checkout"]);
    recorded(&sim, Event::Completed, "finish").await;
    let records = sim.records("checkout", 2);
    let time = |wanted: Event, stage: &str| {
        let at = |record: &&Record| record.stage.as_ref().is_some_and(|name| name.as_str() == stage);
        records.iter().filter(at).find(|record| record.event == wanted).unwrap().time
    };
    let watched = time(Event::StageStarted, "finish").duration_since(time(Event::StageWaiting, "switch"));
    assert!((600..604).contains(&watched.as_secs()), "{watched:?}");
    assert_eq!(records.iter().filter(|record| record.event == Event::AnalysisRun).count(), 1);
}

/// Pods may come early where they are not seen as ready: a Service that cannot be narrowed keeps them from coming at all.
#[tokio::test(start_paused = true)]
async fn no_new_pod_comes_before_requests_go_to_one_version_only() {
    let sim = installed("confirm: none\nscaleDownDelaySeconds: 10", &["checkout"]).await;
    sim.faults.every(WriteFault::Busy, |write| write.contains("Service/checkout"));
    merge(&sim, "2.0", &["checkout"]);
    recorded(&sim, Event::StageStarted, "preview").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0")), (4, 0));
    assert_eq!(behind(&sim, "checkout"), BTreeMap::from([("1.9".to_owned(), 4)]));
    sim.faults.no_more();
    recorded(&sim, Event::Completed, "switch").await;
}

/// One Service has switched, the other cannot be written: its pods stay, whichever way it goes.
#[tokio::test(start_paused = true)]
async fn no_pod_goes_while_one_of_several_services_still_sends_to_it() {
    let both = ["checkout", "internal"];
    let all = |tag: &str| BTreeMap::from([(tag.to_owned(), 4)]);
    let fields = "confirm: none\nscaleDownDelaySeconds: 0\nwatch: {duration: 1h}\ngraceful: {gracePeriodSeconds: 1}";
    // Back: the new pods are still called.
    let sim = installed(fields, &both).await;
    merge(&sim, "2.0", &both);
    recorded(&sim, Event::StageWaiting, "switch").await;
    sim.faults.every(WriteFault::Busy, |write| write.contains("Service/internal"));
    sim.git.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
    recorded(&sim, Event::Aborting, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!([behind(&sim, "checkout"), behind(&sim, "internal")], [all("1.9"), all("2.0")]);
    sim.faults.no_more();
    recorded(&sim, Event::Aborted, "").await;
    assert_eq!([behind(&sim, "checkout"), behind(&sim, "internal")], [all("1.9"), all("1.9")]);
    // Forward: the old ones are.
    let sim = installed(&fields.replace("confirm: none\n", "").replace("watch: {duration: 1h}\n", ""), &both).await;
    merge(&sim, "2.0", &both);
    recorded(&sim, Event::StageWaiting, "preview").await;
    sim.faults.every(WriteFault::Busy, |write| write.contains("Service/internal"));
    sim.git.commit("yes", &[("rollouts/checkout/0002/confirm/preview.yaml", Some(""))]);
    recorded(&sim, Event::StageStarted, "switch").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!([behind(&sim, "checkout"), behind(&sim, "internal")], [all("2.0"), all("1.9")]);
    sim.faults.no_more();
    recorded(&sim, Event::Completed, "switch").await;
    assert_eq!([behind(&sim, "checkout"), behind(&sim, "internal")], [all("2.0"), all("2.0")]);
}

/// Two workloads, with a Service each.
fn both(tag: &str) -> String {
    let one = shop(tag, &["checkout"]);
    let other = one.replace("{name: checkout}", "{name: basket}").replace("{app: checkout}", "{app: basket}");
    let other = other.replace("registry.example/checkout:", "registry.example/basket:");
    format!("{one}---\n{other}")
}

async fn both_installed(fields: &str) -> Sim {
    let mut sim = Sim::new(&[
        ("locktender.yaml", SETTINGS),
        (POLICY_FILE, &policy(fields)),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &both("1.9")),
    ]);
    sim.outside.measures(|_| 0.99);
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim
}

#[tokio::test(start_paused = true)]
async fn several_workloads_switch_together_once_the_last_of_them_is_well() {
    let sim = both_installed(HEALTHY).await;
    let all = |tag: &str| BTreeMap::from([(tag.to_owned(), 4)]);
    let fault = sim.cluster.with(|world| world.faults().add(Target::image("*/basket:2.0"), Fault::Sick));
    sim.git.commit("2.0", &[(DEPLOYMENT, Some(&both("2.0")))]);
    recorded(&sim, Event::StageStarted, "preview").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!([behind(&sim, "checkout"), behind(&sim, "basket")], [all("1.9"), all("1.9")], "neither goes first");
    sim.cluster.with(|world| world.faults().remove(fault));
    let seen = watched(&sim, &["checkout", "basket"], |sim| has(sim, Event::Completed)).await;
    assert_eq!(seen, [[all("1.9"), all("2.0")], [all("1.9"), all("2.0")]], "each all at once");
}

#[tokio::test(start_paused = true)]
async fn several_workloads_are_switched_back_together() {
    let sim = both_installed("confirm: none\nwatch: {duration: 10m, metrics: [success-rate]}").await;
    let all = |tag: &str| BTreeMap::from([(tag.to_owned(), 4)]);
    sim.outside.measures(|_| 0.5);
    sim.git.commit("2.0", &[(DEPLOYMENT, Some(&both("2.0")))]);
    let seen = watched(&sim, &["checkout", "basket"], |sim| has(sim, Event::Reverted)).await;
    let there_and_back = [all("1.9"), all("2.0"), all("1.9")];
    assert_eq!(seen, [there_and_back.clone(), there_and_back]);
    assert_eq!((at(&sim, "1.9"), at(&sim, "2.0")), (8, 0));
}

/// The version that was switched to is bad, and the fix comes by another strategy: nobody's requests stay with it.
#[tokio::test(start_paused = true)]
async fn a_fix_by_another_strategy_takes_requests_back_to_stable_first() {
    let canary = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  strategy:
    canary:
      steps: [{setWeight: 50}, {confirm: {}}]
";
    let batched = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  strategy:
    batched: {beta: {perUnit: 1}, batchSize: 2, confirm: beta, update: Recreate}
";
    for (strategy, stage, last) in [(canary, "weight-50", "weight-100"), (batched, "beta", "batch-2")] {
        let sim = installed("confirm: none\nwatch: {duration: 1h}", &["checkout"]).await;
        merge(&sim, "2.0", &["checkout"]);
        recorded(&sim, Event::StageWaiting, "switch").await;
        assert_eq!(behind(&sim, "checkout"), BTreeMap::from([("2.0".to_owned(), 4)]));
        let fix = shop("2.1", &["checkout"]);
        sim.git.commit("2.1, otherwise", &[(POLICY_FILE, Some(strategy)), (DEPLOYMENT, Some(&fix))]);
        let waits = |sim: &Sim| sim.records("checkout", 3).iter().any(|record| record.event == Event::StageWaiting);
        let seen = watched(&sim, &["checkout"], waits).await.remove(0);
        let with_the_bad_one = seen.iter().filter(|behind| behind.contains_key("2.0")).count();
        assert_eq!(with_the_bad_one, 1, "once left, never again: {seen:?}");
        assert!(!behind(&sim, "checkout").contains_key("2.0"), "{seen:?}");
        let path = format!("rollouts/checkout/0003/confirm/{stage}.yaml");
        sim.git.commit("yes", &[(&path, Some(""))]);
        sim.recorded("checkout", 3, Event::Completed, last, 1).await.unwrap();
        sim.pass(Duration::from_secs(60)).await;
        assert_eq!(behind(&sim, "checkout"), BTreeMap::from([("2.1".to_owned(), 4)]));
        assert_eq!(pods(&sim).len(), 4);
        let services: Vec<Arc<Value>> = sim.cluster.with(|world| world.api.list("services").cloned().collect());
        let narrowed = |service: &&Arc<Value>| service["spec"]["selector"].get(labels::DIGEST).is_some();
        assert_eq!(services.iter().filter(narrowed).count(), 0, "nothing is left of the switch");
    }
}
