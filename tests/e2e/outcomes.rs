//! What counts as a failure: the rows of the outcome table.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{Short, World, case};

both_modes![
    a_status_in_on_status_falls_back,
    on_status_takes_classes_and_codes,
    a_status_that_is_not_in_on_status_is_the_answer,
    a_redirect_is_the_answer,
    a_refused_connection_falls_back,
    a_reset_before_the_headers_falls_back,
    a_service_without_hosts_falls_back,
    a_cluster_that_envoy_does_not_know_falls_back,
    a_host_that_is_not_found_falls_back,
    a_failed_tls_handshake_falls_back,
    transport_failures_of_fallback_services_fall_back_too,
    other_failures_of_fallback_services_fall_back_too,
    a_stream_without_an_answer_in_the_first_packet_timeout_falls_back,
    headers_without_a_body_are_no_first_packet,
    comments_do_not_count_as_a_first_packet,
    a_first_token_later_than_the_first_packet_timeout_falls_back,
    a_whole_answer_has_no_first_packet_timeout,
    a_stream_whose_first_packet_is_in_time_is_the_answer,
    comments_before_the_first_packet_reach_the_client,
    no_answer_within_the_request_timeout_falls_back,
    headers_without_a_body_are_no_answer_within_the_request_timeout,
    a_stream_whose_first_event_is_an_error_falls_back,
    an_error_event_behind_comments_falls_back,
    a_whole_answer_that_speaks_of_an_error_is_the_answer,
    a_good_status_without_a_body_falls_back,
    a_chunked_answer_without_a_byte_falls_back,
    a_stream_of_comments_only_that_ends_falls_back,
    any_good_status_with_a_body_is_the_answer,
];

/// Long enough for a good answer at any time, since a fallback callout as a whole is bounded by it.
const REQUEST_TIMEOUT_MS: u64 = 1500;

pub fn model_apis(short: Short) -> Vec<Value> {
    let to_beta = |primary: &str| json!({"primary": {"service": primary}, "fallback": {"services": [{"service": "beta"}]}});
    let mut apis: Vec<Value> = ["refused", "nowhere", "unknown", "unfound", "distrusted"]
        .iter()
        .map(|primary| case(primary, to_beta(primary)))
        .collect();
    apis.push(case("plain", to_beta("alpha")));
    apis.push(case(
        "some-statuses",
        json!({
            "primary": {"service": "alpha"},
            "fallback": {"services": [{"service": "beta"}], "on_status": ["5xx", "429"]},
        }),
    ));
    apis.push(case(
        "all-unreachable-but-gamma",
        json!({
            "primary": {"service": "alpha"},
            "fallback": {"services": [
                {"service": "refused"}, {"service": "nowhere"}, {"service": "unknown"}, {"service": "unfound"},
                {"service": "distrusted"}, {"service": "beta"}, {"service": "gamma"},
            ]},
        }),
    ));
    apis.push(case(
        "first-packet",
        json!({
            "primary": {"service": "alpha"},
            "fallback": {"services": [{"service": "beta"}], "first_packet_timeout_ms": short},
        }),
    ));
    apis.push(case(
        "request-timeout",
        json!({
            "primary": {"service": "alpha"},
            "fallback": {"services": [{"service": "beta"}], "request_timeout_ms": REQUEST_TIMEOUT_MS},
        }),
    ));
    apis
}

async fn a_status_in_on_status_falls_back(world: &World) {
    // By default all of these are.
    let statuses = [
        400, 401, 403, 404, 408, 413, 429, 499, 500, 502, 503, 504, 529, 599,
    ];
    join_all(statuses.map(|status| async move {
        for ask in [world.ask("plain"), world.ask("plain").stream()] {
            let answer = ask.fault("alpha", &status.to_string()).send().await;
            answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
        }
    }))
    .await;
}

async fn on_status_takes_classes_and_codes(world: &World) {
    join_all([500, 503, 599, 429].map(|status| async move {
        let ask = world.ask("some-statuses");
        let answer = ask.fault("alpha", &status.to_string()).send().await;
        answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
    }))
    .await;
}

async fn a_status_that_is_not_in_on_status_is_the_answer(world: &World) {
    join_all([400, 404, 428, 430, 499].map(|status| async move {
        let ask = world.ask("some-statuses");
        let answer = ask.fault("alpha", &status.to_string()).send().await;
        answer.assert_failure_of("alpha", status, &format!("alpha;{status}"));
        assert_eq!(answer.service(), Some("alpha"));
        world.no_request(&world.beta, &answer);
    }))
    .await;
}

