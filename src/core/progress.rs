//! How far a request has come in its plan: what was tried, how it ended, and what is next.
//!
//! In `dispatch: router` it passes from attempt filter to attempt filter, and back to the request filter, as bytes.

use std::time::Duration;

use super::bytes::{put, put_number, take, take_number};
use super::config::{Credentials, Fallback, Service};
use super::cooldown::{Report, Sign};
use super::outcome::{Ended, Outcome};
use super::plan::{Health, Plan, Step};
use super::provider_error::ErrorKind;
use super::result::RequestResult;
use super::trail::Trail;

/// How far a request has come in its plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The number of the attempt under way, or of the one to make next.
    current: usize,
    /// How often it was tried again.
    repeats: u32,
    /// What was tried or passed over, and the current one.
    tried: Vec<usize>,
    /// How many attempts have ended.
    made: usize,
    /// The time that they took, with the waits between them.
    took: Duration,
    /// The headers of the answer under way have come.
    answering: bool,
    /// Nothing is left to try.
    exhausted: bool,
    /// How long to wait before the attempt that is next.
    wait: Duration,
    trail: Trail,
    last: Option<Ended>,
    /// Those of `tried` whose service refused the key.
    refused_keys: Vec<usize>,
    reports: Vec<Report>,
    /// So many of them have been told.
    told: usize,
}

/// What decides whether another attempt can be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// What is left of the total timeout; `None`: there is none.
    pub left: Option<Duration>,
    /// The longest wait before an attempt; `None`: any that is configured.
    pub max_wait: Option<Duration>,
    /// Anything that differs from request to request.
    pub random: u64,
}

impl Progress {
    /// A request at its first attempt.
    #[must_use]
    pub fn begin(plan: &Plan) -> Self {
        let mut progress = Self::default();
        progress.skip_to(plan, plan.first_usable());
        progress
    }

