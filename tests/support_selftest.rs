//! The harness itself, on a real Envoy without the filter: what the other tests stand on must hold.

#[path = "mock/mod.rs"]
mod mock;
mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mock::Refused;
use serde_json::json;
use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use support::{Cluster, Envoy, Gateway, eventually, wait_until};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls};

#[tokio::test]
async fn a_request_goes_through_to_the_first_cluster() {
    let envoy = shared();
    let answer = fetch(&envoy, "/over/there").await;
    assert_eq!(answer, (200, "HTTP/1.1 /over/there".to_owned()));
}

#[tokio::test]
async fn stats_count_what_was_sent() {
    let envoy = shared();
    let before = envoy.counter("cluster.plain.upstream_rq_200");
    fetch(&envoy, "/").await;
    eventually("the request is counted", || {
        envoy.counter("cluster.plain.upstream_rq_200") > before
    })
    .await;
    assert_eq!(envoy.counter("no.such.counter"), 0);
}

#[tokio::test]
async fn clusters_can_speak_http2_and_tls() {
    let certificate = rcgen::generate_simple_self_signed(["model.test".to_owned()]).unwrap();
    let folder = folder_for("tls");
    let authority = folder.join("authority.pem");
    std::fs::write(&authority, certificate.cert.pem()).unwrap();
    let tls = serve(Some(tls_acceptor(&certificate)));
    let envoy = Gateway::new()
        .cluster(Cluster::new("tls", tls).tls(&authority).http2())
        .route(json!({"host_rewrite_literal": "model.test"}))
        .start();
    assert_eq!(fetch(&envoy, "/").await, (200, "HTTP/2.0 /".to_owned()));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let certificate = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
    let folder = folder_for("other");
    let authority = folder.join("authority.pem");
    std::fs::write(&authority, certificate.cert.pem()).unwrap();
    let tls = serve(Some(tls_acceptor(&certificate)));
    let envoy = Gateway::new()
        .cluster(Cluster::new("tls", tls).tls(&authority))
        .route(json!({"host_rewrite_literal": "model.test"}))
        .start();
    assert_eq!(fetch(&envoy, "/").await.0, 503);
}

#[tokio::test]
async fn refused_ports_and_clusters_that_lead_nowhere_give_503() {
    let refused = Refused::reserve();
    for (cluster, why) in [
        (
            Cluster::new("refused", refused.addr()),
            "connection failure",
        ),
        (Cluster::empty("empty"), "no healthy upstream"),
        (
            Cluster::dns("unknown", "no-such-host.invalid", 80),
            "no healthy upstream",
        ),
    ] {
        let envoy = Gateway::new().cluster(cluster).start();
        let (status, body) = fetch(&envoy, "/").await;
        assert_eq!(status, 503);
        assert!(body.to_lowercase().contains(why), "{body}");
    }
}

#[tokio::test]
async fn filters_after_ours_and_the_options_of_route_and_listener_take_effect() {
    let envoy = Gateway::new()
        .cluster(Cluster::new("first", Refused::reserve().addr()))
        .cluster(Cluster::new("second", plain_service()))
        .route(json!({"cluster": "second"}))
        .manager(json!({"server_name": "under-test"}))
        .buffer_limit(4096)
        .filter_after(
            json!({"name": "envoy.filters.http.buffer", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                "max_request_bytes": 4096,
            }}),
        )
        .start();
    let send = |bytes: usize| client().post(envoy.url("/")).body("x".repeat(bytes)).send();
    let small = send(10).await.unwrap();
    assert_eq!(small.status(), 200);
    assert_eq!(small.headers()["server"], "under-test");
    assert_eq!(send(10_000).await.unwrap().status(), 413);
}

#[test]
fn validate_tells_what_envoy_thinks() {
    let good = Gateway::new().cluster(Cluster::new("plain", plain_service()));
    assert_eq!(good.validate(), Ok(()));
    let bad = good.route(json!({"no_such_field": 1}));
    assert!(bad.validate().unwrap_err().contains("no_such_field"));
}

#[test]
fn yaml_is_taken_too() {
    let yaml = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}";
    assert_eq!(Envoy::validate(yaml), Ok(()));
}

#[test]
fn an_envoy_that_does_not_start_panics_with_its_log() {
    let panic = std::panic::catch_unwind(|| Envoy::start(r#"{"no_such_field": 1}"#)).err();
    let message = panic.unwrap().downcast::<String>().unwrap();
    assert!(message.contains("no_such_field"), "{message}");
}

#[test]
fn the_log_can_be_read() {
    let envoy = shared();
    envoy.admin("/no-such-page");
    assert!(!envoy.log_contains("no such text"));
    // Envoy warns of this at each start.
    wait_until("the warning is logged", || {
        envoy.log_contains("downstream connections")
    });
}

#[test]
fn envoy_ends_with_its_last_handle() {
    let envoy = plain_gateway().start();
    let (pid, addr, second) = (envoy.pid(), envoy.addr(), envoy.clone());
    drop(envoy);
    assert!(TcpStream::connect(addr).is_ok());
    drop(second);
    assert!(!is_running(pid));
}

/// Starts itself anew as a process that leaves an Envoy in a static and dies.
#[test]
fn envoy_ends_with_a_test_process_that_was_killed() {
    const ROLE: &str = "SELFTEST_LEAVES_AN_ENVOY";
    if std::env::var_os(ROLE).is_some() {
        println!("\npid={}", shared().pid());
        std::io::stdout().flush().unwrap();
        let me = std::process::id().to_string();
        Command::new("kill").args(["-9", &me]).status().unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("envoy_ends_with_a_test_process_that_was_killed")
        .env(ROLE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let pid = output.lines().find_map(|line| line.strip_prefix("pid="));
    let pid = pid.unwrap_or_else(|| panic!("no pid in {output}"));
    wait_until("Envoy has ended", || !is_running(pid.parse().unwrap()));
}

fn shared() -> Envoy {
    static ENVOY: OnceLock<Envoy> = OnceLock::new();
    Envoy::shared(&ENVOY, plain_gateway)
}

fn plain_gateway() -> Gateway {
    Gateway::new().cluster(Cluster::new("plain", plain_service()))
}

fn plain_service() -> SocketAddr {
    static SERVICE: OnceLock<SocketAddr> = OnceLock::new();
    *SERVICE.get_or_init(|| serve(None))
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn fetch(envoy: &Envoy, path: &str) -> (u16, String) {
    let answer = client().get(envoy.url(path)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn is_running(pid: u32) -> bool {
    // A process that has ended but was not yet waited for has no memory map.
    std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| !maps.is_empty())
}

fn folder_for(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("selftest-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A service that answers with the protocol and path it was asked with.
fn serve(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    // On a thread of its own, since it serves more than one test.
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(accept(listener, tls))
    });
    addr
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let tls = tls.clone();
        tokio::spawn(async move {
            let Some(tls) = tls else {
                return answer(stream).await;
            };
            if let Ok(stream) = tls.accept(stream).await {
                answer(stream).await;
            }
        });
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let respond = service_fn(|request: Request<hyper::body::Incoming>| async move {
        let text = format!("{:?} {}", request.version(), request.uri().path());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

fn tls_acceptor(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