async fn a_redirect_is_the_answer(world: &World) {
    for status in [301, 302, 304, 307] {
        let ask = world.ask("plain");
        let answer = ask.fault("alpha", &format!("{status},empty")).send().await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.attempts(), format!("alpha;{status}"));
        world.no_request(&world.beta, &answer);
    }
}

async fn a_refused_connection_falls_back(world: &World) {
    assert_transport_failure(world, "refused").await;
}

async fn a_reset_before_the_headers_falls_back(world: &World) {
    for ask in [world.ask("plain"), world.ask("plain").stream()] {
        let answer = ask.fault("alpha", "reset").send().await;
        answer.assert_from("beta", "alpha;reset, beta;200");
    }
}

async fn a_service_without_hosts_falls_back(world: &World) {
    assert_transport_failure(world, "nowhere").await;
}

async fn a_cluster_that_envoy_does_not_know_falls_back(world: &World) {
    assert_transport_failure(world, "unknown").await;
}

async fn a_host_that_is_not_found_falls_back(world: &World) {
    assert_transport_failure(world, "unfound").await;
}

async fn a_failed_tls_handshake_falls_back(world: &World) {
    assert_transport_failure(world, "distrusted").await;
}

async fn assert_transport_failure(world: &World, primary: &str) {
    for ask in [world.ask(primary), world.ask(primary).stream()] {
        let answer = ask.send().await;
        answer.assert_from("beta", &format!("{primary};reset, beta;200"));
    }
}

async fn transport_failures_of_fallback_services_fall_back_too(world: &World) {
    let ask = world.ask("all-unreachable-but-gamma");
    let answer = ask
        .fault("alpha", "503")
        .fault("beta", "reset")
        .send()
        .await;
    answer.assert_from(
        "gamma",
        "alpha;503, refused;reset, nowhere;reset, unknown;reset, unfound;reset, distrusted;reset, beta;reset, gamma;200",
    );
}

async fn other_failures_of_fallback_services_fall_back_too(world: &World) {
    join_all(
        [
            ("429", "429"),
            ("error-event", "stream_error"),
            ("comments=2,gap=1,error-event", "stream_error"),
            ("empty", "empty"),
            ("end-after=0", "empty"),
            ("comments=2,gap=1,end-after=0", "empty"),
        ]
        .map(|(fault, outcome)| async move {
            let ask = world.ask("all-unreachable-but-gamma").stream();
            let answer = ask.fault("alpha", fault).fault("beta", fault).send().await;
            let attempts = answer.attempts();
            answer.assert_from("gamma", &attempts);
            assert!(
                attempts.starts_with(&format!("alpha;{outcome}, ")),
                "{attempts}"
            );
            assert!(
                attempts.ends_with(&format!(", beta;{outcome}, gamma;200")),
                "{attempts}"
            );
        }),
    )
    .await;
}

async fn a_stream_without_an_answer_in_the_first_packet_timeout_falls_back(world: &World) {
    assert_first_packet_timeout(world, "hang").await;
}

async fn headers_without_a_body_are_no_first_packet(world: &World) {
    assert_first_packet_timeout(world, "silence").await;
}

async fn comments_do_not_count_as_a_first_packet(world: &World) {
    assert_first_packet_timeout(world, "comments").await;
}

async fn a_first_token_later_than_the_first_packet_timeout_falls_back(world: &World) {
    assert_first_packet_timeout(world, "first=15000").await;
    assert_first_packet_timeout(world, "comments=300,gap=50").await;
    assert_first_packet_timeout(world, "delay=15000").await;
}

async fn assert_first_packet_timeout(world: &World, fault: &str) {
    let ask = world.ask("first-packet").stream();
    let answer = ask.fault("alpha", fault).send().await;
    answer.assert_from("beta", "alpha;first_packet_timeout, beta;200");
    world.one_request(&world.alpha, &answer);
}

async fn a_whole_answer_has_no_first_packet_timeout(world: &World) {
    join_all(["delay=2000", "first=2000"].map(|fault| async move {
        let ask = world.ask("first-packet");
        let answer = ask.fault("alpha", fault).send().await;
        answer.assert_from("alpha", "alpha;200");
    }))
    .await;
}

