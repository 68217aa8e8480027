//! `dispatch: callout`, from the first failure to the answer.

use proxy_wasm::types::Action;
use serde_json::json;

use crate::gateway::*;

#[test]
fn a_good_answer_passes_with_its_trail() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    assert_eq!(stream.service_says("200", false), Action::Pause);
    assert_eq!(stream.response_body(b"{", false), Action::Continue);
    assert_eq!(stream.response_body(b"}", true), Action::Continue);
    let answer = stream.answered();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert_eq!(trail(&answer), ["openai;200"]);
    assert_eq!(service(&answer).as_deref(), Some("openai"));
    gateway.expect_idle();
}

#[test]
fn a_failed_answer_is_held_and_exchanged() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    gateway.advance(ms(12));
    assert_eq!(
        stream.service_answers("503", b"primary is down"),
        Action::Pause
    );
    assert!(stream.unanswered());
    let callout = gateway.callout();
    assert_eq!(callout.cluster, "qwen-cluster");
    assert_eq!(callout.body, br#"{"model":"qwen-plus","n":1}"#);
    assert_eq!(callout.timeout, ms(60_000));
    for (name, value) in [
        (":method", Some("POST")),
        (":path", Some("/qwen/v1/chat/completions")),
        (":authority", Some("gateway")),
        ("authorization", Some("Bearer qwen")),
        ("x-keep", Some("1")),
        ("content-length", Some("27")),
        ("x-openai-only", None),
    ] {
        assert_eq!(callout.headers.get(name).as_deref(), value, "{name}");
    }
    gateway.advance(ms(840));
    gateway.called_service_answers("200", b"{\"from\":\"qwen\"}");
    let answer = stream.answered();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"from\":\"qwen\"}")
    );
    assert_eq!(
        answer.header("x-ai-fallback-attempts").as_deref(),
        Some("openai;503;12ms, qwen;200;840ms")
    );
    assert_eq!(service(&answer).as_deref(), Some("qwen"));
    assert_eq!(answer.header("content-length").as_deref(), Some("15"));
    assert_eq!(
        answer.header("x-from"),
        None,
        "a header of the failed answer"
    );
    assert!(!stream.replied() && stream.gone());
    assert_eq!(gateway.metric("fallbacks"), 1);
    gateway.expect_idle();
}

#[test]
fn a_pass_through_attempt_carries_the_body_as_it_came() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    stream.service_answers("500", b"x");
    gateway.called_service_answers("500", b"y");
    let callout = gateway.callout();
    assert_eq!(
        (callout.cluster.as_str(), callout.body.as_slice()),
        ("local-cluster", BODY)
    );
    assert_eq!(
        callout.headers.get("authorization"),
        None,
        "neither the client's nor qwen's"
    );
    gateway.called_service_answers("429", b"last");
    let answer = stream.answered();
    assert_eq!((answer.status, answer.text().as_str()), (429, "last"));
    assert_eq!(trail(&answer), ["openai;500", "qwen;500", "local;429"]);
}

#[test]
fn a_callout_that_envoy_refuses_is_passed_over() {
    let mut gateway = Gateway::start(&config());
    gateway.set_clusters(["openai-cluster", "local-cluster"]);
    let mut stream = gateway.ask(BODY);
    stream.service_answers("500", b"x");
    assert_eq!(gateway.callout().cluster, "local-cluster");
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&stream.answered()),
        ["openai;500", "qwen;reset", "local;200"]
    );
    gateway.expect_idle();
}

#[test]
fn when_every_callout_is_refused_the_client_is_told() {
    let mut gateway = Gateway::start(&config());
    gateway.set_clusters(["openai-cluster"]);
    let mut stream = gateway.ask(BODY);
    assert_eq!(stream.service_says("500", false), Action::Pause);
    gateway.wait_for_failed_answer();
    let answer = stream.answered();
    assert_eq!((answer.status, answer.ended), (502, true));
    assert_eq!(trail(&answer), ["openai;500", "qwen;reset", "local;reset"]);
    gateway.expect_idle();
}

#[test]
fn a_callout_without_an_answer_is_a_reset() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    stream.service_answers("500", b"x");
    let token = gateway.callout().token;
    gateway.answer_nothing(token);
    assert_eq!(gateway.callout().cluster, "local-cluster");
    let token = gateway.callout().token;
    gateway.answer(token, &[(":status", "503")], b"upstream connect error", &[]);
    assert_eq!(stream.answered().status, 502);
    assert_eq!(
        trail(&stream.answered()),
        ["openai;500", "qwen;reset", "local;reset"]
    );
}

#[test]
fn a_callout_that_takes_too_long_is_ended_by_envoy() {
    let mut gateway = Gateway::start(&config_with(json!({"request_timeout_ms": 1000})));
    let mut stream = gateway.ask(BODY);
    stream.service_answers("500", b"x");
    gateway.advance(ms(1000));
    assert_eq!(gateway.callout().cluster, "local-cluster");
    gateway.advance(ms(1000));
    assert_eq!(stream.answered().status, 504);
    assert_eq!(
        trail(&stream.answered()),
        [
            "openai;500",
            "qwen;request_timeout",
            "local;request_timeout"
        ]
    );
    gateway.expect_idle();
}

