//! Requests on their way in: which are read, and what is changed.

use proxy_wasm::types::Action;
use serde_json::json;

use crate::emulator::Stream;
use crate::gateway::*;

#[test]
fn what_is_no_model_api_is_not_held() {
    let mut unnamed = config();
    unnamed["model_apis"][0]["primary"] = json!({"model": "m"});
    let named = config();
    for (config, method, path) in [
        (&named, "POST", "/v1/other"),
        (&named, "GET", "/v1/models"),
        (&named, "POST", ""),
        // The route alone knows where it goes.
        (&unnamed, "GET", CHAT),
        (&unnamed, "DELETE", CHAT),
    ] {
        let mut gateway = Gateway::start(config);
        let mut stream = gateway.stream();
        let headers = [(":method", method), (":path", path), (":authority", "g")];
        assert_eq!(
            stream.request_headers(&headers, false),
            Action::Continue,
            "{method} {path}"
        );
        assert_eq!(stream.request_body(BODY, true), Action::Continue);
        assert_eq!(stream.upstream_request_body(), BODY);
        assert_eq!(
            stream.response(&[(":status", "503")], b"no"),
            Action::Continue
        );
        assert!(trail(&stream.answered()).is_empty());
        assert_eq!(gateway.metric("requests"), 0);
    }
}

/// A key of the client reaches a named service by no other door.
#[test]
fn what_is_no_post_is_fitted_and_neither_held_nor_read() {
    for config in [config(), by_router(config())] {
        let is_routed = config["dispatch"] == "router";
        let mut gateway = Gateway::start(&config);
        for (method, upgrade) in [("GET", false), ("DELETE", false), ("POST", true)] {
            let mut stream = gateway.stream();
            let mut sent = headers(BODY);
            sent.retain(|(name, _)| *name != ":method");
            sent.push((":method", method.to_owned()));
            sent.push(("cookie", "the client's".to_owned()));
            sent.push(("x-ai-fallback-service", "spoofed".to_owned()));
            if upgrade {
                sent.push(("upgrade", "websocket".to_owned()));
            }
            assert_eq!(stream.request_headers(&sent, false), Action::Continue);
            assert_eq!(stream.request_body(b"not JSON", false), Action::Continue);
            assert_eq!(stream.request_body(b"", true), Action::Continue);
            let mut last = stream;
            if is_routed {
                last = gateway.attempted(&mut stream, 1, "openai-cluster");
            }
            let fitted = last.upstream_request_headers();
            for (name, value) in [
                (":authority", Some("api.openai.com")),
                ("authorization", Some("Bearer openai")),
                ("x-openai-only", Some("1")),
                ("x-keep", Some("1")),
                ("cookie", None),
                ("x-ai-fallback-service", None),
            ] {
                assert_eq!(fitted.get(name).as_deref(), value, "{method} {name}");
            }
            assert_eq!(last.upstream_request_body(), b"not JSON");
            if is_routed {
                last.service_answers("503", b"no");
                assert_eq!(up(&last, &mut stream), Action::Continue);
                last.finish();
            } else {
                assert_eq!(stream.service_answers("503", b"no"), Action::Continue);
            }
            let answer = stream.answered();
            assert_eq!((answer.status, answer.text()), (503, "no".into()));
            assert!(trail(&answer).is_empty());
            assert_eq!(service(&answer), None);
        }
        assert_eq!(gateway.metric("requests reason=other_method"), 3);
        assert_eq!(gateway.logged("event=missing_attempt_filter"), 0);
        gateway.expect_idle();
    }
}

#[test]
fn only_the_bytes_of_the_model_change() {
    let mut gateway = Gateway::start(&config());
    let body = b"{ \"a\" : 1e2,\t\"model\"\n:\"gpt-\\u0034o\" , \"x\":\"\\/\xc3\xa9\"}\n";
    for chunk in [1, 5, body.len()] {
        let mut stream = gateway.stream();
        let mut sent = headers(body);
        // One byte is missing until the end.
        sent.iter_mut()
            .filter(|(name, _)| *name == "content-length")
            .for_each(|(_, length)| *length = (body.len() + 1).to_string());
        assert_eq!(stream.request_headers(&sent, false), Action::Pause);
        for part in body.chunks(chunk) {
            assert_eq!(stream.request_body(part, false), Action::Pause);
        }
        assert!(!stream.request_released());
        assert_eq!(stream.request_body(b"\n", true), Action::Continue);
        let sent = stream.upstream_request_body();
        let expected =
            b"{ \"a\" : 1e2,\t\"model\"\n:\"gpt-4o-2024-11-20\" , \"x\":\"\\/\xc3\xa9\"}\n\n";
        assert_eq!(sent, expected, "{}", String::from_utf8_lossy(&sent));
        let length = stream.upstream_request_headers().get("content-length");
        assert_eq!(length, Some(sent.len().to_string()));
    }
}

