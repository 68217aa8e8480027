//! What is none of the filter's business is neither held nor read: the service has the first half of a body while the
//! client still has the second.

use crate::body_limit::assert_untouched;
use crate::client::{Connection, Request, chunk};
use crate::stack::{Mode, Stack, chat, new_id};
use serde_json::json;
use std::sync::OnceLock;

in_each_mode!(
    a_request_that_is_not_read_is_not_held,
    a_model_api_request_is_held_until_it_is_whole,
    other_methods_on_a_model_api_path_pass_untouched,
);

const MAX_BODY_BYTES: usize = 10_000;

fn stack(mode: Mode) -> Stack {
    static STACKS: [OnceLock<Stack>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = &STACKS[mode as usize];
    let start = || {
        Stack::start(mode, |plugin| {
            plugin["max_body_bytes"] = MAX_BODY_BYTES.into();
            plugin["model_apis"][0]["match"] = json!({"headers": {"x-tenant": "acme"}});
        })
    };
    slot.get_or_init(start).clone()
}

/// A request of the tenant whose requests the filter acts on.
fn acme(method: &str, path: &str, content_type: &str) -> Request {
    Request::new(method, path)
        .header("x-tenant", "acme")
        .header("content-type", content_type)
}

async fn a_request_that_is_not_read_is_not_held(mode: Mode) {
    const CHAT: &str = "/v1/chat/completions";
    const JSON: &str = "application/json";
    let large = "x".repeat(MAX_BODY_BYTES + 1);
    let plain = |path| acme("POST", path, JSON);
    let packed = plain(CHAT).header("content-encoding", "gzip");
    let other_tenant = Request::new("POST", CHAT).header("x-tenant", "other");
    let form = acme("POST", CHAT, "multipart/form-data; boundary=b");
    // The request, the first half of its body, and what the filter says of it.
    let cases = [
        (plain("/v1/files"), "{\"model\":", ""),
        (plain("/v1/chat/completions/7"), "{\"model\":", ""),
        (acme("PUT", CHAT, JSON), "{\"model\":", ""),
        (other_tenant, "{\"model\":", ""),
        (form, "--b\r\n", "primary;200;not_json"),
        (packed, "\x1f", "primary;200;compressed"),
        (plain(CHAT), &large, "primary;200;too_large"),
    ];
    let stack = stack(mode);
    for (request, half, attempts) in cases {
        let id = new_id("unread");
        let request = request.header("x-test-id", &id);
        let head = request.header("transfer-encoding", "chunked").head();
        let mut client = Connection::open(stack.addr()).await;
        client.send(&head).await;
        client.send(chunk(half.as_bytes())).await;
        half_arrives(&stack, &id, half).await;
        client.send(b"3\r\nend\r\n0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.attempts(), attempts);
        let whole = format!("{half}end");
        assert_eq!(stack.primary.requests_with(&id)[0].body, whole);
    }
    // The length alone says that it is over the limit.
    let id = new_id("unread");
    let request = acme("POST", CHAT, JSON).header("x-test-id", &id);
    let length = (MAX_BODY_BYTES + 1).to_string();
    let mut client = Connection::open(stack.addr()).await;
    client
        .send(request.header("content-length", &length).head())
        .await;
    client.send("{").await;
    half_arrives(&stack, &id, "{").await;
    client.send(&large[1..]).await;
    client.send("}").await;
    assert_eq!(client.answer().await.status, 200);
    stack.assert_no_failure();
}

async fn half_arrives(stack: &Stack, id: &str, half: &str) {
    let arrived = stack.primary.wait_for_id(id, |requests| {
        requests.first().is_some_and(|request| request.body == half)
    });
    assert!(!arrived.await[0].complete);
}

/// Shows that the test above could fail.
async fn a_model_api_request_is_held_until_it_is_whole(mode: Mode) {
    let stack = stack(mode);
    let id = new_id("held");
    let body = chat("m");
    let (first, second) = (&body[..body.len() / 2], &body[body.len() / 2..]);
    let request = acme("POST", "/v1/chat/completions", "application/json");
    let request = request.header("x-test-id", &id);
    let length = body.len().to_string();
    let mut client = Connection::open(stack.addr()).await;
    client
        .send(request.header("content-length", length).head())
        .await;
    client.send(first).await;
    stack.assert_no_failure();
    assert!(stack.primary.requests_with(&id).is_empty());
    client.send(second).await;
    assert_eq!(client.answer().await.service(), Some("primary"));
    assert_eq!(stack.primary.requests_with(&id)[0].body, body);
}

async fn other_methods_on_a_model_api_path_pass_untouched(mode: Mode) {
    let stack = stack(mode);
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in ["/v1/chat/completions", "/v1/messages?a=b"] {
            let id = new_id("method");
            let body = if method == "GET" { "" } else { "[not JSON" };
            let request = acme(method, path, "application/json");
            let request = request
                .header("x-test-id", &id)
                .header("x-mock-primary", "503");
            let answer = stack.ask(request.body(body)).await;
            assert_eq!(answer.status, 503, "{method}");
            assert_untouched(&answer);
            let seen = &stack.primary.requests_with(&id)[0];
            assert_eq!((seen.method.as_str(), seen.path.as_str()), (method, path));
            assert_eq!(seen.body, body);
        }
    }
    stack.assert_no_failure();
}
