//! Durations as people write them: `90s`, `1h 30m`.

use std::{fmt, time::Duration};

/// A duration with its unit. Never 0; months and years, which have no fixed length, and bare numbers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// The units that are taken. `M` is a month to humantime, and a minute to the person who writes it.
    const UNITS: [&str; 24] = [
        "ns", "nsec", "us", "usec", "ms", "msec", "millis", "s", "sec", "secs", "second", "seconds", "m", "min",
        "mins", "minute", "minutes", "h", "hr", "hour", "hours", "d", "day", "days",
    ];

    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return Err(format!("a duration needs a unit: write `{text}s` or `{text}m`"));
        }
        let units = text.split(|character: char| !character.is_ascii_alphabetic()).filter(|unit| !unit.is_empty());
        for unit in units {
            if !Self::UNITS.contains(&unit) {
                return Err(format!("`{unit}` is no unit: write `s`, `m`, `h` or `d`"));
            }
        }
        let duration =
            humantime::parse_duration(text).map_err(|_| format!("`{text}` is no duration: write `90s` or `1h30m`"))?;
        if duration.is_zero() {
            return Err("a duration of 0 does nothing".to_owned());
        }
        Ok(Self(duration))
    }

    /// Takes a duration as it is; `None` for 0.
    pub fn of(duration: Duration) -> Option<Self> {
        (!duration.is_zero()).then_some(Self(duration))
    }

    /// Returns the duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

/// Prints as Go does, which is what Kubernetes reads: `1h30m`, `1m30s`, `250ms`.
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let millis = self.0.subsec_millis();
        for (amount, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s"), (u64::from(millis), "ms")] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_of_fixed_length() {
        for (text, printed) in [("90s", "1m30s"), ("1h 30m", "1h30m"), ("250ms", "250ms"), ("2d", "48h")] {
            assert_eq!(HumanDuration::parse(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn fault_59_invalid_durations_say_what_to_write() {
        let table = [
            ("5", "a duration needs a unit: write `5s` or `5m`"),
            ("0s", "a duration of 0 does nothing"),
            ("2M", "`M` is no unit: write `s`, `m`, `h` or `d`"),
            ("1month", "`month` is no unit: write `s`, `m`, `h` or `d`"),
            ("1y", "`y` is no unit: write `s`, `m`, `h` or `d`"),
            ("-5m", "`-5m` is no duration: write `90s` or `1h30m`"),
            ("", "`` is no duration: write `90s` or `1h30m`"),
            ("99999999999999999999s", "`99999999999999999999s` is no duration: write `90s` or `1h30m`"),
        ];
        for (text, expected) in table {
            assert_eq!(HumanDuration::parse(text).unwrap_err(), expected);
        }
    }
}
