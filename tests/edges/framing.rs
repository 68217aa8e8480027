//! Requests framed in odd ways: a `content-length` that lies, no body at all, `Expect`, trailers.

use crate::body_limit::assert_untouched;
use crate::client::{Connection, Request};
use crate::mock::Ended;
use crate::stack::{Mode, Stack, chat, new_id};
use crate::support::eventually;

in_each_mode!(
    a_body_shorter_than_its_length_reaches_nobody,
    a_body_longer_than_its_length_is_cut_there,
    lengths_that_make_no_sense_are_refused_by_envoy,
    a_huge_length_with_a_small_body_passes_and_ends_with_the_client,
    no_body_and_no_content_type_pass_unread,
    a_client_that_expects_100_continue_gets_it,
    request_trailers_are_no_obstacle,
    a_credential_in_the_trailers_reaches_no_service,
    trailers_that_no_header_announces_are_refused,
);

async fn a_body_shorter_than_its_length_reaches_nobody(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("short");
    let gone = || {
        stack
            .envoy
            .counter("http.gateway.downstream_cx_destroy_remote_active_rq")
    };
    let before = gone();
    for body in ["", r#"{"model":"#, r#"{"model":"m"}"#] {
        let mut client = Connection::open(stack.addr()).await;
        client
            .send(Request::chat(&id).header("content-length", "100").head())
            .await;
        client.send(body).await;
    }
    eventually("the clients are gone", || gone() >= before + 3).await;
    stack.assert_unharmed().await;
    assert!(stack.primary.requests_with(&id).is_empty());
}

