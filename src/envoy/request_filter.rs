//! The role `ai_fallback`: reads the request, and starts what is to be done with it.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::access_log::Entry;
use super::answer::Answer;
use super::host;
use super::router;
use super::stream::{Original, Stream};
use super::unread::Unread;
use super::worker::{FittedBy, Worker};
use crate::core::admission::Head;
use crate::core::config::{Candidates, normal_paths};
use crate::core::fallback::{Effect, Exchange};
use crate::core::fit::{self, Forwarding, Header};
use crate::core::handoff::Handoff;
use crate::core::plan::{Plan, Step};
use crate::core::reply::{Problem, Reply, Shape};
use crate::core::request::{BodyError, Edit, RequestBody};
use crate::core::result::{Refusal, RequestResult, Skip};
use crate::host::{BodyOf, MapOf};

/// One HTTP stream, matched or not.
pub struct RequestFilter {
    id: u32,
    worker: Rc<Worker>,
    phase: Phase,
}

enum Phase {
    /// Nothing to do with this request, or with what is left of it.
    Idle,
    /// The body is coming in.
    Reading(Incoming),
    /// The request was answered by the filter.
    Answered,
    /// The request is on its way to its primary, unread.
    Unread(Box<Unread>),
    /// The request is on its way.
    Acting(Rc<RefCell<Stream>>),
}

/// The head of a request to a Model API.
struct Incoming {
    path: Vec<u8>,
    candidates: Candidates,
    headers: Vec<Header>,
    forwarding: Forwarding,
    body: IncomingBody,
}

/// What has come of the body.
#[derive(Default)]
struct IncomingBody {
    /// Who holds it; `None`: only one part has come yet.
    holder: Option<Holder>,
    /// The parts that the filter holds.
    parts: Vec<u8>,
    /// Bytes that the buffer of the callback has.
    size: usize,
    /// The same for the last part, once the whole body was taken.
    under_way: usize,
    /// The filter held other parts before that.
    is_in_parts: bool,
}

/// Who holds a body that comes in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Envoy, in its buffer. A part that makes that larger than its limit ends in `413`, before the filter can let the
    /// body pass; over HTTP/2 a part has 16 KiB at most.
    Envoy,
    /// The filter. Over HTTP/1.1 one part may be as large as Envoy's buffer. Not where trailers may end the body: then
    /// there is no part in whose place it could be put back.
    Filter,
}

impl RequestFilter {
    /// A stream with this context id.
    #[must_use]
    pub fn new(id: u32, worker: Rc<Worker>) -> Self {
        Self {
            id,
            worker,
            phase: Phase::Idle,
        }
    }

    fn on_head(&mut self, path: Vec<u8>, candidates: Candidates, end: bool) -> Action {
        let headers = host::headers(MapOf::RequestHeaders);
        let mut head = Incoming {
            path,
            candidates,
            headers,
            forwarding: Forwarding::default(),
            body: IncomingBody::default(),
        };
        if head.is_other() && !head.has_named_primary() {
            remove_own_headers(&head.headers);
            return Action::Continue;
        }
        head.forwarding.hops = match self.head(&head).hops() {
            Ok(hops) => hops,
            Err(problem) => return self.refuse(&head, &problem),
        };
        if head.is_other() {
            return self.skip(head, Skip::OtherRequest { end });
        }
        head.forwarding.uncompressed = self.worker.config.telemetry.token_usage;
        if let Some(reason) = head.unreadable(self.worker.config.max_body_bytes, end) {
            return self.skip(head, reason);
        }
        if end {
            return self.refuse(&head, &Problem::Body(BodyError::Empty));
        }
        self.phase = Phase::Reading(head);
        Action::Pause
    }

