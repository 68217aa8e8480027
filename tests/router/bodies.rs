//! Large bodies: replayed to the byte, or given to the services in another way.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::{ROUTE, World, api_with, plugin, start_edited};

const MB: usize = 1_000_000;

/// A world whose filter reads bodies up to `max`, and whose route keeps as many bytes as `limit`.
fn world(max: usize, limit: usize) -> World {
    let models =
        json!({"services": [{"service": "two"}, {"service": "three", "model": "another"}]});
    let apis = json!([api_with("alone", json!({"service": "one"}), models)]);
    let mut plugin = plugin(apis.clone(), json!({}));
    // The route's limit is the one that counts. It is told larger where the filter is to read more than the router keeps.
    plugin["buffer_limit_bytes"] = (max + MB).into();
    plugin["max_body_bytes"] = max.into();
    World::build(
        apis,
        json!({}),
        |_, cluster| cluster,
        |gateway| {
            // The route's limit counts, whatever the listener's.
            start_edited(&gateway.plugin(plugin), |envoy| {
                let route = ROUTE.strip_suffix("/route").expect("a route's action");
                envoy.pointer_mut(route).expect("a route")["request_body_buffer_limit"] =
                    limit.into();
            })
        },
    )
}

fn body(bytes: usize) -> Bytes {
    let text: String = (0..bytes)
        .map(|at| char::from(b'a' + (at * at % 23) as u8))
        .collect();
    let body: Value = json!({"model": "gpt-4o", "stream": true, "messages": [text]});
    body.to_string().into()
}

#[tokio::test]
async fn eight_megabytes_are_replayed_byte_for_byte() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(9 * MB, 10 * MB);
    let body = body(8 * MB);
    let answer = world
        .ask("alone")
        .body(body.clone())
        .fault("one", "503")
        .fault("two", "reset")
        .send()
        .await;
    answer.assert_from("three", "one;503, two;reset, three;200");
    assert_all_got(&world, &answer, &body);
    assert_eq!((retries(&world), callouts(&world)), (2, 0));
}

#[tokio::test]
async fn a_body_that_the_router_does_not_keep_falls_back_by_callout() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    // The listener holds 1 MiB for the filter to read, the router keeps 1 MB.
    let world = world(9 * MB, MB);
    let body = body(MB + 40_000);
    let answer = world
        .ask("alone")
        .body(body.clone())
        .fault("one", "503")
        .fault("two", "503")
        .send()
        .await;
    answer.assert_from("three", "one;503, two;503, three;200");
    assert_all_got(&world, &answer, &body);
    assert_eq!((retries(&world), callouts(&world)), (0, 2));
}

#[tokio::test]
async fn a_body_over_max_body_bytes_goes_to_the_primary_and_the_trail_says_why() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(MB, 4 * MB);
    let body = body(2 * MB);
    let answer = world
        .ask("alone")
        .body(body.clone())
        .fault("one", "503")
        .send()
        .await;
    assert_eq!(
        (answer.status, &*answer.attempts()),
        (503, "one;503;too_large")
    );
    assert!(world.one_request("one", &answer).body == body);
    assert_eq!(world.received("two", &answer).len(), 0);
}

#[tokio::test]
async fn a_large_body_with_another_model_for_each_service() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(9 * MB, 10 * MB);
    let body = body(3 * MB);
    let ask = world.ask("alone").http2().body(body.clone());
    let answer = ask
        .fault("one", "error-event")
        .fault("two", "empty")
        .send()
        .await;
    answer.assert_from("three", "one;stream_error, two;empty, three;200");
    assert_all_got(&world, &answer, &body);
}

fn assert_all_got(world: &World, answer: &crate::client::Answer, body: &Bytes) {
    // No message with a body of megabytes.
    assert!(world.one_request("one", answer).body == body);
    assert!(world.one_request("two", answer).body == body);
    let third = String::from_utf8(body.to_vec())
        .expect("text")
        .replacen("gpt-4o", "another", 1);
    assert!(world.one_request("three", answer).body == third);
}

/// Attempts that Envoy's router made after the first.
fn retries(world: &World) -> u64 {
    let count = |name| {
        world
            .envoy
            .counter(&format!("cluster.{name}.upstream_rq_retry"))
    };
    ["one", "two", "three"].into_iter().map(count).sum()
}

fn callouts(world: &World) -> usize {
    world
        .envoy
        .log()
        .matches("ai_fallback ai_fallback ai_fallback: event=fallback ")
        .count()
}
