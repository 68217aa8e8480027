//! Who may use what, and how often a request may come round.

use ai_fallback::core::admission::Head;
use ai_fallback::core::fit::Forwarding;
use ai_fallback::core::plan::Denied;
use ai_fallback::core::reply::{Problem, Reply, Shape};
use serde_json::{Value, json};

use crate::rig::*;

/// `red` may use `a` and `c`, `blue` the models `m*`; others may not use `b`.
fn access() -> Value {
    json!({
        "identity_header": "x-team",
        "default_policy": {"deny": {"services": ["b"]}},
        "policies": [
            {"identities": ["red"], "allow": {"services": ["a", "c"]}},
            {"identities": ["blue"], "allow": {"models": ["m*"]}},
            {"identities": ["black"], "deny": {"services": ["a"]}},
        ],
    })
}

fn tried(headers: &[(&str, &str)], body: Value) -> Result<Vec<String>, Problem> {
    let config = config_with(to(&["b", "c", "d"]), json!({"access": access()}));
    Ok(attempts(&admit(&config, headers, &body)?))
}

#[test]
fn a_configured_fallback_that_may_not_be_used_is_left_out() {
    for (team, expected) in [
        (Some("red"), vec!["a/m", "c/m"]),
        (Some("blue"), vec!["a/m", "b/m", "c/m", "d/m"]),
        (Some("green"), vec!["a/m", "c/m", "d/m"]),
        (None, vec!["a/m", "c/m", "d/m"]),
    ] {
        let headers: Vec<_> = team.map(|team| ("x-team", team)).into_iter().collect();
        assert_eq!(
            tried(&headers, json!({"model": "m"})).unwrap(),
            expected,
            "{team:?}"
        );
    }
}

#[test]
fn what_a_request_asks_for_and_its_primary_are_refused() {
    for (team, body, expected) in [
        ("blue", json!({"model": "x"}), Denied::Model("x".to_owned())),
        ("blue", json!({}), Denied::NoModel),
        (
            "black",
            json!({"model": "m"}),
            Denied::Service("a".to_owned()),
        ),
    ] {
        match tried(&[("x-team", team)], body) {
            Err(Problem::Denied(denied)) => assert_eq!(denied, expected, "{team}"),
            other => panic!("{other:?}"),
        }
    }
}

/// A caller that says two names could have either of them checked.
#[test]
fn a_caller_that_is_named_twice_is_not_known() {
    let twice = [("x-team", "blue"), ("x-team", "red")];
    assert_eq!(
        tried(&twice, json!({"model": "m"})).unwrap(),
        ["a/m", "c/m", "d/m"]
    );
}

fn head<R>(extra: Value, headers: &[(&str, &str)], with: impl FnOnce(Head<'_>) -> R) -> R {
    let config = config(&config_with(to(&["b"]), extra));
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| header(name, value))
        .collect();
    with(Head {
        config: &config,
        candidates: &config.candidates(b"/v1/chat/completions", |_| None::<&[u8]>),
        headers: &headers,
    })
}

#[test]
fn a_request_whose_model_is_not_read_goes_on_only_where_models_do_not_matter() {
    let admits = |team, service: &'static str| {
        head(json!({"access": access()}), &[("x-team", team)], |head| {
            head.admit_unread(service, true)
        })
    };
    assert!(admits("red", "a").is_ok());
    assert!(
        matches!(admits("red", "b"), Err(Problem::Denied(Denied::Service(name))) if name == "b")
    );
    assert!(matches!(admits("blue", "a"), Err(Problem::Unreadable)));
    assert!(head(json!({}), &[], |head| head.admit_unread("b", true)).is_ok());
}

