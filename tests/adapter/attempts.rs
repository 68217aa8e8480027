//! The attempt filter: each attempt fits its service, and no answer goes on unjudged.

use ai_fallback::core::progress::Progress;
use proxy_wasm::types::Action;
use serde_json::json;

use crate::emulator::Stream;
use crate::gateway::*;

fn start() -> Gateway {
    Gateway::start(&by_router(config()))
}

/// Ends an attempt as the router does before it begins the next.
fn fail(attempt: &mut Stream) {
    attempt.service_answers("503", b"no");
    attempt.finish();
}

#[test]
fn without_a_plan_it_does_nothing() {
    let mut gateway = start();
    let mut request = gateway.stream();
    request.request(
        &[(":method", "POST"), (":path", "/x"), (":authority", "g")],
        BODY,
    );
    let sent = request.upstream_request_headers();
    let mut attempt = gateway.attempt(&mut request, 1, "openai-cluster");
    gateway.reset_host_calls();
    assert_eq!(attempt.request_of(&request), Action::Continue);
    assert_eq!(attempt.service_says("503", false), Action::Continue);
    assert_eq!(attempt.response_body(b"no", true), Action::Continue);
    assert_eq!(attempt.upstream_request_headers(), sent);
    assert_eq!(attempt.answered().header("x-ai-fallback-retry"), None);
    assert_eq!(request.filter_state("wasm.ai_fallback.seen"), None);
    assert_eq!(gateway.metric("attempt_filters model_service=openai"), 1);
    gateway.reset_host_calls();
    let mut again = gateway.attempt(&mut request, 1, "openai-cluster");
    again.request_of(&request);
    let calls = gateway.host_calls().total();
    assert_eq!(
        calls, 3,
        "it asks for a plan, where it is, and for the time"
    );
    assert_eq!(gateway.metric("attempt_filters model_service=openai"), 1);
}

/// There is nothing to fall back to, or the request wants none.
#[test]
fn a_plan_that_judges_nothing_is_fitted_and_no_more() {
    let mut no_fallback = by_router(config());
    no_fallback["model_apis"][0]
        .as_object_mut()
        .unwrap()
        .remove("fallback");
    let mut gateway = Gateway::start(&no_fallback);
    let mut request = gateway.ask(BODY);
    let sent = request.upstream_request_headers();
    assert_eq!(sent.get("authorization").as_deref(), Some("Bearer client"));
    assert_eq!(sent.get(":authority").as_deref(), Some("gateway"));
    assert_eq!(sent.get("x-envoy-max-retries"), None);
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    let fitted = attempt.upstream_request_headers();
    for (name, value) in [
        (":authority", Some("api.openai.com")),
        ("authorization", Some("Bearer openai")),
        ("x-openai-only", Some("1")),
        ("x-keep", Some("1")),
    ] {
        assert_eq!(fitted.get(name).as_deref(), value, "{name}");
    }
    assert_eq!(
        attempt.upstream_request_body(),
        br#"{"model":"gpt-4o-2024-11-20","n":1}"#
    );
    assert_eq!(attempt.service_says("503", false), Action::Continue);
    assert_eq!(attempt.response_body(b"no", true), Action::Continue);
    assert_eq!(attempt.answered().header("x-ai-fallback-retry"), None);
    assert_eq!(attempt.answered().header("x-ai-fallback-attempts"), None);
    assert_eq!(up(&attempt, &mut request), Action::Continue);
    assert_eq!(trail(&request.answered()), ["openai;503"]);
    assert_eq!(gateway.logged("event=missing_attempt_filter"), 0);
    attempt.finish();
    gateway.expect_idle();
}

/// By a retry policy of the route, or since a client that Envoy trusts has asked for it.
#[test]
fn a_plan_that_judges_nothing_may_be_tried_again() {
    let mut plain = by_router(config());
    plain["model_apis"][0]
        .as_object_mut()
        .unwrap()
        .remove("fallback");
    plain["services"]["openai"]["path"] = json!("/openai{path}");
    let mut gateway = Gateway::start(&plain);
    let mut request = gateway.ask(BODY);
    let mut map = headers_of(&request);
    for count in [1, 2] {
        let mut attempt = gateway.attempt(&mut request, count, "openai-cluster");
        attempt.request_headers(&map, false);
        attempt.request_body(BODY, true);
        let path = attempt.upstream_request_headers().get(":path");
        assert_eq!(path, Some(format!("/openai{CHAT}")));
        map = headers_of(&attempt);
        attempt.finish();
    }
}