async fn a_body_longer_than_its_length_is_cut_there(mode: Mode) {
    let stack = Stack::shared(mode);
    for (length, status) in [("12", 400), ("13", 200)] {
        let id = new_id("long");
        let head = Request::chat(&id).header("content-length", length).head();
        let answer = stack
            .ask([&head, &br#"{"model":"m"}, and more"#[..]].concat())
            .await;
        assert_eq!(answer.status, status, "{length}");
        let seen = stack.primary.requests_with(&id);
        assert!(
            seen.iter()
                .all(|request| request.body == r#"{"model":"m"}"#)
        );
        assert_eq!(seen.len(), usize::from(status == 200));
    }
    stack.assert_unharmed().await;
}

async fn lengths_that_make_no_sense_are_refused_by_envoy(mode: Mode) {
    let stack = Stack::shared(mode);
    let lengths: [&[&str]; 6] = [
        &["content-length: -1"],
        &["content-length: ten"],
        &["content-length: 99999999999999999999999"],
        &["content-length: 12", "content-length: 13"],
        &["content-length: 12, 13"],
        &["content-length: 13", "transfer-encoding: chunked"],
    ];
    for lines in lengths {
        let id = new_id("senseless");
        let split = |line: &&'static str| line.split_once(": ").unwrap();
        let headers = lines.iter().map(split);
        let request = headers.fold(Request::chat(&id), |request, (name, value)| {
            request.header(name, value)
        });
        let answer = stack
            .ask([&request.head(), &br#"{"model":"m"}"#[..]].concat())
            .await;
        assert_eq!(answer.status, 400, "{lines:?}");
        assert_untouched(&answer);
        assert!(stack.primary.requests_with(&id).is_empty());
    }
    stack.assert_unharmed().await;
}

async fn a_huge_length_with_a_small_body_passes_and_ends_with_the_client(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("huge-length");
    let mut client = Connection::open(stack.addr()).await;
    client
        .send(
            Request::chat(&id)
                .header("content-length", "999999999999")
                .head(),
        )
        .await;
    client.send(r#"{"model":"m"}"#).await;
    let primary = &stack.primary;
    let arrived = |id| primary.wait_for_id(id, |all| all.iter().any(|one| one.body.len() == 13));
    arrived(&id).await;
    drop(client);
    let gone = Some(Ended::ClientGone);
    primary
        .wait_for_id(&id, |all| all.iter().any(|one| one.ended == gone))
        .await;
    stack.assert_unharmed().await;
}

async fn no_body_and_no_content_type_pass_unread(mode: Mode) {
    let stack = Stack::shared(mode);
    let request = |id: &str| {
        Request::new("POST", "/v1/chat/completions")
            .header("x-test-id", id)
            .header("x-mock-primary", "503")
    };
    let (without_length, with_length) = (new_id("nothing"), new_id("nothing"));
    let requests = [
        (&without_length, request(&without_length).head()),
        (&with_length, request(&with_length).body("")),
    ];
    for (id, bytes) in requests {
        let answer = stack.ask(bytes).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.attempts(), "primary;503;not_json");
        assert_eq!(stack.primary.requests_with(id)[0].body, "");
        assert!(stack.backup.requests_with(id).is_empty());
    }
    stack.assert_unharmed().await;
}

async fn a_client_that_expects_100_continue_gets_it(mode: Mode) {
    let stack = Stack::shared(mode);
    for (fault, attempts) in [("", "primary;200"), ("503", "primary;503, backup;200")] {
        let id = new_id("expect");
        let body = chat(&id);
        let length = body.len().to_string();
        let request = Request::chat(&id)
            .header("expect", "100-continue")
            .header("x-mock-primary", fault)
            .header("content-length", length);
        let mut client = Connection::open(stack.addr()).await;
        client.send(request.head()).await;
        client.read_past("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send(&body).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.model()), (200, Some(id.clone())));
        assert_eq!(answer.attempts(), attempts);
        for mock in [&stack.primary, &stack.backup] {
            let seen = mock.requests_with(&id);
            assert!(
                seen.iter()
                    .all(|request| request.header("expect").is_none())
            );
        }
    }
    stack.assert_unharmed().await;
}

async fn request_trailers_are_no_obstacle(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("trailers");
    let body = chat(&id);
    let (first, second) = (&body.as_bytes()[..20], &body.as_bytes()[20..]);
    let request = Request::chat(&id)
        .header("x-mock-primary", "503")
        .header("trailer", "x-end");
    let request = request.chunked(&[first, second], "x-end: all said\r\n");
    let answer = stack.ask(request).await;
    assert_eq!(answer.attempts(), "primary;503, backup;200");
    assert_eq!(answer.model(), Some(id.clone()));
    let [primary, backup] = [&stack.primary, &stack.backup].map(|mock| mock.requests_with(&id));
    assert_eq!(
        (&primary[0].body[..], &backup[0].body[..]),
        (body.as_bytes(), body.as_bytes())
    );
    let trailers = [("x-end".to_owned(), b"all said".to_vec())];
    assert_eq!(primary[0].trailers, trailers);
    // Envoy 1.40 sends no trailers with a callout.
    assert!(backup[0].trailers.is_empty() || backup[0].trailers == trailers);
    stack.assert_unharmed().await;
}

async fn a_credential_in_the_trailers_reaches_no_service(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("secret-trailers");
    let body = chat(&id);
    let request = Request::chat(&id)
        .header("x-mock-primary", "503")
        .header("trailer", "authorization, x-end");
    let trailers = "authorization: Bearer SECRET\r\nx-end: all said\r\n";
    let answer = stack
        .ask(request.chunked(&[body.as_bytes()], trailers))
        .await;
    assert_eq!(answer.attempts(), "primary;503, backup;200");
    for mock in [&stack.primary, &stack.backup] {
        let received = mock.requests_with(&id);
        assert!(!format!("{received:?}").contains("SECRET"), "{received:?}");
    }
    let trailers = &stack.primary.requests_with(&id)[0].trailers;
    assert_eq!(trailers[..], [("x-end".to_owned(), b"all said".to_vec())]);
}

/// The filter holds the body, which a callout could carry, but past all filters behind ours.
async fn trailers_that_no_header_announces_are_refused(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("unannounced");
    let body = chat(&id);
    let (first, second) = (&body.as_bytes()[..20], &body.as_bytes()[20..]);
    let request = Request::chat(&id).chunked(&[first, second], "x-end: all said\r\n");
    let answer = stack.ask(request).await;
    assert_eq!(answer.status, 400);
    assert!(stack.primary.requests_with(&id).is_empty());
    stack.assert_unharmed().await;
}
