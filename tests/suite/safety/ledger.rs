//! What Git must say before, and what is believed of what it says.

use std::time::Duration;

use locktender::core::{
    ledger::{Draft, Event, Record, journal},
    names::Digest,
    rollout::report::{Activity, Reason, Report},
};

use super::shop::{DEPLOYMENT, Shop, counted, manifest, policy};

fn says(report: &Report, wanted: impl Fn(&Reason) -> bool) -> bool {
    report.reasons.iter().any(wanted)
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_forward_before_its_record_is_pushed() {
    let mut shop = Shop::at_beta(&policy(&[], &[])).await;
    shop.sim.git.trouble(|trouble| trouble.refuse = Some("the branch is protected".to_owned()));
    shop.confirm("beta");
    shop.pass(30).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    shop.sim.git.trouble(|trouble| trouble.refuse = None);
    shop.waits("batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn going_back_does_not_wait_for_git() {
    let mut shop = Shop::installed(&policy(&["progressDeadlineSeconds: 120"], &[])).await;
    shop.release("2.0-never-ready");
    shop.until("on its way", |report| report.units.values().flat_map(|all| all.values()).any(|unit| unit.coming > 0))
        .await;
    shop.sim.git.trouble(|trouble| trouble.away = true);
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 10)]), "failed, and back at stable");
    assert!(!shop.events(2).contains(&Event::Aborting), "Git cannot have it yet");
    shop.restart();
    shop.pass(5).await;
    shop.sim.git.trouble(|trouble| trouble.away = false);
    shop.until("back", |report| report.activity == Activity::Stable).await;
    let events = shop.events(2);
    assert_eq!(events.iter().filter(|event| **event == Event::Aborting).count(), 1, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn fault_37_a_branch_without_our_last_record_is_not_followed() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    let before = shop.sim.git.tip_now().unwrap();
    shop.release("2.0");
    shop.waits("beta").await;
    shop.sim.git.force(before);
    shop.commit("as if nothing had been", &[("README.md", Some("checkout\n"))]);
    shop.until("told", |report| says(report, |reason| matches!(reason, Reason::HistoryRewritten { .. }))).await;
    let commits = shop.sim.git.subjects();
    shop.pass(30).await;
    assert_eq!(shop.sim.git.subjects(), commits, "nothing is written on top of a rewritten branch");
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]), "and nothing is moved");
}

#[tokio::test(start_paused = true)]
async fn fault_38_an_older_head_is_waited_out() {
    let mut shop = Shop::installed(&policy(&[], &[])).await;
    let before = shop.sim.git.tip_now().unwrap();
    shop.release("2.0");
    shop.waits("beta").await;
    shop.sim.git.trouble(|trouble| trouble.stale = Some(before));
    let report = shop.until("told", |report| says(report, |reason| matches!(reason, Reason::GitAway { .. }))).await;
    assert!(
        !says(&report, |reason| matches!(reason, Reason::HistoryRewritten { .. })),
        "a replica that lags is no attack"
    );
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    shop.sim.git.trouble(|trouble| trouble.stale = None);
    shop.confirm("beta");
    shop.waits("batch-1").await;
}

#[tokio::test(start_paused = true)]
async fn fault_82_a_forged_record_is_not_believed() {
    let shop = Shop::at_beta(&policy(&[], &[])).await;
    let records = shop.records(2);
    let last = records.last().unwrap();
    let draft = Draft::new(Event::StageStarted, Some(&"batch-1".into()), "let me through");
    let mut forged = Record::chain(draft, last.seq + 1, last.time, last.head.clone(), last.id);
    forged.id = Digest::of(b"as good as any");
    let text = journal::write(&[records.clone(), vec![forged]].concat());
    shop.commit("a tidier ledger", &[("rollouts/checkout/0002/journal.yaml", Some(&text))]);
    shop.pass(10).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 8), ("2.0", 2)]));
    let now = shop.records(2);
    assert_eq!(now[..records.len()], records, "what was pushed is as it was");
    assert!(now[records.len()..].iter().all(|record| record.event == Event::LedgerRestored));
}

#[tokio::test(start_paused = true)]
async fn a_change_without_stages_is_put_in_place_on_its_own_record_and_is_no_drift() {
    let mut shop = Shop::installed(&policy(&["drift: report"], &[])).await;
    let settings =
        |n: u32| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{turn: '{n}'}}\n");
    for n in 1..=8 {
        shop.commit(&format!("settings {n}"), &[("apps/checkout/settings.yaml", Some(&settings(n)))]);
        shop.sim.pass(Duration::from_secs(10)).await;
        let live = shop.sim.cluster.with(|world| world.api.get("configmaps", "shop", "settings")).unwrap();
        assert_eq!(live["data"]["turn"], n.to_string());
    }
    let more = manifest("1.9").replace("replicas: 10", "replicas: 12");
    shop.commit("two more", &[(DEPLOYMENT, Some(&more))]);
    shop.pass(1).await;
    assert_eq!(shop.tags(), counted(&[("1.9", 12)]));
    let events = shop.events(1);
    assert!(!events.contains(&Event::DriftCorrected), "{events:?}");
    assert_eq!(events.iter().filter(|event| **event == Event::Applied).count(), 9);
    shop.until("stable", |report| report.activity == Activity::Stable).await;
}
