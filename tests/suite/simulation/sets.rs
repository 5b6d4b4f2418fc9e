//! StatefulSets and DaemonSets that ran before are taken over, and given back: no pod restarts for either.

use std::time::Duration;

use locktender::core::{ledger::Event, rollout::labels};
use serde_json::{Value, json};

use super::{
    Sim,
    exhaustive::{daemon_set, stateful_set},
    handover::{APP_FILE, BARE, POLICY_FILE, Since},
    rollouts::{APP, DEPLOYMENT, POLICY},
};

/// How a kind is written at a tag, where it is, and how many pods it has.
#[derive(Clone, Copy)]
pub struct Kind {
    pub manifest: fn(&str) -> String,
    pub resource: &'static str,
    pub pods: usize,
}

pub const ORDINALS: Kind = Kind { manifest: stateful_set, resource: "statefulsets.apps", pods: 5 };
pub const NODES: Kind = Kind { manifest: daemon_set, resource: "daemonsets.apps", pods: 6 };

fn list(sim: &Sim, resource: &str) -> Vec<Value> {
    sim.cluster.with(|world| world.api.list(resource).map(|one| Value::clone(one)).collect())
}

impl Kind {
    pub fn set(self, sim: &Sim) -> Value {
        list(sim, self.resource).remove(0)
    }

