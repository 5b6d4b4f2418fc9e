//! Groups A, E and F, as far as they need an API server: controllers that die in doubt, versions that break late or are
//! gone, and rights that are taken away.

use std::collections::BTreeSet;

use locktender::{
    core::ledger::Event,
    sandbox::faults::{Fault, Target},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    histories::live::LABEL,
    support::{
        cluster,
        proxy::{Effect, On, Refusal},
    },
};

/// The policy with a deadline that a test can wait for.
fn impatient() -> String {
    POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 4")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_02_killed_after_writes_whose_answers_it_never_saw() {
    let mut faulty = Faulty::installed().await;
    let before = faulty.seen("checkout").await.identities();
    let held = faulty.proxy.inject(On::writes().when(Asked::sets_images).times(2), Effect::AnswerHeld);
    faulty.set_tag("2.0");
    held.reaches(2).await;
    faulty.until("checkout", "the server has done it", |seen| seen.pods() == "1.9: 8, 2.0: 2").await;
    faulty.release.lose_controller_and_disk().await;
    held.end();
    faulty.release.start().await;
    let seen = faulty.completes().await;
    faulty.each_pod_changed_once();
    assert_eq!(seen.identities(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_03_killed_after_the_push_and_before_any_pod_is_touched() {
    let mut faulty = Faulty::installed().await;
    let hung = faulty.proxy.inject(On::writes().of("pods"), Effect::Hang);
    faulty.set_tag("2.0");
    hung.reaches(1).await;
    let seen = faulty.seen("checkout").await;
    assert!(seen.has(2, Event::StageStarted), "the intent is pushed before it is acted on");
    faulty.release.lose_controller_and_disk().await;
    hung.end();
    faulty.release.start().await;
    faulty.completes().await;
    faulty.each_pod_changed_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_04_killed_between_two_objects_of_a_step() {
    let mut faulty = Faulty::empty().await;
    // The second slice is never asked for: its unit has no pod.
    let slices = |one: &Asked| one.resource == "replicasets.apps";
    let hung = faulty.proxy.inject(On::writes().when(slices).after(1), Effect::Hang);
    faulty.merge_with(&[]);
    hung.reaches(1).await;
    faulty.until("checkout", "one unit has its pod", |seen| seen.pods.len() == 1).await;
    faulty.release.lose_controller_and_disk().await;
    hung.end();
    faulty.release.start().await;
    faulty.install().await;
    let made = faulty.list("apis/apps/v1/replicasets", "replicasets.apps").await;
    assert_eq!(made.len(), 2, "the rest is done, and nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a quarter of a minute of real time, and the simulation has it: on a real control plane alone"]
async fn fault_67_pods_that_die_while_they_are_watched_take_the_release_back() {
    let patient = POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 12");
    let patient = patient.replace("      beta:", "      minReadySeconds: 10\n      beta:");
    let faulty = Faulty::installed().await;
    faulty.commit("patience", |clone| {
        clone.write(POLICY_FILE, &patient);
    });
    faulty.set_tag("2.0");
    faulty
        .until("checkout", "two are ready", |seen| {
            let ready = |pod: &&std::sync::Arc<Value>| pod["status"]["containerStatuses"][0]["ready"] == true;
            let new = |pod: &&std::sync::Arc<Value>| {
                pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(":2.0"))
            };
            seen.pods.iter().filter(new).filter(ready).count() == 2
        })
        .await;
    faulty.live().faults(|faults| faults.add(Target::image("*checkout:2.0"), Fault::Crash));
    let seen = faulty.stable(2, "1.9: 10").await;
    assert!(seen.has(2, Event::Aborted) && !seen.has(2, Event::StageWaiting), "{:?}", seen.told(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_77_going_back_to_an_image_that_is_gone_costs_two_pods_and_stops() {
    let faulty = Faulty::installed().await;
    faulty.commit("impatience", |clone| {
        clone.write(POLICY_FILE, &impatient());
    });
    faulty.set_tag("2.0");
    faulty.complete(2).await;
    faulty.live().faults(|faults| faults.add(Target::image("*checkout:1.9"), Fault::BadImage));
    faulty.set_tag("1.9");
    let seen = faulty.stable(3, "2.0: 10").await;
    assert!(seen.has(3, Event::Aborted), "{:?}", seen.told(3));
    let aborting = seen.last(3, Event::Aborting).unwrap();
    assert!(aborting.why.contains("cannot be pulled"), "{}", aborting.why);
    let moved: BTreeSet<String> = faulty
        .proxy
        .writes()
        .iter()
        .filter(|one| one.body.to_string().contains("checkout:1.9"))
        .map(|one| one.name.clone())
        .collect();
    assert!(moved.len() <= 3, "at most a quarter of them was touched: {moved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_85_rights_that_are_taken_away_hold_it_and_nothing_more() {
    const BINDINGS: &str = "apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let mut faulty = Faulty::at_beta().await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "locktender-tests", "labels": {LABEL: "true"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "the-controller"}],
    });
    let taken = if cluster::real().is_some() {
        faulty.live().ask("POST", BINDINGS, binding.clone()).await.unwrap();
        faulty.may_write(true).await;
        faulty.proxy.acts_as("the-controller");
        faulty.release.start().await;
        faulty.until("checkout", "it is where it was", |seen| seen.waits(2, "beta")).await;
        faulty.live().ask("DELETE", &format!("{BINDINGS}/locktender-tests"), Value::Null).await.unwrap();
        faulty.may_write(false).await;
        None
    } else {
        let refusal = Refusal::new(403, "Forbidden", "pods is forbidden: User \"the-controller\" cannot patch it");
        Some(faulty.proxy.inject(On::writes(), Effect::Refused(refusal)))
    };
    faulty.proxy.forget();
    faulty.confirm(2, "beta");
    let seen = faulty.says("checkout", "forbidden").await;
    assert_eq!(seen.pods(), "1.9: 8, 2.0: 2");
    faulty.rest().await;
    let tried = faulty.proxy.writes().len();
    assert!(tried < 40, "it backs off: {tried}");
    assert_eq!(faulty.seen("checkout").await.pods(), "1.9: 8, 2.0: 2", "nothing moves");
    match taken {
        Some(taken) => taken.end(),
        None => drop(faulty.live().ask("POST", BINDINGS, binding).await.unwrap()),
    }
    faulty.complete(2).await;
    faulty.stable(2, "2.0: 10").await;
}

impl Faulty {
    /// Waits until the server says that the controller may, or may not, write.
    async fn may_write(&self, wanted: bool) {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": "the-controller",
                "resourceAttributes": {"namespace": "shop", "verb": "patch", "resource": "pods"},
            },
        });
        let path = "apis/authorization.k8s.io/v1/subjectaccessreviews";
        while self.live().ask("POST", path, review.clone()).await.unwrap()["status"]["allowed"] != wanted {
            tokio::task::yield_now().await;
        }
    }
}
