//! One Envoy per dispatch mode, with a listener for each chain of filters, and the services behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::{Mock, Received, Refused};
use crate::support::{Cluster, Envoy, Gateway, wait_until};

/// How fallbacks are dispatched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Callout,
    Router,
}

/// Where a filter stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Before,
    Behind,
}

pub const PLACES: [Place; 2] = [Place::Before, Place::Behind];

/// By this header the tests tell Envoy's route (in callout mode) which cluster the primary is.
pub const ROUTE: &str = "x-route";
/// By this header the tests pick their Model API.
pub const CASE: &str = "x-case";

/// The authority that clients ask for.
pub const HOST: &str = "gw.test";

/// Keys of the services, as they come to them.
pub const ALPHA_KEY: &str = "Bearer key-of-alpha";
pub const BETA_KEY: &str = "Bearer key-of-beta";

/// One listener: filters before ours and behind it, and fields of the virtual host and of its only route.
#[derive(Clone)]
pub struct Chain {
    name: String,
    before: Vec<Value>,
    behind: Vec<Value>,
    host: Value,
    route: Value,
}

impl Chain {
    pub fn new(name: &str) -> Chain {
        Chain {
            name: name.to_owned(),
            before: Vec::new(),
            behind: Vec::new(),
            host: json!({}),
            route: json!({}),
        }
    }

    /// Two chains, `NAME-before` and `NAME-behind`, with the filter there.
    pub fn both(name: &str, filter: &Value) -> [Chain; 2] {
        PLACES.map(|place| Chain::new(&at(name, place)).filter(place, filter.clone()))
    }

    pub fn filter(mut self, place: Place, filter: Value) -> Chain {
        match place {
            Place::Before => self.before.push(filter),
            Place::Behind => self.behind.push(filter),
        }
        self
    }

    /// Adds fields to the virtual host.
    pub fn host(mut self, fields: Value) -> Chain {
        merge(&mut self.host, fields);
        self
    }

    /// Adds fields to the route.
    pub fn route(mut self, fields: Value) -> Chain {
        merge(&mut self.route, fields);
        self
    }

    /// The listener, made from one that has our filter alone.
    fn listener(self, alone: &Value) -> Value {
        let mut listener = alone.clone();
        listener["name"] = self.name.into();
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let filters = manager["http_filters"].as_array().expect("a list");
        let [ours, router] = &filters[..] else {
            panic!("filters: {filters:?}");
        };
        let mut all = self.before;
        all.push(ours.clone());
        all.extend(self.behind);
        all.push(router.clone());
        manager["http_filters"] = all.into();
        let host = &mut manager["route_config"]["virtual_hosts"][0];
        merge(host, self.host);
        merge(&mut host["routes"][0], self.route);
        listener
    }
}

/// The name of a chain with a filter there.
pub fn at(name: &str, place: Place) -> String {
    match place {
        Place::Before => format!("{name}-before"),
        Place::Behind => format!("{name}-behind"),
    }
}

/// A gateway with many listeners, and the services behind it.
pub struct World {
    pub mode: Mode,
    pub envoy: Envoy,
    pub alpha: Mock,
    pub beta: Mock,
    /// Hosts of the cluster `ring`.
    pub ring: Vec<Mock>,
    /// What `ext_authz` asks. It is no model service.
    pub authz: Mock,
    ports: BTreeMap<String, SocketAddr>,
    _refused: Refused,
}

