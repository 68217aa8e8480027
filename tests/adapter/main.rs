//! The real SDK and our adapter on the emulated host: drive callbacks, then inspect state.

#[path = "../emulator/mod.rs"]
mod emulator;

mod access_log;
mod attempts;
mod budget;
mod callouts;
mod choices;
mod cooldown;
mod cooling;
mod counts;
mod ends;
mod gateway;
mod held;
mod odd_bytes;
mod properties;
mod requests;
mod routed;
mod tokens;
mod waits;
