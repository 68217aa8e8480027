//! The state machine of one request.
//!
//! ```text
//!            Headers, Body: undecided
//!                 ┌──────┐
//!                 │      ▼
//!   begin ──▶ Routed ── failed, one is left ──▶ Called ── failed, one is left ─┐
//!                 │                             │  ▲                           │
//!                 │ good, or none left          │  └───────────────────────────┘
//!                 ▼                             ▼ good, or none left
//!                Over ◀─────────────────────────┘
//! ```
//!
//! *Routed* is an answer that comes through Envoy's router: it can be judged at its first packet,
//! and passed on from there. *Called* is one that comes from a callout, whole.
//!
//! In `dispatch: router` the router makes attempt after attempt while this is *Routed*, and an attempt
//! filter judges each. What comes out at the end is either settled already, or an answer that the
//! router did not get past; from there it goes on as in `dispatch: callout`.

use std::time::Duration;

use super::outcome::{Judge, Origin, Outcome};
use super::plan::{Plan, Step, TIMER_SLACK};
use super::trail::Trail;

/// One request, from its way to the primary up to the first byte of an answer.
#[derive(Debug)]
pub struct Exchange {
    plan: Plan,
    state: State,
    stream: bool,
    /// Envoy's router makes the attempts, and keeps the time of each.
    router_keeps_time: bool,
    /// The attempt under way, or the last one.
    attempt: usize,
    began: Duration,
    attempt_began: Duration,
    trail: Trail,
    /// How the last attempt of the trail ended.
    last: Option<Outcome>,
}

#[derive(Debug)]
enum State {
    Routed(Judge),
    /// With the time it has, where there is a limit.
    Called(Option<Duration>),
    Over,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The headers of the routed answer came; `end` says that no body follows.
    Headers {
        /// Who made the answer.
        origin: Origin,
        /// Its HTTP status.
        status: u16,
        /// No body follows.
        end: bool,
    },
    /// The body of the routed answer so far.
    Body {
        /// How long it is.
        size: usize,
        /// What [`Exchange::wanted`] asks for.
        bytes: &'a [u8],
        /// No more follows.
        end: bool,
    },
    /// An attempt filter found the routed answer good, and its headers say so.
    Settled,
    /// An attempt filter found the routed answer bad, and Envoy's router did not retry.
    NotRetried(Outcome),
    /// An attempt of Envoy's router was stopped before anything was sent: its route led elsewhere.
    NotMade,
    /// The callout brought an answer.
    Answer {
        /// Who made the answer.
        origin: Origin,
        /// Its HTTP status.
        status: u16,
        /// The whole body.
        body: &'a [u8],
    },
    /// Envoy refused to make the callout: no such cluster, or no host in it.
    Refused,
    /// The time of [`Exchange::deadline`] has come.
    Due,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Hold what there is, and wait for the next event.
    Wait,
    /// Give the client the routed answer.
    Pass,
    /// Send the request to the service of [`Exchange::step`]. The routed answer is not needed any more.
    Call {
        /// Time for the whole answer; zero is no limit.
        timeout: Duration,
    },
    /// Give the client the answer of the callout.
    Deliver,
    /// Tell the client that no service gave an answer.
    Fail(Failure),
}

/// Why there is no answer to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The last service could not be reached, or its connection broke.
    Transport,
    /// The last service, or all of them together, took too long.
    Timeout,
}

impl Exchange {
    /// A request that goes to its primary `now`. `stream`: it asks for a stream.
    #[must_use]
    pub fn begin(now: Duration, plan: Plan, stream: bool) -> Self {
        Self {
            plan,
            state: State::Routed(Judge::new(stream)),
            stream,
            router_keeps_time: false,
            attempt: 0,
            began: now,
            attempt_began: now,
            trail: Trail::default(),
            last: None,
        }
    }

    /// Leaves the attempts to Envoy's router, which keeps the time of each. Only where there is a
    /// fallback to make.
    #[must_use]
    pub fn by_router(mut self) -> Self {
        self.router_keeps_time = true;
        self
    }

