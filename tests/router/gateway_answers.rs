//! A filter behind ours answers: Envoy's router never sees the request, and a fallback is made by callout.

use serde_json::{Value, json};

use crate::world::{World, api_with};

fn world(only_backend_errors: bool) -> World {
    let fields = json!({
        "services": [{"service": "two"}, {"service": "three"}],
        "only_backend_errors": only_backend_errors,
    });
    World::with(
        json!([api_with("alone", json!({"service": "one"}), fields)]),
        json!({}),
        |gateway| gateway.filter_after(one_request_only()),
    )
}

fn one_request_only() -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({"name": "envoy.filters.http.local_ratelimit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": always,
        "filter_enforced": always,
    }})
}

#[tokio::test]
async fn falls_back_where_the_plan_says_so() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(false);
    // The one request that is let through goes by the router.
    let first = world.ask("alone").fault("one", "503").send().await;
    first.assert_from("two", "one;503, two;200");
    let second = world.ask("alone").send().await;
    second.assert_from("two", "one;intercepted, two;200");
    let third = world.ask("alone").fault("two", "503").send().await;
    third.assert_from("three", "one;intercepted, two;503, three;200");
    assert_eq!(world.received("one", &third).len(), 0);
}

#[tokio::test]
async fn is_the_answer_else() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(true);
    world
        .ask("alone")
        .fault("one", "503")
        .send()
        .await
        .assert_from("two", "one;503, two;200");
    let refused = world.ask("alone").send().await;
    assert_eq!(
        (refused.status, &*refused.attempts()),
        (429, "one;intercepted")
    );
    assert_eq!(refused.header("x-ai-fallback-service"), None);
}

/// A cache, a fixed response, a preflight: nothing is missing, and the attempts of other requests are still the router's.
#[tokio::test]
async fn is_no_service_without_its_attempt_filter() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let fixed = json!({"name": "envoy.filters.http.fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 203, "percentage": {"numerator": 100}},
        "headers": [{"name": "x-fixed", "present_match": true}],
    }});
    let world = World::alone("one", &["two"], |gateway| gateway.filter_after(fixed));
    for _ in 0..4 {
        let answer = world.ask("alone").header("x-fixed", "yes").send().await;
        assert_eq!(
            (answer.status, world.received("one", &answer).len()),
            (203, 0),
            "{answer:?}"
        );
    }
    assert!(!world.envoy.log_contains("event=missing_attempt_filter"));
    let answer = world.ask("alone").fault("one", "503").send().await;
    answer.assert_from("two", "one;503, two;200");
    assert!(
        world
            .envoy
            .log_contains("ai_fallback_attempt ai_fallback_attempt: event=fallback")
    );
}
