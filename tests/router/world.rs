//! The gateway that most tests share, and the model services behind it.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::mock::{Mock, Received, Refused};
use crate::support::{Cluster, Envoy, Gateway};

/// By this header the tests pick their Model API.
pub const CASE: &str = "x-case";

/// Timeout for a first packet. The last service that a plan names has this time, too.
pub const FIRST_PACKET_MS: u32 = 1500;

/// Where the action of the only route is in a bootstrap.
pub const ROUTE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";

/// A gateway with the filter in both roles, and the services behind it.
pub struct World {
    pub envoy: Envoy,
    pub services: Vec<Mock>,
    // Keeps its port closed.
    _refused: Refused,
}

const SERVICES: [&str; 5] = ["one", "two", "three", "four", "five"];

impl World {
    /// The world that most tests share. `None` on an Envoy without router mode.
    pub fn shared() -> Option<&'static World> {
        static WORLD: OnceLock<World> = OnceLock::new();
        Envoy::has_router_mode()
            .then(|| WORLD.get_or_init(|| World::with(shared_apis(), json!({}), |gateway| gateway)))
    }

    /// A world with one Model API, for all requests: `primary` and `fallback` services by name.
    pub fn alone(
        primary: &str,
        fallback: &[&str],
        change: impl FnOnce(Gateway) -> Gateway,
    ) -> World {
        World::with(alone(primary, fallback), json!({}), change)
    }

    /// As [`World::alone`], with the whole bootstrap changed.
    pub fn edited(primary: &str, fallback: &[&str], edit: impl FnOnce(&mut Value)) -> World {
        World::build(
            alone(primary, fallback),
            json!({}),
            |_, cluster| cluster,
            |gateway| start_edited(&gateway, edit),
        )
    }

    /// A world with these Model APIs. `services` is merged into the service list.
    pub fn with(
        model_apis: Value,
        services: Value,
        change: impl FnOnce(Gateway) -> Gateway,
    ) -> World {
        World::build(
            model_apis,
            services,
            |_, cluster| cluster,
            |gateway| change(gateway).start(),
        )
    }

    /// As [`World::with`], with each cluster changed, by its name, and these secrets in Envoy, each `key of NAME`.
    pub fn with_clusters(
        model_apis: Value,
        services: Value,
        secrets: &[&str],
        change: impl Fn(&str, Cluster) -> Cluster,
    ) -> World {
        let secret = |name: &&str| json!({"name": name, "generic_secret": {"secret": {"inline_string": format!("key of {name}")}}});
        let secrets: Value = secrets.iter().map(secret).collect();
        World::build(model_apis, services, change, |gateway| {
            start_edited(&gateway, |envoy| {
                envoy["static_resources"]["secrets"] = secrets
            })
        })
    }

    pub fn build(
        model_apis: Value,
        services: Value,
        change: impl Fn(&str, Cluster) -> Cluster,
        start: impl FnOnce(Gateway) -> Envoy,
    ) -> World {
        World::around(
            SERVICES.map(Mock::start).into(),
            model_apis,
            services,
            change,
            start,
        )
    }

    /// As [`World::build`], with services of one's own under the usual names.
    pub fn around(
        mocks: Vec<Mock>,
        model_apis: Value,
        services: Value,
        change: impl Fn(&str, Cluster) -> Cluster,
        start: impl FnOnce(Gateway) -> Envoy,
    ) -> World {
        let refused = Refused::reserve();
        let clusters = mocks
            .iter()
            .map(|mock| Cluster::new(mock.name(), mock.addr()));
        let clusters = SERVICES.into_iter().zip(clusters).chain([
            ("refused", Cluster::new("refused", refused.addr())),
            ("nowhere", Cluster::empty("nowhere")),
        ]);
        let gateway = Gateway::new().plugin(plugin(model_apis, services)).router();
        let gateway = clusters
            .map(|(name, cluster)| change(name, cluster))
            .fold(gateway, Gateway::cluster);
        World {
            envoy: start(gateway),
            services: mocks,
            _refused: refused,
        }
    }

    /// A request to the Model API of this case.
    pub fn ask(&self, case: &str) -> Ask {
        Ask::new(self.envoy.addr(), case)
    }

    pub fn service(&self, name: &str) -> &Mock {
        let found = self.services.iter().find(|mock| mock.name() == name);
        found.unwrap_or_else(|| panic!("no service {name}"))
    }

    /// What a service received for an answer.
    pub fn received(&self, service: &str, answer: &Answer) -> Vec<Received> {
        self.service(service).requests_with(&answer.id)
    }

    /// Exactly one request.
    #[track_caller]
    pub fn one_request(&self, service: &str, answer: &Answer) -> Received {
        let mut all = self.received(service, answer);
        assert_eq!(all.len(), 1, "requests to {service}: {answer:?} {all:#?}");
        all.remove(0)
    }
}

/// Starts Envoy with the whole bootstrap changed.
pub fn start_edited(gateway: &Gateway, edit: impl FnOnce(&mut Value)) -> Envoy {
    let mut bootstrap = serde_json::from_str(&gateway.render()).expect("JSON");
    edit(&mut bootstrap);
    Envoy::start(&bootstrap.to_string())
}

/// The filter's configuration: every mock service by its name, `refused`, `nowhere`, and `services`.
pub fn plugin(model_apis: Value, services: Value) -> Value {
    let names = SERVICES.into_iter().chain(["refused", "nowhere"]);
    let mut all: serde_json::Map<String, Value> = names
        .map(|name| (name.to_owned(), json!({"cluster": name})))
        .collect();
    if let Value::Object(more) = services {
        all.extend(more);
    }
    json!({"dispatch": "router", "services": all, "model_apis": model_apis})
}

fn alone(primary: &str, fallback: &[&str]) -> Value {
    json!([api("alone", json!({"service": primary}), fallback)])
}

/// A Model API for the requests of one case, with these fallback services in this order.
pub fn api(name: &str, primary: Value, fallback: &[&str]) -> Value {
    let services: Vec<Value> = fallback
        .iter()
        .map(|name| json!({"service": name}))
        .collect();
    api_with(name, primary, json!({"services": services}))
}

/// As [`api`], with these fields in `fallback`.
pub fn api_with(name: &str, primary: Value, fields: Value) -> Value {
    let mut fallback = json!({"enabled": true, "first_packet_timeout_ms": FIRST_PACKET_MS, "request_timeout_ms": 20000});
    if let (Value::Object(fallback), Value::Object(fields)) = (&mut fallback, fields) {
        fallback.extend(fields);
    }
    let matching = if name == "alone" {
        json!({})
    } else {
        json!({"headers": {CASE: name}})
    };
    json!({"name": name, "match": matching, "primary": primary, "fallback": fallback})
}

fn shared_apis() -> Value {
    let apis = [
        crate::live::model_apis(),
        crate::chains::model_apis(),
        crate::timeouts::model_apis(),
        crate::routes::model_apis(),
    ];
    apis.into_iter().flatten().collect()
}
