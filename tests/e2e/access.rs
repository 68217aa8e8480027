//! Who may use what: the identity that a filter before ours has set, and what a caller may not have.

use std::sync::OnceLock;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Raw};
use crate::mock::Received;
use crate::world::{MAX_BODY_BYTES, World, case};

both_modes![
    the_identity_is_the_one_that_the_filter_before_has_set,
    without_such_a_filter_the_header_of_the_client_is_believed,
    what_the_route_removes_is_believed_before,
    a_caller_that_is_not_known_has_the_default_policy,
    two_identities_are_none,
    a_primary_that_is_denied_is_answered_403,
    a_model_that_is_denied_is_answered_403,
    an_entry_of_models_that_is_denied_is_answered_403_though_others_are_allowed,
    a_primary_that_is_not_asked_need_not_be_allowed,
    of_the_services_that_know_an_entry_those_that_are_allowed_are_asked,
    a_configured_fallback_that_is_denied_is_left_out,
    services_for_a_kind_of_error_that_are_denied_are_left_out,
    a_denied_service_is_not_retried_and_others_are,
    a_model_has_the_name_that_is_asked_for_and_the_one_that_is_sent,
    a_primary_without_a_name_is_called_primary,
    without_fallback_the_policy_counts_all_the_same,
    a_request_without_a_model_is_denied_where_only_some_models_are_allowed,
    an_unread_request_is_denied_where_models_are_restricted,
    an_unread_request_passes_where_only_services_are_restricted,
    requests_that_belong_to_no_model_api_are_not_checked,
    a_request_that_is_no_post_is_checked_where_it_goes_to_a_named_service,
    a_path_that_only_its_normal_form_would_make_fit_is_refused,
    denied_requests_are_counted,
];

/// By this header a caller shows who it is; the auth filter makes the identity of it.
const KEY: &str = "x-key";
const IDENTITY: &str = "x-consumer";

fn own(world: &World) -> &'static World {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    WORLDS[world.mode as usize].get_or_init(|| {
        let apis = model_apis().into();
        World::with(world.mode, apis, access(), |gateway| {
            gateway.filter_before(auth())
        })
    })
}

/// Without an auth filter.
fn open(world: &World) -> &'static World {
    static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
    WORLDS[world.mode as usize]
        .get_or_init(|| World::configured(world.mode, model_apis(), access()))
}

/// Takes away what the client says of itself, and tells who it is where it has a key.
fn auth() -> Value {
    json!({"name": "auth", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [
            {"remove": IDENTITY},
            {"append": {"header": {"key": IDENTITY, "value": format!("%REQ({KEY})%")}}},
        ]},
    }})
}

fn access() -> Value {
    json!({"access": {
        "identity_header": IDENTITY,
        "default_policy": {"deny": {"services": ["*"]}},
        "policies": [
            {"identities": ["admin"]},
            {"identities": ["no-alpha"], "deny": {"services": ["alpha"]}},
            {"identities": ["no-beta"], "deny": {"services": ["beta*"]}},
            {"identities": ["no-primary"], "deny": {"services": ["primary"]}},
            {"identities": ["some-services"], "allow": {"services": ["alpha", "gamma"]}},
            {"identities": ["only-gpt"], "allow": {"models": ["gpt-*"]}},
            {"identities": ["no-secret"], "deny": {"models": ["secret*"]}},
            {"identities": ["own-names"], "allow": {"models": ["alpha-4o-2024", "beta/*"]}},
            {"identities": ["no-own-names"], "deny": {"models": ["beta/4o"]}},
            {"identities": ["team-*"], "allow": {"services": ["alpha"]}},
        ],
    }})
}

