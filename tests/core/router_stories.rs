//! Requests whose attempts Envoy's router makes.

use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::Patience;
use ai_fallback::core::trail::Trail;
use serde_json::{Value, json};

use crate::rig::*;

fn routed(fallback: Value, stream: bool) -> Rig {
    let mut rig = if stream {
        Rig::stream(fallback)
    } else {
        Rig::whole(fallback)
    };
    rig.exchange = rig.exchange.by_router();
    rig
}

fn take_over(rig: &mut Rig, trail: &str, made: usize) -> Option<Outcome> {
    rig.exchange.take_over(Trail::read(trail.to_owned()), made)
}

#[test]
fn an_answer_that_is_settled_passes() {
    let mut rig = routed(to(&["b"]), true);
    assert_eq!(rig.step(&Event::Settled), Effect::Pass);
    assert!(rig.exchange.is_over());
    assert_eq!(rig.trail(), "", "its headers say it already");
}

#[test]
fn the_router_keeps_the_time_of_each_attempt_and_we_that_of_all() {
    let times = json!({"first_packet_timeout_ms": 300, "request_timeout_ms": 700});
    assert_eq!(
        routed(to_with(&["b"], times), true).exchange.deadline(),
        None
    );
    let mut rig = routed(to_with(&["b"], json!({"total_timeout_ms": 1000})), true);
    rig.now += ms(1000);
    assert_eq!(take_over(&mut rig, "a;503;900ms", 2), None);
    assert_eq!(rig.step(&Event::Due), Effect::Fail(Failure::Timeout));
    assert_eq!(rig.trail(), "a;503;900ms, b;request_timeout;100ms");
    assert_eq!(rig.exchange.deadline(), None);
}

#[test]
fn an_answer_that_the_router_did_not_retry_is_followed_by_a_callout() {
    let mut rig = routed(to(&["b", "c"]), false);
    rig.now += ms(50);
    assert_eq!(take_over(&mut rig, "a;500;20ms", 2), None);
    assert_eq!(rig.step(&Event::NotRetried(Outcome::Status(503))), CALL);
    assert_eq!(rig.at(), "c");
    assert_eq!(rig.after(5).answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;500;20ms, b;503;30ms, c;200;5ms");
    assert_eq!(rig.exchange.answered_by(), Some("c"));
}

#[test]
fn the_outcome_of_a_last_attempt_that_has_ended_is_known() {
    for (trail, outcome, effect) in [
        (
            "a;500;20ms, b;reset;30ms",
            Outcome::Reset,
            Effect::Fail(Failure::Transport),
        ),
        (
            "a;500;20ms, b;first_packet_timeout;30ms",
            Outcome::FirstPacketTimeout,
            Effect::Fail(Failure::Timeout),
        ),
        ("a;500;20ms, b;503;30ms", Outcome::Status(503), Effect::Pass),
    ] {
        let mut rig = routed(to(&["b"]), true);
        rig.now += ms(50);
        assert_eq!(take_over(&mut rig, trail, 2), Some(outcome));
        assert_eq!(rig.step(&Event::NotRetried(outcome)), effect);
        assert_eq!(rig.trail(), trail);
    }
}

#[test]
fn the_only_attempt_may_be_the_last() {
    let mut rig = routed(to(&["b"]), true);
    assert_eq!(take_over(&mut rig, "a;reset;0ms", 1), Some(Outcome::Reset));
    assert_eq!(rig.step(&Event::NotRetried(Outcome::Reset)), CALL);
    assert_eq!((rig.at(), rig.trail().as_str()), ("b", "a;reset;0ms"));
}

#[test]
fn an_answer_from_before_any_attempt_is_judged_as_the_primarys() {
    let mut rig = routed(to(&["b"]), true);
    assert_eq!(take_over(&mut rig, "", 0), None);
    assert_eq!(rig.headers_by(Origin::Gateway, 429), CALL);
    assert_eq!(rig.trail(), "a;intercepted;0ms");
}

#[test]
fn a_timeout_of_the_router_is_that_of_the_shorter_time() {
    let times = json!({"first_packet_timeout_ms": 300, "request_timeout_ms": 700});
    for (rules, stream, label) in [
        (times.clone(), true, "first_packet_timeout"),
        (times, false, "request_timeout"),
        (
            json!({"first_packet_timeout_ms": 300}),
            false,
            "request_timeout",
        ),
        (json!({"request_timeout_ms": 700}), true, "request_timeout"),
    ] {
        let mut rig = routed(to_with(&["b"], rules), stream);
        rig.headers_by(Origin::Timeout, 504);
        assert_eq!(rig.trail(), format!("a;{label};0ms"));
    }
}

#[test]
fn patience_is_the_shorter_timeout_that_applies() {
    for (rules, stream, expected) in [
        (json!({}), true, None),
        (json!({"first_packet_timeout_ms": 5}), false, None),
        (
            json!({"first_packet_timeout_ms": 5}),
            true,
            Some((5, Outcome::FirstPacketTimeout)),
        ),
        (
            json!({"request_timeout_ms": 9}),
            true,
            Some((9, Outcome::RequestTimeout)),
        ),
        (
            json!({"request_timeout_ms": 9, "first_packet_timeout_ms": 10}),
            true,
            Some((9, Outcome::RequestTimeout)),
        ),
    ] {
        let plan = plan(to_with(&["b"], rules), None);
        let patience = plan.patience(stream);
        let expected = expected.map(|(time, outcome)| Patience {
            time: ms(time),
            outcome,
        });
        assert_eq!(patience, expected);
    }
}

#[test]
fn a_trail_that_makes_no_sense_does_no_harm() {
    for trail in [
        "",
        ", ",
        "x",
        "a;503",
        "a;;",
        ";;;ms, ;",
        "a;503;99999999999999999999ms",
    ] {
        for made in [0, 1, 2, usize::MAX] {
            let mut rig = routed(to(&["b", "c"]), true);
            take_over(&mut rig, trail, made);
            rig.step(&Event::NotRetried(Outcome::Reset));
            rig.step(&Event::Due);
        }
    }
}
