//! Which services, in which order.

use ai_fallback::core::plan::{Plan, Request, Step};
use serde_json::{Value, json};

use crate::rig::*;

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
fn a_model_has_an_alias_where_its_name_is_configured() {
    let services = json!({
        "a": {"cluster": "a", "models": {"gpt-4o": "same", "gpt-4": "same", "o3": "o3"}},
        "b": {"cluster": "b"},
    });
    let targets = json!([{"service": "b"}, {"service": "b", "model": "named"}]);
    let api = chat(json!({"service": "a"}), targets);
    let aliases = |model, is_counted| {
        let telemetry = json!({"token_usage": is_counted});
        let config =
            config(&json!({"services": services, "model_apis": [api], "telemetry": telemetry}));
        let request = Request {
            model,
            ..Request::default()
        };
        let plan = Plan::new(&config, &config.model_apis[0], &request, None).unwrap();
        let alias = |step: &Step| step.alias.as_deref().unwrap_or("-").to_owned();
        let aliases: Vec<String> = plan.steps().map(|(_, step)| alias(step)).collect();
        aliases
    };
    assert_eq!(aliases(Some("gpt-4o"), true), ["gpt-4o", "-", "named"]);
    assert_eq!(aliases(Some("gpt-4"), true), ["gpt-4", "-", "named"]);
    assert_eq!(aliases(Some("o3"), true), ["o3", "-", "named"]);
    // No name that anybody is meant to ask for.
    assert_eq!(aliases(Some("same"), true), ["-", "-", "named"]);
    assert_eq!(aliases(None, true), ["-", "-", "named"]);
    assert_eq!(aliases(Some("gpt-4o"), false), ["-", "-", "-"]);
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

/// A service may stand in the list more than once: the most attempts are those that can be made at all.
#[test]
fn no_more_attempts_are_allowed_than_are_configured() {
    let rules = |more| plan(to_with(&["b", "c"], more), Some("m"));
    assert_eq!(rules(json!({})).max_attempts(), 3);
    assert_eq!(rules(json!({"max_attempts": 2})).max_attempts(), 2);
    assert_eq!(rules(json!({"max_attempts": 9})).max_attempts(), 3);
    let retried = json!({"services": [{"service": "b", "retries": 2}, {"service": "c"}]});
    assert_eq!(rules(retried).max_attempts(), 5);
    assert_eq!(plan(Value::Null, Some("m")).max_attempts(), 1);
}

/// An attempt whose body is as the client has sent it is not held.
#[test]
fn a_body_is_changed_where_the_model_has_another_name_or_the_request_named_others() {
    let services = json!({
        "a": {"cluster": "a", "models": {"known": "other"}},
        "b": {"cluster": "b"},
    });
    let targets = json!([{"service": "b"}, {"service": "b", "model": "named"}]);
    let api = json!({
        "name": "chat",
        "primary": {"service": "a"},
        "fallback": {"services": targets, "client_models": {}},
    });
    let changes = |plan: &Plan| -> Vec<bool> {
        plan.steps()
            .map(|(_, step)| plan.changes_body(step))
            .collect()
    };
    for (model, expected) in [
        (Some("m"), [false, false, true].as_slice()),
        (Some("known"), &[true, false, true]),
        // `b` is asked for it once.
        (Some("named"), &[false, false]),
        // There is none, and one is configured.
        (None, &[false, false, true]),
    ] {
        let plan = plan_of(services.clone(), api.clone(), model);
        assert_eq!(changes(&plan), expected, "{model:?}");
    }
    // `models` of the body is not sent, so each body is another.
    let config = json!({"services": services, "model_apis": [api]});
    let body = json!({"model": "m", "models": ["m", "n"]});
    let plan = admit(&config, &[], &body).unwrap();
    assert!(plan.uses_client_models());
    assert!(changes(&plan).iter().all(|changes| *changes));
}

#[test]
fn what_is_not_read_is_not_changed() {
    let config = config(&config_with(to(&["b"]), json!({})));
    let step = Step::unread(&config.model_apis[0]);
    let plan = Plan::unread(&config.model_apis[0], step.clone());
    assert!(!plan.changes_body(&step) && plan.fallback().is_none());
    assert_eq!(plan.max_attempts(), 1);
}
