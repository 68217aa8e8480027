//! A property: whatever filters stand before ours and behind it, a request that one of them refuses since its caller may not
//! ask reaches no service, and no service gets a credential of the client or of another service.

use std::fmt;

use reqwest::Method;

use crate::client::{Answer, Ask};
use crate::filters::{self, API_KEY, BASIC, BEARER, OTHER_API_KEY, TOKEN};
use crate::mock::Received;
use crate::sight::PROBE;
use crate::world::{Chain, HOST, Mode, PLACES, Place, World};

const CHAINS: usize = 40;
const REQUESTS_FOR_EACH: usize = 4;
const MOST_FILTERS: usize = 3;

/// Where each of these looks for what the client has to show: a header that belongs to the client alone.
const TOKEN_IN: &str = "authorization";
const BASIC_IN: &str = "proxy-authorization";
const BEARER_IN: &str = "x-auth-token";
const SESSION_IN: &str = "x-amz-security-token";

#[tokio::test]
async fn refused_requests_and_credentials_stay_at_home_in_callout_mode() {
    holds(Mode::Callout).await;
}

#[tokio::test]
async fn refused_requests_and_credentials_stay_at_home_in_router_mode() {
    if crate::support::Envoy::has_router_mode() {
        holds(Mode::Router).await;
    }
}

async fn holds(mode: Mode) {
    let seed = std::env::var("PLACEMENT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(12);
    let mut dice = Dice(seed);
    let plans: Vec<Plan> = (0..CHAINS).map(|_| Plan::random(&mut dice)).collect();
    let chains = plans.iter().enumerate();
    let chains = chains.map(|(number, plan)| plan.chain(&number.to_string()));
    let world = World::start(mode, chains.collect());
    let mut refused = 0;
    for (number, plan) in plans.iter().enumerate() {
        for _ in 0..REQUESTS_FOR_EACH {
            let caller = Caller::random(&mut dice);
            let ask = caller.ask(&world, &number.to_string());
            let what = format!("seed {seed}, {mode:?}, {plan:?}, {caller:?}");
            let answer = ask.send().await;
            let refuser = plan.refuser(mode, &caller);
            refused += usize::from(refuser.is_some());
            check(&world, &answer, refuser, &what);
        }
    }
    let all = CHAINS * REQUESTS_FOR_EACH;
    assert!(
        (all / 10..all * 9 / 10).contains(&refused),
        "{refused} of {all}"
    );
    for service in world.services() {
        for request in service.requests() {
            keeps_secrets(service.name(), &request);
        }
    }
}

fn check(world: &World, answer: &Answer, refuser: Option<(Kind, Place)>, what: &str) {
    match refuser {
        Some(refuser) => {
            for service in world.services() {
                let all = service.requests_with(&answer.id);
                assert!(
                    all.is_empty(),
                    "{}, not {refuser:?}: {what} {answer:?}",
                    service.name()
                );
            }
            assert!(
                answer.status.as_u16() >= 300,
                "{refuser:?}: {what} {answer:?}"
            );
        }
        None => assert_eq!(answer.status, 200, "{what} {answer:?}"),
    }
}

/// No byte of a credential of the client, or of another service.
fn keeps_secrets(service: &str, request: &Received) {
    let mut all = request.path.clone().into_bytes();
    all.extend_from_slice(request.authority.as_bytes());
    for (name, value) in request.headers.iter().chain(&request.trailers) {
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(value);
    }
    all.extend_from_slice(&request.body);
    let client = [
        TOKEN,
        BASIC,
        BEARER,
        API_KEY,
        OTHER_API_KEY,
        "of-the-client",
        "key=",
    ];
    let others = ["alpha", "beta"]
        .into_iter()
        .filter(|other| *other != service);
    let others = others.map(|other| format!("key-of-{other}"));
    for secret in client.into_iter().map(str::to_owned).chain(others) {
        let is_there = all
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!is_there, "{secret} at {service}: {request:#?}");
    }
}

