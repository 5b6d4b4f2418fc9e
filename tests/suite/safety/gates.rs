//! How far a rollout may be: confirms, promotes, pauses, freezes, health.

use locktender::core::{
    ledger::Event,
    rollout::report::{Activity, Reason, Report},
};

use super::shop::{DEPLOYMENT, Shop, counted, manifest, policy};

const PROMOTE: &str = "rollouts/checkout/0002/promote.yaml";
const ABORT: &str = "rollouts/checkout/0002/abort.yaml";
const BETA: &str = "rollouts/checkout/0002/confirm/beta.yaml";

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_without_its_confirm() {
    let shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.pass(60).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    assert_eq!(shop.events(2), [Event::RolloutOpened, Event::StageStarted, Event::StageWaiting]);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_was_there_before_the_stage_waited_opens_nothing() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    shop.commit("checkout 2.0, confirmed beforehand", &[(DEPLOYMENT, Some(&manifest("2.0"))), (BETA, Some(""))]);
    shop.waits("beta").await;
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    assert!(shop.events(2).contains(&Event::DecisionRejected));
    shop.commit("now I mean it", &[(BETA, Some("message: I looked\n"))]);
    shop.waits("batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_promote_or_abort_written_in_advance_counts_for_nothing() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    shop.commit("for the next one", &[(PROMOTE, Some("")), (ABORT, Some(""))]);
    shop.pass(1).await;
    shop.release("2.0");
    shop.waits("beta").await;
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_is_taken_back_takes_its_pods_back() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.confirm("beta");
    shop.waits("batch-1").await;
    assert_eq!(shop.tags(), counted(&[("1.9", 4), ("2.0", 6)]));
    shop.commit("Revert \"confirm beta\"", &[(BETA, None)]);
    shop.waits("beta").await;
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    let back = shop.records(2).into_iter().rfind(|record| record.event == Event::StageReverted).unwrap();
    let since = shop.report().unwrap().reasons.into_iter().find_map(|reason| match reason {
        Reason::ConfirmNeeded { since, .. } => Some(since),
        _ => None,
    });
    assert_eq!(since, Some(back.time), "it waits since it was gone back to, not since it was there first");
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_is_changed_after_it_was_accepted_is_accepted_anew() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.confirm("beta");
    shop.waits("batch-1").await;
    shop.commit("what I meant", &[(BETA, Some("message: the error rate, not the latency\n"))]);
    shop.confirm("batch-1");
    shop.until("completed", |report| report.activity == Activity::Stable).await;
    let accepted: Vec<_> =
        shop.records(2).into_iter().filter(|record| record.event == Event::ConfirmAccepted).collect();
    let beta: Vec<_> = accepted
        .iter()
        .filter_map(|record| record.evidence.decision.clone())
        .filter(|it| it.path == "confirm/beta.yaml")
        .collect();
    assert_eq!(beta.len(), 2, "{accepted:#?}");
    assert_ne!(beta[0].blob, beta[1].blob, "each content is a decision of its own");
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_is_changed_into_one_of_another_plan_closes_its_gate() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.confirm("beta");
    shop.waits("batch-1").await;
    let other = shop.records(1)[0].evidence.plan.unwrap();
    shop.commit("by mistake", &[(BETA, Some(&format!("planHash: {other}\n")))]);
    shop.waits("beta").await;
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_promote_that_is_taken_back_and_given_again_is_recorded_again() {
    let mut shop = Shop::at_beta(&policy(&[], &["minReadySeconds: 20"])).await;
    shop.commit("promote", &[(PROMOTE, Some("message: it is fine\n"))]);
    shop.until("at batch-1", |report| report.stage.as_ref().is_some_and(|stage| stage.as_str() == "batch-1")).await;
    shop.commit("it is not", &[(PROMOTE, None)]);
    shop.waits("beta").await;
    shop.commit("it is", &[(PROMOTE, Some("message: it is fine\n"))]);
    shop.until("completed", |report| report.activity == Activity::Stable).await;
    let told = |wanted: Event| shop.events(2).into_iter().filter(|event| *event == wanted).count();
    assert_eq!((told(Event::StageReverted), told(Event::Promoted)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn status_names_a_confirm_that_counts_for_nothing_until_it_is_gone() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.confirm("batch1");
    let named = |report: &Report| report.reasons.iter().map(ToString::to_string).find(|it| it.contains("batch1"));
    let report = shop.until("told", |report| named(report).is_some()).await;
    let said = "confirm/batch1.yaml counts for nothing: the plan has no stage `batch1`; it has beta, batch-1, batch-2";
    assert_eq!(named(&report).unwrap(), said);
    shop.commit("not that", &[("rollouts/checkout/0002/confirm/batch1.yaml", None)]);
    shop.until("gone", |report| named(report).is_none()).await;
    shop.confirm("beta");
    shop.waits("batch-1").await;
    assert!(!shop.report().unwrap().reasons.iter().any(|reason| matches!(reason, Reason::Useless { .. })));
}

#[tokio::test(start_paused = true)]
async fn status_names_decisions_for_a_rollout_that_there_is_not_until_they_are_gone_or_it_is() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    let useless = |report: &Report| -> Vec<String> {
        let all = report.reasons.iter().filter(|reason| matches!(reason, Reason::Useless { .. }));
        all.map(ToString::to_string).collect()
    };
    let (far, third) = ("rollouts/checkout/0042/confirm/beta.yaml", "rollouts/checkout/0003/pause.yaml");
    shop.commit("for others", &[(far, Some("")), (third, Some("")), ("rollouts/checkout/0002/abort.yaml", Some(""))]);
    let report = shop.until("both told", |report| useless(report).len() == 2).await;
    let known = "the latest is 0001, the next will be 0002";
    let why = |path: &str, number: &str| {
        format!("rollouts/checkout/{path} counts for nothing: there is no rollout {number}; {known}")
    };
    assert_eq!(useless(&report), [why("0003/pause.yaml", "0003"), why("0042/confirm/beta.yaml", "0042")]);
    assert_eq!(report.activity, Activity::Stable);
    shop.commit("not that", &[(far, None)]);
    shop.until("one is left", |report| useless(report).len() == 1).await;
    // With the second there the third is the next: what lies there was written in advance.
    shop.release("2.0");
    shop.waits("beta").await;
    let report = shop.until("the answer to what was there before", |report| useless(report).len() == 1).await;
    assert!(useless(&report)[0].starts_with("abort.yaml counts for nothing: "), "{:?}", useless(&report));
}

#[tokio::test(start_paused = true)]
async fn an_abort_under_a_head_that_does_not_render_leaves_the_application_held_until_git_says_stable_again() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.commit("a typo, and away from it", &[(DEPLOYMENT, Some("kind: [")), (ABORT, Some(""))]);
    let report = shop.until("held", |report| report.activity == Activity::Held).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]));
    let told: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    let why = "held at stable: HEAD did not render, so Git was not repaired: revert it, fix it, or add retry.yaml";
    assert!(told.iter().any(|reason| reason == why), "{told:?}");
    assert!(told.iter().any(|reason| reason.starts_with("HEAD cannot be used: ")), "{told:?}");
    shop.release("1.9");
    shop.until("at rest", |report| report.activity == Activity::Stable && report.reasons.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_rollout_starts_no_stage() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.commit("wait", &[("rollouts/checkout/0002/pause.yaml", Some(""))]);
    shop.until("paused", |report| report.activity == Activity::Paused).await;
    shop.confirm("beta");
    shop.pass(30).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    let started = shop.events(2).into_iter().filter(|event| *event == Event::StageStarted).count();
    assert_eq!(started, 1, "beta, and nothing after it");
    shop.commit("go on", &[("rollouts/checkout/0002/pause.yaml", None)]);
    shop.waits("batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_promote_passes_no_freeze() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.commit("the holidays", &[("freezes/holidays.yaml", Some(""))]);
    shop.pass(1).await;
    shop.commit("promote", &[(PROMOTE, Some(""))]);
    shop.pass(30).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    shop.commit("back at work", &[("freezes/holidays.yaml", None)]);
    shop.until("completed", |report| report.activity == Activity::Stable).await;
}

#[tokio::test(start_paused = true)]
async fn a_promote_passes_no_pod_that_is_not_ready() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    shop.release("2.0-never-ready");
    shop.until("open", |report| report.activity == Activity::Progressing).await;
    shop.commit("promote", &[(PROMOTE, Some(""))]);
    shop.pass(5).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0-never-ready", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_stage_is_there_only_after_min_ready_seconds() {
    let shop = Shop::at_beta(&policy(&[], &["minReadySeconds: 40"])).await;
    let took = shop.when(2, Event::StageWaiting).duration_since(shop.when(2, Event::StageStarted));
    assert!(took.as_secs() >= 40, "beta was there after {took:#}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_target_is_not_opened_again() {
    let mut shop = Shop::at_beta(&policy(&["onAbort: hold"], &[])).await;
    shop.commit("abort", &[(ABORT, Some(""))]);
    shop.until("held", |report| report.activity == Activity::Held).await;
    shop.pass(60).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]));
    assert_eq!(shop.events(3), [], "rollout 0003 is not opened");
}

