//! Whether the cluster is the one that the records tell of.
//!
//! The anchor names the last record before anything is done under it, so a cluster whose anchor lacks what was done since
//! was restored from an older backup; one without an anchor and without a pod, though pods were brought there, is another. Everything that
//! Git says would be put in place there at once, past every gate: whether that is meant is for a person to say.

use std::collections::BTreeSet;

use super::{Controller, anchor, core_kinds, journals::AppLedger};
use crate::core::{
    ledger::{Event, Record},
    names::{AppName, Digest},
    rollout::state::{Outcome, Phase},
};

impl Controller {
    /// Says why the cluster is not the one that an application's records tell of. Looked at until it is for the first time,
    /// and again when the API server has shown less than before: from there on the anchor is ours.
    pub(super) fn restored(&mut self, name: &AppName) -> Option<String> {
        if self.branch.is_none() || !core_kinds().iter().all(|kind| self.view.knows(kind)) {
            return None;
        }
        let app = self.apps.get_mut(name)?;
        if app.is_known_here || app.rewritten.is_some() {
            return None;
        }
        let namespaces = [Some(app.namespace()), app.anchored_in.clone()];
        let mut named: BTreeSet<Digest> = self.view.named(name).map(|named| named.id).collect();
        for namespace in namespaces.into_iter().flatten() {
            let Some(live) = self.view.get("", "ConfigMap", &namespace, &anchor::name(name)) else { continue };
            let Some((pushed, kept)) = app.anchor.named(live) else {
                // One that is not whole tells nothing.
                app.is_known_here = true;
                return None;
            };
            named.extend(pushed.into_iter().chain(kept));
        }
        // Only an anchor is missing: somebody removed it, and it is written again.
        if named.is_empty() && self.view.of_app(name, "Pod").next().is_some() {
            app.is_known_here = true;
            return None;
        }
        let Some(unknown) = unknown_here(&app.ledger, &named, self.accepted.as_ref()) else {
            app.is_known_here = true;
            return None;
        };
        let last = app.ledger.states.last().map(|state| state.plan.rollout.to_string()).unwrap_or_default();
        let knows = if named.is_empty() { "names no record of it" } else { "names an older record" };
        Some(format!(
            "Git says that pods were brought here up to {last}, and the cluster {knows} ({} are missing); nothing is done \
             until `locktender audit accept {name}` says that what Git has is to be put in place here",
            unknown.len()
        ))
    }

    /// Looks again whether the cluster is the one that the records tell of, where the API server has shown less than before.
    pub(super) fn note_regression(&mut self) {
        let regressed = self.view.regressed().is_some();
        if self.had_regressed && !regressed {
            self.apps.values_mut().for_each(|app| app.is_known_here = false);
        }
        self.had_regressed = regressed;
    }
}

/// Returns the records that the cluster does not know, where something was done under them for certain: pods of a stage were
/// found good after it had started, and what was found was pushed before the next was decided. A controller that dies
/// between a push and the write to the anchor leaves less than that. What a person has accepted counts as known, and what came
/// after it does not; a cluster that names what the ledger does not have is no older one.
pub(super) fn unknown_here<'a>(
    ledger: &'a AppLedger,
    named: &BTreeSet<Digest>,
    accepted: Option<&BTreeSet<Digest>>,
) -> Option<Vec<&'a Record>> {
    if named.iter().any(|id| !ledger.contains(id)) {
        return None;
    }
    let is_known = |id: &Digest| named.contains(id) || accepted.is_some_and(|accepted| accepted.contains(id));
    // What was removed takes nothing along; what came back later begins anew.
    let is_gone = |phase: &Phase, is_nothing: bool| is_nothing && *phase == Phase::Ended(Outcome::Completed);
    let removed = ledger.states.iter().rposition(|state| is_gone(&state.phase, state.plan.inputs.files.is_empty()));
    let since = removed.map_or(0, |index| index + 1);
    let all: Vec<(bool, &Record)> = ledger.states[since..]
        .iter()
        .flat_map(|state| state.records.iter().map(|record| (state.plan.policy.is_some(), record)))
        .collect();
    let known = all.iter().rposition(|(_, record)| is_known(&record.id)).map_or(0, |index| index + 1);
    let unknown = &all[known..];
    let started = unknown.iter().position(|(staged, record)| *staged && record.event == Event::StageStarted)?;
    let acted = unknown[started..].iter().position(|(staged, record)| *staged && !record.evidence.pods.is_empty())?;
    let (_, proof) = unknown[started + acted];
    let went_on = unknown[started + acted..].iter().any(|(_, record)| record.head != proof.head);
    went_on.then(|| unknown.iter().map(|(_, record)| *record).collect())
}