fn model_apis() -> Vec<Value> {
    vec![
        case(
            "granted",
            json!({"primary": {"service": "alpha"}, "fallback": {"client_models": {}, "services": [
                {"service": "beta", "model": "secret-model"},
                {"service": "gamma"},
            ]}}),
        ),
        case(
            "error-kinds",
            json!({"primary": {"service": "alpha"}, "fallback": {
                "services": [{"service": "gamma"}],
                "error_services": {"context_length": [
                    {"service": "beta", "model": "gpt-long"},
                    {"service": "gamma", "model": "secret-long"},
                    {"service": "gamma", "model": "gpt-longest"},
                ]},
            }}),
        ),
        case(
            "retries",
            json!({"primary": {"service": "alpha", "retries": 1}, "fallback": {
                "services": [
                    {"service": "beta", "retries": 2},
                    {"service": "gamma", "retries": 1},
                ],
                "retry": {"backoff_ms": 0},
            }}),
        ),
        case(
            "own-names",
            json!({"primary": {"service": "alpha-names"}, "fallback": {"services": [
                {"service": "beta-names"},
                {"service": "gamma", "model": "other"},
            ]}}),
        ),
        case(
            "by-route",
            json!({"fallback": {"services": [{"service": "beta"}], "client_models": {}}}),
        ),
        case("no-fallback", json!({"primary": {"service": "alpha"}})),
    ]
}

async fn the_identity_is_the_one_that_the_filter_before_has_set(world: &World) {
    let world = own(world);
    for claimed in [None, Some("admin"), Some("")] {
        let ask = |caller| {
            let ask = as_caller(world, "granted", caller);
            match claimed {
                Some(claimed) => ask.header(IDENTITY, claimed),
                None => ask,
            }
        };
        assert_denied(
            world,
            &ask("").without(KEY).send().await,
            "the service `alpha`",
            None,
        );
        let answer = ask("no-alpha").send().await;
        assert_denied(world, &answer, "the service `alpha`", None);
        let answer = ask("no-beta").fault("alpha", "503").send().await;
        answer.assert_from("gamma", "alpha;503, gamma;200");
        for service in [&world.alpha, &world.gamma] {
            let request = world.one_request(service, &answer);
            assert_eq!(values(&request, IDENTITY), ["no-beta"], "{claimed:?}");
        }
    }
}

async fn without_such_a_filter_the_header_of_the_client_is_believed(world: &World) {
    let world = open(world);
    let ask = || world.ask("granted").fault("alpha", "503");
    let answer = ask().header(IDENTITY, "admin").send().await;
    answer.assert_from("beta", "alpha;503, beta;200");
    assert_denied(world, &ask().send().await, "the service `alpha`", None);
}

async fn what_the_route_removes_is_believed_before(world: &World) {
    let removed = json!({"route_config": {"request_headers_to_remove": [IDENTITY]}});
    let apis = model_apis().into();
    let world = World::with(world.mode, apis, access(), |gateway| {
        gateway.manager(removed)
    });
    let ask = world.ask("granted").header(IDENTITY, "admin");
    let answer = ask.send().await;
    answer.assert_from("alpha", "alpha;200");
    let request = world.one_request(&world.alpha, &answer);
    assert_eq!(values(&request, IDENTITY), [""; 0]);
}

async fn a_caller_that_is_not_known_has_the_default_policy(world: &World) {
    let world = open(world);
    for identity in [
        "",
        "Admin",
        "admins",
        "admin, admin",
        "team",
        "unheard-of",
        "\u{e9}",
    ] {
        let answer = world.ask("granted").header(IDENTITY, identity).send().await;
        assert_denied(world, &answer, "the service `alpha`", None);
    }
    let answer = world.ask("granted").header(IDENTITY, "team-7").send().await;
    answer.assert_from("alpha", "alpha;200");
}

