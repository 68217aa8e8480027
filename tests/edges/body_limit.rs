//! Bodies that the filter does not read: too large, compressed, not JSON. They reach the primary to the byte and
//! without fallback, and are counted.

use crate::client::{Answer, Connection, Request, chunk};
use crate::mock::Mock;
use crate::stack::{Mode, Stack, clusters, gateway, new_id};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::sync::OnceLock;

in_each_mode!(
    a_body_up_to_the_limit_is_read,
    a_body_over_the_limit_passes_unread,
    a_compressed_body_passes_unread,
    a_body_that_is_not_json_passes_unread,
    a_body_in_chunks_may_be_larger_than_any_buffer,
);

const LIMIT: usize = 2_000;

/// Each counter of it is read by one test only.
fn stack(mode: Mode) -> Stack {
    static STACKS: [OnceLock<Stack>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = &STACKS[mode as usize];
    let start = || {
        Stack::start(mode, |plugin| {
            plugin["max_body_bytes"] = LIMIT.into();
            // What was read is renamed; so what still has its name was not.
            plugin["model_apis"][0]["primary"]["model"] = "renamed".into();
        })
    };
    slot.get_or_init(start).clone()
}

async fn a_body_up_to_the_limit_is_read(mode: Mode) {
    let stack = stack(mode);
    for size in [LIMIT - 1, LIMIT] {
        let body = body_of(size);
        for chunked in [false, true] {
            let id = new_id("read");
            let request = Request::chat(&id).header("x-mock-primary", "503");
            let answer = stack.ask(framed(request, &body, chunked)).await;
            assert_eq!(answer.status, 200, "{size}: {answer:?}");
            assert_eq!(answer.attempts(), "primary;503, backup;200");
            let primary = &stack.primary.requests_with(&id)[0];
            assert_eq!(primary.model().as_deref(), Some("renamed"));
            let backup = &stack.backup.requests_with(&id)[0];
            assert_eq!(
                backup.body, body,
                "a fallback starts from what the client sent"
            );
        }
    }
    stack.assert_unharmed_but_renamed().await;
}

async fn a_body_over_the_limit_passes_unread(mode: Mode) {
    let stack = stack(mode);
    for (number, size) in [LIMIT + 1, 10 * LIMIT, 500 * LIMIT].into_iter().enumerate() {
        for (half, chunked) in [false, true].into_iter().enumerate() {
            let request = |id: &str| Request::chat(id);
            let body = body_of(size);
            unread(
                &stack,
                "too_large",
                |id| framed(request(id), &body, chunked),
                &body,
            )
            .await;
            let count = stack.count("requests reason=too_large");
            // Each goes through twice: once to a primary that is well, once to one that is not.
            assert_eq!(count as usize, 2 * (2 * number + half + 1), "{size}");
        }
    }
    stack.assert_unharmed_but_renamed().await;
}

async fn a_compressed_body_passes_unread(mode: Mode) {
    let stack = stack(mode);
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&body_of(LIMIT / 2)).unwrap();
    let body = packer.finish().unwrap();
    let encodings = ["gzip", "br", "GZIP", "identity, gzip"];
    for (number, encoding) in encodings.into_iter().enumerate() {
        let request = |id: &str| Request::chat(id).header("content-encoding", encoding);
        unread(&stack, "compressed", |id| request(id).body(&body), &body).await;
        assert_eq!(
            stack.count("requests reason=compressed") as usize,
            2 * (number + 1),
            "{encoding}"
        );
    }
    stack.assert_unharmed_but_renamed().await;
}

