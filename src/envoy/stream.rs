//! One HTTP stream that the filter acts on: carries out what the core decides.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::Action;

use super::access_log::Entry;
use super::answer::{self, ATTEMPTS_HEADER, Answer, SERVICE_HEADER};
use super::delivery::{Delivery, From, Held};
use super::host::{self, Token};
use super::metrics::CANCELLED;
use super::router::{self, RETRY_HEADER, Seen};
use super::tokens::{Account, Meter};
use super::worker::{FittedBy, Worker};
use crate::core::answer_headers;
use crate::core::fallback::{Effect, Event, Exchange};
use crate::core::fit::{self, Forwarding, Header};
use crate::core::outcome::{Origin, Outcome};
use crate::core::reply::{Problem, Reply, Shape};
use crate::core::request::RequestBody;
use crate::core::result::RequestResult;
use crate::core::retry_after;
use crate::host::{BodyOf, MapOf};

/// The request as the client sent it, kept while a fallback may need it.
#[derive(Debug)]
pub struct Original {
    /// Who makes it fit the service that it goes to along Envoy's route.
    pub fitted_by: FittedBy,
    /// All headers, with the pseudo headers.
    pub headers: Vec<Header>,
    /// How it is forwarded.
    pub forwarding: Forwarding,
    /// The whole body.
    pub body: Vec<u8>,
    /// What the body says.
    pub parsed: RequestBody,
}

/// One stream.
pub struct Stream {
    id: u32,
    worker: Rc<Worker>,
    exchange: Exchange,
    shape: Shape,
    fitted_by: FittedBy,
    holds_request: bool,
    original: Option<Original>,
    held: Held,
    /// An answer that is to take the place of the routed one.
    ready: Option<Answer>,
    /// When to look again how it can.
    ready_due: Option<Duration>,
    /// Reads the routed answer that the client gets.
    meter: Option<Meter>,
    /// The callout under way.
    call: Option<Token>,
    /// The deadline that the worker has for this stream.
    due: Option<Duration>,
    /// A good routed answer passes on to the client.
    is_passing: bool,
    /// How many attempts had ended when one was last told to begin. In router mode it may be made by a callout then.
    told_at: Option<usize>,
}

impl Stream {
    /// A stream whose request begins.
    #[must_use]
    pub fn new(
        now: Duration,
        id: u32,
        worker: Rc<Worker>,
        exchange: Exchange,
        shape: Shape,
        original: Original,
    ) -> Self {
        let fitted_by = original.fitted_by;
        // An attempt filter that has another configuration stops the attempt, which is made by a callout then.
        let may_be_stopped = fitted_by == FittedBy::AttemptFilter;
        let original = (exchange.may_call() || may_be_stopped).then_some(original);
        let mut stream = Self {
            id,
            worker,
            exchange,
            shape,
            fitted_by,
            holds_request: false,
            original,
            held: Held::default(),
            ready: None,
            ready_due: None,
            meter: None,
            call: None,
            due: None,
            is_passing: false,
            told_at: None,
        };
        stream.update_deadline(now);
        stream
    }

    /// Whether what is left of the request is held, since it does not go along Envoy's route.
    #[must_use]
    pub fn holds_request(&self) -> bool {
        self.holds_request
    }

    /// Takes from the trailers of the request what its service is not to have.
    pub fn fit_trailers(&self) {
        let step = self.exchange.current().filter(|_| !self.holds_request);
        if let Some(step) = step.filter(|_| self.fitted_by == FittedBy::RequestFilter) {
            host::remove_trailers(|name| step.withholds_trailer(name));
        }
    }

    /// Carries out what the request begins with. `Pass`: it goes along Envoy's route.
    pub fn begin(&mut self, now: Duration, effect: Effect) -> Action {
        self.holds_request = effect != Effect::Pass;
        if effect == Effect::Pass {
            self.on_attempt(now);
            return Action::Continue;
        }
        self.carry_out(now, effect)
    }

    /// An attempt begins.
    fn on_attempt(&mut self, now: Duration) {
        let ended = self.exchange.progress().made();
        if self.told_at.replace(ended) != Some(ended) {
            self.worker.on_attempt(now, &self.exchange);
        }
    }

    /// The headers of the routed answer came.
    pub fn on_response_headers(&mut self, end: bool) -> Action {
        if self.exchange.is_over() {
            return Action::Continue;
        }
        self.held.headers = true;
        let is_routers = self.exchange.is_by_router() && self.exchange.is_routed();
        let action = match is_routers {
            true => self.on_router_answer(end),
            false => self.on_routed_answer(end),
        };
        self.held.ended = end;
        self.deliver_at_end(end);
        action
    }

