//! Many applications at once: fairness, limits, and what a change of all of them costs.

use super::*;
use crate::simulation::rollouts;
use locktender::{
    core::{
        ledger::Record,
        names::AppName,
        rollout::report::{Activity, Reason},
    },
    sandbox::nodes::NodeSpec,
};

/// Files of a release repository.
#[derive(Default)]
struct Tree(Vec<(String, String)>);

impl Tree {
    fn with(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.push((path.into(), text.into()));
        self
    }

    fn edits(&self) -> Vec<(&str, Option<&str>)> {
        self.0.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect()
    }

    /// Starts a simulation with so many nodes a unit.
    fn sim(&self, nodes: usize) -> Sim {
        let files: Vec<(&str, &str)> = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        Sim::on(&files, NodeSpec::of_units([("dca", nodes), ("dcb", nodes)], 100))
    }
}

/// No confirms.
fn free() -> String {
    rollouts::POLICY.replace("confirm: everyBatch", "confirm: none")
}

fn small(name: &str, tag: &str) -> String {
    manifest(tag).replace("checkout", name).replace("replicas: 10", "replicas: 2")
}

fn app(name: &str) -> String {
    rollouts::APP.replace("checkout", name)
}

fn limit(rollouts: u32) -> String {
    format!("rollouts: {{concurrent: {rollouts}}}\n")
}

/// Every rollout's number, records included, of every application.
fn all_records(sim: &Sim) -> Vec<(AppName, u32, Vec<Record>)> {
    let checker = sim.checker.lock().unwrap();
    let of = |app: AppName| {
        let rollouts = checker.rollouts(&app).cloned().unwrap_or_default();
        rollouts.into_iter().map(move |(number, state)| (app.clone(), number, state.records.clone()))
    };
    checker.known_apps().into_iter().flat_map(of).collect()
}

/// The most rollouts that were under way at once, as the ledger says: what opens and what ends with the same push counts
/// as both.
fn most_at_once(sim: &Sim) -> i32 {
    let mut moves = Vec::new();
    for (_, _, records) in all_records(sim) {
        for record in records {
            match record.event {
                Event::RolloutOpened => moves.push((record.time, 0, 1)),
                Event::Completed | Event::Aborted | Event::Superseded => moves.push((record.time, 1, -1)),
                _ => {}
            }
        }
    }
    moves.sort_unstable();
    let mut now = 0;
    moves
        .into_iter()
        .map(|(_, _, step)| {
            now += step;
            now
        })
        .max()
        .unwrap_or_default()
}

/// Which applications' rollouts of a number opened, in order.
fn opened(sim: &Sim, number: u32) -> Vec<(jiff::Timestamp, String)> {
    let rollouts = all_records(sim).into_iter().filter(|(_, of, _)| *of == number);
    let mut opened: Vec<_> = rollouts.map(|(app, _, records)| (records[0].time, app.to_string())).collect();
    opened.sort();
    opened
}

async fn opens(sim: &Sim, app: &str, number: u32) {
    sim.recorded(app, number, Event::RolloutOpened, "", 1).await.unwrap();
}

fn waits_for_its_turn(sim: &Sim, app: &str) -> bool {
    let report = sim.report(app);
    report.is_some_and(|report| report.reasons.iter().any(|reason| matches!(reason, Reason::Full(_))))
}

/// So many applications where every run is made, optimised, which takes minutes; a fifth of them in the sweep; else as many as a
/// test may take.
fn size(every: u32, few: u32) -> u32 {
    match std::env::var("LOCKTENDER_SWEEP").as_deref() {
        Ok("every") => every,
        Ok("all") => every / 5,
        _ => few,
    }
}

fn seconds_since(sim: &Sim, began: jiff::Timestamp) -> i64 {
    sim.clock.time().duration_since(began).as_secs()
}

/// Everybody gets on, and each about as soon as the others, though the API server takes five writes a second.
#[tokio::test(start_paused = true)]
async fn fault_11_many_applications_and_a_slow_api_server() {
    let count = size(10_000, 60);
    let name = |number: u32| format!("app-{number:05}");
    let mut tree = Tree::default();
    for number in 0..count {
        let name = name(number);
        let config = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n");
        tree = tree
            .with(format!("apps/{name}/app.yaml"), app(&name).replace(", policy: two-data-centers", ""))
            .with(format!("apps/{name}/config.yaml"), config);
    }
    let sim = tree.sim(3);
    sim.checker.lock().unwrap().resting = count > 60;
    sim.faults.pace(Duration::from_millis(200));
    let began = (sim.clock.time(), std::time::Instant::now());
    for number in 0..count {
        sim.recorded(&name(number), 1, Event::Completed, "all", 1).await.unwrap();
    }
    println!(
        "{count} applications at five writes a second: {} s, in {:.1} s of ours",
        seconds_since(&sim, began.0),
        began.1.elapsed().as_secs_f64()
    );
    let made = list(&sim, "configmaps").iter().filter(|one| pod_name(one).starts_with("app-")).count();
    assert_eq!(made, count as usize);
}

