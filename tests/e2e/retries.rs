//! Trying the same service again before going on: when, how often, and after how long.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::{Mock, Received};
use crate::support::eventually;
use crate::world::{Mode, Short, World, case};

both_modes![
    a_service_that_failed_once_is_tried_again,
    when_the_retries_are_used_up_the_next_service_is_tried,
    when_all_retries_are_used_up_the_last_answer_is_the_answer,
    an_unreachable_service_is_tried_again,
    a_service_without_retries_is_tried_once,
    retries_count_for_max_attempts,
    a_silent_service_is_not_tried_again,
    a_service_that_falls_silent_in_a_retry_is_not_tried_again,
    earlier_waits_do_not_shorten_an_attempt,
    a_refused_request_is_not_tried_again,
    a_refused_key_is_not_tried_again_with_the_same_service,
    after_another_refusal_the_same_service_is_tried_with_another_model,
    a_retry_waits_for_its_backoff,
    a_retry_without_backoff_comes_at_once,
    a_retry_waits_as_long_as_the_service_asks,
    after_a_longer_wait_than_is_allowed_the_next_service_is_tried_at_once,
    a_retry_after_that_says_nothing_is_not_heeded,
    many_requests_wait_side_by_side,
    a_retry_has_the_body_of_its_service,
    a_retry_of_a_large_body_is_whole,
    a_retry_over_http2_is_like_any_other,
    retries_are_counted,
    a_client_that_leaves_during_a_wait_leaves_nothing_behind,
];

callout_only![
    "a callout's answer arrives whole": a_retried_stream_reaches_the_client_once_it_is_whole,
    "only the route knows where that is": a_primary_without_a_service_is_not_tried_again,
];

router_only![
    "every attempt of the router streams": a_retried_service_streams_live,
    "the time of an attempt runs while it waits": a_wait_of_half_the_time_of_an_attempt_is_too_long,
];

const BACKOFF_MS: u64 = 400;
const MAX_RETRY_AFTER_MS: u64 = 4000;
/// Far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(15);

pub fn model_apis(short: Short) -> Vec<Value> {
    let quick =
        json!({"backoff_ms": 20, "max_backoff_ms": 40, "max_retry_after_ms": MAX_RETRY_AFTER_MS});
    let with = |service: &str, retries: u32, fallback: Value| {
        let mut fallback = fallback;
        if fallback.get("retry").is_none() {
            fallback["retry"] = quick.clone();
        }
        json!({"primary": {"service": service, "retries": retries}, "fallback": fallback})
    };
    let two = json!([{"service": "beta", "retries": 1}, {"service": "gamma"}]);
    vec![
        case("retries", with("alpha", 2, json!({"services": two}))),
        case(
            "retries-alone",
            with("alpha", 2, json!({"services": [{"service": "alpha"}]})),
        ),
        case(
            "retries-refused",
            with(
                "refused",
                1,
                json!({"services": [{"service": "nowhere", "retries": 1}, {"service": "beta"}]}),
            ),
        ),
        case(
            "retries-none",
            with("alpha", 0, json!({"services": [{"service": "beta"}]})),
        ),
        case(
            "retries-limited",
            with("alpha", 2, json!({"services": two, "max_attempts": 2})),
        ),
        case(
            "retries-in-time",
            with(
                "alpha",
                2,
                json!({
                    "services": [{"service": "beta"}], "first_packet_timeout_ms": short, "request_timeout_ms": short + 500,
                }),
            ),
        ),
        case(
            "retries-reserve",
            with(
                "alpha",
                3,
                json!({
                    "services": [{"service": "beta"}], "request_timeout_ms": 2000, "total_timeout_ms": 20000, "reserve_ms": 100,
                }),
            ),
        ),
        case(
            "retries-keys",
            with(
                "alpha",
                1,
                json!({"services": [
                    {"service": "alpha", "model": "other"}, {"service": "beta"}, {"service": "alpha", "model": "third"},
                ]}),
            ),
        ),
        case(
            "retries-backoff",
            with(
                "alpha",
                2,
                json!({
                    "services": [{"service": "beta"}], "retry": {"backoff_ms": BACKOFF_MS, "max_backoff_ms": 2 * BACKOFF_MS},
                }),
            ),
        ),
        case(
            "retries-at-once",
            with(
                "alpha",
                2,
                json!({
                    "services": [{"service": "beta"}], "retry": {"backoff_ms": 0},
                }),
            ),
        ),
        case(
            "retries-models",
            json!({
                "primary": {"service": "alpha", "model": "model-of-alpha", "retries": 1},
                "fallback": {
                    "services": [{"service": "beta", "model": "b", "retries": 1}, {"service": "gamma"}],
                    "retry": quick,
                },
            }),
        ),
        case(
            "retries-h2",
            with(
                "alpha-h2",
                2,
                json!({"services": [{"service": "beta-h2", "retries": 1}]}),
            ),
        ),
        case(
            "retries-of-nobody",
            json!({
                "primary": {"retries": 2},
                "fallback": {"services": [{"service": "beta"}], "retry": quick},
            }),
        ),
    ]
}

