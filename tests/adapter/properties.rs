//! Whatever comes, in whatever order: no violation, no panic, one answer, nothing left behind.

use std::time::Duration;

use ai_fallback::core::outcome::Outcome;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::emulator::Stream;
use crate::gateway::*;

const BODIES: &[&[u8]] = &[
    BODY,
    STREAM,
    b"{}",
    b"{\"stream\":true}",
    b"[]",
    b"",
    b"{\"model\":\"\xff\"}",
];
const ANSWERS: &[&[u8]] = &[
    b"",
    b"{}",
    b": hi\n\n",
    b"data: {}\n\n",
    b"data: {\"error\":1}\n\n",
    b"event: er",
    b"\xff\x00\xfe",
];
const STATUSES: &[&str] = &["200", "200", "204", "404", "429", "503", "x"];
const DETAILS: &[&str] = &[
    "via_upstream",
    "via_upstream",
    "local_rate_limited",
    "no_healthy_upstream",
    "upstream_response_timeout",
    "",
];

/// What the attempt filters left: how many attempts there were, how they ended, a header of the answer.
type Left = (u64, &'static [(Outcome, u64)], (&'static str, &'static str));
const LEFT: &[Left] = &[
    (0, &[], ("x-x", "1")),
    (1, &[], ("x-ai-fallback-retry", "503")),
    (1, &[(Outcome::Reset, 7)], ("x-x", "1")),
    (1, &[], ("x-ai-fallback-attempts", "openai;200;1ms")),
    (2, &[FAILED], ("x-ai-fallback-retry", "reset")),
    (
        2,
        &[FAILED],
        ("x-ai-fallback-attempts", "openai;503;7ms, qwen;200;1ms"),
    ),
    (
        3,
        &[FAILED, (Outcome::Reset, 9), (Outcome::RequestTimeout, 5)],
        ("x-x", "1"),
    ),
    (9, &[FAILED], ("x-ai-fallback-retry", "\u{e9}")),
];
const FAILED: (Outcome, u64) = (Outcome::Status(503), 7);

#[derive(Debug, Clone)]
enum Happening {
    /// The next piece of the request.
    Request,
    /// The next piece of the routed answer.
    Response,
    CalloutAnswers(&'static str, &'static [u8], bool),
    CalloutGivesNothing,
    Time(u64),
    UpstreamReset,
    Disconnect,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Request),
        6 => Just(Happening::Response),
        6 => (select(STATUSES), select(ANSWERS), any::<bool>()).prop_map(|(s, b, o)| Happening::CalloutAnswers(s, b, o)),
        1 => Just(Happening::CalloutGivesNothing),
        4 => select(vec![1, 50, 300, 1_000, 2_500]).prop_map(Happening::Time),
        1 => Just(Happening::UpstreamReset),
        1 => Just(Happening::Disconnect),
    ]
}

/// A message in pieces.
#[derive(Debug, Clone)]
struct Message {
    body: Vec<u8>,
    cut: usize,
    trailers: bool,
    bare_end: bool,
}

fn message(bodies: &'static [&'static [u8]]) -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        3 => vec(select(bodies), 1..4).prop_map(|parts| parts.concat()),
        3 => select(bodies).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..60),
    ];
    (body, 1..70_usize, any::<bool>(), any::<bool>()).prop_map(|(body, cut, trailers, bare_end)| {
        Message {
            body,
            cut,
            trailers,
            bare_end,
        }
    })
}

/// Pieces of a message that are left to send.
struct Pieces {
    headers: bool,
    chunks: Vec<Vec<u8>>,
    trailers: bool,
    done: bool,
}

impl Pieces {
    fn of(message: &Message) -> Self {
        let mut chunks: Vec<Vec<u8>> = message
            .body
            .chunks(message.cut)
            .map(<[u8]>::to_vec)
            .collect();
        if message.bare_end && !chunks.is_empty() {
            chunks.push(Vec::new());
        }
        chunks.reverse();
        Self {
            headers: true,
            chunks,
            trailers: message.trailers,
            done: false,
        }
    }

