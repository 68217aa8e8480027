//! The hot paths of the core: what is done for each request.

use std::hint::black_box;
use std::time::Duration;

use ai_fallback::core::admission::Head;
use ai_fallback::core::config::{Config, Node};
use ai_fallback::core::fallback::{Event, Exchange};
use ai_fallback::core::fit::{Forwarding, Header};
use ai_fallback::core::handoff::Handoff;
use ai_fallback::core::outcome::Origin;
use ai_fallback::core::plan::Plan;
use ai_fallback::core::request::RequestBody;
use ai_fallback::core::sse;
use ai_fallback::core::usage::UsageReader;
use serde_json::json;

use crate::prompt;

/// A case by its name, and what makes it ready to run, again and again.
pub type Case = (&'static str, fn() -> Box<dyn FnMut()>);

/// All of them.
pub const CASES: &[Case] = &[
    ("read_body_1kB", || read_body(1000)),
    ("read_body_100kB", || read_body(100_000)),
    ("read_body_1MB", || read_body(1_000_000)),
    ("match_among_1", || match_among(1)),
    ("match_among_5000", || match_among(5000)),
    ("no_match_among_5000", no_match),
    ("plan_and_fit", plan_and_fit),
    ("judge_answer", judge_answer),
    ("judge_failure", judge_failure),
    ("hand_over", hand_over),
    ("first_event", first_event),
    ("usage_of_stream_100kB", || usage(stream())),
    ("usage_of_answer_100kB", || usage(answer())),
    ("usage_of_embeddings_100kB", || usage(embeddings())),
];

const PATH: &[u8] = b"/v1/chat/completions";
const NOW: Duration = Duration::from_secs(1);
const EVENT: &[u8] = b": keep-alive\n\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n";

fn read_body(size: usize) -> Box<dyn FnMut()> {
    let body = prompt::chat("gpt-4o", true, size);
    Box::new(move || {
        let read = RequestBody::read(black_box(body.as_bytes())).expect("a good body");
        black_box(read.edit("qwen-plus"));
    })
}

fn match_among(count: usize) -> Box<dyn FnMut()> {
    let config = config(count);
    let model = format!("model-{}", count - 1);
    Box::new(move || {
        let candidates = config.candidates(black_box(PATH), no_header);
        let api = candidates.first_for(Some(black_box(&model)));
        black_box(api.expect("one that fits"));
    })
}

fn no_match() -> Box<dyn FnMut()> {
    let config = config(5000);
    Box::new(move || {
        assert!(
            config
                .candidates(black_box(b"/v1/files"), no_header)
                .is_empty()
        )
    })
}

fn plan_and_fit() -> Box<dyn FnMut()> {
    let config = config(1);
    let headers = headers();
    Box::new(move || {
        let plan = plan(&config);
        for (_, step) in plan.steps() {
            black_box(step.request_headers(&headers, 1000, Forwarding::default()));
        }
    })
}

fn judge_answer() -> Box<dyn FnMut()> {
    let plan = plan(&config(1));
    Box::new(move || {
        let mut exchange = Exchange::begin(NOW, plan.clone());
        exchange.step(NOW, &headers_with(200));
        let body = Event::Body {
            size: EVENT.len(),
            bytes: black_box(EVENT),
            end: false,
        };
        exchange.step(NOW, &body);
        assert!(exchange.is_over());
        black_box(exchange.trail().as_str());
    })
}

fn judge_failure() -> Box<dyn FnMut()> {
    let plan = plan(&config(1));
    Box::new(move || {
        let mut exchange = Exchange::begin(NOW, plan.clone());
        exchange.step(NOW, &headers_with(503));
        let answer = Event::Answer {
            origin: Origin::Service,
            status: 200,
            retry_after: None,
            body: black_box(b"{}"),
        };
        exchange.step(NOW, &answer);
        assert!(exchange.is_over());
        black_box(exchange.trail().as_str());
    })
}

fn hand_over() -> Box<dyn FnMut()> {
    let config = config(1);
    let handoff = Handoff {
        plan: plan(&config),
        deadline: None,
        judges: true,
        uncompressed: false,
        hops: None,
        tells_all: false,
    };
    Box::new(move || {
        let bytes = black_box(&handoff).encode();
        black_box(Handoff::decode(&config, &bytes).expect("the same again"));
    })
}

fn first_event() -> Box<dyn FnMut()> {
    Box::new(|| {
        black_box(sse::first_event(black_box(EVENT), false));
    })
}

/// Reads the token usage of an answer that comes in chunks of 4 kB.
fn usage(answer: String) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut reader = UsageReader::default();
        for chunk in black_box(answer.as_bytes()).chunks(4096) {
            reader.feed(chunk);
        }
        black_box(reader.usage().expect("some tokens"));
    })
}

