//! The match can fail: a log and a ledger in which everything is explained, and each way in which it is not.

use std::collections::BTreeMap;

use jiff::Timestamp;
use locktender::core::{
    ledger::{Cause, Draft, Event, Quota, Record},
    names::{Digest, Revision, RolloutId, StageName, Unit},
    policy::read_policy,
    rollout::{
        labels,
        plan::{API_VERSION, End, Gate, Inputs, Method, PinnedPolicy, Plan, Stage},
    },
};
use serde_json::{Value, json};

use super::{explain::explain, history::History, log::Request};
use crate::histories::checkout::POLICY;

const WORKLOAD: &str = "Deployment/checkout";

fn digest(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}

fn version(version: &str) -> String {
    labels::digest_label(&digest(version))
}

fn quota(each: u32) -> Quota {
    let units = ["dca", "dcb"].map(|unit| (Unit::new(unit), each));
    BTreeMap::from([(WORKLOAD.to_owned(), BTreeMap::from(units))])
}

/// Ten pods go from 1.9 to 2.0, first one and then three a unit.
fn plan() -> Plan {
    let end = |tag: &str| End {
        revision: Revision::new("0".repeat(40)),
        digest: digest(tag),
        workloads: BTreeMap::from([(WORKLOAD.to_owned(), digest(tag))]),
        images: BTreeMap::from([(WORKLOAD.to_owned(), format!("registry.example/checkout:{tag}"))]),
    };
    let stage = |name: &str, each| Stage {
        name: StageName::new(name),
        quota: quota(each),
        gates: vec![Gate::Health],
        weight: None,
        headers: Vec::new(),
        mirror: None,
        affinity: None,
    };
    let spec = read_policy("policies/two-data-centers.yaml", POLICY.as_bytes()).unwrap().value;
    Plan {
        api_version: API_VERSION.to_owned(),
        kind: "Plan".to_owned(),
        rollout: RolloutId::parse("checkout/0002").unwrap(),
        from: Some(end("1.9")),
        to: end("2.0"),
        policy: Some(PinnedPolicy { name: "two-data-centers".to_owned(), digest: digest("policy"), spec }),
        inputs: Inputs::default(),
        methods: BTreeMap::from([(WORKLOAD.to_owned(), Method::InPlace)]),
        totals: quota(5),
        stages: vec![stage("beta", 1), stage("batch-1", 3), stage("batch-2", 5)],
        prunes: Vec::new(),
        inherits: None,
        moves: BTreeMap::new(),
        hash: digest("plan"),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// What is pushed, and when.
fn pushed(records: &[(i64, Draft)]) -> History {
    let (mut history, mut written) = (History::default(), Vec::<Record>::new());
    for (second, draft) in records {
        let previous = written.last().map_or(digest("plan"), |record| record.id);
        let seq = u32::try_from(written.len()).unwrap() + 1;
        let head = Revision::new("0".repeat(40));
        written.push(Record::chain(draft.clone(), seq, at(*second), head, previous));
        history.push(at(*second), plan(), written.clone());
    }
    history
}

fn record(event: Event, stage: &str) -> Draft {
    let stage = StageName::new(stage);
    Draft::new(event, Some(&stage).filter(|stage| !stage.as_str().is_empty()), "")
}

/// The beta group is let go at second 10.
fn at_beta() -> Vec<(i64, Draft)> {
    vec![(10, record(Event::RolloutOpened, "")), (10, record(Event::StageStarted, "beta"))]
}

fn write(second: i64, verb: &str, resource: &str, name: &str, body: Value) -> Request {
    Request {
        came: at(second),
        answered: at(second),
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        agent: "locktender/0".to_owned(),
        code: 200,
        dry_run: false,
        body,
    }
}

/// A slice of 1.9 in a unit, as rollout 1 made it: what everything else is about.
fn slice(unit: &str) -> Request {
    let labels = json!({
        labels::APP: "checkout", labels::WORKLOAD: "checkout", labels::UNIT: unit, labels::DIGEST: version("1.9"),
    });
    let body = json!({"metadata": {"labels": labels}, "spec": {"replicas": 5}});
    write(11, "create", "replicasets.apps", &format!("checkout-{unit}"), body)
}

/// A pod of it is taken out of service, to go to a version.
fn moves(second: i64, pod: &str, to: &str) -> Request {
    write(second, "patch", "pods", pod, json!({"metadata": {"annotations": {labels::MOVING: version(to)}}}))
}

/// Why each write was made; what is not explained begins with `?`.
fn told(requests: &[Request], history: &History) -> Vec<String> {
    let explained = explain(requests, history);
    explained.into_iter().map(|one| one.why.unwrap_or_else(|why| format!("? {why}"))).collect()
}

#[test]
fn a_pod_goes_forward_by_the_stage_that_was_started() {
    let requests = [slice("dca"), slice("dcb"), moves(12, "checkout-dca-a", "2.0"), moves(13, "checkout-dcb-a", "2.0")];
    let told = told(&requests, &pushed(&at_beta()));
    assert_eq!(told[2..], ["checkout/0002 StageStarted beta"; 2]);
}

#[test]
fn a_write_that_comes_in_before_its_record_is_pushed_is_not_explained() {
    let requests = [moves(9, "checkout-dca-a", "2.0"), write(9, "apply", "services", "checkout", json!({}))];
    let told = told(&requests, &pushed(&at_beta()));
    assert_eq!(told, ["? nothing of checkout is pushed"; 2]);
}

#[test]
fn one_pod_more_than_the_stage_lets_go_is_not_explained() {
    let requests = [slice("dca"), moves(12, "checkout-dca-a", "2.0"), moves(20, "checkout-dca-b", "2.0")];
    let mut records = at_beta();
    let explained = told(&requests, &pushed(&records));
    let why = "? checkout/0002 StageStarted beta lets 1 pods of `dca` go to the target, and this is number 2";
    assert_eq!(explained[1..], ["checkout/0002 StageStarted beta", why]);
    // With the next stage it is.
    records.push((15, record(Event::StageStarted, "batch-1")));
    assert_eq!(told(&requests, &pushed(&records))[2], "checkout/0002 StageStarted batch-1");
    // Where its record comes only after it, it is not.
    records[2].0 = 21;
    assert_eq!(told(&requests, &pushed(&records))[2], why);
}

#[test]
fn a_slice_of_the_target_has_no_more_pods_than_its_stage() {
    let mut new = slice("dca");
    new.came = at(20);
    new.name = "checkout-new".to_owned();
    new.body["metadata"]["labels"][labels::DIGEST] = json!(version("2.0"));
    let told = told(&[new], &pushed(&at_beta()));
    assert_eq!(told, ["? checkout/0002 StageStarted beta lets 1 pods of `dca` go to the target, and this is number 5"]);
}

#[test]
fn nothing_goes_back_or_forward_against_the_last_record() {
    let mut records = at_beta();
    let aborting = record(Event::Aborting, "").with(|evidence| evidence.cause = Some(Cause::Decision));
    records.push((30, aborting));
    let requests = [
        slice("dca"),
        moves(12, "checkout-dca-a", "2.0"),
        moves(31, "checkout-dca-b", "2.0"),
        moves(33, "checkout-dca-a", "1.9"),
        moves(34, "checkout-dca-b", "2.0"),
    ];
    let told = told(&requests, &pushed(&records));
    assert_eq!(told[3], "checkout/0002 Aborting");
    // Neither what was on its way, being one too many, nor what was sent long after.
    assert!([&told[2], &told[4]].iter().all(|why| why.starts_with("? ")), "{told:?}");
}

#[test]
fn at_rest_only_what_a_record_names_is_written() {
    let mut records = at_beta();
    records.push((20, record(Event::Completed, "batch-2")));
    let service = write(40, "apply", "services", "checkout", json!({}));
    let scale = write(41, "patch", "replicasets.apps", "checkout-dca", json!({"spec": {"replicas": 6}}));
    let requests = [slice("dca"), service, scale];
    let explained = told(&requests, &pushed(&records));
    assert_eq!(explained[1..], ["? checkout/0002 is at rest, and no record names it", "checkout/0002 shared out"]);
    let drift = record(Event::DriftCorrected, "").with(|it| it.objects = vec!["Service/checkout@7".to_owned()]);
    records.push((39, drift));
    assert_eq!(told(&requests, &pushed(&records))[1], "checkout/0002 DriftCorrected");
}

#[test]
fn what_says_that_it_is_put_back_is_explained_by_the_record_that_comes_after_it_and_by_no_other() {
    let mut records = at_beta();
    records.push((20, record(Event::Completed, "batch-2")));
    let says = |seen: &str| {
        let annotations = json!({ labels::PUT_BACK: format!("checkout/0002 {seen}") });
        let metadata = json!({ "labels": { labels::APP: "checkout" }, "annotations": annotations });
        write(40, "apply", "services", "checkout", json!({ "metadata": metadata }))
    };
    let requests = [says("Service/checkout@7"), says("Service/checkout@8"), says("ConfigMap/notes@7")];
    let nothing = "? checkout/0002 is at rest, and no record names it";
    assert_eq!(told(&requests, &pushed(&records)), [nothing; 3]);
    let objects = vec!["Service/checkout@7".to_owned(), "ConfigMap/notes@7".to_owned()];
    records.push((44, record(Event::DriftCorrected, "").with(|it| it.objects = objects)));
    assert_eq!(told(&requests, &pushed(&records)), ["checkout/0002 DriftCorrected", nothing, nothing]);
}

#[test]
fn the_anchor_events_the_lease_the_namespace_and_notes_are_named_as_what_they_are() {
    let handle = |stage: &str, replicas: u32| {
        let annotations = json!({labels::ROLLOUT: "checkout/0002", labels::STAGE: stage});
        let labels = json!({labels::APP: "checkout"});
        let body = json!({"metadata": {"annotations": annotations, "labels": labels}, "spec": {"replicas": replicas}});
        write(12, "apply", "deployments.apps", "checkout", body)
    };
    let anchor = json!({"metadata": {"labels": {labels::ANCHOR: "checkout"}}});
    let requests = [
        write(1, "create", "namespaces", "shop", json!({})),
        write(1, "apply", "configmaps", "locktender-checkout", anchor),
        write(12, "create", "events", "checkout.1", json!({})),
        write(12, "apply", "leases.coordination.k8s.io", "locktender", json!({})),
        handle("beta", 10),
        handle("batch-1", 10),
        handle("batch-1", 11),
    ];
    let started = "checkout/0002 StageStarted beta";
    let told = told(&requests, &pushed(&at_beta()));
    assert_eq!(told, ["namespace", "anchor", "event", "lease", started, "notes", started]);
}

#[test]
fn what_was_refused_tried_dry_or_written_by_others_is_nobodys_business() {
    let mut requests = [moves(1, "a-b", "2.0"), moves(1, "a-b", "2.0"), moves(1, "a-b", "2.0")];
    requests[0].code = 409;
    requests[1].dry_run = true;
    requests[2].agent = "kubectl/v1.36".to_owned();
    assert_eq!(told(&requests, &pushed(&at_beta())), Vec::<String>::new());
}
