//! Models that a request names itself, in `models` of its body: who is asked for what, and what each service receives.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::Received;
use crate::support::eventually;
use crate::world::{Mode, ROUTE, World, case};

both_modes![
    the_models_of_the_request_come_after_its_model_and_before_the_configured_ones,
    without_a_model_the_first_of_the_models_is_the_primary,
    an_entry_names_a_service_only_where_there_is_one_of_that_name,
    a_plain_name_goes_to_the_services_that_know_it_in_their_order,
    the_same_service_and_model_are_never_tried_twice,
    the_configured_services_can_be_left_out,
    the_first_of_the_models_is_retried_as_the_primary_is,
    without_configured_services_only_the_models_of_the_request_are_tried,
    where_the_route_decides_it_is_asked_once,
    a_stream_falls_back_along_the_models_of_the_request,
    a_first_model_of_a_service_that_cannot_be_reached_falls_back,
    models_is_taken_out_of_the_body_and_nothing_else_changes,
    a_first_model_takes_the_place_of_models,
    a_chunked_request_is_sent_without_models_too,
    http2_makes_no_difference,
    the_first_of_the_models_decides_on_the_model_api,
    models_that_make_no_sense_are_refused_with_the_reason,
    as_many_models_as_configured_are_taken,
    where_they_are_off_models_stays_as_it_is,
    a_request_can_ask_for_no_fallback,
    the_wish_for_no_fallback_counts_only_where_it_is_allowed,
];

callout_only![
    "Envoy's route leads to the primary alone": a_first_model_of_another_service_is_asked_for_by_callout,
    "the router has its own timeout": without_fallback_a_callout_has_the_timeout_of_a_request,
];

router_only![
    "the filter chooses the cluster": a_first_model_of_another_service_is_streamed,
];

fn own(world: &World) -> &'static World {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let services = json!({
        "names-a": {"cluster": "alpha", "models": {"shared": "shared-at-a"}},
        "names-b": {"cluster": "beta", "models": {"shared": "shared-at-b"}},
        "names-c": {"cluster": "gamma", "models": {"shared": "shared-at-c", "only-c": "c-own"}},
    });
    WORLDS[world.mode as usize]
        .get_or_init(|| World::configured(world.mode, model_apis(), json!({"services": services})))
}

fn model_apis() -> Vec<Value> {
    let to_alpha = |fallback: Value| json!({"primary": {"service": "alpha"}, "fallback": fallback});
    let gamma = || json!([{"service": "gamma", "model": "configured"}]);
    let by_model = |name: &str, models: &str, service: &str| {
        let mut api = case(
            "patterns",
            json!({"match": {"models": [models]}, "primary": {"service": "alpha"},
                "fallback": {"services": [{"service": service, "model": name}], "client_models": {}}}),
        );
        api["name"] = name.into();
        api
    };
    vec![
        case(
            "listed",
            to_alpha(json!({"services": gamma(), "client_models": {}})),
        ),
        case("listed-alone", to_alpha(json!({"client_models": {}}))),
        case(
            "not-then",
            to_alpha(json!({"services": gamma(), "client_models": {"then_configured": false}})),
        ),
        case("five", to_alpha(json!({"client_models": {"max": 5}}))),
        case("left-out", to_alpha(json!({"services": gamma()}))),
        case(
            "disabled",
            to_alpha(json!({"services": gamma(), "client_models": {"enabled": false}})),
        ),
        case(
            "known",
            json!({"primary": {"service": "names-b"}, "fallback": {"client_models": {"then_configured": false}, "services": [
                {"service": "gamma", "priority": 9},
                {"service": "names-c", "priority": 1},
                {"service": "names-a", "priority": 5},
            ]}}),
        ),
        case(
            "by-route",
            json!({"fallback": {"services": gamma(), "client_models": {}}}),
        ),
        by_model("for-gpt", "gpt-*", "beta"),
        by_model("for-claude", "claude-*", "gamma"),
        case(
            "controls",
            to_alpha(json!({"services": gamma(), "client_models": {}, "client_controls": ["off"]})),
        ),
        case(
            "patient",
            json!({"primary": {"service": "alpha", "retries": 1},
                "fallback": {"client_models": {}, "retry": {"backoff_ms": 0}}}),
        ),
        case(
            "impatient",
            to_alpha(
                json!({"client_models": {}, "client_controls": ["off"], "request_timeout_ms": 300}),
            ),
        ),
        case(
            "unhurried",
            to_alpha(json!({"client_models": {}, "client_controls": ["off"]})),
        ),
        case(
            "controls-alone",
            json!({"primary": {"service": "alpha"},
                "fallback": {"services": [{"service": "beta"}], "client_controls": ["off"]}}),
        ),
    ]
}

