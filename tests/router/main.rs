//! What is special to `dispatch: router`: Envoy's router makes the attempts, and an attempt filter in each cluster fits and
//! judges them. A real Envoy from 1.39 on; on an older one the tests are skipped, but for the one that is about it.
//!
//! What holds in both modes is shown in `tests/e2e`.

#[path = "../mock/mod.rs"]
mod mock;
#[path = "../support/mod.rs"]
mod support;

mod client;
mod world;

mod bodies;
mod chains;
mod fitting;
mod gateway_answers;
mod leaks;
mod live;
mod misconfigured;
mod protocols;
mod routes;
mod timeouts;
