//! Filters that limit or guard. What they refuse before ours is the answer; behind ours it may fall back.

use crate::client::{Answer, Ask};
use crate::filters;
use crate::world::{Chain, PLACES, Place, World, at};

both_modes![
    a_rate_limit_before_ours_is_the_answer,
    a_rate_limit_behind_ours_falls_back_unless_only_backend_errors_do,
    a_rate_limit_counts_a_request_once_whatever_attempts_it_takes,
    a_refusal_by_lua_before_ours_is_the_answer,
    a_401_403_or_407_by_lua_behind_ours_falls_back_only_where_it_is_listed,
    another_failure_by_lua_behind_ours_falls_back_by_class,
    a_body_that_a_buffer_filter_before_ours_refuses_is_the_answer,
    a_buffer_filter_behind_ours_does_not_bound_what_ours_has_read,
    a_body_that_fits_a_buffer_filter_falls_back,
];

const LIMITS: [&str; 4] = ["before", "classes", "backend", "attempts"];

pub fn chains() -> Vec<Chain> {
    let all = [
        Chain::both("limit", &filters::local_ratelimit(&LIMITS)),
        Chain::both("buffer", &filters::buffer(1024)),
    ];
    all.concat()
}

/// The answers to a request that is let in and to one that is not.
async fn limited(world: &World, place: Place, case: &str, limit: &str) -> [Answer; 2] {
    let ask = || {
        let ask = world.ask(&at("limit", place), case);
        ask.header("x-limited", limit)
    };
    let first = ask().send().await;
    first.assert_from("alpha", "alpha;200");
    [first, ask().send().await]
}

async fn a_rate_limit_before_ours_is_the_answer(world: &World) {
    let [_, answer] = limited(world, Place::Before, "classes", "before").await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.attempts(), "");
    world.no_request(&answer);
}

async fn a_rate_limit_behind_ours_falls_back_unless_only_backend_errors_do(world: &World) {
    let [_, answer] = limited(world, Place::Behind, "classes", "classes").await;
    answer.assert_from("beta", "alpha;intercepted, beta;200");
    let [_, answer] = limited(world, Place::Behind, "backend", "backend").await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.attempts(), "alpha;intercepted");
    assert_eq!(world.logged(&answer).details, "local_rate_limited");
    world.no_request(&answer);
}

async fn a_rate_limit_counts_a_request_once_whatever_attempts_it_takes(world: &World) {
    for place in PLACES {
        let ask = world.ask(&at("limit", place), "classes");
        let ask = ask.header("x-limited", "attempts").fault("alpha", "503");
        let answer = ask.send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
    }
}

fn refused_by_lua(world: &World, place: Place, case: &str, status: u16) -> Ask {
    let ask = world.ask(&at("probe", place), case);
    ask.header("x-lua-refuse", &status.to_string())
}

async fn a_refusal_by_lua_before_ours_is_the_answer(world: &World) {
    for status in [401, 403, 407, 429, 503] {
        let answer = refused_by_lua(world, Place::Before, "listed", status);
        is_the_answer(world, &answer.send().await, status, "");
    }
}

async fn a_401_403_or_407_by_lua_behind_ours_falls_back_only_where_it_is_listed(world: &World) {
    for status in [401, 403, 407] {
        for case in ["classes", "any", "backend"] {
            let answer = refused_by_lua(world, Place::Behind, case, status);
            is_the_answer(world, &answer.send().await, status, "alpha;intercepted");
        }
        let answer = refused_by_lua(world, Place::Behind, "listed", status);
        let answer = answer.send().await;
        answer.assert_from("beta", "alpha;intercepted, beta;200");
    }
}

async fn another_failure_by_lua_behind_ours_falls_back_by_class(world: &World) {
    for status in [400, 404, 429, 500, 503] {
        let answer = refused_by_lua(world, Place::Behind, "classes", status);
        let answer = answer.send().await;
        answer.assert_from("beta", "alpha;intercepted, beta;200");
        let answer = refused_by_lua(world, Place::Behind, "backend", status);
        is_the_answer(world, &answer.send().await, status, "alpha;intercepted");
    }
}

fn is_the_answer(world: &World, answer: &Answer, status: u16, attempts: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.attempts(), attempts, "{answer:?}");
    assert_eq!(answer.text(), "refused by lua");
    assert_eq!(world.logged(answer).details, "lua_response");
    world.no_request(answer);
}

fn body(size: usize) -> String {
    format!(
        r#"{{"model": "gpt-4o", "messages": [], "user": "{}"}}"#,
        "x".repeat(size)
    )
}

async fn a_body_that_a_buffer_filter_before_ours_refuses_is_the_answer(world: &World) {
    let ask = world.ask("buffer-before", "classes").body(body(4000));
    let answer = ask.send().await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(world.logged(&answer).details, "request_payload_too_large");
    world.no_request(&answer);
}

async fn a_buffer_filter_behind_ours_does_not_bound_what_ours_has_read(world: &World) {
    for case in ["classes", "backend"] {
        let ask = world.ask("buffer-behind", case).body(body(4000));
        ask.send().await.assert_from("alpha", "alpha;200");
    }
}

async fn a_body_that_fits_a_buffer_filter_falls_back(world: &World) {
    for place in PLACES {
        let ask = world.ask(&at("buffer", place), "classes").body(body(400));
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
    }
}