fn both(world: &World, case: &str) -> [Ask; 2] {
    [world.ask(case), world.ask(case).stream()]
}

/// The requests of an answer to a service, in order.
fn requests(service: &Mock, answer: &Answer) -> Vec<Received> {
    service.requests_with(&answer.id)
}

/// The time between each request to a service and the one before.
fn waits(service: &Mock, answer: &Answer) -> Vec<Duration> {
    let at: Vec<Instant> = requests(service, answer).iter().map(|one| one.at).collect();
    at.windows(2).map(|two| two[1] - two[0]).collect()
}

#[track_caller]
fn assert_waits(service: &Mock, answer: &Answer, least: &[u64]) {
    let waits = waits(service, answer);
    assert_eq!(waits.len(), least.len(), "{waits:?}");
    for (wait, least) in waits.iter().zip(least) {
        // Envoy's timers count whole milliseconds, and may be early by one.
        let least = Duration::from_millis(least.saturating_sub(5));
        assert!((least..least + PATIENCE).contains(wait), "{waits:?}");
    }
}

async fn a_service_that_failed_once_is_tried_again(world: &World) {
    let faults = [
        "503",
        "429",
        "408",
        "500",
        "529",
        "reset",
        "empty",
        "end-after=0",
    ];
    join_all(faults.map(|fault| async move {
        for ask in both(world, "retries") {
            let answer = ask.fault("alpha", &format!("times=1,{fault}")).send().await;
            let outcome = if fault == "end-after=0" {
                "empty"
            } else {
                fault
            };
            answer.assert_from("alpha", &format!("alpha;{outcome}, alpha;200"));
            assert_eq!(requests(&world.alpha, &answer).len(), 2);
            world.no_request(&world.beta, &answer);
        }
    }))
    .await;
    let ask = world.ask("retries").stream();
    let answer = ask.fault("alpha", "times=2,error-event").send().await;
    answer.assert_from("alpha", "alpha;stream_error, alpha;stream_error, alpha;200");
}

async fn a_retried_service_streams_live(world: &World) {
    for fault in ["times=1,503", "times=1,reset", "times=2,error-event"] {
        let ask = world
            .ask("retries")
            .stream()
            .header("x-mock", "gate=1")
            .fault("alpha", fault);
        let id = ask.id.clone();
        let mut live = ask.open().await;
        live.read_until("\n\n").await;
        let last = world.alpha.requests_with(&id).pop().expect("a request");
        assert_eq!(last.chunks_sent, 1);
        world.alpha.open_gate(&id);
        let answer = live.rest().await;
        let attempts = answer.attempts();
        answer.assert_from("alpha", &attempts);
        assert!(attempts.ends_with(", alpha;200"), "{attempts}");
    }
}

async fn a_retried_stream_reaches_the_client_once_it_is_whole(world: &World) {
    let ask = world.ask("retries").stream().fault("alpha", "times=1,503");
    let answer = ask.header("x-mock", "chunks=6,gap=50").send().await;
    answer.assert_from("alpha", "alpha;503, alpha;200");
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{answer:?}");
}

