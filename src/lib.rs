//! AI Fallback: an HTTP filter for Envoy and Istio. It reads Model API requests, makes them fit the
//! model service that they go to, and sends them on to fallback services when that one fails.
//!
//! Two halves, with one seam between them:
//!
//! - [`core`] is pure. It knows what a request says and asks for (`request`, `wish`, `admission`), where it may
//!   go (`config`, `plan`), what changes on the way there (`fit`), what an answer means (`judge`, `outcome`,
//!   `sse`, `provider_error`, `retry_after`), how many tokens it took (`usage`) and how long to wait for it (`watch`),
//!   what was tried and what is next (`progress`, `trail`), what to do (`fallback`), what became of it all (`result`),
//!   which services to skip (`cooldown`), what one filter tells another (`handoff`), and what to tell a client that
//!   gets no answer (`reply`). It has no host, no clock and no log.
//! - [`envoy`] is the adapter, and the only place that names `proxy_wasm`. It turns Envoy's callbacks
//!   into events, and carries out the effects that the core decides on. Its calls of the host go by `host`, the only place
//!   with `unsafe`: a refused call is a status there, and not a panic as in the SDK.
//!
//! A request in `dispatch: callout`: the request filter reads the body, and `Exchange::start` begins.
//! The request goes to its primary along Envoy's route. Its answer is held until `Exchange::step`
//! says what it means: `Pass`, or `Call` the next service by a callout, and then `Deliver` its answer.
//!
//! In `dispatch: router` the request filter hands the plan to attempt filters, one for each attempt that
//! Envoy's router makes. Each makes its attempt fit its service, and judges the answer before the router
//! may pass it on. Where the router gets no further, the request filter goes on by callouts.
//!
//! One panic ends the VM of its worker, and every request on it. So nothing here may panic: the lints
//! below and `clippy.toml` see to it.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod core;
#[cfg(feature = "envoy")]
pub mod envoy;
#[cfg(feature = "envoy")]
mod host;

#[cfg(all(feature = "envoy", target_arch = "wasm32"))]
mod start {
    #![allow(
        missing_docs,
        reason = "the SDK's macro makes a public function without any"
    )]

    proxy_wasm::main! {{
        crate::envoy::register();
    }}
}
