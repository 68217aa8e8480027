//! The pure core: stories with a virtual clock, tables, and properties.

mod access;
mod client_lists;
mod complete;
mod cooldowns;
mod cooling;
mod courses;
mod deadlines;
mod error_kinds;
mod fitting;
mod outcomes;
mod plans;
mod properties;
mod replies;
mod results;
mod retries;
mod rig;
mod router_stories;
mod stories;
mod wire;