/// The headers are still the client's own, so the request may not go to the service.
#[test]
fn a_plan_of_another_configuration_is_not_followed() {
    let mut other = by_router(config());
    other["model_apis"][0]["name"] = json!("other");
    let mut gateway = start();
    let text = other.to_string();
    let root_id = "ai_fallback_attempt";
    let plugin = crate::emulator::Plugin {
        root_id,
        name: root_id,
        config: text.as_bytes(),
        ..Default::default()
    };
    let root = gateway.add_root(plugin).unwrap();
    for _ in 0..2 {
        let mut request = gateway.ask(BODY);
        let mut attempt = gateway.attempt_stream(&request, root);
        for stream in [&mut request, &mut attempt] {
            stream.set_property(&["upstream", "request_attempt_count"], &1_u64.to_le_bytes());
        }
        let action = attempt.request_of(&request);
        expect_the_attempt_by_callout(&mut gateway, action, attempt, request);
    }
    assert_eq!(gateway.logged("event=other_configuration"), 1);
}

/// An attempt was refused before anything was sent: the request filter makes it itself.
fn expect_the_attempt_by_callout(
    gateway: &mut Gateway,
    action: Action,
    attempt: Stream,
    mut request: Stream,
) {
    assert_eq!(action, Action::Pause);
    assert!(!attempt.request_released());
    let label = attempt.answered().header("x-ai-fallback-retry");
    assert_eq!(label.as_deref(), Some("not_made"));
    assert_eq!(up(&attempt, &mut request), Action::Pause);
    let callout = gateway.callout();
    assert_eq!(callout.cluster, "openai-cluster");
    let authorization = callout.headers.get("authorization");
    assert_eq!(authorization.as_deref(), Some("Bearer openai"));
    gateway.called_service_answers("200", b"{}");
    let answer = request.answered();
    assert_eq!(trail(&answer), ["openai;200"]);
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
}

#[test]
fn the_plan_is_handed_to_the_router() {
    let rules = json!({"first_packet_timeout_ms": 300, "request_timeout_ms": 700});
    let mut gateway = Gateway::start(&by_router(config_with(rules)));
    for (body, per_try) in [(STREAM, "300"), (BODY, "700")] {
        let request = gateway.ask(body);
        let sent = request.upstream_request_headers();
        assert_eq!(sent.get("x-envoy-max-retries").as_deref(), Some("2"));
        assert_eq!(
            sent.get("x-envoy-upstream-rq-per-try-timeout-ms")
                .as_deref(),
            Some(per_try)
        );
        assert_eq!(cluster(&request), "openai-cluster");
    }
    assert_eq!(gateway.foreign_calls("clear_route_cache"), 2);
    // The router keeps the time; what is left is the tick for the gauges.
    assert_eq!(gateway.metric("deadlines"), 0);
}

fn cluster(stream: &Stream) -> String {
    String::from_utf8(stream.filter_state("wasm.ai_fallback.cluster").unwrap()).unwrap()
}

#[test]
fn each_failure_names_the_cluster_of_the_next() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    assert_eq!(cluster(&request), "openai-cluster");
    for (count, own, next) in [
        (1, "openai", "qwen"),
        (2, "qwen", "local"),
        (3, "local", "local"),
    ] {
        let mut attempt = gateway.attempted(&mut request, count, &format!("{own}-cluster"));
        fail(&mut attempt);
        assert_eq!(cluster(&request), format!("{next}-cluster"));
    }
    assert_eq!(gateway.metric("fallbacks"), 2);
}