    /// The number of the attempt under way, or of the one to make next.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current
    }

    /// How many attempts have ended.
    #[must_use]
    pub fn made(&self) -> usize {
        self.made
    }

    /// The time that the ended attempts took, with the waits between them.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether the headers of the answer under way have come, as far as an attempt filter has said so.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.answering
    }

    /// Says that the headers of the answer under way have come.
    pub fn begins_to_answer(&mut self) {
        self.answering = true;
    }

    /// How long to wait before the attempt that is next.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether nothing is left to try.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// What was tried.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// How the last attempt ended.
    #[must_use]
    pub fn last(&self) -> Option<&Ended> {
        self.last.as_ref()
    }

    /// What became of the request, as its last attempt tells it. Once [`is_exhausted`](Self::is_exhausted).
    #[must_use]
    pub fn result(&self) -> RequestResult {
        let is_elsewhere = self.is_elsewhere();
        match self.last.map(|ended| (ended.outcome, ended.fails)) {
            Some((outcome, _)) if outcome.is_from_gateway() => RequestResult::Intercepted,
            // Without rules of fallback nothing is said to fail.
            Some((Outcome::Status(..500), false)) if is_elsewhere => RequestResult::Fallback,
            Some((Outcome::Status(..500), false)) => RequestResult::Primary,
            _ => RequestResult::Failed {
                with_fallback: is_elsewhere,
            },
        }
    }

    /// Whether the attempt under way, or the last one, is not at the primary.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.current != 0
    }

    /// Whether the attempts say anything about the health of their services.
    #[must_use]
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Whether the attempt under way asks the same service again.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.repeats > 0
    }

    /// What the attempts say about the health of their services, and was not told before.
    pub fn take_reports(&mut self) -> Vec<Report> {
        let untold = self.reports.iter().skip(self.told).cloned().collect();
        self.told = self.reports.len();
        untold
    }

    /// The progress of the same request at a later time, as attempt filters wrote it down.
    pub fn replace(&mut self, later: Self) {
        *self = Self {
            told: self.told,
            ..later
        };
    }

    /// Whether another attempt may follow the one under way.
    #[must_use]
    pub fn has_next(&self, plan: &Plan) -> bool {
        let may_repeat = self.has_retries(plan);
        let mut numbers = plan.steps().map(|(number, _)| number);
        self.has_room(plan, 1) && (may_repeat || numbers.any(|number| self.is_open(plan, number)))
    }

    /// Whether another attempt would follow the one under way if that brought nothing.
    #[must_use]
    pub fn has_next_after_silence(&self, plan: &Plan) -> bool {
        self.has_room(plan, 1) && self.next(plan, None).is_some()
    }

    /// The attempt under way has ended. Chooses the next one; false where there is none to make, and the answer,
    /// or its absence, is final.
    pub fn end(&mut self, plan: &Plan, ended: Ended, took: Duration, room: Room) -> bool {
        let number = self.current();
        if let Some(step) = plan.step(number) {
            self.trail.push(step, &ended, took);
            // Only where a rule may have asked for it.
            let reads_errors = plan.fallback().is_some_and(Fallback::reads_errors);
            if let Some(kind) = ended.kind.filter(|_| reads_errors) {
                self.trail.remark(kind.name());
            }
            self.report(plan, step, &ended, took);
        }
        if ended.outcome.is_refused_key() {
            self.refused_keys.push(number);
        }
        self.made += 1;
        self.took += self.wait + took;
        self.answering = false;
        self.last = Some(ended);
        self.choose_next(plan, &ended, room);
        !self.exhausted
    }

    fn choose_next(&mut self, plan: &Plan, ended: &Ended, room: Room) {
        self.wait = Duration::ZERO;
        self.exhausted = !(ended.fails && self.has_room(plan, 0) && plan.may_begin(room.left));
        if self.exhausted {
            return;
        }
        if let Some(wait) = self.wait_for_repeat(plan, ended, room) {
            self.repeats += 1;
            self.wait = wait;
            return;
        }
        let next = self.next(plan, ended.kind);
        self.skip_to(plan, next);
    }

    /// Whether more attempts may be made than those that have ended, and so many under way.
    fn has_room(&self, plan: &Plan, under_way: usize) -> bool {
        let limit = plan.fallback().and_then(|rules| rules.max_attempts);
        limit.is_none_or(|limit| self.made + under_way < limit)
    }

    fn has_retries(&self, plan: &Plan) -> bool {
        let retries = plan.step(self.current).map_or(0, |step| step.retries);
        self.repeats < retries
    }

    /// How long to wait before the same service is tried again. `None` where the next one is to be tried.
    fn wait_for_repeat(&self, plan: &Plan, ended: &Ended, room: Room) -> Option<Duration> {
        let retry = plan
            .fallback()
            .filter(|_| ended.may_pass() && self.has_retries(plan))?
            .retry;
        let doubled = retry
            .backoff
            .saturating_mul(1 << self.repeats.min(16))
            .min(retry.max_backoff);
        // From half to all of it: two requests that failed together do not come back together.
        let backoff = doubled / 2 + random_part(doubled / 2, room.random);
        let wait = match ended.retry_after {
            Some(asked) if asked > retry.max_retry_after => return None,
            Some(asked) => asked.max(backoff),
            None => backoff,
        };
        let left = room.left.map(|left| left.saturating_sub(wait));
        let fits = room.max_wait.is_none_or(|max| wait <= max) && plan.may_begin(left);
        fits.then_some(wait)
    }

    /// The attempt to make next, another than those that were made.
    fn next(&self, plan: &Plan, kind: Option<ErrorKind>) -> Option<usize> {
        let of = |after: Option<ErrorKind>| {
            let mut steps = plan.steps();
            steps.find(|(number, step)| step.after == after && self.is_open(plan, *number))
        };
        let special = kind.and_then(|kind| of(Some(kind)));
        special.or_else(|| of(None)).map(|(number, _)| number)
    }

    fn is_open(&self, plan: &Plan, number: usize) -> bool {
        plan.is_usable(number) && self.is_new(plan, number)
    }

    fn is_new(&self, plan: &Plan, number: usize) -> bool {
        let is_same = |of: fn(&Step, &Step) -> bool, earlier: &usize| {
            plan.step(number)
                .zip(plan.step(*earlier))
                .is_some_and(|(one, other)| of(one, other))
        };
        !self.tried.contains(&number)
            && !self
                .tried
                .iter()
                .any(|earlier| is_same(Step::is_same, earlier))
            && !self
                .refused_keys
                .iter()
                .any(|earlier| is_same(Step::is_at_same_service, earlier))
    }

    /// Goes to an attempt, or to the end. What is passed over since it cools is written down, once.
    fn skip_to(&mut self, plan: &Plan, next: Option<usize>) {
        let after = next.and_then(|next| plan.step(next)?.after);
        let passed = plan.steps().filter(|(number, step)| {
            step.after == after
                && step.health == Health::Cooling
                && next.is_none_or(|next| *number < next)
        });
        let passed: Vec<usize> = passed
            .map(|(number, _)| number)
            .filter(|number| self.is_new(plan, *number))
            .collect();
        for number in passed {
            // What it is the same as may have been passed over just now.
            if let Some(step) = plan.step(number).filter(|_| self.is_new(plan, number)) {
                self.trail.push_cooling(step);
                self.tried.push(number);
            }
        }
        self.repeats = 0;
        match next {
            Some(next) => {
                self.current = next;
                self.tried.push(next);
            }
            None => self.exhausted = true,
        }
    }

    fn report(&mut self, plan: &Plan, step: &Step, ended: &Ended, took: Duration) {
        let Some(service) = &step.service else {
            return;
        };
        // What a client brought about says nothing of the service: with a timeout or a key of its own.
        let has_its_key = service.credentials == Credentials::Service;
        if !plan.had_its_time(ended.outcome, took)
            || (ended.outcome == Outcome::Status(429) && !has_its_key)
        {
            return;
        }
        let sign = match ended.retry_after {
            Some(time) if ended.is_unhealthy() => Sign::RetryAfter(time),
            // A request counts once, however often it asks.
            _ if ended.is_unhealthy() && self.has_reported(service) => return,
            _ if ended.is_unhealthy() => Sign::Failing,
            _ if self.is_news(step, service) && ended.outcome.is_from_service() => Sign::Alive,
            _ => return,
        };
        self.reports.push(Report {
            service: service.name.clone(),
            sign,
        });
    }

    /// The service that this request was to find out about, and has not.
    #[must_use]
    pub fn unproven<'a>(&self, plan: &'a Plan) -> Option<&'a str> {
        let mut steps = plan.steps().map(|(_, step)| step);
        let troubled =
            steps.find(|step| step.health == Health::Troubled && step.after.is_none())?;
        let service = troubled.service.as_ref()?;
        (!self.has_reported(service)).then_some(service.name.as_str())
    }

    fn has_reported(&self, service: &Service) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|report| report.service == service.name)
    }

    /// Whether a good answer is news: the service was not well when the request began, or was not since.
    fn is_news(&self, step: &Step, service: &Service) -> bool {
        step.health != Health::Good || self.has_reported(service)
    }
}

