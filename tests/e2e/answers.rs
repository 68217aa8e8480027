//! What the client gets: the first good answer, or the last one, and who was tried.

use serde_json::{Value, json};

use crate::world::{Mode, World, case};

both_modes![
    the_client_gets_the_good_answers_status_headers_and_body,
    the_client_gets_the_last_attempts_answer_when_all_fail,
    the_last_answer_comes_as_it_came_also_where_it_is_a_stream_error,
    the_last_answer_comes_as_it_came_also_where_it_is_empty,
    every_attempt_is_in_the_attempts_header_with_its_time,
    a_primary_that_the_route_decides_has_no_service_header,
    a_fallback_of_a_primary_that_the_route_decides_has_a_service_header,
    without_fallback_a_failure_is_the_answer,
    without_fallback_an_unreachable_primary_is_answered_as_envoy_does,
    with_fallback_disabled_a_failure_is_the_answer,
    an_answer_of_three_megabytes_is_whole,
    a_fallback_answer_of_three_megabytes_is_whole,
    a_fallback_answer_of_three_megabytes_in_place_of_a_hanging_one_is_whole,
    a_failed_answer_of_three_megabytes_is_replaced,
    a_compressed_answer_comes_as_it_came,
    requests_one_after_another_on_a_connection_do_not_mix,
];

pub fn model_apis() -> Vec<Value> {
    let services = json!([{"service": "beta"}, {"service": "gamma"}]);
    vec![
        case(
            "answers",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": services}}),
        ),
        case(
            "answers-in-time",
            json!({"primary": {"service": "alpha"}, "fallback": {"services": services, "first_packet_timeout_ms": 1000}}),
        ),
        case("route-decides", json!({"fallback": {"services": services}})),
        case("no-fallback", json!({"primary": {"service": "alpha"}})),
        case(
            "no-fallback-unreachable",
            json!({"primary": {"service": "refused"}}),
        ),
        case(
            "disabled",
            json!({"primary": {"service": "alpha"}, "fallback": {"enabled": false, "services": services}}),
        ),
    ]
}

async fn the_client_gets_the_good_answers_status_headers_and_body(world: &World) {
    for ask in [
        world.ask("answers"),
        world.ask("answers").stream(),
        world.ask("answers").stream().messages(),
    ] {
        let ask = ask
            .fault("alpha", "503,retry-after=9")
            .fault("beta", "201,retry-after=3");
        let direct = ask.clone().at(world.beta.addr()).send().await;
        let answer = ask.send().await;
        assert_eq!(answer.attempts(), "alpha;503, beta;201");
        assert_eq!(answer.status, direct.status);
        assert_eq!(answer.body, direct.body);
        for name in ["retry-after", "content-type", "x-mock-service"] {
            assert!(direct.header(name).is_some());
            assert_eq!(answer.header(name), direct.header(name));
        }
    }
}

async fn the_client_gets_the_last_attempts_answer_when_all_fail(world: &World) {
    for ask in [
        world.ask("answers"),
        world.ask("answers").stream(),
        world.ask("answers").messages(),
    ] {
        let ask = ask.fault("alpha", "503,retry-after=9").fault("beta", "500");
        let answer = ask.fault("gamma", "429,retry-after=7").send().await;
        answer.assert_failure_of("gamma", 429, "alpha;503, beta;500, gamma;429");
        assert_eq!(answer.service(), Some("gamma"));
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.json()["error"].is_object());
    }
}

async fn the_last_answer_comes_as_it_came_also_where_it_is_a_stream_error(world: &World) {
    let ask = world.ask("answers").stream();
    let answer = ask.header("x-mock", "error-event").send().await;
    answer.assert_failure_of(
        "gamma",
        200,
        "alpha;stream_error, beta;stream_error, gamma;stream_error",
    );
    assert!(answer.text().starts_with("data: {\"error\":"), "{answer:?}");
}

async fn the_last_answer_comes_as_it_came_also_where_it_is_empty(world: &World) {
    for ask in [world.ask("answers"), world.ask("answers").stream()] {
        let answer = ask.header("x-mock", "empty").send().await;
        assert_eq!(answer.attempts(), "alpha;empty, beta;empty, gamma;empty");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-mock-service"), Some("gamma"));
        assert_eq!(answer.text(), "");
    }
}

async fn every_attempt_is_in_the_attempts_header_with_its_time(world: &World) {
    let ask = world
        .ask("answers")
        .fault("alpha", "503,delay=400")
        .fault("beta", "500,first=200");
    let answer = ask.send().await;
    let header = answer.header("x-ai-fallback-attempts").expect("attempts");
    let attempts: Vec<Vec<&str>> = header
        .split(", ")
        .map(|one| one.split(';').collect())
        .collect();
    let took = |at: usize| {
        attempts[at][2]
            .strip_suffix("ms")
            .and_then(|ms| ms.parse::<u32>().ok())
    };
    assert_eq!(attempts[0][..2], ["alpha", "503"]);
    assert_eq!(attempts[1][..2], ["beta", "500"]);
    assert_eq!(attempts[2][..2], ["gamma", "200"]);
    // The services waited for so long.
    assert!(took(0).expect("a time") >= 400, "{header}");
    if world.mode == Mode::Callout {
        assert!(took(1).expect("a time") >= 200, "{header}");
    }
}

