//! Token usage: what an answer says that it took is counted for the service that gave it, and logged, while the answer
//! goes on to the client as it comes.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::Ended;
use crate::support::{Envoy, eventually};
use crate::world::{MAX_BODY_BYTES, World, case};

both_modes![
    every_api_is_read_whole_and_as_a_stream,
    an_answer_counts_for_the_service_that_gave_it,
    a_stream_without_usage_has_no_tokens,
    an_answer_with_trailers_is_read,
    a_large_answer_is_read,
    a_held_answer_is_read,
    a_stream_is_read_while_it_goes_on,
    a_stream_whose_client_leaves_counts_for_what_it_said,
    a_stream_that_breaks_off_counts_for_what_it_said,
    services_are_asked_for_uncompressed_answers,
    a_compressed_answer_has_no_tokens,
    an_error_has_no_tokens,
    a_request_that_was_not_read_counts_for_its_primary,
    models_are_named_as_they_are_configured,
    nothing_is_read_where_it_is_off,
];

/// Prompt, completion and cached tokens.
type Tokens = [Option<u64>; 3];

const KINDS: [&str; 3] = ["prompt", "completion", "cached"];
/// What a mock service says of every good answer.
const ALL: Tokens = [Some(5), Some(7), Some(2)];
/// What it says at the start of a stream of Anthropic's.
const STARTED: Tokens = [Some(5), Some(1), Some(2)];
const NONE: Tokens = [None; 3];

/// Cases with a model of their own, by which their tokens are counted.
const CASES: [&str; 12] = [
    "usage-api",
    "usage-fallback",
    "usage-silent",
    "usage-trailers",
    "usage-large",
    "usage-live",
    "usage-left",
    "usage-broken",
    "usage-plain",
    "usage-gzip",
    "usage-error",
    "usage-unread",
];

/// Names of models with anything in them that means something in a name of Envoy's metrics: it keeps them as they are.
const NAMES: [&str; 4] = [
    "gpt-4.1",
    "meta-llama/Llama-3.3-70B",
    "llama3.1:8b",
    "ft:gpt-4o:org::x=y",
];

/// A world that reads tokens.
fn reading(world: &World) -> (&'static World, Envoy) {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let start = || {
        let model_api = |name: &str| {
            let target = json!({"service": "beta", "model": name});
            case(
                name,
                json!({"primary": {"service": "alpha", "model": name}, "fallback": {"services": [target]}}),
            )
        };
        let mut apis = CASES.map(model_api).to_vec();
        let mut held = model_api("usage-held");
        held["fallback"]["deliver"] = json!("complete");
        let named = json!({"primary": {"service": "named"}});
        apis.extend([held, case("usage-named", named)]);
        let models = NAMES.map(|name| (name.to_owned(), json!("the same")));
        let models: Value = models.into_iter().collect();
        let more = json!({
            "telemetry": {"token_usage": true, "access_log": true},
            "services": {"named": {"cluster": "alpha", "models": models}},
        });
        let field = |kind| format!("%FILTER_STATE(wasm.ai_fallback.{kind}_tokens:PLAIN)%");
        let log = json!([{
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": {"json_format": {
                    "id": "%REQ(X-TEST-ID)%",
                    "prompt": field("prompt"), "completion": field("completion"), "cached": field("cached"),
                }},
            },
        }]);
        World::with(world.mode, apis.into(), more, |gateway| {
            gateway.manager(json!({"access_log": log}))
        })
    };
    let found = WORLDS[world.mode as usize].get_or_init(start);
    (found, found.envoy.clone())
}

/// What the metrics have for this service and model.
fn counted(world: &World, service: &str, model: &str) -> Tokens {
    let stats = world.envoy.stats();
    KINDS.map(|kind| {
        let name = format!(
            "wasmcustom.ai_fallback.tokens.model_service={service}.token_type={kind}.model={model}"
        );
        stats.get(&name).copied()
    })
}

/// What the access log has for the request with this id.
async fn logged(world: &World, id: &str) -> Tokens {
    let mut found = None;
    eventually("the request is logged", || {
        let log = world.envoy.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = lines.find(|line| line["id"] == id);
        found.is_some()
    })
    .await;
    let line = found.expect("waited for");
    KINDS.map(|kind| line[kind].as_str()?.parse().ok())
}

