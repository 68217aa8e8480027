//! The whole course of a request, whatever is configured and whatever its services do: made by callouts, and made by
//! Envoy's router with an attempt filter for each attempt.

use std::time::Duration;

use ai_fallback::core::config::Config;
use ai_fallback::core::fallback::{Effect, Event, Exchange};
use ai_fallback::core::judge::Verdict;
use ai_fallback::core::outcome::{Ended, Origin, Outcome};
use ai_fallback::core::plan::{Health, Plan, TIMER_SLACK};
use ai_fallback::core::progress::{Progress, Room};
use ai_fallback::core::watch::{Limits, Watch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::rig::*;

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const NEVER: u64 = 1 << 40;
const BODIES: [&str; 9] = [
    "",
    "{}",
    r#"{"error":{"code":"context_length_exceeded"}}"#,
    r#"{"error":{"type":"insufficient_quota"}}"#,
    ": hi\n\n",
    "data: {}\n\n",
    "data: {\"error\":{\"code\":\"context_length_exceeded\"}}\n\n",
    "data: {}\n\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n",
    "data: {\"half",
];

/// What a service does with an attempt.
#[derive(Debug, Clone)]
struct Act {
    /// Until its headers.
    delay: u64,
    /// From there to each half of its body.
    pause: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Answer {
        status: u16,
        retry_after: Option<u64>,
        body: &'static str,
    },
    Reset,
    Silence,
}

impl Act {
    const RESET: Self = Self {
        delay: 0,
        pause: 0,
        kind: Kind::Reset,
    };
}

fn act(delays: Vec<u64>, pauses: Vec<u64>, silent: bool) -> impl Strategy<Value = Act> {
    let status = select(vec![200, 200, 204, 302, 400, 401, 404, 429, 500, 503]);
    let retry_after = option::weighted(0.3, select(vec![0, 15, 40, 900]));
    let answer = (status, retry_after, select(&BODIES)).prop_map(|(status, retry_after, body)| {
        Kind::Answer {
            status,
            retry_after: retry_after.filter(|_| status >= 400),
            body,
        }
    });
    let other = match silent {
        true => select(vec![Kind::Reset, Kind::Silence]),
        false => select(vec![Kind::Reset]),
    };
    let kind = prop_oneof![4 => answer, 1 => other];
    (select(delays), select(pauses), kind).prop_map(|(delay, pause, kind)| Act {
        delay,
        pause,
        kind,
    })
}

/// What the services do with the attempts in order; any further one is reset.
fn acts(delays: &[u64], pauses: &[u64], silent: bool) -> impl Strategy<Value = Vec<Act>> {
    vec(act(delays.to_vec(), pauses.to_vec(), silent), 0..10)
}

fn target() -> impl Strategy<Value = Value> {
    let model = select(vec!["pass-through", "m", "n"]);
    (select(&SERVICES), model, -1..2_i32, 0..3_u32).prop_map(|(service, model, priority, retries)| {
        json!({"service": service, "model": model, "priority": priority, "retries": retries})
    })
}

/// The times of a fallback: first packet, request, total, a share of the total, idle.
type Times = [Vec<u64>; 5];

fn fallback(times: Times, retry: Value) -> impl Strategy<Value = Value> {
    let [first, request, total, share, idle] = times.map(select);
    let targets = (
        vec(target(), 1..5),
        option::weighted(0.4, vec(target(), 1..3)),
        option::weighted(0.4, vec(target(), 1..3)),
    );
    let what = (
        select(vec![
            json!("any"),
            json!("availability"),
            json!([429, "5xx"]),
            json!([400, 401, 503]),
        ]),
        option::weighted(0.3, select(vec!["quota", "context_length", "overloaded"])),
        option::weighted(0.2, select(vec!["quota", "context_length", "overloaded"])),
        option::weighted(0.4, 1..6_u32),
    );
    let held = (
        select(vec!["first_packet", "complete"]),
        select(vec![8, 1 << 20]),
    );
    let client = option::weighted(0.5, any::<bool>());
    (targets, what, (first, request, total, share, idle), held, client).prop_map(
        move |((targets, context, quota), (status, on, except, max), times, held, client)| {
            let (first, request, total, share, idle) = times;
            let mut rules = json!({
                "services": targets, "on_status": status, "retry": retry,
                "first_packet_timeout_ms": first, "request_timeout_ms": request, "total_timeout_ms": total,
                "reserve_ms": total * share / 100, "stream_idle_timeout_ms": idle,
                "deliver": held.0, "max_held_bytes": held.1,
                "client_controls": ["off", "timeout", "deliver"],
            });
            if context.is_some() || quota.is_some() {
                rules["error_services"] = json!({});
            }
            for (kind, targets) in [("context_length", context), ("quota", quota)] {
                if let Some(targets) = targets {
                    rules["error_services"][kind] = json!(targets);
                }
            }
            for (field, value) in [
                ("on_errors", on.map(|kind| json!([kind]))),
                ("except_errors", except.map(|kind| json!([kind]))),
                ("max_attempts", max.map(|max| json!(max))),
                ("client_models", client.map(|then| json!({"then_configured": then, "max": 5}))),
            ] {
                if let Some(value) = value {
                    rules[field] = value;
                }
            }
            rules
        },
    )
}

/// What a caller may use, by the names that are written in the policy.
#[derive(Debug, Clone)]
struct Policy {
    allow: bool,
    services: Vec<&'static str>,
    models: Vec<&'static str>,
}

fn policy() -> impl Strategy<Value = Option<Policy>> {
    let services = prop::sample::subsequence(SERVICES.to_vec(), 1..4);
    let models = prop::sample::subsequence(vec!["m", "n", "o", "m-of-b"], 0..3);
    let policy = (any::<bool>(), services, models).prop_map(|(allow, services, models)| Policy {
        allow,
        services,
        models,
    });
    option::weighted(0.4, policy)
}

impl Policy {
    fn json(&self) -> Value {
        let mut names = json!({"services": self.services});
        if !self.models.is_empty() {
            names["models"] = json!(self.models);
        }
        let policy = match self.allow {
            true => json!({"allow": names}),
            false => json!({"deny": names}),
        };
        json!({"identity_header": "x-team", "default_policy": policy})
    }

    /// Whether a request may be sent there; a model is known by its own name, or by the one that stands for it.
    fn allows(&self, service: &str, model: Option<&str>) -> bool {
        let named = self.services.contains(&service);
        let asked = model.map(|model| if model == "m-of-b" { "m" } else { model });
        let listed = |model: Option<&str>| model.is_some_and(|model| self.models.contains(&model));
        match self.allow {
            true => named && (self.models.is_empty() || listed(model) || listed(asked)),
            false => !named && !listed(model),
        }
    }
}

/// One request and its configuration.
#[derive(Debug, Clone)]
struct Case {
    config: Value,
    policy: Option<Policy>,
    body: Value,
    headers: Vec<(&'static str, &'static str)>,
    health: Vec<(Health, u64)>,
}

fn case(times: Times, retry: Value) -> impl Strategy<Value = Case> {
    let model = select(vec!["pass-through", "m"]);
    let primary = option::weighted(0.8, (select(&SERVICES), model, 0..3_u32));
    let entry = select(vec![
        "m", "n", "o", "a:m", "b/m", "c:n", "d:org/m", "e:m", "b",
    ]);
    let request = (
        option::weighted(0.8, select(vec!["m", "n", "o"])),
        option::weighted(0.5, vec(entry, 1..4)),
        any::<bool>(),
    );
    let wish = prop::sample::subsequence(
        vec![
            ("x-ai-fallback", "off"),
            ("x-ai-fallback-timeout-ms", "300"),
            ("x-ai-fallback-deliver", "complete"),
        ],
        0..4,
    );
    let wish = prop_oneof![4 => Just(Vec::new()), 1 => wish];
    let health = select(vec![
        Health::Good,
        Health::Good,
        Health::Troubled,
        Health::Cooling,
    ]);
    let rules = option::weighted(0.95, fallback(times, retry));
    (
        primary,
        rules,
        policy(),
        request,
        wish,
        vec((health, 0..3_u64), 4),
    )
        .prop_map(
            |(primary, rules, policy, (model, models, stream), headers, health)| {
                let mut api = json!({"name": "chat"});
                if let Some((service, model, retries)) = primary {
                    api["primary"] =
                        json!({"service": service, "model": model, "retries": retries});
                }
                if let Some(rules) = rules {
                    api["fallback"] = rules;
                }
                let mut services = services();
                services["b"]["models"] = json!({"m": "m-of-b"});
                let mut config = json!({"services": services, "model_apis": [api]});
                if let Some(policy) = &policy {
                    config["access"] = policy.json();
                }
                let mut body = json!({"stream": stream});
                if let Some(model) = model {
                    body["model"] = json!(model);
                }
                if let Some(models) = models {
                    body["models"] = json!(models);
                }
                Case {
                    config,
                    policy,
                    body,
                    headers,
                    health,
                }
            },
        )
}

impl Case {
    /// The plan; `None` where the caller may not have it.
    fn plan(&self) -> Option<Plan> {
        let plan = admit(&self.config, &self.headers, &self.body).ok()?;
        let health: Vec<_> = SERVICES
            .iter()
            .zip(&self.health)
            .map(|(name, (health, until))| (*name, *health, *until))
            .collect();
        Some(with_health(plan, &health))
    }
}

/// The course of a request, and all that was sent.
struct Course<'a> {
    case: &'a Case,
    exchange: Exchange,
    now: Duration,
    began: Duration,
    acts: std::slice::Iter<'a, Act>,
    /// The numbers of the attempts.
    sent: Vec<usize>,
    /// Of an answer that an attempt filter has settled.
    settled: Option<String>,
}

