//! What a service is sent, and what it is not.

use std::rc::Rc;

use ai_fallback::core::config::{Config, Service};
use ai_fallback::core::fit::{Forwarding, Header};
use ai_fallback::core::plan::{Health, Step};
use serde_json::{Value, json};

use crate::rig::*;

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
const PLAIN: Forwarding = Forwarding {
    hops: None,
    uncompressed: false,
};
const STAY_BEHIND: [&str; 10] = [
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn step(service: &Rc<Service>) -> Step {
    Step {
        service: Some(Rc::clone(service)),
        model: Some("a model".into()),
        ..ROUTE
    }
}

const ROUTE: Step = Step {
    service: None,
    model: None,
    alias: None,
    retries: 0,
    after: None,
    health: Health::Good,
};

/// What the client sent.
fn original() -> Vec<Header> {
    let mut headers = vec![
        header(":method", "POST"),
        header(":path", "/v1/chat/completions?q=1"),
        header(":authority", "gateway"),
        header("content-length", "3"),
        header("x-keep", "1"),
        header("x-keep", "2"),
        header("x-team", "the client's"),
        header("x-ai-fallback-x", "spoofed"),
    ];
    headers.extend(CREDENTIALS.map(|name| header(name, "the client's")));
    headers.extend(STAY_BEHIND.map(|name| header(name, "x")));
    headers
}

fn values<'a>(headers: &'a [Header], name: &str) -> Vec<&'a str> {
    let found = headers.iter().filter(|(own, _)| own == name);
    found
        .map(|(_, value)| std::str::from_utf8(value).unwrap())
        .collect()
}

fn full() -> Value {
    json!({
        "cluster": "x", "authority": "api.example", "path": "/m/{model}{path}",
        "headers": {"x-team": "blue", "authorization": "Bearer its"},
    })
}

#[test]
fn a_new_request_carries_what_its_service_is_to_have() {
    let service = service(full());
    let sent = step(&service).request_headers(&original(), 42, PLAIN);
    for (name, expected) in [
        (":method", vec!["POST"]),
        (":path", vec!["/m/a%20model/v1/chat/completions?q=1"]),
        (":authority", vec!["api.example"]),
        ("content-length", vec!["42"]),
        ("x-keep", vec!["1", "2"]),
        ("x-team", vec!["blue"]),
        ("authorization", vec!["Bearer its"]),
        ("x-ai-fallback-x", vec![]),
    ] {
        assert_eq!(values(&sent, name), expected, "{name}");
    }
    for name in STAY_BEHIND.iter().chain(&CREDENTIALS[1..]) {
        assert!(values(&sent, name).is_empty(), "{name}");
    }
}

#[test]
fn the_client_s_credentials_go_only_where_that_is_wanted() {
    for (credentials, expected) in [("service", vec![]), ("client", vec!["the client's"])] {
        let service = service(json!({"cluster": "x", "credentials": credentials}));
        let sent = step(&service).request_headers(&original(), 0, PLAIN);
        for name in CREDENTIALS {
            assert_eq!(values(&sent, name), expected, "{credentials} {name}");
        }
    }
}

/// The names of the changes, and which of them take a header away.
fn changed(step: &Step, held: &[Header]) -> Vec<(String, Option<String>)> {
    let changes = step.header_changes(held, PLAIN).into_iter();
    let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
    changes
        .map(|(name, value)| (name, value.map(text)))
        .collect()
}

#[test]
fn where_the_route_decides_nothing_but_our_own_headers_is_withheld() {
    let route = Step {
        model: Some("m".into()),
        ..ROUTE
    };
    assert_eq!(
        changed(&route, &original()),
        [("x-ai-fallback-x".to_owned(), None)]
    );
    assert_eq!(route.path(b"/v1?key=x"), None);
}

