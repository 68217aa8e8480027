//! Filters that say who may ask. What they refuse is the answer, wherever they stand, and no service hears of it.

use serde_json::json;

use crate::client::{Answer, Ask};
use crate::filters::{self, API_KEY, BASIC, BEARER, OTHER_API_KEY, TOKEN};
use crate::sight::PROBE;
use crate::support::Envoy;
use crate::world::{Chain, HOST, Mode, PLACES, Place, World, at};

both_modes![
    jwt_authn,
    api_key_auth,
    basic_auth,
    rbac,
    ext_authz,
    oauth2,
    oauth2_answers_401_and_the_code_is_listed,
    csrf,
    ext_authz_whose_server_is_down_stays_closed,
    ext_authz_is_asked_once_for_all_attempts,
    oauth2_whose_secret_does_not_come_stays_closed,
    api_key_auth_that_is_unfinished_stays_closed,
    a_guard_before_ours_is_asked_whoever_makes_the_first_attempt,
    a_guard_behind_a_limit_behind_ours_is_not_asked_where_the_limit_refuses,
];
callout_only![
    "the request is fitted before it goes along Envoy's route":
    ext_authz_behind_ours_is_told_of_the_fitted_request,
    "the filter makes the first attempt itself, by a callout":
    a_guard_behind_ours_is_not_asked_where_the_first_attempt_is_a_callout,
];
router_only![
    "the attempt filter alone fits each attempt":
    ext_authz_behind_ours_is_told_of_the_request_of_the_client,
    "with one service and `deliver: complete` the filter makes the first attempt itself":
    a_guard_behind_ours_is_asked_unless_the_only_attempt_is_a_callout,
];

/// How each may ask that a filter refuses: what the client sends, and what Envoy says of the refusal.
struct Refusal {
    what: &'static str,
    ask: fn(Ask) -> Ask,
    status: u16,
    /// The start of the response code details before ours, where the filter sees what the client sends.
    details: &'static str,
    /// The same behind ours in callout mode, where it sees a key of the service or none.
    fitted: &'static str,
}

struct Guard {
    name: &'static str,
    refusals: &'static [Refusal],
    /// What the client sends to be let in.
    admitted: fn(Ask) -> Ask,
    /// Whether it lets the fitted request in where it would let that of the client in.
    admits_fitted: bool,
}

const CASES: [&str; 3] = ["classes", "listed", "backend"];

pub fn chains() -> Vec<Chain> {
    let all = [
        Chain::both("jwt_authn", &filters::jwt_authn()),
        Chain::both("api_key_auth", &filters::api_key_auth())
            .map(|chain| chain.host(filters::one_allowed_client())),
        Chain::both("basic_auth", &filters::basic_auth("authorization")),
        Chain::both("rbac", &filters::rbac("authorization")),
        Chain::both("ext_authz", &filters::ext_authz("authz")),
        Chain::both("ext_authz-down", &filters::ext_authz("authz-down")),
        Chain::both("oauth2", &filters::oauth2("authorization")),
        Chain::both("csrf", &filters::csrf()),
        Chain::both(
            "oauth2-late",
            &filters::oauth2_without_secret("authorization"),
        ),
        Chain::both(
            "api_key-no-keys",
            &filters::unfinished_api_key_auth(json!({"key_sources": [{"header": "x-api-key"}]})),
        ),
        Chain::both(
            "api_key-no-sources",
            &filters::unfinished_api_key_auth(
                json!({"credentials": [{"key": API_KEY, "client": "client"}]}),
            ),
        ),
        PLACES.map(|place| {
            Chain::new(&at("limited-rbac", place))
                .filter(place, filters::lua(PROBE))
                .filter(place, filters::rbac("authorization"))
        }),
    ];
    all.concat()
}

async fn jwt_authn(world: &World) {
    let guard = Guard {
        name: "jwt_authn",
        refusals: &[
            Refusal {
                what: "no token",
                ask: |ask| ask,
                status: 401,
                details: "jwt_authn_access_denied{Jwt_is_missing}",
                fitted: "jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature",
            },
            Refusal {
                what: "a token that is none",
                ask: |ask| ask.header("authorization", "Bearer e30.e30.e30"),
                status: 401,
                details: "jwt_authn_access_denied{",
                fitted: "jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature",
            },
        ],
        admitted: |ask| ask.header("authorization", &format!("Bearer {TOKEN}")),
        admits_fitted: false,
    };
    guard.shown(world).await;
}