async fn a_primary_that_the_route_decides_has_no_service_header(world: &World) {
    let answer = world.ask("route-decides").send().await;
    assert_eq!(answer.attempts(), "primary;200");
    assert_eq!(answer.service(), None);
    assert_eq!(answer.header("x-mock-service"), Some("alpha"));
}

async fn a_fallback_of_a_primary_that_the_route_decides_has_a_service_header(world: &World) {
    let answer = world
        .ask("route-decides")
        .fault("alpha", "503")
        .send()
        .await;
    answer.assert_from("beta", "primary;503, beta;200");
}

async fn without_fallback_a_failure_is_the_answer(world: &World) {
    let answer = world
        .ask("no-fallback")
        .fault("alpha", "503,retry-after=2")
        .send()
        .await;
    answer.assert_failure_of("alpha", 503, "alpha;503");
    assert_eq!(answer.header("retry-after"), Some("2"));
    let stream = world
        .ask("no-fallback")
        .stream()
        .fault("alpha", "error-event");
    assert!(
        stream
            .send()
            .await
            .text()
            .contains("alpha failed on purpose")
    );
    let empty = world
        .ask("no-fallback")
        .fault("alpha", "empty")
        .send()
        .await;
    assert_eq!((empty.status.as_u16(), empty.text()), (200, ""));
}

async fn without_fallback_an_unreachable_primary_is_answered_as_envoy_does(world: &World) {
    let answer = world.ask("no-fallback-unreachable").send().await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().starts_with("upstream connect error"),
        "{answer:?}"
    );
}

async fn with_fallback_disabled_a_failure_is_the_answer(world: &World) {
    for ask in [world.ask("disabled"), world.ask("disabled").stream()] {
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_failure_of("alpha", 503, "alpha;503");
        world.no_request(&world.beta, &answer);
    }
}

const LARGE: usize = 3_000_000;

async fn an_answer_of_three_megabytes_is_whole(world: &World) {
    for ask in [world.ask("answers"), world.ask("answers").stream()] {
        let answer = ask.fault("alpha", &format!("size={LARGE}")).send().await;
        answer.assert_from("alpha", "alpha;200");
        assert_eq!(answer.said().len(), LARGE);
    }
}

async fn a_fallback_answer_of_three_megabytes_is_whole(world: &World) {
    for failure in ["503", "reset", "empty"] {
        for ask in [world.ask("answers"), world.ask("answers").stream()] {
            let ask = ask.fault("alpha", failure);
            let answer = ask.fault("beta", &format!("size={LARGE}")).send().await;
            answer.assert_from("beta", &format!("alpha;{failure}, beta;200"));
            assert_eq!(answer.said().len(), LARGE);
        }
    }
}

async fn a_fallback_answer_of_three_megabytes_in_place_of_a_hanging_one_is_whole(world: &World) {
    for failure in ["hang", "silence", "comments"] {
        let ask = world
            .ask("answers-in-time")
            .stream()
            .fault("alpha", failure);
        let answer = ask.fault("beta", &format!("size={LARGE}")).send().await;
        answer.assert_from("beta", "alpha;first_packet_timeout, beta;200");
        assert_eq!(answer.said().len(), LARGE);
    }
}

async fn a_failed_answer_of_three_megabytes_is_replaced(world: &World) {
    // More than the gateway may buffer.
    let ask = world
        .ask("answers")
        .fault("alpha", "503,comments=1,gap=20,chunks=100,endless");
    let answer = ask.send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
}

async fn a_compressed_answer_comes_as_it_came(world: &World) {
    for attempts in ["alpha;200", "alpha;503, beta;200"] {
        let ask = world.ask("answers").fault("beta", "gzip");
        let ask = ask.fault(
            "alpha",
            if attempts.contains("503") {
                "503"
            } else {
                "gzip"
            },
        );
        let answer = ask.send().await;
        assert_eq!(answer.attempts(), attempts);
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        let mut text = String::new();
        let mut unpacked = flate2::read::MultiGzDecoder::new(&answer.body[..]);
        std::io::Read::read_to_string(&mut unpacked, &mut text).expect("gzip");
        assert!(text.contains("Hello from"), "{text}");
    }
}

async fn requests_one_after_another_on_a_connection_do_not_mix(world: &World) {
    let mut raw = crate::client::Raw::connect(world.envoy.addr()).await;
    for (number, (fault, service)) in [
        ("503", "beta"),
        ("200", "alpha"),
        ("reset", "beta"),
        ("empty", "beta"),
        ("201", "alpha"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(r#"{{"model": "number-{number}"}}"#);
        let length = body.len();
        raw.write(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: answers\r\nx-route: alpha\r\nx-mock-alpha: {fault}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
        raw.read_until(&format!("Hello from {service}, number-{number}"))
            .await;
        let all = raw.read_until("}}").await;
        assert_eq!(all.matches("HTTP/1.1").count(), number + 1, "{all}");
    }
}
