//! What each dispatch mode cannot do, and what it does instead: facts of Envoy that users should know.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::mock::{Ended, Received};
use crate::support::{Cluster, eventually};
use crate::world::{MAX_BODY_BYTES, Mode, World, case};

callout_only![
    "Envoy answers past all filters when a held answer breaks": a_reset_between_headers_and_body_of_the_primary_is_answered_by_envoy,
    "a reply made by a filter has no trailers": the_trailers_of_a_fallback_answer_are_dropped,
    "Envoy has no way to cancel a callout": a_client_that_leaves_during_a_callout_leaves_nothing_behind,
    "a changed :path clears the route": the_route_of_the_primary_is_chosen_by_its_fitted_path,
];

both_modes![
    a_body_that_grows_over_the_buffer_limit_harms_nobody,
    a_fallback_answer_over_the_buffer_limit_harms_nobody,
    a_body_that_envoy_does_not_hold_is_told_with_the_numbers,
    chunked_bodies_of_three_megabytes_pass,
    a_failed_answer_over_the_buffer_limit_is_replaced,
];

router_only![
    "the router sees the reset": a_reset_between_headers_and_body_falls_back,
];

pub fn model_apis() -> Vec<Value> {
    vec![case("limits", to_beta())]
}

fn to_beta() -> Value {
    json!({"primary": {"service": "alpha"}, "fallback": {"services": [{"service": "beta"}]}})
}

async fn a_reset_between_headers_and_body_of_the_primary_is_answered_by_envoy(world: &World) {
    for ask in [world.ask("limits"), world.ask("limits").stream()] {
        let answer = ask.fault("alpha", "reset-after=0").send().await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.attempts(), "");
        world.no_request(&world.beta, &answer);
    }
}

async fn a_reset_between_headers_and_body_falls_back(world: &World) {
    for ask in [world.ask("limits"), world.ask("limits").stream()] {
        let answer = ask.fault("alpha", "reset-after=0").send().await;
        answer.assert_from("beta", "alpha;reset, beta;200");
    }
}

async fn the_trailers_of_a_fallback_answer_are_dropped(world: &World) {
    let ask = world
        .ask("limits")
        .header("te", "trailers")
        .fault("alpha", "503");
    let answer = ask.fault("beta", "trailers").send().await;
    // All else is there.
    answer.assert_from("beta", "alpha;503, beta;200");
    let mut raw = crate::client::Raw::connect(world.envoy.addr()).await;
    raw.write(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: limits\r\nx-route: alpha\r\nte: trailers\r\n\
         x-mock-alpha: 503\r\nx-mock-beta: trailers\r\ncontent-length: 2\r\n\r\n{}GET / HTTP/1.1\r\nhost: gateway\r\nx-route: no-such\r\n\r\n",
    )
    .await;
    // The second answer marks the end of the first.
    let both = raw.read_until("HTTP/1.1 503").await;
    assert!(both.contains("Hello from beta"), "{both}");
    assert!(!both.contains("x-mock-trailer:"), "{both}");
}

async fn a_client_that_leaves_during_a_callout_leaves_nothing_behind(world: &World) {
    let world = World::alone(world.mode, with_name(to_beta()), |gateway| gateway);
    let ask = world.ask("").fault("alpha", "503").fault("beta", "hold");
    let id = ask.id.clone();
    let open = tokio::spawn(ask.try_open());
    let whole = |all: &[Received]| all.iter().any(|one| one.complete);
    world.beta.wait_for_id(&id, whole).await;
    let gauge = |name: &str| world.envoy.metric(name);
    eventually("the callout is counted", || gauge("active_calls") == 1).await;
    open.abort();
    for name in ["active_calls", "active_requests", "deadlines"] {
        eventually(name, || gauge(name) == 0).await;
    }
    world.beta.open_gate(&id);
    let ended = |all: &[Received]| all.iter().all(|one| one.ended.is_some());
    let ended = world.beta.wait_for_id(&id, ended).await;
    // It was not cancelled.
    assert_eq!(ended[0].ended, Some(Ended::Completed));
    let next = world.ask("").fault("alpha", "503").send().await;
    next.assert_from("beta", "alpha;503, beta;200");
}