impl<'a> Course<'a> {
    fn begin(
        case: &'a Case,
        plan: &Plan,
        acts: &'a [Act],
        by_router: bool,
        stops_after: usize,
    ) -> Self {
        let now = ms(5_000);
        let mut exchange = Exchange::begin(now, plan.clone());
        if by_router && exchange.may_call() {
            exchange = exchange.by_router();
        }
        let effect = exchange.start(now, by_router);
        let mut course = Self {
            case,
            exchange,
            now,
            began: now,
            acts: acts.iter(),
            sent: Vec::new(),
            settled: None,
        };
        match effect {
            Effect::Pass if course.exchange.is_by_router() => {
                Router::stopping(stops_after).run(&mut course)
            }
            Effect::Pass => {
                course.is_sent(course.exchange.progress().current());
                let effect = course.routed();
                course.go_on(effect);
            }
            effect => course.go_on(effect),
        }
        course
    }

    fn next_act(&mut self) -> Act {
        self.acts.next().cloned().unwrap_or(Act::RESET)
    }

    fn is_sent(&mut self, number: usize) {
        self.sent.push(number);
        let plan = self.exchange.plan();
        let step = plan.step(number).expect("an attempt of the plan");
        assert_ne!(step.health, Health::Cooling, "{} is skipped", step.name());
        if let Some(policy) = &self.case.policy {
            let model = step.model.as_deref();
            assert!(
                policy.allows(step.name(), model),
                "{}/{model:?}",
                step.name()
            );
        }
        if let Some(end) = self.end() {
            assert!(self.now < end, "begun after the end");
        }
        assert!(self.sent.len() <= plan.max_attempts());
    }

