//! The mock model services do what their README says: each fault over a real socket.

mod mock;

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use mock::{Ended, Mock, Received, Refused, Spec, TestCa};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

// --- good answers

#[tokio::test]
async fn every_api_says_who_answered() {
    let mock = Mock::start("alpha");
    for (path, text) in [
        (CHAT, "/choices/0/message/content"),
        ("/v1/completions", "/choices/0/text"),
        ("/v1/responses", "/output/0/content/0/text"),
        (MESSAGES, "/content/0/text"),
        ("/v1/rerank", "/results/0/document/text"),
        ("/v1/images/generations", "/data/0/revised_prompt"),
        ("/health", "/text"),
    ] {
        let answer = good(&mock, path, json!({"model": "m1"})).await;
        assert_eq!(answer["model"], "m1", "{path}");
        assert_eq!(
            answer.pointer(text),
            Some(&json!("Hello from alpha, m1")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn embeddings_and_ranks_have_one_result_per_input() {
    let mock = Mock::start("alpha");
    let list = json!({"model": "m", "input": ["a", "b"], "documents": ["a", "b", "c"]});
    let embeddings = good(&mock, "/v1/embeddings", list.clone()).await;
    assert_eq!(embeddings["data"].as_array().unwrap().len(), 2);
    let ranks = good(&mock, "/v1/rerank", list).await;
    assert_eq!(ranks["results"].as_array().unwrap().len(), 3);
    let packed = json!({"model": "m", "input": [1, 2], "encoding_format": "base64"});
    let packed = good(&mock, "/v1/embeddings", packed).await;
    assert_eq!(
        packed["data"],
        json!([{"object": "embedding", "index": 0, "embedding": "AACAPgAAAD8AAEA/"}])
    );
}

#[tokio::test]
async fn every_stream_carries_the_text_and_ends() {
    let mock = Mock::start("alpha");
    for (path, text, end) in [
        (CHAT, "/choices/0/delta/content", "data: [DONE]"),
        ("/v1/completions", "/choices/0/text", "data: [DONE]"),
        ("/v1/responses", "/delta", "event: response.completed"),
        (MESSAGES, "/delta/text", "event: message_stop"),
    ] {
        let answer = stream(&mock, path, "").send().await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "text/event-stream; charset=utf-8"
        );
        assert_eq!(answer.headers()["x-mock-service"], "alpha");
        let body = answer.text().await.unwrap();
        assert_eq!(text_of(&body, text), "Hello from alpha, m", "{path}");
        let last = body.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.starts_with(end), "{path}: {last}");
    }
}

#[tokio::test]
async fn a_body_that_strict_parsers_refuse_is_still_understood() {
    let mock = Mock::start("alpha");
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let body = format!(r#"{{"n": 1e400, "deep": {deep}, "model": "m2"}}"#);
    let answer = Client::new()
        .post(mock.url(CHAT))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["model"], "m2");
}

// --- where the spec comes from

#[tokio::test]
async fn the_own_header_counts_before_the_common_one_the_model_and_the_default() {
    let mock = Mock::start_with("alpha", "500");
    let ask = |model: &str| {
        Client::new()
            .post(mock.url(CHAT))
            .json(&json!({"model": model}))
    };
    let common = || ask("m!501").header("x-mock", "502");
    let own = || {
        common()
            .header("x-mock-alpha", "503")
            .header("x-mock-beta", "504")
    };
    for (request, status) in [
        (own(), 503),
        (common(), 502),
        (ask("m!501"), 501),
        (ask("m"), 500),
        (ask("m!"), 200),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_wrong_spec_is_answered_with_what_is_wrong() {
    let mock = Mock::start("alpha");
    let answer = whole(&mock, CHAT, "503,sleep=1").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("sleep=1"));
}

#[test]
fn the_grammar_refuses_what_it_does_not_know() {
    for wrong in [
        "x",
        "99",
        "600",
        "gap",
        "gap=x",
        "reset=1",
        "size=-1",
        "cut,stall",
        "chunks=",
        "=1",
    ] {
        assert!(wrong.parse::<Spec>().is_err(), "{wrong}");
    }
    let joined = "503; retry-after = 2,,gap=5".parse::<Spec>();
    assert_eq!(joined, "gap=5,503,retry-after=2".parse());
    assert_eq!("".parse(), Ok(Spec::default()));
}

#[tokio::test]
async fn a_fault_for_some_times_gives_way_to_the_next_that_is_there() {
    let mock = Mock::start_with("alpha", "times=4,504");
    let statuses = async |id: &str| {
        let mut all = Vec::new();
        for _ in 0..5 {
            let request = with_id(whole(&mock, CHAT, "times=3,502"), id);
            let answer = request.header("x-mock-alpha", "times=2,503");
            all.push(answer.send().await.unwrap().status().as_u16());
        }
        all
    };
    assert_eq!(statuses("a").await, [503, 503, 502, 504, 200]);
    // Each test has its own count.
    assert_eq!(statuses("b").await, [503, 503, 502, 504, 200]);
}

// --- statuses

#[tokio::test]
async fn an_error_status_has_the_body_of_its_api() {
    let mock = Mock::start("alpha");
    let openai = whole(&mock, CHAT, "429;retry-after=2")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (openai.status().as_u16(), &openai.headers()["retry-after"]),
        (429, &"2".parse().unwrap())
    );
    let error = openai.json::<Value>().await.unwrap();
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    let anthropic = stream(&mock, MESSAGES, "529").send().await.unwrap();
    assert_eq!(anthropic.status(), 529);
    let error = anthropic.json::<Value>().await.unwrap();
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&json!("error"), &json!("overloaded_error"))
    );
}

