//! Group A: process and controller.

use locktender::core::rollout::report::{Activity, Reason};

use super::*;
use crate::simulation::{faults::WriteFault, rollouts};

/// Completes a release in which the controller dies once.
async fn dies_once(fault: WriteFault, at: impl Fn(&str) -> bool + Send + 'static) -> Sim {
    let sim = merged().await;
    sim.faults.once(fault, at);
    completed(&sim, 2).await;
    assert_eq!(sim.faults.crashes(), 1, "it died where it was to");
    assert_eq!(super::at(&sim, "2.0"), 10);
    sim
}

fn changes_an_image(write: &str) -> bool {
    write.contains("Pod/") && write.contains("\"containers\"")
}

#[tokio::test(start_paused = true)]
async fn fault_01_killed_before_a_write() {
    each_once(&dies_once(WriteFault::CrashBefore, changes_an_image).await);
}

#[tokio::test(start_paused = true)]
async fn fault_02_killed_after_a_write() {
    each_once(&dies_once(WriteFault::CrashAfter, changes_an_image).await);
}

#[tokio::test(start_paused = true)]
async fn fault_03_killed_after_the_push_and_before_the_write() {
    let sim = dies_once(WriteFault::CrashAfter, |write| write.contains("beta confirmed")).await;
    each_once(&sim);
    let started = |record: &&locktender::core::ledger::Record| record.event == Event::StageStarted;
    assert_eq!(sim.records("checkout", 2).iter().filter(started).count(), 3, "each stage started once");
}

/// The remote lags behind when the controller comes back: the anchor tells what was pushed and acted on.
#[tokio::test(start_paused = true)]
async fn fault_03_killed_after_acting_on_a_push_that_the_remote_does_not_show() {
    let sim = merged().await;
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    let git = sim.git.clone();
    let shows = sim.git.tip_now();
    sim.faults.once(WriteFault::CrashAfter, move |write| {
        let now = write.contains("Pod/") && write.contains("\"locktender.dev/in-service\":null");
        if now {
            git.trouble(|trouble| trouble.stale = shows.clone());
        }
        now
    });
    confirm(&sim, 2, "beta").await;
    recorded(&sim, 2, Event::StageStarted, "batch-1").await;
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(sim.faults.crashes(), 1);
    assert_eq!(super::at(&sim, "2.0"), 6, "the stage in hand goes on: the anchor says that it started");
    sim.git.trouble(|trouble| trouble.stale = None);
    confirm(&sim, 2, "batch-1").await;
    recorded(&sim, 2, Event::Completed, "batch-2").await;
    each_once(&sim);
}

fn configured(tag: &str, colour: &str) -> String {
    let with = "image: registry.example/checkout:TAG\n        envFrom: [{configMapRef: {name: colours}}]";
    let image = format!("image: registry.example/checkout:{tag}");
    manifest(tag).replace(&image, &with.replace("TAG", tag))
        + &format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: colours}}\ndata: {{colour: {colour}}}\n")
}

#[tokio::test(start_paused = true)]
async fn fault_04_killed_between_the_objects_of_a_step() {
    for part in ["creating ReplicaSet/", "applying ConfigMap/colours"] {
        let sim = Sim::new(&[
            ("policies/two-data-centers.yaml", rollouts::POLICY),
            ("apps/checkout/app.yaml", rollouts::APP),
            (DEPLOYMENT, &configured("1.9", "green")),
        ]);
        completed(&sim, 1).await;
        sim.git.commit("blue", &[(DEPLOYMENT, Some(&configured("1.9", "blue")))]);
        sim.faults.once(WriteFault::CrashAfter, move |write| write.contains(part));
        completed(&sim, 2).await;
        assert_eq!(sim.faults.crashes(), 1);
        let left: Vec<_> = list(&sim, "configmaps")
            .iter()
            .filter(|one| one["metadata"]["namespace"] == "shop" && one["data"]["colour"].is_string())
            .map(|one| one["data"]["colour"].clone())
            .collect();
        assert_eq!(left, ["blue"], "the old configuration went with the last pod that read it");
        assert_eq!(in_service(&sim), 10);
    }
}

fn two_apps() -> Vec<(&'static str, String)> {
    let other = |text: &str| text.replace("checkout", "search");
    vec![
        ("policies/two-data-centers.yaml", rollouts::POLICY.to_owned()),
        ("apps/checkout/app.yaml", rollouts::APP.to_owned()),
        (DEPLOYMENT, manifest("1.9")),
        ("apps/search/app.yaml", other(rollouts::APP)),
        ("apps/search/deployment.yaml", other(&manifest("1.9"))),
    ]
}

#[tokio::test(start_paused = true)]
async fn fault_06_deciding_panics_for_one_application() {
    let files = two_apps();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let sim = Sim::new(&files);
    sim.panic_for(Some("search"));
    completed(&sim, 1).await;
    assert!(sim.records("search", 1).is_empty(), "it is left alone");
    let now = sim.clock.time();
    let report = sim.report("search").expect("it says so");
    assert_eq!(report.activity, Activity::Held);
    let [Reason::Quarantined { times, until }] = report.reasons.as_slice() else { panic!("{report:?}") };
    assert!((3..20).contains(times), "{times} times in half an hour is neither giving up nor a loop");
    assert!(*until > now && until.as_second() - now.as_second() <= 300, "it is tried again: {until}");
    let said = report.reasons[0].to_string();
    assert!(
        said.contains("in a row, by a mistake of Locktender's own") && said.contains("nothing is done before"),
        "{said}"
    );
    sim.panic_for(None);
    sim.recorded("search", 1, Event::StageWaiting, "beta", 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fault_10_a_newer_controllers_state_is_not_touched() {
    let mut sim = installed().await;
    sim.kill();
    let plan = sim.git.file("rollouts/checkout/0001/plan.yaml").unwrap();
    let journal = sim.git.file("rollouts/checkout/0001/journal.yaml").unwrap();
    let newer = |text: &str| text.replace("v1alpha1", "v2").replace("checkout/0001", "checkout/0002");
    sim.git.commit(
        "checkout 0002: opened by a newer controller",
        &[
            ("rollouts/checkout/0002/plan.yaml", Some(&newer(&plan))),
            ("rollouts/checkout/0002/journal.yaml", Some(&journal.replace("event: Completed", "event: Levitated"))),
            (DEPLOYMENT, Some(&manifest("2.0"))),
        ],
    );
    // There is something to put back, and the anchor is there at once; Git is not.
    sim.cluster.with(|world| {
        let mut handle = world.api.get("deployments.apps", "shop", "checkout").unwrap().as_ref().clone();
        handle["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .retain(|name, _| !name.starts_with("locktender.dev/"));
        world.api.update(handle, None).unwrap();
    });
    sim.git.trouble(|trouble| trouble.slow = Duration::from_secs(50));
    let before = (sim.git.tip_now(), written(&sim).len());
    sim.start();
    sim.pass(Duration::from_secs(3600)).await;
    assert_eq!((sim.git.tip_now(), written(&sim).len()), before, "older code refuses newer state without writing");
}

#[tokio::test(start_paused = true)]
async fn fault_12_at_rest_nothing_is_written() {
    let sim = installed().await;
    sim.pass(Duration::from_secs(60)).await;
    let before = (sim.git.tip_now(), written(&sim).len());
    sim.pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!((sim.git.tip_now(), written(&sim).len()), before);
}
