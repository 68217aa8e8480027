//! What one worker of Envoy knows: the configuration, and the streams under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::answer;
use super::cooldown::Cooling;
use super::deadlines::Timer;
use super::delivery::Held;
use super::host::{self, Token};
use super::lines::{self, Lines};
use super::metrics::{Load, Metrics};
use super::router;
use super::stream::Stream;
use crate::core::config::{Config, Dispatch};
use crate::core::fallback::Exchange;
use crate::core::outcome::Origin;
use crate::core::plan::{Health, Plan, Step};

/// Who makes a request fit the service that it goes to along Envoy's route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FittedBy {
    /// The attempt filter in the cluster of the service.
    AttemptFilter,
    /// The request filter, before the route is chosen.
    #[default]
    RequestFilter,
}

/// The state of one worker. It is single-threaded: every worker has its own VM.
pub struct Worker {
    /// The context of its plugin.
    pub root: u32,
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
    /// The clusters that were seen to have no attempt filter, and how often one had been seen there before. The empty name:
    /// that where the route decides.
    without_attempt_filter: RefCell<HashMap<String, u64>>,
    /// Named primaries whose route was looked at, in `dispatch: callout`.
    checked_routes: RefCell<HashSet<String>>,
    /// The largest body that takes the place of a held one, in bytes.
    pub exchange_limit: Cell<usize>,
    /// Envoy has called back a stream from within one of its own host calls.
    interrupted: Cell<bool>,
    /// Streams that ended within one of their own host calls.
    ended_within: RefCell<Vec<u32>>,
    timer: Timer,
    streams: RefCell<HashMap<u32, Rc<RefCell<Stream>>>>,
    calls: RefCell<HashMap<Token, u32>>,
}

