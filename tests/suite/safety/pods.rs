//! What is done to pods: how many, in which order, and on whose word.

use std::{collections::BTreeMap, time::Duration};

use locktender::core::{
    cluster::{ClusterEvent, Kind, Write},
    rollout::report::{Activity, Reason},
};

use super::{
    history::{image, is_labelled, is_played, patched, play},
    shop::{DEPLOYMENT, Shop, counted, manifest, policy},
};

#[tokio::test(start_paused = true)]
async fn no_more_pods_than_the_quota_are_ever_new() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    let most = |shop: &Shop| {
        let mut most = 0;
        play(&shop.history(), |now, _| most = most.max(now.at("2.0")));
        most
    };
    assert_eq!(most(&shop), 2);
    shop.confirm("beta");
    shop.waits("batch-1").await;
    assert_eq!(most(&shop), 6);
}

/// Releases what `change` makes of 1.9, to the end, and returns the fewest pods that were in service meanwhile.
async fn fewest_in_service(batched: &[&str], changed: &str) -> usize {
    let mut shop = Shop::installed(&policy(&[], batched)).await;
    let installed = shop.history().len();
    shop.commit("release", &[(DEPLOYMENT, Some(changed))]);
    shop.waits("beta").await;
    shop.commit("promote", &[("rollouts/checkout/0002/promote.yaml", Some(""))]);
    shop.until("completed", |report| report.activity == Activity::Stable).await;
    let (mut fewest, mut seen) = (usize::MAX, 0);
    let pods_before = shop.history().iter().take(installed).filter(|change| &*change.resource == "pods").count();
    play(&shop.history(), |now, change| {
        seen += usize::from(&*change.resource == "pods");
        if seen > pods_before {
            fewest = fewest.min(now.in_service());
        }
    });
    fewest
}

#[tokio::test(start_paused = true)]
async fn in_place_never_more_than_max_unavailable_are_out_of_service() {
    assert_eq!(fewest_in_service(&[], &manifest("2.0")).await, 8);
}

