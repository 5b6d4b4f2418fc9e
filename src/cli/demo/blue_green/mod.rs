//! The blue-green demo: an application under a steady load. One version is looked at, confirmed and switched to; one says that
//! it is not well, and gets no request; one is well until it gets requests, and is switched back by itself.

use std::ops::Range;

use jiff::Timestamp;

use super::{
    endpoints::Endpoints,
    gate,
    load::{Counts, Load},
    pods::Asker,
    router::Router,
    setting::Setting,
    table::{Row, Verdict, count, repaired, rollouts, verified},
    teller::{Teller, has},
};
use crate::{
    cli::error::Error,
    core::{
        ledger::{Cause, Event, Record},
        rollout::report::Reason,
    },
    sandbox::faults::{Fault, Target},
};

/// The application.
pub const APP: &str = "checkout";
/// How many headings it has.
pub const STEPS: usize = 6;
/// The release repository as it is when the demo begins.
pub const FILES: &[(&str, &str)] = &[
    ("policies/measured.yaml", include_str!("release/policies/measured.yaml")),
    ("apps/checkout/app.yaml", include_str!("release/apps/checkout/app.yaml")),
    ("apps/checkout/deployment.yaml", include_str!("release/apps/checkout/deployment.yaml")),
    ("apps/checkout/service.yaml", include_str!("release/apps/checkout/service.yaml")),
];
/// The subject of the first commit.
pub const FIRST: &str = "checkout 1.9";

/// The Service by which a new version is looked at.
const PREVIEW: &str = "checkout-preview";
/// How many replicas there are.
const REPLICAS: usize = 4;

/// What was seen, for the closing table.
#[derive(Debug, Default)]
pub struct Seen {
    /// The versions behind the preview Service before the switch, and how many pods of each.
    looked_at: Vec<String>,
    /// What the application's directory was in Git before 2.1 was merged: a tree's id.
    before: String,
}

/// Tells the story.
///
/// # Errors
///
/// A step does not end as it should, or git or the cluster does not answer.
pub async fn tell(teller: &mut Teller<'_>, load: &Load, router: &Router) -> Result<Seen, Error> {
    teller.introduce(&format!("a sandbox, and a load that calls `checkout` by {router} for ever"));
    if matches!(router, Router::Service) {
        teller.say("  No router stands before it: with HAProxy on this machine, or `--router gateway`, one does.");
    }
    teller.setting.sandbox.with_faults(|faults| {
        faults.add(Target::image("*/checkout:2.1"), Fault::Sick);
        faults.add(Target::image("*/checkout:2.2"), Fault::ServerErrors);
    });
    let mut seen = Seen::default();

    teller.heading("checkout 1.9 is in Git, so it is installed: four pods");
    teller.until(1, "is completed", |records, _| has(records, Event::Completed)).await?;

    teller.heading("a merge brings 2.0 up in full beside it; nobody's requests go there");
    teller.pass(gate::merge(APP, "1.9", "2.0", "Nothing but the image changes, on a branch that is merged:")).await?;
    teller.waiting(2, "preview").await?;
    let behind = Endpoints::of(&teller.setting.sandbox)?.now(PREVIEW).await?;
    seen.looked_at = behind.into_iter().map(|endpoint| endpoint.version).collect();
    let looked_at = format!("{} pods of {}", seen.looked_at.len(), seen.looked_at.first().map_or("", String::as_str));
    teller.say(&format!("  Every new pod answered its health check. Behind the Service {PREVIEW}: {looked_at}"));

    teller.heading("a confirm switches all requests at once");
    let asks = "It was looked at. A file that is committed lets the switch happen:";
    teller.pass(gate::confirm(APP, 2, "preview", asks)).await?;
    teller.until(2, "is completed", |records, _| has(records, Event::Completed)).await?;
    said(teller, load, 2).await?;
    seen.before = teller.setting.repositories.id("main:apps/checkout").await?;

    teller.heading("2.1 is ready, and says that it is not well: it is never switched to");
    teller.pass(gate::merge(APP, "2.0", "2.1", "Nothing but the image changes again:")).await?;
    let unwell = |reason: &Reason| matches!(reason, Reason::NotAllHealthy { trouble, .. } if !trouble.is_empty());
    teller.until(3, "is not well", |_, report| report.reasons.iter().any(unwell)).await?;
    let reports = teller.setting.reports.borrow().clone();
    let reasons = reports.values().flat_map(|report| &report.reasons).filter(|reason| unwell(reason));
    reasons.for_each(|reason| teller.say(&format!("  {reason}")));
    back(teller, load, 3).await?;

    teller.heading("2.2 is well until it gets requests: it is switched back by itself");
    teller.pass(gate::merge(APP, "2.0", "2.2", "One more:")).await?;
    teller.waiting(4, "preview").await?;
    teller.pass(gate::confirm(APP, 4, "preview", "Every pod says that it is well, so somebody confirms:")).await?;
    back(teller, load, 4).await?;
    Ok(seen)
}

