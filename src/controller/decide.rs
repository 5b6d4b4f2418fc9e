//! Decides for one application: brings together what is known, and calls [`rollout::decide`].

use std::collections::BTreeSet;

use jiff::SignedDuration;
use tracing::warn;

use super::{Controller, Witness, anchor, app::App, line::Door, load, news::News, publish};
use crate::core::{
    cluster::ObjectKey,
    names::AppName,
    rollout::{
        self,
        input::{Decision, DecisionAtHead, GitState, Head, HeadContent, Input, Neighbours, Repair},
        report::{Activity, Reason, Report},
    },
};

impl Controller {
    /// Decides for one application.
    pub(super) async fn decide(&mut self, name: &AppName, door: Door) -> Option<Decision> {
        self.load_renders(name).await;
        self.forget_answer(name);
        let mut decision = self.decide_once(name, door)?;
        if let Some(wanted) = decision.repair.take() {
            let (head, paths) = self.branch.as_ref().map(|at| (at.revision.clone(), at.settings.paths.clone()))?;
            let stable = self.apps.get(name)?.renders.get(&wanted.theirs).map(|render| render.digests.clone());
            let repair = match (&self.refused_push, stable) {
                (Some(why), _) => Repair::Impossible(format!("the remote refuses the push: {why}")),
                (None, Some(stable)) => {
                    let directory = publish::directory(&paths, name);
                    load::try_repair(&self.ports, name, &directory, &head, &wanted, &stable).await
                }
                (None, None) => Repair::Impossible("stable does not render".to_owned()),
            };
            self.apps.get_mut(name)?.repair = Some((head, repair));
            decision = self.decide_once(name, door)?;
            decision.repair = None;
        }
        Some(decision)
    }

    /// Calls `decide` with everything that is known.
    pub(super) fn decide_once(&mut self, name: &AppName, door: Door) -> Option<Decision> {
        let now = self.now();
        let app = self.apps.get(name)?;
        let head = self.branch.as_ref().map(|branch| Head {
            revision: branch.revision.clone(),
            content: app.content.clone().unwrap_or(HeadContent::Removed),
            decisions: app.decisions.clone(),
            in_advance: app.in_advance.clone(),
            late: app.late.clone(),
            astray: app.astray.clone(),
            frozen: branch.frozen(name, now),
            copies_intact: app.copies_intact,
            prometheus: branch.settings.prometheus.clone(),
        });
        let git = GitState { rewritten: app.rewritten.clone(), ..self.git.clone() };
        let abort = self.abort_in_anchor(name, app);
        let elsewhere =
            |key: &ObjectKey| self.rendered_by.get(key).is_some_and(|apps| apps.iter().any(|other| other != name));
        let full = self.limit().filter(|limit| door == Door::Closed || self.line.room(*limit, &BTreeSet::new()) == 0);
        let neighbours = Neighbours {
            render: &elsewhere,
            waits_for: self.waits_for(app),
            predecessor: app.predecessor.clone(),
            full: full.map(|limit| self.line.full(limit)),
        };
        let repair = app
            .repair
            .as_ref()
            .filter(|(at, _)| head.as_ref().is_some_and(|head| head.revision == *at))
            .map(|(_, repair)| repair);
        let input = Input {
            app: name,
            head: head.as_ref(),
            rollouts: &app.ledger.states,
            renders: &app.renders,
            view: &self.view,
            watching_since: self.watching_since,
            git: &git,
            neighbours: &neighbours,
            repair,
            objections: app.objections(),
            refused: &app.refused,
            admitted: &app.admitted,
            abort: abort.as_ref(),
            answers: &app.answers,
            now,
        };
        // `decide` is total. Should it still panic for one application, the others must go on.
        let decided = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let decision = rollout::decide(&input);
            if let Some(Witness(saw)) = &self.options.witness {
                saw(&input, &decision);
            }
            decision
        }));
        let app = self.apps.get_mut(name)?;
        match decided {
            Ok(decision) => {
                app.panics = 0;
                Some(decision)
            }
            Err(_) => {
                app.panics = app.panics.saturating_add(1);
                self.agenda.decided(name, Some(now + SignedDuration::from_secs(1 << app.panics.min(10))));
                warn!(app = %name, panics = app.panics, "deciding panicked: the application is left alone for a while");
                None
            }
        }
    }

    /// Returns a person's abort of the latest rollout that the anchor has: written while Git was away.
    fn abort_in_anchor(&self, name: &AppName, app: &App) -> Option<DecisionAtHead> {
        let last = app.ledger.states.last()?;
        let anchor = self.view.get("", "ConfigMap", &app.namespace(), &anchor::name(name))?;
        anchor::abort(anchor, &last.plan.rollout)
    }

    /// Leaves an application alone whose state a newer Locktender wrote, and says so.
    pub(super) fn is_newer(&mut self, name: &AppName) -> bool {
        let Some(app) = self.apps.get_mut(name) else { return false };
        let Some(why) = app.newer.clone() else { return false };
        self.line.leave(name);
        self.agenda.decided(name, None);
        let mut report = app.report.take().unwrap_or_else(|| Report::bare(name.clone(), Activity::Held));
        report.activity = Activity::Held;
        report.reasons = vec![Reason::Held { why }];
        app.report = Some(report.clone());
        self.options.listeners.tell(&News::Decided { app: name, activity: Activity::Held, head_is_broken: false });
        self.tell(name, &report);
        true
    }
}