    /// When the total timeout is used up.
    fn end(&self) -> Option<Duration> {
        let plan = self.exchange.plan();
        plan.fallback()?;
        Some(self.began + plan.total_timeout()?)
    }

    fn deadline(&self) -> Option<Duration> {
        let due = self.exchange.deadline()?;
        assert!(due >= self.now, "due in the past");
        assert!(self.end().is_none_or(|end| due <= end), "due after the end");
        Some(due)
    }

    fn step(&mut self, event: &Event<'_>) -> Effect {
        self.exchange.step(self.now, event)
    }

    /// An answer along Envoy's route.
    fn routed(&mut self) -> Effect {
        let act = self.next_act();
        let begins = self.now;
        for (after, event) in routed_events(&act) {
            let at = begins + ms(after);
            while let Some(due) = self.deadline().filter(|due| *due <= at) {
                self.now = due;
                let effect = self.step(&Event::Due);
                if !self.exchange.is_routed() {
                    return effect;
                }
                assert!(self.deadline().is_none_or(|next| next > due), "due again");
            }
            self.now = at;
            let effect = self.step(&event);
            if !self.exchange.is_routed() {
                return effect;
            }
            assert_eq!(effect, Effect::Wait);
        }
        unreachable!("the answer has ended");
    }

    /// From an effect on, to the end.
    fn go_on(&mut self, mut effect: Effect) {
        let mut was_called = false;
        while !self.exchange.is_over() {
            effect = match effect {
                Effect::Call { timeout } => {
                    was_called = true;
                    self.called(timeout)
                }
                Effect::Wait => {
                    self.now = self.deadline().expect("it rests");
                    self.step(&Event::Due)
                }
                other => panic!("{other:?} before the end"),
            };
        }
        let is_given = matches!(effect, Effect::Deliver | Effect::Fail(_));
        assert!(is_given || !was_called, "{effect:?}: nothing is routed");
        assert_eq!(self.exchange.deadline(), None);
        assert!(!self.exchange.may_call());
    }

