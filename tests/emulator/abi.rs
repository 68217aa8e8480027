//! The 37 host functions that the SDK imports, and the callbacks that it exports.

#![allow(unsafe_op_in_unsafe_fn, clippy::too_many_arguments)]

use super::host::{host, try_host};
use super::state::Headers;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};
use std::ptr::null_mut;

/// What the SDK exports.
pub mod guest {
    use proxy_wasm::types::Action;

    unsafe extern "C" {
        pub safe fn proxy_on_context_create(context: u32, root: u32);
        pub safe fn proxy_on_vm_start(context: u32, size: usize) -> bool;
        pub safe fn proxy_on_configure(context: u32, size: usize) -> bool;
        pub safe fn proxy_on_tick(context: u32);
        pub safe fn proxy_on_request_headers(context: u32, count: usize, end: bool) -> Action;
        pub safe fn proxy_on_request_body(context: u32, size: usize, end: bool) -> Action;
        pub safe fn proxy_on_request_trailers(context: u32, count: usize) -> Action;
        pub safe fn proxy_on_response_headers(context: u32, count: usize, end: bool) -> Action;
        pub safe fn proxy_on_response_body(context: u32, size: usize, end: bool) -> Action;
        pub safe fn proxy_on_response_trailers(context: u32, count: usize) -> Action;
        pub safe fn proxy_on_http_call_response(
            context: u32,
            token: u32,
            headers: usize,
            body: usize,
            trailers: usize,
        );
        pub safe fn proxy_on_log(context: u32);
        pub safe fn proxy_on_done(context: u32) -> bool;
        pub safe fn proxy_on_delete(context: u32);
    }
}

type In = *const u8;
type OutData = *mut *mut u8;
type OutSize = *mut usize;

/// Host functions that count their call and answer with a status.
macro_rules! host_functions {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) |$host:ident| $body:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> Status {
            host(|$host| {
                *$host.calls.0.entry(stringify!($name)).or_default() += 1;
                if let Some(refused) = $host.refused(stringify!($name)) {
                    return refused;
                }
                status(|| $body)
            })
        }
    )*};
}

/// Host functions that no filter of this project may use.
macro_rules! not_emulated {
    ($(fn $name:ident($($type:ty),*);)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($(_: $type),*) -> Status {
            host(|h| {
                *h.calls.0.entry(stringify!($name)).or_default() += 1;
                h.violate(concat!(stringify!($name), " is not emulated"));
                Status::InternalFailure
            })
        }
    )*};
}

/// Also called by the SDK's panic hook, so that it must not rely on a host that is free.
#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_log(level: LogLevel, data: In, size: usize) -> Status {
    let line = text(data, size);
    if level == LogLevel::Critical {
        eprintln!("{line}");
    }
    try_host(|h| {
        *h.calls.0.entry("proxy_log").or_default() += 1;
        h.logs.push((level, line));
    });
    Status::Ok
}

