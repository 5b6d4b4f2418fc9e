//! A virtual clock: tokio's, paused, so that time passes only when everybody waits for it.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use locktender::core::clock::Clock;
use tokio::time::Instant;

#[derive(Clone)]
pub struct VirtualClock {
    start: Timestamp,
    began: Instant,
}

impl VirtualClock {
    pub fn new() -> Self {
        Self { start: "2026-11-21T12:00:00Z".parse().unwrap(), began: Instant::now() }
    }

    pub fn time(&self) -> Timestamp {
        self.start + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }

    pub async fn sleep_until(&self, at: Timestamp) {
        let left = at.duration_since(self.time());
        if left.is_positive() {
            tokio::time::sleep(left.unsigned_abs()).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.time()
    }

    fn uptime(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    async fn until(&self, at: Timestamp) {
        self.sleep_until(at).await;
    }
}