#[tokio::test]
async fn an_error_says_what_the_spec_says() {
    let mock = Mock::start("alpha");
    let spec = "400,code=c,type=t,message=a b";
    let answer = whole(&mock, CHAT, spec).send().await.unwrap();
    let told = json!({"error": {"message": "a b", "type": "t", "param": null, "code": "c"}});
    assert_eq!(answer.json::<Value>().await.unwrap(), told);

    let answer = whole(&mock, MESSAGES, spec).send().await.unwrap();
    let error = &answer.json::<Value>().await.unwrap()["error"];
    assert_eq!(*error, json!({"type": "t", "message": "a b"}));

    let event = "error-event,code=c,type=t,message=a b";
    for (path, expected) in [
        (
            CHAT,
            json!({"error": {"message": "a b", "type": "t", "param": null, "code": "c"}}),
        ),
        (
            MESSAGES,
            json!({"type": "error", "error": {"type": "t", "message": "a b"}}),
        ),
        (
            "/v1/responses",
            json!({"type": "error", "code": "c", "message": "a b", "param": null, "sequence_number": 0}),
        ),
    ] {
        let body = stream(&mock, path, event)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let data = body
            .lines()
            .find_map(|line| line.strip_prefix("data: "))
            .unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(data).unwrap(),
            expected,
            "{path}"
        );
    }

    let answer = whole(&mock, CHAT, "503,body=<b>no</b>")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "<b>no</b>");
}

#[tokio::test]
async fn a_service_says_when_to_come_back() {
    let mock = Mock::start("alpha");
    let answer = whole(&mock, CHAT, "503,retry-after-ms=250")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["retry-after-ms"], "250");
    let answer = whole(&mock, CHAT, "503,retry-after-date=0")
        .send()
        .await
        .unwrap();
    // hyper writes the date of the answer itself, and the second may have changed in between.
    let [asked, now] = ["retry-after", "date"].map(|name| answer.headers()[name].to_str().unwrap());
    assert_eq!((asked.len(), &asked[..16]), (29, &now[..16]));
    assert!(asked.ends_with(" GMT"), "{asked}");
}