impl Worker {
    /// A worker without streams.
    #[must_use]
    pub fn new(root: u32, config: Config, metrics: Metrics) -> Self {
        Self {
            root,
            by_router: by_router(&config),
            without_attempt_filter: RefCell::default(),
            cooling: cooling(&config),
            metrics,
            load: Load::default(),
            lines: Lines::default(),
            checked_routes: RefCell::default(),
            exchange_limit: Cell::new(match config.has_buffer_limit {
                true => config.buffer_limit_bytes,
                false => Held::SAFE_SIZE,
            }),
            interrupted: Cell::new(false),
            ended_within: RefCell::default(),
            timer: Timer::default(),
            streams: RefCell::default(),
            calls: RefCell::default(),
            config,
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

    /// Envoy calls back a stream from within one of its own host calls: it has answered by itself.
    pub fn interrupt(&self) {
        self.interrupted.set(true);
    }

    /// Forgets it.
    pub fn clear_interrupt(&self) {
        self.interrupted.set(false);
    }

    /// Whether that has happened since this was last asked.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.interrupted.take()
    }

    /// A stream ends within one of its own host calls, so what it waits for cannot be asked for.
    pub fn forget_later(&self, id: u32) {
        self.ended_within.borrow_mut().push(id);
    }

    fn forget_ended_within(&self, id: u32, stream: &Stream) {
        let ended = self.ended_within.take();
        if ended.contains(&id) {
            let (due, call) = stream.waits();
            self.forget(id, due, call);
        }
    }

    /// Envoy has answered `500` to a body of this size in the place of a held one: its limit is lower than the
    /// configuration says. From now on such answers go straight to the client.
    pub fn on_exchange_refused(&self, now: Duration, size: usize) {
        self.exchange_limit.set(Held::SAFE_SIZE);
        self.lines.answer_over_buffer_limit(now, size, &self.config);
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
                self.forget_ended_within(id, &stream.borrow());
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

    /// Who makes a request with this plan fit its services.
    ///
    /// Not the attempt filters after one of the clusters was seen to have none: nobody there takes away what belongs to the
    /// client, or to the service before. Clusters may come later than their listener, so it is looked for again.
    #[must_use]
    pub fn fitted_by(&self, plan: &Plan) -> FittedBy {
        if !self.by_router {
            return FittedBy::RequestFilter;
        }
        let mut without = self.without_attempt_filter.borrow_mut();
        if without.is_empty() {
            return FittedBy::AttemptFilter;
        }
        without.retain(|cluster, seen| self.attempt_filters(cluster) == *seen);
        let lacks = |step: &Step| without.contains_key(step.cluster().unwrap_or_default());
        match plan.steps().any(|(_, step)| lacks(step)) {
            true => FittedBy::RequestFilter,
            false => FittedBy::AttemptFilter,
        }
    }

    /// How often attempt filters of all workers have said that they are in a cluster.
    fn attempt_filters(&self, cluster: &str) -> u64 {
        let name = self.config.name_in_cluster(cluster);
        self.metrics.attempt_filters(name)
    }

    /// Whether an answer of a service, which came along Envoy's route to a request that was made to fit by `fitted_by`, was
    /// seen by no attempt filter. Where no attempt was made, a filter behind ours has answered.
    pub fn misses_attempt_filter(&self, fitted_by: FittedBy, plan: &Plan) -> bool {
        let is_missing = fitted_by == FittedBy::AttemptFilter
            && router::seen().is_none()
            && router::attempts_made() > 0;
        if is_missing {
            self.on_missing_attempt_filter(plan);
        }
        is_missing
    }

    /// Remembers, and tells once, that an answer of a service was seen by no attempt filter.
    fn on_missing_attempt_filter(&self, plan: &Plan) {
        let chosen = router::chosen_cluster();
        let cluster = known_cluster(plan, &chosen);
        let seen = self.attempt_filters(&cluster);
        let mut without = self.without_attempt_filter.borrow_mut();
        if without.insert(cluster, seen).is_none() {
            log::error!(
                "event=missing_attempt_filter cluster={chosen}: requests are served by callout until one is seen there; put \
                 the plugin with root_id ai_fallback_attempt first into the http_filters of the cluster"
            );
        }
    }

    /// An answer came along Envoy's route, in `dispatch: callout`: tells where the route leads elsewhere than to the named
    /// primary. To fit authority and path makes Envoy choose the route anew, and a virtual host may have domains of its
    /// own.
    pub fn check_route(&self, primary: &Step, origin: Origin) {
        let Some(service) = primary.service.as_ref().filter(|_| !self.by_router) else {
            return;
        };
        if origin == Origin::Gateway && answer::is_route_missing() {
            self.lines.no_route(host::now(), service);
            return;
        }
        // To ask costs a host call, so each service is looked at once.
        let is_new = !self.checked_routes.borrow().contains(&service.name);
        if origin == Origin::Service && is_new && router::attempts_made() > 0 {
            let chosen = router::chosen_cluster();
            let is_told = chosen == service.cluster
                || self.lines.other_cluster(host::now(), service, &chosen);
            if is_told {
                let mut checked = self.checked_routes.borrow_mut();
                checked.insert(service.name.clone());
            }
        }
    }

    /// An answer came while the request was held: Envoy's own, where its buffer is full.
    pub fn on_answer_to_held_request(&self, held: usize) {
        if answer::is_request_too_large() {
            self.lines.buffer_limit(host::now(), held, &self.config);
        }
    }

    /// The stream with this context id, made the one that host calls speak of.
    fn stream(&self, id: u32) -> Option<Rc<RefCell<Stream>>> {
        let stream = self.streams.borrow().get(&id).map(Rc::clone)?;
        host::enter(id).then_some(stream)
    }
}

/// The cluster that Envoy has chosen, as the plan knows it. One that it does not know was to be that of its first service:
/// the route's matcher lacks it.
fn known_cluster(plan: &Plan, chosen: &str) -> String {
    let mut clusters = plan.steps().filter_map(|(_, step)| step.cluster());
    let first = || plan.step(plan.first_usable()?)?.cluster();
    let found = clusters.find(|cluster| *cluster == chosen);
    found.or_else(first).unwrap_or_default().to_owned()
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