async fn when_the_retries_are_used_up_the_next_service_is_tried(world: &World) {
    for ask in both(world, "retries") {
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, alpha;503, alpha;503, beta;200");
        assert_eq!(requests(&world.alpha, &answer).len(), 3);
    }
    for ask in both(world, "retries") {
        let ask = ask.fault("alpha", "reset").fault("beta", "times=1,500");
        let answer = ask.send().await;
        answer.assert_from(
            "beta",
            "alpha;reset, alpha;reset, alpha;reset, beta;500, beta;200",
        );
    }
    for ask in both(world, "retries") {
        let answer = ask
            .fault("alpha", "429")
            .fault("beta", "reset")
            .send()
            .await;
        answer.assert_from(
            "gamma",
            "alpha;429, alpha;429, alpha;429, beta;reset, beta;reset, gamma;200",
        );
    }
}

async fn when_all_retries_are_used_up_the_last_answer_is_the_answer(world: &World) {
    for ask in both(world, "retries-alone") {
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_failure_of("alpha", 503, "alpha;503, alpha;503, alpha;503");
        assert_eq!(answer.service(), Some("alpha"));
    }
    for ask in both(world, "retries-alone") {
        let answer = ask.fault("alpha", "reset").send().await;
        assert_eq!(answer.attempts(), "alpha;reset, alpha;reset, alpha;reset");
        assert_eq!((answer.status.as_u16(), answer.service()), (502, None));
    }
    // It needs no other service for it.
    for ask in both(world, "retries-alone") {
        let answer = ask.fault("alpha", "times=2,503").send().await;
        answer.assert_from("alpha", "alpha;503, alpha;503, alpha;200");
    }
}

async fn an_unreachable_service_is_tried_again(world: &World) {
    for ask in both(world, "retries-refused") {
        let answer = ask.send().await;
        answer.assert_from(
            "beta",
            "refused;reset, refused;reset, nowhere;reset, nowhere;reset, beta;200",
        );
    }
}

async fn a_service_without_retries_is_tried_once(world: &World) {
    for ask in both(world, "retries-none") {
        let answer = ask.fault("alpha", "503,retry-after=1").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        world.one_request(&world.alpha, &answer);
    }
}

async fn retries_count_for_max_attempts(world: &World) {
    for ask in both(world, "retries-limited") {
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_failure_of("alpha", 503, "alpha;503, alpha;503");
        world.no_request(&world.beta, &answer);
    }
}

async fn a_silent_service_is_not_tried_again(world: &World) {
    let table = [
        (world.ask("retries-in-time"), "hang", "request_timeout"),
        (world.ask("retries-in-time"), "silence", "request_timeout"),
        (
            world.ask("retries-in-time").stream(),
            "hang",
            "first_packet_timeout",
        ),
        (
            world.ask("retries-in-time").stream(),
            "comments",
            "first_packet_timeout",
        ),
    ];
    join_all(table.map(|(ask, fault, outcome)| async move {
        let answer = ask.fault("alpha", fault).send().await;
        answer.assert_from("beta", &format!("alpha;{outcome}, beta;200"));
        world.one_request(&world.alpha, &answer);
    }))
    .await;
}

async fn a_service_that_falls_silent_in_a_retry_is_not_tried_again(world: &World) {
    for wait in [0, 300] {
        let ask = world
            .ask("retries-in-time")
            .header("x-mock-beta", "200")
            .header("x-mock", "hang");
        let answer = ask
            .fault("alpha", &format!("times=1,503,retry-after-ms={wait}"))
            .send()
            .await;
        answer.assert_from("beta", "alpha;503, alpha;request_timeout, beta;200");
        assert_eq!(requests(&world.alpha, &answer).len(), 2);
    }
}

async fn earlier_waits_do_not_shorten_an_attempt(world: &World) {
    join_all(both(world, "retries-reserve").map(|ask| async move {
        let ask = ask.header("x-mock", "delay=600");
        let answer = ask
            .fault("alpha", "times=3,503,retry-after-ms=900")
            .send()
            .await;
        answer.assert_from("alpha", "alpha;503, alpha;503, alpha;503, alpha;200");
    }))
    .await;
}

async fn a_refused_request_is_not_tried_again(world: &World) {
    join_all([400, 404, 409, 413, 422].map(|status| async move {
        for ask in both(world, "retries") {
            let answer = ask
                .fault("alpha", &format!("{status},retry-after=0"))
                .send()
                .await;
            answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
            world.one_request(&world.alpha, &answer);
        }
    }))
    .await;
}

