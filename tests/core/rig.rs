//! Owns virtual time and a configuration, so that a test reads as a story.

use std::rc::Rc;
use std::time::Duration;

use ai_fallback::core::config::{Config, Node, Service};
use ai_fallback::core::fallback::{Effect, Event, Exchange};
use ai_fallback::core::outcome::Origin;
use ai_fallback::core::plan::Plan;
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
pub fn plan(fallback: Value, model: Option<&str>) -> Plan {
    let mut api = json!({"name": "chat", "primary": {"service": "a"}});
    if !fallback.is_null() {
        api["fallback"] = fallback;
    }
    plan_of(services(), api, model)
}

pub fn plan_of(services: Value, api: Value, model: Option<&str>) -> Plan {
    let config = config(&json!({"services": services, "model_apis": [api]}));
    Plan::new(
        Rc::clone(&config.model_apis[0]),
        model.map(ToOwned::to_owned),
    )
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

/// One request on its virtual clock.
pub struct Rig {
    pub now: Duration,
    pub exchange: Exchange,
}

impl Rig {
    /// A request that is sent to its primary a while after the clock began.
    pub fn begin(plan: Plan, stream: bool) -> Self {
        let now = ms(5_000);
        let exchange = Exchange::begin(now, plan, stream);
        Self { now, exchange }
    }

    /// A streaming request with these rules.
    pub fn stream(fallback: Value) -> Self {
        Self::begin(plan(fallback, Some("m")), true)
    }

    /// A request with these rules that wants its answer whole.
    pub fn whole(fallback: Value) -> Self {
        Self::begin(plan(fallback, Some("m")), false)
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
        let end = false;
        self.step(&Event::Headers {
            origin,
            status,
            end,
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
        let (start, length) = self.exchange.wanted(size).expect("the body is not wanted");
        let bytes = &text.as_bytes()[start..start + length];
        self.step(&Event::Body { size, bytes, end })
    }

    /// The callout brings an answer.
    pub fn answer(&mut self, status: u16, body: &str) -> Effect {
        self.answer_by(Origin::Service, status, body)
    }

    pub fn answer_by(&mut self, origin: Origin, status: u16, body: &str) -> Effect {
        let body = body.as_bytes();
        self.step(&Event::Answer {
            origin,
            status,
            body,
        })
    }

    pub fn refused(&mut self) -> Effect {
        self.step(&Event::Refused)
    }

    /// The service whose turn it is.
    pub fn at(&self) -> &str {
        self.exchange
            .current()
            .map_or("nobody", |step| step.service.unwrap().name.as_str())
    }

    pub fn trail(&self) -> String {
        self.exchange.trail().as_str().to_owned()
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
