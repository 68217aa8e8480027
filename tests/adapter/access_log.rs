//! What is written down for access logs, and what that costs.

use serde_json::{Value, json};

use crate::emulator::Stream;
use crate::gateway::*;

const KEYS: [&str; 6] = ["api", "result", "service", "model", "attempts", "reason"];

fn logged(mut config: Value) -> Value {
    config["telemetry"] = json!({"access_log": true});
    config
}

/// The values of [`KEYS`], in this order. `-` where there is none.
fn told(stream: &Stream) -> [String; 6] {
    KEYS.map(|key| {
        let value = stream.filter_state(&format!("wasm.ai_fallback.{key}"));
        value.map_or("-".to_owned(), |value| String::from_utf8(value).unwrap())
    })
}

/// The host calls of one request that its primary answers, or another service.
fn calls(config: &Value, status: &str) -> u64 {
    let mut gateway = Gateway::start(config);
    // The first request starts the ticks.
    gateway.ask(BODY).disconnect();
    gateway.reset_host_calls();
    let mut request = gateway.ask(BODY);
    if config["dispatch"] == "router" {
        let clusters = ["openai-cluster", "qwen-cluster"];
        let made = if status == "200" { 1 } else { 2 };
        for (count, cluster) in (1..=made).zip(clusters) {
            let mut attempt = gateway.attempted(&mut request, count, cluster);
            attempt.service_answers(if count == made { "200" } else { status }, b"{}");
            if count == made {
                up(&attempt, &mut request);
            }
            attempt.finish();
        }
    } else {
        request.service_answers(status, b"{}");
        if status != "200" {
            gateway.called_service_answers("200", b"{}");
        }
    }
    assert_eq!(request.answered().status, 200);
    assert!(request.gone());
    gateway.host_calls().total()
}

/// As docs/observability.md has it. In router mode the attempt filter writes down its progress, and the request filter reads
/// it, with the number of attempts.
#[test]
fn an_access_log_costs_few_calls() {
    for (config, status, more) in [
        (config(), "200", 5),
        (config(), "503", 6),
        (by_router(config()), "200", 8),
        (by_router(config()), "503", 9),
    ] {
        let without = calls(&config, status);
        let with = calls(&logged(config.clone()), status);
        assert_eq!(with - without, more, "{status} {}", config["dispatch"]);
    }
}

#[test]
fn without_the_switch_nothing_is_written() {
    let mut gateway = Gateway::start(&config());
    let mut request = gateway.ask(BODY);
    request.service_answers("200", b"{}");
    assert_eq!(told(&request), ["-"; 6]);
    let mut refused = gateway.stream();
    refused.request(&headers(b"{"), b"{");
    assert_eq!(told(&refused), ["-"; 6]);
    let mut gone = gateway.ask(BODY);
    gone.disconnect();
    assert_eq!(told(&gone), ["-"; 6]);
}

#[test]
fn what_is_settled_is_written_before_the_end() {
    let mut gateway = Gateway::start(&logged(config()));
    let mut request = gateway.ask(STREAM);
    assert_eq!(told(&request), ["chat", "-", "-", "-", "-", "-"]);
    request.service_says("200", false);
    request.response_body(b"data: {}\n\n", false);
    let settled = [
        "chat",
        "primary",
        "openai",
        "gpt-4o-2024-11-20",
        "openai;200;0ms",
        "-",
    ];
    assert_eq!(told(&request), settled);
    request.disconnect();
    assert_eq!(told(&request), settled, "the answer had begun");
}

#[test]
fn a_client_that_leaves_in_the_middle_is_gone() {
    for config in [config(), by_router(config())] {
        let mut gateway = Gateway::start(&logged(config));
        let mut request = gateway.ask(BODY);
        request.disconnect();
        assert_eq!(told(&request), ["chat", "gone", "-", "-", "-", "-"]);
    }
}

/// The attempt filters know what was tried.
#[test]
fn with_the_router_a_client_that_leaves_in_a_fallback_is_gone() {
    let mut gateway = Gateway::start(&logged(by_router(config())));
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    request.disconnect();
    assert_eq!(
        told(&request),
        ["chat", "gone", "-", "-", "openai;503;0ms", "503"]
    );
    second.finish();
}

/// Its body may be anything, so that nothing is known of it.
#[test]
fn of_a_client_that_leaves_before_its_request_is_whole_nothing_is_written() {
    let mut gateway = Gateway::start(&logged(config()));
    let mut stream = gateway.stream();
    stream.request_headers(&headers(BODY), false);
    stream.disconnect();
    assert_eq!(told(&stream), ["-"; 6]);
}
