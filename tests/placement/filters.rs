//! Filters of Envoy, configured shortly.

use serde_json::{Value, json};

/// A token that [`jwt_authn`] takes: HS256, without an end.
pub const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3QiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6ImNsaWVudCJ9.8B5quEaxjIZ2fM8xWDBTfXjkcMqiEacvhWdrwVJuLyo";
/// `client:secret`, as [`basic_auth`] takes it.
pub const BASIC: &str = "Basic Y2xpZW50OnNlY3JldA==";
/// What [`api_key_auth`] takes, in `x-api-key` or in the query as `key`.
pub const API_KEY: &str = "key-of-the-client-4711";
/// The key of a client that [`api_key_auth`] knows and does not allow.
pub const OTHER_API_KEY: &str = "key-of-another-client-4712";
/// What [`rbac`] allows and [`oauth2`] lets pass, in `authorization`.
pub const BEARER: &str = "Bearer token-of-the-client-4713";

pub fn filter(name: &str, type_url: &str, fields: Value) -> Value {
    let mut config =
        json!({"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{type_url}")});
    crate::world::merge(&mut config, fields);
    json!({"name": name, "typed_config": config})
}

pub fn jwt_authn() -> Value {
    let keys = json!({"keys": [{
        "kty": "oct", "alg": "HS256", "kid": "test", "k": "YSBrZXkgZm9yIHRlc3RzLCBhbmQgZm9yIG5vdGhpbmcgZWxzZQ",
    }]});
    filter(
        "envoy.filters.http.jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"tests": {"issuer": "tests", "forward": true, "local_jwks": {"inline_string": keys.to_string()}}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "tests"}}],
        }),
    )
}

pub fn api_key_auth() -> Value {
    filter(
        "envoy.filters.http.api_key_auth",
        "api_key_auth.v3.ApiKeyAuth",
        json!({
            "credentials": [
                {"key": API_KEY, "client": "client"},
                {"key": OTHER_API_KEY, "client": "other"},
            ],
            "key_sources": [{"header": "x-api-key"}, {"query": "key"}],
        }),
    )
}

/// [`api_key_auth`] that nobody has told the keys, or where to look for them.
pub fn unfinished_api_key_auth(fields: Value) -> Value {
    filter(
        "envoy.filters.http.api_key_auth",
        "api_key_auth.v3.ApiKeyAuth",
        fields,
    )
}

/// For a virtual host: only one client of [`api_key_auth`] is allowed.
pub fn one_allowed_client() -> Value {
    json!({"typed_per_filter_config": {"envoy.filters.http.api_key_auth": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute",
        "allowed_clients": ["client"],
    }}})
}

pub fn basic_auth(header: &str) -> Value {
    let users = "client:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    filter(
        "envoy.filters.http.basic_auth",
        "basic_auth.v3.BasicAuth",
        json!({"users": {"inline_string": users}, "authentication_header": header}),
    )
}

/// Allows requests with [`BEARER`] in this header.
pub fn rbac(header: &str) -> Value {
    filter(
        "envoy.filters.http.rbac",
        "rbac.v3.RBAC",
        json!({"rules": {"action": "ALLOW", "policies": {"known": {
            "permissions": [{"any": true}],
            "principals": [{"header": {"name": header, "string_match": {"exact": BEARER}}}],
        }}}}),
    )
}

/// Asks the cluster `authz`, or one that is down, and passes on what tests need.
pub fn ext_authz(cluster: &str) -> Value {
    filter(
        "envoy.filters.http.ext_authz",
        "ext_authz.v3.ExtAuthz",
        json!({
            "http_service": {"server_uri": {"uri": "http://authz.test", "cluster": cluster, "timeout": "5s"}},
            "allowed_headers": {"patterns": [
                {"exact": "authorization"}, {"exact": "x-test-id"}, {"exact": "x-mock-authz"},
            ]},
            "status_on_error": {"code": "ServiceUnavailable"},
        }),
    )
}

/// Lets requests with [`BEARER`] in this header pass, answers those with `x-no-redirect` with `401`, and redirects the others.
pub fn oauth2(header: &str) -> Value {
    oauth2_with(header, json!({"name": "token"}))
}

