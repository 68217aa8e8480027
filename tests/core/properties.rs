//! Whatever is configured and whatever happens.

use std::time::Duration;

use ai_fallback::core::fallback::{Effect, Event};
use ai_fallback::core::outcome::{Origin, Outcome};
use ai_fallback::core::progress::{Progress, Room};
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
    Abandoned,
    Answer(Origin, u16, &'static str),
    Refused,
}

fn status() -> impl Strategy<Value = u16> {
    select(vec![0, 200, 200, 204, 302, 404, 429, 500, 503])
}

fn happening(by_router: bool) -> impl Strategy<Value = Happening> {
    let usual = prop_oneof![
        3 => (select(&ORIGINS), status(), any::<bool>()).prop_map(|(o, s, e)| Happening::Headers(o, s, e)),
        3 => (select(&BODIES), any::<bool>()).prop_map(|(b, e)| Happening::Body(b, e)),
        4 => (select(&ORIGINS), status(), select(&BODIES)).prop_map(|(o, s, b)| Happening::Answer(o, s, b)),
        1 => Just(Happening::Refused),
    ];
    let routers = prop_oneof![
        1 => Just(Happening::Settled),
        2 => Just(Happening::Abandoned),
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
    attempts: Vec<String>,
    most: usize,
    over: bool,
}

impl Witness {
    fn new(api: Value, model: Option<&str>, stream: bool, by_router: bool) -> Self {
        let plan = planned(services(), api, model, stream);
        let (total, most) = (plan.total_timeout(), plan.max_attempts());
        let rig = match by_router && attempts(&plan).len() > 1 {
            true => Rig::by_router(plan),
            false => Rig::begin(plan),
        };
        let mut witness = Self {
            began: rig.now,
            total,
            most,
            attempts: Vec::new(),
            over: false,
            rig,
        };
        witness.attempt_begins();
        witness
    }

    fn attempt_begins(&mut self) {
        let progress = self.rig.exchange.progress();
        let attempt = label(self.rig.exchange.plan(), progress.current());
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
        let name = |attempt: &'_ String| attempt.split('/').next().map(ToOwned::to_owned);
        let begun = self.attempts.iter().filter_map(name);
        let open = usize::from(!self.over);
        let expected: Vec<String> = begun.take(self.attempts.len() - open).collect();
        assert_eq!(names, expected, "{trail}");
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Headers(origin, status, end) => {
                self.step(&Event::Headers {
                    origin,
                    status,
                    retry_after: None,
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
            Happening::Abandoned => {
                // The attempt that is next was not made.
                if self.rig.exchange.is_routed() {
                    self.attempts.truncate(self.rig.exchange.progress().made());
                }
                self.step(&Event::Abandoned);
            }
            Happening::Answer(origin, status, body) => {
                let body = body.as_bytes();
                self.step(&Event::Answer {
                    origin,
                    status,
                    retry_after: None,
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
        prop_assert!(!witness.rig.exchange.may_call());
    }

    /// What the router did is told by a progress; from there on, the same holds.
    #[test]
    fn a_request_that_is_taken_over_comes_to_one_end(
        api in api(),
        model in model(),
        stream: bool,
        made in 0..6_usize,
        last_has_ended: bool,
        events in vec((0..400_u64, happening(true)), 0..8),
    ) {
        let mut witness = Witness::new(api, model, stream, true);
        if witness.rig.exchange.is_by_router() && made > 0 {
            let plan = witness.rig.exchange.plan();
            let all = attempts(plan);
            let made = made.min(all.len());
            let mut progress = Progress::begin(plan);
            for _ in 0..made - usize::from(!last_has_ended) {
                let ended = ended(plan, Outcome::Status(503));
                progress.end(plan, ended, ms(1), Room::default());
            }
            let progress = Progress::decode(&progress.encode());
            let is_all = witness.rig.exchange.take_over(progress, made);
            prop_assert_eq!(is_all, last_has_ended);
            // Where it has ended, what is next is not made yet.
            let next = (made + 1).min(all.len());
            witness.attempts = all[..if last_has_ended { next } else { made }].to_vec();
            if last_has_ended {
                witness.happens(Happening::Abandoned);
            }
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
