//! Whole answers: with `deliver: complete` an answer is held to its end, so that one that breaks in the middle falls back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Raw};
use crate::mock::{Ended, Mock, Received};
use crate::support::eventually;
use crate::world::{Mode, Short, World, case};

both_modes![
    nothing_of_an_answer_goes_out_before_its_end,
    a_stream_that_breaks_in_the_middle_falls_back,
    a_whole_answer_that_breaks_in_the_middle_falls_back,
    a_routed_stream_that_stalls_falls_back,
    a_routed_stream_without_a_first_packet_falls_back,
    two_broken_streams_lead_to_the_third_service,
    a_good_answer_comes_byte_for_byte,
    a_failure_before_the_body_falls_back_as_ever,
    the_last_answer_is_delivered_with_its_error,
    the_last_answer_is_a_502_where_it_broke,
    the_last_answer_is_a_504_where_it_stalled,
    an_answer_that_is_larger_than_what_is_held_is_delivered,
    a_request_may_ask_for_a_complete_answer,
    a_request_may_ask_for_the_first_packet,
    a_request_for_something_else_is_refused,
    a_wish_that_is_not_allowed_changes_nothing,
    keep_alives_are_no_stall,
    nothing_stays_behind,
    what_is_held_beyond_envoys_buffer_is_lost,
];

callout_only![
    "the answer of a callout has no packets that could be waited for": a_stream_that_stalls_is_ended_by_the_request_timeout,
    "Envoy answers past all filters where a routed answer breaks": a_held_answer_of_an_unnamed_primary_that_breaks_ends_in_502,
];

router_only![
    "an attempt filter sees every packet": a_stream_that_stalls_falls_back,
    "an attempt filter sees every packet (2)": a_stream_without_a_first_packet_falls_back,
    "an attempt filter sees every packet (3)": each_stream_that_stalls_falls_back,
    "the answer of a callout has a limit of its own": a_stream_that_is_larger_than_what_is_held_goes_on_live,
    "the answer of a callout has a limit of its own (2)": what_follows_after_what_is_held_is_no_failure,
    "a callout brings no trailers": the_trailers_of_a_held_answer_reach_the_client,
    "a callout cannot be cancelled": a_client_that_leaves_in_the_middle_cancels_the_attempt,
];

/// The end of a good stream.
const DONE: &str = "data: [DONE]\n\n";

/// What is held at most where that is little.
const LITTLE: usize = 2000;

pub fn model_apis(short: Short) -> Vec<Value> {
    let with = |name: &str, more: Value| {
        let mut fallback = json!({"services": [{"service": "beta"}, {"service": "gamma"}]});
        let fields = fallback.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        case(
            name,
            json!({"primary": {"service": "alpha"}, "fallback": fallback}),
        )
    };
    let complete = |name: &str, more: Value| {
        let mut fallback = json!({"deliver": "complete"});
        let fields = fallback.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        with(name, fallback)
    };
    let mut routed = complete(
        "deliver-routed",
        json!({"stream_idle_timeout_ms": short, "first_packet_timeout_ms": short}),
    );
    routed["primary"] = json!({});
    let mut routed_idle = complete(
        "deliver-routed-idle",
        json!({"stream_idle_timeout_ms": short}),
    );
    routed_idle["primary"] = json!({});
    let mut http2 = complete(
        "deliver-http2",
        json!({"services": [{"service": "beta-h2"}]}),
    );
    http2["primary"] = json!({"service": "alpha-h2"});
    vec![
        complete("deliver", json!({})),
        complete("deliver-little", json!({"max_held_bytes": LITTLE})),
        complete("deliver-idle", json!({"stream_idle_timeout_ms": short})),
        complete(
            "deliver-first",
            json!({"first_packet_timeout_ms": short, "services": [{"service": "beta"}]}),
        ),
        complete("deliver-request", json!({"request_timeout_ms": 1500})),
        complete("deliver-controls", json!({"client_controls": ["deliver"]})),
        with("first-controls", json!({"client_controls": ["deliver"]})),
        with("first-no-controls", json!({})),
        http2,
        routed,
        routed_idle,
    ]
}

/// Both kinds of streams.
fn streams(world: &World, case: &str) -> [Ask; 2] {
    let ask = world.ask(case).stream();
    [ask, world.ask(case).stream().messages()]
}

/// What a service sends for the same request, asked without the gateway.
async fn sent_by(service: &Mock, ask: &Ask) -> Bytes {
    let direct = ask.clone().at(service.addr()).header("x-test-id", "direct");
    direct.send().await.body
}

