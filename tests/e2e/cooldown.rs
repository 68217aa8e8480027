//! Cooldown: a service that fails again and again is skipped for a time, by all workers, and probed by one request then.
//!
//! What is known of a service holds for all requests, so each test has services of its own: `CASE-a` is alpha, `CASE-b`
//! beta, `CASE-c` gamma.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::client::{Answer, Ask};
use crate::gateway_answers::ABORT;
use crate::support::{Envoy, eventually};
use crate::world::{Mode, World, case};

both_modes![
    after_failures_in_a_row_a_service_is_skipped,
    after_a_retry_after_a_service_is_skipped_at_once,
    a_refusal_never_cools,
    an_answer_of_the_gateway_never_cools,
    a_good_answer_in_between_begins_the_count_anew,
    a_failure_on_one_model_api_counts_for_all,
    a_retry_after_has_a_limit,
    all_workers_know_what_one_has_learned,
    a_fallback_service_that_cools_is_skipped_too,
    when_all_services_cool_the_least_bad_one_is_tried,
    when_all_services_cool_the_answer_of_the_least_bad_one_is_delivered,
    one_request_finds_out_whether_a_service_is_well_again,
    a_probe_that_fails_makes_the_service_cool_again,
    a_probe_that_hangs_is_not_the_last,
    a_flapping_service_is_skipped_while_it_is_down_and_used_again_after,
    the_gauge_falls_without_a_request,
    without_a_cooldown_nothing_is_skipped,
];

router_only![
    "a fallback by callout arrives whole": the_first_service_that_does_not_cool_streams_live,
    "the progress passes from filter to filter": a_failure_is_counted_once,
];

/// As many failures in a row make a service cool.
const FAILURES: usize = 3;

/// A way to fail: the fault, and the outcome in the trail.
const FAULTS: [(&str, &str, &str); 10] = [
    ("status", "503", "503"),
    ("status-500", "500", "500"),
    ("overload", "529", "529"),
    ("rate", "429", "429"),
    ("reset", "reset", "reset"),
    ("empty", "empty", "empty"),
    ("break", "reset-after=2,gap=10", "reset"),
    ("error", "error-event", "stream_error"),
    ("silence", "silence", "first_packet_timeout"),
    ("hang", "hang", "request_timeout"),
];

/// What says nothing about a service but that it is there.
const REFUSALS: [&str; 5] = ["400", "401", "403", "404", "422"];

/// A world in which services cool for so long that no test sees the end, unless `Retry-After` asks for less.
fn long(world: &World) -> (&'static World, Envoy) {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let start = |mode| {
        let short = if mode == Mode::Router { 1000 } else { 300 };
        let fallback = |name: &str| match name {
            "cool-break" => json!({"deliver": "complete"}),
            "cool-silence" => json!({"first_packet_timeout_ms": short}),
            "cool-hang" => json!({"request_timeout_ms": 1500}),
            "cool-once" => {
                json!({"total_timeout_ms": 8000, "reserve_ms": 500, "request_timeout_ms": 1000})
            }
            _ => json!({}),
        };
        let faults = FAULTS.map(|(name, ..)| format!("cool-{name}"));
        let refusals = REFUSALS.map(|status| format!("cool-{status}"));
        let others = [
            "after",
            "after-429",
            "after-503",
            "after-refusal",
            "gateway",
            "between",
            "limit",
            "workers",
            "second",
            "all",
            "all-fail",
            "probe",
            "probe-fails",
            "gauge",
            "live",
            "once",
            "shared",
        ];
        let others = others.map(|name| format!("cool-{name}"));
        let names: Vec<String> = faults.into_iter().chain(refusals).chain(others).collect();
        let mut apis: Vec<Value> = names
            .iter()
            .map(|name| model_api(name, name, fallback(name)))
            .collect();
        apis.push(model_api("cool-shared-too", "cool-shared", json!({})));
        let cooldown = json!({"failures": FAILURES, "time_ms": 60_000});
        configured(mode, &names, apis, cooldown)
    };
    let found = WORLDS[world.mode as usize].get_or_init(|| start(world.mode));
    (found, found.envoy.clone())
}

