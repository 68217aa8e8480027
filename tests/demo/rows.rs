//! What is asked, what goes wrong, and what must come of it: the whole demo as data.

use serde_json::json;

use crate::stack::UNPLUG;

/// Rows under one heading.
pub struct Group {
    pub title: &'static str,
    pub rows: &'static [Row],
}

/// One request.
#[derive(Clone, Copy)]
pub struct Row {
    pub api: Api,
    pub model: &'static str,
    pub stream: bool,
    /// What is wrong, in plain words.
    pub wrong: &'static str,
    /// Headers of the request. `x-mock-NAME` tells the service NAME how to fail.
    pub headers: &'static [(&'static str, &'static str)],
    /// In place of the usual body.
    pub body: Option<&'static str>,
    /// `x-ai-fallback-attempts` without the times.
    pub tried: &'static str,
    /// The client's answer: its status, and who made it.
    pub answer: (u16, &'static str),
    /// Whether the client must have the first chunk before the service has sent the last, or must not; `None`: either.
    pub live: Option<bool>,
    /// The answer must break off before its end.
    pub breaks: bool,
    /// The body of the answer must hold this. It is shown.
    pub says: Option<&'static str>,
    /// The model names that the services must have been sent. They are shown.
    pub models: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Api {
    Chat,
    Messages,
    Embeddings,
}

impl Api {
    pub fn name(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Messages => "messages",
            Api::Embeddings => "embeddings",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Messages => "/v1/messages",
            Api::Embeddings => "/v1/embeddings",
        }
    }
}

impl Row {
    pub fn request_body(&self) -> String {
        if let Some(body) = self.body {
            return body.to_owned();
        }
        let messages = json!([{"role": "user", "content": "Hello"}]);
        let body = match self.api {
            Api::Chat => json!({"model": self.model, "stream": self.stream, "messages": messages}),
            Api::Messages => json!({
                "model": self.model, "stream": self.stream, "max_tokens": 100, "messages": messages,
            }),
            Api::Embeddings => json!({"model": self.model, "input": "Hello"}),
        };
        body.to_string()
    }
}

const CHAT: Row = Row {
    api: Api::Chat,
    model: "gpt-4o",
    stream: false,
    wrong: "nothing",
    headers: &[],
    body: None,
    tried: "openai;200",
    answer: (200, "openai"),
    live: None,
    breaks: false,
    says: None,
    models: None,
};

/// A chat request that `openai` fails.
const FALLBACK: Row = Row {
    answer: (200, "qwen"),
    ..CHAT
};

const STREAM: Row = Row {
    stream: true,
    ..FALLBACK
};

/// By this header a request comes to the Model API where it may ask for more.
const CHOICES: (&str, &str) = ("x-demo", "choices");
const LIST: &str = r#"{"model": "gpt-4o", "models": ["anthropic:claude-sonnet-4-6", "local:llama-3"], "messages": []}"#;

/// What a service is told that sends a stream of [`CHUNKS`], [`GAP_MS`] apart. The mock adds three chunks to those
/// of the text: the role, the end, and `[DONE]`.
const PACED: &str = "first=50,chunks=37,gap=20";
pub const CHUNKS: usize = 40;
pub const GAP_MS: u64 = 20;

/// What the dispatch modes are compared by: streams that come by fallback.
pub const COMPARED: [Row; 2] = [
    Row {
        wrong: "openai: 503",
        headers: &[("x-mock-openai", "503"), ("x-mock-qwen", PACED)],
        tried: "openai;503, qwen;200",
        ..STREAM
    },
    Row {
        wrong: "openai sends headers, then nothing",
        headers: &[("x-mock-openai", "silence"), ("x-mock-qwen", PACED)],
        tried: "openai;first_packet_timeout, qwen;200",
        ..STREAM
    },
];

/// The same stream from `qwen` itself.
pub const DIRECT: Row = Row {
    wrong: "nothing: qwen asked without a gateway",
    headers: &[("x-mock-qwen", PACED)],
    ..STREAM
};

pub const GROUPS: &[Group] = &[
    Group {
        title: "Nothing is wrong: the filter stays out of the way",
        rows: &[
            CHAT,
            Row {
                stream: true,
                wrong: "nothing; each piece is passed on as it comes",
                headers: &[("x-mock-openai", "chunks=4,gap=150")],
                live: Some(true),
                ..CHAT
            },
        ],
    },
    Group {
        title: "The service answers, but with an error",
        rows: &[
            Row {
                wrong: "openai is overloaded: 503",
                headers: &[("x-mock-openai", "503")],
                tried: "openai;503, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "openai has had too many requests: 429",
                headers: &[("x-mock-openai", "429")],
                tried: "openai;429, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "openai refuses our key: 401",
                headers: &[("x-mock-openai", "401")],
                tried: "openai;401, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "openai: 200 without a body",
                headers: &[("x-mock-openai", "empty")],
                tried: "openai;empty, qwen;200",
                ..FALLBACK
            },
        ],
    },
    Group {
        title: "The service does not answer",
        rows: &[
            Row {
                wrong: "openai's port refuses the connection",
                headers: &[(UNPLUG, "yes")],
                tried: "openai;reset, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "reset by openai before the headers",
                headers: &[("x-mock-openai", "reset")],
                tried: "openai;reset, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "openai hangs: it takes the request and never answers",
                headers: &[("x-mock-openai", "hang")],
                tried: "openai;request_timeout, qwen;200",
                ..FALLBACK
            },
        ],
    },
    Group {
        title: "Streams that look good at first: a 200 is no answer until its first packet is here",
        rows: &[
            Row {
                wrong: "openai sends headers, then nothing",
                headers: &[("x-mock-openai", "silence")],
                tried: "openai;first_packet_timeout, qwen;200",
                ..STREAM
            },
            Row {
                wrong: "openai sends only comments (keep-alives)",
                headers: &[("x-mock-openai", "comments")],
                tried: "openai;first_packet_timeout, qwen;200",
                ..STREAM
            },
            Row {
                wrong: "openai takes 5 s for its first token",
                headers: &[("x-mock-openai", "first=5000")],
                tried: "openai;first_packet_timeout, qwen;200",
                ..STREAM
            },
            Row {
                wrong: "openai: 200, but the first event is an error",
                headers: &[("x-mock-openai", "error-event")],
                tried: "openai;stream_error, qwen;200",
                ..STREAM
            },
            Row {
                wrong: "broken off half way: too late for a fallback",
                headers: &[("x-mock-openai", "gap=50,reset-after=2")],
                tried: "openai;200",
                answer: (200, "openai"),
                breaks: true,
                ..STREAM
            },
        ],
    },
    Group {
        title: "More than one fallback, and each service with its own model name",
        rows: &[Row {
            wrong: "openai: 503, and qwen resets",
            headers: &[("x-mock-openai", "503"), ("x-mock-qwen", "reset")],
            tried: "openai;503, qwen;reset, local;200",
            answer: (200, "local"),
            models: Some("openai gpt-4o-2024-11-20, qwen qwen-plus, local llama-3"),
            ..CHAT
        }],
    },
    Group {
        title: "A request may name models itself, as far as its caller may use them",
        rows: &[
            Row {
                wrong: "openai: 404; the request names claude next",
                headers: &[CHOICES, ("x-mock-openai", "404")],
                body: Some(LIST),
                tried: "openai;404 model_not_found, anthropic;200",
                answer: (200, "anthropic"),
                models: Some("openai gpt-4o-2024-11-20, anthropic claude-sonnet-4-6"),
                ..CHAT
            },
            Row {
                wrong: "the same, but guests may not use anthropic",
                headers: &[CHOICES, ("x-consumer", "guest")],
                body: Some(LIST),
                tried: "",
                answer: (403, "gateway"),
                says: Some("`anthropic:claude-sonnet-4-6`"),
                ..CHAT
            },
            Row {
                wrong: "openai: 503; the request wants no fallback",
                headers: &[CHOICES, ("x-ai-fallback", "off"), ("x-mock-openai", "503")],
                tried: "openai;503",
                answer: (503, "openai"),
                ..CHAT
            },
        ],
    },
    Group {
        title: "What the error says decides where the request goes",
        rows: &[
            Row {
                wrong: "the prompt is too long for openai",
                headers: &[
                    CHOICES,
                    ("x-mock-openai", "400,code=context_length_exceeded"),
                ],
                tried: "openai;400 context_length, local;200",
                answer: (200, "local"),
                models: Some("openai gpt-4o-2024-11-20, local llama-long"),
                ..CHAT
            },
            Row {
                wrong: "openai refuses the content: others would, too",
                headers: &[CHOICES, ("x-mock-openai", "400,code=content_filter")],
                tried: "openai;400 content_policy",
                answer: (400, "openai"),
                ..CHAT
            },
            Row {
                wrong: "openai: 503, but only once",
                headers: &[CHOICES, ("x-mock-openai", "503,times=1")],
                tried: "openai;503, openai;200",
                ..CHAT
            },
        ],
    },
    Group {
        title: "Whole answers: a stream may be held to its end, so that it can fall back half way",
        rows: &[Row {
            wrong: "openai breaks off half way, twice",
            headers: &[
                CHOICES,
                ("x-ai-fallback-deliver", "complete"),
                ("x-mock-openai", "gap=20,cut=2"),
            ],
            tried: "openai;reset, openai;reset, qwen;200",
            live: Some(false),
            ..STREAM
        }],
    },
    Group {
        title: "Other APIs",
        rows: &[
            Row {
                api: Api::Messages,
                model: "claude",
                wrong: "anthropic is overloaded: 529",
                headers: &[("x-mock-anthropic", "529")],
                tried: "anthropic;529, bedrock;200",
                answer: (200, "bedrock"),
                ..CHAT
            },
            Row {
                api: Api::Embeddings,
                model: "embed-3",
                wrong: "openai: 500",
                headers: &[("x-mock-openai", "500")],
                tried: "openai;500, local;200",
                answer: (200, "local"),
                ..CHAT
            },
        ],
    },
    Group {
        title: "The gateway's own rate limit refuses the request before any service has seen it",
        rows: &[
            Row {
                wrong: "rate limit, with only_backend_errors: false",
                headers: &[("x-tenant", "noisy")],
                tried: "openai;intercepted, qwen;200",
                ..FALLBACK
            },
            Row {
                wrong: "rate limit, with only_backend_errors: true",
                headers: &[("x-tenant", "noisy"), ("x-strict", "yes")],
                tried: "openai;intercepted",
                answer: (429, "gateway"),
                ..CHAT
            },
        ],
    },
    Group {
        title: "Where no service can help, the client is told so in the shape of its API",
        rows: &[
            Row {
                wrong: "all fail: the last answer is passed on as it came",
                headers: &[
                    ("x-mock-openai", "503"),
                    ("x-mock-qwen", "hang"),
                    ("x-mock-local", "429"),
                ],
                tried: "openai;503, qwen;request_timeout, local;429",
                answer: (429, "local"),
                says: Some("local failed on purpose"),
                ..CHAT
            },
            Row {
                wrong: "all fail, and the last one gave no answer",
                headers: &[("x-mock", "reset")],
                tried: "openai;reset, qwen;reset, local;reset",
                answer: (502, "gateway"),
                says: Some(r#""type":"server_error""#),
                ..CHAT
            },
            Row {
                api: Api::Messages,
                model: "claude",
                wrong: "the client's JSON ends too early",
                body: Some(r#"{"model": "claude", "messages": ["#),
                tried: "",
                answer: (400, "gateway"),
                says: Some(r#""type":"error""#),
                ..CHAT
            },
        ],
    },
    // The last: it lasts.
    Group {
        title: "A service that asks to be left alone is left alone, by all requests",
        rows: &[
            Row {
                api: Api::Messages,
                model: "claude",
                wrong: "anthropic: 429, Retry-After: 30",
                headers: &[("x-mock-anthropic", "429,retry-after=30")],
                tried: "anthropic;429, bedrock;200",
                answer: (200, "bedrock"),
                ..CHAT
            },
            Row {
                api: Api::Messages,
                model: "claude",
                wrong: "nothing, a moment later",
                tried: "anthropic;cooling, bedrock;200",
                answer: (200, "bedrock"),
                ..CHAT
            },
        ],
    },
];
