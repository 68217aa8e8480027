//! What an answer, or its absence, means: the table of `docs/behaviour.md`.

use std::fmt;

use super::config::Fallback;
use super::sse::{self, FirstEvent};

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The model service.
    Service,
    /// Another filter of the gateway: a rate limit, authentication, a firewall.
    Gateway,
    /// Envoy, since the service could not be reached or its connection broke.
    Transport,
    /// Envoy, since the service took too long.
    Timeout,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The service answered with this status, and the answer began well.
    Status(u16),
    /// The gateway itself answered with this status.
    Intercepted(u16),
    /// A stream that opened well began with an error.
    StreamError,
    /// A good status, and no body.
    Empty,
    /// The service could not be reached, or the connection broke.
    Reset,
    /// No first packet of a stream within its time.
    FirstPacketTimeout,
    /// No answer within its time.
    RequestTimeout,
}

impl Outcome {
    /// Whether the rules of `fallback` send the request on after this.
    #[must_use]
    pub fn falls_back(self, fallback: &Fallback) -> bool {
        match self {
            Self::Status(status) => fallback.on_status.contains(status),
            Self::Intercepted(status) => {
                !fallback.only_backend_errors && fallback.on_status.contains(status)
            }
            _ => true,
        }
    }

    /// Reads what [`Display`](fmt::Display) wrote. A status that was intercepted cannot be told.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "stream_error" => Some(Self::StreamError),
            "empty" => Some(Self::Empty),
            "reset" => Some(Self::Reset),
            "first_packet_timeout" => Some(Self::FirstPacketTimeout),
            "request_timeout" => Some(Self::RequestTimeout),
            status => status.parse().ok().map(Self::Status),
        }
    }

    /// Whether the answer came from the service.
    #[must_use]
    pub fn is_from_service(self) -> bool {
        matches!(self, Self::Status(_) | Self::StreamError | Self::Empty)
    }

    /// What a whole answer means.
    #[must_use]
    pub fn of_answer(origin: Origin, status: u16, body: &[u8], stream: bool) -> Self {
        let mut judge = Judge::new(stream);
        judge
            .on_headers(origin, status, body.is_empty())
            .or_else(|| judge.on_body(body.len(), body, true))
            .unwrap_or(Self::Status(status))
    }
}

/// The outcome as the trail of attempts shows it.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Intercepted(_) => f.write_str("intercepted"),
            Self::StreamError => f.write_str("stream_error"),
            Self::Empty => f.write_str("empty"),
            Self::Reset => f.write_str("reset"),
            Self::FirstPacketTimeout => f.write_str("first_packet_timeout"),
            Self::RequestTimeout => f.write_str("request_timeout"),
        }
    }
}

/// Judges an answer while it arrives, as early as its bytes allow.
///
/// An answer with a good status is undecided until its first packet: its headers say little, since
/// many services send them before they know whether they can answer.
#[derive(Debug)]
pub struct Judge {
    stream: bool,
    status: u16,
    /// Bytes of comments that need not be read again.
    skipped: usize,
    first_packet: bool,
}

impl Judge {
    /// The most bytes of a first event that are read to find an error in it. A longer event is
    /// taken for a good one.
    pub const MAX_FIRST_EVENT: usize = 16 * 1024;

    /// A judge for the answer to a request that asked for a stream, or did not.
    #[must_use]
    pub fn new(stream: bool) -> Self {
        Self {
            stream,
            status: 0,
            skipped: 0,
            first_packet: false,
        }
    }

    /// The headers came; `end` says that no body follows. `None`: the body decides.
    pub fn on_headers(&mut self, origin: Origin, status: u16, end: bool) -> Option<Outcome> {
        self.status = status;
        match origin {
            Origin::Gateway => Some(Outcome::Intercepted(status)),
            Origin::Transport => Some(Outcome::Reset),
            Origin::Timeout => Some(Outcome::RequestTimeout),
            Origin::Service if !(200..300).contains(&status) => Some(Outcome::Status(status)),
            Origin::Service if end => Some(Outcome::Empty),
            Origin::Service => None,
        }
    }

    /// The body has `size` bytes so far, and `bytes` are those that are [`wanted`](Self::wanted);
    /// `end` says that no more follow. `None`: not decided yet.
    pub fn on_body(&mut self, size: usize, bytes: &[u8], end: bool) -> Option<Outcome> {
        if !self.stream {
            return match (size, end) {
                (0, true) => Some(Outcome::Empty),
                (0, false) => None,
                _ => Some(Outcome::Status(self.status)),
            };
        }
        match sse::first_event(bytes, end) {
            FirstEvent::Error => Some(Outcome::StreamError),
            FirstEvent::Good => Some(Outcome::Status(self.status)),
            FirstEvent::OnlyComments { .. } if end => Some(Outcome::Empty),
            FirstEvent::OnlyComments { skip } => {
                self.skipped += skip;
                // A line that is longer than what is read would be read again and again.
                (skip == 0 && bytes.len() >= Self::MAX_FIRST_EVENT)
                    .then_some(Outcome::Status(self.status))
            }
            FirstEvent::Begun => {
                self.first_packet = true;
                (bytes.len() >= Self::MAX_FIRST_EVENT).then_some(Outcome::Status(self.status))
            }
        }
    }

    /// The part of a body of `size` bytes that is to be read: where it starts, and its length. Of a
    /// body that is no stream nothing is read, only that it has begun matters.
    #[must_use]
    pub fn wanted(&self, size: usize) -> (usize, usize) {
        match self.stream {
            true => (
                self.skipped,
                size.saturating_sub(self.skipped).min(Self::MAX_FIRST_EVENT),
            ),
            false => (0, 0),
        }
    }

    /// Whether a byte of the body that is no comment has come.
    #[must_use]
    pub fn has_first_packet(&self) -> bool {
        self.first_packet
    }
}
