//! Audit: does the ledger explain what is stable, and was nothing in it changed?
//!
//! Pure: Git's side of it (which versions of a file there ever were, whether a decision's file was there, whose commit
//! it was) comes in as [`RolloutFacts`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{DecisionFile, Event, Record, journal, journal::JournalError};
use crate::core::{
    analysis::Run,
    names::{AppName, Digest, Revision, RolloutId},
    rollout::plan::Plan,
};

/// One version of a file that some commit had.
#[derive(Clone, Debug)]
pub struct Version<T> {
    /// The first commit with it.
    pub commit: Revision,
    /// Whether HEAD has it.
    pub at_head: bool,
    /// What it says.
    pub content: T,
}

/// What Git says of a decision that a record accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionFacts {
    /// Whether the file was there, as it was, in the commit that the record was decided on.
    pub was_there: bool,
    /// Whether the commit that brought it is the controller's own.
    pub by_controller: bool,
}

/// What Git has of one rollout.
#[derive(Clone, Debug)]
pub struct RolloutFacts {
    /// Its id.
    pub id: RolloutId,
    /// Every version that its `plan.yaml` ever had.
    pub plans: Vec<Version<Result<Plan, String>>>,
    /// Every version that its `journal.yaml` ever had.
    pub journals: Vec<Version<Result<Vec<Record>, JournalError>>>,
    /// By the id of the record that accepts it.
    pub decisions: BTreeMap<Digest, DecisionFacts>,
    /// The commits named by records as what they were decided on that are not in HEAD's history.
    pub unknown_heads: BTreeSet<Revision>,
}

/// What the audit of one application found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// How many rollouts.
    pub rollouts: usize,
    /// How many records.
    pub records: usize,
    /// How many confirms were accepted.
    pub confirms: usize,
    /// How many of them were by people.
    pub by_people: usize,
    /// How many analyses' verdicts were computed again.
    #[serde(skip_serializing_if = "is_none")]
    pub analyses: usize,
    /// What was changed and put right again: worth knowing, and no damage.
    pub notes: Vec<String>,
    /// The first place that cannot be believed: where, and why.
    pub broken: Option<(String, String)>,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

/// Checks everything about one application.
pub fn audit(app: &AppName, rollouts: &[RolloutFacts]) -> Audited {
    let mut audited = Audited { rollouts: rollouts.len(), ..Audited::default() };
    let mut last: Option<Digest> = None;
    for facts in rollouts {
        if let Err((place, why)) = rollout(facts, &mut last, &mut audited) {
            audited.broken = Some((format!("{app} {:04}{place}", facts.id.number), why));
            break;
        }
    }
    audited
}

type Broken = (String, String);

fn rollout(facts: &RolloutFacts, last: &mut Option<Digest>, audited: &mut Audited) -> Result<(), Broken> {
    let here = |why: String| Err((String::new(), why));
    let chains = facts.journals.iter().filter_map(|version| version.content.as_ref().ok());
    let Some(records) = chains.clone().max_by_key(|records| records.len()).filter(|records| !records.is_empty()) else {
        let why = facts.journals.iter().find_map(|version| version.content.as_ref().err());
        return here(why.map_or_else(|| "there is no journal".to_owned(), ToString::to_string));
    };
    one_chain(facts, records, audited)?;
    let plan = plan(facts, records)?;
    let expected = last.unwrap_or(plan.hash);
    if records[0].previous != expected {
        let what = if last.is_some() { "the last record before" } else { "its plan" };
        return Err((
            " record 1".to_owned(),
            format!("it does not follow {what}: {} is not {expected}", records[0].previous),
        ));
    }
    for (index, record) in records.iter().enumerate() {
        let place = || format!(" record {} ({:?})", record.seq, record.event);
        if facts.unknown_heads.contains(&record.head) {
            let why = format!("it was decided on {}, which is not in the branch's history", record.head.short());
            return Err((place(), why));
        }
        if let Some(run) = &record.evidence.analysis {
            analysis(run, plan).map_err(|why| (place(), why))?;
            audited.analyses += 1;
        }
        let Some(file) = accepted(record) else { continue };
        decision(record, file, &records[..index], facts, audited).map_err(|why| (place(), why))?;
    }
    audited.records += records.len();
    *last = records.last().map(|record| record.id);
    Ok(())
}

