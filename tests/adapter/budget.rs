//! How many host calls a request costs. Each crosses the border of the VM, so a new one is a
//! decision: change the number here with the reason for it.

use crate::emulator::HostCalls;
use crate::gateway::*;

fn spent(gateway: &mut Gateway) -> u64 {
    let spent: HostCalls = gateway.host_calls();
    gateway.reset_host_calls();
    spent.total()
}

#[test]
fn a_request_that_is_none_of_ours_costs_one_call() {
    let mut gateway = Gateway::start(&config());
    gateway.reset_host_calls();
    let mut stream = gateway.stream();
    let headers = [
        (":method", "POST"),
        (":path", "/other"),
        (":authority", "g"),
    ];
    stream.request(&headers, BODY);
    stream.response(&[(":status", "200")], b"{}");
    assert!(stream.gone());
    assert_eq!(spent(&mut gateway), 1);
}

/// Sends `body` through and answers it, and returns the calls of each phase.
fn phases(gateway: &mut Gateway, body: &[u8], answer: &[u8]) -> [u64; 6] {
    // The first one starts the ticks, and defines the metrics.
    one_request(gateway, body, answer);
    one_request(gateway, body, answer)
}

fn one_request(gateway: &mut Gateway, body: &[u8], answer: &[u8]) -> [u64; 6] {
    gateway.reset_host_calls();
    let mut stream = gateway.stream();
    stream.request_headers(&headers(body), false);
    let head = spent(gateway);
    stream.request_body(&body[..4], false);
    let chunk = spent(gateway);
    stream.request_body(&body[4..], true);
    let whole = spent(gateway);
    stream.set_property(&["upstream", "request_attempt_count"], &1_u64.to_le_bytes());
    stream.set_property(&["xds", "cluster_name"], b"openai-cluster");
    stream.service_says("200", false);
    let answer_head = spent(gateway);
    stream.response_body(answer, false);
    let first = spent(gateway);
    stream.response_body(answer, true);
    assert!(stream.gone());
    [head, chunk, whole, answer_head, first, spent(gateway)]
}

#[test]
fn a_request_that_is_answered_well_costs_few_calls() {
    let mut gateway = Gateway::start(&config());
    // head: the path, all headers. chunk: the protocol, which says who holds the body. whole: the body; authority and two headers set, one of them in place of the client's
    // authorization; body and content-length set; the time. answer_head: status, time.
    // first: time, two headers, three metrics, and of a stream its first bytes. The end: time, and a metric.
    assert_eq!(phases(&mut gateway, BODY, b"{}"), [2, 1, 7, 2, 6, 2]);
    let event = b"data: {}\n\n";
    assert_eq!(phases(&mut gateway, STREAM, event), [2, 1, 7, 2, 7, 2]);
}

#[test]
fn to_read_its_tokens_costs_a_call_for_each_chunk_and_one_for_each_number() {
    let mut config = config();
    config["telemetry"] = serde_json::json!({"token_usage": true});
    let mut gateway = Gateway::start(&config);
    let answer = br#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    phases(&mut gateway, BODY, answer);
    // The first chunk; the object has ended with it. Two numbers are two counters.
    assert_eq!(phases(&mut gateway, BODY, answer), [2, 1, 7, 2, 7, 4]);
    let event = b"data: {\"usage\":{\"prompt_tokens\":1}}\n\n";
    // Of a stream each chunk.
    assert_eq!(phases(&mut gateway, STREAM, event), [2, 1, 7, 2, 8, 4]);
}

#[test]
fn with_the_router_a_request_that_is_answered_well_costs_few_calls() {
    let mut gateway = Gateway::start(&by_router(config()));
    // The first attempt looks whether it is in its cluster, and defines the metrics.
    let mut first = gateway.ask(BODY);
    let mut attempt = gateway.attempted(&mut first, 1, "openai-cluster");
    attempt.service_answers("200", b"{}");
    up(&attempt, &mut first);
    assert!(attempt.gone() && first.gone());
    gateway.reset_host_calls();
    let mut request = gateway.ask(BODY);
    let asked = spent(&mut gateway);
    let mut attempt = gateway.attempt(&mut request, 1, "openai-cluster");
    attempt.request_of(&request);
    let attempted = spent(&mut gateway);
    attempt.service_answers("200", b"{}");
    let judged = spent(&mut gateway);
    up(&attempt, &mut request);
    assert_eq!(trail(&request.answered()), ["openai;200"]);
    // asked: path, headers, body, time; nothing of the request is changed; for the router plan, retries, per-try timeout,
    // cluster, route.
    // attempted: plan, count, time; all headers, and they are kept for the next attempt; authority and two headers set; the
    // body read and set, content-length looked for and set.
    // judged: status, time twice, three headers, that it is settled, three metrics; its end: time, a metric.
    // The end: that it is settled, the time.
    let end = spent(&mut gateway);
    assert_eq!([asked, attempted, judged, end], [9, 11, 12, 2]);
}