/// That the client has got the whole good answer of `beta` and nothing else, and each service was asked once.
async fn assert_replaced(world: &World, ask: Ask, attempts: &str) -> Answer {
    let expected = sent_by(&world.beta, &ask).await;
    let answer = ask.send().await;
    answer.assert_from("beta", attempts);
    assert_eq!(answer.body, expected, "{answer:?}");
    world.one_request(&world.alpha, &answer);
    world.one_request(&world.beta, &answer);
    world.no_request(&world.gamma, &answer);
    answer
}

fn all_sent(count: usize) -> impl Fn(&[Received]) -> bool {
    move |all| all.iter().any(|one| one.chunks_sent == count)
}

async fn nothing_of_an_answer_goes_out_before_its_end(world: &World) {
    for case in ["deliver", "deliver-routed"] {
        let ask = world.ask(case).stream();
        let id = ask.id.clone();
        let opened = tokio::spawn(ask.fault("alpha", "chunks=3,gate=2").open());
        world.alpha.wait_for_id(&id, all_sent(2)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!opened.is_finished(), "{case}");
        world.alpha.open_gate(&id);
        let answer = opened.await.expect("no panic").rest().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().ends_with(DONE), "{answer:?}");
        world.no_request(&world.beta, &answer);
    }
}

async fn a_stream_that_breaks_in_the_middle_falls_back(world: &World) {
    for (fault, outcome) in [
        ("cut=2", "reset"),
        ("reset-after=2", "reset"),
        ("cut", "reset"),
        ("reset-after=0", "reset"),
        ("error-after=2", "stream_error"),
        ("error-event", "stream_error"),
        ("comments=2,error-after=3", "stream_error"),
    ] {
        for ask in streams(world, "deliver") {
            let ask = ask.fault("alpha", &format!("{fault},gap=10"));
            assert_replaced(world, ask, &format!("alpha;{outcome}, beta;200")).await;
        }
    }
}

async fn a_whole_answer_that_breaks_in_the_middle_falls_back(world: &World) {
    for fault in ["cut=2", "reset-after=2"] {
        for ask in [world.ask("deliver"), world.ask("deliver").messages()] {
            let ask = ask.fault("alpha", &format!("{fault},gap=10"));
            assert_replaced(world, ask, "alpha;reset, beta;200").await;
        }
    }
}

async fn a_routed_stream_that_stalls_falls_back(world: &World) {
    for fault in ["stall=1", "stall=2", "comments=1,stall=3"] {
        for case in ["deliver-routed", "deliver-routed-idle"] {
            for ask in streams(world, case) {
                let ask = ask.fault("alpha", &format!("{fault},gap=10"));
                assert_replaced(world, ask, "primary;stream_idle_timeout, beta;200").await;
            }
        }
    }
    let whole = world.ask("deliver-routed").fault("alpha", "stall=2");
    assert_replaced(world, whole, "primary;stream_idle_timeout, beta;200").await;
}

async fn a_routed_stream_without_a_first_packet_falls_back(world: &World) {
    let asks = ["hang", "silence", "comments"].map(|fault| {
        let ask = world.ask("deliver-routed").stream();
        assert_replaced(
            world,
            ask.fault("alpha", fault),
            "primary;first_packet_timeout, beta;200",
        )
    });
    join_all(asks).await;
}

async fn a_stream_that_stalls_falls_back(world: &World) {
    for fault in ["stall=1", "stall=2", "comments=1,stall=3", "stall"] {
        for ask in streams(world, "deliver-idle") {
            let ask = ask.fault("alpha", &format!("{fault},gap=10"));
            let answer = assert_replaced(world, ask, "alpha;stream_idle_timeout, beta;200").await;
            assert_cancelled(&world.alpha, &answer.id).await;
        }
    }
    let whole = world.ask("deliver-idle").fault("alpha", "stall=2");
    assert_replaced(world, whole, "alpha;stream_idle_timeout, beta;200").await;
}

async fn each_stream_that_stalls_falls_back(world: &World) {
    let ask = world.ask("deliver-idle").stream();
    let ask = ask.fault("alpha", "stall=2").fault("beta", "stall=2");
    let expected = sent_by(&world.gamma, &ask).await;
    let answer = ask.send().await;
    answer.assert_from(
        "gamma",
        "alpha;stream_idle_timeout, beta;stream_idle_timeout, gamma;200",
    );
    assert_eq!(answer.body, expected);
}

