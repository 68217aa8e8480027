//! Filters that change answers, and headers that Envoy adds to them.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, Ask};
use crate::filters;
use crate::sight::large;
use crate::world::{Chain, PLACES, Place, World, at};

both_modes![
    cors_before_ours_is_on_the_answer_of_a_fallback,
    cors_before_ours_is_on_an_answer_that_is_longer_than_the_request,
    a_compressor_before_ours_packs_the_answer_of_a_fallback,
    a_compressor_before_ours_packs_an_answer_that_is_longer_than_the_request,
    headers_of_route_and_virtual_host_are_on_the_answer_of_a_fallback,
    headers_of_route_and_virtual_host_are_on_an_answer_that_is_shorter_than_the_request,
    a_decompressor_before_ours_is_no_help_to_read_errors,
];
callout_only![
    "a local reply goes past all filters once response headers are held":
    cors_is_missing_where_the_failed_answer_does_not_end,
    "the failed answer that passed it is replaced":
    cors_behind_ours_is_kept_where_the_failed_answer_is_complete,
    "the failed answer that passed it is replaced":
    a_compressor_behind_ours_does_not_pack_the_answer_of_a_fallback,
    "the decompressor stands between the service and what reads its errors":
    a_decompressor_behind_ours_lets_errors_be_read,
];
router_only![
    "the router makes all attempts behind all filters":
    cors_is_on_the_answer_of_a_fallback_in_each_place,
    "the router makes all attempts behind all filters":
    a_compressor_behind_ours_packs_the_answer_of_a_fallback,
    "what reads errors stands between the service and the decompressor":
    a_decompressor_behind_ours_is_no_help_to_read_errors,
];

const ORIGIN: &str = "http://page.test";

pub fn chains() -> Vec<Chain> {
    let add = |name: &str| json!({"response_headers_to_add": [{"header": {"key": name, "value": "yes"}}]});
    let headers = Chain::new("headers");
    [
        Chain::both("cors", &filters::cors())
            .map(|chain| chain.host(filters::cors_policy(ORIGIN)))
            .into(),
        Chain::both("compressor", &filters::compressor()).into(),
        Chain::both("decompressor", &filters::decompressor()).into(),
        vec![headers.host(add("x-of-host")).route(add("x-of-route"))],
    ]
    .concat()
}

