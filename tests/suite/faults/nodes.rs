//! Group E, as far as it is about nodes: one that is lost while a batch goes on, and one that is to be drained then.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use locktender::{
    core::ledger::Event,
    sandbox::faults::{Fault, Target},
};
use serde_json::{Value, json};

use super::*;

fn is_ready(pod: &Arc<Value>) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|one| one["type"] == "Ready").any(|one| one["status"] == "True")
}

fn ready(seen: &Seen) -> usize {
    seen.pods.iter().filter(|pod| is_ready(pod)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute of real time, and the simulation has it: on a real control plane alone"]
async fn fault_68_pods_of_a_lost_node_count_and_the_batch_goes_on_when_it_is_back() {
    let faulty = Faulty::at_beta().await;
    let seen = faulty.seen("checkout").await;
    let node_of = |pod: &Arc<Value>| pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    let is_new = |pod: &&Arc<Value>| pod["spec"]["containers"][0]["image"].as_str().unwrap().ends_with(":2.0");
    // A new pod that is lost would keep the beta group from ending, and the confirm waiting.
    let with_new: BTreeSet<String> = seen.pods.iter().filter(is_new).map(node_of).collect();
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for node in seen.pods.iter().map(node_of).filter(|node| !with_new.contains(node)) {
        *nodes.entry(node).or_default() += 1;
    }
    // No more than may be away.
    let (node, lost) = nodes.into_iter().min_by_key(|(_, count)| *count).unwrap();
    assert!((1..=2).contains(&lost), "{lost} on {node}");
    faulty.live().faults(|faults| faults.set_node_down(&node, true));
    faulty.until("checkout", "it is known to be lost", |seen| ready(seen) == 10 - lost).await;
    faulty.confirm(2, "beta");
    let holds = |seen: &Seen| assert!(ready(seen) >= 8, "with those that are lost no more are away than may be");
    let started = |seen: &Seen| {
        holds(seen);
        seen.count(2, Event::StageStarted) == 2
    };
    faulty.until("checkout", "the batch has begun", started).await;
    // Whatever it does beside those that are lost is done by then.
    let stands = |seen: &Seen| {
        holds(seen);
        seen.report.as_ref().is_some_and(|report| !report.reasons.is_empty()) && !seen.waits(2, "batch-1")
    };
    faulty.until("checkout", "it waits, and says why", stands).await;
    faulty.rest().await;
    let seen = faulty.seen("checkout").await;
    holds(&seen);
    assert!(!seen.has(2, Event::Completed) && !seen.has(2, Event::Aborting), "{:?}", seen.told(2));
    faulty.live().faults(|faults| faults.set_node_down(&node, false));
    faulty.completes().await;
    faulty.each_pod_changed_once();
}

/// Asks for a pod to be evicted, once: what tests ask with would try again for minutes. Through the proxy: `kubectl` leaves
/// the sandbox's token out of such a path.
fn evict(faulty: &Faulty, pod: &str) -> Result<(), String> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, eviction.to_string().as_bytes()).unwrap();
    let path = format!("/api/v1/namespaces/shop/pods/{pod}/eviction");
    let mut command = Command::new("kubectl");
    command
        .arg("--kubeconfig")
        .arg(faulty.proxy.kubeconfig())
        .args(["create", "--raw", &path, "--filename"])
        .arg(file.path());
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_69_an_eviction_waits_while_a_batch_uses_the_budget() {
    const BUDGET: &str = "apis/policy/v1/namespaces/shop/poddisruptionbudgets/checkout";
    let mut faulty = Faulty::installed().await;
    // Who is evicted is gone, which nobody has recorded.
    faulty.release.judged = false;
    faulty.commit("a budget", |clone| {
        clone.write(
            "apps/checkout/budget.yaml",
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: checkout}\n\
             spec: {minAvailable: 8, selector: {matchLabels: {app: checkout}}}\n",
        );
    });
    let allowed = async |wanted: i64| {
        let began = Instant::now();
        loop {
            let budget = faulty.get(BUDGET, "poddisruptionbudgets.policy").await;
            if budget.as_ref().is_some_and(|budget| budget["status"]["disruptionsAllowed"] == wanted) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "never {wanted}: {budget:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    allowed(2).await;
    let never = faulty.live().faults(|faults| faults.add(Target::image("*checkout:2.0"), Fault::NeverReady));
    faulty.set_tag("2.0");
    let seen =
        faulty.until("checkout", "two are away", |seen| seen.pods() == "1.9: 8, 2.0: 2" && ready(seen) == 8).await;
    allowed(0).await;
    let pod = seen.pods.iter().find(|pod| is_ready(pod)).unwrap()["metadata"]["name"].as_str().unwrap();
    let refused = evict(&faulty, pod).unwrap_err();
    assert!(refused.contains("disruption budget"), "{refused}");

    faulty.live().faults(|faults| faults.remove(never));
    faulty.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    allowed(2).await;
    evict(&faulty, pod).unwrap();
    let is_away = |seen: &Seen| seen.pods.iter().all(|one| one["metadata"]["name"] != pod) && ready(seen) == 10;
    let seen = faulty.until("checkout", "another one is there in its place", is_away).await;
    assert_eq!(seen.pods(), "1.9: 8, 2.0: 2", "it is as the stage says");
    faulty.complete(2).await;
    faulty.stable(2, "2.0: 10").await;
}
