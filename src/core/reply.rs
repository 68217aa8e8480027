//! Errors made by the filter, in the shape of the API that was called.

use super::fallback::Failure;
use super::outcome::LOOP_DETECTED;
use super::plan::Denied;
use super::request::{BodyError, json_string};
use super::result::Refusal;
use super::wish::BadWish;

/// An answer that the filter makes itself. The body is JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, `application/json`.
    pub body: String,
}

/// Which error body a client of this API can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
}

/// What went wrong.
#[derive(Debug)]
pub enum Problem {
    /// The request body cannot be used.
    Body(BodyError),
    /// A header asks for something that cannot be done.
    Header(BadWish),
    /// The caller may not use what the request asks for.
    Denied(Denied),
    /// The caller may not use every model, and the body cannot be read.
    Unreadable,
    /// What callers may use is restricted, and the path is written in another way than its normal one.
    Path,
    /// The request came through this gateway too often.
    Loop,
    /// No service gave an answer.
    NoAnswer(Failure),
}

impl Problem {
    /// Why the filter refuses the request; `None`: it does not, but no service answered.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Body(_) | Self::Header(_) => Some(Refusal::BadRequest),
            Self::Denied(_) | Self::Unreadable | Self::Path => Some(Refusal::Denied),
            Self::Loop => Some(Refusal::Loop),
            Self::NoAnswer(_) => None,
        }
    }
}

impl Shape {
    /// The shape for a request path, with or without its query.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Self {
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        if path.ends_with(b"/messages") || path.ends_with(b"/messages/count_tokens") {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }
}

/// The most characters of a name that an error repeats.
const MAX_SHOWN: usize = 200;

/// One row of the table of errors.
struct Row {
    status: u16,
    openai_type: &'static str,
    openai_code: &'static str,
    anthropic_type: &'static str,
    message: String,
    param: Option<&'static str>,
}

impl Reply {
    /// The reply that tells `problem` to the client.
    #[must_use]
    pub fn new(shape: Shape, problem: &Problem) -> Self {
        let row = row(problem);
        let message = json_string(&row.message);
        let body = match shape {
            Shape::OpenAi => format!(
                r#"{{"error":{{"message":{message},"type":"{}","param":{},"code":"{}"}}}}"#,
                row.openai_type,
                row.param.map_or_else(|| "null".to_owned(), json_string),
                row.openai_code,
            ),
            Shape::Anthropic => format!(
                r#"{{"type":"error","error":{{"type":"{}","message":{message}}}}}"#,
                row.anthropic_type
            ),
        };
        Self {
            status: row.status,
            body,
        }
    }
}

fn row(problem: &Problem) -> Row {
    match problem {
        Problem::Body(error) => Row {
            status: 400,
            openai_type: "invalid_request_error",
            openai_code: "invalid_body",
            anthropic_type: "invalid_request_error",
            message: error.to_string(),
            param: error.param(),
        },
        Problem::Header(BadWish { header, expected }) => Row {
            status: 400,
            openai_type: "invalid_request_error",
            openai_code: "invalid_header",
            anthropic_type: "invalid_request_error",
            message: ["the request header ", header, " is not ", expected].concat(),
            param: None,
        },
        Problem::Denied(denied) => forbidden(denied_message(denied), denied_param(denied)),
        Problem::Unreadable => forbidden(
            "this caller may not use every model, and the request body is not one whose model can be read".to_owned(),
            None,
        ),
        Problem::Path => Row {
            status: 400,
            openai_type: "invalid_request_error",
            openai_code: "invalid_path",
            anthropic_type: "invalid_request_error",
            message: "the request path is not in its normal form; send it without `//`, `/./`, `/../`, `;`, a `/` at its end, `\\` and escapes".to_owned(),
            param: None,
        },
        Problem::Loop => Row {
            status: LOOP_DETECTED,
            openai_type: "server_error",
            openai_code: "loop_detected",
            anthropic_type: "api_error",
            message: "the request came back to this gateway too often; a model service leads here again".to_owned(),
            param: None,
        },
        Problem::NoAnswer(Failure::Transport) => Row {
            status: 502,
            openai_type: "server_error",
            openai_code: "upstream_unreachable",
            anthropic_type: "api_error",
            message: "no model service could be reached; see x-ai-fallback-attempts".to_owned(),
            param: None,
        },
        Problem::NoAnswer(Failure::Timeout) => Row {
            status: 504,
            openai_type: "server_error",
            openai_code: "upstream_timeout",
            anthropic_type: "timeout_error",
            message: "no model service answered in time; see x-ai-fallback-attempts".to_owned(),
            param: None,
        },
    }
}

fn forbidden(message: String, param: Option<&'static str>) -> Row {
    Row {
        status: 403,
        openai_type: "permission_error",
        openai_code: "access_denied",
        anthropic_type: "permission_error",
        message,
        param,
    }
}

fn denied_message(denied: &Denied) -> String {
    let (what, name) = match denied {
        Denied::Entry(entry) => ("the entry of `models` ", entry),
        Denied::Model(model) => ("the model ", model),
        Denied::Service(service) => ("the service ", service),
        Denied::NoModel => {
            return "this caller may not use every model, and the request names none".to_owned();
        }
    };
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    ["this caller may not use ", what, "`", &shown, "`"].concat()
}

fn denied_param(denied: &Denied) -> Option<&'static str> {
    match denied {
        Denied::Entry(_) => Some("models"),
        Denied::Model(_) | Denied::NoModel => Some("model"),
        Denied::Service(_) => None,
    }
}
