//! Owns virtual time and a configuration, so that a test reads as a story.

use std::rc::Rc;
use std::time::Duration;

use ai_fallback::core::admission::Head;
use ai_fallback::core::config::{Config, Node, Service};
use ai_fallback::core::cooldown::{Report, Sign};
use ai_fallback::core::fallback::{Effect, Event, Exchange};
use ai_fallback::core::fit::Header;
use ai_fallback::core::outcome::{Ended, Origin, Outcome};
use ai_fallback::core::plan::{Health, Plan, Request};
use ai_fallback::core::progress::{Progress, Room};
use ai_fallback::core::reply::Problem;
use ai_fallback::core::request::RequestBody;
use serde_json::{Value, json};

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A configuration by way of the real parser.
pub fn config(value: &Value) -> Config {
    let node = Node::from_json(value.to_string().as_bytes()).unwrap();
    Config::parse(&node, &|_| None).unwrap()
}

/// The services `a` to `d` and one Model API, with `a` as primary and these rules of fallback.
pub fn api(fallback: Value) -> Value {
    let mut api = json!({"name": "chat", "primary": {"service": "a"}});
    if !fallback.is_null() {
        api["fallback"] = fallback;
    }
    api
}

pub fn plan(fallback: Value, model: Option<&str>) -> Plan {
    plan_of(services(), api(fallback), model)
}

pub fn stream_plan(fallback: Value) -> Plan {
    planned(services(), api(fallback), Some("m"), true)
}

pub fn plan_of(services: Value, api: Value, model: Option<&str>) -> Plan {
    planned(services, api, model, false)
}

pub fn planned(services: Value, api: Value, model: Option<&str>, stream: bool) -> Plan {
    let config = config(&json!({"services": services, "model_apis": [api]}));
    let request = Request {
        model,
        stream,
        ..Request::default()
    };
    Plan::new(&config, &config.model_apis[0], &request, None).unwrap()
}

/// What becomes of a request with this body, by way of the real admission.
pub fn admit(config: &Value, headers: &[(&str, &str)], body: &Value) -> Result<Plan, Problem> {
    let config = self::config(config);
    let headers: Vec<Header> = headers
        .iter()
        .map(|(name, value)| header(name, value))
        .collect();
    let body = body.to_string();
    let head = Head {
        config: &config,
        candidates: &config.candidates(b"/v1/chat/completions", |_| None::<&[u8]>),
        headers: &headers,
    };
    let read = RequestBody::read(body.as_bytes()).unwrap();
    head.plan(&read, body.as_bytes())
        .map(|plan| plan.expect("a Model API"))
}

/// The services `a` to `d`, one Model API with these rules, and more fields.
pub fn config_with(fallback: Value, more: Value) -> Value {
    let mut config = json!({"services": services(), "model_apis": [api(fallback)]});
    for (field, value) in more.as_object().unwrap() {
        config[field] = value.clone();
    }
    config
}

pub fn header(name: &str, value: &str) -> Header {
    (name.to_owned(), value.as_bytes().to_vec())
}

pub fn services() -> Value {
    let service = |name: &str| json!({"cluster": format!("{name}-cluster")});
    json!({"a": service("a"), "b": service("b"), "c": service("c"), "d": service("d")})
}

pub fn service(value: Value) -> Rc<Service> {
    let config = config(&json!({"services": {"it": value}, "model_apis": [{"name": "m"}]}));
    Rc::clone(&config.services[0])
}

/// Rules that fall back to these services, and nothing else set.
pub fn to(services: &[&str]) -> Value {
    let targets: Vec<Value> = services
        .iter()
        .map(|name| json!({"service": name}))
        .collect();
    json!({"services": targets, "request_timeout_ms": 0})
}

/// As [`to`], with more fields.
pub fn to_with(services: &[&str], more: Value) -> Value {
    let mut rules = to(services);
    for (field, value) in more.as_object().unwrap() {
        rules[field] = value.clone();
    }
    rules
}

/// A plan whose services are as `health` says: who cools or is troubled, and until when.
pub fn with_health(mut plan: Plan, health: &[(&str, Health, u64)]) -> Plan {
    plan.check_health(|service, _| {
        let known = health.iter().find(|(name, ..)| *name == service);
        known.map_or((Health::Good, Duration::ZERO), |(_, health, until)| {
            (*health, ms(*until))
        })
    });
    plan
}

/// How an attempt ends by the rules of a plan.
pub fn ended(plan: &Plan, outcome: Outcome) -> Ended {
    Ended::new(outcome, None, None, plan.fallback())
}

/// The attempts in order if each of them is reset, as `service/model`.
pub fn attempts(plan: &Plan) -> Vec<String> {
    let mut progress = Progress::begin(plan);
    let mut all = Vec::new();
    loop {
        all.push(label(plan, progress.current()));
        let ended = ended(plan, Outcome::Reset);
        if !progress.end(plan, ended, Duration::ZERO, Room::default()) {
            return all;
        }
    }
}

