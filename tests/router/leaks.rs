//! Envoy keeps one header map for all attempts. Nothing of one service may reach another through it.

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::support::{Cluster, Gateway};
use crate::world::{World, api, api_with};

/// Each service as different as it can be: authority, path, headers, credentials, and a key that its cluster adds.
fn services() -> Value {
    json!({
        "one": {
            "cluster": "one", "authority": "one.test", "path": "/v1/{model}/only-one",
            "headers": {"x-one": "1", "x-shared": "of one", "authorization": "of-one"},
        },
        "two": {
            "cluster": "two", "path": "/two{path}",
            "headers": {"x-two": "2", "x-shared": "of two"},
        },
        "three": {"cluster": "three", "authority": "three.test", "credentials": "client"},
        "four": {"cluster": "four"},
    })
}

fn model_apis() -> Value {
    json!([
        api(
            "forward",
            json!({"service": "one"}),
            &["two", "three", "four"]
        ),
        api(
            "two-first",
            json!({"service": "two"}),
            &["five", "one", "refused"]
        ),
        api(
            "three-first",
            json!({"service": "three"}),
            &["five", "one", "refused"]
        ),
        api(
            "four-first",
            json!({"service": "four"}),
            &["five", "one", "refused"]
        ),
        api(
            "from-client",
            json!({"service": "three"}),
            &["four", "one", "two"]
        ),
        api("unnamed", json!({}), &["two", "three", "four"]),
    ])
}

fn world() -> World {
    let keys = |name: &str, cluster: Cluster| match name {
        "one" => cluster.http_filters(&[injected_key("one", "authorization")]),
        "two" => cluster.http_filters(&[injected_key("two", "x-api-key")]),
        "three" => cluster.http_filters(&[injected_key("three", "x-key-of-three")]),
        _ => cluster,
    };
    World::with_clusters(model_apis(), services(), &["one", "two", "three"], keys)
}

fn injected_key(service: &str, header: &str) -> Value {
    json!({"name": "envoy.filters.http.credential_injector", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": true,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
            "header": header,
            "credential": {"name": service},
        }},
    }})
}

fn ask(world: &World, case: &str) -> Ask {
    world
        .ask(case)
        .header("host", "gateway.test")
        .header("authorization", "of the client")
        .header("cookie", "of=client")
        .header("x-api-key", "of the client")
        .header("x-shared", "of the client")
        .header("x-ai-fallback-cluster", "two")
        .header("x-envoy-hedge-on-per-try-timeout", "true")
        .header("x-envoy-retry-on", "5xx")
        .header("x-plain", "stays")
}

/// All that a service received, but for what tells requests apart.
fn seen(world: &World, service: &str, answer: &Answer) -> Vec<(String, String)> {
    let request = world.one_request(service, answer);
    let own = [("path", &request.path), ("authority", &request.authority)];
    let own = own.map(|(name, value)| (name.to_owned(), value.clone()));
    let ids = ["x-request-id", "x-test-id", "x-case", "x-mock"];
    let headers = request
        .headers
        .iter()
        .filter(|(name, _)| !ids.iter().any(|id| name.starts_with(id)));
    let headers =
        headers.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()));
    let mut all: Vec<_> = own.into_iter().chain(headers).collect();
    all.sort();
    for (name, _) in &all {
        assert!(!name.starts_with("x-ai-fallback-"), "{service}: {all:#?}");
        assert!(
            !name.starts_with("x-envoy-max-retries"),
            "{service}: {all:#?}"
        );
        assert!(
            !name.contains("per-try") && !name.contains("retry"),
            "{service}: {all:#?}"
        );
    }
    all
}

#[tokio::test]
async fn a_fallback_service_gets_what_it_would_get_as_the_first() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world();
    let failing = ["one", "two", "three"];
    let answer = failing
        .iter()
        .fold(ask(&world, "forward"), |ask, name| ask.fault(name, "503"))
        .send()
        .await;
    answer.assert_from("four", "one;503, two;503, three;503, four;200");
    let one = seen(&world, "one", &answer);
    let has = |list: &[(String, String)], name: &str, value: &str| {
        assert!(
            list.iter().any(|(own, text)| own == name && text == value),
            "no {name}: {value} in {list:#?}"
        );
    };
    has(&one, "path", "/v1/gpt-4o/only-one");
    has(&one, "authority", "one.test");
    has(&one, "authorization", "key of one");
    has(&one, "x-plain", "stays");
    for service in ["two", "three", "four"] {
        let first = ask(&world, &format!("{service}-first")).send().await;
        first.assert_from(service, &format!("{service};200"));
        assert_eq!(
            seen(&world, service, &answer),
            seen(&world, service, &first),
            "{service}"
        );
    }
    let two = seen(&world, "two", &answer);
    has(&two, "path", "/two/v1/chat/completions");
    has(&two, "authority", "gateway.test");
    has(&two, "x-api-key", "key of two");
    let three = seen(&world, "three", &answer);
    has(&three, "authorization", "of the client");
    has(&three, "cookie", "of=client");
    has(&three, "x-shared", "of the client");
    let four = seen(&world, "four", &answer);
    has(&four, "path", "/v1/chat/completions");
    assert!(
        !four
            .iter()
            .any(|(_, value)| value.contains("of one") || value.contains("key of")),
        "{four:#?}"
    );
}

