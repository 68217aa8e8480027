//! Header values are bytes: `\xff` must not take down the worker.

use serde_json::json;

use crate::gateway::*;

const ODD: &[u8] = b"\xff\xfe\x80";

fn with_odd<'a>(headers: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a [u8])> {
    let odd = [("x-odd", ODD), ("cookie", ODD)];
    headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .chain(odd)
        .collect()
}

#[test]
fn in_a_request() {
    let mut config = config();
    config["model_apis"][0]["match"] = json!({"headers": {"x-tenant": "acme"}});
    config["model_apis"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "rest"}));
    let mut gateway = Gateway::start(&config);
    let plain = headers(BODY);
    for name in [
        ":path",
        ":method",
        "content-type",
        "content-length",
        "content-encoding",
        "x-tenant",
    ] {
        let mut sent = with_odd(&plain);
        sent.retain(|(own, _)| *own != name);
        sent.push((name, ODD));
        let mut stream = gateway.stream();
        stream.request(&sent, BODY);
        stream.service_answers("200", b"{}");
        assert!(stream.answered().ended, "{name}");
    }
    gateway.expect_idle();
}

#[test]
fn on_the_way_to_the_primary_and_to_a_callout() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    stream.request(&with_odd(&headers(BODY)), BODY);
    assert_eq!(stream.upstream_request_headers().first("x-odd"), Some(ODD));
    stream.service_answers("503", b"no");
    assert_eq!(
        gateway.callout().headers.first("x-odd"),
        None,
        "the SDK has no way to send it"
    );
    gateway.called_service_answers("200", b"{}");
    assert_eq!(stream.answered().status, 200);
}

#[test]
fn an_authority_that_no_callout_can_carry_is_a_refusal() {
    let mut gateway = Gateway::start(&config());
    let plain = headers(BODY);
    let mut sent = with_odd(&plain)
        .into_iter()
        .map(|(n, v)| (n, v.to_vec()))
        .collect::<Vec<_>>();
    sent.iter_mut()
        .find(|(name, _)| *name == ":authority")
        .unwrap()
        .1 = ODD.to_vec();
    let mut stream = gateway.stream();
    stream.request(&sent, BODY);
    stream.service_answers("503", b"no");
    assert_eq!(stream.answered().status, 502);
    assert_eq!(
        trail(&stream.answered()),
        ["openai;503", "qwen;reset", "local;reset"]
    );
}

#[test]
fn in_trailers() {
    let mut gateway = Gateway::start(&config());
    let mut stream = gateway.stream();
    stream.request_headers(&headers(BODY), false);
    stream.request_body(BODY, false);
    stream.request_trailers(&[("x-odd", ODD)]);
    stream.service_says("503", false);
    stream.response_body(b"no", false);
    stream.response_trailers(&[("x-odd", ODD)]);
    let token = gateway.callout().token;
    gateway.answer(
        token,
        &[
            (":status", b"200".as_slice()),
            ("x-envoy-upstream-service-time", b"1"),
        ],
        b"{}",
        &[("x-odd", ODD)],
    );
    assert_eq!(stream.answered().text(), "{}");
}

#[test]
fn in_an_answer() {
    let mut gateway = Gateway::start(&config());
    for status in [b"200".as_slice(), b"503", ODD, b"", b"99999", b"-1"] {
        let mut stream = gateway.ask(BODY);
        stream.set_property(&["response", "code_details"], b"via_upstream\xff");
        stream.response(
            &[(":status", status), ("x-odd", ODD), ("content-length", ODD)],
            b"{}",
        );
        if stream.unanswered() {
            gateway.called_service_answers("200", b"{}");
        } else {
            assert_eq!(stream.answered().headers.first("x-odd"), Some(ODD));
        }
        assert!(stream.answered().ended);
    }
    gateway.expect_idle();
}

#[test]
fn in_the_answer_of_a_callout() {
    let mut gateway = Gateway::start(&config());
    for whole in [true, false] {
        let mut stream = gateway.ask(BODY);
        if whole {
            stream.service_answers("503", b"no");
        } else {
            stream.service_says("503", false);
        }
        let headers = [
            (":status", b"200".as_slice()),
            ("x-odd", ODD),
            ("x-even", b"2"),
            ("x-envoy-upstream-service-time", b"1"),
        ];
        let token = gateway.callout().token;
        gateway.answer(token, &headers, b"\xff\x00", &[]);
        gateway.wait_for_failed_answer();
        let answer = stream.answered();
        assert_eq!(answer.body, b"\xff\x00");
        assert_eq!(answer.header("x-even").as_deref(), Some("2"));
        assert_eq!(answer.headers.first("x-odd"), Some(ODD));
    }
    gateway.expect_idle();
}

#[test]
fn at_an_attempt() {
    let mut gateway = Gateway::start(&by_router(config()));
    let mut request = gateway.stream();
    request.request(&with_odd(&headers(BODY)), BODY);
    let mut first = gateway.attempted(&mut request, 1, "openai-cluster");
    first.response(&[(":status", b"503".as_slice()), ("x-odd", ODD)], b"\xff");
    first.finish();
    let second = gateway.attempted(&mut request, 2, "qwen-cluster");
    assert_eq!(second.upstream_request_headers().first("x-odd"), Some(ODD));
}