#[test]
fn the_second_attempt_is_made_from_what_the_client_sent() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    assert_eq!(
        first.upstream_request_body(),
        br#"{"model":"gpt-4o-2024-11-20","n":1}"#
    );
    fail(&mut first);
    let mut second = gateway.attempt(&mut request, 2, "qwen-cluster");
    // A filter of the first cluster has added a credential to the shared map.
    let mut map = headers_of(&first);
    map.push(("x-added-in-cluster", b"secret".to_vec()));
    map.push(("x-envoy-attempt-count", b"2".to_vec()));
    assert_eq!(second.request_headers(&map, false), Action::Pause);
    let body = request.upstream_request_body();
    assert_eq!(second.request_body(&body[..9], false), Action::Pause);
    // Envoy has the first part in its buffer, whose limit nobody knows: it is changed in a tick.
    assert_eq!(second.request_body(&body[9..], true), Action::Pause);
    gateway.advance(ms(1));
    assert_eq!(
        second.upstream_request_body(),
        br#"{"model":"qwen-plus","n":1}"#
    );
    let sent = second.upstream_request_headers();
    for (name, value) in [
        (":path", Some("/qwen/v1/chat/completions")),
        (":authority", Some("gateway")),
        (":method", Some("POST")),
        ("authorization", Some("Bearer qwen")),
        ("content-length", Some("27")),
        ("x-keep", Some("1")),
        ("x-envoy-attempt-count", Some("2")),
        ("x-openai-only", None),
        ("x-added-in-cluster", None),
    ] {
        assert_eq!(sent.get(name).as_deref(), value, "{name}");
    }
    fail(&mut second);
    let third = gateway.attempted(&mut request, 3, "local-cluster");
    assert_eq!(
        third.upstream_request_body(),
        BODY,
        "as the client wrote it"
    );
    let sent = third.upstream_request_headers();
    assert_eq!(sent.get(":path").as_deref(), Some(CHAT));
    assert_eq!(sent.get("authorization"), None);
    assert_eq!(sent.get("content-length"), Some(BODY.len().to_string()));
}

/// The headers that an attempt went out with.
fn headers_of(attempt: &Stream) -> Vec<(&'static str, Vec<u8>)> {
    let sent = attempt.upstream_request_headers().0;
    sent.into_iter()
        .map(|(name, value)| (&*name.leak(), value))
        .collect()
}

