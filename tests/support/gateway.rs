//! Envoy configurations for tests, written shortly.

use super::envoy::Envoy;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A gateway: one listener on a free port, the filter (where configured), filters before and after it, one route, and clusters.
/// By default the route goes to the first cluster, without a timeout.
pub struct Gateway {
    plugin: Option<Value>,
    environment: Map<String, Value>,
    filters_before: Vec<Value>,
    filters_after: Vec<Value>,
    clusters: Vec<Value>,
    route: Value,
    listener: Value,
    manager: Value,
    runtime: Value,
    router: bool,
}

impl Gateway {
    /// The name of the listener.
    pub const LISTENER: &str = "gateway";

    pub fn new() -> Gateway {
        Gateway {
            plugin: None,
            environment: Map::new(),
            filters_before: Vec::new(),
            filters_after: Vec::new(),
            clusters: Vec::new(),
            route: json!({"timeout": "0s"}),
            listener: json!({}),
            manager: json!({}),
            runtime: json!({}),
            router: false,
        }
    }

    /// Adds what `dispatch: router` needs, as `envoy/router.yaml` has it: the attempt filter in every cluster, and a route
    /// whose cluster is chosen anew for each attempt. The plugin configuration must say `dispatch: router` itself.
    pub fn router(mut self) -> Gateway {
        self.router = true;
        self
    }

    /// Puts the filter in, its configuration as plain YAML in Envoy's (a `Struct`).
    pub fn plugin(mut self, configuration: Value) -> Gateway {
        self.plugin = Some(
            json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": configuration}),
        );
        self
    }

    /// Puts the filter in, its configuration as JSON text (a `StringValue`).
    pub fn plugin_text(mut self, configuration: &str) -> Gateway {
        self.plugin = Some(
            json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration}),
        );
        self
    }

    /// Sets a variable in the environment of the VM.
    pub fn environment(mut self, name: &str, value: &str) -> Gateway {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    pub fn cluster(mut self, cluster: Cluster) -> Gateway {
        self.clusters.push(cluster.0);
        self
    }

    /// Adds an HTTP filter before ours.
    pub fn filter_before(mut self, filter: Value) -> Gateway {
        self.filters_before.push(filter);
        self
    }

    /// Adds an HTTP filter between ours and the router.
    pub fn filter_after(mut self, filter: Value) -> Gateway {
        self.filters_after.push(filter);
        self
    }

    /// Adds fields to the route's action, such as `{"cluster": "openai"}`.
    pub fn route(mut self, fields: Value) -> Gateway {
        merge(&mut self.route, fields);
        self
    }

    /// Adds fields to the HTTP connection manager.
    pub fn manager(mut self, fields: Value) -> Gateway {
        merge(&mut self.manager, fields);
        self
    }

    /// Sets keys of Envoy's runtime.
    pub fn runtime(mut self, fields: Value) -> Gateway {
        merge(&mut self.runtime, fields);
        self
    }

    /// Listens here, in place of a free port.
    pub fn listen_on(mut self, addr: SocketAddr) -> Gateway {
        self.listener["address"] = address(addr);
        self
    }

    /// Sets `per_connection_buffer_limit_bytes` of the listener.
    pub fn buffer_limit(mut self, bytes: u32) -> Gateway {
        self.listener["per_connection_buffer_limit_bytes"] = bytes.into();
        self
    }

    /// Starts an Envoy with this configuration.
    pub fn start(&self) -> Envoy {
        Envoy::start(&self.render())
    }

    /// Lets Envoy check this configuration.
    pub fn validate(&self) -> Result<(), String> {
        Envoy::validate(&self.render())
    }

    /// The whole bootstrap, as JSON.
    pub fn render(&self) -> String {
        let bootstrap = json!({
            "admin": {"address": address(([127, 0, 0, 1], 0).into())},
            "stats_config": stats_config(),
            "layered_runtime": {"layers": [{"name": "tests", "static_layer": self.runtime}]},
            "static_resources": {"listeners": [self.render_listener()], "clusters": self.render_clusters()},
        });
        bootstrap.to_string()
    }

    fn render_listener(&self) -> Value {
        let mut listener = json!({
            "name": Gateway::LISTENER,
            "address": address(([127, 0, 0, 1], 0).into()),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": self.render_manager(),
            }]}],
        });
        merge(&mut listener, self.listener.clone());
        listener
    }

    fn render_manager(&self) -> Value {
        let mut manager = json!({
            "@type": type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "gateway",
            "http_protocol_options": {"enable_trailers": true},
            "http_filters": self.render_filters(),
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": self.render_route()}],
            }]},
        });
        merge(&mut manager, self.manager.clone());
        manager
    }

    fn render_filters(&self) -> Vec<Value> {
        let router = json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": type_url("filters.http.router.v3.Router")},
        });
        let ours = self
            .plugin
            .as_ref()
            .map(|plugin| self.render_ours("ai_fallback", plugin));
        let before = self.filters_before.iter().cloned();
        before
            .chain(ours)
            .chain(self.filters_after.iter().cloned())
            .chain([router])
            .collect()
    }

    fn render_ours(&self, role: &str, plugin: &Value) -> Value {
        json!({"name": role, "typed_config": {
            "@type": type_url("filters.http.wasm.v3.Wasm"),
            "config": {
                "name": role,
                "root_id": role,
                "allow_on_headers_stop_iteration": true,
                "failure_policy": "FAIL_RELOAD",
                "configuration": plugin,
                "vm_config": {
                    "vm_id": role,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": wasm_file()}},
                    "environment_variables": {"key_values": self.environment},
                },
            },
        }})
    }

    fn render_route(&self) -> Value {
        let mut route = self.route.clone();
        if self.router {
            merge(&mut route, self.render_router_action());
            return route;
        }
        if route.get("cluster").is_none() {
            let first = self.clusters.first().expect("a gateway has a cluster");
            route["cluster"] = first["name"].clone();
        }
        route
    }
}

