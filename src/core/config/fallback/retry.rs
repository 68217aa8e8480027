//! `retry`: how long to wait before the same service is tried again.

use std::time::Duration;

use crate::core::config::reader::{Item, Problems};

const FIELDS: &[&str] = &["backoff_ms", "max_backoff_ms", "max_retry_after_ms"];
const MAX_BACKOFF_MS: i32 = 60_000;
const MAX_WAIT_MS: i32 = 600_000;
/// Of the three fields, in milliseconds.
const DEFAULTS: [u32; 3] = [250, 2_000, 5_000];

/// How long to wait before the same service is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The longest wait before the first retry; doubled for each further one. The wait is a random part of it.
    pub backoff: Duration,
    /// What the doubling ends at.
    pub max_backoff: Duration,
    /// The longest `Retry-After` that is waited for. After a longer one the next service is tried at once.
    pub max_retry_after: Duration,
}

impl Retry {
    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "an object with the fields `backoff_ms` and `max_backoff_ms`";
        let fields = item.fields(problems, expected, FIELDS)?;
        let known = problems.count();
        let [backoff, max_backoff, max_retry_after] = DEFAULTS;
        let backoff = fields.count(problems, "backoff_ms", 0..=MAX_BACKOFF_MS, backoff);
        let most = fields.count(problems, "max_backoff_ms", 0..=MAX_WAIT_MS, max_backoff);
        let max = 0..=MAX_WAIT_MS;
        let max_retry_after = fields.count(problems, "max_retry_after_ms", max, max_retry_after);
        if backoff > most && problems.count() == known {
            if fields.has("backoff_ms") {
                let expected = format!("at most max_backoff_ms, which is {most}");
                fields.out_of_range(problems, "backoff_ms", backoff, &expected);
            } else {
                let expected = format!("at least backoff_ms, which is {backoff}");
                fields.out_of_range(problems, "max_backoff_ms", most, &expected);
            }
        }
        Some(Retry::of([backoff, most, max_retry_after]))
    }

    fn of(millis: [u32; 3]) -> Self {
        let [backoff, max_backoff, max_retry_after] =
            millis.map(|millis| Duration::from_millis(millis.into()));
        Retry {
            backoff,
            max_backoff,
            max_retry_after,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry::of(DEFAULTS)
    }
}