    /// Sends a request to its primary without having read it. Its model is not known, so the first
    /// Model API that its path and headers allow says what the primary is.
    fn skip(&mut self, head: Incoming, reason: Skip) -> Action {
        let Some(api) = head.candidates.unread() else {
            return Action::Continue;
        };
        let mut unread = Unread::new(api, reason, Shape::of_path(&head.path));
        let may_have_model = head.header("upgrade").is_some() || reason.has_body();
        if let Err(problem) = self
            .head(&head)
            .admit_unread(unread.step().name(), may_have_model)
        {
            return self.refuse(&head, &problem);
        }
        self.record(&api.name, RequestResult::Skipped(reason));
        let handoff = self.handoff(unread.plan(), &head, false);
        unread.set_fitted_by(self.send(&handoff, unread.step(), None, &head));
        self.phase = Phase::Unread(Box::new(unread));
        Action::Continue
    }

    fn refuse(&mut self, head: &Incoming, problem: &Problem) -> Action {
        if let (Some(api), Some(refusal)) = (head.candidates.unread(), problem.refusal()) {
            self.record(&api.name, RequestResult::Refused(refusal));
        }
        self.answer(Reply::new(Shape::of_path(&head.path), problem))
    }

    /// Tells metrics and access logs what became of a request that was not planned.
    fn record(&self, api: &str, result: RequestResult) {
        self.worker.metrics.request(api, result);
        self.write_log_entry(&Entry {
            api,
            result: result.label(),
            reason: result.reason(),
            ..Entry::default()
        });
    }

    fn write_log_entry(&self, entry: &Entry<'_>) {
        if self.worker.config.telemetry.access_log {
            entry.write();
        }
    }

