//! How a request is fitted to each service: path, authority, headers, credentials.

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::Received;
use crate::world::{Mode, World, case};

both_modes![
    a_fallback_attempt_carries_the_original_method_path_query_and_headers,
    a_path_template_makes_the_path,
    the_query_of_the_request_is_kept,
    the_authority_of_a_service_is_sent,
    without_an_authority_the_requests_own_is_sent,
    headers_of_a_service_are_set_with_values_from_the_environment,
    headers_of_one_service_do_not_reach_another,
    the_clients_credentials_are_not_sent_to_a_service,
    the_clients_credentials_are_sent_with_credentials_client,
    credentials_of_one_service_never_reach_another,
    without_a_named_primary_nothing_but_the_model_is_touched,
    the_clients_own_headers_of_the_filter_are_removed,
    a_service_sees_the_headers_that_it_would_see_without_the_filter,
];

const CREDENTIALS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

pub fn services() -> Value {
    let fitted = |cluster: &str, team: &str| {
        json!({
            "cluster": cluster,
            "authority": format!("{cluster}.example:8443"),
            "path": format!("/{cluster}/{{model}}{{path}}"),
            "headers": {"x-team": team, "X-Version": "2024-01"},
        })
    };
    json!({
        "alpha-fitted": fitted("alpha", "${TEAM}"),
        "beta-fitted": fitted("beta", "the ${TEAM} team of $${TEAM}"),
        "alpha-client": {"cluster": "alpha", "credentials": "client"},
        "beta-client": {"cluster": "beta", "credentials": "client"},
        "alpha-keyed": {"cluster": "alpha", "headers": {"authorization": "Bearer ${ALPHA_KEY}", "x-alpha": "1"}},
        "beta-keyed": {"cluster": "beta", "headers": {"x-api-key": "${BETA_KEY}"}},
        "beta-fixed-path": {"cluster": "beta", "path": "/openai/deployments/{model}/chat?api-version=1"},
        "gamma-fixed-path": {"cluster": "gamma", "path": "/fixed"},
    })
}

pub fn model_apis() -> Vec<Value> {
    let with = |primary: &str, fallback: &[&str]| {
        let services: Vec<Value> = fallback
            .iter()
            .map(|name| json!({"service": name}))
            .collect();
        json!({"primary": {"service": primary}, "fallback": {"services": services}})
    };
    vec![
        case("as-it-is", with("alpha", &["beta"])),
        case("fitted", with("alpha-fitted", &["beta-fitted", "gamma"])),
        case(
            "fixed-paths",
            with("alpha", &["beta-fixed-path", "gamma-fixed-path"]),
        ),
        case(
            "client-credentials",
            with("alpha-client", &["beta-client", "gamma"]),
        ),
        case("keys", with("alpha-keyed", &["beta-keyed", "gamma"])),
        case(
            "unfitted",
            json!({"fallback": {"services": [{"service": "beta"}]}}),
        ),
    ]
}

async fn a_fallback_attempt_carries_the_original_method_path_query_and_headers(world: &World) {
    let path = "/v1/chat/completions?a=1&b=%2F&a=2";
    let ask = world
        .ask("as-it-is")
        .path(path)
        .header("x-custom", "one, two")
        .header("accept", "application/json");
    let ask = ask
        .header("user-agent", "tester/1.0")
        .header("content-type", "application/json; charset=utf-8");
    let answer = ask.fault("alpha", "503").send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    for service in [&world.alpha, &world.beta] {
        let request = world.one_request(service, &answer);
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", path)
        );
        assert_eq!(request.header("x-custom"), Some("one, two"));
        assert_eq!(request.header("accept"), Some("application/json"));
        assert_eq!(request.header("user-agent"), Some("tester/1.0"));
        assert_eq!(
            request.header("content-type"),
            Some("application/json; charset=utf-8")
        );
    }
}

async fn a_path_template_makes_the_path(world: &World) {
    let [alpha, beta, gamma] = all_three(world, world.ask("fitted").model("org/name:1 b")).await;
    assert_eq!(alpha.path, "/alpha/org%2Fname%3A1%20b/v1/chat/completions");
    assert_eq!(beta.path, "/beta/org%2Fname%3A1%20b/v1/chat/completions");
    assert_eq!(gamma.path, "/v1/chat/completions");
}

