//! Which requests the filter acts on, and what happens to all others.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Raw};
use crate::world::{CASE, MAX_BODY_BYTES, World, case};

both_modes![
    the_known_model_api_paths_match_by_default,
    other_paths_do_not_match_by_default,
    a_path_pattern_matches_any_run_of_characters,
    the_first_model_api_that_matches_by_path_wins,
    the_first_model_api_that_matches_by_model_wins,
    the_first_model_api_that_matches_by_header_wins,
    a_request_without_a_model_belongs_to_a_model_api_for_any_model,
    a_request_that_matches_no_model_api_is_untouched,
    a_request_for_a_model_of_no_model_api_is_untouched,
    other_methods_than_post_are_fitted_to_a_named_primary_and_their_answer_is_untouched,
    other_methods_than_post_are_untouched_without_a_named_primary,
    other_methods_than_post_are_counted,
    a_request_that_does_not_match_is_not_buffered,
    a_compressed_body_goes_to_the_primary_untouched_without_fallback_and_is_counted,
    a_body_that_is_not_json_goes_to_the_primary_untouched_without_fallback_and_is_counted,
    a_body_over_max_body_bytes_goes_to_the_primary_untouched_without_fallback_and_is_counted,
    a_chunked_body_over_max_body_bytes_goes_to_the_primary_untouched_without_fallback,
    a_body_of_max_body_bytes_has_fallback,
    a_body_without_a_content_type_is_read,
    other_content_types_of_json_are_read,
    a_body_that_is_not_read_is_not_buffered,
];

const KNOWN: [&str; 12] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/responses/compact",
    "/messages",
    "/messages/count_tokens",
    "/rerank",
    "/score",
    "/moderations",
    "/images/generations",
    "/audio/speech",
];

/// Each Model API of these names itself by the model it sends.
fn naming(name: &str, case: &str, mut matching: Value) -> Value {
    matching["headers"][CASE] = case.into();
    json!({"name": name, "match": matching, "primary": {"service": "alpha", "model": name}})
}

pub fn model_apis() -> Vec<Value> {
    let to_beta = json!({"primary": {"service": "alpha", "model": "rewritten"}, "fallback": {"services": [{"service": "beta"}]}});
    vec![
        case("matched", to_beta),
        case(
            "by-the-route",
            json!({"primary": {"model": "rewritten"}, "fallback": {"services": [{"service": "beta"}]}}),
        ),
        naming(
            "exact-path",
            "paths",
            json!({"paths": ["/api/one", "/api/two"]}),
        ),
        naming("wild-path", "paths", json!({"paths": ["/api/*", "*/end"]})),
        naming("not-reached", "paths", json!({"paths": ["/api/one/x"]})),
        naming("middle-path", "paths", json!({"paths": ["/x/*/y"]})),
        naming("gpt", "models", json!({"models": ["gpt-*"]})),
        naming("mini", "models", json!({"models": ["gpt-4o-mini", "o3"]})),
        naming("any", "models", json!({})),
        naming("only-claude", "claude", json!({"models": ["claude-*"]})),
        naming("acme", "tenants", json!({"headers": {"x-tenant": "acme"}})),
        naming(
            "acme-vip",
            "tenants",
            json!({"headers": {"x-tenant": "acme", "x-vip": "1"}}),
        ),
        naming("vip", "tenants", json!({"headers": {"x-vip": "1"}})),
    ]
}

async fn the_known_model_api_paths_match_by_default(world: &World) {
    for end in KNOWN {
        for start in ["", "/v1", "/openai/deployments/x"] {
            let path = format!("{start}{end}");
            let answer = world
                .ask("matched")
                .path(&path)
                .fault("alpha", "503")
                .send()
                .await;
            assert_eq!(answer.attempts(), "alpha;503, beta;200", "{path}");
        }
    }
    let ask = world
        .ask("matched")
        .path("/v1/messages?beta=true")
        .fault("alpha", "503");
    assert_eq!(ask.send().await.attempts(), "alpha;503, beta;200");
}

async fn other_paths_do_not_match_by_default(world: &World) {
    for path in [
        "/",
        "/v1/models",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "/v1/files?x=/completions",
        "/v1/mycompletions",
    ] {
        let answer = world
            .ask("matched")
            .path(path)
            .fault("alpha", "503")
            .send()
            .await;
        assert_untouched(world, &answer, 503);
    }
}

async fn a_path_pattern_matches_any_run_of_characters(world: &World) {
    for (path, api) in [
        ("/api/", Some("wild-path")),
        ("/api/three/four", Some("wild-path")),
        ("/some/where/end", Some("wild-path")),
        ("/x/y", None),
        ("/x//y", Some("middle-path")),
        ("/x/a/b/y?q=1", Some("middle-path")),
        ("/api", None),
    ] {
        assert_eq!(
            api_of(world, world.ask("paths").path(path))
                .await
                .as_deref(),
            api,
            "{path}"
        );
    }
}