#[test]
fn headers_that_are_held_are_changed_in_place_to_what_a_new_request_has() {
    for service in [service(full()), service(json!({"cluster": "x"}))] {
        let step = step(&service);
        let mut held = original();
        for (name, value) in step.header_changes(&original(), PLAIN) {
            let at = held.iter().position(|(own, _)| *own == name);
            held.retain(|(own, _)| *own != name);
            if let Some(value) = value {
                held.insert(at.unwrap_or(held.len()).min(held.len()), (name, value));
            }
        }
        held.retain(|(name, _)| !STAY_BEHIND.contains(&name.as_str()) && name != "content-length");
        let mut new = step.request_headers(&original(), 3, PLAIN);
        new.retain(|(name, _)| name != "content-length");
        held.sort();
        new.sort();
        assert_eq!(held, new);
    }
}

#[test]
fn the_clients_parameters_and_subprotocols_stay_behind_with_its_key() {
    let sent = |credentials: &str| {
        let service = service(
            json!({"cluster": "x", "path": "/p{path}?key=its", "credentials": credentials}),
        );
        let held = [
            header(":path", "/v1?key=CLIENT&alt=sse"),
            header("sec-websocket-protocol", "realtime"),
            header(
                "sec-websocket-protocol",
                "openai-insecure-api-key.CLIENT, b",
            ),
        ];
        changed(&step(&service), &held)
    };
    let set = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    let protocols = set("sec-websocket-protocol", "realtime, b");
    let path = set(":path", "/p/v1?key=its&alt=sse");
    assert_eq!(sent("service"), [path, protocols.clone(), protocols]);
    assert_eq!(
        sent("client")[0],
        set(":path", "/p/v1?key=its&key=CLIENT&alt=sse")
    );
}

#[test]
fn headers_that_a_service_is_not_to_have_stay_behind() {
    let service = service(
        json!({"cluster": "x", "remove_headers": ["Anthropic-*", "x-keep"], "headers": {"x-keep": "its"}}),
    );
    let sent = step(&service).request_headers(
        &[
            header("anthropic-beta", "a"),
            header("anthropic", "b"),
            header("x-keep", "c"),
            header(":path", "/"),
        ],
        0,
        PLAIN,
    );
    assert_eq!(values(&sent, "anthropic-beta"), [""; 0]);
    assert_eq!(values(&sent, "anthropic"), ["b"]);
    assert_eq!(values(&sent, "x-keep"), ["its"]);
    let all = crate::rig::service(json!({"cluster": "x", "remove_headers": ["*"]}));
    let sent = step(&all).request_headers(
        &[
            header(":path", "/"),
            header("content-type", "j"),
            header("a", "b"),
        ],
        1,
        PLAIN,
    );
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [":path", "content-type", "content-length"]);
}

#[test]
fn what_the_configuration_names_is_a_credential_too() {
    let config = config(&json!({
        "services": {"a": {"cluster": "a"}},
        "model_apis": [{"name": "chat", "primary": {"service": "a"}}],
        "credential_names": {"headers": ["X-Gateway-Key"], "query": ["token"]},
    }));
    let step = step(&config.services[0]);
    let held = [
        header(":path", "/v1?token=T&a=b"),
        header("x-gateway-key", "T"),
    ];
    let expected = [
        (":path".to_owned(), Some("/v1?a=b".to_owned())),
        ("x-gateway-key".to_owned(), None),
    ];
    assert_eq!(changed(&step, &held), expected);
}

#[test]
fn a_service_without_wishes_gets_the_path_and_authority_as_they_came() {
    let service = service(json!({"cluster": "x"}));
    let sent = step(&service).request_headers(&original(), 0, PLAIN);
    assert_eq!(values(&sent, ":path"), ["/v1/chat/completions?q=1"]);
    assert_eq!(values(&sent, ":authority"), ["gateway"]);
}

#[test]
fn a_value_that_no_callout_can_carry_is_left_out() {
    let service = service(full());
    let mut headers = original();
    headers.push(("x-odd".to_owned(), b"\xff".to_vec()));
    let sent = step(&service).request_headers(&headers, 0, PLAIN);
    assert!(sent.iter().all(|(name, _)| name != "x-odd"));
}

// A retry on the header map of the attempt before.

