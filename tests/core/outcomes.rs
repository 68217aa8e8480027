//! What an answer means, and which outcomes are failures.

use ai_fallback::core::judge::{Judge, Reading, Verdict};
use ai_fallback::core::outcome::{Ended, Origin, Outcome};
use ai_fallback::core::plan::Plan;
use ai_fallback::core::provider_error::{ErrorKind, ProviderError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::rig::*;

const ALL: [(Outcome, &str); 10] = [
    (Outcome::Status(200), "200"),
    (Outcome::Status(503), "503"),
    (Outcome::Intercepted(503), "intercepted"),
    (Outcome::Refused(403), "intercepted"),
    (Outcome::StreamError, "stream_error"),
    (Outcome::Empty, "empty"),
    (Outcome::Reset, "reset"),
    (Outcome::FirstPacketTimeout, "first_packet_timeout"),
    (Outcome::RequestTimeout, "request_timeout"),
    (Outcome::StreamIdleTimeout, "stream_idle_timeout"),
];

#[test]
fn outcomes_are_written_by_name() {
    for (outcome, name) in ALL {
        assert_eq!(outcome.to_string(), name);
    }
    for (name, outcome) in Outcome::WORDS {
        assert_eq!(outcome.to_string(), name);
    }
}

#[test]
fn who_answered_and_whether_there_is_an_answer() {
    for (outcome, name) in ALL {
        let from_service = ["200", "503", "stream_error", "empty"].contains(&name);
        assert_eq!(outcome.is_from_service(), from_service, "{name}");
        let from_gateway = name == "intercepted";
        assert_eq!(outcome.is_from_gateway(), from_gateway, "{name}");
    }
}

#[test]
fn which_outcomes_are_failures() {
    let rules = |more| plan(to_with(&["b"], more), None);
    let usual = rules(json!({}));
    let backend = rules(json!({"only_backend_errors": true}));
    let only_503 = rules(json!({"on_status": [503]}));
    for (outcome, by_default, by_backend, by_503) in [
        (Outcome::Status(200), false, false, false),
        (Outcome::Status(302), false, false, false),
        (Outcome::Status(404), true, true, false),
        (Outcome::Status(503), true, true, true),
        (Outcome::Intercepted(200), false, false, false),
        (Outcome::Intercepted(429), true, false, false),
        (Outcome::Intercepted(503), true, false, true),
        (Outcome::Intercepted(401), false, false, false),
        (Outcome::Intercepted(403), false, false, false),
        (Outcome::Intercepted(407), false, false, false),
        (Outcome::Refused(403), false, false, false),
        (Outcome::Refused(503), false, false, false),
        (Outcome::StreamError, true, true, true),
        (Outcome::Empty, true, true, true),
        (Outcome::Reset, true, true, true),
        (Outcome::FirstPacketTimeout, true, true, true),
        (Outcome::RequestTimeout, true, true, true),
        (Outcome::StreamIdleTimeout, true, true, true),
    ] {
        let by = |plan: &Plan| Ended::new(outcome, None, None, plan.fallback()).fails;
        assert_eq!(
            (by(&usual), by(&backend), by(&only_503)),
            (by_default, by_backend, by_503),
            "{outcome:?}"
        );
    }
}

/// What is said of these statuses counts for a service, and not for a filter that may have said who may ask.
#[test]
fn a_refusal_of_the_gateway_is_a_failure_by_its_very_code_alone() {
    let fails = |outcome, on_status, only_backend_errors: bool| {
        let more = json!({"on_status": on_status, "only_backend_errors": only_backend_errors});
        let plan = plan(to_with(&["b"], more), None);
        Ended::new(outcome, None, None, plan.fallback()).fails
    };
    for on_status in [
        json!("any"),
        json!("availability"),
        json!(["4xx", "5xx"]),
        json!(["any"]),
        json!(["4xx", 402, 408]),
    ] {
        for status in [401, 403, 407] {
            let outcome = Outcome::Intercepted(status);
            assert!(
                !fails(outcome, on_status.clone(), false),
                "{status} {on_status}"
            );
        }
        assert!(fails(Outcome::Intercepted(408), on_status.clone(), false));
        assert!(!fails(Outcome::Intercepted(408), on_status, true));
    }
    for listed in [401, 403, 407] {
        for on_status in [json!([listed]), json!(["any", listed.to_string()])] {
            for status in [401, 403, 407] {
                let outcome = Outcome::Intercepted(status);
                let expected = status == listed;
                assert_eq!(fails(outcome, on_status.clone(), false), expected);
                assert!(!fails(outcome, on_status.clone(), true));
            }
        }
    }
    assert!(fails(Outcome::Status(403), json!("any"), false));
}

/// Another service would answer a caller who may not ask.
#[test]
fn a_refusal_by_access_control_is_never_a_failure() {
    for on_status in [
        json!("any"),
        json!("availability"),
        json!(["4xx", "5xx"]),
        json!([401, 403, 407, 429, 500, 503]),
        json!(["any", 401, 403, 407]),
    ] {
        for only_backend_errors in [false, true] {
            let more = json!({
                "on_status": on_status, "only_backend_errors": only_backend_errors, "on_errors": ["*"],
                "error_services": {"quota": [{"service": "c"}]},
            });
            let plan = plan(to_with(&["b"], more), None);
            // `ext_authz` may fail with any status, and so may what it asks.
            for status in [302, 400, 401, 403, 407, 429, 500, 503] {
                let outcome = Outcome::Refused(status);
                for error in [None, Some(quota())] {
                    let ended = Ended::new(outcome, error.as_ref(), None, plan.fallback());
                    assert!(!ended.fails, "{status} {on_status}");
                    assert!(!ended.is_unhealthy() && !ended.may_pass());
                }
            }
        }
    }
}

fn quota() -> ProviderError {
    ProviderError {
        code: Some("insufficient_quota".to_owned()),
        kind_name: None,
        kind: Some(ErrorKind::Quota),
    }
}

#[test]
fn headers_decide_what_they_can() {
    let headers = |origin, status, end| {
        let verdict = Judge::new(STREAM).on_headers(origin, status, end);
        verdict.map(|verdict| verdict.outcome)
    };
    for (origin, status, end, outcome) in [
        (Origin::Service, 200, false, None),
        (Origin::Service, 206, false, None),
        (Origin::Service, 200, true, Some(Outcome::Empty)),
        (Origin::Service, 204, true, Some(Outcome::Empty)),
        (Origin::Service, 301, false, Some(Outcome::Status(301))),
        (Origin::Service, 0, false, Some(Outcome::Status(0))),
        (Origin::Service, 503, false, Some(Outcome::Status(503))),
        (Origin::Gateway, 200, false, Some(Outcome::Intercepted(200))),
        (
            Origin::AccessControl,
            403,
            false,
            Some(Outcome::Refused(403)),
        ),
        (
            Origin::AccessControl,
            503,
            true,
            Some(Outcome::Refused(503)),
        ),
        (Origin::Transport, 503, false, Some(Outcome::Reset)),
        (Origin::Timeout, 504, true, Some(Outcome::RequestTimeout)),
    ] {
        assert_eq!(
            headers(origin, status, end),
            outcome,
            "{origin:?} {status} {end}"
        );
    }
}

#[test]
fn a_whole_answer_is_judged_as_one_that_arrives() {
    let of = |status, body: &str, stream| whole(stream, status, body.as_bytes());
    let error = "event: error\ndata: {}\n\n";
    assert_eq!(of(200, "{}", false), Outcome::Status(200));
    assert_eq!(of(200, "", false), Outcome::Empty);
    assert_eq!(of(503, "", false), Outcome::Status(503));
    assert_eq!(of(200, error, false), Outcome::Status(200));
    assert_eq!(of(200, error, true), Outcome::StreamError);
    assert_eq!(
        of(200, "data: {\"error\":{}}", true),
        Outcome::StreamError,
        "cut off"
    );
    assert_eq!(of(200, ": hi\n\n", true), Outcome::Empty);
    assert_eq!(of(200, "{\"id\":1}", true), Outcome::Status(200));
    let long = format!("{}data: {{\"error\":1}}\n\n", ": hi\n".repeat(10_000));
    assert_eq!(of(200, &long, true), Outcome::StreamError);
}

const STREAM: Reading = Reading {
    stream: true,
    errors: false,
    complete: None,
};

fn whole(stream: bool, status: u16, body: &[u8]) -> Outcome {
    let reading = Reading { stream, ..STREAM };
    let Verdict { outcome, error } = Judge::whole(reading, Origin::Service, status, body);
    assert!(error.is_none() || outcome == Outcome::StreamError);
    outcome
}

/// The judge is shown what it asks for, at most `MAX_FIRST_EVENT` bytes of it, after each chunk.
fn judged(stream: &[u8], chunk: usize) -> Option<Outcome> {
    let mut judge = Judge::new(STREAM);
    judge.on_headers(Origin::Service, 200, false);
    let ends = (0..stream.len())
        .step_by(chunk)
        .map(|start| stream.len().min(start + chunk));
    for end in ends {
        let (start, length) = judge.wanted(end, end == stream.len());
        let bytes = &stream[start..start + length];
        if let Some(verdict) = judge.on_body(end, bytes, end == stream.len()) {
            return Some(verdict.outcome);
        }
    }
    None
}

#[test]
fn comments_are_not_read_again_however_many_there_are() {
    let text = format!(
        "{}data: {{\"error\":{{}}}}\n\n",
        ": keep-alive\n\n".repeat(4_000)
    );
    for chunk in [1, 7, 1_000] {
        assert_eq!(
            judged(text.as_bytes(), chunk),
            Some(Outcome::StreamError),
            "{chunk}"
        );
    }
}

proptest! {
    #[test]
    fn how_a_stream_is_cut_makes_no_difference(
        pieces in vec(select(PIECES), 0..12),
        chunk in 1..40_usize,
    ) {
        let text = pieces.concat();
        let whole = whole(true, 200, text.as_bytes());
        let cut = judged(text.as_bytes(), chunk).unwrap_or(Outcome::Empty);
        prop_assert_eq!(cut, whole, "{:?}", text);
    }
}

const PIECES: &[&str] = &[
    ": hi",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "data: {}",
    "data: {\"error\":1}",
    "data",
    ":",
    "event: error",
    "event: x",
    "id: 1",
    "{\"error\":",
    "}",
    "retry",
    " ",
    "x",
];

#[test]
fn a_first_event_that_is_too_long_is_good() {
    let text = format!("data: {{\"x\":\"{}\"", "y".repeat(Judge::MAX_FIRST_EVENT));
    assert_eq!(judged(text.as_bytes(), 512), Some(Outcome::Status(200)));
}

/// Padding against proxies that buffer: a comment of any length must not hold the answer forever.
#[test]
fn a_comment_that_is_too_long_is_good() {
    let text = format!(
        ": {}\n\ndata: {{}}\n\n",
        "y".repeat(2 * Judge::MAX_FIRST_EVENT)
    );
    assert_eq!(judged(text.as_bytes(), 512), Some(Outcome::Status(200)));
}
