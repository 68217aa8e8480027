//! Everything that the filter asks of Envoy: each call with the phase that it may be made in, and what a refusal means.
//!
//! A call that Envoy refuses, such as one in the wrong phase, is logged and changes nothing.

use std::time::Duration;

use proxy_wasm::hostcalls;

use crate::core::fit::Header;
use crate::host::{self, BodyOf, MapOf, MetricKind, SharedData, Status};

/// A token that Envoy gives a callout.
pub type Token = u32;

/// Time since some fixed start. It never runs backwards.
#[cfg(target_os = "wasi")]
#[must_use]
pub fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    // Envoy maps the monotonic clock of WASI to its own; `get_current_time` is the wall clock.
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Time since some fixed start: in native tests, the clock of the emulated host.
#[cfg(not(target_os = "wasi"))]
#[must_use]
pub fn now() -> Duration {
    wall_now()
}

/// Time since the Unix epoch. All workers share this clock, and it may jump.
#[must_use]
pub fn wall_now() -> Duration {
    host::wall_time().unwrap_or_default()
}

/// One header. Several of the same name are joined by a comma. Only in the phase of that map.
#[must_use]
pub fn header(map: MapOf, name: &str) -> Option<Vec<u8>> {
    host::header(map, name).ok()
}

/// All headers. Empty outside the phase of that map.
#[must_use]
pub fn headers(map: MapOf) -> Vec<Header> {
    host::headers(map).unwrap_or_default()
}

/// Sets one header. Only in the phase of that map, until the headers are released.
pub fn set_header(map: MapOf, name: &str, value: &[u8]) {
    note("set_header", host::set_header(map, name, value));
}

/// Removes one header; one that is absent is fine. Only until the headers are released.
pub fn remove_header(map: MapOf, name: &str) {
    note("remove_header", host::remove_header(map, name));
}

/// Removes the trailers of the request that `withholds` names. Only in their phase.
pub fn remove_trailers(withholds: impl Fn(&str) -> bool) {
    let map = MapOf::RequestTrailers;
    for (name, _) in headers(map).iter().filter(|(name, _)| withholds(name)) {
        remove_header(map, name);
    }
}

/// Replaces all headers. Only until the headers are released.
pub fn replace_headers(map: MapOf, headers: &[Header]) {
    note("replace_headers", host::replace_headers(map, headers));
}

/// At most `max` bytes of a buffer, from `start` on. Only in the phase of that buffer.
#[must_use]
pub fn buffer(body: BodyOf, start: usize, max: usize) -> Vec<u8> {
    host::buffer(body, start, max).unwrap_or_default()
}

/// Part of the held response body: where it starts, and its length. Only in the phase of the
/// response body or trailers.
#[must_use]
pub fn response_body((start, length): (usize, usize)) -> Vec<u8> {
    match length {
        0 => Vec::new(),
        length => buffer(BodyOf::Response, start, length),
    }
}

/// Replaces the first `len` bytes of a buffer: Envoy 1.40 can change a buffer at its start and at
/// its end only. Only in the phase of that buffer.
pub fn replace_start(body: BodyOf, len: usize, bytes: &[u8]) {
    note("replace_start", host::replace_buffer(body, 0, len, bytes));
}

/// A property, such as `response.code_details`. `None` where it is not set.
#[must_use]
pub fn property(path: &[&str]) -> Option<Vec<u8>> {
    host::property(path).ok().filter(|value| !value.is_empty())
}

/// Writes filter state. Only while the stream lives.
pub fn set_property(path: &[&str], value: &[u8]) {
    note("set_property", host::set_property(path, value));
}

/// Calls a function that Envoy offers by name.
pub fn call_foreign(name: &str) {
    note("call_foreign", host::call_foreign(name));
}

/// Releases the held request. Envoy does so after the callback.
pub fn resume_request() {
    note("resume_request", host::resume(BodyOf::Request));
}

/// Releases the held response. Envoy does so after the callback.
pub fn resume_response() {
    note("resume_response", host::resume(BodyOf::Response));
}