async fn a_refused_key_is_not_tried_again_with_the_same_service(world: &World) {
    for status in [401, 402, 403] {
        for ask in both(world, "retries-keys") {
            let answer = ask.fault("alpha", &status.to_string()).send().await;
            answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
            world.one_request(&world.alpha, &answer);
        }
        for ask in both(world, "retries-keys") {
            let ask = ask.fault("alpha", &status.to_string()).fault("beta", "503");
            let answer = ask.send().await;
            answer.assert_failure_of("beta", 503, &format!("alpha;{status}, beta;503"));
            world.one_request(&world.alpha, &answer);
        }
    }
}

async fn after_another_refusal_the_same_service_is_tried_with_another_model(world: &World) {
    let models = |answer: &Answer| -> Vec<String> {
        requests(&world.alpha, answer)
            .iter()
            .filter_map(Received::model)
            .collect()
    };
    for ask in both(world, "retries-keys") {
        let answer = ask.fault("alpha", "times=1,404").send().await;
        answer.assert_from("alpha", "alpha;404, alpha;200");
        assert_eq!(models(&answer), ["gpt-4o", "other"]);
    }
    for ask in both(world, "retries-keys") {
        let answer = ask
            .fault("alpha", "times=3,503")
            .fault("beta", "404")
            .send()
            .await;
        answer.assert_from(
            "alpha",
            "alpha;503, alpha;503, alpha;503, beta;404, alpha;200",
        );
        assert_eq!(models(&answer), ["gpt-4o", "gpt-4o", "other", "third"]);
    }
}

async fn a_retry_waits_for_its_backoff(world: &World) {
    join_all(both(world, "retries-backoff").map(|ask| async move {
        let answer = ask.fault("alpha", "times=2,503").send().await;
        answer.assert_from("alpha", "alpha;503, alpha;503, alpha;200");
        // Half of it at least; the second is doubled.
        assert_waits(&world.alpha, &answer, &[BACKOFF_MS / 2, BACKOFF_MS]);
    }))
    .await;
}

async fn a_retry_without_backoff_comes_at_once(world: &World) {
    for ask in both(world, "retries-at-once") {
        let answer = ask.fault("alpha", "times=2,503").send().await;
        answer.assert_from("alpha", "alpha;503, alpha;503, alpha;200");
    }
}

async fn a_retry_waits_as_long_as_the_service_asks(world: &World) {
    // A date has whole seconds: three of them are more than two.
    let table = [
        ("429,retry-after=1", 1000),
        ("503,retry-after=1.5", 1500),
        ("503,retry-after-ms=700", 700),
        ("429,retry-after=60,retry-after-ms=300", 300),
        ("503,retry-after-date=3", 2000),
        ("503,retry-after=0", 0),
    ];
    join_all(table.map(|(fault, least)| async move {
        let [whole, stream] = both(world, "retries")
            .map(|ask| ask.fault("alpha", &format!("times=1,{fault}")).send());
        let (whole, stream) = tokio::join!(whole, stream);
        for answer in [whole, stream] {
            answer.assert_from("alpha", &format!("alpha;{}, alpha;200", &fault[..3]));
            assert_waits(&world.alpha, &answer, &[least]);
        }
    }))
    .await;
    // A fallback service is waited for as well.
    let ask = world.ask("retries").fault("alpha", "400");
    let answer = ask
        .fault("beta", "times=1,503,retry-after-ms=600")
        .send()
        .await;
    answer.assert_from("beta", "alpha;400, beta;503, beta;200");
    assert_waits(&world.beta, &answer, &[600]);
}

async fn after_a_longer_wait_than_is_allowed_the_next_service_is_tried_at_once(world: &World) {
    let began = Instant::now();
    for fault in [
        "429,retry-after=5",
        "503,retry-after=86400",
        "503,retry-after-ms=4001",
        "503,retry-after-date=3600",
    ] {
        for ask in both(world, "retries") {
            let answer = ask.fault("alpha", fault).send().await;
            answer.assert_from("beta", &format!("alpha;{}, beta;200", &fault[..3]));
            world.one_request(&world.alpha, &answer);
        }
    }
    // Eight requests in less time than they were asked to wait.
    assert!(began.elapsed() < 8 * Duration::from_millis(MAX_RETRY_AFTER_MS));
}