async fn a_stream_without_a_first_packet_falls_back(world: &World) {
    let asks = ["hang", "silence", "comments"].map(|fault| {
        let ask = world.ask("deliver-first").stream();
        assert_replaced(
            world,
            ask.fault("alpha", fault),
            "alpha;first_packet_timeout, beta;200",
        )
    });
    join_all(asks).await;
}

async fn a_stream_that_stalls_is_ended_by_the_request_timeout(world: &World) {
    for ask in streams(world, "deliver-request") {
        let ask = ask.fault("alpha", "stall=2");
        assert_replaced(world, ask, "alpha;request_timeout, beta;200").await;
    }
}

async fn a_held_answer_of_an_unnamed_primary_that_breaks_ends_in_502(world: &World) {
    let ask = world.ask("deliver-routed").stream();
    let answer = ask.fault("alpha", "gap=10,cut=2").send().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.attempts(), "");
    assert!(!answer.text().contains("alpha"), "{answer:?}");
    world.no_request(&world.beta, &answer);
}

async fn two_broken_streams_lead_to_the_third_service(world: &World) {
    for ask in streams(world, "deliver") {
        let ask = ask
            .fault("alpha", "gap=10,cut=3")
            .fault("beta", "gap=10,reset-after=2");
        let expected = sent_by(&world.gamma, &ask).await;
        let answer = ask.send().await;
        answer.assert_from("gamma", "alpha;reset, beta;reset, gamma;200");
        assert_eq!(answer.body, expected);
        for service in [&world.alpha, &world.beta, &world.gamma] {
            world.one_request(service, &answer);
        }
    }
}

async fn a_good_answer_comes_byte_for_byte(world: &World) {
    let [chat, messages] = streams(world, "deliver");
    let large = "size=300000,chunks=50";
    for ask in [
        world.ask("deliver"),
        world.ask("deliver").messages(),
        world.ask("deliver").fault("alpha", large),
        world.ask("deliver").fault("alpha", "gzip"),
        chat.clone().fault("alpha", "gzip"),
        chat.fault("alpha", large),
        messages.fault("alpha", "comments=2,gap=10"),
    ] {
        let expected = sent_by(&world.alpha, &ask).await;
        let answer = ask.send().await;
        assert_eq!(answer.attempts(), "alpha;200", "{answer:?}");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.service(), Some("alpha"));
        assert_eq!(answer.body, expected, "{answer:?}");
        world.no_request(&world.beta, &answer);
    }
}

async fn a_failure_before_the_body_falls_back_as_ever(world: &World) {
    for (fault, outcome) in [("503", "503"), ("reset", "reset"), ("empty", "empty")] {
        for ask in [world.ask("deliver"), world.ask("deliver").stream()] {
            let ask = ask.fault("alpha", fault);
            assert_replaced(world, ask, &format!("alpha;{outcome}, beta;200")).await;
        }
    }
}

async fn the_last_answer_is_delivered_with_its_error(world: &World) {
    for ask in streams(world, "deliver") {
        let ask = ask.header("x-mock", "error-after=2");
        let expected = sent_by(&world.gamma, &ask).await;
        let answer = ask.send().await;
        let attempts = "alpha;stream_error, beta;stream_error, gamma;stream_error";
        assert_eq!(answer.attempts(), attempts, "{answer:?}");
        assert_eq!(answer.service(), Some("gamma"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, expected);
    }
    let answer = world.ask("deliver").stream().header("x-mock", "429");
    let attempts = "alpha;429, beta;429, gamma;429";
    answer
        .send()
        .await
        .assert_failure_of("gamma", 429, attempts);
}

async fn the_last_answer_is_a_502_where_it_broke(world: &World) {
    for ask in [world.ask("deliver"), world.ask("deliver").stream()] {
        let answer = ask.header("x-mock", "gap=10,cut=2").send().await;
        assert_eq!(answer.attempts(), "alpha;reset, beta;reset, gamma;reset");
        assert_no_answer(&answer, 502);
    }
}

async fn the_last_answer_is_a_504_where_it_stalled(world: &World) {
    let (case, outcome) = match world.mode {
        Mode::Callout => ("deliver-request", "request_timeout"),
        Mode::Router => ("deliver-idle", "stream_idle_timeout"),
    };
    for ask in [world.ask(case), world.ask(case).stream()] {
        let answer = ask.header("x-mock", "gap=10,stall=2").send().await;
        let attempts = format!("alpha;{outcome}, beta;{outcome}, gamma;{outcome}");
        assert_eq!(answer.attempts(), attempts, "{answer:?}");
        assert_no_answer(&answer, 504);
    }
}

/// The filter's own words, and nobody else's.
#[track_caller]
fn assert_no_answer(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.service(), None, "{answer:?}");
    assert_eq!(answer.header("x-mock-service"), None, "{answer:?}");
    assert!(answer.json()["error"].is_object(), "{answer:?}");
}

