//! What a user can rely on, shown end to end: a real Envoy with the real filter, real clients, and model services that
//! fail on purpose. Each test is a sentence of `docs/behaviour.md`.
//!
//! Nearly all tests share one Envoy per dispatch mode: [`world::World`]. A test picks its Model API with the header
//! `x-case`, says what each service does with `x-mock-SERVICE`, and finds its own requests by `x-test-id`.

#[path = "../mock/mod.rs"]
mod mock;
#[path = "../support/mod.rs"]
mod support;

#[macro_use]
mod modes;
mod client;
mod world;

mod access;
mod access_log;
mod answers;
mod client_models;
mod cooldown;
mod deadlines;
mod deliver;
mod error_kinds;
mod fitting;
mod gateway_answers;
mod limits;
mod loops;
mod matching;
mod metrics;
mod models;
mod no_answer;
mod order;
mod outcomes;
mod protocols;
mod retries;
mod streams;
mod timeouts;
mod traces;
mod usage;
