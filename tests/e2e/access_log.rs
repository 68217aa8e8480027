//! What access logs tell of a request: the format of `envoy/callout.yaml` and `envoy/router.yaml`, read back line by line.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::gateway_answers::ABORT;
use crate::support::{Envoy, eventually};
use crate::world::{MAX_BODY_BYTES, Mode, World, case};

both_modes![
    a_request_that_its_primary_answered,
    a_request_that_another_service_answered,
    a_stream_that_another_service_answered,
    a_request_that_a_retry_answered,
    a_request_that_no_service_answered_well,
    a_request_that_no_service_answered_at_all,
    a_request_without_fallback_that_failed,
    a_request_that_the_gateway_answered,
    a_request_that_the_filter_refused,
    a_request_that_was_not_read,
    a_request_whose_primary_was_skipped,
    a_request_whose_client_left,
    a_request_whose_client_left_while_a_fallback_was_under_way,
    a_stream_whose_client_left_after_it_began,
    a_stream_that_broke_after_it_began,
    a_log_before_the_end_tells_what_is_settled,
    a_request_whose_primary_is_where_the_route_leads,
    a_request_that_is_none_of_a_model_api,
    the_line_in_the_docs_is_such_a_line,
    a_long_model_name_is_cut,
    the_path_is_what_was_last_sent_along_the_route,
];