async fn the_route_of_the_primary_is_chosen_by_its_fitted_path(world: &World) {
    assert_eq!(world.mode, Mode::Callout);
    let to = |prefix: &str, cluster: &str| json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}});
    let api = json!({"primary": {"service": "alpha-fitted"}, "fallback": {"services": [{"service": "beta"}]}});
    let world = World::alone(world.mode, with_name(api), |gateway| {
        gateway.manager(json!({"route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [to("/v1/", "gamma"), to("/alpha/", "alpha")],
        }]}}))
    });
    let answer = world.ask("").send().await;
    answer.assert_from("alpha-fitted", "alpha-fitted;200");
    assert_eq!(
        world.one_request(&world.alpha, &answer).path,
        "/alpha/gpt-4o/v1/chat/completions"
    );
    world.no_request(&world.gamma, &answer);
}

/// Envoy answers for a body over its limit while the filter changes it: a panic, if the filter lets that happen.
async fn a_body_that_grows_over_the_buffer_limit_harms_nobody(world: &World) {
    let longer = "m".repeat(2000);
    let api = json!({"primary": {"service": "alpha", "model": longer}, "fallback": {"services": [{"service": "beta"}]}});
    // Large, so that the body comes in several reads and is held.
    let world = World::alone(world.mode, with_name(api), |gateway| {
        gateway.buffer_limit(MAX_BODY_BYTES as u32)
    });
    for missing in [100, 500, 1000, 1500] {
        let length = MAX_BODY_BYTES - missing;
        let body = format!(r#"{{"model": "m", "a": "{}"}}"#, "x".repeat(length - 24));
        let (start, end) = (&body[..1000], &body[1000..]);
        for ask in [
            world.ask("").body(body.clone()),
            world.ask("").chunks(&[start, end]),
        ] {
            let answer = ask.send().await;
            assert!([200, 413].contains(&answer.status.as_u16()), "{answer:?}");
        }
    }
    assert_unharmed(&world).await;
}

async fn a_fallback_answer_over_the_buffer_limit_harms_nobody(world: &World) {
    let world = World::alone(world.mode, with_name(to_beta()), |gateway| {
        gateway.buffer_limit(SMALL)
    });
    for failure in ["503", "reset", "empty", "429,size=5000"] {
        for size in [10, 1000, SMALL - 400, SMALL, 2 * SMALL, 100 * SMALL] {
            for ask in [world.ask(""), world.ask("").stream()] {
                let ask = ask.fault("alpha", failure);
                let answer = ask.fault("beta", &format!("size={size}")).send().await;
                let failure = failure.split(',').next().expect("a part");
                answer.assert_from("beta", &format!("alpha;{failure}, beta;200"));
                assert!(answer.said().len() >= size as usize);
            }
        }
    }
    assert_unharmed(&world).await;
}

/// Over HTTP/2 Envoy holds a body that comes in parts, up to the window of the stream. Whoever reads the line can see which
/// limit is the one too many.
async fn a_body_that_envoy_does_not_hold_is_told_with_the_numbers(world: &World) {
    let more = json!({"buffer_limit_bytes": 200_000, "max_body_bytes": 150_000});
    let apis = json!([with_name(to_beta())]);
    let window = json!({"http2_protocol_options": {"initial_stream_window_size": 65_535}});
    let world = World::with(world.mode, apis, more, |gateway| {
        gateway.buffer_limit(2 * SMALL).manager(window)
    });
    let body = format!(r#"{{"model": "m", "a": "{}"}}"#, "x".repeat(120_000));
    let parts: Vec<&str> = vec![&body[..20_000], &body[20_000..40_000], &body[40_000..]];
    let answer = world.ask("").http2().chunks(&parts).send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.attempts().as_str()),
        (413, "")
    );
    let line = "max_body_bytes=150000 buffer_limit_bytes=200000: ";
    eventually("it is told", || world.envoy.log_contains(line)).await;
    assert!(world.envoy.log_contains("event=buffer_limit held_bytes="));
    // Over HTTP/1.1 the filter holds it, and what is larger than it reads is not held at all.
    let answer = world
        .ask("")
        .chunks(&parts)
        .fault("alpha", "503")
        .send()
        .await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let larger = format!(r#"{{"model": "m", "a": "{}"}}"#, "x".repeat(300_000));
    for ask in [
        world.ask("").body(larger.clone()),
        world
            .ask("")
            .chunks(&[&larger[..90_000], &larger[90_000..]]),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.attempts(), "alpha;200;too_large");
        assert_eq!(
            world.one_request(&world.alpha, &answer).body.len(),
            larger.len()
        );
    }
    assert_unharmed(&world).await;
}