async fn a_stream_whose_first_packet_is_in_time_is_the_answer(world: &World) {
    // The rest may take longer than both timeouts.
    let slowly = "chunks=6,gap=400";
    join_all(["first-packet", "request-timeout"].map(|case| async move {
        let answer = world.ask(case).stream().fault("alpha", slowly).send().await;
        answer.assert_from("alpha", "alpha;200");
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{answer:?}");
    }))
    .await;
}

async fn comments_before_the_first_packet_reach_the_client(world: &World) {
    let ask = world.ask("plain").stream();
    let answer = ask.fault("alpha", "comments=3,gap=20").send().await;
    answer.assert_from("alpha", "alpha;200");
    let comments = ": keep-alive\n\n".repeat(3);
    assert!(
        answer.text().starts_with(&format!("{comments}data: ")),
        "{answer:?}"
    );
}

async fn no_answer_within_the_request_timeout_falls_back(world: &World) {
    let whole = world.ask("request-timeout").fault("alpha", "hang");
    let stream = world.ask("request-timeout").stream().fault("alpha", "hang");
    for answer in join_all([whole.send(), stream.send()]).await {
        answer.assert_from("beta", "alpha;request_timeout, beta;200");
    }
}

async fn headers_without_a_body_are_no_answer_within_the_request_timeout(world: &World) {
    let whole = world.ask("request-timeout").fault("alpha", "silence");
    let silent = world
        .ask("request-timeout")
        .stream()
        .fault("alpha", "silence");
    let comments = world
        .ask("request-timeout")
        .stream()
        .fault("alpha", "comments");
    for answer in join_all([whole.send(), silent.send(), comments.send()]).await {
        answer.assert_from("beta", "alpha;request_timeout, beta;200");
    }
}

async fn a_stream_whose_first_event_is_an_error_falls_back(world: &World) {
    assert_stream_error(world, "error-event").await;
}

async fn an_error_event_behind_comments_falls_back(world: &World) {
    assert_stream_error(world, "comments=3,gap=20,error-event").await;
}

/// In the way of OpenAI (data with an error), of Anthropic (an event of that name), and of the Responses API.
async fn assert_stream_error(world: &World, fault: &str) {
    let paths = ["/v1/chat/completions", "/v1/messages", "/v1/responses"];
    join_all(paths.map(|path| async move {
        let ask = world.ask("plain").stream().path(path);
        let answer = ask.fault("alpha", fault).send().await;
        assert_eq!(answer.attempts(), "alpha;stream_error, beta;200");
        assert_eq!(answer.service(), Some("beta"));
        assert_eq!(answer.header("x-mock-service"), Some("beta"));
        assert!(!answer.text().contains("alpha"), "{answer:?}");
    }))
    .await;
}

async fn a_whole_answer_that_speaks_of_an_error_is_the_answer(world: &World) {
    let answer = world
        .ask("plain")
        .fault("alpha", "error-event")
        .send()
        .await;
    answer.assert_failure_of("alpha", 200, "alpha;200");
}

async fn a_good_status_without_a_body_falls_back(world: &World) {
    join_all(["empty", "201,empty", "204,empty"].map(|fault| async move {
        for ask in [world.ask("plain"), world.ask("plain").stream()] {
            let answer = ask.fault("alpha", fault).send().await;
            answer.assert_from("beta", "alpha;empty, beta;200");
        }
    }))
    .await;
}

async fn a_chunked_answer_without_a_byte_falls_back(world: &World) {
    for ask in [world.ask("plain"), world.ask("plain").stream()] {
        let answer = ask.fault("alpha", "end-after=0").send().await;
        answer.assert_from("beta", "alpha;empty, beta;200");
    }
}

async fn a_stream_of_comments_only_that_ends_falls_back(world: &World) {
    let ask = world.ask("plain").stream();
    let answer = ask
        .fault("alpha", "comments=3,gap=20,end-after=0")
        .send()
        .await;
    answer.assert_from("beta", "alpha;empty, beta;200");
}

async fn any_good_status_with_a_body_is_the_answer(world: &World) {
    for status in [200, 201, 202, 299] {
        let ask = world.ask("plain").fault("alpha", &status.to_string());
        let answer = ask.send().await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.attempts(), format!("alpha;{status}"));
        world.no_request(&world.beta, &answer);
    }
}