/// Answers the client. Envoy does so after the callback, and cancels the request to the service.
pub fn reply(status: u16, headers: &[Header], body: &[u8]) {
    note("reply", host::reply(status.into(), headers, body));
}

/// Makes Envoy drop the part of the body that the callback under way has brought, where that then returns `Pause`. Only in the
/// phase of the request's or the response's body. `stream` is the context of the callback, `root` that of its plugin.
///
/// An answer to a callback of `Pause` lets Envoy buffer the part, and a request whose buffer is over the limit ends in
/// `413`. The host lets no filter ask for less, but for a reply: after one nothing is buffered. It takes one of a root
/// context, which has no stream to answer, for nothing but that (Envoy 1.36, 1.39 and 1.40).
pub fn drop_part(root: u32, stream: u32) {
    if enter(root) {
        reply(200, &[], b"");
        let _ = enter(stream);
    }
}

/// Sends a request to a cluster. `None` where Envoy refuses: no such cluster, no host in it. A
/// timeout of zero is none. Envoy 1.40 sends no trailers with a callout.
///
/// By the SDK, which knows then whom its answer is for. It takes text only, so a header value that is not UTF-8 is left out; it
/// panics on no status that Envoy has for this call.
#[must_use]
pub fn call(cluster: &str, headers: &[Header], body: &[u8], timeout: Duration) -> Option<Token> {
    hostcalls::dispatch_http_call(cluster, as_text(headers), Some(body), Vec::new(), timeout).ok()
}

/// Makes the following calls speak of another stream. False where that stream is gone.
#[must_use]
pub fn enter(stream: u32) -> bool {
    host::enter(stream).is_ok()
}

/// Sets the time between two ticks; zero turns them off. Only for the root.
pub fn set_tick(period: Duration) {
    note("set_tick", host::set_tick(period));
}

/// The plugin configuration, as it came. Only while the root is configured.
#[must_use]
pub fn plugin_configuration() -> Vec<u8> {
    buffer(BodyOf::PluginConfiguration, 0, usize::MAX)
}

/// Defines a metric, or finds the one with this name. `None` where Envoy has no room for it.
#[must_use]
pub fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    host::define_metric(kind, name).ok()
}

/// Sets a gauge, or adds a value to a histogram. All workers share it.
pub fn set_metric(id: u32, value: u64) {
    note("set_metric", host::set_metric(id, value));
}

/// The value of a counter or gauge, which all VMs of the process share.
#[must_use]
pub fn metric(id: u32) -> u64 {
    host::metric(id).unwrap_or_default()
}

/// Adds to a metric. Envoy 1.40 refuses to add nothing.
pub fn add_to_metric(id: u32, delta: i64) {
    if delta != 0 {
        note("add_to_metric", host::add_to_metric(id, delta));
    }
}

/// Which version of shared data was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u32);

/// The version of data that is not there yet. Envoy 1.40 checks the version of data that it has, and
/// takes 0 for "whatever is there". So any other number makes a first write that fails where another
/// worker was first; Envoy counts versions from 1, and would have to write this many times to come to
/// this one.
const ABSENT: Version = Version(u32::MAX);

/// Data that all VMs with this `vm_id` share, on all workers, and its version for the next write. No
/// bytes where there is none. It outlives a VM, as long as another one has the `vm_id`: Envoy keeps one
/// on its main thread.
#[must_use]
pub fn shared_data(key: &str) -> (Vec<u8>, Version) {
    let SharedData { bytes, version } = host::shared_data(key).unwrap_or_default();
    (
        bytes,
        if version == 0 {
            ABSENT
        } else {
            Version(version)
        },
    )
}

/// Writes shared data. False where another worker has written since `version` was read.
#[must_use]
pub fn set_shared_data(key: &str, bytes: &[u8], Version(version): Version) -> bool {
    host::set_shared_data(key, bytes, version).is_ok()
}

fn as_text(headers: &[Header]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value).ok()?)))
        .collect()
}

fn note<T>(call: &str, result: Result<T, Status>) {
    if let Err(status) = result {
        log::warn!("event=host_call_failed call={call} status={status:?}");
    }
}