    fn called(&mut self, timeout: Duration) -> Effect {
        let number = self.exchange.progress().current();
        self.is_sent(number);
        let step = self.exchange.plan().step(number).unwrap();
        if step.service.is_none() {
            // The route leads there, and no callout can.
            return self.step(&Event::Refused);
        }
        if let Some(end) = self.end() {
            assert!(!timeout.is_zero(), "no limit within a total timeout");
            assert!(self.now + timeout <= end, "a call past the end");
        }
        let act = self.next_act();
        let (whole, origin, status, retry_after, body) = match act.kind {
            Kind::Answer {
                status,
                retry_after,
                body,
            } => (
                act.delay + 2 * act.pause,
                Origin::Service,
                status,
                retry_after,
                body,
            ),
            Kind::Reset => (act.delay, Origin::Transport, 503, None, "reset"),
            Kind::Silence => (NEVER, Origin::Transport, 503, None, "reset"),
        };
        if !timeout.is_zero() && ms(whole) >= timeout {
            self.now += timeout;
            return self.step(&Event::Answer {
                origin: Origin::Timeout,
                status: 504,
                retry_after: None,
                body: b"timeout",
            });
        }
        self.now += ms(whole);
        self.step(&Event::Answer {
            origin,
            status,
            retry_after: retry_after.map(ms),
            body: body.as_bytes(),
        })
    }

    fn trail(&self) -> String {
        let trail = self.exchange.trail().as_str();
        self.settled.clone().unwrap_or_else(|| trail.to_owned())
    }

    /// What holds for every course.
    fn is_right(&self) {
        let plan = self.exchange.plan();
        let trail = self.trail();
        let entries: Vec<Vec<&str>> = trail
            .split(", ")
            .map(|entry| entry.split(';').collect())
            .collect();
        let is_cooling = |entry: &&Vec<&str>| entry.get(1) == Some(&"cooling");
        let tried: Vec<&Vec<&str>> = entries.iter().filter(|entry| !is_cooling(entry)).collect();
        let names: Vec<&str> = tried.iter().map(|entry| entry[0]).collect();
        let sent: Vec<&str> = self
            .sent
            .iter()
            .map(|&number| plan.step(number).unwrap().name())
            .collect();
        assert_eq!(names, sent, "{trail}");
        for entry in entries.iter().filter(is_cooling) {
            assert_eq!(entry.len(), 2, "{trail}");
            let mut cooling = plan
                .steps()
                .filter(|(_, step)| step.health == Health::Cooling);
            assert!(cooling.any(|(_, step)| step.name() == entry[0]), "{trail}");
        }
        if let Some(max) = plan.fallback().and_then(|rules| rules.max_attempts) {
            assert!(sent.len() <= max, "{trail}");
        }
        if plan.fallback().is_none() {
            assert_eq!(sent.len(), 1, "{trail}");
        }
        self.nothing_is_tried_twice(&tried, &trail);
    }