async fn the_models_of_the_request_come_after_its_model_and_before_the_configured_ones(
    world: &World,
) {
    let world = own(world);
    let ask = naming(world, "listed", Some("m1"), &["m2", "beta:m3"]);
    let answer = ask.header("x-mock", "503").send().await;
    answer.assert_failure_of("gamma", 503, "alpha;503, alpha;503, beta;503, gamma;503");
    assert_eq!(
        asked(world, &answer),
        ["alpha m1", "alpha m2", "beta m3", "gamma configured"]
    );
    // The first good answer is the answer.
    let ask = naming(world, "listed", Some("m1!503"), &["m2!503", "beta:m3"]);
    let answer = ask.send().await;
    answer.assert_from("beta", "alpha;503, alpha;503, beta;200");
    let answer = naming(world, "listed", Some("m1"), &["beta:m2"])
        .send()
        .await;
    answer.assert_from("alpha", "alpha;200");
    assert_eq!(asked(world, &answer), ["alpha m1"]);
}

async fn without_a_model_the_first_of_the_models_is_the_primary(world: &World) {
    let world = own(world);
    let table: [(&[&str], &str, &[&str]); 3] = [
        (
            &["m1", "beta:m2"],
            "alpha;503, beta;503, gamma;503",
            &["alpha m1", "beta m2", "gamma configured"],
        ),
        (
            &["beta:m1", "alpha:m2"],
            "beta;503, alpha;503, gamma;503",
            &["beta m1", "alpha m2", "gamma configured"],
        ),
        (
            &["gamma:m1"],
            "gamma;503, gamma;503",
            &["gamma m1", "gamma configured"],
        ),
    ];
    for (models, attempts, expected) in table {
        let ask = naming(world, "listed", None, models);
        let answer = ask.header("x-mock", "503").send().await;
        answer.assert_failure_of("gamma", 503, attempts);
        assert_eq!(asked(world, &answer), expected);
        let first = attempts.split(';').next().expect("one");
        let answer = naming(world, "listed", None, models).send().await;
        answer.assert_from(first, &format!("{first};200"));
        assert_eq!(asked(world, &answer), expected[..1]);
    }
}

async fn an_entry_names_a_service_only_where_there_is_one_of_that_name(world: &World) {
    let world = own(world);
    for (entry, expected) in [
        ("beta:m", "beta m"),
        ("beta/m", "beta m"),
        ("beta:org/m", "beta org/m"),
        ("beta/m:free", "beta m:free"),
        ("beta::m", "beta :m"),
        ("names-c:shared", "gamma shared-at-c"),
        ("org/m", "alpha org/m"),
        ("org/beta:m", "alpha org/beta:m"),
        ("m:free", "alpha m:free"),
        ("Beta:m", "alpha Beta:m"),
        (" beta:m", "alpha  beta:m"),
        ("beta:", "alpha beta:"),
        ("beta", "alpha beta"),
        (":m", "alpha :m"),
        ("/", "alpha /"),
        ("模型 \"x\"\n", "alpha 模型 \"x\"\n"),
    ] {
        let alone = naming(world, "listed-alone", None, &[entry]).send().await;
        assert_eq!(asked(world, &alone), [expected], "{entry:?}");
        let behind = naming(world, "listed-alone", Some("m0!503"), &[entry]);
        let behind = behind.send().await;
        assert_eq!(
            asked(world, &behind),
            ["alpha m0!503", expected],
            "{entry:?}"
        );
    }
}

