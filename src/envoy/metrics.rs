//! Metrics in Envoy's own stats: `wasmcustom.ai_fallback.NAME`.

use std::cell::Cell;

use proxy_wasm::types::MetricType;

use super::host;
use crate::core::plan::Plan;
use crate::core::progress::Progress;
use crate::core::reply::Problem;

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
    retries: Option<u32>,
    refused: Option<u32>,
    denied: Option<u32>,
    loops: Option<u32>,
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

/// The metrics of services that cool. Defined only where a cooldown is configured.
#[derive(Debug)]
pub struct CoolingMetrics {
    cooldowns: Option<u32>,
    cooling: ServiceGauges,
    /// Whether a gauge may be 1.
    told: Cell<bool>,
}

/// A gauge for each service. All workers know the same of a service, so that each sets the whole value:
/// the one that speaks last is right.
#[derive(Debug)]
struct ServiceGauges(Vec<(String, Option<u32>)>);

impl Metrics {
    /// Defines the metrics, or finds those that another worker has defined.
    #[must_use]
    pub fn define() -> Self {
        Self {
            requests: counter("requests"),
            fallbacks: counter("fallbacks"),
            retries: counter("retries"),
            refused: counter("refused"),
            denied: counter("denied"),
            loops: counter("loops"),
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

    /// An attempt begins, at a fallback service or at the same one again. The first of a request is not told.
    pub fn next_attempt(&self, plan: &Plan, progress: &Progress) {
        let Some(step) = plan
            .step(progress.current())
            .filter(|_| progress.made() > 0)
        else {
            return;
        };
        let (counter, event) = match progress.is_repeat() {
            true => (self.retries, "retry"),
            false => (self.fallbacks, "fallback"),
        };
        add(counter);
        log::info!(
            "event={event} api={} attempts=\"{}\" next={}",
            plan.api().name,
            progress.trail().as_str(),
            step.name()
        );
    }

    /// A request that the filter answered with an error.
    pub fn refused(&self, problem: &Problem) {
        add(match problem {
            Problem::Denied(_) | Problem::Unreadable => self.denied,
            Problem::Loop => self.loops,
            _ => self.refused,
        });
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

impl CoolingMetrics {
    /// Defines the metrics of these services.
    #[must_use]
    pub fn define(services: Vec<String>) -> Self {
        Self {
            cooldowns: counter("cooldowns"),
            cooling: ServiceGauges::define("cooling.SERVICE", services),
            // By a worker that was here before, and did not end well.
            told: Cell::new(true),
        }
    }

    /// A service began to cool.
    pub fn cooldown(&self) {
        add(self.cooldowns);
    }

    /// As [`CoolingMetrics::show`], where there is anything to tell: most of the time there is not.
    /// Returns whether a service cools.
    pub fn refresh(&self, cools: &dyn Fn(&str) -> bool) -> bool {
        let any = self.cooling.0.iter().any(|(service, _)| cools(service));
        if any || self.told.get() {
            self.show(cools);
        }
        any
    }

    /// Sets the gauge of each service: 1 while it cools, 0 while it does not.
    pub fn show(&self, cools: &dyn Fn(&str) -> bool) {
        self.told.set(false);
        for (service, id) in &self.cooling.0 {
            let cools = cools(service);
            self.told.set(self.told.get() || cools);
            set(*id, u64::from(cools));
        }
    }
}

impl ServiceGauges {
    /// `SERVICE` at the end of `name` stands for the name of a service.
    fn define(name: &str, services: Vec<String>) -> Self {
        let prefix = name.strip_suffix("SERVICE").unwrap_or(name);
        let gauge = |service: String| {
            let id = define(MetricType::Gauge, &format!("{prefix}{service}"));
            (service, id)
        };
        Self(services.into_iter().map(gauge).collect())
    }
}

/// Where a service still cools, another worker or the next configuration says so again within a second.
impl Drop for CoolingMetrics {
    fn drop(&mut self) {
        self.show(&|_| false);
    }
}

fn counter(name: &str) -> Option<u32> {
    define(MetricType::Counter, name)
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    host::define_metric(kind, &format!("ai_fallback.{name}"))
}

fn set(gauge: Option<u32>, value: u64) {
    if let Some(id) = gauge {
        host::set_metric(id, value);
    }
}

fn add(counter: Option<u32>) {
    if let Some(id) = counter {
        host::add_to_metric(id, 1);
    }
}
