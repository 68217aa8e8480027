//! What a client is told where no service answers.

use ai_fallback::core::fallback::Failure;
use ai_fallback::core::reply::{Problem, Reply, Shape};
use ai_fallback::core::request::{BodyError, RequestBody};
use serde_json::{Value, json};

fn reply(shape: Shape, problem: &Problem) -> (u16, Value) {
    let reply = Reply::new(shape, problem);
    (reply.status, serde_json::from_str(&reply.body).unwrap())
}

fn body_error(body: &str) -> BodyError {
    RequestBody::read(body.as_bytes()).unwrap_err()
}

#[test]
fn the_shape_is_that_of_the_api() {
    for (path, shape) in [
        ("/v1/messages", Shape::Anthropic),
        ("/v1/messages?beta=true", Shape::Anthropic),
        ("/anthropic/v1/messages", Shape::Anthropic),
        ("/v1/messages/count", Shape::OpenAi),
        ("/v1/chat/completions", Shape::OpenAi),
        ("/v1/chat/completions?x=/messages", Shape::OpenAi),
        ("", Shape::OpenAi),
    ] {
        assert_eq!(Shape::of_path(path.as_bytes()), shape, "{path}");
    }
}

#[test]
fn no_answer_is_told_in_both_shapes() {
    for (failure, status, code, kind) in [
        (Failure::Transport, 502, "upstream_unreachable", "api_error"),
        (Failure::Timeout, 504, "upstream_timeout", "timeout_error"),
    ] {
        let problem = Problem::NoAnswer(failure);
        let (openai_status, openai) = reply(Shape::OpenAi, &problem);
        let (anthropic_status, anthropic) = reply(Shape::Anthropic, &problem);
        let message = openai["error"]["message"].clone();
        assert!(message.as_str().unwrap().contains("x-ai-fallback-attempts"));
        assert_eq!((openai_status, anthropic_status), (status, status));
        assert_eq!(
            openai,
            json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}})
        );
        assert_eq!(
            anthropic,
            json!({"type": "error", "error": {"type": kind, "message": message}})
        );
    }
}

#[test]
fn a_body_that_cannot_be_used_is_told_with_what_is_wrong() {
    for body in [
        "",
        "[]",
        "{",
        "{\"model\":1}",
        "{\"stream\":true,\"stream\":false}",
        "{\"a\":1}x",
    ] {
        let error = body_error(body);
        let (status, openai) = reply(Shape::OpenAi, &Problem::Body(error));
        assert_eq!(
            (status, &openai["error"]["message"]),
            (400, &json!(error.to_string()))
        );
        assert_eq!(openai["error"]["param"], json!(error.param()));
        assert_eq!(openai["error"]["type"], "invalid_request_error");
        let (status, anthropic) = reply(Shape::Anthropic, &Problem::Body(error));
        assert_eq!(
            (status, &anthropic["error"]["message"]),
            (400, &json!(error.to_string()))
        );
        assert_eq!(anthropic["error"]["type"], "invalid_request_error");
    }
}

#[test]
fn nothing_of_the_body_is_told() {
    let error = body_error("{\"key\":\"sk-secret\",\"model\":\"sk-secret\",\"model\":1}");
    let told = Reply::new(Shape::OpenAi, &Problem::Body(error)).body;
    assert!(!told.contains("sk-secret"), "{told}");
}
