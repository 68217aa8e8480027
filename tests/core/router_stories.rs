//! Requests whose attempts Envoy's router makes.

use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::{Patience, Plan};
use ai_fallback::core::progress::{Progress, Room};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rig::*;

fn routed(fallback: Value, stream: bool) -> Rig {
    Rig::by_router(match stream {
        true => stream_plan(fallback),
        false => plan(fallback, Some("m")),
    })
}

/// What the attempt filters have written down: these attempts have ended, each after so many milliseconds.
fn written(plan: &Plan, ends: &[(Outcome, u64)]) -> Progress {
    let mut progress = Progress::begin(plan);
    for (outcome, took) in ends {
        progress.end(plan, ended(plan, *outcome), ms(*took), Room::default());
    }
    Progress::decode(&progress.encode()).unwrap()
}

fn take_over(rig: &mut Rig, ends: &[(Outcome, u64)], made: usize) -> bool {
    let progress = written(rig.exchange.plan(), ends);
    rig.exchange.take_over(Some(progress), made)
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
    assert!(!take_over(&mut rig, &[(Outcome::Status(503), 900)], 2));
    assert_eq!(rig.step(&Event::Due), Effect::Fail(Failure::Timeout));
    assert_eq!(rig.trail(), "a;503;900ms, b;request_timeout;100ms");
    assert_eq!(rig.exchange.deadline(), None);
}

#[test]
fn an_answer_that_the_router_did_not_retry_is_followed_by_a_callout() {
    let mut rig = routed(to(&["b", "c"]), false);
    rig.now += ms(50);
    let ends = [(Outcome::Status(500), 20), (Outcome::Status(503), 30)];
    assert!(take_over(&mut rig, &ends, 2));
    assert_eq!(rig.step(&Event::Abandoned), CALL);
    assert_eq!(rig.at(), "c");
    assert_eq!(rig.after(5).answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;500;20ms, b;503;30ms, c;200;5ms");
    assert_eq!(rig.exchange.answered_by(), Some("c"));
}

/// Envoy replied before the filter of the last attempt was told of its end.
#[test]
fn the_end_of_the_last_attempt_may_be_missing() {
    let mut rig = routed(to(&["b", "c"]), false);
    rig.now += ms(50);
    assert!(!take_over(&mut rig, &[(Outcome::Status(500), 20)], 2));
    assert_eq!(rig.headers_by(Origin::Transport, 503), CALL);
    assert_eq!(
        (rig.at(), rig.trail().as_str()),
        ("c", "a;500;20ms, b;reset;30ms")
    );
}

#[test]
fn the_outcome_of_a_last_attempt_that_has_ended_is_known() {
    for (outcome, label, effect) in [
        (Outcome::Reset, "reset", Effect::Fail(Failure::Transport)),
        (
            Outcome::FirstPacketTimeout,
            "first_packet_timeout",
            Effect::Fail(Failure::Timeout),
        ),
        (Outcome::Status(503), "503", Effect::Pass),
    ] {
        let mut rig = routed(to(&["b"]), true);
        rig.now += ms(50);
        assert!(take_over(
            &mut rig,
            &[(Outcome::Status(500), 20), (outcome, 30)],
            2
        ));
        assert_eq!(rig.step(&Event::Abandoned), effect);
        assert_eq!(rig.trail(), format!("a;500;20ms, b;{label};30ms"));
    }
}

/// The router's timeout and that of all attempts can come at once: the attempt is told of once.
#[test]
fn an_attempt_that_the_router_has_ended_is_not_ended_again() {
    let total = json!({"total_timeout_ms": 100});
    let mut rig = routed(to_with(&["b"], total), true);
    rig.now += ms(100);
    let ends = [
        (Outcome::Status(500), 20),
        (Outcome::FirstPacketTimeout, 80),
    ];
    assert!(take_over(&mut rig, &ends, 2));
    assert_eq!(rig.step(&Event::Due), Effect::Fail(Failure::Timeout));
    assert_eq!(rig.trail(), "a;500;20ms, b;first_packet_timeout;80ms");
}

#[test]
fn the_only_attempt_may_be_the_last() {
    let mut rig = routed(to(&["b"]), true);
    assert!(take_over(&mut rig, &[(Outcome::Reset, 0)], 1));
    assert_eq!(rig.step(&Event::Abandoned), CALL);
    assert_eq!((rig.at(), rig.trail().as_str()), ("b", "a;reset;0ms"));
}

#[test]
fn an_answer_from_before_any_attempt_is_judged_as_the_primarys() {
    let mut rig = routed(to(&["b"]), true);
    assert!(!rig.exchange.take_over(None, 0));
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
        // An answer that is held has not begun for the router.
        (
            json!({"request_timeout_ms": 9, "first_packet_timeout_ms": 5, "deliver": "complete"}),
            true,
            Some((9, Outcome::RequestTimeout)),
        ),
        // What the next attempt is to have is kept for it.
        (
            json!({"total_timeout_ms": 1000, "reserve_ms": 400}),
            false,
            Some((600, Outcome::RequestTimeout)),
        ),
    ] {
        let patience = planned(services(), api(to_with(&["b"], rules)), None, stream).patience();
        let expected = expected.map(|(time, outcome)| Patience {
            time: ms(time),
            outcome,
        });
        assert_eq!(patience, expected);
    }
}

proptest! {
    /// A progress that makes no sense, and one of another plan.
    #[test]
    fn a_progress_that_makes_no_sense_does_no_harm(
        bytes in vec(any::<u8>(), 0..80),
        ends in 0..6_usize,
        cut in any::<prop::sample::Index>(),
        damaged in any::<(prop::sample::Index, u8)>(),
        made in prop::sample::select(vec![0, 1, 2, usize::MAX]),
    ) {
        let longer = plan(to(&["b", "c", "d"]), Some("m"));
        let mut written = written(&longer, &vec![(Outcome::Status(503), 1); ends]).encode();
        let at = damaged.0.index(written.len());
        written[at] = damaged.1;
        let cut = cut.index(written.len());
        for bytes in [&bytes[..], &written, &written[..cut]] {
            let mut rig = routed(to(&["b"]), true);
            rig.exchange.take_over(Progress::decode(bytes), made);
            rig.step(&Event::Due);
            rig.step(&Event::Abandoned);
            for _ in 0..9 {
                rig.refused();
                rig.step(&Event::Due);
            }
        }
    }
}
