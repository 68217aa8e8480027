//! Making a request fit the service that it goes to.

use std::borrow::Cow;

use super::config::{Config, Credentials, SUBPROTOCOL_HEADER, without_secret_subprotocols};
use super::plan::{Plan, Step};
use super::request::{Edit, RequestBody};

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

/// In which encodings the client reads an answer.
const ACCEPT_ENCODING: &str = "accept-encoding";

/// A header, by its lower-case name.
pub type Header = (String, Vec<u8>);

/// A change to a header: its name, and its value afterwards; `None` takes it away.
pub type HeaderChange = (String, Option<Vec<u8>>);

/// How a request is forwarded, to whichever service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// How often the request came through, with this time; `None`: that is not counted.
    pub hops: Option<u32>,
    /// The answer is to be read, so the service is not told that the client could unpack a compressed one.
    pub uncompressed: bool,
}

impl Plan {
    /// The edit that makes a request body fit an attempt; `None` where nothing changes.
    #[must_use]
    pub fn edit(&self, step: &Step, body: &RequestBody) -> Option<Edit> {
        match self.uses_client_models() {
            true => body.edit_without_models(step.model.as_deref()),
            false => body.edit(step.model.as_deref()?),
        }
    }

    /// Whether an attempt may need another body than the client has sent.
    #[must_use]
    pub fn changes_body(&self, step: &Step) -> bool {
        self.uses_client_models()
            || (step.model.is_some() && step.model.as_deref() != self.requested())
    }
}

impl Step {
    /// The path to send, where it differs from `path`.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let service = self.service.as_ref()?;
        let own = match service.credentials {
            Credentials::Service => service.credential_names.without_parameters(path),
            Credentials::Client => Cow::Borrowed(path),
        };
        match (service.path.render(&own, self.model.as_deref()), &own) {
            (Cow::Owned(path), _) => Some(path),
            (Cow::Borrowed(_), Cow::Owned(path)) => Some(path.clone()),
            (Cow::Borrowed(_), Cow::Borrowed(_)) => None,
        }
    }

    /// The changes that make the headers of a client fit the service, where they are held.
    #[must_use]
    pub fn header_changes(&self, held: &[Header], forwarding: Forwarding) -> Vec<HeaderChange> {
        let mut changes: Vec<HeaderChange> = Vec::new();
        for (name, value) in held {
            // To set a header takes the place of each of its name.
            let all = joined(held, name, value);
            match self.fitted(name, &all, forwarding) {
                Some(Cow::Owned(value)) => changes.push((name.clone(), Some(value))),
                None if !self.sets(name) => changes.push((name.clone(), None)),
                _ => {}
            }
        }
        let own = self.own_headers(forwarding);
        changes.extend(own.map(|(name, value)| (name, Some(value))));
        changes
    }

    /// Whether a trailer of the client stays behind: what is no header for the service is no trailer either.
    #[must_use]
    pub fn withholds_trailer(&self, name: &str) -> bool {
        let service = self.service.as_ref();
        is_own(name) || service.is_some_and(|service| service.removes_header(name))
    }

    /// The headers of a whole new request, made from those that the client sent.
    ///
    /// A value that is not UTF-8 is left out: the SDK has no callout that could carry it.
    #[must_use]
    pub fn request_headers(
        &self,
        original: &[Header],
        body_len: usize,
        forwarding: Forwarding,
    ) -> Vec<Header> {
        let forwarded = original.iter().filter(|(name, value)| {
            !is_hop_by_hop(name)
                && !ROUTER_CONTROLS.contains(&name.as_str())
                && std::str::from_utf8(value).is_ok()
        });
        let mut headers = self.fitted_headers(forwarded, forwarding);
        headers.push((
            "content-length".to_owned(),
            body_len.to_string().into_bytes(),
        ));
        headers
    }

    /// The headers of a request that Envoy's router sends again, on the header map of the attempt before: whatever was
    /// changed for another service is taken back.
    ///
    /// `original` is what came to the first attempt, `now` what is in the map.
    #[must_use]
    pub fn retry_headers(
        &self,
        config: &Config,
        original: &[Header],
        now: &[Header],
        forwarding: Forwarding,
    ) -> Vec<Header> {
        // What one service sets never goes on to another, whatever its name.
        let is_routers = |name: &str| is_routers_own(name) && !config.sets_header(name);
        let original = original.iter().filter(|(name, _)| !is_routers(name));
        let mut headers = self.fitted_headers(original, forwarding);
        let removes = |name: &str| {
            let service = self.service.as_ref();
            service.is_some_and(|service| service.removes_header(name))
        };
        let now = now
            .iter()
            .filter(|(name, _)| is_routers(name) && !removes(name));
        headers.extend(now.cloned());
        headers
    }

    fn fitted_headers<'a>(
        &self,
        original: impl Iterator<Item = &'a Header>,
        forwarding: Forwarding,
    ) -> Vec<Header> {
        let mut headers = Vec::with_capacity(32);
        for (name, value) in original {
            if let Some(value) = self.fitted(name, value, forwarding) {
                headers.push((name.clone(), value.into_owned()));
            }
        }
        headers.extend(self.own_headers(forwarding));
        headers
    }

    /// The value that a header of the client has on its way to the service; `None`: it stays behind.
    fn fitted<'a>(
        &self,
        name: &str,
        value: &'a [u8],
        forwarding: Forwarding,
    ) -> Option<Cow<'a, [u8]>> {
        if is_own(name) || (forwarding.uncompressed && name == ACCEPT_ENCODING) {
            return None;
        }
        let Some(service) = &self.service else {
            return Some(Cow::Borrowed(value));
        };
        let counts_hops = name == HOPS_HEADER && forwarding.hops.is_some();
        if counts_hops || service.removes_header(name) || self.sets(name) {
            return None;
        }
        let changed = match name {
            ":authority" => service.authority.clone().map(String::into_bytes),
            ":path" => self.path(value),
            SUBPROTOCOL_HEADER if service.credentials == Credentials::Service => {
                let rest = without_secret_subprotocols(value)?;
                (rest != value).then_some(rest)
            }
            _ => None,
        };
        Some(changed.map_or(Cow::Borrowed(value), Cow::Owned))
    }

    /// The headers that every request to the service carries, and the count of hops.
    fn own_headers(&self, forwarding: Forwarding) -> impl Iterator<Item = Header> {
        let hops = forwarding.hops.filter(|_| self.service.is_some());
        let hops = hops.map(|hops| (HOPS_HEADER.to_owned(), hops.to_string().into_bytes()));
        let own = self.headers().iter();
        own.map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .chain(hops)
    }

    fn headers(&self) -> &[(String, String)] {
        self.service
            .as_ref()
            .map_or(&[], |service| &service.headers)
    }

    fn sets(&self, name: &str) -> bool {
        self.headers().iter().any(|(own, _)| own == name)
    }
}