async fn a_plain_name_goes_to_the_services_that_know_it_in_their_order(world: &World) {
    let world = own(world);
    let known = ["beta shared-at-b", "alpha shared-at-a", "gamma shared-at-c"];
    let ask = naming(world, "known", None, &["shared"]).header("x-mock", "503");
    let answer = ask.send().await;
    answer.assert_failure_of("gamma", 503, "names-b;503, names-a;503, names-c;503");
    assert_eq!(asked(world, &answer), known);
    let ask = naming(world, "known", Some("m"), &["only-c", "shared"]).header("x-mock", "503");
    let answer = ask.send().await;
    let expected = [&["beta m", "gamma c-own"], &known[..]].concat();
    assert_eq!(asked(world, &answer), expected);
    // Also services that the Model API does not name.
    let ask = naming(world, "listed-alone", None, &["only-c"]);
    let answer = ask.send().await;
    answer.assert_from("names-c", "names-c;200");
    // A service that is named is the only one, and a model that nobody knows is the primary's.
    let ask =
        naming(world, "known", None, &["names-a:shared", "unheard-of"]).header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(
        asked(world, &answer),
        ["alpha shared-at-a", "beta unheard-of"]
    );
}

async fn the_same_service_and_model_are_never_tried_twice(world: &World) {
    let world = own(world);
    for (model, models) in [
        (Some("m"), ["alpha:m", "m", "alpha/m"].as_slice()),
        (None, &["m", "alpha/m", "m"]),
        (Some("m"), &["gamma:configured", "gamma/configured", "m"]),
    ] {
        let ask = naming(world, "listed", model, models).header("x-mock", "503");
        let answer = ask.send().await;
        assert_eq!(asked(world, &answer), ["alpha m", "gamma configured"]);
    }
}

async fn the_configured_services_can_be_left_out(world: &World) {
    let world = own(world);
    let ask = naming(world, "not-then", Some("m1"), &["beta:m2"]).header("x-mock", "503");
    let answer = ask.send().await;
    answer.assert_failure_of("beta", 503, "alpha;503, beta;503");
    // Those who name none have the configured ones.
    let answer = world.ask("not-then").fault("alpha", "503").send().await;
    answer.assert_from("gamma", "alpha;503, gamma;200");
}

async fn the_first_of_the_models_is_retried_as_the_primary_is(world: &World) {
    let world = own(world);
    for (model, models, expected) in [
        (
            Some("m1"),
            ["alpha:m2", "beta:m3"],
            ["alpha m1", "alpha m1", "alpha m2", "beta m3"].as_slice(),
        ),
        (
            None,
            ["m1", "beta:m2"],
            &["alpha m1", "alpha m1", "beta m2"],
        ),
        (None, ["beta:m1", "m2"], &["beta m1", "beta m1", "alpha m2"]),
    ] {
        let ask = naming(world, "patient", model, &models).header("x-mock", "503");
        let answer = ask.send().await;
        assert_eq!(asked(world, &answer), expected);
    }
}

async fn without_configured_services_only_the_models_of_the_request_are_tried(world: &World) {
    let world = own(world);
    let ask = naming(world, "listed-alone", Some("m1"), &["beta:m2"]).header("x-mock", "503");
    let answer = ask.send().await;
    answer.assert_failure_of("beta", 503, "alpha;503, beta;503");
    let answer = world.ask("listed-alone").fault("alpha", "503").send().await;
    answer.assert_failure_of("alpha", 503, "alpha;503");
}

