//! One request after another, from its primary to its answer.

use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::Origin;
use serde_json::{Value, json};

use crate::rig::*;

const EVENT: &str = "data: {\"choices\":[]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";

#[test]
fn a_good_answer_passes() {
    let mut rig = Rig::whole(to(&["b"]));
    assert_eq!(
        rig.after(10).headers(200),
        Effect::Wait,
        "an empty body would be a failure"
    );
    assert_eq!(rig.after(2).body("{"), Effect::Pass);
    assert_eq!(rig.trail(), "a;200;12ms");
    assert_eq!(rig.exchange.answered_by(), Some("a"));
    assert!(rig.exchange.is_over() && !rig.exchange.may_call());
}

#[test]
fn a_failed_status_is_followed_by_the_next_service() {
    let mut rig = Rig::whole(to(&["b", "c"]));
    assert_eq!(rig.after(12).headers(503), CALL);
    assert_eq!((rig.at(), rig.exchange.is_routed()), ("b", false));
    assert_eq!(rig.after(30).answer(429, "slow down"), CALL);
    assert_eq!(rig.at(), "c");
    assert_eq!(rig.after(840).answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;503;12ms, b;429;30ms, c;200;840ms");
    assert_eq!(rig.exchange.answered_by(), Some("c"));
}

#[test]
fn a_status_that_is_no_failure_is_the_answer() {
    let rules = to_with(&["b"], json!({"on_status": ["5xx"]}));
    assert_eq!(Rig::whole(rules.clone()).headers(404), Effect::Pass);
    let mut rig = Rig::whole(rules);
    rig.headers(500);
    assert_eq!(rig.answer(404, "no"), Effect::Deliver);
    assert_eq!(rig.exchange.answered_by(), Some("b"));
}

#[test]
fn when_all_fail_the_last_answer_is_given() {
    let mut rig = Rig::whole(to(&["b", "c"]));
    rig.headers(503);
    rig.answer(502, "");
    assert_eq!(rig.answer(500, "broken"), Effect::Deliver);
    assert_eq!(rig.exchange.answered_by(), Some("c"));
}

#[test]
fn when_the_last_one_gives_no_answer_the_client_is_told_so() {
    for (origin, status, failure, label) in [
        (Origin::Transport, 503, Failure::Transport, "reset"),
        (Origin::Timeout, 504, Failure::Timeout, "request_timeout"),
    ] {
        let mut rig = Rig::whole(to(&["b"]));
        rig.headers(500);
        assert_eq!(
            rig.answer_by(origin, status, "upstream said no"),
            Effect::Fail(failure)
        );
        assert_eq!(rig.trail(), format!("a;500;0ms, b;{label};0ms"));
        assert_eq!(rig.exchange.answered_by(), None);
    }
}

#[test]
fn a_callout_that_is_refused_counts_as_a_reset() {
    let mut rig = Rig::whole(to(&["b", "c", "d"]));
    rig.headers(500);
    assert_eq!(rig.refused(), CALL);
    assert_eq!(rig.refused(), CALL);
    assert_eq!(rig.refused(), Effect::Fail(Failure::Transport));
    assert_eq!(
        rig.trail(),
        "a;500;0ms, b;reset;0ms, c;reset;0ms, d;reset;0ms"
    );
}

#[test]
fn a_broken_connection_is_a_failure() {
    let mut rig = Rig::whole(to(&["b"]));
    assert_eq!(rig.headers_by(Origin::Transport, 503), CALL);
    assert_eq!(rig.trail(), "a;reset;0ms");
}

#[test]
fn a_good_status_without_a_body_is_a_failure() {
    let empty = |rig: &mut Rig| {
        let (origin, status, end) = (Origin::Service, 200, true);
        rig.step(&Event::Headers {
            origin,
            status,
            retry_after: None,
            end,
        })
    };
    assert_eq!(empty(&mut Rig::whole(to(&["b"]))), CALL);
    let mut rig = Rig::stream(to(&["b"]));
    rig.headers(200);
    assert_eq!(rig.last_body(": bye\n\n"), CALL);
    assert_eq!(
        rig.answer(200, ""),
        Effect::Deliver,
        "it is the last one's answer, as it came"
    );
    assert_eq!(rig.trail(), "a;empty;0ms, b;empty;0ms");
}

// Streams.

#[test]
fn early_headers_and_comments_are_no_first_packet() {
    let mut rig = Rig::stream(to_with(&["b"], json!({"first_packet_timeout_ms": 300})));
    assert_eq!(rig.after(100).headers(200), Effect::Wait);
    assert_eq!(rig.after(100).body(": keep-alive\n\n"), Effect::Wait);
    assert_eq!(rig.exchange.wanted(20, false), Some((14, 6)));
    assert_eq!(rig.wait(), CALL);
    assert_eq!(rig.trail(), "a;first_packet_timeout;300ms");
    assert_eq!(
        rig.exchange.deadline(),
        None,
        "Envoy keeps the time of a callout"
    );
}

#[test]
fn an_event_that_has_begun_is_a_first_packet() {
    let mut rig = Rig::stream(to_with(&["b"], json!({"first_packet_timeout_ms": 300})));
    rig.headers(200);
    assert_eq!(
        rig.after(299).body("data: {\"choi"),
        Effect::Wait,
        "it may still be an error"
    );
    assert_eq!(rig.exchange.deadline(), None);
    assert_eq!(rig.after(9_000).body(EVENT), Effect::Pass);
}

#[test]
fn a_first_event_that_is_an_error_is_a_failure() {
    let mut rig = Rig::stream(to(&["b"]));
    rig.headers(200);
    for cut in [5, 20, ERROR.len() - 1] {
        assert_eq!(rig.body(&ERROR[..cut]), Effect::Wait, "cut at {cut}");
    }
    assert_eq!(rig.body(ERROR), CALL);
    assert_eq!(rig.trail(), "a;stream_error;0ms");
    assert_eq!(rig.answer(200, ERROR), Effect::Deliver);
    assert_eq!(rig.trail(), "a;stream_error;0ms, b;stream_error;0ms");
}

#[test]
fn an_error_after_the_first_event_comes_too_late() {
    let mut rig = Rig::stream(to(&["b"]));
    rig.headers(200);
    assert_eq!(rig.body(&format!("{EVENT}{ERROR}")), Effect::Pass);
}

#[test]
fn only_a_stream_has_a_first_packet() {
    let mut rig = Rig::whole(to_with(&["b"], json!({"first_packet_timeout_ms": 300})));
    assert_eq!(rig.exchange.deadline(), None);
    rig.headers(200);
    assert_eq!(rig.body(ERROR), Effect::Pass);
}

#[test]
fn the_last_attempt_has_no_first_packet_timeout() {
    let rules = to_with(&["a"], json!({"first_packet_timeout_ms": 300}));
    let mut rig = Rig::stream(rules);
    assert_eq!(
        rig.exchange.deadline(),
        None,
        "`a` with the same model was tried already"
    );
    rig.after(10_000).headers(200);
    assert_eq!(rig.after(10_000).body(EVENT), Effect::Pass);
}

#[test]
fn the_last_answer_is_judged_for_the_trail_and_given_whatever_it_is() {
    for (text, label) in [(EVENT, "200"), (ERROR, "stream_error")] {
        let mut rig = Rig::stream(to(&["a"]));
        assert_eq!(rig.headers(200), Effect::Wait);
        assert_eq!(rig.body(text), Effect::Pass);
        assert_eq!(rig.trail(), format!("a;{label};0ms"));
        assert_eq!(rig.exchange.answered_by(), Some("a"));
    }
}

// Time.

#[test]
fn the_request_timeout_holds_for_every_attempt() {
    let mut rig = Rig::whole(to_with(&["b"], json!({"request_timeout_ms": 1000})));
    rig.after(900).headers(200);
    assert_eq!(rig.wait(), call(1000));
    assert_eq!(rig.trail(), "a;request_timeout;1000ms");
}

#[test]
fn the_shorter_timeout_comes_first() {
    let both =
        |first, whole| json!({"first_packet_timeout_ms": first, "request_timeout_ms": whole});
    for (first, whole, label) in [
        (300, 1000, "first_packet_timeout;300ms"),
        (1000, 300, "request_timeout;300ms"),
    ] {
        let mut rig = Rig::stream(to_with(&["b"], both(first, whole)));
        assert_eq!(rig.wait(), call(whole));
        assert_eq!(rig.trail(), format!("a;{label}"));
    }
}

#[test]
fn a_last_attempt_that_times_out_ends_in_a_failure() {
    let mut rig = Rig::whole(to_with(&["a"], json!({"request_timeout_ms": 1000})));
    assert_eq!(rig.wait(), Effect::Fail(Failure::Timeout));
    assert_eq!(rig.trail(), "a;request_timeout;1000ms");
}

#[test]
fn no_attempt_begins_after_the_total_timeout_and_none_goes_past_it() {
    let rules = json!({"total_timeout_ms": 1000, "request_timeout_ms": 700});
    let mut rig = Rig::whole(to_with(&["b", "c", "d"], rules));
    assert_eq!(rig.after(100).headers(500), call(700));
    assert_eq!(rig.after(500).answer(500, "x"), call(400), "what is left");
    rig.after(400);
    assert_eq!(
        rig.answer_by(Origin::Timeout, 504, ""),
        Effect::Fail(Failure::Timeout)
    );
    assert_eq!(
        rig.trail(),
        "a;500;100ms, b;500;500ms, c;request_timeout;400ms"
    );
}

#[test]
fn a_total_timeout_that_is_used_up_makes_a_failed_answer_the_last() {
    let mut rig = Rig::whole(to_with(&["b", "c"], json!({"total_timeout_ms": 1000})));
    assert_eq!(rig.after(10).headers(500), call(990));
    assert_eq!(rig.after(990).answer(500, "x"), Effect::Deliver);
}

#[test]
fn less_than_the_slack_of_a_timer_is_no_time_left() {
    let mut rig = Rig::whole(to_with(&["b"], json!({"total_timeout_ms": 1000})));
    rig.now += std::time::Duration::from_millis(981);
    assert_eq!(
        rig.headers(500),
        Effect::Pass,
        "it would be over before it began"
    );
}

#[test]
fn the_total_timeout_ends_the_primary_too() {
    let mut rig = Rig::whole(to_with(&["b"], json!({"total_timeout_ms": 1000})));
    rig.headers(200);
    assert_eq!(rig.wait(), Effect::Fail(Failure::Timeout));
}

// Who answered.

#[test]
fn an_intercepted_request_falls_back_unless_it_is_not_wanted() {
    let mut rig = Rig::whole(to(&["b"]));
    assert_eq!(rig.headers_by(Origin::Gateway, 429), CALL);
    assert_eq!(rig.trail(), "a;intercepted;0ms");
    for (more, status) in [
        (json!({"only_backend_errors": true}), 429),
        (json!({"on_status": ["5xx"]}), 429),
        (json!({}), 302),
    ] {
        let mut rig = Rig::whole(to_with(&["b"], more));
        assert_eq!(rig.headers_by(Origin::Gateway, status), Effect::Pass);
        assert_eq!(rig.exchange.answered_by(), None, "no service did");
    }
}

#[test]
fn a_caller_that_may_not_ask_is_told_so_and_nobody_else_is_asked() {
    for rules in [
        to(&["b"]),
        to_with(&["b"], json!({"on_status": ["any", 401, 403]})),
    ] {
        for mut rig in [
            Rig::whole(rules.clone()),
            Rig::stream(rules.clone()),
            Rig::by_router(stream_plan(rules.clone())),
        ] {
            let effect = rig.headers_by(Origin::AccessControl, 403);
            assert_eq!(effect, Effect::Pass, "{rules}");
            assert_eq!(rig.trail(), "a;intercepted;0ms");
            assert_eq!(rig.exchange.answered_by(), None, "no service did");
            assert_eq!(rig.exchange.deadline(), None);
        }
    }
}

#[test]
fn without_rules_of_fallback_whatever_comes_is_the_answer() {
    for (origin, status) in [
        (Origin::Service, 200),
        (Origin::Service, 503),
        (Origin::Gateway, 403),
        (Origin::Transport, 503),
        (Origin::Timeout, 504),
    ] {
        let mut rig = Rig::stream(Value::Null);
        assert_eq!(rig.exchange.deadline(), None);
        assert_eq!(rig.headers_by(origin, status), Effect::Pass, "{origin:?}");
    }
}

#[test]
fn a_primary_that_the_route_decides_has_no_name() {
    let api = json!({"name": "chat", "fallback": to(&["b"])});
    let mut rig = Rig::begin(plan_of(services(), api, Some("m")));
    rig.headers(200);
    rig.body("{}");
    assert_eq!(
        (rig.trail().as_str(), rig.exchange.answered_by()),
        ("primary;200;0ms", None)
    );
}

// Too late.

#[test]
fn what_comes_too_late_changes_nothing() {
    let mut rig = Rig::stream(to_with(&["b"], json!({"first_packet_timeout_ms": 300})));
    rig.wait();
    assert_eq!(
        rig.headers(200),
        Effect::Wait,
        "the routed answer is not wanted any more"
    );
    assert_eq!(
        rig.step(&Event::Body {
            size: 10,
            bytes: b"data: {}\n\n",
            end: true
        }),
        Effect::Wait
    );
    assert_eq!(rig.step(&Event::Due), Effect::Wait);
    rig.answer(200, EVENT);
    let trail = rig.trail();
    assert_eq!(rig.answer(200, EVENT), Effect::Pass);
    assert_eq!(rig.refused(), Effect::Pass);
    assert_eq!(rig.step(&Event::Due), Effect::Pass);
    assert_eq!(rig.trail(), trail);
}

#[test]
fn an_answer_nobody_asked_for_is_not_taken() {
    let mut rig = Rig::whole(to(&["b"]));
    assert_eq!(rig.answer(200, "{}"), Effect::Wait);
    assert_eq!(rig.refused(), Effect::Wait);
    assert_eq!(rig.trail(), "");
}