async fn two_identities_are_none(world: &World) {
    let world = open(world);
    for (identities, status) in [
        ("x-consumer: admin\r\n", 200),
        ("x-consumer: admin\r\nx-consumer: admin\r\n", 403),
        ("x-consumer: nobody\r\nX-Consumer: admin\r\n", 403),
        ("x-consumer: admin\r\nx-consumer:\r\n", 403),
    ] {
        let mut client = Raw::connect(world.envoy.addr()).await;
        let head = head("granted", identities);
        client
            .write(&format!("{head}content-length: 2\r\n\r\n{{}}"))
            .await;
        let start = client.read_until("\r\n").await;
        assert!(
            start.starts_with(&format!("HTTP/1.1 {status} ")),
            "{identities:?}: {start}"
        );
    }
}

async fn a_primary_that_is_denied_is_answered_403(world: &World) {
    let world = own(world);
    for ask in [
        as_caller(world, "granted", "no-alpha"),
        as_caller(world, "granted", "no-alpha").stream(),
        as_caller(world, "granted", "no-alpha").http2(),
        as_caller(world, "granted", "no-alpha").chunks(&["{\"model\":", "\"m\"}"]),
        as_caller(world, "granted", "no-alpha").messages(),
        as_caller(world, "granted", "no-alpha").json(&json!({"model": "m", "models": ["beta:m"]})),
        // Nobody but the caller is at fault: the reason is its policy, whatever else is denied.
        as_caller(world, "granted", "").model("secret-model"),
    ] {
        assert_denied(world, &ask.send().await, "the service `alpha`", None);
    }
}

async fn a_model_that_is_denied_is_answered_403(world: &World) {
    let world = own(world);
    for (caller, model) in [
        ("only-gpt", "claude-x"),
        ("only-gpt", "GPT-4o"),
        ("only-gpt", ""),
        ("no-secret", "secret"),
        ("no-secret", "secret\u{e9}\"7\""),
    ] {
        for ask in [
            as_caller(world, "granted", caller).model(model),
            as_caller(world, "granted", caller).model(model).messages(),
            as_caller(world, "granted", caller).json(&json!({"model": model, "stream": true})),
        ] {
            let what = format!("the model `{model}`");
            assert_denied(world, &ask.send().await, &what, Some("model"));
        }
    }
    // A long name is not repeated whole.
    let ask =
        as_caller(world, "granted", "no-secret").model(&format!("secret{}", "x".repeat(5000)));
    let what = format!("the model `secret{}`", "x".repeat(194));
    assert_denied(world, &ask.send().await, &what, Some("model"));
}

async fn an_entry_of_models_that_is_denied_is_answered_403_though_others_are_allowed(
    world: &World,
) {
    let world = own(world);
    for (caller, model, models, denied) in [
        ("no-beta", Some("m"), ["alpha:m1", "beta:m2"], "beta:m2"),
        ("no-beta", Some("m"), ["beta/m1", "alpha:m2"], "beta/m1"),
        ("no-beta", None, ["beta:m1", "alpha:m2"], "beta:m1"),
        ("no-alpha", None, ["beta:m1", "m2"], "m2"),
        (
            "some-services",
            None,
            ["alpha:m1", "alpha-h2:m2"],
            "alpha-h2:m2",
        ),
        ("only-gpt", Some("gpt-4"), ["gpt-x", "claude-x"], "claude-x"),
        (
            "only-gpt",
            None,
            ["beta:gpt-x", "alpha:claude-x"],
            "alpha:claude-x",
        ),
        (
            "no-secret",
            Some("m"),
            ["m1", "gamma/secret"],
            "gamma/secret",
        ),
        // The first that is denied is named.
        ("no-secret", None, ["secret-1", "secret-2"], "secret-1"),
    ] {
        let mut body = json!({"models": models, "messages": []});
        if let Some(model) = model {
            body["model"] = model.into();
        }
        for ask in [
            as_caller(world, "granted", caller).json(&body),
            as_caller(world, "granted", caller).json(&body).messages(),
        ] {
            let answer = ask.header("x-mock", "503").send().await;
            let what = format!("the entry of `models` `{denied}`");
            assert_denied(world, &answer, &what, Some("models"));
        }
    }
}