/// An attempt as `service/model`.
pub fn label(plan: &Plan, number: usize) -> String {
    let step = plan.step(number).unwrap();
    format!("{}/{}", step.name(), step.model.as_deref().unwrap_or("-"))
}

/// One request on its virtual clock.
pub struct Rig {
    pub now: Duration,
    pub exchange: Exchange,
    /// How the first attempt is made.
    pub first: Effect,
}

impl Rig {
    /// A request that is sent to its primary a while after the clock began, along a route that leads to the
    /// primary alone.
    pub fn begin(plan: Plan) -> Self {
        let now = ms(5_000);
        let mut exchange = Exchange::begin(now, plan);
        let first = exchange.start(now, false);
        Self {
            now,
            exchange,
            first,
        }
    }

    /// A request whose attempts Envoy's router makes.
    pub fn by_router(plan: Plan) -> Self {
        let now = ms(5_000);
        let mut exchange = Exchange::begin(now, plan).by_router();
        let first = exchange.start(now, true);
        assert_eq!(first, Effect::Pass, "the router makes the attempts");
        Self {
            now,
            exchange,
            first,
        }
    }

    /// A streaming request with these rules.
    pub fn stream(fallback: Value) -> Self {
        Self::begin(stream_plan(fallback))
    }

    /// A request with these rules that wants its answer whole.
    pub fn whole(fallback: Value) -> Self {
        Self::begin(plan(fallback, Some("m")))
    }

    /// Lets time pass in which nothing happens. Panics where something is due by then.
    pub fn after(&mut self, millis: u64) -> &mut Self {
        self.now += ms(millis);
        let due = self.exchange.deadline();
        assert!(due.is_none_or(|due| due > self.now), "due before: {due:?}");
        self
    }

    /// Lets time pass until the deadline, and says that it has come.
    pub fn wait(&mut self) -> Effect {
        self.now = self.exchange.deadline().expect("nothing is waited for");
        self.step(&Event::Due)
    }

    pub fn step(&mut self, event: &Event<'_>) -> Effect {
        self.exchange.step(self.now, event)
    }

    /// The primary answers, with headers only so far.
    pub fn headers(&mut self, status: u16) -> Effect {
        self.headers_by(Origin::Service, status)
    }

    pub fn headers_by(&mut self, origin: Origin, status: u16) -> Effect {
        self.step(&Event::Headers {
            origin,
            status,
            retry_after: None,
            end: false,
        })
    }

    /// The primary answers, and asks to be left alone.
    pub fn headers_later(&mut self, status: u16, retry_after: u64) -> Effect {
        self.step(&Event::Headers {
            origin: Origin::Service,
            status,
            retry_after: Some(ms(retry_after)),
            end: false,
        })
    }

    pub fn body(&mut self, text: &str) -> Effect {
        self.bytes(text, false)
    }

    pub fn last_body(&mut self, text: &str) -> Effect {
        self.bytes(text, true)
    }

    /// `text` is the body from its start; the exchange is shown what it asks for.
    fn bytes(&mut self, text: &str, end: bool) -> Effect {
        let size = text.len();
        let wanted = self.exchange.wanted(size, end);
        let (start, length) = wanted.expect("the body is not wanted");
        let bytes = &text.as_bytes()[start..start + length];
        self.step(&Event::Body { size, bytes, end })
    }

    /// The callout brings an answer.
    pub fn answer(&mut self, status: u16, body: &str) -> Effect {
        self.answer_by(Origin::Service, status, body)
    }

    pub fn answer_by(&mut self, origin: Origin, status: u16, body: &str) -> Effect {
        self.step(&Event::Answer {
            origin,
            status,
            retry_after: None,
            body: body.as_bytes(),
        })
    }

    /// The callout brings an answer that asks to be left alone.
    pub fn answer_later(&mut self, status: u16, retry_after: u64) -> Effect {
        self.step(&Event::Answer {
            origin: Origin::Service,
            status,
            retry_after: Some(ms(retry_after)),
            body: b"later",
        })
    }

    pub fn refused(&mut self) -> Effect {
        self.step(&Event::Refused)
    }

    /// The service whose turn it is.
    pub fn at(&self) -> &str {
        self.exchange.current().map_or("nobody", |step| step.name())
    }

    pub fn trail(&self) -> String {
        self.exchange.trail().as_str().to_owned()
    }

    /// What the attempts have said of their services since the last time.
    pub fn reports(&mut self) -> Vec<(String, Sign)> {
        let reports = self.exchange.take_reports().into_iter();
        reports
            .map(|Report { service, sign }| (service, sign))
            .collect()
    }
}

/// A call without a limit of time.
pub const CALL: Effect = Effect::Call {
    timeout: Duration::ZERO,
};

pub const fn call(millis: u64) -> Effect {
    Effect::Call {
        timeout: ms(millis),
    }
}