async fn the_query_of_the_request_is_kept(world: &World) {
    let ask = world.ask("fitted").path("/v1/chat/completions?x=1&y=2");
    let [alpha, beta, gamma] = all_three(world, ask).await;
    assert_eq!(alpha.path, "/alpha/gpt-4o/v1/chat/completions?x=1&y=2");
    assert_eq!(beta.path, "/beta/gpt-4o/v1/chat/completions?x=1&y=2");
    assert_eq!(gamma.path, "/v1/chat/completions?x=1&y=2");
    let ask = world.ask("fixed-paths").path("/v1/chat/completions?x=1");
    let [alpha, beta, gamma] = all_three(world, ask).await;
    assert_eq!(alpha.path, "/v1/chat/completions?x=1");
    // A template that has a query of its own, and not the path, stands for the whole.
    assert_eq!(beta.path, "/openai/deployments/gpt-4o/chat?api-version=1");
    assert_eq!(gamma.path, "/fixed?x=1");
}

async fn the_authority_of_a_service_is_sent(world: &World) {
    let [alpha, beta, _] = all_three(world, world.ask("fitted")).await;
    assert_eq!(alpha.authority, "alpha.example:8443");
    assert_eq!(beta.authority, "beta.example:8443");
}

async fn without_an_authority_the_requests_own_is_sent(world: &World) {
    let [_, _, gamma] = all_three(world, world.ask("fitted").header("host", "my.gateway")).await;
    assert_eq!(gamma.authority, "my.gateway");
    let [alpha, beta, _] = all_three(world, world.ask("keys")).await;
    let gateway = world.envoy.addr().to_string();
    assert_eq!(
        [alpha.authority, beta.authority],
        [gateway.clone(), gateway]
    );
}

async fn headers_of_a_service_are_set_with_values_from_the_environment(world: &World) {
    // They replace what the client sent.
    let ask = world.ask("fitted").header("x-team", "the client's");
    let [alpha, beta, gamma] = all_three(world, ask).await;
    assert_eq!(values(&alpha, "x-team"), ["red"]);
    assert_eq!(values(&beta, "x-team"), ["the red team of ${TEAM}"]);
    assert_eq!(values(&alpha, "x-version"), ["2024-01"]);
    assert_eq!(values(&beta, "x-version"), ["2024-01"]);
    assert_eq!(values(&gamma, "x-team"), ["the client's"]);
}

async fn headers_of_one_service_do_not_reach_another(world: &World) {
    let [_, _, gamma] = all_three(world, world.ask("fitted")).await;
    assert_eq!(gamma.header("x-team"), None);
    assert_eq!(gamma.header("x-version"), None);
    let [_, beta, _] = all_three(world, world.ask("keys")).await;
    assert_eq!(beta.header("x-alpha"), None);
}

