//! Requests that the gateway itself answers: a rate limit, an auth or security filter behind ours.

use serde_json::{Value, json};

use crate::client::Ask;
use crate::world::{World, case};

both_modes![
    a_request_that_an_access_control_filter_refuses_never_falls_back,
    a_refusal_by_another_filter_falls_back_by_its_very_code_alone,
    a_request_over_a_rate_limit_falls_back,
    a_request_that_a_filter_answers_with_a_status_in_on_status_falls_back,
    a_gateway_answer_whose_status_is_not_in_on_status_is_the_answer,
    with_only_backend_errors_the_gateways_answer_is_the_answer,
    with_only_backend_errors_a_failed_service_still_falls_back,
    with_only_backend_errors_an_unreachable_service_still_falls_back,
    without_fallback_the_gateways_answer_is_the_answer,
];

const DENY: &str = "x-deny";
const LIMITED: &str = "x-limited";
/// The header that Envoy's fault filter takes its status from.
pub const ABORT: &str = "x-envoy-fault-abort-request";

pub fn model_apis() -> Vec<Value> {
    let with = |only_backend_errors: bool| {
        json!({
            "primary": {"service": "alpha"},
            "fallback": {
                "services": [{"service": "beta"}],
                "on_status": ["403", "429", "5xx"],
                "only_backend_errors": only_backend_errors,
            },
        })
    };
    vec![
        case("all-errors", with(false)),
        case("only-backend-errors", with(true)),
        case(
            "any-status",
            json!({
                "primary": {"service": "alpha"},
                "fallback": {"services": [{"service": "beta"}], "on_status": ["any", 401]},
            }),
        ),
        case(
            "only-backend-errors-unreachable",
            json!({
                "primary": {"service": "refused"},
                "fallback": {"services": [{"service": "beta"}], "only_backend_errors": true},
            }),
        ),
        case(
            "gateway-answers-alone",
            json!({"primary": {"service": "alpha"}}),
        ),
    ]
}

/// Refuses each request that has the header `x-deny`.
pub fn access_control() -> Value {
    json!({"name": "access control", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"denied": {
            "permissions": [{"any": true}],
            "principals": [{"header": {"name": DENY, "present_match": true}}],
        }}},
    }})
}

/// Allows one request for each of these values of `x-limited`, ever.
pub fn rate_limit() -> Value {
    let bucket = json!({"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "86400s"});
    let one = |value: &str| json!({"entries": [{"key": "limited", "value": value}], "token_bucket": bucket});
    let always = json!({"default_value": {"numerator": 100}});
    json!({"name": "rate limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "filter_enabled": always,
        "filter_enforced": always,
        "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
        "rate_limits": [{"actions": [
            {"request_headers": {"header_name": LIMITED, "descriptor_key": "limited"}},
        ]}],
        "descriptors": [one("all-errors"), one("only-backend-errors"), one("gateway-answers-alone")],
    }})
}

/// Answers with the status that the request asks for.
pub fn any_status() -> Value {
    json!({"name": "any status", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"header_abort": {}, "percentage": {"numerator": 100}},
    }})
}

/// Another service would answer a caller who may not ask.
async fn a_request_that_an_access_control_filter_refuses_never_falls_back(world: &World) {
    for case in ["all-errors", "only-backend-errors", "any-status"] {
        for ask in [world.ask(case), world.ask(case).stream()] {
            let answer = denied(ask).await;
            assert_eq!(answer.status, 403, "{case}: {answer:?}");
            assert_eq!(answer.text(), "RBAC: access denied");
            assert_eq!(answer.attempts(), "alpha;intercepted");
            assert_eq!(answer.service(), None, "no service answered");
            world.no_request(&world.alpha, &answer);
            world.no_request(&world.beta, &answer);
        }
    }
}

/// Nobody knows whether it has said that the caller may not ask.
async fn a_refusal_by_another_filter_falls_back_by_its_very_code_alone(world: &World) {
    for (case, status, falls_back) in [
        ("all-errors", "403", true),
        ("all-errors", "429", true),
        ("any-status", "401", true),
        ("any-status", "403", false),
        ("any-status", "407", false),
        ("any-status", "400", true),
        ("any-status", "503", true),
        ("only-backend-errors", "403", false),
    ] {
        let answer = world.ask(case).header(ABORT, status).send().await;
        world.no_request(&world.alpha, &answer);
        if falls_back {
            answer.assert_from("beta", "alpha;intercepted, beta;200");
            continue;
        }
        assert_eq!(answer.status.as_str(), status, "{case}: {answer:?}");
        assert_eq!(answer.attempts(), "alpha;intercepted");
        world.no_request(&world.beta, &answer);
    }
}

async fn a_request_over_a_rate_limit_falls_back(world: &World) {
    let answer = limited(world, "all-errors").await;
    answer.assert_from("beta", "alpha;intercepted, beta;200");
    world.no_request(&world.alpha, &answer);
}

async fn a_request_that_a_filter_answers_with_a_status_in_on_status_falls_back(world: &World) {
    for status in ["500", "503", "504", "429"] {
        let answer = world.ask("all-errors").header(ABORT, status).send().await;
        answer.assert_from("beta", "alpha;intercepted, beta;200");
        world.no_request(&world.alpha, &answer);
    }
}

async fn a_gateway_answer_whose_status_is_not_in_on_status_is_the_answer(world: &World) {
    let answer = world.ask("all-errors").header(ABORT, "401").send().await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.text(), "fault filter abort");
    assert_eq!(answer.attempts(), "alpha;intercepted");
    assert_eq!(answer.service(), None, "no service answered");
    world.no_request(&world.beta, &answer);
}

async fn with_only_backend_errors_the_gateways_answer_is_the_answer(world: &World) {
    let case = "only-backend-errors";
    for (answer, status, text) in [
        (denied(world.ask(case)).await, 403, "RBAC: access denied"),
        (limited(world, case).await, 429, "local_rate_limited"),
        (
            world.ask(case).header(ABORT, "503").send().await,
            503,
            "fault filter abort",
        ),
    ] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), text);
        assert_eq!(answer.attempts(), "alpha;intercepted");
        assert_eq!(answer.service(), None, "no service answered");
        world.no_request(&world.alpha, &answer);
        world.no_request(&world.beta, &answer);
    }
}

async fn with_only_backend_errors_a_failed_service_still_falls_back(world: &World) {
    for (fault, outcome) in [
        ("503", "503"),
        ("429", "429"),
        ("reset", "reset"),
        ("empty", "empty"),
    ] {
        let ask = world.ask("only-backend-errors").fault("alpha", fault);
        let answer = ask.send().await;
        answer.assert_from("beta", &format!("alpha;{outcome}, beta;200"));
    }
}

async fn with_only_backend_errors_an_unreachable_service_still_falls_back(world: &World) {
    let answer = world.ask("only-backend-errors-unreachable").send().await;
    answer.assert_from("beta", "refused;reset, beta;200");
}

async fn without_fallback_the_gateways_answer_is_the_answer(world: &World) {
    let answer = denied(world.ask("gateway-answers-alone")).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.text(), "RBAC: access denied");
}

async fn denied(ask: Ask) -> crate::client::Answer {
    ask.header(DENY, "yes").send().await
}

/// The answer to the second of two requests, where one is allowed.
async fn limited(world: &World, case: &str) -> crate::client::Answer {
    let ask = || world.ask(case).header(LIMITED, case);
    let first = ask().send().await;
    first.assert_from("alpha", "alpha;200");
    ask().send().await
}
