//! A request to a Model API that goes to its primary unread: its body is too large, compressed or not
//! JSON. There can be no fallback, and the trail says why.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::MapType;

use super::access_log::Entry;
use super::answer;
use super::host;
use super::metrics::CANCELLED;
use super::router::RETRY_HEADER;
use super::tokens::{Account, Meter};
use super::worker::Worker;
use crate::core::config::ModelApi;
use crate::core::judge::{Judge, Reading};
use crate::core::outcome::{Ended, Outcome};
use crate::core::plan::{Health, Step};
use crate::core::result::Skip;
use crate::core::trail::Trail;

/// One such request.
pub struct Unread {
    step: Step,
    reason: Skip,
    began: Duration,
    is_answered: bool,
    meter: Option<Meter>,
}

impl Unread {
    /// A request that goes to the primary of `api` now.
    #[must_use]
    pub fn new(api: &ModelApi, reason: Skip) -> Self {
        let step = Step {
            service: api.primary.service.as_ref().map(Rc::clone),
            model: None,
            alias: None,
            retries: 0,
            after: None,
            health: Health::Good,
        };
        Self {
            step,
            reason,
            began: host::now(),
            is_answered: false,
            meter: None,
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The headers of the answer came: `openai;200;12ms;too_large`.
    pub fn on_response_headers(&mut self, worker: &Worker) {
        let map = MapType::HttpResponseHeaders;
        let status = answer::status(host::header(map, ":status").as_deref());
        // Its headers are all that is judged: there is nothing to fall back to.
        let origin = answer::routed_origin(status);
        let verdict = Judge::new(Reading::default()).on_headers(origin, status, false);
        let outcome = verdict.map_or(Outcome::Status(status), |verdict| verdict.outcome);
        self.is_answered = true;
        worker.metrics.count_attempt(&self.step, outcome.label());
        let mut trail = Trail::default();
        let took = host::now().saturating_sub(self.began);
        trail.push(&self.step, &Ended::new(outcome, None, None, None), took);
        trail.remark(self.reason.label());
        host::remove_header(map, RETRY_HEADER);
        let service = self
            .step
            .service
            .as_ref()
            .filter(|_| outcome.is_from_service());
        let service = service.map(|service| service.name.as_str());
        answer::tell(&trail, service);
        if worker.config.telemetry.access_log {
            let entry = Entry {
                service: service.unwrap_or_default(),
                attempts: trail.as_str(),
                ..Entry::default()
            };
            entry.write();
        }
        self.meter = Meter::of(worker.config.telemetry, outcome);
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
