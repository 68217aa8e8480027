//! A worker with our filter, and one request on its way through it.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ai_fallback::core::config::{Config, Node};
use ai_fallback::core::handoff::Handoff;
use ai_fallback::core::outcome::{Ended, Outcome};
use ai_fallback::core::plan::{Plan, Request};
use ai_fallback::core::progress::{Progress, Room};
use proxy_wasm::types::Action;
use serde_json::{Value, json};

use crate::emulator::{Callout, ClientResponse, Plugin, Root, Stream, Vm};

pub const CHAT: &str = "/v1/chat/completions";
pub const BODY: &[u8] = br#"{"model":"gpt-4o","n":1}"#;
pub const STREAM: &[u8] = br#"{"model":"gpt-4o","stream":true}"#;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The services `openai`, `qwen` and `local`, tried in this order.
pub fn config() -> Value {
    json!({
        "services": {
            "openai": {"cluster": "openai-cluster", "authority": "api.openai.com", "headers": {"authorization": "Bearer openai", "x-openai-only": "1"}},
            "qwen": {"cluster": "qwen-cluster", "path": "/qwen{path}", "headers": {"authorization": "Bearer qwen"}},
            "local": {"cluster": "local-cluster"},
        },
        "model_apis": [{
            "name": "chat",
            "primary": {"service": "openai", "model": "gpt-4o-2024-11-20"},
            "fallback": {
                "services": [{"service": "qwen", "model": "qwen-plus"}, {"service": "local"}],
                "request_timeout_ms": 60_000,
            },
        }],
    })
}

/// As [`config`], with more rules of fallback.
pub fn config_with(rules: Value) -> Value {
    let mut config = config();
    let fallback = &mut config["model_apis"][0]["fallback"];
    for (field, value) in rules.as_object().unwrap() {
        fallback[field] = value.clone();
    }
    config
}

/// As `config`, for attempts by Envoy's router.
pub fn by_router(mut config: Value) -> Value {
    config["dispatch"] = json!("router");
    config
}

/// One worker. Its end checks that nothing was done that would break a real Envoy.
pub struct Gateway {
    vm: Vm,
    attempts: Option<Root>,
}

impl Gateway {
    pub fn start(config: &Value) -> Self {
        let text = config.to_string();
        let mut vm =
            Vm::start(ai_fallback::envoy::register, "ai_fallback", text.as_bytes()).unwrap();
        let attempts = (config["dispatch"] == "router").then(|| {
            let root_id = "ai_fallback_attempt";
            let plugin = Plugin {
                root_id,
                name: root_id,
                config: text.as_bytes(),
                ..Plugin::default()
            };
            vm.add_root(plugin).unwrap()
        });
        Self { vm, attempts }
    }

    /// A request that is whole, and on its way to its primary.
    pub fn ask(&mut self, body: &[u8]) -> Stream {
        let mut stream = self.stream();
        stream.request(&headers(body), body);
        assert!(stream.request_complete());
        stream
    }

    /// The attempt filter of attempt number `count`, from 1, in its cluster.
    pub fn attempt(&mut self, request: &mut Stream, count: u64, cluster: &str) -> Stream {
        let mut attempt = self.vm.attempt_stream(request, self.attempts.unwrap());
        for stream in [&mut *request, &mut attempt] {
            stream.set_property(&["upstream", "request_attempt_count"], &count.to_le_bytes());
            stream.set_property(&["xds", "cluster_name"], cluster.as_bytes());
        }
        attempt
    }

    /// An attempt whose request has gone through.
    pub fn attempted(&mut self, request: &mut Stream, count: u64, cluster: &str) -> Stream {
        let mut attempt = self.attempt(request, count, cluster);
        attempt.request_of(request);
        attempt
    }

    pub fn callout(&self) -> Callout {
        let mut callouts = self.callouts();
        assert_eq!(callouts.len(), 1, "{callouts:?}");
        callouts.remove(0)
    }

    /// The service that is called says this.
    pub fn called_service_answers(&mut self, status: &str, body: &[u8]) {
        let headers = [
            (":status", status),
            ("content-type", "application/json"),
            ("x-envoy-upstream-service-time", "7"),
        ];
        let token = self.callout().token;
        self.answer(token, &headers, body, &[]);
        self.wait_for_failed_answer();
    }

    /// An answer to give waits so long for the end of the failed one whose place it takes.
    pub fn wait_for_failed_answer(&mut self) {
        if self.callouts().is_empty() {
            self.advance(ms(500));
        }
    }