async fn the_first_model_api_that_matches_by_path_wins(world: &World) {
    for (path, api) in [
        ("/api/one", "exact-path"),
        ("/api/two?x=1", "exact-path"),
        ("/api/one/x", "wild-path"),
    ] {
        assert_eq!(
            api_of(world, world.ask("paths").path(path))
                .await
                .as_deref(),
            Some(api),
            "{path}"
        );
    }
}

async fn the_first_model_api_that_matches_by_model_wins(world: &World) {
    for (model, api) in [
        ("gpt-4o-mini", "gpt"),
        ("gpt-", "gpt"),
        ("o3", "mini"),
        ("o3-mini", "any"),
        ("", "any"),
    ] {
        assert_eq!(
            api_of(world, world.ask("models").model(model))
                .await
                .as_deref(),
            Some(api),
            "{model}"
        );
    }
}

async fn the_first_model_api_that_matches_by_header_wins(world: &World) {
    let ask = || world.ask("tenants");
    for (ask, api) in [
        (ask().header("x-tenant", "acme"), Some("acme")),
        (
            ask().header("x-tenant", "acme").header("x-vip", "1"),
            Some("acme"),
        ),
        (ask().header("x-vip", "1"), Some("vip")),
        (ask().header("x-tenant", "acme2"), None),
        (ask().header("x-tenant", "ACME"), None),
        (ask(), None),
    ] {
        assert_eq!(api_of(world, ask).await.as_deref(), api);
    }
}

async fn a_request_without_a_model_belongs_to_a_model_api_for_any_model(world: &World) {
    let body = r#"{"messages": []}"#;
    assert_eq!(
        api_of(world, world.ask("models").body(body))
            .await
            .as_deref(),
        Some("any")
    );
    assert_eq!(api_of(world, world.ask("claude").body(body)).await, None);
}

/// Which Model API a request belonged to; none where nothing was done with it.
async fn api_of(world: &World, ask: Ask) -> Option<String> {
    let answer = ask.send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let model = world.one_request(&world.alpha, &answer).model();
    match answer.attempts().as_str() {
        "alpha;200" => model,
        "" => None,
        other => panic!("{other}"),
    }
}

async fn a_request_that_matches_no_model_api_is_untouched(world: &World) {
    let body: &[u8] = b"\xff\x00 not JSON {\"model\": 1, \"model\": 2";
    let ask = world
        .ask("no-such-case")
        .body(body)
        .header("authorization", "secret");
    let answer = ask.fault("alpha", "503").send().await;
    assert_untouched(world, &answer, 503);
    let request = world.one_request(&world.alpha, &answer);
    assert_eq!(request.body, body);
    assert_eq!(request.header("authorization"), Some("secret"));
}

async fn a_request_for_a_model_of_no_model_api_is_untouched(world: &World) {
    let body = r#" { "model" : "gpt-4o" } "#;
    let ask = world
        .ask("claude")
        .body(body)
        .header("authorization", "secret");
    let answer = ask.fault("alpha", "503").send().await;
    assert_untouched(world, &answer, 503);
    let request = world.one_request(&world.alpha, &answer);
    assert_eq!(request.body, body);
    assert_eq!(request.header("authorization"), Some("secret"));
}

async fn other_methods_than_post_are_fitted_to_a_named_primary_and_their_answer_is_untouched(
    world: &World,
) {
    for (method, body) in OTHERS {
        let answer = other(world, "matched", method, body).await;
        assert_untouched(world, &answer, 503);
        let request = world.one_request(&world.alpha, &answer);
        assert_eq!(
            (request.method.as_str(), request.header("authorization")),
            (method, None)
        );
        assert_eq!(request.body, body);
    }
}

async fn other_methods_than_post_are_untouched_without_a_named_primary(world: &World) {
    for (method, body) in OTHERS {
        let answer = other(world, "by-the-route", method, body).await;
        assert_untouched(world, &answer, 503);
        let request = world.one_request(&world.alpha, &answer);
        assert_eq!(
            (request.method.as_str(), request.header("authorization")),
            (method, Some("secret"))
        );
        assert_eq!(request.body, body);
    }
}

async fn other_methods_than_post_are_counted(world: &World) {
    let named = json!({"name": "all", "primary": {"service": "alpha"}});
    let unnamed = json!({"name": "all", "primary": {"model": "rewritten"}});
    for (api, count) in [(named, OTHERS.len() as u64), (unnamed, 0)] {
        let world = World::alone(world.mode, api, |gateway| gateway);
        for (method, body) in OTHERS {
            other(&world, "all", method, body).await;
        }
        for what in ["requests reason=other_method", "requests"] {
            assert_eq!(world.envoy.metric(what), count, "{what}");
        }
    }
}

/// Methods other than `POST`, each with a body.
const OTHERS: [(&str, &str); 6] = [
    ("GET", ""),
    ("PUT", "not JSON"),
    ("PATCH", "{\"model\": \"gpt-4o\"}"),
    ("DELETE", ""),
    ("OPTIONS", ""),
    ("HEAD", ""),
];

async fn other(world: &World, case: &str, method: &str, body: &'static str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let ask = world.ask(case).method(method).body(body);
    let ask = ask.header("authorization", "secret");
    ask.fault("alpha", "503").send().await
}

