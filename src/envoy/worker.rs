//! What one worker of Envoy knows: the configuration, and the streams under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use super::cooldown::Cooling;
use super::deadlines::Timer;
use super::host::{self, Token};
use super::lines::{self, Lines};
use super::metrics::{Load, Metrics};
use super::router;
use super::stream::Stream;
use crate::core::config::{Config, Dispatch};
use crate::core::fallback::Exchange;
use crate::core::plan::{Health, Plan};

/// The state of one worker. It is single-threaded: every worker has its own VM.
pub struct Worker {
    /// The checked configuration.
    pub config: Config,
    /// The metrics.
    pub metrics: Metrics,
    load: Load,
    /// The log lines of requests.
    pub lines: Lines,
    /// The services that are skipped for a time; `None`: none ever is.
    pub cooling: Option<Cooling>,
    /// Fallbacks are made by Envoy's router.
    pub by_router: bool,
    missing_attempt_filter: Cell<bool>,
    timer: Timer,
    streams: RefCell<HashMap<u32, Rc<RefCell<Stream>>>>,
    calls: RefCell<HashMap<Token, u32>>,
}

impl Worker {
    /// A worker without streams.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self {
            by_router: by_router(&config),
            missing_attempt_filter: Cell::new(false),
            cooling: cooling(&config),
            config,
            metrics,
            load: Load::default(),
            lines: Lines::default(),
            timer: Timer::default(),
            streams: RefCell::default(),
            calls: RefCell::default(),
        }
    }

    /// Takes in a stream that the filter acts on, and starts the ticks, which bring the gauges up to date.
    pub fn admit(&self, now: Duration, id: u32, stream: Stream) -> Rc<RefCell<Stream>> {
        let stream = Rc::new(RefCell::new(stream));
        self.streams.borrow_mut().insert(id, Rc::clone(&stream));
        self.timer.tick_anyway(now);
        stream
    }

    /// Lets go of a stream that has ended. Envoy 1.40 does not cancel its callout; nobody waits for the
    /// answer any more.
    pub fn forget(&self, id: u32, due: Option<Duration>, call: Option<Token>) {
        self.streams.borrow_mut().remove(&id);
        self.change_deadline(Duration::ZERO, id, due, None);
        if let Some(token) = call {
            self.calls.borrow_mut().remove(&token);
        }
    }

    /// Remembers which stream waits for the answer of a callout.
    pub fn expect_answer(&self, token: Token, stream: u32) {
        self.calls.borrow_mut().insert(token, stream);
    }

    /// Moves the deadline of a stream.
    pub fn change_deadline(
        &self,
        now: Duration,
        stream: u32,
        from: Option<Duration>,
        to: Option<Duration>,
    ) {
        self.timer.change(now, stream, from, to);
    }

    /// Hands the answer of a callout to its stream.
    ///
    /// The SDK hands it to the context that was active when the callout began: the stream's own, or
    /// the root's if that was in a tick. Both lead here.
    pub fn on_call_answer(&self, token: Token, body_size: usize) {
        let id = self.calls.borrow_mut().remove(&token);
        match id.and_then(|id| self.stream(id)) {
            Some(stream) => stream.borrow_mut().on_call_answer(body_size),
            None => self.metrics.unknown_answer(),
        }
    }

    /// Tells every stream whose time has come, and sets the next tick.
    pub fn on_tick(&self) {
        let now = host::now();
        while let Some(id) = self.timer.pop(now) {
            if let Some(stream) = self.stream(id) {
                stream.borrow_mut().on_due();
            }
        }
        self.load.active_requests.set(self.streams.borrow().len());
        self.load.active_calls.set(self.calls.borrow().len());
        self.load.deadlines.set(self.timer.len());
        self.load.memory.set(memory_bytes());
        let cooling = self.cooling.as_ref().is_some_and(Cooling::refresh);
        // Ticks go on until one finds no stream, and no service that cools. Else the gauges would keep their last values.
        let is_idle = self.streams.borrow().is_empty() && !cooling;
        self.timer.after_tick(now, !is_idle);
    }

    /// Takes in what all workers know of the services in a plan.
    pub fn check_health(&self, plan: &mut Plan) {
        let Some(cooling) = &self.cooling else {
            return;
        };
        let table = cooling.read();
        let now = host::wall_now();
        plan.check_health(
            |service, is_first| match table.cooling_until(service, now) {
                Some(until) => (Health::Cooling, until),
                None if !table.is_troubled(service) => (Health::Good, now),
                // Another request finds out whether it is well again. One that has come down to it has no choice.
                None if is_first && !cooling.begin_probe(service) => (Health::Cooling, now),
                None => (Health::Troubled, now),
            },
        );
    }

    /// Lets another request find out about a service.
    pub fn give_back_probe(&self, service: &str) {
        if let Some(cooling) = &self.cooling {
            cooling.give_back_probe(service);
        }
    }

    /// An attempt begins.
    pub fn on_attempt(&self, now: Duration, exchange: &Exchange) {
        let (plan, progress) = (exchange.plan(), exchange.progress());
        lines::on_attempt(&self.metrics, &self.lines, now, plan, progress);
    }

    /// Tells all workers what attempts say about the health of their services.
    pub fn report(&self, exchange: &mut Exchange) {
        let Some(cooling) = &self.cooling else {
            return;
        };
        let reports = exchange.take_reports();
        if !reports.is_empty() {
            cooling.report(&reports);
        }
    }

    /// Whether fallbacks of new requests are left to Envoy's router. Not after an attempt was seen to miss
    /// its filter: nothing takes back there what belongs to the service before.
    #[must_use]
    pub fn leaves_fallback_to_router(&self) -> bool {
        self.by_router && !self.missing_attempt_filter.get()
    }

    /// Tells once that an answer of a service was seen by no attempt filter.
    pub fn on_missing_attempt_filter(&self) {
        if !self.missing_attempt_filter.replace(true) {
            log::error!(
                "event=missing_attempt_filter cluster={}: serving by callout; put the plugin with root_id \
                 ai_fallback_attempt first into the http_filters of the cluster",
                String::from_utf8_lossy(&router::chosen_cluster())
            );
        }
    }

    /// The stream with this context id, made the one that host calls speak of.
    fn stream(&self, id: u32) -> Option<Rc<RefCell<Stream>>> {
        let stream = self.streams.borrow().get(&id).map(Rc::clone)?;
        host::enter(id).then_some(stream)
    }
}

fn cooling(config: &Config) -> Option<Cooling> {
    let names = config.services.iter().map(|service| service.name.clone());
    Some(Cooling::new(config.cooldown?, names.collect()))
}

fn by_router(config: &Config) -> bool {
    let wanted = config.dispatch == Dispatch::Router;
    if wanted && !router::is_supported() {
        log::error!(
            "event=router_not_supported: serving by callout; dispatch: router needs Envoy 1.39"
        );
        return false;
    }
    wanted
}

#[cfg(target_arch = "wasm32")]
fn memory_bytes() -> usize {
    const PAGE: usize = 65_536;
    core::arch::wasm32::memory_size(0) * PAGE
}

#[cfg(not(target_arch = "wasm32"))]
fn memory_bytes() -> usize {
    0
}
