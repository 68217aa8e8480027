//! The host functions of the proxy-wasm ABI 0.2.1 that the filter uses, and a safe call of each.
#![allow(
    unsafe_code,
    reason = "the only file with the ABI of the host: each block says why it is sound"
)]

use std::fmt;
use std::ptr::{null, null_mut};
use std::time::Duration;

use super::pairs::{self, Pair};

/// Why the host has refused a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(u32);

impl Status {
    /// There is no such thing.
    pub const NOT_FOUND: Status = Status(1);
}

/// The names are those of the ABI; a status that it does not have is its number.
impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 13] = [
            "Ok",
            "NotFound",
            "BadArgument",
            "SerializationFailure",
            "ParseFailure",
            "BadExpression",
            "InvalidMemoryAccess",
            "Empty",
            "CasMismatch",
            "ResultMismatch",
            "InternalFailure",
            "BrokenConnection",
            "Unimplemented",
        ];
        let name = usize::try_from(self.0).ok().and_then(|at| NAMES.get(at));
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Which headers or trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapOf {
    /// Headers of the request.
    RequestHeaders = 0,
    /// Trailers of the request.
    RequestTrailers = 1,
    /// Headers of the response.
    ResponseHeaders = 2,
    /// Trailers of the response.
    ResponseTrailers = 3,
    /// Headers of the answer to a callout.
    CallResponseHeaders = 6,
}

/// Which body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum BodyOf {
    /// That of the request.
    Request = 0,
    /// That of the response.
    Response = 1,
    /// That of the answer to a callout.
    CallResponse = 4,
    /// The configuration of the plugin.
    PluginConfiguration = 7,
}

/// Which kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    /// It grows.
    Counter = 0,
    /// It has a value.
    Gauge = 1,
    /// It takes in values.
    Histogram = 2,
}

/// Data that VMs share, and the version of it.
#[derive(Debug, Default)]
pub struct SharedData {
    /// The bytes; none where there are none.
    pub bytes: Vec<u8>,
    /// 0: there is nothing yet.
    pub version: u32,
}

