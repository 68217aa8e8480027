//! What the user writes, and what the filter makes of it: a plan, or one line for everything that is
//! wrong.

use std::time::Duration;

use ai_fallback::core::config::{
    ClientControls, ClientModels, Config, Credentials, Deliver, Dispatch, Fallback, ModelApi,
    ModelChoice, Node, Retry, StatusSet, Target, Telemetry,
};
use ai_fallback::core::provider_error::{ErrorKind, ProviderError};

const SERVICES: &str =
    r#""services": {"openai": {"cluster": "openai"}, "qwen": {"cluster": "qwen"}}"#;
const MODEL_APIS: &str = r#""model_apis": [{"name": "chat"}]"#;

/// The environment of the VM.
fn env(name: &str) -> Option<String> {
    match name {
        "TEAM" => Some("blue".to_owned()),
        "EMPTY" => Some(String::new()),
        "TWO_LINES" => Some("secret\nlines".to_owned()),
        _ => None,
    }
}

fn parse(json: &str) -> Result<Config, Vec<String>> {
    let lines = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect();
    let node = Node::from_json(json.as_bytes()).map_err(|error| vec![error.to_string()])?;
    Config::parse(&node, &env).map_err(lines)
}

fn lines(json: &str) -> Vec<String> {
    parse(json).expect_err(json)
}

/// A whole configuration with these fields beside the lists.
fn with(fields: &str) -> String {
    format!("{{{fields}, {SERVICES}, {MODEL_APIS}}}")
}

