//! The model name: what each service is asked for, and that nothing else of the body changes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::mock::Mock;
use crate::world::{World, case};

both_modes![
    with_pass_through_the_body_is_sent_as_it_is,
    only_the_bytes_of_the_model_change,
    a_fallback_gets_the_original_body_with_its_own_model,
    names_that_a_service_knows_models_by_are_used_where_the_model_is_passed_through,
    a_named_model_is_added_where_there_is_none,
    without_a_model_and_with_pass_through_the_body_is_sent_as_it_is,
    a_model_name_that_is_the_same_but_written_differently_stays_as_it_is,
    the_content_length_is_right,
    a_chunked_request_is_rewritten_too,
    without_fallback_the_model_is_still_rewritten,
    without_a_named_primary_the_model_is_still_rewritten,
];

pub fn services() -> Value {
    json!({
        "alpha-names": {"cluster": "alpha", "models": {"gpt-4o": "alpha-4o-2024", "other": "alpha-other"}},
        "beta-names": {"cluster": "beta", "models": {"gpt-4o": "beta/4o"}},
    })
}

pub fn model_apis() -> Vec<Value> {
    let models = |primary: Value, fallback: Value| json!({"primary": primary, "fallback": {"services": [fallback]}});
    vec![
        case(
            "pass-through",
            models(
                json!({"service": "alpha"}),
                json!({"service": "beta", "model": "pass-through"}),
            ),
        ),
        case(
            "named",
            models(
                json!({"service": "alpha", "model": "named-alpha"}),
                json!({"service": "beta", "model": "a much longer \"name\" for \u{e9}"}),
            ),
        ),
        case(
            "known-names",
            models(
                json!({"service": "alpha-names"}),
                json!({"service": "beta-names"}),
            ),
        ),
        case(
            "known-names-but-named",
            models(
                json!({"service": "alpha-names", "model": "gpt-4o"}),
                json!({"service": "beta-names", "model": "gpt-4o"}),
            ),
        ),
        case(
            "named-alone",
            json!({"primary": {"service": "alpha", "model": "named-alpha"}}),
        ),
        case(
            "named-by-route",
            json!({"primary": {"model": "named-alpha"}}),
        ),
    ]
}

/// The model stands for `MODEL`; everything else is what a careless rewrite would change.
const BODIES: [&str; 5] = [
    r#"{"model":MODEL}"#,
    "\n { \"z\" : [1e400, -0.0,\t12345678901234567890, 0.10] ,\r\n\"model\"  :\tMODEL  , \"a\": \"\\u0041\\/\u{e9}\" }\n\n",
    r#"{"messages":[{"role":"user","content":"say \"model\": \"x\""}],"nested":{"model":"inner"},"model":MODEL,"dup":1,"dup":2}"#,
    r#"{"mod\u0065l": MODEL, "models": ["a", "b"], "stream" : false}"#,
    r#"{"a":"🦊","deep":[[[[[[[[[[{"model":[]}]]]]]]]]]],"model":MODEL,"big":123456789012345678901234567890.000}"#,
];

async fn with_pass_through_the_body_is_sent_as_it_is(world: &World) {
    for template in BODIES {
        assert_bodies(
            world,
            "pass-through",
            template,
            r#""gpt-4o""#,
            r#""gpt-4o""#,
            r#""gpt-4o""#,
        )
        .await;
        let escaped = r#""gpt\u002d4\u006f""#;
        assert_bodies(world, "pass-through", template, escaped, escaped, escaped).await;
    }
}