fn assert_untouched(world: &World, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.attempts(), "", "{answer:?}");
    assert_eq!(answer.service(), None, "{answer:?}");
    world.one_request(&world.alpha, answer);
    world.no_request(&world.beta, answer);
}

async fn a_request_that_does_not_match_is_not_buffered(world: &World) {
    assert_not_buffered(
        world,
        "POST /v1/files HTTP/1.1\r\ncontent-type: application/json",
    )
    .await;
    assert_not_buffered(
        world,
        "PUT /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json",
    )
    .await;
}

async fn a_body_that_is_not_read_is_not_buffered(world: &World) {
    let chat = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type";
    assert_not_buffered(
        world,
        &format!("{chat}: application/json\r\ncontent-encoding: gzip"),
    )
    .await;
    assert_not_buffered(world, &format!("{chat}: multipart/form-data; boundary=x")).await;
}

/// The first part of the body reaches the service before the client has sent the rest.
async fn assert_not_buffered(world: &World, head: &str) {
    // For an id of its own.
    let id = world.ask("matched").id;
    let mut raw = Raw::connect(world.envoy.addr()).await;
    raw.write(&format!(
        "{head}\r\nhost: gateway\r\nx-case: matched\r\nx-route: alpha\r\nx-test-id: {id}\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst,\r\n"
    ))
    .await;
    let first = |all: &[crate::mock::Received]| all.iter().any(|one| one.body == "first,");
    let seen = world.alpha.wait_for_id(&id, first).await;
    assert!(!seen[0].complete);
    raw.write("6\r\nsecond\r\n0\r\n\r\n").await;
    raw.read_until("HTTP/1.1 200 OK").await;
    assert_eq!(world.alpha.requests_with(&id)[0].body, "first,second");
}

async fn a_compressed_body_goes_to_the_primary_untouched_without_fallback_and_is_counted(
    world: &World,
) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(br#"{"model": "gpt-4o"}"#)
        .expect("in memory");
    let body = gzip.finish().expect("in memory");
    let ask = world
        .ask("matched")
        .body(body.clone())
        .header("content-encoding", "gzip");
    assert_unread(world, ask, &body.into(), "compressed").await;
}

async fn a_body_that_is_not_json_goes_to_the_primary_untouched_without_fallback_and_is_counted(
    world: &World,
) {
    for content_type in [
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/octet-stream",
    ] {
        let ask = world
            .ask("matched")
            .body("--x\r\n")
            .header("content-type", content_type);
        assert_unread(world, ask, &Bytes::from("--x\r\n"), "not_json").await;
    }
}

async fn a_body_over_max_body_bytes_goes_to_the_primary_untouched_without_fallback_and_is_counted(
    world: &World,
) {
    let body = sized(MAX_BODY_BYTES + 1);
    assert_unread(
        world,
        world.ask("matched").body(body.clone()),
        &body.into(),
        "too_large",
    )
    .await;
}

async fn a_chunked_body_over_max_body_bytes_goes_to_the_primary_untouched_without_fallback(
    world: &World,
) {
    let body = sized(MAX_BODY_BYTES + 100_000);
    let (start, end) = (&body[..MAX_BODY_BYTES - 10], &body[MAX_BODY_BYTES - 10..]);
    let ask = world.ask("matched").chunks(&[start, end]);
    assert_unread(world, ask, &body.clone().into(), "too_large").await;
}

async fn assert_unread(world: &World, ask: Ask, body: &Bytes, reason: &str) {
    let counter = format!("requests result=skipped reason={reason}");
    let before = world.envoy.metric(&counter);
    let answer = ask.fault("alpha", "503").send().await;
    answer.assert_failure_of("alpha", 503, &format!("alpha;503;{reason}"));
    world.no_request(&world.beta, &answer);
    assert_eq!(&world.one_request(&world.alpha, &answer).body, body);
    assert!(world.envoy.metric(&counter) > before);
}

async fn a_body_of_max_body_bytes_has_fallback(world: &World) {
    let body = sized(MAX_BODY_BYTES);
    let (start, end) = (&body[..1000], &body[1000..]);
    for ask in [
        world.ask("matched").body(body.clone()),
        world.ask("matched").chunks(&[start, end]),
    ] {
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        assert_eq!(world.one_request(&world.beta, &answer).body, body);
        assert_eq!(
            world.one_request(&world.alpha, &answer).body,
            body.replace("gpt-4o", "rewritten")
        );
    }
}

async fn a_body_without_a_content_type_is_read(world: &World) {
    let ask = world
        .ask("matched")
        .without("content-type")
        .fault("alpha", "503");
    ask.send().await.assert_from("beta", "alpha;503, beta;200");
}

async fn other_content_types_of_json_are_read(world: &World) {
    for content_type in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
    ] {
        let ask = world.ask("matched").header("content-type", content_type);
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
    }
}

/// A body of so many bytes.
fn sized(bytes: usize) -> String {
    let (start, end) = (r#"{"model": "gpt-4o", "input": ""#, r#""}"#);
    format!(
        "{start}{}{end}",
        "x".repeat(bytes - start.len() - end.len())
    )
}
