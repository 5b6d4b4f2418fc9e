//! Follows what was decided for one application: says it, starts its writes, and composes what is to be published.

use tracing::info;

use super::{Controller, anchor, beforehand, lanes, named::First, news::News, publish, publish::Publication};
use crate::core::{
    cluster::ObjectKey,
    names::AppName,
    rollout::{
        input::{Decision, HeadContent},
        report::{Activity, Reason, Report},
        rights::Missing,
    },
};

impl Controller {
    /// Asks the API server what must be asked before a decision is followed; follows it where nothing must be.
    pub(super) async fn ask_or_settle(&mut self, name: &AppName, decision: Decision) -> Option<(Publication, bool)> {
        if let Some((revision, questions)) = self.to_ask(name, &decision) {
            self.ask_first(name, revision, questions);
            return None;
        }
        self.settle(name, decision).await
    }

    /// Starts the writes of a decision, and returns what of it is to be published.
    pub(super) async fn settle(&mut self, name: &AppName, mut decision: Decision) -> Option<(Publication, bool)> {
        let now = self.now();
        let thaw = self.branch.as_ref().and_then(|branch| branch.next_thaw(now));
        decision.wake_at(thaw);
        decision.wake_at(self.apps.get(name)?.answer.as_ref().and_then(|answer| answer.again));
        let head = self.branch.as_ref().map(|branch| branch.revision.clone());
        self.agenda.decided(name, decision.wake);
        self.wants_to_know(name, std::mem::take(&mut decision.questions));
        let app = self.apps.get_mut(name)?;
        let mut report = decision.report.clone();
        report.reasons.extend(app.trouble.iter().map(|why| Reason::Refused { why: why.clone() }));
        app.lacks = lacks(&report.reasons);
        if app.report.as_ref() != Some(&report) {
            let mut reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
            if reasons.is_empty() {
                reasons.push("nothing is waited for".to_owned());
            }
            info!(app = %name, activity = ?report.activity, stage = report.stage.as_ref().map(|stage| stage.as_str()),
                "{}", reasons.join("; "));
        }
        let in_short = |report: &Report| {
            (report.activity, report.reasons.iter().any(|reason| matches!(reason, Reason::HeadBroken { .. })))
        };
        let (activity, head_is_broken) = in_short(&report);
        if app.report.as_ref().map(in_short) != Some((activity, head_is_broken)) {
            self.options.listeners.tell(&News::Decided { app: name, activity, head_is_broken });
        }
        app.report = Some(report.clone());
        self.tell(name, &report);
        let mut actions = std::mem::take(&mut decision.actions);
        let first = self.first_write(name, &mut actions);
        let app = self.apps.get_mut(name)?;
        let own = &self.ports.cluster;
        let theirs = beforehand::acting(own, app.account().as_ref());
        // The anchor is the controller's own, whoever the application is.
        let first = first.map(|first| match first {
            First::Anchor(action) => (action, own.clone()),
            First::Named(action) => (action, theirs.clone()),
        });
        let actions: Vec<_> = actions.into_iter().map(|action| (action, theirs.clone())).collect();
        let tells = std::mem::take(&mut decision.tells);
        if first.is_some() || !actions.is_empty() || !tells.is_empty() {
            if let Some(at) = app.not_before.filter(|at| *at > now) {
                self.agenda.wake_by(name, at);
            } else {
                app.acting = true;
                let parallel = self.options.parallel_writes;
                let tell = self.ports.tell.clone();
                self.acts.push(lanes::act(name.clone(), first, actions, tells, tell, parallel));
            }
        }
        self.rests(name, &decision);
        let app = self.apps.get(name)?;
        let urgent = decision.urgent && decision.has_records();
        let waiting = decision.has_records() || decision.edits.is_some() || app.ledger.has_unpushed();
        // Nothing is written into a history that lacks our last record: going back is kept in the anchor.
        if !waiting || app.rewritten.is_some() && !urgent {
            return None;
        }
        let head =
            head.or_else(|| app.ledger.states.last().and_then(|state| state.records.last()).map(|r| r.head.clone()))?;
        let publication = publish::compose(name, &app.ledger, &decision, &head, now);
        Some((publication, urgent))
    }

    /// Lets go of what was looked at for an application that is at rest.
    fn rests(&mut self, name: &AppName, decision: &Decision) {
        let Some(app) = self.apps.get(name) else { return };
        let rests = matches!(decision.report.activity, Activity::New | Activity::Stable | Activity::Held);
        if !rests || app.acting || decision.has_records() {
            return;
        }
        let head = match &app.content {
            Some(HeadContent::Rendered(render)) => Some(render),
            _ => None,
        };
        let rendered = app.renders.values().chain(head).flat_map(|render| render.keys());
        let anchor = ObjectKey {
            group: String::new(),
            kind: "ConfigMap".to_owned(),
            namespace: app.namespace(),
            name: anchor::name(name),
        };
        self.view.close(name, rendered.chain([anchor]));
    }
}

/// Returns the rights that reasons say are missing, a line each.
fn lacks(reasons: &[Reason]) -> Option<String> {
    let lines = reasons.iter().filter_map(|reason| match reason {
        Reason::Refused { why } if Missing::read(why).is_some() => Some(why.as_str()),
        _ => None,
    });
    let lines: Vec<&str> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
