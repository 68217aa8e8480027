//! Services that lead back to the gateway: such a request ends after a number of passes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::client::{Answer, Raw};
use crate::mock::Received;
use crate::support::Cluster;
use crate::world::{World, case};

both_modes![
    a_request_that_comes_back_too_often_is_answered_508,
    a_loop_behind_a_fallback_ends_too,
    a_loop_does_not_keep_a_good_fallback_from_answering,
    each_service_that_leads_back_doubles_the_passes_up_to_the_limit,
    a_service_that_leads_back_is_neither_retried_nor_skipped,
    an_unread_request_that_comes_back_is_noticed_too,
    each_named_service_is_told_how_often_a_request_came_through,
    a_count_that_makes_no_sense_counts_as_none,
    a_count_that_a_client_makes_up_can_only_end_its_own_request,
    where_hops_are_not_counted_the_header_is_one_like_any_other,
    a_gateway_that_does_not_count_passes_the_count_on,
    loops_are_counted,
];

const HOPS: &str = "x-ai-hops";
const MAX_HOPS: usize = 3;

/// A gateway with services that are the gateway itself.
struct Looped {
    world: World,
    _port: TcpSocket,
}

fn own(world: &World) -> &'static World {
    static WORLDS: [OnceLock<Looped>; 2] = [OnceLock::new(), OnceLock::new()];
    &WORLDS[world.mode as usize]
        .get_or_init(|| looped(world, json!({})))
        .world
}

/// `more` is for the top level of the configuration.
fn looped(world: &World, mut more: Value) -> Looped {
    more["max_hops"] = MAX_HOPS.into();
    let (port, addr) = reserve();
    Looped {
        world: gateway(world, more, addr, addr),
        _port: port,
    }
}

/// A gateway that listens here, with services that lead there.
fn gateway(world: &World, mut more: Value, here: SocketAddr, there: SocketAddr) -> World {
    let apis = model_apis().into();
    more["services"] = json!({"again": {"cluster": "again"}, "again-2": {"cluster": "again"}});
    World::with(world.mode, apis, more, |gateway| {
        let again = Cluster::new("again", there);
        gateway.cluster(again).listen_on(here)
    })
}

/// A port that only a listener with `SO_REUSEPORT` can have beside us, as Envoy's have: it is known before Envoy starts,
/// and nobody takes it in between.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("an option");
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(any).expect("a free port");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

fn model_apis() -> Vec<Value> {
    let with = |primary: &str, services: &[&str]| {
        let services: Vec<_> = services
            .iter()
            .map(|name| json!({"service": name}))
            .collect();
        json!({"primary": {"service": primary}, "fallback": {"services": services}})
    };
    vec![
        case("loop", json!({"primary": {"service": "again"}})),
        case("loop-behind", with("alpha", &["again"])),
        case("loop-first", with("again", &["beta"])),
        case("two-loops", with("alpha", &["again", "again-2"])),
        case(
            "loop-retried",
            json!({"primary": {"service": "alpha"}, "fallback": {
                "services": [{"service": "again", "retries": 2}], "retry": {"backoff_ms": 0},
            }}),
        ),
        case("chain", with("alpha", &["beta", "gamma"])),
        case(
            "by-route",
            json!({"fallback": {"services": [{"service": "beta"}]}}),
        ),
    ]
}

async fn a_request_that_comes_back_too_often_is_answered_508(world: &World) {
    let looped = looped(world, json!({}));
    let world = &looped.world;
    for (number, ask) in [
        world.ask("loop"),
        world.ask("loop").stream(),
        world.ask("loop").http2(),
        world.ask("loop").messages(),
    ]
    .into_iter()
    .enumerate()
    {
        let is_anthropic = number == 3;
        let answer = ask.send().await;
        assert_loop(&answer, is_anthropic);
        assert_eq!(answer.attempts(), "again;508");
        assert_eq!(answer.service(), Some("again"));
        assert_eq!(counted(world, "requests"), (MAX_HOPS + 1) * (number + 1));
        assert_eq!(counted(world, "requests reason=loop"), number + 1);
    }
}

