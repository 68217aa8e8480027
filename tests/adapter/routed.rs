//! `dispatch: router`, as the request filter sees it.

use proxy_wasm::types::Action;
use serde_json::json;

use crate::emulator::Stream;
use crate::gateway::*;

fn start() -> Gateway {
    Gateway::start(&by_router(config()))
}

#[test]
fn a_settled_answer_flows() {
    let mut gateway = start();
    let mut request = gateway.ask(STREAM);
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    attempt.service_says("200", false);
    attempt.response_body(b"data: {}\n\n", false);
    assert_eq!(up(&attempt, &mut request), Action::Continue);
    assert_eq!(
        request.response_body(b"data: {\"error\":1}\n\n", true),
        Action::Continue
    );
    let answer = request.answered();
    assert_eq!(trail(&answer), ["openai;200"]);
    assert_eq!(service(&answer).as_deref(), Some("openai"));
    attempt.finish();
    gateway.expect_idle();
}

/// A circuit breaker is open, or the body is larger than what the router keeps.
#[test]
fn what_the_router_does_not_retry_goes_on_by_callout() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    attempt.service_answers("503", b"no");
    assert_eq!(up(&attempt, &mut request), Action::Pause);
    assert_eq!(gateway.callout().cluster, "qwen-cluster");
    assert_eq!(gateway.callout().headers.get("x-envoy-max-retries"), None);
    gateway.called_service_answers("200", b"{}");
    let answer = request.answered();
    assert_eq!(trail(&answer), ["openai;503", "qwen;200"]);
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
    gateway.expect_idle();
}

/// The last attempt's filter may be told of its end before or after Envoy's own reply comes here.
#[test]
fn the_end_of_the_last_attempt_may_come_before_or_after_envoy_s_reply() {
    for before in [true, false] {
        let mut gateway = start();
        let mut request = gateway.ask(BODY);
        let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
        gateway.advance(ms(5));
        if before {
            attempt.finish();
        }
        let details = "upstream_reset_before_response_started{connection_failure}";
        assert_eq!(request.envoy_answers("503", details), Action::Pause);
        attempt.finish();
        gateway.called_service_answers("200", b"{}");
        assert_eq!(
            request
                .answered()
                .header("x-ai-fallback-attempts")
                .as_deref(),
            Some("openai;reset;5ms, qwen;200;0ms"),
            "before: {before}"
        );
        gateway.expect_idle();
    }
}

#[test]
fn a_cluster_without_hosts_is_passed_over() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    // Envoy counts the attempt that found no host, and no filter sees it.
    request.set_property(&["upstream", "request_attempt_count"], &2_u64.to_le_bytes());
    assert_eq!(
        request.envoy_answers("503", "no_healthy_upstream"),
        Action::Pause
    );
    assert_eq!(gateway.callout().cluster, "local-cluster");
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&request.answered()),
        ["openai;503", "qwen;reset", "local;200"]
    );
}

#[test]
fn a_request_that_never_reached_the_router_falls_back_too() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    assert_eq!(
        request.envoy_answers("429", "local_rate_limited"),
        Action::Pause
    );
    gateway.called_service_answers("200", b"{}");
    assert_eq!(
        trail(&request.answered()),
        ["openai;intercepted", "qwen;200"]
    );
    gateway.expect_idle();
}

#[test]
fn a_cluster_without_the_attempt_filter_is_served_by_callout_and_told_of_once() {
    let mut gateway = start();
    for _ in 0..2 {
        let mut request = gateway.ask(BODY);
        request.set_property(&["upstream", "request_attempt_count"], &1_u64.to_le_bytes());
        assert_eq!(request.service_answers("503", b"no"), Action::Pause);
        gateway.called_service_answers("200", b"{}");
        assert_eq!(trail(&request.answered()), ["openai;503", "qwen;200"]);
    }
    assert_eq!(gateway.logged("event=missing_attempt_filter"), 1);
}

