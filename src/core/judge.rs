//! Judges one answer while it arrives.

use super::config::Fallback;
use super::outcome::{Origin, Outcome};
use super::plan::Plan;
use super::provider_error::ProviderError;
use super::request::Members;
use super::sse::{self, FirstEvent};

/// What an answer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// What the service says of its error, where that was read.
    pub error: Option<ProviderError>,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            error: None,
        }
    }
}

/// Judges an answer while it arrives, as early as its bytes allow.
///
/// An answer with a good status is undecided until its first packet: its headers say little, since
/// many services send them before they know whether they can answer.
#[derive(Debug)]
pub struct Judge {
    reading: Reading,
    status: u16,
    part: Part,
    /// Bytes of comments that need not be read again.
    skipped: usize,
}

/// What is to be read of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// The first event, since the request asked for a stream.
    pub stream: bool,
    /// What the service says of its error.
    pub errors: bool,
    /// All of it, up to this many bytes.
    pub complete: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing of it, or nothing that would count.
    Nothing,
    /// A bad status: its body may say more.
    Refusal,
    /// The first event has begun.
    FirstEvent,
    /// It began well, and is held to its end.
    Rest,
}

impl Reading {
    /// What the rules of a plan need.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let rules = plan.fallback();
        let max_held = |rules: &Fallback| rules.max_held_bytes;
        Self {
            stream: plan.is_stream(),
            errors: rules.is_some_and(Fallback::reads_errors),
            complete: rules.filter(|_| plan.delivers_complete()).map(max_held),
        }
    }
}

impl Judge {
    /// The most bytes of a first event that are read to find an error in it. A longer event is
    /// taken for what it is called.
    pub const MAX_FIRST_EVENT: usize = 16 * 1024;

    /// A judge that reads so much.
    #[must_use]
    pub fn new(reading: Reading) -> Self {
        Self {
            reading,
            status: 0,
            part: Part::Nothing,
            skipped: 0,
        }
    }

    /// What a whole answer is.
    #[must_use]
    pub fn whole(reading: Reading, origin: Origin, status: u16, body: &[u8]) -> Verdict {
        let mut judge = Self::new(reading);
        judge
            .on_headers(origin, status, body.is_empty())
            .or_else(|| judge.on_body(body.len(), body, true))
            .unwrap_or_else(|| Outcome::Status(status).into())
    }

    /// The headers came; `end` says that no body follows. `None`: the body decides.
    pub fn on_headers(&mut self, origin: Origin, status: u16, end: bool) -> Option<Verdict> {
        self.status = status;
        let outcome = match origin {
            Origin::Gateway => Outcome::Intercepted(status),
            Origin::AccessControl => Outcome::Refused(status),
            Origin::Transport => Outcome::Reset,
            Origin::Overflow => Outcome::Overflow,
            Origin::Timeout => Outcome::RequestTimeout,
            Origin::Service if !(200..300).contains(&status) => {
                if self.reading.errors && status >= 400 && !end {
                    self.part = Part::Refusal;
                    return None;
                }
                Outcome::Status(status)
            }
            Origin::Service if end => Outcome::Empty,
            Origin::Service => return None,
        };
        Some(outcome.into())
    }

    /// The body has `size` bytes so far, and `bytes` are those that are [`wanted`](Self::wanted);
    /// `end` says that no more follow. `None`: not decided yet.
    pub fn on_body(&mut self, size: usize, bytes: &[u8], end: bool) -> Option<Verdict> {
        match self.part {
            Part::Refusal => self.on_refusal(size, bytes, end),
            Part::Rest => self.on_rest(size, bytes, end),
            _ if self.reading.stream => self.on_first_event(bytes, end),
            _ if size == 0 => end.then(|| Outcome::Empty.into()),
            _ => self.begins_well(size, bytes, end),
        }
    }

    /// The end of a body may never be told, so that of its JSON counts too.
    fn on_refusal(&self, size: usize, bytes: &[u8], end: bool) -> Option<Verdict> {
        let is_enough = end || size >= ProviderError::MAX_BODY || is_whole_json(bytes);
        is_enough.then(|| Verdict {
            outcome: Outcome::Status(self.status),
            error: ProviderError::read(bytes.get(..ProviderError::MAX_BODY).unwrap_or(bytes)),
        })
    }

    fn on_first_event(&mut self, bytes: &[u8], end: bool) -> Option<Verdict> {
        let is_too_long = bytes.len() >= Self::MAX_FIRST_EVENT;
        let mut event = sse::first_event(bytes, end);
        if is_too_long && event == FirstEvent::Begun {
            event = sse::first_event(bytes, true);
        }
        match event {
            FirstEvent::Error(error) => Some(Verdict {
                outcome: Outcome::StreamError,
                error: Some(error),
            }),
            FirstEvent::Good => self.begins_well(self.skipped + bytes.len(), bytes, end),
            FirstEvent::OnlyComments { .. } if end => Some(Outcome::Empty.into()),
            FirstEvent::OnlyComments { skip } => {
                self.skipped += skip;
                // A line that is longer than what is read would be read again and again.
                (skip == 0 && is_too_long).then(|| Outcome::Status(self.status).into())
            }
            FirstEvent::Begun => {
                self.part = Part::FirstEvent;
                None
            }
        }
    }

    /// The answer is good, unless all of it is to be seen.
    fn begins_well(&mut self, size: usize, bytes: &[u8], end: bool) -> Option<Verdict> {
        if self.reading.complete.is_none() {
            return Some(Outcome::Status(self.status).into());
        }
        self.part = Part::Rest;
        self.on_rest(size, bytes, end)
    }

    fn on_rest(&self, size: usize, bytes: &[u8], end: bool) -> Option<Verdict> {
        let is_too_long = self.reading.complete.is_none_or(|max| size > max);
        if !end && !is_too_long {
            return None;
        }
        let error = sse::any_error(bytes).filter(|_| self.reading.stream);
        Some(error.map_or_else(
            || Outcome::Status(self.status).into(),
            |error| Verdict {
                outcome: Outcome::StreamError,
                error: Some(error),
            },
        ))
    }

    /// The part of a body of `size` bytes that is to be read: where it starts, and its length. Of a
    /// body that is no stream nothing is read, only that it has begun matters.
    #[must_use]
    pub fn wanted(&self, size: usize, end: bool) -> (usize, usize) {
        match self.part {
            Part::Refusal => (0, size.min(ProviderError::MAX_BODY)),
            Part::Rest if end && self.reading.stream => (0, size),
            Part::Nothing | Part::FirstEvent if self.reading.stream => (
                self.skipped,
                size.saturating_sub(self.skipped).min(Self::MAX_FIRST_EVENT),
            ),
            _ => (size, 0),
        }
    }

    /// Whether a byte of the body that is no comment has come, or the answer is a refusal.
    #[must_use]
    pub fn has_first_packet(&self) -> bool {
        self.part != Part::Nothing
    }

    /// Whether what a service says of its error is waited for.
    #[must_use]
    pub fn is_reading_error(&self) -> bool {
        self.part == Part::Refusal
    }

    /// Whether the answer began well, and is held to its end.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.part == Part::Rest
    }
}

fn is_whole_json(bytes: &[u8]) -> bool {
    let Ok(mut members) = Members::of(bytes) else {
        return false;
    };
    loop {
        match members.next() {
            Ok(Some(_)) => {}
            end => return end.is_ok(),
        }
    }
}
