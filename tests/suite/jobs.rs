//! Analysis by Jobs, on an API server whose controllers run them.
#![allow(clippy::unwrap_used, clippy::panic)]

use locktender::core::{
    analysis::{Finding, Verdict},
    ledger::{Cause, Event},
    rollout::report::Activity,
};

use crate::{
    histories::release::{Place, Release},
    simulation::rollouts::{APP, DEPLOYMENT, manifest},
};

const POLICY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  metrics:
    smoke:
      job:
        spec:
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              containers:
              - {name: smoke, image: 'registry.example/smoke:1', args: ['--pods={{ pods }}']}
  strategy:
    canary:
      steps:
      - setWeight: 20
      - analysis: {metrics: [smoke]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_opens_the_gate_and_one_that_fails_sends_it_back() {
    let policy_file = "policies/two-data-centers.yaml";
    let release = Release::new(
        Place::live(),
        &[(policy_file, POLICY), ("apps/checkout/app.yaml", APP), (DEPLOYMENT, &manifest("1.9"))],
    )
    .await;
    let seen = release.until("checkout", "1.9 is installed", |seen| seen.is(1, Activity::Stable)).await;
    let run = seen.last(1, Event::AnalysisRun).unwrap().evidence.analysis.clone().unwrap();
    assert_eq!((run.verdict, run.check()), (Verdict::Pass, Ok(())));

    release.commit("checkout 2.0, and a test that fails", |clone| {
        clone.write(policy_file, &POLICY.replace("smoke:1", "smoke:1-crash"));
        clone.write(DEPLOYMENT, &manifest("2.0"));
    });
    let seen = release.until("checkout", "2.0 goes back", |seen| seen.has(2, Event::Reverted)).await;
    let aborting = seen.last(2, Event::Aborting).unwrap();
    assert_eq!(aborting.evidence.cause, Some(Cause::Failure));
    let run = seen.last(2, Event::AnalysisRun).unwrap().evidence.analysis.clone().unwrap();
    assert_eq!((run.verdict, run.check()), (Verdict::Fail, Ok(())));
    let Finding::Measured { result, .. } = &run.samples[0].found else { panic!("{run:?}") };
    assert!(result.contains("BackoffLimitExceeded") && result.contains("\"complete\":false"), "{result}");
    release.until("checkout", "stable", |seen| seen.pods() == "1.9: 10").await;
}
