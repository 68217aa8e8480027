//! What a service says of its error: the code, the type, and what kind of error that is.

use std::borrow::Cow;

use super::request::{Members, decode};

/// Kinds of errors that services name in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The prompt is longer than the model can take: `context_length`.
    ContextLength,
    /// The service refuses what the prompt or the answer says: `content_policy`.
    ContentPolicy,
    /// The account has nothing left to spend: `quota`.
    Quota,
    /// Too many requests or tokens in a time: `rate_limit`.
    RateLimit,
    /// The service has no such model: `model_not_found`.
    ModelNotFound,
    /// The service has too much to do: `overloaded`.
    Overloaded,
}

/// What a service says of its error. All empty where it says nothing that is understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderError {
    /// `error.code`, as text.
    pub code: Option<String>,
    /// `error.type`, or its like.
    pub kind_name: Option<String>,
    /// What kind of error that is, where it is one of those that are known.
    pub kind: Option<ErrorKind>,
}

/// What the codes and types of services mean. Case, `_` and `-` make no difference.
#[rustfmt::skip]
const NAMES: [(ErrorKind, &[&str]); 6] = [
    (ErrorKind::ContextLength, &[
        "context_length_exceeded",       // OpenAI, Groq, Cerebras
        "exceed_context_size_error",     // llama.cpp
        "tokens_limit_reached",          // GitHub Models
        "context_window_exceeded_error", // LiteLLM
    ]),
    (ErrorKind::ContentPolicy, &[
        "content_policy_violation",       // OpenAI
        "content_filter",                 // Azure, Moonshot
        "moderation_blocked",             // OpenAI images
        "data_inspection_failed",         // Alibaba
        "content_policy_violation_error", // LiteLLM
    ]),
    (ErrorKind::Quota, &[
        "insufficient_quota",           // OpenAI: the type of all its codes of this kind
        "billing_hard_limit_reached",   // OpenAI
        "billing_not_active",           // OpenAI
        "billing_error",                // Anthropic
        "exceeded_current_quota_error", // Moonshot
        "arrearage",                    // Alibaba
    ]),
    (ErrorKind::RateLimit, &[
        "rate_limit_exceeded",            // OpenAI, Groq
        "rate_limit_error",               // Anthropic, vLLM, LiteLLM
        "rate_limit_reached",             // GitHub Models
        "rate_limit_reached_error",       // Moonshot
        "rate_limited",                   // Mistral
        "service_tier_capacity_exceeded", // Mistral
        "resource_exhausted",             // Google
        "too_many_requests",              // several
        "too_many_requests_error",        // Cerebras
        "limit_requests",                 // Alibaba
        "throttling_exception",           // AWS
    ]),
    (ErrorKind::ModelNotFound, &[
        "model_not_found",      // OpenAI, Alibaba
        "deployment_not_found", // Azure
        "invalid_model",        // Mistral
        "unknown_model",        // Mistral, GitHub Models
        "model_decommissioned", // Groq
    ]),
    (ErrorKind::Overloaded, &[
        "overloaded_error",              // Anthropic
        "server_is_overloaded",          // OpenAI
        "slow_down",                     // OpenAI
        "service_unavailable_error",     // OpenAI, LiteLLM
        "engine_overloaded_error",       // Moonshot
        "capacity_exceeded",             // Groq
        "unavailable",                   // Google
        "service_unavailable_exception", // AWS
    ]),
];

/// Types of services that have them for whatever is not there. It is a model where the message says
/// `model`.
const NOT_FOUND: [&str; 4] = [
    "not_found_error",              // Anthropic, vLLM
    "not_found",                    // Google
    "resource_not_found_error",     // Moonshot
    "resource_not_found_exception", // AWS
];

