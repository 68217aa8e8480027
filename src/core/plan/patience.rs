//! How long an attempt may take.

use std::time::Duration;

use super::Plan;
use crate::core::outcome::Outcome;

/// How long an attempt may take to its first packet (a stream) or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The time.
    pub time: Duration,
    /// What it means when it is used up.
    pub outcome: Outcome,
}

/// Envoy's timers may be early by the length of one turn of its event loop.
pub const TIMER_SLACK: Duration = Duration::from_millis(20);

impl Patience {
    /// Whether an attempt that ended without an answer, after this time, was ended by the timeout.
    ///
    /// Turns are longer under load, so a tenth of the time is allowed for as well: an attempt that breaks
    /// that late may be called a timeout, which changes no more than its name.
    #[must_use]
    pub fn is_used_up(&self, took: Duration) -> bool {
        took + TIMER_SLACK + self.time / 10 >= self.time
    }
}

impl Plan {
    /// How long one attempt of Envoy's router may take: the shortest of the timeouts that apply, or `None`
    /// where none does. The router has one for all attempts, so it is that of the first.
    ///
    /// An answer that is held to its end has not begun for the router: the first packet is waited for by others.
    #[must_use]
    pub fn patience(&self) -> Option<Patience> {
        let rules = self.fallback()?;
        let first_packet = rules
            .first_packet_timeout
            .filter(|_| self.stream && !self.delivers_complete());
        let own = self.time_for_attempt(self.total_timeout, self.has_second());
        let timeouts = [
            (first_packet, Outcome::FirstPacketTimeout),
            (own, Outcome::RequestTimeout),
        ];
        timeouts
            .into_iter()
            .filter_map(|(time, outcome)| {
                Some(Patience {
                    time: time?,
                    outcome,
                })
            })
            .min_by_key(|patience| patience.time)
    }

    /// How long an attempt may take that begins with so much left of the total timeout: `None` is no limit.
    ///
    /// Where another one could follow, its reserve is kept; unless there is not enough for two. A request that has
    /// asked for no fallback has the same time: nobody else would end its callout.
    #[must_use]
    pub fn time_for_attempt(&self, left: Option<Duration>, has_next: bool) -> Option<Duration> {
        let rules = self.api.fallback.as_ref()?;
        let reserve = self.reserve();
        let left = left.map(|left| match has_next && left >= reserve * 2 {
            true => left - reserve,
            false => left,
        });
        rules.request_timeout.into_iter().chain(left).min()
    }

    /// Whether a timeout after this time says something of the service, and not of what a client, or the attempts
    /// before, have left it.
    #[must_use]
    pub fn had_its_time(&self, outcome: Outcome, took: Duration) -> bool {
        let rules = self.api.fallback.as_ref();
        let total = rules.and_then(|rules| rules.total_timeout);
        let configured = match outcome {
            Outcome::FirstPacketTimeout => rules.and_then(|rules| rules.first_packet_timeout),
            Outcome::RequestTimeout => self.time_for_attempt(total, true),
            _ => return true,
        };
        match configured {
            Some(time) => Patience { time, outcome }.is_used_up(took),
            // A timeout of Envoy's own, or the client's.
            None => self.total_timeout == total,
        }
    }

    /// Whether an attempt could follow the first if that was silent.
    fn has_second(&self) -> bool {
        let only_one = self.fallback().and_then(|rules| rules.max_attempts) == Some(1);
        let usable = self
            .steps()
            .filter(|(number, step)| step.after.is_none() && self.is_usable(*number));
        !only_one && usable.count() > 1
    }

    /// Whether an attempt may begin with so much left of the total timeout.
    ///
    /// The timer that cut the attempt before for the sake of this one may have been late: by a turn of the event loop,
    /// by the slack that is given to the router's, and by more under load.
    #[must_use]
    pub fn may_begin(&self, left: Option<Duration>) -> bool {
        let reserve = self.reserve();
        let least = (reserve - reserve / 10).saturating_sub(TIMER_SLACK * 2);
        left.is_none_or(|left| left > TIMER_SLACK && left >= least)
    }

    /// What is kept for the next attempt: at most half of all, also where the client has asked for less.
    fn reserve(&self) -> Duration {
        let rules = self.api.fallback.as_ref();
        let reserve = rules.map_or(Duration::ZERO, |rules| rules.reserve);
        self.total_timeout
            .map_or(reserve, |total| reserve.min(total / 2))
    }
}