#[tokio::test(start_paused = true)]
async fn a_removed_application_is_deleted_only_after_a_confirm() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    shop.commit("checkout is not needed", &[(DEPLOYMENT, None), ("apps/checkout/app.yaml", None)]);
    shop.waits("start").await;
    shop.pass(30).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]));
    shop.confirm("start");
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[]));
}

#[tokio::test(start_paused = true)]
async fn fault_63_many_objects_are_pruned_only_after_a_confirm() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    let settings: String =
        (1..=8).map(|n| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings-{n}}}\n")).collect();
    shop.commit("settings", &[("apps/checkout/settings.yaml", Some(&settings))]);
    shop.pass(5).await;
    let count = |shop: &Shop| {
        let maps = shop.sim.cluster.with(|world| world.api.list("configmaps").cloned().collect::<Vec<_>>());
        maps.iter().filter(|map| map["metadata"]["name"].as_str().unwrap().starts_with("settings-")).count()
    };
    assert_eq!(count(&shop), 8);
    shop.commit("a generator that failed", &[("apps/checkout/settings.yaml", None)]);
    shop.waits("start").await;
    shop.pass(30).await;
    assert_eq!(count(&shop), 8);
    shop.confirm("start");
    shop.pass(10).await;
    assert_eq!(count(&shop), 0);
}