async fn api_key_auth(world: &World) {
    let guard = Guard {
        name: "api_key_auth",
        refusals: &[
            Refusal {
                what: "no key",
                ask: |ask| ask,
                status: 401,
                details: "missing_api_key",
                fitted: "missing_api_key",
            },
            Refusal {
                what: "an unknown key",
                ask: |ask| ask.header("x-api-key", "no such key"),
                status: 401,
                // `unkonwn_api_key` up to Envoy 1.39, `unknown_api_key` from 1.40 on.
                details: "unk",
                fitted: "missing_api_key",
            },
            Refusal {
                what: "a client that is not allowed",
                ask: |ask| ask.header("x-api-key", OTHER_API_KEY),
                status: 403,
                details: "client_not_allowed",
                fitted: "missing_api_key",
            },
        ],
        admitted: |ask| ask.header("x-api-key", API_KEY),
        admits_fitted: false,
    };
    guard.shown(world).await;
}

async fn basic_auth(world: &World) {
    let guard = Guard {
        name: "basic_auth",
        refusals: &[
            Refusal {
                what: "no credentials",
                ask: |ask| ask,
                status: 401,
                details: "no_credential_for_basic_auth",
                fitted: "invalid_scheme_for_basic_auth",
            },
            Refusal {
                what: "another scheme",
                ask: |ask| ask.header("authorization", BEARER),
                status: 401,
                details: "invalid_scheme_for_basic_auth",
                fitted: "invalid_scheme_for_basic_auth",
            },
            Refusal {
                what: "no user and password",
                ask: |ask| ask.header("authorization", "Basic Y2xpZW50"),
                status: 401,
                details: "invalid_format_for_basic_auth",
                fitted: "invalid_scheme_for_basic_auth",
            },
            Refusal {
                what: "a wrong password",
                ask: |ask| ask.header("authorization", "Basic Y2xpZW50Ondyb25n"),
                status: 401,
                details: "invalid_credential_for_basic_auth",
                fitted: "invalid_scheme_for_basic_auth",
            },
        ],
        admitted: |ask| ask.header("authorization", BASIC),
        admits_fitted: false,
    };
    guard.shown(world).await;
}

async fn rbac(world: &World) {
    let guard = Guard {
        name: "rbac",
        refusals: &[Refusal {
            what: "a caller that no policy allows",
            ask: |ask| ask.header("authorization", "Bearer of somebody else"),
            status: 403,
            details: "rbac_access_denied_matched_policy[none]",
            fitted: "rbac_access_denied_matched_policy[none]",
        }],
        admitted: |ask| ask.header("authorization", BEARER),
        admits_fitted: false,
    };
    guard.shown(world).await;
}

async fn ext_authz(world: &World) {
    let guard = Guard {
        name: "ext_authz",
        refusals: &[
            Refusal {
                what: "denied with 403",
                ask: |ask| ask.fault("authz", "403"),
                status: 403,
                details: "ext_authz_denied",
                fitted: "ext_authz_denied",
            },
            Refusal {
                what: "denied with 401",
                ask: |ask| ask.fault("authz", "401"),
                status: 401,
                details: "ext_authz_denied",
                fitted: "ext_authz_denied",
            },
            Refusal {
                what: "denied with 429",
                ask: |ask| ask.fault("authz", "429"),
                status: 429,
                details: "ext_authz_denied",
                fitted: "ext_authz_denied",
            },
            Refusal {
                what: "the server fails",
                ask: |ask| ask.fault("authz", "500"),
                status: 503,
                details: "ext_authz_error",
                fitted: "ext_authz_error",
            },
            Refusal {
                what: "the server breaks",
                ask: |ask| ask.fault("authz", "reset"),
                status: 503,
                details: "ext_authz_error",
                fitted: "ext_authz_error",
            },
        ],
        admitted: |ask| ask.header("authorization", BEARER),
        admits_fitted: true,
    };
    guard.shown(world).await;
}

async fn oauth2(world: &World) {
    let guard = Guard {
        name: "oauth2",
        refusals: &[Refusal {
            what: "a redirect",
            ask: |ask| ask,
            status: 302,
            details: "oauth.missing_credentials",
            fitted: "oauth.missing_credentials",
        }],
        admitted: |ask| ask.header("authorization", BEARER),
        admits_fitted: false,
    };
    guard.shown(world).await;
    for place in PLACES {
        for case in ["classes", "backend"] {
            oauth2_answers_401(world, place, case).await;
        }
    }
}

async fn oauth2_answers_401_and_the_code_is_listed(world: &World) {
    for place in PLACES {
        oauth2_answers_401(world, place, "listed").await;
    }
}

async fn oauth2_answers_401(world: &World, place: Place, case: &str) {
    let chain = at("oauth2", place);
    let denied = world.ask(&chain, case).header("x-no-redirect", "yes");
    let why = "Unauthorized,_and_redirecting_to_OAuth_server_is_not_allowed:_/";
    is_401(world, place, denied, why).await;
    let callback = "/callback/chat/completions?error=access_denied";
    let callback = world.ask(&chain, case).path(callback);
    if world.mode == Mode::Callout && place == Place::Behind {
        // The path is fitted: not a callback any more.
        let answer = callback.send().await;
        assert_eq!(answer.status, 302, "{answer:?}");
        return world.no_request(&answer);
    }
    is_401(world, place, callback, "OAuth_server_returned_an_error:_").await;
}

