//! How a request is fitted to each service: path, authority, headers, credentials.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{Answer, Ask, Raw};
use crate::mock::Received;
use crate::support::Cluster;
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
    the_query_loses_the_clients_keys_and_nothing_else,
    credential_names_are_added_to_those_that_are_known,
    a_service_does_not_get_the_headers_that_are_removed_for_it,
    what_a_service_sets_never_reaches_another_whatever_its_name,
    a_request_that_is_not_read_brings_no_credential_to_a_named_primary,
    a_websocket_brings_no_credential_to_a_named_primary,
];

/// Credentials of the client, and what names its account.
const CREDENTIALS: [&str; 18] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
    "x-amz-security-token",
    "x-auth-token",
    "x-litellm-api-key",
    "x-portkey-api-key",
    "cf-aig-authorization",
    "helicone-auth",
    "openai-organization",
    "openai-project",
    "chatgpt-account-id",
    "x-goog-user-project",
];

/// Headers that look like those of a tracer.
const OF_ALPHA: [&str; 5] = [
    "x-datadog-api-key",
    "x-datadog-tags",
    "x-b3-flags",
    "baggage",
    "sw8",
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
        "alpha-named": {
            "cluster": "alpha",
            "authority": "alpha.example",
            "path": "/alpha{path}",
            "headers": {"authorization": "Bearer ${ALPHA_KEY}", "x-team": "of alpha"},
        },
        "alpha-tracing": {"cluster": "alpha", "headers": HashMap::from(OF_ALPHA.map(|name| (name, "of alpha")))},
        "beta-removing": {"cluster": "beta", "remove_headers": ["X-Acme-*", "anthropic-beta"]},
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
            "removed-headers",
            with("alpha", &["beta-removing", "gamma"]),
        ),
        case("tracing", with("alpha-tracing", &["beta", "gamma"])),
        case("known-paths", with("alpha-named", &["beta"])),
        case(
            "every-path",
            json!({"match": {"paths": ["*"]}, "primary": {"service": "alpha-named"}, "fallback": {"services": [{"service": "beta"}]}}),
        ),
        case(
            "listed-paths",
            json!({"match": {"paths": ["/v1/models", "/v1/files*", "/v1/audio/*"]}, "primary": {"service": "alpha-named"}}),
        ),
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

async fn the_query_loses_the_clients_keys_and_nothing_else(world: &World) {
    let path = "/v1/chat/completions";
    for (query, rest) in [
        ("?key=CLIENT&alt=sse", "?alt=sse"),
        ("?alt=sse&key=CLIENT", "?alt=sse"),
        ("?key=CLIENT", ""),
        (
            "?a=%2F&key=1&api_key=2&api-key=3&apikey=4&access_token=5&subscription-key=6&&b=%20+c",
            "?a=%2F&&b=%20+c",
        ),
        ("?KEY=CLIENT&%6bey=CLIENT&x=1", "?x=1"),
        ("?keys=1&monkey=2&x=key", "?keys=1&monkey=2&x=key"),
    ] {
        let all = format!("{path}{query}");
        let ask = |case: &str| world.ask(case).path(&all);
        let [alpha, beta, gamma] = all_three(world, ask("client-credentials")).await;
        assert_eq!([alpha.path, beta.path], [all.clone(), all.clone()]);
        assert_eq!(gamma.path, format!("{path}{rest}"));
        for (case, of_alpha) in [("as-it-is", rest), ("unfitted", query)] {
            let answer = ask(case).fault("alpha", "503").send().await;
            assert_eq!(answer.service(), Some("beta"));
            let alpha = world.one_request(&world.alpha, &answer).path;
            assert_eq!(alpha, format!("{path}{of_alpha}"), "{case}");
            let beta = world.one_request(&world.beta, &answer).path;
            assert_eq!(beta, format!("{path}{rest}"), "{case}");
        }
    }
}

