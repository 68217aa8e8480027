//! What traces tell of a request: the example of `docs/observability.md` with a Zipkin collector, and the spans that it gets.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::mock::{Mock, Received};
use crate::support::{Cluster, Envoy};
use crate::world::{Mode, World, case};

both_modes![
    a_span_tells_what_became_of_its_request,
    a_span_of_a_refused_request_tells_why,
    a_span_of_a_request_whose_client_left_tells_its_model_api,
    a_trace_that_a_client_began_reaches_every_service,
];

callout_only![
    "the router makes all attempts there": a_callout_has_no_span,
];

router_only![
    "callouts have no spans": each_attempt_has_a_span_that_its_service_is_told,
];

/// The `tracing` of the example.
fn example() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability.md");
    let page = fs::read_to_string(file).expect("the page");
    let block = page
        .split("```yaml\n")
        .find(|block| block.starts_with("tracing:"));
    let (block, _) = block
        .and_then(|block| block.split_once("```"))
        .expect("an example");
    serde_saphyr::from_str(block).expect("YAML")
}

/// A world whose requests are traced, and its collector. `None` before Envoy 1.37, where no tag can tell anything of ours.
fn traced(world: &World) -> Option<(&'static World, &'static Mock, Envoy)> {
    static COLLECTORS: [OnceLock<Mock>; 2] = [OnceLock::new(), OnceLock::new()];
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    if Envoy::version() < (1, 37) {
        eprintln!("skipped: tags with a format need Envoy 1.37");
        return None;
    }
    let mode = world.mode;
    let collector = COLLECTORS[mode as usize].get_or_init(|| Mock::start("zipkin"));
    let found = WORLDS[mode as usize].get_or_init(|| start(mode, collector));
    Some((found, collector, found.envoy.clone()))
}

fn start(mode: Mode, collector: &Mock) -> World {
    let services = json!([{"service": "beta", "model": "qwen-plus"}, {"service": "gamma"}]);
    let api = json!({"primary": {"service": "alpha"}, "fallback": {"services": services}});
    let telemetry = json!({"telemetry": {"access_log": true}});
    World::with(mode, json!([case("trace", api)]), telemetry, |gateway| {
        gateway
            .manager(example())
            .cluster(Cluster::new("zipkin", collector.addr()))
            // Sent at once, not after 5 seconds.
            .runtime(json!({"tracing.zipkin.min_flush_spans": 1}))
    })
}

fn spans(received: &[Received]) -> Vec<Value> {
    let lists = received.iter().filter(|received| received.complete);
    let lists = lists.filter_map(|received| received.json().as_array().cloned());
    lists.flatten().collect()
}

fn is_of(span: &Value, path: &str) -> bool {
    let url = span["tags"]["http.url"].as_str();
    url.is_some_and(|url| url.ends_with(path))
}

/// All spans of the request with this path: its own first, then so many of attempts, in their order.
async fn trace(collector: &Mock, path: &str, attempts: usize) -> Vec<Value> {
    let of_path = |received: &[Received]| {
        let all = spans(received);
        let own = all.iter().find(|span| is_of(span, path))?;
        let mut attempts: Vec<Value> = all
            .iter()
            .filter(|span| span["parentId"] == own["id"] && span["kind"] == "CLIENT")
            .cloned()
            .collect();
        attempts.sort_by_key(|span| span["timestamp"].as_u64());
        Some([vec![own.clone()], attempts].concat())
    };
    let is_whole =
        |received: &[Received]| of_path(received).is_some_and(|spans| spans.len() > attempts);
    let received = collector.wait_for(is_whole).await;
    of_path(&received).expect("waited for")
}

fn tag<'a>(span: &'a Value, key: &str) -> &'a str {
    span["tags"][key].as_str().unwrap_or("-")
}

/// What the filter says of a request, but for the attempts. `-` where there is nothing.
fn told(span: &Value) -> [&str; 5] {
    ["api", "result", "service", "model", "reason"]
        .map(|key| tag(span, &format!("ai_fallback.{key}")))
}