    /// Nothing is kept of any stream, and no timer runs.
    pub fn expect_idle(&mut self) {
        self.advance(ms(5_000));
        for gauge in ["active_requests", "active_calls", "deadlines"] {
            assert_eq!(self.metric(gauge), 0, "{gauge}");
        }
        assert_eq!(self.tick_period(), None, "a timer runs");
        if let Some(attempts) = self.attempts {
            assert_eq!(self.tick_period_of(attempts), None, "a timer of attempts");
        }
    }

    pub fn logged(&self, event: &str) -> usize {
        self.logs()
            .iter()
            .filter(|(_, line)| line.contains(event))
            .count()
    }
}

impl Deref for Gateway {
    type Target = Vm;
    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.vm.violations(), [""; 0]);
        }
    }
}

/// What the attempt filters have written down, after attempts that ended like this.
pub fn progress(config: &Value, ends: &[(Outcome, u64)]) -> Vec<u8> {
    let node = Node::from_json(config.to_string().as_bytes()).unwrap();
    let config = Config::parse(&node, &|_| None).unwrap();
    let request = Request {
        model: Some("gpt-4o"),
        ..Request::default()
    };
    let plan = Plan::new(&config, &config.model_apis[0], &request, None).unwrap();
    let mut progress = Progress::begin(&plan);
    for (outcome, took) in ends {
        let ended = Ended::new(*outcome, None, None, plan.fallback());
        progress.end(&plan, ended, ms(*took), Room::default());
    }
    progress.encode()
}

/// The plan that the attempt filters are given for a request.
pub fn handed_over(config: &Value, request: &Stream) -> Option<Handoff> {
    let bytes = request.filter_state("wasm.ai_fallback.plan")?;
    let node = Node::from_json(config.to_string().as_bytes()).unwrap();
    let config = Config::parse(&node, &|_| None).unwrap();
    Some(Handoff::decode(&config, &bytes).expect("a plan of this configuration"))
}

pub fn headers(body: &[u8]) -> Vec<(&'static str, String)> {
    vec![
        (":method", "POST".to_owned()),
        (":path", CHAT.to_owned()),
        (":authority", "gateway".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
        ("authorization", "Bearer client".to_owned()),
        ("x-keep", "1".to_owned()),
    ]
}

/// What Envoy and the services do.
pub trait Upstream {
    /// A service answers with headers.
    fn service_says(&mut self, status: &str, end: bool) -> Action;
    /// A service answers with headers and a whole body.
    fn service_answers(&mut self, status: &str, body: &[u8]) -> Action;
    /// Envoy makes an answer itself.
    fn envoy_answers(&mut self, status: &str, details: &str) -> Action;
    fn answered(&self) -> ClientResponse;
    fn unanswered(&self) -> bool;
}

impl Upstream for Stream {
    fn service_says(&mut self, status: &str, end: bool) -> Action {
        self.set_property(&["response", "code_details"], b"via_upstream");
        self.response_headers(&[(":status", status), ("x-from", "upstream")], end)
    }

    fn service_answers(&mut self, status: &str, body: &[u8]) -> Action {
        self.set_property(&["response", "code_details"], b"via_upstream");
        let length = body.len().to_string();
        let headers = [
            (":status", status),
            ("content-length", &length),
            ("x-from", "upstream"),
        ];
        self.response(&headers, body)
    }

    fn envoy_answers(&mut self, status: &str, details: &str) -> Action {
        self.set_property(&["response", "code_details"], details.as_bytes());
        let headers = [
            (":status", status),
            ("content-length", "6"),
            ("content-type", "text/plain"),
        ];
        self.response(&headers, b"envoy!")
    }

    fn answered(&self) -> ClientResponse {
        self.client_response().expect("an answer")
    }

    fn unanswered(&self) -> bool {
        self.client_response().is_none()
    }
}

/// The trail without its times.
pub fn trail(answer: &ClientResponse) -> Vec<String> {
    let trail = answer.header("x-ai-fallback-attempts").unwrap_or_default();
    let entries = trail.split(", ").filter(|entry| !entry.is_empty());
    entries
        .map(|entry| entry.rsplit_once(';').unwrap().0.to_owned())
        .collect()
}

pub fn service(answer: &ClientResponse) -> Option<String> {
    answer.header("x-ai-fallback-service")
}

/// The router gives the answer of an attempt to the request filter.
pub fn up(attempt: &Stream, request: &mut Stream) -> Action {
    let answer = attempt.answered();
    request.set_property(&["response", "code_details"], b"via_upstream");
    let headers: Vec<(&str, &[u8])> = answer
        .headers
        .0
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut action = request.response_headers(&headers, answer.ended && answer.body.is_empty());
    if !answer.body.is_empty() {
        action = request.response_body(&answer.body, answer.ended);
    }
    action
}