    /// The whole request is here.
    fn on_complete(&mut self, mut head: Incoming) -> Action {
        let Some(body) = head.body.take_whole() else {
            return self.refuse(&head, &Problem::Body(BodyError::Lost));
        };
        let parsed = match RequestBody::read(&body) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(&head, &Problem::Body(error)),
        };
        match self.head(&head).plan(&parsed, &body) {
            Ok(Some(plan)) => self.act(plan, parsed, body, head),
            Ok(None) => {
                head.body.put_back(&body);
                remove_own_headers(&head.headers);
                Action::Continue
            }
            Err(problem) => self.refuse(&head, &problem),
        }
    }

    fn head<'a>(&'a self, head: &'a Incoming) -> Head<'a> {
        Head {
            config: &self.worker.config,
            candidates: &head.candidates,
            headers: &head.headers,
        }
    }

    /// Sends the request on its way, and keeps what a fallback may need.
    fn act(
        &mut self,
        mut plan: Plan,
        parsed: RequestBody,
        body: Vec<u8>,
        head: Incoming,
    ) -> Action {
        self.write_log_entry(&Entry {
            api: &plan.api().name,
            ..Entry::default()
        });
        self.worker.check_health(&mut plan);
        let now = host::now();
        let mut exchange = Exchange::begin(now, plan);
        let by_attempt_filter = self.worker.fitted_by(exchange.plan()) == FittedBy::AttemptFilter;
        if by_attempt_filter && exchange.may_call() {
            exchange = exchange.by_router();
        }
        let effect = exchange.start(now, self.worker.by_router);
        let mut fitted_by = FittedBy::default();
        if effect != Effect::Pass {
            // Envoy is not to buffer what it will not send.
            host::drop_part(self.worker.root, self.id);
        } else if let Some(first) = exchange.current() {
            head.body.put_back(&body);
            let handoff = self.handoff(exchange.plan(), &head, exchange.is_by_router());
            fitted_by = self.send(&handoff, first, Some((&parsed, &body)), &head);
        }
        let shape = Shape::of_path(&head.path);
        let original = Original {
            fitted_by,
            headers: head.headers,
            forwarding: head.forwarding,
            body,
            parsed,
        };
        let stream = Stream::new(
            now,
            self.id,
            Rc::clone(&self.worker),
            exchange,
            shape,
            original,
        );
        let stream = self.worker.admit(now, self.id, stream);
        self.phase = Phase::Acting(Rc::clone(&stream));
        stream.borrow_mut().begin(now, effect)
    }

    fn handoff(&self, plan: &Plan, head: &Incoming, judges: bool) -> Handoff {
        let total_timeout = plan.total_timeout().filter(|_| judges);
        Handoff {
            plan: plan.clone(),
            judges,
            deadline: total_timeout.map(|total| host::wall_now() + total),
            hops: head.forwarding.hops,
            uncompressed: head.forwarding.uncompressed,
            tells_all: self.worker.config.telemetry.is_on(),
        }
    }

    /// Lets the request go along Envoy's route. In `dispatch: callout` it is made to fit the service at its end here. In
    /// `dispatch: router` it stays as it came, but for the filter's own headers: the filters behind this one, and the
    /// route, are to see what the client has sent.
    fn send(
        &self,
        handoff: &Handoff,
        first: &Step,
        body: Option<(&RequestBody, &[u8])>,
        head: &Incoming,
    ) -> FittedBy {
        let fitted_by = match first.service {
            // Where the route decides, the cluster may be any.
            None if !handoff.judges => FittedBy::default(),
            _ => self.worker.fitted_by(&handoff.plan),
        };
        if fitted_by == FittedBy::AttemptFilter {
            remove_own_headers(&head.headers);
            router::hand_over(handoff);
            if handoff.judges {
                router::allow_attempts(&handoff.plan, &head.headers);
            }
        } else {
            let edit = body.and_then(|(parsed, _)| handoff.plan.edit(first, parsed));
            fit_headers(first, head);
            if let (Some(edit), Some((_, body))) = (edit, body) {
                fit_body(&edit, body, head);
            }
        }
        if self.worker.by_router {
            choose_cluster(first);
        }
        fitted_by
    }

    /// A path that fits no Model API. With `access`, it must fit none either once somebody behind the filter makes it normal:
    /// what the caller may use would not be looked at.
    fn on_unknown_path(&mut self, path: &[u8]) -> Action {
        let config = &self.worker.config;
        if config.access.is_none() {
            return Action::Continue;
        }
        for path in normal_paths(path) {
            let header = |name: &str| host::header(MapOf::RequestHeaders, name);
            let candidates = config.candidates(&path, header);
            if let Some(api) = candidates.unread() {
                let refused = RequestResult::Refused(Refusal::Denied);
                self.record(&api.name, refused);
                return self.answer(Reply::new(Shape::of_path(&path), &Problem::Path));
            }
        }
        Action::Continue
    }

    fn answer(&mut self, reply: Reply) -> Action {
        let answer = Answer::from(reply);
        self.phase = Phase::Answered;
        host::reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    /// The trailers of a request that this filter has made to fit its service.
    fn fit_trailers(&self) {
        match &self.phase {
            Phase::Acting(stream) => {
                if let Some(stream) = free(stream) {
                    stream.fit_trailers();
                }
            }
            Phase::Unread(unread) => unread.fit_trailers(),
            _ => {}
        }
    }

    fn rest_of_request(&self) -> Action {
        match &self.phase {
            Phase::Answered => Action::Pause,
            Phase::Acting(stream) if free(stream).is_some_and(|stream| stream.holds_request()) => {
                Action::Pause
            }
            _ => Action::Continue,
        }
    }
}

