//! HTTP/1.1, HTTP/2 and TLS on both sides of the gateway, and trailers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Version;
use serde_json::{Map, Value, json};

use crate::client::Answer;
use crate::mock::{Mock, TestCa};
use crate::support::{Cluster, Gateway};
use crate::world::{World, api, start_edited};

/// `one` and `three` speak HTTP/1.1, `two` and `four` HTTP/2.
fn mixed() -> World {
    let apis = json!([
        api("up", json!({"service": "one"}), &["two"]),
        api("down", json!({"service": "two"}), &["three"]),
        api("same", json!({"service": "two"}), &["four"]),
    ]);
    World::with_clusters(apis, json!({}), &[], |name, cluster| match name {
        "two" | "four" => cluster.http2(),
        _ => cluster,
    })
}

#[tokio::test]
async fn services_and_clients_of_either_version() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = mixed();
    for (case, primary, fallback, version) in [
        ("up", "one", "two", Version::HTTP_2),
        ("down", "two", "three", Version::HTTP_11),
        ("same", "two", "four", Version::HTTP_2),
    ] {
        for http2 in [false, true] {
            for (fault, outcome) in [
                ("503", "503"),
                ("reset", "reset"),
                ("silence", "first_packet_timeout"),
            ] {
                let ask = world
                    .ask(case)
                    .fault(primary, fault)
                    .fault(fallback, "gate=1");
                let ask = if http2 { ask.http2() } else { ask };
                let id = ask.id.clone();
                let mut live = ask.open().await;
                live.next().await;
                world.service(fallback).open_gate(&id);
                let answer = live.rest().await;
                answer.assert_from(fallback, &format!("{primary};{outcome}, {fallback};200"));
                assert_eq!(world.one_request(fallback, &answer).version, version);
            }
        }
    }
}

#[tokio::test]
async fn a_reset_after_the_first_packet_breaks_a_stream_of_http2_too() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = mixed();
    for case in ["up", "down", "same"] {
        let ask = world
            .ask(case)
            .http2()
            .header("x-mock", "chunks=4,gate=2,reset-after=2");
        let id = ask.id.clone();
        let mut live = ask.open().await;
        live.next().await;
        world.services.iter().for_each(|mock| mock.open_gate(&id));
        let answer = live.broken().await;
        assert!(!answer.text.contains("[DONE]"), "{answer:?}");
    }
}

/// The certificate that a service shows is checked by its own name, not by that of the one before.
#[tokio::test]
async fn tls_follows_the_authority_of_each_service() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let secure = TlsWorld::new("two.test", |_| {});
    let answer = secure.ask().await;
    answer.assert_from("two", "one;503, two;200");
    assert_eq!(secure.0.one_request("two", &answer).authority, "two.test");
    // A certificate for another name is refused: a failure like any other.
    let secure = TlsWorld::new("not-two.test", |_| {});
    let answer = secure.ask().await;
    answer.assert_from("three", "one;503, two;reset, three;200");
    assert!(secure.0.received("two", &answer).is_empty());
}

/// Why `envoy/router.yaml` says `auto_host_sni`: with `auto_sni`, the authority of the client is the name for all attempts.
/// Envoy's router takes it before the attempt filters fit the request.
#[tokio::test]
async fn trap_auto_sni_takes_the_name_that_the_client_has_asked() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let secure = TlsWorld::new("two.test", |cluster| {
        let tls = &mut cluster["transport_socket"]["typed_config"];
        (tls["auto_host_sni"], tls["auto_sni_san_validation"]) = (false.into(), false.into());
        cluster.pointer_mut(HTTP_OPTIONS).expect("options")["upstream_http_protocol_options"] =
            json!({"auto_sni": true, "auto_san_validation": true});
    });
    for (asked, attempts) in [
        ("gateway.test", "one;reset, two;reset, three;reset"),
        ("one.test", "one;503, two;reset, three;reset"),
        ("two.test", "one;reset, two;200"),
        ("three.test", "one;reset, two;reset, three;200"),
    ] {
        let ask = secure.0.ask("alone").header("host", asked);
        let answer = ask.fault("one", "503").send().await;
        assert_eq!(answer.attempts(), attempts, "{asked}");
    }
}

