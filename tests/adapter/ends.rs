//! Clients that leave, and what is left behind: nothing.

use serde_json::json;

use crate::emulator::Stream;
use crate::gateway::*;

/// Brings a request into a phase.
type Phase = fn(&mut Gateway) -> Stream;

const PHASES: [(&str, Phase); 10] = [
    ("head", |gateway| {
        let mut stream = gateway.stream();
        stream.request_headers(&headers(BODY), false);
        stream
    }),
    ("half a body", |gateway| {
        let mut stream = gateway.stream();
        stream.request_headers(&headers(BODY), false);
        stream.request_body(&BODY[..5], false);
        stream
    }),
    ("sent", |gateway| gateway.ask(STREAM)),
    ("answer begun", |gateway| {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        stream
    }),
    ("answer flows", |gateway| {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        stream.response_body(b"data: {}\n\n", false);
        stream
    }),
    ("called", |gateway| {
        let mut stream = gateway.ask(STREAM);
        stream.service_answers("503", b"no");
        stream
    }),
    ("called again", |gateway| {
        let mut stream = gateway.ask(STREAM);
        stream.service_answers("503", b"no");
        gateway.called_service_answers("503", b"no");
        stream
    }),
    ("called by a tick", |gateway| {
        let stream = gateway.ask(STREAM);
        gateway.advance(ms(300));
        assert_eq!(gateway.callout().cluster, "qwen-cluster");
        stream
    }),
    ("called by a tick, answer late", |gateway| {
        let mut stream = gateway.ask(STREAM);
        gateway.advance(ms(300));
        stream.service_says("200", false);
        stream.response_body(b"data: {}\n\n", false);
        stream
    }),
    ("unread", |gateway| {
        let mut stream = gateway.stream();
        stream.request_headers(
            &[(":method", "POST"), (":path", CHAT), (":authority", "g")],
            false,
        );
        stream
    }),
];

fn rules() -> serde_json::Value {
    config_with(json!({"first_packet_timeout_ms": 300, "total_timeout_ms": 9_000}))
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    for (name, phase) in PHASES {
        for later in [0, 1, 100, 1_500] {
            eprintln!("{name}, {later} ms later");
            let mut gateway = Gateway::start(&rules());
            let mut stream = phase(&mut gateway);
            if later < 300 || !name.starts_with("sent") {
                gateway.advance(ms(later));
            }
            stream.disconnect();
            gateway.expect_idle();
            assert_eq!(gateway.live_streams(), 0);
        }
    }
}

/// Envoy 1.40 does not cancel a callout when its stream ends. The SDK drops the answer to one that a
/// stream made; one that a tick made comes to the root.
#[test]
fn an_answer_that_comes_after_the_client_left_is_dropped_or_counted() {
    for (by_tick, counted) in [(false, 0), (true, 1)] {
        let mut gateway = Gateway::start(&rules());
        let mut stream = gateway.ask(STREAM);
        if by_tick {
            gateway.advance(ms(300));
        } else {
            stream.service_answers("503", b"no");
        }
        let token = gateway.callout().token;
        stream.disconnect();
        let other = gateway.ask(STREAM);
        gateway.answer(token, &[(":status", "200")], b"data: late\n\n", &[]);
        assert_eq!(gateway.metric("unknown_answers"), counted);
        assert!(other.unanswered());
    }
}

#[test]
fn the_gauges_say_what_is_under_way() {
    let mut gateway = Gateway::start(&rules());
    let mut called = gateway.ask(STREAM);
    called.service_answers("503", b"no");
    let mut waiting = gateway.ask(BODY);
    gateway.advance(ms(1_000));
    let gauges = ["active_requests", "active_calls", "deadlines"];
    assert_eq!(gauges.map(|name| gateway.metric(name)), [2, 1, 1]);
    waiting.disconnect();
    called.disconnect();
    gateway.expect_idle();
}

/// An answer that flows has no deadline, so there is no tick that could tell of its end.
#[test]
fn the_gauges_are_right_when_a_long_answer_ends() {
    let mut gateway = Gateway::start(&rules());
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    stream.response_body(b"data: {}\n\n", false);
    gateway.advance(ms(60_000));
    stream.response_body(b"data: [DONE]\n\n", true);
    assert!(stream.gone());
    gateway.expect_idle();
}

#[test]
fn an_upstream_that_breaks_off_ends_the_stream() {
    let mut gateway = Gateway::start(&rules());
    for begun in [false, true] {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        if begun {
            stream.response_body(b"data: {}\n\n", false);
        }
        stream.upstream_reset();
        assert!(stream.gone());
    }
    gateway.expect_idle();
}

#[test]
fn with_the_router_too() {
    let config = by_router(config_with(json!({"total_timeout_ms": 9_000})));
    for answered in [false, true] {
        let mut gateway = Gateway::start(&config);
        let mut request = gateway.ask(STREAM);
        let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
        if answered {
            attempt.service_says("200", false);
        }
        attempt.disconnect();
        request.disconnect();
        gateway.expect_idle();
    }
}