async fn the_clients_credentials_are_not_sent_to_a_service(world: &World) {
    let [alpha, beta, gamma] = all_three(world, with_credentials(world.ask("fitted"))).await;
    for request in [alpha, beta, gamma] {
        for name in CREDENTIALS {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert!(!format!("{:?}", request.headers).contains("secret"));
    }
}

async fn the_clients_credentials_are_sent_with_credentials_client(world: &World) {
    let ask = with_credentials(world.ask("client-credentials"));
    let [alpha, beta, gamma] = all_three(world, ask).await;
    for name in CREDENTIALS {
        let secret = format!("secret {name}");
        assert_eq!(values(&alpha, name), [&*secret]);
        assert_eq!(values(&beta, name), [&*secret]);
        assert_eq!(gamma.header(name), None, "{name}");
    }
}

async fn credentials_of_one_service_never_reach_another(world: &World) {
    let [alpha, beta, gamma] = all_three(world, with_credentials(world.ask("keys"))).await;
    assert_eq!(values(&alpha, "authorization"), ["Bearer key-of-alpha"]);
    assert_eq!(alpha.header("x-api-key"), None);
    assert_eq!(values(&beta, "x-api-key"), ["key-of-beta"]);
    assert_eq!(beta.header("authorization"), None);
    assert_eq!(gamma.header("authorization"), None);
    assert_eq!(gamma.header("x-api-key"), None);
}

async fn without_a_named_primary_nothing_but_the_model_is_touched(world: &World) {
    let ask = with_credentials(world.ask("unfitted").path("/v1/chat/completions?x=1"))
        .header("host", "my.gateway");
    let answer = ask.fault("alpha", "503").send().await;
    answer.assert_from("beta", "primary;503, beta;200");
    let alpha = world.one_request(&world.alpha, &answer);
    assert_eq!(alpha.path, "/v1/chat/completions?x=1");
    assert_eq!(alpha.authority, "my.gateway");
    let beta = world.one_request(&world.beta, &answer);
    for name in CREDENTIALS {
        assert_eq!(values(&alpha, name), [format!("secret {name}")]);
        assert_eq!(beta.header(name), None);
    }
}

async fn the_clients_own_headers_of_the_filter_are_removed(world: &World) {
    for case in ["as-it-is", "unfitted"] {
        let ask = world
            .ask(case)
            .header("x-ai-fallback-service", "beta")
            .header("X-AI-Fallback-Attempts", "none;200;1ms");
        let ask = ask
            .header("x-ai-fallback-retry", "1")
            .header("x-ai-fallback-anything", "at all");
        let answer = ask.fault("alpha", "503").send().await;
        assert_eq!(answer.service(), Some("beta"));
        for service in [&world.alpha, &world.beta] {
            assert_no_internal_names(&world.one_request(service, &answer));
        }
        assert_eq!(answer.header("x-ai-fallback-anything"), None);
        assert_eq!(answer.header("x-ai-fallback-retry"), None);
    }
}

async fn a_service_sees_the_headers_that_it_would_see_without_the_filter(world: &World) {
    let answer = world
        .ask("as-it-is")
        .stream()
        .fault("alpha", "503")
        .send()
        .await;
    // No Model API: the filter does not touch it.
    let plain = world
        .ask("as-it-is")
        .path("/v1/other")
        .stream()
        .send()
        .await;
    let names = |request: &Received| {
        let mut names: Vec<String> = request
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        names.retain(|name| name != "x-mock-alpha");
        names.sort_unstable();
        names
    };
    let expected = names(&world.one_request(&world.alpha, &plain));
    let mut at_primary = names(&world.one_request(&world.alpha, &answer));
    if world.mode == Mode::Router {
        // Envoy's own: its router tells a service how long it will wait.
        at_primary.retain(|name| name != "x-envoy-expected-rq-timeout-ms");
    }
    assert_eq!(at_primary, expected);
    let beta = world.one_request(&world.beta, &answer);
    let extra: Vec<String> = names(&beta)
        .into_iter()
        .filter(|name| !expected.contains(name))
        .collect();
    let missing: Vec<String> = expected
        .into_iter()
        .filter(|name| !names(&beta).contains(name))
        .collect();
    assert_eq!(missing, [""; 0]);
    // Envoy's own: it adds them to each callout.
    let of_envoy = ["x-envoy-expected-rq-timeout-ms", "x-envoy-internal"];
    assert!(
        extra.iter().all(|name| of_envoy.contains(&name.as_str())),
        "{extra:?}"
    );
    assert_no_internal_names(&beta);
}

fn assert_no_internal_names(request: &Received) {
    let named = request.headers.iter().filter(|(name, value)| {
        let value = String::from_utf8_lossy(value).to_lowercase();
        name.contains("ai-fallback")
            || value.contains("ai_fallback")
            || value.contains("ai-fallback")
    });
    assert_eq!(named.count(), 0, "{request:?}");
}

fn with_credentials(ask: Ask) -> Ask {
    CREDENTIALS
        .iter()
        .fold(ask, |ask, name| ask.header(name, &format!("secret {name}")))
}

fn values(request: &Received, name: &str) -> Vec<String> {
    let own = request.headers.iter().filter(|(own, _)| own == name);
    own.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}

/// What alpha, beta and gamma got, where the first two failed.
async fn all_three(world: &World, ask: Ask) -> [Received; 3] {
    let answer: Answer = ask.fault("alpha", "503").fault("beta", "503").send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    [&world.alpha, &world.beta, &world.gamma].map(|service| world.one_request(service, &answer))
}
