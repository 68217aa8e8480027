//! Answers and errors of the Model APIs, whole. Streams are in `sse.rs`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::asked::Asked;
use super::spec::Spec;

/// Times in answers are fixed, so that two good answers to one request are equal.
pub const CREATED: u64 = 1_700_000_000;

/// A 1 x 1 PNG.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The embedding `EMBEDDING` as little-endian 32 bit floats.
const EMBEDDING_BASE64: &str = "AACAPgAAAD8AAEA/";
const EMBEDDING: [f32; 3] = [0.25, 0.5, 0.75];

/// Which API a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Api {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
    Rerank,
    Images,
    /// No Model API: a small JSON object.
    Other,
}

impl Api {
    /// Of a path without query.
    pub fn of(path: &str) -> Api {
        const ENDINGS: [(&str, Api); 7] = [
            ("/chat/completions", Api::Chat),
            ("/completions", Api::Completions),
            ("/embeddings", Api::Embeddings),
            ("/responses", Api::Responses),
            ("/messages", Api::Messages),
            ("/rerank", Api::Rerank),
            ("/images/generations", Api::Images),
        ];
        let found = ENDINGS.iter().find(|(ending, _)| path.ends_with(ending));
        found.map_or(Api::Other, |(_, api)| *api)
    }

    /// Whether `stream: true` means something here.
    pub fn streams(self) -> bool {
        matches!(
            self,
            Api::Chat | Api::Completions | Api::Responses | Api::Messages
        )
    }
}

/// Who answers, and what it says.
pub struct Said<'a> {
    pub service: &'a str,
    pub asked: &'a Asked,
    /// The text in pieces; joined, it is the whole text.
    pub pieces: Vec<String>,
}

impl<'a> Said<'a> {
    /// "Hello from SERVICE, MODEL", with dots behind it up to the length that the spec asks for,
    /// in as many pieces.
    pub fn new(service: &'a str, asked: &'a Asked, spec: &Spec) -> Said<'a> {
        let count = spec.chunks.unwrap_or(4);
        let mut text = format!("Hello from {service}, {}", asked.model());
        let missing = spec.size.max(4 * count).saturating_sub(text.len());
        text.extend(std::iter::repeat_n('.', missing));
        let pieces = split(text.as_bytes(), count, |at| text.is_char_boundary(at));
        let piece = |piece: Bytes| String::from_utf8(piece.to_vec()).expect("whole characters");
        Said {
            service,
            asked,
            pieces: pieces.into_iter().map(piece).collect(),
        }
    }

    pub fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// The good answer as JSON.
pub fn whole(api: Api, said: &Said) -> Value {
    let (model, text) = (said.asked.model(), said.text());
    match api {
        Api::Chat => json!({
            "id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
                         "logprobs": null, "finish_reason": "stop"}],
            "usage": openai_usage(),
        }),
        Api::Completions => json!({
            "id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": model,
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}],
            "usage": openai_usage(),
        }),
        Api::Embeddings => json!({
            "object": "list", "model": model, "data": embeddings(said.asked),
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        }),
        Api::Responses => response(model, "completed", Some(&text)),
        Api::Messages => message(model, &text),
        Api::Rerank => json!({
            "id": "rerank-mock", "model": model, "results": ranks(said.asked, &text),
        }),
        Api::Images => json!({
            "created": CREATED, "model": model,
            "data": [{"b64_json": IMAGE, "revised_prompt": text}],
        }),
        Api::Other => json!({"service": said.service, "model": model, "text": text}),
    }
}

/// What is told of an error.
pub struct Told<'a> {
    pub message: &'a str,
    /// In place of the one that goes with the status.
    pub code: Option<&'a str>,
    /// The same for the `type`.
    pub kind: Option<&'a str>,
}

/// The body of an error status, as the provider of this API would write it.
pub fn error(api: Api, status: u16, told: &Told<'_>) -> Value {
    let message = told.message;
    if api == Api::Messages {
        let kind = told.kind.unwrap_or_else(|| anthropic_kind(status));
        return json!({
            "type": "error", "error": {"type": kind, "message": message},
            "request_id": "req_mock",
        });
    }
    let (kind, code) = openai_kind(status);
    let (kind, code) = (told.kind.unwrap_or(kind), told.code.or(code));
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// The error event of a stream.
pub fn error_event(api: Api, told: &Told<'_>) -> String {
    match api {
        Api::Messages => {
            let kind = told.kind.unwrap_or("overloaded_error");
            let data = json!({
                "type": "error", "error": {"type": kind, "message": told.message},
            });
            format!("event: error\ndata: {data}\n\n")
        }
        Api::Responses => {
            let code = told.code.unwrap_or("server_error");
            let data = json!({
                "type": "error", "code": code, "message": told.message, "param": null,
                "sequence_number": 0,
            });
            format!("event: error\ndata: {data}\n\n")
        }
        _ => format!("data: {}\n\n", error(api, 500, told)),
    }
}

/// A body in `count` pieces of about the same length, none empty unless it is too short;
/// cut where `may_cut` allows.
pub fn split(body: &[u8], count: usize, may_cut: impl Fn(usize) -> bool) -> Vec<Bytes> {
    let count = count.clamp(1, body.len().max(1));
    let cut = |piece: usize| {
        let at = body.len() * piece / count;
        (at..).find(|at| may_cut(*at)).unwrap_or(body.len())
    };
    (0..count)
        .map(|piece| Bytes::copy_from_slice(&body[cut(piece)..cut(piece + 1)]))
        .collect()
}

/// The object of the Responses API.
pub fn response(model: &str, status: &str, text: Option<&str>) -> Value {
    let output: Vec<Value> = text.map(output_item).into_iter().collect();
    let usage = text.map(|_| {
        json!({
            "input_tokens": 5, "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        })
    });
    json!({
        "id": "resp_mock", "object": "response", "created_at": CREATED, "status": status,
        "model": model, "output": output, "error": null, "incomplete_details": null,
        "instructions": null, "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0,
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": usage,
    })
}

pub fn output_item(text: &str) -> Value {
    json!({
        "type": "message", "id": "msg_mock", "status": "completed", "role": "assistant",
        "content": [output_text(text)],
    })
}

pub fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub fn openai_usage() -> Value {
    json!({
        "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

fn message(model: &str, text: &str) -> Value {
    json!({
        "id": "msg_mock", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": anthropic_usage(7),
    })
}

/// The tokens from the cache are not among the `input_tokens`.
pub fn anthropic_usage(output: u64) -> Value {
    json!({
        "input_tokens": 3, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0,
        "output_tokens": output,
    })
}

fn embeddings(asked: &Asked) -> Vec<Value> {
    let vector = match asked.base64() {
        true => json!(EMBEDDING_BASE64),
        false => json!(EMBEDDING),
    };
    let one = |index| json!({"object": "embedding", "index": index, "embedding": vector});
    (0..asked.count("input")).map(one).collect()
}

fn ranks(asked: &Asked, text: &str) -> Vec<Value> {
    let one = |index| {
        let score = 1.0 / (index as f64 + 1.0);
        json!({"index": index, "relevance_score": score, "document": {"text": text}})
    };
    (0..asked.count("documents")).map(one).collect()
}

fn openai_kind(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        403 => ("permission_error", None),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        _ => ("server_error", None),
    }
}

fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}
