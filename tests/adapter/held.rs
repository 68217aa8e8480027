//! Answers that are held until they are judged, in all the ways in which an answer can come.

use proxy_wasm::types::Action;
use serde_json::json;

use crate::gateway::*;

const EVENT: &[u8] = b"data: {\"choices\":[]}\n\n";
const ERROR: &[u8] = b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n";

#[test]
fn a_stream_is_held_until_its_first_event_and_then_flows() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(STREAM);
    assert_eq!(stream.service_says("200", false), Action::Pause);
    assert_eq!(stream.response_body(b": hi\n\n", false), Action::Pause);
    assert_eq!(stream.response_body(&EVENT[..9], false), Action::Pause);
    assert!(stream.unanswered());
    assert_eq!(stream.response_body(&EVENT[9..], false), Action::Continue);
    assert_eq!(stream.answered().body, [b": hi\n\n", EVENT].concat());
    assert_eq!(
        stream.response_body(ERROR, false),
        Action::Continue,
        "too late for a fallback"
    );
    assert_eq!(stream.response_body(b"", true), Action::Continue);
    assert_eq!(stream.answered().body, [b": hi\n\n", EVENT, ERROR].concat());
    assert!(gateway.callouts().is_empty());
    gateway.expect_idle();
}

#[test]
fn a_stream_that_begins_with_an_error_is_exchanged() {
    let mut gateway = Gateway::start(&config());
    for ends in [false, true] {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        assert_eq!(stream.response_body(ERROR, ends), Action::Pause);
        gateway.called_service_answers("200", EVENT);
        assert_eq!(stream.answered().body, EVENT);
        assert_eq!(
            trail(&stream.answered()),
            ["openai;stream_error", "qwen;200"]
        );
        assert_eq!(
            stream.replied(),
            !ends,
            "what is complete is exchanged in place"
        );
    }
    gateway.expect_idle();
}

#[test]
fn an_answer_of_headers_only_is_replaced_by_a_reply() {
    let mut gateway = Gateway::start(&config());
    for status in ["503", "200"] {
        let mut stream = gateway.ask(BODY);
        assert_eq!(stream.service_says(status, true), Action::Pause);
        gateway.called_service_answers("200", b"{}");
        assert_eq!(
            (stream.answered().status, stream.answered().text()),
            (200, "{}".into())
        );
        assert!(stream.replied(), "Envoy has no buffer that could be filled");
    }
    gateway.expect_idle();
}

#[test]
fn an_answer_of_headers_and_trailers_is_replaced_by_a_reply() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    assert_eq!(stream.service_says("200", false), Action::Pause);
    assert_eq!(stream.response_trailers(&[("x-sum", "0")]), Action::Pause);
    gateway.called_service_answers("200", b"{}");
    assert_eq!(stream.answered().text(), "{}");
    assert_eq!(trail(&stream.answered()), ["openai;empty", "qwen;200"]);
    gateway.expect_idle();
}

#[test]
fn an_answer_that_goes_on_is_replaced_by_a_reply() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    assert_eq!(stream.service_says("503", false), Action::Pause);
    assert_eq!(stream.response_body(b"not ", false), Action::Pause);
    gateway.called_service_answers("200", b"{}");
    assert_eq!(stream.answered().text(), "{}");
    assert!(stream.replied());
    gateway.expect_idle();
}

#[test]
fn the_trailers_of_a_failed_answer_do_not_reach_the_client() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    stream.service_says("503", false);
    stream.response_body(b"no", false);
    assert_eq!(
        stream.response_trailers(&[("x-sum", "of the failed answer")]),
        Action::Pause
    );
    gateway.called_service_answers("200", b"{}");
    let answer = stream.answered();
    assert_eq!((answer.text().as_str(), answer.ended), ("{}", true));
    assert!(
        answer
            .trailers
            .is_none_or(|trailers| !trailers.has("x-sum"))
    );
}

#[test]
fn trailers_after_a_good_answer_reach_the_client() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(BODY);
    stream.service_says("200", false);
    stream.response_body(b"{}", false);
    assert_eq!(
        stream.response_trailers(&[("x-sum", "1")]),
        Action::Continue
    );
    assert_eq!(
        stream.answered().trailers.unwrap().get("x-sum").as_deref(),
        Some("1")
    );
    gateway.expect_idle();
}