async fn where_the_route_decides_it_is_asked_once(world: &World) {
    let world = own(world);
    for (model, models, expected) in [
        (
            None,
            ["m1", "m2"].as_slice(),
            ["alpha m1", "gamma configured"].as_slice(),
        ),
        (Some("m1"), &["m2"], &["alpha m1", "gamma configured"]),
        (None, &["beta:m1", "m2"], &["beta m1", "gamma configured"]),
        (
            Some("m1"),
            &["m2", "beta:m3", "only-c"],
            &["alpha m1", "beta m3", "gamma c-own", "gamma configured"],
        ),
    ] {
        let ask = naming(world, "by-route", model, models).header("x-mock", "503");
        let answer = ask.send().await;
        assert_eq!(asked(world, &answer), expected, "{model:?} {models:?}");
    }
}

async fn a_stream_falls_back_along_the_models_of_the_request(world: &World) {
    let world = own(world);
    let models = ["alpha:m1!error-event", "beta:m2!503", "gamma:m3"];
    let body = json!({"stream": true, "messages": [], "models": models});
    for ask in [
        world.ask("listed").json(&body),
        world.ask("listed").messages().json(&body),
    ] {
        let answer = ask.send().await;
        answer.assert_from("gamma", "alpha;stream_error, beta;503, gamma;200");
        assert!(answer.said().starts_with("Hello from gamma, m3"));
        assert_eq!(
            asked(world, &answer),
            ["alpha m1!error-event", "beta m2!503", "gamma m3"]
        );
    }
}

async fn a_first_model_of_a_service_that_cannot_be_reached_falls_back(world: &World) {
    let world = own(world);
    let models = ["unknown:m", "refused:m", "nowhere:m", "beta:m"];
    let answer = naming(world, "five", None, &models).send().await;
    let attempts = "unknown;reset, refused;reset, nowhere;reset, beta;200";
    answer.assert_from("beta", attempts);
    assert_eq!(asked(world, &answer), ["beta m"]);
}