/// Checks that every version of the journal is the beginning of the longest.
fn one_chain(facts: &RolloutFacts, longest: &[Record], audited: &mut Audited) -> Result<(), Broken> {
    for version in &facts.journals {
        let name = format!("{:04}/journal.yaml", facts.id.number);
        match &version.content {
            Ok(records) if journal::continues(longest, records) => {}
            Ok(_) => {
                let why = format!("the journal in {} is another history than the longest", version.commit.short());
                return Err((String::new(), why));
            }
            Err(error) if version.at_head => return Err((String::new(), format!("{error}, at HEAD"))),
            Err(error) => {
                audited
                    .notes
                    .push(format!("{name} was changed in {} and put right again: {error}", version.commit.short()));
            }
        }
    }
    Ok(())
}

fn plan<'f>(facts: &'f RolloutFacts, records: &[Record]) -> Result<&'f Plan, Broken> {
    let broken = |why: String| (" plan".to_owned(), why);
    let named = records[0].evidence.plan.ok_or_else(|| broken("the first record names no plan".to_owned()))?;
    for version in facts.plans.iter().filter(|version| version.at_head) {
        match &version.content {
            Ok(plan) if plan.hash == named => {}
            Ok(plan) => {
                return Err(broken(format!(
                    "HEAD has plan {}, the journal names {}",
                    plan.hash.short(),
                    named.short()
                )));
            }
            Err(error) => return Err(broken(error.clone())),
        }
    }
    let plans = facts.plans.iter().filter_map(|version| version.content.as_ref().ok());
    let found = plans.into_iter().find(|plan| plan.hash == named && plan.rollout == facts.id);
    found.ok_or_else(|| broken(format!("no version of plan.yaml is plan {}", named.short())))
}

/// Checks that an analysis was judged by the plan's rule, and that its verdict follows from its samples.
fn analysis(run: &Run, plan: &Plan) -> Result<(), String> {
    let metric = plan.policy.as_ref().and_then(|policy| policy.spec.metrics.get(&run.metric));
    if metric.is_none_or(|metric| metric.rule != run.rule) {
        return Err(format!("{} was judged by another rule than the plan's", run.metric));
    }
    run.check()
}

/// Returns the decision that a record acts on.
pub fn accepted(record: &Record) -> Option<&DecisionFile> {
    let acts = matches!(record.event, Event::ConfirmAccepted | Event::Promoted | Event::Aborting | Event::Retried);
    record.evidence.decision.as_ref().filter(|_| acts)
}

/// Checks that a decision was valid when it was accepted: its author saw what it decides.
fn decision(
    record: &Record,
    file: &DecisionFile,
    before: &[Record],
    facts: &RolloutFacts,
    audited: &mut Audited,
) -> Result<(), String> {
    let path = &file.path;
    let seen = |event: Event| {
        let same =
            move |one: &&Record| one.event == event && (event == Event::RolloutOpened || one.stage == record.stage);
        before.iter().rev().find(same)
    };
    let (answers, must_be) = match record.event {
        Event::ConfirmAccepted => (seen(Event::StageWaiting), "its stage's waiting record"),
        _ => (seen(Event::RolloutOpened), "the rollout's opening"),
    };
    let Some(answers) = answers else { return Err(format!("{path} was accepted before {must_be}")) };
    if record.event != Event::Retried && answers.lists(file) {
        return Err(format!("{path} was there before {must_be} (record {}): it opens nothing", answers.seq));
    }
    let in_anchor = file.blob.as_ref().is_some_and(|blob| blob.as_str().starts_with("anchor:"));
    let known = facts.decisions.get(&record.id);
    match known {
        Some(known) if known.was_there || in_anchor => {}
        None if in_anchor => {}
        _ => return Err(format!("{path} was not there, as it was accepted, in {}", record.head.short())),
    }
    if record.event == Event::ConfirmAccepted {
        audited.confirms += 1;
        audited.by_people += usize::from(known.is_some_and(|known| !known.by_controller));
    }
    Ok(())
}
