//! Requests that name their models and services themselves, in `models`.

use ai_fallback::core::fallback::{Effect, Failure};
use ai_fallback::core::plan::Denied;
use ai_fallback::core::reply::Problem;
use serde_json::{Value, json};

use crate::rig::*;

/// `a` is the primary, `b` the configured fallback; `b` and `d` have names of their own for `m`.
fn config(client_models: Value) -> Value {
    let mut config = config_with(
        to_with(&["b"], json!({"client_models": client_models})),
        json!({}),
    );
    for (service, own) in [("d", "m-of-d"), ("b", "m-of-b")] {
        config["services"][service]["models"] = json!({"m": own});
    }
    config
}

fn tried(client_models: Value, body: Value) -> Vec<String> {
    let plan = admit(&config(client_models), &[], &body).unwrap();
    assert_eq!(plan.uses_client_models(), body.get("models").is_some());
    attempts(&plan)
}

#[test]
fn the_models_of_a_request_come_after_its_model_and_before_what_is_configured() {
    let body = json!({"model": "x", "models": ["c:y", "d/z"]});
    assert_eq!(tried(json!({}), body), ["a/x", "c/y", "d/z", "b/x"]);
}

#[test]
fn an_entry_names_a_service_and_a_model_or_a_model_alone() {
    for (entry, expected) in [
        ("c:y", "c/y"),
        ("c/y", "c/y"),
        ("c:org/y", "c/org/y"),
        ("c/org:y/z", "c/org:y/z"),
        ("d:m", "d/m-of-d"),
        // No service of this name: all of it is a model, and goes to the primary.
        ("org/y", "a/org/y"),
        ("org:y", "a/org:y"),
        ("C:y", "a/C:y"),
        ("c:", "a/c:"),
        ("c", "a/c"),
        (":y", "a/:y"),
        ("y", "a/y"),
    ] {
        let body = json!({"model": "x", "models": [entry]});
        assert_eq!(tried(json!({}), body), ["a/x", expected, "b/x"], "{entry}");
    }
}

#[test]
fn a_model_that_several_services_know_is_tried_at_each() {
    let body = json!({"model": "x", "models": ["m"]});
    // First those of the Model API, then the others by name.
    assert_eq!(
        tried(json!({}), body),
        ["a/x", "b/m-of-b", "d/m-of-d", "b/x"]
    );
}

#[test]
fn without_a_model_the_first_entry_is_the_primary() {
    for (models, expected) in [
        (json!(["c:y", "d:z"]), vec!["c/y", "d/z", "b/y"]),
        (json!(["y"]), vec!["a/y", "b/y"]),
        (json!(["m"]), vec!["b/m-of-b", "d/m-of-d"]),
        (json!(["c:y", "c:y", "b:y"]), vec!["c/y", "b/y"]),
    ] {
        assert_eq!(tried(json!({}), json!({"models": models})), expected);
    }
}

#[test]
fn what_is_configured_follows_only_where_that_is_wanted() {
    let only = json!({"then_configured": false});
    let body = json!({"model": "x", "models": ["c:y"]});
    assert_eq!(tried(only.clone(), body), ["a/x", "c/y"]);
    assert_eq!(tried(only, json!({"model": "x"})), ["a/x", "b/x"]);
}

#[test]
fn the_list_is_not_read_where_that_is_not_configured() {
    let body = json!({"model": "x", "models": 7});
    for config in [
        config(json!({"enabled": false})),
        config_with(to(&["b"]), json!({})),
        config_with(Value::Null, json!({})),
    ] {
        let plan = admit(&config, &[], &body).unwrap();
        assert_eq!(plan.step(0).unwrap().model.as_deref(), Some("x"));
        assert!(!plan.uses_client_models());
    }
}

#[test]
fn a_list_that_cannot_be_read_is_refused() {
    for (models, max) in [
        (json!("c:y"), 3),
        (json!([]), 3),
        (json!([7]), 3),
        (json!([""]), 3),
        (json!(["y", "z"]), 1),
    ] {
        for model in [json!({}), json!({"model": "x"})] {
            let mut body = model;
            body["models"] = models.clone();
            let refused = admit(&config(json!({"max": max})), &[], &body);
            assert!(matches!(refused, Err(Problem::Body(_))), "{body}");
        }
    }
}

#[test]
fn a_request_that_wants_no_fallback_has_its_first_model_and_no_more() {
    let mut config = config(json!({}));
    config["model_apis"][0]["fallback"]["client_controls"] = json!(["off"]);
    config["model_apis"][0]["primary"]["retries"] = json!(3);
    for (body, first) in [
        (json!({"model": "x", "models": ["c:y"]}), "a/x"),
        (json!({"models": ["m", "c:y"]}), "b/m-of-b"),
        (json!({"model": "x"}), "a/x"),
    ] {
        let plan = admit(&config, &[("x-ai-fallback", "off")], &body).unwrap();
        assert_eq!(attempts(&plan), [first]);
        assert_eq!(plan.max_attempts(), 1);
    }
}

