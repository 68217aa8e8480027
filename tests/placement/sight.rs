//! What a filter sees of a request and of its answers: a Lua filter that writes it down, before ours and behind it.

use serde_json::json;

use crate::client::{Answer, Ask};
use crate::filters::{self, BEARER};
use crate::world::{ALPHA_KEY, BETA_KEY, Chain, PLACES, Place, World, at};

both_modes![
    before_ours_a_filter_sees_the_request_of_the_client_once,
    before_ours_a_filter_sees_the_answer_of_the_fallback_alone,
    before_ours_a_filter_sees_an_answer_of_a_fallback_that_is_longer_than_the_request,
    what_a_filter_before_ours_adds_to_the_request_reaches_each_service,
    no_service_gets_what_the_client_asked_with,
    before_ours_a_filter_sees_the_answer_of_a_fallback_after_a_refusal_behind_ours,
    behind_ours_a_filter_sees_the_refusal_and_not_the_answer_of_the_fallback_after_it,
];
callout_only![
    "the request is fitted before it goes along Envoy's route":
    behind_ours_a_filter_sees_the_request_that_is_fitted_to_the_primary,
    "a callout passes no filter of the listener":
    behind_ours_a_filter_sees_the_failed_answer_and_not_that_of_the_fallback,
    "a local reply takes the place of an answer that did not come, and passes all filters":
    behind_ours_a_filter_sees_the_answer_of_a_fallback_where_the_primary_gave_none,
    "a callout passes no filter of the listener":
    what_a_filter_behind_ours_adds_to_the_request_reaches_the_primary_alone,
    "a local reply goes past all filters once response headers are held":
    no_filter_sees_the_answer_of_a_fallback_where_the_failed_one_does_not_end,
];
router_only![
    "the attempt filter alone fits each attempt":
    behind_ours_a_filter_sees_the_request_of_the_client_once,
    "the router makes all attempts behind all filters":
    behind_ours_a_filter_sees_the_answer_of_the_fallback_alone,
    "the router makes all attempts behind all filters":
    what_a_filter_behind_ours_adds_to_the_request_reaches_each_service,
    "the router makes all attempts behind all filters":
    every_filter_sees_the_answer_of_a_fallback_where_the_failed_one_does_not_end,
];

pub fn chains() -> Vec<Chain> {
    let mut all: Vec<Chain> = Chain::both("probe", &filters::lua(PROBE)).into();
    let refused = Chain::new("probe-and-limit-behind").filter(Place::Behind, filters::lua(PROBE));
    all.push(refused.filter(Place::Behind, filters::local_ratelimit(&["probe"])));
    let refused = Chain::new("probe-limit").filter(Place::Before, filters::lua(PROBE));
    all.push(refused.filter(Place::Behind, filters::local_ratelimit(&["probe"])));
    all
}

/// Writes down what it sees, and adds a header to the request and to the answer. Refuses where the request asks for it.
pub const PROBE: &str = r#"
function envoy_on_request(handle)
  local headers = handle:headers()
  local refuse = headers:get("x-lua-refuse")
  if refuse ~= nil then
    handle:respond({[":status"] = refuse}, "refused by lua")
    return
  end
  local own = headers:get(":authority") .. " " .. headers:get(":path") .. " " .. (headers:get("authorization") or "-")
  local known = handle:streamInfo():dynamicMetadata()
  local before = known:get("probe")
  if before ~= nil and before.saw ~= nil then own = before.saw .. ", " .. own end
  known:set("probe", "saw", own)
  headers:add("x-lua-request", "yes")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local own = headers:get(":status") .. " " .. (headers:get("x-mock-service") or "-")
  local known = handle:streamInfo():dynamicMetadata()
  local before = known:get("probe")
  if before ~= nil and before.heard ~= nil then own = before.heard .. ", " .. own end
  known:set("probe", "heard", own)
  headers:add("x-lua-answer", "yes")
end
"#;

/// A request that is longer than each answer to it.
pub fn large(ask: Ask, stream: bool) -> Ask {
    let body =
        json!({"model": "gpt-4o", "stream": stream, "messages": [], "user": "x".repeat(4000)});
    ask.json(&body)
}

const QUERY_KEY: &str = "query-key-of-the-client-4714";