    /// But by `retries`, one after the other, and never after a timeout or a refused key.
    fn nothing_is_tried_twice(&self, tried: &[&Vec<&str>], trail: &str) {
        let plan = self.exchange.plan();
        let step = |at: usize| plan.step(self.sent[at]).unwrap();
        for (at, number) in self.sent.iter().enumerate() {
            let before = &self.sent[..at];
            let outcome = |at: usize| tried[at][1];
            if at > 0 && before.contains(number) {
                let times = before.iter().filter(|other| *other == number).count();
                assert!(times <= step(at).retries as usize, "{trail}");
                assert_eq!(self.sent[at - 1], *number, "in a row: {trail}");
                let passes = ["reset", "stream_error", "empty", "429", "500", "503"];
                assert!(passes.contains(&outcome(at - 1)), "{trail}");
            } else {
                let mut earlier = (0..at).map(step);
                assert!(!earlier.any(|other| step(at).is_same(other)), "{trail}");
            }
            for earlier in (0..at).filter(|&earlier| outcome(earlier) == "401") {
                assert!(!step(at).is_at_same_service(step(earlier)), "{trail}");
            }
        }
    }
}

/// What comes along a route, and after how many milliseconds.
fn routed_events(act: &Act) -> Vec<(u64, Event<'_>)> {
    let broken = |after| {
        let event = Event::Headers {
            origin: Origin::Transport,
            status: 503,
            retry_after: None,
            end: false,
        };
        vec![(after, event)]
    };
    match &act.kind {
        Kind::Silence => broken(NEVER),
        Kind::Reset => broken(act.delay),
        Kind::Answer {
            status,
            retry_after,
            body,
        } => {
            let headers = Event::Headers {
                origin: Origin::Service,
                status: *status,
                retry_after: retry_after.map(ms),
                end: body.is_empty(),
            };
            let half = body.len() / 2;
            let part = |size: usize| Event::Body {
                size,
                bytes: &body.as_bytes()[..size],
                end: size == body.len(),
            };
            let mut events = vec![(act.delay, headers)];
            if !body.is_empty() {
                events.push((act.delay + act.pause, part(half)));
                events.push((act.delay + 2 * act.pause, part(body.len())));
            }
            events
        }
    }
}

/// Envoy's router, and the attempt filters: what they share passes on as bytes.
struct Router {
    written: Option<Vec<u8>>,
    made: usize,
    /// After so many attempts a circuit breaker is open.
    stops_after: usize,
}

/// How an attempt ended.
enum End {
    /// The answer goes to the client.
    Settled,
    /// The filter asks for a retry, or there is no answer.
    Failed,
    /// The request filter did not wait for it.
    TakenOver(Effect),
}

impl Router {
    fn stopping(stops_after: usize) -> Self {
        Self {
            written: None,
            made: 0,
            stops_after,
        }
    }

    fn run(mut self, course: &mut Course<'_>) {
        let retries = course.exchange.plan().max_attempts() - 1;
        let most = retries.min(self.stops_after);
        loop {
            self.made += 1;
            let attempt = match Attempt::begin(&self, course) {
                Some(attempt) => attempt,
                None => return self.gives_up(course),
            };
            match attempt.run(&mut self, course) {
                End::Settled => {
                    assert_eq!(course.step(&Event::Settled), Effect::Pass);
                    return;
                }
                End::TakenOver(effect) => return course.go_on(effect),
                End::Failed if self.made > most => return self.gives_up(course),
                End::Failed => {}
            }
        }
    }

    fn progress(&self) -> Option<Progress> {
        Progress::decode(self.written.as_ref()?)
    }

    /// The request filter goes on from what is written down.
    fn gives_up(&self, course: &mut Course<'_>) {
        course.exchange.take_over(self.progress(), self.made);
        let effect = course.step(&Event::Abandoned);
        course.go_on(effect);
    }
}