/// A configuration with a service that sets these headers.
fn with_headers(headers: Value) -> Config {
    config(&json!({
        "services": {"a": {"cluster": "a", "headers": headers}},
        "model_apis": [{"name": "chat", "primary": {"service": "a"}}],
    }))
}

#[test]
fn nothing_of_one_service_reaches_the_next() {
    let now = [
        header(":method", "POST"),
        header(":path", "/a/v1/chat/completions?q=1"),
        header(":authority", "a.example"),
        header("authorization", "Bearer a"),
        header("content-length", "99"),
        header("x-team", "a"),
        header("x-a-only", "1"),
        header("x-added-in-cluster-a", "secret"),
        header("x-envoy-attempt-count", "2"),
        header("traceparent", "00-now"),
        header("x-b3-spanid", "now"),
    ];
    let mut original = original();
    original.push(header("traceparent", "00-client"));
    original.push(header("x-b3-spanid", "client"));
    original.push(header("x-envoy-x", "client"));
    let config =
        with_headers(json!({"x-a-only": "1", "X-Datadog-Api-Key": "k", "x-b3-flags": "1"}));
    let now = [
        now.as_slice(),
        &[header("x-datadog-api-key", "k"), header("x-b3-flags", "1")],
    ]
    .concat();
    let bare = json!({"cluster": "b"});
    let with_wishes = json!({
        "cluster": "b", "authority": "b.example", "path": "/b",
        "headers": {"x-team": "b"}, "credentials": "client",
    });
    for (second, path, authority, team, credentials) in [
        (
            bare,
            "/v1/chat/completions?q=1",
            "gateway",
            "the client's",
            None,
        ),
        (
            with_wishes,
            "/b?q=1",
            "b.example",
            "b",
            Some("the client's"),
        ),
    ] {
        let second = service(second);
        let sent = step(&second).retry_headers(&config, &original, &now, PLAIN);
        assert_eq!(values(&sent, ":path"), [path]);
        assert_eq!(values(&sent, ":authority"), [authority]);
        assert_eq!(values(&sent, "x-team"), [team]);
        assert_eq!(values(&sent, "x-keep"), ["1", "2"]);
        assert_eq!(values(&sent, ":method"), ["POST"]);
        assert_eq!(values(&sent, "content-length"), ["3"]);
        for name in CREDENTIALS {
            assert_eq!(values(&sent, name), Vec::from_iter(credentials), "{name}");
        }
        for name in [
            "x-a-only",
            "x-added-in-cluster-a",
            "x-ai-fallback-x",
            "x-envoy-x",
            "x-datadog-api-key",
            "x-b3-flags",
        ] {
            assert!(values(&sent, name).is_empty(), "{name}");
        }
        assert_eq!(
            values(&sent, "x-envoy-attempt-count"),
            ["2"],
            "the router's own are of now"
        );
        assert_eq!(values(&sent, "traceparent"), ["00-now"]);
        assert_eq!(values(&sent, "x-b3-spanid"), ["now"]);
    }
}

#[test]
fn a_request_without_a_length_gets_none_for_a_retry() {
    let service = service(json!({"cluster": "b"}));
    let sent = step(&service).retry_headers(
        &with_headers(json!({})),
        &[header(":method", "POST")],
        &[],
        PLAIN,
    );
    assert_eq!(sent, [header(":method", "POST")]);
}

/// As in its first attempt, and in a callout.
#[test]
fn a_retry_has_no_header_that_is_removed_for_the_service() {
    let removing = json!({"cluster": "b", "remove_headers": ["traceparent", "x-b3-*"]});
    let service = service(removing);
    let sent = [
        header(":method", "POST"),
        header("traceparent", "the client's"),
        header("x-b3-flags", "the client's"),
    ];
    let step = step(&service);
    let first = step.header_changes(&sent, PLAIN);
    assert!(first.contains(&("traceparent".to_owned(), None)));
    let retried = step.retry_headers(&with_headers(json!({})), &sent, &sent, PLAIN);
    assert_eq!(retried, [header(":method", "POST")]);
}
