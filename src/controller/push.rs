//! When records are pushed, and where they are kept until then.

use jiff::{SignedDuration, Timestamp};

use super::{Controller, lanes, publish::Publication};
use crate::core::names::AppName;

impl Controller {
    /// Publishes records: pushes them when it may, and keeps the urgent ones in their anchors when Git is away.
    pub(super) async fn publish(&mut self, publications: Vec<(Publication, bool)>) {
        let now = self.now();
        let away = self.git.away.is_some() || self.branch.is_none();
        // Going back does not wait until a push may be tried again; a repair is nothing but a push.
        let held_up = self.push_failures > 0 && self.push_not_before.is_some_and(|at| at > now);
        let (to_keep, publications): (Vec<_>, Vec<_>) = publications.into_iter().partition(|(publication, urgent)| {
            let keep = away || held_up && *urgent && publication.repair.is_none();
            keep || self.apps.get(&publication.app).is_some_and(|app| app.rewritten.is_some())
        });
        let to_keep = to_keep.into_iter().filter(|(_, urgent)| *urgent).map(|(publication, _)| publication);
        self.keep_in_anchors(to_keep.collect()).await;
        if publications.is_empty() {
            return;
        }
        let urgent = publications.iter().any(|(_, urgent)| *urgent);
        if let Some(until) = if urgent { self.backs_off(now) } else { self.may_push_from(now) } {
            self.wake_all(publications.iter().map(|(publication, _)| publication.app.clone()), until);
            return;
        }
        if self.git_lane.is_some() {
            // The lane's end wakes them: they are decided again then, on what it brought.
            let names: Vec<AppName> = publications.iter().map(|(publication, _)| publication.app.clone()).collect();
            self.publishing.extend(names);
            return;
        }
        let Some(onto) = self.branch.as_ref().map(|branch| branch.revision.clone()) else { return };
        self.publishing = publications.iter().map(|(publication, _)| publication.app.clone()).collect();
        self.git_lane = Some(lanes::push(&self.ports.repository, onto, publications, now));
    }

    fn wake_all(&mut self, names: impl Iterator<Item = AppName>, at: Timestamp) {
        names.for_each(|name| self.agenda.wake_by(&name, at));
    }

    /// Returns until when records of going forward may not be pushed, where they may not now.
    pub(super) fn may_push_from(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.last_push.map(|last| last + self.push_interval());
        next.filter(|next| *next > now).max(self.backs_off(now))
    }

    /// Returns until when nothing may be pushed, after what failed.
    fn backs_off(&self, now: Timestamp) -> Option<Timestamp> {
        self.git_not_before.max(self.push_not_before).filter(|at| *at > now)
    }

    fn push_interval(&self) -> SignedDuration {
        let set = self.options.push_interval;
        let interval = set.or(self.branch.as_ref().map(|branch| branch.settings.push_interval));
        interval.and_then(|interval| SignedDuration::try_from(interval).ok()).unwrap_or(SignedDuration::from_secs(3))
    }
}
