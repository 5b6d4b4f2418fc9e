//! The machine's clock, made safe against jumps.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::core::clock::Clock;

/// What `CLOCK_MONOTONIC` counts, which goes on while a process is stopped, and the machine's sleep.
#[cfg(target_os = "linux")]
const UPTIME: ClockId = ClockId::Boottime;
/// Elsewhere nobody runs controllers: the clock that every system has.
#[cfg(not(target_os = "linux"))]
const UPTIME: ClockId = ClockId::Monotonic;

/// Tells wall time at its making plus the monotonic time since: setting the machine's clock by a day neither
/// shortens nor lengthens a wait.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    wall: Timestamp,
    monotonic: Instant,
}

impl SystemClock {
    /// Reads both clocks, once.
    pub fn new() -> Self {
        Self { wall: Timestamp::now(), monotonic: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.checked_add(since).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        Duration::try_from(clock_gettime(UPTIME)).unwrap_or_default()
    }

    async fn until(&self, at: Timestamp) {
        let Ok(wait) = Duration::try_from(at.duration_since(self.wall)) else { return };
        match self.monotonic.checked_add(wait) {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_with_the_monotonic_clock() {
        let clock = SystemClock::new();
        let start = clock.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().duration_since(start), SignedDuration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn until_returns_when_the_time_has_come_and_at_once_for_the_past() {
        let clock = SystemClock::new();
        let start = clock.now();
        clock.until(start - SignedDuration::from_secs(5)).await;
        clock.until(start + SignedDuration::from_secs(7)).await;
        assert_eq!(clock.now().duration_since(start), SignedDuration::from_secs(7));
    }

    #[test]
    fn uptime_never_goes_back() {
        let clock = SystemClock::new();
        let first = clock.uptime();
        assert!(!first.is_zero() && clock.uptime() >= first);
    }

    #[tokio::test(start_paused = true)]
    async fn until_the_end_of_time_does_not_return() {
        let clock = SystemClock::new();
        let wait = tokio::time::timeout(Duration::from_secs(1_000_000), clock.until(Timestamp::MAX)).await;
        assert!(wait.is_err());
    }
}
