//! Making a request fit the service that it goes to.

use std::borrow::Cow;

use super::config::Credentials;
use super::plan::Step;

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

/// The prefix of the filter's own headers. A client cannot send them.
const OWN_PREFIX: &str = "x-ai-fallback-";

/// A header, by its lower-case name.
pub type Header = (String, Vec<u8>);

impl<'a> Step<'a> {
    /// The path to send, where it differs from `path`.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self.service?.path.render(path, self.model) {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        }
    }

    /// The authority to send, where the service has its own.
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        self.service?.authority.as_deref()
    }

    /// The headers that every request to the service carries.
    #[must_use]
    pub fn headers(&self) -> &'a [(String, String)] {
        self.service.map_or(&[], |service| &service.headers)
    }

    /// Whether a client's header with this name stays behind.
    #[must_use]
    pub fn withholds(&self, name: &str) -> bool {
        name.starts_with(OWN_PREFIX)
            || (CREDENTIALS.contains(&name)
                && self
                    .service
                    .is_some_and(|service| service.credentials == Credentials::Service))
    }

    /// The headers of a whole new request, made from those that the client sent.
    ///
    /// A value that is not UTF-8 is left out: the SDK has no callout that could carry it.
    #[must_use]
    pub fn request_headers(&self, original: &[Header], body_len: usize) -> Vec<Header> {
        let mut headers: Vec<Header> = original
            .iter()
            .filter(|(name, value)| !self.replaces(name) && std::str::from_utf8(value).is_ok())
            .map(|(name, value)| (name.clone(), self.fitted(name, value)))
            .collect();
        headers.extend(self.own_headers());
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
        now: &[Header],
    ) -> Vec<Header> {
        let original = original
            .iter()
            .filter(|(name, _)| !self.withholds(name) && !self.sets(name) && !is_routers_own(name));
        let mut headers: Vec<Header> = original
            .map(|(name, value)| match name.as_str() {
                "content-length" => (name.clone(), body_len.to_string().into_bytes()),
                _ => (name.clone(), self.fitted(name, value)),
            })
            .collect();
        headers.extend(now.iter().filter(|(name, _)| is_routers_own(name)).cloned());
        headers.extend(self.own_headers());
        headers
    }

    fn own_headers(&self) -> impl Iterator<Item = Header> {
        self.headers()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
    }

    fn replaces(&self, name: &str) -> bool {
        self.withholds(name)
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

/// Headers that Envoy's router sets anew for each attempt.
fn is_routers_own(name: &str) -> bool {
    name.starts_with("x-envoy-") || name == "traceparent" || name == "tracestate"
}

/// Whether a header says something about one connection alone.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}
