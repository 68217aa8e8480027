//! Bodies that are no requests: refused with `400` in the shape of the API, and no service sees them.

use crate::client::Request;
use crate::stack::{Mode, Stack, new_id};
use serde_json::{Value, json};

in_each_mode!(
    a_body_that_is_no_request_is_refused,
    a_control_character_is_refused_wherever_it_stands,
    an_empty_body_is_refused_where_it_is_said_to_be_json,
    what_follows_a_refusal_is_fine_on_the_same_connection,
);

/// What stands in bodies, and must not stand in answers or logs.
const CONTENT: &str = "c0nf1dential";

struct Bad {
    body: Vec<u8>,
    message: &'static str,
    param: Option<&'static str>,
}

fn bad_bodies() -> Vec<Bad> {
    let bad = |body: &str, message, param| Bad {
        body: body.replace("CONTENT", CONTENT).into_bytes(),
        message,
        param,
    };
    let deep = format!(
        r#"{{"CONTENT":{}{}}}"#,
        "[".repeat(9_999),
        "]".repeat(9_999)
    );
    let deep_objects = format!(
        r#"{{"model":"m","CONTENT":{}1{}}}"#,
        r#"{"a":"#.repeat(9_999),
        "}".repeat(9_999)
    );
    const CUT: &str = "the request body is not valid JSON: it ends before the object does";
    const NO_OBJECT: &str = "the request body is not a JSON object";
    const DEEP: &str = "the request body is nested deeper than 512 levels";
    const TWICE: &str = "the request body holds `model` twice; which one counts is not defined";
    const NO_NAME: &str = "`model` in the request body is not a string";
    let mut all = vec![
        bad(r#"{"model":"CONTENT"#, CUT, None),
        bad(
            r#"{"model":"m","messages":[{"content":"CONTENT"}"#,
            CUT,
            None,
        ),
        bad(r#"[{"model":"CONTENT"}]"#, NO_OBJECT, None),
        bad(r#""CONTENT""#, NO_OBJECT, None),
        bad("CONTENT", NO_OBJECT, None),
        bad("null", NO_OBJECT, None),
        bad("\u{feff}{\"model\":\"CONTENT\"}", NO_OBJECT, None),
        bad(
            r#"{"model":"m"} CONTENT"#,
            "the request body is not valid JSON: unexpected character at byte 14",
            None,
        ),
        bad(
            r#"{"model":"m",}"#,
            "the request body is not valid JSON: unexpected character at byte 13",
            None,
        ),
        bad(&deep, DEEP, None),
        bad(&deep_objects, DEEP, None),
        bad(&"[".repeat(10_000), NO_OBJECT, None),
        bad(r#"{"model":"CONTENT","model":"m"}"#, TWICE, Some("model")),
        bad(
            r#"{"model":"m","a":1,"\u006dodel":"CONTENT"}"#,
            TWICE,
            Some("model"),
        ),
        bad(
            r#"{"stream":true,"model":"CONTENT","stream":false}"#,
            "the request body holds `stream` twice; which one counts is not defined",
            Some("stream"),
        ),
        bad(r#"{"model":7,"a":"CONTENT"}"#, NO_NAME, Some("model")),
        bad(r#"{"model":null}"#, NO_NAME, Some("model")),
        bad(r#"{"model":["CONTENT"]}"#, NO_NAME, Some("model")),
        bad(r#"{"model":"CONTENT\ud800"}"#, NO_NAME, Some("model")),
        bad(
            "{\"model\":\"m\0\"}",
            "the request body is not valid JSON: unexpected character at byte 11",
            None,
        ),
        bad("  \r\n\t ", "the request body is empty", None),
    ];
    all.push(Bad {
        body: [br#"{"model":"m","a":""#, &b"\xff\xfe\""[..], b"}"].concat(),
        message: "the request body is not valid UTF-8 at byte 18",
        param: None,
    });
    all
}

async fn a_body_that_is_no_request_is_refused(mode: Mode) {
    let stack = Stack::shared(mode);
    for bad in bad_bodies() {
        refused(&stack, "/v1/chat/completions", &bad, openai(&bad)).await;
        refused(&stack, "/v1/messages?beta=true", &bad, anthropic(&bad)).await;
        stack.assert_unharmed().await;
    }
    assert!(!stack.envoy.log_contains(CONTENT), "a body was logged");
}

/// As in the tests of the core, whose code for blocks of bytes is another one outside of Wasm.
async fn a_control_character_is_refused_wherever_it_stands(mode: Mode) {
    const START: &str = r#"{"model":"m","user":""#;
    let stack = Stack::shared(mode);
    for at in 0..40 {
        for (text, is_fine) in [("\0", false), ("\x1f", false), (" !é\u{7f}", true)] {
            let (before, after) = ("x".repeat(at), "x".repeat(40 - at));
            let body = format!("{START}{before}{text}{after}\"}}");
            let answer = stack
                .ask(Request::chat(&new_id("control")).body(&body))
                .await;
            assert_eq!(answer.status, if is_fine { 200 } else { 400 }, "{body:?}");
            if !is_fine {
                let message = &answer.json()["error"]["message"];
                let byte = START.len() + at;
                assert_eq!(
                    message,
                    &json!(format!(
                        "the request body is not valid JSON: unexpected character at byte {byte}"
                    )),
                );
            }
        }
    }
}

async fn an_empty_body_is_refused_where_it_is_said_to_be_json(mode: Mode) {
    let stack = Stack::shared(mode);
    let empty = Bad {
        body: Vec::new(),
        message: "the request body is empty",
        param: None,
    };
    refused(&stack, "/v1/chat/completions", &empty, openai(&empty)).await;
    refused(&stack, "/v1/messages", &empty, anthropic(&empty)).await;
    let chunked = Request::chat("").chunked(&[], "");
    assert_eq!(stack.ask(chunked).await.json(), openai(&empty));
    let with_trailers = Request::chat("").chunked(&[], "x-end: 1\r\n");
    assert_eq!(stack.ask(with_trailers).await.json(), openai(&empty));
    let without_length = Request::chat("").head();
    assert_eq!(stack.ask(without_length).await.json(), openai(&empty));
    stack.assert_unharmed().await;
}

async fn what_follows_a_refusal_is_fine_on_the_same_connection(mode: Mode) {
    let stack = Stack::shared(mode);
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(1)
        .build()
        .unwrap();
    for _ in 0..10 {
        for (body, status) in [(r#"{"model":7}"#, 400), (r#"{"model":"m"}"#, 200)] {
            let request = client.post(stack.envoy.url("/v1/chat/completions"));
            let answer = request.body(body).send().await.unwrap();
            assert_eq!(answer.status(), status);
            answer.bytes().await.unwrap();
        }
    }
}

async fn refused(stack: &Stack, path: &str, bad: &Bad, expected: Value) {
    let id = new_id("bad");
    let shown = String::from_utf8_lossy(&bad.body[..bad.body.len().min(80)]);
    let answer = stack.ask(Request::json(path, &id).body(&bad.body)).await;
    assert_eq!(answer.status, 400, "{shown}");
    assert_eq!(answer.text("content-type"), Some("application/json"));
    assert_eq!(answer.json(), expected, "{shown}");
    let seen = [&stack.primary, &stack.backup].map(|mock| mock.requests_with(&id).len());
    assert_eq!(seen, [0, 0], "{shown}");
}

/// The whole body of the error, so that nothing of the request's body is in it.
fn openai(bad: &Bad) -> Value {
    json!({"error": {
        "message": bad.message,
        "type": "invalid_request_error",
        "param": bad.param,
        "code": "invalid_body",
    }})
}

fn anthropic(bad: &Bad) -> Value {
    json!({"type": "error", "error": {"type": "invalid_request_error", "message": bad.message}})
}