/// What messages hold, in lower case, of services that name no code for it. `*` stands for anything.
#[rustfmt::skip]
const MESSAGES: [(ErrorKind, &[&str]); 6] = [
    (ErrorKind::ContextLength, &[
        "maximum context length",                 // vLLM, Mistral, OpenRouter
        "prompt is too long",                     // Anthropic
        "exceed context limit",                   // Anthropic
        "input is too long",                      // Bedrock
        "input token count",                      // Gemini
        "exceeds the maximum number of tokens",   // Gemini
        "context window",                         // OpenAI, LM Studio, MiniMax
        "model's context length",                 // Together
        "available context size",                 // llama.cpp
        "maximum prompt length",                  // xAI
        "exceeded model token limit",             // Moonshot
        "range of input length should be",        // Alibaba
        "reduce the length of the messages",      // Groq
    ]),
    (ErrorKind::ContentPolicy, &[
        "content management policy",  // Azure
        "content filtering policy",   // Anthropic
        "violating our usage policy", // OpenAI
        "our safety system",          // OpenAI images
        "inappropriate content",      // Alibaba
    ]),
    (ErrorKind::Quota, &[
        "exceeded your current quota",             // OpenAI
        "credit balance is too low",               // Anthropic
        "reached your specified api usage limits", // Anthropic
        "insufficient balance",                    // DeepSeek
        "insufficient credits",                    // OpenRouter
        "used all available credits",              // xAI
    ]),
    (ErrorKind::RateLimit, &["rate limit", "too many requests"]),
    (ErrorKind::ModelNotFound, &[
        "model * does not exist",        // OpenAI, vLLM
        "model * not found, try pulling", // Ollama
        "model identifier is invalid",   // Bedrock
    ]),
    (ErrorKind::Overloaded, &[
        "is overloaded",
        "currently overloaded",
        "is at capacity",          // OpenAI
        "currently over capacity", // Groq
    ]),
];

/// What a status means that stands in the place of a code, where nothing else says more.
const NUMBERS: [(ErrorKind, &[&str]); 3] = [
    (ErrorKind::Quota, &["402"]),
    (ErrorKind::RateLimit, &["429"]),
    (ErrorKind::Overloaded, &["503", "529"]),
];

impl ErrorKind {
    /// All of them, with the names that the configuration and the trail have for them.
    pub const NAMES: [(&'static str, ErrorKind); 6] = [
        ("context_length", Self::ContextLength),
        ("content_policy", Self::ContentPolicy),
        ("quota", Self::Quota),
        ("rate_limit", Self::RateLimit),
        ("model_not_found", Self::ModelNotFound),
        ("overloaded", Self::Overloaded),
    ];

    /// The name that the configuration and the trail have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        names.find(|(own, _)| *own == name).map(|(_, kind)| *kind)
    }
}

impl ProviderError {
    /// The most bytes of an error body that are read.
    pub const MAX_BODY: usize = 16 * 1024;

    /// The most bytes that a code or a type has. A longer one is taken for none, and so is one that is
    /// not printable ASCII: both are shown in headers and logs.
    pub const MAX_NAME: usize = 128;

    /// Reads an error body, or the data of an error event. `None` where it holds no error.
    ///
    /// An error is an `error` member that is neither `null` nor `false`, or else a `message`; in an
    /// object, or in the first object of an array. Of a body that is cut off, or no JSON from some
    /// point on, what stands before counts. The message is looked at, and not kept.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let body = body.get(..Self::MAX_BODY).unwrap_or(body);
        let top = Fields::read(first_object(text_at_start(body)))?;
        let fields = match top.error.bytes().next() {
            Some(b'{') => Fields::read(top.error)?,
            Some(_) => Fields {
                message: top.error,
                ..top
            },
            None if top.message.starts_with('"') => top,
            None => return None,
        };
        Some(fields.understood())
    }
}

/// The values that say what an error is, as they are written. Empty where they are not there.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    error: &'a str,
    code: &'a str,
    kind_name: &'a str,
    status: &'a str,
    message: &'a str,
}

impl<'a> Fields<'a> {
    /// `None` where `json` does not begin like an object.
    fn read(json: &'a str) -> Option<Self> {
        let mut members = Members::of(json.as_bytes()).ok()?;
        let mut fields = Self::default();
        while let Ok(Some(member)) = members.next() {
            let field = match member.key().as_deref() {
                Some("error") if !matches!(member.value(), "null" | "false") => &mut fields.error,
                Some("code") => &mut fields.code,
                Some("type" | "__type") => &mut fields.kind_name,
                Some("status") => &mut fields.status,
                Some("message") => &mut fields.message,
                _ => continue,
            };
            *field = member.value();
        }
        // What stands at the start of a long error counts, wherever its end is.
        let cut = members.cut().filter(|cut| cut.value().starts_with('{'));
        if let Some(cut) = cut.filter(|cut| cut.key().as_deref() == Some("error")) {
            fields.error = cut.value();
        }
        Some(fields)
    }

