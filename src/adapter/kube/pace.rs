//! The client-side rate limit.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// How many requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second, lastingly; more than 0.
    pub qps: f64,
    /// Requests that may go at once after a rest; at least 1.
    pub burst: u32,
}

/// Spreads requests in time, first come, first served: each is given its place in the schedule when it asks.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    allowance: Duration,
    /// When the bucket would be full again.
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// Builds the schedule; a rate that is not positive counts as one request in a thousand seconds.
    pub(super) fn new(rate: Rate) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate.qps.max(0.001));
        Self { interval, allowance: interval * rate.burst.max(1), full_at: Mutex::new(None) }
    }

    /// Returns when the next request may be sent.
    pub(super) async fn turn(&self) {
        let at = {
            let mut full_at = self.full_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            let next = full_at.map_or(now, |at| at.max(now)) + self.interval;
            *full_at = Some(next);
            next.checked_sub(self.allowance)
        };
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_is_spread() {
        let pace = Pace::new(Rate { qps: 10.0, burst: 5 });
        let start = Instant::now();
        for _ in 0..5 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(999) && start.elapsed() < Duration::from_millis(1_050));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_fills_the_burst_again_and_no_further() {
        let pace = Pace::new(Rate { qps: 10.0, burst: 2 });
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(99));
    }
}
