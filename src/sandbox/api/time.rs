//! Times as objects have them.

use jiff::{Timestamp, tz::TimeZone};

/// Returns `2026-11-21T12:00:29Z`: `metav1.Time` has whole seconds.
pub fn seconds(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