async fn a_body_that_is_not_json_passes_unread(mode: Mode) {
    let stack = stack(mode);
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
    let bodies = [
        ("multipart/form-data; boundary=b", form.as_bytes()),
        ("application/x-www-form-urlencoded", b"model=m"),
        ("text/plain", br#"{"model":"m"}"#),
        ("application/octet-stream", b"\0\xff"),
        ("application/json-seq", b"\x1e{}"),
        ("", b"{}"),
        ("\u{fffd}", b"{}"),
    ];
    for (number, (content_type, body)) in bodies.into_iter().enumerate() {
        let request = |id: &str| {
            Request::new("POST", "/v1/images/generations")
                .header("content-type", content_type)
                .header("x-test-id", id)
        };
        unread(&stack, "not_json", |id| request(id).body(body), body).await;
        let count = stack.count("requests reason=not_json") as usize;
        assert_eq!(count, 2 * (number + 1), "{content_type}");
    }
    stack.assert_unharmed_but_renamed().await;
}

async fn a_body_in_chunks_may_be_larger_than_any_buffer(mode: Mode) {
    let (primary, backup) = (Mock::start("primary"), Mock::start("backup"));
    // Envoy answers 413 where it would have to hold more than this, before the filter can let go.
    let gateway = gateway(mode, clusters(&primary, &backup), |_| {}).buffer_limit(2 << 20);
    let stack = Stack::of(&gateway, primary, backup);
    let id = new_id("chunks");
    let body = body_of(5 << 20);
    let (over_the_limit, rest) = (&body[..1_100_000], &body[1_100_000..]);
    let mut client = Connection::open(stack.addr()).await;
    let head = Request::chat(&id)
        .header("transfer-encoding", "chunked")
        .head();
    client.send(head).await;
    client.send(chunk(over_the_limit)).await;
    let arrived = stack.primary.wait_for_id(&id, |all| {
        all.iter().any(|request| request.body == over_the_limit)
    });
    arrived.await;
    client.send(chunk(rest)).await;
    client.send("0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.attempts(), "primary;200;too_large");
    assert!(stack.primary.requests_with(&id)[0].body == body);
    assert_eq!(stack.count("requests reason=too_large"), 1);
    stack.assert_unharmed().await;
}

/// The request reaches the primary to the byte, and its answer is the client's, also where it is an error.
async fn unread(stack: &Stack, why: &str, request: impl Fn(&str) -> Vec<u8>, body: &[u8]) {
    for (fault, status) in [("", 200), ("503", 503)] {
        let id = new_id("unread");
        let request = with_header(&request(&id), &format!("x-mock-primary: {fault}"));
        let answer = stack.ask(request).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.attempts(), format!("primary;{status};{why}"));
        let seen = stack.primary.requests_with(&id);
        assert_eq!(seen.len(), 1);
        assert!(seen[0].body == body, "{} bytes arrived", seen[0].body.len());
        assert!(stack.backup.requests_with(&id).is_empty());
    }
}

/// The filter adds nothing to an answer that it has nothing to do with.
pub fn assert_untouched(answer: &Answer) {
    let own = |(name, _): &&(String, Vec<u8>)| name.starts_with("x-ai-fallback");
    assert_eq!(answer.headers.iter().find(own), None);
}

fn with_header(request: &[u8], line: &str) -> Vec<u8> {
    let at = request.windows(2).position(|two| two == b"\r\n").unwrap();
    let (first_line, rest) = (&request[..at], &request[at..]);
    [first_line, b"\r\n", line.as_bytes(), rest].concat()
}

fn framed(request: Request, body: &[u8], chunked: bool) -> Vec<u8> {
    match chunked {
        true => request.chunked(&body.chunks(700).collect::<Vec<_>>(), ""),
        false => request.body(body),
    }
}

/// A JSON object of exactly this many bytes.
fn body_of(size: usize) -> Vec<u8> {
    let rest = r#"{"model":"m","a":""}"#.len();
    format!(r#"{{"model":"m","a":"{}"}}"#, "x".repeat(size - rest)).into_bytes()
}

impl Stack {
    /// [`Stack::assert_unharmed`] for the gateway of this module.
    async fn assert_unharmed_but_renamed(&self) {
        self.on_both_workers(|_| async {
            let answer = self
                .ask(Request::chat("fine").body(r#"{"model":"m"}"#))
                .await;
            assert_eq!(answer.model().as_deref(), Some("renamed"));
        })
        .await;
        self.assert_no_failure();
    }
}
