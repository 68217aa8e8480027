//! The adapter: thin, and the only place that names `proxy_wasm`.
//!
//! `root` takes in the configuration. `request_filter` reads a request and hands it to a `stream`,
//! which carries out what the core decides. `worker` holds what the streams of one worker share.
//! `host` has every host call.

mod answer;
mod deadlines;
mod host;
mod metrics;
pub mod plugin_config;
mod request_filter;
mod root;
mod stream;
mod worker;

use proxy_wasm::types::LogLevel;

/// Registers the filter with the SDK. Envoy calls this once per VM.
pub fn register() {
    // Envoy drops what its own log level leaves out; this one keeps the calls few.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}
