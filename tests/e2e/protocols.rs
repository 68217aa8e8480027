//! HTTP/1.1, HTTP/2 and TLS on both sides, and trailers.

use reqwest::Version;
use serde_json::{Value, json};

use crate::client::Raw;
use crate::mock::Received;
use crate::world::{World, case};

both_modes![
    clients_may_speak_http2,
    services_may_speak_http2,
    a_stream_that_an_http2_service_resets_before_the_headers_falls_back,
    a_service_may_speak_tls,
    the_trailers_of_an_answer_reach_the_client,
    the_trailers_of_a_failed_answer_do_not_reach_the_client,
    the_trailers_of_a_request_reach_the_primary,
];

callout_only![
    "Envoy sends no trailers in a callout": the_trailers_of_a_request_do_not_reach_a_fallback_service,
];

router_only![
    "Envoy sends no trailers in a callout": the_trailers_of_a_request_reach_every_service,
    "a callout's trailers are dropped": the_trailers_of_a_fallback_answer_reach_the_client,
];

pub fn model_apis() -> Vec<Value> {
    let with = |primary: &str, fallback: &str| json!({"primary": {"service": primary}, "fallback": {"services": [{"service": fallback}]}});
    vec![
        case("protocols", with("alpha", "beta")),
        case("http2", with("alpha-h2", "beta-h2")),
        case("tls", with("alpha", "secure")),
    ]
}

async fn clients_may_speak_http2(world: &World) {
    for ask in [world.ask("protocols"), world.ask("protocols").stream()] {
        let good = ask.clone().http2().send().await;
        good.assert_from("alpha", "alpha;200");
    }
    for fault in ["503", "reset", "empty", "429"] {
        for ask in [world.ask("protocols"), world.ask("protocols").stream()] {
            let answer = ask.http2().fault("alpha", fault).send().await;
            answer.assert_from("beta", &format!("alpha;{fault}, beta;200"));
            assert_eq!(answer.header("connection"), None);
        }
    }
    let failed = world
        .ask("protocols")
        .http2()
        .header("x-mock", "reset")
        .send()
        .await;
    assert_eq!(failed.status, 502);
}

async fn services_may_speak_http2(world: &World) {
    for (fault, outcome) in [
        ("503", "503"),
        ("error-event", "stream_error"),
        ("empty", "empty"),
        ("end-after=0", "empty"),
    ] {
        for ask in [
            world.ask("http2").stream(),
            world.ask("http2").stream().http2(),
        ] {
            let answer = ask.fault("alpha", fault).send().await;
            answer.assert_from("beta-h2", &format!("alpha-h2;{outcome}, beta-h2;200"));
            for service in [&world.alpha, &world.beta] {
                assert_eq!(world.one_request(service, &answer).version, Version::HTTP_2);
            }
        }
    }
    let good = world.ask("http2").http2().send().await;
    good.assert_from("alpha-h2", "alpha-h2;200");
}

async fn a_stream_that_an_http2_service_resets_before_the_headers_falls_back(world: &World) {
    for ask in [world.ask("http2"), world.ask("http2").stream().http2()] {
        let answer = ask.fault("alpha", "reset").send().await;
        answer.assert_from("beta-h2", "alpha-h2;reset, beta-h2;200");
    }
}

async fn a_service_may_speak_tls(world: &World) {
    let answer = world.ask("tls").fault("alpha", "503").send().await;
    answer.assert_from("secure", "alpha;503, secure;200");
    assert_eq!(
        world.one_request(&world.secure, &answer).authority,
        "secure.test"
    );
}

async fn the_trailers_of_an_answer_reach_the_client(world: &World) {
    for stream in [false, true] {
        let whole = read_answer(world, stream, "x-mock-alpha: trailers").await;
        assert!(
            whole.contains("x-ai-fallback-attempts: alpha-h2;200;"),
            "{whole}"
        );
        assert!(
            whole.ends_with("\r\n0\r\nx-mock-trailer: alpha\r\n\r\n"),
            "{whole}"
        );
    }
}

async fn the_trailers_of_a_fallback_answer_reach_the_client(world: &World) {
    for stream in [false, true] {
        let whole = read_answer(world, stream, "x-mock-alpha: 503\r\nx-mock-beta: trailers").await;
        assert!(
            whole.contains("x-ai-fallback-service: beta-h2\r\n"),
            "{whole}"
        );
        assert!(
            whole.ends_with("\r\n0\r\nx-mock-trailer: beta\r\n\r\n"),
            "{whole}"
        );
    }
}

async fn the_trailers_of_a_failed_answer_do_not_reach_the_client(world: &World) {
    // A request this long lets the answer take the place of the failed one, which Envoy holds with its trailers.
    let prompt = "x".repeat(2000);
    for _ in 0..10 {
        let ask = world.ask("http2").http2().header("te", "trailers");
        let ask = ask.json(&json!({"model": "gpt-4o", "prompt": prompt}));
        let answer = ask.fault("alpha", "503,trailers").send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.attempts(), "alpha-h2;503, beta-h2;200");
        assert!(answer.said().contains("Hello from beta"), "{answer:?}");
        assert!(!answer.text().contains("x-mock-trailer"), "{answer:?}");
    }
}

/// A whole chunked answer, from its status line to its trailers.
async fn read_answer(world: &World, stream: bool, faults: &str) -> String {
    let mut raw = Raw::connect(world.envoy.addr()).await;
    let body = format!(r#"{{"model": "gpt-4o", "stream": {stream}}}"#);
    let length = body.len();
    raw.write(&format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: http2\r\nx-route: alpha-h2\r\nte: trailers\r\n{faults}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await;
    raw.read_until("\r\n0\r\n").await;
    raw.read_until("x-mock-trailer: ").await;
    raw.read_until_end("\r\n\r\n").await
}

async fn the_trailers_of_a_request_reach_the_primary(world: &World) {
    let [alpha, _] = send_with_trailers(world).await;
    assert_eq!(alpha.trailers, [("x-sum".to_owned(), b"42".to_vec())]);
}

async fn the_trailers_of_a_request_do_not_reach_a_fallback_service(world: &World) {
    let [_, beta] = send_with_trailers(world).await;
    assert_eq!(beta.trailers, []);
    // All else does.
    assert_eq!((beta.complete, &beta.body[..]), (true, &b"{}"[..]));
}

async fn the_trailers_of_a_request_reach_every_service(world: &World) {
    for request in send_with_trailers(world).await {
        assert_eq!(request.trailers, [("x-sum".to_owned(), b"42".to_vec())]);
    }
}

/// What alpha and beta got.
async fn send_with_trailers(world: &World) -> [Received; 2] {
    let id = world.ask("http2").id;
    let mut raw = Raw::connect(world.envoy.addr()).await;
    raw.write(&format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: http2\r\nx-route: alpha-h2\r\nx-test-id: {id}\r\n\
         x-mock-alpha: 503\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-sum: 42\r\n\r\n"
    ))
    .await;
    raw.read_until("x-ai-fallback-service: beta-h2").await;
    [&world.alpha, &world.beta].map(|service| {
        let mut all = service.requests_with(&id);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    })
}
