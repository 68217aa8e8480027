//! The pure core: no host, no clock, no log, no panic.
//!
//! Time comes in as an argument: a [`Duration`](std::time::Duration) since some fixed start, that
//! never runs backwards (but for the [`cooldown`], whose clock all workers share). What is to be done comes
//! out as a value.

pub mod admission;
pub mod answer_headers;
mod block;
mod bytes;
pub mod config;
pub mod cooldown;
pub mod fallback;
pub mod fit;
pub mod handoff;
pub mod judge;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod provider_error;
pub mod reply;
pub mod request;
pub mod result;
pub mod retry_after;
pub mod sse;
pub mod trail;
pub mod usage;
pub mod watch;
pub mod wish;
