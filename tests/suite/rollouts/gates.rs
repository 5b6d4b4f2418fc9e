//! Pods with a readiness gate of ours, which a Service of somebody else's selects as well.

use std::{collections::BTreeSet, sync::Arc};

use locktender::core::rollout::labels;
use serde_json::{Value, json};

use super::*;
use crate::{
    histories::release::{Place, Seen},
    support::cluster,
};

const GATES: &str = "readinessGates: [{conditionType: locktender.dev/in-service}]";
const FIELDS: &str = "\
beta: {perUnit: 1}
confirm: beta
maxUnavailable: 50%
graceful: {gracePeriodSeconds: 3, readinessGate: true}
";

/// Whether a pod's gate lets requests in; `None` where nobody has set it.
fn gate(pod: &Value) -> Option<bool> {
    let mut conditions = pod["status"]["conditions"].as_array()?.iter();
    Some(conditions.find(|condition| condition["type"] == labels::GATE)?["status"] == "True")
}

fn names<'a>(pods: impl Iterator<Item = &'a Arc<Value>>) -> BTreeSet<String> {
    pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

impl Transcript {
    /// Somebody else's Service selects the pods by their own label.
    async fn selected_by_others(&mut self) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "others", "namespace": "shop"},
            "spec": {"selector": {"app": "checkout"}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        match self.release.place() {
            Place::Simulation => drop(self.release.cluster().with(|world| world.api.create(service).unwrap())),
            _ => drop(self.release.live().ask("POST", "api/v1/namespaces/shop/services", service).await.unwrap()),
        }
    }

    /// The pods that it sends requests to.
    async fn sent_to_by_others(&self) -> BTreeSet<String> {
        let slices =
            self.release.list("apis/discovery.k8s.io/v1/endpointslices", "endpointslices.discovery.k8s.io").await;
        let of_it = slices.iter().filter(|it| it["metadata"]["labels"]["kubernetes.io/service-name"] == "others");
        let endpoints = of_it.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let sent_to = endpoints.filter(|endpoint| endpoint["conditions"]["serving"] == true);
        sent_to.map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it sends to these pods and no others.
    async fn is_sent_to_by_others(&self, pods: &BTreeSet<String>) {
        let began = tokio::time::Instant::now();
        while self.sent_to_by_others().await != *pods {
            assert!(began.elapsed().as_secs() < 120, "{:?}, not {pods:?}", self.sent_to_by_others().await);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pods_with_a_gate_leave_every_service_before_they_are_changed() {
    let mut told = checkout(&policy("", FIELDS), &deployment(4, "1.9", GATES)).await;
    let seen = told.complete(1).await;
    assert!(seen.pods.iter().all(|pod| gate(pod) == Some(true)), "{:#?}", seen.pods);
    told.selected_by_others().await;
    told.is_sent_to_by_others(&names(seen.pods.iter())).await;
    let before = seen.identities();

    told.merge("2.0");
    // Pods that are drained and not changed yet; those that still are so afterwards were so meanwhile.
    let drained = |seen: &Seen| {
        let drained = |pod: &&Arc<Value>| pod["metadata"]["annotations"][labels::DRAINED].is_string();
        names(seen.pods.iter().filter(drained))
    };
    let mut checked = BTreeSet::new();
    loop {
        let seen = told
            .release
            .until("checkout", "pods are drained", |seen| !drained(seen).is_empty() || seen.waits(2, "beta"));
        let before = drained(&seen.await);
        let sent_to = told.sent_to_by_others().await;
        let after = told.release.seen("checkout").await;
        for pod in before.intersection(&drained(&after)) {
            assert!(!sent_to.contains(pod), "{pod} is drained, and requests are sent to it");
            checked.insert(pod.clone());
        }
        if after.waits(2, "beta") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!checked.is_empty() || cluster::real().is_some(), "somebody was looked at");
    told.waits(2, "beta").await;
    told.restart().await;
    told.decide(2, "confirm/beta", "");
    let seen = told.stable(2).await;
    assert_eq!((seen.pods(), seen.identities()), ("2.0: 4".to_owned(), before.clone()));
    assert!(seen.pods.iter().all(|pod| gate(pod) == Some(true)));
    told.is_sent_to_by_others(&names(seen.pods.iter())).await;
    // The controller sees pods that come later, too.
    told.release
        .delete(&format!("api/v1/namespaces/shop/pods/{}", names(seen.pods.iter()).first().unwrap()), "pods")
        .await;
    told.release.judged = false;
    let fresh = |seen: &Seen| {
        seen.pods.len() == 4 && seen.pods.iter().all(|pod| gate(pod) == Some(true)) && seen.identities() != before
    };
    told.release.until("checkout", "another is in service", fresh).await;
    told!(told);
}