const USAGE: &str = r#""usage":{"prompt_tokens":10,"completion_tokens":200,"total_tokens":210,"prompt_tokens_details":{"cached_tokens":0}}"#;

fn stream() -> String {
    let event = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" Hello"},"logprobs":null,"finish_reason":null}],"usage":null}"#;
    let events = format!("data: {event}\n\n").repeat(100_000 / event.len());
    format!("{events}data: {{\"choices\":[],{USAGE}}}\n\ndata: [DONE]\n\n")
}

fn answer() -> String {
    let text = r#"Some words, \"quoted\", of an answer that goes on and on.\n"#.repeat(1800);
    format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}],{USAGE}}}"#)
}

fn embeddings() -> String {
    let numbers = "-0.0123456789,".repeat(7000);
    format!(r#"{{"data":[{{"embedding":[{numbers}1]}}],{USAGE}}}"#)
}

/// A configuration with this many Model APIs, each for a model of its own, and as many services.
fn config(count: usize) -> Config {
    let service = |number: usize| {
        let authority = format!("{number}.example.com");
        (
            format!("service-{number}"),
            json!({"cluster": "fallback", "authority": authority}),
        )
    };
    let services: serde_json::Map<_, _> = (0..=count).map(service).collect();
    let apis: Vec<_> = (0..count)
        .map(|number| {
            json!({
                "name": format!("api-{number}"),
                "match": {"paths": ["/v1/chat/completions"], "models": [format!("model-{number}")]},
                "primary": {"service": format!("service-{count}")},
                "fallback": {"services": [{"service": format!("service-{number}"), "model": "qwen-plus"}]},
            })
        })
        .collect();
    let text = json!({"services": services, "model_apis": apis}).to_string();
    let node = Node::from_json(text.as_bytes()).expect("JSON");
    Config::parse(&node, &|_| None).expect("a good configuration")
}

fn plan(config: &Config) -> Plan {
    let body = br#"{"model":"model-0","stream":true}"#;
    let parsed = RequestBody::read(body).expect("a good body");
    let head = Head {
        config,
        candidates: &config.candidates(PATH, no_header),
        headers: &headers(),
    };
    let plan = head.plan(&parsed, body);
    plan.expect("nothing is refused").expect("one Model API")
}

fn headers() -> Vec<Header> {
    [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.example.com"),
        (":path", "/v1/chat/completions"),
        ("user-agent", "OpenAI/Python 1.99.0"),
        ("accept", "application/json"),
        ("authorization", "Bearer sk-0123456789abcdef0123456789"),
        ("content-type", "application/json"),
        ("content-length", "1000"),
        ("x-request-id", "2f7c1a52-97f3-4b5c-8a8e-0d4e2f6a9b1c"),
        ("x-forwarded-proto", "https"),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .into()
}

fn headers_with(status: u16) -> Event<'static> {
    Event::Headers {
        origin: Origin::Service,
        status,
        retry_after: None,
        end: false,
    }
}

fn no_header(_: &str) -> Option<Vec<u8>> {
    None
}
