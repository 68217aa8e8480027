//! Long chains, the same service twice, and many at once.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::world::{World, api, api_with};

pub fn model_apis() -> Vec<Value> {
    let models = json!([
        {"service": "one", "model": "gpt-4o-mini"},
        // The same service and model again: skipped.
        {"service": "one", "model": "gpt-4o-mini"},
        {"service": "two", "model": "qwen-plus"},
    ]);
    vec![
        api(
            "chain",
            json!({"service": "refused"}),
            &["one", "two", "three", "four", "five"],
        ),
        api("crowd", json!({"service": "one"}), &["two", "three"]),
        api_with(
            "models",
            json!({"service": "one", "model": "gpt-4o-2024-11-20"}),
            json!({"services": models}),
        ),
    ]
}

#[tokio::test]
async fn six_services_the_first_five_fail_in_different_ways() {
    let Some(world) = World::shared() else { return };
    let _log = world.envoy.clone();
    let ask = world.ask("chain");
    let answer = ask
        .fault("one", "503")
        .fault("two", "reset")
        .fault("three", "silence")
        .fault("four", "error-event")
        .send()
        .await;
    let failed = "refused;reset, one;503, two;reset, three;first_packet_timeout, four;stream_error";
    answer.assert_from("five", &format!("{failed}, five;200"));
}

#[tokio::test]
async fn where_all_fail_the_client_gets_the_last_answer_as_it_came() {
    let Some(world) = World::shared() else { return };
    let ask = world
        .ask("live")
        .fault("one", "429")
        .fault("two", "503,retry-after=7");
    let answer = ask.send().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.attempts(), "one;429, two;503");
    assert_eq!(answer.header("x-ai-fallback-service"), Some("two"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.header("x-ai-fallback-retry"), None);
    assert!(answer.text.contains("two failed on purpose"), "{answer:?}");
}

#[tokio::test]
async fn the_last_failure_inside_a_200_is_given_as_it_came_and_called_by_its_name() {
    let Some(world) = World::shared() else { return };
    let ask = world.ask("live").fault("one", "503");
    let answer = ask.clone().fault("two", "error-event").send().await;
    assert_eq!(
        (answer.status, &*answer.attempts()),
        (200, "one;503, two;stream_error")
    );
    assert!(answer.text.contains("two failed on purpose"), "{answer:?}");
    let answer = ask.fault("two", "empty").send().await;
    assert_eq!(
        (answer.status, &*answer.attempts()),
        (200, "one;503, two;empty")
    );
    assert_eq!(answer.text, "");
}

#[tokio::test]
async fn where_the_last_gave_no_answer_the_client_gets_502() {
    let Some(world) = World::shared() else { return };
    let answer = world
        .ask("live")
        .fault("one", "503")
        .fault("two", "reset")
        .send()
        .await;
    assert_eq!(
        (answer.status, &*answer.attempts()),
        (502, "one;503, two;reset")
    );
    assert_eq!(answer.header("x-ai-fallback-service"), None);
    assert!(answer.text.contains("\"error\""), "{answer:?}");
}

#[tokio::test]
async fn the_same_service_with_another_model() {
    let Some(world) = World::shared() else { return };
    let body = r#"{ "stream": true, "model":"gpt-4o", "n": 1e400, "messages": [] }"#;
    let answer = world
        .ask("models")
        .body(body)
        .fault("one", "503")
        .send()
        .await;
    let failed = "one;503, one;503";
    answer.assert_from("two", &format!("{failed}, two;200"));
    let bodies: Vec<_> = world
        .received("one", &answer)
        .into_iter()
        .map(|one| one.body)
        .collect();
    let named = |model: &str| body.replace("gpt-4o", model);
    assert_eq!(bodies, [named("gpt-4o-2024-11-20"), named("gpt-4o-mini")]);
    assert_eq!(world.one_request("two", &answer).body, named("qwen-plus"));
}

#[tokio::test]
async fn two_hundred_failing_requests_at_once() {
    let Some(world) = World::shared() else { return };
    let faults = ["503", "reset", "error-event", "empty", "429", "hang"];
    let asks = (0..200).map(|number| {
        let mock = faults[number % faults.len()];
        // The services say the model that they were asked for.
        let body =
            json!({"model": format!("gpt-{number}"), "stream": number % 2 == 0, "messages": []});
        let ask = world.ask("crowd").json(&body);
        ask.fault(
            "one",
            if mock == "error-event" && number % 2 == 1 {
                "500"
            } else {
                mock
            },
        )
        .fault("two", "delay=50,503")
        .fault("three", "first=20,gap=1")
    });
    let asks: Vec<_> = asks.collect();
    let ids: HashSet<String> = asks.iter().map(|ask| ask.id.clone()).collect();
    assert_eq!(ids.len(), 200);
    let answers = join_all(asks.into_iter().map(|ask| tokio::spawn(ask.send()))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect("no panic");
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
        assert!(
            answer.attempts().ends_with(", two;503, three;200"),
            "{number}: {answer:?}"
        );
        assert_eq!(
            answer.said(),
            format!("Hello from three, gpt-{number}"),
            "{answer:?}"
        );
    }
    for cluster in ["one", "two", "three"] {
        let name = format!("cluster.{cluster}.upstream_rq_retry_overflow");
        assert_eq!(world.envoy.counter(&name), 0, "{name}");
    }
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = World::alone("one", &["two", "three"], |gateway| gateway);
    for fault in ["hang", "silence", "comments", "503"] {
        let asks = (0..20).map(|_| {
            let ask = world
                .ask("alone")
                .fault("one", fault)
                .fault("two", "chunks=9,gap=5000")
                .fault("three", "503");
            let id = ask.id.clone();
            (id, tokio::spawn(ask.send()))
        });
        let asks: Vec<_> = asks.collect();
        for (id, ask) in asks {
            let service = world.service(if fault == "503" { "two" } else { "one" });
            service
                .wait_for_id(&id, |requests| {
                    requests.iter().any(|request| request.complete)
                })
                .await;
            ask.abort();
        }
    }
    for name in ["one", "two", "three"] {
        let service = world.service(name);
        eventually(&format!("{name} has nothing open"), || {
            service.open_exchanges() == 0
        })
        .await;
    }
    for gauge in ["active_requests", "active_calls", "deadlines"] {
        let is_zero = || world.envoy.metric(gauge) == 0;
        eventually(&format!("{gauge} is zero"), is_zero).await;
    }
    for _ in 0..20 {
        let answer = world.ask("alone").fault("one", "503").send().await;
        answer.assert_from("two", "one;503, two;200");
    }
}
