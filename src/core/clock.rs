//! Time, as the controller needs it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// A clock that never jumps: wall time at the start, and monotonic from there.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Timestamp;

    /// Returns how long ago some fixed moment is. Unlike [`Clock::now`] it also counts the time that the machine slept:
    /// by this it is told whether something has run out.
    fn uptime(&self) -> Duration;

    /// Returns when `at` has come. Cancel safe.
    async fn until(&self, at: Timestamp);
}
