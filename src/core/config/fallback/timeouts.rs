//! The times of a fallback, and what is left of them for the next attempt.

use std::time::Duration;

use super::client::ClientControls;
use crate::core::config::reader::{Fields, Problems};

/// A day: longer is a mistake in the unit.
const MAX_MS: i32 = 86_400_000;
const REQUEST_MS: u32 = 60_000;

/// `None` for no limit.
pub(super) struct Timeouts {
    pub first_packet: Option<Duration>,
    pub request: Option<Duration>,
    pub total: Option<Duration>,
    pub reserve: Duration,
    pub stream_idle: Option<Duration>,
}

impl Timeouts {
    /// A reserve needs a total, which a request can bring by its `controls`.
    pub fn read(fields: &Fields<'_>, controls: ClientControls, problems: &mut Problems) -> Self {
        let known = problems.count();
        let mut millis = |name, default| fields.count(problems, name, 0..=MAX_MS, default);
        let first_packet = millis("first_packet_timeout_ms", 0);
        let request = millis("request_timeout_ms", REQUEST_MS);
        let total = millis("total_timeout_ms", 0);
        let reserve = millis("reserve_ms", 0);
        let stream_idle = millis("stream_idle_timeout_ms", 0);
        let half = total / 2;
        // What could not be read has its default, and fits nothing.
        let readable = problems.count() == known;
        if readable && total == 0 && reserve > 0 && !controls.timeout {
            let expected = "0 where there is no total_timeout_ms";
            fields.out_of_range(problems, "reserve_ms", reserve, expected);
        } else if readable && total > 0 && reserve > half {
            let expected = format!("at most half of total_timeout_ms, which is {half}");
            fields.out_of_range(problems, "reserve_ms", reserve, &expected);
        }
        Timeouts {
            first_packet: limit(first_packet),
            request: limit(request),
            total: limit(total),
            reserve: limit(reserve).unwrap_or_default(),
            stream_idle: limit(stream_idle),
        }
    }
}

/// 0 is written for no limit.
fn limit(millis: u32) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis.into()))
}
