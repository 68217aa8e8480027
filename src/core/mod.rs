//! The pure core: no host, no clock, no log, no panic.
//!
//! Time comes in as an argument: a [`Duration`](std::time::Duration) since some fixed start, that
//! never runs backwards. What is to be done comes out as a value.

pub mod config;
pub mod fallback;
pub mod fit;
pub mod handoff;
pub mod outcome;
pub mod plan;
pub mod reply;
pub mod request;
pub mod sse;
pub mod trail;
