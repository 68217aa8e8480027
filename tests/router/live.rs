//! A fallback streams live, whatever way the primary failed.

use serde_json::{Value, json};

use crate::world::{World, api};

pub fn model_apis() -> Vec<Value> {
    vec![
        api("live", json!({"service": "one"}), &["two"]),
        api("live-refused", json!({"service": "refused"}), &["two"]),
    ]
}

#[tokio::test]
async fn after_a_status() {
    first_chunk_comes_before_the_last_is_sent("live", "503", "one;503").await;
}

#[tokio::test]
async fn after_a_refused_connection() {
    first_chunk_comes_before_the_last_is_sent("live-refused", "", "refused;reset").await;
}

#[tokio::test]
async fn after_a_reset() {
    first_chunk_comes_before_the_last_is_sent("live", "reset", "one;reset").await;
}

#[tokio::test]
async fn after_a_reset_between_headers_and_body() {
    first_chunk_comes_before_the_last_is_sent("live", "reset-after=0", "one;reset").await;
}

#[tokio::test]
async fn after_a_service_that_never_answers() {
    first_chunk_comes_before_the_last_is_sent("live", "hang", "one;first_packet_timeout").await;
}

#[tokio::test]
async fn after_headers_and_then_silence() {
    first_chunk_comes_before_the_last_is_sent("live", "silence", "one;first_packet_timeout").await;
}

#[tokio::test]
async fn after_headers_and_then_only_comments() {
    first_chunk_comes_before_the_last_is_sent("live", "comments", "one;first_packet_timeout").await;
}

#[tokio::test]
async fn after_an_error_event() {
    first_chunk_comes_before_the_last_is_sent("live", "error-event", "one;stream_error").await;
}

#[tokio::test]
async fn after_comments_and_then_an_error_event() {
    first_chunk_comes_before_the_last_is_sent("live", "comments=2,error-event", "one;stream_error")
        .await;
}

#[tokio::test]
async fn after_an_empty_answer() {
    first_chunk_comes_before_the_last_is_sent("live", "empty", "one;empty").await;
}

#[tokio::test]
async fn after_a_stream_that_ends_before_its_first_event() {
    first_chunk_comes_before_the_last_is_sent("live", "comments=2,end-after=0", "one;empty").await;
}

#[tokio::test]
async fn a_primary_that_succeeds_streams_live_too() {
    let Some(world) = World::shared() else { return };
    let ask = world.ask("live").fault("one", "chunks=4,gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.next().await;
    assert_eq!(world.service("one").requests_with(&id)[0].chunks_sent, 1);
    world.service("one").open_gate(&id);
    live.rest().await.assert_from("one", "one;200");
}

async fn first_chunk_comes_before_the_last_is_sent(case: &str, fault: &str, failed: &str) {
    let Some(world) = World::shared() else { return };
    let _log = world.envoy.clone();
    let ask = world
        .ask(case)
        .fault("one", fault)
        .fault("two", "chunks=4,gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.next().await;
    // The rest waits for the gate: what is here has come live.
    assert_eq!(world.service("two").requests_with(&id)[0].chunks_sent, 1);
    world.service("two").open_gate(&id);
    let answer = live.rest().await;
    answer.assert_from("two", &format!("{failed}, two;200"));
    assert!(answer.text.ends_with("[DONE]\n\n"), "{answer:?}");
}