    /// Takes over from Envoy's router, which made so many attempts. `trail` has what the attempt
    /// filters wrote down: the last attempt may be missing there, when it has not quite ended. Where
    /// it is there, its outcome is returned.
    pub fn take_over(&mut self, mut trail: Trail, made: usize) -> Option<Outcome> {
        let ended = if trail.len() >= made {
            trail.pop()
        } else {
            None
        };
        self.attempt = self.plan.nth(trail.len()).unwrap_or(self.attempt);
        self.attempt_began = self.began + trail.took();
        self.trail = trail;
        ended
    }

    /// Takes in what happened at `now`, and says what to do. An event that comes too late changes
    /// nothing.
    pub fn step(&mut self, now: Duration, event: &Event<'_>) -> Effect {
        match (&mut self.state, event) {
            (
                State::Routed(judge),
                &Event::Headers {
                    origin,
                    status,
                    end,
                },
            ) => match judge.on_headers(origin, status, end) {
                Some(Outcome::RequestTimeout) => {
                    let outcome = self.router_timeout();
                    self.ended(now, outcome)
                }
                Some(outcome) => self.ended(now, outcome),
                None if self.plan.fallback().is_some() => Effect::Wait,
                None => self.ended(now, Outcome::Status(status)),
            },
            (State::Routed(judge), &Event::Body { size, bytes, end }) => {
                match judge.on_body(size, bytes, end) {
                    Some(outcome) => self.ended(now, outcome),
                    None => Effect::Wait,
                }
            }
            (State::Routed(_), Event::Due) => match self.overdue(now) {
                Some(outcome) => self.ended(now, outcome),
                None => Effect::Wait,
            },
            (State::Routed(_), Event::Settled) => {
                self.state = State::Over;
                Effect::Pass
            }
            (State::Routed(_), &Event::NotRetried(outcome)) => self.ended(now, outcome),
            (State::Routed(_), Event::NotMade) => match self.time_left(now) {
                Some(timeout) => self.call(now, self.attempt, timeout),
                None => self.ended(now, Outcome::RequestTimeout),
            },
            (
                State::Called(timeout),
                &Event::Answer {
                    origin,
                    status,
                    body,
                },
            ) => {
                let took = now.saturating_sub(self.attempt_began) + TIMER_SLACK;
                // Envoy says of a callout that timed out after its headers what it says of one that broke.
                let origin = match origin {
                    Origin::Transport if timeout.is_some_and(|timeout| timeout <= took) => {
                        Origin::Timeout
                    }
                    origin => origin,
                };
                self.ended(now, Outcome::of_answer(origin, status, body, self.stream))
            }
            (State::Called(_), Event::Refused) => self.ended(now, Outcome::Reset),
            (State::Over, _) => Effect::Pass,
            _ => Effect::Wait,
        }
    }