#[tokio::test(start_paused = true)]
async fn fault_80_many_releases_at_the_same_instant() {
    let count = size(1_000, 20);
    let name = |number: u32| format!("shop-{number:05}");
    let file = |number: u32| format!("apps/{}/deployment.yaml", name(number));
    let mut tree = Tree::default().with("policies/two-data-centers.yaml", free());
    for number in 0..count {
        let directory = format!("apps/{}", name(number));
        tree = tree
            .with(format!("{directory}/app.yaml"), app(&name(number)))
            .with(file(number), small(&name(number), "1.9"));
    }
    let sim = tree.sim(3 + count as usize / 50);
    sim.checker.lock().unwrap().resting = count > 20;
    for number in 0..count {
        sim.recorded(&name(number), 1, Event::Completed, "beta", 1).await.unwrap();
    }
    let before = sim.git.state.lock().unwrap().pushes;
    let changed = (0..count).fold(Tree::default(), |tree, number| tree.with(file(number), small(&name(number), "2.0")));
    sim.git.commit("everything at once", &changed.edits());
    let began = (sim.clock.time(), std::time::Instant::now());
    for number in 0..count {
        sim.recorded(&name(number), 2, Event::Completed, "beta", 1).await.unwrap();
    }
    let took = seconds_since(&sim, began.0);
    println!("{count} releases at one instant: {took} s, in {:.1} s of ours", began.1.elapsed().as_secs_f64());
    assert!(took < 120, "took {took} s");
    let pushes = sim.git.state.lock().unwrap().pushes - before;
    assert!(pushes < 60, "records that are due together go together: {pushes} pushes");
}

/// Sixty-four applications that are made of one base, five at a time.
#[tokio::test(start_paused = true)]
async fn fault_78_a_shared_base_changes_under_a_limit() {
    let base = |tag: &str| manifest(tag).replace("replicas: 10", "replicas: 2");
    let name = |number: u32| format!("shop-{number:02}");
    let mut tree = Tree::default()
        .with("locktender.yaml", limit(5))
        .with("policies/two-data-centers.yaml", free())
        .with("base/kustomization.yaml", "resources: [deployment.yaml]\n")
        .with("base/deployment.yaml", base("1.9"));
    for number in 0..64 {
        let directory = format!("apps/{}", name(number));
        let of_base =
            app(&name(number)).replace("two-data-centers}", "two-data-centers, source: {path: ., kustomize: {}}}");
        tree = tree
            .with(format!("{directory}/app.yaml"), of_base)
            .with(format!("{directory}/kustomization.yaml"), "resources: [../../base]\n");
    }
    let mut sim = tree.sim(3);
    // The install is judged by its records alone: every write of sixty-four is looked at elsewhere.
    sim.checker.lock().unwrap().resting = true;
    for number in 0..64 {
        sim.recorded(&name(number), 1, Event::Completed, "beta", 1).await.unwrap();
    }
    assert_eq!(most_at_once(&sim), 5, "an install is a rollout, too");
    sim.checker.lock().unwrap().resting = false;
    let began = sim.clock.time();
    sim.git.commit("the base of all", &[("base/deployment.yaml", Some(&base("2.0")))]);
    for _ in 0..3 {
        sim.pass(Duration::from_secs(20)).await;
        sim.kill();
        sim.pass(Duration::from_secs(5)).await;
        sim.start();
    }
    sim.pass(Duration::from_secs(10)).await;
    let waiting = (0..64).filter(|number| waits_for_its_turn(&sim, &name(*number))).count();
    let done = all_records(&sim)
        .iter()
        .filter(|(_, number, records)| *number == 2 && records.last().unwrap().event == Event::Completed)
        .count();
    assert!(done > 5 && waiting > 5, "it is in the middle: {done} done, {waiting} wait");
    for number in 0..64 {
        sim.recorded(&name(number), 2, Event::Completed, "beta", 1).await.unwrap();
    }
    println!("64 releases, 5 at a time: {} s", seconds_since(&sim, began));
    assert_eq!(most_at_once(&sim), 5, "as many as may be, and never more");
    assert_eq!(super::at(&sim, "2.0"), 128);
    // Whoever was released longest ago went first, across every restart.
    let ended = |app: &str| sim.records(app, 1).iter().rev().find(|one| one.event == Event::Completed).unwrap().time;
    let order = opened(&sim, 2);
    let expected = |(opened, app): &(jiff::Timestamp, String)| (*opened, ended(app), app.clone());
    let order: Vec<_> = order.iter().map(expected).collect();
    let mut by_turn = order.clone();
    by_turn.sort_by(|one, other| (one.1, &one.2).cmp(&(other.1, &other.2)));
    let times = |all: &[(jiff::Timestamp, jiff::Timestamp, String)]| all.iter().map(|one| one.0).collect::<Vec<_>>();
    assert_eq!(times(&by_turn), times(&order));
}