async fn credential_names_are_added_to_those_that_are_known(world: &World) {
    let services = |names: [&str; 2]| names.map(|name| json!({"service": name}));
    let api = |name, primary, others| {
        case(
            name,
            json!({"primary": {"service": primary}, "fallback": {"services": services(others)}}),
        )
    };
    let apis = vec![
        api("service", "alpha", ["beta", "gamma"]),
        api("client", "alpha-client", ["beta-client", "gamma"]),
    ];
    let names = json!({"credential_names": {"headers": ["X-Acme-Key"], "query": ["sig"]}});
    let world = &World::configured(world.mode, apis, names);
    let ask = |case| {
        let ask = world
            .ask(case)
            .path("/v1/chat/completions?sig=CLIENT&key=CLIENT&x=1");
        let ask = ask
            .header("x-acme-key", "secret")
            .header("x-acme-keys", "stays");
        with_credentials(ask)
    };
    for request in all_three(world, ask("service")).await {
        assert_eq!(request.path, "/v1/chat/completions?x=1");
        assert_eq!(request.header("x-acme-key"), None);
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("x-acme-keys"), Some("stays"));
    }
    let [alpha, beta, gamma] = all_three(world, ask("client")).await;
    for request in [alpha, beta] {
        assert_eq!(
            request.path,
            "/v1/chat/completions?sig=CLIENT&key=CLIENT&x=1"
        );
        assert_eq!(request.header("x-acme-key"), Some("secret"));
    }
    assert_eq!(gamma.header("x-acme-key"), None);
    assert_eq!(gamma.path, "/v1/chat/completions?x=1");
}

async fn a_service_does_not_get_the_headers_that_are_removed_for_it(world: &World) {
    let removed = ["x-acme-team", "x-acme-", "anthropic-beta"];
    let kept = ["x-acme", "anthropic-version"];
    let all = removed.iter().chain(&kept);
    let ask = all.fold(world.ask("removed-headers"), |ask, name| {
        ask.header(name, "the client's")
    });
    let [alpha, beta, gamma] = all_three(world, ask).await;
    for name in removed {
        assert_eq!(values(&beta, name), [""; 0], "{name}");
        for request in [&alpha, &gamma] {
            assert_eq!(values(request, name), ["the client's"], "{name}");
        }
    }
    for name in kept {
        for request in [&alpha, &beta, &gamma] {
            assert_eq!(values(request, name), ["the client's"], "{name}");
        }
    }
}

/// Where Envoy's router makes the attempts they share one header map, in which tracers change theirs.
async fn what_a_service_sets_never_reaches_another_whatever_its_name(world: &World) {
    let [alpha, beta, gamma] = all_three(world, world.ask("tracing")).await;
    for name in OF_ALPHA {
        assert_eq!(values(&alpha, name), ["of alpha"], "{name}");
        for request in [&beta, &gamma] {
            assert_eq!(values(request, name), [""; 0], "{name}");
        }
    }
    let ask = OF_ALPHA.iter().fold(world.ask("tracing"), |ask, name| {
        ask.header(name, "the client's")
    });
    let [alpha, beta, gamma] = all_three(world, ask).await;
    for name in OF_ALPHA {
        assert_eq!(values(&alpha, name), ["of alpha"], "{name}");
        for request in [&beta, &gamma] {
            assert_eq!(values(request, name), ["the client's"], "{name}");
        }
    }
}

