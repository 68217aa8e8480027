//! What is counted and timed, in the corners that a whole Envoy comes to by chance only.

use serde_json::{Value, json};

use crate::emulator::{Plugin, Stream};
use crate::gateway::*;

fn times(gateway: &Gateway, name: &str) -> Vec<u64> {
    gateway.histogram(&format!("ai_fallback.{name}"))
}

/// Asserts the counts, by their names and labels.
fn assert_counts(gateway: &Gateway, expected: &[(&str, u64)]) {
    for (metric, count) in expected {
        assert_eq!(gateway.metric(metric), *count, "{metric}");
    }
}

#[test]
fn the_times_are_those_that_it_took() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(STREAM);
    gateway.advance(ms(20));
    stream.service_says("200", false);
    gateway.advance(ms(30));
    stream.response_body(b"data: {}\n\n", false);
    gateway.advance(ms(400));
    stream.response_body(b"data: [DONE]\n\n", true);
    assert!(stream.gone());
    assert_eq!(
        times(&gateway, "first_packet_ms.model_service=openai"),
        [50]
    );
    assert_eq!(times(&gateway, "attempt_ms.model_service=openai"), [450]);

    let mut stream = gateway.ask(STREAM);
    gateway.advance(ms(70));
    stream.service_answers("503", b"no");
    gateway.advance(ms(600));
    gateway.called_service_answers("200", b"data: {}\n\n");
    assert_eq!(
        times(&gateway, "attempt_ms.model_service=openai"),
        [450, 70]
    );
    assert_eq!(times(&gateway, "attempt_ms.model_service=qwen"), [600]);
    assert_eq!(times(&gateway, "fallback_delay_ms.model_api=chat"), [70]);
    // An answer of a callout comes whole.
    assert_eq!(
        times(&gateway, "first_packet_ms.model_service=qwen"),
        [0; 0]
    );
}

#[test]
fn the_times_of_the_router_are_those_that_it_took() {
    let mut gateway = Gateway::start(&by_router(config()));
    let mut request = gateway.ask(STREAM);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    gateway.advance(ms(70));
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    gateway.advance(ms(20));
    second.service_says("200", false);
    gateway.advance(ms(30));
    second.response_body(b"data: {}\n\n", false);
    up(&second, &mut request);
    gateway.advance(ms(400));
    second.response_body(b"data: [DONE]\n\n", true);
    second.finish();
    assert_eq!(times(&gateway, "attempt_ms.model_service=openai"), [70]);
    assert_eq!(times(&gateway, "first_packet_ms.model_service=qwen"), [50]);
    assert_eq!(times(&gateway, "attempt_ms.model_service=qwen"), [450]);
    assert_eq!(times(&gateway, "fallback_delay_ms.model_api=chat"), [70]);
    request.disconnect();
}

/// The headers alone say nothing of a first packet, and without rules nothing else is held.
#[test]
fn without_a_fallback_no_first_packet_is_waited_for() {
    let mut config = config();
    let api = config["model_apis"][0].as_object_mut().unwrap();
    api.remove("fallback");
    let mut gateway = Gateway::start(&config);
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    gateway.advance(ms(300));
    stream.response_body(b"data: {}\n\n", true);
    assert!(stream.gone());
    assert_eq!(
        times(&gateway, "first_packet_ms.model_service=openai"),
        [0; 0]
    );
    assert_eq!(times(&gateway, "attempt_ms.model_service=openai"), [300]);
}