/// As `src/envoy/attempt_filter.rs`.
struct Attempt {
    plan: Plan,
    progress: Progress,
    began: Duration,
    watch: Watch,
    retry_after: Option<Duration>,
    is_decided: bool,
}

impl Attempt {
    /// `None` where nothing is left to try.
    fn begin(router: &Router, course: &Course<'_>) -> Option<Self> {
        let plan = passed_on(course.exchange.plan(), &course.case.config);
        let progress = router.progress().filter(|_| router.made > 1);
        let progress = progress.unwrap_or_else(|| Progress::begin(&plan));
        (!progress.is_exhausted()).then(|| Self {
            watch: Watch::new(&plan, course.now),
            progress,
            plan,
            began: course.now,
            retry_after: None,
            is_decided: false,
        })
    }

    fn run(mut self, router: &mut Router, course: &mut Course<'_>) -> End {
        // The router's timeout runs while the attempt rests.
        let patience = self.plan.patience();
        let timeout = patience.map(|patience| course.now + patience.time);
        let rested = course.now + self.progress.wait();
        if let Some(effect) = self.until(rested, router, course) {
            return End::TakenOver(effect);
        }
        self.began = course.now;
        self.watch = Watch::new(&self.plan, course.now);
        course.is_sent(self.progress.current());
        let act = course.next_act();
        for (after, event) in routed_events(&act) {
            let at = rested + ms(after);
            loop {
                let own = self.watch.waits(self.limits()).map(|(due, _)| due).min();
                let next = own
                    .into_iter()
                    .chain(timeout)
                    .min()
                    .filter(|next| *next < at);
                if let Some(effect) = self.until(next.unwrap_or(at), router, course) {
                    return End::TakenOver(effect);
                }
                if timeout.is_some() && timeout == next {
                    return self.breaks_off(router, course);
                }
                if next.is_none() {
                    break;
                }
                if let Some(outcome) = self.watch.overdue(course.now, self.limits()) {
                    self.end(&outcome.into(), router, course);
                    return End::Failed;
                }
            }
            if let Some(end) = self.sees(&event, router, course) {
                return end;
            }
        }
        unreachable!("the answer has ended");
    }

    /// Lets time pass, until the request filter takes over.
    fn until(&self, at: Duration, router: &Router, course: &mut Course<'_>) -> Option<Effect> {
        while let Some(due) = course.deadline().filter(|due| *due <= at) {
            course.now = due;
            course.exchange.take_over(router.progress(), router.made);
            let effect = course.step(&Event::Due);
            if !course.exchange.is_routed() {
                return Some(effect);
            }
            assert!(course.deadline().is_none_or(|next| next > due), "due again");
        }
        course.now = at;
        None
    }

    fn sees(
        &mut self,
        event: &Event<'_>,
        router: &mut Router,
        course: &mut Course<'_>,
    ) -> Option<End> {
        let verdict = match *event {
            Event::Headers {
                origin: Origin::Transport,
                ..
            } => {
                return Some(self.breaks_off(router, course));
            }
            Event::Headers {
                status,
                retry_after,
                end,
                ..
            } => {
                self.retry_after = retry_after;
                let origin = Origin::Service;
                let verdict = self.watch.on_headers(course.now, origin, status, end);
                if verdict.is_none() && self.plan.delivers_complete() {
                    self.progress.begins_to_answer();
                    router.written = Some(self.progress.encode());
                }
                verdict
            }
            Event::Body { size, bytes, end } => {
                let (start, length) = self.watch.wanted(size, end);
                let bytes = &bytes[start..start + length];
                self.watch.on_body(course.now, size, bytes, end)
            }
            _ => None,
        };
        Some(match self.end(&verdict?, router, course) {
            true => End::Failed,
            false => End::Settled,
        })
    }

    /// No answer came.
    fn breaks_off(&mut self, router: &mut Router, course: &mut Course<'_>) -> End {
        let took = course.now - self.began;
        let outcome = match self.plan.patience() {
            Some(patience) if patience.is_used_up(took + self.progress.wait()) => patience.outcome,
            _ => Outcome::Reset,
        };
        self.end(&outcome.into(), router, course);
        End::Failed
    }