async fn models_is_taken_out_of_the_body_and_nothing_else_changes(world: &World) {
    let world = own(world);
    let long = format!(r#""a":"{}""#, "x".repeat(200_000));
    let table = [
        (
            r#"{"model":MODEL,"models":["beta:n"]}"#,
            r#"{"model":MODEL}"#,
        ),
        (
            r#"{"models":["beta:n"],"model":MODEL}"#,
            r#"{"model":MODEL}"#,
        ),
        (
            r#"{"a":1,"models":["beta:n"],"model":MODEL,"b":2}"#,
            r#"{"a":1,"model":MODEL,"b":2}"#,
        ),
        (
            "\n{ \"models\" : [ \"beta:n\"\t] , \"model\" : MODEL , \"z\":[1e400,-0.0] }\n\n",
            "\n{ \"model\" : MODEL , \"z\":[1e400,-0.0] }\n\n",
        ),
        (
            "{ \"a\" : \"\\u0041\\/\u{e9}\" ,\r\n \"mod\\u0065ls\" : [\"bet\\u0061:n\"] , \"model\" : MODEL }",
            "{ \"a\" : \"\\u0041\\/\u{e9}\" , \"model\" : MODEL }",
        ),
        (
            r#"{"x":{"models":["y"],"model":7},"model":MODEL,"models":["beta:n"],"dup":1,"dup":2,"t":"\"models\":[]"}"#,
            r#"{"x":{"models":["y"],"model":7},"model":MODEL,"dup":1,"dup":2,"t":"\"models\":[]"}"#,
        ),
        (
            r#"{LONG,"model":MODEL,"models":["beta:n"]}"#,
            r#"{LONG,"model":MODEL}"#,
        ),
        (
            r#"{"models":["beta:n"],LONG,"model":MODEL}"#,
            r#"{LONG,"model":MODEL}"#,
        ),
    ];
    for (body, expected) in table {
        let with =
            |template: &str, model: &str| template.replace("LONG", &long).replace("MODEL", model);
        // However the client wrote it.
        let own_name = r#""gpt\u002d4o""#;
        let answer = falls_back(world, "listed", with(body, own_name)).await;
        assert_body(world, &answer, "alpha", &with(expected, own_name));
        assert_body(world, &answer, "beta", &with(expected, r#""n""#));
        assert_body(world, &answer, "gamma", &with(expected, r#""configured""#));
    }
}

async fn a_first_model_takes_the_place_of_models(world: &World) {
    let world = own(world);
    let table = [
        (r#"{MODELS}"#, r#"{"model":NAME}"#),
        (" { MODELS } ", r#" {"model":NAME } "#),
        (r#"{MODELS,"a":1}"#, r#"{"model":NAME,"a":1}"#),
        (r#"{"a":1,MODELS}"#, r#"{"model":NAME,"a":1}"#),
        (
            r#"{ "a" : 1.0 , MODELS , "model2" : [{}] }"#,
            r#"{"model":NAME, "a" : 1.0 , "model2" : [{}] }"#,
        ),
    ];
    for (body, expected) in table {
        for (models, names) in [
            // The primary is the first, and then another service is.
            (r#"["m","beta:n"]"#, [r#""m""#, r#""n""#]),
            (r#"["beta:n","m"]"#, [r#""m""#, r#""n""#]),
            (
                r#"["m\"\u0020x","beta:\ud83d\ude00"]"#,
                [r#""m\" x""#, "\"\u{1f600}\""],
            ),
        ] {
            let body = body.replace("MODELS", &format!(r#""models" : {models}"#));
            let answer = falls_back(world, "listed", body).await;
            let expected = |name: &str| expected.replace("NAME", name);
            assert_body(world, &answer, "alpha", &expected(names[0]));
            assert_body(world, &answer, "beta", &expected(names[1]));
            assert_body(world, &answer, "gamma", &expected(r#""configured""#));
        }
    }
}

async fn a_chunked_request_is_sent_without_models_too(world: &World) {
    let world = own(world);
    for (chunks, expected) in [
        (
            ["{\"mod", "els\": [\"m\", \"bet", "a:n\"], \"a\": 1", "}"],
            "{\"model\":NAME, \"a\": 1}",
        ),
        (
            [
                "{\"a\": 1, \"model\": \"m\"",
                ", \"models\": [\"beta",
                ":n\"]",
                "}",
            ],
            "{\"a\": 1, \"model\": NAME}",
        ),
    ] {
        let ask = world.ask("listed").chunks(&chunks).header("x-mock", "503");
        let answer = ask.send().await;
        for (service, name) in [
            ("alpha", "\"m\""),
            ("beta", "\"n\""),
            ("gamma", "\"configured\""),
        ] {
            let request = received(world, &answer, service);
            assert_eq!(request.body, expected.replace("NAME", name), "{service}");
        }
    }
}

async fn http2_makes_no_difference(world: &World) {
    let world = own(world);
    for models in [["alpha-h2:m", "beta-h2:n"], ["m", "beta:n"]] {
        let body = json!({"models": models, "messages": []}).to_string();
        let ask = world.ask("listed").body(body).http2();
        let answer = ask.fault("alpha", "503").send().await;
        let beta = models[1].split(':').next().expect("one");
        let alpha = beta.replace("beta", "alpha");
        answer.assert_from(beta, &format!("{alpha};503, {beta};200"));
        assert_body(world, &answer, "alpha", r#"{"model":"m","messages":[]}"#);
        assert_body(world, &answer, "beta", r#"{"model":"n","messages":[]}"#);
    }
}

async fn the_first_of_the_models_decides_on_the_model_api(world: &World) {
    let world = own(world);
    for (models, expected) in [
        (
            ["gpt-x", "claude-x"],
            ["alpha gpt-x", "alpha claude-x", "beta for-gpt"],
        ),
        (
            ["claude-x", "gpt-x"],
            ["alpha claude-x", "alpha gpt-x", "gamma for-claude"],
        ),
        // A service before it does not count.
        (
            ["alpha:claude-x", "alpha/y"],
            ["alpha claude-x", "alpha y", "gamma for-claude"],
        ),
    ] {
        let ask = naming(world, "patterns", None, &models).header("x-mock", "503");
        let answer = ask.send().await;
        assert_eq!(asked(world, &answer), expected);
    }
    // `model` counts where there is one.
    let ask = naming(world, "patterns", Some("gpt-x"), &["claude-x"]).header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(
        asked(world, &answer),
        ["alpha gpt-x", "alpha claude-x", "beta for-gpt"]
    );
    // What no Model API is for passes as it came.
    for body in [
        r#"{"models": ["other", "gpt-x"]}"#,
        r#"{"model": "other", "models": ["gpt-x"]}"#,
    ] {
        let answer = world
            .ask("patterns")
            .body(body)
            .header(ROUTE, "alpha")
            .send()
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.attempts()),
            (200, String::new())
        );
        assert_body(world, &answer, "alpha", body);
    }
}

async fn models_that_make_no_sense_are_refused_with_the_reason(world: &World) {
    const ENTRY: &str =
        "`models` in the request body holds something that is not the name of a model";
    const LIST: &str = "`models` in the request body is not an array";
    let world = own(world);
    for (models, message) in [
        ("[]", "`models` in the request body names no model"),
        (
            r#"["a","b","c","d"]"#,
            "`models` in the request body names more than 3 models",
        ),
        (r#""a""#, LIST),
        ("null", LIST),
        ("{}", LIST),
        ("7", LIST),
        ("[7]", ENTRY),
        (r#"["a",null]"#, ENTRY),
        (r#"[["a"]]"#, ENTRY),
        (r#"[{"model":"a"}]"#, ENTRY),
        (r#"["a",""]"#, ENTRY),
        (r#"["\ud800"]"#, ENTRY),
        (
            r#"["a"],"models":["a"]"#,
            "the request body holds `models` twice; which one counts is not defined",
        ),
    ] {
        for start in ["", r#""model":"m","#] {
            let body = format!(r#"{{{start}"models":{models},"stream":true}}"#);
            let answer = world.ask("listed").body(body.clone()).send().await;
            assert_eq!(answer.status, 400, "{body}");
            let error = json!({"message": message, "type": "invalid_request_error", "param": "models", "code": "invalid_body"});
            assert_eq!(answer.json(), json!({"error": error}), "{body}");
            assert_eq!(asked(world, &answer), [""; 0]);
            let answer = world
                .ask("listed")
                .messages()
                .body(body.clone())
                .send()
                .await;
            assert_eq!(answer.status, 400, "{body}");
            let error = json!({"message": message, "type": "invalid_request_error"});
            assert_eq!(
                answer.json(),
                json!({"type": "error", "error": error}),
                "{body}"
            );
            assert_eq!(asked(world, &answer), [""; 0]);
        }
    }
}

async fn as_many_models_as_configured_are_taken(world: &World) {
    let world = own(world);
    let ask = naming(world, "listed", None, &["a", "b", "c"]).header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(
        asked(world, &answer),
        ["alpha a", "alpha b", "alpha c", "gamma configured"]
    );
    // `model` is one more.
    let ask = naming(world, "five", Some("m"), &["a", "b", "c", "d", "e"]).header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(
        asked(world, &answer),
        [
            "alpha m", "alpha a", "alpha b", "alpha c", "alpha d", "alpha e"
        ]
    );
    let answer = naming(world, "five", Some("m"), &["a"; 6]).send().await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("more than 5 models"), "{answer:?}");
}

async fn where_they_are_off_models_stays_as_it_is(world: &World) {
    let world = own(world);
    for case in ["left-out", "disabled"] {
        for (body, at_gamma) in [
            (
                r#"{ "models" : ["beta:n"] , "model" : "m" }"#,
                r#"{ "models" : ["beta:n"] , "model" : "configured" }"#,
            ),
            (
                r#"{"models":[],"models":7,"model":"m"}"#,
                r#"{"models":[],"models":7,"model":"configured"}"#,
            ),
            (
                r#"{"models":["beta:n","a","b","c","d"]}"#,
                r#"{"model":"configured","models":["beta:n","a","b","c","d"]}"#,
            ),
            (
                r#" {"models":null}"#,
                r#" {"model":"configured","models":null}"#,
            ),
        ] {
            let ask = world.ask(case).body(body).fault("alpha", "503");
            let answer = ask.send().await;
            answer.assert_from("gamma", "alpha;503, gamma;200");
            assert_body(world, &answer, "alpha", body);
            assert_body(world, &answer, "gamma", at_gamma);
        }
    }
}

async fn a_request_can_ask_for_no_fallback(world: &World) {
    let world = own(world);
    let off = |ask: Ask| ask.header("x-ai-fallback", "off").header("x-mock", "503");
    for (ask, attempts, expected) in [
        (
            naming(world, "controls", Some("m1"), &["beta:m2"]),
            "alpha;503",
            "alpha m1",
        ),
        (
            naming(world, "controls", None, &["m1", "beta:m2"]),
            "alpha;503",
            "alpha m1",
        ),
        (
            naming(world, "controls", None, &["beta:m1", "m2"]),
            "beta;503",
            "beta m1",
        ),
        // Other services that know it are a fallback too.
        (
            naming(world, "controls", None, &["shared"]),
            "names-a;503",
            "alpha shared-at-a",
        ),
        (
            naming(world, "controls", Some("m1"), &["beta:m2"]).header("x-ai-fallback", "OFF"),
            "alpha;503",
            "alpha m1",
        ),
        (world.ask("controls-alone"), "alpha;503", "alpha gpt-4o"),
        (
            world.ask("controls-alone").stream(),
            "alpha;503",
            "alpha gpt-4o",
        ),
    ] {
        let answer = off(ask).send().await;
        let service = expected.split(' ').next().expect("one");
        answer.assert_failure_of(service, 503, attempts);
        assert_eq!(asked(world, &answer), [expected]);
        let request = received(world, &answer, service);
        assert_eq!(request.header("x-ai-fallback"), None);
        assert!(request.json()["models"].is_null());
    }
    // What is no fallback stays: no timeouts for its sake, and a good answer is one.
    let ask = off(world.ask("controls-alone")).header("x-mock", "");
    ask.send().await.assert_from("alpha", "alpha;200");
    for value in ["on", "", "false", "off, off"] {
        let ask = off(world.ask("controls")).header("x-ai-fallback", value);
        let answer = ask.send().await;
        assert_eq!(answer.status, 400, "{value}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "invalid_header");
        assert_eq!(
            error["message"],
            "the request header x-ai-fallback is not `off`"
        );
        assert_eq!(asked(world, &answer), [""; 0]);
    }
}

async fn the_wish_for_no_fallback_counts_only_where_it_is_allowed(world: &World) {
    let world = own(world);
    for value in ["off", "on"] {
        let ask = world.ask("listed").header("x-ai-fallback", value);
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("gamma", "alpha;503, gamma;200");
        for service in ["alpha", "gamma"] {
            let request = received(world, &answer, service);
            assert_eq!(request.header("x-ai-fallback"), None, "{service}");
        }
    }
}

async fn a_first_model_of_another_service_is_asked_for_by_callout(world: &World) {
    assert_eq!(world.mode, Mode::Callout);
    let api =
        json!({"name": "all", "primary": {"service": "alpha"}, "fallback": {"client_models": {}}});
    let world = World::alone(world.mode, api, |gateway| gateway);
    let ask = world.ask("").json(&streamed(&["beta:m"]));
    let ask = ask.fault("beta", "gate=1");
    let id = ask.id.clone();
    let open = tokio::spawn(ask.send());
    let begun = |all: &[Received]| all.iter().any(|one| one.chunks_sent == 1);
    world.beta.wait_for_id(&id, begun).await;
    let calls = || world.envoy.metric("active_calls");
    eventually("the callout is counted", || calls() == 1).await;
    assert!(!open.is_finished(), "it comes whole");
    world.beta.open_gate(&id);
    let answer = open.await.expect("no panic");
    answer.assert_from("beta", "beta;200");
    world.no_request(&world.alpha, &answer);
    assert_body(
        &world,
        &answer,
        "beta",
        r#"{"model":"m","messages":[],"stream":true}"#,
    );
}

async fn without_fallback_a_callout_has_the_timeout_of_a_request(world: &World) {
    assert_eq!(world.mode, Mode::Callout);
    let world = own(world);
    let answer = |models| {
        let ask = naming(world, "unhurried", None, models);
        ask.header("x-ai-fallback", "off").send()
    };
    let refused = answer(&["unknown:m", "beta:m"]).await;
    assert_eq!(
        (refused.status.as_u16(), &*refused.attempts()),
        (502, "unknown;reset")
    );
    let good = answer(&["beta:m", "unknown:m"]).await;
    good.assert_from("beta", "beta;200");
    for (case, fault, status) in [
        ("impatient", "hang", 504),
        ("unhurried", "reset", 502),
        ("unhurried", "cut=0", 502),
    ] {
        let ask = naming(world, case, None, &["beta:m"]);
        let ask = ask.header("x-ai-fallback", "off").fault("beta", fault);
        let answer = ask.send().await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.service(), None);
        assert_eq!(asked(world, &answer), ["beta m"]);
        world.no_request(&world.alpha, &answer);
    }
}

async fn a_first_model_of_another_service_is_streamed(world: &World) {
    let world = own(world);
    let ask = world.ask("listed").json(&streamed(&["beta:m", "alpha:n"]));
    let ask = ask.fault("beta", "gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("data: ").await;
    world.beta.open_gate(&id);
    let answer = live.rest().await;
    answer.assert_from("beta", "beta;200");
    assert_eq!(asked(world, &answer), ["beta m"]);
}

fn streamed(models: &[&str]) -> Value {
    json!({"messages": [], "models": models, "stream": true})
}

/// A request that names these models.
fn naming(world: &World, case: &str, model: Option<&str>, models: &[&str]) -> Ask {
    let mut body = json!({"messages": [], "models": models});
    if let Some(model) = model {
        body["model"] = model.into();
    }
    world.ask(case).json(&body)
}

/// The answer to this body where all services fail.
async fn falls_back(world: &World, case: &str, body: String) -> Answer {
    let ask = world.ask(case).body(body).header("x-mock", "503");
    let answer = ask.send().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    answer
}

/// What the services were asked for, in the order of the requests: `alpha gpt-4o`. None was sent `models`.
fn asked(world: &World, answer: &Answer) -> Vec<String> {
    let services = [&world.alpha, &world.beta, &world.gamma];
    let mut all: Vec<_> = services
        .iter()
        .flat_map(|service| {
            let requests = service.requests_with(&answer.id).into_iter();
            requests.map(|request| (request, service.name()))
        })
        .collect();
    all.sort_by_key(|(request, _)| request.at);
    let shown = all.iter().map(|(request, service)| {
        assert!(request.json().get("models").is_none(), "{request:?}");
        format!("{service} {}", request.model().expect("a model"))
    });
    shown.collect()
}

/// The one request that this service received.
fn received(world: &World, answer: &Answer, service: &str) -> Received {
    let services = [&world.alpha, &world.beta, &world.gamma];
    let mut found = services.into_iter().filter(|one| one.name() == service);
    world.one_request(found.next().expect("a service"), answer)
}

/// That the one request to this service has this body, and the length of it.
#[track_caller]
fn assert_body(world: &World, answer: &Answer, service: &str, body: &str) {
    let request = received(world, answer, service);
    assert!(
        request.body == body,
        "{service}: {request:?}, expected {body}"
    );
    assert_eq!(
        request.header("content-length"),
        Some(&*body.len().to_string()),
        "{service}"
    );
    assert_eq!(request.header("transfer-encoding"), None, "{service}");
}