async fn a_retry_after_that_says_nothing_is_not_heeded(world: &World) {
    for value in [
        "retry-after=soon",
        "retry-after=-1",
        "retry-after-ms=x",
        "retry-after=1e3",
    ] {
        let ask = world.ask("retries");
        let answer = ask
            .fault("alpha", &format!("times=1,503,{value}"))
            .send()
            .await;
        answer.assert_from("alpha", "alpha;503, alpha;200");
    }
}

async fn many_requests_wait_side_by_side(world: &World) {
    let asks = (0..40).map(|number| async move {
        let wait = 50 + 37 * (number % 13);
        let ask = match number % 2 {
            0 => world.ask("retries"),
            _ => world.ask("retries").stream(),
        };
        let ask = ask.fault("alpha", &format!("times=2,503,retry-after-ms={wait}"));
        let answer = ask.send().await;
        answer.assert_from("alpha", "alpha;503, alpha;503, alpha;200");
        assert_waits(&world.alpha, &answer, &[wait, wait]);
    });
    join_all(asks).await;
}

async fn a_retry_has_the_body_of_its_service(world: &World) {
    let bodies = [
        (
            r#"{"model": "gpt-4o", "x": [1.50, "\u00e9"], "stream": false}"#,
            r#"{"model": "MODEL", "x": [1.50, "\u00e9"], "stream": false}"#,
        ),
        (
            r#"{"stream": true, "messages": [], "model": "a-much-longer-name-than-others"}"#,
            r#"{"stream": true, "messages": [], "model": "MODEL"}"#,
        ),
    ];
    for (body, sent) in bodies {
        let chunks: Vec<&str> = vec![&body[..9], &body[9..]];
        for ask in [
            world.ask("retries-models").body(body),
            world.ask("retries-models").chunks(&chunks),
        ] {
            let ask = ask
                .fault("alpha", "503,retry-after-ms=100")
                .fault("beta", "503,retry-after-ms=100");
            let answer = ask.send().await;
            answer.assert_from(
                "gamma",
                "alpha;503, alpha;503, beta;503, beta;503, gamma;200",
            );
            let bodies = |service: &Mock| -> Vec<String> {
                let all = requests(service, &answer);
                for one in all
                    .iter()
                    .filter(|one| one.header("content-length").is_some())
                {
                    assert_eq!(
                        one.header("content-length"),
                        Some(&*one.body.len().to_string())
                    );
                }
                all.iter()
                    .map(|one| String::from_utf8_lossy(&one.body).into_owned())
                    .collect()
            };
            let of = |model: &str| sent.replace("MODEL", model);
            assert_eq!(
                bodies(&world.alpha),
                [of("model-of-alpha"), of("model-of-alpha")]
            );
            assert_eq!(bodies(&world.beta), [of("b"), of("b")]);
            assert_eq!(bodies(&world.gamma), [body]);
        }
    }
    // A model that was added is taken out again.
    let ask = world.ask("retries-models").body(r#"{"messages": []}"#);
    let answer = ask.fault("alpha", "503").fault("beta", "503").send().await;
    assert_eq!(
        answer.attempts(),
        "alpha;503, alpha;503, beta;503, beta;503, gamma;200"
    );
    let models = |service| -> Vec<Option<String>> {
        requests(service, &answer)
            .iter()
            .map(Received::model)
            .collect()
    };
    let of_alpha = Some("model-of-alpha".to_owned());
    assert_eq!(models(&world.alpha), [of_alpha.clone(), of_alpha]);
    assert_eq!(
        models(&world.beta),
        [Some("b".to_owned()), Some("b".to_owned())]
    );
    assert_eq!(
        world.one_request(&world.gamma, &answer).body,
        r#"{"messages": []}"#
    );
}

async fn a_retry_of_a_large_body_is_whole(world: &World) {
    let text = "y".repeat(200_000);
    let body = |model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": text}]}).to_string()
    };
    let ask = world.ask("retries-models").body(body("gpt-4o"));
    let answer = ask
        .fault("alpha", "503,retry-after-ms=300")
        .fault("beta", "times=1,reset")
        .send()
        .await;
    answer.assert_from("beta", "alpha;503, alpha;503, beta;reset, beta;200");
    for (service, model) in [(&world.alpha, "model-of-alpha"), (&world.beta, "b")] {
        for one in requests(service, &answer) {
            assert!(one.body == body(model), "{} bytes", one.body.len());
        }
    }
}