/// What has come of a first event is all there is, when trailers end the stream.
#[test]
fn a_first_event_may_be_ended_by_trailers() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    assert_eq!(stream.response_body(b"data: {}", false), Action::Pause);
    assert_eq!(
        stream.response_trailers(&[("x-sum", "1")]),
        Action::Continue
    );
    assert_eq!(stream.answered().text(), "data: {}");
    assert_eq!(trail(&stream.answered()), ["openai;200"]);
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    stream.response_body(&ERROR[..ERROR.len() - 2], false);
    assert_eq!(stream.response_trailers(&[("x-sum", "1")]), Action::Pause);
    gateway.called_service_answers("200", EVENT);
    assert_eq!(
        trail(&stream.answered()),
        ["openai;stream_error", "qwen;200"]
    );
}

/// More comments than are read at once, all in one chunk.
#[test]
fn comments_do_not_hide_what_comes_after_them() {
    let mut gateway = Gateway::start(&config_with(json!({"first_packet_timeout_ms": 300})));
    let long = b": keep-alive\n\n".repeat(4_000);
    for ends in [false, true] {
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        let body = [&long, EVENT].concat();
        assert_eq!(
            stream.response_body(&body, ends),
            Action::Continue,
            "ends: {ends}"
        );
        assert_eq!(trail(&stream.answered()), ["openai;200"]);
        let mut stream = gateway.ask(STREAM);
        stream.service_says("200", false);
        assert_eq!(
            stream.response_body(&[&long, ERROR].concat(), ends),
            Action::Pause
        );
        gateway.called_service_answers("200", EVENT);
        assert_eq!(
            trail(&stream.answered()),
            ["openai;stream_error", "qwen;200"]
        );
    }
}

#[test]
fn a_comment_longer_than_what_is_read_does_not_hold_a_stream() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.ask(STREAM);
    stream.service_says("200", false);
    let body = [b": ", vec![b'x'; 40_000].as_slice(), b"\n\n", EVENT].concat();
    assert_eq!(stream.response_body(&body, false), Action::Continue);
    assert_eq!(stream.answered().body, body);
}

#[test]
fn the_last_answer_is_given_whatever_it_is() {
    let mut config = config();
    config["model_apis"][0]["fallback"]["services"] =
        json!([{"service": "openai", "model": "gpt-4o-2024-11-20"}]);
    let mut gateway = Gateway::start(&config);
    for (event, label) in [(EVENT, "openai;200"), (ERROR, "openai;stream_error")] {
        let mut stream = gateway.ask(STREAM);
        assert_eq!(stream.service_says("200", false), Action::Pause);
        assert_eq!(stream.response_body(event, false), Action::Continue);
        assert_eq!(trail(&stream.answered()), [label]);
        stream.response_body(b"", true);
        assert_eq!(stream.answered().body, event);
    }
    gateway.expect_idle();
}

#[test]
fn a_service_s_own_headers_by_our_names_are_not_believed() {
    let mut gateway = Gateway::start(&config());
    let spoofed = [
        (":status", "200"),
        ("x-ai-fallback-service", "spoofed"),
        ("x-ai-fallback-attempts", "spoofed"),
        ("x-ai-fallback-retry", "503"),
        ("x-envoy-upstream-service-time", "1"),
    ];
    // In this mode nobody reads `x-ai-fallback-retry`, so that it is left in a routed answer.
    let mut routed = gateway.ask(BODY);
    routed.set_property(&["response", "code_details"], b"via_upstream");
    routed.response(&spoofed, b"{}");
    let mut called = gateway.ask(BODY);
    called.service_answers("503", b"no");
    let token = gateway.callout().token;
    gateway.answer(token, &spoofed, b"{}", &[]);
    for (answer, name) in [(routed.answered(), "openai"), (called.answered(), "qwen")] {
        assert_eq!(
            answer
                .headers
                .values("x-ai-fallback-service")
                .collect::<Vec<_>>(),
            [name.as_bytes()]
        );
        assert_eq!(answer.headers.values("x-ai-fallback-attempts").count(), 1);
        assert!(!trail(&answer).contains(&"spoofed".to_owned()));
    }
    assert_eq!(called.answered().header("x-ai-fallback-retry"), None);
}
