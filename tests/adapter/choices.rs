//! What a request may choose, and what it may not: its services, its way of delivery, and who asks.

use proxy_wasm::types::Action;
use serde_json::{Value, json};

use crate::emulator::Stream;
use crate::gateway::*;

fn choosing() -> Value {
    config_with(json!({
        "client_models": {}, "client_controls": ["off", "timeout", "deliver"], "stream_idle_timeout_ms": 500,
    }))
}

/// A request that the filter answers, or holds.
fn asked(gateway: &mut Gateway, body: &[u8], more: &[(&'static str, &str)]) -> Stream {
    let mut stream = gateway.stream();
    let mut sent = headers(body);
    sent.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    assert_eq!(stream.request(&sent, body), Action::Pause);
    stream
}

#[test]
fn a_first_service_that_is_not_the_primary_is_called_while_the_request_is_held() {
    let mut gateway = Gateway::start(&choosing());
    let body = br#"{"n":1,"models":["qwen:qwen-max","local:m"]}"#;
    let stream = asked(&mut gateway, body, &[]);
    assert!(!stream.request_released());
    let callout = gateway.callout();
    assert_eq!(callout.cluster, "qwen-cluster");
    assert_eq!(callout.body, br#"{"model":"qwen-max","n":1}"#);
    assert_eq!(
        callout.headers.get(":path").as_deref(),
        Some("/qwen/v1/chat/completions")
    );
    assert_eq!(
        callout.headers.get("authorization").as_deref(),
        Some("Bearer qwen")
    );
    gateway.called_service_answers("503", b"no");
    assert_eq!(gateway.callout().cluster, "local-cluster");
    gateway.called_service_answers("200", b"{}");
    let answer = stream.answered();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert_eq!(trail(&answer), ["qwen;503", "local;200"]);
    assert!(!stream.request_released(), "it never went along the route");
    assert_eq!(gateway.metric("fallbacks"), 1);
    gateway.expect_idle();
}

#[test]
fn a_list_of_models_goes_to_no_service() {
    let mut gateway = Gateway::start(&choosing());
    let mut stream = gateway.ask(br#"{"model":"gpt-4o","models":["local:m"],"n":1}"#);
    assert_eq!(
        stream.upstream_request_body(),
        br#"{"model":"gpt-4o-2024-11-20","n":1}"#
    );
    let length = stream.upstream_request_headers().get("content-length");
    assert_eq!(length.as_deref(), Some("35"));
    stream.service_answers("503", b"no");
    assert_eq!(
        (gateway.callout().cluster, gateway.callout().body),
        ("local-cluster".into(), br#"{"model":"m","n":1}"#.to_vec())
    );
    gateway.called_service_answers("200", b"{}");
    gateway.expect_idle();
}

#[test]
fn an_answer_that_is_to_be_whole_comes_by_a_callout() {
    let mut gateway = Gateway::start(&choosing());
    let stream = asked(
        &mut gateway,
        STREAM,
        &[("x-ai-fallback-deliver", "complete")],
    );
    let callout = gateway.callout();
    assert_eq!(
        (
            callout.cluster.as_str(),
            callout.headers.get("x-ai-fallback-deliver")
        ),
        ("openai-cluster", None)
    );
    gateway.called_service_answers("200", b"data: {}\n\ndata: {\"error\":1}\n\n");
    assert_eq!(gateway.callout().cluster, "qwen-cluster");
    gateway.called_service_answers("200", b"data: {}\n\n");
    assert_eq!(
        trail(&stream.answered()),
        ["openai;stream_error", "qwen;200"]
    );
    gateway.expect_idle();
}

#[test]
fn with_the_router_a_first_service_of_the_request_is_routed_to() {
    let mut gateway = Gateway::start(&by_router(choosing()));
    let mut request = gateway.ask(br#"{"models":["qwen:qwen-max","local:m"],"n":1}"#);
    assert_eq!(
        request.filter_state("wasm.ai_fallback.cluster").as_deref(),
        Some(&b"qwen-cluster"[..])
    );
    let mut first = gateway.attempted(&mut request, 1, "qwen-cluster");
    assert_eq!(
        first.upstream_request_body(),
        br#"{"model":"qwen-max","n":1}"#
    );
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "local-cluster");
    assert_eq!(second.upstream_request_body(), br#"{"model":"m","n":1}"#);
    second.service_answers("200", b"{}");
    assert_eq!(up(&second, &mut request), Action::Continue);
    assert_eq!(trail(&request.answered()), ["qwen;503", "local;200"]);
    second.finish();
    gateway.expect_idle();
}

#[test]
fn a_request_that_wants_no_fallback_has_the_primary_s_answer() {
    for config in [choosing(), by_router(choosing())] {
        let mut config = config;
        config["model_apis"][0]["primary"]["retries"] = json!(2);
        let mut gateway = Gateway::start(&config);
        let mut stream = gateway.stream();
        let mut sent = headers(BODY);
        sent.push(("x-ai-fallback", "off".to_owned()));
        assert_eq!(stream.request(&sent, BODY), Action::Continue);
        assert!(!stream.upstream_request_headers().has("x-ai-fallback"));
        match handed_over(&config, &stream) {
            Some(handoff) => {
                assert!(!handoff.judges, "it is fitted, and no more");
                let mut attempt = gateway.attempted(&mut stream, 1, "openai-cluster");
                let sent = attempt.upstream_request_headers();
                assert_eq!(sent.get("authorization").as_deref(), Some("Bearer openai"));
                assert_eq!(attempt.service_answers("503", b"no"), Action::Continue);
                assert_eq!(up(&attempt, &mut stream), Action::Continue);
                attempt.finish();
            }
            None => {
                assert_eq!(config["dispatch"], serde_json::Value::Null);
                assert_eq!(stream.service_answers("503", b"no"), Action::Continue);
            }
        }
        assert_eq!(
            (stream.answered().status, trail(&stream.answered())),
            (503, vec!["openai;503".into()])
        );
        assert!(gateway.callouts().is_empty());
        gateway.expect_idle();
    }
}

#[test]
fn a_request_that_wants_no_fallback_may_name_its_service() {
    let mut gateway = Gateway::start(&choosing());
    for (status, by_service) in [("200", true), ("503", true), ("503", false)] {
        let stream = asked(
            &mut gateway,
            br#"{"models":["qwen:x","local"]}"#,
            &[("x-ai-fallback", "off")],
        );
        match by_service {
            true => gateway.called_service_answers(status, b"{}"),
            false => {
                let token = gateway.callout().token;
                gateway.answer_nothing(token);
            }
        }
        let answer = stream.answered();
        assert!(
            answer.ended
                && answer.status
                    == if by_service {
                        status.parse().unwrap()
                    } else {
                        502
                    }
        );
        assert_eq!(trail(&answer).len(), 1);
        assert!(gateway.callouts().is_empty());
    }
    gateway.expect_idle();
}

#[test]
fn a_time_of_the_request_bounds_all_attempts() {
    let mut gateway = Gateway::start(&choosing());
    let mut stream = gateway.stream();
    let mut sent = headers(BODY);
    sent.push(("x-ai-fallback-timeout-ms", "400".to_owned()));
    stream.request(&sent, BODY);
    gateway.advance(ms(399));
    assert!(stream.unanswered());
    gateway.advance(ms(1));
    assert_eq!(stream.answered().status, 504);
    gateway.expect_idle();
}

// Refusals.

fn guarded() -> Value {
    let mut config = choosing();
    config["max_hops"] = json!(2);
    config["access"] = json!({
        "identity_header": "x-team", "default_policy": {"deny": {"services": ["qwen"]}},
        "policies": [{"identities": ["red"], "allow": {"models": ["gpt-*"]}}],
    });
    config
}

#[test]
fn what_may_not_be_is_refused_before_anything_is_sent() {
    for config in [guarded(), by_router(guarded())] {
        let mut gateway = Gateway::start(&config);
        for (body, header, status, metric) in [
            (
                &br#"{"models":["qwen:x"]}"#[..],
                ("x-keep", "1"),
                403,
                "requests reason=denied",
            ),
            (br#"{"model":"o3"}"#, ("x-team", "red"), 200, ""),
            (
                br#"{"model":"gpt-4o","models":["o3"]}"#,
                ("x-team", "red"),
                403,
                "requests reason=denied",
            ),
            (BODY, ("x-ai-hops", "2"), 508, "requests reason=loop"),
            (
                BODY,
                ("x-ai-fallback", "on"),
                400,
                "requests reason=bad_request",
            ),
            (
                BODY,
                ("x-ai-fallback-timeout-ms", "soon"),
                400,
                "requests reason=bad_request",
            ),
            (
                br#"{"models":[]}"#,
                ("x-keep", "1"),
                400,
                "requests reason=bad_request",
            ),
        ] {
            let before = gateway.metric(metric);
            if status == 200 {
                // The primary's own model is the one that is asked for.
                gateway.ask(body).disconnect();
                continue;
            }
            let stream = asked(&mut gateway, body, &[header]);
            let answer = stream.answered();
            assert_eq!((answer.status, answer.ended), (status, true), "{header:?}");
            assert_eq!(
                answer.header("content-type").as_deref(),
                Some("application/json")
            );
            assert!(!stream.request_released());
            assert_eq!(gateway.metric(metric), before + 1, "{metric}");
        }
        assert!(gateway.callouts().is_empty());
        gateway.expect_idle();
    }
}

#[test]
fn a_body_that_is_not_read_is_refused_where_models_matter() {
    let mut gateway = Gateway::start(&guarded());
    for (team, status) in [("red", Some(403)), ("blue", None)] {
        let mut sent = headers(BODY);
        sent.push(("content-encoding", "gzip".to_owned()));
        sent.push(("x-team", team.to_owned()));
        let mut stream = gateway.stream();
        stream.request(&sent, BODY);
        assert_eq!(stream.client_response().map(|answer| answer.status), status);
        if status.is_none() {
            stream.service_answers("200", b"{}");
        }
    }
    gateway.expect_idle();
}

#[test]
fn hops_are_sent_to_every_service() {
    let mut gateway = Gateway::start(&guarded());
    let mut sent = headers(BODY);
    sent.push(("x-ai-hops", "1".to_owned()));
    let mut stream = gateway.stream();
    stream.request(&sent, BODY);
    assert_eq!(
        stream
            .upstream_request_headers()
            .get("x-ai-hops")
            .as_deref(),
        Some("2")
    );
    stream.service_answers("503", b"no");
    let callout = gateway.callout();
    assert_eq!(
        (
            callout.cluster.as_str(),
            callout.headers.get("x-ai-hops").as_deref()
        ),
        ("local-cluster", Some("2"))
    );
    gateway.called_service_answers("200", b"{}");
    gateway.expect_idle();
}
