//! How many tokens an answer took, read as it passes, for metrics and access logs. Only with `telemetry.token_usage`.

use super::host;
use super::metrics::Metrics;
use crate::core::config::Telemetry;
use crate::core::outcome::Outcome;
use crate::core::usage::UsageReader;

/// Reads the answer that goes to the client.
#[derive(Debug, Default)]
pub struct Meter(UsageReader);

/// Whose tokens they are, as metrics name it.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The service.
    pub service: &'a str,
    /// The configured name of the model; `None`: it has none.
    pub model: Option<&'a str>,
}

impl Meter {
    /// A meter for an answer with this outcome. `None` where nothing is to be read, as an error takes no tokens.
    #[must_use]
    pub fn of(telemetry: Telemetry, outcome: Outcome) -> Option<Self> {
        let is_good = matches!(outcome, Outcome::Status(200..300));
        (telemetry.token_usage && is_good).then(Self::default)
    }

    /// More of the answer goes on to the client: the first `size` bytes of the buffer. Only in the phase of the response
    /// body or trailers.
    pub fn on_body(&mut self, size: usize) {
        if self.0.wants_more() {
            self.0.feed(&host::response_body((0, size)));
        }
    }

    /// The answer is here, and goes on at once.
    pub fn on_whole(&mut self, body: &[u8]) {
        self.0.feed(body);
    }

    /// The answer has ended, well or not: what it has said by then counts. Before the stream is gone.
    pub fn tell(&self, metrics: &Metrics, telemetry: Telemetry, account: Account<'_>) {
        let Some(usage) = self.0.usage() else {
            return;
        };
        let counts = [
            ("prompt", "ai_fallback.prompt_tokens", usage.prompt),
            (
                "completion",
                "ai_fallback.completion_tokens",
                usage.completion,
            ),
            ("cached", "ai_fallback.cached_tokens", usage.cached),
        ];
        for (kind, key, count) in counts {
            let Some(count) = count else {
                continue;
            };
            let model = account.model.unwrap_or("pass-through");
            metrics.tokens(account.service, kind, model, count);
            if telemetry.access_log {
                host::set_property(&[key], count.to_string().as_bytes());
            }
        }
    }
}
