//! Answers: who made one, as Envoy lets us know it, and one to give. Seen with Envoy 1.36, 1.39 and 1.40.

use super::host;
use crate::core::fit::Header;
use crate::core::outcome::{Origin, Outcome};
use crate::core::reply::Reply;
use crate::core::trail::Trail;
use crate::host::MapOf;

/// Who answered.
pub const SERVICE_HEADER: &str = "x-ai-fallback-service";
/// Every attempt in order.
pub const ATTEMPTS_HEADER: &str = "x-ai-fallback-attempts";

/// Answers that Envoy's router makes since a service could not be reached, by the start of their
/// `response.code_details`.
const TRANSPORT: [&[u8]; 4] = [
    b"upstream_reset_",
    b"no_healthy_upstream",
    b"cluster_not_found",
    b"maintenance_mode",
];

/// The same, since a service took too long.
const TIMEOUT: [&[u8]; 6] = [
    b"upstream_response_timeout",
    b"response_timeout",
    b"upstream_per_try_timeout",
    b"upstream_max_stream_duration_reached",
    b"stream_idle_timeout",
    b"max_duration_timeout",
];

/// Answers of Envoy's filters that say who may ask, by the start of their `response.code_details`. Those of `ext_authz` and
/// `oauth2` are their failing closed, too. Seen with the real filters in `tests/placement`, on Envoy 1.36, 1.39 and 1.40,
/// but for those marked: they are in Envoy's source alone.
const ACCESS_CONTROL: [&[u8]; 28] = [
    // jwt_authn
    b"jwt_authn_access_denied",
    // ext_authz: `ext_authz_denied`, `ext_authz_error`; marked: `ext_authz_invalid`, `ext_authz_unauthorized`
    b"ext_authz_",
    // rbac
    b"rbac_access_denied",
    // basic_auth
    b"no_credential_for_basic_auth",
    b"invalid_scheme_for_basic_auth",
    b"invalid_format_for_basic_auth",
    b"invalid_credential_for_basic_auth",
    // api_key_auth; Envoy writes the fourth one so up to 1.39
    b"missing_api_key",
    b"missing_key_sources",
    b"missing_credentials",
    b"unkonwn_api_key",
    b"unknown_api_key",
    b"client_not_allowed",
    // csrf
    b"csrf_origin_mismatch",
    // oauth2, which says most of it in sentences
    b"OAuth2_",
    b"OAuth_",
    b"Unauthorized,_and_redirecting_to_OAuth_server",
    // oauth2, marked
    b"oauth",
    b"CSRF_token_validation_failed",
    b"Code_or_state_",
    b"Code_verifier_",
    b"Failed_to_decrypt_code_verifier",
    b"Failed_to_get_access_token",
    b"Failed_to_refresh_the_access_token",
    b"State_",
    b"authority_or_original_request_uri_failed",
    b"redirect_uri_failed_domain",
    // Istio's own filter of authentication, marked
    b"istio_authn_access_denied",
];

/// Who made the routed answer. Only while a response is under way.
///
/// A good status counts as the service's: to ask is a slow host call, and what a cache or a fixed
/// response of the gateway says is a good answer all the same.
#[must_use]
pub fn routed_origin(status: u16) -> Origin {
    match status {
        0..300 => Origin::Service,
        _ => origin(&code_details()),
    }
}

/// Whether the answer is Envoy's own to a request that no route takes.
#[must_use]
pub fn is_route_missing() -> bool {
    code_details() == b"route_not_found"
}

/// Whether the answer is Envoy's own to a request whose body is over its buffer limit.
#[must_use]
pub fn is_request_too_large() -> bool {
    code_details() == b"request_payload_too_large"
}

fn code_details() -> Vec<u8> {
    host::property(&["response", "code_details"]).unwrap_or_default()
}

/// Sentences as details have blanks while the answer is on its way, and `_` in access logs.
fn starts_with_words(code_details: &[u8]) -> bool {
    if !code_details.contains(&b' ') {
        return false;
    }
    let joined: Vec<u8> = code_details
        .iter()
        .map(|&byte| if byte == b' ' { b'_' } else { byte })
        .collect();
    ACCESS_CONTROL.iter().any(|start| joined.starts_with(start))
}

fn origin(code_details: &[u8]) -> Origin {
    let starts = |list: &[&[u8]]| list.iter().any(|start| code_details.starts_with(start));
    if code_details.starts_with(b"via_upstream") {
        Origin::Service
    } else if code_details.ends_with(b"{overflow}") {
        Origin::Overflow
    } else if starts(&TRANSPORT) {
        Origin::Transport
    } else if starts(&TIMEOUT) {
        Origin::Timeout
    } else if starts(&ACCESS_CONTROL) || starts_with_words(code_details) {
        Origin::AccessControl
    } else {
        Origin::Gateway
    }
}

/// How a stream ended that has had no answer yet, where Envoy has answered past all filters: a held answer broke off,
/// or one of Envoy's own times is used up. `None`: the client left, which Envoy says last of all.
#[must_use]
pub fn broken_off() -> Option<Outcome> {
    let details = code_details();
    match (origin(&details), details.as_slice()) {
        // A held answer is larger than Envoy's buffer.
        (Origin::Transport, _) | (_, b"response_payload_too_large") => Some(Outcome::Reset),
        (Origin::Timeout, _) => Some(Outcome::RequestTimeout),
        _ => None,
    }
}

/// Who made the answer of a callout. Envoy's router adds `x-envoy-upstream-service-time` to what
/// a service said; its own answers are `504` for a timeout and a `5xx` else, with a text as body, and
/// `x-envoy-overloaded` where a circuit breaker is open. What is left is said by a filter of the cluster.
#[must_use]
pub fn called_origin(headers: &[Header], status: u16) -> Origin {
    let has = |header| headers.iter().any(|(name, _)| name == header);
    match status {
        _ if has("x-envoy-upstream-service-time") => Origin::Service,
        _ if has("x-envoy-overloaded") => Origin::Overflow,
        504 => Origin::Timeout,
        100..500 => Origin::Gateway,
        _ => Origin::Transport,
    }
}

/// The status of an answer; 0 where there is none, or none that could be read.
#[must_use]
pub fn status(value: Option<&[u8]>) -> u16 {
    value
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or_default()
}

/// Tells the client what was tried, and who gave the routed answer. Only while its headers are held.
pub fn tell(trail: &Trail, service: Option<&str>) {
    let map = MapOf::ResponseHeaders;
    host::set_header(map, ATTEMPTS_HEADER, trail.as_str().as_bytes());
    match service {
        Some(service) => host::set_header(map, SERVICE_HEADER, service.as_bytes()),
        // The service may have sent one itself.
        None => host::remove_header(map, SERVICE_HEADER),
    }
}

/// An answer to give to the client in place of the routed one.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<Header>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Adds a header.
    pub fn add(&mut self, name: &str, value: String) {
        self.headers.push((name.to_owned(), value.into_bytes()));
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
        Self {
            status: reply.status,
            headers,
            body: reply.body.into_bytes(),
        }
    }
}
