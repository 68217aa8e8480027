//! The adapter: thin, and the only place that names `proxy_wasm`.
//!
//! `root` takes in the configuration. `request_filter` reads a request and hands it to a `stream`,
//! which carries out what the core decides. `worker` holds what the streams of one worker share.
//! `attempt_filter` is the other role, for the attempts of Envoy's router; `router` is what the two
//! roles tell each other. `cooldown` is what all workers know of failing services. What happened is told by `metrics` (in
//! Envoy's `stats`), `access_log` and log `lines`; `tokens` reads what an answer took. `host` has every host call.

mod access_log;
mod answer;
mod attempt_filter;
mod attempts;
pub mod cooldown;
mod deadlines;
mod delivery;
mod host;
mod lines;
mod metrics;
pub mod plugin_config;
mod request_filter;
mod root;
mod router;
mod stats;
mod stream;
mod tokens;
mod unread;
mod worker;

use proxy_wasm::types::LogLevel;

/// Registers the filter with the SDK. Envoy calls this once per VM.
pub fn register() {
    // Envoy drops what its own log level leaves out; this one keeps the calls few.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}
