//! What became of a request, as access logs tell it.

use ai_fallback::core::outcome::Origin;
use ai_fallback::core::plan::Health;
use serde_json::{Value, json};

use crate::rig::*;

/// Result, service, model and reason.
fn told(rig: &Rig) -> [&str; 4] {
    let exchange = &rig.exchange;
    let result = match exchange.is_over() {
        true => exchange.progress().result().label(),
        false => "-",
    };
    let all = [
        Some(result),
        exchange.answered_by(),
        exchange.answered_with(),
        exchange.reason(),
    ];
    all.map(|value| value.unwrap_or("-"))
}

fn asked(fallback: Value) -> Rig {
    Rig::whole(fallback)
}

#[test]
fn a_good_answer_tells_who_gave_it_and_why_not_the_first() {
    let mut rig = asked(to(&["b"]));
    rig.headers(200);
    rig.body("{");
    assert_eq!(told(&rig), ["primary", "a", "m", "-"]);
    let mut rig = asked(to(&["b"]));
    rig.headers(503);
    rig.answer(200, "{}");
    assert_eq!(told(&rig), ["fallback", "b", "m", "503"]);
    let mut rig = asked(to_with(&["b"], json!({"on_status": ["5xx"]})));
    rig.headers(404);
    assert_eq!(
        told(&rig),
        ["primary", "a", "m", "-"],
        "no failure by the rules"
    );
}

#[test]
fn a_failure_tells_why_not_the_first() {
    let mut rig = asked(to(&["b"]));
    rig.headers(429);
    rig.answer(500, "no");
    assert_eq!(told(&rig), ["failed", "b", "m", "429"]);
    let mut rig = asked(to(&["b"]));
    rig.headers_by(Origin::Transport, 503);
    rig.answer_by(Origin::Transport, 503, "");
    assert_eq!(told(&rig), ["failed", "-", "-", "reset"]);
    let mut rig = asked(Value::Null);
    rig.headers(503);
    assert_eq!(told(&rig), ["failed", "a", "m", "-"]);
    let mut rig = asked(Value::Null);
    rig.headers_by(Origin::Transport, 503);
    assert_eq!(
        told(&rig),
        ["failed", "-", "-", "reset"],
        "Envoy's own answer"
    );
}

#[test]
fn an_answer_of_the_gateway_is_intercepted() {
    let mut rig = asked(to_with(&["b"], json!({"only_backend_errors": true})));
    rig.headers_by(Origin::Gateway, 429);
    assert_eq!(told(&rig), ["intercepted", "-", "-", "-"]);
}

#[test]
fn a_service_that_was_skipped_is_the_reason_where_it_came_first() {
    let with = |health| Rig::begin(with_health(plan(to(&["b"]), Some("m")), health));
    let mut rig = with(&[("a", Health::Cooling, 9)]);
    rig.answer(200, "{}");
    assert_eq!(told(&rig), ["fallback", "b", "m", "cooling"]);
    let mut rig = with(&[("b", Health::Cooling, 9)]);
    rig.headers(503);
    assert_eq!(
        told(&rig),
        ["failed", "a", "m", "-"],
        "the answer of the first"
    );
}

#[test]
fn without_an_answer_only_what_was_tried_is_told() {
    let mut rig = asked(to(&["b"]));
    assert_eq!(told(&rig), ["-", "-", "-", "-"]);
    rig.headers(503);
    assert_eq!(told(&rig), ["-", "-", "-", "503"]);
}
