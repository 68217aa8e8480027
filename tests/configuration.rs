//! What the user writes, and what the filter makes of it: a plan, or one line for everything that is
//! wrong.

use std::time::Duration;

use ai_fallback::core::config::{Config, Credentials, Dispatch, ModelApi, ModelChoice, Node};

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

/// Each bad configuration gives exactly this line.
#[test]
fn one_mistake_is_one_line() {
    let cases: &[(String, &str)] = &[
        // The whole.
        ("[]".into(), "$: wrong type (got a list; expected an object with the fields `services` and `model_apis`)"),
        ("{".into(), "$: not valid JSON (got EOF while parsing an object at line 1 column 1; expected a JSON object)"),
        (
            with(r#""dispach": "router""#),
            "dispach: unknown field (got \"dispach\"; expected one of `dispatch`, `max_body_bytes`, `services`, `model_apis`; did you mean `dispatch`?)",
        ),
        (with(r#""a\nb": 1"#), r#"$["a\nb"]: unknown field (got "a\nb"; expected one of `dispatch`, `max_body_bytes`, `services`, `model_apis`)"#),
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
            "services.a.authorty: unknown field (got \"authorty\"; expected one of `cluster`, `authority`, `path`, `headers`, `credentials`, `models`; did you mean `authority`?)",
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
            r#"model_apis[0].fallback.on_status: empty list (got []; expected a list of classes and codes, at least one)"#,
        ),
        (
            with_fallback(r#""on_status": "5xx""#),
            r#"model_apis[0].fallback.on_status: wrong type (got a string; expected a list of classes and codes, at least one)"#,
        ),
        (
            with_fallback(r#""on_status": ["4xx", "2xx"]"#),
            r#"model_apis[0].fallback.on_status[1]: not a status (got "2xx"; expected "4xx", "5xx", or a code from 400 to 599)"#,
        ),
        (
            with_fallback(r#""on_status": ["5XX"]"#),
            r#"model_apis[0].fallback.on_status[0]: not a status (got "5XX"; expected "4xx", "5xx", or a code from 400 to 599)"#,
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
            "model_apis[0].fallback.first_packet_timeout: unknown field (got \"first_packet_timeout\"; expected one of `enabled`, `services`, `only_backend_errors`, `on_status`, `first_packet_timeout_ms`, `request_timeout_ms`, `total_timeout_ms`; did you mean `first_packet_timeout_ms`?)",
        ),
    ];
    assert!(cases.len() >= 45);
    for (json, line) in cases {
        assert_eq!(lines(json), [format!("config: {line}")], "{json}");
    }
}

#[test]
fn all_mistakes_come_at_once() {
    let json = r#"{
        "max_body_bytes": -1,
        "servces": {},
        "services": {
            "b": {"cluster": "", "credentials": "no", "headers": {"host": "${NO}", "x y": "${NOPE}"}},
            "a": {"path": "{x}"}
        },
        "model_apis": [
            {"name": "chat", "match": {"paths": ["", "v1"], "models": [1]}, "primary": {"service": "b", "model": 1}},
            {"name": "chat", "fallback": {
                "services": [{"service": "c", "priority": 0.5}, {"sevice": "a"}],
                "on_status": [99, "x"], "total_timeout_ms": -5, "enabled": 0
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
        "max_body_bytes",
        "services.a.cluster",
        "services.a.path",
        "services.b.cluster",
        "services.b.headers.host",
        r#"services.b.headers["x y"]"#,
        r#"services.b.headers["x y"]"#,
        "services.b.credentials",
        "model_apis[0].match.paths[0]",
        "model_apis[0].match.paths[1]",
        "model_apis[0].match.models[0]",
        "model_apis[0].primary.model",
        "model_apis[1].name",
        "model_apis[1].fallback.enabled",
        "model_apis[1].fallback.services[0].service",
        "model_apis[1].fallback.services[0].priority",
        "model_apis[1].fallback.services[1].sevice",
        "model_apis[1].fallback.services[1].service",
        "model_apis[1].fallback.on_status[0]",
        "model_apis[1].fallback.on_status[1]",
        "model_apis[1].fallback.total_timeout_ms",
    ];
    assert_eq!(paths, expected, "{lines:#?}");
}

#[test]
fn an_empty_configuration_names_what_is_required() {
    assert_eq!(lines("{}").len(), 2);
}

#[test]
fn a_service_that_is_wrong_is_not_reported_again_where_it_is_used() {
    let json =
        r#"{"services": {"a": {}}, "model_apis": [{"name": "chat", "primary": {"service": "a"}}]}"#;
    assert_eq!(lines(json).len(), 1);
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
    "max_body_bytes": 1048576,
    "services": {
        "openai": {
            "cluster": "openai",
            "authority": "api.openai.com",
            "path": "{path}",
            "headers": {"x-team": "${TEAM}"},
            "credentials": "service",
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
    assert_eq!(openai.model_name("gpt-4o"), "gpt-4o-2024-11-20");
    assert_eq!(openai.model_name("gpt-4"), "gpt-4");
    let api = &config.model_apis[0];
    assert_eq!((api.name.as_str(), api.index), ("chat", 0));
    assert_eq!(api.primary.service.as_ref(), Some(openai));
    assert_eq!(
        order(api),
        [
            ("qwen", &ModelChoice::Named("qwen-plus".to_owned())),
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
        (config.dispatch, config.max_body_bytes),
        (Dispatch::Callout, 1_048_576)
    );
    let service = &config.services[0];
    assert_eq!(
        (service.authority.as_ref(), service.credentials),
        (None, Credentials::Service)
    );
    assert_eq!(service.path.render(b"/p?q", None), b"/p?q".as_slice());
    assert!(service.headers.is_empty());
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
    let expected = ["c", "e", "a", "d", "b"].map(|name| ModelChoice::Named(name.to_owned()));
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
        with(r#""max_body_bytes": 1048576.0"#),
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
