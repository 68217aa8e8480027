//! Errors made by the filter, in the shape of the API that was called.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::world::{Short, World, case};

both_modes![
    where_the_last_service_is_not_reached_the_client_gets_502,
    where_the_last_service_resets_the_client_gets_502,
    where_the_last_service_takes_too_long_the_client_gets_504,
    a_client_cannot_change_how_long_or_how_often_a_fallback_is_tried,
    the_502_and_504_have_the_shape_of_the_api_that_was_called,
    the_status_follows_the_last_attempt,
    a_body_that_is_no_json_object_gets_400,
    a_body_with_two_models_gets_400,
    a_body_with_two_streams_gets_400,
    a_model_that_is_no_string_gets_400,
    the_400_has_the_shape_of_the_api_that_was_called,
    no_error_holds_the_body_or_a_credential,
];

pub fn model_apis(short: Short) -> Vec<Value> {
    let with = |services: Value| json!({"primary": {"service": "alpha"}, "fallback": {"services": services, "request_timeout_ms": short}});
    vec![
        case(
            "last-refused",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": [{"service": "refused"}]}}),
        ),
        case(
            "last-nowhere",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": [{"service": "nowhere"}]}}),
        ),
        case(
            "last-unknown",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": [{"service": "unknown"}]}}),
        ),
        case(
            "last-resets",
            json!({"primary": {"service": "refused"}, "fallback": {"services": [{"service": "beta"}]}}),
        ),
        case("last-hangs", with(json!([{"service": "beta"}]))),
        case(
            "bad-bodies",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": [{"service": "beta"}]}}),
        ),
    ]
}

async fn where_the_last_service_is_not_reached_the_client_gets_502(world: &World) {
    for last in ["refused", "nowhere", "unknown"] {
        for ask in [
            world.ask(&format!("last-{last}")),
            world.ask(&format!("last-{last}")).stream(),
        ] {
            let answer = ask.fault("alpha", "503").send().await;
            assert_no_answer(&answer, 502, &format!("alpha;503, {last};reset"));
        }
    }
}

async fn where_the_last_service_resets_the_client_gets_502(world: &World) {
    for ask in [world.ask("last-resets"), world.ask("last-resets").stream()] {
        let answer = ask.fault("beta", "reset").send().await;
        assert_no_answer(&answer, 502, "refused;reset, beta;reset");
    }
}

async fn where_the_last_service_takes_too_long_the_client_gets_504(world: &World) {
    let both =
        ["hang", "silence"].map(|fault| world.ask("last-hangs").header("x-mock", fault).send());
    for answer in join_all(both).await {
        assert_no_answer(&answer, 504, "alpha;request_timeout, beta;request_timeout");
    }
    let stream = world
        .ask("last-hangs")
        .stream()
        .header("x-mock", "comments");
    assert_no_answer(
        &stream.send().await,
        504,
        "alpha;request_timeout, beta;request_timeout",
    );
}

async fn a_client_cannot_change_how_long_or_how_often_a_fallback_is_tried(world: &World) {
    // Envoy believes these of a client that it trusts.
    let ask = world.ask("last-hangs").fault("alpha", "503");
    let ask = ask.header("x-envoy-upstream-rq-timeout-ms", "0");
    let answer = ask.fault("beta", "hang").send().await;
    assert_no_answer(&answer, 504, "alpha;503, beta;request_timeout");

    let ask = world.ask("last-hangs").fault("alpha", "reset");
    let ask = ask
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-max-retries", "3");
    let answer = ask.fault("beta", "503").send().await;
    answer.assert_failure_of("beta", 503, "alpha;reset, beta;503");
    world.one_request(&world.beta, &answer);
}

async fn the_502_and_504_have_the_shape_of_the_api_that_was_called(world: &World) {
    for (case, status) in [("last-refused", 502), ("last-hangs", 504)] {
        for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/responses"] {
            let ask = world
                .ask(case)
                .path(path)
                .header("x-mock", "hang")
                .fault("alpha", "503");
            let answer = ask.send().await;
            assert_openai_error(&answer, status);
        }
        let ask = world
            .ask(case)
            .messages()
            .header("x-mock", "hang")
            .fault("alpha", "503");
        assert_anthropic_error(&ask.send().await, status);
    }
}

