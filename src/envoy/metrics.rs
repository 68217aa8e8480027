//! What is counted and timed: the table in `docs/observability.md`.

use std::cell::Cell;
use std::time::Duration;

use super::host;
use super::stats::Stats;
use crate::core::plan::{Plan, Step};
use crate::core::progress::Progress;
use crate::core::result::{EndedAttempt, RequestResult};

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
    stats: Stats,
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

/// The metrics of services that cool. All workers know the same of a service, so that each sets the whole value:
/// the one that speaks last is right.
#[derive(Debug)]
pub struct CoolingMetrics {
    stats: Stats,
    services: Vec<String>,
    /// Whether a gauge may be 1.
    told: Cell<bool>,
}

impl Metrics {
    /// For a worker in this role, `request` or `attempt`.
    #[must_use]
    pub fn new(role: &str, configuration_version: u32) -> Self {
        let stats = Stats::default();
        let version = configuration_version.into();
        stats.set("configuration_version", &[("role", role)], version);
        Self {
            active_requests: Gauge::new(&stats, "active_requests"),
            active_calls: Gauge::new(&stats, "active_calls"),
            deadlines: Gauge::new(&stats, "deadlines"),
            memory: Gauge::new(&stats, "memory_bytes"),
            stats,
        }
    }

    /// What became of a request.
    pub fn request(&self, api: &str, result: RequestResult) {
        self.count_request(api, result.label(), result.reason());
    }

    /// A request to a Model API that goes to its primary unread.
    pub fn skipped(&self, api: &str, reason: Skip) {
        self.count_request(api, "skipped", Some(reason.label()));
    }

    fn count_request(&self, api: &str, result: &str, reason: Option<&str>) {
        let labels = [
            ("model_api", api),
            ("result", result),
            ("reason", reason.unwrap_or_default()),
        ];
        let known = labels.get(..2 + usize::from(reason.is_some()));
        self.stats.add("requests", known.unwrap_or_default(), 1);
    }

    /// Another service than the primary answered well, so long after the request began.
    pub fn fallback_delay(&self, api: &str, delay: Duration) {
        self.stats
            .record("fallback_delay_ms", &[("model_api", api)], delay);
    }

    /// An attempt begins that is not at the primary, or not the first there. False: it is no such attempt.
    pub fn next_attempt(&self, plan: &Plan, progress: &Progress) -> bool {
        let (name, reason) = match progress.last().map(|ended| ended.outcome.label()) {
            Some(reason) if progress.is_repeat() => ("retries", reason),
            Some(reason) => ("fallbacks", reason),
            None if progress.is_elsewhere() => ("fallbacks", "cooling"),
            None => return false,
        };
        let labels = [("model_api", plan.api().name.as_str()), ("reason", reason)];
        self.stats.add(name, &labels, 1);
        true
    }

    /// An attempt has ended, or its answer goes on to the client.
    pub fn attempt(&self, plan: &Plan, ended: &EndedAttempt) {
        let Some(step) = plan.step(ended.number) else {
            return;
        };
        self.count_attempt(step, ended.outcome.label());
        if !ended.goes_on {
            self.attempt_time(step, ended.took);
        } else if !plan.delivers_complete() {
            let labels = [("model_service", step.name())];
            self.stats.record("first_packet_ms", &labels, ended.took);
        }
    }

    /// The last byte of an attempt has come.
    pub fn attempt_time(&self, step: &Step, took: Duration) {
        let labels = [("model_service", step.name())];
        self.stats.record("attempt_ms", &labels, took);
    }

    /// How an attempt ended.
    pub fn count_attempt(&self, step: &Step, outcome: &'static str) {
        let labels = [("model_service", step.name()), ("outcome", outcome)];
        self.stats.add("attempts", &labels, 1);
    }

    /// An answer took so many tokens. `model` is a name from the configuration.
    pub fn tokens(&self, service: &str, token_type: &str, model: &str, count: u64) {
        let labels = [
            ("model_service", service),
            ("token_type", token_type),
            // It may hold dots, so it is always the last.
            ("model", model),
        ];
        self.stats.add("tokens", &labels, count);
    }

    /// An answer to a callout that nobody waits for.
    pub fn unknown_answer(&self) {
        self.stats.add("unknown_answers", &[], 1);
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
        let metrics = Self {
            stats: Stats::default(),
            services,
            // By a worker that was here before, and did not end well.
            told: Cell::new(true),
        };
        // From nothing to 1 would be no growth to Prometheus.
        let services = metrics.services.iter();
        services.for_each(|service| metrics.count_cooldowns(service, 0));
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

    /// As [`CoolingMetrics::show`], where there is anything to tell: most of the time there is not.
    /// Returns whether a service cools.
    pub fn refresh(&self, cools: &dyn Fn(&str) -> bool) -> bool {
        let any = self.services.iter().any(|service| cools(service));
        if any || self.told.get() {
            self.show(cools);
        }
        any
    }

    /// Sets the gauge of each service: 1 while it cools, 0 while it does not.
    pub fn show(&self, cools: &dyn Fn(&str) -> bool) {
        self.told.set(false);
        for service in &self.services {
            let cools = cools(service);
            self.told.set(self.told.get() || cools);
            let labels = [("model_service", service.as_str())];
            self.stats.set("cooling", &labels, u64::from(cools));
        }
    }
}

/// Where a service still cools, another worker or the next configuration says so again within a second.
impl Drop for CoolingMetrics {
    fn drop(&mut self) {
        self.show(&|_| false);
    }
}
