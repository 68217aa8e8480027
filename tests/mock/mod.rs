//! Mock model services: real HTTP servers that answer well, or fail in a chosen way,
//! and record what they received to the byte. `README.md` beside this file has the fault grammar.
//!
//! Services run on a runtime of their own, so that one service can be shared by many tests,
//! each with its own `#[tokio::test]` runtime.

// Each test crate, and the program, includes this module and uses only a part of it.
#![allow(dead_code, unused_imports)]

mod answers;
mod asked;
mod body;
mod date;
mod exchange;
mod record;
mod server;
mod spec;
mod sse;
mod tls;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

pub use record::{Ended, Received};
pub use spec::Spec;
pub use tls::{ServerTls, TestCa};

use exchange::Service;

/// How long [`Mock::wait_for`] waits before it panics.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// A running mock model service. Clones are handles on the same service; it stops, and its
/// connections close, when the last one is dropped.
#[derive(Clone)]
pub struct Mock {
    service: Arc<Service>,
    addr: SocketAddr,
    running: Arc<Running>,
}

impl Mock {
    /// Starts a service that answers well, on a free port of 127.0.0.1, without TLS.
    pub fn start(name: &str) -> Mock {
        Mock::start_with(name, "")
    }

    /// Starts a service whose default fault is `spec`, on a free port of 127.0.0.1.
    /// Panics where `spec` is wrong.
    pub fn start_with(name: &str, spec: &str) -> Mock {
        let spec = spec.parse().expect("a good fault spec");
        Mock::start_on(any_port(), name, spec, None).expect("a free port")
    }

    /// Starts a service that speaks TLS (HTTP/1.1 and h2 by ALPN), on a free port of 127.0.0.1.
    pub fn start_tls(name: &str, tls: ServerTls) -> Mock {
        Mock::start_on(any_port(), name, Spec::default(), Some(tls)).expect("a free port")
    }

    /// Starts a service on an address. Errors: the address cannot be bound.
    pub fn start_on(
        addr: SocketAddr,
        name: &str,
        default_spec: Spec,
        tls: Option<ServerTls>,
    ) -> io::Result<Mock> {
        // Sockets register with the runtime that they are made in.
        let _guard = runtime().enter();
        let socket = new_socket(addr)?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(4096)?;
        let addr = listener.local_addr()?;
        let service = Arc::new(Service::new(name, default_spec));
        let task = runtime().spawn(server::run(listener, tls, service.clone()));
        let running = Arc::new(Running(task.abort_handle()));
        Ok(Mock {
            service,
            addr,
            running,
        })
    }

    /// Where the service listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.service.name
    }

    /// `http://ADDR` and a path that starts with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Every request so far, in order of arrival, also those that are still arriving.
    pub fn requests(&self) -> Vec<Received> {
        self.service.log.all()
    }

    /// The requests whose `x-test-id` header is `id`.
    pub fn requests_with(&self, id: &str) -> Vec<Received> {
        self.service.log.with_id(id)
    }

    /// Exchanges that have not ended: a request or an answer is still under way.
    pub fn open_exchanges(&self) -> usize {
        self.service.log.open()
    }

    /// Waits until `condition` holds for all requests, and returns them.
    /// Panics with what was received after [`WAIT_LIMIT`].
    pub async fn wait_for(&self, condition: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        self.wait(|| self.requests(), condition).await
    }

    /// As [`Mock::wait_for`], for the requests whose `x-test-id` header is `id`.
    pub async fn wait_for_id(
        &self,
        id: &str,
        condition: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        self.wait(|| self.requests_with(id), condition).await
    }

    /// Lets one exchange with this `x-test-id` pass a `gate` or `hold`: the one that waits there,
    /// or the next to come. Requests without the header have the id `""`.
    pub fn open_gate(&self, id: &str) {
        self.service.gates.open(id);
    }

    async fn wait(
        &self,
        requests: impl Fn() -> Vec<Received>,
        condition: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        let mut changes = self.service.log.changes();
        let met = async {
            loop {
                let now = requests();
                if condition(&now) {
                    return now;
                }
                changes.changed().await.expect("the log lives on");
            }
        };
        within(met)
            .await
            .unwrap_or_else(|| panic!("{}: not met by {:#?}", self.name(), requests()))
    }
}

/// A port of 127.0.0.1 that refuses connections and that nobody else can take while this lives.
pub struct Refused {
    addr: SocketAddr,
    // Bound, but not listening: the kernel refuses every connection.
    _socket: TcpSocket,
}

impl Refused {
    /// Reserves a free port.
    pub fn reserve() -> Refused {
        Refused::on(any_port()).expect("a free port")
    }

    /// Reserves this address. Errors: it cannot be bound.
    pub fn on(addr: SocketAddr) -> io::Result<Refused> {
        let socket = new_socket(addr)?;
        socket.bind(addr)?;
        let addr = socket.local_addr()?;
        Ok(Refused {
            addr,
            _socket: socket,
        })
    }

    /// The address that refuses.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(WAIT_LIMIT, work).await.ok()
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn new_socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("mock-services")
            .enable_all()
            .build()
            .expect("a runtime")
    })
}
