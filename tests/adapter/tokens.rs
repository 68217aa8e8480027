//! The tokens of answers.

use proxy_wasm::types::Action;
use serde_json::{Value, json};

use crate::emulator::{Headers, Stream};
use crate::gateway::*;

const WHOLE: &[u8] = br#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":4}}}"#;
const EVENTS: [&[u8]; 4] = [
    b"data: {\"choices\":[{}],\"usage\":null}\n\n",
    b"data: {\"choices\":[],\"usage\":{\"prompt_to",
    b"kens\":12,\"completion_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    b"data: [DONE]\n\n",
];
const START: &[u8] =
    b"data: {\"message\":{\"usage\":{\"input_tokens\":8,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n";

fn with_tokens(mut config: Value) -> Value {
    config["telemetry"] = json!({"token_usage": true, "access_log": true});
    config["services"]["local"]["models"] = json!({"gpt-4o": "llama.3:8b/x", "a": "b"});
    config
}

impl Gateway {
    /// Prompt, completion and cached tokens.
    fn tokens(&self, service: &str, model: &str) -> [u64; 3] {
        ["prompt", "completion", "cached"].map(|kind| {
            self.counter(&format!(
                "ai_fallback.tokens.model_service={service}.token_type={kind}.model={model}"
            ))
        })
    }
}

/// The same in the access log; `None` where nothing stands there.
fn logged(stream: &Stream) -> [Option<u64>; 3] {
    ["prompt", "completion", "cached"].map(|kind| {
        let told = stream.filter_state(&format!("wasm.ai_fallback.{kind}_tokens"))?;
        Some(String::from_utf8(told).unwrap().parse().unwrap())
    })
}

const ALL: [Option<u64>; 3] = [Some(12), Some(30), Some(4)];
const OPENAI: (&str, &str) = ("openai", "gpt-4o-2024-11-20");

#[test]
fn a_whole_answer_and_a_stream_are_read_as_they_pass() {
    let mut gateway = Gateway::start(&with_tokens(config()));
    let mut stream = gateway.ask(BODY);
    stream.service_answers("200", WHOLE);
    assert_eq!(stream.answered().body, WHOLE);
    assert_eq!(gateway.tokens(OPENAI.0, OPENAI.1), [12, 30, 4]);
    assert_eq!(logged(&stream), ALL);

    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    for (number, event) in EVENTS.iter().enumerate() {
        let action = stream.response_body(event, number == 3);
        assert_eq!(action, Action::Continue);
    }
    assert_eq!(stream.answered().body, EVENTS.concat());
    assert_eq!(gateway.tokens(OPENAI.0, OPENAI.1), [24, 60, 8]);
    assert_eq!(logged(&stream), ALL);
}

#[test]
fn trailers_end_an_answer_too() {
    let mut gateway = Gateway::start(&with_tokens(config()));
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    for event in EVENTS {
        stream.response_body(event, false);
    }
    assert_eq!(logged(&stream), [None; 3], "not at its end");
    stream.response_trailers(&[("x", "1")]);
    assert_eq!(logged(&stream), ALL);

    // Half an event is held until the trailers come.
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    let half = START.strip_suffix(b"\n\n").unwrap();
    assert_eq!(stream.response_body(half, false), Action::Pause);
    stream.response_trailers(&[("x", "1")]);
    assert_eq!(logged(&stream), [Some(12), Some(1), Some(4)]);
}

#[test]
fn the_answer_of_a_callout_counts_for_the_service_that_gave_it() {
    let mut gateway = Gateway::start(&with_tokens(config()));
    let mut stream = gateway.ask(BODY);
    stream.service_answers("503", WHOLE);
    gateway.called_service_answers("200", WHOLE);
    assert_eq!(stream.answered().body, WHOLE);
    assert_eq!(gateway.tokens("qwen", "qwen-plus"), [12, 30, 4]);
    assert_eq!(
        gateway.tokens(OPENAI.0, OPENAI.1),
        [0; 3],
        "an error takes none"
    );
    assert_eq!(logged(&stream), ALL);

    let mut stream = gateway.ask(BODY);
    stream.service_answers("503", b"no");
    gateway.called_service_answers("503", b"no");
    gateway.called_service_answers("200", WHOLE);
    assert!(!stream.unanswered());
    assert_eq!(gateway.tokens("local", "gpt-4o"), [12, 30, 4], "its key");
    stream.finish();
    gateway.expect_idle();
}

