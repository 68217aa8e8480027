"""Envoy configurations to compare: the same listener and clusters, with and without the filter.

`callout` and `router` follow the files in envoy/.
"""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MODEL_API = "/v1/chat/completions"
TYPE = "type.googleapis.com/envoy.extensions."
NO_LIMIT = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000, "max_retries": 20000}


def plain(port, clusters, buffer, route=None):
    """No filter: the floor. `clusters` are ports by name; requests go to the first."""
    action = {"cluster": next(iter(clusters)), "timeout": "0s", **(route or {})}
    return bootstrap(
        port, buffer, [], [{"match": {"prefix": "/"}, "route": action}], [cluster(*one) for one in clusters.items()]
    )


def native(port, clusters, buffer, chains):
    """Envoy's own failover. `chains` are the clusters to try in turn, by model (in a header, as it reads no body)."""
    made = [cluster(*one) for one in clusters.items()]
    routes = []
    for model, chain in chains.items():
        # A cluster of clusters tries the next one on each retry.
        members = [f"{model}-{number}" for number, _ in enumerate(chain)]
        made += [cluster(name, clusters[member]) for name, member in zip(members, chain)]
        made.append(
            {
                "name": model,
                "lb_policy": "CLUSTER_PROVIDED",
                # The retries are counted on the aggregate; the default of 3 at a time would end nearly all under load.
                "circuit_breakers": {"thresholds": [NO_LIMIT]},
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {"@type": TYPE + "clusters.aggregate.v3.ClusterConfig", "clusters": members},
                },
            }
        )
        routes.append(
            {
                "match": {"prefix": "/", "headers": [{"name": "x-model", "string_match": {"exact": model}}]},
                "route": {
                    "cluster": model,
                    "timeout": "0s",
                    "retry_policy": {
                        "retry_on": "5xx,reset,connect-failure",
                        "num_retries": len(chain) - 1,
                        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
                        "retry_priority": {
                            "name": "envoy.retry_priorities.previous_priorities",
                            "typed_config": {
                                "@type": TYPE + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                                "update_frequency": 1,
                            },
                        },
                    },
                },
            }
        )
    # Without the header: the first.
    routes.append({**routes[0], "match": {"prefix": "/"}})
    return bootstrap(port, buffer, [], routes, made)


def callout(port, clusters, buffer, plugin):
    """`dispatch: callout`. `plugin`: the configuration of the filter, without `dispatch`."""
    plugin = {"dispatch": "callout", **plugin}
    route = {"route": {"cluster": next(iter(clusters)), "timeout": "0s"}}
    routes = [
        {"match": {"path": MODEL_API}, **route, **turned_on("ai_fallback")},
        {"match": {"prefix": "/"}, **route},
    ]
    return bootstrap(port, buffer, [ours("ai_fallback", plugin)], routes, [cluster(*one) for one in clusters.items()])


def router(port, clusters, buffer, plugin):
    """`dispatch: router`."""
    plugin = {"dispatch": "router", **plugin}
    attempt = ours("ai_fallback_attempt", plugin)
    first = next(iter(clusters))
    routes = [
        {
            "match": {"path": MODEL_API},
            **turned_on("ai_fallback", "ai_fallback_attempt"),
            "request_body_buffer_limit": buffer,
            "route": {
                "inline_cluster_specifier_plugin": matcher(clusters),
                "timeout": "0s",
                "retry_policy": {
                    "retry_on": "retriable-headers,connect-failure,refused-stream,reset,reset-before-request",
                    "retriable_headers": [{"name": "x-ai-fallback-retry", "present_match": True}],
                    "num_retries": 0,
                    "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
                    "refresh_cluster_on_retry": True,
                },
            },
        },
        {"match": {"prefix": "/"}, "route": {"cluster": first, "timeout": "0s"}},
    ]
    made = [cluster(*one, filters=[attempt]) for one in clusters.items()]
    return bootstrap(port, buffer, [ours("ai_fallback", plugin)], routes, made)


def matcher(clusters):
    def action(name):
        specifier = {"@type": TYPE + "router.cluster_specifiers.matcher.v3.ClusterAction", "cluster": name}
        return {"action": {"name": name, "typed_config": specifier}}

    return {
        "extension": {
            "name": "envoy.router.cluster_specifier_plugin.matcher",
            "typed_config": {
                "@type": TYPE + "router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier",
                "cluster_matcher": {
                    "matcher_tree": {
                        "input": {
                            "name": "ai_fallback_cluster",
                            "typed_config": {
                                "@type": TYPE + "matching.common_inputs.network.v3.FilterStateInput",
                                "key": "wasm.ai_fallback.cluster",
                            },
                        },
                        "exact_match_map": {"map": {name: action(name) for name in clusters}},
                    },
                    "on_no_match": action(next(iter(clusters))),
                },
            },
        }
    }


def ours(role, plugin):
    """A role of the filter: off, but for the routes that turn it on."""
    return {
        "name": role,
        "disabled": True,
        "typed_config": {
            "@type": TYPE + "filters.http.wasm.v3.Wasm",
            "config": {
                "name": role,
                "root_id": role,
                "allow_on_headers_stop_iteration": True,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": role,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": str(PROJECT / "build/ai_fallback.wasm")}},
                },
                "configuration": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": plugin},
            },
        },
    }


def turned_on(*roles):
    on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    return {"typed_per_filter_config": {role: on for role in roles}}


def cluster(name, port, filters=()):
    codec = {
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": TYPE + "filters.http.upstream_codec.v3.UpstreamCodec"},
    }
    options = {
        "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {}},
        **({"http_filters": [*filters, codec]} if filters else {}),
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [NO_LIMIT]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def bootstrap(port, buffer, filters, routes, clusters):
    last = {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}
    manager = {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "http_filters": [*filters, last],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "gateway",
        "address": address(port),
        "per_connection_buffer_limit_bytes": buffer,
        "filter_chains": [{"filters": [network]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
