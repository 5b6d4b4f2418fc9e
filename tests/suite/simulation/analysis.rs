//! Analysis: what is measured outside opens a gate, or sends a rollout back, or stops it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use locktender::core::{
    analysis::{Finding, Run, Verdict},
    ask::{Found, Query, Question, Reading, Said, Unanswered},
    ledger::{Cause, Event, Record},
    rollout::report::{Activity, Reason},
};

use super::{
    Sim,
    exhaustive::stateful_set,
    outside::Reply,
    rollouts::{APP, DEPLOYMENT, manifest},
};

const SETTINGS: &str = "metrics: {prometheus: {url: http://prometheus.monitoring:9090}}\n";
const POLICY_FILE: &str = "policies/two-data-centers.yaml";
const STEPS: &str = "\
steps:
- setWeight: 20
- analysis: {metrics: [success-rate]}
- setWeight: 60
";

fn policy(metric: &str, canary: &str) -> String {
    let lines: String = canary.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {{name: two-data-centers}}
spec:
  metrics:
    success-rate: {{{metric}}}
  strategy:
    canary:
{lines}"
    )
}

const METRIC: &str =
    "successCondition: 'result[0] >= 0.95', initialDelay: 10s, interval: 10s, count: 3, failureLimit: 1";

fn series(series: &[&[f64]]) -> Found {
    Found::Series { series: series.iter().map(|one| one.to_vec()).collect(), warnings: Vec::new(), clock: None }
}

fn says(result: Found) -> Reply {
    (Duration::from_millis(50), Ok(Said::Reading(Reading { result, baseline: None })))
}

fn good() -> Reply {
    says(series(&[&[0.99]]))
}

/// 1.9 is installed, with good numbers.
async fn installed(metric: &str, canary: &str) -> Sim {
    let mut sim = Sim::new(&[
        ("locktender.yaml", SETTINGS),
        (POLICY_FILE, &policy(metric, canary)),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    sim.outside.answers(|_, _| good());
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim
}

fn merge(sim: &Sim) {
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&manifest("2.0")))]);
}

async fn recorded(sim: &Sim, event: Event, stage: &str, times: usize) {
    if let Err(why) = sim.recorded("checkout", 2, event, stage, times).await {
        panic!("{why}\n{}", sim.git.subjects().join("\n"));
    }
}

fn runs(sim: &Sim) -> Vec<(Record, Run)> {
    let records = sim.records("checkout", 2).into_iter();
    records.filter_map(|record| Some((record.clone(), record.evidence.analysis.clone()?))).collect()
}

fn verdicts(run: &Run) -> Vec<Verdict> {
    run.samples.iter().map(|sample| sample.verdict).collect()
}

fn has(sim: &Sim, event: Event, stage: &str) -> bool {
    let at = |record: &Record| record.stage.as_ref().map_or("", |stage| stage.as_str()) == stage;
    sim.records("checkout", 2).iter().any(|record| record.event == event && at(record))
}

fn back_at_stable(sim: &Sim) {
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    let image = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    let of_it = |pod: &&serde_json::Value| image(pod).contains("/checkout:");
    assert!(pods.iter().map(|pod| &**pod).filter(of_it).all(|pod| image(pod).ends_with(":1.9")), "every pod is at 1.9");
    assert_eq!(sim.git.file(DEPLOYMENT).unwrap(), manifest("1.9"), "Git is repaired");
}

