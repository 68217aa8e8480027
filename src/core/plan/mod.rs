//! Which services, in which order, for one request.

mod build;
mod patience;
mod wire;

use std::rc::Rc;
use std::time::Duration;

use super::config::{Deliver, Fallback, ModelApi, Service};
use super::provider_error::ErrorKind;

pub use build::{Denied, Request, split_entry};
pub use patience::{Patience, TIMER_SLACK};

/// The attempts that one request may make, known by their numbers.
///
/// Number 0 is the one to begin with. The others of the ordinary course follow in the order in which they are
/// tried: those that the request names, then those that are configured. Those for a kind of error stand
/// behind them all. How far a request has come in its plan is its [`Progress`](super::progress::Progress).
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    api: Rc<ModelApi>,
    /// `model` of the request.
    requested: Option<Rc<str>>,
    steps: Vec<Step>,
    stream: bool,
    /// The request has asked for no fallback.
    off: bool,
    deliver: Deliver,
    total_timeout: Option<Duration>,
    uses_client_models: bool,
}

/// Where one attempt goes, and the model name it carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The service, or `None` where Envoy's route decides.
    pub service: Option<Rc<Service>>,
    /// The model name to send, or `None` where the request names none and none is configured.
    pub model: Option<Rc<str>>,
    /// The name that metrics show for the model: one from the configuration. `None` where the name is the client's own,
    /// which could be anything; where tokens are not counted; and in attempt filters, which do not count them.
    pub alias: Option<Rc<str>>,
    /// How often the same may be tried again.
    pub retries: u32,
    /// Tried only after an error of this kind; `None`: in the ordinary course.
    pub after: Option<ErrorKind>,
    /// What is known of the health of the service.
    pub health: Health,
}

/// What is known of the health of a service when a request begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing bad.
    #[default]
    Good,
    /// It failed lately: its next good answer is news.
    Troubled,
    /// It is skipped.
    Cooling,
}

impl Plan {
    /// The most attempts that a plan has, without retries: what a request names may be known by many services.
    pub const MAX_STEPS: usize = 100;

    /// The plan for a request whose body is not read: this attempt at its primary, and no other.
    #[must_use]
    pub fn unread(api: &Rc<ModelApi>, primary: Step) -> Self {
        Self {
            api: Rc::clone(api),
            requested: None,
            steps: vec![primary],
            stream: false,
            off: true,
            deliver: Deliver::FirstPacket,
            total_timeout: None,
            uses_client_models: false,
        }
    }

    /// The model that the request names in `model`.
    #[must_use]
    pub fn requested(&self) -> Option<&str> {
        self.requested.as_deref()
    }

    /// The Model API of the request.
    #[must_use]
    pub fn api(&self) -> &ModelApi {
        &self.api
    }

    /// The rules of fallback, where there is one.
    #[must_use]
    pub fn fallback(&self) -> Option<&Fallback> {
        self.api.fallback.as_ref().filter(|_| !self.off)
    }

    /// Whether the request asks for a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Whether an answer is held to its end.
    #[must_use]
    pub fn delivers_complete(&self) -> bool {
        self.deliver == Deliver::Complete && self.fallback().is_some()
    }

    /// How long all attempts may take together.
    #[must_use]
    pub fn total_timeout(&self) -> Option<Duration> {
        self.total_timeout
    }

    /// Whether `models` of the body was used, and is not to be sent.
    #[must_use]
    pub fn uses_client_models(&self) -> bool {
        self.uses_client_models
    }

    /// The attempt with this number, or `None` past the end of the list.
    #[must_use]
    pub fn step(&self, number: usize) -> Option<&Step> {
        self.steps.get(number)
    }

    /// All attempts with their numbers.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate()
    }

    /// Whether an attempt is there, and its service is not to be skipped.
    #[must_use]
    pub fn is_usable(&self, number: usize) -> bool {
        self.step(number)
            .is_some_and(|step| step.health != Health::Cooling)
    }

    /// The attempt to begin with.
    #[must_use]
    pub fn first_usable(&self) -> Option<usize> {
        let mut numbers = self.steps().map(|(number, _)| number);
        numbers.find(|number| self.is_usable(*number))
    }

    /// The most attempts that the request can make.
    #[must_use]
    pub fn max_attempts(&self) -> usize {
        let all = self
            .steps
            .iter()
            .map(|step| 1 + step.retries as usize)
            .sum();
        let limit = self.fallback().and_then(|rules| rules.max_attempts);
        limit.map_or(all, |limit| limit.min(all))
    }

    /// Whether an attempt goes where the route of an untouched request goes.
    #[must_use]
    pub fn is_at_primary(&self, number: usize) -> bool {
        let primary = self.api.primary.service.as_ref();
        self.step(number).is_some_and(|step| {
            step.service.as_ref().map(|service| &service.name)
                == primary.map(|service| &service.name)
        })
    }

    /// Takes in what is known of the services. `health` says it for a name, and until when it is to be skipped, in
    /// any measure of time; it is told whether the service would be the first to be tried.
    ///
    /// Where all of the ordinary course would be skipped, the one whose time is over first is tried.
    pub fn check_health(&mut self, health: impl Fn(&str, bool) -> (Health, Duration)) {
        let mut least_bad: Option<(Duration, usize)> = None;
        let mut any_other = false;
        for (number, step) in self.steps.iter_mut().enumerate() {
            let is_ordinary = step.after.is_none();
            let (is, until) = match &step.service {
                Some(service) => health(&service.name, is_ordinary && !any_other),
                None => Default::default(),
            };
            step.health = is;
            if !is_ordinary {
                continue;
            }
            match is {
                Health::Cooling if least_bad.is_none_or(|(least, _)| until < least) => {
                    least_bad = Some((until, number));
                }
                Health::Cooling => {}
                _ => any_other = true,
            }
        }
        let chosen = least_bad
            .filter(|_| !any_other)
            .and_then(|(_, number)| self.steps.get_mut(number));
        if let Some(step) = chosen {
            step.health = Health::Troubled;
        }
    }
}

impl Step {
    /// The primary of `api`, for a request whose model is not known.
    #[must_use]
    pub fn unread(api: &ModelApi) -> Self {
        Self {
            service: api.primary.service.as_ref().map(Rc::clone),
            model: None,
            alias: None,
            retries: 0,
            after: None,
            health: Health::Good,
        }
    }

    /// The cluster of its service; `None` where the route decides.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        Some(&self.service.as_ref()?.cluster)
    }

    /// The name that the trail of attempts shows.
    #[must_use]
    pub fn name(&self) -> &str {
        self.service
            .as_ref()
            .map_or("primary", |service| &service.name)
    }

    /// Whether it is the same service and model. Where the route goes is not known, so that is never the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_at_same_service(other) && self.model == other.model
    }

    /// Whether it is the same service.
    #[must_use]
    pub fn is_at_same_service(&self, other: &Self) -> bool {
        match (&self.service, &other.service) {
            (Some(one), Some(two)) => one.name == two.name,
            _ => false,
        }
    }
}
