//! What services say of their errors, and where a request goes then.

use ai_fallback::core::fallback::Effect;
use ai_fallback::core::outcome::Origin;
use serde_json::{Value, json};

use crate::rig::*;

const TOO_LONG: &str = r#"{"error":{"code":"context_length_exceeded","message":"x"}}"#;
const BROKE: &str = r#"{"error":{"type":"insufficient_quota"}}"#;
const BUSY: &str = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;

/// The end of a routed answer, with its body.
fn answers(rig: &mut Rig, status: u16, body: &str) -> Effect {
    assert_eq!(rig.headers(status), Effect::Wait, "the body says more");
    rig.last_body(body)
}

#[test]
fn an_error_by_name_or_kind_is_a_failure_whatever_its_status() {
    for (on_errors, body, falls_back) in [
        (json!(["context_length"]), TOO_LONG, true),
        (json!(["context_length_exceeded"]), TOO_LONG, true),
        (json!(["context_*"]), TOO_LONG, true),
        (json!(["quota"]), TOO_LONG, false),
        (json!(["quota"]), "{}", false),
        (json!(["quota"]), "no json", false),
    ] {
        let rules = json!({"on_status": ["5xx"], "on_errors": on_errors});
        let mut rig = Rig::whole(to_with(&["b"], rules));
        let expected = if falls_back { CALL } else { Effect::Pass };
        assert_eq!(answers(&mut rig, 400, body), expected, "{on_errors} {body}");
    }
}

#[test]
fn an_exception_wins_over_all_else() {
    let rules = json!({
        "except_errors": ["content_policy_violation", "quota"], "on_errors": ["quota"],
        "error_services": {"quota": [{"service": "c"}]},
    });
    for body in [BROKE, r#"{"error":{"code":"content_policy_violation"}}"#] {
        let mut rig = Rig::whole(to_with(&["b"], rules.clone()));
        assert_eq!(answers(&mut rig, 503, body), Effect::Pass, "{body}");
    }
    let mut rig = Rig::whole(to_with(&["b"], rules));
    assert_eq!(answers(&mut rig, 503, "{}"), CALL);
}

#[test]
fn an_error_stands_in_the_trail_only_where_errors_matter() {
    let mut rig = Rig::whole(to_with(&["b"], json!({"on_errors": ["quota"]})));
    answers(&mut rig, 429, TOO_LONG);
    assert_eq!(rig.trail(), "a;429;0ms;context_length");
    let mut rig = Rig::whole(to(&["b"]));
    assert_eq!(rig.headers(429), CALL, "the body is not waited for");
    assert_eq!(rig.trail(), "a;429;0ms");
}

/// `a` first, `b` and `c` in the ordinary course, and others for each kind of error.
fn special() -> Value {
    to_with(
        &["b", "c"],
        json!({"on_status": ["5xx"], "error_services": {
            "context_length": [{"service": "d", "model": "long"}, {"service": "c", "model": "long"}],
            "quota": [{"service": "c"}],
        }}),
    )
}

#[test]
fn after_such_an_error_its_own_services_are_tried_first_and_then_the_others() {
    let mut rig = Rig::whole(special());
    assert_eq!(
        answers(&mut rig, 400, TOO_LONG),
        CALL,
        "such an error is a failure"
    );
    let step = rig.exchange.current().unwrap();
    assert_eq!((step.name(), step.model.as_deref()), ("d", Some("long")));
    assert_eq!(rig.answer(400, TOO_LONG), CALL);
    assert_eq!(
        rig.exchange.current().unwrap().model.as_deref(),
        Some("long")
    );
    assert_eq!(rig.at(), "c");
    assert_eq!(
        (rig.answer(500, "no"), rig.at()),
        (CALL, "b"),
        "the ordinary course"
    );
    assert_eq!(
        (rig.answer(500, BROKE), rig.at()),
        (CALL, "c"),
        "with another model"
    );
    assert_eq!(rig.answer(500, "last"), Effect::Deliver);
    assert_eq!(
        rig.trail(),
        "a;400;0ms;context_length, d;400;0ms;context_length, c;500;0ms, b;500;0ms;quota, c;500;0ms"
    );
}

#[test]
fn other_errors_go_on_in_the_ordinary_course() {
    let mut rig = Rig::whole(special());
    assert_eq!((answers(&mut rig, 503, BUSY), rig.at()), (CALL, "b"));
    let mut rig = Rig::whole(special());
    assert_eq!(answers(&mut rig, 400, BUSY), Effect::Pass, "no failure");
    let mut rig = Rig::whole(special());
    assert_eq!(
        (rig.headers_by(Origin::Transport, 503), rig.at()),
        (CALL, "b")
    );
}

#[test]
fn an_error_in_a_stream_has_its_kind_too() {
    let mut rig = Rig::stream(special());
    rig.headers(200);
    assert_eq!(
        rig.body(&format!("event: error\ndata: {TOO_LONG}\n\n")),
        CALL
    );
    assert_eq!(
        (rig.at(), rig.trail().as_str()),
        ("d", "a;stream_error;0ms;context_length")
    );
}

#[test]
fn a_preset_is_what_a_service_says_when_it_cannot_answer_now() {
    for (status, falls_back) in [
        (400, false),
        (401, false),
        (404, false),
        (408, true),
        (425, true),
        (429, true),
        (500, true),
        (529, true),
    ] {
        let mut rig = Rig::whole(to_with(&["b"], json!({"on_status": "availability"})));
        let expected = if falls_back { CALL } else { Effect::Pass };
        assert_eq!(rig.headers(status), expected, "{status}");
    }
}

/// A body of any length is looked into as far as errors are long.
#[test]
fn a_long_refusal_is_judged_by_its_start() {
    let mut rig = Rig::whole(to_with(
        &["b"],
        json!({"on_status": ["5xx"], "on_errors": ["quota"]}),
    ));
    rig.headers(400);
    let long = format!("{{\"x\":\"{}\"", "y".repeat(1 << 17));
    assert_eq!(rig.body(&long), Effect::Pass, "it is not waited for");
}