#[test]
fn hops_are_counted_where_that_is_configured_and_too_many_are_a_loop() {
    let hops = |max: u64, headers: &[(&str, &str)]| {
        head(json!({"max_hops": max}), headers, |head| head.hops())
    };
    for (max, value, expected) in [
        (0, Some("99"), Ok(None)),
        (3, None, Ok(Some(1))),
        (3, Some("2"), Ok(Some(3))),
        (3, Some("3"), Err(())),
        (3, Some("4294967295"), Err(())),
        (3, Some("no number"), Ok(Some(1))),
        (3, Some("1, 2"), Ok(Some(3))),
        (3, Some("-1"), Ok(Some(1))),
    ] {
        let headers: Vec<_> = value
            .map(|value| ("x-ai-hops", value))
            .into_iter()
            .collect();
        match hops(max, &headers) {
            Ok(counted) => assert_eq!(Ok(counted), expected, "{value:?}"),
            Err(Problem::Loop) => assert_eq!(expected, Err(()), "{value:?}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(
        hops(3, &[("x-ai-hops", "1"), ("x-ai-hops", "3")]).is_err(),
        "the largest counts"
    );
}

#[test]
fn hops_go_to_named_services_and_nothing_the_client_says_of_them() {
    let service = service(json!({"cluster": "x"}));
    let plan = plan(to(&["b"]), Some("m"));
    let step = ai_fallback::core::plan::Step {
        service: Some(service),
        ..plan.step(0).unwrap().clone()
    };
    let original = [header(":method", "POST"), header("x-ai-hops", "7")];
    let config = config(&json!({"services": services(), "model_apis": [api(to(&["b"]))]}));
    let sent = |hops| {
        let forwarding = Forwarding {
            hops,
            ..Forwarding::default()
        };
        let new = step.request_headers(&original, 0, forwarding);
        let now = [header("x-ai-hops", "7")];
        let again = step.retry_headers(&config, &original, &now, forwarding);
        [new, again].map(|headers| {
            let values = headers.into_iter().filter(|(name, _)| name == "x-ai-hops");
            values
                .map(|(_, value)| String::from_utf8(value).unwrap())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(sent(Some(8)), [["8"], ["8"]]);
    // What another gateway has counted goes on.
    assert_eq!(sent(None), [["7"], ["7"]]);
}

/// A service may read `Model` as `model`, or a `models` that the filter leaves alone.
#[test]
fn what_a_service_may_read_is_checked_where_only_some_models_are_allowed() {
    for (team, body, refused) in [
        ("blue", json!({"model": "m", "Model": "x"}), "403 null"),
        (
            "blue",
            json!({"model": "m", "models": ["m", "x"]}),
            "403 \"models\"",
        ),
        ("blue", json!({"model": "m", "models": [7]}), "403 null"),
        ("blue", json!({"model": "m", "models": ["m"]}), ""),
        (
            "red",
            json!({"model": "m", "MODEL": "x", "models": [7]}),
            "",
        ),
    ] {
        let told = match tried(&[("x-team", team)], body.clone()) {
            Ok(_) => String::new(),
            Err(problem) => {
                let reply = Reply::new(Shape::OpenAi, &problem);
                let told: Value = serde_json::from_str(&reply.body).unwrap();
                format!("{} {}", reply.status, told["error"]["param"])
            }
        };
        assert_eq!(told, refused, "{team} {body}");
    }
}

#[test]
fn refusals_are_told_in_both_shapes() {
    let cases = [
        (
            Problem::Denied(Denied::Entry("c:x".to_owned())),
            403,
            "access_denied",
            "models",
        ),
        (
            Problem::Denied(Denied::Model("x".to_owned())),
            403,
            "access_denied",
            "model",
        ),
        (
            Problem::Denied(Denied::Service("a".to_owned())),
            403,
            "access_denied",
            "",
        ),
        (Problem::Unreadable, 403, "access_denied", ""),
        (Problem::Loop, 508, "loop_detected", ""),
    ];
    for (problem, status, code, param) in cases {
        let reply = Reply::new(Shape::OpenAi, &problem);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(
            (reply.status, &body["error"]["code"]),
            (status, &json!(code))
        );
        assert_eq!(body["error"]["param"].as_str().unwrap_or_default(), param);
        let reply = Reply::new(Shape::Anthropic, &problem);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!((reply.status, &body["type"]), (status, &json!("error")));
    }
}
