//! Which services, in which order.

use ai_fallback::core::handoff::Handoff;
use ai_fallback::core::plan::Plan;
use serde_json::{Value, json};

use crate::rig::*;

/// The attempts in order, as `service/model`.
fn attempts(plan: &Plan) -> Vec<String> {
    std::iter::successors(Some(0), |&attempt| plan.after(attempt))
        .map(|attempt| {
            let step = plan.step(attempt).unwrap();
            format!("{}/{}", step.name(), step.model.unwrap_or("-"))
        })
        .collect()
}

fn chat(primary: Value, targets: Value) -> Value {
    json!({"name": "chat", "primary": primary, "fallback": {"services": targets}})
}

#[test]
fn the_higher_priority_comes_first_and_else_the_order_of_the_list() {
    let targets = json!([
        {"service": "b"}, {"service": "c", "priority": 20}, {"service": "d", "priority": -1},
        {"service": "c", "model": "x"}, {"service": "b", "model": "y", "priority": 20},
    ]);
    let plan = plan_of(
        services(),
        chat(json!({"service": "a"}), targets),
        Some("m"),
    );
    assert_eq!(attempts(&plan), ["a/m", "c/m", "b/y", "b/m", "c/x", "d/m"]);
}

#[test]
fn what_was_tried_is_skipped() {
    let targets = json!([
        {"service": "a"}, {"service": "b"}, {"service": "a", "model": "m"},
        {"service": "a", "model": "n"}, {"service": "b"}, {"service": "a", "model": "n"},
    ]);
    let api = chat(json!({"service": "a"}), targets);
    let plan_for = |model| plan_of(services(), api.clone(), model);
    assert_eq!(attempts(&plan_for(Some("m"))), ["a/m", "b/m", "a/n"]);
    assert_eq!(attempts(&plan_for(Some("n"))), ["a/n", "b/n", "a/m"]);
    assert_eq!(attempts(&plan_for(None)), ["a/-", "b/-", "a/m", "a/n"]);
}

#[test]
fn a_model_that_is_passed_through_is_sent_by_the_name_the_service_knows() {
    let services = json!({
        "a": {"cluster": "a", "models": {"gpt-4o": "gpt-4o-2024-11-20"}},
        "b": {"cluster": "b", "models": {"gpt-4o": "qwen", "named": "not used"}},
    });
    let targets = json!([{"service": "b"}, {"service": "b", "model": "named"}, {"service": "b", "model": "qwen"}]);
    let plan_for = |model| {
        plan_of(
            services.clone(),
            chat(json!({"service": "a"}), targets.clone()),
            model,
        )
    };
    assert_eq!(
        attempts(&plan_for(Some("gpt-4o"))),
        ["a/gpt-4o-2024-11-20", "b/qwen", "b/named"]
    );
    assert_eq!(
        attempts(&plan_for(Some("o3"))),
        ["a/o3", "b/o3", "b/named", "b/qwen"]
    );
}

#[test]
fn a_primary_of_the_route_is_never_what_was_tried() {
    let plan = plan_of(
        services(),
        chat(json!({}), json!([{"service": "a"}])),
        Some("m"),
    );
    assert_eq!(attempts(&plan), ["primary/m", "a/m"]);
    assert!(plan.step(0).unwrap().service.is_none());
}

#[test]
fn without_fallback_there_is_only_the_primary() {
    let disabled = json!({"enabled": false, "services": [{"service": "b"}]});
    for fallback in [Value::Null, disabled] {
        let plan = plan(fallback, Some("m"));
        assert_eq!(attempts(&plan), ["a/m"]);
        assert!(plan.fallback().is_none() && plan.step(1).is_none());
    }
}

#[test]
fn an_attempt_is_found_by_how_many_came_before() {
    let plan = plan(to(&["a", "b", "b", "c"]), Some("m"));
    let name = |made| {
        plan.nth(made)
            .and_then(|attempt| plan.step(attempt))
            .map(|step| step.name().to_owned())
    };
    assert_eq!(
        [name(0), name(1), name(2)].map(Option::unwrap),
        ["a", "b", "c"]
    );
    assert_eq!((name(3), name(usize::MAX)), (None, None));
}

#[test]
fn a_handoff_finds_its_plan_again_and_no_other() {
    let read = |name| {
        let api = json!({"name": name, "primary": {"service": "a"}, "fallback": to(&["b"])});
        config(&json!({"services": services(), "model_apis": [api]}))
    };
    let handoff = Handoff {
        api: 0,
        api_name: "chat".to_owned(),
        model: Some("m".to_owned()),
        stream: true,
        added: 0..0,
        body_len: 0,
        original: Vec::new(),
    };
    assert_eq!(
        attempts(&handoff.plan(&read("chat")).unwrap()),
        ["a/m", "b/m"]
    );
    assert!(handoff.plan(&read("other")).is_none());
    let past = Handoff { api: 7, ..handoff };
    assert!(past.plan(&read("chat")).is_none());
}