async fn a_loop_behind_a_fallback_ends_too(world: &World) {
    let world = own(world);
    for ask in [world.ask("loop-behind"), world.ask("loop-behind").stream()] {
        let answer = ask.fault("alpha", "503").send().await;
        assert_loop(&answer, false);
        assert_eq!(answer.attempts(), "alpha;503, again;508");
        assert_eq!(
            hops(&world.alpha.requests_with(&answer.id)),
            ["1", "2", "3"]
        );
    }
}

async fn a_loop_does_not_keep_a_good_fallback_from_answering(world: &World) {
    let world = own(world);
    for ask in [world.ask("loop-first"), world.ask("loop-first").stream()] {
        let answer = ask.send().await;
        // The last pass falls back, and the passes before it get its answer.
        answer.assert_from("again", "again;200");
        assert_eq!(hops(&world.beta.requests_with(&answer.id)), ["3"]);
    }
}

/// Each pass makes as many requests as there are services that lead back: with two, 1 + 2 + 4 passes and 8 that are
/// refused. `max_attempts` and `total_timeout_ms` bound a pass, and `max_hops` all of them.
async fn each_service_that_leads_back_doubles_the_passes_up_to_the_limit(world: &World) {
    let world = own(world);
    let answer = world.ask("two-loops").fault("alpha", "503").send().await;
    assert_loop(&answer, false);
    assert_eq!(answer.attempts(), "alpha;503, again;508, again-2;508");
    let requests = world.alpha.requests_with(&answer.id);
    let mut passes = hops(&requests);
    passes.sort();
    assert_eq!(passes, ["1", "2", "2", "3", "3", "3", "3"]);
}

/// It says nothing of its health: with a count of its own making, a client could have it skipped for everybody.
async fn a_service_that_leads_back_is_neither_retried_nor_skipped(world: &World) {
    let looped = looped(world, json!({"cooldown": {"failures": 1}}));
    let world = &looped.world;
    for _ in 0..3 {
        let answer = world.ask("loop-retried").fault("alpha", "400").send().await;
        assert_loop(&answer, false);
        assert_eq!(answer.attempts(), "alpha;400, again;508");
        assert_eq!(
            hops(&world.alpha.requests_with(&answer.id)),
            ["1", "2", "3"]
        );
    }
    assert_eq!(counted(world, "cooldowns"), 0);
    assert_eq!(counted(world, "retries"), 0);
}

async fn an_unread_request_that_comes_back_is_noticed_too(world: &World) {
    let world = own(world);
    let ask = world.ask("loop").header("content-encoding", "gzip");
    let answer = ask.send().await;
    assert_loop(&answer, false);
    assert_eq!(answer.attempts(), "again;508;compressed");
}

async fn each_named_service_is_told_how_often_a_request_came_through(world: &World) {
    let world = own(world);
    for (sent, expected) in [(None, "1"), (Some("1"), "2"), (Some("2"), "3")] {
        for ask in [world.ask("chain"), world.ask("chain").stream()] {
            let ask = ask.fault("alpha", "503").fault("beta", "reset");
            let ask = match sent {
                Some(sent) => ask.header(HOPS, sent),
                None => ask,
            };
            let answer = ask.send().await;
            answer.assert_from("gamma", "alpha;503, beta;reset, gamma;200");
            for service in [&world.alpha, &world.beta, &world.gamma] {
                assert_eq!(hops(&service.requests_with(&answer.id)), [expected]);
            }
        }
    }
    // Where the route decides, nothing but the model is changed.
    let ask = world.ask("by-route").fault("alpha", "503");
    let answer = ask.send().await;
    assert_eq!(hops(&world.alpha.requests_with(&answer.id)), [""; 0]);
    assert_eq!(hops(&world.beta.requests_with(&answer.id)), ["1"]);
}

async fn a_count_that_makes_no_sense_counts_as_none(world: &World) {
    let world = own(world);
    for sent in ["", "x", "-1", "1.5", "0x2", "2;2", ",,"] {
        let ask = world.ask("chain").header(HOPS, sent);
        let answer = ask.send().await;
        answer.assert_from("alpha", "alpha;200");
        assert_eq!(
            hops(&world.alpha.requests_with(&answer.id)),
            ["1"],
            "{sent:?}"
        );
    }
    // One that is too long is still a count.
    let ask = world.ask("chain").header(HOPS, "99999999999999999999");
    assert_eq!(ask.send().await.status, 508);
    // The highest of several counts, since any may be the one that a gateway wrote.
    for (sent, expected) in [("1, 2", "3"), ("2,x", "3"), ("2,0", "3"), (" 1 ", "2")] {
        let answer = world.ask("chain").header(HOPS, sent).send().await;
        assert_eq!(
            hops(&world.alpha.requests_with(&answer.id)),
            [expected],
            "{sent:?}"
        );
    }
}