    /// Says what is not as it is with any set that its own controller rolls out.
    pub fn is_its_own(self, sim: &Sim) -> Vec<String> {
        let (set, service) = (self.set(sim), list(sim, "services").remove(0));
        let partition = &set["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
        let notes = &set["metadata"]["annotations"];
        let checks = [
            ("a note", notes[labels::ROLLOUT].is_null() && notes[labels::REGROUPING].is_null()),
            (
                "held back",
                set["spec"]["updateStrategy"]["type"] == "RollingUpdate" && partition.as_u64().unwrap_or(0) == 0,
            ),
            ("its Service", service["spec"]["selector"][labels::IN_SERVICE].is_null()),
        ];
        checks.iter().filter(|(_, right)| !right).map(|(what, _)| format!("{what}: {set:#}")).collect()
    }

    /// Says what is not as it is with a set that is staged, and at rest.
    pub fn is_staged(self, sim: &Sim) -> Vec<String> {
        let (set, service) = (self.set(sim), list(sim, "services").remove(0));
        let partition = &set["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
        let notes = &set["metadata"]["annotations"];
        let is_labelled = |pod: &Value| {
            let own = &pod["metadata"]["labels"];
            own[labels::APP] == "checkout" && own[labels::IN_SERVICE] == "true" && own[labels::DIGEST].is_string()
        };
        let checks = [
            ("no note", notes[labels::ROLLOUT].is_string() && notes[labels::REGROUPING].is_null()),
            (
                "held back",
                set["spec"]["updateStrategy"]["type"] == "RollingUpdate" && partition.as_u64().unwrap_or(0) == 0,
            ),
            ("its Service", service["spec"]["selector"][labels::IN_SERVICE] == "true"),
            ("its pods", list(sim, "pods").iter().all(is_labelled)),
        ];
        checks.iter().filter(|(_, right)| !right).map(|(what, _)| format!("{what}: {set:#}")).collect()
    }

    /// 1.9 runs without a policy.
    async fn bare(self) -> Sim {
        let sim = Sim::new(&[(POLICY_FILE, POLICY), (APP_FILE, BARE), (DEPLOYMENT, &(self.manifest)("1.9"))]);
        settled(&sim, 1, "all").await;
        assert_eq!(list(&sim, "pods").len(), self.pods);
        sim
    }

    fn undisturbed(self, sim: &Sim, since: Since) {
        assert_eq!(since.disturbed(sim, self.pods), Vec::<String>::new(), "{}", sim.git.subjects().join("\n"));
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        assert!(list(sim, "pods").iter().all(|pod| restarts(pod).unwrap_or(0) == 0));
    }

    fn merges(self, sim: &Sim, tag: &str) {
        sim.git.commit(tag, &[(DEPLOYMENT, Some(&(self.manifest)(tag)))]);
    }
}

fn stage_it(sim: &Sim) {
    sim.git.commit("stage it", &[(APP_FILE, Some(APP))]);
}

fn decide(sim: &Sim, number: u32, file: &str) {
    sim.git.commit(file, &[(&format!("rollouts/checkout/{number:04}/{file}"), Some(""))]);
}

async fn recorded(sim: &Sim, number: u32, event: Event, stage: &str) {
    if let Err(why) = sim.recorded("checkout", number, event, stage, 1).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

async fn settled(sim: &Sim, number: u32, stage: &str) {
    recorded(sim, number, Event::Completed, stage).await;
    sim.pass(Duration::from_secs(60)).await;
    let reasons = sim.report("checkout").unwrap().reasons;
    assert!(reasons.is_empty(), "{reasons:?}");
}

/// How many pods there are at a tag.
fn at(sim: &Sim, tag: &str) -> usize {
    let image = format!("registry.example/checkout:{tag}");
    list(sim, "pods").iter().filter(|pod| pod["spec"]["containers"][0]["image"] == image.as_str()).count()
}

async fn there_and_back(kind: Kind) {
    let mut sim = kind.bare().await;
    let since = Since::now(&sim);
    stage_it(&sim);
    settled(&sim, 2, "beta").await;
    assert_eq!(kind.is_staged(&sim), Vec::<String>::new());
    kind.undisturbed(&sim, since);

    kind.merges(&sim, "2.0");
    recorded(&sim, 3, Event::StageWaiting, "beta").await;
    assert!((1..kind.pods).contains(&at(&sim, "2.0")), "the beta group alone");
    decide(&sim, 3, "promote.yaml");
    sim.until("checkout", "2.0 is complete", |report| report.reasons.is_empty()).await;
    sim.pass(Duration::from_secs(120)).await;
    assert_eq!(at(&sim, "2.0"), kind.pods);

    let since = Since::now(&sim);
    sim.git.commit("no policy", &[(APP_FILE, Some(BARE))]);
    settled(&sim, 4, "all").await;
    assert_eq!(kind.is_its_own(&sim), Vec::<String>::new());
    sim.pass(Duration::from_secs(1500)).await;
    assert_eq!(since.disturbed(&sim, kind.pods), Vec::<String>::new(), "{}", sim.git.subjects().join("\n"));

    kind.merges(&sim, "2.1");
    settled(&sim, 5, "all").await;
    assert_eq!(at(&sim, "2.1"), kind.pods, "its own controller rolls it out");
    let since = Since::now(&sim);
    stage_it(&sim);
    settled(&sim, 6, "beta").await;
    assert_eq!(since.disturbed(&sim, kind.pods), Vec::<String>::new(), "{}", sim.git.subjects().join("\n"));
    assert_eq!(kind.is_staged(&sim), Vec::<String>::new());
    sim.assert_invariants();
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_taken_over_and_given_back() {
    there_and_back(ORDINALS).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_is_taken_over_and_given_back() {
    there_and_back(NODES).await;
}

/// Policy and another image in one commit: it is taken over as it runs, goes in batches, and back to what it was.
async fn taken_over_and_released_at_once(kind: Kind) {
    let sim = kind.bare().await;
    let since = Since::now(&sim);
    let files = [(APP_FILE, Some(APP)), (DEPLOYMENT, Some(&*(kind.manifest)("2.0")))];
    sim.git.commit("stage it, and 2.0", &files);
    recorded(&sim, 2, Event::StageWaiting, "beta").await;
    assert!((1..kind.pods).contains(&at(&sim, "2.0")), "the beta group alone");
    decide(&sim, 2, "abort.yaml");
    recorded(&sim, 2, Event::Aborted, "").await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(at(&sim, "1.9"), kind.pods);
    assert_eq!(kind.is_its_own(&sim), Vec::<String>::new());
    assert_eq!(since.disturbed(&sim, kind.pods - 2), Vec::<String>::new(), "images changed in place, twice");
    assert_eq!(sim.git.file(APP_FILE).unwrap(), BARE, "Git is repaired");
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_that_is_released_as_it_is_taken_over_goes_back_to_what_it_was() {
    taken_over_and_released_at_once(ORDINALS).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_that_is_released_as_it_is_taken_over_goes_back_to_what_it_was() {
    taken_over_and_released_at_once(NODES).await;
}

/// Somebody made it before there was a release repository for it.
async fn made_by_hand(kind: Kind) {
    use locktender::sandbox::api::WriteOptions;
    let sim = Sim::new(&[(POLICY_FILE, POLICY)]);
    sim.cluster.with(|world| {
        let options = WriteOptions { manager: "kubectl-create".to_owned(), ..WriteOptions::default() };
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        world.api.create_with(space, &options).unwrap();
        for part in (kind.manifest)("1.9").split("---\n") {
            let mut object: Value = serde_yaml::from_str(part).unwrap();
            object["metadata"]["namespace"] = json!("shop");
            world.api.create_with(object, &options).unwrap();
        }
    });
    sim.pass(Duration::from_secs(60)).await;
    let since = Since::now(&sim);
    // What runs must be what Git says.
    sim.git.commit("checkout 2.0", &[(APP_FILE, Some(APP)), (DEPLOYMENT, Some(&(kind.manifest)("2.0")))]);
    sim.pass(Duration::from_secs(60)).await;
    let reasons = format!("{:?}", sim.report("checkout").unwrap().reasons);
    assert!(reasons.contains("containers[name=app].image; merge what runs first"), "{reasons}");
    kind.merges(&sim, "1.9");
    settled(&sim, 1, "beta").await;
    kind.undisturbed(&sim, since);
    assert_eq!(kind.is_staged(&sim), Vec::<String>::new());
    sim.git.commit("no policy", &[(APP_FILE, Some(BARE))]);
    settled(&sim, 2, "all").await;
    kind.undisturbed(&sim, since);
    assert_eq!(kind.is_its_own(&sim), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_that_somebody_made_is_taken_over_as_it_is_and_given_back() {
    made_by_hand(ORDINALS).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_that_somebody_made_is_taken_over_as_it_is_and_given_back() {
    made_by_hand(NODES).await;
}