async fn an_answer_that_is_larger_than_what_is_held_is_delivered(world: &World) {
    for ask in [
        world.ask("deliver-little"),
        world.ask("deliver-little").stream(),
    ] {
        let ask = ask
            .fault("alpha", "503")
            .fault("beta", "size=100000,chunks=40");
        assert_replaced(world, ask, "alpha;503, beta;200").await;
    }
}

async fn a_stream_that_is_larger_than_what_is_held_goes_on_live(world: &World) {
    let fault = format!("size={},chunks=10,gap=10,gate=9", 2 * LITTLE);
    let ask = world.ask("deliver-little").stream();
    let ask = ask.fault("alpha", "cut=2,gap=10").fault("beta", &fault);
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("....").await;
    assert!(world.beta.requests_with(&id)[0].chunks_sent <= 9);
    world.beta.open_gate(&id);
    let answer = live.rest().await;
    answer.assert_from("beta", "alpha;reset, beta;200");
    assert!(answer.text().ends_with(DONE), "{answer:?}");
}

async fn what_follows_after_what_is_held_is_no_failure(world: &World) {
    let fault = format!("size={},chunks=10,gap=10,error-after=9", 2 * LITTLE);
    let ask = world.ask("deliver-little").stream();
    let answer = ask.fault("alpha", &fault).send().await;
    assert_eq!(answer.attempts(), "alpha;200");
    assert!(answer.text().contains("alpha failed on purpose"));
    world.no_request(&world.beta, &answer);
}

async fn a_request_may_ask_for_a_complete_answer(world: &World) {
    let ask = world.ask("first-controls").stream();
    let ask = ask.header("x-ai-fallback-deliver", "complete");
    let ask = ask.fault("alpha", "gap=10,cut=2");
    let answer = assert_replaced(world, ask, "alpha;reset, beta;200").await;
    let received = world.one_request(&world.beta, &answer);
    assert_eq!(received.header("x-ai-fallback-deliver"), None);
}

async fn a_request_may_ask_for_the_first_packet(world: &World) {
    let ask = world.ask("deliver-controls").stream();
    let ask = ask.header("x-ai-fallback-deliver", "first_packet");
    assert_live(world, ask).await;
}

