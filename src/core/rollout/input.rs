//! What a decision is a function of, and what comes out of it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{action::Action, plan::Plan, render::Render, report::Report, state::State, turn::Full, view::View};
use crate::core::{
    ask::{Answers, Asking},
    cluster::{FIELD_MANAGER, ObjectKey},
    diff::{self, FieldChange},
    ledger::{DecisionFile, Draft, Event},
    manifest::Object,
    names::{AppName, BlobId, Revision},
    policy::{Decision as Verb, DecisionBody},
    problem::Problem,
    traffic::haproxy::Telling,
};

/// A decision's file at HEAD.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionAtHead {
    /// What it says; `None` where its name says nothing.
    pub verb: Option<Verb>,
    /// Path inside the rollout's directory, and blob.
    pub file: DecisionFile,
    /// Its content, or what is wrong with it.
    pub body: Result<DecisionBody, Problem>,
}

/// What HEAD renders.
#[derive(Clone, Debug)]
pub enum HeadContent {
    /// The application's directory is not there.
    Removed,
    /// It cannot be used.
    Broken(Vec<Problem>),
    /// It renders.
    Rendered(Arc<Render>),
}

/// The watched branch's tip, as far as it concerns one application.
#[derive(Clone, Debug)]
pub struct Head {
    /// The commit.
    pub revision: Revision,
    /// What it renders.
    pub content: HeadContent,
    /// The decisions in the latest rollout's directory.
    pub decisions: Vec<DecisionAtHead>,
    /// The decisions that are already there for a rollout that is not open yet.
    pub in_advance: Vec<DecisionFile>,
    /// The decisions in directories of older rollouts that may not be answered yet, by the rollout's number.
    pub late: BTreeMap<u32, Vec<DecisionFile>>,
    /// The decisions that are in no directory of a rollout, opened or next, by their paths below the application's ledger.
    pub astray: Vec<String>,
    /// The freeze that applies, if one does.
    pub frozen: Option<String>,
    /// Whether `plan.yaml` and `journal.yaml` of the latest rollout are at HEAD as they were pushed.
    pub copies_intact: bool,
    /// The address of the Prometheus that metrics ask which name none.
    pub prometheus: Option<String>,
}

/// How the repository is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitState {
    /// Why the remote cannot be asked.
    pub away: Option<String>,
    /// Why the last push did not get through, though the remote can be read.
    pub unpushed: Option<String>,
    /// Why the history cannot be believed: our last record is not reachable.
    pub rewritten: Option<String>,
}

/// New content by path; `None` removes the path.
pub type Edits = BTreeMap<String, Option<Vec<u8>>>;

/// What came of trying to take a refused target out of Git.
#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// It merges, and the result renders stable's workload digests.
    Clean(Edits),
    /// There is nothing to repair: HEAD renders stable's workloads already.
    Needless,
    /// It cannot be done; says why.
    Impossible(String),
}

/// What a repair is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairWanted {
    /// The refused target's revision.
    pub base: Revision,
    /// Stable's revision.
    pub theirs: Revision,
}

/// An application that is gone from HEAD, and whose objects this one renders now.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// Its name.
    pub app: AppName,
    /// What was stable there: it is handed over with the objects.
    pub stable: Arc<Render>,
}

/// The other applications, as far as they matter to one.
pub struct Neighbours<'a> {
    /// Whether another application renders an object at HEAD: such are handed over, never pruned.
    pub render: &'a dyn Fn(&ObjectKey) -> bool,
    /// The application that must be complete first and is not, with what it waits for.
    pub waits_for: Option<String>,
    /// The application that was renamed to this one.
    pub predecessor: Option<Predecessor>,
    /// That no other rollout may open now, and why.
    pub full: Option<Full>,
}

/// What the API server made of an object that was applied, where that is something else: webhooks and policies may change
/// what is ours, and what they change is theirs to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// What was sent, without what it was decided on.
    pub sent: Object,
    /// What was answered.
    pub made: Object,
}

impl Admitted {
    /// Compares what was sent with what was answered; `None` where it was taken as it is.
    pub fn of(sent: &Object, made: &Object) -> Option<Self> {
        let mut sent = sent.clone();
        sent.remove(&["metadata", "resourceVersion"]);
        sent.remove(&["metadata", "uid"]);
        let admitted = Self { sent, made: made.clone() };
        (!admitted.changes().is_empty()).then_some(admitted)
    }

    /// Returns which of our fields are something else than what was sent.
    pub fn changes(&self) -> Vec<FieldChange> {
        diff::owned_differs(&self.sent, &self.made, FIELD_MANAGER)
    }

    /// Returns whether sending `wanted` again would bring nothing: it was sent, and `live` is what was made of it.
    pub fn explains(&self, wanted: &Object, live: &Object) -> bool {
        self.sent == *wanted
            && self.made.uid() == live.uid()
            && diff::owned_differs(wanted, live, FIELD_MANAGER) == self.changes()
    }
}

