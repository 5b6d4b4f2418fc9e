//! What the cluster names: each application's last pushed record, so that whoever comes next, with a remote that lags
//! behind or a branch that was rewritten, knows what was acted on.
//!
//! With a policy the anchor names it, in a write before any other. Without one the first object of those that a decision
//! applies names the record that it is written under: what was acted on cannot be without its name, and that costs no
//! write. Such a rollout gets an anchor, which keeps all that going back without Git needs, when Git goes away while it runs.

use std::collections::BTreeSet;

use super::{
    Controller,
    anchor::{self, Anchor, Named},
    app::App,
    journals::{self, AppLedger},
};
use crate::core::{
    cluster::{ObjectKey, Write},
    ledger::Event,
    names::{AppName, Digest},
    rollout::{NamedRecord, action::Action, labels},
};

/// The write that goes before all others of a decision.
pub(super) enum First {
    /// To the anchor, by the controller.
    Anchor(Action),
    /// One of the decision's own, which names the last record.
    Named(Action),
}

impl Controller {
    /// Returns the write by which the cluster comes to know the last record, where it does not: taken out of `actions`, or
    /// in front of them.
    pub(super) fn first_write(&mut self, name: &AppName, actions: &mut Vec<Action>) -> Option<First> {
        // In a cluster that the records do not tell of nothing is written before a person accepts it.
        let app = self.apps.get(name).filter(|app| app.is_known_here || self.branch.is_none())?;
        let last = app.ledger.states.last()?;
        // What is staged, or was and is gone back to, belongs to a handle.
        let is_staged = last.plan.policy.is_some()
            || app.renders.values().any(|render| render.policy.is_some())
            || gives_back(&app.ledger);
        if is_staged || app.ledger.has_unpushed() || app.rewritten.is_some() || !self.says_rights(name, app) {
            return self.anchor_write(name).map(First::Anchor);
        }
        let tip = last.tip();
        let is_named = self.view.named(name).any(|named| named.id == tip);
        let carrier = actions.iter().position(|action| carries(action, app)).filter(|_| !is_named);
        if let Some(carrier) = carrier {
            let mut action = actions.remove(carrier);
            if let Write::Apply { object, .. } = &mut action.write {
                let text = NamedRecord::text(&last.plan.rollout, &tip);
                object.set(&["metadata", "annotations", labels::RECORD], text.into());
            }
            return Some(First::Named(action));
        }
        if (is_named || actions.is_empty()) && (last.is_over() || self.git.away.is_none()) {
            return None;
        }
        self.anchor_write(name).map(First::Anchor)
    }

    /// Returns whether the anchor says which rights are missing; one that is not there says that none are.
    fn says_rights(&self, name: &AppName, app: &App) -> bool {
        let live = self.view.get("", "ConfigMap", &app.namespace(), &anchor::name(name));
        live.and_then(anchor::lacks) == app.lacks.as_deref()
    }

    /// Returns the write that lets the anchor name the last record, where it does not.
    fn anchor_write(&mut self, name: &AppName) -> Option<Action> {
        let app = self.apps.get_mut(name)?;
        let tip = app.ledger.tip()?;
        let wanted = (app.ledger.pushed_tip(), Some(tip));
        let lacks = app.lacks.as_deref();
        let namespace = app.namespace();
        let live = self.view.get("", "ConfigMap", &namespace, &anchor::name(name));
        let says = live.map_or(lacks.is_none(), |live| anchor::lacks(live) == lacks);
        if app.anchored == Some(wanted) && says || app.rewritten.is_some() {
            return None;
        }
        // It comes when the namespace does.
        self.view.get("", "Namespace", "", &namespace).filter(|namespace| !namespace.is_terminating())?;
        let known = live.filter(|_| says).and_then(|live| app.anchor.named(live));
        if known.is_some_and(|known| known == wanted || ends_unstaged(&app.ledger, known)) {
            return None;
        }
        let renders = app.renders.values().map(AsRef::as_ref);
        Some(anchor::write(name, &namespace, &app.ledger, renders, lacks, live))
    }

