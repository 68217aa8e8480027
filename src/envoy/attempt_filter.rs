//! The role `ai_fallback_attempt`: makes one attempt of Envoy's router fit its service, and judges
//! the answer before the router may pass it on.
//!
//! Envoy makes one such filter per attempt, in the cluster that the attempt goes to. It must be the
//! first of the cluster's `http_filters`: what it takes for the client's headers must not hold what
//! another filter added for this service.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::answer::{self, ATTEMPTS_HEADER, SERVICE_HEADER};
use super::attempts::Attempts;
use super::host;
use super::router::{self, NOT_MADE, RETRY_HEADER};
use crate::core::config::Config;
use crate::core::handoff::Handoff;
use crate::core::outcome::{Judge, Origin, Outcome};
use crate::core::plan::{Plan, Step};
use crate::core::request::RequestBody;
use crate::core::trail::Trail;

/// The filter of one attempt.
pub struct AttemptFilter {
    attempts: Rc<Attempts>,
    attempt: Option<Attempt>,
}

/// An attempt that belongs to a plan.
struct Attempt {
    handoff: Handoff,
    plan: Plan,
    number: usize,
    has_next: bool,
    began: Duration,
    judge: Judge,
    body: RequestBodyState,
    /// Bytes of the response body that Envoy holds.
    response_size: usize,
    answer: AnswerState,
}

enum RequestBodyState {
    /// It goes on as it comes.
    Untouched,
    /// It is held, `size` bytes so far, to change the model in it.
    Held { size: usize },
}

enum AnswerState {
    /// It has not been judged.
    Awaited,
    /// The router was asked for a retry.
    Failed { outcome: Outcome, took: Duration },
    /// It goes to the client.
    Settled,
}

impl AttemptFilter {
    /// A filter for the attempt that Envoy begins.
    #[must_use]
    pub fn new(attempts: Rc<Attempts>) -> Self {
        Self {
            attempts,
            attempt: None,
        }
    }
}

impl HttpContext for AttemptFilter {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        // Without a plan this is a callout, or a request without fallback.
        let Some(handoff) = router::handoff() else {
            return Action::Continue;
        };
        let Some(attempt) = Attempt::begin(handoff, &self.attempts.config) else {
            self.attempts.on_unknown_plan();
            // From the second attempt on, the headers are those of another service.
            return match router::attempts_made() {
                0 | 1 => Action::Continue,
                _ => refuse(),
            };
        };
        self.attempt
            .insert(attempt)
            .on_request_headers(&self.attempts, end)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.attempt.as_mut().map_or(Action::Continue, |attempt| {
            attempt.on_request_body(size, end)
        })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.attempt
            .as_mut()
            .map_or(Action::Continue, Attempt::on_request_end)
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.attempt
            .as_mut()
            .map_or(Action::Continue, |attempt| attempt.on_response_headers(end))
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.attempt.as_mut().map_or(Action::Continue, |attempt| {
            attempt.on_response_body(size, end)
        })
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.attempt
            .as_mut()
            .map_or(Action::Continue, Attempt::on_response_trailers)
    }
}

impl Context for AttemptFilter {
    /// The attempt is over. Envoy ends it before it begins the next one.
    fn on_done(&mut self) -> bool {
        if let Some(attempt) = &self.attempt {
            attempt.write_down();
        }
        true
    }
}

/// Stops an attempt: nothing of one service may go to another. A local reply of this filter is not
/// retried, so the request filter goes on from here, and makes this attempt by callout.
fn refuse() -> Action {
    let label = (RETRY_HEADER.to_owned(), NOT_MADE.to_vec());
    host::reply(503, &[label], b"");
    Action::Pause
}

impl Attempt {
    fn begin(handoff: Handoff, config: &Config) -> Option<Self> {
        let plan = handoff.plan(config)?;
        let number = plan.nth(router::attempts_made().checked_sub(1)?)?;
        Some(Self {
            has_next: plan.after(number).is_some(),
            judge: Judge::new(handoff.stream),
            handoff,
            plan,
            number,
            began: host::now(),
            body: RequestBodyState::Untouched,
            response_size: 0,
            answer: AnswerState::Awaited,
        })
    }

    fn on_request_headers(&mut self, attempts: &Attempts, end: bool) -> Action {
        let Some(step) = self.plan.step(self.number) else {
            return Action::Continue;
        };
        let in_its_cluster = match self.number {
            0 => attempts.was_in_its_cluster(step),
            _ => attempts.is_in_its_cluster(step),
        };
        if !in_its_cluster {
            self.answer = AnswerState::Settled;
            return refuse();
        }
        if self.number > 0 {
            attempts.metrics.fallback();
            self.fit_headers(step);
        }
        // Written now: this attempt may end without another word.
        if let Some(cluster) = self.next_cluster() {
            router::set_cluster(cluster);
        }
        if end || !self.changes_body() {
            return Action::Continue;
        }
        self.body = RequestBodyState::Held { size: 0 };
        Action::Pause
    }

    fn on_request_body(&mut self, size: usize, end: bool) -> Action {
        match &mut self.body {
            RequestBodyState::Untouched => Action::Continue,
            RequestBodyState::Held { size: held } => {
                *held = size;
                if end {
                    self.on_request_end()
                } else {
                    Action::Pause
                }
            }
        }
    }