#[test]
fn a_limit_of_the_gateway_is_a_failure_unless_it_is_not_wanted() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    assert_eq!(
        stream.envoy_answers("429", "local_rate_limited"),
        Action::Pause
    );
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&stream.answered()),
        ["openai;intercepted", "qwen;200"]
    );
    drop(gateway);
    let mut gateway = Gateway::start(&config_with(json!({"only_backend_errors": true})));
    let mut stream = gateway.ask(BODY);
    assert_eq!(
        stream.envoy_answers("429", "local_rate_limited"),
        Action::Continue
    );
    assert_eq!(
        (stream.answered().status, service(&stream.answered())),
        (429, None)
    );
    gateway.expect_idle();
}

#[test]
fn envoy_s_own_failures_are_known_by_their_details() {
    let mut gateway = Gateway::start(&config());
    for (status, details, label) in [
        (
            "503",
            "upstream_reset_before_response_started{connection_failure}",
            "reset",
        ),
        ("503", "no_healthy_upstream", "reset"),
        ("503", "cluster_not_found", "reset"),
        ("504", "upstream_response_timeout", "request_timeout"),
        ("504", "stream_idle_timeout", "request_timeout"),
        ("504", "max_duration_timeout", "request_timeout"),
        ("504", "upstream_per_try_timeout", "request_timeout"),
    ] {
        let mut stream = gateway.ask(BODY);
        assert_eq!(stream.envoy_answers(status, details), Action::Pause);
        gateway.called_service_answers("200", b"{}");
        assert_eq!(
            trail(&stream.answered()),
            [&format!("openai;{label}"), "qwen;200"]
        );
    }
    gateway.expect_idle();
}

// Time.

#[test]
fn no_first_packet_in_time_sends_the_request_on() {
    let mut gateway = Gateway::start(&config_with(json!({"first_packet_timeout_ms": 300})));
    for headers_came in [false, true] {
        let mut stream = gateway.ask(STREAM);
        gateway.advance(ms(100));
        if headers_came {
            assert_eq!(stream.service_says("200", false), Action::Pause);
            assert_eq!(stream.response_body(b": wait\n\n", false), Action::Pause);
        }
        gateway.advance(ms(199));
        assert!(gateway.callouts().is_empty());
        gateway.advance(ms(1));
        assert_eq!(gateway.callout().cluster, "qwen-cluster");
        gateway.called_service_answers("200", b"data: {}\n\n");
        let answer = stream.answered();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "data: {}\n\n")
        );
        assert_eq!(trail(&answer), ["openai;first_packet_timeout", "qwen;200"]);
        assert!(stream.replied(), "the routed answer never ended");
    }
    gateway.expect_idle();
}

#[test]
fn a_late_answer_of_the_primary_is_dropped() {
    let mut gateway = Gateway::start(&config_with(json!({"first_packet_timeout_ms": 300})));
    for ends in [false, true] {
        let mut stream = gateway.ask(STREAM);
        gateway.advance(ms(300));
        assert_eq!(stream.service_says("200", false), Action::Pause);
        assert_eq!(
            stream.response_body(b"data: late\n\n", false),
            Action::Pause
        );
        assert_eq!(
            stream.response_body(b"data: later\n\n", ends),
            Action::Pause
        );
        assert!(stream.unanswered());
        gateway.called_service_answers("200", b"data: {}\n\n");
        let answer = stream.answered();
        assert_eq!(answer.text(), "data: {}\n\n");
        assert_eq!(answer.header("content-length").as_deref(), Some("10"));
        assert_eq!(stream.replied(), !ends);
    }
    gateway.expect_idle();
}

#[test]
fn all_attempts_together_have_a_limit() {
    let mut gateway = Gateway::start(&config_with(json!({"total_timeout_ms": 1000})));
    let stream = gateway.ask(BODY);
    gateway.advance(ms(1000));
    let answer = stream.answered();
    assert_eq!((answer.status, answer.ended), (504, true));
    assert_eq!(trail(&answer), ["openai;request_timeout"]);
    let mut stream = gateway.ask(BODY);
    gateway.advance(ms(400));
    stream.service_answers("500", b"x");
    assert_eq!(gateway.callout().timeout, ms(600));
    gateway.advance(ms(600));
    assert_eq!(
        trail(&stream.answered()),
        ["openai;500", "qwen;request_timeout"]
    );
    gateway.expect_idle();
}

#[test]
fn many_streams_are_each_due_at_their_time() {
    let mut gateway = Gateway::start(&config_with(json!({"first_packet_timeout_ms": 300})));
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let stream = gateway.ask(STREAM);
            gateway.advance(ms(10));
            stream
        })
        .collect();
    for due in 0..20 {
        assert_eq!(gateway.callouts().len(), due);
        gateway.advance(ms(if due == 0 { 100 } else { 10 }));
    }
    for callout in gateway.callouts() {
        gateway.answer(
            callout.token,
            &[(":status", "200"), ("x-envoy-upstream-service-time", "1")],
            b"data: {}\n\n",
            &[],
        );
    }
    assert!(streams.iter().all(|stream| stream.answered().ended));
    gateway.expect_idle();
}
