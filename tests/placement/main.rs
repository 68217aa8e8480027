//! What stands before ours and what stands behind it: each cell of the table in `docs/placement.md`, with the real filters of
//! Envoy, in both dispatch modes.
//!
//! Nearly all tests share one Envoy per dispatch mode: [`world::World`]. It has one listener for each chain of filters, and
//! the same services behind them. A test picks its chain by the listener, and its Model API with the header `x-case`.

#[path = "../mock/mod.rs"]
mod mock;
#[path = "../support/mod.rs"]
mod support;

#[path = "../e2e/modes.rs"]
#[macro_use]
mod modes;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
mod filters;
mod world;

mod answers;
mod balance;
mod chains;
mod guards;
mod limits;
mod sight;