#[tokio::test]
async fn an_error_body_can_stall_or_go_on_for_ever() {
    let mock = Mock::start("alpha");
    for spec in ["503,stall", "503,endless,gap=1", "503,stall=1"] {
        let answer = with_id(whole(&mock, CHAT, spec), spec)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 503);
        let mut body = answer.bytes_stream();
        let expected = r#"{"error":{"code":null,"#;
        read(&mut body, expected.len(), |text| text.starts_with(expected)).await;
        if spec.contains("endless") {
            read(&mut body, 500, |text| text.ends_with("   ")).await;
        }
        assert_eq!(mock.requests_with(spec)[0].ended, None, "{spec}");
        drop(body);
        mock.wait_for_id(spec, ended(Ended::ClientGone)).await;
    }
}

// --- broken connections

#[tokio::test]
async fn a_reset_is_a_tcp_reset_before_the_headers() {
    let mock = Mock::start("alpha");
    let (bytes, error) = raw(&mock, "reset").await;
    assert_eq!(
        (bytes.as_str(), error),
        ("", Some(std::io::ErrorKind::ConnectionReset))
    );
    assert_eq!(mock.requests()[0].ended, Some(Ended::Reset));
}

#[tokio::test]
async fn a_reset_can_come_after_headers_or_chunks() {
    let mock = Mock::start("alpha");
    for (spec, events) in [("reset-after=0", 0), ("reset-after=3", 3)] {
        let (bytes, error) = raw(&mock, spec).await;
        assert!(bytes.starts_with("HTTP/1.1 200"), "{bytes}");
        assert_eq!(bytes.matches("data: ").count(), events);
        assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
    }
    // A whole answer breaks in the middle of what its content-length promised.
    let answer = whole(&mock, CHAT, "reset-after=1").send().await.unwrap();
    assert!(answer.content_length().unwrap() > 0);
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn a_cut_body_is_an_orderly_close_without_the_end() {
    let mock = Mock::start("alpha");
    let (bytes, error) = raw(&mock, "cut=2").await;
    assert_eq!((bytes.matches("data: ").count(), error), (2, None));
    assert!(!bytes.ends_with("0\r\n\r\n"));
    assert_eq!(mock.requests()[0].ended, Some(Ended::Cut));
    let answer = whole(&mock, CHAT, "cut").send().await.unwrap();
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn on_http2_only_the_stream_is_reset() {
    let mock = Mock::start("alpha");
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let ask = |spec: &str, id: &str| {
        let request = client
            .post(mock.url(CHAT))
            .json(&json!({"model": "m", "stream": true}));
        request
            .header("x-mock", spec.to_owned())
            .header("x-test-id", id.to_owned())
            .send()
    };
    let waiting = tokio::spawn(ask("hold", "held"));
    mock.wait_for_id("held", |held| held.iter().any(|one| one.complete))
        .await;
    assert!(ask("reset", "reset").await.is_err());
    assert!(
        ask("reset-after=2", "later")
            .await
            .unwrap()
            .bytes()
            .await
            .is_err()
    );
    mock.open_gate("held");
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert!(
        mock.requests()
            .iter()
            .all(|one| one.version == hyper::Version::HTTP_2)
    );
}

#[tokio::test]
async fn a_reserved_port_refuses() {
    let refused = Refused::reserve();
    let error = TcpStream::connect(refused.addr()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_dropped_service_is_gone() {
    let mock = Mock::start("alpha");
    let (addr, log) = (mock.addr(), mock.url("/__requests"));
    assert!(reqwest::get(&log).await.is_ok());
    drop(mock);
    // The listener closes when its task has been aborted.
    let gone = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(mock::WAIT_LIMIT, gone).await.unwrap();
}

// --- silence and waits

#[tokio::test]
async fn a_hanging_service_waits_until_the_client_goes() {
    let mock = Mock::start("alpha");
    let asking = tokio::spawn(stream(&mock, CHAT, "hang").send());
    mock.wait_for(|all| all.iter().any(|one| one.complete))
        .await;
    assert_eq!(mock.open_exchanges(), 1);
    asking.abort();
    mock.wait_for(ended(Ended::ClientGone)).await;
    assert_eq!(mock.open_exchanges(), 0);
}

#[tokio::test]
async fn headers_can_be_followed_by_silence() {
    let mock = Mock::start("alpha");
    let answer = stream(&mock, CHAT, "silence").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = &mock.requests()[0];
    assert_eq!((seen.chunks_sent, seen.ended), (0, None));
    drop(answer);
    mock.wait_for(ended(Ended::ClientGone)).await;
}

#[tokio::test]
async fn headers_can_be_followed_by_comments() {
    let mock = Mock::start("alpha");
    let answer = stream(&mock, CHAT, "comments,gap=1").send().await.unwrap();
    let mut body = answer.bytes_stream();
    let three = ": keep-alive\n\n".repeat(3);
    read(&mut body, three.len(), |text| text.starts_with(&three)).await;
    assert_eq!(mock.requests()[0].chunks_sent, 0);

    let some = stream(&mock, CHAT, "comments=5,gap=1")
        .send()
        .await
        .unwrap();
    let body = some.text().await.unwrap();
    assert!(body.starts_with(&": keep-alive\n\n".repeat(5)));
    assert_eq!(body.matches("keep-alive").count(), 5);
    assert_eq!(
        text_of(&body, "/choices/0/delta/content"),
        "Hello from alpha, m"
    );
}

#[tokio::test]
async fn waits_are_kept() {
    let mock = Mock::start("alpha");
    // Lower bounds: no machine is too slow for them.
    for (spec, least) in [("delay=60", 60), ("first=60", 60), ("chunks=5,gap=10", 50)] {
        let answer = with_id(stream(&mock, CHAT, spec), spec)
            .send()
            .await
            .unwrap();
        answer.bytes().await.unwrap();
        let seen = &mock.requests_with(spec)[0];
        let took = seen.last_chunk_at.unwrap() - seen.at;
        assert!(took >= Duration::from_millis(least), "{spec}: {took:?}");
    }
}

#[tokio::test]
async fn a_gate_holds_the_rest_of_the_stream() {
    let mock = Mock::start("alpha");
    let answer = with_id(stream(&mock, CHAT, "gate=1"), "g")
        .send()
        .await
        .unwrap();
    let mut body = answer.bytes_stream();
    read(&mut body, 6, |text| text.starts_with("data: ")).await;
    assert_eq!(mock.requests_with("g")[0].chunks_sent, 1);
    mock.open_gate("other");
    assert_eq!(mock.requests_with("g")[0].ended, None);
    mock.open_gate("g");
    while let Some(data) = body.next().await {
        data.unwrap();
    }
    let seen = mock.wait_for_id("g", ended(Ended::Completed)).await;
    assert!(seen[0].first_chunk_at.unwrap() < seen[0].last_chunk_at.unwrap());
}

// --- bodies

#[tokio::test]
async fn an_error_event_can_be_first_or_later() {
    let mock = Mock::start("alpha");
    for (path, name) in [
        (CHAT, "data: {\"error\""),
        ("/v1/responses", "event: error"),
        (MESSAGES, "event: error"),
    ] {
        let first = stream(&mock, path, "error-event").send().await.unwrap();
        assert_eq!(first.status(), 200);
        let body = first.text().await.unwrap();
        assert!(body.starts_with(name), "{path}: {body}");
        assert_eq!(body.matches("\n\n").count(), 1, "{path}");

        let later = stream(&mock, path, "error-after=2").send().await.unwrap();
        let body = later.text().await.unwrap();
        let events: Vec<&str> = body.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 3, "{path}");
        assert!(
            events[2].starts_with(name) && !events[1].starts_with(name),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn a_good_status_can_have_no_body() {
    let mock = Mock::start("alpha");
    for (spec, length) in [("empty", Some(0)), ("end-after=0", None)] {
        let answer = stream(&mock, CHAT, spec).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.content_length()),
            (200, length)
        );
        assert_eq!(answer.bytes().await.unwrap(), "");
    }
    mock.wait_for(|all| all.iter().all(|one| one.ended == Some(Ended::Completed)))
        .await;
}

#[tokio::test]
async fn text_can_be_long_and_in_many_pieces() {
    let mock = Mock::start("alpha");
    let big = whole(&mock, CHAT, "size=3000000").send().await.unwrap();
    assert!(big.content_length().unwrap() >= 3_000_000);
    let answer = big.json::<Value>().await.unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text.len(), 3_000_000);

    let many = stream(&mock, MESSAGES, "chunks=40,size=999")
        .send()
        .await
        .unwrap();
    let body = many.text().await.unwrap();
    assert_eq!(body.matches("event: content_block_delta").count(), 40);
    assert_eq!(text_of(&body, "/delta/text").len(), 999);
}

#[tokio::test]
async fn trailers_follow_the_body() {
    let mock = Mock::start("alpha");
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let request = client.post(mock.url(CHAT)).json(&json!({"stream": true}));
    let answer = request.header("x-mock", "trailers").send().await.unwrap();
    let answer: hyper::http::Response<reqwest::Body> = answer.into();
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-mock-trailer"], "alpha");

    let (bytes, _) = raw(&mock, "trailers").await;
    assert!(
        bytes.ends_with("0\r\nx-mock-trailer: alpha\r\n\r\n"),
        "{bytes}"
    );
}

#[tokio::test]
async fn a_packed_body_unpacks_to_the_same() {
    let mock = Mock::start("alpha");
    for spec in ["", "comments=1,gap=1", "error-after=2"] {
        let plain = stream(&mock, CHAT, spec).send().await.unwrap();
        let packed = stream(&mock, CHAT, &format!("gzip,{spec}"))
            .send()
            .await
            .unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let mut unpacked = String::new();
        let bytes = packed.bytes().await.unwrap();
        GzDecoder::new(&bytes[..])
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, plain.text().await.unwrap(), "{spec}");
    }
}

// --- what is recorded

#[tokio::test]
async fn a_request_is_recorded_to_the_byte() {
    let mock = Mock::start("alpha");
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    let head = b"PUT /a%20b?q=%ff HTTP/1.1\r\nHost: h.example\r\nX-B: \xff\x80\r\nX-A: 1\r\nx-b: 2\r\nContent-Length: 3\r\n\r\n";
    socket.write_all(head).await.unwrap();
    socket.write_all(b"\x00\xfe\n").await.unwrap();
    let seen = mock.wait_for(ended(Ended::Completed)).await.remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("PUT", "/a%20b?q=%ff")
    );
    assert_eq!(seen.authority, "h.example");
    assert_eq!(seen.version, hyper::Version::HTTP_11);
    assert!(
        seen.headers
            .contains(&("x-b".to_owned(), b"\xff\x80".to_vec()))
    );
    assert!(seen.headers.contains(&("x-b".to_owned(), b"2".to_vec())));
    assert_eq!(
        (seen.header("x-a"), &seen.body[..]),
        (Some("1"), &b"\x00\xfe\n"[..])
    );

    let log = reqwest::get(mock.url("/__requests")).await.unwrap();
    let log = log.json::<Value>().await.unwrap();
    assert_eq!(
        (&log[0]["body"], &log[0]["body_encoding"]),
        (&json!("\u{0}\u{fe}\n"), &json!("latin-1"))
    );
    Client::new()
        .delete(mock.url("/__requests"))
        .send()
        .await
        .unwrap();
    assert_eq!(mock.requests().len(), 0);
}

#[tokio::test]
async fn a_body_is_recorded_as_it_arrives() {
    let mock = Mock::start("alpha");
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::unfold(receive, |mut receive| async {
        let data = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(data), receive))
    });
    let request = Client::new()
        .post(mock.url("/upload"))
        .body(reqwest::Body::wrap_stream(body));
    let asking = tokio::spawn(request.send());
    send.send("first".into()).await.unwrap();
    let seen = mock
        .wait_for(|all| all.iter().any(|one| one.body == "first"))
        .await;
    assert!(!seen[0].complete);
    send.send(" second".into()).await.unwrap();
    drop(send);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    let seen = &mock.requests()[0];
    assert_eq!(
        (&seen.body[..], seen.complete),
        (&b"first second"[..], true)
    );
}

