//! Making a request fit the service that it goes to.

use std::borrow::Cow;

use super::config::Credentials;
use super::plan::{Plan, Step};
use super::request::{Edit, RequestBody};

/// Request headers that hold a client's credentials.
const CREDENTIALS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

/// Headers that belong to one connection (RFC 9110, section 7.6.1), or to a body as it was framed.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// By these a client that Envoy trusts could change how long Envoy's router waits, and how often it tries:
/// they go before the timeout and the retries that the plan allows.
pub const ROUTER_CONTROLS: [&str; 8] = [
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
];

/// The prefix of the filter's own headers. They are for it alone.
const OWN_PREFIX: &str = "x-ai-fallback-";

/// With the value `off`, a request asks for no fallback.
pub const OFF_HEADER: &str = "x-ai-fallback";

/// How often a request came through a filter like this one. It goes to named services, since one of them may be a
/// gateway that leads back here.
pub const HOPS_HEADER: &str = "x-ai-hops";

/// A header, by its lower-case name.
pub type Header = (String, Vec<u8>);

impl Plan {
    /// The edit that makes a request body fit an attempt; `None` where nothing changes.
    #[must_use]
    pub fn edit(&self, step: &Step, body: &RequestBody) -> Option<Edit> {
        match self.uses_client_models() {
            true => body.edit_without_models(step.model.as_deref()),
            false => body.edit(step.model.as_deref()?),
        }
    }
}

impl Step {
    /// The path to send, where it differs from `path`.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self
            .service
            .as_ref()?
            .path
            .render(path, self.model.as_deref())
        {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        }
    }

    /// The authority to send, where the service has its own.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.service.as_ref()?.authority.as_deref()
    }

    /// The headers that every request to the service carries.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        self.service
            .as_ref()
            .map_or(&[], |service| &service.headers)
    }

    /// Whether a client's header with this name stays behind. `hops` as in [`Step::hops`]: where they are not
    /// counted, what another gateway has counted goes on.
    #[must_use]
    pub fn withholds(&self, name: &str, hops: Option<u32>) -> bool {
        let Some(service) = &self.service else {
            return is_own(name);
        };
        is_own(name)
            || (name == HOPS_HEADER && hops.is_some())
            || (service.credentials == Credentials::Service && CREDENTIALS.contains(&name))
    }

    /// The header that counts the hops, where it is sent. `hops` counts this one; `None`: they are not counted.
    #[must_use]
    pub fn hops(&self, hops: Option<u32>) -> Option<Header> {
        let hops = hops.filter(|_| self.service.is_some())?;
        Some((HOPS_HEADER.to_owned(), hops.to_string().into_bytes()))
    }

    /// The headers of a whole new request, made from those that the client sent.
    ///
    /// A value that is not UTF-8 is left out: the SDK has no callout that could carry it.
    #[must_use]
    pub fn request_headers(
        &self,
        original: &[Header],
        body_len: usize,
        hops: Option<u32>,
    ) -> Vec<Header> {
        let mut headers: Vec<Header> = original
            .iter()
            .filter(|(name, value)| {
                !self.replaces(name, hops) && std::str::from_utf8(value).is_ok()
            })
            .map(|(name, value)| (name.clone(), self.fitted(name, value)))
            .collect();
        headers.extend(self.own_headers(hops));
        headers.push((
            "content-length".to_owned(),
            body_len.to_string().into_bytes(),
        ));
        headers
    }

    /// The headers of a request that Envoy's router sends again, on the header map of the attempt
    /// before: whatever was changed for another service is taken back.
    ///
    /// `original` is what the client sent, `body_len` the length of the body that the router keeps, in
    /// bytes, and `now` what is in the map.
    #[must_use]
    pub fn retry_headers(
        &self,
        original: &[Header],
        body_len: usize,
        hops: Option<u32>,
        now: &[Header],
    ) -> Vec<Header> {
        let original = original.iter().filter(|(name, _)| {
            !self.withholds(name, hops) && !self.sets(name) && !is_routers_own(name)
        });
        let mut headers: Vec<Header> = original
            .map(|(name, value)| match name.as_str() {
                "content-length" => (name.clone(), body_len.to_string().into_bytes()),
                _ => (name.clone(), self.fitted(name, value)),
            })
            .collect();
        headers.extend(now.iter().filter(|(name, _)| is_routers_own(name)).cloned());
        headers.extend(self.own_headers(hops));
        headers
    }

    fn own_headers(&self, hops: Option<u32>) -> impl Iterator<Item = Header> {
        let own = self.headers().iter();
        own.map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .chain(self.hops(hops))
    }

    fn replaces(&self, name: &str, hops: Option<u32>) -> bool {
        self.withholds(name, hops)
            || self.sets(name)
            || is_hop_by_hop(name)
            || ROUTER_CONTROLS.contains(&name)
    }

    fn sets(&self, name: &str) -> bool {
        self.headers().iter().any(|(own, _)| own == name)
    }

    fn fitted(&self, name: &str, value: &[u8]) -> Vec<u8> {
        let other = match name {
            ":authority" => self
                .authority()
                .map(|authority| authority.as_bytes().to_vec()),
            ":path" => self.path(value),
            _ => None,
        };
        other.unwrap_or_else(|| value.to_vec())
    }
}

/// How often a request came through already, as the hops header says. What cannot be read counts as nothing:
/// only those on the way here could have written it.
#[must_use]
pub fn hops(headers: &[Header]) -> u32 {
    let values = headers.iter().filter(|(name, _)| name == HOPS_HEADER);
    let numbers = values.flat_map(|(_, value)| value.split(|&byte| byte == b','));
    let numbers =
        numbers.filter_map(|number| std::str::from_utf8(number).ok()?.trim().parse().ok());
    numbers.max().unwrap_or_default()
}

fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || name == OFF_HEADER
}

/// Headers that Envoy's router sets anew for each attempt: its own, and those by which its tracers tell a service of
/// the span that the attempt is.
fn is_routers_own(name: &str) -> bool {
    ["x-envoy-", "x-b3-", "x-datadog-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || ["traceparent", "tracestate", "sw8", "x-amzn-trace-id"].contains(&name)
}

/// Whether a header says something about one connection alone.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}
