//! Which tests run in which dispatch mode. A test is an `async fn name(world: &World)`, and is in one of these lists; one
//! that is in none is dead code, which the compiler reports.

/// Tests that hold in both modes: `callout::NAME` and `router::NAME`.
macro_rules! both_modes {
    ($($name:ident),* $(,)?) => {
        in_callout_mode! { callout $($name)* }
        in_router_mode! { router $($name)* }
    };
}

/// Tests of what only `dispatch: callout` does, each with the reason.
macro_rules! callout_only {
    ($($reason:literal: $name:ident),* $(,)?) => {
        in_callout_mode! { callout_only $(#[doc = $reason] $name)* }
    };
}

/// Tests of what only `dispatch: router` does, each with the reason.
#[allow(unused_macros)]
macro_rules! router_only {
    ($($reason:literal: $name:ident),* $(,)?) => {
        in_router_mode! { router_only $(#[doc = $reason] $name)* }
    };
}

macro_rules! in_callout_mode {
    ($module:ident $($(#[$doc:meta])* $name:ident)*) => { in_mode! { Callout $module $($(#[$doc])* $name)* } };
}

macro_rules! in_router_mode {
    ($module:ident $($(#[$doc:meta])* $name:ident)*) => { in_mode! { Router $module $($(#[$doc])* $name)* } };
}

macro_rules! in_mode {
    ($mode:ident $module:ident $($(#[$doc:meta])* $name:ident)*) => {
        mod $module {
            use crate::world::{Mode, World};
            $(
                $(#[$doc])*
                #[tokio::test]
                async fn $name() {
                    if Mode::$mode == Mode::Router && !crate::support::Envoy::has_router_mode() {
                        return;
                    }
                    let world = World::of(Mode::$mode);
                    // Where the test fails, this handle prints the end of Envoy's log.
                    let _log = world.envoy.clone();
                    super::$name(world).await;
                }
            )*
        }
    };
}