    /// Reads what the cluster names, and every anchor: what Git does not have, or cannot be asked for, counts from here.
    pub(super) fn read_anchors(&mut self) {
        let anchors: Vec<Anchor> = self
            .view
            .of_kind("", "ConfigMap")
            .filter(|object| object.label(labels::ANCHOR).is_some())
            .filter_map(anchor::read)
            .collect();
        for anchor in anchors {
            let name = anchor.app.clone();
            let app = self.apps.entry(name.clone()).or_default();
            let is_outdated = self.view.named(&name).any(|named| is_after(&anchor, named));
            take_anchor(app, anchor, is_outdated);
            self.line.follow(&name, app);
            self.agenda.touch(&name);
        }
        for (name, app) in &mut self.apps {
            if app.content.is_some() && app.rewritten.is_none() {
                app.rewritten = lost(name, &app.ledger, self.view.named(name), self.accepted.as_ref());
            }
        }
    }
}

/// Returns whether an application's object can name a record: its kind is listed before anything is decided, and the API
/// server has not refused it.
fn carries(action: &Action, app: &App) -> bool {
    let Write::Apply { object, .. } = &action.write else { return false };
    let ObjectKey { group, kind, .. } = &object.key();
    let is_listed = matches!((group.as_str(), kind.as_str()), ("", "ConfigMap" | "Service") | ("apps", "Deployment"));
    is_listed && object.label(labels::APP).is_some() && !app.refused.contains_key(&object.key())
}

/// Returns whether a record that an object names came after everything that an anchor keeps.
fn is_after(anchor: &Anchor, named: NamedRecord) -> bool {
    let Some((number, journal)) = anchor.rollouts.last_key_value() else { return true };
    named.number > *number || named.number == *number && !journal.records.iter().any(|record| record.id == named.id)
}

/// Says that the cluster names a record which the branch does not have, where it does.
pub(super) fn lost(
    app: &AppName,
    ledger: &AppLedger,
    mut named: impl Iterator<Item = NamedRecord>,
    accepted: Option<&BTreeSet<Digest>>,
) -> Option<String> {
    let is_accepted = |id: &Digest| accepted.is_some_and(|accepted| accepted.contains(id));
    let lost = named.find(|named| !ledger.contains(&named.id) && !is_accepted(&named.id))?;
    Some(format!("the cluster {}", is_not_there(app, &lost.id)))
}

fn is_not_there(app: &AppName, id: &Digest) -> String {
    format!(
        "names record {}, which is not in the branch's history; bring it back, or accept the new history with \
         `locktender audit accept {app}`",
        id.short()
    )
}

/// Takes an anchor: its records where they continue what is known, its renders where they are missing. Of one that is
/// outdated only that Git must have what it names.
fn take_anchor(app: &mut App, anchor: Anchor, is_outdated: bool) {
    let git_is_read = app.content.is_some();
    app.anchored_in = Some(anchor.namespace);
    let lost = anchor.pushed.filter(|pushed| git_is_read && !app.ledger.contains(pushed));
    if let Some(id) = lost {
        app.rewritten = Some(format!("the anchor {}", is_not_there(&anchor.app, &id)));
    }
    if is_outdated {
        return;
    }
    if lost.is_some() || !git_is_read {
        // What the anchor says was pushed is what Git must have: until it does, nothing else is believed.
        app.ledger.rollouts.extend(anchor.rollouts);
    } else {
        journals::join(&mut app.ledger.rollouts, anchor.rollouts);
    }
    app.ledger.refold();
    for (revision, render) in anchor.renders {
        app.renders.entry(revision).or_insert_with(|| std::sync::Arc::new(render));
    }
}

/// Returns whether the last rollout gives back what was staged. The anchor has kept it from its beginning: left there as one
/// that runs it could be aborted after its end, with Git away, and the pods be taken over again.
fn gives_back(ledger: &AppLedger) -> bool {
    matches!(ledger.states.as_slice(), [.., before, last] if before.plan.policy.is_some() && last.plan.policy.is_none())
}

/// Returns whether all that an anchor lacks is that a rollout without stages is complete. What was acted on it names; and
/// where nothing is staged a write for that alone would cost as much as a release.
fn ends_unstaged(ledger: &AppLedger, known: Named) -> bool {
    let Some(state) = ledger.states.last().filter(|state| state.plan.policy.is_none()) else { return false };
    if gives_back(ledger) {
        return false;
    }
    match state.records.as_slice() {
        [.., before, last] => last.event == Event::Completed && known == (Some(before.id), Some(before.id)),
        _ => false,
    }
}
