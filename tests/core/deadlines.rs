//! What is left of the total timeout for those that come later.

use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::Request;
use ai_fallback::core::progress::{Progress, Room};
use serde_json::{Value, json};

use crate::rig::*;

fn rules(services: &[&str], total: u64, reserve: u64) -> Value {
    to_with(
        services,
        json!({"total_timeout_ms": total, "reserve_ms": reserve}),
    )
}

#[test]
fn an_attempt_leaves_the_next_one_its_reserve() {
    let mut rig = Rig::whole(rules(&["b", "c"], 1_000, 300));
    assert_eq!(rig.wait(), call(300), "there is not enough for two");
    assert_eq!(rig.trail(), "a;request_timeout;700ms");
    rig.after(300);
    assert_eq!(
        rig.answer_by(Origin::Timeout, 504, ""),
        Effect::Fail(Failure::Timeout)
    );
    let mut rig = Rig::whole(rules(&["b", "c"], 1_000, 300));
    assert_eq!(rig.after(100).headers(500), call(600));
    rig.after(600);
    assert_eq!(rig.answer_by(Origin::Timeout, 504, ""), call(300));
    assert_eq!(rig.at(), "c");
}

#[test]
fn the_last_attempt_has_all_that_is_left() {
    let mut rig = Rig::whole(rules(&["b"], 1_000, 300));
    assert_eq!(rig.after(100).headers(500), call(900));
    let mut rig = Rig::whole(rules(&["a"], 1_000, 300));
    assert_eq!(rig.exchange.deadline(), Some(rig.now + ms(1_000)));
    assert_eq!(rig.wait(), Effect::Fail(Failure::Timeout));
}

#[test]
fn where_two_reserves_are_not_left_an_attempt_has_all_of_it() {
    for (after, timeout) in [(399, 301), (400, 300), (401, 599)] {
        let mut rig = Rig::whole(rules(&["b", "c"], 1_000, 300));
        rig.now += ms(after);
        assert_eq!(rig.headers(500), call(timeout), "after {after}");
    }
}

#[test]
fn nothing_is_begun_with_less_than_the_reserve() {
    // A timer that keeps the reserve may be late: 40 ms, and a tenth of it.
    for (after, begins) in [(700, true), (770, true), (771, false)] {
        let mut rig = Rig::whole(rules(&["b", "c"], 1_000, 300));
        rig.headers(500);
        rig.now += ms(after);
        let effect = rig.answer(500, "no");
        assert_eq!(effect != Effect::Deliver, begins, "after {after}");
    }
}

#[test]
fn the_shorter_of_a_request_s_own_timeout_and_the_reserve_is_kept() {
    let more = json!({"total_timeout_ms": 1_000, "reserve_ms": 300, "request_timeout_ms": 500});
    let mut rig = Rig::whole(to_with(&["b", "c"], more));
    assert_eq!(rig.wait(), call(500), "all that is left");
    assert_eq!(rig.trail(), "a;request_timeout;500ms");
}

#[test]
fn a_request_may_ask_for_a_shorter_time_and_for_no_longer_one() {
    for (configured, asked, total) in [
        (1_000, "400", Some(400)),
        (1_000, "5000", Some(1_000)),
        (0, "400", Some(400)),
    ] {
        let more = json!({"total_timeout_ms": configured, "client_controls": ["timeout"]});
        let config = config_with(to_with(&["b"], more), json!({}));
        let headers = [("x-ai-fallback-timeout-ms", asked)];
        let plan = admit(&config, &headers, &json!({"model": "m"})).unwrap();
        assert_eq!(plan.total_timeout(), total.map(ms), "{configured} {asked}");
    }
    // It is not asked where it may not ask.
    let config = config_with(
        to_with(&["b"], json!({"total_timeout_ms": 1_000})),
        json!({}),
    );
    let headers = [("x-ai-fallback-timeout-ms", "no number")];
    let plan = admit(&config, &headers, &json!({"model": "m"})).unwrap();
    assert_eq!(plan.total_timeout(), Some(ms(1_000)));
}

#[test]
fn a_time_that_makes_no_sense_is_refused() {
    let config = config_with(
        to_with(
            &["b"],
            json!({"client_controls": ["timeout", "off", "deliver"]}),
        ),
        json!({}),
    );
    for (name, value) in [
        ("x-ai-fallback-timeout-ms", "0"),
        ("x-ai-fallback-timeout-ms", "-1"),
        ("x-ai-fallback-timeout-ms", "1.5"),
        ("x-ai-fallback-timeout-ms", ""),
        ("x-ai-fallback", "on"),
        ("x-ai-fallback-deliver", "some"),
    ] {
        let refused = admit(&config, &[(name, value)], &json!({"model": "m"}));
        let Err(ai_fallback::core::reply::Problem::Header(wish)) = refused else {
            panic!("{name}: {value}: {refused:?}");
        };
        assert_eq!(wish.header, name);
    }
}

/// The router has one timeout for all attempts. What a later one leaves is kept by the request filter, a little later.
#[test]
fn with_the_router_a_later_attempt_is_cut_too() {
    let plan = plan(rules(&["b", "c"], 1_000, 300), Some("m"));
    let mut rig = Rig::by_router(plan.clone());
    let mut progress = Progress::begin(&plan);
    progress.end(
        &plan,
        ended(&plan, Outcome::Status(503)),
        ms(200),
        Room::default(),
    );
    rig.now = rig.exchange.deadline().unwrap();
    assert!(!rig.exchange.take_over(Some(progress), 2));
    assert_eq!(
        rig.step(&Event::Due),
        call(280),
        "the cut is a little later than the router's would be"
    );
    assert_eq!(
        (rig.at(), rig.trail().as_str()),
        ("c", "a;503;200ms, b;request_timeout;520ms")
    );
}

#[test]
fn a_late_timer_does_not_take_the_reserve_away() {
    for late in [0, 1, 15] {
        let mut rig = Rig::whole(rules(&["b", "c"], 1_000, 300));
        rig.headers(500);
        rig.now += ms(700 + late);
        assert_eq!(
            rig.answer_by(Origin::Timeout, 504, ""),
            call(300 - late),
            "{late}"
        );
        assert_eq!(rig.at(), "c");
    }
}

/// Where there is no total timeout there is nothing to leave.
#[test]
fn a_reserve_needs_a_total_timeout() {
    let more = json!({"reserve_ms": 300, "client_controls": ["timeout"]});
    let config = config(&config_with(to_with(&["b"], more), json!({})));
    let request = Request::default();
    let api = &config.model_apis[0];
    let plan = ai_fallback::core::plan::Plan::new(&config, api, &request, None).unwrap();
    let mut rig = Rig::begin(plan);
    assert_eq!(rig.exchange.deadline(), None);
    assert_eq!(rig.after(100_000).headers(500), CALL);
}
