//! Metrics in Envoy's own stats, `wasmcustom.ai_fallback.NAME.LABEL=VALUE…`, each defined when it is first used.
//!
//! Labels are part of the name, since a Wasm filter has no others (Envoy 1.40). `stats_tags` in Envoy's
//! configuration make Prometheus labels of them: `envoy/callout.yaml`.

use std::cell::RefCell;
use std::time::Duration;

use hashbrown::HashMap;

use super::host;
use crate::host::MetricKind;

/// A label and its value: one of a fixed set of words, or a name from the configuration, and never anything that a
/// client sent. Envoy never drops a metric, so there must be a limit to them. A label with an empty value is left out.
pub type Label<'a> = (&'a str, &'a str);

/// The metrics of one worker.
#[derive(Debug, Default)]
pub struct Stats {
    /// By their whole name. `None`: Envoy has no room for it.
    known: RefCell<HashMap<String, Option<u32>>>,
    /// Where a name is put together.
    name: RefCell<String>,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(&self, name: &str, labels: &[Label<'_>], count: u64) {
        if let Some(id) = self.id(MetricKind::Counter, name, labels) {
            host::add_to_metric(id, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets a gauge that all workers have the same value for.
    pub fn set(&self, name: &str, labels: &[Label<'_>], value: u64) {
        if let Some(id) = self.id(MetricKind::Gauge, name, labels) {
            host::set_metric(id, value);
        }
    }

    /// The value of a counter.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[Label<'_>]) -> u64 {
        let id = self.id(MetricKind::Counter, name, labels);
        id.map_or(0, host::metric)
    }

    /// Adds a time to a histogram, in milliseconds.
    pub fn record(&self, name: &str, labels: &[Label<'_>], time: Duration) {
        if let Some(id) = self.id(MetricKind::Histogram, name, labels) {
            host::set_metric(id, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// The gauge of this name.
    #[must_use]
    pub fn gauge(&self, name: &str) -> Option<u32> {
        self.id(MetricKind::Gauge, name, &[])
    }

    fn id(&self, kind: MetricKind, name: &str, labels: &[Label<'_>]) -> Option<u32> {
        let mut whole = self.name.borrow_mut();
        whole.clear();
        whole.push_str("ai_fallback.");
        whole.push_str(name);
        for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            for part in [".", label, "=", value] {
                whole.push_str(part);
            }
        }
        let mut known = self.known.borrow_mut();
        if let Some(id) = known.get(whole.as_str()) {
            return *id;
        }
        let id = host::define_metric(kind, &whole);
        known.insert(whole.clone(), id);
        id
    }
}
