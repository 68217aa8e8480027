//! Names, headers and paths with bytes that text should not have, and very long ones.

use crate::body_limit::assert_untouched;
use crate::client::{Request, ask};
use crate::mock::Mock;
use crate::stack::{Mode, Stack, chat, gateway, new_id};
use crate::support::{Cluster, Gateway};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

in_each_mode!(
    header_values_that_are_not_utf8_pass,
    answers_with_header_values_that_are_not_utf8_arrive,
    a_huge_header_reaches_every_service,
    a_head_over_envoys_limit_is_refused_by_envoy,
    any_model_name_reaches_every_service,
    a_path_is_what_it_is_without_the_filter,
);

const ODD: &[u8] = b"a\xff\xfe\x80 \xc3(b";

async fn header_values_that_are_not_utf8_pass(mode: Mode) {
    let stack = Stack::shared(mode);
    for fault in ["", "503", "reset"] {
        let id = new_id("odd-header");
        let request = Request::chat(&id)
            .header("x-odd", ODD)
            .header("authorization", ODD)
            .header("x-ai-fallback-odd", ODD)
            .header("x-mock-primary", fault);
        let answer = stack.ask(request.body(chat(&id))).await;
        assert_eq!((answer.status, answer.model()), (200, Some(id.clone())));
        let odd = |mock: &Mock| {
            let seen = mock.requests_with(&id).pop()?;
            let odd = seen.headers.into_iter().find(|(name, _)| name == "x-odd");
            odd.map(|(_, value)| value)
        };
        assert_eq!(odd(&stack.primary).as_deref(), Some(ODD));
        // The SDK's callouts carry text only, so there it is left out. Never is it changed.
        assert!(odd(&stack.backup).is_none_or(|value| value == ODD));
    }
    stack.assert_unharmed().await;
}

const GOOD: &[u8] =
    b"HTTP/1.1 200 OK\r\nx-odd: a\xff\xfe\x80 \xc3(b\r\ncontent-length: 2\r\n\r\n{}";
const BAD: &[u8] = b"HTTP/1.1 503 No\r\nx-odd: a\xff\xfe\x80 \xc3(b\r\ncontent-length: 2\r\n\r\n[]";
const BARE: &[u8] = b"HTTP/1.1 503 No\r\nx-odd: a\xff\xfe\x80 \xc3(b\r\ncontent-length: 0\r\n\r\n";

async fn answers_with_header_values_that_are_not_utf8_arrive(mode: Mode) {
    let good = serve(|_| GOOD.to_vec());
    let bad = serve(|_| BAD.to_vec());
    let bare = serve(|_| BARE.to_vec());
    let cases = [
        (good, bad, 200, "primary;200"),
        (bad, good, 200, "primary;503, backup;200"),
        (bare, good, 200, "primary;503, backup;200"),
        (bad, bad, 503, "primary;503, backup;503"),
    ];
    for (primary, backup, status, attempts) in cases {
        let stack = raw_stack(mode, primary, backup);
        stack
            .on_both_workers(|_| async {
                let answer = stack.ask(Request::chat("odd").body(chat("m"))).await;
                assert_eq!(answer.status, status);
                assert_eq!(answer.attempts(), attempts);
                assert_eq!(answer.body, if status == 200 { b"{}" } else { b"[]" });
                // The SDK's replies carry text only, so there it is left out. Never is it changed.
                assert!(answer.header("x-odd").is_none_or(|value| value == ODD));
                if attempts == "primary;200" {
                    assert_eq!(answer.header("x-odd"), Some(ODD));
                }
            })
            .await;
        stack.assert_no_failure();
    }
}