    /// An answer was made ready before it was known that the routed one has ended. It is given in the next tick, since the
    /// callback under way is about to hold the routed one.
    fn deliver_at_end(&mut self, end: bool) {
        if end && self.ready.is_some() {
            let now = host::now();
            self.ready_due = Some(now);
            self.update_deadline(now);
        }
    }

    fn on_routed_answer(&mut self, end: bool) -> Action {
        if self.fitted_by == FittedBy::AttemptFilter && router::is_not_made() {
            host::remove_header(MapOf::ResponseHeaders, RETRY_HEADER);
            return self.on_event(&Event::Abandoned);
        }
        let status = host::header(MapOf::ResponseHeaders, ":status");
        let status = answer::status(status.as_deref());
        let origin = answer::routed_origin(status);
        self.held.is_envoys = origin != Origin::Service;
        // An answer that was given up for another says nothing of the attempt under way.
        if self.exchange.is_routed() {
            self.look_at_way(origin);
        }
        self.on_event(&Event::Headers {
            origin,
            status,
            retry_after: self.retry_after(status, MapOf::ResponseHeaders),
            end,
        })
    }

    /// Looks whether the routed answer came the way that it should.
    fn look_at_way(&mut self, origin: Origin) {
        if let Some(step) = self.exchange.current() {
            self.worker.check_route(step, origin);
        }
        if origin == Origin::Service
            && self
                .worker
                .misses_attempt_filter(self.fitted_by, self.exchange.plan())
        {
            // Nobody else keeps the time of this answer.
            self.exchange.keep_time();
        }
    }

    /// How long the service asks to be left alone, where that makes a difference.
    fn retry_after(&self, status: u16, map: MapOf) -> Option<Duration> {
        let repeats = self.exchange.current().is_some_and(|step| step.retries > 0);
        let counts = repeats || self.worker.cooling.is_some();
        if status < 400 || !counts {
            return None;
        }
        retry_after::read(|name| host::header(map, name), host::wall_now())
    }

    /// The answer of Envoy's router, after all the attempts that it made.
    fn on_router_answer(&mut self, end: bool) -> Action {
        let map = MapOf::ResponseHeaders;
        if router::seen() == Some(Seen::Settled) {
            self.original = None;
            let now = host::now();
            if self.worker.cooling.is_some() || self.worker.config.telemetry.is_on() {
                self.take_over();
            }
            self.exchange.step(now, &Event::Settled);
            self.begin_to_measure();
            self.report();
            // The attempt filter has counted the request; only the access log is left.
            self.write_log_entry(self.exchange.progress().result());
            self.update_deadline(now);
            return Action::Continue;
        }
        let is_all = self.take_over();
        // The router did not retry: a circuit breaker is open, the body is larger than it keeps, or the attempt
        // filter let it make no more.
        let is_told = host::header(map, RETRY_HEADER).is_some();
        if is_told {
            host::remove_header(map, RETRY_HEADER);
        }
        // Envoy 1.40 ends the last attempt before its own reply when it times out, and after it else.
        if is_told || is_all {
            return self.on_event(&Event::Abandoned);
        }
        // What the attempt comes to is told here, should its filter end later.
        router::take_over();
        self.on_routed_answer(end)
    }

    /// Takes over from Envoy's router. True where what the attempt filters wrote down has all of its attempts.
    fn take_over(&mut self) -> bool {
        self.exchange
            .take_over(router::progress(), router::attempts_made())
    }