/// [`oauth2`] whose secret does not come: its server is down.
pub fn oauth2_without_secret(header: &str) -> Value {
    let source = json!({
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0.1s",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "authz-down"}}],
        },
    });
    oauth2_with(header, json!({"name": "late", "sds_config": source}))
}

fn oauth2_with(header: &str, secret: Value) -> Value {
    filter(
        "envoy.filters.http.oauth2",
        "oauth2.v3.OAuth2",
        json!({"config": {
            "token_endpoint": {"cluster": "authz", "uri": "http://authz.test/token", "timeout": "3s"},
            "authorization_endpoint": "http://authz.test/authorize",
            "redirect_uri": "http://gw.test/callback",
            "redirect_path_matcher": {"path": {"prefix": "/callback"}},
            "signout_path": {"path": {"exact": "/signout"}},
            "credentials": {
                "client_id": "tests",
                "token_secret": secret,
                "hmac_secret": {"name": "hmac"},
            },
            "pass_through_matcher": [{"name": header, "string_match": {"exact": BEARER}}],
            "deny_redirect_matcher": [{"name": "x-no-redirect", "present_match": true}],
        }}),
    )
}

/// Allows requests that a page of the same host sends.
pub fn csrf() -> Value {
    filter(
        "envoy.filters.http.csrf",
        "csrf.v3.CsrfPolicy",
        json!({"filter_enabled": {"default_value": {"numerator": 100}}}),
    )
}

/// Allows one request for each value of `x-limited`, ever, of those that are listed here.
pub fn local_ratelimit(values: &[&str]) -> Value {
    let bucket = json!({"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "86400s"});
    let one = |value: &&str| json!({"entries": [{"key": "limited", "value": value}], "token_bucket": bucket});
    let always = json!({"default_value": {"numerator": 100}});
    filter(
        "envoy.filters.http.local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        json!({
            "stat_prefix": "limit",
            "filter_enabled": always,
            "filter_enforced": always,
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "rate_limits": [{"actions": [
                {"request_headers": {"header_name": "x-limited", "descriptor_key": "limited"}},
            ]}],
            "descriptors": values.iter().map(one).collect::<Vec<_>>(),
        }),
    )
}

pub fn lua(code: &str) -> Value {
    filter(
        "envoy.filters.http.lua",
        "lua.v3.Lua",
        json!({"default_source_code": {"inline_string": code}}),
    )
}

pub fn buffer(bytes: u32) -> Value {
    filter(
        "envoy.filters.http.buffer",
        "buffer.v3.Buffer",
        json!({"max_request_bytes": bytes}),
    )
}

pub fn cors() -> Value {
    filter("envoy.filters.http.cors", "cors.v3.Cors", json!({}))
}

/// For a virtual host: what [`cors`] allows.
pub fn cors_policy(origin: &str) -> Value {
    json!({"typed_per_filter_config": {"envoy.filters.http.cors": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin}],
        "expose_headers": "x-ai-fallback-service",
    }}})
}

pub fn compressor() -> Value {
    filter(
        "envoy.filters.http.compressor",
        "compressor.v3.Compressor",
        json!({
            "response_direction_config": {"common_config": {"min_content_length": 30}},
            "compressor_library": {"name": "gzip", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
            }},
        }),
    )
}

pub fn decompressor() -> Value {
    filter(
        "envoy.filters.http.decompressor",
        "decompressor.v3.Decompressor",
        json!({
            "request_direction_config": {"common_config": {"enabled": {"default_value": false, "runtime_key": "none"}}},
            "decompressor_library": {"name": "gzip", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip",
            }},
        }),
    )
}

/// Keeps a client on one host, by a cookie that Envoy sets.
pub fn stateful_session(cookie: &str) -> Value {
    filter(
        "envoy.filters.http.stateful_session",
        "stateful_session.v3.StatefulSession",
        json!({"session_state": {"name": "envoy.http.stateful_session.cookie", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
            "cookie": {"name": cookie, "path": "/"},
        }}}),
    )
}
