//! What an answer, or its absence, means: the table of `docs/behaviour.md`.

use std::fmt;
use std::time::Duration;

use super::config::{Fallback, StatusSet};
use super::provider_error::{ErrorKind, ProviderError};

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The model service.
    Service,
    /// Another filter of the gateway: a rate limit, a firewall, guardrails.
    Gateway,
    /// A filter of the gateway that says who may ask: authentication or authorization. Its failing closed is among it.
    AccessControl,
    /// Envoy, since the service could not be reached or its connection broke.
    Transport,
    /// Envoy, since its circuit breaker for the service is open.
    Overflow,
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
    /// The gateway itself answered with this status, since the caller may not ask: never a reason to ask another service.
    Refused(u16),
    /// A stream that opened well holds an error.
    StreamError,
    /// A good status, and no body.
    Empty,
    /// The service could not be reached, or the connection broke.
    Reset,
    /// Envoy's circuit breaker let nothing more through to the service.
    Overflow,
    /// No first packet of a stream within its time.
    FirstPacketTimeout,
    /// No answer within its time.
    RequestTimeout,
    /// An answer that is held to its end came to a halt.
    StreamIdleTimeout,
}

/// How an attempt ended, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// The kind of error that the service told of.
    pub kind: Option<ErrorKind>,
    /// How long the service asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The request goes on, where there is somebody to go to.
    pub fails: bool,
}

/// What a gateway like this one says of a request that came back too often.
pub const LOOP_DETECTED: u16 = 508;

impl Outcome {
    /// Those that are words in the trail of attempts.
    pub const WORDS: [(&'static str, Outcome); 7] = [
        ("stream_error", Outcome::StreamError),
        ("empty", Outcome::Empty),
        ("reset", Outcome::Reset),
        ("reset", Outcome::Overflow),
        ("first_packet_timeout", Outcome::FirstPacketTimeout),
        ("request_timeout", Outcome::RequestTimeout),
        ("stream_idle_timeout", Outcome::StreamIdleTimeout),
    ];

    /// The outcome as a label of metrics: one of a small fixed set. A status that tells little more than its class is
    /// that class.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Status(status) => status_label(status),
            Self::Intercepted(_) | Self::Refused(_) => "intercepted",
            Self::Overflow => "overflow",
            other => other.word(),
        }
    }

    fn word(self) -> &'static str {
        let word = Self::WORDS.iter().find(|(_, outcome)| *outcome == self);
        word.map_or("", |(word, _)| word)
    }

    /// Whether the answer came from the service.
    #[must_use]
    pub fn is_from_service(self) -> bool {
        matches!(self, Self::Status(_) | Self::StreamError | Self::Empty)
    }

    /// Whether the answer came from the gateway itself.
    #[must_use]
    pub fn is_from_gateway(self) -> bool {
        matches!(self, Self::Intercepted(_) | Self::Refused(_))
    }

    /// Whether the service was silent.
    #[must_use]
    pub fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::FirstPacketTimeout | Self::RequestTimeout | Self::StreamIdleTimeout
        )
    }

    /// Whether it may say that the service is not well. A refusal of this one request does not, and a loop is one:
    /// any client can make it up. Nor does a limit of Envoy.
    fn is_unhealthy(self) -> bool {
        match self {
            Self::Status(LOOP_DETECTED) => false,
            Self::Status(status) => StatusSet::AVAILABILITY.contains(status),
            Self::Intercepted(_) | Self::Refused(_) | Self::Overflow => false,
            _ => true,
        }
    }

    /// Whether the service refused the key that it was sent, or the account of it.
    #[must_use]
    pub fn is_refused_key(self) -> bool {
        matches!(self, Self::Status(401..=403))
    }
}

/// The statuses that model services are known to fail with.
const KNOWN: [(u16, &str); 13] = [
    (400, "400"),
    (401, "401"),
    (402, "402"),
    (403, "403"),
    (404, "404"),
    (408, "408"),
    (413, "413"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (529, "529"),
];

fn status_label(status: u16) -> &'static str {
    if let Some((_, label)) = KNOWN.iter().find(|(known, _)| *known == status) {
        return label;
    }
    match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "other",
    }
}

/// The outcome as the trail of attempts shows it.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Intercepted(_) | Self::Refused(_) => f.write_str("intercepted"),
            other => f.write_str(other.word()),
        }
    }
}

impl Ended {
    /// What follows from an outcome by these rules. `error` is what the service says of it.
    #[must_use]
    pub fn new(
        outcome: Outcome,
        error: Option<&ProviderError>,
        retry_after: Option<Duration>,
        rules: Option<&Fallback>,
    ) -> Self {
        Self {
            outcome,
            kind: error.and_then(|error| error.kind),
            retry_after,
            fails: rules.is_some_and(|rules| fails(outcome, error, rules)),
        }
    }

    /// Whether the answer is one that the client asked for: no error by its status, and none by the rules.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Status(..400)) && !self.fails
    }

    /// Whether it says that the service is not well, and not only that this request is none for it.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        let own_fault = matches!(
            self.kind,
            Some(ErrorKind::ContextLength | ErrorKind::ContentPolicy | ErrorKind::ModelNotFound)
        );
        self.outcome.is_unhealthy() && !own_fault
    }

    /// Whether the same service may be asked again: it is not well, but it spoke.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let has_quota = self.kind != Some(ErrorKind::Quota);
        self.is_unhealthy() && !self.outcome.is_timeout() && has_quota
    }
}

fn fails(outcome: Outcome, error: Option<&ProviderError>, rules: &Fallback) -> bool {
    if error.is_some_and(|error| rules.except_errors.contains(error)) {
        return false;
    }
    match outcome {
        Outcome::Status(status) => {
            rules.on_status.contains(status)
                || error.is_some_and(|error| {
                    rules.on_errors.contains(error) || rules.has_targets_for(error.kind)
                })
        }
        Outcome::Intercepted(status) => {
            !rules.only_backend_errors && rules.on_status.contains_of_gateway(status)
        }
        Outcome::Refused(_) => false,
        _ => true,
    }
}
