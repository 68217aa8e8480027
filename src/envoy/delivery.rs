//! How an answer of a callout takes the place of the routed one. Seen with Envoy 1.36, 1.39 and 1.40.
//!
//! Where Envoy holds the whole routed answer, its headers and its body are exchanged, so that the filters before ours see
//! the new answer as any other. Where the routed answer has not ended, that cannot be done: a local reply goes straight
//! to the client, past all filters, and ends the request to the service.

use std::time::Duration;

/// How much of the routed answer Envoy holds for us, as of the last callback.
#[derive(Debug, Default)]
pub struct Held {
    /// Its headers are there.
    pub headers: bool,
    /// Envoy itself has made it.
    pub is_envoys: bool,
    /// Bytes of the body. `None`: there was none yet, so Envoy has no buffer that could be changed.
    pub body: Option<usize>,
    /// The answer is complete.
    pub ended: bool,
    /// It ended with trailers.
    pub trailers: bool,
    /// When it was found to have failed.
    pub failed_at: Option<Duration>,
    /// It failed since nothing came, so that its end is not waited for.
    pub is_silent: bool,
    /// Bytes that came after that, and were dropped.
    pub dropped: usize,
}

/// What is to be done with an answer that is to take the place of the routed one.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Exchange the headers and the body.
    Exchange,
    /// Decide again at this time, or once the routed answer has ended.
    Wait(Duration),
    /// Give it as a local reply.
    Reply,
}

/// Where the answer is given from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A callback of the stream, or the answer of a callout.
    Callback,
    /// A tick.
    Tick,
}

impl Held {
    /// How long the end of a failed answer is waited for, from when it was found to have failed. Should it break off meanwhile,
    /// Envoy answers `502` past all filters, and the new answer is lost.
    pub const MAX_WAIT: Duration = Duration::from_millis(100);
    /// The most bytes of it that are dropped meanwhile.
    pub const MAX_DROPPED: usize = 1 << 20;
    /// No limit of an Envoy that serves models is lower, in bytes: its headers alone may have 60 KiB.
    pub const SAFE_SIZE: usize = 4 << 10;

    /// The routed answer is not wanted any more. Only the first time counts: callouts after it may fail, too.
    pub fn fails(&mut self, now: Duration, is_silent: bool) {
        if self.failed_at.is_none() {
            self.failed_at = Some(now);
            self.is_silent = is_silent;
        }
    }

    /// What is to be done at `now` with an answer of `size` bytes, where Envoy buffers up to `limit`.
    ///
    /// A body over Envoy's limit makes Envoy answer `500` at once, from within the host call, and the SDK panics where it is
    /// called back from there, but for a tick. So only in a tick is `limit` believed.
    #[must_use]
    pub fn delivery(&self, now: Duration, size: usize, limit: usize, from: From) -> Delivery {
        let can_exchange = self.headers && !(self.ended && self.body.is_none());
        let is_safe = size <= self.body.unwrap_or_default().max(Self::SAFE_SIZE);
        if !can_exchange || (size > limit && !is_safe) {
            return Delivery::Reply;
        }
        if !self.ended {
            let until = self.failed_at.unwrap_or(now) + Self::MAX_WAIT;
            let may_end = !self.is_silent && now < until && self.dropped <= Self::MAX_DROPPED;
            return match may_end {
                true => Delivery::Wait(until),
                false => Delivery::Reply,
            };
        }
        match is_safe || from == From::Tick {
            true => Delivery::Exchange,
            false => Delivery::Wait(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(9);

    fn held() -> Held {
        Held {
            headers: true,
            body: Some(8000),
            ended: true,
            failed_at: Some(NOW),
            ..Held::default()
        }
    }

    #[test]
    fn a_complete_answer_is_exchanged() {
        let delivery = |size, from| held().delivery(NOW, size, 100_000, from);
        assert_eq!(delivery(8000, From::Callback), Delivery::Exchange);
        assert_eq!(delivery(8001, From::Callback), Delivery::Wait(NOW));
        assert_eq!(delivery(8001, From::Tick), Delivery::Exchange);
        assert_eq!(delivery(100_001, From::Tick), Delivery::Reply);
        let without_body = Held {
            body: None,
            ..held()
        };
        assert_eq!(
            without_body.delivery(NOW, 1, 100_000, From::Tick),
            Delivery::Reply
        );
        assert_eq!(
            Held::default().delivery(NOW, 1, 100_000, From::Tick),
            Delivery::Reply
        );
    }

    #[test]
    fn the_end_of_a_failed_answer_is_waited_for_a_while() {
        let held = || Held {
            ended: false,
            ..held()
        };
        let until = NOW + Held::MAX_WAIT;
        assert_eq!(
            held().delivery(NOW, 1, 9, From::Callback),
            Delivery::Wait(until)
        );
        assert_eq!(held().delivery(until, 1, 9, From::Tick), Delivery::Reply);
        let much = Held {
            dropped: Held::MAX_DROPPED + 1,
            ..held()
        };
        assert_eq!(much.delivery(NOW, 1, 9, From::Callback), Delivery::Reply);
        let silent = Held {
            is_silent: true,
            ..held()
        };
        assert_eq!(silent.delivery(NOW, 1, 9, From::Callback), Delivery::Reply);
    }
}
