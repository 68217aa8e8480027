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

/// As in `envoy/router.yaml`: both roles are off, but for the routes that turn them on.
#[tokio::test]
async fn a_filter_that_is_off_acts_only_where_a_route_turns_it_on() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| {
        for cluster in envoy["static_resources"]["clusters"]
            .as_array_mut()
            .expect("clusters")
        {
            let options = cluster["typed_extension_protocol_options"]
                .as_object_mut()
                .expect("options");
            options
                .values_mut()
                .for_each(|options| options["http_filters"][0]["disabled"] = true.into());
        }
        let manager = ROUTE.split("/route_config").next().expect("a manager");
        let manager = envoy.pointer_mut(manager).expect("a manager");
        manager["http_filters"][0]["disabled"] = true.into();
        let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
        let other = routes[0].clone();
        let on = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
        routes[0]["match"] =
            json!({"prefix": "/", "headers": [{"name": "x-off", "present_match": false}]});
        routes[0]["typed_per_filter_config"] =
            json!({"ai_fallback": on, "ai_fallback_attempt": on});
        routes.as_array_mut().expect("routes").push(other);
    });
    let failing = world.ask("alone").fault("one", "503");
    failing
        .clone()
        .send()
        .await
        .assert_from("two", "one;503, two;200");
    let elsewhere = failing.header("x-off", "yes").send().await;
    assert_eq!(
        (elsewhere.status, elsewhere.header("x-ai-fallback-attempts")),
        (503, None)
    );
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