    /// When [`Event::Due`] is to be given, or `None` while nothing is waited for, or Envoy keeps the
    /// time itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.waits().map(|(due, _)| due).min()
    }

    /// The attempt under way, or the last one.
    #[must_use]
    pub fn current(&self) -> Option<Step<'_>> {
        self.plan.step(self.attempt)
    }

    /// Whether another service could still be tried.
    #[must_use]
    pub fn has_next(&self) -> bool {
        !matches!(self.state, State::Over) && self.plan.after(self.attempt).is_some()
    }

    /// The part of the routed answer's body of `size` bytes that is to be read: where it starts, and
    /// its length. `None` when that answer is not wanted any more.
    #[must_use]
    pub fn wanted(&self, size: usize) -> Option<(usize, usize)> {
        match &self.state {
            State::Routed(judge) => Some(judge.wanted(size)),
            _ => None,
        }
    }

    /// Whether the routed answer is still to be judged.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        matches!(self.state, State::Routed(_))
    }

    /// Keeps the time of the attempt under way, since Envoy's router turned out not to.
    pub fn keep_time(&mut self) {
        self.router_keeps_time = false;
    }

    /// Whether Envoy's router makes the attempts.
    #[must_use]
    pub fn is_by_router(&self) -> bool {
        self.router_keeps_time
    }

    /// Whether the answer has been settled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether the attempt under way goes to the primary.
    #[must_use]
    pub fn is_at_primary(&self) -> bool {
        self.attempt == 0
    }

    /// The Model API of the request, by name.
    #[must_use]
    pub fn api_name(&self) -> &str {
        &self.plan.api().name
    }

    /// Every attempt that has ended.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The service that gave the answer, where a named one did. Once [`is_over`](Self::is_over).
    #[must_use]
    pub fn answered_by(&self) -> Option<&str> {
        self.last.filter(|outcome| outcome.is_from_service())?;
        self.current()?.service.map(|service| service.name.as_str())
    }

    fn ended(&mut self, now: Duration, outcome: Outcome) -> Effect {
        let took = now.saturating_sub(self.attempt_began);
        if let Some(step) = self.plan.step(self.attempt) {
            self.trail.push(step, outcome, took);
        }
        self.last = Some(outcome);
        if let Some((next, timeout)) = self.next_after(now, outcome) {
            return self.call(now, next, timeout);
        }
        let was_called = matches!(self.state, State::Called(_));
        self.state = State::Over;
        match outcome {
            // Without rules of fallback, what Envoy says of a broken attempt is the answer.
            _ if self.plan.fallback().is_none() => Effect::Pass,
            Outcome::Reset => Effect::Fail(Failure::Transport),
            Outcome::FirstPacketTimeout | Outcome::RequestTimeout => Effect::Fail(Failure::Timeout),
            _ if was_called => Effect::Deliver,
            _ => Effect::Pass,
        }
    }

    fn call(&mut self, now: Duration, attempt: usize, timeout: Duration) -> Effect {
        self.attempt = attempt;
        self.attempt_began = now;
        self.state = State::Called(Some(timeout).filter(|timeout| !timeout.is_zero()));
        Effect::Call { timeout }
    }

    /// The attempt to make after this outcome, and the time it has.
    fn next_after(&self, now: Duration, outcome: Outcome) -> Option<(usize, Duration)> {
        self.plan
            .fallback()
            .filter(|rules| outcome.falls_back(rules))?;
        Some((self.plan.after(self.attempt)?, self.time_left(now)?))
    }

    /// The time that a callout has; zero is no limit. `None` where all of it is used up.
    fn time_left(&self, now: Duration) -> Option<Duration> {
        let fallback = self.plan.fallback()?;
        let left = match fallback.total_timeout {
            Some(total) => Some(
                (self.began + total)
                    .checked_sub(now)
                    .filter(|left| *left > TIMER_SLACK)?,
            ),
            None => None,
        };
        let timeout = fallback.request_timeout.into_iter().chain(left).min();
        Some(timeout.unwrap_or_default())
    }

    fn overdue(&self, now: Duration) -> Option<Outcome> {
        self.waits()
            .filter(|(due, _)| *due <= now)
            .min_by_key(|(due, _)| *due)
            .map(|(_, outcome)| outcome)
    }

    /// What a timeout of Envoy's router means.
    fn router_timeout(&self) -> Outcome {
        let patience = self
            .plan
            .patience(self.stream)
            .filter(|_| self.router_keeps_time);
        patience.map_or(Outcome::RequestTimeout, |patience| patience.outcome)
    }

    /// Everything that is waited for: until when, and what it means if it does not come.
    fn waits(&self) -> impl Iterator<Item = (Duration, Outcome)> {
        let fallback = self.plan.fallback().filter(|_| self.is_routed());
        let own = fallback.filter(|_| !self.router_keeps_time);
        let request = own.and_then(|rules| Some(self.attempt_began + rules.request_timeout?));
        let total = fallback.and_then(|rules| Some(self.began + rules.total_timeout?));
        let first_packet = own
            .filter(|_| self.awaits_first_packet())
            .and_then(|rules| Some(self.attempt_began + rules.first_packet_timeout?));
        [
            (first_packet, Outcome::FirstPacketTimeout),
            (request, Outcome::RequestTimeout),
            (total, Outcome::RequestTimeout),
        ]
        .into_iter()
        .filter_map(|(due, outcome)| Some((due?, outcome)))
    }

    /// A slow answer is better than none, so the last attempt has no first packet timeout.
    fn awaits_first_packet(&self) -> bool {
        match &self.state {
            State::Routed(judge) => self.stream && !judge.has_first_packet() && self.has_next(),
            _ => false,
        }
    }
}