async fn a_request_for_something_else_is_refused(world: &World) {
    for value in ["", "all", "Complete", "complete, complete", "first-packet"] {
        let ask = world.ask("deliver-controls").stream();
        let answer = ask.header("x-ai-fallback-deliver", value).send().await;
        assert_eq!(answer.status, 400, "{value:?} {answer:?}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("x-ai-fallback-deliver"), "{message}");
        world.no_request(&world.alpha, &answer);
    }
}

async fn a_wish_that_is_not_allowed_changes_nothing(world: &World) {
    for value in ["complete", "nonsense"] {
        let ask = world.ask("first-no-controls").stream();
        assert_live(world, ask.header("x-ai-fallback-deliver", value)).await;
    }
    for value in ["first_packet", "nonsense"] {
        let ask = world.ask("deliver").stream();
        let ask = ask.header("x-ai-fallback-deliver", value);
        let ask = ask.fault("alpha", "gap=10,cut=2");
        assert_replaced(world, ask, "alpha;reset, beta;200").await;
    }
}

/// That a stream comes packet by packet.
async fn assert_live(world: &World, ask: Ask) {
    let id = ask.id.clone();
    let mut live = ask.fault("alpha", "gate=1").open().await;
    live.read_until("\n\n").await;
    assert_eq!(world.alpha.requests_with(&id)[0].chunks_sent, 1);
    world.alpha.open_gate(&id);
    live.rest().await.assert_from("alpha", "alpha;200");
}

async fn keep_alives_are_no_stall(world: &World) {
    // Each pause is far shorter than the timeout, all of them together are longer.
    let ask = world.ask("deliver-routed").stream();
    let answer = ask.fault("alpha", "chunks=30,gap=50").send().await;
    assert_eq!(answer.attempts(), "primary;200", "{answer:?}");
    assert!(answer.text().ends_with(DONE), "{answer:?}");
}

async fn the_trailers_of_a_held_answer_reach_the_client(world: &World) {
    for stream in [false, true] {
        let mut raw = Raw::connect(world.envoy.addr()).await;
        let body = format!(r#"{{"model": "gpt-4o", "stream": {stream}}}"#);
        let length = body.len();
        raw.write(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: deliver-http2\r\nte: trailers\r\n\
             x-mock-alpha: chunks=1,gap=10,cut=2\r\nx-mock-beta: chunks=1,gap=10,trailers\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
        .await;
        raw.read_until("x-mock-trailer: ").await;
        let whole = raw.read_until_end("\r\n\r\n").await;
        let attempts = "x-ai-fallback-attempts: alpha-h2;reset;";
        assert!(whole.contains(attempts), "{whole}");
        assert!(whole.contains("Hello from beta"), "{whole}");
        assert!(!whole.contains("Hello from alpha"), "{whole}");
        let end = "\r\n0\r\nx-mock-trailer: beta\r\n\r\n";
        assert!(whole.ends_with(end), "{whole}");
    }
}

async fn a_client_that_leaves_in_the_middle_cancels_the_attempt(world: &World) {
    for faults in [["stall=2", ""], ["cut=2,gap=10", "stall=2"]] {
        let ask = world.ask("deliver").stream();
        let id = ask.id.clone();
        let ask = ask.fault("alpha", faults[0]).fault("beta", faults[1]);
        let open = tokio::spawn(ask.try_open());
        let stalled = match faults[1] {
            "" => &world.alpha,
            _ => &world.beta,
        };
        stalled.wait_for_id(&id, all_sent(2)).await;
        open.abort();
        assert_cancelled(stalled, &id).await;
        assert!(world.gamma.requests_with(&id).is_empty());
    }
}

async fn assert_cancelled(service: &Mock, id: &str) {
    let gone = |all: &[Received]| all.iter().all(|one| one.ended == Some(Ended::ClientGone));
    service.wait_for_id(id, gone).await;
}

async fn nothing_stays_behind(world: &World) {
    let apis = model_apis(300);
    let world = World::configured(world.mode, apis, json!({}));
    let _log = world.envoy.clone();
    let (mut asked, mut left) = (Vec::new(), Vec::new());
    for number in 0..10 {
        for fault in ["", "cut=2,gap=10", "stall=2", "error-after=2", "silence"] {
            let ask = world.ask("deliver-routed").stream();
            asked.push(ask.fault("alpha", fault));
            let ask = world.ask("deliver-routed").stream();
            let ask = ask.fault("alpha", fault).fault("beta", "hang");
            left.push((number, ask));
        }
    }
    let left = left.into_iter().map(|(number, ask)| async move {
        let asked = tokio::spawn(ask.try_open());
        tokio::time::sleep(Duration::from_millis(50 * number)).await;
        asked.abort();
    });
    let (answers, _) = tokio::join!(join_all(asked.into_iter().map(Ask::send)), join_all(left));
    assert_eq!(answers.len(), 50);
    for gauge in ["active_requests", "deadlines"] {
        eventually(gauge, || world.envoy.metric(gauge) == 0).await;
    }
    for failure in ["panicked", "proxy_on_", "host_call_failed", "critical"] {
        assert!(!world.envoy.log_contains(failure), "{failure}");
    }
}

/// Why `max_held_bytes` has to be well below `per_connection_buffer_limit_bytes` of the listener: Envoy 1.40 adds what
/// comes to what is held before it shows it to the filter, and gives up the answer where that is over the limit.
async fn what_is_held_beyond_envoys_buffer_is_lost(world: &World) {
    const LIMIT: u32 = 65_536;
    let api = json!({
        "name": "all",
        "fallback": {"services": [{"service": "beta"}], "deliver": "complete", "max_held_bytes": LIMIT},
    });
    let world = World::alone(world.mode, api, |gateway| gateway.buffer_limit(LIMIT));
    let _log = world.envoy.clone();
    for ask in [world.ask("all"), world.ask("all").stream()] {
        let id = ask.id.clone();
        let ask = ask.fault("alpha", "size=300000,chunks=20,gap=10,gate=2");
        let asked = tokio::spawn(ask.send());
        world.alpha.wait_for_id(&id, all_sent(2)).await;
        // Envoy has to hold the first part before the rest comes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.alpha.open_gate(&id);
        let answer = asked.await.expect("no panic");
        match world.mode {
            Mode::Callout => assert_eq!(
                (answer.status.as_u16(), answer.attempts()),
                (500, "".into())
            ),
            Mode::Router => answer.assert_from("beta", "primary;reset, beta;200"),
        }
    }
}