    fn on_request_end(&mut self) -> Action {
        if let RequestBodyState::Held { size } = self.body {
            self.body = RequestBodyState::Untouched;
            self.fit_body(size);
        }
        Action::Continue
    }

    fn on_response_headers(&mut self, end: bool) -> Action {
        if !matches!(self.answer, AnswerState::Awaited) {
            return Action::Continue;
        }
        let status = host::header(MapType::HttpResponseHeaders, ":status");
        let status = answer::status(status.as_deref());
        // Filters of the cluster can answer too; what they say is said for the service.
        match self.judge.on_headers(Origin::Service, status, end) {
            Some(outcome) => self.decide(outcome),
            None => Action::Pause,
        }
    }

    fn on_response_body(&mut self, size: usize, end: bool) -> Action {
        if !matches!(self.answer, AnswerState::Awaited) {
            return Action::Continue;
        }
        self.response_size = size;
        match self.judge_body(end) {
            Some(outcome) => self.decide(outcome),
            None => Action::Pause,
        }
    }

    /// Shows all that is held of the body, a part at a time: comments are not read again.
    fn judge_body(&mut self, end: bool) -> Option<Outcome> {
        let size = self.response_size;
        loop {
            let wanted = self.judge.wanted(size);
            let last = wanted.0 + wanted.1 >= size;
            let bytes = host::response_body(wanted);
            let outcome = self.judge.on_body(size, &bytes, end && last);
            if last || outcome.is_some() || self.judge.wanted(size).0 == wanted.0 {
                return outcome;
            }
        }
    }

    fn on_response_trailers(&mut self) -> Action {
        self.on_response_body(self.response_size, true)
    }

    /// Asks for a retry, or lets the answer go on with the two headers.
    fn decide(&mut self, outcome: Outcome) -> Action {
        let took = self.took();
        let map = MapType::HttpResponseHeaders;
        let fails = self
            .plan
            .fallback()
            .is_some_and(|rules| outcome.falls_back(rules));
        if fails && self.has_next {
            host::set_header(map, RETRY_HEADER, outcome.to_string().as_bytes());
            // Where the service is a gateway like this one, its answer would look settled.
            host::remove_header(map, ATTEMPTS_HEADER);
            host::remove_header(map, SERVICE_HEADER);
            self.answer = AnswerState::Failed { outcome, took };
            return Action::Continue;
        }
        self.answer = AnswerState::Settled;
        // Said by the service itself, it would make the router retry, or go past it to the client.
        host::remove_header(map, RETRY_HEADER);
        let service = self.plan.step(self.number).and_then(|step| step.service);
        let service = service.map(|service| service.name.as_str());
        answer::tell(&self.trail(outcome, took), service);
        Action::Continue
    }

    /// Adds a failed attempt to the trail.
    fn write_down(&self) {
        let (outcome, took) = match self.answer {
            AnswerState::Settled => return,
            AnswerState::Failed { outcome, took } => (outcome, took),
            AnswerState::Awaited => (self.silence(), self.took()),
        };
        router::set_trail(&self.trail(outcome, took));
    }

    /// What it means that no answer came.
    fn silence(&self) -> Outcome {
        match self.plan.patience(self.handoff.stream) {
            Some(patience) if patience.is_used_up(self.took()) => patience.outcome,
            _ => Outcome::Reset,
        }
    }

    fn trail(&self, outcome: Outcome, took: Duration) -> Trail {
        let mut trail = match self.number {
            0 => Trail::default(),
            _ => router::trail(),
        };
        if let Some(step) = self.plan.step(self.number) {
            trail.push(step, outcome, took);
        }
        trail
    }

    fn took(&self) -> Duration {
        host::now().saturating_sub(self.began)
    }

    fn next_cluster(&self) -> Option<&str> {
        let next = self.plan.step(self.plan.after(self.number)?)?;
        next.service.map(|service| service.cluster.as_str())
    }

    fn fit_headers(&self, step: Step<'_>) {
        log::info!(
            "event=fallback api={} attempts=\"{}\" next={}",
            self.handoff.api_name,
            router::trail().as_str(),
            step.name()
        );
        let map = MapType::HttpRequestHeaders;
        let headers = step.retry_headers(
            &self.handoff.original,
            self.handoff.body_len,
            &host::headers(map),
        );
        host::replace_headers(map, &headers);
    }

    fn changes_body(&self) -> bool {
        let model = |attempt| self.plan.step(attempt).and_then(|step| step.model);
        self.number > 0 && (model(self.number) != model(0) || !self.handoff.added.is_empty())
    }

    /// Changes the model from the primary's to this service's.
    fn fit_body(&self, size: usize) {
        let sent = host::buffer(BufferType::HttpRequestBody, 0, size);
        let added = &self.handoff.added;
        let parts = [sent.get(..added.start), sent.get(added.end..)];
        let mut body = parts.map(Option::unwrap_or_default).concat();
        let model = self.plan.step(self.number).and_then(|step| step.model);
        let edit = model.and_then(|model| RequestBody::read(&body).ok()?.edit(model));
        if let Some(edit) = edit {
            body = edit.apply(&body);
        }
        if body == sent {
            return;
        }
        host::replace_start(BufferType::HttpRequestBody, size, &body);
        if host::header(MapType::HttpRequestHeaders, "content-length").is_some() {
            host::set_header(
                MapType::HttpRequestHeaders,
                "content-length",
                body.len().to_string().as_bytes(),
            );
        }
    }
}
