//! Where requests go that have no fallback, and what an older Envoy does.

use serde_json::{Value, json};

use crate::world::{ROUTE, World};

pub fn model_apis() -> Vec<Value> {
    vec![
        json!({"name": "no-fallback", "match": {"headers": {"x-case": "no-fallback"}}, "primary": {"service": "two", "model": "other"}}),
    ]
}

#[tokio::test]
async fn a_request_to_no_model_api_goes_where_the_matcher_leads_by_default() {
    let Some(world) = World::shared() else { return };
    let answer = world.ask("no-such-case").send().await;
    assert_eq!(answer.header("x-mock-service"), Some("one"));
    assert_eq!(answer.header("x-ai-fallback-attempts"), None);
    // Nor is a failure of it sent elsewhere.
    let answer = world.ask("no-such-case").fault("one", "503").send().await;
    assert_eq!(
        (answer.status, answer.header("x-ai-fallback-attempts")),
        (503, None)
    );
}

#[tokio::test]
async fn a_model_api_without_fallback_goes_to_its_primary() {
    let Some(world) = World::shared() else { return };
    let answer = world.ask("no-fallback").send().await;
    answer.assert_from("two", "two;200");
    assert_eq!(
        world.one_request("two", &answer).model().as_deref(),
        Some("other")
    );
    let answer = world.ask("no-fallback").fault("two", "503").send().await;
    assert_eq!((answer.status, &*answer.attempts()), (503, "two;503"));
    let answer = world.ask("no-fallback").fault("two", "empty").send().await;
    assert_eq!((answer.status, &*answer.text), (200, ""));
    let answer = world.ask("no-fallback").fault("two", "reset").send().await;
    assert_eq!((answer.status, &*answer.attempts()), (503, "two;reset"));
}

#[tokio::test]
async fn an_unread_request_goes_to_its_primary() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("two", &["three"], |gateway| gateway);
    let answer = world
        .ask("alone")
        .header("content-encoding", "gzip")
        .send()
        .await;
    assert_eq!(answer.header("x-mock-service"), Some("two"));
    assert_eq!(answer.attempts(), "two;200;compressed");
    let answer = world
        .ask("alone")
        .header("content-type", "text/plain")
        .fault("two", "503")
        .send()
        .await;
    assert_eq!(
        (answer.status, &*answer.attempts()),
        (503, "two;503;not_json")
    );
}

/// The route is a plain one: what the matcher needs is unknown to that Envoy.
#[tokio::test]
async fn an_envoy_before_1_39_says_so_and_serves_by_callout() {
    if crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two", "three"], |envoy| {
        *envoy.pointer_mut(ROUTE).expect("a route") = json!({"cluster": "one", "timeout": "0s"});
    });
    let answer = world
        .ask("alone")
        .fault("one", "503")
        .fault("two", "reset")
        .send()
        .await;
    answer.assert_from("three", "one;503, two;reset, three;200");
    assert!(world.envoy.log_contains("event=router_not_supported"));
}
