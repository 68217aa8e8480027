//! What the end to end tests stand on: a real Envoy, its configuration, and waits with a limit.
//!
//! ```ignore
//! mod support;
//! use support::{Cluster, Envoy, Gateway};
//!
//! // Several tests share one Envoy: one static per configuration.
//! static ENVOY: OnceLock<Envoy> = OnceLock::new();
//! let envoy = Envoy::shared(&ENVOY, || Gateway::new().plugin(json!({…})).cluster(Cluster::new("openai", addr)));
//! let url = envoy.url("/v1/chat/completions");
//! ```
//!
//! - Services that a shared Envoy sends to must outlive each test: run them on a thread and runtime of their own, since
//!   the runtime of a `#[tokio::test]` ends with that test.
//! - A static is never dropped. Each Envoy has a watchdog that ends it with the test process, however that ends.
//! - A handle that is dropped by a failing test prints the end of Envoy's log, so keep one in each test.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

mod envoy;
mod gateway;

pub use envoy::{Envoy, new_folder, watch};
pub use gateway::{Cluster, Gateway, wasm_file};

use std::time::{Duration, Instant};

/// How long a test waits for what should come true at once. Far more than a busy machine needs.
pub const LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; panics with `what` after [`LIMIT`]. Blocks: where a mock service runs on the test's own
/// runtime, use [`eventually`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "still not so after {LIMIT:?}: {what}"
        );
        std::thread::sleep(POLL);
    }
}

/// [`wait_until`] for async tests: lets other tasks run in between.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "still not so after {LIMIT:?}: {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}
