//! `cooldown`: when a failing service is skipped for a time.

use std::time::Duration;

use super::reader::{Item, Problems};

const FIELDS: &[&str] = &["enabled", "failures", "time_ms", "max_retry_after_ms"];
/// A day: longer is a mistake in the unit.
const MAX_TIME_MS: i32 = 86_400_000;

/// When a failing service is skipped, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cooldown {
    /// Failures in a row after which it is skipped. At least 1.
    pub failures: u32,
    /// For how long.
    pub time: Duration,
    /// The longest time that a `Retry-After` of the service can ask for.
    pub max_retry_after: Duration,
}

impl Cooldown {
    /// `None` where it is not enabled as well: all of it is checked.
    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "an object with the fields `failures` and `time_ms`";
        let fields = item.fields(problems, expected, FIELDS)?;
        let enabled = fields.boolean(problems, "enabled", true);
        let failures = fields.count(problems, "failures", 1..=1000, 3);
        let time = fields.count(problems, "time_ms", 1..=MAX_TIME_MS, 30_000);
        let range = 0..=MAX_TIME_MS;
        let max_retry_after = fields.count(problems, "max_retry_after_ms", range, 300_000);
        enabled.then_some(Cooldown {
            failures,
            time: Duration::from_millis(time.into()),
            max_retry_after: Duration::from_millis(max_retry_after.into()),
        })
    }
}