impl HttpContext for RequestFilter {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        // Most requests are none of ours: one host call tells.
        let map = MapOf::RequestHeaders;
        let path = host::header(map, ":path").unwrap_or_default();
        let candidates = self
            .worker
            .config
            .candidates(&path, |name| host::header(map, name));
        if candidates.is_empty() {
            return self.on_unknown_path(&path);
        }
        self.on_head(path, candidates, end)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        let mut head = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Reading(head) => head,
            other => {
                self.phase = other;
                return self.rest_of_request();
            }
        };
        head.body.size = size;
        if head.body.len() > self.worker.config.max_body_bytes {
            head.body.put_back_parts();
            return self.skip(head, Skip::TooLarge);
        }
        if end || head.content_length() == u64::try_from(head.body.len()).ok() {
            return self.on_complete(head);
        }
        if head.holder() == Holder::Filter {
            if !head.body.keep_part() {
                return self.refuse(&head, &Problem::Body(BodyError::Lost));
            }
            host::drop_part(self.worker.root, self.id);
        }
        self.phase = Phase::Reading(head);
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let action = match std::mem::replace(&mut self.phase, Phase::Idle) {
            // The filter holds the whole body, and there is no part of it under way in whose place it could be put back. A callout
            // could carry it, but past all filters behind ours.
            Phase::Reading(head) if !head.body.parts.is_empty() => {
                self.refuse(&head, &Problem::Body(BodyError::Trailers))
            }
            Phase::Reading(head) => self.on_complete(head),
            other => {
                self.phase = other;
                self.rest_of_request()
            }
        };
        self.fit_trailers();
        action
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        match &mut self.phase {
            Phase::Acting(stream) => match stream.try_borrow_mut() {
                Ok(mut stream) => stream.on_response_headers(end),
                Err(_) => {
                    self.worker.interrupt();
                    Action::Continue
                }
            },
            Phase::Unread(unread) => match unread.on_response_headers(&self.worker) {
                Ok(()) => Action::Continue,
                Err(problem) => {
                    let reply = Reply::new(unread.shape(), &problem);
                    self.answer(reply)
                }
            },
            Phase::Reading(head) => {
                self.worker.on_answer_to_held_request(head.body.len());
                Action::Continue
            }
            _ => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        match &mut self.phase {
            Phase::Acting(stream) => free(stream).map_or(Action::Continue, |mut stream| {
                stream.on_response_body(size, end)
            }),
            Phase::Unread(unread) => {
                unread.on_response_body(size);
                Action::Continue
            }
            _ => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        match &self.phase {
            Phase::Acting(stream) => {
                free(stream).map_or(Action::Continue, |mut stream| stream.on_response_trailers())
            }
            _ => Action::Continue,
        }
    }

    /// The stream ends: with its answer, or since the client left. Comes before Envoy's own access logs, after its
    /// traces, and before the attempts end that are under way (Envoy 1.36, 1.39 and 1.40).
    fn on_log(&mut self) {
        match &self.phase {
            Phase::Acting(stream) => {
                if let Some(mut stream) = free(stream) {
                    stream.on_end();
                }
            }
            Phase::Unread(unread) => unread.on_end(&self.worker),
            _ => {}
        }
    }
}

impl Context for RequestFilter {
    fn on_http_call_response(&mut self, token: u32, _: usize, body_size: usize, _: usize) {
        self.worker.on_call_answer(token, body_size);
    }
}

/// The stream is gone.
impl Drop for RequestFilter {
    fn drop(&mut self) {
        if let Phase::Acting(stream) = &self.phase {
            match stream.try_borrow() {
                Ok(stream) => {
                    let (due, call) = stream.waits();
                    self.worker.forget(self.id, due, call);
                }
                Err(_) => self.worker.forget_later(self.id),
            }
        }
    }
}

