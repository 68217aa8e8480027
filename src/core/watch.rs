//! Watches one answer that comes through Envoy's router: what it turns out to be, and how long it may take.

use std::time::Duration;

use super::judge::{Judge, Reading, Verdict};
use super::outcome::{Origin, Outcome};
use super::plan::Plan;

/// The answer of one attempt, while it is not known what it is.
#[derive(Debug)]
pub struct Watch {
    judge: Judge,
    began: Duration,
    /// When something last came of it.
    moved: Duration,
    /// When its headers came.
    headers: Option<Duration>,
}

/// What a watch keeps the time of. Envoy's router may keep that of the whole attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// For the first packet of a stream.
    pub first_packet: Option<Duration>,
    /// For the answer, or the first packet of a stream.
    pub answer: Option<Duration>,
    /// Between two packets of an answer that is held to its end.
    pub idle: Option<Duration>,
}

/// How long the body of an error is waited for, from its headers on. A filter that unpacks answers behind a held one keeps
/// the end of the body from us (Envoy 1.36 to 1.40).
const ERROR_BODY_WAIT: Duration = Duration::from_secs(1);

impl Watch {
    /// An attempt of this plan that begins `now`.
    #[must_use]
    pub fn new(plan: &Plan, now: Duration) -> Self {
        Self {
            judge: Judge::new(Reading::of(plan)),
            began: now,
            moved: now,
            headers: None,
        }
    }

    /// When the attempt began.
    #[must_use]
    pub fn began(&self) -> Duration {
        self.began
    }

    /// Whether the headers of the answer have come.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.headers.is_some()
    }

    /// The headers came: [`Judge::on_headers`].
    pub fn on_headers(
        &mut self,
        now: Duration,
        origin: Origin,
        status: u16,
        end: bool,
    ) -> Option<Verdict> {
        self.moved = now;
        self.headers = Some(now);
        self.judge.on_headers(origin, status, end)
    }

    /// More of the body came: [`Judge::on_body`].
    pub fn on_body(
        &mut self,
        now: Duration,
        size: usize,
        bytes: &[u8],
        end: bool,
    ) -> Option<Verdict> {
        self.moved = now;
        self.judge.on_body(size, bytes, end)
    }

    /// The part of the body that is to be read: [`Judge::wanted`].
    #[must_use]
    pub fn wanted(&self, size: usize, end: bool) -> (usize, usize) {
        self.judge.wanted(size, end)
    }

    /// Until when the body of an error is waited for. What has come of it by then is all that is read.
    #[must_use]
    pub fn error_body_due(&self) -> Option<Duration> {
        let headers = self.headers.filter(|_| self.judge.is_reading_error())?;
        Some(headers + ERROR_BODY_WAIT)
    }

    /// What is waited for: until when, and what it means if it does not come.
    pub fn waits(&self, limits: Limits) -> impl Iterator<Item = (Duration, Outcome)> {
        let first_packet = limits
            .first_packet
            .filter(|_| !self.judge.has_first_packet());
        let idle = limits.idle.filter(|_| self.judge.is_holding());
        let ends = [
            (first_packet, self.began, Outcome::FirstPacketTimeout),
            (limits.answer, self.began, Outcome::RequestTimeout),
            (idle, self.moved, Outcome::StreamIdleTimeout),
        ];
        ends.into_iter()
            .filter_map(|(limit, from, outcome)| Some((from + limit?, outcome)))
    }

    /// What has not come in time by `now`.
    #[must_use]
    pub fn overdue(&self, now: Duration, limits: Limits) -> Option<Outcome> {
        let due = self.waits(limits).filter(|(due, _)| *due <= now);
        due.min_by_key(|(due, _)| *due).map(|(_, outcome)| outcome)
    }
}