#[test]
fn a_model_that_was_added_for_the_primary_is_taken_back() {
    let mut gateway = start();
    let mut request = gateway.ask(b"{\"n\":1}");
    for (count, name, body) in [
        (1, "openai", r#"{"model":"gpt-4o-2024-11-20","n":1}"#),
        (2, "qwen", r#"{"model":"qwen-plus","n":1}"#),
        (3, "local", r#"{"n":1}"#),
    ] {
        let mut attempt = gateway.attempted(&mut request, count, &format!("{name}-cluster"));
        let sent = attempt.upstream_request_body();
        assert_eq!(String::from_utf8_lossy(&sent), body);
        let length = attempt.upstream_request_headers().get("content-length");
        assert_eq!(length, Some(body.len().to_string()));
        fail(&mut attempt);
    }
}

#[test]
fn request_trailers_end_the_body_of_an_attempt() {
    let mut gateway = start();
    let mut request = gateway.stream();
    request.request_headers(&headers(BODY), false);
    request.request_body(BODY, false);
    request.request_trailers(&[("x-sum", "1")]);
    fail(&mut gateway.attempted(&mut request, 1, "openai-cluster"));
    let second = gateway.attempted(&mut request, 2, "qwen-cluster");
    assert_eq!(
        second.upstream_request_body(),
        br#"{"model":"qwen-plus","n":1}"#
    );
    assert!(second.request_complete());
}

// Answers.

/// What the router sees of attempt `count` to a request that failed before.
fn attempt_number(gateway: &mut Gateway, body: &[u8], count: u64) -> (Stream, Stream) {
    let mut request = gateway.ask(body);
    for (count, name) in (1..count).zip(["openai", "qwen"]) {
        fail(&mut gateway.attempted(&mut request, count, &format!("{name}-cluster")));
    }
    let name = ["openai", "qwen", "local"][count as usize - 1];
    let attempt = gateway.attempted(&mut request, count, &format!("{name}-cluster"));
    (request, attempt)
}

fn written_trail(request: &Stream) -> Option<String> {
    let progress = request.filter_state("wasm.ai_fallback.progress")?;
    let progress = Progress::decode(&progress).unwrap();
    Some(progress.trail().as_str().to_owned())
}

#[test]
fn a_failed_answer_asks_for_a_retry_and_is_written_down() {
    let mut gateway = start();
    let (request, mut attempt) = attempt_number(&mut gateway, BODY, 1);
    gateway.advance(ms(12));
    assert_eq!(attempt.service_says("503", false), Action::Continue);
    assert_eq!(
        attempt.answered().header("x-ai-fallback-retry").as_deref(),
        Some("503")
    );
    assert_eq!(written_trail(&request).as_deref(), Some("openai;503;12ms"));
    gateway.advance(ms(5));
    attempt.finish();
    assert_eq!(
        written_trail(&request).as_deref(),
        Some("openai;503;12ms"),
        "once"
    );
}

#[test]
fn a_good_answer_is_settled_with_the_whole_trail() {
    let mut gateway = start();
    let (request, mut attempt) = attempt_number(&mut gateway, STREAM, 2);
    assert_eq!(attempt.service_says("200", false), Action::Pause);
    assert_eq!(attempt.response_body(b": hi\n\n", false), Action::Pause);
    gateway.advance(ms(7));
    assert_eq!(
        attempt.response_body(b"data: {}\n\n", false),
        Action::Continue
    );
    let answer = attempt.answered();
    assert_eq!(
        answer.header("x-ai-fallback-attempts").as_deref(),
        Some("openai;503;0ms, qwen;200;7ms")
    );
    assert_eq!(service(&answer).as_deref(), Some("qwen"));
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
    assert_eq!(
        attempt.response_body(b"data: {\"error\":1}\n\n", true),
        Action::Continue
    );
    assert_eq!(written_trail(&request).as_deref(), Some("openai;503;0ms"));
}

#[test]
fn an_error_at_the_start_of_a_stream_asks_for_a_retry() {
    let mut gateway = start();
    let (_, mut attempt) = attempt_number(&mut gateway, STREAM, 1);
    assert_eq!(attempt.service_says("200", false), Action::Pause);
    assert_eq!(
        attempt.response_body(b"event: error\n", false),
        Action::Pause,
        "its data may name the kind of error"
    );
    assert_eq!(
        attempt.response_body(b"data: {}\n\n", false),
        Action::Continue
    );
    assert_eq!(
        attempt.answered().header("x-ai-fallback-retry").as_deref(),
        Some("stream_error")
    );
}

#[test]
fn the_last_answer_asks_for_nothing() {
    let mut gateway = start();
    for (status, event, label) in [
        ("200", "data: {}\n\n", "200"),
        ("200", "event: error\ndata: {}\n\n", "stream_error"),
        ("503", "no", "503"),
    ] {
        let (_, mut attempt) = attempt_number(&mut gateway, STREAM, 3);
        attempt.service_says(status, false);
        assert_eq!(
            attempt.response_body(event.as_bytes(), false),
            Action::Continue
        );
        let answer = attempt.answered();
        assert_eq!(answer.header("x-ai-fallback-retry"), None);
        let last = format!("local;{label}");
        assert_eq!(trail(&answer), ["openai;503", "qwen;503", &last]);
    }
}

#[test]
fn an_attempt_without_an_answer_is_written_down_by_how_long_it_took() {
    let rules = json!({"first_packet_timeout_ms": 300, "request_timeout_ms": 700});
    for (body, took, label) in [
        (STREAM, 299, "first_packet_timeout;299ms"),
        (STREAM, 20, "reset;20ms"),
        (BODY, 699, "request_timeout;699ms"),
        (BODY, 300, "reset;300ms"),
    ] {
        let mut gateway = Gateway::start(&by_router(config_with(rules.clone())));
        let (request, mut attempt) = attempt_number(&mut gateway, body, 1);
        gateway.advance(ms(took));
        attempt.finish();
        assert_eq!(written_trail(&request), Some(format!("openai;{label}")));
    }
}

/// What has come of a first event is all there is, when trailers end the stream.
#[test]
fn a_first_event_may_be_ended_by_trailers() {
    let mut gateway = start();
    for (event, retry) in [
        ("data: {}", None),
        ("data: {\"error\":1}", Some("stream_error")),
    ] {
        let (_, mut attempt) = attempt_number(&mut gateway, STREAM, 1);
        attempt.service_says("200", false);
        assert_eq!(
            attempt.response_body(event.as_bytes(), false),
            Action::Pause
        );
        assert_eq!(
            attempt.response_trailers(&[("x-sum", "1")]),
            Action::Continue
        );
        assert_eq!(
            attempt.answered().header("x-ai-fallback-retry").as_deref(),
            retry
        );
    }
}

#[test]
fn comments_do_not_hide_what_comes_after_them() {
    let mut gateway = start();
    let body = [
        b": keep-alive\n\n".repeat(4_000).as_slice(),
        b"data: {}\n\n",
    ]
    .concat();
    for ends in [false, true] {
        let (_, mut attempt) = attempt_number(&mut gateway, STREAM, 1);
        attempt.service_says("200", false);
        assert_eq!(attempt.response_body(&body, ends), Action::Continue);
        assert_eq!(
            attempt.answered().header("x-ai-fallback-retry"),
            None,
            "ends: {ends}"
        );
    }
}

/// A service may be a gateway with this filter itself.
#[test]
fn a_failed_answer_is_not_taken_for_a_settled_one() {
    let mut gateway = start();
    let (mut request, mut attempt) = attempt_number(&mut gateway, BODY, 1);
    let spoofed = [
        (":status", "503"),
        ("x-ai-fallback-attempts", "far;503;1ms"),
        ("x-ai-fallback-service", "far"),
    ];
    attempt.response(&spoofed, b"no");
    assert_eq!(
        up(&attempt, &mut request),
        Action::Pause,
        "not retried: a callout follows"
    );
    gateway.called_service_answers("200", b"{}");
    let answer = request.answered();
    assert_eq!(trail(&answer), ["openai;503", "qwen;200"]);
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
}

// Envoy's configuration is wrong.

#[test]
fn what_is_for_one_service_is_not_sent_to_the_cluster_of_another() {
    let mut gateway = start();
    for _ in 0..3 {
        let mut request = gateway.ask(BODY);
        fail(&mut gateway.attempted(&mut request, 1, "openai-cluster"));
        let mut second = gateway.attempt(&mut request, 2, "openai-cluster");
        assert_eq!(second.request_of(&request), Action::Pause);
        assert!(!second.request_released());
        let answer = second.answered();
        assert_eq!(
            (
                answer.status,
                answer.header("x-ai-fallback-retry").as_deref()
            ),
            (503, Some("not_made"))
        );
        assert_eq!(up(&second, &mut request), Action::Pause);
        // The request filter makes the attempt itself.
        assert_eq!(gateway.callout().cluster, "qwen-cluster");
        gateway.called_service_answers("200", b"{}");
        assert_eq!(trail(&request.answered()), ["openai;503", "qwen;200"]);
    }
    assert_eq!(gateway.logged("event=wrong_cluster"), 1);
}

#[test]
fn a_primary_in_the_wrong_cluster_is_told_of() {
    let mut gateway = start();
    for _ in 0..2 {
        let mut request = gateway.ask(BODY);
        gateway.attempted(&mut request, 1, "another-cluster");
    }
    assert_eq!(gateway.logged("event=wrong_cluster"), 1);
}

/// The first cluster has no attempt filter, so nobody knows what the client's own headers were.
#[test]
fn what_was_for_a_cluster_without_the_filter_goes_to_no_other() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    let mut second = gateway.attempt(&mut request, 2, "qwen-cluster");
    second.request_of(&request);
    if second.request_released() {
        let sent = second.upstream_request_headers();
        assert_ne!(sent.get("authorization").as_deref(), Some("Bearer openai"));
        assert_eq!(sent.get("x-openai-only"), None);
    }
}

#[test]
fn a_count_that_makes_no_sense_is_no_attempt() {
    let mut gateway = start();
    for count in [0, u64::MAX] {
        let mut request = gateway.ask(BODY);
        let mut attempt = gateway.attempt(&mut request, count, "openai-cluster");
        let action = attempt.request_of(&request);
        expect_the_attempt_by_callout(&mut gateway, action, attempt, request);
    }
}

#[test]
fn an_attempt_past_the_end_of_the_plan_is_stopped() {
    let mut gateway = start();
    for count in [4, 99] {
        let (mut request, mut last) = attempt_number(&mut gateway, BODY, 3);
        last.finish();
        assert_eq!(
            written_trail(&request).as_deref(),
            Some("openai;503;0ms, qwen;503;0ms, local;reset;0ms")
        );
        let mut attempt = gateway.attempt(&mut request, count, "local-cluster");
        assert_eq!(attempt.request_of(&request), Action::Pause, "{count}");
        assert!(!attempt.request_released());
        let label = attempt.answered().header("x-ai-fallback-retry");
        assert_eq!(label.as_deref(), Some("not_made"));
    }
}

#[test]
fn a_plan_that_is_damaged_is_none() {
    let mut gateway = start();
    for plan in [b"\xff\xff\xff\xff".as_slice(), b"\x02\0\0\0"] {
        let mut request = gateway.ask(BODY);
        let mut attempt = gateway.attempt(&mut request, 1, "openai-cluster");
        attempt.set_property(&["ai_fallback.plan"], plan);
        let action = attempt.request_of(&request);
        expect_the_attempt_by_callout(&mut gateway, action, attempt, request);
    }
}