impl Gateway {
    fn render_clusters(&self) -> Vec<Value> {
        let Some(plugin) = self.plugin.as_ref().filter(|_| self.router) else {
            return self.clusters.clone();
        };
        let attempt = self.render_ours("ai_fallback_attempt", plugin);
        let with_attempt = |cluster: &Value| {
            Cluster(cluster.clone())
                .named_by_host(&plugin["value"]["services"])
                .first_http_filter(attempt.clone())
                .with(json!({
                    "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
                }))
        };
        self.clusters
            .iter()
            .map(|cluster| with_attempt(cluster).0)
            .collect()
    }

    fn render_router_action(&self) -> Value {
        let action = |cluster: &Value| {
            json!({"action": {"name": "cluster", "typed_config": {
                "@type": type_url("router.cluster_specifiers.matcher.v3.ClusterAction"),
                "cluster": cluster,
            }}})
        };
        let services = self
            .plugin
            .as_ref()
            .map(|plugin| &plugin["value"]["services"]);
        let services = services.and_then(Value::as_object).into_iter().flatten();
        let names = || self.clusters.iter().map(|cluster| &cluster["name"]);
        let map: Map<String, Value> = names()
            .chain(services.map(|(_, service)| &service["cluster"]))
            .filter_map(|name| Some((name.as_str()?.to_owned(), action(name))))
            .collect();
        let first = names().next().expect("a gateway has a cluster");
        json!({
            "inline_cluster_specifier_plugin": {"extension": {"name": "matcher", "typed_config": {
                "@type": type_url("router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier"),
                "cluster_matcher": {
                    "matcher_tree": {
                        "input": {"name": "cluster", "typed_config": {
                            "@type": type_url("matching.common_inputs.network.v3.FilterStateInput"),
                            "key": "wasm.ai_fallback.cluster",
                        }},
                        "exact_match_map": {"map": map},
                    },
                    "on_no_match": action(first),
                },
            }}},
            "retry_policy": {
                "retry_on": "retriable-headers,connect-failure,refused-stream,reset,reset-before-request",
                "retriable_headers": [{"name": "x-ai-fallback-retry", "present_match": true}],
                "num_retries": 0,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
                "refresh_cluster_on_retry": true,
            },
        })
    }
}

/// An Envoy cluster.
pub struct Cluster(Value);

