//! Group B: writes that are refused, lost, late or in doubt.

use std::time::Duration;

use locktender::adapter::kube::Verb;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::support::proxy::{Effect, On, Refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_every_first_answer_to_a_write_is_lost() {
    let faulty = Faulty::installed().await;
    let before = faulty.seen("checkout").await.identities();
    let lost = faulty.proxy.inject(On::writes().first_of_each(), Effect::AnswerLost);
    faulty.set_tag("2.0");
    let seen = faulty.completes().await;
    assert!(lost.count() > 20, "{} answers were lost", lost.count());
    faulty.each_pod_changed_once();
    assert_eq!(seen.identities(), before, "and in place");
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    assert!(seen.pods.iter().all(|pod| restarts(pod) == Some(1)), "each container started once more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_a_creation_whose_answer_is_lost_is_not_made_twice() {
    let faulty = Faulty::empty().await;
    let lost = faulty.proxy.inject(On::verbs(&[Verb::Create]).first_of_each(), Effect::AnswerLost);
    faulty.merge_with(&[]);
    faulty.install().await;
    assert!(lost.count() >= 3, "a namespace and two slices: {}", lost.count());
    let slices = faulty.list("apis/apps/v1/replicasets", "replicasets.apps").await;
    assert_eq!(slices.len(), 2, "one slice a unit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_every_write_conflicts_for_a_while() {
    let faulty = Faulty::at_beta().await;
    faulty.proxy.forget();
    let message = "Operation cannot be fulfilled: the object has been modified";
    let conflict = Effect::Refused(Refusal::new(409, "Conflict", message));
    let conflicts = faulty.proxy.inject(On::writes(), conflict);
    faulty.confirm(2, "beta");
    conflicts.reaches(12).await;
    let asked = faulty.proxy.asked();
    let (first, last) = (asked.iter().find(|one| one.is_write()).unwrap(), asked.last().unwrap());
    // Waits double from 0.4 s on, and up to eight writes go at once.
    let lasted = last.at.duration_since(first.at);
    assert!(lasted > Duration::from_millis(300), "a dozen tries within {lasted:?} are no backing off");
    for write in asked.iter().filter(|one| one.is_write() && one.at.duration_since(first.at) < lasted / 2) {
        let again = asked.iter().any(|one| one.verb == Verb::Get && one.name == write.name && one.at >= write.at);
        assert!(again, "{} {} was not read again", write.verb, write.name);
    }
    conflicts.end();
    faulty.completes().await;
    faulty.each_pod_changed_in_all();
}

impl Faulty {
    /// Like [`Faulty::each_pod_changed_once`], where only what came after the beta group was listened to.
    fn each_pod_changed_in_all(&self) {
        let done: Vec<Asked> =
            self.proxy.writes().into_iter().filter(|one| one.sets_images() && one.is_done()).collect();
        let names: std::collections::BTreeSet<&String> = done.iter().map(|one| &one.name).collect();
        assert_eq!((done.len(), names.len()), (8, 8), "eight pods are left, and none is changed twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let faulty = Faulty::at_beta().await;
    faulty.proxy.forget();
    let message = "too many requests, please try again later";
    let busy = Refusal { retry_after: Some(2), ..Refusal::new(429, "TooManyRequests", message) };
    let busy = faulty.proxy.inject(On::writes(), Effect::Refused(busy));
    faulty.confirm(2, "beta");
    busy.reaches(1).await;
    // Reading goes on meanwhile: another pod is seen to come and go.
    let handle = "apis/apps/v1/namespaces/shop/deployments/checkout";
    faulty
        .change(handle, "deployments.apps", |it| it["metadata"]["annotations"]["example.com/seen"] = json!("1"))
        .await;
    faulty.until("checkout", "it is asked twice", |_| spells(&faulty.proxy.writes()).len() >= 2).await;
    busy.end();
    let spells = spells(&faulty.proxy.writes());
    let waited = spells[1].duration_since(spells[0]);
    assert!(waited >= Duration::from_secs(2), "it asked for two seconds, and was tried after {waited:?}");
    let refused = faulty.proxy.asked().iter().filter(|one| one.verb == Verb::List).count();
    assert_eq!(refused, 0, "watches go on: nothing is listed anew");
    faulty.completes().await;
    faulty.each_pod_changed_in_all();
}

/// When writes were tried: those that go together count once.
fn spells(writes: &[Asked]) -> Vec<Instant> {
    let mut spells: Vec<Instant> = Vec::new();
    let mut last: Option<Instant> = None;
    for write in writes {
        if last.is_none_or(|last| write.at.duration_since(last) > Duration::from_millis(500)) {
            spells.push(write.at);
        }
        last = Some(write.at);
    }
    spells
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_16_bursts_of_server_errors_resets_and_closed_connections() {
    let faulty = Faulty::installed().await;
    let message = "an error on the server has prevented the request from succeeding";
    let inner = Effect::Refused(Refusal::new(500, "InternalError", message));
    let late = Effect::Refused(Refusal::new(504, "Timeout", message));
    let faults = [
        faulty.proxy.inject(On::everything().after(2).times(3), inner),
        faulty.proxy.inject(On::everything().after(4).times(2), Effect::Page(502)),
        faulty.proxy.inject(On::everything().after(6).times(3), Effect::Page(503)),
        faulty.proxy.inject(On::everything().after(8).times(2), late),
        faulty.proxy.inject(On::everything().after(10).times(4), Effect::Reset),
        faulty.proxy.inject(On::everything().after(12).times(20), Effect::Closed),
    ];
    faulty.set_tag("2.0");
    faulty.completes().await;
    for fault in &faults {
        assert!(fault.count() > 0);
    }
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_object_made_anew_while_nobody_looked_is_another_one() {
    let faulty = Faulty::with_notes().await;
    let before = faulty.get(NOTES, "configmaps").await.unwrap();
    let held = faulty.proxy.inject(On::watches().of("configmaps"), Effect::Held);
    faulty.live().ask("DELETE", NOTES, Value::Null).await.unwrap();
    let other = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": "shop"},
        "data": {"a": "somebody else's"},
    });
    faulty.live().ask("POST", "api/v1/namespaces/shop/configmaps", other).await.unwrap();
    held.reaches(1).await;
    faulty.proxy.forget();
    // What Git says now is written onto the one that is believed to be there.
    faulty.commit("other notes", |clone| {
        clone.replace(NOTES_FILE, "a: b", "a: c");
    });
    let refused = |one: &Asked| one.verb == Verb::Apply && one.name == "notes" && !one.is_done();
    faulty.until("checkout", "it is refused", |_| faulty.proxy.asked().iter().any(refused)).await;
    held.end();
    faulty.completes().await;
    let after = faulty.get(NOTES, "configmaps").await.unwrap();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["data"]["a"], "c", "it is as Git says");
    let refused: Vec<Asked> = faulty.proxy.asked().into_iter().filter(refused).collect();
    assert_eq!(refused[0].answered, Some(409), "by its UID: {}", in_words(&refused).join(", "));
}