/// A world in which services cool for a short time.
fn short(world: &World) -> (&'static World, Envoy) {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    let found = WORLDS[world.mode as usize].get_or_init(|| {
        let names = ["flaps", "hangs"].map(str::to_owned);
        let apis = names.iter().map(|name| model_api(name, name, json!({})));
        let cooldown = json!({"failures": 1, "time_ms": 1500});
        configured(world.mode, &names, apis.collect(), cooldown)
    });
    (found, found.envoy.clone())
}

fn configured(mode: Mode, names: &[String], apis: Vec<Value>, cooldown: Value) -> World {
    let mut services = Map::new();
    for name in names {
        for (letter, cluster) in [("a", "alpha"), ("b", "beta"), ("c", "gamma")] {
            services.insert(format!("{name}-{letter}"), json!({"cluster": cluster}));
        }
    }
    World::configured(
        mode,
        apis,
        json!({"services": services, "cooldown": cooldown}),
    )
}

/// A Model API with the three services of `owner`.
fn model_api(name: &str, owner: &str, fallback: Value) -> Value {
    let [a, b, c] = ["a", "b", "c"].map(|letter| format!("{owner}-{letter}"));
    let mut all = json!({"services": [{"service": b}, {"service": c}]});
    let fields = all.as_object_mut().expect("an object");
    fields.extend(fallback.as_object().expect("an object").clone());
    case(name, json!({"primary": {"service": a}, "fallback": all}))
}

/// The trail in short: `a;503, b;200`.
fn trail(answer: &Answer, case: &str) -> String {
    answer.attempts().replace(&format!("{case}-"), "")
}

/// Alpha fails so often that it is skipped from now on. All at once, since some ways to fail take their time.
async fn fail(world: &World, case: &str, fault: &str, outcome: &str, times: usize) {
    let asks = (0..times).map(|_| world.ask(case).stream().fault("alpha", fault).send());
    for answer in join_all(asks).await {
        assert_eq!(
            trail(&answer, case),
            format!("a;{outcome}, b;200"),
            "{answer:?}"
        );
    }
}

/// Alpha asks to be left alone for so long.
async fn ask_to_be_left_alone(world: &World, case: &str, seconds: u32) {
    fail(world, case, &format!("429,retry-after={seconds}"), "429", 1).await;
}

/// That alpha is not asked, and beta answers in its place.
async fn assert_skipped(world: &World, case: &str) {
    for ask in [
        world.ask(case),
        world.ask(case).stream(),
        world.ask(case).messages(),
    ] {
        let answer = ask.send().await;
        answer.assert_from(&format!("{case}-b"), &answer.attempts());
        assert_eq!(trail(&answer, case), "a;cooling, b;200", "{answer:?}");
        world.no_request(&world.alpha, &answer);
        world.one_request(&world.beta, &answer);
    }
}

async fn assert_used(world: &World, case: &str) {
    let answer = world.ask(case).send().await;
    answer.assert_from(&format!("{case}-a"), &answer.attempts());
    assert_eq!(trail(&answer, case), "a;200", "{answer:?}");
}

fn gauge(world: &World, service: &str) -> u64 {
    world
        .envoy
        .metric(&format!("cooling model_service={service}"))
}

async fn until_it_cools_no_more(world: &World, service: &str) {
    let over = || gauge(world, service) == 0;
    eventually(&format!("{service} cools no more"), over).await;
}

async fn after_failures_in_a_row_a_service_is_skipped(world: &World) {
    let (world, _log) = long(world);
    let cooldowns = || world.envoy.metric("cooldowns");
    join_all(FAULTS.map(|(name, fault, outcome)| async move {
        let case = &format!("cool-{name}");
        fail(world, case, fault, outcome, FAILURES - 1).await;
        assert_eq!(gauge(world, &format!("{case}-a")), 0, "{case}");
        let before = cooldowns();
        fail(world, case, fault, outcome, 1).await;
        assert_skipped(world, case).await;
        assert!(cooldowns() > before);
        assert_eq!(gauge(world, &format!("{case}-a")), 1, "{case}");
        assert_eq!(gauge(world, &format!("{case}-b")), 0, "{case}");
        let line = format!("event=cooling service={case}-a for_ms=60000");
        assert_eq!(world.envoy.log().matches(&line).count(), 1, "{line}");
    }))
    .await;
}

