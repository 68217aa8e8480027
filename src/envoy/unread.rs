//! A request to a Model API that goes to its primary unread: its body is too large, compressed or not
//! JSON. There can be no fallback, and the trail says why.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::MapType;

use super::answer;
use super::host;
use super::metrics::Skip;
use super::router::RETRY_HEADER;
use super::stream::{ATTEMPTS_HEADER, SERVICE_HEADER};
use crate::core::config::{ModelApi, Service};
use crate::core::outcome::{Origin, Outcome};
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
        let outcome = match answer::routed_origin(status) {
            Origin::Service => Outcome::Status(status),
            Origin::Gateway => Outcome::Intercepted(status),
            Origin::Transport => Outcome::Reset,
            Origin::Timeout => Outcome::RequestTimeout,
        };
        let mut trail = Trail::default();
        let took = host::now().saturating_sub(self.began);
        trail.push(self.step(), outcome, took);
        trail.remark(self.reason.label());
        host::remove_header(map, RETRY_HEADER);
        host::set_header(map, ATTEMPTS_HEADER, trail.as_str().as_bytes());
        match self.service().filter(|_| outcome.is_from_service()) {
            Some(service) => host::set_header(map, SERVICE_HEADER, service.name.as_bytes()),
            None => host::remove_header(map, SERVICE_HEADER),
        }
    }

    fn service(&self) -> Option<&Service> {
        self.api.primary.service.as_deref()
    }
}
