//! Services that are skipped for a time: stories with a virtual clock, and properties.

use std::time::Duration;

use ai_fallback::core::config::Cooldown;
use ai_fallback::core::cooldown::{Change, Report, Sign, Table, Wall};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const RULES: Cooldown = Cooldown {
    failures: 3,
    time: secs(10),
    max_retry_after: secs(60),
};
const START: Wall = secs(1_800_000_000);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A table and its clock.
#[derive(Default)]
struct Story {
    table: Table,
    now: Wall,
}

impl Story {
    fn begin() -> Self {
        Self {
            now: START,
            ..Self::default()
        }
    }

    /// A service that cools for `RULES.time`.
    fn cooling() -> Self {
        let mut story = Self::begin();
        assert_eq!(story.hears(Sign::Failing), None);
        assert_eq!(story.hears(Sign::Failing), None);
        assert_eq!(
            story.hears(Sign::Failing),
            Some(Change::Cooling(RULES.time))
        );
        story
    }

    fn hears(&mut self, sign: Sign) -> Option<Change> {
        self.hears_of("a", sign)
    }

    fn hears_of(&mut self, service: &str, sign: Sign) -> Option<Change> {
        let service = service.to_owned();
        self.table
            .report(&Report { service, sign }, self.now, &RULES)
    }

    fn skips(&self) -> Option<Duration> {
        let until = self.table.cooling_until("a", self.now)?;
        Some(until - self.now)
    }

    fn probes(&mut self) -> bool {
        self.table.begin_probe("a", self.now, &RULES)
    }

    /// What a request does that comes now. Returns whether it reaches the service.
    fn request(&mut self, is_up: bool) -> bool {
        let troubled = self.table.is_troubled("a");
        if self.skips().is_some() || troubled && !self.probes() {
            return false;
        }
        match is_up {
            true if troubled => drop(self.hears(Sign::Alive)),
            true => {}
            false => drop(self.hears(Sign::Failing)),
        }
        true
    }
}

#[test]
fn it_takes_failures_in_a_row_to_cool_and_they_must_not_be_far_apart() {
    let mut story = Story::begin();
    story.hears(Sign::Failing);
    story.hears(Sign::Failing);
    assert!(story.table.is_troubled("a") && story.skips().is_none() && story.probes());
    assert_eq!(story.hears(Sign::Alive), None);
    assert_eq!(
        story.table,
        Table::default(),
        "a healthy service is not in it"
    );

    for _ in 0..9 {
        assert_eq!(story.hears(Sign::Failing), None, "one failure in 10 s");
        story.now += RULES.time;
    }
    story.hears(Sign::Failing);
    story.now += RULES.time - secs(1);
    story.hears(Sign::Failing);
    story.now += RULES.time - secs(1);
    assert_eq!(
        story.hears(Sign::Failing),
        Some(Change::Cooling(RULES.time))
    );
}

#[test]
fn services_do_not_count_together() {
    let mut story = Story::cooling();
    story.hears_of("b", Sign::Failing);
    story.hears_of("b", Sign::Failing);
    assert_eq!(story.table.cooling_until("b", story.now), None);
    assert!(!story.table.is_troubled("c"));
    story.hears_of("b", Sign::Alive);
    assert_eq!(story.skips(), Some(RULES.time));
}

#[test]
fn one_request_probes_a_service_whose_time_is_over() {
    let mut story = Story::cooling();
    assert!(!story.probes(), "it cools");
    story.now += RULES.time;
    assert_eq!(story.skips(), None);
    assert!(story.probes());
    assert!(!story.probes());
    assert_eq!(story.skips(), Some(RULES.time), "others skip it");
    story.now += secs(2);
    assert_eq!(story.hears(Sign::Alive), Some(Change::Healthy));
    assert!(story.probes() && story.probes());
    assert_eq!(story.table, Table::default());
}

#[test]
fn a_probe_that_fails_begins_a_new_cooldown() {
    let mut story = Story::cooling();
    story.now += RULES.time;
    assert!(story.probes());
    story.now += secs(4);
    assert_eq!(
        story.hears(Sign::Failing),
        Some(Change::Cooling(RULES.time))
    );
    assert_eq!(story.skips(), Some(RULES.time));
}

#[test]
fn a_probe_that_tells_nothing_makes_room_for_another() {
    let mut story = Story::cooling();
    story.now += RULES.time;
    assert!(story.probes());
    story.now += RULES.time;
    assert!(story.probes());
    assert!(!story.probes());
}

#[test]
fn a_probe_that_is_given_back_makes_room_at_once() {
    let mut story = Story::cooling();
    story.now += RULES.time;
    assert!(story.probes());
    assert!(story.skips().is_some());
    story.table.give_back_probe("a", story.now, &RULES);
    assert_eq!(story.skips(), None);
    assert!(story.probes(), "another one finds out");
    // It is no probe that could be given back where the service cools.
    let mut story = Story::cooling();
    story.table.give_back_probe("a", story.now, &RULES);
    assert!(story.skips().is_some());
}