/// From nothing to all of `most`.
fn random_part(most: Duration, random: u64) -> Duration {
    // SplitMix64: spreads a number that counts up over all of them.
    let mut mixed = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let millis = u64::try_from(most.as_millis()).unwrap_or_default();
    Duration::from_millis(mixed % (millis + 1))
}

/// The layout of the bytes: what another version of the filter wrote is not read.
const FORMAT: usize = 2;

impl Progress {
    /// The progress as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let flags = usize::from(self.exhausted) + 2 * usize::from(self.answering);
        let millis = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let last = self.last.as_ref().map_or(0, |ended| {
            1 + code(ended.outcome) * 2 + usize::from(ended.fails)
        });
        let numbers = [
            FORMAT,
            self.current,
            self.repeats as usize,
            self.made,
            flags,
            millis(self.took),
            millis(self.wait),
            last,
        ];
        numbers
            .into_iter()
            .for_each(|number| put_number(&mut out, number));
        put_list(&mut out, &self.tried);
        put_list(&mut out, &self.refused_keys);
        put(&mut out, self.trail.as_str().as_bytes());
        for report in &self.reports {
            put(&mut out, report.service.as_bytes());
            put_number(&mut out, sign_code(&report.sign));
        }
        out
    }

    /// Reads a progress. `None` where the bytes are none.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        if take_number(rest)? != FORMAT {
            return None;
        }
        let (current, repeats, made) = (take_number(rest)?, take_number(rest)?, take_number(rest)?);
        let flags = take_number(rest)?;
        let (took, wait) = (take_millis(rest)?, take_millis(rest)?);
        let last = take_number(rest)?.checked_sub(1).map(|last| Ended {
            outcome: outcome(last / 2),
            kind: None,
            retry_after: None,
            fails: last % 2 == 1,
        });
        let (tried, refused_keys) = (take_list(rest)?, take_list(rest)?);
        let trail = Trail::read(String::from_utf8(take(rest)?.to_vec()).ok()?);
        let mut reports = Vec::new();
        while !rest.is_empty() {
            let service = String::from_utf8(take(rest)?.to_vec()).ok()?;
            reports.push(Report {
                service,
                sign: sign(take_number(rest)?),
            });
        }
        Some(Self {
            current,
            repeats: u32::try_from(repeats).ok()?,
            tried,
            made,
            took,
            answering: flags & 2 != 0,
            exhausted: flags & 1 != 0,
            wait,
            trail,
            last,
            refused_keys,
            reports,
            told: 0,
        })
    }
}

