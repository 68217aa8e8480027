//! One gateway per dispatch mode, and the services behind it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::{Mock, Received, Refused, TestCa};
use crate::support::{Cluster, Envoy, Gateway};

/// How fallbacks are dispatched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Callout,
    Router,
}

/// A short timeout in milliseconds, for tests about what happens when it has passed. No test passes only if something
/// else is faster, except in router mode: there the last service has this time for its first byte, and so it is longer.
pub type Short = u64;

/// By this header the tests tell Envoy's route (in callout mode) which cluster the primary is.
pub const ROUTE: &str = "x-route";
/// By this header the tests pick their Model API.
pub const CASE: &str = "x-case";
/// Larger bodies are not read by the filter.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// A gateway with the filter, and the services behind it.
pub struct World {
    pub mode: Mode,
    pub envoy: Envoy,
    pub alpha: Mock,
    pub beta: Mock,
    pub gamma: Mock,
    /// Speaks TLS.
    pub secure: Mock,
    configuration: Value,
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
        slot.get_or_init(|| World::start(mode))
    }

    /// A world of one's own: one Model API for all requests, and a change to the gateway.
    pub fn alone(mode: Mode, model_api: Value, change: impl FnOnce(Gateway) -> Gateway) -> World {
        World::with(mode, json!([model_api]), json!({}), change)
    }

    /// A world with these Model APIs, and more at the top level of the configuration; `services` adds to those that
    /// all worlds have.
    pub fn configured(mode: Mode, model_apis: Vec<Value>, more: Value) -> World {
        World::with(mode, model_apis.into(), more, |gateway| gateway)
    }

    /// A request to the Model API of this case.
    pub fn ask(&self, case: &str) -> Ask {
        Ask::new(self.envoy.addr(), case, &self.primary_cluster(case))
    }

    /// What a service received for an answer: exactly one request.
    pub fn one_request(&self, service: &Mock, answer: &Answer) -> Received {
        let all = service.requests_with(&answer.id);
        assert_eq!(
            all.len(),
            1,
            "requests to {}: {answer:?} {all:#?}",
            service.name()
        );
        all.into_iter().next().expect("one")
    }

    /// That a service was not asked.
    pub fn no_request(&self, service: &Mock, answer: &Answer) {
        let all = service.requests_with(&answer.id);
        assert!(
            all.is_empty(),
            "requests to {}: {answer:?} {all:#?}",
            service.name()
        );
    }

    fn start(mode: Mode) -> World {
        let short = match mode {
            Mode::Callout => 300,
            Mode::Router => 1000,
        };
        World::with(mode, model_apis(short), json!({}), |gateway| gateway)
    }

    /// As [`World::configured`], and with a change to the gateway.
    pub fn with(
        mode: Mode,
        model_apis: Value,
        more: Value,
        change: impl FnOnce(Gateway) -> Gateway,
    ) -> World {
        let (trusted, other) = (TestCa::new(), TestCa::new());
        let alpha = Mock::start("alpha");
        let beta = Mock::start("beta");
        let gamma = Mock::start("gamma");
        let secure = Mock::start_tls("secure", trusted.server(&["secure.test"]));
        let refused = Refused::reserve();
        let mut configuration = json!({
            "dispatch": match mode { Mode::Callout => "callout", Mode::Router => "router" },
            "max_body_bytes": MAX_BODY_BYTES,
            "services": services(),
            "model_apis": model_apis,
        });
        merge(&mut configuration, more);
        let gateway = Gateway::new()
            .plugin(configuration.clone())
            .environment("TEAM", "red")
            .environment("ALPHA_KEY", "key-of-alpha")
            .environment("BETA_KEY", "key-of-beta")
            // Above max_body_bytes, so that a body that is too large for the filter is not for Envoy.
            .buffer_limit(1024 * 1024);
        let gateway = [
            Cluster::new("alpha", alpha.addr()),
            Cluster::new("beta", beta.addr()),
            Cluster::new("gamma", gamma.addr()),
            Cluster::new("alpha-h2", alpha.addr()).http2(),
            Cluster::new("beta-h2", beta.addr()).http2(),
            Cluster::new("refused", refused.addr()),
            Cluster::empty("nowhere"),
            Cluster::dns("unfound", "no-such-host.invalid", 80),
            tls_cluster("secure", secure.addr(), &trusted),
            tls_cluster("distrusted", secure.addr(), &other),
        ]
        .into_iter()
        .fold(gateway, Gateway::cluster);
        let gateway = filters_after()
            .into_iter()
            .fold(gateway, Gateway::filter_after);
        let gateway = change(dispatch(mode, gateway));
        World {
            mode,
            envoy: gateway.start(),
            alpha,
            beta,
            gamma,
            secure,
            configuration,
            _refused: refused,
        }
    }

    /// Where Envoy's route has to send the requests of this case.
    fn primary_cluster(&self, case: &str) -> String {
        let apis = self.configuration["model_apis"].as_array().expect("a list");
        let of_case = |api: &&Value| api["match"]["headers"][CASE] == case;
        let api = apis.iter().find(of_case).or(apis.first());
        let service = api.and_then(|api| api["primary"]["service"].as_str());
        let service = &self.configuration["services"][service.unwrap_or("alpha")];
        service["cluster"].as_str().expect("a cluster").to_owned()
    }
}

