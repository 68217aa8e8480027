//! Whatever is configured and whatever happens.

use std::time::Duration;

use ai_fallback::core::fallback::{Effect, Event};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::plan::Plan;
use ai_fallback::core::trail::Trail;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::rig::*;

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const MODELS: [&str; 3] = ["pass-through", "m", "n"];
const ORIGINS: [Origin; 4] = [
    Origin::Service,
    Origin::Gateway,
    Origin::Transport,
    Origin::Timeout,
];
const BODIES: [&str; 7] = [
    "",
    "{}",
    ": hi\n\n",
    "data: {}\n\n",
    "data: {\"error\":1}\n\n",
    "event: error\n",
    "data: {\"half",
];

/// Something that happens after some time.
#[derive(Debug, Clone)]
enum Happening {
    Headers(Origin, u16, bool),
    Body(&'static str, bool),
    Settled,
    NotRetried(Outcome),
    Answer(Origin, u16, &'static str),
    Refused,
}

fn status() -> impl Strategy<Value = u16> {
    select(vec![0, 200, 200, 204, 302, 404, 429, 500, 503])
}

fn happening(by_router: bool) -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        status().prop_map(Outcome::Status),
        Just(Outcome::Reset),
        Just(Outcome::FirstPacketTimeout)
    ];
    let usual = prop_oneof![
        3 => (select(&ORIGINS), status(), any::<bool>()).prop_map(|(o, s, e)| Happening::Headers(o, s, e)),
        3 => (select(&BODIES), any::<bool>()).prop_map(|(b, e)| Happening::Body(b, e)),
        4 => (select(&ORIGINS), status(), select(&BODIES)).prop_map(|(o, s, b)| Happening::Answer(o, s, b)),
        1 => Just(Happening::Refused),
    ];
    let routers = prop_oneof![
        1 => Just(Happening::Settled),
        2 => outcome.prop_map(Happening::NotRetried),
    ];
    let share = u32::from(by_router);
    prop_oneof![4 => usual, share => routers]
}

fn api() -> impl Strategy<Value = Value> {
    let target = (select(&SERVICES), select(&MODELS), -2..3_i32);
    let time = || select(vec![0, 0, 1, 40, 300, 1000]);
    let rules = (vec(target, 1..6), any::<bool>(), time(), time(), time());
    let fallback = rules.prop_map(|(targets, backend, first, request, total)| {
        let target = |(service, model, priority)| json!({"service": service, "model": model, "priority": priority});
        json!({
            "services": targets.into_iter().map(target).collect::<Vec<_>>(),
            "only_backend_errors": backend,
            "first_packet_timeout_ms": first,
            "request_timeout_ms": request,
            "total_timeout_ms": total,
        })
    });
    let primary = option::weighted(0.8, (select(&SERVICES), select(&MODELS)));
    (primary, option::weighted(0.9, fallback)).prop_map(|(primary, fallback)| {
        let mut api = json!({"name": "chat"});
        if let Some((service, model)) = primary {
            api["primary"] = json!({"service": service, "model": model});
        }
        if let Some(fallback) = fallback {
            api["fallback"] = fallback;
        }
        api
    })
}

/// Checks each step, and what it adds up to.
struct Witness {
    rig: Rig,
    began: Duration,
    total: Option<Duration>,
    /// The service and model of each attempt, in order.
    attempts: Vec<(String, Option<String>)>,
    most: usize,
    over: bool,
}

impl Witness {
    fn new(api: Value, model: Option<&str>, stream: bool, by_router: bool) -> Self {
        let plan = || plan_of(services(), api.clone(), model);
        let rules = plan().fallback().cloned();
        let mut rig = Rig::begin(plan(), stream);
        if by_router && plan().after(0).is_some() {
            rig.exchange = rig.exchange.by_router();
        }
        let mut witness = Self {
            began: rig.now,
            total: rules.as_ref().and_then(|rules| rules.total_timeout),
            most: rules.map_or(1, |rules| rules.targets.len() + 1),
            attempts: Vec::new(),
            over: false,
            rig,
        };
        witness.attempt_begins();
        witness
    }

    fn attempt_begins(&mut self) {
        let step = self.rig.exchange.current().expect("an attempt");
        let attempt = (step.name().to_owned(), step.model.map(ToOwned::to_owned));
        assert!(!self.attempts.contains(&attempt), "{attempt:?} again");
        self.attempts.push(attempt);
        assert!(self.attempts.len() <= self.most);
    }

    fn step(&mut self, event: &Event<'_>) {
        let ended_before = self.ended();
        let effect = self.rig.step(event);
        assert!(
            !self.over || effect == Effect::Pass,
            "after the end: {effect:?}"
        );
        match effect {
            Effect::Wait => assert_eq!(self.ended(), ended_before),
            Effect::Call { timeout } => {
                self.within_total(timeout);
                self.attempt_begins();
            }
            Effect::Pass | Effect::Deliver | Effect::Fail(_) => self.over = true,
        }
        assert_eq!(self.rig.exchange.is_over(), self.over);
        self.trail_is_right(effect, event);
    }

