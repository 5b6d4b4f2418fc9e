//! Rows 8 and 9: of two controllers one acts, whatever happens to the other and to their clocks.

use super::*;
use crate::simulation::{
    replicas::{LEASE, Replica, Replicas, Silent, Stop},
    rollouts,
};

/// Two controllers, of which A leads; 1.9 is installed, and releases go through without confirms.
async fn two(rate_of_a: f64, rate_of_b: f64) -> (Replicas, Replica, Replica) {
    let policy = rollouts::POLICY.replace("confirm: everyBatch", "confirm: none");
    let replicas = Replicas::new(&[
        ("policies/two-data-centers.yaml", &policy),
        ("apps/checkout/app.yaml", rollouts::APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    let a = replicas.start("A", rate_of_a);
    replicas.until("A leads", || a.leads()).await;
    let b = replicas.start("B", rate_of_b);
    replicas.completed(1).await;
    // Its anchor, and whatever else comes last, is written as well.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(replicas.did("B").is_empty(), "one acts");
    (replicas, a, b)
}

fn merge(replicas: &Replicas) {
    replicas.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
}

/// How often each pod's image was changed: in all, each exactly once.
fn each_pod_once(replicas: &Replicas) {
    let written = replicas.cluster.state.lock().unwrap().written.clone();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in written.iter().filter(|one| one.result.is_ok()) {
        if let Write::Patch { key, body, .. } = &one.write
            && body.pointer("/spec/containers").is_some()
        {
            *counts.entry(key.name.clone()).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 10, "every pod was changed: {counts:?}");
    assert!(counts.values().all(|count| *count == 1), "none was changed twice: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn fault_08_a_paused_leader_that_wakes_writes_nothing() {
    // At every write and push of a release the leader is stopped; another takes over, ends the release, and it is woken.
    let writes = {
        let (replicas, a, _b) = two(1.0, 1.0).await;
        let before = replicas.did("A").len();
        merge(&replicas);
        replicas.completed(2).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(a.leads());
        replicas.did("A").len() - before
    };
    assert!(writes > 30, "{writes} writes and pushes");
    // A sample; `LOCKTENDER_SWEEP=all` goes through every one.
    let step = if crate::simulation::exhaustive::is_whole_sweep() { 1 } else { 7 };
    for at in (0..writes).step_by(step) {
        let (replicas, a, b) = two(1.0, 1.0).await;
        a.stop_after(at, Stop::Before);
        merge(&replicas);
        replicas.until("A is stopped", || a.is_stopped()).await;
        let stopped = replicas.clock.time();
        let before = replicas.did("A").len();
        replicas.until("B leads", || b.leads()).await;
        let took = replicas.clock.time().duration_since(stopped);
        assert!(took <= jiff::SignedDuration::try_from(LEASE).unwrap() + jiff::SignedDuration::from_secs(1), "{took}");
        replicas.completed(2).await;
        a.wake();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(replicas.did("A").len(), before, "at {at}: nothing of the old leader's arrives");
        assert!(b.leads() && !a.leads());
        each_pod_once(&replicas);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_08_what_was_on_the_way_is_refused_or_still_right() {
    for at in (0..40).step_by(9) {
        let (replicas, a, b) = two(1.0, 1.0).await;
        a.stop_after(at, Stop::OnTheWay);
        merge(&replicas);
        replicas.until("A is stopped", || a.is_stopped()).await;
        replicas.completed(2).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        a.wake();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(b.leads());
        each_pod_once(&replicas);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_08_a_leader_that_dies_is_followed_within_the_lease_and_a_second() {
    for early in [0, 700, 1_400, 2_900] {
        let (replicas, a, b) = two(1.0, 1.0).await;
        merge(&replicas);
        tokio::time::sleep(Duration::from_millis(early)).await;
        a.kill();
        let died = replicas.clock.time();
        replicas.until("B leads", || b.leads()).await;
        let took = replicas.clock.time().duration_since(died);
        assert!(took <= jiff::SignedDuration::try_from(LEASE).unwrap() + jiff::SignedDuration::from_secs(1), "{took}");
        replicas.completed(2).await;
        each_pod_once(&replicas);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_09_clocks_of_twice_and_half_the_rate() {
    for (rate_of_a, rate_of_b) in [(0.5, 1.0), (1.0, 2.0), (2.0, 1.0), (1.0, 0.5)] {
        let (replicas, a, b) = two(rate_of_a, rate_of_b).await;
        // No longer: what a clock of half the rate is behind by then, its controller waits for at every pod.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(a.leads() && !b.leads(), "renewed in time, it stays where it is");
        // In the middle of a release renewals get no answer any more, and everything else does.
        merge(&replicas);
        replicas.until("it goes on", || at_in(&replicas, "2.0") >= 2).await;
        replicas.silence("A", Some(Silent::Unheard));
        replicas.until("B leads", || b.leads()).await;
        let taken = replicas.clock.time();
        replicas.completed(2).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let late = replicas.did("A").into_iter().filter(|did| did.at >= taken);
        let late: Vec<String> = late.map(|did| format!("{} {}", did.at, did.what)).collect();
        assert!(late.is_empty(), "{rate_of_a} and {rate_of_b}: {late:?}");
        each_pod_once(&replicas);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_09_slow_renewals_do_not_cost_the_lease() {
    let (replicas, a, b) = two(1.0, 1.0).await;
    for _ in 0..20 {
        replicas.silence("A", Some(Silent::Unheard));
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        replicas.silence("A", None);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(a.leads() && !b.leads());
}

/// The machine of who leads sleeps for an hour, in the middle of a release.
#[tokio::test(start_paused = true)]
async fn fault_89_a_leader_that_slept_for_an_hour_has_lost_the_lease() {
    for at in [3, 9, 20] {
        let (replicas, a, b) = two(1.0, 1.0).await;
        a.stop_after(at, Stop::Before);
        merge(&replicas);
        replicas.until("A is asleep", || a.is_stopped()).await;
        let mut standing = a.standing.clone();
        standing.mark_unchanged();
        a.slept(Duration::from_secs(3_600));
        a.wake();
        // Perhaps it takes the lease again at once: then it begins anew.
        replicas.until("A knows", || standing.has_changed().unwrap()).await;
        replicas.completed(2).await;
        assert!(a.leads() != b.leads(), "at {at}");
        each_pod_once(&replicas);
    }
}

/// Its last renewals were carried out and never answered: a moment ago, for so long that it does not lead any more, or
/// for so long that it tries to take what it has.
#[tokio::test(start_paused = true)]
async fn fault_05_who_leaves_gives_the_lease_back_whatever_became_of_its_renewals() {
    for unanswered in [Duration::ZERO, Duration::from_millis(3_100), LEASE / 2 + Duration::from_millis(100), LEASE] {
        let replicas = Replicas::new(&[]);
        let a = replicas.start("A", 1.0);
        replicas.until("A leads", || a.leads()).await;
        replicas.silence("A", Some(Silent::CarriedOut));
        tokio::time::sleep(unanswered).await;
        assert_eq!(replicas.holder(), "A");
        replicas.silence("A", None);
        a.leaves().await;
        assert_eq!(replicas.holder(), "", "after {unanswered:?} without an answer");
    }
}

fn at_in(replicas: &Replicas, tag: &str) -> usize {
    let pods = replicas.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let end = format!(":{tag}");
    pods.iter()
        .filter(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|it| it.ends_with(&end)))
        .count()
}
