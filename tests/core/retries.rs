//! The same service again: when, after how long, and how often.

use ai_fallback::core::config::Config;
use ai_fallback::core::fallback::{Effect, Event, Failure};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::Plan;
use ai_fallback::core::progress::{Progress, Room};
use serde_json::{Value, json};

use crate::rig::*;

/// `a` may be tried again so often, then `b` once.
fn rules(retries: u32, more: Value) -> Plan {
    let mut fallback = to_with(
        &["b"],
        json!({"retry": {"backoff_ms": 100, "max_backoff_ms": 300, "max_retry_after_ms": 1_000}}),
    );
    for (field, value) in more.as_object().unwrap() {
        fallback[field] = value.clone();
    }
    let mut api = api(fallback);
    api["primary"]["retries"] = json!(retries);
    plan_of(services(), api, Some("m"))
}

fn resting(rig: &Rig) -> u64 {
    let until = rig.exchange.deadline().expect("it rests");
    u64::try_from((until - rig.now).as_millis()).unwrap()
}

#[test]
fn a_service_is_tried_again_before_the_next_one_is() {
    let mut rig = Rig::begin(rules(2, json!({})));
    for status in [503, 429] {
        let effect = match rig.exchange.is_routed() {
            true => rig.after(10).headers(status),
            false => rig.after(10).answer(status, "no"),
        };
        assert_eq!(effect, Effect::Wait, "it rests");
        assert_eq!((rig.wait(), rig.at()), (CALL, "a"));
    }
    assert_eq!(rig.after(10).answer(500, "no"), CALL);
    assert_eq!(rig.at(), "b");
    assert_eq!(rig.answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;503;10ms, a;429;10ms, a;500;10ms, b;200;0ms");
}

#[test]
fn a_wait_is_half_to_all_of_a_time_that_doubles_up_to_its_limit() {
    let plan = rules(4, json!({}));
    let mut seen = [[u64::MAX, 0]; 4];
    for random in 0..500 {
        let mut progress = Progress::begin(&plan);
        for bounds in &mut seen {
            let room = Room {
                random,
                ..Room::default()
            };
            progress.end(&plan, ended(&plan, Outcome::Reset), ms(0), room);
            let wait = u64::try_from(progress.wait().as_millis()).unwrap();
            *bounds = [bounds[0].min(wait), bounds[1].max(wait)];
        }
    }
    for ([least, most], [from, to]) in
        seen.into_iter()
            .zip([[50, 100], [100, 200], [150, 300], [150, 300]])
    {
        assert!(
            from <= least && most <= to,
            "{least} to {most}, of {from} to {to}"
        );
        assert!(
            most - least > (to - from) / 2,
            "they differ: {least} to {most}"
        );
    }
}

#[test]
fn a_retry_after_is_waited_for_within_its_limit() {
    for (asked, wait) in [(0, 50..=100), (700, 700..=700), (1_000, 1_000..=1_000)] {
        let mut rig = Rig::begin(rules(1, json!({})));
        assert_eq!(rig.headers_later(429, asked), Effect::Wait);
        assert!(wait.contains(&resting(&rig)), "{asked}: {}", resting(&rig));
        assert_eq!((rig.wait(), rig.at()), (CALL, "a"));
    }
    let mut rig = Rig::begin(rules(1, json!({})));
    assert_eq!(rig.headers_later(503, 1_001), CALL);
    assert_eq!(rig.at(), "b", "too long to wait for");
    let mut rig = Rig::begin(rules(2, json!({})));
    rig.headers(503);
    rig.wait();
    assert_eq!(
        (rig.answer_later(503, 600), resting(&rig)),
        (Effect::Wait, 600)
    );
}

#[test]
fn a_timeout_is_never_tried_again() {
    let mut rig = Rig::begin(rules(3, json!({"request_timeout_ms": 500})));
    assert_eq!(rig.wait(), call(500));
    assert_eq!(
        (rig.at(), rig.trail().as_str()),
        ("b", "a;request_timeout;500ms")
    );
    let mut rig = Rig::begin(rules(3, json!({"request_timeout_ms": 500})));
    rig.headers(503);
    assert_eq!(rig.wait(), call(500));
    rig.after(500);
    assert_eq!(rig.answer_by(Origin::Timeout, 504, ""), call(500));
    assert_eq!(rig.at(), "b");
}

#[test]
fn what_the_request_itself_causes_is_not_tried_again() {
    for status in [400, 401, 404, 413, 422] {
        let mut rig = Rig::begin(rules(3, json!({})));
        assert_eq!(rig.headers(status), CALL);
        assert_eq!(rig.at(), "b", "{status}");
    }
    for status in [408, 425, 429, 500, 503, 599] {
        let mut rig = Rig::begin(rules(3, json!({})));
        assert_eq!(
            (rig.headers(status), rig.at()),
            (Effect::Wait, "a"),
            "{status}"
        );
    }
    let mut rig = Rig::begin(rules(3, json!({})));
    assert_eq!(
        rig.headers_by(Origin::Gateway, 503),
        CALL,
        "the gateway says so"
    );
    let mut rig = Rig::begin(rules(3, json!({})));
    assert_eq!(rig.headers_by(Origin::Transport, 503), Effect::Wait);
}

#[test]
fn a_refused_key_is_not_tried_again_at_any_model_of_the_service() {
    let targets = json!([
        {"service": "a", "model": "n"}, {"service": "b"}, {"service": "a", "model": "o"}, {"service": "b", "model": "n"},
    ]);
    for status in [401, 402, 403] {
        let mut rig = Rig::begin(rules(2, json!({"services": targets})));
        assert_eq!((rig.headers(status), rig.at()), (CALL, "b"), "{status}");
        assert_eq!(rig.answer(500, "no"), CALL);
        assert_eq!(rig.exchange.current().unwrap().model.as_deref(), Some("n"));
        assert_eq!(rig.answer(500, "last"), Effect::Deliver);
        assert_eq!(rig.trail(), format!("a;{status};0ms, b;500;0ms, b;500;0ms"));
    }
    // What the route leads to is not known, so neither is whose key it was.
    let mut api = api(to(&["a"]));
    api["primary"] = json!({});
    let mut rig = Rig::begin(plan_of(services(), api, Some("m")));
    assert_eq!((rig.headers(401), rig.at()), (CALL, "a"));
}

#[test]
fn there_are_at_most_so_many_attempts_with_retries_and_all() {
    for (max, trail) in [
        (1, "a;503;0ms"),
        (2, "a;503;0ms, a;reset;0ms"),
        (3, "a;503;0ms, a;reset;0ms, b;reset;0ms"),
        (9, "a;503;0ms, a;reset;0ms, b;reset;0ms"),
    ] {
        let plan = rules(1, json!({"max_attempts": max}));
        assert_eq!(plan.max_attempts(), max.min(3));
        let mut rig = Rig::begin(plan);
        let mut effect = rig.headers(503);
        while !rig.exchange.is_over() {
            effect = match effect {
                Effect::Wait => rig.wait(),
                _ => rig.refused(),
            };
        }
        assert_eq!(rig.trail(), trail);
        let expected = match max {
            1 => Effect::Pass,
            _ => Effect::Fail(Failure::Transport),
        };
        assert_eq!(effect, expected);
    }
}

#[test]
fn the_last_of_so_many_attempts_has_no_first_packet_timeout() {
    let limits = json!({"first_packet_timeout_ms": 300, "max_attempts": 1});
    assert_eq!(
        Rig::stream(to_with(&["b"], limits)).exchange.deadline(),
        None
    );
}

#[test]
fn no_wait_goes_past_the_total_timeout() {
    let mut rig = Rig::begin(rules(1, json!({"total_timeout_ms": 500})));
    assert_eq!(
        rig.headers_later(503, 480),
        call(500),
        "only the slack would be left"
    );
    assert_eq!(rig.at(), "b");
    let mut rig = Rig::begin(rules(
        1,
        json!({"total_timeout_ms": 500, "reserve_ms": 200}),
    ));
    assert_eq!(rig.headers_later(503, 361), call(500));
    assert_eq!(rig.at(), "b", "less than the reserve would be left");
    let mut rig = Rig::begin(rules(
        1,
        json!({"total_timeout_ms": 500, "reserve_ms": 200}),
    ));
    assert_eq!(rig.headers_later(503, 300), Effect::Wait);
    assert_eq!((rig.wait(), rig.at()), (call(200), "a"));
}

/// The router's timeout runs while an attempt rests: a long wait would use it up.
#[test]
fn with_the_router_a_wait_is_at_most_half_of_its_timeout() {
    let plan = rules(1, json!({"request_timeout_ms": 1_000}));
    for (asked, rests) in [(500, true), (501, false)] {
        let mut progress = Progress::begin(&plan);
        let mut end = ended(&plan, Outcome::Status(503));
        end.retry_after = Some(ms(asked));
        let room = Room {
            max_wait: Some(ms(500)),
            ..Room::default()
        };
        assert!(progress.end(&plan, end, ms(0), room));
        assert_eq!(progress.is_repeat(), rests, "{asked}");
    }
}

/// It began when it had rested, and not when the one before had ended.
#[test]
fn the_time_of_an_attempt_that_is_taken_over_does_not_hold_its_wait() {
    let plan = rules(
        2,
        json!({"request_timeout_ms": 400, "total_timeout_ms": 5_000, "reserve_ms": 100}),
    );
    let mut rig = Rig::by_router(plan.clone());
    let mut progress = Progress::begin(&plan);
    for _ in 0..2 {
        let mut end = ended(&plan, Outcome::Status(503));
        end.retry_after = Some(ms(300));
        progress.end(&plan, end, ms(10), Room::default());
    }
    // Failed at 10, sent again at 310, failed at 320, sent again at 620.
    assert_eq!((progress.took(), progress.wait()), (ms(320), ms(300)));
    rig.now = rig.exchange.deadline().unwrap();
    rig.exchange.take_over(Some(progress), 3);
    assert_eq!(rig.step(&Event::Due), Effect::Wait, "it rests yet");
    assert_eq!(rig.wait(), call(400));
    assert_eq!(rig.now, ms(5_000 + 620 + 400 + 20));
    assert_eq!(
        rig.trail(),
        "a;503;10ms, a;503;10ms, a;request_timeout;420ms"
    );
    assert_eq!(rig.at(), "b");
}

#[test]
fn retries_of_a_service_in_the_list_are_its_own() {
    let config: Config = config(&json!({"services": services(), "model_apis": [api(json!({
        "services": [{"service": "b", "retries": 1}, {"service": "c"}],
        "retry": {"backoff_ms": 0, "max_backoff_ms": 0},
    }))]}));
    let request = ai_fallback::core::plan::Request::default();
    let plan = Plan::new(&config, &config.model_apis[0], &request, None).unwrap();
    assert_eq!(attempts(&plan), ["a/-", "b/-", "b/-", "c/-"]);
    assert_eq!(plan.max_attempts(), 4);
}

/// An error event, like a `400`, may be the fault of the request.
#[test]
fn an_error_in_a_stream_that_the_prompt_causes_is_neither_repeated_nor_told() {
    for (code, repeats) in [
        ("context_length_exceeded", false),
        ("content_policy_violation", false),
        ("insufficient_quota", false),
        ("server_error", true),
    ] {
        let retry = json!({"backoff_ms": 100});
        let mut api = api(to_with(&["b"], json!({"retry": retry})));
        api["primary"]["retries"] = 1.into();
        let mut rig = Rig::begin(planned(services(), api, Some("m"), true));
        rig.headers(200);
        let data = json!({"error": {"code": code, "message": "no"}});
        let effect = rig.body(&format!("data: {data}\n\n"));
        assert_eq!(effect == Effect::Wait, repeats, "{code}");
        assert_eq!(rig.trail(), "a;stream_error;0ms", "no rule reads errors");
        let is_told = repeats || code == "insufficient_quota";
        assert_eq!(!rig.reports().is_empty(), is_told, "{code}");
    }
}