/// Clusters may come later than their listener.
#[test]
fn a_cluster_without_the_attempt_filter_is_looked_at_again() {
    let mut gateway = start();
    let is_fitted = |request: &Stream| {
        let key = request.upstream_request_headers().get("authorization");
        key.as_deref() == Some("Bearer openai")
    };
    let mut request = gateway.ask(BODY);
    assert!(!is_fitted(&request));
    at_cluster(&mut request, "openai-cluster");
    assert_eq!(request.service_answers("503", b"no"), Action::Pause);
    gateway.called_service_answers("200", b"{}");
    // Its requests are fitted before they go there, and have no plan.
    for _ in 0..3 {
        let mut request = gateway.ask(BODY);
        assert!(is_fitted(&request));
        assert_eq!(request.filter_state("wasm.ai_fallback.plan"), None);
        at_cluster(&mut request, "openai-cluster");
        assert_eq!(request.service_answers("503", b"no"), Action::Pause);
        gateway.called_service_answers("200", b"{}");
        assert_eq!(trail(&request.answered()), ["openai;503", "qwen;200"]);
    }
    // The filter is there now. It leaves the request as it is, and says so.
    let mut request = gateway.ask(BODY);
    assert!(is_fitted(&request));
    let sent = request.upstream_request_headers();
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    assert_eq!(attempt.upstream_request_headers(), sent);
    assert_eq!(attempt.service_answers("503", b"no"), Action::Continue);
    assert_eq!(up(&attempt, &mut request), Action::Pause);
    gateway.called_service_answers("200", b"{}");
    assert_eq!(trail(&request.answered()), ["openai;503", "qwen;200"]);
    attempt.finish();
    let request = gateway.ask(BODY);
    assert!(!is_fitted(&request));
    assert!(request.filter_state("wasm.ai_fallback.plan").is_some());
    assert_eq!(gateway.logged("event=missing_attempt_filter"), 1);
}

/// The same where it is never the first of a plan.
#[test]
fn a_fallbacks_cluster_without_the_attempt_filter_is_looked_at_again() {
    let mut gateway = start();
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    at_cluster(&mut request, "qwen-cluster");
    request.set_property(&["upstream", "request_attempt_count"], &2_u64.to_le_bytes());
    assert_eq!(request.service_answers("200", b"{}"), Action::Continue);
    assert_eq!(gateway.logged("event=missing_attempt_filter"), 1);
    let request = gateway.ask(BODY);
    assert!(request.filter_state("wasm.ai_fallback.plan").is_none());
    // The cluster has the filter now, which sees the next callout.
    let mut callout = gateway.stream();
    let headers = [(":method", "POST"), (":path", "/x"), (":authority", "g")];
    callout.request(&headers, BODY);
    gateway
        .attempt(&mut callout, 1, "qwen-cluster")
        .request_of(&callout);
    let request = gateway.ask(BODY);
    assert!(request.filter_state("wasm.ai_fallback.plan").is_some());
}

/// The route's matcher does not know the cluster of the service.
#[test]
fn a_cluster_of_nobody_without_the_attempt_filter_gets_no_credential_any_more() {
    let mut gateway = start();
    for is_first in [true, false] {
        let mut request = gateway.ask(BODY);
        let key = request.upstream_request_headers().get("authorization");
        assert_eq!(key.as_deref() == Some("Bearer client"), is_first);
        at_cluster(&mut request, "elsewhere");
        request.service_answers("200", b"{}");
    }
}

/// The router has made one attempt, in this cluster.
fn at_cluster(request: &mut Stream, cluster: &str) {
    request.set_property(&["upstream", "request_attempt_count"], &1_u64.to_le_bytes());
    request.set_property(&["xds", "cluster_name"], cluster.as_bytes());
}