/// Waits until a rollout is back, and says why it went and what the load saw.
async fn back(teller: &mut Teller<'_>, load: &Load, rollout: u32) -> Result<(), Error> {
    teller.until(rollout, "is back and Git repaired", |records, _| has(records, Event::Reverted)).await?;
    let records = teller.records(rollout).await?;
    if let Some(aborting) = records.iter().find(|record| record.event == Event::Aborting) {
        teller.say(&format!("  {}", aborting.why));
    }
    said(teller, load, rollout).await
}

async fn said(teller: &mut Teller<'_>, load: &Load, rollout: u32) -> Result<(), Error> {
    let counts = load.within(&course(&teller.records(rollout).await?));
    teller.say(&format!("  the load since the merge: {counts}"));
    Ok(())
}

/// From when a rollout opened until it was over.
fn course(records: &[Record]) -> Range<Timestamp> {
    let over = |record: &&Record| matches!(record.event, Event::Completed | Event::Aborted);
    let end = records.iter().find(over).map_or(Timestamp::MIN, |record| record.time);
    records.first().map_or(end, |record| record.time)..end
}

/// Compares what was seen with what is promised, and looks at cluster, repository and load once more.
///
/// # Errors
///
/// One of them does not answer.
pub async fn verdict(
    setting: &Setting,
    load: &Load,
    seen: &Seen,
    verify: Result<String, String>,
) -> Result<Verdict, Error> {
    let all = rollouts(setting, APP).await?;
    let of = |number: usize| all.get(number - 1).map_or(&[][..], Vec::as_slice);
    let during = |number: usize| load.within(&course(of(number)));
    let steps = vec![
        step("2.0 is switched to", &during(2), &["1.9", "2.0"], 0),
        step("2.1 is never switched to", &during(3), &["2.0"], 0),
        step(
            "2.2 is switched back",
            &during(4),
            &["2.0", "2.2", "2.0"],
            during(4).errors.get("2.2").copied().unwrap_or(0),
        ),
    ];
    let well = seen.looked_at.len() == REPLICAS && seen.looked_at.iter().all(|version| version == "2.0");
    let looked_at = format!("{} pods of 2.0, and the load reached none of them", seen.looked_at.len());
    let switch = of(2).iter().find(|record| record.stage.as_ref().is_some_and(|stage| stage.as_str() == "switch"));
    let before = load.within(&(course(of(2)).start..switch.map_or(Timestamp::MIN, |record| record.time)));
    let mut facts = vec![Row::new("looked at before the switch", looked_at, well && before.of("2.0") == 0)];
    facts.push(back_by_itself(of(4)));
    let now = Asker::of(&setting.sandbox, APP)?.pods().await?;
    let well = now.0.len() == REPLICAS && now.0.iter().all(|pod| pod.version == "2.0");
    let shown = now.at("2.0").values().sum::<usize>();
    facts.push(Row::new("the cluster now", format!("{shown} of {} pods answer 2.0", now.0.len()), well));
    facts.push(repaired(setting, APP, &seen.before).await?);
    facts.push(records(&all));
    facts.push(verified(verify));
    Ok(Verdict { header: &["requests", "failed", "new connections reached"], steps, facts })
}

fn step(what: &str, counts: &Counts, reached: &[&str], may_fail: usize) -> Row {
    let well = counts.failed() == may_fail && counts.reached == reached;
    let cells = [counts.all().to_string(), counts.failed().to_string(), counts.reached.join(", then ")];
    Row { what: what.to_owned(), seen: cells.to_vec(), well }
}

/// How long the bad version had requests, by what its record says.
fn back_by_itself(records: &[Record]) -> Row {
    let what = "2.2 had requests for";
    let at = |event: Event| records.iter().find(|record| record.event == event);
    let switched = records.iter().find(|record| {
        record.event == Event::StageStarted && record.stage.as_ref().is_some_and(|stage| stage.as_str() == "switch")
    });
    let (Some(switched), Some(begun)) = (switched, at(Event::Aborting)) else {
        return Row::new(what, "not seen", false);
    };
    let shown = format!("{} s: {}", begun.time.duration_since(switched.time).as_secs(), begun.why);
    let run = records.iter().find_map(|record| record.evidence.analysis.as_ref());
    Row::new(what, shown, begun.evidence.cause == Some(Cause::Failure) && run.is_some_and(|run| run.check().is_ok()))
}

/// What the journals say: how each rollout ended, and what was decided by whom.
fn records(all: &[Vec<Record>]) -> Row {
    let ends = |records: &Vec<Record>| {
        [Event::ConfirmAccepted, Event::Completed, Event::Aborted, Event::Reverted].map(|event| count(records, event))
    };
    let ends: Vec<[usize; 4]> = all.iter().map(ends).collect();
    let well = ends == [[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]];
    let total: usize = all.iter().map(Vec::len).sum();
    let sum = |at: usize| ends.iter().map(|ends| ends[at]).sum::<usize>();
    let (confirms, completed, aborted) = (sum(0), sum(1), sum(2));
    let what = format!("{confirms} confirms accepted, {completed} completed, {aborted} aborted");
    Row::new("records in Git", format!("{total} in {} rollouts: {what}", all.len()), well)
}