#[tokio::test]
async fn a_clients_credentials_stay_with_the_service_that_is_to_have_them() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world();
    let answer = ask(&world, "from-client")
        .fault("three", "503")
        .send()
        .await;
    answer.assert_from("four", "three;503, four;200");
    let four = seen(&world, "four", &answer);
    let kept = ["authorization", "cookie", "x-api-key", "x-key-of-three"];
    assert!(
        !four.iter().any(|(name, _)| kept.contains(&name.as_str())),
        "{four:#?}"
    );
}

#[tokio::test]
async fn a_primary_without_a_name_gets_the_request_as_it_came() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world();
    let answer = ask(&world, "unnamed").fault("one", "503").send().await;
    answer.assert_from("two", "primary;503, two;200");
    let one = world.one_request("one", &answer);
    assert_eq!(
        (&*one.path, &*one.authority),
        ("/v1/chat/completions", "gateway.test")
    );
    let first = ask(&world, "two-first").send().await;
    assert_eq!(seen(&world, "two", &answer), seen(&world, "two", &first));
}

/// A service may be a gateway with this filter itself, or play one.
#[tokio::test]
async fn what_a_service_says_in_our_headers_is_not_believed() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let lies = ["x-ai-fallback-attempts", "x-ai-fallback-service", "x-ai-fallback-retry"].map(|name| {
        json!({"append": {"header": {"key": name, "value": "lie"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    });
    let liar = json!({"name": "envoy.filters.http.header_mutation", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"response_mutations": lies},
    }});
    let apis = json!([api("alone", json!({"service": "one"}), &["two"])]);
    let lie = |name: &str, cluster: Cluster| match name {
        "one" | "two" => cluster.http_filters(std::slice::from_ref(&liar)),
        _ => cluster,
    };
    let world = World::with_clusters(apis.clone(), json!({}), &[], lie);
    world
        .ask("alone")
        .send()
        .await
        .assert_from("one", "one;200");
    let failing = || world.ask("alone").fault("one", "503");
    failing()
        .send()
        .await
        .assert_from("two", "one;503, two;200");
    // Too large for the router to keep: the fallback is made by callout.
    let body = json!({"model": "gpt-4o", "stream": true, "messages": ["x".repeat(600_000)]});
    failing()
        .json(&body)
        .send()
        .await
        .assert_from("two", "one;503, two;200");
}

/// Envoy takes its own headers from clients that it trusts.
fn trusting(gateway: Gateway) -> Gateway {
    let loopback = json!([{"address_prefix": "127.0.0.0", "prefix_len": 8}]);
    gateway.manager(
        json!({"use_remote_address": true, "internal_address_config": {"cidr_ranges": loopback}}),
    )
}

#[tokio::test]
async fn a_client_cannot_make_the_router_retry() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let only_429 = json!({"services": [{"service": "two"}], "on_status": ["429"]});
    let apis = json!([api_with("alone", json!({"service": "one"}), only_429)]);
    let world = World::with(apis, json!({}), trusting);
    let ask = world
        .ask("alone")
        .header("x-envoy-retry-on", "5xx")
        .fault("one", "503");
    let answer = ask.send().await;
    assert_eq!((answer.status, &*answer.attempts()), (503, "one;503"));
    assert_eq!(world.received("two", &answer).len(), 0);
}

#[tokio::test]
async fn a_client_cannot_make_the_router_try_two_at_once() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("one", &["two"], trusting);
    let ask = world
        .ask("alone")
        .header("x-envoy-hedge-on-per-try-timeout", "true");
    let answer = ask.fault("one", "hang").send().await;
    answer.assert_from("two", "one;first_packet_timeout, two;200");
}
