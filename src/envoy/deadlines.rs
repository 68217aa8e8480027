//! Deadlines of streams, on the one timer that a plugin has.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use super::host;

/// Envoy counts ticks in milliseconds, and takes zero for off.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// The timer of one plugin in one worker, and what is due by it.
#[derive(Debug, Default)]
pub struct Timer(RefCell<Deadlines>);

impl Timer {
    /// Moves a stream from one deadline to another. It is told with the first tick after it.
    pub fn change(&self, now: Duration, stream: u32, from: Option<Duration>, to: Option<Duration>) {
        if from == to {
            return;
        }
        if let Some(period) = self.0.borrow_mut().change(now, stream, from, to) {
            host::set_tick(period);
        }
    }

    /// Ticks also where nothing is due: [`Deadlines::tick_anyway`].
    pub fn tick_anyway(&self, now: Duration) {
        if let Some(period) = self.0.borrow_mut().tick_anyway(now) {
            host::set_tick(period);
        }
    }

    /// A stream that is due, taken from the table.
    pub fn pop(&self, now: Duration) -> Option<u32> {
        self.0.borrow_mut().pop(now)
    }

    /// Sets the next tick. `anyway`: also where nothing is due.
    pub fn after_tick(&self, now: Duration, anyway: bool) {
        let period = self.0.borrow_mut().after_tick(now);
        host::set_tick(match period.is_zero() && anyway {
            true => Deadlines::LONGEST_TICK,
            false => period,
        });
    }

    /// Number of deadlines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Which stream is due when, and when the next tick is. Ticks go on while there are deadlines or streams.
#[derive(Debug, Default)]
pub struct Deadlines {
    due: BTreeSet<(Duration, u32)>,
    next_tick: Option<Duration>,
}

impl Deadlines {
    /// The longest time between two ticks while there are deadlines: how old a gauge can be.
    pub const LONGEST_TICK: Duration = Duration::from_secs(1);

    /// Moves a stream from one deadline to another. Returns the tick period to set, where the tick
    /// that is under way would come too late.
    #[must_use]
    pub fn change(
        &mut self,
        now: Duration,
        stream: u32,
        from: Option<Duration>,
        to: Option<Duration>,
    ) -> Option<Duration> {
        if let Some(from) = from {
            self.due.remove(&(from, stream));
        }
        let to = to?;
        self.due.insert((to, stream));
        if self.next_tick.is_some_and(|tick| tick <= to) {
            return None;
        }
        Some(self.schedule(now, to))
    }

    /// Ticks also where nothing is due, for what is told once per tick. Returns the tick period to set,
    /// where the ticks are off.
    #[must_use]
    pub fn tick_anyway(&mut self, now: Duration) -> Option<Duration> {
        match self.next_tick {
            Some(_) => None,
            None => Some(self.schedule(now, now + Self::LONGEST_TICK)),
        }
    }

    /// A stream that is due by `now`, taken from the table.
    pub fn pop(&mut self, now: Duration) -> Option<u32> {
        let &(due, stream) = self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        Some(stream)
    }

    /// The tick period to set after a tick; zero turns the ticks off.
    #[must_use]
    pub fn after_tick(&mut self, now: Duration) -> Duration {
        match self.due.first() {
            Some(&(due, _)) => self.schedule(now, due),
            None => {
                self.next_tick = None;
                Duration::ZERO
            }
        }
    }

    /// Number of deadlines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    fn schedule(&mut self, now: Duration, due: Duration) -> Duration {
        // Rounded up, so that the tick does not come just before the deadline.
        let wait = due.saturating_sub(now) + Duration::from_nanos(999_999);
        let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let wait = wait.clamp(SHORTEST_TICK, Self::LONGEST_TICK);
        self.next_tick = Some(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadlines, Duration};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_tick_comes_at_the_nearest_deadline_and_is_off_while_there_is_none() {
        let mut table = Deadlines::default();
        assert_eq!(table.change(ms(0), 1, None, Some(ms(300))), Some(ms(300)));
        assert_eq!(
            table.change(ms(0), 2, None, Some(ms(500))),
            None,
            "the tick at 300 comes first"
        );
        assert_eq!(table.change(ms(1), 3, None, Some(ms(100))), Some(ms(99)));
        assert_eq!(table.pop(ms(100)), Some(3));
        assert_eq!(table.pop(ms(100)), None);
        assert_eq!(table.after_tick(ms(100)), ms(200));
        assert_eq!(table.change(ms(200), 1, Some(ms(300)), None), None);
        assert_eq!(table.change(ms(200), 2, Some(ms(500)), None), None);
        assert_eq!(table.len(), 0);
        assert_eq!(table.after_tick(ms(300)), ms(0));
        assert_eq!(
            table.change(ms(400), 4, None, Some(ms(99_000))),
            Some(ms(1000)),
            "a gauge is at most a second old"
        );
    }

    #[test]
    fn a_tick_is_never_early_and_never_zero() {
        let mut table = Deadlines::default();
        assert_eq!(
            table.change(ms(0), 1, None, Some(Duration::from_micros(1500))),
            Some(ms(2))
        );
        assert_eq!(table.change(ms(10), 2, None, Some(ms(1))), Some(ms(1)));
    }
}
