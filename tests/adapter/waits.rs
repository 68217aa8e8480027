//! Attempts that wait, and attempts that are waited for no longer.

use proxy_wasm::types::Action;
use serde_json::{Value, json};

use crate::emulator::Stream;
use crate::gateway::*;

const EVENT: &[u8] = b"data: {}\n\n";

/// The primary is tried again once, after exactly 80 ms.
fn retrying() -> Value {
    let mut config = config_with(json!({"retry": {"backoff_ms": 0, "max_backoff_ms": 0}}));
    config["model_apis"][0]["primary"]["retries"] = json!(1);
    config
}

fn asks_for_time(stream: &mut Stream) -> Action {
    stream.set_property(&["response", "code_details"], b"via_upstream");
    stream.response(
        &[
            (":status", "503"),
            ("retry-after-ms", "80"),
            ("content-length", "2"),
        ],
        b"no",
    )
}

#[test]
fn a_request_rests_before_the_same_service_is_called_again() {
    let mut gateway = Gateway::start(&retrying());
    let mut stream = gateway.ask(BODY);
    assert_eq!(asks_for_time(&mut stream), Action::Pause);
    gateway.advance(ms(79));
    assert!(gateway.callouts().is_empty() && stream.unanswered());
    gateway.advance(ms(1));
    assert_eq!(gateway.callout().cluster, "openai-cluster");
    gateway.called_service_answers("503", b"no");
    assert_eq!(gateway.callout().cluster, "qwen-cluster");
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&stream.answered()),
        ["openai;503", "openai;503", "qwen;200"]
    );
    assert_eq!(
        (gateway.metric("retries"), gateway.metric("fallbacks")),
        (1, 1)
    );
    gateway.expect_idle();
}

#[test]
fn a_client_that_leaves_while_its_request_rests_leaves_nothing_behind() {
    let mut gateway = Gateway::start(&retrying());
    let mut stream = gateway.ask(BODY);
    asks_for_time(&mut stream);
    stream.disconnect();
    gateway.advance(ms(200));
    assert!(gateway.callouts().is_empty());
    gateway.expect_idle();
}

/// The first attempt has failed; the second is under way, and rests.
fn resting(gateway: &mut Gateway) -> (Stream, Stream) {
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    assert_eq!(asks_for_time(&mut first), Action::Continue);
    first.finish();
    let mut second = gateway.attempt(&mut request, 2, "openai-cluster");
    assert_eq!(second.request_of(&request), Action::Pause);
    (request, second)
}

#[test]
fn with_the_router_an_attempt_is_held_until_it_has_rested() {
    let mut gateway = Gateway::start(&by_router(retrying()));
    let (mut request, mut second) = resting(&mut gateway);
    gateway.advance(ms(79));
    assert!(!second.request_released());
    gateway.advance(ms(1));
    assert!(second.request_complete());
    assert_eq!(
        second.upstream_request_body(),
        br#"{"model":"gpt-4o-2024-11-20","n":1}"#
    );
    gateway.advance(ms(7));
    second.service_answers("200", b"{}");
    up(&second, &mut request);
    assert_eq!(
        request
            .answered()
            .header("x-ai-fallback-attempts")
            .as_deref(),
        Some("openai;503;0ms, openai;200;7ms"),
        "the rest is not counted"
    );
    second.finish();
    assert_eq!(
        (gateway.metric("retries"), gateway.metric("fallbacks")),
        (1, 0)
    );
    gateway.expect_idle();
}

#[test]
fn an_attempt_that_ends_while_it_rests_leaves_nothing_behind() {
    let mut gateway = Gateway::start(&by_router(retrying()));
    let (mut request, mut second) = resting(&mut gateway);
    second.disconnect();
    request.disconnect();
    gateway.advance(ms(200));
    assert!(!second.request_released());
    gateway.expect_idle();
}

/// The timeout of the router has run since before the rest.
#[test]
fn a_timeout_of_an_attempt_that_has_rested_is_told_from_a_reset() {
    for (after, label) in [(120, "request_timeout;120ms"), (70, "reset;70ms")] {
        let mut config = by_router(retrying());
        config["model_apis"][0]["fallback"]["request_timeout_ms"] = json!(200);
        let mut gateway = Gateway::start(&config);
        let (request, mut second) = resting(&mut gateway);
        gateway.advance(ms(80 + after));
        second.finish();
        let written = request.filter_state("wasm.ai_fallback.progress").unwrap();
        let progress = ai_fallback::core::progress::Progress::decode(&written).unwrap();
        let expected = format!("openai;503;0ms, openai;{label}");
        assert_eq!(progress.trail().as_str(), expected);
    }
}

#[test]
fn a_held_answer_that_comes_to_a_halt_is_given_up() {
    let rules = json!({"deliver": "complete", "stream_idle_timeout_ms": 500});
    let mut gateway = Gateway::start(&by_router(config_with(rules)));
    let mut request = gateway.ask(STREAM);
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    assert_eq!(attempt.service_says("200", false), Action::Pause);
    for _ in 0..3 {
        gateway.advance(ms(499));
        assert_eq!(attempt.response_body(EVENT, false), Action::Pause);
    }
    gateway.advance(ms(499));
    assert!(attempt.unanswered());
    gateway.advance(ms(1));
    let answer = attempt.answered();
    assert_eq!(
        (
            answer.status,
            answer.header("x-ai-fallback-retry").as_deref()
        ),
        (504, Some("stream_idle_timeout"))
    );
    assert_eq!(answer.header("x-ai-fallback-attempts"), None);
    attempt.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    second.service_says("200", false);
    assert_eq!(second.response_body(EVENT, true), Action::Continue);
    up(&second, &mut request);
    assert_eq!(
        trail(&request.answered()),
        ["openai;stream_idle_timeout", "qwen;200"]
    );
    second.finish();
    gateway.expect_idle();
}

/// The router has one timeout for all attempts, so what a later one leaves to the next is kept by the request filter.
#[test]
fn the_request_filter_takes_over_for_the_sake_of_the_next() {
    let rules = json!({"total_timeout_ms": 1_000, "reserve_ms": 300, "request_timeout_ms": 0});
    let mut gateway = Gateway::start(&by_router(config_with(rules)));
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    gateway.advance(ms(200));
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    gateway.advance(ms(500));
    assert!(gateway.callouts().is_empty());
    gateway.advance(ms(30));
    assert_eq!(gateway.callout().cluster, "local-cluster");
    // The router does not know, and tries again.
    second.finish();
    let mut third = gateway.attempt(&mut request, 3, "local-cluster");
    assert_eq!(third.request_of(&request), Action::Pause);
    assert!(!third.request_released());
    assert_eq!(
        third.answered().header("x-ai-fallback-retry").as_deref(),
        Some("not_made")
    );
    up(&third, &mut request);
    assert!(request.unanswered(), "the callout is waited for");
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&request.answered()),
        ["openai;503", "qwen;request_timeout", "local;200"]
    );
    third.finish();
    gateway.expect_idle();
}