    fn understood(self) -> ProviderError {
        let code = decode(self.code).or_else(|| number(self.code));
        let kind_name = decode(self.kind_name).or_else(|| decode(self.status));
        let [code, kind_name] = [code, kind_name].map(|text| name(&text?));
        let message = decode(self.message).unwrap_or_default();
        let kind = kind(
            code.as_deref(),
            kind_name.as_deref(),
            &message.to_ascii_lowercase(),
        );
        ProviderError {
            code,
            kind_name,
            kind,
        }
    }
}

/// What the service calls its error says more than how it describes it, and that more than a number.
fn kind(code: Option<&str>, kind_name: Option<&str>, message: &str) -> Option<ErrorKind> {
    let names = || [code, kind_name].into_iter().flatten();
    let by_name = names().find_map(|own| find(&NAMES, |name| same(own, name)));
    let not_found = || {
        let named = names().any(|own| NOT_FOUND.iter().any(|name| same(own, name)));
        (named && message.contains("model")).then_some(ErrorKind::ModelNotFound)
    };
    by_name
        .or_else(not_found)
        .or_else(|| find(&MESSAGES, |part| holds(message, part)))
        .or_else(|| find(&NUMBERS, |number| code == Some(number)))
}

fn find(table: &[(ErrorKind, &[&str])], fits: impl Fn(&str) -> bool) -> Option<ErrorKind> {
    let mut rows = table.iter();
    rows.find(|(_, texts)| texts.iter().any(|text| fits(text)))
        .map(|(kind, _)| *kind)
}

fn same(one: &str, two: &str) -> bool {
    letters(one).eq(letters(two))
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    let bytes = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
    bytes.map(|byte| byte.to_ascii_lowercase())
}

fn holds(message: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    parts
        .try_fold(message, |rest, part| Some(rest.split_once(part)?.1))
        .is_some()
}

/// A code or type. AWS puts the name of the API before it, and a `#` between.
fn name(text: &str) -> Option<String> {
    let name = text.rsplit('#').next().unwrap_or_default();
    let shown = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (shown && !name.is_empty() && name.len() <= ProviderError::MAX_NAME).then(|| name.to_owned())
}

fn number(value: &str) -> Option<Cow<'_, str>> {
    value
        .starts_with(|first: char| first == '-' || first.is_ascii_digit())
        .then_some(Cow::Borrowed(value))
}

/// All that is text, up to a character that is cut in two.
fn text_at_start(bytes: &[u8]) -> &str {
    let chunk = bytes.utf8_chunks().next();
    chunk.map_or("", |chunk| chunk.valid())
}