/// What filters there are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Jwt,
    ApiKey,
    Basic,
    Rbac,
    ExtAuthz,
    Oauth2,
    Csrf,
    Lua,
    Cors,
    Buffer,
    Compressor,
    Decompressor,
    RateLimit,
}

const KINDS: [Kind; 13] = [
    Kind::Jwt,
    Kind::ApiKey,
    Kind::Basic,
    Kind::Rbac,
    Kind::ExtAuthz,
    Kind::Oauth2,
    Kind::Csrf,
    Kind::Lua,
    Kind::Cors,
    Kind::Buffer,
    Kind::Compressor,
    Kind::Decompressor,
    Kind::RateLimit,
];

impl Kind {
    fn filter(self) -> serde_json::Value {
        match self {
            Kind::Jwt => filters::jwt_authn(),
            Kind::ApiKey => filters::api_key_auth(),
            Kind::Basic => filters::basic_auth(BASIC_IN),
            Kind::Rbac => filters::rbac(BEARER_IN),
            Kind::ExtAuthz => filters::ext_authz("authz"),
            Kind::Oauth2 => filters::oauth2(SESSION_IN),
            Kind::Csrf => filters::csrf(),
            Kind::Lua => filters::lua(PROBE),
            Kind::Cors => filters::cors(),
            Kind::Buffer => filters::buffer(100_000),
            Kind::Compressor => filters::compressor(),
            Kind::Decompressor => filters::decompressor(),
            Kind::RateLimit => filters::local_ratelimit(&[]),
        }
    }

    /// Whether it says who may ask, and by what that a fitted request has lost.
    fn needs(self) -> Option<Need> {
        match self {
            Kind::Jwt => Some(Need::Lost(|caller| caller.has_token)),
            Kind::ApiKey => Some(Need::Lost(|caller| caller.has_api_key)),
            Kind::Basic => Some(Need::Lost(|caller| caller.has_basic)),
            Kind::Rbac => Some(Need::Lost(|caller| caller.has_bearer)),
            Kind::Oauth2 => Some(Need::Lost(|caller| caller.has_session)),
            // The host is not the page's any more.
            Kind::Csrf => Some(Need::Lost(|caller| caller.has_origin)),
            Kind::ExtAuthz => Some(Need::Kept(|caller| caller.authz.is_none())),
            _ => None,
        }
    }
}

enum Need {
    Lost(fn(&Caller) -> bool),
    Kept(fn(&Caller) -> bool),
}

/// The filters of a chain.
#[derive(Debug)]
struct Plan {
    before: Vec<Kind>,
    behind: Vec<Kind>,
}

impl Plan {
    fn random(dice: &mut Dice) -> Plan {
        let mut some = |most: usize| {
            let mut kinds: Vec<Kind> = Vec::new();
            for _ in 0..dice.up_to(most + 1) {
                let kind = KINDS[dice.up_to(KINDS.len())];
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            kinds
        };
        Plan {
            before: some(MOST_FILTERS),
            behind: some(MOST_FILTERS - 1),
        }
    }

    fn chain(&self, name: &str) -> Chain {
        let filters = PLACES.into_iter().flat_map(|place| {
            let kinds = self.at(place).iter();
            kinds.map(move |kind| (place, kind.filter()))
        });
        filters.fold(Chain::new(name), |chain, (place, filter)| {
            chain.filter(place, filter)
        })
    }

    fn at(&self, place: Place) -> &[Kind] {
        match place {
            Place::Before => &self.before,
            Place::Behind => &self.behind,
        }
    }

    /// The first filter that refuses this caller.
    fn refuser(&self, mode: Mode, caller: &Caller) -> Option<(Kind, Place)> {
        let all = PLACES.into_iter().flat_map(|place| {
            let kinds = self.at(place).iter();
            kinds.map(move |kind| (*kind, place))
        });
        let mut all = all.filter(|(kind, place)| {
            let is_fitted = mode == Mode::Callout && *place == Place::Behind;
            // Only what may change something is checked.
            if *kind == Kind::Csrf && caller.kind == Asks::Get {
                return false;
            }
            match kind.needs() {
                Some(Need::Lost(has)) => is_fitted || !has(caller),
                Some(Need::Kept(has)) => !has(caller),
                None => false,
            }
        });
        all.next()
    }
}

/// Who asks, and how.
struct Caller {
    case: &'static str,
    stream: bool,
    kind: Asks,
    has_token: bool,
    has_api_key: bool,
    has_basic: bool,
    has_bearer: bool,
    has_session: bool,
    has_origin: bool,
    authz: Option<&'static str>,
    fault: &'static str,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    Chat,
    Tokens,
    Get,
    Text,
    Packed,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = [
            ("token", self.has_token),
            ("api key", self.has_api_key),
            ("basic", self.has_basic),
            ("bearer", self.has_bearer),
            ("session", self.has_session),
            ("origin", self.has_origin),
        ];
        let shown: Vec<&str> = shown
            .iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| *name)
            .collect();
        write!(
            f,
            "{} {:?} stream {} with {shown:?}, authz {:?}, alpha {:?}",
            self.case, self.kind, self.stream, self.authz, self.fault
        )
    }
}