#[test]
fn a_retry_after_is_heeded_at_once_within_its_limit() {
    let cooling = |seconds| Some(Change::Cooling(secs(seconds)));
    for (asked, change, skipped) in [
        (secs(1), cooling(1), Some(secs(1))),
        (secs(20), cooling(20), Some(secs(20))),
        (secs(3600), cooling(60), Some(secs(60))),
        (Duration::MAX, cooling(60), Some(secs(60))),
        (Duration::ZERO, None, None),
    ] {
        let mut story = Story::begin();
        assert_eq!(story.hears(Sign::RetryAfter(asked)), change, "{asked:?}");
        assert_eq!(story.skips(), skipped, "{asked:?}");
        assert!(story.table.is_troubled("a"));
    }
}

#[test]
fn what_comes_during_a_cooldown_never_shortens_it_but_an_answer_ends_it() {
    let mut story = Story::cooling();
    story.now += secs(2);
    for sign in [Sign::Failing, Sign::RetryAfter(secs(7))] {
        assert_eq!(story.hears(sign), None);
        assert_eq!(story.skips(), Some(secs(8)), "{sign:?}");
    }
    let longer = Sign::RetryAfter(secs(20));
    assert_eq!(story.hears(longer), None, "it had begun already");
    assert_eq!(story.skips(), Some(secs(20)));
    assert_eq!(story.hears(Sign::Alive), Some(Change::Healthy));
    assert_eq!(story.skips(), None);
}

#[test]
fn what_was_long_ago_is_forgotten() {
    let mut story = Story::cooling();
    story.now += RULES.time * 2 - secs(1);
    assert!(story.probes() && !story.probes(), "not yet");
    story.now += RULES.time * 2;
    assert!(story.probes() && story.probes());

    let mut story = Story::cooling();
    story.now += RULES.time * 2;
    assert_eq!(story.hears(Sign::Failing), None, "the first of three");
    let mut story = Story::cooling();
    story.now += RULES.time * 2;
    story.hears_of("b", Sign::Failing);
    assert!(!story.table.is_troubled("a"), "it may not be configured");
}

#[test]
fn a_clock_that_jumps_prolongs_nothing() {
    let mut story = Story::cooling();
    story.now -= Duration::from_millis(900);
    assert_eq!(
        story.skips(),
        Some(Duration::from_millis(10_900)),
        "a clock that is put right, or another worker's"
    );
    assert_eq!(story.hears(Sign::Failing), None);

    for jump in [secs(3600), START] {
        let mut story = Story::cooling();
        story.now -= jump;
        assert_eq!(story.skips(), None);
        assert!(story.probes() && story.probes());
        assert_eq!(story.table, Table::default());
    }
    let mut story = Story::cooling();
    story.now += secs(3600);
    assert_eq!(story.skips(), None);
    story.now = Duration::MAX;
    story.hears(Sign::RetryAfter(secs(1)));
    assert!(story.probes());
}

/// Down for a minute, then healthy again.
#[test]
fn a_flapping_service_is_skipped_while_it_is_down_and_used_again_after() {
    let mut story = Story::begin();
    let step = Duration::from_millis(100);
    let mut reached = Vec::new();
    for tick in 0..900 {
        let since = step * tick;
        let is_up = since < secs(10) || since >= secs(70);
        if story.request(is_up) {
            reached.push(since);
        }
        story.now += step;
    }
    let before = reached.iter().filter(|at| **at < secs(10)).count();
    assert_eq!(before, 100);
    let down: Vec<_> = reached
        .iter()
        .filter(|at| (secs(10)..secs(70)).contains(*at))
        .collect();
    assert!(down.len() <= 3 + 6, "{down:?}");
    let back = *reached.iter().find(|at| **at >= secs(70)).unwrap();
    assert!(back <= secs(80), "{back:?}");
    let after = reached.iter().filter(|at| **at >= back).count();
    assert_eq!(after, ((secs(90) - back).as_millis() / 100) as usize);
}