async fn a_primary_that_is_not_asked_need_not_be_allowed(world: &World) {
    let world = own(world);
    let ask = as_caller(world, "granted", "no-alpha");
    let ask = ask.json(&json!({"models": ["beta:m"]}));
    let answer = ask.header("x-mock", "503").send().await;
    assert_eq!(answer.attempts(), "beta;503, beta;503, gamma;503");
    world.no_request(&world.alpha, &answer);
}

async fn of_the_services_that_know_an_entry_those_that_are_allowed_are_asked(world: &World) {
    let world = own(world);
    // `alpha-names` and `beta-names` know it.
    let ask = |caller| {
        let ask = as_caller(world, "granted", caller);
        ask.json(&json!({"models": ["gpt-4o"]}))
            .header("x-mock", "503")
    };
    let answer = ask("admin").send().await;
    let attempts = "alpha-names;503, beta-names;503, beta;503, gamma;503";
    assert_eq!(answer.attempts(), attempts);
    let answer = ask("no-beta").send().await;
    assert_eq!(answer.attempts(), "alpha-names;503, gamma;503");
    let answer = ask("no-own-names").send().await;
    assert_eq!(answer.attempts(), "alpha-names;503, beta;503, gamma;503");
    let answer = ask("some-services").send().await;
    assert_denied(
        world,
        &answer,
        "the entry of `models` `gpt-4o`",
        Some("models"),
    );
}

async fn a_configured_fallback_that_is_denied_is_left_out(world: &World) {
    let world = own(world);
    for (caller, attempts) in [
        ("admin", "alpha;503, beta;503, gamma;503"),
        ("no-beta", "alpha;503, gamma;503"),
        ("some-services", "alpha;503, gamma;503"),
        ("only-gpt", "alpha;503, gamma;503"),
        ("no-secret", "alpha;503, gamma;503"),
        ("team-7", "alpha;503"),
    ] {
        for ask in [
            as_caller(world, "granted", caller),
            as_caller(world, "granted", caller).stream(),
        ] {
            let answer = ask.header("x-mock", "503").send().await;
            assert_eq!(answer.attempts(), attempts, "{caller}");
            assert_eq!(answer.status, 503);
            for service in [&world.alpha, &world.beta, &world.gamma] {
                let was_asked = !service.requests_with(&answer.id).is_empty();
                assert_eq!(was_asked, attempts.contains(service.name()), "{caller}");
            }
        }
    }
}

async fn services_for_a_kind_of_error_that_are_denied_are_left_out(world: &World) {
    let world = own(world);
    for (caller, attempts) in [
        (
            "admin",
            "alpha;400, beta;400, gamma;400, gamma;400, gamma;400",
        ),
        ("no-beta", "alpha;400, gamma;400, gamma;400, gamma;400"),
        ("no-secret", "alpha;400, beta;400, gamma;400, gamma;400"),
        ("team-7", "alpha;400"),
    ] {
        let ask = as_caller(world, "error-kinds", caller);
        let ask = ask.header("x-mock", "400,code=context_length_exceeded");
        let answer = ask.send().await;
        let made = answer.attempts().replace(";context_length", "");
        assert_eq!(made, attempts, "{caller}");
        let secret = world.gamma.requests_with(&answer.id);
        let secret = secret
            .iter()
            .any(|one| one.model().as_deref() == Some("secret-long"));
        assert_eq!(
            secret,
            caller != "no-secret" && caller != "team-7",
            "{caller}"
        );
        assert_eq!(
            world.beta.requests_with(&answer.id).is_empty(),
            caller == "no-beta" || caller == "team-7",
            "{caller}"
        );
    }
}

