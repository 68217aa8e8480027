//! `fallback` of a Model API: who is tried after the primary, when, and for how long.

mod client;
mod retry;
mod targets;
mod timeouts;

use std::time::Duration;

pub use client::{ClientControls, ClientModels};
pub use retry::Retry;

use super::error_set::ErrorSet;
use super::model_api::Target;
use super::reader::{Item, Problems};
use super::services::Services;
use super::status_set::StatusSet;
use crate::core::provider_error::ErrorKind;
use timeouts::Timeouts;

const FIELDS: &[&str] = &[
    "enabled",
    "services",
    "client_models",
    "client_controls",
    "only_backend_errors",
    "on_status",
    "on_errors",
    "except_errors",
    "error_services",
    "max_attempts",
    "retry",
    "first_packet_timeout_ms",
    "request_timeout_ms",
    "total_timeout_ms",
    "reserve_ms",
    "stream_idle_timeout_ms",
    "deliver",
    "max_held_bytes",
];
const MAX_HELD_BYTES_LIMIT: i32 = 32 << 20;

/// What happens after an attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// Who is tried, in this order: the higher priority first, and as listed where it is the same.
    /// At least one, except where a request may name models itself. A target may be in the list
    /// twice, or be the primary: it is up to the request to skip what was tried.
    pub targets: Vec<Target>,
    /// Whether an answer of the gateway itself is never a failure.
    pub only_backend_errors: bool,
    /// Which statuses are failures.
    pub on_status: StatusSet,
    /// How long a streaming request waits for the first packet of an answer; `None` for no limit.
    pub first_packet_timeout: Option<Duration>,
    /// How long a request waits for an answer (streaming: its first packet); `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// How long all attempts may take together; `None` for no limit.
    pub total_timeout: Option<Duration>,
    /// What an attempt leaves of the total timeout to the next one. No attempt begins with less.
    pub reserve: Duration,
    /// Errors of a service that are failures, whatever their status.
    pub on_errors: ErrorSet,
    /// Errors of a service that are no failures, whatever their status. They win over all else.
    pub except_errors: ErrorSet,
    /// Who is tried first after an error of this kind, in this order. Such an error is a failure.
    pub error_targets: Vec<(ErrorKind, Vec<Target>)>,
    /// How long to wait before the same service is tried again.
    pub retry: Retry,
    /// The most attempts that a request makes; `None`: as many as its plan has.
    pub max_attempts: Option<usize>,
    /// How much of an answer is held before it goes to the client.
    pub deliver: Deliver,
    /// The most bytes of an answer that are held for [`Deliver::Complete`]. A longer one is passed on from there.
    pub max_held_bytes: usize,
    /// How long an answer that is held may pause between two packets; `None` for no limit.
    pub stream_idle_timeout: Option<Duration>,
    /// Whether and how a request may name models itself.
    pub client_models: Option<ClientModels>,
    /// What else a request may ask for, by header.
    pub client_controls: ClientControls,
}

/// How much of an answer is held before it goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// Up to its first packet.
    FirstPacket,
    /// All of it.
    Complete,
}

impl Fallback {
    /// Whether what a service says of its error makes a difference.
    #[must_use]
    pub fn reads_errors(&self) -> bool {
        !(self.on_errors.is_empty()
            && self.except_errors.is_empty()
            && self.error_targets.is_empty())
    }

    /// Whether there are services to try first after an error of this kind.
    #[must_use]
    pub fn has_targets_for(&self, kind: Option<ErrorKind>) -> bool {
        self.error_targets.iter().any(|(own, _)| Some(*own) == kind)
    }

    /// `None` where it is not enabled as well: all of it is checked, but it needs no services.
    pub(super) fn read(
        item: &Item<'_>,
        services: &Services,
        buffer_limit: u32,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = item.fields(problems, "an object with the field `services`", FIELDS)?;
        let enabled = fields.boolean(problems, "enabled", true);
        let client_models = fields.optional(problems, "client_models", ClientModels::read);
        let read_targets =
            |item: &Item<'_>, p: &mut Problems| Some(targets::read(item, services, p));
        let targets = if enabled && client_models.is_none() {
            fields.required(problems, "services", targets::EXPECTED, read_targets)
        } else {
            fields.optional(problems, "services", read_targets)
        };
        let client_controls = ClientControls::read(&fields, problems);
        let only_backend_errors = fields.boolean(problems, "only_backend_errors", false);
        let on_status = fields.optional(problems, "on_status", StatusSet::read);
        let on_errors = ErrorSet::read(&fields, "on_errors", problems);
        let except_errors = ErrorSet::read(&fields, "except_errors", problems);
        let error_targets = fields.optional(problems, "error_services", |item, p| {
            Some(targets::read_by_kind(item, services, p))
        });
        let max_attempts = fields.count(problems, "max_attempts", 1..=100, 0);
        let retry = fields.optional(problems, "retry", Retry::read);
        let timeouts = Timeouts::read(&fields, client_controls, problems);
        let deliver = match fields.word(problems, "deliver", &["first_packet", "complete"]) {
            Some("complete") => Deliver::Complete,
            _ => Deliver::FirstPacket,
        };
        let range = 1..=MAX_HELD_BYTES_LIMIT;
        // Half of the buffer: the other is for what comes in one piece.
        let default = (buffer_limit / 2).clamp(1, MAX_HELD_BYTES_LIMIT.unsigned_abs());
        let max_held_bytes =
            fields.within_buffer(problems, "max_held_bytes", range, default, buffer_limit);
        enabled.then_some(Fallback {
            targets: targets.unwrap_or_default(),
            only_backend_errors,
            on_status: on_status.unwrap_or(StatusSet::ALL),
            first_packet_timeout: timeouts.first_packet,
            request_timeout: timeouts.request,
            total_timeout: timeouts.total,
            reserve: timeouts.reserve,
            on_errors,
            except_errors,
            error_targets: error_targets.unwrap_or_default(),
            retry: retry.unwrap_or_default(),
            max_attempts: (max_attempts > 0).then_some(max_attempts as usize),
            deliver,
            max_held_bytes: max_held_bytes as usize,
            stream_idle_timeout: timeouts.stream_idle,
            client_models,
            client_controls,
        })
    }
}
