//! A configuration of Envoy that cannot work is told once, with the fix, and the request is still answered.

use serde_json::{Value, json};

use crate::world::{ROUTE, World, api, start_edited};

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

/// It may be a gateway with this filter itself, or play one.
#[tokio::test]
async fn a_cluster_without_the_attempt_filter_whose_service_says_what_was_tried() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let lies = ["x-ai-fallback-attempts", "x-ai-fallback-service"].map(|name| {
        json!({"append": {"header": {"key": name, "value": "lie"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    });
    let liar = json!({"name": "envoy.filters.http.header_mutation", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"response_mutations": lies},
    }});
    let world = World::build(
        json!([api("alone", json!({"service": "one"}), &["two"])]),
        json!({}),
        |name, cluster| match name {
            "one" => cluster.http_filters(std::slice::from_ref(&liar)),
            _ => cluster,
        },
        |gateway| start_edited(&gateway, |envoy| forget_filter(envoy, "one")),
    );
    // At first nobody knows that it has none, then both workers do.
    for _ in 0..10 {
        for (fault, outcome) in [
            ("503", "503"),
            ("reset", "reset"),
            ("error-event", "stream_error"),
        ] {
            let answer = ask(&world, fault).await;
            answer.assert_from("two", &format!("one;{outcome}, two;200"));
        }
        ask(&world, "").await.assert_from("one", "one;200");
    }
}

/// Before the first answer nobody knows that nobody takes the client's credentials away.
#[tokio::test]
async fn a_cluster_that_was_seen_without_the_attempt_filter_gets_no_credential_any_more() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let services = json!({
        "one": {"cluster": "one", "authority": "one.test", "path": "/one{path}", "headers": {"authorization": "Bearer one", "x-one": "1"}},
        "two": {"cluster": "two", "models": {"gpt-4o": "of two"}},
    });
    let world = World::build(
        json!([
            api("fallback", json!({"service": "one"}), &["two"]),
            json!({"name": "none", "match": {"headers": {"x-case": "none"}}, "primary": {"service": "one"}}),
        ]),
        services,
        |_, cluster| cluster,
        |gateway| start_edited(&gateway, |envoy| forget_filter(envoy, "one")),
    );
    let ask = |case: &str, fault: &str| {
        let ask = world.ask(case).fault("one", fault);
        let ask = ask
            .header("authorization", "SECRET")
            .header("cookie", "SECRET");
        ask.header("host", "gateway.test").send()
    };
    let told = || {
        world
            .envoy
            .log()
            .matches("event=missing_attempt_filter ")
            .count()
    };
    // Each on a connection of its own, of which each worker gets some.
    for _ in 0..1000 {
        if told() == WORKERS {
            break;
        }
        ask("fallback", "").await;
    }
    assert_eq!(told(), WORKERS);
    for _ in 0..10 {
        for (case, fault) in [
            ("fallback", ""),
            ("fallback", "503"),
            ("none", ""),
            ("none", "503"),
        ] {
            let answer = ask(case, fault).await;
            let one = world.one_request("one", &answer);
            assert_eq!(one.authority, "one.test");
            assert_eq!(one.path, "/one/v1/chat/completions");
            assert_eq!(one.header("authorization"), Some("Bearer one"));
            assert_eq!(one.header("cookie"), None);
            let falls_back = (case, fault) == ("fallback", "503");
            let two = world.received("two", &answer);
            assert_eq!(two.len(), usize::from(falls_back), "{answer:?}");
            for two in two {
                assert_eq!(two.authority, "gateway.test");
                assert_eq!(two.path, "/v1/chat/completions");
                for name in ["authorization", "cookie", "x-one"] {
                    assert_eq!(two.header(name), None, "{name}");
                }
                assert_eq!(two.model().as_deref(), Some("of two"));
            }
        }
    }
    assert_eq!(told(), WORKERS, "it is told once");
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
