//! Answers that are held to their end.

use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::Plan;
use serde_json::{Value, json};

use crate::rig::*;

const EVENT: &str = "data: {\"choices\":[]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";

/// The route decides on the primary, so that its answer comes through the router.
fn by_route(more: Value, stream: bool) -> Rig {
    let mut rules = to_with(&["b"], json!({"deliver": "complete"}));
    for (field, value) in more.as_object().unwrap() {
        rules[field] = value.clone();
    }
    let mut api = api(rules);
    api["primary"] = json!({});
    let rig = Rig::begin(planned(services(), api, Some("m"), stream));
    assert_eq!(rig.first, Effect::Pass);
    rig
}

#[test]
fn an_answer_is_held_to_its_end() {
    for stream in [true, false] {
        let mut rig = by_route(json!({}), stream);
        rig.headers(200);
        for size in [3, EVENT.len()] {
            assert_eq!(rig.after(5).body(&EVENT[..size]), Effect::Wait);
        }
        let text = format!("{EVENT}data: [DONE]\n\n");
        assert_eq!(rig.body(&text), Effect::Wait);
        assert_eq!(rig.last_body(&text), Effect::Pass);
        assert_eq!(rig.trail(), "primary;200;10ms");
    }
}

#[test]
fn an_error_anywhere_in_a_held_stream_is_a_failure() {
    let mut rig = by_route(json!({}), true);
    rig.headers(200);
    let text = format!("{EVENT}{ERROR}");
    assert_eq!(rig.body(&text), Effect::Wait);
    assert_eq!(rig.last_body(&format!("{text}{EVENT}")), CALL);
    assert_eq!(rig.trail(), "primary;stream_error;0ms");
    // In an answer that is no stream it is text.
    let mut rig = by_route(json!({}), false);
    rig.headers(200);
    assert_eq!(rig.last_body(&text), Effect::Pass);
}

#[test]
fn an_error_at_the_start_is_not_held() {
    let mut rig = by_route(json!({}), true);
    rig.headers(200);
    assert_eq!(rig.body(ERROR), CALL);
}

#[test]
fn an_answer_that_is_longer_than_what_is_held_passes() {
    for (size, effect) in [(64, Effect::Wait), (65, Effect::Pass)] {
        let mut rig = by_route(json!({"max_held_bytes": 64}), false);
        rig.headers(200);
        assert_eq!(rig.body(&"x".repeat(size)), effect, "{size}");
    }
}

#[test]
fn a_held_answer_that_comes_to_a_halt_is_a_failure() {
    let mut rig = by_route(json!({"stream_idle_timeout_ms": 100}), true);
    rig.after(5_000).headers(200);
    assert_eq!(
        rig.after(5_000).body(": hi\n\n"),
        Effect::Wait,
        "it has not begun"
    );
    rig.body(&format!(": hi\n\n{EVENT}"));
    for parts in 2..5 {
        rig.after(99)
            .body(&format!(": hi\n\n{}", EVENT.repeat(parts)));
    }
    assert_eq!(rig.wait(), CALL);
    assert_eq!(rig.trail(), "primary;stream_idle_timeout;10397ms");
    rig.refused();
    assert!(rig.exchange.is_over());
}

#[test]
fn a_halt_of_the_last_attempt_is_a_timeout() {
    let rules = json!({"stream_idle_timeout_ms": 100, "max_attempts": 1});
    let mut rig = by_route(rules, true);
    rig.headers(200);
    rig.body(EVENT);
    assert_eq!(rig.wait(), Effect::Fail(Failure::Timeout));
}

/// No filter sees that a routed answer broke off after its headers.
#[test]
fn a_named_primary_is_called() {
    let rules = to_with(
        &["b"],
        json!({"deliver": "complete", "request_timeout_ms": 700}),
    );
    let mut rig = Rig::stream(rules);
    assert_eq!((rig.first, rig.at()), (call(700), "a"));
    assert_eq!(
        rig.after(30).answer(200, &format!("{EVENT}{ERROR}")),
        call(700)
    );
    assert_eq!(
        rig.answer_by(Origin::Transport, 503, "reset"),
        Effect::Fail(Failure::Transport)
    );
    assert_eq!(rig.trail(), "a;stream_error;30ms, b;reset;0ms");
}

/// Envoy says of a callout that timed out after its headers what it says of one that broke.
#[test]
fn a_callout_that_breaks_at_its_timeout_is_a_timeout() {
    for (after, label) in [(650, "reset;650ms"), (690, "request_timeout;690ms")] {
        let rules = json!({"deliver": "complete", "request_timeout_ms": 700});
        let mut rig = Rig::stream(to_with(&["b"], rules));
        rig.after(after);
        rig.answer_by(Origin::Transport, 503, "");
        assert_eq!(rig.trail(), format!("a;{label}"));
    }
}

#[test]
fn a_request_may_ask_for_either_way() {
    let plan = |configured: &str, asked: &str| -> Plan {
        let more = json!({"deliver": configured, "client_controls": ["deliver"]});
        let config = config_with(to_with(&["b"], more), json!({}));
        let headers = [("x-ai-fallback-deliver", asked)];
        admit(&config, &headers, &json!({"model": "m"})).unwrap()
    };
    for configured in ["first_packet", "complete"] {
        for asked in ["first_packet", "complete"] {
            let plan = plan(configured, asked);
            assert_eq!(plan.delivers_complete(), asked == "complete");
        }
    }
}

/// Without a fallback there is nothing to hold an answer for.
#[test]
fn a_request_without_fallback_is_not_held() {
    let more = json!({"deliver": "complete", "client_controls": ["off"]});
    let config = config_with(to_with(&["b"], more), json!({}));
    let plan = admit(&config, &[("x-ai-fallback", "off")], &json!({"model": "m"})).unwrap();
    let mut rig = Rig::begin(plan);
    assert_eq!(rig.first, Effect::Pass);
    assert_eq!(rig.headers(200), Effect::Pass);
    assert_eq!(rig.exchange.deadline(), None);
}

/// The router has no first packet timeout of a held answer: the request filter keeps it, until the attempt filter
/// says that the headers have come.
#[test]
fn with_the_router_the_first_packet_is_waited_for_until_headers_came() {
    let rules = json!({"deliver": "complete", "first_packet_timeout_ms": 300});
    for (answering, effect) in [(false, CALL), (true, Effect::Wait)] {
        let mut rig = Rig::by_router(stream_plan(to_with(&["b"], rules.clone())));
        let mut progress = rig.exchange.progress().clone();
        if answering {
            progress.begins_to_answer();
        }
        rig.now = rig.exchange.deadline().unwrap();
        assert_eq!(rig.now, ms(5_300));
        rig.exchange.take_over(Some(progress), 1);
        assert_eq!(rig.step(&Event::Due), effect);
    }
    assert_eq!(
        Outcome::StreamIdleTimeout.to_string(),
        "stream_idle_timeout"
    );
}
