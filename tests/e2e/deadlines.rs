//! The total timeout: it keeps a share for the next attempt, and a client may shorten it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::{Ended, Received};
use crate::support::eventually;
use crate::world::{Short, World, case};

both_modes![
    an_attempt_is_cut_so_that_the_next_one_has_its_share,
    each_attempt_leaves_a_share_while_there_is_enough_for_two,
    without_a_reserve_the_first_attempt_takes_all,
    the_last_attempt_takes_all_that_is_left,
    an_attempt_is_not_begun_with_less_than_the_reserve,
    a_later_silent_attempt_is_cut_and_leaves_nothing_behind,
    a_stream_that_has_begun_is_not_cut,
    a_wait_that_does_not_fit_is_not_waited_for,
    a_client_may_shorten_the_total,
    a_client_may_set_a_total_where_there_is_none,
    a_client_cannot_lengthen_the_total,
    the_total_of_a_client_keeps_the_reserve,
    a_total_of_one_millisecond_is_one,
    a_timeout_header_that_cannot_be_understood_gets_400,
    a_timeout_header_that_is_not_allowed_is_ignored,
    the_timeout_header_is_never_sent_to_a_service,
];

const HEADER: &str = "x-ai-fallback-timeout-ms";
const TOTAL_MS: u64 = 4500;
const RESERVE_MS: u64 = 1500;
/// How long one of the attempts of a test is under way that are not cut.
const SOME_MS: u64 = 700;

pub fn model_apis(short: Short) -> Vec<Value> {
    let with = |fallback: Value| json!({"primary": {"service": "alpha"}, "fallback": fallback});
    let two = json!([{"service": "beta"}, {"service": "gamma"}]);
    let reserve = json!({"services": two, "total_timeout_ms": TOTAL_MS, "reserve_ms": RESERVE_MS});
    vec![
        case("share", with(reserve.clone())),
        case(
            "no-share",
            with(json!({"services": two, "total_timeout_ms": short})),
        ),
        case(
            "share-retries",
            json!({
                "primary": {"service": "alpha", "retries": 3},
                "fallback": {
                    "services": [{"service": "beta"}], "total_timeout_ms": TOTAL_MS, "reserve_ms": RESERVE_MS,
                    "retry": {"max_retry_after_ms": 60000},
                },
            }),
        ),
        case(
            "client-total",
            with(
                json!({"services": two, "total_timeout_ms": 60000, "client_controls": ["timeout"]}),
            ),
        ),
        case(
            "client-short",
            with(
                json!({"services": two, "total_timeout_ms": short, "client_controls": ["timeout"]}),
            ),
        ),
        case(
            "client-only",
            with(json!({
                "services": two, "request_timeout_ms": 0, "reserve_ms": RESERVE_MS, "client_controls": ["timeout"],
            })),
        ),
        case(
            "client-other",
            with(json!({"services": two, "client_controls": ["off", "deliver"]})),
        ),
        case("client-nothing", with(json!({"services": two}))),
    ]
}

