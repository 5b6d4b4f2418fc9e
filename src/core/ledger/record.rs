//! One entry of a rollout's journal: one transition, with its evidence.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::{
    analysis::Run,
    names::{BlobId, Digest, Revision, StageName, Unit},
    shared::Shared,
};

/// What a record says happened, or is about to: going forward a record is an intent, written before the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Event {
    /// The plan was fixed; lists every decision that was in the directory already.
    RolloutOpened,
    /// A stage's quota may be reached for from now on.
    StageStarted,
    /// A stage is there and one of its gates waits for a person; lists the decisions that do not open it.
    StageWaiting,
    /// A confirm opened a gate.
    ConfirmAccepted,
    /// A decision counts for nothing; says why.
    DecisionRejected,
    /// A gate closed again: back to this stage.
    StageReverted,
    /// The samples and verdict of an analysis.
    AnalysisRun,
    /// Pods that fit into no node of their unit go to other units.
    Rescheduled,
    /// The wanted total changed, and with it the quotas.
    QuotaChanged,
    /// `pause.yaml` appeared.
    Paused,
    /// `pause.yaml` went.
    Resumed,
    /// The rollout failed and waits for `retry.yaml` or a new revision.
    Stopped,
    /// `retry.yaml` lets a stopped rollout try its stage again.
    Retried,
    /// A new revision takes this rollout's place.
    Superseded,
    /// Going back to stable.
    Aborting,
    /// Back at stable; the target is refused from now on.
    Aborted,
    /// Git was repaired: it renders stable again.
    Reverted,
    /// `promote.yaml` passes the confirms and pauses that are left.
    Promoted,
    /// Every stage passed: the target is stable.
    Completed,
    /// Owned fields that somebody changed were put back.
    DriftCorrected,
    /// Copies of the records that somebody changed were written back.
    LedgerRestored,
    /// The application stays on stable while Git says something else.
    Held,
    /// A change that needs no stages was put in place.
    Applied,
}

/// A decision's file, as it was: path and blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionFile {
    /// The path inside the rollout's directory: `confirm/beta.yaml`, `abort.yaml`.
    pub path: String,
    /// The content's id; absent where the record answers a file's removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobId>,
}

/// A pod, as it was when a record was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodEvidence {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The unit; empty without a topology.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The image of the first container, as asked for.
    pub image: String,
    /// Whether it was ready.
    pub ready: bool,
}

/// Counts by workload (`Deployment/checkout`) and unit.
pub type Quota = BTreeMap<String, BTreeMap<Unit, u32>>;

/// What was true when the record was written. Each event fills in what it stands on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Evidence {
    /// The pods at the target (`StageWaiting`, `StageStarted`, `Completed`) or at stable (`Aborted`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodEvidence>,
    /// How many pods there were where only the number is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What is waited for (`StageWaiting`), where it is more than a confirm: `pause 5m`, `confirm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The decision that is accepted or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionFile>,
    /// The plan's hash (`RolloutOpened`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// The stages' quotas from now on (`Rescheduled`, `QuotaChanged`), in the plan's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// The units' totals from now on (`Rescheduled`, `QuotaChanged`).
    #[serde(skip_serializing_if = "Quota::is_empty")]
    pub totals: Quota,
    /// The revision that is stable (`Completed`) or in place (`Applied`) from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The digest of everything rendered at `revision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The workloads' digests at `revision`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workloads: BTreeMap<String, Digest>,
    /// The objects that were changed, put back or removed, as `Kind/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// The revision that was in place before, where its policy named a router that is not told any more (`Applied` at rest).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed_by: Option<Revision>,
    /// The number of the rollout that takes this one's place (`Superseded`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<u32>,
    /// Why going back: `decision`, `failure`, `revert` (`Aborting`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The repairing commit's subject, or why there is none (`Reverted`, `Held`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
    /// What was measured, by which rule, and what it came to (`AnalysisRun`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Run>,
}

/// Why a rollout goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// A person's `abort.yaml`.
    Decision,
    /// No progress until the deadline or an analysis that failed, and `onFailure: abort`.
    Failure,
    /// HEAD renders stable again: the release was reverted.
    Revert,
}

/// A record before it has its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What happened.
    pub event: Event,
    /// The stage it happened in.
    pub stage: Option<StageName>,
    /// One sentence for people.
    pub why: String,
    /// Every decision in the rollout's directory that the record must list.
    pub decisions: Vec<DecisionFile>,
    /// What it stands on.
    pub evidence: Evidence,
}

impl Draft {
    /// Builds a draft that lists no decisions and has no evidence yet.
    pub fn new(event: Event, stage: Option<&StageName>, why: impl Into<String>) -> Self {
        Self { event, stage: stage.cloned(), why: why.into(), decisions: Vec::new(), evidence: Evidence::default() }
    }

    /// Lists decisions.
    #[must_use]
    pub fn listing(mut self, decisions: Vec<DecisionFile>) -> Self {
        self.decisions = decisions;
        self
    }

    /// Fills in evidence.
    #[must_use]
    pub fn with(mut self, fill: impl FnOnce(&mut Evidence)) -> Self {
        fill(&mut self.evidence);
        self
    }
}

/// One entry of a journal. The journal, its fold and what is pushed hold the same one.
pub type Record = Shared<Entry>;

/// What an entry of a journal says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Counts from 1 in each rollout.
    pub seq: u32,
    /// What happened.
    pub event: Event,
    /// The stage it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// When it was decided.
    pub time: Timestamp,
    /// What HEAD was when it was decided.
    pub head: Revision,
    /// One sentence for people.
    pub why: String,
    /// Decisions that were in the directory already: they do not open what this record closes.
    #[serde(default)]
    pub decisions: Vec<DecisionFile>,
    /// What it stands on.
    #[serde(default)]
    pub evidence: Evidence,
    /// The id of the application's record before, or the plan's hash for its very first.
    pub previous: Digest,
    /// The hash of `previous` and everything above.
    pub id: Digest,
}

impl Record {
    /// Gives a draft its place behind `previous`.
    pub fn chain(draft: Draft, seq: u32, time: Timestamp, head: Revision, previous: Digest) -> Self {
        // Journals are for people: whole microseconds at most, so that what is read back is what was hashed.
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        let Draft { event, stage, why, decisions, evidence } = draft;
        let id = Digest::of(b"");
        let mut entry = Entry { seq, event, stage, time, head, why, decisions, evidence, previous, id };
        entry.id = entry.computed_id();
        entry.into()
    }
}

impl Entry {
    /// Computes the id from the content: SHA-256 over the canonical JSON of the record without its id.
    pub fn computed_id(&self) -> Digest {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(members) = value.as_object_mut() {
            members.remove("id");
        }
        Digest::of(value.to_string().as_bytes())
    }

    /// Returns whether the record lists this decision.
    pub fn lists(&self, file: &DecisionFile) -> bool {
        self.decisions.contains(file)
    }
}