/// The access log of an example, as it stands there.
fn access_log(mode: Mode) -> Value {
    let file = match mode {
        Mode::Callout => "envoy/callout.yaml",
        Mode::Router => "envoy/router.yaml",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect(file);
    let example: Value = serde_saphyr::from_str(&text).expect(file);
    let listener = &example["static_resources"]["listeners"][0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    json!({"access_log": manager["access_log"]})
}

fn model_apis() -> Value {
    let services = json!([{"service": "beta", "model": "qwen-plus"}]);
    let on_status = json!(["429", "5xx"]);
    let fallback = json!({"services": services, "on_status": on_status});
    let intercepted =
        json!({"services": services, "on_status": on_status, "only_backend_errors": false});
    json!([
        case(
            "log",
            json!({"primary": {"service": "alpha"}, "fallback": fallback})
        ),
        case(
            "log-all",
            json!({"primary": {"service": "alpha"}, "fallback": intercepted})
        ),
        case(
            "log-retry",
            json!({"primary": {"service": "alpha", "retries": 1}, "fallback": fallback})
        ),
        case(
            "log-alone",
            json!({"primary": {"service": "alpha", "model": "small"}})
        ),
        case("log-route", json!({"fallback": fallback})),
        case(
            "log-path",
            json!({
                "primary": {"service": "alpha"},
                "fallback": {"services": [{"service": "log-elsewhere"}]},
            })
        ),
        case(
            "log-unreachable",
            json!({
                "primary": {"service": "refused"},
                "fallback": {"services": [{"service": "refused", "model": "other"}]},
            })
        ),
    ])
}

fn start(mode: Mode, cooldown: Value, options: Value) -> World {
    let more = json!({
        "services": {"log-elsewhere": {"cluster": "beta", "path": "/elsewhere{path}"}},
        "telemetry": {"access_log": true},
        "cooldown": cooldown,
    });
    let access_log = access_log(mode);
    World::with(mode, model_apis(), more, |gateway| {
        gateway.manager(access_log).manager(options)
    })
}

/// A world whose requests are logged.
fn logged(world: &World) -> (&'static World, Envoy) {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let found = WORLDS[world.mode as usize]
        .get_or_init(|| start(world.mode, json!({"enabled": false}), json!({})));
    (found, found.envoy.clone())
}

/// The same, and services cool after one failure.
fn cooling(world: &World) -> (&'static World, Envoy) {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let cooldown = json!({"failures": 1, "time_ms": 60_000});
    let found = WORLDS[world.mode as usize].get_or_init(|| start(world.mode, cooldown, json!({})));
    (found, found.envoy.clone())
}

/// All lines so far of the request with this path.
fn lines(world: &World, path: &str) -> Vec<Value> {
    let log = world.envoy.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let parsed = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["path"] == path).collect()
}

/// The first line of the request with this path.
async fn line(world: &World, path: &str) -> Value {
    line_where(world, path, |_| true).await
}

async fn line_where(world: &World, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    eventually("the request is logged", || {
        found = lines(world, path).into_iter().find(&is_it);
        found.is_some()
    })
    .await;
    found.expect("waited for")
}

/// Sends a request, and returns its answer and its line.
async fn log(world: &World, ask: Ask) -> (Answer, Value) {
    let path = ask.own_path();
    let answer = ask.path(&path).send().await;
    (answer, line(world, &path).await)
}

/// What the filter says of a request: result, service, model, attempts without their times, reason. `-` where there is none.
fn told(line: &Value) -> [String; 5] {
    ["result", "service", "model", "attempts", "reason"].map(|field| {
        let value = line[field].as_str().unwrap_or("-");
        let without_times = value.split(", ").map(|attempt| {
            let parts = attempt.split(';').filter(|part| !part.ends_with("ms"));
            parts.collect::<Vec<_>>().join(";")
        });
        without_times.collect::<Vec<_>>().join(", ")
    })
}

#[track_caller]
fn assert_told(line: &Value, case: &str, expected: [&str; 5]) {
    assert_eq!(line["api"], case, "{line}");
    assert_eq!(told(line), expected, "{line}");
}

/// That the line has the attempts that the client was told.
#[track_caller]
fn assert_same_attempts(line: &Value, answer: &Answer) {
    assert_eq!(
        line["attempts"].as_str(),
        answer.header("x-ai-fallback-attempts")
    );
    assert_eq!(line["status"], answer.status.as_u16());
}

async fn a_request_that_its_primary_answered(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log")).await;
    assert_told(
        &line,
        "log",
        ["primary", "alpha", "gpt-4o", "alpha;200", "-"],
    );
    assert_same_attempts(&line, &answer);
    assert_eq!(line["method"], "POST");
    assert_eq!(line["response_flags"], "-");
    for number in [
        "duration_ms",
        "first_byte_ms",
        "bytes_received",
        "bytes_sent",
    ] {
        assert!(line[number].is_u64(), "{number}: {line}");
    }
}

async fn a_request_that_another_service_answered(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log").fault("alpha", "503")).await;
    let expected = [
        "fallback",
        "beta",
        "qwen-plus",
        "alpha;503, beta;200",
        "503",
    ];
    assert_told(&line, "log", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_stream_that_another_service_answered(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").stream().fault("alpha", "error-event");
    let (answer, line) = log(world, ask).await;
    let attempts = "alpha;stream_error, beta;200";
    let expected = ["fallback", "beta", "qwen-plus", attempts, "stream_error"];
    assert_told(&line, "log", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_a_retry_answered(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log-retry").fault("alpha", "503,times=1");
    let (answer, line) = log(world, ask).await;
    let expected = ["primary", "alpha", "gpt-4o", "alpha;503, alpha;200", "503"];
    assert_told(&line, "log-retry", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_no_service_answered_well(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").fault("alpha", "429").fault("beta", "500");
    let (answer, line) = log(world, ask).await;
    let expected = ["failed", "beta", "qwen-plus", "alpha;429, beta;500", "429"];
    assert_told(&line, "log", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_no_service_answered_at_all(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log-unreachable")).await;
    let expected = ["failed", "-", "-", "refused;reset, refused;reset", "reset"];
    assert_told(&line, "log-unreachable", expected);
    assert_same_attempts(&line, &answer);
    assert_eq!(answer.status, 502);
}

async fn a_request_without_fallback_that_failed(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log-alone").fault("alpha", "503")).await;
    assert_told(
        &line,
        "log-alone",
        ["failed", "alpha", "small", "alpha;503", "-"],
    );
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_the_gateway_answered(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log-alone").header(ABORT, "429")).await;
    assert_told(
        &line,
        "log-alone",
        ["intercepted", "-", "-", "alpha;intercepted", "-"],
    );
    assert_same_attempts(&line, &answer);
    let (answer, line) = log(world, world.ask("log-all").header(ABORT, "429")).await;
    let attempts = "alpha;intercepted, beta;200";
    let expected = ["fallback", "beta", "qwen-plus", attempts, "intercepted"];
    assert_told(&line, "log-all", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_the_filter_refused(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log").body("{")).await;
    assert_told(&line, "log", ["refused", "-", "-", "-", "bad_request"]);
    assert_same_attempts(&line, &answer);
    assert_eq!(answer.status, 400);
}

async fn a_request_that_was_not_read(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").header("content-type", "text/plain");
    let (answer, line) = log(world, ask).await;
    assert_told(
        &line,
        "log",
        ["skipped", "alpha", "-", "alpha;200;not_json", "not_json"],
    );
    assert_same_attempts(&line, &answer);
    let ask = world.ask("log").fault("alpha", "503");
    let (answer, line) = log(world, ask.body("x".repeat(MAX_BODY_BYTES + 1))).await;
    assert_told(
        &line,
        "log",
        ["skipped", "alpha", "-", "alpha;503;too_large", "too_large"],
    );
    assert_same_attempts(&line, &answer);
}

async fn a_request_whose_primary_was_skipped(world: &World) {
    let (world, _log) = cooling(world);
    log(world, world.ask("log").fault("alpha", "503")).await;
    let (answer, line) = log(world, world.ask("log")).await;
    let expected = [
        "fallback",
        "beta",
        "qwen-plus",
        "alpha;cooling, beta;200",
        "cooling",
    ];
    assert_told(&line, "log", expected);
    assert_same_attempts(&line, &answer);
}

async fn a_request_whose_client_left(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").fault("alpha", "hang");
    let (id, path) = (ask.id.clone(), ask.own_path());
    let client = tokio::spawn(ask.path(&path).try_open());
    world.alpha.wait_for_id(&id, |all| !all.is_empty()).await;
    client.abort();
    let line = line(world, &path).await;
    assert_told(&line, "log", ["gone", "-", "-", "-", "-"]);
    assert_eq!(
        (&line["status"], &line["response_flags"]),
        (&json!(0), &json!("DC"))
    );
}

async fn a_request_whose_client_left_while_a_fallback_was_under_way(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").fault("alpha", "503").fault("beta", "hang");
    let (id, path) = (ask.id.clone(), ask.own_path());
    let client = tokio::spawn(ask.path(&path).try_open());
    world.beta.wait_for_id(&id, |all| !all.is_empty()).await;
    client.abort();
    let line = line(world, &path).await;
    assert_told(&line, "log", ["gone", "-", "-", "alpha;503", "503"]);
}

async fn a_stream_whose_client_left_after_it_began(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").stream().fault("alpha", "gate=1");
    let path = ask.own_path();
    let mut live = ask.path(&path).open().await;
    live.read_until("data: ").await;
    drop(live);
    let line = line(world, &path).await;
    assert_told(
        &line,
        "log",
        ["primary", "alpha", "gpt-4o", "alpha;200", "-"],
    );
    assert_eq!(
        (&line["status"], &line["response_flags"]),
        (&json!(200), &json!("DC"))
    );
}

async fn a_stream_that_broke_after_it_began(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log").stream().fault("alpha", "gate=1,cut=2");
    let (id, path) = (ask.id.clone(), ask.own_path());
    let mut live = ask.path(&path).open().await;
    live.read_until("data: ").await;
    world.alpha.open_gate(&id);
    live.broken().await;
    let line = line(world, &path).await;
    assert_told(
        &line,
        "log",
        ["primary", "alpha", "gpt-4o", "alpha;200", "-"],
    );
    assert_eq!(line["response_flags"], "UPE");
}

async fn a_log_before_the_end_tells_what_is_settled(world: &World) {
    let options = json!({"access_log_options": {"access_log_flush_interval": "0.05s"}});
    let world = &start(world.mode, json!({"enabled": false}), options);
    let ask = world.ask("log").stream().fault("alpha", "hold,gate=1");
    let (id, path) = (ask.id.clone(), ask.own_path());
    let opened = tokio::spawn(ask.path(&path).open());
    let held = line(world, &path).await;
    assert_told(&held, "log", ["-"; 5]);
    world.alpha.open_gate(&id);
    let mut live = opened.await.expect("no panic");
    live.read_until("data: ").await;
    let expected = ["primary", "alpha", "gpt-4o", "alpha;200", "-"];
    let settled = line_where(world, &path, |line| line["result"].is_string()).await;
    assert_told(&settled, "log", expected);
    world.alpha.open_gate(&id);
    live.rest().await;
}

async fn a_request_whose_primary_is_where_the_route_leads(world: &World) {
    let (world, _log) = logged(world);
    let (answer, line) = log(world, world.ask("log-route")).await;
    assert_told(
        &line,
        "log-route",
        ["primary", "-", "gpt-4o", "primary;200", "-"],
    );
    assert_same_attempts(&line, &answer);
}

async fn a_request_that_is_none_of_a_model_api(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log");
    let path = format!("/{}/other", ask.id);
    ask.path(&format!("{path}?key=secret")).send().await;
    let line = line(world, &path).await;
    assert_eq!(told(&line), ["-"; 5]);
    assert!(line["api"].is_null(), "{line}");
    assert!(!world.envoy.log_contains("key=secret"));
}

async fn the_line_in_the_docs_is_such_a_line(world: &World) {
    let (world, _log) = logged(world);
    let (_, line) = log(world, world.ask("log").fault("alpha", "503")).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability.md");
    let page = fs::read_to_string(file).expect("the page");
    let shown = page
        .lines()
        .find(|line| line.starts_with("{\""))
        .expect("a line");
    let shown: Value = serde_json::from_str(shown).expect("JSON");
    let shape = |line: &Value| -> Vec<(String, &'static str)> {
        let fields = line.as_object().expect("an object").iter();
        let kind = |value: &Value| match value {
            Value::Null => "nothing",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            _ => "something else",
        };
        fields
            .map(|(name, value)| (name.clone(), kind(value)))
            .collect()
    };
    assert_eq!(shape(&shown), shape(&line), "{line}");
}

async fn a_long_model_name_is_cut(world: &World) {
    let (world, _log) = logged(world);
    let (_, line) = log(world, world.ask("log").model(&"x".repeat(1000))).await;
    assert_eq!(line["model"], "x".repeat(200));
}

/// Attempts of Envoy's router share their headers.
async fn the_path_is_what_was_last_sent_along_the_route(world: &World) {
    let (world, _log) = logged(world);
    let ask = world.ask("log-path").fault("alpha", "503");
    let path = ask.own_path();
    ask.path(&format!("{path}?key=secret")).send().await;
    let logged = match world.mode {
        Mode::Callout => path,
        Mode::Router => format!("/elsewhere{path}"),
    };
    let line = line(world, &logged).await;
    assert_eq!(line["service"], "log-elsewhere", "{line}");
    assert!(!world.envoy.log_contains("key=secret"));
}
