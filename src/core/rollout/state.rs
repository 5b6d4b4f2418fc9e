//! Where a rollout is: the fold of its records over its plan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::plan::{Plan, Stage};
use crate::core::{
    analysis::Verdict,
    ledger::{Cause, DecisionFile, Event, Quota, Record},
    names::{Digest, Revision, StageName},
    policy::Decision,
    shared::Shared,
};

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target is stable.
    Completed,
    /// Back at stable; the target is refused.
    Aborted,
    /// Another rollout took its place.
    Superseded,
}

/// What a rollout is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Going forward, or waiting at a gate.
    Running,
    /// Failed; waits for `retry.yaml` or a new revision.
    Stopped,
    /// Going back to stable.
    Aborting(Cause),
    /// Over.
    Ended(Outcome),
}

/// A waiting record that still counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The record's id.
    pub record: Digest,
    /// Since when.
    pub since: Timestamp,
    /// What was in the directory already.
    pub listed: Vec<DecisionFile>,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its plan.
    pub plan: Shared<Plan>,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// What it is doing.
    pub phase: Phase,
    /// The stage whose quota may be reached for: an index into the plan's stages.
    pub stage: usize,
    /// When that stage started, was returned to, or was tried again: progress is counted from here.
    pub since: Timestamp,
    /// The waiting records that count.
    pub waiting: BTreeMap<StageName, Waiting>,
    /// The metrics that were found good at a stage, since it was entered.
    pub good: BTreeMap<StageName, BTreeSet<String>>,
    /// Whether `pause.yaml` holds it.
    pub paused: bool,
    /// Quotas by stage, as they are now.
    pub quotas: Vec<Quota>,
    /// The units' totals by workload, as they are now.
    pub totals: Quota,
    /// The revision that is the target in place of the plan's, after a change that needs no stages.
    pub applied: Option<(Revision, Digest)>,
    /// The revision that is stable since this rollout ended, where it is another than before.
    pub applied_at_rest: Option<(Revision, Digest)>,
    /// The revisions that were in place while nothing ran, and whose routers are not told any more.
    pub routed_by: Vec<Revision>,
    /// Every decision that was answered, accepted or not.
    pub answered: BTreeSet<DecisionFile>,
    /// What was in the directory when the rollout opened or a gate closed again: promotes among these count no more.
    pub old_decisions: BTreeSet<DecisionFile>,
    /// What was in the directory when it stopped or ended.
    pub final_decisions: Vec<DecisionFile>,
    /// Whether Git was repaired after the abort.
    pub repaired: bool,
    /// Why the application is held, where the last record about it says so.
    pub held: Option<String>,
    /// Whether HEAD was seen rendering something else than the target since it was aborted.
    pub moved_on: bool,
}

impl State {
    /// Folds records over their plan. Total: records that make no sense where they stand change nothing.
    pub fn fold(plan: impl Into<Shared<Plan>>, records: Vec<Record>) -> Self {
        let plan = plan.into();
        let since = records.first().map_or(Timestamp::UNIX_EPOCH, |record| record.time);
        let quotas = plan.stages.iter().map(|stage| stage.quota.clone()).collect();
        let totals = plan.totals.clone();
        let mut state = Self {
            plan,
            records: Vec::new(),
            phase: Phase::Running,
            stage: 0,
            since,
            waiting: BTreeMap::new(),
            good: BTreeMap::new(),
            paused: false,
            quotas,
            totals,
            applied: None,
            applied_at_rest: None,
            routed_by: Vec::new(),
            answered: BTreeSet::new(),
            old_decisions: BTreeSet::new(),
            final_decisions: Vec::new(),
            repaired: false,
            held: None,
            moved_on: false,
        };
        for record in records {
            state.take(record);
        }
        state
    }

