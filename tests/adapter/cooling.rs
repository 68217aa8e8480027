//! Services that are skipped for a time, over the workers of one Envoy.

use proxy_wasm::types::Action;
use serde_json::{Value, json};

use crate::emulator::{Plugin, Root, Stream};
use crate::gateway::*;

fn cooling() -> Value {
    let mut config = config();
    config["cooldown"] = json!({"failures": 2, "time_ms": 10_000});
    config
}

fn another_worker(gateway: &mut Gateway, config: &Value) -> Root {
    let config = config.to_string();
    let name = "ai_fallback";
    let plugin = Plugin {
        root_id: name,
        name,
        config: config.as_bytes(),
        ..Plugin::default()
    };
    gateway.add_root(plugin).unwrap()
}

/// A request on a worker; whether it goes along the route.
fn ask_on(gateway: &mut Gateway, worker: Root) -> (Stream, bool) {
    let mut stream = gateway.stream_of(worker);
    let action = stream.request(&headers(BODY), BODY);
    (stream, action == Action::Continue)
}

fn fail_on(gateway: &mut Gateway, worker: Root) {
    let (mut stream, is_routed) = ask_on(gateway, worker);
    assert!(is_routed, "it does not cool yet");
    stream.service_answers("503", b"no");
    gateway.called_service_answers("200", b"{}");
    assert_eq!(trail(&stream.answered()), ["openai;503", "qwen;200"]);
}

fn is_skipped_on(gateway: &mut Gateway, worker: Root) {
    let (stream, is_routed) = ask_on(gateway, worker);
    assert!(!is_routed && gateway.callout().cluster == "qwen-cluster");
    gateway.called_service_answers("200", b"{}");
    let told = stream.answered().header("x-ai-fallback-attempts").unwrap();
    assert_eq!(told, "openai;cooling, qwen;200;0ms");
}

#[test]
fn a_service_that_fails_on_one_worker_is_skipped_on_all() {
    let mut gateway = Gateway::start(&cooling());
    let first = gateway.root();
    let second = another_worker(&mut gateway, &cooling());
    fail_on(&mut gateway, first);
    fail_on(&mut gateway, second);
    for worker in [first, second] {
        is_skipped_on(&mut gateway, worker);
    }
    assert_eq!(gateway.metric("cooling model_service=openai"), 1);
    gateway.advance(ms(10_000));
    // One request finds out whether it is well again; the others skip it.
    let (mut probe, is_routed) = ask_on(&mut gateway, second);
    assert!(is_routed);
    is_skipped_on(&mut gateway, first);
    probe.service_answers("200", b"{}");
    for worker in [first, second] {
        let (mut stream, is_routed) = ask_on(&mut gateway, worker);
        assert!(is_routed);
        stream.service_answers("200", b"{}");
        assert_eq!(trail(&stream.answered()), ["openai;200"]);
    }
    gateway.expect_idle();
    assert_eq!(gateway.tick_period_of(second), None);
    assert_eq!(gateway.metric("cooling model_service=openai"), 0);
}

#[test]
fn a_worker_whose_vm_restarts_skips_what_the_others_skip() {
    let mut gateway = Gateway::start(&cooling());
    let second = another_worker(&mut gateway, &cooling());
    fail_on(&mut gateway, second);
    fail_on(&mut gateway, second);
    // A request is on its way there.
    let (_, is_routed) = ask_on(&mut gateway, second);
    assert!(!is_routed);
    gateway.crash(second);
    let again = another_worker(&mut gateway, &cooling());
    is_skipped_on(&mut gateway, again);
    gateway.advance(ms(20_000));
    let (stream, is_routed) = ask_on(&mut gateway, again);
    assert!(is_routed);
    let mut stream = stream;
    stream.service_answers("200", b"{}");
    gateway.expect_idle();
}