/// A request of a client with credentials in a header and in the query.
fn ask(world: &World, place: Place, case: &str) -> Ask {
    world
        .ask(&at("probe", place), case)
        .path(&format!("/v1/chat/completions?key={QUERY_KEY}&alt=sse"))
        .header("authorization", BEARER)
}

fn of_client() -> String {
    format!("gw.test /v1/chat/completions?key={QUERY_KEY}&alt=sse {BEARER}")
}

async fn before_ours_a_filter_sees_the_request_of_the_client_once(world: &World) {
    sees_the_request_of_the_client_once(world, Place::Before).await;
}

async fn behind_ours_a_filter_sees_the_request_of_the_client_once(world: &World) {
    sees_the_request_of_the_client_once(world, Place::Behind).await;
}

async fn sees_the_request_of_the_client_once(world: &World, place: Place) {
    let answer = ask(world, place, "classes").fault("alpha", "503").send();
    let answer = answer.await;
    answer.assert_from("beta", "alpha;503, beta;200");
    assert_eq!(world.logged(&answer).saw, of_client());
}

async fn behind_ours_a_filter_sees_the_request_that_is_fitted_to_the_primary(world: &World) {
    let answer = ask(world, Place::Behind, "classes").fault("alpha", "503");
    let answer = answer.send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let fitted = format!("alpha.test /of-alpha/v1/chat/completions?alt=sse {ALPHA_KEY}");
    assert_eq!(world.logged(&answer).saw, fitted);
}

async fn before_ours_a_filter_sees_the_answer_of_the_fallback_alone(world: &World) {
    sees_the_answer_of_the_fallback_alone(world, Place::Before).await;
}

async fn behind_ours_a_filter_sees_the_answer_of_the_fallback_alone(world: &World) {
    sees_the_answer_of_the_fallback_alone(world, Place::Behind).await;
}

async fn sees_the_answer_of_the_fallback_alone(world: &World, place: Place) {
    for (case, fault, attempts) in WAYS {
        let ask = large(ask(world, place, case), true);
        let answer = ask.fault("alpha", fault).send().await;
        heard_of_the_fallback_alone(world, case, attempts, &answer);
    }
}

async fn before_ours_a_filter_sees_an_answer_of_a_fallback_that_is_longer_than_the_request(
    world: &World,
) {
    for (case, fault, attempts) in WAYS {
        let ask = ask(world, Place::Before, case).stream();
        let answer = ask.fault("alpha", fault).send().await;
        heard_of_the_fallback_alone(world, case, attempts, &answer);
    }
}

/// How a primary fails: with an answer that is complete, with one of Envoy, and with none.
const WAYS: [(&str, &str, &str); 3] = [
    ("classes", "503", "alpha;503, beta;200"),
    ("refused", "", "refused;reset, beta;200"),
    ("slow", "hang", "alpha;first_packet_timeout, beta;200"),
];

#[track_caller]
fn heard_of_the_fallback_alone(world: &World, case: &str, attempts: &str, answer: &Answer) {
    answer.assert_from("beta", attempts);
    assert_eq!(world.logged(answer).heard, "200 beta", "{case}");
    assert_eq!(answer.header("x-lua-answer"), Some("yes"), "{case}");
}

async fn behind_ours_a_filter_sees_the_failed_answer_and_not_that_of_the_fallback(world: &World) {
    for (case, attempts, heard) in [
        ("classes", "alpha;503, beta;200", "503 alpha"),
        ("refused", "refused;reset, beta;200", "503 -"),
    ] {
        let ask = large(ask(world, Place::Behind, case), false);
        let answer = ask.fault("alpha", "503").send().await;
        answer.assert_from("beta", attempts);
        assert_eq!(world.logged(&answer).heard, heard, "{case}");
        // What it has added to the failed answer stays.
        assert_eq!(answer.header("x-lua-answer"), Some("yes"), "{case}");
    }
}

async fn behind_ours_a_filter_sees_the_answer_of_a_fallback_where_the_primary_gave_none(
    world: &World,
) {
    let answer = ask(world, Place::Behind, "slow")
        .stream()
        .fault("alpha", "hang");
    let answer = answer.send().await;
    answer.assert_from("beta", "alpha;first_packet_timeout, beta;200");
    assert_eq!(world.logged(&answer).heard, "200 beta");
    assert_eq!(answer.header("x-lua-answer"), Some("yes"));
}

