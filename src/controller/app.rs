//! One application, as the controller keeps it between decisions. Everything here can be rebuilt from Git and the
//! cluster.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    anchor::{Named, Seen},
    beforehand::Answer,
    journals::AppLedger,
};
use crate::core::{
    ask::{Answers, Asking},
    cluster::ObjectKey,
    ledger::DecisionFile,
    names::Revision,
    rollout::{
        input::{Admitted, DecisionAtHead, HeadContent, Predecessor, Repair},
        render::Render,
        report::Report,
    },
};

/// One application.
#[derive(Default)]
pub struct App {
    /// Its rollouts.
    pub ledger: AppLedger,
    /// What HEAD renders; `None` before the first fetch.
    pub content: Option<HeadContent>,
    /// The decisions in the latest rollout's directory.
    pub decisions: Vec<DecisionAtHead>,
    /// The decisions that are there for the next number already.
    pub in_advance: Vec<DecisionFile>,
    /// The decisions in directories of older rollouts that nobody answered yet, by the rollout's number.
    pub late: BTreeMap<u32, Vec<DecisionFile>>,
    /// The decisions that are in no rollout's directory, by their paths below the application's ledger.
    pub astray: Vec<String>,
    /// Whether the copies of the records at HEAD are as they were pushed.
    pub copies_intact: bool,
    /// What deciding needs, by revision.
    pub renders: BTreeMap<Revision, Arc<Render>>,
    /// The application that was renamed to this one.
    pub predecessor: Option<Predecessor>,
    /// What came of a repair, and at which HEAD.
    pub repair: Option<(Revision, Repair)>,
    /// Why its history cannot be believed.
    pub rewritten: Option<String>,
    /// Why only a newer Locktender may act for it.
    pub newer: Option<String>,
    /// Whether its writes are under way.
    pub acting: bool,
    /// What went wrong with the last writes, for people.
    pub trouble: Vec<String>,
    /// Which rights the API server says are missing, a line each, for the anchor.
    pub lacks: Option<String>,
    /// Objects that the API server refused for what they are, when they were last sent, and its words.
    pub refused: BTreeMap<ObjectKey, String>,
    /// Objects of which the API server made something else, when they were last sent.
    pub admitted: BTreeMap<ObjectKey, Admitted>,
    /// What the API server said of HEAD beforehand.
    pub(super) answer: Option<Answer>,
    /// How often in a row it was refused, and not before when to try again.
    pub failures: u32,
    /// Not before when to act again.
    pub not_before: Option<Timestamp>,
    /// How often deciding has panicked.
    pub panics: u32,
    /// What the last decision wants to know.
    pub questions: Vec<Asking>,
    /// What the outside answered to it.
    pub answers: Answers,
    /// The last report.
    pub report: Option<Report>,
    /// The namespace in which an anchor was found.
    pub anchored_in: Option<String>,
    /// The last record that the anchor names, and the last that it keeps, as written by us.
    pub anchored: Option<Named>,
    /// What the anchor in the cluster names.
    pub anchor: Seen,
}

impl App {
    /// Notes that writes were refused, and waits twice as long each time, at most a minute.
    pub fn back_off(&mut self, now: Timestamp, asked: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let own = Duration::from_millis(200u64.saturating_mul(1 << self.failures.min(9))).min(Duration::from_secs(60));
        let wait = SignedDuration::try_from(asked.unwrap_or(own)).unwrap_or(SignedDuration::from_secs(60));
        self.not_before = Some(now + wait);
    }

    /// Notes that writes went through.
    pub fn went_through(&mut self) {
        self.failures = 0;
        self.not_before = None;
        self.trouble.clear();
        self.refused.clear();
    }

    /// Notes what the API server made of an object that was sent; `None` where it took it as it is.
    pub fn note_admitted(&mut self, key: ObjectKey, admitted: Option<Admitted>) {
        match admitted {
            Some(admitted) => drop(self.admitted.insert(key, admitted)),
            None => drop(self.admitted.remove(&key)),
        }
    }

    /// Returns the namespace of the application's anchor.
    pub fn namespace(&self) -> String {
        let content = match &self.content {
            Some(HeadContent::Rendered(render)) => Some(render),
            _ => None,
        };
        let render = self.renders.values().next().or(content);
        let rendered = render.and_then(|render| render.application.namespace.clone());
        // An anchor that has no room for what it renders still says where it is.
        rendered.or_else(|| self.anchored_in.clone()).unwrap_or_else(|| "default".to_owned())
    }
}