async fn is_401(world: &World, place: Place, ask: Ask, details: &str) {
    let answer = ask.send().await;
    world.no_request(&answer);
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.attempts(), trail(place), "{answer:?}");
    let logged = world.logged(&answer).details;
    assert!(logged.starts_with(details), "{logged}; {answer:?}");
}

async fn csrf(world: &World) {
    let guard = Guard {
        name: "csrf",
        refusals: &[Refusal {
            what: "a page of another host",
            ask: |ask| ask.header("origin", "http://evil.test"),
            status: 403,
            details: "csrf_origin_mismatch",
            fitted: "csrf_origin_mismatch",
        }],
        admitted: |ask| ask.header("origin", &format!("http://{HOST}")),
        admits_fitted: false,
    };
    guard.shown(world).await;
}

impl Guard {
    async fn shown(&self, world: &World) {
        for place in PLACES {
            for refusal in self.refusals {
                self.refuses(world, place, refusal).await;
            }
        }
        self.admits(world).await;
    }

    /// A refusal is the answer, whatever the Model API says, and no service is asked.
    async fn refuses(&self, world: &World, place: Place, refusal: &Refusal) {
        let chain = at(self.name, place);
        for case in CASES {
            for stream in [false, true] {
                let ask = world.ask(&chain, case);
                let ask = if stream { ask.stream() } else { ask };
                let answer = (refusal.ask)(ask).send().await;
                let what = format!("{chain} {case}, {}: {answer:?}", refusal.what);
                world.no_request(&answer);
                assert_eq!(
                    answer.status.as_u16(),
                    expected_status(world, place, refusal),
                    "{what}"
                );
                if answer.status.as_u16() >= 400 {
                    assert_eq!(answer.attempts(), trail(place), "{what}");
                    assert_eq!(answer.service(), None, "{what}");
                }
                let details = world.logged(&answer).details;
                let expected = match (world.mode, place) {
                    (Mode::Callout, Place::Behind) => refusal.fitted,
                    _ => refusal.details,
                };
                assert!(details.starts_with(expected), "{details}; {what}");
            }
        }
    }

    /// A caller that may ask gets a fallback where the primary fails, and no service gets its credentials.
    async fn admits(&self, world: &World) {
        for place in PLACES {
            let chain = at(self.name, place);
            let ask = (self.admitted)(world.ask(&chain, "classes"));
            let answer = ask.fault("alpha", "503").send().await;
            if place == Place::Behind && world.mode == Mode::Callout && !self.admits_fitted {
                // It sees the request that is fitted to the primary: without what the client asks with.
                world.no_request(&answer);
                assert!(
                    (400..404).contains(&answer.status.as_u16()) || answer.status == 302,
                    "{chain}: {answer:?}"
                );
                continue;
            }
            answer.assert_from("beta", "alpha;503, beta;200");
            no_credential(world, &answer);
        }
    }
}

fn expected_status(world: &World, place: Place, refusal: &Refusal) -> u16 {
    match (world.mode, place) {
        // The key of a client that is not allowed is not there any more.
        (Mode::Callout, Place::Behind) if refusal.details == "client_not_allowed" => 401,
        _ => refusal.status,
    }
}

/// What the client is told of attempts. A filter before ours answers without it.
fn trail(place: Place) -> &'static str {
    match place {
        Place::Before => "",
        Place::Behind => "alpha;intercepted",
    }
}

fn no_credential(world: &World, answer: &Answer) {
    for service in world.services() {
        for request in service.requests_with(&answer.id) {
            let all = format!(
                "{:?}{:?}",
                request.path,
                request
                    .headers
                    .iter()
                    .map(|(name, value)| { format!("{name}: {}", String::from_utf8_lossy(value)) })
                    .collect::<Vec<_>>()
            );
            for secret in [API_KEY, OTHER_API_KEY, BASIC, BEARER, TOKEN] {
                assert!(
                    !all.contains(secret),
                    "{secret} at {}: {all}",
                    service.name()
                );
            }
        }
    }
}

/// With `status_on_error: 503` its answer looks like one that may fall back.
async fn ext_authz_whose_server_is_down_stays_closed(world: &World) {
    for place in PLACES {
        let chain = at("ext_authz-down", place);
        for case in CASES {
            let answer = world.ask(&chain, case).send().await;
            world.no_request(&answer);
            assert_eq!(answer.status, 503, "{chain} {case}: {answer:?}");
            assert_eq!(answer.attempts(), trail(place), "{chain} {case}");
            assert_eq!(world.logged(&answer).details, "ext_authz_error");
        }
    }
}

