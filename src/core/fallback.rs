//! The state machine of one request.
//!
//! ```text
//!            Headers, Body: undecided
//!                 ┌──────┐
//!                 │      ▼
//!   begin ──▶ Routed ── failed, one is left ──▶ Called ── failed, one is left ─┐
//!      │          │                             ▲ │  ▲                         │
//!      │          │                  at once, or│ │  └─────────────────────────┤
//!      └──────────│────────────────────────────▶┘ │                            ▼
//!                 │ good, or none left            │ good, or none left       Resting
//!                 ▼                               ▼
//!                Over ◀───────────────────────────┘
//! ```
//!
//! *Routed* is an answer that comes through Envoy's router: it can be judged at its first packet,
//! and passed on from there. *Called* is one that comes from a callout, whole. *Resting* is the wait before a
//! service is tried again.
//!
//! In `dispatch: router` the router makes attempt after attempt while this is *Routed*, and an attempt
//! filter judges each. What comes out at the end is either settled already, or an answer that the
//! router did not get past; from there it goes on as in `dispatch: callout`.

use std::time::Duration;

use super::cooldown::Report;
use super::judge::{Judge, Reading, Verdict};
use super::outcome::{Ended, Origin, Outcome};
use super::plan::{Plan, Step, TIMER_SLACK};
use super::progress::{Progress, Room};
use super::result::EndedAttempt;
use super::trail::{COOLING, Trail};
use super::watch::{Limits, Watch};

/// One request, from its way to the first service up to the first byte of an answer.
#[derive(Debug)]
pub struct Exchange {
    plan: Plan,
    progress: Progress,
    state: State,
    /// Envoy's router makes the attempts, and keeps the time of each.
    by_router: bool,
    began: Duration,
    attempt_began: Duration,
    /// How long the service of the attempt under way asks to be left alone.
    retry_after: Option<Duration>,
    /// The attempt that has just ended, until somebody asks.
    ended: Option<EndedAttempt>,
}