#[test]
fn with_the_router_the_answer_counts_for_the_service_that_gave_it() {
    let mut gateway = Gateway::start(&by_router(with_tokens(config())));
    let mut request = gateway.ask(STREAM);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.service_answers("503", b"no");
    first.finish();
    let mut second = gateway.attempted(&mut request, 2, "qwen-cluster");
    second.service_says("200", false);
    second.response_body(EVENTS[0], false);
    up(&second, &mut request);
    for event in &EVENTS[1..] {
        assert_eq!(request.response_body(event, false), Action::Continue);
    }
    assert_eq!(gateway.tokens("qwen", "qwen-plus"), [0; 3], "not yet");
    request.response_body(b"", true);
    assert_eq!(gateway.tokens("qwen", "qwen-plus"), [12, 30, 4]);
    assert_eq!(logged(&request), ALL);
    second.finish();
    request.finish();
    gateway.expect_idle();
}

#[test]
fn an_answer_that_breaks_off_counts_for_what_it_said() {
    let mut gateway = Gateway::start(&with_tokens(config()));
    for told in [true, false] {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        stream.response_body(if told { START } else { EVENTS[0] }, false);
        assert_eq!(logged(&stream), [None; 3]);
        stream.disconnect();
        let expected = told.then_some([12, 1, 4]);
        assert_eq!(logged(&stream), expected.map_or([None; 3], |e| e.map(Some)));
        assert_eq!(gateway.tokens(OPENAI.0, OPENAI.1), [12, 1, 4]);
    }
    gateway.expect_idle();
}

#[test]
fn errors_and_other_answers_have_no_tokens() {
    let mut plain = with_tokens(config());
    plain["model_apis"][0]
        .as_object_mut()
        .unwrap()
        .remove("fallback");
    let mut gateway = Gateway::start(&plain);
    for (status, body, counts) in [
        ("400", WHOLE, false),
        ("200", &b"{\"usage\":null}"[..], false),
        ("200", b"\x1f\x8b{\"usage\":{\"prompt_tokens\":1}}", false),
        ("200", WHOLE, true),
    ] {
        let mut stream = gateway.ask(BODY);
        stream.service_answers(status, body);
        assert_eq!(logged(&stream)[0].is_some(), counts, "{status}");
    }
    assert_eq!(gateway.tokens(OPENAI.0, OPENAI.1), [12, 30, 4]);
}

#[test]
fn a_model_that_is_not_configured_is_not_named() {
    let mut config = with_tokens(config());
    config["model_apis"][0]["primary"] = json!({"service": "local"});
    let mut gateway = Gateway::start(&config);
    for (model, expected) in [
        ("gpt-4o", "gpt-4o"),
        ("a", "a"),
        ("b", "pass-through"),
        ("qwen-plus", "pass-through"),
        ("anything.else=1", "pass-through"),
    ] {
        let before = gateway.tokens("local", expected);
        let body = json!({"model": model}).to_string();
        let mut stream = gateway.ask(body.as_bytes());
        stream.service_answers("200", WHOLE);
        let after = gateway.tokens("local", expected);
        assert_eq!(after[0] - before[0], 12, "{model}");
    }
}

#[test]
fn an_unread_request_counts_for_its_primary() {
    let mut config = with_tokens(config());
    config["max_body_bytes"] = json!(4);
    let mut gateway = Gateway::start(&config);
    let mut stream = gateway.stream();
    stream.request(&headers(BODY), BODY);
    stream.service_answers("200", WHOLE);
    stream.finish();
    assert_eq!(gateway.tokens("openai", "pass-through"), [12, 30, 4]);
    assert_eq!(logged(&stream), ALL);
}

/// The `accept-encoding` of what services are asked, the first and the second.
fn asked_encodings(config: &Value) -> [Option<String>; 2] {
    let mut gateway = Gateway::start(config);
    let mut headers = headers(BODY);
    headers.push(("accept-encoding", "gzip, br".to_owned()));
    let mut request = gateway.stream();
    request.request(&headers, BODY);
    let of = |headers: &Headers| headers.get("accept-encoding");
    if config["dispatch"] != "router" {
        let routed = of(&request.upstream_request_headers());
        request.service_answers("503", b"no");
        return [routed, of(&gateway.callout().headers)];
    }
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    let routed = of(&first.upstream_request_headers());
    first.service_answers("503", b"no");
    first.finish();
    let second = gateway.attempted(&mut request, 2, "qwen-cluster");
    [routed, of(&second.upstream_request_headers())]
}

#[test]
fn answers_come_uncompressed_where_they_are_read() {
    let of_client = || Some("gzip, br".to_owned());
    for change in [|config| config, by_router] {
        let read = with_tokens(change(config()));
        assert_eq!(asked_encodings(&read), [None, None]);
        let unread = change(config());
        assert_eq!(asked_encodings(&unread), [of_client(), of_client()]);
    }
}