impl Caller {
    fn random(dice: &mut Dice) -> Caller {
        // Most callers may do most things, or no request would come far.
        let mut has = || dice.up_to(8) > 0;
        let [
            has_token,
            has_api_key,
            has_basic,
            has_bearer,
            has_session,
            has_origin,
        ] = std::array::from_fn(|_| has());
        let kind = match dice.up_to(8) {
            0 => Asks::Tokens,
            1 => Asks::Get,
            2 => Asks::Text,
            3 => Asks::Packed,
            _ => Asks::Chat,
        };
        let faults = ["", "503", "503,stall", "reset", "429"];
        Caller {
            case: ["classes", "listed", "backend"][dice.up_to(3)],
            stream: dice.up_to(2) == 0,
            has_token,
            has_api_key,
            has_basic,
            has_bearer,
            has_session,
            has_origin,
            authz: [None, None, None, Some("403"), Some("500"), Some("429")][dice.up_to(6)],
            // Only these can fall back.
            fault: if kind == Asks::Chat {
                faults[dice.up_to(faults.len())]
            } else {
                ""
            },
            kind,
        }
    }

    fn ask(&self, world: &World, chain: &str) -> Ask {
        let path = match self.kind {
            Asks::Tokens => "/v1/messages/count_tokens",
            _ => "/v1/chat/completions",
        };
        let key = if self.has_api_key {
            API_KEY
        } else {
            OTHER_API_KEY.trim_start_matches("key")
        };
        let ask = world.ask(chain, self.case);
        let ask = if self.stream { ask.stream() } else { ask };
        let ask = ask.path(&format!("{path}?alt=sse&key={key}"));
        let ask = match self.kind {
            Asks::Get => ask.method(Method::GET).body(""),
            Asks::Text => ask.header("content-type", "text/plain").body("some text"),
            Asks::Packed => ask.header("content-encoding", "br").body("no such thing"),
            Asks::Chat | Asks::Tokens => ask,
        };
        let wrong = |has: bool, value: &str| match has {
            true => value.to_owned(),
            false => "wrong-credential-of-the-client".to_owned(),
        };
        let origin = if self.has_origin { HOST } else { "evil.test" };
        let ask = ask
            .header(
                TOKEN_IN,
                &format!("Bearer {}", wrong(self.has_token, TOKEN)),
            )
            .header(BASIC_IN, &wrong(self.has_basic, BASIC))
            .header(BEARER_IN, &wrong(self.has_bearer, BEARER))
            .header(SESSION_IN, &wrong(self.has_session, BEARER))
            .header("cookie", "session=cookie-of-the-client")
            .header("openai-organization", "organization-of-the-client")
            .header("accept-encoding", "gzip")
            .header("origin", &format!("http://{origin}"))
            .fault("alpha", self.fault);
        match self.authz {
            Some(status) => ask.fault("authz", status),
            None => ask,
        }
    }
}

/// SplitMix64: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z % end as u64) as usize
    }
}