    fn next(
        &mut self,
        headers: impl FnOnce(bool),
        body: impl FnOnce(&[u8], bool),
        trailers: impl FnOnce(),
    ) {
        if self.done {
            return;
        }
        if std::mem::take(&mut self.headers) {
            self.done = self.chunks.is_empty() && !self.trailers;
            return headers(self.done);
        }
        if let Some(chunk) = self.chunks.pop() {
            self.done = self.chunks.is_empty() && !self.trailers;
            return body(&chunk, self.done);
        }
        self.done = true;
        trailers();
    }
}

struct Case {
    gateway: Gateway,
    stream: Stream,
    request: Pieces,
    response: Pieces,
    request_body: Vec<u8>,
    status: &'static str,
    details: &'static str,
    left: Left,
}

impl Case {
    fn happens(&mut self, happening: Happening) {
        self.act(happening);
        self.is_right();
    }

    fn act(&mut self, happening: Happening) {
        let over = self.stream.gone() || self.stream.replied();
        match happening {
            Happening::Time(millis) => self.gateway.advance(Duration::from_millis(millis)),
            Happening::CalloutAnswers(status, body, odd) => self.answer_callout(status, body, odd),
            Happening::CalloutGivesNothing => {
                if let Some(callout) = self.gateway.callouts().first() {
                    self.gateway.answer_nothing(callout.token);
                }
            }
            _ if over => {}
            Happening::Request => self.send_request(),
            Happening::Response if self.stream.request_complete() => self.send_response(),
            Happening::Response => {}
            Happening::UpstreamReset => self.stream.upstream_reset(),
            Happening::Disconnect => self.stream.disconnect(),
        }
    }

    fn answer_callout(&mut self, status: &str, body: &[u8], odd: bool) {
        let Some(callout) = self.gateway.callouts().first().cloned() else {
            return;
        };
        let mut headers = vec![
            (":status", status.as_bytes()),
            ("x-envoy-upstream-service-time", b"1"),
        ];
        if odd {
            headers = vec![(":status", status.as_bytes()), ("x-odd", b"\xff")];
        }
        self.gateway.answer(callout.token, &headers, body, &[]);
    }

    fn send_request(&mut self) {
        let (mut a, mut b, mut c) = (self.stream, self.stream, self.stream);
        let mut sent = headers(&self.request_body);
        sent.retain(|(name, _)| *name != "content-length");
        self.request.next(
            |end| {
                a.request_headers(&sent, end);
            },
            |chunk, end| {
                b.request_body(chunk, end);
            },
            || {
                c.request_trailers(&[("x-sum", b"\xff")]);
            },
        );
    }

    fn send_response(&mut self) {
        let (mut a, mut b, mut c) = (self.stream, self.stream, self.stream);
        a.set_property(&["response", "code_details"], self.details.as_bytes());
        let (name, value) = self.left.2;
        let sent = [
            (":status", self.status.as_bytes()),
            ("x-odd", b"\xff"),
            (name, value.as_bytes()),
        ];
        self.response.next(
            |end| {
                a.response_headers(&sent, end);
            },
            |chunk, end| {
                b.response_body(chunk, end);
            },
            || {
                c.response_trailers(&[("x-sum", b"\xff")]);
            },
        );
    }

    fn is_right(&self) {
        assert_eq!(self.gateway.violations(), [""; 0]);
        assert!(self.gateway.callouts().len() <= 1, "one attempt at a time");
    }

    /// Lets all that is open come to its end.
    fn run_out(&mut self) {
        for _ in 0..200 {
            self.happens(Happening::Request);
        }
        for _ in 0..200 {
            self.happens(Happening::Response);
        }
        for _ in 0..4 {
            self.happens(Happening::CalloutAnswers("200", b"data: {}\n\n", false));
        }
        self.gateway.wait_for_failed_answer();
    }
}

