//! Metrics in Envoy's own stats: `wasmcustom.ai_fallback.NAME`.

use std::cell::Cell;

use proxy_wasm::types::MetricType;

use super::host;

/// Why a request to a Model API goes to its primary unread.
#[derive(Debug, Clone, Copy)]
pub enum Skip {
    /// The body is larger than `max_body_bytes`.
    TooLarge,
    /// `content-encoding` says that the body is compressed.
    Compressed,
    /// The body is not JSON by its `content-type`.
    NotJson,
}

impl Skip {
    /// The reason as metrics and the trail have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Compressed => "compressed",
            Self::NotJson => "not_json",
        }
    }
}

/// The metrics of one worker.
#[derive(Debug)]
pub struct Metrics {
    requests: Option<u32>,
    fallbacks: Option<u32>,
    refused: Option<u32>,
    unknown_answers: Option<u32>,
    skipped_too_large: Option<u32>,
    skipped_compressed: Option<u32>,
    skipped_not_json: Option<u32>,
    /// Streams that the filter acts on.
    pub active_streams: Gauge,
    /// Callouts under way.
    pub active_calls: Gauge,
    /// Deadlines in the table.
    pub deadlines: Gauge,
    /// Memory of the VM, in bytes.
    pub memory: Gauge,
}

/// A gauge that all workers share: each adds what changed in its own part.
#[derive(Debug)]
pub struct Gauge {
    id: Option<u32>,
    told: Cell<i64>,
}

impl Metrics {
    /// Defines the metrics, or finds those that another worker has defined.
    #[must_use]
    pub fn define() -> Self {
        Self {
            requests: counter("requests"),
            fallbacks: counter("fallbacks"),
            refused: counter("refused"),
            unknown_answers: counter("unknown_answers"),
            skipped_too_large: counter("skipped.too_large"),
            skipped_compressed: counter("skipped.compressed"),
            skipped_not_json: counter("skipped.not_json"),
            active_streams: Gauge::define("active_streams"),
            active_calls: Gauge::define("active_calls"),
            deadlines: Gauge::define("deadlines"),
            memory: Gauge::define("memory_bytes"),
        }
    }

    /// A request that the filter acts on.
    pub fn request(&self) {
        add(self.requests);
    }

    /// An attempt at a fallback service.
    pub fn fallback(&self) {
        add(self.fallbacks);
    }

    /// A request that the filter answered with an error, since its body cannot be used.
    pub fn refused(&self) {
        add(self.refused);
    }

    /// An answer to a callout that nobody waits for.
    pub fn unknown_answer(&self) {
        add(self.unknown_answers);
    }

    /// A request to a Model API that went to its primary unread.
    pub fn skipped(&self, reason: Skip) {
        add(match reason {
            Skip::TooLarge => self.skipped_too_large,
            Skip::Compressed => self.skipped_compressed,
            Skip::NotJson => self.skipped_not_json,
        });
    }
}

/// What a worker has told is taken back when it goes: with a new configuration, or a new VM.
impl Drop for Gauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Gauge {
    fn define(name: &str) -> Self {
        Self {
            id: define(MetricType::Gauge, name),
            told: Cell::new(0),
        }
    }

    /// Tells Envoy the value of this worker's part.
    pub fn set(&self, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        if let Some(id) = self.id {
            host::add_to_metric(id, value - self.told.replace(value));
        }
    }
}

fn counter(name: &str) -> Option<u32> {
    define(MetricType::Counter, name)
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    host::define_metric(kind, &format!("ai_fallback.{name}"))
}

fn add(counter: Option<u32>) {
    if let Some(id) = counter {
        host::add_to_metric(id, 1);
    }
}