#[test]
fn with_the_router_a_service_that_cools_is_skipped_and_failures_are_told() {
    let mut gateway = Gateway::start(&by_router(cooling()));
    for _ in 0..2 {
        let mut request = gateway.ask(BODY);
        let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
        first.service_answers("503", b"no");
        first.finish();
        let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
        second.service_answers("200", b"{}");
        up(&second, &mut request);
        assert_eq!(trail(&request.answered()), ["openai;503", "qwen;200"]);
        second.finish();
    }
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "qwen-cluster");
    assert_eq!(
        first.upstream_request_body(),
        br#"{"model":"qwen-plus","n":1}"#
    );
    first.service_answers("200", b"{}");
    up(&first, &mut request);
    assert_eq!(
        request
            .answered()
            .header("x-ai-fallback-attempts")
            .as_deref(),
        Some("openai;cooling, qwen;200;0ms")
    );
    first.finish();
    gateway.advance(ms(10_000));
    let mut request = gateway.ask(BODY);
    let mut probe = gateway.attempted(&mut request, 1, "openai-cluster");
    probe.service_answers("200", b"{}");
    up(&probe, &mut request);
    probe.finish();
    assert_eq!(
        gateway.shared_data("", "ai_fallback.cooldown.ai_fallback"),
        Some(Vec::new())
    );
    gateway.expect_idle();
}

#[test]
fn where_all_cool_one_is_tried_all_the_same() {
    let mut config = cooling();
    config["cooldown"]["failures"] = json!(1);
    let mut gateway = Gateway::start(&config);
    let mut stream = gateway.ask(BODY);
    stream.service_answers("503", b"no");
    gateway.called_service_answers("503", b"no");
    gateway.called_service_answers("503", b"no");
    let mut stream = gateway.ask(BODY);
    assert_eq!(stream.service_answers("200", b"{}"), Action::Continue);
    assert_eq!(trail(&stream.answered()), ["openai;200"]);
    gateway.advance(ms(20_000));
    gateway.expect_idle();
}

/// Two failures, and the time that follows them: the next request is the probe.
fn probe(config: &Value) -> (Gateway, Root, Stream) {
    let mut gateway = Gateway::start(config);
    let worker = gateway.root();
    fail_on(&mut gateway, worker);
    fail_on(&mut gateway, worker);
    gateway.advance(ms(10_000));
    let (stream, is_routed) = ask_on(&mut gateway, worker);
    assert!(is_routed, "it probes");
    is_skipped_on(&mut gateway, worker);
    (gateway, worker, stream)
}

#[test]
fn a_probe_whose_client_leaves_is_left_to_the_next_request() {
    let (mut gateway, worker, mut stream) = probe(&cooling());
    stream.disconnect();
    assert!(ask_on(&mut gateway, worker).1);
}

#[test]
fn a_probe_that_the_gateway_refuses_is_left_to_the_next_request() {
    let mut config = cooling();
    config["model_apis"][0]["fallback"]["only_backend_errors"] = true.into();
    let (mut gateway, worker, mut stream) = probe(&config);
    stream.envoy_answers("429", "local_rate_limited");
    stream.disconnect();
    assert!(ask_on(&mut gateway, worker).1);
}

/// What a client brings about with its key, its hurry or its prompt, and what Envoy's own limits do.
#[test]
fn nothing_that_a_client_brings_about_cools_a_service_for_all() {
    let mut hurried = cooling();
    hurried["model_apis"][0]["fallback"]["client_controls"] = json!(["timeout"]);
    let mut with_own_key = cooling();
    with_own_key["services"]["openai"]["credentials"] = "client".into();
    type Fails = fn(&mut Gateway, &mut Stream);
    let cases: [(Value, Fails); 3] = [
        (hurried, |gateway, _| gateway.advance(ms(2))),
        (with_own_key, |_, stream| {
            stream.set_property(&["response", "code_details"], b"via_upstream");
            let headers = [
                (":status", "429"),
                ("retry-after", "300"),
                ("content-length", "2"),
            ];
            stream.response(&headers, b"no");
        }),
        (cooling(), |_, stream| {
            stream.envoy_answers("503", "upstream_reset_before_response_started{overflow}");
        }),
    ];
    for (number, (config, fails)) in cases.into_iter().enumerate() {
        let mut gateway = Gateway::start(&config);
        for _ in 0..3 {
            let mut stream = gateway.stream();
            let mut headers = headers(BODY);
            headers.push(("x-ai-fallback-timeout-ms", "1".to_owned()));
            let action = stream.request(&headers, BODY);
            assert_eq!(action, Action::Continue, "case {number}");
            fails(&mut gateway, &mut stream);
            // The one in a hurry has no time left for another service.
            if stream.client_response().is_none() {
                gateway.called_service_answers("200", b"{}");
            }
        }
    }
}