/// The values of all subprotocol headers, which are one list; of each other header its own.
fn joined<'a>(held: &'a [Header], name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    if name != SUBPROTOCOL_HEADER {
        return Cow::Borrowed(value);
    }
    let all = held.iter().filter(|(other, _)| other == name);
    let all: Vec<&[u8]> = all.map(|(_, value)| value.as_slice()).collect();
    Cow::Owned(all.join(&b", "[..]))
}

/// How often a request came through already, as the hops header says. What cannot be read counts as nothing:
/// only those on the way here could have written it.
#[must_use]
pub fn hops(headers: &[Header]) -> u32 {
    let values = headers.iter().filter(|(name, _)| name == HOPS_HEADER);
    let numbers = values.flat_map(|(_, value)| value.split(|&byte| byte == b','));
    let numbers = numbers.filter_map(|number| {
        let number = std::str::from_utf8(number).ok()?.trim();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        // One that is too long is the largest.
        is_number.then(|| number.parse().unwrap_or(u32::MAX))
    });
    numbers.max().unwrap_or_default()
}

/// Whether a header of a client is one of the filter's own.
#[must_use]
pub fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || name == OFF_HEADER
}

/// By these a tracer of Envoy tells a service of the span that the attempt is: W3C and OpenTelemetry, Zipkin, Datadog,
/// SkyWalking, X-Ray, OpenCensus.
const TRACING: [&str; 18] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-origin",
    "x-datadog-tags",
    "sw8",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "grpc-trace-bin",
];

/// Headers that Envoy's router sets anew for each attempt: its own, and those of its tracers.
fn is_routers_own(name: &str) -> bool {
    name.starts_with("x-envoy-") || TRACING.contains(&name)
}

/// Whether a header says something about one connection alone.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}
