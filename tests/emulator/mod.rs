//! A stateful emulator of Envoy, as a Rust filter sees it through the proxy-wasm SDK 0.2.5.
//!
//! The SDK declares its host functions as `extern "C"`. On a native target `abi.rs` defines them, so a
//! test drives the real SDK and the real filter, and then inspects state: what reached the upstream,
//! what the client has, which callouts wait. It never scripts host calls.
//!
//! Where the behaviour is not obvious, it was seen in Envoy 1.40.0 (a comment says so).
//! All state belongs to the thread, as the SDK's does: one live [`Vm`] per thread.
//! A panic in the filter aborts the whole test process, after printing its message.
#![allow(dead_code, unsafe_code, unused_imports)]

mod abi;
mod flow;
mod host;
mod state;
mod store;
mod stream;
mod vm;

pub use state::{Callout, ClientResponse, Headers, HostCalls};
pub use stream::Stream;
pub use vm::{Plugin, Refused, Root, Vm};
