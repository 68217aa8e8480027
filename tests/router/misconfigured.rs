//! A configuration of Envoy that cannot work is told once, with the fix, and the request is still answered.

use serde_json::{Value, json};

use crate::world::{ROUTE, World};

const WORKERS: usize = 2;
const MATCHER: &str = "inline_cluster_specifier_plugin/extension/typed_config/cluster_matcher";
const HTTP_FILTERS: &str = "typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters";

#[tokio::test]
async fn a_fallback_that_the_matcher_does_not_know() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two", "three"], |envoy| forget_match(envoy, "two"));
    ask(&world, "").await.assert_from("one", "one;200");
    for _ in 0..6 {
        ask(&world, "503")
            .await
            .assert_from("two", "one;503, two;200");
    }
    assert_logged(&world, "wrong_cluster", &["service=two", "exact_match_map"]);
}

#[tokio::test]
async fn a_fallback_that_the_matcher_does_not_know_and_has_no_default_for() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two", "three"], |envoy| {
        forget_match(envoy, "two");
        remove(envoy, &format!("{ROUTE}/{MATCHER}"), "on_no_match");
    });
    for _ in 0..6 {
        let answer = ask(&world, "503").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_primary_that_the_matcher_does_not_know() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    // The matcher's default is the first cluster.
    let world = World::edited("two", &["three"], |envoy| forget_match(envoy, "two"));
    for _ in 0..6 {
        ask(&world, "").await.assert_from("two", "two;200");
    }
    let asked = world.service("one").requests();
    assert!(
        asked.is_empty(),
        "another service was asked in its name: {asked:#?}"
    );
    let failed = world.ask("alone").fault("two", "503").send().await;
    failed.assert_from("three", "two;503, three;200");
    assert_logged(&world, "wrong_cluster", &["service=two", "exact_match_map"]);
}

#[tokio::test]
async fn a_route_that_does_not_choose_the_cluster_anew() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| {
        remove(
            envoy,
            &format!("{ROUTE}/retry_policy"),
            "refresh_cluster_on_retry",
        );
    });
    for _ in 0..6 {
        ask(&world, "503")
            .await
            .assert_from("two", "one;503, two;200");
    }
    assert_logged(
        &world,
        "wrong_cluster",
        &["service=two", "refresh_cluster_on_retry"],
    );
}

#[tokio::test]
async fn a_route_without_a_retry_policy() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| {
        remove(envoy, ROUTE, "retry_policy")
    });
    for fault in ["503", "reset", "silence", "error-event"] {
        let answer = ask(&world, fault).await;
        assert_eq!(
            answer.header("x-ai-fallback-service"),
            Some("two"),
            "{fault}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_plain_route() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| {
        *envoy.pointer_mut(ROUTE).expect("a route") = json!({"cluster": "one", "timeout": "0s"});
    });
    ask(&world, "").await.assert_from("one", "one;200");
    for fault in ["503", "reset", "error-event"] {
        let answer = ask(&world, fault).await;
        assert_eq!(
            answer.header("x-ai-fallback-service"),
            Some("two"),
            "{fault}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_primarys_cluster_without_the_attempt_filter() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| forget_filter(envoy, "one"));
    ask(&world, "").await.assert_from("one", "one;200");
    let answer = ask(&world, "503").await;
    answer.assert_from("two", "one;503, two;200");
    for fault in ["reset", "silence", "error-event", "empty"] {
        let answer = ask(&world, fault).await;
        assert_eq!(
            answer.header("x-ai-fallback-service"),
            Some("two"),
            "{fault}: {answer:?}"
        );
    }
    assert_logged(
        &world,
        "missing_attempt_filter",
        &["cluster=one", "ai_fallback_attempt"],
    );
}

#[tokio::test]
async fn a_fallbacks_cluster_without_the_attempt_filter() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two", "three"], |envoy| {
        forget_filter(envoy, "two")
    });
    ask(&world, "503")
        .await
        .assert_from("two", "one;503, two;200");
    let answer = world
        .ask("alone")
        .fault("one", "503")
        .fault("two", "503")
        .send()
        .await;
    answer.assert_from("three", "one;503, two;503, three;200");
    assert_logged(
        &world,
        "missing_attempt_filter",
        &["cluster=two", "ai_fallback_attempt"],
    );
}

#[tokio::test]
async fn no_cluster_with_the_attempt_filter() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::edited("one", &["two"], |envoy| {
        ["one", "two"]
            .iter()
            .for_each(|name| forget_filter(envoy, name));
    });
    ask(&world, "503")
        .await
        .assert_from("two", "one;503, two;200");
    assert_logged(
        &world,
        "missing_attempt_filter",
        &["cluster=one", "ai_fallback_attempt"],
    );
}

#[tokio::test]
async fn a_primarys_cluster_without_hosts() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("nowhere", &["one", "two"], |gateway| gateway);
    ask(&world, "")
        .await
        .assert_from("one", "nowhere;reset, one;200");
    ask(&world, "503")
        .await
        .assert_from("two", "nowhere;reset, one;503, two;200");
}

#[tokio::test]
async fn a_fallbacks_cluster_without_hosts() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("one", &["nowhere", "two", "three"], |gateway| gateway);
    ask(&world, "503")
        .await
        .assert_from("two", "one;503, nowhere;reset, two;200");
    let answer = world
        .ask("alone")
        .fault("one", "reset")
        .fault("two", "503")
        .send()
        .await;
    answer.assert_from("three", "one;reset, nowhere;reset, two;503, three;200");
}

#[tokio::test]
async fn clusters_without_hosts_everywhere() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("nowhere", &["nowhere"], |gateway| gateway);
    let answer = ask(&world, "").await;
    assert_eq!((answer.status, &*answer.attempts()), (502, "nowhere;reset"));
}

async fn ask(world: &World, fault: &str) -> crate::client::Answer {
    let _log = world.envoy.clone();
    world.ask("alone").fault("one", fault).send().await
}

/// Once per worker at most, and at least one time.
#[track_caller]
fn assert_logged(world: &World, event: &str, parts: &[&str]) {
    let log = world.envoy.log();
    let event = format!("event={event} ");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&event)).collect();
    assert!((1..=WORKERS).contains(&lines.len()), "{lines:#?}");
    for part in parts {
        assert!(lines[0].contains(part), "no {part} in {}", lines[0]);
    }
}

fn forget_match(envoy: &mut Value, cluster: &str) {
    remove(
        envoy,
        &format!("{ROUTE}/{MATCHER}/matcher_tree/exact_match_map/map"),
        cluster,
    );
}

fn forget_filter(envoy: &mut Value, cluster: &str) {
    let clusters = envoy
        .pointer_mut("/static_resources/clusters")
        .and_then(Value::as_array_mut);
    let clusters = clusters.expect("clusters").iter_mut();
    let cluster = clusters
        .into_iter()
        .find(|one| one["name"] == cluster)
        .expect("a cluster");
    let filters = cluster
        .pointer_mut(&format!("/{HTTP_FILTERS}"))
        .and_then(Value::as_array_mut);
    let removed = filters.expect("filters").remove(0);
    assert_eq!(removed["name"], "ai_fallback_attempt");
}

fn remove(envoy: &mut Value, parent: &str, field: &str) {
    let parent = envoy.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("an object").remove(field).expect("the field");
}