#[tokio::test(start_paused = true)]
async fn recreated_never_more_than_max_unavailable_are_out_of_service() {
    assert_eq!(fewest_in_service(&["update: Recreate"], &manifest("2.0")).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_serves_for_a_short_time_is_not_taken_out_for_free() {
    let shop = Shop::at_beta(&policy(&[], &["minReadySeconds: 60"])).await;
    // A node of each unit, but none where a pod of the beta group is: without it the stage would not be there any more.
    let has_beta: Vec<String> = shop.sim.cluster.with(|world| {
        let beta = world.api.list("pods").filter(|pod| image(pod).ends_with(":2.0"));
        beta.map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned()).collect()
    });
    let free = |unit: &str| {
        let names = (1..=3).map(|number| format!("{unit}-{number}"));
        names.into_iter().find(|node| !has_beta.contains(node)).unwrap()
    };
    let nodes = [free("dca"), free("dcb")];
    let nodes_are_down = |down: bool| {
        shop.sim.cluster.with(|world| {
            nodes.iter().for_each(|node| world.faults().set_node_down(node, down));
        });
    };
    nodes_are_down(true);
    shop.sim.pass(Duration::from_secs(7)).await;
    nodes_are_down(false);
    shop.sim.pass(Duration::from_secs(10)).await;
    let restarted = shop.history().len();
    shop.confirm("beta");
    shop.sim.pass(Duration::from_secs(30)).await;
    let (mut least, mut fewest) = (usize::MAX, usize::MAX);
    let mut seen = 0;
    let before: usize = shop.history()[..restarted].iter().filter(|change| is_played(change)).count();
    play(&shop.history(), |now, _| {
        seen += 1;
        let count = if seen < before { &mut least } else { &mut fewest };
        *count = (*count).min(now.in_service());
    });
    assert!(least < 8, "the nodes took {} pods out of service", 10 - least);
    assert_eq!(fewest, 8, "pods that came back serve, whether for long or not");
}

#[tokio::test(start_paused = true)]
async fn a_fix_is_not_blocked_by_the_broken_release_before_it() {
    let policy = policy(&[], &["update: Recreate"]).replace("maxUnavailable: 25%", "maxUnavailable: 1");
    // Slices are named by hashes: which of them is looked at first differs from version to version.
    for broken in ["3.0-never-ready", "3.1-never-ready", "3.2-never-ready", "3.3-never-ready"] {
        let mut shop = Shop::at_beta(&policy).await;
        shop.confirm("beta");
        shop.waits("batch-1").await;
        shop.release(broken);
        shop.pass(2).await;
        assert_eq!(shop.tags().get(broken), Some(&1), "{:?}", shop.tags());
        shop.release("4.0");
        shop.waits("beta").await;
        assert_eq!(shop.tags().get("4.0"), Some(&2), "{:?}", shop.tags());
        assert_eq!(shop.tags().get(broken), None, "what is broken goes first");
    }
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_changed_while_an_endpoint_slice_may_name_it() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    shop.lag.hold(Some("EndpointSlice"));
    shop.release("2.0");
    shop.pass(5).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]), "nobody has seen them leave the EndpointSlice");
    shop.lag.hold(None);
    shop.waits("beta").await;
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_changed_while_a_load_balancer_holds_it() {
    let mut shop = Shop::installed(&policy(&[], &["graceful: {finalizers: [slb.example.com/protected]}"])).await;
    shop.pass(1).await;
    let dead = |shop: &Shop, dead| shop.sim.cluster.with(|world| world.faults().set_load_balancer_dead(dead));
    dead(&shop, true);
    shop.release("2.0");
    shop.pass(5).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]), "nobody has taken them out of the load balancer");
    dead(&shop, false);
    shop.waits("beta").await;
    play(&shop.history(), |_, change| {
        if let Some((before, _)) = patched(change) {
            let held = before["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
            assert!(!held, "{} was changed while its load balancer held it", before["metadata"]["name"]);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_in_service_again_only_after_its_containers_restarted() {
    let shop = Shop::at_beta(&policy(&[], &[])).await;
    let mut was: BTreeMap<String, String> = BTreeMap::new();
    let container = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        format!("{}#{}", status["containerID"], status["restartCount"])
    };
    let mut back = 0;
    play(&shop.history(), |_, change| {
        let name = change.object["metadata"]["name"].as_str().unwrap().to_owned();
        if let Some((before, _)) = patched(change) {
            was.insert(name.clone(), container(before));
        }
        if let Some(was) = was.get(&name).filter(|_| &*change.resource == "pods")
            && is_labelled(&change.object)
            && change.previous.as_ref().is_some_and(|before| !is_labelled(before))
        {
            assert_ne!(*was, container(&change.object), "{name} serves with the container of before");
            assert!(image(&change.object).ends_with(":2.0"));
            back += 1;
        }
    });
    assert_eq!(back, 2);
}

#[tokio::test(start_paused = true)]
async fn fault_19_nothing_is_done_on_a_view_that_went_back() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    let listed = |version: String, objects| ClusterEvent::Listed {
        kind: Kind::new("", "v1", "Pod"),
        objects,
        resource_version: version,
    };
    shop.lag.say(listed("1".to_owned(), Vec::new()));
    shop.until("told that its view is old", |report| {
        report.reasons.iter().any(|reason| matches!(reason, Reason::ClusterStale { .. }))
    })
    .await;
    shop.confirm("beta");
    // Before everything is listed anew, which would heal it.
    shop.pass(5).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    // The server has caught up: a list as new as what was seen.
    shop.restart();
    shop.waits("batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn every_write_names_what_it_was_decided_on() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.commit("abort", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
    shop.until("back", |report| report.activity == Activity::Stable).await;
    let written = shop.sim.cluster.state.lock().unwrap().written.clone();
    let mut patches = 0;
    for written in &written {
        if let Write::Patch { uid, resource_version, key, .. } | Write::Delete { uid, resource_version, key, .. } =
            &written.write
        {
            assert!(!uid.is_empty() && resource_version.is_some(), "{key} is changed whatever it is now");
            patches += 1;
        }
    }
    assert!(patches > 10, "{patches} patches");
}