/// Nothing of it is in Envoy's buffer, however large it is and however long the fallback takes.
async fn a_failed_answer_over_the_buffer_limit_is_replaced(world: &World) {
    let large = large_failures(3_000_000);
    let more = json!({
        "buffer_limit_bytes": SMALL,
        "max_body_bytes": SMALL / 2,
        "services": {"large": {"cluster": "large"}},
    });
    let api = json!({
        "primary": {"service": "large"},
        "fallback": {"services": [{"service": "beta"}], "max_held_bytes": 1000},
    });
    let world = World::with(world.mode, json!([with_name(api)]), more, |gateway| {
        let gateway = gateway.cluster(Cluster::new("large", large));
        gateway.buffer_limit(SMALL)
    });
    for delay in [0, 50, 300, 0, 50] {
        let ask = world.ask("").fault("beta", &format!("delay={delay}"));
        ask.send().await.assert_from("beta", "large;503, beta;200");
    }
    assert!(!world.envoy.log_contains("panicked"));
}

/// A service whose every answer is a `503` with so many bytes, sent as fast as it goes.
fn large_failures(size: usize) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_large(stream, size));
        }
    });
    addr
}

fn answer_large(mut stream: std::net::TcpStream, size: usize) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    // All requests here end with their JSON.
    while !request.ends_with(b"}") {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    }
    let head = format!("HTTP/1.1 503 x\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'x'; size])
}

/// With Envoy's own limits, and a client that sends as fast as it can.
async fn chunked_bodies_of_three_megabytes_pass(world: &World) {
    let world = World::with(
        world.mode,
        json!([with_name(to_beta())]),
        json!({"max_body_bytes": 786_432}),
        |gateway| gateway.buffer_limit(1 << 20),
    );
    let body = format!(r#"{{"model": "m", "a": "{}"}}"#, "x".repeat(3_000_000));
    for size in [1_000, 8_192, 65_536, 400_000] {
        let parts: Vec<&str> = (0..body.len())
            .step_by(size)
            .map(|at| &body[at..body.len().min(at + size)])
            .collect();
        for _ in 0..5 {
            let answer = world.ask("").chunks(&parts).send().await;
            assert_eq!(
                (answer.status.as_u16(), answer.attempts().as_str()),
                (200, "alpha;200;too_large")
            );
            assert_eq!(
                world.one_request(&world.alpha, &answer).body.len(),
                body.len()
            );
        }
    }
}

/// `per_connection_buffer_limit_bytes` of a gateway with little memory.
const SMALL: u32 = 8 * 1024;

async fn assert_unharmed(world: &World) {
    assert!(!world.envoy.log_contains("panicked"));
    for _ in 0..20 {
        let answer = world.ask("").fault("alpha", "503").send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
    }
}

/// A Model API for all requests.
fn with_name(mut api: Value) -> Value {
    api["name"] = "all".into();
    api
}
