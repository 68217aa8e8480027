//! What must not hurt: bad and odd input, load, clients that leave, requests that are none of the filter's business, and
//! configurations; and the real clients people use. All of it in a real Envoy with two workers.

#[path = "../mock/mod.rs"]
mod mock;
#[path = "../support/mod.rs"]
mod support;

/// Makes a test of each of these functions, for each way to dispatch.
macro_rules! in_each_mode {
    ($($test:ident),* $(,)?) => {
        in_mode! { callout Callout $($test)* }
        in_mode! { router Router $($test)* }
    };
}

macro_rules! in_mode {
    ($module:ident $mode:ident $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    use crate::stack::Mode;
                    if Mode::$mode == Mode::Router && !crate::support::Envoy::has_router_mode() {
                        return;
                    }
                    super::$test(Mode::$mode).await;
                }
            )*
        }
    };
}

mod bad_bodies;
mod body_limit;
mod buffers;
mod client;
mod configuration;
mod departures;
mod framing;
mod load;
mod odd_bytes;
mod sdk;
mod stack;
mod unread;