impl World {
    /// The world of a mode, started by the first test that needs it.
    pub fn of(mode: Mode) -> &'static World {
        static CALLOUT: OnceLock<World> = OnceLock::new();
        static ROUTER: OnceLock<World> = OnceLock::new();
        let slot = match mode {
            Mode::Callout => &CALLOUT,
            Mode::Router => &ROUTER,
        };
        slot.get_or_init(|| World::start(mode, shared_chains()))
    }

    /// A world with these chains.
    pub fn start(mode: Mode, chains: Vec<Chain>) -> World {
        let (alpha, beta) = (Mock::start("alpha"), Mock::start("beta"));
        let ring: Vec<Mock> = ["ring-0", "ring-1", "ring-2"].map(Mock::start).into();
        let (authz, refused) = (Mock::start("authz"), Refused::reserve());
        let gateway = Gateway::new()
            .plugin(plugin(mode))
            .environment("ALPHA_KEY", "key-of-alpha")
            .environment("BETA_KEY", "key-of-beta")
            .manager(json!({"access_log": [access_log()]}))
            .buffer_limit(1024 * 1024);
        let gateway = [
            Cluster::new("alpha", alpha.addr()),
            Cluster::new("beta", beta.addr()),
            Cluster::new("refused", refused.addr()),
            Cluster::empty("nowhere"),
            crate::balance::ring("ring", &ring, json!([])),
            crate::balance::ring(
                "ring-by-header",
                &ring,
                json!([{"header": {"header_name": crate::balance::USER}}]),
            ),
        ]
        .into_iter()
        .fold(gateway, Gateway::cluster);
        let gateway = match mode {
            Mode::Callout => gateway.route(json!({"cluster": null, "cluster_header": ROUTE})),
            Mode::Router => gateway.router(),
        };
        let mut bootstrap: Value = serde_json::from_str(&gateway.render()).expect("JSON");
        add_own(&mut bootstrap, &authz, &refused);
        let alone = bootstrap["static_resources"]["listeners"][0].clone();
        let listeners = chains.into_iter().map(|chain| chain.listener(&alone));
        bootstrap["static_resources"]["listeners"] = listeners.collect();
        let envoy = Envoy::start(&bootstrap.to_string());
        World {
            mode,
            ports: ports(&envoy),
            envoy,
            alpha,
            beta,
            ring,
            authz,
            _refused: refused,
        }
    }

    /// A request to a chain, for the Model API of a case.
    pub fn ask(&self, chain: &str, case: &str) -> Ask {
        let addr = self.ports.get(chain);
        let addr = addr.unwrap_or_else(|| panic!("no chain {chain}"));
        Ask::new(*addr, case, primary_cluster(case)).header("host", HOST)
    }

    /// Every service that answers Model API requests.
    pub fn services(&self) -> impl Iterator<Item = &Mock> {
        [&self.alpha, &self.beta].into_iter().chain(&self.ring)
    }

    /// That no model service was asked.
    #[track_caller]
    pub fn no_request(&self, answer: &Answer) {
        for service in self.services() {
            let all = service.requests_with(&answer.id);
            assert!(all.is_empty(), "{}: {answer:?} {all:#?}", service.name());
        }
    }

    /// What a service received for an answer: exactly one request.
    #[track_caller]
    pub fn one_request(&self, service: &Mock, answer: &Answer) -> Received {
        let mut all = service.requests_with(&answer.id);
        assert_eq!(all.len(), 1, "{}: {answer:?} {all:#?}", service.name());
        all.remove(0)
    }

    /// What the access log says of a request.
    pub fn logged(&self, answer: &Answer) -> Logged {
        let start = format!("LOG {} ", answer.id);
        let mut found = None;
        wait_until(&format!("the access log has {}", answer.id), || {
            let log = self.envoy.log();
            let mut lines = log.lines().filter_map(|line| line.strip_prefix(&start));
            found = lines.find_map(|line| Logged::read(line.strip_suffix(" END")?));
            found.is_some()
        });
        found.expect("waited for")
    }
}

/// A line of the access log.
#[derive(Debug)]
pub struct Logged {
    /// Envoy's response code details.
    pub details: String,
    /// What the probe saw of the request.
    pub saw: String,
    /// What the probe saw of answers.
    pub heard: String,
}

impl Logged {
    fn read(line: &str) -> Option<Logged> {
        // Details may hold this character.
        let mut parts = line.rsplitn(3, '|').map(str::to_owned);
        Some(Logged {
            heard: parts.next()?,
            saw: parts.next()?,
            details: parts.next()?,
        })
    }
}

fn access_log() -> Value {
    let line = "LOG %REQ(X-TEST-ID)% %RESPONSE_CODE_DETAILS%|%DYNAMIC_METADATA(probe:saw)%|%DYNAMIC_METADATA(probe:heard)% END\n";
    json!({"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": line}},
    }})
}

/// What no attempt goes to, so that it has no attempt filter: the clusters of filters, and their secrets.
fn add_own(bootstrap: &mut Value, authz: &Mock, refused: &Refused) {
    let of = |name: &str, addr: SocketAddr| {
        json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": addr.ip(), "port_value": addr.port()}}}},
            ]}]},
        })
    };
    bootstrap["node"] = json!({"id": "tests", "cluster": "tests"});
    let resources = &mut bootstrap["static_resources"];
    let clusters = resources["clusters"].as_array_mut().expect("a list");
    clusters.push(of("authz", authz.addr()));
    clusters.push(of("authz-down", refused.addr()));
    let secret = |name: &str| json!({"name": name, "generic_secret": {"secret": {"inline_string": "oauth2-secret"}}});
    resources["secrets"] = json!([secret("token"), secret("hmac")]);
}