async fn a_huge_header_reaches_every_service(mode: Mode) {
    let stack = Stack::shared(mode);
    let id = new_id("huge-header");
    let huge = "h".repeat(50_000);
    let request = Request::chat(&id)
        .header("x-huge", &huge)
        .header("x-mock-primary", "503");
    let answer = stack.ask(request.body(chat(&id))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for mock in [&stack.primary, &stack.backup] {
        assert_eq!(
            mock.requests_with(&id)[0].header("x-huge"),
            Some(huge.as_str())
        );
    }
    stack.assert_unharmed().await;
}

async fn a_head_over_envoys_limit_is_refused_by_envoy(mode: Mode) {
    let stack = Stack::shared(mode);
    let long = "h".repeat(70_000);
    let many = (0..200).fold(Request::chat("many"), |request, n| {
        request.header(&format!("x-{n}"), "1")
    });
    let requests = [
        Request::chat("huge")
            .header("x-huge", &long)
            .body(chat("m")),
        Request::chat(&long).body(chat("m")),
        Request::json(format!("/v1/chat/completions?{long}"), "huge").body(chat("m")),
        many.body(chat("m")),
    ];
    for request in requests {
        assert_eq!(stack.ask(request).await.status, 431);
    }
    for name in ["x-nul", "x-\u{ff}"] {
        let request = Request::chat("bad").header(name, "a\0b");
        assert_eq!(stack.ask(request.body(chat("m"))).await.status, 400);
    }
    stack.assert_unharmed().await;
}

async fn any_model_name_reaches_every_service(mode: Mode) {
    let stack = Stack::start(mode, |plugin| {
        plugin["services"]["renamed"] = json!({"cluster": "backup"});
        plugin["services"]["backup"]["path"] = "/of/{model}{path}".into();
        let services =
            json!([{"service": "backup"}, {"service": "renamed", "model": "模型 \"ü\"\\"}]);
        plugin["model_apis"][0]["fallback"]["services"] = services;
    });
    let names = [
        ("", ""),
        (" ", "%20"),
        ("模型", "%E6%A8%A1%E5%9E%8B"),
        ("a/b:c?d#e", "a%2Fb%3Ac%3Fd%23e"),
        ("😀", "%F0%9F%98%80"),
        ("\"q\\\n\0\u{7f}", "%22q%5C%0A%00%7F"),
        ("../../etc", "..%2F..%2Fetc"),
    ];
    for (name, in_path) in names {
        let id = new_id("name");
        let request = Request::chat(&id).header("x-mock", "503");
        let answer = stack.ask(request.body(chat(name))).await;
        assert_eq!(answer.attempts(), "primary;503, backup;503, renamed;503");
        assert_eq!(
            stack.primary.requests_with(&id)[0].model().as_deref(),
            Some(name)
        );
        let [as_it_was, renamed] = &stack.backup.requests_with(&id)[..] else {
            panic!("two requests");
        };
        assert_eq!(as_it_was.model().as_deref(), Some(name));
        assert_eq!(as_it_was.path, format!("/of/{in_path}/v1/chat/completions"));
        assert_eq!(renamed.model().as_deref(), Some("模型 \"ü\"\\"));
    }
    stack.assert_unharmed().await;
    long_model_name(&stack).await;
}

/// Longer than a path may be, so it goes where no path holds it.
async fn long_model_name(stack: &Stack) {
    let id = new_id("name");
    let name = "ü".repeat(100_000);
    let request = Request::chat(&id).header("x-mock-primary", "503");
    let answer = stack.ask(request.body(chat(&name))).await;
    assert_eq!(answer.status, 200, "{}", answer.attempts());
    assert_eq!(answer.service(), Some("renamed"), "{}", answer.attempts());
    assert_eq!(stack.primary.requests_with(&id)[0].model(), Some(name));
    stack.assert_unharmed().await;
}

async fn a_path_is_what_it_is_without_the_filter(mode: Mode) {
    let (good, bad) = (
        serve(|request| echo(200, request)),
        serve(|request| echo(503, request)),
    );
    let plain = Gateway::new()
        .cluster(Cluster::new("primary", good))
        .start();
    let good_primary = raw_stack(mode, good, bad);
    let bad_primary = raw_stack(mode, bad, good);
    // Whether the filter acts on it. (Envoy refuses the last ones itself.)
    let paths: [(&[u8], bool); 12] = [
        (b"/v1/chat/completions?a=b&c=%00%ff%2F&&=", true),
        (b"/v1/chat/completions?", true),
        (b"/v1/chat/completions??a=?/../", true),
        (b"/v1/chat/completions?a=\"<>{}|\\^`", true),
        (b"//v1//chat/completions", true),
        (b"/v1/../v1/./chat/completions", true),
        (b"/%76%31/chat/completions", true),
        (b"http://other.test/v1/chat/completions", true),
        (b"/v1/chat/completions;a=b", false),
        (b"/v1/chat/completions#fragment", false),
        (b"/v1/chat/completions?\xc3\xa9=\xe6\xa8\xa1", false),
        (b"/v1/chat/completions?\xff\xfe", false),
    ];
    for (path, acted_on) in paths {
        let shown = String::from_utf8_lossy(path);
        let request = Request::json(path, "path").body(chat("m"));
        let expected = ask(plain.addr(), &request).await;
        let cases = [
            (&good_primary, "primary;200"),
            (&bad_primary, "primary;503, backup;200"),
        ];
        for (stack, attempts) in cases {
            let answer = stack.ask(&request).await;
            assert_eq!(answer.body, expected.body, "{shown}");
            if acted_on {
                assert_eq!(answer.attempts(), attempts, "{shown}");
                assert_eq!(answer.status, expected.status, "{shown}");
            } else {
                assert_untouched(&answer);
            }
            stack.assert_no_failure();
        }
    }
}

/// A gateway between services that are no mocks.
fn raw_stack(mode: Mode, primary: SocketAddr, backup: SocketAddr) -> Stack {
    let clusters = [
        Cluster::new("primary", primary),
        Cluster::new("backup", backup),
    ];
    let (no_primary, no_backup) = (Mock::start("primary"), Mock::start("backup"));
    Stack::of(&gateway(mode, clusters, |_| {}), no_primary, no_backup)
}

/// An answer whose body is the first line of the request.
fn echo(status: u16, request: &[u8]) -> Vec<u8> {
    let line = request
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} Echo\r\ncontent-length: {}\r\n\r\n",
        line.len()
    );
    [head.as_bytes(), line].concat()
}

/// A service that answers requests so, which must end with a brace. It lives as long as the process.
fn serve(answer: impl Fn(&[u8]) -> Vec<u8> + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream, answer));
        }
    });
    addr
}

fn answer_all(mut stream: TcpStream, answer: impl Fn(&[u8]) -> Vec<u8>) -> Option<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend(&buffer[..count]);
        if request.ends_with(b"}") {
            stream.write_all(&answer(&request)).ok()?;
            request.clear();
        }
    }
}
