//! Which services, in which order, for one request.

use std::rc::Rc;
use std::time::Duration;

use super::config::{Fallback, ModelApi, ModelChoice, Service};
use super::outcome::Outcome;

/// The attempts that one request may make: number 0 is the primary, the fallback services follow in
/// the order of their priority.
///
/// The order never changes while the request is under way, so an attempt is known by its number.
#[derive(Debug)]
pub struct Plan {
    api: Rc<ModelApi>,
    model: Option<String>,
}

/// Where one attempt goes, and the model name it carries.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The service, or `None` where Envoy's route decides.
    pub service: Option<&'a Service>,
    /// The model name to send, or `None` where the request names none and none is configured.
    pub model: Option<&'a str>,
}

/// How long an attempt may take to its first packet (a stream) or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The time.
    pub time: Duration,
    /// What it means when it is used up.
    pub outcome: Outcome,
}

/// Envoy's timers may be early by the length of one turn of its event loop.
pub const TIMER_SLACK: Duration = Duration::from_millis(20);

impl Patience {
    /// Whether an attempt that ended without an answer, after this time, was ended by the timeout.
    ///
    /// Turns are longer under load, so a tenth of the time is allowed for as well: an attempt that breaks
    /// that late may be called a timeout, which changes no more than its name.
    #[must_use]
    pub fn is_used_up(&self, took: Duration) -> bool {
        took + TIMER_SLACK + self.time / 10 >= self.time
    }
}

impl Plan {
    /// A plan for a request to `api` that names `model`.
    #[must_use]
    pub fn new(api: Rc<ModelApi>, model: Option<String>) -> Self {
        Self { api, model }
    }

    /// The Model API of the request.
    #[must_use]
    pub fn api(&self) -> &ModelApi {
        &self.api
    }

    /// The rules of fallback, where there is one.
    #[must_use]
    pub fn fallback(&self) -> Option<&Fallback> {
        self.api.fallback.as_ref()
    }

    /// How long one attempt of Envoy's router may take: the shorter of the timeouts that apply, or
    /// `None` where none does. `stream`: the request asks for a stream.
    #[must_use]
    pub fn patience(&self, stream: bool) -> Option<Patience> {
        let rules = self.fallback()?;
        let first_packet = rules.first_packet_timeout.filter(|_| stream);
        let timeouts = [
            (first_packet, Outcome::FirstPacketTimeout),
            (rules.request_timeout, Outcome::RequestTimeout),
        ];
        timeouts
            .into_iter()
            .filter_map(|(time, outcome)| {
                Some(Patience {
                    time: time?,
                    outcome,
                })
            })
            .min_by_key(|patience| patience.time)
    }

    /// The attempt with this number, or `None` past the end of the list.
    #[must_use]
    pub fn step(&self, attempt: usize) -> Option<Step<'_>> {
        let (service, choice) = match attempt.checked_sub(1) {
            None => (self.api.primary.service.as_deref(), &self.api.primary.model),
            Some(index) => {
                let target = self.fallback()?.targets.get(index)?;
                (Some(&*target.service), &target.model)
            }
        };
        let model = match choice {
            ModelChoice::Named(name) => Some(name.as_str()),
            ModelChoice::PassThrough => self.model.as_deref().map(|requested| {
                service.map_or(requested, |service| service.model_name(requested))
            }),
        };
        Some(Step { service, model })
    }

    /// The attempt to make after this one: the next whose service and model were not tried yet.
    #[must_use]
    pub fn after(&self, attempt: usize) -> Option<usize> {
        let last = self.fallback()?.targets.len();
        (attempt + 1..=last).find(|&next| !self.repeats_an_earlier_one(next))
    }

    /// The attempt that comes after `made` others.
    #[must_use]
    pub fn nth(&self, made: usize) -> Option<usize> {
        (0..made).try_fold(0, |attempt, _| self.after(attempt))
    }

    fn repeats_an_earlier_one(&self, attempt: usize) -> bool {
        self.step(attempt).is_some_and(|step| {
            (0..attempt)
                .filter_map(|earlier| self.step(earlier))
                .any(|earlier| earlier.same(&step))
        })
    }
}

impl Step<'_> {
    /// The name that the trail of attempts shows.
    #[must_use]
    pub fn name(&self) -> &str {
        self.service.map_or("primary", |service| &service.name)
    }

    fn same(&self, other: &Self) -> bool {
        match (self.service, other.service) {
            (Some(one), Some(two)) => one.name == two.name && self.model == other.model,
            _ => false,
        }
    }
}