/// So many answers that say the same.
fn times(count: u64, tokens: Tokens) -> Tokens {
    tokens.map(|number| Some(number? * count))
}

fn chat(stream: bool) -> Value {
    let options = stream.then(|| json!({"include_usage": true}));
    json!({"model": "gpt-4o", "stream": stream, "stream_options": options, "messages": []})
}

async fn every_api_is_read_whole_and_as_a_stream(world: &World) {
    let (world, _log) = reading(world);
    for path in ["chat/completions", "completions", "responses", "messages"] {
        for stream in [false, true] {
            let ask = world.ask("usage-api").json(&chat(stream));
            let answer = ask.path(&format!("/v1/{path}")).send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(logged(world, &answer.id).await, ALL, "{answer:?}");
        }
    }
    assert_eq!(counted(world, "alpha", "usage-api"), times(8, ALL));
    let ask = world.ask("usage-api").path("/v1/embeddings");
    let answer = ask
        .json(&json!({"model": "e", "input": ["a"]}))
        .send()
        .await;
    assert_eq!(logged(world, &answer.id).await, [Some(5), None, None]);
    assert_eq!(
        counted(world, "alpha", "usage-api"),
        [Some(45), Some(56), Some(16)]
    );
}

async fn an_answer_counts_for_the_service_that_gave_it(world: &World) {
    let (world, _log) = reading(world);
    for (count, stream) in [(1, false), (2, true)] {
        let ask = world.ask("usage-fallback").json(&chat(stream));
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        assert_eq!(logged(world, &answer.id).await, ALL, "{answer:?}");
        assert_eq!(counted(world, "beta", "usage-fallback"), times(count, ALL));
    }
    assert_eq!(counted(world, "alpha", "usage-fallback"), NONE);
}

async fn a_stream_without_usage_has_no_tokens(world: &World) {
    let (world, _log) = reading(world);
    let answer = world.ask("usage-silent").stream().send().await;
    answer.assert_from("alpha", "alpha;200");
    assert_eq!(logged(world, &answer.id).await, NONE);
    assert_eq!(counted(world, "alpha", "usage-silent"), NONE);
}

async fn an_answer_with_trailers_is_read(world: &World) {
    let (world, _log) = reading(world);
    for stream in [false, true] {
        let ask = world.ask("usage-trailers").json(&chat(stream)).http2();
        let answer = ask
            .header("te", "trailers")
            .fault("alpha", "trailers")
            .send()
            .await;
        answer.assert_from("alpha", "alpha;200");
        assert_eq!(logged(world, &answer.id).await, ALL, "{answer:?}");
    }
    assert_eq!(counted(world, "alpha", "usage-trailers"), times(2, ALL));
}

async fn a_large_answer_is_read(world: &World) {
    let (world, _log) = reading(world);
    for path in ["chat/completions", "responses", "messages"] {
        for stream in [false, true] {
            let ask = world.ask("usage-large").json(&chat(stream));
            let ask = ask
                .path(&format!("/v1/{path}"))
                .fault("alpha", "size=900000,chunks=90");
            let answer = ask.send().await;
            assert!(answer.body.len() > 900_000, "{answer:?}");
            assert_eq!(logged(world, &answer.id).await, ALL, "{answer:?}");
        }
    }
    assert_eq!(counted(world, "alpha", "usage-large"), times(6, ALL));
}

async fn a_held_answer_is_read(world: &World) {
    let (world, _log) = reading(world);
    for (count, stream) in [(1, false), (2, true)] {
        let ask = world.ask("usage-held").json(&chat(stream));
        let answer = ask.fault("alpha", "reset-after=2,gap=10").send().await;
        answer.assert_from("beta", "alpha;reset, beta;200");
        assert_eq!(logged(world, &answer.id).await, ALL, "{answer:?}");
        assert_eq!(counted(world, "beta", "usage-held"), times(count, ALL));
        let answer = world.ask("usage-held").json(&chat(stream)).send().await;
        answer.assert_from("alpha", "alpha;200");
        assert_eq!(counted(world, "alpha", "usage-held"), times(count, ALL));
    }
}