fn rules(first: u64, request: u64, total: u64, router: bool) -> Value {
    let rules = json!({
        "first_packet_timeout_ms": first, "request_timeout_ms": request, "total_timeout_ms": total,
    });
    match router {
        true => by_router(config_with(rules)),
        false => config_with(rules),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_client_gets_one_whole_answer_or_is_gone(
        times in (select(vec![0, 300]), select(vec![0, 1_000]), select(vec![0, 2_000])),
        router in any::<bool>(),
        request in message(BODIES),
        response in message(ANSWERS),
        status in select(STATUSES),
        details in select(DETAILS),
        left in select(LEFT),
        damage in 0..8_usize,
        events in vec(happening(), 0..20),
    ) {
        let (first, whole, total) = times;
        let mut gateway = Gateway::start(&rules(first, whole, total, router));
        let mut case = Case {
            stream: gateway.stream(),
            gateway,
            request: Pieces::of(&request),
            response: Pieces::of(&response),
            request_body: request.body,
            status,
            details,
            left,
        };
        let (count, ends, _) = left;
        let mut written = progress(&config(), ends);
        if damage == 0 {
            written.truncate(written.len() / 2);
        }
        case.stream.set_property(&["upstream", "request_attempt_count"], &count.to_le_bytes());
        case.stream.set_property(&["ai_fallback.progress"], &written);
        for event in events {
            case.happens(event);
        }
        case.run_out();
        prop_assert!(case.stream.gone(), "{:?}", case.stream.client_response());
        if let Some(answer) = case.stream.client_response() {
            prop_assert!(answer.ended || answer.reset || !case.response.done);
        }
        case.gateway.expect_idle();
    }

    /// Envoy may refuse any call in any phase: that is a status, and no panic.
    #[test]
    fn a_host_that_refuses_calls_ends_no_vm(
        router in any::<bool>(),
        request in message(BODIES),
        response in message(ANSWERS),
        status in select(STATUSES),
        details in select(DETAILS),
        left in select(LEFT),
        events in vec(happening(), 0..30),
        one_in in select(vec![1_u64, 2, 5, 20]),
        seed in any::<u64>(),
    ) {
        let mut gateway = Gateway::start(&rules(300, 1_000, 2_000, router));
        let mut case = Case {
            stream: gateway.stream(),
            gateway,
            request: Pieces::of(&request),
            response: Pieces::of(&response),
            request_body: request.body.clone(),
            status,
            details,
            left,
        };
        let (count, ends, _) = left;
        case.stream.set_property(&["upstream", "request_attempt_count"], &count.to_le_bytes());
        case.stream.set_property(&["ai_fallback.progress"], &progress(&config(), ends));
        case.gateway.refuse_calls(one_in, seed);
        for event in events {
            case.act(event);
        }
        if router && case.stream.request_complete() {
            let mut stream = case.stream;
            let mut attempt = case.gateway.attempt(&mut stream, 1, "openai-cluster");
            attempt.request_of(&stream);
            attempt.response(&[(":status", status)], &response.body);
            case.gateway.advance(ms(2_000));
            attempt.finish();
        }
        case.gateway.forgive();
    }

    /// The attempt filter: what is not judged is not let through, and bytes are not lost.
    #[test]
    fn an_attempt_gives_its_answer_once_and_whole(
        request in message(&[BODY, STREAM, b"{\"n\":1}"]),
        response in message(ANSWERS),
        status in select(STATUSES),
        count in 1..4_u64,
    ) {
        prop_assume!(serde_json::from_slice::<Value>(&request.body).is_ok_and(|body| body.is_object()));
        let mut gateway = Gateway::start(&by_router(config()));
        let mut stream = gateway.ask(&request.body);
        for (count, name) in (1..=count).zip(["openai", "qwen", "local"]) {
            let mut attempt = gateway.attempt(&mut stream, count, &format!("{name}-cluster"));
            attempt.request_of(&stream);
            prop_assert!(attempt.request_complete());
            let length = attempt.upstream_request_headers().get("content-length").unwrap();
            prop_assert_eq!(length, attempt.upstream_request_body().len().to_string());
            let mut pieces = Pieces::of(&response);
            while !pieces.done {
                let (mut a, mut b, mut c) = (attempt, attempt, attempt);
                pieces.next(
                    |end| { a.response_headers(&[(":status", status)], end); },
                    |chunk, end| { b.response_body(chunk, end); },
                    || { c.response_trailers(&[("x-sum", "1")]); },
                );
            }
            let answer = attempt.answered();
            prop_assert!(answer.ended);
            prop_assert_eq!(&answer.body, &response.body);
            let goes_on = answer.headers.has("x-ai-fallback-retry");
            prop_assert!(goes_on != answer.headers.has("x-ai-fallback-attempts"));
            attempt.finish();
            if !goes_on {
                break;
            }
        }
    }
}