#[test]
fn the_first_entry_may_choose_the_model_api() {
    let mut config = config(json!({}));
    let mut other = api(to_with(&["c"], json!({"client_models": {}})));
    other["name"] = json!("other");
    other["match"] = json!({"models": ["gpt-*"]});
    other["primary"] = json!({"service": "d"});
    config["model_apis"]
        .as_array_mut()
        .unwrap()
        .insert(0, other);
    for (models, name) in [
        (json!(["gpt-4o"]), "other"),
        (json!(["b:gpt-4o"]), "other"),
        (json!(["y", "gpt-4o"]), "chat"),
    ] {
        let plan = admit(&config, &[], &json!({"models": models})).unwrap();
        assert_eq!(plan.api().name, name, "{models}");
    }
}

/// Where the first attempt goes elsewhere, a route that leads to the primary alone is of no use.
#[test]
fn a_first_service_that_is_not_the_primary_is_called() {
    let plan = |models: Value| admit(&config(json!({})), &[], &json!({"models": models})).unwrap();
    let mut rig = Rig::begin(plan(json!(["c:y", "a:z"])));
    assert_eq!((rig.first, rig.at()), (CALL, "c"));
    assert_eq!(rig.after(5).answer(503, "no"), CALL);
    assert_eq!(rig.at(), "a");
    assert_eq!(rig.after(7).answer(200, "{}"), Effect::Deliver);
    assert_eq!(rig.trail(), "c;503;5ms, a;200;7ms");
    assert_eq!(Rig::begin(plan(json!(["a:y"]))).first, Effect::Pass);
}

#[test]
fn an_entry_that_the_caller_may_not_use_is_named() {
    let mut config = config(json!({}));
    let access = |policy: Value| json!({"identity_header": "x-team", "default_policy": policy});
    for (policy, body, denied) in [
        (
            json!({"deny": {"services": ["c"]}}),
            json!({"model": "x", "models": ["d:y", "c:y"]}),
            Denied::Entry("c:y".to_owned()),
        ),
        (
            json!({"deny": {"models": ["y"]}}),
            json!({"models": ["d:y"]}),
            Denied::Entry("d:y".to_owned()),
        ),
        (
            json!({"allow": {"models": ["x"]}}),
            json!({"model": "y", "models": ["x"]}),
            Denied::Model("y".to_owned()),
        ),
    ] {
        config["access"] = access(policy);
        match admit(&config, &[], &body) {
            Err(Problem::Denied(what)) => assert_eq!(what, denied),
            other => panic!("{other:?}"),
        }
    }
    // Of several services that know a model, those that may be used are.
    config["access"] = access(json!({"deny": {"services": ["b"]}}));
    let plan = admit(&config, &[], &json!({"models": ["m"]})).unwrap();
    assert_eq!(attempts(&plan), ["d/m-of-d"]);
}

/// Nothing comes along the route, so that the answer of the callout is the one to give.
#[test]
fn without_rules_the_answer_of_a_first_callout_is_given() {
    let mut config = config(json!({}));
    config["model_apis"][0]["fallback"]["client_controls"] = json!(["off"]);
    let begin = || {
        let body = json!({"models": ["c:y"]});
        Rig::begin(admit(&config, &[("x-ai-fallback", "off")], &body).unwrap())
    };
    for status in [200, 503] {
        let mut rig = begin();
        assert_eq!((rig.first, rig.at()), (CALL, "c"));
        assert_eq!(rig.answer(status, "{}"), Effect::Deliver);
    }
    assert_eq!(begin().refused(), Effect::Fail(Failure::Transport));
}

/// What a request names may be known by many services.
#[test]
fn a_plan_has_a_hundred_steps_at_most_and_none_twice() {
    let steps_with = |services: usize| {
        let mut config = config(json!({}));
        for number in 0..services {
            let service = json!({"cluster": "x", "models": {"k": "own"}});
            config["services"][format!("s{number}")] = service;
        }
        let body = json!({"model": "x", "models": ["k", "k", "x"]});
        let plan = admit(&config, &[], &body).unwrap();
        assert_eq!(plan.steps().count(), plan.max_attempts());
        plan.max_attempts()
    };
    // x at a and b, and k at each of the others.
    assert_eq!(steps_with(30), 32);
    assert_eq!(steps_with(120), 100);
}
