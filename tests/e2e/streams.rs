//! Streams: live from the first byte on, and never changed once a byte has gone to the client.

use serde_json::{Value, json};

use crate::mock::Ended;
use crate::world::{Short, World, case};

both_modes![
    the_primary_streams_live,
    a_whole_answer_is_passed_on_from_its_first_byte,
    an_error_in_the_middle_of_a_stream_is_no_failure,
    a_stream_that_is_reset_after_its_first_event_is_not_replaced,
    a_stream_that_is_cut_after_its_first_event_is_not_replaced,
    a_whole_answer_that_breaks_in_the_middle_is_not_replaced,
    a_stream_that_stalls_after_its_first_event_is_not_replaced,
    a_stream_that_ends_early_is_not_replaced,
    a_client_that_leaves_before_the_answer_cancels_the_attempt,
    a_client_that_leaves_in_the_middle_of_a_stream_cancels_the_attempt,
];

callout_only![
    "a callout's answer arrives whole": a_fallback_stream_reaches_the_client_once_it_is_whole,
];

router_only![
    "every attempt of the router streams": a_fallback_service_streams_live,
];

/// The end of a good stream.
const DONE: &str = "data: [DONE]\n\n";

pub fn model_apis(short: Short) -> Vec<Value> {
    vec![
        case(
            "streams",
            json!({
                "primary": {"service": "alpha"},
                "fallback": {"services": [{"service": "beta"}, {"service": "gamma"}]},
            }),
        ),
        case(
            "streams-in-time",
            json!({
                "primary": {"service": "alpha"},
                "fallback": {"services": [{"service": "beta"}], "first_packet_timeout_ms": 10 * short, "request_timeout_ms": 10 * short},
            }),
        ),
    ]
}

async fn the_primary_streams_live(world: &World) {
    let ask = world.ask("streams").stream().fault("alpha", "gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("\n\n").await;
    assert_eq!(world.alpha.requests_with(&id)[0].chunks_sent, 1);
    world.alpha.open_gate(&id);
    live.rest().await.assert_from("alpha", "alpha;200");
}

async fn a_whole_answer_is_passed_on_from_its_first_byte(world: &World) {
    // The pieces of a whole answer are no events. The first of them is good enough.
    let ask = world.ask("streams").fault("alpha", "chunks=5,gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("{").await;
    assert_eq!(world.alpha.requests_with(&id)[0].chunks_sent, 1);
    world.alpha.open_gate(&id);
    live.rest().await.assert_from("alpha", "alpha;200");
}

async fn an_error_in_the_middle_of_a_stream_is_no_failure(world: &World) {
    for ask in [
        world.ask("streams").stream(),
        world.ask("streams").stream().messages(),
    ] {
        let answer = ask.fault("alpha", "error-after=2").send().await;
        assert_eq!(answer.attempts(), "alpha;200");
        assert_eq!(answer.service(), Some("alpha"));
        assert!(
            answer.text().contains("alpha failed on purpose"),
            "{answer:?}"
        );
        world.no_request(&world.beta, &answer);
    }
}

async fn a_stream_that_is_reset_after_its_first_event_is_not_replaced(world: &World) {
    assert_breaks(world, true, "gate=2,reset-after=2").await;
}

async fn a_stream_that_is_cut_after_its_first_event_is_not_replaced(world: &World) {
    assert_breaks(world, true, "gate=2,cut=2").await;
}

async fn a_whole_answer_that_breaks_in_the_middle_is_not_replaced(world: &World) {
    assert_breaks(world, false, "gate=2,reset-after=2").await;
    assert_breaks(world, false, "gate=2,cut=2").await;
}

/// The client has read what came, and then gets an error: no second service's text, and no proper end.
async fn assert_breaks(world: &World, stream: bool, fault: &str) {
    let ask = world.ask("streams");
    let ask = if stream { ask.stream() } else { ask };
    let id = ask.id.clone();
    let mut live = ask.fault("alpha", fault).open().await;
    live.read_until("chatcmpl-mock").await;
    world.alpha.open_gate(&id);
    let answer = live.broken().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.attempts(), "alpha;200");
    assert!(!answer.text().contains("beta"), "{answer:?}");
    assert!(!answer.text().contains(DONE), "{answer:?}");
    world.no_request(&world.beta, &answer);
}

async fn a_stream_that_stalls_after_its_first_event_is_not_replaced(world: &World) {
    // The gate is opened long after both timeouts.
    let fault = "chunks=3,gap=10,gate=2";
    let ask = world.ask("streams-in-time").stream().fault("alpha", fault);
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("\n\n").await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    world.alpha.open_gate(&id);
    let answer = live.rest().await;
    answer.assert_from("alpha", "alpha;200");
    world.no_request(&world.beta, &answer);
}

async fn a_stream_that_ends_early_is_not_replaced(world: &World) {
    let ask = world.ask("streams").stream();
    let answer = ask.fault("alpha", "end-after=2").send().await;
    assert_eq!(answer.attempts(), "alpha;200");
    assert!(!answer.text().contains(DONE), "{answer:?}");
    world.no_request(&world.beta, &answer);
}

async fn a_client_that_leaves_before_the_answer_cancels_the_attempt(world: &World) {
    for ask in [world.ask("streams"), world.ask("streams").stream()] {
        let id = ask.id.clone();
        let open = tokio::spawn(ask.fault("alpha", "hang").try_open());
        let whole = |all: &[crate::mock::Received]| all.iter().any(|one| one.complete);
        world.alpha.wait_for_id(&id, whole).await;
        open.abort();
        assert_cancelled(world, &id).await;
        assert!(world.beta.requests_with(&id).is_empty());
    }
}

async fn a_client_that_leaves_in_the_middle_of_a_stream_cancels_the_attempt(world: &World) {
    let ask = world.ask("streams").stream().fault("alpha", "stall=2");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("\n\n").await;
    drop(live);
    assert_cancelled(world, &id).await;
    assert!(world.beta.requests_with(&id).is_empty());
}

async fn assert_cancelled(world: &World, id: &str) {
    let gone =
        |all: &[crate::mock::Received]| all.iter().all(|one| one.ended == Some(Ended::ClientGone));
    world.alpha.wait_for_id(id, gone).await;
}

async fn a_fallback_stream_reaches_the_client_once_it_is_whole(world: &World) {
    let ask = world.ask("streams").stream();
    let id = ask.id.clone();
    let ask = ask.fault("alpha", "503").fault("beta", "gate=2");
    let opened = tokio::spawn(ask.open());
    let begun = |all: &[crate::mock::Received]| all.iter().any(|one| one.chunks_sent == 2);
    world.beta.wait_for_id(&id, begun).await;
    assert!(
        !opened.is_finished(),
        "no byte of an answer that may still fail"
    );
    world.beta.open_gate(&id);
    let answer = opened.await.expect("no panic").rest().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    assert!(answer.text().ends_with(DONE), "{answer:?}");
}

async fn a_fallback_service_streams_live(world: &World) {
    let ask = world.ask("streams").stream();
    let id = ask.id.clone();
    let ask = ask
        .fault("alpha", "503")
        .fault("beta", "error-event")
        .fault("gamma", "gate=1");
    let mut live = ask.open().await;
    live.read_until("\n\n").await;
    assert_eq!(world.gamma.requests_with(&id)[0].chunks_sent, 1);
    world.gamma.open_gate(&id);
    let answer = live.rest().await;
    answer.assert_from("gamma", "alpha;503, beta;stream_error, gamma;200");
}
