//! Log lines of requests: none for one that succeeds at once, and no more of the others than somebody can read.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use super::metrics::Metrics;
use crate::core::config::{Config, Service};
use crate::core::plan::Plan;
use crate::core::progress::Progress;

/// The log lines of one worker, in one role.
#[derive(Debug, Default)]
pub struct Lines {
    /// The second that is counted, of the worker's clock.
    second: Cell<u64>,
    /// How many lines it had.
    lines: Cell<u32>,
    /// How many were left out since the last one.
    left_out: Cell<u32>,
}

/// How many lines were left out, where there were any.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut(u32);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " left_out={count}"),
        }
    }
}

/// An attempt begins: counted and logged, where it is a retry or a fallback.
pub fn on_attempt(
    metrics: &Metrics,
    lines: &Lines,
    now: Duration,
    plan: &Plan,
    progress: &Progress,
) {
    if metrics.next_attempt(plan, progress) {
        lines.next_attempt(now, plan, progress);
    }
}

impl Lines {
    /// The most lines in a second. The metrics count what is left out here.
    pub const MAX_PER_SECOND: u32 = 10;

    /// An attempt begins, at a fallback service or at the same one again.
    fn next_attempt(&self, now: Duration, plan: &Plan, progress: &Progress) {
        let (Some(step), Some(left_out)) = (plan.step(progress.current()), self.take(now)) else {
            return;
        };
        let event = match progress.is_repeat() {
            true => "retry",
            false => "fallback",
        };
        log::info!(
            "event={event} api={} attempts=\"{}\" next={}{left_out}",
            plan.api().name,
            progress.trail().as_str(),
            step.name(),
        );
    }

    /// Envoy refused to make a callout.
    pub fn call_refused(&self, now: Duration, service: &Service) {
        if let Some(left_out) = self.take(now) {
            log::warn!(
                "event=call_refused service={} cluster={}{left_out}: no such cluster, or no host in it",
                service.name,
                service.cluster
            );
        }
    }

    /// Envoy answered `413` to a request whose body was held, after so many bytes.
    pub fn buffer_limit(&self, now: Duration, held: usize, config: &Config) {
        if let Some(left_out) = self.take(now) {
            log::warn!(
                "event=buffer_limit held_bytes={held} max_body_bytes={} buffer_limit_bytes={}{left_out}: Envoy answered 413, \
                 since its own limit is lower; raise per_connection_buffer_limit_bytes of the listener, or set \
                 buffer_limit_bytes to it",
                config.max_body_bytes,
                config.buffer_limit_bytes,
            );
        }
    }

    /// Envoy answered `500` where an answer of so many bytes was to take the place of a failed one.
    pub fn answer_over_buffer_limit(&self, now: Duration, size: usize, config: &Config) {
        if let Some(left_out) = self.take(now) {
            log::warn!(
                "event=buffer_limit answer_bytes={size} buffer_limit_bytes={}{left_out}: Envoy answered 500, since its own \
                 limit is lower; raise per_connection_buffer_limit_bytes of the listener, or set buffer_limit_bytes to it",
                config.buffer_limit_bytes,
            );
        }
    }

    /// Envoy found no route for a request that was made to fit its named primary.
    pub fn no_route(&self, now: Duration, service: &Service) {
        if let Some(left_out) = self.take(now) {
            log::error!(
                "event=no_route service={} authority={}{left_out}: no route takes the request once it is made to fit the \
                 service, so the service is never asked; add the authority to the domains of the virtual host, or say \
                 dispatch: router, which keeps the client's own",
                service.name,
                service.authority.as_deref().unwrap_or_default(),
            );
        }
    }

    /// The route of a request that was made to fit its named primary leads to another cluster.
    /// False where there was no room for the line.
    #[must_use]
    pub fn other_cluster(&self, now: Duration, service: &Service, chosen: &str) -> bool {
        let left_out = self.take(now);
        if let Some(left_out) = &left_out {
            log::warn!(
                "event=other_cluster service={} cluster={} routed_to={}{left_out}: the route leads elsewhere than to the \
                 cluster of the service, and its answers are told as those of the service; make the route that takes the \
                 fitted authority and path lead there, or say dispatch: router",
                service.name,
                service.cluster,
                chosen,
            );
        }
        left_out.is_some()
    }

    /// Leave to write a line, and how many were left out before it.
    fn take(&self, now: Duration) -> Option<LeftOut> {
        if self.second.replace(now.as_secs()) != now.as_secs() {
            self.lines.set(0);
        }
        if self.lines.get() >= Self::MAX_PER_SECOND {
            self.left_out.set(self.left_out.get().saturating_add(1));
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(LeftOut(self.left_out.take()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_counted_and_told_with_the_next_one() {
        let lines = Lines::default();
        let at = Duration::from_millis;
        for _ in 0..Lines::MAX_PER_SECOND {
            assert_eq!(lines.take(at(5_900)), Some(LeftOut(0)));
        }
        assert_eq!(lines.take(at(5_901)), None);
        assert_eq!(lines.take(at(5_999)), None);
        assert_eq!(lines.take(at(6_000)), Some(LeftOut(2)));
        assert_eq!(lines.take(at(6_000)), Some(LeftOut(0)));
    }
}