/// Objects are merged field by field, anything else is replaced.
fn merge(target: &mut Value, fields: Value) {
    match (target, fields) {
        (Value::Object(target), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, fields) => *target = fields,
    }
}

/// What differs between the modes, besides the configuration of the filter.
fn dispatch(mode: Mode, gateway: Gateway) -> Gateway {
    match mode {
        // The route decides where a primary goes.
        Mode::Callout => gateway.route(json!({"cluster": null, "cluster_header": ROUTE})),
        // The filter says where each attempt goes; without a named primary, the first cluster.
        Mode::Router => gateway.router(),
    }
}

/// A Model API for the requests of one case; the known paths, unless `fields` has its own `match`.
pub fn case(name: &str, fields: Value) -> Value {
    let mut api = json!({"name": name, "match": {"headers": {CASE: name}}});
    let Value::Object(fields) = fields else {
        panic!("fields of a Model API: {fields}");
    };
    for (field, value) in fields {
        match (api.get_mut(&field).and_then(Value::as_object_mut), value) {
            (Some(present), Value::Object(more)) => present.extend(more),
            (_, value) => api[field] = value,
        }
    }
    api
}

fn services() -> Value {
    let mut services = json!({
        "alpha": {"cluster": "alpha"},
        "beta": {"cluster": "beta"},
        "gamma": {"cluster": "gamma"},
        "alpha-h2": {"cluster": "alpha-h2"},
        "beta-h2": {"cluster": "beta-h2"},
        "refused": {"cluster": "refused"},
        "nowhere": {"cluster": "nowhere"},
        "unknown": {"cluster": "no-such-cluster"},
        "unfound": {"cluster": "unfound"},
        "secure": {"cluster": "secure", "authority": "secure.test"},
        "distrusted": {"cluster": "distrusted", "authority": "secure.test"},
    });
    let more = [crate::fitting::services(), crate::models::services()];
    for more in more {
        let Value::Object(more) = more else {
            panic!("services: {more}");
        };
        services.as_object_mut().expect("an object").extend(more);
    }
    services
}

fn model_apis(short: Short) -> Value {
    let all = [
        crate::answers::model_apis(),
        crate::deadlines::model_apis(short),
        crate::deliver::model_apis(short),
        crate::error_kinds::model_apis(short),
        crate::retries::model_apis(short),
        crate::fitting::model_apis(),
        crate::gateway_answers::model_apis(),
        crate::limits::model_apis(),
        crate::matching::model_apis(),
        crate::models::model_apis(),
        crate::no_answer::model_apis(short),
        crate::order::model_apis(),
        crate::outcomes::model_apis(short),
        crate::protocols::model_apis(),
        crate::streams::model_apis(short),
        crate::timeouts::model_apis(short),
    ];
    all.into_iter().flatten().collect()
}

/// Filters behind ours that answer requests themselves, each when a header asks for it.
fn filters_after() -> Vec<Value> {
    vec![
        crate::gateway_answers::access_control(),
        crate::gateway_answers::rate_limit(),
        crate::gateway_answers::any_status(),
    ]
}

fn tls_cluster(name: &str, addr: SocketAddr, authority: &TestCa) -> Cluster {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // The port is this service's own: worlds that start at the same time do not share the file.
    let file = folder.join(format!("e2e-{}-{name}.pem", addr.port()));
    std::fs::write(&file, authority.pem()).expect("a file");
    Cluster::new(name, addr).tls(&file)
}