type Out = *mut *mut u8;
type OutSize = *mut usize;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(of: u32, start: usize, max: usize, data: Out, size: OutSize) -> u32;
    fn proxy_set_buffer_bytes(
        of: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(of: u32, data: Out, size: OutSize) -> u32;
    fn proxy_set_header_map_pairs(of: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_value(
        of: u32,
        name: *const u8,
        name_size: usize,
        data: Out,
        size: OutSize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        of: u32,
        name: *const u8,
        name_size: usize,
        data: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(of: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: Out, size: OutSize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: Out,
        size: OutSize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        data: *const u8,
        size: usize,
        version: u32,
    ) -> u32;
    fn proxy_continue_stream(side: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: Out,
        size: OutSize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
}

fn checked(status: u32) -> Result<(), Status> {
    match status {
        0 => Ok(()),
        status => Err(Status(status)),
    }
}

/// The bytes that a call hands over.
fn bytes(call: impl FnOnce(Out, OutSize) -> u32) -> Result<Vec<u8>, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    checked(call(&mut data, &mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host has had `size` bytes at `data` allocated by the SDK's `proxy_on_memory_allocate`, which makes a `Vec<u8>` of
    // that capacity and forgets it, has filled all of them, and keeps no pointer to them.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Time since the Unix epoch, by the host's clock.
pub fn wall_time() -> Result<Duration, Status> {
    let mut time = 0;
    // SAFETY: the host writes 8 bytes to where `time` stands.
    checked(unsafe { proxy_get_current_time_nanoseconds(&raw mut time) })?;
    Ok(Duration::from_nanos(time))
}

/// Sets the time between two ticks; zero turns them off.
pub fn set_tick(period: Duration) -> Result<(), Status> {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_set_tick_period_milliseconds(millis) })
}

/// Part of a body.
pub fn buffer(of: BodyOf, start: usize, max: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: the host writes to the two places that `bytes` has for it.
    bytes(|data, size| unsafe { proxy_get_buffer_bytes(of as u32, start, max, data, size) })
}

/// Replaces `length` bytes of a body from `start` on.
pub fn replace_buffer(of: BodyOf, start: usize, length: usize, with: &[u8]) -> Result<(), Status> {
    // SAFETY: the host reads `with.len()` bytes of `with`, which lives longer than the call.
    checked(unsafe { proxy_set_buffer_bytes(of as u32, start, length, with.as_ptr(), with.len()) })
}

/// All headers of a map.
pub fn headers(of: MapOf) -> Result<Vec<Pair>, Status> {
    // SAFETY: the host writes to the two places that `bytes` has for it.
    let all = bytes(|data, size| unsafe { proxy_get_header_map_pairs(of as u32, data, size) })?;
    Ok(pairs::decode(&all))
}

/// Replaces all headers of a map.
pub fn replace_headers(of: MapOf, with: &[Pair]) -> Result<(), Status> {
    let with = pairs::encode(with);
    // SAFETY: the host reads `with.len()` bytes of `with`, which lives longer than the call.
    checked(unsafe { proxy_set_header_map_pairs(of as u32, with.as_ptr(), with.len()) })
}

/// One header. Several of the same name are joined by a comma.
pub fn header(of: MapOf, name: &str) -> Result<Vec<u8>, Status> {
    let mut is_there = false;
    let value = bytes(|data, size| {
        // SAFETY: the host reads `name.len()` bytes of `name`, and writes to the two places that `bytes` has for it.
        let status =
            unsafe { proxy_get_header_map_value(of as u32, name.as_ptr(), name.len(), data, size) };
        // SAFETY: `data` is the place that `bytes` has for it.
        is_there = !unsafe { *data }.is_null();
        status
    })?;
    match is_there {
        true => Ok(value),
        false => Err(Status::NOT_FOUND),
    }
}

/// Sets one header.
pub fn set_header(of: MapOf, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: the host reads `name` and `value`, each to its length, and both live longer than the call.
    checked(unsafe {
        proxy_replace_header_map_value(
            of as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes one header.
pub fn remove_header(of: MapOf, name: &str) -> Result<(), Status> {
    // SAFETY: the host reads `name.len()` bytes of `name`, which lives longer than the call.
    checked(unsafe { proxy_remove_header_map_value(of as u32, name.as_ptr(), name.len()) })
}

/// A property.
pub fn property(path: &[&str]) -> Result<Vec<u8>, Status> {
    let path = path.join("\0");
    // SAFETY: the host reads `path.len()` bytes of `path`, and writes to the two places that `bytes` has for it.
    bytes(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Writes a property.
pub fn set_property(path: &[&str], value: &[u8]) -> Result<(), Status> {
    let path = path.join("\0");
    // SAFETY: the host reads `path` and `value`, each to its length, and both live longer than the call.
    checked(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Data that VMs share.
pub fn shared_data(key: &str) -> Result<SharedData, Status> {
    let mut version = 0;
    let bytes = bytes(|data, size| {
        // SAFETY: the host reads `key.len()` bytes of `key`, and writes to the two places that `bytes` has for it, and 4 bytes to
        // where `version` stands.
        unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version) }
    })?;
    Ok(SharedData { bytes, version })
}

/// Writes data that VMs share, where it still has this version.
pub fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), Status> {
    // SAFETY: the host reads `key` and `value`, each to its length, and both live longer than the call.
    checked(unsafe {
        proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            version,
        )
    })
}

/// Releases what is held of a stream.
pub fn resume(of: BodyOf) -> Result<(), Status> {
    // SAFETY: no memory is passed. The sides of a stream have the numbers of its bodies.
    checked(unsafe { proxy_continue_stream(of as u32) })
}

/// Answers the client.
pub fn reply(status: u32, headers: &[Pair], body: &[u8]) -> Result<(), Status> {
    const NO_GRPC_STATUS: i32 = -1;
    let headers = pairs::encode(headers);
    // SAFETY: the host reads `body` and `headers`, each to its length, and both live longer than the call.
    checked(unsafe {
        proxy_send_local_response(
            status,
            null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Makes the following calls speak of another context.
pub fn enter(context: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_set_effective_context(context) })
}

/// Calls a function that the host offers by name, without arguments.
pub fn call_foreign(name: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: the host reads `name.len()` bytes of `name`, and writes to the two places that `bytes` has for it.
    bytes(|data, size| unsafe {
        proxy_call_foreign_function(name.as_ptr(), name.len(), null(), 0, data, size)
    })
}

/// Defines a metric, or finds the one with this name.
pub fn define_metric(kind: MetricKind, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: the host reads `name.len()` bytes of `name`, and writes 4 bytes to where `id` stands.
    checked(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// The value of a metric.
pub fn metric(id: u32) -> Result<u64, Status> {
    let mut value = 0;
    // SAFETY: the host writes 8 bytes to where `value` stands.
    checked(unsafe { proxy_get_metric(id, &raw mut value) })?;
    Ok(value)
}

/// Sets a gauge, or adds a value to a histogram.
pub fn set_metric(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_record_metric(id, value) })
}

/// Adds to a metric.
pub fn add_to_metric(id: u32, by: i64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_increment_metric(id, by) })
}