/// Everything that a decision about one application depends on.
pub struct Input<'a> {
    /// The application.
    pub app: &'a AppName,
    /// HEAD; `None` where no fetch has ever succeeded and the anchor is all there is.
    pub head: Option<&'a Head>,
    /// Every rollout, oldest first, folded; the last may be running.
    pub rollouts: &'a [State],
    /// The application as rendered, by revision: whatever [`super::needed`] asks for.
    pub renders: &'a BTreeMap<Revision, Arc<Render>>,
    /// The cluster.
    pub view: &'a View,
    /// Since when the cluster is watched without a gap: deadlines do not run while nobody looks.
    pub watching_since: Timestamp,
    /// The repository.
    pub git: &'a GitState,
    /// The other applications at HEAD.
    pub neighbours: &'a Neighbours<'a>,
    /// The result of the repair that was asked for, at this HEAD.
    pub repair: Option<&'a Repair>,
    /// What the API server has against what HEAD renders, asked beforehand: such a HEAD is not put in place.
    pub objections: &'a [String],
    /// Objects that the API server refused for what they are, when they were last sent, and its words.
    pub refused: &'a BTreeMap<ObjectKey, String>,
    /// Objects of which the API server made something else when they were last sent.
    pub admitted: &'a BTreeMap<ObjectKey, Admitted>,
    /// A person's abort that was written into the anchor: it counts whether Git is there or not.
    pub abort: Option<&'a DecisionAtHead>,
    /// What the outside answered to what the decisions before asked.
    pub answers: &'a Answers,
    /// Now.
    pub now: Timestamp,
}

/// What is decided.
#[derive(Debug)]
pub struct Decision {
    /// Records for rollouts that exist, by number, in order.
    pub records: Vec<(u32, Draft)>,
    /// A rollout to open, with its first records.
    pub open: Option<(Plan, Vec<Draft>)>,
    /// Whether the records may be acted on from the anchor when Git is away: going back.
    pub urgent: bool,
    /// A commit of its own, before the records: the repair, by path, and its subject.
    pub edits: Option<(Edits, String)>,
    /// A repair to be tried before deciding again.
    pub repair: Option<RepairWanted>,
    /// What may be done to the cluster now.
    pub actions: Vec<Action>,
    /// What is told to proxies now.
    pub tells: Vec<Telling>,
    /// What only the outside can tell, and when to ask it.
    pub questions: Vec<Asking>,
    /// Why the application is where it is.
    pub report: Report,
    /// When to decide again without an event.
    pub wake: Option<Timestamp>,
}

impl Decision {
    /// Starts a decision that does nothing.
    pub fn nothing(report: Report) -> Self {
        Self {
            records: Vec::new(),
            open: None,
            urgent: false,
            edits: None,
            repair: None,
            actions: Vec::new(),
            tells: Vec::new(),
            questions: Vec::new(),
            report,
            wake: None,
        }
    }

    /// Does nothing to the cluster, and tells nobody anything.
    pub fn does_nothing(&mut self) {
        self.actions.clear();
        self.tells.clear();
    }

    /// Asks and tells proxies something.
    pub fn asks_and_tells(&mut self, questions: Vec<Asking>, tells: Vec<Telling>) {
        self.questions.extend(questions);
        self.tells.extend(tells);
    }

    /// Wakes no later than `at`.
    pub fn wake_at(&mut self, at: Option<Timestamp>) {
        self.wake = match (self.wake, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Returns whether what HEAD renders is to be put in place from here on.
    pub fn adopts_head(&self) -> bool {
        self.open.is_some() || self.records.iter().any(|(_, draft)| draft.event == Event::Applied)
    }

    /// Returns whether anything is to be recorded.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty() || self.open.is_some()
    }
}

/// Lists the decisions of a directory, as records do.
pub fn files(decisions: &[DecisionAtHead]) -> Vec<DecisionFile> {
    decisions.iter().map(|decision| decision.file.clone()).collect()
}

/// Builds a decision's file.
pub fn file(path: &str, blob: &BlobId) -> DecisionFile {
    DecisionFile { path: path.to_owned(), blob: Some(blob.clone()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &str, version: Option<&str>) -> Object {
        let mut map = Object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": "shop"},
            "data": {"a": value},
        }));
        if let Some(version) = version {
            map.set(&["metadata", "uid"], json!("u"));
            map.set(&["metadata", "resourceVersion"], json!(version));
        }
        map
    }

    #[test]
    fn what_a_webhook_makes_of_an_object_is_explained_until_git_or_somebody_says_something_else() {
        assert_eq!(Admitted::of(&map("quiet", Some("4")), &map("quiet", Some("5"))), None, "it was taken as it is");
        let admitted = Admitted::of(&map("quiet", Some("4")), &map("QUIET", Some("5"))).unwrap();
        assert_eq!(admitted.changes().len(), 1);
        let wanted = map("quiet", None);
        assert!(admitted.explains(&wanted, &map("QUIET", Some("5"))));
        assert!(admitted.explains(&wanted, &map("QUIET", Some("6"))), "other fields are nobody's concern");
        assert!(!admitted.explains(&wanted, &map("theirs", Some("6"))), "somebody changed it since");
        assert!(!admitted.explains(&map("still", None), &map("QUIET", Some("5"))), "Git says something else");
        let mut anew = map("QUIET", Some("7"));
        anew.set(&["metadata", "uid"], json!("another"));
        assert!(!admitted.explains(&wanted, &anew), "another object");
    }
}
