//! What became of a request and its attempts, as metrics and access logs tell it.

use std::time::Duration;

use super::outcome::Outcome;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestResult {
    /// The primary gave a good answer.
    Primary,
    /// Another service gave a good answer.
    Fallback,
    /// No service gave a good answer.
    Failed {
        /// Another service than the primary was asked.
        with_fallback: bool,
    },
    /// The answer is the gateway's own.
    Intercepted,
    /// The filter answered with an error.
    Refused(Refusal),
    /// The request went to its primary unread.
    Skipped(Skip),
    /// The client left before there was an answer.
    Gone,
}

/// Why the filter answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The body, or a header, cannot be used.
    BadRequest,
    /// The caller may not use what it asks for.
    Denied,
    /// The request came through too often.
    Loop,
}

/// Why a request to a Model API goes to its primary unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The body is larger than `max_body_bytes`.
    TooLarge,
    /// `content-encoding` says that the body is compressed.
    Compressed,
    /// The body is not JSON by its `content-type`.
    NotJson,
    /// It is no `POST`, or becomes a connection of its own: its answer is left as it is, too.
    OtherRequest {
        /// It has no body.
        end: bool,
    },
}

/// An attempt that has ended, as metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedAttempt {
    /// Its number in the plan.
    pub number: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, up to the first packet where its answer passes.
    pub took: Duration,
    /// Its answer is good, and passes on to the client as it comes.
    pub is_passing: bool,
}

impl RequestResult {
    /// The result as a label: one word of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Fallback => "fallback",
            Self::Failed { .. } => "failed",
            Self::Intercepted => "intercepted",
            Self::Refused(_) => "refused",
            Self::Skipped(_) => "skipped",
            Self::Gone => "gone",
        }
    }

    /// What more there is to say, as a label. Empty: nothing.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Failed {
                with_fallback: true,
            } => "fallback_failed",
            Self::Failed {
                with_fallback: false,
            } => "no_fallback",
            Self::Refused(Refusal::BadRequest) => "bad_request",
            Self::Refused(Refusal::Denied) => "denied",
            Self::Refused(Refusal::Loop) => "loop",
            Self::Skipped(reason) => reason.label(),
            Self::Primary | Self::Fallback | Self::Intercepted | Self::Gone => "",
        }
    }
}

impl Skip {
    /// The reason as metrics and the trail have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Compressed => "compressed",
            Self::NotJson => "not_json",
            Self::OtherRequest { .. } => "other_method",
        }
    }

    /// Whether there is a body, which might name a model.
    #[must_use]
    pub fn has_body(self) -> bool {
        self != Self::OtherRequest { end: true }
    }
}
