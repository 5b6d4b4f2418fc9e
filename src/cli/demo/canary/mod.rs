//! The canary demo: bookinfo's `reviews` under a steady load. v2 grows by weights, measured at each; v3 answers errors, and
//! goes back by itself.

use jiff::Timestamp;

use super::{
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
        analysis::Verdict as Found,
        ledger::{Cause, Event, Record},
    },
    sandbox::faults::{Fault, Target},
};

/// The application.
pub const APP: &str = "reviews";
/// How many headings it has.
pub const STEPS: usize = 5;
/// The release repository as it is when the demo begins.
pub const FILES: &[(&str, &str)] = &[
    ("policies/measured.yaml", include_str!("release/policies/measured.yaml")),
    ("apps/reviews/app.yaml", include_str!("release/apps/reviews/app.yaml")),
    ("apps/reviews/deployment.yaml", include_str!("release/apps/reviews/deployment.yaml")),
    ("apps/reviews/service.yaml", include_str!("release/apps/reviews/service.yaml")),
];
/// The subject of the first commit.
pub const FIRST: &str = "reviews v1";

/// The steps that are measured, and the share of each.
const WEIGHTS: [(&str, u32); 3] = [("weight-20", 20), ("weight-40", 40), ("weight-60", 60)];
/// How many replicas there are.
const REPLICAS: usize = 10;

/// What was seen, for the closing table.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the application's directory was in Git before v3 was merged: a tree's id.
    before: String,
}

/// Tells the story.
///
/// # Errors
///
/// A step does not end as it should, or git or the cluster does not answer.
pub async fn tell(teller: &mut Teller<'_>, load: &Load, router: &Router) -> Result<Seen, Error> {
    teller.introduce(&format!("a sandbox, and a load that calls `reviews` by {router} for ever"));
    // v3 is well in every probe, and fails whoever calls it.
    teller.setting.sandbox.with_faults(|faults| faults.add(Target::image("*/reviews:v3"), Fault::ServerErrors));

    match router {
        Router::Service => {
            teller.heading("reviews v1 is in Git, so it is installed, by the same steps");
            teller.waiting(1, "weight-20").await?;
            let asks = "Nobody uses it yet. One file passes the confirms that are left; what is measured is measured all \
                        the same:";
            teller.pass(gate::promote(APP, 1, asks)).await?;
        }
        _ => {
            teller.heading("reviews v1 is in Git, so it is installed, all at once: there is nothing to share with yet")
        }
    }
    teller.until(1, "is completed", |records, _| has(records, Event::Completed)).await?;

    teller.heading(match router {
        Router::Service => "a merge releases v2: a fifth of the pods gets a fifth of the load",
        _ => "a merge releases v2: two pods beside the ten get a fifth of the load",
    });
    teller.pass(gate::merge(APP, "v1", "v2", "Nothing but the image changes, on a branch that is merged:")).await?;
    measured(teller, load, 2, "weight-20", "v2").await?;
    teller.waiting(2, "weight-20").await?;
    teller.heading("a confirm lets it grow: two fifths, three, all, each measured before the next");
    let asks = "What v2 answers is good so far. A file that is committed lets it grow:";
    teller.pass(gate::confirm(APP, 2, "weight-20", asks)).await?;
    measured(teller, load, 2, "weight-40", "v2").await?;
    measured(teller, load, 2, "weight-60", "v2").await?;
    teller.until(2, "is completed", |records, _| has(records, Event::Completed)).await?;
    let before = teller.setting.repositories.id("main:apps/reviews").await?;

    teller.heading("v3 passes its probes, and answers with errors: it goes back by itself");
    teller.pass(gate::merge(APP, "v2", "v3", "Nothing but the image changes again:")).await?;
    teller.until(3, "is back and Git repaired", |records, _| has(records, Event::Reverted)).await?;
    let records = teller.records(3).await?;
    let counts = load.within(&(opened(&records)..Timestamp::now()));
    teller.say(&format!("  the load since the merge: {counts}"));
    for record in records.iter().filter(|record| matches!(record.event, Event::AnalysisRun | Event::Aborting)) {
        teller.say(&format!("  {:?}: {}", record.event, record.why));
    }
    Ok(Seen { before })
}

/// Waits until a step was measured, and says what the load saw meanwhile.
async fn measured(teller: &mut Teller<'_>, load: &Load, rollout: u32, stage: &str, version: &str) -> Result<(), Error> {
    let is_measured = |records: &[Record]| find(records, Event::AnalysisRun, stage).is_some();
    teller.until(rollout, &format!("is measured at {stage}"), |records, _| is_measured(records)).await?;
    let records = teller.records(rollout).await?;
    if let Some((_, counts)) = at(&records, load, stage) {
        let share = counts.share(version);
        teller.say(&format!("  the load while it was measured: {counts}: {share:.0} % reached {version}"));
    }
    if let Some(record) = find(&records, Event::AnalysisRun, stage) {
        teller.say(&format!("  {}", record.why));
    }
    Ok(())
}

fn find<'r>(records: &'r [Record], event: Event, stage: &str) -> Option<&'r Record> {
    let is_it = |name: &Option<crate::core::names::StageName>| name.as_ref().is_some_and(|name| name.as_str() == stage);
    records.iter().find(|record| record.event == event && is_it(&record.stage))
}

fn opened(records: &[Record]) -> Timestamp {
    records.first().map_or(Timestamp::MAX, |record| record.time)
}