async fn only_the_bytes_of_the_model_change(world: &World) {
    for template in BODIES {
        let long = "\"a much longer \\\"name\\\" for \u{e9}\"";
        assert_bodies(
            world,
            "named",
            template,
            r#""gpt-4o""#,
            r#""named-alpha""#,
            long,
        )
        .await;
        assert_bodies(world, "named", template, r#""""#, r#""named-alpha""#, long).await;
    }
}

async fn a_fallback_gets_the_original_body_with_its_own_model(world: &World) {
    let template = r#"{"model": MODEL, "stream": true}"#;
    assert_bodies(
        world,
        "known-names",
        template,
        r#""gpt-4o""#,
        r#""alpha-4o-2024""#,
        r#""beta/4o""#,
    )
    .await;
}

async fn names_that_a_service_knows_models_by_are_used_where_the_model_is_passed_through(
    world: &World,
) {
    let template = r#"{"model": MODEL}"#;
    // The service of the fallback has no name of its own for this one.
    assert_bodies(
        world,
        "known-names",
        template,
        r#""other""#,
        r#""alpha-other""#,
        r#""other""#,
    )
    .await;
    assert_bodies(
        world,
        "known-names",
        template,
        r#""third""#,
        r#""third""#,
        r#""third""#,
    )
    .await;
    // Found by its name, however that is written.
    assert_bodies(
        world,
        "known-names",
        template,
        r#""gpt\u002d4o""#,
        r#""alpha-4o-2024""#,
        r#""beta/4o""#,
    )
    .await;
    assert_bodies(
        world,
        "known-names-but-named",
        template,
        r#""x""#,
        r#""gpt-4o""#,
        r#""gpt-4o""#,
    )
    .await;
}

async fn a_named_model_is_added_where_there_is_none(world: &World) {
    for body in ["{}", " { } ", r#"{"messages":[], "nested": {"model": 7}}"#] {
        let (alpha, beta) = sent(world, "named", body).await;
        for (body_sent, model) in [
            (alpha, "named-alpha"),
            (beta, "a much longer \"name\" for \u{e9}"),
        ] {
            let value: Value = serde_json::from_str(&body_sent).expect("JSON");
            assert_eq!(value["model"], model);
            // What is added is one run of bytes.
            let added = body_sent.len() - body.len();
            let inserted = |at: usize| {
                body_sent.get(..at) == body.get(..at)
                    && body_sent.get(at + added..) == body.get(at..)
            };
            assert!((0..=body.len()).any(inserted), "{body_sent}");
        }
    }
}

async fn without_a_model_and_with_pass_through_the_body_is_sent_as_it_is(world: &World) {
    for body in ["{}", r#" {"messages": [ ], "temperature": 1.0}"#] {
        let both = sent(world, "pass-through", body).await;
        assert_eq!(both, (body.to_owned(), body.to_owned()));
    }
}

async fn a_model_name_that_is_the_same_but_written_differently_stays_as_it_is(world: &World) {
    let same = r#""named\u002dalpha""#;
    let body = format!(r#"{{"model": {same}}}"#);
    let (alpha, _) = sent(world, "named", &body).await;
    assert_eq!(alpha, body);
}

async fn the_content_length_is_right(world: &World) {
    join_all(BODIES.map(|template| async move {
        let body = template.replace("MODEL", r#""gpt-4o""#);
        let answer = world
            .ask("named")
            .body(body)
            .fault("alpha", "503")
            .send()
            .await;
        for service in [&world.alpha, &world.beta] {
            let request = world.one_request(service, &answer);
            assert_eq!(
                request.header("content-length"),
                Some(&*request.body.len().to_string())
            );
            assert_eq!(request.header("transfer-encoding"), None);
        }
    }))
    .await;
}

async fn a_chunked_request_is_rewritten_too(world: &World) {
    let ask = world
        .ask("named")
        .chunks(&["{\"mod", "el\": \"gpt", "-4o\", \"a\": 1", "}"]);
    let answer = ask.fault("alpha", "503").send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let at_alpha = world.one_request(&world.alpha, &answer);
    assert_eq!(at_alpha.body, r#"{"model": "named-alpha", "a": 1}"#);
    let at_beta = world.one_request(&world.beta, &answer);
    assert_eq!(
        at_beta.body,
        "{\"model\": \"a much longer \\\"name\\\" for \u{e9}\", \"a\": 1}"
    );
}

async fn without_fallback_the_model_is_still_rewritten(world: &World) {
    let answer = world.ask("named-alone").send().await;
    answer.assert_from("alpha", "alpha;200");
    assert_eq!(model(&world.alpha, world, &answer), "named-alpha");
}

async fn without_a_named_primary_the_model_is_still_rewritten(world: &World) {
    let answer = world.ask("named-by-route").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(model(&world.alpha, world, &answer), "named-alpha");
}

fn model(service: &Mock, world: &World, answer: &crate::client::Answer) -> String {
    world.one_request(service, answer).model().expect("a model")
}

/// Sends the template with the model `asked`, and looks at what the primary and the fallback get.
async fn assert_bodies(
    world: &World,
    case: &str,
    template: &str,
    asked: &str,
    alpha: &str,
    beta: &str,
) {
    let with = |model: &str| template.replace("MODEL", model);
    let both = sent(world, case, &with(asked)).await;
    assert_eq!(both, (with(alpha), with(beta)));
}

/// The bodies that alpha and beta got.
async fn sent(world: &World, case: &str, body: &str) -> (String, String) {
    let answer = world
        .ask(case)
        .body(body.to_owned())
        .fault("alpha", "503")
        .send()
        .await;
    let got = |service| {
        let request = world.one_request(service, &answer);
        String::from_utf8(request.body.to_vec()).expect("UTF-8")
    };
    (got(&world.alpha), got(&world.beta))
}