impl Incoming {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_slice())
    }

    /// Whether it is no `POST`, or one that becomes a connection of its own.
    fn is_other(&self) -> bool {
        self.header(":method") != Some(b"POST") || self.header("upgrade").is_some()
    }

    fn content_length(&self) -> Option<u64> {
        let text = self.header("content-length")?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// Who holds the body, once it comes in more than one part.
    fn holder(&mut self) -> Holder {
        let may_end_with_trailers = self.header("trailer").is_some();
        *self.body.holder.get_or_insert_with(|| {
            let protocol = host::property(&["request", "protocol"]).unwrap_or_default();
            match protocol.starts_with(b"HTTP/1") && !may_end_with_trailers {
                true => Holder::Filter,
                false => Holder::Envoy,
            }
        })
    }

    fn has_named_primary(&self) -> bool {
        let api = self.candidates.unread();
        api.is_some_and(|api| api.primary.service.is_some())
    }

    /// Why the body cannot be read, where that shows in the headers.
    fn unreadable(&self, max: usize, end: bool) -> Option<Skip> {
        let mut encodings = self
            .headers
            .iter()
            .filter(|(name, _)| name == "content-encoding");
        if encodings.any(|(_, value)| !value.eq_ignore_ascii_case(b"identity")) {
            return Some(Skip::Compressed);
        }
        if !self.header("content-type").map_or(!end, is_json) {
            return Some(Skip::NotJson);
        }
        let length = self.content_length();
        // A `usize` has 32 bits here, and a length may have more.
        length
            .is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max))
            .then_some(Skip::TooLarge)
    }
}

impl IncomingBody {
    /// Bytes that have come.
    fn len(&self) -> usize {
        self.parts.len() + self.size
    }

    /// Takes the part under way to those before it. False where it cannot be read.
    fn keep_part(&mut self) -> bool {
        if self.size > 0 {
            let part = host::buffer(BodyOf::Request, 0, self.size);
            if part.len() != self.size {
                return false;
            }
            self.parts.extend_from_slice(&part);
            self.size = 0;
        }
        true
    }

    /// The whole body. `None` where it cannot be read.
    fn take_whole(&mut self) -> Option<Vec<u8>> {
        self.under_way = self.size;
        self.is_in_parts = !self.parts.is_empty();
        self.keep_part().then(|| std::mem::take(&mut self.parts))
    }

    /// Puts the whole body in the place of its last part, where the filter holds the others.
    fn put_back(&self, whole: &[u8]) {
        if self.is_in_parts {
            host::replace_start(BodyOf::Request, self.under_way, whole);
        }
    }

    /// Puts the parts before the one under way.
    fn put_back_parts(&self) {
        if !self.parts.is_empty() {
            host::replace_start(BodyOf::Request, 0, &self.parts);
        }
    }
}

/// The stream, unless Envoy calls it back from within one of its own host calls.
fn free(stream: &Rc<RefCell<Stream>>) -> Option<RefMut<'_, Stream>> {
    stream.try_borrow_mut().ok()
}

/// `application/json`, `text/json` and `application/…+json`, with or without parameters.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence == b"application/json" || essence == b"text/json" || essence.ends_with(b"+json")
}

/// Makes the held request headers fit a service.
fn fit_headers(step: &Step, head: &Incoming) {
    let map = MapOf::RequestHeaders;
    for (name, value) in step.header_changes(&head.headers, head.forwarding) {
        match value {
            Some(value) => host::set_header(map, &name, &value),
            None => host::remove_header(map, &name),
        }
    }
}

fn remove_own_headers(headers: &[Header]) {
    for (name, _) in headers.iter().filter(|(name, _)| fit::is_own(name)) {
        host::remove_header(MapOf::RequestHeaders, name);
    }
}

/// Tells the route's matcher the cluster of a service. Without a named service, the matcher's `on_no_match` is
/// taken.
fn choose_cluster(step: &Step) {
    if let Some(service) = &step.service {
        router::set_cluster(&service.cluster);
        router::choose_route_again();
    }
}

/// Makes the held body fit a service: only the bytes of the model name change, and `models` goes.
fn fit_body(edit: &Edit, body: &[u8], head: &Incoming) {
    let (length, start) = edit.prefix(body);
    host::replace_start(BodyOf::Request, length, &start);
    if head.header("content-length").is_some() {
        let length = edit.len_after(body.len()).to_string();
        host::set_header(MapOf::RequestHeaders, "content-length", length.as_bytes());
    }
}