/// No key of the client reaches a named service by another door.
async fn a_request_that_is_not_read_brings_no_credential_to_a_named_primary(world: &World) {
    const JSON: &str = "application/json";
    const FORM: &str = "multipart/form-data; boundary=b";
    let chat = r#"{"model": "gpt-4o", "messages": []}"#;
    let upload = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n";
    let every = ["every-path"].as_slice();
    let listed = ["every-path", "listed-paths"].as_slice();
    let known = ["every-path", "known-paths"].as_slice();
    for (cases, method, path, content_type, body) in [
        (listed, "GET", "/v1/models", JSON, ""),
        (listed, "GET", "/v1/files/7/content", JSON, ""),
        (listed, "HEAD", "/v1/models", JSON, ""),
        (listed, "DELETE", "/v1/files/7", JSON, ""),
        (listed, "OPTIONS", "/v1/models", JSON, ""),
        (listed, "PUT", "/v1/files/7", "text/plain", "not JSON"),
        (listed, "POST", "/v1/files", FORM, upload),
        (listed, "POST", "/v1/audio/transcriptions", FORM, upload),
        (every, "POST", "/v1/threads/7/runs", JSON, chat),
        (known, "POST", "/v1/messages/count_tokens", JSON, chat),
        (known, "POST", "/v1/responses/compact", JSON, chat),
        (known, "POST", "/v1/audio/speech", JSON, chat),
        (known, "GET", "/v1/chat/completions", JSON, ""),
        (known, "POST", "/v1/images/generations", FORM, upload),
    ] {
        for case in cases {
            let what = format!("{case} {method} {path}");
            let ask = world
                .ask(case)
                .method(method.parse::<Method>().expect("a method"));
            let ask = ask.path(&format!("{path}?key=CLIENT&after=7&api_key=CLIENT"));
            let ask = ask.header("content-type", content_type).body(body);
            let ask = ask.header("x-team", "the client's").header("x-keep", "1");
            let answer = with_credentials(ask).send().await;
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            let request = world.one_request(&world.alpha, &answer);
            assert_eq!(request.method.as_str(), method);
            assert_eq!(request.authority, "alpha.example", "{what}");
            assert_eq!(request.path, format!("/alpha{path}?after=7"), "{what}");
            assert_eq!(values(&request, "authorization"), ["Bearer key-of-alpha"]);
            assert_eq!(values(&request, "x-team"), ["of alpha"]);
            assert_eq!(values(&request, "x-keep"), ["1"]);
            assert_eq!(request.body, body, "{what}");
            let headers = request.headers.iter();
            let all = headers.map(|(_, value)| String::from_utf8_lossy(value));
            assert!(
                all.into_iter().all(|value| !value.contains("secret")),
                "{what}: {request:?}"
            );
            assert_no_internal_names(&request);
            world.no_request(&world.beta, &answer);
        }
    }
}

async fn a_websocket_brings_no_credential_to_a_named_primary(world: &World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let more = json!({"max_hops": 3, "services": {"socket": {
        "cluster": "socket",
        "authority": "socket.example",
        "path": "/of-socket{path}",
        "headers": {"authorization": "Bearer ${ALPHA_KEY}"},
    }}});
    let api = json!([{
        "name": "realtime",
        "match": {"paths": ["/v1/realtime"]},
        "primary": {"service": "socket"},
        "fallback": {"services": [{"service": "beta"}]},
    }]);
    let world = World::with(world.mode, api, more, |gateway| {
        gateway
            .cluster(Cluster::new("socket", addr))
            .manager(json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}))
    });
    let seen = tokio::spawn(echo_of_a_websocket(listener));
    let mut client = Raw::connect(world.envoy.addr()).await;
    let credentials: String = CREDENTIALS
        .iter()
        .map(|name| format!("{name}: SECRET\r\n"))
        .collect();
    client
        .write(&format!(
            "GET /v1/realtime?model=m&key=SECRET HTTP/1.1\r\nhost: gateway\r\nx-route: socket\r\n{credentials}\
             upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: realtime, openai-insecure-api-key.SECRET\r\n\
             sec-websocket-protocol: openai-beta.realtime-v1\r\n\r\n"
        ))
        .await;
    let answer = client.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(!answer.contains("x-ai-fallback"), "{answer}");
    client.write("to the service").await;
    client.read_until("back: to the service").await;
    let head = seen.await.expect("no panic");
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines[0], "GET /of-socket/v1/realtime?model=m HTTP/1.1");
    let of = |name: &str| -> Vec<&str> {
        let prefix = format!("{name}: ");
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect()
    };
    assert_eq!(of("host"), ["socket.example"]);
    assert_eq!(of("authorization"), ["Bearer key-of-alpha"]);
    assert_eq!(of("upgrade"), ["websocket"]);
    assert_eq!(of("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(
        of("sec-websocket-protocol").join(", "),
        "realtime, openai-beta.realtime-v1"
    );
    assert_eq!(of("x-ai-hops"), ["1"]);
    assert!(!head.contains("SECRET"), "{head}");
}

/// A service that takes one WebSocket, or what looks like one, and sends back what comes. Returns the head of the request.
async fn echo_of_a_websocket(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.expect("written");
    let mut text = [0; 14];
    stream.read_exact(&mut text).await.expect("what was sent");
    stream.write_all(b"back: ").await.expect("written");
    stream.write_all(&text).await.expect("written");
    String::from_utf8(head).expect("text")
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
