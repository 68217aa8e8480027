//! Services that are skipped for a time, as one request meets them.

use std::time::Duration;

use ai_fallback::core::cooldown::Sign;
use ai_fallback::core::fallback::Effect;
use ai_fallback::core::outcome::Origin;
use ai_fallback::core::plan::{Health, Plan};
use serde_json::{Value, json};

use crate::rig::*;

fn plan_with(rules: Value, health: &[(&str, Health, u64)]) -> Plan {
    with_health(plan(rules, Some("m")), health)
}

const COOLS: Health = Health::Cooling;

#[test]
fn a_service_that_cools_is_skipped_and_stands_in_the_trail() {
    let mut rig = Rig::begin(plan_with(to(&["b", "c"]), &[("b", COOLS, 9)]));
    assert_eq!((rig.after(5).headers(503), rig.at()), (CALL, "c"));
    assert_eq!(rig.answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;503;5ms, b;cooling, c;200;0ms");
}

#[test]
fn a_primary_that_cools_is_skipped_by_a_callout() {
    let mut rig = Rig::begin(plan_with(to(&["b"]), &[("a", COOLS, 9)]));
    assert_eq!((rig.first, rig.at()), (CALL, "b"));
    assert_eq!(rig.answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "a;cooling, b;200;0ms");
    assert_eq!(rig.exchange.answered_by(), Some("b"));
}

#[test]
fn those_behind_the_answer_are_not_in_the_trail() {
    let mut rig = Rig::begin(plan_with(to(&["b", "c"]), &[("c", COOLS, 9)]));
    rig.headers(503);
    rig.answer(200, "{}");
    assert_eq!(rig.trail(), "a;503;0ms, b;200;0ms");
    let mut rig = Rig::begin(plan_with(to(&["b"]), &[("b", COOLS, 9)]));
    assert_eq!(rig.headers(503), Effect::Pass, "nobody is left");
    assert_eq!(rig.trail(), "a;503;0ms, b;cooling");
}

#[test]
fn where_all_cool_the_one_that_is_ready_first_is_tried() {
    for (until, first, trail) in [
        ([30, 10, 20], "b", "a;cooling, b;500;0ms, c;cooling"),
        ([10, 10, 10], "a", "a;500;0ms, b;cooling, c;cooling"),
        ([30, 20, 10], "c", "a;cooling, b;cooling, c;500;0ms"),
    ] {
        let health: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(until)
            .map(|(name, until)| (*name, COOLS, until))
            .collect();
        let mut rig = Rig::begin(plan_with(to(&["b", "c"]), &health));
        assert_eq!(rig.at(), first);
        let effect = match rig.first {
            Effect::Pass => rig.headers(500),
            _ => rig.answer(500, "no"),
        };
        assert!(
            matches!(effect, Effect::Pass | Effect::Deliver),
            "it is the only one"
        );
        assert_eq!(rig.trail(), trail);
    }
}

#[test]
fn those_for_a_kind_of_error_may_cool_too() {
    let rules = to_with(
        &["b"],
        json!({"error_services": {"quota": [{"service": "c"}, {"service": "d"}]}}),
    );
    let mut rig = Rig::begin(plan_with(rules, &[("c", COOLS, 9)]));
    rig.headers(429);
    assert_eq!(
        rig.last_body(r#"{"error":{"type":"insufficient_quota"}}"#),
        CALL
    );
    assert_eq!(
        (rig.at(), rig.trail().as_str()),
        ("d", "a;429;0ms;quota, c;cooling")
    );
}

#[test]
fn it_is_asked_whether_a_service_would_be_the_first() {
    let mut plan = plan(to(&["b", "c"]), Some("m"));
    let asked = std::cell::RefCell::new(Vec::new());
    plan.check_health(|service, is_first| {
        asked.borrow_mut().push((service.to_owned(), is_first));
        let health = if service == "a" { COOLS } else { Health::Good };
        (health, Duration::ZERO)
    });
    let expected = [("a", true), ("b", true), ("c", false)];
    assert_eq!(
        asked.into_inner(),
        expected.map(|(name, first)| (name.to_owned(), first))
    );
}

// What a request tells the others.

fn told(
    health: &[(&str, Health, u64)],
    end: impl FnOnce(&mut Rig) -> Effect,
) -> Vec<(String, Sign)> {
    let mut rig = Rig::begin(plan_with(to(&["b"]), health));
    end(&mut rig);
    let reports = rig.reports();
    assert_eq!(rig.reports(), [], "once");
    reports
}

#[test]
fn a_failure_is_told_of_any_service_and_an_answer_of_a_troubled_one() {
    let troubled = [("a", Health::Troubled, 0)];
    let sign = |sign| vec![("a".to_owned(), sign)];
    assert_eq!(told(&[], |rig| rig.headers(503)), sign(Sign::Failing));
    assert_eq!(told(&[], |rig| rig.headers(429)), sign(Sign::Failing));
    assert_eq!(
        told(&[], |rig| rig.headers_later(429, 700)),
        sign(Sign::RetryAfter(ms(700)))
    );
    assert_eq!(
        told(&[], |rig| rig.headers_by(Origin::Transport, 503)),
        sign(Sign::Failing)
    );
    assert_eq!(
        told(&[], |rig| rig.headers_by(Origin::Timeout, 504)),
        sign(Sign::Failing)
    );
    let good = |rig: &mut Rig| {
        rig.headers(200);
        rig.body("{")
    };
    assert_eq!(told(&[], good), []);
    assert_eq!(told(&troubled, good), sign(Sign::Alive));
}

#[test]
fn what_a_request_causes_itself_says_nothing_against_its_service() {
    for status in [400, 401, 404, 413] {
        assert_eq!(told(&[], |rig| rig.headers(status)), [], "{status}");
        assert_eq!(
            told(&[], |rig| rig.headers_later(status, 700)),
            [],
            "{status}"
        );
        // It has answered.
        let told = told(&[("a", Health::Troubled, 0)], |rig| rig.headers(status));
        assert_eq!(told, [("a".to_owned(), Sign::Alive)], "{status}");
    }
    assert_eq!(told(&[], |rig| rig.headers_by(Origin::Gateway, 503)), []);
    assert_eq!(
        told(&[("a", Health::Troubled, 0)], |rig| rig
            .headers_by(Origin::Gateway, 200)),
        []
    );
}

#[test]
fn each_attempt_is_told_at_its_end() {
    let mut rig = Rig::begin(plan_with(to(&["b", "c"]), &[]));
    rig.headers(503);
    assert_eq!(rig.reports(), [("a".to_owned(), Sign::Failing)]);
    rig.answer_later(503, 40);
    assert_eq!(rig.reports(), [("b".to_owned(), Sign::RetryAfter(ms(40)))]);
    rig.answer(200, "{}");
    assert_eq!(rig.reports(), []);
    // Nothing is known of where the route leads.
    let mut api = api(to(&["b"]));
    api["primary"] = json!({});
    let mut rig = Rig::begin(plan_of(services(), api, Some("m")));
    rig.headers(503);
    assert_eq!(rig.reports(), []);
}

#[test]
fn a_client_that_gives_a_service_no_time_says_nothing_about_it() {
    let more = json!({"total_timeout_ms": 1_000, "client_controls": ["timeout"]});
    let config = config_with(to_with(&["b"], more), json!({}));
    for (asked, told) in [
        ("100", vec![]),
        ("5000", vec![("a".to_owned(), Sign::Failing)]),
    ] {
        let headers = [("x-ai-fallback-timeout-ms", asked)];
        let mut rig = Rig::begin(admit(&config, &headers, &json!({"model": "m"})).unwrap());
        rig.wait();
        assert_eq!(rig.reports(), told, "{asked}");
    }
}
