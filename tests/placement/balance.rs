//! What keeps a client on one host of a cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::filters;
use crate::mock::Mock;
use crate::support::{Cluster, Envoy};
use crate::world::{Chain, Place, World, at};

callout_only![
    "Envoy hashes a callout by its authority, where nothing else is said":
    all_fallbacks_to_a_ring_go_to_one_host,
    "the cookie is removed before Envoy hashes":
    a_cookie_in_the_hash_policy_of_the_route_is_not_seen,
    "the cookie is removed before the filter sees it":
    stateful_session_behind_ours_forgets_its_client,
];
both_modes![
    with_a_hash_policy_of_the_cluster_fallbacks_go_to_a_host_by_their_header,
    stateful_session_before_ours_keeps_a_client_on_one_host,
];
router_only![
    "the attempt filter alone removes the cookie":
    stateful_session_behind_ours_keeps_a_client_on_one_host,
    "the attempt filter alone removes the cookie":
    a_cookie_in_the_hash_policy_of_the_route_keeps_a_client_on_one_host,
];

/// Whose requests stay together.
pub const USER: &str = "x-user";

const SESSION: &str = "session-of-the-gateway";

pub fn chains() -> Vec<Chain> {
    let cookie = json!({"route": {"hash_policy": [{"cookie": {"name": "who"}}]}});
    let mut all = vec![Chain::new("plain"), Chain::new("cookie").route(cookie)];
    all.extend(Chain::both("session", &filters::stateful_session(SESSION)));
    all
}

/// Envoy 1.36 does not know the field; 1.39 and 1.40 do.
fn has_hash_policy() -> bool {
    Envoy::version() >= (1, 39)
}

/// A cluster of all these hosts that hashes.
pub fn ring(name: &str, hosts: &[Mock], hash_policy: Value) -> Cluster {
    let host = |mock: &Mock| {
        let addr = mock.addr();
        json!({"endpoint": {"address": {"socket_address": {"address": addr.ip(), "port_value": addr.port()}}}})
    };
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    let hash_policy = if has_hash_policy() {
        json!({"hash_policy": hash_policy})
    } else {
        json!({})
    };
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": hash_policy});
    Cluster::empty(name).with(json!({
        "lb_policy": "RING_HASH",
        "load_assignment": {"endpoints": [{"lb_endpoints": hosts}]},
        "typed_extension_protocol_options": options,
    }))
}

fn host(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-mock-service").expect("a host").to_owned()
}

/// The hosts that answer. There are three, and they are asked often enough that not all answers come from one by chance.
async fn hosts(ask: impl Fn(usize) -> Ask) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for number in 0..12 {
        hosts.insert(host(&ask(number).send().await));
    }
    hosts
}

async fn all_fallbacks_to_a_ring_go_to_one_host(world: &World) {
    let ask = |number| {
        let ask = world.ask("plain", "ring");
        ask.header(USER, &format!("user-{number}"))
    };
    assert_eq!(hosts(ask).await.len(), 1);
}

async fn with_a_hash_policy_of_the_cluster_fallbacks_go_to_a_host_by_their_header(world: &World) {
    if !has_hash_policy() {
        return;
    }
    let ask = |number| {
        let ask = world.ask("plain", "ring-by-header");
        ask.header(USER, &format!("user-{number}"))
    };
    assert!(hosts(ask).await.len() > 1, "each user somewhere");
    assert_eq!(hosts(|_| ask(7)).await.len(), 1, "one user at one host");
}

fn with_cookie(world: &World, number: usize) -> Ask {
    let ask = world.ask("cookie", "to-ring");
    ask.header("cookie", &format!("who=cookie-of-the-client-{number}"))
}

async fn a_cookie_in_the_hash_policy_of_the_route_keeps_a_client_on_one_host(world: &World) {
    assert!(hosts(|number| with_cookie(world, number)).await.len() > 1);
    for number in [3, 4] {
        assert_eq!(hosts(|_| with_cookie(world, number)).await.len(), 1);
    }
    assert_no_cookie(world);
}

async fn a_cookie_in_the_hash_policy_of_the_route_is_not_seen(world: &World) {
    let hosts = hosts(|_| with_cookie(world, 3)).await;
    assert!(hosts.len() > 1, "{hosts:?}");
}

fn assert_no_cookie(world: &World) {
    for service in &world.ring {
        for request in service.requests() {
            assert_eq!(request.header("cookie"), None, "{request:?}");
        }
    }
}

async fn stateful_session_before_ours_keeps_a_client_on_one_host(world: &World) {
    let (first, others) = session(world, Place::Before).await;
    assert_eq!(others, BTreeSet::from([first]));
    assert_no_cookie(world);
}

async fn stateful_session_behind_ours_keeps_a_client_on_one_host(world: &World) {
    let (first, others) = session(world, Place::Behind).await;
    assert_eq!(others, BTreeSet::from([first]));
    assert_no_cookie(world);
}

async fn stateful_session_behind_ours_forgets_its_client(world: &World) {
    let (_, others) = session(world, Place::Behind).await;
    assert!(others.len() > 1, "{others:?}");
}

/// The host that answers a new client, and those that answer it when it comes again with its cookie.
async fn session(world: &World, place: Place) -> (String, BTreeSet<String>) {
    let ask = || world.ask(&at("session", place), "to-ring");
    let first = ask().send().await;
    let cookie = first.header("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("its value");
    assert!(cookie.starts_with(SESSION), "{cookie}");
    let again = hosts(|_| ask().header("cookie", cookie)).await;
    (host(&first), again)
}