#[test]
fn a_model_is_added_where_there_is_none() {
    let mut gateway = Gateway::start(&config());
    let sent = gateway.ask(b"{\"n\":1}").upstream_request_body();
    assert_eq!(sent, b"{\"model\":\"gpt-4o-2024-11-20\",\"n\":1}");
}

#[test]
fn headers_fit_the_primary() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    let mut sent = headers(BODY);
    sent.push(("x-ai-fallback-service", "spoofed".to_owned()));
    sent.push(("x-api-key", "the client's".to_owned()));
    stream.request(&sent, BODY);
    let sent = stream.upstream_request_headers();
    for (name, value) in [
        (":authority", Some("api.openai.com")),
        (":path", Some(CHAT)),
        ("authorization", Some("Bearer openai")),
        ("x-openai-only", Some("1")),
        ("x-keep", Some("1")),
        ("x-ai-fallback-service", None),
        ("x-api-key", None),
    ] {
        assert_eq!(sent.get(name).as_deref(), value, "{name}");
    }
}

#[test]
fn a_body_of_no_use_is_refused() {
    let mut gateway = Gateway::start(&config());
    for body in [
        b"[]".as_slice(),
        b"{",
        b"{\"model\":1}",
        b"\xff\xfe",
        b"{\"model\":\"a\",\"model\":\"b\"}",
    ] {
        let mut stream = gateway.stream();
        assert_eq!(stream.request(&headers(body), body), Action::Pause);
        let answer = stream.answered();
        assert_eq!((answer.status, answer.ended), (400, true));
        assert_eq!(
            answer.header("content-type").as_deref(),
            Some("application/json")
        );
        assert!(!stream.request_released());
    }
    let mut stream = gateway.stream();
    assert_eq!(stream.request(&headers(b""), b""), Action::Pause);
    assert_eq!(stream.answered().status, 400);
    assert_eq!(gateway.metric("requests result=refused"), 6);
    gateway.expect_idle();
}

#[test]
fn what_cannot_be_read_goes_to_its_primary_as_it_came() {
    let mut config = config();
    config["max_body_bytes"] = json!(30);
    let mut gateway = Gateway::start(&config);
    let big = [BODY, b"          "].concat();
    for (name, value, body, metric) in [
        ("content-type", "text/plain", BODY, "not_json"),
        ("content-encoding", "gzip", BODY, "compressed"),
        ("x-x", "1", &big, "too_large"),
    ] {
        let mut sent = headers(body);
        sent.retain(|(own, _)| *own != name);
        sent.push((name, value.to_owned()));
        let mut stream = gateway.stream();
        assert_eq!(stream.request(&sent, body), Action::Continue);
        assert_eq!(stream.upstream_request_body(), body);
        let authority = stream.upstream_request_headers().get(":authority");
        assert_eq!(
            authority.as_deref(),
            Some("api.openai.com"),
            "it is the primary's"
        );
        assert_eq!(stream.service_answers("503", b"no"), Action::Continue);
        assert_eq!(
            (stream.answered().status, stream.answered().text()),
            (503, "no".into())
        );
        assert_eq!(gateway.metric(&format!("requests reason={metric}")), 1);
    }
    assert!(gateway.callouts().is_empty());
    gateway.expect_idle();
}

#[test]
fn a_body_that_turns_out_too_large_is_let_go() {
    let mut config = config();
    config["max_body_bytes"] = json!(30);
    let mut gateway = Gateway::start(&config);
    let mut stream = gateway.stream();
    let mut sent = headers(BODY);
    sent.retain(|(name, _)| *name != "content-length");
    stream.request_headers(&sent, false);
    assert_eq!(stream.request_body(&[b' '; 30], false), Action::Pause);
    assert_eq!(stream.request_body(b" ", false), Action::Continue);
    assert_eq!(stream.request_body(BODY, true), Action::Continue);
    assert_eq!(stream.upstream_request_body(), [&[b' '; 31], BODY].concat());
    assert_eq!(gateway.metric("requests reason=too_large"), 1);
}

#[test]
fn request_trailers_end_the_body_and_reach_the_primary() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    let mut sent = headers(BODY);
    sent.retain(|(name, _)| *name != "content-length");
    stream.request_headers(&sent, false);
    assert_eq!(stream.request_body(BODY, false), Action::Pause);
    assert_eq!(stream.request_trailers(&[("x-sum", "1")]), Action::Continue);
    assert!(
        stream
            .upstream_request_body()
            .starts_with(b"{\"model\":\"gpt-4o-2024-11-20\"")
    );
    assert_eq!(
        stream
            .upstream_request_trailers()
            .unwrap()
            .get("x-sum")
            .as_deref(),
        Some("1")
    );
    stream.service_answers("503", b"no");
    // Envoy 1.40 sends no trailers with a callout, so none are kept for it.
    assert_eq!(gateway.callout().trailers.0, []);
    gateway.called_service_answers("200", b"{}");
    assert_eq!(stream.answered().status, 200);
}