/// What the limit is not about: what is under way already, what goes back, and what needs no stages.
#[tokio::test(start_paused = true)]
async fn fault_78_the_limit_is_at_the_door() {
    let names = ["one", "two", "three"];
    let mut tree = Tree::default()
        .with("policies/two-data-centers.yaml", rollouts::POLICY.replace("confirm: everyBatch", "confirm: beta"));
    for name in names {
        tree = tree
            .with(format!("apps/{name}/app.yaml"), app(name))
            .with(format!("apps/{name}/deployment.yaml"), four(name, "1"));
    }
    let sim = tree.sim(3);
    for name in names {
        to_the_end(&sim, name, 1).await;
    }
    release(&sim, "three", "2");
    to_the_end(&sim, "three", 2).await;
    sim.git.commit("one at a time", &[("locktender.yaml", Some(&limit(1)))]);
    release(&sim, "one", "2");
    sim.recorded("one", 2, Event::StageWaiting, "beta", 1).await.unwrap();
    release(&sim, "two", "2");
    sim.pass(Duration::from_secs(600)).await;
    let report = sim.report("two").unwrap();
    let why: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert_eq!(report.activity, Activity::Stable);
    assert_eq!(
        why,
        ["waits for its turn: 1 rollout is under way, and at most 1 may be: one/0002"],
        "one that waits for a person counts"
    );
    assert!(sim.records("two", 2).is_empty());

    // A change without stages is put in place at once.
    let labelled = four("two", "2").replace(
        "metadata: {name: two}\nspec:\n  selector",
        "metadata: {name: two, labels: {tier: web}}\nspec:\n  selector",
    );
    let back = labelled.replace("two:2", "two:1");
    sim.git.commit("two: as before, but for a label", &[("apps/two/deployment.yaml", Some(&back))]);
    sim.recorded("two", 1, Event::Applied, "", 1).await.unwrap();
    sim.git.commit("two again", &[("apps/two/deployment.yaml", Some(&labelled))]);
    sim.pass(Duration::from_secs(60)).await;
    assert!(waits_for_its_turn(&sim, "two"));

    // A release is taken back.
    release(&sim, "three", "1");
    opens(&sim, "three", 3).await;
    sim.recorded("three", 3, Event::Completed, "batch-1", 1).await.unwrap();

    // A fix takes the place of what is under way.
    release(&sim, "one", "3");
    opens(&sim, "one", 3).await;
    sim.recorded("one", 3, Event::StageWaiting, "beta", 1).await.unwrap();
    assert!(sim.records("two", 2).is_empty());

    // An abort is not held up, and gives the turn to who waits.
    sim.git.commit("abort", &[("rollouts/one/0003/abort.yaml", Some(""))]);
    sim.recorded("one", 3, Event::Aborted, "", 1).await.unwrap();
    let ended = sim.clock.time();
    opens(&sim, "two", 2).await;
    assert!(seconds_since(&sim, ended) <= 5, "as soon as one ends, nobody polls");
    to_the_end(&sim, "two", 2).await;
    // Without a limit there is no line.
    release(&sim, "one", "4");
    opens(&sim, "one", 4).await;
    release(&sim, "two", "3");
    sim.pass(Duration::from_secs(60)).await;
    assert!(waits_for_its_turn(&sim, "two"));
    sim.git.commit("no limit", &[("locktender.yaml", None)]);
    opens(&sim, "two", 3).await;
}

fn four(name: &str, tag: &str) -> String {
    manifest(tag).replace("checkout", name).replace("replicas: 10", "replicas: 4")
}