impl Cluster {
    /// One host, spoken to in HTTP/1.1 without TLS.
    pub fn new(name: &str, host: SocketAddr) -> Cluster {
        Cluster::with_hosts(name, "STATIC", &[address(host)])
    }

    /// No host at all.
    pub fn empty(name: &str) -> Cluster {
        Cluster::with_hosts(name, "STATIC", &[])
    }

    /// A host by name, looked up in DNS.
    pub fn dns(name: &str, host: &str, port: u16) -> Cluster {
        let host = json!({"socket_address": {"address": host, "port_value": port}});
        Cluster::with_hosts(name, "STRICT_DNS", &[host])
    }

    /// Speaks HTTP/2.
    pub fn http2(mut self) -> Cluster {
        self.http_options()["explicit_http_config"] = json!({"http2_protocol_options": {}});
        self
    }

    /// Speaks TLS. The host's certificate must be signed by this authority (a PEM file) and be for the request's
    /// `:authority`, which is the SNI too.
    pub fn tls(mut self, authority: &Path) -> Cluster {
        self.http_options()["upstream_http_protocol_options"] =
            json!({"auto_sni": true, "auto_san_validation": true});
        self.with(json!({"transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("transport_sockets.tls.v3.UpstreamTlsContext"),
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": authority}}},
            },
        }}))
    }

    /// Puts filters into the cluster, before its codec.
    pub fn http_filters(mut self, filters: &[Value]) -> Cluster {
        let codec = json!({
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": type_url("filters.http.upstream_codec.v3.UpstreamCodec")},
        });
        self.http_options()["http_filters"] = filters.iter().cloned().chain([codec]).collect();
        self
    }

    /// With `auto_sni`, the name for TLS is the authority of the first attempt, for all of them (Envoy 1.39 and 1.40). So it
    /// is the host's here, as in `envoy/router.yaml`: the authority of the service in this cluster.
    fn named_by_host(mut self, services: &Value) -> Cluster {
        let mut services = services.as_object().into_iter().flat_map(Map::values);
        let service = services.find(|service| service["cluster"] == self.0["name"]);
        let authority = service
            .map(|service| service["authority"].clone())
            .unwrap_or_default();
        if authority.is_null() || self.0.get("transport_socket").is_none() {
            return self;
        }
        self.0["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] =
            authority;
        merge(
            &mut self.0["transport_socket"]["typed_config"],
            json!({"auto_host_sni": true, "auto_sni_san_validation": true}),
        );
        if let Some(options) = self.http_options().as_object_mut() {
            options.remove("upstream_http_protocol_options");
        }
        self
    }

    fn first_http_filter(mut self, filter: Value) -> Cluster {
        match self.http_options()["http_filters"].as_array_mut() {
            Some(filters) => {
                filters.insert(0, filter);
                self
            }
            None => self.http_filters(&[filter]),
        }
    }

    /// Adds fields, such as `outlier_detection`.
    pub fn with(mut self, fields: Value) -> Cluster {
        merge(&mut self.0, fields);
        self
    }

    fn with_hosts(name: &str, discovery: &str, hosts: &[Value]) -> Cluster {
        let hosts: Vec<Value> = hosts
            .iter()
            .map(|host| json!({"endpoint": {"address": host}}))
            .collect();
        Cluster(json!({
            "name": name,
            "type": discovery,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
            "typed_extension_protocol_options": {HTTP_OPTIONS: {
                "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
            }},
        }))
    }

    fn http_options(&mut self) -> &mut Value {
        &mut self.0["typed_extension_protocol_options"][HTTP_OPTIONS]
    }
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The filter, as `make build` leaves it.
pub fn wasm_file() -> PathBuf {
    std::env::var_os("AI_FALLBACK_WASM").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("build/ai_fallback.wasm"),
        PathBuf::from,
    )
}

fn type_url(extension: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{extension}")
}

fn address(addr: SocketAddr) -> Value {
    json!({"socket_address": {"address": addr.ip(), "port_value": addr.port()}})
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

/// What makes labels of the filter's metrics, as the examples have it.
fn stats_config() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/callout.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    let mut example: Value = serde_saphyr::from_str(&text).expect("YAML");
    example["stats_config"].take()
}
