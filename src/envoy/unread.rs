//! A request to a Model API that goes to its primary unread: its body is too large, compressed or not
//! JSON. There can be no fallback, and the trail says why.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::MapType;

use super::answer;
use super::host;
use super::metrics::Skip;
use super::router::RETRY_HEADER;
use crate::core::config::{ModelApi, Service};
use crate::core::outcome::{Judge, Outcome};
use crate::core::plan::Step;
use crate::core::trail::Trail;

/// One such request.
pub struct Unread {
    api: Rc<ModelApi>,
    reason: Skip,
    began: Duration,
}

impl Unread {
    /// A request that goes to the primary of `api` now.
    #[must_use]
    pub fn new(api: Rc<ModelApi>, reason: Skip) -> Self {
        Self {
            api,
            reason,
            began: host::now(),
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn step(&self) -> Step<'_> {
        Step {
            service: self.service(),
            model: None,
        }
    }

    /// The headers of the answer came: `openai;200;12ms;too_large`.
    pub fn on_response_headers(&self) {
        let map = MapType::HttpResponseHeaders;
        let status = answer::status(host::header(map, ":status").as_deref());
        // Its headers are all that is judged: there is nothing to fall back to.
        let outcome = Judge::new(false).on_headers(answer::routed_origin(status), status, false);
        let outcome = outcome.unwrap_or(Outcome::Status(status));
        let mut trail = Trail::default();
        let took = host::now().saturating_sub(self.began);
        trail.push(self.step(), outcome, took);
        trail.remark(self.reason.label());
        host::remove_header(map, RETRY_HEADER);
        let service = self.service().filter(|_| outcome.is_from_service());
        answer::tell(&trail, service.map(|service| service.name.as_str()));
    }

    fn service(&self) -> Option<&Service> {
        self.api.primary.service.as_deref()
    }
}