/// A configuration with a service `a` of these fields.
fn with_service(fields: &str) -> String {
    format!(r#"{{"services": {{"a": {{{fields}}}}}, {MODEL_APIS}}}"#)
}

/// A configuration with a Model API of these fields.
fn with_api(fields: &str) -> String {
    format!(r#"{{{SERVICES}, "model_apis": [{{"name": "chat", {fields}}}]}}"#)
}

/// A configuration with a fallback of these fields.
fn with_fallback(fields: &str) -> String {
    with_api(&format!(
        r#""fallback": {{"services": [{{"service": "qwen"}}], {fields}}}"#
    ))
}

/// A configuration with an `access` that has these fields beside the default policy.
fn with_access(fields: &str) -> String {
    with(&format!(
        r#""access": {{"identity_header": "x-team", "default_policy": {{}}, {fields}}}"#
    ))
}

/// A configuration with an `access` whose default policy has these fields.
fn with_policy(fields: &str) -> String {
    with(&format!(
        r#""access": {{"identity_header": "x-team", "default_policy": {{{fields}}}}}"#
    ))
}

/// A configuration whose callers are told apart by this header.
fn with_identity_header(json: &str) -> String {
    with(&format!(
        r#""access": {{"identity_header": {json}, "default_policy": {{}}}}"#
    ))
}

/// Each bad configuration gives exactly this line.
#[test]
fn one_mistake_is_one_line() {
    let cases: &[(String, &str)] = &[
        // The whole.
        ("[]".into(), "$: wrong type (got a list; expected an object with the fields `services` and `model_apis`)"),
        ("{".into(), "$: not valid JSON (got EOF while parsing an object at line 1 column 1; expected a JSON object)"),
        (
            with(r#""dispach": "router""#),
            "dispach: unknown field (got \"dispach\"; expected one of `dispatch`, `buffer_limit_bytes`, `max_body_bytes`, `max_hops`, `credential_names`, `services`, `model_apis`, `access`, `cooldown`, `telemetry`; did you mean `dispatch`?)",
        ),
        (with(r#""a\nb": 1"#), r#"$["a\nb"]: unknown field (got "a\nb"; expected one of `dispatch`, `buffer_limit_bytes`, `max_body_bytes`, `max_hops`, `credential_names`, `services`, `model_apis`, `access`, `cooldown`, `telemetry`)"#),
        (with(r#""dispatch": "router", "dispatch": "router""#), r#"dispatch: duplicate key (got "dispatch" again; expected each key once)"#),
        (with(r#""dispatch": "calout""#), r#"dispatch: unknown value (got "calout"; expected one of "callout", "router"; did you mean "callout"?)"#),
        (with(r#""dispatch": "Router""#), r#"dispatch: unknown value (got "Router"; expected one of "callout", "router"; did you mean "router"?)"#),
        (with(r#""dispatch": true"#), r#"dispatch: wrong type (got a boolean; expected one of "callout", "router")"#),
        (with(r#""dispatch": null"#), r#"dispatch: wrong type (got null; expected one of "callout", "router")"#),
        (with(r#""max_body_bytes": "1MB""#), "max_body_bytes: wrong type (got a string; expected an integer from 1 to 268435456)"),
        (with(r#""max_body_bytes": 0"#), "max_body_bytes: out of range (got 0; expected an integer from 1 to 268435456)"),
        (with(r#""max_body_bytes": 268435457"#), "max_body_bytes: out of range (got 268435457; expected an integer from 1 to 268435456)"),
        (with(r#""max_body_bytes": 1e300"#), "max_body_bytes: out of range (got 1e+300; expected an integer from 1 to 268435456)"),
        (with(r#""max_body_bytes": 0.5"#), "max_body_bytes: not an integer (got 0.5; expected an integer from 1 to 268435456)"),
        (
            with(r#""max_body_bytes": 1048577"#),
            "max_body_bytes: out of range (got 1048577; expected at most `buffer_limit_bytes`, which is 1048576: raise it, and Envoy's own limit with it)",
        ),
        (
            with(r#""max_body_bytes": 268435456"#),
            "max_body_bytes: out of range (got 268435456; expected at most `buffer_limit_bytes`, which is 1048576: raise it, and Envoy's own limit with it)",
        ),
        (
            with(r#""buffer_limit_bytes": 32768, "max_body_bytes": 32769"#),
            "max_body_bytes: out of range (got 32769; expected at most `buffer_limit_bytes`, which is 32768: raise it, and Envoy's own limit with it)",
        ),
        (with(r#""buffer_limit_bytes": "1MB""#), "buffer_limit_bytes: wrong type (got a string; expected an integer from 1 to 1073741824)"),
        (with(r#""buffer_limit_bytes": 0"#), "buffer_limit_bytes: out of range (got 0; expected an integer from 1 to 1073741824)"),
        (with(r#""buffer_limit_bytes": 1073741825"#), "buffer_limit_bytes: out of range (got 1073741825; expected an integer from 1 to 1073741824)"),
        (with(r#""buffer_limit_bytes": 0.5"#), "buffer_limit_bytes: not an integer (got 0.5; expected an integer from 1 to 1073741824)"),
        (with(r#""max_hops": -1"#), "max_hops: out of range (got -1; expected an integer from 0 to 100)"),
        (with(r#""max_hops": 101"#), "max_hops: out of range (got 101; expected an integer from 0 to 100)"),
        (with(r#""max_hops": "8""#), "max_hops: wrong type (got a string; expected an integer from 0 to 100)"),
        // Credentials.
        (with(r#""credential_names": ["x-key"]"#), "credential_names: wrong type (got a list; expected an object with the fields `headers` and `query`)"),
        (
            with(r#""credential_names": {"header": ["x-key"]}"#),
            "credential_names.header: unknown field (got \"header\"; expected one of `headers`, `query`; did you mean `headers`?)",
        ),
        (with(r#""credential_names": {"headers": "x-key"}"#), "credential_names.headers: wrong type (got a string; expected a list of header names, at least one)"),
        (with(r#""credential_names": {"headers": []}"#), "credential_names.headers: empty list (got []; expected a list of header names, at least one)"),
        (
            with(r#""credential_names": {"headers": ["x-key", 1]}"#),
            "credential_names.headers[1]: wrong type (got a number; expected the name of a request header, without `*`)",
        ),
        (with(r#""credential_names": {"headers": ["x key"]}"#), r#"credential_names.headers[0]: bad header name (got "x key"; expected letters, digits and -)"#),
        (with(r#""credential_names": {"headers": [""]}"#), r#"credential_names.headers[0]: bad header name (got ""; expected letters, digits and -)"#),
        (
            with(r#""credential_names": {"headers": ["x-*"]}"#),
            r#"credential_names.headers[0]: reserved header name (got "x-*"; expected the name of a request header, without `*`)"#,
        ),
        (
            with(r#""credential_names": {"headers": ["Host"]}"#),
            r#"credential_names.headers[0]: reserved header name (got "host"; expected the name of a request header, without `*`)"#,
        ),
        (
            with(r#""credential_names": {"headers": [":path"]}"#),
            r#"credential_names.headers[0]: reserved header name (got ":path"; expected the name of a request header, without `*`)"#,
        ),
        (
            with(r#""credential_names": {"headers": ["Content-Length"]}"#),
            r#"credential_names.headers[0]: reserved header name (got "content-length"; expected the name of a request header, without `*`)"#,
        ),
        (with(r#""credential_names": {"query": []}"#), "credential_names.query: empty list (got []; expected a list of query parameters, at least one)"),
        (with(r#""credential_names": {"query": {"sig": true}}"#), "credential_names.query: wrong type (got an object; expected a list of query parameters, at least one)"),
        (with(r#""credential_names": {"query": [7]}"#), "credential_names.query[0]: wrong type (got a number; expected the name of a query parameter, without `=`, `&`, `;`, `?`, `#` and `%`)"),
        (with(r#""credential_names": {"query": ["sig", ""]}"#), r#"credential_names.query[1]: empty text (got ""; expected the name of a query parameter, without `=`, `&`, `;`, `?`, `#` and `%`)"#),
        // Services.
        (format!("{{{MODEL_APIS}}}"), "services: required field is missing (got nothing; expected an object of services by name, at least one)"),
        (format!(r#"{{"services": {{}}, {MODEL_APIS}}}"#), "services: empty object (got {}; expected an object of services by name, at least one)"),
        (
            r#"{"services": [{"name": "a"}], "model_apis": [{"name": "chat", "primary": {"service": "a"}}]}"#.into(),
            "services: wrong type (got a list; expected an object of services by name, at least one)",
        ),
        (format!(r#"{{"services": {{"a": "b"}}, {MODEL_APIS}}}"#), "services.a: wrong type (got a string; expected an object with the field `cluster`)"),
        (
            format!(r#"{{"services": {{"Open AI": {{"cluster": "a"}}}}, {MODEL_APIS}}}"#),
            r#"services["Open AI"]: bad name (got "Open AI"; expected [a-z0-9][a-z0-9_-]*)"#,
        ),
        (
            format!(r#"{{"services": {{"-a": {{"cluster": "a"}}}}, {MODEL_APIS}}}"#),
            r#"services.-a: bad name (got "-a"; expected [a-z0-9][a-z0-9_-]*)"#,
        ),
        (
            format!(r#"{{"services": {{"a": {{"cluster": "a"}}, "a": {{"cluster": "b"}}}}, {MODEL_APIS}}}"#),
            r#"services.a: duplicate key (got "a" again; expected each key once)"#,
        ),
        (with_service(""), "services.a.cluster: required field is missing (got nothing; expected the name of an Envoy cluster)"),
        (with_service(r#""cluster": """#), r#"services.a.cluster: empty text (got ""; expected the name of an Envoy cluster)"#),
        (with_service(r#""cluster": 7"#), "services.a.cluster: wrong type (got a number; expected the name of an Envoy cluster)"),
        (with_service(r#""cluster": "a b""#), r#"services.a.cluster: white space (got "a b"; expected the name of an Envoy cluster)"#),
        (with_service(r#""cluster": "a\u0000""#), r#"services.a.cluster: control character (got "a\0"; expected the name of an Envoy cluster)"#),
        (
            with_service(r#""cluster": "a", "authorty": "x""#),
            "services.a.authorty: unknown field (got \"authorty\"; expected one of `cluster`, `authority`, `path`, `headers`, `credentials`, `remove_headers`, `models`; did you mean `authority`?)",
        ),
        (
            with_service(r#""cluster": "a", "authority": "https://api.openai.com""#),
            r#"services.a.authority: bad authority (got "https://api.openai.com"; expected a host name or address, with `:port` where needed)"#,
        ),
        (
            with_service(r#""cluster": "a", "authority": """#),
            r#"services.a.authority: empty text (got ""; expected a host name or address, with `:port` where needed)"#,
        ),
        (
            with_service(r#""cluster": "a", "path": "v1/chat""#),
            r#"services.a.path: bad path template (got "v1/chat"; expected a path that starts with `/` or `{path}`)"#,
        ),
        (
            with_service(r#""cluster": "a", "path": "/v1/{modle}/chat""#),
            r#"services.a.path: bad path template (got "/v1/{modle}/chat"; expected in braces one of `path`, `model`; did you mean `model`?)"#,
        ),
        (with_service(r#""cluster": "a", "path": "/v1/{model""#), r#"services.a.path: bad path template (got "/v1/{model"; expected a `}` after each `{`)"#),
        (with_service(r#""cluster": "a", "path": "/v1/model}""#), r#"services.a.path: bad path template (got "/v1/model}"; expected a `{` before each `}`)"#),
        (
            with_service(r#""cluster": "a", "path": "/a b""#),
            r#"services.a.path: bad path template (got "/a b"; expected a path without white space, control characters and `#`)"#,
        ),
        (
            with_service(r#""cluster": "a", "credentials": "clients""#),
            r#"services.a.credentials: unknown value (got "clients"; expected one of "service", "client"; did you mean "client"?)"#,
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": "x-team""#),
            "services.a.remove_headers: wrong type (got a string; expected a list of header names, at least one)",
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": []"#),
            "services.a.remove_headers: empty list (got []; expected a list of header names, at least one)",
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": ["x-team", {}]"#),
            "services.a.remove_headers[1]: wrong type (got an object; expected the name of a request header, with `*` for any run of characters)",
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": [""]"#),
            r#"services.a.remove_headers[0]: bad header name (got ""; expected letters, digits and -)"#,
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": ["x team"]"#),
            r#"services.a.remove_headers[0]: bad header name (got "x team"; expected letters, digits and -)"#,
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": [":authority"]"#),
            r#"services.a.remove_headers[0]: reserved header name (got ":authority"; expected the name of a request header, with `*` for any run of characters)"#,
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": ["Host"]"#),
            r#"services.a.remove_headers[0]: reserved header name (got "Host"; expected the name of a request header, with `*` for any run of characters)"#,
        ),
        (
            with_service(r#""cluster": "a", "remove_headers": ["content-type"]"#),
            r#"services.a.remove_headers[0]: reserved header name (got "content-type"; expected the name of a request header, with `*` for any run of characters)"#,
        ),
        (with_service(r#""cluster": "a", "headers": ["x"]"#), "services.a.headers: wrong type (got a list; expected an object of header names and values)"),
        (with_service(r#""cluster": "a", "headers": {"x": 1}"#), "services.a.headers.x: wrong type (got a number; expected text without control characters)"),
        (
            with_service(r#""cluster": "a", "headers": {"x team": "1"}"#),
            r#"services.a.headers["x team"]: bad header name (got "x team"; expected letters, digits and -)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"Host": "x"}"#),
            r#"services.a.headers.Host: reserved header name (got "host"; expected a header the filter does not set itself)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {":path": "/x"}"#),
            r#"services.a.headers[":path"]: reserved header name (got ":path"; expected a header the filter does not set itself)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"X-AI-Fallback-Service": "x"}"#),
            r#"services.a.headers.X-AI-Fallback-Service: reserved header name (got "x-ai-fallback-service"; expected a header the filter does not set itself)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x-envoy-max-retries": "9"}"#),
            r#"services.a.headers.x-envoy-max-retries: reserved header name (got "x-envoy-max-retries"; expected a header the filter does not set itself)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x-team": "1", "X-Team": "2"}"#),
            r#"services.a.headers.x-team: duplicate header name (got "x-team"; expected each name once, in any case)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x": "1", "x": 2}"#),
            r#"services.a.headers.x: duplicate key (got "x" again; expected each key once)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x": "a\r\nb"}"#),
            "services.a.headers.x: bad header value (got a control character after 1 bytes; expected text without control characters)",
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x": "${TWO_LINES}"}"#),
            "services.a.headers.x: bad header value (got a control character after 6 bytes; expected text without control characters)",
        ),
        (
            with_service(r#""cluster": "a", "headers": {"authorization": "Bearer ${TEAN}"}"#),
            r#"services.a.headers.authorization: missing environment variable (got "TEAN"; expected a variable of the VM, set in `vm_config.environment_variables`)"#,
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x": "${TEAM"}"#),
            "services.a.headers.x: unterminated variable (got a `${` without `}`; expected `${NAME}`, or `$${` for a literal `${`)",
        ),
        (
            with_service(r#""cluster": "a", "headers": {"x": "${}"}"#),
            "services.a.headers.x: bad variable name (got other characters; expected letters, digits and _ in `${NAME}`)",
        ),
        (with_service(r#""cluster": "a", "models": ["gpt-4o"]"#), "services.a.models: wrong type (got a list; expected an object of model names)"),
        (
            with_service(r#""cluster": "a", "models": {"": "gpt"}"#),
            r#"services.a.models[""]: empty text (got ""; expected the name of a model)"#,
        ),
        (
            with_service(r#""cluster": "a", "models": {"gpt\n4": "gpt"}"#),
            r#"services.a.models["gpt\n4"]: control character (got "gpt\n4"; expected the name of a model)"#,
        ),
        (
            with_service(r#""cluster": "a", "models": {"gpt-4.1": ""}"#),
            r#"services.a.models["gpt-4.1"]: empty text (got ""; expected the name of a model)"#,
        ),
        // Model APIs.
        (format!("{{{SERVICES}}}"), "model_apis: required field is missing (got nothing; expected a list of Model APIs, at least one)"),
        (format!(r#"{{{SERVICES}, "model_apis": []}}"#), "model_apis: empty list (got []; expected a list of Model APIs, at least one)"),
        (format!(r#"{{{SERVICES}, "model_apis": {{"chat": {{}}}}}}"#), "model_apis: wrong type (got an object; expected a list of Model APIs, at least one)"),
        (format!(r#"{{{SERVICES}, "model_apis": ["chat"]}}"#), "model_apis[0]: wrong type (got a string; expected an object with the field `name`)"),
        (format!(r#"{{{SERVICES}, "model_apis": [{{}}]}}"#), "model_apis[0].name: required field is missing (got nothing; expected the name of this Model API)"),
        (format!(r#"{{{SERVICES}, "model_apis": [{{"name": "Chat"}}]}}"#), r#"model_apis[0].name: bad name (got "Chat"; expected [a-z0-9][a-z0-9_-]*)"#),
        (
            format!(r#"{{{SERVICES}, "model_apis": [{{"name": "chat"}}, {{"name": "a"}}, {{"name": "chat"}}]}}"#),
            r#"model_apis[2].name: duplicate name (got "chat"; expected a name of its own)"#,
        ),
        (
            with_api(r#""fallbacks": {}"#),
            "model_apis[0].fallbacks: unknown field (got \"fallbacks\"; expected one of `name`, `match`, `primary`, `fallback`; did you mean `fallback`?)",
        ),
        (with_api(r#""match": {"paths": []}"#), "model_apis[0].match.paths: empty list (got []; expected a list of paths, at least one)"),
        (with_api(r#""match": {"paths": "/v1"}"#), "model_apis[0].match.paths: wrong type (got a string; expected a list of paths, at least one)"),
        (with_api(r#""match": {"paths": ["/a", ""]}"#), r#"model_apis[0].match.paths[1]: bad pattern (got ""; expected at least one character)"#),
        (with_api(r#""match": {"paths": ["v1/*"]}"#), r#"model_apis[0].match.paths[0]: bad pattern (got "v1/*"; expected a path that starts with `/` or `*`)"#),
        (with_api(r#""match": {"paths": ["/v1?a=b"]}"#), r#"model_apis[0].match.paths[0]: bad pattern (got "/v1?a=b"; expected a path without its query)"#),
        (with_api(r#""match": {"models": []}"#), "model_apis[0].match.models: empty list (got []; expected a list of models, at least one)"),
        (with_api(r#""match": {"models": [4]}"#), "model_apis[0].match.models[0]: wrong type (got a number; expected a name, with `*` for any run of characters)"),
        (with_api(r#""match": {"models": ["a\tb"]}"#), r#"model_apis[0].match.models[0]: bad pattern (got "a\tb"; expected text without control characters)"#),
        (with_api(r#""match": {"headers": {"": "x"}}"#), r#"model_apis[0].match.headers[""]: bad header name (got ""; expected letters, digits and -)"#),
        (
            with_api(r#""match": {"headers": {"host": "x"}}"#),
            r#"model_apis[0].match.headers.host: header that never matches (got "host"; expected `:authority`, which Envoy makes of it)"#,
        ),
        (with_api(r#""match": {"header": {}}"#), "model_apis[0].match.header: unknown field (got \"header\"; expected one of `paths`, `models`, `headers`; did you mean `headers`?)"),
        (
            with_api(r#""primary": {"service": "opnai"}"#),
            r#"model_apis[0].primary.service: unknown service (got "opnai"; expected one of "openai", "qwen"; did you mean "openai"?)"#,
        ),
        (with_api(r#""primary": {"service": "local"}"#), r#"model_apis[0].primary.service: unknown service (got "local"; expected one of "openai", "qwen")"#),
        (with_api(r#""primary": "openai""#), "model_apis[0].primary: wrong type (got a string; expected an object with the fields `service` and `model`)"),
        (with_api(r#""primary": {"model": ""}"#), r#"model_apis[0].primary.model: empty text (got ""; expected the name of a model, or pass-through)"#),
        // Fallback.
        (with_api(r#""fallback": {}"#), "model_apis[0].fallback.services: required field is missing (got nothing; expected a list of services, at least one)"),
        (with_api(r#""fallback": {"services": []}"#), "model_apis[0].fallback.services: empty list (got []; expected a list of services, at least one)"),
        (
            with_api(r#""fallback": {"enabled": false, "services": [{"service": "qwne"}]}"#),
            r#"model_apis[0].fallback.services[0].service: unknown service (got "qwne"; expected one of "openai", "qwen"; did you mean "qwen"?)"#,
        ),
        (with_api(r#""fallback": {"services": ["qwen"]}"#), "model_apis[0].fallback.services[0]: wrong type (got a string; expected an object with the field `service`)"),
        (
            with_api(r#""fallback": {"services": [{"model": "x"}]}"#),
            "model_apis[0].fallback.services[0].service: required field is missing (got nothing; expected the name of a service)",
        ),
        (
            with_api(r#""fallback": {"services": [{"service": "qwen"}, {"service": "qwen", "priority": 1.5}]}"#),
            "model_apis[0].fallback.services[1].priority: not an integer (got 1.5; expected an integer from -2147483648 to 2147483647)",
        ),
        (
            with_api(r#""fallback": {"services": [{"service": "qwen", "priority": "high"}]}"#),
            "model_apis[0].fallback.services[0].priority: wrong type (got a string; expected an integer from -2147483648 to 2147483647)",
        ),
        (with_fallback(r#""enabled": "yes""#), "model_apis[0].fallback.enabled: wrong type (got a string; expected true or false)"),
        (with_fallback(r#""only_backend_errors": 1"#), "model_apis[0].fallback.only_backend_errors: wrong type (got a number; expected true or false)"),
        (
            with_fallback(r#""on_status": []"#),
            r#"model_apis[0].fallback.on_status: empty list (got []; expected a list of classes and codes, or one of "any", "availability")"#,
        ),
        (
            with_fallback(r#""on_status": "5xx""#),
            r#"model_apis[0].fallback.on_status: unknown value (got "5xx"; expected a list of classes and codes, or one of "any", "availability")"#,
        ),
        (
            with_fallback(r#""on_status": "Availabilty""#),
            r#"model_apis[0].fallback.on_status: unknown value (got "Availabilty"; expected a list of classes and codes, or one of "any", "availability"; did you mean "availability"?)"#,
        ),
        (
            with_fallback(r#""on_status": 503"#),
            r#"model_apis[0].fallback.on_status: wrong type (got a number; expected a list of classes and codes, or one of "any", "availability")"#,
        ),
        (
            with_fallback(r#""on_status": ["4xx", "2xx"]"#),
            r#"model_apis[0].fallback.on_status[1]: not a status (got "2xx"; expected "4xx", "5xx", a code from 400 to 599, or one of "any", "availability")"#,
        ),
        (
            with_fallback(r#""on_status": ["5XX"]"#),
            r#"model_apis[0].fallback.on_status[0]: not a status (got "5XX"; expected "4xx", "5xx", a code from 400 to 599, or one of "any", "availability")"#,
        ),
        (
            with_fallback(r#""on_status": ["availabilty"]"#),
            r#"model_apis[0].fallback.on_status[0]: not a status (got "availabilty"; expected "4xx", "5xx", a code from 400 to 599, or one of "any", "availability"; did you mean "availability"?)"#,
        ),
        (
            with_fallback(r#""on_status": [true]"#),
            r#"model_apis[0].fallback.on_status[0]: wrong type (got a boolean; expected "4xx", "5xx", a code from 400 to 599, or one of "any", "availability")"#,
        ),
        (with_fallback(r#""on_status": [200]"#), "model_apis[0].fallback.on_status[0]: out of range (got 200; expected an integer from 400 to 599)"),
        (
            with_fallback(r#""request_timeout_ms": -1"#),
            "model_apis[0].fallback.request_timeout_ms: out of range (got -1; expected an integer from 0 to 86400000)",
        ),
        (
            with_fallback(r#""total_timeout_ms": 86400001"#),
            "model_apis[0].fallback.total_timeout_ms: out of range (got 86400001; expected an integer from 0 to 86400000)",
        ),
        (
            with_fallback(r#""first_packet_timeout_ms": "3s""#),
            "model_apis[0].fallback.first_packet_timeout_ms: wrong type (got a string; expected an integer from 0 to 86400000)",
        ),
        (
            with_fallback(r#""first_packet_timeout": 3000"#),
            "model_apis[0].fallback.first_packet_timeout: unknown field (got \"first_packet_timeout\"; expected one of `enabled`, `services`, `client_models`, `client_controls`, `only_backend_errors`, `on_status`, `on_errors`, `except_errors`, `error_services`, `max_attempts`, `retry`, `first_packet_timeout_ms`, `request_timeout_ms`, `total_timeout_ms`, `reserve_ms`, `stream_idle_timeout_ms`, `deliver`, `max_held_bytes`; did you mean `first_packet_timeout_ms`?)",
        ),
        // Retries.
        (
            with_api(r#""primary": {"service": "qwen", "retries": 11}"#),
            r#"model_apis[0].primary.retries: out of range (got 11; expected an integer from 0 to 10)"#,
        ),
        (
            with_api(r#""primary": {"retry": 1}"#),
            r#"model_apis[0].primary.retry: unknown field (got "retry"; expected one of `service`, `model`, `retries`)"#,
        ),
        (
            with_api(r#""fallback": {"services": [{"service": "qwen", "retries": -1}]}"#),
            r#"model_apis[0].fallback.services[0].retries: out of range (got -1; expected an integer from 0 to 10)"#,
        ),
        (
            with_api(r#""fallback": {"services": [{"service": "qwen", "retrys": 1}]}"#),
            r#"model_apis[0].fallback.services[0].retrys: unknown field (got "retrys"; expected one of `service`, `model`, `priority`, `retries`; did you mean `retries`?)"#,
        ),
        (
            with_fallback(r#""retry": 3"#),
            r#"model_apis[0].fallback.retry: wrong type (got a number; expected an object with the fields `backoff_ms` and `max_backoff_ms`)"#,
        ),
        (
            with_fallback(r#""retry": {"backof_ms": 1}"#),
            r#"model_apis[0].fallback.retry.backof_ms: unknown field (got "backof_ms"; expected one of `backoff_ms`, `max_backoff_ms`, `max_retry_after_ms`; did you mean `backoff_ms`?)"#,
        ),
        (
            with_fallback(r#""retry": {"backoff_ms": 60001}"#),
            r#"model_apis[0].fallback.retry.backoff_ms: out of range (got 60001; expected an integer from 0 to 60000)"#,
        ),
        (
            with_fallback(r#""retry": {"max_backoff_ms": 600001}"#),
            r#"model_apis[0].fallback.retry.max_backoff_ms: out of range (got 600001; expected an integer from 0 to 600000)"#,
        ),
        (
            with_fallback(r#""retry": {"max_retry_after_ms": 600001}"#),
            r#"model_apis[0].fallback.retry.max_retry_after_ms: out of range (got 600001; expected an integer from 0 to 600000)"#,
        ),
        (
            with_fallback(r#""retry": {"backoff_ms": 2001}"#),
            r#"model_apis[0].fallback.retry.backoff_ms: out of range (got 2001; expected at most max_backoff_ms, which is 2000)"#,
        ),
        (
            with_fallback(r#""retry": {"backoff_ms": 200, "max_backoff_ms": 100}"#),
            r#"model_apis[0].fallback.retry.backoff_ms: out of range (got 200; expected at most max_backoff_ms, which is 100)"#,
        ),
        (
            with_fallback(r#""retry": {"max_backoff_ms": 249}"#),
            r#"model_apis[0].fallback.retry.max_backoff_ms: out of range (got 249; expected at least backoff_ms, which is 250)"#,
        ),
        (
            with_fallback(r#""max_attempts": 0"#),
            r#"model_apis[0].fallback.max_attempts: out of range (got 0; expected an integer from 1 to 100)"#,
        ),
        (
            with_fallback(r#""max_attempts": 101"#),
            r#"model_apis[0].fallback.max_attempts: out of range (got 101; expected an integer from 1 to 100)"#,
        ),
        // Errors of services.
        (
            with_fallback(r#""on_errors": []"#),
            r#"model_apis[0].fallback.on_errors: empty list (got []; expected a list of kinds, codes and types of errors, at least one)"#,
        ),
        (
            with_fallback(r#""on_errors": "quota""#),
            r#"model_apis[0].fallback.on_errors: wrong type (got a string; expected a list of kinds, codes and types of errors, at least one)"#,
        ),
        (
            with_fallback(r#""on_errors": [429]"#),
            r#"model_apis[0].fallback.on_errors[0]: wrong type (got a number; expected a name, with `*` for any run of characters)"#,
        ),
        (
            with_fallback(r#""on_errors": ["quota", ""]"#),
            r#"model_apis[0].fallback.on_errors[1]: bad pattern (got ""; expected at least one character)"#,
        ),
        (
            with_fallback(r#""except_errors": []"#),
            r#"model_apis[0].fallback.except_errors: empty list (got []; expected a list of kinds, codes and types of errors, at least one)"#,
        ),
        (
            with_fallback(r#""except_errors": "quota""#),
            r#"model_apis[0].fallback.except_errors: wrong type (got a string; expected a list of kinds, codes and types of errors, at least one)"#,
        ),
        (
            with_fallback(r#""except_errors": [429]"#),
            r#"model_apis[0].fallback.except_errors[0]: wrong type (got a number; expected a name, with `*` for any run of characters)"#,
        ),
        (
            with_fallback(r#""except_errors": ["quota", ""]"#),
            r#"model_apis[0].fallback.except_errors[1]: bad pattern (got ""; expected at least one character)"#,
        ),
        (
            with_fallback(r#""error_services": {}"#),
            r#"model_apis[0].fallback.error_services: empty object (got {}; expected an object of lists of services by kind of error, at least one)"#,
        ),
        (
            with_fallback(r#""error_services": ["quota"]"#),
            r#"model_apis[0].fallback.error_services: wrong type (got a list; expected an object of lists of services by kind of error, at least one)"#,
        ),
        (
            with_fallback(r#""error_services": {"context_lenght": [{"service": "qwen"}]}"#),
            r#"model_apis[0].fallback.error_services.context_lenght: unknown kind of error (got "context_lenght"; expected one of `context_length`, `content_policy`, `quota`, `rate_limit`, `model_not_found`, `overloaded`; did you mean `context_length`?)"#,
        ),
        (
            with_fallback(r#""error_services": {"*": [{"service": "qwen"}]}"#),
            r#"model_apis[0].fallback.error_services["*"]: unknown kind of error (got "*"; expected one of `context_length`, `content_policy`, `quota`, `rate_limit`, `model_not_found`, `overloaded`)"#,
        ),
        (
            with_fallback(r#""error_services": {"quota": []}"#),
            r#"model_apis[0].fallback.error_services.quota: empty list (got []; expected a list of services, at least one)"#,
        ),
        (
            with_fallback(r#""error_services": {"quota": {"service": "qwen"}}"#),
            r#"model_apis[0].fallback.error_services.quota: wrong type (got an object; expected a list of services, at least one)"#,
        ),
        (
            with_fallback(r#""error_services": {"quota": [{"service": "qwne"}]}"#),
            r#"model_apis[0].fallback.error_services.quota[0].service: unknown service (got "qwne"; expected one of "openai", "qwen"; did you mean "qwen"?)"#,
        ),
        (
            with_fallback(r#""error_services": {"quota": [{"service": "qwen", "retries": 11}]}"#),
            r#"model_apis[0].fallback.error_services.quota[0].retries: out of range (got 11; expected an integer from 0 to 10)"#,
        ),
        // Deadlines, and what is held.
        (
            with_fallback(r#""reserve_ms": -1"#),
            r#"model_apis[0].fallback.reserve_ms: out of range (got -1; expected an integer from 0 to 86400000)"#,
        ),
        (
            with_fallback(r#""reserve_ms": 500"#),
            r#"model_apis[0].fallback.reserve_ms: out of range (got 500; expected 0 where there is no total_timeout_ms)"#,
        ),
        (
            with_fallback(r#""reserve_ms": 500, "client_controls": ["off", "deliver"]"#),
            r#"model_apis[0].fallback.reserve_ms: out of range (got 500; expected 0 where there is no total_timeout_ms)"#,
        ),
        (
            with_fallback(r#""reserve_ms": 501, "total_timeout_ms": 1001"#),
            r#"model_apis[0].fallback.reserve_ms: out of range (got 501; expected at most half of total_timeout_ms, which is 500)"#,
        ),
        (
            with_fallback(r#""reserve_ms": 501, "total_timeout_ms": 1001, "client_controls": ["timeout"]"#),
            r#"model_apis[0].fallback.reserve_ms: out of range (got 501; expected at most half of total_timeout_ms, which is 500)"#,
        ),
        (
            with_fallback(r#""stream_idle_timeout_ms": 86400001"#),
            r#"model_apis[0].fallback.stream_idle_timeout_ms: out of range (got 86400001; expected an integer from 0 to 86400000)"#,
        ),
        (
            with_fallback(r#""deliver": "completed""#),
            r#"model_apis[0].fallback.deliver: unknown value (got "completed"; expected one of "first_packet", "complete"; did you mean "complete"?)"#,
        ),
        (
            with_fallback(r#""max_held_bytes": 0"#),
            r#"model_apis[0].fallback.max_held_bytes: out of range (got 0; expected an integer from 1 to 33554432)"#,
        ),
        (
            with_fallback(r#""max_held_bytes": 33554433"#),
            r#"model_apis[0].fallback.max_held_bytes: out of range (got 33554433; expected an integer from 1 to 33554432)"#,
        ),
        (
            with_fallback(r#""max_held_bytes": 1048577"#),
            r#"model_apis[0].fallback.max_held_bytes: out of range (got 1048577; expected at most `buffer_limit_bytes`, which is 1048576: raise it, and Envoy's own limit with it)"#,
        ),
        (
            with_fallback(r#""max_held_bytes": 33554432"#),
            r#"model_apis[0].fallback.max_held_bytes: out of range (got 33554432; expected at most `buffer_limit_bytes`, which is 1048576: raise it, and Envoy's own limit with it)"#,
        ),
        // What a request may ask for.
        (
            with_fallback(r#""client_models": true"#),
            r#"model_apis[0].fallback.client_models: wrong type (got a boolean; expected an object with the fields `max` and `then_configured`)"#,
        ),
        (
            with_api(r#""fallback": {"client_models": {"enabled": false}}"#),
            r#"model_apis[0].fallback.services: required field is missing (got nothing; expected a list of services, at least one)"#,
        ),
        (
            with_api(r#""fallback": {"client_models": {}, "services": []}"#),
            r#"model_apis[0].fallback.services: empty list (got []; expected a list of services, at least one)"#,
        ),
        (
            with_fallback(r#""client_models": {"enable": true}"#),
            r#"model_apis[0].fallback.client_models.enable: unknown field (got "enable"; expected one of `enabled`, `max`, `then_configured`; did you mean `enabled`?)"#,
        ),
        (
            with_fallback(r#""client_models": {"enabled": 1}"#),
            r#"model_apis[0].fallback.client_models.enabled: wrong type (got a number; expected true or false)"#,
        ),
        (
            with_fallback(r#""client_models": {"enabled": false, "max": 0}"#),
            r#"model_apis[0].fallback.client_models.max: out of range (got 0; expected an integer from 1 to 20)"#,
        ),
        (
            with_fallback(r#""client_models": {"max": 21}"#),
            r#"model_apis[0].fallback.client_models.max: out of range (got 21; expected an integer from 1 to 20)"#,
        ),
        (
            with_fallback(r#""client_models": {"then_configured": "no"}"#),
            r#"model_apis[0].fallback.client_models.then_configured: wrong type (got a string; expected true or false)"#,
        ),
        (
            with_fallback(r#""client_controls": []"#),
            r#"model_apis[0].fallback.client_controls: empty list (got []; expected a list of controls, at least one)"#,
        ),
        (
            with_fallback(r#""client_controls": "off""#),
            r#"model_apis[0].fallback.client_controls: wrong type (got a string; expected a list of controls, at least one)"#,
        ),
        (
            with_fallback(r#""client_controls": ["timeouts"]"#),
            r#"model_apis[0].fallback.client_controls[0]: unknown value (got "timeouts"; expected one of "off", "timeout", "deliver"; did you mean "timeout"?)"#,
        ),
        // Cooldown.
        (
            with(r#""cooldown": true"#),
            r#"cooldown: wrong type (got a boolean; expected an object with the fields `failures` and `time_ms`)"#,
        ),
        (
            with(r#""cooldown": {"failure": 3}"#),
            r#"cooldown.failure: unknown field (got "failure"; expected one of `enabled`, `failures`, `time_ms`, `max_retry_after_ms`; did you mean `failures`?)"#,
        ),
        (
            with(r#""cooldown": {"enabled": "yes"}"#),
            r#"cooldown.enabled: wrong type (got a string; expected true or false)"#,
        ),
        (
            with(r#""cooldown": {"failures": 0}"#),
            r#"cooldown.failures: out of range (got 0; expected an integer from 1 to 1000)"#,
        ),
        (
            with(r#""cooldown": {"failures": 1001}"#),
            r#"cooldown.failures: out of range (got 1001; expected an integer from 1 to 1000)"#,
        ),
        (
            with(r#""cooldown": {"enabled": false, "time_ms": 0}"#),
            r#"cooldown.time_ms: out of range (got 0; expected an integer from 1 to 86400000)"#,
        ),
        (
            with(r#""cooldown": {"enabled": false, "time_ms": 86400001}"#),
            r#"cooldown.time_ms: out of range (got 86400001; expected an integer from 1 to 86400000)"#,
        ),
        (
            with(r#""cooldown": {"max_retry_after_ms": 86400001}"#),
            r#"cooldown.max_retry_after_ms: out of range (got 86400001; expected an integer from 0 to 86400000)"#,
        ),
        // Telemetry.
        (
            with(r#""telemetry": true"#),
            r#"telemetry: wrong type (got a boolean; expected an object with the fields `access_log` and `token_usage`)"#,
        ),
        (
            with(r#""telemetry": {"token_usge": true}"#),
            r#"telemetry.token_usge: unknown field (got "token_usge"; expected one of `access_log`, `token_usage`; did you mean `token_usage`?)"#,
        ),
        (
            with(r#""telemetry": {"access_log": "yes"}"#),
            r#"telemetry.access_log: wrong type (got a string; expected true or false)"#,
        ),
        (
            with(r#""telemetry": {"token_usage": 1}"#),
            r#"telemetry.token_usage: wrong type (got a number; expected true or false)"#,
        ),
        // Access.
        (
            with(r#""access": "x-team""#),
            r#"access: wrong type (got a string; expected an object with the fields `identity_header` and `default_policy`)"#,
        ),
        (
            with(r#""access": {"default_policy": {}}"#),
            r#"access.identity_header: required field is missing (got nothing; expected the name of the header that says who calls)"#,
        ),
        (
            with(r#""access": {"identity_header": "x-team"}"#),
            r#"access.default_policy: required field is missing (got nothing; expected an object with the fields `allow` and `deny`)"#,
        ),
        (
            with_access(r#""polices": []"#),
            r#"access.polices: unknown field (got "polices"; expected one of `identity_header`, `default_policy`, `policies`; did you mean `policies`?)"#,
        ),
        (
            with_identity_header(r#"["x-team"]"#),
            r#"access.identity_header: wrong type (got a list; expected the name of the header that says who calls)"#,
        ),
        (
            with_identity_header(r#""""#),
            r#"access.identity_header: bad header name (got ""; expected letters, digits and -)"#,
        ),
        (
            with_identity_header(r#""x team""#),
            r#"access.identity_header: bad header name (got "x team"; expected letters, digits and -)"#,
        ),
        (
            with_identity_header(r#""Host""#),
            r#"access.identity_header: reserved header name (got "host"; expected the name of the header that says who calls)"#,
        ),
        (
            with_identity_header(r#"":authority""#),
            r#"access.identity_header: reserved header name (got ":authority"; expected the name of the header that says who calls)"#,
        ),
        (
            with_identity_header(r#""X-AI-Fallback-Team""#),
            r#"access.identity_header: reserved header name (got "x-ai-fallback-team"; expected the name of the header that says who calls)"#,
        ),
        (
            with_policy(r#""identities": ["*"]"#),
            r#"access.default_policy.identities: unknown field (got "identities"; expected one of `allow`, `deny`)"#,
        ),
        (
            with_policy(r#""allow": ["qwen"]"#),
            r#"access.default_policy.allow: wrong type (got a list; expected an object with the fields `services` and `models`, at least one of them)"#,
        ),
        (
            with_policy(r#""allow": {}"#),
            r#"access.default_policy.allow: nothing named (got no list; expected an object with the fields `services` and `models`, at least one of them)"#,
        ),
        (
            with_policy(r#""deny": {}"#),
            r#"access.default_policy.deny: nothing named (got no list; expected an object with the fields `services` and `models`, at least one of them)"#,
        ),
        (
            with_policy(r#""deny": {"services": ["qwen"], "model": ["x"]}"#),
            r#"access.default_policy.deny.model: unknown field (got "model"; expected one of `services`, `models`; did you mean `models`?)"#,
        ),
        (
            with_policy(r#""allow": {"services": []}"#),
            r#"access.default_policy.allow.services: empty list (got []; expected a list of services, at least one)"#,
        ),
        (
            with_policy(r#""allow": {"services": "qwen"}"#),
            r#"access.default_policy.allow.services: wrong type (got a string; expected a list of services, at least one)"#,
        ),
        (
            with_policy(r#""allow": {"services": [""]}"#),
            r#"access.default_policy.allow.services[0]: bad pattern (got ""; expected at least one character)"#,
        ),
        (
            with_policy(r#""allow": {"services": ["openai", "qwne"]}"#),
            r#"access.default_policy.allow.services[1]: unknown service (got "qwne"; expected one of "openai", "qwen", "primary"; did you mean "qwen"?)"#,
        ),
        (
            with_policy(r#""deny": {"services": ["qwne*"]}"#),
            r#"access.default_policy.deny.services[0]: matches no service (got "qwne*"; expected one of "openai", "qwen", "primary")"#,
        ),
        (
            with_policy(r#""allow": {"models": []}"#),
            r#"access.default_policy.allow.models: empty list (got []; expected a list of models, at least one)"#,
        ),
        (
            with_policy(r#""deny": {"models": [4]}"#),
            r#"access.default_policy.deny.models[0]: wrong type (got a number; expected a name, with `*` for any run of characters)"#,
        ),
        (
            with_access(r#""policies": []"#),
            r#"access.policies: empty list (got []; expected a list of policies, at least one)"#,
        ),
        (
            with_access(r#""policies": {"red": {}}"#),
            r#"access.policies: wrong type (got an object; expected a list of policies, at least one)"#,
        ),
        (
            with_access(r#""policies": ["red"]"#),
            r#"access.policies[0]: wrong type (got a string; expected an object with the fields `allow` and `deny`)"#,
        ),
        (
            with_access(r#""policies": [{"allow": {"models": ["x"]}}]"#),
            r#"access.policies[0].identities: required field is missing (got nothing; expected a list of identities, at least one)"#,
        ),
        (
            with_access(r#""policies": [{"identities": []}]"#),
            r#"access.policies[0].identities: empty list (got []; expected a list of identities, at least one)"#,
        ),
        (
            with_access(r#""policies": [{"identities": "red"}]"#),
            r#"access.policies[0].identities: wrong type (got a string; expected a list of identities, at least one)"#,
        ),
        (
            with_access(r#""policies": [{"identities": ["red"]}, {"identity": ["x"], "identities": ["x"]}]"#),
            r#"access.policies[1].identity: unknown field (got "identity"; expected one of `identities`, `allow`, `deny`; did you mean `identities`?)"#,
        ),
        (
            with_access(r#""policies": [{"identities": ["red"], "deny": {"services": ["local"]}}]"#),
            r#"access.policies[0].deny.services[0]: unknown service (got "local"; expected one of "openai", "qwen", "primary")"#,
        ),
    ];
    assert!(cases.len() >= 180);
    for (json, line) in cases {
        assert_eq!(lines(json), [format!("config: {line}")], "{json}");
    }
}

#[test]
fn all_mistakes_come_at_once() {
    let json = r#"{
        "buffer_limit_bytes": -1,
        "max_body_bytes": -1,
        "max_hops": 0.5,
        "credential_names": {"headers": ["host"], "query": [""], "cookies": []},
        "access": {
            "identity_header": "host",
            "default_policy": {"allow": {"services": ["none"], "models": [1]}, "deny": []},
            "policies": [{"identities": [1], "allow": {}}, {"deny": {"services": ["x*", "y*"]}}]
        },
        "cooldown": {"enabled": 1, "failures": 0, "time_ms": 0, "max_retry_after_ms": -1},
        "telemetry": {"access_log": 1, "token_usage": 1},
        "servces": {},
        "services": {
            "b": {"cluster": "", "credentials": "no", "remove_headers": ["host", 1], "headers": {"host": "${NO}", "x y": "${NOPE}"}},
            "a": {"path": "{x}"}
        },
        "model_apis": [
            {"name": "chat", "match": {"paths": ["", "v1"], "models": [1]}, "primary": {"service": "b", "model": 1, "retries": 11}},
            {"name": "chat", "fallback": {
                "services": [{"service": "c", "priority": 0.5}, {"sevice": "a"}],
                "on_status": [99, "x"], "total_timeout_ms": -5, "enabled": 0
            }},
            {"name": "all", "fallback": {
                "client_models": {"enabled": 1, "max": 0, "then_configured": 1},
                "client_controls": ["x", "y"],
                "on_errors": [1], "except_errors": [2],
                "error_services": {"quota": [{"service": "c", "retries": 11}], "none": [{"service": "d"}]},
                "max_attempts": 0,
                "retry": {"backoff_ms": -1, "max_backoff_ms": -1, "max_retry_after_ms": -1},
                "reserve_ms": -1, "stream_idle_timeout_ms": -1,
                "deliver": "x", "max_held_bytes": 0
            }}
        ]
    }"#;
    let lines = lines(json);
    let paths: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("config: ")?.split_once(": "))
        .map(|(path, _)| path)
        .collect();
    let expected = [
        "servces",
        "buffer_limit_bytes",
        "max_body_bytes",
        "max_hops",
        "credential_names.cookies",
        "credential_names.headers[0]",
        "credential_names.query[0]",
        "services.a.cluster",
        "services.a.path",
        "services.b.cluster",
        "services.b.headers.host",
        r#"services.b.headers["x y"]"#,
        r#"services.b.headers["x y"]"#,
        "services.b.credentials",
        "services.b.remove_headers[0]",
        "services.b.remove_headers[1]",
        "model_apis[0].match.paths[0]",
        "model_apis[0].match.paths[1]",
        "model_apis[0].match.models[0]",
        "model_apis[0].primary.model",
        "model_apis[0].primary.retries",
        "model_apis[1].name",
        "model_apis[1].fallback.enabled",
        "model_apis[1].fallback.services[0].service",
        "model_apis[1].fallback.services[0].priority",
        "model_apis[1].fallback.services[1].sevice",
        "model_apis[1].fallback.services[1].service",
        "model_apis[1].fallback.on_status[0]",
        "model_apis[1].fallback.on_status[1]",
        "model_apis[1].fallback.total_timeout_ms",
        "model_apis[2].fallback.client_models.enabled",
        "model_apis[2].fallback.client_models.max",
        "model_apis[2].fallback.client_models.then_configured",
        "model_apis[2].fallback.client_controls[0]",
        "model_apis[2].fallback.client_controls[1]",
        "model_apis[2].fallback.on_errors[0]",
        "model_apis[2].fallback.except_errors[0]",
        "model_apis[2].fallback.error_services.none",
        "model_apis[2].fallback.error_services.none[0].service",
        "model_apis[2].fallback.error_services.quota[0].service",
        "model_apis[2].fallback.error_services.quota[0].retries",
        "model_apis[2].fallback.max_attempts",
        "model_apis[2].fallback.retry.backoff_ms",
        "model_apis[2].fallback.retry.max_backoff_ms",
        "model_apis[2].fallback.retry.max_retry_after_ms",
        "model_apis[2].fallback.reserve_ms",
        "model_apis[2].fallback.stream_idle_timeout_ms",
        "model_apis[2].fallback.deliver",
        "model_apis[2].fallback.max_held_bytes",
        "access.identity_header",
        "access.default_policy.allow.services[0]",
        "access.default_policy.allow.models[0]",
        "access.default_policy.deny",
        "access.policies[0].identities[0]",
        "access.policies[0].allow",
        "access.policies[1].identities",
        "access.policies[1].deny.services[0]",
        "access.policies[1].deny.services[1]",
        "cooldown.enabled",
        "cooldown.failures",
        "cooldown.time_ms",
        "cooldown.max_retry_after_ms",
        "telemetry.access_log",
        "telemetry.token_usage",
    ];
    assert_eq!(paths, expected, "{lines:#?}");
}

#[test]
fn an_empty_configuration_names_what_is_required() {
    assert_eq!(lines("{}").len(), 2);
}

#[test]
fn a_service_that_is_wrong_is_not_reported_again_where_it_is_used() {
    let uses = r#""model_apis": [{"name": "chat", "primary": {"service": "a"}}],
        "access": {"identity_header": "x-team", "default_policy": {"deny": {"services": ["a", "b*"]}}}"#;
    for services in [r#"{"a": {}, "b1": {"cluster": "b"}}"#, "[]"] {
        let lines = lines(&format!(r#"{{"services": {services}, {uses}}}"#));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[test]
fn a_header_value_is_never_shown() {
    for value in [
        r#""sk-secret\n""#,
        r#""sk-secret ${NO}""#,
        r#""${sk-secret""#,
        r#""${sk-secret}""#,
        r#""${TWO_LINES}""#,
        r#"["sk-secret"]"#,
    ] {
        let shown = lines(&with_service(&format!(
            r#""cluster": "a", "headers": {{"x": {value}}}"#
        )));
        assert!(!shown.concat().contains("secret"), "{shown:?}");
    }
    let shown = lines(&with_service(r#""cluster": "a", "headers": "sk-secret""#));
    assert!(!shown.concat().contains("secret"), "{shown:?}");
    let config = parse(&with_service(
        r#""cluster": "a", "headers": {"x": "sk-secret"}"#,
    ))
    .unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_line_is_one_line_of_bounded_length() {
    let long = "x\\n".repeat(100_000);
    for json in [
        with(&format!(r#""{long}": 1"#)),
        with(&format!(r#""dispatch": "{long}""#)),
        with_api(&format!(r#""primary": {{"service": "{long}"}}"#)),
        with_fallback(&format!(r#""{long}": 1"#)),
        with_fallback(&format!(r#""on_status": "{long}""#)),
        with_fallback(&format!(r#""on_errors": ["{long}"]"#)),
        with_fallback(&format!(
            r#""error_services": {{"{long}": [{{"service": "qwen"}}]}}"#
        )),
        with_policy(&format!(r#""allow": {{"services": ["{long}"]}}"#)),
        with_identity_header(&format!(r#""{long}""#)),
        with_service(&format!(r#""cluster": "{long}""#)),
    ] {
        let line = lines(&json).concat();
        assert!(!line.contains('\n') && line.len() < 1_000, "{line}");
    }
}

#[test]
fn many_mistakes_are_all_reported() {
    let api = |n| format!(r#"{{"name": "api{n}", "primary": {{"service": "none"}}}}"#);
    let apis: Vec<String> = (0..2_000).map(api).collect();
    let json = format!(r#"{{{SERVICES}, "model_apis": [{}]}}"#, apis.join(","));
    assert_eq!(lines(&json).len(), 2_000);
}

const CONTRACT_EXAMPLE: &str = r#"{
    "dispatch": "callout",
    "buffer_limit_bytes": 1048576,
    "max_body_bytes": 786432,
    "services": {
        "openai": {
            "cluster": "openai",
            "authority": "api.openai.com",
            "path": "{path}",
            "headers": {"x-team": "${TEAM}"},
            "credentials": "service",
            "remove_headers": ["anthropic-beta"],
            "models": {"gpt-4o": "gpt-4o-2024-11-20"}
        },
        "qwen": {"cluster": "qwen"},
        "local": {"cluster": "local"}
    },
    "model_apis": [{
        "name": "chat",
        "match": {"paths": ["/v1/chat/completions"], "models": ["gpt-*"], "headers": {"x-tenant": "acme"}},
        "primary": {"service": "openai", "model": "pass-through"},
        "fallback": {
            "enabled": true,
            "services": [
                {"service": "qwen", "model": "qwen-plus", "priority": 20},
                {"service": "local", "model": "pass-through", "priority": 10}
            ],
            "only_backend_errors": false,
            "on_status": ["4xx", "5xx"],
            "first_packet_timeout_ms": 3000,
            "request_timeout_ms": 60000,
            "total_timeout_ms": 0
        }
    }]
}"#;

/// The services of the fallback in their order, each with its model.
fn order(api: &ModelApi) -> Vec<(&str, &ModelChoice)> {
    let targets = &api.fallback.as_ref().unwrap().targets;
    targets
        .iter()
        .map(|target| (target.service.name.as_str(), &target.model))
        .collect()
}

#[test]
fn the_example_of_the_contract_is_read() {
    let config = parse(CONTRACT_EXAMPLE).unwrap();
    let names: Vec<&str> = config
        .services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(names, ["local", "openai", "qwen"]);
    let openai = &config.services[1];
    assert_eq!(
        (openai.cluster.as_str(), openai.authority.as_deref()),
        ("openai", Some("api.openai.com"))
    );
    assert_eq!(openai.headers, [("x-team".to_owned(), "blue".to_owned())]);
    assert!(
        openai.removes_header("anthropic-beta")
            && !config.services[2].removes_header("anthropic-beta")
    );
    let model_name = |requested| openai.model_name(requested).map(|name| &**name);
    assert_eq!(model_name("gpt-4o"), Some("gpt-4o-2024-11-20"));
    assert_eq!(model_name("gpt-4"), None);
    let api = &config.model_apis[0];
    assert_eq!((api.name.as_str(), api.index), ("chat", 0));
    assert_eq!(api.primary.service.as_ref(), Some(openai));
    assert_eq!(
        order(api),
        [
            ("qwen", &ModelChoice::Named("qwen-plus".into())),
            ("local", &ModelChoice::PassThrough)
        ]
    );
    let fallback = api.fallback.as_ref().unwrap();
    assert_eq!(fallback.first_packet_timeout, Some(Duration::from_secs(3)));
    assert_eq!(fallback.request_timeout, Some(Duration::from_secs(60)));
    assert_eq!(fallback.total_timeout, None);
    let acme = |name: &str| (name == "x-tenant").then_some("acme");
    let other = |_: &str| Some("other");
    let path = b"/v1/chat/completions?x=y";
    let candidates = config.candidates(path, acme);
    assert_eq!(candidates.first_for(Some("gpt-4o")), Some(api));
    assert_eq!(candidates.first_for(Some("o3")), None);
    assert_eq!(candidates.unread(), Some(api));
    assert!(config.candidates(path, other).is_empty());
}

#[test]
fn defaults_are_those_of_the_contract() {
    let json = r#"{
        "services": {"a": {"cluster": "b"}},
        "model_apis": [{"name": "x", "fallback": {"services": [{"service": "a"}]}}, {"name": "y", "primary": {}}]
    }"#;
    let config = parse(json).unwrap();
    assert_eq!(
        (config.dispatch, config.max_body_bytes, config.max_hops),
        (Dispatch::Callout, 786_432, None)
    );
    assert_eq!(config.buffer_limit_bytes, 1_048_576);
    assert_eq!((&config.access, config.cooldown), (&None, None));
    assert_eq!(config.telemetry, Telemetry::default());
    let service = &config.services[0];
    assert_eq!(
        (service.authority.as_ref(), service.credentials),
        (None, Credentials::Service)
    );
    assert_eq!(service.path.render(b"/p?q", None), b"/p?q".as_slice());
    assert!(service.headers.is_empty());
    assert!(service.removes_header("cookie") && !service.removes_header("anthropic-beta"));
    let [x, y] = config.model_apis.as_slice() else {
        panic!("two Model APIs")
    };
    assert!(x.paths.is_empty() && x.models.is_empty() && x.headers.is_empty());
    assert_eq!((&x.primary, &y.fallback), (&y.primary, &None));
    assert_eq!(
        (&x.primary.service, &x.primary.model),
        (&None, &ModelChoice::PassThrough)
    );
    assert_eq!(order(x), [("a", &ModelChoice::PassThrough)]);
    let fallback = x.fallback.as_ref().unwrap();
    assert!(!fallback.only_backend_errors);
    assert!((400..=599).all(|status| fallback.on_status.contains(status)));
    assert!(!fallback.on_status.contains(399) && !fallback.on_status.contains(600));
    assert_eq!(fallback.request_timeout, Some(Duration::from_secs(60)));
    assert_eq!(
        (fallback.first_packet_timeout, fallback.total_timeout),
        (None, None)
    );
    assert_eq!(
        (fallback.reserve, fallback.stream_idle_timeout),
        (Duration::ZERO, None)
    );
    assert_eq!((x.primary.retries, fallback.targets[0].retries), (0, 0));
    let retry = Retry {
        backoff: Duration::from_millis(250),
        max_backoff: Duration::from_secs(2),
        max_retry_after: Duration::from_secs(5),
    };
    assert_eq!((fallback.retry, fallback.max_attempts), (retry, None));
    assert!(fallback.on_errors.is_empty() && fallback.except_errors.is_empty());
    assert!(fallback.error_targets.is_empty());
    assert_eq!(
        (fallback.deliver, fallback.max_held_bytes),
        (Deliver::FirstPacket, 524_288)
    );
    assert_eq!(
        (fallback.client_models, fallback.client_controls),
        (None, ClientControls::default())
    );
}

/// The fallback of the only Model API.
fn fallback(json: &str) -> Fallback {
    let config = parse(json).expect(json);
    let api = config.model_apis[0].as_ref().clone();
    api.fallback.expect("a fallback that is enabled")
}

/// Envoy adds what comes in one piece to its buffer before a filter sees it, so a part of it is left for that.
#[test]
fn what_is_held_follows_from_the_buffer_limit() {
    for (limit, body, held) in [
        (1_048_576, 786_432, 524_288),
        (32_768, 24_576, 16_384),
        (1, 1, 1),
        (2, 1, 1),
        (1_073_741_824, 268_435_456, 33_554_432),
    ] {
        let json = format!(
            r#"{{"buffer_limit_bytes": {limit}, {SERVICES}, "model_apis": [{{"name": "chat", "fallback":
                {{"services": [{{"service": "qwen"}}]}}}}]}}"#
        );
        let config = parse(&json).unwrap();
        assert_eq!(
            (config.buffer_limit_bytes, config.max_body_bytes),
            (limit, body)
        );
        assert_eq!(fallback(&json).max_held_bytes, held, "{limit}");
    }
}

#[test]
fn credential_names_are_added_to_those_that_are_known() {
    let config = parse(
        r#"{
            "credential_names": {"headers": ["X-Acme-Key"], "query": ["Sig"]},
            "services": {"client": {"cluster": "a", "credentials": "client"}, "service": {"cluster": "a"}},
            "model_apis": [{"name": "chat"}]
        }"#,
    )
    .unwrap();
    let [client, service] = config.services.as_slice() else {
        panic!("two services")
    };
    for name in ["x-acme-key", "authorization", "cookie", "openai-project"] {
        assert!(service.removes_header(name), "{name}");
        assert!(!client.removes_header(name), "{name}");
    }
    assert!(!service.removes_header("x-acme-keys"));
    let names = &service.credential_names;
    let path = names.without_parameters(b"/v1?sig=1&key=2&x=3");
    assert_eq!(path, b"/v1?x=3".as_slice());
}

#[test]
fn a_service_does_not_get_the_headers_that_are_removed() {
    let config = parse(&with_service(
        r#""cluster": "a", "credentials": "client", "remove_headers": ["X-Acme-*", "anthropic-beta"]"#,
    ))
    .unwrap();
    let service = &config.services[0];
    for (name, is_removed) in [
        ("x-acme-", true),
        ("x-acme-team", true),
        ("x-acme", false),
        ("anthropic-beta", true),
        ("anthropic-version", false),
        ("authorization", false),
    ] {
        assert_eq!(service.removes_header(name), is_removed, "{name}");
    }
    let all = parse(&with_service(r#""cluster": "a", "remove_headers": ["*"]"#)).unwrap();
    // Without these a request is none, or another one.
    for name in [
        ":path",
        ":authority",
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
    ] {
        assert!(!all.services[0].removes_header(name), "{name}");
    }
    assert!(all.services[0].removes_header("accept"));
}

#[test]
fn every_time_and_number_is_read() {
    let fallback = fallback(&with_fallback(
        r#""first_packet_timeout_ms": 1, "request_timeout_ms": 2, "total_timeout_ms": 60,
           "reserve_ms": 30, "stream_idle_timeout_ms": 5, "max_attempts": 6, "max_held_bytes": 7,
           "retry": {"backoff_ms": 8, "max_backoff_ms": 9, "max_retry_after_ms": 10}"#,
    ));
    let times = [
        fallback.first_packet_timeout,
        fallback.request_timeout,
        fallback.total_timeout,
        Some(fallback.reserve),
        fallback.stream_idle_timeout,
        Some(fallback.retry.backoff),
        Some(fallback.retry.max_backoff),
        Some(fallback.retry.max_retry_after),
    ];
    let expected = [1, 2, 60, 30, 5, 8, 9, 10].map(|millis| Some(Duration::from_millis(millis)));
    assert_eq!(times, expected);
    assert_eq!(
        (fallback.max_attempts, fallback.max_held_bytes),
        (Some(6), 7)
    );
    let config = parse(&with(
        r#""max_hops": 1, "cooldown": {"failures": 2, "time_ms": 3, "max_retry_after_ms": 4}"#,
    ))
    .unwrap();
    let cooldown = config.cooldown.unwrap();
    assert_eq!((config.max_hops, cooldown.failures), (Some(1), 2));
    assert_eq!(
        [cooldown.time, cooldown.max_retry_after],
        [3, 4].map(Duration::from_millis)
    );
    let config = parse(&with(r#""telemetry": {"token_usage": true}"#)).unwrap();
    assert_eq!(
        (config.telemetry.access_log, config.telemetry.token_usage),
        (false, true)
    );
}

#[test]
fn the_defaults_of_cooldown_are_those_of_the_reference() {
    let cooldown = parse(&with(r#""cooldown": {}"#)).unwrap().cooldown.unwrap();
    assert_eq!(cooldown.failures, 3);
    assert_eq!(
        [cooldown.time, cooldown.max_retry_after],
        [30, 300].map(Duration::from_secs)
    );
}

#[test]
fn zero_hops_and_a_cooldown_that_is_not_enabled_are_off() {
    let config = parse(&with(r#""max_hops": 0, "cooldown": {"enabled": false}"#)).unwrap();
    assert_eq!((config.max_hops, config.cooldown), (None, None));
}

#[test]
fn retries_are_those_of_their_service() {
    let json = with_api(
        r#""primary": {"retries": 1}, "fallback": {
            "services": [{"service": "qwen", "retries": 2}, {"service": "openai"}],
            "error_services": {"quota": [{"service": "qwen", "retries": 10}]}}"#,
    );
    let config = parse(&json).unwrap();
    let fallback = fallback(&json);
    let retries = |target: &Target| target.retries;
    assert_eq!(config.model_apis[0].primary.retries, 1);
    assert_eq!(
        fallback.targets.iter().map(retries).collect::<Vec<_>>(),
        [2, 0]
    );
    assert_eq!(retries(&fallback.error_targets[0].1[0]), 10);
}

#[test]
fn a_word_may_say_which_statuses_are_failures() {
    for (json, set) in [
        (r#""any""#, StatusSet::ALL),
        (r#""availability""#, StatusSet::AVAILABILITY),
        (r#"["availability"]"#, StatusSet::AVAILABILITY),
        (r#"["availability", "4xx"]"#, StatusSet::ALL),
    ] {
        let fallback = fallback(&with_fallback(&format!(r#""on_status": {json}"#)));
        assert_eq!(fallback.on_status, set, "{json}");
    }
}

#[test]
fn errors_are_named_by_kind_or_by_pattern() {
    let fallback = fallback(&with_fallback(
        r#""on_errors": ["quota"], "except_errors": ["invalid_*"]"#,
    ));
    let quota = ProviderError {
        code: None,
        kind_name: Some("invalid_request_error".to_owned()),
        kind: Some(ErrorKind::Quota),
    };
    let other = ProviderError {
        code: Some("quota".to_owned()),
        kind_name: None,
        kind: None,
    };
    assert!(fallback.on_errors.contains(&quota) && fallback.except_errors.contains(&quota));
    assert!(!fallback.on_errors.contains(&other) && !fallback.except_errors.contains(&other));
}

#[test]
fn the_services_of_an_error_are_in_the_order_of_their_priority() {
    let fallback = fallback(&with_fallback(
        r#""error_services": {
            "rate_limit": [{"service": "openai"}],
            "context_length": [
                {"service": "qwen", "model": "a"},
                {"service": "qwen", "model": "b", "priority": 1},
                {"service": "qwen", "model": "c"}
            ]}"#,
    ));
    let [(first, targets), (second, _)] = fallback.error_targets.as_slice() else {
        panic!("two kinds")
    };
    assert_eq!(
        (first, second),
        (&ErrorKind::ContextLength, &ErrorKind::RateLimit)
    );
    let models: Vec<&ModelChoice> = targets.iter().map(|target| &target.model).collect();
    let expected = ["b", "a", "c"].map(|name| ModelChoice::Named(name.into()));
    assert_eq!(models, expected.iter().collect::<Vec<_>>());
}

#[test]
fn a_request_may_be_all_that_names_models() {
    let models = |max, then_configured| ClientModels {
        max,
        then_configured,
    };
    for (json, expected) in [
        ("{}", models(3, true)),
        (
            r#"{"max": 20, "then_configured": false}"#,
            models(20, false),
        ),
    ] {
        let fallback = fallback(&with_api(&format!(
            r#""fallback": {{"client_models": {json}}}"#
        )));
        assert_eq!(fallback.client_models, Some(expected), "{json}");
        assert!(fallback.targets.is_empty());
    }
    let off = with_fallback(r#""client_models": {"enabled": false}"#);
    assert_eq!(fallback(&off).client_models, None);
}

#[test]
fn a_request_may_ask_for_what_is_listed() {
    let none = ClientControls::default();
    for (json, expected) in [
        (r#"["off"]"#, ClientControls { off: true, ..none }),
        (
            r#"["timeout", "timeout"]"#,
            ClientControls {
                timeout: true,
                ..none
            },
        ),
        (
            r#"["deliver", "off"]"#,
            ClientControls {
                deliver: true,
                off: true,
                ..none
            },
        ),
    ] {
        let fallback = fallback(&with_fallback(&format!(r#""client_controls": {json}"#)));
        assert_eq!(fallback.client_controls, expected, "{json}");
    }
    let complete = fallback(&with_fallback(r#""deliver": "complete""#));
    assert_eq!(complete.deliver, Deliver::Complete);
}

#[test]
fn access_is_decided_by_the_identity() {
    let config = parse(&with(
        r#""access": {
            "identity_header": "X-Team",
            "default_policy": {"deny": {"services": ["*"]}},
            "policies": [
                {"identities": ["red", "blue-*"], "allow": {"services": ["qwen", "primary"], "models": ["qwen-*"]}},
                {"identities": ["admin"]}
            ]}"#,
    ))
    .unwrap();
    let access = config.access.unwrap();
    assert_eq!(access.identity_header, "x-team");
    for (identity, allowed) in [
        ("blue-7", [true, false, true]),
        ("admin", [true, true, true]),
        ("green", [false, false, false]),
    ] {
        let policy = access.policy(Some(identity.as_bytes()));
        let allows = ["qwen", "openai", "primary"].map(|name| policy.allows_service(name));
        assert_eq!(allows, allowed, "{identity}");
    }
    let red = access.policy(Some(b"red"));
    assert!(red.restricts_models() && red.allows_model(Some("qwen-plus"), None));
    assert!(!red.allows_model(Some("gpt-4o"), Some("gpt-4o")) && !red.allows_model(None, None));
    assert_eq!(access.policy(None), &access.default_policy);
}

#[test]
fn the_higher_priority_is_first_and_equal_ones_stay_in_list_order() {
    let target = |(model, priority): (&str, &str)| {
        format!(r#"{{"service": "qwen", "model": "{model}"{priority}}}"#)
    };
    let targets = [
        ("a", ""),
        ("b", r#", "priority": -1"#),
        ("c", r#", "priority": 5"#),
        ("d", r#", "priority": 0"#),
        ("e", r#", "priority": 5"#),
    ];
    let json = with_api(&format!(
        r#""fallback": {{"services": [{}]}}"#,
        targets.map(target).join(",")
    ));
    let config = parse(&json).unwrap();
    let models = order(&config.model_apis[0])
        .into_iter()
        .map(|(_, model)| model.clone());
    let expected = ["c", "e", "a", "d", "b"].map(|name| ModelChoice::Named(name.into()));
    assert_eq!(models.collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_unusual_but_right_is_accepted() {
    for json in [
        with_api(r#""primary": {"model": "x"}"#),
        with_api(
            r#""primary": {"service": "qwen"}, "fallback": {"services": [{"service": "qwen"}, {"service": "qwen"}]}"#,
        ),
        with_api(r#""match": {}"#),
        with_api(r#""match": {"headers": {}, "paths": ["*", "/a**b"], "models": ["*"]}"#),
        with_api(r#""match": {"headers": {":authority": "api.example.com"}}"#),
        with_api(r#""fallback": {"enabled": false}"#),
        with_fallback(
            r#""request_timeout_ms": 0, "first_packet_timeout_ms": 86400000, "on_status": [429, "503"]"#,
        ),
        with_fallback(r#""reserve_ms": 500, "total_timeout_ms": 1000"#),
        with_fallback(r#""reserve_ms": 500, "client_controls": ["timeout"]"#),
        with_fallback(r#""reserve_ms": 0, "total_timeout_ms": 1, "max_held_bytes": 1048576"#),
        with_fallback(
            r#""retry": {"backoff_ms": 60000, "max_backoff_ms": 600000, "max_retry_after_ms": 600000}"#,
        ),
        with_fallback(
            r#""retry": {"backoff_ms": 0, "max_backoff_ms": 0, "max_retry_after_ms": 0}, "max_attempts": 100"#,
        ),
        with_fallback(r#""on_errors": ["*"], "except_errors": ["*"], "on_status": ["any", 429]"#),
        with(
            r#""max_hops": 100, "cooldown": {"failures": 1000, "time_ms": 86400000, "max_retry_after_ms": 0}"#,
        ),
        with(r#""max_body_bytes": 1048576.0"#),
        with(r#""buffer_limit_bytes": 1073741824, "max_body_bytes": 268435456"#),
        with(r#""buffer_limit_bytes": 1"#),
        with(r#""credential_names": {}"#),
        with(
            r#""credential_names": {"headers": ["X-Key", "x-key", "authorization"], "query": ["a b", "K"]}"#,
        ),
        format!(
            r#"{{"buffer_limit_bytes": 33554432, {SERVICES}, "model_apis": [{{"name": "chat", "fallback":
                {{"services": [{{"service": "qwen"}}], "max_held_bytes": 33554432}}}}]}}"#
        ),
        with_service(
            r#""cluster": "a", "remove_headers": ["*", "X-*-Team*", "Authorization"], "credentials": "client""#,
        ),
        with_access(r#""policies": [{"identities": ["*"]}]"#),
        with_policy(
            r#""allow": {"services": ["*", "open*", "primary", "p*"]}, "deny": {"models": ["*"]}"#,
        ),
        with_identity_header(r#""authorization""#),
        with_service(
            r#""cluster": "outbound|443||api.openai.com", "authority": "[::1]:8443", "headers": {"x": "", "y": "${EMPTY}"}, "models": {}"#,
        ),
    ] {
        assert!(parse(&json).is_ok(), "{json}: {:?}", parse(&json));
    }
}

#[test]
fn a_fallback_that_is_not_enabled_is_none() {
    let config = parse(&with_fallback(r#""enabled": false"#)).unwrap();
    assert_eq!(config.model_apis[0].fallback, None);
}

#[test]
fn header_names_are_kept_in_lower_case_and_variables_filled_in() {
    let config = parse(&with_service(
        r#""cluster": "a", "headers": {"X-Team": "t-${TEAM}", "A": "$${TEAM}"}"#,
    ))
    .unwrap();
    let expected = [("a", "${TEAM}"), ("x-team", "t-blue")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(config.services[0].headers, expected);
}
