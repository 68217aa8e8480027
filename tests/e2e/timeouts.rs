//! Timeouts: of the first packet, of a request, and of all attempts together.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{Short, World, case};

both_modes![
    the_first_packet_timeout_is_off_by_default,
    each_attempt_has_a_request_timeout_of_its_own,
    when_the_total_timeout_is_used_up_no_further_attempt_is_made,
    the_total_timeout_ends_a_primary_that_hangs,
    the_total_timeout_ends_a_fallback_attempt_that_hangs,
    an_answer_that_came_before_the_total_timeout_goes_on_after_it,
    an_attempt_leaves_the_reserve_to_the_next,
];

callout_only![
    "the first packet of a callout cannot be seen": the_request_timeout_bounds_a_callout_as_a_whole,
    "the router has one timeout for all attempts": the_last_attempt_has_no_first_packet_timeout,
    "the router has one timeout for all attempts (2)": a_primary_with_nothing_left_to_try_has_no_first_packet_timeout,
];

router_only![
    "the router has one timeout for all attempts, and a callout has none of its own": the_last_attempt_has_the_first_packet_timeout_and_ends_in_504,
];

/// Long enough for a good answer at any time.
const LONG_MS: u64 = 1500;

pub fn model_apis(short: Short) -> Vec<Value> {
    let with = |fallback: Value| json!({"primary": {"service": "alpha"}, "fallback": fallback});
    let services = json!([{"service": "beta"}, {"service": "gamma"}]);
    vec![
        case(
            "no-first-packet-timeout",
            with(json!({"services": services})),
        ),
        case(
            "timeout-each",
            with(json!({"services": services, "request_timeout_ms": LONG_MS})),
        ),
        case(
            "total",
            with(json!({"services": services, "total_timeout_ms": LONG_MS})),
        ),
        case(
            "total-short",
            with(json!({"services": services, "total_timeout_ms": short})),
        ),
        case(
            "reserve",
            with(json!({"services": services, "total_timeout_ms": 4000, "reserve_ms": 1000})),
        ),
        case(
            "last-waits",
            with(json!({"services": [{"service": "beta"}], "first_packet_timeout_ms": short})),
        ),
        case(
            "nothing-left",
            with(json!({"services": [{"service": "alpha"}], "first_packet_timeout_ms": short})),
        ),
    ]
}

async fn the_first_packet_timeout_is_off_by_default(world: &World) {
    let ask = world.ask("no-first-packet-timeout").stream();
    let answer = ask.fault("alpha", "comments=20,gap=100").send().await;
    answer.assert_from("alpha", "alpha;200");
}

async fn each_attempt_has_a_request_timeout_of_its_own(world: &World) {
    let ask = world
        .ask("timeout-each")
        .fault("alpha", "hang")
        .fault("beta", "hang");
    let answer = ask.send().await;
    answer.assert_from(
        "gamma",
        "alpha;request_timeout, beta;request_timeout, gamma;200",
    );
}

async fn when_the_total_timeout_is_used_up_no_further_attempt_is_made(world: &World) {
    let whole = world.ask("total-short").header("x-mock", "hang");
    let stream = world
        .ask("total-short")
        .stream()
        .header("x-mock", "comments");
    for answer in join_all([whole.send(), stream.send()]).await {
        assert_eq!(answer.attempts(), "alpha;request_timeout");
        assert_eq!(answer.status, 504);
        assert_eq!(answer.service(), None);
        world.no_request(&world.beta, &answer);
        world.no_request(&world.gamma, &answer);
    }
}

async fn the_total_timeout_ends_a_primary_that_hangs(world: &World) {
    let ask = world.ask("total").fault("alpha", "hang");
    let answer = ask.send().await;
    assert_eq!(answer.attempts(), "alpha;request_timeout");
    assert_eq!(answer.status, 504);
    world.no_request(&world.beta, &answer);
}

async fn the_total_timeout_ends_a_fallback_attempt_that_hangs(world: &World) {
    let ask = world
        .ask("total")
        .fault("alpha", "503")
        .fault("beta", "hang");
    let answer = ask.send().await;
    assert_eq!(answer.attempts(), "alpha;503, beta;request_timeout");
    assert_eq!(answer.status, 504);
    assert!(answer.json()["error"].is_object());
    world.no_request(&world.gamma, &answer);
}

async fn an_answer_that_came_before_the_total_timeout_goes_on_after_it(world: &World) {
    let ask = world
        .ask("total")
        .stream()
        .fault("alpha", "chunks=6,gap=500");
    let answer = ask.send().await;
    answer.assert_from("alpha", "alpha;200");
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{answer:?}");
}

async fn an_attempt_leaves_the_reserve_to_the_next(world: &World) {
    let first = world.ask("reserve").fault("alpha", "hang");
    let second = world.ask("reserve").fault("alpha", "503,delay=300");
    let second = second.fault("beta", "hang");
    let (first, second) = tokio::join!(first.send(), second.send());
    first.assert_from("beta", "alpha;request_timeout, beta;200");
    second.assert_from("gamma", "alpha;503, beta;request_timeout, gamma;200");
}

async fn the_request_timeout_bounds_a_callout_as_a_whole(world: &World) {
    for ask in [
        world.ask("timeout-each"),
        world.ask("timeout-each").stream(),
    ] {
        let answer = ask
            .fault("alpha", "503")
            .fault("beta", "chunks=4,gap=1000")
            .send()
            .await;
        answer.assert_from("gamma", "alpha;503, beta;request_timeout, gamma;200");
    }
}

async fn the_last_attempt_has_no_first_packet_timeout(world: &World) {
    let slow = ["delay=2000", "first=2000", "comments=40,gap=50"].map(|fault| {
        let ask = world.ask("last-waits").stream();
        ask.fault("alpha", "hang").fault("beta", fault).send()
    });
    for answer in join_all(slow).await {
        answer.assert_from("beta", "alpha;first_packet_timeout, beta;200");
    }
}

async fn a_primary_with_nothing_left_to_try_has_no_first_packet_timeout(world: &World) {
    let slow = ["delay=2000", "first=2000"].map(|fault| {
        world
            .ask("nothing-left")
            .stream()
            .fault("alpha", fault)
            .send()
    });
    for answer in join_all(slow).await {
        answer.assert_from("alpha", "alpha;200");
    }
}

async fn the_last_attempt_has_the_first_packet_timeout_and_ends_in_504(world: &World) {
    let ask = world.ask("last-waits").stream();
    let answer = ask.header("x-mock", "comments").send().await;
    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.attempts(),
        "alpha;first_packet_timeout, beta;first_packet_timeout"
    );
}