/// The request filter ends the attempt, and goes on by a callout. Envoy lets the attempt live on.
#[test]
fn an_attempt_that_is_cut_and_then_answers_counts_once() {
    let reserve = json!({"total_timeout_ms": 4_000, "reserve_ms": 1_500});
    let held = json!({"deliver": "complete", "first_packet_timeout_ms": 300});
    for (rules, body, wait, outcome) in [
        (reserve, BODY, 2_700, "request_timeout"),
        (held, STREAM, 450, "first_packet_timeout"),
    ] {
        for status in ["200", "503"] {
            let mut gateway = Gateway::start(&by_router(config_with(rules.clone())));
            let mut request = gateway.ask(body);
            let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
            gateway.advance(ms(wait));
            assert_eq!(gateway.callout().cluster, "qwen-cluster");
            first.service_answers(status, b"data: {}\n\n");
            up(&first, &mut request);
            gateway.called_service_answers("200", b"data: {}\n\n");
            first.finish();
            let answer = request.answered();
            let cut = format!("openai;{outcome}");
            assert_eq!(trail(&answer), [cut.as_str(), "qwen;200"], "{status}");
            assert_counts(
                &gateway,
                &[
                    ("requests", 1),
                    ("requests result=fallback", 1),
                    ("attempts", 2),
                    ("attempts model_service=openai", 1),
                    (&format!("attempts outcome={outcome}"), 1),
                    ("fallbacks", 1),
                ],
            );
            assert_eq!(times(&gateway, "attempt_ms.model_service=openai").len(), 1);
        }
    }
}

#[test]
fn an_attempt_that_was_not_begun_is_none() {
    let mut gateway = Gateway::start(&by_router(config()));
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    // The router waits a little before the next one.
    request.disconnect();
    assert_counts(
        &gateway,
        &[
            ("attempts", 1),
            ("attempts outcome=503", 1),
            ("fallbacks", 0),
            ("requests result=gone", 1),
        ],
    );
}

/// Envoy answers past the filter, and the fallback under way is lost.
#[test]
fn what_an_earlier_answer_does_is_not_counted_for_the_service_that_is_called() {
    let mut gateway = Gateway::start(&config());
    let mut request = gateway.ask(BODY);
    request.service_says("503", false);
    assert_eq!(gateway.callout().cluster, "qwen-cluster");
    request.set_property(
        &["response", "code_details"],
        b"upstream_reset_after_response_started{connection_termination}",
    );
    request.disconnect();
    assert_counts(
        &gateway,
        &[
            ("requests result=failed reason=fallback_failed", 1),
            ("attempts model_service=openai outcome=503", 1),
            ("attempts model_service=qwen outcome=cancelled", 1),
            ("attempts", 2),
        ],
    );
}

#[test]
fn an_attempt_that_waits_to_be_sent_is_none() {
    let mut config = config_with(json!({"retry": {"backoff_ms": 1_000, "max_backoff_ms": 1_000}}));
    config["model_apis"][0]["primary"]["retries"] = 1.into();
    let mut gateway = Gateway::start(&by_router(config));
    for (waits, retries, attempts) in [(0, 0, 1), (1_100, 1, 3)] {
        let mut request = gateway.ask(BODY);
        let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
        first.service_answers("503", b"no");
        first.finish();
        let mut second = gateway.attempted(&mut request, 2, "openai-cluster");
        gateway.advance(ms(waits));
        request.disconnect();
        second.disconnect();
        assert_counts(&gateway, &[("retries", retries), ("attempts", attempts)]);
    }
    assert_counts(&gateway, &[("attempts outcome=cancelled", 1)]);
}

/// The first attempt begins once, also where it is made by a callout in the end.
#[test]
fn a_fallback_that_the_attempt_filter_refuses_is_one() {
    let mut config = config();
    config["cooldown"] = json!({"failures": 1, "time_ms": 10_000});
    let mut gateway = Gateway::start(&by_router(config));
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    second.service_answers("200", b"{}");
    up(&second, &mut request);
    second.finish();
    let mut request = gateway.ask(BODY);
    let wrong = gateway.attempted(&mut request, 1, "openai-cluster");
    up(&wrong, &mut request);
    gateway.called_service_answers("200", b"{}");
    assert_eq!(trail(&request.answered()), ["openai", "qwen;200"]);
    assert_counts(
        &gateway,
        &[
            ("fallbacks reason=503", 1),
            ("fallbacks reason=cooling", 1),
            ("requests result=fallback", 2),
        ],
    );
    assert_eq!(gateway.logged("event=fallback"), 2);
}

