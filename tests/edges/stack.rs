//! The gateway under test, with its two services, and how to see that it is unharmed.

use crate::client::{Answer, Request, ask};
use crate::mock::Mock;
use crate::support::{Cluster, Envoy, Gateway, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A way to dispatch: what `in_each_mode!` runs tests with.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    Callout,
    Router,
}

/// A gateway whose Model API requests go to `primary`, and to `backup` when it fails. `change` may change the filter's
/// configuration.
pub fn gateway(
    mode: Mode,
    [primary, backup]: [Cluster; 2],
    change: impl FnOnce(&mut Value),
) -> Gateway {
    let mut plugin = plugin();
    change(&mut plugin);
    let gateway = Gateway::new().cluster(primary).cluster(backup);
    match mode {
        Mode::Callout => gateway.plugin(plugin),
        Mode::Router => {
            plugin["dispatch"] = "router".into();
            gateway.plugin(plugin).router()
        }
    }
}

/// The clusters of two mock services, by their names.
pub fn clusters(primary: &Mock, backup: &Mock) -> [Cluster; 2] {
    [primary, backup].map(|mock| Cluster::new(mock.name(), mock.addr()))
}

/// The filter's configuration, where a test changes nothing.
pub fn plugin() -> Value {
    json!({
        "services": {"primary": {"cluster": "primary"}, "backup": {"cluster": "backup"}},
        "model_apis": [{
            "name": "all",
            "primary": {"service": "primary"},
            "fallback": {"services": [{"service": "backup"}]},
        }],
    })
}

/// Counts the VMs that were made, among them those that replace one that has failed.
const VMS: &str = "wasm.envoy.wasm.runtime.v8.created";

/// A running gateway and its services.
#[derive(Clone)]
pub struct Stack {
    pub envoy: Envoy,
    pub primary: Mock,
    pub backup: Mock,
    addr: SocketAddr,
    vms: u64,
}

impl Stack {
    /// The one that tests share which do not read its counters.
    pub fn shared(mode: Mode) -> Stack {
        static STACKS: [OnceLock<Stack>; 2] = [OnceLock::new(), OnceLock::new()];
        let slot = &STACKS[mode as usize];
        slot.get_or_init(|| Stack::start(mode, |_| {})).clone()
    }

    /// One of its own, with a change to the filter's configuration.
    pub fn start(mode: Mode, change: impl FnOnce(&mut Value)) -> Stack {
        let (primary, backup) = (Mock::start("primary"), Mock::start("backup"));
        let gateway = gateway(mode, clusters(&primary, &backup), change);
        Stack::of(&gateway, primary, backup)
    }

    /// Starts this gateway.
    pub fn of(gateway: &Gateway, primary: Mock, backup: Mock) -> Stack {
        let envoy = gateway.start();
        Stack {
            addr: envoy.addr(),
            vms: envoy.counter(VMS),
            envoy,
            primary,
            backup,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends these bytes, and returns the answer.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        ask(self.addr, bytes).await
    }

    /// One of the filter's own counters or gauges.
    pub fn count(&self, what: &str) -> u64 {
        self.envoy.metric(what)
    }

    /// The next 100 requests are fine on both workers, and nothing has failed in the filter.
    pub async fn assert_unharmed(&self) {
        self.on_both_workers(|number| self.assert_fine(number))
            .await;
        self.assert_no_failure();
    }

    /// Makes 100 requests, of which each worker gets some.
    pub async fn on_both_workers<F: Future>(&self, request: impl Fn(usize) -> F) {
        let before = self.connections_by_worker();
        join_all((0..100).map(request)).await;
        let after = self.connections_by_worker();
        assert_eq!(after.len(), 2, "two workers: {after:?}");
        for (worker, count) in after {
            assert!(count > before[&worker], "{worker} took no request");
        }
    }

    /// No VM was replaced, and no callback and no host call of the filter has failed.
    pub fn assert_no_failure(&self) {
        assert_eq!(self.envoy.counter(VMS), self.vms, "a VM was replaced");
        let log = self.envoy.log();
        for failure in ["panicked", "proxy_on_", "host_call_failed", "critical"] {
            let line = log.lines().find(|line| line.contains(failure));
            assert_eq!(line, None, "in Envoy's log");
        }
    }

    /// Waits until no stream, callout, deadline or exchange is left.
    pub async fn settled(&self) {
        for gauge in ["active_requests", "active_calls", "deadlines"] {
            let nothing_left = || self.count(gauge) == 0;
            eventually(&format!("{gauge} is 0"), nothing_left).await;
        }
        for mock in [&self.primary, &self.backup] {
            mock.wait_for(|_| mock.open_exchanges() == 0).await;
        }
    }

    /// A request that is good, or (each fourth) falls back, on a connection of its own.
    async fn assert_fine(&self, number: usize) {
        let model = new_id("fine");
        let mut request = Request::chat(&model);
        let service = match number % 4 {
            0 => "backup",
            _ => "primary",
        };
        if service == "backup" {
            request = request.header("x-mock-primary", "503");
        }
        let answer = self.ask(request.body(chat(&model))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.service(), Some(service), "{answer:?}");
        assert_eq!(answer.model(), Some(model));
    }

    fn connections_by_worker(&self) -> BTreeMap<String, u64> {
        let stats = self.envoy.stats().into_iter();
        stats
            .filter(|(name, _)| {
                name.starts_with("listener.127.0.0.1")
                    && name.contains(".worker_")
                    && name.ends_with(".downstream_cx_total")
            })
            .collect()
    }
}

/// A chat body that asks for this model.
pub fn chat(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).to_string()
}

/// The same, answered as a stream.
pub fn chat_stream(model: &str) -> String {
    json!({"model": model, "stream": true, "messages": []}).to_string()
}

/// A name that nobody else has in this process.
pub fn new_id(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