fn release(sim: &Sim, name: &str, tag: &str) {
    sim.git.commit(&format!("{name} {tag}"), &[(&format!("apps/{name}/deployment.yaml"), Some(&four(name, tag)))]);
}

async fn to_the_end(sim: &Sim, name: &str, number: u32) {
    sim.recorded(name, number, Event::StageWaiting, "beta", 1).await.unwrap();
    sim.git.commit("confirm", &[(&format!("rollouts/{name}/{number:04}/confirm/beta.yaml"), Some(""))]);
    sim.recorded(name, number, Event::Completed, "batch-1", 1).await.unwrap();
}

/// One that stopped gives its turn away until somebody lets it go on.
#[tokio::test(start_paused = true)]
async fn fault_78_a_rollout_that_stopped_gives_its_turn_away() {
    let stops =
        rollouts::POLICY.replace("progressDeadlineSeconds: 600", "progressDeadlineSeconds: 60\n  onFailure: stop");
    let mut tree = Tree::default()
        .with("locktender.yaml", limit(1))
        .with("policies/two-data-centers.yaml", stops.replace("everyBatch", "beta"));
    for (name, tag) in [("one", "1-never-ready"), ("two", "1")] {
        tree = tree
            .with(format!("apps/{name}/app.yaml"), app(name))
            .with(format!("apps/{name}/deployment.yaml"), four(name, tag));
    }
    let sim = tree.sim(3);
    sim.pass(Duration::from_secs(30)).await;
    assert!(waits_for_its_turn(&sim, "two"), "the name decides among those that were never released");
    sim.recorded("one", 1, Event::Stopped, "beta", 1).await.unwrap();
    sim.recorded("two", 1, Event::StageWaiting, "beta", 1).await.unwrap();
}

/// A rename is two rollouts, of which neither waits for the other.
#[tokio::test(start_paused = true)]
async fn fault_78_a_rename_under_a_limit_of_one() {
    let sim = Tree::default()
        .with("locktender.yaml", limit(1))
        .with("policies/two-data-centers.yaml", free())
        .with("apps/checkout/app.yaml", app("checkout"))
        .with(DEPLOYMENT, manifest("1.9"))
        .sim(3);
    sim.recorded("checkout", 1, Event::Completed, "batch-2", 1).await.unwrap();
    sim.git.commit(
        "checkout is called till now",
        &[
            ("apps/checkout/app.yaml", None),
            (DEPLOYMENT, None),
            ("apps/till/app.yaml", Some(&app("till"))),
            ("apps/till/deployment.yaml", Some(&manifest("1.9"))),
        ],
    );
    opens(&sim, "till", 1).await;
    sim.pass(Duration::from_secs(120)).await;
    let ends: Vec<_> = all_records(&sim)
        .into_iter()
        .map(|(app, number, records)| (app.to_string(), number, records.last().unwrap().event))
        .collect();
    assert!(ends.iter().all(|(_, _, event)| *event == Event::Completed), "{ends:?}");
    assert_eq!((pods(&sim).len(), in_service(&sim), most_at_once(&sim)), (10, 10, 1));
}

/// Two applications that are made of one base render an object of the same name: neither is applied.
#[tokio::test(start_paused = true)]
async fn fault_78_a_shared_base_renders_the_same_object_twice() {
    let shared = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\ndata: {colour: green}\n";
    let mut tree = Tree::default()
        .with("policies/two-data-centers.yaml", free())
        .with("base/kustomization.yaml", "resources: [config.yaml]\n")
        .with("base/config.yaml", shared);
    for name in ["one", "two"] {
        tree = tree
            .with(
                format!("apps/{name}/app.yaml"),
                app(name).replace("two-data-centers}", "two-data-centers, source: {path: ., kustomize: {}}}"),
            )
            .with(format!("apps/{name}/kustomization.yaml"), "resources: [../../base]\n");
    }
    let sim = tree.sim(3);
    sim.pass(Duration::from_secs(60)).await;
    for (name, other) in [("one", "two"), ("two", "one")] {
        let report = sim.report(name).unwrap();
        let why = report.reasons.iter().map(ToString::to_string).collect::<String>();
        assert!(why.contains("ConfigMap") && why.contains("colours") && why.contains(other), "{name}: {why}");
        assert!(sim.records(name, 1).is_empty());
    }
    assert!(list(&sim, "configmaps").iter().all(|one| pod_name(one) != "colours"), "neither is applied");
}