async fn ext_authz_is_asked_once_for_all_attempts(world: &World) {
    for place in PLACES {
        let answer = world
            .ask(&at("ext_authz", place), "classes")
            .fault("alpha", "503");
        let answer = answer.send().await;
        answer.assert_from("beta", "alpha;503, beta;200");
        world.one_request(&world.authz, &answer);
    }
}

async fn ext_authz_behind_ours_is_told_of_the_fitted_request(world: &World) {
    told(
        world,
        Place::Before,
        "gw.test",
        "/v1/chat/completions",
        BEARER,
    )
    .await;
    let (path, key) = ("/of-alpha/v1/chat/completions", crate::world::ALPHA_KEY);
    told(world, Place::Behind, "alpha.test", path, key).await;
}

async fn ext_authz_behind_ours_is_told_of_the_request_of_the_client(world: &World) {
    for place in PLACES {
        told(world, place, "gw.test", "/v1/chat/completions", BEARER).await;
    }
}

async fn told(world: &World, place: Place, authority: &str, path: &str, key: &str) {
    let ask = world.ask(&at("ext_authz", place), "classes");
    let answer = ask.header("authorization", BEARER).send().await;
    answer.assert_from("alpha", "alpha;200");
    let asked = world.one_request(&world.authz, &answer);
    assert_eq!(asked.authority, authority);
    assert_eq!(asked.path, path);
    assert_eq!(asked.header("authorization"), Some(key));
}

/// A `503` that looks like one that may fall back.
///
async fn oauth2_whose_secret_does_not_come_stays_closed(world: &World) {
    // Envoy 1.36 redirects.
    if Envoy::version() < (1, 39) {
        return;
    }
    stays_closed(world, "oauth2-late", 503, "OAuth2_secrets_are_not_ready").await;
}

async fn api_key_auth_that_is_unfinished_stays_closed(world: &World) {
    stays_closed(world, "api_key-no-keys", 401, "missing_credentials").await;
    stays_closed(world, "api_key-no-sources", 401, "missing_key_sources").await;
}

async fn stays_closed(world: &World, name: &str, status: u16, details: &str) {
    for place in PLACES {
        let chain = at(name, place);
        for case in CASES {
            let answer = world.ask(&chain, case).send().await;
            world.no_request(&answer);
            assert_eq!(answer.status, status, "{chain} {case}: {answer:?}");
            assert_eq!(answer.attempts(), trail(place), "{chain} {case}");
            assert_eq!(world.logged(&answer).details, details);
        }
    }
}

/// Who makes the first attempt: Envoy's router, or the filter by a callout where an answer is held whole or the request names
/// another service itself.
fn first_attempts(world: &World, place: Place) -> [(&'static str, Ask); 4] {
    let ask = |case| world.ask(&at("rbac", place), case);
    let models = json!({"models": ["beta:m", "alpha:n"], "messages": []});
    [
        ("nowhere", ask("nowhere")),
        ("whole", ask("whole")),
        ("models", ask("models").json(&models)),
        ("whole-alone", ask("whole-alone")),
    ]
}

async fn a_guard_before_ours_is_asked_whoever_makes_the_first_attempt(world: &World) {
    for (case, ask) in first_attempts(world, Place::Before) {
        is_asked(world, case, ask, true).await;
    }
}

async fn a_guard_behind_ours_is_not_asked_where_the_first_attempt_is_a_callout(world: &World) {
    for (case, ask) in first_attempts(world, Place::Behind) {
        is_asked(world, case, ask, case == "nowhere").await;
    }
}

async fn a_guard_behind_ours_is_asked_unless_the_only_attempt_is_a_callout(world: &World) {
    for (case, ask) in first_attempts(world, Place::Behind) {
        is_asked(world, case, ask, case != "whole-alone").await;
    }
}

/// Of a caller that may not ask.
async fn is_asked(world: &World, case: &str, ask: Ask, is_asked: bool) {
    let answer = ask.send().await;
    if is_asked {
        assert_eq!(answer.status, 403, "{case}: {answer:?}");
        world.no_request(&answer);
    } else {
        assert_eq!(answer.status, 200, "{case}: {answer:?}");
    }
}

async fn a_guard_behind_a_limit_behind_ours_is_not_asked_where_the_limit_refuses(world: &World) {
    let ask = |place| {
        let ask = world.ask(&at("limited-rbac", place), "classes");
        ask.header("x-lua-refuse", "429")
    };
    let answer = ask(Place::Behind).send().await;
    answer.assert_from("beta", "alpha;intercepted, beta;200");
    let answer = ask(Place::Before).send().await;
    assert_eq!(answer.status, 429, "{answer:?}");
    world.no_request(&answer);
}