async fn after_a_retry_after_a_service_is_skipped_at_once(world: &World) {
    let (world, _log) = long(world);
    for status in ["429", "503"] {
        let case = &format!("cool-after-{status}");
        fail(world, case, &format!("{status},retry-after=90"), status, 1).await;
        assert_skipped(world, case).await;
        let line = format!("event=cooling service={case}-a for_ms=90000");
        assert!(world.envoy.log_contains(&line), "{line}");
    }
    // To wait for nothing is a failure like any other.
    let case = "cool-after";
    fail(world, case, "429,retry-after=0", "429", FAILURES - 1).await;
    fail(world, case, "429,retry-after=0", "429", 1).await;
    assert_skipped(world, case).await;
}

async fn a_refusal_never_cools(world: &World) {
    let (world, _log) = long(world);
    for status in REFUSALS {
        let case = &format!("cool-{status}");
        for fault in [status, &format!("{status},retry-after=90")] {
            fail(world, case, fault, status, FAILURES + 2).await;
        }
        assert_used(world, case).await;
    }
}

async fn an_answer_of_the_gateway_never_cools(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-gateway";
    for _ in 0..FAILURES + 2 {
        let answer = world.ask(case).header(ABORT, "503").send().await;
        assert_eq!(trail(&answer, case), "a;intercepted, b;200");
    }
    assert_used(world, case).await;
}

async fn a_good_answer_in_between_begins_the_count_anew(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-between";
    for _ in 0..3 {
        fail(world, case, "503", "503", FAILURES - 1).await;
        assert_used(world, case).await;
    }
    fail(world, case, "503", "503", FAILURES - 1).await;
    // Somebody who asks for nonsense is answered as well.
    fail(world, case, "400", "400", 1).await;
    fail(world, case, "503", "503", FAILURES).await;
    assert_skipped(world, case).await;
}

async fn a_failure_on_one_model_api_counts_for_all(world: &World) {
    let (world, _log) = long(world);
    for case in ["cool-shared", "cool-shared-too", "cool-shared"] {
        let answer = world.ask(case).fault("alpha", "503").send().await;
        assert_eq!(trail(&answer, "cool-shared"), "a;503, b;200");
    }
    for case in ["cool-shared", "cool-shared-too"] {
        let answer = world.ask(case).send().await;
        assert_eq!(trail(&answer, "cool-shared"), "a;cooling, b;200");
    }
}

async fn a_retry_after_has_a_limit(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-limit";
    ask_to_be_left_alone(world, case, 86_400).await;
    assert_skipped(world, case).await;
    let line = format!("event=cooling service={case}-a for_ms=300000");
    assert!(world.envoy.log_contains(&line), "{line}");
}

async fn all_workers_know_what_one_has_learned(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-workers";
    ask_to_be_left_alone(world, case, 90).await;
    let before = connections_by_worker(&world.envoy);
    assert_eq!(before.len(), 2, "two workers: {before:?}");
    // Each on a connection of its own, which the kernel gives to a worker at random.
    let answers = join_all((0..60).map(|_| world.ask(case).send())).await;
    for answer in answers {
        assert_eq!(trail(&answer, case), "a;cooling, b;200");
        world.no_request(&world.alpha, &answer);
    }
    for (worker, count) in connections_by_worker(&world.envoy) {
        assert!(count > before[&worker], "{worker} took no request");
    }
}

fn connections_by_worker(envoy: &Envoy) -> BTreeMap<String, u64> {
    let is_one = |name: &str| {
        name.starts_with("listener.127.0.0.1")
            && name.contains(".worker_")
            && name.ends_with(".downstream_cx_total")
    };
    let stats = envoy.stats().into_iter();
    stats.filter(|(name, _)| is_one(name)).collect()
}

async fn a_fallback_service_that_cools_is_skipped_too(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-second";
    let ask = |beta: &str| world.ask(case).fault("alpha", "400").fault("beta", beta);
    for _ in 0..FAILURES {
        let answer = ask("503").send().await;
        answer.assert_from("cool-second-c", &answer.attempts());
        assert_eq!(trail(&answer, case), "a;400, b;503, c;200");
    }
    let answer = ask("").send().await;
    answer.assert_from("cool-second-c", &answer.attempts());
    assert_eq!(trail(&answer, case), "a;400, b;cooling, c;200");
    world.no_request(&world.beta, &answer);
    assert_used(world, case).await;
}

