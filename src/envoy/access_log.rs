//! What access logs and traces can tell of a request, with `telemetry.access_log`. Seen with Envoy 1.36, 1.39 and 1.40.
//!
//! `set_property(["NAME"])` writes the filter state `wasm.NAME`. An access log reads it by
//! `%FILTER_STATE(wasm.NAME:PLAIN)%`, and from Envoy 1.37 on so do the tags of a trace.

use std::borrow::Cow;

use super::host;
use crate::core::fallback::Exchange;
use crate::core::result::RequestResult;

/// What is known of a request. What is empty is not written: each costs a host call.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    /// The name of the Model API.
    pub api: &'a str,
    /// What became of the request.
    pub result: &'a str,
    /// The service that answered, where a named one did.
    pub service: &'a str,
    /// The model name that this service was sent.
    pub model: &'a str,
    /// The trail of attempts.
    pub attempts: &'a str,
    /// Why the request did not end with its first attempt, or got none.
    pub reason: &'a str,
}

impl Entry<'_> {
    /// Writes it down. Only while the stream lives; `on_log` is the last chance.
    pub fn write(&self) {
        let fields = [
            ("ai_fallback.api", self.api),
            ("ai_fallback.result", self.result),
            ("ai_fallback.service", self.service),
            ("ai_fallback.model", self.model),
            ("ai_fallback.attempts", self.attempts),
            ("ai_fallback.reason", self.reason),
        ];
        for (name, value) in fields {
            if !value.is_empty() {
                host::set_property(&[name], on_one_line(value).as_bytes());
            }
        }
    }
}

/// Text whose control characters are replaced: the name of a model comes from the client, and a log may be read line by
/// line.
fn on_one_line(text: &str) -> Cow<'_, str> {
    let breaks = |letter: char| letter.is_control() || ['\u{2028}', '\u{2029}'].contains(&letter);
    match text.contains(breaks) {
        true => Cow::Owned(text.replace(breaks, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

impl<'a> Entry<'a> {
    /// All but the Model API, which was told when the request began.
    #[must_use]
    pub fn of(exchange: &'a Exchange, result: RequestResult) -> Self {
        Self {
            api: "",
            result: result.label(),
            service: exchange.answered_by().unwrap_or_default(),
            model: exchange.answered_with().unwrap_or_default(),
            attempts: exchange.trail().as_str(),
            reason: exchange.reason().unwrap_or_default(),
        }
    }
}