    /// Folds one more record.
    pub fn take(&mut self, record: Record) {
        let index = record.stage.as_ref().and_then(|name| self.index_of(name));
        match record.event {
            Event::RolloutOpened => self.old_decisions.extend(record.decisions.iter().cloned()),
            Event::StageStarted => {
                self.stage = index.unwrap_or(self.stage);
                self.since = record.time;
            }
            Event::StageWaiting => {
                if let Some(name) = &record.stage {
                    let waiting = Waiting { record: record.id, since: record.time, listed: record.decisions.clone() };
                    self.waiting.insert(name.clone(), waiting);
                }
            }
            Event::ConfirmAccepted | Event::DecisionRejected | Event::Promoted => {
                self.answered.extend(record.evidence.decision.clone());
            }
            Event::StageReverted => {
                self.stage = index.unwrap_or(self.stage);
                self.since = record.time;
                self.old_decisions.extend(record.decisions.iter().cloned());
                let later: Vec<StageName> = self.plan.stages.iter().skip(self.stage + 1).map(name_of).collect();
                self.waiting.retain(|name, _| !later.contains(name));
                self.good.retain(|name, _| !later.contains(name));
                // The same confirm or promote, given again, is a decision of its own.
                let again: Vec<String> = self
                    .plan
                    .stages
                    .iter()
                    .skip(self.stage)
                    .map(|stage| format!("confirm/{}.yaml", stage.name))
                    .collect();
                let old = &self.old_decisions;
                self.answered.retain(|file| {
                    let promotes_again = file.path == Decision::Promote.path() && !old.contains(file);
                    !again.contains(&file.path) && !promotes_again
                });
            }
            Event::Rescheduled | Event::QuotaChanged => {
                if record.evidence.quotas.len() == self.quotas.len() {
                    self.quotas.clone_from(&record.evidence.quotas);
                }
                self.totals.extend(record.evidence.totals.clone());
                self.since = self.since.max(record.time);
            }
            Event::Paused => self.paused = true,
            Event::Resumed => {
                self.paused = false;
                self.since = self.since.max(record.time);
            }
            Event::Stopped => {
                self.phase = Phase::Stopped;
                self.final_decisions.clone_from(&record.decisions);
            }
            Event::Retried => {
                self.answered.extend(record.evidence.decision.clone());
                if self.phase == Phase::Stopped {
                    let stage = self.current().name.clone();
                    self.good.remove(&stage);
                    self.phase = Phase::Running;
                    self.since = record.time;
                } else {
                    self.moved_on = true;
                }
            }
            Event::Aborting => {
                self.answered.extend(record.evidence.decision.clone());
                self.phase = Phase::Aborting(record.evidence.cause.unwrap_or(Cause::Decision));
                self.since = record.time;
                self.paused = false;
                self.final_decisions.clone_from(&record.decisions);
            }
            Event::Superseded => self.end(Outcome::Superseded, &record),
            Event::Completed => self.end(Outcome::Completed, &record),
            Event::Aborted => {
                // HEAD rendered stable when it was reverted: the target is not refused, should it come again.
                self.moved_on |= self.phase == Phase::Aborting(Cause::Revert);
                self.end(Outcome::Aborted, &record);
            }
            Event::Reverted => {
                self.repaired = true;
                self.moved_on = true;
                self.held = None;
            }
            Event::Applied => {
                self.held = None;
                self.routed_by.extend(record.evidence.routed_by.clone());
                let put = record.evidence.revision.clone().zip(record.evidence.digest);
                if self.is_over() {
                    self.applied_at_rest = put.or(self.applied_at_rest.take());
                } else {
                    self.applied = put.or(self.applied.take());
                }
                if matches!(self.phase, Phase::Ended(Outcome::Aborted))
                    && record.evidence.workloads != self.plan.to.workloads
                {
                    self.moved_on = true;
                }
            }
            Event::Held => self.held = Some(record.why.clone()),
            Event::AnalysisRun => {
                let good = record.evidence.analysis.as_ref().filter(|run| run.verdict == Verdict::Pass);
                if let (Some(run), Some(stage)) = (good, &record.stage) {
                    self.good.entry(stage.clone()).or_default().insert(run.metric.clone());
                }
            }
            Event::DriftCorrected | Event::LedgerRestored => {}
        }
        self.records.push(record);
    }

    fn end(&mut self, outcome: Outcome, record: &Record) {
        self.phase = Phase::Ended(outcome);
        self.paused = false;
        self.final_decisions.clone_from(&record.decisions);
        if outcome == Outcome::Completed {
            self.applied_at_rest = record.evidence.revision.clone().zip(record.evidence.digest);
        }
    }

    /// Returns whether a metric was found good at a stage, since it was entered.
    pub fn is_good(&self, stage: &StageName, metric: &str) -> bool {
        self.good.get(stage).is_some_and(|good| good.contains(metric))
    }

    /// Returns the index of a stage.
    pub fn index_of(&self, name: &StageName) -> Option<usize> {
        self.plan.stages.iter().position(|stage| stage.name == *name)
    }

    /// Returns the stage whose quota may be reached for.
    pub fn current(&self) -> &Stage {
        // A plan has at least one stage, and `stage` is only ever set to an index that was found.
        &self.plan.stages[self.stage.min(self.plan.stages.len() - 1)]
    }

    /// Returns whether the current stage is the last.
    pub fn at_last_stage(&self) -> bool {
        self.stage + 1 >= self.plan.stages.len()
    }

    /// Returns whether the rollout is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Returns since when the current stage waits: a step back to it made its waiting record count again, from then on.
    pub fn waits_since(&self, waiting: &Waiting) -> Timestamp {
        let stage = &self.current().name;
        let back = |record: &&Record| record.event == Event::StageReverted && record.stage.as_ref() == Some(stage);
        self.records.iter().rev().find(back).map_or(waiting.since, |record| record.time.max(waiting.since))
    }

    /// Returns the last record's id; the plan's hash before the first.
    pub fn tip(&self) -> Digest {
        self.records.last().map_or(self.plan.hash, |record| record.id)
    }
}

fn name_of(stage: &Stage) -> StageName {
    stage.name.clone()
}
