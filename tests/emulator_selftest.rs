//! The emulator itself, under a toy filter: each test pins one behaviour of Envoy that others rely on.

#![allow(
    clippy::disallowed_methods,
    reason = "the toy filter may panic: the test would show it"
)]

mod emulator;

use emulator::{Plugin, Stream, Vm};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType, MetricType, Status};
use std::cell::RefCell;
use std::time::Duration;

const REQUEST_HEADERS: MapType = MapType::HttpRequestHeaders;
const RESPONSE_HEADERS: MapType = MapType::HttpResponseHeaders;
const SECOND: Duration = Duration::from_secs(1);

// The toy: what it does is chosen by the request header `x-do`.

thread_local! {
    /// Streams that the next tick acts on, and what it does.
    static DUE: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
    /// What the toy saw, in order.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn saw(what: impl Into<String>) {
    SEEN.with_borrow_mut(|seen| seen.push(what.into()));
}

fn seen() -> Vec<String> {
    SEEN.take()
}

fn register() {
    proxy_wasm::set_root_context(|_| Box::new(ToyRoot));
}

struct ToyRoot;

impl Context for ToyRoot {
    fn on_http_call_response(&mut self, token: u32, _: usize, _: usize, _: usize) {
        saw(format!("root answer {token}"));
    }
}

impl RootContext for ToyRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        let config = self.get_plugin_configuration().unwrap_or_default();
        self.set_tick_period(SECOND);
        let root_id = self.get_property(vec!["plugin_root_id"]).unwrap();
        hostcalls::log(
            proxy_wasm::types::LogLevel::Error,
            &format!("{root_id:?} {config:?}"),
        )
        .unwrap();
        config != b"bad"
    }

    fn on_tick(&mut self) {
        for (id, action) in DUE.take() {
            if hostcalls::set_effective_context(id).is_err() {
                saw("dead");
                continue;
            }
            match action.as_str() {
                "reply" => hostcalls::send_http_response(504, vec![], Some(b"late")).unwrap(),
                "call" => call("up").unwrap(),
                other => panic!("{other}"),
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Toy {
            id,
            act: String::new(),
            responses: 0,
        }))
    }
}

struct Toy {
    id: u32,
    act: String,
    responses: u32,
}

fn call(cluster: &str) -> Result<(), Status> {
    let headers = vec![(":method", "POST"), (":path", "/"), (":authority", "a")];
    hostcalls::dispatch_http_call(cluster, headers, Some(b"again"), vec![], 2 * SECOND).map(|_| ())
}

impl Context for Toy {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        let headers = hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).unwrap();
        saw("stream answer");
        match self.act.as_str() {
            "swap" => {
                hostcalls::set_map_bytes(RESPONSE_HEADERS, headers).unwrap();
                self.set_http_response_body(0, usize::MAX, &body.unwrap());
                self.resume_http_response();
            }
            "call then reply" | "swap by reply" => {
                self.send_http_response(200, vec![("x-by", "toy")], body.as_deref())
            }
            "call then resume" => self.resume_http_request(),
            _ => {}
        }
    }

    fn on_done(&mut self) -> bool {
        saw("done");
        true
    }
}