    /// Time is let pass, and what is due is told at its time.
    fn pass_time(&mut self, millis: u64) {
        let end = self.rig.now + ms(millis);
        while let Some(due) = self.rig.exchange.deadline().filter(|due| *due <= end) {
            assert!(due >= self.rig.now, "a deadline in the past");
            self.rig.now = due;
            self.step(&Event::Due);
            assert!(
                self.rig.exchange.deadline().is_none_or(|next| next > due),
                "due again at once"
            );
        }
        self.rig.now = end;
    }

    fn within_total(&self, timeout: Duration) {
        let Some(total) = self.total else { return };
        assert!(!timeout.is_zero(), "no limit within a total timeout");
        assert!(self.rig.now + timeout <= self.began + total);
    }

    fn ended(&self) -> usize {
        self.rig
            .trail()
            .split(", ")
            .filter(|entry| !entry.is_empty())
            .count()
    }

    fn trail_is_right(&self, effect: Effect, event: &Event<'_>) {
        if matches!(event, Event::Settled) || self.over && effect == Effect::Pass {
            return;
        }
        let trail = self.rig.trail();
        let names = trail
            .split(", ")
            .filter_map(|entry| entry.split(';').next());
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        let begun = self.attempts.iter().map(|(name, _)| name.as_str());
        let open = usize::from(!self.over);
        let expected: Vec<&str> = begun.take(self.attempts.len() - open).collect();
        assert_eq!(names, expected, "{trail}");
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Headers(origin, status, end) => {
                self.step(&Event::Headers {
                    origin,
                    status,
                    end,
                });
            }
            Happening::Body(text, end) => {
                self.step(&Event::Body {
                    size: text.len(),
                    bytes: text.as_bytes(),
                    end,
                });
            }
            Happening::Settled => self.step(&Event::Settled),
            Happening::NotRetried(outcome) => self.step(&Event::NotRetried(outcome)),
            Happening::Answer(origin, status, body) => {
                let body = body.as_bytes();
                self.step(&Event::Answer {
                    origin,
                    status,
                    body,
                });
            }
            Happening::Refused => self.step(&Event::Refused),
        }
    }
}

/// Ends every attempt that is left, so that each request comes to its end.
fn run_out(witness: &mut Witness) {
    witness.happens(Happening::Headers(Origin::Transport, 503, true));
    for _ in 0..witness.most {
        witness.happens(Happening::Refused);
    }
}

fn model() -> impl Strategy<Value = Option<&'static str>> {
    option::of(select(vec!["m", "n", "o"]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_request_comes_to_one_end(
        api in api(),
        model in model(),
        stream: bool,
        events in vec((0..400_u64, happening(false)), 0..12),
    ) {
        let mut witness = Witness::new(api, model, stream, false);
        for (after, happening) in events {
            witness.pass_time(after);
            witness.happens(happening);
        }
        run_out(&mut witness);
        prop_assert!(witness.over);
        prop_assert_eq!(witness.rig.exchange.deadline(), None);
        prop_assert!(!witness.rig.exchange.has_next());
    }

    /// What the router did is told by a trail; from there on, the same holds.
    #[test]
    fn a_request_that_is_taken_over_comes_to_one_end(
        api in api(),
        model in model(),
        stream: bool,
        made in 0..6_usize,
        last_has_ended: bool,
        events in vec((0..400_u64, happening(true)), 0..8),
    ) {
        let plan = plan_of(services(), api.clone(), model);
        let made = made.min(steps(&plan).len());
        let mut witness = Witness::new(api, model, stream, true);
        if plan.after(0).is_some() && made > 0 {
            let names = steps(&plan);
            let ended = if last_has_ended { made } else { made - 1 };
            let trail: Vec<String> = names[..ended].iter().map(|(name, _)| format!("{name};503;1ms")).collect();
            let outcome = witness.rig.exchange.take_over(Trail::read(trail.join(", ")), made);
            prop_assert_eq!(outcome.is_some(), last_has_ended);
            witness.attempts = names[..made].to_vec();
        }
        for (after, happening) in events {
            witness.pass_time(after);
            witness.happens(happening);
        }
        run_out(&mut witness);
        prop_assert!(witness.over);
        prop_assert_eq!(witness.rig.exchange.deadline(), None);
    }
}

/// All attempts of a plan, in order.
fn steps(plan: &Plan) -> Vec<(String, Option<String>)> {
    std::iter::successors(Some(0), |&attempt| plan.after(attempt))
        .filter_map(|attempt| plan.step(attempt))
        .map(|step| (step.name().to_owned(), step.model.map(ToOwned::to_owned)))
        .collect()
}