fn ports(envoy: &Envoy) -> BTreeMap<String, SocketAddr> {
    let text = envoy.admin("/listeners?format=json");
    let listeners: Value = serde_json::from_str(&text).expect("JSON from the admin page");
    let all = listeners["listener_statuses"].as_array().expect("a list");
    let one = |listener: &Value| {
        let port = &listener["local_address"]["socket_address"]["port_value"];
        let port = u16::try_from(port.as_u64()?).ok()?;
        let name = listener["name"].as_str()?;
        Some((name.to_owned(), ([127, 0, 0, 1], port).into()))
    };
    all.iter().filter_map(one).collect()
}

/// The Model APIs. In all of them the primary is `alpha` unless the name says otherwise, and `beta` comes after it.
///
/// - `classes`: all that can fall back by class does.
/// - `any`: the same by the preset of that name.
/// - `listed`: and the codes of refusals are listed, too.
/// - `backend`: as `listed`, with `only_backend_errors: true`.
fn plugin(mode: Mode) -> Value {
    let service = |name: &str, key: &str| {
        json!({
            "cluster": name,
            "authority": format!("{name}.test"),
            "path": format!("/of-{name}{{path}}"),
            "headers": {"authorization": format!("Bearer ${{{key}}}"), format!("x-key-of-{name}"): format!("${{{key}}}")},
        })
    };
    let case = |name: &str, primary: &str, fallback: &str, fields: Value| {
        let mut api = json!({
            "name": name,
            "match": {"headers": {CASE: name}},
            "primary": {"service": primary},
            "fallback": {
                "services": [{"service": fallback}],
                "on_status": ["4xx", "5xx"],
                "only_backend_errors": false,
            },
        });
        merge(&mut api["fallback"], fields);
        api
    };
    let classes = || json!({});
    let short = match mode {
        Mode::Callout => 300,
        // The last service has this time for its first packet, too.
        Mode::Router => 2000,
    };
    let listed = json!(["401", "403", "407", "4xx", "5xx"]);
    json!({
        "dispatch": match mode { Mode::Callout => "callout", Mode::Router => "router" },
        "max_body_bytes": 256 * 1024,
        "services": {
            "alpha": service("alpha", "ALPHA_KEY"),
            "beta": service("beta", "BETA_KEY"),
            "refused": {"cluster": "refused"},
            "nowhere": {"cluster": "nowhere"},
            "ring": {"cluster": "ring"},
            "ring-by-header": {"cluster": "ring-by-header"},
        },
        "model_apis": [
            case("classes", "alpha", "beta", classes()),
            case("listed", "alpha", "beta", json!({"on_status": listed})),
            case("backend", "alpha", "beta", json!({"on_status": listed, "only_backend_errors": true})),
            case("any", "alpha", "beta", json!({"on_status": "any"})),
            case("refused", "refused", "beta", classes()),
            case("whole", "alpha", "beta", json!({"deliver": "complete"})),
            case("whole-alone", "alpha", "alpha", json!({"deliver": "complete"})),
            case("nowhere", "nowhere", "beta", classes()),
            case("models", "alpha", "beta", json!({"client_models": {"enabled": true}})),
            case("slow", "alpha", "beta", json!({"first_packet_timeout_ms": short})),
            case("errors", "alpha", "beta", json!({
                "on_status": ["5xx"], "on_errors": ["context_length"], "request_timeout_ms": 10_000,
            })),
            case("ring", "refused", "ring", classes()),
            case("ring-by-header", "refused", "ring-by-header", classes()),
            case("to-ring", "ring", "beta", classes()),
        ],
    })
}

/// Where Envoy's route has to send the requests of this case, in callout mode.
fn primary_cluster(case: &str) -> &'static str {
    match case {
        "refused" | "ring" | "ring-by-header" => "refused",
        "nowhere" => "nowhere",
        "to-ring" => "ring",
        _ => "alpha",
    }
}

fn shared_chains() -> Vec<Chain> {
    [
        crate::sight::chains(),
        crate::guards::chains(),
        crate::limits::chains(),
        crate::answers::chains(),
        crate::balance::chains(),
    ]
    .concat()
}

/// Objects are merged field by field, anything else is replaced.
pub fn merge(target: &mut Value, fields: Value) {
    match (target, fields) {
        (Value::Object(target), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, fields) => *target = fields,
    }
}