const HTTP_OPTIONS: &str =
    "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// `one`, `two` (HTTP/2) and `three` speak TLS, and are tried in this order. Their authorities are `one.test` and so on.
struct TlsWorld(World);

impl TlsWorld {
    fn new(name_of_two: &str, edit_cluster: impl Fn(&mut Value)) -> TlsWorld {
        let services = ["one", "two", "three"];
        let authority = TestCa::new();
        let certified = ["one.test", name_of_two, "three.test"];
        let mocks = services.into_iter().zip(certified);
        let mocks = mocks.map(|(name, host)| Mock::start_tls(name, authority.server(&[host])));
        let with_authority = |name| {
            let authority = format!("{name}.test");
            (
                String::from(name),
                json!({"cluster": name, "authority": authority}),
            )
        };
        let with_authorities: Map<String, Value> =
            services.into_iter().map(with_authority).collect();
        let file = trusted(&authority);
        let secure = |name: &str, cluster: Cluster| match name {
            "one" | "three" => cluster.tls(&file),
            "two" => cluster.tls(&file).http2(),
            _ => cluster,
        };
        let apis = json!([api("alone", json!({"service": "one"}), &["two", "three"])]);
        let start =
            |gateway: Gateway| start_edited(&gateway, |envoy| edit_secure(envoy, edit_cluster));
        TlsWorld(World::around(
            mocks.collect(),
            apis,
            with_authorities.into(),
            secure,
            start,
        ))
    }

    async fn ask(&self) -> Answer {
        self.0.ask("alone").fault("one", "503").send().await
    }
}

fn edit_secure(envoy: &mut Value, edit: impl Fn(&mut Value)) {
    let clusters = envoy["static_resources"]["clusters"]
        .as_array_mut()
        .expect("clusters");
    clusters
        .iter_mut()
        .filter(|cluster| cluster["transport_socket"].is_object())
        .for_each(edit);
}

fn trusted(authority: &TestCa) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = format!("router-{}-{number}.pem", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(&path, authority.pem()).expect("a file");
    path
}

#[tokio::test]
async fn trailers_of_a_fallback_reach_the_client() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = mixed();
    let body = r#"{"model": "gpt-4o", "stream": true}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-case: up\r\ncontent-type: application/json\r\nte: trailers\r\n\
         x-mock-one: 503\r\nx-mock-two: trailers\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let addr = world.envoy.addr();
    let answer = tokio::task::spawn_blocking(move || exchange(addr, &request))
        .await
        .expect("no panic");
    assert!(answer.contains("x-ai-fallback-service: two"), "{answer}");
    let (_, end) = answer.split_once("[DONE]").expect("a whole stream");
    assert!(end.contains("x-mock-trailer: two"), "{answer}");
}

/// What a stream says may end without a blank line; the trailers are its end then.
#[tokio::test]
async fn a_first_event_that_is_ended_by_trailers_is_judged() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    for (event, expected) in [
        ("data: {}\n", "one;200"),
        ("data: {}", "one;200"),
        ("data: {\"error\": {}}", "one;stream_error, two;200"),
        (": nothing\n", "one;empty, two;200"),
    ] {
        let one = bare_service(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{event}\r\n0\r\nx-the: end\r\n\r\n",
            event.len()
        ));
        let apis = json!([api("alone", json!({"service": "one"}), &["two"])]);
        let services = json!({"one": {"cluster": "bare"}});
        let world = World::with(apis, services, |gateway| {
            gateway.cluster(Cluster::new("bare", one))
        });
        let answer = world.ask("alone").send().await;
        assert_eq!(answer.attempts(), expected, "{event:?}: {answer:?}");
    }
}

/// Says the same to everyone.
fn bare_service(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    addr
}

/// All that comes back until the connection closes.
fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
