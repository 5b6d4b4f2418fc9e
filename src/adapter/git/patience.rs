//! Leaves a remote alone that refused the credentials: servers lock accounts out whose tries fail again and again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::names::Digest;
use crate::core::repository::RepositoryError;

/// No wait is longer than this many first ones.
const LONGEST: u32 = 10;

/// What a remote refused, and until when it is not asked again with the same.
pub(super) struct Patience {
    /// The wait after the first refusal; doubles.
    first: Duration,
    refused: Mutex<Option<Refused>>,
}

struct Refused {
    with: Digest,
    times: u32,
    until: Instant,
    why: String,
}

impl Patience {
    pub fn new(first: Duration) -> Self {
        Self { first, refused: Mutex::default() }
    }

    /// Lets a contact with these credentials through; `None` asks with none, which locks nobody out.
    ///
    /// # Errors
    ///
    /// They were refused a short while ago, and why.
    pub fn check(&self, with: Option<Digest>, now: Instant) -> Result<(), RepositoryError> {
        match &*self.refused() {
            Some(refused) if Some(refused.with) == with && now < refused.until => {
                Err(RepositoryError::Denied(refused.why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Notes what came of a contact with these credentials.
    pub fn heard<T>(
        &self,
        with: Option<Digest>,
        now: Instant,
        result: Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let mut refused = self.refused();
        match (result, with) {
            (Err(RepositoryError::Denied(why)), Some(with)) => {
                let before = refused.take().filter(|before| before.with == with);
                let told = match before {
                    // Two were under way at once.
                    Some(before) if now < before.until => before,
                    before => {
                        let times = before.map_or(0, |before| before.times).saturating_add(1);
                        let wait = self.first.saturating_mul((1 << (times - 1).min(16)).min(LONGEST));
                        let why = format!(
                            "{why}; not asked again for {}, or until the credentials change",
                            humantime::format_duration(wait)
                        );
                        Refused { with, times, until: now + wait, why }
                    }
                };
                let why = told.why.clone();
                *refused = Some(told);
                Err(RepositoryError::Denied(why))
            }
            (Ok(value), _) => {
                *refused = None;
                Ok(value)
            }
            (other, _) => other,
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refusal() -> Result<(), RepositoryError> {
        Err(RepositoryError::Denied("no".to_owned()))
    }

    #[test]
    fn fault_41_refused_credentials_are_tried_again_after_minutes_and_others_at_once() {
        let (patience, start) = (Patience::new(MINUTE), Instant::now());
        let (old, new) = (Some(Digest::of(b"old")), Some(Digest::of(b"new")));
        let mut now = start;
        for minutes in [1, 2, 4, 8, 10, 10] {
            patience.check(old, now).unwrap();
            let told = patience.heard(old, now, refusal()).unwrap_err();
            assert!(told.to_string().contains(&format!("for {minutes}m, or until the credentials change")), "{told}");
            now += MINUTE * minutes - Duration::from_millis(1);
            assert_eq!(patience.check(old, now), Err(told));
            assert_eq!(patience.check(new, now), Ok(()));
            now += Duration::from_millis(1);
        }
        patience.heard(old, now, Ok(())).unwrap();
        patience.check(old, now).unwrap();
        let told = patience.heard(old, now, refusal()).unwrap_err();
        assert!(told.to_string().contains("for 1m"), "after a success it starts over: {told}");
        let told = patience.heard(new, now, refusal()).unwrap_err();
        assert!(told.to_string().contains("for 1m"), "so it does with other credentials: {told}");
    }

    #[test]
    fn two_refusals_at_once_are_one() {
        let (patience, now, with) = (Patience::new(MINUTE), Instant::now(), Some(Digest::of(b"x")));
        let first = patience.heard(with, now, refusal()).unwrap_err();
        assert_eq!(patience.heard(with, now, refusal()), Err(first));
    }

    #[test]
    fn what_is_away_or_asks_for_nothing_is_not_left_alone() {
        let (patience, now, with) = (Patience::new(MINUTE), Instant::now(), Some(Digest::of(b"x")));
        let away = || Err::<(), _>(RepositoryError::Unreachable("no route".to_owned()));
        assert_eq!(patience.heard(with, now, away()), away());
        patience.check(with, now).unwrap();
        assert_eq!(patience.heard(None, now, refusal()), refusal());
        patience.check(None, now).unwrap();
    }
}