#[tokio::test]
async fn tests_that_share_a_service_see_their_own_requests() {
    let mock = Mock::start("alpha");
    let ask = |id: &str| with_id(whole(&mock, CHAT, ""), id).send();
    let (a, b, c) = tokio::join!(ask("a"), ask("b"), ask("a"));
    assert!([a, b, c].into_iter().all(|answer| answer.is_ok()));
    assert_eq!(
        [
            mock.requests_with("a").len(),
            mock.requests_with("b").len(),
            mock.requests().len()
        ],
        [2, 1, 3]
    );
    assert_eq!(mock.requests_with("b")[0].model().as_deref(), Some("m"));
}

// --- TLS

#[tokio::test]
async fn tls_offers_both_http_versions_to_those_who_trust_the_ca() {
    let ca = TestCa::new();
    let mock = Mock::start_tls("alpha", ca.server(&["localhost"]));
    let url = format!("https://localhost:{}{CHAT}", mock.addr().port());
    let trusting = |ca: &TestCa| {
        let root = reqwest::Certificate::from_pem(ca.pem().as_bytes()).unwrap();
        Client::builder()
            .add_root_certificate(root)
            .resolve("localhost", mock.addr())
    };
    let h2 = trusting(&ca)
        .build()
        .unwrap()
        .post(&url)
        .send()
        .await
        .unwrap();
    assert_eq!(h2.version(), reqwest::Version::HTTP_2);
    let h1 = trusting(&ca)
        .http1_only()
        .build()
        .unwrap()
        .post(&url)
        .send()
        .await
        .unwrap();
    assert_eq!(h1.version(), reqwest::Version::HTTP_11);
    let other = trusting(&TestCa::new()).build().unwrap();
    assert!(other.post(&url).send().await.is_err());
}