async fn a_stream_is_read_while_it_goes_on(world: &World) {
    let (world, _log) = reading(world);
    let ask = world
        .ask("usage-live")
        .json(&chat(true))
        .fault("alpha", "gate=2");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("Hello").await;
    assert_eq!(world.alpha.requests_with(&id)[0].chunks_sent, 2);
    assert_eq!(counted(world, "alpha", "usage-live"), NONE);
    world.alpha.open_gate(&id);
    live.rest().await.assert_from("alpha", "alpha;200");
    assert_eq!(logged(world, &id).await, ALL);
    assert_eq!(counted(world, "alpha", "usage-live"), ALL);
}

async fn a_stream_whose_client_leaves_counts_for_what_it_said(world: &World) {
    let (world, _log) = reading(world);
    let ask = world.ask("usage-left").json(&chat(true)).messages();
    let ask = ask.fault("alpha", "gate=4");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("Hello").await;
    drop(live);
    assert_eq!(logged(world, &id).await, STARTED);
    assert_eq!(counted(world, "alpha", "usage-left"), STARTED);
}

async fn a_stream_that_breaks_off_counts_for_what_it_said(world: &World) {
    let (world, _log) = reading(world);
    let ask = world.ask("usage-broken").json(&chat(true)).messages();
    let ask = ask.fault("alpha", "reset-after=4");
    let id = ask.id.clone();
    ask.open().await.broken().await;
    assert_eq!(world.alpha.requests_with(&id)[0].ended, Some(Ended::Reset));
    assert_eq!(logged(world, &id).await, STARTED);
    assert_eq!(counted(world, "alpha", "usage-broken"), STARTED);
}

/// Sends a request that takes a compressed answer.
async fn asking_for_gzip(ask: Ask, fault: &str) -> Answer {
    let ask = ask.header("accept-encoding", "gzip, br");
    ask.fault("alpha", fault).send().await
}

async fn services_are_asked_for_uncompressed_answers(world: &World) {
    let (world, _log) = reading(world);
    let answer = asking_for_gzip(world.ask("usage-plain"), "503").await;
    answer.assert_from("beta", "alpha;503, beta;200");
    for service in [&world.alpha, &world.beta] {
        let received = world.one_request(service, &answer);
        assert_eq!(received.header("accept-encoding"), None, "{received:?}");
    }
}

async fn a_compressed_answer_has_no_tokens(world: &World) {
    let (world, _log) = reading(world);
    let answer = asking_for_gzip(world.ask("usage-gzip"), "gzip").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
    assert_eq!(logged(world, &answer.id).await, NONE);
}

async fn an_error_has_no_tokens(world: &World) {
    let (world, _log) = reading(world);
    let says = r#"503,body={"usage": {"prompt_tokens": 1}}"#;
    let ask = world.ask("usage-error").fault("alpha", says);
    let answer = ask.fault("beta", says).send().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("prompt_tokens"), "{answer:?}");
    assert_eq!(logged(world, &answer.id).await, NONE);
    for service in ["alpha", "beta"] {
        assert_eq!(counted(world, service, "usage-error"), NONE);
    }
}

async fn a_request_that_was_not_read_counts_for_its_primary(world: &World) {
    let (world, _log) = reading(world);
    let filler = "x".repeat(MAX_BODY_BYTES);
    let body = json!({"model": "gpt-4o", "messages": [filler]});
    let answer = world.ask("usage-unread").json(&body).send().await;
    answer.assert_from("alpha", "alpha;200;too_large");
    assert_eq!(logged(world, &answer.id).await, ALL);
    assert_eq!(counted(world, "alpha", "pass-through"), ALL);
}

async fn models_are_named_as_they_are_configured(world: &World) {
    let (world, _log) = reading(world);
    for name in NAMES {
        let answer = world.ask("usage-named").model(name).send().await;
        assert_eq!(logged(world, &answer.id).await, ALL);
        assert_eq!(counted(world, "named", name), ALL, "{name}");
    }
    let answer = world.ask("usage-named").model("any").send().await;
    assert_eq!(logged(world, &answer.id).await, ALL);
    assert_eq!(counted(world, "named", "pass-through"), ALL);
}

async fn nothing_is_read_where_it_is_off(world: &World) {
    let ask = world.ask("streams").json(&chat(false));
    let answer = asking_for_gzip(ask, "").await;
    answer.assert_from("alpha", "alpha;200");
    let received = world.one_request(&world.alpha, &answer);
    assert_eq!(received.header("accept-encoding"), Some("gzip, br"));
    let stats = world.envoy.stats();
    assert!(!stats.keys().any(|name| name.contains("ai_fallback.tokens")));
}