    /// More of the body of the routed answer came: `size` bytes are held now.
    pub fn on_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.ready.is_some() {
            return self.on_rest_of_failed(size, end);
        }
        if self.exchange.is_over() {
            self.measure(size, end);
            return Action::Continue;
        }
        let (action, held) = match self.exchange.wanted(size, end) {
            Some(wanted) => (self.on_body_event(size, wanted, end), size),
            None => return self.on_unwanted_body(size, end),
        };
        self.held.body = Some(held);
        self.held.ended = end;
        self.deliver_at_end(end);
        self.measure(size, end);
        action
    }

    /// More came of an answer that nobody wants. Envoy buffers none of it, since it would be too much for its buffer at some time;
    /// but at its end Envoy has a buffer, which another answer can fill.
    fn on_unwanted_body(&mut self, size: usize, end: bool) -> Action {
        self.held.dropped += size;
        self.held.ended = end;
        host::replace_start(BodyOf::Response, size, b"");
        if end {
            self.held.body = Some(0);
        } else {
            self.held.body = None;
            host::drop_part(self.worker.root, self.id);
        }
        Action::Pause
    }

    /// More came of a failed answer whose place another one is to take.
    fn on_rest_of_failed(&mut self, size: usize, end: bool) -> Action {
        if !end && self.held.dropped + size <= Held::MAX_DROPPED {
            return self.on_unwanted_body(size, end);
        }
        self.held.dropped += size;
        self.held.body = Some(size);
        self.held.ended = end;
        if self.deliver_ready(From::Callback) {
            return Action::Continue;
        }
        if self.ready.is_some() {
            self.held.body = Some(0);
            host::replace_start(BodyOf::Response, size, b"");
        }
        Action::Pause
    }

    /// True where the answer has taken the place of the routed one, which is to be released.
    fn deliver_ready(&mut self, from: From) -> bool {
        let now = host::now();
        let ready = self.ready.take();
        let is_exchanged = ready.is_some_and(|answer| self.deliver(now, answer, from));
        self.update_deadline(now);
        is_exchanged
    }

    /// The trailers of the routed answer came: its body is complete.
    pub fn on_response_trailers(&mut self) -> Action {
        if self.ready.is_some() {
            (self.held.trailers, self.held.ended) = (true, true);
            return match self.deliver_ready(From::Callback) {
                true => Action::Continue,
                false => Action::Pause,
            };
        }
        if self.exchange.is_over() {
            self.measure(0, true);
            return Action::Continue;
        }
        let size = self.held.body.unwrap_or_default();
        let action = match self.exchange.wanted(size, true) {
            Some(wanted) => self.on_body_event(size, wanted, true),
            None => Action::Pause,
        };
        self.held.ended = true;
        self.held.trailers = true;
        self.deliver_at_end(true);
        self.measure(size, true);
        action
    }

    /// Shows all that is held of the body, a part at a time: comments are not read again.
    fn on_body_event(&mut self, size: usize, mut wanted: (usize, usize), end: bool) -> Action {
        loop {
            let last = wanted.0 + wanted.1 >= size;
            let bytes = host::response_body(wanted);
            let action = self.on_event(&Event::Body {
                size,
                bytes: &bytes,
                end: end && last,
            });
            match self.exchange.wanted(size, end) {
                Some(next) if !last && next != wanted => wanted = next,
                _ => return action,
            }
        }
    }

    /// The answer is settled: its token usage is read from here on.
    fn begin_to_measure(&mut self) {
        let ended = self.exchange.progress().last();
        self.meter = ended.and_then(|ended| Meter::of(self.worker.config.telemetry, ended.outcome));
    }

    /// Reads what goes on to the client: all that was held, and then each new part of the answer.
    fn measure(&mut self, size: usize, end: bool) {
        if let Some(meter) = &mut self.meter {
            meter.on_body(size);
        }
        if end {
            self.count_tokens();
        }
    }

    fn count_tokens(&mut self) {
        if let (Some(meter), Some(step)) = (self.meter.take(), self.exchange.current()) {
            let account = Account {
                service: step.name(),
                model: step.alias.as_deref(),
            };
            meter.tell(&self.worker.metrics, self.worker.config.telemetry, account);
        }
    }

    /// The deadline came.
    pub fn on_due(&mut self) {
        self.due = None;
        let now = host::now();
        if self.ready.is_some() {
            if self.deliver_ready(From::Tick) {
                host::resume_response();
            }
            return;
        }
        if self.exchange.is_error_body_overdue(now) {
            self.cut_error_body();
            return;
        }
        let is_routers = self.exchange.is_by_router() && self.exchange.is_routed();
        if is_routers {
            self.take_over();
        }
        self.on_event(&Event::Due);
        if is_routers && !self.exchange.is_routed() {
            router::take_over();
        }
    }

    /// The end of an error's body is not waited for any longer.
    fn cut_error_body(&mut self) {
        let size = self.held.body.unwrap_or_default();
        let wanted = self.exchange.wanted(size, true).unwrap_or_default();
        if self.on_body_event(size, wanted, true) == Action::Continue {
            host::resume_response();
        }
    }

    /// The answer of the callout came. Its headers and body can be read now.
    pub fn on_call_answer(&mut self, body_size: usize) {
        self.call = None;
        let headers = host::headers(MapOf::CallResponseHeaders);
        let status = headers
            .iter()
            .find(|(name, _)| name == ":status")
            .map(|(_, value)| value.as_slice());
        let status = answer::status(status);
        let body = match body_size {
            0 => Vec::new(),
            size => host::buffer(BodyOf::CallResponse, 0, size),
        };
        let origin = answer::called_origin(&headers, status);
        let now = host::now();
        match self.exchange.step(
            now,
            &Event::Answer {
                origin,
                status,
                retry_after: self.retry_after(status, MapOf::CallResponseHeaders),
                body: &body,
            },
        ) {
            Effect::Deliver => {
                self.report();
                self.begin_to_measure();
                if let Some(meter) = &mut self.meter {
                    meter.on_whole(&body);
                }
                self.count_tokens();
                let answer = Answer {
                    status,
                    headers,
                    body,
                };
                self.give(now, answer);
                self.update_deadline(now);
            }
            effect => {
                self.carry_out(now, effect);
            }
        }
    }

    fn on_event(&mut self, event: &Event<'_>) -> Action {
        let now = host::now();
        let effect = self.exchange.step(now, event);
        self.carry_out(now, effect)
    }

    /// Counts an attempt that has ended, and reports on the health of its service.
    fn report(&mut self) {
        if let Some(ended) = self.exchange.take_ended() {
            self.is_passing = ended.is_passing;
            self.worker.metrics.attempt(self.exchange.plan(), &ended);
        }
        self.worker.report(&mut self.exchange);
    }

    fn carry_out(&mut self, now: Duration, mut effect: Effect) -> Action {
        loop {
            self.update_deadline(now);
            self.report();
            if matches!(effect, Effect::Call { .. } | Effect::Fail(_)) {
                let last = self.exchange.progress().last();
                let is_silent = last.is_some_and(|ended| ended.outcome.is_timeout());
                self.held.fails(now, is_silent);
            }
            effect = match effect {
                Effect::Call { timeout } => {
                    self.on_attempt(now);
                    if self.call(now, timeout) {
                        return Action::Pause;
                    }
                    self.exchange.step(now, &Event::Refused)
                }
                Effect::Pass => {
                    self.pass();
                    return Action::Continue;
                }
                Effect::Fail(failure) => {
                    let reply = Reply::new(self.shape, &Problem::NoAnswer(failure));
                    self.give(now, Answer::from(reply));
                    self.update_deadline(now);
                    return Action::Pause;
                }
                Effect::Wait | Effect::Deliver => return Action::Pause,
            };
        }
    }

    /// Sends the request to the service whose turn it is. False where Envoy refuses.
    fn call(&mut self, now: Duration, timeout: Duration) -> bool {
        let (Some(original), Some(step)) = (&self.original, self.exchange.current()) else {
            return false;
        };
        let Some(service) = &step.service else {
            return false;
        };
        let edited = self
            .exchange
            .plan()
            .edit(step, &original.parsed)
            .map(|edit| edit.apply(&original.body));
        let body = edited.as_deref().unwrap_or(&original.body);
        let headers = step.request_headers(&original.headers, body.len(), original.forwarding);
        self.call = host::call(&service.cluster, &headers, body, timeout);
        let Some(token) = self.call else {
            self.worker.lines.call_refused(now, service);
            return false;
        };
        self.worker.expect_answer(token, self.id);
        true
    }

    /// Lets the routed answer go to the client.
    fn pass(&mut self) {
        self.original = None;
        self.conclude();
        if self.worker.by_router {
            host::remove_header(MapOf::ResponseHeaders, RETRY_HEADER);
        }
        answer::tell(self.exchange.trail(), self.exchange.answered_by());
        self.begin_to_measure();
    }

    /// Gives the client an answer in place of the routed one.
    fn give(&mut self, now: Duration, mut answer: Answer) {
        self.original = None;
        self.conclude();
        answer.headers.retain(|(name, _)| {
            !fit::is_hop_by_hop(name) && !is_own(name) && !name.starts_with(':')
        });
        answer.add(ATTEMPTS_HEADER, self.exchange.trail().as_str().to_owned());
        if let Some(service) = self.exchange.answered_by() {
            answer.add(SERVICE_HEADER, service.to_owned());
        }
        if self.deliver(now, answer, From::Callback) {
            host::resume_response();
        }
    }

    /// True where the answer has taken the place of the routed one, which is to be released.
    fn deliver(&mut self, now: Duration, answer: Answer, from: From) -> bool {
        self.ready_due = None;
        let limit = self.worker.exchange_limit.get();
        match self.held.delivery(now, answer.body.len(), limit, from) {
            Delivery::Exchange => return self.exchange_answer(now, answer),
            Delivery::Reply => host::reply(answer.status, &answer.headers, &answer.body),
            Delivery::Wait(until) => {
                self.ready_due = Some(until);
                self.ready = Some(answer);
            }
        }
        false
    }

    /// False where Envoy has refused it, and has answered by itself.
    fn exchange_answer(&self, now: Duration, mut answer: Answer) -> bool {
        let map = MapOf::ResponseHeaders;
        let failed = host::headers(map);
        answer_headers::keep_of_gateway(&mut answer.headers, failed, self.held.is_envoys);
        answer.add("content-length", answer.body.len().to_string());
        answer.headers.insert(
            0,
            (":status".to_owned(), answer.status.to_string().into_bytes()),
        );
        host::replace_headers(map, &answer.headers);
        let size = self.held.body.unwrap_or_default();
        self.worker.clear_interrupt();
        host::replace_start(BodyOf::Response, size, &answer.body);
        if self.worker.was_interrupted() {
            self.worker.on_exchange_refused(now, answer.body.len());
            return false;
        }
        if self.held.trailers {
            host::replace_headers(MapOf::ResponseTrailers, &[]);
        }
        true
    }

    /// What became of the request is known.
    fn conclude(&mut self) {
        let result = self.exchange.progress().result();
        self.record_result(result);
        if result == RequestResult::Fallback {
            let api = &self.exchange.plan().api().name;
            let delay = self.exchange.delay();
            self.worker.metrics.fallback_delay(api, delay);
        }
    }

    /// Tells metrics and access logs what became of the request.
    fn record_result(&self, result: RequestResult) {
        let api = &self.exchange.plan().api().name;
        self.worker.metrics.request(api, result);
        self.write_log_entry(result);
    }

    fn write_log_entry(&self, result: RequestResult) {
        if self.worker.config.telemetry.access_log {
            Entry::of(&self.exchange, result).write();
        }
    }

    /// The stream ends, at the end of the answer or before it, and is logged next.
    pub fn on_end(&mut self) {
        self.count_tokens();
        if !self.exchange.is_over() {
            self.on_gone();
        } else if self.is_passing
            && let Some(step) = self.exchange.current()
        {
            let took = host::now().saturating_sub(self.exchange.attempt_began());
            self.worker.metrics.attempt_time(step, took);
        }
        // A service that it was to find out about is left to others.
        let progress = self.exchange.progress();
        if let Some(service) = progress.unproven(self.exchange.plan()) {
            self.worker.give_back_probe(service);
        }
    }

    /// The client left, or Envoy has answered past the filters.
    fn on_gone(&mut self) {
        // An attempt filter has counted it, and another filter still holds the answer.
        if self.exchange.is_by_router() && router::seen() == Some(Seen::Settled) {
            return;
        }
        let mut is_under_way = true;
        if self.exchange.is_by_router() && self.exchange.is_routed() {
            // The attempt filter may wait before it sends anything.
            is_under_way = !self.take_over() && self.exchange.attempt_began() <= host::now();
            self.report();
            // The filter of the attempt under way ends after this one.
            router::take_over();
        }
        let with_fallback = self.exchange.progress().is_elsewhere();
        let (outcome, result) = match answer::broken_off() {
            // What broke off is the routed answer, and not the callout under way.
            Some(Outcome::Reset) if !self.exchange.is_routed() => {
                (CANCELLED, RequestResult::Failed { with_fallback })
            }
            Some(outcome) => (outcome.label(), RequestResult::Failed { with_fallback }),
            None => (CANCELLED, RequestResult::Gone),
        };
        if let Some(step) = self.exchange.under_way().filter(|_| is_under_way) {
            self.worker.metrics.count_attempt(step, outcome);
        }
        self.record_result(result);
    }

    /// What the worker keeps for this stream: its deadline and its callout.
    #[must_use]
    pub fn waits(&self) -> (Option<Duration>, Option<Token>) {
        (self.due, self.call)
    }

    fn update_deadline(&mut self, now: Duration) {
        let due = match self.ready {
            Some(_) => self.ready_due,
            None => self.exchange.deadline(),
        };
        self.worker.change_deadline(now, self.id, self.due, due);
        self.due = due;
    }
}

fn is_own(name: &str) -> bool {
    [SERVICE_HEADER, ATTEMPTS_HEADER, RETRY_HEADER].contains(&name)
}
