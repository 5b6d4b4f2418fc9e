//! From decided records to commits: chained, written into their journals, one commit for what was decided together.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::journals::{AppLedger, Journal};
use crate::core::{
    ledger::{
        Draft, Record, journal,
        message::{message, subject},
    },
    names::{AppName, Digest, Revision, RolloutId},
    policy::Paths,
    repository::CommitDraft,
    rollout::{input::Decision, plan},
};

/// What is to be pushed for one application, and what its ledger is once it is.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The application.
    pub app: AppName,
    /// The commits, in order.
    pub commits: Vec<CommitDraft>,
    /// The ledger with the new records, every one of them counted as pushed.
    pub ledger: AppLedger,
    /// How many records are new.
    pub records: usize,
    /// Whether Git is repaired by one of the commits.
    pub repairs: bool,
}

/// Chains what was decided behind what is known, and writes the commits. Records that could not be pushed before go
/// along.
pub fn compose(app: &AppName, ledger: &AppLedger, decision: &Decision, head: &Revision, now: Timestamp) -> Publication {
    let mut ledger = ledger.clone();
    let mut fresh: Vec<(u32, Record)> = Vec::new();
    for (number, draft) in &decision.records {
        append(&mut ledger, *number, draft.clone(), head, now, &mut fresh);
    }
    if let Some((plan, drafts)) = &decision.open {
        let number = plan.rollout.number;
        ledger.rollouts.insert(number, Journal { plan: plan.clone(), records: Vec::new(), pushed: 0 });
        for draft in drafts {
            append(&mut ledger, number, draft.clone(), head, now, &mut fresh);
        }
    }
    let records = fresh.len();
    let mut commits = Vec::new();
    if let Some((edits, text)) = &decision.edits {
        commits.push(CommitDraft { message: text.clone(), edits: edits.clone(), time: now, author: None });
    }
    let mut edits = BTreeMap::new();
    let mut said: Vec<Record> = Vec::new();
    let mut last = None;
    let count = ledger.rollouts.len();
    for (index, (number, journal)) in ledger.rollouts.iter_mut().enumerate() {
        // The latest is always written, so that copies which somebody changed are as they should be again.
        if journal.pushed == journal.records.len() && index + 1 < count {
            continue;
        }
        let directory = RolloutId { app: app.clone(), number: *number }.directory();
        edits.insert(format!("{directory}/plan.yaml"), Some(plan::write(&journal.plan).into_bytes()));
        edits.insert(format!("{directory}/journal.yaml"), Some(journal::write(&journal.records).into_bytes()));
        said.extend(journal.records[journal.pushed..].iter().cloned());
        journal.pushed = journal.records.len();
        last = Some(journal.plan.clone());
    }
    if let Some(plan) = last {
        // The subject speaks of the rollout that the commit ends with; the body lists everything.
        let of_last: Vec<Record> = fresh
            .iter()
            .filter(|(number, _)| *number == plan.rollout.number)
            .map(|(_, record)| record.clone())
            .collect();
        let subject = if of_last.is_empty() { "records of an outage".to_owned() } else { subject(&of_last) };
        let text = message(&plan.rollout, Some(&plan.to.digest), &subject, &said);
        commits.push(CommitDraft { message: text, edits, time: now, author: None });
    }
    ledger.refold();
    Publication { app: app.clone(), commits, ledger, records, repairs: decision.edits.is_some() }
}

fn append(
    ledger: &mut AppLedger,
    number: u32,
    draft: Draft,
    head: &Revision,
    now: Timestamp,
    fresh: &mut Vec<(u32, Record)>,
) {
    let previous = ledger.tip();
    let Some(journal) = ledger.rollouts.get_mut(&number) else { return };
    let previous: Digest = previous.unwrap_or(journal.plan.hash);
    let seq = u32::try_from(journal.records.len()).unwrap_or(u32::MAX).saturating_add(1);
    let record = Record::chain(draft, seq, now, head.clone(), previous);
    journal.records.push(record.clone());
    fresh.push((number, record));
}

/// Returns the directory of an application's manifests.
pub fn directory(paths: &Paths, app: &AppName) -> String {
    format!("{}/{app}", paths.apps)
}