async fn no_filter_sees_the_answer_of_a_fallback_where_the_failed_one_does_not_end(world: &World) {
    for (place, heard) in [(Place::Before, "-"), (Place::Behind, "503 alpha")] {
        let answer = ask(world, place, "classes").fault("alpha", "503,stall");
        let answer = answer.send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        assert_eq!(world.logged(&answer).heard, heard, "{place:?}");
        assert_eq!(answer.header("x-lua-answer"), None, "{place:?}");
    }
}

async fn every_filter_sees_the_answer_of_a_fallback_where_the_failed_one_does_not_end(
    world: &World,
) {
    for place in PLACES {
        let answer = ask(world, place, "classes").fault("alpha", "503,stall");
        let answer = answer.send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        assert_eq!(world.logged(&answer).heard, "200 beta", "{place:?}");
        assert_eq!(answer.header("x-lua-answer"), Some("yes"), "{place:?}");
    }
}

async fn what_a_filter_before_ours_adds_to_the_request_reaches_each_service(world: &World) {
    adds_to_the_request(world, Place::Before, Some("yes")).await;
}

async fn what_a_filter_behind_ours_adds_to_the_request_reaches_each_service(world: &World) {
    adds_to_the_request(world, Place::Behind, Some("yes")).await;
}

async fn what_a_filter_behind_ours_adds_to_the_request_reaches_the_primary_alone(world: &World) {
    adds_to_the_request(world, Place::Behind, None).await;
}

async fn adds_to_the_request(world: &World, place: Place, at_fallback: Option<&str>) {
    let answer = ask(world, place, "classes").fault("alpha", "503").send();
    let answer = answer.await;
    answer.assert_from("beta", "alpha;503, beta;200");
    let at_alpha = world.one_request(&world.alpha, &answer);
    assert_eq!(at_alpha.header("x-lua-request"), Some("yes"));
    let at_beta = world.one_request(&world.beta, &answer);
    assert_eq!(at_beta.header("x-lua-request"), at_fallback);
}

async fn no_service_gets_what_the_client_asked_with(world: &World) {
    for place in PLACES {
        let answer = ask(world, place, "classes").fault("alpha", "503").send();
        let answer = answer.await;
        for (service, key) in [(&world.alpha, ALPHA_KEY), (&world.beta, BETA_KEY)] {
            let request = world.one_request(service, &answer);
            let name = service.name();
            assert_eq!(request.header("authorization"), Some(key), "{place:?}");
            assert_eq!(request.authority, format!("{name}.test"), "{place:?}");
            let path = format!("/of-{name}/v1/chat/completions?alt=sse");
            assert_eq!(request.path, path, "{place:?}");
        }
        let at_beta = world.one_request(&world.beta, &answer);
        assert_eq!(at_beta.header("x-key-of-alpha"), None, "{place:?}");
    }
}

/// Such a fallback is a callout in both modes.
async fn before_ours_a_filter_sees_the_answer_of_a_fallback_after_a_refusal_behind_ours(
    world: &World,
) {
    let ask = || {
        let ask = world
            .ask("probe-limit", "classes")
            .header("x-limited", "probe");
        large(ask, false)
    };
    ask().send().await.assert_from("alpha", "alpha;200");
    let answer = ask().send().await;
    heard_of_the_fallback_alone(world, "limited", "alpha;intercepted, beta;200", &answer);
}

/// The same.
async fn behind_ours_a_filter_sees_the_refusal_and_not_the_answer_of_the_fallback_after_it(
    world: &World,
) {
    let ask = || {
        let ask = world.ask("probe-and-limit-behind", "classes");
        large(ask.header("x-limited", "probe"), false)
    };
    ask().send().await.assert_from("alpha", "alpha;200");
    let answer = ask().send().await;
    answer.assert_from("beta", "alpha;intercepted, beta;200");
    assert_eq!(world.logged(&answer).heard, "429 -");
    // What it has added to the refusal stays.
    assert_eq!(answer.header("x-lua-answer"), Some("yes"));
}
