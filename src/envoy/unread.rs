//! A request to a Model API that goes to its primary unread: its body is too large, compressed or not JSON, or it is no
//! `POST`. There can be no fallback, and the trail says why. The answer of one that is no `POST` is left as it is.

use std::rc::Rc;
use std::time::Duration;

use super::access_log::Entry;
use super::answer;
use super::host;
use super::metrics::CANCELLED;
use super::router::{self, RETRY_HEADER};
use super::tokens::{Account, Meter};
use super::worker::{FittedBy, Worker};
use crate::core::config::ModelApi;
use crate::core::fallback::Failure;
use crate::core::judge::{Judge, Reading};
use crate::core::outcome::{Ended, Origin, Outcome};
use crate::core::plan::{Plan, Step};
use crate::core::reply::{Problem, Shape};
use crate::core::result::Skip;
use crate::core::trail::Trail;
use crate::host::MapOf;

/// One such request.
pub struct Unread {
    plan: Plan,
    step: Step,
    reason: Skip,
    shape: Shape,
    fitted_by: FittedBy,
    began: Duration,
    is_answered: bool,
    meter: Option<Meter>,
}

impl Unread {
    /// A request that goes to the primary of `api` now.
    #[must_use]
    pub fn new(api: &Rc<ModelApi>, reason: Skip, shape: Shape) -> Self {
        let step = Step::unread(api);
        Self {
            plan: Plan::unread(api, step.clone()),
            step,
            reason,
            shape,
            fitted_by: FittedBy::default(),
            began: host::now(),
            is_answered: false,
            meter: None,
        }
    }

    /// Who makes the request fit its service.
    pub fn set_fitted_by(&mut self, fitted_by: FittedBy) {
        self.fitted_by = fitted_by;
    }

    /// Its only attempt, as a plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it goes.
    #[must_use]
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Takes from the trailers of the request what its service is not to have.
    pub fn fit_trailers(&self) {
        if self.fitted_by == FittedBy::RequestFilter {
            host::remove_trailers(|name| self.step.withholds_trailer(name));
        }
    }

    /// The shape of an error for its client.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The headers of the answer came: `openai;200;12ms;too_large`.
    ///
    /// # Errors
    /// The attempt filter has stopped the request, which nobody else can make fit.
    pub fn on_response_headers(&mut self, worker: &Worker) -> Result<(), Problem> {
        let map = MapOf::ResponseHeaders;
        let is_stopped = self.fitted_by == FittedBy::AttemptFilter && router::is_not_made();
        let status = answer::status(host::header(map, ":status").as_deref());
        // Its headers are all that is judged: there is nothing to fall back to.
        let origin = answer::routed_origin(status);
        let verdict = Judge::new(Reading::default()).on_headers(origin, status, false);
        let outcome = verdict.map_or(Outcome::Status(status), |verdict| verdict.outcome);
        self.is_answered = true;
        if origin == Origin::Service {
            worker.misses_attempt_filter(self.fitted_by, &self.plan);
        }
        worker.metrics.count_attempt(&self.step, outcome.label());
        if worker.by_router {
            host::remove_header(map, RETRY_HEADER);
        }
        if is_stopped {
            return Err(Problem::NoAnswer(Failure::Transport));
        }
        let mut trail = Trail::default();
        let took = host::now().saturating_sub(self.began);
        trail.push(&self.step, &Ended::new(outcome, None, None, None), took);
        trail.remark(self.reason.label());
        let service = self
            .step
            .service
            .as_ref()
            .filter(|_| outcome.is_from_service());
        let service = service.map(|service| service.name.as_str());
        let is_other = matches!(self.reason, Skip::OtherRequest { .. });
        if !is_other {
            answer::tell(&trail, service);
            self.meter = Meter::of(worker.config.telemetry, outcome);
        }
        if worker.config.telemetry.access_log {
            let entry = Entry {
                service: service.unwrap_or_default(),
                attempts: trail.as_str(),
                ..Entry::default()
            };
            entry.write();
        }
        Ok(())
    }

    /// More of the answer goes on to the client: `size` bytes.
    pub fn on_response_body(&mut self, size: usize) {
        if let Some(meter) = &mut self.meter {
            meter.on_body(size);
        }
    }

    /// The stream ends, with its answer or before it. Its model is not known: nobody has read the request.
    pub fn on_end(&self, worker: &Worker) {
        if self.is_answered {
            let took = host::now().saturating_sub(self.began);
            worker.metrics.attempt_time(&self.step, took);
        } else {
            let outcome = answer::broken_off().map_or(CANCELLED, Outcome::label);
            worker.metrics.count_attempt(&self.step, outcome);
        }
        if let Some(meter) = &self.meter {
            let account = Account {
                service: self.step.name(),
                model: None,
            };
            meter.tell(&worker.metrics, worker.config.telemetry, account);
        }
    }
}
