//! What the demo runs on: mock model services, and a real Envoy with the filter in front of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::mock::{Mock, Refused, Spec};
use crate::support::{Cluster, Envoy, Gateway};

/// The model services.
const SERVICES: [&str; 5] = ["openai", "qwen", "local", "anthropic", "bedrock"];

/// A request with this header goes to a port where nothing listens, in place of openai's.
pub const UNPLUG: &str = "x-unplug-openai";
/// The cluster with that port.
const UNPLUGGED: &str = "unplugged";

pub const FIRST_PACKET_TIMEOUT_MS: u64 = 500;
pub const REQUEST_TIMEOUT_MS: u64 = 1500;

/// The filter's dispatch mode.
#[derive(Clone, Copy, PartialEq)]
pub enum Dispatch {
    Callout,
    Router,
}

impl Dispatch {
    pub fn name(self) -> &'static str {
        match self {
            Dispatch::Callout => "callout",
            Dispatch::Router => "router",
        }
    }
}

/// Where everything listens, on 127.0.0.1.
#[derive(Clone, Copy)]
pub enum Ports {
    /// On any free port.
    Any,
    /// The gateway on this port, Envoy's admin page on the next, and then the services, in order.
    From(u16),
}

impl Ports {
    fn addr(self, nth: u16) -> SocketAddr {
        let port = match self {
            Ports::Any => 0,
            Ports::From(first) => first + nth,
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

/// Everything that runs. It ends when this is dropped.
pub struct Stack {
    pub envoy: Envoy,
    pub dispatch: Dispatch,
    pub services: Vec<Mock>,
    /// Envoy's admin page; port 0 stands for any.
    pub admin: SocketAddr,
    _unplugged: Refused,
}

impl Stack {
    /// Starts all. Errors: a port is taken. Panics with Envoy's log where Envoy does not come up.
    pub fn start(dispatch: Dispatch, ports: Ports) -> io::Result<Stack> {
        let listener = free(ports.addr(0))?;
        let admin = free(ports.addr(1))?;
        let services = SERVICES.iter().zip(2..).map(|(name, nth)| {
            let addr = ports.addr(nth);
            Mock::start_on(addr, name, Spec::default(), None).map_err(|error| taken(addr, &error))
        });
        let services = services.collect::<io::Result<Vec<Mock>>>()?;
        let addr = ports.addr(7);
        let unplugged = Refused::on(addr).map_err(|error| taken(addr, &error))?;

        let clusters = services.iter().map(|mock| (mock.name(), mock.addr()));
        let gateway = clusters
            .chain([(UNPLUGGED, unplugged.addr())])
            .fold(new_gateway(dispatch), |gateway, (name, addr)| {
                gateway.cluster(Cluster::new(name, addr))
            });
        Ok(Stack {
            envoy: Envoy::start(&bootstrap(dispatch, &gateway, listener, admin)),
            dispatch,
            services,
            admin,
            _unplugged: unplugged,
        })
    }

    /// The version of the Envoy that runs, such as `1.40.0`.
    pub fn envoy_version(&self) -> String {
        let info: Value =
            serde_json::from_str(&self.envoy.admin("/server_info")).unwrap_or_default();
        // COMMIT/VERSION/…
        let version = info["version"]
            .as_str()
            .and_then(|text| text.split('/').nth(1));
        version.unwrap_or("of unknown version").to_owned()
    }
}

fn new_gateway(dispatch: Dispatch) -> Gateway {
    let gateway = Gateway::new()
        .plugin(plugin(dispatch))
        .filter_after(rate_limit())
        // How soon a client sees that its answer has broken off. Envoy's default is 1 s.
        .manager(json!({"delayed_close_timeout": "0.05s"}));
    match dispatch {
        Dispatch::Callout => gateway,
        Dispatch::Router => gateway.router(),
    }
}

/// Routes with this action, fitted to the request.
fn routes(dispatch: Dispatch, action: &Value) -> Value {
    let route = |matching: Value, cluster: &str| {
        let mut action = action.clone();
        match dispatch {
            // The route says where a request goes first.
            Dispatch::Callout => action["cluster"] = cluster.into(),
            // The filter says it, and the route's matcher finds the cluster.
            Dispatch::Router if cluster == UNPLUGGED => unplug(&mut action),
            Dispatch::Router => {}
        }
        json!({"match": matching, "route": action})
    };
    let unplug = json!({"prefix": "/", "headers": [{"name": UNPLUG, "present_match": true}]});
    json!([
        route(unplug, UNPLUGGED),
        route(json!({"prefix": "/v1/messages"}), "anthropic"),
        route(json!({"prefix": "/"}), "openai"),
    ])
}

/// Makes the route's matcher take the cluster where nothing listens for openai's.
fn unplug(action: &mut Value) {
    let specifier = &mut action["inline_cluster_specifier_plugin"]["extension"]["typed_config"];
    let clusters = &mut specifier["cluster_matcher"]["matcher_tree"]["exact_match_map"]["map"];
    clusters["openai"] = clusters[UNPLUGGED].clone();
}

/// The filter's configuration.
fn plugin(dispatch: Dispatch) -> Value {
    let mut services: Value = SERVICES
        .iter()
        .map(|&name| (name.to_owned(), json!({"cluster": name})))
        .collect();
    services["openai"]["models"] = json!({"gpt-4o": "gpt-4o-2024-11-20"});
    let then = json!([
        {"service": "local", "model": "llama-3", "priority": 10},
        {"service": "qwen", "model": "qwen-plus", "priority": 20},
    ]);
    let chat = "/v1/chat/completions";
    let choices = json!({"paths": [chat], "headers": {"x-demo": "choices"}});
    let mut choices = model_api("chat-choices", choices, "openai", &then, false);
    choices["primary"]["retries"] = 1.into();
    let fallback = choices["fallback"].as_object_mut();
    fallback.expect("an object").extend([
        ("client_models".to_owned(), json!({})),
        ("client_controls".to_owned(), json!(["off", "deliver"])),
        ("except_errors".to_owned(), json!(["content_policy"])),
        (
            "error_services".to_owned(),
            json!({"context_length": [{"service": "local", "model": "llama-long"}]}),
        ),
    ]);
    json!({
        "dispatch": dispatch.name(),
        "telemetry": {"token_usage": true},
        "services": services,
        // A filter before ours that says who calls would set the header.
        "access": {
            "identity_header": "x-consumer",
            "default_policy": {},
            "policies": [{"identities": ["guest"], "deny": {"services": ["anthropic"]}}],
        },
        // Only Retry-After: services fail often here.
        "cooldown": {"failures": 1000},
        // The first that matches counts.
        "model_apis": [
            choices,
            model_api("chat-strict", json!({"paths": [chat], "headers": {"x-strict": "yes"}}), "openai", &then, true),
            model_api("chat", json!({"paths": [chat]}), "openai", &then, false),
            model_api("messages", json!({"paths": ["/v1/messages"]}), "anthropic", &json!([{"service": "bedrock"}]), false),
            model_api("embeddings", json!({"paths": ["/v1/embeddings"]}), "openai", &json!([{"service": "local"}]), false),
        ],
    })
}

fn model_api(
    name: &str,
    matching: Value,
    primary: &str,
    then: &Value,
    only_backend_errors: bool,
) -> Value {
    json!({
        "name": name,
        "match": matching,
        "primary": {"service": primary},
        "fallback": {
            "enabled": true,
            "services": then,
            "only_backend_errors": only_backend_errors,
            "first_packet_timeout_ms": FIRST_PACKET_TIMEOUT_MS,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
        },
    })
}

/// One request a day for the tenant `noisy`, as good as no limit for the others.
fn rate_limit() -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({"name": "envoy.filters.http.local_ratelimit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "gateway",
        "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
        "filter_enabled": always,
        "filter_enforced": always,
        "descriptors": [{
            "entries": [{"key": "tenant", "value": "noisy"}],
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "86400s"},
        }],
    }})
}

/// The bootstrap, with the demo's routes, and with listener and admin page at these addresses.
fn bootstrap(dispatch: Dispatch, gateway: &Gateway, at: SocketAddr, admin: SocketAddr) -> String {
    let mut bootstrap: Value = serde_json::from_str(&gateway.render()).expect("it renders JSON");
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin.port().into();
    let listener = &mut bootstrap["static_resources"]["listeners"][0];
    listener["address"]["socket_address"]["port_value"] = at.port().into();

    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let host = &mut manager["route_config"]["virtual_hosts"][0];
    host["routes"] = routes(dispatch, &host["routes"][0]["route"]);
    host["rate_limits"] = json!([{"actions": [
        {"request_headers": {"header_name": "x-tenant", "descriptor_key": "tenant"}},
    ]}]);
    bootstrap.to_string()
}

/// Envoy says at length what is wrong with a port that is taken; this says it shortly.
fn free(addr: SocketAddr) -> io::Result<SocketAddr> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(addr),
        Err(error) => Err(taken(addr, &error)),
    }
}

fn taken(addr: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "cannot listen on {addr}: {error} (is another demo still up?)"
    ))
}