impl HttpContext for Toy {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let act = hostcalls::get_map_value_bytes(REQUEST_HEADERS, "x-do").unwrap();
        self.act = String::from_utf8(act.unwrap_or_default()).unwrap();
        match self.act.as_str() {
            "rewrite" | "change late" => return Action::Pause,
            "reply" => self.send_http_response(403, vec![], Some(b"no")),
            "reply and resume" => {
                self.send_http_response(403, vec![], None);
                self.resume_http_request();
            }
            "call then reply" | "call then resume" => {
                call("up").unwrap();
                return Action::Pause;
            }
            "resume and pause" => {
                self.resume_http_request();
                return Action::Pause;
            }
            "tick reply" | "tick call" => {
                let act = self.act.replace("tick ", "");
                DUE.with_borrow_mut(|due| due.push((self.id, act)));
                return Action::Pause;
            }
            "unknown cluster" => saw(format!("{:?}", call("nowhere"))),
            "count" => count(),
            "plan" => self.set_property(vec!["plan"], Some(b"b")),
            "attempt" => {
                let plan = self.get_property(vec!["plan"]).unwrap();
                self.set_http_request_header_bytes("x-plan", Some(&plan));
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        saw(format!("request {size} {end}"));
        if self.act == "rewrite" && end {
            let body = self.get_http_request_body(0, size).unwrap();
            self.set_http_request_body(0, size, &body.to_ascii_uppercase());
            self.set_http_request_body(size, 0, b"!");
            self.set_http_request_header("content-length", None);
            self.add_http_request_header_bytes("x-raw", b"\xff");
            return Action::Continue;
        }
        match self.act.as_str() {
            "rewrite" | "call then reply" | "call then resume" | "tick reply" | "tick call" => {
                Action::Pause
            }
            _ => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        saw(format!("trailers {count}"));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.responses += 1;
        saw(format!("response {end}"));
        if self.responses > 1 {
            return Action::Continue;
        }
        match self.act.as_str() {
            "append to nothing" => saw(format!("set buffer: {:?}", raw_set_buffer())),
            "read late" => saw(format!("get :path: {:?}", raw_path())),
            "change late" => self.set_http_request_header("x-late", Some("1")),
            "hold" => return Action::Pause,
            "swap" | "swap by reply" => {
                call("up").unwrap();
                return Action::Pause;
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        saw(format!("body {size} {end}"));
        match self.act.as_str() {
            "swap" | "swap by reply" => Action::Pause,
            "hold" if !end => Action::Pause,
            "reply too late" if end => {
                self.send_http_response(500, vec![], None);
                Action::Continue
            }
            _ => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        saw("log");
    }
}

// The SDK panics where these two are refused, so that they go past it.
#[allow(unsafe_code)]
fn raw_set_buffer() -> Status {
    unsafe extern "C" {
        fn proxy_set_buffer_bytes(
            kind: u32,
            start: usize,
            size: usize,
            data: *const u8,
            length: usize,
        ) -> Status;
    }
    unsafe { proxy_set_buffer_bytes(1, 0, 0, b"x".as_ptr(), 1) }
}

#[allow(unsafe_code)]
fn raw_path() -> Status {
    unsafe extern "C" {
        fn proxy_get_header_map_value(
            map: u32,
            key: *const u8,
            size: usize,
            data: *mut *mut u8,
            length: *mut usize,
        ) -> Status;
    }
    let (mut data, mut length) = (std::ptr::null_mut(), 0);
    unsafe { proxy_get_header_map_value(0, b":path".as_ptr(), 5, &mut data, &mut length) }
}

fn count() {
    let counter = hostcalls::define_metric(MetricType::Counter, "toy.requests").unwrap();
    hostcalls::increment_metric(counter, 2).unwrap();
    assert!(hostcalls::increment_metric(counter, 0).is_err());
    let gauge = hostcalls::define_metric(MetricType::Gauge, "toy.live").unwrap();
    hostcalls::record_metric(gauge, 7).unwrap();
    hostcalls::set_shared_data("k", Some(b"v"), None).unwrap();
    let (value, cas) = hostcalls::get_shared_data("k").unwrap();
    assert_eq!(value.as_deref(), Some(b"v".as_slice()));
    hostcalls::set_shared_data("k", Some(b"w"), cas).unwrap();
    assert!(hostcalls::set_shared_data("k", Some(b"x"), cas).is_err());
    // Data that is not there yet has any number.
    hostcalls::set_shared_data("first", Some(b""), Some(u32::MAX)).unwrap();
    let (value, cas) = hostcalls::get_shared_data("first").unwrap();
    assert!(value.is_none() && cas.is_some());
    assert!(hostcalls::set_shared_data("first", Some(b"x"), Some(u32::MAX)).is_err());
    hostcalls::call_foreign_function("clear_route_cache", None).unwrap();
    assert!(hostcalls::call_foreign_function("no_such", None).is_err());
}

// Driving.

fn start() -> Vm {
    Vm::start(register, "toy", b"good").unwrap()
}

fn ask(stream: &mut Stream, act: &str, end: bool) -> Action {
    let headers = [
        (":method", "POST"),
        (":path", "/x"),
        (":authority", "a"),
        ("x-do", act),
    ];
    stream.request_headers(&headers, end)
}

/// A stream whose request has gone through whole.
fn asked(vm: &mut Vm, act: &str) -> Stream {
    let mut stream = vm.stream();
    ask(&mut stream, act, true);
    stream
}

// Requests.

#[test]
fn a_paused_request_is_held_whole_rewritten_and_released() {
    let mut vm = start();
    let mut s = vm.stream();
    assert_eq!(ask(&mut s, "rewrite", false), Action::Pause);
    assert_eq!(s.request_body(b"ab", false), Action::Pause);
    assert!(!s.request_released());
    assert_eq!(s.request_body(b"cd", true), Action::Continue);
    assert_eq!(seen(), ["request 2 false", "request 4 true"]);
    assert_eq!(s.upstream_request_body(), b"ABCD!");
    assert_eq!(
        s.upstream_request_headers().first("x-raw"),
        Some(b"\xff".as_slice())
    );
    assert!(s.request_complete());
    assert!(vm.violations().is_empty());
}

#[test]
fn a_request_that_continues_passes_chunk_by_chunk() {
    let mut vm = start();
    let mut s = vm.stream();
    ask(&mut s, "", false);
    assert!(s.request_released());
    s.request_body(b"ab", false);
    assert_eq!(s.upstream_request_body(), b"ab");
    s.request_body(b"cde", false);
    s.request_trailers(&[("t", "1")]);
    assert_eq!(seen(), ["request 2 false", "request 3 false", "trailers 1"]);
    assert_eq!(
        s.upstream_request_trailers().unwrap().get("t").as_deref(),
        Some("1")
    );
    assert!(s.request_complete());
}

#[test]
fn too_much_held_is_answered_413() {
    let mut vm = start();
    vm.set_buffer_limit(3);
    let mut s = vm.stream();
    ask(&mut s, "rewrite", false);
    s.request_body(b"abc", false);
    assert_eq!(s.client_response(), None);
    seen();
    s.request_body(b"d", false);
    assert_eq!(s.client_response().unwrap().status, 413);
    assert_eq!(seen()[..2], ["request 4 false", "response false"]);
    assert!(!s.request_released());
}

#[test]
fn a_pause_beside_a_resume_does_not_hold() {
    let mut vm = start();
    let s = asked(&mut vm, "resume and pause");
    assert!(s.request_complete() && vm.violations().is_empty());
}

#[test]
fn a_callout_may_resume_the_request() {
    let mut vm = start();
    let mut s = vm.stream();
    ask(&mut s, "call then resume", false);
    s.request_body(b"held", true);
    let token = vm.callouts()[0].token;
    vm.answer(token, &[(":status", "200")], b"", &[]);
    assert_eq!(s.upstream_request_body(), b"held");
    assert!(s.request_complete());
}

// Replies.

#[test]
fn a_reply_passes_the_response_callbacks_and_stops_the_request() {
    let mut vm = start();
    let s = asked(&mut vm, "reply");
    let answer = s.client_response().unwrap();
    assert_eq!(
        (answer.status, answer.text(), answer.ended),
        (403, "no".into(), true)
    );
    assert_eq!(answer.header("content-length").as_deref(), Some("2"));
    assert!(!s.request_released());
    assert_eq!(seen(), ["response false", "body 2 true", "log", "done"]);
    assert!(s.gone() && vm.violations().is_empty());
}

#[test]
fn a_reply_while_the_request_waits_ends_it() {
    let mut vm = start();
    let mut s = vm.stream();
    ask(&mut s, "call then reply", false);
    let token = vm.callouts()[0].token;
    vm.answer(token, &[(":status", "200")], b"fallback", &[]);
    let answer = s.client_response().unwrap();
    assert_eq!(
        (answer.text(), answer.header("x-by")),
        ("fallback".into(), Some("toy".into()))
    );
    assert_eq!(s.request_body(b"more", true), Action::Pause);
}

#[test]
fn a_tick_replies_through_the_effective_context() {
    let mut vm = start();
    let s = asked(&mut vm, "tick reply");
    vm.advance(SECOND / 2);
    assert_eq!(s.client_response(), None);
    vm.advance(SECOND / 2);
    assert_eq!(s.client_response().unwrap().status, 504);
}

#[test]
fn a_tick_for_a_dead_stream_is_told_so() {
    let mut vm = start();
    let mut s = asked(&mut vm, "tick reply");
    s.disconnect();
    vm.advance(SECOND);
    assert_eq!(seen(), ["log", "done", "dead"]);
    assert!(vm.violations().is_empty());
}

// Responses.

#[test]
fn a_held_response_is_swapped_after_a_callout() {
    let mut vm = start();
    let mut s = asked(&mut vm, "swap");
    s.response(&[(":status", "503"), ("content-length", "4")], b"fail");
    assert_eq!(s.client_response(), None);
    let callout = vm.callouts().remove(0);
    assert_eq!(
        (callout.cluster.as_str(), callout.body.as_slice()),
        ("up", b"again".as_slice())
    );
    assert_eq!(callout.headers.get("content-length").as_deref(), Some("5"));
    vm.answer(
        callout.token,
        &[(":status", "200"), ("x-raw", "1")],
        b"fallback",
        &[],
    );
    let answer = s.client_response().unwrap();
    assert_eq!(
        (answer.status, answer.text(), answer.ended),
        (200, "fallback".into(), true)
    );
    assert!(vm.callouts().is_empty() && vm.violations().is_empty());
}

#[test]
fn a_reply_in_place_of_held_headers_passes_no_callback() {
    let mut vm = start();
    let mut s = asked(&mut vm, "swap by reply");
    s.response_headers(&[(":status", "503")], true);
    let token = vm.callouts()[0].token;
    vm.answer(token, &[(":status", "200")], b"fallback", &[]);
    assert_eq!(s.client_response().unwrap().text(), "fallback");
    assert_eq!(seen(), ["response true", "stream answer", "log", "done"]);
}

#[test]
fn a_held_response_is_seen_whole_and_then_released() {
    let mut vm = start();
    let mut s = asked(&mut vm, "hold");
    s.response_headers(&[(":status", "200")], false);
    s.response_body(b"ab", false);
    assert_eq!(s.client_response(), None);
    s.response_body(b"cd", true);
    assert_eq!(s.client_response().unwrap().body, b"abcd");
    assert_eq!(
        seen()[..3],
        ["response false", "body 2 false", "body 4 true"]
    );
}

// Callouts.

#[test]
fn a_callout_times_out_in_virtual_time() {
    let mut vm = start();
    let mut s = asked(&mut vm, "swap");
    s.response(&[(":status", "503")], b"fail");
    vm.advance(2 * SECOND);
    assert_eq!(s.client_response().unwrap().status, 504);
}

#[test]
fn an_answer_for_a_client_that_left_reaches_no_one() {
    let mut vm = start();
    let mut s = vm.stream();
    ask(&mut s, "call then reply", true);
    s.disconnect();
    assert_eq!(seen(), ["log", "done"]);
    let callout = vm.callouts().remove(0);
    assert_eq!(callout.stream, Some(s.id));
    vm.answer(callout.token, &[(":status", "200")], b"", &[]);
    assert!(seen().is_empty() && vm.violations().is_empty());
    assert_eq!((s.client_response(), vm.live_streams()), (None, 0));
}

#[test]
fn the_answer_to_a_ticks_callout_comes_to_the_root_even_for_a_dead_stream() {
    let mut vm = start();
    let mut s = asked(&mut vm, "tick call");
    vm.advance(SECOND);
    s.disconnect();
    let token = vm.callouts()[0].token;
    vm.answer(token, &[(":status", "200")], b"", &[]);
    assert_eq!(
        seen(),
        ["log".into(), "done".into(), format!("root answer {token}")]
    );
}

#[test]
fn callouts_can_be_made_to_end_with_their_stream() {
    let mut vm = start();
    vm.end_callouts_with_streams();
    let mut s = vm.stream();
    ask(&mut s, "call then reply", true);
    assert_eq!(vm.callouts().len(), 1);
    s.disconnect();
    assert!(vm.callouts().is_empty());
}

#[test]
fn an_unknown_cluster_is_refused() {
    let mut vm = start();
    vm.set_clusters(["up"]);
    asked(&mut vm, "unknown cluster");
    assert_eq!(seen(), ["Err(BadArgument)"]);
}

// Violations.

#[test]
fn a_reply_followed_by_a_resume_is_a_violation() {
    let mut vm = start();
    asked(&mut vm, "reply and resume");
    assert_eq!(vm.violations(), ["Request resumed after a reply"]);
}

#[test]
fn a_reply_after_the_response_has_begun_is_a_violation() {
    let mut vm = start();
    let mut s = asked(&mut vm, "reply too late");
    s.response(&[(":status", "200")], b"x");
    assert_eq!(
        vm.violations(),
        ["a reply after the response had begun: reset"]
    );
    assert!(s.client_response().unwrap().reset);
}

#[test]
fn a_change_after_release_is_a_violation() {
    let mut vm = start();
    let mut s = vm.stream();
    ask(&mut s, "change late", false);
    s.request_body(b"x", true);
    s.response_headers(&[(":status", "200")], true);
    assert_eq!(
        vm.violations(),
        ["HttpRequestHeaders changed after it was released"]
    );
    assert!(!s.upstream_request_headers().has("x-late"));
}

#[test]
fn a_length_that_is_wrong_after_a_change_is_a_violation() {
    let mut vm = start();
    let mut s = asked(&mut vm, "swap");
    s.response(&[(":status", "503")], b"fail");
    let token = vm.callouts()[0].token;
    vm.answer(
        token,
        &[(":status", "200"), ("content-length", "3")],
        b"four",
        &[],
    );
    assert_eq!(vm.violations(), ["Response has 4 bytes, content-length 3"]);
}

#[test]
fn a_response_that_came_without_a_body_cannot_be_given_one() {
    let mut vm = start();
    let mut s = asked(&mut vm, "append to nothing");
    s.response_headers(&[(":status", "503")], true);
    assert_eq!(seen()[..2], ["response true", "set buffer: BadArgument"]);
    assert_eq!(
        vm.violations(),
        ["HttpResponseBody set at 0 where that cannot be done"]
    );
}

#[test]
fn headers_of_a_released_request_are_out_of_reach() {
    let mut vm = start();
    let mut s = asked(&mut vm, "read late");
    s.response_headers(&[(":status", "200")], true);
    assert_eq!(seen()[..2], ["response true", "get :path: BadArgument"]);
    assert_eq!(
        vm.violations(),
        ["HttpRequestHeaders read (`:path`) when it is not there"]
    );
}

#[test]
fn one_value_of_a_repeated_header_is_the_first() {
    let mut vm = start();
    let mut s = vm.stream();
    s.request_headers(
        &[
            (":method", "GET"),
            (":path", "/"),
            (":authority", "a"),
            ("x-do", "reply"),
            ("x-do", "no"),
        ],
        true,
    );
    assert!(s.replied());
}

// All the rest.

#[test]
fn a_bad_configuration_is_refused_with_its_lines() {
    let refused = Vm::start(register, "toy", b"bad").unwrap_err();
    assert_eq!(refused.logs.len(), 1);
    assert!(Vm::start(register, "toy", b"good").is_ok());
}

#[test]
fn metrics_shared_data_and_host_calls_are_kept() {
    let mut vm = start();
    vm.reset_host_calls();
    asked(&mut vm, "count");
    assert_eq!((vm.counter("toy.requests"), vm.gauge("toy.live")), (2, 7));
    assert_eq!(vm.foreign_calls("clear_route_cache"), 1);
    let calls = vm.host_calls();
    assert_eq!((calls.of("proxy_set_shared_data"), calls.total()), (5, 15));
}

#[test]
fn attempts_share_filter_state_and_one_header_map() {
    let mut vm = start();
    let attempts = Plugin {
        root_id: "toy_attempt",
        ..Plugin::default()
    };
    let attempts = vm.add_root(attempts).unwrap();
    let s = asked(&mut vm, "plan");
    assert_eq!(
        s.filter_state("wasm.plan").as_deref(),
        Some(b"b".as_slice())
    );
    let mut first = vm.attempt_stream(&s, attempts);
    first.request_of(&s);
    assert!(!first.upstream_request_headers().has("x-plan"));
    let mut headers = s.upstream_request_headers();
    headers.set("x-do", b"attempt");
    let pairs: Vec<_> = headers
        .0
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let mut second = vm.attempt_stream(&s, attempts);
    second.request_headers(&pairs, true);
    let mut third = vm.attempt_stream(&s, attempts);
    third.request_of(&s);
    assert_eq!(
        third.upstream_request_headers().get("x-plan").as_deref(),
        Some("b")
    );
}