/// What follows the bracket of an array, as Google's services put their errors in one.
fn first_object(json: &str) -> &str {
    let json = json.trim_ascii_start();
    json.strip_prefix('[').unwrap_or(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<(Option<String>, Option<String>, Option<&'static str>)> {
        let error = ProviderError::read(body.as_bytes())?;
        Some((error.code, error.kind_name, error.kind.map(ErrorKind::name)))
    }

    fn kind_of(body: &str) -> Option<&'static str> {
        read(body).and_then(|(_, _, kind)| kind)
    }

    #[test]
    fn every_shape_of_an_error_is_read() {
        let table = [
            (
                r#"{"error":{"message":"m","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
                (
                    Some("rate_limit_exceeded"),
                    Some("requests"),
                    Some("rate_limit"),
                ),
            ),
            (
                r#"{"error":{"message":"m","type":"server_error","param":null,"code":null}}"#,
                (None, Some("server_error"), None),
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#,
                (None, Some("overloaded_error"), Some("overloaded")),
            ),
            (
                r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m"}}"#,
                (Some("429"), Some("RESOURCE_EXHAUSTED"), Some("rate_limit")),
            ),
            (
                "[{\n  \"error\": {\"status\": \"UNAVAILABLE\", \"code\": 503}\n}\n]\n",
                (Some("503"), Some("UNAVAILABLE"), Some("overloaded")),
            ),
            (
                r#"{"error":{"message":"filtered","type":null,"code":"content_filter","status":400}}"#,
                (Some("content_filter"), None, Some("content_policy")),
            ),
            (
                r#"{"object":"error","message":"This model's maximum context length is 8192 tokens.","type":"BadRequestError","param":null,"code":400}"#,
                (Some("400"), Some("BadRequestError"), Some("context_length")),
            ),
            (
                r#"{"message":"slow down","__type":"com.amazon.coral#ThrottlingException"}"#,
                (None, Some("ThrottlingException"), Some("rate_limit")),
            ),
            (
                r#"{"code":"Arrearage","message":"Access denied.","request_id":"r"}"#,
                (Some("Arrearage"), None, Some("quota")),
            ),
            (
                r#"{"error":"model \"x\" not found, try pulling it first"}"#,
                (None, None, Some("model_not_found")),
            ),
            (r#"{"error":"no","code":"c"}"#, (Some("c"), None, None)),
            (r#"{"error":null,"message":"m"}"#, (None, None, None)),
            (r#"{"error":{}}"#, (None, None, None)),
            (r#"{"error":7}"#, (None, None, None)),
            (
                r#"{"\u0065rror":{"c\u006fde":"slow\u005fdown"}}"#,
                (Some("slow_down"), None, Some("overloaded")),
            ),
            (
                r#"{"error":{"status":"S","type":"T"}}"#,
                (None, Some("T"), None),
            ),
            (
                r#"{"error":{"type":"T","status":"S"}}"#,
                (None, Some("T"), None),
            ),
        ];
        for (body, (code, kind_name, kind)) in table {
            let expected = (code.map(str::to_owned), kind_name.map(str::to_owned), kind);
            assert_eq!(read(body), Some(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_error_is_none() {
        for body in [
            "",
            " ",
            "upstream connect error",
            "<html></html>",
            "[]",
            "[DONE]",
            "\"error\"",
            "{",
            "{}",
            r#"{"error":null}"#,
            r#"{"error":false,"type":"message"}"#,
            r#"{"type":"message_start","message":{"error":"x"}}"#,
            r#"{"code":"c","type":"t"}"#,
        ] {
            assert_eq!(read(body), None, "{body}");
        }
        assert_eq!(ProviderError::read(b"\xff{}"), None);
    }

    #[test]
    fn what_stands_before_a_cut_counts() {
        let error = br#"{"error":{"type":"overloaded_error"}"#;
        for behind in [
            &b""[..],
            b",",
            b",\"a\":\"\xc3",
            b"]",
            b",\"a\":[1,",
            b"\xff\xfe",
        ] {
            let body = [&error[..], behind].concat();
            let kind = ProviderError::read(&body).unwrap().kind;
            assert_eq!(kind, Some(ErrorKind::Overloaded));
        }
        let long = "é".repeat(20_000);
        for body in [
            format!(r#"{{"error":{{"code":"x"}},"a":"{long}"}}"#),
            format!(r#"{{"error":{{"code":"x","message":"{long}"}}}}"#),
            format!(r#"[{{"a":{{}},"error":{{"code":"x","a":{{"b":"{long}"}}}}}}]"#),
            r#"{"error":{"code":"x","#.to_owned(),
        ] {
            assert_eq!(
                read(&body),
                Some((Some("x".to_owned()), None, None)),
                "{body}"
            );
        }
        assert_eq!(
            read(r#"{"error":{"message":"cut"#),
            Some((None, None, None))
        );
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_none() {
        for (code, kept) in [
            (r#""""#, false),
            (r#""a\nb""#, false),
            (r#""é""#, false),
            ("true", false),
            ("[1]", false),
            (r#"" ~""#, true),
            ("-7.5e3", true),
            (&format!("\"{}\"", "x".repeat(128)), true),
            (&format!("\"{}\"", "x".repeat(129)), false),
        ] {
            let body = format!(r#"{{"error":{{"code":{code},"message":"m"}}}}"#);
            let error = ProviderError::read(body.as_bytes()).unwrap();
            assert_eq!(error.code.is_some(), kept, "{code}");
        }
    }

    #[test]
    fn names_are_compared_by_their_letters() {
        for name in ["rate_limit_error", "RateLimitError", "RATE-LIMIT-ERROR"] {
            let body = format!(r#"{{"error":{{"type":"{name}"}}}}"#);
            assert_eq!(kind_of(&body), Some("rate_limit"), "{name}");
        }
        let body = r#"{"error":{"type":"rate_limit_errors"}}"#;
        assert_eq!(kind_of(body), None);
    }

    /// Messages as the services send them.
    #[test]
    fn a_message_tells_the_kind_where_no_code_does() {
        let table = [
            (
                "context_length",
                "prompt is too long: 208310 tokens > 200000 maximum",
            ),
            (
                "context_length",
                "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000",
            ),
            (
                "context_length",
                "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
            ),
            (
                "context_length",
                "Prompt contains 66385 tokens, too large for model with 32768 maximum context length",
            ),
            ("context_length", "Input is too long for requested model."),
            (
                "context_length",
                "Your input exceeds the context window of this model.",
            ),
            (
                "context_length",
                "request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it",
            ),
            (
                "context_length",
                "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            ),
            (
                "context_length",
                "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]",
            ),
            (
                "content_policy",
                "Output blocked by content filtering policy",
            ),
            (
                "content_policy",
                "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            ),
            (
                "content_policy",
                "Input data may contain inappropriate content.",
            ),
            (
                "quota",
                "Your credit balance is too low to access the Anthropic API.",
            ),
            ("quota", "Insufficient Balance"),
            (
                "quota",
                "Your team has either used all available credits or reached its monthly spending limit.",
            ),
            (
                "rate_limit",
                "Rate limit is exceeded. Try again in 7 seconds.",
            ),
            (
                "model_not_found",
                "The model `gpt-9` does not exist or you do not have access to it.",
            ),
            (
                "model_not_found",
                "The provided model identifier is invalid.",
            ),
            (
                "overloaded",
                "That model is currently overloaded with other requests.",
            ),
            (
                "overloaded",
                "The model is overloaded. Please try again later.",
            ),
        ];
        for (kind, message) in table {
            let body = format!(
                r#"{{"error":{{"type":"invalid_request_error","code":"400","message":"{message}"}}}}"#
            );
            assert_eq!(kind_of(&body), Some(kind), "{message}");
        }
        let body = r#"{"error":{"message":"temperature: must be less than 2"}}"#;
        assert_eq!(kind_of(body), None);
    }

    #[test]
    fn codes_say_more_than_messages_and_those_more_than_numbers() {
        let table = [
            (
                r#""code":"insufficient_quota","message":"rate limit""#,
                "quota",
            ),
            (
                r#""code":"x","type":"insufficient_quota","message":"rate limit""#,
                "quota",
            ),
            (
                r#""code":"slow_down","type":"insufficient_quota""#,
                "overloaded",
            ),
            (r#""code":429,"message":"Insufficient credits""#, "quota"),
            (r#""code":402,"message":"Pay""#, "quota"),
            (r#""code":"429","message":"m""#, "rate_limit"),
            (r#""code":529"#, "overloaded"),
            (
                r#""type":"not_found_error","message":"model: claude-9""#,
                "model_not_found",
            ),
            (
                r#""code":404,"type":"NotFoundError","message":"The model `x` does not exist.""#,
                "model_not_found",
            ),
            (
                r#""code":404,"status":"NOT_FOUND","message":"models/x is not found for API version v1""#,
                "model_not_found",
            ),
        ];
        for (fields, kind) in table {
            let body = format!(r#"{{"error":{{{fields}}}}}"#);
            assert_eq!(kind_of(&body), Some(kind), "{body}");
        }
        for fields in [
            r#""code":404"#,
            r#""type":"not_found_error","message":"no such file""#,
        ] {
            assert_eq!(kind_of(&format!(r#"{{"error":{{{fields}}}}}"#)), None);
        }
    }

    #[test]
    fn a_code_has_one_kind() {
        let all: Vec<&str> = NAMES
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        for (index, one) in all.iter().enumerate() {
            let alike = all.iter().filter(|other| same(one, other)).count();
            assert_eq!(alike, 1, "{index}: {one}");
        }
        for (_, parts) in MESSAGES {
            assert!(parts.iter().all(|part| *part == part.to_ascii_lowercase()));
        }
    }

    #[test]
    fn a_kind_has_a_name() {
        for (name, kind) in ErrorKind::NAMES {
            assert_eq!(kind.name(), name);
            assert_eq!(ErrorKind::of_name(name), Some(kind));
        }
        assert_eq!(ErrorKind::of_name("Quota"), None);
    }
}
