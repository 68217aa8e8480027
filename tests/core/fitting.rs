//! What a service is sent, and what it is not.

use std::rc::Rc;

use ai_fallback::core::config::Service;
use ai_fallback::core::fit::Header;
use ai_fallback::core::plan::{Health, Step};
use serde_json::{Value, json};

use crate::rig::*;

const CREDENTIALS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];
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
    let sent = step(&service).request_headers(&original(), 42, None);
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
        let sent = step(&service).request_headers(&original(), 0, None);
        for name in CREDENTIALS {
            assert_eq!(values(&sent, name), expected, "{credentials} {name}");
            assert_eq!(step(&service).withholds(name, None), expected.is_empty());
        }
    }
}

#[test]
fn where_the_route_decides_nothing_but_our_own_headers_is_withheld() {
    let route = Step {
        model: Some("m".into()),
        ..ROUTE
    };
    for (name, _) in original() {
        assert_eq!(
            route.withholds(&name, None),
            name.starts_with("x-ai-fallback-"),
            "{name}"
        );
    }
    assert_eq!(
        (route.path(b"/v1"), route.authority(), route.headers()),
        (None, None, &[][..])
    );
}

#[test]
fn a_service_without_wishes_gets_the_path_and_authority_as_they_came() {
    let service = service(json!({"cluster": "x"}));
    let sent = step(&service).request_headers(&original(), 0, None);
    assert_eq!(values(&sent, ":path"), ["/v1/chat/completions?q=1"]);
    assert_eq!(values(&sent, ":authority"), ["gateway"]);
}

#[test]
fn a_value_that_no_callout_can_carry_is_left_out() {
    let service = service(full());
    let mut headers = original();
    headers.push(("x-odd".to_owned(), b"\xff".to_vec()));
    let sent = step(&service).request_headers(&headers, 0, None);
    assert!(sent.iter().all(|(name, _)| name != "x-odd"));
}

// A retry on the header map of the attempt before.

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
        let sent = step(&second).retry_headers(&original, 42, None, &now);
        assert_eq!(values(&sent, ":path"), [path]);
        assert_eq!(values(&sent, ":authority"), [authority]);
        assert_eq!(values(&sent, "x-team"), [team]);
        assert_eq!(values(&sent, "x-keep"), ["1", "2"]);
        assert_eq!(values(&sent, ":method"), ["POST"]);
        assert_eq!(values(&sent, "content-length"), ["42"]);
        for name in CREDENTIALS {
            assert_eq!(values(&sent, name), Vec::from_iter(credentials), "{name}");
        }
        for name in [
            "x-a-only",
            "x-added-in-cluster-a",
            "x-ai-fallback-x",
            "x-envoy-x",
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
    let sent = step(&service).retry_headers(&[header(":method", "POST")], 42, None, &[]);
    assert_eq!(sent, [header(":method", "POST")]);
}
