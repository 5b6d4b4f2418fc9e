//! Whether a controller lives, and whether it is ready: what probes ask.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::controller::{
    lease::Standing,
    news::{Listener, Load, News},
};

/// One turn of the loop may take long where very many applications are read for the first time; longer than this it
/// does not.
const LONGEST_TURN: Duration = Duration::from_secs(600);

/// What a probe is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether all is well.
    pub good: bool,
    /// Why, in a few words.
    pub why: String,
}

impl Answer {
    fn of(good: bool, why: impl Into<String>) -> Self {
        Self { good, why: why.into() }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Since when the loop works; `None` while it rests.
    working_since: Option<Instant>,
    load: Load,
}

/// Hears what the loop does.
pub struct Health {
    state: Mutex<State>,
    /// `None` where no lease is asked for.
    standing: Option<watch::Receiver<Standing>>,
}

impl Health {
    /// Starts with a controller that has done nothing yet. `standing`: who leads, where that is asked.
    pub fn new(standing: Option<watch::Receiver<Standing>>) -> Self {
        Self { state: Mutex::default(), standing }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a term that has ended: the next starts anew.
    pub fn starts_anew(&self) {
        *self.state() = State::default();
    }

    /// Returns whether this process leads, or acts alone.
    pub fn leads(&self) -> bool {
        self.standing.as_ref().is_none_or(|standing| standing.borrow().leads)
    }

    /// Says whether the loop turns: where it does not, only a restart helps.
    pub fn lives(&self) -> Answer {
        match self.state().working_since.map(|since| since.elapsed()) {
            Some(since) if since > LONGEST_TURN => {
                Answer::of(false, format!("the loop has not come to an end for {} s", since.as_secs()))
            }
            _ => Answer::of(true, "ok"),
        }
    }

    /// Says whether it does its work: leading with everything listed and the branch read, or standing by.
    pub fn ready(&self) -> Answer {
        if !self.leads() {
            let seen = self.standing.as_ref().is_some_and(|standing| standing.borrow().holder.is_some());
            return Answer::of(seen, if seen { "stands by" } else { "the leader lease has not been seen yet" });
        }
        if self.state().load.ready {
            Answer::of(true, "ok")
        } else {
            Answer::of(false, "the cluster is not listed, or the branch not read, yet")
        }
    }

    /// Returns how much there is to do.
    pub fn load(&self) -> Load {
        self.state().load
    }
}

impl Listener for Health {
    fn hear(&self, news: &News<'_>) {
        match news {
            News::Woke => self.state().working_since = Some(Instant::now()),
            News::Rests(load) => *self.state() = State { working_since: None, load: *load },
            News::Decided { .. } | News::Recorded(_) | News::Quarantined(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acts_alone_is_ready_once_everything_was_read() {
        let health = Health::new(None);
        assert!(health.lives().good && !health.ready().good);
        health.hear(&News::Rests(Load { ready: true, ..Load::default() }));
        assert!(health.ready().good);
        health.starts_anew();
        assert!(!health.ready().good);
    }

    #[test]
    fn who_stands_by_is_ready_once_it_saw_who_leads() {
        let (tell, standing) = watch::channel(Standing::default());
        let health = Health::new(Some(standing));
        assert!(!health.ready().good);
        tell.send_replace(Standing { leads: false, holder: Some("other".into()) });
        assert_eq!(health.ready(), Answer::of(true, "stands by"));
        tell.send_replace(Standing { leads: true, holder: Some("me".into()) });
        assert!(!health.ready().good, "it starts with nothing");
    }

    #[test]
    fn a_loop_that_works_is_no_dead_one() {
        let health = Health::new(None);
        health.hear(&News::Woke);
        assert!(health.lives().good);
        health.state().working_since = Instant::now().checked_sub(LONGEST_TURN + Duration::from_secs(1));
        assert!(!health.lives().good);
    }
}