async fn a_retry_over_http2_is_like_any_other(world: &World) {
    for fault in ["503", "reset", "429,retry-after-ms=200"] {
        for ask in both(world, "retries-h2") {
            let answer = ask
                .http2()
                .fault("alpha", &format!("times=1,{fault}"))
                .send()
                .await;
            let outcome = fault.split(',').next().expect("a part");
            answer.assert_from("alpha-h2", &format!("alpha-h2;{outcome}, alpha-h2;200"));
            let all = requests(&world.alpha, &answer);
            assert!(all.iter().all(|one| one.version == hyper::Version::HTTP_2));
        }
    }
    for ask in both(world, "retries-h2") {
        let answer = ask
            .fault("alpha", "503")
            .fault("beta", "times=1,reset")
            .send()
            .await;
        answer.assert_from(
            "beta-h2",
            "alpha-h2;503, alpha-h2;503, alpha-h2;503, beta-h2;reset, beta-h2;200",
        );
    }
}

/// A world of its own, where nobody else is counted.
fn alone(world: &World) -> World {
    let api = json!({
        "name": "all",
        "primary": {"service": "alpha", "retries": 2},
        "fallback": {
            "services": [{"service": "beta"}],
            "retry": {"backoff_ms": 20, "max_backoff_ms": 40},
        },
    });
    World::alone(world.mode, api, |gateway| gateway)
}

fn metric(world: &World, name: &str) -> u64 {
    world.envoy.metric(name)
}

async fn retries_are_counted(world: &World) {
    let world = alone(world);
    let answer = world.ask("").fault("alpha", "503").send().await;
    answer.assert_from("beta", "alpha;503, alpha;503, alpha;503, beta;200");
    assert_eq!(
        [metric(&world, "retries"), metric(&world, "fallbacks")],
        [2, 1]
    );
    assert!(
        world
            .envoy
            .log_contains("event=retry api=all attempts=\"alpha;503")
    );
}

async fn a_client_that_leaves_during_a_wait_leaves_nothing_behind(world: &World) {
    let world = alone(world);
    let failing = || {
        world
            .ask("")
            .stream()
            .fault("alpha", "times=1,503,retry-after=2")
    };
    let ask = failing();
    let id = ask.id.clone();
    let open = tokio::spawn(ask.try_open());
    let failed = |all: &[Received]| all.iter().any(|one| one.ended.is_some());
    world.alpha.wait_for_id(&id, failed).await;
    eventually("the request is counted", || {
        metric(&world, "active_requests") == 1
    })
    .await;
    open.abort();
    for name in ["active_calls", "active_requests", "deadlines"] {
        eventually(name, || metric(&world, name) == 0).await;
    }
    // By the end of this one, which began later, the first would have been sent again.
    failing()
        .send()
        .await
        .assert_from("alpha", "alpha;503, alpha;200");
    assert_eq!(world.alpha.requests_with(&id).len(), 1);
    assert!(world.beta.requests_with(&id).is_empty());
    for cluster in ["alpha", "beta"] {
        eventually(cluster, || {
            world
                .envoy
                .counter(&format!("cluster.{cluster}.upstream_rq_active"))
                == 0
        })
        .await;
    }
}

async fn a_primary_without_a_service_is_not_tried_again(world: &World) {
    assert_eq!(world.mode, Mode::Callout);
    let answer = world
        .ask("retries-of-nobody")
        .fault("alpha", "503")
        .send()
        .await;
    answer.assert_from("beta", "primary;503, beta;200");
    world.one_request(&world.alpha, &answer);
}

async fn a_wait_of_half_the_time_of_an_attempt_is_too_long(world: &World) {
    let ask = world.ask("retries-in-time").stream();
    let answer = ask.fault("alpha", "503,retry-after-ms=600").send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let ask = world.ask("retries-in-time").stream();
    let answer = ask
        .fault("alpha", "times=1,503,retry-after-ms=300")
        .send()
        .await;
    answer.assert_from("alpha", "alpha;503, alpha;200");
}