async fn a_denied_service_is_not_retried_and_others_are(world: &World) {
    let world = own(world);
    for (caller, attempts) in [
        (
            "admin",
            "alpha;503, alpha;503, beta;503, beta;503, beta;503, gamma;503, gamma;503",
        ),
        ("no-beta", "alpha;503, alpha;503, gamma;503, gamma;503"),
        ("team-7", "alpha;503, alpha;503"),
    ] {
        let ask = as_caller(world, "retries", caller).header("x-mock", "503");
        assert_eq!(ask.send().await.attempts(), attempts, "{caller}");
    }
    let answer = as_caller(world, "retries", "no-alpha").send().await;
    assert_denied(world, &answer, "the service `alpha`", None);
}

async fn a_model_has_the_name_that_is_asked_for_and_the_one_that_is_sent(world: &World) {
    let world = own(world);
    let ask = |caller, model: &str| {
        let ask = as_caller(world, "own-names", caller).model(model);
        ask.header("x-mock", "503")
    };
    // `gpt-4o` is `alpha-4o-2024` here and `beta/4o` there.
    for (caller, attempts) in [
        ("admin", "alpha-names;503, beta-names;503, gamma;503"),
        ("only-gpt", "alpha-names;503, beta-names;503"),
        ("own-names", "alpha-names;503, beta-names;503"),
        ("no-own-names", "alpha-names;503, gamma;503"),
    ] {
        assert_eq!(
            ask(caller, "gpt-4o").send().await.attempts(),
            attempts,
            "{caller}"
        );
    }
    let answer = ask("own-names", "third").send().await;
    assert_denied(world, &answer, "the model `third`", Some("model"));
}

async fn a_primary_without_a_name_is_called_primary(world: &World) {
    let world = own(world);
    for body in [json!({"model": "m"}), json!({"models": ["m"]})] {
        let ask = |caller| as_caller(world, "by-route", caller).json(&body);
        let answer = ask("no-primary").send().await;
        assert_eq!(answer.status, 403);
        world.no_request(&world.alpha, &answer);
        // `some-services` are not it either, though the route leads to one of them.
        assert_eq!(ask("some-services").send().await.status, 403);
        let answer = ask("no-beta").fault("alpha", "503").send().await;
        assert_eq!(answer.attempts(), "primary;503");
        let answer = ask("no-alpha").send().await;
        assert_eq!(answer.attempts(), "primary;200");
    }
}

async fn without_fallback_the_policy_counts_all_the_same(world: &World) {
    let world = own(world);
    let ask = |caller| as_caller(world, "no-fallback", caller);
    assert_denied(
        world,
        &ask("no-alpha").send().await,
        "the service `alpha`",
        None,
    );
    let answer = ask("no-secret").model("secret").send().await;
    assert_denied(world, &answer, "the model `secret`", Some("model"));
    ask("no-secret")
        .send()
        .await
        .assert_from("alpha", "alpha;200");
}

async fn a_request_without_a_model_is_denied_where_only_some_models_are_allowed(world: &World) {
    let world = own(world);
    let ask = |caller| as_caller(world, "granted", caller).body("{}");
    let answer = ask("only-gpt").send().await;
    let what = "every model, and the request names none";
    assert_denied(world, &answer, what, Some("model"));
    ask("no-secret")
        .send()
        .await
        .assert_from("alpha", "alpha;200");
}