#[tokio::test(start_paused = true)]
async fn good_numbers_open_the_gate_and_are_in_the_record() {
    let sim = installed(METRIC, STEPS).await;
    let before = sim.outside.asked().len();
    merge(&sim);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    let runs = runs(&sim);
    let [(record, run)] = runs.as_slice() else { panic!("one analysis: {runs:?}") };
    assert_eq!((run.verdict, verdicts(run)), (Verdict::Pass, vec![Verdict::Pass; 3]));
    assert_eq!(record.stage.as_ref().map(|stage| stage.as_str()), Some("weight-20"));
    assert_eq!(run.samples[0].found, Finding::Measured { result: "[0.99]".to_owned(), baseline: None });
    assert_eq!(run.asked, "http://prometheus.monitoring:9090");
    assert!(run.query.contains("namespace=\"shop\", pod=~\"(checkout-"), "{}", run.query);
    assert_eq!(run.check(), Ok(()));
    let forged = Run { verdict: Verdict::Fail, ..run.clone() };
    assert_eq!(forged.check(), Err("the samples of success-rate are pass, not fail".to_owned()));
    let mut forged = run.clone();
    forged.samples[0].found = Finding::Measured { result: "[0.1]".to_owned(), baseline: None };
    assert_eq!(forged.check(), Err("sample 1 of success-rate is fail, not pass".to_owned()));
    let subjects = sim.git.subjects();
    let told = |subject: &str| subjects.iter().any(|one| one == subject);
    assert!(told("checkout 0002: weight-20 waiting for analysis success-rate"), "{subjects:?}");
    assert!(told("checkout 0002: success-rate passed, weight-60 started"), "{subjects:?}");
    assert_eq!(record.why, "success-rate is good in 3 of 3 samples: [0.99] (good where result[0] >= 0.95)");
    // Not before it is due, and never twice.
    let asked: Vec<Timestamp> = sim.outside.asked()[before..].iter().map(|(at, _)| *at).collect();
    assert_eq!(asked.len(), 3);
    let since = |at: &Timestamp| at.duration_since(run.since);
    assert!(asked.iter().zip([10, 20, 30]).all(|(at, due)| since(at) >= SignedDuration::from_secs(due)), "{asked:?}");
    assert!(since(&asked[2]) < SignedDuration::from_secs(33), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_numbers_send_it_back_on_the_sample_after_the_limit() {
    let sim = installed(METRIC, STEPS).await;
    let mut taken = 0;
    sim.outside.answers(move |_, _| {
        taken += 1;
        says(series(&[&[if taken == 1 { 0.99 } else { 0.5 }]]))
    });
    merge(&sim);
    recorded(&sim, Event::Aborted, "", 1).await;
    sim.pass(Duration::from_secs(10)).await;
    let (_, run) = runs(&sim).remove(0);
    assert_eq!(verdicts(&run), [Verdict::Pass, Verdict::Fail, Verdict::Fail]);
    assert_eq!(run.verdict, Verdict::Fail);
    let records = sim.records("checkout", 2);
    let aborting = records.iter().find(|record| record.event == Event::Aborting).unwrap();
    assert_eq!(aborting.evidence.cause, Some(Cause::Failure));
    assert_eq!(aborting.why, "success-rate is bad in 2 of 3 samples: [0.5] (good where result[0] >= 0.95)");
    assert!(!has(&sim, Event::StageStarted, "weight-60"));
    back_at_stable(&sim);
}

#[tokio::test(start_paused = true)]
async fn one_bad_sample_within_the_limit_is_forgiven() {
    let sim = installed(METRIC, STEPS).await;
    let mut taken = 0;
    sim.outside.answers(move |_, _| {
        taken += 1;
        says(series(&[&[if taken == 2 { 0.5 } else { 0.99 }]]))
    });
    merge(&sim);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    assert_eq!(verdicts(&runs(&sim)[0].1), [Verdict::Pass, Verdict::Fail, Verdict::Pass]);
}

/// Whatever the provider does, but for good numbers: nothing goes on.
#[tokio::test(start_paused = true)]
async fn fault_72_a_provider_that_tells_nothing_never_passes() {
    type Model = fn(&Question, Timestamp) -> Reply;
    let table: [(&str, Model, Verdict); 10] = [
        ("away", |_, _| (Duration::ZERO, Err(Unanswered::Unreachable("refused".to_owned()))), Verdict::Error),
        ("hangs", |_, _| (Duration::from_secs(3600), good().1), Verdict::Error),
        (
            "503",
            |_, _| (Duration::ZERO, Err(Unanswered::Refused { status: 503, message: String::new() })),
            Verdict::Error,
        ),
        ("nonsense", |_, _| (Duration::ZERO, Err(Unanswered::Garbage("?".to_owned()))), Verdict::Error),
        ("empty", |_, _| says(series(&[])), Verdict::Inconclusive),
        ("NaN", |_, _| says(series(&[&[f64::NAN]])), Verdict::Inconclusive),
        ("infinite", |_, _| says(series(&[&[f64::INFINITY]])), Verdict::Inconclusive),
        ("many series", |_, _| says(series(&[&[1.0], &[1.0]])), Verdict::Inconclusive),
        (
            "warns",
            |_, _| {
                let warnings = vec!["only half of the shards answered".to_owned()];
                says(Found::Series { series: vec![vec![1.0]], warnings, clock: None })
            },
            Verdict::Inconclusive,
        ),
        (
            "its clock is shifted",
            |_, now| {
                let clock = Some(now - SignedDuration::from_hours(1));
                says(Found::Series { series: vec![vec![1.0]], warnings: Vec::new(), clock })
            },
            Verdict::Error,
        ),
    ];
    for (what, model, verdict) in table {
        let sim = installed(METRIC, STEPS).await;
        sim.outside.answers(model);
        merge(&sim);
        recorded(&sim, Event::Stopped, "weight-20", 1).await;
        sim.pass(Duration::from_secs(1800)).await;
        let (_, run) = runs(&sim).remove(0);
        assert_eq!(run.verdict, verdict, "{what}: {run:?}");
        assert!(!has(&sim, Event::StageStarted, "weight-60"), "{what}");
        // It is there again: the stage is tried again, and measured anew.
        sim.outside.answers(|_, _| good());
        sim.git.commit("try again", &[("rollouts/checkout/0002/retry.yaml", Some(""))]);
        recorded(&sim, Event::Completed, "weight-100", 1).await;
        assert_eq!(verdicts(&runs(&sim)[1].1), [Verdict::Pass; 3], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_for_a_while_only_makes_it_longer() {
    let sim = installed(METRIC, STEPS).await;
    let mut taken = 0;
    sim.outside.answers(move |_, _| {
        taken += 1;
        if taken % 3 == 0 { good() } else { (Duration::ZERO, Err(Unanswered::Unreachable("refused".to_owned()))) }
    });
    merge(&sim);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    assert_eq!(runs(&sim)[0].1.samples.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn no_data_are_what_the_metric_says() {
    for (word, completes) in [("pass", true), ("fail", false)] {
        let sim = installed(&format!("{METRIC}, noData: {word}"), STEPS).await;
        sim.outside.answers(|_, _| says(series(&[])));
        merge(&sim);
        let (event, stage) = if completes { (Event::Completed, "weight-100") } else { (Event::Aborted, "") };
        recorded(&sim, event, stage, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_promote_passes_no_analysis() {
    let sim = installed(METRIC, STEPS).await;
    sim.outside.answers(|_, _| says(series(&[&[0.1]])));
    merge(&sim);
    recorded(&sim, Event::StageWaiting, "weight-20", 1).await;
    sim.git.commit("hurry", &[("rollouts/checkout/0002/promote.yaml", Some(""))]);
    recorded(&sim, Event::Aborted, "", 1).await;
    assert!(has(&sim, Event::Promoted, "weight-20"));
    assert!(!has(&sim, Event::StageStarted, "weight-60"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_measures_anew() {
    let mut sim = installed(METRIC, STEPS).await;
    merge(&sim);
    sim.until("checkout", "half measured", |report| {
        report.reasons.iter().any(|reason| matches!(reason, Reason::Analysing { done: 2, of: 3, .. }))
    })
    .await;
    sim.kill();
    let killed = sim.clock.time();
    sim.start();
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    let (_, run) = runs(&sim).remove(0);
    assert!(run.samples.iter().all(|sample| sample.at >= killed), "{run:?}");
    assert_eq!(run.samples.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_step_back_closes_the_analyses_after_it() {
    let steps = "\
steps:
- setWeight: 20
- confirm: {}
- setWeight: 40
- analysis: {metrics: [success-rate]}
- confirm: {}
";
    let sim = installed_with_confirms(steps).await;
    merge(&sim);
    let confirm = "rollouts/checkout/0002/confirm/weight-20.yaml";
    recorded(&sim, Event::StageWaiting, "weight-20", 1).await;
    sim.git.commit("yes", &[(confirm, Some("message: one"))]);
    recorded(&sim, Event::StageWaiting, "weight-40", 1).await;
    recorded(&sim, Event::AnalysisRun, "weight-40", 1).await;
    sim.git.commit("no", &[(confirm, None)]);
    recorded(&sim, Event::StageReverted, "weight-20", 1).await;
    sim.git.commit("yes again", &[(confirm, Some("message: two"))]);
    recorded(&sim, Event::AnalysisRun, "weight-40", 2).await;
    sim.git.commit("yes", &[("rollouts/checkout/0002/confirm/weight-40.yaml", Some(""))]);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    assert_eq!(runs(&sim).len(), 2);
}

/// 1.9 is installed; whoever installs it promotes.
async fn installed_with_confirms(steps: &str) -> Sim {
    installed_with_confirms_at("weight-20", steps).await
}

/// The same, with so many steps before the first that waits for a person.
async fn installed_with_confirms_at(stage: &str, steps: &str) -> Sim {
    let mut sim = Sim::new(&[
        ("locktender.yaml", SETTINGS),
        (POLICY_FILE, &policy(METRIC, steps)),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &manifest("1.9")),
    ]);
    sim.outside.answers(|_, _| good());
    sim.recorded("checkout", 1, Event::StageWaiting, stage, 1).await.unwrap();
    sim.git.commit("all of it", &[("rollouts/checkout/0001/promote.yaml", Some(""))]);
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim
}

/// A metric that a Job of this image measures.
fn by_job(image: &str) -> String {
    let container = format!("{{name: smoke, image: 'registry.example/{image}', args: ['--pods={{{{ pods }}}}']}}");
    let pod = format!("{{restartPolicy: Never, containers: [{container}]}}");
    format!("job: {{spec: {{backoffLimit: 0, template: {{spec: {pod}}}}}}}")
}

fn jobs(sim: &Sim) -> Vec<serde_json::Value> {
    sim.cluster.with(|world| world.api.list("jobs.batch").map(|job| (**job).clone()).collect())
}

async fn installed_by_job(image: &str) -> Sim {
    let sim = installed(&by_job("smoke:1"), STEPS).await;
    sim.git.commit("another image", &[(POLICY_FILE, Some(&policy(&by_job(image), STEPS)))]);
    sim
}

#[tokio::test(start_paused = true)]
async fn a_job_that_completes_opens_the_gate() {
    let sim = installed_by_job("smoke:2").await;
    merge(&sim);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    let (_, run) = runs(&sim).remove(0);
    assert_eq!((run.verdict, run.samples.len(), run.asked.as_str()), (Verdict::Pass, 1, "Jobs in shop"));
    let Finding::Measured { result, .. } = &run.samples[0].found else { panic!("{run:?}") };
    assert!(result.contains("\"complete\":true") && result.contains("\"succeeded\":1"), "{result}");
    assert_eq!(run.check(), Ok(()));
    let job = jobs(&sim).into_iter().find(|job| job.to_string().contains("smoke:2")).unwrap();
    let argument = job["spec"]["template"]["spec"]["containers"][0]["args"][0].as_str().unwrap().to_owned();
    assert!(argument.starts_with("--pods=(checkout-"), "{argument}");
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 86400);
    assert_eq!(jobs(&sim).len(), 2, "one for each version");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_sends_it_back_and_its_log_stays_to_be_read() {
    let sim = installed_by_job("smoke:2-crash").await;
    merge(&sim);
    recorded(&sim, Event::Aborted, "", 1).await;
    sim.pass(Duration::from_secs(10)).await;
    let (_, run) = runs(&sim).remove(0);
    assert_eq!((run.verdict, run.samples.len()), (Verdict::Fail, 1));
    assert!(!has(&sim, Event::StageStarted, "weight-60"));
    assert_eq!(jobs(&sim).len(), 2, "it is there to be looked at");
    back_at_stable(&sim);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ends_fails_at_the_deadline() {
    let sim = installed_by_job("smoke:2-bad-image").await;
    merge(&sim);
    recorded(&sim, Event::Aborted, "", 1).await;
    let (_, run) = runs(&sim).remove(0);
    let Finding::Measured { result, .. } = &run.samples[0].found else { panic!("{run:?}") };
    assert!(result.contains("DeadlineExceeded"), "{result}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_the_job_that_runs_and_an_abort_ends_it() {
    let mut sim = installed_by_job("smoke:2-bad-image").await;
    merge(&sim);
    recorded(&sim, Event::StageWaiting, "weight-20", 1).await;
    let runs = |job: &serde_json::Value| job["status"]["conditions"].as_array().is_none_or(Vec::is_empty);
    while !jobs(&sim).iter().any(runs) {
        sim.pass(Duration::from_secs(1)).await;
    }
    sim.kill();
    sim.start();
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(jobs(&sim).iter().filter(|job| runs(job)).count(), 1, "the one that was there");
    sim.git.commit("enough", &[("rollouts/checkout/0002/abort.yaml", Some(""))]);
    recorded(&sim, Event::Aborted, "", 1).await;
    sim.pass(Duration::from_secs(60)).await;
    assert_eq!(jobs(&sim).iter().filter(|job| runs(job)).count(), 0, "nobody waits for it any more");
    back_at_stable(&sim);
}

#[tokio::test(start_paused = true)]
async fn bad_numbers_send_it_back_with_git_away_too() {
    let sim = installed(METRIC, STEPS).await;
    sim.outside.answers(|_, _| says(series(&[&[0.1]])));
    merge(&sim);
    recorded(&sim, Event::StageWaiting, "weight-20", 1).await;
    sim.git.trouble(|trouble| trouble.away = true);
    sim.pass(Duration::from_secs(300)).await;
    let pods = sim.cluster.with(|world| world.api.list("pods").cloned().collect::<Vec<_>>());
    assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "registry.example/checkout:1.9"));
    sim.git.trouble(|trouble| trouble.away = false);
    recorded(&sim, Event::Aborted, "", 1).await;
    assert_eq!(runs(&sim)[0].1.verdict, Verdict::Fail, "and the record says why");
}

#[tokio::test(start_paused = true)]
async fn a_threshold_counts_bad_checks_until_one_is_good() {
    let sugar = "stepWeight: 20\nmaxWeight: 40\ninterval: 30s\nthreshold: 3\nmetrics: [success-rate]";
    let sim = installed("successCondition: 'result[0] >= 0.95'", sugar).await;
    let mut taken = 0;
    sim.outside.answers(move |_, _| {
        taken += 1;
        // Two are bad at the first step, and all at the second.
        says(series(&[&[if taken == 3 { 0.99 } else { 0.1 }]]))
    });
    merge(&sim);
    recorded(&sim, Event::Aborted, "", 1).await;
    let runs = runs(&sim);
    assert_eq!(verdicts(&runs[0].1), [Verdict::Fail, Verdict::Fail, Verdict::Pass]);
    assert_eq!(verdicts(&runs[1].1), [Verdict::Fail; 3]);
    assert_eq!(runs[1].0.stage.as_ref().map(|stage| stage.as_str()), Some("weight-40"));
}

#[tokio::test(start_paused = true)]
async fn fault_74_the_new_version_is_compared_with_the_stable_one() {
    let metric =
        "prometheus: {query: 'errors{pod=~\"{{ pods }}\"}'}, successCondition: 'value <= baseline * 1.2', noData: pass";
    for (new, passes) in [(0.5, true), (0.7, false)] {
        let sim = installed(metric, STEPS).await;
        sim.outside.answers(move |question, _| {
            let Question::Metric(metric) = question else { panic!("{question:?}") };
            let Query::Prometheus { query, baseline: Some(baseline), .. } = &metric.query else { panic!("{metric:?}") };
            assert_ne!(query, baseline, "each side has pods of its own");
            let (result, baseline) = (series(&[&[new]]), Some(series(&[&[0.5]])));
            (Duration::ZERO, Ok(Said::Reading(Reading { result, baseline })))
        });
        merge(&sim);
        let (event, stage) = if passes { (Event::Completed, "weight-100") } else { (Event::Aborted, "") };
        recorded(&sim, event, stage, 1).await;
    }
}

/// A set has pods of both versions under one name: each side is its ordinals, also while one of them is made anew.
#[tokio::test(start_paused = true)]
async fn of_a_stateful_set_each_side_is_its_own_ordinals() {
    let metric = "prometheus: {query: 'errors{pod=~\"{{ pods }}\", unit=\"{{ unit }}\"}'}, \
                  successCondition: 'value <= baseline', interval: 20s, count: 6, noData: pass";
    let steps = "\
steps:
- setWeight: 20
- analysis: {metrics: [success-rate]}
- setWeight: 60
- analysis: {metrics: [success-rate]}
";
    let mut sim = Sim::new(&[
        ("locktender.yaml", SETTINGS),
        (POLICY_FILE, &policy(metric, steps)),
        ("apps/checkout/app.yaml", APP),
        (DEPLOYMENT, &stateful_set("1.9")),
    ]);
    sim.outside.answers(|_, _| {
        let same = series(&[&[0.5]]);
        (Duration::ZERO, Ok(Said::Reading(Reading { result: same.clone(), baseline: Some(same) })))
    });
    sim.until("checkout", "stable", |report| report.activity == Activity::Stable && report.stage.is_some()).await;
    sim.git.commit("checkout 2.0", &[(DEPLOYMENT, Some(&stateful_set("2.0")))]);
    sim.until("checkout", "half measured", |report| {
        report.reasons.iter().any(|reason| matches!(reason, Reason::Analysing { done: 2, .. }))
    })
    .await;
    for pod in ["checkout-4", "checkout-0"] {
        sim.cluster.with(|world| world.api.delete("pods", "shop", pod, Default::default()).map(drop)).unwrap();
    }
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    let asked: Vec<(String, Option<String>)> =
        runs(&sim).into_iter().map(|(_, run)| (run.query, run.baseline)).collect();
    let errors = |pods: &str| format!("errors{{pod=~\"{pods}\", unit=\"\"}}");
    let both = |new: &str, old: &str| (errors(new), Some(errors(old)));
    let expected = [both("checkout-(4)", "checkout-(0|1|2|3)"), both("checkout-(2|3|4)", "checkout-(0|1)")];
    assert_eq!(asked, expected);
    assert!(runs(&sim).iter().all(|(_, run)| run.samples.len() == 6), "none was begun anew: {:?}", runs(&sim));
}

/// What told nothing is not taken for what counts, nor for what was never asked.
#[tokio::test(start_paused = true)]
async fn the_report_says_how_many_samples_told_nothing() {
    let mut sim = installed(&format!("{METRIC}, inconclusiveLimit: 60"), STEPS).await;
    sim.outside.answers(|_, _| says(series(&[])));
    merge(&sim);
    let report = sim
        .until("checkout", "37 told nothing", |report| {
            report.reasons.iter().any(|reason| matches!(reason, Reason::Analysing { taken: 37, .. }))
        })
        .await;
    let said: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.ends_with(": 0 of 3 samples, and 37 that told nothing")), "{said:?}");
}

const BESIDE: &str = "\
steps:
- setWeight: 20
- analysis: {metrics: [success-rate], background: true}
- setWeight: 40
- pause: {duration: 5m}
- setWeight: 60
- confirm: {}
";

#[tokio::test(start_paused = true)]
async fn in_the_background_good_numbers_hold_up_nothing_and_are_asked_until_the_end() {
    let sim = installed_with_confirms_at("weight-60", BESIDE).await;
    let before = sim.outside.asked().len();
    merge(&sim);
    recorded(&sim, Event::StageWaiting, "weight-60", 1).await;
    assert!(!has(&sim, Event::StageWaiting, "weight-20"), "the first step waits for nothing");
    sim.pass(Duration::from_secs(300)).await;
    sim.git.commit("yes", &[("rollouts/checkout/0002/confirm/weight-60.yaml", Some(""))]);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
    assert!(runs(&sim).is_empty(), "nothing came of it");
    let asked: Vec<Timestamp> = sim.outside.asked()[before..].iter().map(|(at, _)| *at).collect();
    let records = sim.records("checkout", 2);
    let completed = records.iter().find(|record| record.event == Event::Completed).unwrap().time;
    let gaps = asked.windows(2).map(|two| two[1].duration_since(two[0]).as_secs());
    assert!(gaps.clone().all(|gap| (10..13).contains(&gap)), "{:?}", gaps.collect::<Vec<_>>());
    assert!(asked.len() >= 60 && completed.duration_since(asked[asked.len() - 1]).as_secs() < 13, "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn in_the_background_bad_numbers_send_it_back_wherever_it_is() {
    // While pods come and go, in a pause, and while a person is waited for.
    for (stage, event) in
        [("weight-40", Event::StageStarted), ("weight-40", Event::StageWaiting), ("weight-60", Event::StageWaiting)]
    {
        let sim = installed_with_confirms_at("weight-60", BESIDE).await;
        merge(&sim);
        recorded(&sim, event, stage, 1).await;
        sim.outside.answers(|_, _| says(series(&[&[0.5]])));
        recorded(&sim, Event::Aborted, "", 1).await;
        sim.pass(Duration::from_secs(10)).await;
        let (record, run) = runs(&sim).remove(0);
        assert_eq!((run.verdict, run.check()), (Verdict::Fail, Ok(())));
        assert_eq!(run.samples.iter().filter(|sample| sample.verdict == Verdict::Fail).count(), 2, "one is forgiven");
        let aborting = sim.records("checkout", 2).into_iter().find(|record| record.event == Event::Aborting).unwrap();
        assert!(aborting.why.starts_with("success-rate is bad in 2 of "), "{}", aborting.why);
        assert_eq!(record.stage.as_ref().map(|stage| stage.as_str()), Some(stage));
        back_at_stable(&sim);
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_background_only_the_last_samples_count() {
    let sim = installed_with_confirms_at("weight-60", BESIDE).await;
    let mut taken = 0;
    sim.outside.answers(move |_, _| {
        taken += 1;
        // One in ten is bad, and one is forgiven.
        says(series(&[&[if taken % 10 == 0 { 0.5 } else { 0.99 }]]))
    });
    merge(&sim);
    recorded(&sim, Event::StageWaiting, "weight-60", 1).await;
    assert!(sim.outside.asked().len() > 25);
    sim.git.commit("yes", &[("rollouts/checkout/0002/confirm/weight-60.yaml", Some(""))]);
    recorded(&sim, Event::Completed, "weight-100", 1).await;
}