#[test]
fn trailers_without_a_body_are_an_empty_body() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    stream.request_headers(&headers(b""), false);
    assert_eq!(stream.request_trailers(&[("x-sum", "1")]), Action::Pause);
    assert_eq!(stream.answered().status, 400);
}

#[test]
fn an_answer_that_comes_before_the_request_is_whole_is_not_touched() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    stream.request_headers(&headers(BODY), false);
    stream.request_body(b"{", false);
    assert_eq!(
        stream.envoy_answers("408", "request_timeout"),
        Action::Continue
    );
    assert_eq!((stream.answered().status, stream.gone()), (408, true));
    gateway.expect_idle();
}

#[test]
fn more_than_envoy_holds_is_answered_by_envoy() {
    let mut gateway = Gateway::start(&config());
    gateway.set_buffer_limit(10);
    let mut stream = gateway.stream();
    stream.request_headers(&headers(BODY), false);
    stream.request_body(&[b' '; 11], false);
    assert_eq!(stream.answered().status, 413);
    assert!(trail(&stream.answered()).is_empty());
    gateway.expect_idle();
}

/// Over HTTP/1.1 the filter holds the parts of a body itself: Envoy buffers nothing that could be too large for it.
#[test]
fn a_body_in_parts_is_put_together_again() {
    let mut gateway = Gateway::start(&config());
    let body = b"{\"model\":\"gpt-4o\",\"x\":\"0123456789\"}";
    for size in [1, 7, body.len()] {
        for ends in [true, false] {
            let mut stream = over_http1(&mut gateway, body);
            let mut parts: Vec<&[u8]> = body.chunks(size).collect();
            if ends {
                parts.push(b"");
            }
            let last = parts.pop().unwrap();
            for part in parts {
                assert_eq!(stream.request_body(part, false), Action::Pause);
            }
            assert_eq!(stream.request_body(last, true), Action::Continue);
            let sent = stream.upstream_request_body();
            let expected = b"{\"model\":\"gpt-4o-2024-11-20\",\"x\":\"0123456789\"}";
            assert_eq!(String::from_utf8(sent).unwrap().as_bytes(), expected);
            stream.service_answers("503", b"no");
            assert!(gateway.callout().body.ends_with(b"\"x\":\"0123456789\"}"));
            gateway.called_service_answers("200", b"{}");
        }
    }
    gateway.expect_idle();
}

#[test]
fn a_body_in_parts_that_turns_out_too_large_is_let_go() {
    let mut config = config();
    config["max_body_bytes"] = json!(20);
    let mut gateway = Gateway::start(&config);
    let mut stream = over_http1(&mut gateway, BODY);
    for part in [b"0123456789", b"abcdefghij"] {
        assert_eq!(stream.request_body(part, false), Action::Pause);
    }
    assert_eq!(stream.request_body(b"KLM", false), Action::Continue);
    assert_eq!(stream.request_body(b"NOP", true), Action::Continue);
    assert_eq!(
        stream.upstream_request_body(),
        b"0123456789abcdefghijKLMNOP"
    );
}

/// No part of the body is under way any more, in whose place it could be put back.
#[test]
fn a_request_with_trailers_that_no_header_announces_is_refused() {
    let mut gateway = Gateway::start(&config());
    let mut stream = over_http1(&mut gateway, BODY);
    assert_eq!(stream.request_body(BODY, false), Action::Pause);
    assert_eq!(stream.request_trailers(&[("x-sum", "1")]), Action::Pause);
    assert_eq!(stream.answered().status, 400);
    assert!(gateway.callouts().is_empty());
    let mut stream = gateway.stream();
    stream.set_property(&["request", "protocol"], b"HTTP/1.1");
    let mut sent = headers(BODY);
    sent.retain(|(name, _)| *name != "content-length");
    sent.push(("trailer", "x-sum".to_owned()));
    stream.request_headers(&sent, false);
    assert_eq!(stream.request_body(BODY, false), Action::Pause);
    assert_eq!(stream.request_trailers(&[("x-sum", "1")]), Action::Continue);
}

/// A chunked request.
fn over_http1(gateway: &mut Gateway, body: &[u8]) -> Stream {
    let mut stream = gateway.stream();
    stream.set_property(&["request", "protocol"], b"HTTP/1.1");
    let mut sent = headers(body);
    sent.retain(|(name, _)| *name != "content-length");
    assert_eq!(stream.request_headers(&sent, false), Action::Pause);
    stream
}
