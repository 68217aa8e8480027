//! What passes between the request filter and the attempt filters of one request, in
//! `dispatch: router`. Seen with Envoy 1.39 and 1.40.
//!
//! `set_property(["NAME"])` writes the filter state `wasm.NAME`, which all filters of a request share,
//! also across VMs. No header carries anything down, so no service can see it or be fooled.

use super::host;
use crate::core::config::Config;
use crate::core::fit::{Header, ROUTER_CONTROLS};
use crate::core::handoff::{Handoff, PackedHeaders};
use crate::core::plan::Plan;
use crate::core::progress::Progress;
use crate::host::MapOf;

/// The cluster of the next attempt: the route's matcher reads `wasm.ai_fallback.cluster`.
const CLUSTER: &[&str] = &["ai_fallback.cluster"];
/// The [`Handoff`].
const PLAN: &[&str] = &["ai_fallback.plan"];
/// The [`Progress`].
const PROGRESS: &[&str] = &["ai_fallback.progress"];
/// The [`PackedHeaders`] that came to the first attempt.
const ORIGINAL: &[&str] = &["ai_fallback.original"];
/// What an attempt filter has done: [`Seen`].
const SEEN: &[&str] = &["ai_fallback.seen"];
/// Anything, once the request filter makes the attempts itself.
const TAKEN_OVER: &[&str] = &["ai_fallback.taken_over"];

/// What an attempt filter has done with its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It made the request fit its service, and does no more.
    Fitted,
    /// It judged the answer, which goes to the client.
    Settled,
}

/// Asks Envoy's router for a retry. The value is the outcome, or [`NOT_MADE`].
pub const RETRY_HEADER: &str = "x-ai-fallback-retry";
/// The attempt filter stopped the attempt before anything was sent.
pub const NOT_MADE: &[u8] = b"not_made";

/// Sends the request, or its next attempt, to a cluster.
pub fn set_cluster(cluster: &str) {
    host::set_property(CLUSTER, cluster.as_bytes());
}

/// Makes Envoy choose the route, and with it the cluster, anew.
pub fn choose_route_again() {
    host::call_foreign("clear_route_cache");
}

/// Hands a plan to the attempt filters.
pub fn hand_over(handoff: &Handoff) {
    host::set_property(PLAN, &handoff.encode());
}

/// Allows the router as many attempts as the plan needs, and each its time. `headers` are those of the client. What is set
/// here the router takes out of the request before its first attempt.
pub fn allow_attempts(plan: &Plan, headers: &[Header]) {
    let retries = plan.max_attempts().saturating_sub(1);
    let map = MapOf::RequestHeaders;
    for (name, _) in headers {
        if ROUTER_CONTROLS.contains(&name.as_str()) {
            host::remove_header(map, name);
        }
    }
    host::set_header(map, "x-envoy-max-retries", retries.to_string().as_bytes());
    if let Some(patience) = plan.patience() {
        let millis = patience.time.as_millis().to_string();
        host::set_header(
            map,
            "x-envoy-upstream-rq-per-try-timeout-ms",
            millis.as_bytes(),
        );
    }
}

/// Says what the attempt filter has done with its attempt.
pub fn set_seen(seen: Seen) {
    let word: &[u8] = match seen {
        Seen::Fitted => b"fitted",
        Seen::Settled => b"settled",
    };
    host::set_property(SEEN, word);
}

/// Whether the answer says that an attempt filter has stopped its attempt. Only in the phase of the response headers.
#[must_use]
pub fn is_not_made() -> bool {
    host::header(MapOf::ResponseHeaders, RETRY_HEADER).as_deref() == Some(NOT_MADE)
}

/// What an attempt filter has done with the last attempt, where one has said it. A header could be of the service, which
/// may be a gateway like this one.
#[must_use]
pub fn seen() -> Option<Seen> {
    match host::property(SEEN)?.as_slice() {
        b"settled" => Some(Seen::Settled),
        _ => Some(Seen::Fitted),
    }
}

/// Keeps the headers that came to the first attempt for those after it.
pub fn keep_original(headers: &PackedHeaders) {
    host::set_property(ORIGINAL, headers.as_bytes());
}

/// The headers that came to the first attempt.
#[must_use]
pub fn original() -> Option<PackedHeaders> {
    host::property(ORIGINAL).map(PackedHeaders::read)
}

/// The plan of this request, where there is one; the inner `None` is one of another configuration.
#[must_use]
pub fn handoff(config: &Config) -> Option<Option<Handoff>> {
    Some(Handoff::decode(config, &host::property(PLAN)?))
}

/// How far the attempt filters have come, where one of them has written it down.
#[must_use]
pub fn progress() -> Option<Progress> {
    Progress::decode(&host::property(PROGRESS)?)
}

/// Writes down how far the request has come.
pub fn set_progress(progress: &Progress) {
    host::set_property(PROGRESS, &progress.encode());
}

/// Tells the attempt filters that the request filter makes the attempts itself.
pub fn take_over() {
    host::set_property(TAKEN_OVER, b"1");
}

/// Whether the request filter makes the attempts itself.
#[must_use]
pub fn is_taken_over() -> bool {
    host::property(TAKEN_OVER).is_some()
}

/// How many attempts Envoy's router has begun. To an attempt filter, its own is the last of them.
#[must_use]
pub fn attempts_made() -> usize {
    number(&["upstream", "request_attempt_count"]).unwrap_or_default()
}

/// The cluster that Envoy has chosen.
#[must_use]
pub fn chosen_cluster() -> String {
    let name = host::property(&["xds", "cluster_name"]).unwrap_or_default();
    String::from_utf8(name).unwrap_or_default()
}

/// Whether this Envoy can choose another cluster for a retry: `refresh_cluster_on_retry` came with
/// 1.39. A version that is not told is taken for a new one.
#[must_use]
pub fn is_supported() -> bool {
    let part = |name| number(&["xds", "node", "user_agent_build_version", "version", name]);
    match (part("major_number"), part("minor_number")) {
        (Some(major), Some(minor)) => (major, minor) >= (1, 39),
        _ => true,
    }
}

/// A number among the properties: 8 bytes, little-endian.
fn number(path: &[&str]) -> Option<usize> {
    let bytes = host::property(path)?;
    usize::try_from(i64::from_le_bytes(*bytes.first_chunk()?)).ok()
}