/// All three services ask to be left alone, beta for the shortest time.
async fn all_cool(world: &World, case: &str) {
    let ask = world.ask(case).fault("alpha", "429,retry-after=200");
    let ask = ask.fault("beta", "503,retry-after=100");
    let answer = ask.fault("gamma", "429,retry-after=250").send().await;
    assert_eq!(trail(&answer, case), "a;429, b;503, c;429");
    for letter in ["a", "b", "c"] {
        let service = format!("{case}-{letter}");
        eventually(&service, || gauge(world, &service) == 1).await;
    }
}

async fn when_all_services_cool_the_least_bad_one_is_tried(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-all";
    all_cool(world, case).await;
    let answer = world.ask(case).send().await;
    answer.assert_from("cool-all-b", &answer.attempts());
    assert_eq!(trail(&answer, case), "a;cooling, b;200", "{answer:?}");
    for service in [&world.alpha, &world.gamma] {
        world.no_request(service, &answer);
    }
    // It does answer, so it is used as before.
    eventually("it is well again", || gauge(world, "cool-all-b") == 0).await;
    assert!(world.envoy.log_contains("event=healthy service=cool-all-b"));
    assert_skipped(world, case).await;
}

async fn when_all_services_cool_the_answer_of_the_least_bad_one_is_delivered(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-all-fail";
    all_cool(world, case).await;
    let attempts = [
        ("503", 503, "503"),
        ("reset", 502, "reset"),
        ("400", 400, "400"),
    ];
    for (fault, status, outcome) in attempts {
        for ask in [world.ask(case), world.ask(case).stream()] {
            let answer = ask.header("x-mock", fault).send().await;
            let expected = format!("a;cooling, b;{outcome}, c;cooling");
            assert_eq!(trail(&answer, case), expected, "{answer:?}");
            assert_eq!(answer.status, status, "{answer:?}");
            if status != 502 {
                assert!(
                    answer.text().contains("beta failed on purpose"),
                    "{answer:?}"
                );
            }
            world.one_request(&world.beta, &answer);
        }
        // A refusal is an answer.
        if fault == "400" {
            break;
        }
    }
}

async fn one_request_finds_out_whether_a_service_is_well_again(world: &World) {
    const AT_ONCE: usize = 20;
    let (world, _log) = long(world);
    let case = "cool-probe";
    ask_to_be_left_alone(world, case, 1).await;
    until_it_cools_no_more(world, "cool-probe-a").await;

    let id = world.ask(case).id;
    let ask = || {
        let ask = world.ask(case).stream().header("x-test-id", &id);
        ask.fault("alpha", "hold")
    };
    let mut asked: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(ask().send())).collect();
    let answered = |asked: &[tokio::task::JoinHandle<Answer>]| {
        asked.iter().filter(|one| one.is_finished()).count()
    };
    eventually("all but one are answered", || {
        answered(&asked) >= AT_ONCE - 1
    })
    .await;
    // Also one that comes later does not wait for it.
    assert_skipped(world, case).await;
    assert_eq!(world.alpha.requests_with(&id).len(), 1);
    world.alpha.open_gate(&id);
    let mut trails = Vec::new();
    for one in asked.drain(..) {
        trails.push(trail(&one.await.expect("an answer"), case));
    }
    trails.sort();
    assert_eq!(trails[0], "a;200");
    assert!(
        trails[1..].iter().all(|trail| trail == "a;cooling, b;200"),
        "{trails:?}"
    );

    for _ in 0..5 {
        assert_used(world, case).await;
    }
    let line = "event=healthy service=cool-probe-a";
    assert_eq!(world.envoy.log().matches(line).count(), 1);
    until_it_cools_no_more(world, "cool-probe-a").await;
}

async fn a_probe_that_fails_makes_the_service_cool_again(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-probe-fails";
    ask_to_be_left_alone(world, case, 1).await;
    until_it_cools_no_more(world, "cool-probe-fails-a").await;
    fail(world, case, "503", "503", 1).await;
    assert_skipped(world, case).await;
    let line = "event=cooling service=cool-probe-fails-a for_ms=60000";
    assert!(world.envoy.log_contains(line));
}