#[test]
fn all_attempts_together_have_a_limit() {
    let mut gateway = Gateway::start(&by_router(config_with(json!({"total_timeout_ms": 1000}))));
    let mut request = gateway.ask(BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    gateway.advance(ms(400));
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    second.service_says("200", false);
    gateway.advance(ms(600));
    let answer = request.answered();
    assert_eq!((answer.status, answer.ended), (504, true));
    assert_eq!(
        answer.header("x-ai-fallback-attempts").as_deref(),
        Some("openai;503;400ms, qwen;request_timeout;600ms")
    );
    second.finish();
    gateway.expect_idle();
}

#[test]
fn an_answer_that_has_begun_is_not_cut_by_the_limit() {
    let mut gateway = Gateway::start(&by_router(config_with(json!({"total_timeout_ms": 1000}))));
    let mut request = gateway.ask(STREAM);
    let mut attempt = gateway.attempted(&mut request, 1, "openai-cluster");
    attempt.service_says("200", false);
    attempt.response_body(b"data: {}\n\n", false);
    up(&attempt, &mut request);
    gateway.advance(ms(5_000));
    assert_eq!(
        request.response_body(b"data: [DONE]\n\n", true),
        Action::Continue
    );
    assert_eq!(request.answered().status, 200);
    attempt.finish();
    gateway.expect_idle();
}

#[test]
fn a_request_without_fallback_has_its_cluster_and_a_plan_that_judges_nothing() {
    let mut plain = by_router(config());
    plain["model_apis"][0]
        .as_object_mut()
        .unwrap()
        .remove("fallback");
    let mut gateway = Gateway::start(&plain);
    let mut request = gateway.ask(BODY);
    let handoff = handed_over(&plain, &request).expect("a plan");
    assert!(!handoff.judges, "nothing to fall back to");
    assert_eq!(handoff.plan.steps().count(), 1);
    assert_eq!(
        request.filter_state("wasm.ai_fallback.cluster").as_deref(),
        Some(&b"openai-cluster"[..])
    );
    assert_eq!(request.service_answers("503", b"no"), Action::Continue);
    assert_eq!(trail(&request.answered()), ["openai;503"]);
    gateway.expect_idle();
}

/// Where the route decides, the cluster may be any: there may be no attempt filter, and there is nothing to fit.
#[test]
fn without_a_named_primary_and_without_fallback_there_is_no_plan() {
    let mut plain = by_router(config());
    plain["model_apis"] = json!([{"name": "chat", "primary": {"model": "other"}}]);
    let mut gateway = Gateway::start(&plain);
    let request = gateway.ask(BODY);
    assert!(handed_over(&plain, &request).is_none());
    assert_eq!(request.filter_state("wasm.ai_fallback.cluster"), None);
    assert_eq!(
        request.upstream_request_body(),
        br#"{"model":"other","n":1}"#
    );
    let sent = request.upstream_request_headers();
    assert_eq!(sent.get("authorization").as_deref(), Some("Bearer client"));
}

/// It reads the configuration that the attempt filter has not: its request may not go out as it came.
#[test]
fn a_request_without_fallback_whose_attempt_was_stopped_is_made_by_a_callout() {
    let mut plain = by_router(config());
    plain["model_apis"][0]
        .as_object_mut()
        .unwrap()
        .remove("fallback");
    let mut gateway = Gateway::start(&plain);
    let mut request = gateway.ask(BODY);
    let mut attempt = gateway.attempt(&mut request, 1, "openai-cluster");
    attempt.set_property(&["ai_fallback.plan"], b"damaged");
    assert_eq!(attempt.request_of(&request), Action::Pause);
    assert!(!attempt.request_released());
    up(&attempt, &mut request);
    assert_eq!(gateway.callout().cluster, "openai-cluster");
    gateway.called_service_answers("200", b"{}");
    let answer = request.answered();
    assert_eq!(
        (answer.status, trail(&answer)),
        (200, vec!["openai;200".to_owned()])
    );
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
    gateway.expect_idle();
}
