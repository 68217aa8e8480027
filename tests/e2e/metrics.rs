//! What is counted is what happened: the trails of the answers say it, too.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::gateway_answers::ABORT;
use crate::mock::Received;
use crate::support::{Gateway, eventually};
use crate::world::{Mode, World};

both_modes![
    what_the_trails_say_is_what_is_counted,
    a_client_that_leaves_is_no_failure_of_a_service,
    a_client_that_leaves_while_a_retry_waits_cancels_nothing,
    a_primary_that_cools_is_a_reason_for_a_fallback,
    every_label_and_time_is_there_for_prometheus,
    fallbacks_are_logged_but_not_more_of_them_than_somebody_can_read,
];

callout_only![
    "Envoy answers past all filters when a held answer breaks, or a callout is under way": an_answer_past_the_filter_is_a_failed_request,
];

router_only![
    "there is one role in callout mode": both_roles_have_one_configuration_version,
];

type Counts = BTreeMap<String, u64>;

fn api(mode: Mode) -> Value {
    let short = match mode {
        Mode::Callout => 300,
        Mode::Router => 1000,
    };
    json!({
        "name": "all",
        "primary": {"service": "alpha", "retries": 1},
        "fallback": {
            "services": [{"service": "beta"}, {"service": "gamma"}],
            "retry": {"backoff_ms": 1, "max_backoff_ms": 1},
            "first_packet_timeout_ms": short,
            "request_timeout_ms": short,
        },
    })
}

/// A world of its own, where nobody else is counted.
fn alone(world: &World) -> World {
    World::alone(world.mode, api(world.mode), |gateway| gateway)
}

/// The same without timeouts.
fn patient(world: &World) -> World {
    let mut api = api(world.mode);
    api["fallback"]["request_timeout_ms"] = 0.into();
    api["fallback"]["first_packet_timeout_ms"] = 0.into();
    World::alone(world.mode, api, |gateway| gateway)
}

/// Every way in which an attempt can end, at the first, at a later and at the last service.
fn requests(world: &World) -> Vec<Ask> {
    let of_all = |fault: &str| {
        let ask = world.ask("").stream();
        ["alpha", "beta", "gamma"]
            .iter()
            .fold(ask, |ask, service| ask.fault(service, fault))
    };
    let mut asks = vec![
        world.ask(""),
        world.ask("").stream(),
        world.ask("").stream().http2(),
        world.ask("").fault("alpha", "times=1,503"),
        world.ask("").header(ABORT, "429"),
        world
            .ask("")
            .stream()
            .fault("alpha", "503")
            .fault("beta", "reset"),
        world.ask("").fault("alpha", "418").fault("beta", "302"),
    ];
    for fault in ["503", "400", "477", "599", "429", "reset", "hang", "empty"] {
        asks.push(world.ask("").stream().fault("alpha", fault));
        asks.push(world.ask("").fault("alpha", fault));
        asks.push(of_all(fault));
    }
    for fault in ["silence", "comments", "error-event"] {
        asks.push(world.ask("").stream().fault("alpha", fault));
        asks.push(of_all(fault));
    }
    asks
}

/// What the trails of these answers make of `attempts`.
fn attempts(answers: &[Answer]) -> Counts {
    let mut counts = Counts::new();
    for answer in answers {
        for attempt in answer.attempts().split(", ") {
            let (service, outcome) = labels(attempt);
            *counts.entry(format!("{service} {outcome}")).or_default() += 1;
        }
    }
    counts
}

/// The service and the outcome of an attempt in a trail, as labels.
fn labels(attempt: &str) -> (&str, &str) {
    let (service, outcome) = attempt.split_once(';').expect("an outcome");
    let label = match outcome {
        "200" => "2xx",
        "302" => "3xx",
        "418" | "477" => "4xx",
        "599" => "5xx",
        other => other,
    };
    (service, label)
}