async fn the_status_follows_the_last_attempt(world: &World) {
    // A timeout, and then a reset.
    let ask = world
        .ask("last-hangs")
        .fault("alpha", "hang")
        .fault("beta", "reset");
    let answer = ask.send().await;
    assert_no_answer(&answer, 502, "alpha;request_timeout, beta;reset");
}

/// A broken answer that has no service: `x-ai-fallback-service` is absent.
#[track_caller]
fn assert_no_answer(answer: &Answer, status: u16, attempts: &str) {
    assert_eq!(answer.attempts(), attempts, "{answer:?}");
    assert_eq!(answer.service(), None, "{answer:?}");
    assert_openai_error(answer, status);
}

async fn a_body_that_is_no_json_object_gets_400(world: &World) {
    let table = [
        (r#"{"model": "gpt-4o""#, "ends"),
        (r#"["gpt-4o"]"#, "not a JSON object"),
        (r#""gpt-4o""#, "not a JSON object"),
        ("nonsense", "not a JSON object"),
        (r#"{"model" "gpt-4o"}"#, "byte 9"),
        ("   ", ""),
        ("", "empty"),
    ];
    for (body, why) in table {
        let message = assert_refused(world, world.ask("bad-bodies").body(body)).await;
        assert!(message.contains(why), "{body}: {message}");
    }
}

async fn a_body_with_two_models_gets_400(world: &World) {
    for body in [
        r#"{"model": "gpt-4o", "model": "gpt-4o"}"#,
        r#"{"model": "a", "messages": [], "mod\u0065l": "b"}"#,
    ] {
        let message = assert_refused(world, world.ask("bad-bodies").body(body)).await;
        assert!(message.contains("`model`"), "{message}");
    }
}

async fn a_body_with_two_streams_gets_400(world: &World) {
    let body = r#"{"model": "a", "stream": true, "stream": false}"#;
    let message = assert_refused(world, world.ask("bad-bodies").body(body)).await;
    assert!(message.contains("`stream`"), "{message}");
}

async fn a_model_that_is_no_string_gets_400(world: &World) {
    for model in ["7", "null", "[]", "{}", "true", r#""\ud800""#] {
        let body = format!(r#"{{"model": {model}}}"#);
        let message = assert_refused(world, world.ask("bad-bodies").body(body)).await;
        assert!(message.contains("`model`"), "{model}: {message}");
    }
}

/// The message of the error.
async fn assert_refused(world: &World, ask: Ask) -> String {
    let answer = ask.send().await;
    assert_openai_error(&answer, 400);
    world.no_request(&world.alpha, &answer);
    world.no_request(&world.beta, &answer);
    answer.json()["error"]["message"]
        .as_str()
        .expect("text")
        .to_owned()
}

async fn the_400_has_the_shape_of_the_api_that_was_called(world: &World) {
    for path in [
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/responses?x=/messages",
    ] {
        assert_openai_error(
            &world.ask("bad-bodies").path(path).body("[]").send().await,
            400,
        );
    }
    for path in ["/v1/messages", "/v1/messages?beta=true"] {
        assert_anthropic_error(
            &world.ask("bad-bodies").path(path).body("[]").send().await,
            400,
        );
    }
}

async fn no_error_holds_the_body_or_a_credential(world: &World) {
    const SECRET: &str = "sk-secret";
    let bad = world
        .ask("bad-bodies")
        .body(format!(r#"{{"model": {SECRET}"#));
    let unreachable = world
        .ask("last-refused")
        .model(SECRET)
        .fault("alpha", "503");
    for ask in [bad, unreachable] {
        let answer = ask.header("authorization", SECRET).send().await;
        assert!(!format!("{answer:?}").contains(SECRET), "{answer:?}");
    }
    assert!(!world.envoy.log_contains(SECRET));
}

#[track_caller]
fn assert_openai_error(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(keys(&body), ["error"], "{answer:?}");
    assert_eq!(
        keys(&body["error"]),
        ["code", "message", "param", "type"],
        "{answer:?}"
    );
    assert!(
        body["error"]["message"].is_string() && body["error"]["type"].is_string(),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_anthropic_error(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(keys(&body), ["error", "type"], "{answer:?}");
    assert_eq!(body["type"], "error");
    assert_eq!(keys(&body["error"]), ["message", "type"], "{answer:?}");
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}
