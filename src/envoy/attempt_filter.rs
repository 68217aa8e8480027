//! The role `ai_fallback_attempt`: makes one attempt of Envoy's router fit its service, and judges
//! the answer before the router may pass it on.
//!
//! Envoy makes one such filter per attempt, in the cluster that the attempt goes to. It must be the
//! first of the cluster's `http_filters`: what it takes for the client's headers must not hold what
//! another filter added for this service.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::answer::{self, ATTEMPTS_HEADER, SERVICE_HEADER};
use super::attempts::Attempts;
use super::host;
use super::lines;
use super::router::{self, NOT_MADE, RETRY_HEADER, Seen};
use crate::core::fit::{Forwarding, Header};
use crate::core::handoff::{Handoff, PackedHeaders};
use crate::core::judge::Verdict;
use crate::core::outcome::{Ended, Origin, Outcome};
use crate::core::plan::{Plan, Step};
use crate::core::progress::{Progress, Room};
use crate::core::request::RequestBody;
use crate::core::result::{EndedAttempt, RequestResult};
use crate::core::retry_after;
use crate::core::watch::{Limits, Watch};
use crate::host::{BodyOf, MapOf};

/// The filter of one attempt.
pub struct AttemptFilter {
    id: u32,
    attempts: Rc<Attempts>,
    attempt: Option<Rc<RefCell<Attempt>>>,
}

/// An attempt that belongs to a plan.
pub struct Attempt {
    id: u32,
    attempts: Rc<Attempts>,
    handoff: Handoff,
    progress: Progress,
    watch: Watch,
    request: RequestState,
    retry_after: Option<Duration>,
    /// Bytes of the response body that Envoy holds.
    response_size: usize,
    /// The answer was judged, or none is awaited.
    is_decided: bool,
    /// A good answer passes on to the client.
    is_passing: bool,
    /// The deadline that the timer has for this attempt.
    due: Option<Duration>,
}

/// What is done with the request before it goes to the service.
struct RequestState {
    /// It is held until then.
    rests_until: Option<Duration>,
    /// Its body is held, to change the model in it.
    changes_body: bool,
    /// How much of the body is held.
    size: usize,
    /// How long it is, where its headers say so.
    length: Option<usize>,
    /// Envoy has a part of the body in its buffer.
    is_buffered: bool,
    /// The body is changed in the next tick, and goes on then.
    changes_in_tick: Option<Duration>,
}

impl AttemptFilter {
    /// A filter for the attempt that Envoy begins, with this context id.
    #[must_use]
    pub fn new(id: u32, attempts: Rc<Attempts>) -> Self {
        Self {
            id,
            attempts,
            attempt: None,
        }
    }

    fn with(&self, act: impl FnOnce(&mut Attempt) -> Action) -> Action {
        let Some(attempt) = &self.attempt else {
            return Action::Continue;
        };
        // Envoy may call back from within a host call, where it answers a body over its limit itself.
        let Ok(mut free) = attempt.try_borrow_mut() else {
            self.attempts.interrupted.set(true);
            return Action::Continue;
        };
        let action = act(&mut free);
        drop(free);
        if attempt.borrow().due.is_some() {
            self.attempts.wait_for(self.id, attempt);
        }
        action
    }
}

impl HttpContext for AttemptFilter {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        // Without a plan this is a callout, or a request without fallback.
        let Some(handoff) = router::handoff(&self.attempts.config) else {
            self.attempts.on_no_plan();
            return Action::Continue;
        };
        let made = router::attempts_made();
        let Some(handoff) = handoff.filter(|_| made > 0) else {
            self.attempts.on_unknown_plan();
            // The headers are the client's own, or those of another service.
            return refuse();
        };
        let attempt = Attempt::begin(self.id, Rc::clone(&self.attempts), handoff, made);
        self.attempt = Some(Rc::new(RefCell::new(attempt)));
        self.with(|attempt| attempt.on_request_headers(made, end))
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.with(|attempt| attempt.on_request_body(size, end))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.with(|attempt| {
            if let Some(step) = attempt.step() {
                host::remove_trailers(|name| step.withholds_trailer(name));
            }
            attempt.on_request_body(attempt.request.size, true)
        })
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.with(|attempt| attempt.on_response_headers(end))
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.with(|attempt| attempt.on_response_body(size, end))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.with(|attempt| attempt.on_response_body(attempt.response_size, true))
    }
}

