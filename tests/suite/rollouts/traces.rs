//! Traces of both state machines: an abort, bad numbers and a newer revision at each step, with what the router says then.

use locktender::core::{ledger::Event, rollout::report::Activity};

use super::{
    blue_green::{blue_green, with_service},
    routed::{self, GATEWAY_FIELDS, backends, backends_of, canary},
    *,
};
use crate::{histories::release::Seen, simulation::outside::Outside};

/// What goes wrong, or otherwise, at a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Abort,
    BadNumbers,
    NewerRevision,
    /// One whose policy names another route.
    AnotherRoute,
}

const CANARY: &str = "\
steps:
- setWeight: 20
- analysis: {metrics: [success-rate]}
- confirm: {}
- setWeight: 40
- analysis: {metrics: [success-rate]}
- confirm: {}
- setWeight: 60
- analysis: {metrics: [success-rate]}
- confirm: {}
scaleDownDelaySeconds: 1
";

const SWITCH: &str = "\
analysis: {metrics: [success-rate]}
watch: {duration: 2m, metrics: [success-rate]}
scaleDownDelaySeconds: 600
";

/// An application by a gateway's route, in the simulation, whose numbers are the test's.
struct Trace {
    told: Transcript,
    outside: Outside,
    /// The rollout that was opened last.
    number: u32,
    /// Whether there is another route.
    next: bool,
}

impl Trace {
    /// 1.0 is installed; `None` on a real control plane, where nobody measures.
    async fn new(policy: &str) -> Option<Self> {
        let (manifest, app) = (with_service("1.0"), app(""));
        let [_, (path, route)] = routed::files();
        let files = [(POLICY_FILE, policy), (APP_FILE, &*app), (DEPLOYMENT, &*manifest), (path, &*route)];
        let mut told = Transcript::of("checkout", &files).await;
        let outside = told.release.outside.clone()?;
        told.stable(1).await;
        told.forget();
        Some(Self { told, outside, number: 1, next: false })
    }

    fn measured(&mut self, value: f64) {
        self.told.note(&format!("measured from here on: {value}"));
        self.outside.measures(move |_| value);
    }

    fn merge(&mut self) {
        self.number += 1;
        self.told.merge(&format!("{}.0", self.number));
    }

    /// Somebody merges another version, and a policy that names this route.
    fn merge_by(&mut self, route: &str) {
        self.number += 1;
        let (tag, next) = (format!("{}.0", self.number), routed::route().to_string());
        let next = next.replace("{\"name\":\"checkout\",\"namespace\"", "{\"name\":\"checkout-next\",\"namespace\"");
        let fields = GATEWAY_FIELDS.replace("checkout", route);
        self.told.person(&format!("merge {tag}, by the route {route}"), |clone| {
            clone.write(DEPLOYMENT, &with_service(&tag));
            clone.write(POLICY_FILE, &canary(&(fields.clone() + CANARY)));
            clone.write("apps/checkout/next.yaml", &next);
        });
        self.next = true;
    }

    /// Tells the route's weights, as they are in the cluster.
    async fn route(&mut self) {
        let backends = backends(&self.told.release).await;
        self.told.note(&format!("the route: {backends}"));
        if self.next {
            let backends = backends_of(&self.told.release, "checkout-next").await;
            self.told.note(&format!("the next route: {backends}"));
        }
    }

    /// Releases as far as the last of these stages, confirming those before it, and lets it take its turn there.
    async fn turn(&mut self, stages: &[&str], turn: Turn) {
        let (last, before) = stages.split_last().unwrap();
        self.measured(0.999);
        if before.is_empty() && turn == Turn::BadNumbers {
            self.measured(0.4);
        }
        match turn {
            Turn::AnotherRoute => self.merge_by("checkout"),
            _ => self.merge(),
        }
        for (at, stage) in before.iter().enumerate() {
            self.comes_to(stage).await;
            if at + 1 == before.len() && turn == Turn::BadNumbers {
                let number = self.number;
                let measured = |seen: &Seen| seen.count(number, Event::AnalysisRun) == at + 1;
                self.told.until(&format!("{stage} is measured"), measured).await;
                self.measured(0.4);
            }
            // What is watched needs nobody's confirm.
            if *stage != "switch" {
                self.told.decide(self.number, &format!("confirm/{stage}"), "");
            }
        }
        if turn != Turn::BadNumbers {
            self.comes_to(last).await;
        }
        match turn {
            Turn::Abort => self.told.decide(self.number, "abort", "message: slower than before"),
            Turn::BadNumbers => {}
            Turn::NewerRevision | Turn::AnotherRoute => {
                match turn {
                    Turn::AnotherRoute => self.merge_by("checkout-next"),
                    _ => self.merge(),
                }
                let first = stages[0];
                self.comes_to(first).await;
                self.told.decide(self.number, "abort", "");
            }
        }
        let seen = self.told.stable(self.number).await;
        assert_eq!(seen.pods(), "1.0: 4");
        self.route().await;
        assert_eq!(backends(&self.told.release).await, "checkout 1", "nothing of ours is left in it");
    }

    /// Waits until the rollout waits at a stage, for a person or for time, and its numbers were good.
    async fn comes_to(&mut self, stage: &str) {
        let number = self.number;
        let comes = |seen: &Seen| {
            seen.waits(number, stage)
                || seen.report.as_ref().is_some_and(|report| {
                    report.stage.as_ref().is_some_and(|name| name.as_str() == stage)
                        && report.rollout.as_ref().is_some_and(|rollout| rollout.number == number)
                        && (stage == "finish" || stage == "switch" && report.activity == Activity::Waiting)
                })
        };
        self.told.until(&format!("{number} comes to {stage}"), comes).await;
        self.route().await;
    }
}

async fn canaries(turn: Turn) -> Option<Transcript> {
    let mut trace = Trace::new(&canary(&(GATEWAY_FIELDS.to_owned() + CANARY))).await?;
    for steps in 1..=3 {
        trace.turn(&["weight-20", "weight-40", "weight-60"][..steps], turn).await;
    }
    Some(trace.told)
}

async fn switches(turn: Turn) -> Option<Transcript> {
    let mut trace = Trace::new(&blue_green(&(GATEWAY_FIELDS.to_owned() + SWITCH))).await?;
    // Once it is watched, nothing is measured any more.
    let steps = if turn == Turn::BadNumbers { 2 } else { 3 };
    for steps in 1..=steps {
        trace.turn(&["preview", "switch", "finish"][..steps], turn).await;
    }
    Some(trace.told)
}

#[tokio::test(start_paused = true)]
async fn a_canary_by_weights_is_aborted_at_each_step() {
    let Some(told) = canaries(Turn::Abort).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_canary_by_weights_fails_at_each_step() {
    let Some(told) = canaries(Turn::BadNumbers).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_canary_by_weights_is_superseded_at_each_step() {
    let Some(told) = canaries(Turn::NewerRevision).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_canary_by_weights_takes_another_route_at_each_step() {
    let Some(told) = canaries(Turn::AnotherRoute).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_aborted_at_each_step() {
    let Some(told) = switches(Turn::Abort).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_switch_fails_at_each_step() {
    let Some(told) = switches(Turn::BadNumbers).await else { return };
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_superseded_at_each_step() {
    let Some(told) = switches(Turn::NewerRevision).await else { return };
    told!(told);
}