#[derive(Debug)]
enum State {
    Routed(Watch),
    /// Until then.
    Resting(Duration),
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
        /// How long the service asks to be left alone.
        retry_after: Option<Duration>,
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
    /// Envoy's router makes no more attempts, and the next one, if any, is known: [`Exchange::take_over`].
    Abandoned,
    /// The callout brought an answer.
    Answer {
        /// Who made the answer.
        origin: Origin,
        /// Its HTTP status.
        status: u16,
        /// How long the service asks to be left alone.
        retry_after: Option<Duration>,
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
    /// Let go what comes along Envoy's route: the request, or the routed answer.
    Pass,
    /// Send the request to the service of [`Exchange::current`]. The routed answer is not needed any more.
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
    /// A request that begins `now`.
    #[must_use]
    pub fn begin(now: Duration, plan: Plan) -> Self {
        Self {
            state: State::Routed(Watch::new(&plan, now)),
            progress: Progress::begin(&plan),
            plan,
            by_router: false,
            began: now,
            attempt_began: now,
            retry_after: None,
            ended: None,
        }
    }

    /// Leaves the attempts to Envoy's router, which keeps the time of each. Only where there is a
    /// fallback to make.
    #[must_use]
    pub fn by_router(mut self) -> Self {
        self.by_router = true;
        self
    }

    /// How the first attempt is made: along Envoy's route (`Pass`), or by a callout. `any_cluster` says that the
    /// route leads to any service, and not only to the primary.
    ///
    /// An answer that is held to its end comes by a callout: Envoy 1.40 lets no filter see that a routed one broke
    /// off.
    pub fn start(&mut self, now: Duration, any_cluster: bool) -> Effect {
        let number = self.progress.current();
        let is_named = self.current().is_some_and(|step| step.service.is_some());
        let is_held = self.plan.delivers_complete() && is_named && !self.by_router;
        if is_held || !(any_cluster || self.plan.is_at_primary(number)) {
            return self.call(now);
        }
        Effect::Pass
    }

    /// Takes over from Envoy's router, which made so many attempts. `progress` is what the attempt filters wrote
    /// down. True where all of the attempts are in it: the last may be missing, when it has not quite ended.
    pub fn take_over(&mut self, progress: Option<Progress>, made: usize) -> bool {
        let Some(progress) = progress else {
            return false;
        };
        self.attempt_began = self.began + progress.took() + progress.wait();
        if let State::Routed(watch) = &mut self.state {
            *watch = Watch::new(&self.plan, self.attempt_began);
        }
        self.progress.replace(progress);
        self.progress.made() >= made
    }

    /// Takes in what happened at `now`, and says what to do. An event that comes too late changes
    /// nothing.
    pub fn step(&mut self, now: Duration, event: &Event<'_>) -> Effect {
        match (&mut self.state, event) {
            (
                State::Routed(watch),
                &Event::Headers {
                    origin,
                    status,
                    retry_after,
                    end,
                },
            ) => {
                self.retry_after = retry_after;
                match watch.on_headers(now, origin, status, end) {
                    Some(verdict) => self.judged(now, &self.named(verdict)),
                    None if self.plan.fallback().is_some() => Effect::Wait,
                    None => self.judged(now, &Outcome::Status(status).into()),
                }
            }
            (State::Routed(watch), &Event::Body { size, bytes, end }) => {
                match watch.on_body(now, size, bytes, end) {
                    Some(verdict) => self.judged(now, &verdict),
                    None => Effect::Wait,
                }
            }
            // The router's own timeout was first: it has not told us yet that it goes no further.
            (State::Routed(_), Event::Due) if self.progress.is_exhausted() => self.go_on(now),
            (State::Routed(_), Event::Due) => match self.overdue(now) {
                Some(outcome) => self.judged(now, &outcome.into()),
                None => Effect::Wait,
            },
            (State::Routed(_), Event::Settled) => {
                self.state = State::Over;
                Effect::Pass
            }
            (State::Routed(_), Event::Abandoned) => self.go_on(now),
            (State::Resting(until), Event::Due) if *until <= now => self.call(now),
            (
                State::Called(timeout),
                &Event::Answer {
                    origin,
                    status,
                    retry_after,
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
                self.retry_after = retry_after;
                let verdict = Judge::whole(Reading::of(&self.plan), origin, status, body);
                self.judged(now, &verdict)
            }
            (State::Called(_), Event::Refused) => self.judged(now, &Outcome::Reset.into()),
            (State::Over, _) => Effect::Pass,
            _ => Effect::Wait,
        }
    }

    /// When [`Event::Due`] is to be given, or `None` while nothing is waited for, or Envoy keeps the
    /// time itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Routed(watch) => {
                let waits = watch.waits(self.limits()).map(|(due, _)| due);
                let all = waits.chain(self.total_deadline());
                all.chain(watch.error_body_due()).min()
            }
            State::Resting(until) => Some(*until),
            _ => None,
        }
    }

    /// The attempt under way, or the last one.
    #[must_use]
    pub fn current(&self) -> Option<&Step> {
        self.plan.step(self.progress.current())
    }

    /// The attempt under way, unless the request waits for it to begin.
    #[must_use]
    pub fn under_way(&self) -> Option<&Step> {
        match self.state {
            State::Resting(_) | State::Over => None,
            State::Routed(_) | State::Called(_) => self.current(),
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far the request has come in it.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The attempt that has ended since this was last asked. No step ends two.
    pub fn take_ended(&mut self) -> Option<EndedAttempt> {
        self.ended.take()
    }

    /// When the attempt under way began, or the last one.
    #[must_use]
    pub fn attempt_began(&self) -> Duration {
        self.attempt_began
    }

    /// From the beginning of the request to that of the attempt under way, or of the last one.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.attempt_began.saturating_sub(self.began)
    }

    /// What the attempts say about the health of their services, each once.
    pub fn take_reports(&mut self) -> Vec<Report> {
        self.progress.take_reports()
    }

    /// Whether the request may have to be sent by a callout yet.
    #[must_use]
    pub fn may_call(&self) -> bool {
        match self.state {
            State::Over => false,
            State::Routed(_) => self.progress.has_next(&self.plan),
            _ => true,
        }
    }

    /// The part of the routed answer's body of `size` bytes that is to be read: where it starts, and
    /// its length. `None` when that answer is not wanted any more.
    #[must_use]
    pub fn wanted(&self, size: usize, end: bool) -> Option<(usize, usize)> {
        match &self.state {
            State::Routed(watch) => Some(watch.wanted(size, end)),
            _ => None,
        }
    }

    /// Whether the body of an error is not to be waited for any longer at `now`: what has come of it is to be given as all
    /// of it.
    #[must_use]
    pub fn is_error_body_overdue(&self, now: Duration) -> bool {
        match &self.state {
            State::Routed(watch) => watch.error_body_due().is_some_and(|due| due <= now),
            _ => false,
        }
    }

    /// Whether the routed answer is still to be judged.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        matches!(self.state, State::Routed(_))
    }

    /// Keeps the time of the attempt under way, since Envoy's router turned out not to.
    pub fn keep_time(&mut self) {
        self.by_router = false;
    }

    /// Whether Envoy's router makes the attempts.
    #[must_use]
    pub fn is_by_router(&self) -> bool {
        self.by_router
    }

    /// Whether the answer has been settled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// What was tried.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        self.progress.trail()
    }

    /// The service that gave the answer, where a named one did. Once [`is_over`](Self::is_over).
    #[must_use]
    pub fn answered_by(&self) -> Option<&str> {
        Some(&self.answering()?.service.as_ref()?.name)
    }

    /// The model name that the service which gave the answer was sent. Once [`is_over`](Self::is_over).
    #[must_use]
    pub fn answered_with(&self) -> Option<&str> {
        self.answering()?.model.as_deref()
    }

    /// The attempt whose answer is that of its service.
    fn answering(&self) -> Option<&Step> {
        let last = self.progress.last().filter(|_| self.is_over());
        last.filter(|ended| ended.outcome.is_from_service())?;
        self.current()
    }

    /// How the first attempt ended, or that its service was skipped, where the answer is not that of the first attempt.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let first = self.trail().first_outcome()?;
        let last = self.progress.last().filter(|_| self.is_over());
        let has_answer = last.is_some_and(|ended| {
            ended.outcome.is_from_service() || ended.outcome.is_from_gateway()
        });
        let is_first = self.progress.made() == 1 && first != COOLING;
        (!(has_answer && is_first)).then_some(first)
    }

    fn judged(&mut self, now: Duration, verdict: &Verdict) -> Effect {
        let retry_after = self.retry_after.take();
        let ended = Ended::new(
            verdict.outcome,
            verdict.error.as_ref(),
            retry_after,
            self.plan.fallback(),
        );
        let took = now.saturating_sub(self.attempt_began);
        self.ended = Some(EndedAttempt {
            number: self.progress.current(),
            outcome: verdict.outcome,
            took,
            is_passing: ended.is_good() && self.is_routed(),
        });
        let room = Room {
            left: self.left(now),
            max_wait: None,
            random: now.as_nanos() as u64,
        };
        self.progress.end(&self.plan, ended, took, room);
        self.go_on(now)
    }

    /// Goes on to the next attempt, or ends.
    fn go_on(&mut self, now: Duration) -> Effect {
        if self.progress.is_exhausted() {
            return self.finish();
        }
        match self.progress.wait() {
            Duration::ZERO => self.call(now),
            wait => {
                self.state = State::Resting(now + wait);
                Effect::Wait
            }
        }
    }

    fn finish(&mut self) -> Effect {
        let was_called = matches!(self.state, State::Called(_));
        self.state = State::Over;
        let outcome = self
            .progress
            .last()
            .map_or(Outcome::Reset, |ended| ended.outcome);
        match outcome {
            // Without rules of fallback, what Envoy says of a broken attempt along its route is the answer.
            _ if !was_called && self.plan.fallback().is_none() => Effect::Pass,
            Outcome::Reset | Outcome::Overflow => Effect::Fail(Failure::Transport),
            outcome if outcome.is_timeout() => Effect::Fail(Failure::Timeout),
            _ if was_called => Effect::Deliver,
            _ => Effect::Pass,
        }
    }

    fn call(&mut self, now: Duration) -> Effect {
        // Whatever Envoy's router still does is not wanted.
        self.by_router = false;
        self.attempt_began = now;
        let has_next = self.progress.has_next_after_silence(&self.plan);
        let timeout = self.plan.time_for_attempt(self.left(now), has_next);
        // Zero would be no limit. A wait may have ended late.
        let timeout = timeout.map(|time| time.max(Duration::from_millis(1)));
        self.state = State::Called(timeout);
        Effect::Call {
            timeout: timeout.unwrap_or_default(),
        }
    }

    /// What is left of the total timeout.
    fn left(&self, now: Duration) -> Option<Duration> {
        let total = self.plan.total_timeout()?;
        Some((self.began + total).saturating_sub(now))
    }

    fn total_deadline(&self) -> Option<Duration> {
        self.plan.fallback()?;
        Some(self.began + self.plan.total_timeout()?)
    }

    fn overdue(&self, now: Duration) -> Option<Outcome> {
        let State::Routed(watch) = &self.state else {
            return None;
        };
        let own = watch.overdue(now, self.limits());
        own.or_else(|| {
            self.total_deadline()
                .filter(|due| *due <= now)
                .map(|_| Outcome::RequestTimeout)
        })
    }

    /// Gives a timeout of Envoy's router its name.
    fn named(&self, verdict: Verdict) -> Verdict {
        match verdict.outcome {
            Outcome::RequestTimeout if self.by_router => self
                .plan
                .patience()
                .map_or(verdict, |patience| patience.outcome.into()),
            _ => verdict,
        }
    }

    /// What the time of the routed answer is kept for. A slow answer is better than none, so the last attempt has no
    /// first packet timeout.
    fn limits(&self) -> Limits {
        let Some(rules) = self.plan.fallback() else {
            return Limits::default();
        };
        let has_next = self.progress.has_next_after_silence(&self.plan);
        let left = self.left(self.attempt_began);
        let first_packet = rules
            .first_packet_timeout
            .filter(|_| self.plan.is_stream() && has_next);
        if self.by_router {
            // The router has one timeout for all attempts, that of the first. What a later one has to leave to the
            // next, and the first packet of an answer that is held, are left to us; a little later than the router.
            let waits_for_held = self.plan.delivers_complete() && !self.progress.is_answering();
            let is_cut = has_next && !rules.reserve.is_zero();
            return Limits {
                first_packet: first_packet.filter(|_| waits_for_held),
                answer: self
                    .plan
                    .time_for_attempt(left, has_next)
                    .filter(|_| is_cut)
                    .map(|time| time + TIMER_SLACK),
                idle: None,
            };
        }
        Limits {
            first_packet,
            answer: self.plan.time_for_attempt(left, has_next),
            idle: rules.stream_idle_timeout,
        }
    }
}