async fn an_unread_request_is_denied_where_models_are_restricted(world: &World) {
    let world = own(world);
    for caller in ["only-gpt", "no-secret"] {
        for head in UNREAD {
            let (answer, id) = unread(world, caller, head).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 "),
                "{caller} {head}: {answer}"
            );
            let reason = "this caller may not use every model, and the request body is not one whose model can be read";
            assert!(
                answer.contains(&format!(r#""message":"{reason}","#)),
                "{answer}"
            );
            assert!(
                answer.contains(r#""param":null,"code":"access_denied""#),
                "{answer}"
            );
            assert!(world.alpha.requests_with(&id).is_empty(), "{caller} {head}");
        }
        let large = format!("{{\"a\":\"{}", "x".repeat(MAX_BODY_BYTES));
        let (answer, id) = unread(world, caller, &chunked(&large)).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{caller}: {answer}");
        assert!(world.alpha.requests_with(&id).is_empty(), "{caller}");
    }
}

async fn an_unread_request_passes_where_only_services_are_restricted(world: &World) {
    let world = own(world);
    let body = "x".repeat(MAX_BODY_BYTES + 1);
    for (ask, why) in [
        (
            as_caller(world, "granted", "no-beta").body(body.clone()),
            "too_large",
        ),
        (
            as_caller(world, "granted", "no-beta").chunks(&[&body]),
            "too_large",
        ),
        (
            as_caller(world, "granted", "no-beta").header("content-encoding", "gzip"),
            "compressed",
        ),
        (
            as_caller(world, "granted", "team-7").header("content-type", "text/plain"),
            "not_json",
        ),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.attempts(), format!("alpha;200;{why}"));
    }
    for head in UNREAD {
        let (answer, id) = unread(world, "no-alpha", head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{head}: {answer}");
        assert!(
            answer.contains("this caller may not use the service `alpha`"),
            "{answer}"
        );
        assert!(world.alpha.requests_with(&id).is_empty(), "{head}");
    }
}

async fn requests_that_belong_to_no_model_api_are_not_checked(world: &World) {
    let world = own(world);
    for ask in [
        as_caller(world, "granted", "").path("/v1/files"),
        as_caller(world, "granted", "").path("/v1/models?path=/v1//chat/completions"),
        as_caller(world, "no-such-case", ""),
        // The route decides where it goes, and nobody has read it.
        as_caller(world, "by-route", "").method(Method::PUT),
        as_caller(world, "by-route", "").method(Method::GET),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 200);
        world.one_request(&world.alpha, &answer);
    }
}

async fn a_request_that_is_no_post_is_checked_where_it_goes_to_a_named_service(world: &World) {
    let world = own(world);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        for caller in ["", "no-alpha"] {
            let ask = as_caller(world, "granted", caller).method(method.clone());
            let answer = ask.send().await;
            assert_denied(world, &answer, "the service `alpha`", None);
        }
        for caller in ["admin", "no-beta", "team-7"] {
            let ask = as_caller(world, "granted", caller).method(method.clone());
            let answer = ask.send().await;
            assert_eq!(
                (answer.status.as_u16(), answer.attempts()),
                (200, String::new())
            );
            world.one_request(&world.alpha, &answer);
        }
        // A body may name a model, and nothing else does.
        let ask = as_caller(world, "granted", "only-gpt").method(method.clone());
        let answer = ask.clone().send().await;
        assert_eq!(answer.status, 403, "{method}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], "access_denied");
        world.no_request(&world.alpha, &answer);
        let ask = as_caller(world, "granted", "only-gpt").method(method.clone());
        let answer = ask.body("").send().await;
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        world.one_request(&world.alpha, &answer);
    }
}

/// Somebody behind the filter may make it that of a Model API, where it would not have been looked at what the caller may
/// use.
async fn a_path_that_only_its_normal_form_would_make_fit_is_refused(world: &World) {
    let paths = [
        "/v1/chat/completions//",
        "/v1/chat/completions/.",
        "/v1/chat/completions/x/..",
        "/v1/chat/completions/",
        "/v1/chat/completions/?a=b",
        "/v1/chat/completions;a=b",
        "/v1/chat/%63ompletions",
        "/v1/chat/%2563ompletions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%5Ccompletions",
    ];
    let caller = |world: &World, path: &str, caller: &str| {
        let id = world.ask("granted").id;
        let request = head(
            "granted",
            &format!("{KEY}: {caller}\r\nx-test-id: {id}\r\n"),
        );
        let rest = "content-type: application/json\r\ncontent-length: 13\r\n\r\n{\"model\":\"m\"}";
        (request.replace("/v1/chat/completions", path) + rest, id)
    };
    let with_access = own(world);
    for path in paths {
        for who in ["", "admin"] {
            let (request, id) = caller(with_access, path, who);
            let mut client = Raw::connect(with_access.envoy.addr()).await;
            client.write(&request).await;
            let answer = client.read_until("}}").await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
            assert!(answer.contains(r#""code":"invalid_path""#), "{answer}");
            assert!(with_access.alpha.requests_with(&id).is_empty(), "{path}");
        }
    }
    // Where everybody may use everything there is nothing to guard.
    for path in paths {
        let (request, id) = caller(world, path, "");
        let mut client = Raw::connect(world.envoy.addr()).await;
        client.write(&request).await;
        client.read_until("HTTP/1.1 200 ").await;
        let seen = world.alpha.requests_with(&id);
        assert_eq!(seen.len(), 1, "{path}");
        assert_eq!(seen[0].path, path);
    }
}

async fn denied_requests_are_counted(world: &World) {
    let world = World::configured(world.mode, model_apis(), access());
    let ask = |identity| world.ask("granted").header(IDENTITY, identity);
    ask("nobody").send().await;
    ask("only-gpt").model("other").send().await;
    ask("only-gpt")
        .header("content-encoding", "gzip")
        .send()
        .await;
    ask("no-beta")
        .json(&json!({"models": ["beta:m"]}))
        .send()
        .await;
    ask("admin").body("{").send().await;
    ask("team-7").header("x-mock", "503").send().await;
    let counted = [
        "requests reason=denied",
        "requests reason=bad_request",
        "requests result=failed",
        "requests",
        "fallbacks",
    ];
    let counted = counted.map(|what| world.envoy.metric(what));
    assert_eq!(counted, [4, 1, 1, 6, 0]);
}

/// A request of the caller with this key.
fn as_caller(world: &World, case: &str, key: &str) -> Ask {
    world.ask(case).header(KEY, key)
}

/// That the caller was refused this, in the shape of the API that it called, and that nothing was sent.
#[track_caller]
fn assert_denied(world: &World, answer: &Answer, what: &str, param: Option<&str>) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((answer.service(), answer.attempts()), (None, String::new()));
    let message = format!("this caller may not use {what}");
    let of_openai = json!({"error": {
        "message": message, "type": "permission_error", "param": param, "code": "access_denied",
    }});
    let of_anthropic =
        json!({"type": "error", "error": {"type": "permission_error", "message": message}});
    let body = answer.json();
    match body.get("type") {
        Some(_) => assert_eq!(body, of_anthropic),
        None => assert_eq!(body, of_openai),
    }
    for service in [&world.alpha, &world.beta, &world.gamma] {
        world.no_request(service, answer);
    }
}

/// Heads of requests that are not read. Nothing of their bodies is sent.
const UNREAD: [&str; 3] = [
    "content-type: application/json\r\ncontent-length: 300000\r\n\r\n",
    "content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\n",
    "content-type: multipart/form-data; boundary=b\r\ncontent-length: 9\r\n\r\n",
];

/// What comes of a request that is not read, and its id.
async fn unread(world: &World, caller: &str, rest: &str) -> (String, String) {
    let id = world.ask("granted").id;
    let head = head(
        "granted",
        &format!("{KEY}: {caller}\r\nx-test-id: {id}\r\n"),
    );
    let mut client = Raw::connect(world.envoy.addr()).await;
    client.write(&format!("{head}{rest}")).await;
    (client.read_until("}}").await, id)
}

fn chunked(start: &str) -> String {
    let length = start.len();
    format!(
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{start}\r\n"
    )
}

fn head(case: &str, more: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-case: {case}\r\nx-route: alpha\r\n{more}"
    )
}

fn values(request: &Received, name: &str) -> Vec<String> {
    let all = request.headers.iter().filter(|(own, _)| own == name);
    all.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}
