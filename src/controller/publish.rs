//! From decided records to commits: chained, written into their journals, one commit for what was decided together.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::journals::{AppLedger, Journal};
use crate::core::{
    ledger::{
        Draft, Record,
        message::{Message, message, subject},
    },
    names::{AppName, Digest, Revision},
    policy::Paths,
    repository::CommitDraft,
    rollout::{
        input::{Decision, Edits},
        plan::{self, Plan},
    },
    shared::Shared,
};

/// What is to be pushed for one application.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The application.
    pub app: AppName,
    /// A commit before the records: Git is repaired.
    pub repair: Option<CommitDraft>,
    /// The rollout that is opened.
    pub opened: Option<Shared<Plan>>,
    /// The new records, with their rollouts' numbers.
    pub records: Vec<(u32, Record)>,
    /// What the records' commit says, and its plans and journals by path.
    commit: Option<(Message, Edits)>,
    /// The journals as they are once they are pushed.
    journals: BTreeMap<u32, Arc<str>>,
}

impl Publication {
    /// Takes what is published into the ledger that it was composed for.
    pub fn append_to(&self, ledger: &mut AppLedger) {
        ledger.append(self.opened.clone(), self.records.iter().cloned());
    }

    /// Returns the numbers of the rollouts whose journals are written.
    pub fn rollouts(&self) -> impl Iterator<Item = u32> {
        self.journals.keys().copied()
    }

    /// Takes what was pushed into the ledger that it was composed for.
    pub fn pushed_to(&self, ledger: &mut AppLedger) {
        self.append_to(ledger);
        ledger.are_pushed(self.journals.clone());
    }
}

/// Chains what was decided behind what is known, and writes it down. Records that could not be pushed before go along.
pub fn compose(app: &AppName, ledger: &AppLedger, decision: &Decision, head: &Revision, now: Timestamp) -> Publication {
    let mut chain = Chain { ledger, head, now, tip: ledger.tip(), fresh: Vec::new() };
    for (number, draft) in &decision.records {
        let known = ledger.rollouts.get(number);
        if let Some(known) = known {
            chain.append(*number, known.plan.hash, draft.clone());
        }
    }
    let opened = decision.open.as_ref().map(|(plan, _)| Shared::from(plan.clone()));
    if let Some((plan, drafts)) = &decision.open {
        for draft in drafts {
            chain.append(plan.rollout.number, plan.hash, draft.clone());
        }
    }
    let records = chain.fresh;
    let mut edits = Edits::new();
    let mut journals = BTreeMap::new();
    let mut said: Vec<Record> = Vec::new();
    let mut last = None;
    let none = opened.clone().map(|plan| Journal::new(plan, Vec::new(), 0));
    let latest = none.as_ref().or(ledger.rollouts.values().next_back()).map(|journal| journal.plan.rollout.number);
    for journal in ledger.rollouts.values().chain(&none) {
        let number = journal.plan.rollout.number;
        let new = || records.iter().filter(move |(of, _)| *of == number).map(|(_, record)| record);
        // The latest is always written, so that copies which somebody changed are as they should be again.
        if journal.pushed == journal.records.len() && new().next().is_none() && latest != Some(number) {
            continue;
        }
        let directory = journal.plan.rollout.directory();
        let text = journal.text_with(new());
        edits.insert(format!("{directory}/plan.yaml"), Some(plan::write(&journal.plan).into_bytes()));
        edits.insert(format!("{directory}/journal.yaml"), Some(text.clone().into_bytes()));
        said.extend(journal.records[journal.pushed..].iter().chain(new()).cloned());
        journals.insert(number, text.into());
        last = Some(&journal.plan);
    }
    // The subject speaks of the rollout that the commit ends with; the body lists everything.
    let of_last = records.iter().filter(|(number, _)| last.is_some_and(|plan| plan.rollout.number == *number));
    let of_last: Vec<Record> = of_last.map(|(_, record)| record.clone()).collect();
    let subject = if of_last.is_empty() { "records of an outage".to_owned() } else { subject(&of_last) };
    let commit = last.map(|plan| {
        let (rollout, target) = (plan.rollout.clone(), plan.to.digest);
        (Message { rollout, target, subject, records: said }, edits)
    });
    let repair = decision.edits.as_ref().map(|(edits, text)| CommitDraft {
        message: text.clone(),
        edits: edits.clone(),
        time: now,
        author: None,
    });
    Publication { app: app.clone(), repair, opened, records, commit, journals }
}

/// New records, each chained to the one before.
struct Chain<'a> {
    ledger: &'a AppLedger,
    head: &'a Revision,
    now: Timestamp,
    tip: Option<Digest>,
    fresh: Vec<(u32, Record)>,
}

impl Chain<'_> {
    fn append(&mut self, number: u32, plan: Digest, draft: Draft) {
        let known = self.ledger.rollouts.get(&number).map_or(0, |journal| journal.records.len());
        let new = self.fresh.iter().filter(|(of, _)| *of == number).count();
        let seq = u32::try_from(known + new).unwrap_or(u32::MAX).saturating_add(1);
        let record = Record::chain(draft, seq, self.now, self.head.clone(), self.tip.unwrap_or(plan));
        self.tip = Some(record.id);
        self.fresh.push((number, record));
    }
}

/// When so many applications are recorded by one push, they share a commit: each commit writes the list of all
/// applications' ledgers anew, so a commit each would cost their number twice over.
const TOGETHER: usize = 16;

/// Writes the commits of one push, in order: a repair in one of its own, and the records.
pub fn commits(publications: &[&Publication], now: Timestamp) -> Vec<CommitDraft> {
    let draft =
        |messages: &[Message], edits| CommitDraft { message: message(messages), edits, time: now, author: None };
    let together = publications.len() >= TOGETHER;
    let mut commits = Vec::new();
    let (mut messages, mut edits) = (Vec::new(), Edits::new());
    for publication in publications {
        commits.extend(publication.repair.clone());
        let Some((message, files)) = publication.commit.clone() else { continue };
        if together && publication.repair.is_none() {
            messages.push(message);
            edits.extend(files);
        } else {
            commits.push(draft(&[message], files));
        }
    }
    if !messages.is_empty() {
        commits.push(draft(&messages, edits));
    }
    commits
}

/// Returns the directory of an application's manifests.
pub fn directory(paths: &Paths, app: &AppName) -> String {
    format!("{}/{app}", paths.apps)
}
