//! What keeps a client on one host of a cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::filters;
use crate::mock::Mock;
use crate::support::Cluster;
use crate::world::{Chain, Place, World};

/// Whose requests stay together.
pub const USER: &str = "x-user";

both_modes![ring_hash];

pub fn chains() -> Vec<Chain> {
    let cookie = json!({"route": {"hash_policy": [{"cookie": {"name": "who"}}]}});
    vec![
        Chain::new("plain"),
        Chain::new("cookie").route(cookie),
        Chain::new("session").filter(Place::Behind, filters::stateful_session()),
    ]
}

/// A cluster of all these hosts that hashes.
pub fn ring(name: &str, hosts: &[Mock], hash_policy: Value) -> Cluster {
    let host = |mock: &Mock| {
        let addr = mock.addr();
        json!({"endpoint": {"address": {"socket_address": {"address": addr.ip(), "port_value": addr.port()}}}})
    };
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"hash_policy": hash_policy}});
    Cluster::empty(name).with(json!({
        "lb_policy": "RING_HASH",
        "load_assignment": {"endpoints": [{"lb_endpoints": hosts}]},
        "typed_extension_protocol_options": options,
    }))
}

async fn ring_hash(world: &World) {
    for case in ["ring", "ring-by-header"] {
        let mut hosts = BTreeSet::new();
        for user in 0..12 {
            let ask = world.ask("plain", case).header(USER, &format!("user-{user}"));
            let answer = ask.send().await;
            hosts.insert(answer.header("x-mock-service").map(str::to_owned));
        }
        eprintln!("RING {:?} {case}: {hosts:?}", world.mode);
    }
}
