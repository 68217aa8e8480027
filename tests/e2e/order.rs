//! Who is tried, and in which order.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::world::{World, case};

both_modes![
    the_primary_is_first_and_its_good_answer_is_the_answer,
    higher_priority_comes_first_and_equal_priority_in_list_order,
    a_service_can_be_in_the_list_with_several_models,
    a_service_and_model_that_were_tried_are_skipped,
    five_attempts_are_made_where_four_fail,
    each_attempt_is_made_once,
];

pub fn model_apis() -> Vec<Value> {
    let with = |services: Value| json!({"primary": {"service": "alpha"}, "fallback": {"services": services}});
    vec![
        case(
            "priorities",
            with(json!([
                {"service": "beta", "model": "p0"},
                {"service": "gamma", "model": "p-minus", "priority": -1},
                {"service": "beta", "model": "p10", "priority": 10},
                {"service": "gamma", "model": "p0-explicit", "priority": 0},
                {"service": "gamma", "model": "p10-second", "priority": 10},
                {"service": "beta", "model": "p20", "priority": 20},
            ])),
        ),
        case(
            "two-models",
            with(json!([
                {"service": "beta", "model": "small!503"},
                {"service": "beta", "model": "large"},
            ])),
        ),
        case(
            "duplicates",
            with(json!([
                {"service": "alpha"},
                {"service": "alpha", "model": "gpt-4o"},
                {"service": "beta", "model": "other"},
                {"service": "beta"},
                {"service": "beta", "model": "gpt-4o"},
                {"service": "beta", "model": "other"},
                {"service": "gamma"},
                {"service": "alpha", "model": "third"},
            ])),
        ),
        case(
            "five",
            with(json!([
                {"service": "beta"},
                {"service": "refused"},
                {"service": "gamma", "model": "g1!error-event"},
                {"service": "gamma", "model": "g2"},
                {"service": "gamma", "model": "never"},
            ])),
        ),
    ]
}

async fn the_primary_is_first_and_its_good_answer_is_the_answer(world: &World) {
    for ask in [
        world.ask("five"),
        world.ask("five").stream(),
        world.ask("five").messages(),
    ] {
        let answer = ask.send().await;
        answer.assert_from("alpha", "alpha;200");
        world.one_request(&world.alpha, &answer);
        world.no_request(&world.beta, &answer);
        world.no_request(&world.gamma, &answer);
    }
}

async fn higher_priority_comes_first_and_equal_priority_in_list_order(world: &World) {
    let answer = world.ask("priorities").header("x-mock", "503").send().await;
    answer.assert_failure_of(
        "gamma",
        503,
        "alpha;503, beta;503, beta;503, gamma;503, beta;503, gamma;503, gamma;503",
    );
    let expected = [
        "gpt-4o",
        "p20",
        "p10",
        "p10-second",
        "p0",
        "p0-explicit",
        "p-minus",
    ];
    assert_eq!(models_in_order(world, &answer), expected);
}

async fn a_service_can_be_in_the_list_with_several_models(world: &World) {
    let answer = world.ask("two-models").fault("alpha", "503").send().await;
    answer.assert_from("beta", "alpha;503, beta;503, beta;200");
    assert_eq!(
        models_in_order(world, &answer),
        ["gpt-4o", "small!503", "large"]
    );
}

async fn a_service_and_model_that_were_tried_are_skipped(world: &World) {
    let answer = world.ask("duplicates").header("x-mock", "503").send().await;
    answer.assert_failure_of(
        "alpha",
        503,
        "alpha;503, beta;503, beta;503, gamma;503, alpha;503",
    );
    assert_eq!(
        models_in_order(world, &answer),
        ["gpt-4o", "other", "gpt-4o", "gpt-4o", "third"]
    );
    // For another model, other entries of the list are the same.
    let ask = world
        .ask("duplicates")
        .model("other")
        .header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(
        models_in_order(world, &answer),
        ["other", "gpt-4o", "other", "gpt-4o", "other", "third"]
    );
}

async fn five_attempts_are_made_where_four_fail(world: &World) {
    let ask = world.ask("five").stream();
    let answer = ask
        .fault("alpha", "reset")
        .fault("beta", "429")
        .send()
        .await;
    answer.assert_from(
        "gamma",
        "alpha;reset, beta;429, refused;reset, gamma;stream_error, gamma;200",
    );
    assert_eq!(answer.said().trim_end_matches('.'), "Hello from gamma, g2");
}

async fn each_attempt_is_made_once(world: &World) {
    let ask = world.ask("five").fault("alpha", "503").fault("beta", "503");
    let answer = ask.fault("gamma", "200").send().await;
    answer.assert_from("gamma", "alpha;503, beta;503, refused;reset, gamma;200");
    world.one_request(&world.alpha, &answer);
    world.one_request(&world.beta, &answer);
    world.one_request(&world.gamma, &answer);
}

/// The models that all services together were asked for, in the order of the requests.
fn models_in_order(world: &World, answer: &Answer) -> Vec<String> {
    let services = [&world.alpha, &world.beta, &world.gamma];
    let mut all: Vec<_> = services
        .iter()
        .flat_map(|service| service.requests_with(&answer.id))
        .collect();
    all.sort_by_key(|request| request.at);
    all.iter()
        .map(|request| request.model().expect("a model"))
        .collect()
}