// --- helpers

fn whole(mock: &Mock, path: &str, spec: &str) -> RequestBuilder {
    ask(mock, path, spec, json!({"model": "m"}))
}

fn stream(mock: &Mock, path: &str, spec: &str) -> RequestBuilder {
    ask(mock, path, spec, json!({"model": "m", "stream": true}))
}

fn ask(mock: &Mock, path: &str, spec: &str, body: Value) -> RequestBuilder {
    let request = Client::new().post(mock.url(path)).json(&body);
    request.header("x-mock", spec)
}

fn with_id(request: RequestBuilder, id: &str) -> RequestBuilder {
    request.header("x-test-id", id)
}

async fn good(mock: &Mock, path: &str, body: Value) -> Value {
    let answer: Response = ask(mock, path, "", body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-mock-service"], mock.name());
    answer.json().await.unwrap()
}

fn ended(how: Ended) -> impl Fn(&[Received]) -> bool {
    move |all| all.iter().any(|one| one.ended == Some(how))
}

/// Reads at least `length` bytes, however the network splits them, and checks them.
async fn read(
    body: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
    length: usize,
    good: impl Fn(&str) -> bool,
) {
    let mut text = String::new();
    while text.len() < length {
        let data = tokio::time::timeout(mock::WAIT_LIMIT, body.next()).await;
        let data = data.expect("more in time").expect("more").unwrap();
        text += std::str::from_utf8(&data).unwrap();
    }
    assert!(good(&text), "{text}");
}

/// The text that a stream's events carry at this place, joined.
fn text_of(body: &str, place: &str) -> String {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let text = |event: Value| event.pointer(place)?.as_str().map(str::to_owned);
    events.filter_map(text).collect()
}

/// The bytes of a streamed answer as they are on the wire, and the error that ended them, if any.
async fn raw(mock: &Mock, spec: &str) -> (String, Option<std::io::ErrorKind>) {
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    let body = r#"{"stream":true}"#;
    let length = body.len();
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\nx-mock: {spec}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(mock::WAIT_LIMIT, socket.read_to_end(&mut bytes))
        .await
        .unwrap();
    (
        String::from_utf8(bytes).unwrap(),
        end.err().map(|error| error.kind()),
    )
}