#[test]
fn an_unread_request_is_counted_and_timed() {
    let compressed = [
        (":method", "POST"),
        (":path", CHAT),
        (":authority", "g"),
        ("content-encoding", "gzip"),
    ];
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    stream.request(&compressed, b"\x1f\x8b");
    gateway.advance(ms(40));
    stream.service_says("200", false);
    gateway.advance(ms(50));
    stream.response_body(b"{}", true);
    assert!(stream.gone());
    assert_eq!(times(&gateway, "attempt_ms.model_service=openai"), [90]);
    let mut stream = gateway.stream();
    stream.request(&compressed, b"\x1f\x8b");
    stream.disconnect();
    assert_counts(
        &gateway,
        &[
            ("requests result=skipped reason=compressed", 2),
            ("attempts outcome=2xx", 1),
            ("attempts outcome=cancelled", 1),
        ],
    );
}

#[test]
fn a_refused_request_is_counted_with_its_reason() {
    let mut config = config();
    config["max_hops"] = 1.into();
    config["access"] = json!({
        "identity_header": "x-team",
        "default_policy": {"deny": {"models": ["gpt-4o*"]}},
    });
    let mut gateway = Gateway::start(&config);
    for (body, hops) in [
        ("{", "0"),
        (r#"{"model":"gpt-4o"}"#, "0"),
        (r#"{"model":"gpt-4o"}"#, "1"),
    ] {
        let mut head = headers(body.as_bytes());
        head.push(("x-ai-hops", hops.to_owned()));
        let mut stream = gateway.stream();
        stream.request(&head, body.as_bytes());
        assert!(stream.answered().status >= 400);
    }
    let reasons = ["bad_request", "denied", "loop"];
    for reason in reasons {
        let metric = format!("requests result=refused reason={reason}");
        assert_counts(&gateway, &[(&metric, 1)]);
    }
    assert_counts(&gateway, &[("requests", 3), ("attempts", 0)]);
}

#[test]
fn an_answer_of_the_gateway_that_goes_to_the_client_is_counted_as_that() {
    let mut gateway = Gateway::start(&config_with(json!({"only_backend_errors": true})));
    let mut stream = gateway.ask(BODY);
    stream.envoy_answers("429", "rate_limited");
    assert_eq!(stream.answered().status, 429);
    let counted = [
        "requests result=intercepted",
        "attempts outcome=intercepted",
    ];
    assert_counts(&gateway, &counted.map(|metric| (metric, 1)));
}

/// A listener and a cluster get a new configuration one after the other.
#[test]
fn the_access_log_is_right_where_only_the_request_filter_writes_one() {
    let with_log = |is_on: bool| -> Value {
        let mut config = by_router(config());
        config["telemetry"] = json!({"access_log": is_on});
        config
    };
    let other = with_log(false).to_string();
    let mut gateway = Gateway::start(&with_log(true));
    let root_id = "ai_fallback_attempt";
    let attempts = gateway.add_root(Plugin {
        root_id,
        name: root_id,
        config: other.as_bytes(),
        ..Plugin::default()
    });
    let attempts = attempts.unwrap();
    let mut request = gateway.ask(BODY);
    let ends = [("openai-cluster", "503"), ("qwen-cluster", "200")];
    for (count, (cluster, status)) in (1_u64..).zip(ends) {
        let mut attempt = gateway.attempt_stream(&request, attempts);
        for stream in [&mut request, &mut attempt] {
            stream.set_property(&["upstream", "request_attempt_count"], &count.to_le_bytes());
            stream.set_property(&["xds", "cluster_name"], cluster.as_bytes());
        }
        attempt.request_of(&request);
        attempt.service_answers(status, b"{}");
        if status == "200" {
            up(&attempt, &mut request);
        }
        attempt.finish();
    }
    let told = |stream: &Stream, key: &str| {
        let value = stream.filter_state(&format!("wasm.ai_fallback.{key}"));
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(told(&request, "result").as_deref(), Some("fallback"));
    assert_eq!(told(&request, "service").as_deref(), Some("qwen"));
    let attempts = request.answered().header("x-ai-fallback-attempts");
    assert_eq!(told(&request, "attempts"), attempts);
}
