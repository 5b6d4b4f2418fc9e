//! Time, as the controller needs it.

use async_trait::async_trait;
use jiff::Timestamp;

/// A clock that never jumps: wall time at the start, and monotonic from there.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Timestamp;

    /// Returns when `at` has come. Cancel safe.
    async fn until(&self, at: Timestamp);
}