impl Context for AttemptFilter {
    /// The attempt is over. Envoy ends it before it begins the next one.
    fn on_done(&mut self) -> bool {
        if let Some(attempt) = &self.attempt {
            if let Ok(mut attempt) = attempt.try_borrow_mut() {
                attempt.on_end();
            }
            self.attempts.waiting.borrow_mut().remove(&self.id);
        }
        true
    }
}

/// What `content-length` says.
fn length(headers: &[Header]) -> Option<usize> {
    let (_, text) = headers.iter().find(|(name, _)| name == "content-length")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Stops an attempt: nothing of one service may go to another. A local reply of this filter is not
/// retried, so the request filter goes on from here, and makes this attempt by callout.
fn refuse() -> Action {
    let label = (RETRY_HEADER.to_owned(), NOT_MADE.to_vec());
    host::reply(503, &[label], b"");
    Action::Pause
}

impl Attempt {
    fn begin(id: u32, attempts: Rc<Attempts>, handoff: Handoff, made: usize) -> Self {
        let written = match made {
            1 => None,
            _ => router::progress(),
        };
        let now = host::now();
        Self {
            id,
            attempts,
            progress: written.unwrap_or_else(|| Progress::begin(&handoff.plan)),
            watch: Watch::new(&handoff.plan, now),
            handoff,
            request: RequestState {
                rests_until: None,
                changes_body: false,
                size: 0,
                length: None,
                is_buffered: false,
                changes_in_tick: None,
            },
            retry_after: None,
            response_size: 0,
            is_decided: false,
            is_passing: false,
            due: None,
        }
    }

    fn plan(&self) -> &Plan {
        &self.handoff.plan
    }

    fn step(&self) -> Option<&Step> {
        self.plan().step(self.progress.current())
    }

    fn on_request_headers(&mut self, made: usize, end: bool) -> Action {
        let is_first = made == 1;
        let may_begin = self.step().is_some_and(|step| match is_first {
            true => self.attempts.was_in_its_cluster(step),
            false => {
                !self.progress.is_exhausted()
                    && !router::is_taken_over()
                    && self.attempts.is_in_its_cluster(step)
            }
        });
        let Some(length) = may_begin.then(|| self.fit_headers(is_first)).flatten() else {
            self.is_decided = true;
            return refuse();
        };
        self.request.length = length;
        self.request.changes_body = !end && self.changes_body();
        if !self.handoff.judges {
            self.is_decided = true;
            router::set_seen(Seen::Fitted);
        } else if !is_first {
            self.rest();
            if self.request.rests_until.is_none() {
                self.begins();
            }
        }
        match self.holds_request() {
            true => Action::Pause,
            false => Action::Continue,
        }
    }

    /// Waits before the service is tried again. Envoy's own back-off is for all attempts, and not for some.
    fn rest(&mut self) {
        let wait = self.progress.wait();
        if !wait.is_zero() {
            let began = self.watch.began();
            self.request.rests_until = Some(began + wait);
            self.update_due(began);
        }
    }

    /// The attempt begins, and is not the first of its request.
    fn begins(&self) {
        let Attempts { metrics, lines, .. } = &*self.attempts;
        lines::on_attempt(
            metrics,
            lines,
            self.watch.began(),
            self.plan(),
            &self.progress,
        );
    }

    fn holds_request(&self) -> bool {
        let request = &self.request;
        request.changes_body || request.changes_in_tick.is_some() || request.rests_until.is_some()
    }

    fn on_request_body(&mut self, size: usize, end: bool) -> Action {
        self.request.size = size;
        // The end may be told later, and a body over Envoy's buffer limit must not wait for it.
        let is_whole = end || self.request.length == Some(size);
        if is_whole && self.request.changes_body {
            self.request.changes_body = false;
            if !self.change_body(size) {
                self.is_decided = true;
                return refuse();
            }
        }
        self.request.is_buffered = self.holds_request();
        match self.request.is_buffered {
            true => Action::Pause,
            false => Action::Continue,
        }
    }

    /// A body that makes Envoy's buffer larger than its limit is answered at once by Envoy, from within the host call, and
    /// the SDK panics where it is called back from there, but for a tick (Envoy 1.39 and 1.40). What came in one piece is
    /// in no buffer yet.
    ///
    /// False where the body cannot be made to fit.
    fn change_body(&mut self, size: usize) -> bool {
        if !self.request.is_buffered {
            return self.fit_body(size);
        }
        let now = host::now();
        self.request.changes_in_tick = Some(now);
        self.update_due(now);
        true
    }

    /// The time of what is waited for has come.
    pub fn on_due(&mut self, now: Duration) {
        self.due = None;
        if self.request.changes_in_tick.take().is_some() {
            self.attempts.interrupted.set(false);
            let is_fitted = self.fit_body(self.request.size);
            if self.attempts.interrupted.take() {
                // Envoy has ended the attempt.
                self.is_decided = true;
                return;
            }
            if !is_fitted {
                self.is_decided = true;
                refuse();
            } else if !self.holds_request() {
                host::resume_request();
            }
        } else if self.request.rests_until.is_some_and(|until| until <= now) {
            self.request.rests_until = None;
            self.watch = Watch::new(self.plan(), now);
            self.begins();
            if !self.holds_request() {
                host::resume_request();
            }
        } else if let Some(outcome) = self.watch.overdue(now, self.limits()) {
            self.give_up(now, outcome);
        } else if self.watch.error_body_due().is_some_and(|due| due <= now) {
            let verdict = self.judge_body(now, true);
            if self.act_on(now, verdict) == Action::Continue {
                host::resume_response();
            }
        }
        self.update_due(now);
    }

    fn on_response_headers(&mut self, end: bool) -> Action {
        if self.is_decided {
            return Action::Continue;
        }
        let now = host::now();
        let map = MapOf::ResponseHeaders;
        let status = answer::status(host::header(map, ":status").as_deref());
        if status >= 400 && self.heeds_retry_after() {
            self.retry_after = retry_after::read(|name| host::header(map, name), host::wall_now());
        }
        // Filters of the cluster can answer too; what they say is said for the service.
        let verdict = self.watch.on_headers(now, Origin::Service, status, end);
        let action = self.act_on(now, verdict);
        if !self.is_decided && self.plan().delivers_complete() {
            // Until now the request filter has waited for the first packet.
            self.progress.begins_to_answer();
            router::set_progress(&self.progress);
        }
        action
    }

    fn heeds_retry_after(&self) -> bool {
        let cools = self.attempts.config.cooldown.is_some();
        cools || self.step().is_some_and(|step| step.retries > 0)
    }

    fn on_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.is_decided {
            return Action::Continue;
        }
        self.response_size = size;
        let now = host::now();
        let verdict = self.judge_body(now, end);
        self.act_on(now, verdict)
    }

    /// Shows all that is held of the body, a part at a time: comments are not read again.
    fn judge_body(&mut self, now: Duration, end: bool) -> Option<Verdict> {
        let size = self.response_size;
        let mut wanted = self.watch.wanted(size, end);
        loop {
            let last = wanted.0 + wanted.1 >= size;
            let bytes = host::response_body(wanted);
            let verdict = self.watch.on_body(now, size, &bytes, end && last);
            let next = self.watch.wanted(size, end);
            if last || verdict.is_some() || next == wanted {
                return verdict;
            }
            wanted = next;
        }
    }

    fn act_on(&mut self, now: Duration, verdict: Option<Verdict>) -> Action {
        let action = match verdict {
            Some(verdict) => self.decide(now, &verdict),
            None => Action::Pause,
        };
        self.update_due(now);
        action
    }

    /// Asks for a retry, or lets the answer go on with the two headers.
    fn decide(&mut self, now: Duration, verdict: &Verdict) -> Action {
        if self.is_cut() {
            self.is_decided = true;
            return Action::Continue;
        }
        let map = MapOf::ResponseHeaders;
        let delay = self.progress.took() + self.progress.wait();
        if self.end(now, verdict) {
            self.ask_for_retry(verdict.outcome);
            return Action::Continue;
        }
        // Said by the service itself, it would make the router retry, or go past it to the client.
        host::remove_header(map, RETRY_HEADER);
        let service = self.step().and_then(|step| step.service.as_ref());
        let service = service.map(|service| service.name.as_str());
        answer::tell(self.progress.trail(), service);
        router::set_seen(Seen::Settled);
        self.count_request(delay);
        let cools = self.attempts.config.cooldown.is_some();
        if self.handoff.tells_all || (cools && self.progress.has_reports()) {
            router::set_progress(&self.progress);
        }
        Action::Continue
    }

    /// Whether the request filter has ended this attempt before its answer came, and goes on by callouts. Envoy ends it
    /// with the request only. Asked only where it can be, since it costs a host call: the request filter keeps the time
    /// that is reserved for the next service, and the first packet of an answer that is held.
    fn is_cut(&self) -> bool {
        let plan = self.plan();
        let has_reserve = plan
            .fallback()
            .is_some_and(|rules| !rules.reserve.is_zero());
        (has_reserve || plan.delivers_complete()) && router::is_taken_over()
    }

    /// The answer goes to the client, so what became of the request is known. `delay`: from the beginning of the request to
    /// that of this attempt.
    fn count_request(&self, delay: Duration) {
        let (api, result) = (&self.plan().api().name, self.progress.result());
        self.attempts.metrics.request(api, result);
        if result == RequestResult::Fallback {
            self.attempts.metrics.fallback_delay(api, delay);
        }
    }

    /// Ends an attempt whose answer has begun, and goes no further. Its held headers become those of a failure.
    fn give_up(&mut self, now: Duration, outcome: Outcome) {
        if self.is_cut() {
            self.is_decided = true;
            return;
        }
        self.end(now, &outcome.into());
        host::set_header(MapOf::ResponseHeaders, ":status", b"504");
        self.ask_for_retry(outcome);
        host::resume_response();
    }

    fn ask_for_retry(&self, outcome: Outcome) {
        let map = MapOf::ResponseHeaders;
        host::set_header(map, RETRY_HEADER, outcome.to_string().as_bytes());
        // Where the service is a gateway like this one, its answer would look settled.
        host::remove_header(map, ATTEMPTS_HEADER);
        host::remove_header(map, SERVICE_HEADER);
    }

    /// The attempt is over: its answer has ended, or none came.
    fn on_end(&mut self) {
        let now = host::now();
        if let Some(step) = self.step().filter(|_| self.is_passing) {
            let took = now.saturating_sub(self.watch.began());
            self.attempts.metrics.attempt_time(step, took);
        }
        // What was decided waits for nothing.
        if self.is_decided || router::is_taken_over() {
            return;
        }
        let outcome = self.silence(now);
        self.end(now, &outcome.into());
        self.update_due(now);
    }

    /// What it means that no answer came.
    fn silence(&self, now: Duration) -> Outcome {
        // The router's timeout has run since before the wait.
        let took = now.saturating_sub(self.watch.began()) + self.progress.wait();
        match self.plan().patience() {
            Some(patience) if patience.is_used_up(took) => patience.outcome,
            _ => Outcome::Reset,
        }
    }

    /// Writes down how the attempt ended, and sends the next one on its way; false where there is none.
    fn end(&mut self, now: Duration, verdict: &Verdict) -> bool {
        self.is_decided = true;
        let rules = self.handoff.plan.fallback();
        let retry_after = self.retry_after.take();
        let ended = Ended::new(verdict.outcome, verdict.error.as_ref(), retry_after, rules);
        let took = now.saturating_sub(self.watch.began());
        let room = Room {
            left: self
                .handoff
                .deadline
                .map(|deadline| deadline.saturating_sub(host::wall_now())),
            // The router's timeout runs while the next attempt waits.
            max_wait: self.plan().patience().map(|patience| patience.time / 2),
            random: now.as_nanos() as u64,
        };
        let number = self.progress.current();
        let has_next = self.progress.end(&self.handoff.plan, ended, took, room);
        self.is_passing = ended.is_good();
        let ended = EndedAttempt {
            number,
            outcome: verdict.outcome,
            took,
            is_passing: self.is_passing,
        };
        self.attempts.metrics.attempt(self.plan(), &ended);
        // An answer that goes to the client says all of it in its headers.
        if has_next || !verdict.outcome.is_from_service() {
            router::set_progress(&self.progress);
        }
        let next = self.step().and_then(|step| step.service.as_ref());
        if let Some(service) = next.filter(|_| has_next) {
            router::set_cluster(&service.cluster);
        }
        has_next
    }

    /// What the time of the answer is kept for, once its headers are held: an answer that has begun can be ended here,
    /// and before that only by the router.
    fn limits(&self) -> Limits {
        let plan = self.plan();
        let rules = plan
            .fallback()
            .filter(|_| plan.delivers_complete() && self.watch.has_headers());
        let Some(rules) = rules.filter(|_| !self.is_decided) else {
            return Limits::default();
        };
        let waits_for_packet = plan.is_stream() && self.progress.has_next_after_silence(plan);
        Limits {
            first_packet: rules.first_packet_timeout.filter(|_| waits_for_packet),
            answer: None,
            idle: rules.stream_idle_timeout,
        }
    }

    fn update_due(&mut self, now: Duration) {
        let waits = self.watch.waits(self.limits()).map(|(due, _)| due);
        let others = [self.request.rests_until, self.watch.error_body_due()];
        let others = others.into_iter().flatten().filter(|_| !self.is_decided);
        let due = waits
            .chain(others)
            .chain(self.request.changes_in_tick)
            .min();
        self.attempts.timer.change(now, self.id, self.due, due);
        self.due = due;
    }

    /// Makes the headers fit the service, and returns how long the body is, where they say it. `None` where they cannot be
    /// made to fit.
    ///
    /// All attempts share one header map (Envoy 1.39 and 1.40). To the first it comes as the filters before the router left
    /// it, so what it holds then is kept, and later attempts are made from it.
    fn fit_headers(&self, is_first: bool) -> Option<Option<usize>> {
        let step = self.step()?;
        let map = MapOf::RequestHeaders;
        let held = host::headers(map);
        let config = &self.attempts.config;
        let forwarding = Forwarding {
            hops: self.handoff.hops,
            uncompressed: self.handoff.uncompressed,
        };
        let original = if is_first { None } else { router::original() };
        let Some(original) = original else {
            // An attempt that Envoy ended before its filters were asked has changed nothing.
            router::keep_original(&PackedHeaders::pack(&held));
            for (name, value) in step.header_changes(&held, forwarding) {
                match value {
                    Some(value) => host::set_header(map, &name, &value),
                    None => host::remove_header(map, &name),
                }
            }
            return Some(length(&held));
        };
        let original = original.unpack()?;
        let headers = step.retry_headers(config, &original, &held, forwarding);
        host::replace_headers(map, &headers);
        Some(length(&original))
    }

    /// Whether the body that the router keeps, which is that of the client, is another than this attempt needs.
    fn changes_body(&self) -> bool {
        let plan = self.plan();
        self.step().is_some_and(|step| plan.changes_body(step))
    }

    /// Makes the body fit: the one that the router sends, which a filter behind the request filter may have changed.
    /// False where it cannot be read any more, and so not be made to fit.
    fn fit_body(&self, size: usize) -> bool {
        let body = host::buffer(BodyOf::Request, 0, size);
        let Ok(parsed) = RequestBody::read(&body) else {
            return false;
        };
        let edit = self.step().and_then(|step| self.plan().edit(step, &parsed));
        let Some(edit) = edit else {
            return true;
        };
        let map = MapOf::RequestHeaders;
        if self.request.length.is_some() {
            let length = edit.len_after(body.len()).to_string();
            host::set_header(map, "content-length", length.as_bytes());
        }
        let (length, start) = edit.prefix(&body);
        host::replace_start(BodyOf::Request, length, &start);
        true
    }
}
