//! What is counted and timed: the table in `docs/observability.md`.

use std::cell::Cell;
use std::time::Duration;

use super::host;
use super::stats::Stats;
use crate::core::plan::{Plan, Step};
use crate::core::progress::Progress;
use crate::core::result::{EndedAttempt, RequestResult};
use crate::core::trail::COOLING;

/// The outcome of an attempt whose client left.
pub const CANCELLED: &str = "cancelled";

/// What one worker counts and times, in one role.
#[derive(Debug)]
pub struct Metrics(Stats);

/// How much a worker has under way.
#[derive(Debug)]
pub struct Load {
    /// Requests that the filter acts on at the moment.
    pub active_requests: Gauge,
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

/// The metrics of services that cool. Workers share what they know of a service, so each sets the whole value, and the
/// last to write is right.
#[derive(Debug)]
pub struct CoolingMetrics {
    stats: Stats,
    services: Vec<CoolingService>,
}

#[derive(Debug)]
struct CoolingService {
    name: String,
    /// Whether its gauge may be 1.
    told: Cell<bool>,
}

impl Metrics {
    /// For a worker in this role, `request` or `attempt`.
    #[must_use]
    pub fn new(role: &str, configuration_version: u32) -> Self {
        let stats = Stats::default();
        let version = configuration_version.into();
        stats.set("configuration_version", &[("role", role)], version);
        Self(stats)
    }

    /// What became of a request.
    pub fn request(&self, api: &str, result: RequestResult) {
        let labels = [
            ("model_api", api),
            ("result", result.label()),
            ("reason", result.reason()),
        ];
        self.0.add("requests", &labels, 1);
    }

    /// Another service than the primary answered well, so long after the request began.
    pub fn fallback_delay(&self, api: &str, delay: Duration) {
        self.0
            .record("fallback_delay_ms", &[("model_api", api)], delay);
    }

    /// Counts an attempt that begins, where it is a retry or a fallback. False where it is neither.
    pub fn next_attempt(&self, plan: &Plan, progress: &Progress) -> bool {
        let (name, reason) = match progress.last().map(|ended| ended.outcome.label()) {
            Some(reason) if progress.is_repeat() => ("retries", reason),
            Some(reason) => ("fallbacks", reason),
            None if progress.is_elsewhere() => ("fallbacks", COOLING),
            None => return false,
        };
        let labels = [("model_api", plan.api().name.as_str()), ("reason", reason)];
        self.0.add(name, &labels, 1);
        true
    }

    /// An attempt has ended, or its answer goes on to the client.
    pub fn attempt(&self, plan: &Plan, ended: &EndedAttempt) {
        let Some(step) = plan.step(ended.number) else {
            return;
        };
        self.count_attempt(step, ended.outcome.label());
        if !ended.is_passing {
            self.attempt_time(step, ended.took);
        } else if plan.fallback().is_some() && !plan.delivers_complete() {
            let labels = [("model_service", step.name())];
            self.0.record("first_packet_ms", &labels, ended.took);
        }
    }

    /// The last byte of an attempt has come.
    pub fn attempt_time(&self, step: &Step, took: Duration) {
        let labels = [("model_service", step.name())];
        self.0.record("attempt_ms", &labels, took);
    }

    /// How an attempt ended.
    pub fn count_attempt(&self, step: &Step, outcome: &'static str) {
        let labels = [("model_service", step.name()), ("outcome", outcome)];
        self.0.add("attempts", &labels, 1);
    }

    /// An answer took so many tokens. `model` is a name from the configuration.
    pub fn tokens(&self, service: &str, token_type: &str, model: &str, count: u64) {
        let labels = [
            ("model_service", service),
            ("token_type", token_type),
            // It may hold dots, so it is always the last.
            ("model", model),
        ];
        self.0.add("tokens", &labels, count);
    }

    /// An attempt filter has seen a request in the cluster of a service.
    pub fn attempt_filter(&self, service: &str) {
        let labels = [("model_service", service)];
        self.0.add("attempt_filters", &labels, 1);
    }

    /// How often attempt filters have said so, in all workers.
    #[must_use]
    pub fn attempt_filters(&self, service: &str) -> u64 {
        let labels = [("model_service", service)];
        self.0.count("attempt_filters", &labels)
    }

    /// An answer to a callout that nobody waits for.
    pub fn unknown_answer(&self) {
        self.0.add("unknown_answers", &[], 1);
    }
}

impl Default for Load {
    fn default() -> Self {
        let stats = Stats::default();
        Self {
            active_requests: Gauge::new(&stats, "active_requests"),
            active_calls: Gauge::new(&stats, "active_calls"),
            deadlines: Gauge::new(&stats, "deadlines"),
            memory: Gauge::new(&stats, "memory_bytes"),
        }
    }
}

/// What a worker has told is taken back when it goes: with a new configuration, or a new VM.
impl Drop for Gauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Gauge {
    fn new(stats: &Stats, name: &str) -> Self {
        Self {
            id: stats.gauge(name),
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

impl CoolingMetrics {
    /// For these services.
    #[must_use]
    pub fn new(services: Vec<String>) -> Self {
        let services = services.into_iter().map(|name| CoolingService {
            name,
            // A worker that ended badly may have left it at 1.
            told: Cell::new(true),
        });
        let metrics = Self {
            stats: Stats::default(),
            services: services.collect(),
        };
        // Prometheus sees growth only in a counter that was there before.
        for service in &metrics.services {
            metrics.count_cooldowns(&service.name, 0);
        }
        metrics
    }

    /// A service began to cool.
    pub fn cooldown(&self, service: &str) {
        self.count_cooldowns(service, 1);
    }

    fn count_cooldowns(&self, service: &str, count: u64) {
        let labels = [("model_service", service)];
        self.stats.add("cooldowns", &labels, count);
    }

    /// Sets the gauge of each service that cools to 1, and of each that has ceased to cool to 0. Returns whether one
    /// cools.
    pub fn show(&self, cools: &dyn Fn(&str) -> bool) -> bool {
        let mut any = false;
        for service in &self.services {
            let cools = cools(&service.name);
            any |= cools;
            // A 1 is told again and again: another worker may have gone, and taken it back.
            if service.told.replace(cools) || cools {
                let labels = [("model_service", service.name.as_str())];
                self.stats.set("cooling", &labels, u64::from(cools));
            }
        }
        any
    }
}

/// Where a service still cools, another worker or the next configuration says so again within a second.
impl Drop for CoolingMetrics {
    fn drop(&mut self) {
        self.show(&|_| false);
    }
}
