//! Group B: watches that end, lie behind, or say nothing.

use std::time::Duration;

use locktender::adapter::kube::{Settings, Verb};
use serde_json::Value;

use super::*;
use crate::support::proxy::{Effect, On, Refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_watches_are_cut_in_the_middle_of_events() {
    let faulty = Faulty::installed().await;
    let cut = faulty.proxy.inject(On::watches().of("pods").after(3).times(4), Effect::EventCut);
    let slices = faulty.proxy.inject(On::watches().of("endpointslices.discovery.k8s.io").times(2), Effect::EventCut);
    faulty.set_tag("2.0");
    faulty.completes().await;
    assert_eq!((cut.count(), slices.count()), (4, 2));
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_a_deletion_that_an_expired_watch_did_not_tell_is_seen_by_the_next_list() {
    let faulty = Faulty::with_notes().await;
    let before = faulty.get(NOTES, "configmaps").await.unwrap();
    faulty.proxy.forget();
    let expired = faulty.proxy.inject(On::watches().of("configmaps").times(1), Effect::Expired);
    faulty.live().ask("DELETE", NOTES, Value::Null).await.unwrap();
    expired.reaches(1).await;
    faulty.completes().await;
    let after = faulty.get(NOTES, "configmaps").await.unwrap();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "it was seen to be gone, and made anew");
    let asked = faulty.proxy.asked();
    let lists = asked.iter().filter(|one| one.verb == Verb::List && one.resource == "configmaps").count();
    assert_eq!(lists, 1, "it was listed once");
    let applied = asked.iter().filter(|one| one.verb == Verb::Apply && one.name == "notes" && one.is_done());
    assert_eq!(applied.count(), 1, "nothing is done twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_a_watch_that_is_gone_at_once_is_not_asked_in_a_loop() {
    let faulty = Faulty::at_beta().await;
    let gone = Effect::Refused(Refusal::new(410, "Expired", "too old resource version"));
    let gone = faulty.proxy.inject(On::watches().of("pods"), gone);
    let cut = faulty.proxy.inject(On::watches().of("pods").times(1), Effect::EventCut);
    faulty.proxy.forget();
    faulty.confirm(2, "beta");
    cut.reaches(1).await;
    gone.reaches(3).await;
    let asked = faulty.proxy.asked();
    let of_pods = |verb: Verb| asked.iter().filter(move |one| one.verb == verb && one.resource == "pods");
    let (first, last) = (of_pods(Verb::Watch).next().unwrap(), of_pods(Verb::Watch).next_back().unwrap());
    assert!(last.at.duration_since(first.at) >= Duration::from_millis(400), "it waits, longer each time");
    gone.end();
    faulty.completes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_a_slice_that_is_not_in_the_cache_yet_is_not_made_twice() {
    let faulty = Faulty::empty().await;
    faulty.proxy.forget();
    let held = faulty.proxy.inject(On::watches().of("replicasets.apps"), Effect::Held);
    faulty.merge_with(&[]);
    held.reaches(1).await;
    // Pods come into being meanwhile, and what is known of the slices is what creating them answered.
    faulty.until("checkout", "pods are there", |seen| seen.pods.len() == 2).await;
    faulty.rest().await;
    let creations = |faulty: &Faulty| {
        let writes = faulty.proxy.writes().into_iter();
        writes.filter(|one| one.verb == Verb::Create && one.resource == "replicasets.apps").count()
    };
    assert_eq!(creations(&faulty), 2, "one slice a unit, though the watch tells of none");
    held.end();
    faulty.install().await;
    assert_eq!(creations(&faulty), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_a_watch_that_is_late_holds_the_gate() {
    let faulty = Faulty::at_beta().await;
    let held = faulty.proxy.inject(On::watches().of("pods"), Effect::Held);
    faulty.confirm(2, "beta");
    held.reaches(1).await;
    let seen = faulty.until("checkout", "it has begun", |seen| seen.told(2).len() >= 5).await;
    faulty.rest().await;
    let now = faulty.seen("checkout").await;
    assert_eq!(now.told(2), seen.told(2), "what is not seen is not taken for done");
    let out = |pod: &&std::sync::Arc<Value>| pod["metadata"]["labels"]["locktender.dev/in-service"] != "true";
    assert!(now.pods.iter().filter(out).count() <= 2, "a quarter of ten at most is out of service");
    held.end();
    faulty.completes().await;
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_watches_that_say_nothing_or_a_byte_a_second_are_opened_again() {
    let mut faulty = Faulty::installed().await;
    faulty.release.settings = Settings { watch_silence: Duration::from_secs(1), ..Settings::default() };
    faulty.release.start().await;
    faulty.stable(1, "1.9: 10").await;
    let silent = faulty.proxy.inject(On::watches().of("pods").times(1), Effect::Silent);
    let slow = faulty.proxy.inject(On::watches().of("replicasets.apps").times(1), Effect::Trickled);
    faulty.set_tag("2.0");
    faulty.completes().await;
    assert_eq!((silent.count(), slow.count()), (1, 1));
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_nothing_is_done_before_the_first_list_is_there() {
    let mut faulty = Faulty::installed().await;
    faulty.release.kill().await;
    let hung = faulty.proxy.inject(On::verbs(&[Verb::List]).of("pods").times(1), Effect::Hang);
    faulty.release.settings = Settings { list_timeout: Duration::from_secs(2), ..Settings::default() };
    faulty.proxy.forget();
    faulty.set_tag("2.0");
    faulty.release.start().await;
    hung.reaches(1).await;
    faulty.rest().await;
    assert_eq!(in_words(&faulty.proxy.writes()), Vec::<String>::new(), "nothing is written unseen");
    faulty.completes().await;
    faulty.each_pod_changed_once();
}