/// How a primary fails: the case, the fault, and the trail.
struct Failure(&'static str, &'static str, &'static str);

/// The failed answer is complete: one of the service, and one of Envoy.
const COMPLETE: [Failure; 2] = [
    Failure("classes", "503", "alpha;503, beta;200"),
    Failure("refused", "", "refused;reset, beta;200"),
];
/// There is none in time.
const SILENT: Failure = Failure("slow", "hang", "alpha;first_packet_timeout, beta;200");
/// It does not end.
const ENDLESS: Failure = Failure("classes", "503,stall", "alpha;503, beta;200");

fn all() -> impl Iterator<Item = Failure> {
    COMPLETE.into_iter().chain([SILENT, ENDLESS])
}

impl Failure {
    /// The answer of the fallback.
    async fn answer(&self, ask: Ask) -> Answer {
        let Failure(_, fault, attempts) = self;
        let answer = ask.fault("alpha", fault).send().await;
        assert_eq!(answer.attempts(), *attempts, "{answer:?}");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }
}

/// To a request that is larger than its answer, or not.
async fn allowed_origin(
    world: &World,
    place: Place,
    failure: &Failure,
    is_large: bool,
) -> Option<String> {
    let ask = world.ask(&at("cors", place), failure.0).stream();
    let ask = if is_large { large(ask, true) } else { ask };
    let answer = failure.answer(ask.header("origin", ORIGIN)).await;
    let origin = answer.header("access-control-allow-origin");
    origin.map(str::to_owned)
}

async fn cors_before_ours_is_on_the_answer_of_a_fallback(world: &World) {
    for failure in COMPLETE.iter().chain([&SILENT]) {
        let origin = allowed_origin(world, Place::Before, failure, true).await;
        assert_eq!(origin.as_deref(), Some(ORIGIN), "{}", failure.2);
    }
}

async fn cors_before_ours_is_on_an_answer_that_is_longer_than_the_request(world: &World) {
    for failure in &COMPLETE {
        let origin = allowed_origin(world, Place::Before, failure, false).await;
        assert_eq!(origin.as_deref(), Some(ORIGIN), "{}", failure.2);
    }
}

async fn cors_is_missing_where_the_failed_answer_does_not_end(world: &World) {
    for place in PLACES {
        let origin = allowed_origin(world, place, &ENDLESS, true).await;
        assert_eq!(origin, None, "{place:?}");
    }
}

async fn cors_behind_ours_is_kept_where_the_failed_answer_is_complete(world: &World) {
    for failure in &COMPLETE {
        let origin = allowed_origin(world, Place::Behind, failure, true).await;
        assert_eq!(origin.as_deref(), Some(ORIGIN), "{}", failure.2);
    }
    let origin = allowed_origin(world, Place::Behind, &SILENT, true).await;
    assert_eq!(origin.as_deref(), Some(ORIGIN), "where there was none");
}

async fn cors_is_on_the_answer_of_a_fallback_in_each_place(world: &World) {
    for place in PLACES {
        for failure in all() {
            let origin = allowed_origin(world, place, &failure, false).await;
            assert_eq!(origin.as_deref(), Some(ORIGIN), "{place:?} {}", failure.2);
        }
    }
}

/// The encoding of the answer of a fallback, which can be read in any.
async fn encoding(
    world: &World,
    place: Place,
    failure: &Failure,
    is_large: bool,
) -> Option<String> {
    let ask = world.ask(&at("compressor", place), failure.0);
    let ask = if is_large { large(ask, false) } else { ask };
    let answer = failure.answer(ask.header("accept-encoding", "gzip")).await;
    let encoding = answer.header("content-encoding").map(str::to_owned);
    let mut text = String::new();
    match encoding {
        Some(_) => flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
        None => (&answer.body[..]).read_to_string(&mut text),
    }
    .expect("a text");
    assert!(text.contains("Hello from beta"), "{text}");
    encoding
}

async fn a_compressor_before_ours_packs_the_answer_of_a_fallback(world: &World) {
    for failure in &COMPLETE {
        let encoding = encoding(world, Place::Before, failure, true).await;
        assert_eq!(encoding.as_deref(), Some("gzip"), "{}", failure.2);
    }
}

async fn a_compressor_before_ours_packs_an_answer_that_is_longer_than_the_request(world: &World) {
    for failure in &COMPLETE {
        let encoding = encoding(world, Place::Before, failure, false).await;
        assert_eq!(encoding.as_deref(), Some("gzip"), "{}", failure.2);
    }
}

async fn a_compressor_behind_ours_packs_the_answer_of_a_fallback(world: &World) {
    for failure in &COMPLETE {
        let encoding = encoding(world, Place::Behind, failure, false).await;
        assert_eq!(encoding.as_deref(), Some("gzip"), "{}", failure.2);
    }
}

async fn a_compressor_behind_ours_does_not_pack_the_answer_of_a_fallback(world: &World) {
    for failure in COMPLETE.iter().chain([&ENDLESS]) {
        let encoding = encoding(world, Place::Behind, failure, true).await;
        assert_eq!(encoding, None, "{}", failure.2);
    }
}

/// The answer to a request whose primary answers with a packed `400` that tells of an error in `on_errors`.
async fn packed_error(world: &World, place: Place) -> Answer {
    let ask = world.ask(&at("decompressor", place), "errors");
    let fault = "400,gzip,code=context_length_exceeded";
    let answer = ask.header("accept-encoding", "gzip").fault("alpha", fault);
    let answer = tokio::time::timeout(Duration::from_secs(20), answer.send()).await;
    answer.unwrap_or_else(|_| panic!("{:?}: no answer within 20 s", world.mode))
}

async fn a_decompressor_behind_ours_lets_errors_be_read(world: &World) {
    let answer = packed_error(world, Place::Behind).await;
    answer.assert_from("beta", "alpha;400;context_length, beta;200");
}

async fn a_decompressor_behind_ours_is_no_help_to_read_errors(world: &World) {
    no_help(world, Place::Behind).await;
}

async fn a_decompressor_before_ours_is_no_help_to_read_errors(world: &World) {
    no_help(world, Place::Before).await;
}

/// The packed answer is the client's, unpacked.
async fn no_help(world: &World, place: Place) {
    let answer = packed_error(world, place).await;
    answer.assert_failure_of("alpha", 400, "alpha;400");
    assert_eq!(answer.header("content-encoding"), None);
}

async fn headers_of_route_and_virtual_host_are_on_the_answer_of_a_fallback(world: &World) {
    for failure in all() {
        has_headers(world, &failure, false).await;
    }
}

async fn headers_of_route_and_virtual_host_are_on_an_answer_that_is_shorter_than_the_request(
    world: &World,
) {
    for failure in all() {
        has_headers(world, &failure, true).await;
    }
}

async fn has_headers(world: &World, failure: &Failure, is_large: bool) {
    let ask = world.ask("headers", failure.0).stream();
    let ask = if is_large { large(ask, true) } else { ask };
    let answer = failure.answer(ask).await;
    for name in ["x-of-host", "x-of-route"] {
        assert_eq!(answer.header(name), Some("yes"), "{} {answer:?}", failure.2);
    }
}