async fn a_span_tells_what_became_of_its_request(world: &World) {
    let Some((world, collector, _log)) = traced(world) else {
        return;
    };
    let ask = world.ask("trace").fault("alpha", "503");
    let path = ask.own_path();
    let answer = ask.path(&path).send().await;
    let spans = trace(collector, &path, 1).await;
    let expected = ["trace", "fallback", "beta", "qwen-plus", "503"];
    assert_eq!(told(&spans[0]), expected, "{}", spans[0]);
    let attempts = answer.header("x-ai-fallback-attempts");
    assert_eq!(Some(tag(&spans[0], "ai_fallback.attempts")), attempts);
}

async fn a_span_of_a_refused_request_tells_why(world: &World) {
    let Some((world, collector, _log)) = traced(world) else {
        return;
    };
    let ask = world.ask("trace").body("{");
    let path = ask.own_path();
    ask.path(&path).send().await;
    let spans = trace(collector, &path, 0).await;
    let expected = ["trace", "refused", "-", "-", "bad_request"];
    assert_eq!(told(&spans[0]), expected, "{}", spans[0]);
}

/// Envoy ends the span before the filter hears of the end.
async fn a_span_of_a_request_whose_client_left_tells_its_model_api(world: &World) {
    let Some((world, collector, _log)) = traced(world) else {
        return;
    };
    let ask = world.ask("trace").fault("alpha", "hang");
    let (id, path) = (ask.id.clone(), ask.own_path());
    let client = tokio::spawn(ask.path(&path).try_open());
    world.alpha.wait_for_id(&id, |all| !all.is_empty()).await;
    client.abort();
    let spans = trace(collector, &path, 0).await;
    assert_eq!(
        told(&spans[0]),
        ["trace", "-", "-", "-", "-"],
        "{}",
        spans[0]
    );
    assert_eq!(tag(&spans[0], "response_flags"), "DC");
}

async fn a_trace_that_a_client_began_reaches_every_service(world: &World) {
    let Some((world, _, _log)) = traced(world) else {
        return;
    };
    let id = "463ac35c9f6413ad";
    let ask = world
        .ask("trace")
        .fault("alpha", "503")
        .fault("beta", "503");
    let ask = ask
        .header("x-b3-traceid", id)
        .header("x-b3-spanid", "72485a3953bb6124");
    let answer = ask.header("x-b3-sampled", "1").send().await;
    for service in [&world.alpha, &world.beta, &world.gamma] {
        let received = world.one_request(service, &answer);
        assert_eq!(
            received.header("x-b3-traceid"),
            Some(id),
            "{}",
            service.name()
        );
    }
}

async fn a_callout_has_no_span(world: &World) {
    let Some((world, collector, _log)) = traced(world) else {
        return;
    };
    let ask = world.ask("trace").fault("alpha", "503");
    let path = ask.own_path();
    let answer = ask.path(&path).send().await;
    trace(collector, &path, 1).await;
    // A span of the callout would have come before those of another request.
    let other = world.ask("trace");
    let other_path = other.own_path();
    other.path(&other_path).send().await;
    trace(collector, &other_path, 1).await;
    let spans = trace(collector, &path, 1).await;
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!(tag(&spans[1], "upstream_cluster.name"), "alpha");
    let received = world.one_request(&world.beta, &answer);
    assert_eq!(received.header("x-b3-spanid"), None);
}

async fn each_attempt_has_a_span_that_its_service_is_told(world: &World) {
    let Some((world, collector, _log)) = traced(world) else {
        return;
    };
    let ask = world
        .ask("trace")
        .fault("alpha", "503")
        .fault("beta", "500");
    let path = ask.own_path();
    let answer = ask.path(&path).send().await;
    let spans = trace(collector, &path, 3).await;
    let attempts = [
        (&world.alpha, "503"),
        (&world.beta, "500"),
        (&world.gamma, "200"),
    ];
    assert_eq!(spans.len(), 1 + attempts.len(), "{spans:#?}");
    for (span, (service, status)) in spans[1..].iter().zip(attempts) {
        assert_eq!(tag(span, "upstream_cluster.name"), service.name(), "{span}");
        assert_eq!(tag(span, "http.status_code"), status, "{span}");
        let received = world.one_request(service, &answer);
        assert_eq!(received.header("x-b3-spanid"), span["id"].as_str());
    }
}