#[test]
fn what_is_written_can_be_read() {
    let mut story = Story::cooling();
    story.hears_of("b", Sign::Failing);
    story.hears_of("", Sign::RetryAfter(Duration::from_nanos(1)));
    assert_eq!(Table::decode(&story.table.encode()), story.table);
    assert_eq!(Table::default().encode(), [0; 0]);
    let bytes = story.table.encode();
    let entry = Story::cooling().table.encode().len();
    for cut in 1..bytes.len() {
        let whole = Table::decode(&bytes[..cut]) != Table::default();
        assert_eq!(whole, [entry, 2 * entry].contains(&cut), "cut at {cut}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Hear(usize, Sign),
    Probe(usize),
    Wait(Duration),
    Back(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = || select(vec![0, 1, 400, 999, 5_000, 10_000, 30_000, 90_000]);
    let time = move || time().prop_map(Duration::from_millis);
    let sign = prop_oneof![
        1 => Just(Sign::Alive),
        4 => Just(Sign::Failing),
        2 => time().prop_map(Sign::RetryAfter),
    ];
    let step = prop_oneof![
        4 => (0..3_usize, sign).prop_map(|(service, sign)| Step::Hear(service, sign)),
        3 => (0..3_usize).prop_map(Step::Probe),
        4 => time().prop_map(Step::Wait),
        1 => time().prop_map(Step::Back),
    ];
    vec(step, 0..60)
}

proptest! {
    /// Whatever happens: a service is never skipped for longer than the rules allow, nothing is kept of
    /// others, and the bytes say it all.
    #[test]
    fn no_service_is_skipped_for_too_long(steps in steps()) {
        let mut story = Story::begin();
        let names = ["a", "b", "c"];
        let longest = RULES.time.max(RULES.max_retry_after) + secs(1);
        for step in steps {
            match step {
                Step::Hear(service, sign) => drop(story.hears_of(names[service], sign)),
                Step::Probe(service) => {
                    let skipped = story.table.cooling_until(names[service], story.now);
                    let may_use = story.table.begin_probe(names[service], story.now, &RULES);
                    prop_assert_eq!(may_use, skipped.is_none());
                }
                Step::Wait(time) => story.now += time,
                Step::Back(time) => story.now -= time,
            }
            prop_assert_eq!(&Table::decode(&story.table.encode()), &story.table);
            for name in names {
                if let Some(until) = story.table.cooling_until(name, story.now) {
                    prop_assert!(story.table.is_troubled(name));
                    prop_assert!(until > story.now && until <= story.now + longest);
                }
            }
        }
        story.now += secs(100_000);
        for name in names {
            prop_assert_eq!(story.table.cooling_until(name, story.now), None);
            prop_assert!(story.table.begin_probe(name, story.now, &RULES));
        }
    }

    /// Many workers want to probe, and none of the probes gets an answer.
    #[test]
    fn one_probe_is_made_in_each_period(waits in vec(0..3_000_u64, 1..80), workers in 2..9_usize) {
        let mut story = Story::cooling();
        story.now += RULES.time;
        let mut probed: Option<Wall> = None;
        for wait in waits {
            story.now += Duration::from_millis(wait);
            let won = (0..workers).filter(|_| {
                story.table = Table::decode(&story.table.encode());
                story.probes()
            });
            let won = won.count();
            let is_over = probed.is_none_or(|at| story.now >= at + RULES.time);
            prop_assert_eq!(won, usize::from(is_over));
            if is_over {
                probed = Some(story.now);
            }
        }
    }

    /// However often requests come while it is down.
    #[test]
    fn few_requests_reach_a_service_that_is_down(waits in vec(1..2_000_u64, 1..200)) {
        let mut story = Story::begin();
        let mut reached = 0;
        for wait in &waits {
            story.now += Duration::from_millis(*wait);
            reached += u32::from(story.request(false));
        }
        let periods = (story.now - START).as_secs() / RULES.time.as_secs();
        prop_assert!(u64::from(reached) <= u64::from(RULES.failures) + periods);
        story.now += RULES.time;
        prop_assert!(story.request(true), "the probe");
        prop_assert!(story.request(true) && story.request(true));
    }

    #[test]
    fn any_bytes_are_a_table(bytes in vec(any::<u8>(), 0..100), at in any::<u64>()) {
        let now = Duration::from_nanos(at);
        let table = Table::decode(&bytes);
        let _ = table.cooling_until("a", now);
        let again = Table::decode(&table.encode());
        prop_assert_eq!(again, table);
    }

    /// Bytes of the right shape with odd numbers in them.
    #[test]
    fn any_numbers_are_a_table(
        state in prop_oneof![0..4_u64, select(vec![u64::MAX, u64::MAX - 1])],
        times in any::<[u64; 2]>(),
        at in any::<u64>(),
        sign in select(vec![Sign::Alive, Sign::Failing, Sign::RetryAfter(Duration::MAX)]),
    ) {
        let number = |number: u64| number.to_le_bytes().to_vec();
        let name = [number(1), b"a".to_vec()];
        let bytes = [name.concat(), number(state), number(times[0]), number(times[1])].concat();
        let mut story = Story { table: Table::decode(&bytes), now: Duration::from_nanos(at) };
        prop_assert!(story.table.is_troubled("a"));
        let _ = story.skips();
        let _ = story.probes();
        let _ = story.hears(sign);
        let table = Table::decode(&story.table.encode());
        prop_assert_eq!(table.is_troubled("a"), sign != Sign::Alive);
    }
}