    fn end(&mut self, verdict: &Verdict, router: &mut Router, course: &mut Course<'_>) -> bool {
        self.is_decided = true;
        let rules = self.plan.fallback();
        let retry_after = self.retry_after.take();
        let ended = Ended::new(verdict.outcome, verdict.error.as_ref(), retry_after, rules);
        let room = Room {
            left: course.end().map(|end| end.saturating_sub(course.now)),
            max_wait: self.plan.patience().map(|patience| patience.time / 2),
            random: course.now.as_nanos() as u64,
        };
        let took = course.now - self.began;
        let goes_on = self.progress.end(&self.plan, ended, took, room);
        if goes_on || !verdict.outcome.is_from_service() {
            router.written = Some(self.progress.encode());
        } else {
            course.settled = Some(self.progress.trail().as_str().to_owned());
        }
        goes_on
    }

    fn limits(&self) -> Limits {
        let is_held = self.plan.delivers_complete() && self.watch.has_headers();
        let Some(rules) = self.plan.fallback().filter(|_| is_held && !self.is_decided) else {
            return Limits::default();
        };
        let waits_for_packet =
            self.plan.is_stream() && self.progress.has_next_after_silence(&self.plan);
        Limits {
            first_packet: rules.first_packet_timeout.filter(|_| waits_for_packet),
            answer: None,
            idle: rules.stream_idle_timeout,
        }
    }
}

/// A plan as another VM gets it.
fn passed_on(plan: &Plan, config: &Value) -> Plan {
    let config: Config = crate::rig::config(config);
    let mut bytes = Vec::new();
    plan.put(&mut bytes);
    let taken = Plan::take(&config, &mut bytes.as_slice()).expect("a plan");
    assert_eq!(taken, *plan);
    taken
}

/// Any times.
fn wild() -> Times {
    [
        vec![0, 30, 100],
        vec![0, 50, 300, 1_000],
        vec![0, 100, 500, 2_000],
        vec![0, 0, 20, 50],
        vec![0, 40],
    ]
}

/// Times by which nothing ends but all attempts together.
fn tame() -> Times {
    [
        vec![0],
        vec![0, 1_000],
        vec![0, 500, 800],
        vec![0, 10],
        vec![0],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_course_keeps_its_promises(
        case in case(wild(), json!({"backoff_ms": 40, "max_backoff_ms": 100, "max_retry_after_ms": 300})),
        acts in acts(&[0, 10, 45, 120, 600], &[0, 0, 20, 70], true),
        stops_after in select(vec![0, 1, 2, 99, 99, 99]),
    ) {
        let Some(plan) = case.plan() else { return Ok(()) };
        for by_router in [false, true] {
            Course::begin(&case, &plan, &acts, by_router, stops_after).is_right();
        }
    }

    /// The router can do all that callouts can.
    #[test]
    fn callouts_and_the_router_make_the_same_attempts(
        mut case in case(tame(), json!({"backoff_ms": 20, "max_backoff_ms": 30, "max_retry_after_ms": 30})),
        acts in acts(&[0, 7, 19], &[0], false),
        stops_after in select(vec![0, 1, 2, 99, 99, 99]),
    ) {
        // A callout comes whole, so that more of it is seen than is held.
        if let Some(rules) = case.config["model_apis"][0].get_mut("fallback") {
            rules["max_held_bytes"] = json!(1000);
        }
        // Without rules an answer along the route is judged by its headers.
        let Some(plan) = case.plan().filter(|plan| plan.fallback().is_some()) else { return Ok(()) };
        let [called, routed] = [false, true].map(|by_router| {
            let course = Course::begin(&case, &plan, &acts, by_router, stops_after);
            course.is_right();
            (course.sent.clone(), course.trail())
        });
        prop_assert_eq!(called, routed);
    }
}

/// Less time than this is none: the longest act of a tame course is shorter.
const _: () = assert!(TIMER_SLACK.as_millis() > 19);