/// What is counted for this metric, by two of its labels.
fn counted(world: &World, metric: &str, labels: [&str; 2]) -> Counts {
    let stats = world.envoy.stats().into_iter();
    let of_metric = stats.filter_map(|(name, count)| {
        let parts = name.strip_prefix("wasmcustom.ai_fallback.")?;
        let parts: Vec<&str> = parts.split('.').collect();
        let label = |wanted: &str| {
            let mut pairs = parts.iter().filter_map(|part| part.split_once('='));
            pairs
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        let values = labels.map(|name| label(name).unwrap_or("-"));
        (parts.first() == Some(&metric)).then(|| (values.join(" "), count))
    });
    let mut counts = Counts::new();
    for (values, count) in of_metric {
        *counts.entry(values).or_default() += count;
    }
    counts
}

async fn what_the_trails_say_is_what_is_counted(world: &World) {
    let world = alone(world);
    let answers = join_all(requests(&world).into_iter().map(Ask::send)).await;
    let expected = attempts(&answers);
    let attempts = || counted(&world, "attempts", ["model_service", "outcome"]);
    eventually("the last attempt has ended", || {
        attempts().values().sum::<u64>() >= expected.values().sum()
    })
    .await;
    assert_eq!(attempts(), expected);

    let result = |answer: &Answer| {
        let trail = answer.attempts();
        match trail.rsplit(", ").next() {
            Some("alpha;200") => "primary -",
            Some("beta;200" | "beta;302" | "gamma;200") => "fallback -",
            _ => "failed fallback_failed",
        }
    };
    let mut expected = Counts::new();
    for answer in &answers {
        *expected.entry(result(answer).to_owned()).or_default() += 1;
    }
    assert_eq!(counted(&world, "requests", ["result", "reason"]), expected);

    // Each attempt after the first of its request is a fallback or a retry, for what came before it.
    let (mut fallbacks, mut retries) = (Counts::new(), Counts::new());
    for answer in &answers {
        let trail = answer.attempts();
        let trail: Vec<_> = trail.split(", ").map(labels).collect();
        for pair in trail.windows(2) {
            let [(service, reason), (next, _)] = pair else {
                unreachable!("two attempts")
            };
            let counts = match service == next {
                true => &mut retries,
                false => &mut fallbacks,
            };
            *counts.entry(format!("all {reason}")).or_default() += 1;
        }
    }
    let by_reason = |metric| counted(&world, metric, ["model_api", "reason"]);
    assert_eq!(by_reason("fallbacks"), fallbacks);
    assert_eq!(by_reason("retries"), retries);
}

async fn a_client_that_leaves_is_no_failure_of_a_service(world: &World) {
    let world = patient(world);
    for (service, ask) in [
        (&world.alpha, world.ask("").fault("alpha", "hold")),
        (&world.alpha, world.ask("").stream().fault("alpha", "hold")),
        (
            &world.beta,
            world.ask("").fault("alpha", "400").fault("beta", "hold"),
        ),
        // What Envoy has said of the primary is not what the request ended with.
        (
            &world.beta,
            world.ask("").fault("alpha", "reset").fault("beta", "hold"),
        ),
        (
            &world.beta,
            world
                .ask("")
                .http2()
                .fault("alpha", "reset")
                .fault("beta", "hold"),
        ),
        (
            &world.gamma,
            world
                .ask("")
                .stream()
                .fault("alpha", "400")
                .fault("beta", "400")
                .fault("gamma", "hold"),
        ),
    ] {
        let id = ask.id.clone();
        let before = world.envoy.metric("requests result=gone");
        let open = tokio::spawn(ask.try_open());
        let whole = |all: &[Received]| all.iter().any(|one| one.complete);
        service.wait_for_id(&id, whole).await;
        open.abort();
        let gone = || world.envoy.metric("requests result=gone");
        eventually("it is counted", || gone() == before + 1).await;
        service.open_gate(&id);
    }
    eventually("all is over", || world.envoy.metric("active_requests") == 0).await;
    let expected = [
        ("alpha 400", 2),
        ("alpha cancelled", 2),
        ("beta 400", 1),
        ("alpha reset", 4),
        ("beta cancelled", 3),
        ("gamma cancelled", 1),
    ];
    let expected = expected.map(|(labels, count)| (labels.to_owned(), count));
    let attempts = counted(&world, "attempts", ["model_service", "outcome"]);
    assert_eq!(attempts, Counts::from(expected));
    assert_eq!(world.envoy.metric("requests"), 6);
}

async fn a_primary_that_cools_is_a_reason_for_a_fallback(world: &World) {
    let cooldown = json!({"cooldown": {"failures": 1, "time_ms": 60_000}});
    let mut api = api(world.mode);
    api["primary"]["retries"] = 0.into();
    let world = World::configured(world.mode, vec![api], cooldown);
    let answer = world.ask("").fault("alpha", "503").send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let answer = world.ask("").send().await;
    answer.assert_from("beta", "alpha;cooling, beta;200");
    let reasons = counted(&world, "fallbacks", ["model_api", "reason"]);
    let expected = [("all 503".to_owned(), 1), ("all cooling".to_owned(), 1)];
    assert_eq!(reasons, Counts::from(expected));
    assert_eq!(world.envoy.metric("requests result=fallback"), 2);
    assert_eq!(world.envoy.metric("cooldowns model_service=alpha"), 1);
    assert_eq!(world.envoy.metric("cooling model_service=alpha"), 1);
    let line = "event=fallback api=all attempts=\"alpha;cooling\" next=beta";
    assert!(world.envoy.log_contains(line));
}

async fn every_label_and_time_is_there_for_prometheus(world: &World) {
    let world = alone(world);
    world.ask("").stream().send().await;
    world.ask("").stream().fault("alpha", "400").send().await;
    let is_router = world.mode == Mode::Router;
    let times = [
        r#"ai_fallback_first_packet_ms_count{model_service="alpha"} 1"#,
        // An answer of a callout comes whole.
        match is_router {
            true => r#"ai_fallback_first_packet_ms_count{model_service="beta"} 1"#,
            false => "",
        },
        r#"ai_fallback_attempt_ms_count{model_service="alpha"} 2"#,
        r#"ai_fallback_attempt_ms_count{model_service="beta"} 1"#,
        r#"ai_fallback_fallback_delay_ms_count{model_api="all"} 1"#,
        r#"ai_fallback_attempts{model_service="alpha",outcome="400"} 1"#,
        r#"ai_fallback_requests{model_api="all",result="fallback"} 1"#,
        r#"ai_fallback_fallbacks{model_api="all",reason="400"} 1"#,
        r#"ai_fallback_configuration_version{role="request"} "#,
    ];
    // Envoy puts histograms together every few seconds.
    let missing = || {
        let page = world.envoy.admin("/stats/prometheus");
        let mut missing = times.iter().filter(|time| !page.contains(**time));
        missing.next().copied()
    };
    eventually("all is there", || missing().is_none()).await;
}

async fn fallbacks_are_logged_but_not_more_of_them_than_somebody_can_read(world: &World) {
    const REQUESTS: usize = 400;
    /// Of each worker.
    const MAX_PER_SECOND: u64 = 10;
    let world = patient(world);
    let began = std::time::Instant::now();
    let asks = (0..REQUESTS).map(|_| world.ask("").fault("alpha", "400").send());
    let answers = join_all(asks).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let lines = || world.envoy.log().matches("event=fallback api=all ").count() as u64;
    // A second that has begun is one, too.
    let seconds = began.elapsed().as_secs() + 2;
    let workers = world.envoy.counter("server.concurrency").max(1);
    assert!((1..=seconds * workers * MAX_PER_SECOND).contains(&lines()));
    let next = || world.envoy.log_contains("next=beta left_out=");
    let mut tries = 0;
    while !next() {
        join_all((0..50).map(|_| world.ask("").fault("alpha", "400").send())).await;
        tries += 1;
        assert!(tries < 200, "what was left out is never told");
    }
    assert!(
        !world
            .envoy
            .log_contains("event=fallback api=all attempts=\"\"")
    );
}

async fn an_answer_past_the_filter_is_a_failed_request(world: &World) {
    let patient = |mode, gateway: fn(Gateway) -> Gateway| {
        let mut api = api(mode);
        api["fallback"]["request_timeout_ms"] = 0.into();
        api["fallback"]["first_packet_timeout_ms"] = 0.into();
        World::alone(mode, api, gateway)
    };
    let broken = patient(world.mode, |gateway| gateway);
    let broken_ask = broken.ask("").fault("alpha", "reset-after=0");
    let late = patient(world.mode, |gateway| {
        gateway.route(json!({"timeout": "3s"}))
    });
    let late_ask = late.ask("").stream().fault("alpha", "silence");
    let idle = patient(world.mode, |gateway| {
        gateway.manager(json!({"stream_idle_timeout": "1s"}))
    });
    let idle_ask = idle.ask("").fault("alpha", "400").fault("beta", "hang");
    let long = patient(world.mode, |gateway| {
        gateway.manager(json!({"common_http_protocol_options": {"max_stream_duration": "3s"}}))
    });
    let long_ask = long.ask("").stream().fault("alpha", "silence");
    // The filter is told of a larger buffer than Envoy has.
    let large = World::with(
        world.mode,
        json!([{
            "name": "all",
            "fallback": {"services": [{"service": "beta"}], "deliver": "complete", "max_held_bytes": 8_388_608},
        }]),
        json!({"buffer_limit_bytes": 16_777_216}),
        |gateway| gateway.buffer_limit(1024 * 1024),
    );
    let large_ask = large
        .ask("")
        .header("x-ai-route", "alpha")
        .fault("alpha", "size=3000000,chunks=30");
    for (world, ask, status, attempt, reason) in [
        (&broken, broken_ask, 502, "alpha reset", "no_fallback"),
        (&late, late_ask, 504, "alpha request_timeout", "no_fallback"),
        (
            &idle,
            idle_ask,
            504,
            "beta request_timeout",
            "fallback_failed",
        ),
        (&long, long_ask, 504, "alpha request_timeout", "no_fallback"),
        (&large, large_ask, 500, "primary reset", "no_fallback"),
    ] {
        let answer = ask.send().await;
        let said = (answer.status.as_u16(), answer.attempts());
        assert_eq!(said, (status, String::new()), "{attempt}");
        eventually("it is counted", || world.envoy.metric("requests") == 1).await;
        let failed = format!("requests result=failed reason={reason}");
        assert_eq!(world.envoy.metric(&failed), 1, "{attempt}");
        let attempts = counted(world, "attempts", ["model_service", "outcome"]);
        assert_eq!(attempts.get(attempt), Some(&1), "{attempts:?}");
    }
}

/// Nothing is sent while a retry waits, so nothing is cancelled.
async fn a_client_that_leaves_while_a_retry_waits_cancels_nothing(world: &World) {
    let mut api = api(world.mode);
    api["fallback"]["request_timeout_ms"] = 60_000.into();
    api["fallback"]["retry"] = json!({"max_retry_after_ms": 60_000});
    let world = World::alone(world.mode, api, |gateway| gateway);
    let ask = world.ask("").fault("alpha", "503,retry-after=20");
    let open = tokio::spawn(ask.try_open());
    eventually("the attempt has failed", || {
        world.envoy.metric("attempts outcome=503") == 1
    })
    .await;
    open.abort();
    eventually("it is counted", || {
        world.envoy.metric("requests result=gone") == 1
    })
    .await;
    let attempts = counted(&world, "attempts", ["model_service", "outcome"]);
    assert_eq!(attempts, Counts::from([("alpha 503".to_owned(), 1)]));
    assert_eq!(world.envoy.metric("retries"), 0);
    assert_eq!(world.alpha.requests().len(), 1);
}

async fn both_roles_have_one_configuration_version(world: &World) {
    let version = |role: &str| {
        let gauge = format!("configuration_version role={role}");
        world.envoy.metric(&gauge)
    };
    let request = version("request");
    assert_eq!((request != 0, version("attempt")), (true, request));
    let other = alone(world);
    let gauge = "configuration_version role=request";
    assert_ne!(other.envoy.metric(gauge), request);
}