host_functions! {
    fn proxy_get_log_level(level: *mut LogLevel) |_h| put(level, LogLevel::Trace);
    fn proxy_get_current_time_nanoseconds(time: *mut u64) |h| put(time, h.now);
    fn proxy_set_tick_period_milliseconds(period: u32) |h| h.set_tick_period(period);
    fn proxy_get_buffer_bytes(kind: BufferType, start: usize, max: usize, data: OutData, size: OutSize)
        |h| give(h.buffer(kind, start, max)?, data, size);
    fn proxy_set_buffer_bytes(kind: BufferType, start: usize, size: usize, data: In, length: usize)
        |h| h.set_buffer(kind, start, size, bytes(data, length));
    fn proxy_get_header_map_pairs(map: MapType, data: OutData, size: OutSize)
        |h| give(h.headers(map), data, size);
    fn proxy_set_header_map_pairs(map: MapType, data: In, size: usize)
        |h| h.change_map(map, |headers| *headers = Headers::decode(bytes(data, size)));
    fn proxy_get_header_map_value(map: MapType, key: In, key_size: usize, data: OutData, size: OutSize)
        |h| give(h.header(map, &text(key, key_size))?, data, size);
    fn proxy_remove_header_map_value(map: MapType, key: In, key_size: usize)
        |h| h.change_map(map, |headers| headers.remove(&text(key, key_size)));
    fn proxy_replace_header_map_value(map: MapType, key: In, key_size: usize, value: In, size: usize)
        |h| h.change_map(map, |headers| headers.set(&text(key, key_size), bytes(value, size)));
    fn proxy_add_header_map_value(map: MapType, key: In, key_size: usize, value: In, size: usize)
        |h| h.change_map(map, |headers| headers.add(&text(key, key_size), bytes(value, size)));
    fn proxy_get_property(path: In, path_size: usize, data: OutData, size: OutSize)
        |h| give(h.property(bytes(path, path_size))?, data, size);
    fn proxy_set_property(path: In, path_size: usize, value: In, size: usize)
        |h| h.set_property(bytes(path, path_size), bytes(value, size));
    fn proxy_get_shared_data(key: In, key_size: usize, data: OutData, size: OutSize, cas: *mut u32)
        |h| {
            let (value, number) = h.shared_data(bytes(key, key_size))?;
            put(cas, number)?;
            give(value, data, size)
        };
    fn proxy_set_shared_data(key: In, key_size: usize, value: In, size: usize, cas: u32)
        |h| h.set_shared_data(bytes(key, key_size), bytes(value, size), cas);
    fn proxy_continue_stream(kind: u32) |h| h.continue_stream(kind);
    fn proxy_close_stream(_kind: u32) |h| { h.close_stream(); Ok(()) };
    fn proxy_send_local_response(status: u32, _details: In, _details_size: usize, body: In, body_size: usize, headers: In, headers_size: usize, _grpc: i32)
        |h| {
            let headers = Headers::decode(bytes(headers, headers_size));
            h.send_local_response(status, headers, bytes(body, body_size));
            Ok(())
        };
    fn proxy_http_call(cluster: In, cluster_size: usize, headers: In, headers_size: usize, body: In, body_size: usize, trailers: In, trailers_size: usize, timeout: u32, token: *mut u32)
        |h| {
            let headers = Headers::decode(bytes(headers, headers_size));
            let trailers = Headers::decode(bytes(trailers, trailers_size));
            let cluster = text(cluster, cluster_size);
            put(token, h.http_call(cluster, headers, bytes(body, body_size), trailers, timeout)?)
        };
    fn proxy_set_effective_context(context: u32) |h| h.set_effective_context(context);
    fn proxy_call_foreign_function(name: In, name_size: usize, _arguments: In, _arguments_size: usize, data: OutData, size: OutSize)
        |h| {
            h.call_foreign_function(&text(name, name_size))?;
            give(Vec::new(), data, size)
        };
    fn proxy_define_metric(kind: MetricType, name: In, size: usize, id: *mut u32)
        |h| put(id, h.define_metric(kind, text(name, size)));
    fn proxy_get_metric(id: u32, value: *mut u64) |h| put(value, h.metric_value(id)?);
    fn proxy_record_metric(id: u32, value: u64) |h| h.record_metric(id, value);
    fn proxy_increment_metric(id: u32, by: i64) |h| h.increment_metric(id, by);
}

not_emulated! {
    fn proxy_register_shared_queue(In, usize, *mut u32);
    fn proxy_resolve_shared_queue(In, usize, In, usize, *mut u32);
    fn proxy_dequeue_shared_queue(u32, OutData, OutSize);
    fn proxy_enqueue_shared_queue(u32, In, usize);
    fn proxy_grpc_call(In, usize, In, usize, In, usize, In, usize, In, usize, u32, *mut u32);
    fn proxy_grpc_stream(In, usize, In, usize, In, usize, In, usize, *mut u32);
    fn proxy_grpc_send(u32, In, usize, bool);
    fn proxy_grpc_cancel(u32);
    fn proxy_grpc_close(u32);
    fn proxy_get_status(*mut u32, OutData, OutSize);
    fn proxy_done();
}

fn status(call: impl FnOnce() -> Result<(), Status>) -> Status {
    call().err().unwrap_or(Status::Ok)
}

unsafe fn bytes<'a>(data: In, size: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    std::slice::from_raw_parts(data, size)
}

unsafe fn text(data: In, size: usize) -> String {
    String::from_utf8_lossy(bytes(data, size)).into_owned()
}

unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Status> {
    to.write(value);
    Ok(())
}

/// Hands memory to the SDK, which takes it over as a `Vec` of exactly this capacity. No bytes: null.
unsafe fn give(value: Vec<u8>, data: OutData, size: OutSize) -> Result<(), Status> {
    size.write(value.len());
    data.write(match value.is_empty() {
        true => null_mut(),
        false => Box::into_raw(value.into_boxed_slice()).cast(),
    });
    Ok(())
}