fn both(world: &World, case: &str) -> [Ask; 2] {
    [world.ask(case), world.ask(case).stream()]
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// All of it at once, and how long each took.
async fn timed(asks: impl IntoIterator<Item = Ask>) -> Vec<(Answer, Duration)> {
    let timed = asks.into_iter().map(|ask| async move {
        let began = Instant::now();
        (ask.send().await, began.elapsed())
    });
    join_all(timed).await
}

#[track_caller]
fn assert_timeout(answer: &Answer, attempts: &str) {
    assert_eq!(answer.attempts(), attempts, "{answer:?}");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(answer.service(), None, "{answer:?}");
}

async fn an_attempt_is_cut_so_that_the_next_one_has_its_share(world: &World) {
    let faults = ["hang", "silence"];
    let asks = faults
        .iter()
        .flat_map(|fault| both(world, "share").map(|ask| ask.fault("alpha", fault)));
    // The next one needs a part of its share.
    let asks = asks.map(|ask| ask.fault("beta", &format!("delay={SOME_MS}")));
    for (answer, took) in timed(asks).await {
        answer.assert_from("beta", "alpha;request_timeout, beta;200");
        assert!(took >= millis(TOTAL_MS - RESERVE_MS - 100), "{took:?}");
        world.one_request(&world.alpha, &answer);
        world.one_request(&world.beta, &answer);
    }
}

async fn each_attempt_leaves_a_share_while_there_is_enough_for_two(world: &World) {
    // Beta begins after a while, and could have more than its part.
    let asks = both(world, "share").map(|ask| {
        ask.fault("alpha", &format!("503,delay={SOME_MS}"))
            .fault("beta", "hang")
    });
    for (answer, took) in timed(asks).await {
        answer.assert_from("gamma", "alpha;503, beta;request_timeout, gamma;200");
        assert!(took >= millis(TOTAL_MS - RESERVE_MS - 100), "{took:?}");
        for service in [&world.alpha, &world.beta, &world.gamma] {
            world.one_request(service, &answer);
        }
    }
}

async fn without_a_reserve_the_first_attempt_takes_all(world: &World) {
    for (answer, _) in timed(both(world, "no-share").map(|ask| ask.fault("alpha", "hang"))).await {
        assert_timeout(&answer, "alpha;request_timeout");
        world.no_request(&world.beta, &answer);
    }
}

async fn the_last_attempt_takes_all_that_is_left(world: &World) {
    // Cut after 3000 ms, beta has 1500: not enough to leave a share to gamma.
    let asks = both(world, "share").map(|ask| ask.header("x-mock", "hang"));
    for (answer, took) in timed(asks).await {
        assert_timeout(&answer, "alpha;request_timeout, beta;request_timeout");
        assert!(took >= millis(TOTAL_MS - 100), "{took:?}");
        world.one_request(&world.beta, &answer);
        world.no_request(&world.gamma, &answer);
    }
}

async fn an_attempt_is_not_begun_with_less_than_the_reserve(world: &World) {
    let asks = both(world, "share").map(|ask| {
        ask.fault("alpha", "hang")
            .fault("beta", &format!("503,delay={SOME_MS}"))
    });
    for (answer, _) in timed(asks).await {
        answer.assert_failure_of("beta", 503, "alpha;request_timeout, beta;503");
        world.no_request(&world.gamma, &answer);
    }
}

/// In router mode the request filter cuts it, and its next attempt is a callout: meanwhile the router's own timeout comes
/// too, and it must not make another attempt.
async fn a_later_silent_attempt_is_cut_and_leaves_nothing_behind(world: &World) {
    let api = json!({
        "name": "all",
        "primary": {"service": "alpha"},
        "fallback": {
            "services": [{"service": "beta"}, {"service": "gamma"}, {"service": "secure"}],
            "total_timeout_ms": TOTAL_MS, "reserve_ms": RESERVE_MS,
        },
    });
    let world = World::alone(world.mode, api, |gateway| gateway);
    // The router allows beta 3000 ms, and the filter allows it 2300. Gamma answers after the router's time is over.
    let table = [
        (world.ask(""), "hang"),
        (world.ask(""), "silence"),
        (world.ask("").stream(), "hang"),
        (world.ask("").stream(), "silence"),
        (world.ask("").stream(), "comments"),
    ];
    let table = table.map(|(ask, fault)| {
        ask.fault("alpha", &format!("503,delay={SOME_MS}"))
            .fault("beta", fault)
            .fault("gamma", "delay=1000")
    });
    for (answer, took) in timed(table).await {
        answer.assert_from("gamma", "alpha;503, beta;request_timeout, gamma;200");
        assert!(
            took >= millis(TOTAL_MS - RESERVE_MS + 1000 - 100),
            "{took:?}"
        );
        for service in [&world.alpha, &world.beta, &world.gamma] {
            world.one_request(service, &answer);
        }
        world.no_request(&world.secure, &answer);
        let gone = |all: &[Received]| all.iter().all(|one| one.ended == Some(Ended::ClientGone));
        world.beta.wait_for_id(&answer.id, gone).await;
    }
    // What the router does is over too, and still nobody was asked twice.
    for name in ["active_calls", "active_requests", "deadlines"] {
        eventually(name, || world.envoy.metric(name) == 0).await;
    }
    for cluster in ["alpha", "beta", "gamma", "secure"] {
        let gauge = format!("cluster.{cluster}.upstream_rq_active");
        eventually(cluster, || world.envoy.counter(&gauge) == 0).await;
    }
    assert_eq!(world.beta.requests().len(), 5);
    assert_eq!(world.gamma.requests().len(), 5);
    assert!(world.secure.requests().is_empty());
}

async fn a_stream_that_has_begun_is_not_cut(world: &World) {
    let slow = "chunks=8,gap=400";
    let asks = [
        world
            .ask("client-total")
            .stream()
            .header(HEADER, "1500")
            .fault("alpha", slow),
        world
            .ask("client-only")
            .header(HEADER, "1500")
            .fault("alpha", slow),
    ];
    for (answer, took) in timed(asks).await {
        answer.assert_from("alpha", "alpha;200");
        assert!(took >= millis(1500), "{took:?}");
    }
}

async fn a_wait_that_does_not_fit_is_not_waited_for(world: &World) {
    let asks =
        both(world, "share-retries").map(|ask| ask.fault("alpha", "503,retry-after-ms=3300"));
    for (answer, _) in timed(asks).await {
        answer.assert_from("beta", "alpha;503, beta;200");
        world.one_request(&world.alpha, &answer);
    }
}

async fn a_client_may_shorten_the_total(world: &World) {
    let asks =
        both(world, "client-total").map(|ask| ask.header(HEADER, "1200").fault("alpha", "hang"));
    for (answer, took) in timed(asks).await {
        assert_timeout(&answer, "alpha;request_timeout");
        assert!((millis(1100)..millis(20_000)).contains(&took), "{took:?}");
        world.no_request(&world.beta, &answer);
    }
    // Also in a fallback attempt.
    let asks = both(world, "client-total").map(|ask| {
        ask.header(HEADER, "1200")
            .fault("alpha", "503")
            .fault("beta", "hang")
    });
    for (answer, took) in timed(asks).await {
        assert_timeout(&answer, "alpha;503, beta;request_timeout");
        assert!((millis(1100)..millis(20_000)).contains(&took), "{took:?}");
        world.no_request(&world.gamma, &answer);
    }
}

async fn a_client_may_set_a_total_where_there_is_none(world: &World) {
    let asks =
        both(world, "client-only").map(|ask| ask.header(HEADER, "1200").header("x-mock", "hang"));
    for (answer, took) in timed(asks).await {
        // The reserve is at most half of it.
        assert_timeout(&answer, "alpha;request_timeout, beta;request_timeout");
        assert!((millis(1100)..millis(20_000)).contains(&took), "{took:?}");
    }
}

async fn a_client_cannot_lengthen_the_total(world: &World) {
    for longer in ["60000", "86400000", "4294967295"] {
        let asks = both(world, "client-short")
            .map(|ask| ask.header(HEADER, longer).fault("alpha", "hang"));
        for (answer, took) in timed(asks).await {
            assert_timeout(&answer, "alpha;request_timeout");
            assert!(took < millis(20_000), "{took:?}");
        }
    }
}

async fn the_total_of_a_client_keeps_the_reserve(world: &World) {
    let total = TOTAL_MS.to_string();
    let asks =
        both(world, "client-only").map(|ask| ask.header(HEADER, &total).fault("alpha", "hang"));
    for (answer, took) in timed(asks).await {
        answer.assert_from("beta", "alpha;request_timeout, beta;200");
        assert!(took >= millis(TOTAL_MS - RESERVE_MS - 100), "{took:?}");
    }
}

async fn a_total_of_one_millisecond_is_one(world: &World) {
    for case in ["client-total", "client-only"] {
        for ask in both(world, case) {
            let answer = ask
                .header(HEADER, "1")
                .header("x-mock", "hang")
                .send()
                .await;
            assert_timeout(&answer, "alpha;request_timeout");
            world.no_request(&world.beta, &answer);
        }
    }
}

async fn a_timeout_header_that_cannot_be_understood_gets_400(world: &World) {
    for value in [
        "",
        "0",
        "-1",
        "1.5",
        "1e3",
        "1s",
        "soon",
        "0x10",
        "1,2",
        "99999999999999999999",
    ] {
        for case in ["client-total", "client-only"] {
            let answer = world.ask(case).header(HEADER, value).send().await;
            assert_eq!(answer.status, 400, "{value}: {answer:?}");
            let error = &answer.json()["error"];
            let expected = "the request header x-ai-fallback-timeout-ms is not a number of milliseconds from 1 to 4294967295";
            assert_eq!(error["message"], expected);
            assert_eq!(error["type"], "invalid_request_error");
            world.no_request(&world.alpha, &answer);
        }
        let answer = world
            .ask("client-total")
            .messages()
            .header(HEADER, value)
            .send()
            .await;
        assert_eq!(answer.status, 400, "{value}: {answer:?}");
        assert_eq!(answer.json()["type"], "error");
        assert!(answer.text().contains(HEADER));
    }
}

async fn a_timeout_header_that_is_not_allowed_is_ignored(world: &World) {
    for case in ["client-other", "client-nothing"] {
        for value in ["1", "0", "soon", ""] {
            for ask in both(world, case) {
                let ask = ask.header(HEADER, value).fault("alpha", "503,delay=100");
                let answer = ask.send().await;
                answer.assert_from("beta", "alpha;503, beta;200");
            }
        }
    }
}

async fn the_timeout_header_is_never_sent_to_a_service(world: &World) {
    for case in [
        "client-total",
        "client-only",
        "client-other",
        "client-nothing",
    ] {
        for ask in both(world, case) {
            let answer = ask
                .header(HEADER, "20000")
                .fault("alpha", "503")
                .send()
                .await;
            answer.assert_from("beta", "alpha;503, beta;200");
            for service in [&world.alpha, &world.beta] {
                let sent = world.one_request(service, &answer);
                let own = sent
                    .headers
                    .iter()
                    .find(|(name, _)| name.starts_with("x-ai-fallback"));
                assert_eq!(own, None);
            }
        }
    }
}