const WORDS: usize = 3000;

/// A status as it is, that of the gateway behind 1000, that of its access control behind 2000, and words behind 3000.
fn code(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Status(status) => status.into(),
        Outcome::Intercepted(status) => 1000 + usize::from(status),
        Outcome::Refused(status) => 2000 + usize::from(status),
        word => {
            WORDS
                + Outcome::WORDS
                    .iter()
                    .position(|(_, other)| *other == word)
                    .unwrap_or_default()
        }
    }
}

fn outcome(code: usize) -> Outcome {
    let status = |code| u16::try_from(code).unwrap_or_default();
    match code {
        ..1000 => Outcome::Status(status(code)),
        1000..2000 => Outcome::Intercepted(status(code - 1000)),
        2000..WORDS => Outcome::Refused(status(code - 2000)),
        _ => Outcome::WORDS
            .get(code - WORDS)
            .map_or(Outcome::Reset, |(_, outcome)| *outcome),
    }
}

/// A time to be left alone counts from 2 on, in milliseconds.
fn sign_code(sign: &Sign) -> usize {
    match sign {
        Sign::Alive => 0,
        Sign::Failing => 1,
        Sign::RetryAfter(time) => 2 + usize::try_from(time.as_millis()).unwrap_or(usize::MAX - 2),
    }
}

fn sign(code: usize) -> Sign {
    match code {
        0 => Sign::Alive,
        1 => Sign::Failing,
        millis => Sign::RetryAfter(Duration::from_millis(millis as u64 - 2)),
    }
}

fn put_list(out: &mut Vec<u8>, numbers: &[usize]) {
    put_number(out, numbers.len());
    numbers.iter().for_each(|&number| put_number(out, number));
}

fn take_list(bytes: &mut &[u8]) -> Option<Vec<usize>> {
    let length = take_number(bytes)?;
    (0..length).map(|_| take_number(bytes)).collect()
}

fn take_millis(bytes: &mut &[u8]) -> Option<Duration> {
    Some(Duration::from_millis(take_number(bytes)? as u64))
}