/// Returns how many new pods a step had, and what the load saw from when they were there until they were measured.
fn at(records: &[Record], load: &Load, stage: &str) -> Option<(usize, Counts)> {
    let waiting = find(records, Event::StageWaiting, stage)?;
    let measured = find(records, Event::AnalysisRun, stage)?;
    Some((waiting.evidence.pods.len(), load.within(&(waiting.time..measured.time))))
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
    let (good, bad) = (of(2), of(3));
    let steps = WEIGHTS.iter().map(|(stage, weight)| step(good, load, stage, *weight)).collect();
    let mut facts = vec![unharmed(good, load), back_by_itself(bad, load), evidence(bad)];
    let now = Asker::of(&setting.sandbox, APP)?.pods().await?;
    let well = now.0.len() == REPLICAS && now.0.iter().all(|pod| pod.version == "v2");
    let shown = now.at("v2").values().sum::<usize>();
    facts.push(Row::new("the cluster now", format!("{shown} of {} pods answer v2", now.0.len()), well));
    facts.push(repaired(setting, APP, &seen.before).await?);
    facts.push(records(&all));
    facts.push(verified(verify));
    Ok(Verdict { header: &["new pods", "requests", "by v1", "by v2", "share"], steps, facts })
}

fn step(records: &[Record], load: &Load, stage: &str, weight: u32) -> Row {
    let what = format!("v2: {stage}");
    let Some((pods, counts)) = at(records, load, stage) else { return Row::new(&what, "not seen", false) };
    let share = counts.share("v2");
    let of_ten = REPLICAS as u32 * weight / 100;
    let off = (share - f64::from(weight)).abs();
    let well = pods == of_ten as usize && off <= spread(&counts, weight) && counts.failed() == 0;
    let (old, new) = (counts.of("v1"), counts.of("v2"));
    let cells = [pods.to_string(), counts.all().to_string(), old.to_string(), new.to_string(), format!("{share:.0} %")];
    Row { what, seen: cells.to_vec(), well }
}

/// By how many percent of all requests a share may be off: five standard deviations of so many that are drawn, and a
/// little for the pods that come and go meanwhile where there is no router.
fn spread(counts: &Counts, weight: u32) -> f64 {
    let share = f64::from(weight) / 100.0;
    1.0 + 500.0 * (share * (1.0 - share) / counts.all().max(1) as f64).sqrt()
}

/// No request failed while v2 came.
fn unharmed(records: &[Record], load: &Load) -> Row {
    let what = "requests that failed while v2 came";
    let Some(completed) = records.iter().find(|record| record.event == Event::Completed) else {
        return Row::new(what, "not seen", false);
    };
    let counts = load.within(&(opened(records)..completed.time));
    Row::new(what, format!("{} of {}", counts.failed(), counts.all()), counts.failed() == 0 && counts.all() > 0)
}

/// v3 got a fifth of the load at most, and nothing once it was back.
fn back_by_itself(records: &[Record], load: &Load) -> Row {
    let what = "v3 went back by itself";
    let time = |event: Event| records.iter().find(|record| record.event == event).map(|record| record.time);
    let (Some(begun), Some(back)) = (time(Event::Aborting), time(Event::Aborted)) else {
        return Row::new(what, "not seen", false);
    };
    let during = load.within(&(opened(records)..back));
    let after = load.within(&(back..Timestamp::now()));
    let seconds = begun.duration_since(opened(records)).as_secs();
    let shown = format!(
        "{seconds} s after its merge; {} of {} requests reached it, {} since",
        during.of("v3"),
        during.all(),
        after.of("v3")
    );
    let by_itself = records.iter().any(|record| record.evidence.cause == Some(Cause::Failure));
    let others = during.failed() - during.errors.get("v3").copied().unwrap_or(0);
    let few = during.share("v3") <= 20.0 + spread(&during, 20);
    Row::new(what, shown, by_itself && during.of("v3") > 0 && few && others == 0 && after.of("v3") == 0)
}

/// The samples that decided are in the record, and give the verdict again.
fn evidence(records: &[Record]) -> Row {
    let what = "the evidence in its record";
    let Some(run) = records.iter().find_map(|record| record.evidence.analysis.as_ref()) else {
        return Row::new(what, "not seen", false);
    };
    Row::new(what, run.why(), run.verdict == Found::Fail && run.check().is_ok())
}

/// What the journals say: how each rollout ended, and what was decided by whom.
fn records(all: &[Vec<Record>]) -> Row {
    let sum = |event: Event| all.iter().map(|records| count(records, event)).sum::<usize>();
    let (confirms, analyses) = (sum(Event::ConfirmAccepted), sum(Event::AnalysisRun));
    let well = match all {
        [install, good, bad] => {
            // With a router an install is one stage without a gate.
            [count(install, Event::Completed), count(good, Event::Completed)] == [1, 1]
                && [count(good, Event::ConfirmAccepted), count(bad, Event::ConfirmAccepted)] == [1, 0]
                && [count(bad, Event::Aborted), count(bad, Event::Reverted)] == [1, 1]
        }
        _ => false,
    };
    let total: usize = all.iter().map(Vec::len).sum();
    let shown =
        format!("{total} in {} rollouts: {analyses} analyses, {confirms} confirm accepted, 1 aborted", all.len());
    Row::new("records in Git", shown, well)
}
