//! An application for which deciding fails is left alone for a while, and says so: the others go on.

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::{
    Controller,
    news::{News, Quarantined},
};
use crate::core::{
    names::AppName,
    rollout::report::{Activity, Reason, Report},
};

/// Waits double from two seconds up to this many.
const LONGEST: i64 = 300;
/// From so many failures in a row on it is no accident: its workloads get an Event.
const TELLS_FROM: u32 = 3;

impl Controller {
    /// Notes that deciding panicked for an application, and leaves it alone for a while.
    pub(super) fn quarantine(&mut self, name: &AppName) {
        let now = self.now();
        let Some(app) = self.apps.get_mut(name) else { return };
        app.panics = app.panics.saturating_add(1);
        let times = app.panics;
        let until = now + SignedDuration::from_secs(LONGEST.min(1 << times.min(10)));
        app.quarantined = Some(until);
        let mut report = app.report.take().unwrap_or_else(|| Report::bare(name.clone(), Activity::Held));
        report.activity = Activity::Held;
        report.reasons = vec![Reason::Quarantined { times, until }];
        app.report = Some(report.clone());
        self.agenda.decided(name, Some(until));
        warn!(app = %name, panics = times, "deciding panicked: the application is left alone for a while");
        self.options.listeners.tell(&News::Decided { app: name, activity: Activity::Held, head_is_broken: false });
        if times >= TELLS_FROM {
            let workloads = self.workloads_of(name);
            let why = &report.reasons[0];
            self.options.listeners.tell(&News::Quarantined(Quarantined { app: name, why, at: now, workloads }));
        }
        self.tell(name, &report);
    }

    /// Returns whether an application is left alone still, whatever has happened to it.
    pub(super) fn is_quarantined(&mut self, name: &AppName, now: Timestamp) -> bool {
        let until = self.apps.get(name).and_then(|app| app.quarantined).filter(|until| *until > now);
        if until.is_some() {
            self.agenda.decided(name, until);
        }
        until.is_some()
    }
}