async fn a_probe_that_hangs_is_not_the_last(world: &World) {
    let (world, _log) = short(world);
    let case = "hangs";
    fail(world, case, "503", "503", 1).await;
    until_it_cools_no_more(world, "hangs-a").await;
    let probe = world.ask(case).fault("alpha", "hold");
    let id = probe.id.clone();
    let probe = tokio::spawn(probe.send());
    world.alpha.wait_for_id(&id, |all| all.len() == 1).await;
    let answer = asked_until_it_is_used(world, case, |ask| ask).await;
    answer.assert_from("hangs-a", &answer.attempts());
    assert!(!probe.is_finished());
    world.alpha.open_gate(&id);
    let answer = probe.await.expect("no panic");
    assert_eq!(trail(&answer, case), "a;200");
}

async fn a_flapping_service_is_skipped_while_it_is_down_and_used_again_after(world: &World) {
    const DOWN: usize = 4;
    let (world, _log) = short(world);
    let id = world.ask("flaps").id;
    let mut asked = 0;
    let answer = asked_until_it_is_used(world, "flaps", |ask| {
        asked += 1;
        let ask = ask.header("x-test-id", &id);
        ask.fault("alpha", &format!("503,times={DOWN}"))
    })
    .await;
    assert_eq!(trail(&answer, "flaps"), "a;200");
    assert_eq!(world.alpha.requests_with(&id).len(), DOWN + 1);
    assert!(asked > 3 * DOWN, "{asked} requests");
    for _ in 0..5 {
        assert_used(world, "flaps").await;
    }
}

/// The answer to the first request that alpha answers well. The others are not without an answer.
async fn asked_until_it_is_used(
    world: &World,
    case: &str,
    mut change: impl FnMut(Ask) -> Ask,
) -> Answer {
    let begin = std::time::Instant::now();
    while begin.elapsed() < crate::support::LIMIT {
        let answer = change(world.ask(case)).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        match trail(&answer, case).as_str() {
            "a;200" => return answer,
            "a;cooling, b;200" | "a;503, b;200" => {}
            other => panic!("{other}: {answer:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{case}: never used again");
}

async fn the_gauge_falls_without_a_request(world: &World) {
    let (world, _log) = long(world);
    ask_to_be_left_alone(world, "cool-gauge", 2).await;
    eventually("it cools", || gauge(world, "cool-gauge-a") == 1).await;
    until_it_cools_no_more(world, "cool-gauge-a").await;
    assert_used(world, "cool-gauge").await;
}

async fn without_a_cooldown_nothing_is_skipped(world: &World) {
    for _ in 0..FAILURES + 2 {
        let ask = world.ask("streams").fault("alpha", "429,retry-after=90");
        ask.send().await.assert_from("beta", "alpha;429, beta;200");
    }
    assert!(!world.envoy.stats().keys().any(|name| name.contains("cool")));
}

async fn the_first_service_that_does_not_cool_streams_live(world: &World) {
    let (world, _log) = long(world);
    let case = "cool-live";
    ask_to_be_left_alone(world, case, 90).await;
    let ask = world.ask(case).stream().fault("beta", "gate=1");
    let id = ask.id.clone();
    let mut live = ask.open().await;
    live.read_until("\n\n").await;
    assert_eq!(world.beta.requests_with(&id)[0].chunks_sent, 1);
    world.beta.open_gate(&id);
    let answer = live.rest().await;
    assert_eq!(trail(&answer, case), "a;cooling, b;200");
    // And from there the router goes on.
    let ask = world.ask(case).stream().fault("beta", "503");
    let answer = ask.send().await;
    assert_eq!(trail(&answer, case), "a;cooling, b;503, c;200");
}

async fn a_failure_is_counted_once(world: &World) {
    let (world, _log) = long(world);
    // While beta hangs, the request filter looks what the attempt filters have written down: more than once.
    let asks = (1..FAILURES).map(|_| {
        let ask = world.ask("cool-once").fault("alpha", "503,delay=300");
        ask.fault("beta", "hang").send()
    });
    for answer in join_all(asks).await {
        assert_eq!(
            trail(&answer, "cool-once"),
            "a;503, b;request_timeout, c;200"
        );
    }
    assert_used(world, "cool-once").await;
}
