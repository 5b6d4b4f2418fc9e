//! What is due: the applications that something has happened to, and the one queue of deadlines.
//!
//! Asking costs what is due, however many applications there are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::core::names::AppName;

/// What is due, and when.
#[derive(Default)]
pub(super) struct Agenda {
    touched: BTreeSet<AppName>,
    wakes: BTreeMap<AppName, Timestamp>,
    by_time: BTreeSet<(Timestamp, AppName)>,
}

impl Agenda {
    /// Notes that something has happened since the last decision.
    pub fn touch(&mut self, name: &AppName) {
        if !self.touched.contains(name) {
            self.touched.insert(name.clone());
        }
    }

    /// Notes that it was decided on everything that has happened, and when to decide again without an event.
    pub fn decided(&mut self, name: &AppName, wake: Option<Timestamp>) {
        self.touched.remove(name);
        self.wake_at(name, wake);
    }

    /// Sets when to decide again without an event; `None` is not without one.
    pub fn wake_at(&mut self, name: &AppName, at: Option<Timestamp>) {
        if let Some(before) = self.wakes.remove(name) {
            self.by_time.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            self.wakes.insert(name.clone(), at);
            self.by_time.insert((at, name.clone()));
        }
    }

    /// Sees to it that it is decided again at `at` or before.
    pub fn wake_by(&mut self, name: &AppName, at: Timestamp) {
        if self.wakes.get(name).is_none_or(|before| at < *before) {
            self.wake_at(name, Some(at));
        }
    }

    /// Returns the applications that are due, by name.
    pub fn due(&self, now: Timestamp) -> BTreeSet<AppName> {
        let awake = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name);
        self.touched.iter().chain(awake).cloned().collect()
    }

    /// Returns the next deadline.
    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Returns how many applications something has happened to.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_told_in_their_order_and_what_was_touched_is_due_at_once() {
        let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        let due =
            |agenda: &Agenda, second: i64| agenda.due(at(second)).iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut agenda = Agenda::default();
        agenda.wake_at(&"b".into(), Some(at(20)));
        agenda.wake_at(&"c".into(), Some(at(10)));
        agenda.wake_by(&"b".into(), at(30));
        assert_eq!((agenda.next(), due(&agenda, 15)), (Some(at(10)), vec!["c".to_owned()]));
        agenda.touch(&"a".into());
        agenda.wake_by(&"b".into(), at(12));
        assert_eq!(due(&agenda, 15), ["a", "b", "c"]);
        agenda.decided(&"a".into(), None);
        agenda.decided(&"c".into(), Some(at(40)));
        agenda.wake_at(&"b".into(), None);
        assert_eq!((agenda.next(), agenda.touched(), due(&agenda, 39)), (Some(at(40)), 0, vec![]));
    }
}
