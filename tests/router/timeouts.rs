//! Time: each attempt has its own, all together have one, and after the first packet only Envoy's own limits count.

use serde_json::{Value, json};

use crate::support::Gateway;
use crate::world::{FIRST_PACKET_MS, World, api, api_with};

pub fn model_apis() -> Vec<Value> {
    let fields = |more: Value| {
        let mut fields = json!({"services": [{"service": "two"}, {"service": "three"}]});
        fields
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        fields
    };
    let one = || json!({"service": "one"});
    vec![
        api_with("total", one(), fields(json!({"total_timeout_ms": 2500}))),
        api_with(
            "total-first",
            one(),
            fields(json!({"first_packet_timeout_ms": 0, "total_timeout_ms": 500})),
        ),
        api_with(
            "request",
            one(),
            fields(json!({"request_timeout_ms": 1000})),
        ),
        api("both", one(), &["two"]),
    ]
}

#[tokio::test]
async fn each_attempt_has_the_first_packet_timeout_for_itself() {
    let Some(world) = World::shared() else { return };
    let ask = world.ask("both").fault("one", "hang");
    // Together longer than one timeout.
    let answer = ask
        .fault("two", &format!("delay={}", FIRST_PACKET_MS * 2 / 3))
        .send()
        .await;
    answer.assert_from("two", "one;first_packet_timeout, two;200");
}

#[tokio::test]
async fn the_last_attempt_is_bounded_too() {
    let Some(world) = World::shared() else { return };
    for silent in ["hang", "silence", "comments"] {
        let answer = world
            .ask("both")
            .fault("one", "503")
            .fault("two", silent)
            .send()
            .await;
        assert_eq!(
            (answer.status, &*answer.attempts()),
            (504, "one;503, two;first_packet_timeout"),
            "{silent}"
        );
        assert_eq!(answer.header("x-ai-fallback-service"), None, "{silent}");
    }
}

#[tokio::test]
async fn a_whole_answer_has_the_request_timeout() {
    let Some(world) = World::shared() else { return };
    for silent in ["hang", "silence"] {
        let ask = world
            .ask("request")
            .whole()
            .fault("one", silent)
            .fault("two", "reset");
        ask.send()
            .await
            .assert_from("three", "one;request_timeout, two;reset, three;200");
    }
}

#[tokio::test]
async fn the_total_timeout_ends_the_attempts() {
    let Some(world) = World::shared() else { return };
    let ask = world
        .ask("total")
        .fault("one", "hang")
        .fault("two", "hang")
        .fault("three", "hang");
    let answer = ask.send().await;
    let told = "one;first_packet_timeout, two;request_timeout";
    assert_eq!((answer.status, &*answer.attempts()), (504, told));
    assert_eq!(world.received("three", &answer).len(), 0);
}

#[tokio::test]
async fn the_total_timeout_ends_a_first_attempt_too() {
    let Some(world) = World::shared() else { return };
    for silent in ["hang", "silence", "comments"] {
        let answer = world.ask("total-first").fault("one", silent).send().await;
        assert_eq!(
            (answer.status, &*answer.attempts()),
            (504, "one;request_timeout"),
            "{silent}"
        );
    }
}

#[tokio::test]
async fn the_total_timeout_does_not_end_an_answer_that_has_begun() {
    let Some(world) = World::shared() else { return };
    let answer = world
        .ask("total-first")
        .fault("one", "chunks=8,gap=150")
        .send()
        .await;
    answer.assert_from("one", "one;200");
}

#[tokio::test]
async fn a_reset_after_the_first_packet_breaks_the_stream() {
    let Some(world) = World::shared() else { return };
    for (fault, attempts) in [("", "one;200"), ("503", "one;503, two;200")] {
        for way in ["reset-after=2", "cut=2"] {
            let breaking = format!("chunks=4,gate=2,{way}");
            let first = if fault.is_empty() { &breaking } else { fault };
            let ask = world
                .ask("total")
                .fault("one", first)
                .fault("two", &breaking);
            let id = ask.id.clone();
            let mut live = ask.open().await;
            live.next().await;
            ["one", "two"]
                .iter()
                .for_each(|name| world.service(name).open_gate(&id));
            let answer = live.broken().await;
            assert_eq!(
                (answer.status, &*answer.attempts()),
                (200, attempts),
                "{way}"
            );
            assert!(!answer.text.contains("[DONE]"), "{answer:?}");
            assert_eq!(world.received("three", &answer).len(), 0, "{way}");
        }
    }
}

#[tokio::test]
async fn a_stall_after_the_first_packet_breaks_the_stream_after_envoys_idle_timeout() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("one", &["two", "three"], |gateway: Gateway| {
        gateway.route(json!({"idle_timeout": "2s"}))
    });
    for http2 in [false, true] {
        let ask = world
            .ask("alone")
            .fault("one", "503")
            .fault("two", "stall=2");
        let ask = if http2 { ask.http2() } else { ask };
        let answer = ask.open().await.broken().await;
        assert_eq!(answer.attempts(), "one;503, two;200");
        assert!(
            answer.text.contains("data: ") && !answer.text.contains("[DONE]"),
            "{answer:?}"
        );
        assert_eq!(world.received("three", &answer).len(), 0);
    }
}

/// The request filter has given the first attempt up and made the next by a callout when the first answers at last: nobody has
/// missed its filter.
#[tokio::test]
async fn an_answer_that_comes_after_it_was_given_up_misses_no_filter() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let fields = json!({
        "services": [{"service": "two"}],
        "deliver": "complete",
        "first_packet_timeout_ms": 300,
    });
    let apis = json!([api_with("alone", json!({"service": "one"}), fields)]);
    let world = World::with(apis, json!({}), |gateway| gateway);
    for _ in 0..2 {
        let ask = world.ask("alone").fault("one", "delay=600");
        let answer = ask.fault("two", "delay=900").send().await;
        answer.assert_from("two", "one;first_packet_timeout, two;200");
    }
    assert!(!world.envoy.log_contains("missing_attempt_filter"));
    let answer = world.ask("alone").fault("one", "503").send().await;
    answer.assert_from("two", "one;503, two;200");
    // Made by the router: a callout has no attempt filter that could say so.
    let told = "ai_fallback_attempt ai_fallback_attempt: event=fallback";
    assert!(world.envoy.log_contains(told));
}
