//! Filters that change answers, and headers that Envoy adds to them.

use std::io::Read;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::filters;
use crate::world::{Chain, Mode, PLACES, Place, World, at};

both_modes![
    cors,
    compressor,
    decompressor,
    response_headers_to_add,
];

const ORIGIN: &str = "http://page.test";

pub fn chains() -> Vec<Chain> {
    let add = |name: &str| json!({"response_headers_to_add": [{"header": {"key": name, "value": "yes"}}]});
    let headers = Chain::new("headers");
    [
        Chain::both("cors", &filters::cors()).map(|chain| chain.host(filters::cors_policy(ORIGIN))).into(),
        Chain::both("compressor", &filters::compressor()).into(),
        Chain::both("decompressor", &filters::decompressor()).into(),
        vec![headers.host(add("x-of-host")).route(add("x-of-route"))],
    ]
    .concat()
}

/// How a primary fails: the case, the fault, and the trail.
const FAILURES: [(&str, &str, &str); 4] = [
    ("classes", "503", "alpha;503, beta;200"),
    ("refused", "", "refused;reset, beta;200"),
    ("slow", "hang", "alpha;first_packet_timeout, beta;200"),
    ("classes", "503,stall", "alpha;503, beta;200"),
];

async fn cors(world: &World) {
    for place in PLACES {
        for (case, fault, attempts) in FAILURES {
            let ask = world.ask(&at("cors", place), case).stream().header("origin", ORIGIN);
            let answer = ask.fault("alpha", fault).send().await;
            answer.assert_from("beta", attempts);
            eprintln!("CORS {:?} {place:?} {case} {fault}: {:?}", world.mode, answer.header("access-control-allow-origin"));
        }
    }
}

async fn compressor(world: &World) {
    for place in PLACES {
        for (case, fault, _) in FAILURES {
            let ask = world.ask(&at("compressor", place), case).header("accept-encoding", "gzip");
            let ask = if case == "slow" { ask.stream() } else { ask };
            let answer = ask.fault("alpha", fault).send().await;
            eprintln!("COMPRESSOR {:?} {place:?} {case} {fault}: {} {} {:?}", world.mode, answer.status, answer.attempts(), answer.header("content-encoding"));
        }
        let answer = world.ask(&at("compressor", place), "classes").header("accept-encoding", "gzip").send().await;
        eprintln!("COMPRESSOR {:?} {place:?} good: {} {} {:?}", world.mode, answer.status, answer.attempts(), answer.header("content-encoding"));
    }
}

async fn decompressor(world: &World) {
    for place in PLACES {
        let ask = world.ask(&at("decompressor", place), "errors").header("accept-encoding", "gzip");
        let ask = ask.fault("alpha", "400,gzip,code=context_length_exceeded");
        let answer = tokio::time::timeout(std::time::Duration::from_secs(8), ask.send()).await;
        match answer {
            Ok(answer) => eprintln!("DECOMPRESSOR {:?} {place:?}: {} {} {:?}", world.mode, answer.status, answer.attempts(), answer.headers.get("content-encoding")),
            Err(_) => eprintln!("DECOMPRESSOR {:?} {place:?}: HANGS", world.mode),
        }
    }
}

async fn response_headers_to_add(world: &World) {
    for (case, fault, attempts) in FAILURES {
        let ask = world.ask("headers", case).stream();
        let answer = ask.fault("alpha", fault).send().await;
        answer.assert_from("beta", attempts);
        eprintln!("HEADERS {:?} {case} {fault}: host {:?} route {:?}", world.mode, answer.header("x-of-host"), answer.header("x-of-route"));
    }
}
