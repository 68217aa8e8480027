//! What the filter asks of its host, as the host's ABI has it: bytes in, and a status or bytes out. No call panics.
//!
//! The calls of the SDK panic on each status but those that they expect, and a panic takes down every request of a worker. So
//! they are declared here once more; the SDK stays for contexts and dispatch.

mod abi;
mod pairs;

pub use abi::{
    BodyOf, MapOf, MetricKind, SharedData, Status, add_to_metric, buffer, call_foreign,
    define_metric, enter, header, headers, metric, property, remove_header, replace_buffer,
    replace_headers, reply, resume, set_header, set_metric, set_property, set_shared_data,
    set_tick, shared_data, wall_time,
};