async fn a_count_that_a_client_makes_up_can_only_end_its_own_request(world: &World) {
    let world = own(world);
    for sent in ["3", "4", "4294967295", "1, 7"] {
        let answer = world.ask("chain").header(HOPS, sent).send().await;
        assert_loop(&answer, false);
        assert_eq!((answer.service(), answer.attempts()), (None, String::new()));
        world.no_request(&world.alpha, &answer);
    }
    // In two headers.
    let mut client = Raw::connect(world.envoy.addr()).await;
    client
        .write(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: chain\r\nx-route: alpha\r\n\
             x-ai-hops: 1\r\nx-ai-hops: 3\r\ncontent-length: 2\r\n\r\n{}",
        )
        .await;
    let answer = client.read_until("\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    // What belongs to no Model API is none of the filter's business.
    let ask = world.ask("chain").path("/v1/files").header(HOPS, "7");
    let answer = ask.send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(hops(&world.alpha.requests_with(&answer.id)), ["7"]);
}

async fn where_hops_are_not_counted_the_header_is_one_like_any_other(world: &World) {
    for sent in [None, Some("2"), Some("100")] {
        let ask = world.ask("five").fault("alpha", "503");
        let ask = match sent {
            Some(sent) => ask.header(HOPS, sent),
            None => ask,
        };
        let answer = ask.send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        let expected: Vec<_> = sent.into_iter().collect();
        for service in [&world.alpha, &world.beta] {
            assert_eq!(hops(&service.requests_with(&answer.id)), expected);
        }
    }
}

async fn a_gateway_that_does_not_count_passes_the_count_on(world: &World) {
    let ((_one, here), (_other, there)) = (reserve(), reserve());
    let counting = gateway(world, json!({"max_hops": MAX_HOPS}), here, there);
    let other = gateway(world, json!({}), there, here);
    let answer = counting.ask("loop").send().await;
    assert_loop(&answer, false);
    assert_eq!(counted(&counting, "requests"), MAX_HOPS + 1);
    assert_eq!(counted(&counting, "requests reason=loop"), 1);
    assert_eq!(counted(&other, "requests"), MAX_HOPS);
    assert_eq!(counted(&other, "requests reason=loop"), 0);
}

async fn loops_are_counted(world: &World) {
    let looped = looped(world, json!({}));
    let world = &looped.world;
    world.ask("two-loops").fault("alpha", "503").send().await;
    world.ask("chain").header(HOPS, "3").send().await;
    let counted = ["requests", "requests reason=loop", "requests reason=denied"]
        .map(|name| counted(world, name));
    assert_eq!(counted, [7 + 9, 8 + 1, 0]);
}

fn counted(world: &World, name: &str) -> usize {
    let count = world.envoy.metric(name);
    usize::try_from(count).expect("a small number")
}

/// That the client was told of a loop, in the shape of the API that it called.
#[track_caller]
fn assert_loop(answer: &Answer, is_anthropic: bool) {
    const MESSAGE: &str =
        "the request came back to this gateway too often; a model service leads here again";
    assert_eq!(answer.status, 508, "{answer:?}");
    let expected = match is_anthropic {
        true => json!({"type": "error", "error": {"type": "api_error", "message": MESSAGE}}),
        false => json!({"error": {
            "message": MESSAGE, "type": "server_error", "param": null, "code": "loop_detected",
        }}),
    };
    assert_eq!(answer.json(), expected);
}

/// What these requests say of the hops, in the order of the requests.
fn hops(requests: &[Received]) -> Vec<&str> {
    let headers = requests.iter().flat_map(|request| &request.headers);
    let hops = headers.filter(|(name, _)| name == HOPS);
    hops.map(|(_, value)| std::str::from_utf8(value).expect("text"))
        .collect()
}
