//! The pure core: stories with a virtual clock, tables, and properties.

mod fitting;
mod outcomes;
mod plans;
mod properties;
mod replies;
mod rig;
mod router_stories;
mod stories;
